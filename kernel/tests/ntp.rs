//! The NTP server's whole decision table, and what must hold for every datagram.

use gnomon_clock::page::flag;
use gnomon_clock::{
    Announcement, Bound, Busy, ClockStatus, CounterId, Exchange, Fields, LeapIndicator, NoTime,
    Period, Span, Ticks, TimeType, Timeline, Timestamp, Unusable, Utc,
};
use gnomon_kernel::duty::Withheld;
use gnomon_kernel::serve::ntp::{Answer, Counters, Reply, Request, Server, Silence, reply};
use gnomon_kernel::serve::responder::{Datagram, Memory, Policy, Responder};
use gnomon_kernel::serve::times::Told;
use proptest::prelude::*;

/// 2026-11-20T12:05:31Z.
const NOON: u64 = 1_795_176_331;
const HERTZ: u64 = 1_000_000_000;
/// The counter at the page's reference instant; later counters may be below it after a wrap.
const C1: u64 = 5_000_000_000;
const SERVER: Server = Server::new(1, 30);

/// A page of a host that is synchronised to 40 µs, in TAI, last updated at `utc`.
fn page(utc: u64) -> Fields {
    let period = Period::from_hertz(HERTZ).expect("a counter");
    Fields {
        counter_id: CounterId::X86Tsc as u8,
        time_type: TimeType::Tai as u8,
        clock_status: ClockStatus::Synchronized as u8,
        flags: flag::TAI_OFFSET_VALID | flag::TIME_MAXERROR_VALID | flag::PERIOD_MAXERROR_VALID,
        tai_offset_sec: -37,
        counter_value: C1,
        counter_period_frac_sec: period.frac(),
        counter_period_shift: period.shift(),
        time_sec: utc + 37,
        time_maxerror_nanosec: 40_000,
        ..Fields::stock()
    }
}

/// An exchange `received` and `transmit` nanoseconds after the page's reference.
fn exchange(page: &Fields, received: i64, transmit: i64) -> Exchange {
    let timeline = Timeline::from_page(page, CounterId::X86Tsc).expect("a good page");
    let at = |nanos: i64| {
        timeline
            .at(Ticks(C1.wrapping_add_signed(nanos)))
            .expect("in range")
    };
    Exchange {
        received: at(received),
        transmit: at(transmit),
    }
}

fn ordinary() -> Exchange {
    exchange(&page(NOON), 500_000_000, 500_012_345)
}

/// A client's request: the transmit stamp is a cookie.
fn request(first_byte: u8, tail: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 48];
    bytes[0] = first_byte;
    bytes[2] = 6;
    bytes[24..40].fill(0xee);
    bytes[40..48].copy_from_slice(b"a cookie");
    bytes.extend(tail);
    bytes
}

fn answer_with(times: Result<&Exchange, &NoTime>) -> Result<Reply, Silence> {
    let request = Request::parse(&request(0x23, &[]), 40_000).expect("a request");
    reply(&SERVER, &request, times, 0)
}

/// The packet for a client that asks now, for tests about its fields.
fn packet(exchange: &Exchange) -> [u8; 48] {
    answer_with(Ok(exchange)).expect("an answer").packet
}

/// Serves one datagram as the whole server does, and says what was counted.
fn serve(
    payload: &[u8],
    port: u16,
    times: impl FnOnce() -> Told,
    random: u64,
) -> (Option<Reply>, Counters) {
    let mut memory = Box::new(Memory::new());
    let mut responder = Responder::new(SERVER, &Policy::OPEN, &mut memory, || random);
    let datagram = Datagram {
        source: "192.0.2.1".parse().expect("an address"),
        port,
        payload,
    };
    let served = responder.serve(&datagram, None, times, random);
    (
        served.ok().map(|served| served.reply.clone()),
        responder.counters(),
    )
}

fn u64_at(packet: &[u8; 48], at: usize) -> u64 {
    u64::from_be_bytes(packet[at..at + 8].try_into().expect("eight bytes"))
}

fn u32_at(packet: &[u8; 48], at: usize) -> u32 {
    u32::from_be_bytes(packet[at..at + 4].try_into().expect("four bytes"))
}

