//! An NTP server on the wire as the source of time, beside a page that has only the marker.

use gnomon_kernel::source::ntp::utc;
use smoltcp::wire::{ArpOperation, EthernetAddress};

use super::*;

const FOLLOWING: &str = "ip=10.0.2.15/24,10.0.2.2 source=ntp:10.0.2.2";
/// How long an answer is on its way, there and back.
const WAY: Duration = Duration::from_micros(400);

/// A page that has the marker and no time, as stock QEMU's is.
fn marker_only(marker: u64) -> Fields {
    Fields {
        disruption_marker: marker,
        ..Fields::stock()
    }
}

/// True time by the counter in NTP's units: it was noon when that was 0.
fn truth(ticks: u64) -> u64 {
    ntp_seconds(NOON) * (1 << 32)
        + u64::try_from((u128::from(ticks) << 32) / 1_000_000_000).unwrap()
}

/// A request of the guest to the server: its port, and what it carries.
#[derive(Debug)]
struct Asked {
    port: u16,
    payload: [u8; 48],
}

fn asked(frame: &[u8]) -> Option<Asked> {
    let frame = EthernetFrame::new_checked(frame).unwrap();
    if frame.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let ip = Ipv4Packet::new_checked(frame.payload()).unwrap();
    assert!(ip.verify_checksum());
    if ip.next_header() != IpProtocol::Udp {
        return None;
    }
    let udp = UdpPacket::new_checked(ip.payload()).unwrap();
    assert!(udp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()));
    if udp.dst_port() != 123 {
        return None;
    }
    assert_eq!(frame.dst_addr().0, CLIENT_MAC);
    assert_eq!(
        (ip.src_addr().octets(), ip.dst_addr().octets()),
        (GUEST, CLIENT)
    );
    assert!(udp.src_port() >= 0xc000);
    Some(Asked {
        port: udp.src_port(),
        payload: udp.payload().try_into().unwrap(),
    })
}

/// Whether the guest asks where the server is.
fn looks_for_server(frame: &[u8]) -> bool {
    let frame = EthernetFrame::new_checked(frame).unwrap();
    frame.ethertype() == EthernetProtocol::Arp && {
        let arp = ArpPacket::new_checked(frame.payload()).unwrap();
        arp.operation() == ArpOperation::Request
            && arp.source_protocol_addr() == GUEST
            && arp.target_protocol_addr() == CLIENT
    }
}

/// Tells where the server is.
fn neighbour() -> Vec<u8> {
    let mut frame = ethernet(GUEST_MAC, EthernetProtocol::Arp, 28);
    let mut arp = ArpPacket::new_unchecked(&mut frame[14..]);
    arp.set_hardware_type(smoltcp::wire::ArpHardware::Ethernet);
    arp.set_protocol_type(EthernetProtocol::Ipv4);
    arp.set_hardware_len(6);
    arp.set_protocol_len(4);
    arp.set_operation(ArpOperation::Reply);
    arp.set_source_hardware_addr(&EthernetAddress(CLIENT_MAC).0);
    arp.set_source_protocol_addr(&CLIENT);
    arp.set_target_hardware_addr(&GUEST_MAC);
    arp.set_target_protocol_addr(&GUEST);
    frame
}

/// A datagram from a port of somebody's to a port of the guest's.
fn datagram(from: ([u8; 4], u16), to: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = request_to(to, payload);
    let mut ip = Ipv4Packet::new_unchecked(&mut frame[14..]);
    ip.set_src_addr(from.0.into());
    ip.fill_checksum();
    let addresses = (ip.src_addr(), ip.dst_addr());
    let mut udp = UdpPacket::new_unchecked(ip.payload_mut());
    udp.set_src_port(from.1);
    udp.fill_checksum(&addresses.0.into(), &addresses.1.into());
    frame
}

impl Rig {
    /// Lets the guest come to its next request, at most `limit` later.
    fn next_request(&mut self, limit: Duration) -> Asked {
        let step = Duration::from_millis(10);
        let mut waited = Duration::ZERO;
        while waited < limit {
            let mut sent = self.pass(step);
            waited += step;
            if sent.iter().any(|frame| looks_for_server(frame)) {
                sent = self.exchange(&[neighbour()]);
            }
            let mut requests = sent.iter().filter_map(|frame| asked(frame));
            if let Some(request) = requests.next() {
                assert!(requests.next().is_none(), "one at a time");
                return request;
            }
        }
        panic!("no request within {limit:?}")
    }

