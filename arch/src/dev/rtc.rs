//! The virtio real-time clock device (virtio 1.4 §5.22): its request queue. What the requests mean is not
//! known here.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use super::ring::RingMemory;
use super::ring::exchange::{Exchange, LENGTH};
use super::virtio::pci::VENDOR;
use super::virtio::{Doorbell, Error, Transport};
use crate::cell::TakeCell;

/// Words of the longest request.
const QUESTION: usize = 2;
/// Words of the longest answer.
const ANSWER: usize = 3;

/// What is shared with the device for one request. It may write any of it at any time.
#[repr(C, align(64))]
struct Shared {
    question: [AtomicU64; QUESTION],
    answer: [AtomicU64; ANSWER],
}

impl Shared {
    const fn new() -> Self {
        Self {
            question: [const { AtomicU64::new(0) }; QUESTION],
            answer: [const { AtomicU64::new(0) }; ANSWER],
        }
    }
}

/// A running device.
pub struct Rtc {
    queue: Exchange,
    bell: Doorbell,
    shared: &'static Shared,
    lies: u64,
}

/// Whether a PCI function with these ids is a virtio real-time clock.
#[must_use]
pub const fn is_rtc(vendor: u16, device: u16) -> bool {
    const MODERN: u16 = 0x1051;
    vendor == VENDOR && device == MODERN
}

impl Rtc {
    /// Brings the device behind `transport` up, without alarms.
    ///
    /// # Errors
    /// The device is unusable, or one is running already (there is one set of memory).
    pub fn new(transport: impl Transport) -> Result<Self, Error> {
        static RING: TakeCell<RingMemory<LENGTH>> = TakeCell::new(RingMemory::new());
        static SHARED: TakeCell<Shared> = TakeCell::new(Shared::new());

        let in_use = Error::Queue {
            index: 0,
            maximum: 0,
        };
        let ring = RING.take().ok_or(in_use)?;
        Self::start(transport, ring, SHARED.take().ok_or(in_use)?)
    }

    fn start(
        mut transport: impl Transport,
        ring: &'static mut RingMemory<LENGTH>,
        shared: &'static Shared,
    ) -> Result<Self, Error> {
        // No feature is wanted: alarms least of all.
        transport.negotiate(0)?;
        let bell = transport.queue(0, ring, false)?;
        let queue = Exchange::new(ring);
        transport.start();
        Ok(Self {
            queue,
            bell,
            shared,
            lies: 0,
        })
    }

    /// Sends a request of at most 16 bytes, with room for an answer of `room` bytes, at most 24; false when
    /// one is under way, or it does not fit.
    pub fn send(&mut self, request: &[u8], room: usize) -> bool {
        let Some(question) = words(request) else {
            return false;
        };
        let lengths = (u32::try_from(request.len()), u32::try_from(room));
        let (Ok(length), Ok(room)) = lengths else {
            return false;
        };
        if self.queue.is_lent() || room as usize > size_of::<[u64; ANSWER]>() {
            return false;
        }
        for (place, word) in self.shared.question.iter().zip(question) {
            place.store(u64::from_ne_bytes(word), Ordering::Relaxed);
        }
        // What a device claims to have written and has not, is no success.
        for place in &self.shared.answer {
            place.store(u64::MAX, Ordering::Relaxed);
        }
        let address = |part: &[AtomicU64]| part.as_ptr() as u64;
        self.queue.push(
            (address(&self.shared.question), length),
            (address(&self.shared.answer), room),
        );
        if self.queue.wants_notification() {
            self.bell.ring();
        }
        true
    }

    /// Takes the answer to the request under way, if it has come, and returns how many bytes the device
    /// says that it wrote.
    pub fn receive(&mut self, answer: &mut [u8; ANSWER * 8]) -> Option<usize> {
        // One entry a call: of lies there can be many.
        let Ok(written) = self.queue.pop()? else {
            self.lies += 1;
            return None;
        };
        for (bytes, word) in answer.as_chunks_mut().0.iter_mut().zip(&self.shared.answer) {
            *bytes = word.load(Ordering::Relaxed).to_ne_bytes();
        }
        Some(usize::try_from(written).unwrap_or(usize::MAX))
    }

    /// Ring entries that no honest device writes.
    #[must_use]
    pub const fn lies(&self) -> u64 {
        self.lies
    }
}

impl fmt::Debug for Rtc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rtc")
            .field("queue", &self.queue)
            .field("lies", &self.lies)
            .finish_non_exhaustive()
    }
}

