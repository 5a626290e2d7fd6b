//! The network, seen from the service: Ethernet frames in, Ethernet frames out.
//!
//! [`frame`] is the short way: an NTP request is recognised in the receive buffer and answered in
//! that same buffer, before any IP stack has seen it. [`stack`] has the rest, of which [`inet6`] says which
//! IPv6 addresses there are.

pub mod addresses;
mod checksum;
pub mod frame;
mod gate;
mod icmpv6;
pub mod inet6;
pub mod port;
pub mod stack;

/// Frames counted since the start, for the `net` command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames taken from the receive ring.
    pub received: u64,
    /// Frames handed to the transmit ring.
    pub sent: u64,
    /// Received frames that were UDP datagrams for an NTP port; what came of them is counted in
    /// [`ntp::Counters`](crate::serve::ntp::Counters).
    pub ntp: u64,
    /// Received frames passed on to the IP stack.
    pub stack: u64,
    /// Frames lost on either side: too long, refused by the device, no free buffer.
    pub dropped: u64,
    /// Notifications of the device: for several frames one, and none while it is at work anyway.
    pub kicks: u64,
    /// Things the device wrote into its rings that no honest device writes.
    pub lies: u64,
}
