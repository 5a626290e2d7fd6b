//! What a machine has: an Arm machine's parts in the same words whether a device tree says it or ACPI does, and how a PC's
//! interrupts arrive.

use super::Window;
pub use crate::services::smccc::Conduit;

/// An interrupt, as the interrupt controller counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupt {
    /// Its number: 16 to 31 private to a CPU, 32 to 1019 shared.
    pub number: u32,
    /// Whether an edge raises it; otherwise a level does.
    pub edge: bool,
}

/// An interrupt of ACPI's, which counts them through all controllers of the machine (GSI), and what raises it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number.
    pub number: u32,
    /// Whether an edge raises it; otherwise a level does.
    pub edge: bool,
    /// Whether the falling edge or the low level does.
    pub low: bool,
}

/// An I/O APIC of a PC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoApic {
    /// Address of its registers.
    pub address: u32,
    /// Its first interrupt, as ACPI counts.
    pub first: u32,
}

/// The console UART.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uart {
    /// Its registers.
    pub window: Window,
    /// What it is.
    pub model: UartModel,
    /// Its interrupt.
    pub interrupt: Option<Interrupt>,
}

/// What a UART is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UartModel {
    /// Arm's PL011, or a generic UART by its rules (SBSA).
    Pl011,
    /// A 16550 with byte-wide registers so many bytes apart (a power of two).
    Ns16550 {
        /// Bytes from one register to the next.
        stride: u8,
    },
}

/// The interrupt controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gic {
    /// Version 2.
    V2 {
        /// The distributor's registers.
        distributor: Window,
        /// The CPU interface's.
        cpu: Window,
    },
    /// Version 3 or 4.
    V3 {
        /// The distributor's registers.
        distributor: Window,
        /// The first region of redistributors.
        redistributors: Window,
    },
}

/// A virtio device with its registers in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtioMmio {
    /// Its registers.
    pub window: Window,
    /// Its interrupt.
    pub interrupt: Option<Interrupt>,
}

/// A PCI Express host with memory-mapped configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciHost {
    /// The configuration space of its buses.
    pub ecam: Window,
    /// First bus in it.
    pub first_bus: u8,
    /// Last bus in it.
    pub last_bus: u8,
    /// Addresses below 4 GiB for the devices' memory, the same on both sides of the host.
    pub memory: Option<Window>,
}
