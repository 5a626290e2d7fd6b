//! Interleaved mode (RFC 9769): what a reply cannot tell of itself, the next one tells.
//!
//! A reply leaves later than the transmit stamp in it says, for the stamp has to be written first.
//! A client in interleaved mode names in its next request the *receive* stamp of the reply it has,
//! and is told when that reply really left.
//!
//! # When a reply left
//!
//! That moment D is not known from inside. What is known is K, a stamp from before the device could have the
//! frame, and mostly S, one from when the device was seen to be done with it. K ≤ D ≤ S if the device is honest,
//! and the estimate D' with the least greatest error is the middle, (K + S)/2. What delays both ways alike, as
//! when one thread of the host is woken for both, still cancels by half then; with S it would not at all.
//!
//! A client that is told D' computes with c = T4 − D', and a = T2 − T1, the offset (a − c)/2 and the delay a + c,
//! and takes the true offset to be within delay/2 + root dispersion. With its clock right, that is
//! |a − c|/2 ≤ (a + c)/2 + ε. Since a ≥ 0, this holds
//!
//! * where c ≥ 0, with any ε, as in basic mode;
//! * where c < 0, for ε ≥ −c. Nothing arrives before it left, T4 ≥ D, so −c ≤ D' − D ≤ D' − K.
//!
//! So a reply that is told with the middle has **(S − K)/2 in its root dispersion**, and one that is told with K
//! nothing. None of this asks when D was, nor for the device's honesty: any S will do that is not before K. What the
//! device's word is good for is the offset. The middle is told if S was seen within a millisecond of K. K is told
//! if another frame came first, or it took longer: then the client sees a long path.
//!
//! # What is kept
//!
//! A server keeps pairs of the two stamps, and the rest is care:
//!
//! * A pair is found by the client's address, the scale, and the receive stamp, all whole. A stamp that was
//!   given to one address twice (a counter that did not move) is no name for a reply, and is
//!   never answered to.
//! * A pair is used once, so a duplicate of a request is answered in basic mode, and so is
//!   every request whose pair is not there: lost, pushed out, or never kept.
//! * Pairs from before a disruption are gone with it.
//! * Nothing is kept for a client that does not ask for it. Receive stamps are sent with their
//!   lowest bit set and transmit stamps with it clear (chrony's device), so that what a request
//!   names shows by itself whether the client speaks of a receive stamp; clients in basic mode name a
//!   transmit stamp or nothing. The third reply to a new client is the first interleaved one.
//! * One address falls on four of the table's sets, by a secret hash. Whoever floods the
//!   server from one address, or in the name of one, pushes out pairs of few others; they are
//!   answered in basic mode then.

use super::secret::{Client, Secret};

/// Pairs that are kept.
pub const CAPACITY: usize = SETS * WAYS;

/// What a client names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    /// Who was replied to.
    pub client: Client,
    /// The receive stamp of the reply; odd.
    pub receive: u64,
    /// The scale of the service, by its reference id.
    pub scale: [u8; 4],
}

/// When an earlier reply left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departure {
    /// The true transmit stamp: not zero, its lowest bit clear.
    pub transmit: u64,
    /// The error of it and of the receive stamp, and the precision, in 2^-28 s, rounded up.
    pub error: u32,
}

/// The pairs.
#[derive(Debug)]
pub struct Pairs {
    sets: [[Pair; WAYS]; SETS],
    /// The disruption marker that all of them were kept under.
    marker: u64,
    /// Counts what is kept; tells the older of two pairs.
    count: u32,
}

#[derive(Clone, Copy, Debug)]
struct Pair {
    /// The receive stamp in it is zero in a place that was never used.
    name: Name,
    /// The transmit stamp; zero when the pair has been used or means two replies.
    transmit: u64,
    error: u32,
    number: u32,
}

