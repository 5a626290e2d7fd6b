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
mod tests {
    extern crate std;
    use std::boxed::Box;
    use std::vec::Vec;

    use super::*;

    const N: usize = 8;

    /// The device's side, written against the same memory.
    struct Device {
        memory: &'static RingMemory<N>,
        next: u16,
        used: u16,
        /// What the driver was last told of, or did not want to hear of.
        told: u16,
        events: bool,
    }

    impl Device {
        fn take(&mut self) -> Option<(u16, u64, u32, bool)> {
            if self.memory.available.index.load(Ordering::Acquire) == self.next {
                return None;
            }
            let id = self.memory.available.ring[usize::from(self.next) & (N - 1)]
                .load(Ordering::Relaxed);
            self.next = self.next.wrapping_add(1);
            let descriptor = &self.memory.descriptors[usize::from(id)];
            Some((
                id,
                descriptor.address.load(Ordering::Relaxed),
                descriptor.length.load(Ordering::Relaxed),
                descriptor.flags.load(Ordering::Relaxed) & WRITE != 0,
            ))
        }

        fn give(&mut self, id: u32, length: u32) {
            let element = &self.memory.used.ring[usize::from(self.used) & (N - 1)];
            element.id.store(id, Ordering::Relaxed);
            element.length.store(length, Ordering::Relaxed);
            self.used = self.used.wrapping_add(1);
            self.memory.used.index.store(self.used, Ordering::Release);
        }

        /// Whether the driver wants an interrupt for what was given since the last one.
        fn must_interrupt(&mut self) -> bool {
            let wish = if self.events {
                Wish::Event(&self.memory.available.used_event)
            } else {
                Wish::Flags(&self.memory.available.flags)
            };
            wish.is_for(core::mem::replace(&mut self.told, self.used), self.used)
        }

