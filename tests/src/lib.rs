//! Tests that boot the image under QEMU with the host's time and look at it from outside: by NTP, by
//! the serial console, by QEMU's monitor, and through programs that nobody here wrote.
//!
//! This library is what they share. It panics with one clear sentence where a test should: when
//! something is missing that `make build` or `make test` puts in place, and when a guest does
//! not do what it must within [`PATIENCE`].
#![expect(
    clippy::missing_panics_doc,
    reason = "a helper of tests fails the test"
)]

use core::time::Duration;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};

pub mod console;
pub mod guest;
pub mod icount;
pub mod judge;
pub mod link;
pub mod load;
pub mod netns;
pub mod ntp;
pub mod peer;
pub mod process;

/// How long anything may take. Machines are shared, and all that matters is that it happens.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// The image under test.
#[must_use]
pub fn image() -> PathBuf {
    built("gnomon-x86_64.elf", "make build")
}

/// The `gnomon-qemu` command under test.
#[must_use]
pub fn launcher() -> PathBuf {
    built("gnomon-qemu", "make build")
}

/// The directory of this crate's files.
#[must_use]
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

fn built(name: &str, verb: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../build")
        .join(name);
    assert!(path.exists(), "there is no build/{name}: run `{verb}`");
    path
}

/// The right to run a guest: a test binary runs [`SLOTS`](Self::SLOTS) at a time. A test takes one.
#[derive(Debug)]
pub struct Slot(());

static RUNNING: (Mutex<u32>, Condvar) = (Mutex::new(0), Condvar::new());

impl Slot {
    /// How many guests run at the same time.
    pub const SLOTS: u32 = 2;

    /// Waits until there is one.
    #[must_use]
    pub fn take() -> Self {
        let (running, freed) = &RUNNING;
        let running = running.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = freed.wait_while(running, |running| *running >= Self::SLOTS);
        *waited.unwrap_or_else(PoisonError::into_inner) += 1;
        Self(())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let (running, freed) = &RUNNING;
        *running.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        freed.notify_one();
    }
}
