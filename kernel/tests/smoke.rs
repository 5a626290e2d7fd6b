//! The smoke test: each rule of the page by a page that breaks it, the machine's by facts, and the stream as a whole.

use core::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use gnomon_clock::page::flag;
use gnomon_clock::{
    ClockStatus, Counter, CounterId, Fields, LeapIndicator, Ticks, TimeType, VmclockPage,
};
use gnomon_kernel::config::Config;
use gnomon_kernel::console::{Console, SerialPort};
use gnomon_kernel::discover::Window;
use gnomon_kernel::discover::notification::Untold;
use gnomon_kernel::memory::{MemoryKind, MemoryRange};
use gnomon_kernel::services::counters::Rate;
use gnomon_kernel::smoke::machine::{
    self, Bench, Mapping, Measured, Nic, Notice, Pair, Readings, Tables,
};
use gnomon_kernel::smoke::page::{Rates, Rule, Stop, Watch};
use gnomon_kernel::smoke::tap::{Outcome, Tap};
use gnomon_kernel::smoke::{self, Subject};
use gnomon_kernel::source::rtc::Look;

#[path = "smoke/rtc.rs"]
mod rtc;
#[path = "doubles/wire.rs"]
mod wire;

use wire::Wire;

const GIGAHERTZ: u64 = 1_000_000_000;
const RATES: Rates = Rates {
    measured: Some(Rate {
        hertz: GIGAHERTZ,
        unit: 1,
        source: "a timer",
    }),
    stated: None,
};

/// A page with everything on it, for a counter of 1 GHz that was at 0 in November 2026.
fn good() -> Fields {
    Fields {
        counter_id: CounterId::X86Tsc as u8,
        time_type: TimeType::Tai as u8,
        seq_count: 2,
        disruption_marker: 5,
        flags: 0x1f9,
        clock_status: ClockStatus::Synchronized as u8,
        tai_offset_sec: -37,
        counter_period_shift: 29,
        counter_period_frac_sec: 0x8970_5f41_36b4_a597,
        counter_period_esterror_rate_frac_sec: 0x8970_5f41_36b4,
        counter_period_maxerror_rate_frac_sec: 0x8970_5f41_36b4,
        time_sec: 1_795_000_000,
        time_esterror_nanosec: 100,
        time_maxerror_nanosec: 1000,
        vm_generation_counter: 7,
        ..Fields::stock()
    }
}

/// The same, so many nanoseconds later.
fn later(fields: &Fields, nanos: u64) -> Fields {
    let exact = u128::from(nanos) << 64;
    Fields {
        seq_count: fields.seq_count + 2,
        counter_value: fields.counter_value + nanos,
        time_frac_sec: fields.time_frac_sec + u64::try_from(exact / 1_000_000_000).expect("< 1 s"),
        ..*fields
    }
}

fn watch() -> Watch {
    Watch::new(CounterId::X86Tsc, Some(GIGAHERTZ))
}

fn is(outcome: &Outcome) -> char {
    match outcome {
        Outcome::Ok(_) => '+',
        Outcome::NotOk(_) => '-',
        Outcome::Skip(_) => '?',
    }
}

fn broken(watch: &Watch) -> Vec<Rule> {
    let broken = |rule: &&Rule| is(&watch.outcome(**rule, &RATES)) == '-';
    Rule::ALL.iter().filter(broken).copied().collect()
}

fn seen(pages: &[Fields]) -> Watch {
    let mut watch = watch();
    for fields in pages {
        watch.saw(fields, Ticks(fields.counter_value + 1000));
    }
    watch
}

#[test]
fn an_honest_page_breaks_nothing_and_all_that_can_be_said_is_said() {
    let pages: Vec<Fields> =
        core::iter::successors(Some(good()), |fields| Some(later(fields, 50_000_000)))
            .take(10)
            .collect();
    let mut watch = seen(&pages);
    let last = pages[9];
    let after = Fields {
        disruption_marker: 6,
        ..later(&last, 50_000_000)
    };
    let stop = Stop { nanos: 10_000_000 };
    watch.stopped(
        stop,
        (last, Ticks(last.counter_value)),
        (after, Ticks(after.counter_value)),
    );
    let restored = Fields {
        disruption_marker: 7,
        vm_generation_counter: 8,
        ..after
    };
    watch.loaded(&after, &restored);
    let all: String = Rule::ALL
        .iter()
        .map(|rule| is(&watch.outcome(*rule, &RATES)))
        .collect();
    assert_eq!(
        all, "+++++++++++++++++++++++?",
        "only the notification is open"
    );
}

