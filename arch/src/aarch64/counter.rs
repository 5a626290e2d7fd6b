//! The virtual counter of the generic timer.

use core::arch::{asm, global_asm};

use gnomon_clock::{Counter, CounterId, Ticks};

use super::sysreg::mrs;

/// `CNTVCT_EL0`, read after every earlier load has its value and before any later one begins.
///
/// A counter read is not ordered with loads by itself (Arm ARM, D12.2.2). `DSB ISHLD` completes the
/// earlier loads; the first `ISB`, or the self-synchronising register where the CPU has one
/// (`FEAT_ECV`), keeps the read from running ahead of that; the last `ISB` keeps later loads behind
/// it. The seqlock of the vmclock page needs the read to lie between its two loads in execution.
#[derive(Clone, Copy, Debug)]
pub struct VirtualCounter {
    self_synchronised: bool,
}

/// The counter of this CPU that a vmclock page speaks of.
#[must_use]
pub fn this_cpu() -> VirtualCounter {
    VirtualCounter {
        self_synchronised: mrs!("id_aa64mmfr0_el1") >> 60 != 0,
    }
}

impl Counter for VirtualCounter {
    const ID: CounterId = CounterId::ArmVcnt;

    #[inline]
    fn read(&self) -> Ticks {
        let ticks: u64;
        if self.self_synchronised {
            // SAFETY: CNTVCTSS_EL0 exists, as ID_AA64MMFR0_EL1.ECV said. `nomem` is left out on
            // purpose: the compiler must not move the page's loads across the counter read either.
            unsafe {
                asm!("dsb ishld", "mrs {}, s3_3_c14_c0_6", "isb", out(reg) ticks, options(nostack, preserves_flags));
            }
        } else {
            // SAFETY: CNTVCT_EL0 exists on every CPU with the generic timer; otherwise as above.
            unsafe {
                asm!("dsb ishld", "isb", "mrs {}, cntvct_el0", "isb", out(reg) ticks, options(nostack, preserves_flags));
            }
        }
        Ticks(ticks)
    }
}

/// The counter's frequency in Hz as firmware has set it (`CNTFRQ_EL0`), if it has.
#[must_use]
pub fn frequency() -> Option<u64> {
    Some(mrs!("cntfrq_el0") & 0xffff_ffff).filter(|&hertz| hertz != 0)
}

/// The physical counter (`CNTPCT_EL0`), read after every earlier instruction and before any later one;
/// `None` where a hypervisor does not let us. Never for time.
#[must_use]
pub fn physical() -> Option<u64> {
    // SAFETY: reads a counter; if that is an undefined instruction, `trap` knows it by its address
    // and steps over it.
    let ticks = unsafe { read_physical() };
    (ticks != u64::MAX).then_some(ticks)
}

/// Where the instruction stands that may be undefined.
pub(super) fn physical_address() -> u64 {
    physical_instruction as *const () as u64
}

global_asm!(
    ".section .text.read_physical, \"ax\"",
    ".globl {read}",
    "{read}:",
    "isb",
    ".globl {instruction}",
    "{instruction}:",
    "mrs x0, cntpct_el0",
    "isb",
    "ret",
    ".text",
    read = sym read_physical,
    instruction = sym physical_instruction,
);

unsafe extern "C" {
    /// Reads `CNTPCT_EL0`.
    fn read_physical() -> u64;
    /// A place in it, never called.
    fn physical_instruction();
}
