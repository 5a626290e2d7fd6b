//! What the log says: a line whenever something that people want to know has changed.

use core::fmt::{self, Write};
use core::time::Duration;

use gnomon_clock::{ClockStatus, Counter, NoTime, Origin, Smear, Source};

use super::Service;
use super::served::nanoseconds;
use crate::config::Smearing;
use crate::console::SerialPort;
use crate::duty::Withheld;
use crate::machine::Machine;
use crate::net::inet6::{Address6, Known6};
use crate::net::port::{FramePort, Health};
use crate::net::stack::Address;
use crate::report::{self, SmearName, Standing};
use crate::serve::ntp::Answer;
use crate::services::counters::PageRate;
use crate::source::State as SourceState;

/// Lines that the log may print at once, and how long each takes to be allowed again: what a host
/// does may fill a line or two a second, and not the console.
const BURST: u32 = 4;
const PACE: Duration = Duration::from_millis(500);

/// What is known of the time, for the log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Time {
        status: ClockStatus,
        marker: u64,
        origin: Origin,
    },
    Nothing(NoTime),
}

/// Everything that the log tells the changes of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    pub(super) time: Known,
    pub(super) withheld: Option<Withheld>,
    pub(super) smear: SmearState,
    /// Violations, if there is to be an alarm.
    pub(super) violations: u64,
    /// How often a source contradicted the time, if there is to be an alarm.
    pub(super) alarms: u64,
    pub(super) address: Option<Address>,
    /// Changes of addresses.
    pub(super) addresses: u64,
    /// How the network device is.
    pub(super) device: Health,
    /// It is not relied on to wake the machine.
    pub(super) is_mute: bool,
    /// Second lives of this machine.
    pub(super) lives: u64,
    /// Unannounced moves of the counter, if there is to be an alarm.
    pub(super) shifts: u64,
    /// The machine and the page say different things of the counter's rate.
    pub(super) rate_differs: bool,
}

/// How leap seconds are smeared.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SmearState {
    pub(super) in_force: Option<Smear>,
    /// One is being smeared just now.
    pub(super) is_off_utc: bool,
}

/// What the log has said.
#[derive(Clone, Copy)]
pub(super) struct Log {
    told: State,
    told_ipv6: Known6,
    /// What the last look saw, and how many changes there were since something was told.
    seen: State,
    changes: u64,
    /// That is what was told.
    is_told: bool,
    /// Until when lines that were printed take up their share of the pace.
    busy_until: Duration,
    /// When the last one was printed.
    printed: Duration,
}

impl Log {
    /// A log just after the boot report, which has told the time and the address.
    pub(super) const fn new(now: State, ipv6: Known6) -> Self {
        Self {
            told_ipv6: ipv6,
            told: State {
                withheld: None,
                violations: 0,
                alarms: 0,
                shifts: 0,
                rate_differs: false,
                smear: SmearState {
                    is_off_utc: false,
                    ..now.smear
                },
                ..now
            },
            seen: now,
            changes: 0,
            is_told: false,
            busy_until: Duration::ZERO,
            printed: Duration::ZERO,
        }
    }

    /// What was told last and how many changes there were since, if it is time to tell of them. On
    /// a machine without a timer it always is.
    pub(super) fn look(&mut self, now: State, uptime: Option<Duration>) -> Option<(State, u64)> {
        if self.seen != now {
            self.seen = now;
            self.changes = self.changes.saturating_add(1);
            self.is_told = false;
        }
        if self.is_told {
            return None;
        }
        let may = uptime.is_none_or(|uptime| {
            // On another host the timer may be behind.
            if uptime < self.printed {
                (self.busy_until, self.printed) = (uptime, uptime);
            }
            self.busy_until < uptime + PACE * BURST
        });
        self.is_told = self.told == now;
        if self.is_told || !may {
            return None;
        }
        self.is_told = true;
        let changes = core::mem::take(&mut self.changes);
        Some((core::mem::replace(&mut self.told, now), changes))
    }
}

