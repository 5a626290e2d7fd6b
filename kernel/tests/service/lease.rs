//! A DHCP server's life, honest and otherwise, and what becomes of the address.

use core::net::Ipv4Addr;

use smoltcp::wire::{
    ArpHardware, ArpOperation, DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr, EthernetAddress,
};

use super::*;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const EVERYBODY: Ipv4Addr = Ipv4Addr::BROADCAST;
const NOBODY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const LEASE: u32 = 8000;
const SECOND: Duration = Duration::from_secs(1);

/// What a guest asked for: the type, from, to, what it says it has, what it would like.
type Asked = (
    DhcpMessageType,
    Ipv4Addr,
    Ipv4Addr,
    Ipv4Addr,
    Option<Ipv4Addr>,
);

/// A server by script: what it grants, and whether it is there.
struct Server {
    rig: Rig,
    is_there: bool,
    /// What its offers and its grants are like.
    grant: Grant,
    refuses: bool,
    asked: Vec<Asked>,
    arps: usize,
}

#[derive(Clone, Copy)]
struct Grant {
    address: Ipv4Addr,
    mask: Option<Ipv4Addr>,
    router: Option<Ipv4Addr>,
    seconds: Option<u32>,
    renew: Option<u32>,
    rebind: Option<u32>,
}

const GRANT: Grant = Grant {
    address: ADDRESS,
    mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
    router: Some(SERVER),
    seconds: Some(LEASE),
    renew: None,
    rebind: None,
};

impl Server {
    fn new(grant: Grant) -> Self {
        let mut server = Self {
            rig: rig(&good(1, NOON), ""),
            is_there: true,
            grant,
            refuses: false,
            asked: Vec::new(),
            arps: 0,
        };
        server.pass(Duration::ZERO);
        server
    }

    /// A server that has granted an address, and a guest that has told.
    fn granted() -> Self {
        let mut server = Self::new(GRANT);
        assert!(server.answers());
        server.pass(2 * SECOND);
        server.asked.clear();
        server.rig.clear_screen();
        server
    }

    /// Lets time pass and answers everything that is asked then, until nothing is any more.
    fn pass(&mut self, time: Duration) {
        let mut sent = self.rig.pass(time);
        for _ in 0..50 {
            if sent.is_empty() {
                return;
            }
            let answers: Vec<_> = sent.iter().filter_map(|frame| self.hear(frame)).collect();
            sent = self.rig.exchange(&answers);
        }
        panic!("guest and server never end: {:?}", self.asked);
    }

    fn hear(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let ethernet = EthernetFrame::new_checked(frame).unwrap();
        if ethernet.ethertype() == EthernetProtocol::Arp {
            let arp = ArpPacket::new_checked(ethernet.payload()).unwrap();
            self.arps += 1;
            let is_for_us = arp.target_protocol_addr() == SERVER.octets();
            return (self.is_there && is_for_us).then(here);
        }
        let ip = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
        let udp = UdpPacket::new_checked(ip.payload()).unwrap();
        assert_eq!((udp.src_port(), udp.dst_port()), (68, 67));
        let packet = DhcpPacket::new_checked(udp.payload()).unwrap();
        let asked = DhcpRepr::parse(&packet).unwrap();
        let kind = asked.message_type;
        let (from, to) = (ip.src_addr(), ip.dst_addr());
        self.asked
            .push((kind, from, to, asked.client_ip, asked.requested_ip));
        let kind = match kind {
            DhcpMessageType::Discover => DhcpMessageType::Offer,
            DhcpMessageType::Request if self.refuses => DhcpMessageType::Nak,
            DhcpMessageType::Request => DhcpMessageType::Ack,
            other => panic!("{other:?}"),
        };
        self.is_there
            .then(|| answer(kind, asked.transaction_id, &self.grant))
    }

    /// Whether the guest answers at [`GUEST`], whatever else it sends meanwhile.
    fn answers(&mut self) -> bool {
        let sent = self.rig.exchange(&[request(&CLIENT_REQUEST)]);
        let mut replies = sent.iter().filter(|frame| frame[..6] == CLIENT_MAC);
        replies.any(|frame| leap(&reply(frame)) == 0)
    }

    fn kinds(&self) -> Vec<DhcpMessageType> {
        self.asked.iter().map(|asked| asked.0).collect()
    }

    fn net(&mut self) -> String {
        self.rig.type_line("net")
    }
}

/// The server says where it is.
fn here() -> Vec<u8> {
    let mut frame = ethernet(GUEST_MAC, EthernetProtocol::Arp, 28);
    let mut arp = ArpPacket::new_unchecked(&mut frame[14..]);
    arp.set_hardware_type(ArpHardware::Ethernet);
    arp.set_protocol_type(EthernetProtocol::Ipv4);
    arp.set_hardware_len(6);
    arp.set_protocol_len(4);
    arp.set_operation(ArpOperation::Reply);
    arp.set_source_hardware_addr(&CLIENT_MAC);
    arp.set_source_protocol_addr(&SERVER.octets());
    arp.set_target_hardware_addr(&GUEST_MAC);
    arp.set_target_protocol_addr(&GUEST);
    frame
}

