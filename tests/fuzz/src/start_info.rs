//! PVH start info: any memory gives a memory map and a command line, or nothing.

use std::cell::Cell;

use gnomon_kernel::config::Config;
use gnomon_kernel::handover::COMMAND_LINE_MAX;
use gnomon_kernel::handover::pvh::StartInfo;

use crate::input::Input;

/// Input: where the start info lies, and ranges of memory, each an address and a block.
///
/// # Panics
/// More was read, or taken over, than there is.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let base = input.number();
    let mut ranges = Vec::new();
    while !input.is_empty() && ranges.len() < 8 {
        let start = input.number();
        ranges.push((start, input.block()));
    }
    let reads = Cell::new(0);
    let byte = |address: u64| {
        reads.set(reads.get() + 1);
        ranges.iter().find_map(|(start, bytes)| {
            let offset = usize::try_from(address.checked_sub(*start)?).ok()?;
            bytes.get(offset).copied()
        })
    };
    let info = StartInfo::read(base, byte);
    assert!(reads.get() <= 64 + COMMAND_LINE_MAX + 1 + 128 * 20);
    assert!(info.boot.memory().len() <= 64);
    let line = info.boot.command_line();
    assert!(line.len() <= COMMAND_LINE_MAX && !line.contains('\0'));
    assert_ne!(info.rsdp, Some(0));
    let _ = Config::parse(line, &mut |_| {});
}
