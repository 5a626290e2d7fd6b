//! An NTP client that looks at everything: each reply between two readings of the host's clock.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::{Instant, SystemTime};

use crate::PATIENCE;

/// Length of a plain packet in bytes.
pub const HEADER: usize = 48;
/// The reference id of time from the vmclock page.
const PAGE: [u8; 4] = *b"XVMC";
/// NTP's version 4, a client's mode.
pub const V4_CLIENT: u8 = 4 << 3 | 3;
/// A request without a reply is repeated after this. Guests without an address yet drop them.
const REPEAT: Duration = Duration::from_millis(500);
/// From 1900, where NTP counts from, to 1970, in seconds.
const EPOCH: u64 = 2_208_988_800;

/// A socket that asks one server.
#[derive(Debug)]
pub struct Client {
    socket: UdpSocket,
}

/// The host's time as an NTP timestamp, 2⁻³² s, rounded down, and rounded up.
#[must_use]
pub fn host_time() -> (u64, u64) {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("a host clock after 1970");
    let seconds = now.as_secs().wrapping_add(EPOCH) << 32;
    let fraction = u64::from(now.subsec_nanos()) << 32;
    let floor = seconds.wrapping_add(fraction / 1_000_000_000);
    (floor, floor.wrapping_add(1))
}

/// A plain request: its first byte (leap, version, mode) and its transmit stamp.
#[must_use]
pub fn request(first: u8, transmit: u64) -> [u8; HEADER] {
    let mut packet = [0; HEADER];
    packet[0] = first;
    packet[2] = 6;
    packet[40..].copy_from_slice(&transmit.to_be_bytes());
    packet
}

/// A transmit stamp that no other request of this process has.
#[must_use]
pub fn cookie() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed) << 32 | host_time().0 & 0xffff_ffff
}

impl Client {
    /// A client of the guest behind this port of 127.0.0.1.
    #[must_use]
    pub fn new(port: u16) -> Self {
        Self::of((Ipv4Addr::LOCALHOST, port).into())
    }

    /// A client of this server.
    #[must_use]
    pub fn of(server: SocketAddr) -> Self {
        let any: IpAddr = match server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).expect("a UDP socket");
        socket.connect(server).expect("a route to the guest");
        Self { socket }
    }

    /// Asks until a request is answered.
    #[must_use]
    pub fn ask(&self) -> Reply {
        self.ask_as(V4_CLIENT)
    }

    /// Asks with this first byte until a request is answered.
    #[must_use]
    pub fn ask_as(&self, first: u8) -> Reply {
        let mut asked = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let cookie = cookie();
            let packet = request(first, cookie);
            let (sent, _) = host_time();
            // Refused while nobody listens yet: the next one may be heard.
            let _refused = self.socket.send(&packet);
            asked.push((cookie, sent));
            let repeat = Instant::now() + REPEAT;
            while let Some((bytes, arrived)) = self.receive(repeat) {
                let reply = Reply::decode(&bytes);
                let ours = asked.iter().find(|(cookie, _)| *cookie == reply.origin);
                if let Some((_, sent)) = ours {
                    return Reply {
                        sent: *sent,
                        arrived,
                        ..reply
                    };
                }
            }
        }
        panic!("no NTP reply within {PATIENCE:?}");
    }

    /// Asks until there is time, and returns the first right reply. Before it there may be replies
    /// without time, and none with a wrong one.
    #[must_use]
    pub fn ask_until_right(&self) -> Reply {
        self.ask_until_right_by(PAGE)
    }

    /// The same, of a guest whose time is from the source with this reference id.
    #[must_use]
    pub fn ask_until_right_by(&self, source: [u8; 4]) -> Reply {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let reply = self.ask();
            if reply.leap != 3 {
                reply.assert_right_by(source);
                return reply;
            }
            reply.assert_no_time(&["INIT", "STEP"]);
            assert!(Instant::now() < deadline, "no time within {PATIENCE:?}");
            // Once per update or so.
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Sends a datagram.
    pub fn send(&self, bytes: &[u8]) {
        self.socket.send(bytes).expect("a route to the guest");
    }

    /// Sends a datagram that may be lost.
    pub fn try_send(&self, bytes: &[u8]) {
        // Refused while nobody listens.
        let _refused = self.socket.send(bytes);
    }

    /// The next datagram before the deadline, and the host's time after its arrival.
    #[must_use]
    pub fn receive(&self, deadline: Instant) -> Option<(Vec<u8>, u64)> {
        let mut bytes = [0; 2048];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.socket
                .set_read_timeout(Some(left))
                .expect("a time to wait");
            match self.socket.recv(&mut bytes) {
                Ok(length) => return Some((bytes[..length].to_vec(), host_time().1)),
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("receiving: {error}"),
            }
        }
    }
}

