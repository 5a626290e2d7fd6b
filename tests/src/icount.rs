//! Counts the guest's instructions, one by one, by a plugin in QEMU's translator (`icount.c`).
//!
//! The machine runs under `-icount`, where its clocks tick once per instruction, with the same random
//! numbers each time, a page that does not change, and a network device that works while the guest waits
//! for it. So a boot is the same to the instruction each time.

use core::time::Duration;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Instant;

use gnomon_clock::page::flag;
use gnomon_clock::{ClockStatus, CounterId, Fields, Period, TimeType};
use gnomon_qemu::Vm;
use gnomon_qemu::machine::{Arch, Machine};

use crate::guest::machine;
use crate::link::Link;
use crate::map::Map;
use crate::milestone::{Milestones, PARTS, address, watched};
use crate::ntp::{HEADER, Reply, V4_CLIENT, request};
use crate::process::Process;
use crate::{PATIENCE, built, image};

/// The time on the page at counter 0: 2026-11-20T12:05:31Z.
const UTC: u64 = 1_795_176_331;
/// From 1900 to 1970, in seconds.
const EPOCH: u64 = 2_208_988_800;
/// What a count may take on the machine's clock, in seconds: nothing here sleeps for long.
const LONGEST: u64 = 600;
const PORT: u16 = 40_123;
/// The battery-backed clock keeps the machine's time, like everything else.
const RTC: &str = "base=2026-11-20,clock=vm";
/// The plugin's source, and where it goes.
const SOURCE: &str = include_str!("icount.c");

/// How to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A plain request.
    Basic,
    /// In interleaved mode (RFC 9769).
    Interleaved,
    /// With chrony's extension field 0xF323.
    MonoRoot,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Basic, Self::Interleaved, Self::MonoRoot];

    /// In a word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Interleaved => "interleaved",
            Self::MonoRoot => "F323",
        }
    }
}

/// What a reply costs, in instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cost {
    /// From the load that sees the frame in the used ring to the store that notifies the device of the
    /// reply, both included.
    pub to_kick: u64,
    /// From sleep to sleep.
    pub in_all: u64,
}

/// A guest whose instructions are counted.
#[derive(Debug)]
pub struct Counted {
    // Dropped first.
    vm: Vm,
    link: Link,
    events: PathBuf,
    /// The receive stamp of the latest reply.
    received: u64,
    asked: u64,
}

/// What of a boot one function is.
#[derive(Clone, Debug)]
pub struct Share {
    /// When it was first entered: instructions since power-on.
    pub first: u64,
    /// Its own instructions until the first reply.
    pub instructions: u64,
    /// Its name.
    pub name: String,
}

/// Something that the plugin has seen, and when: instructions since power-on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Event {
    name: String,
    at: u64,
}

/// An image in the machine that is to count its instructions.
#[derive(Debug)]
pub struct Subject {
    /// Its architecture.
    pub arch: Arch,
    /// The image.
    pub image: PathBuf,
    /// The machine with the image.
    pub machine: Machine,
    /// The address of the image's first instruction; 0 if it is entered at power-on, without firmware.
    pub entry: u64,
    /// The counter that the page speaks of.
    pub counter: CounterId,
}

impl Subject {
    /// The x86 image.
    #[must_use]
    pub fn x86_64() -> Self {
        let image = image();
        let elf = fs::read(&image).expect("readable");
        let entry = elf.get(24..32).expect("the header of a 64-bit ELF file");
        Self {
            arch: Arch::X86_64,
            image,
            machine: machine(),
            entry: u64::from_le_bytes(entry.try_into().expect("8")),
            counter: CounterId::X86Tsc,
        }
    }

    /// The aarch64 image.
    #[must_use]
    pub fn aarch64() -> Self {
        let arch = Arch::Aarch64;
        let image = built(arch.image(), "make build");
        Self {
            arch,
            machine: Machine::new(arch).kernel(&image),
            image,
            // QEMU's own few instructions before it count.
            entry: 0,
            counter: arch.counter_id(),
        }
    }
}

