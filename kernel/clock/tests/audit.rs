//! The audit of a host's promises: honest updates are never found fault with, and each kind of fault
//! is found as that kind and no other.

use core::cell::Cell;

use gnomon_clock::audit::KEPT;
use gnomon_clock::page::flag;
use gnomon_clock::{
    Audit, Bound, Clock, ClockStatus, Counter, CounterId, Fields, LeapIndicator, Span, Ticks,
    TimeType, Timeline, Violation, VmclockPage, Writer,
};
use proptest::prelude::*;

/// 2³⁰ Hz, and the length of a tick in the page's unit of 2⁻⁹³ s.
const SECOND: u64 = 1 << 30;
const TICK: u64 = 1 << 63;
/// 15 ppm.
const RATE: u64 = TICK / 1_000_000 * 15;
/// 2026-11-20T12:05:31Z in TAI.
const TAI: i64 = 1_795_176_368;

/// A page of a monotonic TAI clock that is within 40 µs, `units` of 2⁻⁶⁴ s after the start at
/// counter value `counter`.
fn page(counter: u64, units: i128) -> Fields {
    let time = (i128::from(TAI) << 64) + units;
    Fields {
        counter_id: CounterId::X86Tsc as u8,
        time_type: TimeType::Tai as u8,
        clock_status: ClockStatus::Synchronized as u8,
        disruption_marker: 7,
        flags: flag::TAI_OFFSET_VALID
            | flag::TIME_MAXERROR_VALID
            | flag::PERIOD_MAXERROR_VALID
            | flag::TIME_MONOTONIC,
        tai_offset_sec: -37,
        counter_value: counter,
        counter_period_frac_sec: TICK,
        counter_period_shift: 29,
        counter_period_maxerror_rate_frac_sec: RATE,
        time_sec: u64::try_from(time >> 64).expect("after 1970"),
        time_frac_sec: u64::try_from(time & i128::from(u64::MAX)).expect("masked"),
        time_maxerror_nanosec: 40_000,
        ..Fields::stock()
    }
}

/// The same for a counter that started with the time, `nanos` off.
fn off(counter: u64, nanos: i64) -> Fields {
    page(
        counter,
        (i128::from(counter) << 34) + Span::from_nanos(nanos).units(),
    )
}

fn line(fields: &Fields) -> Timeline {
    Timeline::from_page(fields, CounterId::X86Tsc).expect("a good page")
}

/// An audit, and what it looks at.
struct Host {
    audit: Audit,
    seq: u32,
    now: u64,
    line: Timeline,
}

impl Host {
    /// On a good page, read at second 1 and 2.
    fn new(fields: &Fields) -> Self {
        let line = line(fields);
        let mut host = Self {
            audit: Audit::new(),
            seq: 100,
            now: SECOND,
            line,
        };
        host.read(SECOND);
        host.read(2 * SECOND);
        assert_eq!(host.found(), []);
        host
    }

    fn read(&mut self, now: u64) {
        self.now = now;
        self.audit.observe(self.seq, &self.line, Ticks(now));
    }

    fn publish(&mut self, fields: &Fields) {
        self.seq += 2;
        self.line = line(fields);
        self.read(self.now + SECOND);
    }

    /// What has been found, and that the evidence is of that kind.
    fn found(&self) -> Vec<(Violation, u64)> {
        let counts = Violation::ALL.map(|kind| (kind, self.audit.count(kind)));
        for (kind, count) in counts {
            let evidence = self.audit.evidence(kind);
            assert_eq!(
                evidence.map(|evidence| evidence.violation),
                (count > 0).then_some(kind)
            );
        }
        assert_eq!(
            self.audit.violations(),
            counts.iter().map(|(_, count)| count).sum()
        );
        counts.into_iter().filter(|(_, count)| *count > 0).collect()
    }
}

