//! Samples to lines: when there is one, what it says of UTC and TAI, and what becomes of a source that
//! contradicts itself.

use gnomon_clock::estimate::{HIGHEST_HERTZ, LOWEST_HERTZ, SAMPLES};
use gnomon_clock::{
    Announcement, Bound, Bracket, ClockStatus, Comparison, Conflict, CrossTimestamp, Disagreement,
    Estimator, Leap, LeapIndicator, Likely, Limits, NoLine, OperatorNote, OperatorOffset, Origin,
    Prior, Reading, Rejected, Source, SourceTime, Ticks, Timeline, Timestamp, Wander, compare,
};

/// The counter is one of 1 MHz, zero at [`START`].
const MEGAHERTZ: i64 = 1_000_000;
/// 2026-11-20T12:05:31Z, away from any month's end.
const START: i64 = 1_795_176_331;
/// 2017-01-01T00:00:00Z, after the last second that was inserted; TAI − UTC was 36 before.
const MONTH: i64 = 1_483_228_800;

/// A second of the counter since `START`.
fn ticks(seconds: i64) -> Ticks {
    Ticks((seconds * MEGAHERTZ).cast_unsigned())
}

/// UTC ± 10 µs at the counter of `seconds`, read there and back in no time.
fn utc(at: i64, code: i64) -> CrossTimestamp {
    CrossTimestamp {
        bracket: Bracket {
            before: ticks(at),
            after: ticks(at),
            marker: 1,
        },
        time: SourceTime::Utc(Timestamp::from_parts(code, 0)),
        error: Bound::from_nanos(10_000),
        tai_offset: None,
        leap: None,
        status: ClockStatus::Synchronized,
    }
}

fn tai(at: i64, seconds: i64) -> CrossTimestamp {
    CrossTimestamp {
        time: SourceTime::Tai(Timestamp::from_parts(seconds, 0)),
        ..utc(at, 0)
    }
}

fn estimator() -> Estimator {
    Estimator::new(Source::Ntp, Wander::CRYSTAL, Limits::DEFAULT)
}

fn with_prior() -> Estimator {
    let mut estimator = estimator();
    estimator.set_prior(prior(), 1);
    estimator
}

/// 1 MHz ± 10 ppm.
fn prior() -> Option<Prior> {
    Prior::from_hertz(MEGAHERTZ.cast_unsigned(), 10_000)
}

fn line(estimator: &Estimator) -> Timeline {
    estimator.timeline().expect("a line")
}

fn read(estimator: &Estimator, at: i64) -> Reading {
    line(estimator).at(ticks(at)).expect("in range")
}

/// UTC, with :60 as such, to the nearest second.
fn shown(estimator: &Estimator, at: i64) -> String {
    // Half a second on, so that rounding down is rounding to the nearest.
    let at = Ticks(ticks(at).0.wrapping_add(500_000));
    let reading = line(estimator).at(at).expect("in range");
    let shown = reading.utc.expect("UTC").to_string();
    shown.split('.').next().expect("a part").to_owned()
}

fn disagreement(result: Result<(), Rejected>) -> Disagreement {
    match result {
        Err(Rejected::Disagreement(disagreement)) => disagreement,
        other => panic!("{other:?}"),
    }
}

#[test]
fn with_a_nominal_frequency_the_first_sample_gives_a_line() {
    let mut estimator = with_prior();
    assert_eq!(estimator.timeline(), Err(NoLine::NoSample));
    assert_eq!(estimator.add(&utc(0, START)), Ok(()));
    let reading = read(&estimator, 0);
    assert_eq!(reading.origin, Origin::Own(Source::Ntp));
    assert_eq!(reading.marker, 1);
    assert_eq!(reading.status, ClockStatus::Synchronized);
    assert_eq!(reading.tai, None);
    assert!(reading.notes.utc_without_tai_offset);
    // 10 µs, half of the tick that the sample was taken in, and that of the reading.
    assert_eq!(reading.bound.nanos().div_ceil(1000), 12);
    assert_eq!(shown(&estimator, 100), "2026-11-20T12:07:11");
    // 60 ppm: the nominal frequency's tolerance and the wander.
    let grown = read(&estimator, 1000).bound.nanos() - reading.bound.nanos();
    assert_eq!(grown.div_ceil(1000), 60_000);
}

