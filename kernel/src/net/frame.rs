//! UDP over IP over Ethernet, in place: recognise a request in the receive buffer and turn that
//! buffer into its reply.
//!
//! This is the path every NTP request takes, so it is strict instead of general: an untagged
//! Ethernet II frame, an IPv4 header without options or an IPv6 header without extensions, a whole
//! datagram, every length and checksum in agreement. Whatever is not exactly that is not ours, and
//! the caller hands it to the IP stack (which should have a socket on the port and throw away what it
//! gets there: without one it would answer with "port unreachable").
//!
//! IPv4 is here, IPv6 in a module of its own.
//!
//! Sources: RFC 894 (Ethernet II), RFC 791 (IPv4), RFC 768 (UDP), RFC 1071 (checksum), RFC 1122
//! §3.2.1.3 (source addresses that must never be answered), RFC 6864 (the IPv4 ID of an atomic
//! datagram means nothing).

mod ipv6;

use core::net::{IpAddr, Ipv4Addr};

use super::addresses::Addresses;
use super::checksum::Sum;

/// Bytes of the Ethernet, IPv4 and UDP headers together.
pub const HEADERS: usize = UDP + 8;

/// A UDP datagram for us, still in the frame it came in.
#[derive(Debug)]
pub struct UdpRequest<'f> {
    headers: Headers<'f>,
    payload: &'f mut [u8],
}

/// The headers of Ethernet, IP and UDP.
#[derive(Debug)]
enum Headers<'f> {
    V4(&'f mut [u8; HEADERS]),
    V6(&'f mut [u8; ipv6::HEADERS]),
}

/// Recognises an unfragmented, untagged Ethernet II/IP/UDP frame that was sent to exactly
/// `mac`, one of the addresses `ours`, and `port`, and by someone who may be answered.
///
/// `None` means "not ours to answer here" and leaves the frame untouched: another protocol or
/// port, broadcast or multicast on either layer, IP options or extension headers, a fragment,
/// lengths that disagree with each other or with the frame, a wrong checksum (a UDP checksum of
/// zero means "none" in IPv4 and passes; IPv6 has no such thing), a source port of zero (RFC 768: no
/// reply wanted), or a source that is unspecified, loopback, multicast, broadcast, reserved or
/// ourselves. Bytes after the IP datagram are link-layer padding and are ignored.
#[expect(
    clippy::inline_always,
    reason = "it has one caller, and is on the way of every reply"
)]
#[inline(always)]
pub fn udp_request<'f>(
    frame: &'f mut [u8],
    mac: [u8; 6],
    ours: &Addresses,
    port: u16,
) -> Option<UdpRequest<'f>> {
    if ipv6::is_one(frame) {
        return ipv6::udp_request(frame, mac, ours, port);
    }
    let address = ours.v4?;
    let (headers, rest) = frame.split_first_chunk_mut::<HEADERS>()?;
    let (ethernet, ip, udp) = split(headers);

    // Cheapest and most selective first: most frames that are not ours leave here.
    if ethernet[12..14] != ETHERTYPE_IPV4 || ip[0] != VERSION_4_NO_OPTIONS || ip[9] != PROTOCOL_UDP
    {
        return None;
    }
    if port16(udp[2], udp[3]) != port || ethernet[..6] != mac || ip[16..20] != address.octets() {
        return None;
    }
    let source_mac_is_sane = ethernet[6] & GROUP_BIT == 0 && ethernet[6..12] != mac;
    if !source_mac_is_sane || !may_be_answered(source(ip), address) || udp[..2] == [0, 0] {
        return None;
    }

    // Neither "more fragments" nor an offset nor the reserved bit: only "don't fragment" may be set.
    if u16::from_be_bytes([ip[6], ip[7]]) & !DONT_FRAGMENT != 0 {
        return None;
    }
    let datagram = usize::from(u16::from_be_bytes([udp[4], udp[5]]));
    if usize::from(u16::from_be_bytes([ip[2], ip[3]])) != datagram + (UDP - IP) {
        return None;
    }
    let payload = rest.get_mut(..datagram.checked_sub(HEADERS - UDP)?)?;

    if !Sum::of(ip).is_verified() {
        return None;
    }
    let whole = || {
        let headers = pseudo_header(ip, datagram).plus(Sum::of(udp));
        headers.plus(sum_of_payload(payload))
    };
    if udp[6..8] != [0, 0] && !whole().is_verified() {
        return None;
    }
    Some(UdpRequest {
        headers: Headers::V4(headers),
        payload,
    })
}

