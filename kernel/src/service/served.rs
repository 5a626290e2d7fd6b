//! What is served: the clock, the NTP server and the network around them.

use core::time::Duration;

use gnomon_clock::{Bound, Clock, Counter, NoTime, Period, Reading, Span, Stamp};
use smoltcp::time::Instant;

use super::Found;
use super::departures::Departures;
use super::idle::{Rest, SPIN};
use super::log::{Known, SmearState, State};
use super::upstream::Upstream;
use crate::config::{Config, Smearing};
use crate::duty::{Duty, Incarnation, OnViolation, Withheld};
use crate::http::{self, history::History};
use crate::machine::Machine;
use crate::median::median;
use crate::net::port::{Frame, FramePort};
use crate::net::stack::Stack;
use crate::net::{self, frame};
use crate::random::{Random, Source};
use crate::report::{NetView, SmearView, View};
use crate::serve::ntp::{self, Silence};
use crate::serve::responder::{Datagram, Responder, Served};
use crate::serve::times::{SmearService, Told};
use crate::services::counters::Watch;
use crate::shell::{Desk, Meter, Subject};
use crate::source::Sources;

/// Frames that are looked at before everything else gets its turn.
const BATCH: usize = 32;
/// Replies that may share a notification of the device. It costs as much as several replies, and the first
/// of them waits for the last, with a transmit stamp from before: a few microseconds at most.
pub(super) const SHARE: usize = 8;
/// Reads in that measurement. Many, so that emulators have translated the code.
const READS: usize = 256;
/// When the boot report is printed at the latest, whatever is still missing by then.
const REPORT_DEADLINE: Duration = Duration::from_millis(1500);
/// A bound with which it is not known any more which second it is.
const WORST: Bound = Bound::from_nanos(500_000_000);
/// How often the network device is looked after. A look is a trip to the host.
const TEND: Duration = Duration::from_secs(1);
/// How long the network is left alone after it was started over.
const RESTART_PACE: Duration = Duration::from_secs(1);

/// What is served.
pub(super) struct Core<'a, M, C, P> {
    pub(super) machine: M,
    pub(super) random: Random,
    pub(super) clock: Clock<'a, C>,
    /// The counter's two views.
    pub(super) watch: Watch,
    /// The machine and the page, when it could last be read, say different things of its rate.
    pub(super) rate_differs: bool,
    pub(super) duty: Duty,
    pub(super) smear: SmearService,
    pub(super) network: Option<Network<'a, P>>,
    pub(super) ntp: Responder<'a>,
    pub(super) http: http::Server,
    pub(super) history: History,
    pub(super) life: Life,
    pub(super) rest: Rest,
    pub(super) departures: Departures,
    pub(super) sources: Sources<'a>,
    /// The NTP server that is followed, if the command line names one.
    pub(super) upstream: Option<Upstream>,
    /// At the last reading.
    pub(super) smear_state: SmearState,
    /// Time since start as this round began to look.
    pub(super) uptime: Option<Duration>,
    /// The precision has been measured.
    pub(super) calibrated: bool,
    pub(super) config: Config,
    pub(super) found: Found<'a>,
}

/// Which life of the machine this is, and what was done about it.
#[derive(Clone, Copy, Default)]
pub(super) struct Life {
    pub(super) now: Option<Incarnation>,
    /// How many have begun since the start.
    pub(super) begun: u64,
    /// The network does not know of it yet.
    pub(super) network_is_old: bool,
    /// When the network was last started over.
    pub(super) restarted: Option<Duration>,
}

/// The network device and the IP stack on it.
pub(super) struct Network<'a, P> {
    pub(super) port: P,
    pub(super) stack: Stack<'a>,
    /// Frames that were NTP requests.
    pub(super) ntp: u64,
    /// Frames that the IP stack was given.
    pub(super) others: u64,
    /// When the device was last looked after.
    pub(super) tended: Duration,
}

/// What it takes to tell a client the time.
pub(super) struct Teller<'t, 'a, C> {
    pub(super) clock: &'t mut Clock<'a, C>,
    pub(super) duty: &'t mut Duty,
    pub(super) smear: &'t mut SmearService,
}

impl<C: Counter> Teller<'_, '_, C> {
    /// What there is to tell of an arrival and of now. Out of line, since it is a good part of a reply's
    /// whole way and has two callers.
    #[inline(never)]
    pub(super) fn tell(&mut self, arrival: Stamp, is_smeared: bool) -> Told {
        if let Err(why) = self.clock.exchange_in_place(arrival) {
            return Told::from(&why);
        }
        let Some(exchange) = self.clock.exchanged() else {
            return Told::Silence(Silence::Stale);
        };
        let (audit, stepped) = (self.clock.audit(), self.clock.has_stepped());
        match self.duty.judge(&exchange.transmit, audit, stepped) {
            Some(why) => Told::from(why),
            None if is_smeared => self.smear.tell(exchange),
            None => Told::plain(exchange),
        }
    }
}

