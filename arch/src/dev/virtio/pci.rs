//! The virtio PCI transport (virtio 1.3 §4.1): modern devices and transitional ones through their
//! modern interface.

use super::{
    ACKNOWLEDGE, DRIVER, DRIVER_OK, Doorbell, Error, FEATURES_OK, RaisedLine, Transport, VERSION_1,
};
use crate::dev::pci::{CAPABILITY_MSI_X, CAPABILITY_VENDOR, Function, Message, Pci};
use crate::dev::registers::Registers;
use crate::dev::ring::RingMemory;
use crate::machine::mmu::{Kind, Mmu};

/// PCI vendor id of virtio devices.
pub const VENDOR: u16 = 0x1af4;
/// "No vector" (§4.1.5.1.2).
const NO_VECTOR: u16 = 0xffff;

/// A virtio device on PCI, between reset and running.
#[derive(Debug)]
pub struct PciTransport {
    common: Registers,
    notify: Registers,
    notify_multiplier: u32,
    device: Registers,
    vectors: bool,
    /// The ISR status, where the pin is what interrupts.
    pin_status: Option<Registers>,
}

/// How the device wakes the CPU.
#[derive(Clone, Copy, Debug)]
pub enum Wake {
    /// It does not.
    Never,
    /// By a message (MSI-X), if it has that.
    Message(Message),
    /// By its interrupt pin, which somebody has connected.
    Pin,
}

impl PciTransport {
    /// Maps the device's registers, `configuration` bytes or more of which are its own kind's, resets it,
    /// and lets it interrupt as `wake` says.
    ///
    /// # Errors
    /// A capability is missing or wrong, memory cannot be mapped, or the device does not come out
    /// of reset.
    pub fn new(
        pci: &Pci<'_>,
        function: Function,
        mmu: &mut Mmu,
        wake: Wake,
        configuration: u32,
    ) -> Result<Self, Error> {
        const COMMON: u8 = 1;
        const NOTIFY: u8 = 2;
        const STATUS: u8 = 3;
        const DEVICE: u8 = 4;
        let pin = matches!(wake, Wake::Pin);
        pci.enable(function, pin);
        let mut structures = [None; 5];
        let mut notify_multiplier = 0;
        let mut msix = None;
        for (at, id) in pci.capabilities(function) {
            match id {
                CAPABILITY_VENDOR => {
                    let kind = pci.0.read32(function, at).to_le_bytes()[3];
                    if let Some(place @ None) = structures.get_mut(usize::from(kind)) {
                        *place = Structure::read(pci, function, at);
                        if kind == NOTIFY {
                            notify_multiplier = pci.0.read32(function, at + 16);
                        }
                    }
                }
                CAPABILITY_MSI_X => msix = Some(at),
                _ => {}
            }
        }
        let mut region = |kind: u8, length: u32, name| {
            let structure: Structure =
                structures[usize::from(kind)].ok_or(Error::Capability(name))?;
            structure.map(pci, function, mmu, length, name)
        };
        let common = region(COMMON, 0x38, "common configuration")?;
        let notify = region(NOTIFY, 2, "notification")?;
        let device = match configuration {
            0 => common.part(0, 0),
            _ => Some(region(DEVICE, configuration, "device configuration")?),
        };
        let device = device.ok_or(Error::Capability("device configuration"))?;
        let pin_status = if pin {
            Some(region(STATUS, 1, "interrupt status")?)
        } else {
            None
        };
        let mut transport = Self {
            common,
            notify,
            notify_multiplier,
            device,
            vectors: false,
            pin_status,
        };
        transport.reset()?;
        if let (Some(at), Wake::Message(message)) = (msix, wake) {
            direct_interrupts(pci, function, at, mmu, message)?;
            transport.vectors = true;
        }
        Ok(transport)
    }
}

impl Transport for PciTransport {
    fn negotiate(&mut self, wanted: u64) -> Result<u64, Error> {
        self.common.write32(0x00, 0);
        let low = self.common.read32(0x04);
        self.common.write32(0x00, 1);
        let offered = u64::from(self.common.read32(0x04)) << 32 | u64::from(low);
        let chosen = offered & (wanted | VERSION_1);
        if chosen & VERSION_1 == 0 {
            return Err(self.failed(Error::Features { offered }));
        }
        for (select, half) in [(0, chosen & 0xffff_ffff), (1, chosen >> 32)] {
            self.common.write32(0x08, select);
            self.common.write32(0x0c, u32::try_from(half).unwrap_or(0));
        }
        self.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
        if self.status() & FEATURES_OK == 0 {
            return Err(self.failed(Error::Features { offered }));
        }
        Ok(chosen)
    }

