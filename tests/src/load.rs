//! A load generator: NTP requests at a given rate for a given time, whether they are answered or not.
//!
//! A request's round trip begins before the system call that sends it, and ends with the kernel's stamp of its reply,
//! which it takes when the reply leaves QEMU. So how soon this process wakes up plays no part.

use core::net::{Ipv4Addr, SocketAddr};
use core::num::NonZeroU64;
use core::time::Duration;
use std::io::IoSliceMut;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::{Instant, SystemTime};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::set_current_timer_slack;

use crate::ntp::{HEADER, V4_CLIENT, request};

/// The rates at which round trips are compared, requests per second.
pub const RATES: [u32; 4] = [1000, 4000, 16_000, 64_000];

/// How long the last replies are waited for.
const STRAGGLERS: Duration = Duration::from_millis(300);
/// How far behind its schedule the generator sends faster to catch up. Whoever stops it for longer than that
/// has not made it lose anything, but has made it offer less.
const LAG: Duration = Duration::from_millis(2);
/// Bytes of replies that the kernel keeps for us.
const RECEIVE_BUFFER: usize = 8 << 20;

/// Rates that [`Load::lossless_rate`] tries, requests per second.
const LOWEST: u32 = 1000;
const HIGHEST: u32 = 512_000;
/// How long it tries each.
const TRIAL: Duration = Duration::from_secs(2);
/// What somebody else on the machine has done to a trial, he does not do this often in a row.
const ATTEMPTS: u32 = 3;
/// Bisections after the doublings: to about 6 %.
const BISECTIONS: u32 = 4;

/// NTP's client modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Each request stands alone.
    Basic,
    /// Each request asks when an earlier reply left (RFC 9769).
    Interleaved,
}

impl Mode {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Basic, Self::Interleaved];

    /// In a word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Interleaved => "interleaved",
        }
    }
}

/// A source of requests for one server.
#[derive(Debug)]
pub struct Load {
    socket: UdpSocket,
    runs: u32,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Requests sent.
    pub sent: usize,
    /// Requests per second that were offered.
    pub offered: f64,
    /// Replies that were interleaved.
    pub interleaved: usize,
    /// Replies without time.
    pub timeless: usize,
    /// The round trips of all answered requests in nanoseconds, the shortest first.
    trips: Vec<u64>,
}

impl Outcome {
    /// Requests answered.
    #[must_use]
    pub fn answered(&self) -> usize {
        self.trips.len()
    }

    /// The same, to calculate with.
    #[must_use]
    pub fn answers(&self) -> f64 {
        float(self.trips.len() as u64)
    }

    /// The mean round trip in microseconds; infinite when nothing was answered.
    #[must_use]
    pub fn mean(&self) -> f64 {
        let sum: u64 = self.trips.iter().sum();
        float(sum) / self.answers() / 1000.0
    }

    /// The round trip in microseconds that so many of a thousand requests do not exceed. Requests that
    /// were not answered count as infinitely long.
    #[must_use]
    pub fn per_mille(&self, per_mille: usize) -> f64 {
        let trip = self.trips.get(self.sent * per_mille / 1000);
        trip.map_or(f64::INFINITY, |trip| float(*trip) / 1000.0)
    }

    /// Whether the generator had the time to send so many requests per second, but for 2 %.
    #[must_use]
    pub fn is_offered(&self, rate: u32) -> bool {
        self.offered >= f64::from(rate) * 0.98
    }

    /// The share of requests without an answer.
    #[must_use]
    pub fn loss(&self) -> f64 {
        1.0 - self.answers() / float(self.sent as u64)
    }
}

impl Load {
    /// A source in the network that the calling thread is in.
    #[must_use]
    pub fn of(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a UDP socket");
        socket.connect(server).expect("a route to the guest");
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true).expect("stamps");
        setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).expect("root");
        Self { socket, runs: 0 }
    }

    /// Sends `rate` requests a second for so long.
    pub fn run(&mut self, mode: Mode, rate: u32, time: Duration) -> Outcome {
        set_current_timer_slack(NonZeroU64::new(1)).expect("the thread's own");
        self.runs += 1;
        let mut run = Run::new(&self.socket, self.runs, mode);
        let interval = Duration::from_secs(1) / rate;
        let start = Instant::now();
        let end = start + time;
        let mut due = start;
        loop {
            let now = Instant::now();
            if now >= end {
                break;
            }
            due = due.max(now.checked_sub(LAG).unwrap_or(now));
            while due <= now {
                run.send();
                due += interval;
            }
            run.receive();
            run.wait(due.min(end));
        }
        let elapsed = start.elapsed();
        let give_up = Instant::now() + STRAGGLERS;
        while run.trips.len() < run.sent.len() && Instant::now() < give_up {
            run.wait(give_up);
            run.receive();
        }
        run.trips.sort_unstable();
        Outcome {
            sent: run.sent.len(),
            offered: float(run.sent.len() as u64) / elapsed.as_secs_f64(),
            interleaved: run.interleaved,
            timeless: run.timeless,
            trips: run.trips,
        }
    }

    /// The highest rate, in requests per second, at which not one request of a trial goes unanswered, to
    /// about 6 %. It is the generator's own where that cannot offer more.
    pub fn lossless_rate(&mut self, mode: Mode) -> u32 {
        let (mut good, mut bad) = (0, LOWEST);
        while bad <= HIGHEST && self.is_lossless(mode, bad) {
            (good, bad) = (bad, bad * 2);
        }
        for _ in 0..BISECTIONS {
            let middle = u32::midpoint(good, bad);
            if self.is_lossless(mode, middle) {
                good = middle;
            } else {
                bad = middle;
            }
        }
        good
    }

    fn is_lossless(&mut self, mode: Mode, rate: u32) -> bool {
        (0..ATTEMPTS).any(|_| {
            let outcome = self.run(mode, rate, TRIAL);
            outcome.is_offered(rate) && outcome.answered() == outcome.sent
        })
    }
}