impl<M, C, P, S> Service<'_, M, C, P, S>
where
    M: Machine,
    C: Counter,
    P: FramePort,
    S: SerialPort,
{
    /// Tells what is different, one line for each thing.
    pub(super) fn tell(&mut self, before: &State, now: &State, changes: u64) {
        if changes > 1 {
            self.log(format_args!("log: {changes} changes since the last line"));
        }
        if before.lives != now.lives
            && let Some(life) = self.core.life.now
        {
            self.log(format_args!(
                "machine: moved, restored or copied ({life}), asking the network anew"
            ));
        }
        self.tell_time(before.time, now.time);
        if before.violations != now.violations {
            self.tell_violation(now.violations - before.violations);
        }
        if before.alarms != now.alarms {
            self.tell_contradictions();
        }
        self.tell_counter(before, now);
        self.tell_device(before, now);
        match (now.time, before.withheld, now.withheld) {
            (_, before, Some(why)) if before != now.withheld => {
                let kiss = Answer::from(why).kiss();
                let kiss = kiss.escape_ascii();
                self.log(format_args!("service: no time is served, {kiss}: {why}"));
            }
            (Known::Time { .. }, Some(_), None) => {
                self.log(format_args!("service: time is not withheld any more"));
            }
            _ => {}
        }
        if before.smear != now.smear {
            self.tell_smear(before.smear, now.smear);
        }
        if before.address != now.address {
            match now.address {
                Some(address) => self.log(format_args!("network: address {address}")),
                None => self.log(format_args!("network: the address lease has ended")),
            }
        }
        if before.addresses != now.addresses
            && let (Some(network), Some(log)) = (&self.core.network, &mut self.log)
        {
            let now = network.stack.known6();
            let before = core::mem::replace(&mut log.told_ipv6, now);
            self.tell_ipv6(&before, &now);
        }
    }

    /// Tells which IPv6 addresses came and went.
    fn tell_ipv6(&mut self, before: &Known6, now: &Known6) {
        for (here, there, has_ended) in [(now, before, false), (before, now, true)] {
            for address in here.iter().flatten() {
                let is_same = |other: &Address6| {
                    other.address == address.address
                        && (has_ended || other.is_duplicate == address.is_duplicate)
                };
                if !there.iter().flatten().any(is_same) {
                    let ended = if has_ended { " has ended" } else { "" };
                    self.log(format_args!("network: address {address}{ended}"));
                }
            }
        }
    }

    fn tell_time(&mut self, before: Known, now: Known) {
        if before == now {
            return;
        }
        match (before, now) {
            (_, Known::Nothing(why)) => self.log(format_args!("time: no time: {why}")),
            (
                Known::Time { marker, .. },
                Known::Time {
                    marker: next,
                    status,
                    origin,
                },
            ) if next != marker => {
                self.log(format_args!(
                    "time: disruption, marker {marker:#x} is now {next:#x}; {}",
                    Standing(status, origin)
                ));
            }
            (_, Known::Time { status, origin, .. }) => {
                self.log(format_args!("time: {}", Standing(status, origin)));
            }
        }
    }

    /// The latest of so many new ones.
    fn tell_violation(&mut self, new: u64) {
        let kind = self.core.duty.latest_violation();
        let audit = self.core.clock.audit();
        // Copied, because the log is about to change everything that it is borrowed from.
        match (new, kind.and_then(|kind| audit.evidence(kind)).copied()) {
            (1, Some(evidence)) => self.log(format_args!("audit: {evidence}")),
            (_, Some(evidence)) => self.log(format_args!(
                "audit: {new} violations, the latest: {evidence}"
            )),
            // Found in a page that gave no time in the end.
            (_, None) => self.log(format_args!("audit: {new} violations")),
        }
    }

    /// Every source that contradicts the time now.
    fn tell_contradictions(&mut self) {
        let mut contradictions = [None; Source::ALL.len()];
        for (slot, entry) in contradictions
            .iter_mut()
            .zip(self.core.sources.table().entries())
        {
            if let SourceState::Disagrees(difference) = entry.state {
                *slot = Some((entry.source, difference));
            }
        }
        for (source, difference) in contradictions.into_iter().flatten() {
            self.log(format_args!(
                "sources: {source} contradicts the time, {difference}"
            ));
        }
    }

    fn tell_counter(&mut self, before: &State, now: &State) {
        if before.shifts != now.shifts
            && let Some(shift) = self.core.watch.latest().copied()
        {
            self.log(format_args!("audit: {shift}"));
        }
        if before.rate_differs == now.rate_differs {
            return;
        }
        let page = self.core.clock.fields().and_then(Result::ok);
        match self.core.found.services.rate().zip(page) {
            Some((rate, page)) if now.rate_differs => {
                let page = PageRate(&page);
                self.log(format_args!(
                    "counter: {rate}, but {page} by the page, which counts"
                ));
            }
            _ => self.log(format_args!(
                "counter: the page does not contradict it any more"
            )),
        }
    }

    fn tell_device(&mut self, before: &State, now: &State) {
        let (was, is) = (before.device, now.device);
        if let (true, Some(trouble)) = (was.resets != is.resets, is.trouble) {
            self.log(format_args!(
                "network: the device was reset, the {}. time, since {trouble}",
                is.resets
            ));
        }
        match (was.dead, is.dead) {
            (before, Some(why)) if before != is.dead => self.log(format_args!(
                "network: the device is dead, {why}; it is tried again every second"
            )),
            (Some(_), None) => self.log(format_args!("network: the device works again")),
            _ => {}
        }
        if before.is_mute != now.is_mute {
            let words = if now.is_mute {
                "does not wake the machine, which looks at it every millisecond"
            } else {
                "wakes the machine again"
            };
            self.log(format_args!("network: the device {words}"));
        }
    }

    fn tell_smear(&mut self, before: SmearState, now: SmearState) {
        if before.in_force != now.in_force && self.core.config.smear == Smearing::Hint {
            let name = SmearName(now.in_force);
            self.log(format_args!("smear: {name} by the page's hint"));
        }
        match (before.is_off_utc, now.is_off_utc) {
            (false, true) => self.log(format_args!("smear: off UTC, for a leap second")),
            (true, false) => self.log(format_args!("smear: the same as UTC again")),
            _ => {}
        }
    }

    /// Prints a log line on a line of its own and puts the prompt back.
    fn log(&mut self, message: fmt::Arguments<'_>) {
        if self.first.mode.is_time() {
            return;
        }
        let since = self.core.uptime.map(nanoseconds);
        let console = &mut self.first.console;
        let _ = writeln!(console);
        let _ = report::log(console, since, message);
        self.prompt();
        if let (Some(log), Some(uptime)) = (&mut self.log, self.core.uptime) {
            log.busy_until = log.busy_until.max(uptime) + PACE;
            log.printed = uptime;
        }
    }
}
