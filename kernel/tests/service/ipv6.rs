//! IPv6, seen from the network: what the guest says by itself, whom it believes, whom it answers.

use core::net::Ipv6Addr;

use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{Icmpv6Packet, Icmpv6Repr, Ipv6Packet, NdiscRepr};

use super::*;

const AUTO: &str = "ip=10.0.2.15/24 ip6=auto";
const LINK: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5054, 0xff, 0xfe12, 0x3456);
const LINK_GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff12, 0x3456);
const GLOBAL: Ipv6Addr = Ipv6Addr::new(0xfd00, 7, 0, 0, 0x5054, 0xff, 0xfe12, 0x3456);
const PREFIX: Ipv6Addr = Ipv6Addr::new(0xfd00, 7, 0, 0, 0, 0, 0, 0);
const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
const OUTSIDE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x99);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const LISTENERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
const NOBODY: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
const OTHER_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 0x99];
const SECOND: Duration = Duration::from_secs(1);
const ROUTER_ALERT: [u8; 8] = [58, 0, 5, 2, 0, 0, 1, 0];

/// What makes a good packet a bad one.
type Spoil = fn(&mut Packet);

/// What others send: an IPv6 packet in a frame. Its parts are public for tests to spoil.
#[derive(Clone)]
struct Packet {
    to_mac: [u8; 6],
    from_mac: [u8; 6],
    from: Ipv6Addr,
    to: Ipv6Addr,
    hop_limit: u8,
    /// Kind and bytes of an extension header.
    extension: Option<(u8, Vec<u8>)>,
    protocol: u8,
    payload: Vec<u8>,
    /// Where the checksum is to be written in the payload.
    checksum: usize,
}

impl Packet {
    fn icmp(from: Ipv6Addr, to: Ipv6Addr, payload: &[u8]) -> Self {
        let [.., a, b, c, d] = to.octets();
        Self {
            to_mac: if to.is_multicast() {
                [0x33, 0x33, a, b, c, d]
            } else {
                GUEST_MAC
            },
            from_mac: CLIENT_MAC,
            from,
            to,
            hop_limit: 255,
            extension: None,
            protocol: 58,
            payload: payload.to_vec(),
            checksum: 2,
        }
    }

    fn ntp(from: Ipv6Addr, to: Ipv6Addr) -> Self {
        let head = [0x15, 0xb3, 0, 123, 0, 56, 0, 0];
        Self {
            hop_limit: 64,
            protocol: 17,
            checksum: 6,
            ..Self::icmp(from, to, &[&head[..], &CLIENT_REQUEST].concat())
        }
    }

    fn ping(from: Ipv6Addr, to: Ipv6Addr) -> Self {
        Self::icmp(from, to, &[128, 0, 0, 0, 0, 7, 0, 1, 1, 2, 3, 4])
    }

