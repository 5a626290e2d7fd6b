//! For tests of the driver here and in `tests/fuzz`.

use super::{Nic, Transport};

/// Takes whatever is in the rings: of lies a round at a time.
pub(crate) fn drain<T: Transport>(nic: &mut Nic<T>) {
    loop {
        let before = nic.counters().lies;
        while let Some(frame) = nic.receive() {
            nic.release(frame);
        }
        nic.kick();
        if nic.counters().lies == before {
            return;
        }
    }
}
