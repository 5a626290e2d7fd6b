//! The image as the linker left it: which function is where (`build/gnomon-ARCH.map`), and whom it calls.

use std::collections::BTreeMap;
use std::fs;

use gnomon_qemu::Arch;

use crate::built;

/// All addresses that an image can have are below this, counted from some multiple of it: zero, or on Arm where the
/// loader puts it.
#[must_use]
pub const fn image_max(arch: Arch) -> u64 {
    match arch {
        Arch::X86_64 => 0x40_0000,
        Arch::Aarch64 => 0x20_0000,
    }
}

/// The functions of an image, by address.
#[derive(Debug)]
pub struct Map {
    arch: Arch,
    image: Vec<u8>,
    names: BTreeMap<u64, String>,
}

impl Map {
    /// Of the image that `make build` has put in place.
    #[must_use]
    pub fn of(arch: Arch) -> Self {
        let map = built(&format!("gnomon-{}.map", arch.name()), "make build");
        let image = built(&format!("plain/{}", arch.image()), "make build");
        Self {
            arch,
            image: fs::read(image).expect("readable"),
            names: names(&fs::read_to_string(map).expect("readable")),
        }
    }

    /// All functions, each with its address in the image.
    pub fn functions(&self) -> impl Iterator<Item = (u64, &str)> {
        self.names
            .iter()
            .map(|(address, name)| (*address, name.as_str()))
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.values().map(String::as_str)
    }

    /// The function that has the instruction at `address`, as the guest sees it: where it starts and its name.
    #[must_use]
    pub fn function(&self, address: u64) -> (u64, &str) {
        let address = address % image_max(self.arch);
        let (start, name) = self.names.range(..=address).next_back().expect("code");
        (*start, name)
    }

    /// The names of all functions that the one at `start` calls by their address, or ends in.
    #[must_use]
    pub fn calls(&self, start: u64) -> Vec<&str> {
        let (end, _) = self.names.range(start + 1..).next().expect("more code");
        let targets = (start..*end).filter_map(|at| match self.arch {
            Arch::X86_64 => self.x86_target(at),
            Arch::Aarch64 => self.arm_target(at),
        });
        targets
            .filter_map(|target| self.names.get(&target))
            .map(String::as_str)
            .collect()
    }

    /// Where CALL, JMP or Jcc with a 32-bit displacement leads, if `at` is one. Other bytes may look like it, but hardly lead
    /// to the first byte of a function.
    fn x86_target(&self, at: u64) -> Option<u64> {
        let code: [u8; 6] = self.bytes(at)?;
        let (length, displacement) = match code {
            [0xe8 | 0xe9, rest @ .., _] => (5, rest),
            [0x0f, 0x80..=0x8f, rest @ ..] => (6, rest),
            _ => return None,
        };
        at.checked_add(length)?
            .checked_add_signed(i32::from_le_bytes(displacement).into())
    }

    /// Where B or BL leads, if `at` is one.
    fn arm_target(&self, at: u64) -> Option<u64> {
        let code = u32::from_le_bytes(self.bytes(at)?);
        let is_branch = at.is_multiple_of(4) && matches!(code >> 26, 0b00_0101 | 0b10_0101);
        let words = i64::from(code.cast_signed() << 6 >> 6);
        is_branch.then(|| at.checked_add_signed(words * 4))?
    }

    /// The bytes at an address that the linker gave: the flat file starts at zero, ELF says where each segment goes.
    fn bytes<const N: usize>(&self, at: u64) -> Option<[u8; N]> {
        let offset = match self.arch {
            Arch::Aarch64 => at,
            Arch::X86_64 => self.segments().find_map(|[offset, address, length]| {
                let within = at.checked_sub(address).filter(|within| *within < length)?;
                Some(offset + within)
            })?,
        };
        let offset = usize::try_from(offset).ok()?;
        self.image.get(offset..)?.first_chunk().copied()
    }

    /// Offset, address and length of each segment that is loaded: an ELF file's 56-byte program headers, after its own
    /// 64 bytes.
    fn segments(&self) -> impl Iterator<Item = [u64; 3]> {
        let number = usize::from(self.image[56]);
        let headers = self.image[64..].chunks_exact(56).take(number);
        let word = |header: &[u8], at: usize| {
            u64::from_le_bytes(header[at..at + 8].try_into().expect("8"))
        };
        headers
            .filter(|header| header[..4] == [1, 0, 0, 0])
            .map(move |header| [8, 16, 32].map(|at| word(header, at)))
    }
}

/// The functions of the unpacker, under `unpacker NAME`, where they are when they run.
pub(crate) fn unpacker(arch: Arch) -> Vec<(u64, String)> {
    let map = built(&format!("unpacker-{}.map", arch.name()), "make build");
    let names = names(&fs::read_to_string(map).expect("readable"));
    let place = |address: u64| match arch {
        // Its entry is where the loader puts it, and all else where it moves to (boot/unpacker-aarch64.ld).
        Arch::Aarch64 if address > 0 => address + 0x1b_0000,
        _ => address,
    };
    let functions = names.into_iter();
    functions
        .map(|(address, name)| (place(address), format!("unpacker {name}")))
        .collect()
}

/// The symbols of the linker's map. A line has five columns: address, load address, size, alignment, and the name of a
/// section, of an input in it (`FILE:(SECTION)`), or of a symbol. `$x` and the like only mark code on Arm.
fn names(map: &str) -> BTreeMap<u64, String> {
    let symbol = |line: &str| {
        let mut rest = line;
        let mut columns = [""; 4];
        for column in &mut columns {
            (*column, rest) = rest.trim_start().split_once(' ')?;
        }
        let address = u64::from_str_radix(columns[0], 16).ok()?;
        let name = rest.trim();
        let is_other = [":(", " = "].iter().any(|mark| name.contains(mark));
        (!is_other && !name.starts_with(['$', '.'])).then(|| (address, name.to_owned()))
    };
    map.lines().filter_map(symbol).collect()
}
