//! IPv6 on a network of one's own: addresses, neighbours, pings, and NTP as strangers see it.

use core::net::Ipv6Addr;
use core::time::Duration;
use std::process::Command;
use std::time::Instant;

use gnomon_qemu::machine::Net;
use gnomon_tests::PATIENCE;
use gnomon_tests::guest::{Guest, machine};
use gnomon_tests::judge::unpacked;
use gnomon_tests::netns::Netns;
use gnomon_tests::ntp::Client;
use gnomon_tests::process::Process;
use gnomon_tests::temporary::Temporary;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrV6, SocketType, ipproto, sendto, socket, sockopt,
};

gnomon_tests::on_both![
    link_local_and_advertised_addresses_answer,
    an_address_from_the_command_line,
    an_address_that_the_host_has_is_not_used,
    strangers_are_content,
    qemus_own_router_gives_an_address,
];

/// The guest's, made of its MAC address 52:54:00:12:34:56.
const LINK: &str = "fe80::5054:ff:fe12:3456";
const GLOBAL: &str = "fd07:7:7:7:5054:ff:fe12:3456";
const TAP: &str = "gt0";

/// A namespace with a tap interface, `fd07:7:7:7::1` on this side.
fn network() -> Netns {
    let netns = Netns::new();
    netns.add_tap(TAP, "10.7.7.1/24");
    let address = ["addr", "add", "fd07:7:7:7::1/64", "dev", TAP, "nodad"];
    let (success, said) = netns.run("ip", &address);
    assert!(success, "{said}");
    netns
}

fn start(netns: &Netns, words: &str) -> (Guest, String) {
    let machine = machine()
        .net(Net::Tap(TAP.to_owned()))
        .append(format!("ip=10.7.7.2/24 {words}"));
    let mut guest = netns.enter(|| Guest::start(machine));
    let report = guest.wait_prompt();
    (guest, report)
}

/// A client of the guest at this address, right now or as soon as it answers.
fn client(netns: &Netns, address: &str) -> Client {
    let address: Ipv6Addr = address.parse().expect("an address");
    let scope = if address.is_unicast_link_local() {
        index(netns)
    } else {
        0
    };
    let server = SocketAddrV6::new(address, 123, 0, scope);
    let client = netns.enter(|| Client::of(server.into()));
    client.ask_until_right().assert_right();
    client
}

fn index(netns: &Netns) -> u32 {
    let (success, said) = netns.run("ip", &["-o", "link", "show", TAP]);
    assert!(success, "{said}");
    let number = said.split_once(':').map(|(number, _)| number.trim());
    number
        .and_then(|number| number.parse().ok())
        .expect("an index")
}

