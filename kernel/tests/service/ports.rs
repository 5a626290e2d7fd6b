//! The serial ports: the console, those that give the time to programs, and how long anybody waits for them.

use gnomon_kernel::console::BURST;

use super::*;

/// The time that `good` tells now and then goes on from a millisecond before the next second.
fn just_before(rig: &Rig, seconds: u64) {
    // The page has it that at 0 ticks it was NOON and a little.
    rig.counter
        .0
        .ticks
        .set(seconds * 1_000_000_000 - 1_000_000 - 61_036);
    rig.uptime.set(Duration::from_millis(seconds * 1000 - 1));
}

/// What the first port has said, and what the second has.
fn said(rig: &mut Rig) -> [String; 2] {
    rig.settle();
    [&rig.line, &rig.second].map(|line| String::from_utf8(line.shown()).unwrap())
}

fn turns(rig: &mut Rig, count: u32) {
    for _ in 0..count {
        rig.service.turn();
    }
}

#[test]
fn the_second_port_tells_each_second_and_the_first_keeps_its_shell() {
    let mut rig = rig(&good(1, NOON), &format!("{STATIC} serial2=nmea"));
    turns(&mut rig, 3);
    said(&mut rig);
    for second in 1..4 {
        just_before(&rig, second);
        turns(&mut rig, 2000);
        let [_, told] = said(&mut rig);
        let expected = format!("$GPRMC,12000{second}.00,A,,,,,,,201126,,,A*");
        assert!(told.starts_with(&expected), "{told}");
        assert_eq!(told.lines().count(), 2, "{told}");
    }
    rig.second.type_in(b"\rpoweroff\r");
    rig.line.type_in(b"time\r");
    let [shown, told] = said(&mut rig);
    assert!(shown.contains("2026-11-20T12:00:0"), "{shown}");
    assert!(!shown.contains("GPRMC") && !told.contains("gnomon>"));
}

#[test]
fn a_port_for_programs_says_nothing_else() {
    let mut rig = rig(&good(1, NOON), &format!("{STATIC} serial=nmea"));
    rig.uptime.set(Duration::from_secs(3));
    rig.settle();
    // What would be a log line.
    rig.publish(&good(2, NOON + 5));
    rig.uptime.set(Duration::from_secs(9));
    turns(&mut rig, 3);
    let [told, _] = said(&mut rig);
    let is_sentence =
        |line: &str| line.starts_with("$GP") && line.as_bytes()[line.len() - 3] == b'*';
    assert!(told.lines().all(is_sentence), "{told}");
}

#[test]
fn no_time_is_told_when_clients_would_get_none() {
    let unsynchronized = Fields {
        clock_status: 1,
        ..good(1, NOON)
    };
    let wide = Fields {
        time_maxerror_nanosec: 500_000_000,
        ..good(1, NOON)
    };
    let freerunning = Fields {
        clock_status: 3,
        ..good(1, NOON)
    };
    for (fields, words) in [
        (&unsynchronized, ""),
        (&wide, ""),
        (&freerunning, "holdover.max=0"),
    ] {
        let mut rig = rig(fields, &format!("{STATIC} serial=nmea {words}"));
        for second in 1..4 {
            just_before(&rig, second);
            turns(&mut rig, 2000);
        }
        let [told, _] = said(&mut rig);
        assert!(told.lines().count() >= 3, "{told}");
        assert!(
            told.lines().all(|line| line == "$GPRMC,,V,,,,,,,,,,N*53"),
            "{told}"
        );
    }
}

