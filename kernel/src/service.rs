//! The main loop: frames, timers, console, sleep, in that order, for ever.

use core::fmt::{self, Write};
use core::time::Duration;

use gnomon_clock::{Clock, ClockStatus, Counter, NoTime, Period, Reading, Smear, Span, Stamp};
use smoltcp::time::Instant;

use crate::config::{Config, Idle, Ip, Serial, Smearing};
use crate::console::{Console, SerialPort};
use crate::duty::{Duty, Incarnation, OnViolation, Withheld};
use crate::machine::Machine;
use crate::net::port::{Frame, FramePort};
use crate::net::stack::{Address, Stack, Storage};
use crate::net::{self, frame};
use crate::report::{self, NetView, SmearName, SmearView, View};
use crate::serve::ntp::{self, Answer};
use crate::serve::times::{SmearService, Told};
use crate::shell::{Action, Shell};

/// Frames that are looked at before everything else gets its turn.
const BATCH: usize = 32;
/// Bytes of console input that are looked at in one round.
const INPUT: usize = 64;
/// What a read of the clock is taken to cost until it has been measured, ns.
const RESOLUTION: u64 = 1000;
/// Reads in that measurement. Many, so that emulators have translated the code.
const READS: usize = 256;
/// Longest sleep. A PC's PM timer must be looked at every 4 s and its PIT cannot count further than
/// this.
const NAP: Duration = Duration::from_millis(50);
/// Longest sleep when the network device cannot wake the machine.
const SHORT_NAP: Duration = Duration::from_millis(1);
/// How long the log does not look at the time again.
const LOOK: Duration = Duration::from_millis(2);
/// When the boot report is printed at the latest, whatever is still missing by then.
const REPORT_DEADLINE: Duration = Duration::from_millis(1500);
/// Lines that the log may print at once, and how long each takes to be allowed again: what a host
/// does may fill a line or two a second, and not the console.
const BURST: u32 = 4;
const PACE: Duration = Duration::from_millis(500);
/// How long the network is left alone after it was started over.
const RESTART_PACE: Duration = Duration::from_secs(1);
/// How often a UART that takes nothing is asked again before the last words are given up.
const PATIENCE: u32 = 1_000_000;

/// What boot found out and the service only tells.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The machine in a few words.
    pub machine: &'a str,
    /// Where the vmclock page is, or why there is none.
    pub page: Result<&'a str, &'a str>,
    /// The network device in a few words, or why there is none.
    pub nic: &'a str,
}

/// What is known of the time, for the log.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    Time { status: ClockStatus, marker: u64 },
    Nothing(NoTime),
}

/// Everything that the log tells the changes of.
#[derive(Clone, Copy, PartialEq, Eq)]
struct State {
    time: Known,
    withheld: Option<Withheld>,
    smear: SmearState,
    /// Violations, if there is to be an alarm.
    violations: u64,
    address: Option<Address>,
    /// Second lives of this machine.
    lives: u64,
}

/// How leap seconds are smeared.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct SmearState {
    in_force: Option<Smear>,
    /// One is being smeared just now.
    is_off_utc: bool,
}

/// What the log has said.
#[derive(Clone, Copy)]
struct Log {
    told: State,
    /// What the last look saw, and how many changes there were since something was told.
    seen: State,
    changes: u64,
    /// Until when lines that were printed take up their share of the pace.
    busy_until: Duration,
}

impl Log {
    /// A log just after the boot report, which has told the time and the address.
    const fn new(now: State) -> Self {
        Self {
            told: State {
                withheld: None,
                violations: 0,
                smear: SmearState {
                    is_off_utc: false,
                    ..now.smear
                },
                ..now
            },
            seen: now,
            changes: 0,
            busy_until: Duration::ZERO,
        }
    }

