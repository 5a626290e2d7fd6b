//! UTC from uniform time: the offset TAI − UTC and the one leap second that a page can tell of.

use core::fmt;

use crate::calendar::{self, DAY};
use crate::page::{Fields, LeapIndicator, TimeType};
use crate::time::{Linear, Span, Timestamp, Utc};
use crate::timeline::Unusable;

/// UTC at an instant, with what POSIX coding cannot say about leap seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UtcTime {
    /// POSIX-coded: 23:59:60 has the code of 23:59:59.
    pub time: Timestamp<Utc>,
    /// The instant lies inside an inserted second, 23:59:60.
    pub leap_second: bool,
    /// What is ahead at the end of this very day.
    pub announcement: Announcement,
}

/// RFC 3339 with nine digits, truncated: `2016-12-31T23:59:60.999999999Z`.
impl fmt::Display for UtcTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        calendar::write_timestamp(f, self.time, self.leap_second)?;
        f.write_str("Z")
    }
}

/// A leap second still ahead, announced only on the last UTC day of the month that it ends: clients
/// of NTP act on it at the end of the day. From the start of the inserted second on nothing is
/// ahead any more: a client that took the repeated :59 together with the warning would insert again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Announcement {
    /// The day has 86 400 seconds, as far as is known.
    None,
    /// The day has 86 401 seconds.
    Insert,
    /// The day has 86 399 seconds.
    Delete,
}

/// TAI − UTC as read from `tai_offset_sec`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaiOffset {
    /// TAI − UTC in seconds, 10..=60.
    pub tai_minus_utc: i16,
    /// The page has it with the positive sign of UAPI.13 v1.0.
    pub positive_on_page: bool,
}

impl TaiOffset {
    /// Reads the field by v1.1 (UTC = TAI + field, so −60..=−10) or, noted, by v1.0 (10..=60);
    /// anything else is no offset. TAI − UTC was 10 s when leap seconds began, so that the two
    /// readings cannot be confused.
    #[must_use]
    pub const fn from_page(tai_offset_sec: i16) -> Option<Self> {
        match tai_offset_sec {
            -60..=-10 => Some(Self {
                tai_minus_utc: -tai_offset_sec,
                positive_on_page: false,
            }),
            10..=60 => Some(Self {
                tai_minus_utc: tai_offset_sec,
                positive_on_page: true,
            }),
            _ => None,
        }
    }
}

/// A leap second that is known, ahead or past.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeapSecond {
    /// First second of the month after it: midnight UTC.
    pub month: Timestamp<Utc>,
    /// What happens to the second before that.
    pub kind: Leap,
}

/// What happens to the last second of a month.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Leap {
    /// 23:59:60 follows it.
    Insert,
    /// 23:59:59 is left out.
    Delete,
}

impl Leap {
    /// By how much TAI − UTC changes.
    #[must_use]
    pub const fn change(self) -> i16 {
        match self {
            Self::Insert => 1,
            Self::Delete => -1,
        }
    }
}

impl LeapSecond {
    /// Uniform time from the start of 23:59:60, or from the midnight that comes a second early, to
    /// the instant `utc`, which must know of this leap second; negative before it.
    #[must_use]
    pub fn elapsed(&self, utc: &UtcTime) -> Option<Span> {
        let since_month = utc.time.since(self.month)?;
        let counted = match self.kind {
            // From the repeated :59 on, a second more has passed than the code says.
            Leap::Insert => utc.leap_second || utc.time >= self.month,
            // Until the gap, midnight is a second nearer than the code says.
            Leap::Delete => utc.time < self.month,
        };
        let counted = i128::from(counted) << 64;
        Some(Span::from_units(since_month.units().checked_add(counted)?))
    }
}

/// An operator's TAI − UTC, for pages that do not tell it. It is the one in force at the first page
/// that it is used with; from then on the clock moves it with every leap second that pages tell of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperatorOffset(i16);

