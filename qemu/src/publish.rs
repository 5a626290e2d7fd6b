//! Keeps the vmclock page of a running QEMU filled with the host's time.
//!
//! A publisher is a thread with a QMP connection of its own. Every 50 ms it samples the host's
//! clock and writes the page; in between it listens for what disrupts the guest's counter:
//! * `STOP`: the page becomes invalid under a new disruption marker.
//! * `RESUME`: the guest's counter is tied to the host's anew ([`crate::mapping`]), and only then
//!   does the page become valid, with that marker.
//! * `RESET`, `WAKEUP`: a new marker. (Under TCG the counter runs on.)
//! * a step of the host's clock, another program's write to the page (QEMU's own after a
//!   migration), a change of what the bound is a bound against: a new marker, and whatever has to
//!   be measured is measured before the page is valid again.
//!
//! A stop by somebody else's hand is known only when its event arrives, some 100 µs later. Whoever
//! wants no such gap stops the machine through [`Publisher::stop`], which invalidates first.
//!
//! **A machine that is restored** finds the page of then in its memory. On x86 QEMU's device raises the
//! marker in it before the guest runs. On aarch64 there is no device, so the publisher sees to it: while
//! a machine is stopped it looks at the page as often as at the clock, and once more before it lets the
//! machine run, and a page that it has not written becomes invalid under a new marker; one that is still
//! being loaded is let run only when it has been. What remains, on aarch64, is a machine that somebody
//! else lets run within those 50 ms (`-incoming` without `-S`, `loadvm`): it sees the old page until
//! its event arrives, some 100 µs; and one that no publisher is attached to, for as long as it runs.
//!
//! An invalid page has the status `INITIALIZING` before the first time, and `UNRELIABLE` after it:
//! Linux guests honour only the latter.

use core::fmt;
use core::time::Duration;
use std::io::{self, pipe};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::SystemTime;

use gnomon_clock::Fields;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;

use crate::arch::Arch;
use crate::attend::Signals;
use crate::estimate::Tracker;
use crate::host::{HostClock, HostError};
use crate::mapping::Mapping;
use crate::memory::MemoryError;
use crate::page::{Reference, Scale};
pub use crate::player::Piece;
use crate::qmp::{Qmp, QmpError};
use crate::scenario::Scenario;
use crate::vmstate::VmStateError;
use crate::worker::{Request, Worker};

/// What to publish, and how.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The scale of the published time.
    pub scale: Scale,
    /// What the bound is a bound against.
    pub reference: Reference,
    /// Time between two updates.
    pub interval: Duration,
    /// Where the page lies in the guest's memory; [`Arch::page`] if that is not given.
    pub page: Option<u64>,
    /// Look for the counter's exact offset in QEMU's memory. Without it the bound is wider.
    pub exact_mapping: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            scale: Scale::default(),
            reference: Reference::default(),
            interval: Duration::from_millis(50),
            page: None,
            exact_mapping: true,
        }
    }
}

/// The host's clock, with what is known of its rate.
///
/// Made early (before QEMU starts, say), it can tell the time as soon as a guest runs.
#[derive(Debug)]
pub struct Host {
    pub(crate) clock: HostClock,
    pub(crate) tracker: Tracker,
}

impl Host {
    /// Takes the first sample, for a guest of this architecture.
    ///
    /// # Errors
    /// When the host's counter or clock is of no use.
    pub fn new(arch: Arch) -> Result<Self, HostError> {
        let clock = HostClock::new(arch.host_counter())?;
        let mut host = Self {
            clock,
            tracker: Tracker::default(),
        };
        host.look()?;
        Ok(host)
    }

    /// Takes another sample. A rate takes three, over at least 20 ms: who takes them while there is
    /// something else to wait for does not wait for them later.
    ///
    /// # Errors
    /// When the kernel does not tell its clock.
    pub fn look(&mut self) -> Result<(), HostError> {
        let sample = self.clock.sample()?;
        self.tracker.observe(&sample);
        Ok(())
    }
}

/// Where a line for the user goes.
pub type Notice = Box<dyn FnMut(&str) + Send>;

/// What a publisher has done so far.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The page as last written.
    pub fields: Option<Fields>,
    /// Whether that has time in it.
    pub valid: bool,
    /// The guest's counter, while it is known.
    pub mapping: Option<Mapping>,
    /// Publications of time.
    pub updates: u64,
    /// New markers.
    pub disruptions: u64,
    /// Samples that were not published because the page as it was promised more.
    pub kept: u64,
    /// The scenario that is played, or was to its end.
    pub scenario: Option<Progress>,
    /// The thread has ended: QEMU has, or something failed.
    pub ended: bool,
}

