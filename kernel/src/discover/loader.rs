//! ACPI tables without firmware: QEMU's table loader script, run by ourselves.
//!
//! QEMU hands its tables out through `fw_cfg` as files that do not know yet where they will lie, and a
//! script that firmware is to run over them (`etc/table-loader`; QEMU, `hw/acpi/bios-linker-loader.c`): allocate
//! memory for a file, add the address of one file to a pointer in another, correct a checksum. [`run`] does that in memory that it
//! is given, and then [`Tables`](super::acpi::Tables) reads the result like any firmware's.
//!
//! It is total: any script and any files give tables or a reason. Nothing outside the memory is written,
//! and the work is bounded by its size and by [`SCRIPT_MAX`]. A command to tell the host where a file went
//! (`WRITE_POINTER`, for devices that are not ours) is passed over: the host then never learns it, and
//! no table is other for it.

use core::fmt;

/// Bytes of the longest script that is run; QEMU's have 3 to 4 KiB.
pub const SCRIPT_MAX: usize = 16 << 10;
/// Name of the script.
pub const SCRIPT: &str = "etc/table-loader";
/// Bytes of a file's name, the zero that ends it included.
pub const NAME: usize = 56;

/// Bytes of a command.
const COMMAND: usize = 128;
/// Files that are remembered; QEMU has two to four.
const FILES: usize = 8;
/// The largest alignment that can be asked for: a page, which is how the memory itself is aligned.
pub const ALIGNMENT_MAX: usize = 4096;
/// How many times over the memory may be summed up; QEMU's scripts do it once.
const SUMS: usize = 8;

/// The host's files.
pub trait Files {
    /// Length in bytes of the file of this name, if there is one.
    fn length(&self, name: &str) -> Option<u32>;
    /// Fills `into` with the first bytes of that file; returns whether that could be done.
    fn read(&self, name: &str, into: &mut [u8]) -> bool;
}

/// Tables that lie in memory as they should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Physical address of the RSDP.
    pub rsdp: u64,
    /// Bytes of the memory that are in use, from its start.
    pub used: usize,
}

/// Runs `script` over `files`, in `memory`, whose physical address is `base`, a multiple of
/// [`ALIGNMENT_MAX`].
///
/// # Errors
/// The first command that cannot be carried out, and why.
pub fn run(script: &[u8], files: &dyn Files, memory: &mut [u8], base: u64) -> Result<Loaded, Bad> {
    let (commands, rest) = script.as_chunks();
    if script.len() > SCRIPT_MAX || !rest.is_empty() {
        return Err(Bad {
            command: 0,
            why: Why::Script,
        });
    }
    let mut loader = Loader {
        sums_left: memory.len().saturating_mul(SUMS),
        memory,
        base,
        used: 0,
        blobs: [None; FILES],
    };
    for (command, entry) in (1..).zip(commands) {
        loader
            .command(entry, files)
            .map_err(|why| Bad { command, why })?;
    }
    let rsdp = loader.blob(b"etc/acpi/rsdp").ok_or(Bad {
        command: commands.len(),
        why: Why::NoRsdp,
    })?;
    Ok(Loaded {
        rsdp: loader.address(&rsdp).ok_or(Bad {
            command: commands.len(),
            why: Why::Pointer,
        })?,
        used: loader.used,
    })
}

/// Why a script cannot be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bad {
    /// The command, counted from 1.
    pub command: usize,
    /// What is the matter with it.
    pub why: Why,
}

/// What is the matter with a command, or with the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The script is longer than [`SCRIPT_MAX`], or not whole commands.
    Script,
    /// No such command is known.
    Command(u32),
    /// A name has no end, or is not text.
    Name,
    /// The host has no such file, or does not let us read it.
    File,
    /// The file has been allocated before.
    Again,
    /// There are more than eight files.
    Files,
    /// The alignment is not a power of two up to a page.
    Alignment(u32),
    /// A file of so many bytes does not fit into the memory.
    Memory(u32),
    /// The file has not been allocated.
    NotAllocated,
    /// A place is not inside its file.
    Outside,
    /// A pointer is not 1, 2, 4 or 8 bytes wide, does not fit, or leads out of its file.
    Pointer,
    /// The checksums would take too long.
    Sums,
    /// No RSDP was allocated.
    NoRsdp,
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "acpi table loader, command {}: ", self.command)?;
        f.write_str(match self.why {
            Why::Script => "the script is too long, or its end is missing",
            Why::Command(number) => return write!(f, "{number:#x} is not known"),
            Why::Name => "a file name that has no end or is not text",
            Why::File => "there is no such file",
            Why::Again => "the file has been allocated before",
            Why::Files => "there are more than 8 files",
            Why::Alignment(align) => return write!(f, "an alignment of {align}"),
            Why::Memory(length) => return write!(f, "no room for {length} bytes"),
            Why::NotAllocated => "the file has not been allocated",
            Why::Outside => "a place outside of its file",
            Why::Pointer => "a pointer of an odd size, or that leads nowhere",
            Why::Sums => "the checksums take too long",
            Why::NoRsdp => "no rsdp was allocated",
        })
    }
}

impl core::error::Error for Bad {}

struct Loader<'m> {
    memory: &'m mut [u8],
    base: u64,
    used: usize,
    blobs: [Option<Blob>; FILES],
    /// Bytes that may still be summed up.
    sums_left: usize,
}

/// A file in memory.
#[derive(Clone, Copy)]
struct Blob {
    name: [u8; NAME],
    start: usize,
    length: usize,
}