#[test]
fn without_one_it_takes_two_samples_not_too_near_each_other() {
    let mut estimator = estimator();
    assert_eq!(estimator.add(&utc(0, START)), Ok(()));
    assert_eq!(estimator.timeline(), Err(NoLine::PeriodUnknown));
    // 100 µs on, with errors of 10 µs: the counter may be a fifth faster or slower.
    let near = CrossTimestamp {
        bracket: Bracket {
            before: Ticks(100),
            after: Ticks(100),
            marker: 1,
        },
        time: SourceTime::Utc(Timestamp::from_parts(START, (1 << 63) / 5000)),
        ..utc(0, 0)
    };
    assert_eq!(estimator.add(&near), Ok(()));
    assert_eq!(estimator.timeline(), Err(NoLine::PeriodUnknown));
    assert_eq!(estimator.add(&utc(1, START + 1)), Ok(()));
    assert_eq!(shown(&estimator, 10), "2026-11-20T12:05:41");
    // 20 µs in a second and the wander, twice: of the mean, and from it.
    let grown = read(&estimator, 1001).bound.nanos() - read(&estimator, 1).bound.nanos();
    assert!((115_000_000..125_000_000).contains(&grown), "{grown}");
}

#[test]
fn more_samples_make_it_better_up_to_the_wander() {
    let mut estimator = estimator();
    let mut last = u64::MAX;
    for at in 0..10 {
        assert_eq!(estimator.add(&utc(at, START + at)), Ok(()));
        if let Ok(line) = estimator.timeline() {
            let bound = line.at(ticks(at + 1000)).expect("in range").bound.nanos();
            assert!(bound <= last, "{at}");
            last = bound;
        }
    }
    assert_eq!(estimator.count(), SAMPLES);
    assert!(last < 104_000_000, "{last}");
}

#[test]
fn a_sample_with_a_long_way_there_and_back_does_no_harm() {
    let mut estimator = with_prior();
    assert_eq!(estimator.add(&utc(0, START)), Ok(()));
    let slow = CrossTimestamp {
        bracket: Bracket {
            before: ticks(1),
            after: ticks(3),
            marker: 1,
        },
        ..utc(0, START + 2)
    };
    assert_eq!(estimator.add(&slow), Ok(()));
    assert!(read(&estimator, 3).bound.nanos() < 200_000);
}

#[test]
fn a_clock_that_is_set_costs_time_and_never_tells_a_wrong_one() {
    let mut estimator = with_prior();
    for at in 0..5 {
        assert_eq!(estimator.add(&utc(at, START + at)), Ok(()));
    }
    let set = disagreement(estimator.add(&utc(5, START + 65)));
    assert_eq!(set.conflict, Conflict::Period);
    let difference = set.difference.expect("there was a line");
    let off = difference.apart.as_nanos_floor() - 60_000_000_000;
    assert!(off.abs() < 1_000_000, "{off}");
    assert_eq!(difference.likely, Likely::Unexplained);
    assert_eq!(estimator.count(), 1);
    assert_eq!(estimator.timeline(), Err(NoLine::PeriodUnknown));
    // Two samples never contradict each other where nothing is known of the counter.
    assert_eq!(estimator.add(&utc(6, START + 66)), Ok(()));
    assert_eq!(estimator.timeline(), Err(NoLine::Unconfirmed));
    assert_eq!(estimator.add(&utc(7, START + 67)), Ok(()));
    assert_eq!(shown(&estimator, 7), "2026-11-20T12:06:38");
}

