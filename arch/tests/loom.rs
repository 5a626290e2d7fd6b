//! Notifications in every order that the memory model allows, both sides of a ring:
//! `RUSTFLAGS="--cfg loom" cargo test --release -p gnomon-arch --test loom`.
#![expect(unexpected_cfgs, reason = "loom is asked for on the command line")]
#![cfg(loom)]

mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicU16, Ordering, fence};
}

#[path = "../src/dev/event.rs"]
mod event;

use loom::sync::Arc;
use loom::thread;

use atomic::AtomicU16;
use atomic::Ordering::{Acquire, Relaxed, Release};
use event::Wish;

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
            self.index.store(now.to_le(), Release);
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
