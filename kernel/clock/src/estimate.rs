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
//! 3. If a nominal frequency is given ([`Prior`]), P̄ is within it. Without one, P̄ is that of a
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
//! A new disruption marker starts anew without such doubts, but without the nominal frequency also, until it
//! is given again ([`Estimator::set_prior`]): the host may be another one.

use core::fmt;

use crate::calendar::{self, DAY};
use crate::compare::Difference;
use crate::cross::{CrossTimestamp, Source, SourceTime};
use crate::leap::{Leap, LeapRule, LeapSecond, OperatorOffset};
use crate::page::{ClockStatus, LeapIndicator};
use crate::scale::Period;
use crate::time::{Bound, Span, Ticks, Timestamp};
use crate::timeline::{Line, Timeline, Unusable};

/// How many samples are in use, the newest ones.
pub const SAMPLES: usize = 8;

/// The slowest counter a line is drawn for: 100 kHz.
pub const LOWEST_HERTZ: u64 = 100_000;
/// The fastest: 10 GHz.
pub const HIGHEST_HERTZ: u64 = 10_000_000_000;

/// Rates are in 2^−(64+16) s a tick: a tick of the slowest counter fits with room for its errors, and one of
/// the fastest is told to 10⁻¹⁴.
const SHIFT: u8 = 16;

const BILLION: u32 = 1_000_000_000;

/// Beyond either the sums might not fit: times from the year 36 812 on, and errors of half a year.
const LATEST: i64 = 1 << 40;
const GREATEST_ERROR: u128 = 1 << 88;

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
pub struct Prior(Rates);

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
    /// The newest first, all of one marker and on one uniform scale.
    samples: [Option<Sample>; SAMPLES],
    /// The marker of these.
    marker: u64,
    /// What the newest one says beside the time.
    calendar: Option<Calendar>,
    almanac: Almanac,
    /// The samples before these contradicted them, and nothing has confirmed these.
    contested: bool,
}

/// What a sample says: t(`after` + 1) ≥ `earliest`, t(`before`) ≤ `latest`.
#[derive(Clone, Copy, Debug)]
struct Sample {
    before: Ticks,
    after: Ticks,
    /// In 2⁻⁶⁴ s since 1970 on the uniform scale.
    earliest: i128,
    latest: i128,
}

/// How the uniform scale of the samples has to do with TAI and UTC.
#[derive(Clone, Copy, Debug)]
struct Calendar {
    /// Whether it is TAI.
    is_tai: bool,
    /// By how much it is ahead of UTC until `leap`, or always; none where that is not known.
    offset: Option<i16>,
    leap: Option<LeapSecond>,
    /// The source tells TAI − UTC; or tries to.
    tells_offset: bool,
    invalid_tai_offset: bool,
    status: ClockStatus,
}

