//! A network device that is memory: what is on its way in either direction, and how many buffers the guest has.

use core::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use gnomon_kernel::net::port::{Frame, FramePort, PortCounters};

/// The longest frame.
const FRAME_MAX: usize = 1514;

/// The guest's MAC address.
pub(crate) const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

#[derive(Clone, Default)]
pub(crate) struct Wire(pub(crate) Rc<RefCell<WireState>>);

#[derive(Default)]
pub(crate) struct WireState {
    pub(crate) to_guest: VecDeque<Vec<u8>>,
    /// Frames that were sent before a kick.
    pub(crate) pending: Vec<Vec<u8>>,
    pub(crate) from_guest: Vec<Vec<u8>>,
    pub(crate) buffers_out: usize,
    /// How many frames each kick was for.
    pub(crate) kicks: Vec<usize>,
    /// How often the device was looked after.
    pub(crate) tended: u32,
    /// Who answers each frame at once, if somebody does.
    pub(crate) peer: Option<Peer>,
}

/// Answers to a frame.
pub(crate) type Peer = fn(Vec<u8>) -> Vec<Vec<u8>>;

pub(crate) struct Bytes(Vec<u8>);

impl Frame for Bytes {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
    fn set_length(&mut self, length: usize) {
        self.0.resize(length.min(FRAME_MAX), 0);
    }
}

impl FramePort for Wire {
    type Frame = Bytes;
    fn mac(&self) -> [u8; 6] {
        GUEST_MAC
    }
    fn receive(&mut self) -> Option<Bytes> {
        let mut wire = self.0.borrow_mut();
        let frame = wire.to_guest.pop_front()?;
        wire.buffers_out += 1;
        Some(Bytes(frame))
    }
    fn allocate(&mut self) -> Option<Bytes> {
        self.0.borrow_mut().buffers_out += 1;
        Some(Bytes(Vec::new()))
    }
    fn send(&mut self, frame: Bytes) {
        let mut wire = self.0.borrow_mut();
        wire.buffers_out -= 1;
        wire.pending.push(frame.0);
    }
    fn has_received(&self) -> bool {
        !self.0.borrow().to_guest.is_empty()
    }
    fn release(&mut self, _: Bytes) {
        self.0.borrow_mut().buffers_out -= 1;
    }
    fn kick(&mut self) {
        let mut wire = self.0.borrow_mut();
        let sent = core::mem::take(&mut wire.pending);
        if !sent.is_empty() {
            wire.kicks.push(sent.len());
        }
        match wire.peer {
            Some(peer) => wire.to_guest.extend(sent.into_iter().flat_map(peer)),
            None => wire.from_guest.extend(sent),
        }
    }
    fn prepare_sleep(&mut self) -> bool {
        true
    }
    fn wake(&mut self) {}
    fn can_wake(&self) -> bool {
        true
    }
    fn counters(&self) -> PortCounters {
        PortCounters::default()
    }
    fn tend(&mut self) {
        self.0.borrow_mut().tended += 1;
    }
}