    /// "Who has `target`?" by somebody who tells his MAC address.
    fn solicitation(from: Ipv6Addr, to: Ipv6Addr, target: Ipv6Addr) -> Self {
        let source = [&[1, 1][..], &CLIENT_MAC].concat();
        let parts = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), &source];
        Self::icmp(from, to, &parts.concat())
    }

    /// "Has anybody `target`?"
    fn probe(target: Ipv6Addr) -> Self {
        let parts = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target.octets()].concat();
        Self {
            from_mac: OTHER_MAC,
            ..Self::icmp(NOBODY, LINK_GROUP, &parts)
        }
    }

    /// "I have `target`."
    fn claim(target: Ipv6Addr) -> Self {
        let mac = [&[2, 1][..], &OTHER_MAC].concat();
        let parts = [&[136, 0, 0, 0, 0x20, 0, 0, 0][..], &target.octets(), &mac].concat();
        Self {
            from_mac: OTHER_MAC,
            ..Self::icmp(target, ALL_NODES, &parts)
        }
    }

    fn advertisement(lifetime: u16, options: &[u8]) -> Self {
        let [a, b] = lifetime.to_be_bytes();
        let head = [134, 0, 0, 0, 64, 0, a, b, 0, 0, 0, 0, 0, 0, 0, 0];
        Self::icmp(ROUTER, ALL_NODES, &[&head[..], options].concat())
    }

    fn query(group: Ipv6Addr) -> Self {
        let parts = [
            &[130, 0, 0, 0, 0x03, 0xe8, 0, 0][..],
            &group.octets(),
            &[2, 125, 0, 0],
        ];
        Self {
            hop_limit: 1,
            extension: Some((0, ROUTER_ALERT.to_vec())),
            ..Self::icmp(ROUTER, ALL_NODES, &parts.concat())
        }
    }

    fn frame(&self) -> Vec<u8> {
        let extension = self.extension.clone().unwrap_or_default();
        let mut frame = [&self.to_mac[..], &self.from_mac, &[0x86, 0xdd]].concat();
        let length = u16::try_from(extension.1.len() + self.payload.len()).unwrap();
        let next = if self.extension.is_some() {
            extension.0
        } else {
            self.protocol
        };
        frame.extend([0x60, 0, 0, 0]);
        frame.extend(length.to_be_bytes());
        frame.extend([next, self.hop_limit]);
        frame.extend(self.from.octets());
        frame.extend(self.to.octets());
        frame.extend(&extension.1);
        let mut payload = self.payload.clone();
        let sum = checksum(self.from, self.to, self.protocol, &payload);
        if let Some(field) = payload.get_mut(self.checksum..self.checksum + 2) {
            field.copy_from_slice(&sum.to_be_bytes());
        }
        frame.extend(payload);
        frame
    }
}

/// The Internet checksum with IPv6's pseudo header, apart from the guest's and smoltcp's.
fn checksum(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, payload: &[u8]) -> u16 {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = [
        &from.octets()[..],
        &to.octets(),
        &length,
        &[0, 0, 0, protocol],
    ]
    .concat();
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    let words = bytes
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum = words.fold(0, |sum, word| {
        ((sum + word) >> 16) + ((sum + word) & 0xffff)
    });
    !u16::try_from(sum).unwrap()
}

fn prefix_of(prefix: Ipv6Addr, length: u8, flags: u8, valid: u32, preferred: u32) -> Vec<u8> {
    let mut option = vec![3, 4, length, flags];
    option.extend(valid.to_be_bytes());
    option.extend(preferred.to_be_bytes());
    option.extend([0; 4]);
    option.extend(prefix.octets());
    option
}

fn good_prefix(valid: u32) -> Vec<u8> {
    prefix_of(PREFIX, 64, 0xc0, valid, valid)
}

/// A whole good advertisement, with options that we have no use for around the prefix.
fn good_advertisement(valid: u32) -> Packet {
    let mac = [&[1, 1][..], &CLIENT_MAC].concat();
    let mtu = [5, 1, 0, 0, 0, 0, 5, 0xdc];
    let server = [&[25, 3, 0, 0, 0, 0, 2, 0][..], &ROUTER.octets()].concat();
    Packet::advertisement(
        1800,
        &[&mac[..], &mtu, &good_prefix(valid), &server].concat(),
    )
}

/// What the guest said, each frame in a few words; everything in it is checked by smoltcp.
fn words(frames: &[Vec<u8>]) -> Vec<String> {
    frames.iter().map(|frame| word(frame)).collect()
}