    /// What was told last and how many changes there were since, if it is time to tell of them. On
    /// a machine without a timer it always is.
    fn look(&mut self, now: State, uptime: Option<Duration>) -> Option<(State, u64)> {
        if self.seen != now {
            self.seen = now;
            self.changes = self.changes.saturating_add(1);
        }
        let may = uptime.is_none_or(|uptime| self.busy_until < uptime + PACE * BURST);
        if self.told == now || !may {
            return None;
        }
        let changes = core::mem::take(&mut self.changes);
        Some((core::mem::replace(&mut self.told, now), changes))
    }
}

/// Everything the service owns: what it serves, and the console it tells of it.
pub struct Service<'a, M, C, P, S> {
    core: Core<'a, M, C, P>,
    console: Console<S>,
    shell: Shell,
    /// `None` before the boot report.
    log: Option<Log>,
    /// When the log looks at the time again.
    look_again: Option<Duration>,
}

/// What is served.
struct Core<'a, M, C, P> {
    machine: M,
    clock: Clock<'a, C>,
    duty: Duty,
    smear: SmearService,
    network: Option<Network<'a, P>>,
    server: ntp::Server,
    requests: ntp::Counters,
    life: Life,
    /// At the last reading.
    smear_state: SmearState,
    /// Time since start as this round began to look.
    uptime: Option<Duration>,
    /// The precision has been measured.
    calibrated: bool,
    config: Config,
    found: Found<'a>,
}

/// Which life of the machine this is, and what was done about it.
#[derive(Clone, Copy, Default)]
struct Life {
    now: Option<Incarnation>,
    /// How many have begun since the start.
    begun: u64,
    /// The network does not know of it yet.
    network_is_old: bool,
    /// When the network was last started over.
    restarted: Option<Duration>,
}

/// The network device and the IP stack on it.
struct Network<'a, P> {
    port: P,
    stack: Stack<'a>,
    /// Frames that were NTP requests.
    ntp: u64,
    /// Frames that the IP stack was given.
    others: u64,
}

