//! Everything on the network that is not an NTP request: ARP, ping, DHCP, TCP, by `smoltcp`; and IPv6's
//! addresses, by [`inet6`](super::inet6).
//!
//! What is remembered of others is bounded: 16 IPv4 neighbours (the one unheard of for longest goes
//! first; they are needed for pings and DHCP only), one lease, and [`IPV6`](super::addresses::IPV6) IPv6
//! addresses.

use core::fmt;
use core::net::Ipv4Addr;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::{dhcpv4, tcp, udp};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr, IpCidr, Ipv4Cidr,
};

use super::addresses::Addresses;
use super::frame;
use super::gate::{self, Verdict};
use super::icmpv6::{self, Message};
use super::inet6::{Inet6, Known6};
use super::port::{FRAME_MAX, Frame, FramePort, StackPort};
use crate::config::{Ip6, is_host};
use crate::http;
use crate::serve::ntp;

mod outbound;

pub use self::outbound::Storage;

/// Sockets that the stack has room for: DHCP, one that asks, one for each UDP port that the service answers
/// on, and HTTP's.
const SOCKETS: usize = 2 + PORTS + http::CONNECTIONS;

/// UDP ports that the service may answer on.
const PORTS: usize = 2;

/// How long an address from an earlier life is kept while DHCP is asked about it.
const CONFIRMATION: Duration = Duration::from_secs(10);

/// How soon DHCP is asked again where nobody answers: the network may have come up after us.
const DISCOVER_AGAIN: Duration = Duration::from_secs(3);
/// The same once an address was offered; it doubles at every second time.
const REQUEST_AGAIN: Duration = Duration::from_secs(2);
/// A DHCP server that refuses what it offered is heard once in so long, since each time everything
/// begins again at once.
const REFUSAL_PACE: Duration = Duration::from_secs(2);

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
    /// Until when DHCP's refusals are not heard.
    deaf: Option<Instant>,
    address: Option<Address>,
    inet6: Inet6,
    /// All addresses in use.
    addresses: Addresses,
    /// How often they, or what is known of them, changed.
    changes: u64,
    /// The IPv4 address is from before a restart and ends then, unless DHCP gives it again.
    unconfirmed: Option<Instant>,
    /// When something is to be done, if anything is planned.
    next: Option<Instant>,
    /// A connection may have to be looked at.
    news: bool,
}

impl<'s> Stack<'s> {
    /// Starts a stack on `port`: with `fixed`, or by asking DHCP; and with `ip6`. The service answers on UDP port 123
    /// itself, and on `second`.
    pub fn new<P: FramePort>(
        port: &mut P,
        storage: &'s mut Storage<'s>,
        fixed: Option<Address>,
        ip6: Ip6,
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
        let dhcp = fixed.is_none().then(|| sockets.add(dhcp()));
        let mut stack = Self {
            interface,
            sockets,
            dhcp,
            outbound,
            deaf: None,
            address: None,
            inet6: Inet6::new(ip6, port.mac(), now, random),
            addresses: Addresses::NONE,
            changes: 0,
            unconfirmed: None,
            next: Some(now),
            news: false,
        };
        stack.set_address(fixed);
        stack.announce(port);
        stack
    }

    /// Starts over, for a machine that may have been moved or copied: other random numbers, no
    /// neighbours, DHCP and routers asked again. The addresses stay in use while nobody has answered, but
    /// not for longer than 10 s: after a migration they are still the right ones, and clients are not
    /// made to wait for an exchange with a server.
    pub fn restart<P: FramePort>(&mut self, port: &mut P, now: Instant, random: u64) {
        self.interface = interface(port, now, random);
        self.inet6.restart(now, random);
        self.set_address(self.address);
        self.deaf = None;
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

    /// The IPv4 address in use; `None` while DHCP has not answered.
    #[must_use]
    pub const fn address(&self) -> Option<Address> {
        self.address
    }

    /// The IPv6 addresses that there are.
    #[must_use]
    pub fn known6(&self) -> Known6 {
        self.inet6.known()
    }

    /// How often addresses came or went so far.
    #[must_use]
    pub const fn changes(&self) -> u64 {
        self.changes
    }

    /// All addresses in use.
    #[must_use]
    pub const fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Whether the IPv4 address comes, or will come, by DHCP.
    #[must_use]
    pub const fn uses_dhcp(&self) -> bool {
        self.dhcp.is_some()
    }

    /// Lets the stack look at one received frame and answer it.
    #[inline(never)]
    pub fn take<P: FramePort>(&mut self, port: &mut P, frame: P::Frame, now: Instant) {
        if frame::is_ipv6(frame.bytes()) {
            return self.take_ipv6(port, frame, now);
        }
        self.take_copy(port, frame, now);
    }

    /// Lets `smoltcp` look at a copy of the frame: a device that goes on writing into one that it has given would make
    /// it stumble over lengths that it has checked. Out of line, since the copy is not to be on the stack of those
    /// who need none.
    #[inline(never)]
    fn take_copy<P: FramePort>(&mut self, port: &mut P, frame: P::Frame, now: Instant) {
        let mut copy = [0; FRAME_MAX];
        let bytes = frame.bytes();
        let place = copy.get_mut(..bytes.len());
        let Some(place) = place else {
            return port.release(frame);
        };
        place.copy_from_slice(bytes);
        port.release(frame);
        if !self.may_see(port, place, now) {
            return;
        }
        let mut device = StackPort::new(port, Some(place));
        self.interface
            .poll_ingress_single(now, &mut device, &mut self.sockets);
        // What the frame said may have changed the plans.
        self.next = Some(now);
        self.news = true;
    }

    /// Adds a TCP socket.
    pub(crate) fn add(&mut self, socket: tcp::Socket<'s>) -> SocketHandle {
        self.sockets.add(socket)
    }

    /// A TCP socket that was added.
    pub(crate) fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'s> {
        self.sockets.get_mut(handle)
    }

