//! The main loop: frames, connections, timers, console, sleep, in that order, for ever.

mod http;
mod idle;
mod log;
mod ports;
mod served;
mod upstream;

use core::fmt;
use core::time::Duration;

use gnomon_clock::{Clock, Counter, Source};

use self::idle::Rest;
pub use self::idle::Rested;
use self::log::{Log, SmearState};
use self::ports::Port;
use self::served::{Core, Life, Network, SHARE, instant};
use self::upstream::Upstream;
use crate::config::{Config, Ip, Serial};
use crate::console::{Console, SerialPort};
use crate::duty::Duty;
use crate::http::history::History;
use crate::machine::Machine;
use crate::net::port::FramePort;
use crate::net::stack::{Address, Stack, Storage};
use crate::random::{self, Random};
use crate::report;
use crate::serve::ntp;
use crate::serve::responder::{self, Responder};
use crate::serve::times::SmearService;
use crate::services::Services;
use crate::services::counters::Watch;
use crate::shell::{Action, Facts, Shell};
use crate::source::{Driver, Sources, Table};

/// Bytes of console input that are looked at in one round.
const INPUT: usize = 64;
/// The most that a command prints again and again, generously.
const LINE: usize = 768;
/// What a read of the clock is taken to cost until it has been measured, ns.
const RESOLUTION: u64 = 1000;
/// How long the log does not look at the time again.
const LOOK: Duration = Duration::from_millis(2);
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
    /// The sources of time that are absent, and why.
    pub absent: &'a [(Source, &'static str)],
    /// What firmware and hypervisor offer.
    pub services: &'a dyn Services,
    /// What the shell tells of the machine.
    pub facts: &'a Facts,
}

/// Memory that the service is lent, because it is too much for a stack or must outlive it.
#[expect(missing_debug_implementations, reason = "drivers are not for printing")]
pub struct Memory<'a> {
    /// For the IP stack.
    pub stack: &'a mut Storage<'a>,
    /// For what the NTP server remembers of its clients.
    pub clients: &'a mut responder::Memory,
    /// For connections of HTTP.
    pub http: &'a mut crate::http::Memory,
    /// For what is learned of the sources of time beside the page.
    pub table: &'a mut Table,
    /// How these are asked.
    pub sources: &'a mut [&'a mut dyn Driver],
}

/// Everything the service owns: what it serves, and the console it tells of it.
pub struct Service<'a, M, C, P, S> {
    core: Core<'a, M, C, P>,
    first: Port<'a, S>,
    second: Port<'a, S>,
    shell: Shell,
    /// `None` before the boot report.
    log: Option<Log>,
    /// When the log looks at the time again.
    look_again: Option<Duration>,
}

