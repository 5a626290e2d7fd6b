//! The time on a serial line, in a guest.

use core::time::Duration;
use std::time::{Instant, SystemTime};

use gnomon_qemu::Scenario;
use gnomon_tests::PATIENCE;
use gnomon_tests::guest::{Guest, machine};
use gnomon_tests::temporary::Temporary;
use jiff::Timestamp;

gnomon_tests::on_both![
    sentences_are_told_each_second,
    requests_are_answered_in_order,
    the_second_port_gives_the_time_beside_the_shell,
    there_may_be_no_second_port,
    the_inserted_second_is_told_in_sentences,
    the_deleted_second_is_left_out_of_sentences,
    the_inserted_second_is_told_in_json,
    the_deleted_second_is_left_out_of_json,
];

/// The instant that a pair of sentences is about.
fn instant(rmc: &str, zda: &str) -> Timestamp {
    let field = |line: &str, number| line.split(',').nth(number).expect("a field").to_owned();
    let (time, day, month, year) = (field(zda, 1), field(zda, 2), field(zda, 3), field(zda, 4));
    assert_eq!(time, field(rmc, 1), "{rmc} {zda}");
    assert_eq!(field(rmc, 9), format!("{day}{month}{}", &year[2..]));
    let text = format!(
        "{year}-{month}-{day}T{}:{}:{}Z",
        &time[..2],
        &time[2..4],
        &time[4..]
    );
    text.parse().expect("a time")
}

fn sentences_are_told_each_second() {
    let mut guest = Guest::start(machine().append("serial=nmea"));
    let mut last = None;
    for _ in 0..4 {
        let before = guest.wait_said("$GPRMC,");
        let rmc = guest.wait_said("\r\n");
        guest.wait_said("$GPZDA,");
        let zda = guest.wait_said("\r\n");
        let heard = Timestamp::now();
        if rmc.starts_with(",V") {
            last = None;
            continue;
        }
        let (rmc, zda) = (format!("$GPRMC,{rmc}"), format!("$GPZDA,{zda}"));
        let told = instant(&rmc, &zda);
        // No sentence is ahead of its time.
        assert!(told <= heard, "{told} {heard} {before}");
        assert!(last.is_none_or(|last| told > last));
        last = Some(told);
    }
    assert!(!guest.serial_log().contains("gnomon>"));
}

fn requests_are_answered_in_order() {
    let mut guest = Guest::start(machine().append("serial=json"));
    guest.client().ask_until_right().assert_right();
    let before = SystemTime::now();
    guest
        .send_serial("\nwhat time is it?\r\n\n")
        .expect("QEMU runs");
    let mut last = 0;
    for _ in 0..3 {
        guest.wait_said("{\"utc\":\"");
        let utc: Timestamp = guest
            .wait_said("Z")
            .trim_end_matches('"')
            .parse()
            .expect("a time");
        let line = guest.wait_said("\r\n");
        let number = |name: &str| -> u128 {
            let (_, rest) = line.split_once(&format!("\"{name}\":\"")).expect(name);
            rest.split('"')
                .next()
                .and_then(|text| text.parse().ok())
                .expect("a number")
        };
        let since = |time: SystemTime| {
            time.duration_since(SystemTime::UNIX_EPOCH)
                .expect("after 1970")
                .as_nanos()
        };
        let (earliest, latest) = (number("earliest"), number("latest"));
        assert!(
            latest >= since(before) && earliest <= since(SystemTime::now()),
            "{line}"
        );
        let told = u128::try_from(utc.as_nanosecond()).expect("after 1970");
        assert!((earliest..=latest).contains(&told), "{line}");
        assert!(number("counter") > last, "{line}");
        last = number("counter");
    }
    assert!(!guest.serial_log().contains("gnomon>"));
}

