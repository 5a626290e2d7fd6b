//! PVH: from the loader's `hvm_start_info` to plain [`BootInfo`].
//!
//! Layout and meaning are those of Xen's "x86 HVM direct boot ABI" (`start_info.h`), version 1.
//! QEMU's `-kernel` and Firecracker both enter here. The structures are read once, field by field,
//! and copied: the loader's memory is ordinary RAM that nobody promises to keep.

use core::arch::global_asm;

use gnomon_kernel::memory::{MemoryKind, MemoryRange};

use crate::info::{BootInfo, COMMAND_LINE_MAX};

global_asm!(include_str!("pvh.s"), entry = sym pvh_start, start = sym crate::start);

unsafe extern "C" {
    /// The 32-bit entry in `pvh.s`. Never called from Rust.
    fn pvh_start();
}

const MAGIC: u32 = 0x336e_c578;
/// What the entry code has mapped; nothing beyond is touched here.
const MAPPED: u64 = 1 << 30;
/// Memory map entries that are looked at.
const ENTRIES_MAX: u32 = 128;

/// What the start info says.
pub(crate) struct Handover {
    pub(super) boot: BootInfo,
    /// Physical address of the ACPI root pointer, where the loader knows it.
    pub(super) rsdp: Option<u64>,
}

impl Handover {
    /// Reads the start info at physical address `base`, in the entry code's map: QEMU puts it into page
    /// zero, which is never mapped again. An unusable one leaves everything empty.
    pub(crate) fn read(base: u64) -> Self {
        let (boot, rsdp) = read(base);
        Self { boot, rsdp }
    }
}

fn read(base: u64) -> (BootInfo, Option<u64>) {
    let mut info = BootInfo::new();
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

fn read8(address: u64) -> Option<u8> {
    bytes(address).map(|[byte]| byte)
}

fn read32(address: u64) -> Option<u32> {
    bytes(address).map(u32::from_le_bytes)
}

fn read64(address: u64) -> Option<u64> {
    bytes(address).map(u64::from_le_bytes)
}

fn bytes<const N: usize>(address: u64) -> Option<[u8; N]> {
    let end = address.checked_add(N as u64)?;
    if address == 0 || end > MAPPED {
        return None;
    }
    // SAFETY: the entry code maps the first GiB; bytes have no alignment and every value is valid;
    // nothing of ours is written through another reference while the loader's memory is read
    // (we hold none into it).
    Some(unsafe { (address as *const [u8; N]).read_volatile() })
}