/// Sends a router advertisement of `fd07:7:7:7::/64`, valid for so long, to all nodes.
fn advertise(netns: &Netns, seconds: u32) {
    let scope = index(netns);
    let mut message = vec![134, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    message.extend([3, 4, 64, 0xc0]);
    message.extend(seconds.to_be_bytes());
    message.extend(seconds.to_be_bytes());
    message.extend([0; 4]);
    let prefix: Ipv6Addr = "fd07:7:7:7::".parse().expect("an address");
    message.extend(prefix.octets());
    netns.enter(|| {
        // The kernel fills in the checksum.
        let protocol = Some(ipproto::ICMPV6);
        let socket = socket(AddressFamily::INET6, SocketType::RAW, protocol).expect("root");
        sockopt::set_ipv6_multicast_hops(&socket, 255).expect("a socket");
        let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let to = SocketAddrV6::new(all, 0, 0, scope);
        match sendto(&socket, &message, SendFlags::empty(), &to) {
            Ok(sent) => assert_eq!(sent, message.len()),
            Err(error) => assert_eq!(error, Errno::NOBUFS),
        }
    });
}

/// Advertises until the guest answers at its address.
fn advertised(netns: &Netns) -> Client {
    let deadline = Instant::now() + PATIENCE;
    loop {
        advertise(netns, 86_400);
        if ping(netns, &["-c", "1", "-W", "1", GLOBAL]).0 {
            return client(netns, GLOBAL);
        }
        assert!(Instant::now() < deadline, "{GLOBAL} does not answer");
    }
}

fn ping(netns: &Netns, arguments: &[&str]) -> (bool, String) {
    netns.run("ping", &[&["-6", "-n"], arguments].concat())
}

fn link_local_and_advertised_addresses_answer() {
    let netns = network();
    let (mut guest, report) = start(&netns, "");
    assert!(report.contains(&format!("ipv6      {LINK}/64")), "{report}");
    let near = client(&netns, LINK);
    let far = advertised(&netns);
    for _ in 0..500 {
        near.ask().assert_right();
        far.ask().assert_right();
    }
    let scoped = format!("{LINK}%{TAP}");
    for address in [&scoped, GLOBAL] {
        for size in ["8", "1400"] {
            let many = ["-W", "60", "-c", "3", "-i", "0.2", "-s", size, address];
            let (success, said) = ping(&netns, &many);
            assert!(success, "{said}");
            assert!(said.contains("3 received, 0% packet loss"), "{said}");
        }
    }
    // Larger than a frame is a fragment, which is nobody's here; and nothing comes of it.
    let large = ["-W", "1", "-c", "1", "-s", "2000", GLOBAL];
    assert!(!ping(&netns, &large).0);
    far.ask().assert_right();

    // The guest's own answer to who asks for its MAC address.
    let (success, said) = netns.run("ip", &["-6", "neigh", "flush", "dev", TAP]);
    assert!(success, "{said}");
    far.ask().assert_right();
    let (_, said) = netns.run("ip", &["-6", "neigh", "show", GLOBAL, "dev", TAP]);
    assert!(said.contains("lladdr 52:54:00:12:34:56"), "{said}");
    let (success, said) = ping(&netns, &["-W", "1", "-c", "1", "fd07:7:7:7::3"]);
    assert!(
        !success,
        "another address of the network is not ours: {said}"
    );

    let net = guest.command("net");
    let line = format!("ipv6        {GLOBAL}/64 by router advertisement\n");
    assert!(
        net.contains(&line) && !net.contains("no honest device"),
        "{net}"
    );
}

fn an_address_from_the_command_line() {
    let netns = network();
    let (mut guest, report) = start(&netns, "ip6=fd07:7:7:7::2/64");
    assert!(report.contains("ipv6      fd07:7:7:7::2/64"), "{report}");
    let fixed = client(&netns, "fd07:7:7:7::2");
    advertise(&netns, 86_400);
    for _ in 0..100 {
        fixed.ask().assert_right();
    }
    assert!(!guest.command("net").contains(GLOBAL));
    drop(guest);

    let (mut guest, report) = start(&netns, "ip6=off");
    assert!(!report.contains("ipv6"), "{report}");
    let (success, said) = ping(&netns, &["-W", "1", "-c", "1", &format!("{LINK}%{TAP}")]);
    assert!(!success, "{said}");
    assert!(!guest.command("net").contains("ipv6"));
}

fn an_address_that_the_host_has_is_not_used() {
    let netns = network();
    let taken = ["addr", "add", "fd07:7:7:7::2/64", "dev", TAP, "nodad"];
    let (success, said) = netns.run("ip", &taken);
    assert!(success, "{said}");
    let (mut guest, _) = start(&netns, "ip6=fd07:7:7:7::2/64");
    let deadline = Instant::now() + PATIENCE;
    let line = "ipv6        fd07:7:7:7::2/64, which another machine has: not used\n";
    loop {
        let net = guest.command("net");
        if net.contains(line) {
            break;
        }
        assert!(Instant::now() < deadline, "{net}");
    }
    client(&netns, LINK).ask().assert_right();
}

fn strangers_are_content() {
    let netns = network();
    let (_guest, _) = start(&netns, "");
    let _client = advertised(&netns);
    let (success, said) = netns.run("ntpdig", &["-t", "60", GLOBAL]);
    assert!(success && said.contains(" s1 no-leap"), "{said}");

    let pid = Temporary::new("pid");
    let mut command = Command::new(unpacked("usr/sbin/chronyd"));
    command.args(["-Q", "-t", "100"]).args([
        &format!("server {GLOBAL} iburst"),
        "user root",
        &format!("pidfile {}", pid.path().display()),
    ]);
    let (status, said) = netns.enter(|| Process::run(&mut command));
    assert!(status.success(), "{said}");
    assert!(said.contains("System clock wrong by "), "{said}");
}

/// In QEMU's own network the router speaks of itself, without anybody's help.
fn qemus_own_router_gives_an_address() {
    let (mut guest, client) = Guest::serving();
    let deadline = Instant::now() + PATIENCE;
    let line = "ipv6        fec0::5054:ff:fe12:3456/64 by router advertisement\n";
    loop {
        let net = guest.command("net");
        if net.contains(line) {
            break;
        }
        assert!(Instant::now() < deadline, "{net}");
        std::thread::sleep(Duration::from_millis(100));
    }
    client.ask().assert_right();
}
