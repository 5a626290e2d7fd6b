//! Smeared UTC: leap seconds spread over a stretch of time, for clients that cannot take them.
//!
//! Computed at the edge from true time and never mixed into it. Let e be uniform time since the
//! start of 23:59:60, or since the midnight that came a second early, and L the length of the window
//! from a to b. Then smeared time is the old UTC carried on, less (e − a)/L seconds for an inserted
//! second and more by that for one left out: it leaves UTC at a and meets the new UTC at b.
//!
//! | | leap | a | b | L |
//! |---|---|---|---|---|
//! | noon to noon | inserted | −43 200 s | 43 201 s | 86 401 s |
//! | noon to noon | left out | −43 199 s | 43 200 s | 86 399 s |
//! | UTC-SLS | inserted | −999 s (23:43:21) | 1 s | 1000 s |
//! | UTC-SLS | left out | −1000 s (23:43:19) | 0 s | 1000 s |
//!
//! The page's indicator covers both windows: `PRE_*` holds for the month before, `POST_*` for the
//! month after. A host that says nothing before the last noon makes the smear begin late, with a
//! step; one that drops `POST_*` early would end it with one, which is why a [`Smearer`] remembers.
//! What nobody remembers, after a reboot in that half day, is not smeared.

use crate::leap::{Leap, LeapSecond, UtcTime};
use crate::page::SmearingHint;
use crate::time::{Bound, Span, Timestamp, Utc};
use crate::timeline::Reading;

/// How leap seconds are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Smear {
    /// Evenly from noon to noon UTC, about the leap second: a day of 86 400 smeared seconds that
    /// takes one more or less. Off UTC by up to half a second, 11.6 ppm.
    NoonLinear,
    /// UTC-SLS (draft-kuhn-leapsecond-00): over the 1000 seconds of UTC that end with the leap
    /// second, 0.1 %.
    UtcSls,
}

impl Smear {
    /// What the page's hint asks for; `None` for strict UTC.
    #[must_use]
    pub const fn from_hint(hint: SmearingHint) -> Option<Self> {
        match hint {
            SmearingHint::Strict => None,
            SmearingHint::NoonLinear => Some(Self::NoonLinear),
            SmearingHint::UtcSls => Some(Self::UtcSls),
        }
    }

    /// Smeared UTC at a reading, by the leap second that its page tells of. Without a leap second
    /// it is UTC; `None` where UTC is not known.
    #[must_use]
    pub fn utc(self, reading: &Reading) -> Option<Smeared> {
        self.with_leap(reading, reading.leap)
    }

    fn with_leap(self, reading: &Reading, leap: Option<LeapSecond>) -> Option<Smeared> {
        let utc = reading.utc?;
        let plain = Smeared {
            time: utc.time,
            offset: Span::ZERO,
            bound: reading.bound,
            utc_bound: reading.bound,
        };
        let Some(leap) = leap else {
            return Some(plain);
        };
        // Beyond the range it is long over.
        let elapsed = leap.elapsed(&utc).map_or(i128::MAX, Span::units);
        let (begin, length) = self.window(leap.kind);
        let since_begin = elapsed.saturating_sub(i128::from(begin) << 64);
        let end = i128::from(length) << 64;

        // Truth runs through the window faster than through UTC if a second is to be made up for.
        let reach = i128::try_from(reading.bound.units()).unwrap_or(i128::MAX);
        let touches =
            since_begin.saturating_add(reach) >= 0 && since_begin.saturating_sub(reach) <= end;
        let stretch = match leap.kind {
            Leap::Delete if touches => {
                Bound::from_units(reading.bound.units().div_ceil(length.into()))
            }
            _ => Bound::ZERO,
        };
        if since_begin <= 0 || since_begin >= end {
            let bound = reading.bound.plus(stretch);
            return Some(Smeared { bound, ..plain });
        }

        // Of one second, rounded down: short by less than a unit.
        let smeared = since_begin / i128::from(length);
        let before = before_leap(&utc, leap)?;
        let time = match leap.kind {
            Leap::Insert => before.checked_sub(Span::from_units(smeared))?,
            Leap::Delete => before.checked_add(Span::from_units(smeared))?,
        };
        let offset = time.since(utc.time)?;
        Some(Smeared {
            time,
            offset,
            bound: reading.bound.plus(stretch).plus(ROUNDING),
            utc_bound: reading
                .bound
                .plus(Bound::from_units(offset.units().unsigned_abs())),
        })
    }

    /// Begin after the leap second and length, in seconds.
    const fn window(self, leap: Leap) -> (i32, u32) {
        match (self, leap) {
            (Self::NoonLinear, Leap::Insert) => (-43_200, 86_401),
            (Self::NoonLinear, Leap::Delete) => (-43_199, 86_399),
            (Self::UtcSls, Leap::Insert) => (-999, 1000),
            (Self::UtcSls, Leap::Delete) => (-1000, 1000),
        }
    }
}

const ROUNDING: Bound = Bound::from_units(1);

/// The old UTC carried on: as if there were no leap second.
fn before_leap(utc: &UtcTime, leap: LeapSecond) -> Option<Timestamp<Utc>> {
    let second = Span::from_seconds(1);
    match leap.kind {
        Leap::Insert if utc.leap_second || utc.time >= leap.month => utc.time.checked_add(second),
        Leap::Delete if utc.time >= leap.month => utc.time.checked_sub(second),
        _ => Some(utc.time),
    }
}

/// Smeared UTC at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Smeared {
    /// Smeared time: 86 400 seconds to every day, none repeated or missing.
    pub time: Timestamp<Utc>,
    /// Smeared time less POSIX-coded UTC; zero outside the window.
    pub offset: Span,
    /// Smeared time of the true instant lies within ± this of `time`.
    pub bound: Bound,
    /// And UTC, on a uniform scale, within ± this: for clients that do not know of the smear.
    pub utc_bound: Bound,
}

/// Smeared UTC from reading to reading. It remembers the leap second until its window is over, so
/// that a host which drops `POST_*` early does not end the smear with a step.
#[derive(Clone, Copy, Debug)]
pub struct Smearer {
    smear: Smear,
    /// The last leap second told of, and TAI − UTC after it where that is known.
    last: Option<(LeapSecond, Option<i16>)>,
}

impl Smearer {
    /// A smearer that knows of no leap second yet.
    #[must_use]
    pub const fn new(smear: Smear) -> Self {
        Self { smear, last: None }
    }

    /// How it smears.
    #[must_use]
    pub const fn smear(&self) -> Smear {
        self.smear
    }

    /// Smeared UTC at a reading; `None` where UTC is not known.
    pub fn utc(&mut self, reading: &Reading) -> Option<Smeared> {
        let utc = reading.utc?;
        let leap = match (reading.leap, self.last) {
            (Some(leap), _) => {
                let over = !utc.leap_second && utc.time >= leap.month;
                let change = if over { 0 } else { leap.kind.change() };
                let after = reading.tai_offset.map(|offset| offset + change);
                self.last = Some((leap, after));
                Some(leap)
            }
            // Past for certain, and not taken back: TAI − UTC is what it was to be.
            (None, Some((leap, after)))
                if utc.time >= leap.month && after == reading.tai_offset =>
            {
                Some(leap)
            }
            // Not announced any more before it came, or not what happened.
            (None, _) => {
                self.last = None;
                None
            }
        };
        self.smear.with_leap(reading, leap)
    }
}
