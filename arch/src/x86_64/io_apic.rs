//! An I/O APIC (Intel 82093AA): its pins lead to vectors of the local APIC.

use super::mmu::{Kind, MapError, Mmu};
use crate::dev::registers::Registers;

/// Bytes from its first register to behind its last.
const LENGTH: usize = 0x20;
/// A pin that raises nothing.
const MASKED: u32 = 1 << 16;

/// A line into the interrupt controllers of a machine, as ACPI counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number.
    pub number: u32,
    /// An edge raises its interrupt; otherwise the level does.
    pub edge: bool,
    /// Whether that is the falling edge or the low level.
    pub low: bool,
}

/// Its registers: an index, and the register that it chooses.
#[derive(Debug)]
pub struct IoApic {
    registers: Registers,
    /// The number of its first line.
    first: u32,
    pins: u32,
}

impl IoApic {
    /// The one at `address`, whose first line has the number `first`; `None` when nothing like it answers there.
    ///
    /// # Errors
    /// Its registers cannot be mapped.
    ///
    /// # Safety
    /// The firmware must say that it is there, and nobody else may drive it.
    pub unsafe fn new(address: u64, first: u32, mmu: &mut Mmu) -> Result<Option<Self>, MapError> {
        const VERSION: u32 = 1;
        const MOST_PINS: u32 = 240;
        mmu.map(address, LENGTH as u64, Kind::Device)?;
        // SAFETY: the registers are mapped as device memory, and are what the caller says, whose only driver this is.
        let registers = unsafe { Registers::new(address as *mut u8, LENGTH) };
        let mut io_apic = Self {
            registers,
            first,
            pins: 0,
        };
        let version = io_apic.read(VERSION);
        io_apic.pins = (version >> 16 & 0xff) + 1;
        // Where there is nothing, all bits are the same.
        let is_one = !matches!(version, 0 | u32::MAX) && io_apic.pins <= MOST_PINS;
        Ok(Some(io_apic).filter(|_| is_one))
    }

    /// Has a line raise a vector of the processor with this APIC identifier. Returns whether it will.
    #[must_use]
    pub fn route(&self, line: Line, vector: u8, processor: u8) -> bool {
        const LOW: u32 = 1 << 13;
        const LEVEL: u32 = 1 << 15;
        let Some(entry) = self.entry(line.number) else {
            return false;
        };
        let polarity = if line.low { LOW } else { 0 };
        let trigger = if line.edge { 0 } else { LEVEL };
        let wanted = u32::from(vector) | polarity | trigger;
        // Not while only a half of it is right.
        self.write(entry, wanted | MASKED);
        self.write(entry + 1, u32::from(processor) << 24);
        self.write(entry, wanted);
        let is_routed = self.read(entry) & (0xff | LOW | LEVEL | MASKED) == wanted;
        if !is_routed {
            self.mask(line);
        }
        is_routed
    }

    /// Lets a line raise nothing.
    pub fn mask(&self, line: Line) {
        if let Some(entry) = self.entry(line.number) {
            self.write(entry, MASKED);
        }
    }

    /// The first of the two registers of a line.
    fn entry(&self, number: u32) -> Option<u32> {
        const ENTRIES: u32 = 0x10;
        let pin = number.checked_sub(self.first)?;
        (pin < self.pins).then_some(ENTRIES + 2 * pin)
    }

    fn read(&self, register: u32) -> u32 {
        self.registers.write32(INDEX, register);
        self.registers.read32(DATA)
    }

    fn write(&self, register: u32, value: u32) {
        self.registers.write32(INDEX, register);
        self.registers.write32(DATA, value);
    }
}

const INDEX: usize = 0;
const DATA: usize = 0x10;
