//! The virtio network device (virtio 1.3 §5.1), for frames that turn round in place.
//!
//! One pool of buffers serves both directions. A received frame is lent to nobody while the service
//! looks at it; it goes back either through the transmit ring (as the answer, in the same memory)
//! or straight to the receive ring. One descriptor a frame, nothing is copied, nothing is
//! allocated, one notification a batch.

use core::fmt;
use core::ptr::NonNull;

use super::ring::{Queue, RingMemory};
use super::virtio::pci::VENDOR;
use super::virtio::{Doorbell, Error, RaisedLine, Transport, Trouble};
use crate::cell::TakeCell;

/// Feature: the device has a MAC address.
const MAC: u64 = 1 << 5;
/// Bytes of the device's configuration that are read.
pub const CONFIGURATION: u32 = 6;
/// Feature: both sides say by an index what they want to hear of (§2.7.7, §2.7.10).
const EVENT_IDX: u64 = 1 << 29;
/// Size of `struct virtio_net_hdr` with `VERSION_1` (§5.1.6).
const HEADER: usize = 12;
/// Bytes of a buffer. Holds the header and the longest untagged Ethernet frame.
const BUFFER: u32 = 2048;
/// The longest frame that is received or sent: 1500 bytes of payload and 14 of header.
pub const FRAME_MAX: usize = 1514;
const RECEIVE: usize = 128;
const TRANSMIT: usize = 64;
/// Looks at the device, one a second, during which it may leave a full transmit ring as it is.
const PATIENCE: u8 = 5;
/// Enough that a full transmit ring still leaves the receive ring full.
const BUFFERS: usize = RECEIVE + TRANSMIT;

#[repr(C, align(64))]
struct Buffer([u8; BUFFER as usize]);

/// One Ethernet frame in a buffer of its own.
pub struct Frame {
    buffer: &'static mut Buffer,
    length: usize,
}

impl Frame {
    /// The frame's bytes, from the destination address on.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.buffer
            .0
            .get(HEADER..HEADER + self.length)
            .unwrap_or_default()
    }

    /// The same, to be changed in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.buffer
            .0
            .get_mut(HEADER..HEADER + self.length)
            .unwrap_or_default()
    }

    /// Makes the frame `length` bytes long, at most [`FRAME_MAX`].
    pub fn set_length(&mut self, length: usize) {
        self.length = length.min(FRAME_MAX);
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

/// A buffer that the device may write or read now.
struct Lent(NonNull<Buffer>);

/// What has gone through the device.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Frames received.
    pub received: u64,
    /// Frames handed to the device.
    pub sent: u64,
    /// Frames not sent because the transmit ring was full.
    pub dropped: u64,
    /// Notifications of the device, in either direction.
    pub kicks: u64,
    /// Ring entries that no honest device writes: wrong id, or a length outside the buffer.
    pub lies: u64,
}

/// How the device is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// How often it had to be reset.
    pub resets: u64,
    /// Why, the last time.
    pub trouble: Option<Trouble>,
    /// Why it could not be started again yet.
    pub dead: Option<Error>,
}

