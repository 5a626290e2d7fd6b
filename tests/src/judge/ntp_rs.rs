//! ntpd-rs: its daemon, and what that tells of its source.

use core::time::Duration;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::Instant;

use super::{Seat, Verdict, unpacked};
use crate::PATIENCE;

pub(super) fn ntp_daemon(seat: &Seat<'_>) -> Verdict {
    let directory = seat.directory.display();
    let configuration = format!(
        "[observability]\nlog-level = \"debug\"\nobservation-path = \"{directory}/socket\"\n\
         [synchronization]\nminimum-agreeing-sources = 1\n\
         [[source]]\nmode = \"server\"\naddress = \"{}\"\n",
        seat.server
    );
    let file = seat.directory.join("conf");
    fs::write(&file, configuration).expect("our own directory");
    let mut daemon = Command::new(unpacked("ntpd-rs/bin/ntp-daemon"));
    let daemon = seat.start(daemon.arg("-c").arg(&file));
    let deadline = Instant::now() + PATIENCE;
    loop {
        thread::sleep(Duration::from_millis(500));
        let mut status = Command::new(unpacked("ntpd-rs/bin/ntp-ctl"));
        let (_, said) = seat.run(status.arg("-c").arg(&file).arg("status"));
        let words: Vec<&str> = said.split_ascii_whitespace().collect();
        let said = words.join(" ");
        // Its own stratum, then its source.
        let known = said.split_once(" Stratum: 2 Sources: ");
        if let Some((_, source)) = known {
            return Verdict::Accepts(source.to_owned());
        }
        let log = daemon.log();
        let kissed = log
            .lines()
            .find(|line| line.contains(" KISS Message from source"));
        if let Some(line) = kissed {
            assert!(said.contains(" Stratum: 16 "), "{said}");
            let at = line.find(" WARN").unwrap_or_default();
            return Verdict::Refuses(line[at..].to_owned());
        }
        assert!(Instant::now() < deadline, "no verdict: {said}\n{log}");
    }
}
