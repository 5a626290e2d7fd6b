//! ntpsec: its `ntpdig`, which asks once, and its `ntpd`, which sets the clock once.

use core::time::Duration;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::Instant;

use super::{Seat, Verdict, unpacked};
use crate::PATIENCE;
use crate::netns::Netns;

pub(super) fn ntpdig(seat: &Seat<'_>) -> Verdict {
    let server = seat.server.to_string();
    let (status, said) = seat.run(Command::new("ntpdig").args(["-d", "-t", "60", &server]));
    let find = |pattern| said.lines().find(|line| line.contains(pattern));
    if !status.success() {
        let line = find("Response dropped: stratum 0, probable KOD packet");
        let line = line.unwrap_or_else(|| panic!("neither: {said}"));
        assert!(said.contains("no eligible servers"), "{said}");
        return Verdict::Refuses(line.to_owned());
    }
    // `... +0.000071 +/- 0.000123 10.7.7.2 s1 no-leap`
    let line = find(" s1 no-leap").unwrap_or_else(|| panic!("no verdict: {said}"));
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let at = words.iter().position(|word| *word == "+/-");
    let at = at.unwrap_or_else(|| panic!("no bound: {said}"));
    let number = |word: &str| word.parse::<f64>().expect("a number");
    let (offset, bound) = (number(words[at - 1]), number(words[at + 1]));
    assert!(offset.abs() <= bound, "{said}");
    Verdict::Accepts(line.to_owned())
}

/// It is told to end after it has set the clock, or would have; a server that it refuses is one that it
/// goes on asking.
pub(super) fn ntpd(seat: &Seat<'_>) -> Verdict {
    let directory = seat.directory.display();
    // Without these restrictions it does not talk to ntpq.
    let configuration = format!(
        "server {} iburst minpoll 4\nrestrict default\nrestrict 127.0.0.1\ndriftfile {directory}/drift\n",
        seat.server
    );
    let file = seat.directory.join("conf");
    fs::write(&file, configuration).expect("our own directory");
    let mut ntpd = Command::new(unpacked("usr/sbin/ntpd"));
    let mut ntpd = seat.start(ntpd.args(["-n", "-q", "-g", "-c"]).arg(file));

    let deadline = Instant::now() + PATIENCE;
    loop {
        thread::sleep(Duration::from_millis(500));
        // The last line it says: `ntpd: time slew +0.000071s`.
        let log = ntpd.log();
        if let Some(line) = log.lines().find(|line| line.starts_with("ntpd: time ")) {
            assert!(ntpd.wait().success(), "{log}");
            // `set` in place of `slew` above 0.128 s. It believes no server that is farther away than 1.5 s.
            let word = line
                .split(' ')
                .next_back()
                .and_then(|word| word.strip_suffix('s'));
            let offset: f64 = word.and_then(|word| word.parse().ok()).expect("an offset");
            assert!(offset.abs() <= 1.5, "{log}");
            return Verdict::Accepts(line.to_owned());
        }
        // What it holds against the last packet is named `pkt_...`.
        let said = ntpq(seat);
        let flash = said.lines().find(|line| line.contains("flash="));
        if let Some(line) = flash
            && line.contains(" pkt_")
            && said.contains("sel_reject")
        {
            return Verdict::Refuses(format!("sel_reject, {line}"));
        }
        assert!(
            Instant::now() < deadline,
            "it has got no further: {said}\n{log}"
        );
    }
}

/// ntpd with the guest's first serial port for its reference clock, in a network of its own, for the other one has the
/// ports of this.
pub(super) fn refclock(seat: &Seat<'_>) -> Verdict {
    let netns = Netns::new();
    let seat = &Seat {
        netns: &netns,
        ..*seat
    };
    let (directory, terminal) = (seat.directory.display(), &seat.serial[0]);
    let configuration = format!(
        "refclock nmea unit 0 mode 1 path {terminal} baud 9600 minpoll 4 maxpoll 4\ndisable ntp\n\
         restrict default\nrestrict 127.0.0.1\ndriftfile {directory}/drift\n"
    );
    let file = seat.directory.join("conf");
    fs::write(&file, configuration).expect("our own directory");
    let mut ntpd = Command::new(unpacked("usr/sbin/ntpd"));
    let ntpd = seat.start(ntpd.args(["-n", "-g", "-c"]).arg(file));
    let deadline = Instant::now() + PATIENCE;
    loop {
        thread::sleep(Duration::from_secs(1));
        let mut command = Command::new(unpacked("usr/bin/ntpq"));
        command.args(["-n", "-c", "peers", "-c", "clockvar &1", "127.0.0.1"]);
        let said = seat.run(&mut command).1;
        // `*NMEA(0) .GPS. 0 l 3 16 3 0.0000 -0.2271 2.1879`, in ms.
        if let Some(line) = said.lines().find(|line| line.starts_with("*NMEA(0)")) {
            let offset = line.split_ascii_whitespace().nth(8);
            let offset: f64 = offset.and_then(|word| word.parse().ok()).expect(line);
            assert!(offset.abs() <= 1500.0, "{said}");
            return Verdict::Accepts(line.to_owned());
        }
        let silent = said
            .lines()
            .find(|line| line.contains("timecode=\"$GPRMC,,V,"));
        if let Some(line) = silent {
            return Verdict::Refuses(line.to_owned());
        }
        assert!(Instant::now() < deadline, "{said}\n{}", ntpd.log());
    }
}

/// What ntpd thinks of its server.
fn ntpq(seat: &Seat<'_>) -> String {
    let mut command = Command::new(unpacked("usr/bin/ntpq"));
    command.args(["-n", "-c", "associations", "-c", "rv &1", "127.0.0.1"]);
    seat.run(&mut command).1
}
