//! PVH: the entry, and the loader's memory as it is found there. What is in it is read by
//! `gnomon_kernel::handover::pvh`.

use core::arch::global_asm;

use gnomon_kernel::handover::pvh::StartInfo;

global_asm!(include_str!("pvh.s"), entry = sym pvh_start, start = sym crate::start);

unsafe extern "C" {
    /// The 32-bit entry in `pvh.s`. Never called from Rust.
    fn pvh_start();
}

/// What the entry code has mapped; nothing beyond is touched here.
const MAPPED: u64 = 1 << 30;

/// What the start info says.
pub(crate) struct Handover(pub(super) StartInfo);

impl Handover {
    /// Reads the start info at physical address `base`, in the entry code's map: QEMU puts it into page
    /// zero, which is never mapped again. An unusable one leaves everything empty.
    pub(crate) fn read(base: u64) -> Self {
        Self(StartInfo::read(base, byte))
    }
}

fn byte(address: u64) -> Option<u8> {
    if address == 0 || address >= MAPPED {
        return None;
    }
    // SAFETY: the entry code maps the first GiB; bytes have no alignment and every value is valid;
    // nothing of ours is written through another reference while the loader's memory is read
    // (we hold none into it).
    Some(unsafe { (address as *const u8).read_volatile() })
}
