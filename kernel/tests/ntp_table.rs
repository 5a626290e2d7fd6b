//! Which datagram gets which answer: the whole table, row by row, and exhaustively over lengths,
//! versions and modes.

use gnomon_clock::page::flag;
use gnomon_clock::{
    Bound, Busy, ClockStatus, CounterId, Exchange, Fields, LeapIndicator, NoTime, Period, Ticks,
    TimeType, Timeline, Unusable,
};
use gnomon_kernel::serve::auth::Keys;
use gnomon_kernel::serve::ntp::{Answer, Request, Server, Silence, reply};
use gnomon_kernel::serve::responder::{Datagram, Policy, Responder, Served};

/// What comes of a datagram: the first byte of the reply and what it tells, or why there is none.
type Outcome = Result<(u8, Answer), Silence>;

/// What it is, the datagram, its source port, what the clock says, what comes of it.
type Row = (
    &'static str,
    Vec<u8>,
    u16,
    Result<Exchange, NoTime>,
    Outcome,
);

/// A server with one key.
fn server() -> Responder<'static> {
    let mut policy = Policy::OPEN;
    let key = policy
        .keys
        .parse_word(&format!("7:AES128:{}", "5a".repeat(16)));
    key.expect("a key");
    Responder::new(Server::new(1, 30), &policy, Box::leak(Box::default()), || 0)
}

fn decide(
    server: &mut Responder<'_>,
    payload: &[u8],
    port: u16,
    times: &Result<Exchange, NoTime>,
) -> Outcome {
    let datagram = Datagram {
        source: "192.0.2.1".parse().expect("an address"),
        port,
        payload,
    };
    let Served { reply, .. } = server.serve(&datagram, None, || (*times).into(), 0x5555)?;
    let length = reply.packet.len() + reply.tail().len();
    assert!(length <= payload.len(), "a reply never grows");
    Ok((reply.packet[0], reply.answer))
}

/// The same datagram with a message authentication code.
fn signed(mut datagram: Vec<u8>, key: u32) -> Vec<u8> {
    let mut keys = Keys::NONE;
    let word = keys.parse_word(&format!("{key}:AES128:{}", "5a".repeat(16)));
    word.expect("a key");
    let authenticator = keys.find(key).expect("the key").authenticator();
    let tag = authenticator.tag(&[&datagram]);
    datagram.extend(key.to_be_bytes());
    datagram.extend(tag);
    datagram
}

fn changed(mut datagram: Vec<u8>, at: usize) -> Vec<u8> {
    datagram[at] ^= 0x10;
    datagram
}

const C1: u64 = 5_000_000_000;

/// Received and answered this many nanoseconds after `utc`, on a page with that reference time.
fn exchange(utc: u64, leap: LeapIndicator, received: u64, transmit: u64) -> Exchange {
    let period = Period::from_hertz(1_000_000_000).expect("a counter");
    let fields = Fields {
        counter_id: CounterId::X86Tsc as u8,
        time_type: TimeType::Tai as u8,
        clock_status: ClockStatus::Synchronized as u8,
        flags: flag::TAI_OFFSET_VALID | flag::TIME_MAXERROR_VALID | flag::PERIOD_MAXERROR_VALID,
        tai_offset_sec: -37,
        leap_indicator: leap as u8,
        counter_value: C1,
        counter_period_frac_sec: period.frac(),
        counter_period_shift: period.shift(),
        time_sec: utc + 37,
        time_maxerror_nanosec: 1000,
        ..Fields::stock()
    };
    let timeline = Timeline::from_page(&fields, CounterId::X86Tsc).expect("a good page");
    let at = |nanos| timeline.at(Ticks(C1 + nanos)).expect("in range");
    Exchange {
        received: at(received),
        transmit: at(transmit),
    }
}

/// 2026-11-20T12:05:31Z, and the last day of that year.
const NOON: u64 = 1_795_176_331;
const LAST_DAY: u64 = 1_798_675_200;

