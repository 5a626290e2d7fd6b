//! chronyd, as its user would run it for once, and looked into while it runs.

use core::net::Ipv4Addr;
use core::time::Duration;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::Instant;

use super::{KEY, NO_PORTS, Seat, Verdict, unpacked};
use crate::PATIENCE;
use crate::netns::Netns;
use crate::process::Process;
use crate::temporary::Temporary;

/// One clock setting, which it is told only to print.
pub(super) fn one_shot(seat: &Seat<'_>) -> Verdict {
    // It waits so long for a sample that it likes, and on a slow machine may need longer to hear anything.
    for seconds in [10, 100] {
        let (directory, server) = (seat.directory.display(), seat.server);
        let mut command = Command::new(unpacked("usr/sbin/chronyd"));
        command.args(["-Q", "-t", &seconds.to_string()]).args([
            &format!("server {server} iburst"),
            "user root",
            &format!("pidfile {directory}/pid"),
            &format!("logdir {directory}"),
            "log rawmeasurements measurements",
        ]);
        let (status, said) = seat.run(&mut command);
        let log = seat.directory.join("measurements.log");
        let log = fs::read_to_string(log).unwrap_or_default();
        let samples: Vec<Sample> = log.lines().filter_map(Sample::parse).collect();
        if status.success() {
            let line = said
                .lines()
                .find(|line| line.contains("System clock wrong by"));
            let line = line.unwrap_or_else(|| panic!("no offset: {said}"));
            assert_bounds_hold(line, &samples, &log);
            return Verdict::Accepts(line.to_owned());
        }
        assert!(!said.contains("System clock wrong by"), "{said}");
        // It has heard us say INIT, and that was that.
        let heard = |line: &&str| line.contains(" ?  0 ") && line.contains(" 494E4954 ");
        let verdict = said
            .lines()
            .find(|line| ENDS.iter().any(|end| line.contains(end)));
        if samples.is_empty()
            && let (Some(_), Some(line)) = (log.lines().find(heard), verdict)
        {
            return Verdict::Refuses(line.to_owned());
        }
    }
    panic!("chronyd has heard nothing that it could judge");
}

/// What chronyd says when it refuses: one of these.
const ENDS: [&str; 2] = ["No suitable source", "Timeout reached"];

/// Every sample's offset lies within its own round trip and our bound, and so does the result.
fn assert_bounds_hold(line: &str, samples: &[Sample], log: &str) {
    let offset: f64 = line
        .split_once("System clock wrong by ")
        .and_then(|(_, rest)| rest.split_once(" seconds"))
        .and_then(|(number, _)| number.parse().ok())
        .unwrap_or_else(|| panic!("no offset: {line}"));
    let mut limit: f64 = 0.0;
    for sample in samples {
        assert_eq!(sample.stratum, 1, "{log}");
        let bound = sample.root_dispersion + sample.peer_dispersion + sample.peer_delay / 2.0;
        assert!(sample.offset.abs() <= bound, "{sample:?}\n{log}");
        limit = limit.max(bound);
    }
    assert!(limit > 0.0, "no sample: {log}");
    assert!(offset.abs() <= limit, "{offset} of {limit}\n{log}\n{line}");
}

/// A line of chronyd's `measurements.log`.
#[derive(Debug)]
struct Sample {
    stratum: u32,
    offset: f64,
    peer_delay: f64,
    peer_dispersion: f64,
    root_dispersion: f64,
}

impl Sample {
    /// A sample that has passed the tests of packet and source:
    /// `Date Time Address L Stratum TestsABC Tests... LP RP Score Offset PeerDelay PeerDisp RootDelay
    /// RootDisp ...`
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        if words.get(5..7)? != ["111", "111"] {
            return None;
        }
        let number = |at: usize| words.get(at)?.parse().ok();
        Some(Self {
            stratum: words.get(4)?.parse().ok()?,
            offset: number(11)?,
            peer_delay: number(12)?,
            peer_dispersion: number(13)?,
            root_dispersion: number(15)?,
        })
    }
}

