//! How often a client is answered: a token bucket for each address, in fixed memory.
//!
//! A client (an IPv4 address, or an IPv6 /64) may send `burst` requests at once and one more every
//! `interval`. What it sends beyond that is mostly dropped, but **every fourth passes** at random:
//! anybody can write a victim's address into a request, and without that leak could keep the victim
//! from ever being answered. One in sixteen gets a kiss `RATE`, which asks a client that
//! listens to slow down.
//!
//! The table forgets nobody who matters: a full bucket says nothing about a client, and when a
//! place is needed the fullest bucket makes room. So a flood from a million addresses
//! cannot lift the limit of an address that is over it, and cannot do more harm to the others than
//! give them a fresh bucket.

use core::fmt;
use core::net::IpAddr;
use core::time::Duration;

use super::secret::{Client, Secret};

/// Clients that are remembered.
pub const CAPACITY: usize = SETS * WAYS;

/// The limit for each client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    burst: u16,
    /// Nanoseconds.
    interval: u64,
}

impl Limit {
    /// `burst` requests at once (1 to 1000), and one every `interval` (1 ms to 1 h).
    #[must_use]
    pub fn new(burst: u16, interval: Duration) -> Option<Self> {
        let possible = Duration::from_millis(1)..=Duration::from_hours(1);
        if !(1..=1000).contains(&burst) || !possible.contains(&interval) {
            return None;
        }
        let interval = u64::try_from(interval.as_nanos()).ok()?;
        Some(Self { burst, interval })
    }

    /// Reads `BURST,INTERVAL`, where the interval is a whole number of `s` or `ms`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (burst, interval) = text.split_once(',')?;
        let interval = if let Some(millis) = interval.strip_suffix("ms") {
            Duration::from_millis(number(millis)?)
        } else {
            Duration::from_secs(number(interval.strip_suffix('s')?)?)
        };
        Self::new(number(burst)?.try_into().ok()?, interval)
    }

    /// The poll exponent of the interval, rounded up and not below 0: what replies ask of clients.
    #[must_use]
    pub fn poll(self) -> i8 {
        // At most 2^12 s, since an interval is at most an hour.
        let seconds = self.interval.div_ceil(NANOS).next_power_of_two();
        i8::try_from(seconds.trailing_zeros()).unwrap_or(i8::MAX)
    }
}

/// As it is written on the command line.
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (burst, interval) = (self.burst, self.interval);
        if interval.is_multiple_of(NANOS) {
            write!(f, "{burst},{}s", interval / NANOS)
        } else {
            write!(f, "{burst},{}ms", interval / 1_000_000)
        }
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Answer it.
    Pass,
    /// Answer with a kiss.
    Kiss,
    /// Do not answer.
    Drop,
}

/// The buckets.
#[derive(Debug)]
pub struct Limiter {
    sets: [[Bucket; WAYS]; SETS],
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    client: u64,
    /// When the bucket is full again, nanoseconds of uptime. Past: it is full, and forgotten.
    full_at: u64,
}

impl Limiter {
    /// Nobody has asked yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            sets: [[UNUSED; WAYS]; SETS],
        }
    }

    /// Forgets everybody. Out of line: it happens once in a life.
    #[inline(never)]
    pub fn clear(&mut self) {
        self.sets.as_flattened_mut().fill(UNUSED);
    }

    /// How many clients are remembered at `now` (time since start), of [`CAPACITY`].
    #[must_use]
    pub fn remembered(&self, now: Duration) -> usize {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let buckets = self.sets.as_flattened().iter();
        buckets.filter(|bucket| bucket.full_at > now).count()
    }

    /// Judges a request of `client` at `now` (time since start). `random` are fresh random bits, of
    /// which the four highest are used.
    pub fn judge(
        &mut self,
        limit: Limit,
        secret: &Secret,
        client: IpAddr,
        now: Duration,
        random: u64,
    ) -> Verdict {
        let client = Client::from(client).network;
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let place = usize::try_from(secret.hash(client, 0) >> (64 - SETS.ilog2())).unwrap_or(0);
        let Some(set) = self.sets.get_mut(place) else {
            // There is a set for every value of that many bits.
            return Verdict::Pass;
        };
        let known = set
            .iter_mut()
            .find(|bucket| bucket.client == client && bucket.full_at > now);
        if let Some(bucket) = known {
            let tolerated = limit.interval * u64::from(limit.burst - 1);
            if bucket.full_at - now > tolerated {
                return over(random);
            }
            bucket.full_at = bucket.full_at.saturating_add(limit.interval);
        } else if let Some(fullest) = set.iter_mut().min_by_key(|bucket| bucket.full_at) {
            *fullest = Bucket {
                client,
                full_at: now.saturating_add(limit.interval),
            };
        }
        Verdict::Pass
    }
}

