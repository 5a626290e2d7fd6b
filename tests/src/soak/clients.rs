//! Those who ask all the time, each in a thread of its own.

use core::net::{Ipv4Addr, SocketAddr};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Instant;

use serde_json::Value;

use super::console::tai;
use crate::ntp::{HEADER, Reply, V4_CLIENT, request};
use crate::truth::{Claim, Ntp, Record, now};

/// How a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Basic,
    Interleaved,
    /// With chrony's field 0xF323.
    MonoRoot,
    Http,
}

pub(super) const KINDS: [Kind; 4] = [Kind::Basic, Kind::Interleaved, Kind::MonoRoot, Kind::Http];

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Interleaved => "interleaved",
            Self::MonoRoot => "F323",
            Self::Http => "HTTP",
        }
    }

    const fn interval(self) -> Duration {
        Duration::from_millis(match self {
            Self::Basic => 4,
            Self::Interleaved => 8,
            Self::MonoRoot => 16,
            Self::Http => 300,
        })
    }
}

/// What all of them share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) over: AtomicBool,
    /// A client has met what must not be, and has said so.
    pub(super) failed: AtomicBool,
    /// Nothing but updates has happened for a while.
    pub(super) calm: AtomicBool,
    counts: [Counts; KINDS.len()],
}

#[derive(Debug, Default)]
struct Counts {
    asked: AtomicU64,
    answered: AtomicU64,
    timed: AtomicU64,
    interleaved: AtomicU64,
}

/// Requests of a kind, and answers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    pub(super) requests: u64,
    pub(super) answered: u64,
    pub(super) timed: u64,
    pub(super) interleaved: u64,
}

/// Tells the others when a client's thread panics.
struct Watched<'s>(&'s Shared);

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.failed.store(true, Ordering::Relaxed);
        }
    }
}

impl Shared {
    pub(super) fn asked(&self) -> [Asked; KINDS.len()] {
        self.counts.each_ref().map(|counts| {
            let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
            Asked {
                requests: of(&counts.asked),
                answered: of(&counts.answered),
                timed: of(&counts.timed),
                interleaved: of(&counts.interleaved),
            }
        })
    }

    /// Answers with time of each kind so far.
    pub(super) fn timed(&self) -> [u64; KINDS.len()] {
        self.asked().map(|asked| asked.timed)
    }
}

/// An answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Whose; `None` for the console's.
    pub(super) kind: Option<Kind>,
    /// From calm times, so that its bound can be compared.
    pub(super) calm: bool,
    pub(super) record: Record,
}

/// Asks until it is over.
pub(super) fn ask(kind: Kind, guest: Ipv4Addr, shared: &Shared, records: &Sender<Seen>) {
    let _watched = Watched(shared);
    let tell = |calm: bool, record: Record| {
        let counts = &shared.counts[kind as usize];
        counts.answered.fetch_add(1, Ordering::Relaxed);
        let is_timed = !matches!(record.claim, Claim::Nothing);
        counts
            .timed
            .fetch_add(u64::from(is_timed), Ordering::Relaxed);
        let is_interleaved = matches!(record.claim, Claim::Ntp(ntp) if ntp.departed.is_some());
        let interleaved = u64::from(is_interleaved);
        counts.interleaved.fetch_add(interleaved, Ordering::Relaxed);
        let seen = Seen {
            kind: Some(kind),
            calm: calm && shared.calm.load(Ordering::Relaxed),
            record,
        };
        // Nobody listens any more when the run has failed.
        let _unheard = records.send(seen);
    };
    match kind {
        Kind::Http => browse(guest, shared, tell),
        _ => Datagrams::new(kind, guest).run(shared, tell),
    }
}

/// A request that may still be answered.
#[derive(Clone, Copy, Debug)]
struct Sent {
    at: i128,
    calm: bool,
    /// In interleaved mode: the exchange whose departure is asked for.
    named: Option<(i128, i128)>,
}

struct Datagrams {
    kind: Kind,
    socket: UdpSocket,
    sent: HashMap<u64, Sent>,
    next: u64,
    /// The latest reply: its receive stamp, and our readings around it.
    latest: Option<(u64, i128, i128)>,
}

/// Set in the receive stamps of requests: an interleaved reply returns these and not the transmit stamps.
const RECEIVE: u64 = 1 << 63;
/// How long after its request a reply may come.
const KEPT: i128 = 300 * crate::truth::NANOS;
const MONO_ROOT: [u8; 8] = [0xf3, 0x23, 0, 28, 0xf5, 0xbe, 0xdd, 0x9a];
const MONO_ROOT_LENGTH: usize = 28;

