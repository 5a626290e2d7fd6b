//! The real-time clock of the machine under test.

use gnomon_kernel::smoke::rtc::Rtc;

use super::*;

/// 2026-11-20T12:00:00Z.
const NOON: i64 = 1_795_176_000;

/// What is made of a clock that shows these seconds, one look each 10 ms of a counter of 1 GHz.
fn clock(looks: u64, page: Option<i64>, shows: impl Fn(u64) -> Look) -> Rtc {
    let mut rtc = Rtc::default();
    for number in 0..looks {
        let nanos = number * 10_000_000;
        let seconds = i64::try_from(nanos / GIGAHERTZ).expect("small");
        let at = (Ticks(nanos), Ticks(nanos + 1000));
        let page = page.map(|page| page + seconds);
        rtc.look(at, Ok(shows(nanos)), page, number >= looks / 2);
    }
    rtc
}

/// A clock that is set to `start` and runs by this share of the true rate, in ppm.
fn clock_from(start: i64, ppm: u64) -> impl Fn(u64) -> Look {
    move |nanos| {
        let shown = (nanos / 1000 * ppm + 700_000_000_000) / 1_000_000_000_000;
        // For a moment of each second it is being updated.
        if nanos % GIGAHERTZ == 0 {
            return Look::Busy;
        }
        Look::Seconds(start + i64::try_from(shown).expect("small"))
    }
}

#[test]
fn a_real_time_clock_is_plausible_or_not() {
    const RIGHT: u64 = 1_000_000;
    let rate = Some(Measured {
        hertz: GIGAHERTZ,
        error: 1000,
    });
    let judged = |rtc: &Rtc| is(&rtc.outcome(rate));
    for page in [None, Some(NOON), Some(NOON + 80_000)] {
        let rtc = clock(400, page, clock_from(NOON, RIGHT));
        assert!(rtc.is_enough());
        assert_eq!(judged(&rtc), '+', "{rtc:?}");
    }
    for (start, ppm, page, why) in [
        (NOON, RIGHT, Some(NOON + 90_000), "another day"),
        (NOON, RIGHT, Some(NOON - 90_000), "another day"),
        (0, RIGHT, None, "never set"),
        (102 * 365 * 86_400 * 2, RIGHT, None, "another century"),
        (NOON, 1_200_000, Some(NOON), "too fast"),
        (NOON, 800_000, Some(NOON), "too slow"),
    ] {
        let rtc = clock(400, page, clock_from(start, ppm));
        assert_eq!(judged(&rtc), '-', "{why}: {rtc:?}");
    }
    let still = clock(400, None, |_| Look::Seconds(NOON));
    assert!(!still.is_enough());
    assert_eq!(judged(&still), '-');
    let back = clock(400, None, |nanos| {
        Look::Seconds(NOON + i64::try_from(nanos / GIGAHERTZ % 3).expect("small"))
    });
    assert_eq!(judged(&back), '-');
    assert_eq!(judged(&clock(400, None, |_| Look::Busy)), '-');
    assert_eq!(judged(&clock(400, None, |_| Look::Silent("empty"))), '-');
    let mut absent = Rtc::default();
    absent.look((Ticks(0), Ticks(1)), Err("none"), None, false);
    assert!(absent.is_enough());
    assert_eq!(judged(&absent), '?');
}

#[test]
fn a_real_time_clock_measures_the_counter() {
    let measured = |ppm| {
        let rtc = clock(400, None, clock_from(NOON, ppm));
        let mut readings = Readings::default();
        for (place, pair) in rtc.pairs().expect("enough").into_iter().enumerate() {
            readings.beside(place, pair);
        }
        assert_eq!(is(&readings.steady(Some("it"))), '+');
        readings.rate().expect("a rate")
    };
    let right = measured(1_000_000);
    assert!(right.hertz.abs_diff(GIGAHERTZ) <= right.error, "{right:?}");
    // Some looks are 20 ms apart, and at least 2 s were seen.
    assert!(right.error < 3 * GIGAHERTZ / 100, "{right:?}");
    let fast = measured(900_000);
    assert!(fast.hertz.abs_diff(GIGAHERTZ) > fast.error, "{fast:?}");
}
