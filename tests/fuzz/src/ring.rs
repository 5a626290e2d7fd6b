//! The driver's side of a virtqueue against a device that writes what it likes into the used ring: a buffer comes back at
//! most once, and only the one that was lent.

use std::collections::HashSet;

use gnomon_arch::dev::ring::exchange::{Exchange, LENGTH};
use gnomon_arch::dev::ring::{Queue, RingMemory};

use crate::input::Input;

/// Descriptors of the queue.
const N: usize = 8;
/// Offsets in the device area (virtio 1.3 §2.7.8): index, elements.
const INDEX: u64 = 2;
const ELEMENTS: u64 = 4;

/// The device's side: it reads and writes through the addresses that it was told.
pub struct Device {
    descriptors: u64,
    available: u64,
    used: u64,
    /// The queue's size.
    size: u64,
    /// The used ring's, as it is published next.
    pub index: u16,
    /// What it takes next from the available ring.
    pub next: u16,
}

impl Device {
    /// The device of a queue that is new.
    #[must_use]
    pub fn of<const M: usize>(memory: &RingMemory<M>) -> Self {
        let [descriptors, available, used] = memory.addresses();
        Self {
            descriptors,
            available,
            used,
            size: M as u64,
            index: 0,
            next: 0,
        }
    }

    fn load<const L: usize>(address: u64) -> [u8; L] {
        // SAFETY: as for `store`.
        unsafe { (address as *const [u8; L]).read_volatile() }
    }

    /// Takes the next buffer that the driver shows: its id, its address, its length.
    pub fn take(&mut self) -> Option<(u32, u64, u32)> {
        let shown = u16::from_le_bytes(Self::load(self.available + 2));
        if shown == self.next {
            return None;
        }
        let place = self.available + 4 + 2 * (u64::from(self.next) % self.size);
        let id = u16::from_le_bytes(Self::load(place));
        self.next = self.next.wrapping_add(1);
        let descriptor = self.descriptors + 16 * (u64::from(id) % self.size);
        let address = u64::from_le_bytes(Self::load(descriptor));
        let length = u32::from_le_bytes(Self::load(descriptor + 8));
        Some((id.into(), address, length))
    }

    /// Passes over everything that the driver shows.
    pub fn skip(&mut self) {
        self.next = u16::from_le_bytes(Self::load(self.available + 2));
    }

    /// Writes bytes at an address that the driver has given.
    pub fn store(address: u64, bytes: &[u8]) {
        for (at, byte) in (address..).zip(bytes) {
            // SAFETY: the address is inside a ring or a buffer that lives; this thread is the only one, and holds no
            // reference to what is lent.
            unsafe { (at as *mut u8).write_volatile(*byte) };
        }
    }

    /// Writes the next element of the used ring.
    pub fn give(&mut self, id: u32, length: u32) {
        let place = self.used + ELEMENTS + 8 * (u64::from(self.index) % self.size);
        Self::store(place, &id.to_le_bytes());
        Self::store(place + 4, &length.to_le_bytes());
        self.index = self.index.wrapping_add(1);
    }

    /// Shows it.
    pub fn publish(&self) {
        Self::store(self.used + INDEX, &self.index.to_le_bytes());
    }

    /// Writes anything anywhere in what is shared.
    pub fn scribble(&self, input: &mut Input<'_>) {
        let area = if input.u8() & 1 == 0 {
            self.available
        } else {
            self.used
        };
        let place = u64::from(input.u8()) % (4 + 2 * self.size);
        Self::store(area + place, &[input.u8()]);
    }
}

/// Input: whether there are events, and steps.
///
/// # Panics
/// The driver's account is wrong.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let setting = input.u8();
    if setting & 2 == 0 {
        queue(&mut input, setting & 1 != 0);
    } else {
        exchange(&mut input);
    }
}

fn queue(input: &mut Input<'_>, events: bool) {
    with(|memory: &'static mut RingMemory<N>| {
        let mut device = Device::of(memory);
        let mut queue = Queue::new(memory, events);
        let mut lent = HashSet::new();
        let mut next = 0_u64;
        let mut popped = 0_u32;
        while !input.is_empty() && popped < 200_000 {
            match input.u8() % 8 {
                0 | 1 => {
                    let room = queue.room();
                    let pushed = queue.push(next, 0x1000 + next, 64, input.u8() & 1 == 0);
                    assert_eq!(pushed.is_ok(), room > 0);
                    if pushed.is_ok() {
                        lent.insert(next);
                        next += 1;
                    }
                    queue.publish();
                }
                2 => device.give(u32::from(input.u8()) % 16, input.u32()),
                3 => device.give(input.u32(), input.u32()),
                4 => device.index = input.u16(),
                5 => device.scribble(input),
                6 => {
                    let _ = (queue.wants_notification(), queue.listen());
                    queue.hush();
                }
                _ => {
                    device.publish();
                    while let Some(entry) = queue.pop() {
                        popped += 1;
                        if let Ok((token, _)) = entry {
                            assert!(lent.remove(&token), "it came back twice");
                        }
                        assert!(popped < 300_000, "there is no end to it");
                    }
                }
            }
            assert_eq!(queue.room(), N - lent.len());
        }
    });
}

fn exchange(input: &mut Input<'_>) {
    with(|memory: &'static mut RingMemory<LENGTH>| {
        let mut device = Device::of(memory);
        let mut queue = Exchange::new(memory);
        let mut is_lent = false;
        let mut popped = 0_u32;
        while !input.is_empty() && popped < 200_000 {
            match input.u8() % 6 {
                0 => {
                    assert_eq!(queue.push((0x1000, 16), (0x2000, 24)), !is_lent);
                    is_lent = true;
                }
                1 => device.give(0, input.u32()),
                2 => device.give(input.u32(), input.u32()),
                3 => device.index = input.u16(),
                4 => device.scribble(input),
                _ => {
                    let _ = queue.wants_notification();
                    device.publish();
                    while let Some(entry) = queue.pop() {
                        popped += 1;
                        assert!(entry.is_err() || is_lent, "it came back twice");
                        is_lent &= entry.is_err();
                        assert!(popped < 300_000, "there is no end to it");
                    }
                }
            }
            assert_eq!(queue.is_lent(), is_lent);
        }
    });
}

/// Memory of a ring for as long as `with` runs.
fn with<const M: usize>(with: impl FnOnce(&'static mut RingMemory<M>)) {
    let memory = Box::into_raw(Box::new(RingMemory::new()));
    // SAFETY: it is nobody else's, and nothing that `with` makes of it outlives `with`, which returns nothing.
    with(unsafe { &mut *memory });
    // SAFETY: it came out of a box, and nobody has it any more.
    drop(unsafe { Box::from_raw(memory) });
}
