//! What takes the service down, what brings it back, and what the operator sees of it.

use gnomon_clock::ClockStatus;

use super::*;

/// What a client is told: the kiss code, or `time`.
fn told(rig: &mut Rig) -> String {
    let reply = rig.ask().unwrap();
    if leap(&reply) != 3 {
        assert_ne!(reply[1], 0, "a stratum");
        return String::from("time");
    }
    assert_eq!(reply[1], 0, "no stratum");
    assert_eq!(
        (&reply[16..24], &reply[32..48]),
        (&[0; 8][..], &[0; 16][..]),
        "no stamp"
    );
    String::from_utf8(reply[12..16].to_vec()).unwrap()
}

fn status(fields: &Fields, status: ClockStatus) -> Fields {
    Fields {
        clock_status: status as u8,
        ..*fields
    }
}

fn expecting(fields: &Fields, flags: u64) -> Fields {
    Fields {
        flags: fields.flags | flags,
        ..*fields
    }
}

fn booted(fields: &Fields, words: &str) -> Rig {
    let mut rig = rig(fields, &format!("ip=10.0.2.15/24 {words}"));
    rig.exchange(&[]);
    rig.clear_screen();
    rig
}

#[test]
fn draining_table() {
    let (soon, imminent) = (flag::DISRUPTION_SOON, flag::DISRUPTION_IMMINENT);
    for (drain, flags, expected) in [
        ("off", 0, "time"),
        ("off", soon, "time"),
        ("off", imminent, "time"),
        ("soon", 0, "time"),
        ("soon", soon, "XDRN"),
        ("soon", imminent, "XDRN"),
        ("soon", soon | imminent, "XDRN"),
        ("imminent", 0, "time"),
        ("imminent", soon, "time"),
        ("imminent", imminent, "XDRN"),
        ("imminent", soon | imminent, "XDRN"),
    ] {
        let mut rig = booted(&good(1, NOON), &format!("drain={drain}"));
        assert_eq!(told(&mut rig), "time");
        rig.publish(&expecting(&good(1, NOON), flags));
        // The very next reply.
        assert_eq!(told(&mut rig), expected, "drain={drain}, {flags:#x}");
        rig.publish(&good(1, NOON));
        assert_eq!(told(&mut rig), "time", "back when the flag clears");
        rig.publish(&expecting(&good(1, NOON), flags));
        assert_eq!(told(&mut rig), expected);
        rig.publish(&good(2, NOON));
        assert_eq!(told(&mut rig), "time", "back after the disruption");
        // A disruption after which another one is expected.
        rig.publish(&expecting(&good(3, NOON), flags));
        assert_eq!(told(&mut rig), expected);
    }
}

#[test]
fn draining_is_shown() {
    let mut rig = booted(&good(1, NOON), "drain=imminent");
    rig.publish(&expecting(&good(1, NOON), flag::DISRUPTION_IMMINENT));
    told(&mut rig);
    rig.pass(Duration::from_millis(5));
    let why = "draining, because the host expects a disruption";
    assert!(
        rig.screen()
            .contains(&format!("service: no time is served, XDRN: {why}\r\n")),
        "{}",
        rig.screen()
    );
    let status = rig.type_line("status");
    for line in [
        &format!("serving     no time, XDRN: {why}\r\n"),
        "note        the host expects a disruption within the hour\r\n",
        "XDRN 1\r\n",
    ] {
        assert!(status.contains(line), "{line} not in {status}");
    }
    assert!(
        rig.type_line("time").contains("2026-11-20T12:00:00."),
        "the console still tells it"
    );
    rig.clear_screen();
    rig.publish(&good(1, NOON));
    rig.pass(Duration::from_secs(1));
    assert!(
        rig.screen()
            .contains("service: time is not withheld any more\r\n"),
        "{}",
        rig.screen()
    );
    assert!(rig.type_line("status").contains("serving     time\r\n"));
}

