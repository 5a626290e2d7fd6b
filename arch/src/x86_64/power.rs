//! Ending: power off, restart, and failing where a test can see it.

use x86_64::instructions::port::Port;
use x86_64::instructions::{hlt, interrupts};

use crate::failure::{self, Ending};

/// QEMU's `isa-debug-exit` as the launcher places it; harmless where there is none.
const DEBUG_EXIT: u16 = 0xf4;
/// What a fatal trap or panic writes there: QEMU ends with status `0x31 << 1 | 1` = 99.
const FAILED: u32 = 0x31;
/// Reset control register of PC chipsets (PCI host bridge, port 0xCF9): full reset.
const RESET_CONTROL: u16 = 0xcf9;
/// Keyboard controller command port; 0xFE pulses the reset line.
const KEYBOARD: u16 = 0x64;

/// How to enter ACPI S5, as the firmware's tables say (ACPI 6.5 §4.8.3.2.1, §7.4.2).
#[derive(Clone, Copy, Debug)]
pub struct SoftOff {
    /// I/O port of `PM1a_CNT`.
    pub pm1a_control: u16,
    /// `SLP_TYPa` of `\_S5`.
    pub sleep_type: u8,
}

/// Power control as PCs have it.
#[derive(Clone, Copy, Debug)]
pub struct Power {
    /// How to switch off; without it the machine can only stop.
    pub soft_off: Option<SoftOff>,
}

impl Power {
    /// Powers the machine off; where that fails, stops for ever.
    pub fn off(&self) -> ! {
        const SLEEP_ENABLE: u16 = 1 << 13;
        const SCI_ENABLE: u16 = 1;
        if let Some(SoftOff {
            pm1a_control,
            sleep_type,
        }) = self.soft_off
        {
            let value = SLEEP_ENABLE | SCI_ENABLE | u16::from(sleep_type & 7) << 10;
            // SAFETY: the firmware names this port as `PM1a_CNT`; the machine is about to stop, so no
            // state can be hurt.
            unsafe { Port::<u16>::new(pm1a_control).write(value) };
        }
        halt()
    }

    /// Restarts the machine: chipset reset, then the keyboard controller, then a triple fault.
    pub fn reboot(&self) -> ! {
        // SAFETY: both ports mean "reset" on a PC and nothing on machines without them.
        unsafe { Port::<u8>::new(RESET_CONTROL).write(0x06) };
        // SAFETY: as above.
        unsafe { Port::<u8>::new(KEYBOARD).write(0xfe) };
        let none = x86_64::structures::DescriptorTablePointer {
            limit: 0,
            base: x86_64::VirtAddr::zero(),
        };
        // SAFETY: with an empty IDT the next exception triple-faults, which resets the CPU: that is the
        // intent.
        unsafe { x86_64::instructions::tables::lidt(&none) };
        interrupts::int3();
        halt()
    }
}

/// Chooses what [`fail`] does.
pub fn on_failure(ending: Ending, _power: Power) {
    failure::choose(ending);
}

/// Ends in failure, as was chosen. [`Ending::Exit`]: QEMU exits with status 99 where `isa-debug-exit` stands.
pub fn fail() -> ! {
    match failure::chosen() {
        Ending::Exit => exit_failed(),
        Ending::Halt => {}
        Ending::Reboot => Power { soft_off: None }.reboot(),
    }
    halt()
}

/// Ends in failure where `isa-debug-exit` stands, and does nothing elsewhere.
pub fn exit_failed() {
    // SAFETY: the port belongs to isa-debug-exit or to nothing.
    unsafe { Port::<u32>::new(DEBUG_EXIT).write(FAILED) };
}

fn halt() -> ! {
    loop {
        interrupts::disable();
        hlt();
    }
}
