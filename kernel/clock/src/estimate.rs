//! A line through cross-time-stamps, with a bound that is an argument: intersection of intervals, and
//! nothing averaged.
//!
//! # What is assumed
//!
//! 1. Each sample is true: while the counter stood somewhere in its bracket, time was within `time` ±
//!    `error`.
//! 2. The counter wanders by at most w ([`Wander`]): there is one period P̄ such that over *any* stretch of
//!    the counter, from the oldest sample in use to the end of the line's use, the mean tick lasts between
//!    P̄·(1 − w) and P̄·(1 + w).
//! 3. If a nominal frequency is given ([`Prior`]), or measured by a timer ([`Calibration`]), P̄ is within it. Without one, P̄ is that of a
//!    counter between [`LOWEST_HERTZ`] and [`HIGHEST_HERTZ`].
//!
//! # What follows
//!
//! Let t(x) be true time when the counter, seen as running evenly through each tick, stands at x. A
//! counter that was read as `after` stood below `after` + 1; so with a = `after` + 1 and b = `before`,
//! and since time does not go back, a sample says t(a) ≥ T − e and t(b) ≤ T + e.
//!
//! *The period.* Two samples, the later one marked ′, give for the mean tick over \[a, b′\] at most
//! (T′ + e′ − T + e) / (b′ − a), and over \[b, a′\] at least (T′ − e′ − T − e) / (a′ − b). P̄ is at most the
//! former / (1 − w), and at least the latter / (1 + w). All pairs are intersected, with each other and
//! with 3.
//!
//! *The time.* Every tick, by 2, lasts between R₋ = P̄₋·(1 − w) and R₊ = P̄₊·(1 + w). At C1, the `after` of the
//! newest sample, each sample bounds t(C1) from below, by T − e + (C1 − a)·R₋ (R₊ where C1 < a), and from
//! above, by T + e + (C1 − b)·R₊. All of these are intersected.
//!
//! *The line.* With T1 and P in the middle, and the half-widths of the two intervals as the errors of
//! time and period, truth at any C on either side of C1 is within E1 + |C − C1|·`E_P`, which is the very claim
//! of a page; the tick and the truncation of [`Timeline`] come on top. Every division and every half is
//! rounded outward, in units of 2⁻⁶⁴ s and 2⁻⁸⁰ s a tick.
//!
//! # When there is none
//!
//! If an intersection is empty, one of the assumptions is wrong, and nobody can say which. Nothing is
//! averaged: the line is dropped ([`Disagreement`]), the nominal frequency is not believed any more, and
//! the newest sample starts anew. Its line is used only when another sample has fallen where the
//! line put it: the third without a nominal frequency, as two samples cannot contradict each other then.
//! So a clock that was set, by ever so little more than the bounds, costs two or three samples without
//! time; one outlier as much; and a source that keeps on contradicting itself never gives any time.
//!
//! A new disruption marker starts anew without such doubts, but without the frequency also, until it
//! is given or measured again ([`Estimator::set_prior`]): the host may be another one.

use core::fmt;

use crate::compare::Difference;
use crate::cross::{CrossTimestamp, Source};
use crate::leap::OperatorOffset;
use crate::page::ClockStatus;
use crate::scale::Period;
use crate::time::{Bound, Span, Ticks, Timestamp};
use crate::timeline::{Line, Timeline, Unusable};

mod calibration;
mod interval;
mod uniform;

use interval::{Rates, Sample, middle, saturated};
use uniform::Scale;

pub use calibration::{Calibration, TIMER_HERTZ};
pub use interval::{HIGHEST_HERTZ, LOWEST_HERTZ, Prior, Wander};

/// How many samples are in use, the newest ones.
pub const SAMPLES: usize = 8;

/// Rates are in 2^−(64+16) s a tick: a tick of the slowest counter fits with room for its errors, and one of
/// the fastest is told to 10⁻¹⁴.
const SHIFT: u8 = 16;

/// When a line is not to be used any more, whatever its bound says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The greatest age of the newest sample, in seconds.
    pub max_age: u32,
    /// The greatest bound.
    pub max_bound: Bound,
}

impl Limits {
    /// A day, over which the wander can be vouched for, and the 16 s from which NTP takes a clock for
    /// unsynchronized (`MAXDISP`, RFC 5905 §7.2).
    pub const DEFAULT: Self = Self {
        max_age: 86_400,
        max_bound: Bound::from_nanos(16_000_000_000),
    };
}