/// An ordinary exchange.
fn times() -> Exchange {
    exchange(NOON, LeapIndicator::None, 0, 1000)
}

fn datagram(first_byte: u8, tail: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 48];
    bytes[0] = first_byte;
    bytes[40..].fill(0x77);
    bytes.extend(tail);
    bytes
}

/// A well-formed extension field of a type that nobody knows.
fn unknown_field(length: u16) -> Vec<u8> {
    let mut field = vec![0xa5; usize::from(length)];
    field[2..4].copy_from_slice(&length.to_be_bytes());
    field
}

fn mono_root() -> Vec<u8> {
    let mut field = vec![0; 28];
    field[..8].copy_from_slice(&[0xf3, 0x23, 0, 28, 0xf5, 0xbe, 0xdd, 0x9a]);
    field
}

#[test]
fn the_decision_table() {
    use Answer::{Dispersion, Init, Step, Time};
    use Silence::{Extension, Length, Mac, Mode, Stale, UtcStep, Version};
    let good = || Ok(times());
    let unusable = |stepped| {
        Err(NoTime::Unusable {
            why: Unusable::NoCounter,
            stepped,
        })
    };
    let mut without_utc = times();
    without_utc.transmit.utc = None;
    let mut too_wide = times();
    too_wide.transmit.bound = Bound::MAX;
    let over_a_leap = exchange(
        LAST_DAY + 86_399,
        LeapIndicator::PrePos,
        999_999_000,
        1_000_001_000,
    );
    let to_insert = exchange(LAST_DAY, LeapIndicator::PrePos, 0, 1000);
    let to_delete = exchange(LAST_DAY, LeapIndicator::PreNeg, 0, 1000);

    // Leap 0..3 in the reply's first byte; the version is the request's.
    let (plain, add, drop, none) = (0x00, 0x40, 0x80, 0xc0);
    let (client, any) = (40_000, 123);
    #[rustfmt::skip]
    let table: Vec<Row> = vec![
        // Which datagram is a request.
        ("NTPv4 client", datagram(0x23, &[]), client, good(), Ok((plain | 0x24, Time))),
        ("NTPv3 client", datagram(0x1b, &[]), client, good(), Ok((plain | 0x1c, Time))),
        ("NTPv2 client", datagram(0x13, &[]), client, good(), Ok((plain | 0x14, Time))),
        ("NTPv1 client", datagram(0x0b, &[]), client, good(), Ok((plain | 0x0c, Time))),
        ("client on port 123", datagram(0x23, &[]), any, good(), Ok((plain | 0x24, Time))),
        ("client, leap 3", datagram(0xe3, &[]), client, good(), Ok((plain | 0x24, Time))),
        ("Windows", datagram(0xd9, &[]), any, good(), Ok((plain | 0x1a, Time))),
        ("symmetric active", datagram(0x21, &[]), client, good(), Ok((plain | 0x22, Time))),
        ("NTPv1 without modes", datagram(0x08, &[]), client, good(), Ok((plain | 0x0c, Time))),
        ("NTPv1 server's port", datagram(0x08, &[]), any, good(), Err(Mode)),
        ("mode 0", datagram(0x20, &[]), client, good(), Err(Mode)),
        ("symmetric passive", datagram(0x22, &[]), client, good(), Err(Mode)),
        ("reply", datagram(0x24, &[]), client, good(), Err(Mode)),
        ("broadcast", datagram(0x25, &[]), client, good(), Err(Mode)),
        ("control message", datagram(0x16, &[]), client, good(), Err(Mode)),
        ("monlist", datagram(0x17, &[]), client, good(), Err(Mode)),
        ("version 0", datagram(0x03, &[]), client, good(), Err(Version)),
        ("NTPv5", datagram(0x2b, &[]), client, good(), Err(Version)),
        ("version 7", datagram(0x3b, &[]), client, good(), Err(Version)),
        ("empty", vec![], client, good(), Err(Length)),
        ("one short", datagram(0x23, &[])[..47].to_vec(), client, good(), Err(Length)),
        ("one long", datagram(0x23, &[0]), client, good(), Err(Length)),
        // What follows the header.
        ("unknown field", datagram(0x23, &unknown_field(28)), client, good(), Ok((0x24, Time))),
        ("0xF323", datagram(0x23, &mono_root()), client, good(), Ok((0x24, Time))),
        ("0xF323, key", signed(datagram(0x23, &mono_root()), 7), client, good(), Ok((0x24, Time))),
        ("0xF323 in NTPv3", datagram(0x1b, &mono_root()), client, good(), Err(Mac)),
        ("0xF323 cut", datagram(0x23, &mono_root()[..16]), client, good(), Err(Extension)),
        ("cut field", datagram(0x23, &unknown_field(40)[..32]), client, good(), Err(Extension)),
        ("field, then zeros", datagram(0x23, &[unknown_field(28), vec![0; 16]].concat()), client, good(), Err(Extension)),
        ("field in NTPv3", datagram(0x1b, &unknown_field(28)), client, good(), Err(Mac)),
        ("crypto-NAK", datagram(0x23, &[0; 4]), client, good(), Err(Mac)),
        ("SHA-1", datagram(0x23, &[7; 24]), client, good(), Err(Mac)),
        ("20 bytes of NTPv3", datagram(0x1b, &[7; 20]), client, good(), Err(Mac)),
        ("AES-CMAC", signed(datagram(0x23, &[]), 7), client, good(), Ok((plain | 0x24, Time))),
        ("the same in NTPv3", signed(datagram(0x1b, &[]), 7), client, good(), Ok((plain | 0x1c, Time))),
        ("and in NTPv1", signed(datagram(0x08, &[]), 7), client, good(), Ok((plain | 0x0c, Time))),
        ("behind a field", signed(datagram(0x23, &unknown_field(16)), 7), client, good(), Ok((plain | 0x24, Time))),
        ("and nothing behind it", [signed(datagram(0x23, &[]), 7), vec![0; 4]].concat(), client, good(), Err(Mac)),
        ("without a time", signed(datagram(0x23, &[]), 7), client, Err(NoTime::NoPage), Ok((none | 0x24, Init))),
        ("another key", signed(datagram(0x23, &[]), 8), client, good(), Err(Mac)),
        ("another header", changed(signed(datagram(0x23, &[]), 7), 2), client, good(), Err(Mac)),
        ("another field", changed(signed(datagram(0x23, &unknown_field(16)), 7), 60), client, good(), Err(Mac)),
        ("another key's number", changed(signed(datagram(0x23, &[]), 7), 51), client, good(), Err(Mac)),
        ("another tag", changed(signed(datagram(0x23, &[]), 7), 67), client, good(), Err(Mac)),
        // What the clock says.
        ("an insertion ahead", datagram(0x23, &[]), client, Ok(to_insert), Ok((add | 0x24, Time))),
        ("a deletion ahead", datagram(0x23, &[]), client, Ok(to_delete), Ok((drop | 0x24, Time))),
        ("no page", datagram(0x23, &[]), client, Err(NoTime::NoPage), Ok((none | 0x24, Init))),
        ("a busy page", datagram(0x1b, &[]), client, Err(NoTime::Busy(Busy { odd: true })), Ok((none | 0x1c, Init))),
        ("no time yet", datagram(0xd9, &[]), client, unusable(false), Ok((none | 0x1a, Init))),
        ("after a disruption", datagram(0x23, &[]), client, unusable(true), Ok((none | 0x24, Step))),
        ("TAI without UTC", datagram(0x23, &[]), client, Ok(without_utc), Ok((none | 0x24, Init))),
        ("a useless bound", datagram(0x23, &[]), client, Ok(too_wide), Ok((none | 0x24, Dispersion))),
        ("before a disruption", datagram(0x23, &[]), client, Err(NoTime::StaleStamp), Err(Stale)),
        ("over a leap second", datagram(0x23, &[]), client, Ok(over_a_leap), Err(UtcStep)),
    ];
    let mut server = server();
    for (name, payload, port, times, expected) in table {
        assert_eq!(
            decide(&mut server, &payload, port, &times),
            expected,
            "{name}"
        );
    }
}