fn answer(kind: DhcpMessageType, transaction_id: u32, grant: &Grant) -> Vec<u8> {
    let is_refusal = kind == DhcpMessageType::Nak;
    // smoltcp reads these two but does not write them.
    let times = [(58, grant.renew), (59, grant.rebind)]
        .map(|(kind, time)| (kind, time.map(u32::to_be_bytes)));
    let times: Vec<_> = times
        .iter()
        .filter_map(|(kind, time)| {
            let data = time.as_ref()?;
            Some(DhcpOption { kind: *kind, data })
        })
        .collect();
    let message = DhcpRepr {
        message_type: kind,
        transaction_id,
        secs: 0,
        client_hardware_address: EthernetAddress(GUEST_MAC),
        client_ip: NOBODY,
        your_ip: if is_refusal { NOBODY } else { grant.address },
        server_ip: SERVER,
        router: grant.router,
        subnet_mask: grant.mask,
        relay_agent_ip: NOBODY,
        broadcast: true,
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(SERVER),
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: grant.seconds,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &times,
    };
    let length = 8 + message.buffer_len();
    let mut frame = ethernet([0xff; 6], EthernetProtocol::Ipv4, 20 + length);
    let mut ip = ipv4(&mut frame[14..], IpProtocol::Udp);
    ip.set_dst_addr(EVERYBODY);
    ip.fill_checksum();
    let mut udp = UdpPacket::new_unchecked(ip.payload_mut());
    udp.set_src_port(67);
    udp.set_dst_port(68);
    udp.set_len(u16::try_from(length).unwrap());
    message
        .emit(&mut DhcpPacket::new_unchecked(udp.payload_mut()))
        .unwrap();
    udp.fill_checksum(&SERVER.into(), &EVERYBODY.into());
    frame
}

#[test]
fn a_lease_is_renewed_at_half_its_time() {
    let mut server = Server::granted();
    server.pass(3990 * SECOND);
    assert_eq!(server.asked, []);
    server.pass(20 * SECOND);
    let renewal = (DhcpMessageType::Request, ADDRESS, SERVER, ADDRESS, None);
    assert_eq!(server.asked, [renewal], "from whom it came");
    // And so on, for ever.
    for _ in 0..10 {
        server.asked.clear();
        server.pass(4010 * SECOND);
        assert_eq!(server.asked, [renewal]);
        assert!(server.answers());
    }
    assert_eq!(server.rig.screen(), "", "nothing has changed");
}

#[test]
fn the_servers_own_times_hold() {
    let mut server = Server::new(Grant {
        renew: Some(100),
        rebind: Some(200),
        ..GRANT
    });
    server.asked.clear();
    server.arps = 0;
    server.pass(99 * SECOND);
    assert!(server.asked.is_empty() && server.arps == 0);
    server.is_there = false;
    server.pass(2 * SECOND);
    // It does not even say where it is.
    assert!(server.asked.is_empty() && server.arps > 0);
    server.pass(100 * SECOND);
    assert_eq!(
        server.asked,
        [(DhcpMessageType::Request, ADDRESS, EVERYBODY, ADDRESS, None)]
    );
    assert!(server.answers());
}

#[test]
fn without_a_server_the_lease_ends_and_a_new_one_begins() {
    let mut server = Server::granted();
    server.is_there = false;
    for _ in 0..(7990 / 10) {
        server.pass(10 * SECOND);
    }
    assert!(server.answers(), "to the last second");
    let everybody = |asked: &&(_, _, Ipv4Addr, _, _)| asked.2 == EVERYBODY;
    let rebinding = server.asked.iter().filter(everybody).count();
    assert!((2..20).contains(&rebinding), "{:?}", server.asked);
    assert!(
        server.asked.len() < 30 && server.arps < 1000,
        "{}",
        server.arps
    );
    server.asked.clear();
    server.pass(20 * SECOND);
    assert!(!server.answers());
    server.pass(SECOND);
    let screen = server.rig.screen();
    assert!(
        screen.contains("network: the address lease has ended\r\n"),
        "{screen}"
    );
    assert!(server.net().contains("no address yet, asking DHCP"));
    // Nobody is flooded while nobody answers.
    for _ in 0..100 {
        server.pass(SECOND);
    }
    assert!(
        (20..=40).contains(&server.asked.len()),
        "{:?}",
        server.asked.len()
    );
    assert!(
        server
            .kinds()
            .iter()
            .all(|kind| *kind == DhcpMessageType::Discover)
    );
    server.is_there = true;
    server.rig.clear_screen();
    server.pass(10 * SECOND);
    server.pass(2 * SECOND);
    assert!(server.answers());
    let line = "network: address 10.0.2.15/24 gateway 10.0.2.2\r\n";
    assert!(
        server.rig.screen().contains(line),
        "{}",
        server.rig.screen()
    );
}

