//! UDP over IPv6 over Ethernet, as strictly as over IPv4.
//!
//! Out of line where it is called: what most clients send is IPv4, and that path is the one that is
//! counted in instructions.
//!
//! Sources: RFC 2464 (Ethernet), RFC 8200 (IPv6; §8.1: a UDP checksum is a must), RFC 4291
//! (addresses).

use core::net::Ipv6Addr;

use super::{Addresses, GROUP_BIT, Headers, PROTOCOL_UDP, Sum, UdpRequest, length16, port16};

/// Bytes of the Ethernet, IPv6 and UDP headers together.
pub(super) const HEADERS: usize = UDP + 8;

/// Whether the frame may carry IPv6 and cannot carry IPv4: one byte decides, because everything else is
/// checked here, and what most clients send must not wait for it.
#[inline]
pub(super) fn is_one(frame: &[u8]) -> bool {
    frame.get(13) == Some(&ETHERTYPE[1])
}

/// As the one for IPv4. An IPv6 header without extensions, thus without fragments.
#[inline(never)]
pub(super) fn udp_request<'f>(
    frame: &'f mut [u8],
    mac: [u8; 6],
    ours: &Addresses,
    port: u16,
) -> Option<UdpRequest<'f>> {
    let (headers, rest) = frame.split_first_chunk_mut::<HEADERS>()?;
    let (ethernet, ip, udp) = split(headers);
    if ethernet[12..14] != ETHERTYPE || ip[0] >> 4 != 6 || ip[6] != PROTOCOL_UDP {
        return None;
    }
    let (from, to) = (address(ip, SOURCE), address(ip, DESTINATION));
    if port16(udp[2], udp[3]) != port || ethernet[..6] != mac || !ours.v6().contains(&to) {
        return None;
    }
    let source_mac_is_sane = ethernet[6] & GROUP_BIT == 0 && ethernet[6..12] != mac;
    if !source_mac_is_sane || !may_be_answered(from, ours) || udp[..2] == [0, 0] {
        return None;
    }
    let datagram = usize::from(u16::from_be_bytes([udp[4], udp[5]]));
    if usize::from(u16::from_be_bytes([ip[4], ip[5]])) != datagram || udp[6..8] == [0, 0] {
        return None;
    }
    let payload = rest.get_mut(..datagram.checked_sub(HEADERS - UDP)?)?;
    let whole = pseudo_header(ip, datagram).plus(Sum::of_many(udp));
    if !whole.plus(Sum::of_many(payload)).is_verified() {
        return None;
    }
    Some(UdpRequest {
        headers: Headers::V6(headers),
        payload,
    })
}

#[inline(never)]
pub(super) fn udp_port(frame: &[u8]) -> Option<u16> {
    let (ethernet, _, udp) = split(frame.first_chunk()?);
    (ethernet[12..14] == ETHERTYPE).then(|| port16(udp[2], udp[3]))
}

pub(super) fn source_port(headers: &[u8; HEADERS]) -> u16 {
    let (_, _, udp) = split(headers);
    port16(udp[0], udp[1])
}

pub(super) fn source(headers: &[u8; HEADERS]) -> Ipv6Addr {
    let (_, ip, _) = split(headers);
    address(ip, SOURCE)
}

/// Makes the headers those of the reply with this payload, and returns the length of its frame.
#[inline(never)]
pub(super) fn turn_round(headers: &mut [u8; HEADERS], header: &[u8; 48], tail: &[u8]) -> usize {
    let old = *headers;
    let (from_ethernet, from_ip, from_udp) = split(&old);
    headers[..6].copy_from_slice(&from_ethernet[6..12]);
    headers[6..12].copy_from_slice(&from_ethernet[..6]);

    let length = header.len() + tail.len();
    let datagram = HEADERS - UDP + length;
    let ip = &mut headers[IP..UDP];
    // Version; traffic class 0, flow label 0.
    ip[..4].copy_from_slice(&[6 << 4, 0, 0, 0]);
    ip[4..6].copy_from_slice(&length16(datagram));
    ip[6..8].copy_from_slice(&[PROTOCOL_UDP, HOP_LIMIT]);
    ip[SOURCE..DESTINATION].copy_from_slice(&from_ip[DESTINATION..]);
    ip[DESTINATION..].copy_from_slice(&from_ip[SOURCE..DESTINATION]);
    let pseudo = pseudo_header(ip, datagram);

    let udp = &mut headers[UDP..];
    udp[..2].copy_from_slice(&from_udp[2..4]);
    udp[2..4].copy_from_slice(&from_udp[..2]);
    udp[4..6].copy_from_slice(&length16(datagram));
    udp[6..8].copy_from_slice(&[0, 0]);
    let whole = [&*udp, header, tail]
        .map(Sum::of_many)
        .into_iter()
        .fold(pseudo, Sum::plus);
    udp[6..8].copy_from_slice(&whole.udp_checksum());
    HEADERS + length
}

