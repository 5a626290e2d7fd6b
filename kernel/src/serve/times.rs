//! What a service tells of an exchange: its times as plain or as smeared UTC, or why there are
//! none. The edge at which true time becomes what clients get.

use gnomon_clock::{
    Announcement, Bound, Exchange, Kiss, NoTime, Origin, Reading, Smear, Smeared, Smearer, Source,
    Timestamp, Utc,
};

use super::ntp::{Answer, Silence};
use crate::config::Smearing;
use crate::duty::Withheld;

/// What a client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The times.
    Times(Times),
    /// That there are none. (Not [`Answer::Time`].)
    Refusal(Answer),
    /// Nothing.
    Silence(Silence),
}

/// The times of an exchange, on the scale of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// When the request arrived.
    pub received: Timestamp<Utc>,
    /// When the page was read for the answer; never before `received`.
    pub transmit: Timestamp<Utc>,
    /// When the host last updated the page; never after `received`, whatever the page says, because
    /// RFC 5905 §A.5.1.1 has clients refuse a server whose reference time is in the future.
    pub reference: Timestamp<Utc>,
    /// The error of both stamps against the scale of the service.
    pub error: Bound,
    /// The leap second to announce: none where it is smeared, for then there is none.
    pub leap: Announcement,
    /// What tells clients the scale.
    pub reference_id: [u8; 4],
    /// Where the time comes from.
    pub origin: Origin,
    /// The disruption marker under which all this holds.
    pub marker: u64,
    /// Whole seconds by which TAI is ahead of the scale of the service, as long as it goes like TAI:
    /// not known without TAI, nor while a leap second is being smeared.
    pub ahead: Option<i64>,
}

impl Told {
    /// Plain UTC.
    #[must_use]
    #[inline]
    pub fn plain(exchange: &Exchange) -> Self {
        let (Some(received), Some(transmit)) = (exchange.received.utc, exchange.transmit.utc)
        else {
            return Self::Refusal(Answer::Init);
        };
        if utc_stepped(exchange, received.time, transmit.time) {
            return Self::Silence(Silence::UtcStep);
        }
        let reference = exchange.transmit.reference_utc.unwrap_or(received.time);
        Self::Times(Times {
            received: received.time,
            transmit: transmit.time,
            reference: reference.min(received.time),
            error: exchange.received.bound.max(exchange.transmit.bound),
            leap: transmit.announcement,
            reference_id: plain(exchange.transmit.origin),
            origin: exchange.transmit.origin,
            marker: exchange.transmit.marker,
            ahead: ahead(&exchange.received, received.time),
        })
    }

    /// Smeared UTC.
    #[must_use]
    pub fn smeared(exchange: &Exchange, smearer: &mut Smearer) -> Self {
        let (received, age) = (smearer.utc(&exchange.received), exchange.received.age);
        let (Some(received), Some(transmit)) = (received, smearer.utc(&exchange.transmit)) else {
            return Self::Refusal(Answer::Init);
        };
        if transmit.time < received.time {
            return Self::Silence(Silence::UtcStep);
        }
        // Uniformly back: off the smeared time of that instant by what has been smeared since.
        let reference = received.time.checked_sub(age).unwrap_or(received.time);
        Self::Times(Times {
            received: received.time,
            transmit: transmit.time,
            reference: reference.min(received.time),
            error: received.bound.max(transmit.bound),
            leap: Announcement::None,
            reference_id: reference_id(Some(smearer.smear())),
            origin: exchange.transmit.origin,
            marker: exchange.transmit.marker,
            ahead: ahead(&exchange.received, received.time),
        })
    }
}

impl From<&NoTime> for Told {
    fn from(why: &NoTime) -> Self {
        match (why, why.kiss()) {
            (NoTime::StaleStamp, _) => Self::Silence(Silence::Stale),
            (_, Kiss::Init) => Self::Refusal(Answer::Init),
            (_, Kiss::Step) => Self::Refusal(Answer::Step),
        }
    }
}

impl From<Withheld> for Told {
    fn from(why: Withheld) -> Self {
        Self::Refusal(why.into())
    }
}