fn word(frame: &[u8]) -> String {
    let ethernet = EthernetFrame::new_checked(frame).unwrap();
    assert_eq!(ethernet.src_addr().0, GUEST_MAC);
    if ethernet.ethertype() != EthernetProtocol::Ipv6 {
        return ethernet.ethertype().to_string();
    }
    let ip = Ipv6Packet::new_checked(ethernet.payload()).unwrap();
    let (from, to) = (ip.src_addr(), ip.dst_addr());
    assert_eq!(40 + usize::from(ip.payload_len()), ethernet.payload().len());
    let to_mac = ethernet.dst_addr().0;
    if to.is_multicast() {
        let [.., a, b, c, d] = to.octets();
        assert_eq!(to_mac, [0x33, 0x33, a, b, c, d]);
    }
    let payload = match ip.next_header() {
        IpProtocol::HopByHop => {
            assert_eq!(
                (ip.payload()[..8].to_vec(), ip.hop_limit()),
                (ROUTER_ALERT.to_vec(), 1)
            );
            &ip.payload()[8..]
        }
        IpProtocol::Icmpv6 => ip.payload(),
        other => return format!("{other} {from} > {to}"),
    };
    let packet = Icmpv6Packet::new_checked(payload).unwrap();
    if payload[0] == 143 {
        assert_eq!(
            checksum(from, to, 58, payload),
            0,
            "smoltcp reads no records here"
        );
        let count = usize::from(payload[7]);
        assert_eq!(payload.len(), 8 + 20 * count);
        let groups = payload[8..].chunks(20).map(|record| {
            assert_eq!(record[..4], [2, 0, 0, 0]);
            Ipv6Addr::from(<[u8; 16]>::try_from(&record[4..]).unwrap()).to_string()
        });
        return format!(
            "report {from} > {to} {}",
            groups.collect::<Vec<_>>().join(" ")
        );
    }
    let checksums = ChecksumCapabilities::default();
    let near = |name: &str| {
        assert_eq!(ip.hop_limit(), 255);
        format!("{name} {from} > {to}")
    };
    match Icmpv6Repr::parse(&from, &to, &packet, &checksums).unwrap() {
        Icmpv6Repr::EchoReply { .. } => format!("pong {from} > {to}"),
        Icmpv6Repr::Ndisc(NdiscRepr::RouterSolicit { lladdr: None }) => near("solicit"),
        Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr, .. }) => {
            format!("{} {target_addr}", near("who-has"))
        }
        Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
            target_addr,
            lladdr,
            ..
        }) => {
            assert_eq!(lladdr.unwrap().as_bytes(), GUEST_MAC);
            format!("{} {target_addr}", near("is-at"))
        }
        other => panic!("{other:?}"),
    }
}

/// The guest a moment after its start, which has said what it says then.
fn started(line: &str) -> Rig {
    let mut rig = rig(&good(1, NOON), line);
    rig.exchange(&[]);
    rig
}

/// A guest with an address from a router's advertisement, verified and told.
fn advertised(valid: u32) -> Rig {
    let mut rig = started(AUTO);
    rig.exchange(&[good_advertisement(valid).frame()]);
    rig.pass(2 * SECOND);
    rig.pass(2 * SECOND);
    rig.clear_screen();
    rig
}

/// Whether the guest answers an NTP request at this address, rightly.
fn answers(rig: &mut Rig, from: Ipv6Addr, to: Ipv6Addr) -> bool {
    let sent = rig.exchange(&[Packet::ntp(from, to).frame()]);
    let Some(frame) = sent.first() else {
        return false;
    };
    assert_eq!(words(&sent), [format!("UDP {to} > {from}")]);
    assert_eq!(frame[..6], CLIENT_MAC);
    let ip = Ipv6Packet::new_checked(&frame[14..]).unwrap();
    let udp = UdpPacket::new_checked(ip.payload()).unwrap();
    assert!(udp.verify_checksum(&to.into(), &from.into()));
    assert_eq!((udp.src_port(), udp.dst_port()), (123, 5555));
    assert_eq!((leap(udp.payload()), udp.payload().len()), (0, 48));
    true
}

#[test]
fn the_first_words_and_an_answer_at_once() {
    let mut rig = rig(&good(1, NOON), AUTO);
    let sent = rig.exchange(&[]);
    let report = format!("report {LINK} > {LISTENERS} {LINK_GROUP}");
    let probe = format!("who-has {NOBODY} > {LINK_GROUP} {LINK}");
    let solicit = format!("solicit {LINK} > {ALL_ROUTERS}");
    assert_eq!(words(&sent), ["ARP", &*report, &*probe, &*solicit]);
    assert!(
        answers(&mut rig, ROUTER, LINK),
        "before anybody has objected"
    );
    let sent = rig.exchange(&[good_advertisement(86_400).frame()]);
    let group = "ff02::1:ff12:3456";
    let report = format!("report {LINK} > {LISTENERS} {LINK_GROUP} {group}");
    let probe = format!("who-has {NOBODY} > {group} {GLOBAL}");
    assert_eq!(words(&sent), [&*report, &*probe]);
    assert!(answers(&mut rig, OUTSIDE, GLOBAL));
    assert!(!answers(&mut rig, OUTSIDE, OUTSIDE));
    assert_eq!(
        words(&rig.pass(2 * SECOND)),
        [report],
        "once more, for who missed it"
    );
    assert_eq!(rig.pass(10 * SECOND), Vec::<Vec<u8>>::new());
    let net = rig.type_line("net");
    for line in [
        "ipv6        fe80::5054:ff:fe12:3456/64\r\n",
        "ipv6        fd00:7::5054:ff:fe12:3456/64 by router advertisement\r\n",
    ] {
        assert!(net.contains(line), "{line} not in {net}");
    }
}

