//! The counter's rate by a timer: true for every rate, phase and way to the timer, and after one interruption.

use gnomon_clock::estimate::TIMER_HERTZ;
use gnomon_clock::{
    Bound, Bracket, Calibration, ClockStatus, CrossTimestamp, Estimator, Limits, NoLine, Prior,
    Rejected, Source, SourceTime, Ticks, Timestamp, Wander,
};
use proptest::prelude::*;

/// A machine with a counter and a timer, by true time in picoseconds.
#[derive(Clone, Debug)]
struct Machine {
    now: u128,
    /// The counter's tick in attoseconds.
    tick: u128,
    counter: u64,
    timer: u64,
    /// For how long the timer has stood still.
    stood: u128,
}

const PICO: u128 = 1_000_000_000_000;
/// The same, as strategies have it.
const SECOND: u64 = 1_000_000_000_000;

impl Machine {
    fn new(hertz: u64) -> Self {
        Self {
            now: 0,
            tick: PICO * 1_000_000 / u128::from(hertz),
            counter: u64::MAX - 1000,
            timer: 0xff_ff00,
            stood: 0,
        }
    }

    fn counter(&self) -> Ticks {
        let ticks = u64::try_from(self.now * 1_000_000 / self.tick).expect("a short while");
        Ticks(self.counter.wrapping_add(ticks))
    }

    fn timer(&self) -> u32 {
        let ticks = (self.now - self.stood) * u128::from(TIMER_HERTZ) / PICO;
        // The upper bits are none of the timer's.
        let ticks = self.timer + u64::try_from(ticks).expect("a short while");
        u32::try_from(ticks & 0xff_ffff).expect("24 bits") | 0x5a00_0000
    }

    /// Reads the timer, on a way there and back of so many ps.
    fn read(&mut self, [there, back]: [u64; 2]) -> (Bracket, u32) {
        let before = self.counter();
        self.now += u128::from(there);
        let shown = self.timer();
        self.now += u128::from(back);
        let after = self.counter();
        let bracket = Bracket {
            before,
            after,
            marker: 1,
        };
        (bracket, shown)
    }
}

/// Whether what is known of the period has the true one in it: a line by one sample does not miss the truth a
/// second later.
fn is_in(prior: Prior, hertz: u64) -> bool {
    let sample = |at: u64, second: i64| CrossTimestamp {
        bracket: Bracket {
            before: Ticks(at),
            after: Ticks(at),
            marker: 1,
        },
        time: SourceTime::Utc(Timestamp::from_parts(1_795_176_000 + second, 0)),
        error: Bound::from_nanos(1),
        tai_offset: None,
        leap: None,
        status: ClockStatus::Freerunning,
    };
    let none = Wander::from_ppb(0).expect("none");
    let mut estimator = Estimator::new(Source::VirtioRtc, none, Limits::DEFAULT);
    estimator.set_prior(Some(prior), 1);
    estimator.add(&sample(0, 0)).expect("a sample");
    estimator.add(&sample(hertz, 1)).is_ok()
}

