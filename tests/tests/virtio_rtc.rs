//! Time without a publisher: from QEMU's virtio real-time clock, guarded by the page's marker.
//!
//! These need QEMU 11.1, which `make test` unpacks beside the build. What the bars are about is
//! measured and printed (`--nocapture`); machines are shared, and no test fails for being slow.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::time::Duration;
use std::collections::HashMap;
use std::fs::Permissions;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;
use std::{fs, thread};

use gnomon_qemu::machine::Machine;
use gnomon_qemu::mapping::{Bracket, GuestCounter, Mapping, Timers};
use gnomon_qemu::qmp::Qmp;
use gnomon_qemu::{Arch, Vm};
use gnomon_tests::guest::{Guest, machine};
use gnomon_tests::ntp::{Client, Reply, V4_CLIENT, cookie, request};
use gnomon_tests::temporary::Temporary;
use gnomon_tests::vhost_rtc::{Conduct, Crossed, Face, VhostRtc, attach};
use gnomon_tests::{PATIENCE, arch, on, qemu_11};
use serde_json::{Value, json};

gnomon_tests::on_both![
    first_right_answer_comes_without_a_publisher,
    migration_of_the_running_guest_never_shows_an_old_time,
    snapshot_restored_an_hour_later_never_shows_the_time_of_the_snapshot,
    source_is_told_on_the_console_and_may_be_refused,
    device_that_misbehaves_brings_no_wrong_time,
    clocks_are_not_believed_to_be_what_they_are_called,
    a_device_that_names_the_counter_value_narrows_the_bound_around_the_truth,
];

/// The reference id of time from virtio-rtc.
const VIRTIO: [u8; 4] = *b"XVRT";

/// The usual machine, with a marker and a clock and without a publisher.
fn without_publisher(qemu: &Path) -> Machine {
    machine().qemu(qemu).publish(None).rtc(true)
}

fn first_right_answer_comes_without_a_publisher() {
    let Some(qemu) = qemu_11() else { return };
    let mut machines = vec![("with a marker", without_publisher(&qemu))];
    if arch() == Arch::Aarch64 {
        // As it is without the launcher: QEMU has no page on this machine.
        machines.push(("without a page", without_publisher(&qemu).vmclock(false)));
        let in_memory = machine().qemu(&qemu).publish(None);
        let in_memory = in_memory
            .arg("-global")
            .arg("virtio-mmio.force-legacy=false")
            .arg("-device")
            .arg("virtio-rtc-device");
        machines.push(("with registers in memory", in_memory));
    }
    for (name, machine) in machines {
        let before = Instant::now();
        let guest = Guest::start(machine);
        let running = Instant::now();
        let client = guest.client();
        // A request that comes before the guest has an address is lost: many, soon after each other.
        let first = first_right(&client);
        let (since_start, since_running) = (before.elapsed(), running.elapsed());
        let mut bounds = vec![first.bound_nanos()];
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end {
            let reply = client.ask();
            reply.assert_right_by(VIRTIO);
            bounds.push(reply.bound_nanos());
        }
        bounds.sort_unstable();
        let below = bounds.partition_point(|bound| *bound < 1_000_000);
        let (least, middle) = (bounds[0] / 1000, bounds[bounds.len() / 2] / 1000);
        println!(
            "{}, {name}: first right reply {} ms after QEMU was started, {} ms after the machine ran (bound {} µs); \
             {} replies, all right, bound {least} µs at least, {middle} µs in the middle, {} µs at most, \
             below 1 ms in {below}",
            arch().name(),
            since_start.as_millis(),
            since_running.as_millis(),
            first.bound_nanos() / 1000,
            bounds.len(),
            bounds[bounds.len() - 1] / 1000,
        );
    }
}

/// The first reply with time, which is right; before it there are none but those without.
fn first_right(client: &Client) -> Reply {
    first_right_after(client, &mut HashMap::new())
}

/// The same, of a client that has asked before.
fn first_right_after(client: &Client, asked: &mut HashMap<u64, u64>) -> Reply {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        for reply in exchange(client, asked, Duration::from_millis(2)) {
            if reply.leap != 3 {
                reply.assert_right_by(VIRTIO);
                return reply;
            }
            reply.assert_no_time(&["INIT", "STEP"]);
        }
    }
    panic!("no time within {PATIENCE:?}");
}