#[test]
fn holdover_ends() {
    let second = Duration::from_secs(1);
    let mut rig = booted(&good(1, NOON), "holdover.max=60");
    rig.pass(100 * second);
    assert_eq!(told(&mut rig), "time", "synchronized is no holdover");
    let mut page = status(&rig.now(&good(1, NOON)), ClockStatus::Freerunning);
    rig.publish(&page);
    for _ in 0..59 {
        rig.pass(second);
        assert_eq!(told(&mut rig), "time");
    }
    // A host that goes on updating the page does not win time by it.
    page = rig.now(&page);
    rig.publish(&page);
    assert_eq!(told(&mut rig), "time");
    rig.pass(2 * second);
    assert_eq!(told(&mut rig), "XHLD");
    page = rig.now(&page);
    rig.publish(&page);
    assert_eq!(told(&mut rig), "XHLD");
    // Nor by a disruption, nor by setting its clock back.
    let other = Fields {
        disruption_marker: 2,
        time_sec: page.time_sec - 3600,
        ..page
    };
    rig.publish(&other);
    assert_eq!(told(&mut rig), "XHLD");
    let shown = rig.type_line("status");
    assert!(
        shown.contains("holdover    for 61.") && shown.contains(" s of 60 s allowed\r\n"),
        "{shown}"
    );
    assert!(
        shown.contains(
            "serving     no time, XHLD: the host's clock has been freerunning for longer than \
             holdover.max\r\n"
        ),
        "{shown}"
    );
    // Meanwhile the network was told of another life.
    rig.exchange(&[]);
    rig.publish(&status(&other, ClockStatus::Synchronized));
    assert_eq!(told(&mut rig), "time");
    // And again from the beginning.
    rig.publish(&other);
    rig.pass(59 * second);
    assert_eq!(told(&mut rig), "time");
    rig.pass(2 * second);
    assert_eq!(told(&mut rig), "XHLD");
}

#[test]
fn a_clock_that_nobody_saw_synchronized_is_as_old_as_its_page() {
    let freerunning = status(&good(1, NOON), ClockStatus::Freerunning);
    // 50 s before the guest's first look.
    let old = Fields {
        counter_value: 50_000_000_000_u64.wrapping_neg(),
        ..freerunning
    };
    let mut rig = booted(&old, "holdover.max=60");
    assert_eq!(told(&mut rig), "time");
    rig.pass(Duration::from_secs(11));
    assert_eq!(told(&mut rig), "XHLD");

    let mut never = booted(&freerunning, "holdover.max=0");
    assert_eq!(told(&mut never), "XHLD", "freerunning is not to be served");
    let mut for_ever = booted(&old, "");
    for_ever.pass(Duration::from_secs(100_000));
    assert_eq!(told(&mut for_ever), "time");
    let shown = for_ever.type_line("status");
    assert!(
        shown.contains("holdover    for 100050.") && shown.contains(" s, without limit\r\n"),
        "{shown}"
    );
}

#[test]
fn a_bound_of_no_use_is_not_called_time() {
    let wide = Fields {
        time_maxerror_nanosec: 17_000_000_000,
        ..good(1, NOON)
    };
    let mut rig = booted(&wide, "");
    assert_eq!(told(&mut rig), "XDSP");
    let status = rig.type_line("status");
    assert!(status.contains("serving     no time, XDSP\r\n"), "{status}");
}

/// The hours on a disk are hours in which nobody synchronized the clock.
#[test]
fn a_restored_snapshot_counts_its_sleep() {
    let mut rig = booted(&good(1, NOON), "holdover.max=3600");
    assert_eq!(told(&mut rig), "time");
    let restored = good(2, NOON + 86_400);
    rig.publish(&status(&restored, ClockStatus::Freerunning));
    assert_eq!(told(&mut rig), "XHLD");
    rig.publish(&restored);
    assert_eq!(told(&mut rig), "time");
}

#[test]
fn a_broken_promise_stops_the_service_if_asked() {
    for (words, expected, is_told) in [
        ("", "time", true),
        ("on_violation=alarm", "time", true),
        ("on_violation=serve", "time", false),
        ("on_violation=stop", "XAUD", true),
    ] {
        let mut rig = booted(&good(1, NOON), words);
        assert_eq!(told(&mut rig), "time");
        rig.publish(&rig.now(&good(1, NOON)));
        assert_eq!(told(&mut rig), "time", "an honest update");
        // An hour is gone, and no new marker says why.
        rig.publish(&good(1, NOON + 3600));
        assert_eq!(told(&mut rig), expected, "{words}");
        rig.pass(Duration::from_secs(1));
        let (stopped, screen) = (expected == "XAUD", rig.screen());
        assert_eq!(
            screen.contains("audit: time left the interval given before: seq "),
            is_told,
            "{words}: {screen}"
        );
        let line = "service: no time is served, XAUD: the host has broken a promise under this \
                    disruption marker\r\n";
        assert_eq!(screen.contains(line), stopped, "{screen}");
        let status = rig.type_line("status");
        for line in [
            "audit       updates 3, disruptions 0, violations 1, on_violation=",
            "latest      time left the interval given before: seq ",
            if stopped {
                "serving     no time, XAUD: the host"
            } else {
                "serving     time\r\n"
            },
        ] {
            assert!(status.contains(line), "{words}: {line} not in {status}");
        }
        let audit = rig.type_line("audit");
        for line in [
            "1           time left the interval given before\r\n",
            "0           counter went back\r\n",
            "\r\ntime left the interval given before: seq ",
        ] {
            assert!(audit.contains(line), "{line} not in {audit}");
        }

        // Honest again, under the same marker: once is enough.
        rig.publish(&rig.now(&good(1, NOON + 3600)));
        assert_eq!(told(&mut rig), expected);
        // A new marker without time ends nothing.
        rig.publish(&Fields {
            clock_status: ClockStatus::Initializing as u8,
            ..good(2, NOON)
        });
        assert_eq!(told(&mut rig), "STEP");
        rig.publish(&rig.now(&good(1, NOON + 3600)));
        assert_eq!(told(&mut rig), expected);
        rig.publish(&good(2, NOON + 7200));
        assert_eq!(told(&mut rig), "time", "a new start");
        rig.publish(&good(2, NOON));
        assert_eq!(told(&mut rig), expected, "and a new fault");
    }
}

