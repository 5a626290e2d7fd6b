//! How one side of a ring shows the other what it has put there, and when it has to tell it (virtio 1.3 §2.7.7,
//! §2.7.10, §2.7.13): the order of loads and stores, and nothing else. `tests/loom.rs` compiles this file a
//! second time, with atomics whose every allowed order it tries.
//!
//! An index **is stored after everything** that it [shows](show), and [loaded](shown) before any of that, so that a
//! buffer belongs to one side at a time: who has seen the index has all that the other did with the buffer.
//!
//! Telling: both directions are the same game. One side makes things visible by an index and asks whether the
//! other wants to hear of it; the other says that it does and looks whether something came meanwhile.
//! Each **stores first and loads what the other stores after a full fence**. The two fences have
//! an order, and whoever's is second sees what the other stored before its own: either the sleeper
//! sees the index and stays awake, or the teller sees the wish and tells. Without them both loads
//! may overtake the stores before them (in the store buffer, on x86 too), and nobody acts.

use super::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use super::atomic::{AtomicU16, fence};

/// Shows the other side all that was put into the ring before `next`, with the buffers that it names.
pub(crate) fn show(index: &AtomicU16, next: u16) {
    index.store(next.to_le(), Release);
}

/// How far the other side has shown what it put there.
pub(crate) fn shown(index: &AtomicU16) -> u16 {
    u16::from_le(index.load(Acquire))
}

/// How the sides say what they want to hear of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wish<'r> {
    /// The lowest bit of a flags word says "nothing".
    Flags(&'r AtomicU16),
    /// A word of its own says "when the index passes this" (`VIRTIO_F_RING_EVENT_IDX`).
    Event(&'r AtomicU16),
}

/// The flag that asks for silence, in either ring.
const SILENCE: u16 = 1;

impl Wish<'_> {
    /// Whether the other side wants to hear that the index went from `old` to `new`. Both must be
    /// visible already.
    pub(crate) fn is_for(self, old: u16, new: u16) -> bool {
        fence(SeqCst);
        match self {
            Self::Flags(flags) => old != new && u16::from_le(flags.load(Relaxed)) & SILENCE == 0,
            Self::Event(event) => passes(u16::from_le(event.load(Relaxed)), old, new),
        }
    }

    /// Wishes to hear when `index` leaves `seen`, and returns whether it has already: then nobody
    /// may come to tell.
    pub(crate) fn make(self, index: &AtomicU16, seen: u16) -> bool {
        match self {
            Self::Flags(flags) => flags.store(0, Relaxed),
            Self::Event(event) => event.store(seen.to_le(), Relaxed),
        }
        fence(SeqCst);
        shown(index) != seen
    }

    /// Wishes to hear nothing, which is advice only: the other side may not have seen it yet, and an
    /// event cannot be farther away than a whole turn of the index, 65,535 from `seen`.
    pub(crate) fn withdraw(self, seen: u16) {
        match self {
            Self::Flags(flags) => flags.store(SILENCE.to_le(), Relaxed),
            Self::Event(event) => event.store(seen.wrapping_sub(1).to_le(), Relaxed),
        }
    }
}

/// Whether an index that goes from `old` to `new` passes `event`: whether that is among the entries
/// in between. Any three numbers have an answer.
const fn passes(event: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}
