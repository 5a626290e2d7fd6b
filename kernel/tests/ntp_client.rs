//! The NTP client: what it sends and when, which replies it believes, and what they say.
#![expect(
    clippy::unwrap_used,
    reason = "a test says what it expects by unwrapping it"
)]

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use gnomon_clock::{
    Bound, Bracket, ClockStatus, CrossTimestamp, Estimator, LeapIndicator, Limits, Source,
    SourceTime, Span, Stamp, Ticks, Timestamp, Utc, Wander,
};
use gnomon_kernel::source::ntp::{Client, FLOOR, HEADER, Heard, MAX_DISTANCE, reference_id, utc};
use proptest::prelude::*;

const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 2));
const OURS: [u8; 4] = [10, 0, 2, 15];
const MARKER: u64 = 7;
/// 2026-11-20T12:00:00Z.
const NOON: i64 = 1_795_176_000;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// An NTP stamp of so many 2⁻³² s after noon.
fn stamp(units: u64) -> u64 {
    Timestamp::<Utc>::from_parts(NOON, 0)
        .to_ntp()
        .0
        .wrapping_add(units)
}

const MILLI: u64 = (1 << 32) / 1000;

fn at(ticks: u64) -> Stamp {
    Stamp {
        ticks: Ticks(ticks),
        marker: MARKER,
    }
}

fn field(packet: &[u8], offset: usize) -> u64 {
    u64::from_be_bytes(packet[offset..offset + 8].try_into().unwrap())
}

/// A good reply in basic mode.
fn reply(request: &[u8; HEADER], receive: u64, transmit: u64) -> [u8; HEADER] {
    let mut reply = [0; HEADER];
    reply[..4].copy_from_slice(&[0x24, 2, 6, (-20_i8).cast_unsigned()]);
    reply[4..8].copy_from_slice(&200_u32.to_be_bytes());
    reply[8..12].copy_from_slice(&100_u32.to_be_bytes());
    reply[12..16].copy_from_slice(&[192, 0, 2, 1]);
    reply[16..24].copy_from_slice(&(receive - (9 << 32)).to_be_bytes());
    reply[24..32].copy_from_slice(&request[40..48]);
    reply[32..40].copy_from_slice(&receive.to_be_bytes());
    reply[40..48].copy_from_slice(&transmit.to_be_bytes());
    reply
}

/// What `reply` claims: root delay / 2 + root dispersion, a unit more of each, the precision, a digit.
fn distance() -> u128 {
    (201 << 47) + (101 << 48) + (1 << 44) + (1 << 32)
}

struct Rig {
    client: Client,
    random: u64,
    now: Duration,
    /// When the last request was made.
    asked: Duration,
}

impl Rig {
    fn new() -> Self {
        let mut client = Client::new(SERVER);
        assert!(client.follow(MARKER, Duration::ZERO));
        Self {
            client,
            random: 1,
            now: Duration::ZERO,
            asked: Duration::ZERO,
        }
    }

    fn ask(&mut self) -> Option<[u8; HEADER]> {
        let random = &mut self.random;
        self.client.ask(self.now, || {
            *random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            *random ^ *random >> 31
        })
    }

    /// A request that leaves at once, when it is due.
    fn next_request(&mut self) -> [u8; HEADER] {
        self.now = self.now.max(self.client.next().unwrap());
        let request = self.ask().expect("it is due");
        self.asked = self.now;
        assert!(self.client.is_sending());
        self.client.sent(at(ticks(self.now)));
        assert!(!self.client.is_sending());
        request
    }

    fn hear(&mut self, datagram: &[u8]) -> Heard {
        let arrival = at(ticks(self.now) + 1000);
        self.client.hear(datagram, arrival, |id| id == OURS)
    }

    /// An exchange that goes well. Returns how long after the one before it began.
    fn good(&mut self) -> Duration {
        let before = self.asked;
        let request = self.next_request();
        let reply = reply(&request, stamp(1 << 40), stamp((1 << 40) + MILLI));
        assert!(matches!(self.hear(&reply), Heard::Samples(_)));
        self.asked.saturating_sub(before)
    }

