//! Counter ticks to time: one 64 × 64 → 128 bit product and a shift, with the sign kept outside.

use crate::time::{Bound, Span};
use crate::timeline::Unusable;

/// The length of one tick: `frac` · 2^−(64+`shift`) s.
///
/// Ticks are taken as `i64`, so their magnitude is at most 2⁶³ and the product with a 64-bit
/// `frac` stays below 2¹²⁷: no tick count and no period can overflow before or after the shift.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    frac: u64,
    shift: u8,
    /// The length of a tick in 2⁻⁶⁴ s, rounded up.
    tick: u64,
}

impl Period {
    /// A period as the page gives it: `counter_period_frac_sec` and `counter_period_shift`.
    ///
    /// # Errors
    /// [`Unusable::PeriodShift`] when the shift is above 127, [`Unusable::ZeroPeriod`] when the
    /// counter would never advance time.
    pub const fn new(frac: u64, shift: u8) -> Result<Self, Unusable> {
        if shift > 127 {
            return Err(Unusable::PeriodShift(shift));
        }
        if frac == 0 {
            return Err(Unusable::ZeroPeriod);
        }
        Ok(Self::with_tick(frac, shift))
    }

    const fn with_tick(frac: u64, shift: u8) -> Self {
        let tick = match frac.checked_shr(shift as u32) {
            // If anything was shifted out, the rest is below 2⁶³.
            Some(whole) => whole + (whole << shift != frac) as u64,
            None => 1,
        };
        Self { frac, shift, tick }
    }

    /// The period of a counter of `hertz`, with all 64 bits of `frac` in use and rounded to
    /// nearest; `None` below 2 Hz, where `frac` cannot hold it.
    #[must_use]
    pub const fn from_hertz(hertz: u64) -> Option<Self> {
        if hertz < 2 {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "a logarithm of a u64")]
        let shift = (hertz - 1).ilog2() as u8;
        let frac = ((1u128 << (64 + shift)) + hertz as u128 / 2) / hertz as u128;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "2^shift < hertz, so below 2⁶⁴"
        )]
        Some(Self::with_tick(frac as u64, shift))
    }

    /// `counter_period_frac_sec`.
    #[must_use]
    pub const fn frac(self) -> u64 {
        self.frac
    }

    /// `counter_period_shift`.
    #[must_use]
    pub const fn shift(self) -> u8 {
        self.shift
    }

    /// The time of `ticks` ticks, truncated towards zero: off by less than 2⁻⁶⁴ s.
    #[must_use]
    #[inline]
    pub const fn span(self, ticks: i64) -> Span {
        let product = ticks.unsigned_abs() as u128 * self.frac as u128;
        let magnitude = (product >> self.shift).cast_signed();
        Span::from_units(if ticks < 0 { -magnitude } else { magnitude })
    }

    /// An upper bound of the time of `ticks` ticks of either sign.
    #[must_use]
    pub const fn span_outward(self, ticks: i64) -> Bound {
        self.rate_outward(ticks.unsigned_abs(), self.frac)
    }

    /// An upper bound of the time of one tick: `span_outward(1)`, worked out before.
    #[must_use]
    pub const fn tick_outward(self) -> Bound {
        Bound::from_units(self.tick as u128)
    }

    /// An upper bound of `ticks` · `rate` · 2^−(64+shift) s: how much an error of `rate` per tick,
    /// in the unit of this period, adds up to.
    #[must_use]
    #[inline]
    pub const fn rate_outward(self, ticks: u64, rate: u64) -> Bound {
        let product = ticks as u128 * rate as u128;
        let whole = product >> self.shift;
        let inexact = (whole << self.shift) != product;
        // A product of two u64 is at most 2¹²⁸ − 2⁶⁵ + 1, so one more still fits.
        Bound::from_units(whole + inexact as u128)
    }
}
