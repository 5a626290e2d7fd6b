//! Lines through samples against exact numbers: whatever the truth is that the samples were taken of,
//! with the counter's rate, the samples' errors and their place in the bracket at the ends of what is
//! allowed, it is never outside the bound, and never called a contradiction.

use gnomon_clock::estimate::SAMPLES;
use gnomon_clock::{
    Bound, Bracket, ClockStatus, CrossTimestamp, Estimator, LeapIndicator, Limits, NoLine,
    OperatorOffset, Prior, Rejected, Source, SourceTime, Span, Ticks, Timeline, Timestamp, Wander,
};
use proptest::prelude::*;

/// 2026-11-20T12:05:31Z, where truth begins.
const START: i64 = 1_795_176_331;
/// The counter then: it wraps soon after.
const COUNTER: u64 = u64::MAX - 1_000_000;
const BILLION: i128 = 1_000_000_000;
const NO_LIMITS: Limits = Limits {
    max_age: u32::MAX,
    max_bound: Bound::MAX,
};

/// Thousandths of 2⁻⁸⁰ s in 2⁻⁶⁴ s.
const UNIT: i128 = 1000 << 16;

/// True time: stretches of the counter, each with a rate of its own, the last without an end.
struct Truth {
    /// Ticks from [`COUNTER`], and the length of a tick in 2⁻⁸⁰ s up to there.
    stretches: Vec<(i128, i128)>,
    /// Before the first and after the last.
    rate: i128,
}

impl Truth {
    /// Time since [`START`] at `millis` thousandths of a tick from [`COUNTER`], in thousandths of 2⁻⁸⁰ s.
    fn at(&self, millis: i128) -> i128 {
        if millis < 0 {
            return millis * self.rate;
        }
        let (mut time, mut from) = (0, 0);
        for (end, rate) in &self.stretches {
            let to = millis.min(end * 1000);
            time += (to - from).max(0) * rate;
            from = from.max(to);
        }
        time + (millis - from) * self.rate
    }
}

/// Where a thing lies between its limits, in thousandths: half the time at one of them.
fn place() -> impl Strategy<Value = i128> {
    prop_oneof![-1000..=1000_i128, Just(-1000), Just(1000)]
}

/// Of any magnitude up to 2^`bits`.
fn any_size(bits: u32) -> impl Strategy<Value = u64> {
    (any::<u64>(), 64 - bits..64).prop_map(|(value, shift)| value >> shift)
}

/// A counter and how well it is known.
#[derive(Clone, Debug)]
struct Machine {
    hertz: u64,
    /// In 10⁻⁹.
    wander: u32,
    tolerance: u32,
    /// Where P̄ is within the tolerance.
    period_at: i128,
    has_prior: bool,
}

impl Machine {
    /// P̄ in 2⁻⁸⁰ s, rounded to the inside of what is allowed.
    fn mean(&self) -> i128 {
        let (hertz, tolerance) = (i128::from(self.hertz), i128::from(self.tolerance));
        let shortest = ((1_i128 << 80) * BILLION).div_euclid(hertz * (BILLION + tolerance)) + 1;
        let longest = ((1_i128 << 80) * BILLION).div_euclid(hertz * (BILLION - tolerance));
        shortest + (longest - shortest).max(0) * (self.period_at + 1000) / 2000
    }

    /// A rate within the wander about `mean`.
    fn rate(&self, mean: i128, place: i128) -> i128 {
        let most = mean * i128::from(self.wander) / BILLION;
        mean + most * place / 1000
    }

    fn estimator(&self) -> Estimator {
        let wander = Wander::from_ppb(self.wander).expect("below a tenth");
        let mut estimator = Estimator::new(Source::VirtioRtc, wander, NO_LIMITS);
        let prior = Prior::from_hertz(self.hertz, self.tolerance).expect("plausible");
        estimator.set_prior(self.has_prior.then_some(prior), 7);
        estimator
    }
}