    /// A request that is never answered. The same, and what is told.
    fn lost(&mut self) -> (Duration, Option<&'static str>) {
        let before = self.asked;
        self.next_request();
        self.now = self.client.next().unwrap();
        assert_eq!(self.now, self.asked + secs(2));
        let told = self.client.expire(self.now);
        (self.asked.saturating_sub(before), told)
    }

    /// An exchange with a reply that `change` was made to.
    fn heard(&mut self, change: impl FnOnce(&mut [u8; HEADER])) -> Heard {
        let request = self.next_request();
        let mut reply = reply(&request, stamp(1 << 40), stamp((1 << 40) + MILLI));
        change(&mut reply);
        self.hear(&reply)
    }
}

fn ticks(now: Duration) -> u64 {
    u64::try_from(now.as_nanos()).unwrap()
}

fn only(heard: Heard) -> CrossTimestamp {
    match heard {
        Heard::Samples(samples) => {
            assert_eq!(samples.better, None);
            samples.new.unwrap()
        }
        other => panic!("{other:?}"),
    }
}

fn kiss(code: [u8; 4], poll: u8) -> impl FnOnce(&mut [u8; HEADER]) {
    move |reply| {
        reply[..3].copy_from_slice(&[0xe4, 0, poll]);
        reply[12..16].copy_from_slice(&code);
    }
}

#[test]
fn a_request_says_nothing_but_a_random_number() {
    let mut rig = Rig::new();
    let first = rig.next_request();
    assert_eq!(first[..4], [0x23, 0, 4, (-20_i8).cast_unsigned()]);
    assert_eq!(first[4..40], [0; 36]);
    assert_ne!(field(&first, 40), 0);
    rig.now = rig.client.next().unwrap();
    rig.client.expire(rig.now);
    let second = rig.next_request();
    assert_ne!(field(&first, 40), field(&second, 40));
}

#[test]
fn an_answer_is_a_sample_of_the_middle_of_the_servers_stamps() {
    let mut rig = Rig::new();
    let request = rig.next_request();
    let (receive, transmit) = (stamp(5 << 32), stamp((5 << 32) + 2000));
    let sample = only(rig.hear(&reply(&request, receive, transmit)));
    let middle = Timestamp::from_parts(NOON + 5, 1000 << 32);
    let expected = CrossTimestamp {
        bracket: Bracket {
            before: Ticks(0),
            after: Ticks(1000),
            marker: MARKER,
        },
        time: SourceTime::Utc(middle),
        error: Bound::from_units(distance() - (1000 << 32)),
        tai_offset: None,
        leap: Some(LeapIndicator::None),
        status: ClockStatus::Synchronized,
    };
    assert_eq!(sample, expected);
    let upstream = rig.client.upstream().unwrap();
    assert_eq!(
        (upstream.stratum, upstream.reference_id),
        (2, [10, 0, 2, 2])
    );
}

#[test]
fn the_servers_own_time_is_never_more_than_its_error() {
    let mut rig = Rig::new();
    let request = rig.next_request();
    let sample = only(rig.hear(&reply(&request, stamp(0), stamp(3 << 32))));
    assert_eq!(sample.error, Bound::ZERO);
    assert_eq!(
        sample.time,
        SourceTime::Utc(Timestamp::from_parts(NOON + 1, 1 << 63))
    );
}

#[test]
fn leap_seconds_are_announced_as_the_server_does() {
    for (bits, leap) in [
        (0, LeapIndicator::None),
        (1, LeapIndicator::PrePos),
        (2, LeapIndicator::PreNeg),
    ] {
        let heard = Rig::new().heard(|reply| reply[0] = bits << 6 | 0x24);
        assert_eq!(only(heard).leap, Some(leap));
    }
}

#[test]
fn a_service_that_smears_is_not_taken_for_utc() {
    for id in [b"XSMR", b"XSLS", b"GOOG"] {
        let sample = only(Rig::new().heard(|reply| reply[12..16].copy_from_slice(id)));
        assert!(matches!(sample.time, SourceTime::PerhapsSmeared(_)));
    }
}

