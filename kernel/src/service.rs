//! The main loop: frames, timers, console, sleep, in that order, for ever.

use core::fmt::{self, Write};
use core::time::Duration;

use gnomon_clock::{Clock, ClockStatus, Counter, NoTime, Period, Reading};
use smoltcp::time::Instant;

use crate::config::{Config, Idle, Ip, Serial};
use crate::console::{Console, SerialPort};
use crate::machine::Machine;
use crate::net::port::{Frame, FramePort};
use crate::net::stack::{Address, Stack, Storage};
use crate::net::{self, frame};
use crate::report::{self, NetView, View};
use crate::serve::ntp;
use crate::serve::responder::{self, Datagram, Responder, Served};
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

/// Memory that the service is lent, because it is too much for a stack or must outlive it.
#[derive(Debug)]
pub struct Memory<'a> {
    /// For the IP stack.
    pub stack: &'a mut Storage<'a>,
    /// For what the NTP server remembers of its clients.
    pub clients: &'a mut responder::Memory,
}

/// What is known of the time, for the log.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    Time { status: ClockStatus, marker: u64 },
    Nothing(NoTime),
}

/// Everything the service owns: what it serves, and the console it tells of it.
pub struct Service<'a, M, C, P, S> {
    core: Core<'a, M, C, P>,
    console: Console<S>,
    shell: Shell,
    /// What the log last said of the time; `None` before the boot report.
    told: Option<Known>,
    /// When the log looks at the time again.
    look_again: Option<Duration>,
}

/// What is served.
struct Core<'a, M, C, P> {
    machine: M,
    clock: Clock<'a, C>,
    network: Option<Network<'a, P>>,
    ntp: Responder<'a>,
    /// Time since start as this round began to look.
    uptime: Option<Duration>,
    /// The precision has been measured.
    calibrated: bool,
    config: Config,
    found: Found<'a>,
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
    /// Puts the service together.
    pub fn new(
        mut machine: M,
        clock: Clock<'a, C>,
        port: Option<P>,
        memory: Memory<'a>,
        console: Console<S>,
        config: Config,
        found: Found<'a>,
    ) -> Self {
        let Memory { stack, clients } = memory;
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
            let stack = Stack::new(&mut port, stack, fixed, now, random);
            Network {
                port,
                stack,
                ntp: 0,
                others: 0,
            }
        });
        let ntp = Responder::new(
            ntp::Server::new(config.stratum, RESOLUTION),
            &config.policy,
            clients,
            || machine.random(),
        );
        let core = Core {
            machine,
            clock,
            network,
            ntp,
            uptime,
            calibrated: false,
            config,
            found,
        };
        Self {
            core,
            console,
            shell: Shell::new(),
            told: None,
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
        let moved = self.core.follow_network();
        // Before the boot report there is nothing to correct.
        if moved && self.told.is_some() {
            self.tell_address();
        }
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
            if let Some(action) = self
                .shell
                .feed(byte, &mut self.console, || self.core.view())
            {
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
    /// be silence; after that, a line whenever what is known of the time has changed.
    fn report(&mut self) {
        if self.core.uptime < self.look_again {
            return;
        }
        self.look_again = self.core.uptime.map(|uptime| uptime + LOOK);
        let now = self.core.known();
        let Some(before) = self.told else {
            if self.core.is_ready() || self.core.is_late() {
                self.told = Some(now);
                // What cannot be printed is lost, here and below: there is nobody else to tell.
                let _ = report::boot(&mut self.console, &self.core.view());
                self.prompt();
            }
            return;
        };
        if now == before {
            return;
        }
        self.told = Some(now);
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

    fn tell_address(&mut self) {
        let address = self
            .core
            .network
            .as_ref()
            .and_then(|network| network.stack.address());
        match address {
            Some(address) => self.log(format_args!("network: address {address}")),
            None => self.log(format_args!("network: the address lease has ended")),
        }
    }

    /// Prints a log line on a line of its own and puts the prompt back.
    fn log(&mut self, message: fmt::Arguments<'_>) {
        let since = self.core.uptime.map(nanoseconds);
        let _ = writeln!(self.console);
        let _ = report::log(&mut self.console, since, message);
        self.prompt();
    }

    fn prompt(&mut self) {
        if self.core.config.serial == Serial::Shell {
            let _ = self.shell.prompt(&mut self.console);
        }
    }
}

impl<'a, M: Machine, C: Counter, P: FramePort> Core<'a, M, C, P> {
    /// Answers NTP requests in place and hands every other frame to the stack. Returns whether
    /// there were any.
    fn serve_frames(&mut self) -> bool {
        let Some(Network {
            port,
            stack,
            ntp,
            others,
        }) = &mut self.network
        else {
            return false;
        };
        let mac = port.mac();
        for _ in 0..BATCH {
            let Some(mut received) = port.receive() else {
                return false;
            };
            let stamp = self.clock.stamp();
            let address = stack.address().map(|address| address.address);
            let request = address.and_then(|address| {
                frame::udp_request(received.bytes_mut(), mac, address, ntp::PORT)
            });
            let Some(request) = request else {
                *others += 1;
                stack.take(port, received, instant(self.uptime));
                port.kick();
                continue;
            };
            *ntp += 1;
            let datagram = Datagram {
                source: request.source().into(),
                port: request.source_port(),
                payload: request.payload(),
            };
            let exchange = || self.clock.exchange(stamp);
            let random = self.machine.random();
            let served = self.ntp.serve(&datagram, self.uptime, exchange, random);
            let length = match &served {
                Ok(Served { reply, .. }) => request.answer(&reply.packet, reply.tail()),
                Err(_) => None,
            };
            if let Some(length) = length {
                received.set_length(length);
                port.send(received);
            } else {
                port.release(received);
            }
            // The stamp in the reply is from just now: let it go before the next frame is looked
            // at.
            port.kick();
            if let Ok(Served {
                pending: Some(pending),
                ..
            }) = &served
                && let Ok(now) = self.clock.now()
            {
                self.ntp.sent(pending, &now);
            }
        }
        true
    }

    /// Does what the IP stack has planned. Returns whether the address changed.
    fn follow_network(&mut self) -> bool {
        let Some(Network { port, stack, .. }) = &mut self.network else {
            return false;
        };
        stack.poll(port, instant(self.uptime))
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
        let resolution = period.span_outward(ticks).nanos();
        self.ntp
            .set(ntp::Server::new(self.config.stratum, resolution));
        self.calibrated = true;
    }

    fn known(&mut self) -> Known {
        match self.clock.now() {
            Ok(Reading { status, marker, .. }) => Known::Time { status, marker },
            Err(why) => Known::Nothing(why),
        }
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
    fn view(&mut self) -> View<'a> {
        View {
            machine: self.found.machine,
            uptime: self.machine.uptime().map(nanoseconds),
            reading: self.clock.now(),
            page: self.found.page,
            fields: self.clock.fields(),
            counter: C::ID,
            net: match &self.network {
                Some(network) => Ok(network.view(self.found.nic)),
                None => Err(self.found.nic),
            },
            server: self.ntp.server(),
            ntp: self.ntp.counters(),
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