#[test]
fn an_address_from_the_command_line() {
    let mut rig = started("ip=10.0.2.15/24 ip6=2001:db8::1/64");
    let fixed: Ipv6Addr = "2001:db8::1".parse().unwrap();
    assert!(answers(&mut rig, OUTSIDE, fixed) && answers(&mut rig, ROUTER, LINK));
    let sent = rig.exchange(&[good_advertisement(86_400).frame()]);
    assert_eq!(sent.len(), 0, "advertisements are not for us");
    assert!(!answers(&mut rig, OUTSIDE, GLOBAL));
    let sent = rig.pass(100 * SECOND);
    assert!(!words(&sent).iter().any(|word| word.starts_with("solicit")));
    let net = rig.type_line("net");
    assert!(net.contains("ipv6        2001:db8::1/64\r\n"), "{net}");
}

#[test]
fn no_ipv6_is_none_at_all() {
    let mut rig = started("ip=10.0.2.15/24 ip6=off");
    let frames = [
        good_advertisement(86_400),
        Packet::solicitation(ROUTER, LINK_GROUP, LINK),
        Packet::ping(ROUTER, LINK),
        Packet::ping(ROUTER, ALL_NODES),
        Packet::query(NOBODY),
        Packet::ntp(ROUTER, LINK),
    ];
    assert_eq!(rig.exchange(&frames.map(|packet| packet.frame())).len(), 0);
    assert_eq!(rig.pass(100 * SECOND).len(), 0);
    assert!(!rig.type_line("net").contains("ipv6"));
}

#[test]
fn neighbours_ask_and_ping() {
    let mut rig = advertised(86_400);
    let group = LINK_GROUP;
    for (target, from) in [(LINK, ROUTER), (GLOBAL, ROUTER)] {
        for to in [group, target] {
            let sent = rig.exchange(&[Packet::solicitation(from, to, target).frame()]);
            assert_eq!(words(&sent), [format!("is-at {target} > {from} {target}")]);
            assert_eq!(sent[0][..6], CLIENT_MAC);
        }
        let sent = rig.exchange(&[Packet::ping(from, target).frame()]);
        assert_eq!(words(&sent), [format!("pong {target} > {from}")]);
    }
    // From far away: the router is asked for by its address.
    rig.exchange(&[Packet::solicitation(ROUTER, LINK, LINK).frame()]);
    let sent = rig.exchange(&[Packet::ping(OUTSIDE, GLOBAL).frame()]);
    assert_eq!(words(&sent), [format!("pong {GLOBAL} > {OUTSIDE}")]);
    let sent = rig.exchange(&[Packet::ping(ROUTER, ALL_NODES).frame()]);
    assert_eq!(words(&sent), [format!("pong {LINK} > {ROUTER}")]);
    let unknown = Packet::solicitation(ROUTER, group, OUTSIDE).frame();
    assert_eq!(rig.exchange(&[unknown]).len(), 0);
}

