//! The driver over a device that is a thread of its own: first an honest one, then one that lies.

extern crate std;
use core::cell::RefCell;
use core::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::boxed::Box;
use std::rc::Rc;
use std::vec::Vec;
use std::{thread, vec};

use super::*;
use crate::dev::registers::Registers;
use crate::dev::virtio::mmio::MmioTransport;

mod drain;
mod trouble;

use drain::drain;

/// Rings and buffers of the test's own.
fn memory() -> Memory {
    let pool: Vec<Buffer> = (0..BUFFERS).map(|_| Buffer([0; BUFFER as usize])).collect();
    Memory {
        receive: Box::leak(Box::new(RingMemory::new())),
        transmit: Box::leak(Box::new(RingMemory::new())),
        pool: pool.leak(),
    }
}

/// The length of every frame.
const LENGTH: usize = 60;

/// A device of plain registers, which takes every feature and keeps where the queues are.
struct Plugged {
    registers: MmioTransport,
    queues: Rc<RefCell<Vec<Side>>>,
}

impl Plugged {
    fn new(queues: Rc<RefCell<Vec<Side>>>) -> Self {
        /// Bytes of registers.
        const BYTES: usize = 0x200;
        let block = Box::leak(Box::new([0_u64; BYTES / 8]));
        // SAFETY: memory of our own, aligned, and never given back.
        let registers = unsafe { Registers::new(block.as_mut_ptr().cast(), BYTES) };
        // Version, features (of either half), the largest queue.
        for (offset, value) in [(0x004, 2), (0x010, 1), (0x034, 256)] {
            registers.write32(offset, value);
        }
        Self {
            registers: MmioTransport::new(registers, true).expect("a device"),
            queues,
        }
    }
}

impl Transport for Plugged {
    fn negotiate(&mut self, wanted: u64) -> Result<u64, Error> {
        self.registers.negotiate(wanted)
    }
    fn queue<const N: usize>(
        &mut self,
        index: u16,
        memory: &RingMemory<N>,
        interrupts: bool,
    ) -> Result<Doorbell, Error> {
        let [descriptors, available, used] = memory.addresses();
        self.queues.borrow_mut().push(Side {
            descriptors,
            available,
            used,
            size: N as u64,
            next: 0,
            index: 0,
        });
        self.registers.queue(index, memory, interrupts)
    }
    fn start(&mut self) {
        self.registers.start();
    }
    fn configuration(&self) -> &Registers {
        self.registers.configuration()
    }
    fn wakes(&self) -> bool {
        self.registers.wakes()
    }
    fn line(&self) -> Option<RaisedLine> {
        self.registers.line()
    }
    fn status(&self) -> u8 {
        self.registers.status()
    }
    fn set_status(&self, status: u8) {
        self.registers.set_status(status);
    }
}

/// The device's side of a queue, by the addresses that it was told (virtio 1.3 §2.7).
struct Side {
    descriptors: u64,
    available: u64,
    used: u64,
    size: u64,
    /// What it takes next.
    next: u16,
    /// Where it gives next.
    index: u16,
}

/// A buffer that the device has taken.
struct Taken {
    id: u32,
    address: u64,
    length: u32,
}

macro_rules! shared {
    ($name:ident, $atomic:ident, $raw:ident) => {
        fn $name(address: u64) -> &'static $atomic {
            // SAFETY: the address is that of a field of a ring, which is a static, and an atomic of this size.
            unsafe { $atomic::from_ptr(address as *mut $raw) }
        }
    };
}

shared!(word16, AtomicU16, u16);
shared!(word32, AtomicU32, u32);
shared!(word64, AtomicU64, u64);

impl Side {
    fn take(&mut self) -> Option<Taken> {
        if u16::from_le(word16(self.available + 2).load(Ordering::Acquire)) == self.next {
            return None;
        }
        let place = self.available + 4 + 2 * (u64::from(self.next) % self.size);
        let id = u16::from_le(word16(place).load(Ordering::Relaxed));
        self.next = self.next.wrapping_add(1);
        let descriptor = self.descriptors + 16 * u64::from(id);
        Some(Taken {
            id: id.into(),
            address: u64::from_le(word64(descriptor).load(Ordering::Relaxed)),
            length: u32::from_le(word32(descriptor + 8).load(Ordering::Relaxed)),
        })
    }

    fn give(&mut self, id: u32, length: u32) {
        let place = self.used + 4 + 8 * (u64::from(self.index) % self.size);
        word32(place).store(id.to_le(), Ordering::Relaxed);
        word32(place + 4).store(length.to_le(), Ordering::Relaxed);
        self.run_ahead(1);
    }

    fn run_ahead(&mut self, steps: u16) {
        self.index = self.index.wrapping_add(steps);
        word16(self.used + 2).store(self.index.to_le(), Ordering::Release);
    }
}

impl Taken {
    fn write(&self, bytes: &[u8]) {
        assert!(bytes.len() <= self.length as usize);
        // SAFETY: the driver has lent the buffer, which is as long as it says, until it is given back.
        unsafe {
            core::ptr::copy_nonoverlapping(bytes.as_ptr(), self.address as *mut u8, bytes.len());
        }
    }

    fn read(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.length as usize];
        // SAFETY: as for `write`.
        unsafe {
            core::ptr::copy_nonoverlapping(
                self.address as *const u8,
                bytes.as_mut_ptr(),
                bytes.len(),
            );
        }
        bytes
    }
}

