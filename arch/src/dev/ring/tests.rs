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
        let id =
            self.memory.available.ring[usize::from(self.next) & (N - 1)].load(Ordering::Relaxed);
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