#[test]
fn one_outlier_costs_as_much_and_is_not_believed() {
    let mut estimator = with_prior();
    for at in 0..5 {
        assert_eq!(estimator.add(&utc(at, START + at)), Ok(()));
    }
    assert!(estimator.add(&utc(5, START + 6)).is_err());
    for at in 6..10 {
        let added = estimator.add(&utc(at, START + at));
        if let Ok(line) = estimator.timeline() {
            let reading = line.at(ticks(at)).expect("in range");
            let off = reading.utc.expect("UTC").time.seconds() - START - at;
            assert!((-1..=0).contains(&off) && at > 7, "{at} {added:?}");
        }
    }
    assert_eq!(shown(&estimator, 9), "2026-11-20T12:05:40");
}

#[test]
fn a_source_that_keeps_on_contradicting_itself_never_gives_time() {
    let mut estimator = with_prior();
    for at in 0..40 {
        // Now right, now half a second fast.
        let sample = CrossTimestamp {
            time: SourceTime::Utc(Timestamp::from_parts(
                START + at,
                (at.cast_unsigned() & 1) << 63,
            )),
            ..utc(at, 0)
        };
        let _ = estimator.add(&sample);
        if at > 0 {
            assert!(estimator.timeline().is_err(), "{at}");
        }
    }
}

#[test]
fn the_conflict_and_the_difference_are_named() {
    let cases = [
        (START + 5 + 37, Likely::TaiUtcConfusion),
        (START + 5 - 37, Likely::TaiUtcConfusion),
        (START + 5 + 74, Likely::TaiUtcConfusion),
        (START + 6, Likely::LeapSecond),
        (START + 9, Likely::Unexplained),
    ];
    for (code, likely) in cases {
        let mut estimator = with_prior();
        assert_eq!(estimator.add(&utc(0, START)), Ok(()));
        let found = disagreement(estimator.add(&utc(5, code)));
        assert_eq!(found.difference.expect("a line").likely, likely, "{code}");
    }
    let mut estimator = with_prior();
    assert_eq!(estimator.add(&utc(0, START)), Ok(()));
    let smeared = CrossTimestamp {
        time: SourceTime::Utc(Timestamp::from_parts(START + 5, 1 << 61)),
        ..utc(5, 0)
    };
    let found = disagreement(estimator.add(&smeared));
    assert_eq!(found.difference.expect("a line").likely, Likely::Smearing);
    assert_eq!(
        found.to_string(),
        "the source contradicts itself, or the counter's frequency: \
         124999997 ns apart, bounds 321001 ns: possibly smearing"
    );
    // At one counter value there is no period to contradict.
    let mut estimator = with_prior();
    assert_eq!(estimator.add(&utc(5, START + 5)), Ok(()));
    let found = disagreement(estimator.add(&utc(5, START + 4)));
    assert_eq!(found.conflict, Conflict::Time);
    let found = disagreement(with_counter_going_back());
    assert_eq!(
        (found.conflict, found.difference),
        (Conflict::Counter, None)
    );
}

fn with_counter_going_back() -> Result<(), Rejected> {
    let mut estimator = with_prior();
    assert_eq!(estimator.add(&utc(5, START + 5)), Ok(()));
    let result = estimator.add(&utc(4, START + 4));
    assert_eq!(estimator.count(), 1);
    assert_eq!(estimator.timeline(), Err(NoLine::PeriodUnknown));
    result
}

#[test]
fn another_marker_starts_anew_without_the_nominal_frequency() {
    let mut estimator = with_prior();
    assert_eq!(estimator.add(&utc(0, START)), Ok(()));
    let under = |marker, sample: CrossTimestamp| CrossTimestamp {
        bracket: Bracket {
            marker,
            ..sample.bracket
        },
        ..sample
    };
    // The counter went back, and an hour has passed: no contradiction under another marker.
    assert_eq!(estimator.add(&under(2, utc(-5, START + 3600))), Ok(()));
    assert_eq!(estimator.timeline(), Err(NoLine::PeriodUnknown));
    estimator.set_prior(prior(), 2);
    assert_eq!(line(&estimator).marker(), 2);
    assert_eq!(shown(&estimator, 5), "2026-11-20T13:05:41");
    estimator.forget();
    assert_eq!(estimator.timeline(), Err(NoLine::NoSample));
}

