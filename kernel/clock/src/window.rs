//! A stretch of a line along which only the time and its bound move, so that a reading on it is two products
//! and two sums of what was worked out before.
//!
//! Let the window begin D ticks after the line's reference, with the period P = f·2^−(64+s) s, 2⁶³ ≤ f, and its
//! error e in the same unit, and let d < 2^s ticks have passed since. The line has moved on from where it was at
//! D by ⌊(R + d·f)·2^−s⌋ units with R = D·f mod 2^s, and its bound by ⌊(Q + d·e)·2^−s⌋ with
//! Q = ((D + 1)·e − 1) mod 2^s, for ⌈x·2^−s⌉ is ⌊(x − 1)·2^−s⌋ + 1. These are to the last bit the
//! numbers of [`Timeline::at`]. Both are below 2⁶⁴: a window is shorter than a second. With 2^(64−s) taken
//! into d, R and Q, which then still fit 64 bits, they are the upper halves of the sums.

use crate::time::{Bound, Ticks};
use crate::timeline::{Reading, Timeline};

/// A window of a line. The reading at its beginning is kept beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    begin: Ticks,
    /// Its length, 2^s; nothing lies in one of 0.
    ticks: u64,
    /// 64 − s.
    lift: u32,
    time: Rate,
    error: Rate,
    /// The bound at the beginning, in 2⁻⁶⁴ s.
    bound: u64,
}

/// What moves along a window: `rest` at its beginning and `per_tick` more with each tick, both in 2^−64 of a unit
/// when ticks are lifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rate {
    per_tick: u64,
    rest: u64,
}

impl Rate {
    const NONE: Self = Self {
        per_tick: 0,
        rest: 0,
    };

    /// Whole units after that many lifted ticks.
    #[inline]
    const fn over(self, lifted: u64) -> u64 {
        let sum = lifted as u128 * self.per_tick as u128 + self.rest as u128;
        (sum >> 64) as u64
    }
}

/// A counter value in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) ticks: Ticks,
    /// How much later than the window's beginning, in 2⁻⁶⁴ s.
    pub(crate) later: u64,
    pub(crate) bound: Bound,
}

impl Window {
    /// The window in which nothing lies.
    pub(crate) const NONE: Self = Self {
        begin: Ticks(0),
        ticks: 0,
        lift: 1,
        time: Rate::NONE,
        error: Rate::NONE,
        bound: 0,
    };

    /// A window of `line` with `ticks` in its first half. There is none before
    /// the reference, where a tick is a second or below 2⁻⁶⁴ s, where the bound is a second or time out of range, and
    /// where within a second a leap second, or the day that ends with it, begins or ends.
    pub(crate) fn around(line: &Timeline, ticks: Ticks) -> Option<Self> {
        let elapsed = u64::try_from(ticks.since(line.counter())).ok()?;
        let (period, error) = (line.period().frac(), line.period_error());
        let spare = period.leading_zeros();
        if error.leading_zeros() < spare {
            return None;
        }
        let shift = u32::from(line.period().shift()) + spare;
        if !(1..64).contains(&shift) {
            return None;
        }
        let length = 1_u64 << shift;
        // In steps of half a length.
        let passed = elapsed & !(length / 2 - 1);
        i64::try_from(passed.checked_add(length)?).ok()?;
        let begin = Ticks(line.counter().0.wrapping_add(passed));
        if !line.is_even_after(begin) {
            return None;
        }
        // It widens by no more than the error of 2^s ticks, and has to fit until the end.
        let bound = u64::try_from(line.bound_at(begin).units()).ok()?;
        bound.checked_add(error << spare)?;
        let lift = 64 - shift;
        let rate = |per_tick: u64, ticks: u64, less: u64| {
            let per_tick = per_tick << spare;
            // Modulo 2⁶⁴, and then modulo 2^s.
            let sum = per_tick.wrapping_mul(ticks).wrapping_sub(less);
            Rate {
                per_tick,
                rest: sum << lift,
            }
        };
        Some(Self {
            begin,
            ticks: length,
            lift,
            time: rate(period, passed, 0),
            error: rate(error, passed + 1, 1),
            bound,
        })
    }

    /// Its first counter value.
    pub(crate) const fn begin(&self) -> Ticks {
        self.begin
    }

    /// Whether nothing lies in it.
    pub(crate) const fn is_empty(&self) -> bool {
        self.ticks == 0
    }

    /// What it is at a counter value, if that lies in the window.
    #[inline]
    pub(crate) const fn at(&self, ticks: Ticks) -> Option<Moment> {
        let passed = ticks.0.wrapping_sub(self.begin.0);
        if passed >= self.ticks {
            return None;
        }
        let lifted = passed << (self.lift & 63);
        let (later, wider) = (self.time.over(lifted), self.error.over(lifted));
        Some(Moment {
            ticks,
            later,
            // It was seen to fit.
            bound: Bound::from_units(self.bound.wrapping_add(wider) as u128),
        })
    }
}

impl Moment {
    /// A reading by itself.
    pub(crate) const fn of(reading: &Reading) -> Self {
        Self {
            ticks: reading.ticks,
            later: 0,
            bound: reading.bound,
        }
    }
}
