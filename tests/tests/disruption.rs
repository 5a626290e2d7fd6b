//! What must never happen: time from across a disruption.

use core::time::Duration;
use std::thread;
use std::time::Instant;

use gnomon_clock::{ClockStatus, Fields};
use gnomon_qemu::publish::{Host, Options};
use gnomon_qemu::qmp::Qmp;
use gnomon_qemu::{Machine, Publisher};
use gnomon_tests::guest::{Guest, machine};
use gnomon_tests::ntp::{Client, Reply, V4_CLIENT, cookie, request};
use gnomon_tests::temporary::Temporary;
use gnomon_tests::{Arch, PATIENCE, arch};
use serde_json::json;

gnomon_tests::on_both![
    stop_and_cont_never_show_an_old_time,
    requests_that_waited_through_a_stop_are_right_or_without_time,
    stop_and_cont_by_somebody_else_are_noticed,
    marker_change_on_a_page_without_time_is_a_step_at_once,
    marker_change_on_a_page_with_time_carries_the_new_time_at_once,
    requests_in_flight_never_carry_a_mixture,
    reset_boots_again_and_the_time_is_right_again,
    restored_snapshot_never_shows_the_time_of_the_snapshot,
    restored_snapshot_with_a_publisher_is_right_or_without_time,
];

/// How long a machine is held. Time that goes on from before would be wrong by this much.
const HELD: Duration = Duration::from_secs(2);

/// A stopped machine answers nothing while it is held. Returns what has been sent to it: none of
/// it may ever be answered with an old time.
fn hold(client: &Client) -> Vec<u64> {
    let end = Instant::now() + HELD;
    let mut cookies = Vec::new();
    while Instant::now() < end {
        let cookie = cookie();
        client.send(&request(V4_CLIENT, cookie));
        cookies.push(cookie);
        let wait = end.min(Instant::now() + HELD / 4);
        if let Some((reply, _)) = client.receive(wait) {
            panic!("answered while it was stopped: {reply:x?}");
        }
    }
    cookies
}

/// The first reply after a disruption is without time or right, and so are all until it is right.
fn assert_right_again(client: &Client) -> Reply {
    client.ask_until_right()
}

fn stop_and_cont_never_show_an_old_time() {
    let (mut guest, client) = Guest::serving();
    for _ in 0..3 {
        let marker = guest.publisher().report().disruptions;
        guest.stop().expect("stops");
        hold(&client);
        guest.cont().expect("goes on");
        assert_right_again(&client);
        guest.wait_published(|report| report.valid && report.disruptions > marker);
        for _ in 0..50 {
            client.ask().assert_right();
        }
    }
    guest.time().expect("time");
    let log = guest.serial_log();
    assert!(log.contains("disruption"), "{log}");
}

fn requests_that_waited_through_a_stop_are_right_or_without_time() {
    let (mut guest, client) = Guest::serving();
    guest.stop().expect("stops");
    // One socket asks during the stop, and what comes back to it later is looked at as well.
    let sent = gnomon_tests::ntp::host_time().0;
    let cookies = hold(&client);
    guest.cont().expect("goes on");
    let right = assert_right_again(&Client::new(guest.ntp_port().expect("user network")));
    let mut looked_at = 0;
    while let Some((bytes, arrived)) = client.receive(Instant::now() + Duration::from_millis(200)) {
        let reply = Reply::decode(&bytes);
        assert!(cookies.contains(&reply.origin), "{reply:?}");
        let reply = Reply {
            sent,
            arrived,
            ..reply
        };
        if reply.leap == 3 {
            reply.assert_no_time(&["STEP"]);
        } else {
            // It arrived after the machine went on, for before that nobody could take it.
            reply.assert_right();
            let held = i64::try_from(HELD.as_secs()).expect("small") << 32;
            let late = reply.receive.wrapping_sub(sent).cast_signed();
            assert!(late >= held - (1 << 28), "{reply:x?}");
        }
        looked_at += 1;
    }
    assert!(looked_at > 0, "QEMU kept none of {}", cookies.len());
    right.assert_right();
}

fn stop_and_cont_by_somebody_else_are_noticed() {
    let (mut guest, client) = Guest::serving();
    let before = guest.publisher().report().fields.expect("written");
    guest.qmp().execute("stop", json!({})).expect("stops");
    guest.wait_published(|report| !report.valid);
    hold(&client);
    guest.qmp().execute("cont", json!({})).expect("goes on");
    assert_right_again(&client);
    let after = guest.wait_published(|report| report.valid);
    let after = after.fields.expect("written");
    assert!(after.disruption_marker > before.disruption_marker);
    for _ in 0..50 {
        client.ask().assert_right();
    }
    let status = guest.command("status");
    let marker = format!("marker      {:#x}\n", after.disruption_marker);
    assert!(status.contains(&marker), "{marker}{status}");
}