fn machine() -> impl Strategy<Value = Machine> {
    let wander = prop_oneof![
        Just(0),
        Just(50_000),
        Just(550_000),
        Just(100_000_000),
        0..1_000_000_u32
    ];
    let tolerance = prop_oneof![
        Just(0),
        Just(1000),
        Just(1_000_000),
        Just(100_000_000),
        0..1_000_000_u32
    ];
    // Away from the ends by the greatest tolerance, so that P̄ is plausible.
    let hertz = prop_oneof![
        Just(62_500_000),
        Just(1_000_000_000),
        120_000..9_000_000_000_u64
    ];
    (hertz, wander, tolerance, place(), any::<bool>()).prop_map(
        |(hertz, wander, tolerance, period_at, has_prior)| Machine {
            hertz,
            wander,
            tolerance,
            period_at,
            has_prior,
        },
    )
}

/// One look at the source.
#[derive(Clone, Debug)]
struct Look {
    /// Ticks since the last one, and from before to after.
    gap: u64,
    width: u64,
    /// In 2⁻⁶⁴ s, at least one.
    error: u64,
    rate_at: i128,
    error_at: i128,
    /// Where in the bracket the source was read, in thousandths, the last tick included.
    read_at: i128,
}

fn look() -> impl Strategy<Value = Look> {
    (
        any_size(40),
        any_size(30),
        any_size(60),
        place(),
        place(),
        place(),
    )
        .prop_map(|(gap, width, error, rate_at, error_at, read_at)| Look {
            gap,
            width,
            error: error + 1,
            rate_at,
            error_at,
            read_at,
        })
}

/// The truth through all looks, with `after_at` as the rate from then on and before, and the samples.
fn play(machine: &Machine, looks: &[Look], after_at: i128) -> (Truth, Vec<CrossTimestamp>) {
    let mean = machine.mean();
    let mut end = 0;
    let stretches = looks
        .iter()
        .map(|look| {
            end += i128::from(look.gap) + i128::from(look.width) + 1;
            (end, machine.rate(mean, look.rate_at))
        })
        .collect();
    let truth = Truth {
        stretches,
        rate: machine.rate(mean, after_at),
    };
    let mut before = 0;
    let samples = looks.iter().map(|look| {
        before += u128::from(look.gap);
        let width = i128::from(look.width);
        let within = (width * 1000 + 999) * (look.read_at + 1000) / 2000;
        let exact = truth.at(before.cast_signed() * 1000 + within);
        let off = exact + i128::from(look.error) * UNIT * look.error_at / 1000;
        // Rounded towards the truth.
        let told = if off > exact {
            off.div_euclid(UNIT)
        } else {
            -(-off).div_euclid(UNIT)
        };
        assert!((told * UNIT - exact).abs() <= i128::from(look.error) * UNIT);
        let sample = sample(before, look.width, told, look.error);
        before += u128::from(look.width) + 1;
        sample
    });
    let samples = samples.collect();
    (truth, samples)
}

fn counter(ticks: i128) -> Ticks {
    let ticks = i64::try_from(ticks).expect("near the start");
    Ticks(COUNTER.wrapping_add_signed(ticks))
}

fn sample(before: u128, width: u64, told: i128, error: u64) -> CrossTimestamp {
    let start = Timestamp::from_parts(START, 0);
    CrossTimestamp {
        bracket: Bracket {
            before: counter(before.cast_signed()),
            after: counter(before.cast_signed() + i128::from(width)),
            marker: 7,
        },
        time: SourceTime::Utc(start.checked_add(Span::from_units(told)).expect("in range")),
        error: Bound::from_units(error.into()),
        tai_offset: None,
        leap: None,
        status: ClockStatus::Freerunning,
    }
}