/// How far a scenario has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The line of its text that is played.
    pub line: usize,
    /// It is over, and its last state goes on.
    pub over: bool,
    /// Pages that contradict what was promised before, under the same marker.
    pub broken: u64,
}

/// A disruption marker while a scenario is played, for those who judge what guests say meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// The marker.
    pub marker: u64,
    /// Whether the page has time in it.
    pub valid: bool,
    /// Before the first byte under this marker was written.
    pub begun: SystemTime,
    /// After the last byte of that update was.
    pub done: SystemTime,
    /// What is true under it, from each piece's moment on.
    pub truth: Vec<Piece>,
}

/// How many epochs are kept, and pieces of each.
pub(crate) const JOURNAL: usize = 1 << 16;

/// A thread that keeps a page filled. It ends with QEMU, or when this is dropped.
#[derive(Debug)]
pub struct Publisher {
    commands: Sender<Request>,
    wake: Arc<OwnedFd>,
    /// Readable (at its end) when the thread has ended.
    ended: OwnedFd,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<(), PublishError>>>,
}

#[derive(Debug)]
pub(crate) enum Command {
    Play(Box<Scenario>),
    Stop,
    Cont,
    Reset,
    Pause,
    Unpause,
    End,
}

#[derive(Debug, Default)]
pub(crate) struct Shared {
    report: Mutex<Report>,
    journal: Mutex<Vec<Epoch>>,
    pub(crate) changed: Condvar,
}

impl Shared {
    pub(crate) fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn journal(&self) -> MutexGuard<'_, Vec<Epoch>> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Publisher {
    /// Attaches to the QEMU process `pid` through one of its monitors.
    ///
    /// A machine that runs is stopped for about a millisecond to read its counter. A machine that
    /// is stopped stays so, and its page becomes valid when it is resumed.
    ///
    /// # Errors
    /// When this QEMU cannot be published to, with the reason.
    pub fn attach(
        qmp: Qmp,
        pid: u32,
        host: Host,
        options: Options,
        notice: Notice,
    ) -> Result<Self, PublishError> {
        let shared = Arc::new(Shared::default());
        let mut worker = Worker::new(qmp, pid, host, options, notice, Arc::clone(&shared))?;
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (commands, receiver) = mpsc::channel();
        let (ended, alive) = pipe()?;
        let worker_wake = Arc::clone(&wake);
        let body = move || {
            let outcome = worker
                .run(&receiver, &worker_wake)
                .or_else(|error| worker.excuse(error));
            worker.end(&outcome);
            drop(alive);
            outcome
        };
        let thread = Some(
            thread::Builder::new()
                .name("publisher".into())
                .spawn(body)?,
        );
        Ok(Self {
            commands,
            wake,
            ended: ended.into(),
            shared,
            thread,
        })
    }

    /// Makes the page invalid, then stops the machine.
    ///
    /// # Errors
    /// When QEMU refuses or has ended.
    pub fn stop(&self) -> Result<(), PublishError> {
        self.ask(Command::Stop)
    }

    /// Lets the machine run.
    ///
    /// # Errors
    /// When QEMU refuses or has ended.
    pub fn cont(&self) -> Result<(), PublishError> {
        self.ask(Command::Cont)
    }

    /// Resets the machine.
    ///
    /// # Errors
    /// When QEMU refuses or has ended.
    pub fn reset(&self) -> Result<(), PublishError> {
        self.ask(Command::Reset)
    }

    /// Leaves the page alone from now on: it freezes, or the caller writes it.
    ///
    /// # Errors
    /// When QEMU has ended.
    pub fn pause(&self) -> Result<(), PublishError> {
        self.ask(Command::Pause)
    }

    /// Takes the page back after [`pause`](Self::pause), with a new marker.
    ///
    /// # Errors
    /// When QEMU has ended.
    pub fn unpause(&self) -> Result<(), PublishError> {
        self.ask(Command::Unpause)
    }

    /// Plays a scenario from now on, or as soon as time is known. One that is still played ends; the
    /// last state of this one goes on when it is over. Returns at once.
    ///
    /// # Errors
    /// When QEMU has ended.
    pub fn play(&self, scenario: Scenario) -> Result<(), PublishError> {
        self.ask(Command::Play(Box::new(scenario)))
    }

    /// Every marker since the first scenario began, oldest first, up to 65,536 of them.
    #[must_use]
    pub fn journal(&self) -> Vec<Epoch> {
        self.shared.journal().clone()
    }

    /// What has been done so far.
    #[must_use]
    pub fn report(&self) -> Report {
        self.shared.report().clone()
    }

