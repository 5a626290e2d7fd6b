//! The virtio-rtc protocol against scripted devices: honest, poor, slow, lying and moved ones.

use core::cell::{Cell, RefCell};
use core::time::Duration;
use std::collections::VecDeque;
use std::rc::Rc;

use gnomon_clock::page::{Fields, VmclockPage, Writer};
use gnomon_clock::{
    Bound, Clock, Counter, CounterId, NoTime, Origin, Source, SourceTime, Span, Ticks, Timestamp,
    Utc,
};
use gnomon_kernel::source::virtio_rtc::{
    ANSWER_MAX, Fault, Kind, Request, RequestQueue, Said, VirtioRtc,
};
use gnomon_kernel::source::{Answer, Choice, Driver, Indication, Sources, State};

const NOON: u64 = 1_795_176_000_000_000_000;
const SECOND: u64 = 1_000_000_000;
const TSC: CounterId = CounterId::X86Tsc;

/// A clock of the scripted device.
#[derive(Clone, Copy)]
struct Face {
    kind: u8,
    smearing: u8,
    /// Ahead of UTC, in nanoseconds.
    ahead: i64,
}

const UTC: Face = Face {
    kind: 0,
    smearing: 0,
    ahead: 0,
};
const TAI: Face = Face {
    kind: 1,
    smearing: 0,
    ahead: 37_000_000_000,
};
const MONOTONIC: Face = Face {
    kind: 2,
    smearing: 0,
    ahead: -NOON.cast_signed() + 5_000_000_000,
};
const SMEARED: Face = Face {
    kind: 3,
    smearing: 1,
    ahead: 0,
};

/// The host: its UTC in nanoseconds, and the guest's counter.
struct World {
    utc: Cell<u64>,
    ticks: Cell<u64>,
    /// Counter ticks a microsecond.
    rate: Cell<u64>,
    faces: RefCell<Vec<Face>>,
    /// `READ_CROSS` for the TSC.
    crosses: Cell<bool>,
    /// How long an answer takes in microseconds.
    delay: Cell<u64>,
    /// Nothing is answered.
    is_dead: Cell<bool>,
    /// Answers that are given in place of true ones: the status and so on, and the length.
    script: RefCell<VecDeque<(Vec<u8>, usize)>>,
    seen: RefCell<Vec<u16>>,
}

impl World {
    fn new(faces: &[Face]) -> Rc<Self> {
        Rc::new(Self {
            utc: Cell::new(NOON),
            ticks: Cell::new(1 << 40),
            rate: Cell::new(1000),
            faces: RefCell::new(faces.to_vec()),
            crosses: Cell::new(false),
            delay: Cell::new(20),
            is_dead: Cell::new(false),
            script: RefCell::default(),
            seen: RefCell::default(),
        })
    }

    fn pass(&self, micros: u64) {
        self.utc.set(self.utc.get() + micros * 1000);
        let ticks = self.ticks.get();
        self.ticks.set(ticks.wrapping_add(micros * self.rate.get()));
    }

    fn say(&self, bytes: &[u8], length: usize) {
        self.script.borrow_mut().push_back((bytes.to_vec(), length));
    }

    fn status(&self, status: u8) {
        self.say(&[status, 0, 0, 0, 0, 0, 0, 0], 8);
    }
}

/// The device: what it is asked it answers half the delay later, by the clock of then.
struct Device {
    world: Rc<World>,
    asked: Option<(Vec<u8>, usize)>,
}

impl RequestQueue for Device {
    fn send(&mut self, request: &[u8], room: usize) -> bool {
        if self.asked.is_some() {
            return false;
        }
        let kind = u16::from_le_bytes([request[0], request[1]]);
        self.world.seen.borrow_mut().push(kind);
        self.asked = Some((request.to_vec(), room));
        true
    }

