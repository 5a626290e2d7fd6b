//! The whole service on the host: a machine, a network device and a console that are plain memory.
#![expect(
    clippy::unwrap_used,
    reason = "a test says what it expects by unwrapping it"
)]

use core::cell::Cell;
use core::time::Duration;
use std::rc::Rc;

#[path = "service/counter.rs"]
mod counter;
mod doubles;
#[path = "service/duty.rs"]
mod duty;
#[path = "service/frames.rs"]
mod frames;
#[path = "service/http.rs"]
mod http;
#[path = "service/ipv6.rs"]
mod ipv6;
#[path = "service/lease.rs"]
mod lease;
#[path = "service/network.rs"]
mod network;
#[path = "service/ports.rs"]
mod ports;
#[path = "service/smear.rs"]
mod smear;
#[path = "service/upstream.rs"]
mod upstream;

use doubles::counter::Gigahertz;
use doubles::line::Line;
use doubles::wire::{GUEST_MAC, Wire};
use gnomon_clock::estimate::TIMER_HERTZ;
use gnomon_clock::page::{Fields, VmclockPage, Writer, flag};
use gnomon_clock::{Clock, Period};
use gnomon_kernel::config::Config;
use gnomon_kernel::console::Console;
use gnomon_kernel::machine::Machine;
use gnomon_kernel::random::{Source, Take};
use gnomon_kernel::serve::auth::Keys;
use gnomon_kernel::service::{Found, Memory, Service};
use gnomon_kernel::services::Services;
use gnomon_kernel::services::counters::Rate;
use gnomon_kernel::shell::Facts;
use smoltcp::wire::{
    ArpPacket, EthernetFrame, EthernetProtocol, Icmpv4Message, Icmpv4Packet, IpProtocol,
    Ipv4Packet, UdpPacket,
};

const CLIENT_MAC: [u8; 6] = [0x52, 0x55, 10, 0, 2, 2];
const GUEST: [u8; 4] = [10, 0, 2, 15];
const CLIENT: [u8; 4] = [10, 0, 2, 2];
/// 2026-11-20T12:00:00 as TAI seconds since 1970.
const NOON: u64 = 1_795_176_037;

struct Host {
    uptime: Rc<Cell<Duration>>,
    /// CNTPCT − CNTVCT, where there is a physical counter.
    offset: Rc<Cell<Option<u64>>>,
    /// Whether there is an ACPI power management timer.
    has_timer: Rc<Cell<bool>>,
    counter: Gigahertz,
}

impl Machine for Host {
    fn uptime(&mut self) -> Option<Duration> {
        self.uptime
            .set(self.uptime.get() + Duration::from_micros(10));
        Some(self.uptime.get())
    }
    fn gather(&mut self, take: Take<'_>) {
        take(Source::Boot, b"a seed of this test");
    }
    fn physical_counter(&mut self) -> Option<u64> {
        let offset = self.offset.get()?;
        Some(self.counter.0.ticks.get().wrapping_add(offset))
    }
    fn power_timer(&mut self) -> Option<u32> {
        let ticks = u128::from(self.counter.0.ticks.get()) * u128::from(TIMER_HERTZ);
        let shown = u32::try_from(ticks / 1_000_000_000 % (1 << 32)).unwrap();
        self.has_timer.get().then_some(shown)
    }
    fn sleep(&mut self, _: Duration) {}
    fn power_off(&mut self) -> ! {
        panic!("power off")
    }
    fn reboot(&mut self) -> ! {
        panic!("reboot")
    }
}

/// A machine that states the counter's rate, and time stolen.
#[derive(Debug)]
struct Stated;

impl Services for Stated {
    fn list(&self, out: &mut dyn core::fmt::Write) -> core::fmt::Result {
        writeln!(out, "conduit     script")
    }
    fn rate(&self) -> Option<Rate> {
        Some(Rate {
            hertz: 1_000_000_000,
            unit: 1,
            source: "test",
        })
    }
    fn stolen(&self) -> Option<u64> {
        Some(1234)
    }
}

/// A service with everything it touches.
struct Rig {
    service: Service<'static, Host, Gigahertz, Wire, Line>,
    page: &'static VmclockPage,
    counter: Gigahertz,
    offset: Rc<Cell<Option<u64>>>,
    has_timer: Rc<Cell<bool>>,
    uptime: Rc<Cell<Duration>>,
    wire: Wire,
    line: Line,
    second: Line,
}

