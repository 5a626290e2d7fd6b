//! The NTP server as its clients see it: a page, a counter, and datagrams one after another.

use core::cell::Cell;
use core::net::IpAddr;
use core::time::Duration;
use std::rc::Rc;

use gnomon_clock::page::{Fields, VmclockPage, Writer, flag};
use gnomon_clock::{
    Bound, Clock, ClockStatus, Counter, CounterId, LeapIndicator, Period, Smear, Stamp, Ticks,
    TimeType, Timestamp, Utc,
};
use gnomon_kernel::config::Smearing;
use gnomon_kernel::serve::access::{AccessList, Rule};
use gnomon_kernel::serve::auth::Keys;
use gnomon_kernel::serve::limit::Limit;
use gnomon_kernel::serve::ntp::{Counters, Server};
use gnomon_kernel::serve::responder::{Datagram, Memory, Policy, Responder, Served};
use gnomon_kernel::serve::times::{SmearService, Told};

/// 2026-11-20T12:05:31Z.
const NOON: u64 = 1_795_176_331;

/// A counter of 1 GHz that moves on by a microsecond at each read.
#[derive(Clone, Default)]
struct Gigahertz(Rc<Cell<u64>>);

impl Counter for Gigahertz {
    const ID: CounterId = CounterId::X86Tsc;

    fn read(&self) -> Ticks {
        self.0.set(self.0.get() + 1000);
        Ticks(self.0.get())
    }
}

fn page(marker: u64) -> Fields {
    let period = Period::from_hertz(1_000_000_000).expect("a counter");
    Fields {
        disruption_marker: marker,
        counter_id: CounterId::X86Tsc as u8,
        time_type: TimeType::Tai as u8,
        clock_status: ClockStatus::Synchronized as u8,
        flags: flag::TAI_OFFSET_VALID | flag::TIME_MAXERROR_VALID | flag::PERIOD_MAXERROR_VALID,
        tai_offset_sec: -37,
        counter_period_frac_sec: period.frac(),
        counter_period_shift: period.shift(),
        time_sec: NOON + 37,
        time_maxerror_nanosec: 500,
        ..Fields::stock()
    }
}

struct Rig {
    page: &'static VmclockPage,
    counter: Gigahertz,
    clock: Clock<'static, Gigahertz>,
    responder: Responder<'static>,
    random: u64,
    /// When the last reply to a client in interleaved mode left.
    left: Option<Timestamp<Utc>>,
    /// How long after that it is told to have left.
    after: Bound,
    /// The smeared service in place of the plain one.
    smear: Option<SmearService>,
}

impl Rig {
    fn new(policy: &Policy) -> Self {
        let page: &'static VmclockPage = Box::leak(Box::new(VmclockPage::new(&page(1))));
        let counter = Gigahertz::default();
        let mut seed = 0_u64;
        let mut random = || {
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            seed
        };
        let memory = Box::leak(Box::new(Memory::new()));
        let responder = Responder::new(Server::new(1, 30), policy, memory, &mut random);
        Self {
            page,
            clock: Clock::new(Some(page), counter.clone()),
            counter,
            responder,
            random: u64::MAX,
            left: None,
            after: Bound::ZERO,
            smear: None,
        }
    }

