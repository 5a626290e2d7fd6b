//! Programs that nobody here wrote ask the guest for the time.

use core::net::Ipv4Addr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command, ExitStatus};

use gnomon_qemu::machine::Net;
use gnomon_tests::guest::{Guest, machine};
use gnomon_tests::netns::Netns;
use gnomon_tests::ntp::Client;
use gnomon_tests::process::Process;
use gnomon_tests::{arch, chronyd};

gnomon_tests::on_both![
    chronyd_sets_its_clock_by_the_guest,
    chronyd_refuses_a_guest_without_time,
    ntpdig_accepts_the_guest_and_refuses_one_without_time,
];

fn chronyd_sets_its_clock_by_the_guest() {
    let (guest, client) = Guest::serving();
    client.ask().assert_right();
    let port = guest.ntp_port().expect("user network");
    let logs = Directory::new("chronyd-right");
    let (status, said) = ask_chronyd(port, 100, logs.path());
    assert!(status.success(), "{said}");
    let offset: f64 = said
        .split_once("System clock wrong by ")
        .and_then(|(_, rest)| rest.split_once(" seconds"))
        .and_then(|(number, _)| number.parse().ok())
        .unwrap_or_else(|| panic!("no offset: {said}"));

    // What chronyd measured: every sample's offset within its own round trip and our bound.
    let log = fs::read_to_string(logs.path().join("measurements.log")).expect("a log");
    let mut limit: f64 = 0.0;
    for sample in log.lines().filter_map(Sample::parse) {
        assert_eq!(sample.stratum, 1, "{log}");
        let bound = sample.root_dispersion + sample.peer_dispersion + sample.peer_delay / 2.0;
        assert!(sample.offset.abs() <= bound, "{sample:?}\n{log}");
        limit = limit.max(bound);
    }
    assert!(limit > 0.0, "no sample: {log}");
    assert!(offset.abs() <= limit, "{offset} of {limit}\n{log}\n{said}");
}

fn chronyd_refuses_a_guest_without_time() {
    let (guest, _) = Guest::boot(machine().publish(None));
    guest.client().ask().assert_no_time(&["INIT"]);
    let port = guest.ntp_port().expect("user network");
    // On a slow machine it may need longer to hear anything.
    for seconds in [3, 60] {
        let logs = Directory::new("chronyd-refused");
        let (status, said) = ask_chronyd(port, seconds, logs.path());
        assert!(!status.success(), "{said}");
        assert!(!said.contains("System clock wrong by"), "{said}");
        let log = fs::read_to_string(logs.path().join("measurements.log")).unwrap_or_default();
        assert_eq!(log.lines().filter_map(Sample::parse).count(), 0, "{log}");
        // It has heard us say INIT, and that was that.
        if log.contains(" ?  0 ") && log.contains(" 494E4954 ") {
            return;
        }
    }
    panic!("chronyd has heard nothing");
}

/// chronyd's first answer, which never touches the host's clock. It asks for at most so many seconds.
fn ask_chronyd(port: u16, seconds: u32, logs: &Path) -> (ExitStatus, String) {
    let mut command = Command::new(chronyd());
    command.args(["-Q", "-t", &seconds.to_string()]).args([
        &format!("server 127.0.0.1 port {port} iburst"),
        "user root",
        &format!("pidfile {}", logs.join("pid").display()),
        &format!("logdir {}", logs.display()),
        "log rawmeasurements measurements",
    ]);
    Process::run(&mut command)
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
        let at = words.iter().position(|word| *word == "127.0.0.1")?;
        if words.get(at + 3..at + 5)? != ["111", "111"] {
            return None;
        }
        let number = |from_address: usize| words.get(at + from_address)?.parse().ok();
        Some(Self {
            stratum: words.get(at + 2)?.parse().ok()?,
            offset: number(9)?,
            peer_delay: number(10)?,
            peer_dispersion: number(11)?,
            root_dispersion: number(13)?,
        })
    }
}

fn ntpdig_accepts_the_guest_and_refuses_one_without_time() {
    // It asks port 123 only, so the guest gets a network where that is free.
    let netns = Netns::new();
    let there = || machine().net(Net::User { ntp: 123 });
    {
        let guest = netns.enter(|| Guest::start(there()));
        let client = netns.enter(|| Client::of((Ipv4Addr::LOCALHOST, 123).into()));
        client.ask_until_right().assert_right();
        let (success, said) = netns.run("ntpdig", &["-t", "60", "127.0.0.1"]);
        assert!(success, "{said}");
        assert!(said.contains(" s1 no-leap"), "{said}");
        // `... +0.000071 +/- 0.000123 127.0.0.1 s1 no-leap`
        let words: Vec<&str> = said.split_ascii_whitespace().collect();
        let at = words.iter().position(|word| *word == "+/-");
        let at = at.unwrap_or_else(|| panic!("no bound: {said}"));
        let number = |word: &str| word.parse::<f64>().expect("a number");
        let (offset, bound) = (number(words[at - 1]), number(words[at + 1]));
        assert!(offset.abs() <= bound, "{said}");
        drop(guest);
    }
    let guest = netns.enter(|| Guest::start(there().publish(None)));
    let client = netns.enter(|| Client::of((Ipv4Addr::LOCALHOST, 123).into()));
    client.ask().assert_no_time(&["INIT"]);
    let (success, said) = netns.run("ntpdig", &["-t", "2", "127.0.0.1"]);
    assert!(!success && said.contains("no eligible servers"), "{said}");
    drop(guest);
}

/// A temporary directory, removed when this is dropped.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!(
            "gnomon-test-{}-{}-{name}",
            process::id(),
            arch().name()
        ));
        fs::create_dir(&path).expect("a temporary directory");
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Nothing depends on its going.
        let _gone = fs::remove_dir_all(&self.0);
    }
}