#[test]
fn what_is_no_answer_to_this_request_is_ignored_and_the_true_one_taken() {
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, Change); 12] = [
        ("too short", |reply| reply.truncate(47)),
        ("empty", Vec::clear),
        ("a tail", |reply| reply.extend([0; 4])),
        ("mode 3", |reply| reply[0] = 0x23),
        ("mode 5", |reply| reply[0] = 0x25),
        ("mode 2", |reply| reply[0] = 0x22),
        ("version 2", |reply| reply[0] = 0x14),
        ("version 5", |reply| reply[0] = 0x2c),
        ("no origin", |reply| reply[24..32].fill(0)),
        ("another origin", |reply| reply[31] ^= 1),
        ("a kiss for nobody", |reply| {
            reply[1] = 0;
            reply[12..16].copy_from_slice(b"DENY");
            reply[24..32].fill(0);
        }),
        ("the servers stamp for the origin", |reply| {
            reply.copy_within(32..40, 24);
        }),
    ];
    for (what, change) in changes {
        let mut rig = Rig::new();
        let request = rig.next_request();
        let good = reply(&request, stamp(0), stamp(1));
        let mut bad = good.to_vec();
        change(&mut bad);
        assert_eq!(rig.hear(&bad), Heard::Nothing, "{what}");
        assert!(!rig.client.is_denied(), "{what}");
        only(rig.hear(&good));
    }
}

#[test]
fn an_answer_counts_once_and_in_its_time() {
    let mut rig = Rig::new();
    let first = rig.next_request();
    let answer = reply(&first, stamp(0), stamp(1));
    only(rig.hear(&answer));
    assert_eq!(rig.hear(&answer), Heard::Nothing, "a copy");

    let second = rig.next_request();
    assert_eq!(rig.hear(&answer), Heard::Nothing, "a replay");
    rig.now = rig.client.next().unwrap();
    rig.client.expire(rig.now);
    let late = reply(&second, stamp(0), stamp(1));
    assert_eq!(rig.hear(&late), Heard::Nothing, "late");
    rig.next_request();
    assert_eq!(rig.hear(&late), Heard::Nothing, "of the request before");
}

#[test]
fn nothing_answers_a_request_that_has_not_left() {
    let mut rig = Rig::new();
    let request = rig.ask().unwrap();
    let answer = reply(&request, stamp(0), stamp(1));
    assert_eq!(rig.hear(&answer), Heard::Nothing);
    rig.client.sent(at(5));
    assert_eq!(only(rig.hear(&answer)).bracket.before, Ticks(5));
}

#[test]
fn a_server_without_a_time_to_be_used_is_refused() {
    type Change = fn(&mut [u8; HEADER]);
    let changes: [(&str, Change); 15] = [
        ("not synchronized", |reply| reply[0] = 0xe4),
        ("above 14", |reply| reply[1] = 15),
        ("above 14", |reply| reply[1] = 16),
        ("above 14", |reply| reply[1] = 255),
        ("follows this machine", |reply| {
            reply[12..16].copy_from_slice(&OURS);
        }),
        ("root distance", |reply| reply[8..10].fill(0xff)),
        ("root distance", |reply| reply[4..6].fill(0xff)),
        ("root distance", |reply| {
            reply[8..12].copy_from_slice(&(3_u32 << 15).to_be_bytes());
        }),
        ("root distance", |reply| reply[3] = 1),
        ("root distance", |reply| reply[3] = 127),
        ("zero", |reply| reply[32..40].fill(0)),
        ("zero", |reply| reply[40..48].fill(0)),
        ("not in order", |reply| {
            let earlier = field(reply, 32) - 1;
            reply[40..48].copy_from_slice(&earlier.to_be_bytes());
        }),
        ("not in order", |reply| {
            let late = field(reply, 32) + (4 << 32);
            reply[40..48].copy_from_slice(&late.to_be_bytes());
        }),
        ("in the future", |reply| {
            let late = field(reply, 40) + 1;
            reply[16..24].copy_from_slice(&late.to_be_bytes());
        }),
    ];
    for (why, change) in changes {
        let mut rig = Rig::new();
        match rig.heard(change) {
            Heard::Refused(reason) => assert!(reason.contains(why), "{reason}, not {why}"),
            other => panic!("{why}: {other:?}"),
        }
        assert_eq!(rig.client.upstream(), None);
        assert_eq!(rig.good(), secs(2), "the burst goes on");
    }
}

