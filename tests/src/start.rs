//! From power-on to the first right answer, part by part, by the host's clock.
//!
//! What the guest does is told apart by a plugin in QEMU's translator, which writes down when the functions of
//! [`milestone`](crate::milestone) are entered, and watches nothing else.

use core::time::Duration;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use gnomon_qemu::machine::{Arch, Board, Firmware, Machine};
use rustix::time::{ClockId, clock_gettime};

use crate::guest::Guest;
use crate::icount::plugin;
use crate::link::Link;
use crate::milestone::{Milestones, PARTS, address};
use crate::ntp::{V4_CLIENT, cookie, request};
use crate::{PATIENCE, built};

/// How long a request waits for its answer before the next is sent: QEMU keeps none for a guest that has no address yet.
const ASK: Duration = Duration::from_millis(2);

/// An address of QEMU's network that nobody is asked for.
const STATIC: &str = "ip=10.0.2.15/24,10.0.2.2";

/// A machine to be started.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// Its name.
    pub name: &'static str,
    board: Board,
    firmware: Firmware,
}

/// What the parts of a start took.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    /// QEMU's start, until its machine is told to run; with the publisher's.
    pub qemu: Duration,
    /// From there to the image's first instruction.
    pub firmware: Duration,
    /// From there to the first right answer, with an address on the command line.
    pub image: Duration,
    /// What the parts of that took: [`PARTS`].
    pub parts: [Option<Duration>; PARTS.len()],
    /// What it takes longer to be given one by DHCP.
    pub dhcp: Duration,
    /// All of it, with DHCP.
    pub all: Duration,
}

impl Subject {
    /// The machines that there are, with each firmware; each one's default first.
    pub const ALL: [Self; 5] = [
        Self::new("q35, qboot", Board::Q35, Firmware::Quick),
        Self::new("q35, SeaBIOS", Board::Q35, Firmware::Qemu),
        Self::new("pc, qboot", Board::Pc, Firmware::Quick),
        Self::new("pc, SeaBIOS", Board::Pc, Firmware::Qemu),
        Self::new("virt", Board::Virt, Firmware::Quick),
    ];

    const fn new(name: &'static str, board: Board, firmware: Firmware) -> Self {
        Self {
            name,
            board,
            firmware,
        }
    }

    /// Starts it, three times, and says what the parts took.
    #[must_use]
    pub fn measure(&self) -> Parts {
        let [by_hand, by_dhcp] = [STATIC, "ip=dhcp"].map(|ip| self.first_answer(ip, None));
        let (firmware, parts) = self.by_milestones();
        Parts {
            qemu: by_hand.qemu.min(by_dhcp.qemu),
            firmware,
            image: by_hand.guest.saturating_sub(firmware),
            parts,
            dhcp: by_dhcp.guest.saturating_sub(by_hand.guest),
            all: by_dhcp.qemu + by_dhcp.guest,
        }
    }

    /// Whether it is the machine that is started when nothing is said.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.board != Board::Pc && self.firmware == Firmware::default()
    }

    /// Its architecture.
    #[must_use]
    pub const fn arch(&self) -> Arch {
        match self.board {
            Board::Virt => Arch::Aarch64,
            Board::Q35 | Board::Pc => Arch::X86_64,
        }
    }

    fn machine(&self, kernel: PathBuf) -> Machine {
        let machine = Machine::new(self.arch()).board(self.board);
        machine.firmware(self.firmware).kernel(kernel).paused(true)
    }

    /// How long it is until the image's first instruction, and what each of its parts takes then.
    fn by_milestones(&self) -> (Duration, [Option<Duration>; PARTS.len()]) {
        let milestones = Milestones::of(self.arch());
        let link = Link::new();
        let written = link.directory().join("reached");
        let (plugin, out) = (plugin().display(), written.display());
        let watched = milestones.arguments();
        let plugin = format!("{plugin},out={out},clock=on{watched}");
        let timed = self.first_answer(STATIC, Some(plugin));
        let lines = fs::read_to_string(&written).expect("the plugin writes it");
        let reached: Vec<(u64, u64)> = lines
            .lines()
            .filter_map(|line| {
                let (word, nanos) = line.split_once(' ')?;
                Some((address(word)?, nanos.parse().ok()?))
            })
            .collect();
        let entry = reached.iter().map(|(_, nanos)| *nanos).min();
        let firmware = entry.expect("it was entered").saturating_sub(timed.from);
        let took = milestones.took(&reached, timed.until);
        (
            Duration::from_nanos(firmware),
            took.map(|nanos| nanos.map(Duration::from_nanos)),
        )
    }

    /// How long QEMU takes to start, and then the guest to answer.
    fn first_answer(&self, ip: &str, plugin: Option<String>) -> Timed {
        let image = built(self.arch().image(), "make build");
        let mut machine = self.machine(image).append(ip);
        if let Some(plugin) = plugin {
            machine = machine.arg("-plugin").arg(plugin);
        }
        let start = Instant::now();
        let mut guest = Guest::start(machine);
        let qemu = start.elapsed();
        let client = guest.client();
        let (from, start) = (monotonic(), Instant::now());
        guest.cont().expect("QEMU runs");
        loop {
            client.send(&request(V4_CLIENT, cookie()));
            let answer = client.receive(Instant::now() + ASK);
            if answer.is_some_and(|(reply, _)| reply[0] >> 6 != 3) {
                let (guest, until) = (start.elapsed(), monotonic());
                return Timed {
                    qemu,
                    guest,
                    from,
                    until,
                };
            }
            assert!(start.elapsed() < PATIENCE, "{}", guest.serial_log());
        }
    }
}

/// A start by the host's clock.
struct Timed {
    qemu: Duration,
    guest: Duration,
    /// Its `CLOCK_MONOTONIC` in nanoseconds when the machine was told to run, and when the answer came.
    from: u64,
    until: u64,
}

/// The clock that the plugin goes by.
fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let nanos = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
    u64::try_from(nanos).expect("a clock that counts from a start")
}