/// The rules for a tail of equal bytes, written down apart from the parser.
fn expected(length: usize, version: u8, mode: u8, port: u16, fill: u8) -> Outcome {
    if length < 48 || !length.is_multiple_of(4) {
        return Err(Silence::Length);
    }
    if !(1..=4).contains(&version) {
        return Err(Silence::Version);
    }
    let answer = match mode {
        3 => 4,
        1 => 2,
        0 if version == 1 && port != 123 => 4,
        _ => return Err(Silence::Mode),
    };
    let tail = length - 48;
    // In a tail of equal bytes every field states the same length.
    let stated = usize::from(u16::from_be_bytes([fill, fill]));
    let good_field = stated >= 28 && stated.is_multiple_of(4);
    let rest = if good_field { tail % stated } else { tail };
    match (version, rest) {
        _ if tail == 0 => Ok((version << 3 | answer, Answer::Time)),
        (1..=3, _) | (4, 4 | 20 | 24) => Err(Silence::Mac),
        (4, 0) => Ok((version << 3 | answer, Answer::Time)),
        _ => Err(Silence::Extension),
    }
}

#[test]
fn every_length_version_and_mode() {
    let times = Ok(times());
    let mut server = server();
    // 0x04 makes fields of 1028 bytes.
    for fill in [0x00, 0x01, 0x04, 0xff] {
        for length in 0..=1400 {
            let mut payload = vec![fill; length];
            for first_byte in 0..64 {
                if let Some(first) = payload.first_mut() {
                    *first = first_byte;
                }
                let (version, mode) = (first_byte >> 3, first_byte & 7);
                for port in [123, 40_000] {
                    assert_eq!(
                        decide(&mut server, &payload, port, &times),
                        expected(length, version, mode, port, fill),
                        "{length} bytes, version {version}, mode {mode}, port {port}, {fill:#04x}"
                    );
                }
            }
        }
    }
}