#[test]
fn a_page_without_time_breaks_nothing() {
    let watch = seen(&[Fields::stock()]);
    let all: String = Rule::ALL
        .iter()
        .map(|rule| is(&watch.outcome(*rule, &RATES)))
        .collect();
    assert_eq!(all, "++++++++++++????????????");
    let nothing = Watch::new(CounterId::X86Tsc, None);
    assert!(broken(&nothing).is_empty());
}

#[test]
fn each_rule_is_broken_by_a_page_and_by_no_other_rule_with_it() {
    type Change = fn(&mut Fields);
    let cases: &[(Change, &[Rule])] = &[
        (|page| page.magic = 1, &[Rule::Magic]),
        (|page| page.size = 0x6f, &[Rule::Size]),
        (|page| page.version = 2, &[Rule::Version]),
        (|page| page.counter_id = 0, &[Rule::Counter]),
        (|page| page.counter_id = 9, &[Rule::Counter]),
        (|page| page.time_type = 3, &[Rule::TimeType]),
        (|page| page.time_type = 5, &[Rule::TimeType]),
        (|page| page.clock_status = 5, &[Rule::Status]),
        (|page| page.leap_second_smearing_hint = 3, &[Rule::Hint]),
        (|page| page.counter_id = 0xff, &[Rule::Flags]),
        (|page| page.tai_offset_sec = 37, &[Rule::TaiOffset]),
        (|page| page.tai_offset_sec = 0, &[Rule::TaiOffset]),
        (|page| page.leap_indicator = 6, &[Rule::Leap]),
        (
            |page| page.leap_indicator = LeapIndicator::Pos as u8,
            &[Rule::Leap],
        ),
        (|page| page.time_sec = u64::MAX, &[Rule::Time]),
        (|page| page.counter_period_frac_sec = 0, &[Rule::Period]),
        (|page| page.counter_period_shift = 128, &[Rule::Period]),
        (|page| page.counter_period_shift = 30, &[Rule::Period]),
        (|page| page.time_esterror_nanosec = 1001, &[Rule::Errors]),
        (
            |page| page.counter_period_maxerror_rate_frac_sec = u64::MAX,
            // Nothing contradicts a period that may be anything.
            &[Rule::Errors],
        ),
        (
            |page| page.counter_period_esterror_rate_frac_sec = u64::MAX,
            &[Rule::Errors],
        ),
        (|page| page.flags |= 1 << 40, &[]),
        (|page| page.flags &= !flag::TAI_OFFSET_VALID, &[]),
        (|page| page.clock_status = 0, &[]),
    ];
    for (number, (change, rules)) in cases.iter().enumerate() {
        let mut page = good();
        change(&mut page);
        assert_eq!(broken(&seen(&[page])), *rules, "case {number}");
    }
}

#[test]
fn updates_that_break_a_promise_are_found() {
    let first = good();
    let next = later(&first, 50_000_000);
    let cases: &[(Fields, &[Rule])] = &[
        (next, &[]),
        (
            Fields {
                size: 0x2000,
                ..next
            },
            &[Rule::Constants],
        ),
        (
            // Not guarded, and not to be changed under the guard either.
            Fields {
                version: 2,
                ..first
            },
            &[Rule::Version, Rule::Constants],
        ),
        (
            Fields {
                seq_count: first.seq_count,
                ..next
            },
            &[Rule::Torn],
        ),
        (
            Fields {
                seq_count: 0,
                ..next
            },
            &[Rule::Forward],
        ),
        (
            Fields {
                time_sec: next.time_sec + 1,
                ..next
            },
            &[Rule::Nested],
        ),
        (
            Fields {
                time_sec: next.time_sec - 1,
                ..next
            },
            &[Rule::Nested, Rule::Monotonic],
        ),
        (
            Fields {
                tai_offset_sec: -36,
                ..next
            },
            &[Rule::TaiOffsetSteady],
        ),
        (
            // Under another marker nothing old binds.
            Fields {
                seq_count: 0,
                time_sec: next.time_sec - 1000,
                disruption_marker: 9,
                ..next
            },
            &[],
        ),
    ];
    for (number, (page, rules)) in cases.iter().enumerate() {
        assert_eq!(broken(&seen(&[first, *page])), *rules, "case {number}");
    }
}

