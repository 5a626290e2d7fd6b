//! Programs that nobody here wrote ask the guest for the time, and take apart what it sends.

use core::time::Duration;
use std::fs;
use std::time::Instant;

use gnomon_tests::PATIENCE;
use gnomon_tests::guest::machine;
use gnomon_tests::judge::capture::{self, examine, spoiled};
use gnomon_tests::judge::{PACKAGED, Row, Trial};
use gnomon_tests::ntp::{V4_CLIENT, cookie, request};
use gnomon_tests::temporary::Temporary;

gnomon_tests::on_both![
    every_judge_accepts_the_guest,
    every_judge_refuses_a_guest_without_time,
    tshark_finds_no_fault_with_dhcp_and_kisses,
];

fn every_judge_accepts_the_guest() {
    let trial = Trial::start(machine(), true);
    assert_right(&trial.ask(PACKAGED));
    let frames = say_everything(trial);

    // tshark has nothing against any of it, and it has looked: it finds a wrong byte anywhere.
    let found = examine(&frames).expect("flawless frames");
    println!("{found:?}");
    // Five chronyds had five good replies each, and the rest is ours.
    assert!(found.replies >= 40, "{found:?}");
    let saw = |protocol| {
        found
            .protocols
            .iter()
            .any(|known| known.ends_with(protocol))
    };
    assert!(saw(":arp") && saw(":icmp:data") && saw(":ntp"), "{found:?}");
    for (what, offset) in [
        ("IPv4: time to live", 22),
        ("IPv4: length", 17),
        ("UDP: source port", 35),
        ("UDP: length", 39),
        ("NTP: root dispersion", 50),
        ("NTP: transmit stamp", 89),
    ] {
        let fault = examine(&spoiled(&frames, offset));
        assert!(fault.is_err(), "{what}: {fault:?}");
    }
}

fn every_judge_refuses_a_guest_without_time() {
    let trial = Trial::start(machine(), false);
    assert_right(&trial.ask(PACKAGED));
    let found = examine(&say_everything(trial)).expect("flawless frames");
    assert!(found.replies > 30, "{found:?}");
}

/// What the other guests do not say: DHCP, and the kiss `RATE`.
fn tshark_finds_no_fault_with_dhcp_and_kisses() {
    let directory = Temporary::directory("kisses");
    let file = directory.path().join("frames");
    let machine = machine().append("ntp.limit=2,64s");
    let mut guest = capture::start(machine, &file);
    guest.wait_prompt();
    let client = guest.client();
    let deadline = Instant::now() + PATIENCE;
    let mut kissed = false;
    while !kissed {
        assert!(Instant::now() < deadline, "no kiss");
        client.send(&request(V4_CLIENT, cookie()));
        let heard = client.receive(Instant::now() + Duration::from_millis(20));
        kissed = heard.is_some_and(|(reply, _)| &reply[12..16] == b"RATE");
    }
    drop(guest);
    let found = examine(&fs::read(&file).expect("a capture")).expect("flawless frames");
    println!("{found:?}");
    assert!(
        found.protocols.iter().any(|known| known.ends_with(":dhcp")),
        "{found:?}"
    );
}

fn assert_right(rows: &[Row]) {
    for row in rows {
        println!("{row}");
    }
    let wrong: Vec<_> = rows.iter().filter(|row| !row.is_right()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Asks in every version and mode that is answered, and with everything else that is, pings, and sends
/// fragments and a jumbo frame, which are not; returns all frames.
fn say_everything(trial: Trial) -> Vec<u8> {
    let client = trial.client();
    let unknown = [&[0x01, 0x04, 0, 28][..], &[0; 24]].concat();
    let mono_root = [&[0xf3, 0x23, 0, 28, 0xf5, 0xbe, 0xdd, 0x9a][..], &[0; 20]].concat();
    for (first, tail) in (1..=4)
        .flat_map(|version| [version << 3 | 3, version << 3 | 1])
        .chain([1 << 3, 3 << 6 | V4_CLIENT])
        .map(|first| (first, &[][..]))
        .chain([(V4_CLIENT, &unknown[..]), (V4_CLIENT, &mono_root[..])])
    {
        let mut heard = None;
        // A datagram may be lost.
        for _ in 0..60 {
            client.send(&[&request(first, cookie())[..], tail].concat());
            heard = client.receive(Instant::now() + Duration::from_secs(1));
            if heard.is_some() {
                break;
            }
        }
        assert!(heard.is_some(), "{first:#04x} {tail:x?}");
    }
    let guest = Trial::GUEST.to_string();
    let ping = ["-n", "-W", "60", "-c", "2", "-i", "0.2", &guest];
    let (success, said) = trial.netns().run("ping", &ping);
    assert!(success, "{said}");
    let again = || trial.client().ask();
    client.send(&[&request(V4_CLIENT, cookie())[..], &[0; 4000]].concat());
    again();
    let jumbo = ["link", "set", "gt0", "mtu", "9000"];
    let (success, said) = trial.netns().run("ip", &jumbo);
    assert!(success, "{said}");
    trial
        .client()
        .send(&[&request(V4_CLIENT, cookie())[..], &[0; 8000]].concat());
    again();
    trial.into_frames()
}