#[test]
fn a_server_that_comes_back_in_time_renews() {
    let mut server = Server::granted();
    server.is_there = false;
    for _ in 0..600 {
        server.pass(10 * SECOND);
    }
    server.is_there = true;
    for _ in 0..600 {
        server.pass(10 * SECOND);
        assert!(server.answers());
    }
    assert_eq!(server.rig.screen(), "");
}

#[test]
fn a_refusal_ends_the_address_and_another_is_taken() {
    let mut server = Server::granted();
    server.refuses = true;
    server.grant.address = Ipv4Addr::new(10, 0, 2, 77);
    server.pass(4010 * SECOND);
    assert!(!server.answers());
    // A server that offers and refuses, offers and refuses, is heard at a pace.
    server.asked.clear();
    for _ in 0..100 {
        server.pass(SECOND);
    }
    assert!(server.asked.len() < 200, "{}", server.asked.len());
    server.refuses = false;
    server.rig.clear_screen();
    server.pass(10 * SECOND);
    server.pass(2 * SECOND);
    assert!(server.net().contains("address     10.0.2.77/24 by DHCP"));
    assert!(!server.answers(), "that is not our address any more");
}

/// A grant that cannot be used is no grant: silence, and the question again at its usual pace.
#[test]
fn grants_that_nobody_can_use() {
    let address = |text: &str| Grant {
        address: text.parse().unwrap(),
        ..GRANT
    };
    let mask = |text: &str| Grant {
        mask: Some(text.parse().unwrap()),
        ..GRANT
    };
    let seconds = |seconds| Grant {
        seconds: Some(seconds),
        ..GRANT
    };
    for (name, grant) in [
        ("no time", seconds(0)),
        ("next to no time", seconds(9)),
        ("no mask", mask("0.0.0.0")),
        ("a mask with holes", mask("255.0.255.0")),
        ("a mask from behind", mask("0.0.0.255")),
        ("broadcast", address("10.0.2.255")),
        ("everybody", address("255.255.255.255")),
        ("the network", address("10.0.2.0")),
        ("nobody", address("0.0.0.0")),
        ("loopback", address("127.0.0.1")),
        ("a group", address("224.0.0.1")),
        ("reserved", address("250.0.0.1")),
    ] {
        let mut server = Server::new(grant);
        for _ in 0..30 {
            server.pass(SECOND);
        }
        let net = server.net();
        assert!(net.contains("no address yet, asking DHCP"), "{name}: {net}");
        let asked = server.asked.len();
        assert!((5..=12).contains(&asked), "{name}: {:?}", server.kinds());
        assert!(
            server
                .kinds()
                .iter()
                .all(|kind| *kind == DhcpMessageType::Discover),
            "{name}"
        );
        // An honest one is still heard.
        server.grant = GRANT;
        server.pass(10 * SECOND);
        assert!(server.answers(), "{name}");
        // And while there is a lease, such a renewal changes nothing.
        server.grant = grant;
        server.pass(4010 * SECOND);
        assert!(server.answers(), "{name}");
        server.pass(10_000 * SECOND);
        server.pass(SECOND);
        assert!(!server.answers(), "{name}");
    }
}

#[test]
fn odd_grants_that_can_be_used() {
    let router = |text: &str| Grant {
        router: Some(text.parse().unwrap()),
        ..GRANT
    };
    let mask = |text: &str| Grant {
        mask: Some(text.parse().unwrap()),
        ..GRANT
    };
    for (name, grant, line) in [
        ("a router elsewhere", router("10.0.3.1"), "gateway     none"),
        ("we, the router", router("10.0.2.15"), "gateway     none"),
        (
            "broadcast as the router",
            router("10.0.2.255"),
            "gateway     none",
        ),
        (
            "nobody as the router",
            router("0.0.0.0"),
            "gateway     none",
        ),
        (
            "no router",
            Grant {
                router: None,
                ..GRANT
            },
            "gateway     none",
        ),
        ("alone", mask("255.255.255.255"), "gateway     10.0.2.2"),
        ("two", mask("255.255.255.254"), "gateway     none"),
        ("wide", mask("128.0.0.0"), "address     10.0.2.15/1 by DHCP"),
        (
            "no time told",
            Grant {
                seconds: None,
                ..GRANT
            },
            "address     10.0.2.15/24",
        ),
        (
            "for ever",
            Grant {
                seconds: Some(u32::MAX),
                ..GRANT
            },
            "address     10.0.2.15/24",
        ),
        (
            "times in disorder",
            Grant {
                renew: Some(9000),
                rebind: Some(1),
                ..GRANT
            },
            "address     10.0.2.15/24",
        ),
        (
            "all at once",
            Grant {
                renew: Some(0),
                rebind: Some(0),
                ..GRANT
            },
            "address     10.0.2.15/24",
        ),
    ] {
        let mut server = Server::new(grant);
        assert!(server.answers(), "{name}");
        let net = server.net();
        assert!(net.contains(line), "{name}: {net}");
        for _ in 0..100 {
            server.pass(SECOND);
        }
        assert!(server.answers(), "{name}");
        assert!(server.asked.len() < 10, "{name}: {:?}", server.kinds());
    }
}

