//! Physical memory as the boot protocol describes it: what each range is for, and safe reads of the part that is mapped.
//!
//! Boot fills the map (`hvm_start_info`, device tree) and implements [`PhysicalMemory`] over the ranges its page tables
//! cover; everything here and above is safe code that never forms an address into a pointer.

use core::fmt;

/// Reads of guest-physical memory that can be refused.
///
/// Addresses and lengths handed to [`bytes`](PhysicalMemory::bytes) come from firmware tables, so an implementation must
/// answer `None` for every range that is not wholly inside memory which is mapped, is ordinary memory (never device
/// registers), and stays unchanged while the returned slice lives.
pub trait PhysicalMemory {
    /// The `length` bytes at guest-physical `address`, or `None` when any of them may not be read.
    fn bytes(&self, address: u64, length: usize) -> Option<&[u8]>;
}

/// One range of the memory map, in bytes of guest-physical address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRange {
    /// First address of the range.
    pub start: u64,
    /// Bytes in the range; the range is cut at 2^64 if it claims more.
    pub length: u64,
    /// What the range is for.
    pub kind: MemoryKind,
}

/// What a [`MemoryRange`] is for (the address range types of ACPI 6.5 §15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// RAM that is free for the guest to use (`AddressRangeMemory`, 1).
    Usable,
    /// Not to be used as RAM (`AddressRangeReserved`, 2).
    Reserved,
    /// RAM that holds ACPI tables and is free once they have been read (`AddressRangeACPI`, 3).
    Acpi,
    /// RAM that firmware keeps for itself (`AddressRangeNVS`, 4).
    AcpiNvs,
    /// RAM in which errors were found (`AddressRangeUnusable`, 5).
    Unusable,
    /// Any other type number.
    Other(u32),
}

impl MemoryRange {
    /// Whether any byte lies both here and in the `length` bytes at `start`. An empty range overlaps nothing.
    #[must_use]
    pub const fn overlaps(&self, start: u64, length: u64) -> bool {
        // Last addresses, because one past the end may not fit in 64 bits.
        let (Some(mine), Some(theirs)) = (self.length.checked_sub(1), length.checked_sub(1)) else {
            return false;
        };
        self.start <= start.saturating_add(theirs) && start <= self.start.saturating_add(mine)
    }
}

impl MemoryKind {
    /// The kind for an address range type of E820 and `hvm_start_info`.
    #[must_use]
    pub const fn from_e820(number: u32) -> Self {
        match number {
            1 => Self::Usable,
            2 => Self::Reserved,
            3 => Self::Acpi,
            4 => Self::AcpiNvs,
            5 => Self::Unusable,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for MemoryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usable => f.write_str("usable ram"),
            Self::Reserved => f.write_str("reserved"),
            Self::Acpi => f.write_str("acpi tables"),
            Self::AcpiNvs => f.write_str("acpi nvs"),
            Self::Unusable => f.write_str("unusable"),
            Self::Other(number) => write!(f, "type {number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_counts_shared_bytes_only() {
        let range = |start, length| MemoryRange {
            start,
            length,
            kind: MemoryKind::Usable,
        };
        assert!(range(0x1000, 0x1000).overlaps(0x1fff, 1));
        assert!(range(0x1000, 0x1000).overlaps(0, 0x1001));
        assert!(range(0x1000, 0x1000).overlaps(0, u64::MAX));
        assert!(!range(0x1000, 0x1000).overlaps(0x2000, 0x1000));
        assert!(!range(0x1000, 0x1000).overlaps(0, 0x1000));
        assert!(!range(0x1000, 0).overlaps(0x1000, 0x1000));
        assert!(!range(0x1000, 0x1000).overlaps(0x1000, 0));
    }

    #[test]
    fn overlap_is_defined_at_the_top_of_the_address_space() {
        let top = MemoryRange {
            start: u64::MAX - 0xfff,
            length: 0x1000,
            kind: MemoryKind::Usable,
        };
        assert!(top.overlaps(u64::MAX, 1));
        assert!(top.overlaps(u64::MAX, u64::MAX));
        let beyond = MemoryRange {
            start: u64::MAX,
            length: u64::MAX,
            kind: MemoryKind::Usable,
        };
        assert!(!beyond.overlaps(0, 0x1000));
    }
}
