//! The addresses that this machine answers at.

use core::net::{Ipv4Addr, Ipv6Addr};

/// IPv6 addresses that there is room for: the link-local one and three others.
pub const IPV6: usize = 4;

/// The addresses that this machine answers at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The IPv4 address, if there is one.
    pub v4: Option<Ipv4Addr>,
    v6: [Ipv6Addr; IPV6],
    count: usize,
}

impl Addresses {
    /// None at all.
    pub const NONE: Self = Self {
        v4: None,
        v6: [Ipv6Addr::UNSPECIFIED; IPV6],
        count: 0,
    };

    /// These; of `v6` the first [`IPV6`].
    #[must_use]
    pub fn of(v4: Option<Ipv4Addr>, v6: &[Ipv6Addr]) -> Self {
        let mut addresses = Self { v4, ..Self::NONE };
        for address in v6 {
            addresses.push(*address);
        }
        addresses
    }

    /// Adds an IPv6 address, if there is room.
    pub fn push(&mut self, address: Ipv6Addr) {
        if let Some(place) = self.v6.get_mut(self.count) {
            *place = address;
            self.count += 1;
        }
    }

    /// The IPv6 addresses.
    #[must_use]
    pub fn v6(&self) -> &[Ipv6Addr] {
        self.v6.get(..self.count).unwrap_or_default()
    }
}