        fn wish(&self) -> Wish<'static> {
            if self.events {
                Wish::Event(&self.memory.used.available_event)
            } else {
                Wish::Flags(&self.memory.used.flags)
            }
        }
    }

    fn pair<T>() -> (Queue<T, N>, Device) {
        pair_with(false)
    }

    fn pair_with<T>(events: bool) -> (Queue<T, N>, Device) {
        let memory: &'static mut RingMemory<N> = Box::leak(Box::new(RingMemory::new()));
        let queue = Queue::new(memory, events);
        let device = Device {
            memory: queue.memory,
            next: 0,
            used: 0,
            told: 0,
            events,
        };
        (queue, device)
    }

    #[test]
    fn layout_is_virtio() {
        let memory = RingMemory::<N>::new();
        let [descriptors, available, used] = memory.addresses();
        assert_eq!(descriptors % 16, 0);
        assert_eq!(available - descriptors, 16 * N as u64);
        assert_eq!(used % 4, 0);
        assert!(used >= available + 6 + 2 * N as u64);
        assert_eq!(size_of::<UsedElement>(), 8);
    }

    #[test]
    fn buffers_go_round_in_any_order_past_the_wrap() {
        let (mut queue, mut device) = pair::<u64>();
        let mut next = 0u64;
        let mut out = Vec::new();
        for round in 0..if cfg!(miri) { 100 } else { 40_000u64 } {
            while queue.room() > 0 {
                queue
                    .push(next, 0x1000 + next, 64, next.is_multiple_of(2))
                    .unwrap();
                next += 1;
            }
            assert_eq!(queue.push(u64::MAX, 0, 0, false), Err(u64::MAX));
            queue.publish();
            let mut taken: Vec<_> = core::iter::from_fn(|| device.take()).collect();
            if round % 3 == 0 {
                taken.reverse();
            }
            for &(id, address, length, writable) in taken.iter().take(1 + (round % 8) as usize) {
                assert_eq!(length, 64);
                assert_eq!(writable, address % 2 == 0);
                device.give(u32::from(id), u32::try_from(address).unwrap());
            }
            while let Some(entry) = queue.pop() {
                let (lent, written) = entry.unwrap();
                assert_eq!(
                    0x1000 + lent,
                    u64::from(written),
                    "the token is the one that was lent"
                );
                out.push(lent);
            }
            // What the device kept comes back later, as with a slow device.
            for &(id, address, ..) in taken.iter().skip(1 + (round % 8) as usize) {
                device.give(u32::from(id), u32::try_from(address).unwrap());
            }
            while let Some(entry) = queue.pop() {
                out.push(entry.unwrap().0);
            }
        }
        out.sort_unstable();
        assert_eq!(out.len() as u64, next);
        assert!(
            out.iter()
                .zip(0..)
                .all(|(&token, expected)| token == expected),
            "each comes back exactly once"
        );
    }

    #[test]
    fn lies_cost_nothing() {
        let (mut queue, mut device) = pair::<u8>();
        queue.push(7, 0x1000, 10, true).unwrap();
        queue.publish();
        let (id, ..) = device.take().unwrap();
        device.give(99, 0); // out of range
        device.give(u32::MAX, 0);
        device.give(u32::from(id) ^ 1, 0); // not lent
        device.give(u32::from(id), u32::MAX); // true, but the length is absurd: the caller's to judge
        device.give(u32::from(id), 0); // twice
        assert_eq!(queue.pop(), Some(Err(Lie { id: 99 })));
        assert_eq!(queue.pop(), Some(Err(Lie { id: u32::MAX })));
        assert_eq!(
            queue.pop(),
            Some(Err(Lie {
                id: u32::from(id) ^ 1
            }))
        );
        assert_eq!(queue.pop(), Some(Ok((7, u32::MAX))));
        assert_eq!(queue.pop(), Some(Err(Lie { id: u32::from(id) })));
        assert_eq!(queue.pop(), None);
        assert_eq!(queue.room(), N);
    }

    #[test]
    fn cleared_queue_is_like_a_new_one() {
        let (mut queue, mut device) = pair::<u8>();
        for round in 0..3 {
            for token in 0..5 {
                queue.push(token, 0x1000, 10, true).unwrap();
            }
            queue.publish();
            let (id, ..) = device.take().unwrap();
            device.give(id.into(), 10);
            device.give(99, 0);
            device.memory.used.index.store(0x1234, Ordering::Relaxed);
            assert!(queue.pop().is_some_and(|entry| entry.is_ok()));
            let mut back = Vec::new();
            queue.clear(round % 2 == 0, |token| back.push(token));
            assert_eq!(back.len(), 4, "each but the one that came back");
            assert_eq!((queue.room(), queue.pop()), (N, None));
            device = Device {
                memory: queue.memory(),
                next: 0,
                used: 0,
                told: 0,
                events: round % 2 == 0,
            };
            assert_eq!(device.take(), None);
            assert!(!queue.wants_notification());
        }
    }

    #[test]
    fn an_index_that_jumps_ahead_ends() {
        let (mut queue, mut device) = pair::<u8>();
        queue.push(1, 0x1000, 10, true).unwrap();
        queue.publish();
        let (lent, ..) = device.take().unwrap();
        for element in &device.memory.used.ring {
            element.id.store(u32::from(lent), Ordering::Relaxed);
        }
        device.memory.used.index.store(0x8000, Ordering::Release);
        let results: Vec<_> = core::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(results.len(), 0x8000);
        assert_eq!(
            results.iter().filter(|result| result.is_ok()).count(),
            1,
            "a buffer comes back at most once"
        );
    }

    #[test]
    fn notifications_by_flags() {
        let (mut queue, mut device) = pair::<u8>();
        assert!(!queue.wants_notification(), "nothing was published");
        let lend = |queue: &mut Queue<u8, N>| {
            queue.push(1, 0x1000, 10, true).unwrap();
            queue.publish();
        };
        lend(&mut queue);
        assert!(queue.wants_notification());
        device.wish().withdraw(0);
        lend(&mut queue);
        assert!(!queue.wants_notification());
        assert!(device.wish().make(&device.memory.available.index, 0));
        lend(&mut queue);
        assert!(queue.wants_notification());

        let (first, ..) = device.take().unwrap();
        let (second, ..) = device.take().unwrap();
        device.give(first.into(), 10);
        assert!(!device.must_interrupt(), "silence from the start");
        assert!(queue.listen(), "it has come already");
        queue.pop().unwrap().unwrap();
        assert!(!queue.listen());
        device.give(second.into(), 10);
        assert!(device.must_interrupt());
        queue.hush();
        device.give(99, 10);
        assert!(!device.must_interrupt());
    }

    /// By the indices, each of which is asked about once: one notification, wherever it stands.
    #[test]
    fn notifications_by_events() {
        let (mut queue, mut device) = pair_with::<u8>(true);
        for round in 0..if cfg!(miri) { 50 } else { 70_000_u32 } {
            let asleep = round % 3 == 0;
            let seen = device.next;
            if asleep {
                assert!(!device.wish().make(&device.memory.available.index, seen));
            } else {
                device.wish().withdraw(seen);
            }
            let count = 1 + round % 7;
            for _ in 0..count {
                queue.push(1, 0x1000, 10, true).unwrap();
                queue.publish();
            }
            assert_eq!(queue.wants_notification(), asleep, "{round}");
            assert!(!queue.wants_notification(), "once is enough");

            let listening = round % 4 == 0;
            if listening {
                assert!(!queue.listen());
            } else {
                queue.hush();
            }
            for _ in 0..count {
                let (id, ..) = device.take().unwrap();
                device.give(id.into(), 10);
            }
            assert_eq!(device.must_interrupt(), listening, "{round}");
            assert!(queue.listen(), "it has come already");
            while let Some(entry) = queue.pop() {
                entry.unwrap();
            }
        }
    }

    /// Whatever a device writes there, the driver's own accounts stay right.
    #[test]
    fn lies_about_events_harm_only_the_liar() {
        let (mut queue, mut device) = pair_with::<u32>(true);
        let mut state = 1_u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            u16::try_from(state >> 16).unwrap()
        };
        for number in 0..if cfg!(miri) { 50 } else { 100_000 } {
            let used = &device.memory.used;
            used.available_event.store(random(), Ordering::Relaxed);
            used.flags.store(random(), Ordering::Relaxed);
            queue.push(number, 0x1000, 10, true).unwrap();
            queue.publish();
            let _any = queue.wants_notification();
            let _any = queue.listen();
            let (id, ..) = device.take().unwrap();
            device.give(id.into(), 10);
            assert_eq!(queue.pop(), Some(Ok((number, 10))));
            assert_eq!((queue.room(), queue.pop()), (N, None));
        }
    }

    /// Two threads that sleep whenever there is nothing to do: not once do both sleep for ever.
    #[test]
    fn nobody_sleeps_for_ever() {
        use core::time::Duration;
        use std::sync::mpsc::sync_channel;

        const PATIENCE: Duration = Duration::from_secs(100);

        for events in [false, true] {
            let (mut queue, mut device) = pair_with::<u32>(events);
            let total: u32 = if cfg!(miri) { 100 } else { 50_000 };
            let (bell, doorbell) = sync_channel::<()>(1);
            let (line, interrupt) = sync_channel::<()>(1);
            let worker = std::thread::spawn(move || {
                let mut done = 0;
                while done < total {
                    if let Some((id, _, length, _)) = device.take() {
                        device.give(id.into(), length);
                        done += 1;
                        if device.must_interrupt() {
                            // A line that is raised already stays so.
                            let _ = line.try_send(());
                        }
                    } else if !device
                        .wish()
                        .make(&device.memory.available.index, device.next)
                    {
                        doorbell.recv_timeout(PATIENCE).unwrap();
                        device.wish().withdraw(device.next);
                    }
                }
            });
            let (mut sent, mut back) = (0, 0);
            while back < total {
                while sent < total && queue.room() > 0 {
                    queue.push(sent, 0x1000, sent, false).unwrap();
                    queue.publish();
                    sent += 1;
                }
                if queue.wants_notification() {
                    let _ = bell.try_send(());
                }
                if let Some(entry) = queue.pop() {
                    assert_eq!(entry.unwrap(), (back, back));
                    back += 1;
                } else if !queue.listen() {
                    interrupt.recv_timeout(PATIENCE).unwrap();
                    queue.hush();
                }
            }
            drop(bell);
            worker.join().unwrap();
        }
    }

    /// A device in a thread of its own: nothing is lost, nothing is seen before it is complete.
    #[test]
    fn a_thread_as_the_device() {
        let (mut queue, mut device) = pair::<u32>();
        let total: u32 = if cfg!(miri) { 200 } else { 200_000 };
        let worker = std::thread::spawn(move || {
            let mut seen = 0;
            while seen < total {
                match device.take() {
                    Some((id, address, length, _)) => {
                        assert_eq!(
                            address,
                            u64::from(length) * 3,
                            "address and length belong together"
                        );
                        device.give(u32::from(id), length);
                        seen += 1;
                    }
                    None => std::thread::yield_now(),
                }
            }
        });
        let (mut sent, mut back) = (0, 0);
        while back < total {
            while sent < total && queue.room() > 0 {
                queue.push(sent, u64::from(sent) * 3, sent, false).unwrap();
                sent += 1;
            }
            queue.publish();
            match queue.pop() {
                Some(entry) => {
                    let (token, length) = entry.unwrap();
                    assert_eq!((token, length), (back, back), "in order, complete");
                    back += 1;
                }
                None => std::thread::yield_now(),
            }
        }
        worker.join().unwrap();
    }
}