fn ways() -> impl Strategy<Value = [u64; 2]> {
    prop_oneof![
        prop::array::uniform2(0..1000_u64),
        prop::array::uniform2(0..3_000_000_u64),
        prop::array::uniform2(0..100_000_000_u64),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn the_true_rate_is_inside(
        hertz in prop_oneof![1_000_000..10_000_000_000_u64, Just(TIMER_HERTZ.into())],
        gaps in prop::collection::vec((0..2 * SECOND, ways()), 2..12),
        steady in any::<bool>(),
        pause in prop::option::of((
            0..12_usize,
            // Some that are hardly seen among the errors of the readings.
            prop_oneof![0..1_000_000_u64, 0..50_000_000_u64, 0..100 * SECOND],
        )),
    ) {
        let mut machine = Machine::new(hertz);
        let mut calibration = Calibration::new();
        for (number, (gap, ways)) in gaps.into_iter().enumerate() {
            let wait = calibration.wait().unwrap_or(0);
            machine.now += u128::from(wait) * 1000 + u128::from(if steady { 0 } else { gap });
            if let Some((at, length)) = pause && at == number {
                // The counter goes on, and the timer does not.
                machine.now += u128::from(length);
                machine.stood += u128::from(length);
            }
            let (bracket, shown) = machine.read(ways);
            calibration.add(bracket, shown);
            if let Some(prior) = calibration.prior(0) {
                prop_assert!(is_in(prior, hertz), "{calibration:?}");
                let (told, off) = calibration.hertz().expect("as well");
                let apart = u128::from(told.abs_diff(hertz)) * 1_000_000;
                prop_assert!(apart <= u128::from(off + 1) * u128::from(hertz.max(told)));
            }
        }
    }

    #[test]
    fn nothing_makes_it_fail(readings in prop::collection::vec(any::<(u64, u32, u32)>(), 0..40)) {
        let mut calibration = Calibration::new();
        for (before, width, shown) in readings {
            let bracket = Bracket {
                before: Ticks(before),
                after: Ticks(before.wrapping_add(width.into())),
                marker: 1,
            };
            calibration.add(bracket, shown);
            let _known = (calibration.prior(1_000_000), calibration.hertz());
        }
        prop_assert!(calibration.prior(100_000_001).is_none());
    }
}

/// Each reading is when it is asked for, 2 µs there and back.
fn calibrated(machine: &mut Machine) -> Vec<(u128, Option<(u64, u64)>)> {
    let mut calibration = Calibration::new();
    let mut known = Vec::new();
    while let Some(wait) = calibration.wait() {
        machine.now += u128::from(wait) * 1000;
        let (bracket, shown) = machine.read([1_000_000; 2]);
        calibration.add(bracket, shown);
        known.push((machine.now / 1_000_000_000, calibration.hertz()));
    }
    known
}

#[test]
fn it_is_known_within_milliseconds_and_gets_better() {
    let known = calibrated(&mut Machine::new(2_400_000_000));
    let times: Vec<u128> = known.iter().map(|(millis, _)| *millis).collect();
    assert_eq!(times, [0, 1, 2, 4, 8, 16, 32, 64, 128, 257]);
    let off: Vec<u64> = known
        .iter()
        .filter_map(|(_, known)| known.map(|(_, off)| off))
        .collect();
    assert_eq!(off.len(), 8, "from the third on: {known:?}");
    assert!(off.is_sorted_by(|a, b| a > b), "{off:?}");
    assert!(off[0] < 2500 && off[7] < 20, "{off:?}");
    let (hertz, _) = known[9].1.expect("known");
    assert!(hertz.abs_diff(2_400_000_000) < 50_000, "{hertz}");
}

#[test]
fn a_long_interruption_begins_anew_and_what_never_fits_is_given_up() {
    let mut machine = Machine::new(1_000_000_000);
    let mut calibration = Calibration::new();
    let read = |machine: &mut Machine, calibration: &mut Calibration| {
        machine.now += u128::from(calibration.wait().expect("wanted")) * 1000;
        let (bracket, shown) = machine.read([1_000_000; 2]);
        calibration.add(bracket, shown)
    };
    for _ in 0..4 {
        read(&mut machine, &mut calibration);
    }
    assert!(calibration.prior(0).is_some());
    machine.now += PICO;
    machine.stood += PICO;
    assert!(read(&mut machine, &mut calibration), "it is taken back");
    assert_eq!(calibration.prior(0), None);
    for _ in 0..3 {
        read(&mut machine, &mut calibration);
    }
    assert!(calibration.prior(0).is_some());

    for (name, step, pace) in [("stands still", 0, 0), ("jumps", 0x1234, 777)] {
        let mut calibration = Calibration::new();
        let (mut ticks, mut shown, mut count) = (0_u64, 0_u32, 0);
        while calibration.wait().is_some() {
            let bracket = Bracket {
                before: Ticks(ticks),
                after: Ticks(ticks + 10),
                marker: 1,
            };
            calibration.add(bracket, shown);
            count += 1;
            ticks += 1_000_000 << (count % 3 * 2);
            shown = shown.wrapping_add(step + pace * count);
            assert!(count <= 32, "{name}");
            assert_eq!(calibration.prior(0), None, "{name}");
        }
    }
}

#[test]
fn a_better_rate_makes_a_line_of_one_sample_and_a_refuted_one_ends_it() {
    let mut machine = Machine::new(1_000_000_000);
    let mut calibration = Calibration::new();
    let mut estimator = Estimator::new(Source::Ntp, Wander::CRYSTAL, Limits::DEFAULT);
    let sample = |at: u64| CrossTimestamp {
        bracket: Bracket {
            before: Ticks(at),
            after: Ticks(at + 1000),
            marker: 1,
        },
        time: SourceTime::Utc(
            Timestamp::from_parts(1_795_176_000, 0)
                .checked_add(gnomon_clock::Span::from_nanos(at.cast_signed()))
                .expect("in range"),
        ),
        error: Bound::from_nanos(1000),
        tai_offset: None,
        leap: None,
        status: ClockStatus::Synchronized,
    };
    estimator.set_prior(None, 1);
    estimator.add(&sample(0)).expect("a sample");
    let mut bounds = Vec::new();
    while let Some(wait) = calibration.wait() {
        assert_eq!(estimator.timeline().is_ok(), calibration.prior(0).is_some());
        machine.now += u128::from(wait) * 1000;
        let (bracket, shown) = machine.read([1_000_000; 2]);
        if calibration.add(bracket, shown) {
            estimator.refine_prior(calibration.prior(1_000_000), 1);
            let line = estimator.timeline().expect("a line");
            bounds.push(line.at(Ticks(1_000_000_000)).expect("in range").bound);
        }
    }
    assert!(
        bounds.len() > 5 && bounds.is_sorted_by(|a, b| a >= b),
        "{bounds:?}"
    );
    // A timer that is a tenth off is found out by the samples, and not believed again.
    estimator.add(&sample(1_000_000_000)).expect("a sample");
    estimator.refine_prior(Prior::from_hertz(1_100_000_000, 1000), 1);
    assert_eq!(estimator.timeline(), Err(NoLine::NoSample));
    estimator.refine_prior(Prior::from_hertz(1_000_000_000, 1000), 1);
    let later = |second: u64| sample(second * 1_000_000_000);
    assert_eq!(estimator.add(&later(2)), Ok(()));
    assert_eq!(estimator.timeline(), Err(NoLine::PeriodUnknown));
    assert_eq!(estimator.add(&later(3)), Ok(()));
    assert_eq!(estimator.timeline(), Err(NoLine::Unconfirmed));
    assert_eq!(estimator.add(&later(4)), Ok::<(), Rejected>(()));
    assert!(estimator.timeline().is_ok());
}