impl OperatorOffset {
    /// `tai_minus_utc` in seconds; `None` outside 10..=60, which no page can have either.
    #[must_use]
    pub const fn new(tai_minus_utc: i16) -> Option<Self> {
        match tai_minus_utc {
            10..=60 => Some(Self(tai_minus_utc)),
            _ => None,
        }
    }

    /// TAI − UTC in seconds.
    #[must_use]
    pub const fn tai_minus_utc(self) -> i16 {
        self.0
    }

    /// The offset in force at the reference of the page `to`, if this one was in force at that of
    /// an earlier page: at second `from` of UTC, when `known` was the leap second known.
    pub(crate) fn carried(self, from: i64, known: Option<LeapSecond>, to: &Fields) -> Self {
        let Ok(on_page) = i64::try_from(to.time_sec) else {
            return self;
        };
        let is_tai = to.time_type == TimeType::Tai as u8;
        // UTC at `to` by the present offset.
        let code = if is_tai {
            on_page.saturating_sub(i64::from(self.0))
        } else {
            on_page
        };
        let (month, kind) = match (known, LeapIndicator::try_from(to.leap_indicator)) {
            // Inside 23:59:60 the old offset is in force.
            (_, Ok(LeapIndicator::Pos)) => return self,
            (Some(leap), _) if from < leap.month.seconds() => {
                (Some(leap.month.seconds()), leap.kind)
            }
            (_, Ok(LeapIndicator::PostPos)) => (calendar::this_month(code), Leap::Insert),
            (_, Ok(LeapIndicator::PostNeg)) => (calendar::this_month(code), Leap::Delete),
            _ => return self,
        };
        let past = |month: i64| {
            // By the old offset 23:59:60 is the first second of the month, and the first second
            // after a second left out is the last of the old one.
            let shift = if is_tai { i64::from(kind.change()) } else { 0 };
            from < month && code >= month.saturating_add(shift)
        };
        if month.is_some_and(past) {
            // No page can have one outside the range either.
            Self::new(self.0 + kind.change()).unwrap_or(self)
        } else {
            self
        }
    }
}

/// How UTC follows from linear time around a page's reference instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeapRule {
    /// Linear − UTC in seconds before the edge, or always.
    offset: i16,
    edge: Option<Edge>,
}

/// One leap second on the linear scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Edge {
    /// Start of the inserted second, or of the second after the one left out.
    begin: Timestamp<Linear>,
    /// Start of the month's last day.
    day: Timestamp<Linear>,
    /// First second of the month after it, POSIX-coded.
    month: i64,
    leap: Leap,
}

impl LeapRule {
    /// The rule for a page whose reference instant is `reference`, where linear − UTC is `offset`.
    ///
    /// # Errors
    /// [`Unusable::LeapSecond`] when the page claims to be inside 23:59:60 and is not near it,
    /// [`Unusable::OutOfRange`] when the calendar does not reach that far.
    pub(crate) fn new(
        reference: Timestamp<Linear>,
        offset: i16,
        indicator: LeapIndicator,
    ) -> Result<Self, Unusable> {
        use LeapIndicator::{None, Pos, PostNeg, PostPos, PreNeg, PrePos};

        let code = utc_code(reference, offset)
            .ok_or(Unusable::OutOfRange)?
            .seconds();
        let this_month = || calendar::this_month(code).ok_or(Unusable::OutOfRange);
        let next_month = || calendar::next_month(code).ok_or(Unusable::OutOfRange);
        // The offset before the leap, the first second of the month after it, and its kind.
        let (before, month, leap) = match indicator {
            None => {
                return Ok(Self {
                    offset,
                    edge: Option::None,
                });
            }
            PrePos => (offset, next_month()?, Leap::Insert),
            PreNeg => (offset, next_month()?, Leap::Delete),
            PostPos => (offset - 1, this_month()?, Leap::Insert),
            PostNeg => (offset + 1, this_month()?, Leap::Delete),
            // Inside 23:59:60 a host may still have the old offset, by which the instant falls into
            // the first second of the next month, or already the new one (Linux raises it at the
            // start of the inserted second), by which :59 repeats. The instant tells which.
            Pos if code == this_month()? => (offset, code, Leap::Insert),
            Pos if code == next_month()? - 1 => (offset - 1, next_month()?, Leap::Insert),
            Pos => return Err(Unusable::LeapSecond),
        };
        Self::at_edge(before, month, leap)
    }