    /// Waits until what has been done satisfies `condition`; `None` when it does not in time, or
    /// the thread has ended without.
    pub fn wait(&self, timeout: Duration, condition: impl Fn(&Report) -> bool) -> Option<Report> {
        let report = self.shared.report();
        let waiting = |report: &mut Report| !condition(report) && !report.ended;
        let waited = self
            .shared
            .changed
            .wait_timeout_while(report, timeout, waiting);
        let (report, _) = waited.unwrap_or_else(PoisonError::into_inner);
        condition(&report).then(|| report.clone())
    }

    /// Waits until QEMU ends.
    ///
    /// # Errors
    /// What made publishing impossible before that.
    pub fn join(mut self) -> Result<(), PublishError> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(outcome)) => outcome,
            _ => Err(PublishError::Ended),
        }
    }

    /// Waits until QEMU ends, or one of the signals arrives.
    ///
    /// # Errors
    /// What made publishing impossible before that.
    pub fn join_or(self, signals: &Signals) -> Result<(), PublishError> {
        let asked = PollFd::new(signals, PollFlags::IN);
        let ended = PollFd::new(&self.ended, PollFlags::IN);
        let mut descriptors = [asked, ended];
        while let Err(error) = poll(&mut descriptors, None) {
            if error != Errno::INTR {
                return Err(error.into());
            }
        }
        let [_, ended] = descriptors.map(|descriptor| !descriptor.revents().is_empty());
        if ended { self.join() } else { Ok(()) }
    }

    fn ask(&self, command: Command) -> Result<(), PublishError> {
        let (sender, receiver) = mpsc::channel();
        self.commands
            .send((command, sender))
            .map_err(|_| PublishError::Ended)?;
        rustix::io::write(&self.wake, &1_u64.to_ne_bytes())?;
        receiver.recv().unwrap_or(Err(PublishError::Ended))
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // Either fails only when the thread has ended already.
            let _ended = self.ask(Command::End);
            let _joined = thread.join();
        }
    }
}

/// Why time cannot be published, or no longer.
#[derive(Debug)]
pub enum PublishError {
    /// The monitor fails.
    Qmp(QmpError),
    /// The page or the process cannot be reached.
    Memory(MemoryError),
    /// The host's clock is of no use.
    Host(HostError),
    /// A request to the kernel fails.
    Io(io::Error),
    /// The guest's counter is not where it is expected.
    VmState(VmStateError),
    /// QEMU does not write the device state, with its reason.
    DeviceState(String),
    /// Under KVM the relation between the counters cannot be proven from outside.
    Kvm,
    /// Under `-icount` the guest's counter does not follow the host's.
    Icount,
    /// A machine of an architecture that is not ours, or not the one that the host's clock is read for.
    Arch(String),
    /// A counter of a frequency that is none, in QEMU's words.
    Frequency(String),
    /// Nothing lies at the page's address.
    NoPage {
        /// The address in the guest's memory.
        address: u64,
        /// QEMU's words.
        answer: String,
    },
    /// The publisher has ended.
    Ended,
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Qmp(error) => error.fmt(f),
            Self::Memory(error) => error.fmt(f),
            Self::Host(error) => error.fmt(f),
            Self::Io(error) => error.fmt(f),
            Self::VmState(error) => write!(f, "the guest's counter cannot be read: {error}"),
            Self::DeviceState(reason) => {
                write!(
                    f,
                    "the guest's counter cannot be read, QEMU does not save its state: {reason}"
                )
            }
            Self::Kvm => f.write_str(
                "no time is published to a KVM guest: how its counter relates to the host's cannot be \
                 proven from outside (use --accel tcg, or --no-publish)",
            ),
            Self::Icount => f.write_str(
                "no time is published to a guest under -icount: its counter counts instructions",
            ),
            Self::Arch(arch) => {
                write!(f, "no time is published to a guest of architecture {arch} here")
            }
            Self::Frequency(hertz) => write!(
                f,
                "no time is published to a guest whose counter runs at {hertz} Hz"
            ),
            Self::NoPage { address, answer } => write!(
                f,
                "the guest has no vmclock page at {address:#x}: start QEMU (10.0 or newer) with \
                 -device vmclock, or an aarch64 guest with `gnomon-qemu run` ({answer})"
            ),
            Self::Ended => f.write_str("the publisher has ended"),
        }
    }
}

impl core::error::Error for PublishError {}

/// A conversion for each kind of trouble, so that `?` does.
macro_rules! from {
    ($($error:ty => $variant:ident,)*) => {$(
        impl From<$error> for PublishError {
            fn from(error: $error) -> Self {
                Self::$variant(error.into())
            }
        }
    )*};
}

from! {
    QmpError => Qmp,
    MemoryError => Memory,
    HostError => Host,
    io::Error => Io,
    Errno => Io,
    VmStateError => VmState,
}