/// Whether truth at `millis` is inside the reading of that tick, compared in exact numbers.
fn holds(timeline: &Timeline, truth: &Truth, millis: i128) -> bool {
    let reading = timeline
        .at(counter(millis.div_euclid(1000)))
        .expect("in range");
    let utc = reading.utc.expect("a source of UTC").time;
    let since = utc.since(Timestamp::from_parts(START, 0)).expect("near");
    let apart = (since.units() * UNIT - truth.at(millis)).unsigned_abs();
    apart <= reading.bound.units() * UNIT.unsigned_abs()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 3 } else { 2000 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_truth_is_outside_the_bound_or_called_a_contradiction(
        machine in machine(),
        looks in proptest::collection::vec(look(), 1..SAMPLES + 5),
        after_at in place(),
        probes in proptest::collection::vec((any_size(42), any::<bool>(), 0..1000_i128), 8),
    ) {
        let (truth, samples) = play(&machine, &looks, after_at);
        let mut estimator = machine.estimator();
        for (index, sample) in samples.iter().enumerate() {
            prop_assert_eq!(estimator.add(sample), Ok(()), "sample {}", index);
            let timeline = match estimator.timeline() {
                Ok(timeline) => timeline,
                Err(NoLine::PeriodUnknown) if !machine.has_prior => continue,
                Err(why) => return Err(TestCaseError::fail(format!("sample {index}: {why}"))),
            };
            let after = i128::from(sample.bracket.after.since(Ticks(COUNTER)));
            let before = i128::from(sample.bracket.before.since(Ticks(COUNTER)));
            for millis in [before * 1000, after * 1000, after * 1000 + 999] {
                prop_assert!(holds(&timeline, &truth, millis), "sample {}", index);
            }
            for (ticks, is_later, phase) in &probes {
                let ticks = i128::from(*ticks);
                let at = if *is_later { after + ticks } else { after - ticks };
                prop_assert!(holds(&timeline, &truth, at * 1000 + phase), "sample {} at {}", index, at);
            }
        }
    }

    /// What is allowed is not only covered, but hardly more than covered: one sample gives half its
    /// bracket and its error, and a line drawn through more is never worse than that.
    #[test]
    fn the_bound_is_no_wider_than_the_newest_sample(
        machine in machine(),
        looks in proptest::collection::vec(look(), 1..SAMPLES + 5),
        after_at in place(),
    ) {
        let (_, samples) = play(&machine, &looks, after_at);
        let mut estimator = machine.estimator();
        for (look, sample) in looks.iter().zip(&samples) {
            prop_assert_eq!(estimator.add(sample), Ok(()));
            let Ok(timeline) = estimator.timeline() else {
                continue;
            };
            let bound = timeline.at(sample.bracket.after).expect("in range").bound;
            // The fastest tick there may be, twice the wander and the tolerance from its mean, or by the
            // worst that counts as a period.
            let tick = machine.mean().unsigned_abs() * 3 / 2;
            let most = u128::from(look.error) + (((u128::from(look.width) / 2 + 4) * tick) >> 16) + 8;
            prop_assert!(bound.units() <= most, "{} of {most}", bound.units());
        }
    }

    #[test]
    fn a_line_is_used_within_its_limits_and_to_their_ends(
        machine in machine(),
        looks in proptest::collection::vec(look(), 1..SAMPLES),
        max_age in 0..1_000_000_u32, max_bound in any_size(64),
    ) {
        let (_, samples) = play(&machine, &looks, 0);
        let limits = Limits { max_age, max_bound: Bound::from_units(max_bound.into()) };
        let wander = Wander::from_ppb(machine.wander).expect("below a tenth");
        let mut estimator = Estimator::new(Source::Ntp, wander, limits);
        let mut unlimited = machine.estimator();
        let prior = Prior::from_hertz(machine.hertz, machine.tolerance).expect("plausible");
        estimator.set_prior(Some(prior), 7);
        unlimited.set_prior(Some(prior), 7);
        for sample in &samples {
            prop_assert_eq!(estimator.add(sample), Ok(()));
            prop_assert_eq!(unlimited.add(sample), Ok(()));
        }
        let newest = samples.last().expect("at least one").bracket.after;
        let free = unlimited.timeline().expect("a line");
        let within = |ticks: u64| {
            let reading = free.at(Ticks(newest.0.wrapping_add(ticks))).expect("in range");
            (reading.bound <= limits.max_bound, reading.age <= Span::from_seconds(max_age.into()))
        };
        let Ok(timeline) = estimator.timeline() else {
            // Refused only if hardly anything is left.
            prop_assert_eq!(estimator.timeline(), Err(NoLine::TooWide));
            let bound = free.at(newest).expect("in range").bound;
            prop_assert!(bound.units() + 4 > limits.max_bound.units());
            return Ok(());
        };
        // The last tick of its use, by bisection.
        let (mut usable, mut expired) = (0_u64, 1 << 62);
        while expired - usable > 1 {
            let middle = u64::midpoint(usable, expired);
            if timeline.is_expired(Ticks(newest.0.wrapping_add(middle))) {
                expired = middle;
            } else {
                usable = middle;
            }
        }
        prop_assert!(!timeline.is_expired(newest));
        prop_assert_eq!(within(usable), (true, true));
        // A hundredth beyond, and the few ticks that rounding may take, it would exceed one of them.
        let beyond = within(usable + usable / 4 + 1000);
        prop_assert!(beyond != (true, true) || usable > 1 << 61, "{usable}");
    }

    #[test]
    fn no_samples_panic_or_give_a_line_that_cannot_be_read(
        samples in proptest::collection::vec(any_sample(), 1..40),
        hertz in any_size(64), tolerance in any_size(28), wander in any_size(27),
        offset in any::<i16>(), max_age in any::<u32>(), max_bound in any_size(64), now in any::<u64>(),
    ) {
        let limits = Limits { max_age, max_bound: Bound::from_units(u128::from(max_bound) << 32) };
        let ppb = u32::try_from(wander).unwrap_or(u32::MAX);
        let wander = Wander::from_ppb(ppb).unwrap_or(Wander::CRYSTAL);
        let mut estimator = Estimator::new(Source::Ntp, wander, limits);
        if let Some(offset) = OperatorOffset::new(offset) {
            estimator = estimator.with_operator_offset(offset);
        }
        for sample in &samples {
            let prior = Prior::from_hertz(hertz, u32::try_from(tolerance).unwrap_or(u32::MAX));
            estimator.set_prior(prior, sample.bracket.marker);
            if let Err(Rejected::Disagreement(disagreement)) = estimator.add(sample) {
                prop_assert!(estimator.timeline().is_err());
                prop_assert!(estimator.count() <= 1);
                prop_assert!(!disagreement.to_string().is_empty());
            }
            if let Ok(timeline) = estimator.timeline() {
                prop_assert_eq!(timeline.marker(), sample.bracket.marker);
                for at in [sample.bracket.after, Ticks(now)] {
                    if let Ok(reading) = timeline.at(at) {
                        prop_assert!(reading.tai.is_some() || reading.utc.is_some());
                        prop_assert!(timeline.is_expired(at) || reading.bound <= limits.max_bound);
                    }
                }
            }
        }
    }
}