/// The UDP port that a frame is for, if it is what [`udp_request`] recognises: to choose the
/// `port` to ask that for. Nothing has been checked.
#[must_use]
#[inline]
pub fn udp_port(frame: &[u8]) -> Option<u16> {
    if ipv6::is_one(frame) {
        return ipv6::udp_port(frame);
    }
    let (_, _, udp) = split(frame.first_chunk()?);
    Some(port16(udp[2], udp[3]))
}

/// Whether the frame may carry IPv6 and cannot carry what the IP stack knows.
pub(super) fn is_ipv6(frame: &[u8]) -> bool {
    ipv6::is_one(frame)
}

impl UdpRequest<'_> {
    /// What the datagram carries.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.payload
    }

    /// The sender's port, never 0.
    #[must_use]
    pub fn source_port(&self) -> u16 {
        match &self.headers {
            Headers::V4(headers) => {
                let (_, _, udp) = split(headers);
                port16(udp[0], udp[1])
            }
            Headers::V6(headers) => ipv6::source_port(headers),
        }
    }

    /// The sender's address.
    #[must_use]
    #[inline]
    pub fn source(&self) -> IpAddr {
        match &self.headers {
            Headers::V4(headers) => {
                let (_, ip, _) = split(headers);
                source(ip).into()
            }
            Headers::V6(headers) => ipv6::source(headers).into(),
        }
    }

    /// Turns the frame into the reply that carries `header` and `tail` back to the sender, and
    /// returns the number of bytes to send from the frame's start.
    ///
    /// Every header field is set here and nothing of the request is left behind but its addresses
    /// and ports, exchanged: TTL 64, DSCP 0, ID 0 with "don't fragment" or flow label 0, all checksums
    /// computed.
    /// `None`, and nothing is written, when the request's payload was shorter than the reply's: a
    /// reply never grows beyond its request.
    #[must_use]
    #[inline]
    pub fn answer(self, header: &[u8; 48], tail: &[u8]) -> Option<usize> {
        let length = header.len() + tail.len();
        let (head, rest) = self
            .payload
            .get_mut(..length)?
            .split_first_chunk_mut::<48>()?;
        *head = *header;
        // Mostly there is none, and then this is the whole cost of it.
        if !tail.is_empty() {
            rest.copy_from_slice(tail);
        }

        let headers = match self.headers {
            Headers::V4(headers) => headers,
            Headers::V6(headers) => return Some(ipv6::turn_round(headers, header, tail)),
        };
        let old = *headers;
        let (from_ethernet, from_ip, from_udp) = split(&old);
        headers[..6].copy_from_slice(&from_ethernet[6..12]);
        headers[6..12].copy_from_slice(&from_ethernet[..6]);

        let datagram = HEADERS - UDP + length;
        let ip = &mut headers[IP..UDP];
        ip.copy_from_slice(&REPLY_IP_HEADER);
        ip[2..4].copy_from_slice(&length16(UDP - IP + datagram));
        ip[12..16].copy_from_slice(&from_ip[16..20]);
        ip[16..20].copy_from_slice(&from_ip[12..16]);
        let checksum = Sum::of(ip).checksum();
        ip[10..12].copy_from_slice(&checksum);
        let pseudo = pseudo_header(ip, datagram);

        let udp = &mut headers[UDP..];
        udp[..2].copy_from_slice(&from_udp[2..4]);
        udp[2..4].copy_from_slice(&from_udp[..2]);
        udp[4..6].copy_from_slice(&length16(datagram));
        udp[6..8].copy_from_slice(&[0, 0]);
        let mut whole = pseudo.plus(Sum::of(udp)).plus(Sum::of(header));
        if !tail.is_empty() {
            whole = whole.plus(Sum::of_many(tail));
        }
        udp[6..8].copy_from_slice(&whole.udp_checksum());
        Some(HEADERS + length)
    }
}

