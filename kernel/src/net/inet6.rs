//! IPv6 addresses: which there are, where they come from, and when they end.
//!
//! An address is used at once and verified meanwhile (RFC 4429, optimistic duplicate address
//! detection): nobody has to wait a second for it, and if another machine has it, ours gives it up.
//! There are no routers and no neighbours: see `icmpv6`.
//!
//! Everybody on the link can send router advertisements. So there are [`IPV6`] addresses at most,
//! first come, first served; an address in use cannot be ended by one packet but lives for two hours more
//! (RFC 4862 §5.5.3); and what we send because of others is an answer, or is paced.

use core::fmt;
use core::net::Ipv6Addr;

use smoltcp::time::{Duration, Instant};

use super::addresses::IPV6;
use super::icmpv6::{self, ALL_NODES, Message, Prefix, RouterAdvertisement};
use super::port::FramePort;
use crate::config::Ip6;

/// An IPv6 address of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address6 {
    /// The address.
    pub address: Ipv6Addr,
    /// Bits of the prefix that is on this link, 1 to 128.
    pub prefix: u8,
    /// Where it comes from.
    pub origin: Origin,
    /// Another machine has it, so it is not used.
    pub is_duplicate: bool,
}

/// Where an IPv6 address comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Made of the MAC address, for this link only.
    LinkLocal,
    /// From the command line.
    CommandLine,
    /// Made of the MAC address and what a router advertised.
    Advertised,
}

/// The IPv6 addresses that there are.
pub type Known6 = [Option<Address6>; IPV6];

impl fmt::Display for Address6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)?;
        f.write_str(match self.origin {
            _ if self.is_duplicate => ", which another machine has: not used",
            Origin::LinkLocal | Origin::CommandLine => "",
            Origin::Advertised => " by router advertisement",
        })
    }
}

/// IPv6 on one network device.
pub(super) struct Inet6 {
    wanted: Ip6,
    mac: [u8; 6],
    places: [Option<Place>; IPV6],
    /// When a router is asked for next, and how long after that again.
    solicit: Option<Instant>,
    interval: Duration,
    /// When it is told next what we listen to, and whether once more after that.
    report: Option<Instant>,
    report_again: bool,
    random: u64,
}

#[derive(Clone, Copy)]
struct Place {
    address: Ipv6Addr,
    prefix: u8,
    origin: Origin,
    stage: Stage,
    end: End,
}

/// How far it is known that an address is ours alone.
#[derive(Clone, Copy)]
enum Stage {
    /// The question is to be sent.
    New { in_use: bool },
    /// Nobody has objected, and it is ours if nobody does until then.
    Asked { in_use: bool, until: Instant },
    /// It is.
    Ours,
    /// It is not; the question is repeated then.
    Duplicate { again: Instant },
}

/// When something that a router told is over.
#[derive(Clone, Copy)]
struct End {
    /// `None`: never.
    valid: Option<Instant>,
    /// It is from before a restart and ends then, unless it is told again.
    unconfirmed: Option<Instant>,
}

/// How long others have to object to an address (RFC 4861 §10, `RETRANS_TIMER`).
const OBJECTION: Duration = Duration::from_secs(1);
/// How long an address that another machine has is left alone.
const LEAVE_ALONE: Duration = Duration::from_secs(300);
/// The first interval between two questions for a router, and the longest (RFC 7559).
const SOLICIT_FIRST: Duration = Duration::from_secs(4);
const SOLICIT_LONGEST: Duration = Duration::from_secs(3600);
/// No advertisement shortens the life of an address below this (RFC 4862 §5.5.3).
const LEAST_LIFE: Duration = Duration::from_secs(7200);
/// How long what a router told in an earlier life is kept while it is asked again.
const CONFIRMATION: Duration = Duration::from_secs(10);
/// What we listen to is told at the earliest so long after a question, and at random up to a second
/// later.
const REPORT_PAUSE: Duration = Duration::from_millis(100);
const REPORT_SPREAD_MILLIS: u64 = 1000;

