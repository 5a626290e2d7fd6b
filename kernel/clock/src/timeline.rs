//! One representation for every source of time: a straight line through a counter value and an
//! instant, with the error around it and what is known of leap seconds.

use core::fmt;

use crate::calendar;
use crate::cross::{Origin, Source};
use crate::leap::{LeapRule, LeapSecond, OperatorOffset, TaiOffset, UtcTime};
use crate::page::{
    self, COUNTER_INVALID, ClockStatus, CounterId, Fields, LEN_WITH_TIME, LeapIndicator,
    SmearingHint, TimeType, flag,
};
use crate::scale::Period;
use crate::time::{Bound, Linear, Span, Tai, Ticks, Timestamp, Utc};
use crate::window::Moment;

/// Assumed greatest error of the reference instant when the page gives none: 10 ms.
pub const DEFAULT_TIME_ERROR: Bound = Bound::from_nanos(10_000_000);

/// Assumed greatest error of the period when the page gives none, as a divisor: 50 ppm.
pub const DEFAULT_PERIOD_ERROR_DIVISOR: u64 = 20_000;

/// Time as a function of the counter: `T(C) = T1 + (C − C1)·P` within
/// `E(C) = E1 + |C − C1|·E_P`, and one tick and the truncation beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// C1.
    counter: Ticks,
    /// T1.
    reference: Timestamp<Linear>,
    period: Period,
    time_error: Bound,
    /// Greatest error of the period, in its unit.
    period_error: u64,
    /// Both errors as the host estimates them.
    estimate: Option<(Bound, u64)>,
    /// Whether linear time is TAI.
    is_tai: bool,
    /// How UTC follows; none where that is not known.
    leap: Option<LeapRule>,
    /// T1 in UTC.
    reference_utc: Option<Timestamp<Utc>>,
    status: ClockStatus,
    marker: u64,
    generation: Option<u64>,
    is_seal_broken: bool,
    origin: Origin,
    /// For how many ticks to either side of C1 the line is to be used; no limit for a page's.
    usable_ticks: u64,
    disruption: Disruption,
    smearing_hint: Option<SmearingHint>,
    operator: OperatorNote,
    /// The page promises that time does not step back over updates.
    monotonic: bool,
    notes: Notes,
}

impl Timeline {
    /// The timeline of a snapshot for a machine whose counter is `counter`.
    ///
    /// # Errors
    /// The first reason, in the order of [`Unusable`], why the page cannot be used.
    pub fn from_page(fields: &Fields, counter: CounterId) -> Result<Self, Unusable> {
        Self::with_operator_offset(fields, counter, None)
    }

