//! Page tables: identity mapped, writable or executable but never both, and only what is needed.
//!
//! The same promises as on `x86_64`: nothing is mapped that nobody asked for, and physical and
//! virtual addresses are the same, always. Four levels of 4 KiB tables for 48 bits of address
//! (Arm ARM, D8.2), lower half only.

use core::arch::asm;

use super::sysreg::mrs;
use crate::cell::TakeCell;
pub use crate::mapping::{Kind, MapError, PAGE};

/// Page-table pages that exist: enough for the image, every device of one PCI bus, and scattered
/// firmware tables.
const POOL: usize = 48;

/// The two kinds of memory that are used: device at index 0, normal at index 1. The entry code in
/// `boot` maps itself with the same value.
pub const MAIR: u64 = 0xff << 8 | 0x04;
/// Attribute index 1: normal memory, write-back, allocating.
const NORMAL: u64 = 1 << 2;
/// Attribute index 0: device memory, no gathering, no reordering, early acknowledgement.
const DEVICE: u64 = 0;
const VALID: u64 = 1;
/// At the last level, a page; above it, a table.
const TABLE_OR_PAGE: u64 = 1 << 1;
const READ_ONLY: u64 = 1 << 7;
const INNER_SHAREABLE: u64 = 3 << 8;
/// Access flag: hardware would fault on the first access without it.
const ACCESSED: u64 = 1 << 10;
/// Not executable at EL1.
const PRIVILEGED_NO_EXECUTE: u64 = 1 << 53;
/// Not executable at EL0, where nothing ever runs.
const USER_NO_EXECUTE: u64 = 1 << 54;
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

#[repr(C, align(4096))]
#[derive(Debug)]
struct Table([u64; 512]);

/// The one address space.
#[derive(Debug)]
pub struct Mmu {
    root: &'static mut Table,
    pool: &'static mut [Table],
    /// Highest physical address of this CPU, plus one.
    limit: u64,
}

impl Mmu {
    /// Takes the table memory. `None` the second time.
    pub fn take() -> Option<Self> {
        static TABLES: TakeCell<[Table; POOL]> = TakeCell::new([const { Table([0; 512]) }; POOL]);
        // PARange; sizes above 48 bits need other tables, and nothing lies there.
        let bits = match mrs!("id_aa64mmfr0_el1") & 0xf {
            0 => 32,
            1 => 36,
            2 => 40,
            3 => 42,
            4 => 44,
            _ => 48,
        };
        let (root, pool) = TABLES.take()?.split_first_mut()?;
        Some(Self {
            root,
            pool,
            limit: 1 << bits,
        })
    }

    /// Maps the pages that `[start, start + length)` touches, each to itself.
    ///
    /// Mapping a page again as the same kind is fine.
    ///
    /// # Errors
    /// The range is not mappable, overlaps something of another kind, or the table memory is used
    /// up.
    pub fn map(&mut self, start: u64, length: u64, kind: Kind) -> Result<(), MapError> {
        let bad = MapError::Range { start, length };
        let end = start
            .checked_add(length)
            .filter(|&end| length > 0 && end <= self.limit)
            .ok_or(bad)?;
        let mut page = start & !(PAGE - 1);
        while page < end {
            self.map_page(page, kind)?;
            page += PAGE;
        }
        // What was not valid is never in the TLB, so there is nothing to flush, but the new entries
        // must be seen by the table walker before the first access (Arm ARM, D8.17).
        // SAFETY: barriers only.
        unsafe { asm!("dsb ishst", "isb", options(nostack, preserves_flags)) };
        Ok(())
    }

    /// What `address` is mapped as by the tables in force; `None` for nothing, or for what no kind is mapped like.
    #[must_use]
    pub fn kind(&self, address: u64) -> Option<Kind> {
        if mrs!("ttbr0_el1") & ADDRESS != self::address(self.root) {
            return None;
        }
        self.look_up(address)
    }

    /// The same by these tables.
    fn look_up(&self, address: u64) -> Option<Kind> {
        if address >= self.limit {
            return None;
        }
        let mut table: &Table = self.root;
        for level in [3, 2, 1] {
            let entry = table.0[index(address, level)];
            if entry == 0 {
                return None;
            }
            // SAFETY: a table of ours; nobody changes it while `self` is borrowed.
            table = unsafe { &*next_table(entry) };
        }
        let entry = table.0[index(address, 0)];
        let page = address & !(PAGE - 1);
        Kind::ALL
            .into_iter()
            .find(|&kind| entry == page | leaf_flags(kind))
    }

