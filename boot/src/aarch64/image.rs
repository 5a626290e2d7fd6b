//! The arm64 image header and entry code.

use core::arch::global_asm;

use gnomon_arch::machine::mmu::MAIR;

global_asm!(
    include_str!("entry.s"),
    include_str!("image.s"),
    entry = sym image_entry,
    shift = const 0,
    start = sym crate::start,
    mair = const MAIR,
);

unsafe extern "C" {
    /// The header and entry in `entry.s`. Never called from Rust.
    fn image_entry();
}
