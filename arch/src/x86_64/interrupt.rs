//! Interrupts wake us up, and that is all they do.
//!
//! The service runs with interrupts disabled and looks at its rings itself; only [`Interrupts::sleep`] lets
//! interrupts in, for the length of a `HLT`. A handler acknowledges and returns. So there is no
//! concurrency to reason about, and no wake-up can be lost: an interrupt that came while we were
//! looking is still pending when `STI; HLT` runs.

use core::fmt;
use core::sync::atomic::{AtomicU8, Ordering};

use x86_64::instructions::interrupts;
use x86_64::instructions::port::Port;
use x86_64::registers::model_specific::Msr;

use super::io_apic::{IoApic, Line};
use super::mmu::{Kind, MapError, Mmu, PAGE};
use super::timer;
use crate::dev::pci::Message;
use crate::dev::registers::Registers;

/// First vector of the remapped legacy interrupts: timer is +0, COM1 is +4.
pub(super) const LEGACY_BASE: u8 = 32;
/// The vector that devices with MSI-X are given.
pub const DEVICE_VECTOR: u8 = 48;
/// The first of the vectors of lines that are watched.
const WATCHED_VECTOR: u8 = 49;
/// Lines that may be watched.
pub const WATCHED: u8 = 8;

/// Which of them have raised their interrupt.
static ARRIVED: AtomicU8 = AtomicU8::new(0);

/// The local APIC's register of the priority above which interrupts are let in.
const TASK_PRIORITY: usize = 0x80;
/// Holds back the vectors from 48 to 63.
const DEVICES: u32 = 0x30;

/// The local APIC and the two 8259s behind it.
pub struct Interrupts {
    apic: Registers,
    apic_base: u64,
}

impl Interrupts {
    /// Sets up: legacy timer and COM1 interrupts through the 8259s, message interrupts through the
    /// local APIC.
    ///
    /// # Errors
    /// The APIC's registers cannot be mapped.
    pub fn new(mmu: &mut Mmu) -> Result<Self, MapError> {
        const APIC_BASE: u32 = 0x1b;
        const ENABLE: u64 = 1 << 11;
        const SPURIOUS: usize = 0xf0;
        const LVT_LINT0: usize = 0x350;
        const LVT_LINT1: usize = 0x360;
        let mut msr = Msr::new(APIC_BASE);
        // SAFETY: IA32_APIC_BASE exists on every x86_64 CPU.
        let value = unsafe { msr.read() };
        let apic_base = value & 0x000f_ffff_ffff_f000;
        mmu.map(apic_base, PAGE, Kind::Device)?;
        // SAFETY: bit 11 enables the APIC in xAPIC mode at the address just mapped; the rest is
        // kept.
        unsafe { msr.write(value | ENABLE) };
        // SAFETY: the page at apic_base is the local APIC, mapped uncached above, and nobody else
        // uses it.
        let apic = unsafe { Registers::new(apic_base as *mut u8, 4096) };

        apic.write32(SPURIOUS, 0x100 | 0xff); // software enable, spurious vector 255
        apic.write32(LVT_LINT0, 0x700); // ExtINT: the 8259s pass through
        apic.write32(LVT_LINT1, 0x400); // NMI: not all firmware has seen to it
        remap_legacy();
        Ok(Self { apic, apic_base })
    }

    /// The message for a device that should wake this CPU.
    #[must_use]
    pub fn message(&self) -> Message {
        Message {
            address: 0xfee0_0000 | u64::from(self.processor()) << 12,
            data: u32::from(DEVICE_VECTOR),
        }
    }

    /// Looks for interrupts on a line from here on, as number `place` below [`WATCHED`] of those that are watched, until it is
    /// [left](Self::leave) alone. Returns whether any can arrive. Meanwhile no device wakes this CPU but the timer and the UARTs.
    #[must_use]
    pub fn watch(&self, io_apic: &IoApic, line: Line, place: u8) -> bool {
        let is_routed =
            place < WATCHED && io_apic.route(line, WATCHED_VECTOR + place, self.processor());
        if is_routed {
            self.apic.write32(TASK_PRIORITY, DEVICES);
        }
        is_routed
    }

