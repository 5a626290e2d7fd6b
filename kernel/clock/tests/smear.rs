//! Smeared UTC against exact fractions: every nanosecond about the ends of the window and the leap
//! second, monotonic, continuous, inside its bounds.

use gnomon_clock::calendar::DAY;
use gnomon_clock::page::flag;
use gnomon_clock::{
    ClockStatus, CounterId, Fields, Leap, LeapIndicator, Reading, Smear, Smeared, Smearer,
    SmearingHint, Span, Ticks, TimeType, Timeline, Timestamp, Utc,
};
use proptest::prelude::*;

/// A counter of 2³⁰ Hz: whole ticks are exact.
const SECOND: i64 = 1 << 30;
/// 2016-12-31T24:00:00Z.
const MONTH: i64 = 1_483_228_800;

/// The page of a host 20 days before or after the leap second, by its side of it.
fn page(kind: Leap, after: bool, time_type: TimeType, maxerror: u64) -> Fields {
    let (days, indicator, offset) = match (kind, after) {
        (Leap::Insert, false) => (-20, LeapIndicator::PrePos, 36),
        (Leap::Delete, false) => (-20, LeapIndicator::PreNeg, 36),
        (Leap::Insert, true) => (20, LeapIndicator::PostPos, 37),
        (Leap::Delete, true) => (20, LeapIndicator::PostNeg, 35),
    };
    let utc = MONTH + days * DAY;
    let tai = if time_type == TimeType::Tai {
        i64::from(offset)
    } else {
        0
    };
    // The counter is zero where `elapsed` is.
    let before_leap = 36 + i64::from(kind == Leap::Insert) - 1;
    let elapsed = utc + i64::from(offset) - (MONTH + before_leap);
    Fields {
        counter_id: CounterId::X86Tsc as u8,
        time_type: time_type as u8,
        clock_status: ClockStatus::Synchronized as u8,
        flags: flag::TAI_OFFSET_VALID | flag::TIME_MAXERROR_VALID | flag::PERIOD_MAXERROR_VALID,
        tai_offset_sec: -offset,
        leap_indicator: indicator as u8,
        counter_period_frac_sec: 1 << 63,
        counter_period_shift: 29,
        counter_value: (elapsed * SECOND).cast_unsigned(),
        time_sec: (utc + tai).cast_unsigned(),
        time_maxerror_nanosec: maxerror,
        ..Fields::stock()
    }
}

fn read(fields: &Fields, elapsed: i64) -> Reading {
    let timeline = Timeline::from_page(fields, CounterId::X86Tsc).expect("a good page");
    timeline
        .at(Ticks(elapsed.cast_unsigned()))
        .expect("in range")
}

/// The definition, in 2⁻⁶⁴/L s after the month's first second, where L is the length of the window:
/// `elapsed` is in 2⁻⁶⁴ s since the start of 23:59:60 or of a midnight that came early.
fn exact(smear: Smear, kind: Leap, elapsed: i128) -> (i128, i128) {
    let (begin, end) = match (smear, kind) {
        (Smear::NoonLinear, Leap::Insert) => (-43_200, 43_201),
        (Smear::NoonLinear, Leap::Delete) => (-43_199, 43_200),
        (Smear::UtcSls, Leap::Insert) => (-999, 1),
        (Smear::UtcSls, Leap::Delete) => (-1000, 0),
    };
    let (begin, end): (i128, i128) = (begin << 64, end << 64);
    let length = (end - begin) >> 64;
    let through = elapsed.clamp(begin, end) - begin;
    let before = match kind {
        Leap::Insert => elapsed * length - through,
        Leap::Delete => (elapsed - (1 << 64)) * length + through,
    };
    (before, length)
}

fn since_month(smeared: &Smeared) -> i128 {
    let month = Timestamp::<Utc>::from_parts(MONTH, 0);
    smeared.time.since(month).expect("near").units()
}

fn smears() -> impl Strategy<Value = (Smear, Leap)> {
    prop_oneof![
        Just((Smear::NoonLinear, Leap::Insert)),
        Just((Smear::NoonLinear, Leap::Delete)),
        Just((Smear::UtcSls, Leap::Insert)),
        Just((Smear::UtcSls, Leap::Delete)),
    ]
}

