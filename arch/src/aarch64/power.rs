//! Ending: power off, restart, and failing where a test can see it.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU8, Ordering};

pub use super::services::Conduit;
use crate::failure::{self, Ending};

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

/// How PSCI is called by [`fail`]: zero as long as nobody knows.
static CONDUIT: AtomicU8 = AtomicU8::new(0);
const HVC: u8 = 1;
const SMC: u8 = 2;

/// Chooses what [`fail`] does.
pub fn on_failure(ending: Ending, power: Power) {
    let conduit = match power.conduit {
        None => 0,
        Some(Conduit::Hvc) => HVC,
        Some(Conduit::Smc) => SMC,
    };
    CONDUIT.store(conduit, Ordering::Relaxed);
    failure::choose(ending);
}

/// Ends in failure, as was chosen. [`Ending::Exit`]: a debugger or QEMU with `-semihosting` ends with status 99.
/// Powering off instead would look like success, because PSCI carries no status.
pub fn fail() -> ! {
    match failure::chosen() {
        Ending::Exit => exit_failed(),
        Ending::Halt => {}
        Ending::Reboot => {
            let conduit = match CONDUIT.load(Ordering::Relaxed) {
                HVC => Some(Conduit::Hvc),
                SMC => Some(Conduit::Smc),
                _ => None,
            };
            Power { conduit }.reboot()
        }
    }
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
