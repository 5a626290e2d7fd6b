//! What else a guest has to do while it is measured: the same for every [`Contender`].
//!
//! HTTP clients ask for the page and the status in turn; somebody types `time` on the console, which is answered by a line
//! with the time; the publisher writes the page every millisecond. Linux answers the former with busybox's `httpd`, from
//! files of the same size as ours, and the latter with a loop of its shell that starts no process.

use core::iter::Sum;
use core::net::SocketAddr;
use core::ops::Add;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::{self, ScopedJoinHandle};
use std::time::Instant;

use gnomon_qemu::Scenario;

use crate::guest::Guest;
use crate::load::float;
use crate::netns::Netns;
use crate::peer::Contender;

/// What is asked for over HTTP, and by how many at a time.
const PATHS: [&str; 4] = ["/", "/status", "/", "/status"];
/// Answers over HTTP a second, at a steady pace: what Linux manages, too.
pub const ANSWERS: u32 = 20;
/// Lines typed a second.
pub const LINES: u32 = 100;
/// What is typed.
const LINE: &str = "time\r";
/// What a guest gets for one answer until it is given up.
const GIVE_UP: Duration = Duration::from_secs(10);
/// The publisher's usual interval, and that when it is busy.
const CALM: &str = "interval 50ms\n";
const BUSY: &str = "interval 1ms\n";

/// What a guest has to do beside NTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// In a word or two.
    pub name: &'static str,
    http: bool,
    serial: bool,
    page: bool,
}

impl Work {
    /// Nothing, each alone, and all together.
    pub const ALL: [Self; 5] = [
        Self::of("nothing else", [false, false, false]),
        Self::of("HTTP", [true, false, false]),
        Self::of("serial", [false, true, false]),
        Self::of("page updates", [false, false, true]),
        Self::of("all of these", [true, true, true]),
    ];

    /// Whether anybody asks for it, so that there is a [`Pace`].
    #[must_use]
    pub const fn asks(&self) -> bool {
        self.http || self.serial
    }

    const fn of(name: &'static str, [http, serial, page]: [bool; 3]) -> Self {
        Self {
            name,
            http,
            serial,
            page,
        }
    }
}

/// How often everybody asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// [`ANSWERS`] and [`LINES`] a second; whoever is late leaves out what he has missed.
    Steady,
    /// Again as soon as he is answered.
    Flood,
}

/// What has been done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// Answers over HTTP.
    pub answers: u32,
    /// Bytes of these.
    pub answered: usize,
    /// Lines typed on the console that were answered.
    pub lines: u32,
    /// Bytes that the guest has said there.
    pub said: usize,
    /// Updates of the page.
    pub updates: u64,
}

impl Done {
    /// What that is in one of so many seconds, to be shown.
    #[must_use]
    pub fn each_second(self, seconds: f64) -> String {
        let counts = [
            u64::from(self.answers),
            self.answered as u64,
            u64::from(self.lines),
            self.said as u64,
            self.updates,
        ];
        let [answers, answered, lines, said, updates] = counts.map(|count| float(count) / seconds);
        format!(
            "{answers:.0} answers of {answered:.0} bytes, {lines:.0} lines of {said:.0} bytes, {updates:.0} updates"
        )
    }
}

impl Add for Done {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            answers: self.answers + other.answers,
            answered: self.answered + other.answered,
            lines: self.lines + other.lines,
            said: self.said + other.said,
            updates: self.updates + other.updates,
        }
    }
}

impl Sum for Done {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

/// When something is to be done again.
#[derive(Debug)]
struct Schedule {
    interval: Duration,
    due: Instant,
}

impl Schedule {
    /// One of so many who together do something `rate` times a second.
    fn new(pace: Pace, rate: u32, sharers: u32, number: u32) -> Self {
        let interval = match pace {
            Pace::Steady => Duration::from_secs(1) * sharers / rate,
            Pace::Flood => Duration::ZERO,
        };
        let due = Instant::now() + interval * number / sharers;
        Self { interval, due }
    }

    fn wait(&mut self) {
        let now = Instant::now();
        thread::sleep(self.due.saturating_duration_since(now));
        self.due = (self.due + self.interval).max(now);
    }
}

/// Does something while the guest has work beside NTP.
///
/// # Panics
/// It has stopped doing that.
pub fn meanwhile<T>(
    (contender, guest): (Contender, &mut Guest),
    netns: &Netns,
    (work, pace): (Work, Pace),
    what: impl FnOnce() -> T,
) -> (T, Done) {
    let play = |guest: &Guest, scenario| {
        let scenario = Scenario::parse(scenario).expect("well-formed");
        guest.publisher().play(scenario).expect("QEMU runs");
        guest.publisher().report().updates
    };
    let before = work.page.then(|| play(guest, BUSY));
    let over = &AtomicBool::new(false);
    let is_over = move || over.load(Ordering::Relaxed);
    let line = &mut *guest;
    let (outcome, mut done) = thread::scope(|scope| {
        let mut workers = Vec::new();
        if work.http {
            for (number, path) in (0..).zip(PATHS) {
                let schedule = Schedule::new(pace, ANSWERS, 4, number);
                let asks = move || ask_pages(contender, path, schedule, is_over);
                workers.push(scope.spawn(move || netns.enter(asks)));
            }
        }
        if work.serial {
            let schedule = Schedule::new(pace, LINES, 1, 0);
            workers.push(scope.spawn(move || type_lines(contender, line, schedule, is_over)));
        }
        let outcome = what();
        over.store(true, Ordering::Relaxed);
        let done = workers.into_iter().map(ScopedJoinHandle::join);
        let done: Done = done.map(|done| done.expect("it works")).sum();
        (outcome, done)
    });
    if let Some(before) = before {
        done.updates = play(guest, CALM) - before;
    }
    (outcome, done)
}

fn ask_pages(
    contender: Contender,
    path: &str,
    mut schedule: Schedule,
    is_over: impl Fn() -> bool,
) -> Done {
    let mut done = Done::default();
    while !is_over() {
        schedule.wait();
        if let Some(bytes) = get(contender.http(), path) {
            done.answers += 1;
            done.answered += bytes;
        }
    }
    done
}

/// One answer over HTTP: its bytes.
#[must_use]
pub fn get(server: SocketAddr, path: &str) -> Option<usize> {
    let mut stream = TcpStream::connect_timeout(&server, GIVE_UP).ok()?;
    stream.set_read_timeout(Some(GIVE_UP)).ok()?;
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.contains(" 200 ").then_some(answer.len())
}

fn type_lines(
    contender: Contender,
    guest: &mut Guest,
    mut schedule: Schedule,
    is_over: impl Fn() -> bool,
) -> Done {
    let mut done = Done::default();
    while !is_over() {
        schedule.wait();
        guest.send_serial(LINE).expect("QEMU runs");
        done.lines += 1;
        done.said += guest.wait_said(contender.prompt()).len();
    }
    done
}