impl Inet6 {
    pub(super) fn new(wanted: Ip6, mac: [u8; 6], now: Instant, random: u64) -> Self {
        let mut inet6 = Self {
            wanted,
            mac,
            places: [None; IPV6],
            solicit: None,
            interval: SOLICIT_FIRST,
            report: None,
            report_again: false,
            random,
        };
        if wanted == Ip6::Off {
            return inet6;
        }
        let link = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);
        inet6.add(inet6.made_of(link), 64, Origin::LinkLocal, End::NEVER, now);
        match wanted {
            Ip6::Static { address, prefix } => {
                inet6.add(address, prefix, Origin::CommandLine, End::NEVER, now);
            }
            Ip6::Auto | Ip6::Off => inet6.solicit = Some(now),
        }
        inet6
    }

    /// Starts over, for a machine that may have been moved or copied: every address is verified again,
    /// and what a router told is asked for again. All stay in use meanwhile; what is not told again within
    /// 10 s ends.
    pub(super) fn restart(&mut self, now: Instant, random: u64) {
        self.random = random;
        for place in self.places.iter_mut().flatten() {
            place.stage = Stage::New { in_use: true };
            if place.origin == Origin::Advertised {
                place.end.doubt(now);
            }
        }
        if self.wanted == Ip6::Auto {
            self.interval = SOLICIT_FIRST;
            self.solicit = Some(now);
        }
        self.tell_listeners(now);
    }

    /// The addresses that are used.
    pub(super) fn in_use(&self) -> impl Iterator<Item = Ipv6Addr> {
        let places = self.places.iter().flatten();
        let used = places.filter(|place| place.is_in_use());
        used.map(|place| place.address)
    }

    pub(super) fn known(&self) -> Known6 {
        self.places.map(|place| {
            place.map(|place| Address6 {
                address: place.address,
                prefix: place.prefix,
                origin: place.origin,
                is_duplicate: !place.is_in_use(),
            })
        })
    }

    /// The address that somebody's ping to `to` is answered from: that, or one of the group's, as near as
    /// who asks.
    pub(super) fn echo_from(&self, from: Ipv6Addr, to: Ipv6Addr) -> Option<Ipv6Addr> {
        let mut found = None;
        let mut is_near = false;
        for ours in self.in_use() {
            if ours == from {
                return None;
            }
            let is_meant = [ours, ALL_NODES, icmpv6::solicited_node(ours)].contains(&to);
            if is_meant && !is_near {
                is_near = ours.is_unicast_link_local() == from.is_unicast_link_local();
                found = found.filter(|_| !is_near).or(Some(ours));
            }
        }
        found
    }

    /// Takes what others say. Returns whether the addresses in use changed.
    pub(super) fn hear<P: FramePort>(
        &mut self,
        port: &mut P,
        message: Message<'_>,
        now: Instant,
    ) -> bool {
        match message {
            Message::RouterAdvertisement(advertisement) if self.wanted == Ip6::Auto => {
                self.solicit = None;
                self.interval = SOLICIT_FIRST;
                self.follow(&advertisement, now)
            }
            Message::Solicitation { from, mac, target } => {
                if let Some(place) = self.place(target).filter(|place| place.is_in_use()) {
                    let is_certain = matches!(place.stage, Stage::Ours);
                    icmpv6::claim(port, target, Some((from, mac)), is_certain);
                }
                false
            }
            Message::Probe { target, mac } | Message::Claim { target, mac } if mac != self.mac => {
                let is_probe = matches!(message, Message::Probe { .. });
                match self.place(target) {
                    Some(place) if place.is_being_verified() => place.lose(now),
                    Some(place) if is_probe && place.is_in_use() => {
                        icmpv6::claim(port, target, None, true);
                        false
                    }
                    _ => false,
                }
            }
            Message::ListenerQuery => {
                if self.report.is_none() {
                    self.random = self.random.wrapping_mul(MULTIPLIER).wrapping_add(1);
                    let spread = (self.random >> 32) % REPORT_SPREAD_MILLIS;
                    self.report = Some(now + REPORT_PAUSE + Duration::from_millis(spread));
                }
                false
            }
            _ => false,
        }
    }

    /// Does what is due. Returns whether the addresses in use changed.
    pub(super) fn poll<P: FramePort>(&mut self, port: &mut P, now: Instant) -> bool {
        let mut changed = false;
        for place in &mut self.places {
            if place.is_some_and(|place| place.end.is_over(now)) {
                *place = None;
                changed = true;
            }
        }
        if changed && self.solicit.is_none() {
            self.solicit = Some(now);
        }
        if is_due(self.report, now) {
            let again = core::mem::take(&mut self.report_again);
            self.report = again.then(|| now + OBJECTION);
            let addresses = self.places.iter().flatten().map(|place| place.address);
            icmpv6::report_groups(port, self.source(), addresses);
        }
        for place in self.places.iter_mut().flatten() {
            changed |= place.verify(port, now);
        }
        if is_due(self.solicit, now) {
            icmpv6::solicit_router(port, self.source());
            self.solicit = Some(now + self.interval);
            self.interval = (self.interval * 2).min(SOLICIT_LONGEST);
        }
        changed
    }

    /// When `poll` has something to do next.
    pub(super) fn next(&self) -> Option<Instant> {
        let mut next = earlier(self.solicit, self.report);
        for place in self.places.iter().flatten() {
            next = earlier(next, place.stage.next());
            next = earlier(next, place.end.next());
        }
        next
    }

    fn follow(&mut self, advertisement: &RouterAdvertisement<'_>, now: Instant) -> bool {
        let mut changed = false;
        for prefix in advertisement.prefixes() {
            changed |= self.follow_prefix(&prefix, now);
        }
        changed
    }

    fn follow_prefix(&mut self, prefix: &Prefix, now: Instant) -> bool {
        let address = self.made_of(prefix.network);
        if let Some(place) = self.place(address) {
            if place.origin == Origin::Advertised {
                place.end.renew(prefix.valid, now);
            }
            return false;
        }
        let on_link = if prefix.on_link { 64 } else { 128 };
        let end = End::after(prefix.valid, now);
        prefix.valid > 0 && self.add(address, on_link, Origin::Advertised, end, now)
    }

    /// Adds an address where there is room, and returns whether there was.
    fn add(
        &mut self,
        address: Ipv6Addr,
        prefix: u8,
        origin: Origin,
        end: End,
        now: Instant,
    ) -> bool {
        let Some(place) = self.places.iter_mut().find(|place| place.is_none()) else {
            return false;
        };
        *place = Some(Place {
            address,
            prefix,
            origin,
            stage: Stage::New { in_use: true },
            end,
        });
        self.tell_listeners(now);
        true
    }

    fn tell_listeners(&mut self, now: Instant) {
        self.report = Some(now);
        self.report_again = true;
    }

    fn place(&mut self, address: Ipv6Addr) -> Option<&mut Place> {
        let mut places = self.places.iter_mut().flatten();
        places.find(|place| place.address == address)
    }

    /// What our own messages come from: the link-local address, or nobody.
    fn source(&self) -> Ipv6Addr {
        let mut places = self.places.iter().flatten();
        let link = places.find(|place| place.origin == Origin::LinkLocal && place.is_in_use());
        link.map_or(Ipv6Addr::UNSPECIFIED, |place| place.address)
    }

    /// Our address in a network of 64 bits: the "modified EUI-64" of the MAC address (RFC 4291 §2.5.1),
    /// which an operator can tell beforehand.
    fn made_of(&self, network: Ipv6Addr) -> Ipv6Addr {
        let mut octets = [0, 0, 0, 0xff, 0xfe, 0, 0, 0];
        octets[..3].copy_from_slice(&self.mac[..3]);
        octets[5..].copy_from_slice(&self.mac[3..]);
        // The bit that says "chosen by hand" the other way round.
        let identifier = u64::from_be_bytes(octets) ^ 2 << 56;
        Ipv6Addr::from_bits(network.to_bits() | u128::from(identifier))
    }
}

