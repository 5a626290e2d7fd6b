//! A guest that has nothing but the disruption marker and a chronyd on its network, whose clock is the host's.

use core::time::Duration;
use std::thread;
use std::time::Instant;

use gnomon_clock::Fields;
use gnomon_qemu::machine::Net;
use gnomon_tests::PATIENCE;
use gnomon_tests::guest::{Guest, machine};
use gnomon_tests::judge::Server;
use gnomon_tests::netns::Netns;
use gnomon_tests::ntp::{Client, Reply};

/// chronyd's stratum: one more is the guest's.
const STRATUM: u8 = 4;
const SERVER: [u8; 4] = [10, 7, 7, 1];

struct Rig<'n> {
    guest: Guest,
    client: Client,
    server: Option<Server<'n>>,
}

impl<'n> Rig<'n> {
    /// A guest that follows chronyd.
    fn start(netns: &'n Netns, words: &str) -> Self {
        netns.add_tap("gt0", "10.7.7.1/24");
        let server = Server::start(netns, STRATUM);
        let machine = machine()
            .net(Net::Tap("gt0".to_owned()))
            .append(format!(
                "ip=10.7.7.2/24 ip6=off source=ntp:10.7.7.1 {words}"
            ))
            .publish(None);
        let guest = netns.enter(|| Guest::start(machine));
        let client = netns.enter(|| Client::of(([10, 7, 7, 2], 123).into()));
        Self {
            guest,
            client,
            server: Some(server),
        }
    }

    /// Asks until there is time. No answer before that has any.
    fn until_right(&mut self, kiss: &str) -> Reply {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let reply = self.client.ask();
            if reply.leap != 3 {
                assert_right(&reply);
                return reply;
            }
            reply.assert_no_time(&[kiss]);
            let log = self.guest.serial_log();
            assert!(Instant::now() < deadline, "no time: {log}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until the server may be asked at once: the last question is more than 2 s ago.
    fn wait_rested(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let shown = self.guest.command("sources");
            let age = shown.lines().find_map(|line| {
                let (_, rest) = line
                    .split_once(" s, asked ")
                    .or(line.split_once("s, asked "))?;
                rest.split_once(" s ago")?.0.parse::<f64>().ok()
            });
            if age.is_some_and(|age| age > 2.1) {
                return;
            }
            assert!(Instant::now() < deadline, "{shown}");
            thread::sleep(Duration::from_millis(300));
        }
    }

    /// How many requests have come to the server.
    fn received(&self) -> u64 {
        let server = self.server.as_ref();
        server.map_or(0, |server| server.statistic("NTP packets received"))
    }

    fn right(&self) -> Reply {
        let reply = self.client.ask();
        assert_right(&reply);
        reply
    }
}

/// The host's time lies within the bound of both stamps, and the guest says whom it follows.
fn assert_right(reply: &Reply) {
    assert_eq!(
        (reply.leap, reply.stratum, reply.reference_id),
        (0, STRATUM + 1, SERVER),
        "{reply:x?}"
    );
    let bound = i64::from(reply.root_dispersion) << 16;
    let after = |late: u64, early: u64| late.wrapping_sub(early).cast_signed();
    for stamp in [reply.receive, reply.transmit] {
        assert!(after(stamp, reply.sent) >= -bound, "{reply:x?}");
        assert!(after(stamp, reply.arrived) <= bound, "{reply:x?}");
    }
    assert!(after(reply.transmit, reply.receive) > 0, "{reply:x?}");
    assert!(after(reply.receive, reply.reference) >= 0, "{reply:x?}");
}

#[test]
fn a_guest_follows_chronyd_in_interleaved_mode() {
    let netns = Netns::new();
    let mut rig = Rig::start(&netns, "tai_offset=37");
    let first = rig.until_right("INIT");
    println!("first: bound {} ns", first.bound_nanos());
    // Basic exchanges until chronyd has seen what it is asked for, and interleaved ones after that, each of
    // which the guest takes: otherwise it would go back to basic mode.
    let deadline = Instant::now() + PATIENCE;
    let number = |rig: &Rig<'_>, name| {
        rig.server
            .as_ref()
            .map_or(0, |server| server.statistic(name))
    };
    while number(&rig, "Interleaved NTP packets") < 3 {
        let log = rig.server.as_ref().map(Server::log);
        assert!(
            Instant::now() < deadline,
            "{log:?} {}",
            rig.guest.serial_log()
        );
        rig.right();
        thread::sleep(Duration::from_millis(200));
    }
    let received = number(&rig, "NTP packets received");
    let interleaved = number(&rig, "Interleaved NTP packets");
    // The test's own client asks the guest, so that all of these are the guest's.
    assert!(interleaved + 2 >= received, "{interleaved} of {received}");
    let last = rig.right();
    println!(
        "{interleaved} of {received} interleaved: bound {} ns",
        last.bound_nanos()
    );
    let shown = rig.guest.command("sources");
    println!("{shown}");
    assert!(shown.contains("10.7.7.1, stratum 4"), "{shown}");
    let time = rig.guest.time().expect("time");
    println!("{time:?}");
}

#[test]
fn without_chronyd_the_bound_grows_and_stays_true() {
    let netns = Netns::new();
    let mut rig = Rig::start(&netns, "");
    rig.until_right("INIT");
    // So that what is learned of the period is not still being learned.
    thread::sleep(Duration::from_secs(8));
    let before = rig.right();
    rig.server = None;
    let mut after = rig.right();
    let deadline = Instant::now() + PATIENCE;
    // A hundred parts in a million, and more while the period is known for seconds only.
    while after.root_dispersion < before.root_dispersion + 66 {
        assert!(Instant::now() < deadline, "{before:?} {after:?}");
        thread::sleep(Duration::from_millis(500));
        after = rig.right();
    }
    println!(
        "bound {} ns, then {} ns",
        before.bound_nanos(),
        after.bound_nanos()
    );
    // It is found again, and the bound is as it was.
    rig.server = Some(Server::start(&netns, STRATUM));
    let deadline = Instant::now() + PATIENCE;
    while rig.right().root_dispersion > after.root_dispersion / 2 {
        let shown = rig.guest.command("sources");
        assert!(Instant::now() < deadline, "{shown}");
        thread::sleep(Duration::from_millis(500));
    }
}

/// Of one exchange: the rate of the counter is measured anew meanwhile.
#[test]
fn a_marker_change_is_a_step_at_once_and_one_answer_brings_time_back() {
    let netns = Netns::new();
    let mut rig = Rig::start(&netns, "");
    rig.until_right("INIT");
    let page = rig.guest.page().expect("a page");
    let stock = page.fields().expect("QEMU runs");
    for marker in 1..=4 {
        // The first time while it may not be asked again yet.
        if marker > 1 {
            rig.wait_rested();
        }
        rig.right();
        let asked = rig.received();
        let fields = Fields {
            disruption_marker: stock.disruption_marker + marker,
            ..stock
        };
        rig.guest.write_fields(&fields).expect("QEMU runs");
        let changed = Instant::now();
        rig.client.ask().assert_no_time(&["STEP"]);
        let right = rig.until_right("STEP");
        println!(
            "right again after {} ms and {} answers, bound {} ns",
            changed.elapsed().as_millis(),
            rig.received() - asked,
            right.bound_nanos()
        );
    }
    assert!(rig.guest.serial_log().contains("disruption"));
}
