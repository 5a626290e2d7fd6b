//! PVH: from the loader's `hvm_start_info` to plain [`BootInfo`].
//!
//! Layout and meaning are those of Xen's "x86 HVM direct boot ABI" (`start_info.h`), version 1.
//! QEMU's `-kernel` and Firecracker both enter here. The structures are read once, field by field,
//! and copied: the loader's memory is ordinary RAM that nobody promises to keep.

use super::{BootInfo, COMMAND_LINE_MAX};
use crate::memory::{MemoryKind, MemoryRange};

const MAGIC: u32 = 0x336e_c578;
/// Memory map entries that are looked at.
const ENTRIES_MAX: u32 = 128;
/// Bytes of a memory map entry.
const ENTRY: u64 = 24;

/// What the start info says.
#[derive(Debug)]
pub struct StartInfo {
    /// The memory map and the command line.
    pub boot: BootInfo,
    /// Physical address of the ACPI root pointer, where the loader knows it.
    pub rsdp: Option<u64>,
}

impl StartInfo {
    /// Reads the start info at physical address `base`. `byte` reads a byte of the loader's memory, and refuses
    /// what is not there. An unusable one leaves everything empty.
    pub fn read(base: u64, byte: impl Fn(u64) -> Option<u8>) -> Self {
        let memory = Memory(byte);
        let mut info = Self {
            boot: BootInfo::new(),
            rsdp: None,
        };
        if memory.read32(base, 0) != Some(MAGIC) {
            return info;
        }
        let is_there = |value: &u64| *value != 0;
        let version = memory.read32(base, 4).unwrap_or(0);
        info.rsdp = memory.read64(base, 32).filter(is_there);
        if let Some(text) = memory.read64(base, 24).filter(is_there) {
            // One byte more than there is room for.
            let bytes =
                (0..=COMMAND_LINE_MAX as u64).map_while(|offset| memory.read8(text, offset));
            info.boot.set_command_line(bytes);
        }
        // The memory map came with version 1.
        if version >= 1 {
            let table = memory.read64(base, 40).unwrap_or(0);
            let count = memory.read32(base, 48).unwrap_or(0).min(ENTRIES_MAX);
            (0..count)
                .map_while(|index| memory.range(table, u64::from(index) * ENTRY))
                .for_each(|range| info.boot.add_range(range));
        }
        info
    }
}

/// The loader's memory, by an address and an offset from there: together they may be beyond all addresses.
struct Memory<F>(F);

impl<F: Fn(u64) -> Option<u8>> Memory<F> {
    fn range(&self, table: u64, offset: u64) -> Option<MemoryRange> {
        Some(MemoryRange {
            start: self.read64(table, offset)?,
            length: self.read64(table, offset + 8)?,
            kind: MemoryKind::from_e820(self.read32(table, offset + 16)?),
        })
    }

    fn read8(&self, base: u64, offset: u64) -> Option<u8> {
        (self.0)(base.checked_add(offset)?)
    }

    fn read32(&self, base: u64, offset: u64) -> Option<u32> {
        self.bytes(base, offset).map(u32::from_le_bytes)
    }

    fn read64(&self, base: u64, offset: u64) -> Option<u64> {
        self.bytes(base, offset).map(u64::from_le_bytes)
    }

    fn bytes<const N: usize>(&self, base: u64, offset: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        for (at, byte) in (offset..).zip(&mut bytes) {
            *byte = self.read8(base, at)?;
        }
        Some(bytes)
    }
}