/// Asks once, and takes what comes within a while, which may be answers to earlier questions.
fn exchange(client: &Client, asked: &mut HashMap<u64, u64>, wait: Duration) -> Vec<Reply> {
    let cookie = cookie();
    let (sent, _) = gnomon_tests::ntp::host_time();
    asked.insert(cookie, sent);
    client.try_send(&request(V4_CLIENT, cookie));
    let until = Instant::now() + wait;
    let mut replies = Vec::new();
    while let Some((bytes, arrived)) = client.receive(until) {
        let reply = Reply::decode(&bytes);
        let Some(sent) = asked.get(&reply.origin).copied() else {
            panic!("nobody asked for {reply:?}")
        };
        replies.push(Reply {
            sent,
            arrived,
            ..reply
        });
        if reply.origin == cookie {
            break;
        }
    }
    replies
}

/// Asks a guest over and over, until told to stop, and keeps the answers.
struct Watch {
    enough: Arc<AtomicBool>,
    /// Answers with time so far.
    timed: Arc<AtomicUsize>,
    thread: JoinHandle<Vec<Reply>>,
}

impl Watch {
    fn of(vm: &Vm) -> Self {
        Self::of_port(vm.ntp_port().expect("QEMU's user network"))
    }

    fn of_port(port: u16) -> Self {
        let (enough, timed) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (until, count) = (Arc::clone(&enough), Arc::clone(&timed));
        let thread = thread::spawn(move || {
            let client = Client::new(port);
            let (mut asked, mut replies) = (HashMap::new(), Vec::new());
            while !until.load(Ordering::Relaxed) {
                let more = exchange(&client, &mut asked, Duration::from_millis(2));
                let timed = more.iter().filter(|reply| reply.leap != 3).count();
                count.fetch_add(timed, Ordering::Relaxed);
                replies.extend(more);
            }
            replies
        });
        Self {
            enough,
            timed,
            thread,
        }
    }

    /// Waits for so many more answers with time.
    fn wait(&self, more: usize) {
        let enough = self.timed.load(Ordering::Relaxed) + more;
        let deadline = Instant::now() + PATIENCE;
        while self.timed.load(Ordering::Relaxed) < enough {
            let is_over = Instant::now() >= deadline || self.thread.is_finished();
            assert!(!is_over, "no more answers with time");
            thread::park_timeout(Duration::from_millis(5));
        }
    }

    fn end(self) -> Vec<Reply> {
        self.enough.store(true, Ordering::Relaxed);
        self.thread.join().expect("its panic is the test's")
    }
}

/// What there was of right answers and of such without time; each is one of them.
fn judge(replies: &[Reply], ahead: u32) -> (usize, usize) {
    let mut right = 0;
    for reply in replies {
        if reply.leap == 3 {
            reply.assert_no_time(&["INIT", "STEP"]);
        } else {
            reply.assert_right_by_shifted(VIRTIO, ahead);
            right += 1;
        }
    }
    (right, replies.len() - right)
}

/// Sends the machine away, and waits until all of it has gone.
fn migrate(qmp: &mut Qmp, uri: &str) {
    qmp.execute("migrate", json!({ "uri": uri }))
        .expect("QEMU goes about it");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let state = qmp.execute("query-migrate", json!({}));
        let state = state.expect("QEMU runs").value["status"].clone();
        if state == "completed" {
            return;
        }
        assert_ne!(state, "failed");
        assert!(Instant::now() < deadline, "{state}");
        thread::park_timeout(Duration::from_millis(5));
    }
}

/// When the machine began to run, in µs since 1970, by QEMU.
fn resumed(qmp: &mut Qmp) -> i64 {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let event = qmp.next_event(Duration::from_millis(100));
        if let Some(event) = event
            .expect("QEMU runs")
            .filter(|event| event.name == "RESUME")
        {
            return event.stamp.expect("QEMU knows the time");
        }
    }
    panic!("the machine has not gone on within {PATIENCE:?}");
}

