//! Judges: NTP clients that nobody here wrote, each asked what it makes of a guest.
//!
//! A judge is a function from a [`Seat`] (a network and a server's address in it) to a [`Verdict`],
//! which is a line of the judge's own output and is never read out of its silence: one that neither
//! accepts nor refuses within [`PATIENCE`] fails. So each is asked twice, by
//! [`Trial`]: about a guest with time and about one without, which it has to refuse.
//!
//! Time daemons steer the clock of the machine that they run on. None can from its seat: the capability that
//! it takes is out of its reach, and the system calls that it takes do nothing and succeed, for
//! some daemons give up when they fail.

use core::fmt;
use core::net::Ipv4Addr;
use core::time::Duration;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::Instant;

use gnomon_qemu::machine::{Machine, Net, SerialTo};
use rustix::thread::{CapabilitySet, capabilities, remove_capability_from_bounding_set};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

use crate::guest::Guest;
use crate::netns::Netns;
use crate::ntp::Client;
use crate::process::Process;
use crate::temporary::Temporary;
use crate::{PATIENCE, built};

pub mod capture;
mod chrony;
mod gpsd;
mod ntp_rs;
mod ntplib;
mod ntpsec;
mod timesyncd;

pub use chrony::Server;

/// Those that come as Debian packages: `make test` asks them.
pub const PACKAGED: &[Judge] = &[
    Judge::new("chronyd, one shot", "chrony", chrony::one_shot),
    Judge::new("chronyd", "chrony", chrony::basic),
    Judge::new("chronyd, xleave", "chrony", chrony::interleaved),
    Judge::new("chronyd, AES-CMAC", "chrony", chrony::authenticated),
    Judge::new("chronyd, F323", "chrony", chrony::mono_root),
    Judge::new("chronyd, all of these", "chrony", chrony::everything),
    Judge::new("chronyd, another key", "chrony", chrony::another_key).refusing(),
    Judge::new("ntpdig", "ntpsec-ntpdig", ntpsec::ntpdig),
    Judge::new("ntpd (ntpsec)", "ntpsec", ntpsec::ntpd),
    Judge::new("timesyncd", "systemd-timesyncd", timesyncd::timesyncd),
    Judge::new("ntpd, NMEA refclock", "ntpsec", ntpsec::refclock),
    Judge::new("gpsd, NMEA", "gpsd", gpsd::gpsd),
];

/// Those that are compiled or installed otherwise: `make judges` asks all.
pub const BUILT: &[Judge] = &[
    Judge::new("ntpd-rs", "ntpd-rs", ntp_rs::ntp_daemon),
    Judge::new("ntplib", "ntplib", ntplib::request),
];

/// A key that the guest of a [`Trial`] knows, as number 1.
const KEY: &str = "2B7E151628AED2A6ABF7158809CF4F3C";

