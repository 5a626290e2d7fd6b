//! The NTP protocol: a request's bytes and two readings of the clock in, a reply out.
//!
//! # What is answered
//!
//! | Request | Outcome |
//! |---|---|
//! | shorter than 48 bytes, or not a multiple of 4 | [`Silence::Length`] |
//! | version 0, 5, 6, 7 | [`Silence::Version`] |
//! | mode 3 (client) | mode 4 (server) |
//! | mode 1 (symmetric active, sent by Windows) | mode 2 (symmetric passive) |
//! | version 1, mode 0, not from port 123 (RFC 1059 had no modes) | mode 4 |
//! | any other mode, so also anything that is itself a reply | [`Silence::Mode`] |
//! | v4: well-formed extension fields (RFC 7822) | ignored, but for chrony's 0xF323 |
//! | v4: the same or nothing, then 20 bytes; v1 to v3: 20 bytes | authenticated: [`Request::mac`] |
//! | v4: the same or nothing, then a crypto-NAK or a SHA-1 code; v1 to v3: any other tail | [`Silence::Mac`] |
//! | v4: any other tail | [`Silence::Extension`] |
//! | it arrived before a disruption | [`Silence::Stale`] |
//! | UTC stepped between arrival and reply | [`Silence::UtcStep`] |
//!
//! # What a reply says
//!
//! With time, the fields of RFC 5905 §7.3 are: leap indicator as announced for the end of this very
//! UTC day; stratum 1 unless configured otherwise; poll the request's, raised to our own; root
//! delay 0, since no network lies between us and the host's clock (and what lies between us and an NTP
//! server is in the dispersion); **root dispersion the bound of
//! the error of both stamps**, rounded up; reference id `XVMC` (RFC 5905 leaves codes with an X to
//! experiments) at every stratum, since above 1 it would be an address that we cannot know;
//! reference time the host's last update of the page; origin the request's transmit stamp verbatim.
//!
//! Without time (leap indicator 3, stratum 0) the reference id is a kiss code (§7.4) that says why:
//! [`Answer`]. Receive, transmit and reference stamps are then **zero**, which RFC 5905 §6 defines
//! as "unknown or unsynchronized time": clients refuse the reply by its leap indicator and stratum
//! anyway (chronyd, ntpdig and timesyncd do), and one that does not look gets nothing it could take
//! for a time. The root dispersion is then 16 s, MAXDISP of RFC 5905 §7.2.
//!
//! A client in interleaved mode gets the same with another origin and another transmit stamp:
//! [`interleave`](super::interleave).
//!
//! # Chrony's field 0xF323
//!
//! A client that sends this experimental extension field (`extfield F323`) gets it back with the root
//! dispersion in steps of 3.7 ns, where the header has 15 µs, and with the receive stamp on a second,
//! monotonic scale in a numbered epoch. The client takes a change of the difference between the two
//! scales within an epoch for a step of the server, and corrects by it what it measured
//! before. Our second scale is TAI, which the page carries on without steps for as long as the
//! marker stands; so a new epoch is a disruption, another life of the machine, or a step of UTC.
//! Without TAI, and while a leap second is being smeared, the second stamp is zero, "unknown".
//!
//! A bound grows with the age of the page (freerunning hosts). Once it has reached MAXDISP, no
//! client accepts the reply (the sanity check of RFC 5905 §A.5.1.1 on root distance), so it is
//! sent as [`Answer::Dispersion`] instead.

use gnomon_clock::{Announcement, Bound, Origin, Source, Span};

use super::auth::Authenticator;
use super::interleave::Departure;
use super::times::{Times, Told};
use crate::duty::Withheld;

/// Length of an NTP header, in bytes.
pub const HEADER: usize = 48;
/// Length of the longest tail of a reply, in bytes: one field and a message authentication code.
const TAIL: usize = MONO_ROOT_LENGTH + MAC_128;

