//! The publisher's thread.

mod play;

use core::time::Duration;
use std::fs;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Instant, SystemTime};

use gnomon_clock::page::flag;
use gnomon_clock::{ClockStatus, Fields, Span, Tai, Timestamp};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};
use serde_json::{Value, json};

use crate::arch::Arch;
use crate::estimate::{Estimate, Outcome};
use crate::host::{Counters, Sample};
use crate::mapping::{Bracket, GuestCounter, Mapping, Timers, middle};
use crate::memory::GuestPage;
use crate::page::{self, Promises, Reference};
use crate::publish::{Command, Host, Notice, Options, PublishError, Shared};
use crate::qmp::{Event, Qmp, QmpError, Return};
use crate::vmstate;
use play::Stage;

/// Time between two samples while there is no rate yet. It takes three.
const CALIBRATION: Duration = Duration::from_millis(11);

/// What is read of a device state, at most. A big machine's is some 100 KB long.
const DEVICE_STATE: u64 = 4 << 20;

/// The state of a machine whose memory is still on its way from another QEMU. Told to run, it would
/// start by itself, with the page of then.
pub(crate) const INCOMING: &str = "inmigrate";

/// What somebody wants of the thread, and where the outcome goes.
pub(crate) type Request = (Command, Sender<Result<(), PublishError>>);

/// What was read of a stopped machine.
#[derive(Clone, Copy, Debug)]
struct Stopped {
    counter: u64,
    /// Host counter before the command that read it.
    sent: u64,
    /// Host counter after the answer to it.
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

pub(crate) struct Worker {
    qmp: Qmp,
    host: Host,
    timers: Timers,
    counter: GuestCounter,
    options: Options,
    notice: Notice,
    page: GuestPage,
    guest: Guest,
    /// What the page holds, if nobody else has written it.
    written: Option<Fields>,
    /// What the pages under the present marker have promised.
    promises: Promises,
    /// The guest's counter has stood still since the page was last valid. Who read it before that
    /// under the marker of the invalid page must not find a valid page under that marker.
    remapped: bool,
    marker: u64,
    /// The status of an invalid page.
    invalid: ClockStatus,
    paused: bool,
    /// The machine is to run when it has been loaded.
    expected: bool,
    /// What the user was told last of the host's clock.
    said: Option<bool>,
    shared: Arc<Shared>,
    /// The scenario, once there is one.
    stage: Option<Stage>,
}

impl Worker {
    /// Makes the page invalid and finds out where the guest's counter is.
    pub(crate) fn new(
        mut qmp: Qmp,
        pid: u32,
        host: Host,
        options: Options,
        mut notice: Notice,
        shared: Arc<Shared>,
    ) -> Result<Self, PublishError> {
        let timers = Timers::find(pid)?;
        let arch = Arch::of(&mut qmp)?;
        if host.clock.counter() != arch.host_counter() {
            return Err(PublishError::Arch(arch.name().to_owned()));
        }
        check_counter(&mut qmp, &timers, pid)?;
        let counter = guest_counter(&mut qmp, arch)?;
        let address = options.page.unwrap_or(arch.page());
        let page = GuestPage::open(pid, locate_page(&mut qmp, address)?)?;
        tell_about_table(&host, &mut notice)?;
        let mut worker = Self {
            qmp,
            host,
            timers,
            counter,
            options,
            notice,
            marker: page.fields()?.disruption_marker,
            page,
            guest: Guest::Running(None),
            written: None,
            promises: Promises::default(),
            remapped: false,
            invalid: ClockStatus::Initializing,
            paused: false,
            expected: false,
            said: None,
            shared,
            stage: None,
        };
        worker.disrupt()?;
        worker.look_at_machine()?;
        Ok(worker)
    }