#[test]
fn of_contradictions_the_one_between_the_nearest_pages_is_told() {
    let first = good();
    let jumped = |fields: &Fields| Fields {
        time_sec: fields.time_sec + 1,
        ..*fields
    };
    // Three pages, of which the second, so many milliseconds after the first, is a second wrong.
    let told = |second: u64| {
        let pages = [(2, 0), (4, second), (6, 450)];
        let [one, two, three] = pages.map(|(seq_count, millis)| Fields {
            seq_count,
            ..later(&first, millis * 1_000_000)
        });
        let watch = seen(&[one, jumped(&two), three]);
        match watch.outcome(Rule::Nested, &RATES) {
            Outcome::NotOk(evidence) => evidence.as_str().to_owned(),
            other => panic!("{other:?}"),
        }
    };
    // Each was read a microsecond behind its reference.
    let [early, late] = [50, 400].map(told);
    assert!(
        early.contains("from where 2 had it") && early.ends_with(", 49 ms before"),
        "{early}"
    );
    assert!(
        late.contains("from where 4 had it") && late.ends_with(", 49 ms before"),
        "{late}"
    );
}

#[test]
fn an_update_that_does_not_end_is_found_and_many_short_ones_are_not() {
    let odd = |looks: &[(u32, u64)]| {
        let mut watch = watch();
        for (seq, ticks) in looks {
            watch.refused(*seq, Ticks(*ticks));
        }
        broken(&watch)
    };
    assert_eq!(odd(&[(3, 0), (3, 100_000_001)]), [Rule::Odd]);
    assert_eq!(odd(&[(3, 0), (3, 99_999_999)]), []);
    assert_eq!(odd(&[(3, 0), (5, 99_999_999), (7, 199_999_998)]), []);
    assert_eq!(odd(&[(3, 0), (4, 99_999_999), (3, 199_999_998)]), []);
    let mut interrupted = watch();
    interrupted.refused(3, Ticks(0));
    interrupted.saw(&good(), Ticks(50_000_000));
    interrupted.refused(3, Ticks(150_000_000));
    assert_eq!(broken(&interrupted), []);
}

#[test]
fn a_stop_needs_another_marker_unless_the_time_goes_on() {
    let page = good();
    let stopped = |after: Fields, ticks: u64, nanos: u64| {
        let mut watch = seen(&[page, after]);
        watch.stopped(Stop { nanos }, (page, Ticks(1000)), (after, Ticks(ticks)));
        broken(&watch)
    };
    // A counter that has stood still for most of it.
    assert_eq!(
        stopped(page, 100_000_000, 1_000_000_000),
        [Rule::Marker],
        "a page that knows nothing of it"
    );
    assert_eq!(stopped(page, 1_000_002_000, 1_000_000_000), []);
    // Within the error of both.
    assert_eq!(stopped(page, 999_990_000, 1_000_000_000), []);
    let marked = Fields {
        seq_count: 4,
        disruption_marker: 6,
        ..page
    };
    assert_eq!(stopped(marked, 100_000_000, 1_000_000_000), []);
    let cloned = Fields {
        vm_generation_counter: 8,
        ..marked
    };
    assert_eq!(
        stopped(cloned, 100_000_000, 1_000_000_000),
        [Rule::Generation]
    );
    assert_eq!(stopped(page, u64::MAX, u64::MAX), [Rule::Marker]);
}

#[test]
fn a_snapshot_raises_marker_and_generation() {
    let page = good();
    let loaded = |marker, generation| {
        let mut watch = seen(&[page]);
        let after = Fields {
            disruption_marker: marker,
            vm_generation_counter: generation,
            ..page
        };
        watch.loaded(&page, &after);
        broken(&watch)
    };
    assert_eq!(loaded(6, 8), []);
    assert_eq!(loaded(6, 7), [Rule::Snapshot]);
    assert_eq!(loaded(5, 8), [Rule::Snapshot]);
}

