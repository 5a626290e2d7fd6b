//! Stays with a machine until it ends or somebody ends it: signals, a time limit, the terminal.

use core::time::Duration;
use std::collections::VecDeque;
use std::io::{self, IsTerminal, Stdin};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use rustix::process::getpgrp;
use rustix::termios::{OptionalActions, OutputModes, Termios, tcgetattr, tcgetpgrp, tcsetattr};

use crate::child::End;
use crate::qmp::readable;
use crate::sys;
use crate::vm::Vm;

/// Ctrl-C, as a terminal in raw mode sends it.
const INTERRUPT: u8 = 0x03;
/// What is kept for a guest that does not listen; a terminal's input beyond it is thrown away.
const UNHEARD: usize = 64 << 10;

/// The signals that ask a program to end (`SIGINT`, `SIGTERM`, `SIGHUP`, `SIGQUIT`), to be waited for
/// instead of dying of them.
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// Blocks the signals. To be called before the program's first thread is started.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn block() -> io::Result<Self> {
        sys::ending_signals().map(Self)
    }
}

impl AsFd for Signals {
    /// Readable when one of them has arrived.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Why a machine is not attended any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// A signal, Ctrl-C or the time limit: QEMU was asked to end.
    Asked,
    /// QEMU has ended by itself.
    Ended(End),
}

/// Stays with the machine, passing on what is typed if its serial line is
/// [`SerialTo::Stdout`](crate::machine::SerialTo::Stdout). A terminal is put into raw mode, so that
/// the guest's line editor echoes; Ctrl-C there ends the machine. The end of the input does not.
///
/// # Errors
/// When the terminal or a descriptor fails.
pub fn attend(vm: &mut Vm, signals: &Signals, limit: Option<Duration>) -> io::Result<Finish> {
    let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
    let ended = vm.descriptor()?;
    let mut typed = vm.interactive_line()?.map(Typed::new).transpose()?;
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            break;
        }
        let left = left
            .map(Timespec::try_from)
            .transpose()
            .map_err(|_| Errno::INVAL)?;
        let mut descriptors = vec![
            PollFd::new(&signals.0, PollFlags::IN),
            PollFd::new(&ended, PollFlags::IN),
        ];
        descriptors.extend(typed.as_ref().into_iter().flat_map(Typed::descriptors));
        match poll(&mut descriptors, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [asked, gone] = [0, 1].map(|at| {
            descriptors
                .get(at)
                .is_some_and(|descriptor| !descriptor.revents().is_empty())
        });
        if asked {
            break;
        }
        if gone && let Some(end) = vm.wait_exit(Duration::ZERO) {
            vm.finish_serial();
            return Ok(Finish::Ended(end));
        }
        if let Some(typed) = &mut typed
            && typed.pass_on()? == Heard::Interrupt
        {
            break;
        }
    }
    vm.quit();
    Ok(Finish::Asked)
}

/// What is typed, on its way to the guest.
struct Typed {
    line: UnixStream,
    stdin: Stdin,
    terminal: Option<RawTerminal>,
    /// Bytes that the guest has not taken yet.
    unheard: VecDeque<u8>,
    at_end: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Nothing,
    Interrupt,
}

impl Typed {
    fn new(line: UnixStream) -> io::Result<Self> {
        let (stdin, terminal) = (io::stdin(), RawTerminal::enter()?);
        Ok(Self {
            line,
            stdin,
            terminal,
            unheard: VecDeque::new(),
            at_end: false,
        })
    }

    /// A terminal is always listened to, for Ctrl-C; a file only when the guest has taken all of it.
    fn listens(&self) -> bool {
        !self.at_end && (self.terminal.is_some() || self.unheard.is_empty())
    }

    fn descriptors(&self) -> impl Iterator<Item = PollFd<'_>> {
        let stdin = self
            .listens()
            .then(|| PollFd::new(&self.stdin, PollFlags::IN));
        let line = (!self.unheard.is_empty()).then(|| PollFd::new(&self.line, PollFlags::OUT));
        stdin.into_iter().chain(line)
    }

    /// Reads what there is to read, and writes what can be written, without waiting for either.
    fn pass_on(&mut self) -> io::Result<Heard> {
        if self.listens() && readable(&self.stdin, Duration::ZERO)? {
            let mut chunk = [0; 1024];
            let length =
                rustix::io::read(&self.stdin, &mut chunk).or_else(|error| match error {
                    // Of a terminal that has gone away, which is an end as well.
                    Errno::IO => Ok(0),
                    error => Err(error),
                })?;
            let bytes = chunk.get(..length).unwrap_or_default();
            self.at_end = bytes.is_empty();
            if self.terminal.is_some() && bytes.contains(&INTERRUPT) {
                return Ok(Heard::Interrupt);
            }
            let room = UNHEARD.saturating_sub(self.unheard.len());
            self.unheard.extend(bytes.iter().take(room));
        }
        let (next, _) = self.unheard.as_slices();
        if !next.is_empty() {
            match send(&self.line, next, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(length) => drop(self.unheard.drain(..length)),
                Err(Errno::AGAIN | Errno::INTR) => {}
                // QEMU is ending, which is noticed elsewhere.
                Err(_) => self.unheard.clear(),
            }
        }
        Ok(Heard::Nothing)
    }
}

/// The terminal passes on every key by itself and unseen, until this is dropped.
struct RawTerminal(Termios);

impl RawTerminal {
    /// `None` when the standard input is no terminal, or is another program's at the moment (we were
    /// started with `&`: changing it would stop us).
    fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() || tcgetpgrp(&stdin).is_ok_and(|foreground| foreground != getpgrp())
        {
            return Ok(None);
        }
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        // But for the output: what we say ourselves ends in "\n" alone.
        raw.output_modes
            .insert(OutputModes::OPOST | OutputModes::ONLCR);
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Some(Self(before)))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // If the terminal has gone there is nothing to put right.
        let _gone = tcsetattr(io::stdin(), OptionalActions::Drain, &self.0);
    }
}