pub(super) fn basic(seat: &Seat<'_>) -> Verdict {
    let wanted = ["Interleaved : No", "Authenticated : No"];
    watch(seat, "", &wanted, Dispersion::OfTheHeader)
}

pub(super) fn interleaved(seat: &Seat<'_>) -> Verdict {
    let wanted = ["Interleaved : Yes", "Authenticated : No"];
    watch(seat, "xleave", &wanted, Dispersion::OfTheHeader)
}

pub(super) fn authenticated(seat: &Seat<'_>) -> Verdict {
    let wanted = ["Interleaved : No", "Authenticated : Yes", AES_CMAC];
    watch(seat, "key 1", &wanted, Dispersion::OfTheHeader)
}

pub(super) fn mono_root(seat: &Seat<'_>) -> Verdict {
    let wanted = ["Interleaved : No", "Authenticated : No"];
    watch(seat, "extfield F323", &wanted, Dispersion::OfTheField)
}

pub(super) fn everything(seat: &Seat<'_>) -> Verdict {
    let wanted = ["Interleaved : Yes", "Authenticated : Yes", AES_CMAC];
    let options = "xleave key 1 extfield F323";
    watch(seat, options, &wanted, Dispersion::OfTheField)
}

/// The guest does not know key 2, and chronyd gets nothing.
pub(super) fn another_key(seat: &Seat<'_>) -> Verdict {
    watch(
        seat,
        "key 2",
        &["Authenticated : Yes"],
        Dispersion::OfTheHeader,
    )
}

/// How `chronyc authdata` shows a symmetric key (SK) number 1 of AES-128 (type 13).
const AES_CMAC: &str = "SK 1 13 128";
/// Good replies of which there have to be so many.
const GOOD: u32 = 5;
/// Refused replies, or unanswered requests, likewise.
const BAD: u32 = 4;

/// Where the root dispersion that chronyd shows comes from: the header has steps of 15.3 µs, the
/// extension field 0xF323 has 3.7 ns, and chronyd shows whole microseconds.
#[derive(Clone, Copy, PartialEq)]
enum Dispersion {
    OfTheHeader,
    OfTheField,
}

/// Runs chronyd, which has to show all that is wanted and that all its tests have been passed.
fn watch(seat: &Seat<'_>, options: &str, wanted: &[&str], dispersion: Dispersion) -> Verdict {
    let directory = seat.directory.display();
    let configuration = format!(
        "server {} {options} iburst minpoll 0 maxpoll 0\nport 0\ncmdport 0\nuser root\n\
         bindcmdaddress {directory}/socket\npidfile {directory}/pid\nkeyfile {directory}/keys\n",
        seat.server
    );
    let keys = format!("1 AES128 HEX:{KEY}\n2 AES128 HEX:{}\n", "5A".repeat(16));
    let settings = seat.directory.join("conf");
    fs::write(&settings, configuration).expect("our own directory");
    fs::write(seat.directory.join("keys"), keys).expect("our own directory");
    let mut chronyd = Command::new(unpacked("usr/sbin/chronyd"));
    let chronyd = seat.start(chronyd.args(["-x", "-d", "-f"]).arg(settings));

    let deadline = Instant::now() + PATIENCE;
    let mut fine = false;
    loop {
        thread::sleep(Duration::from_millis(200));
        let shown = chronyc(seat, "ntpdata") + &chronyc(seat, "authdata");
        let number = |name: &str| {
            let mut lines = shown.lines().filter_map(|line| line.strip_prefix(name));
            lines
                .next()
                .and_then(|value| value.trim().parse::<u32>().ok())
        };
        let root_dispersion = shown
            .lines()
            .filter_map(|line| line.strip_prefix("Root dispersion : "))
            .find_map(|line| line.strip_suffix(" seconds")?.parse::<f64>().ok());
        if let Some(seconds) = root_dispersion {
            let steps = seconds * 65536.0;
            let is_fine = (steps - steps.round()).abs() > 0.05;
            fine |= is_fine;
            let may_be = !is_fine || dispersion == Dispersion::OfTheField;
            assert!(may_be, "finer than the header's: {shown}");
        }
        let passed = ["NTP tests : 111 111 1111", "Version : 4"];
        let passed = passed.iter().chain(wanted).all(|line| shown.contains(line));
        let good = number("Total good RX :").unwrap_or(0);
        if good >= GOOD && passed && fine == (dispersion == Dispersion::OfTheField) {
            let mut line = wanted.join(", ");
            if let (true, Some(seconds)) = (fine, root_dispersion) {
                line = format!("{line}, Root dispersion : {seconds:.6} seconds");
            }
            return Verdict::Accepts(format!("NTP tests : 111 111 1111, {line}"));
        }
        let counted = ["Total TX :", "Total RX :", "Total valid RX :"].map(number);
        if let [Some(sent), Some(heard), Some(0)] = counted
            && (heard >= BAD || heard == 0 && sent >= BAD)
        {
            let line = format!("Total TX : {sent}, Total RX : {heard}, Total valid RX : 0");
            return Verdict::Refuses(line);
        }
        let log = chronyd.log();
        assert!(
            Instant::now() < deadline,
            "it has got no further: {shown}\n{log}"
        );
    }
}

