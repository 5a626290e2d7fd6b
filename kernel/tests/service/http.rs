//! HTTP over TCP with another stack at the other end of the wire, and with none.

use core::time::Duration;
use std::collections::VecDeque;

use gnomon_kernel::http::{ANSWERING, ASKING, CONNECTIONS, CROWDED, OPENING, page};
use proptest::prelude::*;
use serde_json::Value;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, IpCidr, IpProtocol, Ipv4Packet, TcpPacket,
    TcpSeqNumber,
};

use super::*;

/// The client's end of the wire.
#[derive(Default)]
struct End {
    arrived: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
}

struct Arrived(Vec<u8>);
struct Sending<'a>(&'a mut Vec<Vec<u8>>);

impl RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut frame = vec![0; length];
        let result = f(&mut frame);
        self.0.push(frame);
        result
    }
}

impl Device for End {
    type RxToken<'a> = Arrived;
    type TxToken<'a> = Sending<'a>;
    fn receive(&mut self, _: Instant) -> Option<(Arrived, Sending<'_>)> {
        let frame = self.arrived.pop_front()?;
        Some((Arrived(frame), Sending(&mut self.sent)))
    }
    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.sent))
    }
    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

/// Clients on one machine.
struct Clients {
    rig: Rig,
    interface: Interface,
    end: End,
    sockets: SocketSet<'static>,
    next_port: u16,
}

impl Clients {
    fn new(command_line: &str) -> Self {
        let mut end = End::default();
        let config = Config::new(EthernetAddress(CLIENT_MAC).into());
        let mut interface = Interface::new(config, &mut end, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            let ours = IpCidr::new(core::net::Ipv4Addr::from(CLIENT).into(), 24);
            addresses.push(ours).unwrap();
        });
        Self {
            rig: rig(&good(1, NOON), command_line),
            interface,
            end,
            sockets: SocketSet::new(Vec::new()),
            next_port: 40000,
        }
    }

    /// Lets both ends have what is on the wire until there is nothing more.
    fn settle(&mut self) {
        for _ in 0..1000 {
            let now =
                Instant::from_micros(i64::try_from(self.rig.uptime.get().as_micros()).unwrap());
            self.interface.poll(now, &mut self.end, &mut self.sockets);
            let sent = core::mem::take(&mut self.end.sent);
            let answers = self.rig.exchange(&sent);
            if sent.is_empty() && answers.is_empty() {
                return;
            }
            self.end.arrived.extend(answers);
        }
        panic!("they talk for ever");
    }

    fn pass(&mut self, time: Duration) {
        let answers = self.rig.pass(time);
        self.end.arrived.extend(answers);
        self.settle();
    }

    /// A client that takes so many bytes before they are read.
    fn connect(&mut self, room: usize) -> SocketHandle {
        let mut socket = Socket::new(
            SocketBuffer::new(vec![0; room]),
            SocketBuffer::new(vec![0; 20_000]),
        );
        self.next_port += 1;
        let guest = (core::net::Ipv4Addr::from(GUEST), 80);
        let context = self.interface.context();
        socket.connect(context, guest, self.next_port).unwrap();
        let handle = self.sockets.add(socket);
        self.settle();
        handle
    }

    fn socket(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }

    fn say(&mut self, handle: SocketHandle, text: &[u8]) {
        assert_eq!(self.socket(handle).send_slice(text), Ok(text.len()));
        self.settle();
    }

    /// Everything that comes until the guest closes.
    fn hear(&mut self, handle: SocketHandle) -> Vec<u8> {
        let mut heard = Vec::new();
        for _ in 0..1000 {
            let socket = self.socket(handle);
            while socket.can_recv() {
                socket
                    .recv(|bytes| {
                        heard.extend_from_slice(bytes);
                        (bytes.len(), ())
                    })
                    .unwrap();
            }
            if !socket.may_recv() {
                break;
            }
            // Acknowledgements may be late by 10 ms.
            self.pass(Duration::from_millis(5));
        }
        self.socket(handle).close();
        self.settle();
        heard
    }

    fn get(&mut self, path: &str) -> (String, String) {
        let handle = self.connect(4000);
        self.say(handle, format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes());
        let answer = String::from_utf8(self.hear(handle)).unwrap();
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("{path} {answer:?}"));
        (head.to_owned(), body.to_owned())
    }

    fn assert_ntp(&mut self) {
        assert_eq!(self.rig.ask().map(|reply| leap(&reply)), Some(0));
    }
}