/// Settings of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    stratum: u8,
    precision: i8,
    poll: i8,
    upstream: Upstream,
    /// The precision as an interval, rounded up.
    interval: Bound,
    /// The bits of an NTP timestamp that lie below the precision.
    noise_mask: u64,
}

/// The NTP server that is followed while the time comes from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Its stratum, 1..=15.
    pub stratum: u8,
    /// Its IPv4 address, or what RFC 5905 §7.3 makes of an IPv6 address.
    pub reference_id: [u8; 4],
}

impl Server {
    /// A server of `stratum` (taken into 1..=15), whose clock can be read to within
    /// `resolution` nanoseconds: the longest of the time that a read takes and the counter's tick.
    ///
    /// The announced precision is that, rounded up to a power of two seconds within
    /// 2^-29 (1.9 ns) and 2^-1.
    #[must_use]
    pub const fn new(stratum: u8, resolution: u64) -> Self {
        let stratum = if stratum < 1 {
            1
        } else if stratum > 15 {
            15
        } else {
            stratum
        };
        let mut precision: i8 = -29;
        while precision < -1 && NANOS >> precision.unsigned_abs() < resolution {
            precision += 1;
        }
        Self {
            stratum,
            precision,
            poll: MIN_POLL,
            upstream: Upstream {
                stratum: 15,
                reference_id: *b"XNTP",
            },
            interval: Bound::from_nanos((NANOS >> precision.unsigned_abs()) + 1),
            noise_mask: (1 << (32 - precision.unsigned_abs())) - 1,
        }
    }

    /// The same, asking clients not to come more often than every 2^`poll` seconds (taken into
    /// 0..=17).
    #[must_use]
    pub const fn with_poll(self, poll: i8) -> Self {
        let poll = if poll < MIN_POLL {
            MIN_POLL
        } else if poll > MAX_POLL {
            MAX_POLL
        } else {
            poll
        };
        Self { poll, ..self }
    }

    /// The same, following `upstream` while the time comes from an NTP server.
    #[must_use]
    pub const fn following(self, upstream: Upstream) -> Self {
        Self { upstream, ..self }
    }

    /// The stratum and reference id of a reply with these times (RFC 5905 §7.3). A real-time clock is
    /// nobody's reference: its stratum is 10 at least, by which chrony and others name a clock that was
    /// not set by another.
    #[inline]
    const fn rank(self, times: &Times) -> (u8, [u8; 4]) {
        match times.origin {
            Origin::Own(Source::Ntp) => {
                let above = self.upstream.stratum.saturating_add(1);
                (above, self.upstream.reference_id)
            }
            Origin::Own(Source::Rtc) => (
                if self.stratum < RTC_STRATUM {
                    RTC_STRATUM
                } else {
                    self.stratum
                },
                times.reference_id,
            ),
            _ => (self.stratum, times.reference_id),
        }
    }

    /// The stratum announced while the time is good, 1..=15.
    #[must_use]
    pub const fn stratum(&self) -> u8 {
        self.stratum
    }

    /// The precision announced, log2 of seconds, -29..=-1.
    #[must_use]
    pub const fn precision(&self) -> i8 {
        self.precision
    }

    /// The root dispersion in 2^-28 s, rounded up and saturating: an error, and what the precision
    /// adds to it.
    #[inline]
    fn dispersion(&self, error: Bound) -> u32 {
        let error = error.plus(self.interval);
        u32::try_from(error.units().div_ceil(1 << 36)).unwrap_or(u32::MAX)
    }
}

/// A request that deserves an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// 1..=4, echoed in the reply.
    version: u8,
    /// The mode of the reply.
    reply_mode: u8,
    /// Log2 of seconds, as the client has it.
    poll: i8,
    /// The client's transmit stamp: a cookie to return, never a time to use, and so as it is in memory.
    transmit: u64,
    /// Its receive stamp, likewise: the cookie of interleaved mode.
    receive: u64,
    /// The stamp of an earlier reply that the client names.
    origin: u64,
    mono_root: bool,
    mac: Option<MacField>,
}

