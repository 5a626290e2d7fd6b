//! The virtio MMIO transport (virtio 1.3 §4.2), version 2 of its register layout.

use super::{
    ACKNOWLEDGE, DRIVER, DRIVER_OK, Doorbell, Error, FEATURES_OK, RaisedLine, Transport, VERSION_1,
};
use crate::dev::registers::Registers;
use crate::dev::ring::RingMemory;

/// Bytes of registers before the device's own configuration.
pub const CONFIGURATION: usize = 0x100;
/// Device id of a network device (§5.1.1).
pub const NETWORK: u32 = 1;
/// Device id of an entropy device (§5.4.1).
pub const ENTROPY: u32 = 4;
/// Device id of a real-time clock (virtio 1.4 §5.22.1).
pub const CLOCK: u32 = 17;

const MAGIC: usize = 0x000;
const VERSION: usize = 0x004;
const DEVICE_ID: usize = 0x008;
const DEVICE_FEATURES: usize = 0x010;
const DEVICE_FEATURES_SELECT: usize = 0x014;
const DRIVER_FEATURES: usize = 0x020;
const DRIVER_FEATURES_SELECT: usize = 0x024;
const QUEUE_SELECT: usize = 0x030;
const QUEUE_SIZE_MAX: usize = 0x034;
const QUEUE_SIZE: usize = 0x038;
const QUEUE_READY: usize = 0x044;
const QUEUE_NOTIFY: usize = 0x050;
const INTERRUPT_STATUS: usize = 0x060;
const INTERRUPT_ACKNOWLEDGE: usize = 0x064;
const STATUS: usize = 0x070;
const QUEUE_ADDRESSES: [usize; 3] = [0x080, 0x090, 0x0a0];

/// The id of the device behind `registers`: zero where nothing is plugged in, `None` where there is
/// no virtio transport at all.
#[must_use]
pub fn device_id(registers: &Registers) -> Option<u32> {
    let magic = u32::from_le_bytes(*b"virt");
    (registers.read32(MAGIC) == magic).then(|| registers.read32(DEVICE_ID))
}

/// A virtio device with its registers in memory, between reset and running.
#[derive(Debug)]
pub struct MmioTransport {
    registers: Registers,
    device: Registers,
    wakes: bool,
}

impl MmioTransport {
    /// Resets the device behind `registers`, which belong to a virtio transport. `wakes` says that
    /// its interrupt is connected.
    ///
    /// # Errors
    /// The device is a legacy one or does not come out of reset.
    pub fn new(registers: Registers, wakes: bool) -> Result<Self, Error> {
        const MODERN: u32 = 2;
        if registers.read32(VERSION) != MODERN {
            return Err(Error::Legacy);
        }
        let device = registers
            .rest(CONFIGURATION)
            .ok_or(Error::Capability("device configuration"))?;
        let transport = Self {
            registers,
            device,
            wakes,
        };
        transport.reset()?;
        Ok(transport)
    }
}

impl Transport for MmioTransport {
    fn negotiate(&mut self, wanted: u64) -> Result<u64, Error> {
        let half = |select| {
            self.registers.write32(DEVICE_FEATURES_SELECT, select);
            u64::from(self.registers.read32(DEVICE_FEATURES))
        };
        let offered = half(0) | half(1) << 32;
        let chosen = offered & (wanted | VERSION_1);
        if chosen & VERSION_1 == 0 {
            return Err(self.failed(Error::Features { offered }));
        }
        for (select, half) in [(0, chosen & 0xffff_ffff), (1, chosen >> 32)] {
            let half = u32::try_from(half).unwrap_or(0);
            self.registers.write32(DRIVER_FEATURES_SELECT, select);
            self.registers.write32(DRIVER_FEATURES, half);
        }
        self.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
        if self.status() & FEATURES_OK == 0 {
            return Err(self.failed(Error::Features { offered }));
        }
        Ok(chosen)
    }

    /// One line serves all queues: those that must not interrupt say so in their rings.
    fn queue<const N: usize>(
        &mut self,
        index: u16,
        memory: &RingMemory<N>,
        _: bool,
    ) -> Result<Doorbell, Error> {
        self.registers.write32(QUEUE_SELECT, u32::from(index));
        let offered = self.registers.read32(QUEUE_SIZE_MAX);
        let maximum = u16::try_from(offered).unwrap_or(u16::MAX);
        let size = u16::try_from(N).ok().filter(|&size| size <= maximum);
        let Some(size) = size.filter(|_| offered != u32::MAX) else {
            return Err(self.failed(Error::Queue { index, maximum }));
        };
        self.registers.write32(QUEUE_SIZE, u32::from(size));
        for (offset, address) in QUEUE_ADDRESSES.into_iter().zip(memory.addresses()) {
            self.registers.write64(offset, address);
        }
        let Some(register) = self.registers.part(QUEUE_NOTIFY, 4) else {
            return Err(self.failed(Error::Capability("notification")));
        };
        self.registers.write32(QUEUE_READY, 1);
        Ok(Doorbell {
            register,
            queue: index,
            wide: true,
        })
    }

    fn start(&mut self) {
        self.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    }

    fn configuration(&self) -> &Registers {
        &self.device
    }

    fn wakes(&self) -> bool {
        self.wakes
    }

    fn line(&self) -> Option<RaisedLine> {
        Some(RaisedLine::Write {
            status: self.registers.part(INTERRUPT_STATUS, 4)?,
            acknowledge: self.registers.part(INTERRUPT_ACKNOWLEDGE, 4)?,
        })
    }

    fn status(&self) -> u8 {
        u8::try_from(self.registers.read32(STATUS)).unwrap_or(u8::MAX)
    }

    fn set_status(&self, status: u8) {
        self.registers.write32(STATUS, u32::from(status));
    }
}

/// Registers of a virtio device that are plain memory: what is written is read again.
#[cfg(test)]
pub(crate) fn fake(device: u32, offered: u32) -> Registers {
    extern crate std;
    let block = std::boxed::Box::leak(std::boxed::Box::new([0_u64; 0x200 / 8]));
    // SAFETY: memory of our own, aligned, and never given back.
    let registers = unsafe { Registers::new(block.as_mut_ptr().cast(), 0x200) };
    for (offset, value) in [
        (MAGIC, u32::from_le_bytes(*b"virt")),
        (VERSION, 2),
        (DEVICE_ID, device),
        // For either half: the lower one offers the device's own, the upper one VERSION_1.
        (DEVICE_FEATURES, offered),
        (QUEUE_SIZE_MAX, 64),
    ] {
        registers.write32(offset, value);
    }
    registers
}
