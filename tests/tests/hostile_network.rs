//! A network that does what it can: floods of all kinds, and a DHCP server that lies. Who behaves well goes on being
//! answered, and nothing grows.
#![expect(
    clippy::cast_possible_truncation,
    reason = "random bits, of which some are taken"
)]

use core::net::{Ipv4Addr, Ipv6Addr};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::thread;
use std::time::Instant;

use gnomon_qemu::machine::Net;
use gnomon_tests::guest::{Guest, machine};
use gnomon_tests::load::{Load, Mode};
use gnomon_tests::netns::Netns;
use gnomon_tests::ntp::{Client, V4_CLIENT, request};
use gnomon_tests::wire::{self, BROADCAST, GUEST_MAC, Wire};
use gnomon_tests::{PATIENCE, arch};
use nix::sys::socket::{setsockopt, sockopt};

gnomon_tests::on_both![
    floods_hold_up_nobody,
    slow_readers_hold_up_nobody,
    a_dhcp_server_that_lies,
];

const TAP: &str = "gt0";
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 7, 7, 2);
const HERE: Ipv4Addr = Ipv4Addr::new(10, 7, 7, 1);
/// The guest's, made of its MAC address.
const LINK: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5054, 0xff, 0xfe12, 0x3456);
const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// Frames a second of a flood, if this machine can, and how many come at a time.
const RATE: u32 = 20_000;
const BURST: u32 = 20;
/// Requests a second of the client that behaves well.
const POLITE: u32 = 100;
const ROUND: Duration = Duration::from_secs(1);
/// Connections over TCP that the guest has room for.
const CONNECTIONS: usize = 4;
/// Questions of it that must be answered during a flood.
const ENOUGH: usize = 50;
/// Memory of the machine, KiB.
const RAM: u64 = 32 << 10;

/// `SplitMix64`: the same number for the same place.
fn random(place: u64) -> u64 {
    let mut mixed = place.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for (shift, factor) in [(30, 0xbf58_476d_1ce4_e5b9), (27, 0x94d0_49bb_1331_11eb)] {
        mixed = (mixed ^ mixed >> shift).wrapping_mul(factor);
    }
    mixed ^ mixed >> 31
}

/// A MAC address that somebody may have.
fn mac(number: u64) -> [u8; 6] {
    let mut mac = [0x02; 6];
    mac[1..].copy_from_slice(&random(number).to_be_bytes()[3..]);
    mac
}

/// One of a million addresses, 11.0.0.1 and so on.
fn spoofed(number: u64) -> Ipv4Addr {
    let low = u32::try_from(number % 1_000_000).expect("below a million");
    Ipv4Addr::from_bits((11 << 24) + 1 + low)
}

/// A frame by its number.
type Flood = fn(u64) -> Vec<u8>;
/// The floods.
const MILLION: &str = "requests of a million";
const FLOODS: [(&str, Flood); 7] = [
    ("garbage", garbage),
    (MILLION, requests),
    ("ARP", arp),
    ("neighbours", neighbours),
    ("routers", routers),
    ("half-open TCP", half_open),
    ("DHCP refusals", refusals),
];

/// Random bytes, mostly behind a header that makes somebody look at them.
fn garbage(number: u64) -> Vec<u8> {
    let word = random(number);
    let length = usize::try_from(word % 1500).expect("short");
    let mut bytes: Vec<u8> = (0..length.div_ceil(8) as u64)
        .flat_map(|at| random(number << 8 | at).to_le_bytes())
        .collect();
    bytes.truncate(length);
    let kind = match word >> 60 {
        0..4 => IPV4,
        4..8 => IPV6,
        8..12 => ARP,
        _ => (word >> 32) as u16,
    };
    // The beginning of a header that fits.
    if let (IPV4, [first, _, low, high, ..]) = (kind, &mut bytes[..]) {
        let [a, b] = u16::try_from(length).expect("short").to_be_bytes();
        (*first, *low, *high) = (0x45 + (word >> 48) as u8 % 4, a, b);
    }
    let to = if word >> 59 & 1 == 0 {
        GUEST_MAC
    } else {
        BROADCAST
    };
    wire::ethernet(to, mac(number), kind, &bytes)
}

fn requests(number: u64) -> Vec<u8> {
    let mut ntp = request(V4_CLIENT, random(number));
    // As a client in interleaved mode asks.
    ntp[24..32].copy_from_slice(&random(number ^ 1 << 63).to_be_bytes());
    ntp[32..40].copy_from_slice(&random(number ^ 1 << 62).to_be_bytes());
    let [high, low] = (1024 + (random(number) >> 50) as u16).to_be_bytes();
    let udp = [&[high, low, 0, 123, 0, 56, 0, 0], &ntp[..]].concat();
    let packet = wire::ipv4([spoofed(number), GUEST], 17, udp, 6);
    wire::ethernet(GUEST_MAC, mac(number), IPV4, &packet)
}

