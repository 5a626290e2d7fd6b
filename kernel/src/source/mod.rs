//! Where time comes from when the vmclock page has none, or to check it by: the sources, each asked
//! in its turn and with a line of its own, and the one that is in use.
//!
//! A source is a [`Driver`]: it is asked and answers, at once or later. [`Sources`] brackets each answer
//! with the counter and the disruption marker, hands it to the source's
//! [`Estimator`], and gives the [`Clock`] the line of the best source
//! that has one. What the clock does with it is the clock's business: a page that has time goes first.
//!
//! | Order | Source | Bound |
//! |---|---|---|
//! | 1 | vmclock page with time | the page's |
//! | 2 | `kvm`: clock pairing, KVM PTP | the pairing's granularity, and the wander |
//! | 3 | `virtio-rtc` | half the way there and back, and the wander |
//! | 4 | `kvm`: kvmclock's wall clock | how long the host takes to tell it, and the wander |
//! | 5 | `ntp:ADDR` ([`ntp`]) | root distance of the server, half the way there and back, and the wander |
//! | 6 | `rtc`: CMOS, PL031 | 2 s, less what several readings rule out (more than 1 s), and the wander |
//!
//! **After a disruption** (another marker) everything that the sources said before is forgotten and all of
//! them are asked at once. Answers under way are dropped, since their bracket has two markers.
//!
//! **The counter's rate** is the machine's word for it, where it gives one and as long as the marker is that of the start.
//! Otherwise the ACPI power management timer is read some ten times within a quarter of a second ([`Calibration`]), so that
//! here, too, one answer makes a line. Without such a timer it takes two answers.
//!
//! **Sources that contradict each other** are never averaged. The better one stays in use, the difference is
//! told, named and counted ([`Table::alarms`]), and `on_violation=stop` ends the service of time.
//!
//! **A real-time clock** is the last resort: nobody vouches for it. Unless `source=rtc` asks for it, its time
//! is shown and compared but not served, and a contradiction of it is shown but no alarm: it may have been
//! set to local time.

use core::fmt;
use core::time::Duration;

use gnomon_clock::{
    Bound, Bracket, Calibration, Clock, ClockStatus, Comparison, Counter, CrossTimestamp,
    Difference, Estimator, LeapIndicator, Limits, OperatorOffset, Origin, Prior, Rejected, Source,
    SourceTime, Stamp, Ticks, Timeline, Wander, compare,
};

use crate::text::Text;

pub mod kvm;
pub mod ntp;
pub mod rtc;
pub mod virtio_rtc;

/// A source of time as it is asked.
pub trait Driver {
    /// Which source this is: one driver for each at most.
    fn source(&self) -> Source;

    /// Asks for the time. The counter is read just before and just after this.
    fn ask(&mut self) -> Answer;

    /// Looks whether the answer to the last question has come. Called until it is not
    /// [`Answer::Later`]; asking anew abandons the question before.
    fn poll(&mut self) -> Answer;

    /// What it is, in a few words: `PCI 00:05.0, clock 0 of 1, UTC`.
    ///
    /// # Errors
    /// What `f` returns.
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

/// What comes of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The time.
    Time(Indication),
    /// Nothing yet.
    Later,
    /// Not the time, but what had to be known before: to be asked again at once, since the bracket of
    /// this question has become wide.
    Again,
    /// No time, and why.
    Silence(&'static str),
}

/// What a source's clock indicated at some instant of the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Indication {
    /// The time, and on which scale.
    pub time: SourceTime,
    /// The counter at that time, if the source names it.
    pub ticks: Option<Ticks>,
    /// The greatest error of `time` by itself.
    pub error: Bound,
    /// TAI − UTC in seconds, if the source tells it.
    pub tai_offset: Option<i16>,
    /// What it says of leap seconds; `None` if it never says anything.
    pub leap: Option<LeapIndicator>,
    /// Whether it vouches for its clock.
    pub status: ClockStatus,
}

