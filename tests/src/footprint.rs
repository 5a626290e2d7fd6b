//! What a guest uses of its memory, from outside: how deep its stack has ever been, and whether anything but
//! its image has changed.

use core::hash::Hasher;
use core::ops::Range;
use std::fs;
use std::hash::DefaultHasher;

use crate::guest::Guest;
use crate::temporary::Temporary;
use crate::{Arch, arch, plain_image};

/// Bytes of a page.
pub const PAGE: u64 = 0x1000;
/// The stack is the image's end, above the guard page (`boot/x86_64.ld`, `boot/aarch64.ld`).
pub const STACK: u64 = 160 << 10;
/// An arm64 Image lies at a multiple of this.
const ALIGNMENT: u64 = 2 << 20;

/// A guest's memory at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Bytes of the stack that have ever been used.
    pub stack: usize,
    /// A digest of all RAM but the image, with its data and stack, and the vmclock page: nobody writes there.
    pub outside: u64,
}

impl Footprint {
    /// Looks at a guest with so many MiB. Its first processor must be in the image.
    pub fn of(guest: &mut Guest, mib: u64) -> Self {
        let start = match arch() {
            Arch::X86_64 => 0,
            Arch::Aarch64 => 0x4000_0000,
        };
        let image = image_range(guest);
        let bytes = dump(guest, start..start + (mib << 20));
        let of = |range: Range<u64>| {
            let [from, to] =
                [range.start, range.end].map(|at| usize::try_from(at - start).expect("64 bits"));
            &bytes[from..to]
        };
        let mut hasher = DefaultHasher::new();
        let page = arch().page();
        let mut hash = |range: Range<u64>| {
            if range.contains(&page) {
                hasher.write(of(range.start..page));
                hasher.write(of(page + PAGE..range.end));
            } else {
                hasher.write(of(range));
            }
        };
        hash(start..image.start);
        hash(image.end..start + (mib << 20));
        Self {
            stack: used(of(image.end - STACK..image.end)),
            outside: hasher.finish(),
        }
    }
}

/// Bytes of the stack that have ever been used.
pub fn stack_used(guest: &mut Guest) -> usize {
    let end = image_range(guest).end;
    used(&dump(guest, end - STACK..end))
}

/// It was zero in the beginning, and grows downwards.
fn used(stack: &[u8]) -> usize {
    let untouched = stack.iter().take_while(|byte| **byte == 0).count();
    stack.len() - untouched
}

/// Where the image lies, with its data and stack.
pub fn image_range(guest: &mut Guest) -> Range<u64> {
    let bytes = fs::read(plain_image()).expect("readable");
    match arch() {
        Arch::X86_64 => {
            let segments = segments(&bytes);
            let start = segments.iter().map(|(range, _)| range.start).min();
            let end = segments.iter().map(|(range, _)| range.end).max();
            start.expect("some")..end.expect("some")
        }
        Arch::Aarch64 => {
            let registers = guest.monitor("info registers");
            let digits = registers
                .split_once("PC=")
                .and_then(|(_, rest)| rest.get(..16))
                .and_then(|digits| u64::from_str_radix(digits, 16).ok());
            let start = digits.expect("a program counter") & !(ALIGNMENT - 1);
            let size = u64::from_le_bytes(bytes[16..24].try_into().expect("8"));
            start..start + size
        }
    }
}

/// The loadable segments of a 64-bit ELF image, with their flags (1 execute, 2 write, 4 read).
#[must_use]
pub fn segments(elf: &[u8]) -> Vec<(Range<u64>, u32)> {
    let long = |at: usize| u64::from_le_bytes(elf[at..at + 8].try_into().expect("8"));
    let word = |at: usize| u32::from_le_bytes(elf[at..at + 4].try_into().expect("4"));
    let half = |at: usize| usize::from(u16::from_le_bytes([elf[at], elf[at + 1]]));
    let table = usize::try_from(long(0x20)).expect("an offset");
    let headers = (0..half(0x38)).map(|index| table + index * half(0x36));
    let loadable = headers.filter(|header| word(*header) == 1);
    loadable
        .map(|header| {
            let (address, length) = (long(header + 24), long(header + 40));
            let end = (address + length).next_multiple_of(PAGE);
            (address..end, word(header + 4))
        })
        .collect()
}

fn dump(guest: &mut Guest, range: Range<u64>) -> Vec<u8> {
    let file = Temporary::new("memory");
    let file = file.path();
    let length = range.end - range.start;
    guest.monitor(&format!(
        "pmemsave {} {length} \"{}\"",
        range.start,
        file.display()
    ));
    let bytes = fs::read(file).expect("saved");
    assert_eq!(bytes.len() as u64, length);
    bytes
}