#[test]
fn a_time_outside_the_interval_given_before_is_found_to_the_last_unit() {
    // Read last at second 2 of a page of second 0: 40 µs, 30 µs of drift, a tick.
    let told = line(&off(0, 0))
        .at(Ticks(2 * SECOND))
        .expect("in range")
        .bound;
    let room = told.units().cast_signed();
    for (moved, found) in [
        (room, false),
        (room + 1, true),
        (-room, false),
        (-room - 1, true),
    ] {
        // The reference of the new page is where the old one was last read, so nothing rounds, and
        // it comes nearer before, so that only that reading is in question.
        let quiet = |fields: Fields| Fields {
            flags: fields.flags & !flag::TIME_MONOTONIC,
            ..fields
        };
        let mut host = Host::new(&quiet(off(0, 0)));
        let slope = if moved < 0 {
            TICK - 2 * RATE
        } else {
            TICK + 2 * RATE
        };
        let fields = page(2 * SECOND, (i128::from(2 * SECOND) << 34) + moved);
        host.publish(&Fields {
            counter_period_frac_sec: slope,
            ..quiet(fields)
        });
        assert_eq!(!host.found().is_empty(), found, "{moved} {:?}", host.audit);
        if found {
            assert_eq!(host.found(), [(Violation::Interval, 1)]);
            let evidence = host.audit.evidence(Violation::Interval).expect("found");
            assert_eq!((evidence.earlier_seq, evidence.later_seq), (100, 102));
            assert_eq!(evidence.earlier.ticks, Ticks(2 * SECOND));
            assert_eq!(evidence.later.ticks, Ticks(2 * SECOND));
            let (earlier, later) = (evidence.earlier.tai, evidence.later.tai);
            let apart = later
                .zip(earlier)
                .and_then(|(later, earlier)| later.since(earlier));
            assert_eq!(apart, Some(Span::from_units(moved)));
            assert_eq!(evidence.earlier.bound, told);
        }
    }
}

#[test]
fn a_line_that_turned_is_found_at_the_first_reading() {
    let mut host = Host::new(&off(0, 0));
    // Through the last reading, and at the first one a second before it 100 µs ahead.
    let slope = TICK - TICK / 10_000;
    let fields = off(2 * SECOND, 0);
    host.publish(&Fields {
        counter_period_frac_sec: slope,
        ..fields
    });
    assert_eq!(host.found(), [(Violation::Interval, 1)]);
    let evidence = host.audit.evidence(Violation::Interval).expect("found");
    assert_eq!(evidence.earlier.ticks, Ticks(SECOND));
    // At counter values that nobody has read nothing was promised: 60 µs off at the reference, a
    // second before the first reading, where it is 30.
    let mut unread = Host::new(&off(0, 0));
    let slope = TICK - TICK / 100_000 * 3;
    unread.publish(&Fields {
        counter_period_frac_sec: slope,
        ..off(2 * SECOND, 0)
    });
    assert_eq!(unread.found(), []);
}

#[test]
fn a_fault_at_the_reference_between_two_readings_is_found() {
    // Read at seconds 1 and 2, and the reference lies in the middle: 60 µs is inside 7.5 ppm and
    // 40 µs of there, but not of 40 µs alone.
    let middle = SECOND + SECOND / 2;
    let wide = |fields| Fields {
        counter_period_maxerror_rate_frac_sec: TICK / 1_000_000 * 100,
        ..fields
    };
    let mut host = Host::new(&wide(off(middle, 0)));
    host.publish(&wide(off(2 * SECOND, 60_000)));
    assert_eq!(host.found(), [(Violation::Interval, 1)]);
    let evidence = host.audit.evidence(Violation::Interval).expect("found");
    assert_eq!(evidence.earlier.ticks, Ticks(middle));
}

#[test]
fn an_update_is_held_against_every_page_that_is_kept() {
    let wide = |fields| Fields {
        time_maxerror_nanosec: 1_000_000,
        ..fields
    };
    for between in 0..=KEPT {
        let mut host = Host::new(&off(0, 0));
        for _ in 0..between {
            host.publish(&wide(off(host.now, 0)));
        }
        // Inside a millisecond, and outside of the first page's 70 µs.
        host.publish(&wide(off(host.now, 500_000)));
        let found = u64::from(between < KEPT);
        assert_eq!(host.audit.count(Violation::Interval), found, "{between}");
        assert_eq!(
            host.audit.violations(),
            found,
            "one update is one violation"
        );
        assert_eq!(host.audit.updates(), 2 + between as u64);
    }
}