    /// The true reply to a request that has just left.
    fn true_reply(&self, asked: &Asked, stratum: u8) -> [u8; 48] {
        let now = self.counter.0.ticks.get() + u64::try_from(WAY.as_nanos()).unwrap() / 2;
        let mut reply = [0; 48];
        reply[..4].copy_from_slice(&[0x24, stratum, 4, (-20_i8).cast_unsigned()]);
        reply[8..12].copy_from_slice(&20_u32.to_be_bytes());
        reply[12..16].copy_from_slice(&[192, 0, 2, 9]);
        reply[24..32].copy_from_slice(&asked.payload[40..48]);
        reply[32..40].copy_from_slice(&truth(now).to_be_bytes());
        reply[40..48].copy_from_slice(&(truth(now) + 1000).to_be_bytes());
        reply
    }

    fn answer(&mut self, asked: &Asked, reply: &[u8]) {
        let ticks = &self.counter.0.ticks;
        ticks.set(ticks.get() + u64::try_from(WAY.as_nanos()).unwrap());
        let sent = self.exchange(&[datagram((CLIENT, 123), asked.port, reply)]);
        assert!(sent.is_empty(), "no answer to an answer");
    }

    /// A true exchange.
    fn follow(&mut self, limit: Duration) -> Asked {
        let asked = self.next_request(limit);
        let reply = self.true_reply(&asked, 3);
        self.answer(&asked, &reply);
        asked
    }

    /// Checks that the guest tells the time, and the truth; returns its root dispersion in 2⁻¹⁶ s.
    fn right(&mut self) -> u32 {
        let reply = self.ask().unwrap();
        assert_eq!(leap(&reply), 0, "{}", self.type_line("sources"));
        let number = |at: usize| u64::from_be_bytes(reply[at..at + 8].try_into().unwrap());
        let dispersion = u32::from_be_bytes(reply[8..12].try_into().unwrap());
        let off = truth(self.counter.0.ticks.get()).abs_diff(number(40));
        // The counter goes on by some microseconds until we look at it.
        assert!(
            off <= (u64::from(dispersion) << 16) + (1 << 20),
            "{off} of 2^-32 s off, and the bound is {dispersion} of 2^-16 s"
        );
        dispersion
    }
}

/// A guest that has a line by its server.
fn following() -> Rig {
    let mut rig = rig_following();
    for _ in 0..4 {
        rig.follow(secs(3));
    }
    rig
}