/// Turns the cross-time-stamps of one source into a line, in fixed memory.
///
/// ```
/// use gnomon_clock::{
///     Bound, Bracket, ClockStatus, CrossTimestamp, Estimator, Limits, Prior, Source, SourceTime, Ticks,
///     Timestamp, Wander,
/// };
///
/// let mut estimator = Estimator::new(Source::VirtioRtc, Wander::STEERED, Limits::DEFAULT);
/// let nominal = Prior::from_hertz(1_000_000_000, 1_000_000).ok_or("no such counter")?;
/// estimator.set_prior(Some(nominal), 7);
/// estimator.add(&CrossTimestamp {
///     bracket: Bracket { before: Ticks(5_000_000), after: Ticks(5_100_000), marker: 7 },
///     time: SourceTime::Utc(Timestamp::from_parts(1_795_176_331, 0)),
///     error: Bound::from_nanos(1),
///     tai_offset: None,
///     leap: None,
///     status: ClockStatus::Freerunning,
/// })?;
/// let reading = estimator.timeline()?.at(Ticks(5_100_000))?;
/// // Half the way there and back, and 1 ns on either side.
/// assert!((50_002..51_000).contains(&reading.bound.nanos()));
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Estimator {
    source: Source,
    wander: Wander,
    limits: Limits,
    /// And the marker that it was read under.
    prior: Option<(Prior, u64)>,
    /// Samples have contradicted it.
    is_refuted: bool,
    /// The newest first, all of one marker and on one uniform scale.
    samples: [Option<Sample>; SAMPLES],
    /// The marker of these.
    marker: u64,
    scale: Scale,
    /// The samples before these contradicted them, and nothing has confirmed these.
    contested: bool,
}

impl Estimator {
    /// Nothing is known yet.
    #[must_use]
    pub const fn new(source: Source, wander: Wander, limits: Limits) -> Self {
        Self {
            source,
            wander,
            limits,
            prior: None,
            is_refuted: false,
            samples: [None; SAMPLES],
            marker: 0,
            scale: Scale::new(),
            contested: false,
        }
    }

    /// The estimator with an operator's TAI − UTC, in force at the first sample, for sources that do not
    /// tell it; as for a page ([`OperatorOffset`]).
    #[must_use]
    pub const fn with_operator_offset(mut self, offset: OperatorOffset) -> Self {
        self.scale.almanac.operator = Some(offset);
        self
    }

    /// Gives the nominal frequency of the counter, or takes it away. It holds for samples under
    /// `marker`, which is to be read *before* the register that tells the frequency; 0 without a page.
    pub const fn set_prior(&mut self, prior: Option<Prior>, marker: u64) {
        self.is_refuted = false;
        self.prior = match prior {
            Some(prior) => Some((prior, marker)),
            None => None,
        };
    }

    /// Gives a better one, or takes it away, unless samples have refuted what was given before. If they refute this
    /// one, it is as after a disagreement: nothing is kept.
    pub fn refine_prior(&mut self, prior: Option<Prior>, marker: u64) {
        if self.is_refuted {
            return;
        }
        self.set_prior(prior, marker);
        if self.solve().is_err() {
            self.doubt();
        }
    }

    /// One of the assumptions is wrong.
    const fn doubt(&mut self) {
        self.prior = None;
        self.is_refuted = true;
        self.forget();
        self.contested = true;
    }

    /// Takes a sample in. Samples come in the order of their `after`.
    ///
    /// # Errors
    /// Why it is not used; or, with [`Rejected::Disagreement`], that only it is, and the older ones are not.
    pub fn add(&mut self, sample: &CrossTimestamp) -> Result<(), Rejected> {
        if sample.bracket.marker != self.marker {
            self.forget();
            self.marker = sample.bracket.marker;
        }
        let (new, scale) = self.scale.resolve(sample)?;
        if let (Some(known), Some(calendar)) = (self.scale.calendar, scale.calendar)
            && known.is_tai != calendar.is_tai
        {
            // On another scale the older ones have no place.
            self.samples = [None; SAMPLES];
        }
        let predicted = self.solve();
        let went_back =
            matches!(self.samples, [Some(newest), ..] if new.after.since(newest.after) < 0);
        let conflict = if went_back {
            Conflict::Counter
        } else {
            self.push(new);
            match self.solve() {
                Ok(_) => {
                    self.scale = scale;
                    // Confirmed by falling where a line put it, and by nothing less.
                    self.contested &= !matches!(predicted, Ok(Some(_)));
                    return Ok(());
                }
                Err(conflict) => conflict,
            }
        };
        self.doubt();
        // What is known of leap seconds stays as it was until this sample is confirmed.
        if let Ok((new, scale)) = self.scale.resolve(sample) {
            self.push(new);
            self.scale.calendar = scale.calendar;
        }
        let calendar = scale.calendar.filter(|calendar| calendar.is_tai);
        let offset = calendar.and_then(|calendar| calendar.offset);
        let difference = match (conflict, predicted) {
            (Conflict::Period | Conflict::Time, Ok(Some(line))) => {
                Some(line.difference(&new, offset))
            }
            _ => None,
        };
        Err(Rejected::Disagreement(Disagreement {
            conflict,
            difference,
        }))
    }

