//! Page tables: identity mapped, writable or executable but never both, and only what is needed.
//!
//! Nothing is mapped that nobody asked for: the image (text read-execute, constants read-only, data
//! read-write and not executable, the stack's guard page and page zero not at all), then each
//! device and firmware table as boot learns of it. Physical and virtual addresses are the same,
//! always.

use x86_64::PhysAddr;
use x86_64::registers::control::{Cr3, Cr3Flags, Cr4, Cr4Flags};
use x86_64::structures::paging::PhysFrame;
use x86_64::structures::paging::page_table::{PageTable, PageTableEntry, PageTableFlags};

use crate::cell::TakeCell;
pub use crate::mapping::{Kind, MapError, PAGE};

/// Page-table pages that exist: enough for the image, every device of one PCI bus, and scattered
/// firmware tables.
const POOL: usize = 48;
/// Highest address plus one that four levels of tables map in the lower half.
const LIMIT: u64 = 1 << 47;

/// The one address space.
#[derive(Debug)]
pub struct Mmu {
    root: &'static mut PageTable,
    pool: &'static mut [PageTable],
}

impl Mmu {
    /// Takes the table memory. `None` the second time.
    pub fn take() -> Option<Self> {
        static TABLES: TakeCell<[PageTable; POOL]> =
            TakeCell::new([const { PageTable::new() }; POOL]);
        let (root, pool) = TABLES.take()?.split_first_mut()?;
        Some(Self { root, pool })
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
            .filter(|&end| length > 0 && end <= LIMIT)
            .ok_or(bad)?;
        let mut page = start & !(PAGE - 1);
        while page < end {
            self.map_page(page, kind)?;
            page += PAGE;
        }
        Ok(())
    }

    /// What `address` is mapped as by the tables in force; `None` for nothing, or for what no kind is mapped like.
    #[must_use]
    pub fn kind(&self, address: u64) -> Option<Kind> {
        let (root, _) = Cr3::read_raw();
        if root.start_address().as_u64() != self::address(self.root) {
            return None;
        }
        self.look_up(address)
    }

    /// The same by these tables.
    fn look_up(&self, address: u64) -> Option<Kind> {
        if address >= LIMIT {
            return None;
        }
        let mut table: &PageTable = self.root;
        for level in [3, 2, 1] {
            let entry = &table[index(address, level)];
            if entry.is_unused() {
                return None;
            }
            // SAFETY: a table of ours; nobody changes it while `self` is borrowed.
            table = unsafe { &*next_table(entry) };
        }
        let entry = &table[index(address, 0)];
        let own = entry.flags() - (PageTableFlags::ACCESSED | PageTableFlags::DIRTY);
        let is_identity = entry.addr().as_u64() == address & !(PAGE - 1);
        Kind::ALL
            .into_iter()
            .find(|&kind| is_identity && own == leaf_flags(kind))
    }

    /// Makes these tables the ones in force.
    ///
    /// # Safety
    /// Everything the CPU touches from here on must be mapped: the running code, its stack, its
    /// data.
    pub unsafe fn activate(&self) {
        let frame = PhysFrame::containing_address(PhysAddr::new(address(self.root)));
        // SAFETY: the caller promises that the tables map what runs; the tables are static and well
        // formed by `map_page`.
        unsafe { Cr3::write(frame, Cr3Flags::empty()) };
        // Global pages would survive a CR3 write; we use none, and leave the bit clear.
        // SAFETY: clearing PGE only flushes more.
        unsafe { Cr4::update(|flags| flags.remove(Cr4Flags::PAGE_GLOBAL)) };
    }

    fn map_page(&mut self, page: u64, kind: Kind) -> Result<(), MapError> {
        let mut table: &mut PageTable = self.root;
        for level in [3, 2, 1] {
            let entry = &mut table[index(page, level)];
            if entry.is_unused() {
                let pool = core::mem::take(&mut self.pool);
                let (next, rest) = pool.split_first_mut().ok_or(MapError::OutOfTables)?;
                self.pool = rest;
                // Intermediate entries permit all; the leaf decides.
                entry.set_addr(
                    PhysAddr::new(expose(next)),
                    PageTableFlags::PRESENT | PageTableFlags::WRITABLE,
                );
            }
            // SAFETY: a table of ours, to which nothing else leads; `&mut self` keeps the walk exclusive.
            table = unsafe { &mut *next_table(entry) };
        }
        let entry = &mut table[index(page, 0)];
        let flags = leaf_flags(kind);
        if entry.is_unused() {
            entry.set_addr(PhysAddr::new(page), flags);
            // A page that was not present is never cached in the TLB, so there is nothing to flush.
            return Ok(());
        }
        // The CPU sets ACCESSED and DIRTY behind our back: they do not make a page something else.
        let own = entry.flags() - (PageTableFlags::ACCESSED | PageTableFlags::DIRTY);
        if own == flags {
            Ok(())
        } else {
            Err(MapError::Conflict { page })
        }
    }
}