    /// The same with an operator's TAI − UTC at the page's reference instant, which is used if the
    /// page has none, and compared if it has one.
    ///
    /// # Errors
    /// As for [`from_page`](Self::from_page).
    pub fn with_operator_offset(
        fields: &Fields,
        counter: CounterId,
        operator: Option<OperatorOffset>,
    ) -> Result<Self, Unusable> {
        let header = Header::check(fields, counter)?;
        let period = Period::new(fields.counter_period_frac_sec, fields.counter_period_shift)?;
        let seconds = i64::try_from(fields.time_sec).map_err(|_| Unusable::OutOfRange)?;
        let on_page = Timestamp::<Linear>::from_parts(seconds, fields.time_frac_sec);

        let flagged_offset = fields
            .has(flag::TAI_OFFSET_VALID)
            .then(|| TaiOffset::from_page(fields.tai_offset_sec));
        let offset = flagged_offset.flatten();
        let is_utc = header.scale == Scale::Utc;
        let tai_minus_utc = match (offset, operator) {
            (Some(offset), _) => Some(offset.tai_minus_utc),
            (None, Some(operator)) => Some(header.between_codes(operator, seconds)),
            (None, None) => None,
        };
        let reference = match (header.scale, tai_minus_utc) {
            (Scale::Tai, _) | (Scale::Utc, None) => on_page,
            // UTC = TAI + tai_offset_sec holds between the codes on the page, also inside 23:59:60.
            (Scale::Utc, Some(offset)) => seconds
                .checked_add(i64::from(offset))
                .map(|tai| Timestamp::from_parts(tai, fields.time_frac_sec))
                .ok_or(Unusable::OutOfRange)?,
        };
        let leap = match tai_minus_utc.or(is_utc.then_some(0)) {
            Some(offset) => Some(LeapRule::new(reference, offset, header.leap_indicator)?),
            None => None,
        };

        let (reference_utc, in_force) = match leap {
            Some(rule) => {
                let (utc, in_force) = rule.utc(reference).ok_or(Unusable::OutOfRange)?;
                (Some(utc.time), offset.map(|_| in_force))
            }
            None => (None, None),
        };

        Ok(Self {
            counter: Ticks(fields.counter_value),
            reference,
            period,
            time_error: fields
                .time_maxerror()
                .map_or(DEFAULT_TIME_ERROR, Bound::from_nanos),
            period_error: fields
                .period_maxerror()
                .unwrap_or(period.frac().div_ceil(DEFAULT_PERIOD_ERROR_DIVISOR)),
            estimate: fields
                .time_esterror()
                .zip(fields.period_esterror())
                .map(|(time, period)| (Bound::from_nanos(time), period)),
            is_tai: !is_utc || tai_minus_utc.is_some(),
            leap,
            reference_utc,
            status: header.status,
            marker: fields.disruption_marker,
            generation: fields.vm_generation(),
            is_seal_broken: fields.is_seal_broken(),
            origin: Origin::Page,
            usable_ticks: u64::MAX,
            disruption: Disruption::of(fields),
            smearing_hint: SmearingHint::try_from(fields.leap_second_smearing_hint).ok(),
            operator: OperatorNote::of(in_force, operator),
            monotonic: fields.has(flag::TIME_MONOTONIC),
            notes: Notes {
                default_time_error: fields.time_maxerror().is_none(),
                default_period_error: fields.period_maxerror().is_none(),
                positive_tai_offset: offset.is_some_and(|offset| offset.positive_on_page),
                invalid_tai_offset: flagged_offset == Some(None),
                utc_without_tai_offset: is_utc && tai_minus_utc.is_none(),
            },
        })
    }

    /// The timeline of a line that was drawn through cross-time-stamps.
    ///
    /// # Errors
    /// [`Unusable::OutOfRange`] when the reference or its leap second is.
    pub(crate) fn from_line(line: &Line) -> Result<Self, Unusable> {
        let leap = match line.utc {
            Some((before, edge)) => Some(LeapRule::with_edge(before, edge)?),
            None => None,
        };
        let (reference_utc, in_force) = match leap {
            Some(rule) => {
                let (utc, in_force) = rule.utc(line.reference).ok_or(Unusable::OutOfRange)?;
                (Some(utc.time), line.tells_offset.then_some(in_force))
            }
            None => (None, None),
        };
        Ok(Self {
            counter: line.counter,
            reference: line.reference,
            period: line.period,
            time_error: line.time_error,
            period_error: line.period_error,
            estimate: None,
            is_tai: line.is_tai,
            leap,
            reference_utc,
            status: line.status,
            marker: line.marker,
            generation: None,
            is_seal_broken: false,
            origin: Origin::Own(line.source),
            usable_ticks: line.usable_ticks,
            disruption: Disruption::None,
            smearing_hint: None,
            operator: OperatorNote::of(in_force, line.operator),
            monotonic: false,
            notes: Notes {
                invalid_tai_offset: line.invalid_tai_offset,
                utc_without_tai_offset: !line.is_tai,
                ..Notes::NONE
            },
        })
    }

    /// An own line with what a page tells beside the time.
    pub(crate) fn beside(&self, fields: &Fields) -> Self {
        Self {
            generation: fields.vm_generation(),
            disruption: Disruption::of(fields),
            smearing_hint: SmearingHint::try_from(fields.leap_second_smearing_hint).ok(),
            ..*self
        }
    }

    /// How long a tick lasts, P.
    #[must_use]
    pub const fn period(&self) -> Period {
        self.period
    }

    /// Where the line comes from.
    #[must_use]
    pub const fn origin(&self) -> Origin {
        self.origin
    }

    /// Whether an own line is older at `ticks` than it was to become, or its bound wider
    /// ([`Limits`](crate::Limits)). Never of a page.
    #[must_use]
    pub const fn is_expired(&self, ticks: Ticks) -> bool {
        ticks.since(self.counter).unsigned_abs() > self.usable_ticks
    }

