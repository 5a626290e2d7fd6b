//! What firmware and hypervisor offer beside the vmclock page, each service by itself: any of them may be
//! absent or denied, and none of the others suffers from that.
//!
//! * [`smccc`]: calls of Arm's firmware and hypervisors;
//! * [`hypervisor`]: what CPUID tells on `x86_64`;
//! * [`counters`]: the counter's rate and its two views, held against the page.
//!
//! Everything here decides by plain values; `boot` brings the instructions.

use core::fmt::{self, Display, Write};

use self::counters::Rate;

pub mod counters;
pub mod hypervisor;
pub mod smccc;

/// What has been found on this machine.
pub trait Services {
    /// Prints a line for each service, present or absent.
    ///
    /// # Errors
    /// What `out` returns.
    fn list(&self, out: &mut dyn Write) -> fmt::Result;

    /// The counter's rate in the machine's own words.
    fn rate(&self) -> Option<Rate>;

    /// Whether the counter is said to run at the same rate always; `None` where nobody says.
    fn is_invariant(&self) -> Option<bool> {
        None
    }

    /// For how many nanoseconds the host has kept the CPU from us since the start, where it tells.
    fn stolen(&self) -> Option<u64>;
}

// Not by the type behind it: that would bring the means to print everything into the image.
impl fmt::Debug for dyn Services + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Services")
    }
}

/// A machine that offers nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nothing;

impl Services for Nothing {
    fn list(&self, _: &mut dyn Write) -> fmt::Result {
        Ok(())
    }

    fn rate(&self) -> Option<Rate> {
        None
    }

    fn stolen(&self) -> Option<u64> {
        None
    }
}

/// Prints one service: what is known of it, or that it is absent.
fn row(out: &mut dyn Write, name: &str, found: Option<&dyn Display>) -> fmt::Result {
    match found {
        Some(found) => writeln!(out, "{name:<12}{found}"),
        None => writeln!(out, "{name:<12}absent"),
    }
}