/// `source=`: what may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The page's time.
    pub page: bool,
    /// Of [`Source::ALL`], which.
    allowed: [bool; COUNT],
    /// The real-time clock is asked for by name.
    pub rtc_is_asked_for: bool,
    /// The address of the NTP server.
    pub server: Option<core::net::IpAddr>,
}

const COUNT: usize = Source::ALL.len();

impl Choice {
    /// Everything there is.
    pub const AUTO: Self = Self {
        page: true,
        allowed: [true; COUNT],
        rtc_is_asked_for: false,
        server: None,
    };

    /// Reads a list of names, separated by commas: `auto`, `vmclock`, `kvm`, `virtio-rtc`, `ntp:ADDR`,
    /// `rtc`. `None` when it is none.
    #[must_use]
    pub fn parse(list: &str) -> Option<Self> {
        let mut choice = Self {
            page: false,
            allowed: [false; COUNT],
            rtc_is_asked_for: false,
            server: None,
        };
        for name in list.split(',') {
            match name {
                "auto" => {
                    choice.page = true;
                    choice.allowed = [true; COUNT];
                }
                "vmclock" => choice.page = true,
                "kvm" => choice.allow(&[Source::KvmPairing, Source::KvmPtp, Source::KvmClock]),
                "virtio-rtc" => choice.allow(&[Source::VirtioRtc]),
                "rtc" => {
                    choice.allow(&[Source::Rtc]);
                    choice.rtc_is_asked_for = true;
                }
                _ => {
                    choice.server = Some(name.strip_prefix("ntp:")?.parse().ok()?);
                    choice.allow(&[Source::Ntp]);
                }
            }
        }
        Some(choice)
    }

    /// Whether the source may be used.
    #[must_use]
    pub fn allows(&self, source: Source) -> bool {
        self.allowed.get(source as usize).copied().unwrap_or(false)
    }

    fn allow(&mut self, sources: &[Source]) {
        for source in sources {
            if let Some(allowed) = self.allowed.get_mut(*source as usize) {
                *allowed = true;
            }
        }
    }
}

/// The sources: how each is asked, and what is known of it.
pub struct Sources<'a> {
    drivers: &'a mut [&'a mut dyn Driver],
    table: &'a mut Table,
}

/// What is known of each source, and which is in use.
#[derive(Clone, Debug)]
pub struct Table {
    choice: Choice,
    slots: [Slot; COUNT],
    /// The marker under which everything here was learned; `None` before the first look.
    marker: Option<u64>,
    /// What a timer tells of the counter's rate, where nobody else tells it and there is one.
    calibration: Option<Calibration>,
    /// When that timer is read next, if it is.
    timer_due: Option<Duration>,
    /// Where the time comes from, if there is any.
    origin: Option<Origin>,
    alarms: u64,
}

/// What is known of one source.
#[derive(Clone, Debug)]
struct Slot {
    estimator: Estimator,
    state: State,
    line: Option<Timeline>,
    /// The line was not with the time in use when last compared.
    contradicts: bool,
    about: Text<56>,
    /// When it is asked next.
    due: Duration,
    /// The question under way: the counter before it, and when it was asked.
    asked: Option<(Stamp, Duration)>,
    /// Until the question after the next.
    interval: Duration,
    /// Questions that repeated the last one.
    repeated: u8,
}

/// A source as it is shown.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Which one.
    pub source: Source,
    /// How it is doing.
    pub state: State,
    /// Its line.
    pub line: Option<&'a Timeline>,
    /// What its driver says that it is; empty until it has been asked.
    pub about: &'a str,
}

