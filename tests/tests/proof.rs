//! The live proof: a guest under load, a publisher that does everything a publisher may do to its page
//! and some of what it may not, and for every single reply the question whether it tells the truth.
//!
//! # The rule
//!
//! A scenario's journal says under which disruption marker which line of time is true, and between
//! which two moments the page carried that marker: from before the first byte of the update that
//! brought it until after the last byte of the update that took it away. All moments are readings of
//! this host's clock, and so are the client's two: before it has sent the request, and after it has
//! received the reply.
//!
//! A reply carries time by some epoch. Its transmit stamp was taken after the request was sent and
//! before the reply was received, and while the page was valid under that marker. So it has to lie,
//! to within its root dispersion, where that epoch's truth puts the part of
//! \[sent, received\] during which the page could be seen under that marker; and its receive stamp
//! between the beginning of that and the transmit stamp, by the same line. In
//! particular: **a reply to a request that was sent after the disrupting update had returned must
//! not carry the time from before it**, and one that was sent earlier may carry the old time only if
//! that says it is from before the update had returned. The scenario moves time by hours, and never to
//! where it has been, so that no reply can meet the rule by another epoch's line.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::thread;
use std::time::{Instant, SystemTime};

use gnomon_clock::{Span, Tai, Ticks, Timeline, Timestamp};
use gnomon_qemu::Scenario;
use gnomon_qemu::host::HostClock;
use gnomon_qemu::memory::GuestPage;
use gnomon_qemu::publish::{Epoch, Options, Piece, Progress, Publisher};
use gnomon_tests::guest::{Guest, machine};
use gnomon_tests::ntp::{Client, HEADER, Reply, V4_CLIENT, request};
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
/// TAI − UTC of this host and of every scenario without leap seconds.
const OFFSET: i64 = 37;
/// From 1900, where NTP counts from, to 1970.
const EPOCH: i128 = 2_208_988_800;
const NANOS: i128 = 1_000_000_000;

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
    let judged = Judged::all(&records, &journal);
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
        judged.width(0),
        judged.width(50),
        judged.width(100)
    );
    println!(
        "{} readings of the page beside the host's clock: least slack {} ns; ± median {} ns, max {} ns",
        witness.count,
        witness.slack,
        witness.width(50),
        witness.width(100)
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

/// A reply with the client's readings around it, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug)]
struct Record {
    sent: i128,
    arrived: i128,
    reply: Reply,
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
        records.push(Record {
            sent,
            arrived,
            reply,
        });
    }
    records
}

/// What became of all replies.
#[derive(Debug, Default)]
struct Judged {
    timed: u64,
    without: u64,
    wrong: u64,
    stale: u64,
    /// In ns: how much nearer the truth could have been to the edge of a bound.
    slack: i128,
    widths: Vec<u64>,
    examples: Vec<(Record, Vec<Epoch>)>,
}

impl Judged {
    fn all(records: &[Record], journal: &[Epoch]) -> Self {
        let mut judged = Self {
            slack: i128::MAX,
            ..Self::default()
        };
        for record in records {
            if record.reply.leap == 3 {
                record.reply.assert_no_time(&["INIT", "STEP"]);
                judged.without += 1;
                continue;
            }
            judged.timed += 1;
            judged.widths.push(record.reply.bound_nanos());
            let (past, present) = epochs(record, journal);
            let slack = |epoch: &Visible<'_>| epoch.slack(record);
            if let Some(slack) = present.iter().filter_map(slack).max() {
                judged.slack = judged.slack.min(slack);
            } else {
                // Which of the two it is, is for those who have to look for it.
                let whenever = |epoch: &Visible<'_>| {
                    Visible {
                        begun: record.sent,
                        done: record.arrived,
                        ..*epoch
                    }
                    .slack(record)
                    .is_some()
                };
                let stale = past.iter().any(whenever);
                judged.stale += u64::from(stale);
                judged.wrong += u64::from(!stale);
                if judged.examples.len() < 3 {
                    let epochs = present.iter().map(|epoch| epoch.epoch.clone()).collect();
                    judged.examples.push((*record, epochs));
                }
            }
        }
        judged.widths.sort_unstable();
        judged
    }

    fn width(&self, part: usize) -> u64 {
        self.widths[(self.widths.len() - 1) * part / 100]
    }
}