fn ntp(seconds: u64, fraction: u32) -> u64 {
    (seconds + 2_208_988_800) << 32 | u64::from(fraction)
}

#[test]
fn a_golden_reply() {
    let (served, counters) = serve(
        &request(0x23, &[]),
        40_000,
        || Ok(ordinary()).into(),
        u64::MAX,
    );
    #[rustfmt::skip]
    let golden = [
        0x24, 1, 6, 0xe8, // LI 0, version 4, mode 4; stratum 1; poll 6; precision 2^-24 s
        0, 0, 0, 0, // root delay
        0, 0, 0, 3, // root dispersion: 40 µs + 60 ns is more than 2/65536 s and less than 3
        b'X', b'V', b'M', b'C',
        0xee, 0xaa, 0xb6, 0x0b, 0, 0, 0, 0, // reference: 1795176331 + 2208988800 s
        b'a', b' ', b'c', b'o', b'o', b'k', b'i', b'e',
        0xee, 0xaa, 0xb6, 0x0b, 0x7f, 0xff, 0xff, 0xff, // receive: half a second later, truncated; odd
        0xee, 0xaa, 0xb6, 0x0b, 0x80, 0x00, 0xcf, 0xfe, // transmit: 12.345 µs later, low bits set; even
    ];
    assert_eq!(served.map(|reply| reply.packet), Some(golden));
    assert_eq!(
        counters,
        Counters {
            time: 1,
            ..Counters::default()
        }
    );
}

/// An extension field: type, stated length, and as many bytes in fact.
fn field(stated: u16, real: usize) -> Vec<u8> {
    let mut bytes = vec![0x5a; real];
    bytes[..2].copy_from_slice(&0x0204_u16.to_be_bytes());
    bytes[2..4].copy_from_slice(&stated.to_be_bytes());
    bytes
}

/// Whether a datagram is a request without a message authentication code.
fn plain(datagram: &[u8]) -> Result<(), Silence> {
    match Request::parse(datagram, 40_000)?.mac() {
        None => Ok(()),
        Some(field) => {
            assert_eq!(field.covered, datagram.len() - 20);
            Err(Silence::Mac)
        }
    }
}

#[test]
fn every_kind_of_tail() {
    use Silence::{Extension, Length, Mac};
    let mac = |length: usize| vec![1; length];
    let table: &[(&str, Vec<u8>, Result<(), Silence>)] = &[
        ("nothing", vec![], Ok(())),
        ("one field", field(28, 28), Ok(())),
        ("a long field", field(1024, 1024), Ok(())),
        (
            "two fields",
            [field(16, 16), field(32, 32)].concat(),
            Ok(()),
        ),
        (
            "two fields, zero types",
            [field(28, 28), vec![0, 0, 0, 28], vec![0; 24]].concat(),
            Ok(()),
        ),
        ("last field of 16", field(16, 16), Err(Extension)),
        ("last field of 20 is a MAC", field(20, 20), Err(Mac)),
        ("last field of 24 is a MAC", field(24, 24), Err(Mac)),
        (
            "two fields, the last of 16",
            [field(28, 28), field(16, 16)].concat(),
            Err(Extension),
        ),
        ("crypto-NAK", mac(4), Err(Mac)),
        ("CMAC or MD5", mac(20), Err(Mac)),
        ("SHA-1", mac(24), Err(Mac)),
        ("field and MAC", [field(16, 16), mac(20)].concat(), Err(Mac)),
        (
            "field and crypto-NAK",
            [field(28, 28), mac(4)].concat(),
            Err(Mac),
        ),
        (
            "field and 8 bytes",
            [field(28, 28), mac(8)].concat(),
            Err(Extension),
        ),
        ("8 bytes", mac(8), Err(Extension)),
        ("12 bytes", mac(12), Err(Extension)),
        ("stated length 0", field(0, 28), Err(Extension)),
        ("stated length 4", field(4, 28), Err(Extension)),
        ("stated length 12", field(12, 28), Err(Extension)),
        ("stated length odd", field(29, 32), Err(Extension)),
        (
            "stated length not a multiple of 4",
            field(30, 32),
            Err(Extension),
        ),
        ("stated length past the end", field(32, 28), Err(Extension)),
        (
            "stated length far past the end",
            field(0xfffc, 28),
            Err(Extension),
        ),
        ("stated length 0xffff", field(0xffff, 28), Err(Extension)),
        ("not a multiple of 4", mac(21), Err(Length)),
    ];
    for (name, tail, expected) in table {
        assert_eq!(plain(&request(0x23, tail)), *expected, "{name}");
        if let Ok(request) = Request::parse(&request(0x23, tail), 40_000) {
            let plain = reply(&SERVER, &request, Ok(&ordinary()), 7);
            assert_eq!(plain.expect("an answer").packet.len(), 48, "{name}");
        }
    }
    for length in [12, 16, 20, 24, 28, 68] {
        for version in 1..=3 {
            let outcome = plain(&request(version << 3 | 3, &mac(length)));
            assert_eq!(outcome, Err(Mac), "version {version}, {length} bytes");
        }
    }
}