fn marker_change_on_a_page_without_time_is_a_step_at_once() {
    let (guest, client) = Guest::serving();
    let mut page = guest.take_page();
    client.ask().assert_right();
    let statuses = [
        ClockStatus::Unknown,
        ClockStatus::Initializing,
        ClockStatus::Unreliable,
    ];
    for (marker, status) in (page.valid.disruption_marker + 1..).zip(statuses) {
        page.publish(&Fields {
            disruption_marker: marker,
            clock_status: status as u8,
            ..page.valid
        });
        let step = client.ask();
        step.assert_no_time(&["STEP"]);
        assert_eq!(step.root_dispersion, 16 << 16, "{step:?}");
        // Until there is time again, even when the marker is the old one.
        page.publish(&Fields {
            clock_status: status as u8,
            ..page.valid
        });
        client.ask().assert_no_time(&["STEP"]);
        // The same counter runs on: the page is right under any marker.
        page.publish(&Fields {
            disruption_marker: marker,
            ..page.valid
        });
        client.ask().assert_right();
        // Without a change of the marker it is no step.
        page.publish(&Fields {
            disruption_marker: marker,
            clock_status: status as u8,
            ..page.valid
        });
        client.ask().assert_no_time(&["INIT"]);
        page.publish(&Fields {
            disruption_marker: marker,
            ..page.valid
        });
        client.ask().assert_right();
    }
    guest.publisher().unpause().expect("QEMU runs");
    assert_right_again(&client);
}

fn marker_change_on_a_page_with_time_carries_the_new_time_at_once() {
    let (mut guest, client) = Guest::serving();
    let mut page = guest.take_page();
    client.ask().assert_right();
    let hours = 3600;
    for (number, ahead) in [hours, 2 * hours, hours, 0].into_iter().enumerate() {
        page.publish(&Fields {
            disruption_marker: page.valid.disruption_marker + 1 + number as u64,
            time_sec: page.valid.time_sec + u64::from(ahead),
            ..page.valid
        });
        client.ask().assert_right_shifted(ahead);
    }
    // A step of the page's time alone is a new time as well.
    page.publish(&Fields {
        disruption_marker: page.valid.disruption_marker + 4,
        time_sec: page.valid.time_sec + 3600,
        ..page.valid
    });
    client.ask().assert_right_shifted(3600);
    guest.publisher().unpause().expect("QEMU runs");
    assert_right_again(&client);
    guest.wait_published(|report| report.valid);
    guest.time().expect("time");
}

/// Requests that are on their way while the page changes: each is answered with what was right
/// after its arrival, with a step, or not at all.
fn requests_in_flight_never_carry_a_mixture() {
    let (guest, client) = Guest::serving();
    let mut page = guest.take_page();
    let mut answered = 0;
    for number in 1..=200_u64 {
        // An hour ahead and back, so that a mixture of two pages is wrong by an hour.
        let ahead = number % 2 * 3600;
        let (sent, _) = gnomon_tests::ntp::host_time();
        let cookies: Vec<u64> = (0..4).map(|_| cookie()).collect();
        for cookie in &cookies {
            client.send(&request(V4_CLIENT, *cookie));
        }
        page.publish(&Fields {
            disruption_marker: page.valid.disruption_marker + number,
            time_sec: page.valid.time_sec + ahead,
            ..page.valid
        });
        // Of an answer to a question after the change it is known what it must say; before it there
        // are those to the four, or some of them.
        let mut last = cookie();
        client.send(&request(V4_CLIENT, last));
        loop {
            let patience = Instant::now() + PATIENCE;
            let (bytes, arrived) = client.receive(patience).expect("an answer");
            let reply = Reply {
                sent,
                arrived,
                ..Reply::decode(&bytes)
            };
            if reply.leap == 3 {
                // The host has taken the writer's CPU in the middle of an update.
                reply.assert_no_time(&["INIT"]);
                if reply.origin == last {
                    last = cookie();
                    client.send(&request(V4_CLIENT, last));
                }
                continue;
            }
            let stamps = reply.transmit.wrapping_sub(reply.receive);
            assert!(stamps < 1800 << 32, "a mixture: {reply:x?}");
            if reply.origin == last {
                reply.assert_right_shifted(u32::try_from(ahead).expect("small"));
                break;
            }
            assert!(cookies.contains(&reply.origin), "{reply:x?}");
            let shifted = reply.transmit.wrapping_sub(sent) > 1800 << 32;
            reply.assert_right_shifted(if shifted { 3600 } else { 0 });
            answered += 1;
        }
    }
    assert!(answered > 0);
}