#[test]
fn a_nominal_frequency_that_is_contradicted_is_not_believed_any_more() {
    let mut estimator = estimator();
    estimator.set_prior(Prior::from_hertz(1_200_000, 10_000), 1);
    assert_eq!(estimator.add(&utc(0, START)), Ok(()));
    let found = disagreement(estimator.add(&utc(10, START + 10)));
    assert_eq!(found.conflict, Conflict::Period);
    for at in 11..13 {
        assert_eq!(estimator.add(&utc(at, START + at)), Ok(()));
    }
    assert_eq!(shown(&estimator, 20), "2026-11-20T12:05:51");
}

#[test]
fn bad_samples_are_refused_and_cost_nothing() {
    let good = utc(5, START + 5);
    let reversed = Bracket {
        before: ticks(6),
        ..good.bracket
    };
    let at = |seconds| SourceTime::Utc(Timestamp::from_parts(seconds, 0));
    let cases = [
        (
            CrossTimestamp {
                bracket: reversed,
                ..good
            },
            Rejected::Reversed,
        ),
        (
            CrossTimestamp {
                status: ClockStatus::Unreliable,
                ..good
            },
            Rejected::Status(ClockStatus::Unreliable),
        ),
        (
            CrossTimestamp {
                status: ClockStatus::Unknown,
                ..good
            },
            Rejected::Status(ClockStatus::Unknown),
        ),
        (
            CrossTimestamp {
                time: at(-1),
                ..good
            },
            Rejected::OutOfRange,
        ),
        (
            CrossTimestamp {
                time: at(1 << 40),
                ..good
            },
            Rejected::OutOfRange,
        ),
        (
            CrossTimestamp {
                error: Bound::MAX,
                ..good
            },
            Rejected::OutOfRange,
        ),
    ];
    let mut estimator = with_prior();
    assert_eq!(estimator.add(&utc(0, START)), Ok(()));
    let before = line(&estimator);
    for (sample, why) in cases {
        assert_eq!(estimator.add(&sample), Err(why));
        assert_eq!(estimator.timeline(), Ok(before));
    }
    let fine = CrossTimestamp {
        error: Bound::from_units(1 << 88),
        time: at((1 << 40) - 1),
        ..good
    };
    assert!(matches!(
        estimator.add(&fine),
        Err(Rejected::Disagreement(_))
    ));
}

#[test]
fn frequencies_and_wanders_have_their_ranges() {
    for hertz in [0, LOWEST_HERTZ - 1, HIGHEST_HERTZ + 1, u64::MAX] {
        assert_eq!(Prior::from_hertz(hertz, 0), None);
    }
    for hertz in [LOWEST_HERTZ, HIGHEST_HERTZ] {
        assert!(Prior::from_hertz(hertz, 100_000_000).is_some());
        assert_eq!(Prior::from_hertz(hertz, 100_000_001), None);
    }
    assert_eq!(Wander::from_ppb(50_000), Some(Wander::CRYSTAL));
    assert_eq!(Wander::from_ppb(550_000), Some(Wander::STEERED));
    assert_eq!(Wander::from_ppb(100_000_001), None);
    assert_eq!(Wander::STEERED.ppb(), 550_000);
}

#[test]
fn a_source_of_tai_gives_utc_when_somebody_tells_the_offset() {
    let mut estimator = with_prior();
    assert_eq!(estimator.add(&tai(0, START + 37)), Ok(()));
    let reading = read(&estimator, 0);
    assert_eq!((reading.utc, reading.tai_offset), (None, None));
    assert!(reading.tai.is_some());
    let told = CrossTimestamp {
        tai_offset: Some(37),
        ..tai(1, START + 38)
    };
    assert_eq!(estimator.add(&told), Ok(()));
    assert_eq!(shown(&estimator, 1), "2026-11-20T12:05:32");
    assert_eq!(read(&estimator, 1).tai_offset, Some(37));
    assert_eq!(read(&estimator, 1).operator, OperatorNote::NotGiven);
    // Told once, it holds.
    assert_eq!(estimator.add(&tai(2, START + 39)), Ok(()));
    assert_eq!(shown(&estimator, 2), "2026-11-20T12:05:33");
    let invalid = CrossTimestamp {
        tai_offset: Some(0),
        ..tai(3, START + 40)
    };
    assert_eq!(estimator.add(&invalid), Ok(()));
    assert!(read(&estimator, 3).notes.invalid_tai_offset);
    assert_eq!(shown(&estimator, 3), "2026-11-20T12:05:34");
}