#[test]
fn without_time_the_reply_says_so_and_carries_none() {
    let unusable = |stepped| NoTime::Unusable {
        why: Unusable::NoCounter,
        stepped,
    };
    let table = [
        (NoTime::NoPage, b"INIT", Answer::Init),
        (NoTime::Busy(Busy { odd: true }), b"INIT", Answer::Init),
        (NoTime::Busy(Busy { odd: false }), b"INIT", Answer::Init),
        (unusable(false), b"INIT", Answer::Init),
        (unusable(true), b"STEP", Answer::Step),
    ];
    for (no_time, code, answer) in table {
        let reply = answer_with(Err(&no_time)).expect("an answer");
        assert_eq!(reply.answer, answer);
        assert_no_time(&reply.packet, *code);
    }
    assert_eq!(answer_with(Err(&NoTime::StaleStamp)), Err(Silence::Stale));
}

/// Leap indicator 3, stratum 0, a kiss code, the cookie, and no stamp at all.
fn assert_no_time(packet: &[u8; 48], code: [u8; 4]) {
    assert_eq!(packet[..4], [0xe4, 0, 6, 0xe8]);
    assert_eq!(packet[4..8], [0; 4]);
    assert_eq!(u32_at(packet, 8), 16 << 16);
    assert_eq!(packet[12..16], code);
    assert_eq!(packet[16..24], [0; 8]);
    assert_eq!(&packet[24..32], b"a cookie");
    assert_eq!(packet[32..], [0; 16]);
}

#[test]
fn tai_alone_is_not_enough() {
    let mut page = page(NOON);
    page.flags &= !flag::TAI_OFFSET_VALID;
    let reply = answer_with(Ok(&exchange(&page, 0, 1000))).expect("an answer");
    assert_eq!(reply.answer, Answer::Init);
    assert_no_time(&reply.packet, *b"INIT");
}

#[test]
fn the_dispersion_is_the_bound_and_has_an_end() {
    // (time_maxerror, root dispersion): bound + 1 tick + 60 ns of precision, rounded up.
    let units = |units: u64| units * 1_000_000_000 / 65_536;
    for (nanos, expected) in [
        (0, Some(1)),
        (units(1) - 200, Some(1)),
        (units(1), Some(2)),
        (10_000_000, Some(656)),
        (1_500_000_000, Some(98_305)),
        (15_999_980_000, Some((16 << 16) - 1)),
        (16_000_000_000, None),
        (17_000_000_000, None),
        (u64::MAX, None),
    ] {
        let mut page = page(NOON);
        page.time_maxerror_nanosec = nanos;
        let reply = answer_with(Ok(&exchange(&page, 0, 1000))).expect("an answer");
        if let Some(expected) = expected {
            assert_eq!(reply.answer, Answer::Time, "{nanos} ns");
            assert_eq!(u32_at(&reply.packet, 8), expected, "{nanos} ns");
        } else {
            assert_eq!(reply.answer, Answer::Dispersion, "{nanos} ns");
            assert_no_time(&reply.packet, *b"XDSP");
        }
    }
}

