//! Device trees that QEMU was asked for before. To ask takes another start of QEMU, which is most of what a start takes.
//!
//! A kept tree is taken for the same machine in the same QEMU and for no other: its file begins with the whole command line
//! that makes the machine, and with the program's place, size and times, inode's number among them. Nothing is kept where
//! these do not say everything: with arguments that are not ours, with a program that is none itself but starts one, and
//! under KVM, where the host's processor has a say. What the machine shall not have twice, the seeds of its random
//! numbers, is not kept: each start gets new ones.

use core::hash::{Hash, Hasher};
use core::sync::atomic::{AtomicU32, Ordering};
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File};
use std::hash::DefaultHasher;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process;

use crate::tree;

/// What a file begins with. Whoever changes what is in it changes this.
const MAGIC: &[u8] = b"gnomon's device tree, 1\n";

/// The folder in which trees are kept: the user's own, and nobody else's to write.
pub(super) fn folder() -> Option<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.filter(|cache| cache.is_absolute());
    let home = || Some(PathBuf::from(env::var_os("HOME")?).join(".cache"));
    let folder = cache.or_else(home)?.join("gnomon");
    folder.is_absolute().then_some(folder)
}

/// The place of one machine's tree.
#[derive(Debug)]
pub(super) struct Kept {
    folder: PathBuf,
    /// All that the tree depends on.
    key: Vec<u8>,
}

impl Kept {
    /// Of the machine that `program` makes of these arguments, all of which are ours.
    pub(super) fn new(folder: PathBuf, program: &Path, arguments: &[OsString]) -> Option<Self> {
        let program = in_path(program)?.canonicalize().ok()?;
        let mut magic = [0; 4];
        File::open(&program).ok()?.read_exact(&mut magic).ok()?;
        if magic != *b"\x7fELF" {
            return None;
        }
        let about = program.metadata().ok()?;
        let identity = format!(
            "{}:{} {} bytes, {}.{:09} {}.{:09}",
            about.dev(),
            about.ino(),
            about.size(),
            about.mtime(),
            about.mtime_nsec(),
            about.ctime(),
            about.ctime_nsec()
        );
        let mut key = MAGIC.to_vec();
        let words = [program.as_os_str(), OsStr::new(&identity)].into_iter();
        for word in words.chain(arguments.iter().map(OsString::as_os_str)) {
            key.extend(word.as_bytes());
            // No word has one.
            key.push(0);
        }
        key.push(b'\n');
        Some(Self { folder, key })
    }

    /// The tree, if there is one, with new seeds.
    pub(super) fn tree(&self) -> Option<Vec<u8>> {
        let kept = fs::read(self.file()).ok()?;
        let mut random = File::open("/dev/urandom").ok()?;
        let mut draw = |seed: &mut [u8]| random.read_exact(seed);
        // Another machine's may have the same file name.
        tree::with_seeds(kept.strip_prefix(&self.key[..])?, &mut draw).ok()
    }

    /// Keeps a tree, without its seeds.
    ///
    /// # Errors
    /// When it cannot be read, or the folder not be written.
    pub(super) fn keep(&self, blob: &[u8]) -> io::Result<()> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mut clear = |seed: &mut [u8]| {
            seed.fill(0);
            Ok(())
        };
        let tree = tree::with_seeds(blob, &mut clear).map_err(io::Error::other)?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)?;
        // Whole or not at all, also for those who read or keep meanwhile.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let new = self.folder.join(format!("{}-{number}.new", process::id()));
        fs::write(&new, [&self.key[..], &tree].concat())?;
        fs::rename(new, self.file())
    }

    fn file(&self) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        self.key.hash(&mut hasher);
        self.folder.join(format!("{:016x}.dtb", hasher.finish()))
    }
}

/// The file that is executed when a program of this name is.
fn in_path(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return Some(program.to_owned());
    }
    let path = env::var_os("PATH")?;
    let mut files = env::split_paths(&path).map(|folder| folder.join(program));
    files.find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::super::Directory;
    use super::*;
    use crate::tree::tests::{machine, seed};

    /// A program, and what is kept for its machine with such arguments.
    fn kept(folder: &Directory, arguments: &[&str]) -> Option<Kept> {
        let program = folder.0.join("qemu");
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        Kept::new(folder.0.join("trees"), &program, &arguments)
    }

    fn folder() -> Directory {
        let folder = Directory::new().expect("a folder");
        fs::write(folder.0.join("qemu"), b"\x7fELF").expect("a file");
        folder
    }

    #[test]
    fn a_tree_comes_back_with_new_seeds() {
        let folder = folder();
        let first = kept(&folder, &["-m", "32M"]).expect("a program");
        assert_eq!(first.tree(), None);
        let blob = machine(&[7; 32]);
        first.keep(&blob).expect("kept");
        let written = fs::read(first.file()).expect("a file");
        assert!(!written.windows(4).any(|bytes| bytes == [7; 4]), "the seed");
        let [once, again] = [(), ()].map(|()| first.tree().expect("kept"));
        let seeds = [&blob, &once, &again].map(|blob| seed(blob));
        assert!(seeds.iter().all(|seed| seed.len() == 32));
        assert!(seeds[0] != seeds[1] && seeds[1] != seeds[2]);
        let same = machine(&seeds[1]);
        assert_eq!(once, same, "nothing else is another");
    }

    #[test]
    fn another_machine_has_another_tree() {
        let folder = folder();
        let first = kept(&folder, &["-m", "32M"]).expect("a program");
        first.keep(&machine(&[1; 8])).expect("kept");
        for arguments in [&["-m", "33M"][..], &["-m", "32M", "-smp"], &["-m32M"]] {
            let other = kept(&folder, arguments).expect("a program");
            assert_eq!(other.tree(), None, "{arguments:?}");
        }
        // With the same name by chance.
        let other = kept(&folder, &["-m", "33M"]).expect("a program");
        fs::copy(first.file(), other.file()).expect("a file");
        assert_eq!(other.tree(), None);
        // Another program at the same place.
        assert!(first.tree().is_some());
        fs::write(folder.0.join("other"), b"\x7fELF").expect("a file");
        fs::rename(folder.0.join("other"), folder.0.join("qemu")).expect("a file");
        let other = kept(&folder, &["-m", "32M"]).expect("a program");
        assert_eq!(other.tree(), None);
    }

    #[test]
    fn what_is_cut_off_is_not_taken() {
        let folder = folder();
        let first = kept(&folder, &[]).expect("a program");
        first.keep(&machine(&[1; 8])).expect("kept");
        let whole = fs::read(first.file()).expect("a file");
        for length in 0..whole.len() {
            fs::write(first.file(), &whole[..length]).expect("a file");
            assert_eq!(first.tree(), None, "{length}");
        }
    }

    #[test]
    fn what_only_starts_a_program_says_nothing_of_it() {
        let folder = folder();
        fs::write(folder.0.join("qemu"), b"#!/bin/sh\n").expect("a file");
        assert!(kept(&folder, &[]).is_none());
        fs::remove_file(folder.0.join("qemu")).expect("a file");
        assert!(kept(&folder, &[]).is_none());
    }
}