fn good(marker: u64, time_sec: u64) -> Fields {
    let period = Period::from_hertz(1_000_000_000).unwrap();
    Fields {
        disruption_marker: marker,
        counter_id: 1,
        time_type: 1,
        clock_status: 2,
        flags: flag::TAI_OFFSET_VALID | flag::TIME_MAXERROR_VALID | flag::PERIOD_MAXERROR_VALID,
        tai_offset_sec: -37,
        counter_period_frac_sec: period.frac(),
        counter_period_shift: period.shift(),
        time_sec,
        // A page left over by a disruption is not believed: each marker has a line of its own, 61 µs
        // from the next one's.
        time_frac_sec: marker << 50,
        time_maxerror_nanosec: 1000,
        ..Fields::stock()
    }
}

fn rig(fields: &Fields, command_line: &str) -> Rig {
    let mut rig = rig_without_checks(fields, command_line);
    if command_line.contains("ip=") && !command_line.contains("ip6=") {
        // A known address is announced before anything else.
        while rig.service.turn() {}
        let sent = core::mem::take(&mut rig.wire.0.borrow_mut().from_guest);
        let [frame] = &sent[..] else {
            panic!("{sent:?}")
        };
        let frame = EthernetFrame::new_checked(frame).unwrap();
        assert_eq!(
            (frame.dst_addr().0, frame.src_addr().0),
            ([0xff; 6], GUEST_MAC)
        );
        let arp = ArpPacket::new_checked(frame.payload()).unwrap();
        assert_eq!(
            (arp.source_hardware_addr(), arp.source_protocol_addr()),
            (&GUEST_MAC[..], &GUEST[..])
        );
        assert_eq!(arp.target_protocol_addr(), &GUEST, "an announcement");
    }
    rig
}

/// The same, whose first frames nobody has seen.
fn rig_without_checks(fields: &Fields, command_line: &str) -> Rig {
    let page: &'static VmclockPage = Box::leak(Box::new(VmclockPage::new(fields)));
    let (counter, wire) = (Gigahertz::default(), Wire::default());
    let (line, second) = (Line::default(), Line::default());
    let uptime = Rc::new(Cell::new(Duration::ZERO));
    let offset = Rc::new(Cell::new(None));
    let has_timer = Rc::new(Cell::new(false));
    let memory = Memory {
        stack: Box::leak(Box::default()),
        clients: Box::leak(Box::default()),
        http: Box::leak(Box::default()),
        table: Box::leak(Box::default()),
        sources: &mut [],
    };
    // Without a word about IPv6 there is none: it would talk by itself.
    let plain = format!("{command_line} ip6=off");
    let has_ip6 = command_line.contains("ip6=");
    let words = if has_ip6 { command_line } else { &plain };
    let config = Config::parse(words, &mut |warning| panic!("{warning}"));
    let service = Service::new(
        Host {
            uptime: uptime.clone(),
            offset: offset.clone(),
            has_timer: has_timer.clone(),
            counter: counter.clone(),
        },
        Clock::new(Some(page), counter.clone()),
        Some(wire.clone()),
        memory,
        [
            Console::new(Some(line.clone()), Box::leak(Box::new([0; _]))),
            Console::new(Some(second.clone()), Box::leak(Box::new([0; _]))),
        ],
        config,
        Found {
            machine: "test",
            page: Err("test"),
            nic: "test",
            absent: &[],
            services: &Stated,
            facts: &Facts::NONE,
        },
    );
    Rig {
        service,
        page,
        counter,
        offset,
        has_timer,
        uptime,
        wire,
        line,
        second,
    }
}

const STATIC: &str = "ip=10.0.2.15/24,10.0.2.2";

impl Rig {
    fn publish(&self, fields: &Fields) {
        publish(self.page, fields);
    }

    /// Lets the guest have `frames` and returns what it sends.
    fn exchange(&mut self, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        self.wire
            .0
            .borrow_mut()
            .to_guest
            .extend(frames.iter().cloned());
        while self.service.turn() {}
        let mut wire = self.wire.0.borrow_mut();
        assert_eq!(wire.buffers_out, 0, "no buffer is lost");
        assert!(wire.pending.is_empty(), "everything sent was kicked");
        core::mem::take(&mut wire.from_guest)
    }

