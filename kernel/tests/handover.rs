//! PVH's start info: QEMU's, and such as lead nowhere, past the end of memory, or round.

use gnomon_kernel::handover::COMMAND_LINE_MAX;
use gnomon_kernel::handover::pvh::StartInfo;
use gnomon_kernel::memory::MemoryKind::{Acpi, Reserved, Usable};
use gnomon_kernel::memory::{MemoryKind, MemoryRange};

const MAGIC: u32 = 0x336e_c578;
const BASE: u64 = 0x8000;
const LINE: u64 = 0x9000;
const MAP: u64 = 0xa000;

/// Memory as a few ranges with bytes in them.
#[derive(Clone, Default)]
struct Memory(Vec<(u64, Vec<u8>)>);

impl Memory {
    fn with(mut self, start: u64, bytes: &[u8]) -> Self {
        self.0.push((start, bytes.to_vec()));
        self
    }

    fn byte(&self, address: u64) -> Option<u8> {
        self.0.iter().find_map(|(start, bytes)| {
            let offset = usize::try_from(address.checked_sub(*start)?).ok()?;
            bytes.get(offset).copied()
        })
    }

    fn read(&self) -> StartInfo {
        StartInfo::read(BASE, |address| self.byte(address))
    }
}

/// A start info with this version, these addresses of command line, root pointer and map, and so many entries.
fn info(version: u32, [line, rsdp, map]: [u64; 3], entries: u32) -> Vec<u8> {
    let mut bytes = [MAGIC, version, 0, 0].map(u32::to_le_bytes).concat();
    bytes.extend([0, line, rsdp, map].map(u64::to_le_bytes).concat());
    bytes.extend([entries, 0].map(u32::to_le_bytes).concat());
    bytes
}

fn entry(start: u64, length: u64, kind: u32) -> Vec<u8> {
    let mut bytes = [start, length].map(u64::to_le_bytes).concat();
    bytes.extend([kind, 0].map(u32::to_le_bytes).concat());
    bytes
}

const fn range(start: u64, length: u64, kind: MemoryKind) -> MemoryRange {
    MemoryRange {
        start,
        length,
        kind,
    }
}

#[test]
fn what_qemu_leaves_is_taken_over() {
    let map = [
        entry(0, 0x9_fc00, 1),
        entry(0xf_0000, 0x1_0000, 2),
        entry(1 << 20, 1 << 26, 3),
    ];
    let memory = Memory::default()
        .with(BASE, &info(1, [LINE, 0xf_5250, MAP], 3))
        .with(LINE, b"ip=dhcp\0serial=log")
        .with(MAP, &map.concat());
    let found = memory.read();
    assert_eq!(found.boot.command_line(), "ip=dhcp");
    assert_eq!(found.rsdp, Some(0xf_5250));
    let expected = [
        range(0, 0x9_fc00, Usable),
        range(0xf_0000, 0x1_0000, Reserved),
        range(1 << 20, 1 << 26, Acpi),
    ];
    assert_eq!(found.boot.memory(), expected);
}

#[test]
fn version_0_has_no_map_and_zero_is_no_address() {
    let memory = Memory::default()
        .with(BASE, &info(0, [0; 3], 3))
        .with(0, &[b'a'; 64]);
    let found = memory.read();
    assert_eq!((found.boot.command_line(), found.rsdp), ("", None));
    assert!(found.boot.memory().is_empty());
}

#[test]
fn what_is_no_start_info_leaves_everything_empty() {
    let mut bytes = info(1, [LINE, 5, MAP], 1);
    bytes[0] ^= 1;
    for memory in [Memory::default(), Memory::default().with(BASE, &bytes)] {
        let found = memory.read();
        assert_eq!((found.boot.command_line(), found.rsdp), ("", None));
        assert!(found.boot.memory().is_empty());
    }
}

/// At the end of all addresses there is nothing after the last byte, and nothing wraps round to the first.
#[test]
fn the_end_of_all_addresses_is_the_end() {
    for place in [u64::MAX, u64::MAX - 7, u64::MAX - 23] {
        let tail = vec![b'x'; usize::try_from(u64::MAX - place).expect("a few") + 1];
        let memory = Memory::default()
            .with(BASE, &info(1, [place, place, place], u32::MAX))
            .with(place, &tail)
            .with(0, &[b'y'; 64]);
        let found = memory.read();
        assert_eq!(found.boot.command_line(), "x".repeat(tail.len()));
        let whole = usize::from(tail.len() == 24);
        assert_eq!(found.boot.memory().len(), whole, "{place:#x}");
        assert_eq!(StartInfo::read(place, |at| memory.byte(at)).rsdp, None);
    }
}

#[test]
fn what_is_too_long_is_cut() {
    let map = entry(0x1000, 0x1000, 1).repeat(1000);
    let memory = Memory::default()
        .with(BASE, &info(1, [LINE, 0, MAP], 1000))
        .with(LINE, &[b'a'; 4000])
        .with(MAP, &map);
    let found = memory.read();
    assert_eq!(found.boot.command_line(), "a".repeat(COMMAND_LINE_MAX));
    assert_eq!(found.boot.memory().len(), 64);
}

#[test]
fn bytes_that_are_no_text_end_the_command_line() {
    let memory = Memory::default()
        .with(BASE, &info(1, [LINE, 0, 0], 0))
        .with(LINE, b"ip=dhcp \xff serial=log\0");
    assert_eq!(memory.read().boot.command_line(), "ip=dhcp ");
}
