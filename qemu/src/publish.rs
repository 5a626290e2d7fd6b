//! Keeps the vmclock page of a running QEMU filled with the host's time.
//!
//! A publisher is a thread with a QMP connection of its own. Every 50 ms it samples the host's clock
//! and writes the page; in between it listens for what disrupts the guest's counter:
//! * `STOP`: the page becomes invalid under a new disruption marker.
//! * `RESUME`: the guest's counter is tied to the host's anew ([`crate::mapping`]), and only then
//!   does the page become valid, with that marker.
//! * `RESET`, `WAKEUP`: a new marker. (Under TCG the counter runs on.)
//! * a step of the host's clock, another program's write to the page (QEMU's own after a migration),
//!   a change of what the bound is a bound against: a new marker, and whatever has to be measured
//!   is measured before the page is valid again.
//!
//! A stop by somebody else's hand is known only when its event arrives, some 100 µs later. Whoever
//! wants no such gap stops the machine through [`Publisher::stop`], which invalidates first.
//!
//! An invalid page has the status `INITIALIZING` before the first time, and `UNRELIABLE` after it:
//! Linux guests honour only the latter.

use core::fmt;
use core::time::Duration;
use std::fs;
use std::io::{self, pipe};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use gnomon_clock::{ClockStatus, Fields, Span, Tai, Timestamp};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};
use serde_json::{Value, json};

use crate::attend::Signals;
use crate::estimate::{Estimate, Outcome, Tracker};
use crate::host::{HostClock, HostError, Sample};
use crate::mapping::{Bracket, Mapping, Timers, middle};
use crate::memory::{GuestPage, MemoryError};
use crate::page::{self, Reference, Scale};
use crate::qmp::{Event, Qmp, QmpError, Return};
use crate::vmstate::{self, VmStateError};

/// Where QEMU puts the page in the guest's memory.
pub const QEMU_PAGE: u64 = 0xfeff_b000;
/// How long a QEMU that has ended may take to close its sockets.
const LAST_BREATH: Duration = Duration::from_secs(2);
/// Time between two samples while there is no rate yet.
const CALIBRATION: Duration = Duration::from_millis(21);

/// What to publish, and how.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The scale of the published time.
    pub scale: Scale,
    /// What the bound is a bound against.
    pub reference: Reference,
    /// Time between two updates.
    pub interval: Duration,
    /// Where the page lies in the guest's memory.
    pub page: u64,
    /// Look for the counter's exact offset in QEMU's memory. Without it the bound is wider.
    pub exact_mapping: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            scale: Scale::default(),
            reference: Reference::default(),
            interval: Duration::from_millis(50),
            page: QEMU_PAGE,
            exact_mapping: true,
        }
    }
}

/// The host's clock, with what is known of its rate.
///
/// Made early (before QEMU starts, say), it can tell the time as soon as a guest runs.
#[derive(Debug)]
pub struct Host {
    clock: HostClock,
    tracker: Tracker,
}

