//! Whole frames onto a tap interface, for networks that nobody would want to be in.

use core::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrAny, SocketType, eth, recvfrom, sendto, socket,
};

use crate::link::sum;
use crate::netns::Netns;

/// The guest's MAC address, QEMU's first.
pub const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
/// Everybody's.
pub const BROADCAST: [u8; 6] = [0xff; 6];

/// The one interface of a network namespace besides loopback.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
    interface: SocketAddrAny,
}

impl Wire {
    /// Opens it; `speak` has somebody send a frame over it, by which it is found.
    #[must_use]
    pub fn open(netns: &Netns, speak: impl FnOnce()) -> Self {
        let open = |protocol| {
            let raw = netns.enter(|| socket(AddressFamily::PACKET, SocketType::RAW, protocol));
            raw.expect("root")
        };
        let listener = open(Some(eth::ALL));
        speak();
        let (_, _, from) =
            recvfrom(&listener, &mut [0; 2048], RecvFlags::empty()).expect("a frame");
        Self {
            // Without a protocol it hears nothing.
            socket: open(None),
            interface: from.expect("the interface that it went over"),
        }
    }

    /// Sends a frame, or loses it, if the guest is behind.
    pub fn send(&self, frame: &[u8]) {
        let _lost = sendto(&self.socket, frame, SendFlags::DONTWAIT, &self.interface);
    }
}

/// An Ethernet frame.
#[must_use]
pub fn ethernet(to: [u8; 6], from: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), payload].concat()
}

/// An ARP message: what `operation` says of the first pair to the second.
#[must_use]
pub fn arp(operation: u8, sender: ([u8; 6], Ipv4Addr), target: ([u8; 6], Ipv4Addr)) -> Vec<u8> {
    let mut message = vec![0, 1, 8, 0, 6, 4, 0, operation];
    for (mac, address) in [sender, target] {
        message.extend(mac);
        message.extend(address.octets());
    }
    message
}

/// An IPv4 packet to the guest; the payload's checksum at `checksum`, if there is one, is filled in.
#[must_use]
pub fn ipv4(
    [from, to]: [Ipv4Addr; 2],
    protocol: u8,
    mut payload: Vec<u8>,
    checksum: usize,
) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("a short packet");
    let addresses = [from.octets(), to.octets()].concat();
    let mut pseudo = addresses.clone();
    pseudo.extend([0, protocol]);
    pseudo.extend(length.to_be_bytes());
    fill_in(&mut payload, checksum, &pseudo);
    let mut header = vec![0x45, 0];
    header.extend((length + 20).to_be_bytes());
    header.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
    header.extend(addresses);
    fill_in(&mut header, 10, &[]);
    header.extend(payload);
    header
}

/// A message of `ICMPv6` as neighbours send them.
#[must_use]
pub fn icmpv6([from, to]: [Ipv6Addr; 2], mut message: Vec<u8>) -> Vec<u8> {
    const PROTOCOL: u8 = 58;
    let length = u16::try_from(message.len()).expect("a short packet");
    let addresses = [from.octets(), to.octets()].concat();
    let mut pseudo = addresses.clone();
    pseudo.extend([0, 0]);
    pseudo.extend(length.to_be_bytes());
    pseudo.extend([0, 0, 0, PROTOCOL]);
    fill_in(&mut message, 2, &pseudo);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([PROTOCOL, 255]);
    packet.extend(addresses);
    packet.extend(message);
    packet
}

/// Fills in the internet checksum at `at`, over all bytes and those of the pseudo-header.
fn fill_in(bytes: &mut [u8], at: usize, pseudo: &[u8]) {
    bytes[at..at + 2].fill(0);
    let all = [pseudo, bytes].concat();
    bytes[at..at + 2].copy_from_slice(&sum(&all).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_cancel() {
        let addresses = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 7, 7, 2)];
        let packet = ipv4(addresses, 17, vec![1, 2, 3, 4, 0, 11, 0, 0, 1, 2, 3], 6);
        assert_eq!(sum(&packet[..20]), 0);
        let pseudo = [&packet[12..20], &[0, 17, 0, 11], &packet[20..]].concat();
        assert_eq!(sum(&pseudo), 0);
    }
}
