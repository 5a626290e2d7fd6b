//! What `tests/codegen.rs` compiles for the bare targets, to look at the instructions.
#![no_std]

use gnomon_clock::page::Misplaced;
use gnomon_clock::{Busy, Clock, Counter, Fields, Stamp, Ticks, VmclockPage, Writer};

#[cfg(target_arch = "x86_64")]
#[expect(dead_code, reason = "only the counter's reading is looked at")]
#[path = "../../../../arch/src/x86_64/counter.rs"]
mod counter;

#[cfg(target_arch = "x86_64")]
use counter::Tsc as MACHINE;

#[cfg(target_arch = "aarch64")]
use arm::Vcnt as MACHINE;

/// The sequence that `Counter::read` asks for on Arm.
#[cfg(target_arch = "aarch64")]
mod arm {
    use core::arch::asm;

    use gnomon_clock::{Counter, CounterId, Ticks};

    pub struct Vcnt;

    impl Counter for Vcnt {
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
}

// SAFETY: nothing else has these names.
#[unsafe(no_mangle)]
pub fn probe_snapshot(page: &VmclockPage) -> Result<(Fields, Ticks), Busy> {
    page.snapshot_with(|| MACHINE.read())
}

// SAFETY: as above.
#[unsafe(no_mangle)]
pub fn probe_stamp(page: &VmclockPage) -> Stamp {
    Clock::new(Some(page), MACHINE).stamp()
}

// SAFETY: as above.
#[unsafe(no_mangle)]
pub fn probe_publish(writer: &mut Writer<&VmclockPage>, fields: &Fields) -> Result<u32, Misplaced> {
    writer.publish(fields)
}
