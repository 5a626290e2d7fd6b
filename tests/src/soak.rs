//! A guest under mixed load for a long time, and every answer of it judged ([`crate::truth`]).
//!
//! Clients ask all the time: NTP in basic and interleaved mode and with chrony's field F323, the page over HTTP, and
//! the console. The publisher meanwhile plays one scenario after the other, round after round: leap seconds, other
//! dates, disruptions, stops, pages without time, torn pages. Now and then the machine moves to another QEMU,
//! alive or by a snapshot. That needs two tap interfaces, behind a bridge.
//!
//! Nothing here depends on how fast this host is: what is asked is whether what was answered is true.

use core::net::Ipv4Addr;
use core::sync::atomic::Ordering;
use core::time::Duration;
use std::fs;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use gnomon_qemu::Scenario;
use gnomon_qemu::machine::{Machine, Net};
use gnomon_qemu::publish::Epoch;
use serde_json::json;

use crate::footprint::Footprint;
use crate::guest::{Guest, machine};
use crate::netns::Netns;
use crate::temporary::Temporary;
use crate::truth::{Judged, now};
use crate::{PATIENCE, arch, on};

use self::clients::{KINDS, Seen, Shared};
use self::console::time_by_console;

mod clients;
mod console;
mod summary;

pub use self::summary::Summary;

/// What is played, from `qemu/scenarios`: hosts that keep their promises, whatever happens to them.
const PHASES: [&str; 15] = [
    "disruptions",
    "leap-insert",
    "slew",
    "frozen",
    "leap-delete",
    "pauses",
    "torn",
    "leap-insert-utc",
    "restore",
    "flips",
    "leap-stale",
    "status",
    "era-2036",
    "leap-inside",
    "no-bounds",
];
/// Between two of them: an honest host that is left alone. Its bounds are compared over the run.
const CALM: &str = "wait 5s";
/// How much of that goes by before bounds count.
const SETTLED: Duration = Duration::from_secs(2);
/// How long a machine stays with one QEMU: a tenth of the run, and a minute at least.
const LIVES: u32 = 10;
const SHORTEST_LIFE: Duration = Duration::from_mins(1);
/// How long a snapshot lies on the disk.
const LYING: Duration = Duration::from_secs(2);
/// How long a machine is stopped by us, beside the stops that are played.
const HELD: Duration = Duration::from_millis(1500);
/// How often the console is asked while something is played.
const CONSOLE: Duration = Duration::from_millis(700);
const MEMORY_MIB: u64 = 16;

/// The guest's address, and the bridge's.
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 7, 7, 2);
const TAPS: [&str; 2] = ["gt0", "gt1"];

/// Runs a guest of the architecture under test for at least so long, and tells `say` how it goes. It needs root.
pub fn run(time: Duration, say: &(dyn Fn(&str) + Sync)) -> Summary {
    let started = Instant::now();
    let netns = network();
    let (records, received) = channel();
    let shared = Shared::default();
    thread::scope(|scope| {
        for kind in KINDS {
            let (records, shared, netns) = (records.clone(), &shared, &netns);
            let arch = arch();
            scope.spawn(move || {
                on(arch, || {
                    netns.enter(|| clients::ask(kind, GUEST, shared, &records));
                });
            });
        }
        // The channel ends with the clients.
        drop(records);
        let _over = Over(&shared);
        let mut soak = Soak {
            end: started + time,
            life: (time / LIVES).max(SHORTEST_LIFE),
            say,
            netns: &netns,
            folder: Temporary::directory("soak"),
            shared: &shared,
            received,
            waiting: Vec::new(),
            past: None,
            phases: 0,
            summary: Summary::default(),
        };
        soak.live();
        soak.summary.took = started.elapsed();
        soak.summary.asked = shared.asked();
        soak.summary
    })
}

/// Ends the clients, also when the run panics.
struct Over<'s>(&'s Shared);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

/// Two taps behind a bridge. It knows where the guest is before the guest does.
fn network() -> Netns {
    let netns = Netns::new();
    netns.add_bridge("br0", "10.7.7.1/24", &TAPS);
    let address = GUEST.to_string();
    let neighbour = [
        "neigh",
        "replace",
        &address,
        "lladdr",
        "52:54:00:12:34:56",
        "nud",
        "permanent",
        "dev",
        "br0",
    ];
    let (done, said) = netns.run("ip", &neighbour);
    assert!(done, "ip neigh: {said}");
    netns
}

struct Soak<'s> {
    end: Instant,
    life: Duration,
    say: &'s (dyn Fn(&str) + Sync),
    netns: &'s Netns,
    folder: Temporary,
    shared: &'s Shared,
    received: Receiver<Seen>,
    /// Answers that are not judged yet.
    waiting: Vec<Seen>,
    /// The journal of the QEMU before, and when that ended.
    past: Option<(Vec<Epoch>, i128)>,
    phases: usize,
    summary: Summary,
}

