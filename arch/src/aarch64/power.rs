//! Ending: power off, restart, and failing where a test can see it.

use core::arch::{asm, global_asm};

pub use super::services::Conduit;

/// Power control through PSCI (Arm DEN 0022, Power State Coordination Interface).
#[derive(Clone, Copy, Debug)]
pub struct Power {
    /// How PSCI is called; without it the machine can only stop.
    pub conduit: Option<Conduit>,
}

impl Power {
    /// Powers the machine off; where that fails, stops for ever.
    pub fn off(&self) -> ! {
        const SYSTEM_OFF: u64 = 0x8400_0008;
        self.call(SYSTEM_OFF);
        stop()
    }

    /// Restarts the machine; where that fails, stops for ever.
    pub fn reboot(&self) -> ! {
        const SYSTEM_RESET: u64 = 0x8400_0009;
        self.call(SYSTEM_RESET);
        stop()
    }

    /// Calls a function that ends the machine or changes nothing.
    fn call(self, function: u64) {
        if let Some(conduit) = self.conduit {
            let _refused = conduit.call([function, 0, 0, 0]);
        }
    }
}

/// Ends in failure: a debugger or QEMU with `-semihosting` ends with status 99; elsewhere the CPU
/// stops. Powering off instead would look like success, because PSCI carries no status.
pub fn fail() -> ! {
    exit_failed();
    stop()
}

/// Ends in failure where there is semihosting, and does nothing elsewhere.
pub fn exit_failed() {
    const EXIT_EXTENDED: u64 = 0x20;
    const APPLICATION_EXIT: u64 = 0x2_0026;
    const FAILED: u64 = 99;
    let block = [APPLICATION_EXIT, FAILED];
    // SAFETY: a call without effect on our memory; without semihosting it is an undefined
    // instruction, which the trap handler knows by its address and steps over.
    unsafe { semihosting_call(EXIT_EXTENDED, &block) };
}

/// Where the semihosting instruction stands.
pub(super) fn semihosting_call_address() -> u64 {
    semihosting_call as *const () as u64
}

fn stop() -> ! {
    loop {
        // SAFETY: masks everything and waits; nothing else runs here any more.
        unsafe { asm!("msr daifset, #15", "wfi", options(nomem, nostack)) };
    }
}

// Arm's "Semihosting for AArch32 and AArch64": operation in w0, parameter block in x1.
global_asm!(
    ".section .text.semihosting, \"ax\"",
    ".globl {call}",
    "{call}:",
    "hlt #0xf000",
    "ret",
    ".text",
    call = sym semihosting_call,
);

unsafe extern "C" {
    /// Asks a debugger for `operation`.
    fn semihosting_call(operation: u64, parameters: &[u64; 2]) -> u64;
}