/// The plain service's answer, if nothing withholds it.
impl From<Result<&Exchange, &NoTime>> for Told {
    fn from(exchange: Result<&Exchange, &NoTime>) -> Self {
        exchange.map_or_else(Self::from, Self::plain)
    }
}

impl From<Result<Exchange, NoTime>> for Told {
    fn from(exchange: Result<Exchange, NoTime>) -> Self {
        exchange.as_ref().into()
    }
}

/// Seconds by which TAI is ahead of what is told, in an inserted second, which NTP repeats, already
/// one more; `None` when that is no whole number.
#[inline]
fn ahead(reading: &Reading, told: Timestamp<Utc>) -> Option<i64> {
    let tai = reading
        .tai
        .filter(|tai| tai.fraction() == told.fraction())?;
    tai.seconds().checked_sub(told.seconds())
}

/// Whether the two stamps differ by something else than the time that passed between them.
#[inline]
fn utc_stepped(exchange: &Exchange, received: Timestamp<Utc>, transmit: Timestamp<Utc>) -> bool {
    let scales = (exchange.received.tai, exchange.transmit.tai);
    let by_scale = if let (Some(received_tai), Some(transmit_tai)) = scales {
        transmit_tai.since(received_tai) != transmit.since(received)
    } else {
        // Without TAI, what is announced tells on which side of a leap second the stamps are.
        let announcement = |reading: &Reading| reading.utc.map(|utc| utc.announcement);
        announcement(&exchange.received) != announcement(&exchange.transmit)
    };
    by_scale || transmit < received
}

/// The smeared service: how it was asked to smear, and what it remembers.
#[derive(Clone, Copy, Debug)]
pub struct SmearService {
    asked: Smearing,
    smearer: Option<Smearer>,
}

impl SmearService {
    /// A service that smears as `asked`.
    #[must_use]
    pub const fn new(asked: Smearing) -> Self {
        Self {
            asked,
            smearer: None,
        }
    }

    /// How it was asked to smear.
    #[must_use]
    pub const fn asked(&self) -> Smearing {
        self.asked
    }

    /// What it tells of an exchange: plain UTC while nothing is to be smeared.
    pub fn tell(&mut self, exchange: &Exchange) -> Told {
        match self.in_force(&exchange.transmit) {
            Some(smearer) => Told::smeared(exchange, smearer),
            None => Told::plain(exchange),
        }
    }

    /// What is in force at a reading, and smeared time then; `None` while nothing is to be smeared
    /// or UTC is not known.
    pub fn at(&mut self, reading: &Reading) -> Option<(Smear, Smeared)> {
        let smearer = self.in_force(reading)?;
        Some((smearer.smear(), smearer.utc(reading)?))
    }

    fn in_force(&mut self, reading: &Reading) -> Option<&mut Smearer> {
        let smear = match self.asked {
            Smearing::Off => None,
            Smearing::Hint => reading.smearing_hint.and_then(Smear::from_hint),
            Smearing::Always(smear) => Some(smear),
        };
        if self.smearer.map(|smearer| smearer.smear()) != smear {
            self.smearer = smear.map(Smearer::new);
        }
        self.smearer.as_mut()
    }
}

/// The reference id that tells clients the scale of a service: a vmclock, and how its leap seconds
/// are smeared.
#[must_use]
pub const fn reference_id(smear: Option<Smear>) -> [u8; 4] {
    match smear {
        None => PLAIN,
        Some(Smear::NoonLinear) => *b"XSMR",
        Some(Smear::UtcSls) => *b"XSLS",
    }
}

const PLAIN: [u8; 4] = *b"XVMC";

/// The reference id of plain UTC. That of an NTP server is its address, which the server knows
/// ([`Server::following`](super::ntp::Server::following)).
#[inline]
const fn plain(origin: Origin) -> [u8; 4] {
    match origin {
        Origin::Page => PLAIN,
        Origin::Own(Source::KvmPairing | Source::KvmPtp | Source::KvmClock) => *b"XKVM",
        Origin::Own(Source::VirtioRtc) => *b"XVRT",
        Origin::Own(Source::Ntp) => *b"XNTP",
        Origin::Own(Source::Rtc) => *b"XRTC",
    }
}