impl<'a, M, C, P, S> Service<'a, M, C, P, S>
where
    M: Machine,
    C: Counter,
    P: FramePort,
    S: SerialPort,
{
    /// Puts the service together. The first port is the console.
    pub fn new(
        mut machine: M,
        clock: Clock<'a, C>,
        port: Option<P>,
        memory: Memory<'a>,
        [first, second]: [Console<'a, S>; 2],
        config: Config,
        found: Found<'a>,
    ) -> Self {
        let Memory {
            stack,
            clients,
            http,
            table,
            sources,
        } = memory;
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
        let mut random = Random::new(&mut |take| machine.gather(take));
        let mut network = port.map(|mut port| {
            // Machines that were started alike are not to ask DHCP alike.
            random.mix(&mut |take| take(random::Source::Identity, &port.mac()));
            let seed = random.secret();
            let (ip6, second) = (config.ip6, config.smear_port);
            let mut stack = Stack::new(&mut port, stack, fixed, ip6, second, now, seed);
            // What it says is on its way while the rest is made, and what comes back is there all the sooner.
            stack.poll(&mut port, now);
            Network {
                port,
                stack,
                ntp: 0,
                others: 0,
                tended: uptime.unwrap_or_default(),
            }
        });
        let http = match &mut network {
            // Connections end by the clock; where there is none, there are no connections.
            Some(Network { stack, .. }) if config.http && uptime.is_some() => {
                crate::http::Server::new(stack, http, now)
            }
            _ => crate::http::Server::off(),
        };
        let ntp = Responder::new(
            ntp::Server::new(config.stratum, RESOLUTION),
            &config.policy,
            clients,
            || random.secret(),
        );
        let clock = match config.tai_offset {
            Some(offset) => clock.with_operator_offset(offset),
            None => clock,
        };
        let clock = if config.source.page {
            clock
        } else {
            clock.without_page_time()
        };
        let all = Sources::new(config.source, table, sources, found.absent);
        let mut core = Core {
            machine,
            random,
            clock,
            watch: Watch::new(),
            rate_differs: false,
            duty: Duty::new(config.conditions),
            smear: SmearService::new(config.smear),
            network,
            ntp,
            http,
            history: History::new(),
            life: Life::default(),
            rest: Rest::default(),
            departed: [None; SHARE],
            sources: match config.tai_offset {
                Some(offset) => all.with_operator_offset(offset),
                None => all,
            },
            upstream: config.source.server.map(Upstream::new),
            smear_state: SmearState::default(),
            uptime,
            calibrated: false,
            config,
            found,
        };
        core.follow_page();
        Self {
            core,
            first: Port::new(first, config.serial),
            second: Port::new(second, config.serial2),
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

    /// One round: a batch of frames, an answer over HTTP, what the IP stack has planned, the console. Returns whether more
    /// may be waiting.
    pub fn turn(&mut self) -> bool {
        self.core.calibrate();
        let mut more = self.core.serve_frames();
        self.core.uptime = self.core.machine.uptime();
        more |= self.core.follow_http();
        self.core.follow_network();
        self.core.follow_sources();
        self.core.follow_upstream();
        more |= self.serve_ports();
        more |= self.serve_console();
        self.report();
        more
    }

    /// Waits until something may have come.
    fn rest(&mut self) {
        let rest = self.rest_of_ports();
        if rest.is_zero() {
            core::hint::spin_loop();
        } else {
            self.core.rest(rest);
        }
    }

    /// Takes what was typed. Returns whether there may be more.
    fn serve_console(&mut self) -> bool {
        let Port { console, mode, .. } = &mut self.first;
        if mode.is_time() {
            return false;
        }
        // One line a round, so that nobody else waits for the others.
        if self.shell.is_busy() {
            if console.room() > LINE {
                self.shell.go_on(console, &mut self.core);
            }
            return !console.is_stuck();
        }
        for _ in 0..INPUT {
            let Some(byte) = console.receive() else {
                return false;
            };
            if *mode != Serial::Shell {
                continue;
            }
            let action = self.shell.feed(byte, console, &mut self.core);
            if self.shell.is_busy() {
                break;
            }
            if let Some(action) = action {
                console.drain(PATIENCE);
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
        // A restored machine's timer may be far behind what it was.
        let rest = (self.look_again.zip(self.core.uptime))
            .map_or(Duration::ZERO, |(again, now)| again.saturating_sub(now));
        if (Duration::from_nanos(1)..=LOOK).contains(&rest) {
            return;
        }
        self.look_again = self.core.uptime.map(|uptime| uptime + LOOK);
        self.core.follow_page();
        self.core.follow_random();
        self.core.follow_life();
        self.core.follow_counter();
        self.core.follow_device();
        let now = self.core.state();
        let Some(log) = &mut self.log else {
            if self.core.is_ready() || self.core.is_late() {
                let network = self.core.network.as_ref();
                let ipv6 = network.map(|network| network.stack.known6());
                self.log = Some(Log::new(now, ipv6.unwrap_or_default()));
                // What cannot be printed is lost, here and below: there is nobody else to tell.
                if !self.first.mode.is_time() {
                    let _ = report::boot(&mut self.first.console, &self.core.view());
                    self.prompt();
                }
            }
            return;
        };
        if let Some((before, changes)) = log.look(now, self.core.uptime) {
            self.tell(&before, &now, changes);
        }
    }

    fn prompt(&mut self) {
        if self.first.mode == Serial::Shell {
            let _ = self.shell.prompt(&mut self.first.console);
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