/// In ticks: beside every second where something changes, and anywhere within a day.
fn instants() -> impl Strategy<Value = i64> {
    let landmarks = [-43_200, -43_199, -1000, -999, -1, 0, 1, 43_200, 43_201];
    prop_oneof![
        (0..landmarks.len(), -2..=2_i64).prop_map(move |(i, ticks)| landmarks[i] * SECOND + ticks),
        -1100 * SECOND..10 * SECOND,
        -DAY * SECOND..DAY * SECOND,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 8 } else if cfg!(debug_assertions) { 1000 } else { 10_000 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn smeared_time_is_the_exact_fraction_rounded(
        (smear, kind) in smears(), elapsed in instants(), after in any::<bool>(),
        tai in any::<bool>(),
    ) {
        let time_type = if tai { TimeType::Tai } else { TimeType::Utc };
        let reading = read(&page(kind, after, time_type, 0), elapsed);
        let smeared = smear.utc(&reading).expect("a page with UTC");
        let (exact, length) = exact(smear, kind, i128::from(elapsed) << 34);
        let error = since_month(&smeared) * length - exact;
        prop_assert!(error.abs() < length, "{error} of {length}");
        let utc = reading.utc.expect("a page with UTC");
        prop_assert_eq!(smeared.time.since(utc.time), Some(smeared.offset));
        prop_assert!(smeared.offset.abs() < Span::from_seconds(1));
        prop_assert_eq!(Smearer::new(smear).utc(&reading), Some(smeared));
    }

    #[test]
    fn smeared_time_is_monotonic_and_continuous(
        (smear, kind) in smears(), elapsed in instants(),
    ) {
        let page = page(kind, false, TimeType::Tai, 0);
        let at = |elapsed| since_month(&smear.utc(&read(&page, elapsed)).expect("UTC"));
        let step = at(elapsed + 1) - at(elapsed);
        // A tick is 2³⁴ units, and the rate is within 0.1 % and a unit of rounding of 1.
        let slack = (1_i128 << 34) / 998;
        prop_assert!((step - (1 << 34)).abs() <= slack, "{step}");
        // Also in NTP's coarser units it never steps back.
        prop_assert!(at(elapsed + 1) >> 32 >= at(elapsed) >> 32);
    }

    #[test]
    fn the_truth_is_inside_both_bounds(
        (smear, kind) in smears(), elapsed in instants(),
        maxerror in prop_oneof![0..1000_u64, 0..10_000_000_000_u64, 0..200_000_000_000_000_u64],
        truth_at in prop_oneof![Just(-1000_i128), Just(1000), -1000..=1000_i128],
    ) {
        let reading = read(&page(kind, false, TimeType::Tai, maxerror), elapsed);
        let smeared = smear.utc(&reading).expect("a page with UTC");
        let bound = reading.bound.units().cast_signed();
        let truth = (i128::from(elapsed) << 34) + bound / 1000 * truth_at;
        let (exact, length) = exact(smear, kind, truth);
        let apart = (since_month(&smeared) * length - exact).unsigned_abs();
        prop_assert!(apart <= smeared.bound.units() * length.unsigned_abs(), "{apart}");
        // Against UTC: carried on from this instant, since a code may jump between.
        let utc = reading.utc.expect("a page with UTC").time;
        let true_utc = utc.checked_add(Span::from_units(bound / 1000 * truth_at)).expect("near");
        let apart = smeared.time.since(true_utc).expect("near");
        prop_assert!(smeared.utc_bound.contains(apart), "{apart:?} {smeared:?}");
        // And neither is wider than it has to be.
        prop_assert!(smeared.bound.units() - reading.bound.units() <= reading.bound.units() / 999 + 3);
        let offset = smeared.offset.units().unsigned_abs();
        prop_assert_eq!(smeared.utc_bound.units(), reading.bound.units() + offset);
    }

    #[test]
    fn even_the_rounding_is_inside_the_bound(
        (smear, kind) in smears(), seconds in -999..0_i64, fraction in any::<u64>(),
        truth_at in prop_oneof![Just(-1_i128), Just(1)],
    ) {
        // A tick of one unit and no error: what is left of the bound is two units.
        let midnight = MONTH + if kind == Leap::Insert { 36 } else { 35 };
        let fields = Fields {
            counter_value: 0,
            counter_period_frac_sec: 1,
            counter_period_shift: 0,
            time_sec: (midnight + seconds).cast_unsigned(),
            time_frac_sec: fraction,
            ..page(kind, false, TimeType::Tai, 0)
        };
        let reading = read(&fields, 0);
        prop_assert_eq!(reading.bound.units(), 2);
        let smeared = smear.utc(&reading).expect("a page with UTC");
        let elapsed = (i128::from(seconds) << 64) + i128::from(fraction);
        let (exact, length) = exact(smear, kind, elapsed + 2 * truth_at);
        let apart = (since_month(&smeared) * length - exact).unsigned_abs();
        prop_assert!(apart <= smeared.bound.units() * length.unsigned_abs(), "{apart}");
    }
}

/// Seconds since the leap second, UTC then, smeared UTC (truncated), and whether the two are equal.
type Window = (Smear, Leap, i64, &'static str, &'static str, bool);
const WINDOWS: [Window; 14] = [
    (
        Smear::NoonLinear,
        Leap::Insert,
        -43_200,
        "2016-12-31T12:00:00.000000000Z",
        "2016-12-31T12:00:00.000000000Z",
        true,
    ),
    (
        Smear::NoonLinear,
        Leap::Insert,
        -43_199,
        "2016-12-31T12:00:01.000000000Z",
        "2016-12-31T12:00:00.999988426Z",
        false,
    ),
    (
        Smear::NoonLinear,
        Leap::Insert,
        0,
        "2016-12-31T23:59:60.000000000Z",
        "2016-12-31T23:59:59.500005786Z",
        false,
    ),
    (
        Smear::NoonLinear,
        Leap::Insert,
        43_200,
        "2017-01-01T11:59:59.000000000Z",
        "2017-01-01T11:59:59.000011573Z",
        false,
    ),
    (
        Smear::NoonLinear,
        Leap::Insert,
        43_201,
        "2017-01-01T12:00:00.000000000Z",
        "2017-01-01T12:00:00.000000000Z",
        true,
    ),
    (
        Smear::NoonLinear,
        Leap::Delete,
        -43_199,
        "2016-12-31T12:00:00.000000000Z",
        "2016-12-31T12:00:00.000000000Z",
        true,
    ),
    (
        Smear::NoonLinear,
        Leap::Delete,
        43_200,
        "2017-01-01T12:00:00.000000000Z",
        "2017-01-01T12:00:00.000000000Z",
        true,
    ),
    (
        Smear::UtcSls,
        Leap::Insert,
        -999,
        "2016-12-31T23:43:21.000000000Z",
        "2016-12-31T23:43:21.000000000Z",
        true,
    ),
    (
        Smear::UtcSls,
        Leap::Insert,
        -998,
        "2016-12-31T23:43:22.000000000Z",
        "2016-12-31T23:43:21.999000000Z",
        false,
    ),
    (
        Smear::UtcSls,
        Leap::Insert,
        0,
        "2016-12-31T23:59:60.000000000Z",
        "2016-12-31T23:59:59.001000000Z",
        false,
    ),
    (
        Smear::UtcSls,
        Leap::Insert,
        1,
        "2017-01-01T00:00:00.000000000Z",
        "2017-01-01T00:00:00.000000000Z",
        true,
    ),
    (
        Smear::UtcSls,
        Leap::Delete,
        -1000,
        "2016-12-31T23:43:19.000000000Z",
        "2016-12-31T23:43:19.000000000Z",
        true,
    ),
    (
        Smear::UtcSls,
        Leap::Delete,
        -1,
        "2016-12-31T23:59:58.000000000Z",
        "2016-12-31T23:59:58.998999999Z",
        false,
    ),
    (
        Smear::UtcSls,
        Leap::Delete,
        0,
        "2017-01-01T00:00:00.000000000Z",
        "2017-01-01T00:00:00.000000000Z",
        true,
    ),
];

#[test]
fn the_windows_begin_and_end_where_they_are_said_to() {
    let show = |smear: Smear, kind, elapsed: i64| {
        let reading = read(&page(kind, false, TimeType::Tai, 0), elapsed);
        let smeared = smear.utc(&reading).expect("a page with UTC");
        let utc = reading.utc.expect("a page with UTC");
        (
            utc.to_string(),
            smeared.time.to_string(),
            smeared.offset == Span::ZERO,
        )
    };
    for (smear, kind, second, utc, smeared, plain) in WINDOWS {
        let expected = (utc.to_owned(), smeared.to_owned(), plain);
        assert_eq!(
            show(smear, kind, second * SECOND),
            expected,
            "{smear:?} {kind:?} {second}"
        );
    }
}

#[test]
fn without_a_leap_second_smeared_time_is_utc_and_without_utc_there_is_none() {
    for smear in [Smear::NoonLinear, Smear::UtcSls] {
        let known = page(Leap::Insert, false, TimeType::Tai, 1000);
        let none = Fields {
            leap_indicator: 0,
            ..known
        };
        let no_utc = Fields { flags: 0, ..known };
        for elapsed in [-DAY * SECOND, -500 * SECOND, 0, SECOND / 2, DAY * SECOND] {
            let reading = read(&none, elapsed);
            let smeared = smear.utc(&reading).expect("a page with UTC");
            assert_eq!(Some(smeared.time), reading.utc.map(|utc| utc.time));
            assert_eq!(smeared.offset, Span::ZERO);
            assert_eq!(
                (smeared.bound, smeared.utc_bound),
                (reading.bound, reading.bound)
            );
            let reading = read(&no_utc, elapsed);
            assert_eq!(smear.utc(&reading), None);
            assert_eq!(Smearer::new(smear).utc(&reading), None);
        }
    }
}

#[test]
fn a_leap_second_that_the_host_drops_early_is_smeared_to_its_end() {
    for (kind, after) in [(Leap::Insert, 37), (Leap::Delete, 35)] {
        let before = page(kind, false, TimeType::Tai, 0);
        // The same line, and no word of the leap second any more.
        let dropped = |offset: i16| Fields {
            leap_indicator: 0,
            tai_offset_sec: -offset,
            ..before
        };
        let mut smearer = Smearer::new(Smear::NoonLinear);
        assert_eq!(smearer.smear(), Smear::NoonLinear);
        assert!(smearer.utc(&read(&before, -SECOND)).is_some());
        for seconds in [2, 3600, 43_190, 50_000] {
            let reading = read(&before, seconds * SECOND);
            let quiet = read(&dropped(after), seconds * SECOND);
            assert_eq!(
                quiet.utc.map(|utc| utc.time),
                reading.utc.map(|utc| utc.time)
            );
            assert_eq!(
                smearer.utc(&quiet),
                Smear::NoonLinear.utc(&reading),
                "{kind:?} {seconds}"
            );
        }
        // Also if it is dropped by a host that told of it when it was over already.
        let mut smearer = Smearer::new(Smear::NoonLinear);
        let over = page(kind, true, TimeType::Tai, 0);
        assert!(smearer.utc(&read(&over, 60 * SECOND)).is_some());
        let quiet = read(&dropped(after), 3600 * SECOND);
        let told = read(&before, 3600 * SECOND);
        assert_eq!(smearer.utc(&quiet), Smear::NoonLinear.utc(&told));
        // One that did not happen after all is not smeared on, nor one that was taken back before.
        let mut smearer = Smearer::new(Smear::NoonLinear);
        assert!(smearer.utc(&read(&before, -SECOND)).is_some());
        let withdrawn = read(&dropped(36), 3600 * SECOND);
        assert_eq!(
            smearer.utc(&withdrawn).map(|smeared| smeared.offset),
            Some(Span::ZERO)
        );
        let mut smearer = Smearer::new(Smear::NoonLinear);
        assert!(smearer.utc(&read(&before, -7200 * SECOND)).is_some());
        let withdrawn = read(&dropped(36), -3600 * SECOND);
        assert_eq!(
            smearer.utc(&withdrawn).map(|smeared| smeared.offset),
            Some(Span::ZERO)
        );
        assert_eq!(
            smearer
                .utc(&read(&dropped(after), 3600 * SECOND))
                .map(|smeared| smeared.offset),
            Some(Span::ZERO)
        );
    }
}

#[test]
fn far_from_the_leap_second_nothing_overflows() {
    for kind in [Leap::Insert, Leap::Delete] {
        // From a leap second at the start of 1970 to the last seconds that there are, by a tick of
        // almost a second.
        let slow = Fields {
            flags: flag::TIME_MAXERROR_VALID,
            time_sec: 0,
            time_maxerror_nanosec: u64::MAX,
            counter_period_frac_sec: u64::MAX,
            counter_period_shift: 0,
            counter_value: 0,
            ..page(kind, true, TimeType::Utc, 0)
        };
        for smear in [Smear::NoonLinear, Smear::UtcSls] {
            for left in [0, 1, 2, 43_200, 90_000] {
                let reading = read(&slow, i64::MAX - left);
                let smeared = smear.utc(&reading).expect("a page with UTC");
                assert_eq!(Some(smeared.time), reading.utc.map(|utc| utc.time));
                assert_eq!(smeared.offset, Span::ZERO);
            }
        }
    }
}

#[test]
fn hints_ask_for_smears() {
    for (hint, smear) in [
        (SmearingHint::Strict, None),
        (SmearingHint::NoonLinear, Some(Smear::NoonLinear)),
        (SmearingHint::UtcSls, Some(Smear::UtcSls)),
    ] {
        assert_eq!(Smear::from_hint(hint), smear);
        let fields = Fields {
            leap_second_smearing_hint: hint as u8,
            ..page(Leap::Insert, false, TimeType::Tai, 0)
        };
        assert_eq!(read(&fields, 0).smearing_hint, Some(hint));
    }
    let unknown = Fields {
        leap_second_smearing_hint: 3,
        ..page(Leap::Insert, false, TimeType::Tai, 0)
    };
    assert_eq!(read(&unknown, 0).smearing_hint, None);
}
