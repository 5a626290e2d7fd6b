//! Two sources at one counter value: do they agree, and if not, what does it look like?

use core::fmt;

use crate::time::{Bound, Span};
use crate::timeline::Reading;

/// TAI − UTC that a difference is held against when neither source tells one: that of 2017 and after.
/// It only names a difference, and is no part of any time.
const TAI_MINUS_UTC: i16 = 37;

/// What two readings at the same counter value have to do with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// They lie within the sum of their bounds.
    Agree {
        /// How much later the second is.
        apart: Span,
    },
    /// They do not: one of the two at least is wrong.
    Disagree(Difference),
    /// One knows TAI only, and the other UTC only.
    Incomparable,
}

/// By how much two sources that should agree do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// How much later the second is.
    pub apart: Span,
    /// The sum of their bounds, which `apart` exceeds.
    pub tolerance: Bound,
    /// What it looks like.
    pub likely: Likely,
}

/// What a difference looks like, in the order in which it is tried. A guess, for people: a wide bound
/// fits many guesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Likely {
    /// TAI − UTC, or twice that, within the bounds: one takes TAI for UTC, or has the sign wrong.
    TaiUtcConfusion,
    /// A second within the bounds: one does not know of a leap second, or knows of one that is not.
    LeapSecond,
    /// Less than a second: one may be smearing a leap second.
    Smearing,
    /// Nothing known.
    Unexplained,
}

impl fmt::Display for Likely {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TaiUtcConfusion => "TAI/UTC confusion",
            Self::LeapSecond => "a leap second that one of them does not know",
            Self::Smearing => "possibly smearing",
            Self::Unexplained => "unexplained",
        })
    }
}

/// `37000000012 ns apart, bounds 40000 ns: TAI/UTC confusion`
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            apart,
            tolerance,
            likely,
        } = self;
        let (apart, tolerance) = (apart.as_nanos_floor(), tolerance.nanos());
        write!(f, "{apart} ns apart, bounds {tolerance} ns: {likely}")
    }
}

/// Compares two readings of one counter value ([`Timeline::at`](crate::Timeline::at) of both lines): in
/// UTC if both know it, since that is what is served, otherwise in TAI.
#[must_use]
pub fn compare(first: &Reading, second: &Reading) -> Comparison {
    let apart = match (first.utc, second.utc, first.tai, second.tai) {
        (Some(first), Some(second), _, _) => second.time.since(first.time),
        (_, _, Some(first), Some(second)) => second.since(first),
        _ => return Comparison::Incomparable,
    };
    // Readings lie between 1970 and 2⁶³ s, so that their difference always exists.
    let apart = apart.unwrap_or(Span::from_units(i128::MAX));
    let tolerance = first.bound.plus(second.bound);
    if tolerance.contains(apart) {
        return Comparison::Agree { apart };
    }
    let offset = first.tai_offset.or(second.tai_offset);
    Comparison::Disagree(Difference::new(apart, tolerance, offset))
}

impl Difference {
    /// Names a difference, where TAI − UTC is `offset` if it is known.
    pub(crate) fn new(apart: Span, tolerance: Bound, offset: Option<i16>) -> Self {
        let offset = i64::from(offset.unwrap_or(TAI_MINUS_UTC));
        let magnitude = apart.abs();
        let is_near = |seconds: i64| {
            magnitude
                .units()
                .checked_sub(Span::from_seconds(seconds).units())
                .is_some_and(|rest| tolerance.contains(Span::from_units(rest)))
        };
        let likely = if is_near(offset) || is_near(2 * offset) {
            Likely::TaiUtcConfusion
        } else if is_near(1) {
            Likely::LeapSecond
        } else if magnitude < Span::from_seconds(1) {
            Likely::Smearing
        } else {
            Likely::Unexplained
        };
        Self {
            apart,
            tolerance,
            likely,
        }
    }
}