/// A running network device.
pub struct Nic<T> {
    transport: T,
    receive: Queue<Lent, RECEIVE>,
    transmit: Queue<Lent, TRANSMIT>,
    receive_bell: Doorbell,
    transmit_bell: Doorbell,
    spare: [Option<&'static mut Buffer>; BUFFERS],
    spare_count: usize,
    unsent: bool,
    mac: [u8; 6],
    wakes: bool,
    line: Option<RaisedLine>,
    counters: Counters,
    health: Health,
    /// An entry of a ring named no buffer that was lent.
    is_lied_to: bool,
    /// Frames sent at the last look, if the transmit ring was full then, and how many looks ago that was first so.
    stuck: Option<(u64, u8)>,
}

/// The rings and the buffers.
struct Memory {
    receive: &'static mut RingMemory<RECEIVE>,
    transmit: &'static mut RingMemory<TRANSMIT>,
    pool: &'static mut [Buffer],
}

impl Memory {
    /// All that there is.
    fn claim() -> Option<Self> {
        static RECEIVE_RING: TakeCell<RingMemory<RECEIVE>> = TakeCell::new(RingMemory::new());
        static TRANSMIT_RING: TakeCell<RingMemory<TRANSMIT>> = TakeCell::new(RingMemory::new());
        static POOL: TakeCell<[Buffer; BUFFERS]> =
            TakeCell::new([const { Buffer([0; BUFFER as usize]) }; BUFFERS]);
        Some(Self {
            receive: RECEIVE_RING.take()?,
            transmit: TRANSMIT_RING.take()?,
            pool: POOL.take()?,
        })
    }
}

/// Whether a PCI function with these ids is a virtio network device, modern or transitional.
#[must_use]
pub const fn is_nic(vendor: u16, device: u16) -> bool {
    const TRANSITIONAL: u16 = 0x1000;
    const MODERN: u16 = 0x1041;
    vendor == VENDOR && matches!(device, TRANSITIONAL | MODERN)
}

impl<T: Transport> Nic<T> {
    /// Brings the device behind `transport` up with all receive buffers in place.
    ///
    /// # Errors
    /// The device is unusable, or a device is running already (there is one set of
    /// rings).
    pub fn new(transport: T) -> Result<Self, Error> {
        Self::with(transport, Memory::claim)
    }

    fn with(mut transport: T, memory: impl FnOnce() -> Option<Memory>) -> Result<Self, Error> {
        let features = transport.negotiate(MAC | EVENT_IDX)?;
        let events = features & EVENT_IDX != 0;
        let mac = mac_address(&transport, features);
        let in_use = Error::Queue {
            index: 0,
            maximum: 0,
        };
        let Memory {
            receive,
            transmit,
            pool,
        } = memory().ok_or(in_use)?;
        let receive_bell = transport.queue(0, receive, true)?;
        let transmit_bell = transport.queue(1, transmit, true)?;

        let mut nic = Self {
            receive: Queue::new(receive, events),
            transmit: Queue::new(transmit, events),
            receive_bell,
            transmit_bell,
            spare: [const { None }; BUFFERS],
            spare_count: 0,
            unsent: false,
            mac,
            wakes: transport.wakes(),
            line: transport.line(),
            counters: Counters::default(),
            health: Health::default(),
            is_lied_to: false,
            stuck: None,
            transport,
        };
        for buffer in pool {
            nic.keep(buffer);
        }
        nic.start();
        Ok(nic)
    }

    fn start(&mut self) {
        self.refill();
        self.transport.start();
        self.receive_bell.ring();
    }

    /// Looks whether the device is in order, and resets it if not: to be called about once a second. Frames
    /// that were under way are lost then. Never waits: a device that does not leave reset is looked
    /// at again the next time.
    pub fn tend(&mut self) -> Health {
        if self.health.dead.is_none() {
            let Some(trouble) = self.trouble() else {
                return self.health;
            };
            self.health.resets += 1;
            self.health.trouble = Some(trouble);
        }
        self.health.dead = self.restart().err();
        self.health
    }

    fn trouble(&mut self) -> Option<Trouble> {
        if let Some(trouble) = self.transport.complaint() {
            return Some(trouble);
        }
        if self.is_lied_to {
            return Some(Trouble::Lies);
        }
        let sent = self.counters.sent;
        self.stuck = match self.stuck {
            _ if self.transmit.room() > 0 => None,
            Some((before, looks)) if before == sent => Some((sent, looks.saturating_add(1))),
            _ => Some((sent, 0)),
        };
        let is_stuck = self.stuck.is_some_and(|(_, looks)| looks >= PATIENCE);
        is_stuck.then_some(Trouble::Stuck)
    }

