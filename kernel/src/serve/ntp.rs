//! The NTP server: a request's bytes and two readings of the clock in, a reply's 48 bytes out.
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
//! | v1 to v3: any bytes after the header | [`Silence::Mac`] |
//! | v4: well-formed extension fields (RFC 7822) | ignored; a plain reply |
//! | v4: a message authentication code, or a crypto-NAK | [`Silence::Mac`]: there are no keys |
//! | v4: any other tail | [`Silence::Extension`] |
//! | it arrived before a disruption | [`Silence::Stale`] |
//! | UTC stepped between arrival and reply | [`Silence::UtcStep`] |
//!
//! # What a reply says
//!
//! With time, the fields of RFC 5905 §7.3 are: leap indicator as announced for the end of this very
//! UTC day; stratum 1 unless configured otherwise; poll the request's, raised to our own; root
//! delay 0, since no network lies between us and the host's clock; **root dispersion the bound of
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
//! A bound grows with the age of the page (freerunning hosts). Once it has reached MAXDISP, no
//! client accepts the reply (the sanity check of RFC 5905 §A.5.1.1 on root distance), so it is
//! sent as [`Answer::Dispersion`] instead.

use gnomon_clock::{Announcement, Bound};

use super::times::Told;
use crate::duty::Withheld;

/// Length of an NTP header without extension fields, and of every reply, in bytes.
pub const HEADER: usize = 48;

/// Serves one datagram: parses it, asks for the times only if it deserves an answer, counts what
/// came of it. `None` means silence. `random` are fresh random bits for the transmit stamp.
pub fn serve<T: Into<Told>>(
    server: &Server,
    payload: &[u8],
    source_port: u16,
    times: impl FnOnce() -> T,
    random: u64,
    counters: &mut Counters,
) -> Option<[u8; HEADER]> {
    let outcome = Request::parse(payload, source_port)
        .and_then(|request| reply(server, &request, times(), random));
    counters.count(&outcome);
    outcome.ok().map(|reply| reply.packet)
}

/// Settings of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    stratum: u8,
    precision: i8,
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
        Self { stratum, precision }
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
    /// The client's transmit stamp: a cookie to return, never a time to use.
    transmit: [u8; 8],
}

impl Request {
    /// Decides whether a datagram is a request to be answered; the table is in the
    /// [module's text](self).
    ///
    /// # Errors
    /// The reason for silence.
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
        check_tail(version, tail)?;
        let mut transmit = [0; 8];
        transmit.copy_from_slice(&header[40..]);
        Ok(Self {
            version,
            reply_mode,
            poll: header[2].cast_signed(),
            transmit,
        })
    }
}

/// A reply, ready to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The UDP payload.
    pub packet: [u8; HEADER],
    /// What it tells the client.
    pub answer: Answer,
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
    /// Authenticated, and there is no key.
    Mac,
    /// Malformed extension fields.
    Extension,
    /// Arrived before a disruption: nobody can tell when.
    Stale,
    /// UTC stepped between arrival and reply (a leap second), so that the two stamps do not differ
    /// by the time that passed. The client's next request is past the step.
    UtcStep,
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
}

impl Counters {
    /// Counts one outcome.
    pub fn count(&mut self, outcome: &Result<Reply, Silence>) {
        let counter = match outcome {
            Ok(reply) => match reply.answer {
                Answer::Time => &mut self.time,
                Answer::Init => &mut self.init,
                Answer::Step => &mut self.step,
                Answer::Dispersion => &mut self.dispersion,
                Answer::Violation => &mut self.violation,
                Answer::Holdover => &mut self.holdover,
                Answer::Drain => &mut self.drain,
            },
            Err(Silence::Length) => &mut self.length,
            Err(Silence::Version) => &mut self.version,
            Err(Silence::Mode) => &mut self.mode,
            Err(Silence::Mac) => &mut self.mac,
            Err(Silence::Extension) => &mut self.extension,
            Err(Silence::Stale) => &mut self.stale,
            Err(Silence::UtcStep) => &mut self.utc_step,
        };
        *counter = counter.wrapping_add(1);
    }

