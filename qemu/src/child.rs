//! QEMU as a child process that never outlives this one.

use core::fmt;
use core::time::Duration;
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{self, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::qmp::readable;
use crate::sys;

/// What is kept of QEMU's complaints, in bytes.
const COMPLAINTS: usize = 64 << 10;

/// How QEMU ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With this exit status: 0 after a power-off, see
    /// [`EXIT_PORT`](crate::machine::EXIT_PORT) for others.
    Status(i32),
    /// Killed by this signal.
    Signal(i32),
}

impl From<ExitStatus> for End {
    fn from(status: ExitStatus) -> Self {
        status
            .code()
            .map_or_else(|| Self::Signal(status.signal().unwrap_or(0)), Self::Status)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "exit status {status}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// A running child, killed when this is dropped.
///
/// The kernel kills a child when the thread that started it ends (see [`sys::die_with_parent`]). So a
/// thread of its own starts it, and stays to wait for it.
#[derive(Debug)]
pub(crate) struct Child {
    pid: u32,
    /// Becomes readable when the child has ended.
    descriptor: OwnedFd,
    waiter: Option<JoinHandle<io::Result<ExitStatus>>>,
    listener: Option<JoinHandle<()>>,
    complaints: Arc<Mutex<Vec<u8>>>,
    end: Option<End>,
}

impl Child {
    /// Starts the program in a process group of its own: a Ctrl-C at the terminal is ours to handle.
    pub(crate) fn start(program: &Path, arguments: &[OsString]) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments).process_group(0);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        sys::die_with_parent(&mut command);
        let (sender, receiver) = mpsc::channel();
        let body = move || {
            let started = command
                .spawn()
                .and_then(|child| Ok((descriptor(child.id())?, child)));
            match started {
                Ok((descriptor, mut child)) => {
                    let _gone = sender.send(Ok((child.id(), descriptor, child.stderr.take())));
                    child.wait()
                }
                Err(error) => {
                    let _gone = sender.send(Err(error));
                    Err(Errno::CHILD.into())
                }
            }
        };
        let waiter = Some(thread::Builder::new().name("qemu".into()).spawn(body)?);
        let gone = io::Error::from(io::ErrorKind::BrokenPipe);
        let (pid, descriptor, errors) = receiver.recv().unwrap_or(Err(gone))?;
        let complaints = Arc::new(Mutex::new(Vec::new()));
        let listener = errors
            .map(|errors| listen(errors, Arc::clone(&complaints)))
            .transpose()?;
        Ok(Self {
            pid,
            descriptor,
            waiter,
            listener,
            complaints,
            end: None,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// What it has written to its standard error, once it has ended all of it.
    pub(crate) fn complaints(&self) -> String {
        let complaints = self
            .complaints
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&complaints).into_owned()
    }

    /// How it ended; `None` when it does not in time.
    pub(crate) fn wait(&mut self, timeout: Duration) -> Option<End> {
        let ended = readable(&self.descriptor, timeout).unwrap_or(true);
        if let Some(waiter) = self.waiter.take_if(|_| ended) {
            let status = waiter.join().ok().and_then(Result::ok);
            self.end = Some(status.map_or(End::Signal(0), End::from));
            if let Some(listener) = self.listener.take() {
                let _complete = listener.join();
            }
        }
        self.end
    }

    /// Waits until `other` is readable, or the child has ended.
    pub(crate) fn readable_or_ended(
        &self,
        other: &impl AsFd,
        timeout: Duration,
    ) -> io::Result<bool> {
        let timeout = Timespec::try_from(timeout).map_err(|_| Errno::INVAL)?;
        let ours = PollFd::new(&self.descriptor, PollFlags::IN);
        match poll(
            &mut [PollFd::new(other, PollFlags::IN), ours],
            Some(&timeout),
        ) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn kill(&mut self) {
        // Fails only when it has ended already.
        let _ended = pidfd_send_signal(&self.descriptor, Signal::KILL);
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.end.is_none() {
            self.kill();
            self.wait(Duration::from_secs(10));
        }
    }
}

/// To be called before the child is waited for: until then the number is its own.
fn descriptor(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(Errno::SRCH)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

fn listen(
    mut errors: process::ChildStderr,
    complaints: Arc<Mutex<Vec<u8>>>,
) -> io::Result<JoinHandle<()>> {
    let body = move || {
        let mut chunk = [0; 4096];
        while let Ok(length @ 1..) = errors.read(&mut chunk) {
            let mut kept = complaints.lock().unwrap_or_else(PoisonError::into_inner);
            let room = COMPLAINTS.saturating_sub(kept.len()).min(length);
            kept.extend(chunk.get(..room).unwrap_or_default());
        }
    };
    thread::Builder::new()
        .name("qemu-stderr".into())
        .spawn(body)
}