    fn receive(&mut self, answer: &mut [u8; ANSWER_MAX]) -> Option<usize> {
        let world = &self.world;
        if world.is_dead.get() {
            return None;
        }
        let (request, room) = self.asked.take()?;
        world.pass(world.delay.get() / 2);
        let (bytes, length) = world
            .script
            .borrow_mut()
            .pop_front()
            .unwrap_or_else(|| honest(world, &request));
        world.pass(world.delay.get() / 2);
        assert!(room <= ANSWER_MAX);
        answer.fill(0xff);
        answer[..bytes.len()].copy_from_slice(&bytes);
        Some(length)
    }
}

fn honest(world: &World, request: &[u8]) -> (Vec<u8>, usize) {
    let kind = u16::from_le_bytes([request[0], request[1]]);
    let mut answer = vec![0; 8];
    if kind == 0x1000 {
        assert_eq!(request.len(), 8);
        let count = u16::try_from(world.faces.borrow().len()).expect("a few");
        answer.extend(u64::from(count).to_le_bytes());
        return (answer, 16);
    }
    assert_eq!(request.len(), 16);
    let clock = usize::from(u16::from_le_bytes([request[8], request[9]]));
    let Some(face) = world.faces.borrow().get(clock).copied() else {
        return (vec![3, 0, 0, 0, 0, 0, 0, 0], 8);
    };
    let time = world.utc.get().wrapping_add_signed(face.ahead);
    match kind {
        0x1001 => answer.extend([face.kind, face.smearing, 0, 0, 0, 0, 0, 0]),
        0x1002 => {
            let crosses = world.crosses.get() && request[10] == 1;
            answer.extend(u64::from(crosses).to_le_bytes());
        }
        0x0001 => answer.extend(time.to_le_bytes()),
        0x0002 if world.crosses.get() => {
            answer.extend(time.to_le_bytes());
            answer.extend(world.ticks.get().to_le_bytes());
        }
        _ => return (vec![2, 0, 0, 0, 0, 0, 0, 0], 8),
    }
    let length = answer.len();
    (answer, length)
}

fn driver(world: &Rc<World>) -> VirtioRtc<Device> {
    let device = Device {
        world: Rc::clone(world),
        asked: None,
    };
    VirtioRtc::new(device, TSC, &"PCI 00:05.0")
}

/// Asks until it is not told to ask again, or to wait.
fn ask(driver: &mut VirtioRtc<Device>) -> Answer {
    for _ in 0..3 {
        let mut answer = driver.ask();
        for _ in 0..100 {
            if answer != Answer::Later {
                break;
            }
            answer = driver.poll();
        }
        if answer != Answer::Again {
            return answer;
        }
    }
    panic!("there is no end to it")
}

fn time(answer: Answer) -> Indication {
    match answer {
        Answer::Time(said) => said,
        other => panic!("{other:?}"),
    }
}

struct Shown(VirtioRtc<Device>);

impl core::fmt::Display for Shown {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.describe(f)
    }
}

fn description(driver: VirtioRtc<Device>) -> String {
    Shown(driver).to_string()
}

#[test]
fn requests_are_the_specified_bytes() {
    for (request, expected) in [
        (Request::Count, &[0, 0x10, 0, 0, 0, 0, 0, 0][..]),
        (
            Request::Kind(0x0201),
            &[1, 0x10, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0],
        ),
        (
            Request::Cross(3, CounterId::ArmVcnt),
            &[2, 0x10, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0],
        ),
        (
            Request::Read(7),
            &[1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0],
        ),
        (
            Request::ReadCross(7, TSC),
            &[2, 0, 0, 0, 0, 0, 0, 0, 7, 0, 1, 0, 0, 0, 0, 0],
        ),
    ] {
        assert_eq!(&request.bytes()[..request.length()], expected);
    }
}

