//! The transport over a function whose BAR is memory of the test's own.

extern crate std;
use core::cell::RefCell;
use std::boxed::Box;

use super::*;
use crate::dev::pci::{ConfigAccess, Message};

/// Bytes of memory behind the BAR: a page for each structure, the last one for the MSI-X table too.
const BAR: usize = 4 * 4096;

#[repr(C, align(32768))]
struct Memory([u64; BAR / 8]);

/// Configuration space of the one function, and the memory behind its first BAR.
struct Fake {
    words: RefCell<[u32; 64]>,
    memory: Registers,
}

impl ConfigAccess for Fake {
    fn read32(&self, _: Function, offset: u16) -> u32 {
        self.words.borrow()[usize::from(offset / 4)]
    }
    fn write32(&self, _: Function, offset: u16, value: u32) {
        let place = &mut self.words.borrow_mut()[usize::from(offset / 4)];
        // The status cannot be written; the BAR has 64 bits, and is 32 KiB long.
        *place = match offset {
            0x04 => *place & 0xffff_0000 | value & 0xffff,
            0x10 => value & !0x7fff | 4,
            _ => value,
        };
    }
}

/// A virtio capability: of which kind, and where its structure lies.
struct Capability {
    kind: u8,
    bar: u8,
    offset: u32,
    length: u32,
}

const fn at(kind: u8, offset: u32, length: u32) -> Capability {
    Capability {
        kind,
        bar: 0,
        offset,
        length,
    }
}

const GOOD: [Capability; 4] = [
    at(1, 0, 0x38),
    at(2, 0x1000, 0x1000),
    at(3, 0x2000, 1),
    at(4, 0x3000, 0x800),
];

impl Fake {
    fn new(capabilities: &[Capability]) -> Self {
        let block = Box::leak(Box::new(Memory([0; BAR / 8])));
        let base = block.0.as_mut_ptr().cast();
        let address = base as u64;
        let [low, high] =
            [0, 32].map(|shift| u32::try_from(address >> shift & 0xffff_ffff).expect("half"));
        let mut words = [0; 64];
        words[1] = 1 << 20;
        words[4] = low | 4;
        words[5] = high;
        words[13] = 0x40;
        let mut place = 0x40;
        for Capability {
            kind,
            bar,
            offset,
            length,
        } in capabilities
        {
            let next = place + 20;
            let head = &mut words[usize::from(place) / 4..][..5];
            head[0] = u32::from_le_bytes([CAPABILITY_VENDOR, next, 20, *kind]);
            head[1] = u32::from(*bar);
            (head[2], head[3]) = (*offset, *length);
            // How far the queues' notifications are apart.
            head[4] = 4;
            place = next;
        }
        // MSI-X.
        let last = &mut words[usize::from(place) / 4..][..3];
        last[0] = CAPABILITY_MSI_X.into();
        last[1] = 0x3800;
        Self {
            words: RefCell::new(words),
            // SAFETY: memory of the test's own, aligned, and never given back.
            memory: unsafe { Registers::new(base, BAR) },
        }
    }

    fn transport(&self, wake: Wake) -> Result<PciTransport, Error> {
        PciTransport::new(&Pci(self), Function(8), &mut Mmu::for_test(), wake, 6)
    }
}

const MESSAGE: Message = Message {
    address: 0xfee0_0000,
    data: 0x31,
};

#[test]
fn a_device_is_brought_up_and_its_bell_rung() {
    let fake = Fake::new(&GOOD);
    // What it offers (of either half), its largest queue, where queue 0 is rung.
    fake.memory.write32(0x04, 1);
    fake.memory.write16(0x18, 64);
    fake.memory.write16(0x1e, 3);
    fake.memory.write8(0x3000, 0x52);
    let mut transport = fake.transport(Wake::Message(MESSAGE)).expect("a device");
    assert!(transport.wakes());
    assert_eq!(transport.configuration().read8(0), 0x52);
    assert_eq!(transport.negotiate(1), Ok(VERSION_1 | 1));
    let ring = Box::leak(Box::new(RingMemory::<16>::new()));
    let bell = transport.queue(7, ring, true).expect("a queue");
    transport.start();
    assert_eq!(fake.memory.read8(0x14), 15, "the driver is ready");
    assert_eq!(fake.memory.read16(0x18), 16);
    let [descriptors, ..] = ring.addresses();
    let low = u32::try_from(descriptors & 0xffff_ffff).expect("half");
    assert_eq!(fake.memory.read32(0x20), low);
    bell.ring();
    assert_eq!(fake.memory.read16(0x1000 + 3 * 4), 7);
    let entry = [0, 4, 8, 12].map(|at| fake.memory.read32(0x3800 + at));
    assert_eq!(entry, [0xfee0_0000, 0, 0x31, 0]);
}

#[test]
fn an_interrupt_pin_is_lowered_by_a_read() {
    let fake = Fake::new(&GOOD);
    let transport = fake.transport(Wake::Pin).expect("a device");
    assert!(transport.wakes() && transport.line().is_some());
    transport.line().expect("a line").lower();
    assert!(!fake.transport(Wake::Never).expect("a device").wakes());
}

#[test]
fn structures_that_lie_are_refused() {
    let bad = [
        at(1, 0x8000 - 0x10, 0x38),
        at(1, 0, 0x37),
        at(1, 2, 0x38),
        at(1, u32::MAX - 3, 0x38),
        at(1, 0x1000, u32::MAX),
        Capability {
            bar: 5,
            ..at(1, 0, 0x38)
        },
        Capability {
            bar: 200,
            ..at(1, 0, 0x38)
        },
        at(200, 0, 0x38),
    ];
    for first in bad {
        let [_, notify, status, device] = GOOD;
        let fake = Fake::new(&[first, notify, status, device]);
        let error = fake.transport(Wake::Never).expect_err("a lie");
        assert_eq!(error, Error::Capability("common configuration"));
    }
}

#[test]
fn a_bell_outside_its_structure_is_refused() {
    let fake = Fake::new(&GOOD);
    fake.memory.write16(0x18, 64);
    fake.memory.write16(0x1e, 0x400);
    let mut transport = fake.transport(Wake::Never).expect("a device");
    let ring = Box::leak(Box::new(RingMemory::<16>::new()));
    let error = transport.queue(0, ring, false).expect_err("outside");
    assert_eq!(error, Error::Capability("notification"));
}
