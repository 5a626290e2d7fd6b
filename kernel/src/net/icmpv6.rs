//! `ICMPv6`, which is all of IPv6 here beside the service: echo, neighbours, routers, listeners.
//!
//! Nothing of it needs the IP stack, because whatever we send is an answer, and goes back to the MAC address
//! that the question came from, or is for a group: there is no neighbour to look up and no route to
//! choose, hence nothing to flood or to poison. (smoltcp's IPv6 would make the image 40 KB larger. As we
//! read it, it lets no processor sleep any more once its first questions for a router are unanswered, lets
//! any advertisement end any address, and neither detects nor defends duplicate ones.) This module reads
//! and writes the messages; `inet6` decides about them.
//!
//! Sources: RFC 4443 (`ICMPv6`), RFC 4861 (neighbour discovery), RFC 4862 (address configuration), RFC 3810
//! (listeners), RFC 4291 §2.7.1 (solicited-node groups), RFC 2464 §7 (groups on Ethernet).

use core::net::Ipv6Addr;

use super::checksum::Sum;
use super::port::{Frame, FramePort};

/// A message that others sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message<'f> {
    /// A ping.
    Echo { from: Ipv6Addr, to: Ipv6Addr },
    /// The machine at `mac` asks who has `target`.
    Solicitation {
        from: Ipv6Addr,
        mac: [u8; 6],
        target: Ipv6Addr,
    },
    /// A router tells of itself and of prefixes.
    RouterAdvertisement(RouterAdvertisement<'f>),
    /// The machine at `mac` would like to have this address, and asks whether somebody has it.
    Probe { target: Ipv6Addr, mac: [u8; 6] },
    /// The machine at `mac` says that it has this address.
    Claim { target: Ipv6Addr, mac: [u8; 6] },
    /// Somebody asks what we listen to.
    ListenerQuery,
}

/// What a router tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RouterAdvertisement<'f> {
    options: &'f [u8],
}

/// A prefix of which addresses may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    /// Its 64 bits, and zeros.
    pub(super) network: Ipv6Addr,
    /// All of it can be reached without a router.
    pub(super) on_link: bool,
    /// For how many seconds addresses of it may be used; `u32::MAX`: for ever.
    pub(super) valid: u32,
}

impl<'f> Message<'f> {
    /// Reads a frame that is for `ours` or a group; `None` for every other and for every malformed one.
    pub(super) fn parse(frame: &'f [u8], ours: [u8; 6]) -> Option<Self> {
        let packet = Packet::parse(frame, ours)?;
        let Packet {
            source,
            destination,
            mac,
            ..
        } = packet;
        let is_somebody = !is_special(source) && !source.is_multicast();
        let (header, body) = packet.message.split_first_chunk::<4>()?;
        let [kind, code, ..] = *header;
        // Hop limit 255: no router has passed it on. A query has 1, and options say that routers look.
        let is_near = packet.hop_limit == 255 && !packet.has_options && code == 0;
        match kind {
            ECHO_REQUEST if code == 0 && !packet.has_options && is_somebody => Some(Self::Echo {
                from: source,
                to: destination,
            }),
            ROUTER_ADVERTISEMENT if is_near && source.is_unicast_link_local() => {
                let (_, options) = body.split_first_chunk::<12>()?;
                let is_whole = Options(options).all(|option| option.is_ok());
                is_whole.then_some(Self::RouterAdvertisement(RouterAdvertisement { options }))
            }
            NEIGHBOR_SOLICITATION if is_near => {
                let target = target(body)?;
                let is_to_group = destination == solicited_node(target);
                match source {
                    Ipv6Addr::UNSPECIFIED if is_to_group => Some(Self::Probe { target, mac }),
                    from if is_somebody && (is_to_group || destination == target) => {
                        Some(Self::Solicitation { from, mac, target })
                    }
                    _ => None,
                }
            }
            NEIGHBOR_ADVERTISEMENT if is_near => Some(Self::Claim {
                target: target(body)?,
                mac,
            }),
            LISTENER_QUERY if packet.hop_limit == 1 && packet.has_options => {
                let is_whole = source.is_unicast_link_local() && body.len() >= 20;
                is_whole.then_some(Self::ListenerQuery)
            }
            _ => None,
        }
    }
}