    /// The time at a counter value before or after the reference.
    ///
    /// # Errors
    /// [`Unusable::OutOfRange`] when the time lies before 1970 or beyond `i64` seconds.
    pub fn at(&self, ticks: Ticks) -> Result<Reading, Unusable> {
        let delta = ticks.since(self.counter);
        let age = self.period.span(delta);
        let linear = self
            .reference
            .checked_add(age)
            .filter(|linear| linear.seconds() >= 0)
            .ok_or(Unusable::OutOfRange)?;
        let utc = match self.leap {
            Some(rule) => Some(rule.utc(linear).ok_or(Unusable::OutOfRange)?),
            None => None,
        };
        Ok(Reading {
            ticks,
            tai: self.is_tai.then(|| linear.relabel()),
            utc: utc.map(|(utc, _)| utc),
            tai_offset: utc.filter(|_| self.is_tai).map(|(_, offset)| offset),
            bound: self.bound(delta),
            status: self.status,
            marker: self.marker,
            generation: self.generation,
            reference_utc: self.reference_utc,
            age,
            leap: self.leap.and_then(|rule| rule.leap_second()),
            disruption: self.disruption,
            smearing_hint: self.smearing_hint,
            operator: self.operator,
            notes: self.notes,
            origin: self.origin,
        })
    }

    /// Whether a second after a counter value everything is as it is then, and a second later.
    pub(crate) fn is_even_after(&self, ticks: Ticks) -> bool {
        let linear = self.linear(ticks);
        let later = linear.and_then(|linear| linear.checked_add(Span::from_seconds(1)));
        let (Some(linear), Some(later)) = (linear, later) else {
            return false;
        };
        self.leap.is_none_or(|rule| rule.is_even(linear, later))
    }

    /// The error at a counter value as the host estimates it, where it does: no promise, and only
    /// for people to look at. Rounded up as the bound is, with the same tick in it.
    #[must_use]
    pub const fn estimate(&self, ticks: Ticks) -> Option<Bound> {
        match self.estimate {
            Some((time, period)) => Some(self.error(ticks.since(self.counter), time, period)),
            None => None,
        }
    }

    /// The disruption marker under which the line holds.
    #[must_use]
    pub const fn marker(&self) -> u64 {
        self.marker
    }

    /// The reference instant in seconds of UTC, and the leap second that is known.
    pub(crate) fn leap_knowledge(&self) -> Option<(i64, Option<LeapSecond>)> {
        Some((self.reference_utc?.seconds(), self.leap?.leap_second()))
    }

    /// Whether the page promises an interval, and not just by our assumption.
    pub(crate) const fn promises_interval(&self) -> bool {
        !self.notes.default_time_error && !self.notes.default_period_error
    }

    /// Whether the page promises that time does not step back.
    pub(crate) const fn promises_monotonic(&self) -> bool {
        self.monotonic
    }

    /// C1.
    pub(crate) const fn counter(&self) -> Ticks {
        self.counter
    }

    /// The bound of the reading at a counter value.
    pub(crate) const fn bound_at(&self, ticks: Ticks) -> Bound {
        self.bound(ticks.since(self.counter))
    }

    /// Greatest error of the period, in its unit.
    pub(crate) const fn period_error(&self) -> u64 {
        self.period_error
    }

    /// Whether the page's marker is not the one it was written under.
    pub(crate) const fn is_seal_broken(&self) -> bool {
        self.is_seal_broken
    }

    /// Whether this page tells the line of `other`, as nearly as both claim, and was written no later:
    /// its reference point is no later, or its marker is not the one it was written under.
    pub(crate) fn is_older_on_the_line_of(&self, other: &Self) -> bool {
        let at = self.counter;
        if at.since(other.counter) > 0 && !self.is_seal_broken {
            return false;
        }
        let (Some(apart), Ok(ours), Ok(theirs)) =
            (self.since(at, other, at), self.at(at), other.at(at))
        else {
            return false;
        };
        ours.bound.plus(theirs.bound).contains(apart)
    }

    /// How much later than `other` this line is at counter values of each, on one uniform scale;
    /// `None` where there is none, or it ends.
    pub(crate) fn since(&self, at: Ticks, other: &Self, other_at: Ticks) -> Option<Span> {
        let apart = if self.is_tai && other.is_tai {
            0
        } else {
            // UTC carried on from different references: a leap second may lie between.
            let (ours, theirs) = (self.leap?, other.leap?);
            let second = match theirs.leap_second() {
                Some(_) => self.reference_utc?.seconds(),
                None => other.reference_utc?.seconds(),
            };
            theirs.offset_at_code(second) - ours.offset_at_code(second)
        };
        self.linear(at)?
            .checked_add(Span::from_seconds(apart.into()))?
            .since(other.linear(other_at)?)
    }