#[test]
fn updates_are_notified_where_that_is_promised() {
    use Notice::{Arrived, None, Undescribed, Unknown};
    const SECOND: u64 = GIGAHERTZ;
    let flagged = |number: u64| {
        let page = later(&good(), number * 50_000_000);
        Fields {
            seq_count: 2 + 2 * u32::try_from(number).expect("small"),
            flags: page.flags | flag::NOTIFICATION_PRESENT,
            ..page
        }
    };
    // What is looked at: the number of the page, and what a look gives before it, at a counter value.
    let judged = |looks: &[(u64, Notice, u64)]| {
        let mut watch = watch();
        for (number, notice, ticks) in looks {
            watch.saw(&flagged(*number), Ticks(*ticks));
            watch.noticed(*notice, Some(Ticks(*ticks)));
        }
        is(&watch.outcome(Rule::Notification, &RATES))
    };
    assert_eq!(judged(&[(0, None, 1)]), '?', "no update");
    assert_eq!(judged(&[(0, None, 1), (1, Arrived, 2)]), '+');
    assert_eq!(
        judged(&[(0, None, 1), (1, None, 2), (1, Arrived, SECOND)]),
        '+',
        "after the copy that has it"
    );
    assert_eq!(
        judged(&[(0, None, 1), (1, None, 2)]),
        '?',
        "too late to tell"
    );
    assert_eq!(
        judged(&[(0, None, 1), (1, None, 2), (1, None, 4 * SECOND)]),
        '-'
    );
    assert_eq!(
        judged(&[
            (0, None, 1),
            (1, Arrived, 2),
            (2, None, 3),
            (2, None, 4 * SECOND),
            (2, Arrived, 5 * SECOND)
        ]),
        '-',
        "one of two is late"
    );
    assert_eq!(judged(&[(0, Undescribed, 1)]), '-');
    assert_eq!(judged(&[(0, Unknown("why"), 1), (1, None, 2)]), '?');
    // What ACPI says of it.
    assert_eq!(Notice::from(Untold::Never), Undescribed);
    assert_eq!(Notice::from(Untold::Because("why")), Unknown("why"));
    let elsewhere = Notice::from(Untold::Elsewhere);
    assert_eq!(
        elsewhere,
        Unknown("no device of ACPI's describes this page")
    );
    // One that arrived while the page was being written is about the next copy.
    let mut early = watch();
    early.saw(&flagged(0), Ticks(1));
    early.refused(3, Ticks(2));
    early.noticed(Arrived, Option::None);
    for ticks in [3, 4 * SECOND] {
        early.saw(&flagged(1), Ticks(ticks));
        early.noticed(None, Some(Ticks(ticks)));
    }
    assert_eq!(is(&early.outcome(Rule::Notification, &RATES)), '+');
    // The update that sets the flag need not be notified, nor one after which it is gone.
    let mut watch = watch();
    for (page, ticks) in [(good(), 1), (flagged(1), 2), (good(), 4 * SECOND)] {
        watch.saw(&page, Ticks(ticks));
        watch.noticed(None, Some(Ticks(ticks)));
    }
    assert_eq!(is(&watch.outcome(Rule::Notification, &RATES)), '?');
}

#[test]
fn the_machines_facts_are_judged() {
    let ram = |start, length| MemoryRange {
        start,
        length,
        kind: MemoryKind::Usable,
    };
    let image = (0x10_0000, 0x20_0000);
    let map = [ram(0, 0x9_f000), ram(0x10_0000, 0x1f0_0000)];
    assert_eq!(is(&machine::memory(&map, image)), '+');
    assert_eq!(is(&machine::memory(&map, (0x10_0000, 0x300_0000))), '-');
    assert_eq!(is(&machine::memory(&map, (0x20_0000, 0x10_0000))), '-');
    assert_eq!(is(&machine::memory(&[], image)), '-');
    let twice = [ram(0, 0x30_0000), ram(0x10_0000, 0x1f0_0000)];
    assert_eq!(is(&machine::memory(&twice, image)), '-');
    let endless = [ram(0x1000, u64::MAX)];
    assert_eq!(is(&machine::memory(&endless, image)), '+');

    let window = |address| Window {
        address,
        length: 4096,
    };
    assert_eq!(is(&machine::reserved(&map, window(0xfeff_b000))), '+');
    assert_eq!(is(&machine::reserved(&map, window(0x20_0000))), '-');
    assert_eq!(is(&machine::reserved(&map, window(0xfeff_b800))), '-');

    let mut tables = Tables::default();
    assert_eq!(is(&tables.outcome()), '-', "nothing was shown");
    let mapping = Mapping {
        what: "text",
        address: 0x1000,
        wanted: "read-execute",
        found: "read-execute",
    };
    tables.saw(mapping);
    assert_eq!(is(&tables.outcome()), '+');
    tables.saw(Mapping {
        found: "read-write",
        ..mapping
    });
    assert_eq!(is(&tables.outcome()), '-');

    assert_eq!(is(&machine::interrupt(true, 20_000, Some(20_000_000))), '+');
    assert_eq!(is(&machine::interrupt(true, 20_000, Some(19_000_000))), '-');
    assert_eq!(is(&machine::interrupt(true, 20_000, None)), '-');
    assert_eq!(is(&machine::interrupt(false, 20_000, None)), '?');
    assert_eq!(is(&machine::uart(Some(true))), '+');
    assert_eq!(is(&machine::uart(Some(false))), '-');
    assert_eq!(is(&machine::uart(None)), '?');
    assert_eq!(is(&machine::nic(&Nic::Running("x"))), '+');
    assert_eq!(is(&machine::nic(&Nic::Refused("x"))), '-');
    assert_eq!(is(&machine::nic(&Nic::Absent("x"))), '?');
}

