//! Interleaved mode (RFC 9769) beside basic mode: two chronyds ask one guest at the same time.

use core::net::Ipv4Addr;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Instant;

use gnomon_qemu::machine::Net;
use gnomon_tests::PATIENCE;
use gnomon_tests::guest::{Guest, machine};
use gnomon_tests::judge::unpacked;
use gnomon_tests::netns::Netns;
use gnomon_tests::ntp::Client;
use gnomon_tests::process::Process;
use gnomon_tests::temporary::Temporary;

gnomon_tests::on_both![both_modes_side_by_side];

/// Samples of each that are waited for, sixteen a second.
const SAMPLES: usize = 120;
/// The first of them, which may be from before interleaved mode.
const START: usize = 16;

fn both_modes_side_by_side() {
    let netns = Netns::new();
    netns.add_tap("gt0", "10.7.7.1/24");
    let machine = machine()
        .net(Net::Tap("gt0".to_owned()))
        .append("ip=10.7.7.2/24");
    let mut guest = netns.enter(|| Guest::start(machine));
    let client = netns.enter(|| Client::of((Ipv4Addr::new(10, 7, 7, 2), 123).into()));
    client.ask_until_right().assert_right();

    let modes = ["", "xleave"];
    let logs = modes.map(|mode| Temporary::directory(&format!("mode-{mode}")));
    let clients: Vec<Process> = modes
        .iter()
        .zip(&logs)
        .map(|(mode, logs)| netns.enter(|| Process::start(&mut client_of(mode, logs.path()))))
        .collect();
    let end = Instant::now() + PATIENCE;
    while logs
        .iter()
        .any(|logs| samples_of(logs.path()).len() < SAMPLES)
    {
        assert!(Instant::now() < end, "too few samples");
        thread::sleep(core::time::Duration::from_millis(100));
    }
    drop(clients);
    for (mode, logs) in modes.iter().zip(&logs) {
        let samples = samples_of(logs.path()).split_off(START);
        let (offset, spread) = middle(samples.iter().map(|sample| sample.offset));
        let (delay, _) = middle(samples.iter().map(|sample| sample.delay));
        let mode = if mode.is_empty() { "basic" } else { mode };
        println!(
            "chronyd {mode:<6}: offset median {:.1} us, 10th to 90th percentile {:.1} us; delay median {:.1} us",
            offset * 1e6,
            spread * 1e6,
            delay * 1e6
        );
        for sample in &samples {
            assert!(sample.offset.abs() <= sample.bound, "{sample:?}");
        }
    }
    let status = guest.command("status");
    let count = |name: &str| {
        let (_, behind) = status.split_once(name)?;
        let digits = behind.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse::<usize>().ok()
    };
    assert!(count("interleaved ") > Some(SAMPLES / 2), "{status}");
}

/// A chronyd that never touches a clock: neither the machine's, nor the one that it keeps for itself with
/// `-x` and steers by what it selects. So its offsets are against the host's clock.
fn client_of(mode: &str, directory: &Path) -> Command {
    let mut command = Command::new(unpacked("usr/sbin/chronyd"));
    let path = |name: &str| directory.join(name).display().to_string();
    command.args(["-x", "-d", "-f", "/dev/null"]);
    command.args([
        format!("server 10.7.7.2 minpoll -4 maxpoll -4 noselect {mode}"),
        "user root".to_owned(),
        format!("pidfile {}", path("pid")),
        format!("bindcmdaddress {}", path("socket")),
        format!("logdir {}", directory.display()),
        "log measurements".to_owned(),
        "cmdport 0".to_owned(),
        "port 0".to_owned(),
    ]);
    command
}

/// A line of chronyd's `measurements.log`, in seconds.
#[derive(Debug)]
struct Sample {
    offset: f64,
    delay: f64,
    /// The greatest error that it can have.
    bound: f64,
}

impl Sample {
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let at = words.iter().position(|word| *word == "10.7.7.2")?;
        if words.get(at + 3..at + 5)? != ["111", "111"] {
            return None;
        }
        let number = |from_address: usize| words.get(at + from_address)?.parse::<f64>().ok();
        let (delay, dispersion, root) = (number(10)?, number(11)?, number(13)?);
        Some(Self {
            offset: number(9)?,
            delay,
            bound: delay / 2.0 + dispersion + root,
        })
    }
}

/// The median, and how far the 10th and the 90th percentile are apart.
fn middle(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    let part = |tenths: usize| values[values.len() * tenths / 10];
    (part(5), part(9) - part(1))
}

fn samples_of(directory: &Path) -> Vec<Sample> {
    let log = fs::read_to_string(directory.join("measurements.log")).unwrap_or_default();
    log.lines().filter_map(Sample::parse).collect()
}
