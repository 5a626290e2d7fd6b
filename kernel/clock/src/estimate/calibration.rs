//! The counter's rate by a timer of a known one: the ACPI power management timer.
//!
//! # The argument
//!
//! Each reading of the timer lies between two readings of the counter. If the timer went on by d between two of them,
//! the true difference lies between d − 1 and d + 1 of its ticks; and the counter went on by at least
//! the inner and at most the outer distance of the two brackets, give or take a tick. That bounds the length of the counter's
//! tick from both sides, rounded outward.
//!
//! What could make this wrong is an *interruption*: a hypervisor that lets one of the two go on while the other stands still,
//! as when it pauses a machine. So three readings are used, and two rates: from the first to the middle one and on to
//! the last. If there was one interruption at most, one of the two is right, and so is everything that holds for both,
//! which is all that is claimed: from the lesser of the lower ends to the greater of the upper ones. Two that do not
//! even overlap show an interruption, and all begins anew.
//!
//! Each reading is twice as far from the first one as the one before; so the bound halves with each, and is
//! hundredths of a percent after a fraction of a second.

use super::interval::{Prior, Rates, quotient, scaled};
use crate::cross::Bracket;
use crate::estimate::SHIFT;

/// The frequency of the ACPI power management timer in Hz (ACPI 6.5 §4.8.3.3).
pub const TIMER_HERTZ: u32 = 3_579_545;

/// The bits of it that every machine has.
const BITS: u32 = 0x00ff_ffff;
/// The first reading after the first one is so many ticks later at least: 1 ms.
const LEAST: u64 = 3_580;
/// With readings so far apart no more are wanted: 0.25 s.
const ENOUGH: u64 = TIMER_HERTZ as u64 / 4;
/// A machine that needs more of them has no such timer.
const READINGS: u8 = 32;
const BILLION: u32 = 1_000_000_000;

/// What readings of the timer tell of the counter's rate, under one disruption marker.
#[derive(Clone, Debug)]
pub struct Calibration {
    first: Option<Reading>,
    /// The last one, if it is not the first.
    last: Option<Reading>,
    /// Of the last one, or the first.
    shown: u32,
    /// What all triples so far allow.
    rates: Option<Rates>,
    /// How many readings are worth while.
    left: u8,
}

/// The counter's bracket, and the timer in ticks since the first reading.
#[derive(Clone, Copy, Debug)]
struct Reading {
    bracket: Bracket,
    ticks: u64,
}

impl Calibration {
    /// Nothing has been read.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            first: None,
            last: None,
            shown: 0,
            rates: None,
            left: READINGS,
        }
    }

    /// Takes a reading: the timer showed `shown` while the counter was in `bracket`. They come in their order,
    /// less than 4.6 s after each other. Returns whether [`prior`](Self::prior) is another one now.
    pub fn add(&mut self, bracket: Bracket, shown: u32) -> bool {
        self.left = self.left.saturating_sub(1);
        let Some((first, last)) = self.first.map(|first| (first, self.last.unwrap_or(first)))
        else {
            self.start(bracket, shown);
            return false;
        };
        let passed = shown.wrapping_sub(self.shown) & BITS;
        let new = Reading {
            bracket,
            ticks: last.ticks + u64::from(passed),
        };
        if new.ticks < LEAST {
            return false;
        }
        let rates = self.last.map(|middle| {
            let rates = Rates::of_both([first.to(&middle)?, middle.to(&new)?])?;
            let rates = rates.intersected(self.rates.unwrap_or(Rates::PLAUSIBLE));
            (rates.low <= rates.high).then_some(rates)
        });
        if rates == Some(None) {
            let was_known = self.rates.is_some();
            self.start(bracket, shown);
            return was_known;
        }
        let rates = rates.flatten();
        let is_better = rates != self.rates;
        (self.last, self.shown, self.rates) = (Some(new), shown, rates);
        is_better
    }

    fn start(&mut self, bracket: Bracket, shown: u32) {
        *self = Self {
            first: Some(Reading { bracket, ticks: 0 }),
            last: None,
            shown,
            rates: None,
            left: self.left,
        };
    }

    /// In how many nanoseconds the next reading is wanted; `None` when no more are.
    #[must_use]
    pub fn wait(&self) -> Option<u64> {
        let ticks = match (self.first, self.last) {
            (None, _) => 0,
            (Some(_), None) => LEAST,
            (Some(_), Some(last)) => last.ticks,
        };
        let is_wanted = ticks < ENOUGH && self.left > 0;
        is_wanted.then(|| (ticks * u64::from(BILLION)).div_ceil(u64::from(TIMER_HERTZ)))
    }

    /// What is known of the counter's period, if the timer's frequency is off by at most `tolerance` parts per
    /// billion, which has to include the steering of the clock that time is told by; `None` while that is too little,
    /// and for a tolerance above a tenth.
    #[must_use]
    pub fn prior(&self, tolerance: u32) -> Option<Prior> {
        let rates = self.known().filter(|_| tolerance <= BILLION / 10)?;
        Some(Prior(Rates {
            low: scaled(rates.low, BILLION, BILLION + tolerance, false),
            high: scaled(rates.high, BILLION, BILLION - tolerance, true),
        }))
    }

    /// The counter's frequency by the timer in Hz, and by how many parts per million it may be off.
    #[must_use]
    pub fn hertz(&self) -> Option<(u64, u64)> {
        let Rates { low, high } = self.known()?;
        let middle = i128::from(low + (high - low) / 2);
        let off = i128::from((high - low).div_ceil(2)) * 1_000_000;
        Some((
            quotient(1 << (64 + SHIFT), middle, false),
            quotient(off, middle, true),
        ))
    }

    /// An eighth to either side is not worth to be called a rate.
    fn known(&self) -> Option<Rates> {
        self.rates
            .filter(|rates| rates.high - rates.low <= rates.low / 8)
    }
}

impl Default for Calibration {
    fn default() -> Self {
        Self::new()
    }
}

impl Reading {
    /// The length of a tick between this and a later one; `None` if the counter does not go on from one to the other.
    fn to(&self, later: &Self) -> Option<Rates> {
        let (from, to) = (self.bracket, later.bracket);
        let inner = i128::from(to.before.since(from.after)) - 1;
        let outer = i128::from(to.after.since(from.before)) + 1;
        if inner <= 0 {
            return None;
        }
        let ticks = i128::from(later.ticks.abs_diff(self.ticks));
        let rate = |ticks: i128, counted: i128, up| {
            let counted = counted * i128::from(TIMER_HERTZ);
            quotient(ticks << (64 + SHIFT), counted, up)
        };
        Some(Rates {
            low: rate((ticks - 1).max(0), outer, false),
            high: rate(ticks + 1, inner, true),
        })
    }
}

impl Rates {
    /// What holds for both, if they can both be right.
    fn of_both([first, second]: [Self; 2]) -> Option<Self> {
        let common = first.intersected(second);
        (common.low <= common.high).then(|| Self {
            low: first.low.min(second.low),
            high: first.high.max(second.high),
        })
    }
}
