//! Prints the project's figures on this machine: `make bench`. It judges nothing.
#![expect(clippy::print_stdout, reason = "a command talks to its user")]

use core::fmt::Write as _;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Instant;

use gnomon_qemu::Scenario;
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
/// What is typed meanwhile, again and again.
const LINES: &str = "time -n 1000";
/// What a guest that does not work gets until it is given up.
const GIVE_UP: Duration = Duration::from_secs(10);

fn main() {
    let bytes = fs::metadata(image()).expect("readable").len();
    println!("image                       {bytes} bytes");
    println!("least memory that works     {} MiB", least_memory());

    match std::env::args().nth(1).as_deref() {
        Some("--starts") => return starts_by_part(),
        Some("--threads") => return who_works(),
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

/// Round trips while there is nothing else to do, and while everything else is busy, together and one by one.
fn while_busy() {
    let netns = Netns::new();
    Contender::Gnomon.prepare(&netns);
    let started = Contender::Gnomon.start(&netns, "");
    let (mut guest, _) = started.unwrap_or_else(|why| panic!("{why}"));
    let mut load = Contender::Gnomon.load(&netns);
    let _warm = load.run(Mode::Basic, BUSY_RATE, WARM_UP);
    let mut measure = |what: &str| {
        let outcome = load.run(Mode::Basic, BUSY_RATE, BUSY_TIME);
        let [p50, p99, p999] = [500, 990, 999].map(|share| outcome.per_mille(share));
        println!(
            "round trip, tap, {BUSY_RATE}/s, {what:<24} p50 {p50:.0} us, p99 {p99:.0} us, p99.9 {p999:.0} us; of \
             {:.0}/s {:.1}% lost",
            outcome.offered,
            outcome.loss() * 100.0
        );
    };
    measure("nothing else");
    with_http(&netns, || measure("with HTTP"));
    with_serial(&mut guest, || measure("with serial"));
    // From now on.
    let often = Scenario::parse("interval 1ms\n").expect("well-formed");
    guest.publisher().play(often).expect("QEMU runs");
    let before = guest.publisher().report().updates;
    measure("with page updates");
    with_http(&netns, || {
        with_serial(&mut guest, || measure("with all of these"));
    });
    let updates = guest.publisher().report().updates - before;
    println!("  meanwhile {updates} updates of the page");
    let counted = netns.enter(|| get("/status"));
    assert!(counted.is_some(), "HTTP is answered after all of this");
}

/// Meanwhile clients of HTTP ask for the page and the status, each as soon as it is answered.
fn with_http(netns: &Netns, what: impl FnOnce()) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients: Vec<_> = ["/", "/status"]
            .map(|path| {
                let over = &over;
                scope.spawn(move || {
                    netns.enter(|| {
                        let mut answered = 0;
                        while !over.load(Ordering::Relaxed) {
                            answered += u32::from(get(path).is_some());
                        }
                        answered
                    })
                })
            })
            .into();
        what();
        over.store(true, Ordering::Relaxed);
        let answered: u32 = clients
            .into_iter()
            .map(|client| client.join().expect("it has ended"))
            .sum();
        println!("  meanwhile {answered} answers over HTTP");
    });
}

/// One answer over HTTP.
fn get(path: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&Contender::Gnomon.http(), GIVE_UP).ok()?;
    stream.set_read_timeout(Some(GIVE_UP)).ok()?;
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.contains(" 200 ").then_some(answer)
}

/// Meanwhile the console prints the time, line after line.
fn with_serial(guest: &mut Guest, what: impl FnOnce()) {
    let over = AtomicBool::new(false);
    let before = guest.serial_log().len();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                guest.command(LINES);
            }
        });
        what();
        over.store(true, Ordering::Relaxed);
    });
    let bytes = guest.serial_log().len() - before;
    println!("  meanwhile {bytes} bytes over the serial line");
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
