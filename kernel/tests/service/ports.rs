//! The serial ports that give the time to programs.

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

fn said(line: &Line) -> String {
    String::from_utf8(line.shown()).unwrap()
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
    said(&rig.second);
    for second in 1..4 {
        just_before(&rig, second);
        turns(&mut rig, 2000);
        let told = said(&rig.second);
        let expected = format!("$GPRMC,12000{second}.00,A,,,,,,,201126,,,A*");
        assert!(told.starts_with(&expected), "{told}");
        assert_eq!(told.lines().count(), 2, "{told}");
    }
    rig.second.type_in(b"\rpoweroff\r");
    rig.line.type_in(b"time\r");
    turns(&mut rig, 3);
    let shown = said(&rig.line);
    assert!(shown.contains("2026-11-20T12:00:0"), "{shown}");
    assert!(!shown.contains("GPRMC") && !said(&rig.second).contains("gnomon>"));
}

#[test]
fn a_port_for_programs_says_nothing_else() {
    let mut rig = rig(&good(1, NOON), &format!("{STATIC} serial=nmea"));
    rig.uptime.set(Duration::from_secs(3));
    turns(&mut rig, 3);
    // What would be a log line.
    rig.publish(&good(2, NOON + 5));
    rig.uptime.set(Duration::from_secs(9));
    turns(&mut rig, 3);
    let told = said(&rig.line);
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
        let told = said(&rig.line);
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
    assert_eq!(said(&rig.line), "", "nothing unasked");
    // Four requests, then half of one.
    rig.line.type_in(b"\n\r\nwhat time is it?\r\xff\x00\nhal");
    let before = rig.counter.0.ticks.get();
    turns(&mut rig, 40);
    let after = rig.counter.0.ticks.get();
    let told = said(&rig.line);
    let objects: Vec<&str> = told.lines().collect();
    assert_eq!(objects.len(), 4, "{told}");
    let counter = |object: &str| -> u64 {
        let (_, rest) = object.split_once("\"counter\":\"").unwrap();
        rest.split_once('"').unwrap().0.parse().unwrap()
    };
    let counters: Vec<u64> = objects.iter().map(|object| counter(object)).collect();
    assert!(counters.is_sorted() && counters[0] > before && counters[3] < after);
    rig.line.type_in(b"f\n");
    turns(&mut rig, 40);
    let told = said(&rig.line);
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(counter(&told) > after, "after the request's last byte");
    // A disruption is told as such, and no time with it.
    rig.publish(&Fields {
        clock_status: 1,
        ..good(2, NOON)
    });
    rig.line.type_in(b"\n");
    turns(&mut rig, 3);
    let told = said(&rig.line);
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
    said(&rig.line);
    for second in 1..=7 {
        just_before(&rig, second);
        turns(&mut rig, 2000);
    }
    let told = said(&rig.line);
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
        said(&rig.line);
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
        let told = said(&rig.line);
        assert_eq!(told, "$GPRMC,120001.00,A,,\r\n", "{disrupted}");
    }
}
