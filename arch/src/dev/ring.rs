//! The split virtqueue (virtio 1.3 §2.7), as shared memory made of atomics.
//!
//! The device is another party that writes this memory whenever it likes, so every shared field is
//! an atomic and the whole file is safe code. What the driver must be able to rely on (which
//! buffers are lent out) it keeps to itself in `slots`; what the device writes is checked against
//! that and never believed. What it writes about notifications decides only whether it is notified: a
//! device that lies there keeps itself waiting.

use core::fmt;
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use super::event::{self, Wish};

pub mod exchange;

/// Descriptor flag: the device writes the buffer.
const WRITE: u16 = 2;

/// The memory of one queue of `N` descriptors, `N` a power of two. Zeroed memory is an empty queue.
#[repr(C, align(4096))]
#[derive(Debug)]
pub struct RingMemory<const N: usize> {
    descriptors: [Descriptor; N],
    available: Available<N>,
    used: Used<N>,
}

#[repr(C)]
#[derive(Debug)]
struct Descriptor {
    address: AtomicU64,
    length: AtomicU32,
    flags: AtomicU16,
    next: AtomicU16,
}

#[repr(C)]
#[derive(Debug)]
struct Available<const N: usize> {
    flags: AtomicU16,
    index: AtomicU16,
    ring: [AtomicU16; N],
    used_event: AtomicU16,
}

#[repr(C, align(4))]
#[derive(Debug)]
struct Used<const N: usize> {
    flags: AtomicU16,
    index: AtomicU16,
    ring: [UsedElement; N],
    available_event: AtomicU16,
}

#[repr(C)]
#[derive(Debug)]
struct UsedElement {
    id: AtomicU32,
    length: AtomicU32,
}

impl<const N: usize> RingMemory<N> {
    /// An empty queue.
    #[must_use]
    pub const fn new() -> Self {
        const {
            assert!(
                N.is_power_of_two() && N <= 32768,
                "virtio 1.3 §2.7: a power of two, at most 32768"
            );
        };
        Self {
            descriptors: [const {
                Descriptor {
                    address: AtomicU64::new(0),
                    length: AtomicU32::new(0),
                    flags: AtomicU16::new(0),
                    next: AtomicU16::new(0),
                }
            }; N],
            available: Available {
                flags: AtomicU16::new(0),
                index: AtomicU16::new(0),
                ring: [const { AtomicU16::new(0) }; N],
                used_event: AtomicU16::new(0),
            },
            used: Used {
                flags: AtomicU16::new(0),
                index: AtomicU16::new(0),
                ring: [const {
                    UsedElement {
                        id: AtomicU32::new(0),
                        length: AtomicU32::new(0),
                    }
                }; N],
                available_event: AtomicU16::new(0),
            },
        }
    }

    /// Addresses of the descriptor table, the driver area and the device area, as the device is
    /// told them.
    #[must_use]
    pub fn addresses(&self) -> [u64; 3] {
        [
            core::ptr::from_ref(&self.descriptors) as u64,
            core::ptr::from_ref(&self.available) as u64,
            core::ptr::from_ref(&self.used) as u64,
        ]
    }
}

impl<const N: usize> Default for RingMemory<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// A used-ring entry that no honest device writes: an id out of range, or of a buffer that is not
/// lent out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lie {
    /// The id the device named.
    pub id: u32,
}

/// The driver's side of a queue. `T` stands for a lent buffer; it comes back from [`Self::pop`]
/// exactly once.
pub struct Queue<T, const N: usize> {
    memory: &'static RingMemory<N>,
    slots: [Option<T>; N],
    free: [u16; N],
    free_count: usize,
    next_available: u16,
    /// What [`Self::wants_notification`] was last asked of.
    considered: u16,
    last_used: u16,
    /// The device was promised `VIRTIO_F_RING_EVENT_IDX`, and so was the driver.
    events: bool,
}

impl<T, const N: usize> Queue<T, N> {
    /// Takes over `memory`, which must be empty, as it is before the device is told of it. `events`
    /// says that the device and the driver have agreed on `VIRTIO_F_RING_EVENT_IDX`. No interrupts
    /// are asked for.
    #[must_use]
    pub fn new(memory: &'static mut RingMemory<N>, events: bool) -> Self {
        let mut free = [0; N];
        for (id, slot) in (0..).zip(free.iter_mut()) {
            *slot = id;
        }
        let queue = Self {
            memory,
            slots: [const { None }; N],
            free,
            free_count: N,
            next_available: 0,
            considered: 0,
            last_used: 0,
            events,
        };
        queue.hush();
        queue
    }

