//! Instants, spans, bounds and counter values, each in a type of its own.
//!
//! Everything is an integer number of 2⁻⁶⁴ s, the unit of the vmclock page, so that nothing is
//! rounded on the way in: a page's `time_sec` and `time_frac_sec` *are* a [`Timestamp`].

use core::fmt;
use core::marker::PhantomData;

use crate::calendar;

const NANOS: u64 = 1_000_000_000;

/// Seconds from the start of NTP era 0 (1900-01-01) to 1970-01-01, RFC 5905 §6.
const NTP_UNIX_OFFSET: i64 = 2_208_988_800;

/// International Atomic Time: every second counts, none is repeated or left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tai {}

/// Coordinated Universal Time in POSIX coding: 86 400 seconds to every day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Utc {}

/// The scale on which a timeline extrapolates: uniform like TAI, and equal to it whenever the
/// page tells TAI − UTC. Without that it is UTC as it stood at the reference instant, carried on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Linear {}

mod sealed {
    #[expect(unnameable_types, reason = "this is the seal")]
    pub trait Sealed {
        const NAME: &'static str;
        /// What a printed instant ends with.
        const SUFFIX: &'static str;
    }
    impl Sealed for super::Tai {
        const NAME: &'static str = "Tai";
        const SUFFIX: &'static str = " TAI";
    }
    impl Sealed for super::Utc {
        const NAME: &'static str = "Utc";
        const SUFFIX: &'static str = "Z";
    }
    impl Sealed for super::Linear {
        const NAME: &'static str = "Linear";
        const SUFFIX: &'static str = "";
    }
}

/// A time scale: [`Tai`] or [`Utc`]. Sealed, because the crate's arithmetic is about these two.
pub trait Timescale: sealed::Sealed + Copy + Ord {}
impl Timescale for Tai {}
impl Timescale for Utc {}
impl Timescale for Linear {}

/// An instant: 2⁻⁶⁴ s since 1970-01-01T00:00:00 of the scale `S`.
///
/// The range is that of `i64` seconds. A UTC timestamp is POSIX-coded, so the inserted second
/// 23:59:60 repeats the code of 23:59:59; [`UtcTime::leap_second`](crate::UtcTime::leap_second)
/// tells the two apart.
///
/// Instants of one scale can be compared and subtracted:
/// ```
/// use gnomon_clock::{Span, Tai, Timestamp, Utc};
/// let utc = Timestamp::<Utc>::from_parts(1_483_228_800, 0);
/// assert_eq!(utc.since(utc), Some(Span::from_seconds(0)));
/// ```
/// Instants of different scales cannot, because the answer depends on leap seconds:
/// ```compile_fail,E0308
/// use gnomon_clock::{Span, Tai, Timestamp, Utc};
/// let utc = Timestamp::<Utc>::from_parts(1_483_228_800, 0);
/// let tai = Timestamp::<Tai>::from_parts(1_483_228_837, 0);
/// assert_eq!(utc.since(tai), Some(Span::from_seconds(-37)));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp<S: Timescale>(i128, PhantomData<S>);

impl<S: Timescale> Timestamp<S> {
    /// The instant `seconds` and `fraction`·2⁻⁶⁴ s after 1970. Every pair is an instant.
    #[must_use]
    pub const fn from_parts(seconds: i64, fraction: u64) -> Self {
        // The low 64 bits are free after the shift, so `|` is an addition.
        Self(((seconds as i128) << 64) | fraction as i128, PhantomData)
    }

    /// Whole seconds since 1970, rounded down (also before 1970).
    #[must_use]
    pub const fn seconds(self) -> i64 {
        (self.0 >> 64) as i64
    }

    /// The rest above [`seconds`](Self::seconds), in 2⁻⁶⁴ s.
    #[must_use]
    pub const fn fraction(self) -> u64 {
        low(self.0.cast_unsigned())
    }