#[test]
fn advertisements_that_nobody_may_send() {
    let spoiled: &[(&str, Spoil)] = &[
        ("passed on", |p| p.hop_limit = 254),
        ("code", |p| p.payload[1] = 1),
        ("from far away", |p| p.from = OUTSIDE),
        ("from nobody", |p| p.from = NOBODY),
        ("short", |p| p.payload.truncate(12)),
        ("behind options", |p| {
            p.extension = Some((0, ROUTER_ALERT.to_vec()));
        }),
        ("a fragment", |p| {
            p.extension = Some((44, vec![58, 0, 0, 0, 0, 0, 0, 1]));
        }),
        ("an option without length", |p| {
            p.payload.extend([9, 0, 0, 0, 0, 0, 0, 0]);
        }),
        ("an option past the end", |p| {
            p.payload.extend([9, 2, 0, 0, 0, 0, 0, 0]);
        }),
        ("half an option", |p| p.payload.push(9)),
        ("wrong checksum", |p| p.checksum = usize::MAX - 2),
        ("no option", |p| p.payload.truncate(16)),
    ];
    for (name, spoil) in spoiled {
        let mut rig = started(AUTO);
        let mut packet = good_advertisement(86_400);
        spoil(&mut packet);
        rig.exchange(&[packet.frame()]);
        assert!(!answers(&mut rig, ROUTER, GLOBAL), "{name}");
        let net = rig.type_line("net");
        assert_eq!(net.matches("ipv6 ").count(), 1, "{name}: {net}");
    }
    let group: Ipv6Addr = "ff05::".parse().unwrap();
    let mapped: Ipv6Addr = "::ffff:0:0".parse().unwrap();
    let link: Ipv6Addr = "fe80::".parse().unwrap();
    for option in [
        prefix_of(PREFIX, 63, 0xc0, 100, 100),
        prefix_of(PREFIX, 65, 0xc0, 100, 100),
        prefix_of(PREFIX, 255, 0xc0, 100, 100),
        prefix_of(PREFIX, 64, 0x80, 100, 100),
        prefix_of(PREFIX, 64, 0xc0, 0, 0),
        prefix_of(PREFIX, 64, 0xc0, 100, 101),
        prefix_of(group, 64, 0xc0, 100, 100),
        prefix_of(mapped, 64, 0xc0, 100, 100),
        prefix_of(NOBODY, 64, 0xc0, 100, 100),
        prefix_of(link, 64, 0xc0, 100, 100),
        vec![3, 1, 64, 0xc0, 0, 0, 0, 100],
    ] {
        let mut rig = started(AUTO);
        rig.exchange(&[Packet::advertisement(0, &option).frame()]);
        let net = rig.type_line("net");
        assert_eq!(net.matches("ipv6 ").count(), 1, "{option:?}: {net}");
    }
}

#[test]
fn a_flood_of_prefixes_makes_three_addresses() {
    let mut rig = advertised(86_400);
    let frames = (0..1000).map(|number| {
        let prefix = Ipv6Addr::new(0xfd01, number, 0, 0, 0, 0, 0, 0);
        let option = prefix_of(prefix, 64, 0xc0, u32::MAX, u32::MAX);
        let mut packet = Packet::advertisement(1800, &option);
        packet.from = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, number);
        packet.frame()
    });
    let sent = rig.exchange(&frames.collect::<Vec<_>>());
    assert!(sent.len() < 10, "{:?}", words(&sent));
    let net = rig.type_line("net");
    assert_eq!(net.matches("ipv6 ").count(), 4, "{net}");
    assert!(answers(&mut rig, OUTSIDE, GLOBAL), "the first stays");
}

#[test]
fn an_address_lives_as_long_as_it_was_told() {
    let mut rig = advertised(100_000);
    let advertise = |rig: &mut Rig, valid| rig.exchange(&[good_advertisement(valid).frame()]);
    // Nobody ends it at once: two hours are left at the least.
    for valid in [0, 1, 7200] {
        advertise(&mut rig, valid);
    }
    rig.pass(7100 * SECOND);
    assert!(answers(&mut rig, OUTSIDE, GLOBAL));
    advertise(&mut rig, 0);
    rig.pass(50 * SECOND);
    assert!(answers(&mut rig, OUTSIDE, GLOBAL));
    // Longer is believed.
    advertise(&mut rig, 100_000);
    rig.pass(90_000 * SECOND);
    assert!(answers(&mut rig, OUTSIDE, GLOBAL));
    rig.clear_screen();
    rig.pass(10_001 * SECOND);
    rig.pass(SECOND);
    assert!(!answers(&mut rig, OUTSIDE, GLOBAL) && answers(&mut rig, ROUTER, LINK));
    let screen = rig.screen();
    let line =
        "network: address fd00:7::5054:ff:fe12:3456/64 by router advertisement has ended\r\n";
    assert!(screen.contains(line), "{screen}");
    // For ever is.
    advertise(&mut rig, u32::MAX);
    rig.pass(1_000_000_000 * SECOND);
    assert!(answers(&mut rig, OUTSIDE, GLOBAL));
}