/// A guest that has been told where its server is.
fn rig_following() -> Rig {
    let mut rig = rig_without_checks(&marker_only(1), FOLLOWING);
    let sent = rig.exchange(&[]);
    assert!(sent.iter().any(|frame| looks_for_server(frame)));
    rig
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn an_answer_is_a_time_where_the_frequency_is_known_and_the_server_is_named() {
    let mut rig = rig_following();
    let first = rig.ask().unwrap();
    assert_eq!((leap(&first), &first[12..16]), (3, &b"INIT"[..]));
    rig.follow(secs(2));
    // A root dispersion of 0.3 ms and a way of 0.4 ms, not a page of its own.
    let dispersion = rig.right();
    assert!(dispersion < 65, "{dispersion} of 2^-16 s");
    let reply = rig.ask().unwrap();
    assert_eq!((reply[1], &reply[12..16]), (4, &CLIENT[..]));
    let screen = rig.type_line("sources");
    assert!(
        screen.contains("10.0.2.2, stratum 3, asked every 16 s"),
        "{screen}"
    );
}

#[test]
fn looking_for_the_neighbour_is_not_in_the_bound() {
    let mut rig = rig_without_checks(&marker_only(1), FOLLOWING);
    for round in 0..2 {
        let mut sent = rig.exchange(&[]);
        for _ in 0..1000 {
            if sent.iter().any(|frame| looks_for_server(frame)) {
                break;
            }
            sent = rig.pass(Duration::from_millis(10));
        }
        assert!(sent.iter().all(|frame| asked(frame).is_none()));
        // The neighbour takes its time: 0.3 s.
        rig.pass(Duration::from_millis(300));
        let sent = rig.exchange(&[neighbour()]);
        let request = sent.iter().find_map(|frame| asked(frame)).unwrap();
        let reply = rig.true_reply(&request, 3);
        rig.answer(&request, &reply);
        if round == 0 {
            // Long enough for the stack to forget where it is: the request after the second has to look.
            rig.follow(secs(3));
            rig.follow(secs(3));
            rig.follow(secs(3));
            rig.pass(secs(61));
        }
    }
    assert!(rig.right() < 65);
}

#[test]
fn datagrams_from_elsewhere_are_not_read() {
    let mut rig = rig_following();
    for _ in 0..2 {
        let request = rig.next_request(secs(3));
        // Everything is right with them but where they come from. They say it is an hour later.
        let mut lie = rig.true_reply(&request, 3);
        for at in [32, 40] {
            let second = u32::from_be_bytes(lie[at..at + 4].try_into().unwrap());
            lie[at..at + 4].copy_from_slice(&(second + 3600).to_be_bytes());
        }
        for from in [([10, 0, 2, 3], 123), (CLIENT, 124), ([8, 8, 8, 8], 123)] {
            assert!(
                rig.exchange(&[datagram(from, request.port, &lie)])
                    .is_empty()
            );
        }
        // From the server to another port of ours, and too long.
        let lost = rig.exchange(&[datagram((CLIENT, 123), request.port ^ 2, &lie)]);
        assert!(lost.iter().all(|frame| asked(frame).is_none()));
        let long = [&lie[..], &[0; 20]].concat();
        rig.exchange(&[datagram((CLIENT, 123), request.port, &long)]);
        let reply = rig.true_reply(&request, 3);
        rig.answer(&request, &reply);
    }
    rig.right();
}

#[test]
fn a_disruption_ends_the_time_at_once_and_the_next_burst_brings_it_back() {
    let mut rig = following();
    rig.right();
    rig.pass(secs(5));
    let before = rig.follow(secs(20));
    // An answer that is under way when it happens.
    let under_way = rig.next_request(secs(20));
    let late = rig.true_reply(&under_way, 3);
    // The machine was stopped for an hour, and its counter with it.
    rig.publish(&marker_only(2));
    let step = rig.ask().unwrap();
    assert_eq!((leap(&step), &step[12..16]), (3, &b"STEP"[..]));
    assert_eq!(step[32..48], [0; 16]);
    rig.exchange(&[datagram((CLIENT, 123), under_way.port, &late)]);
    assert_eq!(leap(&rig.ask().unwrap()), 3);

    rig.follow(secs(3));
    let step = rig.ask().unwrap();
    assert_eq!((leap(&step), &step[12..16]), (3, &b"STEP"[..]));
    let after = rig.follow(secs(3));
    rig.right();
    assert_ne!(before.port, after.port, "another life, another port");
}

/// The counter's rate is not that of the start any more, and is measured while the answer is on its way.
#[test]
fn with_a_timer_one_answer_after_a_disruption_is_enough() {
    for has_timer in [false, true] {
        let mut rig = following();
        rig.has_timer.set(has_timer);
        rig.pass(secs(5));
        rig.right();
        rig.publish(&marker_only(2));
        // At once, since the last one is long ago.
        let request = rig.next_request(Duration::from_millis(20));
        let step = rig.ask().unwrap();
        assert_eq!((leap(&step), &step[12..16]), (3, &b"STEP"[..]));
        for _ in 0..10 {
            rig.pass(Duration::from_millis(1));
        }
        let reply = rig.true_reply(&request, 3);
        rig.answer(&request, &reply);
        if has_timer {
            assert!(rig.right() < 1000);
        } else {
            assert_eq!(leap(&rig.ask().unwrap()), 3);
        }
    }
}

/// As on a restored machine whose counter is another one, and its timer made of that.
#[test]
fn a_timer_that_went_back_with_a_disruption_holds_nothing_up() {
    let mut rig = following();
    rig.pass(secs(500));
    rig.follow(secs(1));
    for (marker, uptime) in [(2, secs(600)), (3, secs(1))] {
        rig.clear_screen();
        rig.uptime.set(uptime);
        rig.publish(&marker_only(marker));
        rig.follow(secs(1));
        rig.follow(secs(3));
        rig.right();
        let screen = rig.screen();
        assert!(
            screen.contains("machine: moved"),
            "the log goes on: {screen:?}"
        );
    }
}

#[test]
fn without_answers_the_bound_grows_and_the_service_goes_on() {
    let mut rig = following();
    let before = rig.right();
    for _ in 0..20 {
        rig.pass(secs(30));
        if rig
            .exchange(&[])
            .iter()
            .any(|frame| looks_for_server(frame))
        {
            rig.exchange(&[neighbour()]);
        }
    }
    let after = rig.right();
    // 600 s by 100 ppm, and what four samples leave open of the period.
    assert!(after > before + 2000, "{before}, {after}");
    let reply = rig.ask().unwrap();
    assert_eq!((reply[1], &reply[12..16]), (4, &CLIENT[..]));
}

#[test]
fn a_server_that_follows_us_is_not_followed() {
    let mut rig = rig_following();
    for _ in 0..4 {
        let request = rig.next_request(secs(3));
        let mut reply = rig.true_reply(&request, 3);
        reply[12..16].copy_from_slice(&GUEST);
        rig.answer(&request, &reply);
    }
    assert_eq!(leap(&rig.ask().unwrap()), 3);
    let screen = rig.type_line("sources");
    assert!(
        screen.contains("the server follows this machine"),
        "{screen}"
    );
}

#[test]
fn a_server_that_steps_is_not_averaged() {
    let mut rig = following();
    let request = rig.next_request(secs(20));
    let mut reply = rig.true_reply(&request, 3);
    for at in [32, 40] {
        let second = u32::from_be_bytes(reply[at..at + 4].try_into().unwrap());
        reply[at..at + 4].copy_from_slice(&(second + 1).to_be_bytes());
    }
    rig.answer(&request, &reply);
    // Nobody can say which of the two it was.
    assert_eq!(leap(&rig.ask().unwrap()), 3);
}

#[test]
fn a_server_that_wants_nobody_is_left_alone() {
    let mut rig = rig_following();
    let request = rig.next_request(secs(3));
    let mut reply = rig.true_reply(&request, 0);
    reply[12..16].copy_from_slice(b"DENY");
    rig.answer(&request, &reply);
    let screen = rig.type_line("sources");
    assert!(screen.contains("(DENY)"), "{screen}");
    for _ in 0..100 {
        let sent = rig.pass(secs(60));
        assert!(
            sent.iter()
                .all(|frame| asked(frame).is_none() && !looks_for_server(frame))
        );
    }
}

#[test]
fn silence_is_told() {
    let mut rig = rig_following();
    for _ in 0..4 {
        rig.next_request(secs(3));
    }
    rig.pass(secs(3));
    let screen = rig.type_line("sources");
    assert!(screen.contains("does not answer"), "{screen}");
}

#[test]
fn an_address_that_cannot_be_asked_is_told() {
    for (address, why) in [("2001:db8::1", "IPv4 only"), ("0.0.0.0", "not an address")] {
        let mut rig = rig_without_checks(
            &marker_only(1),
            &format!("ip=10.0.2.15/24,10.0.2.2 source=ntp:{address}"),
        );
        rig.pass(secs(1));
        let screen = rig.type_line("sources");
        assert!(screen.contains(why), "{screen}");
    }
}

#[test]
fn the_page_goes_before_the_server_and_is_compared_with_it() {
    let mut rig = rig_without_checks(
        &good(1, NOON),
        "ip=10.0.2.15/24,10.0.2.2 source=auto,ntp:10.0.2.2",
    );
    rig.exchange(&[]);
    for _ in 0..4 {
        rig.follow(secs(3));
    }
    let reply = rig.ask().unwrap();
    assert_eq!((reply[1], &reply[12..16]), (1, &b"XVMC"[..]));
    let screen = rig.type_line("sources");
    assert!(screen.contains("10.0.2.2, stratum 3"), "{screen}");
}

#[test]
fn the_operators_offset_gives_tai() {
    let mut rig = rig_without_checks(
        &marker_only(1),
        "ip=10.0.2.15/24,10.0.2.2 source=ntp:10.0.2.2 tai_offset=37",
    );
    rig.exchange(&[]);
    for _ in 0..2 {
        rig.follow(secs(3));
    }
    rig.right();
    let screen = rig.type_line("time");
    assert!(screen.contains("TAI-UTC 37"), "{screen}");
}

#[test]
fn the_era_is_that_of_the_image() {
    // What the rest here counts by.
    assert_eq!(utc(truth(0)).seconds(), i64::try_from(NOON).unwrap() - 37);
}
