//! gpsd, on the guest's second serial port, in an IPC namespace of its own: it offers time in shared memory, too.

use core::time::Duration;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};

use super::{Seat, Verdict, unpacked};
use crate::PATIENCE;

/// What it says of each second is a line, `{"class":"TPV","device":"/dev/pts/0","mode":1,"time":"2026-11-20T17:35:32.000Z",...}`:
/// no position (mode 1), and the time if there is one.
pub(super) fn gpsd(seat: &Seat<'_>) -> Verdict {
    const PORT: &str = "2947";
    let mut gpsd = Command::new("unshare");
    gpsd.arg("--ipc").arg(unpacked("usr/sbin/gpsd"));
    gpsd.args(["-N", "-n", "-S", PORT]).arg(&seat.serial[1]);
    let gpsd = seat.start(gpsd.env("LD_LIBRARY_PATH", libraries()));
    let deadline = Instant::now() + PATIENCE;
    let mut silent = 0;
    loop {
        let mut listener = Command::new(unpacked("usr/bin/gpspipe"));
        listener.args(["-w", "-n", "7", "-x", "10", &format!("127.0.0.1:{PORT}")]);
        let (_, said) = seat.run(listener.env("LD_LIBRARY_PATH", libraries()));
        let now = Timestamp::now();
        let mut reports = said.lines().filter(|line| line.contains("\"TPV\""));
        if let Some(line) = reports.next_back()
            && let Some(time) = time(line)
        {
            // The report is of the second that has just begun; a machine with much to do may be later.
            let late = now.duration_since(time);
            if (SignedDuration::ZERO..SignedDuration::from_secs(2)).contains(&late) {
                return Verdict::Accepts(line.to_owned());
            }
        } else if let Some(line) = said
            .lines()
            .find(|line| line.contains("\"driver\":\"NMEA0183\""))
        {
            // It reads the sentences, and has no time from them.
            silent += 1;
            if silent == 2 {
                return Verdict::Refuses(line.to_owned());
            }
        }
        assert!(Instant::now() < deadline, "{said}\n{}", gpsd.log());
        thread::sleep(Duration::from_millis(200));
    }
}

fn time(line: &str) -> Option<Timestamp> {
    let (_, rest) = line.split_once("\"time\":\"")?;
    rest.split('"').next()?.parse().ok()
}

/// Where libgps is: below the name of the architecture.
fn libraries() -> PathBuf {
    let folder = unpacked("usr/lib");
    let mut inside = fs::read_dir(&folder).expect("libraries");
    let found = inside.find_map(|entry| {
        let path = entry.ok()?.path();
        path.join("libgps.so.28").exists().then_some(path)
    });
    found.unwrap_or_else(|| panic!("no libgps in {}", folder.display()))
}