#[test]
fn an_operators_offset_supplies_and_never_replaces() {
    let offset = OperatorOffset::new(37).expect("in range");
    for sample in [utc(0, START), tai(0, START + 37)] {
        let mut estimator = with_prior().with_operator_offset(offset);
        assert_eq!(estimator.add(&sample), Ok(()));
        let reading = read(&estimator, 0);
        assert_eq!(reading.tai_offset, Some(37));
        assert_eq!(reading.operator, OperatorNote::Used);
        let (utc, tai) = (reading.utc.expect("UTC"), reading.tai.expect("TAI"));
        assert_eq!(tai.seconds() - utc.time.seconds(), 37);
        let other = CrossTimestamp {
            tai_offset: Some(36),
            ..sample
        };
        let mut estimator = with_prior().with_operator_offset(offset);
        assert_eq!(estimator.add(&other), Ok(()));
        let reading = read(&estimator, 0);
        assert_eq!(reading.tai_offset, Some(36));
        assert_eq!(reading.operator, OperatorNote::Disagrees { operator: 37 });
    }
}

#[test]
fn a_source_that_changes_its_scale_starts_anew() {
    let mut estimator = with_prior();
    assert_eq!(estimator.add(&utc(0, START)), Ok(()));
    assert_eq!(estimator.add(&tai(1, START + 38)), Ok(()));
    assert_eq!(estimator.count(), 1);
    let reading = read(&estimator, 1);
    assert_eq!(
        (reading.utc, reading.tai_offset),
        (None, None),
        "UTC as it was is no TAI"
    );
    // And back: that TAI is known does not make UTC one.
    assert_eq!(estimator.add(&utc(2, START + 2)), Ok(()));
    assert_eq!(estimator.count(), 1);
    assert_eq!(read(&estimator, 2).tai, None);
    assert_eq!(shown(&estimator, 2), "2026-11-20T12:05:33");
}

/// Every second about an inserted and a left out one, sampled every other second, with and without
/// TAI − UTC.
#[test]
fn a_source_of_utc_crosses_the_leap_second_that_it_tells_of() {
    for (kind, leap, ntp) in [
        (Leap::Insert, LeapIndicator::PrePos, 1),
        (Leap::Delete, LeapIndicator::PreNeg, 2),
    ] {
        assert_eq!(LeapIndicator::from_ntp(ntp), Some(leap));
        for offset in [None, OperatorOffset::new(36)] {
            let mut estimator = with_prior();
            if let Some(offset) = offset {
                estimator = estimator.with_operator_offset(offset);
            }
            // The counter says how many seconds it is since 20 s before the month's end by the calendar.
            let code = |at: i64| match (kind, at) {
                (_, ..19) => (MONTH - 20 + at, false),
                (Leap::Insert, 20) => (MONTH - 1, true),
                (Leap::Insert, 19) => (MONTH - 1, false),
                (Leap::Insert, _) => (MONTH - 21 + at, false),
                (Leap::Delete, _) => (MONTH - 19 + at, false),
            };
            for at in 0..60 {
                if at % 2 == 0 {
                    let (second, _) = code(at);
                    // The server takes its announcement back half a minute late.
                    let leap = if at < 50 { leap } else { LeapIndicator::None };
                    let sample = CrossTimestamp {
                        leap: Some(leap),
                        ..utc(at, second)
                    };
                    match estimator.add(&sample) {
                        Ok(()) => {}
                        Err(Rejected::LeapSecond) => {
                            assert!((MONTH - 2..=MONTH + 1).contains(&second));
                        }
                        Err(why) => panic!("{kind:?} {at}: {why}"),
                    }
                }
                let half = Ticks(ticks(at).0 + 500_000);
                let reading = line(&estimator).at(half).expect("in range");
                let utc = reading.utc.expect("UTC");
                assert_eq!(
                    (utc.time.seconds(), utc.leap_second),
                    code(at),
                    "{kind:?} {at}"
                );
                assert!(reading.bound.nanos() < 2_000_000);
                let announced = match kind {
                    _ if at >= 20 => Announcement::None,
                    Leap::Insert => Announcement::Insert,
                    Leap::Delete if at >= 19 => Announcement::None,
                    Leap::Delete => Announcement::Delete,
                };
                assert_eq!(utc.announcement, announced, "{kind:?} {at}");
                let known = reading.leap.expect("told of");
                assert_eq!((known.month.seconds(), known.kind), (MONTH, kind), "{at}");
                let is_past = utc.time.seconds() >= MONTH;
                let expected = offset.map(|_| 36 + i16::from(is_past) * kind.change());
                assert_eq!(reading.tai_offset, expected, "{kind:?} {at}");
                if offset.is_some() {
                    assert_eq!(reading.operator, OperatorNote::Used);
                    let tai = reading.tai.expect("TAI").seconds();
                    assert_eq!(tai, MONTH - 20 + at + 36, "TAI goes on evenly");
                }
            }
        }
    }
}

