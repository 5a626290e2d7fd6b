//! What a run leaves outside of itself while it lasts: paths in the directory for temporary files, and network
//! namespaces. All have the number of the process in their names, `gnomon-test-PID-...`: they go when they are
//! dropped, and what a run has left that was killed, the next one removes.

use core::sync::atomic::{AtomicU32, Ordering};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::sync::Once;
use std::{env, fs};

use gnomon_qemu::temporary;

const PREFIX: &str = "gnomon-test-";
/// Where `ip netns` keeps them.
pub(crate) const NAMESPACES: &str = "/run/netns";

/// A name that nothing else has.
#[must_use]
pub(crate) fn name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    static OTHERS: Once = Once::new();
    OTHERS.call_once(|| remove(|pid| !temporary::is_running(pid)));
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}{}-{number}", process::id())
}

/// A path of one's own. What is there is removed when this is dropped: a file, a socket, a directory, or nothing.
#[derive(Debug)]
pub struct Temporary(PathBuf);

impl Temporary {
    /// A path at which nothing is yet.
    #[must_use]
    pub fn new(what: &str) -> Self {
        Self(env::temp_dir().join(format!("{}-{what}", name())))
    }

    /// An empty directory. Nobody else may look into it: chronyd puts its socket only there.
    #[must_use]
    pub fn directory(what: &str) -> Self {
        let new = Self::new(what);
        let made = fs::DirBuilder::new().mode(0o700).create(&new.0);
        made.expect("a directory of one's own");
        new
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        temporary::remove_path(&self.0);
    }
}

/// Removes everything of this process, for one that is about to end without dropping it.
pub fn remove_own() {
    remove(|pid| pid == process::id());
}

/// Removes what belongs to processes with such numbers.
fn remove(is_due: impl Fn(u32) -> bool) {
    temporary::remove(PREFIX, &is_due);
    for path in temporary::named(Path::new(NAMESPACES), PREFIX, is_due) {
        remove_namespace(&path.file_name().unwrap_or_default().to_string_lossy());
    }
}

/// Removes a network namespace. Fails only when it is gone; and this may run while a test fails.
pub(crate) fn remove_namespace(name: &str) {
    let mut command = Command::new("ip");
    command.args(["netns", "del", name]).stderr(Stdio::null());
    let _gone = command.status();
}

#[cfg(test)]
mod tests {
    use crate::netns::Netns;

    use super::*;

    #[test]
    fn namespaces_of_the_dead_are_removed_and_no_others() {
        let mut child = Command::new("true").spawn().expect("a program");
        child.wait().expect("it ends");
        let dead = child.id();
        let namespace = format!("{PREFIX}{dead}-0");
        let mut command = Command::new("ip");
        let made = command.args(["netns", "add", &namespace]).status();
        assert!(made.expect("ip").success(), "this test takes root");
        let file = Temporary::new("file");
        fs::write(file.path(), "").expect("a file");
        let netns = Netns::new();
        remove(|pid| pid == dead);
        assert!(!Path::new(NAMESPACES).join(namespace).exists());
        assert!(file.path().exists() && netns.run("true", &[]).0);
    }

    #[test]
    fn what_is_dropped_goes() {
        let (file, directory) = (Temporary::new("file"), Temporary::directory("directory"));
        fs::write(file.path(), "").expect("a file");
        fs::write(directory.path().join("file"), "").expect("a file");
        let paths = [file.path().to_owned(), directory.path().to_owned()];
        assert!(paths.iter().all(|path| path.exists()));
        drop((file, directory));
        assert!(!paths.iter().any(|path| path.exists()));
    }
}
