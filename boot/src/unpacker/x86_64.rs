//! `x86_64`: entered by PVH, as the image is, and leaves by PVH.

use core::arch::global_asm;
use core::ops::Range;

use gnomon_arch::machine::{io::Uart, power};

use crate::Unpacked;

/// Instructions have any length.
pub(crate) const PLACES: usize = 1;

/// From the first MiB to the unpacker itself.
pub(crate) const fn image_memory(own: u64) -> Range<u64> {
    0x10_0000..own
}

/// The image says itself where it belongs.
pub(crate) const fn base(_: u64) -> u64 {
    0
}

global_asm!(include_str!("../x86_64/pvh.s"), entry = sym pvh_start, start = sym crate::start);
global_asm!(include_str!("x86_64.s"), enter = sym pvh_enter);

unsafe extern "C" {
    /// The 32-bit entry in `pvh.s`. Never called from Rust.
    fn pvh_start();
    /// Goes back to 32-bit mode, and to `entry`.
    fn pvh_enter(entry: u64, handover: u64) -> !;
}

/// Enters the image.
pub(crate) fn enter(image: &Unpacked, handover: u64) -> ! {
    // SAFETY: the image's entry expects what PVH says, and that is what it gets.
    unsafe { pvh_enter(image.entry, handover) }
}

/// Says that the image cannot be had, and ends.
pub(crate) fn fail() -> ! {
    if let Some(mut uart) = Uart::open() {
        // The FIFO takes all of it.
        uart.send(b"image damaged\r\n");
    }
    power::fail()
}