/// virtio-rtc's UTC steps back at the start of the inserted second, so that the offset of its two clocks
/// changes there.
#[test]
fn a_source_of_tai_may_change_its_offset_at_the_start_of_the_leap_second() {
    let mut estimator = with_prior();
    // The inserted second begins at 20.
    for at in 0..40 {
        let sample = CrossTimestamp {
            tai_offset: Some(if at < 20 { 36 } else { 37 }),
            leap: (at == 0).then_some(LeapIndicator::PrePos),
            ..tai(at, MONTH - 20 + 36 + at)
        };
        assert_eq!(estimator.add(&sample), Ok(()));
        let half = Ticks(ticks(at).0 + 500_000);
        let reading = line(&estimator).at(half).expect("in range");
        let utc = reading.utc.expect("UTC");
        let code = MONTH - 20 + at - i64::from(at >= 20);
        assert_eq!((utc.time.seconds(), utc.leap_second), (code, at == 20));
        assert_eq!(reading.tai_offset, Some(if at < 21 { 36 } else { 37 }));
    }
}

#[test]
fn an_announcement_that_is_taken_back_leaves_no_leap_second() {
    let mut estimator = with_prior();
    for (at, leap) in [(0, LeapIndicator::PrePos), (1, LeapIndicator::None)] {
        let sample = CrossTimestamp {
            leap: Some(leap),
            ..utc(at, MONTH - 100 + at)
        };
        assert_eq!(estimator.add(&sample), Ok(()));
    }
    assert_eq!(read(&estimator, 1).leap, None);
    assert_eq!(shown(&estimator, 101), "2017-01-01T00:00:01");
    // A source that says nothing takes nothing back.
    let mut estimator = with_prior();
    let told = CrossTimestamp {
        leap: Some(LeapIndicator::PrePos),
        ..utc(0, MONTH - 100)
    };
    assert_eq!(estimator.add(&told), Ok(()));
    assert_eq!(estimator.add(&utc(1, MONTH - 99)), Ok(()));
    assert_eq!(shown(&estimator, 100), "2016-12-31T23:59:60");
}

#[test]
fn a_leap_second_that_nobody_told_of_is_a_contradiction_and_named() {
    let mut estimator = with_prior();
    assert_eq!(estimator.add(&utc(0, MONTH - 5)), Ok(()));
    let found = disagreement(estimator.add(&utc(10, MONTH + 4)));
    assert_eq!(found.difference.expect("a line").likely, Likely::LeapSecond);
    // A source of TAI has none to contradict.
    let mut estimator = with_prior();
    let offset = |seconds, sample| CrossTimestamp {
        tai_offset: Some(seconds),
        ..sample
    };
    assert_eq!(estimator.add(&offset(36, tai(0, MONTH + 31))), Ok(()));
    assert_eq!(estimator.add(&offset(37, tai(10, MONTH + 41))), Ok(()));
    assert_eq!(shown(&estimator, 10), "2017-01-01T00:00:04");
}