/// A judge.
#[derive(Clone, Copy, Debug)]
pub struct Judge {
    /// What it is called.
    pub name: &'static str,
    package: &'static str,
    ask: fn(&Seat<'_>) -> Verdict,
    accepts: bool,
}

impl Judge {
    const fn new(name: &'static str, package: &'static str, ask: fn(&Seat<'_>) -> Verdict) -> Self {
        Self {
            name,
            package,
            ask,
            accepts: true,
        }
    }

    /// It has to refuse a guest with time, too.
    const fn refusing(self) -> Self {
        Self {
            accepts: false,
            ..self
        }
    }

    /// Its version, as its package has it.
    #[must_use]
    pub fn version(&self) -> String {
        let versions = fs::read_to_string(built("judges/versions", "make judges"));
        let versions = versions.expect("a list of versions");
        let ours = versions.lines().filter_map(|line| line.split_once(' '));
        let found = ours.rev().find(|(package, _)| *package == self.package);
        if let Some((_, version)) = found {
            return version.to_owned();
        }
        let mut query = Command::new("dpkg-query");
        let (status, said) = Process::run(query.args(["-W", "-f", "${Version}", self.package]));
        assert!(status.success(), "{said}");
        said
    }
}

/// What a judge says of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It takes the guest's time: the line that says so.
    Accepts(String),
    /// It has heard the guest, or, where it must, its silence, and does not take its time.
    Refuses(String),
}

/// What a judge made of a guest.
#[derive(Clone, Debug)]
pub struct Row {
    /// Who.
    pub judge: Judge,
    /// Its verdict, or how it failed to come to one.
    pub verdict: Result<Verdict, String>,
    with_time: bool,
}

impl Row {
    /// Whether that is the right verdict.
    #[must_use]
    pub fn is_right(&self) -> bool {
        match &self.verdict {
            Ok(Verdict::Accepts(_)) => self.with_time && self.judge.accepts,
            Ok(Verdict::Refuses(_)) => !(self.with_time && self.judge.accepts),
            Err(_) => false,
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, line) = match &self.verdict {
            Ok(Verdict::Accepts(line)) => ("accepts", line),
            Ok(Verdict::Refuses(line)) => ("refuses", line),
            Err(failure) => ("fails", failure),
        };
        let ok = if self.is_right() { "ok" } else { "WRONG" };
        let (name, version) = (self.judge.name, self.judge.version());
        let line = line.trim().replace('\n', " | ");
        write!(f, "{ok:<5}  {name:<21}  {version:<22}  {word}: {line}")
    }
}

/// A guest in a network of its own, and every frame that it exchanges in a file.
#[derive(Debug)]
pub struct Trial {
    guest: Guest,
    netns: Netns,
    /// The terminals at the guest's serial ports, which tell the time as NMEA: one reader each.
    serial: [String; 2],
    directory: Temporary,
    with_time: bool,
}

impl Trial {
    /// The guest's address.
    pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 7, 7, 2);

    /// Starts the machine, with time or without. It is the caller's but for its network, its key and
    /// that.
    #[must_use]
    pub fn start(machine: Machine, with_time: bool) -> Self {
        let directory = Temporary::directory("trial");
        let netns = Netns::new();
        netns.add_tap("gt0", "10.7.7.1/24");
        let machine = machine
            .net(Net::Tap("gt0".to_owned()))
            .serial(SerialTo::Pty)
            .arg("-chardev")
            .arg("pty,id=second")
            .arg("-serial")
            .arg("chardev:second")
            .append(format!(
                "ip={}/24 serial=nmea serial2=nmea ntp.key=1:AES128:{KEY}",
                Self::GUEST
            ));
        let machine = if with_time {
            machine
        } else {
            machine.publish(None)
        };
        let file = directory.path().join("frames");
        let mut guest = netns.enter(|| capture::start(machine, &file));
        let serial = ["serial", "second"].map(|label| {
            let terminal = guest.pty_of(label).expect("QEMU runs");
            terminal.expect("a pseudo-terminal")
        });
        let trial = Self {
            guest,
            netns,
            serial,
            directory,
            with_time,
        };
        let client = trial.client();
        if with_time {
            client.ask_until_right().assert_right();
        } else {
            client.ask().assert_no_time(&["INIT"]);
        }
        trial
    }

    /// A client of our own.
    #[must_use]
    pub fn client(&self) -> Client {
        self.netns.enter(|| Client::of((Self::GUEST, 123).into()))
    }

    /// The network of guest and judges.
    #[must_use]
    pub const fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Asks all of them at the same time.
    #[must_use]
    pub fn ask(&self, judges: &[Judge]) -> Vec<Row> {
        let ask = |judge: &Judge| {
            let name: String = judge.name.split([' ', ',']).collect();
            let directory = Temporary::directory(&name);
            (judge.ask)(&Seat {
                netns: &self.netns,
                server: Self::GUEST,
                serial: &self.serial,
                directory: directory.path(),
            })
        };
        let verdicts: Vec<_> = thread::scope(|scope| {
            let asked: Vec<_> = judges
                .iter()
                .map(|judge| scope.spawn(move || ask(judge)))
                .collect();
            asked
                .into_iter()
                .map(thread::ScopedJoinHandle::join)
                .collect()
        });
        judges
            .iter()
            .zip(verdicts)
            .map(|(judge, verdict)| Row {
                judge: *judge,
                verdict: verdict.map_err(|failure| {
                    let text = failure.downcast::<String>();
                    text.map_or_else(|_| "it panicked".to_owned(), |text| *text)
                }),
                with_time: self.with_time,
            })
            .collect()
    }