#[test]
fn the_dispersion_covers_the_worse_of_both_stamps() {
    // Received before the page's last update, so the receive stamp is the older extrapolation.
    let mut exchange = ordinary();
    exchange.received.bound = Bound::from_nanos(1_000_000_000);
    assert_eq!(u32_at(&packet(&exchange), 8), 65_537);
    core::mem::swap(&mut exchange.received.bound, &mut exchange.transmit.bound);
    assert_eq!(u32_at(&packet(&exchange), 8), 65_537);
    exchange.received.bound = Bound::MAX;
    assert_eq!(
        answer_with(Ok(&exchange)).map(|reply| reply.answer),
        Ok(Answer::Dispersion)
    );
}

#[test]
fn freerunning_is_time_with_a_growing_dispersion() {
    let mut page = page(NOON);
    page.clock_status = ClockStatus::Freerunning as u8;
    page.flags &= !flag::PERIOD_MAXERROR_VALID; // 50 ppm is assumed
    let mut last = 0;
    for hours in [0_i64, 1, 10, 80] {
        let nanos = hours * 3_600_000_000_000;
        let packet = packet(&exchange(&page, nanos, nanos + 1000));
        assert_eq!((packet[0] >> 6, packet[1]), (0, 1));
        let dispersion = u32_at(&packet, 8);
        assert!(dispersion > last, "{hours} h: {dispersion}");
        last = dispersion;
    }
    assert!(
        (943_718..943_725).contains(&last),
        "80 h at 50 ppm are 14.4 s: {last}"
    );
    let nanos = 90 * 3_600_000_000_000;
    let reply = answer_with(Ok(&exchange(&page, nanos, nanos + 1000)));
    assert_eq!(reply.map(|reply| reply.answer), Ok(Answer::Dispersion));
}

#[test]
fn leap_seconds_are_announced_on_their_day_only() {
    // 2026-12-31T00:00:00Z.
    let last_day = 1_798_675_200;
    for (utc, indicator, expected) in [
        (last_day - 3600, LeapIndicator::PrePos, 0),
        (last_day + 3600, LeapIndicator::PrePos, 1),
        (last_day + 86_390, LeapIndicator::PrePos, 1),
        (last_day + 3600, LeapIndicator::PreNeg, 2),
        (last_day + 3600, LeapIndicator::None, 0),
        (last_day + 86_400, LeapIndicator::PostPos, 0),
    ] {
        let mut page = page(utc);
        page.leap_indicator = indicator as u8;
        assert_eq!(
            packet(&exchange(&page, 0, 1000))[0] >> 6,
            expected,
            "{utc} {indicator}"
        );
    }
}

#[test]
fn no_reply_straddles_a_leap_second() {
    let end_of_year = 1_798_761_600;
    // Reference 10 s before the end; the last second before an inserted one ends after 10 s, before
    // a deleted one after 9 s.
    for (indicator, edge) in [
        (LeapIndicator::PrePos, 10_000_000_000_i64),
        (LeapIndicator::PreNeg, 9_000_000_000),
    ] {
        for time_type in [TimeType::Tai, TimeType::Utc] {
            for offset_known in [true, false] {
                let mut page = page(end_of_year - 10);
                page.leap_indicator = indicator as u8;
                if time_type == TimeType::Utc {
                    page.time_type = TimeType::Utc as u8;
                    page.time_sec -= 37;
                    if !offset_known {
                        page.flags &= !flag::TAI_OFFSET_VALID;
                    }
                }
                let outcome = |received, transmit| {
                    answer_with(Ok(&exchange(&page, received, transmit))).map(|reply| reply.answer)
                };
                assert_eq!(outcome(edge - 2000, edge - 1000), Ok(Answer::Time));
                assert_eq!(outcome(edge - 500, edge + 500), Err(Silence::UtcStep));
                assert_eq!(
                    outcome(edge - 500, edge + 2_000_000_000),
                    Err(Silence::UtcStep)
                );
                assert_eq!(outcome(edge + 1000, edge + 2000), Ok(Answer::Time));
            }
        }
    }
    let mut page = page(end_of_year - 10);
    page.leap_indicator = LeapIndicator::PrePos as u8;
    // NTP repeats the second: 23:59:60.25 is sent as 23:59:59.25, and nothing is ahead any more.
    let inside = packet(&exchange(&page, 10_250_000_000, 10_250_001_000));
    assert_eq!(u64_at(&inside, 32) >> 32, ntp(end_of_year - 1, 0) >> 32);
    assert_eq!(inside[0] >> 6, 0);
    let after = packet(&exchange(&page, 11_250_000_000, 11_250_001_000));
    assert_eq!(u64_at(&after, 32) >> 32, ntp(end_of_year, 0) >> 32);
}

