//! What the publisher writes while a simulated host's clock is steered: at every moment a guest's
//! reading contains the truth, and no page contradicts what readers of the pages before were told.

use std::collections::VecDeque;

use gnomon_clock::{CounterId, Fields, Reading, Span, Tai, Ticks, Timeline, Timestamp};
use gnomon_qemu::estimate::{Outcome, Tracker};
use gnomon_qemu::host::{Kernel, Leap, Phase, Sample};
use gnomon_qemu::mapping::{GuestCounter, Mapping};
use gnomon_qemu::page::{self, PAGES, Promises, REMEMBERED, Scale};

const HERTZ: u64 = 2_400_000_000;
const MS: u64 = HERTZ / 1000;
const MAPPING: Mapping = Mapping {
    guest: GuestCounter::TSC,
    offset: 0x0123_4567_89ab_cdef,
    radius: 0,
    slot: None,
};

/// A host's counter, and its clock that is steered at random moments.
struct Host {
    counter: u64,
    /// In 2⁻⁶⁴ s.
    clock: i128,
    ppb: i64,
    /// Ticks until the rate changes.
    steady: u64,
    /// Rates lie within ± this, in ppb.
    band: u64,
    /// A rate holds for less than this, in ticks.
    longest: u64,
    noise: u64,
}

impl Host {
    fn new(seed: u64, band: u64, longest: u64) -> Self {
        let mut host = Self {
            counter: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            clock: i128::from(1_800_000_000 + seed % 1000) << 64,
            ppb: 0,
            steady: 0,
            band,
            longest,
            noise: seed,
        };
        host.steer();
        host
    }

    fn random(&mut self, below: u64) -> u64 {
        self.noise = self
            .noise
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.noise >> 20) % below
    }

    fn steer(&mut self) {
        self.steady = 1 + self.random(self.longest);
        self.ppb = self.random(2 * self.band + 1).cast_signed() - self.band.cast_signed();
    }

    fn run(&mut self, ticks: u64) {
        let mut left = ticks;
        while left > 0 {
            let part = left.min(self.steady);
            let nominal = (i128::from(part) << 64) / i128::from(HERTZ);
            self.clock += nominal + nominal * i128::from(self.ppb) / 1_000_000_000;
            self.counter = self.counter.wrapping_add(part);
            self.steady -= part;
            left -= part;
            if self.steady == 0 {
                self.steer();
            }
        }
    }

    fn now(&self) -> Timestamp<Tai> {
        Timestamp::from_parts(0, 0)
            .checked_add(Span::from_units(self.clock))
            .expect("in range")
    }

    /// A reading of 40 to 400 ticks that is off by up to half of that, and truncated to 1 ns.
    fn sample(&mut self) -> Sample {
        let width = 40 + self.random(360);
        let before = self.counter;
        let at = self.random(width + 1);
        self.run(at);
        let now = self.now();
        self.run(width - at);
        let nanos = Span::from_nanos(now.nanos().into());
        let time = Timestamp::from_parts(now.seconds(), 0).checked_add(nanos);
        Sample {
            counter: before.wrapping_add(width / 2),
            radius: width.div_ceil(2),
            time: time.expect("in range"),
            offset: Some(37),
            kernel: Kernel {
                utc: 0,
                leap: Leap::None,
                phase: Phase::Ahead,
                tai: 37,
                synchronised: false,
                maxerror_us: 16_000_000,
                esterror_us: 16_000_000,
            },
        }
    }

    /// How far beyond its bound the reading of this page is now, in nanoseconds.
    fn beyond(&self, page: &Fields) -> i128 {
        let told = read(page, self.guest_counter());
        let off = self.now().since(told.tai.expect("known")).expect("near");
        let bound = Span::from_units(told.bound.units().cast_signed());
        Span::from_units(off.abs().units() - bound.units()).as_nanos_floor() + 1
    }

    fn guest_counter(&self) -> u64 {
        self.counter.wrapping_add(MAPPING.offset)
    }
}

fn read(page: &Fields, counter: u64) -> Reading {
    let line = Timeline::from_page(page, CounterId::X86Tsc).expect("usable");
    line.at(Ticks(counter)).expect("in range")
}

/// A reader that remembers what it was told under the last few pages, at a few counter values each.
#[derive(Default)]
struct Reader(VecDeque<Vec<Reading>>);

impl Reader {
    fn new_page(&mut self, page: &Fields) {
        for told in self.0.iter().flatten() {
            let now = read(page, told.ticks.0);
            let apart = now.tai.expect("known").since(told.tai.expect("known"));
            let apart = apart.expect("near");
            assert!(
                told.bound.contains(apart),
                "{apart:?} outside what was told: {told:?}, {now:?}"
            );
        }
        let new = read(page, page.counter_value);
        self.0.push_front(vec![new]);
        self.0.truncate(*PAGES.end());
        let age = |old: &Reading| new.tai.expect("known").since(old.tai.expect("known"));
        while self.0.len() > *PAGES.start()
            && self
                .0
                .back()
                .is_some_and(|old| age(&old[0]) > Some(REMEMBERED))
        {
            self.0.pop_back();
        }
    }

    fn look(&mut self, page: &Fields, counter: u64) {
        if let Some(told) = self.0.front_mut() {
            told.push(read(page, counter));
        }
    }
}

/// What a run has seen.
#[derive(Debug, Default)]
struct Seen {
    updates: u32,
    steps: u32,
    reconciled: u32,
    kept: u32,
    /// Greatest errors of reference instants in ns, to be sorted.
    widths: Vec<u64>,
    /// Farthest outside the bound, in ns.
    beyond: i128,
}

