//! The frame port: how the service sees a network device, and how the IP stack sees the same one.

use core::cell::RefCell;

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

/// A frame in a buffer that belongs to whoever holds it.
pub trait Frame {
    /// The frame from its destination address on.
    fn bytes(&self) -> &[u8];
    /// The same, to be changed in place.
    fn bytes_mut(&mut self) -> &mut [u8];
    /// Makes the frame `length` bytes long, at most the device's largest frame.
    fn set_length(&mut self, length: usize);
}

/// A network device whose received frames can be sent back in the same memory.
pub trait FramePort {
    /// A frame with its buffer.
    type Frame: Frame;

    /// The device's MAC address.
    fn mac(&self) -> [u8; 6];
    /// Takes the next received frame.
    fn receive(&mut self) -> Option<Self::Frame>;
    /// An empty frame to fill and send, if a buffer is free.
    fn allocate(&mut self) -> Option<Self::Frame>;
    /// Whether [`receive`](Self::receive) may have something: a look that costs nothing.
    fn has_received(&self) -> bool;
    /// Whether the device is done with every frame that was queued: it has handed them on, or says so.
    fn has_sent(&mut self) -> bool;
    /// Queues `frame` for sending, or drops it when the device is behind. A device that is at work
    /// may send it at once.
    fn send(&mut self, frame: Self::Frame);
    /// Gives a frame's buffer back.
    fn release(&mut self, frame: Self::Frame);
    /// Ends a batch: the device is notified of what was queued, if it has to be, and gets buffers for
    /// what was received.
    fn kick(&mut self);
    /// Before sleeping: asks the device for a wake-up by the next frame, and if `awaits_sent` also when it
    /// is done with one of ours; says whether sleeping is safe because neither has happened meanwhile.
    fn prepare_sleep(&mut self, awaits_sent: bool) -> bool;
    /// After sleeping: the device need not wake anybody.
    fn wake(&mut self);
    /// Whether the device can wake a sleeping machine at all.
    fn can_wake(&self) -> bool;
    /// Frames received, sent, and dropped; ring entries that no honest device writes.
    fn counters(&self) -> PortCounters;
    /// Looks whether the device is in order and begins anew with one that is not: called about once
    /// a second.
    fn tend(&mut self) {}
    /// How the device was at the last look.
    fn health(&self) -> Health {
        Health::default()
    }
}

/// How a device is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// How often it had to be reset.
    pub resets: u64,
    /// Why, the last time, in a few words.
    pub trouble: Option<&'static str>,
    /// Why it could not be started again yet.
    pub dead: Option<&'static str>,
}

/// What has gone through a port since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Frames received.
    pub received: u64,
    /// Frames handed to the device.
    pub sent: u64,
    /// Frames not sent because the device was behind.
    pub dropped: u64,
    /// Notifications of the device, in either direction: each is a trip to the host.
    pub kicks: u64,
    /// Things the device wrote into its rings that no honest device writes.
    pub lies: u64,
}

/// Bytes of the longest frame the IP stack sends or takes: Ethernet header and 1500 bytes.
pub(super) const FRAME_MAX: usize = 1514;

/// A port with at most one received frame, as a `smoltcp` device: the service decides which frames
/// the stack sees.
pub(super) struct StackPort<'p, P: FramePort> {
    port: RefCell<&'p mut P>,
    received: Option<&'p [u8]>,
}

impl<'p, P: FramePort> StackPort<'p, P> {
    pub(super) const fn new(port: &'p mut P, received: Option<&'p [u8]>) -> Self {
        Self {
            port: RefCell::new(port),
            received,
        }
    }
}

impl<'p, P: FramePort> Device for StackPort<'p, P> {
    type RxToken<'a>
        = Received<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = ToSend<'a, 'p, P>
    where
        Self: 'a;

    fn receive(&mut self, _: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        let frame = self.received.take()?;
        Some((Received(frame), ToSend { port: &self.port }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Self::TxToken<'_>> {
        Some(ToSend { port: &self.port })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_MAX;
        capabilities
    }
}

/// The one received frame, on its way into the stack.
pub(super) struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// Leave to send one frame.
pub(super) struct ToSend<'a, 'p, P: FramePort> {
    port: &'a RefCell<&'p mut P>,
}

impl<P: FramePort> TxToken for ToSend<'_, '_, P> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut port = self.port.borrow_mut();
        let Some(mut frame) = port.allocate() else {
            // The stack must be able to write its frame; without a buffer it is lost, as it may be
            // on any network.
            return f(scratch(length, &mut [0; FRAME_MAX]));
        };
        frame.set_length(length);
        if frame.bytes().len() != length {
            port.release(frame);
            return f(scratch(length, &mut [0; FRAME_MAX]));
        }
        let result = f(frame.bytes_mut());
        port.send(frame);
        result
    }
}

fn scratch(length: usize, memory: &mut [u8; FRAME_MAX]) -> &mut [u8] {
    memory.get_mut(..length).unwrap_or_default()
}
