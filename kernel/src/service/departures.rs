//! Replies in interleaved mode between the ring and the wire: when they left is learned by watching the
//! device hand them on ([`interleave`](crate::serve::interleave) says what clients are told of it).
//!
//! A device says so by giving the buffers back. Whoever looks on anyway sees that within about a
//! microsecond, so after a batch with such replies the service looks on for [`SPIN`] before it does
//! anything else, unless it was told to halt. A machine that goes to sleep before that asks to be woken
//! by it. If another frame comes first, nobody waits any longer.
//!
//! [`SPIN`]: super::idle::SPIN

use gnomon_clock::{Bound, Counter, Stamp};

use super::served::{Core, SHARE, Teller};
use crate::config::Idle;
use crate::machine::Machine;
use crate::net::port::FramePort;
use crate::serve::responder::Pending;

/// Up to this many times [`SPIN`](super::idle::SPIN) after it was queued, it is of use when a reply was seen to
/// leave. Beyond that a client is better off with a path that looks as long as it was.
const PROMPT: i64 = 10;

/// A reply whose departure its client will ask for.
#[derive(Clone, Copy, Debug)]
struct Departing {
    pending: Pending,
    /// Just before the device could have the frame.
    queued: Stamp,
    is_smeared: bool,
}

impl Departing {
    /// How many ticks it was under way when it was `seen` to have left: none if a disruption makes that
    /// nonsense.
    const fn wait(&self, seen: Stamp) -> i64 {
        let ticks = seen.ticks.since(self.queued.ticks);
        if seen.marker == self.queued.marker && ticks > 0 {
            ticks
        } else {
            0
        }
    }
}

/// Those that have been queued and have not been seen to leave: a batch's at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Departures {
    places: [Option<Departing>; SHARE],
    count: usize,
}

impl Departures {
    pub(super) const NONE: Self = Self {
        places: [None; SHARE],
        count: 0,
    };

    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds one. Beyond a batch it is forgotten, and its client will be answered in basic mode.
    #[inline]
    pub(super) fn add(&mut self, pending: &Pending, queued: Stamp, is_smeared: bool) {
        if let Some(place) = self.places.get_mut(self.count) {
            *place = Some(Departing {
                pending: *pending,
                queued,
                is_smeared,
            });
            self.count += 1;
        }
    }

    fn take(&mut self) -> Option<Departing> {
        self.count = self.count.checked_sub(1)?;
        self.places.get_mut(self.count)?.take()
    }
}

impl<M: Machine, C: Counter, P: FramePort> Core<'_, M, C, P> {
    /// Looks on until the replies in interleaved mode have left. Returns whether a frame has come first.
    #[inline(never)]
    pub(super) fn see_off(&mut self) -> bool {
        if self.departures.is_empty() {
            return false;
        }
        let begin = match self.config.idle {
            Idle::Halt => None,
            Idle::Adaptive | Idle::Poll => Some(self.clock.stamp().ticks),
        };
        self.spin(begin, true)
    }

    /// Looks whether replies have left. Those that another frame overtakes are not waited for.
    pub(super) fn follow_departures(&mut self) {
        if self.departures.is_empty() {
            return;
        }
        let Some(network) = &mut self.network else {
            return;
        };
        if network.port.has_sent() {
            self.remember_departures(Some(self.clock.stamp()));
        } else if network.port.has_received() {
            self.remember_departures(None);
        }
    }

    /// Remembers for their clients when replies left: in the middle between when they were queued and when they were
    /// `seen` to have left, or, if they were not or that was late, when they were queued.
    #[inline(never)]
    pub(super) fn remember_departures(&mut self, seen: Option<Stamp>) {
        let longest = self.rest.spin.saturating_mul(PROMPT);
        while let Some(departing) = self.departures.take() {
            let mut teller = Teller {
                clock: &mut self.clock,
                duty: &mut self.duty,
                smear: &mut self.smear,
            };
            let told = teller.tell(departing.queued, departing.is_smeared);
            let wait = seen.map_or(0, |seen| departing.wait(seen));
            let half = if wait <= longest { wait / 2 } else { 0 };
            let period = self.clock.period();
            let after = period.map_or(Bound::MAX, |period| period.span_outward(half));
            self.ntp.sent(&departing.pending, told, after);
        }
    }
}