/// What a tail can be made of: a field that nobody knows, of so many bytes; chrony's; a code by a key
/// of ours for everything before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    Unknown(u16),
    MonoRoot,
    Mac,
}

impl Piece {
    fn length(self) -> usize {
        match self {
            Self::Unknown(length) => length.into(),
            Self::MonoRoot => 28,
            Self::Mac => 20,
        }
    }

    fn append(self, datagram: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Unknown(length) => [datagram, unknown_field(length)].concat(),
            Self::MonoRoot => [datagram, mono_root()].concat(),
            Self::Mac => signed(datagram, 7),
        }
    }
}

/// The tail of the reply to the first `tail` bytes of what `pieces` make, by the rules of RFC 7822
/// written down apart from the parser.
fn expected_tail(pieces: &[Piece], version: u8, mut tail: usize) -> Result<usize, Silence> {
    if !tail.is_multiple_of(4) {
        return Err(Silence::Length);
    }
    let mut answer = 0;
    let mut last = None;
    for piece in pieces {
        match (piece, tail) {
            (_, 0) => break,
            (Piece::Mac, 20) => return Ok(answer + 20),
            // Its length says that it is a code, and we have no such key, or no such algorithm.
            (_, 4 | 20 | 24) => return Err(Silence::Mac),
            _ if version < 4 => return Err(Silence::Mac),
            // Key 7 and what follows it is no field.
            (Piece::Mac, _) => return Err(Silence::Extension),
            _ if tail < piece.length() => return Err(Silence::Extension),
            _ => {}
        }
        tail -= piece.length();
        last = Some(piece.length());
        if *piece == Piece::MonoRoot {
            answer = 28;
        }
    }
    match last {
        Some(..28) => Err(Silence::Extension),
        _ => Ok(answer),
    }
}

