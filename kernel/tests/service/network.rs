//! A second life of the machine, as the network sees it.

use core::net::Ipv4Addr;

use smoltcp::wire::{
    ArpOperation, DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress, Ipv4Address,
};

use super::*;

const SERVER: Ipv4Address = Ipv4Address::new(10, 0, 2, 2);

/// A DHCP message of the guest: its type and transaction.
fn dhcp(frame: &[u8]) -> Option<(DhcpMessageType, u32)> {
    let frame = EthernetFrame::new_checked(frame).unwrap();
    if frame.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let ip = Ipv4Packet::new_checked(frame.payload()).unwrap();
    let udp = UdpPacket::new_checked(ip.payload()).unwrap();
    assert_eq!((udp.src_port(), udp.dst_port()), (68, 67));
    assert_eq!(ip.src_addr(), Ipv4Address::UNSPECIFIED, "asks as nobody");
    let packet = DhcpPacket::new_checked(udp.payload()).unwrap();
    let message = DhcpRepr::parse(&packet).unwrap();
    Some((message.message_type, message.transaction_id))
}

/// What the server answers.
fn answer(kind: DhcpMessageType, transaction_id: u32, address: Ipv4Addr) -> Vec<u8> {
    let message = DhcpRepr {
        message_type: kind,
        transaction_id,
        secs: 0,
        client_hardware_address: EthernetAddress(GUEST_MAC),
        client_ip: Ipv4Address::UNSPECIFIED,
        your_ip: address,
        server_ip: SERVER,
        router: Some(SERVER),
        subnet_mask: Some(Ipv4Address::new(255, 255, 255, 0)),
        relay_agent_ip: Ipv4Address::UNSPECIFIED,
        broadcast: true,
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(SERVER),
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: Some(86_400),
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    };
    let length = 8 + message.buffer_len();
    let mut frame = ethernet([0xff; 6], EthernetProtocol::Ipv4, 20 + length);
    let mut ip = ipv4(&mut frame[14..], IpProtocol::Udp);
    ip.set_dst_addr(Ipv4Address::BROADCAST);
    ip.fill_checksum();
    let mut udp = UdpPacket::new_unchecked(ip.payload_mut());
    udp.set_src_port(67);
    udp.set_dst_port(68);
    udp.set_len(u16::try_from(length).unwrap());
    message
        .emit(&mut DhcpPacket::new_unchecked(udp.payload_mut()))
        .unwrap();
    udp.fill_checksum(&SERVER.into(), &Ipv4Address::BROADCAST.into());
    frame
}

/// Leads the guest, which has sent `discover`, to a lease of `address`.
fn lease(rig: &mut Rig, discover: &[Vec<u8>], address: Ipv4Addr) {
    let [discover] = discover else {
        panic!("{discover:?}")
    };
    let (kind, transaction) = dhcp(discover).unwrap();
    assert_eq!(kind, DhcpMessageType::Discover);
    let sent = rig.exchange(&[answer(DhcpMessageType::Offer, transaction, address)]);
    let [request] = &sent[..] else {
        panic!("{sent:?}")
    };
    assert_eq!(dhcp(request), Some((DhcpMessageType::Request, transaction)));
    let sent = rig.exchange(&[answer(DhcpMessageType::Ack, transaction, address)]);
    assert_eq!(announced(&sent), Some(address));
}

/// The address that the only frame announces.
fn announced(frames: &[Vec<u8>]) -> Option<Ipv4Addr> {
    let [frame] = frames else { return None };
    let frame = EthernetFrame::new_checked(frame).unwrap();
    let arp = ArpPacket::new_checked(frame.payload()).ok()?;
    assert_eq!(arp.operation(), ArpOperation::Request);
    assert_eq!(arp.source_protocol_addr(), arp.target_protocol_addr());
    let address: [u8; 4] = arp.source_protocol_addr().try_into().unwrap();
    Some(address.into())
}

fn born(marker: u64, generation: u64) -> Fields {
    let page = good(marker, NOON);
    Fields {
        flags: page.flags | flag::VM_GEN_COUNTER_PRESENT,
        vm_generation_counter: generation,
        ..page
    }
}

/// A guest with a lease of [`GUEST`].
fn leased(page: &Fields) -> Rig {
    let mut rig = rig(page, "");
    let discover = rig.exchange(&[]);
    lease(&mut rig, &discover, GUEST.into());
    assert_eq!(leap(&rig.ask().unwrap()), 0);
    rig.pass(Duration::from_secs(2));
    rig.clear_screen();
    rig
}

const LOOK: Duration = Duration::from_millis(5);

