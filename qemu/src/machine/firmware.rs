//! What a PC runs before its guest.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

/// The firmware of a PC that is started with a kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Firmware {
    /// qboot, which is part of QEMU, where it is found: it does what a PVH kernel needs and nothing else, in half the time
    /// or less. It leaves PCI devices without addresses; Gnomon gives them some. Kernels that are no ELF files, and
    /// machines under KVM, get QEMU's own.
    #[default]
    Quick,
    /// QEMU's own choice, `SeaBIOS`.
    Qemu,
}

impl Firmware {
    /// The file to give QEMU, unless it is its own.
    pub(super) fn file(self, program: &Path, kernel: &Path) -> Option<PathBuf> {
        match self {
            Self::Quick if is_elf(kernel) => qboot(program),
            _ => None,
        }
    }
}

/// Where `program` has its data, or where distributions put it.
fn qboot(program: &Path) -> Option<PathBuf> {
    let beside = program.parent().map(|folder| folder.join("../share"));
    let places = ["/usr/local/share", "/usr/share"].map(PathBuf::from);
    let places = beside.into_iter().chain(places);
    let mut files = places.map(|place| place.join("qemu/qboot.rom"));
    files.find(|file| file.is_file())
}

/// Whether it can have PVH's entry. What cannot be read, QEMU complains of.
fn is_elf(kernel: &Path) -> bool {
    let mut magic = [0; 4];
    let read = File::open(kernel).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok() && magic == *b"\x7fELF"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{env, fs, process};

    #[test]
    fn only_elf_files_get_it_and_only_where_it_is() {
        let folder = env::temp_dir().join(format!("gnomon-firmware-{}", process::id()));
        let (bin, share) = (folder.join("bin"), folder.join("share/qemu"));
        fs::create_dir_all(&bin).expect("a folder");
        fs::create_dir_all(&share).expect("a folder");
        let rom = share.join("qboot.rom");
        fs::write(&rom, []).expect("a file");
        let (elf, other) = (folder.join("elf"), folder.join("other"));
        fs::write(&elf, b"\x7fELF...").expect("a file");
        fs::write(&other, b"MZ").expect("a file");
        let program = bin.join("qemu-system-x86_64");
        let found = Firmware::Quick.file(&program, &elf).expect("found");
        let real = |path: &Path| path.canonicalize().expect("it is there");
        assert_eq!(real(&found), real(&rom));
        assert_eq!(Firmware::Quick.file(&program, &other), None);
        assert_eq!(Firmware::Quick.file(&program, &folder), None);
        assert_eq!(Firmware::Qemu.file(&program, &elf), None);
        fs::remove_dir_all(&folder).expect("it is ours");
    }
}