#[test]
fn what_is_odd_and_harmless_is_taken() {
    type Change = fn(&mut [u8; HEADER]);
    let changes: [(&str, Change); 5] = [
        ("no reference time", |reply| reply[16..24].fill(0)),
        ("version 3", |reply| reply[0] = 0x1c),
        ("our address as the name of a stratum 1", |reply| {
            reply[1] = 1;
            reply[12..16].copy_from_slice(&OURS);
        }),
        ("a precision of 1 s", |reply| reply[3] = 0),
        ("a precision of nothing", |reply| reply[3] = 0x80),
    ];
    for (what, change) in changes {
        let heard = Rig::new().heard(change);
        assert!(matches!(heard, Heard::Samples(_)), "{what}: {heard:?}");
    }
}

#[test]
fn the_servers_stamps_are_found_in_their_era() {
    let last = |seconds: i64, fraction| Timestamp::<Utc>::from_parts(seconds, fraction);
    assert_eq!(utc(last(FLOOR, 0).to_ntp().0), last(FLOOR, 0));
    // The end of era 0.
    assert_eq!(utc(u64::MAX), last(2_085_978_495, 0xffff_ffff_0000_0000));
    assert_eq!(utc(0), last(2_085_978_496, 0));
    // One more is 2026 again.
    let end = last(FLOOR + (1 << 32) - 1, 0xffff_ffff_0000_0000);
    assert_eq!(utc(end.to_ntp().0), end);
    assert_eq!(utc(end.to_ntp().0 + 1), last(FLOOR, 0));
}

#[test]
fn a_sample_may_lie_across_an_era() {
    let mut rig = Rig::new();
    let request = rig.next_request();
    let mut reply = reply(&request, u64::MAX, 1);
    reply[16..24].copy_from_slice(&(u64::MAX - 5).to_be_bytes());
    let sample = only(rig.hear(&reply));
    assert_eq!(
        sample.time,
        SourceTime::Utc(Timestamp::from_parts(2_085_978_496, 0))
    );
}

/// The interleaved reply to `request`: it came at `receive`, and the reply before left at `left`.
fn interleaved(request: &[u8; HEADER], receive: u64, left: u64) -> [u8; HEADER] {
    let mut packet = reply(request, receive, left);
    packet[24..32].copy_from_slice(&request[32..40]);
    packet
}

#[test]
fn an_interleaved_answer_betters_the_exchange_before() {
    let mut rig = Rig::new();
    let first = rig.next_request();
    only(rig.hear(&reply(&first, stamp(0), stamp(10))));
    let second = rig.next_request();
    assert_eq!(field(&second, 24), stamp(0), "names the reply before");
    let cookies = (field(&second, 32), field(&second, 40));
    assert!(cookies.0 != 0 && cookies.1 != 0 && cookies.0 != cookies.1);

    let answer = interleaved(&second, stamp(2 << 32), stamp(4000));
    let Heard::Samples(samples) = rig.hear(&answer) else {
        panic!("refused")
    };
    let better = samples.better.unwrap();
    assert_eq!(
        (better.bracket.before, better.bracket.after),
        (Ticks(0), Ticks(1000))
    );
    assert_eq!(
        (better.time, better.error),
        (
            SourceTime::Utc(Timestamp::from_parts(NOON, 2000 << 32)),
            Bound::from_units(distance() - (2000 << 32))
        )
    );
    let new = samples.new.unwrap();
    assert_eq!(new.bracket.after, Ticks(2_000_001_000));
    assert_eq!(
        (new.time, new.error),
        (
            SourceTime::Utc(Timestamp::from_parts(NOON + 2, 0)),
            Bound::from_units(distance())
        )
    );
    // And so on; a server that has forgotten answers in basic mode.
    let third = rig.next_request();
    assert_eq!(field(&third, 24), stamp(2 << 32));
    only(rig.hear(&reply(&third, stamp(4 << 32), stamp((4 << 32) + 1))));
}