    fn ask(&mut self) -> Option<Vec<u8>> {
        self.ask_port(123)
    }

    fn ask_port(&mut self, port: u16) -> Option<Vec<u8>> {
        let sent = self.exchange(&[request_to(port, &CLIENT_REQUEST)]);
        let [frame] = &sent[..] else { return None };
        Some(reply_from(port, frame))
    }

    /// Lets time pass, by the counter and by the timer, and the service have a look.
    fn pass(&mut self, time: Duration) -> Vec<Vec<u8>> {
        let ticks = &self.counter.0.ticks;
        ticks.set(ticks.get() + u64::try_from(time.as_nanos()).unwrap());
        self.uptime.set(self.uptime.get() + time);
        self.exchange(&[])
    }

    /// What the console shows from here on.
    fn clear_screen(&mut self) {
        self.line.shown();
    }

    /// What the page has to say if nothing happens but that the host updates it.
    fn now(&self, fields: &Fields) -> Fields {
        let ticks = self.counter.0.ticks.get();
        let nanos = ticks - fields.counter_value;
        let fraction = (((nanos % 1_000_000_000) << 32) / 1_000_000_000) << 32;
        let (time_frac_sec, carry) = fields.time_frac_sec.overflowing_add(fraction);
        Fields {
            counter_value: ticks,
            time_sec: fields.time_sec + nanos / 1_000_000_000 + u64::from(carry),
            time_frac_sec,
            time_maxerror_nanosec: 2000,
            ..*fields
        }
    }

    fn screen(&self) -> String {
        String::from_utf8(self.line.0.borrow().shown.clone()).unwrap()
    }

    fn type_line(&mut self, text: &str) -> String {
        self.clear_screen();
        self.line.type_in(text.as_bytes());
        self.line.type_in(b"\r");
        while self.service.turn() {}
        self.screen()
    }
}

fn publish(page: &VmclockPage, fields: &Fields) {
    let seq = page.snapshot().unwrap().seq_count;
    Writer::new(page, seq).publish(fields).unwrap();
}

const CLIENT_REQUEST: [u8; 48] = {
    let mut request = [0; 48];
    request[0] = 0x23;
    request[2] = 6;
    request[40] = 0xa0;
    request[47] = 0xa7;
    request
};

/// The client asks where the guest is, and lets it know where it is itself.
fn arp_request() -> Vec<u8> {
    let mut arp = ethernet([0xff; 6], EthernetProtocol::Arp, 28);
    let mut packet = ArpPacket::new_unchecked(&mut arp[14..]);
    packet.set_hardware_type(smoltcp::wire::ArpHardware::Ethernet);
    packet.set_protocol_type(EthernetProtocol::Ipv4);
    packet.set_hardware_len(6);
    packet.set_protocol_len(4);
    packet.set_operation(smoltcp::wire::ArpOperation::Request);
    packet.set_source_hardware_addr(&CLIENT_MAC);
    packet.set_source_protocol_addr(&CLIENT);
    packet.set_target_protocol_addr(&GUEST);
    arp
}

fn echo_request() -> Vec<u8> {
    let mut ping = ethernet(GUEST_MAC, EthernetProtocol::Ipv4, 20 + 8 + 32);
    let mut ip = ipv4(&mut ping[14..], IpProtocol::Icmp);
    let mut icmp = Icmpv4Packet::new_unchecked(ip.payload_mut());
    icmp.set_msg_type(Icmpv4Message::EchoRequest);
    icmp.set_echo_ident(7);
    icmp.fill_checksum();
    ping
}

/// A UDP datagram from the client's port 5555 to the guest's port 123.
fn request(payload: &[u8]) -> Vec<u8> {
    request_to(123, payload)
}

fn request_to(port: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = ethernet(GUEST_MAC, EthernetProtocol::Ipv4, 28 + payload.len());
    let mut ip = ipv4(&mut frame[14..], IpProtocol::Udp);
    let mut udp = UdpPacket::new_unchecked(ip.payload_mut());
    udp.set_src_port(5555);
    udp.set_dst_port(port);
    udp.set_len(u16::try_from(8 + payload.len()).unwrap());
    udp.payload_mut().copy_from_slice(payload);
    udp.fill_checksum(
        &core::net::Ipv4Addr::from(CLIENT).into(),
        &core::net::Ipv4Addr::from(GUEST).into(),
    );
    frame
}