    fn queue<const N: usize>(
        &mut self,
        index: u16,
        memory: &RingMemory<N>,
        interrupts: bool,
    ) -> Result<Doorbell, Error> {
        self.common.write16(0x16, index);
        let maximum = self.common.read16(0x18);
        let Ok(size) = u16::try_from(N) else {
            return Err(Error::Queue { index, maximum });
        };
        if maximum < size || maximum == u16::MAX {
            return Err(self.failed(Error::Queue { index, maximum }));
        }
        self.common.write16(0x18, size);
        if self.vectors {
            self.common.write16(0x10, NO_VECTOR); // configuration changes
            self.common
                .write16(0x1a, if interrupts { 0 } else { NO_VECTOR });
        }
        for (offset, address) in [0x20, 0x28, 0x30].into_iter().zip(memory.addresses()) {
            self.common.write64(offset, address);
        }
        let notify_offset = u64::from(self.common.read16(0x1e)) * u64::from(self.notify_multiplier);
        let register = usize::try_from(notify_offset)
            .ok()
            .and_then(|offset| self.notify.part(offset, 2));
        let Some(register) = register else {
            return Err(self.failed(Error::Capability("notification")));
        };
        self.common.write16(0x1c, 1);
        Ok(Doorbell {
            register,
            queue: index,
            wide: false,
        })
    }

    fn start(&mut self) {
        self.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    }

    fn configuration(&self) -> &Registers {
        &self.device
    }

    fn wakes(&self) -> bool {
        self.vectors || self.pin_status.is_some()
    }

    fn line(&self) -> Option<RaisedLine> {
        self.pin_status.map(RaisedLine::Read)
    }

    fn status(&self) -> u8 {
        self.common.read8(0x14)
    }

    fn set_status(&self, status: u8) {
        self.common.write8(0x14, status);
    }
}

/// Where a capability says a structure lies (§4.1.4).
#[derive(Clone, Copy, Debug)]
struct Structure {
    bar: u8,
    offset: u32,
    length: u32,
}

impl Structure {
    fn read(pci: &Pci<'_>, function: Function, at: u16) -> Option<Self> {
        let bar = pci.0.read32(function, at + 4).to_le_bytes()[0];
        (bar < 6).then(|| Self {
            bar,
            offset: pci.0.read32(function, at + 8),
            length: pci.0.read32(function, at + 12),
        })
    }

    /// Maps the structure, which must be at least `least` bytes and lie inside its BAR.
    fn map(
        self,
        pci: &Pci<'_>,
        function: Function,
        mmu: &mut Mmu,
        least: u32,
        name: &'static str,
    ) -> Result<Registers, Error> {
        /// No structure of a virtio device is larger; a longer one is cut, so that it cannot use up
        /// the page tables.
        const MOST: u32 = 64 * 1024;
        let bad = Error::Capability(name);
        let bar = pci.bar(function, self.bar).ok_or(bad)?;
        let end = u64::from(self.offset) + u64::from(self.length);
        if end > bar.length || self.length < least || !self.offset.is_multiple_of(4) {
            return Err(bad);
        }
        let (start, length) = (bar.address + u64::from(self.offset), self.length.min(MOST));
        mmu.map(start, u64::from(length), Kind::Device)?;
        // SAFETY: the range lies inside a BAR of a virtio function, mapped uncached just now; this
        // driver is its only user, and the structures do no DMA other than through the
        // queues that are set up here.
        Ok(unsafe { Registers::new(start as *mut u8, length as usize) })
    }
}

/// Programs MSI-X entry 0 with `message`, masks nothing else, and turns MSI-X on (PCI Local Bus 3.0
/// §6.8.2).
fn direct_interrupts(
    pci: &Pci<'_>,
    function: Function,
    at: u16,
    mmu: &mut Mmu,
    message: Message,
) -> Result<(), Error> {
    const ENTRY: u32 = 16;
    let table = pci.0.read32(function, at + 4);
    let structure = Structure {
        bar: (table & 7) as u8,
        offset: table & !7,
        length: ENTRY,
    };
    if structure.bar > 5 {
        return Err(Error::Capability("MSI-X"));
    }
    let entry = structure.map(pci, function, mmu, ENTRY, "MSI-X")?;
    entry.write64(0, message.address);
    entry.write32(8, message.data);
    entry.write32(12, 0);
    let control = pci.0.read32(function, at);
    pci.0.write32(function, at, control & !(1 << 30) | 1 << 31);
    Ok(())
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests;
