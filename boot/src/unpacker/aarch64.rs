//! `aarch64`: entered as an arm64 Image at the start of 2 MiB, moves to their end, and enters the image at their start.

use core::arch::global_asm;
use core::ops::Range;

use gnomon_arch::machine::mmu::MAIR;
use gnomon_arch::machine::power;

use crate::Unpacked;

/// Instructions are words.
pub(crate) const PLACES: usize = 4;
/// How far the unpacker moves, in pages: `boot/unpacker-aarch64.ld` says the same.
const SHIFT: u64 = 0x1b0;

/// What it has moved away from.
pub(crate) const fn image_memory(own: u64) -> Range<u64> {
    base(own)..own
}

/// The image goes to where the loader has put the unpacker.
pub(crate) const fn base(own: u64) -> u64 {
    own.wrapping_sub(SHIFT << 12)
}

global_asm!(
    include_str!("../aarch64/entry.s"),
    include_str!("aarch64.s"),
    include_str!("../aarch64/image.s"),
    entry = sym image_entry,
    enter = sym image_enter,
    start = sym crate::start,
    mair = const MAIR,
    shift = const SHIFT,
);

unsafe extern "C" {
    /// The header and entry in `entry.s`. Never called from Rust.
    fn image_entry();
    /// Makes the image visible to a processor without caches, becomes one, and goes to `entry`.
    fn image_enter(start: u64, end: u64, entry: u64, handover: u64) -> !;
}

/// Enters the image.
pub(crate) fn enter(image: &Unpacked, handover: u64) -> ! {
    let Unpacked { range, entry } = image;
    // SAFETY: the image's entry expects what the boot protocol says, and that is what it gets.
    unsafe { image_enter(range.start, range.end, *entry, handover) }
}

/// Ends. Where a console would be, nobody has said yet.
pub(crate) fn fail() -> ! {
    power::fail()
}
