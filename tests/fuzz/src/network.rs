//! Frames into the whole service: IPv4, IPv6, ARP, DHCP, neighbours, TCP and NTP, while time passes and the page
//! changes. Whatever came, the next client gets the time, and the right one.

use std::time::Duration;

use gnomon_clock::Fields;

use crate::frame::{arp, checksum, correct, tcp, udp, udp_of};
use crate::input::Input;
use crate::service::{CLIENT_MAC, GUEST, GUEST_MAC, Rig, with_rig};
use crate::world::{Change, NOON, good, publish};

/// A fixed address.
pub const STATIC: &str = "ip=10.0.2.15/24,10.0.2.2";
/// Seconds from 1900, where NTP counts from, to 1970.
const NTP_UNIX: u64 = 2_208_988_800;

/// Input: how the service is set up, and steps.
///
/// # Panics
/// A frame is sent that must not be, or the next client does not get the time.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let setting = input.u8();
    let words = match setting % 8 {
        0 => "ip=10.0.2.15/24,10.0.2.2 ip6=off",
        1 => "ip=dhcp ip6=auto",
        2 => "ip=10.0.2.15/24,10.0.2.2 ip6=auto source=auto,ntp:10.0.2.2",
        3 => "ip=10.0.2.15/24 ip6=fd00::15/64 ntp.smear=sls ntp.smear.port=1123 http=off",
        4 => "ip=10.0.2.15/24 ip6=auto ntp.limit=2,1s",
        5 => {
            "ip=10.0.2.15/24 ip6=auto ntp.auth=require ntp.key=7:AES128:2b7e151628aed2a6abf7158809cf4f3c"
        }
        6 => "ip=10.0.2.15/24 ip6=auto drain=soon holdover.max=3 on_violation=stop",
        _ => "ip=10.0.2.15/24,10.0.2.2 ip6=auto",
    };
    let fields = if setting & 8 == 0 {
        good(1)
    } else {
        Fields::stock()
    };
    with_rig(&fields, words, |mut rig| {
        play(&mut rig, &mut input);
        if matches!(setting % 8, 0 | 2 | 3 | 7) {
            assert_serves(&mut rig);
        }
    });
}

fn play(rig: &mut Rig<'_>, input: &mut Input<'_>) {
    let mut last: Vec<Vec<u8>> = rig.exchange(&[]);
    for _ in 0..24 {
        if input.is_empty() {
            return;
        }
        let mut frames = Vec::new();
        match input.u8() % 12 {
            0 => frames.push(input.block().to_vec()),
            1 | 2 => frames.push(addressed(input.block())),
            3 => {
                for _ in 0..=input.u8() % 8 {
                    frames.push(addressed(input.block()));
                }
            }
            4 => frames.push(udp(input.u16(), 123, input.block())),
            5 => frames.extend(last.iter().filter_map(|sent| answer(sent, input)).take(2)),
            6 => {
                let [port, flags] = [input.u16(), input.u16()];
                frames.push(tcp(
                    port,
                    input.u32(),
                    input.u32(),
                    flags.to_le_bytes()[0],
                    input.block(),
                ));
            }
            7 => publish(rig.page, &good(u64::from(input.u8()))),
            8 => Change::read(input).store(rig.page),
            9 => frames.push(arp()),
            _ => {
                let time = Duration::from_millis(input.number() & 0xf_ffff);
                last = rig.pass(time);
                check(&[], &last);
                continue;
            }
        }
        last = rig.exchange(&frames);
        check(&frames, &last);
    }
}

/// The same frame for the guest, and with good checksums.
fn addressed(bytes: &[u8]) -> Vec<u8> {
    let mut frame = bytes.to_vec();
    if let Some(place) = frame.get_mut(..6).filter(|place| place[0] & 1 == 0) {
        place.copy_from_slice(&GUEST_MAC);
    }
    correct(&mut frame);
    frame
}