impl Soak<'_> {
    /// The machine's whole life, from QEMU to QEMU.
    fn live(&mut self) {
        let mut guest = self.begin(Self::machine(0));
        guest.wait_prompt();
        for life in 1.. {
            let moves_at = Instant::now() + self.life;
            self.settle(&guest);
            self.weigh(&mut guest);
            while Instant::now() < moves_at.min(self.end) {
                self.phase(&mut guest);
                self.summary.rss.note(guest.pid());
            }
            self.weigh(&mut guest);
            self.tell(life, guest.publisher().report().updates);
            if Instant::now() >= self.end {
                self.end(&mut guest);
                return;
            }
            let machine = Self::machine(life);
            guest = match life % 2 {
                1 => self.snapshot(guest, machine),
                _ => self.migrate(guest, machine),
            };
        }
    }

    /// Waits for the clients to end, and judges what is left.
    fn end(&mut self, guest: &mut Guest) {
        self.shared.over.store(true, Ordering::Relaxed);
        self.waiting.extend(self.received.iter());
        self.settle(guest);
        assert!(self.waiting.is_empty(), "all of them came before");
        // Nobody has any any more, and those that were cut off are forgotten.
        let deadline = Instant::now() + PATIENCE;
        let is_held = |tables: &[(u32, u32)]| tables.last().is_none_or(|(used, _)| *used > 0);
        while is_held(&guest.tables().1) && Instant::now() < deadline {
            thread::sleep(CONSOLE);
        }
        self.summary.held = is_held(&guest.tables().1);
        self.summary.finish(&guest.command("net"));
    }

    /// A machine that waits, on one of the taps.
    fn machine(life: usize) -> Machine {
        machine()
            .net(Net::Tap(TAPS[life % 2].to_owned()))
            // Scenarios are the page's: a real-time clock would tell the time of this host.
            .append(format!("ip={GUEST}/24 source=vmclock"))
            .memory(u32::try_from(MEMORY_MIB).expect("small"))
            .paused(true)
    }

    /// Starts QEMU, and lets the machine run when a scenario is played, so that the journal has all that it sees.
    fn begin(&mut self, machine: Machine) -> Guest {
        let mut guest = self.netns.enter(|| Guest::start(machine));
        self.go_on(&mut guest);
        guest
    }

    fn go_on(&mut self, guest: &mut Guest) {
        self.summary.lives += 1;
        self.summary.rss.begin();
        begin_to_play(guest, CALM);
        guest.cont().expect("QEMU runs");
        guest.wait_published(|report| report.valid);
    }

    /// The machine's state goes to a file, and another QEMU goes on from it a while later.
    fn snapshot(&mut self, mut guest: Guest, machine: Machine) -> Guest {
        let uri = format!("file:{}", self.folder.path().join("state").display());
        send(&mut guest, &uri);
        self.bury(guest);
        thread::sleep(LYING);
        self.summary.snapshots += 1;
        let mut guest = self
            .netns
            .enter(|| Guest::start(machine.arg("-incoming").arg(&uri)));
        guest.wait_loaded();
        self.go_on(&mut guest);
        guest
    }

    /// The machine runs on while its state goes to another QEMU.
    fn migrate(&mut self, mut guest: Guest, machine: Machine) -> Guest {
        let socket = self.folder.path().join("migration");
        let uri = format!("unix:{}", socket.display());
        let mut target = self
            .netns
            .enter(|| Guest::start(machine.arg("-incoming").arg(&uri)));
        let deadline = Instant::now() + PATIENCE;
        while !socket.exists() {
            assert!(Instant::now() < deadline, "QEMU does not listen");
            thread::sleep(Duration::from_millis(5));
        }
        send(&mut guest, &uri);
        self.bury(guest);
        // QEMU has made it, and may have removed it.
        let _gone = fs::remove_file(&socket);
        self.summary.migrations += 1;
        target.wait_loaded();
        self.go_on(&mut target);
        target
    }

    /// Ends a QEMU whose machine has gone, and keeps its journal.
    fn bury(&mut self, mut guest: Guest) {
        guest.wait_published(|report| !report.valid);
        let journal = guest.publisher().journal();
        guest.quit();
        drop(guest);
        self.past = Some((journal, now()));
    }

    /// One scenario, after a time of calm; and now and then a stop from outside.
    fn phase(&mut self, guest: &mut Guest) {
        self.calm(guest);
        if self.phases.is_multiple_of(4) {
            guest.stop().expect("QEMU runs");
            thread::sleep(HELD);
            guest.cont().expect("QEMU runs");
        }
        let name = PHASES[self.phases % PHASES.len()];
        self.phases += 1;
        self.summary.phases += 1;
        let before = now();
        play(guest, &scenario(name));
        self.judge(guest, before);
        self.watch(guest, Duration::ZERO);
        if let Some(what) = self.summary.audit(name, &guest.command("audit")) {
            (self.say)(&what);
        }
    }

    fn calm(&mut self, guest: &mut Guest) {
        self.settle(guest);
        let mut answered = self.shared.timed();
        self.watch(guest, SETTLED);
        self.shared.calm.store(false, Ordering::Relaxed);
        // Whoever has not been answered in all this time will not be, on any host.
        let deadline = Instant::now() + PATIENCE;
        for (kind, before) in KINDS.into_iter().zip(&mut answered) {
            while self.shared.timed()[kind as usize] == *before {
                assert!(
                    Instant::now() < deadline,
                    "{kind:?}: no time within {PATIENCE:?}"
                );
                thread::sleep(Duration::from_millis(10));
            }
        }
    }

    /// Plays an honest host, and judges what came before.
    fn settle(&mut self, guest: &Guest) {
        let before = now();
        play(guest, CALM);
        self.judge(guest, before);
    }

    /// Asks the console until what is played is over; after so long, what is answered counts as in calm times.
    fn watch(&mut self, guest: &mut Guest, settled: Duration) {
        let begun = Instant::now();
        let deadline = begun + PATIENCE;
        loop {
            let failed = self.shared.failed.load(Ordering::Relaxed);
            assert!(!failed, "a client has failed");
            let progress = guest.publisher().report().scenario.expect("played");
            if progress.over {
                self.summary.broken += progress.broken;
                return;
            }
            assert!(Instant::now() < deadline, "does not end: {progress:?}");
            let is_calm = !settled.is_zero() && begun.elapsed() >= settled;
            self.shared.calm.store(is_calm, Ordering::Relaxed);
            let record = time_by_console(guest);
            self.summary.console += 1;
            self.waiting.push(Seen {
                kind: None,
                calm: false,
                record,
            });
            thread::sleep(CONSOLE);
        }
    }

    /// Judges all that had arrived before this moment, after which the publisher has begun to play something else: all
    /// that it had done before is in its journal.
    fn judge(&mut self, guest: &Guest, before: i128) {
        self.waiting.extend(self.received.try_iter());
        let journal = guest.publisher().journal();
        assert!(journal.len() < 1 << 16, "the journal is full");
        let mut journals = vec![(&journal[..], None)];
        if let Some((past, ended)) = &self.past {
            journals.push((&past[..], Some(*ended)));
        }
        let all = core::mem::take(&mut self.waiting);
        let (ripe, waiting) = all
            .into_iter()
            .partition::<Vec<Seen>, _>(|seen| seen.record.arrived <= before);
        self.waiting = waiting;
        for seen in &ripe {
            self.summary.take(seen, &journals);
        }
    }

    /// How deep the stack has been, whether anything beside the image has been written to, and how full its tables are.
    fn weigh(&mut self, guest: &mut Guest) {
        let footprint = Footprint::of(guest, MEMORY_MIB);
        let (line, tables) = guest.tables();
        self.summary.weigh(footprint, line, &tables);
    }

    fn tell(&self, life: usize, updates: u64) {
        let Judged {
            timed,
            wrong,
            stale,
            ..
        } = &self.summary.judged;
        let how = match life {
            1 => "booted",
            _ if life.is_multiple_of(2) => "from a snapshot",
            _ => "migrated",
        };
        (self.say)(&format!(
            "QEMU {life} ({how}): {updates} updates; so far {timed} answers with time, {wrong} wrong, {stale} stale"
        ));
    }
}

/// Has the publisher play this from the next moment on at which there is time.
fn begin_to_play(guest: &Guest, text: &str) {
    let scenario = Scenario::parse(text).expect("well-formed");
    guest.publisher().play(scenario).expect("QEMU runs");
}

/// Has the publisher play this, and waits until it has begun.
fn play(guest: &Guest, text: &str) {
    begin_to_play(guest, text);
    guest.wait_published(|report| {
        let begun = |progress: gnomon_qemu::publish::Progress| progress.line > 0 && !progress.over;
        report.scenario.is_some_and(begun)
    });
}

fn scenario(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../qemu/scenarios");
    fs::read_to_string(path.join(format!("{name}.scenario"))).expect(name)
}

/// Sends the machine away, and waits until all of it has gone.
fn send(guest: &mut Guest, uri: &str) {
    guest
        .qmp()
        .execute("migrate", json!({ "uri": uri }))
        .expect("QEMU goes about it");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let state = guest.qmp().execute("query-migrate", json!({}));
        let state = state.expect("QEMU runs").value["status"].clone();
        if state == "completed" {
            return;
        }
        assert_ne!(state, "failed");
        assert!(Instant::now() < deadline, "{state}");
        thread::sleep(Duration::from_millis(5));
    }
}