impl<M: Machine, C: Counter, P: FramePort> Core<'_, M, C, P> {
    /// Takes a batch of frames. Returns whether there may be more.
    #[inline(never)]
    pub(super) fn serve_frames(&mut self) -> bool {
        // Who wants no time by a counter that was moved gets none: not even in the first frames after
        // a pause.
        if self.config.conditions.on_violation == OnViolation::Stop {
            self.follow_counter();
        }
        self.follow_departures();
        for number in 1..=BATCH {
            let received = self.network.as_mut().and_then(|net| net.port.receive());
            let Some(received) = received else {
                if number > 1 {
                    self.kick();
                }
                if self.see_off() {
                    continue;
                }
                return false;
            };
            let stamp = self.clock.stamp();
            self.rest.frame = Some(stamp.ticks);
            // Before anything that is remembered of this client is used.
            let life = self.life.now;
            if life.is_some_and(|life| life.marker() != stamp.marker) {
                self.follow_page();
            }
            self.serve_frame(received, stamp);
            if number % SHARE == 0 {
                self.kick();
                self.remember_departures(None);
            }
        }
        true
    }

    #[inline(never)]
    fn kick(&mut self) {
        if let Some(network) = &mut self.network {
            network.port.kick();
        }
    }

    /// Answers an NTP request in place, or hands the frame to the stack.
    fn serve_frame(&mut self, mut received: P::Frame, stamp: Stamp) {
        let Some(Network {
            port,
            stack,
            ntp,
            others,
            ..
        }) = &mut self.network
        else {
            return;
        };
        let services = [Some(ntp::PORT), self.config.smear_port];
        let service =
            frame::udp_port(received.bytes()).filter(|port| services.contains(&Some(*port)));
        let ours = stack.addresses();
        let request = service.and_then(|service| {
            frame::udp_request(received.bytes_mut(), port.mac(), ours, service)
        });
        let Some(request) = request else {
            *others += 1;
            stack.take(port, received, instant(self.uptime));
            self.hear_upstream(stamp);
            return;
        };
        *ntp += 1;
        // Without a port of its own, the smeared service is the only one.
        let own_port = self.config.smear_port;
        let is_smeared =
            self.config.smear != Smearing::Off && (own_port.is_none() || service == own_port);
        let datagram = Datagram {
            source: request.source(),
            port: request.source_port(),
            payload: request.payload(),
        };
        let random = self.random.filler();
        let mut teller = Teller {
            clock: &mut self.clock,
            duty: &mut self.duty,
            smear: &mut self.smear,
        };
        let times = || teller.tell(stamp, is_smeared);
        let served = self.ntp.serve(&datagram, self.uptime, times, random);
        let Ok(Served { reply, pending }) = served else {
            return port.release(received);
        };
        let Some(length) = request.answer(&reply.packet, reply.tail()) else {
            return port.release(received);
        };
        received.set_length(length);
        if let Some(pending) = pending {
            // Before the device can have it, since it may send at once.
            let queued = self.clock.stamp();
            self.departures.add(pending, queued, is_smeared);
        }
        port.send(received);
    }

    /// Looks whether the page tells of another life of this machine.
    pub(super) fn follow_page(&mut self) {
        let Some(Ok(fields)) = self.clock.fields() else {
            return;
        };
        let next = Incarnation::new(fields.disruption_marker, fields.vm_generation());
        let before = self.life.now.replace(next);
        if before.is_some_and(|before| before.is_ended_by(&next)) {
            self.life.begun += 1;
            let machine = &mut self.machine;
            self.random.renew(&mut |take| {
                // Copies of this machine have the same pool; where they have nothing else, this
                // tells them apart.
                take(Source::Identity, &next.to_bytes());
                machine.gather(take);
            });
            self.forget_clients();
        }
    }

    /// Mixes in random numbers that took their time.
    pub(super) fn follow_random(&mut self) {
        let machine = &mut self.machine;
        if self.random.catch_up(&mut |take| machine.gather_late(take)) {
            self.forget_clients();
        }
    }

    /// Forgets everything that is remembered of clients or was drawn at random: another machine may
    /// have the same memory, and clients may have met that one meanwhile.
    fn forget_clients(&mut self) {
        self.ntp.forget(|| self.random.secret());
        if let Some(Network { stack, .. }) = &mut self.network {
            self.http.cut_all(stack);
        }
        self.departures = Departures::NONE;
        // The IP stack follows in `follow_life`.
        self.life.network_is_old = true;
    }

    /// Lets the network know of another life, but not all the time.
    pub(super) fn follow_life(&mut self) {
        let rested = match (self.uptime, self.life.restarted) {
            // On another host the timer may be behind.
            (Some(uptime), Some(restarted)) => {
                uptime >= restarted + RESTART_PACE || uptime < restarted
            }
            _ => true,
        };
        if !self.life.network_is_old || !rested {
            return;
        }
        self.life.network_is_old = false;
        self.life.restarted = self.uptime;
        let random = self.random.secret();
        if let Some(Network { port, stack, .. }) = &mut self.network {
            stack.restart(port, instant(self.uptime), random);
        }
        self.follow_network();
    }

    /// Looks after the network device. Where nothing tells how time passes it is left as it is.
    pub(super) fn follow_device(&mut self) {
        if let (
            Some(Network { port, tended, .. }),
            Some(uptime),
        ) = (&mut self.network, self.uptime)
            // On another host the timer may be behind.
            && (uptime >= *tended + TEND || uptime < *tended)
        {
            *tended = uptime;
            port.tend();
        }
    }

    /// Asks the sources of time that are due.
    pub(super) fn follow_sources(&mut self) {
        let alarms = self.sources.table().alarms();
        let services = self.found.services;
        let hertz = || services.rate()?.as_exact();
        let (clock, uptime) = (&mut self.clock, self.uptime);
        self.sources.follow(clock, uptime, hertz);
        self.sources
            .calibrate(clock, uptime, || self.machine.power_timer());
        if self.sources.table().alarms() != alarms {
            self.duty.contradicted(self.clock.stamp().marker);
        }
    }

    /// Looks whether the host has moved one of the counter's two views and kept quiet about it.
    #[inline(never)]
    pub(super) fn follow_counter(&mut self) {
        let before = self.clock.stamp();
        let Some(physical) = self.machine.physical_counter() else {
            return;
        };
        if let Some(shift) = self.watch.look(before, physical, self.clock.stamp()) {
            self.duty.counter_moved(shift.marker);
        }
    }

    /// Does what the IP stack has planned.
    pub(super) fn follow_network(&mut self) {
        let before = self.is_asking().then(|| self.clock.stamp());
        let now = instant(self.uptime);
        if let Some(Network { port, stack, .. }) = &mut self.network
            && stack.is_due(now)
        {
            // Before anything is sent that was filled in earlier.
            self.http.guard(stack, self.clock.stamp().marker);
            stack.poll(port, now);
        }
        if let Some(before) = before {
            self.note_departure(before);
        }
    }

    /// Measures once how finely the clock can be read, as soon as a page says how long a tick is.
    pub(super) fn calibrate(&mut self) {
        if self.calibrated {
            return;
        }
        let Some(period) = self.period() else {
            return;
        };
        let mut cost = [0; READS];
        for cost in &mut cost {
            let before = self.clock.stamp().ticks;
            *cost = self.clock.stamp().ticks.since(before);
        }
        // The median: the longest are interruptions, and a counter that moves in steps of many ticks
        // gives zeros.
        let ticks = median(&mut cost).max(1);
        let resolution = period.span_outward(ticks).nanos();
        let server = ntp::Server::new(self.config.stratum, resolution);
        let upstream = self.upstream.as_ref();
        self.ntp.set(
            match upstream.and_then(|upstream| upstream.client.upstream()) {
                Some(upstream) => server.following(upstream),
                None => server,
            },
        );
        let (spin, tick) = (SPIN.as_nanos(), period.span_outward(1 << 20).units());
        let ticks = ((spin * ((1 << 64) / 1_000_000_000)) << 20).checked_div(tick);
        self.rest.spin = ticks
            .and_then(|ticks| i64::try_from(ticks).ok())
            .unwrap_or(0);
        self.calibrated = true;
    }

    /// How long a tick is, by the line that the time is on.
    fn period(&mut self) -> Option<Period> {
        self.clock.now().ok()?;
        self.clock.period()
    }

    /// Everything that the log tells the changes of, at this moment.
    pub(super) fn state(&mut self) -> State {
        let reading = self.clock.reading();
        if let Ok(reading) = &reading {
            let now = self.smear.at(reading);
            self.smear_state = SmearState {
                in_force: now.map(|(smear, _)| smear),
                is_off_utc: now.is_some_and(|(_, smeared)| smeared.offset != Span::ZERO),
            };
        }
        let alarm = self.config.conditions.on_violation != OnViolation::Serve;
        State {
            alarms: if alarm {
                self.sources.table().alarms()
            } else {
                0
            },
            time: match reading {
                Ok(Reading {
                    status,
                    marker,
                    origin,
                    ..
                }) => Known::Time {
                    status,
                    marker,
                    origin,
                },
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
            addresses: self.network.as_ref().map_or(0, |net| net.stack.changes()),
            device: self
                .network
                .as_ref()
                .map(|net| net.port.health())
                .unwrap_or_default(),
            is_mute: self.rest.is_mute(),
            lives: self.life.begun,
            shifts: if alarm { self.watch.shifts() } else { 0 },
            rate_differs: self.rate_differs(),
        }
    }

    /// Whether the machine and the page say different things of the counter's rate.
    fn rate_differs(&mut self) -> bool {
        // A page that is just being written has said nothing new.
        let page = self.clock.fields().and_then(Result::ok);
        if let Some((rate, page)) = self.found.services.rate().zip(page) {
            self.rate_differs = rate.contradicts(&page);
        }
        self.rate_differs
    }

    fn withheld(&mut self, reading: &Result<Reading, NoTime>) -> Option<Withheld> {
        self.judge(reading.as_ref().ok()?)
    }

    fn judge(&mut self, reading: &Reading) -> Option<Withheld> {
        let (audit, stepped) = (self.clock.audit(), self.clock.has_stepped());
        self.duty.judge(reading, audit, stepped)
    }

    /// The time for programs on a serial line, if there is one that NTP clients would be told, too.
    pub(super) fn told(&mut self) -> Option<Reading> {
        let reading = self.clock.reading().ok()?;
        let is_told = reading.bound < WORST && self.judge(&reading).is_none();
        is_told.then_some(reading)
    }

    pub(super) fn is_ready(&mut self) -> bool {
        self.network
            .as_ref()
            .is_none_or(|network| network.stack.address().is_some())
            && self.clock.now().is_ok()
    }

    pub(super) fn is_late(&self) -> bool {
        self.uptime.is_none_or(|uptime| uptime >= REPORT_DEADLINE)
    }

    /// Everything there is to tell at this moment.
    pub(super) fn view(&mut self) -> View<'_> {
        self.look().0
    }

    /// That, and the clock it is by.
    fn look(&mut self) -> (View<'_>, &dyn Meter) {
        let reading = self.clock.reading();
        let withheld = self.withheld(&reading);
        let asked = self.config.smear;
        let smear = (asked != Smearing::Off).then(|| SmearView {
            asked,
            port: self.config.smear_port.unwrap_or(ntp::PORT),
            now: reading.ok().and_then(|reading| self.smear.at(&reading)),
        });
        let view = View {
            machine: self.found.machine,
            uptime: self.machine.uptime().map(nanoseconds),
            reading,
            page: self.found.page,
            fields: self.clock.fields(),
            counter: C::ID,
            net: match &self.network {
                Some(network) => Ok(network.view(self.found.nic, self.rest.is_mute())),
                None => Err(self.found.nic),
            },
            server: self.ntp.server(),
            ntp: self.ntp.counters(),
            clients: self.ntp.memory(),
            connections: self.http.connections(),
            withheld,
            duty: &self.duty,
            audit: self.clock.audit(),
            smear,
            idle: self.config.idle,
            rested: self.rest.counted,
            sources: self.sources.table(),
            services: self.found.services,
            watch: &self.watch,
            random: self.random.sources(),
        };
        (view, &self.clock)
    }
}

