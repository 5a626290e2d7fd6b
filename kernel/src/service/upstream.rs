//! The NTP server that is followed: the network between it and its client.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;

use gnomon_clock::{Counter, Source, Stamp};

use super::served::{Core, instant};
use crate::machine::Machine;
use crate::net::port::FramePort;
use crate::source::ntp::{Client, Heard};

/// The client, and where its server is.
pub(super) struct Upstream {
    pub(super) client: Client,
    server: Option<Ipv4Addr>,
}

impl Upstream {
    pub(super) const fn new(server: IpAddr) -> Self {
        Self {
            client: Client::new(server),
            server: match server {
                IpAddr::V4(server) => Some(server),
                IpAddr::V6(_) => None,
            },
        }
    }
}

impl<M: Machine, C: Counter, P: FramePort> Core<'_, M, C, P> {
    /// Asks the NTP server if it is due. Comes after the other sources, which look at the marker first.
    pub(super) fn follow_upstream(&mut self) {
        if self.upstream.is_none() {
            return;
        }
        let now = self.uptime.unwrap_or(Duration::ZERO);
        let marker = self.clock.stamp().marker;
        // For random numbers that no copy of this machine has.
        if self.life.now.is_some_and(|life| life.marker() != marker) {
            self.follow_page();
        }
        let Some(upstream) = &mut self.upstream else {
            return;
        };
        let mut said = None;
        if upstream.client.follow(marker, now) {
            let number = self.random.secret();
            said = match (&mut self.network, upstream.server, self.uptime) {
                (None, _, _) => Some("no network device"),
                (_, None, _) => Some("servers are asked over IPv4 only"),
                (_, _, None) => Some("no timer to ask by"),
                (Some(network), _, _) => {
                    network
                        .stack
                        .ask_from(ephemeral(number, self.config.smear_port));
                    None
                }
            };
        }
        let said = said.or_else(|| upstream.client.expire(now));
        if let Some(why) = said {
            self.sources.add(&mut self.clock, Source::Ntp, Err(why));
        }
        self.ask_upstream(now);
    }

    fn ask_upstream(&mut self, now: Duration) {
        if self.upstream_next().is_none_or(|next| now < next) {
            return;
        }
        let (Some(upstream), Some(network)) = (&mut self.upstream, &mut self.network) else {
            return;
        };
        let Some(request) = upstream.client.ask(now, || self.random.secret()) else {
            return;
        };
        let Some(server) = upstream.server else {
            return;
        };
        if network.stack.ask(server, &request, instant(self.uptime)) {
            self.follow_network();
        } else {
            let why = Err("not an address to ask");
            self.sources.add(&mut self.clock, Source::Ntp, why);
        }
    }

    /// When the NTP server has to be looked after next, if it can be at all.
    pub(super) fn upstream_next(&self) -> Option<Duration> {
        let upstream = self.upstream.as_ref()?;
        let network = self.network.as_ref()?;
        self.uptime?;
        // Until there is an address to ask from nothing is due.
        network.stack.address().and(upstream.server)?;
        upstream.client.next()
    }

    /// Whether a request is about to leave: the stack may have to find the server's neighbour first.
    pub(super) fn is_asking(&self) -> bool {
        let upstream = self.upstream.as_ref();
        upstream.is_some_and(|upstream| upstream.client.is_sending())
    }

    /// Notes that the request has left after `before`, if it has.
    pub(super) fn note_departure(&mut self, before: Stamp) {
        if let (Some(upstream), Some(network)) = (&mut self.upstream, &self.network)
            && !network.stack.is_asking()
        {
            upstream.client.sent(before);
        }
    }

    /// Takes the answer that the frame of `arrival` may have brought to the stack.
    #[inline(never)]
    pub(super) fn hear_upstream(&mut self, arrival: Stamp) {
        let (Some(upstream), Some(network)) = (&mut self.upstream, &mut self.network) else {
            return;
        };
        let ours = network.stack.address().map(|own| own.address.octets());
        let Some(answer) = upstream
            .server
            .and_then(|server| network.stack.answer(server))
        else {
            return;
        };
        let heard = upstream.client.hear(answer, arrival, |id| Some(id) == ours);
        let samples = match heard {
            Heard::Nothing => return,
            Heard::Refused(why) => {
                self.sources.add(&mut self.clock, Source::Ntp, Err(why));
                return;
            }
            Heard::Samples(samples) => samples,
        };
        if let Some(upstream) = upstream.client.upstream() {
            self.ntp.set(self.ntp.server().following(upstream));
        }
        self.sources.describe(Source::Ntp, &About(&upstream.client));
        let alarms = self.sources.table().alarms();
        if let Some(better) = samples.better {
            self.sources.refine(&mut self.clock, Source::Ntp, &better);
        }
        if let Some(new) = samples.new {
            self.sources.add(&mut self.clock, Source::Ntp, Ok(&new));
        }
        if self.sources.table().alarms() != alarms {
            self.duty.contradicted(arrival.marker);
        }
    }
}

/// A UDP port of the range for such (RFC 6335 §6) that is not one the service answers on.
fn ephemeral(random: u64, taken: Option<u16>) -> u16 {
    let [low, high, ..] = random.to_le_bytes();
    let port = u16::from_le_bytes([low, high]) | 0xc000;
    if taken == Some(port) { port ^ 1 } else { port }
}

struct About<'a>(&'a Client);

impl fmt::Display for About<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.server())?;
        if let Some(upstream) = self.0.upstream() {
            write!(f, ", stratum {}", upstream.stratum)?;
        }
        write!(f, ", asked every {} s", 1_u32 << self.0.poll().min(17))
    }
}
