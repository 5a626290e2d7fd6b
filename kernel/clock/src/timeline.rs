//! One representation for every source of time: a straight line through a counter value and an
//! instant, with the error around it and what is known of leap seconds.

use core::fmt;

use crate::leap::{LeapRule, TaiOffset, UtcTime};
use crate::page::{
    self, COUNTER_INVALID, ClockStatus, CounterId, Fields, LEN_WITH_TIME, LeapIndicator, TimeType,
    flag,
};
use crate::scale::Period;
use crate::time::{Bound, Linear, Tai, Ticks, Timestamp, Utc};

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
    /// Whether linear time is TAI.
    is_tai: bool,
    /// How UTC follows; none where that is not known.
    leap: Option<LeapRule>,
    /// T1 in UTC.
    reference_utc: Option<Timestamp<Utc>>,
    status: ClockStatus,
    marker: u64,
    generation: Option<u64>,
    notes: Notes,
}

impl Timeline {
    /// The timeline of a snapshot for a machine whose counter is `counter`.
    ///
    /// # Errors
    /// The first reason, in the order of [`Unusable`], why the page cannot be used.
    pub fn from_page(fields: &Fields, counter: CounterId) -> Result<Self, Unusable> {
        let header = Header::check(fields, counter)?;
        let period = Period::new(fields.counter_period_frac_sec, fields.counter_period_shift)?;
        let seconds = i64::try_from(fields.time_sec).map_err(|_| Unusable::OutOfRange)?;
        let on_page = Timestamp::<Linear>::from_parts(seconds, fields.time_frac_sec);

        let flagged_offset = fields
            .has(flag::TAI_OFFSET_VALID)
            .then(|| TaiOffset::from_page(fields.tai_offset_sec));
        let offset = flagged_offset.flatten();
        let tai_minus_utc = offset.map(|offset| offset.tai_minus_utc);
        let is_utc = header.scale == Scale::Utc;
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

        let reference_utc = match leap {
            Some(rule) => Some(rule.utc(reference).ok_or(Unusable::OutOfRange)?.0.time),
            None => None,
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
            is_tai: !is_utc || tai_minus_utc.is_some(),
            leap,
            reference_utc,
            status: header.status,
            marker: fields.disruption_marker,
            generation: fields.vm_generation(),
            notes: Notes {
                default_time_error: fields.time_maxerror().is_none(),
                default_period_error: fields.period_maxerror().is_none(),
                positive_tai_offset: offset.is_some_and(|offset| offset.positive_on_page),
                invalid_tai_offset: flagged_offset == Some(None),
                utc_without_tai_offset: is_utc && offset.is_none(),
            },
        })
    }

    /// The time at a counter value before or after the reference.
    ///
    /// # Errors
    /// [`Unusable::OutOfRange`] when the time lies before 1970 or beyond `i64` seconds.
    pub fn at(&self, ticks: Ticks) -> Result<Reading, Unusable> {
        let delta = ticks.since(self.counter);
        let linear = self
            .reference
            .checked_add(self.period.span(delta))
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
            notes: self.notes,
        })
    }

    /// The disruption marker under which the line holds.
    #[must_use]
    pub const fn marker(&self) -> u64 {
        self.marker
    }

    /// E(C), every term rounded up.
    fn bound(&self, delta: i64) -> Bound {
        // One tick more than elapsed: the instant lies anywhere within the tick that was read.
        let ticks = delta.unsigned_abs() + 1;
        let drift = self.period.rate_outward(ticks, self.period_error);
        self.time_error
            .plus(drift)
            .plus(self.period.span_outward(1))
            .plus(TRUNCATION)
    }
}

/// [`Period::span`] is off by less than one unit; nothing else on the way to a reading rounds.
const TRUNCATION: Bound = Bound::from_units(1);

/// The time at one counter value, and all that has to be said with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The counter value.
    pub ticks: Ticks,
    /// TAI; none from a UTC page that does not tell the offset.
    pub tai: Option<Timestamp<Tai>>,
    /// UTC; none from a TAI page that does not tell the offset.
    pub utc: Option<UtcTime>,
    /// TAI − UTC in seconds, +37 in 2026. Inside 23:59:60 still the old one.
    pub tai_offset: Option<i16>,
    /// True time lies within ± this of `tai` and `utc`, if the host speaks the truth.
    pub bound: Bound,
    /// Synchronised or freerunning.
    pub status: ClockStatus,
    /// The disruption marker under which this holds.
    pub marker: u64,
    /// The generation of the virtual machine, where the page has it.
    pub generation: Option<u64>,
    /// When the host last updated the page, T1 in UTC.
    pub reference_utc: Option<Timestamp<Utc>>,
    /// What had to be assumed.
    pub notes: Notes,
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
    /// A UTC page without a usable offset: UTC is known, TAI is not.
    pub utc_without_tai_offset: bool,
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
}
