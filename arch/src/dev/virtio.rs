//! Virtio devices: what the transports have in common (virtio 1.3 §2, §3.1), and one file for each.
//!
//! Written here and not taken from a crate because the one there is reads and writes three
//! registers for each kick, stops the machine on a bad notification offset, and gives no way to
//! assign MSI-X vectors; all three are on the hot path or in reach of a hostile device.

use core::fmt;

use super::registers::Registers;
use super::ring::RingMemory;
use crate::machine::mmu::MapError;

pub mod mmio;
pub mod pci;

/// Feature: the device follows virtio 1.0 or later.
pub const VERSION_1: u64 = 1 << 32;

const ACKNOWLEDGE: u8 = 1;
const DRIVER: u8 = 2;
const DRIVER_OK: u8 = 4;
const FEATURES_OK: u8 = 8;
const FAILED: u8 = 128;
/// How often the status register is read before a reset is given up.
const RESET_READS: u32 = 100_000;

/// Why a device cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The device is of the time before virtio 1.0, which has other registers.
    Legacy,
    /// A capability that the driver needs is missing or lies outside its BAR.
    Capability(&'static str),
    /// The registers could not be mapped.
    Map(MapError),
    /// The device does not leave reset.
    Reset,
    /// The device lacks a feature, or refused the set that was chosen.
    Features {
        /// What it offers.
        offered: u64,
    },
    /// The queue does not exist or is smaller than the driver's.
    Queue {
        /// Which queue.
        index: u16,
        /// The most descriptors the device allows.
        maximum: u16,
    },
}

impl Error {
    /// The error in a few words, without numbers.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Legacy => "it is a legacy device (before virtio 1.0)",
            Self::Capability(_) => "a capability of it is missing or out of bounds",
            Self::Map(_) => "its registers cannot be mapped",
            Self::Reset => "it does not leave reset",
            Self::Features { .. } => "its features do not fit",
            Self::Queue { .. } => "its queue is too small",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Capability(name) => {
                write!(f, "its {name} capability is missing or out of bounds")
            }
            Self::Legacy => write!(f, "it is a legacy device (before virtio 1.0)"),
            Self::Map(error) => write!(f, "{error}"),
            Self::Reset => write!(f, "it does not leave reset"),
            Self::Features { offered } => write!(f, "features do not fit (offered {offered:#x})"),
            Self::Queue { index, maximum } => write!(f, "queue {index} is too small ({maximum})"),
        }
    }
}

impl From<MapError> for Error {
    fn from(error: MapError) -> Self {
        Self::Map(error)
    }
}

/// A virtio device between reset and running, however its registers are reached.
pub trait Transport {
    /// Takes those of `wanted` that the device offers; `VERSION_1` must be among them.
    ///
    /// # Errors
    /// The device is older than virtio 1.0, or does not accept the set.
    fn negotiate(&mut self, wanted: u64) -> Result<u64, Error>;

    /// Gives the device the memory of queue `index`. With `interrupts`, the device may signal for
    /// it.
    ///
    /// # Errors
    /// The device has no such queue or allows fewer than `N` descriptors.
    fn queue<const N: usize>(
        &mut self,
        index: u16,
        memory: &RingMemory<N>,
        interrupts: bool,
    ) -> Result<Doorbell, Error>;

    /// Starts the device.
    fn start(&mut self);

    /// The device-specific configuration.
    fn configuration(&self) -> &Registers;

    /// Whether the device wakes a sleeping CPU.
    fn wakes(&self) -> bool;

    /// The device's interrupt line, where it stays raised until it is told that it was heard.
    fn line(&self) -> Option<RaisedLine>;
}

/// Rings the device for one queue.
#[derive(Clone, Copy, Debug)]
pub struct Doorbell {
    register: Registers,
    queue: u16,
    /// The register has 32 bits instead of 16.
    wide: bool,
}

impl Doorbell {
    /// Tells the device to look at the queue. One register write, which costs a trip to the host.
    #[inline]
    pub fn ring(&self) {
        if self.wide {
            self.register.write32(0, u32::from(self.queue));
        } else {
            self.register.write16(0, self.queue);
        }
    }
}

/// An interrupt line that is lowered by hand.
#[derive(Clone, Copy, Debug)]
pub enum RaisedLine {
    /// By a read of the ISR status on PCI (virtio 1.3 §4.1.4.5).
    Read(Registers),
    /// By telling what was heard (§4.2.2, `InterruptStatus` and `InterruptACK`).
    Write {
        /// What the line says.
        status: Registers,
        /// Where to answer.
        acknowledge: Registers,
    },
}

impl RaisedLine {
    /// Tells the device that its interrupt was heard, if it has raised one.
    pub fn lower(&self) {
        match self {
            Self::Read(status) => {
                let _ = status.read8(0);
            }
            Self::Write {
                status,
                acknowledge,
            } => {
                let status = status.read32(0);
                if status != 0 {
                    acknowledge.write32(0, status);
                }
            }
        }
    }
}