/// A reply, its stamps in 2⁻³² s since 1900 (modulo the era), and the host's clock around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Leap indicator.
    pub leap: u8,
    /// Version.
    pub version: u8,
    /// Mode.
    pub mode: u8,
    /// Stratum.
    pub stratum: u8,
    /// Poll exponent.
    pub poll: i8,
    /// Precision, log2 of seconds.
    pub precision: i8,
    /// Root delay, 2⁻¹⁶ s.
    pub root_delay: u32,
    /// Root dispersion, 2⁻¹⁶ s.
    pub root_dispersion: u32,
    /// Reference id.
    pub reference_id: [u8; 4],
    /// Reference time.
    pub reference: u64,
    /// What the request called its transmit time.
    pub origin: u64,
    /// T2.
    pub receive: u64,
    /// T3.
    pub transmit: u64,
    /// The host's time before the request was sent, rounded down.
    pub sent: u64,
    /// The host's time after the reply has arrived, rounded up.
    pub arrived: u64,
}

impl Reply {
    /// Takes a plain packet apart; the host's times around it are left zero.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Self {
        assert_eq!(bytes.len(), HEADER, "a plain reply");
        let byte = |at: usize| bytes[at];
        let word = |at| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("4"));
        let long = |at| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("8"));
        Self {
            leap: byte(0) >> 6,
            version: byte(0) >> 3 & 7,
            mode: byte(0) & 7,
            stratum: byte(1),
            poll: byte(2).cast_signed(),
            precision: byte(3).cast_signed(),
            root_delay: word(4),
            root_dispersion: word(8),
            reference_id: bytes[12..16].try_into().expect("4"),
            reference: long(16),
            origin: long(24),
            receive: long(32),
            transmit: long(40),
            sent: 0,
            arrived: 0,
        }
    }

    /// The root dispersion in nanoseconds, rounded up.
    #[must_use]
    pub fn bound_nanos(&self) -> u64 {
        (u64::from(self.root_dispersion) * 1_000_000_000).div_ceil(1 << 16)
    }

    /// The time between sending the request and receiving the reply, in nanoseconds.
    #[must_use]
    pub fn round_trip_nanos(&self) -> u64 {
        let units = u128::from(self.arrived.wrapping_sub(self.sent));
        u64::try_from((units * 1_000_000_000) >> 32).expect("minutes at most")
    }

    /// The reply carries time, and the host's true time lies within its bound at both stamps.
    pub fn assert_right(&self) {
        self.assert_right_shifted(0);
    }

    /// As [`assert_right`](Self::assert_right), for a page that is `seconds` ahead of the host.
    pub fn assert_right_shifted(&self, seconds: u32) {
        self.assert_right_by_shifted(PAGE, seconds);
    }

    /// As [`assert_right`](Self::assert_right), with the time from the source with this reference id.
    pub fn assert_right_by(&self, source: [u8; 4]) {
        self.assert_right_by_shifted(source, 0);
    }

    /// Both.
    pub fn assert_right_by_shifted(&self, source: [u8; 4], seconds: u32) {
        if let Err(what) = self.check(source, u64::from(seconds) << 32) {
            panic!("{what}: {self:#x?}");
        }
    }

    fn check(&self, source: [u8; 4], shift: u64) -> Result<(), &'static str> {
        let truth = |holds: bool, what| if holds { Ok(()) } else { Err(what) };
        truth(self.leap == 0 && (1..16).contains(&self.stratum), "no time")?;
        truth(self.reference_id == source, "another reference id")?;
        truth(self.root_delay == 0, "a root delay")?;
        truth(
            ![self.reference, self.receive, self.transmit].contains(&0),
            "a stamp of zero",
        )?;
        let after = |late: u64, early: u64| late.wrapping_sub(early).cast_signed();
        truth(
            after(self.transmit, self.receive) > 0,
            "sent before received",
        )?;
        truth(
            after(self.receive, self.reference) >= 0,
            "a reference in the future",
        )?;
        let bound = i64::from(self.root_dispersion) << 16;
        let (sent, arrived) = (
            self.sent.wrapping_add(shift),
            self.arrived.wrapping_add(shift),
        );
        for stamp in [self.receive, self.transmit] {
            truth(after(stamp, sent) >= -bound, "earlier than the request")?;
            truth(after(stamp, arrived) <= bound, "later than the reply")?;
        }
        Ok(())
    }

    /// The reply says that there is no time, with one of these kiss codes, and has no stamp that
    /// could be taken for a time.
    pub fn assert_no_time(&self, kisses: &[&str]) {
        let kiss = self.reference_id.escape_ascii().to_string();
        assert!(kisses.contains(&kiss.as_str()), "{kisses:?}: {self:?}");
        assert_eq!((self.leap, self.stratum), (3, 0), "{self:?}");
        assert_eq!(
            (self.reference, self.receive, self.transmit),
            (0, 0, 0),
            "{self:?}"
        );
    }
}
