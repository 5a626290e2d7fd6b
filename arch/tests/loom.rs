//! Notifications, and whose a buffer is, in every order that the memory model allows, both sides of a ring:
//! `RUSTFLAGS="--cfg loom" cargo test --release -p gnomon-arch --test loom`.
#![expect(unexpected_cfgs, reason = "loom is asked for on the command line")]
#![cfg(loom)]
#![expect(
    unsafe_code,
    reason = "loom gives out pointers, and finds out who has them"
)]

mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicU16, Ordering, fence};
}

#[path = "../src/dev/event.rs"]
mod event;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use atomic::AtomicU16;
use atomic::Ordering::{Acquire, Relaxed};
use event::{Wish, show, shown};

/// What is shared of one direction of a ring, and whether the sleeper was woken.
struct Ring {
    index: AtomicU16,
    word: AtomicU16,
    woken: AtomicU16,
    events: bool,
}

impl Ring {
    fn wish(&self) -> Wish<'_> {
        if self.events {
            Wish::Event(&self.word)
        } else {
            Wish::Flags(&self.word)
        }
    }

    /// Publishes entries one by one and asks after each `batch`, as a driver or a device does.
    fn tell(&self, entries: u16, batch: u16) {
        let mut considered = START;
        for entry in 1..=entries {
            let now = START.wrapping_add(entry);
            show(&self.index, now);
            if entry % batch == 0 || entry == entries {
                let old = core::mem::replace(&mut considered, now);
                if self.wish().is_for(old, now) {
                    self.woken.store(1, Relaxed);
                }
            }
        }
    }
}

/// The index wraps on the way.
const START: u16 = u16::MAX - 1;

/// Whoever goes to sleep, after having taken any number of entries, has taken all of them or is woken.
fn nobody_sleeps_for_ever(events: bool, entries: u16, batch: u16) {
    loom::model(move || {
        let ring = Arc::new(Ring {
            index: AtomicU16::new(START.to_le()),
            word: AtomicU16::new(0),
            woken: AtomicU16::new(0),
            events,
        });
        ring.wish().withdraw(START);
        let teller = Arc::clone(&ring);
        let teller = thread::spawn(move || teller.tell(entries, batch));
        let seen = u16::from_le(ring.index.load(Acquire));
        let asleep = !ring.wish().make(&ring.index, seen);
        teller.join().unwrap();
        let all = seen == START.wrapping_add(entries);
        assert!(!asleep || all || ring.woken.load(Relaxed) == 1);
    });
}

#[test]
fn by_flags() {
    nobody_sleeps_for_ever(false, 1, 1);
    nobody_sleeps_for_ever(false, 3, 1);
    nobody_sleeps_for_ever(false, 3, 2);
}

#[test]
fn by_events() {
    nobody_sleeps_for_ever(true, 1, 1);
    nobody_sleeps_for_ever(true, 3, 1);
    nobody_sleeps_for_ever(true, 3, 2);
}

/// Two buffers, and both directions of a ring; the elements are the buffers' numbers.
struct Lending {
    buffers: [UnsafeCell<u16>; 2],
    available: AtomicU16,
    lent: [AtomicU16; 2],
    used: AtomicU16,
    given: [AtomicU16; 2],
}

impl Lending {
    /// The device: it doubles what is in each buffer, and gives the second back first if it has both. A lying one
    /// says first that it has given back what it was never lent.
    fn device(&self, lies: u16) {
        for lie in 0..lies {
            self.given[usize::from(lie)].store(7, Relaxed);
            show(&self.used, lie + 1);
        }
        let count = shown(&self.available);
        for (place, taken) in (lies..2).zip((0..count).rev()) {
            let id = self.lent[usize::from(taken)].load(Relaxed);
            self.buffers[usize::from(id)].with_mut(|buffer| {
                // SAFETY: loom finds out whether anybody else has it.
                unsafe { *buffer *= 2 }
            });
            self.given[usize::from(place)].store(id, Relaxed);
            show(&self.used, place + 1);
        }
    }
}

/// Driver and device never have a buffer at the same time, and each sees what the other did with it.
fn a_buffer_is_one_sides(lies: u16) {
    loom::model(move || {
        let word = || AtomicU16::new(0);
        let ring = Arc::new(Lending {
            buffers: [UnsafeCell::new(0), UnsafeCell::new(0)],
            available: word(),
            lent: [word(), word()],
            used: word(),
            given: [word(), word()],
        });
        let device = Arc::clone(&ring);
        let device = thread::spawn(move || device.device(lies));
        for id in 0..2 {
            ring.buffers[usize::from(id)].with_mut(|buffer| {
                // SAFETY: as above.
                unsafe { *buffer = 10 + id }
            });
            ring.lent[usize::from(id)].store(id, Relaxed);
            show(&ring.available, id + 1);
        }
        let mut is_lent = [true; 2];
        for place in 0..shown(&ring.used) {
            let id = usize::from(ring.given[usize::from(place)].load(Relaxed));
            // As the driver: what is not lent does not come back.
            if let Some(lent) = is_lent.get_mut(id)
                && core::mem::take(lent)
            {
                let value = ring.buffers[id].with(|buffer| {
                    // SAFETY: as above.
                    unsafe { *buffer }
                });
                assert_eq!(usize::from(value), 2 * (10 + id));
            }
        }
        device.join().unwrap();
    });
}

#[test]
fn by_an_honest_device() {
    a_buffer_is_one_sides(0);
}

#[test]
fn by_a_lying_one() {
    a_buffer_is_one_sides(1);
}