#[test]
fn each_line_is_answered_once_with_the_time_after_it() {
    let mut rig = rig(&good(1, NOON), &format!("{STATIC} serial=json"));
    turns(&mut rig, 3);
    let [told, _] = said(&mut rig);
    assert_eq!(told, "", "nothing unasked");
    // Four requests, then half of one.
    rig.line.type_in(b"\n\r\nwhat time is it?\r\xff\x00\nhal");
    let before = rig.counter.0.ticks.get();
    let [told, _] = said(&mut rig);
    let after = rig.counter.0.ticks.get();
    let objects: Vec<&str> = told.lines().collect();
    assert_eq!(objects.len(), 4, "{told}");
    let counter = |object: &str| -> u64 {
        let (_, rest) = object.split_once("\"counter\":\"").unwrap();
        rest.split_once('"').unwrap().0.parse().unwrap()
    };
    let counters: Vec<u64> = objects.iter().map(|object| counter(object)).collect();
    assert!(counters.is_sorted() && counters[0] > before && counters[3] < after);
    rig.line.type_in(b"f\n");
    let [told, _] = said(&mut rig);
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(counter(&told) > after, "after the request's last byte");
    // A disruption is told as such, and no time with it.
    rig.publish(&Fields {
        clock_status: 1,
        ..good(2, NOON)
    });
    rig.line.type_in(b"\n");
    let [told, _] = said(&mut rig);
    assert!(told.starts_with("{\"utc\":null,"), "{told}");
    assert!(
        told.contains("\"marker\":\"2\"") && told.contains("\"kiss\":\"STEP\""),
        "{told}"
    );
}

#[test]
fn a_period_is_kept() {
    let mut rig = rig(&good(1, NOON), &format!("{STATIC} serial=json,3"));
    turns(&mut rig, 3);
    said(&mut rig);
    for second in 1..=7 {
        just_before(&rig, second);
        turns(&mut rig, 2000);
    }
    let [told, _] = said(&mut rig);
    let starts: Vec<&str> = told.lines().map(|line| &line[..28]).collect();
    assert_eq!(
        starts,
        [
            "{\"utc\":\"2026-11-20T12:00:03.",
            "{\"utc\":\"2026-11-20T12:00:06."
        ]
    );
}

/// A reader that has stopped reading never gets a sentence of another time than its own.
#[test]
fn what_is_not_read_in_time_is_spoilt() {
    // Another second, or another life.
    for disrupted in [false, true] {
        let mut rig = rig(&good(1, NOON), &format!("{STATIC} serial=nmea"));
        turns(&mut rig, 3);
        said(&mut rig);
        rig.line.set_room(Some(20));
        just_before(&rig, 1);
        turns(&mut rig, 2000);
        if disrupted {
            rig.publish(&good(2, NOON));
        } else {
            just_before(&rig, 2);
        }
        turns(&mut rig, 2000);
        rig.line.set_room(None);
        turns(&mut rig, 3);
        let [told, _] = said(&mut rig);
        assert_eq!(told, "$GPRMC,120001.00,A,,\r\n", "{disrupted}");
    }
}

/// What a port may do in a round: the line's status and a burst of bytes out, and a burst of bytes in with the
/// status before each.
const PORT: usize = 1 + BURST + 2 * BURST;

/// One request waits in each round, of which there are ten a millisecond, until `is_over`. Returns the most that was done
/// on the ports in one of them.
fn serve_until(rig: &mut Rig, is_over: impl Fn(&Rig) -> bool) -> usize {
    let mut most = 0;
    for _ in 0..200_000 {
        let wire = &rig.wire.0;
        wire.borrow_mut()
            .to_guest
            .push_back(request(&CLIENT_REQUEST));
        rig.uptime.set(rig.uptime.get() + Duration::from_micros(90));
        let accesses = |rig: &Rig| {
            let ports = [&rig.line, &rig.second];
            ports
                .map(|line| line.0.borrow().accesses)
                .iter()
                .sum::<usize>()
        };
        let before = accesses(rig);
        rig.service.turn();
        most = most.max(accesses(rig) - before);
        let sent = core::mem::take(&mut wire.borrow_mut().from_guest);
        assert_eq!(leap(&reply(&sent[0])), 0, "answered in this round");
        if is_over(rig) {
            return most;
        }
    }
    panic!("no end");
}

