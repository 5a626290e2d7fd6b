//! What each command prints, by theme.

use core::fmt::{self, Display, Formatter};

use gnomon_clock::Span;

pub(super) mod machine;
pub(super) mod net;
pub(super) mod page;
pub(super) mod status;
pub(super) mod time;

/// Nanoseconds of a second.
const NANOS: u128 = 1_000_000_000;

/// A code of the page by name, if it has one.
pub(super) struct Coded<T>(Result<T, u8>);

impl<T: TryFrom<u8, Error = u8>> Coded<T> {
    pub(super) fn new(code: u8) -> Self {
        Self(T::try_from(code))
    }
}

impl<T: Display> Display for Coded<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Ok(known) => known.fmt(f),
            Err(code) => write!(f, "not a known code ({code})"),
        }
    }
}

/// A span of time in seconds, truncated to nanoseconds; `{:+}` shows the sign in any case.
pub(super) struct Seconds(pub(super) Span);

impl Display for Seconds {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let nanos = self.0.abs().as_nanos_floor().unsigned_abs();
        let sign = match self.0.units().signum() {
            -1 => "-",
            1 if f.sign_plus() => "+",
            _ => "",
        };
        write!(f, "{sign}{}.{:09} s", nanos / NANOS, nanos % NANOS)
    }
}