#[test]
fn only_the_answer_to_our_question_counts() {
    let mut rig = rig(&good(1, NOON), "");
    let mut server = rig.exchange(&[]);
    let discover = server.pop().unwrap();
    let ip = Ipv4Packet::new_checked(&discover[14..]).unwrap();
    let udp = UdpPacket::new_checked(ip.payload()).unwrap();
    let id = DhcpPacket::new_checked(udp.payload())
        .unwrap()
        .transaction_id();
    let mut fragment = answer(DhcpMessageType::Offer, id, &GRANT);
    fragment[14 + 6] |= 0x20;
    Ipv4Packet::new_unchecked(&mut fragment[14..]).fill_checksum();
    let mut spoiled = answer(DhcpMessageType::Offer, id, &GRANT);
    spoiled[14 + 20 + 8 + 20] ^= 1;
    let mut tagged = answer(DhcpMessageType::Offer, id, &GRANT);
    tagged.splice(12..12, [0x81, 0x00, 0x00, 0x05]);
    let frames = [
        answer(DhcpMessageType::Offer, id ^ 1, &GRANT),
        answer(DhcpMessageType::Ack, id, &GRANT),
        answer(DhcpMessageType::Nak, id, &GRANT),
        answer(DhcpMessageType::Discover, id, &GRANT),
        fragment,
        spoiled,
        tagged,
    ];
    for frame in frames {
        assert_eq!(rig.exchange(&[frame]).len(), 0);
    }
    let sent = rig.exchange(&[answer(DhcpMessageType::Offer, id, &GRANT)]);
    assert_eq!(sent.len(), 1, "the request");
    let ack = answer(DhcpMessageType::Ack, id, &GRANT);
    for length in 14..ack.len() {
        assert_eq!(rig.exchange(&[ack[..length].to_vec()]).len(), 0);
    }
}

/// Old IP's odd frames meet silence, as the new one's do.
#[test]
fn fragments_tags_and_jumbo_frames_meet_silence() {
    let mut server = Server::granted();
    server.rig.exchange(&[here()]);
    let ping = |change: &dyn Fn(&mut [u8])| {
        let mut frame = ethernet(GUEST_MAC, EthernetProtocol::Ipv4, 20 + 8 + 32);
        let mut ip = ipv4(&mut frame[14..], IpProtocol::Icmp);
        let mut icmp = Icmpv4Packet::new_unchecked(ip.payload_mut());
        icmp.set_msg_type(Icmpv4Message::EchoRequest);
        icmp.fill_checksum();
        change(&mut frame[14..]);
        Ipv4Packet::new_unchecked(&mut frame[14..]).fill_checksum();
        frame
    };
    let plain = ping(&|_| {});
    // An ARP reply that nobody waited for is not remembered: the first echo asks where to.
    server.rig.exchange(core::slice::from_ref(&plain));
    server.rig.exchange(&[here()]);
    assert_eq!(server.rig.exchange(core::slice::from_ref(&plain)).len(), 1);
    let tagged = |tag: &[u8]| {
        let mut frame = plain.clone();
        frame.splice(12..12, tag.iter().copied());
        frame
    };
    for (name, frame) in [
        ("first fragment", ping(&|ip| ip[6] = 0x20)),
        ("later fragment", ping(&|ip| ip[7] = 1)),
        ("last fragment", ping(&|ip| ip[6] = 0x1f)),
        (
            "from loopback",
            ping(&|ip| ip[12..16].copy_from_slice(&[127, 0, 0, 1])),
        ),
        ("tagged", tagged(&[0x81, 0, 0, 5])),
        ("tagged twice", tagged(&[0x88, 0xa8, 0, 5, 0x81, 0, 0, 5])),
        ("jumbo", [&plain[..12], &[0x88, 0x70], &[0; 8986]].concat()),
        ("802.3", [&plain[..12], &[0, 60], &plain[14..]].concat()),
    ] {
        assert_eq!(server.rig.exchange(&[frame]).len(), 0, "{name}");
    }
}