/// What chronyd tells of its server, with single spaces. It tells nothing until it has started.
fn chronyc(seat: &Seat<'_>, what: &str) -> String {
    let mut command = Command::new(unpacked("usr/bin/chronyc"));
    command.arg("-h").arg(seat.directory.join("socket"));
    let (_, said) = seat.run(command.args(["-n", what]));
    let single = |line: &str| line.split_ascii_whitespace().collect::<Vec<_>>().join(" ") + "\n";
    // A name may touch its colon.
    said.lines()
        .map(|line| single(&line.replacen(':', " : ", 1)))
        .collect()
}

/// chronyd as a time server, on port 123 of a network. Its time is the host's, for which it vouches as if it
/// were a good clock of this stratum. Ended when this is dropped.
#[derive(Debug)]
pub struct Server<'n> {
    netns: &'n Netns,
    directory: Temporary,
    process: Process,
}

impl<'n> Server<'n> {
    /// Starts it.
    #[must_use]
    pub fn start(netns: &'n Netns, stratum: u8) -> Self {
        let directory = Temporary::directory("chronyd");
        let path = directory.path().display();
        let configuration = format!(
            "local stratum {stratum}\nallow\ncmdport 0\nuser root\n\
             bindcmdaddress {path}/socket\npidfile {path}/pid\n"
        );
        let settings = directory.path().join("conf");
        fs::write(&settings, configuration).expect("our own directory");
        let mut chronyd = Command::new(unpacked("usr/sbin/chronyd"));
        let process = seat(netns, &directory).start(chronyd.args(["-x", "-d", "-f"]).arg(settings));
        Self {
            netns,
            directory,
            process,
        }
    }

    /// A number of `chronyc serverstats`, such as `NTP packets received`; 0 if it does not tell.
    #[must_use]
    pub fn statistic(&self, name: &str) -> u64 {
        let shown = chronyc(&seat(self.netns, &self.directory), "serverstats");
        let mut lines = shown.lines().filter_map(|line| line.strip_prefix(name));
        let value = lines.next().and_then(|rest| rest.strip_prefix(" :"));
        value
            .and_then(|value| value.trim().parse().ok())
            .unwrap_or(0)
    }

    /// What it has said.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }
}

/// Where a server sits. It asks nobody.
fn seat<'a>(netns: &'a Netns, directory: &'a Temporary) -> Seat<'a> {
    Seat {
        serial: &NO_PORTS,
        netns,
        server: Ipv4Addr::UNSPECIFIED,
        directory: directory.path(),
    }
}