/// An epoch, and when the page could be seen under its marker.
#[derive(Clone, Copy)]
struct Visible<'j> {
    epoch: &'j Epoch,
    begun: i128,
    done: i128,
    /// The marker came with an earlier update, that had no time.
    marked: i128,
}

/// The epochs before the request was sent, and those between then and the reply.
fn epochs<'j>(record: &Record, journal: &'j [Epoch]) -> (Vec<Visible<'j>>, Vec<Visible<'j>>) {
    let first = journal.partition_point(|epoch| nanos(epoch.done) <= record.sent);
    let span = |index: usize| {
        let epoch = journal.get(index)?;
        let same = journal[..index]
            .iter()
            .rev()
            .take_while(|before| before.marker == epoch.marker);
        let marked = same.last().unwrap_or(epoch).begun;
        Some(Visible {
            epoch,
            begun: nanos(epoch.begun),
            done: journal
                .get(index + 1)
                .map_or(i128::MAX, |next| nanos(next.done)),
            marked: nanos(marked),
        })
    };
    // The one before `first` may still have been seen.
    let present = (first.saturating_sub(1)..journal.len())
        .map_while(span)
        .take_while(|epoch| epoch.begun <= record.arrived)
        .filter(|epoch| epoch.epoch.valid && epoch.done >= record.sent);
    let past = (0..first.saturating_sub(1)).filter_map(span);
    (
        past.filter(|epoch| epoch.epoch.valid).collect(),
        present.collect(),
    )
}

impl Visible<'_> {
    /// How far inside their bounds both stamps are by this epoch, in ns; `None` if they are not.
    fn slack(&self, record: &Record) -> Option<i128> {
        let bound = i128::from(record.reply.bound_nanos());
        let [receive, transmit] = [record.reply.receive, record.reply.transmit].map(stamp);
        let earliest = truth(self.epoch, record.sent.max(self.begun));
        let arrival = truth(self.epoch, record.sent.max(self.marked));
        let latest = truth(self.epoch, record.arrived.min(self.done));
        let slack = (transmit + bound - earliest)
            .min(latest - (transmit - bound))
            .min(receive + bound - arrival)
            .min(latest - (receive - bound));
        (slack >= 0 && receive <= transmit).then_some(slack)
    }
}

/// What an epoch's UTC was at this moment of the host's, both in ns since 1970.
fn truth(epoch: &Epoch, host: i128) -> i128 {
    let host = tai(host);
    let piece = epoch.truth.iter().rev().find(|piece| piece.host <= host);
    let piece = piece.or(epoch.truth.first()).expect("every epoch has one");
    utc(piece.at(host).expect("in range"))
}

fn tai(utc: i128) -> Timestamp<Tai> {
    let seconds = i64::try_from(utc.div_euclid(NANOS)).expect("a date") + OFFSET;
    let nanos = i64::try_from(utc.rem_euclid(NANOS)).expect("below a second");
    Timestamp::from_parts(seconds, 0)
        .checked_add(Span::from_nanos(nanos))
        .expect("a date")
}

fn utc(tai: Timestamp<Tai>) -> i128 {
    i128::from(tai.seconds() - OFFSET) * NANOS + i128::from(tai.nanos())
}

/// An NTP stamp in ns since 1970; before 2036 by its first bit, after it without.
fn stamp(ntp: u64) -> i128 {
    let era = if ntp >> 63 == 1 { 0 } else { 1 << 32 };
    let seconds = i128::from(ntp >> 32) + era - EPOCH;
    seconds * NANOS + ((i128::from(ntp & 0xffff_ffff) * NANOS) >> 32)
}

fn now() -> i128 {
    nanos(SystemTime::now())
}

fn nanos(time: SystemTime) -> i128 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    i128::try_from(since.expect("after 1970").as_nanos()).expect("small")
}

/// Readings of the page with the guest's counter beside the host's clock, to some 100 ns.
#[derive(Debug, Default)]
struct Witness {
    count: u64,
    slack: i128,
    widths: Vec<u64>,
}