#[test]
fn answers_are_read_or_refused_by_length_and_status() {
    let mut answer = [0; ANSWER_MAX];
    answer[8..16].copy_from_slice(&0x0102_0304_0506_0708_u64.to_le_bytes());
    answer[16..].copy_from_slice(&9_u64.to_le_bytes());
    let crossed = Request::ReadCross(0, TSC);
    assert_eq!(
        crossed.decode(&answer, 24),
        Ok(Said::Crossed(0x0102_0304_0506_0708, Ticks(9)))
    );
    assert_eq!(
        Request::Read(0).decode(&answer, 16),
        Ok(Said::Time(0x0102_0304_0506_0708))
    );
    assert_eq!(Request::Count.decode(&answer, 16), Ok(Said::Count(0x0708)));
    for request in [
        Request::Count,
        Request::Kind(0),
        Request::Cross(0, TSC),
        Request::Read(0),
        crossed,
    ] {
        let full = request.answer_length();
        for written in 0..full {
            assert_eq!(request.decode(&answer, written), Err(Fault::Short));
        }
        for written in [full + 1, 1 << 20, usize::MAX] {
            assert_eq!(request.decode(&answer, written), Err(Fault::Long));
        }
        for (status, fault) in [
            (1, Fault::Status),
            (2, Fault::Unsupported),
            (3, Fault::NoClock),
            (4, Fault::Invalid),
            (5, Fault::Failed),
            (6, Fault::Status),
            (0xff, Fault::Status),
        ] {
            let mut answer = answer;
            answer[0] = status;
            // An error needs no more than the head.
            for written in [8, full] {
                assert_eq!(request.decode(&answer, written), Err(fault));
            }
        }
    }
}

#[test]
fn kinds_of_clocks() {
    for ((kind, smearing), expected) in [
        ((0, 0), Kind::Utc),
        ((0, 1), Kind::Smeared),
        ((1, 0), Kind::Tai),
        ((2, 0), Kind::Other),
        ((3, 0), Kind::Smeared),
        ((3, 1), Kind::Smeared),
        ((3, 2), Kind::Smeared),
        ((3, 77), Kind::Smeared),
        ((4, 0), Kind::Smeared),
        ((5, 0), Kind::Other),
        ((255, 0), Kind::Other),
    ] {
        let mut answer = [0; ANSWER_MAX];
        (answer[8], answer[9]) = (kind, smearing);
        assert_eq!(
            Request::Kind(0).decode(&answer, 16),
            Ok(Said::Kind(expected))
        );
    }
}

#[test]
fn one_utc_clock_is_learned_once_and_then_read() {
    let world = World::new(&[UTC]);
    let mut driver = driver(&world);
    let said = time(ask(&mut driver));
    // At the middle of the way there and back, in the middle of a step of ten microseconds: that is
    // what the scripted clock's zeros allow.
    let SourceTime::Utc(utc) = said.time else {
        panic!("{said:?}")
    };
    let off = utc.since(instant(world.utc.get() - 10_000)).expect("near");
    assert!(said.error.contains(off) && off > Span::ZERO, "{off:?}");
    assert_eq!(said.error.nanos(), 5_001);
    assert_eq!((said.ticks, said.tai_offset, said.leap), (None, None, None));
    for _ in 0..3 {
        time(ask(&mut driver));
    }
    assert_eq!(
        *world.seen.borrow(),
        [0x1000, 0x1001, 0x1002, 1, 1, 1, 1],
        "asked for once"
    );
    assert_eq!(description(driver), "PCI 00:05.0, clock 0 of 1, UTC");
}

#[test]
fn the_step_of_a_clock_is_what_its_zeros_allow() {
    for (ahead, half) in [
        (1, 1),
        (12_345, 1),
        (500, 51),
        (123_456_000, 501),
        (123_450_000, 5_001),
        (7 * SECOND, 500_000_001),
        (7 * SECOND + 1_000_000, 500_001),
    ] {
        let world = World::new(&[UTC]);
        let mut driver = driver(&world);
        time(ask(&mut driver));
        world.say(&honest_time(ahead), 16);
        let said = time(ask(&mut driver));
        assert_eq!(said.error.nanos(), half, "{ahead}");
        let SourceTime::Utc(utc) = said.time else {
            panic!("{said:?}")
        };
        // Both ends of the step are within.
        let off = utc.since(instant(NOON + ahead)).expect("near");
        let step = Span::from_nanos(((half - 1).max(1) * 2 - u64::from(half == 1)).cast_signed());
        assert!(said.error.contains(off), "{ahead}");
        let end = Span::from_units(off.units() - step.units() + 1);
        assert!(said.error.contains(end), "{ahead}");
    }
}