#[test]
fn the_operators_offset_crosses_a_leap_second_while_the_machine_is_away() {
    let mut estimator =
        with_prior().with_operator_offset(OperatorOffset::new(36).expect("in range"));
    let told = CrossTimestamp {
        leap: Some(LeapIndicator::PrePos),
        ..utc(0, MONTH - 100)
    };
    assert_eq!(estimator.add(&told), Ok(()));
    // A snapshot, restored in March.
    let later = CrossTimestamp {
        bracket: Bracket {
            marker: 2,
            ..told.bracket
        },
        leap: Some(LeapIndicator::None),
        ..utc(0, MONTH + 60 * 86_400)
    };
    assert_eq!(estimator.add(&later), Ok(()));
    estimator.set_prior(prior(), 2);
    assert_eq!(read(&estimator, 0).tai_offset, Some(37));
    assert_eq!(read(&estimator, 0).leap, None);
}

#[test]
fn one_glitch_does_not_move_the_operators_offset() {
    let mut estimator =
        with_prior().with_operator_offset(OperatorOffset::new(36).expect("in range"));
    let told = |at, code| CrossTimestamp {
        leap: Some(LeapIndicator::PrePos),
        ..utc(at, code)
    };
    assert_eq!(estimator.add(&told(0, MONTH - 1000)), Ok(()));
    let _ = disagreement(estimator.add(&told(1, MONTH + 1000)));
    let _ = disagreement(estimator.add(&told(2, MONTH - 998)));
    estimator.set_prior(prior(), 1);
    assert_eq!(estimator.add(&told(3, MONTH - 997)), Ok(()));
    assert_eq!(read(&estimator, 3).tai_offset, Some(36));
}

#[test]
fn smeared_time_counts_as_utc_away_from_month_ends_and_a_second_wider_near_them() {
    let day = 86_400;
    for (code, is_near) in [
        (START, false),
        (MONTH - day - 10, false),
        (MONTH - day + 10, true),
        (MONTH, true),
        (MONTH + day - 10, true),
        (MONTH + day + 10, false),
        // 2026-12-01, and no month but a leap second may be at its end.
        (1_796_083_200 + 3600, true),
    ] {
        let mut estimator = with_prior();
        let sample = CrossTimestamp {
            time: SourceTime::PerhapsSmeared(Timestamp::from_parts(code, 0)),
            ..utc(0, 0)
        };
        assert_eq!(estimator.add(&sample), Ok(()));
        let bound = read(&estimator, 0).bound.nanos();
        let expected = if is_near { 1_000_000_000 } else { 0 };
        assert_eq!(
            (bound - 10_000).next_multiple_of(1_000_000) - 1_000_000,
            expected,
            "{code}"
        );
    }
}

#[test]
fn a_line_ends_where_its_limits_are() {
    let limits = Limits {
        max_age: 3600,
        max_bound: Bound::from_nanos(1_000_000),
    };
    let mut estimator = Estimator::new(Source::Ntp, Wander::CRYSTAL, limits);
    estimator.set_prior(prior(), 1);
    assert_eq!(estimator.add(&utc(0, START)), Ok(()));
    // (1 ms − 12 µs) / 60 ppm
    let line = line(&estimator);
    assert!(!line.is_expired(ticks(16)));
    assert!(line.is_expired(ticks(17)));
    assert!(line.is_expired(ticks(-17)));
    let wide = CrossTimestamp {
        error: Bound::from_nanos(2_000_000),
        ..utc(0, START)
    };
    estimator.forget();
    assert_eq!(estimator.add(&wide), Ok(()));
    assert_eq!(estimator.timeline(), Err(NoLine::TooWide));
    let limits = Limits {
        max_age: 5,
        ..Limits::DEFAULT
    };
    let mut estimator = Estimator::new(Source::Ntp, Wander::CRYSTAL, limits);
    estimator.set_prior(prior(), 1);
    assert_eq!(estimator.add(&utc(0, START)), Ok(()));
    let line = estimator.timeline().expect("a line");
    assert!(!line.is_expired(ticks(4)) && line.is_expired(ticks(5)));
}

