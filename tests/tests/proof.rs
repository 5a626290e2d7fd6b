//! The live proof: a guest under load, a publisher that does everything a publisher may do to its page
//! and some of what it may not, and for every single reply the question whether it tells the truth.
//! ([`gnomon_tests::truth`] has the rule.) The scenario moves time by hours, and never to where it has been, so that
//! no reply can meet the rule by another epoch's line.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::thread;
use std::time::Instant;

use gnomon_clock::{Ticks, Timeline};
use gnomon_qemu::Scenario;
use gnomon_qemu::host::HostClock;
use gnomon_qemu::memory::GuestPage;
use gnomon_qemu::publish::{Epoch, Options, Progress, Publisher};
use gnomon_tests::guest::{Guest, machine};
use gnomon_tests::ntp::{Client, HEADER, Reply, V4_CLIENT, request};
use gnomon_tests::truth::{Judged, LEAPS, Leap, Record, nanos, now, stamp, truth, utc};
use gnomon_tests::{Arch, PATIENCE, arch};

gnomon_tests::on_both![
    no_reply_is_wrong_or_stale_under_load,
    leap_seconds_are_right_on_both_sides,
    honest_hosts_are_served_right,
    broken_hosts_are_survived,
];

/// Replies with time that the proof takes.
const REPLIES: u64 = 100_000;
/// And for how long at least.
const LEAST: Duration = Duration::from_secs(12);
/// Client sockets, each with a thread of its own.
const SOCKETS: u64 = 3;
/// Requests of a socket that are on their way at a time.
const OUTSTANDING: usize = 8;
/// A request that is not answered for so long is taken for lost.
const LOST: Duration = Duration::from_millis(500);
/// Everything at once: updates each millisecond, slewing to and fro within the claimed rate,
/// steps by hours, times without time, pauses, and pages written without rest.
const EVERYTHING: &str = "
    interval 1ms
    repeat 500
        rate +240ppm
        wait 120ms
        rate -240ppm
        wait 120ms
        rate +0ppm
        step +5h
        marker
        wait 30ms
        step -2h
        marker
        wait 30ms
        repeat 10
            step +3h
            marker
            wait 5ms
            step -1h
            marker
            update
        end
        flip 20ms
        status unreliable
        marker
        wait 20ms
        status honest
        step +7h
        marker
        wait 50ms
        stop 40ms
        wait 50ms
        freeze 50ms
    end
";

fn no_reply_is_wrong_or_stale_under_load() {
    let options = Options {
        interval: Duration::from_millis(1),
        ..Options::default()
    };
    let (guest, _) = Guest::serving_with(machine().publish(Some(options)));
    let publisher = guest.publisher();
    publisher
        .play(Scenario::parse(EVERYTHING).expect("well-formed"))
        .expect("QEMU runs");
    guest.wait_published(|report| report.scenario.is_some_and(|scenario| scenario.line > 0));
    // What is asked before the first page of the scenario is told under none of its markers.
    guest.wait_published(|_| !publisher.journal().is_empty());
    let port = guest.ntp_port().expect("user network");
    let page = guest.page().expect("a page");
    let arch = arch();
    let (enough, timed) = (AtomicBool::new(false), AtomicU64::new(0));
    let started = Instant::now();
    let (records, witness) = thread::scope(|scope| {
        let load = |number| {
            let (enough, timed) = (&enough, &timed);
            scope.spawn(move || load(port, number, enough, timed))
        };
        let clients: Vec<_> = (0..SOCKETS).map(load).collect();
        let witness = scope.spawn(|| watch(arch, publisher, &page, &enough));
        let deadline = Instant::now() + 2 * PATIENCE;
        let proven = || timed.load(Ordering::Relaxed) >= REPLIES && started.elapsed() >= LEAST;
        while !proven() && Instant::now() < deadline {
            thread::park_timeout(Duration::from_millis(20));
        }
        enough.store(true, Ordering::Relaxed);
        let records: Vec<Record> = clients
            .into_iter()
            .flat_map(|client| client.join().expect("it has ended"))
            .collect();
        (records, witness.join().expect("it has ended"))
    });
    let took = started.elapsed();
    let report = publisher.report();
    let journal = publisher.journal();
    let judged = Judged::all(&records, &[(&journal, None)]);
    let mut widths: Vec<u64> = records.iter().filter_map(Record::bound).collect();
    widths.sort_unstable();
    println!(
        "{} replies in {took:.1?}: {} with time, {} without; {} updates, {} markers, {} kept",
        records.len(),
        judged.timed,
        judged.without,
        report.updates,
        journal.len(),
        report.kept
    );
    println!(
        "wrong {}, stale {}; least slack between a bound and the truth {} ns; ± min {} ns, median {} ns, \
         max {} ns",
        judged.wrong,
        judged.stale,
        judged.slack,
        width(&widths, 0),
        width(&widths, 50),
        width(&widths, 100)
    );
    println!(
        "{} readings of the page beside the host's clock: least slack {} ns; ± median {} ns, max {} ns",
        witness.count,
        witness.slack,
        width(&witness.widths, 50),
        width(&witness.widths, 100)
    );
    assert_eq!(
        (judged.wrong, judged.stale),
        (0, 0),
        "{:#?}",
        judged.examples
    );
    assert!(judged.timed >= REPLIES, "only {} replies", judged.timed);
    assert!(judged.without > 0, "never without time");
    assert!(journal.len() > 100, "{} markers", journal.len());
    assert!(witness.count > 1000, "{} readings", witness.count);
    assert!(witness.slack >= 0, "{witness:?}");
    assert_eq!(report.scenario.map(|scenario| scenario.broken), Some(0));
}

