//! Devices, as far as they are the same on every architecture.

mod event;
pub mod fw_cfg;
pub mod net;
pub mod pci;
pub mod registers;
pub mod ring;
pub mod rng;
pub mod rtc;
pub mod virtio;

/// Where [`event`] gets its atomics from: `tests/loom.rs` has others.
mod atomic {
    pub(super) use core::sync::atomic::{AtomicU16, Ordering, fence};
}