/// Microseconds since 1970 of an NTP stamp of this era.
fn micros(stamp: u64) -> i64 {
    let seconds = i64::try_from(stamp >> 32).expect("32 bits") - 2_208_988_800;
    let fraction = ((stamp & 0xffff_ffff) * 1_000_000) >> 32;
    seconds * 1_000_000 + i64::try_from(fraction).expect("less than a million")
}

fn migration_of_the_running_guest_never_shows_an_old_time() {
    let Some(qemu) = qemu_11() else { return };
    let folder = Temporary::directory("migration");
    let (socket, monitor) = (folder.path().join("state"), folder.path().join("qmp"));
    let uri = format!("unix:{}", socket.display());
    let mut source = Guest::start(without_publisher(&qemu));
    let _first = first_right(&source.client());
    let there = Watch::of(&source);
    there.wait(20);

    // It waits for the machine before it can be asked anything.
    let target = without_publisher(&qemu)
        .qmp_socket(&monitor)
        .arg("-incoming")
        .arg(&uri);
    let target = {
        let arch = arch();
        thread::spawn(move || on(arch, || target.start()))
    };
    let deadline = Instant::now() + PATIENCE;
    while !socket.exists() || !monitor.exists() {
        assert!(Instant::now() < deadline, "QEMU does not listen");
        thread::park_timeout(Duration::from_millis(5));
    }
    let mut observer = Qmp::connect(&monitor).expect("QEMU listens");
    migrate(source.qmp(), &uri);
    let target = target
        .join()
        .expect("no panic")
        .expect("the machine has come");
    let here = Watch::of(&target);
    let resumed = resumed(&mut observer);
    let _first = first_right(&Client::new(
        target.ntp_port().expect("QEMU's user network"),
    ));
    here.wait(20);
    thread::park_timeout(Duration::from_secs(2));
    let (there, here) = (there.end(), here.end());
    let (before, _) = judge(&there, 0);
    let (after, without) = judge(&here, 0);
    assert!(before > 0 && after > 0);
    let right = here.iter().find(|reply| reply.leap != 3).expect("some are");
    println!(
        "{}: {before} right replies before, {after} after the migration, {without} without time, 0 with old time; \
         right again {:.1} ms after the machine went on, bound {} µs",
        arch().name(),
        millis(micros(right.arrived) - resumed),
        right.bound_nanos() / 1000,
    );
}

#[expect(clippy::cast_precision_loss, reason = "for print")]
fn millis(micros: i64) -> f64 {
    micros as f64 / 1000.0
}

/// The other host is an hour ahead, by a library between QEMU and its clock. On aarch64 its counter is also another
/// one, 16 times as slow, and a register tells the old frequency.
fn snapshot_restored_an_hour_later_never_shows_the_time_of_the_snapshot() {
    const HOUR: u32 = 3600;
    let Some(qemu) = qemu_11() else { return };
    let folder = Temporary::directory("hour");
    let (snapshot, monitor) = (folder.path().join("state"), folder.path().join("qmp"));
    let uri = format!("file:{}", snapshot.display());
    let mut source = Guest::start(without_publisher(&qemu));
    let _first = first_right(&source.client());
    let watch = Watch::of(&source);
    watch.wait(20);
    migrate(source.qmp(), &uri);
    let (before, _) = judge(&watch.end(), 0);
    drop(source);

    let later = folder.path().join("qemu-an-hour-later");
    let script = format!(
        "#!/bin/sh\nFAKETIME=+{HOUR}s FAKETIME_DONT_FAKE_MONOTONIC=1 exec {} \"$@\"\n",
        qemu.display()
    );
    fs::write(&later, script).expect("ours");
    fs::set_permissions(&later, Permissions::from_mode(0o700)).expect("ours");
    let mut other = without_publisher(&later)
        .qmp_socket(&monitor)
        .arg("-incoming")
        .arg(&uri);
    if arch() == Arch::Aarch64 {
        other = other.cpu("max,cntfrq=62500000");
    }
    let mut restored = Guest::start(other);
    let watch = Watch::of(&restored);
    watch.wait(20);
    thread::park_timeout(Duration::from_secs(2));
    watch.wait(20);
    let (after, without) = judge(&watch.end(), HOUR);
    let status = restored.command("sources");
    assert!(status.contains("alarms      0"), "{status}");
    println!(
        "{}: {before} right replies before the snapshot; restored an hour later {without} without time, \
         {after} right ones of the new host's, 0 of the snapshot's",
        arch().name()
    );
}

