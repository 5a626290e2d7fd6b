//! Programs that a test starts, listens to and ends.

use core::time::Duration;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::PATIENCE;

/// A running program with its standard streams, killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    descriptor: OwnedFd,
    input: Option<ChildStdin>,
    heard: Arc<Heard>,
    listeners: Vec<JoinHandle<()>>,
    consumed: usize,
    status: Option<ExitStatus>,
}

#[derive(Debug, Default)]
struct Heard {
    said: Mutex<Vec<u8>>,
    changed: Condvar,
}

impl Heard {
    fn said(&self) -> MutexGuard<'_, Vec<u8>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Process {
    /// Starts the program. What it says on its standard output and error goes into one log.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("{name}: {error}: `make test` installs what the tests need"),
        };
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let descriptor = pidfd_open(pid.expect("a process"), PidfdFlags::empty()).expect("a pidfd");
        let heard = Arc::new(Heard::default());
        let mut listeners = Vec::new();
        let output = child.stdout.take().map(|output| Box::new(output) as Stream);
        let errors = child.stderr.take().map(|errors| Box::new(errors) as Stream);
        for stream in output.into_iter().chain(errors) {
            let heard = Arc::clone(&heard);
            listeners.push(thread::spawn(move || listen(stream, &heard)));
        }
        let input = child.stdin.take();
        Self {
            name,
            child,
            descriptor,
            input,
            heard,
            listeners,
            consumed: 0,
            status: None,
        }
    }

    /// Runs the program to its end, and returns how it ended and what it said.
    #[must_use]
    pub fn run(command: &mut Command) -> (ExitStatus, String) {
        let mut process = Self::start(command);
        process.input = None;
        let status = process.wait();
        (status, process.log())
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The processes that it has started and that still run.
    #[must_use]
    pub fn children(&self) -> Vec<u32> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).expect("it runs");
        let mut children = Vec::new();
        for task in tasks {
            let file = task.expect("a thread").path().join("children");
            let list = std::fs::read_to_string(file).unwrap_or_default();
            children.extend(
                list.split_ascii_whitespace()
                    .map(|pid| pid.parse::<u32>().expect("a number")),
            );
        }
        children
    }

    /// Says something to it.
    pub fn say(&mut self, bytes: &[u8]) {
        let input = self.input.as_mut().expect("its input is open");
        input.write_all(bytes).expect("it listens");
    }

    /// Waits until it has said `pattern` after what was waited for last; returns everything up to
    /// there.
    pub fn wait_for(&mut self, pattern: &str) -> String {
        let consumed = self.consumed;
        let find = |said: &Vec<u8>| {
            let mut windows = said[consumed..].windows(pattern.len());
            let at = windows.position(|window| window == pattern.as_bytes())?;
            Some(consumed + at + pattern.len())
        };
        let deadline = Instant::now() + PATIENCE;
        let mut said = self.heard.said();
        let end = loop {
            if let Some(end) = find(&said) {
                break end;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let ended = self.listeners.iter().all(JoinHandle::is_finished);
            assert!(
                !left.is_zero() && !ended,
                "{} has not said {pattern:?}; it said:\n{}",
                self.name,
                String::from_utf8_lossy(&said)
            );
            let left = left.min(Duration::from_secs(1));
            let waited = self.heard.changed.wait_timeout(said, left);
            said = waited.unwrap_or_else(PoisonError::into_inner).0;
        };
        self.consumed = end;
        String::from_utf8_lossy(&said[consumed..end]).into_owned()
    }

    /// Everything it has said so far.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.heard.said()).into_owned()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        pidfd_send_signal(&self.descriptor, signal).expect("it runs");
    }

    /// Waits until it has ended and all it said is in the log.
    pub fn wait(&mut self) -> ExitStatus {
        match self.wait_within(PATIENCE) {
            Some(status) => status,
            None => panic!("{} does not end; it said:\n{}", self.name, self.log()),
        }
    }

    fn wait_within(&mut self, patience: Duration) -> Option<ExitStatus> {
        if self.status.is_none() && self.has_ended(patience) {
            self.status = self.child.wait().ok();
            for listener in self.listeners.drain(..) {
                let _complete = listener.join();
            }
        }
        self.status
    }

    fn has_ended(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).expect("minutes at most");
            let mut descriptors = [PollFd::new(&self.descriptor, PollFlags::IN)];
            match poll(&mut descriptors, Some(&left)) {
                Ok(ready) => return ready > 0,
                Err(Errno::INTR) => {}
                Err(error) => panic!("poll: {error}"),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.status.is_none() {
            // Fails only when it has ended already.
            let _ended = self.child.kill();
            self.wait_within(Duration::from_secs(10));
        }
    }
}

type Stream = Box<dyn Read + Send>;

fn listen(mut stream: Stream, heard: &Heard) {
    let mut chunk = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut chunk) {
        heard.said().extend(&chunk[..length]);
        heard.changed.notify_all();
    }
}
