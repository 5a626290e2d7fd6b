//! What KVM adds to a PC: hypercalls and clock registers (Linux, `Documentation/virt/kvm/x86`).

use core::arch::asm;
use core::arch::x86_64::__cpuid;

use x86_64::registers::model_specific::Msr;

/// KVM, which is below.
#[derive(Clone, Copy, Debug)]
pub struct Kvm {
    /// The processor is AMD's, or one like it, and has an instruction of its own.
    is_amd: bool,
}

impl Kvm {
    /// KVM below this processor.
    ///
    /// # Safety
    /// CPUID must have shown KVM's signature. Elsewhere the instruction of a hypercall is undefined, or somebody
    /// else's.
    #[must_use]
    pub unsafe fn new() -> Self {
        const AMD: u32 = u32::from_le_bytes(*b"Auth");
        const HYGON: u32 = u32::from_le_bytes(*b"Hygo");
        Self {
            is_amd: matches!(__cpuid(0).ebx, AMD | HYGON),
        }
    }

    /// `KVM_HC_CLOCK_PAIRING` for the host's wall clock: RAX, zero or a negative error number.
    ///
    /// # Safety
    /// The 64 bytes at physical address `address` must be ours, for the host to write.
    #[must_use]
    pub unsafe fn clock_pairing(self, address: u64) -> i64 {
        const CLOCK_PAIRING: i64 = 9;
        const WALL_CLOCK: u64 = 0;
        let mut rax = CLOCK_PAIRING;
        // The first argument goes into RBX, which the compiler keeps for itself.
        if self.is_amd {
            // SAFETY: the instruction exists below KVM on this processor; the host writes what the caller
            // vouches for, and no register but RAX.
            unsafe {
                asm!("xchg rbx, {0}", "vmmcall", "xchg rbx, {0}", inout(reg) address => _,
                    inout("rax") rax, in("rcx") WALL_CLOCK, options(nostack));
            }
        } else {
            // SAFETY: as above.
            unsafe {
                asm!("xchg rbx, {0}", "vmcall", "xchg rbx, {0}", inout(reg) address => _,
                    inout("rax") rax, in("rcx") WALL_CLOCK, options(nostack));
            }
        }
        rax
    }

    /// Has the wall clock written to physical address `address` (`MSR_KVM_WALL_CLOCK_NEW`).
    ///
    /// # Safety
    /// CPUID must show `KVM_FEATURE_CLOCKSOURCE2`, or the register does not exist. The 12 bytes there, at a
    /// multiple of 4, must be ours, for the host to write.
    pub unsafe fn write_wall_clock(self, address: u64) {
        // SAFETY: the caller's promises.
        unsafe { Msr::new(0x4b56_4d00).write(address) };
    }

    /// Has the system time kept at physical address `address` (`MSR_KVM_SYSTEM_TIME_NEW`).
    ///
    /// # Safety
    /// CPUID must show `KVM_FEATURE_CLOCKSOURCE2`, or the register does not exist. The 32 bytes there, at a
    /// multiple of 4 and in one page, must be ours, for the host to write, for ever.
    pub unsafe fn write_system_time(self, address: u64) {
        const ENABLE: u64 = 1;
        // SAFETY: the caller's promises.
        unsafe { Msr::new(0x4b56_4d01).write(address | ENABLE) };
    }
}
