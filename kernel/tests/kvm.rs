//! The host's clock by KVM's services, against scripted hosts: their structures, their denials, the arithmetic of
//! their pages, and whether the truth is always within what is claimed.

use core::cell::Cell;
use core::fmt;
use core::sync::atomic::Ordering::Relaxed;

use gnomon_clock::{Bound, Bracket, ClockStatus, SourceTime, Stamp, Ticks, Timestamp, Utc};
use gnomon_kernel::source::kvm::{KvmClock, KvmHost, KvmPairing, KvmPtp, Shared};
use gnomon_kernel::source::{Answer, Driver, Indication};
use proptest::prelude::*;

/// 2026-11-20 12:05:31 in ns, when the counter was zero.
const NOON: u64 = 1_795_176_331_000_000_000;
const SECOND: u64 = 1_000_000_000;

/// A host whose wall clock goes on by a nanosecond a tick, from noon. The guest's counter is that count.
struct World {
    ticks: Cell<u64>,
    shared: Shared,
    /// What a hypercall gives, and writes if it writes.
    rax: i64,
    pairing: Option<[u64; 4]>,
    /// The system time page: reference, multiplier, shift and flags, and what the host thinks that the
    /// system time was at the reference.
    page: Page,
    /// How long the host takes to write the wall clock, and at which points of that it reads its two clocks.
    takes: u64,
    reads: [u64; 2],
    /// How much slower system time, as the host reads it, is than real time, in 10⁻⁹.
    slow: u64,
    writes_wall: bool,
    wall_nanos: Option<u32>,
    /// After so many readings of the counter the host writes the page, each time.
    restless: bool,
}

#[derive(Clone, Copy)]
struct Page {
    counter: u64,
    nanos: u64,
    multiplier: u32,
    shift: i8,
    flags: u8,
}

impl World {
    fn new() -> Self {
        Self {
            ticks: Cell::new(50 * SECOND),
            shared: Shared::new(),
            rax: 0,
            pairing: None,
            page: Page {
                counter: 49 * SECOND,
                nanos: 7 * SECOND,
                // A nanosecond a tick.
                multiplier: 1 << 31,
                shift: 1,
                flags: 1,
            },
            takes: 10_000,
            reads: [4_000, 6_000],
            slow: 0,
            writes_wall: true,
            wall_nanos: None,
            restless: false,
        }
    }

    fn publish(&self) {
        let Page {
            counter,
            nanos,
            multiplier,
            shift,
            flags,
        } = self.page;
        let version = self.shared.system[0].load(Relaxed) & !1;
        let low = |wide: u64| u32::try_from(wide & 0xffff_ffff).expect("half");
        let high = |wide: u64| low(wide >> 32);
        let words = [
            version.wrapping_add(2),
            0xdead_beef,
            low(counter),
            high(counter),
            low(nanos),
            high(nanos),
            multiplier,
            u32::from_le_bytes([shift.cast_unsigned(), flags, 0xaa, 0x55]),
        ];
        for (place, word) in self.shared.system.iter().zip(words) {
            place.store(word, Relaxed);
        }
    }

    /// What the host reads for system time.
    fn system_time(&self, ticks: u64) -> u64 {
        let passed = ticks - self.page.counter;
        self.page.nanos + passed
            - u64::try_from(u128::from(passed) * u128::from(self.slow) / u128::from(SECOND))
                .expect("less")
    }
}

impl KvmHost for &mut World {
    fn pair(&mut self) -> i64 {
        self.ticks.set(self.ticks.get() + 500);
        if let Some(words) = self.pairing {
            for (place, word) in self.shared.pairing.iter().zip(words) {
                place.store(word, Relaxed);
            }
        }
        self.ticks.set(self.ticks.get() + 500);
        self.rax
    }

    fn write_wall_clock(&mut self) {
        let before = self.ticks.get();
        self.ticks.set(before + self.takes);
        if !self.writes_wall {
            return;
        }
        let [real, system] = self.reads.map(|at| before + at);
        let wall = NOON + real - self.system_time(system);
        let version = self.shared.wall[0].load(Relaxed);
        let nanos = u32::try_from(wall % SECOND).expect("below a second");
        for (place, word) in self.shared.wall.iter().zip([
            version.wrapping_add(2),
            u32::try_from(wall / SECOND).expect("until 2106"),
            self.wall_nanos.unwrap_or(nanos),
            0x1234_5678,
        ]) {
            place.store(word, Relaxed);
        }
    }

