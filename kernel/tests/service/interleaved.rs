//! Replies in interleaved mode: when they are told to have left, and how far that can be off.

use proptest::prelude::*;

use super::*;

/// A client in interleaved mode that asks with the extension field 0xF323, where the dispersion is fine.
#[derive(Default)]
struct Client {
    asked: u8,
    named: [u8; 8],
}

impl Told {
    /// From the arrival of the request that `last` answers to the departure told of `last`.
    fn nanos_since(&self, last: &Self) -> u64 {
        let units = u128::from(self.transmit.wrapping_sub(last.receive));
        u64::try_from((units * 1_000_000_000) >> 32).unwrap()
    }
}

/// A reply to it.
#[derive(Debug)]
struct Told {
    is_interleaved: bool,
    receive: u64,
    transmit: u64,
    /// Rounded up to 4 ns.
    dispersion: u64,
}

impl Client {
    fn ask(&mut self, rig: &mut Rig) -> Told {
        self.asked += 1;
        let mut payload = CLIENT_REQUEST.to_vec();
        payload[24..32].copy_from_slice(&self.named);
        payload[32] = self.asked;
        payload.extend([0xf3, 0x23, 0, 28, 0xf5, 0xbe, 0xdd, 0x9a]);
        payload.extend([0; 20]);
        let sent = rig.exchange(&[request(&payload)]);
        let reply = reply(&sent[0]);
        self.named.copy_from_slice(&reply[32..40]);
        let stamp = |at| u64::from_be_bytes(reply[at..at + 8].try_into().unwrap());
        let dispersion = u32::from_be_bytes(reply[60..64].try_into().unwrap());
        Told {
            is_interleaved: reply[24..32] == payload[32..40],
            receive: stamp(32),
            transmit: stamp(40),
            dispersion: (u64::from(dispersion) * 1_000_000_000) >> 28,
        }
    }
}

/// What is known of a reply's departure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// The device was seen to be done with it so many microseconds after it was queued.
    After(u64),
    /// Too late, or never.
    Not,
}

const MICROSECOND: u64 = 1000;

/// A reply that the device takes so many microseconds to send, or for ever, with the next look of a service that has nothing
/// to do so long after it was queued; and the next reply. Returns how many nanoseconds after it was queued the first
/// is told to have left: what that may be too late is in the root dispersion, which is `alone` otherwise.
fn told_to_have_left(
    rig: &mut Rig,
    client: &mut Client,
    takes: Option<u64>,
    looks_at: u64,
    alone: u64,
) -> u64 {
    rig.wire.0.borrow_mut().takes = takes.map(|takes| takes * MICROSECOND);
    let last = client.ask(rig);
    let (received, queued) = {
        let wire = rig.wire.0.borrow();
        (wire.received + MICROSECOND, wire.sent)
    };
    let ticks = &rig.counter.0.ticks;
    ticks.set(ticks.get().max(queued + looks_at * MICROSECOND));
    rig.exchange(&[]);
    let next = client.ask(rig);
    assert!(next.is_interleaved);
    let told = received + next.nanos_since(&last);
    // The stamps are rounded to 0.5 ns, the dispersion to 4 ns.
    assert!(told + 1 >= queued, "{told}, queued at {queued}");
    let (late, added) = ((told + 1).saturating_sub(queued), next.dispersion - alone);
    assert!(
        added + 2 >= late && added <= late + 8,
        "{late} ns late, {added} ns added"
    );
    late
}

/// Every look takes two reads of the counter, a microsecond each.
const LOOKS: u64 = 8;

#[test]
fn a_reply_left_between_when_it_was_queued_and_when_it_was_seen_to_leave() {
    for (idle, takes, looks_at, seen) in [
        ("adaptive", Some(0), 10_000, Seen::After(0)),
        ("adaptive", Some(60), 10_000, Seen::After(60)),
        ("poll", Some(60), 10_000, Seen::After(60)),
        // Longer than anybody looks on without sleeping.
        ("adaptive", Some(400), 600, Seen::After(600)),
        ("poll", Some(400), 600, Seen::After(600)),
        ("halt", Some(60), 200, Seen::After(200)),
        ("halt", Some(0), 200, Seen::After(0)),
        ("adaptive", Some(400), 980, Seen::After(980)),
        ("adaptive", Some(400), 1020, Seen::Not),
        ("halt", Some(400), 1200, Seen::Not),
        ("adaptive", None, 600, Seen::Not),
        ("halt", None, 600, Seen::Not),
        ("poll", None, 600, Seen::Not),
    ] {
        let mut rig = rig(&good(1, NOON), &format!("{STATIC} idle={idle}"));
        let mut client = Client::default();
        let alone = client.ask(&mut rig).dispersion;
        for round in 0..3 {
            let case =
                format!("idle={idle}, takes {takes:?} us, looked at after {looks_at} us, {round}");
            let late = told_to_have_left(&mut rig, &mut client, takes, looks_at, alone);
            let expected = match seen {
                Seen::After(micros) => {
                    micros * MICROSECOND / 2..=(micros + LOOKS) * MICROSECOND / 2
                }
                Seen::Not => 0..=2,
            };
            assert!(expected.contains(&late), "{case}: {late} ns late");
        }
        let status = rig.type_line("status");
        assert!(status.contains("interleaved 5"), "{status}");
    }
}