impl<'a, M, C, P, S> Service<'a, M, C, P, S>
where
    M: Machine,
    C: Counter,
    P: FramePort,
    S: SerialPort,
{
    /// Puts the service together. `storage` is memory for the IP stack.
    pub fn new(
        mut machine: M,
        clock: Clock<'a, C>,
        port: Option<P>,
        storage: &'a mut Storage<'a>,
        console: Console<S>,
        config: Config,
        found: Found<'a>,
    ) -> Self {
        let fixed = match config.ip {
            Ip::Dhcp => None,
            Ip::Static {
                address,
                prefix,
                gateway,
            } => Some(Address {
                address,
                prefix,
                gateway,
            }),
        };
        let uptime = machine.uptime();
        let now = instant(uptime);
        let random = machine.random();
        let network = port.map(|mut port| {
            let stack = Stack::new(&mut port, storage, fixed, config.smear_port, now, random);
            Network {
                port,
                stack,
                ntp: 0,
                others: 0,
            }
        });
        let clock = match config.tai_offset {
            Some(offset) => clock.with_operator_offset(offset),
            None => clock,
        };
        let mut core = Core {
            machine,
            clock,
            duty: Duty::new(config.conditions),
            smear: SmearService::new(config.smear),
            network,
            server: ntp::Server::new(config.stratum, RESOLUTION),
            requests: ntp::Counters::default(),
            life: Life::default(),
            smear_state: SmearState::default(),
            uptime,
            calibrated: false,
            config,
            found,
        };
        core.follow_page();
        Self {
            core,
            console,
            shell: Shell::new(),
            log: None,
            look_again: None,
        }
    }

    /// Serves for ever.
    pub fn run(mut self) -> ! {
        loop {
            if !self.turn() {
                self.rest();
            }
        }
    }

    /// One round: a batch of frames, what the IP stack has planned, the console. Returns whether more
    /// may be waiting.
    pub fn turn(&mut self) -> bool {
        self.core.calibrate();
        let mut more = self.core.serve_frames();
        self.core.uptime = self.core.machine.uptime();
        self.core.follow_network();
        self.console.pump();
        more |= self.serve_console();
        self.report();
        more
    }

    /// Sleeps until something may have come, unless the command line asked for polling.
    fn rest(&mut self) {
        if self.core.config.idle == Idle::Poll || self.console.is_waiting() {
            core::hint::spin_loop();
        } else {
            self.core.sleep();
        }
    }

    /// Takes what was typed. Returns whether there may be more.
    fn serve_console(&mut self) -> bool {
        for _ in 0..INPUT {
            let Some(byte) = self.console.receive() else {
                return false;
            };
            if self.core.config.serial == Serial::Off {
                continue;
            }
            let core = &mut self.core;
            let action = self.shell.feed(byte, &mut self.console, || core.view());
            if let Some(action) = action {
                self.console.drain(PATIENCE);
                match action {
                    Action::PowerOff => self.core.machine.power_off(),
                    Action::Reboot => self.core.machine.reboot(),
                }
            }
        }
        true
    }

    /// Prints the boot report once, when there is a time and an address or when waiting longer would
    /// be silence; after that, lines whenever what the log tells of has changed.
    fn report(&mut self) {
        if self.core.uptime < self.look_again {
            return;
        }
        self.look_again = self.core.uptime.map(|uptime| uptime + LOOK);
        self.core.follow_page();
        self.core.follow_life();
        let now = self.core.state();
        let Some(log) = &mut self.log else {
            if self.core.is_ready() || self.core.is_late() {
                self.log = Some(Log::new(now));
                // What cannot be printed is lost, here and below: there is nobody else to tell.
                let _ = report::boot(&mut self.console, &self.core.view());
                self.prompt();
            }
            return;
        };
        if let Some((before, changes)) = log.look(now, self.core.uptime) {
            self.tell(&before, &now, changes);
        }
    }

    /// Tells what is different, one line for each thing.
    fn tell(&mut self, before: &State, now: &State, changes: u64) {
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
                },
            ) if next != marker => {
                self.log(format_args!(
                    "time: disruption, marker {marker:#x} is now {next:#x}; {status}"
                ));
            }
            (_, Known::Time { status, .. }) => self.log(format_args!("time: {status}")),
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
        let since = self.core.uptime.map(nanoseconds);
        let _ = writeln!(self.console);
        let _ = report::log(&mut self.console, since, message);
        self.prompt();
        if let (Some(log), Some(uptime)) = (&mut self.log, self.core.uptime) {
            log.busy_until = log.busy_until.max(uptime) + PACE;
        }
    }

    fn prompt(&mut self) {
        if self.core.config.serial == Serial::Shell {
            let _ = self.shell.prompt(&mut self.console);
        }
    }
}

