//! Sources of time beside the page: which is asked when, which is in use, and what a disruption does.

use core::cell::Cell;
use core::fmt;
use core::time::Duration;
use std::rc::Rc;

use gnomon_clock::estimate::TIMER_HERTZ;
use gnomon_clock::page::{Fields, VmclockPage, Writer};
use gnomon_clock::{
    Bound, Clock, ClockStatus, Counter, CounterId, Kiss, Likely, NoTime, Origin, Period, Source,
    SourceTime, Span, Ticks, Timestamp, Utc,
};
use gnomon_kernel::source::{Answer, Choice, Driver, Entry, Indication, Sources, State};

const NOON: i64 = 1_795_176_000;

/// A counter of 1 GHz that stands where the test puts it, and moves by 10 µs at each read.
#[derive(Clone, Default)]
struct Gigahertz(Rc<Cell<u64>>);

impl Gigahertz {
    fn pass(&self, span: Duration) {
        let ticks = u64::try_from(span.as_nanos()).expect("a short while");
        self.0.set(self.0.get() + ticks);
    }

    /// True time, exactly: the counter was 0 at noon.
    fn utc(&self) -> Timestamp<Utc> {
        let nanos = i64::try_from(self.0.get()).expect("a short while");
        Timestamp::from_parts(NOON, 0)
            .checked_add(Span::from_nanos(nanos))
            .expect("no end of time")
    }
}

impl Counter for Gigahertz {
    const ID: CounterId = CounterId::X86Tsc;
    fn read(&self) -> Ticks {
        self.pass(Duration::from_micros(10));
        Ticks(self.0.get())
    }
}

/// A source that tells the truth, shifted by so much, unless it is told otherwise.
struct Scripted {
    source: Source,
    counter: Gigahertz,
    off: Rc<Cell<i64>>,
    asked: Rc<Cell<u32>>,
    answer: Rc<Cell<Option<Answer>>>,
    /// How much longer than usual an answer takes.
    held_up: Rc<Cell<Duration>>,
}

impl Driver for Scripted {
    fn source(&self) -> Source {
        self.source
    }
    fn ask(&mut self) -> Answer {
        self.asked.set(self.asked.get() + 1);
        self.poll()
    }
    fn poll(&mut self) -> Answer {
        if let Some(answer) = self.answer.get() {
            return answer;
        }
        self.counter
            .pass(Duration::from_micros(20) + self.held_up.get());
        let time = self.counter.utc();
        Answer::Time(Indication {
            time: SourceTime::Utc(
                time.checked_add(Span::from_nanos(self.off.get()))
                    .expect("fits"),
            ),
            ticks: None,
            error: Bound::from_nanos(100),
            tai_offset: Some(37),
            leap: None,
            status: ClockStatus::Freerunning,
        })
    }
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("scripted")
    }
}

struct Script {
    off: Rc<Cell<i64>>,
    asked: Rc<Cell<u32>>,
    answer: Rc<Cell<Option<Answer>>>,
    held_up: Rc<Cell<Duration>>,
}

struct Rig {
    counter: Gigahertz,
    writer: Writer<&'static VmclockPage>,
    clock: Clock<'static, Gigahertz>,
    sources: Sources<'static>,
    scripts: Vec<Script>,
    uptime: Duration,
    /// Whether there is a timer that tells the counter's rate, and how often it was read.
    timer: Option<Rc<Cell<u32>>>,
}

impl Rig {
    fn new(choice: &str, with: &[Source]) -> Self {
        let counter = Gigahertz::default();
        let page: &'static VmclockPage = Box::leak(Box::new(VmclockPage::new(&Fields::stock())));
        let mut scripts = Vec::new();
        let mut drivers: Vec<&'static mut dyn Driver> = Vec::new();
        for &source in with {
            let script = Script {
                off: Rc::default(),
                asked: Rc::default(),
                answer: Rc::default(),
                held_up: Rc::default(),
            };
            drivers.push(Box::leak(Box::new(Scripted {
                source,
                counter: counter.clone(),
                off: Rc::clone(&script.off),
                asked: Rc::clone(&script.asked),
                answer: Rc::clone(&script.answer),
                held_up: Rc::clone(&script.held_up),
            })));
            scripts.push(script);
        }
        let choice = Choice::parse(choice).expect("a choice");
        let clock = Clock::new(Some(page), counter.clone());
        Self {
            clock: if choice.page {
                clock
            } else {
                clock.without_page_time()
            },
            sources: Sources::new(
                choice,
                Box::leak(Box::default()),
                drivers.leak(),
                &[(Source::KvmPtp, "not on x86")],
            ),
            writer: Writer::new(page, 0),
            counter,
            scripts,
            uptime: Duration::ZERO,
            timer: None,
        }
    }