fn the_second_port_gives_the_time_beside_the_shell() {
    let file = Temporary::new("second");
    let second = format!("file:{}", file.path().display());
    let machine = machine().append("serial2=nmea").arg("-serial").arg(second);
    let (mut guest, _) = Guest::boot(machine);
    let deadline = Instant::now() + PATIENCE;
    let said = loop {
        let said = std::fs::read_to_string(file.path()).unwrap_or_default();
        if said.matches("$GPZDA,").count() >= 2 && said.ends_with('\n') {
            break said;
        }
        assert!(Instant::now() < deadline, "{said}");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(said.lines().all(|line| line.starts_with("$GP")), "{said}");
    guest.time().expect("a time");
}

fn there_may_be_no_second_port() {
    let (_guest, said) = Guest::boot(machine().append("serial2=nmea"));
    assert!(
        said.contains("serial2: there is no second serial port"),
        "{said}"
    );
}

const INSERTED: &str = include_str!("../../qemu/scenarios/leap-insert.scenario");
const DELETED: &str = include_str!("../../qemu/scenarios/leap-delete.scenario");

/// How often a leap second may go by without a word. A sentence that would be late is not sent, and who is not heard
/// while the second lasts has to be asked again.
const ATTEMPTS: u32 = 20;

fn play(guest: &Guest, scenario: &str) {
    let scenario = Scenario::parse(scenario).expect("a scenario");
    guest.publisher().play(scenario).expect("QEMU runs");
}

/// Plays a scenario to a guest that tells sentences until one of these times is told: those told, which are some of
/// `possible` and in that order.
fn sentences(scenario: &str, possible: &[&str], wanted: &str) -> Vec<String> {
    let mut guest = Guest::start(machine().append("serial=nmea"));
    guest.wait_said(",A,");
    for _ in 0..ATTEMPTS {
        play(&guest, scenario);
        let mut told: Vec<String> = Vec::new();
        let mut places = possible.iter();
        // Until the first day of the new month has begun.
        while told.last().is_none_or(|last| !last.contains(" 01/")) {
            guest.wait_said("$GPRMC,");
            let rmc = guest.wait_said("\r\n");
            if rmc.starts_with(",V") {
                continue;
            }
            guest.wait_said("$GPZDA,");
            let zda = guest.wait_said("\r\n");
            let fields: Vec<&str> = zda.split(',').collect();
            assert!(rmc.starts_with(fields[0]), "{rmc} {zda}");
            let text = format!("{} {}/{}/{}", fields[0], fields[1], fields[2], fields[3]);
            // The time of now, before the scenario begins.
            if !possible.iter().any(|time| text.ends_with(&time[9..])) {
                continue;
            }
            assert!(places.any(|time| *time == text), "{text} after {told:?}");
            told.push(text);
        }
        if told.iter().any(|time| time == wanted) {
            return told;
        }
    }
    panic!("{wanted} was not told in {ATTEMPTS} attempts");
}

fn the_inserted_second_is_told_in_sentences() {
    let possible = [
        "235958.00 31/12/2016",
        "235959.00 31/12/2016",
        "235960.00 31/12/2016",
        "000000.00 01/01/2017",
        "000001.00 01/01/2017",
        "000002.00 01/01/2017",
    ];
    let told = sentences(INSERTED, &possible, "235960.00 31/12/2016");
    println!("{told:?}");
}

fn the_deleted_second_is_left_out_of_sentences() {
    let possible = [
        "235958.00 30/06/2027",
        "000000.00 01/07/2027",
        "000001.00 01/07/2027",
        "000002.00 01/07/2027",
    ];
    let told = sentences(DELETED, &possible, "000000.00 01/07/2027");
    println!("{told:?}");
}

/// Plays a scenario to a guest that is asked again and again, until it has told this second of UTC. Gives each second
/// that it told with that of TAI, and TAI-UTC.
fn answers(scenario: &str, day: &str, wanted: &str) -> Vec<(String, String, i64)> {
    let mut guest = Guest::start(machine().append("serial=json"));
    guest.client().ask_until_right().assert_right();
    for _ in 0..ATTEMPTS {
        play(&guest, scenario);
        let mut told = Vec::new();
        let mut has_begun = false;
        loop {
            guest.send_serial("\n").expect("QEMU runs");
            guest.wait_said("{");
            let line = format!("{{{}", guest.wait_said("}"));
            let now: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            let (Some(utc), Some(tai)) = (now["utc"].as_str(), now["tai"].as_str()) else {
                continue;
            };
            has_begun |= utc.starts_with(day);
            if !has_begun {
                continue;
            }
            let offset = now["tai_offset"].as_i64().expect("a number");
            let row = (utc[..19].to_owned(), tai[..19].to_owned(), offset);
            if told.last() != Some(&row) {
                told.push(row);
            }
            if !utc.starts_with(day) {
                break;
            }
        }
        if told.iter().any(|(utc, ..)| utc == wanted) {
            return told;
        }
    }
    panic!("{wanted} was not told in {ATTEMPTS} attempts");
}

/// Every second told is one of these.
fn assert_among(told: &[(String, String, i64)], possible: &[(&str, &str, i64)]) {
    let mut places = possible.iter();
    for (utc, tai, offset) in told {
        let row = (utc.as_str(), tai.as_str(), *offset);
        assert!(places.any(|place| *place == row), "{row:?} of {told:?}");
    }
    println!("{told:?}");
}

fn the_inserted_second_is_told_in_json() {
    let told = answers(INSERTED, "2016-12-31", "2016-12-31T23:59:60");
    assert_among(
        &told,
        &[
            ("2016-12-31T23:59:57", "2017-01-01T00:00:33", 36),
            ("2016-12-31T23:59:58", "2017-01-01T00:00:34", 36),
            ("2016-12-31T23:59:59", "2017-01-01T00:00:35", 36),
            ("2016-12-31T23:59:60", "2017-01-01T00:00:36", 36),
            ("2017-01-01T00:00:00", "2017-01-01T00:00:37", 37),
            ("2017-01-01T00:00:01", "2017-01-01T00:00:38", 37),
        ],
    );
}

fn the_deleted_second_is_left_out_of_json() {
    let told = answers(DELETED, "2027-06-30", "2027-07-01T00:00:00");
    assert_among(
        &told,
        &[
            ("2027-06-30T23:59:57", "2027-07-01T00:00:34", 37),
            ("2027-06-30T23:59:58", "2027-07-01T00:00:35", 37),
            ("2027-07-01T00:00:00", "2027-07-01T00:00:36", 36),
            ("2027-07-01T00:00:01", "2027-07-01T00:00:37", 36),
        ],
    );
}
