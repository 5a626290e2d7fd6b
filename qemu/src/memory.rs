//! The memory of a QEMU process, and the vmclock page in it.
//!
//! Stock QEMU publishes a vmclock page without time and has no command to fill it. The page is
//! ordinary memory of the QEMU process, though, so whoever may debug that process (the same user,
//! or root) can write it through `/proc/PID/mem`, and the guest sees the bytes at once.

use core::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

use gnomon_clock::page::{self, Fields, PageMemory, Writer};

use crate::elf::ReadAt;

/// Where `seq_count` lies in the page.
const SEQ_COUNT: usize = 0x0c;

/// The memory of a process.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    memory: File,
}

impl Process {
    /// Opens the memory of process `pid` for reading and writing.
    ///
    /// # Errors
    /// When there is no such process, or this user may not debug it.
    pub fn open(pid: u32) -> Result<Self, MemoryError> {
        let path = format!("/proc/{pid}/mem");
        match OpenOptions::new().read(true).write(true).open(path) {
            Ok(memory) => Ok(Self { pid, memory }),
            Err(error) => Err(MemoryError::Open { pid, error }),
        }
    }

    /// The process whose memory this is.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    fn write_at(&self, address: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        let written = self.memory.write_all_at(bytes, address);
        written.map_err(|error| MemoryError::Access {
            pid: self.pid,
            address,
            error,
        })
    }
}

impl ReadAt for Process {
    type Error = MemoryError;

    fn read_at(&self, address: u64, buffer: &mut [u8]) -> Result<(), MemoryError> {
        let read = self.memory.read_exact_at(buffer, address);
        read.map_err(|error| MemoryError::Access {
            pid: self.pid,
            address,
            error,
        })
    }
}

/// Addresses at which the beginnings of files are mapped in process `pid`, the program's own
/// first. Any of them may be an ELF image.
///
/// # Errors
/// When the process is gone or may not be looked at.
pub fn mapped_images(pid: u32) -> Result<Vec<u64>, MemoryError> {
    match fs::read_to_string(format!("/proc/{pid}/maps")) {
        Ok(maps) => Ok(maps.lines().filter_map(image_base).collect()),
        Err(error) => Err(MemoryError::Open { pid, error }),
    }
}

/// The start address in a line of `maps`, if it maps the beginning of a file.
fn image_base(line: &str) -> Option<u64> {
    let mut words = line.split_ascii_whitespace();
    let (range, _permissions, offset) = (words.next()?, words.next()?, words.next()?);
    let (_device, inode) = (words.next()?, words.next()?);
    if inode == "0" || u64::from_str_radix(offset, 16).ok()? != 0 {
        return None;
    }
    u64::from_str_radix(range.split_once('-')?.0, 16).ok()
}

/// The vmclock page of a running QEMU.
///
/// One page has one writer: pause the [`Publisher`](crate::publish::Publisher) before writing it.
#[derive(Debug)]
pub struct GuestPage {
    process: Process,
    address: u64,
}

impl GuestPage {
    /// The page that process `pid` has at its own address `address`, after a look at its constants.
    ///
    /// # Errors
    /// When the memory cannot be opened or read, or holds no vmclock page of version 1.
    pub fn open(pid: u32, address: u64) -> Result<Self, MemoryError> {
        let page = Self {
            process: Process::open(pid)?,
            address,
        };
        let fields = page.fields()?;
        let long_enough = usize::try_from(fields.size).is_ok_and(|size| size >= page::LEN);
        if fields.magic == page::MAGIC && fields.version == page::VERSION && long_enough {
            return Ok(page);
        }
        let Fields {
            magic,
            version,
            size,
            ..
        } = fields;
        Err(MemoryError::NoPage {
            pid,
            magic,
            version,
            size,
        })
    }

    /// Makes a page without time at process `pid`'s own address `address`, as QEMU's device makes its
    /// own: for machines without that device.
    ///
    /// # Errors
    /// When the memory cannot be opened or written.
    pub fn create(pid: u32, address: u64, disruption_marker: u64) -> Result<Self, MemoryError> {
        let process = Process::open(pid)?;
        let fields = Fields {
            seq_count: 2,
            disruption_marker,
            ..Fields::stock()
        };
        process.write_at(address, &fields.to_bytes())?;
        Self::open(pid, address)
    }

    /// Does what QEMU's device does to a page that came along with a snapshot: raises its marker.
    ///
    /// # Errors
    /// When the process has ended.
    pub(crate) fn raise_marker(&mut self) -> Result<(), MemoryError> {
        let fields = self.fields()?;
        let disruption_marker = fields.disruption_marker.wrapping_add(1);
        self.publish(&Fields {
            disruption_marker,
            ..fields
        })?;
        Ok(())
    }

    /// A second handle to the same page.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn reopen(&self) -> Result<Self, MemoryError> {
        Self::open(self.process.pid, self.address)
    }

    /// What the page holds now. There is no seqlock in this read: it is one update's work unless
    /// somebody is writing at this moment.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn fields(&self) -> Result<Fields, MemoryError> {
        let mut bytes = [0; page::LEN];
        self.process.read_at(self.address, &mut bytes)?;
        Ok(Fields::from_bytes(&bytes))
    }

    /// Publishes the fields under the seqlock, going on from the page's own `seq_count`, and returns
    /// the new one. Magic, size and version stay as they are.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn publish(&mut self, fields: &Fields) -> Result<u32, MemoryError> {
        let seq_count = self.fields()?.seq_count;
        Writer::new(self, seq_count).publish(fields)
    }
}