#[test]
fn the_counter_is_judged() {
    let mut readings = Readings::default();
    (1..machine::READS).for_each(|ticks| readings.read(Ticks(ticks)));
    assert_eq!(is(&readings.order(machine::READS)), '-', "too few");
    readings.read(Ticks(machine::READS));
    assert_eq!(is(&readings.order(machine::READS)), '+');
    readings.read(Ticks(machine::READS - 1));
    assert_eq!(is(&readings.order(machine::READS)), '-');
    let mut still = Readings::default();
    (0..=machine::READS).for_each(|_| still.read(Ticks(5)));
    assert_eq!(still.reads(), machine::READS + 1);

    let pair = |ticks: u64, nanos| Pair {
        before: Ticks(ticks),
        nanos,
        after: Ticks(ticks + 100),
    };
    let run = |middle, end| {
        let mut readings = Readings::default();
        readings.beside(0, pair(0, 0));
        readings.beside(1, pair(middle, 1_000_000_000));
        readings.beside(2, pair(end, 2_000_000_000));
        is(&readings.steady(Some("a timer")))
    };
    assert_eq!(run(1_000_000_000, 2_000_500_000), '+');
    assert_eq!(run(1_000_000_000, 2_002_000_000), '-');
    assert_eq!(run(1_000_000_000, 1_000_000_000), '-');
    assert_eq!(is(&Readings::default().steady(Some("a timer"))), '-');
    assert_eq!(is(&Readings::default().steady(None)), '?');

    let mut readings = Readings::default();
    assert_eq!(is(&readings.cheap(Some(GIGAHERTZ))), '?');
    readings.cost(2_000_000, 1);
    assert_eq!(is(&readings.cheap(Some(GIGAHERTZ))), '-');
    readings.cost(6500, 65);
    assert_eq!(is(&readings.cheap(Some(GIGAHERTZ))), '+');

    let measured = Some(Measured {
        hertz: GIGAHERTZ,
        error: 1000,
    });
    let says = |hertz| Rate {
        hertz,
        unit: 1,
        source: "CPUID",
    };
    let judge = |hertz, measured| {
        is(&machine::stated(
            Some(says(hertz)),
            measured,
            CounterId::X86Tsc,
        ))
    };
    assert_eq!(judge(1_000_900_000, measured), '+');
    assert_eq!(judge(1_100_000_000, measured), '-');
    assert_eq!(judge(62_500_000, None), '+');
    assert_eq!(judge(1, None), '-');
    assert_eq!(is(&machine::stated(None, measured, CounterId::X86Tsc)), '?');
}

#[test]
fn the_stream_is_tap_14() {
    let mut out = String::new();
    let check = Rule::TaiOffset.check();
    let mut tap = Tap::begin(&mut out, 3).expect("a string");
    tap.comment(&mut out, &"words").expect("a string");
    tap.tell(&mut out, check, &Outcome::ok(&"a\\b #c"))
        .expect("a string");
    tap.tell(&mut out, check, &Outcome::not_ok(&"37 s"))
        .expect("a string");
    tap.tell(&mut out, check, &Outcome::skip(&"no"))
        .expect("a string");
    let tally = tap.end(&mut out).expect("a string");
    assert_eq!((tally.ok, tally.not_ok, tally.skipped), (1, 1, 1));
    assert_eq!(
        out,
        "TAP version 14\n1..3\n# words\n\
         ok 1 - vmclock tai_offset_sec: a\\\\b \\#c\n\
         not ok 2 - vmclock tai_offset_sec: 37 s\n  ---\n  \
         rule: \"UTC = TAI + tai_offset_sec: negative since 1972, -37 since 2017\"\n  \
         source: \"UAPI.13 v1.1, tai_offset_sec\"\n  ...\n\
         ok 3 - vmclock tai_offset_sec # SKIP no\n\
         # 1 ok, 1 not ok, 1 skipped\n"
    );
}

