//! What a process has in the directory for temporary files: its number is in the names, so that what is left of one
//! that was killed is removed by the next.

use core::sync::atomic::{AtomicU32, Ordering};
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::SystemTime;
use std::{env, fs, io, process};

use rustix::process::geteuid;

/// What the names of ours begin with, before the number of the process.
const PREFIX: &str = "gnomon-";

/// A directory of one's own, which goes away with this.
#[derive(Debug)]
pub(crate) struct Directory(pub(crate) PathBuf);

impl Directory {
    pub(crate) fn new() -> io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        static OTHERS: Once = Once::new();
        OTHERS.call_once(|| remove(PREFIX, |pid| !is_running(pid)));
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let nanos = SystemTime::UNIX_EPOCH
            .elapsed()
            .map_or(0, |age| age.subsec_nanos());
        let name = format!("{PREFIX}{}-{number}-{nanos:x}", process::id());
        let path = env::temp_dir().join(name);
        // Nobody else may look in, and it must not have been there.
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        remove_path(&self.0);
    }
}

/// Whether there is a process with this number.
#[must_use]
pub fn is_running(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

/// Removes temporary files and directories of this user's called `prefix`, a process's number, `-` and anything, where
/// `is_due` says so of the number.
pub fn remove(prefix: &str, is_due: impl Fn(u32) -> bool) {
    for path in named(&env::temp_dir(), prefix, is_due) {
        let owner = fs::symlink_metadata(&path).map(|metadata| metadata.uid());
        if owner.is_ok_and(|owner| owner == geteuid().as_raw()) {
            remove_path(&path);
        }
    }
}

/// What is called like that in a directory.
pub fn named(directory: &Path, prefix: &str, is_due: impl Fn(u32) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let has_name = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        let rest = name.and_then(|name| name.strip_prefix(prefix));
        let pid = rest.and_then(|rest| rest.split_once('-')?.0.parse().ok());
        pid.is_some_and(&is_due)
    };
    entries.map(|entry| entry.path()).filter(has_name).collect()
}

/// Removes a file, a socket or a directory. What cannot be removed is not worth a word, and it may never have been made.
pub fn remove_path(path: &Path) {
    let _left = fs::remove_file(path).or_else(|_| fs::remove_dir_all(path));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_dead_have_left_is_removed_and_nothing_else() {
        let mut child = process::Command::new("true").spawn().expect("a program");
        child.wait().expect("it ends");
        let dead = child.id();
        assert!(is_running(process::id()) && !is_running(dead));
        let at = |name: String| env::temp_dir().join(name);
        let left = [
            at(format!("{PREFIX}{dead}-0-directory")),
            at(format!("{PREFIX}{dead}-1-file")),
        ];
        fs::create_dir_all(left[0].join("deep")).expect("a directory");
        fs::write(&left[1], "left").expect("a file");
        let others = [
            at(format!("{PREFIX}{dead}")),
            at(format!("{PREFIX}{dead}x-0")),
            at(format!("{PREFIX}-{dead}-0")),
        ];
        for other in &others {
            fs::write(other, "not ours to remove").expect("a file");
        }
        let own = Directory::new().expect("a directory");
        remove(PREFIX, |pid| pid == dead);
        for path in &left {
            assert!(!path.exists(), "{}", path.display());
        }
        for other in &others {
            fs::remove_file(other).expect("it is still there");
        }
        let path = own.0.clone();
        assert!(path.exists());
        drop(own);
        assert!(!path.exists());
    }
}
