//! The virtio entropy device (virtio 1.3 §5.4): one queue of room that it fills. What the bytes are worth is
//! not known here.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use super::ring::RingMemory;
use super::ring::exchange::{Exchange, LENGTH};
use super::virtio::pci::VENDOR;
use super::virtio::{Doorbell, Error, Transport};
use crate::cell::TakeCell;

/// Bytes that the device is asked for at a time.
pub const ROOM: usize = 32;

/// The same, as a descriptor has it.
const LENGTH_OF_ROOM: u32 = 32;
const _: () = assert!(LENGTH_OF_ROOM as usize == ROOM);

/// What is lent to the device. It may write any of it at any time.
#[repr(C, align(64))]
struct Room([AtomicU64; ROOM / 8]);

impl Room {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; ROOM / 8])
    }
}

/// A running device.
pub struct Rng {
    queue: Exchange,
    bell: Doorbell,
    room: &'static Room,
}

/// Whether a PCI function with these ids is a virtio entropy device.
#[must_use]
pub const fn is_rng(vendor: u16, device: u16) -> bool {
    const TRANSITIONAL: u16 = 0x1005;
    const MODERN: u16 = 0x1044;
    vendor == VENDOR && matches!(device, TRANSITIONAL | MODERN)
}

impl Rng {
    /// Brings the device behind `transport` up.
    ///
    /// # Errors
    /// The device is unusable, or one is running already (there is one set of memory).
    pub fn new(transport: impl Transport) -> Result<Self, Error> {
        static RING: TakeCell<RingMemory<LENGTH>> = TakeCell::new(RingMemory::new());
        static MEMORY: TakeCell<Room> = TakeCell::new(Room::new());

        let in_use = Error::Queue {
            index: 0,
            maximum: 0,
        };
        let ring = RING.take().ok_or(in_use)?;
        Self::start(transport, ring, MEMORY.take().ok_or(in_use)?)
    }

    fn start(
        mut transport: impl Transport,
        ring: &'static mut RingMemory<LENGTH>,
        room: &'static Room,
    ) -> Result<Self, Error> {
        // It has no features of its own.
        transport.negotiate(0)?;
        let bell = transport.queue(0, ring, false)?;
        let queue = Exchange::new(ring);
        transport.start();
        Ok(Self { queue, bell, room })
    }

    /// Asks for [`ROOM`] bytes; false while an answer is under way.
    pub fn ask(&mut self) -> bool {
        if self.queue.is_lent() {
            return false;
        }
        // What was drawn before is nobody's to read again.
        for word in &self.room.0 {
            word.store(0, Ordering::Relaxed);
        }
        self.queue
            .push_room((self.room.0.as_ptr() as u64, LENGTH_OF_ROOM));
        if self.queue.wants_notification() {
            self.bell.ring();
        }
        true
    }

    /// Takes the answer, if it has come, and returns how many bytes the device says that it wrote. What it
    /// has not written is zero.
    pub fn receive(&mut self, bytes: &mut [u8; ROOM]) -> Option<usize> {
        // One entry a call: of lies there can be many.
        let written = self.queue.pop()?.ok()?;
        for (bytes, word) in bytes.as_chunks_mut().0.iter_mut().zip(&self.room.0) {
            *bytes = word.swap(0, Ordering::Relaxed).to_ne_bytes();
        }
        Some(usize::try_from(written).unwrap_or(usize::MAX))
    }
}

impl fmt::Debug for Rng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never what it said.
        f.debug_struct("Rng")
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::boxed::Box;

    use super::*;
    use crate::dev::registers::Registers;
    use crate::dev::ring::exchange::device::Device;
    use crate::dev::virtio::mmio::{self, MmioTransport, fake};

    struct Rig {
        rng: Rng,
        device: Device,
        registers: Registers,
    }

    impl Rig {
        fn new() -> Self {
            let registers = fake(mmio::ENTROPY, 1);
            let transport = MmioTransport::new(registers, false).unwrap();
            let memory = Box::leak(Box::new(RingMemory::new()));
            let room = Box::leak(Box::new(Room::new()));
            let rng = Rng::start(transport, memory, room).unwrap();
            let device = Device::of(&rng.queue);
            Self {
                rng,
                device,
                registers,
            }
        }

        fn answer(&mut self, words: [u64; 4], length: u32) {
            let (address, room) = self.device.take_room().unwrap();
            assert_eq!(address, self.rng.room.0.as_ptr() as u64);
            assert_eq!(room, 32);
            for (place, word) in self.rng.room.0.iter().zip(words) {
                place.store(word, Ordering::Relaxed);
            }
            self.device.give(0, length);
        }
    }

    #[test]
    fn known_by_its_ids() {
        assert!(is_rng(0x1af4, 0x1044) && is_rng(0x1af4, 0x1005));
        assert!(!is_rng(0x1af4, 0x1041) && !is_rng(0x1af5, 0x1044));
        assert!(Rng::new(MmioTransport::new(fake(mmio::ENTROPY, 0), false).unwrap()).is_err());
    }

    #[test]
    fn room_goes_out_and_comes_back_filled() {
        let mut rig = Rig::new();
        let mut bytes = [0; ROOM];
        assert_eq!(rig.rng.receive(&mut bytes), None);
        for round in 0..70_000_u64 / if cfg!(miri) { 1000 } else { 1 } {
            rig.registers.write32(0x050, 99);
            assert!(rig.rng.ask());
            assert_eq!(rig.registers.read32(0x050), 0, "the bell of queue 0");
            assert!(!rig.rng.ask(), "one at a time");
            assert_eq!(rig.rng.receive(&mut bytes), None);
            rig.answer([round, 2, 3, !round], 32);
            assert_eq!(rig.rng.receive(&mut bytes), Some(32));
            assert_eq!(bytes[..8], round.to_ne_bytes());
            assert_eq!(bytes[24..], (!round).to_ne_bytes());
            assert_eq!(rig.rng.receive(&mut bytes), None);
            let left = rig
                .rng
                .room
                .0
                .iter()
                .map(|word| word.load(Ordering::Relaxed));
            assert!(left.eq([0; 4]), "nothing stays behind");
        }
    }

    #[test]
    fn lies_change_nothing_and_lengths_are_told_as_they_are() {
        let mut rig = Rig::new();
        let mut bytes = [0; ROOM];
        rig.device.give(0, 32);
        assert_eq!(rig.rng.receive(&mut bytes), None, "nothing was asked");
        assert!(rig.rng.ask());
        for id in [1, 2, u32::MAX] {
            rig.device.give(id, 32);
            assert_eq!(rig.rng.receive(&mut bytes), None);
        }
        rig.answer([7; 4], u32::MAX);
        let long = usize::try_from(u32::MAX).unwrap();
        assert_eq!(rig.rng.receive(&mut bytes), Some(long));
        assert!(rig.rng.ask());
        rig.answer([0; 4], 0);
        assert_eq!(rig.rng.receive(&mut bytes), Some(0));
        rig.device.run_ahead();
        for _ in 0..100 {
            assert_eq!(rig.rng.receive(&mut bytes), None);
        }
    }
}