/// Where a request is authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacField {
    /// The number of the key.
    pub key: u32,
    /// How many bytes of the request are covered: the tag of 16 bytes is 4 bytes behind them, and
    /// ends the request.
    pub covered: usize,
}

impl Request {
    /// Decides whether a datagram is a request to be answered; the table is in the
    /// [module's text](self).
    ///
    /// # Errors
    /// The reason for silence.
    #[inline]
    pub fn parse(payload: &[u8], source_port: u16) -> Result<Self, Silence> {
        let (header, tail) = payload
            .split_first_chunk::<HEADER>()
            .ok_or(Silence::Length)?;
        if !tail.len().is_multiple_of(4) {
            return Err(Silence::Length);
        }
        let version = header[0] >> 3 & 7;
        if !(1..=4).contains(&version) {
            return Err(Silence::Version);
        }
        let reply_mode = match (header[0] & 7, version) {
            (CLIENT, _) => SERVER,
            (SYMMETRIC_ACTIVE, _) => SYMMETRIC_PASSIVE,
            // From port 123 it could be the reply of a server as old: never answer a reply.
            (UNSPECIFIED, 1) if source_port != PORT => SERVER,
            _ => return Err(Silence::Mode),
        };
        let Tail { mono_root, mac } = check_tail(version, tail)?;
        let stamp = |at: usize| {
            let mut stamp = [0; 8];
            stamp.copy_from_slice(&header[at..at + 8]);
            stamp
        };
        Ok(Self {
            version,
            reply_mode,
            poll: header[2].cast_signed(),
            transmit: u64::from_ne_bytes(stamp(40)),
            receive: u64::from_ne_bytes(stamp(32)),
            origin: u64::from_be_bytes(stamp(24)),
            mono_root,
            mac,
        })
    }

    /// Whether more than the header of a reply is asked for, or another header.
    #[must_use]
    #[inline]
    pub fn wants_more(&self) -> bool {
        self.mono_root || self.names_receive_stamp().is_some()
    }

    /// Whether the request carries the extension field 0xF323.
    #[must_use]
    pub const fn wants_mono_root(&self) -> bool {
        self.mono_root
    }

    /// Where the request is authenticated, if it says that it is.
    #[must_use]
    pub const fn mac(&self) -> Option<MacField> {
        self.mac
    }

    /// The receive stamp of an earlier reply, if that is what the client names: then it is in
    /// interleaved mode (RFC 9769 §2), and what it wants is when that reply left.
    #[must_use]
    #[inline]
    pub fn names_receive_stamp(&self) -> Option<u64> {
        let names = self.origin & RECEIVE_BIT != 0
            && self.reply_mode == SERVER
            && self.receive != self.transmit;
        names.then_some(self.origin)
    }
}

/// A reply, ready to send. Not `Copy`, for it is on the hot path and long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The first bytes of the UDP payload.
    pub packet: [u8; HEADER],
    /// What follows, and its length.
    tail: [u8; TAIL],
    tail_length: usize,
    /// What it tells the client.
    pub answer: Answer,
    /// The root dispersion in 2^-28 s, rounded up; meaningless without a time.
    dispersion: u32,
}

impl Reply {
    /// Nothing yet.
    pub(super) const BLANK: Self = Self {
        packet: [0; HEADER],
        tail: [0; TAIL],
        tail_length: 0,
        answer: Answer::Init,
        dispersion: u32::MAX,
    };