    /// Lets so many milliseconds pass, one by one.
    fn pass(&mut self, millis: u64) {
        for _ in 0..millis {
            self.counter.pass(Duration::from_millis(1));
            self.uptime += Duration::from_millis(1);
            self.sources
                .follow(&mut self.clock, Some(self.uptime), || None);
            let (counter, timer) = (&self.counter, &self.timer);
            self.sources
                .calibrate(&mut self.clock, Some(self.uptime), || {
                    let reads = timer.as_ref()?;
                    reads.set(reads.get() + 1);
                    let ticks = u128::from(counter.0.get()) * u128::from(TIMER_HERTZ);
                    u32::try_from((ticks / 1_000_000_000) & 0xff_ffff).ok()
                });
        }
    }

    fn disrupt(&mut self, marker: u64) {
        let fields = Fields {
            disruption_marker: marker,
            ..Fields::stock()
        };
        self.writer.publish(&fields).expect("a page");
    }

    fn entry(&self, source: Source) -> Entry<'_> {
        let table = self.sources.table();
        table
            .entries()
            .find(|entry| entry.source == source)
            .expect("each has one")
    }

    /// The reading now, which has the truth in its bound.
    #[track_caller]
    fn truth(&mut self) -> gnomon_clock::Reading {
        let reading = self.clock.reading().expect("time");
        let truth = self.counter.utc();
        let utc = reading.utc.expect("UTC").time;
        let off = utc.since(truth).expect("near");
        assert!(reading.bound.contains(off), "{off:?} ± {:?}", reading.bound);
        reading
    }
}

#[test]
fn a_marker_only_page_is_served_by_a_source() {
    let mut rig = Rig::new("auto", &[Source::VirtioRtc]);
    assert!(rig.clock.now().is_err());
    rig.pass(1000);
    let reading = rig.truth();
    assert_eq!(reading.origin, Origin::Own(Source::VirtioRtc));
    assert!(
        reading.bound < Bound::from_nanos(1_000_000),
        "{:?}",
        reading.bound
    );
    assert_eq!(rig.entry(Source::VirtioRtc).state, State::Good);
    assert_eq!(rig.entry(Source::KvmPtp).state, State::Absent("not on x86"));
    assert_eq!(rig.entry(Source::VirtioRtc).about, "scripted");
    // Later samples are a quarter of a second apart.
    let asked = rig.scripts[0].asked.get();
    rig.pass(5000);
    assert_eq!(rig.scripts[0].asked.get() - asked, 20);
    assert!(rig.truth().bound < Bound::from_nanos(1_000_000));
}

#[test]
fn a_disruption_takes_the_time_away_at_once_and_brings_it_back_soon() {
    let mut rig = Rig::new("auto", &[Source::VirtioRtc]);
    rig.pass(500);
    let before = rig.truth();
    rig.disrupt(before.marker + 1);
    // The very next reading.
    let why = rig.clock.now().expect_err("the line is of the old marker");
    assert!(
        matches!(why, NoTime::Unusable { stepped: true, .. }),
        "{why}"
    );
    assert_eq!(why.kiss(), Kiss::Step);
    rig.pass(20);
    let after = rig.truth();
    assert_eq!(after.marker, before.marker + 1);
    // And the old marker does not bring the old line back.
    rig.disrupt(before.marker);
    assert!(rig.clock.now().is_err());
}

#[test]
fn an_answer_across_a_disruption_is_dropped() {
    let mut rig = Rig::new("auto", &[Source::VirtioRtc]);
    rig.scripts[0].answer.set(Some(Answer::Later));
    rig.pass(10);
    let asked = rig.scripts[0].asked.get();
    assert_eq!(asked, 1, "one question at a time");
    rig.disrupt(7);
    rig.scripts[0].answer.set(None);
    rig.pass(1);
    assert_eq!(rig.scripts[0].asked.get(), asked + 1, "asked anew");
    rig.pass(100);
    assert_eq!(rig.truth().marker, 7);
}