#[test]
fn each_of_many_requests_is_answered() {
    let mut clients = Clients::new(STATIC);
    for number in 0..3 * CONNECTIONS {
        let (head, body) = clients.get("/now");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{number}: {head}");
        let now: Value = serde_json::from_str(&body).unwrap();
        let utc = now["utc"].as_str().unwrap();
        assert!(utc.starts_with("2026-11-20T12:00:0"), "{utc}");
    }
    let (head, body) = clients.get("/nowhere");
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    assert_eq!(body, "404 Not Found\n");
}

#[test]
fn the_page_is_longer_than_a_send_buffer_and_arrives_whole() {
    let mut clients = Clients::new(STATIC);
    for room in [4000, 100] {
        let handle = clients.connect(room);
        clients.say(
            handle,
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\nand more, which is not heard",
        );
        let heard = clients.hear(handle);
        let start = heard
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .unwrap()
            + 4;
        let page = &heard[start..];
        assert_eq!(page.len(), page::LENGTH);
        assert!(page.starts_with(page::BEFORE) && page.ends_with(page::AFTER));
        let plain = &page[page::BEFORE.len()..][..page::PLAIN];
        assert!(plain.starts_with(b"2026-11-20T12:0"));
    }
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let mut clients = Clients::new(STATIC);
    let handle = clients.connect(4000);
    for byte in b"HEAD /status HTTP/1.1\r\nHost: gnomon\r\n\r\n" {
        clients.say(handle, &[*byte]);
    }
    let heard = String::from_utf8(clients.hear(handle)).unwrap();
    assert!(
        heard.starts_with("HTTP/1.1 200 OK\r\n") && heard.ends_with("\r\n\r\n"),
        "{heard}"
    );
}

#[test]
fn off_is_off() {
    let mut clients = Clients::new(&format!("{STATIC} http=off"));
    let handle = clients.connect(4000);
    assert_eq!(clients.socket(handle).state(), State::Closed, "refused");
    clients.assert_ntp();
}

/// Who says nothing keeps nobody out for long, and nobody from NTP at all.
#[test]
fn silent_clients_are_cut() {
    let mut clients = Clients::new(STATIC);
    let silent: Vec<_> = (0..CONNECTIONS).map(|_| clients.connect(4000)).collect();
    clients.assert_ntp();
    for handle in &silent {
        assert_eq!(clients.socket(*handle).state(), State::Established);
    }
    let refused = clients.connect(4000);
    assert_eq!(clients.socket(refused).state(), State::Closed);
    clients.pass(CROWDED.into());
    clients.assert_ntp();
    assert_eq!(
        clients.socket(silent[0]).state(),
        State::Closed,
        "the longest first"
    );
    assert_eq!(clients.socket(silent[1]).state(), State::Established);
    assert!(clients.get("/now").0.starts_with("HTTP/1.1 200 "));
    clients.pass(ASKING.into());
    for handle in silent {
        assert_eq!(clients.socket(handle).state(), State::Closed);
    }
}

/// A client that asks and does not read is cut, and so is one that never closes.
#[test]
fn slow_readers_are_cut() {
    let mut clients = Clients::new(STATIC);
    let slow: Vec<_> = (0..CONNECTIONS).map(|_| clients.connect(64)).collect();
    for handle in &slow {
        clients.say(*handle, b"GET / HTTP/1.0\r\n\r\n");
    }
    for _ in 0..9 {
        clients.pass(Duration::from_secs(1));
        clients.assert_ntp();
    }
    for handle in &slow {
        assert_eq!(clients.socket(*handle).state(), State::Established);
    }
    clients.pass(Duration::from_secs(2));
    assert!(clients.get("/now").0.starts_with("HTTP/1.1 200 "));

    let open: Vec<_> = (0..CONNECTIONS).map(|_| clients.connect(4000)).collect();
    for handle in &open {
        clients.say(*handle, b"GET /now HTTP/1.0\r\n\r\n");
        assert_eq!(clients.socket(*handle).state(), State::CloseWait);
    }
    clients.pass(ANSWERING.into());
    assert!(clients.get("/now").0.starts_with("HTTP/1.1 200 "));
}