/// What is known of leap seconds, whatever becomes of the counter.
#[derive(Clone, Copy, Debug)]
struct Almanac {
    /// The one that is ahead, or was at the beginning of this month.
    leap: Option<LeapSecond>,
    /// The operator's TAI − UTC in force at `second`.
    operator: Option<OperatorOffset>,
    /// UTC at the newest sample.
    second: Option<i64>,
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
            samples: [None; SAMPLES],
            marker: 0,
            calendar: None,
            almanac: Almanac {
                leap: None,
                operator: None,
                second: None,
            },
            contested: false,
        }
    }

    /// The estimator with an operator's TAI − UTC, in force at the first sample, for sources that do not
    /// tell it; as for a page ([`OperatorOffset`]).
    #[must_use]
    pub const fn with_operator_offset(mut self, offset: OperatorOffset) -> Self {
        self.almanac.operator = Some(offset);
        self
    }

    /// Gives the nominal frequency of the counter, or takes it away. It holds for samples under
    /// `marker`, which is to be read *before* the register that tells the frequency; 0 without a page.
    pub const fn set_prior(&mut self, prior: Option<Prior>, marker: u64) {
        self.prior = match prior {
            Some(prior) => Some((prior, marker)),
            None => None,
        };
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
        let (new, calendar, almanac) = self.resolve(sample)?;
        self.almanac = almanac;
        if self
            .calendar
            .is_some_and(|known| known.is_tai != calendar.is_tai)
        {
            // Another uniform scale, on which the older ones have no place.
            self.samples = [None; SAMPLES];
        }
        let newest = self.samples[0];
        let predicted = self.solve();
        self.calendar = Some(calendar);
        let conflict = match newest {
            Some(newest) if new.after.since(newest.after) < 0 => Some(Conflict::Counter),
            _ => {
                self.samples.rotate_right(1);
                self.samples[0] = Some(new);
                self.solve().err()
            }
        };
        let Some(conflict) = conflict else {
            // Confirmed by falling where a line put it, and by nothing less.
            self.contested &= !matches!(predicted, Ok(Some(_)));
            return Ok(());
        };
        self.samples = [None; SAMPLES];
        self.samples[0] = Some(new);
        self.prior = None;
        self.contested = true;
        let difference = predicted
            .ok()
            .flatten()
            .filter(|_| conflict != Conflict::Counter)
            .map(|line| line.difference(&new, calendar.offset));
        Err(Rejected::Disagreement(Disagreement {
            conflict,
            difference,
        }))
    }

    /// Forgets the samples: a disruption has been seen. What is known of leap seconds stays.
    pub const fn forget(&mut self) {
        self.samples = [None; SAMPLES];
        self.calendar = None;
        self.contested = false;
    }

    /// The line through the samples in use.
    ///
    /// # Errors
    /// Why there is none (yet).
    pub fn timeline(&self) -> Result<Timeline, NoLine> {
        let Some(calendar) = self.calendar else {
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
            operator: self.almanac.operator,
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
        let Some(newest) = self.samples[0] else {
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

    /// What a sample says on the uniform scale, and of UTC.
    fn resolve(&self, sample: &CrossTimestamp) -> Result<(Sample, Calendar, Almanac), Rejected> {
        let bracket = sample.bracket;
        if bracket.after.since(bracket.before) < 0 {
            return Err(Rejected::Reversed);
        }
        if !matches!(
            sample.status,
            ClockStatus::Synchronized | ClockStatus::Freerunning
        ) {
            return Err(Rejected::Status(sample.status));
        }
        let reading = Told::of(sample)?;
        let code = self.utc_code(sample, &reading);
        let leap = self.almanac.leap_at(code, sample.leap);
        let is_past = |leap: &LeapSecond| code.is_some_and(|code| code >= leap.month.seconds());
        let is_edge = sample.leap == Some(LeapIndicator::Pos)
            || leap
                .is_some_and(|leap| reading.is_near(&leap, reading.tai.then_some(code).flatten()));
        if is_edge && !reading.tai {
            return Err(Rejected::LeapSecond);
        }
        let claimed = claimed(sample);
        let carried = self.calendar.and_then(|known| known.in_force(code));
        let operator = self.almanac.operator_at(code);
        let given = operator.map(OperatorOffset::tai_minus_utc);
        // Inside and about the leap second sources differ in when they change the offset.
        let offset = if is_edge {
            carried.or(claimed).or(given)
        } else {
            claimed.or(carried).or(given)
        };
        let offset = if reading.tai {
            offset
        } else {
            Some(offset.unwrap_or(0))
        };
        let change = leap.filter(is_past).map_or(0, |leap| leap.kind.change());
        let is_tai = match (claimed, &self.calendar) {
            _ if reading.tai => true,
            (Some(_), _) => true,
            (None, Some(known)) => known.is_tai,
            (None, None) => given.is_some(),
        };
        let to_uniform = match offset {
            Some(offset) if !reading.tai => Span::from_seconds(offset.into()).units(),
            _ => 0,
        };
        let new = Sample {
            before: bracket.before,
            after: bracket.after,
            earliest: reading.earliest + to_uniform,
            latest: reading.latest + to_uniform,
        };
        let calendar = Calendar {
            is_tai,
            offset: offset.map(|offset| offset - change),
            leap,
            tells_offset: claimed.is_some()
                || self.calendar.is_some_and(|known| known.tells_offset),
            invalid_tai_offset: sample.tai_offset.is_some() && claimed.is_none(),
            status: sample.status,
        };
        let almanac = Almanac {
            leap,
            operator,
            second: code.or(self.almanac.second),
        };
        Ok((new, calendar, almanac))
    }

    /// UTC at a sample in whole seconds, as well as it can be known.
    fn utc_code(&self, sample: &CrossTimestamp, reading: &Told) -> Option<i64> {
        if !reading.tai {
            return Some(reading.seconds);
        }
        let by_rule = self.calendar.and_then(|known| {
            let rule = LeapRule::with_edge(known.offset?, known.leap).ok()?;
            let (utc, _) = rule.utc(Timestamp::from_parts(reading.seconds, 0))?;
            Some(utc.time.seconds())
        });
        by_rule.or_else(|| {
            let given = self.almanac.operator.map(OperatorOffset::tai_minus_utc);
            Some(reading.seconds - i64::from(claimed(sample).or(given)?))
        })
    }
}

/// TAI − UTC as the source has it, if that can be.
fn claimed(sample: &CrossTimestamp) -> Option<i16> {
    OperatorOffset::new(sample.tai_offset?).map(OperatorOffset::tai_minus_utc)
}

/// The time of a sample as an interval on its own scale.
struct Told {
    tai: bool,
    seconds: i64,
    earliest: i128,
    latest: i128,
}

impl Told {
    fn of(sample: &CrossTimestamp) -> Result<Self, Rejected> {
        let (tai, seconds, fraction, smeared) = match sample.time {
            SourceTime::Tai(time) => (true, time.seconds(), time.fraction(), false),
            SourceTime::Utc(time) => (false, time.seconds(), time.fraction(), false),
            SourceTime::PerhapsSmeared(time) => (false, time.seconds(), time.fraction(), true),
        };
        if !(0..LATEST).contains(&seconds) || sample.error.units() > GREATEST_ERROR {
            return Err(Rejected::OutOfRange);
        }
        let time = i128::from(seconds) << 64 | i128::from(fraction);
        let error = sample.error.units().cast_signed();
        let mut told = Self {
            tai,
            seconds,
            earliest: time - error,
            latest: time + error,
        };
        if smeared && told.is_near_a_month_end() {
            told.earliest -= SECOND;
            told.latest += SECOND;
        }
        Ok(told)
    }

    /// Whether the end of a month may be less than a day away.
    fn is_near_a_month_end(&self) -> bool {
        let month = |second: i128| {
            i64::try_from(second >> 64)
                .ok()
                .and_then(calendar::this_month)
        };
        let day = i128::from(DAY) << 64;
        let (from, to) = (month(self.earliest - day), month(self.latest + day));
        from.is_none() || from != to
    }

    /// Whether this may be within the leap second or a second on either side of it, where one code may
    /// stand for two instants. Time on TAI is at the second `code` of UTC.
    fn is_near(&self, leap: &LeapSecond, code: Option<i64>) -> bool {
        let month = i128::from(leap.month.seconds()) << 64;
        let ahead = code.map_or(0, |code| i128::from(self.seconds - code) << 64);
        self.latest - ahead >= month - 2 * SECOND && self.earliest - ahead <= month + SECOND
    }
}

const SECOND: i128 = 1 << 64;

impl Calendar {
    /// By how much the uniform scale is ahead of UTC at second `code`.
    fn in_force(&self, code: Option<i64>) -> Option<i16> {
        let past = self
            .leap
            .filter(|leap| code.is_some_and(|code| code >= leap.month.seconds()));
        Some(self.offset? + past.map_or(0, |leap| leap.kind.change()))
    }
}

impl Almanac {
    /// The leap second known at second `code` of UTC, where the source says `indicator`.
    fn leap_at(&self, code: Option<i64>, indicator: Option<LeapIndicator>) -> Option<LeapSecond> {
        use LeapIndicator::{None as Nothing, Pos, PostNeg, PostPos, PreNeg, PrePos};

        let code = code?;
        let known = self.leap.filter(|known| {
            let month = known.month.seconds();
            code < month || calendar::this_month(code) == Some(month)
        });
        let is_past = known.is_some_and(|known| code >= known.month.seconds());
        // A server may be late to take its announcement back.
        let is_fresh = known.is_some_and(|known| {
            let month = known.month.seconds();
            (month..month.saturating_add(DAY)).contains(&code)
        });
        let at = |month: Option<i64>, kind| {
            Some(LeapSecond {
                month: Timestamp::from_parts(month?, 0),
                kind,
            })
        };
        match indicator {
            None | Some(Pos) => known,
            Some(Nothing) => known.filter(|_| is_past),
            Some(PrePos | PreNeg) if is_fresh => known,
            Some(PrePos) => at(calendar::next_month(code), Leap::Insert),
            Some(PreNeg) => at(calendar::next_month(code), Leap::Delete),
            Some(PostPos) => at(calendar::this_month(code), Leap::Insert),
            Some(PostNeg) => at(calendar::this_month(code), Leap::Delete),
        }
    }

    /// The operator's offset in force at second `code` of UTC: moved if the leap second that was known
    /// lies between.
    fn operator_at(&self, code: Option<i64>) -> Option<OperatorOffset> {
        let operator = self.operator?;
        let (Some(code), Some(second), Some(leap)) = (code, self.second, self.leap) else {
            return Some(operator);
        };
        let month = leap.month.seconds();
        if second < month && code >= month {
            let moved = operator.tai_minus_utc() + leap.kind.change();
            return OperatorOffset::new(moved).or(Some(operator));
        }
        Some(operator)
    }
}

impl Sample {
    /// Ticks from the end of the bracket to `counter`.
    fn ticks_to(&self, counter: Ticks) -> i128 {
        i128::from(counter.since(self.after)) - 1
    }

    /// Ticks from its beginning.
    fn ticks_from_before_to(&self, counter: Ticks) -> i128 {
        i128::from(counter.since(self.before))
    }
}

/// An interval of rates, in 2⁻⁸⁰ s a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rates {
    low: u64,
    high: u64,
}

impl Rates {
    const PLAUSIBLE: Self = Self {
        low: rate_of(HIGHEST_HERTZ, BILLION, false),
        high: rate_of(LOWEST_HERTZ, BILLION, true),
    };
    const ALL: Self = Self {
        low: 0,
        high: u64::MAX,
    };

    fn intersected(self, other: Self) -> Self {
        Self {
            low: self.low.max(other.low),
            high: self.high.min(other.high),
        }
    }

    /// P̄ by two samples.
    fn between(earlier: &Sample, later: &Sample, wander: Wander) -> Self {
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
    fn wandering(self, wander: Wander) -> Self {
        Self {
            low: scaled(self.low, BILLION - wander.0, BILLION, false),
            high: scaled(self.high, BILLION + wander.0, BILLION, true),
        }
    }

    /// The least time of `ticks`, in 2⁻⁶⁴ s; ticks back count the more.
    fn least(self, ticks: i128) -> i128 {
        time_of(ticks, if ticks < 0 { self.high } else { self.low })
    }

    /// The greatest.
    fn most(self, ticks: i128) -> i128 {
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
fn quotient(numerator: i128, denominator: i128, up: bool) -> u64 {
    let (numerator, denominator) = (numerator.unsigned_abs(), denominator.unsigned_abs());
    saturated(if up {
        numerator.div_ceil(denominator)
    } else {
        numerator / denominator
    })
}

fn scaled(rate: u64, by: u32, of: u32, up: bool) -> u64 {
    quotient(i128::from(rate) * i128::from(by), of.into(), up)
}

const fn saturated(value: u128) -> u64 {
    if value > u64::MAX as u128 {
        return u64::MAX;
    }
    #[expect(clippy::cast_possible_truncation, reason = "compared just above")]
    let value = value as u64;
    value
}

/// The middle of an interval, and how far the farther end is.
fn middle(low: i128, high: i128) -> (i128, u128) {
    let width = (high - low).unsigned_abs();
    let half = width / 2;
    (low + half.cast_signed(), width - half)
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
