//! Tests that boot the image under QEMU with the host's time and look at it from outside: by NTP, by
//! the serial console, by QEMU's monitor, and through programs that nobody here wrote.
//!
//! Most run on both architectures, from one table of names a file: [`on_both`].
//!
//! This library is what they share. It panics with one clear sentence where a test should: when
//! something is missing that `make build` or `make test` puts in place, and when a guest does
//! not do what it must within [`PATIENCE`].
#![expect(
    clippy::missing_panics_doc,
    reason = "a helper of tests fails the test"
)]

use core::cell::Cell;
use core::time::Duration;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};

pub use gnomon_qemu::Arch;

pub mod browser;
pub mod busy;
pub mod console;
pub mod footprint;
pub mod gdb;
pub mod guest;
pub mod icount;
pub mod judge;
pub mod link;
pub mod load;
pub mod map;
pub mod milestone;
pub mod netns;
pub mod ntp;
pub mod peer;
pub mod process;
pub mod soak;
pub mod start;
pub mod temporary;
pub mod truth;
mod vhost;
pub mod vhost_net;
pub mod vhost_rtc;
pub mod wire;

/// How long anything may take. Machines are shared, and all that matters is that it happens.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// Makes a test of each of the functions on either architecture, in modules of these names.
#[macro_export]
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod x86_64 {
            $(#[test] fn $name() { $crate::on($crate::Arch::X86_64, super::$name); })*
        }
        mod aarch64 {
            $(#[test] fn $name() { $crate::on($crate::Arch::Aarch64, super::$name); })*
        }
    };
}

thread_local! {
    static UNDER_TEST: Cell<Arch> = const { Cell::new(Arch::X86_64) };
}

/// Runs a test, or a part of one that has a thread of its own, on this architecture.
pub fn on<T>(arch: Arch, test: impl FnOnce() -> T) -> T {
    UNDER_TEST.set(arch);
    test()
}

/// The architecture that this thread's test is about: `x86_64` if nobody has said.
#[must_use]
pub fn arch() -> Arch {
    UNDER_TEST.get()
}

/// The image under test.
#[must_use]
pub fn image() -> PathBuf {
    built(arch().image(), "make build")
}

/// The same as the linker left it: what is in memory once it is unpacked.
#[must_use]
pub fn plain_image() -> PathBuf {
    built(&format!("plain/{}", arch().image()), "make build")
}

/// The image that fails when its command line asks it to.
#[must_use]
pub fn provoked_image() -> PathBuf {
    built(&format!("provoke-{}", arch().image()), "make provoke")
}

/// The `gnomon-qemu` command under test.
#[must_use]
pub fn launcher() -> PathBuf {
    built("gnomon-qemu", "make build")
}

/// The unpacked QEMU 11.1 for the architecture under test; `None` where it cannot be had, which is said
/// with the reason.
#[must_use]
pub fn qemu_11() -> Option<PathBuf> {
    let reason = Path::new(env!("CARGO_MANIFEST_DIR")).join("../build/qemu-11.reason");
    if let Ok(reason) = fs::read_to_string(reason) {
        eprintln!("NOT RUN: QEMU 11.1 cannot be had here: {}", reason.trim());
        return None;
    }
    let program = arch().program();
    Some(built(&format!("qemu-11/{program}"), "make test"))
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
