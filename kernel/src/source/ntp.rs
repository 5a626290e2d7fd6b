//! An NTP server as a source: when it is asked, and what of its answers is believed.
//!
//! No input or output happens here. Whoever has the network asks [`Client::ask`] for a request, says when it
//! left ([`Client::sent`]), and hands in what came from the server's address and port
//! ([`Client::hear`]).
//!
//! # What is sent
//!
//! NTP version 4, mode 3, 48 bytes. The transmit stamp is a random number for each request, and nothing says what
//! time it is here, or how long the machine has been up.
//!
//! # What is believed
//!
//! One reply to each request, the first that returns its random number before the next request or 2 s are
//! over: a copy, a late one, and one that somebody made who has not seen the request are ignored. Then, in
//! this order (RFC 5905 §8 and appendix A.5.1.1):
//!
//! | Reply | Outcome |
//! |---|---|
//! | not 48 bytes, not mode 4, not version 3 or 4 | ignored, and the true one waited for |
//! | stratum 0 | a kiss; see below |
//! | leap indicator 3; stratum above 14, since ours is one more | refused |
//! | stratum above 1, and the reference id is an address of ours | refused: a loop |
//! | root distance 1.5 s or more, with precision and roundings | refused |
//! | receive or transmit stamp zero, transmit before receive or 4 s after it, reference after both | refused |
//!
//! A refused reply is no sample. A line that there is stays, and its bound grows.
//!
//! # The bound
//!
//! While it handled a request the server read its clock twice: T2 when it had it, T3 before the reply left.
//! With e its root distance and precision, true time was at most T2 + e when the request had not left yet, and at
//! least T3 − e when the reply was here. That is the claim of one [`CrossTimestamp`], between the stamp before the
//! request left and that of the arrival, of the time (T2 + T3)/2 and the error e − (T3 − T2)/2. If the
//! latter is negative, an error of 0 claims less, and is used. So what the server takes for the reply is not in
//! the bound, and the path is, wherever the delay was.
//!
//! T2 is to be from after the request arrived, and T3 from before the reply left; a server that misses
//! either by more than its precision is at fault. If T3 − T2 is longer than the whole exchange, the estimator finds
//! a contradiction.
//!
//! **Interleaved mode** (RFC 9769). T3 in a reply is from before the reply was sent. Each request names the
//! receive stamp of the reply before it, and a server that can tells when that one *really* left. Its reply has a
//! second random number of the request for its origin, and says nothing of its own departure. It gives two
//! samples: the exchange before with the better T3, and its own by T2 alone. The former is not
//! independent of the sample that the same exchange gave already ([`Samples::better`]). After a request
//! without an answer the next one is in basic mode, so what is paired is always two exchanges in a row.
//!
//! **Eras**: [`FLOOR`]. **Leap seconds**: as the leap indicator says, for the end of the month. NTP does not
//! tell TAI − UTC. A server whose reference id is one of a service that smears counts as smeared
//! ([`SourceTime::PerhapsSmeared`]); another that does so cannot be told.
//!
//! # When it is asked
//!
//! | | Requests |
//! |---|---|
//! | at the start, and after a disruption | 4, 2 s apart (two give a line), then every 16 s |
//! | steady | every 8 answers half as often, down to every 64 s; on to 1024 s as long as the wander from one to the next is no more than the server's own error |
//! | no answer | 2 s later; that is told from the fourth in a row on, and each next one is half as soon, down to every 256 s |
//! | answers again after that | 4, 2 s apart |
//! | `RATE` | half as often from then on for good, or as the kiss says if that is less; no more bursts |
//! | `DENY`, `RSTR` | never again in this life of the program, and that is told |
//! | `INIT`, `STEP`, any other kiss | as after a good answer |
//!
//! Never sooner than 2 s after the request before (16 s after a `RATE`), however often the machine is disrupted. Polls
//! vary by a sixteenth, so that machines that were restored together do not stay together.

use core::net::IpAddr;
use core::time::Duration;

use gnomon_clock::{Bound, Bracket, ClockStatus, CrossTimestamp, SourceTime, Span, Stamp};

use crate::serve::ntp::Upstream;

mod packet;

use packet::{Kiss, MAX_TURNAROUND, Reply, Request, Told, Verdict, is_after};

pub use packet::{FLOOR, HEADER, MAX_DISTANCE, utc};

/// What the client has to say to a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It is not the answer that is waited for.
    Nothing,
    /// The server has no time, or not for us.
    Refused(&'static str),
    /// The time.
    Samples(Samples),
}

