//! What the host's clock has to do with its counter: a straight line, and how far both may be wrong.
//!
//! Pure arithmetic on samples. Two intervals are carried from sample to sample, both widened by
//! [`STEERING`] and narrowed by what the next sample says:
//! * *local*: what the host's clock shows. It never is wider than a few samples' widths and 25 µs
//!   per 50 ms; a sample outside it means that the clock was set, or is being steered faster than is
//!   taken for possible.
//! * *UTC*: while the kernel vouches for its clock, the same with its `maxerror` around it.
//!
//! Because the next interval is the intersection with the one before, every estimate lies inside
//! the one before it at every counter value from then on. What readers of older pages were told is
//! [`Promises`](crate::page::Promises)' care.

use std::collections::VecDeque;

use gnomon_clock::{Bound, Period, Span, Tai, Ticks, Timestamp};

use crate::host::Sample;

/// By how much the rate of the host's clock against its counter may change between two updates, as a
/// divisor: 500 ppm, the greatest frequency correction of Linux. Anything beyond is detected at the
/// next sample, and is a disruption.
pub const STEERING: u64 = 2000;
/// What a published bound grows by beyond [`STEERING`], as a divisor: 1 ppm. It makes room for the
/// rounding of the next publication to whole nanoseconds.
pub const ROUNDING: u64 = 1_000_000;
/// A shorter time between two samples does not give a rate: 20 ms (some ppm).
pub const SHORTEST_BASELINE: Span = Span::from_nanos(20_000_000);
/// A longer time is not waited for: clocks are steered every minute or so.
const LONGEST_BASELINE: Span = Span::from_seconds(60);
/// Samples kept. The older half is thinned out when there are more.
const SAMPLES: usize = 64;
/// The resolution of the kernel's clock.
const RESOLUTION: Bound = Bound::from_nanos(1);

/// Follows the host's clock from sample to sample.
#[derive(Debug, Default)]
pub struct Tracker {
    points: VecDeque<Point>,
    local: Option<Interval>,
    utc: Option<Interval>,
    /// Whether the points are TAI.
    knows_tai: Option<bool>,
    /// Whether the last estimate was against UTC.
    synchronised: Option<bool>,
}

/// What a sample has shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// The samples are too close together to give a rate. What was published before still holds.
    Calibrating,
    /// The clock does not go on from the sample before: it was set. Calibration starts again.
    Stepped,
    /// Time is known.
    Tracked(Estimate),
}

/// Time as a function of the host's counter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Reference value of the host's counter.
    pub counter: u64,
    /// TAI (UTC if TAI − UTC is not known) at that counter value.
    pub time: Timestamp<Tai>,
    /// Length of a tick.
    pub period: Period,
    /// Greatest error of `time`.
    pub maxerror: Bound,
    /// Estimated error of `time`.
    pub esterror: Bound,
    /// Greatest error of `period`, in its unit.
    pub period_maxerror: u64,
    /// Estimated error of `period`, in its unit.
    pub period_esterror: u64,
    /// The bound says something else than the one of the estimate before: it is about UTC now and
    /// was about the host's clock, or the other way round, or there was none.
    pub new_reference: bool,
}

