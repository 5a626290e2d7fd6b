//! ACPI: the whole discovery, on a PC's way and on an Arm machine's, over a hostile physical memory.

use std::cell::Cell;

use gnomon_kernel::discover::acpi::{TABLES, Tables};
use gnomon_kernel::discover::aml::Namespace;
use gnomon_kernel::discover::described::{Description, Pc};
use gnomon_kernel::discover::notification::{Event, Wire};
use gnomon_kernel::discover::vmclock;
use gnomon_kernel::memory::PhysicalMemory;

use crate::aml::{MAP, check};
use crate::input::Input;

/// Memory as a few ranges with bytes in them; everything else refuses to be read.
pub struct Machine {
    ranges: Vec<(u64, Vec<u8>)>,
    reads: Cell<u64>,
}

impl PhysicalMemory for Machine {
    fn bytes(&self, address: u64, length: usize) -> Option<&[u8]> {
        self.reads.set(self.reads.get() + 1);
        self.ranges.iter().find_map(|(start, bytes)| {
            let offset = usize::try_from(address.checked_sub(*start)?).ok()?;
            bytes.get(offset..offset.checked_add(length)?)
        })
    }
}

impl Machine {
    /// A machine with these ranges.
    #[must_use]
    pub fn new(ranges: Vec<(u64, Vec<u8>)>) -> Self {
        Self {
            ranges,
            reads: Cell::new(0),
        }
    }
}

/// Makes the checksums of a table, or an RSDP, right: the fuzzer would not find out how.
fn correct(bytes: &mut [u8]) {
    if bytes.starts_with(b"RSD PTR ") {
        fix(bytes, 20, 8);
        fix(bytes, 36, 32);
    } else if let Some(field) = bytes.get(4..8) {
        let length = u32::from_le_bytes([field[0], field[1], field[2], field[3]]);
        fix(bytes, usize::try_from(length).unwrap_or(0), 9);
    }
}

/// Makes the first `length` bytes add up to zero by the one at `place`.
fn fix(bytes: &mut [u8], length: usize, place: usize) {
    if let Some(bytes) = bytes.get_mut(..length).filter(|bytes| place < bytes.len()) {
        bytes[place] = 0;
        bytes[place] = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
    }
}

/// Input: whether checksums are corrected, and ranges of memory, each an address of 32 bits and a block.
///
/// # Panics
/// Discovery does what it must not.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let is_corrected = input.u8() & 1 != 0;
    let mut ranges = Vec::new();
    while !input.is_empty() && ranges.len() < 64 {
        let address = u64::from(input.u32());
        let mut bytes = input.block().to_vec();
        if is_corrected {
            correct(&mut bytes);
        }
        ranges.push((address, bytes));
    }
    let first = ranges.first().map_or(0, |(address, _)| *address);
    let machine = Machine::new(ranges);
    if let Ok(tables) = Tables::at(&machine, first) {
        exercise(&tables);
    }
    // The search takes long, and can find something there only.
    if machine.ranges.iter().any(|(start, _)| *start < 1 << 20) {
        let tables = Tables::search(&machine);
        check(&vmclock(None, tables.as_ref().map_err(|bad| *bad), &MAP));
        if let Ok(tables) = &tables {
            exercise(tables);
        }
    }
    // The search for the RSDP is 8 Ki steps; the rest is so many walks over at most so many tables.
    let most = 40_000 + 400 * TABLES as u64;
    assert!(machine.reads.get() <= most, "{}", machine.reads.get());
}

/// Asks everything that start-up and the console ask, on either architecture.
///
/// # Panics
/// An answer must not be.
pub fn exercise(tables: &Tables<'_>) {
    let _ = tables.fadt().map(|fadt| {
        (
            (fadt.pm_timer(), fadt.pm_timer_is_32_bits(), fadt.reset()),
            (
                fadt.pm1a_control(),
                fadt.pm1b_control(),
                fadt.sleep_control(),
            ),
            (fadt.is_hardware_reduced(), fadt.psci()),
            (fadt.may_have_cmos(), fadt.century()),
        )
    });
    for ecam in tables.ecam() {
        let (start, length) = ecam.window();
        assert!(start.checked_add(length).is_some());
    }
    assert!(tables.iter().count() <= TABLES);
    for table in tables.iter().flatten() {
        let sum = table
            .bytes
            .iter()
            .fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        assert_eq!(sum, 0, "a table that is believed adds up");
    }
    let blocks = tables.definition_blocks();
    let namespace = Namespace::new(blocks.aml());
    let _ = namespace.soft_off();
    let _ = Pc::new(tables);
    for number in [0, 2, 0x1f, u8::MAX] {
        if let Ok(wire) = Wire::of(Event::General(number), tables, &MAP) {
            let address = wire.io_apic.address;
            assert!(
                !MAP.iter()
                    .take(2)
                    .any(|ram| ram.overlaps(address.into(), 32))
            );
            assert!(wire.event.is_some_and(|event| event.enable > event.status));
        }
    }
    describe(&Description::Acpi(*tables));
}

/// Asks everything that an Arm machine asks of its description.
///
/// # Panics
/// An answer must not be.
pub fn describe(description: &Description<'_>) {
    let (console, second) = (description.console(), description.second_uart());
    if let (Some(console), Some(second)) = (console, second) {
        assert_ne!(console.window, second.window);
    }
    let _ = (description.psci(), description.interrupt_controller());
    let _ = description.virtual_timer();
    let mut devices = 0;
    description.virtio_mmio(&mut |_| devices += 1);
    assert!(devices < 100_000);
    if let Some(host) = description.pci_host() {
        assert!(host.last_bus >= host.first_bus);
    }
    for (device, pin) in [(0, 0), (1, 1), (31, 4)] {
        let _ = description.pci_interrupt(device, pin);
    }
}
