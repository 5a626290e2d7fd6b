//! The time stamp counter.

use core::arch::asm;

use gnomon_clock::{Counter, CounterId, Ticks};

/// The TSC of this CPU, read with `RDTSC` between two `LFENCE`s.
///
/// `RDTSC` alone may execute before earlier loads have completed and after later ones have begun
/// (Intel SDM vol. 2, RDTSC; AMD APM vol. 3 makes `LFENCE` dispatch serialising where the operating
/// system asks for it, which every hypervisor does). The seqlock of the vmclock page needs the read
/// to lie between its two loads in execution.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tsc;

/// The counter of this CPU that a vmclock page speaks of.
#[must_use]
pub const fn this_cpu() -> Tsc {
    Tsc
}

impl Counter for Tsc {
    const ID: CounterId = CounterId::X86Tsc;

    #[inline]
    fn read(&self) -> Ticks {
        let (low, high): (u32, u32);
        // SAFETY: both instructions exist on every x86_64 CPU and touch no memory. `nomem` is left
        // out on purpose: the compiler must not move the page's loads across the counter
        // read either.
        unsafe {
            asm!("lfence", "rdtsc", "lfence", out("eax") low, out("edx") high, options(nostack, preserves_flags));
        }
        Ticks(u64::from(high) << 32 | u64::from(low))
    }
}

/// There is no second view of the TSC.
#[must_use]
pub const fn physical() -> Option<u64> {
    None
}