#[test]
fn a_step_back_inside_the_interval_is_found_where_it_was_ruled_out() {
    let back = -(Span::from_seconds(1).units() + Span::from_nanos(1000).units());
    let monotonic = |fields: Fields, on| Fields {
        flags: (fields.flags & !flag::TIME_MONOTONIC) | (u64::from(on) * flag::TIME_MONOTONIC),
        time_maxerror_nanosec: 2_000_000_000,
        ..fields
    };
    for (before, after) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut host = Host::new(&monotonic(off(0, 0), before));
        // A second passes until the first reading, so that this is 1 µs earlier than the last one.
        let units = (i128::from(2 * SECOND) << 34) + back;
        host.publish(&monotonic(page(2 * SECOND, units), after));
        let expected = if before && after {
            vec![(Violation::Monotonic, 1)]
        } else {
            vec![]
        };
        assert_eq!(host.found(), expected);
    }
    // Standing still is not stepping back.
    let mut host = Host::new(&monotonic(off(0, 0), true));
    host.publish(&monotonic(
        page(3 * SECOND, i128::from(2 * SECOND) << 34),
        true,
    ));
    assert_eq!(host.found(), []);
    host.publish(&monotonic(
        page(4 * SECOND, (i128::from(2 * SECOND) << 34) - 1),
        true,
    ));
    assert_eq!(host.found(), [(Violation::Monotonic, 1)]);
    let evidence = host.audit.evidence(Violation::Monotonic).expect("found");
    assert_eq!(evidence.earlier.ticks, Ticks(3 * SECOND));
    assert_eq!(evidence.later.ticks, Ticks(4 * SECOND));
}

#[test]
fn an_offset_that_changes_without_a_leap_second_is_found() {
    let mut host = Host::new(&off(0, 0));
    host.publish(&Fields {
        tai_offset_sec: -36,
        ..off(2 * SECOND, 0)
    });
    assert_eq!(host.found(), [(Violation::TaiOffset, 1)]);
    let evidence = host.audit.evidence(Violation::TaiOffset).expect("found");
    assert_eq!(
        (evidence.earlier.tai_offset, evidence.later.tai_offset),
        (Some(37), Some(36))
    );
    assert_eq!(
        evidence.to_string(),
        "TAI-UTC changed without a leap second: \
         seq 100 at counter 2147483648: 2026-11-20T12:06:10.000000000 TAI ± 70001 ns, TAI-UTC 37; \
         seq 102 at counter 2147483648: 2026-11-20T12:06:10.000000000 TAI ± 40001 ns, TAI-UTC 36"
    );
    // An offset that comes, goes, or changes its sign changes nothing.
    for (flags, tai_offset_sec) in [(0, 0), (1, -36), (1, 36), (0, -37), (1, 36)] {
        let fields = off(host.now, 0);
        host.publish(&Fields {
            flags: (fields.flags & !1) | flags,
            tai_offset_sec,
            ..fields
        });
        assert_eq!(host.audit.violations(), 1);
    }
}

#[test]
fn a_leap_second_taken_back_after_it_came_is_found() {
    // 2016-12-31T23:59:58Z: four seconds later it is 00:00:01 of the next year.
    let near = |counter: u64, indicator: LeapIndicator, offset: i16| {
        let fields = page(counter, i128::from(counter) << 34);
        let time_sec = 1_483_228_798 + 36 + counter / SECOND;
        Fields {
            time_sec,
            leap_indicator: indicator as u8,
            tai_offset_sec: -offset,
            ..fields
        }
    };
    for (indicator, offset, found) in [
        (LeapIndicator::PostPos, 37, 0),
        (LeapIndicator::None, 37, 0),
        (LeapIndicator::None, 36, 1),
    ] {
        let mut host = Host::new(&near(0, LeapIndicator::PrePos, 36));
        host.read(4 * SECOND);
        host.publish(&near(4 * SECOND, indicator, offset));
        assert_eq!(
            host.audit.count(Violation::TaiOffset),
            found,
            "{indicator} {offset}"
        );
        assert_eq!(host.audit.violations(), found);
    }
    // Nobody was told anything after the edge yet: it may be dropped as soon as it is over, and
    // taken back just before.
    for offset in [37, 36] {
        let mut host = Host::new(&near(0, LeapIndicator::PrePos, 36));
        host.now = SECOND;
        host.publish(&near(4 * SECOND, LeapIndicator::None, offset));
        assert_eq!(host.found(), [], "{offset}");
    }
}

