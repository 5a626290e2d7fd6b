//! The sequence that `Counter::read` asks for on Arm, without the means to choose another.

use core::arch::asm;

use gnomon_clock::{Counter, CounterId, Ticks};

pub struct VirtualCounter;

pub const fn this_cpu() -> VirtualCounter {
    VirtualCounter
}

/// As in `arch`, there is more than the probe looks at.
pub const fn physical() -> Option<u64> {
    None
}

impl Counter for VirtualCounter {
    const ID: CounterId = CounterId::ArmVcnt;

    #[inline]
    fn read(&self) -> Ticks {
        let ticks: u64;
        // SAFETY: reads a register that every Arm machine lets its kernel read.
        unsafe {
            asm!("dsb ishld", "isb", "mrs {}, cntvct_el0", "isb", out(reg) ticks, options(nostack, preserves_flags));
        }
        Ticks(ticks)
    }
}
