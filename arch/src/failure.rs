//! What has failed, and what a failure ends in: what both architectures say in the same words.

use core::sync::atomic::{AtomicU8, Ordering};

/// An access to memory that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub address: u64,
    /// What was tried.
    pub access: Access,
}

/// What was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction was to be executed.
    Execute,
}

/// What a failure ends in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The machine ends with a status, where there is a device for that; elsewhere as [`Halt`](Self::Halt).
    Exit,
    /// The CPU stops for ever.
    Halt,
    /// The machine is restarted.
    Reboot,
}

const HALT: u8 = 1;
const REBOOT: u8 = 2;
/// [`Ending::Exit`] is zero, and holds until somebody chooses.
static CHOSEN: AtomicU8 = AtomicU8::new(0);

/// Chooses what failures from now on end in.
pub(crate) fn choose(ending: Ending) {
    let chosen = match ending {
        Ending::Exit => 0,
        Ending::Halt => HALT,
        Ending::Reboot => REBOOT,
    };
    CHOSEN.store(chosen, Ordering::Relaxed);
}

/// What was chosen.
pub(crate) fn chosen() -> Ending {
    match CHOSEN.load(Ordering::Relaxed) {
        HALT => Ending::Halt,
        REBOOT => Ending::Reboot,
        _ => Ending::Exit,
    }
}
