//! Instants, spans, bounds and tick differences at the ends of their ranges.

use gnomon_clock::{Bound, NtpTimestamp, Span, Tai, Ticks, Timestamp, Utc};
use proptest::prelude::*;

fn utc(seconds: i64, fraction: u64) -> Timestamp<Utc> {
    Timestamp::from_parts(seconds, fraction)
}

#[test]
fn seconds_are_floored_and_nanos_truncated() {
    assert_eq!(utc(-1, u64::MAX).seconds(), -1);
    assert_eq!(utc(-1, u64::MAX).nanos(), 999_999_999);
    assert_eq!(utc(7, 1 << 63).nanos(), 500_000_000);
    // One nanosecond is 18 446 744 073.7 units.
    assert_eq!(utc(0, 18_446_744_073).nanos(), 0);
    assert_eq!(utc(0, 18_446_744_074).nanos(), 1);
}

#[test]
fn arithmetic_ends_at_the_range_instead_of_wrapping() {
    let last = Timestamp::<Tai>::from_parts(i64::MAX, u64::MAX);
    let first = Timestamp::<Tai>::from_parts(i64::MIN, 0);
    let unit = Span::from_units(1);
    assert_eq!(last.checked_add(unit), None);
    assert_eq!(first.checked_sub(unit), None);
    assert_eq!(last.since(first), None);
    assert_eq!(
        last.checked_sub(unit).and_then(|t| t.checked_add(unit)),
        Some(last)
    );
    assert_eq!(
        Span::from_units(i128::MIN).abs(),
        Span::from_units(i128::MAX)
    );
}

#[test]
fn ntp_time_wraps_with_the_era() {
    // 2036-02-07T06:28:16Z is the first second of era 1.
    assert_eq!(
        utc(2_085_978_495, u64::MAX).to_ntp(),
        NtpTimestamp(u64::MAX)
    );
    assert_eq!(utc(2_085_978_496, 0).to_ntp(), NtpTimestamp(0));
    assert_eq!(utc(2_085_978_496, 1 << 32).to_ntp(), NtpTimestamp(1));
    assert_eq!(utc(0, 0).to_ntp(), NtpTimestamp(2_208_988_800 << 32));
    assert_eq!(utc(-2_208_988_800, 0).to_ntp(), NtpTimestamp(0));
    assert_eq!(utc(i64::MAX, 0).to_ntp(), NtpTimestamp(2_208_988_799 << 32));
}

#[test]
fn nanoseconds_of_spans_are_floored() {
    assert_eq!(Span::from_nanos(-1).as_nanos_floor(), -1);
    for nanos in [i64::MIN, i64::MAX] {
        assert_eq!(Span::from_nanos(nanos).as_nanos_floor(), i128::from(nanos));
    }
    assert_eq!(Span::from_units(-1).as_nanos_floor(), -1);
    assert_eq!(Span::from_units(1).as_nanos_floor(), 0);
    assert_eq!(Span::from_seconds(-37).as_nanos_floor(), -37_000_000_000);
    assert_eq!(
        Span::from_seconds(i64::MIN).as_nanos_floor(),
        i128::from(i64::MIN) * 1_000_000_000
    );
}

#[test]
fn bounds_round_outward_and_saturate() {
    assert_eq!(Bound::from_units(1).nanos(), 1);
    assert_eq!(Bound::from_units(18_446_744_073).nanos(), 1);
    assert_eq!(Bound::from_units(18_446_744_074).nanos(), 2);
    assert_eq!(Bound::from_nanos(1), Bound::from_units(18_446_744_074));
    assert_eq!(Bound::from_nanos(1_000_000_000), Bound::from_units(1 << 64));
    assert_eq!(Bound::from_nanos(u64::MAX).nanos(), u64::MAX);
    assert_eq!(Bound::MAX.nanos(), u64::MAX);
    assert_eq!(Bound::MAX.plus(Bound::from_units(1)), Bound::MAX);

    assert_eq!(Bound::ZERO.to_ntp_short(), 0);
    assert_eq!(Bound::from_units(1).to_ntp_short(), 1);
    assert_eq!(Bound::from_units(1 << 48).to_ntp_short(), 1);
    assert_eq!(Bound::from_units((1 << 48) + 1).to_ntp_short(), 2);
    assert_eq!(Bound::from_nanos(1_000_000_000).to_ntp_short(), 1 << 16);
    assert_eq!(
        Bound::from_units(0xffff_ffff << 48).to_ntp_short(),
        u32::MAX
    );
    assert_eq!(
        Bound::from_units((0xffff_ffff << 48) + 1).to_ntp_short(),
        u32::MAX
    );
    assert_eq!(Bound::MAX.to_ntp_short(), u32::MAX);

    assert!(Bound::from_units(5).contains(Span::from_units(-5)));
    assert!(!Bound::from_units(5).contains(Span::from_units(6)));
    assert!(Bound::MAX.contains(Span::from_units(i128::MIN)));
}

#[test]
fn tick_differences_are_signed() {
    assert_eq!(Ticks(5).since(Ticks(7)), -2);
    assert_eq!(Ticks(1).since(Ticks(u64::MAX)), 2);
    assert_eq!(Ticks(u64::MAX).since(Ticks(1)), -2);
    assert_eq!(Ticks(1 << 63).since(Ticks(0)), i64::MIN);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 8 } else { 1000 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn parts_make_the_whole(seconds in any::<i64>(), fraction in any::<u64>()) {
        let time = utc(seconds, fraction);
        prop_assert_eq!((time.seconds(), time.fraction()), (seconds, fraction));
        prop_assert_eq!(u128::from(time.nanos()), (u128::from(fraction) * 1_000_000_000) >> 64);
    }

    #[test]
    fn order_is_that_of_the_parts(a in any::<(i64, u64)>(), b in any::<(i64, u64)>()) {
        prop_assert_eq!(utc(a.0, a.1).cmp(&utc(b.0, b.1)), a.cmp(&b));
    }

    #[test]
    fn since_undoes_add(a in any::<(i64, u64)>(), span in any::<i128>()) {
        let (start, span) = (utc(a.0, a.1), Span::from_units(span));
        if let Some(end) = start.checked_add(span) {
            prop_assert_eq!(end.since(start), Some(span));
            prop_assert_eq!(end.checked_sub(span), Some(start));
        }
    }

    #[test]
    fn nanoseconds_survive_in_spans(nanos in any::<i64>()) {
        prop_assert_eq!(Span::from_nanos(nanos).as_nanos_floor(), i128::from(nanos));
    }

    #[test]
    fn nanoseconds_survive_in_bounds_outward(nanos in any::<u64>(), extra in any::<u32>()) {
        let bound = Bound::from_nanos(nanos);
        prop_assert!(bound.nanos() >= nanos && bound.nanos() - nanos <= 1);
        // In seconds and units: less than one unit above the exact value, never below.
        let whole = u128::from(nanos / 1_000_000_000) << 64;
        let rest = u128::from(nanos % 1_000_000_000) << 64;
        let above = (bound.units() - whole) * 1_000_000_000 - rest;
        prop_assert!(above < 1_000_000_000);
        let wider = bound.plus(Bound::from_units(u128::from(extra)));
        prop_assert!(wider.nanos() >= nanos);
        prop_assert!(u128::from(wider.to_ntp_short()) << 48 >= wider.units()
            || wider.to_ntp_short() == u32::MAX);
    }
}