impl Host {
    /// Takes the first sample.
    ///
    /// # Errors
    /// When the host's counter or clock is of no use.
    pub fn new() -> Result<Self, HostError> {
        let clock = HostClock::new()?;
        let mut tracker = Tracker::default();
        tracker.observe(&clock.sample()?);
        Ok(Self { clock, tracker })
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
    /// The thread has ended: QEMU has, or something failed.
    pub ended: bool,
}

/// A thread that keeps a page filled. It ends with QEMU, or when this is dropped.
#[derive(Debug)]
pub struct Publisher {
    commands: Sender<(Command, Sender<Result<(), PublishError>>)>,
    wake: Arc<OwnedFd>,
    /// Readable (at its end) when the thread has ended.
    ended: OwnedFd,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<(), PublishError>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Stop,
    Cont,
    Reset,
    Pause,
    Unpause,
    End,
}

#[derive(Debug, Default)]
struct Shared {
    report: Mutex<Report>,
    changed: Condvar,
}

impl Shared {
    fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
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
        mut qmp: Qmp,
        pid: u32,
        host: Host,
        options: Options,
        mut notice: Notice,
    ) -> Result<Self, PublishError> {
        let timers = Timers::find(pid)?;
        check_counter(&mut qmp, &timers, pid)?;
        let guest_page = GuestPage::open(pid, locate_page(&mut qmp, options.page)?)?;
        if let Err(error) = host.clock.table() {
            notice(&format!("warning: {error}"));
        }
        let marker = guest_page.fields()?.disruption_marker;
        let shared = Arc::new(Shared::default());
        let mut worker = Worker {
            qmp,
            host,
            timers,
            options,
            notice,
            page: guest_page,
            guest: Guest::Running(None),
            written: None,
            marker,
            was_valid: false,
            paused: false,
            said: None,
            shared: Arc::clone(&shared),
        };
        worker.disrupt()?;
        worker.look_at_machine()?;

        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (commands, receiver) = mpsc::channel();
        let (ended, alive) = pipe()?;
        let worker_wake = Arc::clone(&wake);
        let body = move || {
            let outcome = worker.run(&receiver, &worker_wake);
            let outcome = outcome.or_else(|error| worker.excuse(error));
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

/// What was read of a stopped machine.
#[derive(Clone, Copy, Debug)]
struct Stopped {
    counter: u64,
    /// Host counter before the command that read it.
    sent: u64,
    /// Host counter after its answer.
    arrived: u64,
}

/// The machine, as far as its counter goes.
#[derive(Clone, Copy, Debug)]
enum Guest {
    /// Its counter stands still at a value that is known if it could be read. It was stopped
    /// when the host's counter was `since`.
    Stopped {
        counter: Option<u64>,
        since: u64,
    },
    Running(Option<Mapping>),
}

struct Worker {
    qmp: Qmp,
    host: Host,
    timers: Timers,
    options: Options,
    notice: Notice,
    page: GuestPage,
    guest: Guest,
    /// What the page holds, if nobody else has written it.
    written: Option<Fields>,
    marker: u64,
    was_valid: bool,
    paused: bool,
    /// What the user was told last of the host's clock.
    said: Option<bool>,
    shared: Arc<Shared>,
}

impl Worker {
    fn run(
        &mut self,
        commands: &Receiver<(Command, Sender<Result<(), PublishError>>)>,
        wake: &OwnedFd,
    ) -> Result<(), PublishError> {
        let clock_set = ClockSet::new()?;
        loop {
            while let Some(event) = self.next_event()? {
                self.handle(&event)?;
            }
            while let Ok((command, reply)) = commands.try_recv() {
                if command == Command::End {
                    return Ok(());
                }
                let outcome = self.obey(command);
                let ended = matches!(outcome, Err(PublishError::Qmp(QmpError::Closed)));
                // The asker may have gone.
                let _gone = reply.send(outcome);
                if ended {
                    return Ok(());
                }
            }
            let due = Instant::now() + self.update()?;
            self.sleep(due, wake, &clock_set)?;
        }
    }

    /// Waits for the next update, an event, a command or a step of the clock.
    fn sleep(
        &mut self,
        due: Instant,
        wake: &OwnedFd,
        clock: &ClockSet,
    ) -> Result<(), PublishError> {
        if self.qmp.pending().next().is_some() {
            return Ok(());
        }
        let left = due.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
        let mut descriptors = [
            PollFd::new(&self.qmp, PollFlags::IN),
            PollFd::new(wake, PollFlags::IN),
            PollFd::new(&clock.0, PollFlags::IN),
        ];
        match poll(&mut descriptors, Some(&left)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [_, woken, set] = descriptors.map(|descriptor| !descriptor.revents().is_empty());
        if woken {
            rustix::io::read(wake, &mut [0_u8; 8])?;
        }
        if set {
            clock.arm()?;
        }
        Ok(())
    }

    fn next_event(&mut self) -> Result<Option<Event>, PublishError> {
        Ok(self.qmp.next_event(Duration::ZERO)?)
    }

    fn obey(&mut self, command: Command) -> Result<(), PublishError> {
        match command {
            Command::Stop => {
                self.disrupt()?;
                self.guest = Guest::Running(None);
                self.qmp.execute("stop", json!({}))?;
            }
            Command::Cont => {
                self.qmp.execute("cont", json!({}))?;
            }
            Command::Reset => {
                self.qmp.execute("system_reset", json!({}))?;
            }
            Command::Pause => self.paused = true,
            Command::Unpause => {
                self.paused = false;
                self.disrupt()?;
            }
            Command::End => {}
        }
        while let Some(event) = self.next_event()? {
            self.handle(&event)?;
        }
        Ok(())
    }

    fn handle(&mut self, event: &Event) -> Result<(), PublishError> {
        match event.name.as_str() {
            "STOP" | "WAKEUP" => {
                self.disrupt()?;
                self.look_at_machine()
            }
            "RESUME" => self.resumed(event),
            "RESET" => {
                self.disrupt()?;
                self.update().map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Finds out where the machine's counter is: of a stopped one by reading it, of a running one by
    /// stopping it for a moment.
    fn look_at_machine(&mut self) -> Result<(), PublishError> {
        let status = self.qmp.execute("query-status", json!({}))?;
        let state = status
            .value
            .get("status")
            .and_then(Value::as_str)
            .unwrap_or_default();
        self.guest = match state {
            "running" if self.disrupted_again() => Guest::Running(None),
            "running" => Guest::Running(self.measure_running()?),
            // States in which nothing else is going on that a look could disturb.
            "prelaunch" | "paused" | "debug" | "io-error" | "watchdog" | "guest-panicked" => {
                let Stopped { counter, sent, .. } = self.read_counter()?;
                let counter = (!self.disrupted_again()).then_some(counter);
                Guest::Stopped {
                    counter,
                    since: sent,
                }
            }
            _ => Guest::Stopped {
                counter: None,
                since: status.sent,
            },
        };
        self.share();
        Ok(())
    }

    /// The machine has started to run: between the event's stamp and the answer to any command that
    /// is given after the event has arrived.
    fn resumed(&mut self, event: &Event) -> Result<(), PublishError> {
        let Guest::Stopped {
            counter: Some(counter),
            since,
        } = self.guest
        else {
            return self.look_at_machine();
        };
        let latest = self.qmp.execute("query-status", json!({}))?.arrived;
        if self.disrupted_again() {
            self.guest = Guest::Running(None);
            return Ok(()); // the events to come tell what to do
        }
        let earliest = self.not_before(event, since, latest);
        self.guest = Guest::Running(Some(self.map(counter, Bracket { earliest, latest })));
        self.update().map(drop)
    }

    /// Stops the machine for about a millisecond, reads its counter and lets it go on, all in one
    /// command; `None` when somebody else stopped or started it at the same time.
    fn measure_running(&mut self) -> Result<Option<Mapping>, PublishError> {
        let Stopped {
            counter,
            sent,
            arrived,
        } = self.read_counter()?;
        let (stop, resume) = (self.next_event()?, self.next_event()?);
        let named =
            |event: &Option<Event>, name| event.as_ref().is_some_and(|event| event.name == name);
        if !named(&stop, "STOP") || !named(&resume, "RESUME") || self.disrupted_again() {
            return Ok(None);
        }
        let earliest = resume.map_or(sent, |resume| self.not_before(&resume, sent, arrived));
        Ok(Some(self.map(
            counter,
            Bracket {
                earliest,
                latest: arrived,
            },
        )))
    }

    /// The counter of the machine while it is stopped, for which it is stopped if it runs.
    fn read_counter(&mut self) -> Result<Stopped, PublishError> {
        // QEMU writes into a file without a name in our memory.
        let memory = memfd_create("gnomon-device-state", MemfdFlags::CLOEXEC)?;
        let path = format!("/proc/{}/fd/{}", process::id(), memory.as_raw_fd());
        let arguments = json!({ "filename": path, "live": false });
        let Return { sent, arrived, .. } =
            match self.qmp.execute("xen-save-devices-state", arguments) {
                Err(QmpError::Command { reason, .. }) => {
                    return Err(PublishError::DeviceState(reason));
                }
                answer => answer?,
            };
        let mut state = [0; 128];
        let length = rustix::io::pread(&memory, &mut state, 0)?;
        let counter = vmstate::stopped_counter(state.get(..length).unwrap_or_default())?;
        Ok(Stopped {
            counter,
            sent,
            arrived,
        })
    }

    /// The later of `since` and the event's own time stamp, if that makes sense.
    fn not_before(&self, event: &Event, since: u64, latest: u64) -> u64 {
        let stamp = event.stamp.and_then(|micros| {
            // The stamp is UTC, the tracker's time TAI: a sample taken now tells their difference.
            let sample = self.host.clock.sample().ok()?;
            let seconds = micros.div_euclid(1_000_000) + i64::from(sample.offset.unwrap_or(0));
            let nanos = Span::from_nanos(micros.rem_euclid(1_000_000) * 1000);
            let time: Timestamp<Tai> = Timestamp::from_parts(seconds, 0).checked_add(nanos)?;
            self.host.tracker.counter_at(time)
        });
        // Outside of what is certain, the clock was set meanwhile.
        let certain = latest.wrapping_sub(since);
        stamp
            .filter(|stamp| stamp.wrapping_sub(since) <= certain)
            .unwrap_or(since)
    }

    fn map(&self, counter: u64, bracket: Bracket) -> Mapping {
        if self.options.exact_mapping {
            self.timers.map(counter, bracket)
        } else {
            middle(counter, bracket)
        }
    }

    /// Whether an event has arrived by which what was just measured is out of date.
    fn disrupted_again(&self) -> bool {
        self.qmp
            .pending()
            .any(|event| event.name == "STOP" || event.name == "RESUME")
    }

    /// Takes a sample and publishes it if it can; returns the time to the next.
    fn update(&mut self) -> Result<Duration, PublishError> {
        if let Guest::Running(mapping) = self.guest
            && !mapping.is_some_and(|mapping| self.timers.holds(&mapping))
            && !self.paused
        {
            self.disrupt()?;
            self.look_at_machine()?;
        }
        let sample = self.host.clock.sample()?;
        match self.host.tracker.observe(&sample) {
            Outcome::Tracked(estimate) => {
                self.tell_about(&sample);
                self.publish(&estimate, &sample)?;
                Ok(self.options.interval)
            }
            Outcome::Calibrating => Ok(self.options.interval.min(CALIBRATION)),
            Outcome::Stepped => {
                self.disrupt()?;
                Ok(self.options.interval.min(CALIBRATION))
            }
        }
    }

    fn publish(&mut self, estimate: &Estimate, sample: &Sample) -> Result<(), PublishError> {
        let Guest::Running(Some(mapping)) = self.guest else {
            return Ok(());
        };
        let vouched = self.options.reference == Reference::Host || sample.kernel.synchronised;
        let valid_now = self.shared.report().valid;
        if valid_now && (estimate.new_reference || !vouched) {
            self.disrupt()?;
        }
        if !vouched {
            return Ok(());
        }
        let fields = page::valid(estimate, sample, &mapping, self.options.scale);
        let before = self.written.filter(|_| self.shared.report().valid);
        if before.is_some_and(|before| !page::keeps_promise(&before, &fields)) {
            self.shared.report().kept += 1;
            return Ok(());
        }
        self.write(&fields, true)
    }

    /// Makes the page invalid under a new marker.
    fn disrupt(&mut self) -> Result<(), PublishError> {
        if self.paused {
            return Ok(());
        }
        let found = self.page.fields()?;
        if self.written == Some(found) && !self.shared.report().valid {
            return Ok(()); // its marker has not been used with any time yet
        }
        self.marker = self.marker.max(found.disruption_marker) + 1;
        self.written = None;
        self.shared.report().disruptions += 1;
        let status = if self.was_valid {
            ClockStatus::Unreliable
        } else {
            ClockStatus::Initializing
        };
        let status = match self.options.reference {
            Reference::Host => status,
            Reference::Utc => ClockStatus::Unreliable,
        };
        self.write(&page::invalid(status, self.options.scale), false)
    }

    /// Writes the page under the present marker, or a new one if somebody else has written it.
    fn write(&mut self, fields: &Fields, valid: bool) -> Result<(), PublishError> {
        if self.paused {
            return Ok(());
        }
        let found = self.page.fields()?;
        let ours = self.written.is_none_or(|written| {
            (found.seq_count, found.disruption_marker)
                == (written.seq_count, written.disruption_marker)
        });
        if !ours {
            self.marker = self.marker.max(found.disruption_marker) + 1;
            self.shared.report().disruptions += 1;
        }
        let mut fields = Fields {
            magic: found.magic,
            size: found.size,
            version: found.version,
            disruption_marker: self.marker,
            // Of these, the hypervisor knows; we only carry them over.
            vm_generation_counter: found.vm_generation_counter,
            flags: fields.flags | found.flags & gnomon_clock::page::flag::VM_GEN_COUNTER_PRESENT,
            ..*fields
        };
        fields.seq_count = self.page.publish(&fields)?;
        self.written = Some(fields);
        self.was_valid |= valid;
        {
            let mut report = self.shared.report();
            report.fields = Some(fields);
            report.valid = valid;
            report.updates += u64::from(valid);
        }
        self.share();
        Ok(())
    }

    fn share(&self) {
        self.shared.report().mapping = match self.guest {
            Guest::Running(mapping) => mapping,
            Guest::Stopped { .. } => None,
        };
        self.shared.changed.notify_all();
    }

    /// Says once, and again when it changes, what the bound is worth.
    fn tell_about(&mut self, sample: &Sample) {
        let synchronised = sample.kernel.synchronised;
        if self.said == Some(synchronised) {
            return;
        }
        let error = micros(sample.kernel.maxerror_us);
        match (synchronised, self.options.reference) {
            (true, _) if self.said.is_none() => {}
            (true, _) => (self.notice)(&format!(
                "the host's clock is synchronised now (kernel maxerror {error}): bounds are against UTC"
            )),
            (false, Reference::Host) => (self.notice)(&format!(
                "host clock is not synchronised (kernel maxerror {error}): bounds are against the \
                 host's clock, not UTC; --reference utc refuses"
            )),
            (false, Reference::Utc) => (self.notice)(&format!(
                "host clock is not synchronised (kernel maxerror {error}): no time is published \
                 until it is; --reference host publishes the host's clock as it is"
            )),
        }
        self.said = Some(synchronised);
    }

    /// That QEMU has ended is no failure. Its memory goes first, and its sockets later.
    fn excuse(&mut self, error: PublishError) -> Result<(), PublishError> {
        let deadline = Instant::now() + LAST_BREATH;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.qmp.next_event(left) {
                Ok(Some(_)) => {}
                Err(QmpError::Closed) => return Ok(()),
                Ok(None) | Err(_) => return Err(error),
            }
        }
    }

    /// The last words: a page that nobody keeps up must not look kept up.
    fn end(&mut self, outcome: &Result<(), PublishError>) {
        // When QEMU has ended its memory is gone too, and there is nobody to read the page.
        let _gone = self.disrupt();
        if let Err(error) = outcome {
            (self.notice)(&format!("publishing has ended: {error}"));
        }
        let mut report = self.shared.report();
        report.ended = true;
        report.valid = false;
        drop(report);
        self.shared.changed.notify_all();
    }
}

/// Refuses a guest whose counter does not follow the host's.
fn check_counter(qmp: &mut Qmp, timers: &Timers, pid: u32) -> Result<(), PublishError> {
    let target = qmp.execute("query-target", json!({}))?.value;
    match target.get("arch").and_then(Value::as_str) {
        Some("x86_64" | "i386") => {}
        arch => return Err(PublishError::Arch(arch.unwrap_or("unknown").to_owned())),
    }
    let kvm = qmp.execute("query-kvm", json!({}))?.value;
    if kvm.get("enabled").and_then(Value::as_bool) != Some(false) {
        return Err(PublishError::Kvm);
    }
    // Seen in its memory if possible, because there are other ways to ask for it than this option.
    let asked = || {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0)
            .any(|word| word.ends_with(b"-icount"))
    };
    if timers.counts_instructions().unwrap_or_else(asked) {
        return Err(PublishError::Icount);
    }
    Ok(())
}

/// QEMU's own address of the page at this address of the guest's.
pub(crate) fn locate_page(qmp: &mut Qmp, address: u64) -> Result<u64, PublishError> {
    let answer = qmp.monitor(&format!("gpa2hva {address:#x}"))?;
    let hexadecimal = answer
        .trim()
        .rsplit_once(" is 0x")
        .map(|(_, digits)| digits);
    let located = hexadecimal.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    located.ok_or_else(|| PublishError::NoPage {
        address,
        answer: answer.trim().to_owned(),
    })
}

/// Becomes readable when somebody sets the host's clock (`timerfd_create(2)`).
struct ClockSet(OwnedFd);

impl ClockSet {
    fn new() -> Result<Self, PublishError> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = Self(timerfd_create(TimerfdClockId::Realtime, flags)?);
        timer.arm()?;
        Ok(timer)
    }

    fn arm(&self) -> Result<(), PublishError> {
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        // The year 10,000: it is the cancellation that is waited for.
        let never = Timespec {
            tv_sec: 253_402_300_800,
            tv_nsec: 0,
        };
        let once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        match timerfd_settime(
            &self.0,
            flags,
            &Itimerspec {
                it_interval: once,
                it_value: never,
            },
        ) {
            // Set again just now.
            Ok(_) | Err(Errno::CANCELED) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// `16 s`, `1.5 ms`, `250 µs`
fn micros(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{} ms", decimal(micros)),
        _ => format!("{} s", decimal(micros / 1_000)),
    }
}

/// A thousandth, without trailing zeroes.
fn decimal(thousandths: u64) -> String {
    let text = format!("{}.{:03}", thousandths / 1_000, thousandths % 1_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
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
    /// A machine with another counter than the TSC.
    Arch(String),
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
                "no time is published to a KVM guest: how its TSC relates to the host's cannot be \
                 proven from outside (use --accel tcg, or --no-publish)",
            ),
            Self::Icount => f.write_str(
                "no time is published to a guest under -icount: its TSC counts instructions",
            ),
            Self::Arch(arch) => {
                write!(
                    f,
                    "no time is published to a guest of architecture {arch} in this version"
                )
            }
            Self::NoPage { address, answer } => write!(
                f,
                "the guest has no vmclock page at {address:#x}: start QEMU (10.0 or newer) with \
                 -device vmclock ({answer})"
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        let shown = [16_000_000, 1_500_000, 1_500, 1_000, 250, 0].map(micros);
        assert_eq!(shown, ["16 s", "1.5 s", "1.5 ms", "1 ms", "250 µs", "0 µs"]);
    }

    #[test]
    fn setting_the_clock_can_be_waited_for() {
        let clock = ClockSet::new().expect("timerfd");
        assert!(!crate::qmp::readable(&clock.0, Duration::ZERO).expect("poll"));
        clock.arm().expect("again");
    }
}