/// Both queues.
struct Device {
    receive: Side,
    transmit: Side,
}

impl Device {
    /// Sends frames, each of one byte over and over, and takes the answers: each must be some frame's, turned over.
    fn echo(&mut self, total: u32) {
        let (mut sent, mut answered) = (0, 0);
        while answered < total {
            if sent < total
                && let Some(buffer) = self.receive.take()
            {
                let mut bytes = [sent.to_le_bytes()[0]; HEADER + LENGTH];
                bytes[..HEADER].fill(0);
                buffer.write(&bytes);
                self.receive
                    .give(buffer.id, u32::try_from(bytes.len()).expect("short"));
                sent += 1;
            } else if let Some(buffer) = self.transmit.take() {
                let mut expected = [!answered.to_le_bytes()[0]; HEADER + LENGTH];
                expected[..HEADER].fill(0);
                assert_eq!(buffer.read(), expected, "answer {answered}");
                self.transmit.give(buffer.id, 0);
                answered += 1;
            } else {
                thread::yield_now();
            }
        }
    }

    /// Gives what it does not have, and says any length. It leaves the buffers alone: nothing helps against a host that
    /// writes into memory which it has given back.
    fn lie(&mut self, total: u32) {
        let mut state = 1_u32;
        let mut random = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 16
        };
        for _ in 0..total {
            let (id, length) = (random() % 150, random() % 2100);
            let side = if random() & 1 == 0 {
                &mut self.receive
            } else {
                &mut self.transmit
            };
            match random() % 8 {
                0 => side.give(u32::MAX - id, length),
                1 => side.run_ahead(u16::try_from(id).expect("small")),
                2 => thread::yield_now(),
                _ => side.give(id, length),
            }
        }
    }

    /// Gives everything back that it may have, too short for a frame.
    fn give_up(&mut self) {
        for side in [&mut self.receive, &mut self.transmit] {
            for id in 0..side.size {
                side.give(u32::try_from(id).expect("small"), 0);
            }
        }
    }

    /// Forgets what it was lent before the buffers that it is lent now, `lent` of them.
    fn begin_anew(&mut self, lent: u16) {
        let shown = |side: &Side| u16::from_le(word16(side.available + 2).load(Ordering::Acquire));
        self.receive.next = shown(&self.receive).wrapping_sub(lent);
        self.transmit.next = shown(&self.transmit);
    }
}

/// Turns `total` frames over and sends them back.
fn answer(nic: &mut Nic<Plugged>, total: u32) {
    let mut answered = 0;
    while answered < total {
        let Some(mut frame) = nic.receive() else {
            nic.kick();
            thread::yield_now();
            continue;
        };
        assert_eq!(frame.bytes().len(), LENGTH);
        let expected = answered.to_le_bytes()[0];
        for byte in frame.bytes_mut() {
            assert_eq!(*byte, expected, "frame {answered}");
            *byte = !*byte;
        }
        nic.send(frame);
        answered += 1;
        if answered % 7 == 0 {
            nic.kick();
        }
    }
    nic.kick();
}

/// What is neither lent to the device nor in the service's hands.
fn count_spare(nic: &mut Nic<Plugged>) -> usize {
    let spare: Vec<Frame> = core::iter::from_fn(|| nic.allocate()).collect();
    let count = spare.len();
    for frame in spare {
        nic.release(frame);
    }
    count
}

#[test]
fn a_thread_as_the_device_honest_and_lying() {
    let (frames, lies) = if cfg!(miri) {
        (150, 300)
    } else {
        (50_000, 200_000)
    };
    let queues = Rc::default();
    let mut nic = Nic::with(Plugged::new(Rc::clone(&queues)), || Some(memory())).expect("a device");
    let [receive, transmit] = queues.take().try_into().ok().expect("two queues");
    let mut device = Device { receive, transmit };
    assert_eq!(count_spare(&mut nic), TRANSMIT);

    device = thread::scope(|scope| {
        let worker = scope.spawn(move || {
            device.echo(frames);
            device
        });
        answer(&mut nic, frames);
        worker.join().expect("every answer is right")
    });
    assert_eq!(nic.counters().lies, 0);
    assert_eq!(nic.counters().received, u64::from(frames));

    let done = AtomicBool::new(false);
    device = thread::scope(|scope| {
        let worker = scope.spawn(|| {
            device.lie(lies);
            done.store(true, Ordering::Release);
            device
        });
        while !done.load(Ordering::Acquire) {
            match nic.receive() {
                Some(frame) if frame.bytes().len() % 3 == 0 => nic.release(frame),
                Some(frame) => nic.send(frame),
                None => thread::yield_now(),
            }
            nic.kick();
        }
        worker.join().expect("it only lies")
    });
    device.give_up();
    drain(&mut nic);
    device.give_up();
    drain(&mut nic);
    assert!(nic.counters().lies > 0);
    assert_eq!(
        count_spare(&mut nic),
        TRANSMIT,
        "no buffer is lost, and none is there twice"
    );

    // And it works as before.
    device.begin_anew(u16::try_from(RECEIVE).expect("small"));
    thread::scope(|scope| {
        scope.spawn(|| device.echo(frames));
        answer(&mut nic, frames);
    });
}