#[test]
fn stamps_wrap_with_the_era_and_are_never_zero() {
    // Era 1 starts at 2036-02-07T06:28:16Z.
    let era = 2_085_978_496;
    let mut exchange = exchange(&page(era - 1), 1_000_000_000, 1_000_000_000);
    for reading in [&mut exchange.received, &mut exchange.transmit] {
        reading.utc.as_mut().expect("UTC").time = Timestamp::from_parts(2_085_978_496, 0);
    }
    exchange.transmit.reference_utc = Some(Timestamp::from_parts(2_085_978_496, 0));
    let packet = packet(&exchange);
    assert_eq!(u64_at(&packet, 16), u64::MAX);
    assert_eq!(u64_at(&packet, 32), 1);
    assert!((2..1 << 8).contains(&u64_at(&packet, 40)));

    let across = exchange_around(era);
    let packet = self::packet(&across);
    assert_eq!(u64_at(&packet, 16) >> 32, 0xffff_fff6);
    assert_eq!(u64_at(&packet, 32) >> 32, 0xffff_ffff);
    assert_eq!(u64_at(&packet, 40) >> 32, 0);
    assert!(
        u64_at(&packet, 40)
            .wrapping_sub(u64_at(&packet, 32))
            .cast_signed()
            > 0
    );
}

/// Received a microsecond before `utc`, answered a microsecond after it.
fn exchange_around(utc: u64) -> Exchange {
    exchange(&page(utc - 10), 9_999_999_000, 10_000_001_000)
}

#[test]
fn the_reference_time_is_the_pages_and_never_in_the_future() {
    let mut exchange = ordinary();
    assert_eq!(u64_at(&packet(&exchange), 16), ntp(NOON, 0));
    let received = u64_at(&packet(&exchange), 32);
    exchange.transmit.reference_utc = Some(Timestamp::<Utc>::from_parts(4_000_000_000, 0));
    assert_eq!(u64_at(&packet(&exchange), 16), received);
    exchange.transmit.reference_utc = None;
    assert_eq!(u64_at(&packet(&exchange), 16), received);
    exchange.transmit.reference_utc = Some(Timestamp::from_parts(0, 0));
    assert_eq!(u64_at(&packet(&exchange), 16), ntp(0, 0));
    // The page was updated between arrival and reply: T1 is later than the receive stamp.
    let updated = self::exchange(&page(NOON), -5000, 5000);
    let packet = packet(&updated);
    assert_eq!(u64_at(&packet, 16), u64_at(&packet, 32));
}

#[test]
fn transmit_differs_from_receive_even_when_the_counter_did_not_move() {
    for random in [0, 1, u64::MAX, 0x1234_5678] {
        let request = Request::parse(&request(0x23, &[]), 40_000).expect("a request");
        for nanos in 0..100 {
            let still = exchange(&page(NOON), nanos, nanos);
            let packet = reply(&SERVER, &request, Ok(&still), random)
                .expect("an answer")
                .packet;
            assert!(
                u64_at(&packet, 40) > u64_at(&packet, 32),
                "{nanos} {random}"
            );
        }
    }
}

#[test]
fn the_poll_is_the_requests_within_reason() {
    for (asked, given) in [
        (-128, 0),
        (-1, 0),
        (0, 0),
        (4, 4),
        (10, 10),
        (17, 17),
        (18, 17),
        (127, 17),
    ] {
        let mut bytes = request(0x23, &[]);
        bytes[2] = i8::cast_unsigned(asked);
        let request = Request::parse(&bytes, 40_000).expect("a request");
        let reply = reply(&SERVER, &request, Ok(&ordinary()), 0).expect("an answer");
        assert_eq!(reply.packet[2].cast_signed(), given, "{asked}");
    }
}