fn segment(
    port: u16,
    seq: i32,
    ack: Option<i32>,
    flags: &dyn Fn(&mut TcpPacket<&mut [u8]>),
    payload: &[u8],
) -> Vec<u8> {
    let mut frame = ethernet(GUEST_MAC, EthernetProtocol::Ipv4, 40 + payload.len());
    let mut ip = ipv4(&mut frame[14..], IpProtocol::Tcp);
    let mut tcp = TcpPacket::new_unchecked(ip.payload_mut());
    tcp.set_src_port(port);
    tcp.set_dst_port(80);
    tcp.set_header_len(20);
    tcp.set_seq_number(TcpSeqNumber(seq));
    tcp.set_window_len(4096);
    flags(&mut tcp);
    if let Some(ack) = ack {
        tcp.set_ack(true);
        tcp.set_ack_number(TcpSeqNumber(ack));
    }
    tcp.payload_mut().copy_from_slice(payload);
    let (from, to) = (
        core::net::Ipv4Addr::from(CLIENT),
        core::net::Ipv4Addr::from(GUEST),
    );
    tcp.fill_checksum(&from.into(), &to.into());
    frame
}

/// Connections that are asked for and never confirmed, many in a batch: NTP in the same batch is
/// answered in the same round, and afterwards there is room again.
#[test]
fn half_open_connections_are_cut() {
    let mut clients = Clients::new(STATIC);
    // Lets the guest know where the client is.
    clients.get("/now");
    for wave in 0..50_u16 {
        let mut frames: Vec<_> = (0..20)
            .map(|number| {
                segment(
                    1000 + wave * 20 + number,
                    7,
                    None,
                    &|tcp| tcp.set_syn(true),
                    b"",
                )
            })
            .collect();
        frames.push(request(&CLIENT_REQUEST));
        clients.rig.wire.0.borrow_mut().to_guest.extend(frames);
        clients.rig.service.turn();
        let sent = core::mem::take(&mut clients.rig.wire.0.borrow_mut().from_guest);
        let replies = sent.iter().filter(|frame| frame[23] == 17).count();
        assert_eq!(replies, 1, "wave {wave}");
    }
    // The client's machine would refuse what it did not ask for.
    for time in [OPENING.into(), Duration::from_millis(1)] {
        let _unheard = clients.rig.pass(time);
    }
    assert!(clients.get("/now").0.starts_with("HTTP/1.1 200 "));
}

/// Whether a frame has bytes of an answer in it.
fn is_answer(frame: &[u8]) -> bool {
    let ethernet = EthernetFrame::new_checked(frame).unwrap();
    let Ok(ip) = Ipv4Packet::new_checked(ethernet.payload()) else {
        return false;
    };
    ip.next_header() == IpProtocol::Tcp
        && !TcpPacket::new_checked(ip.payload())
            .unwrap()
            .payload()
            .is_empty()
}

/// An HTTP request that came before an NTP request in the same batch is answered after it.
#[test]
fn ntp_goes_first() {
    let mut clients = Clients::new(STATIC);
    let handle = clients.connect(4000);
    clients
        .socket(handle)
        .send_slice(b"GET /status HTTP/1.0\r\n\r\n")
        .unwrap();
    let now = Instant::from_micros(i64::try_from(clients.rig.uptime.get().as_micros()).unwrap());
    clients
        .interface
        .poll(now, &mut clients.end, &mut clients.sockets);
    let mut frames = core::mem::take(&mut clients.end.sent);
    assert_eq!(frames.len(), 1);
    frames.extend((0..20).map(|_| request(&CLIENT_REQUEST)));
    let sent = clients.rig.exchange(&frames);
    let first_answer = sent.iter().position(|frame| is_answer(frame)).unwrap();
    let replies = sent.iter().filter(|frame| frame[23] == 17).count();
    let replies_before = sent[..first_answer]
        .iter()
        .filter(|frame| frame[23] == 17)
        .count();
    assert_eq!((replies, replies_before), (20, 20));
}

