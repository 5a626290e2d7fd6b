//! Keeps a guest busy for a long time, judges every answer, and prints a summary: `make soak`.
#![expect(clippy::print_stdout, reason = "a command talks to its user")]

use core::time::Duration;
use std::process::{self, ExitCode};
use std::thread;
use std::time::Instant;

use gnomon_qemu::attend::Signals;
use gnomon_tests::{Arch, on, soak, temporary};
use rustix::event::{PollFd, PollFlags, poll};

/// `soak SECONDS [ARCH]`
fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let seconds = words.first().and_then(|word| word.parse().ok());
    let arch = match words.get(1).map(String::as_str) {
        None | Some("x86_64") => Some(Arch::X86_64),
        Some("aarch64") => Some(Arch::Aarch64),
        Some(_) => None,
    };
    let (Some(seconds), Some(arch), true) = (seconds, arch, words.len() <= 2) else {
        println!("usage: soak SECONDS [x86_64|aarch64]");
        return ExitCode::from(2);
    };
    end_when_asked();
    let begun = Instant::now();
    let say = |line: &str| println!("[{:5.0}] {line}", begun.elapsed().as_secs_f64());
    println!("{} for {seconds} s or a little more", arch.name());
    let summary = on(arch, || soak::run(Duration::from_secs(seconds), &say));
    print!("{summary}");
    let faults = summary.faults();
    for fault in &faults {
        println!("FAULT       {fault}");
    }
    if faults.is_empty() {
        println!("no faults");
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Ends at once on Ctrl-C and the like, and leaves nothing behind: QEMU ends with this process. To be called before the
/// first thread is started.
fn end_when_asked() {
    let signals = Signals::block().expect("the kernel's leave");
    thread::spawn(move || {
        let mut waited = [PollFd::new(&signals, PollFlags::IN)];
        while poll(&mut waited, None) != Ok(1) {}
        println!("asked to end");
        temporary::remove_own();
        process::exit(130);
    });
}
