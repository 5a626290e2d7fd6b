//! Gnomon and Linux with chrony side by side: `make bench-peer`. It prints, and judges nothing.
#![expect(clippy::print_stdout, reason = "a command talks to its user")]

use core::time::Duration;

use gnomon_tests::busy::{ANSWERS, Done, LINES, Pace, Work, meanwhile};
use gnomon_tests::guest::Guest;
use gnomon_tests::load::{Load, Mode, Outcome, RATES};
use gnomon_tests::netns::Netns;
use gnomon_tests::peer::{Contender, cpu_micros};

/// Starts of which the median counts.
const STARTS: usize = 5;
/// How often a guest is started that does not answer.
const ATTEMPTS: usize = 3;
/// Rounds of which the median counts; in each, one is measured after the other.
const ROUNDS: usize = 3;
/// How long each rate is offered.
const TIME: Duration = Duration::from_secs(2);
/// How long requests are sent that do not count, so that the emulator has translated the code.
const WARM_UP: Duration = Duration::from_secs(2);

/// The rate at which is looked what a guest can do beside NTP, requests per second, and for how long.
const BUSY_RATE: u32 = 4000;
const BUSY_TIME: Duration = Duration::from_secs(4);

/// What came of a run on either, and the processor time that QEMU took for it, in microseconds.
type Round = [(Outcome, f64); 2];
/// A figure of both contenders, once a round.
type Pairs = Vec<[f64; 2]>;

fn main() {
    let netns = Netns::new();
    for contender in Contender::ALL {
        contender.prepare(&netns);
    }
    let [ours, theirs] = Contender::ALL.map(Contender::name);
    println!("{:<34} {ours:>10} {theirs:>14}   better by", "");
    if std::env::args().nth(1).as_deref() == Some("--busy") {
        return while_busy(&netns);
    }

    let first_answer = |contender: Contender| {
        let (_guest, time) = start(contender, &netns, "");
        time.as_secs_f64() * 1000.0
    };
    let starts: Pairs = (0..STARTS)
        .map(|_| Contender::ALL.map(first_answer))
        .collect();
    line(
        "first right answer, ms",
        &starts,
        slower(&starts),
        "bar: 10",
    );

    let guests = Contender::ALL.map(|contender| start(contender, &netns, "").0);
    let mut loads = Contender::ALL.map(|contender| contender.load(&netns));
    for load in &mut loads {
        for mode in Mode::ALL {
            let _warm = load.run(mode, RATES[0], WARM_UP);
        }
    }
    for mode in Mode::ALL {
        for rate in RATES {
            let mut run = |at: usize| {
                let pid = guests[at].pid();
                let before = cpu_micros(pid);
                let outcome = loads[at].run(mode, rate, TIME);
                (outcome, cpu_micros(pid) - before)
            };
            let rounds: Vec<Round> = (0..ROUNDS).map(|_| [0, 1].map(&mut run)).collect();
            report(mode, rate, &rounds);
        }
    }
    let lossless = |load: &mut Load| f64::from(load.lossless_rate(Mode::Basic));
    let mut round = |_| loads.each_mut().map(lossless);
    let rates: Pairs = (0..ROUNDS).map(&mut round).collect();
    let more = median(rates.iter().map(|[ours, theirs]| ours / theirs).collect());
    line("lossless rate, 1/s", &rates, more, "bar: 4");
    drop(guests);
    while_busy(&netns);
}