#[test]
fn an_interleaved_answer_out_of_order_is_refused() {
    // When the one before is said to have left: before it came, too late, after the next one.
    for left in [stamp(0) - 1, stamp(4 << 32), stamp((2 << 32) + 1)] {
        let mut rig = Rig::new();
        let first = rig.next_request();
        only(rig.hear(&reply(&first, stamp(0), stamp(10))));
        let second = rig.next_request();
        let mut answer = interleaved(&second, stamp(2 << 32), left);
        answer[16..24].fill(0);
        assert!(matches!(rig.hear(&answer), Heard::Refused(_)));
        assert_eq!(field(&rig.next_request(), 24), 0, "basic again");
    }
}

#[test]
fn after_a_loss_nothing_is_paired() {
    let mut rig = Rig::new();
    let first = rig.next_request();
    only(rig.hear(&reply(&first, stamp(0), stamp(10))));
    let lost = rig.next_request();
    rig.now = rig.client.next().unwrap();
    rig.client.expire(rig.now);
    let next = rig.next_request();
    assert_eq!(next[24..40], [0; 16], "basic mode");
    // The lost one's answer after all, and one that would be interleaved if it had been asked for.
    assert_eq!(
        rig.hear(&interleaved(&lost, stamp(2 << 32), stamp(20))),
        Heard::Nothing
    );
    assert_eq!(
        rig.hear(&interleaved(&next, stamp(4 << 32), stamp(20))),
        Heard::Nothing
    );
    only(rig.hear(&reply(&next, stamp(4 << 32), stamp((4 << 32) + 1))));
}

#[test]
fn after_a_refusal_nothing_is_paired() {
    let mut rig = Rig::new();
    rig.good();
    assert!(matches!(
        rig.heard(|reply| reply[0] |= 0xc0),
        Heard::Refused(_)
    ));
    assert_eq!(rig.next_request()[24..40], [0; 16]);
}

#[test]
fn a_disruption_ends_what_was_under_way() {
    let mut rig = Rig::new();
    rig.good();
    let request = rig.next_request();
    let answer = reply(&request, stamp(0), stamp(1));
    // Not looked at yet: the arrival has the other marker.
    let arrival = Stamp {
        ticks: Ticks(1 << 40),
        marker: MARKER + 1,
    };
    assert_eq!(rig.client.hear(&answer, arrival, |_| false), Heard::Nothing);
    assert!(rig.client.follow(MARKER + 1, rig.now));
    assert!(!rig.client.follow(MARKER + 1, rig.now));
    assert_eq!(rig.client.hear(&answer, arrival, |_| false), Heard::Nothing);
    // At once, but for the least time between requests, and in basic mode.
    assert_eq!(rig.client.next(), Some(rig.now + secs(2)));
    assert_eq!(rig.next_request()[24..40], [0; 16]);
}

#[test]
fn however_often_it_is_disrupted_it_does_not_ask_more_often() {
    let mut rig = Rig::new();
    let mut requests = 0;
    for round in 0..600_u64 {
        rig.client.follow(100 + round, rig.now);
        requests += u64::from(rig.ask().is_some());
        rig.now += Duration::from_millis(100);
    }
    assert_eq!(requests, 30, "in a minute");
}

#[test]
fn four_at_once_and_then_half_as_often_while_it_is_steady() {
    let mut rig = Rig::new();
    let gaps: Vec<u64> = (0..60).map(|_| rig.good().as_secs()).collect();
    assert_eq!(gaps[..4], [0, 2, 2, 2]);
    // An error of 3 ms is worth no more than a minute.
    let longest = *gaps.iter().max().unwrap();
    assert!((64..=68).contains(&longest), "{gaps:?}");
    assert!(gaps[4..10].iter().all(|gap| (16..=17).contains(gap)));
    assert_eq!(rig.client.poll(), 6);
}

#[test]
fn a_server_that_knows_less_is_asked_less() {
    let mut rig = Rig::new();
    let mut longest = Duration::ZERO;
    for _ in 0..100 {
        let before = rig.asked;
        let heard = rig.heard(|reply| reply[8..12].copy_from_slice(&20_000_u32.to_be_bytes()));
        assert!(matches!(heard, Heard::Samples(_)));
        longest = longest.max(rig.asked.saturating_sub(before));
    }
    assert!((1024..=1088).contains(&longest.as_secs()), "{longest:?}");
    // And more again when it knows more.
    rig.good();
    assert_eq!(rig.client.poll(), 6);
}

