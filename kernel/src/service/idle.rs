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
pub(super) const SPIN: Duration = Duration::from_micros(SPIN_MICROS.unsigned_abs());
const SPIN_MICROS: i64 = 100;
/// Longest sleep. A PC's PM timer must be looked at every 4 s and its PIT cannot count further than
/// this.
const NAP: Duration = Duration::from_millis(50);
/// Longest sleep when the network device cannot wake the machine.
const SHORT_NAP: Duration = Duration::from_millis(1);
/// The shortest sleep from whose end anything is concluded of the device: that a frame came during it and the
/// timer ended it may be chance, and this makes it a small one.
const TELLING: Duration = Duration::from_millis(5);
/// So many times in a row it is not.
const MUTE: u8 = 8;
/// How long a sleep is in which a mute device is given another chance, and how many short ones come before it.
const CHANCE: Duration = Duration::from_millis(10);
const CHANCE_EVERY: u64 = 1000;

/// What has come of having nothing to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rested {
    /// Sleeps that ended.
    pub wake_ups: u64,
    /// Those of them that ended early, and nobody had sent a frame.
    pub in_vain: u64,
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
    /// Sleeps in a row that went on to their end although a frame had come.
    unheard: u8,
    /// The last sleep, if nothing has been concluded from it.
    slept: Option<Slept>,
}

/// A sleep, and how long it might have been.
#[derive(Clone, Copy, Debug)]
struct Slept {
    begin: Ticks,
    end: Ticks,
    limit: Duration,
    /// Replies were seen to leave behind it: that may have ended it.
    saw_off: bool,
}

impl Rest {
    /// Whether the network device says that it wakes the machine, and does not.
    pub(super) const fn is_mute(&self) -> bool {
        self.unheard >= MUTE
    }