impl Counted {
    /// Boots it with a request in its network device from the start. Returns the guest with the number of
    /// instructions from the image's first to the notification of the first reply, which is right.
    #[must_use]
    pub fn boot(subject: Subject) -> (Self, u64) {
        Self::boot_watched(subject, |_| String::new())
    }

    /// Boots it, and says how many instructions each of [`PARTS`] took.
    #[must_use]
    pub fn parts(subject: Subject) -> [Option<u64>; PARTS.len()] {
        let milestones = Milestones::of(subject.arch);
        let (counted, _) = Self::boot_watched(subject, |_| milestones.arguments());
        let events = counted.events(|events| first_reply(events).is_some());
        let end = first_kick(&events).expect("waited for");
        milestones.took(&reached(&events), end)
    }

    /// Boots it, and says what each function has had a part in that, in the order in which they were first entered.
    #[must_use]
    pub fn profile(subject: Subject) -> Vec<Share> {
        let map = Map::of(subject.arch);
        let arch = subject.arch;
        let (counted, _) = Self::boot_watched(subject, |directory| {
            let every = watched(arch, map.functions().map(|(address, _)| address));
            format!("{every},profile={}", directory.join("profile").display())
        });
        let events = counted.events(|events| first_reply(events).is_some());
        let first: BTreeMap<u64, u64> = reached(&events).into_iter().collect();
        let written = fs::read_to_string(counted.link.directory().join("profile"));
        let mut shares: BTreeMap<u64, Share> = BTreeMap::new();
        for (address, count) in written
            .expect("there was a reply")
            .lines()
            .filter_map(|line| {
                let Event { name, at } = Event::parse(line);
                Some((address(&name)?, at))
            })
        {
            let (start, name) = map.function(address);
            let share = shares.entry(start).or_insert_with(|| Share {
                first: first.get(&start).copied().unwrap_or(0),
                instructions: 0,
                name: name.to_owned(),
            });
            share.instructions += count;
        }
        let mut shares: Vec<_> = shares.into_values().collect();
        shares.sort_by_key(|share| share.first);
        shares
    }

    /// The same with more arguments for the plugin.
    fn boot_watched(subject: Subject, watched: impl FnOnce(&Path) -> String) -> (Self, u64) {
        let link = Link::new();
        let events = link.directory().join("events");
        let plugin = format!(
            "{},out={},path={},entry={:#x},wait={}{}",
            plugin().display(),
            events.display(),
            link.directory().join("path").display(),
            subject.entry,
            PATIENCE.as_secs(),
            watched(link.directory())
        );
        let machine = subject
            .machine
            .net(link.net())
            .nic("ioeventfd=off")
            .append("ip=10.7.7.2/24 idle=halt")
            .publish(None)
            .paused(true)
            .arg("-plugin")
            .arg(plugin);
        let machine = ["-icount", "shift=0", "-seed", "1", "-rtc", RTC]
            .into_iter()
            .fold(machine, Machine::arg);
        let vm = match machine.start() {
            Ok(vm) => vm,
            Err(error) => panic!("{error}"),
        };
        vm.write_fields(&page(subject.counter))
            .expect("there is a page");
        let mut counted = Self {
            vm,
            link,
            events,
            received: 0,
            asked: 0,
        };
        // QEMU 10 loses the frame that it holds ready while the driver starts the device, and gives it the next.
        counted.send(Kind::Basic);
        counted.send(Kind::Basic);
        counted.vm.cont().expect("QEMU runs");
        counted.receive();
        let events = counted.events(|events| first_reply(events).is_some());
        let first = first_reply(&events).expect("waited for");
        (counted, first)
    }

    /// Asks so often, once whenever the guest sleeps, and returns what each reply cost.
    #[must_use]
    pub fn replies(&mut self, kind: Kind, number: usize) -> Vec<Cost> {
        (0..number).map(|_| self.reply(kind)).collect()
    }