/// Each reason stands for itself, and the gravest is told.
#[test]
fn reasons_have_an_order() {
    let mut rig = booted(
        &good(1, NOON),
        "drain=soon holdover.max=60 on_violation=stop",
    );
    assert_eq!(told(&mut rig), "time");
    let mut page = expecting(&good(1, NOON), flag::DISRUPTION_SOON);
    rig.publish(&page);
    assert_eq!(told(&mut rig), "XDRN");
    page = status(&page, ClockStatus::Freerunning);
    rig.publish(&page);
    rig.pass(Duration::from_secs(61));
    assert_eq!(told(&mut rig), "XHLD");
    page.time_sec += 3600;
    rig.publish(&page);
    assert_eq!(told(&mut rig), "XAUD");
    rig.publish(&Fields {
        disruption_marker: 2,
        ..rig.now(&page)
    });
    assert_eq!(told(&mut rig), "XHLD");
    page = status(&page, ClockStatus::Synchronized);
    page.disruption_marker = 2;
    rig.publish(&page);
    assert_eq!(told(&mut rig), "XDRN");
    rig.publish(&good(3, NOON));
    assert_eq!(told(&mut rig), "time");
}

#[test]
fn an_operator_can_give_the_offset() {
    let without = Fields {
        flags: flag::TIME_MAXERROR_VALID | flag::PERIOD_MAXERROR_VALID,
        tai_offset_sec: 0,
        ..good(1, NOON)
    };
    let mut plain = booted(&without, "");
    assert_eq!(told(&mut plain), "INIT", "TAI is no UTC");
    let status = plain.type_line("status");
    assert!(status.contains("serving     no time, INIT\r\n"), "{status}");

    for (page, words, note) in [
        (
            &without,
            "tai_offset=37",
            "TAI-UTC is that of the command line, for the page gives none",
        ),
        (
            &good(1, NOON),
            "tai_offset=37",
            "TAI-UTC of the page agrees with that of the command line",
        ),
        (
            &good(1, NOON),
            "tai_offset=38",
            "TAI-UTC is that of the page, not 38 as on the command line: one of them is wrong",
        ),
    ] {
        let mut rig = booted(page, words);
        let reply = rig.ask().unwrap();
        assert_eq!(
            (leap(&reply), seconds(&reply, 32)),
            (0, ntp_seconds(NOON)),
            "{words}"
        );
        let status = rig.type_line("status");
        assert!(
            status.contains(&format!("note        {note}\r\n")),
            "{status}"
        );
    }
}

/// Lines of the log on the screen.
fn log_lines(rig: &mut Rig) -> usize {
    rig.screen().matches("\r\n[ ").count()
}

#[test]
fn a_page_that_flips_does_not_flood_the_console() {
    let mut rig = booted(&good(1, NOON), "drain=soon on_violation=alarm");
    let milliseconds = 10_000;
    for round in 0..milliseconds {
        // Another marker, another status, another flag, and every other time a broken promise.
        let mut page = good(round / 2, NOON + 100 * (round % 2));
        page.clock_status = 2 + u8::try_from(round / 3 % 2).unwrap();
        if round % 5 == 0 {
            page.flags |= flag::DISRUPTION_SOON;
        }
        rig.publish(&page);
        rig.pass(Duration::from_millis(1));
    }
    let lines = log_lines(&mut rig);
    // Two a second, and what may be told at once at the beginning and beyond it at the end.
    assert!((20..=20 + 4 + 6).contains(&lines), "{lines} lines");
    assert!(
        rig.screen().contains("changes since the last line\r\n"),
        "says how much it does not tell"
    );
    rig.clear_screen();
    let last = status(&good(0xabc, NOON), ClockStatus::Freerunning);
    rig.publish(&last);
    for _ in 0..10 {
        rig.pass(Duration::from_secs(1));
    }
    assert!(
        rig.screen().contains("is now 0xabc; freerunning\r\n"),
        "the last word is told: {}",
        rig.screen()
    );
    rig.clear_screen();
    rig.pass(Duration::from_secs(10));
    assert_eq!(rig.screen(), "", "and only once");
}