/// Asks as fast as answers come, with a few requests on their way at a time.
fn load(port: u16, number: u64, enough: &AtomicBool, timed: &AtomicU64) -> Vec<Record> {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.connect(("127.0.0.1", port)).expect("a route");
    socket
        .set_read_timeout(Some(Duration::from_millis(20)))
        .expect("a time-out");
    let mut sent: Vec<Option<i128>> = Vec::new();
    let mut outstanding = 0;
    let mut heard = Instant::now();
    let mut records = Vec::new();
    let mut bytes = [0; 512];
    while !enough.load(Ordering::Relaxed) {
        while outstanding < OUTSTANDING {
            let cookie = number << 48 | sent.len() as u64;
            sent.push(Some(now()));
            socket.send(&request(V4_CLIENT, cookie)).expect("sent");
            outstanding += 1;
        }
        let Ok(length) = socket.recv(&mut bytes) else {
            if heard.elapsed() > LOST {
                // Replies that come all the same are looked at as well.
                (outstanding, heard) = (0, Instant::now());
            }
            continue;
        };
        let arrived = now();
        heard = Instant::now();
        assert_eq!(length, HEADER);
        let reply = Reply::decode(&bytes[..length]);
        assert_eq!(reply.origin >> 48, number, "another socket's reply");
        let index = usize::try_from(reply.origin & 0xffff_ffff).expect("small");
        let sent = sent[index].take().expect("one reply for each request");
        outstanding = outstanding.saturating_sub(1);
        timed.fetch_add(u64::from(reply.leap != 3), Ordering::Relaxed);
        records.push(Record::plain(sent, arrived, &reply));
    }
    records
}

/// Readings of the page with the guest's counter beside the host's clock, to some 100 ns.
#[derive(Debug, Default)]
struct Witness {
    count: u64,
    slack: i128,
    widths: Vec<u64>,
}

/// The one that so many of a hundred do not exceed.
fn width(widths: &[u64], part: usize) -> u64 {
    widths[(widths.len() - 1) * part / 100]
}