    /// What a client gets for `payload` now.
    fn ask_from(&mut self, source: &str, payload: &[u8]) -> Option<Vec<u8>> {
        let source: IpAddr = source.parse().expect("an address");
        let datagram = Datagram {
            source,
            port: 40_000,
            payload,
        };
        let uptime = Duration::from_nanos(self.counter.0.get());
        let stamp = self.clock.stamp();
        let (clock, smear) = (&mut self.clock, &mut self.smear);
        let mut tell = |stamp| match (clock.exchange(stamp), smear.as_mut()) {
            (Ok(exchange), Some(smear)) => smear.tell(&exchange),
            (times, _) => times.into(),
        };
        let served = self
            .responder
            .serve(&datagram, Some(uptime), || tell(stamp), self.random)
            .ok()
            .map(|Served { reply, pending }| {
                ([&reply.packet, reply.tail()].concat(), pending.copied())
            });
        if let Some((_, Some(pending))) = &served {
            let left = Stamp {
                ticks: self.counter.read(),
                ..stamp
            };
            let told = tell(left);
            let Told::Times(times) = told else {
                panic!("there was time just now: {told:?}")
            };
            self.left = Some(times.received);
            self.responder.sent(pending, told, self.after);
        }
        let reply = served.map(|(reply, _)| reply);
        assert!(
            reply
                .as_ref()
                .is_none_or(|reply| reply.len() <= payload.len())
        );
        reply
    }

    fn ask(&mut self, payload: &[u8]) -> Option<Vec<u8>> {
        self.ask_from(CLIENT, payload)
    }

    fn counters(&self) -> Counters {
        self.responder.counters()
    }

    /// Lets the host say `fields` from here on: of this instant, for after a disruption a page that
    /// refers to one before it is not believed.
    fn publish(&mut self, fields: &Fields) {
        let ticks = self.counter.0.get();
        let fields = &Fields {
            counter_value: ticks,
            time_sec: fields.time_sec + ticks / 1_000_000_000,
            time_frac_sec: (((ticks % 1_000_000_000) << 32) / 1_000_000_000) << 32,
            ..*fields
        };
        let seq = self.page.snapshot().expect("a quiet page").seq_count;
        Writer::new(self.page, seq)
            .publish(fields)
            .expect("memory takes everything");
    }

    fn wait(&self, time: Duration) {
        let ticks = u64::try_from(time.as_nanos()).expect("a short wait");
        self.counter.0.set(self.counter.0.get() + ticks);
    }
}

const CLIENT: &str = "192.0.2.7";

fn request() -> Vec<u8> {
    let mut request = vec![0; 48];
    request[0] = 0x23;
    request[2] = 4;
    request[40..48].copy_from_slice(b"a cookie");
    request
}

fn policy(rules: &[(&str, Rule)], limit: Option<&str>) -> Policy {
    let mut access = AccessList::OPEN;
    for (list, rule) in rules {
        access.add(list, *rule).expect(list);
    }
    Policy {
        access,
        limit: limit.map(|text| Limit::parse(text).expect(text)),
        ..Policy::OPEN
    }
}

#[test]
fn only_those_allowed_are_answered() {
    let rules = [
        ("192.0.2.0/24,fd00::/8", Rule::Allow),
        ("192.0.2.8", Rule::Deny),
    ];
    let mut rig = Rig::new(&policy(&rules, None));
    for (source, answered) in [
        (CLIENT, true),
        ("192.0.2.8", false),
        ("192.0.3.1", false),
        ("fd00::1", true),
        ("fe80::1", false),
    ] {
        let reply = rig.ask_from(source, &request());
        assert_eq!(reply.is_some(), answered, "{source}");
    }
    assert_eq!((rig.counters().time, rig.counters().access), (2, 3));
}

#[test]
fn too_many_requests_meet_silence_a_leak_and_a_kiss() {
    let mut rig = Rig::new(&policy(&[], Some("3,8s")));
    for _ in 0..3 {
        let reply = rig.ask(&request()).expect("within the burst");
        assert_eq!((reply[0], reply[1], reply[2]), (0x24, 1, 4));
    }
    assert_eq!(rig.ask(&request()), None);
    // The four highest random bits decide.
    rig.random = 3 << 60;
    assert_eq!(rig.ask(&request()).map(|reply| reply[1]), Some(1));
    rig.random = 4 << 60;
    let kiss = rig.ask(&request()).expect("a kiss");
    assert_eq!((kiss[0], kiss[1], &kiss[12..16]), (0xe4, 0, &b"RATE"[..]));
    assert_eq!(&kiss[24..32], b"a cookie");
    assert!(kiss[32..40] != [0; 8] && kiss[40..48] != [0; 8]);
    rig.random = u64::MAX;
    // Other clients and other datagrams have nothing to do with it.
    assert!(rig.ask_from("192.0.2.8", &request()).is_some());
    assert_eq!(rig.ask(&[0; 48]), None);
    rig.wait(Duration::from_secs(8));
    assert!(rig.ask(&request()).is_some());
    let Counters {
        time,
        rate,
        limit,
        version,
        ..
    } = rig.counters();
    assert_eq!((time, rate, limit, version), (6, 1, 1, 1));
}