#[test]
fn a_copy_asks_dhcp_again_and_answers_meanwhile() {
    let mut rig = leased(&born(1, 7));
    rig.publish(&born(2, 8));
    let discover = rig.pass(LOOK);
    assert_eq!(discover.len(), 1, "{discover:?}");
    assert_eq!(leap(&rig.ask().unwrap()), 0, "under the old address");
    let moved = Ipv4Addr::new(10, 0, 2, 99);
    lease(&mut rig, &discover, moved);
    assert_eq!(rig.ask(), None, "that address is another's now");
    rig.pass(Duration::from_secs(2));
    let screen = rig.screen();
    for line in [
        "machine: moved, restored or copied (generation 0x8), asking the network anew\r\n",
        "network: address 10.0.2.99/24 gateway 10.0.2.2\r\n",
    ] {
        assert!(screen.contains(line), "{line} not in {screen}");
    }
    assert_eq!(rig.pass(Duration::from_secs(20)), Vec::<Vec<u8>>::new());
}

#[test]
fn an_address_that_nobody_confirms_is_given_up() {
    let mut rig = leased(&born(1, 7));
    rig.publish(&born(2, 8));
    assert_eq!(rig.pass(LOOK).len(), 1);
    rig.pass(Duration::from_secs(9));
    assert_eq!(leap(&rig.ask().unwrap()), 0);
    // A third life in between does not make it longer.
    rig.publish(&born(3, 9));
    rig.pass(Duration::from_millis(500));
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.ask(), None);
    rig.pass(Duration::from_secs(2));
    let screen = rig.screen();
    assert!(
        screen.contains("network: the address lease has ended\r\n"),
        "{screen}"
    );
}

#[test]
fn which_page_tells_of_another_life() {
    let anonymous = |marker| good(marker, NOON);
    for (before, after, is_another) in [
        (born(1, 7), born(2, 7), false),
        (born(1, 7), born(1, 8), true),
        (born(1, 7), born(2, 8), true),
        (anonymous(1), anonymous(1), false),
        (anonymous(1), anonymous(2), true),
        (anonymous(1), born(1, 7), false),
        (anonymous(1), born(2, 7), true),
        (born(1, 7), anonymous(1), false),
        (born(1, 7), anonymous(2), true),
        // Without time, too.
        (
            Fields::stock(),
            Fields {
                disruption_marker: 99,
                ..Fields::stock()
            },
            true,
        ),
    ] {
        let mut rig = rig(&before, STATIC);
        rig.exchange(&[]);
        rig.publish(&after);
        let sent = rig.pass(LOOK);
        // Where the address is fixed, it is announced anew.
        let address = is_another.then_some(GUEST.into());
        assert_eq!(announced(&sent), address, "{before:?} {after:?}");
        assert_eq!(rig.pass(LOOK).len(), 0, "once");
    }
}

#[test]
fn random_numbers_are_new() {
    let mut rig = leased(&born(1, 7));
    let mut transactions = Vec::new();
    for generation in 8..12 {
        rig.publish(&born(generation, generation));
        let sent = rig.pass(Duration::from_secs(2));
        let transaction = sent.iter().find_map(|frame| dhcp(frame)).unwrap().1;
        assert!(!transactions.contains(&transaction), "{transactions:?}");
        transactions.push(transaction);
    }
}

/// A host that changes the generation all the time makes nobody flood the network.
#[test]
fn the_network_is_asked_once_a_second() {
    let mut rig = leased(&born(1, 7));
    let mut sent = 0;
    for round in 0..1000 {
        rig.publish(&born(round, round));
        sent += rig.pass(LOOK).len();
    }
    assert!((4..=6).contains(&sent), "{sent} frames in 5 s");
}

/// The stack must not believe what it learned of its neighbours in another life.
#[test]
fn neighbours_are_forgotten() {
    let mut rig = rig(&good(1, NOON), STATIC);
    let mut ping = ethernet(GUEST_MAC, EthernetProtocol::Ipv4, 20 + 8 + 32);
    let mut ip = ipv4(&mut ping[14..], IpProtocol::Icmp);
    let mut icmp = Icmpv4Packet::new_unchecked(ip.payload_mut());
    icmp.set_msg_type(Icmpv4Message::EchoRequest);
    icmp.fill_checksum();
    let mut arp = ethernet([0xff; 6], EthernetProtocol::Arp, 28);
    let mut packet = ArpPacket::new_unchecked(&mut arp[14..]);
    packet.set_hardware_type(smoltcp::wire::ArpHardware::Ethernet);
    packet.set_protocol_type(EthernetProtocol::Ipv4);
    packet.set_hardware_len(6);
    packet.set_protocol_len(4);
    packet.set_operation(ArpOperation::Request);
    packet.set_source_hardware_addr(&CLIENT_MAC);
    packet.set_source_protocol_addr(&CLIENT);
    packet.set_target_protocol_addr(&GUEST);
    let is_arp = |frame: &Vec<u8>| {
        EthernetFrame::new_checked(frame).unwrap().ethertype() == EthernetProtocol::Arp
    };

    rig.exchange(&[arp]);
    let known = rig.exchange(&[ping.clone()]);
    assert!(!known.iter().any(is_arp), "the echo goes straight back");
    rig.publish(&good(2, NOON));
    rig.pass(LOOK);
    let unknown = rig.exchange(&[ping]);
    assert!(unknown.iter().any(is_arp), "{unknown:?}");
}

