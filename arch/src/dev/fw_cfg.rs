//! QEMU's firmware configuration device: named files from the host (QEMU, `docs/specs/fw_cfg.rst`).
//!
//! A selector register chooses an item, a data register gives its bytes one after another, and zeros
//! behind its end. The faster way by DMA is not used: the files are few and small, and this way the host
//! is never told of any of our memory. All that comes from the device is the host's word: the
//! directory is read to a fixed length, and a file never further than asked.

use super::registers::Registers;

/// Directory entries that are looked at; QEMU has room for 32 by default.
const ENTRIES: u32 = 1024;
/// Item numbers.
const SIGNATURE: u16 = 0x00;
const DIRECTORY: u16 = 0x19;

/// How the two registers are reached.
pub trait Access {
    /// Chooses an item and goes to its start.
    fn select(&self, item: u16);
    /// Reads on in the item.
    fn read(&self, into: &mut [u8]);
}

/// The device.
#[derive(Debug)]
pub struct FwCfg<A>(A);

/// A file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    item: u16,
    /// Its length in bytes.
    pub length: u32,
}

impl<A: Access> FwCfg<A> {
    /// The device behind `access`, if there is one.
    pub fn new(access: A) -> Option<Self> {
        let mut signature = [0; 4];
        access.select(SIGNATURE);
        access.read(&mut signature);
        (signature == *b"QEMU").then_some(Self(access))
    }

    /// The file of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<File> {
        let mut count = [0; 4];
        self.0.select(DIRECTORY);
        self.0.read(&mut count);
        (0..u32::from_be_bytes(count).min(ENTRIES)).find_map(|_| {
            let mut entry = [0; 64];
            self.0.read(&mut entry);
            // Length, item, two reserved bytes, name.
            let (length, rest) = entry.split_first_chunk()?;
            let (item, rest) = rest.split_first_chunk()?;
            let field = rest.get(2..)?;
            let its = field.get(..field.iter().position(|byte| *byte == 0)?)?;
            (its == name.as_bytes()).then_some(File {
                item: u16::from_be_bytes(*item),
                length: u32::from_be_bytes(*length),
            })
        })
    }

    /// Fills `into` with the file's first bytes, and zeros if it is shorter.
    pub fn read(&self, file: File, into: &mut [u8]) {
        self.0.select(file.item);
        self.0.read(into);
    }
}

/// The registers in memory, as Arm machines have them: data at 0, selector at 8.
#[derive(Debug)]
pub struct Mapped(pub Registers);

impl Access for Mapped {
    fn select(&self, item: u16) {
        const SELECTOR: usize = 8;
        // Big-endian.
        self.0.write16(SELECTOR, item.swap_bytes());
    }

    fn read(&self, into: &mut [u8]) {
        const DATA: usize = 0;
        // Wider reads give more bytes, in the order of memory.
        let (words, rest) = into.as_chunks_mut();
        for word in words {
            *word = self.0.read32(DATA).to_le_bytes();
        }
        for byte in rest {
            *byte = self.0.read8(DATA);
        }
    }
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;

    use super::*;

    /// Items by number, and where reading is.
    struct Fake {
        items: &'static [(u16, &'static [u8])],
        at: Cell<(u16, usize)>,
        reads: Cell<usize>,
    }

    impl Fake {
        const fn new(items: &'static [(u16, &'static [u8])]) -> Self {
            Self {
                items,
                at: Cell::new((0, 0)),
                reads: Cell::new(0),
            }
        }
    }

    impl Access for Fake {
        fn select(&self, item: u16) {
            self.at.set((item, 0));
        }

        fn read(&self, into: &mut [u8]) {
            let (item, mut at) = self.at.get();
            let bytes = self.items.iter().find(|(its, _)| *its == item);
            for byte in into {
                *byte = bytes.map_or(0, |(_, bytes)| bytes.get(at).copied().unwrap_or(0));
                at += 1;
            }
            self.at.set((item, at));
            self.reads.set(self.reads.get() + 1);
        }
    }

    /// Two files; the name of the first has no end.
    const GOOD: &[u8] = b"\0\0\0\x02\
        \xff\xff\xff\xff\0\x21\0\0aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
        \0\0\0\x05\0\x20\0\0opt/file\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

    #[test]
    fn a_file_is_found_and_read() {
        let device = FwCfg::new(Fake::new(&[
            (SIGNATURE, b"QEMU"),
            (DIRECTORY, GOOD),
            (0x20, b"hello"),
        ]))
        .expect("a device");
        let file = device.find("opt/file").expect("a file");
        assert_eq!(
            file,
            File {
                item: 0x20,
                length: 5
            }
        );
        let mut bytes = [9; 7];
        device.read(file, &mut bytes);
        assert_eq!(&bytes, b"hello\0\0");
        assert_eq!(device.find("opt/fil"), None);
        assert_eq!(device.find("opt/file2"), None);
        assert_eq!(device.find(&"a".repeat(56)), None);
    }

    #[test]
    fn what_is_no_such_device_is_left_alone() {
        assert!(FwCfg::new(Fake::new(&[(SIGNATURE, b"\xff\xff\xff\xff")])).is_none());
        assert!(FwCfg::new(Fake::new(&[])).is_none());
    }

    #[test]
    fn a_directory_without_end_is_given_up() {
        let device = FwCfg::new(Fake::new(&[
            (SIGNATURE, b"QEMU"),
            (DIRECTORY, b"\xff\xff\xff\xff"),
        ]))
        .expect("a device");
        assert_eq!(device.find("opt/file"), None);
        assert_eq!(device.0.reads.get(), 2 + 1024);
    }
}