#[test]
fn silence_is_told_and_asked_into_ever_more_seldom() {
    let mut rig = Rig::new();
    let lost: Vec<_> = (0..20).map(|_| rig.lost()).collect();
    let gaps: Vec<u64> = lost.iter().map(|(gap, _)| gap.as_secs()).collect();
    assert_eq!(gaps[..5], [0, 2, 2, 2, 2]);
    assert!(gaps.windows(2).skip(1).all(|pair| pair[0] <= pair[1] + 16));
    assert!((256..=272).contains(&gaps[19]), "{gaps:?}");
    let told: Vec<bool> = lost.iter().map(|(_, told)| told.is_some()).collect();
    assert_eq!(told[..5], [false, false, false, true, true]);
    // It is there again.
    rig.good();
    assert_eq!([rig.good(), rig.good(), rig.good()], [secs(2); 3]);
    assert!(rig.good() >= secs(16));
}

#[test]
fn a_single_loss_is_made_good_at_once() {
    let mut rig = Rig::new();
    for _ in 0..6 {
        rig.good();
    }
    let (gap, told) = rig.lost();
    assert!(gap >= secs(16) && told.is_none());
    assert_eq!(rig.good(), secs(2));
    assert!(rig.good() >= secs(16));
}

#[test]
fn rate_is_obeyed_for_good() {
    let mut rig = Rig::new();
    rig.good();
    let heard = rig.heard(kiss(*b"RATE", 4));
    assert!(matches!(heard, Heard::Refused(why) if why.contains("RATE")));
    assert_eq!(rig.client.poll(), 5);
    assert!(rig.good() >= secs(32), "the burst is over");
    // What the kiss says, if it is more.
    assert!(matches!(rig.heard(kiss(*b"RATE", 9)), Heard::Refused(_)));
    assert!(rig.good() >= secs(512));
    let (_, _) = rig.lost();
    assert!(rig.lost().0 >= secs(512), "no sooner without an answer");
    // Not even a disruption makes it forget.
    rig.client.follow(MARKER + 1, rig.now);
    rig.now = rig.client.next().unwrap();
    assert!(rig.ask().is_some());
    rig.now += secs(2);
    rig.client.expire(rig.now);
    assert!(rig.client.next().unwrap() >= rig.now + secs(500));
    // Nor is there an end of it by a number that is none.
    let mut rig = Rig::new();
    assert!(matches!(rig.heard(kiss(*b"RATE", 255)), Heard::Refused(_)));
    assert_eq!(rig.client.poll(), 17);
}

#[test]
fn deny_ends_it() {
    for code in [*b"DENY", *b"RSTR"] {
        let mut rig = Rig::new();
        rig.good();
        let heard = rig.heard(kiss(code, 4));
        assert!(matches!(heard, Heard::Refused(why) if why.contains("DENY")));
        assert!(rig.client.is_denied());
        assert_eq!(rig.client.next(), None);
        rig.client.follow(MARKER + 1, rig.now);
        rig.now += secs(100_000);
        assert_eq!(rig.ask(), None);
        assert_eq!(rig.client.next(), None);
    }
}

#[test]
fn other_kisses_change_nothing() {
    for code in [*b"INIT", *b"STEP", *b"XHLD", *b"ZZZZ", [0; 4], [0xff; 4]] {
        let mut rig = Rig::new();
        rig.good();
        assert!(matches!(rig.heard(kiss(code, 17)), Heard::Refused(_)));
        assert_eq!(rig.good(), secs(2));
        assert_eq!(rig.client.poll(), 4);
    }
}

#[test]
fn the_reference_id_is_an_address_or_cannot_be_one() {
    assert_eq!(reference_id(SERVER), [10, 0, 2, 2]);
    let six = |text: &str| reference_id(IpAddr::V6(text.parse::<Ipv6Addr>().unwrap()));
    assert_eq!(six("::1"), [255, 1, 0, 0]);
    assert_ne!(six("2001:db8::1"), six("2001:db8::2"));
}

/// What an honest server is off at most, in 2⁻³² s: half of what `reply` has for the root delay, and the root
/// dispersion.
const ERROR: i64 = (200 << 15) + (100 << 16);