#[test]
fn a_kiss_is_only_for_when_there_is_time() {
    let mut rig = Rig::new(&policy(&[], Some("1,8s")));
    rig.publish(&Fields {
        disruption_marker: 1,
        ..Fields::stock()
    });
    rig.random = 4 << 60;
    assert_eq!(
        rig.ask(&request()).map(|reply| reply[12..16].to_vec()),
        Some(b"INIT".to_vec())
    );
    assert_eq!(rig.ask(&request()), None);
    assert_eq!((rig.counters().init, rig.counters().limit), (1, 1));
}

#[test]
fn the_limit_is_the_least_poll_asked_for() {
    let mut rig = Rig::new(&policy(&[], Some("8,64s")));
    assert_eq!(rig.ask(&request()).map(|reply| reply[2]), Some(6));
    let mut slow = request();
    slow[2] = 10;
    assert_eq!(rig.ask(&slow).map(|reply| reply[2]), Some(10));
}

/// A client in interleaved mode as RFC 9769 §2 has it.
#[derive(Default)]
struct Interleaving {
    /// The receive stamp of the last reply.
    named: u64,
    /// Counts requests, for stamps that are all different.
    asked: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Mode {
    Basic,
    Interleaved,
}

impl Interleaving {
    fn request(&mut self) -> Vec<u8> {
        self.asked += 1;
        let mut bytes = request();
        bytes[24..32].copy_from_slice(&self.named.to_be_bytes());
        bytes[32..40].copy_from_slice(&(self.asked << 8 | 1).to_be_bytes());
        bytes[40..48].copy_from_slice(&(self.asked << 8 | 2).to_be_bytes());
        bytes
    }

    /// Takes a reply to `request`; returns its mode and its transmit stamp.
    fn take(&mut self, request: &[u8], reply: &[u8]) -> (Mode, u64) {
        assert!(reply[0] >> 6 != 3 && reply[0] & 0x3f == 0x24 && reply[1] == 1);
        let (receive, transmit) = (stamp(reply, 32), stamp(reply, 40));
        assert_eq!((receive & 1, transmit & 1), (1, 0));
        let mode = match stamp(reply, 24) {
            origin if origin == stamp(request, 40) => Mode::Basic,
            origin if origin == stamp(request, 32) => Mode::Interleaved,
            origin => panic!("origin {origin:#x}"),
        };
        self.named = receive;
        (mode, transmit)
    }