impl<M: Machine, C: Counter, P: FramePort> Core<'_, M, C, P> {
    /// Takes a batch of frames. Returns whether there may be more.
    fn serve_frames(&mut self) -> bool {
        for _ in 0..BATCH {
            let received = self.network.as_mut().and_then(|net| net.port.receive());
            let Some(received) = received else {
                return false;
            };
            let stamp = self.clock.stamp();
            // Before anything that is remembered of this client is used.
            let life = self.life.now;
            if life.is_some_and(|life| life.marker() != stamp.marker) {
                self.follow_page();
            }
            self.serve_frame(received, stamp);
        }
        true
    }

    /// Answers an NTP request in place, or hands the frame to the stack.
    fn serve_frame(&mut self, mut received: P::Frame, stamp: Stamp) {
        let Some(Network {
            port,
            stack,
            ntp,
            others,
        }) = &mut self.network
        else {
            return;
        };
        let services = [Some(ntp::PORT), self.config.smear_port];
        let service =
            frame::udp_port(received.bytes()).filter(|port| services.contains(&Some(*port)));
        let request = stack.address().zip(service).and_then(|(address, service)| {
            frame::udp_request(received.bytes_mut(), port.mac(), address.address, service)
        });
        let Some(request) = request else {
            *others += 1;
            stack.take(port, received, instant(self.uptime));
            port.kick();
            return;
        };
        *ntp += 1;
        // Without a port of its own, the smeared service is the only one.
        let is_smeared = self.config.smear_port.is_none() || service == self.config.smear_port;
        let times = || match self.clock.exchange(stamp) {
            Err(why) => Told::from(&why),
            Ok(exchange) => match self.duty.judge(&exchange.transmit, self.clock.audit()) {
                Some(why) => Told::from(why),
                None if is_smeared => self.smear.tell(&exchange),
                None => Told::plain(&exchange),
            },
        };
        let random = self.machine.random();
        let (payload, source_port) = (request.payload(), request.source_port());
        let reply = ntp::serve(
            &self.server,
            payload,
            source_port,
            times,
            random,
            &mut self.requests,
        );
        match reply.and_then(|reply| request.answer(&reply)) {
            Some(length) => {
                received.set_length(length);
                port.send(received);
            }
            None => port.release(received),
        }
        // The stamp in the reply is from just now: let it go before the next frame is looked at.
        port.kick();
    }

    /// Looks whether the page tells of another life of this machine.
    fn follow_page(&mut self) {
        let Some(Ok(fields)) = self.clock.fields() else {
            return;
        };
        let next = Incarnation::new(fields.disruption_marker, fields.vm_generation());
        let before = self.life.now.replace(next);
        if before.is_some_and(|before| before.is_ended_by(&next)) {
            self.life.begun += 1;
            self.forget_clients();
        }
    }

    /// Forgets everything that is remembered of clients or was drawn at random: another machine may
    /// have the same memory, and clients may have met that one meanwhile.
    const fn forget_clients(&mut self) {
        // There is nothing yet but the IP stack, which follows in `follow_life`.
        self.life.network_is_old = true;
    }

    /// Lets the network know of another life, but not all the time.
    fn follow_life(&mut self) {
        let rested = match (self.uptime, self.life.restarted) {
            (Some(uptime), Some(restarted)) => uptime >= restarted + RESTART_PACE,
            _ => true,
        };
        if !self.life.network_is_old || !rested {
            return;
        }
        self.life.network_is_old = false;
        self.life.restarted = self.uptime;
        let random = self.machine.random();
        if let Some(Network { port, stack, .. }) = &mut self.network {
            stack.restart(port, instant(self.uptime), random);
        }
        self.follow_network();
    }

    /// Does what the IP stack has planned.
    fn follow_network(&mut self) {
        if let Some(Network { port, stack, .. }) = &mut self.network {
            stack.poll(port, instant(self.uptime));
        }
    }

    fn sleep(&mut self) {
        let now = instant(self.uptime);
        let Some(Network { port, stack, .. }) = &mut self.network else {
            return self.machine.sleep(NAP);
        };
        let mut limit = if port.can_wake() { NAP } else { SHORT_NAP };
        if let Some(next) = stack.next_poll() {
            let wait = next.total_micros().saturating_sub(now.total_micros());
            limit = limit.min(Duration::from_micros(u64::try_from(wait).unwrap_or(0)));
        }
        if !limit.is_zero() && port.prepare_sleep() {
            self.machine.sleep(limit);
        }
        port.wake();
    }

    /// Measures once how finely the clock can be read, as soon as a page says how long a tick is.
    fn calibrate(&mut self) {
        if self.calibrated {
            return;
        }
        let Some(Ok(fields)) = self.clock.fields().filter(|_| self.clock.now().is_ok()) else {
            return;
        };
        let Ok(period) = Period::new(fields.counter_period_frac_sec, fields.counter_period_shift)
        else {
            return;
        };
        let mut cost = [0; READS];
        for cost in &mut cost {
            let before = self.clock.stamp().ticks;
            *cost = self.clock.stamp().ticks.since(before);
        }
        // The median: the longest are interruptions, and a counter that moves in steps of many ticks
        // gives zeros.
        let (_, &mut ticks, _) = cost.select_nth_unstable(READS / 2);
        let ticks = ticks.max(1);
        self.server = ntp::Server::new(self.config.stratum, period.span_outward(ticks).nanos());
        self.calibrated = true;
    }

    /// Everything that the log tells the changes of, at this moment.
    fn state(&mut self) -> State {
        let reading = self.clock.now();
        if let Ok(reading) = &reading {
            let now = self.smear.at(reading);
            self.smear_state = SmearState {
                in_force: now.map(|(smear, _)| smear),
                is_off_utc: now.is_some_and(|(_, smeared)| smeared.offset != Span::ZERO),
            };
        }
        let alarm = self.config.conditions.on_violation != OnViolation::Serve;
        State {
            time: match reading {
                Ok(Reading { status, marker, .. }) => Known::Time { status, marker },
                Err(why) => Known::Nothing(why),
            },
            withheld: self.withheld(&reading),
            smear: self.smear_state,
            violations: if alarm {
                self.clock.audit().violations()
            } else {
                0
            },
            address: self.network.as_ref().and_then(|net| net.stack.address()),
            lives: self.life.begun,
        }
    }

    fn withheld(&mut self, reading: &Result<Reading, NoTime>) -> Option<Withheld> {
        let reading = reading.as_ref().ok()?;
        self.duty.judge(reading, self.clock.audit())
    }

    fn is_ready(&mut self) -> bool {
        self.network
            .as_ref()
            .is_none_or(|network| network.stack.address().is_some())
            && self.clock.now().is_ok()
    }

    fn is_late(&self) -> bool {
        self.uptime.is_none_or(|uptime| uptime >= REPORT_DEADLINE)
    }

    /// Everything there is to tell at this moment.
    fn view(&mut self) -> View<'_> {
        let reading = self.clock.now();
        let withheld = self.withheld(&reading);
        let asked = self.config.smear;
        let smear = (asked != Smearing::Off).then(|| SmearView {
            asked,
            port: self.config.smear_port.unwrap_or(ntp::PORT),
            now: reading.ok().and_then(|reading| self.smear.at(&reading)),
        });
        View {
            machine: self.found.machine,
            uptime: self.machine.uptime().map(nanoseconds),
            reading,
            page: self.found.page,
            fields: self.clock.fields(),
            counter: C::ID,
            net: match &self.network {
                Some(network) => Ok(network.view(self.found.nic)),
                None => Err(self.found.nic),
            },
            server: self.server,
            ntp: self.requests,
            withheld,
            duty: &self.duty,
            audit: self.clock.audit(),
            smear,
            idle: self.config.idle,
        }
    }
}

impl<P: FramePort> Network<'_, P> {
    fn view<'v>(&self, nic: &'v str) -> NetView<'v> {
        let address = self.stack.address();
        let counters = self.port.counters();
        NetView {
            nic,
            mac: self.port.mac(),
            address: address.map(|address| (address.address, address.prefix)),
            gateway: address.and_then(|address| address.gateway),
            dhcp: self.stack.uses_dhcp(),
            frames: net::Counters {
                received: counters.received,
                sent: counters.sent,
                dropped: counters.dropped,
                lies: counters.lies,
                ntp: self.ntp,
                stack: self.others,
            },
        }
    }
}

impl<M, C, P, S> fmt::Debug for Service<'_, M, C, P, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("found", &self.core.found)
            .field("config", &self.core.config)
            .finish_non_exhaustive()
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn instant(uptime: Option<Duration>) -> Instant {
    Instant::from_micros(uptime.map_or(0, |uptime| {
        i64::try_from(uptime.as_micros()).unwrap_or(i64::MAX)
    }))
}