impl RouterAdvertisement<'_> {
    /// The prefixes of 64 bits that addresses may be made of; others are passed over (RFC 4862 §5.5.3).
    pub(super) fn prefixes(&self) -> impl Iterator<Item = Prefix> {
        let information = Options(self.options).filter_map(|option| match option {
            Ok((PREFIX_INFORMATION, data)) => data.first_chunk::<30>(),
            _ => None,
        });
        information.filter_map(|data| {
            let long = |at: usize| {
                let bytes = data.get(at..).and_then(|bytes| bytes.first_chunk());
                bytes.map_or(0, |bytes| u32::from_be_bytes(*bytes))
            };
            let (length, flags, valid, preferred) = (data[0], data[1], long(2), long(6));
            let network = data.last_chunk::<16>()?;
            let network = Ipv6Addr::from_bits(u128::from_be_bytes(*network) >> 64 << 64);
            // 0/8 has all that is special and near, and no networks.
            let is_network = network.octets()[0] != 0
                && !network.is_multicast()
                && !network.is_unicast_link_local();
            let is_ours = flags & AUTONOMOUS != 0 && length == 64 && preferred <= valid;
            (is_network && is_ours).then_some(Prefix {
                network,
                on_link: flags & ON_LINK != 0,
                valid,
            })
        })
    }
}

/// Makes a frame with an echo request that with the echo, from `source`, which is at `ours`. Returns its
/// length.
pub(super) fn turn_round(frame: &mut [u8], ours: [u8; 6], source: Ipv6Addr) -> Option<usize> {
    let (headers, rest) = frame.split_first_chunk_mut::<54>()?;
    let payload = u16::from_be_bytes([headers[18], headers[19]]).into();
    let message = rest.get_mut(..payload)?;
    headers.copy_within(6..12, 0);
    headers[6..12].copy_from_slice(&ours);
    headers[14..18].copy_from_slice(&[6 << 4, 0, 0, 0]);
    headers[21] = HOP_LIMIT;
    headers.copy_within(22..38, 38);
    headers[22..38].copy_from_slice(&source.octets());
    *message.first_mut()? = ECHO_REPLY;
    fill_checksum(&headers[22..], message);
    Some(headers.len() + payload)
}

/// Sends: is there a router?
pub(super) fn solicit_router<P: FramePort>(port: &mut P, source: Ipv6Addr) {
    let mut message = [0; 8];
    message[0] = ROUTER_SOLICITATION;
    send(port, source, ALL_ROUTERS, None, &mut message);
}

/// Sends: has anybody this address?
pub(super) fn probe<P: FramePort>(port: &mut P, target: Ipv6Addr) {
    let mut message = [0; 24];
    message[0] = NEIGHBOR_SOLICITATION;
    message[8..].copy_from_slice(&target.octets());
    let group = solicited_node(target);
    send(port, Ipv6Addr::UNSPECIFIED, group, None, &mut message);
}

/// Sends: this address is ours. To `who` asked, at its MAC address; or to all, because somebody would like
/// to have it. `is_certain`: whatever was known before.
pub(super) fn claim<P: FramePort>(
    port: &mut P,
    target: Ipv6Addr,
    who: Option<(Ipv6Addr, [u8; 6])>,
    is_certain: bool,
) {
    let mut message = [0; 32];
    message[0] = NEIGHBOR_ADVERTISEMENT;
    message[4] = if who.is_some() { SOLICITED } else { 0 } | if is_certain { OVERRIDE } else { 0 };
    message[8..24].copy_from_slice(&target.octets());
    message[24..26].copy_from_slice(&[TARGET_LINK_LAYER_ADDRESS, 1]);
    message[26..].copy_from_slice(&port.mac());
    let to = who.map_or(ALL_NODES, |(address, _)| address);
    send(port, target, to, who.map(|(_, mac)| mac), &mut message);
}

