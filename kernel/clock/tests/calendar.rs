//! Dates against jiff, and every printed form of an instant.

use gnomon_clock::calendar::{DAY, Date};
use gnomon_clock::{Announcement, Tai, Timestamp, Utc, UtcTime};
use jiff::civil;
use proptest::prelude::*;

/// Days from 1970 to −9999-01-01 and 9999-12-31, the range of jiff.
const JIFF_DAYS: core::ops::RangeInclusive<i64> = -4_371_587..=2_932_896;

fn jiff_date(days: i64) -> civil::Date {
    civil::date(1970, 1, 1)
        .checked_add(jiff::Span::new().days(days))
        .expect("inside jiff's range")
}

fn same(days: i64) {
    let ours = Date::from_days(days).expect("far from the ends of i64");
    let theirs = jiff_date(days);
    assert_eq!(ours.year, i64::from(theirs.year()));
    assert_eq!(i8::try_from(ours.month), Ok(theirs.month()));
    assert_eq!(i8::try_from(ours.day), Ok(theirs.day()));
    assert_eq!(ours.days(), Some(days));
}

#[test]
fn every_day_near_the_epoch_is_jiffs() {
    let step = if cfg!(miri) { 997 } else { 1 };
    (-9999..=9999).step_by(step).for_each(same);
}

#[test]
fn the_ends_of_jiffs_range_agree() {
    assert_eq!(jiff_date(*JIFF_DAYS.start()), civil::date(-9999, 1, 1));
    assert_eq!(jiff_date(*JIFF_DAYS.end()), civil::date(9999, 12, 31));
    same(*JIFF_DAYS.start());
    same(*JIFF_DAYS.end());
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 8 } else { 2000 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_day_is_jiffs(days in JIFF_DAYS) {
        same(days);
    }

    #[test]
    fn any_second_has_a_date_and_prints(seconds in any::<i64>(), fraction in any::<u64>()) {
        let date = Date::from_days(seconds.div_euclid(DAY)).expect("every i64 second has a date");
        prop_assert_eq!(date.days(), Some(seconds.div_euclid(DAY)));
        let printed = Timestamp::<Utc>::from_parts(seconds, fraction).to_string();
        let date = format!("-{:02}-{:02}T", date.month, date.day);
        prop_assert!(printed.contains(&date));
        prop_assert!(printed.ends_with('Z'));
    }
}

#[test]
fn impossible_dates_are_refused() {
    let days = |year, month, day| Date { year, month, day }.days();
    for (year, month, day) in [
        (2026, 0, 1),
        (2026, 13, 1),
        (2026, 255, 1),
        (2026, 1, 0),
        (2026, 1, 32),
        (2026, 4, 31),
        (2026, 2, 29),
        (2100, 2, 29),
        (i64::MAX, 1, 1),
        (i64::MIN, 1, 1),
        (i64::MIN, 3, 1),
    ] {
        assert_eq!(days(year, month, day), None, "{year}-{month}-{day}");
    }
    assert_eq!(days(2024, 2, 29), Some(19_782));
    assert_eq!(days(2000, 2, 29), Some(11_016));
    assert_eq!(Date::from_days(i64::MAX), None);
    assert!(Date::from_days(i64::MIN).is_some());
}

#[test]
fn instants_print_as_rfc_3339() {
    for (seconds, fraction, expected) in [
        (0, 0, "1970-01-01T00:00:00.000000000Z"),
        (-1, u64::MAX, "1969-12-31T23:59:59.999999999Z"),
        (
            1_795_176_331,
            0x1f9a_dd37_739c_51a3,
            "2026-11-20T12:05:31.123456789Z",
        ),
        (951_782_399, 1 << 63, "2000-02-28T23:59:59.500000000Z"),
        (951_782_400, 0, "2000-02-29T00:00:00.000000000Z"),
        (253_402_300_799, 0, "9999-12-31T23:59:59.000000000Z"),
        (253_402_300_800, 0, "+10000-01-01T00:00:00.000000000Z"),
        (-62_167_219_200, 0, "0000-01-01T00:00:00.000000000Z"),
        (-62_167_219_201, 0, "-0001-12-31T23:59:59.000000000Z"),
        (i64::MAX, 0, "+292277026596-12-04T15:30:07.000000000Z"),
        (i64::MIN, 0, "-292277022657-01-27T08:29:52.000000000Z"),
    ] {
        let time = Timestamp::<Utc>::from_parts(seconds, fraction);
        assert_eq!(time.to_string(), expected);
    }
    let tai = Timestamp::<Tai>::from_parts(1_483_228_837, 0);
    assert_eq!(tai.to_string(), "2017-01-01T00:00:37.000000000 TAI");
}

#[test]
fn the_inserted_second_prints_as_60() {
    let time = Timestamp::from_parts(1_483_228_799, u64::MAX);
    let utc = |leap_second| UtcTime {
        time,
        leap_second,
        announcement: Announcement::None,
    };
    assert_eq!(utc(false).to_string(), "2016-12-31T23:59:59.999999999Z");
    assert_eq!(utc(true).to_string(), "2016-12-31T23:59:60.999999999Z");
}
