//! The NTP server: datagrams of all kinds, with keys, extension fields and in interleaved mode, while the page
//! changes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use gnomon_clock::{Clock, Counter, Stamp};
use gnomon_kernel::config::Config;
use gnomon_kernel::serve::auth::Keys;
use gnomon_kernel::serve::ntp::{Answer, Request, Server};
use gnomon_kernel::serve::responder::{Datagram, Memory, Responder};
use gnomon_kernel::serve::times::SmearService;

use crate::counter::Gigahertz;
use crate::input::Input;
use crate::world::{Change, good, page, publish};

/// The keys that every input has: a short one and a long one.
pub const KEYS: &str = "ntp.key=7:AES128:2b7e151628aed2a6abf7158809cf4f3c \
    ntp.key=8:AES256:603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4";

/// Bytes of a header, and of a key's number with a code behind it.
const HEADER: usize = 48;
const MAC: usize = 20;

/// Input: how the server is set up, and steps.
///
/// # Panics
/// A reply is not what a reply must be.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let setting = input.u8();
    let words = match setting % 8 {
        0 => "ntp.limit=2,1s ntp.smear=hint",
        1 => "ntp.auth=require",
        2 => "ntp.deny=10.0.2.0/24 ntp.limit=8,8s",
        3 => "ntp.smear=noon",
        4 => "ntp.smear=sls ntp.stratum=3",
        _ => "",
    };
    let config = Config::parse(&format!("{KEYS} {words}"), &mut |warning| {
        panic!("{warning}")
    });
    let page = page(&good(1));
    let counter = Gigahertz::default();
    let mut clock = Clock::new(Some(page), counter.clone());
    let mut smear = SmearService::new(config.smear);
    let mut memory = Memory::new();
    let mut seed = 1_u64;
    let mut random = || {
        seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        seed ^ seed >> 31
    };
    let server = Server::new(config.stratum, 30);
    let mut responder = Responder::new(server, &config.policy, &mut memory, &mut random);
    let mut last = [0; HEADER];
    let mut count = 0;
    for _ in 0..32 {
        if input.is_empty() {
            return;
        }
        match input.u8() % 12 {
            0 => counter
                .0
                .ticks
                .set(counter.0.ticks.get().wrapping_add(input.number())),
            1 => publish(page, &good(u64::from(input.u8()))),
            2 => Change::read(&mut input).store(page),
            3 => responder.forget(&mut random),
            _ => {
                let asked = Asked::read(&mut input, &last, &config.policy.keys);
                let uptime = Duration::from_nanos(counter.0.ticks.get());
                let stamp = clock.stamp();
                if asked.is_disturbed {
                    // A disruption between arrival and answer.
                    publish(page, &good(page.marker().wrapping_add(1)));
                }
                let mut tell = |stamp| match clock.exchange(stamp) {
                    Ok(exchange) => smear.tell(&exchange),
                    Err(why) => Err(why).into(),
                };
                let outcome =
                    responder.serve(&asked.datagram(), Some(uptime), || tell(stamp), random());
                count += 1;
                let Ok(answered) = outcome else {
                    continue;
                };
                let reply = [&answered.reply.packet[..], answered.reply.tail()].concat();
                asked.check(&reply, answered.reply.answer);
                last.copy_from_slice(&reply[..HEADER]);
                if answered.reply.answer == Answer::Time {
                    assert_eq!(stamp.marker, page.marker(), "time from across a disruption");
                }
                if let Some(pending) = answered.pending {
                    let left = Stamp {
                        ticks: counter.read(),
                        ..stamp
                    };
                    responder.sent(&pending, tell(left));
                }
            }
        }
        let counters = responder.counters();
        let silent: u64 = counters.silent().iter().map(|(_, count)| count).sum();
        assert_eq!(
            counters.replies() + silent,
            count,
            "each datagram is counted once"
        );
    }
}

/// A datagram.
struct Asked {
    source: IpAddr,
    port: u16,
    payload: Vec<u8>,
    signed_by: Option<u32>,
    is_disturbed: bool,
    keys: Keys,
}