/// An answer to what the guest has sent, if that was UDP over IPv4: the addresses turned round, and for the rest its
/// own bytes with some of them changed and more behind them.
fn answer(sent: &[u8], input: &mut Input<'_>) -> Option<Vec<u8>> {
    let (from, to, payload) = udp_of(sent)?;
    let mut bytes = payload.to_vec();
    match to {
        // BOOTREPLY with an address for us, and options of the fuzzer's.
        67 => {
            bytes.truncate(240);
            *bytes.first_mut()? = 2;
            bytes.get_mut(16..20)?.copy_from_slice(&GUEST);
            bytes.extend(input.block());
        }
        // A server's answer to what it was asked.
        123 => {
            let origin: [u8; 8] = payload.get(40..48)?.try_into().ok()?;
            *bytes.first_mut()? = 0x24;
            *bytes.get_mut(1)? = 2;
            bytes.get_mut(24..32)?.copy_from_slice(&origin);
            let now = (NOON - 37 + NTP_UNIX) << 32;
            bytes.get_mut(32..40)?.copy_from_slice(&now.to_be_bytes());
            bytes
                .get_mut(40..48)?
                .copy_from_slice(&(now + (1 << 20)).to_be_bytes());
            bytes.get_mut(16..24)?.copy_from_slice(&now.to_be_bytes());
        }
        _ => {}
    }
    for _ in 0..input.u8() % 4 {
        let place = usize::from(input.u8());
        let value = input.u8();
        if let Some(byte) = bytes.get_mut(place) {
            *byte = value;
        }
    }
    let mut frame = udp(to, from, &bytes);
    if to == 67 {
        // To everybody, as the guest may have no address yet.
        frame[..6].fill(0xff);
        frame[30..34].fill(0xff);
        correct(&mut frame);
    }
    Some(frame)
}

/// Holds what was sent to what may be sent.
///
/// # Panics
/// It is not so.
pub fn check(received: &[Vec<u8>], sent: &[Vec<u8>]) {
    // A few of its own accord, and at most two for each: an answer, and a question for who asked.
    assert!(
        sent.len() <= 40 + 4 * received.len(),
        "{} frames",
        sent.len()
    );
    for frame in sent {
        assert!((14..=1514).contains(&frame.len()));
        assert_eq!(frame[6..12], GUEST_MAC);
        if frame[12..14] == [0x08, 0x00] {
            let header = 14 + usize::from(frame[14] & 0xf) * 4;
            assert_eq!(checksum(&[&frame[14..header]]), 0);
        }
        if let Some((123 | 1123, _, payload)) = udp_of(frame).filter(|(_, to, _)| *to != 123) {
            let was_asked = received.iter().any(|asked| {
                let same_mac = asked.get(6..12) == frame.get(..6);
                let request = udp_of(asked).filter(|(_, to, _)| matches!(to, 123 | 1123));
                request.is_some_and(|(.., bytes)| same_mac && bytes.len() >= payload.len())
            });
            assert!(
                was_asked,
                "a reply that nobody asked for, or longer than asked for"
            );
            assert!(matches!(payload[0] & 7, 2 | 4));
        }
    }
}

/// The host tells the time again, and a client asks for it.
///
/// # Panics
/// It does not get it.
pub fn assert_serves(rig: &mut Rig<'_>) {
    let ticks = rig.counter.0.ticks.get();
    let fields = Fields {
        counter_value: ticks,
        time_frac_sec: 1 << 62,
        ..good(rig.page.marker().wrapping_add(1))
    };
    *rig.counter.0.at_read.borrow_mut() = None;
    crate::world::store(rig.page, 0, &fields.to_bytes());
    publish(rig.page, &fields);
    rig.pass(Duration::from_secs(2));
    let mut request = [0; 48];
    request[0] = 0x23;
    request[40..48].copy_from_slice(b"a cookie");
    let question = udp(40_000, 123, &request);
    let sent = rig.exchange(&[question]);
    let mut replies = sent
        .iter()
        .filter(|frame| frame[..6] == CLIENT_MAC)
        .filter_map(|frame| udp_of(frame).filter(|(from, to, _)| (*from, *to) == (123, 40_000)));
    let (.., reply) = replies.next().expect("a client gets an answer");
    assert!(replies.next().is_none(), "one");
    assert_eq!(
        (reply[0], &reply[24..32]),
        (0x24, &b"a cookie"[..]),
        "{:?}",
        &reply[12..16]
    );
    let seconds = u64::from(u32::from_be_bytes([
        reply[32], reply[33], reply[34], reply[35],
    ]));
    let passed = (rig.counter.0.ticks.get().wrapping_sub(ticks)) / 1_000_000_000;
    let now = (NOON - 37 + NTP_UNIX + passed) & 0xffff_ffff;
    assert!(seconds.abs_diff(now) <= 1, "the right time");
}
