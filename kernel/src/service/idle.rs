//! What the processor does when there is nothing to do.
//!
//! `idle=halt` sleeps until an interrupt, `idle=poll` keeps looking, and `idle=adaptive` keeps looking for
//! [`SPIN`] after each frame and sleeps then.
//!
//! **How long.** Sleeping and waking costs some 5 to 50 µs: the halt, the host's scheduler, the interrupt.
//! Whoever looks on for about as long as that pays at most twice what the better choice would have
//! cost, whichever that was. 100 µs is also about two round trips of a client that asks again at once. One
//! that asks once a second costs a ten-thousandth of a processor by it.

use core::time::Duration;

use gnomon_clock::{Counter, Ticks};

use super::served::{Core, Network, instant};
use crate::config::Idle;
use crate::machine::Machine;
use crate::net::port::FramePort;

/// How long `idle=adaptive` looks on after a frame, and `idle=poll` before it does the rest of a round.
pub(super) const SPIN: Duration = Duration::from_micros(100);
/// Longest sleep. A PC's PM timer must be looked at every 4 s and its PIT cannot count further than
/// this.
const NAP: Duration = Duration::from_millis(50);
/// Longest sleep when the network device cannot wake the machine.
const SHORT_NAP: Duration = Duration::from_millis(1);

/// What has come of having nothing to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rested {
    /// Sleeps that ended.
    pub wake_ups: u64,
    /// Looks at the network device that found nothing.
    pub polls: u64,
    /// Ticks of the counter asleep, and in all, since the start.
    asleep: u64,
    all: u64,
}

impl Rested {
    /// How many thousandths of the time were slept through; `None` before the first sleep.
    #[must_use]
    pub fn per_mille_asleep(&self) -> Option<u64> {
        let share = u128::from(self.asleep) * 1000;
        u64::try_from(share.checked_div(self.all.into())?).ok()
    }
}

/// The state of the idle loop.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rest {
    pub(super) counted: Rested,
    /// [`SPIN`] in ticks of the counter: none while nobody has said how long one is.
    pub(super) spin: i64,
    /// When the last frame came.
    pub(super) frame: Option<Ticks>,
    /// Up to when time has been counted.
    until: Option<Ticks>,
}

impl Rest {
    fn count(&mut self, now: Ticks, asleep: bool) {
        // A counter that went back was disrupted.
        let since = |before| u64::try_from(now.since(before)).unwrap_or(0);
        let passed = self.until.replace(now).map_or(0, since);
        let Rested {
            asleep: sum, all, ..
        } = &mut self.counted;
        *all = all.saturating_add(passed);
        if asleep {
            *sum = sum.saturating_add(passed);
        }
    }

    /// Whether [`SPIN`] has not passed since `begin`.
    fn may_spin(&self, begin: Option<Ticks>, now: Ticks) -> bool {
        begin.is_some_and(|begin| (0..self.spin).contains(&now.since(begin)))
    }
}

impl<M: Machine, C: Counter, P: FramePort> Core<'_, M, C, P> {
    /// Waits until something may have come, as the command line asks, and sleeps for `limit` at most.
    pub(super) fn rest(&mut self, limit: Duration) {
        let begin = match self.config.idle {
            Idle::Halt => None,
            Idle::Adaptive => self.rest.frame,
            Idle::Poll => Some(self.clock.stamp().ticks),
        };
        let came = self.spin(begin);
        if self.config.idle != Idle::Poll && !came {
            self.sleep(limit);
        }
    }

    /// Looks whether a frame has come until [`SPIN`] after `begin`, and at nothing else: the other
    /// devices' registers are trips to the host.
    fn spin(&mut self, begin: Option<Ticks>) -> bool {
        loop {
            let received = |net: &Network<'_, P>| net.port.has_received();
            if self.network.as_ref().is_some_and(received) {
                return true;
            }
            self.rest.counted.polls = self.rest.counted.polls.wrapping_add(1);
            let now = self.clock.stamp().ticks;
            if !self.rest.may_spin(begin, now) {
                return false;
            }
            core::hint::spin_loop();
        }
    }

    fn sleep(&mut self, limit: Duration) {
        let now = instant(self.uptime);
        let next = [self.sources.next(), self.upstream_next()];
        let until_source = match (next.into_iter().flatten().min(), self.uptime) {
            (Some(next), Some(uptime)) => next.saturating_sub(uptime),
            _ => NAP,
        };
        let mut limit = NAP.min(until_source).min(limit);
        if let Some(Network { port, stack, .. }) = &mut self.network {
            if !port.can_wake() {
                limit = limit.min(SHORT_NAP);
            }
            if let Some(next) = stack.next_poll() {
                let wait = next.total_micros().saturating_sub(now.total_micros());
                limit = limit.min(Duration::from_micros(u64::try_from(wait).unwrap_or(0)));
            }
            // Asks first and looks then, so that no frame can come in between unnoticed.
            if limit.is_zero() || !port.prepare_sleep() {
                return port.wake();
            }
        }
        self.rest.count(self.clock.stamp().ticks, false);
        self.machine.sleep(limit);
        self.rest.count(self.clock.stamp().ticks, true);
        self.rest.counted.wake_ups = self.rest.counted.wake_ups.wrapping_add(1);
        if let Some(Network { port, .. }) = &mut self.network {
            port.wake();
        }
    }
}
