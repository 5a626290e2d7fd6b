//! Firmware's tables in physical memory: mapped read-only, page by page, as discovery asks for
//! them.

use core::cell::RefCell;

use gnomon_arch::machine::mmu::{Kind, Mmu};
use gnomon_kernel::discover::acpi::{Bad, Tables};
use gnomon_kernel::handover::BootInfo;
use gnomon_kernel::handover::pvh::StartInfo;
use gnomon_kernel::memory::PhysicalMemory;

use super::pvh::Handover;

/// Where a PC's BIOS keeps read-only data, listed in the memory map or not (ACPI 6.5 §5.2.5.1).
const BIOS: core::ops::Range<u64> = 0xe_0000..0x10_0000;
/// The first page is never mapped, so that a null pointer always faults.
const FIRST_MAPPED: u64 = 4096;
/// The longest single table.
const LENGTH_MAX: usize = 1 << 20;

/// What the loader left: its words, and memory with tables in it.
pub(crate) struct Firmware<'a> {
    pub(super) mmu: &'a RefCell<Mmu>,
    pub(super) boot: BootInfo,
    rsdp: Option<u64>,
}

impl<'a> Firmware<'a> {
    /// Keeps what the start info said.
    pub(crate) fn new(Handover(info): Handover, mmu: &'a RefCell<Mmu>) -> Self {
        let StartInfo { boot, rsdp } = info;
        Self { mmu, boot, rsdp }
    }

    /// The command line.
    pub(crate) fn command_line(&self) -> &str {
        self.boot.command_line()
    }

    /// ACPI's tables, from the root pointer that the loader gave; without one that leads anywhere, by
    /// searching for it.
    pub(super) fn tables(&self) -> Result<Tables<'_>, Bad> {
        match self.rsdp.map(|rsdp| Tables::at(self, rsdp)) {
            Some(Err(why)) => Tables::search(self).map_err(|_| why),
            Some(tables) => tables,
            None => Tables::search(self),
        }
    }

    /// Whether the loader listed every byte as memory of some kind: device registers are not
    /// memory.
    fn is_memory(&self, start: u64, end: u64) -> bool {
        let inside = |from: u64, to: u64| from <= start && end <= to;
        inside(BIOS.start, BIOS.end)
            || self
                .boot
                .memory()
                .iter()
                .any(|range| inside(range.start, range.start.saturating_add(range.length)))
    }
}

impl PhysicalMemory for Firmware<'_> {
    fn bytes(&self, address: u64, length: usize) -> Option<&[u8]> {
        let end = address.checked_add(u64::try_from(length).ok()?)?;
        if length == 0
            || length > LENGTH_MAX
            || address < FIRST_MAPPED
            || !self.is_memory(address, end)
        {
            return None;
        }
        // Refused where the range touches the image or a device: those are mapped as something
        // else.
        self.mmu
            .borrow_mut()
            .map(address, length as u64, Kind::ReadOnly)
            .ok()?;
        // SAFETY: the bytes are mapped, and read-only; they are none of our own memory, so no
        // reference of ours can write them; firmware has finished and nothing else runs on
        // this machine before the service starts.
        Some(unsafe { core::slice::from_raw_parts(address as *const u8, length) })
    }
}