impl Default for Limiter {
    fn default() -> Self {
        Self::new()
    }
}

/// A request beyond the limit. It takes nothing out of the bucket, so that a flood does not
/// lengthen the wait.
const fn over(random: u64) -> Verdict {
    match random >> 60 {
        0..4 => Verdict::Pass,
        4 => Verdict::Kiss,
        _ => Verdict::Drop,
    }
}

fn number(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

const NANOS: u64 = 1_000_000_000;
const SETS: usize = 128;
const WAYS: usize = 8;
const UNUSED: Bucket = Bucket {
    client: 0,
    full_at: 0,
};

#[cfg(test)]
mod tests {
    extern crate std;
    use core::net::{Ipv4Addr, Ipv6Addr};
    use std::boxed::Box;
    use std::string::ToString;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// Random numbers that are the same in every run (xorshift64*).
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
        }
    }

    struct Rig {
        limiter: Box<Limiter>,
        limit: Limit,
        secret: Secret,
        random: Random,
    }

    impl Rig {
        fn new(limit: &str) -> Self {
            let mut random = Random(0x9e37_79b9_7f4a_7c15);
            Self {
                limiter: Box::new(Limiter::new()),
                limit: Limit::parse(limit).expect(limit),
                secret: Secret::new(|| random.next()),
                random,
            }
        }

        fn ask(&mut self, client: IpAddr, now: Duration) -> Verdict {
            let random = self.random.next();
            self.limiter
                .judge(self.limit, &self.secret, client, now, random)
        }

        /// Without leak or kiss.
        fn strictly(&mut self, client: IpAddr, now: Duration) -> bool {
            let verdict = self
                .limiter
                .judge(self.limit, &self.secret, client, now, u64::MAX);
            verdict == Verdict::Pass
        }
    }

    fn four(bits: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(bits))
    }

    fn six(bits: u128) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from_bits(bits))
    }

    const CLIENT: u32 = 0x0a00_0202;

    #[test]
    fn a_burst_and_then_one_each_interval() {
        let mut rig = Rig::new("8,8s");
        let start = Duration::from_secs(100);
        let passed = (0..20).filter(|_| rig.strictly(four(CLIENT), start));
        assert_eq!(passed.count(), 8);
        // Ten minutes of asking each second: one in eight seconds.
        let later = (1..=600).filter(|&at| {
            let now = start + Duration::from_secs(at);
            rig.strictly(four(CLIENT), now)
        });
        assert_eq!(
            later.collect::<Vec<_>>(),
            (8..=600).step_by(8).collect::<Vec<_>>()
        );
        // After 64 s of silence the bucket is full.
        let rested = start + Duration::from_secs(664);
        let passed = (0..20).filter(|_| rig.strictly(four(CLIENT), rested));
        assert_eq!(passed.count(), 8);
    }

    #[test]
    fn a_client_that_keeps_to_the_limit_never_notices_it() {
        let mut rig = Rig::new("1,1s");
        for second in 0..1000 {
            assert!(rig.strictly(four(CLIENT), Duration::from_secs(second)));
        }
    }

    #[test]
    fn about_every_fourth_leaks_and_now_and_then_there_is_a_kiss() {
        let mut rig = Rig::new("1,3600s");
        rig.ask(four(CLIENT), Duration::ZERO);
        let mut counts = [0; 3];
        for _ in 0..16_000 {
            match rig.ask(four(CLIENT), Duration::from_secs(1)) {
                Verdict::Pass => counts[0] += 1,
                Verdict::Kiss => counts[1] += 1,
                Verdict::Drop => counts[2] += 1,
            }
        }
        assert!((3600..4400).contains(&counts[0]), "{counts:?}");
        assert!((850..1150).contains(&counts[1]), "{counts:?}");
    }

    #[test]
    fn a_spoofer_cannot_starve_a_victim() {
        // A thousand requests a second in the victim's name, for as long as it likes; the victim
        // asks every 64 s.
        let mut rig = Rig::new("8,8s");
        let mut answered = 0;
        for second in 0..64 * 50_u64 {
            for part in 0..1000 {
                let now = Duration::from_millis(second * 1000 + part);
                let verdict = rig.ask(four(CLIENT), now);
                if second % 64 == 13 && part == 500 {
                    answered += u32::from(verdict == Verdict::Pass);
                }
            }
        }
        assert!((5..25).contains(&answered), "{answered} of 50");
    }

    #[test]
    fn a_million_addresses_lift_no_limit_and_starve_nobody() {
        let mut rig = Rig::new("8,8s");
        let start = Duration::from_secs(1);
        // An abuser, well over its limit.
        while rig.strictly(four(CLIENT), start) {}
        let mut denied = 0;
        for number in 0..1_000_000_u32 {
            let now = start + Duration::from_micros(u64::from(number));
            let other = 0x0b00_0000 + number;
            denied += u32::from(!rig.strictly(four(other), now));
        }
        assert_eq!(denied, 0, "a first request is always answered");
        let end = start + Duration::from_secs(1);
        assert!(
            !rig.strictly(four(CLIENT), end),
            "the abuser is still known"
        );
        // And somebody new is served as if nothing were.
        let passed = (0..20).filter(|_| rig.strictly(four(0x0c00_0001), end));
        assert_eq!(passed.count(), 8);
    }

    #[test]
    fn ipv6_clients_are_their_networks() {
        let mut rig = Rig::new("2,10s");
        let network: u128 = 0x2001_0db8_0000_0001 << 64;
        for host in 0..100 {
            assert_eq!(
                rig.strictly(six(network | host << 40), Duration::ZERO),
                host < 2
            );
        }
        assert!(rig.strictly(six(network + (1 << 64)), Duration::ZERO));
    }

    #[test]
    fn the_end_of_time_is_survived() {
        let mut rig = Rig::new("1000,3600s");
        for _ in 0..2000 {
            rig.ask(four(CLIENT), Duration::MAX);
            rig.ask(four(CLIENT), Duration::from_nanos(u64::MAX - 1));
            rig.ask(four(CLIENT), Duration::ZERO);
        }
    }

    #[test]
    fn the_poll_asked_for_is_the_interval_rounded_up() {
        for (text, poll) in [
            ("8,1ms", 0),
            ("8,1s", 0),
            ("8,1001ms", 1),
            ("8,2s", 1),
            ("8,8s", 3),
            ("8,9s", 4),
            ("1,3600s", 12),
        ] {
            let limit = Limit::parse(text).expect(text);
            assert_eq!((limit.poll(), limit.to_string()), (poll, text.to_string()));
        }
    }

    #[test]
    fn malformed_limits() {
        for text in [
            "",
            "8",
            "8,",
            ",8s",
            "8,8",
            "0,8s",
            "1001,8s",
            "8,0s",
            "8,0ms",
            "8,3601s",
            "8,-1s",
            "+8,8s",
            "8,+8s",
            "8,8m",
            "8,8.5s",
            "8, 8s",
            "8,8s,",
            "65537,8s",
            "8,ms",
            "8,s",
            "8,99999999999999999999s",
            "8,18446744073709551615s",
        ] {
            assert_eq!(Limit::parse(text), None, "{text}");
        }
    }

    proptest! {
        /// In no stretch of time does a client get more than the burst and one for each interval
        /// (leaks apart), and it never waits longer than an interval.
        #[test]
        fn never_more_than_the_limit(
            burst in 1_u16..20,
            interval in 1_u64..100,
            gaps in prop::collection::vec(0_u64..200, 1..300),
        ) {
            let mut rig = Rig::new("1,1s");
            rig.limit = Limit::new(burst, Duration::from_millis(interval)).expect("a limit");
            let mut now = 0;
            let mut passed = Vec::new();
            for gap in gaps {
                now += gap / 10;
                if rig.strictly(four(CLIENT), Duration::from_millis(now)) {
                    passed.push(now);
                } else {
                    prop_assert!(passed.last().is_some_and(|last| now - last < interval));
                }
            }
            for (first, start) in passed.iter().enumerate() {
                for (last, end) in passed.iter().enumerate().skip(first) {
                    let most = u64::from(burst) + (end - start) / interval;
                    prop_assert!(((last - first) as u64) < most);
                }
            }
        }
    }
}