struct Run<'s> {
    socket: &'s UdpSocket,
    mode: Mode,
    /// The upper half of what tells our requests from those of other runs; the lower is their number.
    tag: u64,
    /// When each request was sent, in nanoseconds since 1970; `None` once it has been answered.
    sent: Vec<Option<u64>>,
    trips: Vec<u64>,
    interleaved: usize,
    timeless: usize,
    /// Receive stamps of replies whose departure has not been asked for.
    receipts: Vec<[u8; 8]>,
    control: Vec<u8>,
}

/// Set in the receive stamps of requests, not in their transmit stamps: an interleaved reply returns the former.
const RECEIVE: u64 = 1 << 63;

impl<'s> Run<'s> {
    fn new(socket: &'s UdpSocket, number: u32, mode: Mode) -> Self {
        Self {
            socket,
            mode,
            tag: u64::from(number) << 32,
            sent: Vec::new(),
            trips: Vec::new(),
            interleaved: 0,
            timeless: 0,
            receipts: Vec::new(),
            control: cmsg_space!(TimeSpec),
        }
    }

    fn send(&mut self) {
        let cookie = self.tag | self.sent.len() as u64;
        let mut packet = request(V4_CLIENT, cookie);
        if self.mode == Mode::Interleaved
            && let Some(receipt) = self.receipts.pop()
        {
            packet[24..32].copy_from_slice(&receipt);
            packet[32..40].copy_from_slice(&(cookie | RECEIVE).to_be_bytes());
        }
        self.sent.push(Some(now()));
        // A full queue is a loss like any other, and is counted as one.
        let _lost = self.socket.send(&packet);
    }

    /// Takes all replies that are there.
    fn receive(&mut self) {
        let mut buffer = [0; 256];
        loop {
            let mut slices = [IoSliceMut::new(&mut buffer)];
            let (length, stamp) = {
                let received = recvmsg::<()>(
                    self.socket.as_raw_fd(),
                    &mut slices,
                    Some(&mut self.control),
                    MsgFlags::MSG_DONTWAIT,
                );
                let message = match received {
                    Ok(message) => message,
                    Err(Errno::EINTR | Errno::ECONNREFUSED | Errno::EHOSTUNREACH) => continue,
                    Err(Errno::EAGAIN) => return,
                    Err(error) => panic!("receiving: {error}"),
                };
                let mut control = message.cmsgs().expect("room for the stamp");
                let stamp = control.find_map(|message| match message {
                    ControlMessageOwned::ScmTimestampns(time) => Some(nanos(time)),
                    _ => None,
                });
                (message.bytes, stamp.expect("asked for"))
            };
            if length >= HEADER {
                self.take(&buffer, stamp);
            }
        }
    }

    fn take(&mut self, reply: &[u8; 256], stamp: u64) {
        let origin = u64::from_be_bytes(reply[24..32].try_into().expect("8"));
        let cookie = origin & !RECEIVE;
        if cookie >> 32 != self.tag >> 32 {
            return; // a straggler of an earlier run
        }
        let number = usize::try_from(cookie & u64::from(u32::MAX)).expect("64 bits");
        let Some(sent) = self.sent.get_mut(number).and_then(Option::take) else {
            return;
        };
        self.trips.push(stamp.saturating_sub(sent));
        self.interleaved += usize::from(origin != cookie);
        self.timeless += usize::from(reply[0] >> 6 == 3);
        self.receipts
            .push(reply[32..40].try_into().expect("8 bytes"));
    }

    /// Waits for a reply, not beyond `until`.
    fn wait(&self, until: Instant) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        let left = Timespec::try_from(left).expect("seconds at most");
        let mut descriptors = [PollFd::new(self.socket, PollFlags::IN)];
        match poll(&mut descriptors, Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
    }
}

/// The kernel's clock for its stamps, in nanoseconds since 1970.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(now.expect("after 1970").as_nanos()).expect("before 2554")
}

fn nanos(time: TimeSpec) -> u64 {
    u64::try_from(time.tv_sec() * 1_000_000_000 + time.tv_nsec()).expect("after 1970")
}

#[expect(clippy::cast_precision_loss, reason = "for figures of three digits")]
pub(crate) fn float(number: u64) -> f64 {
    number as f64
}