fn leaf_flags(kind: Kind) -> PageTableFlags {
    let present = PageTableFlags::PRESENT;
    match kind {
        Kind::Text => present,
        Kind::ReadOnly => present | PageTableFlags::NO_EXECUTE,
        Kind::Data => present | PageTableFlags::NO_EXECUTE | PageTableFlags::WRITABLE,
        Kind::Device => {
            present
                | PageTableFlags::NO_EXECUTE
                | PageTableFlags::WRITABLE
                | PageTableFlags::NO_CACHE
                | PageTableFlags::WRITE_THROUGH
        }
    }
}

/// The index into the table of `level` (0 is the lowest) for `page`: always below 512.
fn index(page: u64, level: u32) -> usize {
    usize::try_from(page >> (12 + 9 * level) & 0x1ff).unwrap_or(0)
}

/// The table that an intermediate entry leads to. These are written only by `map_page`, with the address of a page of
/// the pool that was split off for the entry alone, identity mapped.
fn next_table(entry: &PageTableEntry) -> *mut PageTable {
    let address = usize::try_from(entry.addr().as_u64()).unwrap_or(0);
    core::ptr::with_exposed_provenance_mut(address)
}

/// The address of a table that is reached through it from here on.
fn expose(table: &mut PageTable) -> u64 {
    core::ptr::from_mut(table).expose_provenance() as u64
}

fn address(table: &PageTable) -> u64 {
    core::ptr::from_ref(table) as u64
}

#[cfg(test)]
impl Mmu {
    /// Tables of its own, for a test.
    pub(crate) fn for_test() -> Self {
        extern crate std;
        use std::vec::Vec;

        let tables: Vec<_> = (0..POOL).map(|_| PageTable::new()).collect();
        let (root, pool) = tables.leak().split_first_mut().expect("a few");
        Self { root, pool }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mapped_is_found_again_and_nothing_else() {
        let mut mmu = Mmu::for_test();
        let parts = [
            (0x10_0000, 0x3000, Kind::Text),
            (0x10_3000, 0x1001, Kind::ReadOnly),
            (0x20_0000, 0x1000, Kind::Data),
            (0xfeff_b000, 0x1000, Kind::Device),
            (LIMIT - PAGE, PAGE, Kind::Device),
        ];
        for (start, length, kind) in parts {
            assert_eq!(mmu.map(start, length, kind), Ok(()));
            assert_eq!(mmu.map(start, length, kind), Ok(()), "again");
        }
        for (start, length, kind) in parts {
            for address in [start, start + length - 1] {
                assert_eq!(mmu.look_up(address), Some(kind), "{address:#x}");
            }
        }
        for address in [
            0,
            0xf_ffff,
            0x10_5000,
            0x20_1000,
            0xfeff_c000,
            LIMIT,
            u64::MAX,
        ] {
            assert_eq!(mmu.look_up(address), None, "{address:#x}");
        }
        assert_eq!(
            mmu.map(0x10_4000, 0x1000, Kind::Data),
            Err(MapError::Conflict { page: 0x10_4000 })
        );
        assert_eq!(mmu.look_up(0x10_4000), Some(Kind::ReadOnly));
    }

    #[test]
    fn what_cannot_be_mapped_is_refused_and_tables_end() {
        let mut mmu = Mmu::for_test();
        for (start, length) in [
            (0x1000, 0),
            (LIMIT - PAGE, PAGE + 1),
            (u64::MAX, 2),
            (LIMIT, 1),
        ] {
            let bad = MapError::Range { start, length };
            assert_eq!(mmu.map(start, length, Kind::Data), Err(bad));
        }
        // Each in a GiB of its own, with two tables of its own.
        let last = (0..64).find(|gib| mmu.map(gib << 30, 1, Kind::Data).is_err());
        assert_eq!(last, Some((POOL as u64 - 2) / 2));
        assert_eq!(mmu.map(64 << 30, 1, Kind::Data), Err(MapError::OutOfTables));
        assert_eq!(mmu.look_up(0), Some(Kind::Data));
    }
}