impl Pairs {
    /// No pairs yet.
    #[expect(
        clippy::large_stack_arrays,
        reason = "for statics; whoever puts it on a stack knows how big it is"
    )]
    #[must_use]
    pub const fn new() -> Self {
        Self {
            sets: [[UNUSED; WAYS]; SETS],
            marker: 0,
            count: 0,
        }
    }

    /// Takes out when the reply of that name left, if that is known and was kept under the disruption
    /// marker `marker`.
    pub fn take(&mut self, secret: &Secret, marker: u64, name: &Name) -> Option<Departure> {
        self.follow(marker);
        let pair = find(self.set(secret, name)?, name)?;
        // What stays behind is the name, so that it cannot be given again unnoticed.
        let transmit = core::mem::replace(&mut pair.transmit, 0);
        (transmit != 0).then_some(Departure {
            transmit,
            error: pair.error,
        })
    }

    /// Keeps that the reply of that name left at `departure`, all under the disruption marker `marker`.
    pub fn keep(&mut self, secret: &Secret, marker: u64, name: &Name, departure: Departure) {
        self.follow(marker);
        self.count = self.count.wrapping_add(1);
        let count = self.count;
        let Some(set) = self.set(secret, name) else {
            return;
        };
        if let Some(twin) = find(set, name) {
            twin.transmit = 0;
            twin.number = count;
            return;
        }
        let age = |pair: &&mut Pair| match pair.name.receive {
            0 => u32::MAX,
            _ => count.wrapping_sub(pair.number),
        };
        if let Some(oldest) = set.iter_mut().max_by_key(age) {
            *oldest = Pair {
                name: *name,
                transmit: departure.transmit,
                error: departure.error,
                number: count,
            };
        }
    }

    /// How many replies are remembered, of [`CAPACITY`].
    #[must_use]
    pub fn remembered(&self) -> usize {
        let pairs = self.sets.as_flattened().iter();
        pairs.filter(|pair| pair.name.receive != 0).count()
    }

    /// Forgets all pairs. Out of line: it happens once in a life.
    #[inline(never)]
    pub fn clear(&mut self) {
        self.sets.as_flattened_mut().fill(UNUSED);
    }

    fn follow(&mut self, marker: u64) {
        if marker != self.marker {
            self.clear();
            self.marker = marker;
        }
    }

    /// The set of a name; there is one for every value of that many bits.
    fn set(&mut self, secret: &Secret, name: &Name) -> Option<&mut [Pair; WAYS]> {
        let Name {
            client, receive, ..
        } = name;
        let of_client = secret.hash(client.network, client.host) >> (64 - SETS.ilog2());
        let of_stamp = receive >> 1 & (SPREAD - 1);
        self.sets
            .get_mut(usize::try_from(of_client ^ of_stamp).ok()?)
    }
}

impl Default for Pairs {
    fn default() -> Self {
        Self::new()
    }
}

fn find<'s>(set: &'s mut [Pair; WAYS], name: &Name) -> Option<&'s mut Pair> {
    // What differs mostly goes first. A place never used has the stamp zero, which is nobody's.
    set.iter_mut()
        .find(|pair| pair.name.receive == name.receive && pair.name == *name)
        .filter(|_| name.receive != 0)
}

const SETS: usize = 128;
const WAYS: usize = 8;
/// The sets that the pairs of one address are spread over, a power of two.
const SPREAD: u64 = 4;
const UNUSED: Pair = Pair {
    name: Name {
        client: Client {
            network: 0,
            host: 0,
        },
        receive: 0,
        scale: [0; 4],
    },
    transmit: 0,
    error: 0,
    number: 0,
};

