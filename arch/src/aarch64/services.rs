//! Calls of the firmware or hypervisor below.

use core::arch::global_asm;

/// The instruction of a call (the device tree's `psci` node, `method`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduit {
    /// `HVC #0`.
    Hvc,
    /// `SMC #0`.
    Smc,
}

impl Conduit {
    /// Calls with x0 to x3 and returns what they hold then (Arm DEN 0028, SMC Calling Convention). A function that
    /// is not known, or an instruction that does not exist here, gives −1 in x0.
    ///
    /// Only for functions that leave memory and the other registers alone.
    #[must_use]
    pub fn call(self, arguments: [u64; 4]) -> [u64; 4] {
        let mut registers = arguments;
        match self {
            // SAFETY: the firmware's own description of the machine names this instruction; the
            // function touches nothing but the registers that the convention gives it.
            Self::Hvc => unsafe { call_hvc(&mut registers) },
            // SAFETY: as above.
            Self::Smc => unsafe { call_smc(&mut registers) },
        }
        registers
    }
}

/// Where the two instructions stand: undefined ones are stepped over.
pub(super) fn call_addresses() -> [u64; 2] {
    [
        hvc_instruction as *const () as u64,
        smc_instruction as *const () as u64,
    ]
}

// The convention preserves x18 to x30, and so does a procedure call x19 to x29.
global_asm!(
    ".macro gnomon_call name, label, instruction",
    ".globl \\name",
    "\\name:",
    "stp x19, x30, [sp, #-16]!",
    "mov x19, x0",
    "ldp x0, x1, [x19]",
    "ldp x2, x3, [x19, #16]",
    "mov x4, xzr",
    "mov x5, xzr",
    "mov x6, xzr",
    "mov x7, xzr",
    ".globl \\label",
    "\\label:",
    "\\instruction #0",
    "stp x0, x1, [x19]",
    "stp x2, x3, [x19, #16]",
    "ldp x19, x30, [sp], #16",
    "ret",
    ".endm",
    ".section .text.smccc, \"ax\"",
    "gnomon_call {call_hvc}, {hvc}, hvc",
    "gnomon_call {call_smc}, {smc}, smc",
    ".text",
    call_hvc = sym call_hvc,
    hvc = sym hvc_instruction,
    call_smc = sym call_smc,
    smc = sym smc_instruction,
);

unsafe extern "C" {
    /// Calls with the registers given, and stores them again.
    fn call_hvc(registers: &mut [u64; 4]);
    /// The same.
    fn call_smc(registers: &mut [u64; 4]);
    /// A place in it, never called.
    fn hvc_instruction();
    /// The same.
    fn smc_instruction();
}
