//! Exceptions end the run with a report. Interrupts are never taken: see `interrupt`.

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::fmt;
use core::sync::atomic::{AtomicPtr, Ordering};

use super::sysreg::{mrs, msr};
use super::{counter, power, services};
use crate::cell::TakeCell;
use crate::failure::{Access, Fault};

global_asm!(
    include_str!("trap.s"),
    vectors = sym trap_vectors,
    dispatch = sym dispatch,
);

unsafe extern "C" {
    /// The table in `trap.s`. Never called from Rust.
    fn trap_vectors();
}

const SAFE_STACK_SIZE: usize = 16 * 1024;
/// Exception class of a data abort in our own code.
const DATA_ABORT: u64 = 0x25;

/// What to do with a fatal exception, after which the machine ends in failure. A fault inside it ends the machine at
/// once.
pub type Report = fn(&Frame);

/// The registers at the moment of the exception, in the order `trap.s` stores them.
#[repr(C)]
#[derive(Debug)]
pub struct Frame {
    x: [u64; 31],
    elr: u64,
    spsr: u64,
    sp: u64,
    vector: u64,
}

impl Frame {
    /// The access to memory that was refused, if that is what it is (Arm ARM, `ESR_EL1.EC` and `ISS`).
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        const WRITE: u64 = 1 << 6;
        const ADDRESS_IS_UNKNOWN: u64 = 1 << 10;
        let syndrome = mrs!("esr_el1");
        let access = match syndrome >> 26 & 0x3f {
            _ if !self.vector.is_multiple_of(4) || syndrome & ADDRESS_IS_UNKNOWN != 0 => {
                return None;
            }
            0x21 => Access::Execute,
            DATA_ABORT if syndrome & WRITE != 0 => Access::Write,
            DATA_ABORT => Access::Read,
            _ => return None,
        };
        Some(Fault {
            address: mrs!("far_el1"),
            access,
        })
    }

    /// Where the stack was.
    #[must_use]
    pub const fn stack_pointer(&self) -> u64 {
        self.sp
    }
}

/// Whether code ends in a call, so that the address behind it may be one that a function returns to.
#[must_use]
pub fn ends_in_call(code: &[u8]) -> bool {
    let Some(instruction) = code.last_chunk() else {
        return false;
    };
    let instruction = u32::from_le_bytes(*instruction);
    // BL and a distance; BLR.
    instruction >> 26 == 0b10_0101 || instruction & 0xffff_fc1f == 0xd63f_0000
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let syndrome = mrs!("esr_el1");
        let kind = match self.vector & 3 {
            0 => class(syndrome),
            1 => "unexpected interrupt",
            2 => "unexpected fast interrupt",
            _ => "system error",
        };
        writeln!(
            f,
            "exception vector {}: {kind}, esr {syndrome:#010x}",
            self.vector
        )?;
        writeln!(
            f,
            "  elr {:016x}  far {:016x}  spsr {:08x}",
            self.elr,
            mrs!("far_el1"),
            self.spsr
        )?;
        write!(f, "  sp  {:016x}", self.sp)?;
        for (number, value) in self.x.iter().enumerate() {
            let start = if number % 4 == 3 { "\n " } else { " " };
            write!(f, "{start} x{number:<2} {value:016x}")?;
        }
        writeln!(f)
    }
}

/// Installs the exception vectors and a stack of their own. From here on every exception calls
/// `report` and ends in failure.
///
/// The image runs on `SP_EL0`; the CPU switches to `SP_EL1` when it takes an exception, so a stack
/// that has grown into its guard page can still be reported.
pub fn install(report: Report) {
    static STACK: TakeCell<SafeStack> =
        TakeCell::new(SafeStack(UnsafeCell::new([0; SAFE_STACK_SIZE])));
    REPORT.store(report as *mut (), Ordering::Relaxed);
    let Some(stack) = STACK.take() else { return };
    let top = stack.0.get() as u64 + SAFE_STACK_SIZE as u64;
    // SAFETY: the stack is static and nobody else's; SPSel is put back before anything else can use
    // the stack pointer.
    unsafe {
        asm!("msr spsel, #1", "mov sp, {}", "msr spsel, #0", in(reg) top, options(nostack, preserves_flags));
    }
    msr!("vbar_el1", trap_vectors as *const () as u64);
    // System errors (asynchronous aborts) are reported too; interrupts stay masked for ever.
    // SAFETY: the vectors are in place.
    unsafe { asm!("msr daifclr, #4", options(nostack, preserves_flags)) };
}