#[test]
fn the_command_line_asks_for_it() {
    let smoke = |line: &str| {
        let mut warnings = 0;
        let config = Config::parse(line, &mut |_| warnings += 1);
        (config.smoke, warnings)
    };
    assert_eq!(smoke(""), (None, 0));
    assert_eq!(smoke("smoke"), (Some(smoke::SECONDS), 0));
    assert_eq!(smoke("smoke=10"), (Some(10), 0));
    for wrong in ["smoke=0", "smoke=3601", "smoke=x", "smoke=-1"] {
        assert_eq!(smoke(wrong), (None, 1), "{wrong}");
    }
}

/// A machine whose time goes on by a step at each look at its counter.
#[derive(Clone, Default)]
struct World(Rc<RefCell<u64>>);

impl World {
    fn now(&self) -> u64 {
        *self.0.borrow_mut() += 500;
        *self.0.borrow()
    }
}

impl Counter for World {
    const ID: CounterId = CounterId::X86Tsc;
    fn read(&self) -> Ticks {
        Ticks(self.now())
    }
}

struct Lab {
    world: World,
    alarm: Option<u64>,
    map: [MemoryRange; 1],
}

impl Bench for Lab {
    fn memory(&self) -> &[MemoryRange] {
        &self.map
    }
    fn image(&self) -> (u64, u64) {
        (0x10_0000, 0x20_0000)
    }
    fn page(&self) -> Option<Window> {
        Some(Window {
            address: 0xfeff_b000,
            length: 4096,
        })
    }
    fn mappings(&self, visit: &mut dyn FnMut(Mapping)) {
        visit(Mapping {
            what: "text",
            address: 0,
            wanted: "x",
            found: "x",
        });
    }
    fn undefined_instruction(&mut self) -> bool {
        true
    }
    fn uptime(&mut self) -> Option<u64> {
        Some(self.world.now())
    }
    fn independent_timer(&self) -> Option<&'static str> {
        Some("a timer")
    }
    fn stated_rate(&self) -> Option<Rate> {
        None
    }
    fn set_alarm(&mut self, microseconds: u64) -> bool {
        self.alarm = Some(self.world.now() + microseconds * 1000);
        true
    }
    fn alarm_rang(&mut self) -> bool {
        self.alarm.is_some_and(|alarm| self.world.now() >= alarm)
    }
    fn uart_loopback(&mut self) -> Option<bool> {
        Some(true)
    }
    fn rtc(&mut self) -> Result<Look, &'static str> {
        // At the start half of the page's second is over.
        let seconds = (self.world.now() + 500_000_000) / 1_000_000_000;
        Ok(Look::Seconds(
            1_795_000_000 - 37 + i64::try_from(seconds).expect("small"),
        ))
    }
    fn notice(&mut self) -> Notice {
        Notice::None
    }

    fn end_notices(&mut self) {}
    fn nic(&self) -> Nic<'_> {
        Nic::Running("virtio-net")
    }
}

/// The other side of the line: notes what is said, and answers when it is asked to stop the machine.
#[derive(Default)]
struct Line {
    said: Rc<RefCell<String>>,
    answer: VecDeque<u8>,
    gives: &'static [u8],
    loads: &'static [u8],
    world: World,
    lasts: u64,
}

impl SerialPort for Line {
    fn receive(&mut self) -> Option<u8> {
        self.answer.pop_front()
    }
    fn send(&mut self, bytes: &[u8]) -> usize {
        let mut said = self.said.borrow_mut();
        said.push_str(core::str::from_utf8(bytes).expect("text"));
        if said.ends_with("to be saved and loaded\r\n") {
            self.answer.extend(self.loads);
        }
        if said.ends_with("# waiting for a stop of the machine\r\n") {
            *self.world.0.borrow_mut() += self.lasts;
            self.answer.extend(self.gives);
        }
        bytes.len()
    }
}