impl Tracker {
    /// Takes the next sample.
    pub fn observe(&mut self, sample: &Sample) -> Outcome {
        let knows_tai = sample.offset.is_some();
        if self
            .knows_tai
            .replace(knows_tai)
            .is_some_and(|before| before != knows_tai)
        {
            return self.start_again(sample);
        }
        let point = Point::from(sample);
        if self.local.is_some_and(|local| !local.admits(&point)) {
            return self.start_again(sample);
        }
        self.points.push_back(point);
        self.forget_old_points();
        let Some(line) = self.line() else {
            return Outcome::Calibrating;
        };
        let shown = Interval::around(&line, line.error.plus(line.error));
        let Some(local) = shown.within(self.local) else {
            return self.start_again(sample);
        };
        let synchronised = sample.kernel.synchronised;
        let new_reference = self.synchronised.replace(synchronised) != Some(synchronised);
        if new_reference || !synchronised {
            self.utc = None;
        }
        self.local = Some(local);

        let interval = if synchronised {
            let kernel = Bound::from_nanos(sample.kernel.maxerror_us.saturating_mul(1000));
            let error = line.error.plus(line.error).plus(kernel);
            let Some(utc) = Interval::around(&line, error).within(self.utc) else {
                return self.start_again(sample);
            };
            self.utc = Some(utc);
            utc
        } else {
            local
        };
        let esterror = if synchronised {
            Bound::from_nanos(sample.kernel.esterror_us.saturating_mul(1000)).plus(line.error)
        } else {
            line.error
        };
        let maxerror = interval.radius();
        Outcome::Tracked(Estimate {
            counter: line.counter,
            time: interval.middle(),
            period: line.period,
            maxerror,
            esterror: esterror.min(maxerror),
            period_maxerror: line
                .steered_rate_error()
                .saturating_add(line.period.frac().div_ceil(ROUNDING)),
            period_esterror: line.rate_error,
            new_reference,
        })
    }

    /// The host counter at which the clock showed `time`, not later than that; `None` far from now.
    #[must_use]
    pub fn counter_at(&self, time: Timestamp<Tai>) -> Option<u64> {
        let line = self.line()?;
        let delta = time.since(line.time)?;
        if delta.abs() > LONGEST_BASELINE {
            return None;
        }
        // Below 2^70 · 2^shift, and shift is below 64: no overflow for any counter above 1 Hz.
        let ticks =
            delta.units().checked_shl(line.period.shift().into())? / i128::from(line.period.frac());
        let ticks = i64::try_from(ticks).ok()?;
        let error = line
            .bound(ticks)
            .units()
            .checked_shl(line.period.shift().into())?;
        let error = i64::try_from(error / u128::from(line.period.frac())).ok()?;
        Some(
            line.counter
                .wrapping_add_signed(ticks.checked_sub(error)?.checked_sub(2)?),
        )
    }

    /// The longest straight line to the newest sample that passes so close to every one on its way
    /// that what was published with them holds.
    ///
    /// Without anything published before, a sample well inside has to agree: two alone would take
    /// a step between them for a rate.
    fn line(&self) -> Option<Line> {
        let newest = self.points.back()?;
        self.points.iter().enumerate().find_map(|(index, first)| {
            let line = Line::through(first, newest)?;
            let close = |point: &Point| {
                let error = point.error(line.period);
                let off = point.time.since(line.at(point.counter));
                off.is_some_and(|off| error.plus(error).contains(off))
            };
            let inside = |point: &Point| {
                let quarter = newest.time.since(first.time).map(|span| span.units() / 4);
                let ends = [point.time.since(first.time), newest.time.since(point.time)];
                quarter.is_some_and(|quarter| {
                    ends.iter()
                        .all(|end| end.is_some_and(|end| end.units() >= quarter))
                })
            };
            let mut way = self.points.iter().skip(index);
            let confirmed = self.local.is_some() || way.clone().any(inside);
            (confirmed && way.all(close)).then_some(line)
        })
    }

    fn start_again(&mut self, sample: &Sample) -> Outcome {
        self.points = VecDeque::from([Point::from(sample)]);
        (self.local, self.utc, self.synchronised) = (None, None, None);
        Outcome::Stepped
    }

    fn forget_old_points(&mut self) {
        let Some(newest) = self.points.back().map(|point| point.time) else {
            return;
        };
        let old = |point: &Point| {
            newest
                .since(point.time)
                .is_none_or(|age| age > LONGEST_BASELINE)
        };
        self.points.retain(|point| !old(point));
        if self.points.len() > SAMPLES {
            let mut index = 0;
            self.points.retain(|_| {
                index += 1;
                index > SAMPLES / 2 || index % 2 == 1
            });
        }
    }
}

/// One sample.
#[derive(Clone, Copy, Debug)]
struct Point {
    counter: u64,
    /// In ticks.
    radius: u64,
    time: Timestamp<Tai>,
}