    /// Makes this the reply to `request`, in place: [`reply`].
    #[inline]
    pub(super) fn fill(
        &mut self,
        server: Server,
        request: &Request,
        told: &Told,
        random: u64,
    ) -> Result<(), Silence> {
        let times = match told {
            Told::Times(times) => times,
            Told::Refusal(answer) => {
                self.refuse(server, request, *answer);
                return Ok(());
            }
            Told::Silence(why) => return Err(*why),
        };
        let dispersion = server.dispersion(times.error);
        if short(dispersion) >= MAX_DISPERSION {
            self.refuse(server, request, Answer::Dispersion);
            return Ok(());
        }

        let (stratum, reference_id) = server.rank(times);
        // Zero means "unknown" (§6), and once in an era it is a time: move it by 0.23 ns, outward.
        let reference = non_zero(times.reference.to_ntp().0, u64::MAX);
        let receive = times.received.to_ntp().0 | RECEIVE_BIT;
        let transmit = times.transmit.to_ntp().0;
        let packet = Packet {
            leap: match times.leap {
                Announcement::None => 0,
                Announcement::Insert => 1,
                Announcement::Delete => 2,
            },
            stratum,
            root_dispersion: short(dispersion),
            reference_id,
            reference,
            receive,
            transmit: blur(receive, transmit, server.noise_mask, random),
        };
        self.set(&packet, server, request, Answer::Time, dispersion);
        Ok(())
    }

    /// Makes this a reply that says only why there is no time. (Answers with a time are not passed.)
    #[inline(never)]
    fn refuse(&mut self, server: Server, request: &Request, answer: Answer) {
        let packet = Packet {
            leap: 3,
            stratum: 0,
            root_dispersion: MAX_DISPERSION,
            reference_id: answer.kiss(),
            reference: 0,
            receive: 0,
            transmit: 0,
        };
        self.set(&packet, server, request, answer, u32::MAX);
    }

    #[inline]
    fn set(
        &mut self,
        packet: &Packet,
        server: Server,
        request: &Request,
        answer: Answer,
        dispersion: u32,
    ) {
        packet.write(&mut self.packet, server, request);
        self.tail_length = 0;
        self.answer = answer;
        self.dispersion = dispersion;
    }

    /// What follows the first 48 bytes.
    #[must_use]
    #[inline]
    pub fn tail(&self) -> &[u8] {
        self.tail.get(..self.tail_length).unwrap_or_default()
    }

    /// Adds the extension field 0xF323 to a reply with the time: `epoch` is the number of the
    /// monotonic scale, `ahead` how many seconds it is ahead of UTC at the receive stamp, if there
    /// is one.
    pub fn add_mono_root(&mut self, epoch: u32, ahead: Option<i64>) {
        let receive = ahead.map_or(0, |seconds| {
            self.receive().wrapping_add(seconds.cast_unsigned() << 32)
        });
        let mut field = [0; MONO_ROOT_LENGTH];
        field[..4].copy_from_slice(&MONO_ROOT);
        field[4..8].copy_from_slice(&MONO_ROOT_MAGIC);
        // No network lies between us and the host's clock: the root delay stays zero.
        field[12..16].copy_from_slice(&self.dispersion.to_be_bytes());
        field[16..24].copy_from_slice(&receive.to_be_bytes());
        field[24..].copy_from_slice(&epoch.to_be_bytes());
        self.append(&field);
    }

    /// Ends the reply with the number of the key and the tag of everything before it.
    pub fn authenticate(&mut self, key: u32, authenticator: &Authenticator) {
        let tag = authenticator.tag(&[&self.packet, self.tail()]);
        self.append(&key.to_be_bytes());
        self.append(&tag);
    }

    /// Adds to the tail. All that can ever be added has room.
    fn append(&mut self, bytes: &[u8]) {
        let end = self.tail_length + bytes.len();
        if let Some(place) = self.tail.get_mut(self.tail_length..end) {
            place.copy_from_slice(bytes);
            self.tail_length = end;
        }
    }

    /// Our receive stamp in it, by which a client can name this reply: odd, or zero without a time.
    #[must_use]
    pub fn receive(&self) -> u64 {
        let mut stamp = [0; 8];
        stamp.copy_from_slice(&self.packet[32..40]);
        u64::from_be_bytes(stamp)
    }

    /// Makes a reply with the time one of interleaved mode: it says when the reply that `request`
    /// names left.
    pub fn interleave(&mut self, request: &Request, departure: Departure) {
        self.dispersion = self.dispersion.max(departure.error);
        self.packet[8..12].copy_from_slice(&short(self.dispersion).to_be_bytes());
        self.packet[24..32].copy_from_slice(&request.receive.to_ne_bytes());
        self.packet[40..48].copy_from_slice(&departure.transmit.to_be_bytes());
    }