/// A network with a DHCP server at 10.0.2.2.
fn answer(mut bytes: Vec<u8>) -> Vec<Vec<u8>> {
    let mut answers = Vec::new();
    match (bytes[12], bytes[13]) {
        (8, 0) => {
            let end = bytes.len() - 4;
            let sum: u32 = bytes[14..34]
                .chunks(2)
                .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
                .sum();
            assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "header checksum");
            assert_eq!(&bytes[end..], [53, 1, 1, 255]);
            bytes[42] = 2;
            bytes[34..38].copy_from_slice(&[0, 67, 0, 68]);
            bytes.truncate(end);
            bytes.extend([53, 1, 2, 0, 54, 4, 10, 0, 2, 2, 255]);
            // Somebody else's before it, and what is no frame at all.
            answers.extend([vec![], vec![0; 60], vec![8; 13]]);
            let mut other = bytes.clone();
            other[46] ^= 1;
            answers.push(other);
        }
        (8, 6) => {
            assert_eq!(bytes[38..42], [10, 0, 2, 2]);
            bytes[21] = 2;
            bytes[22..28].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
            bytes[28..32].copy_from_slice(&[10, 0, 2, 2]);
        }
        _ => panic!("not asked for"),
    }
    answers.push(bytes);
    answers
}

fn net() -> Wire {
    let wire = Wire::default();
    wire.0.borrow_mut().peer = Some(answer);
    wire
}

/// A run on a good machine with this page, stopped as `lasts`, and answered with `gives` and then with `loads`.
fn run(fields: &Fields, lasts: u64, [gives, loads]: [&'static [u8]; 2]) -> (u32, String) {
    let world = World::default();
    let page = VmclockPage::new(fields);
    let mut lab = Lab {
        world: world.clone(),
        alarm: None,
        map: [MemoryRange {
            start: 0,
            length: 0x100_0000,
            kind: MemoryKind::Usable,
        }],
    };
    let mut subject = Subject {
        bench: &mut lab,
        counter: world.clone(),
        page: Some(&page),
        place: Ok("\\_SB.VCLK"),
        port: Some(net()),
    };
    let said = Rc::default();
    let mut queue = Box::new([0; _]);
    let mut console = Console::new(
        Some(Line {
            said: Rc::clone(&said),
            gives,
            loads,
            world,
            lasts,
            ..Line::default()
        }),
        &mut queue,
    );
    let tally = smoke::run(&mut subject, &mut console, 1).expect("a console");
    let said = said.borrow().replace('\r', "");
    (tally.not_ok, said)
}

#[test]
fn a_good_machine_passes_from_end_to_end() {
    let (failed, said) = run(&good(), 1_000_100_000, [b"stopped 1000000000\r", b""]);
    assert_eq!(failed, 0, "{said}");
    for expected in [
        "TAP version 14\n1..38\n",
        "ok 11 - network link: DHCP offered, and 10.0.2.2 is at 02:00:00:00:00:09 by ARP\n",
        "ok 12 - real-time clock: 2026-11-18T",
        "ok 13 - vmclock discovery: \\\\_SB.VCLK\n",
        "disruption_marker: 0x5 before and after a stop of 1.00 s",
        "ok 37 - vmclock snapshot # SKIP nobody has loaded one\n",
        "ok 38 - vmclock notification # SKIP not advertised\n",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

#[test]
fn a_stop_that_the_page_does_not_know_of_fails() {
    let (failed, said) = run(&good(), 0, [b"noise\rstostopped 1000000000\r", b""]);
    assert_eq!(failed, 1, "{said}");
    assert!(
        said.contains("not ok 35 - vmclock disruption_marker: "),
        "{said}"
    );
}

#[test]
fn a_snapshot_that_the_page_does_not_know_of_fails() {
    let answers: [&[u8]; 2] = [b"stopped 1000000000\r", b"loa\rwas loaded\r"];
    let (failed, said) = run(&good(), 1_000_100_000, answers);
    assert_eq!(failed, 1, "{said}");
    let expected = "not ok 37 - vmclock snapshot: 0x5 before and after\n";
    assert!(said.contains(expected), "{said}");
}

#[test]
fn without_an_answer_the_stop_is_skipped() {
    for nothing in [&b""[..], b"stopped", b"stopped x\r", b"stopped 12 3\r"] {
        let (failed, said) = run(&good(), 0, [nothing, b"loaded\r"]);
        assert_eq!(failed, 0, "{said}");
        assert!(
            said.contains("disruption_marker # SKIP nobody has stopped the machine\n"),
            "{said}"
        );
    }
}