#[test]
fn a_configured_stratum_changes_nothing_else() {
    let request = Request::parse(&request(0x23, &[]), 40_000).expect("a request");
    let first = packet(&ordinary());
    for stratum in 1..=15 {
        let server = Server::new(stratum, 30);
        let packet = reply(&server, &request, Ok(&ordinary()), 0)
            .expect("an answer")
            .packet;
        assert_eq!(packet[1], stratum);
        assert_eq!((packet[0], &packet[2..]), (first[0], &first[2..]));
        let no_time = reply(&server, &request, Err(&NoTime::NoPage), 0).expect("an answer");
        assert_no_time(&no_time.packet, *b"INIT");
    }
}

#[test]
fn every_outcome_has_its_own_counter() {
    const NAMES: [&str; 14] = [
        "time",
        "INIT",
        "STEP",
        "XDSP",
        "XAUD",
        "XHLD",
        "XDRN",
        "length",
        "version",
        "mode",
        "mac",
        "extension",
        "stale",
        "utc step",
    ];
    let unusable = |stepped| NoTime::Unusable {
        why: Unusable::NoCounter,
        stepped,
    };
    let leap = {
        let mut page = page(1_798_761_590);
        page.leap_indicator = LeapIndicator::PrePos as u8;
        exchange(&page, 9_999_999_999, 10_000_000_001)
    };
    let mut wide = ordinary();
    wide.transmit.bound = Bound::MAX;
    let good = request(0x23, &[]);
    let datagrams: [(&[u8], Told); 14] = [
        (&good, Ok(ordinary()).into()),
        (&good, Err(unusable(false)).into()),
        (&good, Err(unusable(true)).into()),
        (&good, Ok(wide).into()),
        (&good, Withheld::Violation.into()),
        (&good, Withheld::Holdover.into()),
        (&good, Withheld::Drain.into()),
        (&good[..47], Ok(ordinary()).into()),
        (&request(0x2b, &[]), Ok(ordinary()).into()),
        (&request(0x24, &[]), Ok(ordinary()).into()),
        (&request(0x23, &[0; 20]), Ok(ordinary()).into()),
        (&request(0x23, &[0; 28]), Ok(ordinary()).into()),
        (&good, Err(NoTime::StaleStamp).into()),
        (&good, Ok(leap).into()),
    ];
    for (at, (payload, times)) in datagrams.into_iter().enumerate() {
        let (served, counters) = serve(payload, 40_000, || times, 0);
        assert_eq!(served.is_some(), at < 7, "datagram {at}");
        let names: Vec<&str> = [&counters.answered()[..], &counters.silent()[..]]
            .concat()
            .into_iter()
            .filter(|(_, count)| *count == 1)
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, [NAMES[at]]);
    }
}

