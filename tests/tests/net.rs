//! The network below NTP: addresses, ARP, ping.

use core::net::Ipv4Addr;

use gnomon_qemu::Machine;
use gnomon_qemu::machine::{Net, Transport};
use gnomon_tests::guest::{Guest, machine};
use gnomon_tests::netns::Netns;
use gnomon_tests::ntp::Client;
use gnomon_tests::{Arch, arch};

gnomon_tests::on_both![
    fixed_address_on_a_tap_interface,
    dhcp_gives_address_and_router,
    every_kind_of_virtio_device_serves,
    the_first_of_two_devices_is_used_and_said_to_be,
];

const GUEST: Ipv4Addr = Ipv4Addr::new(10, 7, 7, 2);

fn fixed_address_on_a_tap_interface() {
    let netns = Netns::new();
    netns.add_tap("gt0", "10.7.7.1/24");
    let machine = machine()
        .net(Net::Tap("gt0".to_owned()))
        .append("ip=10.7.7.2/24,10.7.7.1");
    let mut guest = netns.enter(|| Guest::start(machine));
    let report = guest.wait_prompt();
    assert!(report.contains("10.7.7.2/24 via 10.7.7.1"), "{report}");

    let client = netns.enter(|| Client::of((GUEST, 123).into()));
    client.ask_until_right().assert_right();
    for _ in 0..500 {
        client.ask().assert_right();
    }

    let ping = |more: &[&str]| {
        let arguments = [
            &["-n", "-W", "60", "-c", "3", "-i", "0.2"],
            more,
            &["10.7.7.2"],
        ];
        netns.run("ping", &arguments.concat())
    };
    for more in [&[][..], &["-s", "1400"]] {
        let (success, said) = ping(more);
        assert!(success, "{said}");
        assert!(
            said.contains("3 packets transmitted, 3 received, 0% packet loss"),
            "{said}"
        );
    }

    // The guest's own answer to ARP, not one that was learnt from its packets.
    let (success, said) = netns.run("ip", &["neigh", "flush", "all"]);
    assert!(success, "{said}");
    client.ask().assert_right();
    let (_, said) = netns.run("ip", &["neigh", "show", "10.7.7.2"]);
    assert!(said.contains("lladdr 52:54:00:12:34:56"), "{said}");

    // Another address of the same network is not ours.
    let (success, said) = netns.run("ping", &["-n", "-W", "1", "-c", "1", "10.7.7.3"]);
    assert!(!success, "{said}");
    let net = guest.command("net");
    assert!(net.contains("gateway     10.7.7.1"), "{net}");
    assert!(!net.contains("no honest device"), "{net}");
}

fn dhcp_gives_address_and_router() {
    let (mut guest, client) = Guest::serving();
    client.ask().assert_right();
    let net = guest.command("net");
    assert!(net.contains("address     10.0.2.15/24 by DHCP"), "{net}");
    assert!(net.contains("gateway     10.0.2.2"), "{net}");
}

fn every_kind_of_virtio_device_serves() {
    let plain = "mrg_rxbuf=off,csum=off,event_idx=off,indirect_desc=off";
    let on_pci = [
        "disable-legacy=on,disable-modern=off",
        "disable-legacy=off,disable-modern=off",
        "vectors=0",
        plain,
    ];
    let in_memory: &[&str] = match arch() {
        Arch::X86_64 => &[],
        Arch::Aarch64 => &["", plain],
    };
    let on_pci = on_pci.iter().map(|nic| (Transport::Pci, nic));
    let in_memory = in_memory.iter().map(|nic| (Transport::Mmio, nic));
    for (transport, properties) in on_pci.chain(in_memory) {
        let machine = machine().transport(transport).nic(*properties);
        let (mut guest, client) = Guest::serving_with(machine);
        for _ in 0..100 {
            client.ask().assert_right();
        }
        let net = guest.command("net");
        assert!(!net.contains("no honest device"), "{properties}\n{net}");
    }
}

fn the_first_of_two_devices_is_used_and_said_to_be() {
    let machine = ["-netdev", "user,id=other", "-device"]
        .into_iter()
        .chain(["virtio-net-pci,netdev=other,mac=52:54:00:12:34:57,addr=0x1e"])
        .fold(machine(), Machine::arg);
    let (mut guest, client) = Guest::serving_with(machine);
    client.ask().assert_right();
    let net = guest.command("net");
    assert!(net.contains("the first of 2"), "{net}");
    assert!(net.contains("52:54:00:12:34:56"), "{net}");
}