/// What an answer tells of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Samples {
    /// In interleaved mode the exchange before once more, and better. Comes first.
    pub better: Option<CrossTimestamp>,
    /// The exchange itself; `None` if a disruption came between.
    pub new: Option<CrossTimestamp>,
}

/// A client of one server.
#[derive(Clone, Debug)]
pub struct Client {
    server: IpAddr,
    /// The disruption marker that everything here is from.
    marker: Option<u64>,
    /// Requests 2 s apart that are left.
    burst: u8,
    /// Log2 of the seconds between requests.
    poll: u8,
    /// `poll` is not less than this.
    floor: u8,
    /// Good answers since `poll` changed.
    steady: u8,
    /// Requests in a row without an answer.
    unanswered: u8,
    /// When the next request is due; `None` if the server wants none.
    due: Option<Duration>,
    /// When the last one was made.
    last: Option<Duration>,
    open: Option<Open>,
    previous: Option<Exchange>,
    upstream: Option<Upstream>,
}

/// A request that is not answered yet.
#[derive(Clone, Copy, Debug)]
struct Open {
    /// Its random numbers.
    transmit: u64,
    receive: Option<u64>,
    /// `None` while it has not left.
    before: Option<Stamp>,
    asked: Duration,
}

/// An exchange that gave a sample.
#[derive(Clone, Copy, Debug)]
struct Exchange {
    before: Stamp,
    after: Stamp,
    told: Told,
}

impl Client {
    /// A client that has not asked yet. It does not begin before [`follow`](Self::follow).
    #[must_use]
    pub const fn new(server: IpAddr) -> Self {
        Self {
            server,
            marker: None,
            burst: 0,
            poll: MIN_POLL,
            floor: MIN_POLL,
            steady: 0,
            unanswered: 0,
            due: Some(Duration::MAX),
            last: None,
            open: None,
            previous: None,
            upstream: None,
        }
    }

    /// The server's address.
    #[must_use]
    pub const fn server(&self) -> IpAddr {
        self.server
    }

    /// What to announce of it to our own clients, by its last good answer.
    #[must_use]
    pub const fn upstream(&self) -> Option<Upstream> {
        self.upstream
    }

    /// Log2 of the seconds between requests.
    #[must_use]
    pub const fn poll(&self) -> u8 {
        self.poll
    }

    /// Whether the server has asked not to be asked.
    #[must_use]
    pub const fn is_denied(&self) -> bool {
        self.due.is_none()
    }