    /// Which of the lines that are watched have raised their interrupt since this was asked last: a bit each. A level that
    /// stays raises it again.
    #[must_use]
    pub fn watched(&self) -> u8 {
        self.apic.write32(TASK_PRIORITY, 0);
        self.poll();
        self.apic.write32(TASK_PRIORITY, DEVICES);
        ARRIVED.swap(0, Ordering::Relaxed)
    }

    /// Does not look at a line any longer.
    pub fn leave(&self, io_apic: &IoApic, line: Line) {
        io_apic.mask(line);
        // What is on its way is taken once more.
        let _ = self.watched();
        self.apic.write32(TASK_PRIORITY, 0);
    }

    /// The identifier of this CPU's APIC.
    fn processor(&self) -> u8 {
        const ID: usize = 0x20;
        let [.., id] = self.apic.read32(ID).to_le_bytes();
        id
    }

    /// Lets COM2's interrupt through, too.
    pub fn let_com2(&self) {
        // SAFETY: the first 8259's mask; no memory of ours is touched, and the handler takes any of its lines.
        unsafe { Port::<u8>::new(0x21).write(MASK & !(1 << 3)) };
    }

    /// Whether an interrupt can arrive.
    #[must_use]
    pub const fn wake(&self) -> bool {
        true
    }

    /// Takes interrupts that have arrived, without waiting for one.
    pub fn poll(&self) {
        interrupts::enable();
        // `STI` lets interrupts in behind the instruction after it.
        x86_64::instructions::nop();
        interrupts::disable();
    }

    /// Sleeps until any interrupt has arrived. One that is already pending ends the sleep at once.
    pub fn sleep(&self) {
        interrupts::enable_and_hlt();
        interrupts::disable();
    }
}

impl fmt::Debug for Interrupts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interrupts")
            .field("apic_base", &self.apic_base)
            .finish_non_exhaustive()
    }
}

/// Tells the controller that the interrupt on `vector` has been taken. Called by the trap handler.
pub(super) fn acknowledge(vector: u8) {
    if vector == LEGACY_BASE {
        timer::rang();
    }
    if (LEGACY_BASE..LEGACY_BASE + 16).contains(&vector) {
        if vector >= LEGACY_BASE + 8 {
            // SAFETY: end-of-interrupt to the second 8259.
            unsafe { Port::<u8>::new(0xa0).write(0x20) };
        }
        // SAFETY: end-of-interrupt to the first 8259.
        unsafe { Port::<u8>::new(0x20).write(0x20) };
    } else {
        const END_OF_INTERRUPT: usize = 0xb0;
        // SAFETY: interrupts are only enabled (by `sleep`) after `Interrupts::new` has mapped the
        // APIC at its architectural address.
        let apic = unsafe { Registers::new(apic_base() as *mut u8, 4096) };
        let place = vector.wrapping_sub(WATCHED_VECTOR);
        if place < WATCHED {
            ARRIVED.fetch_or(1 << place, Ordering::Relaxed);
            // Before a level that stays can raise it again: nobody here makes its device let go.
            apic.write32(TASK_PRIORITY, DEVICES);
        }
        apic.write32(END_OF_INTERRUPT, 0);
    }
}

fn apic_base() -> u64 {
    // SAFETY: IA32_APIC_BASE exists on every x86_64 CPU.
    unsafe { Msr::new(0x1b).read() & 0x000f_ffff_ffff_f000 }
}

/// All lines of the first 8259 but 0 and 4.
const MASK: u8 = 0b1110_1110;

/// Moves the 8259s' sixteen lines to vectors 32..48 and lets only the timer (0) and COM1 (4)
/// through.
fn remap_legacy() {
    let steps: [(u16, u8); 10] = [
        (0x20, 0x11), // start initialisation, four words follow
        (0xa0, 0x11),
        (0x21, LEGACY_BASE),
        (0xa1, LEGACY_BASE + 8),
        (0x21, 4), // the second one hangs on line 2
        (0xa1, 2),
        (0x21, 1), // 8086 mode
        (0xa1, 1),
        (0x21, MASK),
        (0xa1, 0xff),
    ];
    for (port, value) in steps {
        // SAFETY: these ports are the 8259s on every PC and nothing elsewhere.
        unsafe { Port::<u8>::new(port).write(value) };
    }
}