impl PageMemory for GuestPage {
    type Error = MemoryError;

    /// Writes raw bytes, also over the constants and half updates: tests do that.
    fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), MemoryError> {
        let address = self.address.wrapping_add(offset as u64);
        match bytes {
            // The kernel may copy four bytes one by one. With the lowest last, every value in
            // between is odd (an update in progress) or equals the old or the new count.
            [lowest, others @ ..] if offset == SEQ_COUNT && others.len() == 3 => {
                self.process.write_at(address.wrapping_add(1), others)?;
                self.process.write_at(address, &[*lowest])
            }
            _ => self.process.write_at(address, bytes),
        }
    }
}

impl PageMemory for &mut GuestPage {
    type Error = MemoryError;

    fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), MemoryError> {
        (**self).write(offset, bytes)
    }
}

/// Why a process's memory or its vmclock page is out of reach.
#[derive(Debug)]
pub enum MemoryError {
    /// The process is gone, or this user may not debug it.
    Open {
        /// The process.
        pid: u32,
        /// What the kernel says.
        error: io::Error,
    },
    /// Nothing is mapped there (any more).
    Access {
        /// The process.
        pid: u32,
        /// The address in its memory.
        address: u64,
        /// What the kernel says.
        error: io::Error,
    },
    /// What lies there is not a vmclock page of version 1.
    NoPage {
        /// The process.
        pid: u32,
        /// What is there in the place of the magic number.
        magic: u32,
        /// What is there in the place of the version.
        version: u16,
        /// What is there in the place of the size in bytes.
        size: u32,
    },
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { pid, error } if error.kind() == io::ErrorKind::PermissionDenied => write!(
                f,
                "the memory of process {pid} may not be written: be the user who runs QEMU (or \
                 root), and see kernel.yama.ptrace_scope"
            ),
            Self::Open { pid, error } => write!(f, "process {pid} cannot be looked into: {error}"),
            Self::Access {
                pid,
                address,
                error,
            } => {
                write!(f, "process {pid} has no memory at {address:#x}: {error}")
            }
            Self::NoPage {
                pid,
                magic,
                version,
                size,
            } => write!(
                f,
                "process {pid} has no vmclock page there (magic {magic:#010x}, version {version}, \
                 size {size}): is it the right process and address?"
            ),
        }
    }
}

impl core::error::Error for MemoryError {}

#[cfg(test)]
mod tests {
    use core::cell::RefCell;

    use super::*;

    #[test]
    fn maps_lines_are_read() {
        let first = "55d0c0a00000-55d0c0c00000 r--p 00000000 fe:00 1234    /usr/bin/qemu (deleted)";
        assert_eq!(image_base(first), Some(0x55d0_c0a0_0000));
        let later = "55d0c0c00000-55d0c1000000 r-xp 00200000 fe:00 1234    /usr/bin/qemu";
        assert_eq!(image_base(later), None);
        assert_eq!(
            image_base("7f0000000000-7f0000001000 rw-p 00000000 00:00 0"),
            None
        );
        for garbage in [
            "",
            "-",
            "zz-1 r 0 0 1",
            "1",
            "1-2 r",
            "1 r 0 0 1",
            "é é é é é",
        ] {
            assert_eq!(image_base(garbage), None, "{garbage}");
        }
    }

    /// Our own memory stands in for QEMU's.
    #[test]
    fn page_of_a_process_is_checked_read_and_published() {
        let bytes = RefCell::new(Fields::stock().to_bytes());
        let address = bytes.as_ptr() as u64;
        let mut page = GuestPage::open(std::process::id(), address).expect("a page");
        let update = Fields {
            disruption_marker: 7,
            time_sec: 42,
            ..Fields::stock()
        };
        assert_eq!(page.publish(&update).expect("writable"), 2);
        assert_eq!(
            page.fields().expect("readable"),
            Fields {
                seq_count: 2,
                ..update
            }
        );
        page.write(SEQ_COUNT, &0x1234_56ff_u32.to_le_bytes())
            .expect("writable");
        assert_eq!(page.publish(&update).expect("writable"), 0x1234_5702);
        assert_eq!(
            page.reopen()
                .expect("a page")
                .fields()
                .expect("readable")
                .seq_count,
            0x1234_5702
        );

        page.write(8, &[2]).expect("writable");
        let error = GuestPage::open(std::process::id(), address).expect_err("version 2");
        assert!(
            matches!(error, MemoryError::NoPage { version: 2, .. }),
            "{error}"
        );
        let error = GuestPage::open(std::process::id(), 8).expect_err("nothing there");
        assert!(matches!(error, MemoryError::Access { .. }), "{error}");
        let error = GuestPage::open(u32::MAX, address).expect_err("no process");
        assert!(matches!(error, MemoryError::Open { .. }), "{error}");
    }
}
