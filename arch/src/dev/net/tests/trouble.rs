//! A device in trouble is begun anew with, and no buffer is lost.

use super::*;
use crate::dev::virtio::mmio;

const STATUS: usize = 0x070;
const QUEUE_SIZE_MAX: usize = 0x034;
const RUNNING: u32 = 15;

/// Registers of a network device that are plain memory: what is written is read again.
fn registers() -> Registers {
    let block = Box::leak(Box::new([0_u64; 0x200 / 8]));
    // SAFETY: memory of our own, aligned, and never given back.
    let registers = unsafe { Registers::new(block.as_mut_ptr().cast(), 0x200) };
    for (offset, value) in [
        (0x000, u32::from_le_bytes(*b"virt")),
        (0x004, 2),
        (0x008, mmio::NETWORK),
        // For either half: the upper one offers VERSION_1.
        (0x010, 1),
        (QUEUE_SIZE_MAX, 256),
    ] {
        registers.write32(offset, value);
    }
    registers
}

#[test]
fn a_device_in_trouble_is_begun_anew_with() {
    let registers = registers();
    let transport = MmioTransport::new(registers, true).unwrap();
    let mut nic = Nic::with(transport, || Some(memory())).unwrap();
    let lent = |nic: &Nic<_>| RECEIVE - nic.receive.room();
    assert_eq!(lent(&nic), RECEIVE);
    assert_eq!(nic.tend(), Health::default());

    for (resets, status, trouble) in [
        (1, RUNNING | 64, Trouble::NeedsReset),
        (2, 0, Trouble::Stopped),
        (3, RUNNING & !4, Trouble::Stopped),
    ] {
        let mut frame = nic.allocate().unwrap();
        frame.set_length(60);
        nic.send(frame);
        registers.write32(STATUS, status);
        let health = nic.tend();
        let trouble = Some(trouble);
        let dead = None;
        assert_eq!(
            health,
            Health {
                resets,
                trouble,
                dead
            }
        );
        assert_eq!(registers.read32(STATUS), RUNNING);
        assert_eq!((lent(&nic), nic.transmit.room()), (RECEIVE, TRANSMIT));
        assert_eq!(nic.spare_count, TRANSMIT, "no buffer is lost");
        assert_eq!(nic.tend(), health, "once");
    }

    // The rings say that half of all indices are used, and nothing was ever lent under the numbers in them.
    let [_, _, received] = nic.receive.memory().addresses();
    let [_, _, sent] = nic.transmit.memory().addresses();
    for (used, length) in [(received, RECEIVE), (sent, TRANSMIT)] {
        let used = used as *mut u16;
        for place in 0..length * 4 {
            // SAFETY: the used ring has so many halfwords behind its flags and its index; nobody else is here.
            unsafe { used.wrapping_add(2 + place).write(u16::MAX) };
        }
        // SAFETY: as above.
        unsafe { used.wrapping_add(1).write(0x8000) };
    }
    assert!(nic.receive().is_none());
    assert_eq!(
        nic.counters().lies,
        RECEIVE as u64,
        "a round of it is enough"
    );
    nic.kick();
    assert_eq!(nic.counters().lies, (RECEIVE + TRANSMIT) as u64);
    assert_eq!(nic.tend().trouble, Some(Trouble::Lies));
    assert!(!nic.has_received());

    // Nothing leaves the transmit ring.
    while nic.transmit.room() > 0 {
        let frame = nic.allocate().unwrap();
        nic.send(frame);
    }
    assert!(!nic.wakes() && nic.prepare_sleep(false));
    for _ in 0..PATIENCE {
        assert_eq!(nic.tend().resets, 4);
    }
    assert_eq!(nic.tend().trouble, Some(Trouble::Stuck));
    assert!(nic.wakes());

    // It comes back as something that cannot be used, for a while.
    registers.write32(STATUS, u32::MAX);
    registers.write32(QUEUE_SIZE_MAX, 8);
    for _ in 0..3 {
        let health = nic.tend();
        assert_eq!(
            (health.resets, health.trouble),
            (6, Some(Trouble::NeedsReset))
        );
        assert!(
            matches!(health.dead, Some(Error::Queue { .. })),
            "{health:?}"
        );
        assert!(nic.receive().is_none());
        let frame = nic.allocate().unwrap();
        nic.send(frame);
        nic.kick();
    }
    registers.write32(QUEUE_SIZE_MAX, 256);
    assert_eq!(nic.tend().dead, None);
    assert_eq!((lent(&nic), nic.transmit.room()), (RECEIVE, TRANSMIT));
    assert_eq!(nic.spare_count, TRANSMIT, "no buffer is lost");
}
