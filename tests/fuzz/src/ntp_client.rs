//! An NTP server that is followed, and says what it likes.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use gnomon_clock::{CrossTimestamp, Estimator, Limits, Source, Stamp, Ticks, Wander};
use gnomon_kernel::source::ntp::{Client, HEADER, Heard};

use crate::input::Input;
use crate::vmclock_page::check;

/// Input: steps.
///
/// # Panics
/// The client asks too often, or believes what it must not.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let mut client = Client::new(IpAddr::V4(Ipv4Addr::new(10, 0, 2, 2)));
    let mut marker = 1;
    let mut now = Duration::ZERO;
    client.follow(marker, now);
    let mut request: Option<[u8; HEADER]> = None;
    let mut asked: Option<Duration> = None;
    let mut answered = 0_u32;
    let mut requests = 0_u32;
    let mut estimator = Estimator::new(Source::Ntp, Wander::CRYSTAL, Limits::DEFAULT);
    for _ in 0..128 {
        if input.is_empty() {
            break;
        }
        let mut random = || 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(u64::from(requests) + 1);
        match input.u8() % 8 {
            0 => now += Duration::from_millis(input.number() & 0xff_ffff),
            1 => {
                let next = client.next().unwrap_or(now);
                now = now.max(next.min(now + Duration::from_secs(1 << 20)));
            }
            2 => {
                marker = u64::from(input.u8());
                if client.follow(marker, now) {
                    request = None;
                }
            }
            3 => {
                if client.expire(now).is_some() {
                    request = None;
                }
            }
            kind => {
                if let Some(bytes) = client.ask(now, &mut random) {
                    // However it is disrupted, and whatever it is told.
                    let since = asked.map(|asked| now.saturating_sub(asked));
                    assert!(since.is_none_or(|since| since >= Duration::from_secs(2)));
                    assert!(bytes[0] & 7 == 3 && !client.is_denied());
                    (request, asked) = (Some(bytes), Some(now));
                    requests += 1;
                }
                if client.is_sending() {
                    client.sent(at(now, marker));
                }
                now += Duration::from_micros(100);
                let bytes = answer(&mut input, request.filter(|_| kind != 4));
                let heard = client.hear(&bytes, at(now, marker), |id| id == [10, 0, 2, 15]);
                match heard {
                    Heard::Nothing => {}
                    Heard::Refused(why) => assert!(!why.is_empty()),
                    Heard::Samples(samples) => {
                        answered += 1;
                        let request = request.expect("one was asked");
                        let origin = &bytes[24..32];
                        assert!(origin == &request[40..48] || origin == &request[32..40]);
                        assert!(bytes[0] & 7 == 4 && bytes[0] >> 6 != 3 && bytes[1] < 16);
                        for sample in [samples.better, samples.new].into_iter().flatten() {
                            assert_eq!(sample.bracket.marker, marker);
                            draw(&mut estimator, &sample, marker, at(now, marker));
                        }
                    }
                }
                if heard != Heard::Nothing {
                    request = None;
                }
            }
        }
        assert!(answered <= requests, "one answer a request");
    }
}

/// The stamp of a counter of 1 GHz.
fn at(now: Duration, marker: u64) -> Stamp {
    let ticks = u64::try_from(now.as_nanos() & u128::from(u64::MAX)).unwrap_or(0);
    Stamp {
        ticks: Ticks(ticks),
        marker,
    }
}

/// Any bytes, or a reply to the request with some of it changed.
fn answer(input: &mut Input<'_>, request: Option<[u8; HEADER]>) -> Vec<u8> {
    let Some(request) = request else {
        return input.block().to_vec();
    };
    let mut reply = [0; HEADER];
    let now = (0xee_aa_bb_00_u64 << 32).wrapping_add(input.number());
    reply[..4].copy_from_slice(&[0x24, 2, 6, 0xec]);
    reply[12..16].copy_from_slice(&[192, 0, 2, 1]);
    reply[16..24].copy_from_slice(&(now - (9 << 32)).to_be_bytes());
    let place = if input.u8() & 1 == 0 { 40 } else { 32 };
    reply[24..32].copy_from_slice(&request[place..place + 8]);
    reply[32..40].copy_from_slice(&now.to_be_bytes());
    reply[40..48].copy_from_slice(&(now + (1 << 22)).to_be_bytes());
    for _ in 0..input.u8() % 4 {
        let place = usize::from(input.u8());
        if let Some(byte) = reply.get_mut(place) {
            *byte = input.u8();
        }
    }
    let mut reply = reply.to_vec();
    if input.u8() & 7 == 7 {
        reply.extend(input.block());
    }
    reply
}

/// A line can be drawn through any samples, or there is a reason why not.
fn draw(estimator: &mut Estimator, sample: &CrossTimestamp, marker: u64, now: Stamp) {
    let _ = estimator.add(sample);
    if let Ok(line) = estimator.timeline() {
        assert_eq!(line.marker(), marker, "a line from across a disruption");
        if let Ok(reading) = line.at(now.ticks) {
            check(&reading);
        }
    }
}
