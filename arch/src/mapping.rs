//! What the page tables of every architecture are asked for, and why they refuse.

use core::fmt;

/// Bytes in a page, the unit of mapping.
pub const PAGE: u64 = 4096;

/// What a range is, and so how it is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Our instructions: readable, executable, never writable.
    Text,
    /// Constants and firmware tables: write-back, readable only. The vmclock page too (UAPI.13: it
    /// is ordinary memory).
    ReadOnly,
    /// Our data: write-back, writable, never executable.
    Data,
    /// Device registers: uncached, writable, never executable.
    Device,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Text, Self::ReadOnly, Self::Data, Self::Device];
}

/// Why a range could not be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// The range is empty, wraps, or reaches beyond what the tables can express.
    Range {
        /// First address of the range.
        start: u64,
        /// Its length in bytes.
        length: u64,
    },
    /// All page-table pages are in use.
    OutOfTables,
    /// The page is already mapped as something else, and the two kinds must not be mixed.
    Conflict {
        /// The page's address.
        page: u64,
    },
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range { start, length } => {
                write!(f, "cannot map {length:#x} bytes at {start:#x}")
            }
            Self::OutOfTables => write!(f, "out of page-table pages"),
            Self::Conflict { page } => {
                write!(f, "page {page:#x} is already mapped as something else")
            }
        }
    }
}
