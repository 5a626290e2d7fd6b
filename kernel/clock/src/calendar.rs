//! The proleptic Gregorian calendar over days since 1970-01-01, and how instants are printed.

use core::fmt;

use crate::time::{Timescale, Timestamp};

/// Seconds in a POSIX-coded day.
pub const DAY: i64 = 86_400;

/// A day of the proleptic Gregorian calendar (year 0 is 1 BC).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date {
    /// Astronomical year.
    pub year: i64,
    /// 1..=12
    pub month: u8,
    /// 1..=31
    pub day: u8,
}

impl Date {
    /// The date `days` days after 1970-01-01; `None` only where counting from the year 0 instead
    /// overflows, far beyond any day of an `i64` of seconds.
    #[must_use]
    pub const fn from_days(days: i64) -> Option<Self> {
        let Some(days) = days.checked_add(EPOCH_FROM_MARCH_0) else {
            return None;
        };
        let era = days.div_euclid(ERA_DAYS);
        let day_of_era = days.rem_euclid(ERA_DAYS);
        // The last century of an era and the last year of four are a day longer than the others,
        // and that day does not begin a fifth.
        let century = smaller(day_of_era / CENTURY_DAYS, 3);
        let day_of_century = day_of_era - century * CENTURY_DAYS;
        let day_of_four = day_of_century % FOUR_YEARS_DAYS;
        let year_of_four = smaller(day_of_four / 365, 3);
        let year_of_era = 100 * century + 4 * (day_of_century / FOUR_YEARS_DAYS) + year_of_four;
        let day_of_year = day_of_four - 365 * year_of_four;
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - days_before_month(month_from_march) + 1;
        let (month, next_year) = if month_from_march < 10 {
            (month_from_march + 3, 0)
        } else {
            (month_from_march - 9, 1)
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "1..=12 and 1..=31"
        )]
        Some(Self {
            year: era * 400 + year_of_era + next_year,
            month: month as u8,
            day: day as u8,
        })
    }

    /// Days from 1970-01-01 to this date; `None` when there is no such date, or the result is out
    /// of range.
    #[must_use]
    pub const fn days(self) -> Option<i64> {
        if self.day < 1 || self.day > self.days_of_month() {
            return None;
        }
        let month = self.month as i64;
        let (year, month_from_march) = if month > 2 {
            (self.year, month - 3)
        } else {
            match self.year.checked_sub(1) {
                Some(year) => (year, month + 9),
                None => return None,
            }
        };
        let day_of_era = days_before_year(year.rem_euclid(400))
            + days_before_month(month_from_march)
            + self.day as i64
            - 1;
        match year.div_euclid(400).checked_mul(ERA_DAYS) {
            Some(days) => days.checked_add(day_of_era - EPOCH_FROM_MARCH_0),
            None => None,
        }
    }

    /// The first second of this date.
    const fn seconds(self) -> Option<i64> {
        match self.days() {
            Some(days) => days.checked_mul(DAY),
            None => None,
        }
    }

    /// How many days this date's month has; none if there is no such month.
    const fn days_of_month(self) -> u8 {
        let leap = self.year % 4 == 0 && (self.year % 100 != 0 || self.year % 400 == 0);
        match self.month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => 0,
        }
    }
}

/// First second of the month that contains the POSIX second `second`.
pub(crate) const fn this_month(second: i64) -> Option<i64> {
    let Some(date) = Date::from_days(second.div_euclid(DAY)) else {
        return None;
    };
    Date { day: 1, ..date }.seconds()
}

/// First second of the month after that.
pub(crate) const fn next_month(second: i64) -> Option<i64> {
    let Some(date) = Date::from_days(second.div_euclid(DAY)) else {
        return None;
    };
    let (year, month) = if date.month == 12 {
        (date.year + 1, 1)
    } else {
        (date.year, date.month + 1)
    };
    Date {
        year,
        month,
        day: 1,
    }
    .seconds()
}

/// Writes `2026-11-20T12:05:31.123456789`; `leap_second` prints second 59 as 60. Years outside
/// 0..=9999 get a sign, as in ISO 8601's expanded form.
pub(crate) fn write_timestamp<S: Timescale>(
    f: &mut fmt::Formatter<'_>,
    time: Timestamp<S>,
    leap_second: bool,
) -> fmt::Result {
    let days = time.seconds().div_euclid(DAY);
    let second_of_day = time.seconds().rem_euclid(DAY);
    let Some(Date { year, month, day }) = Date::from_days(days) else {
        return f.write_str("(no date)");
    };
    if (0..=9999).contains(&year) {
        write!(f, "{year:04}")?;
    } else {
        write!(f, "{year:+05}")?;
    }
    let (hour, minute) = (second_of_day / 3_600, second_of_day / 60 % 60);
    let second = second_of_day % 60 + i64::from(leap_second);
    let nanos = time.nanos();
    write!(
        f,
        "-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}"
    )
}

/// Days in 400 years.
const ERA_DAYS: i64 = 146_097;

/// Days in a century, without the leap day that ends the fourth.
const CENTURY_DAYS: i64 = 36_524;

/// Days in four years with a leap day.
const FOUR_YEARS_DAYS: i64 = 1_461;

/// Days from 0000-03-01 to 1970-01-01. Years are counted from March, so that the leap day is last.
const EPOCH_FROM_MARCH_0: i64 = 719_468;

/// Days before year `year_of_era` (0..=399, counted from March) in its era.
const fn days_before_year(year_of_era: i64) -> i64 {
    365 * year_of_era + year_of_era / 4 - year_of_era / 100
}

/// Days before a month (0 = March) in its year: 31 30 31 30 31 repeats, 153 days to five months.
const fn days_before_month(month_from_march: i64) -> i64 {
    (153 * month_from_march + 2) / 5
}

const fn smaller(a: i64, b: i64) -> i64 {
    if a < b { a } else { b }
}