    /// Makes a reply with the time the kiss `RATE` (RFC 5905 §7.4), which a client need not believe
    /// but should heed. It keeps its stamps, for without them chronyd ignores it.
    pub fn kiss_rate(&mut self) {
        self.packet[0] |= 3 << 6;
        self.packet[1] = 0;
        self.packet[12..16].copy_from_slice(b"RATE");
        self.answer = Answer::Rate;
    }
}

/// What a reply tells the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The time, within the root dispersion.
    Time,
    /// Kiss code `INIT`: no time yet, or UTC is not known.
    Init,
    /// Kiss code `STEP`: a disruption has invalidated the time, and it is not known again yet.
    Step,
    /// Kiss code `XDSP` (ours): the error bound has reached 16 s, so the time is of no use.
    Dispersion,
    /// Kiss code `RATE`: the client asks too often.
    Rate,
    /// Kiss code `XAUD` (ours): the host has broken a promise (`on_violation=stop`).
    Violation,
    /// Kiss code `XHLD` (ours): the host's clock has been freerunning for too long (`holdover.max=`).
    Holdover,
    /// Kiss code `XDRN` (ours): a disruption is expected (`drain=`).
    Drain,
}

impl Answer {
    /// The kiss code. (`Time` has none, and is not asked for it.)
    #[must_use]
    pub const fn kiss(self) -> [u8; 4] {
        *match self {
            Self::Init | Self::Time => b"INIT",
            Self::Step => b"STEP",
            Self::Dispersion => b"XDSP",
            Self::Rate => b"RATE",
            Self::Violation => b"XAUD",
            Self::Holdover => b"XHLD",
            Self::Drain => b"XDRN",
        }
    }
}

impl From<Withheld> for Answer {
    fn from(why: Withheld) -> Self {
        match why {
            Withheld::Violation => Self::Violation,
            Withheld::Holdover => Self::Holdover,
            Withheld::Drain => Self::Drain,
            Withheld::Rtc { stepped: false } => Self::Init,
            Withheld::Rtc { stepped: true } => Self::Step,
        }
    }
}

/// Why a datagram gets no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// Shorter than a header, or not a multiple of 4 bytes.
    Length,
    /// Not version 1 to 4.
    Version,
    /// Not a request: a reply, a broadcast, a control or private message.
    Mode,
    /// Authenticated, but not by AES-CMAC, with a key that we do not have, or wrongly.
    Mac,
    /// Malformed extension fields.
    Extension,
    /// Arrived before a disruption: nobody can tell when.
    Stale,
    /// UTC stepped between arrival and reply (a leap second), so that the two stamps do not differ
    /// by the time that passed. The client's next request is past the step.
    UtcStep,
    /// The client's address is not to be answered ([`access`](super::access)).
    Access,
    /// The client asks too often ([`limit`](super::limit)).
    Limit,
    /// Not authenticated, and it has to be.
    Unauthenticated,
}

/// Datagrams counted by what came of them, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// [`Answer::Time`].
    pub time: u64,
    /// [`Answer::Init`].
    pub init: u64,
    /// [`Answer::Step`].
    pub step: u64,
    /// [`Answer::Dispersion`].
    pub dispersion: u64,
    /// [`Answer::Rate`].
    pub rate: u64,
    /// [`Answer::Violation`].
    pub violation: u64,
    /// [`Answer::Holdover`].
    pub holdover: u64,
    /// [`Answer::Drain`].
    pub drain: u64,
    /// [`Silence::Length`].
    pub length: u64,
    /// [`Silence::Version`].
    pub version: u64,
    /// [`Silence::Mode`].
    pub mode: u64,
    /// [`Silence::Mac`].
    pub mac: u64,
    /// [`Silence::Extension`].
    pub extension: u64,
    /// [`Silence::Stale`].
    pub stale: u64,
    /// [`Silence::UtcStep`].
    pub utc_step: u64,
    /// [`Silence::Access`].
    pub access: u64,
    /// [`Silence::Limit`].
    pub limit: u64,
    /// [`Silence::Unauthenticated`].
    pub unauthenticated: u64,
    /// Those of [`Answer::Time`] that were in interleaved mode.
    pub interleaved: u64,
    /// Replies of any kind that were authenticated.
    pub authenticated: u64,
    /// Those of [`Answer::Time`] with the extension field 0xF323.
    pub mono_root: u64,
}