#[test]
fn a_source_that_does_not_answer_is_said_to_be_silent() {
    let mut rig = Rig::new("auto", &[Source::VirtioRtc]);
    rig.scripts[0].answer.set(Some(Answer::Later));
    rig.pass(1100);
    assert_eq!(
        rig.entry(Source::VirtioRtc).state,
        State::Silent("no answer")
    );
    rig.scripts[0].answer.set(Some(Answer::Silence("EIO")));
    rig.pass(2000);
    assert_eq!(rig.entry(Source::VirtioRtc).state, State::Silent("EIO"));
    rig.scripts[0].answer.set(None);
    rig.pass(20_000);
    rig.truth();
}

#[test]
fn the_best_source_is_in_use_and_the_page_goes_before_all() {
    let mut rig = Rig::new("auto", &[Source::Rtc, Source::VirtioRtc]);
    rig.pass(1000);
    assert_eq!(rig.truth().origin, Origin::Own(Source::VirtioRtc));
    let period = Period::from_hertz(1_000_000_000).expect("a period");
    let at = rig.counter.0.get();
    let now = rig.counter.utc();
    rig.writer
        .publish(&Fields {
            counter_id: CounterId::X86Tsc as u8,
            clock_status: ClockStatus::Synchronized as u8,
            flags: gnomon_clock::page::flag::TAI_OFFSET_VALID,
            tai_offset_sec: -37,
            time_type: gnomon_clock::TimeType::Tai as u8,
            counter_value: at,
            counter_period_frac_sec: period.frac(),
            counter_period_shift: period.shift(),
            time_sec: u64::try_from(now.seconds() + 37).expect("after 1970"),
            time_frac_sec: now.fraction(),
            ..Fields::stock()
        })
        .expect("a page");
    assert_eq!(rig.truth().origin, Origin::Page);
    rig.pass(20_000);
    assert_eq!(rig.sources.table().origin(), Some(Origin::Page));
    assert_eq!(rig.sources.table().alarms(), 0);
}

#[test]
fn contradictions_are_named_and_counted_and_not_averaged() {
    for (off, likely) in [
        (37_000_000_000, Likely::TaiUtcConfusion),
        (-37_000_000_000, Likely::TaiUtcConfusion),
        (1_000_000_000, Likely::LeapSecond),
        (500_000_000, Likely::Smearing),
        (5_000_000_000, Likely::Unexplained),
    ] {
        let mut rig = Rig::new("auto", &[Source::KvmPairing, Source::VirtioRtc]);
        rig.scripts[1].off.set(off);
        rig.pass(3000);
        assert_eq!(rig.truth().origin, Origin::Own(Source::KvmPairing));
        let State::Disagrees(difference) = rig.entry(Source::VirtioRtc).state else {
            panic!("{:?}", rig.entry(Source::VirtioRtc))
        };
        assert_eq!(difference.likely, likely, "{off}");
        assert_eq!(
            rig.sources.table().alarms(),
            1,
            "once, not with each answer"
        );
    }
}

#[test]
fn the_page_may_be_kept_for_its_marker_only() {
    let mut rig = Rig::new("virtio-rtc", &[Source::VirtioRtc, Source::Rtc]);
    rig.pass(1000);
    assert_eq!(rig.truth().origin, Origin::Own(Source::VirtioRtc));
    assert_eq!(rig.scripts[1].asked.get(), 0, "the RTC was not asked for");
    let mut rig = Rig::new("vmclock", &[Source::VirtioRtc]);
    rig.pass(100);
    assert_eq!(rig.scripts[0].asked.get(), 0);
    assert!(rig.clock.now().is_err());
}

#[test]
fn choices() {
    for good in [
        "auto",
        "vmclock",
        "kvm",
        "rtc",
        "virtio-rtc,rtc",
        "auto,ntp:10.0.2.2",
        "ntp:fe80::1",
    ] {
        assert!(Choice::parse(good).is_some(), "{good}");
    }
    for bad in [
        "",
        "none",
        "ntp",
        "ntp:",
        "ntp:host",
        "auto,",
        "AUTO",
        "ntp:10.0.2.2:123",
    ] {
        assert_eq!(Choice::parse(bad), None, "{bad}");
    }
    let choice = Choice::parse("auto,ntp:10.0.2.2").expect("good");
    assert!(choice.page && Source::ALL.iter().all(|source| choice.allows(*source)));
    assert!(!choice.rtc_is_asked_for && choice.server.is_some());
    assert!(Choice::parse("rtc").is_some_and(|choice| choice.rtc_is_asked_for && !choice.page));
}