fn instant(nanos: u64) -> Timestamp<Utc> {
    Timestamp::from_parts((nanos / SECOND).cast_signed(), 0)
        .checked_add(Span::from_nanos((nanos % SECOND).cast_signed()))
        .expect("no end of time")
}

#[test]
fn read_cross_names_the_counter_value() {
    let world = World::new(&[UTC]);
    world.crosses.set(true);
    let mut driver = driver(&world);
    let said = time(ask(&mut driver));
    assert_eq!(said.ticks, Some(Ticks(world.ticks.get() - 10_000)));
    assert_eq!(world.seen.borrow().last(), Some(&2));
    // It may come to an end, and then there is the other way, in the same question.
    world.crosses.set(false);
    assert_eq!(time(ask(&mut driver)).ticks, None);
    world.crosses.set(true);
    assert_eq!(time(ask(&mut driver)).ticks, None, "not tried again");
    world.seen.borrow_mut().clear();
    // A clock that cannot be read now is not one that cannot be read so.
    let mut driver = self::driver(&world);
    time(ask(&mut driver));
    world.status(5);
    assert_eq!(ask(&mut driver), Answer::Silence(Fault::Failed.words()));
    assert!(time(ask(&mut driver)).ticks.is_some());
    assert_eq!(
        description(driver),
        "PCI 00:05.0, clock 0 of 1, UTC, crossed"
    );
}

#[test]
fn the_best_clock_is_chosen() {
    let smeared_tai = [SMEARED, TAI, MONOTONIC];
    for (faces, clock, about) in [
        (&[MONOTONIC, SMEARED, UTC][..], 2, "UTC"),
        (&[MONOTONIC, SMEARED], 1, "UTC, perhaps smeared"),
        (&[MONOTONIC, UTC, TAI], 2, "TAI"),
        (&smeared_tai, 0, "UTC, perhaps smeared"),
        (&[MONOTONIC, TAI], 1, "TAI"),
    ] {
        let world = World::new(faces);
        let mut driver = driver(&world);
        let said = time(ask(&mut driver));
        let shown = match said.time {
            SourceTime::Tai(_) => "TAI",
            SourceTime::Utc(_) => "UTC",
            SourceTime::PerhapsSmeared(_) => "UTC, perhaps smeared",
        };
        assert_eq!(shown, about);
        let both = faces.iter().any(|face| face.kind == 0) && shown == "TAI";
        assert_eq!(said.tai_offset, both.then_some(37));
        let count = faces.len();
        assert_eq!(
            description(driver),
            format!("PCI 00:05.0, clock {clock} of {count}, {about}")
        );
    }
    for faces in [&[MONOTONIC][..], &[]] {
        let mut driver = driver(&World::new(faces));
        assert!(matches!(ask(&mut driver), Answer::Silence(_)));
        assert_eq!(description(driver), "PCI 00:05.0");
    }
}

#[test]
fn tai_that_is_utc_is_found_out() {
    let world = World::new(&[Face { ahead: 0, ..TAI }, UTC]);
    let mut driver = driver(&world);
    let said = time(ask(&mut driver));
    assert!(matches!(said.time, SourceTime::Utc(_)), "{said:?}");
    assert_eq!(said.tai_offset, None);
    assert_eq!(
        description(driver),
        "PCI 00:05.0, clock 1 of 2, UTC; clock 0 is no TAI"
    );
}

#[test]
fn clocks_that_contradict_each_other_tell_nothing() {
    for ahead in [
        -37_000_000_000, // the names are swapped, or the sign
        1_000_000_000,
        9_000_000_000,
        61_000_000_000,
        37_500_000_000,
        -500_000_000,
        i64::MAX / 2,
    ] {
        let mut driver = driver(&World::new(&[UTC, Face { ahead, ..TAI }]));
        let answer = ask(&mut driver);
        assert!(
            matches!(answer, Answer::Silence(why) if why.contains("contradict")),
            "{ahead} {answer:?}"
        );
    }
    // A second on the way is no second of the clocks'.
    let world = World::new(&[UTC, TAI]);
    let mut driver = driver(&world);
    time(ask(&mut driver));
    for delay in [500_000, 1_000_000, 2_000_000] {
        world.delay.set(delay);
        let answer = ask(&mut driver);
        assert!(
            matches!(answer, Answer::Silence(why) if why.contains("far apart")),
            "{answer:?}"
        );
    }
    world.delay.set(100_000);
    assert_eq!(time(ask(&mut driver)).tai_offset, Some(37));
    // A leap second: the next answer has the new offset.
    world.faces.borrow_mut()[1].ahead += 1_000_000_000;
    assert_eq!(time(ask(&mut driver)).tai_offset, Some(38));
}