/// The request in whole words, zeros behind it.
fn words(request: &[u8]) -> Option<[[u8; 8]; QUESTION]> {
    let mut bytes = [0; QUESTION * 8];
    bytes.get_mut(..request.len())?.copy_from_slice(request);
    bytes.as_chunks().0.try_into().ok()
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
        rtc: Rtc,
        device: Device,
        registers: Registers,
    }

    impl Rig {
        fn new() -> Self {
            let registers = fake(mmio::CLOCK, 1);
            let transport = MmioTransport::new(registers, false).unwrap();
            let ring = Box::leak(Box::new(RingMemory::new()));
            let shared = Box::leak(Box::new(Shared::new()));
            let rtc = Rtc::start(transport, ring, shared).unwrap();
            let device = Device::of(&rtc.queue);
            Self {
                rtc,
                device,
                registers,
            }
        }

        /// What the device is asked; where it is to answer is known.
        fn question(&mut self) -> ([u64; 2], u32) {
            let shared = self.rtc.shared;
            let [(question, length), (answer, room)] = self.device.take().unwrap();
            assert_eq!(question, shared.question.as_ptr() as u64);
            assert_eq!(answer, shared.answer.as_ptr() as u64);
            let words = shared.question.each_ref();
            let words = words.map(|word| u64::from_le(word.load(Ordering::Relaxed)));
            assert!(length as usize <= 16 && room as usize <= 24);
            (words, length)
        }

        fn answer(&mut self, words: [u64; 3], length: u32) {
            for (place, word) in self.rtc.shared.answer.iter().zip(words) {
                place.store(word.to_le(), Ordering::Relaxed);
            }
            self.device.give(0, length);
        }
    }

    #[test]
    fn alarms_are_not_taken() {
        let rig = Rig::new();
        // VERSION_1 was written last, to the upper half; see below for the lower one.
        assert_eq!(rig.registers.read32(0x020), 1);
        assert_eq!(rig.registers.read32(0x070) & 0x80, 0, "not failed");
        let mut transport = MmioTransport::new(fake(mmio::CLOCK, 1), false).unwrap();
        assert_eq!(transport.negotiate(0), Ok(1 << 32));
        assert!(Rtc::new(MmioTransport::new(fake(mmio::CLOCK, 0), false).unwrap()).is_err());
    }

    #[test]
    fn questions_go_out_and_answers_come_in() {
        let mut rig = Rig::new();
        let mut answer = [0; 24];
        for round in 0..70_000_u64 / if cfg!(miri) { 1000 } else { 1 } {
            rig.registers.write32(0x050, 99);
            assert!(rig.rtc.send(&round.to_le_bytes(), 16));
            assert_eq!(rig.registers.read32(0x050), 0, "the bell of queue 0");
            assert!(!rig.rtc.send(&[1; 8], 16), "one at a time");
            assert_eq!(rig.rtc.receive(&mut answer), None);
            assert_eq!(rig.question(), ([round, 0], 8));
            rig.answer([0, round, 7], 16);
            assert_eq!(rig.rtc.receive(&mut answer), Some(16));
            assert_eq!(answer[8..16], round.to_le_bytes());
            assert_eq!(rig.rtc.receive(&mut answer), None);
        }
        assert_eq!(rig.rtc.lies(), 0);
        assert!(!rig.rtc.send(&[0; 17], 16), "too long");
        assert!(!rig.rtc.send(&[0; 16], 25), "no such room");
    }

    #[test]
    fn what_was_not_written_is_no_success() {
        let mut rig = Rig::new();
        let mut answer = [0; 24];
        assert!(rig.rtc.send(&[1; 16], 16));
        rig.question();
        rig.device.give(0, 16);
        assert_eq!(rig.rtc.receive(&mut answer), Some(16));
        assert_eq!(answer, [0xff; 24]);
    }

    #[test]
    fn lies_are_counted_and_cost_nothing() {
        let mut rig = Rig::new();
        let mut answer = [0; 24];
        rig.device.give(0, 16);
        assert_eq!(rig.rtc.receive(&mut answer), None, "nothing was asked");
        assert!(rig.rtc.send(&[1; 16], 16));
        rig.question();
        for id in [1, 2, u32::MAX] {
            rig.device.give(id, 16);
            assert_eq!(rig.rtc.receive(&mut answer), None);
        }
        rig.answer([0, 5, 0], u32::MAX);
        let long = usize::try_from(u32::MAX).unwrap();
        assert_eq!(rig.rtc.receive(&mut answer), Some(long), "the protocol's");
        rig.device.give(0, 16);
        assert_eq!(rig.rtc.receive(&mut answer), None, "twice");
        assert_eq!(rig.rtc.lies(), 5);
        // An index that has run ahead is a lie for each step, one a look.
        rig.device.run_ahead();
        for _ in 0..100 {
            assert_eq!(rig.rtc.receive(&mut answer), None);
        }
        assert_eq!(rig.rtc.lies(), 105);
    }
}