/// Looks at the page as the guest does, and at the clock.
fn watch(arch: Arch, publisher: &Publisher, page: &GuestPage, enough: &AtomicBool) -> Witness {
    let clock = HostClock::new(arch.host_counter()).expect("a trusted counter");
    let mut witness = Witness {
        slack: i128::MAX,
        ..Witness::default()
    };
    while !enough.load(Ordering::Relaxed) {
        thread::park_timeout(Duration::from_micros(500));
        let before = publisher.report().mapping;
        let fields = page.fields().expect("QEMU runs");
        let sample = clock.sample().expect("a sample");
        let after = page.fields().expect("QEMU runs");
        let mapping = before.filter(|_| publisher.report().mapping == before);
        // The page was this one, whole, and the counter the one we know.
        let (Some(mapping), true) = (
            mapping,
            fields == after && fields.seq_count.is_multiple_of(2),
        ) else {
            continue;
        };
        let Ok(line) = Timeline::from_page(&fields, arch.counter_id()) else {
            continue;
        };
        let (ticks, _) = mapping.guest_at(sample.counter);
        let reading = line.at(Ticks(ticks)).expect("in range");
        let journal = publisher.journal();
        let Some(epoch) = journal
            .iter()
            .rev()
            .find(|epoch| epoch.marker == fields.disruption_marker)
        else {
            continue;
        };
        let host = utc(sample.time);
        let off = (utc(reading.tai.expect("known")) - truth(epoch, host)).abs();
        // What the sample leaves open, with the rounding of four readings to nanoseconds.
        let open = i128::from(sample.radius) + 4;
        let bound = i128::from(reading.bound.nanos());
        witness.count += 1;
        witness.slack = witness.slack.min(bound + open - off);
        witness.widths.push(reading.bound.nanos());
    }
    witness.widths.sort_unstable();
    witness
}

/// What was heard while one of the scenarios in `qemu/scenarios` was played.
struct Played {
    records: Vec<Record>,
    replies: Vec<Reply>,
    journal: Vec<Epoch>,
    progress: Progress,
    /// What it took to get the replies, in the order of the records: the line that was played before.
    lines: Vec<usize>,
}

fn play(guest: &Guest, client: &Client, name: &str) -> Played {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../qemu/scenarios");
    let text = fs::read_to_string(path.join(format!("{name}.scenario"))).expect(name);
    let scenario = Scenario::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
    let publisher = guest.publisher();
    let before = publisher.journal().len();
    publisher.play(scenario).expect("QEMU runs");
    guest.wait_published(|report| report.scenario.is_some_and(|scenario| scenario.line > 0));
    guest.wait_published(|_| publisher.journal().len() > before);
    let (mut records, mut replies, mut lines) = (Vec::new(), Vec::new(), Vec::new());
    let deadline = Instant::now() + PATIENCE;
    let progress = loop {
        let progress = publisher.report().scenario.expect("played");
        let reply = client.ask();
        // The client's own readings of this host's clock.
        let [sent, arrived] = [reply.sent, reply.arrived].map(stamp);
        records.push(Record::plain(sent, arrived, &reply));
        replies.push(reply);
        lines.push(progress.line);
        if progress.over {
            break publisher.report().scenario.expect("played");
        }
        assert!(
            Instant::now() < deadline,
            "{name} does not end: {progress:?}"
        );
        thread::park_timeout(Duration::from_millis(2));
    };
    let played = Played {
        records,
        replies,
        journal: publisher.journal()[before..].to_vec(),
        progress,
        lines,
    };
    println!(
        "{name}: {} replies, {} without time, {} markers, {} pages against a promise",
        played.records.len(),
        played.without().count(),
        played.journal.len(),
        progress.broken
    );
    played
}

impl Played {
    fn without(&self) -> impl Iterator<Item = &Reply> {
        self.replies.iter().filter(|reply| reply.leap == 3)
    }

    /// Every reply is right by the scenario's own truth, or without time; and the last has time.
    fn assert_right(&self) -> &Self {
        let known = nanos(self.journal[0].done);
        let records: Vec<Record> = self
            .records
            .iter()
            .filter(|record| record.sent >= known)
            .copied()
            .collect();
        let judged = Judged::all(&records, &[(&self.journal, None)]);
        assert_eq!(
            (judged.wrong, judged.stale),
            (0, 0),
            "{:#?}",
            judged.examples
        );
        assert!(records.len() > 20, "{} replies", records.len());
        assert_ne!(self.replies.last().expect("some").leap, 3, "time again");
        self
    }

