//! Whether anybody is on the network: a DHCP client's first frame, which every network with a DHCP server answers, and
//! an ARP request for whoever has answered.

use crate::net::port::{Frame, FramePort};
use crate::smoke::tap::Outcome;

/// How long somebody may take, ns.
pub(super) const PATIENCE: u64 = 2_000_000_000;

const ETHERNET: usize = 14;
const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
const BROADCAST: [u8; 6] = [0xff; 6];
/// Our transaction: nobody else's matters here.
const TRANSACTION: [u8; 4] = *b"Gnom";

/// Asks, and takes what comes while `is_left` says that there is time.
#[inline(never)]
pub(super) fn outcome<P: FramePort>(port: &mut P, is_left: &mut dyn FnMut() -> bool) -> Outcome {
    let mac = port.mac();
    let sent = send(port, &discover(mac));
    if !sent {
        return Outcome::not_ok(&"the device takes no frame");
    }
    let mut server = None;
    let mut frames = 0_u32;
    while is_left() {
        let Some(frame) = port.receive() else {
            continue;
        };
        frames = frames.saturating_add(1);
        let offered = offer(frame.bytes());
        let answered = server.and_then(|address| arp_answer(frame.bytes(), address));
        port.release(frame);
        if let (Some(address), Some([a, b, c, d, e, f])) = (server, answered) {
            let [w, x, y, z] = address;
            return Outcome::ok(&format_args!(
                "DHCP offered, and {w}.{x}.{y}.{z} is at {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x} by ARP"
            ));
        }
        if let (None, Some(address)) = (server, offered) {
            server = Some(address);
            send(port, &arp_request(mac, address));
        }
    }
    match (server, frames) {
        (Some([w, x, y, z]), _) => Outcome::ok(&format_args!(
            "DHCP offered by {w}.{x}.{y}.{z}, which does not answer ARP"
        )),
        (None, 0) => Outcome::skip(&"nobody answers; there may be nobody"),
        (None, _) => Outcome::ok(&format_args!("{frames} frames received, no DHCP server")),
    }
}

#[inline(never)]
fn send<P: FramePort>(port: &mut P, bytes: &[u8]) -> bool {
    let Some(mut frame) = port.allocate() else {
        return false;
    };
    frame.set_length(bytes.len());
    let Some(place) = frame.bytes_mut().get_mut(..bytes.len()) else {
        port.release(frame);
        return false;
    };
    place.copy_from_slice(bytes);
    port.send(frame);
    port.kick();
    true
}

const DISCOVER: usize = ETHERNET + 20 + 8 + 240 + 4;

/// DHCPDISCOVER (RFC 2131 §4.4.1) in UDP, without its optional checksum.
#[inline(never)]
fn discover(mac: [u8; 6]) -> [u8; DISCOVER] {
    let mut frame = [0; DISCOVER];
    put(&mut frame, 0, &BROADCAST);
    put(&mut frame, 6, &mac);
    put(&mut frame, 12, &IPV4);
    let length = DISCOVER - ETHERNET;
    let [high, low] = be(length);
    put(&mut frame, 14, &[0x45, 0, high, low, 0, 0, 0, 0, 64, 17]);
    put(&mut frame, 30, &[255; 4]);
    let sum = checksum(frame.get(14..34).unwrap_or_default());
    put(&mut frame, 24, &sum);
    let [high, low] = be(length - 20);
    put(&mut frame, 34, &[0, 68, 0, 67, high, low]);
    put(&mut frame, 42, &[1, 1, 6, 0]);
    put(&mut frame, 46, &TRANSACTION);
    // The answer is to be a broadcast: there is no address to send it to.
    put(&mut frame, 52, &[0x80, 0]);
    put(&mut frame, 70, &mac);
    // The magic of the options; message type 1; the end.
    put(&mut frame, 278, &[0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255]);
    frame
}

/// The server of a DHCP offer to us: by its option 54, or else the sender's address.
#[inline(never)]
fn offer(frame: &[u8]) -> Option<[u8; 4]> {
    if frame.get(12..14)? != IPV4 || frame.get(23)? != &17 {
        return None;
    }
    let header = usize::from(frame.get(14)? & 0xf) * 4;
    let udp = frame.get(ETHERNET + header..)?;
    let dhcp = udp.get(8..)?;
    let is_ours = udp.get(..4)? == [0, 67, 0, 68]
        && dhcp.first()? == &2
        && dhcp.get(4..8)? == TRANSACTION
        && dhcp.get(236..240)? == [0x63, 0x82, 0x53, 0x63];
    if !is_ours {
        return None;
    }
    let mut options = dhcp.get(240..)?;
    while let [code, rest @ ..] = options {
        match (code, rest) {
            (0, _) => options = rest,
            (255, _) => break,
            (54, [4, a, b, c, d, ..]) => return Some([*a, *b, *c, *d]),
            (_, [length, rest @ ..]) => options = rest.get(usize::from(*length)..)?,
            _ => break,
        }
    }
    frame.get(26..30)?.try_into().ok()
}

const REQUEST: usize = ETHERNET + 28;

/// An ARP probe (RFC 5227 §2.1.1): from nobody, so that nobody learns anything.
#[inline(never)]
fn arp_request(mac: [u8; 6], address: [u8; 4]) -> [u8; REQUEST] {
    let mut frame = [0; REQUEST];
    put(&mut frame, 0, &BROADCAST);
    put(&mut frame, 6, &mac);
    put(&mut frame, 12, &ARP);
    put(&mut frame, 14, &[0, 1, 8, 0, 6, 4, 0, 1]);
    put(&mut frame, 22, &mac);
    put(&mut frame, 38, &address);
    frame
}

/// The MAC address in an answer about `address`.
#[inline(never)]
fn arp_answer(frame: &[u8], address: [u8; 4]) -> Option<[u8; 6]> {
    let is_answer =
        frame.get(12..22)? == [0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 2] && frame.get(28..32)? == address;
    is_answer.then(|| frame.get(22..28)?.try_into().ok())?
}

#[inline(never)]
fn put(frame: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = frame.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

fn be(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(0).to_be_bytes()
}

/// The Internet checksum (RFC 1071) of an even number of bytes.
#[inline(never)]
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.as_chunks::<2>().0.iter();
    let mut sum: u32 = words.map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).unwrap_or(0)).to_be_bytes()
}