    fn exchange(&mut self, rig: &mut Rig) -> (Mode, u64) {
        let request = self.request();
        let reply = rig.ask(&request).expect("a reply");
        self.take(&request, &reply)
    }
}

fn stamp(packet: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(packet[at..at + 8].try_into().expect("eight bytes"))
}

#[test]
fn the_third_reply_tells_when_the_second_left() {
    let mut rig = Rig::new(&Policy::OPEN);
    let mut client = Interleaving::default();
    assert_eq!(client.exchange(&mut rig).0, Mode::Basic);
    assert_eq!(rig.left, None, "the first request asked for nothing");
    assert_eq!(client.exchange(&mut rig).0, Mode::Basic);
    for _ in 0..100 {
        let left = rig.left.expect("kept").to_ntp().0 & !1;
        rig.wait(Duration::from_secs(16));
        let (mode, transmit) = client.exchange(&mut rig);
        assert_eq!((mode, transmit), (Mode::Interleaved, left));
    }
    assert_eq!(
        (rig.counters().time, rig.counters().interleaved),
        (102, 100)
    );
}

#[test]
fn loss_duplicates_and_strangers_lead_back_to_basic_mode() {
    let mut rig = Rig::new(&Policy::OPEN);
    let mut client = Interleaving::default();
    client.exchange(&mut rig);
    client.exchange(&mut rig);
    // The reply is lost, and with it the pair: the client names the same stamp again.
    let lost = client.request();
    assert!(rig.ask(&lost).is_some());
    assert_eq!(client.exchange(&mut rig).0, Mode::Basic);
    assert_eq!(client.exchange(&mut rig).0, Mode::Interleaved);
    // A duplicate gets a reply that is true, and the client's next request its own.
    let twice = client.request();
    let first = rig.ask(&twice).expect("a reply");
    let second = rig.ask(&twice).expect("a reply");
    assert_eq!(Interleaving::default().take(&twice, &second).0, Mode::Basic);
    assert_eq!(client.take(&twice, &first).0, Mode::Interleaved);
    assert_eq!(client.exchange(&mut rig).0, Mode::Interleaved);
    // Somebody else names the client's stamp.
    let stolen = client.request();
    let reply = rig.ask_from("192.0.2.8", &stolen).expect("a reply");
    assert_eq!(Interleaving::default().take(&stolen, &reply).0, Mode::Basic);
    assert_eq!(client.exchange(&mut rig).0, Mode::Interleaved);
}

#[test]
fn what_does_not_ask_for_interleaved_mode_does_not_get_it() {
    let mut rig = Rig::new(&Policy::OPEN);
    let mut client = Interleaving::default();
    client.exchange(&mut rig);
    client.exchange(&mut rig);
    for change in [
        // Receive and transmit stamps that are equal; symmetric mode; a transmit stamp named.
        |request: &mut Vec<u8>| request.copy_within(32..40, 40),
        |request: &mut Vec<u8>| request[0] = 0x21,
        |request: &mut Vec<u8>| request[31] &= !1,
    ] {
        let mut request = client.request();
        change(&mut request);
        rig.left = None;
        let reply = rig.ask(&request).expect("a reply");
        assert_eq!(reply[24..32], request[40..48], "basic mode");
        assert_eq!(rig.left, None, "nothing is kept");
    }
    assert_eq!(client.exchange(&mut rig).0, Mode::Interleaved);
}

#[test]
fn no_departure_is_told_across_a_disruption() {
    let mut rig = Rig::new(&Policy::OPEN);
    let mut client = Interleaving::default();
    client.exchange(&mut rig);
    client.exchange(&mut rig);
    rig.publish(&page(2));
    assert_eq!(client.exchange(&mut rig).0, Mode::Basic);
    assert_eq!(client.exchange(&mut rig).0, Mode::Interleaved);
    // Without time there is nothing to keep, and nothing to tell after it.
    rig.publish(&Fields {
        disruption_marker: 3,
        ..Fields::stock()
    });
    let request = client.request();
    assert_eq!(
        rig.ask(&request).map(|reply| reply[12..16].to_vec()),
        Some(b"STEP".to_vec())
    );
    rig.publish(&page(3));
    assert_eq!(client.exchange(&mut rig).0, Mode::Basic);
}

#[test]
fn the_dispersion_covers_the_departure_told() {
    let mut rig = Rig::new(&Policy::OPEN);
    let mut client = Interleaving::default();
    client.exchange(&mut rig);
    rig.publish(&Fields {
        time_maxerror_nanosec: 1_000_000_000,
        ..page(1)
    });
    client.exchange(&mut rig);
    rig.publish(&page(1));
    // The reply that left a second wide is told of now, when the page is good again.
    let request = client.request();
    let reply = rig.ask(&request).expect("a reply");
    assert_eq!(client.take(&request, &reply).0, Mode::Interleaved);
    assert!(reply[8..12] >= [0, 1, 0, 0][..], "{:?}", &reply[8..12]);
    let request = client.request();
    let reply = rig.ask(&request).expect("a reply");
    assert!(reply[8..12] < [0, 0, 0, 2][..], "{:?}", &reply[8..12]);
}

#[test]
fn the_dispersion_covers_by_how_much_a_departure_may_be_early() {
    let mut rig = Rig::new(&Policy::OPEN);
    let mut client = Interleaving::default();
    client.exchange(&mut rig);
    for (after, least) in [(0, 0), (1_000_000, 65), (0, 0), (20_000_000, 1310)] {
        rig.after = Bound::from_nanos(after);
        client.exchange(&mut rig);
        let request = client.request();
        let reply = rig.ask(&request).expect("a reply");
        assert_eq!(client.take(&request, &reply).0, Mode::Interleaved);
        let dispersion = u32::from_be_bytes(reply[8..12].try_into().expect("four bytes"));
        // In 2^-16 s, and rounded up; the page's own error is less than one.
        assert!(
            (least + 1..=least + 2).contains(&dispersion),
            "{dispersion}"
        );
    }
    // A client would not take it.
    rig.after = Bound::from_nanos(17_000_000_000);
    client.exchange(&mut rig);
    assert_eq!(client.exchange(&mut rig).0, Mode::Basic);
}

#[test]
fn a_page_set_back_between_arrival_and_departure_tells_nothing() {
    let mut rig = Rig::new(&Policy::OPEN);
    let mut client = Interleaving::default();
    client.exchange(&mut rig);
    let request = client.request();
    let datagram = Datagram {
        source: CLIENT.parse().expect("an address"),
        port: 40_000,
        payload: &request,
    };
    let stamp = rig.clock.stamp();
    let clock = &mut rig.clock;
    let served = rig
        .responder
        .serve(&datagram, None, || clock.exchange(stamp).into(), 0)
        .expect("a reply");
    let (packet, pending) = (served.reply.packet, served.pending.copied());
    rig.publish(&Fields {
        time_sec: NOON,
        ..page(1)
    });
    let pending = pending.expect("asked for");
    let left = rig.clock.stamp();
    let told = rig.clock.exchange(left);
    rig.responder.sent(&pending, told, Bound::ZERO);
    client.take(&request, &packet);
    assert_eq!(client.exchange(&mut rig).0, Mode::Basic);
}

const KEYS: [&str; 2] = [
    "1:AES128:2b7e151628aed2a6abf7158809cf4f3c",
    "20:AES256:603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
];

fn keys() -> Keys {
    let mut keys = Keys::NONE;
    for word in KEYS {
        keys.parse_word(word).expect(word);
    }
    keys
}

fn with_keys(authenticated_only: bool) -> Policy {
    Policy {
        keys: keys(),
        authenticated_only,
        ..Policy::OPEN
    }
}

fn sign(message: &[u8], key: u32) -> Vec<u8> {
    let keys = keys();
    let authenticator = keys.find(key).expect("a key").authenticator();
    let tag = authenticator.tag(&[message]);
    [message, &key.to_be_bytes(), &tag].concat()
}

#[test]
fn a_reply_is_authenticated_by_the_key_of_its_request() {
    let mut rig = Rig::new(&with_keys(false));
    for key in [1, 20] {
        for first_byte in [0x23, 0x1b, 0xd9] {
            let mut request = request();
            request[0] = first_byte;
            let reply = rig.ask(&sign(&request, key)).expect("a reply");
            assert_eq!(reply, sign(&reply[..48], key));
        }
    }
    assert_eq!(rig.ask(&request()).map(|reply| reply.len()), Some(48));
    // A reply about there being no time is as well authenticated as any.
    rig.publish(&Fields::stock());
    let reply = rig.ask(&sign(&request(), 1)).expect("a reply");
    assert_eq!((reply[1], &reply[12..16]), (0, &b"STEP"[..]));
    assert_eq!(reply, sign(&reply[..48], 1));
    let Counters {
        time,
        step,
        authenticated,
        mac,
        ..
    } = rig.counters();
    assert_eq!((time, step, authenticated, mac), (7, 1, 7, 0));
}

#[test]
fn what_is_wrongly_authenticated_meets_silence() {
    let mut rig = Rig::new(&with_keys(false));
    let good = sign(&request(), 1);
    assert!(rig.ask(&good).is_some());
    for bit in 0..8 * good.len() {
        // The version and the mode are judged before the tag.
        if (0..6).contains(&bit) {
            continue;
        }
        let mut wrong = good.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(rig.ask(&wrong), None, "bit {bit}");
    }
    assert_eq!(rig.counters().mac, 8 * 68 - 6);
    let mut without_keys = Rig::new(&Policy::OPEN);
    assert_eq!(without_keys.ask(&good), None);
}

#[test]
fn only_the_authenticated_are_answered_if_so_wished() {
    let mut rig = Rig::new(&with_keys(true));
    assert_eq!(rig.ask(&request()), None);
    assert!(rig.ask(&sign(&request(), 20)).is_some());
    assert_eq!(
        (rig.counters().time, rig.counters().unauthenticated),
        (1, 1)
    );
}

#[test]
fn a_kiss_does_not_answer_who_authenticates() {
    let limit = Limit::parse("1,8s");
    let mut rig = Rig::new(&Policy {
        limit,
        ..with_keys(false)
    });
    assert!(rig.ask(&sign(&request(), 1)).is_some());
    rig.random = 4 << 60;
    assert_eq!(rig.ask(&sign(&request(), 1)), None);
    assert_eq!(rig.ask(&request()).map(|reply| reply[1]), Some(0));
}

#[test]
fn interleaved_and_authenticated() {
    let mut rig = Rig::new(&with_keys(true));
    let mut client = Interleaving::default();
    for turn in 0..10 {
        let request = client.request();
        let reply = rig.ask(&sign(&request, 1)).expect("a reply");
        assert_eq!(reply, sign(&reply[..48], 1));
        let expected = if turn < 2 {
            Mode::Basic
        } else {
            Mode::Interleaved
        };
        assert_eq!(client.take(&request, &reply).0, expected);
        // Nobody else can take the pair.
        let spoofed = client.request();
        assert_eq!(rig.ask(&spoofed), None);
    }
}

/// The field 0xF323 as a client sends it.
fn mono_root() -> Vec<u8> {
    let mut field = vec![0; 28];
    field[..8].copy_from_slice(&[0xf3, 0x23, 0, 28, 0xf5, 0xbe, 0xdd, 0x9a]);
    field
}

/// Root dispersion in nanoseconds, the second receive stamp, and the epoch.
fn mono_fields(field: &[u8]) -> (u64, u64, u32) {
    assert_eq!(field.len(), 28);
    assert_eq!(
        field[..12],
        [0xf3, 0x23, 0, 28, 0xf5, 0xbe, 0xdd, 0x9a, 0, 0, 0, 0]
    );
    let word = |at: usize| u32::from_be_bytes(field[at..at + 4].try_into().expect("four bytes"));
    let dispersion = (u64::from(word(12)) * 1_000_000_000).div_ceil(1 << 28);
    (dispersion, stamp(field, 16), word(24))
}

#[test]
fn the_field_carries_a_fine_dispersion_and_a_second_scale() {
    let mut rig = Rig::new(&Policy::OPEN);
    let asking = [request(), mono_root()].concat();
    let mut epochs = Vec::new();
    for _ in 0..10 {
        rig.wait(Duration::from_secs(1));
        let reply = rig.ask(&asking).expect("a reply");
        assert_eq!(reply.len(), 76);
        let (dispersion, receive, epoch) = mono_fields(&reply[48..]);
        // 500 ns of the page, a tick, 60 ns of precision, and at most 4 ns of rounding.
        assert!((560..570).contains(&dispersion), "{dispersion} ns");
        assert_eq!(receive, stamp(&reply, 32) + (37 << 32));
        epochs.push(epoch);
    }
    epochs.dedup();
    assert_eq!(epochs.len(), 1, "nothing has happened");
    assert_eq!((rig.counters().mono_root, rig.counters().time), (10, 10));
}

#[test]
fn the_epoch_is_new_after_a_disruption_in_another_life_and_after_a_leap_second() {
    let mut rig = Rig::new(&Policy::OPEN);
    let asking = [request(), mono_root()].concat();
    let leapt = Fields {
        tai_offset_sec: -38,
        ..page(2)
    };
    let mut epochs = Vec::new();
    for (fields, another_life) in [
        (page(1), false),
        (page(2), false),
        (leapt, false),
        (leapt, true),
    ] {
        rig.publish(&fields);
        if another_life {
            rig.responder.forget(|| 0x0123_4567_89ab_cdef);
        }
        for _ in 0..2 {
            let reply = rig.ask(&asking).expect("a reply");
            epochs.push(mono_fields(&reply[48..]).2);
        }
    }
    epochs.dedup();
    assert_eq!(epochs.len(), 4, "{epochs:x?}");
    epochs.sort_unstable();
    epochs.dedup();
    assert_eq!(epochs.len(), 4);
}

#[test]
fn another_life_begins_with_nothing() {
    let limit = Limit::parse("4,3600s");
    let mut rig = Rig::new(&Policy {
        limit,
        ..Policy::OPEN
    });
    let mut client = Interleaving::default();
    for _ in 0..4 {
        client.exchange(&mut rig);
    }
    assert_eq!(rig.ask(&request()), None);
    rig.responder.forget(|| 0x0123_4567_89ab_cdef);
    assert_eq!(client.exchange(&mut rig).0, Mode::Basic);
    assert_eq!(client.exchange(&mut rig).0, Mode::Interleaved);
}

#[test]
fn a_smeared_service_has_its_own_departures_and_a_second_scale_only_off_the_smear() {
    let mut rig = Rig::new(&Policy::OPEN);
    // Noon to noon: at noon of the last day of 2026 the smear is about to begin.
    rig.publish(&Fields {
        time_sec: 1_798_718_400 - 2 + 37,
        leap_indicator: LeapIndicator::PrePos as u8,
        ..page(1)
    });
    rig.smear = Some(SmearService::new(Smearing::Always(Smear::NoonLinear)));
    let mut client = Interleaving::default();
    for turn in 0..5 {
        let request = [client.request(), mono_root()].concat();
        let reply = rig.ask(&request).expect("a reply");
        assert_eq!(reply[12..16], *b"XSMR");
        let expected = if turn < 2 {
            Mode::Basic
        } else {
            Mode::Interleaved
        };
        assert_eq!(client.take(&request, &reply).0, expected);
        let smearing = turn > 2;
        assert_eq!(mono_fields(&reply[48..]).1 == 0, smearing, "turn {turn}");
        rig.wait(Duration::from_millis(900));
    }
    // The plain service does not know what the smeared one has sent.
    rig.smear = None;
    assert_eq!(client.exchange(&mut rig).0, Mode::Basic);
    assert_eq!(client.exchange(&mut rig).0, Mode::Interleaved);
}

#[test]
fn the_second_scale_goes_on_through_a_leap_second() {
    let mut rig = Rig::new(&Policy::OPEN);
    // 2026-12-31T23:59:58Z, and a second to be inserted.
    rig.publish(&Fields {
        time_sec: 1_798_761_598 + 37,
        leap_indicator: LeapIndicator::PrePos as u8,
        ..page(1)
    });
    rig.wait(Duration::from_millis(500));
    let mut last: Option<(u64, u64, u32)> = None;
    let mut steps = 0;
    for _ in 0..8 {
        let reply = rig
            .ask(&[request(), mono_root()].concat())
            .expect("a reply");
        let utc = stamp(&reply, 32);
        let (_, tai, epoch) = mono_fields(&reply[48..]);
        if let Some((last_utc, last_tai, last_epoch)) = last {
            assert_eq!((tai - last_tai + (1 << 30)) >> 32, 0, "half a second");
            // Within an epoch the two scales go alike.
            let alike = tai - last_tai == utc.wrapping_sub(last_utc);
            assert_eq!(alike, epoch == last_epoch);
            steps += u32::from(!alike);
        }
        last = Some((utc, tai, epoch));
        rig.wait(Duration::from_millis(500));
    }
    assert_eq!(steps, 1);
}

#[test]
fn without_tai_there_is_no_second_scale() {
    let mut rig = Rig::new(&Policy::OPEN);
    rig.publish(&Fields {
        time_type: TimeType::Utc as u8,
        flags: flag::TIME_MAXERROR_VALID | flag::PERIOD_MAXERROR_VALID,
        ..page(1)
    });
    let reply = rig
        .ask(&[request(), mono_root()].concat())
        .expect("a reply");
    assert_eq!(mono_fields(&reply[48..]).1, 0);
}

#[test]
fn who_does_not_ask_for_the_field_does_not_get_it() {
    let mut rig = Rig::new(&with_keys(false));
    let mut other_magic = mono_root();
    other_magic[4] ^= 1;
    let mut other_type = mono_root();
    other_type[1] = 0x24;
    let mut longer = mono_root();
    longer[3] = 32;
    longer.extend([0; 4]);
    for tail in [other_magic, other_type, longer] {
        let reply = rig.ask(&[request(), tail].concat()).expect("a reply");
        assert_eq!(reply.len(), 48);
    }
    // Nor does anybody when there is no time.
    rig.publish(&Fields::stock());
    let reply = rig
        .ask(&[request(), mono_root()].concat())
        .expect("a reply");
    assert_eq!((reply.len(), reply[1]), (48, 0));
}

#[test]
fn everything_at_once() {
    let mut rig = Rig::new(&with_keys(true));
    let mut client = Interleaving::default();
    for turn in 0..10 {
        // The field among others, and twice.
        let mut unknown = mono_root();
        unknown[0] = 0;
        let asking = [client.request(), mono_root(), unknown, mono_root()].concat();
        let reply = rig.ask(&sign(&asking, 20)).expect("a reply");
        assert_eq!(reply.len(), 48 + 28 + 20);
        assert_eq!(reply, sign(&reply[..76], 20));
        let expected = if turn < 2 {
            Mode::Basic
        } else {
            Mode::Interleaved
        };
        assert_eq!(client.take(&asking, &reply).0, expected);
        // The second scale is that of this reply's receive stamp, in either mode.
        let (dispersion, receive, _) = mono_fields(&reply[48..76]);
        assert_eq!(receive, stamp(&reply, 32) + (37 << 32));
        assert!(dispersion < 600);
    }
}

#[test]
fn the_fine_dispersion_covers_the_departure_told() {
    let mut rig = Rig::new(&Policy::OPEN);
    let mut client = Interleaving::default();
    let asking = |client: &mut Interleaving| [client.request(), mono_root()].concat();
    for wide in [false, true, false, false] {
        rig.publish(&Fields {
            time_maxerror_nanosec: if wide { 10_000 } else { 500 },
            ..page(1)
        });
        let request = asking(&mut client);
        let reply = rig.ask(&request).expect("a reply");
        client.take(&request, &reply);
        let (dispersion, ..) = mono_fields(&reply[48..]);
        let told = stamp(&reply, 24) == stamp(&request, 32);
        assert_eq!(
            dispersion >= 10_000,
            wide || told && rig.counters().interleaved == 1
        );
    }
    assert_eq!(rig.counters().interleaved, 2);
}