fn reset_boots_again_and_the_time_is_right_again() {
    let (mut guest, client) = Guest::serving();
    let before = guest.publisher().report().fields.expect("written");
    guest
        .qmp()
        .execute("system_reset", json!({}))
        .expect("resets");
    guest.wait_said("Gnomon 0.");
    guest.wait_prompt();
    assert_right_again(&client);
    let after = guest.wait_published(|report| report.valid);
    let after = after.fields.expect("written");
    assert!(after.disruption_marker > before.disruption_marker);
    guest.time().expect("time");
}

/// QEMU brings the page's memory along, time and all, and raises the marker in it; where QEMU has no
/// such device, the launcher does. Nobody has written the time of now when the guest runs again.
fn restored_snapshot_never_shows_the_time_of_the_snapshot() {
    let snapshot = Snapshot::take("alone");
    let monitor = snapshot.folder.path().join("qmp");
    let mut restored = Guest::start(snapshot.machine().publish(None).qmp_socket(&monitor));
    let client = restored.client();
    for _ in 0..50 {
        client.ask().assert_no_time(&["STEP"]);
    }
    // Nor when a real-time clock has been read, for which nobody vouches. (On Arm, where a counter's rate has to be learnt
    // from such a clock, that takes a minute.)
    let deadline = Instant::now() + PATIENCE;
    while arch() == Arch::X86_64 && !restored.command("time").contains(", by rtc") {
        assert!(Instant::now() < deadline, "{}", restored.command("sources"));
        client.ask().assert_no_time(&["STEP"]);
    }
    client.ask().assert_no_time(&["STEP"]);
    // With a publisher it is right again.
    let publisher = Publisher::attach(
        Qmp::connect(&monitor).expect("QEMU listens"),
        restored.pid(),
        Host::new(arch()).expect("this host has a clock"),
        Options::default(),
        Box::new(|_| {}),
    );
    let _publisher = publisher.expect("published");
    let _right = client.ask_until_right();
}

/// The publisher is there before the guest's memory is, and lets it run when that has come.
fn restored_snapshot_with_a_publisher_is_right_or_without_time() {
    let snapshot = Snapshot::take("published");
    let held = Instant::now();
    while held.elapsed() < HELD {
        thread::park_timeout(HELD);
    }
    let mut restored = Guest::start(snapshot.machine());
    restored.wait_loaded();
    let client = restored.client();
    // It judges every reply on the way.
    let _right = client.ask_until_right();
    for _ in 0..50 {
        client.ask().assert_right();
    }
    restored.time().expect("time");
    let fields = restored.publisher().report().fields.expect("written");
    assert!(fields.disruption_marker > snapshot.marker, "{fields:?}");
    // And into a machine that is held, which somebody else may let run: what was restored is taken off
    // the page before that.
    let mut held = Guest::start(snapshot.machine().paused(true));
    held.wait_loaded();
    let page = held.page().expect("a page");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let report = held.publisher().report();
        let fields = page.fields().expect("QEMU runs");
        if report.fields == Some(fields) && fields.disruption_marker > snapshot.marker {
            assert!(!report.valid, "{report:?}");
            break;
        }
        assert!(Instant::now() < deadline, "{report:?}");
        thread::park_timeout(Duration::from_millis(5));
    }
}

/// A guest's state, with time on its page.
struct Snapshot {
    folder: Temporary,
    /// The highest marker it can have.
    marker: u64,
}

impl Snapshot {
    fn take(name: &str) -> Self {
        let folder = Temporary::directory(name);
        let mut snapshot = Self { folder, marker: 0 };
        let (mut guest, client) = Guest::serving();
        client.ask().assert_right();
        guest
            .qmp()
            .execute("migrate", json!({ "uri": snapshot.uri() }))
            .expect("QEMU writes to a file");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let state = guest.qmp().execute("query-migrate", json!({}));
            let state = state.expect("QEMU runs").value["status"].clone();
            if state == "completed" {
                break;
            }
            assert_ne!(state, "failed");
            assert!(Instant::now() < deadline, "{state}");
            thread::park_timeout(Duration::from_millis(20));
        }
        let page = guest.page().expect("a page").fields();
        snapshot.marker = page.expect("QEMU runs").disruption_marker;
        snapshot
    }

    fn uri(&self) -> String {
        format!("file:{}", self.folder.path().join("state").display())
    }

    /// A machine that goes on from there.
    fn machine(&self) -> Machine {
        machine().arg("-incoming").arg(self.uri())
    }
}