impl Asked {
    fn read(input: &mut Input<'_>, last: &[u8; HEADER], keys: &Keys) -> Self {
        let [shape, more] = input.array();
        let mut payload = input.block().to_vec();
        if shape & 1 != 0 {
            // The header of a good request.
            payload.resize(payload.len().max(HEADER), 0);
            payload[0] = if shape & 2 != 0 { 0x23 } else { payload[0] };
        }
        if shape & 4 != 0 && payload.len() >= HEADER {
            // It names the reply before, as in interleaved mode.
            payload[24..32].copy_from_slice(&last[32..40]);
            payload[32] ^= 1;
        }
        if shape & 8 != 0 {
            let mut field = [0; 28];
            field[..4].copy_from_slice(&[0xf3, 0x23, 0, 28]);
            payload.extend(field);
        }
        let signed_by = match more % 4 {
            0 => Some(7),
            1 => Some(8),
            _ => None,
        };
        if let Some(key) = signed_by.and_then(|id| keys.find(id)) {
            let tag = key.authenticator().tag(&[&payload]);
            payload.extend(key.id().to_be_bytes());
            payload.extend(tag);
        }
        Self {
            source: match shape >> 4 & 3 {
                0 => IpAddr::V4(Ipv4Addr::new(10, 0, 2, more)),
                1 => IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, more.into())),
                _ => IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)),
            },
            port: if more & 4 != 0 { 123 } else { 40_000 },
            payload,
            signed_by,
            is_disturbed: shape & 0xc0 == 0xc0,
            keys: *keys,
        }
    }

    fn datagram(&self) -> Datagram<'_> {
        Datagram {
            source: self.source,
            port: self.port,
            payload: &self.payload,
        }
    }

    /// Holds a reply to what a reply must be.
    fn check(&self, reply: &[u8], answer: Answer) {
        let asked = &self.payload;
        assert!(reply.len() <= asked.len(), "no amplification");
        let (version, mode) = (asked[0] >> 3 & 7, asked[0] & 7);
        let was_asked = matches!(mode, 1 | 3) || mode == 0 && version == 1 && self.port != 123;
        assert!(was_asked && (1..=4).contains(&version));
        assert_eq!(reply[0] >> 3 & 7, version);
        assert_eq!(reply[0] & 7, if mode == 1 { 2 } else { 4 });
        for port in [123, 40_000] {
            assert!(Request::parse(reply, port).is_err(), "a reply is answered");
        }
        let origin = &reply[24..32];
        assert!(origin == &asked[40..48] || origin == &asked[32..40]);
        let stamp = |at: usize| u64::from_be_bytes(reply[at..at + 8].try_into().expect("eight"));
        if answer == Answer::Time {
            assert!(reply[0] >> 6 < 3 && (1..16).contains(&reply[1]));
            assert!(stamp(16) != 0 && stamp(32) != 0 && stamp(40) != 0);
            if origin == &asked[40..48] && asked[32..40] != asked[40..48] {
                let turn = stamp(40).wrapping_sub(stamp(32)).cast_signed();
                assert!(turn >= 0, "it left before it came");
            }
        } else {
            assert_eq!((reply[0] >> 6, reply[1]), (3, 0));
            assert_eq!(reply[12..16], answer.kiss());
            // Chronyd wants a kiss RATE to have its stamps.
            let stamps = [stamp(16), stamp(32), stamp(40)];
            assert!(answer == Answer::Rate || stamps == [0; 3]);
        }
        // A field of the fuzzer's may hold what would be the code.
        let request = Request::parse(asked, self.port).expect("it was answered");
        let signed_by = self.signed_by.filter(|_| request.mac().is_some());
        if let Some(key) = signed_by.and_then(|id| self.keys.find(id)) {
            let (message, mac) = reply.split_at(reply.len() - MAC);
            assert_eq!(mac[..4], key.id().to_be_bytes());
            let tag = mac[4..].try_into().expect("sixteen");
            assert!(
                key.authenticator().verifies(&[message], tag),
                "of the key that asked"
            );
        }
    }
}