    /// Concludes from the last sleep, after the round behind it, what the device is like.
    fn conclude(&mut self) {
        let Some(Slept {
            begin,
            end,
            limit,
            saw_off,
        }) = self.slept.take()
        else {
            return;
        };
        let came = self.frame.is_some_and(|frame| frame.since(end) >= 0);
        let limit_micros = i64::try_from(limit.as_micros()).unwrap_or(i64::MAX);
        // Both are rounded: a tenth is left to the timer.
        let is_early =
            end.since(begin) / 9 < self.spin.saturating_mul(limit_micros) / SPIN_MICROS / 10;
        match (is_early, came) {
            (true, _) if saw_off => {}
            (true, false) => self.counted.in_vain = self.counted.in_vain.wrapping_add(1),
            (true, true) if limit >= TELLING => self.unheard = 0,
            // Where nobody has said how long a tick is, nothing is early.
            (false, true) if self.spin > 0 && limit >= TELLING => {
                self.unheard = self.unheard.saturating_add(1);
            }
            (true | false, true) | (false, false) => {}
        }
    }

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
        self.rest.conclude();
        let begin = match self.config.idle {
            Idle::Halt => None,
            Idle::Adaptive => self.rest.frame,
            Idle::Poll => Some(self.clock.stamp().ticks),
        };
        let came = self.spin(begin, false);
        if self.config.idle != Idle::Poll && !came {
            self.sleep(limit);
        }
    }

    /// Looks at the network device's rings until a frame has come, or, if `for_departures`, all replies have
    /// left, or until [`SPIN`] after `begin`; and at nothing else: the other devices' registers are trips to
    /// the host. Returns whether a frame has come.
    #[inline(never)]
    pub(super) fn spin(&mut self, begin: Option<Ticks>, for_departures: bool) -> bool {
        loop {
            self.follow_departures();
            if self.has_received() {
                return true;
            }
            if for_departures && self.departures.is_empty() {
                return false;
            }
            self.rest.counted.polls = self.rest.counted.polls.wrapping_add(1);
            let now = self.clock.stamp().ticks;
            if !self.rest.may_spin(begin, now) {
                return false;
            }
            core::hint::spin_loop();
        }
    }

    /// Whether a frame has come.
    fn has_received(&self) -> bool {
        let received = |net: &Network<'_, P>| net.port.has_received();
        self.network.as_ref().is_some_and(received)
    }

    fn sleep(&mut self, limit: Duration) {
        let now = instant(self.uptime);
        let next = [self.sources.next(), self.upstream_next()];
        let until_source = match (next.into_iter().flatten().min(), self.uptime) {
            (Some(next), Some(uptime)) => next.saturating_sub(uptime),
            _ => NAP,
        };
        let mut limit = NAP.min(until_source).min(limit);
        let awaits_sent = !self.departures.is_empty();
        if let Some(Network { port, stack, .. }) = &mut self.network {
            limit = limit.min(match (port.can_wake(), self.rest.is_mute()) {
                (true, false) => NAP,
                (true, true) if self.rest.counted.wake_ups.is_multiple_of(CHANCE_EVERY) => CHANCE,
                _ => SHORT_NAP,
            });
            if let Some(next) = stack.next_poll() {
                let wait = next.total_micros().saturating_sub(now.total_micros());
                limit = limit.min(Duration::from_micros(u64::try_from(wait).unwrap_or(0)));
            }
            // Asks first and looks then, so that no frame can come in between unnoticed.
            if limit.is_zero() || !port.prepare_sleep(awaits_sent) {
                return port.wake();
            }
        }
        let begin = self.clock.stamp().ticks;
        self.rest.count(begin, false);
        self.machine.sleep(limit);
        let end = self.clock.stamp().ticks;
        self.rest.count(end, true);
        self.rest.counted.wake_ups = self.rest.counted.wake_ups.wrapping_add(1);
        if let Some(Network { port, .. }) = &mut self.network {
            port.wake();
        }
        self.follow_departures();
        self.rest.slept = Some(Slept {
            begin,
            end,
            limit,
            saw_off: awaits_sent && self.departures.is_empty(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tick is a nanosecond.
    fn calibrated() -> Rest {
        Rest {
            spin: 100_000,
            ..Rest::default()
        }
    }

    fn sleep(rest: &mut Rest, limit: Duration, micros: i64, came: bool) {
        sleep_until(rest, limit, micros, came, false);
    }

    fn sleep_until(rest: &mut Rest, limit: Duration, micros: i64, came: bool, saw_off: bool) {
        let begin = Ticks(1_000_000);
        let end = Ticks(begin.0.wrapping_add_signed(micros * 1000));
        rest.slept = Some(Slept {
            begin,
            end,
            limit,
            saw_off,
        });
        rest.frame = Some(Ticks(if came { end.0 } else { end.0 - 1 }));
        rest.conclude();
        // Once.
        rest.conclude();
    }

    #[test]
    fn a_device_is_mute_when_it_has_often_said_nothing() {
        let mut rest = calibrated();
        for _ in 1..MUTE {
            sleep(&mut rest, NAP, 50_100, true);
        }
        // Nothing came; and something came, but so soon that it may be chance.
        sleep(&mut rest, NAP, 50_100, false);
        sleep(&mut rest, SHORT_NAP, 1010, true);
        assert!(!rest.is_mute());
        sleep(&mut rest, NAP, 50_100, true);
        assert!(rest.is_mute());
        sleep(&mut rest, SHORT_NAP, 1010, true);
        assert!(rest.is_mute(), "the timer has ended that");
        sleep(&mut rest, SHORT_NAP, 400, true);
        assert!(rest.is_mute(), "too short to tell");
        sleep(&mut rest, CHANCE, 400, true);
        assert!(!rest.is_mute(), "the device has");
        assert_eq!(rest.counted.in_vain, 0);
    }

    #[test]
    fn a_sleep_that_a_departure_ended_tells_nothing() {
        let mut rest = calibrated();
        let mut sleep = |micros: i64, came| {
            sleep_until(&mut rest, NAP, micros, came, true);
            (rest.unheard, rest.counted.in_vain)
        };
        assert_eq!(sleep(60, false), (0, 0));
        // Only that no frame ended it does: the next one is that of a device that is mute in both directions.
        assert_eq!(sleep(50_100, true), (1, 0));
        assert_eq!(sleep(60, true), (1, 0));
        assert_eq!(sleep(50_100, false), (1, 0));
    }

    #[test]
    fn wake_ups_for_nothing_are_counted() {
        let mut rest = calibrated();
        for _ in 0..1000 {
            sleep(&mut rest, NAP, 5, false);
        }
        sleep(&mut rest, NAP, 50_000, false);
        sleep(&mut rest, NAP, 30_000, true);
        assert_eq!(rest.counted.in_vain, 1000);
        assert!(!rest.is_mute());
        // The longest limit there is, and a counter that went back.
        sleep(&mut rest, Duration::MAX, -7, true);
        assert!(!rest.is_mute());
        let mut rest = Rest::default();
        for _ in 0..100 {
            sleep(&mut rest, NAP, 50_100, true);
        }
        assert!(!rest.is_mute(), "without a rate nobody knows");
    }
}
