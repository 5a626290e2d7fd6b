//! Time spans for the machine's own use: log stamps and sleeping. Never for telling the time.

use core::arch::x86_64::_rdtsc;
use core::sync::atomic::{AtomicBool, Ordering};

use x86_64::instructions::port::{Port, PortReadOnly};

/// ACPI power management timer frequency, Hz (ACPI 6.5 §4.8.3.3).
const PM_TIMER_HZ: u64 = 3_579_545;
/// PIT input frequency, Hz.
const PIT_HZ: u64 = 1_193_182;

/// TSC ticks for which a reading of the PM timer is good enough: 20 to 100 µs.
const FRESH: u64 = 100_000;

/// Time since start by the ACPI PM timer, which every PC has and which needs no calibration.
///
/// The timer has 24 bits that can be relied on and wraps in 4.69 s: `nanoseconds` must be called
/// more often than that, and the idle loop does. Reading it is a trip to the host, so a reading
/// serves until the TSC has moved on by `FRESH`, or has jumped; the TSC's rate does not matter.
#[derive(Debug)]
pub struct Uptime {
    port: Option<PortReadOnly<u32>>,
    last: u32,
    ticks: u64,
    read_at: u64,
}

impl Uptime {
    /// Starts at zero. `port` is `PM_TMR_BLK` of the FADT; without it the uptime stays unknown.
    #[must_use]
    pub fn new(port: Option<u16>) -> Self {
        let mut uptime = Self {
            port: port.map(PortReadOnly::new),
            last: 0,
            ticks: 0,
            read_at: 0,
        };
        uptime.last = uptime.power_timer().unwrap_or(0);
        uptime
    }

    /// Nanoseconds since `new`.
    pub fn nanoseconds(&mut self) -> Option<u64> {
        // SAFETY: RDTSC exists on every x86_64 CPU and touches no memory.
        let counter = unsafe { _rdtsc() };
        if self.read_at == 0 || counter.wrapping_sub(self.read_at) >= FRESH {
            let now = self.power_timer()?;
            self.ticks += u64::from(now.wrapping_sub(self.last) & 0x00ff_ffff);
            self.last = now;
            self.read_at = counter;
        }
        let seconds = self.ticks / PM_TIMER_HZ;
        let rest = self.ticks % PM_TIMER_HZ;
        Some(seconds * 1_000_000_000 + rest * 1_000_000_000 / PM_TIMER_HZ)
    }

    /// The timer as it stands.
    pub fn power_timer(&mut self) -> Option<u32> {
        // SAFETY: the port is the PM timer that the FADT names; reading it has no side effect.
        self.port.as_mut().map(|port| unsafe { port.read() })
    }
}

/// PIT channel 0 as an alarm clock for sleeping.
#[derive(Debug, Default)]
pub struct Alarm {
    /// What it was last set to, µs.
    set: Option<u64>,
}

/// The alarm has gone off since it was set.
static RANG: AtomicBool = AtomicBool::new(false);

impl Alarm {
    /// Sees to it that an interrupt comes within `microseconds`, at most 54 ms.
    ///
    /// An alarm that is set already and goes off no later is left as it is: each of the PIT's ports is
    /// a trip to the host.
    pub fn within(&mut self, microseconds: u64) {
        let pending = !RANG.load(Ordering::Relaxed);
        if pending && self.set.is_some_and(|set| set <= microseconds) {
            return;
        }
        RANG.store(false, Ordering::Relaxed);
        self.set = Some(microseconds);
        let count = (microseconds.min(54_000) * PIT_HZ / 1_000_000).clamp(1, 0xffff);
        let [low, high, ..] = count.to_le_bytes();
        // Mode 0, low byte then high byte: one interrupt when the count ends.
        // SAFETY: ports 0x43 and 0x40 are the PIT on every PC; channel 0 is ours alone.
        unsafe { Port::<u8>::new(0x43).write(0x30) };
        // SAFETY: as above.
        unsafe { Port::<u8>::new(0x40).write(low) };
        // SAFETY: as above.
        unsafe { Port::<u8>::new(0x40).write(high) };
    }

    /// Whether its interrupt has been taken since it was set.
    #[must_use]
    pub fn rang(&self) -> bool {
        self.set.is_some() && RANG.load(Ordering::Relaxed)
    }
}

/// Called by the interrupt handler.
pub(super) fn rang() {
    RANG.store(true, Ordering::Relaxed);
}