    /// TAI − UTC in force at the same TAI as `other` has at `at`, and at the reference instant of
    /// `other` if `at` is none.
    pub(crate) fn offset_when(&self, other: &Self, at: Option<Ticks>) -> Option<i16> {
        let linear = match at {
            Some(at) => other.linear(at)?,
            None => other.reference,
        };
        let (_, offset) = self
            .leap
            .filter(|_| self.is_tai && other.is_tai)?
            .utc(linear)?;
        Some(offset)
    }

    fn linear(&self, ticks: Ticks) -> Option<Timestamp<Linear>> {
        self.reference
            .checked_add(self.period.span(ticks.since(self.counter)))
    }

    /// E(C).
    #[inline]
    const fn bound(&self, delta: i64) -> Bound {
        self.error(delta, self.time_error, self.period_error)
    }

    /// The error `delta` ticks from the reference, every term rounded up.
    #[inline]
    const fn error(&self, delta: i64, time: Bound, period: u64) -> Bound {
        // One tick more than elapsed: the instant lies anywhere within the tick that was read.
        let ticks = delta.unsigned_abs() + 1;
        let drift = self.period.rate_outward(ticks, period);
        time.plus(drift)
            .plus(self.period.tick_outward())
            .plus(TRUNCATION)
    }
}

/// A line through cross-time-stamps: T1 at C1 and P with their errors, and what is known of UTC.
pub(crate) struct Line {
    pub(crate) counter: Ticks,
    pub(crate) reference: Timestamp<Linear>,
    pub(crate) period: Period,
    pub(crate) time_error: Bound,
    /// In the unit of `period`.
    pub(crate) period_error: u64,
    pub(crate) usable_ticks: u64,
    /// Whether linear time is TAI.
    pub(crate) is_tai: bool,
    /// Linear − UTC before the leap second that is known, or always.
    pub(crate) utc: Option<(i16, Option<LeapSecond>)>,
    /// Whether the source tells TAI − UTC.
    pub(crate) tells_offset: bool,
    pub(crate) invalid_tai_offset: bool,
    /// In force at the reference.
    pub(crate) operator: Option<OperatorOffset>,
    pub(crate) status: ClockStatus,
    pub(crate) marker: u64,
    pub(crate) source: Source,
}

/// [`Period::span`] is off by less than one unit; nothing else on the way to a reading rounds.
const TRUNCATION: Bound = Bound::from_units(1);

/// The time at one counter value, and all that has to be said with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The counter value.
    pub ticks: Ticks,
    /// TAI; none from a UTC page or source that does not tell the offset.
    pub tai: Option<Timestamp<Tai>>,
    /// UTC; none from a TAI page or source that does not tell the offset.
    pub utc: Option<UtcTime>,
    /// TAI − UTC in seconds, +37 in 2026. Inside 23:59:60 still the old one.
    pub tai_offset: Option<i16>,
    /// True time lies within ± this of `tai` and `utc`, if the host, or the source, speaks the truth.
    pub bound: Bound,
    /// Synchronised or freerunning.
    pub status: ClockStatus,
    /// The disruption marker under which this holds.
    pub marker: u64,
    /// The generation of the virtual machine, where the page has it.
    pub generation: Option<u64>,
    /// When the host last updated the page, or the source was last read: T1 in UTC.
    pub reference_utc: Option<Timestamp<Utc>>,
    /// How long ago that was, T − T1 by the counter: negative before it. To end a holdover by.
    pub age: Span,
    /// The leap second that the page, or the source, tells of, ahead or past, wherever UTC is known.
    pub leap: Option<LeapSecond>,
    /// What the host says is coming.
    pub disruption: Disruption,
    /// How the host would have leap seconds smeared; none if its code is not known.
    pub smearing_hint: Option<SmearingHint>,
    /// What became of the operator's TAI − UTC.
    pub operator: OperatorNote,
    /// What had to be assumed.
    pub notes: Notes,
    /// The page, or the source of a line of our own.
    pub origin: Origin,
}