#[test]
fn a_real_time_clock_that_contradicts_is_no_alarm_unless_it_was_asked_for() {
    for (choice, alarms) in [("auto", 0), ("auto,rtc", 1)] {
        let mut rig = Rig::new(choice, &[Source::VirtioRtc, Source::Rtc]);
        // An hour, as one that was set to local time.
        rig.scripts[1].off.set(3_600_000_000_000);
        rig.pass(1000);
        assert_eq!(rig.truth().origin, Origin::Own(Source::VirtioRtc));
        let state = rig.entry(Source::Rtc).state;
        assert!(matches!(state, State::Disagrees(_)), "{state:?}");
        assert_eq!(rig.sources.table().alarms(), alarms, "{choice}");
    }
}

/// A source that answers once and never again.
fn answers_once(rig: &mut Rig) {
    rig.pass(1);
    rig.scripts[0].answer.set(Some(Answer::Silence("no more")));
}

#[test]
fn with_a_timer_one_answer_is_enough_in_each_life() {
    let mut rig = Rig::new("auto", &[Source::VirtioRtc]);
    answers_once(&mut rig);
    rig.pass(1000);
    assert!(rig.clock.now().is_err(), "nothing is known of the counter");
    assert_eq!(rig.sources.table().calibrated(), None);

    let reads = Rc::new(Cell::new(0));
    let mut rig = Rig::new("auto", &[Source::VirtioRtc]);
    rig.timer = Some(Rc::clone(&reads));
    for marker in 1..=3 {
        rig.scripts[0].answer.set(None);
        reads.set(0);
        answers_once(&mut rig);
        assert!(rig.clock.now().is_err());
        rig.pass(5);
        let soon = rig.truth().bound;
        assert!(soon < Bound::from_nanos(100_000), "{soon:?}");
        rig.pass(1000);
        rig.truth();
        let (hertz, off) = rig.sources.table().calibrated().expect("known");
        assert!(
            hertz.abs_diff(1_000_000_000) < off * 1000 && off < 200,
            "{hertz} ± {off}"
        );
        assert!((9..=11).contains(&reads.get()), "{} reads", reads.get());
        rig.disrupt(marker);
        rig.counter.pass(Duration::from_secs(7));
        assert!(rig.clock.now().is_err());
    }
}

#[test]
fn the_timer_is_left_alone_where_it_is_of_no_use() {
    // No source, and sources that are not asked.
    for (choice, sources) in [("auto", &[][..]), ("vmclock", &[Source::VirtioRtc])] {
        let reads = Rc::new(Cell::new(0));
        let mut rig = Rig::new(choice, sources);
        rig.timer = Some(Rc::clone(&reads));
        rig.pass(100);
        assert_eq!(reads.get(), 0, "{choice}");
    }
}

#[test]
fn an_answer_that_was_held_up_is_asked_for_again_and_a_slow_source_is_not_pestered() {
    let mut rig = Rig::new("auto", &[Source::VirtioRtc]);
    // One answer makes a line.
    rig.timer = Some(Rc::default());
    rig.pass(3000);
    let asked = rig.scripts[0].asked.get();
    let held_up = Rc::clone(&rig.scripts[0].held_up);
    // What has been learned of the counter is forgotten, so that the line is as wide as its newest answer.
    rig.disrupt(1);
    rig.pass(6);
    assert!(rig.truth().bound < Bound::from_nanos(100_000));
    assert_eq!(rig.scripts[0].asked.get(), asked + 2, "once each");
    // Answers that are held up, and one that is not.
    rig.disrupt(2);
    held_up.set(Duration::from_millis(2));
    let wide = rig.scripts[0].asked.get() + 3;
    while rig.scripts[0].asked.get() < wide {
        rig.pass(1);
    }
    assert!(rig.truth().bound > Bound::from_nanos(200_000));
    held_up.set(Duration::ZERO);
    rig.pass(1);
    assert_eq!(rig.scripts[0].asked.get(), wide + 1, "at once");
    assert!(rig.truth().bound < Bound::from_nanos(100_000));
    rig.pass(4);
    assert_eq!(rig.scripts[0].asked.get(), wide + 1, "and that is enough");
    // One that is slow for good: four questions in a quarter of a second.
    held_up.set(Duration::from_millis(2));
    rig.pass(3000);
    let asked = rig.scripts[0].asked.get();
    rig.pass(5000);
    let asked = rig.scripts[0].asked.get() - asked;
    assert!((60..=80).contains(&asked), "{asked}");
    rig.truth();
}