#[test]
fn time_that_is_withheld_leaves_no_trace() {
    for (why, kiss) in [
        (Withheld::Violation, b"XAUD"),
        (Withheld::Holdover, b"XHLD"),
        (Withheld::Drain, b"XDRN"),
    ] {
        let parsed = Request::parse(&request(0x23, &[]), 40_000).expect("a request");
        let reply = reply(&SERVER, &parsed, why, u64::MAX).expect("an answer");
        #[rustfmt::skip]
        let expected = [
            0xe4, 0, 6, 0xe8, // LI 3, version 4, mode 4; stratum 0
            0, 0, 0, 0,
            0, 16, 0, 0, // 16 s
            kiss[0], kiss[1], kiss[2], kiss[3],
            0, 0, 0, 0, 0, 0, 0, 0,
            b'a', b' ', b'c', b'o', b'o', b'k', b'i', b'e',
            0, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(reply.packet, expected, "{why:?}");
        assert_eq!(reply.answer.kiss(), *kiss);
    }
}

#[test]
fn the_clock_is_not_asked_for_a_datagram_that_deserves_no_answer() {
    let asked = || -> Told { panic!("the clock was asked") };
    assert_eq!(serve(&[0x23; 47], 5, asked, 0).0, None);
}

/// What must hold for whatever comes in and whatever goes out.
fn check(payload: &[u8], port: u16, times: &Result<Exchange, NoTime>, random: u64) {
    let (served, counters) = serve(payload, port, || (*times).into(), random);
    let counted = counters
        .answered()
        .iter()
        .chain(&counters.silent())
        .map(|(_, n)| n)
        .sum::<u64>();
    assert_eq!(counted, 1);
    let Some(Reply { packet, .. }) = served else {
        return;
    };
    assert!(payload.len() >= packet.len() && payload.len().is_multiple_of(4));
    let (version, mode) = (payload[0] >> 3 & 7, payload[0] & 7);
    assert!((1..=4).contains(&version) && (version == 4 || payload.len() == 48));
    assert!(matches!(mode, 1 | 3) || (mode == 0 && version == 1 && port != 123));
    assert_eq!(packet[0] >> 3 & 7, version);
    assert_eq!(packet[0] & 7, if mode == 1 { 2 } else { 4 });
    assert_eq!(packet[24..32], payload[40..48]);
    // A reply must not be a request: two of us cannot keep each other busy.
    assert_eq!(Request::parse(&packet, 123), Err(Silence::Mode));
    if times.is_err() {
        assert_eq!(
            (packet[0] >> 6, packet[1], &packet[32..]),
            (3, 0, &[0; 16][..])
        );
    }
}

#[test]
fn random_bytes_of_every_length() {
    // A small generator (xorshift64) keeps this quick and the same in every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for length in 0..=1400_usize {
        for first_byte in [0x23, 0x1b, 0x13, 0x0b, 0x21, 0x08, 0xe3] {
            let mut bytes: Vec<u8> = (0..length).map(|_| next().to_le_bytes()[0]).collect();
            check(&bytes, 123, &Ok(ordinary()), next());
            if let Some(first) = bytes.first_mut() {
                *first = first_byte;
            }
            check(&bytes, 40_000, &Err(NoTime::NoPage), next());
        }
    }
}

proptest! {
    #[test]
    fn any_datagram(payload in prop::collection::vec(any::<u8>(), 0..=1400), port: u16, random: u64) {
        check(&payload, port, &Ok(ordinary()), random);
    }

    /// Extension fields of nearly right lengths, cut anywhere.
    #[test]
    fn any_chain_of_extension_fields(
        fields in prop::collection::vec((0_usize..40, -1_i32..=1), 0..8),
        cut in 0_usize..1400,
        random: u64,
    ) {
        let mut tail = Vec::new();
        for (words, lie) in fields {
            let real = 4 + words * 4;
            let stated = i32::try_from(real).expect("small") + lie * 4;
            tail.extend(field(u16::try_from(stated).expect("not negative"), real));
        }
        tail.truncate(cut);
        check(&request(0x23, &tail), 40_000, &Ok(ordinary()), random);
    }

    /// If the page's bound holds, so does the packet's: every instant that the page allows for the
    /// two stamps lies within the root dispersion of what is sent.
    #[test]
    fn the_packets_bound_holds(
        maxerror in 0_u64..1_000_000_000,
        resolution in 0_u64..1_000_000_000,
        received in 0_i64..3_600_000_000_000,
        served in 0_i64..10_000_000,
        random: u64,
    ) {
        let mut page = page(NOON);
        page.time_maxerror_nanosec = maxerror;
        let exchange = exchange(&page, received, received + served);
        let server = Server::new(1, resolution);
        let request = Request::parse(&request(0x23, &[]), 40_000).expect("a request");
        let reply = reply(&server, &request, Ok(&exchange), random).expect("an answer");
        prop_assert_eq!(reply.answer, Answer::Time);
        let dispersion = Bound::from_units(u128::from(u32_at(&reply.packet, 8)) << 48);
        for (at, reading) in [(32, exchange.received), (40, exchange.transmit)] {
            let sent = u64_at(&reply.packet, at);
            let utc = Timestamp::<Utc>::from_parts(
                i64::try_from((sent >> 32) - 2_208_988_800).expect("era 0"),
                sent << 32,
            );
            let off = utc.since(reading.utc.expect("UTC").time).expect("near");
            let off = Bound::from_units(Span::abs(off).units().unsigned_abs());
            prop_assert!(off.plus(reading.bound) <= dispersion, "stamp at {}", at);
        }
        prop_assert!(u64_at(&reply.packet, 40) > u64_at(&reply.packet, 32));
        prop_assert_eq!(exchange.transmit.utc.expect("UTC").announcement, Announcement::None);
    }
}