/// Anything at all, but often near what the one before it said.
fn any_sample() -> impl Strategy<Value = CrossTimestamp> {
    let bracket = (any_size(64), any_size(63), 0..20_u64);
    let time = (0..4_u8, any_size(41), any::<u64>(), any_size(64), 0..10_u32);
    let beside = (any::<i16>(), any::<bool>(), 0..8_u8, 0..40_u8);
    (bracket, time, beside).prop_map(
        |((before, width, marker), time, (offset, valid, leap, status))| {
            let (scale, seconds, fraction, error, month) = time;
            // Half of them about the end of 2016.
            let seconds = if month < 5 {
                1_483_228_790 + i64::from(month)
            } else {
                seconds.cast_signed() - 1
            };
            let tai = Timestamp::from_parts(seconds, fraction);
            let utc = Timestamp::from_parts(seconds, fraction);
            CrossTimestamp {
                bracket: Bracket {
                    before: Ticks(before),
                    after: Ticks(before.wrapping_add(width)),
                    marker: marker / 19,
                },
                time: match scale {
                    0 => SourceTime::Tai(tai),
                    1 => SourceTime::PerhapsSmeared(utc),
                    _ => SourceTime::Utc(utc),
                },
                error: Bound::from_units(u128::from(error) << (error & 31)),
                tai_offset: valid.then_some(offset >> 9),
                leap: LeapIndicator::try_from(leap).ok(),
                status: ClockStatus::try_from(status).unwrap_or(ClockStatus::Synchronized),
            }
        },
    )
}