impl Reading {
    /// Of no instant, and never told: for a place in which there will be one.
    pub(crate) const NONE: Self = Self {
        ticks: Ticks(0),
        tai: None,
        utc: None,
        tai_offset: None,
        bound: Bound::MAX,
        status: ClockStatus::Unknown,
        marker: 0,
        generation: None,
        reference_utc: None,
        age: Span::ZERO,
        leap: None,
        disruption: Disruption::None,
        smearing_hint: None,
        operator: OperatorNote::NotGiven,
        notes: Notes::NONE,
        origin: Origin::Page,
    };

    /// The reading at a moment of the window that begins with this one.
    #[inline(never)]
    pub(crate) fn at(&self, moment: &Moment) -> Self {
        let mut reading = *self;
        reading.renew(self, moment);
        reading
    }

    /// The same in place of another reading of that window: what is the same all along the window stays, for
    /// a reading is long.
    #[inline]
    pub(crate) fn renew(&mut self, first: &Self, moment: &Moment) {
        self.ticks = moment.ticks;
        self.tai = first.tai.map(|tai| tai.later(moment.later));
        if let (Some(utc), Some(first)) = (&mut self.utc, &first.utc) {
            utc.time = first.time.later(moment.later);
        }
        self.bound = moment.bound;
        self.age = first.age.longer(moment.later);
    }
}

/// What a reading rests on beside the page's own word.
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent remarks, not a state"
)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// The page gives no greatest error of time: [`DEFAULT_TIME_ERROR`], 10 ms, is assumed.
    pub default_time_error: bool,
    /// The page gives no greatest error of the period: 50 ppm is assumed.
    pub default_period_error: bool,
    /// `tai_offset_sec` has the sign of UAPI.13 v1.0.
    pub positive_tai_offset: bool,
    /// `tai_offset_sec` is flagged valid but is in neither range, and is not used.
    pub invalid_tai_offset: bool,
    /// A UTC page or source without a usable offset: UTC is known, TAI is not.
    pub utc_without_tai_offset: bool,
}

impl Notes {
    /// Nothing.
    pub(crate) const NONE: Self = Self {
        default_time_error: false,
        default_period_error: false,
        positive_tai_offset: false,
        invalid_tai_offset: false,
        utc_without_tai_offset: false,
    };
}

/// A disruption of the counter that the host expects: a migration, as a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Disruption {
    /// None that the host says.
    #[default]
    None,
    /// Within about a day.
    Soon,
    /// Within about an hour.
    Imminent,
}

impl Disruption {
    /// The more urgent one where both flags are set.
    const fn of(fields: &Fields) -> Self {
        if fields.has(flag::DISRUPTION_IMMINENT) {
            Self::Imminent
        } else if fields.has(flag::DISRUPTION_SOON) {
            Self::Soon
        } else {
            Self::None
        }
    }
}

impl fmt::Display for Disruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Soon => "within about a day",
            Self::Imminent => "within about an hour",
        })
    }
}

/// What became of the TAI − UTC that the operator gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OperatorNote {
    /// The operator gave none.
    #[default]
    NotGiven,
    /// The page has no usable offset, so the operator's is in use.
    Used,
    /// The page has the same one.
    Agrees,
    /// The page has another one, which is in use: one of the two is wrong.
    Disagrees {
        /// The operator's TAI − UTC at the page's reference instant.
        operator: i16,
    },
}

impl OperatorNote {
    fn of(on_page: Option<i16>, operator: Option<OperatorOffset>) -> Self {
        match (on_page, operator.map(OperatorOffset::tai_minus_utc)) {
            (_, None) => Self::NotGiven,
            (None, Some(_)) => Self::Used,
            (Some(page), Some(operator)) if page == operator => Self::Agrees,
            (Some(_), Some(operator)) => Self::Disagrees { operator },
        }
    }
}

