//! Prints the project's figures on this machine: `make bench`. It judges nothing.
#![expect(clippy::print_stdout, reason = "a command talks to its user")]

use core::fmt::Write as _;
use core::time::Duration;
use std::fs;
use std::thread;
use std::time::Instant;

use gnomon_tests::busy::{Pace, Work, meanwhile};
use gnomon_tests::guest::{Guest, machine};
use gnomon_tests::icount::{self, Counted};
use gnomon_tests::image;
use gnomon_tests::load::{Mode, RATES};
use gnomon_tests::milestone::PARTS;
use gnomon_tests::netns::Netns;
use gnomon_tests::ntp::{Client, V4_CLIENT, cookie, request};
use gnomon_tests::peer::{Contender, cpu_micros_of_main_loop_and_cpu};
use gnomon_tests::start::{Parts, Subject};
use rustix::process::geteuid;

/// Starts of which the median counts.
const STARTS: usize = 9;
/// Requests of which the percentiles count.
const REQUESTS: usize = 5000;
/// Time between two requests.
const INTERVAL: Duration = Duration::from_millis(1);
/// How long each rate is offered.
const TIME: Duration = Duration::from_secs(2);
/// How long requests are sent that do not count, so that the emulator has translated the code.
const WARM_UP: Duration = Duration::from_secs(2);
/// The rate at which is looked what else the guest may do meanwhile, requests per second, and for how long.
const BUSY_RATE: u32 = 4000;
const BUSY_TIME: Duration = Duration::from_secs(5);
/// What a guest that does not work gets until it is given up.
const GIVE_UP: Duration = Duration::from_secs(10);

fn main() {
    let bytes = fs::metadata(image()).expect("readable").len();
    println!("image                       {bytes} bytes");
    println!("least memory that works     {} MiB", least_memory());

    match std::env::args().nth(1).as_deref() {
        Some("--starts") => return starts_by_part(),
        Some("--threads") => return who_works(),
        Some("--busy") => return while_busy(),
        _ => {}
    }
    let mut starts: Vec<Duration> = (0..STARTS).map(|_| power_on_to_first_answer()).collect();
    starts.sort_unstable();
    let [best, median, worst] = [0, STARTS / 2, STARTS - 1].map(|at| starts[at].as_millis());
    println!(
        "QEMU's start to first right answer: median {median} ms of {STARTS} ({best} to {worst})"
    );

    starts_by_part();

    for idle in ["halt", "poll"] {
        let (_guest, client) = Guest::serving_with(machine().append(format!("idle={idle}")));
        round_trips(&format!("user network, idle={idle}"), &client);
    }
    if !geteuid().is_root() {
        println!("round trip, tap             needs root");
        return;
    }
    for idle in ["halt", "poll"] {
        under_load(idle);
    }
    who_works();
    while_busy();
}

/// Round trips while there is nothing else to do, and while everything else is busy, together and one by one: at the pace
/// of `make bench-peer`, and as busy as it can be.
fn while_busy() {
    let netns = Netns::new();
    let contender = Contender::Gnomon;
    contender.prepare(&netns);
    let started = contender.start(&netns, contender.beside());
    let (mut guest, _) = started.unwrap_or_else(|why| panic!("{why}"));
    let mut load = contender.load(&netns);
    let _warm = load.run(Mode::Basic, BUSY_RATE, WARM_UP);
    for (pace, how) in [(Pace::Steady, ""), (Pace::Flood, "flood of ")] {
        // The page is updated at one pace only.
        let has_pace = |work: &Work| pace == Pace::Steady || work.asks();
        for work in Work::ALL.into_iter().filter(has_pace) {
            let (outcome, done) = meanwhile((contender, &mut guest), &netns, (work, pace), || {
                load.run(Mode::Basic, BUSY_RATE, BUSY_TIME)
            });
            let [p50, p99, p999] = [500, 990, 999].map(|share| outcome.per_mille(share));
            println!(
                "round trip, tap, {BUSY_RATE}/s, {how}{:<14} p50 {p50:.0} us, p99 {p99:.0} us, p99.9 {p999:.0} us; of \
                 {:.0}/s {:.1}% lost; each second {}",
                work.name,
                outcome.offered,
                outcome.loss() * 100.0,
                done.each_second(BUSY_TIME.as_secs_f64())
            );
        }
    }
}

/// What the parts of a start take, on every machine: all side by side, since others use this one.
fn starts_by_part() {
    let rounds: Vec<_> = (0..STARTS)
        .map(|_| Subject::ALL.map(|subject| subject.measure()))
        .collect();
    for (at, subject) in Subject::ALL.iter().enumerate() {
        let median = |part: fn(&Parts) -> Duration| {
            let mut took: Vec<f64> = rounds
                .iter()
                .map(|round| 1000.0 * part(&round[at]).as_secs_f64())
                .collect();
            took.sort_by(f64::total_cmp);
            took[took.len() / 2]
        };
        println!(
            "start, {:<13} {:>4.0} ms: QEMU {:.1}, firmware {:.1}, image {:.1}, DHCP {:.1}",
            subject.name,
            median(|parts| parts.all),
            median(|parts| parts.qemu),
            median(|parts| parts.firmware),
            median(|parts| parts.image),
            median(|parts| parts.dhcp),
        );
    }
    parts_of_the_image(&rounds);
}

