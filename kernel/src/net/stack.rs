//! Everything on the network that is not an NTP request: ARP, ping, DHCP, by `smoltcp`.

use core::fmt;
use core::net::Ipv4Addr;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::{dhcpv4, udp};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr, IpCidr, Ipv4Cidr,
};

use super::port::{Frame, FramePort, StackPort};
use crate::serve::ntp;

mod outbound;

pub use self::outbound::Storage;

/// Sockets that the stack has room for: DHCP, one that asks, and one for each UDP port that the service
/// answers on.
const SOCKETS: usize = 2 + PORTS;

/// UDP ports that the service may answer on.
const PORTS: usize = 2;

/// How long an address from an earlier life is kept while DHCP is asked about it.
const CONFIRMATION: Duration = Duration::from_secs(10);

/// An IPv4 address, its prefix length, and the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The host's own address.
    pub address: Ipv4Addr,
    /// Bits of the network prefix, 0 to 32.
    pub prefix: u8,
    /// The default router, if there is one.
    pub gateway: Option<Ipv4Addr>,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)?;
        match self.gateway {
            Some(gateway) => write!(f, " gateway {gateway}"),
            None => Ok(()),
        }
    }
}

/// The IP stack of one network device.
pub struct Stack<'s> {
    interface: Interface,
    sockets: SocketSet<'s>,
    dhcp: Option<SocketHandle>,
    /// The socket that asks.
    outbound: SocketHandle,
    address: Option<Address>,
    /// The address is from before a restart and ends then, unless DHCP gives it again.
    unconfirmed: Option<Instant>,
    /// When something is to be done, if anything is planned.
    next: Option<Instant>,
}

impl<'s> Stack<'s> {
    /// Starts a stack on `port`: with `fixed`, or by asking DHCP. The service answers on UDP port 123
    /// itself, and on `second`.
    pub fn new<P: FramePort>(
        port: &mut P,
        storage: &'s mut Storage<'s>,
        fixed: Option<Address>,
        second: Option<u16>,
        now: Instant,
        random: u64,
    ) -> Self {
        let interface = interface(port, now, random);
        let Storage {
            sockets, outbound, ..
        } = storage;
        let mut sockets = SocketSet::new(&mut sockets[..]);
        let outbound = sockets.add(outbound.socket());
        sockets.add(swallow(ntp::PORT));
        if let Some(second) = second {
            sockets.add(swallow(second));
        }
        let dhcp = fixed.is_none().then(|| sockets.add(dhcpv4::Socket::new()));
        let mut stack = Self {
            interface,
            sockets,
            dhcp,
            outbound,
            address: None,
            unconfirmed: None,
            next: Some(now),
        };
        stack.set_address(fixed);
        stack.announce(port);
        stack
    }

    /// Starts over, for a machine that may have been moved or copied: other random numbers, no
    /// neighbours, DHCP asked again. The address stays in use while DHCP has not answered, but not
    /// for longer than 10 s: after a migration it is still the right one, and clients are not made
    /// to wait for an exchange with a server.
    pub fn restart<P: FramePort>(&mut self, port: &mut P, now: Instant, random: u64) {
        self.interface = interface(port, now, random);
        self.set_address(self.address);
        if let Some(handle) = self.dhcp {
            let dhcp = self.sockets.get_mut::<dhcpv4::Socket<'_>>(handle);
            dhcp.reset();
            // That the lease has ended, which is our own doing.
            let _ = dhcp.poll();
            // Restarts that follow each other do not make it longer.
            let end = self.unconfirmed.unwrap_or(now + CONFIRMATION);
            self.unconfirmed = self.address.map(|_| end);
        } else {
            self.announce(port);
        }
        self.next = Some(now);
    }

    /// The address in use; `None` while DHCP has not answered.
    #[must_use]
    pub const fn address(&self) -> Option<Address> {
        self.address
    }

    /// Whether the address comes, or will come, by DHCP.
    #[must_use]
    pub const fn uses_dhcp(&self) -> bool {
        self.dhcp.is_some()
    }

    /// Lets the stack look at one received frame and answer it.
    pub fn take<P: FramePort>(&mut self, port: &mut P, frame: P::Frame, now: Instant) {
        let mut device = StackPort::new(port, Some(frame));
        self.interface
            .poll_ingress_single(now, &mut device, &mut self.sockets);
        device.finish();
        // What the frame said may have changed the plans.
        self.next = Some(now);
    }