    /// Nanoseconds of the second, 0..=999 999 999, truncated.
    #[must_use]
    pub const fn nanos(self) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "less than 10⁹")]
        let nanos = ((self.fraction() as u128 * NANOS as u128) >> 64) as u32;
        nanos
    }

    /// The instant `span` later; `None` when it lies outside ±2⁶³ s.
    #[must_use]
    pub const fn checked_add(self, span: Span) -> Option<Self> {
        match self.0.checked_add(span.0) {
            Some(instant) => Some(Self(instant, PhantomData)),
            None => None,
        }
    }

    /// The instant `span` earlier; `None` when it lies outside ±2⁶³ s.
    #[must_use]
    pub const fn checked_sub(self, span: Span) -> Option<Self> {
        match self.0.checked_sub(span.0) {
            Some(instant) => Some(Self(instant, PhantomData)),
            None => None,
        }
    }

    /// Time from `earlier` to `self` on the scale `S`; `None` when it exceeds ±2⁶³ s.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Option<Span> {
        match self.0.checked_sub(earlier.0) {
            Some(span) => Some(Span(span)),
            None => None,
        }
    }

    /// The instant `units` of 2⁻⁶⁴ s later, which is known to be in range.
    #[inline]
    pub(crate) const fn later(self, units: u64) -> Self {
        Self(self.0.wrapping_add(units as i128), PhantomData)
    }

    /// The same count on another scale: for the one place that knows what the count means.
    pub(crate) const fn relabel<T: Timescale>(self) -> Timestamp<T> {
        Timestamp(self.0, PhantomData)
    }
}

impl Timestamp<Utc> {
    /// The NTP timestamp, truncated to 2⁻³² s. Wraps with the era (first in 2036), RFC 5905 §6.
    #[must_use]
    pub const fn to_ntp(self) -> NtpTimestamp {
        let seconds = self.seconds().wrapping_add(NTP_UNIX_OFFSET).cast_unsigned();
        NtpTimestamp((seconds << 32) | (self.fraction() >> 32))
    }
}

/// Seconds and fraction, and the name of the scale.
impl<S: Timescale> fmt::Debug for Timestamp<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}({} s + {:#018x}/2^64)",
            S::NAME,
            self.seconds(),
            self.fraction()
        )
    }
}

/// Date and time of day with nine digits of the second, truncated: `2026-11-20T12:05:31.123456789Z`.
/// An inserted second shows as the :59 that it is coded as; [`UtcTime`](crate::UtcTime) knows better.
impl<S: Timescale> fmt::Display for Timestamp<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        calendar::write_timestamp(f, *self, false)?;
        f.write_str(S::SUFFIX)
    }
}

/// An NTP timestamp: 32 bits of seconds since 1900 modulo the era, 32 bits of fraction (RFC 5905 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NtpTimestamp(pub u64);

/// A signed length of time in 2⁻⁶⁴ s, within ±2⁶³ s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(i128);

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// A whole number of seconds.
    #[must_use]
    pub const fn from_seconds(seconds: i64) -> Self {
        Self((seconds as i128) << 64)
    }

    /// A number of nanoseconds, rounded up to 2⁻⁶⁴ s: so [`as_nanos_floor`](Self::as_nanos_floor)
    /// gives it back.
    #[must_use]
    pub const fn from_nanos(nanos: i64) -> Self {
        let scaled = (nanos as i128) << 64;
        let inexact = scaled.rem_euclid(NANOS as i128) != 0;
        Self(scaled.div_euclid(NANOS as i128) + inexact as i128)
    }

    /// A number of 2⁻⁶⁴ s.
    #[must_use]
    pub const fn from_units(units: i128) -> Self {
        Self(units)
    }

    /// The span with `units` of 2⁻⁶⁴ s more, which is known to be in range.
    #[inline]
    pub(crate) const fn longer(self, units: u64) -> Self {
        Self(self.0.wrapping_add(units as i128))
    }

    /// The length in 2⁻⁶⁴ s.
    #[must_use]
    pub const fn units(self) -> i128 {
        self.0
    }

    /// The length in nanoseconds, rounded down (towards minus infinity).
    #[must_use]
    pub const fn as_nanos_floor(self) -> i128 {
        let fraction = low(self.0.cast_unsigned()) as i128;
        (self.0 >> 64) * NANOS as i128 + ((fraction * NANOS as i128) >> 64)
    }

    /// The length without its sign (−2⁶³ s becomes the longest span).
    #[must_use]
    pub const fn abs(self) -> Self {
        Self(self.0.saturating_abs())
    }
}