    /// The memory, for a device that is told of it again.
    #[must_use]
    pub const fn memory(&self) -> &'static RingMemory<N> {
        self.memory
    }

    /// Begins again with an empty queue and gives everything that was lent to `back`, for a device that
    /// was reset. `events` is as for [`Self::new`].
    pub fn clear(&mut self, events: bool, back: impl FnMut(T)) {
        let memory = self.memory;
        for index in [
            &memory.available.flags,
            &memory.available.index,
            &memory.available.used_event,
            &memory.used.flags,
            &memory.used.index,
            &memory.used.available_event,
        ] {
            index.store(0, Ordering::Relaxed);
        }
        self.slots
            .iter_mut()
            .filter_map(Option::take)
            .for_each(back);
        for (id, place) in (0..).zip(self.free.iter_mut()) {
            *place = id;
        }
        self.free_count = N;
        self.next_available = 0;
        self.considered = 0;
        self.last_used = 0;
        self.events = events;
        self.hush();
    }

    /// How many more buffers can be pushed.
    #[must_use]
    pub const fn room(&self) -> usize {
        self.free_count
    }

    /// Lends the device one buffer of `length` bytes at physical `address`, to be read, or to be
    /// written if `writable`. The device sees it at the next [`Self::publish`].
    ///
    /// # Errors
    /// The queue is full; the token comes back.
    #[inline]
    pub fn push(&mut self, token: T, address: u64, length: u32, writable: bool) -> Result<(), T> {
        let Some(&id) = self
            .free_count
            .checked_sub(1)
            .and_then(|last| self.free.get(last))
        else {
            return Err(token);
        };
        let position = usize::from(self.next_available) & (N - 1);
        let (Some(slot), Some(descriptor), Some(entry)) = (
            self.slots.get_mut(usize::from(id)),
            self.memory.descriptors.get(usize::from(id)),
            self.memory.available.ring.get(position),
        ) else {
            return Err(token);
        };
        descriptor.address.store(address.to_le(), Ordering::Relaxed);
        descriptor.length.store(length.to_le(), Ordering::Relaxed);
        descriptor
            .flags
            .store(if writable { WRITE.to_le() } else { 0 }, Ordering::Relaxed);
        entry.store(id.to_le(), Ordering::Relaxed);
        *slot = Some(token);
        self.free_count -= 1;
        self.next_available = self.next_available.wrapping_add(1);
        Ok(())
    }

    /// Shows the device everything pushed so far. A device that is at work takes it without being
    /// notified.
    pub fn publish(&self) {
        event::show(&self.memory.available.index, self.next_available);
    }

    /// Whether the device wants to be notified of what was published since this was last asked.
    #[must_use]
    #[inline]
    pub fn wants_notification(&mut self) -> bool {
        let wish = if self.events {
            Wish::Event(&self.memory.used.available_event)
        } else {
            Wish::Flags(&self.memory.used.flags)
        };
        let new = self.next_available;
        wish.is_for(core::mem::replace(&mut self.considered, new), new)
    }

    /// Asks the device for an interrupt when it has finished with a buffer, and returns whether it
    /// has already, so that nobody may sleep now.
    #[must_use]
    pub fn listen(&self) -> bool {
        self.wish().make(&self.memory.used.index, self.last_used)
    }

    /// Asks the device for no interrupts: advice, which may be ignored.
    pub fn hush(&self) {
        self.wish().withdraw(self.last_used);
    }

    /// What the driver says of interrupts.
    const fn wish(&self) -> Wish<'static> {
        if self.events {
            Wish::Event(&self.memory.available.used_event)
        } else {
            Wish::Flags(&self.memory.available.flags)
        }
    }

    /// Whether [`Self::pop`] has something to return.
    #[must_use]
    pub fn has_used(&self) -> bool {
        event::shown(&self.memory.used.index) != self.last_used
    }

    /// Takes back one buffer that the device has finished with, and how many bytes the device says
    /// it wrote.
    ///
    /// # Errors
    /// The entry is a lie; it is skipped, and no buffer changes hands.
    #[inline]
    pub fn pop(&mut self) -> Option<Result<(T, u32), Lie>> {
        if !self.has_used() {
            return None;
        }
        let element = self
            .memory
            .used
            .ring
            .get(usize::from(self.last_used) & (N - 1))?;
        let id = u32::from_le(element.id.load(Ordering::Relaxed));
        let length = u32::from_le(element.length.load(Ordering::Relaxed));
        self.last_used = self.last_used.wrapping_add(1);
        let Some(token) = usize::try_from(id)
            .ok()
            .and_then(|id| self.slots.get_mut(id)?.take())
        else {
            return Some(Err(Lie { id }));
        };
        // Every taken slot had left the free list, so there is room on it again.
        if let (Some(top), Ok(id)) = (self.free.get_mut(self.free_count), u16::try_from(id)) {
            *top = id;
            self.free_count += 1;
        }
        Some(Ok((token, length)))
    }
}

impl<T, const N: usize> fmt::Debug for Queue<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("room", &self.free_count)
            .field("next_available", &self.next_available)
            .field("last_used", &self.last_used)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
