//! The NTP server, from a socket of this host.

use core::time::Duration;
use std::time::Instant;

use gnomon_qemu::page::Scale;
use gnomon_qemu::publish::Options;
use gnomon_tests::guest::{Guest, machine};
use gnomon_tests::ntp::{Client, V4_CLIENT, cookie, request};

gnomon_tests::on_both![
    every_bound_contains_the_hosts_time,
    stratum_is_the_command_lines,
    polling_serves_the_same_time,
    page_in_utc_gives_the_same_time,
    page_without_time_never_makes_one_up,
    versions_and_modes_are_answered_in_kind,
    what_is_no_request_gets_silence,
];

const REPLIES: usize = 2500;

fn every_bound_contains_the_hosts_time() {
    let (_guest, client) = Guest::serving();
    let first = client.ask();
    let mut bounds = Vec::new();
    for _ in 0..REPLIES {
        let reply = client.ask();
        reply.assert_right();
        assert_eq!((reply.version, reply.mode, reply.stratum), (4, 4, 1));
        assert_eq!((reply.poll, reply.precision), (6, first.precision));
        bounds.push(reply.bound_nanos());
    }
    assert!((-29..=-10).contains(&first.precision), "{first:?}");
    // The bound grows while the publisher is kept from running, so a single one may be anything.
    bounds.sort_unstable();
    let median = bounds[REPLIES / 2];
    assert!(median < 1_000_000, "{median} ns");
}

fn stratum_is_the_command_lines() {
    let (_guest, client) = Guest::serving_with(machine().append("ntp.stratum=3"));
    let reply = client.ask();
    reply.assert_right();
    assert_eq!(reply.stratum, 3);
}

fn polling_serves_the_same_time() {
    let (_guest, client) = Guest::serving_with(machine().append("idle=poll"));
    for _ in 0..200 {
        client.ask().assert_right();
    }
}

fn page_in_utc_gives_the_same_time() {
    let options = Options {
        scale: Scale::Utc,
        ..Options::default()
    };
    let (mut guest, client) = Guest::serving_with(machine().publish(Some(options)));
    for _ in 0..100 {
        client.ask().assert_right();
    }
    let page = guest.command("page");
    assert!(page.contains("\ntime_type  "), "{page}");
    let kind = page.lines().find(|line| line.starts_with("time_type"));
    assert!(kind.is_some_and(|line| line.ends_with("UTC")), "{page}");
    guest.time().expect("time");
}

fn page_without_time_never_makes_one_up() {
    // An Arm machine's real-time clock would be shown, though not served.
    let machine = machine().publish(None).append("source=vmclock");
    let (mut guest, said) = Guest::boot(machine);
    assert!(said.contains("no time: the page carries no time"), "{said}");
    let client = guest.client();
    let end = Instant::now() + Duration::from_secs(2);
    let mut asked = 0;
    while asked < 100 || Instant::now() < end {
        client.ask().assert_no_time(&["INIT"]);
        asked += 1;
    }
    let why = "no time: the page carries no time".to_owned();
    assert_eq!(guest.time(), Err(why));
}

fn versions_and_modes_are_answered_in_kind() {
    let (_guest, client) = Guest::serving();
    for version in 1..=4 {
        for (mode, answer) in [(3, 4), (1, 2)] {
            let reply = client.ask_as(version << 3 | mode);
            reply.assert_right();
            assert_eq!((reply.version, reply.mode), (version, answer));
        }
    }
    // RFC 1059 had no modes.
    let reply = client.ask_as(1 << 3);
    reply.assert_right();
    assert_eq!((reply.version, reply.mode), (1, 4));
    // The leap indicator of a client that does not know the time yet.
    client.ask_as(3 << 6 | V4_CLIENT).assert_right();
}

fn what_is_no_request_gets_silence() {
    let (mut guest, client) = Guest::serving();
    let mut odd = Vec::new();
    for version in 0..8_u8 {
        for mode in 0..8_u8 {
            let answered = (1..=4).contains(&version) && matches!(mode, 1 | 3);
            if !answered && (version, mode) != (1, 0) {
                odd.push(request(version << 3 | mode, cookie()).to_vec());
            }
        }
    }
    // Lengths: short, not a multiple of four, tails that are neither fields nor nothing, a MAC.
    let plain = request(V4_CLIENT, cookie());
    for length in [0, 1, 4, 12, 47] {
        odd.push(plain[..length].to_vec());
    }
    for tail in [1, 2, 3, 4, 8, 12, 16, 20, 24, 28, 72, 100, 1000, 1400] {
        odd.push([&plain[..], &vec![0; tail]].concat());
    }
    // A field that ends beyond the packet, and one of an odd length.
    for field in [[0x01, 0x04, 0, 64], [0x01, 0x04, 0, 29]] {
        odd.push([&plain[..], &field, &[0; 28]].concat());
    }
    let count = odd.len();
    for packet in odd {
        client.send(&packet);
        assert_next_answers(&client, V4_CLIENT, &[], &packet);
    }
    // An extension field that we do not know is no reason for silence, and none for more words.
    let field = [&[0x01, 0x04, 0, 28][..], &[0; 24]].concat();
    assert_next_answers(&client, V4_CLIENT, &field, &field);

    let status = guest.command("status");
    let unanswered = status.lines().find(|line| line.starts_with("unanswered"));
    let words = format!("unanswered  {count}: length ");
    assert!(
        unanswered.is_some_and(|line| line.starts_with(&words)),
        "{count}\n{status}"
    );
}

/// Sends a request, and its reply is the next datagram: nothing that was sent before it is answered.
fn assert_next_answers(client: &Client, first: u8, tail: &[u8], before: &[u8]) {
    for _ in 0..60 {
        let cookie = cookie();
        client.send(&[&request(first, cookie)[..], tail].concat());
        let patience = Instant::now() + Duration::from_secs(1);
        if let Some((reply, _)) = client.receive(patience) {
            assert_eq!(reply.len(), 48, "after {before:x?}");
            assert_eq!(reply[24..32], cookie.to_be_bytes(), "after {before:x?}");
            return;
        }
    }
    panic!("no reply after {before:x?}");
}