fn ethernet(to: [u8; 6], protocol: EthernetProtocol, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; 14 + length];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    frame.set_dst_addr(smoltcp::wire::EthernetAddress(to));
    frame.set_src_addr(smoltcp::wire::EthernetAddress(CLIENT_MAC));
    frame.set_ethertype(protocol);
    bytes
}

fn ipv4(bytes: &mut [u8], protocol: IpProtocol) -> Ipv4Packet<&mut [u8]> {
    let length = u16::try_from(bytes.len()).unwrap();
    let mut ip = Ipv4Packet::new_unchecked(bytes);
    ip.set_version(4);
    ip.set_header_len(20);
    ip.set_total_len(length);
    ip.set_hop_limit(64);
    ip.set_next_header(protocol);
    ip.set_src_addr(CLIENT.into());
    ip.set_dst_addr(GUEST.into());
    ip.fill_checksum();
    ip
}

/// The NTP payload of a frame that must be a correct reply to the client.
fn reply(frame: &[u8]) -> Vec<u8> {
    reply_from(123, frame)
}

fn reply_from(port: u16, frame: &[u8]) -> Vec<u8> {
    let frame = EthernetFrame::new_checked(frame).unwrap();
    assert_eq!(frame.dst_addr().0, CLIENT_MAC);
    assert_eq!(frame.src_addr().0, GUEST_MAC);
    let ip = Ipv4Packet::new_checked(frame.payload()).unwrap();
    assert!(ip.verify_checksum());
    let udp = UdpPacket::new_checked(ip.payload()).unwrap();
    assert!(udp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()));
    assert_eq!((udp.src_port(), udp.dst_port()), (port, 5555));
    udp.payload().to_vec()
}

fn leap(reply: &[u8]) -> u8 {
    reply[0] >> 6
}

fn seconds(reply: &[u8], offset: usize) -> u64 {
    u64::from(u32::from_be_bytes(
        reply[offset..offset + 4].try_into().unwrap(),
    ))
}

/// What NTP calls the second that TAI calls `tai`.
fn ntp_seconds(tai: u64) -> u64 {
    tai - 37 + 2_208_988_800
}

#[test]
fn answers_with_the_time_of_the_page() {
    let mut rig = rig(&good(1, NOON), STATIC);
    let reply = rig.ask().unwrap();
    assert_eq!(reply.len(), 48);
    assert_eq!((leap(&reply), reply[0] & 0x3f, reply[1]), (0, 0x24, 1));
    assert_eq!(
        reply[24..32],
        CLIENT_REQUEST[40..48],
        "the origin is the client's cookie"
    );
    assert_eq!(seconds(&reply, 32), ntp_seconds(NOON));
    assert_eq!(seconds(&reply, 40), ntp_seconds(NOON));
    assert!(reply[40..48] > reply[32..40], "sent after it was received");
    assert_ne!(reply[8..12], [0; 4], "the bound is never zero");
}

#[test]
fn a_page_without_time_gives_init_and_never_a_time() {
    let mut rig = rig(&Fields::stock(), STATIC);
    let reply = rig.ask().unwrap();
    assert_eq!(
        (leap(&reply), reply[1], &reply[12..16]),
        (3, 0, &b"INIT"[..])
    );
    assert_eq!(reply[16..24], [0; 8]);
    assert_eq!(reply[32..48], [0; 16]);
}

#[test]
fn the_very_next_reply_after_a_disruption_says_so_or_carries_the_new_time() {
    let mut rig = rig(&good(1, NOON), STATIC);
    assert_eq!(leap(&rig.ask().unwrap()), 0);
    rig.publish(&Fields {
        clock_status: 1,
        ..good(2, NOON)
    });
    for _ in 0..3 {
        let reply = rig.ask().unwrap();
        assert_eq!(
            (leap(&reply), reply[1], &reply[12..16]),
            (3, 0, &b"STEP"[..])
        );
    }
    rig.publish(&good(2, NOON + 3600));
    let reply = rig.ask().unwrap();
    assert_eq!(
        (leap(&reply), seconds(&reply, 40)),
        (0, ntp_seconds(NOON + 3600))
    );
    // A marker that moves while the page stays valid: no gap, the new page's time at once.
    rig.publish(&good(3, NOON + 7200));
    let reply = rig.ask().unwrap();
    assert_eq!(
        (leap(&reply), seconds(&reply, 40)),
        (0, ntp_seconds(NOON + 7200))
    );
}