/// Why a page has no time for us, in the order in which it is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// Not a vmclock page.
    Magic(u32),
    /// Not version 1.
    Version(u16),
    /// The region is too small to hold the time.
    Size(u32),
    /// The page says that it has no counter, and thus no time.
    NoCounter,
    /// A counter that is unknown or not this machine's.
    Counter(u8),
    /// A scale that gives no time of day, or an unknown one.
    TimeType(u8),
    /// A status under which time is not to be used.
    Status(ClockStatus),
    /// A status that is not known.
    UnknownStatus(u8),
    /// A leap indicator that is not known.
    LeapIndicator(u8),
    /// A shift beyond 127.
    PeriodShift(u8),
    /// A counter that never advances time.
    ZeroPeriod,
    /// The time lies before 1970 or beyond the range of `i64` seconds.
    OutOfRange,
    /// The indicator says inside 23:59:60, and the reference instant is not at a month's end.
    LeapSecond,
    /// The marker has moved, and the page still tells the time from before the disruption.
    NotUpdated,
    /// The page has a time, and the clock is not to use it.
    Unwanted,
    /// The own line has become older, or its bound wider, than it may.
    Expired,
    /// The counter is behind a value that it had when the source was read.
    CounterBack,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Magic(magic) => write!(f, "magic {magic:#010x} is not a vmclock page's"),
            Self::Version(version) => write!(f, "vmclock version {version} is not known"),
            Self::Size(size) => write!(f, "region of {size} bytes is too small to hold the time"),
            Self::NoCounter => f.write_str("the page carries no time"),
            Self::Counter(id) => match CounterId::try_from(id) {
                Ok(id) => write!(f, "counter {id} is not this machine's"),
                Err(id) => write!(f, "counter {id} is not known"),
            },
            Self::TimeType(code) => match TimeType::try_from(code) {
                Ok(scale) => write!(f, "{scale} time is not usable"),
                Err(code) => write!(f, "time type {code} is not known"),
            },
            Self::Status(status) => write!(f, "clock status {status}"),
            Self::UnknownStatus(code) => write!(f, "clock status {code} is not known"),
            Self::LeapIndicator(code) => write!(f, "leap indicator {code} is not known"),
            Self::PeriodShift(shift) => write!(f, "period shift {shift} is above 127"),
            Self::ZeroPeriod => f.write_str("counter period is zero"),
            Self::LeapSecond => f.write_str("leap second claimed away from a month's end"),
            Self::OutOfRange => f.write_str("time is out of range"),
            Self::NotUpdated => f.write_str("the page still has the time from before a disruption"),
            Self::Unwanted => f.write_str("the page's time is not to be used"),
            Self::CounterBack => f.write_str("the counter went back"),
            Self::Expired => f.write_str("the source has not been read for too long"),
        }
    }
}

impl core::error::Error for Unusable {}

/// The codes of a page that may be used.
struct Header {
    scale: Scale,
    status: ClockStatus,
    leap_indicator: LeapIndicator,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scale {
    Utc,
    Tai,
}

impl Header {
    fn check(fields: &Fields, counter: CounterId) -> Result<Self, Unusable> {
        if fields.magic != page::MAGIC {
            return Err(Unusable::Magic(fields.magic));
        }
        if fields.version != page::VERSION {
            return Err(Unusable::Version(fields.version));
        }
        if fields.size < LEN_WITH_TIME {
            return Err(Unusable::Size(fields.size));
        }
        if fields.counter_id == COUNTER_INVALID {
            return Err(Unusable::NoCounter);
        }
        if fields.counter_id != counter as u8 {
            return Err(Unusable::Counter(fields.counter_id));
        }
        let scale = match TimeType::try_from(fields.time_type) {
            Ok(TimeType::Utc) => Scale::Utc,
            Ok(TimeType::Tai) => Scale::Tai,
            _ => return Err(Unusable::TimeType(fields.time_type)),
        };
        let status = match ClockStatus::try_from(fields.clock_status) {
            Ok(status @ (ClockStatus::Synchronized | ClockStatus::Freerunning)) => status,
            Ok(status) => return Err(Unusable::Status(status)),
            Err(code) => return Err(Unusable::UnknownStatus(code)),
        };
        let leap_indicator =
            LeapIndicator::try_from(fields.leap_indicator).map_err(Unusable::LeapIndicator)?;
        Ok(Self {
            scale,
            status,
            leap_indicator,
        })
    }

    /// TAI − UTC between the codes of the page, whose time is at `second`, where the calendar's is
    /// `operator`: inside 23:59:60 a page of UTC that repeats :59 is on the new one already.
    fn between_codes(&self, operator: OperatorOffset, second: i64) -> i16 {
        let repeats = self.scale == Scale::Utc
            && self.leap_indicator == LeapIndicator::Pos
            && calendar::next_month(second).is_some_and(|month| second == month - 1);
        operator.tai_minus_utc() + i16::from(repeats)
    }
}