/// Whoever says as much as he likes on both ports, and asks for as much as there is, costs an NTP request a burst on each.
#[test]
fn a_request_waits_for_one_burst_of_each_port_at_most() {
    let mut rig = rig(&good(1, NOON), &format!("{STATIC} serial2=json"));
    said(&mut rig);
    let start = rig.uptime.get();
    rig.line.type_in(b"time -n 100\r");
    rig.line.type_in(&b"status\r".repeat(20));
    rig.second.type_in(&b"\n".repeat(60));
    let has = |line: &Line, count: usize, what: &str| {
        let said = &line.0.borrow().shown;
        said.windows(what.len())
            .filter(|part| part == &what.as_bytes())
            .count()
            == count
    };
    let most = serve_until(&mut rig, |rig| {
        has(&rig.line, 20, "precision ") && has(&rig.second, 60, "}\r\n")
    });
    assert!((PORT..=2 * PORT).contains(&most), "{most} accesses");
    const { assert!(PORT <= 25, "as ARCHITECTURE.md says") };
    // Nobody has lost anything by that.
    let passed = rig.uptime.get().saturating_sub(start);
    let [shown, told] = said(&mut rig);
    assert!(!shown.contains("lost") && !told.contains("lost"));
    let times = shown.matches("TAI-UTC 37  synchronized\r\n").count();
    assert_eq!(times, 100 + 20, "`time`'s, and one in each `status`");
    assert!(
        told.lines()
            .all(|line| line.starts_with('{') && line.ends_with('}'))
    );
    // It goes out no faster than so many bytes in half a millisecond.
    let turns = usize::try_from(passed.as_micros() / 500).unwrap() + 1;
    let longer = shown.len().max(told.len());
    assert!(
        longer <= (turns + 8) * BURST && longer > turns * BURST / 2,
        "{longer} in {turns}"
    );
}

/// Nor does a flood of frames silence the console.
#[test]
fn the_console_has_its_turn_in_a_flood() {
    let mut rig = rig(&good(1, NOON), STATIC);
    said(&mut rig);
    rig.line.type_in(b"time\r");
    for _ in 0..1000 {
        // Twice what is looked at in a round.
        let flood = vec![request(&CLIENT_REQUEST); 64];
        rig.wire.0.borrow_mut().to_guest.extend(flood);
        assert!(rig.service.turn(), "there is more");
    }
    let shown = String::from_utf8(rig.line.shown()).unwrap();
    assert!(
        shown.ends_with("TAI-UTC 37  synchronized\r\ngnomon> "),
        "{shown}"
    );
}

/// A reader of sentences that talks all the time does not make them late.
#[test]
fn the_first_byte_of_a_second_does_not_wait() {
    let mut rig = rig(&good(1, NOON), &format!("{STATIC} serial=nmea"));
    said(&mut rig);
    rig.line.type_in(&b"x".repeat(10_000));
    just_before(&rig, 1);
    while rig.line.0.borrow().shown.is_empty() {
        rig.service.turn();
    }
    let since = rig.counter.0.ticks.get() + 61_036 - 1_000_000_000;
    assert!(
        since < 20_000,
        "{since} ns: a round or two, of some reads of the clock each"
    );
    assert_eq!(rig.line.shown(), b"$GPRMC,1", "the first burst");
}

/// While nothing can be sent, what was typed is heard.
#[test]
fn a_console_that_is_not_read_hears() {
    let mut rig = rig(&good(1, NOON), STATIC);
    said(&mut rig);
    rig.line.set_room(Some(0));
    rig.line.type_in(&b"status\r".repeat(30));
    while !rig.line.0.borrow().typed.is_empty() {
        rig.service.turn();
    }
    rig.line.set_room(None);
    let [shown, _] = said(&mut rig);
    assert!(
        shown.ends_with("\r\n[output lost: the console is not being read]\r\n"),
        "{shown}"
    );
}
