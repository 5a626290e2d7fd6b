//! Exceptions end the run with a report; interrupts are acknowledged and forgotten.

use core::arch::global_asm;
use core::cell::UnsafeCell;
use core::fmt;
use core::sync::atomic::{AtomicPtr, Ordering};

use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::{lidt, load_tss};
use x86_64::registers::control::Cr2;
use x86_64::structures::DescriptorTablePointer;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::tss::TaskStateSegment;

use super::{interrupt, power};
use crate::cell::TakeCell;
use crate::failure::{Access, Fault};

global_asm!(
    include_str!("trap.s"),
    stubs = sym trap_stubs,
    count = const VECTORS,
    dispatch = sym dispatch,
);

unsafe extern "C" {
    /// The first of the stubs in `trap.s`. Never called from Rust.
    fn trap_stubs();
}

/// Vectors with a gate: 32 exceptions, 16 legacy interrupts, and a few for message interrupts. 255
/// (spurious) has none of its own: it shares the last.
const VECTORS: usize = 64;
/// Interrupt stack table slot (1-based in a gate) for exceptions that must not rely on the running
/// stack.
const SAFE_STACK: u8 = 1;
const SAFE_STACK_SIZE: usize = 16 * 1024;

/// What to do with a fatal exception, after which the machine ends in failure. A fault inside it ends the machine at
/// once.
pub type Report = fn(&Frame);

/// The registers at the moment of the trap, in the order `trap.s` pushes them.
#[repr(C)]
#[derive(Debug)]
pub struct Frame {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    r11: u64,
    r10: u64,
    r9: u64,
    r8: u64,
    rbp: u64,
    rdi: u64,
    rsi: u64,
    rdx: u64,
    rcx: u64,
    rbx: u64,
    rax: u64,
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

impl Frame {
    /// The access to memory that was refused, if that is what it is (Intel SDM vol. 3, §4.7).
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        const PAGE_FAULT: u64 = 14;
        const WRITE: u64 = 1 << 1;
        const FETCH: u64 = 1 << 4;
        (self.vector == PAGE_FAULT).then(|| Fault {
            address: Cr2::read_raw(),
            access: match self.error {
                error if error & FETCH != 0 => Access::Execute,
                error if error & WRITE != 0 => Access::Write,
                _ => Access::Read,
            },
        })
    }

    /// Where the stack was.
    #[must_use]
    pub const fn stack_pointer(&self) -> u64 {
        self.rsp
    }
}

/// Whether code ends in a call, so that the address behind it may be one that a function returns to.
#[must_use]
pub fn ends_in_call(code: &[u8]) -> bool {
    let back = |bytes: usize| code.len().checked_sub(bytes).and_then(|at| code.get(at..));
    // E8 and a distance; FF /2 with no displacement, one byte or four, with and without an index.
    let is_near = back(5).is_some_and(|call| call.first() == Some(&0xe8));
    let is_indirect = |bytes: usize| {
        back(bytes).is_some_and(|call| matches!(call, [0xff, modrm, ..] if modrm & 0x38 == 0x10))
    };
    is_near || [2, 3, 4, 6, 7].into_iter().any(is_indirect)
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = usize::try_from(self.vector)
            .ok()
            .and_then(|vector| NAMES.get(vector))
            .unwrap_or(&"unexpected interrupt");
        writeln!(
            f,
            "exception {}: {name}, error code {:#x}",
            self.vector, self.error
        )?;
        writeln!(
            f,
            "  rip {:016x}  cs  {:04x}  rflags {:08x}  cr2 {:016x}",
            self.rip,
            self.cs,
            self.rflags,
            Cr2::read_raw()
        )?;
        writeln!(f, "  rsp {:016x}  ss  {:04x}", self.rsp, self.ss)?;
        writeln!(
            f,
            "  rax {:016x}  rbx {:016x}  rcx {:016x}  rdx {:016x}",
            self.rax, self.rbx, self.rcx, self.rdx
        )?;
        writeln!(
            f,
            "  rsi {:016x}  rdi {:016x}  rbp {:016x}  r8  {:016x}",
            self.rsi, self.rdi, self.rbp, self.r8
        )?;
        writeln!(
            f,
            "  r9  {:016x}  r10 {:016x}  r11 {:016x}  r12 {:016x}",
            self.r9, self.r10, self.r11, self.r12
        )?;
        writeln!(
            f,
            "  r13 {:016x}  r14 {:016x}  r15 {:016x}",
            self.r13, self.r14, self.r15
        )
    }
}