    fn write_system_time(&mut self) {
        self.ticks.set(self.ticks.get() + 2_000);
        self.publish();
    }

    fn counter(&self) -> Ticks {
        self.ticks.set(self.ticks.get() + 20);
        if self.restless {
            self.publish();
        }
        Ticks(self.ticks.get())
    }

    fn shared(&self) -> &Shared {
        &self.shared
    }
}

fn instant(nanos: u64) -> Timestamp<Utc> {
    let fraction = (u128::from(nanos % SECOND) << 64) / u128::from(SECOND);
    Timestamp::from_parts(
        i64::try_from(nanos / SECOND).expect("fits"),
        u64::try_from(fraction).expect("a fraction"),
    )
}

fn time(answer: Answer) -> Indication {
    match answer {
        Answer::Time(said) => said,
        other => panic!("{other:?}"),
    }
}

/// The time said, which carries no more than it may.
fn utc(said: &Indication) -> Timestamp<Utc> {
    assert_eq!((said.tai_offset, said.leap), (None, None));
    assert_eq!(said.status, ClockStatus::Freerunning);
    match said.time {
        SourceTime::PerhapsSmeared(time) => time,
        other => panic!("{other:?}"),
    }
}

struct Described<'a>(&'a dyn Driver);

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.describe(f)
    }
}

#[test]
fn clock_pairing_names_the_counter() {
    let mut world = World::new();
    world.pairing = Some([NOON / SECOND + 50, 600, 50 * SECOND + 600, 0]);
    let said = time(KvmPairing(&mut world).ask());
    assert_eq!(said.ticks, Some(Ticks(50 * SECOND + 600)));
    let off = utc(&said)
        .since(instant(NOON + 50 * SECOND + 600))
        .expect("near");
    assert!(said.error.contains(off) && said.error <= Bound::from_nanos(2));
    assert_eq!(
        Described(&KvmPairing(&mut world)).to_string(),
        "clock pairing, UTC, perhaps smeared"
    );
}