/// Round trips while there is nothing else to do, and while both do the same beside it, one by one and together.
fn while_busy(netns: &Netns) {
    println!(
        "beside NTP, on each: {ANSWERS} answers a second over HTTP (page and status in turn; Linux: busybox httpd, a \
         process each, files of the same size); {LINES} lines a second typed on the console and answered with the time (Linux: a loop of its shell, \
         no process); an update of the page each millisecond"
    );
    let mut guests = Contender::ALL.map(|contender| start(contender, netns, contender.beside()).0);
    let mut loads = Contender::ALL.map(|contender| contender.load(netns));
    for load in &mut loads {
        let _warm = load.run(Mode::Basic, BUSY_RATE, WARM_UP);
    }
    for work in Work::ALL {
        let mut run = |at: usize| {
            let subject = (Contender::ALL[at], &mut guests[at]);
            meanwhile(subject, netns, (work, Pace::Steady), || {
                loads[at].run(Mode::Basic, BUSY_RATE, BUSY_TIME)
            })
        };
        let rounds: Vec<_> = (0..ROUNDS).map(|_| [0, 1].map(&mut run)).collect();
        for (what, per_mille, bar) in [("p50", 500, ""), ("p99", 990, "bar: 2"), ("p99.9", 999, "")]
        {
            let pairs = rounds.iter().map(|round| {
                round
                    .each_ref()
                    .map(|(outcome, _)| outcome.per_mille(per_mille))
            });
            let pairs: Pairs = pairs.collect();
            let name = format!("{BUSY_RATE}/s, {}: {what}, us", work.name);
            line(&name, &pairs, slower(&pairs), bar);
        }
        let rounds_done = f64::from(u32::try_from(ROUNDS).expect("a few"));
        let [ours, theirs] = [0, 1].map(|at| {
            let done: Done = rounds.iter().map(|round| round[at].1).sum();
            let loss = median(rounds.iter().map(|round| round[at].0.loss()).collect());
            let offered = median(rounds.iter().map(|round| round[at].0.offered).collect());
            let done = done.each_second(rounds_done * BUSY_TIME.as_secs_f64());
            format!("{done}, {:.1}% lost of {offered:.0}", 100.0 * loss)
        });
        let [us, them] = Contender::ALL.map(Contender::name);
        println!("  {us}, each second: {ours}\n  {them}: {theirs}");
    }
}

/// Starts it, if need be a few times.
fn start(contender: Contender, netns: &Netns, words: &str) -> (Guest, Duration) {
    for _ in 1..ATTEMPTS {
        match contender.start(netns, words) {
            Ok(started) => return started,
            Err(why) => println!("once more, since {why}"),
        }
    }
    let last = contender.start(netns, words);
    last.unwrap_or_else(|why| panic!("{why}"))
}

fn report(mode: Mode, rate: u32, rounds: &[Round]) {
    let print = |what: &str, figure: &dyn Fn(&Outcome) -> f64, bar: &str| {
        let figure = |(outcome, _): &(Outcome, f64)| figure(outcome);
        let pairs = rounds.iter().map(|round| round.each_ref().map(figure));
        let pairs: Pairs = pairs.collect();
        let name = format!("{rate}/s {}: {what}", mode.name());
        line(&name, &pairs, slower(&pairs), bar);
    };
    let bar = |at| match mode {
        Mode::Basic if rate == at => "bar: 2",
        _ => "",
    };
    print("mean, us", &Outcome::mean, bar(1000));
    print("p50, us", &|outcome| outcome.per_mille(500), "");
    print("p99, us", &|outcome| outcome.per_mille(990), bar(4000));
    print("p99.9, us", &|outcome| outcome.per_mille(999), "");
    let cpu: Pairs = rounds
        .iter()
        .map(|round| {
            round
                .each_ref()
                .map(|(outcome, cpu)| cpu / outcome.answers())
        })
        .collect();
    let name = format!("{rate}/s {}: CPU a reply, us", mode.name());
    line(&name, &cpu, slower(&cpu), "");
    let [ours, theirs] = [0, 1].map(|at| {
        let each = |figure: fn(&Outcome) -> f64| {
            median(rounds.iter().map(|round| figure(&round[at].0)).collect())
        };
        let lost = 100.0 * each(Outcome::loss);
        (lost, each(|outcome| outcome.offered))
    });
    let is_offered = |(_, offered)| offered >= 0.98 * f64::from(rate);
    if ours.0 + theirs.0 > 0.0 || !is_offered(ours) || !is_offered(theirs) {
        let ((ours, at), (theirs, theirs_at)) = (ours, theirs);
        println!(
            "{:<34} {ours:>9.1}% {theirs:>13.1}%   of {at:.0} and {theirs_at:.0} a second",
            "  lost"
        );
    }
}

/// How many times as long the second takes: the median of the rounds.
fn slower(pairs: &[[f64; 2]]) -> f64 {
    median(pairs.iter().map(|[ours, theirs]| theirs / ours).collect())
}

/// The medians of a figure, and the ratio by which ours is the better one.
fn line(name: &str, pairs: &[[f64; 2]], ratio: f64, bar: &str) {
    let [ours, theirs] = [0, 1].map(|at| {
        let figure = median(pairs.iter().map(|pair| pair[at]).collect());
        if figure.is_finite() {
            format!("{figure:.0}")
        } else {
            "lost".to_owned()
        }
    });
    let ratio = if ratio.is_finite() {
        format!("{ratio:.1} times")
    } else {
        "-".to_owned()
    };
    println!("{name:<34} {ours:>10} {theirs:>14}   {ratio:>11}  {bar}");
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