static REPORT: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Whether there is anything at `address`, which must be mapped: a load from where there is nothing
/// ends in an exception, and what is there is the host's word only.
#[must_use]
pub fn answers(address: u64) -> bool {
    // SAFETY: a load without use for its value; if it faults, `dispatch` knows it by its address and
    // steps over it.
    unsafe { guarded_load(address) != u64::MAX }
}

/// Executes an instruction that does not exist. Returns whether its exception was caught, which it is or
/// this does not return.
#[must_use]
pub fn undefined_instruction() -> bool {
    // SAFETY: the instruction changes nothing; `dispatch` knows it by its address and steps over it.
    unsafe { guarded_undefined(0) == u64::MAX }
}

// Returns its argument, or -1 where the instruction was undefined.
global_asm!(
    ".section .text.guarded_undefined, \"ax\"",
    ".globl {undefined}",
    "{undefined}:",
    "udf #0",
    "ret",
    ".text",
    undefined = sym guarded_undefined,
);

unsafe extern "C" {
    /// No instruction, and a return.
    fn guarded_undefined(argument: u64) -> u64;
}

// Returns its argument, or -1 where the load has faulted.
global_asm!(
    ".section .text.guarded_load, \"ax\"",
    ".globl {load}",
    "{load}:",
    "ldr w1, [x0]",
    "ret",
    ".text",
    load = sym guarded_load,
);

unsafe extern "C" {
    /// Loads a word from `address`.
    fn guarded_load(address: u64) -> u64;
}

/// Called by every vector, with everything masked. Returns only where the exception was expected.
extern "C" fn dispatch(frame: &mut Frame) {
    /// Exception class of an instruction that does not exist here.
    const UNKNOWN: u64 = 0x00;
    let class = mrs!("esr_el1") >> 26 & 0x3f;
    let [hvc, smc] = services::call_addresses();
    let expected = [
        (UNKNOWN, power::semihosting_call_address()),
        (UNKNOWN, hvc),
        (UNKNOWN, smc),
        (UNKNOWN, counter::physical_address()),
        (UNKNOWN, guarded_undefined as *const () as u64),
        (DATA_ABORT, guarded_load as *const () as u64),
    ];
    let is_synchronous = frame.vector.is_multiple_of(4);
    if is_synchronous && expected.contains(&(class, frame.elr)) {
        // Each goes on with the next instruction, and says -1 in x0 for failure.
        frame.elr += 4;
        frame.x[0] = u64::MAX;
        return;
    }
    let report = REPORT.swap(core::ptr::null_mut(), Ordering::Relaxed);
    if !report.is_null() {
        // SAFETY: the pointer was stored by `install` from a `Report`, and is not null.
        let report: Report = unsafe { core::mem::transmute(report) };
        report(frame);
    }
    // A fault inside the report finds no report and ends at once.
    power::fail()
}

#[repr(C, align(16))]
struct SafeStack(UnsafeCell<[u8; SAFE_STACK_SIZE]>);

/// The exception class in words (Arm ARM, `ESR_EL1.EC`).
fn class(syndrome: u64) -> &'static str {
    match syndrome >> 26 & 0x3f {
        0x00 => "undefined instruction",
        0x07 => "floating point trapped",
        0x0e => "illegal execution state",
        0x15 => "supervisor call",
        0x16 => "hypervisor call refused",
        0x17 => "secure monitor call refused",
        0x18 => "system register trapped",
        0x20 | 0x21 => "instruction abort",
        0x22 => "pc alignment",
        0x24 | 0x25 => "data abort",
        0x26 => "sp alignment",
        0x2f => "system error",
        0x3c => "breakpoint instruction",
        _ => "exception",
    }
}
