//! What the loader hands over, as plain data: of every boot protocol ([`BootInfo`]), and of PVH ([`pvh`]).

pub mod pvh;

use crate::memory::{MemoryKind, MemoryRange};

/// Memory ranges that are remembered; QEMU gives about ten. More are ignored, which can only hide
/// memory, never invent it.
const RANGES: usize = 64;
/// Bytes of command line that are kept.
pub const COMMAND_LINE_MAX: usize = 1024;

/// What the loader handed over, copied out of its memory.
#[derive(Debug)]
pub struct BootInfo {
    ranges: [MemoryRange; RANGES],
    range_count: usize,
    command_line: [u8; COMMAND_LINE_MAX],
    command_line_length: usize,
}

impl BootInfo {
    /// Nothing known yet.
    #[must_use]
    pub const fn new() -> Self {
        const NONE: MemoryRange = MemoryRange {
            start: 0,
            length: 0,
            kind: MemoryKind::Reserved,
        };
        Self {
            ranges: [NONE; RANGES],
            range_count: 0,
            command_line: [0; COMMAND_LINE_MAX],
            command_line_length: 0,
        }
    }

    /// Adds a range to the memory map.
    pub fn add_range(&mut self, range: MemoryRange) {
        if let Some(place) = self.ranges.get_mut(self.range_count) {
            *place = range;
            self.range_count += 1;
        }
    }

    /// The memory map.
    #[must_use]
    pub fn memory(&self) -> &[MemoryRange] {
        self.ranges.get(..self.range_count).unwrap_or_default()
    }

    /// Keeps the command line up to its first zero byte; false when it had to be cut.
    pub fn set_command_line(&mut self, bytes: impl Iterator<Item = u8>) -> bool {
        for (index, byte) in bytes.take_while(|&byte| byte != 0).enumerate() {
            let Some(place) = self.command_line.get_mut(index) else {
                return false;
            };
            *place = byte;
            self.command_line_length = index + 1;
        }
        true
    }

    /// The command line; bytes that are not UTF-8 end it.
    #[must_use]
    pub fn command_line(&self) -> &str {
        let bytes = self
            .command_line
            .get(..self.command_line_length)
            .unwrap_or_default();
        match core::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => bytes
                .get(..error.valid_up_to())
                .and_then(|bytes| core::str::from_utf8(bytes).ok())
                .unwrap_or(""),
        }
    }
}

impl Default for BootInfo {
    fn default() -> Self {
        Self::new()
    }
}