    fn assert_honest(&self) -> &Self {
        assert_eq!(self.progress.broken, 0, "pages against a promise");
        self
    }

    /// Some replies, but not all, say that there is no time.
    fn assert_sometimes(&self, kiss: [u8; 4]) -> &Self {
        let of_kind = |reply: &&Reply| reply.reference_id == kiss;
        assert!(self.without().filter(of_kind).count() > 0, "no {kiss:?}");
        self
    }

    /// There are replies from before a leap second, from the second after it, and from later.
    fn assert_around(&self, leap: &Leap) {
        let mut seen = [0_u32; 3];
        for record in self
            .records
            .iter()
            .filter(|record| record.bound().is_some())
        {
            if let Some(phase) = leap.phase(record, &self.journal) {
                seen[phase] += 1;
            }
        }
        assert!(seen.iter().all(|count| *count > 20), "{seen:?}");
    }

    /// Hardly a reply is without time: one may be when this host does not let the publisher go on in
    /// the middle of an update.
    fn assert_hardly_without(&self) -> &Self {
        let without = self.without().count();
        assert!(without * 20 < self.records.len(), "{without} without time");
        self
    }
}

fn leap_seconds_are_right_on_both_sides() {
    let (guest, _) = Guest::serving();
    let client = guest.client();
    let [of_2016, never] = LEAPS;
    for name in [
        "leap-insert",
        "leap-insert-utc",
        "leap-stale",
        "leap-inside",
    ] {
        let played = play(&guest, &client, name);
        played.assert_honest().assert_hardly_without();
        played.assert_right().assert_around(&of_2016);
    }
    let played = play(&guest, &client, "leap-delete");
    played.assert_honest().assert_hardly_without();
    played.assert_right().assert_around(&never);
}

fn honest_hosts_are_served_right() {
    let (guest, _) = Guest::serving();
    let client = guest.client();
    for name in [
        "era-2036",
        "slew",
        "frozen",
        "disruptions",
        "no-bounds",
        "torn",
    ] {
        let played = play(&guest, &client, name);
        played.assert_right().assert_honest();
        if name != "disruptions" {
            played.assert_hardly_without();
        }
    }
    play(&guest, &client, "flips")
        .assert_right()
        .assert_honest();
    play(&guest, &client, "pauses")
        .assert_right()
        .assert_honest();
    play(&guest, &client, "status")
        .assert_right()
        .assert_honest()
        .assert_sometimes(*b"INIT");
    play(&guest, &client, "restore")
        .assert_right()
        .assert_honest()
        .assert_sometimes(*b"STEP");
}

fn broken_hosts_are_survived() {
    let (mut guest, _) = Guest::serving();
    let client = guest.client();
    play(&guest, &client, "stuck")
        .assert_right()
        .assert_sometimes(*b"INIT");
    play(&guest, &client, "not-a-page")
        .assert_right()
        .assert_sometimes(*b"INIT");
    // UTC is not known from a TAI page without a good offset, and known from a UTC page.
    let played = play(&guest, &client, "old-sign");
    played.assert_right().assert_sometimes(*b"INIT");
    let served: Vec<usize> = played
        .replies
        .iter()
        .zip(&played.lines)
        .filter(|(reply, _)| reply.leap != 3)
        .map(|(_, line)| *line)
        .collect();
    assert!(served.contains(&3) && served.contains(&10), "{served:?}");
    let played = play(&guest, &client, "dishonest");
    assert!(played.progress.broken >= 3, "{:?}", played.progress);
    // The guest has found it out, and says how.
    let audit = guest.command("audit");
    let found = audit
        .lines()
        .find_map(|line| line.strip_suffix("time left the interval given before"))
        .unwrap_or_else(|| panic!("{audit}"));
    let found: u64 = found.trim().parse().unwrap_or_else(|_| panic!("{audit}"));
    assert!(found >= 2, "forward and back: {audit}");
    assert!(
        audit.contains("time left the interval given before: seq "),
        "{audit}"
    );
    // The host has come back to the truth, under a new marker.
    let _right = client.ask_until_right();
    guest.time().expect("time");
}