#[test]
fn clock_pairing_is_decoded_totally() {
    let good = [NOON / SECOND, 999_999_999, 50 * SECOND, 0];
    let says = |rax, pairing| {
        let mut world = World {
            rax,
            pairing,
            ..World::new()
        };
        match KvmPairing(&mut world).ask() {
            Answer::Silence(why) => why,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(says(-1000, None), "KVM does not know clock pairing");
    assert_eq!(says(-1000, Some(good)), "KVM does not know clock pairing");
    assert_eq!(says(-95, None), "the host's clock does not run on the TSC");
    for rax in [-14, -1, 1, i64::MIN, i64::MAX, 0xffff_ffa1] {
        assert_eq!(says(rax, Some(good)), "KVM refuses clock pairing");
    }
    // Success, and nothing written: not even what an earlier call has left there.
    assert_eq!(says(0, None), "its answer is of an unknown kind");
    let mut world = World {
        pairing: Some(good),
        ..World::new()
    };
    time(KvmPairing(&mut world).ask());
    world.pairing = None;
    let silence = Answer::Silence("its answer is of an unknown kind");
    assert_eq!(KvmPairing(&mut world).ask(), silence);
    let [seconds, nanos, ticks, _] = good;
    for (words, why) in [
        ([seconds, SECOND, ticks, 0], "it tells no time of day"),
        ([seconds, u64::MAX, ticks, 0], "it tells no time of day"),
        ([1 << 63, nanos, ticks, 0], "it tells no time of day"),
        ([u64::MAX, nanos, ticks, 0], "it tells no time of day"),
        (
            [seconds, nanos, ticks, 1],
            "its answer is of an unknown kind",
        ),
        (
            [seconds, nanos, ticks, 1 << 31],
            "its answer is of an unknown kind",
        ),
    ] {
        assert_eq!(says(0, Some(words)), why);
    }
    // The upper half of the flags' word is not theirs.
    world.pairing = Some([seconds, nanos, ticks, 1 << 32]);
    time(KvmPairing(&mut world).ask());
}

#[test]
fn the_ptp_call_names_the_virtual_counter() {
    let nanos = NOON + 12_345;
    let words = [nanos >> 32, nanos & 0xffff_ffff, 0x12, 0x3456_789a];
    let mut calls = Vec::new();
    let mut ptp = KvmPtp(|call: [u64; 4]| {
        calls.push(call);
        words
    });
    let said = time(ptp.ask());
    assert_eq!(
        Described(&ptp).to_string(),
        "PTP call, UTC, perhaps smeared"
    );
    assert_eq!(said.ticks, Some(Ticks(0x12_3456_789a)));
    let off = utc(&said).since(instant(nanos)).expect("near");
    assert!(said.error.contains(off) && said.error <= Bound::from_nanos(2));
    // The virtual counter is asked for.
    assert_eq!(calls, [[0x8600_0001, 0, 0, 0]]);
    for no in [u64::MAX, 0xffff_ffff, 0x1234_5678_ffff_ffff] {
        let mut ptp = KvmPtp(|_| [no, 0, 0, 0]);
        let why = "KVM denies it, or the host's clock does not run on the counter";
        assert_eq!(ptp.ask(), Answer::Silence(why));
    }
}

#[test]
fn kvmclock_is_the_sum_of_its_two_pages() {
    let mut world = World::new();
    let said = time(KvmClock::new(&mut world, true).ask());
    let ticks = said.ticks.expect("named").0;
    let off = utc(&said).since(instant(NOON + ticks)).expect("near");
    assert!(said.error.contains(off), "{off:?}");
    // 10 µs for the writing, two looks at the counter, a second since the reference times 4·10⁻⁶, and 4 ns.
    let nanos = said.error.nanos();
    assert!((14_000..14_100).contains(&nanos), "{nanos}");
    // Not stable, or not to be believed: a thousandth of that second.
    for (flags, flag_is_true) in [(0, true), (1, false), (2, true)] {
        let mut world = World::new();
        world.page.flags = flags;
        let said = time(KvmClock::new(&mut world, flag_is_true).ask());
        assert!((1_010_000..1_010_100).contains(&said.error.nanos()));
    }
    let mut world = World::new();
    assert_eq!(
        Described(&KvmClock::new(&mut world, true)).to_string(),
        "wall clock + system time, UTC, perhaps smeared"
    );
}

#[test]
fn kvmclock_is_refreshed_with_each_question() {
    let mut world = World::new();
    time(KvmClock::new(&mut world, true).ask());
    let version = world.shared.wall[0].load(Relaxed);
    // The host's clock is not the system time's slave: it was set by a second.
    world.page.nanos -= SECOND;
    world.ticks.set(world.ticks.get() + 3600 * SECOND);
    let said = time(KvmClock::new(&mut world, true).ask());
    assert_ne!(world.shared.wall[0].load(Relaxed), version);
    let ticks = said.ticks.expect("named").0;
    let off = utc(&said).since(instant(NOON + ticks)).expect("near");
    assert!(said.error.contains(off));
}

#[test]
fn kvmclock_that_makes_no_sense_is_refused() {
    let says = |change: &dyn Fn(&mut World)| {
        let mut world = World::new();
        change(&mut world);
        match KvmClock::new(&mut world, true).ask() {
            Answer::Silence(why) => why,
            other => panic!("{other:?}"),
        }
    };
    let nonsense = "its page makes no sense with the counter";
    assert_eq!(says(&|world| world.page.multiplier = 0), nonsense);
    assert_eq!(says(&|world| world.page.shift = 64), nonsense);
    assert_eq!(says(&|world| world.page.shift = 127), nonsense);
    assert_eq!(says(&|world| world.page.shift = -64), nonsense);
    assert_eq!(says(&|world| world.page.shift = -128), nonsense);
    assert_eq!(says(&|world| world.page.shift = 40), nonsense);
    assert_eq!(
        says(&|world| world.restless = true),
        "its page does not stand still"
    );
    let deaf = "KVM does not write the wall clock";
    assert_eq!(says(&|world| world.writes_wall = false), deaf);
    let no_time = "it tells no time of day";
    assert_eq!(
        says(&|world| world.wall_nanos = Some(1_000_000_000)),
        no_time
    );
    assert_eq!(says(&|world| world.wall_nanos = Some(u32::MAX)), no_time);
}

/// A host that never ends writing, on either page.
#[test]
fn kvmclock_with_an_odd_version_is_given_up() {
    struct Odd(Shared, Cell<u64>, [u32; 2]);
    impl KvmHost for Odd {
        fn pair(&mut self) -> i64 {
            0
        }
        fn write_wall_clock(&mut self) {
            self.0.wall[0].store(self.2[0], Relaxed);
        }
        fn write_system_time(&mut self) {
            self.0.system[0].store(self.2[1], Relaxed);
            self.0.system[6].store(1 << 31, Relaxed);
        }
        fn counter(&self) -> Ticks {
            self.1.set(self.1.get() + 1);
            assert!(self.1.get() < 1000, "no end of trying");
            Ticks(self.1.get())
        }
        fn shared(&self) -> &Shared {
            &self.0
        }
    }
    for versions in [[1, 2], [2, 1], [u32::MAX, 2], [2, u32::MAX]] {
        let mut clock = KvmClock::new(Odd(Shared::new(), Cell::new(0), versions), true);
        assert_eq!(
            clock.ask(),
            Answer::Silence("its page does not stand still")
        );
    }
    let mut clock = KvmClock::new(Odd(Shared::new(), Cell::new(0), [2, 2]), true);
    time(clock.ask());
}

proptest! {
    /// Whenever the host reads its two clocks, and however its system time is off the page's within what is
    /// said, the truth is inside, and the counter value inside the question.
    #[test]
    fn kvmclock_claims_no_more_than_it_knows(
        takes in 0..2_000_000_u64,
        reads: [u16; 2],
        age in 0..100_000_000_000_u64,
        is_stable: bool,
        slow in 0..1_u64 << 20,
    ) {
        let mut world = World::new();
        world.takes = takes;
        world.reads = reads.map(|at| takes * u64::from(at) / u64::from(u16::MAX));
        world.page.counter = 1000 * SECOND - age;
        world.page.flags = u8::from(is_stable);
        world.slow = slow % if is_stable { 4_000 } else { 1_000_000 };
        world.ticks.set(1000 * SECOND);
        let before = Stamp { ticks: Ticks(world.ticks.get()), marker: 0 };
        let said = time(KvmClock::new(&mut world, true).ask());
        let after = Stamp { ticks: Ticks(world.ticks.get()), marker: 0 };
        let ticks = said.ticks.expect("named");
        let bracket = Bracket::new(before, after).expect("forward");
        prop_assert!(bracket.narrowed(ticks).is_some());
        let off = utc(&said).since(instant(NOON + ticks.0)).expect("near");
        prop_assert!(said.error.contains(off), "{:?} ± {:?}", off, said.error);
    }

    /// Any bytes in the pages give a time or a reason.
    #[test]
    fn any_pages_are_borne(system: [u32; 8], wall: [u32; 4], pairing: [u64; 8], ticks: u64, rax in -1..1_i64) {
        struct Any { shared: Shared, system: [u32; 8], wall: [u32; 4], pairing: [u64; 8], ticks: u64, rax: i64 }
        impl KvmHost for &Any {
            fn pair(&mut self) -> i64 {
                for (place, word) in self.shared.pairing.iter().zip(self.pairing) {
                    place.store(word, Relaxed);
                }
                self.rax
            }
            fn write_wall_clock(&mut self) {
                for (place, word) in self.shared.wall.iter().zip(self.wall) {
                    place.store(word, Relaxed);
                }
            }
            fn write_system_time(&mut self) {
                for (place, word) in self.shared.system.iter().zip(self.system) {
                    place.store(word, Relaxed);
                }
            }
            fn counter(&self) -> Ticks {
                Ticks(self.ticks)
            }
            fn shared(&self) -> &Shared {
                &self.shared
            }
        }
        let mut system = system;
        system[0] &= !1;
        let any = Any { shared: Shared::new(), system, wall, pairing, ticks, rax };
        for answer in [KvmPairing(&any).ask(), KvmClock::new(&any, true).ask()] {
            prop_assert!(matches!(answer, Answer::Time(_) | Answer::Silence(_)));
        }
    }
}