/// How a source is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It does not exist here.
    Absent(&'static str),
    /// It has not been asked, or not answered yet.
    Waiting,
    /// It does not tell the time.
    Silent(&'static str),
    /// What it says is not used.
    Rejected(Rejected),
    /// Too little is known for a line.
    Learning,
    /// It has a line, which agrees with that in use, or is it.
    Good,
    /// It has a line, which does not.
    Disagrees(Difference),
}

/// The way to the second sample; doubled from sample to sample.
const FIRST: Duration = Duration::from_millis(5);
/// The way between samples of a source in use, in the end. The bound of a line with
/// a wander of 550 ppm grows by 1.1 ms a second.
const STEADY: Duration = Duration::from_millis(250);
/// A bound just after an answer that is not worth a repetition. Answers that are held up, by a busy host, are the wider ones.
const NARROW: Bound = Bound::from_nanos(200_000);
/// How often a question is repeated in a row.
const REPEATS: u8 = 3;
/// The way between samples of a source that is only compared, and of a real-time clock.
const SLOW: Duration = Duration::from_secs(16);
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often an answer that comes later is looked for at once. The bracket ends when it is seen, and a look
/// is a few loads.
const LOOKS: u32 = 2000;

impl<'a> Sources<'a> {
    /// The sources that `drivers` are for; each other one is absent, because of what `absent` says of it.
    /// The NTP server has no driver: its samples come through [`add`](Self::add).
    #[must_use]
    pub fn new(
        choice: Choice,
        table: &'a mut Table,
        drivers: &'a mut [&'a mut dyn Driver],
        absent: &[(Source, &'static str)],
    ) -> Self {
        table.choice = choice;
        for (slot, source) in table.slots.iter_mut().zip(Source::ALL) {
            let reason = absent.iter().find(|(name, _)| *name == source);
            let has_driver = drivers.iter().any(|driver| driver.source() == source);
            let is_there = has_driver || source == Source::Ntp && choice.server.is_some();
            slot.state = match reason {
                _ if !choice.allows(source) => State::Absent("not asked for by source="),
                _ if is_there => State::Waiting,
                Some((_, why)) => State::Absent(why),
                None => State::Absent("not found"),
            };
        }
        Self { drivers, table }
    }

    /// The sources with an operator's TAI − UTC, for those that do not tell it.
    #[must_use]
    pub fn with_operator_offset(self, offset: OperatorOffset) -> Self {
        for slot in &mut self.table.slots {
            slot.estimator = slot.estimator.clone().with_operator_offset(offset);
        }
        self
    }

    /// What is known of each.
    #[must_use]
    pub const fn table(&self) -> &Table {
        self.table
    }

    /// When there is something to do next; at once while an answer is waited for.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        let slots = self.table.slots.iter().zip(Source::ALL);
        slots
            .filter(|(slot, source)| slot.exists() && *source != Source::Ntp)
            .map(|(slot, _)| {
                if slot.asked.is_some() {
                    Duration::ZERO
                } else {
                    slot.due
                }
            })
            .chain(self.table.timer_due)
            .min()
    }

    /// Asks whoever is due, takes in what was answered, and gives the clock the best line. `frequency` is
    /// the counter's nominal frequency in Hz as it was when the machine started, where something tells it. Without an
    /// uptime each source is asked once.
    pub fn follow<C: Counter>(
        &mut self,
        clock: &mut Clock<'_, C>,
        uptime: Option<Duration>,
        frequency: impl FnOnce() -> Option<u64>,
    ) {
        let marker = clock.stamp().marker;
        if self.table.marker != Some(marker) {
            self.table.start_over(marker, uptime, frequency());
        }
        for index in 0..self.drivers.len() {
            self.follow_one(index, clock, uptime);
        }
    }

    /// Has the ACPI power management timer read, if it is due, where that is what tells the counter's rate. Comes after
    /// [`follow`](Self::follow), which looks at the marker.
    pub fn calibrate<C: Counter>(
        &mut self,
        clock: &mut Clock<'_, C>,
        uptime: Option<Duration>,
        timer: impl FnOnce() -> Option<u32>,
    ) {
        let now = uptime.unwrap_or(Duration::ZERO);
        if self.table.timer_due.is_none_or(|due| now < due) {
            return;
        }
        let before = clock.stamp();
        let shown = timer();
        let after = clock.stamp();
        let Some(shown) = shown else {
            self.table.timer_due = None;
            return;
        };
        if let Some(bracket) = Bracket::new(before, after)
            && self.table.take_timer(bracket, shown, now)
        {
            self.table.choose(clock);
        }
    }

    /// Takes in a sample of a source that is not asked here, or why there is none.
    pub fn add<C: Counter>(
        &mut self,
        clock: &mut Clock<'_, C>,
        source: Source,
        sample: Result<&CrossTimestamp, &'static str>,
    ) {
        if let Some(slot) = self.table.slots.get_mut(source as usize) {
            slot.take(sample);
        }
        self.table.choose(clock);
    }

    /// Takes in more about the last sample of a source that is not asked here: of the same bracket, and
    /// narrower. It is no second witness, so that it counts only where there is a line already.
    pub fn refine<C: Counter>(
        &mut self,
        clock: &mut Clock<'_, C>,
        source: Source,
        sample: &CrossTimestamp,
    ) {
        let slot = self.table.slots.get(source as usize);
        if slot.is_some_and(|slot| slot.line.is_some()) {
            self.add(clock, source, Ok(sample));
        }
    }

    /// Says of a source that is not asked here what it is.
    pub fn describe(&mut self, source: Source, what: &dyn fmt::Display) {
        if let Some(slot) = self.table.slots.get_mut(source as usize) {
            slot.about = Text::of(what);
        }
    }

    fn follow_one<C: Counter>(
        &mut self,
        index: usize,
        clock: &mut Clock<'_, C>,
        uptime: Option<Duration>,
    ) {
        let Some(driver) = self.drivers.get_mut(index) else {
            return;
        };
        let Some(slot) = self.table.slots.get_mut(driver.source() as usize) else {
            return;
        };
        if !slot.exists() {
            return;
        }
        let now = uptime.unwrap_or(Duration::ZERO);
        let (before, since, mut answer) = match slot.asked {
            Some((before, since)) => (before, since, driver.poll()),
            None if now >= slot.due => {
                let before = clock.stamp();
                (before, now, driver.ask())
            }
            None => return,
        };
        let is_new = slot.asked.is_none();
        for _ in 0..LOOKS {
            if answer != Answer::Later || !is_new {
                break;
            }
            core::hint::spin_loop();
            answer = driver.poll();
        }
        // Before anything else is done.
        let after = clock.stamp();
        let sample = match answer {
            Answer::Later if now < since + PATIENCE => {
                slot.asked = Some((before, since));
                return;
            }
            Answer::Again => {
                slot.asked = None;
                slot.due = now;
                return;
            }
            Answer::Later => Err("no answer"),
            Answer::Silence(why) => Err(why),
            Answer::Time(said) => said.between(before, after),
        };
        slot.asked = None;
        slot.about = Text::of(&About(&**driver));
        slot.take(sample.as_ref().map_err(|why| *why));
        let is_wide = sample.is_ok() && slot.is_wide(after.ticks);
        let source = driver.source();
        self.table.choose(clock);
        self.table.plan(source, is_wide, uptime);
    }
}

impl Default for Table {
    fn default() -> Self {
        Self::new()
    }
}

impl Table {
    /// Nothing is known of any.
    #[must_use]
    pub const fn new() -> Self {
        // In the order of `Source::ALL`.
        let [kvm, ptp, rtc, kvmclock, ntp, last] = Source::ALL;
        Self {
            choice: Choice::AUTO,
            slots: [
                Slot::new(kvm),
                Slot::new(ptp),
                Slot::new(rtc),
                Slot::new(kvmclock),
                Slot::new(ntp),
                Slot::new(last),
            ],
            marker: None,
            calibration: None,
            timer_due: None,
            origin: None,
            alarms: 0,
        }
    }

    /// What may be used.
    #[must_use]
    pub const fn choice(&self) -> &Choice {
        &self.choice
    }

    /// Where the time came from at the last look; `None` without any.
    #[must_use]
    pub const fn origin(&self) -> Option<Origin> {
        self.origin
    }

    /// How often a source has begun to contradict the time in use.
    #[must_use]
    pub const fn alarms(&self) -> u64 {
        self.alarms
    }

    /// Each source, the best first.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let slots = Source::ALL.into_iter().zip(&self.slots);
        slots.map(|(source, slot)| Entry {
            source,
            state: slot.state,
            line: slot.line.as_ref(),
            about: slot.about.as_str(),
        })
    }

    /// Forgets everything, for the counter may be another one now.
    fn start_over(&mut self, marker: u64, uptime: Option<Duration>, frequency: Option<u64>) {
        // The machine was asked for it when it started: on another host there may be another counter.
        let frequency = frequency.filter(|_| self.marker.is_none());
        self.marker = Some(marker);
        self.origin = None;
        let is_wanted = frequency.is_none() && self.slots.iter().any(Slot::exists);
        self.calibration = is_wanted.then(Calibration::new);
        self.timer_due = uptime.filter(|_| is_wanted);
        for slot in &mut self.slots {
            slot.estimator.forget();
            let prior = frequency.and_then(|hertz| Prior::from_hertz(hertz, TOLERANCE));
            slot.estimator.set_prior(prior, marker);
            slot.line = None;
            slot.asked = None;
            slot.interval = FIRST;
            slot.repeated = 0;
            slot.due = uptime.unwrap_or(Duration::ZERO);
            if slot.exists() {
                slot.state = State::Waiting;
            }
        }
    }

    /// The counter's frequency as the ACPI power management timer tells it, in Hz, and by how many parts per million it
    /// may be off by that timer; `None` where it is not asked, or not yet known.
    #[must_use]
    pub fn calibrated(&self) -> Option<(u64, u64)> {
        self.calibration.as_ref()?.hertz()
    }

    /// Takes in what the timer showed. Returns whether lines have changed by it.
    fn take_timer(&mut self, bracket: Bracket, shown: u32, now: Duration) -> bool {
        let Some(calibration) = &mut self.calibration else {
            return false;
        };
        if self.marker != Some(bracket.marker) {
            return false;
        }
        let is_news = calibration.add(bracket, shown);
        let wait = calibration.wait();
        self.timer_due = wait.map(|wait| now + Duration::from_nanos(wait));
        if is_news {
            let prior = calibration.prior(TOLERANCE);
            for slot in self.slots.iter_mut().filter(|slot| slot.exists()) {
                slot.estimator.refine_prior(prior, bracket.marker);
                if slot.estimator.count() > 0 || slot.line.is_some() {
                    slot.draw();
                }
            }
        }
        is_news
    }

    /// When a source that was just asked is asked again: at once, a few times, if its answer has left the line wide.
    fn plan(&mut self, source: Source, is_wide: bool, uptime: Option<Duration>) {
        let is_in_use = self.origin == Some(Origin::Own(source)) && source != Source::Rtc;
        let longest = if is_in_use { STEADY } else { SLOW };
        let Some(slot) = self.slots.get_mut(source as usize) else {
            return;
        };
        let is_again = is_in_use && is_wide && slot.repeated < REPEATS;
        let wait = if is_again {
            slot.repeated += 1;
            Duration::ZERO
        } else {
            slot.repeated = 0;
            let interval = slot.interval;
            slot.interval = (interval * 2).min(longest);
            interval
        };
        slot.due = uptime.map_or(Duration::MAX, |uptime| uptime + wait);
    }

    /// Gives the clock the line of the best source that has one, and compares the others with the time.
    fn choose<C: Counter>(&mut self, clock: &mut Clock<'_, C>) {
        // In the order of `Source::ALL`, the best first.
        let best = self.slots.iter().find_map(|slot| slot.line);
        // Of another marker than the page has by now, it is not taken; the next look starts over.
        clock.set_own(best);
        let now = clock.reading().ok();
        self.origin = now.map(|now| now.origin);
        let Some(now) = now else {
            return;
        };
        for (slot, source) in self.slots.iter_mut().zip(Source::ALL) {
            let Some(line) = &slot.line else {
                continue;
            };
            let comparison = line.at(now.ticks).map(|reading| compare(&now, &reading));
            slot.state = match comparison {
                Ok(Comparison::Disagree(difference)) if now.origin != Origin::Own(source) => {
                    State::Disagrees(difference)
                }
                _ => State::Good,
            };
            // Nobody is to be stopped by a battery-backed clock that he did not ask for.
            let counts = source != Source::Rtc || self.choice.rtc_is_asked_for;
            let contradicts = counts && matches!(slot.state, State::Disagrees(_));
            if contradicts && !slot.contradicts {
                self.alarms += 1;
            }
            slot.contradicts = contradicts;
        }
    }
}

