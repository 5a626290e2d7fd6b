//! What samples leave open: intervals of time and of the counter's rate, rounded outward.

use crate::estimate::SHIFT;
use crate::time::Ticks;

/// The slowest counter a line is drawn for: 100 kHz.
pub const LOWEST_HERTZ: u64 = 100_000;
/// The fastest: 10 GHz.
pub const HIGHEST_HERTZ: u64 = 10_000_000_000;

const BILLION: u32 = 1_000_000_000;

/// By how much the mean tick over any stretch may differ from that over all, in 10⁻⁹ of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wander(u32);

impl Wander {
    /// 50 ppm, against true time: what the plain quartz of a computer may do between the coldest and
    /// the hottest it is made for, so that over hours in a machine room it is an order of magnitude more than
    /// seen. For sources that tell true time with an error of their own, as NTP does.
    pub const CRYSTAL: Self = Self(50_000);

    /// 550 ppm, against the host's clock: its quartz, and the 500 ppm by which the Linux kernel steers a
    /// clock at most (`MAXFREQ`, and `adjtime`). For sources that read a clock which is steered. A host
    /// that does it faster by altering the length of its tick is found out by the next sample.
    pub const STEERED: Self = Self(550_000);

    /// A wander in parts per billion; `None` above a tenth.
    #[must_use]
    pub const fn from_ppb(ppb: u32) -> Option<Self> {
        if ppb > BILLION / 10 {
            return None;
        }
        Some(Self(ppb))
    }

    /// The wander in parts per billion.
    #[must_use]
    pub const fn ppb(self) -> u32 {
        self.0
    }
}

/// What is known of a counter's period beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prior(pub(super) Rates);

impl Prior {
    /// A nominal frequency (`CNTFRQ`, CPUID) that is off by at most `tolerance` parts per billion of it;
    /// `None` when it lies outside [`LOWEST_HERTZ`]..=[`HIGHEST_HERTZ`], or the tolerance above a tenth.
    ///
    /// Against a steered clock the tolerance has to have the steering in it, as [`Wander::STEERED`] has.
    #[must_use]
    pub const fn from_hertz(hertz: u64, tolerance: u32) -> Option<Self> {
        if hertz < LOWEST_HERTZ || hertz > HIGHEST_HERTZ || tolerance > BILLION / 10 {
            return None;
        }
        Some(Self(Rates {
            low: rate_of(hertz, BILLION + tolerance, false),
            high: rate_of(hertz, BILLION - tolerance, true),
        }))
    }
}

/// What a sample says: t(`after` + 1) ≥ `earliest`, t(`before`) ≤ `latest`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) before: Ticks,
    pub(super) after: Ticks,
    /// In 2⁻⁶⁴ s since 1970 on the uniform scale.
    pub(super) earliest: i128,
    pub(super) latest: i128,
}

impl Sample {
    /// Ticks from the end of the bracket to `counter`.
    pub(super) fn ticks_to(&self, counter: Ticks) -> i128 {
        i128::from(counter.since(self.after)) - 1
    }

    /// Ticks from its beginning.
    pub(super) fn ticks_from_before_to(&self, counter: Ticks) -> i128 {
        i128::from(counter.since(self.before))
    }
}

/// An interval of rates, in 2⁻⁸⁰ s a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rates {
    pub(super) low: u64,
    pub(super) high: u64,
}

impl Rates {
    pub(super) const PLAUSIBLE: Self = Self {
        low: rate_of(HIGHEST_HERTZ, BILLION, false),
        high: rate_of(LOWEST_HERTZ, BILLION, true),
    };
    const ALL: Self = Self {
        low: 0,
        high: u64::MAX,
    };

    pub(super) fn intersected(self, other: Self) -> Self {
        Self {
            low: self.low.max(other.low),
            high: self.high.min(other.high),
        }
    }

    /// P̄ by two samples.
    pub(super) fn between(earlier: &Sample, later: &Sample, wander: Wander) -> Self {
        let inner = earlier.ticks_to(later.before);
        let outer = i128::from(later.after.since(earlier.before)) + 1;
        let (most, least) = (
            later.latest - earlier.earliest,
            later.earliest - earlier.latest,
        );
        let mut rates = Self::ALL;
        if inner > 0 {
            // Not negative: no time at all for more than no ticks is no rate.
            let rate = quotient(most.max(0) << SHIFT, inner, true);
            rates.high = scaled(rate, BILLION, BILLION - wander.0, true);
        }
        if least > 0 && outer > 0 {
            let rate = quotient(least << SHIFT, outer, false);
            rates.low = scaled(rate, BILLION, BILLION + wander.0, false);
        }
        rates
    }

    /// The rates at any moment, when these are those of the mean.
    pub(super) fn wandering(self, wander: Wander) -> Self {
        Self {
            low: scaled(self.low, BILLION - wander.0, BILLION, false),
            high: scaled(self.high, BILLION + wander.0, BILLION, true),
        }
    }

    /// The least time of `ticks`, in 2⁻⁶⁴ s; ticks back count the more.
    pub(super) fn least(self, ticks: i128) -> i128 {
        time_of(ticks, if ticks < 0 { self.high } else { self.low })
    }

    /// The greatest.
    pub(super) fn most(self, ticks: i128) -> i128 {
        -time_of(-ticks, if ticks < 0 { self.low } else { self.high })
    }
}

/// `ticks`·`rate`, rounded down. Ticks are at most 2⁶³ of either sign: a whole 2¹²⁷ fits.
fn time_of(ticks: i128, rate: u64) -> i128 {
    ticks.saturating_mul(rate.into()) >> SHIFT
}

/// The rate of a counter of `hertz`·`parts`/10⁹.
const fn rate_of(hertz: u64, parts: u32, up: bool) -> u64 {
    // Below 2¹¹⁰, and 2⁸⁰ / 90 kHz is below 2⁶⁴.
    let numerator = (1_u128 << (64 + SHIFT)) * BILLION as u128;
    let denominator = hertz as u128 * parts as u128;
    saturated(numerator / denominator + (up && !numerator.is_multiple_of(denominator)) as u128)
}

/// The quotient of two numbers that are not negative.
pub(super) fn quotient(numerator: i128, denominator: i128, up: bool) -> u64 {
    let (numerator, denominator) = (numerator.unsigned_abs(), denominator.unsigned_abs());
    saturated(if up {
        numerator.div_ceil(denominator)
    } else {
        numerator / denominator
    })
}

pub(super) fn scaled(rate: u64, by: u32, of: u32, up: bool) -> u64 {
    quotient(i128::from(rate) * i128::from(by), of.into(), up)
}

pub(super) const fn saturated(value: u128) -> u64 {
    if value > u64::MAX as u128 {
        return u64::MAX;
    }
    #[expect(clippy::cast_possible_truncation, reason = "compared just above")]
    let value = value as u64;
    value
}

/// The middle of an interval, and how far the farther end is.
pub(super) fn middle(low: i128, high: i128) -> (i128, u128) {
    let width = (high - low).unsigned_abs();
    let half = width / 2;
    (low + half.cast_signed(), width - half)
}