#[test]
fn an_address_of_another_machine_is_given_up() {
    for objection in [Packet::claim(LINK), Packet::probe(LINK)] {
        let mut rig = started(AUTO);
        // Our own words, come back to us, are no objection.
        let own = Packet {
            from_mac: GUEST_MAC,
            ..objection.clone()
        };
        rig.exchange(&[own.frame()]);
        assert!(answers(&mut rig, ROUTER, LINK));
        rig.exchange(&[objection.frame()]);
        assert!(!answers(&mut rig, ROUTER, LINK));
        let ask = Packet::solicitation(ROUTER, LINK_GROUP, LINK).frame();
        assert_eq!(rig.exchange(&[ask]).len(), 0);
        rig.pass(2 * SECOND);
        let net = rig.type_line("net");
        assert!(
            net.contains("/64, which another machine has: not used\r\n"),
            "{net}"
        );
        // Routers still hear from us, and we try again later, this time before using it.
        let sent = words(&rig.pass(5 * SECOND));
        assert_eq!(
            sent.last(),
            Some(&format!("solicit {NOBODY} > {ALL_ROUTERS}"))
        );
        let sent = words(&rig.pass(300 * SECOND));
        let probe = format!("who-has {NOBODY} > {LINK_GROUP} {LINK}");
        assert!(sent.contains(&probe), "{sent:?}");
        assert!(!answers(&mut rig, ROUTER, LINK));
        rig.pass(SECOND);
        assert!(answers(&mut rig, ROUTER, LINK));
    }
}

#[test]
fn an_address_of_ours_is_defended() {
    let mut rig = advertised(86_400);
    let mut probe = Packet::probe(GLOBAL);
    let sent = rig.exchange(&[probe.frame()]);
    assert_eq!(
        words(&sent),
        [format!("is-at {GLOBAL} > {ALL_NODES} {GLOBAL}")]
    );
    rig.exchange(&[Packet::claim(GLOBAL).frame()]);
    assert!(
        answers(&mut rig, OUTSIDE, GLOBAL),
        "who claims it now comes too late"
    );
    probe.hop_limit = 254;
    assert_eq!(rig.exchange(&[probe.frame()]).len(), 0);
    assert_eq!(rig.exchange(&[Packet::probe(OUTSIDE).frame()]).len(), 0);
}

#[test]
fn another_life_asks_everything_again() {
    let confirmed = |is_told: bool| {
        let mut rig = advertised(86_400);
        rig.publish(&good(2, NOON));
        let sent = words(&rig.pass(Duration::from_millis(5)));
        for word in [
            format!("who-has {NOBODY} > {LINK_GROUP} {LINK}"),
            format!("who-has {NOBODY} > ff02::1:ff12:3456 {GLOBAL}"),
            format!("solicit {LINK} > {ALL_ROUTERS}"),
            format!("report {LINK} > {LISTENERS} {LINK_GROUP} ff02::1:ff12:3456"),
        ] {
            assert!(sent.contains(&word), "{word} not in {sent:?}");
        }
        rig.pass(9 * SECOND);
        assert!(answers(&mut rig, OUTSIDE, GLOBAL), "meanwhile");
        if is_told {
            rig.exchange(&[good_advertisement(86_400).frame()]);
        }
        rig.pass(2 * SECOND);
        rig.pass(2 * SECOND);
        assert!(answers(&mut rig, ROUTER, LINK));
        answers(&mut rig, OUTSIDE, GLOBAL)
    };
    assert!(confirmed(true));
    assert!(!confirmed(false));
}

