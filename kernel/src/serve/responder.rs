//! The NTP server: who is answered, how often, and what is remembered between two requests.
//!
//! In order, cheapest first: the access list, the datagram itself, the limit, and only then the
//! clock. Whatever comes of a datagram is counted.

use core::net::IpAddr;
use core::time::Duration;

use gnomon_clock::{Exchange, NoTime};

use super::access::AccessList;
use super::limit::{Limit, Limiter, Verdict};
use super::ntp::{self, Answer, Counters, Reply, Request, Server, Silence};
use super::secret::Secret;

/// What the command line says of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Who is answered.
    pub access: AccessList,
    /// How often; `None` for "always".
    pub limit: Option<Limit>,
}

impl Policy {
    /// Everybody, always.
    pub const OPEN: Self = Self {
        access: AccessList::OPEN,
        limit: None,
    };
}

/// What is remembered of clients: tens of kilobytes, so the caller says where.
#[derive(Debug)]
pub struct Memory {
    limiter: Limiter,
}

impl Memory {
    /// Nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            limiter: Limiter::new(),
        }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

/// A datagram for the NTP port.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'p> {
    /// Where it says it comes from.
    pub source: IpAddr,
    /// The port there.
    pub port: u16,
    /// Its bytes.
    pub payload: &'p [u8],
}

/// The server.
#[derive(Debug)]
pub struct Responder<'m> {
    server: Server,
    policy: Policy,
    secret: Secret,
    memory: &'m mut Memory,
    counters: Counters,
}

impl<'m> Responder<'m> {
    /// A server with the settings of `server`, which follows `policy` and remembers in `memory`.
    /// `random` is asked a few times, for the secret of this boot.
    pub fn new(
        server: Server,
        policy: &Policy,
        memory: &'m mut Memory,
        random: impl FnMut() -> u64,
    ) -> Self {
        let mut responder = Self {
            server,
            policy: *policy,
            secret: Secret::new(random),
            memory,
            counters: Counters::default(),
        };
        responder.set(server);
        responder
    }

    /// Changes the settings.
    pub fn set(&mut self, server: Server) {
        let poll = self.policy.limit.map_or(0, Limit::poll);
        self.server = server.with_poll(poll);
    }

    /// The settings.
    #[must_use]
    pub const fn server(&self) -> Server {
        self.server
    }

    /// What came of the datagrams so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Serves one datagram at `uptime` (time since start; without it there is no limit). The clock
    /// is asked for `times` only if there will be an answer. `None` means silence. `random` are fresh
    /// random bits.
    pub fn serve(
        &mut self,
        datagram: &Datagram<'_>,
        uptime: Option<Duration>,
        times: impl FnOnce() -> Result<Exchange, NoTime>,
        random: u64,
    ) -> Option<Reply> {
        let outcome = self.decide(datagram, uptime, times, random);
        self.counters.count(&outcome);
        outcome.ok()
    }

    fn decide(
        &mut self,
        datagram: &Datagram<'_>,
        uptime: Option<Duration>,
        times: impl FnOnce() -> Result<Exchange, NoTime>,
        random: u64,
    ) -> Result<Reply, Silence> {
        if !self.policy.access.permits(datagram.source) {
            return Err(Silence::Access);
        }
        let request = Request::parse(datagram.payload, datagram.port)?;
        let kiss = match self.judge(datagram.source, uptime, random) {
            Verdict::Pass => false,
            Verdict::Kiss => true,
            Verdict::Drop => return Err(Silence::Limit),
        };
        let reply = ntp::reply(&self.server, &request, times().as_ref(), random)?;
        if kiss {
            return match reply.answer {
                Answer::Time => Ok(reply.into_rate()),
                _ => Err(Silence::Limit),
            };
        }
        Ok(reply)
    }

    fn judge(&mut self, client: IpAddr, uptime: Option<Duration>, random: u64) -> Verdict {
        let (Some(limit), Some(now)) = (self.policy.limit, uptime) else {
            return Verdict::Pass;
        };
        self.memory
            .limiter
            .judge(limit, &self.secret, client, now, random)
    }
}