/// What the image does until its first reply: milliseconds of the host's clock, and the guest's instructions.
fn parts_of_the_image(rounds: &[[Parts; Subject::ALL.len()]]) {
    let machines: Vec<_> = Subject::ALL
        .iter()
        .enumerate()
        .filter(|(_, subject)| subject.is_default())
        .collect();
    let counted = [icount::Subject::x86_64, icount::Subject::aarch64].map(|subject| {
        let subject = subject();
        (subject.arch, Counted::parts(subject))
    });
    for (number, part) in PARTS.iter().enumerate() {
        let mut line = format!("  {:<13}", part.name);
        for (at, subject) in &machines {
            let mut took: Vec<_> = rounds
                .iter()
                .filter_map(|round| round[*at].parts[number])
                .collect();
            took.sort_unstable();
            let (_, counts) = counted
                .iter()
                .find(|(arch, _)| *arch == subject.arch())
                .expect("both");
            let name = subject.name;
            match (took.get(took.len() / 2), counts[number]) {
                (Some(took), Some(count)) => {
                    let millis = 1000.0 * took.as_secs_f64();
                    write!(line, "  {name}: {millis:>5.2} ms, {count:>7} instructions")
                        .expect("memory");
                }
                _ => write!(line, "  {name}: none").expect("memory"),
            }
        }
        println!("{line}");
    }
}

/// Round trips at every rate, and the lossless rate, over a tap interface.
fn under_load(idle: &str) {
    let netns = Netns::new();
    Contender::Gnomon.prepare(&netns);
    let started = Contender::Gnomon.start(&netns, &format!("idle={idle}"));
    let (_guest, _) = started.unwrap_or_else(|why| panic!("{why}"));
    let mut load = Contender::Gnomon.load(&netns);
    for mode in Mode::ALL {
        let _warm = load.run(mode, RATES[0], WARM_UP);
        for rate in RATES {
            let outcome = load.run(mode, rate, TIME);
            let [p50, p99, p999] = [500, 990, 999].map(|share| outcome.per_mille(share));
            println!(
                "round trip, tap, idle={idle}, {rate:>5}/s {:<12} mean {:.0} us, p50 {p50:.0} us, p99 {p99:.0} us, \
                 p99.9 {p999:.0} us; of {:.0}/s {:.1}% lost",
                mode.name(),
                outcome.mean(),
                outcome.offered,
                outcome.loss() * 100.0
            );
        }
    }
    let rate = load.lossless_rate(Mode::Basic);
    println!("lossless rate, tap, idle={idle}   {rate}/s");
}

/// How busy QEMU's main loop, which carries the frames, and the virtual CPU are: whether a second CPU could carry anything.
fn who_works() {
    let netns = Netns::new();
    Contender::Gnomon.prepare(&netns);
    let started = Contender::Gnomon.start(&netns, "idle=halt");
    let (guest, _) = started.unwrap_or_else(|why| panic!("{why}"));
    let pid = guest.pid();
    let mut load = Contender::Gnomon.load(&netns);
    let _warm = load.run(Mode::Basic, RATES[0], WARM_UP);
    for rate in RATES {
        let before = cpu_micros_of_main_loop_and_cpu(pid);
        let outcome = load.run(Mode::Basic, rate, TIME);
        let after = cpu_micros_of_main_loop_and_cpu(pid);
        let used = [0, 1].map(|at| after[at] - before[at]);
        let [main_loop, cpu] = used.map(|micros| micros / outcome.answers());
        let [main_share, cpu_share] = used.map(|micros| 100.0 * micros / 1e6 / TIME.as_secs_f64());
        println!(
            "who works, tap, idle=halt, {rate:>5}/s       main loop {main_loop:.1} us a reply, {main_share:.0}% of a processor; \
             virtual CPU {cpu:.1} us, {cpu_share:.0}%; of {:.0}/s {:.1}% lost",
            outcome.offered,
            outcome.loss() * 100.0
        );
    }
}

/// From before QEMU is started to the first reply with time.
fn power_on_to_first_answer() -> Duration {
    let start = Instant::now();
    let guest = Guest::start(machine());
    let client = guest.client();
    loop {
        // QEMU keeps no request for a guest without an address, so ask often.
        client.send(&request(V4_CLIENT, cookie()));
        let answer = client.receive(Instant::now() + Duration::from_millis(5));
        if answer.is_some_and(|(reply, _)| reply[0] >> 6 != 3) {
            return start.elapsed();
        }
    }
}

fn least_memory() -> u32 {
    (1..=32)
        .find(|mib| works_with(*mib))
        .expect("it works with 32")
}

fn works_with(mib: u32) -> bool {
    let Ok(vm) = machine().memory(mib).start() else {
        return false;
    };
    let client = Client::new(vm.ntp_port().expect("user network"));
    let end = Instant::now() + GIVE_UP;
    while Instant::now() < end {
        client.send(&request(V4_CLIENT, cookie()));
        let answer = client.receive(Instant::now() + Duration::from_millis(100));
        if answer.is_some_and(|(reply, _)| reply[0] >> 6 != 3) {
            return true;
        }
    }
    false
}

/// One request per [`INTERVAL`], the next one only after the reply.
fn round_trips(what: &str, client: &Client) {
    let (mut trips, mut bounds) = (Vec::new(), Vec::new());
    for _ in 0..REQUESTS {
        let next = Instant::now() + INTERVAL;
        let reply = client.ask();
        reply.assert_right();
        trips.push(reply.round_trip_nanos());
        bounds.push(reply.bound_nanos());
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let [p50, p99] = percentiles(&mut trips);
    let [bound, wide] = percentiles(&mut bounds);
    println!(
        "round trip, {what:<22}  p50 {p50} us, p99 {p99} us; bound p50 {bound} us, p99 {wide} us"
    );
}

/// The 50th and the 99th, in microseconds.
fn percentiles(nanos: &mut [u64]) -> [u64; 2] {
    nanos.sort_unstable();
    [nanos.len() / 2, nanos.len() * 99 / 100].map(|at| nanos[at] / 1000)
}
