//! A queue with one request under way: the device reads a question and writes an answer, or only writes.
//!
//! Descriptor 0 is always the question and descriptor 1 the answer (virtio 1.3 §2.7.5), and without a question
//! descriptor 0 is the answer; so there is nothing to keep account of but whether they are lent.

use core::fmt;
use core::sync::atomic::{Ordering, fence};

use super::{Descriptor, Lie, RingMemory, WRITE};
use crate::dev::event;

/// Available-ring flag: the driver asks for no interrupts.
const NO_INTERRUPT: u16 = 1;
/// Used-ring flag: the device asks for no notifications.
const NO_NOTIFY: u16 = 1;
/// Descriptor flag: another one follows.
const NEXT: u16 = 1;
/// Descriptors of the queue.
pub const LENGTH: usize = 2;

/// The driver's side of such a queue.
pub struct Exchange {
    memory: &'static RingMemory<LENGTH>,
    next_available: u16,
    last_used: u16,
    is_lent: bool,
}

impl Exchange {
    /// Takes over `memory`, which must be empty, as it is before the device is told of it. The device
    /// is asked for no interrupts.
    #[must_use]
    pub fn new(memory: &'static mut RingMemory<LENGTH>) -> Self {
        let flags = &memory.available.flags;
        flags.store(NO_INTERRUPT.to_le(), Ordering::Relaxed);
        Self {
            memory,
            next_available: 0,
            last_used: 0,
            is_lent: false,
        }
    }

    /// Whether the device has the memory of a request.
    #[must_use]
    pub const fn is_lent(&self) -> bool {
        self.is_lent
    }

    /// Lends the device the question and the room for its answer, each a physical address and a length;
    /// false when they are lent already.
    pub fn push(&mut self, question: (u64, u32), answer: (u64, u32)) -> bool {
        let [first, second] = &self.memory.descriptors;
        self.lend(&[(first, question, NEXT), (second, answer, WRITE)])
    }

    /// Lends the device room alone, which it is to fill; false when it has it already.
    pub fn push_room(&mut self, room: (u64, u32)) -> bool {
        let [first, _] = &self.memory.descriptors;
        self.lend(&[(first, room, WRITE)])
    }

    fn lend(&mut self, chain: &[(&'static Descriptor, (u64, u32), u16)]) -> bool {
        if self.is_lent {
            return false;
        }
        for (descriptor, (address, length), flags) in chain {
            descriptor.address.store(address.to_le(), Ordering::Relaxed);
            descriptor.length.store(length.to_le(), Ordering::Relaxed);
            descriptor.flags.store(flags.to_le(), Ordering::Relaxed);
        }
        let [first, _] = &self.memory.descriptors;
        first.next.store(1_u16.to_le(), Ordering::Relaxed);
        let [even, odd] = &self.memory.available.ring;
        let entry = if self.next_available.is_multiple_of(2) {
            even
        } else {
            odd
        };
        entry.store(0, Ordering::Relaxed);
        self.is_lent = true;
        self.next_available = self.next_available.wrapping_add(1);
        event::show(&self.memory.available.index, self.next_available);
        true
    }

    /// Whether the device wants to be told of what was pushed. The full fence is needed, as for
    /// every queue (virtio 1.3 §2.7.13.4.1).
    #[must_use]
    pub fn wants_notification(&self) -> bool {
        fence(Ordering::SeqCst);
        u16::from_le(self.memory.used.flags.load(Ordering::Relaxed)) & NO_NOTIFY == 0
    }

    /// Takes the request back if the device has finished with it, with how many bytes the device says it
    /// wrote.
    ///
    /// # Errors
    /// The entry is a lie; it is skipped, and nothing changes hands.
    pub fn pop(&mut self) -> Option<Result<u32, Lie>> {
        let used = &self.memory.used;
        if event::shown(&used.index) == self.last_used {
            return None;
        }
        let [even, odd] = &used.ring;
        let element = if self.last_used.is_multiple_of(2) {
            even
        } else {
            odd
        };
        let id = u32::from_le(element.id.load(Ordering::Relaxed));
        let length = u32::from_le(element.length.load(Ordering::Relaxed));
        self.last_used = self.last_used.wrapping_add(1);
        if id != 0 || !self.is_lent {
            return Some(Err(Lie { id }));
        }
        self.is_lent = false;
        Some(Ok(length))
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("is_lent", &self.is_lent)
            .field("next_available", &self.next_available)
            .field("last_used", &self.last_used)
            .finish_non_exhaustive()
    }
}

/// The other side, for tests.
#[cfg(test)]
pub(crate) mod device {
    use super::*;

    /// A device, written against the same memory.
    pub(crate) struct Device {
        memory: &'static RingMemory<LENGTH>,
        next: u16,
        used: u16,
    }

    impl Device {
        pub(crate) fn of(queue: &Exchange) -> Self {
            Self {
                memory: queue.memory,
                next: 0,
                used: 0,
            }
        }

        /// Address and length of the question and of the room for the answer, if there is one.
        pub(crate) fn take(&mut self) -> Option<[(u64, u32); 2]> {
            let chain = self
                .take_head()
                .then(|| [self.read(0, NEXT), self.read(1, WRITE)])?;
            let next = &self.memory.descriptors[0].next;
            assert_eq!(u16::from_le(next.load(Ordering::Relaxed)), 1);
            Some(chain)
        }

        /// Address and length of the room for an answer to no question, if there is one.
        pub(crate) fn take_room(&mut self) -> Option<(u64, u32)> {
            self.take_head().then(|| self.read(0, WRITE))
        }

        fn take_head(&mut self) -> bool {
            let available = &self.memory.available;
            if u16::from_le(available.index.load(Ordering::Acquire)) == self.next {
                return false;
            }
            let position = usize::from(self.next) % LENGTH;
            assert_eq!(available.ring[position].load(Ordering::Relaxed), 0);
            assert_eq!(
                u16::from_le(available.flags.load(Ordering::Relaxed)),
                NO_INTERRUPT
            );
            self.next = self.next.wrapping_add(1);
            true
        }

        fn read(&self, index: usize, flags: u16) -> (u64, u32) {
            let descriptor = &self.memory.descriptors[index];
            assert_eq!(
                u16::from_le(descriptor.flags.load(Ordering::Relaxed)),
                flags
            );
            (
                u64::from_le(descriptor.address.load(Ordering::Relaxed)),
                u32::from_le(descriptor.length.load(Ordering::Relaxed)),
            )
        }

        pub(crate) fn give(&mut self, id: u32, length: u32) {
            let used = &self.memory.used;
            let element = &used.ring[usize::from(self.used) % LENGTH];
            element.id.store(id.to_le(), Ordering::Relaxed);
            element.length.store(length.to_le(), Ordering::Relaxed);
            self.used = self.used.wrapping_add(1);
            used.index.store(self.used.to_le(), Ordering::Release);
        }

        /// Claims half a round more than there was.
        pub(crate) fn run_ahead(&mut self) {
            self.used = self.used.wrapping_add(0x8000);
            let index = &self.memory.used.index;
            index.store(self.used.to_le(), Ordering::Release);
        }
    }
}