/// The stack knows few neighbours; whoever has just asked for us is one of them, and NTP needs none.
#[test]
fn a_flood_of_neighbours_starves_nobody() {
    let mut rig = rig(&good(1, NOON), STATIC);
    let asks = |address: [u8; 4]| {
        let mut arp = ethernet([0xff; 6], EthernetProtocol::Arp, 28);
        let mut packet = ArpPacket::new_unchecked(&mut arp[14..]);
        packet.set_hardware_type(smoltcp::wire::ArpHardware::Ethernet);
        packet.set_protocol_type(EthernetProtocol::Ipv4);
        packet.set_hardware_len(6);
        packet.set_protocol_len(4);
        packet.set_operation(ArpOperation::Request);
        packet.set_source_hardware_addr(&CLIENT_MAC);
        packet.set_source_protocol_addr(&address);
        packet.set_target_protocol_addr(&GUEST);
        arp
    };
    let mut ping = ethernet(GUEST_MAC, EthernetProtocol::Ipv4, 20 + 8 + 32);
    let mut ip = ipv4(&mut ping[14..], IpProtocol::Icmp);
    let mut icmp = Icmpv4Packet::new_unchecked(ip.payload_mut());
    icmp.set_msg_type(Icmpv4Message::EchoRequest);
    icmp.fill_checksum();
    for _ in 0..20 {
        let flood: Vec<_> = (100..=250).map(|host| asks([10, 0, 2, host])).collect();
        assert_eq!(rig.exchange(&flood).len(), flood.len());
        let sent = rig.exchange(&[asks(CLIENT), ping.clone()]);
        assert_eq!(sent.len(), 2, "where we are, and the echo");
        assert_eq!(leap(&rig.ask().unwrap()), 0);
    }
}

/// More requests than a round takes in, before every round.
#[test]
fn a_flood_of_requests_leaves_everybody_else_a_turn() {
    let mut rig = rig(&good(1, NOON), "ip=dhcp ip6=off");
    let mut sent = Vec::new();
    let mut answered = 0;
    let mut leased = false;
    let mut pinged = false;
    for round in 0..400 {
        let mut queue = rig.wire.0.borrow_mut();
        // As a ring of 256 would have it.
        while queue.to_guest.len() < 256 {
            queue.to_guest.push_back(request(&CLIENT_REQUEST));
        }
        if round % 100 == 99 {
            queue.to_guest.extend([arp_request(), echo_request()]);
        }
        drop(queue);
        // One round, and time goes on.
        let time = Duration::from_millis(20);
        let ticks = &rig.counter.0.ticks;
        ticks.set(ticks.get() + u64::try_from(time.as_nanos()).unwrap());
        rig.uptime.set(rig.uptime.get() + time);
        rig.service.turn();
        sent.append(&mut rig.wire.0.borrow_mut().from_guest);
        for frame in sent.drain(..) {
            let ethernet = EthernetFrame::new_checked(&frame).unwrap();
            if ethernet.ethertype() != EthernetProtocol::Ipv4 {
                continue;
            }
            let ip = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
            if ip.next_header() == IpProtocol::Icmp {
                pinged = true;
            } else if let Some(port) = UdpPacket::new_checked(ip.payload())
                .ok()
                .map(|udp| udp.src_port())
                && port == 123
            {
                answered += 1;
            } else if let Some((kind, transaction)) = dhcp(&frame) {
                leased |= kind == DhcpMessageType::Request;
                let next = if kind == DhcpMessageType::Discover {
                    DhcpMessageType::Offer
                } else {
                    DhcpMessageType::Ack
                };
                let grant = answer(next, transaction, GUEST.into());
                rig.wire.0.borrow_mut().to_guest.push_back(grant);
            }
        }
    }
    assert!(leased, "DHCP under a flood");
    assert!(pinged, "ping under a flood");
    assert!(answered > 1000, "{answered}");
    rig.exchange(&[]);
}

/// The device is looked after once a second, also on a host whose timer is behind what it was.
#[test]
fn the_device_is_looked_after() {
    let mut rig = rig(&good(1, NOON), STATIC);
    let looked = |rig: &mut Rig, rounds: u32| {
        let before = rig.wire.0.borrow().tended;
        for _ in 0..rounds {
            rig.pass(Duration::from_millis(100));
        }
        rig.wire.0.borrow().tended - before
    };
    assert!((9..=11).contains(&looked(&mut rig, 100)));
    rig.uptime.set(Duration::from_millis(1));
    assert!((9..=11).contains(&looked(&mut rig, 100)));
}