/// A delay in 2⁻³² s, with a liking for none.
fn delay() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 0..1_000_000_u64, 0..1_000_000_000_u64]
}

proptest! {
    /// Whatever a stranger sends: nothing is heard, and the true answer still is.
    #[test]
    fn what_has_not_seen_the_request_is_never_heard(
        datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..=80), 0..20),
    ) {
        let mut rig = Rig::new();
        let request = rig.next_request();
        for datagram in &datagrams {
            prop_assert_eq!(rig.hear(datagram), Heard::Nothing);
        }
        only(rig.hear(&reply(&request, stamp(0), stamp(1))));
    }

    /// Whatever a server sends: no panic, requests in a sane rhythm, and no sample but a narrow one.
    #[test]
    fn any_server_is_survived(
        packets in prop::collection::vec((any::<[u8; HEADER]>(), 0..8_u8), 1..40),
    ) {
        let mut rig = Rig::new();
        let mut last = None;
        for (packet, kind) in packets {
            let Some(next) = rig.client.next() else { break };
            rig.now = rig.now.max(next);
            if rig.client.expire(rig.now).is_some() {
                continue;
            }
            let Some(request) = rig.ask() else { continue };
            prop_assert!(last.is_none_or(|last| rig.now >= last + secs(2)));
            last = Some(rig.now);
            rig.client.sent(at(ticks(rig.now)));
            let mut packet = packet;
            match kind {
                0 => continue,
                1 => packet[24..32].copy_from_slice(&request[32..40]),
                _ => packet[24..32].copy_from_slice(&request[40..48]),
            }
            if kind > 2 {
                packet[0] = packet[0] & 0xc0 | 0x24;
            }
            if kind > 3 {
                // Small numbers, where all is decided.
                packet[0] &= 0x7f;
                packet[1] &= 15;
                packet[4..6].fill(0);
                packet[8..10].fill(0);
                packet[3] |= 0x80;
                packet[16..24].fill(0);
                packet.copy_within(32..36, 40);
            }
            if let Heard::Samples(samples) = rig.hear(&packet) {
                for sample in [samples.better, samples.new].into_iter().flatten() {
                    prop_assert!(sample.error < MAX_DISTANCE);
                    prop_assert_eq!(sample.bracket.marker, MARKER);
                    let SourceTime::Utc(time) = sample.time else { continue };
                    prop_assert!(time.seconds() >= FLOOR);
                }
            }
        }
    }

    /// An honest server over an honest path, in either mode: truth is inside of each sample, however the
    /// delays lie and whatever the server's error.
    #[test]
    fn the_truth_is_inside(
        exchanges in prop::collection::vec((delay(), delay(), delay(), delay(), any::<bool>()), 1..20),
        off in prop_oneof![Just(-ERROR), Just(ERROR), -ERROR..=ERROR],
    ) {
        // The counter and true time in 2^-32 s from noon; the server is off by less than it says.
        let mut rig = Rig::new();
        let mut left = None;
        let mut received = 0;
        let mut counter = 1 << 32;
        for (out, handling, sending, back, wants) in exchanges {
            rig.now = rig.client.next().unwrap();
            let request = rig.ask().unwrap();
            counter += 4 << 32;
            let before = counter;
            rig.client.sent(at(before));
            let server = |instant: u64| stamp(instant.wrapping_add_signed(off));
            let receive = before + out;
            let transmit = receive + handling;
            let departure = transmit + sending;
            counter = departure + back;
            let is_known = left.is_some() && field(&request, 24) == server(received);
            let mut packet = reply(&request, server(receive), server(transmit));
            if let (Some(left), true, true) = (left, is_known, wants) {
                packet = interleaved(&request, server(receive), server(left));
            }
            (left, received) = (Some(departure), receive);
            let heard = rig.client.hear(&packet, at(counter), |_| false);
            let Heard::Samples(samples) = heard else {
                return Err(TestCaseError::fail(format!("{heard:?}")));
            };
            for sample in [samples.better, samples.new].into_iter().flatten() {
                let SourceTime::Utc(time) = sample.time else { unreachable!() };
                let truth = |ticks: Ticks| utc(stamp(ticks.0));
                let error = Span::from_units(sample.error.units().cast_signed());
                prop_assert!(truth(sample.bracket.before) <= time.checked_add(error).unwrap());
                prop_assert!(truth(sample.bracket.after) >= time.checked_sub(error).unwrap());
            }
        }
    }

    /// The same for the line through the samples, over hours: with answers that are lost, a counter that wanders
    /// by all that is allowed, and at the instant before the next request, too.
    #[test]
    fn the_truth_is_on_the_line(
        exchanges in prop::collection::vec(
            ((delay(), delay(), delay(), delay()), any::<bool>(), prop::bool::weighted(0.2), -WANDER..=WANDER),
            2..60,
        ),
        off in prop_oneof![Just(-ERROR), Just(ERROR), -ERROR..=ERROR],
    ) {
        let mut rig = Rig::new();
        let mut machine = Wandering::default();
        let mut estimator = Estimator::new(Source::Ntp, Wander::CRYSTAL, Limits::DEFAULT);
        let server = |truth: u64| stamp(truth.wrapping_add_signed(off));
        let mut known: Option<(u64, u64)> = None;
        let (mut lines, mut good) = (0, 0);
        for ((out, handling, sending, back), wants, is_lost, rate) in exchanges {
            machine.rate = rate;
            let next = rig.client.next().unwrap();
            machine.pass(units(next.saturating_sub(rig.now)));
            rig.now = next;
            lines += u32::from(machine.check(&estimator)?);
            let request = rig.ask().unwrap();
            rig.client.sent(machine.stamp());
            machine.pass(out);
            let receive = machine.truth;
            machine.pass(handling);
            let transmit = machine.truth;
            machine.pass(sending);
            let packet = match known {
                Some((received, left)) if wants && field(&request, 24) == server(received) => {
                    interleaved(&request, server(receive), server(left))
                }
                _ => reply(&request, server(receive), server(transmit)),
            };
            known = Some((receive, machine.truth));
            machine.pass(back);
            if is_lost {
                rig.now = rig.client.next().unwrap();
                machine.pass(units(secs(2)));
                rig.client.expire(rig.now);
                continue;
            }
            let heard = rig.client.hear(&packet, machine.stamp(), |_| false);
            let Heard::Samples(samples) = heard else {
                return Err(TestCaseError::fail(format!("{heard:?}")));
            };
            if let (Some(better), Ok(_)) = (samples.better, estimator.timeline()) {
                prop_assert_eq!(estimator.add(&better), Ok(()));
            }
            prop_assert_eq!(estimator.add(&samples.new.unwrap()), Ok(()));
            good += 1;
            machine.check(&estimator)?;
        }
        // A few with long delays, 2 s apart, leave the period open.
        prop_assert!(lines > 0 || good < 16);
    }
}