/// Nothing that was filled in before a disruption leaves after it, not even again.
#[test]
fn a_disruption_cuts_all_connections() {
    // With a generation that stays, it is the same life of the machine: one that was migrated.
    for flags in [0, flag::VM_GEN_COUNTER_PRESENT] {
        disrupt(flags);
    }
}

fn disrupt(flags: u64) {
    let mut clients = Clients::new(STATIC);
    let good = good(1, NOON);
    let flags = good.flags | flags;
    let first = clients.rig.now(&Fields { flags, ..good });
    clients.rig.publish(&first);
    clients.pass(Duration::from_millis(10));
    let handle = clients.connect(64);
    clients.say(handle, b"GET /status HTTP/1.0\r\n\r\n");
    assert_eq!(clients.socket(handle).state(), State::Established);
    let next = clients.rig.now(&first);
    clients.rig.publish(&Fields {
        disruption_marker: 2,
        time_frac_sec: 1 << 51,
        ..next
    });
    // Acknowledges and opens the window, so that more could come.
    let mut heard = Vec::new();
    clients
        .socket(handle)
        .recv(|bytes| {
            heard.extend_from_slice(bytes);
            (bytes.len(), ())
        })
        .unwrap();
    let now =
        Instant::from_micros(i64::try_from(clients.rig.uptime.get().as_micros()).unwrap() + 20_000);
    clients
        .interface
        .poll(now, &mut clients.end, &mut clients.sockets);
    let frames = core::mem::take(&mut clients.end.sent);
    assert!(!frames.is_empty());
    let mut sent = clients.rig.exchange(&frames);
    for _ in 0..20 {
        sent.extend(clients.rig.pass(Duration::from_secs(1)));
    }
    assert!(
        sent.iter().all(|frame| !is_answer(frame)),
        "not a byte of the answer"
    );
    clients.end.arrived.extend(sent);
    clients.settle();
    assert_eq!(clients.socket(handle).state(), State::Closed, "reset");
    assert!(clients.get("/now").1.contains("\"marker\":\"2\""));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever segments come, NTP is answered, and HTTP is again when they are over.
    #[test]
    fn any_segments_end(segments in prop::collection::vec(
        (0..6_u16, any::<i32>(), any::<Option<i32>>(), any::<[bool; 4]>(), prop::collection::vec(any::<u8>(), 0..64)),
        0..40,
    )) {
        let mut clients = Clients::new(STATIC);
        for (port, seq, ack, [syn, fin, rst, near], payload) in segments {
            let seq = if near { seq.rem_euclid(16) } else { seq };
            let frame = segment(port + 1, seq, ack, &|tcp| { tcp.set_syn(syn); tcp.set_fin(fin); tcp.set_rst(rst) }, &payload);
            clients.rig.exchange(&[frame]);
            clients.assert_ntp();
        }
        clients.pass(Duration::from(ANSWERING));
        clients.pass(Duration::from(ANSWERING));
        prop_assert!(clients.get("/now").0.starts_with("HTTP/1.1 200 "));
    }

    /// Whatever a client says, there is an end to it.
    #[test]
    fn any_words_end(words in prop::collection::vec(any::<u8>(), 1..3000)) {
        let mut clients = Clients::new(STATIC);
        let handle = clients.connect(4000);
        clients.say(handle, &words);
        clients.assert_ntp();
        let _heard = clients.hear(handle);
        clients.pass(ANSWERING.into());
        prop_assert!(clients.get("/now").0.starts_with("HTTP/1.1 200 "));
    }
}