fn source_is_told_on_the_console_and_may_be_refused() {
    let Some(qemu) = qemu_11() else { return };
    let (mut guest, _) = Guest::boot(without_publisher(&qemu));
    let _first = first_right(&guest.client());
    let sources = guest.command("sources");
    let row = row(&sources, "virtio-rtc");
    assert!(row.starts_with("in use, ± "), "{sources}");
    assert!(row.contains(": PCI 00:"), "{sources}");
    assert!(row.ends_with(", clock 0 of 1, UTC"), "{sources}");
    assert_eq!(
        self::row(&sources, "vmclock"),
        "no time, its marker is watched"
    );
    drop(guest);

    let refused = without_publisher(&qemu).append("source=vmclock");
    let (mut guest, _) = Guest::boot(refused);
    guest.client().ask().assert_no_time(&["INIT"]);
    let sources = guest.command("sources");
    assert_eq!(
        self::row(&sources, "virtio-rtc"),
        "not asked for by source=",
        "{sources}"
    );
    drop(guest);

    let (mut guest, _) = Guest::boot(without_publisher(&qemu).rtc(false));
    guest.client().ask().assert_no_time(&["INIT"]);
    let sources = guest.command("sources");
    assert_eq!(
        self::row(&sources, "virtio-rtc"),
        "no such device",
        "{sources}"
    );
}

fn row<'a>(table: &'a str, name: &str) -> &'a str {
    let mut lines = table.lines();
    let line = lines.find_map(|line| line.strip_prefix(name));
    line.expect("a row for each").trim()
}

const UTC: Face = Face { kind: 0, ahead: 0 };
const TAI: Face = Face {
    kind: 1,
    ahead: 37_000_000_000,
};
const MONOTONIC: Face = Face {
    kind: 2,
    ahead: -1_700_000_000_000_000_000,
};

/// A guest with a clock of ours, which misbehaves from the start if it is told to.
fn with_own_clock(
    qemu: &Path,
    folder: &Temporary,
    clocks: &[Face],
    prepare: impl FnOnce(&VhostRtc),
) -> (Guest, VhostRtc) {
    let socket = folder.path().join("clock");
    let clock = VhostRtc::listen(&socket, clocks);
    prepare(&clock);
    let machine = machine().qemu(qemu).publish(None);
    let (guest, _) = Guest::boot(attach(machine, &socket, 32));
    (guest, clock)
}

/// Waits until the row of virtio-rtc contains this.
fn wait_row(guest: &mut Guest, words: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let sources = guest.command("sources");
        if row(&sources, "virtio-rtc").contains(words) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{words:?} does not come: {sources}"
        );
        thread::park_timeout(Duration::from_millis(100));
    }
}