    /// What each of the guest's next wake-ups costs in which nothing is to be done.
    #[must_use]
    pub fn wakes(&mut self, number: usize) -> Vec<u64> {
        let is_enough = |events: &[Event]| idle_wakes(events).len() >= number;
        let before = self.events(sleeps).len() - 1;
        let events = self.events(|events| is_enough(&events[before..]));
        let mut wakes = idle_wakes(&events[before..]);
        wakes.truncate(number);
        wakes
    }

    /// The addresses of the instructions of the latest reply, in order.
    #[must_use]
    pub fn path(&self) -> String {
        fs::read_to_string(self.link.directory().join("path")).expect("there was a reply")
    }

    fn reply(&mut self, kind: Kind) -> Cost {
        let before = self.events(sleeps).len();
        self.send(kind);
        self.receive();
        let events = self.events(|events| cost(&events[before - 1..]).is_some());
        cost(&events[before - 1..]).expect("waited for")
    }

    fn send(&mut self, kind: Kind) {
        self.asked += 1;
        let mut packet = request(V4_CLIENT, self.asked << 32).to_vec();
        match kind {
            Kind::Basic => {}
            Kind::Interleaved => {
                packet[24..32].copy_from_slice(&self.received.to_be_bytes());
                packet[32..40].copy_from_slice(&(self.asked << 32 | 1).to_be_bytes());
            }
            Kind::MonoRoot => {
                packet.extend([0xf3, 0x23, 0, 28, 0xf5, 0xbe, 0xdd, 0x9a]);
                packet.extend([0; 20]);
            }
        }
        self.link.send(PORT, &packet);
    }

    /// Waits for the reply, which is right.
    fn receive(&mut self) {
        let Some((_, bytes)) = self.link.receive(Instant::now() + PATIENCE) else {
            panic!("no reply; the guest said:\n{}", self.vm.serial_log());
        };
        let reply = Reply::decode(&bytes[..HEADER]);
        assert!(
            reply.leap == 0 && &reply.reference_id == b"XVMC",
            "{reply:?}"
        );
        let seconds = (reply.receive >> 32).wrapping_sub(UTC + EPOCH);
        assert!(
            seconds < LONGEST,
            "{seconds} s of the machine's time: {reply:?}"
        );
        self.received = reply.receive;
    }

    /// All events so far, as soon as they are such.
    fn events(&self, enough: impl Fn(&[Event]) -> bool) -> Vec<Event> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = fs::read_to_string(&self.events).expect("the plugin writes it");
            // The last line may be there in part.
            let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
            let events: Vec<Event> = complete.lines().map(Event::parse).collect();
            if enough(&events) {
                return events;
            }
            assert!(Instant::now() < deadline, "no more than:\n{text}");
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}

impl Event {
    fn parse(line: &str) -> Self {
        let (name, at) = line.split_once(' ').expect("two words");
        Self {
            name: name.to_owned(),
            at: at.parse().expect("a number"),
        }
    }

    fn is(&self, name: &str) -> bool {
        self.name == name
    }
}

/// The processor sleeps.
fn sleeps(events: &[Event]) -> bool {
    events.last().is_some_and(|event| event.is("sleep"))
}

/// What the first reply among these has cost, if it is complete. The processor sleeps at their beginning.
fn cost(events: &[Event]) -> Option<Cost> {
    let take = events.iter().position(|event| event.is("take"))?;
    let (before, after) = events.split_at(take);
    let at = |event: Option<&Event>| event.map(|event| event.at);
    let asleep = at(before.iter().rfind(|event| event.is("sleep")))?;
    let kick = at(after.iter().find(|event| event.is("kick")))?;
    let asleep_again = at(after.iter().find(|event| event.is("sleep")))?;
    Some(Cost {
        // The load that the take is has been counted by then.
        to_kick: kick - after[0].at + 1,
        in_all: asleep_again - asleep,
    })
}