    /// Does what is due at `now`: DHCP, ARP retries. Returns whether the address changed.
    pub fn poll<P: FramePort>(&mut self, port: &mut P, now: Instant) -> bool {
        if self.next.is_none_or(|next| now < next) {
            return false;
        }
        self.interface.poll_maintenance(now);
        self.interface
            .poll_egress(now, &mut StackPort::new(port, None), &mut self.sockets);
        let mut changed = self.follow_dhcp(port);
        if self.unconfirmed.is_some_and(|end| end <= now) {
            self.unconfirmed = None;
            self.set_address(None);
            changed = true;
        }
        port.kick();
        let planned = self.interface.poll_at(now, &self.sockets);
        self.next = [planned, self.unconfirmed].into_iter().flatten().min();
        changed
    }

    /// When `poll` has something to do next; `None` when nothing is planned.
    #[must_use]
    pub const fn next_poll(&self) -> Option<Instant> {
        self.next
    }

    fn follow_dhcp<P: FramePort>(&mut self, port: &mut P) -> bool {
        let Some(handle) = self.dhcp else {
            return false;
        };
        let address = match self.sockets.get_mut::<dhcpv4::Socket<'_>>(handle).poll() {
            None => return false,
            Some(dhcpv4::Event::Deconfigured) => None,
            Some(dhcpv4::Event::Configured(lease)) => Some(Address {
                address: lease.address.address(),
                prefix: lease.address.prefix_len(),
                gateway: lease.router,
            }),
        };
        let changed = self.address != address;
        self.unconfirmed = None;
        self.set_address(address);
        self.announce(port);
        changed
    }

    fn set_address(&mut self, address: Option<Address>) {
        self.interface.update_ip_addrs(|addresses| {
            addresses.clear();
            if let Some(Address {
                address, prefix, ..
            }) = address
            {
                // There is room: the list was just emptied.
                let _ = addresses.push(IpCidr::Ipv4(Ipv4Cidr::new(address, prefix.min(32))));
            }
        });
        let routes = self.interface.routes_mut();
        routes.remove_default_ipv4_route();
        if let Some(gateway) = address.and_then(|address| address.gateway) {
            // As above: the table has room for at least the one route.
            let _ = routes.add_default_ipv4_route(gateway);
        }
        self.address = address;
    }

    fn announce<P: FramePort>(&self, port: &mut P) {
        if let Some(Address { address, .. }) = self.address {
            announce(port, address);
        }
    }
}

fn interface<P: FramePort>(port: &mut P, now: Instant, random: u64) -> Interface {
    let mut config = Config::new(EthernetAddress(port.mac()).into());
    config.random_seed = random;
    Interface::new(config, &mut StackPort::new(port, None), now)
}

/// Tells the network where `address` is (an ARP announcement, RFC 5227 §2.3), so that the first
/// request need not wait for somebody to ask.
fn announce<P: FramePort>(port: &mut P, address: Ipv4Addr) {
    let Some(mut frame) = port.allocate() else {
        return;
    };
    let mac = EthernetAddress(port.mac());
    let announcement = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: mac,
        source_protocol_addr: address,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: address,
    };
    let ethernet = EthernetRepr {
        src_addr: mac,
        dst_addr: EthernetAddress::BROADCAST,
        ethertype: EthernetProtocol::Arp,
    };
    let header = ethernet.buffer_len();
    let length = header + announcement.buffer_len();
    frame.set_length(length);
    let bytes = frame.bytes_mut();
    if bytes.len() != length {
        return port.release(frame);
    }
    ethernet.emit(&mut EthernetFrame::new_unchecked(&mut *bytes));
    if let Some(payload) = bytes.get_mut(header..) {
        announcement.emit(&mut ArpPacket::new_unchecked(payload));
    }
    port.send(frame);
}

/// A socket that takes datagrams for `port` and has no room for any: what the service left to the
/// stack (IP options, broadcasts) gets silence from it, and not an ICMP error.
fn swallow<'s>(port: u16) -> udp::Socket<'s> {
    let nothing = || udp::PacketBuffer::new(&mut [][..], &mut [][..]);
    let mut socket = udp::Socket::new(nothing(), nothing());
    // A new socket can be bound to any port but 0.
    let _ = socket.bind(port);
    socket
}

impl fmt::Debug for Stack<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}