    fn push(&mut self, sample: Sample) {
        self.samples.rotate_right(1);
        let [newest, ..] = &mut self.samples;
        *newest = Some(sample);
    }

    /// Forgets the samples: a disruption has been seen. What is known of leap seconds stays.
    pub const fn forget(&mut self) {
        self.samples = [None; SAMPLES];
        self.scale.calendar = None;
        self.contested = false;
    }

    /// The line through the samples in use.
    ///
    /// # Errors
    /// Why there is none (yet).
    pub fn timeline(&self) -> Result<Timeline, NoLine> {
        let Some(calendar) = self.scale.calendar else {
            return Err(NoLine::NoSample);
        };
        // What contradicts itself is not kept.
        let Ok(Some(solution)) = self.solve() else {
            return Err(NoLine::PeriodUnknown);
        };
        if self.contested {
            return Err(NoLine::Unconfirmed);
        }
        let usable_ticks = solution.usable_ticks(&self.limits).ok_or(NoLine::TooWide)?;
        let reference = Timestamp::from_parts(0, 0)
            .checked_add(Span::from_units(solution.time))
            .ok_or(NoLine::Unusable(Unusable::OutOfRange))?;
        let line = Line {
            counter: solution.counter,
            reference,
            period: Period::new(solution.rate, SHIFT).map_err(NoLine::Unusable)?,
            time_error: Bound::from_units(solution.time_error),
            period_error: solution.rate_error,
            usable_ticks,
            is_tai: calendar.is_tai,
            utc: calendar.offset.map(|before| (before, calendar.leap)),
            tells_offset: calendar.tells_offset,
            invalid_tai_offset: calendar.invalid_tai_offset,
            operator: self.scale.almanac.operator,
            status: calendar.status,
            marker: self.marker,
            source: self.source,
        };
        Timeline::from_line(&line).map_err(NoLine::Unusable)
    }

    /// The source that the samples are of.
    #[must_use]
    pub const fn source(&self) -> Source {
        self.source
    }

    /// How many samples are in use.
    #[must_use]
    pub fn count(&self) -> usize {
        self.samples.iter().flatten().count()
    }

    fn prior(&self) -> Option<Prior> {
        let (prior, marker) = self.prior?;
        (marker == self.marker).then_some(prior)
    }

    /// The intersections; `None` while too little is known of the period.
    fn solve(&self) -> Result<Option<Solution>, Conflict> {
        let [Some(newest), ..] = self.samples else {
            return Ok(None);
        };
        let mean = self.mean_rates()?;
        // A sixteenth to either side, of samples too near each other, is not worth to be called a period.
        if self.prior().is_none() && mean.high - mean.low > mean.low / 8 {
            return Ok(None);
        }
        let rates = mean.wandering(self.wander);
        let counter = newest.after;
        let (mut earliest, mut latest) = (i128::MIN, i128::MAX);
        for sample in self.samples.iter().flatten() {
            earliest = earliest.max(sample.earliest + rates.least(sample.ticks_to(counter)));
            latest = latest.min(sample.latest + rates.most(sample.ticks_from_before_to(counter)));
        }
        if earliest > latest {
            return Err(Conflict::Time);
        }
        let (time, time_error) = middle(earliest, latest);
        let rate_error = (rates.high - rates.low).div_ceil(2);
        Ok(Some(Solution {
            counter,
            time,
            time_error,
            rate: rates.high - rate_error,
            rate_error,
        }))
    }

    /// P̄ by what is known beforehand and every pair of samples.
    fn mean_rates(&self) -> Result<Rates, Conflict> {
        let mut rates = self.prior().map_or(Rates::PLAUSIBLE, |prior| prior.0);
        for (index, later) in self.samples.iter().flatten().enumerate() {
            for earlier in self.samples.iter().flatten().skip(index + 1) {
                rates = rates.intersected(Rates::between(earlier, later, self.wander));
            }
        }
        if rates.low > rates.high {
            return Err(Conflict::Period);
        }
        Ok(rates)
    }
}