    /// When there is something to do next, in time since the start; `None` if never.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        let due = self.due?;
        Some(match self.open {
            Some(open) => open.asked + PATIENCE,
            None => due,
        })
    }

    /// Looks at the disruption marker. If it is another one, what was under way is forgotten and everything
    /// begins anew; returns whether that is so.
    pub fn follow(&mut self, marker: u64, now: Duration) -> bool {
        if self.marker == Some(marker) {
            return false;
        }
        self.marker = Some(marker);
        self.open = None;
        self.previous = None;
        self.steady = 0;
        self.unanswered = 0;
        self.poll = self.floor;
        self.burst = self.burst();
        if self.due.is_some() {
            // On another host the timer may be behind.
            let last = self.last.filter(|last| *last <= now);
            let rested = last.map_or(now, |last| last + self.pace());
            self.due = Some(now.max(rested));
        }
        true
    }

    /// Gives up a request whose answer does not come. The reason is told when it is the fourth in a row, or a
    /// later one.
    pub fn expire(&mut self, now: Duration) -> Option<&'static str> {
        let open = self.open.filter(|open| now >= open.asked + PATIENCE)?;
        self.open = None;
        // The server may have forgotten it, or the answer that named it is lost.
        self.previous = None;
        self.unanswered = self.unanswered.saturating_add(1);
        let wait = if self.burst > 0 {
            SPACING
        } else {
            let exponent = (1 + self.unanswered.saturating_sub(BURST)).min(MAX_SILENT_POLL);
            seconds(exponent.max(if self.is_kissed() { self.floor } else { 0 }))
        };
        self.plan(open, wait);
        (self.unanswered >= TELLING).then_some("the server does not answer")
    }

    /// Makes a request if one is due and none is open.
    pub fn ask(&mut self, now: Duration, mut random: impl FnMut() -> u64) -> Option<[u8; HEADER]> {
        if self.open.is_some() || self.due.is_none_or(|due| now < due) {
            return None;
        }
        let transmit = random();
        // Two different ones, neither of them zero, which a server may have for "nothing".
        let transmit = if transmit == 0 { 1 } else { transmit };
        let receive = self.previous.map(|_| match random() {
            0 => transmit.reverse_bits() ^ 2,
            other if other == transmit => transmit ^ 2,
            other => other,
        });
        self.open = Some(Open {
            transmit,
            receive,
            before: None,
            asked: now,
        });
        self.last = Some(now);
        self.burst = self.burst.saturating_sub(1);
        let request = Request {
            origin: self.previous.map_or(0, |previous| previous.told.receive),
            receive: receive.unwrap_or(0),
            transmit,
            poll: self.poll,
        };
        Some(request.to_bytes())
    }

    /// Whether there is a request that has not left.
    #[must_use]
    pub fn is_sending(&self) -> bool {
        self.open.is_some_and(|open| open.before.is_none())
    }

    /// The request has left, after this stamp.
    pub fn sent(&mut self, before: Stamp) {
        if let Some(open) = &mut self.open {
            open.before = Some(before);
        }
    }

    /// Takes a datagram that came from the server's address and port at `arrival`. `is_ours` is asked
    /// whether four bytes are an IPv4 address of this machine's.
    pub fn hear(
        &mut self,
        payload: &[u8],
        arrival: Stamp,
        is_ours: impl FnOnce([u8; 4]) -> bool,
    ) -> Heard {
        let Some((open, before, reply, is_interleaved)) = self.answered(payload) else {
            return Heard::Nothing;
        };
        // Of another life: this one's begins when `follow` sees it.
        if self.marker != Some(arrival.marker) {
            return Heard::Nothing;
        }
        self.open = None;
        let previous = self.previous.take();
        let told = match reply.judge(is_ours) {
            Verdict::Time(told) => told,
            Verdict::Refused(why) => {
                self.proceed(open);
                return Heard::Refused(why);
            }
            Verdict::Kiss(kiss, poll) => return Heard::Refused(self.obey(kiss, poll, open)),
        };
        let exchange = Exchange {
            before,
            after: arrival,
            told,
        };
        let samples = if is_interleaved {
            // Between them there is no exchange that this client has not seen.
            let Some(previous) = previous.filter(|previous| previous.leads_to(&told)) else {
                self.proceed(open);
                return Heard::Refused("the server's stamps are not in order");
            };
            Samples {
                better: previous.sample(told.transmit, told.error),
                new: exchange.sample(told.receive, told.error),
            }
        } else {
            if !is_turnaround(told.receive, told.transmit) {
                self.proceed(open);
                return Heard::Refused("the server's stamps are not in order");
            }
            Samples {
                better: None,
                new: exchange.sample(told.transmit, told.error),
            }
        };
        self.previous = Some(exchange);
        self.upstream = Some(Upstream {
            stratum: told.stratum,
            reference_id: reference_id(self.server),
        });
        self.settle(told.error);
        self.proceed(open);
        Heard::Samples(samples)
    }

    /// The open request, if the datagram is its answer: when it left, the reply, and whether it is in
    /// interleaved mode.
    fn answered<'p>(&self, payload: &'p [u8]) -> Option<(Open, Stamp, Reply<'p>, bool)> {
        let open = self.open?;
        let reply = Reply::parse(payload)?;
        let before = open.before?;
        let is_interleaved = Some(reply.origin()) == open.receive;
        (is_interleaved || reply.origin() == open.transmit).then_some((
            open,
            before,
            reply,
            is_interleaved,
        ))
    }

    /// Chooses the interval, where the answer's own error is `error`.
    fn settle(&mut self, error: Bound) {
        if self.burst > 0 {
            return;
        }
        let worth = error.nanos() / WANDER;
        let longest = u8::try_from(worth.max(1).ilog2()).unwrap_or(0);
        let longest = longest.clamp(USUAL_POLL, MAX_POLL).max(self.floor);
        self.steady = self.steady.saturating_add(1);
        if self.poll > longest {
            self.poll = longest;
            self.steady = 0;
        } else if self.steady >= STEADY && self.poll < longest {
            self.poll += 1;
            self.steady = 0;
        }
    }

    /// Plans the next request after an answer.
    fn proceed(&mut self, open: Open) {
        if self.unanswered >= TELLING {
            self.poll = self.floor;
            self.burst = self.burst().saturating_sub(1);
        }
        self.unanswered = 0;
        let wait = if self.burst > 0 {
            SPACING
        } else {
            seconds(self.poll)
        };
        self.plan(open, wait);
    }

    /// Does what a kiss asks for, and says what it was.
    fn obey(&mut self, kiss: Kiss, poll: u8, open: Open) -> &'static str {
        match kiss {
            Kiss::Deny => {
                self.due = None;
                "the server wants no requests from here (DENY)"
            }
            Kiss::Rate => {
                self.burst = 0;
                self.floor = (self.poll + 1).max(poll.min(LAST_POLL)).min(LAST_POLL);
                self.poll = self.floor;
                self.steady = 0;
                self.unanswered = 0;
                self.plan(open, seconds(self.poll));
                "the server wants fewer requests (RATE)"
            }
            Kiss::NotYet | Kiss::Other => {
                self.proceed(open);
                match kiss {
                    Kiss::NotYet => "the server has no time yet",
                    _ => "the server has no time",
                }
            }
        }
    }

    fn plan(&mut self, open: Open, wait: Duration) {
        // The random number is not used any more, and is as good as another.
        let share = u32::from(open.transmit.to_le_bytes()[0]);
        let jitter = if wait > SPACING {
            wait * share / (16 * 256)
        } else {
            Duration::ZERO
        };
        if self.due.is_some() {
            self.due = Some(open.asked + wait + jitter);
        }
    }

    /// The least time between two requests.
    fn pace(&self) -> Duration {
        if self.is_kissed() {
            seconds(MIN_POLL)
        } else {
            SPACING
        }
    }

    const fn burst(&self) -> u8 {
        if self.is_kissed() { 1 } else { BURST }
    }

    const fn is_kissed(&self) -> bool {
        self.floor > MIN_POLL
    }
}

