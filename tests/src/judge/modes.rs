//! chronyd's offsets in basic and in interleaved mode: one chronyd after the other asks one guest, in turns, while
//! others ask it as often as is wanted.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Instant;

use gnomon_qemu::machine::{Machine, Net};

use super::chrony::{chronyc, seat};
use super::{Trial, unpacked};
use crate::PATIENCE;
use crate::guest::Guest;
use crate::load::{Load, Mode};
use crate::netns::Netns;
use crate::ntp::Client;
use crate::temporary::Temporary;

/// The first samples of a chronyd, which may be from before interleaved mode.
const START: usize = 16;

/// What is asked of a guest.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Requests a second from others.
    pub others: u32,
    /// Turns of each mode.
    pub turns: usize,
    /// Samples of a turn, of which there are sixteen a second.
    pub samples: usize,
}

/// What came of it.
#[derive(Debug)]
pub struct Comparison {
    /// In [`Mode::Basic`].
    pub basic: Samples,
    /// In [`Mode::Interleaved`].
    pub interleaved: Samples,
    /// Requests of others that were answered.
    pub others: usize,
}

impl Comparison {
    /// Asks a guest on `machine`.
    #[must_use]
    pub fn of(machine: Machine, plan: Plan) -> Self {
        let netns = Netns::new();
        netns.add_tap("gt0", "10.7.7.1/24");
        let machine = machine
            .net(Net::Tap("gt0".to_owned()))
            .append(format!("ip={}/24", Trial::GUEST));
        let mut guest = netns.enter(|| Guest::start(machine));
        let client = netns.enter(|| Client::of((Trial::GUEST, 123).into()));
        client.ask_until_right().assert_right();

        let done = AtomicBool::new(false);
        let ended = Ended(&done);
        let (basic, interleaved, others) = thread::scope(|scope| {
            let others = scope.spawn(|| ask_besides(&netns, plan.others, &done));
            // Whatever happens here, the others stop.
            let ended = ended;
            let mut all = [Samples::default(), Samples::default()];
            for _ in 0..plan.turns {
                for (samples, mode) in all.iter_mut().zip(Mode::ALL) {
                    samples.turns.push(take_turn(&netns, mode, plan.samples));
                }
            }
            drop(ended);
            let [basic, interleaved] = all;
            (basic, interleaved, others.join().expect("it only asks"))
        });
        let status = guest.command("status");
        let counted = status.split_once("interleaved ").and_then(|(_, behind)| {
            let digits = behind.split(|c: char| !c.is_ascii_digit()).next()?;
            digits.parse::<usize>().ok()
        });
        assert!(counted >= Some(interleaved.all().count()), "{status}");
        Self {
            basic,
            interleaved,
            others,
        }
    }

    /// Whether offsets are spread less in interleaved mode.
    #[must_use]
    pub fn is_better(&self) -> bool {
        self.interleaved.spread() < self.basic.spread()
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            basic, interleaved, ..
        } = self;
        let samples = basic.all().count();
        write!(
            f,
            "basic: {basic}, interleaved: {interleaved}; {samples} offsets each"
        )
    }
}

/// Says so when it is dropped.
struct Ended<'d>(&'d AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Others ask in basic mode, so many times a second, until it is `done`. Returns how many answers they got.
fn ask_besides(netns: &Netns, rate: u32, done: &AtomicBool) -> usize {
    if rate == 0 {
        return 0;
    }
    let mut load = netns.enter(|| Load::of((Trial::GUEST, 123).into()));
    let mut answered = 0;
    while !done.load(Ordering::Relaxed) {
        answered += load
            .run(Mode::Basic, rate, Duration::from_secs(1))
            .answered();
    }
    answered
}

/// A chronyd asks for so many samples.
fn take_turn(netns: &Netns, mode: Mode, samples: usize) -> Vec<Sample> {
    let directory = Temporary::directory(mode.name());
    let seat = seat(netns, &directory);
    let process = seat.start(&mut client(mode, directory.path()));
    let end = Instant::now() + PATIENCE;
    loop {
        thread::sleep(Duration::from_millis(100));
        let mut taken = samples_of(directory.path());
        if taken.len() >= START + samples {
            let shown = chronyc(&seat, "ntpdata");
            let wanted = match mode {
                Mode::Basic => "Interleaved : No",
                Mode::Interleaved => "Interleaved : Yes",
            };
            assert!(shown.contains(wanted), "{shown}");
            taken.truncate(START + samples);
            return taken.split_off(START);
        }
        assert!(Instant::now() < end, "too few samples: {}", process.log());
    }
}

/// A chronyd that never touches a clock: neither the machine's, nor the one that it keeps for itself with
/// `-x` and steers by what it selects. So its offsets are against the host's clock.
fn client(mode: Mode, directory: &Path) -> Command {
    let mut command = Command::new(unpacked("usr/sbin/chronyd"));
    let path = |name: &str| directory.join(name).display().to_string();
    let option = match mode {
        Mode::Basic => "",
        Mode::Interleaved => "xleave",
    };
    command.args(["-x", "-d", "-f", "/dev/null"]);
    command.args([
        format!(
            "server {} minpoll -4 maxpoll -4 noselect {option}",
            Trial::GUEST
        ),
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
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// What chronyd takes its clock to be off by.
    pub offset: f64,
    delay: f64,
    /// The greatest error that this can have.
    pub bound: f64,
}

impl Sample {
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let guest = Trial::GUEST.to_string();
        let at = words.iter().position(|word| *word == guest)?;
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

/// All that were taken in one mode.
#[derive(Debug, Default)]
pub struct Samples {
    turns: Vec<Vec<Sample>>,
}

impl Samples {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Sample> {
        self.turns.iter().flatten()
    }

    /// How far the 10th and the 90th percentile of a turn's offsets are apart, in seconds: the median of all turns.
    /// So what somebody else on this machine does to a few turns plays no part.
    #[must_use]
    pub fn spread(&self) -> f64 {
        let of_turn = |turn: &Vec<Sample>| {
            let offsets = sorted(turn.iter().map(|sample| sample.offset));
            part(&offsets, 9) - part(&offsets, 1)
        };
        part(&sorted(self.turns.iter().map(of_turn)), 5)
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values
}

/// What so many tenths of the sorted values do not exceed.
fn part(values: &[f64], tenths: usize) -> f64 {
    let value = values.get(values.len() * tenths / 10);
    value.copied().unwrap_or(f64::NAN)
}

impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offset = part(&sorted(self.all().map(|sample| sample.offset)), 5);
        let delay = part(&sorted(self.all().map(|sample| sample.delay)), 5);
        write!(
            f,
            "spread {:.1} us (median {:.1} us, delay {:.1} us)",
            self.spread() * 1e6,
            offset * 1e6,
            delay * 1e6
        )
    }
}

fn samples_of(directory: &Path) -> Vec<Sample> {
    let log = fs::read_to_string(directory.join("measurements.log")).unwrap_or_default();
    log.lines().filter_map(Sample::parse).collect()
}