/// The half-width of an error interval in 2⁻⁶⁴ s. Never negative, always rounded outward, and
/// saturating: a bound that no longer fits is [`Bound::MAX`], which claims nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bound(u128);

impl Bound {
    /// No error. Only for sums to start from.
    pub const ZERO: Self = Self(0);
    /// Nothing is known.
    pub const MAX: Self = Self(u128::MAX);

    /// A number of nanoseconds, rounded up to 2⁻⁶⁴ s ([`nanos`](Self::nanos) rounds up again, and
    /// may give one more).
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        let (fraction, inexact) = fraction_of(nanos % NANOS);
        Self((((nanos / NANOS) as u128) << 64) + fraction as u128 + inexact as u128)
    }

    /// A number of 2⁻⁶⁴ s.
    #[must_use]
    pub const fn from_units(units: u128) -> Self {
        Self(units)
    }

    /// The half-width in 2⁻⁶⁴ s.
    #[must_use]
    pub const fn units(self) -> u128 {
        self.0
    }

    /// Both errors together: bounds add, they are never root-sum-squared.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// Whether an error of `error` lies within the bound.
    #[must_use]
    pub const fn contains(self, error: Span) -> bool {
        error.0.unsigned_abs() <= self.0
    }

    /// The half-width in nanoseconds, rounded up; `u64::MAX` when it is longer.
    #[must_use]
    pub const fn nanos(self) -> u64 {
        let whole = (self.0 >> 64) * NANOS as u128;
        let rest = (low(self.0) as u128 * NANOS as u128).div_ceil(1 << 64);
        saturate(whole + rest)
    }

    /// The half-width in NTP's short format, rounded up to 2⁻¹⁶ s and saturating (RFC 5905 §6).
    #[must_use]
    pub const fn to_ntp_short(self) -> u32 {
        let units = self.0.div_ceil(1 << 48);
        if units > u32::MAX as u128 {
            return u32::MAX;
        }
        #[expect(clippy::cast_possible_truncation, reason = "compared just above")]
        let short = units as u32;
        short
    }
}

/// A value of the hardware counter that the page refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticks(pub u64);

impl Ticks {
    /// Ticks from `earlier` to `self` modulo 2⁶⁴, read as signed: a counter slightly *behind* the
    /// page's reference is a few ticks ago, not centuries ahead.
    #[must_use]
    pub const fn since(self, earlier: Self) -> i64 {
        self.0.wrapping_sub(earlier.0).cast_signed()
    }
}

const fn low(units: u128) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "the low half is wanted")]
    let low = units as u64;
    low
}

/// `nanos` below 10⁹ in 2⁻⁶⁴ s, rounded down, and whether that lost anything. In two steps of 32
/// bits, because this is on the way of every answer and a 128-bit division is not cheap.
const fn fraction_of(nanos: u64) -> (u64, bool) {
    let high = nanos << 32;
    let low = (high % NANOS) << 32;
    (
        ((high / NANOS) << 32) | (low / NANOS),
        !low.is_multiple_of(NANOS),
    )
}

const fn saturate(value: u128) -> u64 {
    if value > u64::MAX as u128 {
        u64::MAX
    } else {
        low(value)
    }
}