impl Exchange {
    /// Whether an interleaved reply that says `next` can follow this one: it tells when this one's reply
    /// left, and its own request came after that.
    fn leads_to(&self, next: &Told) -> bool {
        is_turnaround(self.told.receive, next.transmit) && is_after(next.receive, next.transmit)
    }

    /// The sample of the server's stamps from its receive stamp to `last`, with what the server says of its
    /// error in this reply or in the one that told of `last`.
    fn sample(&self, last: u64, error: Bound) -> Option<CrossTimestamp> {
        // In 2⁻³² s, so half of it in 2⁻³³ s.
        let half = u128::from(last.wrapping_sub(self.told.receive)) << 31;
        let time = utc(self.told.receive).checked_add(Span::from_units(half.cast_signed()))?;
        let error = error.max(self.told.error).units().saturating_sub(half);
        Some(CrossTimestamp {
            bracket: Bracket::new(self.before, self.after)?,
            time: if self.told.may_be_smeared {
                SourceTime::PerhapsSmeared(time)
            } else {
                SourceTime::Utc(time)
            },
            error: Bound::from_units(error),
            tai_offset: None,
            leap: Some(self.told.leap),
            status: ClockStatus::Synchronized,
        })
    }
}

/// Whether a server can have sent its reply at `transmit` to what came at `receive`.
const fn is_turnaround(receive: u64, transmit: u64) -> bool {
    transmit.wrapping_sub(receive) < MAX_TURNAROUND
}

/// The reference id of one that follows the server at `address` (RFC 5905 §7.3): the address, and for IPv6 a
/// hash of it. There it is to be MD5, which we do not have; ours begins with 255, as no IPv4 address does, and the rest is
/// the address folded by exclusive or. It serves to be told from others; a server that follows us and looks
/// for its own MD5 in it will not see a loop.
#[must_use]
pub fn reference_id(address: IpAddr) -> [u8; 4] {
    match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => {
            let mut id = [0; 4];
            for (index, octet) in address.octets().into_iter().enumerate() {
                id[1 + index % 3] ^= octet;
            }
            [255, id[1], id[2], id[3]]
        }
    }
}

fn seconds(exponent: u8) -> Duration {
    Duration::from_secs(1 << exponent.min(LAST_POLL))
}

/// Requests at the start and after a disruption.
const BURST: u8 = 4;
/// Between them, and between any two requests. Servers that limit their clients do not mind it.
const SPACING: Duration = Duration::from_secs(2);
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Unanswered requests in a row that are told.
const TELLING: u8 = 4;

/// Log2 of seconds: the shortest interval after the burst; that of steady operation; the longest; the
/// longest without answers; the longest that a server may ask for (RFC 5905 §7.2).
const MIN_POLL: u8 = 4;
const USUAL_POLL: u8 = 6;
const MAX_POLL: u8 = 10;
const MAX_SILENT_POLL: u8 = 8;
const LAST_POLL: u8 = 17;

/// Good answers after which the interval is doubled.
const STEADY: u8 = 8;
/// By how much a line widens in a second, in ns: the wander of [`Wander::CRYSTAL`](gnomon_clock::Wander::CRYSTAL)
/// in the period, and again about it.
const WANDER: u64 = 100_000;