/// Installs descriptor tables of our own. From here on every exception calls `report` and ends in
/// failure.
pub fn install(report: Report) {
    static TABLES: TakeCell<Tables> = TakeCell::new(Tables::new());
    // Apart, since these are zeros, which take no room in the image.
    static IDT: TakeCell<[Gate; 256]> = TakeCell::new([Gate::ABSENT; 256]);
    static STACK: TakeCell<SafeStack> =
        TakeCell::new(SafeStack(UnsafeCell::new([0; SAFE_STACK_SIZE])));
    REPORT.store(report as *mut (), Ordering::Relaxed);
    let taken = (TABLES.take(), IDT.take(), STACK.take());
    let (Some(tables), Some(idt), Some(stack)) = taken else {
        return;
    };

    let stack_top = stack.0.get() as u64 + SAFE_STACK_SIZE as u64;
    tables.tss.interrupt_stack_table[usize::from(SAFE_STACK) - 1] = VirtAddr::new(stack_top);
    let tables: &'static mut Tables = tables;
    let code = tables.gdt.append(Descriptor::kernel_code_segment());
    let data = tables.gdt.append(Descriptor::kernel_data_segment());
    let tss = tables.gdt.append(Descriptor::tss_segment(&tables.tss));
    tables.gdt.load();
    // SAFETY: the selectors were just made in the table that is now in force, for the same flat
    // segments as before.
    unsafe { CS::set_reg(code) };
    // SAFETY: as above; a flat data segment.
    unsafe { DS::set_reg(data) };
    // SAFETY: as above.
    unsafe { ES::set_reg(data) };
    // SAFETY: as above.
    unsafe { SS::set_reg(data) };
    // SAFETY: the task state segment is static, and its safe stack has just been set.
    unsafe { load_tss(tss) };

    let first = trap_stubs as *const () as u64;
    for (vector, gate) in (0u64..).zip(idt.iter_mut()) {
        *gate = Gate::interrupt(
            first + vector * 16,
            code.0,
            if vector < 32 { SAFE_STACK } else { 0 },
        );
    }
    let pointer = DescriptorTablePointer {
        limit: u16::try_from(size_of_val(idt) - 1).unwrap_or(u16::MAX),
        base: VirtAddr::from_ptr(&raw const *idt),
    };
    // SAFETY: the table is static, complete, and its gates lead to stubs that save what they use.
    unsafe { lidt(&pointer) };
}

/// Whether there is anything at `address`: on a PC every address can be read, and reads as all ones
/// where there is nothing.
#[must_use]
pub const fn answers(_address: u64) -> bool {
    true
}

/// Executes an instruction that does not exist. Returns whether its exception was caught, which it is or
/// this does not return.
#[must_use]
pub fn undefined_instruction() -> bool {
    // SAFETY: the instruction changes nothing; `dispatch` knows it by its address and steps over it.
    unsafe { guarded_undefined() == u64::MAX }
}

// Returns 0, or -1 where the instruction was undefined.
global_asm!(
    ".section .text.guarded_undefined, \"ax\"",
    ".globl {undefined}",
    ".globl {instruction}",
    "{undefined}:",
    "xor eax, eax",
    "{instruction}:",
    "ud2",
    "ret",
    ".text",
    undefined = sym guarded_undefined,
    instruction = sym undefined_place,
);

unsafe extern "C" {
    /// No instruction, and a return.
    fn guarded_undefined() -> u64;
    /// A place in it, never called.
    fn undefined_place();
}

static REPORT: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Called by every stub, with interrupts disabled.
extern "C" fn dispatch(frame: &mut Frame) {
    const UNDEFINED: u64 = 6;
    const LENGTH: u64 = 2;
    if let Ok(vector @ interrupt::LEGACY_BASE..) = u8::try_from(frame.vector) {
        interrupt::acknowledge(vector);
        return;
    }
    if frame.vector == UNDEFINED && frame.rip == undefined_place as *const () as u64 {
        frame.rip += LENGTH;
        frame.rax = u64::MAX;
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

struct Tables {
    gdt: GlobalDescriptorTable,
    tss: TaskStateSegment,
}

impl Tables {
    const fn new() -> Self {
        Self {
            gdt: GlobalDescriptorTable::new(),
            tss: TaskStateSegment::new(),
        }
    }
}

#[repr(C, align(16))]
struct SafeStack(UnsafeCell<[u8; SAFE_STACK_SIZE]>);

/// A 64-bit IDT entry (Intel SDM vol. 3, §6.14.1).
#[repr(C)]
#[derive(Clone, Copy)]
struct Gate {
    low: u64,
    high: u64,
}

impl Gate {
    const ABSENT: Self = Self { low: 0, high: 0 };

    /// A present interrupt gate (interrupts stay disabled inside).
    const fn interrupt(handler: u64, code: u16, stack: u8) -> Self {
        let low = handler & 0xffff
            | (code as u64) << 16
            | (stack as u64 & 7) << 32
            | 0x8e << 40
            | (handler >> 16 & 0xffff) << 48;
        Self {
            low,
            high: handler >> 32,
        }
    }
}

const NAMES: [&str; 32] = [
    "divide error",
    "debug",
    "non-maskable interrupt",
    "breakpoint",
    "overflow",
    "bound range exceeded",
    "invalid opcode",
    "device not available",
    "double fault",
    "reserved",
    "invalid tss",
    "segment not present",
    "stack fault",
    "general protection",
    "page fault",
    "reserved",
    "x87 floating point",
    "alignment check",
    "machine check",
    "simd floating point",
    "virtualization",
    "control protection",
    "reserved",
    "reserved",
    "reserved",
    "reserved",
    "reserved",
    "reserved",
    "hypervisor injection",
    "vmm communication",
    "security",
    "reserved",
];

#[cfg(test)]
mod tests {
    use super::ends_in_call;

    #[test]
    fn calls_are_told_from_other_code() {
        for call in [
            &[0xe8, 1, 2, 3, 4][..],
            &[0xff, 0xd0],             // rax
            &[0x41, 0xff, 0xd7],       // r15
            &[0xff, 0x50, 0x18],       // [rax + 0x18]
            &[0xff, 0x54, 0x24, 0x20], // [rsp + 0x20]
            &[0xff, 0x15, 0, 1, 0, 0], // [rip + 0x100]
        ] {
            assert!(ends_in_call(call), "{call:x?}");
            assert!(ends_in_call(&[&[0x90; 9], call].concat()), "{call:x?}");
        }
        for other in [
            &[][..],
            &[0xe8],
            &[0x90; 16],
            &[0xff, 0xe0],
            &[0xff, 0xc0, 0x90],
        ] {
            assert!(!ends_in_call(other), "{other:x?}");
        }
    }
}
