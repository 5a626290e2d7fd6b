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

/// Functions that end the machine or touch nothing but the registers that the convention gives them.
/// Others could start processors or take memory away, so they are not called.
const HARMLESS: [u64; 14] = [
    0x8000_0000, // SMCCC_VERSION
    0x8000_0001, // SMCCC_ARCH_FEATURES
    0x8400_0000, // PSCI_VERSION
    0x8400_0008, // SYSTEM_OFF
    0x8400_0009, // SYSTEM_RESET
    0x8400_0050, // TRNG_VERSION
    0x8400_0051, // TRNG_FEATURES
    0x8400_0052, // TRNG_GET_UUID
    0xc400_0053, // TRNG_RND64
    0x8600_0000, // KVM: FEATURES
    0x8600_0001, // KVM: PTP
    0x8600_ff01, // CALL_UID of the vendor's functions
    0xc500_0020, // PV_TIME_FEATURES
    0xc500_0021, // PV_TIME_ST
];

impl Conduit {
    /// Calls with x0 to x3 and returns what they hold then (Arm DEN 0028, SMC Calling Convention). A function that
    /// is not known there or is none of the harmless ones, and an instruction that does not exist here, give −1
    /// in x0.
    #[must_use]
    pub fn call(self, arguments: [u64; 4]) -> [u64; 4] {
        let mut registers = arguments;
        if !HARMLESS.contains(&arguments[0]) {
            return [u64::MAX, 0, 0, 0];
        }
        match self {
            // SAFETY: the firmware's own description of the machine names this instruction; the
            // function is one of the harmless.
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