    /// Whether connections may have to be looked at; asked once.
    pub(crate) const fn take_news(&mut self) -> bool {
        core::mem::replace(&mut self.news, false)
    }

    /// Has the sockets looked at in any case: something was done with one.
    pub(crate) const fn wake(&mut self) {
        self.next = Some(Instant::ZERO);
        self.news = true;
    }

    /// Whether [`poll`](Self::poll) has something to do.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.next.is_some_and(|next| next <= now)
    }

    /// Whether the IP stack may have the frame.
    fn may_see<P: FramePort>(&mut self, port: &P, frame: &[u8], now: Instant) -> bool {
        match gate::judge(frame, port.mac()) {
            Verdict::Pass => true,
            Verdict::Refusal if self.deaf.is_none_or(|until| until <= now) => {
                self.deaf = Some(now + REFUSAL_PACE);
                true
            }
            Verdict::Refusal | Verdict::Drop => false,
        }
    }

    fn take_ipv6<P: FramePort>(&mut self, port: &mut P, mut frame: P::Frame, now: Instant) {
        let mac = port.mac();
        match Message::parse(frame.bytes(), mac) {
            Some(Message::Echo { from, to }) => {
                if let Some(source) = self.inet6.echo_from(from, to)
                    && let Some(length) = icmpv6::turn_round(frame.bytes_mut(), mac, source)
                {
                    frame.set_length(length);
                    return port.send(frame);
                }
            }
            Some(message) => {
                if self.inet6.hear(port, message, now) {
                    self.gather();
                }
                // What it said may have changed the plans.
                self.next = Some(now);
            }
            None => {}
        }
        port.release(frame);
    }

    /// Does what is due at `now`: DHCP, addresses, retries. Returns whether the address changed.
    pub fn poll<P: FramePort>(&mut self, port: &mut P, now: Instant) -> bool {
        if !self.is_due(now) {
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
        if self.inet6.poll(port, now) {
            self.gather();
            changed = true;
        }
        port.kick();
        let planned = self.interface.poll_at(now, &self.sockets);
        let planned = [planned, self.unconfirmed, self.inet6.next()];
        self.next = planned.into_iter().flatten().min();
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
                gateway: lease
                    .router
                    .filter(|gateway| is_gateway(*gateway, lease.address)),
            }),
        };
        let changed = self.address != address;
        self.unconfirmed = None;
        self.set_address(address);
        self.announce(port);
        changed
    }

    /// Answers from now on at the addresses that there are.
    #[inline(never)]
    fn gather(&mut self) {
        let v4 = self.address.map(|address| address.address);
        self.addresses = Addresses::of(v4, &[]);
        for address in self.inet6.in_use() {
            self.addresses.push(address);
        }
        self.changes += 1;
    }

    fn set_address(&mut self, address: Option<Address>) {
        self.address = address;
        self.gather();
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
    }

    fn announce<P: FramePort>(&self, port: &mut P) {
        if let Some(Address { address, .. }) = self.address {
            announce(port, address);
        }
    }
}

/// Whether this can be the router of a host with that address.
fn is_gateway(gateway: Ipv4Addr, ours: Ipv4Cidr) -> bool {
    // A host route says nothing of what is near.
    let prefix = ours.prefix_len();
    let is_near = prefix == 32 || ours.contains_addr(&gateway);
    is_near && gateway != ours.address() && is_host(gateway, prefix)
}

fn dhcp<'s>() -> dhcpv4::Socket<'s> {
    let mut socket = dhcpv4::Socket::new();
    let mut retries = socket.get_retry_config();
    retries.discover_timeout = DISCOVER_AGAIN;
    retries.initial_request_timeout = REQUEST_AGAIN;
    socket.set_retry_config(retries);
    socket
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
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}