    /// The rule where linear − UTC is `before` until the leap second at the end of the month before
    /// `known.month`; without one, always.
    ///
    /// # Errors
    /// [`Unusable::OutOfRange`] when the calendar does not reach that far.
    pub(crate) fn with_edge(before: i16, known: Option<LeapSecond>) -> Result<Self, Unusable> {
        match known {
            Some(known) => Self::at_edge(before, known.month.seconds(), known.kind),
            None => Ok(Self {
                offset: before,
                edge: None,
            }),
        }
    }

    fn at_edge(before: i16, month: i64, leap: Leap) -> Result<Self, Unusable> {
        let last_second = match leap {
            Leap::Insert => 0,
            Leap::Delete => 1,
        };
        let begin = month.checked_add(i64::from(before) - last_second);
        let day = month.checked_add(i64::from(before) - DAY);
        let (Some(begin), Some(day)) = (begin, day) else {
            return Err(Unusable::OutOfRange);
        };
        let edge = Edge {
            begin: Timestamp::from_parts(begin, 0),
            day: Timestamp::from_parts(day, 0),
            month,
            leap,
        };
        Ok(Self {
            offset: before,
            edge: Some(edge),
        })
    }

    /// UTC at `at`, and linear − UTC in force then: the old offset holds until the inserted second
    /// is over. `None` when UTC is before 1970 or out of range.
    #[inline(never)]
    pub(crate) fn utc(&self, at: Timestamp<Linear>) -> Option<(UtcTime, i16)> {
        let mut utc = UtcTime {
            time: utc_code(at, self.offset)?,
            leap_second: false,
            announcement: Announcement::None,
        };
        let mut in_force = self.offset;
        if let Some(edge) = self.edge {
            if at >= edge.begin {
                let after = self.offset + edge.leap.change();
                utc.time = utc_code(at, after)?;
                utc.leap_second = edge.leap == Leap::Insert && at.seconds() == edge.begin.seconds();
                if !utc.leap_second {
                    in_force = after;
                }
            } else if at >= edge.day {
                utc.announcement = match edge.leap {
                    Leap::Insert => Announcement::Insert,
                    Leap::Delete => Announcement::Delete,
                };
            }
        }
        (utc.time.seconds() >= 0).then_some((utc, in_force))
    }

    /// Whether from `at` to `later`, which is no more than a second after it, UTC goes like linear time and
    /// nothing that is said of it changes.
    pub(crate) fn is_even(&self, at: Timestamp<Linear>, later: Timestamp<Linear>) -> bool {
        let passed = later.since(at);
        let (Some(passed), Some(now), Some(then)) = (passed, self.utc(at), self.utc(later)) else {
            return false;
        };
        let (mut utc, offset) = now;
        let Some(time) = utc.time.checked_add(passed) else {
            return false;
        };
        utc.time = time;
        (utc, offset) == then
    }

    /// The leap second that the page tells of.
    pub(crate) fn leap_second(&self) -> Option<LeapSecond> {
        self.edge.map(|edge| LeapSecond {
            month: Timestamp::from_parts(edge.month, 0),
            kind: edge.leap,
        })
    }

    /// Linear − UTC at a second of UTC; inside 23:59:60, coded as :59, the old one.
    pub(crate) fn offset_at_code(&self, second: i64) -> i16 {
        match self.edge {
            Some(edge) if second >= edge.month => self.offset + edge.leap.change(),
            _ => self.offset,
        }
    }
}

/// The POSIX code of `at` when linear − UTC is `offset`.
#[inline]
fn utc_code(at: Timestamp<Linear>, offset: i16) -> Option<Timestamp<Utc>> {
    at.relabel()
        .checked_sub(Span::from_seconds(i64::from(offset)))
}
