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
/// The device can do nothing more before it is reset (§2.1.2).
const NEEDS_RESET: u8 = 64;
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

    /// The device status (§2.1): zero while it is reset, all ones where there is no device any more.
    fn status(&self) -> u8;

    /// Writes the device status; zero asks for a reset, which may take its time.
    fn set_status(&self, status: u8);

    /// Why a device that was started has to be reset, if it says so.
    fn complaint(&self) -> Option<Trouble> {
        let status = self.status();
        if status & NEEDS_RESET != 0 {
            Some(Trouble::NeedsReset)
        } else if status & DRIVER_OK == 0 {
            Some(Trouble::Stopped)
        } else {
            None
        }
    }

    /// Begins to set the device up, if it has left reset.
    ///
    /// # Errors
    /// It has not.
    fn greet(&self) -> Result<(), Error> {
        if self.status() != 0 {
            return Err(Error::Reset);
        }
        self.set_status(ACKNOWLEDGE);
        self.set_status(ACKNOWLEDGE | DRIVER);
        Ok(())
    }

    /// Resets the device, waits for it, and begins to set it up.
    ///
    /// # Errors
    /// It does not leave reset.
    fn reset(&self) -> Result<(), Error> {
        self.set_status(0);
        if (0..RESET_READS).all(|_| self.status() != 0) {
            return Err(Error::Reset);
        }
        self.greet()
    }

    /// Gives the device up for `error`, which comes back.
    fn failed(&self, error: Error) -> Error {
        self.set_status(FAILED);
        error
    }
}

/// Why a running device was reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It asked for it (`DEVICE_NEEDS_RESET`), or it is gone.
    NeedsReset,
    /// Its status is not that of a running device.
    Stopped,
    /// It has written into a ring what no honest device writes: who has which buffer is not known any more.
    Lies,
    /// Its transmit ring is full, and it has taken nothing out for long.
    Stuck,
}

impl Trouble {
    /// The reason in a few words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::NeedsReset => "it asked to be reset",
            Self::Stopped => "it does not say any more that it runs",
            Self::Lies => "its rings had entries that no honest device writes",
            Self::Stuck => "it took no frames",
        }
    }
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