#[test]
fn a_network_without_routers_is_asked_ever_more_rarely() {
    let mut rig = rig(&good(1, NOON), AUTO);
    let mut asked = Vec::new();
    for second in 0..30_000 {
        let sent = words(&rig.pass(SECOND));
        if sent.iter().any(|word| word.starts_with("solicit")) {
            asked.push(second);
        }
    }
    // The first when it is made: what is asked four seconds later ends the fourth.
    assert_eq!(asked[..5], [0, 3, 11, 27, 59]);
    assert!(asked.len() < 20, "{asked:?}");
    let last = asked.windows(2).last().unwrap();
    assert!((3599..=3601).contains(&(last[1] - last[0])), "{asked:?}");
}

#[test]
fn who_asks_what_we_listen_to_is_told() {
    let mut rig = advertised(86_400);
    let flood = vec![Packet::query(NOBODY).frame(); 100];
    assert_eq!(rig.exchange(&flood).len(), 0, "after a while");
    let sent = words(&rig.pass(2 * SECOND));
    let groups = format!("{LINK_GROUP} ff02::1:ff12:3456");
    assert_eq!(sent, [format!("report {LINK} > {LISTENERS} {groups}")]);
    let spoiled: &[Spoil] = &[
        |p| p.hop_limit = 2,
        |p| p.from = OUTSIDE,
        |p| p.extension = None,
        |p| p.payload.truncate(20),
        |p| p.checksum = usize::MAX - 2,
        |p| p.extension = Some((0, vec![58, 200, 5, 2, 0, 0, 1, 0])),
    ];
    for spoil in spoiled {
        let mut query = Packet::query(NOBODY);
        spoil(&mut query);
        rig.exchange(&[query.frame()]);
        assert_eq!(rig.pass(2 * SECOND).len(), 0);
    }
}

#[test]
fn what_is_not_plain_meets_silence() {
    let mut rig = advertised(86_400);
    rig.exchange(&[Packet::solicitation(ROUTER, LINK, LINK).frame()]);
    let plain = Packet::ping(ROUTER, LINK);
    assert_eq!(rig.exchange(&[plain.frame()]).len(), 1);
    let spoiled: &[(&str, Spoil)] = &[
        ("first fragment", |p| {
            p.extension = Some((44, vec![p.protocol, 0, 0, 1, 0, 0, 0, 1]));
        }),
        ("a fragment that is whole", |p| {
            p.extension = Some((44, vec![p.protocol, 0, 0, 0, 0, 0, 0, 1]));
        }),
        ("hop-by-hop", |p| {
            p.extension = Some((0, vec![p.protocol, 0, 1, 4, 0, 0, 0, 0]));
        }),
        ("an unknown option", |p| {
            p.extension = Some((0, vec![p.protocol, 0, 0xbe, 4, 0, 0, 0, 0]));
        }),
        ("destination options", |p| {
            p.extension = Some((60, vec![p.protocol, 0, 1, 4, 0, 0, 0, 0]));
        }),
        ("routing", |p| {
            p.extension = Some((43, vec![p.protocol, 0, 0, 0, 0, 0, 0, 0]));
        }),
        ("no next header", |p| p.protocol = 59),
        ("an unknown protocol", |p| p.protocol = 200),
        ("to loopback", |p| p.to = Ipv6Addr::LOCALHOST),
        ("from loopback", |p| p.from = Ipv6Addr::LOCALHOST),
        ("from IPv4", |p| p.from = "::ffff:10.0.2.2".parse().unwrap()),
        ("from a group", |p| p.from = ALL_NODES),
        ("to another MAC", |p| p.to_mac = OTHER_MAC),
        ("wrong checksum", |p| p.checksum = usize::MAX - 2),
    ];
    for packet in [plain, Packet::ntp(ROUTER, LINK)] {
        for (name, spoil) in spoiled {
            let mut packet = packet.clone();
            spoil(&mut packet);
            assert_eq!(rig.exchange(&[packet.frame()]).len(), 0, "{name}");
        }
        let mut to_all = packet.clone();
        to_all.to = ALL_NODES;
        to_all.to_mac = [0x33, 0x33, 0, 0, 0, 1];
        to_all.protocol = 17;
        assert_eq!(rig.exchange(&[to_all.frame()]).len(), 0, "UDP to a group");
        let mut tagged = packet.frame();
        tagged.splice(12..12, [0x81, 0x00, 0x00, 0x05]);
        let mut stacked = packet.frame();
        stacked.splice(12..12, [0x88, 0xa8, 0, 5, 0x81, 0, 0, 5]);
        let mut jumbo = packet.frame();
        jumbo[18..20].fill(0);
        assert_eq!(rig.exchange(&[tagged, stacked, jumbo]).len(), 0);
    }
}

