//! What a soak leaves that is ended before its time: nothing, or nothing for long.

use core::time::Duration;
use std::path::Path;
use std::process::Command;
use std::time::Instant;
use std::{env, fs, thread};

use gnomon_tests::process::Process;
use gnomon_tests::{PATIENCE, Slot};
use rustix::process::Signal;

#[test]
fn one_that_is_asked_to_end_cleans_up() {
    for signal in [Signal::INT, Signal::TERM] {
        let _slot = Slot::take();
        let mut soak = started();
        let (pid, children) = (soak.pid(), soak.children());
        soak.signal(signal);
        assert_eq!(soak.wait().code(), Some(130), "{}", soak.log());
        assert_eq!(left(pid), Vec::<String>::new());
        wait_gone(&children);
    }
}

/// Nobody can clean up who is killed: the next one does.
#[test]
fn one_that_is_killed_is_cleaned_up_after() {
    let _slot = Slot::take();
    let mut soak = started();
    let (pid, children) = (soak.pid(), soak.children());
    soak.signal(Signal::KILL);
    soak.wait();
    wait_gone(&children);
    assert!(!left(pid).is_empty());
    let mut next = started();
    assert_eq!(left(pid), Vec::<String>::new());
    next.signal(Signal::TERM);
    next.wait();
}

/// A soak whose machine runs.
fn started() -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_soak"));
    let soak = Process::start(command.arg("3600"));
    let deadline = Instant::now() + PATIENCE;
    let is_guest = |pid: &u32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm"));
        name.is_ok_and(|name| name.starts_with("qemu-system"))
    };
    while !soak.children().iter().any(is_guest) {
        assert!(Instant::now() < deadline, "{}", soak.log());
        thread::sleep(Duration::from_millis(20));
    }
    assert!(!left(soak.pid()).is_empty());
    soak
}

/// Waits until these processes are no more: the kernel ends them with the one that has started them.
fn wait_gone(children: &[u32]) {
    let deadline = Instant::now() + PATIENCE;
    // What nobody has waited for has no command line any more.
    let is_there = |pid: &&u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline"));
        line.is_ok_and(|line| !line.is_empty())
    };
    while let Some(child) = children.iter().find(is_there) {
        assert!(Instant::now() < deadline, "{child} is still there");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Temporary files and namespaces with this number in their names.
fn left(pid: u32) -> Vec<String> {
    let start = format!("gnomon-test-{pid}-");
    let of = |directory: &Path| {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names
            .filter(|name| name.starts_with(&start))
            .collect::<Vec<_>>()
    };
    [of(&env::temp_dir()), of(Path::new("/run/netns"))].concat()
}