/// Sends which groups we listen to because of these addresses, so that switches let them through.
pub(super) fn report_groups<P: FramePort>(
    port: &mut P,
    source: Ipv6Addr,
    addresses: impl Iterator<Item = Ipv6Addr>,
) {
    const RECORD: usize = 20;
    let mut message = [0; 8 + super::addresses::IPV6 * RECORD];
    let (header, records) = message.split_at_mut(8);
    let mut count: u8 = 0;
    for (address, record) in addresses.zip(records.as_chunks_mut::<RECORD>().0) {
        record[0] = EXCLUDES_NOTHING;
        record[4..].copy_from_slice(&solicited_node(address).octets());
        count += 1;
    }
    header[0] = LISTENER_REPORT;
    header[7] = count;
    let length = 8 + usize::from(count) * RECORD;
    if let (1.., Some(message)) = (count, message.get_mut(..length)) {
        send(port, source, ALL_LISTENER_ROUTERS, None, message);
    }
}

/// The group that whoever looks for this address asks in.
pub(super) fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    const GROUP: u128 = 0xff02_0000_0000_0000_0000_0001_ff00_0000;
    Ipv6Addr::from_bits(GROUP | address.to_bits() & 0xff_ffff)
}

/// A message and what carries it.
struct Packet<'f> {
    mac: [u8; 6],
    source: Ipv6Addr,
    destination: Ipv6Addr,
    hop_limit: u8,
    /// There is a hop-by-hop options header.
    has_options: bool,
    /// From its type on; its checksum is right.
    message: &'f [u8],
}

impl<'f> Packet<'f> {
    fn parse(frame: &'f [u8], ours: [u8; 6]) -> Option<Self> {
        let (ethernet, rest) = frame.split_first_chunk::<14>()?;
        let (ip, rest) = rest.split_first_chunk::<40>()?;
        // A device without filters hands over what is for others too.
        let is_for_us = ethernet[..6] == ours || ethernet[0] & GROUP_BIT != 0;
        let is_from_one = ethernet[6] & GROUP_BIT == 0;
        if !is_for_us || !is_from_one || ethernet[12..] != ETHERTYPE || ip[0] >> 4 != 6 {
            return None;
        }
        let payload = rest.get(..usize::from(u16::from_be_bytes([ip[4], ip[5]])))?;
        let (next, message) = match (ip[6], payload) {
            (HOP_BY_HOP, &[next, length, ..]) => {
                (next, payload.get(8 + usize::from(length) * 8..)?)
            }
            (next, _) => (next, payload),
        };
        let sum = || pseudo_header(&ip[8..], message.len()).plus(Sum::of_many(message));
        if next != ICMPV6 || !sum().is_verified() {
            return None;
        }
        let address = |at: usize| {
            let octets = ip.get(at..)?.first_chunk::<16>()?;
            Some(Ipv6Addr::from(*octets))
        };
        Some(Self {
            mac: *ethernet[6..].first_chunk()?,
            source: address(8)?,
            destination: address(24)?,
            hop_limit: ip[7],
            has_options: ip[6] == HOP_BY_HOP,
            message,
        })
    }
}

/// The options of a message, each with its kind; an error, the last, where they are malformed.
struct Options<'f>(&'f [u8]);