/// The IP stack knows few neighbours; whoever has just asked for us is one of them, and NTP needs none.
#[test]
fn a_flood_of_neighbours_starves_nobody() {
    let mut rig = advertised(86_400);
    for round in 0..50 {
        let flood = (0..200).map(|number| {
            let from = Ipv6Addr::new(0xfe80, 0, 0, 0, 1, 1, round, number);
            Packet::solicitation(from, LINK_GROUP, LINK).frame()
        });
        assert_eq!(rig.exchange(&flood.collect::<Vec<_>>()).len(), 200);
        rig.exchange(&[Packet::solicitation(ROUTER, LINK_GROUP, LINK).frame()]);
        let sent = rig.exchange(&[Packet::ping(ROUTER, LINK).frame()]);
        assert_eq!(words(&sent), [format!("pong {LINK} > {ROUTER}")]);
        assert!(answers(&mut rig, OUTSIDE, GLOBAL));
    }
}

#[test]
fn access_lists_and_limits_know_networks() {
    let near = |host| Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, host);
    let mut rig = started(&format!("{AUTO} ntp.deny=2001:db8:0:1::/64 ntp.allow=::/0"));
    rig.exchange(&[good_advertisement(86_400).frame()]);
    assert!(answers(&mut rig, OUTSIDE, GLOBAL) && !answers(&mut rig, near(9), GLOBAL));
    let mut rig = started(&format!("{AUTO} ntp.limit=3,8s"));
    rig.exchange(&[good_advertisement(86_400).frame()]);
    let one_network: Vec<_> = (0..100)
        .map(|host| Packet::ntp(near(host), GLOBAL).frame())
        .collect();
    // The burst, and about five in sixteen of the rest: a leak or a kiss.
    let answered = rig.exchange(&one_network).len();
    assert!((3 + 15..3 + 50).contains(&answered), "{answered}");
    assert!(answers(&mut rig, OUTSIDE, GLOBAL), "another network");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever comes as IPv6, the guest goes on: right checksums lead deeper.
    #[test]
    fn random_packets_do_no_harm(
        packets in prop::collection::vec(
            (
                prop::collection::vec(any::<u8>(), 0..120),
                prop_oneof![128_u8..144, any::<u8>()],
                prop_oneof![Just(58_u8), Just(17), Just(6), any::<u8>()],
                prop_oneof![Just(255_u8), Just(1), any::<u8>()],
                prop_oneof![Just(ROUTER), Just(NOBODY), Just(OUTSIDE)],
                prop_oneof![Just(LINK), Just(LINK_GROUP), Just(ALL_NODES)],
                prop::option::of((any::<u8>(), prop::collection::vec(any::<u8>(), 0..24))),
            ),
            0..40,
        ),
    ) {
        let mut rig = started(AUTO);
        for (mut payload, kind, protocol, hop_limit, from, to, extension) in packets {
            if let Some(first) = payload.first_mut() {
                *first = kind;
            }
            if let Some(code) = payload.get_mut(1).filter(|code| **code < 200) {
                *code = 0;
            }
            let mut packet = Packet::icmp(from, to, &payload);
            packet.hop_limit = hop_limit;
            packet.protocol = protocol;
            packet.extension = extension;
            prop_assert!(rig.exchange(&[packet.frame()]).len() < 10);
            rig.pass(SECOND);
        }
        prop_assert_eq!(leap(&rig.ask().unwrap()), 0);
    }
}