impl<M: Machine, C: Counter, P: FramePort> Subject for Core<'_, M, C, P> {
    fn desk(&mut self) -> Desk<'_> {
        let facts = self.found.facts;
        let (view, clock) = self.look();
        Desk {
            view,
            facts,
            meter: clock,
        }
    }
}

impl<P: FramePort> Network<'_, P> {
    fn view<'v>(&self, nic: &'v str, is_mute: bool) -> NetView<'v> {
        let address = self.stack.address();
        let counters = self.port.counters();
        NetView {
            nic,
            mac: self.port.mac(),
            address: address.map(|address| (address.address, address.prefix)),
            gateway: address.and_then(|address| address.gateway),
            dhcp: self.stack.uses_dhcp(),
            ipv6: self.stack.known6(),
            frames: net::Counters {
                received: counters.received,
                sent: counters.sent,
                dropped: counters.dropped,
                kicks: counters.kicks,
                lies: counters.lies,
                ntp: self.ntp,
                stack: self.others,
            },
            health: self.port.health(),
            is_mute,
        }
    }
}

pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn instant(uptime: Option<Duration>) -> Instant {
    Instant::from_micros(uptime.map_or(0, |uptime| {
        i64::try_from(uptime.as_micros()).unwrap_or(i64::MAX)
    }))
}
