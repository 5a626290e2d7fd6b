//! What a sample says on the uniform scale on which the line is drawn, and how UTC follows from it.

use crate::calendar::{self, DAY};
use crate::cross::{CrossTimestamp, SourceTime};
use crate::estimate::Rejected;
use crate::estimate::interval::Sample;
use crate::leap::{Leap, LeapRule, LeapSecond, OperatorOffset};
use crate::page::{ClockStatus, LeapIndicator};
use crate::time::Timestamp;

/// Beyond either the sums might not fit: times from the year 36 812 on, and errors of half a year.
const LATEST: i64 = 1 << 40;
const GREATEST_ERROR: u128 = 1 << 88;

/// The uniform scale of the samples, and what is known of leap seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    /// What the newest sample says; none without samples.
    pub(super) calendar: Option<Calendar>,
    pub(super) almanac: Almanac,
}

/// How the uniform scale has to do with TAI and UTC.
#[derive(Clone, Copy, Debug)]
pub(super) struct Calendar {
    /// Whether it is TAI; otherwise UTC as it stood at the first sample, carried on.
    pub(super) is_tai: bool,
    /// By how much it is ahead of UTC until `leap`, or always; none where that is not known.
    pub(super) offset: Option<i16>,
    pub(super) leap: Option<LeapSecond>,
    /// The source tells TAI − UTC.
    pub(super) tells_offset: bool,
    /// It tries to.
    pub(super) invalid_tai_offset: bool,
    pub(super) status: ClockStatus,
}

/// What is known of leap seconds, whatever becomes of the counter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Almanac {
    /// The one that is ahead, or was at the beginning of this month.
    pub(super) leap: Option<LeapSecond>,
    /// The operator's TAI − UTC in force at `second`.
    pub(super) operator: Option<OperatorOffset>,
    /// UTC at the newest sample.
    pub(super) second: Option<i64>,
}

impl Scale {
    pub(super) const fn new() -> Self {
        Self {
            calendar: None,
            almanac: Almanac {
                leap: None,
                operator: None,
                second: None,
            },
        }
    }

    /// A sample on the uniform scale, and what would be known then.
    pub(super) fn resolve(&self, sample: &CrossTimestamp) -> Result<(Sample, Self), Rejected> {
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
        let told = Told::of(sample)?;
        let claimed = claimed(sample);
        let code = self.utc_code(&told, claimed);
        let leap = self.almanac.leap_at(code, sample.leap);
        let is_edge = sample.leap == Some(LeapIndicator::Pos)
            || leap.is_some_and(|leap| told.is_near(&leap, code));
        if is_edge && !told.is_tai {
            return Err(Rejected::LeapSecond);
        }
        let operator = self.almanac.operator_at(code);
        let carried = |is_tai: bool| {
            let calendar = self.calendar.filter(|known| known.is_tai == is_tai)?;
            calendar.in_force(code)
        };
        // About the leap second sources differ in when they change the offset.
        let (first, second) = if is_edge {
            (carried(true), claimed)
        } else {
            (claimed, carried(true))
        };
        let given = operator.map(OperatorOffset::tai_minus_utc);
        let tai_minus_utc = first.or(second).or(given);
        let is_tai = told.is_tai || tai_minus_utc.is_some();
        let offset = if is_tai {
            tai_minus_utc
        } else {
            carried(false).or(Some(0))
        };
        let to_uniform = match offset {
            Some(offset) if !told.is_tai => i128::from(offset) * SECOND,
            _ => 0,
        };
        let past = leap.map_or(0, |leap| change_by(&leap, code));
        let new = Sample {
            before: bracket.before,
            after: bracket.after,
            earliest: told.earliest + to_uniform,
            latest: told.latest + to_uniform,
        };
        let calendar = Calendar {
            is_tai,
            offset: offset.map(|offset| offset.saturating_sub(past)),
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
        Ok((
            new,
            Self {
                calendar: Some(calendar),
                almanac,
            },
        ))
    }

    /// UTC at a sample in whole seconds, as well as it can be known.
    fn utc_code(&self, told: &Told, claimed: Option<i16>) -> Option<i64> {
        if !told.is_tai {
            return Some(told.seconds);
        }
        let by_rule = self
            .calendar
            .filter(|known| known.is_tai)
            .and_then(|known| {
                let rule = LeapRule::with_edge(known.offset?, known.leap).ok()?;
                let (utc, _) = rule.utc(Timestamp::from_parts(told.seconds, 0))?;
                Some(utc.time.seconds())
            });
        by_rule.or_else(|| {
            let operator = self.almanac.operator.map(OperatorOffset::tai_minus_utc);
            Some(told.seconds - i64::from(claimed.or(operator)?))
        })
    }
}

/// TAI − UTC as the source has it, if that can be.
fn claimed(sample: &CrossTimestamp) -> Option<i16> {
    OperatorOffset::new(sample.tai_offset?).map(OperatorOffset::tai_minus_utc)
}

/// The time of a sample as an interval on its own scale.
struct Told {
    is_tai: bool,
    seconds: i64,
    earliest: i128,
    latest: i128,
}

impl Told {
    fn of(sample: &CrossTimestamp) -> Result<Self, Rejected> {
        let (is_tai, seconds, fraction, is_smeared) = match sample.time {
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
            is_tai,
            seconds,
            earliest: time - error,
            latest: time + error,
        };
        if is_smeared && told.is_near_a_month_end() {
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

    /// Whether this, at second `code` of UTC, may be within the leap second or a second on either side of
    /// it, where one code may stand for two instants.
    fn is_near(&self, leap: &LeapSecond, code: Option<i64>) -> bool {
        let ahead = code.map_or(0, |code| i128::from(self.seconds - code) * SECOND);
        let month = i128::from(leap.month.seconds()) * SECOND;
        self.latest - ahead >= month - 2 * SECOND && self.earliest - ahead <= month + SECOND
    }
}

const SECOND: i128 = 1 << 64;

impl Calendar {
    /// By how much the uniform scale is ahead of UTC at second `code`.
    fn in_force(&self, code: Option<i64>) -> Option<i16> {
        let past = self.leap.map_or(0, |leap| change_by(&leap, code));
        Some(self.offset?.saturating_add(past))
    }
}

/// By how much a leap second has changed TAI − UTC by second `code` of UTC.
fn change_by(leap: &LeapSecond, code: Option<i64>) -> i16 {
    if code.is_some_and(|code| code >= leap.month.seconds()) {
        leap.kind.change()
    } else {
        0
    }
}

impl Almanac {
    /// The leap second known at second `code` of UTC, where the source says `indicator`.
    fn leap_at(&self, code: Option<i64>, indicator: Option<LeapIndicator>) -> Option<LeapSecond> {
        use LeapIndicator::{None as Nothing, Pos, PostNeg, PostPos, PreNeg, PrePos};

        let Some(code) = code else {
            return self.leap;
        };
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
            // No source can have one outside the range either.
            let moved = operator.tai_minus_utc() + leap.kind.change();
            return OperatorOffset::new(moved).or(Some(operator));
        }
        Some(operator)
    }
}
