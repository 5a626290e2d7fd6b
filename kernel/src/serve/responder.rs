//! The NTP server: who is answered, how often, and what is remembered between two requests.
//!
//! In order, cheapest first: the access list, the datagram itself, the limit, its authentication,
//! and only then the clock. Whatever comes of a datagram is counted.

use core::net::IpAddr;
use core::time::Duration;

use gnomon_clock::Bound;

use super::access::AccessList;
use super::auth::{Authenticator, Keys};
use super::interleave::{Name, Pairs};
use super::limit::{Limit, Limiter, Verdict};
use super::ntp::{self, Answer, Basis, Counters, MacField, Reply, Request, Server, Silence};
use super::secret::{Client, Secret};
use super::times::{Times, Told};

/// What the command line says of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Who is answered.
    pub access: AccessList,
    /// How often; `None` for "always".
    pub limit: Option<Limit>,
    /// The keys that clients may have.
    pub keys: Keys,
    /// Only those who have one are answered.
    pub authenticated_only: bool,
}

impl Policy {
    /// Everybody, always.
    pub const OPEN: Self = Self {
        access: AccessList::OPEN,
        limit: None,
        keys: Keys::NONE,
        authenticated_only: false,
    };
}

/// What is remembered of clients: tens of kilobytes, so the caller says where.
#[derive(Debug)]
pub struct Memory {
    limiter: Limiter,
    pairs: Pairs,
}

impl Memory {
    /// Nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            limiter: Limiter::new(),
            pairs: Pairs::new(),
        }
    }
}

impl Memory {
    /// How many clients the rate limit remembers at `now`, the time since start.
    #[must_use]
    pub fn limited(&self, now: Duration) -> usize {
        self.limiter.remembered(now)
    }

    /// How many replies are remembered for interleaved mode.
    #[must_use]
    pub fn departed(&self) -> usize {
        self.pairs.remembered()
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

/// What to send, and what to do after that.
#[derive(Clone, Copy, Debug)]
pub struct Served<'r> {
    /// The reply.
    pub reply: &'r Reply,
    /// To be handed to [`Responder::sent`] when the reply has left.
    pub pending: Option<&'r Pending>,
}

/// A reply whose departure its client will ask for.
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    name: Name,
    basis: Basis,
}

/// The server.
#[derive(Debug)]
pub struct Responder<'m> {
    server: Server,
    policy: Policy,
    /// For places in tables.
    secret: Secret,
    /// For the numbers of monotonic scales, which are sent: a secret of its own.
    epochs: Secret,
    memory: &'m mut Memory,
    counters: Counters,
    /// The latest reply, made in place: it is long.
    reply: Reply,
    /// What to do when it has left, likewise.
    pending: Option<Pending>,
}