/// Who has the guest's address, says everybody; and everybody has the addresses of the others.
fn arp(number: u64) -> Vec<u8> {
    let mine = mac(number);
    let (operation, address) = match number % 4 {
        0 => (1, spoofed(number)),
        1 => (2, HERE),
        2 => (2, Ipv4Addr::new(10, 7, 7, (number >> 2) as u8)),
        _ => (1, Ipv4Addr::new(10, 7, 7, (number >> 2) as u8)),
    };
    let message = wire::arp(operation, (mine, address), ([0; 6], GUEST));
    let to = if number.is_multiple_of(3) {
        BROADCAST
    } else {
        GUEST_MAC
    };
    wire::ethernet(to, mine, ARP, &message)
}

fn neighbour(number: u64) -> Ipv6Addr {
    Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(random(number)))
}

fn neighbours(number: u64) -> Vec<u8> {
    let mine = mac(number);
    let (from, kind, target) = match number % 3 {
        0 => (neighbour(number), 135, LINK),
        // It is told that somebody else has its address, too.
        1 => (neighbour(number), 136, LINK),
        _ => (neighbour(number), 136, neighbour(number)),
    };
    let mut message = vec![kind, 0, 0, 0, 0x20, 0, 0, 0];
    message.extend(target.octets());
    message.extend([if kind == 135 { 1 } else { 2 }, 1]);
    message.extend(mine);
    let packet = wire::icmpv6([from, LINK], message);
    wire::ethernet(GUEST_MAC, mine, IPV6, &packet)
}

/// A prefix and a router from each.
fn routers(number: u64) -> Vec<u8> {
    let mine = mac(number);
    let mut message = vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    message.extend([3, 4, 64, 0xc0]);
    message.extend([0, 0, 14, 16].repeat(2));
    message.extend([0; 4]);
    let prefix = 0xfd << 120 | u128::from(random(number)) << 64;
    message.extend(prefix.to_be_bytes());
    let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let packet = wire::icmpv6([neighbour(number), all], message);
    wire::ethernet([0x33, 0x33, 0, 0, 0, 1], mine, IPV6, &packet)
}