#[test]
fn a_request_stamped_before_a_disruption_is_not_answered() {
    let mut rig = rig(&good(1, NOON), STATIC);
    rig.ask().unwrap();
    let page = rig.page;
    // Right after the arrival stamp of the next request is taken, the guest is moved.
    rig.counter
        .at_next_read(move || publish(page, &good(2, NOON + 3600)));
    assert_eq!(rig.ask(), None, "silence");
    let reply = rig.ask().unwrap();
    assert_eq!(seconds(&reply, 32), ntp_seconds(NOON + 3600));
}

#[test]
fn what_is_no_request_meets_silence() {
    let mut rig = rig(&good(1, NOON), STATIC);
    let mut frames = Vec::new();
    for mode in [0, 2, 4, 5, 6, 7] {
        let mut payload = CLIENT_REQUEST;
        payload[0] = 0x20 | mode;
        frames.push(request(&payload));
    }
    frames.push(request(&CLIENT_REQUEST[..47]));
    frames.push(request(&[]));
    let mut broadcast = request(&CLIENT_REQUEST);
    broadcast[..6].copy_from_slice(&[0xff; 6]);
    frames.push(broadcast);
    for length in 0..60 {
        frames.push(request(&CLIENT_REQUEST)[..length].to_vec());
    }
    assert_eq!(rig.exchange(&frames), Vec::<Vec<u8>>::new());
}

#[test]
fn everything_else_on_the_network_still_works() {
    let mut rig = rig(&good(1, NOON), STATIC);
    // ARP first: the stack must learn where the client is before it can answer.
    let (arp, ping) = (arp_request(), echo_request());
    let sent = rig.exchange(&[arp, ping, request(&CLIENT_REQUEST)]);
    assert_eq!(sent.len(), 3);
    assert_eq!(
        EthernetFrame::new_checked(&sent[0]).unwrap().ethertype(),
        EthernetProtocol::Arp
    );
    let frame = EthernetFrame::new_checked(&sent[1]).unwrap();
    let ip = Ipv4Packet::new_checked(frame.payload()).unwrap();
    assert_eq!(ip.next_header(), IpProtocol::Icmp);
    let icmp = Icmpv4Packet::new_checked(ip.payload()).unwrap();
    assert_eq!(
        (icmp.msg_type(), icmp.echo_ident()),
        (Icmpv4Message::EchoReply, 7)
    );
    assert_eq!(leap(&reply(&sent[2])), 0);
}

#[test]
fn a_flood_is_answered_to_the_last_frame() {
    let mut rig = rig(&good(1, NOON), STATIC);
    let frames = vec![request(&CLIENT_REQUEST); 1000];
    let sent = rig.exchange(&frames);
    assert_eq!(sent.len(), 1000);
    assert!(sent.iter().all(|frame| leap(&reply(frame)) == 0));
}

#[test]
fn dhcp_is_asked_and_the_report_comes_without_it_too() {
    let mut rig = rig(&good(1, NOON), "");
    let sent = rig.exchange(&[]);
    assert_eq!(sent.len(), 1, "one DISCOVER");
    assert_eq!(rig.screen(), "", "waits for the lease");
    assert_eq!(rig.ask(), None, "no address, no answer");
    rig.uptime.set(Duration::from_secs(2));
    rig.exchange(&[]);
    let screen = rig.screen();
    assert!(screen.contains("2026-11-20T12:00:00."), "{screen}");
    assert!(screen.ends_with("gnomon> "), "{screen}");
}

#[test]
fn the_console_tells_the_time() {
    let mut rig = rig(&good(1, NOON), STATIC);
    rig.exchange(&[]);
    let screen = rig.type_line("time");
    assert!(
        screen.starts_with("time\r\n2026-11-20T12:00:00.")
            && screen.contains("TAI-UTC 37  synchronized"),
        "{screen}"
    );
    let screen = rig.type_line("status");
    assert!(
        screen.contains("precision 2^-19 s"),
        "1 µs a read: {screen}"
    );
    let mut off = self::rig(&good(1, NOON), "ip=10.0.2.15/24 serial=off");
    off.exchange(&[]);
    let before = off.screen();
    assert!(!before.contains("gnomon>"));
    assert_eq!(off.type_line("time"), "", "input is ignored");
}