impl Witness {
    fn width(&self, part: usize) -> u64 {
        self.widths[(self.widths.len() - 1) * part / 100]
    }
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

/// The judge itself: it accepts what is right and says of what is not which way it is wrong.
#[test]
fn the_rule_tells_right_stale_and_wrong_apart() {
    let ms = 1_000_000;
    let start = 1_800_000_000 * NANOS;
    let at = |nanos: i128| {
        let nanos = u64::try_from(start + nanos).expect("positive");
        SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)
    };
    let epoch = |marker: u64, hours: i128, begun: i128| Epoch {
        marker,
        valid: true,
        begun: at(begun),
        done: at(begun + ms / 10),
        truth: vec![Piece {
            host: tai(start),
            scenario: tai(start + hours * 3600 * NANOS),
            rate_ppb: 0,
        }],
    };
    let journal = [epoch(1, 0, 0), epoch(2, 5, 10 * ms), epoch(3, 3, 20 * ms)];
    let record = |sent: i128, arrived: i128, hours: i128, receive: i128, transmit: i128| {
        let ntp = |nanos: i128| {
            let nanos = start + hours * 3600 * NANOS + nanos + EPOCH * NANOS;
            u64::try_from(((nanos << 32) / NANOS) & i128::from(u64::MAX)).expect("masked")
        };
        let mut reply = Reply::decode(&[0; HEADER]);
        (reply.receive, reply.transmit) = (ntp(receive), ntp(transmit));
        reply.root_dispersion = 1; // 15 µs
        Record {
            sent: start + sent,
            arrived: start + arrived,
            reply,
        }
    };
    let judge = |record: Record| {
        let judged = Judged::all(&[record], &journal);
        (judged.wrong, judged.stale)
    };
    assert_eq!(judge(record(ms, 3 * ms, 0, 2 * ms, 2 * ms)), (0, 0));
    assert_eq!(judge(record(12 * ms, 14 * ms, 5, 13 * ms, 13 * ms)), (0, 0));
    // Sent before the disruption and received after it: by either line, at its own moment.
    assert_eq!(judge(record(8 * ms, 12 * ms, 0, 9 * ms, 9 * ms)), (0, 0));
    assert_eq!(judge(record(8 * ms, 12 * ms, 5, 11 * ms, 11 * ms)), (0, 0));
    assert_eq!(judge(record(8 * ms, 12 * ms, 0, 9 * ms, 11 * ms)), (1, 0));
    assert_eq!(judge(record(8 * ms, 12 * ms, 5, 9 * ms, 11 * ms)), (1, 0));
    // Sent after it had returned.
    assert_eq!(judge(record(12 * ms, 14 * ms, 0, 13 * ms, 13 * ms)), (0, 1));
    assert_eq!(judge(record(22 * ms, 24 * ms, 0, 23 * ms, 23 * ms)), (0, 1));
    assert_eq!(judge(record(22 * ms, 24 * ms, 5, 23 * ms, 23 * ms)), (0, 1));
    // Outside the bound, either way, and a mixture.
    assert_eq!(judge(record(ms, 3 * ms, 0, ms - 20_000, 2 * ms)), (1, 0));
    assert_eq!(
        judge(record(ms, 3 * ms, 0, 2 * ms, 3 * ms + 20_000)),
        (1, 0)
    );
    assert_eq!(judge(record(ms, 3 * ms, 0, 2 * ms, ms)), (1, 0));
    assert_eq!(judge(record(ms, 3 * ms, 1, 2 * ms, 2 * ms)), (1, 0));
}