/// Whether a datagram from `source` to `ours` may get an answer at all (RFC 1122 §3.2.1.3).
#[inline]
fn may_be_answered(source: Ipv4Addr, ours: Ipv4Addr) -> bool {
    // 0/8 is "this network", 224/4 multicast, 240/4 reserved up to the limited broadcast.
    let [first, ..] = source.octets();
    first != 0 && first < 224 && !source.is_loopback() && source != ours
}

/// The three headers of a frame: 14, 20 and 8 bytes, so the constant indices used on them hold.
#[inline]
fn split(headers: &[u8; HEADERS]) -> (&[u8], &[u8], &[u8]) {
    let (ethernet, rest) = headers.split_at(IP);
    let (ip, udp) = rest.split_at(UDP - IP);
    (ethernet, ip, udp)
}

#[inline]
fn source(ip: &[u8]) -> Ipv4Addr {
    Ipv4Addr::new(ip[12], ip[13], ip[14], ip[15])
}

#[inline]
fn port16(high: u8, low: u8) -> u16 {
    u16::from_be_bytes([high, low])
}

/// A length field; every caller's length is below 2^16 by construction.
#[inline]
fn length16(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

/// The part of the UDP checksum that comes from the IP header: addresses, protocol, UDP length.
#[inline]
fn pseudo_header(ip: &[u8], datagram: usize) -> Sum {
    let protocol_and_length = Sum::of_number(usize::from(PROTOCOL_UDP) + datagram);
    Sum::of(&ip[12..20]).plus(protocol_and_length)
}

/// Of a UDP payload: mostly it is an NTP header.
#[inline]
fn sum_of_payload(payload: &[u8]) -> Sum {
    match payload.split_first_chunk::<48>() {
        Some((header, [])) => Sum::of(header),
        Some((header, rest)) => Sum::of(header).plus(Sum::of_many(rest)),
        None => Sum::of_many(payload),
    }
}

/// Where the IPv4 and UDP headers start.
const IP: usize = 14;
const UDP: usize = IP + 20;

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
/// The group bit of a MAC address's first byte: multicast or broadcast.
const GROUP_BIT: u8 = 1;
const VERSION_4_NO_OPTIONS: u8 = 0x45;
const PROTOCOL_UDP: u8 = 17;
const DONT_FRAGMENT: u16 = 0x4000;

/// Version and length, DSCP 0, length, ID 0, "don't fragment", TTL 64, UDP, checksum, addresses.
const REPLY_IP_HEADER: [u8; 20] = [
    0x45,
    0,
    0,
    0,
    0,
    0,
    0x40,
    0,
    64,
    PROTOCOL_UDP,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
];

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use proptest::prelude::*;
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{
        EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpAddress, IpProtocol,
        Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
    };

    use super::*;

    const OUR_MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
    const THEIR_MAC: [u8; 6] = [0x52, 0x55, 0x0a, 0x00, 0x02, 0x02];
    const US: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
    const THEM: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
    const PORT: u16 = 123;

    /// A frame as smoltcp writes it: the oracle for lengths and checksums.
    fn frame_from(source: Ipv4Addr, source_port: u16, payload: &[u8]) -> Vec<u8> {
        let checksums = ChecksumCapabilities::default();
        let udp = UdpRepr {
            src_port: source_port,
            dst_port: PORT,
        };
        let ip = Ipv4Repr {
            src_addr: source,
            dst_addr: US,
            next_header: IpProtocol::Udp,
            payload_len: udp.header_len() + payload.len(),
            hop_limit: 7,
        };
        let ethernet = EthernetRepr {
            src_addr: EthernetAddress(THEIR_MAC),
            dst_addr: EthernetAddress(OUR_MAC),
            ethertype: EthernetProtocol::Ipv4,
        };
        let mut bytes = std::vec![0; HEADERS + payload.len()];
        let mut frame = EthernetFrame::new_unchecked(&mut bytes);
        ethernet.emit(&mut frame);
        let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
        ip.emit(&mut packet, &checksums);
        let (from, to) = (IpAddress::Ipv4(source), IpAddress::Ipv4(US));
        udp.emit(
            &mut UdpPacket::new_unchecked(packet.payload_mut()),
            &from,
            &to,
            payload.len(),
            |buffer| buffer.copy_from_slice(payload),
            &checksums,
        );
        bytes
    }

    fn request() -> Vec<u8> {
        let mut payload = [0x5a; 48];
        payload[0] = 0x23;
        frame_from(THEM, 40_000, &payload)
    }

    fn parse(frame: &mut [u8]) -> Option<UdpRequest<'_>> {
        udp_request(frame, OUR_MAC, &Addresses::of(Some(US), &[]), PORT)
    }

    /// Recomputes the IP header's checksum after a test has changed the header.
    fn fix_ip(frame: &mut [u8]) {
        Ipv4Packet::new_unchecked(&mut frame[IP..]).fill_checksum();
    }

    fn fix_udp(frame: &mut [u8]) {
        let (from, to) = (source(&frame[IP..]), US);
        UdpPacket::new_unchecked(&mut frame[UDP..])
            .fill_checksum(&IpAddress::Ipv4(from), &IpAddress::Ipv4(to));
    }

    /// Fails the test unless smoltcp accepts the frame as a whole and finds every checksum right.
    fn assert_valid_reply(frame: &[u8], to_mac: [u8; 6], to: Ipv4Addr, to_port: u16, body: &[u8]) {
        let ethernet = EthernetFrame::new_checked(frame).expect("an Ethernet frame");
        assert_eq!(ethernet.dst_addr(), EthernetAddress(to_mac));
        assert_eq!(ethernet.src_addr(), EthernetAddress(OUR_MAC));
        assert_eq!(ethernet.ethertype(), EthernetProtocol::Ipv4);
        let ip = Ipv4Packet::new_checked(ethernet.payload()).expect("an IPv4 packet");
        assert!(ip.verify_checksum());
        assert_eq!((ip.src_addr(), ip.dst_addr()), (US, to));
        assert_eq!((ip.hop_limit(), ip.ident(), ip.dscp()), (64, 0, 0));
        assert!(ip.dont_frag() && !ip.more_frags() && ip.frag_offset() == 0);
        assert_eq!(usize::from(ip.total_len()), frame.len() - IP);
        let udp = UdpPacket::new_checked(ip.payload()).expect("a UDP datagram");
        assert_ne!(udp.checksum(), 0);
        assert!(udp.verify_checksum(&IpAddress::Ipv4(US), &IpAddress::Ipv4(to)));
        assert_eq!((udp.src_port(), udp.dst_port()), (PORT, to_port));
        assert_eq!(udp.payload(), body);
    }

    #[test]
    fn a_golden_request_becomes_a_golden_reply() {
        // Written down byte by byte, with checksums computed apart from this code and smoltcp.
        #[rustfmt::skip]
        let mut frame = [
            0x52, 0x54, 0x00, 0x12, 0x34, 0x56,  0x52, 0x55, 0x0a, 0x00, 0x02, 0x02,  0x08, 0x00,
            0x45, 0xb8, 0x00, 0x4c,  0x12, 0x34, 0x40, 0x00,  0x40, 0x11, 0x0f, 0xa5,
            10, 0, 2, 2,  10, 0, 2, 15,
            0x9c, 0x40, 0x00, 0x7b,  0x00, 0x38, 0x00, 0x00,
            0x23, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8,
        ];
        let request = parse(&mut frame).expect("a request for us");
        assert_eq!(
            (request.source(), request.source_port()),
            (THEM.into(), 40_000)
        );
        assert_eq!((request.payload().len(), request.payload()[0]), (48, 0x23));
        assert_eq!(request.answer(&[0x11; 48], &[]), Some(90));
        #[rustfmt::skip]
        let headers = [
            0x52, 0x55, 0x0a, 0x00, 0x02, 0x02,  0x52, 0x54, 0x00, 0x12, 0x34, 0x56,  0x08, 0x00,
            0x45, 0x00, 0x00, 0x4c,  0x00, 0x00, 0x40, 0x00,  0x40, 0x11, 0x22, 0x91,
            10, 0, 2, 15,  10, 0, 2, 2,
            0x00, 0x7b, 0x9c, 0x40,  0x00, 0x38, 0xb1, 0x18,
        ];
        assert_eq!(frame[..HEADERS], headers);
        assert_eq!(frame[HEADERS..], [0x11; 48]);
    }

    #[test]
    fn replies_satisfy_smoltcp() {
        let mut frame = request();
        let length = parse(&mut frame).and_then(|request| request.answer(&[0x33; 48], &[]));
        assert_eq!(length, Some(90));
        assert_valid_reply(&frame, THEIR_MAC, THEM, 40_000, &[0x33; 48]);
    }

    #[test]
    fn a_longer_request_gets_a_plain_reply_and_a_shorter_one_none() {
        let mut frame = frame_from(THEM, 123, &[7; 77]);
        let length = parse(&mut frame)
            .and_then(|request| request.answer(&[1; 48], &[]))
            .expect("room");
        assert_valid_reply(&frame[..length], THEIR_MAC, THEM, 123, &[1; 48]);

        for size in 0..48 {
            let mut frame = frame_from(THEM, 123, &std::vec![7; size]);
            let before = frame.clone();
            let request = parse(&mut frame).expect("a datagram for us");
            assert_eq!(request.payload().len(), size);
            assert_eq!(request.answer(&[1; 48], &[]), None);
            assert_eq!(frame, before);
        }
    }

    #[test]
    fn a_tail_needs_as_much_room() {
        for (room, tail) in [(48, 0), (68, 20), (96, 48), (100, 20)] {
            let mut frame = frame_from(THEM, 40_000, &std::vec![7; room]);
            let request = parse(&mut frame).expect("a datagram for us");
            let length = request.answer(&[1; 48], &std::vec![2; tail]).expect("room");
            let body = [std::vec![1; 48], std::vec![2; tail]].concat();
            assert_valid_reply(&frame[..length], THEIR_MAC, THEM, 40_000, &body);
        }
        for (room, tail) in [(48, 4), (67, 20), (48, 20), (1000, 956)] {
            let mut frame = frame_from(THEM, 40_000, &std::vec![7; room]);
            let before = frame.clone();
            let request = parse(&mut frame).expect("a datagram for us");
            assert_eq!(request.answer(&[1; 48], &std::vec![2; tail]), None);
            assert_eq!(frame, before);
        }
    }

    #[test]
    fn a_checksum_that_sums_to_zero_is_sent_as_ones() {
        let mut frame = request();
        let mut body = [0; 48];
        let _ = parse(&mut frame)
            .and_then(|request| request.answer(&body, &[]))
            .expect("room");
        // Put the missing amount into the body: the sum becomes all ones, its complement zero.
        body[..2].copy_from_slice(&frame[UDP + 6..HEADERS]);
        let mut frame = request();
        let _ = parse(&mut frame)
            .and_then(|request| request.answer(&body, &[]))
            .expect("room");
        assert_eq!(frame[UDP + 6..HEADERS], [0xff, 0xff]);
        assert_valid_reply(&frame, THEIR_MAC, THEM, 40_000, &body);
    }

    #[test]
    fn accepted_variations() {
        type Change = fn(&mut Vec<u8>);
        let table: &[(&str, Change)] = &[
            ("no UDP checksum", |f| f[UDP + 6..HEADERS].fill(0)),
            ("don't fragment", |f| f[IP + 6] = 0x40),
            ("any TTL", |f| f[IP + 8] = 0),
            ("any DSCP and ECN", |f| f[IP + 1] = 0xff),
            ("any ID", |f| f[IP + 4] = 0xab),
            ("padding after the datagram", |f| f.extend([0xee; 20])),
        ];
        for (name, change) in table {
            let mut frame = request();
            change(&mut frame);
            fix_ip(&mut frame);
            let length = parse(&mut frame).and_then(|request| request.answer(&[9; 48], &[]));
            assert_eq!(length, Some(90), "{name}");
            assert_valid_reply(&frame[..90], THEIR_MAC, THEM, 40_000, &[9; 48]);
        }
    }

    #[test]
    fn refused_variations() {
        type Change = fn(&mut Vec<u8>);
        // Each row breaks one thing; checksums are made right again unless they are what is broken.
        let table: &[(&str, Change)] = &[
            ("to broadcast", |f| f[..6].fill(0xff)),
            ("to multicast", |f| f[0] |= 1),
            ("to another MAC", |f| f[5] ^= 1),
            ("from a multicast MAC", |f| f[6] |= 1),
            ("from our MAC", |f| f[6..12].copy_from_slice(&OUR_MAC)),
            ("ARP", |f| f[13] = 0x06),
            ("IPv6", |f| f[12..14].copy_from_slice(&[0x86, 0xdd])),
            ("802.3 length", |f| f[12..14].copy_from_slice(&[0, 76])),
            ("VLAN tag", |f| {
                f.splice(12..12, [0x81, 0x00, 0x00, 0x05]);
            }),
            ("IP version", |f| f[IP] = 0x55),
            ("IP options", |f| {
                f.splice(UDP..UDP, [1, 1, 1, 0]);
                f[IP] = 0x46;
                f[IP + 3] += 4;
            }),
            ("header length below five", |f| f[IP] = 0x44),
            ("total length past the frame", |f| f[IP + 3] += 1),
            ("total length below the datagram", |f| f[IP + 3] -= 1),
            ("both lengths past the frame", |f| {
                f[IP + 3] += 1;
                f[UDP + 5] += 1;
            }),
            ("UDP length below its header", |f| {
                f[IP + 3] = 20 + 7;
                f[UDP + 5] = 7;
            }),
            ("UDP length zero", |f| {
                f[IP + 3] = 20;
                f[UDP + 5] = 0;
            }),
            ("more fragments", |f| f[IP + 6] = 0x20),
            ("fragment offset", |f| f[IP + 7] = 1),
            ("large fragment offset", |f| f[IP + 6] = 0x10),
            ("reserved flag", |f| f[IP + 6] = 0x80),
            ("TCP", |f| f[IP + 9] = 6),
            ("ICMP", |f| f[IP + 9] = 1),
            ("to another address", |f| f[IP + 19] ^= 1),
            ("to the limited broadcast", |f| {
                f[IP + 16..IP + 20].fill(0xff);
            }),
            ("from 0.0.0.0", |f| f[IP + 12..IP + 16].fill(0)),
            ("from 0/8", |f| f[IP + 12] = 0),
            ("from loopback", |f| f[IP + 12] = 127),
            ("from multicast", |f| f[IP + 12] = 224),
            ("from 240/4", |f| f[IP + 12] = 240),
            ("from the limited broadcast", |f| {
                f[IP + 12..IP + 16].fill(0xff);
            }),
            ("from ourselves", |f| {
                f[IP + 12..IP + 16].copy_from_slice(&US.octets());
            }),
            ("from port 0", |f| f[UDP..UDP + 2].fill(0)),
            ("to another port", |f| f[UDP + 3] ^= 1),
            ("empty", Vec::clear),
            ("shorter than the headers", |f| f.truncate(HEADERS - 1)),
        ];
        for (name, change) in table {
            let mut frame = request();
            change(&mut frame);
            if frame.len() >= HEADERS {
                frame[UDP + 6..HEADERS].fill(0);
                if frame[IP] == 0x45 {
                    fix_ip(&mut frame);
                }
            }
            let before = frame.clone();
            assert!(parse(&mut frame).is_none(), "{name}");
            assert_eq!(frame, before, "{name}");
        }
        for ours in [None, Some(Ipv4Addr::UNSPECIFIED)] {
            let ours = Addresses::of(ours, &[]);
            assert!(udp_request(&mut request(), OUR_MAC, &ours, PORT).is_none());
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        for byte in 0..HEADERS + 48 {
            for bit in 0..8 {
                let mut frame = request();
                frame[byte] ^= 1 << bit;
                // The sender's MAC is not under any checksum: another sender is another request.
                let harmless = (6..12).contains(&byte) && frame[6] & 1 == 0;
                assert_eq!(
                    parse(&mut frame).is_some(),
                    harmless,
                    "byte {byte} bit {bit}"
                );
            }
        }
    }

    #[test]
    fn checksums_agree_with_smoltcp_at_every_length() {
        for length in 0..=1472 {
            let payload: Vec<u8> = (0..length)
                .map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
                .collect();
            assert!(
                parse(&mut frame_from(THEM, 5, &payload)).is_some(),
                "length {length}"
            );
        }
        let ones = std::vec![0xff; 1472];
        assert!(parse(&mut frame_from(THEM, 0xffff, &ones)).is_some());
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(mut frame in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(request) = parse(&mut frame) {
                let _ = request.answer(&[0; 48], &[]);
            }
        }

        /// Whatever is answered is a valid frame to the sender, however the request was mangled.
        #[test]
        fn mangled_requests_get_a_valid_reply_or_none(
            payload in prop::collection::vec(any::<u8>(), 0..200),
            padding in 0_usize..30,
            body: [u8; 48],
            at in prop::collection::vec((0_usize..HEADERS + 8, any::<u8>()), 0..4),
            cut in prop::option::of(0_usize..250),
            repair: bool,
        ) {
            let mut frame = frame_from(THEM, 40_000, &payload);
            frame.extend(core::iter::repeat_n(0xaa, padding));
            for (offset, value) in at {
                if let Some(byte) = frame.get_mut(offset) {
                    *byte = value;
                }
            }
            if let Some(cut) = cut {
                frame.truncate(cut);
            }
            if repair && frame.len() >= HEADERS && frame[IP] == 0x45 {
                fix_ip(&mut frame);
                if UdpPacket::new_checked(&frame[UDP..]).is_ok() {
                    fix_udp(&mut frame);
                }
            }
            let to_mac: [u8; 6] = frame.get(6..12).map_or([0; 6], |mac| mac.try_into().expect("six"));
            if let Some(request) = parse(&mut frame) {
                let IpAddr::V4(to) = request.source() else { panic!("IPv6") };
                let to_port = request.source_port();
                let size = request.payload().len();
                let length = request.answer(&body, &[]);
                prop_assert_eq!(length.is_some(), size >= 48);
                if let Some(length) = length {
                    prop_assert!(length <= HEADERS + size);
                    assert_valid_reply(&frame[..length], to_mac, to, to_port, &body);
                }
            }
        }
    }
}