#[test]
fn a_page_of_utc_alone_may_cross_a_leap_second_and_not_step_otherwise() {
    let near = |second: u64, indicator: LeapIndicator| Fields {
        time_type: TimeType::Utc as u8,
        time_sec: second,
        flags: flag::TIME_MAXERROR_VALID | flag::PERIOD_MAXERROR_VALID | flag::TIME_MONOTONIC,
        leap_indicator: indicator as u8,
        ..page(0, 0)
    };
    for (before, after, second, violations) in [
        (
            LeapIndicator::PrePos,
            LeapIndicator::PostPos,
            1_483_228_801,
            0,
        ),
        (LeapIndicator::PrePos, LeapIndicator::None, 1_483_228_801, 0),
        (
            LeapIndicator::None,
            LeapIndicator::PostPos,
            1_483_228_801,
            0,
        ),
        (
            LeapIndicator::PreNeg,
            LeapIndicator::PostNeg,
            1_483_228_803,
            0,
        ),
        (LeapIndicator::None, LeapIndicator::None, 1_483_228_802, 0),
        (LeapIndicator::None, LeapIndicator::None, 1_483_228_801, 1),
        (
            LeapIndicator::PrePos,
            LeapIndicator::PostPos,
            1_483_228_802,
            1,
        ),
    ] {
        let mut host = Host::new(&near(1_483_228_797, before));
        host.now = 4 * SECOND;
        host.publish(&Fields {
            counter_value: 5 * SECOND,
            ..near(second, after)
        });
        assert_eq!(
            host.audit.count(Violation::Interval),
            violations,
            "{before} {after} {second}"
        );
        assert_eq!(host.audit.violations(), violations);
    }
}

#[test]
fn a_sequence_count_and_a_counter_that_go_back_are_found() {
    let mut host = Host::new(&off(0, 0));
    host.seq -= 4;
    host.publish(&off(2 * SECOND, 0));
    assert_eq!(host.found(), [(Violation::Sequence, 1)]);
    // Through zero it goes on.
    let mut host = Host::new(&off(0, 0));
    host.seq = u32::MAX - 1;
    host.read(3 * SECOND);
    host.seq = 0;
    host.read(4 * SECOND);
    assert_eq!(
        host.found(),
        [(Violation::Sequence, 1)],
        "from 100 to the end is backwards"
    );

    for publish in [false, true] {
        let mut host = Host::new(&off(0, 0));
        host.seq += u32::from(publish) * 2;
        host.read(2 * SECOND - 1);
        assert_eq!(host.found(), [(Violation::Counter, 1)]);
        // What was known of the other counter is forgotten: this would not agree with it.
        host.publish(&off(0, 5_000_000));
        assert_eq!(
            host.audit.count(Violation::Interval),
            1,
            "only against the page since"
        );
        assert_eq!(host.audit.updates(), 3);
    }
}

#[test]
fn a_disruption_frees_the_host_and_is_counted() {
    let mut host = Host::new(&off(0, 0));
    let other = Fields {
        disruption_marker: 8,
        tai_offset_sec: -30,
        ..off(0, -7_000_000)
    };
    host.publish(&other);
    assert_eq!((host.found(), host.audit.disruptions()), (vec![], 1));
    // Also from its own earlier self.
    host.publish(&off(0, 0));
    assert_eq!((host.found(), host.audit.disruptions()), (vec![], 2));
    host.publish(&off(0, 1_000_000));
    assert_eq!(host.found(), [(Violation::Interval, 1)]);
}

#[test]
fn a_page_without_errors_promises_no_interval() {
    for valid in [flag::TIME_MAXERROR_VALID, flag::PERIOD_MAXERROR_VALID, 0] {
        let without = Fields {
            flags: flag::TAI_OFFSET_VALID | valid,
            ..off(0, 0)
        };
        let mut host = Host::new(&without);
        host.publish(&off(0, 3_600_000_000_000));
        assert_eq!(host.found(), []);
    }
    // The update need not promise one to be held to that of the page before.
    let mut host = Host::new(&off(0, 0));
    host.publish(&Fields {
        flags: 0,
        ..off(0, 3_600_000_000_000)
    });
    assert_eq!(host.found(), [(Violation::Interval, 1)]);
}

#[test]
fn kinds_have_names() {
    assert_eq!(
        Violation::ALL.map(|kind| kind.to_string()),
        [
            "time left the interval given before",
            "time stepped back",
            "TAI-UTC changed without a leap second",
            "sequence count went back",
            "counter went back",
        ]
    );
    for (index, kind) in Violation::ALL.into_iter().enumerate() {
        assert_eq!(kind as usize, index);
    }
    assert_eq!(Audit::default().violations(), 0);
}

struct Fake(Cell<u64>);

impl Counter for &Fake {
    const ID: CounterId = CounterId::X86Tsc;

    fn read(&self) -> Ticks {
        Ticks(self.0.get())
    }
}