/// Whether a datagram from `source` may get an answer at all: nobody, loopback, and IPv4 addresses in
/// IPv6 clothes (`::/80`) are never on a wire, a group is nobody, and we do not write to ourselves.
fn may_be_answered(source: Ipv6Addr, ours: &Addresses) -> bool {
    source.octets()[..10] != [0; 10] && !source.is_multicast() && !ours.v6().contains(&source)
}

/// The three headers of a frame: 14, 40 and 8 bytes, so the constant indices used on them hold.
fn split(headers: &[u8; HEADERS]) -> (&[u8], &[u8], &[u8]) {
    let (ethernet, rest) = headers.split_at(IP);
    let (ip, udp) = rest.split_at(UDP - IP);
    (ethernet, ip, udp)
}

/// The address at `offset`, [`SOURCE`] or [`DESTINATION`], of an IPv6 header.
fn address(ip: &[u8], offset: usize) -> Ipv6Addr {
    let octets = ip.get(offset..).and_then(|bytes| bytes.first_chunk());
    octets.map_or(Ipv6Addr::UNSPECIFIED, |octets| Ipv6Addr::from(*octets))
}

/// The part of the UDP checksum that comes from the IP header: addresses, protocol, UDP length.
fn pseudo_header(ip: &[u8], datagram: usize) -> Sum {
    let protocol_and_length = Sum::of_number(usize::from(PROTOCOL_UDP) + datagram);
    Sum::of_many(&ip[SOURCE..]).plus(protocol_and_length)
}

/// Where the IPv6 and UDP headers start.
const IP: usize = 14;
const UDP: usize = IP + 40;
/// Where the addresses start in an IPv6 header.
const SOURCE: usize = 8;
const DESTINATION: usize = 24;

const ETHERTYPE: [u8; 2] = [0x86, 0xdd];
const HOP_LIMIT: u8 = 64;

#[cfg(test)]
mod tests {
    extern crate std;
    use core::net::IpAddr;
    use std::vec::Vec;

    use proptest::prelude::*;
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{
        EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpAddress, IpProtocol,
        Ipv6Packet, Ipv6Repr, UdpPacket, UdpRepr,
    };

    use super::super::{udp_port, udp_request};
    use super::{Addresses, HEADERS, IP, UDP, UdpRequest};
    use core::net::Ipv6Addr;