impl Point {
    /// How far `time` is from what the clock showed at `counter`, at most.
    fn error(&self, period: Period) -> Bound {
        let radius = i64::try_from(self.radius).unwrap_or(i64::MAX);
        period.span_outward(radius).plus(RESOLUTION)
    }
}

impl From<&Sample> for Point {
    fn from(sample: &Sample) -> Self {
        Self {
            counter: sample.counter,
            radius: sample.radius,
            time: sample.time,
        }
    }
}

/// The straight line through two points, anchored at the second.
#[derive(Clone, Copy, Debug)]
struct Line {
    counter: u64,
    time: Timestamp<Tai>,
    /// Of the anchor.
    error: Bound,
    period: Period,
    /// Greatest error of `period` if the clock ran evenly between the two, in the period's unit.
    rate_error: u64,
}

impl Line {
    /// `None` when the points are too close together, or the counter stands still or runs at 1 Hz.
    fn through(first: &Point, last: &Point) -> Option<Self> {
        let elapsed = last
            .time
            .since(first.time)
            .filter(|time| *time >= SHORTEST_BASELINE)?;
        let elapsed = elapsed.units().cast_unsigned();
        let ticks = last.counter.wrapping_sub(first.counter);
        let per_tick = u64::try_from(elapsed.checked_div(ticks.into())?).ok()?;
        // As many bits as the 64 of the fraction and the 128 of the dividend hold.
        let shift = per_tick.leading_zeros().min(elapsed.leading_zeros());
        let frac = u64::try_from((elapsed << shift) / u128::from(ticks)).ok()?;
        let period = Period::new(frac, u8::try_from(shift).ok()?).ok()?;
        let (error, first_error) = (last.error(period), first.error(period));
        let ends = error.plus(first_error).units().checked_shl(shift)?;
        // And one for the truncation of `frac`.
        let rate_error = u64::try_from(ends.div_ceil(ticks.into()) + 1).ok()?;
        Some(Self {
            counter: last.counter,
            time: last.time,
            error,
            period,
            rate_error,
        })
    }

    fn at(&self, counter: u64) -> Timestamp<Tai> {
        let span = self.period.span(Ticks(counter).since(Ticks(self.counter)));
        self.time.checked_add(span).unwrap_or(self.time)
    }

    /// [`rate_error`](Self::rate_error), and what the clock may be steered by from now on.
    fn steered_rate_error(&self) -> u64 {
        self.rate_error
            .saturating_add(self.period.frac().div_ceil(STEERING))
    }

    fn bound(&self, ticks: i64) -> Bound {
        let rate_error = self.steered_rate_error();
        self.error
            .plus(self.period.rate_outward(ticks.unsigned_abs(), rate_error))
    }
}

/// Where the time is, at every counter value from `counter` on.
#[derive(Clone, Copy, Debug)]
struct Interval {
    counter: u64,
    earliest: Timestamp<Tai>,
    latest: Timestamp<Tai>,
    period: Period,
    /// By how much it grows per tick on either side, in the unit of `period`.
    growth: u64,
}

impl Interval {
    fn around(line: &Line, error: Bound) -> Self {
        let error = span(error);
        Self {
            counter: line.counter,
            earliest: line.time.checked_sub(error).unwrap_or(line.time),
            latest: line.time.checked_add(error).unwrap_or(line.time),
            period: line.period,
            growth: line.steered_rate_error(),
        }
    }

    /// Its ends when the counter has reached `counter`.
    fn at(&self, counter: u64) -> Option<(Timestamp<Tai>, Timestamp<Tai>)> {
        let ticks = Ticks(counter).since(Ticks(self.counter));
        let moved = self.period.span(ticks);
        let grown = span(self.period.rate_outward(ticks.unsigned_abs(), self.growth));
        let earliest = self.earliest.checked_add(moved)?.checked_sub(grown)?;
        let latest = self.latest.checked_add(moved)?.checked_add(grown)?;
        Some((earliest, latest))
    }

    /// Whether the point may lie in it.
    fn admits(&self, point: &Point) -> bool {
        let error = span(point.error(self.period));
        let ends = point
            .time
            .checked_sub(error)
            .zip(point.time.checked_add(error));
        ends.zip(self.at(point.counter))
            .is_some_and(|((first, last), (earliest, latest))| first <= latest && earliest <= last)
    }

