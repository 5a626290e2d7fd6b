//! The network driver over a device that lies in its rings: no buffer is lost or comes back twice, and no frame is longer
//! than a buffer.
//!
//! There is one set of rings, so one driver lives from input to input. At the end of each the device gives everything
//! back, and the account must be as it was.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use gnomon_arch::dev::net::{FRAME_MAX, Frame, Nic};
use gnomon_arch::dev::registers::Registers;
use gnomon_arch::dev::ring::RingMemory;
use gnomon_arch::dev::virtio::mmio::MmioTransport;
use gnomon_arch::dev::virtio::{Doorbell, Error, RaisedLine, Transport, VERSION_1};

use crate::input::Input;
use crate::ring::Device;

#[path = "../../../arch/src/dev/net/tests/drain.rs"]
mod drain;

use drain::drain;

/// Descriptors of the queues, as the driver has them.
const RECEIVE: u32 = 128;
const TRANSMIT: u32 = 64;
/// Bytes of `struct virtio_net_hdr`.
const HEADER: u32 = 12;

/// A transport without registers, which keeps what the device is told of the rings.
struct Captured {
    queues: Rc<RefCell<Vec<Device>>>,
    inner: MmioTransport,
}

impl Transport for Captured {
    fn negotiate(&mut self, wanted: u64) -> Result<u64, Error> {
        Ok(wanted | VERSION_1)
    }
    fn queue<const N: usize>(
        &mut self,
        index: u16,
        memory: &RingMemory<N>,
        interrupts: bool,
    ) -> Result<Doorbell, Error> {
        self.queues.borrow_mut().push(Device::of(memory));
        self.inner.queue(index, memory, interrupts)
    }
    fn start(&mut self) {}
    fn configuration(&self) -> &Registers {
        self.inner.configuration()
    }
    fn wakes(&self) -> bool {
        true
    }
    fn line(&self) -> Option<RaisedLine> {
        None
    }
    fn status(&self) -> u8 {
        self.inner.status()
    }
    fn set_status(&self, status: u8) {
        self.inner.set_status(status);
    }
}

/// The driver, and the device's side of its two queues.
struct Rig {
    nic: Nic<Captured>,
    receive: Device,
    transmit: Device,
}

impl Rig {
    fn new() -> Self {
        /// Bytes of the registers.
        const BYTES: usize = 0x200;
        let block = Box::leak(Box::new([0_u64; BYTES / 8]));
        // SAFETY: memory of our own, aligned, and never given back.
        let registers = unsafe { Registers::new(block.as_mut_ptr().cast(), BYTES) };
        // Version, the largest queue.
        registers.write32(0x004, 2);
        registers.write32(0x034, 256);
        let queues = Rc::default();
        let transport = Captured {
            queues: Rc::clone(&queues),
            inner: MmioTransport::new(registers, true).expect("a transport"),
        };
        let nic = Nic::new(transport).expect("the only one");
        let [receive, transmit] = queues.take().try_into().ok().expect("two queues");
        Self {
            nic,
            receive,
            transmit,
        }
    }
}

/// Input: steps.
///
/// # Panics
/// The driver's account is wrong, or a frame is none.
pub fn run(data: &[u8]) {
    thread_local! {
        static RIG: RefCell<Option<Rig>> = const { RefCell::new(None) };
    }
    RIG.with_borrow_mut(|rig| {
        let rig = rig.get_or_insert_with(Rig::new);
        play(rig, &mut Input(data));
        settle(rig);
    });
}

fn play(rig: &mut Rig, input: &mut Input<'_>) {
    let Rig {
        nic,
        receive,
        transmit,
    } = rig;
    let mut held: VecDeque<Frame> = VecDeque::new();
    for _ in 0..256 {
        if input.is_empty() {
            break;
        }
        match input.u8() % 12 {
            // As an honest device does, but for what is in it.
            0 | 1 => {
                // A ring that was scribbled into names descriptors that have never been used.
                if let Some((id, address, length)) = receive.take().filter(|(_, at, _)| *at != 0) {
                    let bytes = input.block();
                    let bytes = &bytes[..bytes.len().min(length as usize)];
                    Device::store(address, bytes);
                    receive.give(id, u32::try_from(bytes.len()).expect("short"));
                    receive.publish();
                }
            }
            2 => {
                if let Some((id, ..)) = transmit.take() {
                    transmit.give(id, 0);
                    transmit.publish();
                }
            }
            // As none does.
            3 => receive.give(u32::from(input.u8()), input.u32()),
            4 => transmit.give(u32::from(input.u8()), input.u32()),
            5 => receive.index = receive.index.wrapping_add(u16::from(input.u8())),
            6 => {
                let queue = if input.u8() & 1 == 0 {
                    &*receive
                } else {
                    &*transmit
                };
                queue.scribble(input);
                queue.publish();
            }
            7 | 8 => {
                let Some(mut frame) = nic.receive() else {
                    continue;
                };
                assert!((1..=FRAME_MAX).contains(&frame.bytes().len()));
                let shape = input.u8();
                frame.bytes_mut().fill(shape);
                frame.set_length(usize::from(input.u16()));
                assert!(frame.bytes().len() <= FRAME_MAX);
                match shape & 3 {
                    0 => nic.release(frame),
                    1 => held.push_back(frame),
                    _ => nic.send(frame),
                }
            }
            9 => {
                if let Some(mut frame) = nic.allocate() {
                    frame.set_length(usize::from(input.u16()));
                    frame.bytes_mut().fill(0x5a);
                    nic.send(frame);
                }
            }
            10 => {
                if let Some(frame) = held.pop_front() {
                    nic.send(frame);
                }
            }
            _ => {
                let _ = (nic.has_received(), nic.prepare_sleep());
                nic.wake();
                nic.kick();
            }
        }
    }
    for frame in held {
        nic.release(frame);
    }
}

/// The device gives back whatever it may have, and then the driver has it all.
fn settle(rig: &mut Rig) {
    let Rig {
        nic,
        receive,
        transmit,
    } = rig;
    receive.publish();
    transmit.publish();
    for id in 0..TRANSMIT {
        transmit.give(id, 0);
    }
    transmit.publish();
    drain(nic);
    // Too short for a frame: it goes straight back.
    for id in 0..RECEIVE {
        receive.give(id, HEADER);
    }
    receive.publish();
    drain(nic);
    let spare: Vec<Frame> = std::iter::from_fn(|| nic.allocate()).collect();
    assert_eq!(
        spare.len(),
        TRANSMIT as usize,
        "buffers are lost, or there are too many"
    );
    for frame in spare {
        nic.release(frame);
    }
    receive.skip();
    transmit.skip();
    // All that can be received is lent again.
    receive.next = receive
        .next
        .wrapping_sub(u16::try_from(RECEIVE).expect("small"));
}