impl Place {
    fn is_in_use(&self) -> bool {
        match self.stage {
            Stage::New { in_use } | Stage::Asked { in_use, .. } => in_use,
            Stage::Ours => true,
            Stage::Duplicate { .. } => false,
        }
    }

    fn is_being_verified(&self) -> bool {
        matches!(self.stage, Stage::New { .. } | Stage::Asked { .. })
    }

    /// The address is another machine's. Returns whether it was in use.
    fn lose(&mut self, now: Instant) -> bool {
        let was_in_use = self.is_in_use();
        let again = now + LEAVE_ALONE;
        self.stage = Stage::Duplicate { again };
        was_in_use
    }

    /// Asks whether another machine has the address, or decides. Returns whether it came into use.
    fn verify<P: FramePort>(&mut self, port: &mut P, now: Instant) -> bool {
        match self.stage {
            Stage::New { in_use } => {
                icmpv6::probe(port, self.address);
                let until = now + OBJECTION;
                self.stage = Stage::Asked { in_use, until };
                false
            }
            Stage::Asked { in_use, until } if until <= now => {
                self.stage = Stage::Ours;
                !in_use
            }
            Stage::Duplicate { again } if again <= now => {
                self.stage = Stage::New { in_use: false };
                self.verify(port, now)
            }
            _ => false,
        }
    }
}