#[test]
fn a_clock_of_the_seventies_is_no_time_of_day() {
    let up = |seconds: i64| Face {
        ahead: seconds * 1_000_000_000 - NOON.cast_signed(),
        ..UTC
    };
    for seconds in [0, 1, 86_400 * 365 * 9] {
        let mut driver = driver(&World::new(&[up(seconds)]));
        assert!(matches!(ask(&mut driver), Answer::Silence(_)));
    }
    time(ask(&mut driver(&World::new(&[up(86_400 * 365 * 11)]))));
}

#[test]
fn faults_are_told_and_got_over() {
    let world = World::new(&[UTC]);
    let mut driver = driver(&world);
    for fault in [
        Fault::Unsupported,
        Fault::NoClock,
        Fault::Invalid,
        Fault::Failed,
        Fault::Status,
        Fault::Short,
        Fault::Long,
    ] {
        let give = || match fault {
            Fault::Unsupported => world.status(2),
            Fault::NoClock => world.status(3),
            Fault::Invalid => world.status(4),
            Fault::Failed => world.status(5),
            Fault::Status => world.status(99),
            Fault::Short => world.say(&[0; 15], 15),
            Fault::Long => world.say(&[0; 24], usize::MAX),
        };
        // While learning and later.
        for _ in 0..2 {
            give();
            assert_eq!(ask(&mut driver), Answer::Silence(fault.words()));
            time(ask(&mut driver));
        }
    }
    // What was learned is learned anew when the device does not know the clock any more.
    world.seen.borrow_mut().clear();
    world.faces.borrow_mut().insert(0, MONOTONIC);
    world.status(3);
    assert_eq!(ask(&mut driver), Answer::Silence(Fault::NoClock.words()));
    time(ask(&mut driver));
    assert_eq!(*world.seen.borrow(), [1, 0x1000, 0x1001, 0x1001, 0x1002, 1]);
    assert_eq!(description(driver), "PCI 00:05.0, clock 1 of 2, UTC");
}

#[test]
fn a_clock_that_does_not_say_what_it_is_is_passed_over() {
    let world = World::new(&[SMEARED, UTC, SMEARED]);
    let mut driver = driver(&world);
    world.say(&[0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0], 16);
    world.status(5);
    let said = time(ask(&mut driver));
    // What the count, the scripted one, was short of is not looked at.
    assert!(matches!(said.time, SourceTime::Utc(_)), "{said:?}");
}

#[test]
fn many_clocks_are_not_many_questions() {
    let mut faces = vec![MONOTONIC; 40_000];
    faces[3] = UTC;
    faces[30] = TAI;
    let world = World::new(&faces);
    let mut driver = driver(&world);
    assert!(matches!(time(ask(&mut driver)).time, SourceTime::Utc(_)));
    assert_eq!(world.seen.borrow().len(), 1 + 16 + 1 + 1);
}

#[test]
fn a_late_answer_to_an_old_question_is_dropped() {
    let world = World::new(&[UTC]);
    let mut driver = driver(&world);
    time(ask(&mut driver));
    world.is_dead.set(true);
    assert_eq!(driver.ask(), Answer::Later);
    assert_eq!(driver.poll(), Answer::Later);
    // Asked anew, with the first one still under way: nothing is sent on top of it.
    assert_eq!(driver.ask(), Answer::Later);
    let asked = world.seen.borrow().len();
    world.is_dead.set(false);
    world.say(&honest_time(5 * SECOND), 16);
    assert_eq!(driver.poll(), Answer::Later, "the old answer");
    assert_eq!(world.seen.borrow().len(), asked + 1);
    let SourceTime::Utc(utc) = time(driver.poll()).time else {
        panic!("UTC")
    };
    let off = utc.since(instant(world.utc.get())).expect("near");
    assert!(Bound::from_nanos(20_000).contains(off), "{off:?}");
    // Whatever is said when nothing was asked.
    assert!(matches!(driver.poll(), Answer::Silence(_)));
}

