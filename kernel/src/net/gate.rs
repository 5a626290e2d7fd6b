//! Which frames the IP stack may see.
//!
//! It is a general one: it takes fragments for whole datagrams, and believes DHCP servers. What we have no
//! use for ends here, in silence.

use core::net::Ipv4Addr;

use smoltcp::wire::{DhcpMessageType, DhcpPacket, DhcpRepr, Ipv4Packet, UdpPacket};

use crate::config::is_host;

/// What is to become of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Drop,
    /// The stack gets it.
    Pass,
    /// The stack gets it if it comes not too often: a DHCP server refuses the address it offered.
    Refusal,
}

/// Judges a frame. Tagged, jumbo and unknown ones are dropped.
pub(super) fn judge(frame: &[u8], mac: [u8; 6]) -> Verdict {
    let Some((ethernet, payload)) = frame.split_first_chunk::<14>() else {
        return Verdict::Drop;
    };
    // A device without filters hands over what is for others too.
    let is_for_us = ethernet[..6] == mac || ethernet[0] & GROUP_BIT != 0;
    match [ethernet[12], ethernet[13]] {
        _ if !is_for_us => Verdict::Drop,
        ARP => Verdict::Pass,
        IPV4 => judge_ipv4(payload),
        _ => Verdict::Drop,
    }
}

fn judge_ipv4(packet: &[u8]) -> Verdict {
    let Ok(ip) = Ipv4Packet::new_checked(packet) else {
        return Verdict::Drop;
    };
    if ip.more_frags() || ip.frag_offset() != 0 || ip.src_addr().is_loopback() {
        return Verdict::Drop;
    }
    if u8::from(ip.next_header()) != UDP {
        return Verdict::Pass;
    }
    match UdpPacket::new_checked(ip.payload()) {
        Ok(udp) if udp.dst_port() == DHCP_CLIENT => judge_dhcp(udp.payload()),
        Ok(_) => Verdict::Pass,
        Err(_) => Verdict::Drop,
    }
}

/// Whether a DHCP server offers something that can be used. It must not come as far as asking for an
/// address that cannot, for that would begin again at once, and so on.
fn judge_dhcp(message: &[u8]) -> Verdict {
    let Ok(packet) = DhcpPacket::new_checked(message) else {
        return Verdict::Drop;
    };
    let Ok(message) = DhcpRepr::parse(&packet) else {
        return Verdict::Drop;
    };
    let is_usable = message
        .lease_duration
        .is_none_or(|lease| lease >= LEAST_LEASE)
        && message.subnet_mask.is_none_or(|mask| {
            let prefix = prefix(mask);
            prefix.is_some_and(|prefix| is_host(message.your_ip, prefix))
        });
    match message.message_type {
        DhcpMessageType::Offer | DhcpMessageType::Ack if is_usable => Verdict::Pass,
        DhcpMessageType::Nak => Verdict::Refusal,
        _ => Verdict::Drop,
    }
}

/// The length of a prefix with this mask, 1 to 32; `None` for what is no mask.
fn prefix(mask: Ipv4Addr) -> Option<u8> {
    let ones = mask.to_bits().leading_ones();
    let is_mask = ones > 0 && mask.to_bits().count_ones() == ones;
    is_mask.then(|| u8::try_from(ones).ok()).flatten()
}

const GROUP_BIT: u8 = 1;
const ARP: [u8; 2] = [0x08, 0x06];
const IPV4: [u8; 2] = [0x08, 0x00];
const UDP: u8 = 17;
const DHCP_CLIENT: u16 = 68;
/// The shortest lease that is taken, in seconds.
const LEAST_LEASE: u32 = 10;