#[test]
fn sources_are_compared_and_their_difference_named() {
    let at = |code: i64, fraction: u64, error: u64, offset: Option<i16>| {
        let mut estimator = with_prior();
        let sample = CrossTimestamp {
            time: SourceTime::Utc(Timestamp::from_parts(code, fraction)),
            error: Bound::from_nanos(error),
            tai_offset: offset,
            ..utc(0, 0)
        };
        assert_eq!(estimator.add(&sample), Ok(()));
        read(&estimator, 0)
    };
    let first = at(START, 0, 1000, Some(37));
    let likely = |code, fraction, error| match compare(&first, &at(code, fraction, error, None)) {
        Comparison::Agree { .. } => None,
        Comparison::Disagree(difference) => Some(difference.likely),
        Comparison::Incomparable => panic!("both know UTC"),
    };
    assert_eq!(likely(START, 0, 1000), None);
    assert_eq!(
        likely(START + 1, 0, 999_995_000 + 4_000),
        None,
        "within the bounds"
    );
    assert_eq!(likely(START + 37, 0, 1000), Some(Likely::TaiUtcConfusion));
    assert_eq!(likely(START - 37, 0, 1000), Some(Likely::TaiUtcConfusion));
    assert_eq!(likely(START + 36, 0, 1000), Some(Likely::Unexplained));
    assert_eq!(likely(START + 1, 0, 1000), Some(Likely::LeapSecond));
    assert_eq!(likely(START, 1 << 63, 1000), Some(Likely::Smearing));
    assert_eq!(likely(START - 1, 1 << 63, 1000), Some(Likely::Smearing));
    assert_eq!(likely(START + 2, 0, 1000), Some(Likely::Unexplained));
    // TAI only and UTC only.
    let mut estimator = with_prior();
    assert_eq!(estimator.add(&tai(0, START + 37)), Ok(()));
    let tai_only = read(&estimator, 0);
    let utc_only = at(START, 0, 1000, None);
    assert_eq!(compare(&tai_only, &utc_only), Comparison::Incomparable);
    assert!(matches!(
        compare(&first, &tai_only),
        Comparison::Agree { .. }
    ));
    let shown = match compare(&first, &at(START + 37, 0, 1000, None)) {
        Comparison::Disagree(difference) => difference.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        shown,
        "37000000000 ns apart, bounds 5001 ns: TAI/UTC confusion"
    );
}

#[test]
fn everything_has_its_words() {
    let words = [
        Rejected::Reversed.to_string(),
        Rejected::Status(ClockStatus::Unreliable).to_string(),
        Rejected::OutOfRange.to_string(),
        Rejected::LeapSecond.to_string(),
        NoLine::NoSample.to_string(),
        NoLine::PeriodUnknown.to_string(),
        NoLine::Unconfirmed.to_string(),
        NoLine::TooWide.to_string(),
        Origin::Page.to_string(),
    ];
    assert_eq!(
        words,
        [
            "counter went back while the source was read",
            "the source says unreliable",
            "the source's time is out of range",
            "too near a leap second",
            "not read yet",
            "the counter's period is not known yet",
            "not confirmed since it contradicted itself",
            "the error is greater than allowed",
            "vmclock",
        ]
    );
    let names = Source::ALL.map(|source| source.to_string());
    assert_eq!(
        names,
        ["kvm", "kvm-ptp", "virtio-rtc", "kvmclock", "ntp", "rtc"]
    );
    assert!(Source::ALL.is_sorted());
    assert_eq!(LeapIndicator::from_ntp(0), Some(LeapIndicator::None));
    assert_eq!(LeapIndicator::from_ntp(3), None);
}