fn honest_time(ahead: u64) -> Vec<u8> {
    let mut answer = vec![0; 8];
    answer.extend((NOON + ahead).to_le_bytes());
    answer
}

/// The world with a service's clock and page in it.
struct Rig {
    world: Rc<World>,
    writer: Writer<&'static VmclockPage>,
    clock: Clock<'static, Tsc>,
    sources: Sources<'static>,
    uptime: Duration,
}

struct Tsc(Rc<World>);

impl Counter for Tsc {
    const ID: CounterId = TSC;
    fn read(&self) -> Ticks {
        self.0.pass(1);
        Ticks(self.0.ticks.get())
    }
}

impl Rig {
    fn new(faces: &[Face]) -> Self {
        let world = World::new(faces);
        let page: &'static VmclockPage = Box::leak(Box::new(VmclockPage::new(&Fields::stock())));
        let driver: &'static mut dyn Driver = Box::leak(Box::new(driver(&world)));
        let drivers = Box::leak(Box::new([driver]));
        Self {
            clock: Clock::new(Some(page), Tsc(Rc::clone(&world))),
            writer: Writer::new(page, 0),
            sources: Sources::new(Choice::AUTO, Box::leak(Box::default()), drivers, &[]),
            world,
            uptime: Duration::ZERO,
        }
    }

    fn pass(&mut self, millis: u64) {
        for _ in 0..millis {
            self.world.pass(1000);
            self.uptime += Duration::from_millis(1);
            self.sources
                .follow(&mut self.clock, Some(self.uptime), || None);
        }
    }

    /// Truth is within the bound, whenever there is time; returns whether there is.
    #[track_caller]
    fn is_right(&mut self) -> bool {
        let Ok(reading) = self.clock.reading() else {
            return false;
        };
        let truth = instant(self.world.utc.get());
        let off = reading.utc.expect("UTC").time.since(truth).expect("near");
        assert!(reading.bound.contains(off), "{off:?} ± {:?}", reading.bound);
        true
    }

    /// Lets time pass until there is time again, which must always be right, and returns how
    /// long that took in milliseconds.
    #[track_caller]
    fn until_right(&mut self) -> u64 {
        for millis in 0..10_000 {
            if self.is_right() {
                return millis;
            }
            self.pass(1);
        }
        panic!("{:?}", self.sources.table())
    }

    fn state(&self) -> State {
        let entries = self.sources.table().entries();
        let mut mine = entries.filter(|entry| entry.source == Source::VirtioRtc);
        mine.next().expect("each has one").state
    }

    /// The machine's memory with everything in it runs on elsewhere, where it is later and the counter
    /// is another one.
    fn restore(&mut self, later: u64, ticks: impl FnOnce(u64) -> u64, rate: u64) {
        let world = &self.world;
        world.utc.set(world.utc.get() + later);
        world.ticks.set(ticks(world.ticks.get()));
        world.rate.set(rate);
        let marker = self.clock.stamp().marker + 1;
        self.writer
            .publish(&Fields {
                disruption_marker: marker,
                ..Fields::stock()
            })
            .expect("a page");
    }
}

#[test]
fn a_page_with_a_marker_only_has_right_time() {
    for faces in [&[UTC][..], &[UTC, TAI], &[SMEARED]] {
        for crosses in [false, true] {
            let mut rig = Rig::new(faces);
            rig.world.crosses.set(crosses);
            assert!(!rig.is_right());
            let millis = rig.until_right();
            assert!(millis <= 20, "{millis}");
            for _ in 0..3000 {
                rig.pass(1);
                assert!(rig.is_right());
            }
            let reading = rig.clock.reading().expect("time");
            assert_eq!(reading.origin, Origin::Own(Source::VirtioRtc));
            assert!(reading.bound < Bound::from_nanos(1_000_000), "{reading:?}");
        }
    }
}