impl<'f> Iterator for Options<'f> {
    type Item = Result<(u8, &'f [u8]), ()>;

    fn next(&mut self) -> Option<Self::Item> {
        let (&kind, rest) = self.0.split_first()?;
        let length = rest.first().map_or(0, |length| usize::from(*length) * 8);
        let Some((option, rest)) = self.0.split_at_checked(length).filter(|_| length > 0) else {
            self.0 = &[];
            return Some(Err(()));
        };
        self.0 = rest;
        Some(Ok((kind, option.get(2..).unwrap_or_default())))
    }
}

/// What a neighbour message is about.
fn target(body: &[u8]) -> Option<Ipv6Addr> {
    let target = Ipv6Addr::from(*body.get(4..)?.first_chunk::<16>()?);
    (!target.is_multicast() && !target.is_unspecified()).then_some(target)
}

/// Whether an address is never on a wire but as nobody's, `::`: loopback, and IPv4 addresses in IPv6 clothes
/// (`::/80`).
pub(super) fn is_special(address: Ipv6Addr) -> bool {
    address.octets()[..10] == [0; 10]
}

/// Sends a message, to a MAC address or to a group.
fn send<P: FramePort>(
    port: &mut P,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    mac: Option<[u8; 6]>,
    message: &mut [u8],
) {
    let Some(mut frame) = port.allocate() else {
        return;
    };
    // Routers look at what says what is listened to, and let it end there.
    let is_report = destination == ALL_LISTENER_ROUTERS;
    let options: &[u8] = if is_report { &ROUTER_ALERT } else { &[] };
    let (next, hop_limit) = if is_report {
        (HOP_BY_HOP, 1)
    } else {
        (ICMPV6, 255)
    };
    let payload = u16::try_from(options.len() + message.len()).unwrap_or(0);

    let mut headers = [0; 54];
    let [.., a, b, c, d] = destination.octets();
    headers[..6].copy_from_slice(&mac.unwrap_or([0x33, 0x33, a, b, c, d]));
    headers[6..12].copy_from_slice(&port.mac());
    headers[12..14].copy_from_slice(&ETHERTYPE);
    headers[14] = 6 << 4;
    headers[18..20].copy_from_slice(&payload.to_be_bytes());
    headers[20..22].copy_from_slice(&[next, hop_limit]);
    headers[22..38].copy_from_slice(&source.octets());
    headers[38..].copy_from_slice(&destination.octets());
    fill_checksum(&headers[22..], message);

    frame.set_length(headers.len() + usize::from(payload));
    let parts = headers.iter().chain(options).chain(message.iter());
    let bytes = frame.bytes_mut().iter_mut();
    bytes.zip(parts).for_each(|(to, from)| *to = *from);
    port.send(frame);
}

/// Writes the checksum of a message between these addresses.
fn fill_checksum(addresses: &[u8], message: &mut [u8]) {
    if let Some(field) = message.get_mut(2..4) {
        field.copy_from_slice(&[0, 0]);
    }
    let sum = pseudo_header(addresses, message.len()).plus(Sum::of_many(message));
    if let Some(field) = message.get_mut(2..4) {
        field.copy_from_slice(&sum.checksum());
    }
}

/// The part of a checksum that is not in the message.
fn pseudo_header(addresses: &[u8], length: usize) -> Sum {
    let protocol_and_length = Sum::of_number(usize::from(ICMPV6) + length);
    Sum::of_many(addresses).plus(protocol_and_length)
}

const ETHERTYPE: [u8; 2] = [0x86, 0xdd];
const GROUP_BIT: u8 = 1;
/// Of echoes; the others have 255.
const HOP_LIMIT: u8 = 64;
const HOP_BY_HOP: u8 = 0;
const ICMPV6: u8 = 58;
/// A hop-by-hop header before `ICMPv6`: router alert (RFC 2711) for listener messages, and padding.
const ROUTER_ALERT: [u8; 8] = [ICMPV6, 0, 5, 2, 0, 0, 1, 0];

pub(super) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const ALL_LISTENER_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);

const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;
const LISTENER_QUERY: u8 = 130;
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOR_SOLICITATION: u8 = 135;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;
/// A report of listeners, version 2, and the record that says "everything sent to this group".
const LISTENER_REPORT: u8 = 143;
const EXCLUDES_NOTHING: u8 = 2;

/// Flags of a neighbour advertisement: you asked; believe this, whatever you knew.
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
const TARGET_LINK_LAYER_ADDRESS: u8 = 2;
const PREFIX_INFORMATION: u8 = 3;
const ON_LINK: u8 = 0x80;
const AUTONOMOUS: u8 = 0x40;