    /// Ends the guest, and returns every frame that it has received or sent, in pcap format.
    #[must_use]
    pub fn into_frames(self) -> Vec<u8> {
        drop(self.guest);
        fs::read(self.directory.path().join("frames")).expect("a capture")
    }
}

/// Where a judge sits: what it may know, and what it may touch.
#[derive(Clone, Copy, Debug)]
pub struct Seat<'a> {
    netns: &'a Netns,
    server: Ipv4Addr,
    serial: &'a [String; 2],
    /// For its files.
    directory: &'a Path,
}

/// Where no guest's serial ports are at hand.
static NO_PORTS: [String; 2] = [String::new(), String::new()];

impl Seat<'_> {
    /// Starts a program from here.
    fn start(&self, command: &mut Command) -> Process {
        self.netns.enter(|| {
            leave_clocks_alone();
            Process::start(command)
        })
    }

    /// Runs a program from here to its end.
    fn run(&self, command: &mut Command) -> (ExitStatus, String) {
        self.netns.enter(|| {
            leave_clocks_alone();
            Process::run(command)
        })
    }
}

/// Takes from this thread, and from every program that it starts, the means to set a clock.
fn leave_clocks_alone() {
    let dropped = remove_capability_from_bounding_set(CapabilitySet::SYS_TIME);
    dropped.expect("root may do with less");
    let ours = capabilities(None).expect("every thread has them");
    assert!(!ours.inheritable.contains(CapabilitySet::SYS_TIME));
    // What the filter does not know still needs the capability.
    let calls = [
        libc::SYS_adjtimex,
        libc::SYS_clock_adjtime,
        libc::SYS_clock_settime,
        libc::SYS_settimeofday,
    ];
    let filter = SeccompFilter::new(
        calls.map(|call| (call, Vec::new())).into(),
        SeccompAction::Allow,
        SeccompAction::Errno(0),
        std::env::consts::ARCH.try_into().expect("a known one"),
    );
    let filter = filter
        .and_then(BpfProgram::try_from)
        .expect("a short filter");
    apply_filter(&filter).expect("root may do with less");
}

/// Listens to a program until a line contains a word of acceptance or of refusal.
fn listen(judge: &Process, accepting: &[&str], refusing: &[&str]) -> Verdict {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let log = judge.log();
        for line in log.lines() {
            let says = |words: &[&str]| words.iter().any(|word| line.contains(word));
            if says(accepting) {
                return Verdict::Accepts(line.to_owned());
            }
            if says(refusing) {
                return Verdict::Refuses(line.to_owned());
            }
        }
        assert!(
            Instant::now() < deadline,
            "no verdict within {PATIENCE:?}: {log}"
        );
        thread::sleep(Duration::from_millis(100));
    }
}

/// A file of a judge that is not installed.
#[must_use]
pub fn unpacked(path: &str) -> PathBuf {
    built(&format!("judges/{path}"), "make judges")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_program_can_set_a_clock_from_its_seat() {
        let (netns, directory) = (Netns::new(), Temporary::directory("seat"));
        let seat = Seat {
            netns: &netns,
            server: Ipv4Addr::LOCALHOST,
            serial: &NO_PORTS,
            directory: directory.path(),
        };
        let (exit, said) = seat.run(Command::new("cat").arg("/proc/self/status"));
        assert!(exit.success(), "{said}");
        let field = |name| {
            let mut lines = said.lines().filter_map(|line| line.strip_prefix(name));
            lines.next().expect(name).trim()
        };
        for name in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            let capabilities = u64::from_str_radix(field(name), 16).expect("a set");
            assert_eq!(capabilities & CapabilitySet::SYS_TIME.bits(), 0, "{said}");
        }
        assert_eq!(field("Seccomp:"), "2", "a filter");
    }
}