impl Loader<'_> {
    fn command(&mut self, entry: &[u8; COMMAND], files: &dyn Files) -> Result<(), Why> {
        const PADDING: u32 = 0;
        const ALLOCATE: u32 = 1;
        const ADD_POINTER: u32 = 2;
        const ADD_CHECKSUM: u32 = 3;
        const WRITE_POINTER: u32 = 4;
        match number(entry, 0) {
            PADDING | WRITE_POINTER => Ok(()),
            ALLOCATE => self.allocate(entry, files),
            ADD_POINTER => self.add_pointer(entry),
            ADD_CHECKSUM => self.add_checksum(entry),
            unknown => Err(Why::Command(unknown)),
        }
    }

    /// `{file, align, zone}`: the zone is of no concern to us, who read the tables ourselves.
    fn allocate(&mut self, entry: &[u8; COMMAND], files: &dyn Files) -> Result<(), Why> {
        let name = file_name(entry, 4)?;
        let text = core::str::from_utf8(name).map_err(|_| Why::Name)?;
        if self.blob(name).is_some() {
            return Err(Why::Again);
        }
        let align = number(entry, 60);
        let alignment = usize::try_from(align)
            .ok()
            .filter(|align| align.is_power_of_two() && *align <= ALIGNMENT_MAX)
            .ok_or(Why::Alignment(align))?;
        let claimed = files.length(text).ok_or(Why::File)?;
        let no_room = Why::Memory(claimed);
        let length = usize::try_from(claimed).map_err(|_| no_room)?;
        let start = self
            .used
            .checked_next_multiple_of(alignment)
            .ok_or(no_room)?;
        let end = start.checked_add(length).ok_or(no_room)?;
        let place = self.memory.get_mut(start..end).ok_or(no_room)?;
        if !files.read(text, place) {
            return Err(Why::File);
        }
        let free = self.blobs.iter_mut().find(|blob| blob.is_none());
        let mut blob = Blob {
            name: [0; NAME],
            start,
            length,
        };
        blob.name
            .iter_mut()
            .zip(name)
            .for_each(|(to, from)| *to = *from);
        *free.ok_or(Why::Files)? = Some(blob);
        self.used = end;
        Ok(())
    }

    /// `{destination, source, offset, size}`: adds the source's address to the little-endian number in
    /// the destination, which so far is an offset into the source.
    fn add_pointer(&mut self, entry: &[u8; COMMAND]) -> Result<(), Why> {
        let find = |at| self.blob(file_name(entry, at)?).ok_or(Why::NotAllocated);
        let (destination, source) = (find(4)?, find(60)?);
        let size = usize::from(entry[120]);
        if !matches!(size, 1 | 2 | 4 | 8) {
            return Err(Why::Pointer);
        }
        let address = self.address(&source).ok_or(Why::Pointer)?;
        let place = self.part(&destination, number(entry, 116), size)?;
        let offset = place
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte));
        if offset > source.length as u64 {
            return Err(Why::Pointer);
        }
        let pointer = address.checked_add(offset).ok_or(Why::Pointer)?;
        let bytes = pointer.to_le_bytes();
        match bytes.split_at_checked(size) {
            Some((low, high)) if high.iter().all(|byte| *byte == 0) => place.copy_from_slice(low),
            _ => return Err(Why::Pointer),
        }
        Ok(())
    }

    /// `{file, result, start, length}`: makes the bytes add up to zero.
    fn add_checksum(&mut self, entry: &[u8; COMMAND]) -> Result<(), Why> {
        let blob = self.blob(file_name(entry, 4)?).ok_or(Why::NotAllocated)?;
        let length = usize::try_from(number(entry, 68)).map_err(|_| Why::Outside)?;
        self.sums_left = self.sums_left.checked_sub(length).ok_or(Why::Sums)?;
        let summed = self.part(&blob, number(entry, 64), length)?;
        let sum = summed
            .iter()
            .fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        if let [result] = self.part(&blob, number(entry, 60), 1)? {
            *result = result.wrapping_sub(sum);
        }
        Ok(())
    }

    fn blob(&self, name: &[u8]) -> Option<Blob> {
        let mut blobs = self.blobs.iter().flatten();
        blobs
            .find(|blob| blob.name.starts_with(name) && blob.name.get(name.len()) == Some(&0))
            .copied()
    }

    fn address(&self, blob: &Blob) -> Option<u64> {
        self.base.checked_add(blob.start as u64)
    }

    /// `length` bytes at `offset` of a file.
    fn part(&mut self, blob: &Blob, offset: u32, length: usize) -> Result<&mut [u8], Why> {
        let offset = usize::try_from(offset).map_err(|_| Why::Outside)?;
        let end = offset.checked_add(length).ok_or(Why::Outside)?;
        self.memory
            .get_mut(blob.start..)
            .and_then(|bytes| bytes.get_mut(..blob.length)?.get_mut(offset..end))
            .ok_or(Why::Outside)
    }
}

/// The file name at `offset` of a command, without the zero that ends it; it is not empty.
fn file_name(entry: &[u8; COMMAND], offset: usize) -> Result<&[u8], Why> {
    let field = entry.get(offset..offset + NAME).unwrap_or_default();
    let end = field.iter().position(|byte| *byte == 0);
    end.and_then(|end| field.get(..end))
        .filter(|name| !name.is_empty())
        .ok_or(Why::Name)
}

/// The little-endian number at `offset` of a command.
fn number(entry: &[u8; COMMAND], offset: usize) -> u32 {
    let bytes = entry.get(offset..).and_then(<[u8]>::first_chunk);
    bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
}