    /// Replies sent, by what they told.
    #[must_use]
    pub const fn answered(&self) -> [(&'static str, u64); 7] {
        [
            ("time", self.time),
            ("INIT", self.init),
            ("STEP", self.step),
            ("XDSP", self.dispersion),
            ("XAUD", self.violation),
            ("XHLD", self.holdover),
            ("XDRN", self.drain),
        ]
    }

    /// Datagrams left unanswered, by reason.
    #[must_use]
    pub const fn silent(&self) -> [(&'static str, u64); 7] {
        [
            ("length", self.length),
            ("version", self.version),
            ("mode", self.mode),
            ("mac", self.mac),
            ("extension", self.extension),
            ("stale", self.stale),
            ("utc step", self.utc_step),
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
    let times = match times.into() {
        Told::Times(times) => times,
        Told::Refusal(answer) => return Ok(without_time(server.precision, request, answer)),
        Told::Silence(why) => return Err(why),
    };
    let dispersion = times
        .error
        .plus(precision_interval(server.precision))
        .to_ntp_short();
    if dispersion >= MAX_DISPERSION {
        return Ok(without_time(server.precision, request, Answer::Dispersion));
    }

    // Zero means "unknown" (§6), and once in an era it is a time: move it by 0.23 ns, outward.
    let reference = non_zero(times.reference.to_ntp().0, u64::MAX);
    let receive = non_zero(times.received.to_ntp().0, 1);
    let transmit_stamp = blur(
        receive,
        times.transmit.to_ntp().0,
        noise_mask(server.precision),
        random,
    );
    let packet = Packet {
        leap: match times.leap {
            Announcement::None => 0,
            Announcement::Insert => 1,
            Announcement::Delete => 2,
        },
        stratum: server.stratum,
        root_dispersion: dispersion,
        reference_id: times.reference_id,
        reference,
        receive,
        transmit: transmit_stamp,
    };
    Ok(Reply {
        packet: packet.to_bytes(server.precision, request),
        answer: Answer::Time,
    })
}

/// A reply that says only why there is no time. (`Answer::Time` has no code and is not passed.)
fn without_time(precision: i8, request: &Request, answer: Answer) -> Reply {
    let packet = Packet {
        leap: 3,
        stratum: 0,
        root_dispersion: MAX_DISPERSION,
        reference_id: answer.kiss(),
        reference: 0,
        receive: 0,
        transmit: 0,
    };
    Reply {
        packet: packet.to_bytes(precision, request),
        answer,
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
    fn to_bytes(&self, precision: i8, request: &Request) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0] = self.leap << 6 | request.version << 3 | request.reply_mode;
        bytes[1] = self.stratum;
        bytes[2] = request.poll.clamp(MIN_POLL, MAX_POLL).cast_unsigned();
        bytes[3] = precision.cast_unsigned();
        // bytes[4..8], the root delay, stays zero.
        bytes[8..12].copy_from_slice(&self.root_dispersion.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.reference_id);
        bytes[16..24].copy_from_slice(&self.reference.to_be_bytes());
        bytes[24..32].copy_from_slice(&request.transmit);
        bytes[32..40].copy_from_slice(&self.receive.to_be_bytes());
        bytes[40..48].copy_from_slice(&self.transmit.to_be_bytes());
        bytes
    }
}

/// Walks whatever follows the header (RFC 5905 §7.5 in the wording of RFC 7822).
fn check_tail(version: u8, tail: &[u8]) -> Result<(), Silence> {
    if tail.is_empty() {
        return Ok(());
    }
    if version < 4 {
        // There were no extension fields yet: a key and a digest, of whatever length.
        return Err(Silence::Mac);
    }
    let mut rest = tail;
    let mut last = 0;
    // Every turn takes at least 16 bytes off, or ends it.
    while let Some((&[_, _, high, low], _)) = rest.split_first_chunk::<4>() {
        if matches!(rest.len(), CRYPTO_NAK | MAC_128 | MAC_160) {
            return Err(Silence::Mac);
        }
        last = usize::from(u16::from_be_bytes([high, low]));
        if last < SHORTEST_FIELD || !last.is_multiple_of(4) {
            return Err(Silence::Extension);
        }
        rest = rest.get(last..).ok_or(Silence::Extension)?;
    }
    // RFC 7822 makes the last field long enough to be told from a MAC.
    if last < SHORTEST_LAST_FIELD {
        Err(Silence::Extension)
    } else {
        Ok(())
    }
}

/// The transmit stamp with random bits below the precision, always after `receive` (modulo the
/// era) and never zero.
///
/// The stamp moves by less than the precision in either direction, which the root dispersion
/// allows for: it stays in the precision's own interval around `transmit`, and goes one unit
/// beyond it only when `receive` is that interval's last instant.
fn blur(receive: u64, transmit: u64, mask: u64, random: u64) -> u64 {
    let after = |stamp: u64| stamp.wrapping_sub(receive).cast_signed() > 0;
    let blurred = transmit & !mask | random & mask;
    let stamp = if after(blurred) {
        blurred
    } else {
        // Received within the same interval: choose from what is left of it.
        let last = transmit | mask;
        let choices = if after(last) {
            last.wrapping_sub(receive)
        } else {
            1
        };
        receive.wrapping_add(1 + random % choices)
    };
    non_zero(stamp, 1)
}

/// The bits of an NTP timestamp that lie below the precision.
const fn noise_mask(precision: i8) -> u64 {
    (1 << (32 - precision.unsigned_abs())) - 1
}

/// The precision as an interval, rounded up.
const fn precision_interval(precision: i8) -> Bound {
    Bound::from_nanos((NANOS >> precision.unsigned_abs()) + 1)
}

fn non_zero(stamp: u64, instead: u64) -> u64 {
    if stamp == 0 { instead } else { stamp }
}

const NANOS: u64 = 1_000_000_000;

/// NTP's own UDP port.
pub const PORT: u16 = 123;

/// Modes (RFC 5905 §7.3).
const UNSPECIFIED: u8 = 0;
const SYMMETRIC_ACTIVE: u8 = 1;
const SYMMETRIC_PASSIVE: u8 = 2;
const CLIENT: u8 = 3;
const SERVER: u8 = 4;

/// Poll exponents that a reply may carry: our own minimum is one request per second until there is
/// rate limiting, the maximum is that of RFC 5905 §7.2.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_precision_is_never_finer_than_reality() {
        for (nanos, precision) in [
            (0, -29),
            (1, -29),
            (2, -28),
            (3, -28),
            (4, -27),
            (30, -24),
            (59, -24),
            (60, -23),
            (1_000, -19),
            (1_000_000, -9),
            (250_000_000, -2),
            (500_000_000, -1),
            (u64::MAX, -1),
        ] {
            let server = Server::new(1, nanos);
            assert_eq!(server.precision(), precision, "{nanos} ns");
            if nanos <= 500_000_000 {
                assert!(
                    precision_interval(precision) >= Bound::from_nanos(nanos),
                    "{nanos} ns"
                );
            }
        }
    }

    #[test]
    fn the_stratum_is_a_stratum() {
        for (asked, given) in [(0, 1), (1, 1), (2, 2), (15, 15), (16, 15), (255, 15)] {
            assert_eq!(Server::new(asked, 30).stratum(), given);
        }
    }

    #[test]
    fn blurring_fills_exactly_the_bits_below_the_precision() {
        let (receive, transmit) = (0x0000_0001_0000_0000, 0x0000_0001_1234_5678);
        assert_eq!(blur(receive, transmit, 0xfff, 0), 0x0000_0001_1234_5000);
        assert_eq!(
            blur(receive, transmit, 0xfff, u64::MAX),
            0x0000_0001_1234_5fff
        );
        assert_eq!(blur(receive, transmit, 0xfff, 0xabc), 0x0000_0001_1234_5abc);
        // The last instant of an interval has no later one in it; nor has the end of the era.
        assert_eq!(blur(0x1fff, 0x1fff, 0xfff, 0xabc), 0x2000);
        assert_eq!(blur(u64::MAX, u64::MAX, 0xfff, 0xabc), 1);
    }

    proptest! {
        #[test]
        fn a_blurred_stamp_is_later_and_near(
            receive: u64,
            served in 0_u64..1 << 40,
            precision in -29_i8..=-1,
            random: u64,
        ) {
            let (transmit, mask) = (receive.wrapping_add(served), noise_mask(precision));
            let stamp = blur(receive, transmit, mask, random);
            prop_assert_ne!(stamp, 0);
            prop_assert!(stamp.wrapping_sub(receive).cast_signed() > 0);
            // One unit for the instant after the last, one for stepping over zero.
            prop_assert!(stamp.wrapping_sub(transmit).cast_signed().unsigned_abs() <= mask + 2);
        }
    }
}