#[test]
fn snapshot_restored_an_hour_later_never_tells_the_time_of_the_snapshot() {
    const HOUR: u64 = 3600 * SECOND;
    const RATES: [u64; 4] = [1000, 1001, 2600, 62];
    for rate in RATES {
        for ticks in [
            |ticks| ticks,
            |_| 0,
            |ticks: u64| ticks + (1 << 45),
            |ticks: u64| ticks - 1,
        ] {
            let mut rig = Rig::new(&[UTC]);
            rig.pass(2000);
            assert!(rig.is_right());
            rig.restore(HOUR, ticks, rate);
            // The very first answer.
            let why = rig
                .clock
                .now()
                .expect_err("the line is of the other machine");
            assert!(
                matches!(why, NoTime::Unusable { stepped: true, .. }),
                "{why}"
            );
            let millis = rig.until_right();
            assert!(millis <= 20, "{millis}");
            for _ in 0..1000 {
                rig.pass(1);
                assert!(rig.is_right());
            }
            assert_eq!(rig.sources.table().alarms(), 0);
        }
    }
}

#[test]
fn a_question_under_way_at_a_snapshot_brings_no_old_time() {
    let mut rig = Rig::new(&[UTC]);
    rig.pass(500);
    rig.world.is_dead.set(true);
    rig.pass(300);
    // The old host's answer is in the ring when the machine goes on.
    let old = rig.world.utc.get() - NOON;
    rig.restore(3600 * SECOND, |ticks| ticks, 1000);
    rig.world.say(&honest_time(old), 16);
    rig.world.is_dead.set(false);
    assert!(!rig.is_right());
    rig.until_right();
    for _ in 0..1000 {
        rig.pass(1);
        assert!(rig.is_right());
    }
}

#[test]
fn a_silent_device_is_said_to_be_one() {
    let mut rig = Rig::new(&[UTC]);
    rig.world.is_dead.set(true);
    rig.pass(1500);
    assert_eq!(rig.state(), State::Silent("no answer"));
    rig.world.is_dead.set(false);
    rig.until_right();
    // Time stands on while it lasts, and is true.
    rig.world.is_dead.set(true);
    for _ in 0..60 {
        rig.pass(1000);
        assert!(rig.is_right());
    }
}

#[test]
fn a_counter_value_from_outside_the_question_is_not_believed() {
    let mut rig = Rig::new(&[UTC]);
    rig.world.crosses.set(true);
    rig.pass(100);
    assert!(rig.is_right());
    for ticks in [0, u64::MAX, rig.world.ticks.get() - 1_000_000] {
        let mut answer = honest_time(rig.world.utc.get() - NOON);
        answer.extend(ticks.to_le_bytes());
        rig.world.say(&answer, 24);
        rig.pass(400);
        assert!(rig.is_right());
    }
}

/// Whatever the device says, no answer is of another day, none is endless, nothing panics.
#[test]
fn random_answers() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for _ in 0..300 {
        let world = World::new(&[UTC, TAI, SMEARED]);
        world.crosses.set(next() % 2 == 0);
        let mut driver = driver(&world);
        for _ in 0..60 {
            if next() % 3 == 0 {
                let mut bytes = vec![0; 24];
                for chunk in bytes.chunks_exact_mut(8) {
                    chunk.copy_from_slice(&(next() >> (next() % 64)).to_le_bytes());
                }
                if next() % 2 == 0 {
                    bytes[..8].fill(0);
                }
                world.say(&bytes, usize::try_from(next() % 30).expect("small"));
            }
            let mut answer = driver.ask();
            for _ in 0..100 {
                if answer != Answer::Later {
                    break;
                }
                answer = driver.poll();
            }
            assert_ne!(answer, Answer::Later);
            if let Answer::Time(said) = answer {
                assert!(
                    said.tai_offset
                        .is_none_or(|offset| (10..=60).contains(&offset))
                );
            }
        }
    }
}
