//! The one socket that asks instead of answering: for the NTP server that is followed.

use core::fmt;
use core::net::Ipv4Addr;

use smoltcp::iface::SocketStorage;
use smoltcp::socket::udp;
use smoltcp::time::Instant;

use super::{SOCKETS, Stack};
use crate::serve::ntp::{HEADER, PORT};

/// Memory for the stack's sockets, and for a request and an answer.
pub struct Storage<'s> {
    pub(super) sockets: [SocketStorage<'s>; SOCKETS],
    pub(super) outbound: Outbound,
}

/// A datagram of either direction. A longer one than an NTP header is dropped when it comes.
pub(super) struct Outbound {
    places: [[udp::PacketMetadata; 1]; 2],
    datagrams: [[u8; HEADER]; 2],
}

impl Default for Storage<'_> {
    fn default() -> Self {
        Self {
            sockets: [SocketStorage::EMPTY; SOCKETS],
            outbound: Outbound {
                places: [[udp::PacketMetadata::EMPTY; 1]; 2],
                datagrams: [[0; HEADER]; 2],
            },
        }
    }
}

impl Outbound {
    /// The socket, which has no port yet.
    pub(super) fn socket(&mut self) -> udp::Socket<'_> {
        let [receive_place, send_place] = &mut self.places;
        let [received, to_send] = &mut self.datagrams;
        udp::Socket::new(
            udp::PacketBuffer::new(&mut receive_place[..], &mut received[..]),
            udp::PacketBuffer::new(&mut send_place[..], &mut to_send[..]),
        )
    }
}

impl Stack<'_> {
    /// Asks from this UDP port from now on. A request that is under way, and its answer, are forgotten.
    pub fn ask_from(&mut self, port: u16) {
        let socket = self.sockets.get_mut::<udp::Socket<'_>>(self.outbound);
        socket.close();
        // Only port 0 is refused. Then nothing can be sent.
        let _ = socket.bind(port);
    }

    /// Sends a request to the NTP port of `server`, as soon as it is known where that is: see
    /// [`is_asking`](Self::is_asking). One that has not left yet is forgotten. Returns whether `server` can
    /// be an address to send to.
    pub fn ask(&mut self, server: Ipv4Addr, request: &[u8; HEADER], now: Instant) -> bool {
        let socket = self.sockets.get_mut::<udp::Socket<'_>>(self.outbound);
        let from = socket.endpoint();
        socket.close();
        let is_sent =
            socket.bind(from).is_ok() && socket.send_slice(request, (server, PORT)).is_ok();
        self.next = Some(now);
        is_sent
    }

    /// Whether there is a request that has not left: [`poll`](Self::poll) may send it.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        let socket = self.sockets.get::<udp::Socket<'_>>(self.outbound);
        socket.send_queue() > 0
    }

    /// The datagram that the last frame was, if it came for us from the NTP port of `server`. Another one is
    /// dropped.
    pub fn answer(&mut self, server: Ipv4Addr) -> Option<&[u8]> {
        let socket = self.sockets.get_mut::<udp::Socket<'_>>(self.outbound);
        let (datagram, about) = socket.recv().ok()?;
        (about.endpoint == (server, PORT).into()).then_some(datagram)
    }
}

impl fmt::Debug for Storage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage").finish_non_exhaustive()
    }
}
