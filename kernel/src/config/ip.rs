//! `ip=` and `ip6=`: where the addresses come from.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::digits;

/// Where the IPv4 address comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ip {
    /// From a DHCP server.
    Dhcp,
    /// From the command line.
    Static {
        /// A unicast address, not the network's own or its broadcast address.
        address: Ipv4Addr,
        /// Length of the network prefix, 1..=32.
        prefix: u8,
        /// The router, inside the prefix (anywhere for a prefix of 32).
        gateway: Option<Ipv4Addr>,
    },
}

impl Ip {
    pub(super) fn parse(value: &str) -> Option<Self> {
        if value == "dhcp" {
            return Some(Self::Dhcp);
        }
        let (network, gateway) = match value.split_once(',') {
            Some((network, gateway)) => (network, Some(gateway.parse().ok()?)),
            None => (value, None),
        };
        let (address, prefix) = network.split_once('/')?;
        let address = address.parse().ok()?;
        let prefix = digits(prefix).filter(|prefix| (1..=32).contains(prefix))?;
        let gateway_fits = gateway.is_none_or(|gateway| {
            gateway != address
                && if prefix == 32 {
                    is_unicast(gateway)
                } else {
                    is_host(gateway, prefix)
                        && network_of(gateway, prefix) == network_of(address, prefix)
                }
        });
        (is_host(address, prefix) && gateway_fits).then_some(Self::Static {
            address,
            prefix,
            gateway,
        })
    }
}

/// Where the IPv6 addresses come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ip6 {
    /// There are none.
    Off,
    /// A link-local one from the MAC address, others from routers' advertisements.
    Auto,
    /// A link-local one, and this; advertisements are ignored.
    Static {
        /// A unicast address, not link-local, and not that of all routers of its network.
        address: Ipv6Addr,
        /// Length of the network prefix, 1..=128.
        prefix: u8,
    },
}

impl Ip6 {
    pub(super) fn parse(value: &str) -> Option<Self> {
        match value {
            "auto" => return Some(Self::Auto),
            "off" => return Some(Self::Off),
            _ => {}
        }
        let (address, prefix) = value.split_once('/')?;
        let address: Ipv6Addr = address.parse().ok()?;
        let prefix = digits(prefix).filter(|prefix| (1..=128).contains(prefix))?;
        let host = address.to_bits() & !(u128::MAX << (128 - u32::from(prefix)));
        // RFC 4291 §2.6.1: no host has the first address of a network; RFC 6164: but where there are two.
        let is_host = prefix >= 127 || host != 0;
        // In 0/8 are nobody, loopback, and IPv4 in disguise.
        let is_unicast = address.octets()[0] != 0 && !address.is_multicast();
        let is_ours = is_host && is_unicast && !address.is_unicast_link_local();
        is_ours.then_some(Self::Static { address, prefix })
    }
}

/// An address that can belong to one host on a network of this prefix length, 1..=32.
pub(crate) fn is_host(address: Ipv4Addr, prefix: u8) -> bool {
    // RFC 3021: a network of two has no broadcast address; a network of one has no network.
    let host_bits = !network_mask(prefix);
    let host = address.to_bits() & host_bits;
    is_unicast(address) && (prefix >= 31 || (host != 0 && host != host_bits))
}

pub(super) fn is_unicast(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    first != 0 && first < 224 && !address.is_loopback()
}

fn network_of(address: Ipv4Addr, prefix: u8) -> u32 {
    address.to_bits() & network_mask(prefix)
}

fn network_mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}
