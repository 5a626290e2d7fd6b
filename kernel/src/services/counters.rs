//! The counter itself, held against what else is known of it: its rate, and the other view of it.
//!
//! Neither is ever used for time: what the page says counts.

use core::fmt;

use gnomon_clock::{Fields, Period, Stamp};

use crate::report::hertz;

/// By how many millionths the machine's word for the rate and the page's may differ beyond the
/// page's own error. A clock that NTP steers is off by 500 at most, a crystal by 100; a host that
/// has given us another machine's constants is off by far more.
const TOLERANCE_PPM: u128 = 1000;
/// Ticks by which CNTPCT − CNTVCT may wander: a host that works one of them out rounds it.
const SLACK: u64 = 2;

/// The counter's rate as the machine states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Ticks a second.
    pub hertz: u64,
    /// The unit in which it is stated, Hz.
    pub unit: u64,
    /// Who states it.
    pub source: &'static str,
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} Hz by {}", self.hertz, self.source)
    }
}

impl Rate {
    /// Ticks a second, if they are stated to the last few parts per million.
    #[must_use]
    pub fn as_exact(&self) -> Option<u64> {
        (self.unit <= self.hertz / 1_000_000).then_some(self.hertz)
    }

    /// Whether the page's period says something else: by more than 1000 ppm, the page's own error and the
    /// unit of this statement together. Never for a page without a counter or with an unusable
    /// period.
    #[must_use]
    pub fn contradicts(&self, page: &Fields) -> bool {
        let Some(unit) = self.unit_share() else {
            return false;
        };
        let Ok(period) = Period::new(page.counter_period_frac_sec, page.counter_period_shift)
        else {
            return false;
        };
        let Ok(ticks) = i64::try_from(self.hertz) else {
            return true;
        };
        let error = page.period_maxerror().unwrap_or(0);
        let error = period.rate_outward(self.hertz, error).units();
        let deviation = (period.span(ticks).units() - SECOND.cast_signed()).unsigned_abs();
        deviation > (SECOND / 1_000_000 * TOLERANCE_PPM + unit).saturating_add(error)
    }

    /// One unit as a share of the rate, in 2⁻⁶⁴.
    fn unit_share(&self) -> Option<u128> {
        (SECOND * u128::from(self.unit)).checked_div(u128::from(self.hertz))
    }
}

/// In the unit of time, 2⁻⁶⁴ s.
const SECOND: u128 = 1 << 64;

/// What the page says of the rate, for a line about a contradiction.
pub(crate) struct PageRate<'a>(pub(crate) &'a Fields);

impl fmt::Display for PageRate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match hertz(self.0.counter_period_frac_sec, self.0.counter_period_shift) {
            Some((whole, thousandths)) => write!(f, "{whole}.{thousandths:03} Hz"),
            None => f.write_str("no rate"),
        }
    }
}

/// Watches the difference of the physical counter and the virtual one, which is constant until the
/// host moves one of them: that it does with a new disruption marker, or it breaks a promise.
///
/// The two cannot be read at once. The physical counter is read between two readings of the virtual
/// one, which gives an interval for the difference; intervals are intersected, and one that misses
/// what was known is a change.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    known: Option<Known>,
    shifts: u64,
    latest: Option<Shift>,
}

/// That the difference lies in the `width` ticks from `offset` on, under this marker.
#[derive(Clone, Copy, Debug)]
struct Known {
    offset: u64,
    width: u64,
    marker: u64,
}

/// A change of the difference without a disruption marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shift {
    /// CNTPCT − CNTVCT before, in ticks.
    pub before: i64,
    /// The same after.
    pub after: i64,
    /// The marker that should have changed.
    pub marker: u64,
}

impl fmt::Display for Shift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "CNTPCT-CNTVCT was {} and is {} ticks without a disruption, marker {:#x}",
            self.before, self.after, self.marker
        )
    }
}

impl Watch {
    /// Nothing has been seen yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            known: None,
            shifts: 0,
            latest: None,
        }
    }

    /// Takes a reading of the physical counter between two stamps. Returns the change that nobody has
    /// announced, if this shows one.
    pub fn look(&mut self, before: Stamp, physical: u64, after: Stamp) -> Option<Shift> {
        // A counter that went back is for the audit to tell.
        let width = u64::try_from(after.ticks.since(before.ticks)).ok()?;
        if before.marker != after.marker {
            return None;
        }
        let now = Known {
            offset: physical.wrapping_sub(after.ticks.0).wrapping_sub(SLACK),
            width: width.saturating_add(2 * SLACK),
            marker: after.marker,
        };
        let known = self.known.filter(|known| known.marker == now.marker);
        let both = known.map(|known| known.and(&now));
        self.known = Some(both.flatten().unwrap_or(now));
        let (Some(known), Some(None)) = (known, both) else {
            return None;
        };
        let shift = Shift {
            before: known.middle(),
            after: now.middle(),
            marker: now.marker,
        };
        self.shifts = self.shifts.saturating_add(1);
        self.latest = Some(shift);
        Some(shift)
    }

    /// CNTPCT − CNTVCT in ticks, and how many it may be more or less; `None` while nothing is known of
    /// it.
    #[must_use]
    pub fn offset(&self) -> Option<(i64, u64)> {
        self.known
            .map(|known| (known.middle(), known.width.div_ceil(2)))
    }

    /// Changes that nobody has announced.
    #[must_use]
    pub const fn shifts(&self) -> u64 {
        self.shifts
    }

    /// The latest of them.
    #[must_use]
    pub const fn latest(&self) -> Option<&Shift> {
        self.latest.as_ref()
    }
}

impl Known {
    /// What both say; `None` if they cannot both be right. Offsets wrap, so distances are signed.
    fn and(&self, other: &Self) -> Option<Self> {
        let distance = other.offset.wrapping_sub(self.offset).cast_signed();
        let (first, second) = if distance < 0 {
            (other, self)
        } else {
            (self, other)
        };
        let rest = first.width.checked_sub(distance.unsigned_abs())?;
        Some(Self {
            width: rest.min(second.width),
            ..*second
        })
    }

    fn middle(&self) -> i64 {
        self.offset.wrapping_add(self.width / 2).cast_signed()
    }
}
