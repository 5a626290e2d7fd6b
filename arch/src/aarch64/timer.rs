//! Time spans for the machine's own use: log stamps and sleeping. Never for telling the time.

use gnomon_clock::Counter;

use super::counter::{self, VirtualCounter};
use super::sysreg::{mrs, msr};

/// Time since start by the virtual counter and the frequency that firmware wrote into `CNTFRQ`.
#[derive(Debug)]
pub struct Uptime {
    counter: VirtualCounter,
    frequency: Option<u64>,
    start: u64,
}

impl Uptime {
    /// Starts at zero. Without a frequency the uptime stays unknown.
    #[must_use]
    pub fn new() -> Self {
        let counter = counter::this_cpu();
        Self {
            counter,
            frequency: counter::frequency(),
            start: counter.read().0,
        }
    }

    /// There is no ACPI power management timer.
    pub const fn power_timer(&mut self) -> Option<u32> {
        None
    }

    /// Nanoseconds since `new`.
    pub fn nanoseconds(&mut self) -> Option<u64> {
        let frequency = self.frequency?;
        // A counter that was set back shows no time rather than centuries.
        let ticks = self.counter.read().0.saturating_sub(self.start);
        let (seconds, rest) = (ticks / frequency, ticks % frequency);
        // The rest is below 2^32, so its product is below 2^62.
        Some(
            seconds
                .saturating_mul(1_000_000_000)
                .saturating_add(rest * 1_000_000_000 / frequency),
        )
    }
}

impl Default for Uptime {
    fn default() -> Self {
        Self::new()
    }
}

/// The virtual timer as an alarm clock for sleeping.
#[derive(Debug)]
pub struct Alarm {
    frequency: Option<u64>,
}

impl Default for Alarm {
    fn default() -> Self {
        Self {
            frequency: counter::frequency(),
        }
    }
}

impl Alarm {
    /// Sees to it that an interrupt comes within `microseconds`.
    pub fn within(&mut self, microseconds: u64) {
        const ENABLE: u64 = 1;
        let ticks = self.frequency.map_or(0, |frequency| {
            // Seconds and the rest apart, so that no product overflows.
            (microseconds / 1_000_000)
                .saturating_mul(frequency)
                .saturating_add(microseconds % 1_000_000 * frequency / 1_000_000)
        });
        let now = counter::this_cpu().read().0;
        msr!("cntv_cval_el0", now.saturating_add(ticks));
        msr!("cntv_ctl_el0", ENABLE);
    }

    /// Whether its interrupt has been taken since it was set.
    #[must_use]
    pub fn rang(&self) -> bool {
        mrs!("cntv_ctl_el0") & 1 == 0
    }
}

/// Turns the alarm off, so that its line falls. Called when it has gone off.
pub(super) fn silence() {
    msr!("cntv_ctl_el0", 0);
}
