//! The unpacker: what the loader of a packed image enters. It puts the image where it belongs and enters it as the
//! loader would have, so that the image does not know.
//!
//! It stands in memory that the image does not use, with the packed bytes right behind it (`gnomon-pack` puts them there). A
//! packed image with a damaged bit ends as failures do.
#![no_std]
#![no_main]
#![expect(
    unsafe_code,
    reason = "entry code, linker symbols, and the memory that the image goes to"
)]
#![expect(
    clippy::inline_always,
    reason = "these are steps of one loop, and calls would cost more than what they do"
)]
#![deny(
    clippy::expect_used,
    clippy::panic,
    clippy::todo,
    clippy::unimplemented,
    clippy::unreachable,
    clippy::unwrap_used
)]

#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
mod platform;

use core::ops::Range;
use core::panic::PanicInfo;
use core::slice;

use gnomon_arch::cell::TakeCell;
use gnomon_pack::{Header, LONGEST, Tables, Window};

/// The most that unpacker and packed bytes take up together: its own memory begins there (`boot/unpacker-*.ld`).
const FILE: usize = 256 << 10;

/// Bytes that are copied at once.
const STEP: usize = size_of::<u64>();

static TABLES: TakeCell<Tables<{ platform::PLACES }>> = TakeCell::new(Tables::new());

unsafe extern "C" {
    static image_start: u8;
    static packed_start: u32;
}

/// Where the entry code goes once Rust can run, with the physical address of the loader's words.
extern "C" fn start(handover: u64) -> ! {
    match unpack() {
        Some(unpacked) => platform::enter(&unpacked, handover),
        None => platform::fail(),
    }
}

/// The image, in its place.
struct Unpacked {
    #[cfg_attr(
        target_arch = "x86_64",
        expect(dead_code, reason = "caches are no matter")
    )]
    range: Range<u64>,
    entry: u64,
}

/// Unpacks the image, unless its packed form is damaged or speaks of memory that it may not have.
fn unpack() -> Option<Unpacked> {
    let (own, packed) = (&raw const image_start, &raw const packed_start);
    let length = FILE.checked_sub(packed as usize - own as usize)?;
    // SAFETY: this memory is the unpacker's and aligned, as the linker script says; nobody writes there.
    let packed = unsafe { slice::from_raw_parts(packed, length / size_of::<u32>()) };
    let (header, packed) = Header::check(packed)?;
    let range = platform::image_memory(own as u64);
    let start = platform::base(own as u64).checked_add(header.place)?;
    let end = start.checked_add(header.length.into())?;
    if start < range.start || end > range.end {
        return None;
    }
    // SAFETY: the loader has given this memory to the image, it is mapped, and it is not the unpacker's own.
    let mut memory = unsafe { Memory::new(start as *mut u8, header.length as usize) };
    let length = memory.length;
    TABLES.take()?.unpack(packed, &mut memory, length)?;
    Some(Unpacked {
        range: start..end,
        entry: start.checked_add(header.entry)?,
    })
}

/// Memory that is written by addresses: a copy overlaps itself, and slices would be compared with at each step.
struct Memory {
    start: *mut u8,
    length: usize,
    /// Up to here the longest copy is inside, and a step more.
    free: usize,
}

impl Memory {
    /// The memory from `start` on.
    ///
    /// # Safety
    /// All of it must be mapped, and nobody else's.
    const unsafe fn new(start: *mut u8, length: usize) -> Self {
        let free = length.saturating_sub(LONGEST + STEP);
        Self {
            start,
            length,
            free,
        }
    }
}

impl Window for Memory {
    #[inline(always)]
    fn put(&mut self, at: usize, byte: u8) -> bool {
        let is_inside = at < self.length;
        if is_inside {
            // SAFETY: it is inside of what `new` was promised.
            unsafe { self.start.wrapping_add(at).write(byte) };
        }
        is_inside
    }

    #[inline(always)]
    fn copy(&mut self, at: usize, distance: usize, length: usize) -> bool {
        let mut to = self.start.wrapping_add(at);
        let mut from = to.wrapping_sub(distance).cast_const();
        // Nearly always: the distance is a step at least, and at most `at`.
        if at < self.free && distance.wrapping_sub(STEP) <= at.wrapping_sub(STEP) {
            let end = to.wrapping_add(length);
            loop {
                // SAFETY: both are inside, however long the copy, and up to STEP - 1 bytes behind it.
                let step = unsafe { from.cast::<u64>().read_unaligned() };
                // SAFETY: as above.
                unsafe { to.cast::<u64>().write_unaligned(step) };
                (from, to) = (from.wrapping_add(STEP), to.wrapping_add(STEP));
                if to >= end {
                    return true;
                }
            }
        }
        if at > self.length || length > self.length - at || distance.wrapping_sub(1) >= at {
            return false;
        }
        for _ in 0..length {
            // SAFETY: it is inside, before `to`.
            let byte = unsafe { from.read() };
            // SAFETY: it is inside.
            unsafe { to.write(byte) };
            (from, to) = (from.wrapping_add(1), to.wrapping_add(1));
        }
        true
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    platform::fail()
}
