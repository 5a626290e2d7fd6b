//! What the service asks of the machine it runs on, besides its counter, its console and its
//! network device.

use core::time::Duration;

use crate::random::Take;
use crate::random::generator::Progress;

/// The machine, as far as the service needs it. Implemented in `boot` over `gnomon_arch`.
pub trait Machine {
    /// Time since start, for log stamps and protocol timers; `None` when the machine has no timer
    /// for that.
    ///
    /// Never used for telling the time.
    fn uptime(&mut self) -> Option<Duration>;

    /// Brings everything random that the machine has, for [`Random`](crate::random::Random).
    fn gather(&mut self, take: Take<'_>);

    /// Brings what has come since of what was asked for then, and says how far that is. A few loads where nothing is
    /// awaited.
    fn gather_late(&mut self, _: Take<'_>) -> Progress {
        Progress::Done
    }

    /// The other view of the counter where there are two (Arm's physical counter), read in order with
    /// everything before and after. Never used for telling the time.
    fn physical_counter(&mut self) -> Option<u64>;

    /// The ACPI power management timer, of which the lower 24 bits count at 3,579,545 Hz (ACPI 6.5 §4.8.3.3), where
    /// there is one.
    fn power_timer(&mut self) -> Option<u32> {
        None
    }

    /// Sleeps until an interrupt arrives, at most for `limit` (or what the machine can do, if that
    /// is less).
    fn sleep(&mut self, limit: Duration);

    /// Powers the machine off.
    fn power_off(&mut self) -> !;

    /// Restarts the machine.
    fn reboot(&mut self) -> !;
}