impl Counters {
    /// Counts one outcome.
    pub const fn count(&mut self, outcome: Result<Answer, Silence>) {
        let counter = match outcome {
            Ok(Answer::Time) => &mut self.time,
            Ok(Answer::Init) => &mut self.init,
            Ok(Answer::Step) => &mut self.step,
            Ok(Answer::Dispersion) => &mut self.dispersion,
            Ok(Answer::Rate) => &mut self.rate,
            Ok(Answer::Violation) => &mut self.violation,
            Ok(Answer::Holdover) => &mut self.holdover,
            Ok(Answer::Drain) => &mut self.drain,
            Err(Silence::Length) => &mut self.length,
            Err(Silence::Version) => &mut self.version,
            Err(Silence::Mode) => &mut self.mode,
            Err(Silence::Mac) => &mut self.mac,
            Err(Silence::Extension) => &mut self.extension,
            Err(Silence::Stale) => &mut self.stale,
            Err(Silence::UtcStep) => &mut self.utc_step,
            Err(Silence::Access) => &mut self.access,
            Err(Silence::Limit) => &mut self.limit,
            Err(Silence::Unauthenticated) => &mut self.unauthenticated,
        };
        *counter = counter.wrapping_add(1);
    }

    /// Replies sent, by what they told.
    #[must_use]
    pub const fn answered(&self) -> [(&'static str, u64); 8] {
        [
            ("time", self.time),
            ("INIT", self.init),
            ("STEP", self.step),
            ("XDSP", self.dispersion),
            ("RATE", self.rate),
            ("XAUD", self.violation),
            ("XHLD", self.holdover),
            ("XDRN", self.drain),
        ]
    }

    /// All replies sent.
    #[must_use]
    pub fn replies(&self) -> u64 {
        let sum = |sum: u64, (_, count)| sum.saturating_add(count);
        self.answered().into_iter().fold(0, sum)
    }

    /// Particulars of the replies sent.
    #[must_use]
    pub const fn particulars(&self) -> [(&'static str, u64); 3] {
        [
            ("interleaved", self.interleaved),
            ("authenticated", self.authenticated),
            ("F323", self.mono_root),
        ]
    }

    /// Datagrams left unanswered, by reason.
    #[must_use]
    pub const fn silent(&self) -> [(&'static str, u64); 10] {
        [
            ("length", self.length),
            ("version", self.version),
            ("mode", self.mode),
            ("mac", self.mac),
            ("extension", self.extension),
            ("stale", self.stale),
            ("utc step", self.utc_step),
            ("access", self.access),
            ("limit", self.limit),
            ("unauthenticated", self.unauthenticated),
        ]
    }
}

/// Fills in the reply to `request` from the times of its exchange, or says why there are none.
///
/// `random` are fresh random bits for the part of the transmit stamp that is below the precision,
/// so that nobody can guess the stamp (RFC 5905 §6).
///
/// # Errors
/// [`Silence::Stale`] and [`Silence::UtcStep`].
pub fn reply(
    server: &Server,
    request: &Request,
    times: impl Into<Told>,
    random: u64,
) -> Result<Reply, Silence> {
    let mut reply = Reply::BLANK;
    reply.fill(*server, request, &times.into(), random)?;
    Ok(reply)
}

/// What to tell of the departure of a reply with the receive stamp `receive`, which was made by
/// `times`. `told` is what there is to tell of the stamp from before the device had it, in place of an arrival, and
/// `after` how long after that it is told to have left: it may have left as much earlier
/// ([`interleave`](super::interleave)).
///
/// `None` when nothing can be told: a disruption or a leap second lies between arrival and
/// departure, the scale has changed, the page's time was set back, or the error is beyond all use.
#[must_use]
pub fn departure(
    server: Server,
    receive: u64,
    made: &Basis,
    told: impl Into<Told>,
    after: Bound,
) -> Option<Departure> {
    let Told::Times(times) = told.into() else {
        return None;
    };
    let after_queued = Span::from_units(i128::try_from(after.units()).ok()?);
    let left = times.received.checked_add(after_queued)?;
    let transmit = left.to_ntp().0 & !RECEIVE_BIT;
    let error = server.dispersion(times.error.plus(after));
    let later = transmit.wrapping_sub(receive).cast_signed() > 0;
    let of_use = short(error) < MAX_DISPERSION;
    let same = Basis::of(&times) == *made;
    (same && later && transmit != 0 && of_use).then_some(Departure { transmit, error })
}

/// What two stamps must have in common for the time between them to be their difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Basis {
    /// The disruption marker.
    pub marker: u64,
    /// The reference id, which tells the scale.
    pub scale: [u8; 4],
    /// Seconds of TAI ahead, and without TAI what is announced: the side of a leap second.
    ahead: Option<i64>,
    leap: Announcement,
}

impl Basis {
    /// What `times` rest on.
    #[must_use]
    pub const fn of(times: &Times) -> Self {
        Self {
            marker: times.marker,
            scale: times.reference_id,
            ahead: times.ahead,
            leap: times.leap,
        }
    }
}

/// The fields of a reply that depend on the clock; the others come from the request and settings.
struct Packet {
    leap: u8,
    stratum: u8,
    root_dispersion: u32,
    reference_id: [u8; 4],
    reference: u64,
    receive: u64,
    transmit: u64,
}

impl Packet {
    /// The wire format of RFC 5905 §7.3.
    #[inline]
    fn write(&self, bytes: &mut [u8; HEADER], server: Server, request: &Request) {
        bytes[0] = self.leap << 6 | request.version << 3 | request.reply_mode;
        bytes[1] = self.stratum;
        // `clamp` would have a panic, for a least poll above the greatest.
        bytes[2] = request.poll.max(server.poll).min(MAX_POLL).cast_unsigned();
        bytes[3] = server.precision.cast_unsigned();
        // The root delay.
        bytes[4..8].fill(0);
        bytes[8..12].copy_from_slice(&self.root_dispersion.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.reference_id);
        bytes[16..24].copy_from_slice(&self.reference.to_be_bytes());
        bytes[24..32].copy_from_slice(&request.transmit.to_ne_bytes());
        bytes[32..40].copy_from_slice(&self.receive.to_be_bytes());
        bytes[40..48].copy_from_slice(&self.transmit.to_be_bytes());
    }
}

/// What follows the header of a request, as far as it matters.
struct Tail {
    mono_root: bool,
    mac: Option<MacField>,
}

/// Walks whatever follows the header (RFC 5905 §7.5 in the wording of RFC 7822).
#[inline]
fn check_tail(version: u8, tail: &[u8]) -> Result<Tail, Silence> {
    let mut found = Tail {
        mono_root: false,
        mac: None,
    };
    let mut rest = tail;
    let mut last = usize::MAX;
    // Every turn takes at least 16 bytes off, or ends it.
    while let Some((&start, _)) = rest.split_first_chunk::<4>() {
        match rest.len() {
            MAC_128 => {
                found.mac = Some(MacField {
                    key: u32::from_be_bytes(start),
                    covered: HEADER + tail.len() - rest.len(),
                });
                return Ok(found);
            }
            CRYPTO_NAK | MAC_160 => return Err(Silence::Mac),
            // There were no extension fields yet: a key and a digest, of whatever length.
            _ if version < 4 => return Err(Silence::Mac),
            _ => {}
        }
        let [_, _, high, low] = start;
        last = usize::from(u16::from_be_bytes([high, low]));
        if last < SHORTEST_FIELD || !last.is_multiple_of(4) {
            return Err(Silence::Extension);
        }
        let (field, behind) = rest.split_at_checked(last).ok_or(Silence::Extension)?;
        found.mono_root |= start == MONO_ROOT && field.get(4..8) == Some(&MONO_ROOT_MAGIC);
        rest = behind;
    }
    // RFC 7822 makes the last field long enough to be told from a MAC.
    if last < SHORTEST_LAST_FIELD {
        Err(Silence::Extension)
    } else {
        Ok(found)
    }
}

/// A root dispersion in NTP's short format, rounded up: [`MAX_DISPERSION`] if it is saturated.
#[inline]
const fn short(dispersion: u32) -> u32 {
    dispersion.div_ceil(1 << 12)
}

/// The transmit stamp with random bits below the precision, always after `receive` (modulo the
/// era), even and never zero. `receive` is odd, and `mask` has its lowest bits set.
///
/// The stamp moves by less than the precision in either direction, which the root dispersion
/// allows for: it stays in the precision's own interval around `transmit`, and goes one unit
/// beyond it only when `receive` is that interval's last instant.
#[inline]
fn blur(receive: u64, transmit: u64, mask: u64, random: u64) -> u64 {
    let after = |stamp: u64| stamp.wrapping_sub(receive).cast_signed() > 0;
    let blurred = (transmit & !mask | random & mask) & !RECEIVE_BIT;
    let stamp = if after(blurred) {
        blurred
    } else {
        // Received within the same interval: choose from the even numbers that are left of it.
        let last = transmit | mask;
        let choices = if after(last) {
            last.wrapping_sub(receive) / 2
        } else {
            0
        };
        receive.wrapping_add(1 + 2 * (random % choices.max(1)))
    };
    non_zero(stamp, 2)
}

#[inline]
fn non_zero(stamp: u64, instead: u64) -> u64 {
    if stamp == 0 { instead } else { stamp }
}

const NANOS: u64 = 1_000_000_000;

/// NTP's own UDP port.
pub const PORT: u16 = 123;

/// The bit that is set in receive stamps and clear in transmit stamps, 0.23 ns: see
/// [`interleave`](super::interleave).
const RECEIVE_BIT: u64 = 1;

/// Modes (RFC 5905 §7.3).
const UNSPECIFIED: u8 = 0;
const SYMMETRIC_ACTIVE: u8 = 1;
const SYMMETRIC_PASSIVE: u8 = 2;
const CLIENT: u8 = 3;
const SERVER: u8 = 4;

/// Least stratum of a real-time clock.
const RTC_STRATUM: u8 = 10;

/// Poll exponents that a reply may carry: at least one request per second is welcome unless there is
/// a limit, the maximum is that of RFC 5905 §7.2.
const MIN_POLL: i8 = 0;
const MAX_POLL: i8 = 17;

/// MAXDISP of RFC 5905 §7.2, 16 s, in NTP's short format.
pub(crate) const MAX_DISPERSION: u32 = 16 << 16;

/// What RFC 7822 takes for a MAC by its length: a key id with a digest of 0, 16 or 20 bytes.
const CRYPTO_NAK: usize = 4;
const MAC_128: usize = 20;
const MAC_160: usize = 24;
/// The shortest extension field, and the shortest that may come last when no MAC follows.
const SHORTEST_FIELD: usize = 16;
const SHORTEST_LAST_FIELD: usize = 28;

/// The type and length of chrony's field 0xF323, and the number that its body starts with. Behind
/// that: root delay and root dispersion in 2^-28 s, receive stamp, epoch.
const MONO_ROOT: [u8; 4] = [0xf3, 0x23, 0, 28];
const MONO_ROOT_MAGIC: [u8; 4] = [0xf5, 0xbe, 0xdd, 0x9a];
const MONO_ROOT_LENGTH: usize = 28;

#[cfg(test)]
mod tests;