/// By how much a register that tells the counter's nominal frequency may be off, or a timer's frequency, parts per
/// billion: the quartz, and the steering of a counter that is a clock of the host's (as under TCG on Arm).
const TOLERANCE: u32 = 1_000_000;

/// The wander against what the source's own error is about.
const fn wander(source: Source) -> Wander {
    match source {
        Source::Ntp => Wander::CRYSTAL,
        _ => Wander::STEERED,
    }
}

impl Slot {
    const fn new(source: Source) -> Self {
        Self {
            estimator: Estimator::new(source, wander(source), Limits::DEFAULT),
            state: State::Waiting,
            line: None,
            contradicts: false,
            about: Text::EMPTY,
            due: Duration::ZERO,
            asked: None,
            interval: FIRST,
            repeated: 0,
        }
    }

    /// Whether the line is wider at `counter`, just after an answer, than an answer that was not held up makes it.
    fn is_wide(&self, counter: Ticks) -> bool {
        let reading = self.line.as_ref().map(|line| line.at(counter));
        reading.is_some_and(|reading| reading.is_ok_and(|reading| reading.bound > NARROW))
    }

    fn take(&mut self, sample: Result<&CrossTimestamp, &'static str>) {
        let added = match sample {
            Ok(sample) => self.estimator.add(sample),
            Err(why) => {
                // The line stands, and grows old.
                if self.line.is_none() {
                    self.state = State::Silent(why);
                }
                return;
            }
        };
        self.draw();
        if let Err(why) = added {
            self.state = State::Rejected(why);
        }
    }

    /// Draws the line through the samples that there are.
    fn draw(&mut self) {
        self.line = self.estimator.timeline().ok();
        self.state = match self.line {
            Some(_) => State::Good,
            None => State::Learning,
        };
    }

    const fn exists(&self) -> bool {
        !matches!(self.state, State::Absent(_))
    }
}

impl Indication {
    /// The cross-time-stamp of an answer that came between two stamps.
    fn between(&self, before: Stamp, after: Stamp) -> Result<CrossTimestamp, &'static str> {
        let bracket = Bracket::new(before, after).ok_or("a disruption came between")?;
        let bracket = match self.ticks {
            Some(ticks) => bracket
                .narrowed(ticks)
                .ok_or("it names a counter value outside of the question")?,
            None => bracket,
        };
        Ok(CrossTimestamp {
            bracket,
            time: self.time,
            error: self.error,
            tai_offset: self.tai_offset,
            leap: self.leap,
            status: self.status,
        })
    }
}

struct About<'a>(&'a dyn Driver);

impl fmt::Display for About<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.describe(f)
    }
}

impl fmt::Debug for Sources<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources")
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
}