impl<'m> Responder<'m> {
    /// A server with the settings of `server`, which follows `policy` and remembers in `memory`.
    /// `random` is asked a few times, for the secret of this boot.
    pub fn new(
        server: Server,
        policy: &Policy,
        memory: &'m mut Memory,
        mut random: impl FnMut() -> u64,
    ) -> Self {
        let mut responder = Self {
            server,
            policy: *policy,
            secret: Secret::new(&mut random),
            epochs: Secret::new(&mut random),
            memory,
            counters: Counters::default(),
            reply: Reply::BLANK,
            pending: None,
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

    /// What is remembered of clients.
    #[must_use]
    pub const fn memory(&self) -> &Memory {
        self.memory
    }

    /// What came of the datagrams so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Forgets everything about clients and draws the secrets anew: another machine may have the same
    /// memory.
    #[inline(never)]
    pub fn forget(&mut self, mut random: impl FnMut() -> u64) {
        self.memory.limiter.clear();
        self.memory.pairs.clear();
        self.secret = Secret::new(&mut random);
        self.epochs = Secret::new(&mut random);
    }

    /// Serves one datagram at `uptime` (time since start; without it there is no limit). The clock
    /// is asked for `times` only if there will be an answer. `random` are fresh random bits.
    ///
    /// # Errors
    /// The reason for silence.
    pub fn serve(
        &mut self,
        datagram: &Datagram<'_>,
        uptime: Option<Duration>,
        times: impl FnOnce() -> Told,
        random: u64,
    ) -> Result<Served<'_>, Silence> {
        self.pending = None;
        match self.decide(datagram, uptime, times, random) {
            Ok(()) => {
                self.counters.count(Ok(self.reply.answer));
                Ok(Served {
                    reply: &self.reply,
                    pending: self.pending.as_ref(),
                })
            }
            Err(silence) => {
                self.counters.count(Err(silence));
                Err(silence)
            }
        }
    }

    /// Keeps when a reply left, for its client to ask: `after` the stamp from before the device had it, of which
    /// `told` is what there is to tell, as if it were an arrival.
    pub fn sent(&mut self, pending: &Pending, told: impl Into<Told>, after: Bound) {
        let Pending { name, basis } = pending;
        if let Some(departure) = ntp::departure(self.server, name.receive, basis, told, after) {
            self.memory
                .pairs
                .keep(&self.secret, basis.marker, name, departure);
        }
    }

    /// Makes the reply.
    #[inline]
    fn decide(
        &mut self,
        datagram: &Datagram<'_>,
        uptime: Option<Duration>,
        times: impl FnOnce() -> Told,
        random: u64,
    ) -> Result<(), Silence> {
        if !self.policy.access.permits(&datagram.source) {
            return Err(Silence::Access);
        }
        let request = Request::parse(datagram.payload, datagram.port)?;
        let kiss = match self.judge(datagram.source, uptime, random) {
            Verdict::Pass => false,
            // Nobody who authenticates heeds a kiss that is not authenticated.
            Verdict::Kiss if request.mac().is_none() => true,
            Verdict::Kiss | Verdict::Drop => return Err(Silence::Limit),
        };
        let mut key = None;
        if let Some(field) = request.mac() {
            self.authenticate(field, datagram.payload, &mut key)?;
        } else if self.policy.authenticated_only {
            return Err(Silence::Unauthenticated);
        }
        let told = times();
        self.reply.fill(self.server, &request, &told, random)?;
        match &told {
            _ if kiss && self.reply.answer != Answer::Time => return Err(Silence::Limit),
            _ if kiss => self.reply.kiss_rate(),
            Told::Times(times) if self.reply.answer == Answer::Time && request.wants_more() => {
                self.extend(&request, datagram.source, times);
            }
            _ => {}
        }
        if let Some((id, authenticator)) = key {
            self.reply.authenticate(id, &authenticator);
            self.counters.authenticated = self.counters.authenticated.wrapping_add(1);
        }
        Ok(())
    }

    /// Adds to the reply, which has the time, what its request asks for beyond that.
    fn extend(&mut self, request: &Request, source: IpAddr, times: &Times) {
        let (marker, ahead) = (times.marker, times.ahead);
        if let Some(receive) = request.names_receive_stamp() {
            let named = Name {
                client: Client::from(source),
                receive,
                scale: times.reference_id,
            };
            if let Some(departure) = self.memory.pairs.take(&self.secret, marker, &named) {
                self.reply.interleave(request, departure);
                self.counters.interleaved = self.counters.interleaved.wrapping_add(1);
            }
            let name = Name {
                receive: self.reply.receive(),
                ..named
            };
            let basis = Basis::of(times);
            self.pending = Some(Pending { name, basis });
        }
        if request.wants_mono_root() {
            let seconds = ahead.unwrap_or(0).cast_unsigned();
            let epoch = self.epochs.hash(marker, seconds);
            self.reply.add_mono_root(upper(epoch), ahead);
            self.counters.mono_root = self.counters.mono_root.wrapping_add(1);
        }
    }

    /// Checks who sent the request, and leaves its key for the reply in `key`. (Through a reference,
    /// because the round keys are long and mostly there are none.)
    #[inline(never)]
    fn authenticate(
        &self,
        field: MacField,
        payload: &[u8],
        key: &mut Option<(u32, Authenticator)>,
    ) -> Result<(), Silence> {
        let (message, mac) = payload
            .split_at_checked(field.covered)
            .ok_or(Silence::Mac)?;
        let tag = *mac.last_chunk().ok_or(Silence::Mac)?;
        let found = self.policy.keys.find(field.key).ok_or(Silence::Mac)?;
        let (_, authenticator) = key.insert((found.id(), found.authenticator()));
        if authenticator.verifies(&[message], tag) {
            Ok(())
        } else {
            Err(Silence::Mac)
        }
    }

    #[inline]
    fn judge(&mut self, client: IpAddr, uptime: Option<Duration>, random: u64) -> Verdict {
        let (Some(limit), Some(now)) = (self.policy.limit, uptime) else {
            return Verdict::Pass;
        };
        self.memory
            .limiter
            .judge(limit, &self.secret, client, now, random)
    }
}

fn upper(word: u64) -> u32 {
    u32::try_from(word >> 32).unwrap_or(0)
}
