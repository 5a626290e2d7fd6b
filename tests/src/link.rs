//! The other end of a guest's network cable: whole Ethernet frames over a pair of datagram sockets, with
//! no kernel's network in between.

use core::net::Ipv4Addr;
use core::time::Duration;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Instant;

use gnomon_qemu::machine::Net;

use crate::PATIENCE;
use crate::temporary::Temporary;

/// The guest's address. Give it with `ip=10.7.7.2/24`.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 7, 7, 2);
/// Ours.
pub const HERE: Ipv4Addr = Ipv4Addr::new(10, 7, 7, 1);
/// What QEMU gives the first network interface.
const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
const MAC: [u8; 6] = [0x02, 0x67, 0x6e, 0x6f, 0x6d, 0x02];
const IPV4: [u8; 2] = [0x08, 0x00];
const UDP: u8 = 17;
const NTP_PORT: u16 = 123;
/// Ethernet's, IPv4's and UDP's headers.
const HEADERS: usize = 14 + 20 + 8;

/// A link to one guest.
#[derive(Debug)]
pub struct Link {
    socket: UnixDatagram,
    directory: Temporary,
}

impl Link {
    /// A link that waits for its guest.
    #[must_use]
    pub fn new() -> Self {
        let directory = Temporary::directory("link");
        let socket = UnixDatagram::bind(directory.path().join("here")).expect("a socket");
        Self { socket, directory }
    }

    /// The machine's end of it.
    #[must_use]
    pub fn net(&self) -> Net {
        Net::Unix {
            local: self.directory.path().join("guest"),
            remote: self.directory.path().join("here"),
        }
    }

    /// A directory that goes away with this.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Sends a datagram from this port to the guest's NTP server. A guest without a running network
    /// device gets it as soon as it has one.
    pub fn send(&self, port: u16, payload: &[u8]) {
        let frame = frame(port, payload);
        let deadline = Instant::now() + PATIENCE;
        // QEMU makes its socket when it starts.
        while let Err(error) = self
            .socket
            .send_to(&frame, self.directory.path().join("guest"))
        {
            assert!(Instant::now() < deadline, "no link to the guest: {error}");
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// The next datagram of the guest's NTP server before the deadline, and the port that it is for.
    /// All other frames are passed over.
    #[must_use]
    pub fn receive(&self, deadline: Instant) -> Option<(u16, Vec<u8>)> {
        let mut buffer = [0; 2048];
        loop {
            let left = deadline.checked_duration_since(Instant::now())?;
            let left = left.max(Duration::from_micros(1));
            self.socket
                .set_read_timeout(Some(left))
                .expect("not zero long");
            if let Ok(length) = self.socket.recv(&mut buffer)
                && let Some(datagram) = datagram(&buffer[..length])
            {
                return Some(datagram);
            }
        }
    }
}

impl Default for Link {
    fn default() -> Self {
        Self::new()
    }
}

/// A frame with a UDP datagram for the guest's NTP server. Its checksum is left out, which IPv4 allows.
pub(crate) fn frame(port: u16, payload: &[u8]) -> Vec<u8> {
    let length = |headers: usize| {
        u16::try_from(headers + payload.len())
            .expect("a short datagram")
            .to_be_bytes()
    };
    let mut ip = [0; 20];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&length(28));
    ip[8] = 64;
    ip[9] = UDP;
    ip[12..16].copy_from_slice(&HERE.octets());
    ip[16..20].copy_from_slice(&GUEST.octets());
    let checksum = sum(&ip);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let mut frame = [GUEST_MAC, MAC].concat();
    frame.extend(IPV4);
    frame.extend(ip);
    frame.extend(port.to_be_bytes());
    frame.extend(NTP_PORT.to_be_bytes());
    frame.extend(length(8));
    frame.extend([0, 0]);
    frame.extend(payload);
    frame
}

/// What is in a frame with a UDP datagram from the guest's NTP server to us.
pub(crate) fn datagram(frame: &[u8]) -> Option<(u16, Vec<u8>)> {
    let headers: &[u8; HEADERS] = frame.first_chunk()?;
    let half = |at: usize| u16::from_be_bytes([headers[at], headers[at + 1]]);
    let is_ours = headers[12..14] == IPV4
        && headers[14] == 0x45
        && headers[23] == UDP
        && headers[26..30] == GUEST.octets()
        && headers[30..34] == HERE.octets()
        && half(34) == NTP_PORT;
    let end = HEADERS + usize::from(half(38)).checked_sub(8)?;
    let payload = frame.get(HEADERS..end).filter(|_| is_ours)?;
    Some((half(36), payload.to_vec()))
}

/// The internet checksum (RFC 1071); zero over what has one that is right.
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).expect("folded twice")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_turned_round_is_a_reply() {
        let mut frame = frame(40_000, b"what time is it?");
        assert_eq!(sum(&frame[14..34]), 0);
        assert_eq!(datagram(&frame), None, "our own request");
        for (at, end) in [(26, 30), (34, 36)] {
            let (first, second) = frame.split_at_mut(end);
            first[at..].swap_with_slice(&mut second[..end - at]);
        }
        let payload = b"what time is it?".to_vec();
        assert_eq!(datagram(&frame), Some((40_000, payload)));
        frame.pop();
        assert_eq!(datagram(&frame), None, "cut");
    }
}