    /// Starts the device anew, if it has left reset.
    fn restart(&mut self) -> Result<(), Error> {
        if self.transport.greet().is_err() {
            self.transport.set_status(0);
            self.transport.greet()?;
        }
        let events = self.transport.negotiate(MAC | EVENT_IDX)? & EVENT_IDX != 0;
        let Self {
            receive,
            transmit,
            spare,
            spare_count,
            ..
        } = self;
        let mut keep = |lent| keep(spare, spare_count, reclaim(lent));
        receive.clear(events, &mut keep);
        transmit.clear(events, &mut keep);
        self.receive_bell = self.transport.queue(0, self.receive.memory(), true)?;
        self.transmit_bell = self.transport.queue(1, self.transmit.memory(), true)?;
        self.is_lied_to = false;
        self.stuck = None;
        self.unsent = false;
        self.start();
        Ok(())
    }

    /// How the device was at the last look.
    #[must_use]
    pub const fn health(&self) -> Health {
        self.health
    }

    /// The device's MAC address.
    #[must_use]
    pub const fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Whether the device can wake a sleeping CPU for what has to be done next. While its transmit ring is full
    /// that is something for which it is asked for no interrupts.
    #[must_use]
    pub const fn wakes(&self) -> bool {
        self.wakes && self.transmit.room() > 0
    }

    /// What has gone through.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether the device has something for [`Self::receive`]: one load.
    #[must_use]
    pub fn has_received(&self) -> bool {
        self.receive.has_used() && self.transmit.room() > 0
    }

    /// Whether the device has given back every frame that was sent: by then it has handed them on, if it
    /// is honest.
    pub fn has_sent(&mut self) -> bool {
        self.reap();
        self.transmit.room() == TRANSMIT
    }

    /// Takes the next received frame off the ring, if there is room for an answer: while the device is
    /// behind with sending, what comes waits in the ring, and beyond that with the host.
    pub fn receive(&mut self) -> Option<Frame> {
        if self.transmit.room() == 0 {
            self.reap();
            if self.transmit.room() == 0 {
                return None;
            }
        }
        // Of lies there can be many, and they may come faster than they are looked at.
        for _ in 0..RECEIVE {
            match self.receive.pop()? {
                Ok((lent, length)) => {
                    let buffer = reclaim(lent);
                    let length = usize::try_from(length)
                        .ok()
                        .and_then(|length| length.checked_sub(HEADER));
                    if let Some(length) = length.filter(|length| (1..=FRAME_MAX).contains(length)) {
                        self.counters.received += 1;
                        return Some(Frame { buffer, length });
                    }
                    self.counters.lies += 1;
                    self.keep(buffer);
                }
                Err(_) => self.note_lie(),
            }
        }
        None
    }

    /// An empty frame to fill and send, if a buffer is free.
    pub fn allocate(&mut self) -> Option<Frame> {
        // The receive ring must never starve for the sake of sending.
        if self.spare_count == 0 {
            self.reap();
        }
        let buffer = self
            .spare_count
            .checked_sub(1)
            .and_then(|last| self.spare.get_mut(last)?.take())?;
        self.spare_count -= 1;
        Some(Frame { buffer, length: 0 })
    }

    /// Queues `frame` for sending: a device that is at work takes it at once, any other when it is
    /// notified by [`Self::kick`]. Drops it when the ring is full.
    pub fn send(&mut self, frame: Frame) {
        if self.transmit.room() == 0 {
            self.reap();
        }
        let Frame { buffer, length } = frame;
        if let Some(header) = buffer.0.first_chunk_mut::<HEADER>() {
            *header = [0; HEADER]; // no offloads
        }
        let total = u32::try_from(HEADER + length.min(FRAME_MAX)).unwrap_or(0);
        let lent = Lent(NonNull::from(buffer));
        let address = lent.0.as_ptr() as u64;
        match self.transmit.push(lent, address, total, false) {
            Ok(()) => {
                self.counters.sent += 1;
                self.unsent = true;
                self.transmit.publish();
            }
            Err(lent) => {
                self.counters.dropped += 1;
                self.keep(reclaim(lent));
            }
        }
    }

    /// Gives a frame's buffer back.
    pub fn release(&mut self, frame: Frame) {
        let Frame { buffer, .. } = frame;
        self.keep(buffer);
    }