impl Datagrams {
    fn new(kind: Kind, guest: Ipv4Addr) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a UDP socket");
        socket.connect((guest, 123)).expect("a route to the guest");
        Self {
            kind,
            socket,
            sent: HashMap::new(),
            next: 1,
            latest: None,
        }
    }

    fn run(mut self, shared: &Shared, tell: impl Fn(bool, Record)) {
        let mut due = Instant::now();
        while !shared.over.load(Ordering::Relaxed) {
            self.send(shared);
            due = (due + self.kind.interval()).max(Instant::now());
            loop {
                let left = due.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                self.socket.set_read_timeout(Some(left)).expect("not zero");
                let mut bytes = [0; 256];
                // Refused while nobody is there.
                if let Ok(length) = self.socket.recv(&mut bytes) {
                    self.take(&bytes[..length], &tell);
                }
            }
        }
    }

    fn send(&mut self, shared: &Shared) {
        let cookie = self.next << 1;
        self.next += 1;
        let mut packet = request(V4_CLIENT, cookie).to_vec();
        let mut named = None;
        match (self.kind, self.latest.take()) {
            (Kind::Interleaved, Some((receive, sent, arrived))) => {
                packet[24..32].copy_from_slice(&receive.to_be_bytes());
                packet[32..40].copy_from_slice(&(cookie | RECEIVE).to_be_bytes());
                named = Some((sent, arrived));
            }
            (Kind::MonoRoot, _) => {
                packet.extend(MONO_ROOT);
                packet.extend([0; MONO_ROOT_LENGTH - MONO_ROOT.len()]);
            }
            _ => {}
        }
        let at = now();
        if self.next.is_multiple_of(1000) {
            self.sent.retain(|_, sent| at - sent.at < KEPT);
        }
        let calm = shared.calm.load(Ordering::Relaxed);
        self.sent.insert(cookie, Sent { at, calm, named });
        let counts = &shared.counts[self.kind as usize];
        counts.asked.fetch_add(1, Ordering::Relaxed);
        let _refused = self.socket.send(&packet);
    }

    fn take(&mut self, bytes: &[u8], tell: &impl Fn(bool, Record)) {
        let arrived = now();
        let reply = Reply::decode(&bytes[..HEADER]);
        let is_interleaved = reply.origin & RECEIVE != 0;
        let sent = self.sent.remove(&(reply.origin & !RECEIVE));
        let sent = sent.expect("one reply for each request, and none for another's");
        let mut record = Record::plain(sent.at, arrived, &reply);
        if let Claim::Ntp(ntp) = &mut record.claim {
            if is_interleaved {
                ntp.departed = Some(sent.named.expect("asked for"));
            }
            if self.kind == Kind::MonoRoot {
                take_field(&bytes[HEADER..], ntp);
            } else {
                assert_eq!(bytes.len(), HEADER, "a plain reply");
            }
            self.latest = Some((reply.receive, sent.at, arrived));
        }
        tell(sent.calm, record);
    }
}

/// The bound in steps of 2⁻²⁸ s, and the receive stamp on TAI.
fn take_field(field: &[u8], ntp: &mut Ntp) {
    assert!(
        field.len() == MONO_ROOT_LENGTH && field.starts_with(&MONO_ROOT),
        "{field:x?}"
    );
    let dispersion = u32::from_be_bytes(field[12..16].try_into().expect("4"));
    let monotonic = u64::from_be_bytes(field[16..24].try_into().expect("8"));
    ntp.bound = (i128::from(dispersion) * crate::truth::NANOS + (1 << 28) - 1) >> 28;
    ntp.monotonic = (monotonic != 0).then_some(monotonic);
}

/// How long one answer over HTTP may take until its connection is given up.
const GIVE_UP: Duration = Duration::from_secs(5);
/// All that is served, the time most often.
const PATHS: [&str; 8] = [
    "/now", "/now", "/now", "/metrics", "/now", "/status", "/now", "/",
];

fn browse(guest: Ipv4Addr, shared: &Shared, tell: impl Fn(bool, Record)) {
    let server = SocketAddr::from((guest, 80));
    let counts = &shared.counts[Kind::Http as usize];
    for path in PATHS.into_iter().cycle() {
        if shared.over.load(Ordering::Relaxed) {
            return;
        }
        let calm = shared.calm.load(Ordering::Relaxed);
        let sent = now();
        let answer = get(server, path);
        let arrived = now();
        if path == "/now" {
            counts.asked.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(body) = answer.filter(|_| path == "/now") {
            let record = Record {
                sent,
                arrived,
                claim: claim(&body),
            };
            tell(calm, record);
        }
        thread::sleep(Kind::Http.interval());
    }
}

/// The body; `None` when the connection is cut or times out: the guest cuts them when its time is disrupted.
fn get(server: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&server, GIVE_UP).ok()?;
    stream.set_read_timeout(Some(GIVE_UP)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: gnomon\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n")?;
    assert!(head.starts_with("HTTP/1.1 200 "), "{path}: {head}");
    // One that was cut in the middle.
    let length = format!("Content-Length: {}", body.len());
    head.lines()
        .any(|line| line == length)
        .then(|| body.to_owned())
}

fn claim(body: &str) -> Claim {
    let now: Value = serde_json::from_str(body).expect("JSON");
    let bound = now["bound"].as_u64().map(i128::from);
    match (now["tai"].as_str().map(tai), bound) {
        (Some(time), Some(bound)) => Claim::Tai {
            time: time.expect("a time"),
            bound,
        },
        _ => Claim::Nothing,
    }
}