fn device_that_misbehaves_brings_no_wrong_time() {
    let Some(qemu) = qemu_11() else { return };
    let folder = Temporary::directory("hostile");
    let start = |clock: &VhostRtc| clock.host().conduct = Conduct::Answer(5, 8);
    let (mut guest, clock) = with_own_clock(&qemu, &folder, &[UTC], start);
    wait_row(&mut guest, "it cannot read its clock (EIO)");
    guest.client().ask().assert_no_time(&["INIT"]);
    clock.host().conduct = Conduct::Honest;
    let (client, mut asked) = (guest.client(), HashMap::new());
    let _first = first_right_after(&client, &mut asked);
    assert_eq!(clock.host().features & 1, 0, "no alarms");

    let (mut right, mut without) = (0, 0);
    for conduct in [
        Conduct::Answer(2, 8),
        Conduct::Answer(3, 8),
        Conduct::Answer(4, 16),
        Conduct::Answer(5, 8),
        Conduct::Answer(1, 16),
        Conduct::Answer(0xff, 16),
        Conduct::Length(0),
        Conduct::Length(7),
        Conduct::Length(15),
        Conduct::Length(17),
        Conduct::Length(u32::MAX),
        Conduct::Unwritten,
        Conduct::WrongId(1),
        Conduct::WrongId(64),
        Conduct::WrongId(u32::MAX),
        Conduct::Twice,
        Conduct::Ahead(1),
        Conduct::Ahead(2),
        Conduct::Ahead(0x4000),
        Conduct::Silence,
    ] {
        let before = clock.host().asked.len();
        clock.host().conduct = conduct;
        // A question or two; more where none is answered for a second.
        let length = if conduct == Conduct::Silence {
            1300
        } else {
            500
        };
        let end = Instant::now() + Duration::from_millis(length);
        while Instant::now() < end {
            let replies = exchange(&client, &mut asked, Duration::from_millis(5));
            let (more, none) = judge(&replies, 0);
            (right, without) = (right + more, without + none);
        }
        clock.host().conduct = Conduct::Honest;
        // It goes on being asked, and is right when it is honest.
        let deadline = Instant::now() + PATIENCE;
        while clock.host().asked.len() < before + 3 {
            assert!(Instant::now() < deadline, "{conduct:?} ends the asking");
            let (more, none) = judge(&exchange(&client, &mut asked, Duration::from_millis(20)), 0);
            (right, without) = (right + more, without + none);
        }
        let _first = first_right_after(&client, &mut asked);
    }
    wait_row(&mut guest, "in use");
    println!(
        "{}: {right} replies with time from a device that misbehaves, all right, {without} without",
        arch().name()
    );
    drop(guest);
    clock.end();
}