/// What was heard while one of the scenarios in `qemu/scenarios` was played.
struct Played {
    records: Vec<Record>,
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
    let (mut records, mut lines) = (Vec::new(), Vec::new());
    let deadline = Instant::now() + PATIENCE;
    let progress = loop {
        let progress = publisher.report().scenario.expect("played");
        let reply = client.ask();
        records.push(Record {
            sent: nanos_of(reply.sent),
            arrived: nanos_of(reply.arrived),
            reply,
        });
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

/// The client's own reading of this host's clock.
fn nanos_of(ntp: u64) -> i128 {
    stamp(ntp)
}

impl Played {
    fn without(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(|record| record.reply.leap == 3)
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
        let judged = Judged::all(&records, &self.journal);
        assert_eq!(
            (judged.wrong, judged.stale),
            (0, 0),
            "{:#?}",
            judged.examples
        );
        assert!(records.len() > 20, "{} replies", records.len());
        assert_ne!(records.last().expect("some").reply.leap, 3, "time again");
        self
    }

    fn assert_honest(&self) -> &Self {
        assert_eq!(self.progress.broken, 0, "pages against a promise");
        self
    }

    /// Some replies, but not all, say that there is no time.
    fn assert_sometimes(&self, kiss: [u8; 4]) -> &Self {
        let of_kind = |record: &&Record| record.reply.reference_id == kiss;
        assert!(self.without().filter(of_kind).count() > 0, "no {kiss:?}");
        self
    }

    /// Hardly a reply is without time: one may be when this host does not let the publisher go on in
    /// the middle of an update.
    fn assert_hardly_without(&self) -> &Self {
        let without = self.without().count();
        assert!(without * 20 < self.records.len(), "{without} without time");
        self
    }
}

/// A leap second at the end of a month: UTC by each reply, its announcement, and the seconds around the
/// edge that have been seen.
struct Leap {
    /// The month after it, in seconds since 1970.
    month: i128,
    /// TAI − UTC before it.
    before: i128,
    /// +1 or −1.
    change: i128,
}

impl Leap {
    /// TAI − UTC at this TAI, the new one from the start of an inserted second on: NTP repeats :59.
    fn offset(&self, tai: i128) -> i128 {
        let edge = self.month + self.before - i128::from(self.change < 0);
        self.before + if tai >= edge * NANOS { self.change } else { 0 }
    }

    fn judge(&self, played: &Played) {
        let epoch = played.journal.last().expect("a date");
        let mut seen = [0_u32; 3];
        for record in &played.records {
            if record.sent < nanos(epoch.done) {
                continue;
            }
            let reply = &record.reply;
            if reply.leap == 3 {
                continue;
            }
            let bound = i128::from(reply.bound_nanos());
            let [from, to] = [record.sent, record.arrived]
                .map(|at| truth(epoch, at) + i128::from(OFFSET) * NANOS);
            let tai_of = |ntp: u64| {
                [self.before, self.before + self.change]
                    .map(|offset| (stamp(ntp) + offset * NANOS, offset))
                    .into_iter()
                    .filter(|(tai, offset)| self.offset(*tai) == *offset)
                    .map(|(tai, _)| tai)
                    .find(|tai| (from - bound..=to + bound).contains(tai))
            };
            let receive = tai_of(reply.receive);
            let transmit = tai_of(reply.transmit);
            let (Some(receive), Some(transmit)) = (receive, transmit) else {
                panic!("{from} {to} {reply:x?}");
            };
            assert!(
                receive <= transmit && reply.receive <= reply.transmit,
                "{reply:x?}"
            );
            // Announced to the last moment before, and not after.
            let edge = (self.month + self.before - i128::from(self.change < 0)) * NANOS;
            let announced = if self.change > 0 { 1 } else { 2 };
            let expected = if transmit < edge { announced } else { 0 };
            // The announcement is of the moment that the page was read, the stamp of a moment later.
            let near = (transmit - edge).abs() < bound;
            assert!(
                near || reply.leap == expected,
                "{} {reply:x?}",
                transmit - edge
            );
            let phase = match transmit - edge {
                ..0 => 0,
                0..NANOS => 1,
                _ => 2,
            };
            seen[phase] += 1;
        }
        assert!(seen.iter().all(|count| *count > 20), "{seen:?}");
    }
}

fn leap_seconds_are_right_on_both_sides() {
    let (guest, _) = Guest::serving();
    let client = guest.client();
    let of_2016 = Leap {
        month: 1_483_228_800,
        before: 36,
        change: 1,
    };
    for name in [
        "leap-insert",
        "leap-insert-utc",
        "leap-stale",
        "leap-inside",
    ] {
        let played = play(&guest, &client, name);
        played.assert_honest().assert_hardly_without();
        of_2016.judge(&played);
    }
    let played = play(&guest, &client, "leap-delete");
    played.assert_honest().assert_hardly_without();
    let never = Leap {
        month: 1_814_400_000,
        before: 37,
        change: -1,
    };
    never.judge(&played);
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
        .records
        .iter()
        .zip(&played.lines)
        .filter(|(record, _)| record.reply.leap != 3)
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