fn half_open(number: u64) -> Vec<u8> {
    let mut tcp = (random(number) as u16 | 1024).to_be_bytes().to_vec();
    tcp.extend([0, 80]);
    tcp.extend((random(number) >> 32).to_be_bytes());
    // SYN, a window.
    tcp.extend([0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    let packet = wire::ipv4([spoofed(number), GUEST], 6, tcp, 16);
    wire::ethernet(GUEST_MAC, mac(number), IPV4, &packet)
}

fn refusals(number: u64) -> Vec<u8> {
    let message = dhcp(6, random(number) as u32, Ipv4Addr::UNSPECIFIED, &[]);
    let packet = wire::ipv4([HERE, Ipv4Addr::BROADCAST], 17, udp_of_dhcp(&message), 6);
    wire::ethernet(BROADCAST, mac(1), IPV4, &packet)
}

fn udp_of_dhcp(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len() + 8).expect("short");
    let mut udp = vec![0, 67, 0, 68];
    udp.extend(length.to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(message);
    udp
}

/// Resident memory of the process in KiB: all of it, and the guest's RAM.
fn resident(pid: u32) -> (u64, u64) {
    let maps = fs::read_to_string(format!("/proc/{pid}/smaps")).expect("it runs");
    let number = |line: &str, name: &str| -> Option<u64> {
        let rest = line.strip_prefix(name)?.trim().strip_suffix(" kB")?;
        rest.parse().ok()
    };
    let (mut size, mut all, mut ram) = (0, 0, 0);
    for line in maps.lines() {
        size = number(line, "Size:").unwrap_or(size);
        if let Some(part) = number(line, "Rss:") {
            all += part;
            ram += if size == RAM { part } else { 0 };
        }
    }
    (all, ram)
}

/// A guest on a tap interface.
fn start(words: &str) -> (Netns, Guest) {
    let netns = Netns::new();
    netns.add_tap(TAP, "10.7.7.1/24");
    let machine = machine().net(Net::Tap(TAP.to_owned())).append(words);
    let mut guest = netns.enter(|| Guest::start(machine));
    guest.wait_prompt();
    (netns, guest)
}

/// Each of so many questions is answered, without being asked twice.
fn assert_no_loss(client: &Client) {
    for _ in 0..200 {
        let cookie = gnomon_tests::ntp::cookie();
        client.send(&request(V4_CLIENT, cookie));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = client.receive(deadline);
            let (answer, _) = answer.expect("an answer to a question that nothing disturbs");
            if answer[24..32] == cookie.to_be_bytes() {
                break;
            }
        }
    }
}

fn floods_hold_up_nobody() {
    let (netns, mut guest) = start("ip=10.7.7.2/24 ntp.limit=1000,2ms");
    let client = netns.enter(|| Client::of((GUEST, 123).into()));
    client.ask_until_right().assert_right();
    let wire = Wire::open(&netns, || client.ask().assert_right());
    let mut load = netns.enter(|| Load::of((GUEST, 123).into()));
    let quiet = load.run(Mode::Basic, POLITE, ROUND);
    println!(
        "{}: without a flood {:.1} % lost, p50 {:.0} us, p99 {:.0} us",
        arch().name(),
        quiet.loss() * 100.0,
        quiet.per_mille(500),
        quiet.per_mille(990)
    );
    let (all, ram) = resident(guest.pid());
    for (name, flood) in FLOODS {
        let (over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
        let begin = Instant::now();
        let (outcomes, (line, tables)) = thread::scope(|scope| {
            scope.spawn(|| {
                let mut number = 0;
                let mut due = Instant::now();
                while !over.load(Ordering::Relaxed) {
                    for _ in 0..BURST {
                        wire.send(&flood(number));
                        number += 1;
                    }
                    // What this machine has no time for is left out.
                    due = (due + Duration::from_secs(1) * BURST / RATE).max(Instant::now());
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                }
                sent.store(number, Ordering::Relaxed);
            });
            let deadline = Instant::now() + PATIENCE;
            let (mut outcomes, mut answered) = (Vec::new(), 0);
            while answered < ENOUGH && Instant::now() < deadline {
                let outcome = load.run(Mode::Basic, POLITE, ROUND);
                answered += outcome.answered();
                outcomes.push(outcome);
            }
            assert!(answered >= ENOUGH, "{name}: {answered} answered in all");
            let tables = guest.tables();
            over.store(true, Ordering::Relaxed);
            (outcomes, tables)
        });
        let millis = u64::try_from(begin.elapsed().as_millis()).expect("minutes");
        let rate = sent.load(Ordering::Relaxed) * 1000 / millis.max(1);
        // The queues of this host may still be full of it.
        client.ask().assert_right();
        assert_no_loss(&client);
        wait_served(&netns);
        for outcome in outcomes {
            println!(
                "{}: {name}, {rate}/s: {:.1} % lost, p50 {:.0} us, p99 {:.0} us; {line}",
                arch().name(),
                outcome.loss() * 100.0,
                outcome.per_mille(500),
                outcome.per_mille(990),
            );
        }
        assert!(tables.iter().all(|(used, places)| used <= places), "{line}");
        // Departures of replies in interleaved mode: the flood does get there.
        assert!(name != MILLION || tables[1].0 > 0, "{line}");
        // Nobody has asked more often than he may, whatever the others do.
        let status = guest.command("status");
        assert!(
            status.contains(", limit 0,") && status.contains(", RATE 0,"),
            "{name}: {status}"
        );
    }
    let (all_now, ram_now) = resident(guest.pid());
    println!(
        "{}: resident {all} KiB before and {all_now} KiB after, of the guest's {RAM} KiB {ram} and {ram_now}",
        arch().name()
    );
    assert!((1..=RAM).contains(&ram_now), "{ram_now}");
    assert!(all_now < all + RAM, "{all} {all_now}");
    let net = guest.command("net");
    assert!(
        !net.contains("no honest device") && !net.contains("resets"),
        "{net}"
    );
    guest.time().expect("time");
}

/// Of all kinds, on a network where their slowness is theirs.
fn slow_readers_hold_up_nobody() {
    let (netns, mut guest) = start("ip=10.7.7.2/24");
    let client = netns.enter(|| Client::of((GUEST, 123).into()));
    client.ask_until_right().assert_right();
    let mut load = netns.enter(|| Load::of((GUEST, 123).into()));
    let over = AtomicBool::new(false);
    let outcome = thread::scope(|scope| {
        for kind in 0..8_usize {
            let (netns, over) = (&netns, &over);
            scope.spawn(move || {
                netns.enter(|| {
                    let words: &[u8] = [&b""[..], b"GET / HT", b"GET / HTTP/1.0\r\n\r\n"][kind % 3];
                    while !over.load(Ordering::Relaxed) {
                        // It may be refused: all connections are taken.
                        let to = (GUEST, 80).into();
                        let Ok(mut stream) = TcpStream::connect_timeout(&to, ROUND) else {
                            continue;
                        };
                        let _cut = stream.write_all(words);
                        // A byte now and then.
                        for _ in 0..5 {
                            thread::sleep(Duration::from_millis(20));
                            stream.set_read_timeout(Some(ROUND / 50)).expect("a limit");
                            let _slow = stream.read(&mut [0]);
                        }
                    }
                });
            });
        }
        let outcome = load.run(Mode::Basic, POLITE, 3 * ROUND);
        over.store(true, Ordering::Relaxed);
        outcome
    });
    assert!(outcome.answered() > 0, "nobody was answered");
    assert_no_loss(&client);
    let (line, tables) = guest.tables();
    println!(
        "{}: slow readers: {:.1} % lost, p50 {:.0} us, p99 {:.0} us; {line}",
        arch().name(),
        outcome.loss() * 100.0,
        outcome.per_mille(500),
        outcome.per_mille(990)
    );
    assert!(tables.iter().all(|(used, places)| used <= places), "{line}");
    // And whoever asks properly gets there while they stay, since they are cut.
    let held: Vec<TcpStream> = netns.enter(|| {
        let connect = |words: &[u8]| {
            let mut stream = TcpStream::connect_timeout(&(GUEST, 80).into(), ROUND).ok()?;
            let _cut = stream.write_all(words);
            Some(stream)
        };
        let words: [&[u8]; 2] = [b"", b"GET / HT"];
        words
            .repeat(CONNECTIONS / 2)
            .into_iter()
            .filter_map(connect)
            .collect()
    });
    assert!(!held.is_empty(), "nobody could connect");
    wait_served(&netns);
    drop(held);
}

/// Waits until the guest answers over HTTP.
fn wait_served(netns: &Netns) {
    let is_served = || {
        let Ok(mut stream) = TcpStream::connect_timeout(&(GUEST, 80).into(), ROUND) else {
            return false;
        };
        let mut said = String::new();
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        let _cut = stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n");
        stream.read_to_string(&mut said).is_ok() && said.contains("time is served")
    };
    let deadline = Instant::now() + PATIENCE;
    while !netns.enter(is_served) {
        assert!(Instant::now() < deadline, "HTTP is lost");
    }
}

/// A message of a DHCP server that gives `address`, with these options besides its kind.
fn dhcp(kind: u8, transaction: u32, address: Ipv4Addr, options: &[u8]) -> Vec<u8> {
    let mut message = vec![2, 1, 6, 0];
    message.extend(transaction.to_be_bytes());
    message.extend([0; 8]);
    message.extend(address.octets());
    message.extend([0; 8]);
    message.extend(GUEST_MAC);
    message.extend([0; 202]);
    message.extend([99, 130, 83, 99, 53, 1, kind, 54, 4]);
    message.extend(HERE.octets());
    message.extend(options);
    message.push(255);
    message
}

/// Options: a mask, a router, a lease.
fn options(mask: [u8; 4], router: [u8; 4], lease: u32) -> Vec<u8> {
    let mut options = vec![1, 4];
    options.extend(mask);
    options.extend([3, 4]);
    options.extend(router);
    options.extend([51, 4]);
    options.extend(lease.to_be_bytes());
    options
}

/// What an offer is for that tells neither mask nor lease. It may be asked for: a grant may tell more.
const SCANT: Ipv4Addr = Ipv4Addr::new(10, 7, 7, 66);

/// What no guest should take, for an offer or for a grant.
fn lies(kind: u8, transaction: u32) -> Vec<Vec<u8>> {
    const MASK: [u8; 4] = [255, 255, 255, 0];
    let good = options(MASK, HERE.octets(), 3600);
    let mut lies = Vec::new();
    for address in [
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::BROADCAST,
        Ipv4Addr::new(224, 0, 0, 1),
        Ipv4Addr::new(10, 7, 7, 0),
        Ipv4Addr::new(10, 7, 7, 255),
    ] {
        lies.push(dhcp(kind, transaction, address, &good));
    }
    for options in [
        options([255, 0, 255, 0], HERE.octets(), 3600),
        options([0; 4], HERE.octets(), 3600),
        options(MASK, HERE.octets(), 0),
        options(MASK, HERE.octets(), 1),
    ] {
        let address = Ipv4Addr::new(10, 7, 7, 65);
        lies.push(dhcp(kind, transaction, address, &options));
    }
    for options in [
        // Ends in the middle, or beyond the end.
        vec![1],
        vec![1, 200, 255],
        vec![51, 1, 1],
        vec![3, 0],
        [1, 4, 255, 255].repeat(60),
    ] {
        lies.push(dhcp(kind, transaction, SCANT, &options));
    }
    // For somebody else, for another question, and cut anywhere.
    let mut other = dhcp(kind, transaction, Ipv4Addr::new(10, 7, 7, 67), &good);
    other[33] ^= 1;
    lies.push(other);
    lies.push(dhcp(kind, !transaction, Ipv4Addr::new(10, 7, 7, 68), &good));
    let whole = dhcp(kind, transaction, Ipv4Addr::new(10, 7, 7, 69), &good);
    for length in [0, 1, 235, 236, 240, 243, 250] {
        lies.push(whole[..length].to_vec());
    }
    lies
}

fn a_dhcp_server_that_lies() {
    let netns = Netns::new();
    netns.add_tap(TAP, "10.7.7.1/24");
    let server = netns.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 67)).expect("a socket"));
    server.set_broadcast(true).expect("a socket");
    setsockopt(&server, sockopt::BindToDevice, &TAP.into()).expect("root");
    server.set_read_timeout(Some(ROUND)).expect("a limit");
    let machine = machine().net(Net::Tap(TAP.to_owned())).append("ip6=off");
    let mut guest = netns.enter(|| Guest::start(machine));
    let say = |message: &[u8]| {
        // The interface is there as long as the guest is.
        let sent = server.send_to(message, (Ipv4Addr::BROADCAST, 68));
        sent.expect("a network");
    };
    let grant = options([255, 255, 255, 0], HERE.octets(), 3600);
    let client = netns.enter(|| Client::of((GUEST, 123).into()));
    let over = AtomicBool::new(false);
    let (discovered, requested, wanted) = thread::scope(|scope| {
        let serving = scope.spawn(|| {
            let (mut discovered, mut requested) = (0, 0);
            let mut wanted = Vec::new();
            let mut bytes = [0; 1500];
            while !over.load(Ordering::Relaxed) {
                let Ok((length, _)) = server.recv_from(&mut bytes) else {
                    continue;
                };
                let transaction = u32::from_be_bytes(bytes[4..8].try_into().expect("4"));
                let mut kinds = bytes[240..length].windows(3);
                let kind = kinds.find(|option| option[..2] == [53, 1]);
                // Lies alone at first.
                let (kind, is_first) = match kind.expect("a kind")[2] {
                    1 => {
                        discovered += 1;
                        (2, discovered == 1)
                    }
                    3 => {
                        requested += 1;
                        let mut options = bytes[240..length].windows(6);
                        let address = options.find(|option| option[..2] == [50, 4]);
                        wanted.push(address.map(|option| option[2..].to_vec()));
                        (5, requested == 1)
                    }
                    other => panic!("a guest that says {other}"),
                };
                for lie in lies(kind, transaction) {
                    say(&lie);
                }
                if is_first {
                    say(&dhcp(6, transaction, Ipv4Addr::UNSPECIFIED, &[]));
                } else {
                    say(&dhcp(kind, transaction, GUEST, &grant));
                }
            }
            (discovered, requested, wanted)
        });
        client.ask_until_right().assert_right();
        over.store(true, Ordering::Relaxed);
        serving.join().expect("it serves to the end")
    });
    assert!(discovered > 1 && requested > 1, "{discovered} {requested}");
    // No lie was taken for an offer.
    let possible = [GUEST, SCANT].map(|address| Some(address.octets().to_vec()));
    assert!(
        wanted.iter().all(|address| possible.contains(address)),
        "{wanted:?}"
    );
    // What is said out of turn changes nothing.
    for number in 0..1000 {
        for lie in lies(5, random(number) as u32) {
            // As fast as the guest takes it: more is lost, as on any network.
            let _lost = server.send_to(&lie, (Ipv4Addr::BROADCAST, 68));
        }
        let refusal = dhcp(6, random(number) as u32, Ipv4Addr::UNSPECIFIED, &[]);
        let _lost = server.send_to(&refusal, (Ipv4Addr::BROADCAST, 68));
    }
    client.ask().assert_right();
    assert_no_loss(&client);
    let net = guest.command("net");
    assert!(net.contains("address     10.7.7.2/24 by DHCP"), "{net}");
    assert!(net.contains("gateway     10.7.7.1"), "{net}");
    println!(
        "{}: {discovered} DISCOVER, {requested} REQUEST, {} lies to each",
        arch().name(),
        lies(2, 0).len()
    );
}