impl Stage {
    fn next(&self) -> Option<Instant> {
        match *self {
            Self::New { .. } => Some(Instant::ZERO),
            Self::Asked { until, .. } => Some(until),
            Self::Ours => None,
            Self::Duplicate { again } => Some(again),
        }
    }
}

impl End {
    const NEVER: Self = Self {
        valid: None,
        unconfirmed: None,
    };

    /// In so many seconds; `u32::MAX`: never.
    fn after(seconds: u32, now: Instant) -> Self {
        let is_finite = seconds != u32::MAX;
        Self {
            valid: is_finite.then(|| now + Duration::from_secs(seconds.into())),
            unconfirmed: None,
        }
    }

    /// It was advertised again, for so many seconds.
    fn renew(&mut self, seconds: u32, now: Instant) {
        let told = Self::after(seconds, now).valid;
        let least = now + LEAST_LIFE;
        if is_later(told, self.valid) || is_later(told, Some(least)) {
            self.valid = told;
        } else if is_later(self.valid, Some(least)) {
            self.valid = Some(least);
        }
        if seconds > 0 {
            self.unconfirmed = None;
        }
    }

    /// What was told is from an earlier life. Restarts that follow each other do not make it longer.
    fn doubt(&mut self, now: Instant) {
        self.unconfirmed.get_or_insert(now + CONFIRMATION);
    }

    fn next(&self) -> Option<Instant> {
        earlier(self.valid, self.unconfirmed)
    }

    fn is_over(&self, now: Instant) -> bool {
        is_due(self.next(), now)
    }
}

/// Whether one end is later than another; `None` is never.
fn is_later(end: Option<Instant>, other: Option<Instant>) -> bool {
    match (end, other) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(end), Some(other)) => end > other,
    }
}

/// The earlier of two plans; `None` is none.
fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn is_due(planned: Option<Instant>, now: Instant) -> bool {
    planned.is_some_and(|planned| planned <= now)
}

/// Of Knuth's MMIX generator: nothing but spreads reports depends on these numbers.
const MULTIPLIER: u64 = 6_364_136_223_846_793_005;