    const OUR_MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
    const THEIR_MAC: [u8; 6] = [0x52, 0x55, 0x0a, 0x00, 0x02, 0x02];
    const US: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5054, 0xff, 0xfe12, 0x3456);
    const US_TOO: Ipv6Addr = Ipv6Addr::new(0xfd00, 7, 7, 7, 0, 0, 0, 2);
    const THEM: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
    const PORT: u16 = 123;

    /// A frame as smoltcp writes it: the oracle for lengths and checksums.
    fn frame_to(to: Ipv6Addr, source_port: u16, payload: &[u8]) -> Vec<u8> {
        let udp = UdpRepr {
            src_port: source_port,
            dst_port: PORT,
        };
        let ip = Ipv6Repr {
            src_addr: THEM,
            dst_addr: to,
            next_header: IpProtocol::Udp,
            payload_len: udp.header_len() + payload.len(),
            hop_limit: 7,
        };
        let ethernet = EthernetRepr {
            src_addr: EthernetAddress(THEIR_MAC),
            dst_addr: EthernetAddress(OUR_MAC),
            ethertype: EthernetProtocol::Ipv6,
        };
        let mut bytes = std::vec![0; HEADERS + payload.len()];
        let mut frame = EthernetFrame::new_unchecked(&mut bytes);
        ethernet.emit(&mut frame);
        let mut packet = Ipv6Packet::new_unchecked(frame.payload_mut());
        ip.emit(&mut packet);
        udp.emit(
            &mut UdpPacket::new_unchecked(packet.payload_mut()),
            &IpAddress::Ipv6(THEM),
            &IpAddress::Ipv6(to),
            payload.len(),
            |buffer| buffer.copy_from_slice(payload),
            &ChecksumCapabilities::default(),
        );
        bytes
    }

    fn request() -> Vec<u8> {
        let mut payload = [0x5a; 48];
        payload[0] = 0x23;
        frame_to(US, 40_000, &payload)
    }

    fn parse(frame: &mut [u8]) -> Option<UdpRequest<'_>> {
        let ours = Addresses::of(None, &[US, US_TOO]);
        udp_request(frame, OUR_MAC, &ours, PORT)
    }

    /// Recomputes the UDP checksum after a test has changed headers, by the frame's own addresses.
    fn fix_udp(frame: &mut [u8]) {
        let ip = Ipv6Packet::new_unchecked(&frame[IP..]);
        let (from, to) = (ip.src_addr(), ip.dst_addr());
        UdpPacket::new_unchecked(&mut frame[UDP..])
            .fill_checksum(&IpAddress::Ipv6(from), &IpAddress::Ipv6(to));
    }

    /// Fails the test unless smoltcp accepts the frame as a whole and finds the checksum right.
    fn assert_valid_reply(frame: &[u8], mac: [u8; 6], ours: Ipv6Addr, to: Ipv6Addr, body: &[u8]) {
        let ethernet = EthernetFrame::new_checked(frame).expect("an Ethernet frame");
        assert_eq!(ethernet.dst_addr(), EthernetAddress(mac));
        assert_eq!(ethernet.src_addr(), EthernetAddress(OUR_MAC));
        assert_eq!(ethernet.ethertype(), EthernetProtocol::Ipv6);
        let ip = Ipv6Packet::new_checked(ethernet.payload()).expect("an IPv6 packet");
        assert_eq!(
            (ip.version(), ip.traffic_class(), ip.flow_label()),
            (6, 0, 0)
        );
        assert_eq!((ip.src_addr(), ip.dst_addr()), (ours, to));
        assert_eq!(ip.hop_limit(), 64);
        assert_eq!(usize::from(ip.payload_len()), frame.len() - UDP);
        let udp = UdpPacket::new_checked(ip.payload()).expect("a UDP datagram");
        assert_ne!(udp.checksum(), 0);
        assert!(udp.verify_checksum(&IpAddress::Ipv6(ours), &IpAddress::Ipv6(to)));
        assert_eq!(udp.src_port(), PORT);
        assert_eq!(udp.payload(), body);
    }

    #[test]
    fn a_golden_request_becomes_a_golden_reply() {
        // Written down byte by byte, with checksums computed apart from this code and smoltcp.
        #[rustfmt::skip]
        let mut frame = [
            0x52, 0x54, 0x00, 0x12, 0x34, 0x56,  0x52, 0x55, 0x0a, 0x00, 0x02, 0x02,  0x86, 0xdd,
            0x6b, 0x8a, 0xbc, 0xde,  0x00, 0x38,  17, 1,
            0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2,
            0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x50, 0x54, 0, 0xff, 0xfe, 0x12, 0x34, 0x56,
            0x9c, 0x40, 0x00, 0x7b,  0x00, 0x38, 0xae, 0xee,
            0x23, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8,
        ];
        assert_eq!(udp_port(&frame), Some(PORT));
        let request = parse(&mut frame).expect("a request for us");
        let source: IpAddr = THEM.into();
        assert_eq!((request.source(), request.source_port()), (source, 40_000));
        assert_eq!((request.payload().len(), request.payload()[0]), (48, 0x23));
        assert_eq!(request.answer(&[0x11; 48], &[]), Some(110));
        #[rustfmt::skip]
        let headers = [
            0x52, 0x55, 0x0a, 0x00, 0x02, 0x02,  0x52, 0x54, 0x00, 0x12, 0x34, 0x56,  0x86, 0xdd,
            0x60, 0, 0, 0,  0x00, 0x38,  17, 64,
            0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x50, 0x54, 0, 0xff, 0xfe, 0x12, 0x34, 0x56,
            0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2,
            0x00, 0x7b, 0x9c, 0x40,  0x00, 0x38, 0x48, 0x69,
        ];
        assert_eq!(frame[..HEADERS], headers);
        assert_eq!(frame[HEADERS..], [0x11; 48]);
    }

    #[test]
    fn replies_come_from_the_address_asked() {
        for us in [US, US_TOO] {
            let mut frame = frame_to(us, 40_000, &[7; 77]);
            let length = parse(&mut frame)
                .and_then(|request| request.answer(&[3; 48], &[5; 20]))
                .expect("room");
            assert_eq!(length, HEADERS + 68);
            let body = [&[3; 48][..], &[5; 20]].concat();
            assert_valid_reply(&frame[..length], THEIR_MAC, us, THEM, &body);
        }
        let mut frame = frame_to(US, 40_000, &[7; 47]);
        let before = frame.clone();
        let request = parse(&mut frame).expect("a datagram for us");
        assert_eq!(request.answer(&[1; 48], &[]), None, "replies never grow");
        assert_eq!(frame, before);
    }

    #[test]
    fn accepted_variations() {
        type Change = fn(&mut Vec<u8>);
        let table: &[(&str, Change)] = &[
            ("any hop limit", |f| f[IP + 7] = 0),
            ("any traffic class", |f| f[IP..IP + 2].fill(0x6f)),
            ("any flow label", |f| f[IP + 2..IP + 4].fill(0xff)),
            ("padding after the datagram", |f| f.extend([0xee; 20])),
        ];
        for (name, change) in table {
            let mut frame = request();
            change(&mut frame);
            let length = parse(&mut frame).and_then(|request| request.answer(&[9; 48], &[]));
            assert_eq!(length, Some(110), "{name}");
            assert_valid_reply(&frame[..110], THEIR_MAC, US, THEM, &[9; 48]);
        }
    }

    #[test]
    fn refused_variations() {
        type Change = fn(&mut Vec<u8>);
        fn from(frame: &mut [u8], address: &str) {
            let address: Ipv6Addr = address.parse().expect("an address");
            frame[IP + 8..IP + 24].copy_from_slice(&address.octets());
        }
        // Each row breaks one thing; the checksum is made right again unless it is what is broken.
        let table: &[(&str, Change)] = &[
            ("to a group's MAC", |f| {
                f[..6].copy_from_slice(&[0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
            }),
            ("to another MAC", |f| f[5] ^= 1),
            ("from a multicast MAC", |f| f[6] |= 1),
            ("from our MAC", |f| f[6..12].copy_from_slice(&OUR_MAC)),
            ("IPv4", |f| f[12..14].copy_from_slice(&[0x08, 0x00])),
            ("VLAN tag", |f| {
                f.splice(12..12, [0x81, 0x00, 0x00, 0x05]);
            }),
            ("IP version", |f| f[IP] = 0x40),
            ("payload length past the frame", |f| f[IP + 5] += 1),
            ("payload length below the datagram", |f| f[IP + 5] -= 1),
            ("payload length of a jumbogram", |f| f[IP + 5] = 0),
            ("both lengths past the frame", |f| {
                f[IP + 5] += 1;
                f[UDP + 5] += 1;
            }),
            ("UDP length below its header", |f| {
                f[IP + 5] = 7;
                f[UDP + 5] = 7;
            }),
            ("UDP length zero", |f| {
                f[IP + 5] = 0;
                f[UDP + 5] = 0;
            }),
            ("fragment", |f| {
                extend_header(f, 44, [17, 0, 0, 0, 0, 0, 0, 1]);
            }),
            ("hop-by-hop options", |f| {
                extend_header(f, 0, [17, 0, 1, 4, 0, 0, 0, 0]);
            }),
            ("destination options", |f| {
                extend_header(f, 60, [17, 0, 1, 4, 0, 0, 0, 0]);
            }),
            ("routing header", |f| {
                extend_header(f, 43, [17, 0, 0, 0, 0, 0, 0, 0]);
            }),
            ("TCP", |f| f[IP + 6] = 6),
            ("ICMPv6", |f| f[IP + 6] = 58),
            ("no next header", |f| f[IP + 6] = 59),
            ("to another address", |f| f[IP + 39] ^= 1),
            ("to nobody", |f| f[IP + 24..IP + 40].fill(0)),
            ("to all nodes", |f| {
                let all: Ipv6Addr = "ff02::1".parse().expect("an address");
                f[IP + 24..IP + 40].copy_from_slice(&all.octets());
            }),
            ("from nobody", |f| from(f, "::")),
            ("from loopback", |f| from(f, "::1")),
            ("from an IPv4 address", |f| from(f, "::ffff:10.0.2.2")),
            ("from an old IPv4 address", |f| from(f, "::10.0.2.2")),
            ("from a group", |f| from(f, "ff02::1")),
            ("from ourselves", |f| from(f, "fe80::5054:ff:fe12:3456")),
            ("from our other self", |f| from(f, "fd00:7:7:7::2")),
            ("from port 0", |f| f[UDP..UDP + 2].fill(0)),
            ("to another port", |f| f[UDP + 3] ^= 1),
            ("empty", Vec::clear),
            ("shorter than the headers", |f| f.truncate(HEADERS - 1)),
            ("nothing but an Ethernet header", |f| f.truncate(IP)),
        ];
        for (name, change) in table {
            let mut frame = request();
            change(&mut frame);
            if UdpPacket::new_checked(frame.get(UDP..).unwrap_or_default()).is_ok() {
                fix_udp(&mut frame);
            }
            let before = frame.clone();
            assert!(parse(&mut frame).is_none(), "{name}");
            assert_eq!(frame, before, "{name}");
        }
        let mut frame = request();
        frame[UDP + 6..HEADERS].fill(0);
        assert!(parse(&mut frame).is_none(), "no UDP checksum");
        let v4_only = Addresses::of(Some([10, 0, 2, 15].into()), &[]);
        for ours in [Addresses::NONE, v4_only] {
            assert!(udp_request(&mut request(), OUR_MAC, &ours, PORT).is_none());
        }
    }

    /// Puts an extension header of eight bytes before the UDP header.
    fn extend_header(frame: &mut Vec<u8>, kind: u8, header: [u8; 8]) {
        frame.splice(UDP..UDP, header);
        frame[IP + 5] += 8;
        frame[IP + 6] = kind;
    }

    #[test]
    fn a_checksum_that_comes_out_as_zero_is_sent_as_ones() {
        // The last word of the payload runs through all values: one of them gives zero.
        let mut seen = 0;
        for last in 0..=u16::MAX {
            let mut body = [0; 48];
            body[46..].copy_from_slice(&last.to_be_bytes());
            let mut frame = request();
            let length = parse(&mut frame).and_then(|request| request.answer(&body, &[]));
            assert_eq!(length, Some(110));
            assert_ne!(frame[UDP + 6..HEADERS], [0, 0], "{last}");
            seen += u32::from(frame[UDP + 6..HEADERS] == [0xff, 0xff]);
        }
        assert_eq!(seen, 1);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        // Nothing covers the sender's MAC, the traffic class, the flow label and the hop limit.
        for byte in 0..HEADERS + 48 {
            for bit in 0..8 {
                let mut frame = request();
                frame[byte] ^= 1 << bit;
                let harmless = match byte {
                    6..12 => frame[6] & 1 == 0,
                    IP => bit < 4,
                    _ => (IP + 1..IP + 4).contains(&byte) || byte == IP + 7,
                };
                let taken = parse(&mut frame).is_some();
                assert_eq!(taken, harmless, "byte {byte} bit {bit}");
            }
        }
    }

    #[test]
    fn checksums_agree_with_smoltcp_at_every_length() {
        for length in 0..=1452 {
            let payload: Vec<u8> = (0..length)
                .map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
                .collect();
            let mut frame = frame_to(US_TOO, 5, &payload);
            assert!(parse(&mut frame).is_some(), "length {length}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(mut frame in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(ethertype) = frame.get_mut(12..14) {
                ethertype.copy_from_slice(&super::ETHERTYPE);
            }
            let _ = udp_port(&frame);
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
            let mut frame = frame_to(US_TOO, 40_000, &payload);
            frame.extend(core::iter::repeat_n(0xaa, padding));
            for (offset, value) in at {
                if let Some(byte) = frame.get_mut(offset) {
                    *byte = value;
                }
            }
            if let Some(cut) = cut {
                frame.truncate(cut);
            }
            if repair && UdpPacket::new_checked(frame.get(UDP..).unwrap_or_default()).is_ok() {
                fix_udp(&mut frame);
            }
            let mac: [u8; 6] = frame.get(6..12).map_or([0; 6], |mac| mac.try_into().expect("six"));
            if let Some(request) = parse(&mut frame) {
                let IpAddr::V6(to) = request.source() else { panic!("IPv4") };
                let size = request.payload().len();
                let length = request.answer(&body, &[]);
                prop_assert_eq!(length.is_some(), size >= 48);
                if let Some(length) = length {
                    prop_assert!(length <= HEADERS + size);
                    assert_valid_reply(&frame[..length], mac, US_TOO, to, &body);
                }
            }
        }
    }
}
