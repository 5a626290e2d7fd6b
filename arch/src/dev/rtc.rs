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
    pub fn new(mut transport: impl Transport) -> Result<Self, Error> {
        static RING: TakeCell<RingMemory<LENGTH>> = TakeCell::new(RingMemory::new());
        static SHARED: TakeCell<Shared> = TakeCell::new(Shared {
            question: [const { AtomicU64::new(0) }; QUESTION],
            answer: [const { AtomicU64::new(0) }; ANSWER],
        });

        transport.negotiate(0)?;
        let in_use = Error::Queue {
            index: 0,
            maximum: 0,
        };
        let ring = RING.take().ok_or(in_use)?;
        let shared = SHARED.take().ok_or(in_use)?;
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