/// The middle of all that is possible, and the way to its ends.
struct Solution {
    counter: Ticks,
    time: i128,
    time_error: u128,
    rate: u64,
    rate_error: u64,
}

impl Solution {
    /// For how many ticks the line stays within `limits`; `None` if it does not begin to.
    fn usable_ticks(&self, limits: &Limits) -> Option<u64> {
        let fastest = u128::from(self.rate) + u128::from(self.rate_error);
        let by_age = (u128::from(limits.max_age) << (64 + SHIFT)) / fastest;
        // The tick and the roundings of a reading's bound, and a tick of drift.
        let fixed =
            Bound::from_units(self.time_error).plus(Bound::from_units((fastest >> SHIFT) + 4));
        let room = limits.max_bound.units().checked_sub(fixed.units())?;
        let room = room.min(u128::MAX >> SHIFT) << SHIFT;
        let by_bound = room / u128::from(self.rate_error.max(1));
        Some(saturated(by_age.min(by_bound)))
    }

    /// By how much a sample is off this line.
    fn difference(&self, sample: &Sample, offset: Option<i16>) -> Difference {
        let rates = Rates {
            low: self.rate - self.rate_error,
            high: self.rate.saturating_add(self.rate_error),
        };
        // Both at the end of the bracket.
        let ticks = i128::from(sample.after.since(self.counter));
        let bracket = i128::from(sample.after.since(sample.before));
        let (line, line_error) = middle(
            self.time - self.time_error.cast_signed() + rates.least(ticks),
            self.time + self.time_error.cast_signed() + rates.most(ticks),
        );
        let (sample, sample_error) = middle(
            sample.earliest + rates.least(-1),
            sample.latest + rates.most(bracket),
        );
        Difference::new(
            Span::from_units(sample - line),
            Bound::from_units(line_error).plus(Bound::from_units(sample_error)),
            offset,
        )
    }
}

/// Why a sample is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// The counter went back inside the bracket.
    Reversed,
    /// The source does not vouch for its clock, not even for having been right once.
    Status(ClockStatus),
    /// The time is before 1970 or beyond 2⁴⁰ s, or the error half a year.
    OutOfRange,
    /// A UTC that may be within a second of a leap second: one code, and two instants.
    LeapSecond,
    /// It contradicts the samples before it, which have been dropped: it is the only one now.
    Disagreement(Disagreement),
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reversed => f.write_str("counter went back while the source was read"),
            Self::Status(status) => write!(f, "the source says {status}"),
            Self::OutOfRange => f.write_str("the source's time is out of range"),
            Self::LeapSecond => f.write_str("too near a leap second"),
            Self::Disagreement(disagreement) => disagreement.fmt(f),
        }
    }
}

impl core::error::Error for Rejected {}

/// A sample and those before it cannot all be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// What has no solution.
    pub conflict: Conflict,
    /// How far the sample is from where it was expected, if there was a line: by the source's own
    /// bounds, and named.
    pub difference: Option<Difference>,
}

/// What has no solution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Conflict {
    /// The counter went back.
    Counter,
    /// No period fits.
    Period,
    /// No time fits.
    Time,
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.conflict {
            Conflict::Counter => "counter went back",
            Conflict::Period => "the source contradicts itself, or the counter's frequency",
            Conflict::Time => "the source contradicts itself",
        })?;
        match &self.difference {
            Some(difference) => write!(f, ": {difference}"),
            None => Ok(()),
        }
    }
}

/// Why there is no line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoLine {
    /// There is no sample.
    NoSample,
    /// There is no nominal frequency, and one sample, or several that are too near each other.
    PeriodUnknown,
    /// The source has contradicted itself, and no sample has confirmed the latest yet.
    Unconfirmed,
    /// The bound exceeds its limit from the beginning.
    TooWide,
    /// The line cannot be read.
    Unusable(Unusable),
}

impl fmt::Display for NoLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSample => f.write_str("not read yet"),
            Self::PeriodUnknown => f.write_str("the counter's period is not known yet"),
            Self::Unconfirmed => f.write_str("not confirmed since it contradicted itself"),
            Self::TooWide => f.write_str("the error is greater than allowed"),
            Self::Unusable(why) => why.fmt(f),
        }
    }
}

impl core::error::Error for NoLine {}