    /// Ends a batch: one notification for all that was sent, if the device wants any, and free
    /// buffers go back to the receive ring.
    pub fn kick(&mut self) {
        if core::mem::take(&mut self.unsent) && self.transmit.wants_notification() {
            self.counters.kicks += 1;
            self.transmit_bell.ring();
        }
        self.reap();
        if self.refill() && self.receive.wants_notification() {
            self.counters.kicks += 1;
            self.receive_bell.ring();
        }
    }

    /// Before sleeping: asks for an interrupt by the next frame, and if `awaits_sent` by one of ours that
    /// is given back. Says whether it is safe to sleep (neither has happened meanwhile).
    pub fn prepare_sleep(&mut self, awaits_sent: bool) -> bool {
        if let Some(line) = &self.line {
            line.lower();
        }
        let has_sent = awaits_sent && self.transmit.listen();
        let has_received = self.receive.listen() && self.transmit.room() > 0;
        !has_received && !has_sent
    }

    /// After sleeping: no interrupts while the rings are being looked at anyway.
    pub fn wake(&mut self) {
        self.receive.hush();
        self.transmit.hush();
    }

    /// Takes back what the device has sent.
    fn reap(&mut self) {
        for _ in 0..TRANSMIT {
            match self.transmit.pop() {
                Some(Ok((lent, _))) => self.keep(reclaim(lent)),
                Some(Err(_)) => self.note_lie(),
                None => break,
            }
            // Nobody sleeps now: the event stays a whole turn of the index away.
            self.transmit.hush();
        }
    }

    /// Lends spare buffers to the receive ring until it is full. Returns whether any went.
    fn refill(&mut self) -> bool {
        let before = self.receive.room();
        while self.receive.room() > 0 {
            let Some(buffer) = self
                .spare_count
                .checked_sub(1)
                .and_then(|last| self.spare.get_mut(last)?.take())
            else {
                break;
            };
            self.spare_count -= 1;
            let lent = Lent(NonNull::from(buffer));
            let address = lent.0.as_ptr() as u64;
            if let Err(lent) = self.receive.push(lent, address, BUFFER, true) {
                self.keep(reclaim(lent));
                break;
            }
        }
        let went = self.receive.room() < before;
        if went {
            self.receive.publish();
        }
        went
    }

    fn keep(&mut self, buffer: &'static mut Buffer) {
        keep(&mut self.spare, &mut self.spare_count, buffer);
    }

    #[cold]
    fn note_lie(&mut self) {
        self.counters.lies += 1;
        self.is_lied_to = true;
    }
}

fn keep(
    spare: &mut [Option<&'static mut Buffer>; BUFFERS],
    count: &mut usize,
    buffer: &'static mut Buffer,
) {
    // There are exactly as many places as buffers.
    if let Some(place) = spare.get_mut(*count) {
        *place = Some(buffer);
        *count += 1;
    }
}

impl<T> fmt::Debug for Nic<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nic")
            .field("mac", &self.mac)
            .field("counters", &self.counters)
            .field("health", &self.health)
            .finish_non_exhaustive()
    }
}

/// Makes a buffer ours again once the ring has returned it.
fn reclaim(Lent(buffer): Lent) -> &'static mut Buffer {
    // SAFETY: a `Lent` is made from the only reference to a static buffer and is not `Clone`;
    // `Queue` returns it at most once, and only after the device has named it in the used ring.
    // A device that still writes afterwards corrupts bytes of this frame, which are untrusted
    // anyway; as a host it could corrupt any of our memory.
    unsafe { &mut *buffer.as_ptr() }
}

/// The device's address, or a locally administered one where it has none.
fn mac_address(transport: &impl Transport, features: u64) -> [u8; 6] {
    let mut mac = [0x02, 0x67, 0x6e, 0x6f, 0x6d, 0x01];
    if features & MAC != 0 {
        for (offset, byte) in mac.iter_mut().enumerate() {
            *byte = transport.configuration().read8(offset);
        }
    }
    mac
}

#[cfg(test)]
mod tests;