    pub(crate) fn run(
        &mut self,
        commands: &Receiver<Request>,
        wake: &OwnedFd,
    ) -> Result<(), PublishError> {
        let clock_set = ClockSet::new()?;
        loop {
            while let Some(event) = self.next_event()? {
                self.handle(&event)?;
            }
            while let Ok((command, reply)) = commands.try_recv() {
                if matches!(command, Command::End) {
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
            let pause = match self.stage {
                Some(_) if !self.paused => self.play()?,
                _ => self.update()?,
            };
            let due = Instant::now() + pause;
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
            Command::Play(scenario) => self.raise(*scenario)?,
            Command::Stop => {
                self.disrupt()?;
                self.guest = Guest::Running(None);
                self.qmp.execute("stop", json!({}))?;
            }
            Command::Cont if machine_state(&mut self.qmp)? == INCOMING => self.expected = true,
            Command::Cont => self.cont()?,
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

    /// Lets the machine run, with a page that is invalid until its counter is known.
    fn cont(&mut self) -> Result<(), PublishError> {
        // What was loaded into it since may have brought along a page with time.
        self.disrupt()?;
        let answer = self.qmp.execute("cont", json!({}))?;
        while let Some(event) = self.next_event()? {
            // Said before the answer, so by then it was true.
            let latest = (event.order < answer.order).then(|| self.of(answer.arrived));
            match event.name.as_str() {
                "RESUME" => self.resumed(&event, latest)?,
                _ => self.handle(&event)?,
            }
        }
        Ok(())
    }

    fn handle(&mut self, event: &Event) -> Result<(), PublishError> {
        match event.name.as_str() {
            "STOP" | "WAKEUP" => {
                self.disrupt()?;
                self.look_at_machine()
            }
            "RESUME" => self.resumed(event, None),
            "RESET" => {
                self.disrupt()?;
                self.update().map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Finds out where the machine's counter is: of a stopped one by reading it, of a running one
    /// by stopping it for a moment.
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
                since: self.of(status.sent),
            },
        };
        self.remapped |= matches!(self.guest, Guest::Running(Some(_)));
        self.share();
        Ok(())
    }

    /// The machine has started to run: between the event's stamp and `latest`, or the answer to any
    /// command that is given after the event has arrived.
    fn resumed(&mut self, event: &Event, latest: Option<u64>) -> Result<(), PublishError> {
        let Guest::Stopped {
            counter: Some(counter),
            since,
        } = self.guest
        else {
            return self.look_at_machine();
        };
        let latest = if let Some(latest) = latest {
            latest
        } else {
            let answer = self.qmp.execute("query-status", json!({}))?;
            self.of(answer.arrived)
        };
        if self.disrupted_again() {
            self.guest = Guest::Running(None);
            return Ok(()); // the events to come tell what to do
        }
        let earliest = self.not_before(event, since, latest);
        self.guest = Guest::Running(Some(self.map(counter, Bracket { earliest, latest })));
        self.remapped = true;
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
        let mut state = Vec::new();
        fs::File::from(memory)
            .take(DEVICE_STATE)
            .read_to_end(&mut state)?;
        let counter = vmstate::stopped_counter(&state, self.host.clock.counter())?;
        Ok(Stopped {
            counter,
            sent: self.of(sent),
            arrived: self.of(arrived),
        })
    }

    /// The host's counter that the guest's is made from.
    fn of(&self, counters: Counters) -> u64 {
        counters.of(self.host.clock.counter())
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
            self.timers.map(self.counter, counter, bracket)
        } else {
            middle(self.counter, counter, bracket)
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
        if let Guest::Stopped { .. } = self.guest {
            // A snapshot that is loaded meanwhile brings its page along.
            self.disrupt()?;
            if self.expected && machine_state(&mut self.qmp)? != INCOMING {
                self.expected = false;
                self.cont()?;
            }
        }
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
        if self.stage.is_some() {
            return self.publish_scene(estimate, sample, &mapping);
        }
        let fields = page::valid(estimate, sample, &mapping, self.options.scale);
        let Some(fields) = self.promises.reconcile(&fields) else {
            self.shared.report().kept += 1;
            return Ok(());
        };
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
        self.new_marker(&found);
        self.written = None;
        let status = match self.options.reference {
            Reference::Host => self.invalid,
            Reference::Utc => ClockStatus::Unreliable,
        };
        self.write(
            &page::invalid(status, self.options.scale, self.counter.id),
            false,
        )
    }

    /// Writes the page under the present marker, or a new one if somebody else has written it.
    fn write(&mut self, fields: &Fields, valid: bool) -> Result<(), PublishError> {
        if self.paused {
            return Ok(());
        }
        let mut fields = self.compose(fields, valid)?;
        let begun = SystemTime::now();
        fields.seq_count = self.page.publish(&fields)?;
        self.wrote(&fields, valid, begun);
        Ok(())
    }

    /// Completes the page with what it has that is not time.
    fn compose(&mut self, fields: &Fields, valid: bool) -> Result<Fields, PublishError> {
        let found = self.page.fields()?;
        if valid && core::mem::take(&mut self.remapped) {
            self.new_marker(&found);
            self.written = None;
        }
        let ours = self.written.is_none_or(|written| {
            (found.seq_count, found.disruption_marker)
                == (written.seq_count, written.disruption_marker)
        });
        if !ours {
            self.new_marker(&found);
        }
        let mut fields = Fields {
            magic: found.magic,
            size: found.size,
            version: found.version,
            disruption_marker: self.marker,
            ..*fields
        };
        // Of these, the hypervisor knows, or a scenario says; else we only carry them over.
        let hypervisor = match &self.stage {
            Some(stage) if stage.has_generation() && valid => return Ok(fields.sealed()),
            Some(stage) if !stage.has_generation() => stage.stock(),
            _ => &found,
        };
        fields.vm_generation_counter = hypervisor.vm_generation_counter;
        fields.flags |= hypervisor.flags & flag::VM_GEN_COUNTER_PRESENT;
        // A guest that is restored from a snapshot finds the page as it was, but for its marker.
        Ok(fields.sealed())
    }

    /// Takes note of a page that has been written.
    fn wrote(&mut self, fields: &Fields, valid: bool, begun: SystemTime) {
        self.note_epoch(fields, begun);
        self.written = Some(*fields);
        if valid {
            self.invalid = ClockStatus::Unreliable;
            self.promises.note(fields);
        }
        {
            let mut report = self.shared.report();
            report.fields = Some(*fields);
            report.valid = valid;
            report.updates += u64::from(valid);
        }
        self.share();
    }

    /// The next page is written under another marker than the one found.
    fn new_marker(&mut self, found: &Fields) {
        self.marker = self.marker.max(found.disruption_marker).wrapping_add(1);
        self.promises.forget();
        self.shared.report().disruptions += 1;
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

    /// When QEMU ends, anything may fail first: its memory, its monitor. That is no error.
    pub(crate) fn excuse(&mut self, error: PublishError) -> Result<(), PublishError> {
        let deadline = Instant::now() + Duration::from_secs(1);
        while Instant::now() < deadline {
            match self.qmp.next_event(Duration::from_secs(1)) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return Ok(()),
            }
        }
        Err(error)
    }

    /// The last words: a page that nobody keeps up must not look kept up.
    pub(crate) fn end(&mut self, outcome: &Result<(), PublishError>) {
        // When QEMU has ended its memory is gone too, and there is nobody to read the page.
        let _gone = self.strike().and_then(|()| self.disrupt());
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

/// Says what there is to say about the leap-second table, if it is needed.
fn tell_about_table(host: &Host, notice: &mut Notice) -> Result<(), PublishError> {
    let kernel = host.clock.sample()?.kernel;
    match host.clock.table() {
        // The kernel's word comes before the table's.
        _ if kernel.tai != 0 => {}
        Ok(table) if table.expired(kernel.utc) => {
            notice("the leap-second table is out of date (update tzdata): its last TAI-UTC holds");
        }
        Ok(_) => {}
        Err(error) => notice(&format!("TAI-UTC is not known, UTC is published: {error}")),
    }
    Ok(())
}

/// Refuses a guest whose counter does not follow the host's.
fn check_counter(qmp: &mut Qmp, timers: &Timers, pid: u32) -> Result<(), PublishError> {
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

/// The guest's counter, by the word of its first processor: virt gives all of them one frequency.
fn guest_counter(qmp: &mut Qmp, arch: Arch) -> Result<GuestCounter, PublishError> {
    if arch == Arch::X86_64 {
        return Ok(GuestCounter::TSC);
    }
    let cpus = qmp.execute("query-cpus-fast", json!({}))?.value;
    let path = cpus.pointer("/0/qom-path").and_then(Value::as_str);
    let query = json!({ "path": path.unwrap_or_default(), "property": "cntfrq" });
    let hertz = qmp.execute("qom-get", query)?.value;
    let counter = hertz.as_u64().and_then(GuestCounter::virtual_count);
    counter.ok_or_else(|| PublishError::Frequency(hertz.to_string()))
}

/// The state of the machine in QEMU's words.
pub(crate) fn machine_state(qmp: &mut Qmp) -> Result<String, QmpError> {
    let status = qmp.execute("query-status", json!({}))?.value;
    let state = status.get("status").and_then(Value::as_str);
    Ok(state.unwrap_or_default().to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qmp::readable;

    #[test]
    fn durations_are_short() {
        let shown = [16_000_000, 1_500_000, 1_500, 1_000, 250, 0].map(micros);
        assert_eq!(shown, ["16 s", "1.5 s", "1.5 ms", "1 ms", "250 µs", "0 µs"]);
    }

    #[test]
    fn setting_the_clock_can_be_waited_for() {
        let clock = ClockSet::new().expect("timerfd");
        assert!(!readable(&clock.0, Duration::ZERO).expect("poll"));
        clock.arm().expect("again");
    }
}