#[test]
fn a_clock_audits_what_it_reads_and_pages_without_time_hide_nothing() {
    let page = VmclockPage::new(&off(0, 0));
    let counter = Fake(Cell::new(SECOND));
    let mut clock = Clock::new(Some(&page), &counter);
    let mut writer = Writer::new(&page, 0);
    assert!(clock.reading().is_ok());
    let unknown = Fields {
        clock_status: ClockStatus::Unknown as u8,
        ..off(SECOND, 9_000_000)
    };
    writer.publish(&unknown).expect("whole fields");
    assert!(clock.reading().is_err());
    assert_eq!(
        (clock.audit().updates(), clock.audit().violations()),
        (1, 0)
    );
    writer
        .publish(&off(SECOND, 9_000_000))
        .expect("whole fields");
    counter.0.set(2 * SECOND);
    let stamp = clock.stamp();
    assert!(
        clock.exchange(stamp).is_ok(),
        "the audit finds, and does not judge"
    );
    assert_eq!(
        (clock.audit().updates(), clock.audit().violations()),
        (2, 1)
    );
    let evidence = clock.audit().evidence(Violation::Interval).expect("found");
    assert_eq!((evidence.earlier_seq, evidence.later_seq), (0, 4));
    // A stale stamp's counter is not mistaken for one that went back.
    assert!(clock.reading().is_ok());
    assert_eq!(clock.audit().violations(), 1);
}

/// What an honest host does from one update to the next.
#[derive(Clone, Debug)]
struct Step {
    /// Ticks to the update.
    run: u64,
    /// Where the new claim lies between its limits, in thousandths: of time and of period.
    time: i128,
    period: i128,
    /// When the page is read until the next update, in thousandths of the way.
    reads: [u64; 2],
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (
        1..SECOND,
        -1000..=1000_i128,
        -1000..=1000_i128,
        [0..=1000_u64, 0..=1000_u64],
    )
        .prop_map(|(run, time, period, mut reads)| {
            reads.sort_unstable();
            Step {
                run,
                time,
                period,
                reads,
            }
        });
    proptest::collection::vec(step, 2..40)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 3 } else { 2000 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Measuring: each update has a new error of time and period, a third of the bounds at most,
    /// and a run adds less than a tenth to them; over the pages kept that stays inside.
    #[test]
    fn a_host_that_measures_honestly_is_never_found_fault_with(
        start in any::<u64>(), steps in steps(),
    ) {
        let mut audit = Audit::new();
        let maxerror = Bound::from_nanos(200_000).units().cast_signed();
        let mut now = 0;
        for (index, step) in steps.iter().enumerate() {
            let units = (i128::from(now) << 34) + maxerror / 3000 * step.time;
            let slope = i128::from(TICK) + i128::from(RATE) / 3000 * step.period;
            let fields = page(start.wrapping_add(now), units);
            let line = line(&Fields {
                counter_period_frac_sec: u64::try_from(slope).expect("near 1"),
                time_maxerror_nanosec: 200_000,
                flags: fields.flags & !flag::TIME_MONOTONIC,
                ..fields
            });
            let seq = u32::try_from(index * 2).expect("few");
            for read in step.reads {
                let ticks = start.wrapping_add(now + step.run / 1000 * read);
                audit.observe(seq, &line, Ticks(ticks));
            }
            now += step.run;
        }
        prop_assert_eq!(audit.violations(), 0, "{:?}", audit);
    }

    /// Slewing: every line starts where the one before ends, faster or slower within the stated
    /// error of the period, steered back when the error grows: monotonic, and said to be.
    #[test]
    fn a_host_that_slews_within_its_bounds_is_never_found_fault_with(
        start in any::<u64>(), steps in steps(),
    ) {
        let mut audit = Audit::new();
        let mut now = 0;
        let mut error = 0_i128;
        for (index, step) in steps.iter().enumerate() {
            let steer = if error.unsigned_abs() > Bound::from_nanos(50_000).units() {
                -error.signum() * step.period.abs()
            } else {
                step.period
            };
            let rate = i128::from(RATE) / 3000 * steer;
            let fields = page(start.wrapping_add(now), (i128::from(now) << 34) + error);
            let line = line(&Fields {
                counter_period_frac_sec: u64::try_from(i128::from(TICK) + rate).expect("near 1"),
                time_maxerror_nanosec: 200_000,
                ..fields
            });
            let seq = u32::try_from(index * 2).expect("few");
            for read in step.reads {
                let ticks = start.wrapping_add(now + step.run / 1000 * read);
                audit.observe(seq, &line, Ticks(ticks));
            }
            error += (i128::from(step.run) * rate + (1 << 29) - 1) >> 29;
            now += step.run;
        }
        prop_assert_eq!(audit.violations(), 0, "{:?}", audit);
    }
}