#[test]
fn a_reply_in_interleaved_mode_tells_when_the_last_one_left() {
    let mut rig = rig(&good(1, NOON), STATIC);
    let ask = |rig: &mut Rig, number: u8, named: &[u8]| {
        let mut payload = CLIENT_REQUEST;
        payload[24..32].copy_from_slice(named);
        payload[32] = number;
        let sent = rig.exchange(&[request(&payload)]);
        let reply = reply(&sent[0]);
        let interleaved = reply[24..32] == payload[32..40];
        (reply, interleaved)
    };
    let stamp = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
    let (mut last, _) = ask(&mut rig, 1, &[0; 8]);
    for number in 2..9 {
        let (reply, interleaved) = ask(&mut rig, number, &last[32..40]);
        assert_eq!(interleaved, number > 2);
        if interleaved {
            // Arrival, the stamp in the reply, and before it was queued: three reads of a microsecond.
            let told = stamp(&reply[40..48]) - stamp(&last[32..40]);
            let nanos = (u128::from(told) * 1_000_000_000) >> 32;
            assert!((1_998..=2_001).contains(&nanos), "{nanos} ns");
        }
        last = reply;
    }
    let status = rig.type_line("status");
    assert!(status.contains("interleaved 6"), "{status}");
}

/// All of a batch are told of, though they were queued before any of them was sent.
#[test]
fn a_batch_in_interleaved_mode() {
    let mut rig = rig(&good(1, NOON), STATIC);
    let mut names = vec![[0; 8]; 20];
    for round in 0..4 {
        let frames = (1..).zip(&names).map(|(number, name)| {
            let mut payload = CLIENT_REQUEST;
            payload[24..32].copy_from_slice(name);
            payload[32] = number;
            request(&payload)
        });
        let replies = rig.exchange(&frames.collect::<Vec<_>>());
        for ((number, name), frame) in (1..).zip(&mut names).zip(&replies) {
            let reply = reply(frame);
            // Its first request names nothing, and the reply to that is not remembered.
            assert_eq!(reply[24] == number, round >= 2, "{round}");
            name.copy_from_slice(&reply[32..40]);
        }
    }
}

#[test]
fn one_kick_for_a_batch_and_one_at_once_for_a_single_reply() {
    let mut rig = rig(&good(1, NOON), STATIC);
    rig.wire.0.borrow_mut().kicks.clear();
    for (number, kicks) in [
        (1, vec![1]),
        (7, vec![7]),
        (20, vec![8, 8, 4]),
        (40, vec![8; 5]),
    ] {
        let sent = rig.exchange(&vec![request(&CLIENT_REQUEST); number]);
        assert_eq!(sent.len(), number);
        assert_eq!(core::mem::take(&mut rig.wire.0.borrow_mut().kicks), kicks);
    }
}

#[test]
fn the_command_line_says_who_is_answered() {
    let mut rig = rig(&good(1, NOON), "ip=10.0.2.15/24 ntp.deny=10.0.2.2");
    assert_eq!(rig.ask(), None);
    let mut rig = self::rig(&good(1, NOON), "ip=10.0.2.15/24 ntp.limit=3,8s");
    let frames = vec![request(&CLIENT_REQUEST); 100];
    // The burst, and about five in sixteen of the rest: a leak or a kiss.
    let answered = rig.exchange(&frames).len();
    assert!((3 + 15..3 + 50).contains(&answered), "{answered}");
    let mut rig = self::rig(&good(1, NOON), "ip=10.0.2.15/24 ntp.auth=require");
    assert_eq!(rig.ask(), None);
}

#[test]
fn an_authenticated_request_gets_a_longer_reply() {
    let key = "7:AES128:2b7e151628aed2a6abf7158809cf4f3c";
    let mut keys = Keys::NONE;
    keys.parse_word(key).unwrap();
    let authenticator = keys.find(7).unwrap().authenticator();
    let sign = |message: &[u8]| {
        let tag = authenticator.tag(&[message]);
        [message, &[0, 0, 0, 7], &tag].concat()
    };
    let line = std::format!("{STATIC} ntp.key={key}");
    let mut rig = rig(&good(1, NOON), &line);
    let sent = rig.exchange(&[request(&sign(&CLIENT_REQUEST))]);
    let reply = reply(&sent[0]);
    assert_eq!(reply, sign(&reply[..48]));
    assert!(!rig.screen().contains("2b7e"), "{}", rig.screen());
}