/// The lengths of the times awake with no event in them.
fn idle_wakes(events: &[Event]) -> Vec<u64> {
    let pairs = events.windows(2);
    let idle = pairs.filter(|pair| pair[0].is("sleep") && pair[1].is("sleep"));
    idle.map(|pair| pair[1].at - pair[0].at).collect()
}

/// The number of instructions from the image's entry to the first reply.
fn first_reply(events: &[Event]) -> Option<u64> {
    let entry = events.iter().find(|event| event.is("entry"));
    Some(first_kick(events)? - entry.map_or(0, |event| event.at))
}

/// When the first reply was sent.
fn first_kick(events: &[Event]) -> Option<u64> {
    let mut taken = events.iter().skip_while(|event| !event.is("take"));
    Some(taken.find(|event| event.is("kick"))?.at)
}

/// When the addresses were first reached that the plugin was told to watch.
fn reached(events: &[Event]) -> Vec<(u64, u64)> {
    let reached = events.iter();
    reached
        .filter_map(|event| Some((address(&event.name)?, event.at)))
        .collect()
}

/// A page with time in it, for a counter that ticks once per nanosecond from 0 on.
fn page(counter: CounterId) -> Fields {
    let gigahertz = Period::from_hertz(1_000_000_000).expect("above 2 Hz");
    Fields {
        counter_id: counter as u8,
        time_type: TimeType::Utc as u8,
        clock_status: ClockStatus::Synchronized as u8,
        disruption_marker: 1,
        flags: flag::TAI_OFFSET_VALID | flag::PERIOD_MAXERROR_VALID | flag::TIME_MAXERROR_VALID,
        tai_offset_sec: -37,
        counter_period_frac_sec: gigahertz.frac(),
        counter_period_shift: gigahertz.shift(),
        counter_period_maxerror_rate_frac_sec: gigahertz.frac() / 1_000_000,
        time_sec: UTC,
        time_maxerror_nanosec: 1000,
        ..Fields::stock()
    }
}

/// Builds the plugin, once.
pub(crate) fn plugin() -> &'static Path {
    static PLUGIN: OnceLock<PathBuf> = OnceLock::new();
    PLUGIN.get_or_init(|| {
        let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("../build");
        let (source, plugin) = (build.join("icount.c"), build.join("icount.so"));
        fs::create_dir_all(&build).expect("build/");
        fs::write(&source, SOURCE).expect("a file in build/");
        let mut cc = Command::new("cc");
        cc.args([
            "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o",
        ]);
        let (status, said) = Process::run(cc.arg(&plugin).arg(&source));
        assert!(status.success(), "cc: {said}");
        plugin
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(log: &str) -> Vec<Event> {
        log.split(", ").map(Event::parse).collect()
    }

    #[test]
    fn a_reply_is_counted_from_the_load_to_the_store() {
        let log = "sleep 100, sleep 130, take 150, kick 190, refill 195, sleep 200, sleep 230";
        let counted = cost(&events(log)).expect("all of it");
        assert_eq!((counted.to_kick, counted.in_all), (41, 70));
        for incomplete in [
            "sleep 1, take 2, kick 3",
            "sleep 1, take 2, sleep 9",
            "sleep 1, sleep 2",
        ] {
            assert_eq!(cost(&events(incomplete)), None, "{incomplete}");
        }
    }

    #[test]
    fn the_first_reply_is_counted_from_the_entry() {
        let log = "entry 1000, refill 1100, kick 1200, take 1300, kick 1400, sleep 1500, take 1600, kick 1700";
        assert_eq!(first_reply(&events(log)), Some(400));
        assert_eq!(
            first_reply(&events("refill 1100, take 1300, kick 1400")),
            Some(1400)
        );
        assert_eq!(
            first_reply(&events("entry 1000, refill 1100, kick 1200")),
            None
        );
    }

    #[test]
    fn only_times_awake_without_an_event_are_idle() {
        let log = "sleep 10, sleep 30, take 40, kick 50, sleep 60, sleep 75";
        assert_eq!(idle_wakes(&events(log)), [20, 15]);
    }
}