#[cfg(test)]
mod tests {
    extern crate std;
    use std::boxed::Box;
    use std::collections::{HashMap, HashSet};
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn secret() -> Secret {
        let mut state = 1_u64;
        Secret::new(|| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            state ^ state >> 31
        })
    }

    const fn name(number: u64, receive: u64) -> Name {
        Name {
            client: Client {
                network: 0xff00_0000_0a00_0000 + number,
                host: 0,
            },
            receive,
            scale: *b"XVMC",
        }
    }

    const fn left(transmit: u64) -> Departure {
        Departure { transmit, error: 7 }
    }

    struct Rig(Box<Pairs>, Secret);

    impl Rig {
        fn new() -> Self {
            Self(Box::default(), secret())
        }
        fn take(&mut self, number: u64, marker: u64, receive: u64) -> Option<u64> {
            let taken = self.0.take(&self.1, marker, &name(number, receive))?;
            assert_eq!(taken.error, 7);
            Some(taken.transmit)
        }
        fn keep(&mut self, number: u64, marker: u64, receive: u64, transmit: u64) {
            self.0
                .keep(&self.1, marker, &name(number, receive), left(transmit));
        }
    }

    #[test]
    fn a_pair_is_used_once_and_by_its_client() {
        let mut rig = Rig::new();
        assert_eq!(rig.take(1, 0, 101), None);
        rig.keep(1, 0, 101, 200);
        assert_eq!(rig.take(2, 0, 101), None, "another client");
        assert_eq!(rig.take(1, 0, 103), None, "another stamp");
        assert_eq!(rig.take(1, 0, 200), None, "the transmit stamp");
        assert_eq!(rig.take(1, 0, 101), Some(200));
        assert_eq!(rig.take(1, 0, 101), None, "a duplicate");
    }

    #[test]
    fn zero_is_no_stamp() {
        let mut rig = Rig::new();
        let Pair { name: nobody, .. } = UNUSED;
        assert_eq!(rig.0.take(&rig.1, 0, &nobody), None);
        rig.0.keep(&rig.1, 0, &nobody, left(2));
        assert_eq!(rig.0.take(&rig.1, 0, &nobody), None);
    }

    #[test]
    fn a_pair_belongs_to_one_scale() {
        let mut rig = Rig::new();
        let smeared = Name {
            scale: *b"XSMR",
            ..name(1, 101)
        };
        rig.keep(1, 0, 101, 200);
        assert_eq!(rig.0.take(&rig.1, 0, &smeared), None);
        assert_eq!(rig.take(1, 0, 101), Some(200));
    }

    #[test]
    fn what_is_cleared_is_gone() {
        let mut rig = Rig::new();
        rig.keep(1, 0, 101, 200);
        rig.0.clear();
        assert_eq!(rig.take(1, 0, 101), None);
    }

    #[test]
    fn requests_that_overtake_each_other_get_their_own() {
        let mut rig = Rig::new();
        for number in 0..8 {
            rig.keep(1, 0, 101 + 2 * number, 200 + 2 * number);
        }
        for number in (0..8).rev() {
            assert_eq!(rig.take(1, 0, 101 + 2 * number), Some(200 + 2 * number));
        }
    }

    #[test]
    fn a_stamp_given_twice_names_nothing() {
        let mut rig = Rig::new();
        for _ in 0..3 {
            rig.keep(1, 0, 101, 200);
            rig.keep(1, 0, 101, 202);
            assert_eq!(rig.take(1, 0, 101), None);
        }
        rig.keep(1, 0, 103, 204);
        assert_eq!(rig.take(1, 0, 103), Some(204));
        rig.keep(1, 0, 103, 206);
        assert_eq!(rig.take(1, 0, 103), None, "used, and given again");
    }

    #[test]
    fn a_disruption_drops_everything() {
        let mut rig = Rig::new();
        rig.keep(1, 5, 101, 200);
        assert_eq!(rig.take(1, 6, 101), None);
        assert_eq!(rig.take(1, 5, 101), None, "also if the marker comes back");
        rig.keep(1, 5, 101, 200);
        rig.keep(2, 6, 101, 300);
        assert_eq!(rig.take(1, 6, 101), None);
        assert_eq!(rig.take(2, 6, 101), Some(300));
    }

    #[test]
    fn a_flood_from_one_address_costs_few_others_their_pairs() {
        let mut rig = Rig::new();
        for number in 1..=200 {
            rig.keep(number, 0, 101, 200);
        }
        for flood in 0..100_000 {
            rig.keep(0, 0, 1001 + 2 * flood, 4);
        }
        let left = (1..=200).filter(|&number| rig.take(number, 0, 101) == Some(200));
        let left = left.count();
        assert!(left >= 180, "{left} of 200");
    }

    #[test]
    fn more_clients_than_places() {
        let mut rig = Rig::new();
        for number in 0..1_000_000 {
            rig.keep(number, 0, 101 + 2 * number, 200 + 2 * number);
        }
        let mut left = 0;
        for number in 0..1_000_000 {
            let taken = rig.take(number, 0, 101 + 2 * number);
            assert!(taken.is_none_or(|transmit| transmit == 200 + 2 * number));
            left += usize::from(taken.is_some());
        }
        assert_eq!(left, CAPACITY, "every place has a late one");
    }

    /// What happens on a hostile network.
    #[derive(Clone, Debug)]
    enum Event {
        /// A client asks; its request arrives, once or twice; the reply arrives, or not.
        Ask {
            client: u64,
            twice: bool,
            lost: bool,
        },
        /// A client asks with a stamp from long ago: a request that was held up.
        Late { client: u64, back: usize },
        /// Somebody asks in the name of a client with a stamp that was sent to another, or guessed.
        Spoof { client: u64, stamp: u64 },
        /// The counter does not move until the next event.
        Stall,
        /// The virtual machine is moved.
        Disrupt,
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let client = 0_u64..6;
        let event = prop_oneof![
            8 => (client.clone(), any::<bool>(), prop::bool::weighted(0.2))
                .prop_map(|(client, twice, lost)| Event::Ask { client, twice, lost }),
            2 => (client.clone(), 0_usize..20)
                .prop_map(|(client, back)| Event::Late { client, back }),
            3 => (client, 0_u64..2000).prop_map(|(client, stamp)| Event::Spoof { client, stamp }),
            1 => Just(Event::Stall),
            1 => Just(Event::Disrupt),
        ];
        prop::collection::vec(event, 0..200)
    }

    /// The server around the pairs, and everything that was ever true.
    struct World {
        rig: Rig,
        now: u64,
        marker: u64,
        /// Transmit stamps of all replies by client and receive stamp, with the marker.
        truth: HashMap<(u64, u64), Vec<(u64, u64)>>,
        told: HashSet<(u64, u64)>,
        interleaved: usize,
    }

    impl World {
        /// One request arrives; returns the receive stamp of its reply.
        fn serve(&mut self, client: u64, origin: u64) -> u64 {
            if let Some(transmit) = self.rig.take(client, self.marker, origin) {
                let replies = &self.truth[&(client, origin)];
                assert_eq!(
                    replies,
                    &[(transmit, self.marker)],
                    "the one reply of that name"
                );
                assert!(self.told.insert((client, origin)), "told once");
                self.interleaved += 1;
            }
            let receive = self.now | 1;
            let transmit = (receive + 3) & !1;
            let replies = self.truth.entry((client, receive)).or_default();
            replies.push((transmit, self.marker));
            self.rig.keep(client, self.marker, receive, transmit);
            receive
        }
    }

    proptest! {
        /// Whatever the network does: what is told of a reply is true of exactly that reply, is told
        /// once, and never across a disruption.
        #[test]
        fn nothing_false_is_ever_told(events in events()) {
            let mut world = World {
                rig: Rig::new(),
                now: 11,
                marker: 1,
                truth: HashMap::new(),
                told: HashSet::new(),
                interleaved: 0,
            };
            let mut known: [Vec<u64>; 6] = Default::default();
            for event in events {
                world.now += 10;
                match event {
                    Event::Ask { client, twice, lost } => {
                        let seen = &mut known[usize::try_from(client).expect("small")];
                        let origin = seen.last().copied().unwrap_or(0);
                        let receive = world.serve(client, origin);
                        if twice {
                            world.now += 2;
                            world.serve(client, origin);
                        }
                        if !lost {
                            seen.push(receive);
                        }
                    }
                    Event::Late { client, back } => {
                        let seen = &known[usize::try_from(client).expect("small")];
                        let origin = seen.iter().rev().nth(back).copied().unwrap_or(0);
                        world.serve(client, origin);
                    }
                    Event::Spoof { client, stamp } => {
                        world.serve(client, stamp | 1);
                    }
                    Event::Stall => world.now -= 10,
                    Event::Disrupt => world.marker += 1,
                }
            }
        }

        /// And a network that does nothing gets an interleaved reply to every request but the first.
        #[test]
        fn a_quiet_network_is_served_interleaved(clients in 1_u64..50, rounds in 2_usize..6) {
            let mut world = World {
                rig: Rig::new(),
                now: 11,
                marker: 1,
                truth: HashMap::new(),
                told: HashSet::new(),
                interleaved: 0,
            };
            let mut origin = HashMap::new();
            for round in 0..rounds {
                for client in 0..clients {
                    world.now += 10;
                    let last = origin.get(&client).copied().unwrap_or(0);
                    origin.insert(client, world.serve(client, last));
                }
                prop_assert_eq!(world.interleaved, round * usize::try_from(clients).expect("small"));
            }
        }
    }
}