/// Up to three pieces in every order, cut at every byte.
#[test]
fn every_tail_cut_everywhere() {
    let pieces = [16, 20, 24, 28, 32].map(Piece::Unknown);
    let pieces = [&pieces[..], &[Piece::MonoRoot, Piece::Mac]].concat();
    let mut tails = vec![vec![]];
    for length in 0..3 {
        let longest = tails.iter().filter(|tail| tail.len() == length);
        let longer = longest.flat_map(|tail: &Vec<Piece>| {
            pieces.iter().map(|piece| [&tail[..], &[*piece]].concat())
        });
        tails.extend(longer.collect::<Vec<_>>());
    }
    assert_eq!(tails.len(), 1 + 7 + 49 + 343);
    let mut server = server();
    let mut answered = 0;
    for tail in tails {
        for version in 1..=4 {
            let header = datagram(version << 3 | 3, &[]);
            let whole = tail.iter().fold(header, |bytes, piece| piece.append(bytes));
            for length in 48..=whole.len() {
                let datagram = Datagram {
                    source: "192.0.2.1".parse().expect("an address"),
                    port: 40_000,
                    payload: &whole[..length],
                };
                let outcome = server
                    .serve(&datagram, None, || Ok::<_, NoTime>(times()).into(), 0x5555)
                    .map(|Served { reply, .. }| reply.tail().len());
                assert_eq!(
                    outcome,
                    expected_tail(&tail, version, length - 48),
                    "version {version}, {tail:?}, {length} bytes"
                );
                answered += usize::from(outcome.is_ok());
            }
        }
    }
    assert!(answered > 1000, "{answered}");
}

/// A field of 352 bytes that states every length there is, and zeros behind that.
#[test]
fn every_stated_length() {
    let times = Ok(times());
    let mut server = server();
    for stated in 0..=u16::MAX {
        let mut tail = vec![0; 352];
        tail[2..4].copy_from_slice(&stated.to_be_bytes());
        let is_field = stated >= 16 && stated.is_multiple_of(4);
        let expected = match 352_usize.checked_sub(usize::from(stated)) {
            Some(0) => Ok((0x24, Answer::Time)),
            Some(4 | 20 | 24) if is_field => Err(Silence::Mac),
            _ => Err(Silence::Extension),
        };
        let outcome = decide(&mut server, &datagram(0x23, &tail), 40_000, &times);
        assert_eq!(outcome, expected, "{stated}");
    }
}

#[test]
fn stamps_are_right_in_every_era() {
    // Seconds since 1970 of midday in 1972, 2026, 2035, 2036 (era 1), 2100, 2105 (era 2), 2200, 3000.
    for utc in [
        78_796_800,
        1_795_176_000,
        2_066_731_200,
        2_098_267_200,
        4_118_126_400,
        4_276_238_400,
        7_273_972_800,
        32_519_102_400_u64,
    ] {
        let times = exchange(utc, LeapIndicator::None, 250_000_000, 500_000_000);
        let request = Request::parse(&datagram(0x23, &[]), 5).expect("a request");
        let reply = reply(&Server::new(1, 30), &request, Ok(&times), 0).expect("an answer");
        let seconds = |at: usize| {
            u32::from_be_bytes(reply.packet[at..at + 4].try_into().expect("four bytes"))
        };
        let (era, expected) = {
            let since_1900 = utc + 2_208_988_800;
            (since_1900 >> 32, since_1900 & 0xffff_ffff)
        };
        for at in [16, 32, 40] {
            assert_eq!(u64::from(seconds(at)), expected, "{utc} era {era} at {at}");
        }
        // A client that knows the era within 68 years, as RFC 5905 §6 asks, gets the instant back.
        let sent = utc + 2_208_988_800;
        let pivot = sent - 1_000_000_000;
        let resolved = pivot + (u64::from(seconds(40)).wrapping_sub(pivot) & 0xffff_ffff);
        assert_eq!(resolved, sent);
    }
}