/// Plays the publisher's part for a while, with `delay` ticks from update to update.
fn publish(host: &mut Host, updates: u32, mut delay: impl FnMut(&mut Host) -> u64) -> Seen {
    let (mut tracker, mut promises) = (Tracker::default(), Promises::default());
    let (mut reader, mut page) = (Reader::default(), None::<Fields>);
    let mut seen = Seen::default();
    for _ in 0..updates {
        let sample = host.sample();
        // The writer is held up between the sample and the page.
        let held = host.random(MS / 5);
        host.run(held);
        match tracker.observe(&sample) {
            Outcome::Calibrating => {}
            Outcome::Stepped => {
                promises.forget();
                (reader, page) = (Reader::default(), None);
                seen.steps += 1;
            }
            Outcome::Tracked(estimate) => {
                let wanted = page::valid(&estimate, &sample, &MAPPING, Scale::Tai);
                if let Some(fields) = promises.reconcile(&wanted) {
                    seen.reconciled += u32::from(fields != wanted);
                    promises.note(&fields);
                    reader.new_page(&fields);
                    page = Some(fields);
                    seen.updates += 1;
                    seen.widths.push(fields.time_maxerror_nanosec);
                } else {
                    seen.kept += 1;
                }
            }
        }
        let ticks = delay(host);
        for _ in 0..3 {
            if let Some(page) = &page {
                seen.beyond = seen.beyond.max(host.beyond(page));
                reader.look(page, host.guest_counter());
            }
            host.run(ticks / 3);
        }
        if let Some(page) = &page {
            seen.beyond = seen.beyond.max(host.beyond(page));
            reader.look(page, host.guest_counter());
        }
    }
    seen.widths.sort_unstable();
    seen
}

/// Any rates within 500 ppm of each other, any delays: the readings contain the truth at all times,
/// and contradict nothing that was told by the last pages.
#[test]
fn steered_clock_stays_within_its_bound() {
    type Delay = fn(&mut Host) -> u64;
    let regimes: [(&str, Delay); 4] = [
        ("1 ms", |_| MS),
        ("50 ms", |host| 50 * MS + host.random(MS)),
        ("up to 10 s", |host| {
            let longest = (10_000 * MS) >> host.random(14);
            host.random(longest) + 10
        }),
        ("held up now and then", |host| {
            if host.random(50) == 0 {
                3000 * MS
            } else {
                5 * MS
            }
        }),
    ];
    for (name, delay) in regimes {
        let mut all = Seen::default();
        for seed in 1..=24 {
            // From now and then, over often, to all the time; from hardly to all that is allowed.
            let band = [50, 1_000, 20_000, 250_000][usize::try_from(seed % 4).expect("small")];
            let longest = (60_000 * MS) >> (2 * (seed % 7));
            let mut host = Host::new(seed, band, longest);
            let seen = publish(&mut host, 1500, delay);
            assert!(seen.beyond <= 0, "{name}, seed {seed}: {seen:?}");
            assert_eq!(seen.steps, 0, "{name}, seed {seed}");
            assert!(seen.updates > 100, "{name}, seed {seed}: {seen:?}");
            all.updates += seen.updates;
            all.reconciled += seen.reconciled;
            all.kept += seen.kept;
            all.widths.extend(seen.widths);
        }
        all.widths.sort_unstable();
        let width = |part: usize| all.widths[(all.widths.len() - 1) * part / 100];
        println!(
            "{name}: {} updates, {} with the old line, {} kept; ± median {} ns, 99 % {} ns, all {} ns",
            all.updates,
            all.reconciled,
            all.kept,
            width(50),
            width(99),
            width(100)
        );
    }
}

/// A clock that nobody steers gets the narrow bound that its readings allow.
#[test]
fn free_running_clock_keeps_the_narrow_bound() {
    let mut host = Host::new(5, 0, MS * 1000);
    let seen = publish(&mut host, 3000, |host| 50 * MS + host.random(MS));
    assert!(seen.beyond <= 0 && seen.steps == 0, "{seen:?}");
    assert!(
        seen.widths.last().is_some_and(|widest| *widest < 1000),
        "{seen:?}"
    );
    assert!(seen.kept == 0, "{}", seen.kept);
}

/// Rates that nobody may assume, up to ± 5 %: whatever was told meanwhile, the next update sees it, to
/// within what a reading of the clock can tell, or is a disruption.
#[test]
fn steering_beyond_the_assumption_is_found_out() {
    let mut steps = 0;
    for seed in 1..=20 {
        let mut host = Host::new(seed, 50_000_000, 20_000 * MS);
        let (mut tracker, mut promises) = (Tracker::default(), Promises::default());
        let mut reader = Reader::default();
        for _ in 0..1000 {
            let sample = host.sample();
            match tracker.observe(&sample) {
                Outcome::Calibrating => {}
                Outcome::Stepped => {
                    steps += 1;
                    promises.forget();
                    reader = Reader::default();
                }
                Outcome::Tracked(estimate) => {
                    let wanted = page::valid(&estimate, &sample, &MAPPING, Scale::Tai);
                    let Some(page) = promises.reconcile(&wanted) else {
                        continue;
                    };
                    promises.note(&page);
                    reader.new_page(&page);
                    // A reading is 400 ticks (167 ns) wide at most.
                    let beyond = host.beyond(&page);
                    assert!(beyond < 400, "seed {seed}: {beyond} ns");
                }
            }
            let ticks = 20 * MS + host.random(50 * MS);
            host.run(ticks);
        }
    }
    println!("{steps} disruptions");
    assert!(steps > 20, "{steps}");
}