/// The greatest difference of the counter's rate from the mean, in 10⁻⁶ of it; half of it is room for that
/// mean, which is not that of the numbers drawn.
const WANDER: i64 = 24;

/// A machine whose counter runs at about 2³² Hz.
#[derive(Default)]
struct Wandering {
    /// True time in 2⁻³² s from noon.
    truth: u64,
    counter: u64,
    rate: i64,
}

impl Wandering {
    fn pass(&mut self, span: u64) {
        let drift = i128::from(span) * i128::from(self.rate) / 1_000_000;
        self.truth += span;
        self.counter = self
            .counter
            .wrapping_add(span)
            .wrapping_add_signed(i64::try_from(drift).unwrap());
    }

    fn stamp(&self) -> Stamp {
        at(self.counter)
    }

    /// Checks what the line says of now; whether there is one.
    fn check(&self, estimator: &Estimator) -> Result<bool, TestCaseError> {
        let Ok(line) = estimator.timeline() else {
            return Ok(false);
        };
        let reading = line.at(Ticks(self.counter)).unwrap();
        let off = reading
            .utc
            .unwrap()
            .time
            .since(utc(stamp(self.truth)))
            .unwrap();
        prop_assert!(
            reading.bound.contains(off),
            "{off:?} of {:?}",
            reading.bound
        );
        Ok(true)
    }
}

/// A duration in 2⁻³² s.
fn units(span: Duration) -> u64 {
    u64::try_from((span.as_nanos() << 32) / 1_000_000_000).unwrap()
}
