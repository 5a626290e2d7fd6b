//! The time on a serial line, in a guest.

use core::time::Duration;
use std::os::unix::fs::DirBuilderExt;
use std::time::{Instant, SystemTime};

use gnomon_tests::PATIENCE;
use gnomon_tests::guest::{Guest, machine};
use jiff::Timestamp;

gnomon_tests::on_both![
    sentences_are_told_each_second,
    requests_are_answered_in_order,
    the_second_port_gives_the_time_beside_the_shell,
    there_may_be_no_second_port,
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
    let directory = std::env::temp_dir().join(format!(
        "gnomon-serial-{}-{}",
        std::process::id(),
        gnomon_tests::arch().name()
    ));
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(&directory)
        .expect("a directory");
    let file = directory.join("second");
    let second = format!("file:{}", file.display());
    let machine = machine().append("serial2=nmea").arg("-serial").arg(second);
    let (mut guest, _) = Guest::boot(machine);
    let deadline = Instant::now() + PATIENCE;
    let said = loop {
        let said = std::fs::read_to_string(&file).unwrap_or_default();
        if said.matches("$GPZDA,").count() >= 2 && said.ends_with('\n') {
            break said;
        }
        assert!(Instant::now() < deadline, "{said}");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(said.lines().all(|line| line.starts_with("$GP")), "{said}");
    guest.time().expect("a time");
    // Nothing depends on its going.
    let _gone = std::fs::remove_dir_all(&directory);
}

fn there_may_be_no_second_port() {
    let (_guest, said) = Guest::boot(machine().append("serial2=nmea"));
    assert!(
        said.contains("serial2: there is no second serial port"),
        "{said}"
    );
}