fn clocks_are_not_believed_to_be_what_they_are_called() {
    let Some(qemu) = qemu_11() else { return };
    let off = |ahead| Face { ahead, ..TAI };
    for (number, (clocks, crossed, words, is_right)) in [
        (&[UTC, TAI, MONOTONIC][..], None, "clock 1 of 3, TAI", true),
        (
            &[off(0), UTC],
            None,
            "clock 1 of 2, UTC; clock 0 is no TAI",
            true,
        ),
        (
            &[UTC, off(-37_000_000_000)],
            None,
            "contradict each other",
            false,
        ),
        (&[MONOTONIC], None, "it has no clock of UTC or TAI", false),
        (&[], None, "it has no clocks", false),
        (
            &[UTC],
            Some(Crossed::Value(12_345)),
            "it names a counter value outside of the question",
            false,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let folder = Temporary::directory(&format!("clocks-{number}"));
        let prepare = |clock: &VhostRtc| clock.host().crossed = crossed;
        let (mut guest, clock) = with_own_clock(&qemu, &folder, clocks, prepare);
        wait_row(&mut guest, words);
        let client = guest.client();
        if is_right {
            let _first = client.ask_until_right_by(VIRTIO);
            for _ in 0..200 {
                client.ask().assert_right_by(VIRTIO);
            }
        } else {
            client.ask().assert_no_time(&["INIT"]);
        }
        if words.ends_with("TAI") && clocks.len() == 3 {
            // TAI − UTC is in the line.
            assert_eq!(guest.time().expect("a time").tai_offset, 37);
        }
        assert_eq!(clock.host().asked.contains(&2), crossed.is_some());
        drop(guest);
        clock.end();
    }
}

/// What ties the guest's counter to the host's, of a machine that this starts: its counters begin at zero then.
fn started(guest: &mut Guest) -> Mapping {
    let timers = Timers::find(guest.pid()).expect("QEMU's memory");
    let begun = guest.qmp().execute("cont", json!({})).expect("QEMU runs");
    let counter = arch().host_counter();
    let bracket = Bracket {
        earliest: begun.sent.of(counter),
        latest: begun.arrived.of(counter),
    };
    let kind = match arch() {
        Arch::X86_64 => GuestCounter::TSC,
        Arch::Aarch64 => GuestCounter::virtual_count(1_000_000_000).expect("a counter"),
    };
    timers.map(kind, 0, bracket)
}

/// `READ_CROSS`, by a device that knows the guest's counter.
fn a_device_that_names_the_counter_value_narrows_the_bound_around_the_truth() {
    let Some(qemu) = qemu_11() else { return };
    let folder = Temporary::directory("crossed");
    let socket = folder.path().join("clock");
    let clock = VhostRtc::listen(&socket, &[UTC]);
    let machine = machine().qemu(&qemu).publish(None).paused(true);
    let mut guest = Guest::start(attach(machine, &socket, 32));
    let mapping = started(&mut guest);
    assert_eq!(mapping.radius, 0, "where QEMU keeps the offset is known");
    let truth = Crossed::Mapped(mapping, arch().host_counter());
    guest.wait_prompt();
    let (client, mut asked) = (guest.client(), HashMap::new());
    let _first = first_right_after(&client, &mut asked);

    // By READ: half the way there and back at least.
    let port = guest.http_port().expect("QEMU's user network");
    let read: Vec<Told> = (0..40).map(|_| Told::within(port, truth)).collect();
    assert!(
        !clock.host().asked.contains(&2),
        "it does not say that it can"
    );
    // A refusal makes the driver ask what there is, and now there is more.
    clock.host().crossed = Some(truth);
    clock.host().asked.clear();
    clock.host().conduct = Conduct::Answer(4, 8);
    let deadline = Instant::now() + PATIENCE;
    while !clock.host().asked.contains(&0x1000) {
        assert!(Instant::now() < deadline, "{:?}", clock.host().asked);
        judge(&exchange(&client, &mut asked, Duration::from_millis(5)), 0);
    }
    clock.host().conduct = Conduct::Honest;
    wait_row(&mut guest, ", crossed");
    while !clock.host().asked.contains(&2) {
        assert!(Instant::now() < deadline, "{:?}", clock.host().asked);
        judge(&exchange(&client, &mut asked, Duration::from_millis(5)), 0);
    }
    // Soon after a question the bound is that of the answer. How soon one looks is luck, so often.
    let least = |told: &[Told]| told.iter().map(|told| told.bound).min().expect("some");
    let before = least(&read);
    let mut crossed = Vec::new();
    while crossed.len() < 40 || least(&crossed) >= before / 2 {
        assert!(
            Instant::now() < deadline,
            "{} ns, and {before} ns before",
            least(&crossed)
        );
        crossed.push(Told::within(port, truth));
        let replies = exchange(&client, &mut asked, Duration::from_millis(5));
        judge(&replies, 0);
    }
    let off = crossed.iter().map(|told| told.off.abs()).max();
    println!(
        "{}: truth inside {} times; least bound {before} ns by READ, {} ns by READ_CROSS, where truth was off \
         the middle by {} ns at most",
        arch().name(),
        read.len() + crossed.len(),
        least(&crossed),
        off.expect("some"),
    );
    drop(guest);
    clock.end();
}

/// The error of a reading of ours, in nanoseconds: the counter and the clock are not read at once.
const SLACK: i128 = 2_000;

/// What the guest has told, and how far the truth at that very counter value is from the middle, in nanoseconds.
struct Told {
    bound: i128,
    off: i128,
}

impl Told {
    /// Asks over HTTP, and holds the answer against this host's clock at the counter value it was true at.
    fn within(port: u16, truth: Crossed) -> Self {
        let before = truth.read();
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("QEMU listens");
        let asked = stream.write_all(b"GET /now HTTP/1.1\r\nHost: gnomon\r\n\r\n");
        asked.expect("a connection");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let after = truth.read();
        let (_, body) = answer.split_once("\r\n\r\n").expect("an answer");
        let now: Value = serde_json::from_str(body).expect("JSON");
        let number = |name: &str| {
            let value = now[name].as_str().and_then(|value| value.parse().ok());
            value.unwrap_or_else(|| panic!("no {name}: {body}"))
        };
        let (earliest, latest, counter): (i128, i128, i128) =
            (number("earliest"), number("latest"), number("counter"));
        // Between the two readings, as a clock goes that is not set meanwhile.
        let [(t0, c0), (t1, c1)] = [before, after].map(|(t, c)| (i128::from(t), i128::from(c)));
        assert!((c0..=c1).contains(&counter), "{c0} {counter} {c1}");
        let time = t0 + (counter - c0) * (t1 - t0) / (c1 - c0).max(1);
        assert!(
            (earliest - SLACK..=latest + SLACK).contains(&time),
            "{time} is not in {earliest}..={latest}"
        );
        Self {
            bound: (latest - earliest) / 2,
            off: time - i128::midpoint(earliest, latest),
        }
    }
}