proptest! {
    /// Whatever the device does and whenever it is looked at.
    #[test]
    fn a_reply_never_left_later_than_dispersion_says(
        idle in 0_usize..3,
        rounds in prop::collection::vec((prop::option::weighted(0.8, 0_u64..1500), 0_u64..1500), 1..8),
    ) {
        let idle = ["adaptive", "poll", "halt"][idle];
        let mut rig = rig(&good(1, NOON), &format!("{STATIC} idle={idle}"));
        let mut client = Client::default();
        let alone = client.ask(&mut rig).dispersion;
        // Not remembered before somebody has asked for the like.
        client.ask(&mut rig);
        for (takes, looks_at) in rounds {
            let late = told_to_have_left(&mut rig, &mut client, takes, looks_at, alone);
            let seen = takes.map_or(0, |takes| takes.max(looks_at) + LOOKS);
            prop_assert!(late <= seen.min(1000) * MICROSECOND / 2 + 2, "{} ns late", late);
        }
    }
}

/// What happens between when a reply is queued and when it is seen to leave.
#[test]
fn a_disruption_on_the_way_out_is_told_to_nobody() {
    type Disruption = fn(&mut Rig);
    let disruptions: [(Disruption, bool); 4] = [
        (|_| (), true),
        (|rig| rig.publish(&good(2, NOON + 3600)), false),
        // It has come and gone, and the old marker with it: pairs from before it are gone all the same.
        (
            |rig| {
                rig.publish(&good(2, NOON + 3600));
                rig.pass(Duration::from_millis(5));
                rig.publish(&good(1, NOON));
            },
            false,
        ),
        // The counter goes back, whatever the marker says.
        (|rig| rig.counter.0.ticks.set(1000), false),
    ];
    for (number, (disrupt, is_remembered)) in disruptions.iter().enumerate() {
        let mut rig = rig(&good(1, NOON), &format!("{STATIC} idle=halt"));
        rig.counter.0.ticks.set(50_000 * MICROSECOND);
        let mut client = Client::default();
        for _ in 0..3 {
            client.ask(&mut rig);
        }
        rig.wire.0.borrow_mut().takes = None;
        client.ask(&mut rig);
        disrupt(&mut rig);
        rig.wire.0.borrow_mut().takes = Some(0);
        rig.wire.0.borrow_mut().sent = 0;
        rig.exchange(&[]);
        assert_eq!(
            client.ask(&mut rig).is_interleaved,
            *is_remembered,
            "{number}"
        );
        client.ask(&mut rig);
        assert!(client.ask(&mut rig).is_interleaved, "{number}");
    }
}

/// Does this after so many reads of the counter.
fn after_reads(counter: &Gigahertz, reads: u32, action: impl FnOnce() + 'static) {
    let Some(reads) = reads.checked_sub(1) else {
        return counter.at_next_read(action);
    };
    let again = counter.clone();
    counter.at_next_read(move || {
        let action: Box<dyn FnOnce()> = Box::new(action);
        after_reads(&again, reads, action);
    });
}

/// Nobody waits for a departure once the next frame has come.
#[test]
fn a_frame_that_overtakes_a_departure_is_served_at_once() {
    for idle in ["adaptive", "poll"] {
        let mut rig = rig(&good(1, NOON), &format!("{STATIC} idle={idle}"));
        rig.wire.0.borrow_mut().takes = None;
        let mut client = Client::default();
        client.ask(&mut rig);
        // It comes while the service looks on.
        let (wire, came) = (rig.wire.clone(), Rc::new(Cell::new(0)));
        let (frame, at) = (request(&CLIENT_REQUEST), came.clone());
        after_reads(&rig.counter, 20, move || {
            let mut wire = wire.0.borrow_mut();
            at.set(wire.now());
            wire.to_guest.push_back(frame);
        });
        client.ask(&mut rig);
        let received = rig.wire.0.borrow().received;
        assert!(came.get() != 0 && received >= came.get(), "idle={idle}");
        assert!(received < came.get() + 5 * MICROSECOND, "idle={idle}");
        let next = client.ask(&mut rig);
        assert!(next.is_interleaved);
    }
}

/// All of a batch are told of, though they were queued before any of them was sent.
#[test]
fn a_batch_in_interleaved_mode() {
    let mut rig = rig(&good(1, NOON), STATIC);
    let mut names = vec![[0; 8]; 20];
    for round in 0..4 {
        let frames = (1..).zip(&names).map(|(number, name)| {
            let mut payload = CLIENT_REQUEST;
            payload[24..32].copy_from_slice(name);
            payload[32] = number;
            request(&payload)
        });
        let replies = rig.exchange(&frames.collect::<Vec<_>>());
        for ((number, name), frame) in (1..).zip(&mut names).zip(&replies) {
            let reply = reply(frame);
            // Its first request names nothing, and the reply to that is not remembered.
            assert_eq!(reply[24] == number, round >= 2, "{round}");
            name.copy_from_slice(&reply[32..40]);
        }
    }
}
