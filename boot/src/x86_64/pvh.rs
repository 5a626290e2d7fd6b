//! PVH: from the loader's `hvm_start_info` to plain [`BootInfo`].
//!
//! Layout and meaning are those of Xen's "x86 HVM direct boot ABI" (`start_info.h`), version 1.
//! QEMU's `-kernel` and Firecracker both enter here. The structures are read once, field by field,
//! and copied: the loader's memory is ordinary RAM that nobody promises to keep.

use core::arch::global_asm;
use core::cell::RefCell;

use gnomon_arch::machine::mmu::{Kind, Mmu};
use gnomon_kernel::memory::{MemoryKind, MemoryRange};

use crate::info::{BootInfo, COMMAND_LINE_MAX};

global_asm!(include_str!("pvh.s"), entry = sym pvh_start, start = sym crate::start);

unsafe extern "C" {
    /// The 32-bit entry in `pvh.s`. Never called from Rust.
    fn pvh_start();
}

const MAGIC: u32 = 0x336e_c578;
/// Memory map entries that are looked at.
const ENTRIES_MAX: u32 = 128;

/// Reads the start info at physical address `base`; an unusable one leaves everything empty.
///
/// With the physical address of the ACPI root pointer, where the loader knows it.
pub(crate) fn read(base: u64, mmu: &RefCell<Mmu>) -> (BootInfo, Option<u64>) {
    let mut info = BootInfo::new();
    let read8 = |address| bytes(mmu, address).map(|[byte]| byte);
    let read32 = |address| bytes(mmu, address).map(u32::from_le_bytes);
    let read64 = |address| bytes(mmu, address).map(u64::from_le_bytes);
    if read32(base) != Some(MAGIC) {
        return (info, None);
    }
    let version = read32(base + 4).unwrap_or(0);
    let rsdp = read64(base + 32).filter(|&rsdp| rsdp != 0);
    if let Some(command_line) = read64(base + 24).filter(|&address| address != 0) {
        info.set_command_line((command_line..).take(COMMAND_LINE_MAX + 1).map_while(read8));
    }
    // The memory map came with version 1.
    if version >= 1 {
        let table = read64(base + 40).unwrap_or(0);
        let count = read32(base + 48).unwrap_or(0).min(ENTRIES_MAX);
        for entry in (0..u64::from(count)).map(|index| table.saturating_add(index * 24)) {
            let (Some(start), Some(length), Some(kind)) =
                (read64(entry), read64(entry + 8), read32(entry + 16))
            else {
                break;
            };
            info.add_range(MemoryRange {
                start,
                length,
                kind: MemoryKind::from_e820(kind),
            });
        }
    }
    (info, rsdp)
}

fn bytes<const N: usize>(mmu: &RefCell<Mmu>, address: u64) -> Option<[u8; N]> {
    if address == 0 {
        return None;
    }
    // Refused where the bytes touch the image: it is mapped as something else.
    mmu.borrow_mut()
        .map(address, N as u64, Kind::ReadOnly)
        .ok()?;
    // SAFETY: the bytes are mapped; they have no alignment and every value is valid; nothing of ours
    // is written through another reference while the loader's memory is read (we hold none into it).
    Some(unsafe { (address as *const [u8; N]).read_volatile() })
}