    /// The part of it that lies inside the earlier interval; `None` if there is none.
    fn within(self, earlier: Option<Self>) -> Option<Self> {
        let Some(earlier) = earlier else {
            return Some(self);
        };
        let (earliest, latest) = earlier.at(self.counter)?;
        let (earliest, latest) = (self.earliest.max(earliest), self.latest.min(latest));
        (earliest <= latest).then_some(Self {
            earliest,
            latest,
            ..self
        })
    }

    fn middle(&self) -> Timestamp<Tai> {
        let half = Span::from_units(self.width() / 2);
        self.earliest.checked_add(half).unwrap_or(self.earliest)
    }

    /// Half the width, rounded up.
    fn radius(&self) -> Bound {
        Bound::from_units((self.width() / 2 + 1).cast_unsigned())
    }

    /// In 2⁻⁶⁴ s, never negative.
    fn width(&self) -> i128 {
        self.latest.since(self.earliest).map_or(0, Span::units)
    }
}

fn span(bound: Bound) -> Span {
    Span::from_units(i128::try_from(bound.units()).unwrap_or(i128::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{Kernel, Leap, Phase};

    /// A host whose counter runs at 2.4 GHz and whose clock runs `ppb` faster than that.
    struct Simulation {
        counter: u64,
        /// In 2⁻⁶⁴ s.
        clock: i128,
        ppb: i128,
        noise: u64,
        kernel: Kernel,
    }

    const HERTZ: u64 = 2_400_000_000;

    impl Simulation {
        fn new() -> Self {
            let kernel = Kernel {
                utc: 0,
                leap: Leap::None,
                phase: Phase::Ahead,
                tai: 37,
                synchronised: false,
                maxerror_us: 16_000_000,
                esterror_us: 16_000_000,
            };
            let clock = i128::from(1_800_000_000) << 64;
            Self {
                counter: u64::MAX - HERTZ,
                clock,
                ppb: 0,
                noise: 1,
                kernel,
            }
        }

        fn random(&mut self, below: u64) -> u64 {
            self.noise = self
                .noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (self.noise >> 33) % below
        }

        fn run(&mut self, ticks: u64) {
            self.counter = self.counter.wrapping_add(ticks);
            let nominal = (i128::from(ticks) << 64) / i128::from(HERTZ);
            self.clock += nominal + nominal * self.ppb / 1_000_000_000;
        }

        fn now(&self) -> Timestamp<Tai> {
            let seconds = i64::try_from(self.clock >> 64).expect("in range");
            Timestamp::from_parts(seconds, 0)
                .checked_add(Span::from_units(self.clock & 0xffff_ffff_ffff_ffff))
                .expect("in range")
        }

        /// A reading that is off by up to its radius either way, and truncated to 1 ns.
        fn sample(&mut self) -> Sample {
            let radius = 50 + self.random(100);
            let off = self.random(2 * radius);
            let time = Timestamp::from_parts(self.now().seconds(), 0)
                .checked_add(Span::from_nanos(self.now().nanos().into()))
                .expect("in range");
            let counter = self.counter.wrapping_add(off).wrapping_sub(radius);
            Sample {
                counter,
                radius,
                time,
                offset: Some(37),
                kernel: self.kernel,
            }
        }

        fn observe(&mut self, tracker: &mut Tracker) -> Estimate {
            let sample = self.sample();
            match tracker.observe(&sample) {
                Outcome::Tracked(estimate) => {
                    self.check(&estimate);
                    estimate
                }
                other => panic!("{other:?}"),
            }
        }

        /// The clock's present time lies within the estimate's bound.
        fn check(&self, estimate: &Estimate) {
            let off = self
                .now()
                .since(at(estimate, self.counter))
                .expect("in range");
            let bound = bound(estimate, self.counter);
            assert!(bound.contains(off), "{off:?} is outside {bound:?}");
        }
    }

    fn at(estimate: &Estimate, counter: u64) -> Timestamp<Tai> {
        let ticks = Ticks(counter).since(Ticks(estimate.counter));
        estimate
            .time
            .checked_add(estimate.period.span(ticks))
            .expect("in range")
    }

    fn bound(estimate: &Estimate, counter: u64) -> Bound {
        let ticks = Ticks(counter).since(Ticks(estimate.counter)).unsigned_abs();
        estimate.maxerror.plus(
            estimate
                .period
                .rate_outward(ticks, estimate.period_maxerror),
        )
    }

    /// The later estimate's interval lies inside the earlier one's, and so does its time at the
    /// earlier one's reference.
    fn assert_nested(earlier: &Estimate, later: &Estimate) {
        let apart = later
            .time
            .since(at(earlier, later.counter))
            .expect("in range")
            .abs();
        let room = bound(earlier, later.counter)
            .units()
            .checked_sub(later.maxerror.units());
        let room = room.expect("the bound has not grown beyond the earlier one");
        assert!(
            Bound::from_units(room).contains(apart),
            "{apart:?} and {room}"
        );
        let apart = at(later, earlier.counter)
            .since(earlier.time)
            .expect("in range");
        assert!(
            earlier.maxerror.contains(apart),
            "{apart:?} at the earlier reference"
        );
    }

    fn calibrated() -> (Simulation, Tracker) {
        let (mut host, mut tracker) = (Simulation::new(), Tracker::default());
        for _ in 0..2 {
            let sample = host.sample();
            assert_eq!(tracker.observe(&sample), Outcome::Calibrating);
            host.run(HERTZ / 80);
        }
        let first = host.observe(&mut tracker);
        assert!(
            first.new_reference && first.maxerror.nanos() < 150,
            "{first:?}"
        );
        (host, tracker)
    }

    #[test]
    fn free_running_clock_is_tracked_and_nested() {
        let (mut host, mut tracker) = calibrated();
        host.run(HERTZ / 20);
        let mut last = host.observe(&mut tracker);
        for _ in 0..5000 {
            let ticks = HERTZ / 50 + 1000 + host.random(HERTZ / 10);
            host.run(ticks);
            let next = host.observe(&mut tracker);
            assert!(
                !next.new_reference && next.maxerror.nanos() < 150,
                "{next:?}"
            );
            assert_nested(&last, &next);
            last = next;
        }
        // Some seconds of baseline against 100 ns of noise.
        let ppb = u128::from(last.period_esterror) * 1_000_000_000 / u128::from(last.period.frac());
        assert!(ppb < 500, "{ppb} ppb");
        assert!(tracker.points.len() <= SAMPLES);
    }

    #[test]
    fn samples_in_quick_succession_keep_the_promise() {
        let (mut host, mut tracker) = calibrated();
        let mut last = None;
        let mut published = 0;
        for _ in 0..5000 {
            let ticks = 10_000 + host.random(HERTZ / 200);
            host.run(ticks);
            let sample = host.sample();
            match tracker.observe(&sample) {
                Outcome::Tracked(next) => {
                    host.check(&next);
                    last.inspect(|last| assert_nested(last, &next));
                    last = Some(next);
                    published += 1;
                }
                Outcome::Calibrating => {}
                Outcome::Stepped => panic!("the clock runs on"),
            }
        }
        assert!(published > 1000, "{published} of 5000");
    }

    #[test]
    fn steering_of_500_ppm_is_covered() {
        let (mut host, mut tracker) = calibrated();
        let mut last = host.observe(&mut tracker);
        for round in 0..2000 {
            if round % 7 == 0 {
                host.ppb = i128::from(host.random(500_000)) - 250_000;
            }
            host.run(HERTZ / 20);
            host.check(&last);
            let next = host.observe(&mut tracker);
            assert_nested(&last, &next);
            last = next;
        }
    }

    #[test]
    fn step_is_noticed_and_calibration_starts_again() {
        for step in [-(1_i128 << 64), -(1 << 50), 1 << 50, 3600 << 64] {
            let (mut host, mut tracker) = calibrated();
            host.run(HERTZ / 20);
            let _estimate = host.observe(&mut tracker);
            host.clock += step;
            host.run(HERTZ / 20);
            let sample = host.sample();
            assert_eq!(tracker.observe(&sample), Outcome::Stepped, "{step}");
            // And if it is set again meanwhile, once more.
            host.run(HERTZ / 80);
            let sample = host.sample();
            assert_eq!(tracker.observe(&sample), Outcome::Calibrating);
            host.clock += step;
            for _ in 0..2 {
                host.run(HERTZ / 80);
                let sample = host.sample();
                assert_eq!(tracker.observe(&sample), Outcome::Calibrating);
            }
            host.run(HERTZ / 80);
            assert!(host.observe(&mut tracker).new_reference);
        }
    }

    #[test]
    fn steering_beyond_the_assumption_is_a_step() {
        let (mut host, mut tracker) = calibrated();
        host.ppb = 80_000_000;
        host.run(HERTZ / 20);
        let sample = host.sample();
        assert_eq!(tracker.observe(&sample), Outcome::Stepped);
        host.run(HERTZ / 80);
        let sample = host.sample();
        assert_eq!(tracker.observe(&sample), Outcome::Calibrating);
        host.run(HERTZ / 80);
        let estimate = host.observe(&mut tracker);
        host.run(HERTZ / 20);
        host.check(&estimate);
    }

    #[test]
    fn kernel_maxerror_widens_nothing_that_was_promised() {
        let (mut host, mut tracker) = calibrated();
        host.kernel = Kernel {
            synchronised: true,
            maxerror_us: 1000,
            esterror_us: 50,
            ..host.kernel
        };
        host.run(HERTZ / 20);
        let mut last = host.observe(&mut tracker);
        assert!(last.new_reference);
        assert!((1_000_000..1_000_200).contains(&last.maxerror.nanos()));
        assert!((50_000..50_200).contains(&last.esterror.nanos()));
        // The kernel adds 500 µs once a second, and a daemon takes it off again.
        for round in 0..2000 {
            host.kernel.maxerror_us = 1000 + 500 * (round / 20 % 64);
            host.run(HERTZ / 20);
            let next = host.observe(&mut tracker);
            assert!(!next.new_reference);
            assert_nested(&last, &next);
            last = next;
        }
        host.kernel.synchronised = false;
        host.run(HERTZ / 20);
        let next = host.observe(&mut tracker);
        assert!(next.new_reference && next.maxerror.nanos() < 150);
    }

    #[test]
    fn learning_tai_is_a_step() {
        let (mut host, mut tracker) = calibrated();
        host.run(HERTZ / 20);
        let sample = Sample {
            offset: None,
            ..host.sample()
        };
        assert_eq!(tracker.observe(&sample), Outcome::Stepped);
    }

    #[test]
    fn counter_at_a_time_is_not_late() {
        let (mut host, mut tracker) = calibrated();
        for _ in 0..100 {
            let (counter, time) = (host.counter, host.now());
            host.run(HERTZ / 50);
            let _estimate = host.observe(&mut tracker);
            let found = tracker.counter_at(time).expect("near");
            let early = counter.wrapping_sub(found);
            // 20 ms at 500 ppm are 10 µs.
            assert!(early < HERTZ / 50_000, "{early} ticks early");
        }
        assert_eq!(tracker.counter_at(Timestamp::from_parts(0, 0)), None);
    }

    #[test]
    fn nonsense_samples_never_panic() {
        let mut host = Simulation::new();
        let sample = host.sample();
        for counter in [0, 1, u64::MAX, 1 << 63] {
            for radius in [0, 1, u64::MAX] {
                for seconds in [i64::MIN, -1, 0, i64::MAX] {
                    let mut tracker = Tracker::default();
                    let time = Timestamp::from_parts(seconds, u64::MAX);
                    let _first = tracker.observe(&sample);
                    let _second = tracker.observe(&Sample {
                        counter,
                        radius,
                        time,
                        ..sample
                    });
                    let _third = tracker.observe(&Sample { counter, ..sample });
                    let _counter = tracker.counter_at(time);
                }
            }
        }
    }
}