    /// Makes these tables the ones in force.
    ///
    /// # Safety
    /// Everything the CPU touches from here on must be mapped: the running code, its stack, its
    /// data.
    pub unsafe fn activate(&self) {
        // The entry code's tables belong to address space 0 and are not global, so the new ones are
        // address space 1: the same page as block and as page is never in the TLB twice.
        const SPACE: u64 = 1 << 48;
        /// `SCTLR_EL1.WXN`: whatever is writable is not executable.
        const WRITE_NO_EXECUTE: u64 = 1 << 19;
        let control = mrs!("sctlr_el1") | WRITE_NO_EXECUTE;
        let root = address(self.root) | SPACE;
        // SAFETY: the caller promises that the tables map what runs; the tables are static and well
        // formed by `map_page`; memory attributes and sizes are those that the entry code has set.
        unsafe {
            asm!(
                "dsb ishst",
                "msr ttbr0_el1, {root}",
                "isb",
                "msr sctlr_el1, {control}",
                "isb",
                "tlbi vmalle1",
                "dsb nsh",
                "isb",
                root = in(reg) root,
                control = in(reg) control,
                options(nostack, preserves_flags),
            );
        }
    }

    fn map_page(&mut self, page: u64, kind: Kind) -> Result<(), MapError> {
        let mut table: &mut Table = self.root;
        for level in [3, 2, 1] {
            let entry = &mut table.0[index(page, level)];
            if *entry == 0 {
                let pool = core::mem::take(&mut self.pool);
                let (next, rest) = pool.split_first_mut().ok_or(MapError::OutOfTables)?;
                self.pool = rest;
                // Table entries permit all; the leaf decides.
                *entry = expose(next) | TABLE_OR_PAGE | VALID;
            }
            // SAFETY: a table of ours, to which nothing else leads; `&mut self` keeps the walk exclusive.
            table = unsafe { &mut *next_table(*entry) };
        }
        let entry = &mut table.0[index(page, 0)];
        let wanted = page | leaf_flags(kind);
        match *entry {
            0 => *entry = wanted,
            // Hardware updates of the access and dirty states are not turned on.
            same if same == wanted => {}
            _ => return Err(MapError::Conflict { page }),
        }
        Ok(())
    }
}

fn leaf_flags(kind: Kind) -> u64 {
    let page = VALID | TABLE_OR_PAGE | ACCESSED | USER_NO_EXECUTE;
    let memory = page | NORMAL | INNER_SHAREABLE;
    match kind {
        Kind::Text => memory | READ_ONLY,
        Kind::ReadOnly => memory | READ_ONLY | PRIVILEGED_NO_EXECUTE,
        Kind::Data => memory | PRIVILEGED_NO_EXECUTE,
        Kind::Device => page | DEVICE | PRIVILEGED_NO_EXECUTE,
    }
}

/// The index into the table of `level` (0 is the lowest) for `page`: always below 512.
fn index(page: u64, level: u32) -> usize {
    usize::try_from(page >> (12 + 9 * level) & 0x1ff).unwrap_or(0)
}

/// The table that an intermediate entry leads to. These are written only by `map_page`, with the address of a page of
/// the pool that was split off for the entry alone, identity mapped.
fn next_table(entry: u64) -> *mut Table {
    let address = usize::try_from(entry & ADDRESS).unwrap_or(0);
    core::ptr::with_exposed_provenance_mut(address)
}

/// The address of a table that is reached through it from here on.
fn expose(table: &mut Table) -> u64 {
    core::ptr::from_mut(table).expose_provenance() as u64
}

fn address(table: &Table) -> u64 {
    core::ptr::from_ref(table) as u64
}

/// Run by Miri only, which needs no machine of this kind.
#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn what_is_mapped_is_found_again_and_nothing_else() {
        let tables: Vec<_> = (0..POOL).map(|_| Table([0; 512])).collect();
        let (root, pool) = tables.leak().split_first_mut().expect("a few");
        let limit = 1 << 40;
        let mut mmu = Mmu { root, pool, limit };
        let pages = [
            (0x4008_0000, Kind::Text),
            (0x4008_1000, Kind::ReadOnly),
            (0x4020_0000, Kind::Data),
            (limit - PAGE, Kind::Device),
        ];
        for (page, kind) in pages {
            assert_eq!(mmu.map_page(page, kind), Ok(()));
            assert_eq!(mmu.map_page(page, kind), Ok(()), "again");
        }
        for (page, kind) in pages {
            assert_eq!(mmu.look_up(page + PAGE - 1), Some(kind), "{page:#x}");
        }
        for address in [0, 0x4008_2000, 0x4020_1000, limit, u64::MAX] {
            assert_eq!(mmu.look_up(address), None, "{address:#x}");
        }
        let page = 0x4008_0000;
        let refused = mmu.map_page(page, Kind::Data);
        assert_eq!(refused, Err(MapError::Conflict { page }));
        let last = (2..64).find(|gib| mmu.map_page(gib << 30, Kind::Data).is_err());
        assert!(last.is_some_and(|gib| gib < POOL as u64), "tables end");
    }
}
