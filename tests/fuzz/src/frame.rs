//! Frames: checksums made right, and the parts that a check looks at.

/// Makes the checksums of the headers that are there right: the fuzzer would not find out how.
pub fn correct(frame: &mut [u8]) {
    match frame.get(12..14) {
        Some([0x08, 0x00]) => correct_ipv4(&mut frame[14..]),
        Some([0x86, 0xdd]) => correct_ipv6(&mut frame[14..]),
        _ => {}
    }
}

fn correct_ipv4(packet: &mut [u8]) {
    let header = packet
        .first()
        .map_or(0, |first| usize::from(first & 0xf) * 4);
    if header < 20 || header > packet.len() {
        return;
    }
    packet[10..12].fill(0);
    let sum = checksum(&[&packet[..header]]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    let total = usize::from(u16::from_be_bytes([packet[2], packet[3]])).min(packet.len());
    let addresses: [u8; 8] = packet[12..20].try_into().expect("eight");
    let protocol = packet[9];
    if let Some(payload) = packet.get_mut(header..total) {
        correct_payload(payload, protocol, &addresses);
    }
}

fn correct_ipv6(packet: &mut [u8]) {
    if packet.len() < 40 {
        return;
    }
    let total = 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]]));
    let total = total.min(packet.len());
    let addresses: [u8; 32] = packet[8..40].try_into().expect("32");
    let next = packet[6];
    correct_payload(&mut packet[40..total], next, &addresses);
}

fn correct_payload(payload: &mut [u8], protocol: u8, addresses: &[u8]) {
    let place = match protocol {
        1 | 58 => 2,
        6 => 16,
        17 => 6,
        _ => return,
    };
    if payload.len() < place + 2 {
        return;
    }
    payload[place..place + 2].fill(0);
    let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    let sum = if protocol == 1 {
        checksum(&[payload])
    } else {
        checksum(&[addresses, &length, &[0, 0, 0, protocol], payload])
    };
    // To UDP zero means none.
    let sum = if sum == 0 && protocol == 17 {
        0xffff
    } else {
        sum
    };
    payload[place..place + 2].copy_from_slice(&sum.to_be_bytes());
}

/// The internet checksum (RFC 1071) of parts of which all but the last are even.
#[must_use]
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u64;
    for part in parts {
        for pair in part.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            sum += u64::from(u16::from_be_bytes([pair[0], low]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// A TCP segment from the client to the guest's port 80, in an IPv4 packet in a frame.
#[must_use]
pub fn tcp(port: u16, sequence: u32, acknowledged: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(port.to_be_bytes());
    segment.extend(80_u16.to_be_bytes());
    segment.extend(sequence.to_be_bytes());
    segment.extend(acknowledged.to_be_bytes());
    segment.extend([0x50, flags, 0x40, 0, 0, 0, 0, 0]);
    segment.extend(payload);
    ipv4(6, &segment)
}

/// A UDP datagram from the client to the guest, over IPv4.
#[must_use]
pub fn udp(source: u16, port: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap_or(0);
    let mut datagram = Vec::new();
    for word in [source, port, length, 0] {
        datagram.extend(word.to_be_bytes());
    }
    datagram.extend(payload);
    ipv4(17, &datagram)
}

/// An IPv4 packet from the client to the guest, in a frame.
#[must_use]
pub fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    use crate::service::{CLIENT, GUEST};
    let total = u16::try_from(20 + payload.len()).unwrap_or(0).to_be_bytes();
    let header = [
        0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, protocol, 0, 0,
    ];
    let mut frame = ethernet([0x08, 0x00]);
    frame.extend(header);
    frame.extend(CLIENT);
    frame.extend(GUEST);
    frame.extend(payload);
    correct(&mut frame);
    frame
}

/// The head of a frame from the client to the guest.
#[must_use]
pub fn ethernet(kind: [u8; 2]) -> Vec<u8> {
    use crate::service::{CLIENT_MAC, GUEST_MAC};
    [&GUEST_MAC[..], &CLIENT_MAC, &kind].concat()
}

/// The client asks where the guest is, and so lets it know where it is itself.
#[must_use]
pub fn arp() -> Vec<u8> {
    use crate::service::{CLIENT, CLIENT_MAC, GUEST};
    let mut frame = ethernet([0x08, 0x06]);
    frame[..6].fill(0xff);
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(CLIENT_MAC);
    frame.extend(CLIENT);
    frame.extend([0; 6]);
    frame.extend(GUEST);
    frame
}

/// Source port, destination port and payload of a UDP datagram, over either IP.
#[must_use]
pub fn udp_of(frame: &[u8]) -> Option<(u16, u16, &[u8])> {
    let datagram = match frame.get(12..14)? {
        [0x08, 0x00] if *frame.get(23)? == 17 => {
            frame.get(14 + usize::from(frame.get(14)? & 0xf) * 4..)?
        }
        [0x86, 0xdd] if *frame.get(20)? == 17 => frame.get(54..)?,
        _ => return None,
    };
    let port = |at: usize| {
        Some(u16::from_be_bytes([
            *datagram.get(at)?,
            *datagram.get(at + 1)?,
        ]))
    };
    let length = usize::from(port(4)?);
    Some((port(0)?, port(2)?, datagram.get(8..length)?))
}
