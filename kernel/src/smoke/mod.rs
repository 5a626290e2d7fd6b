//! Smoke test: the machine and its vmclock page against the rules, told as TAP version 14.
//!
//! [`page`] and [`machine`] judge plain facts; this module gathers them: it watches the page for a while, waits to be
//! stopped, tries the machine, and tells everything in one stream. On the way the serial line asks for this:
//!
//! * `# watching the page for N s` is said when that begins;
//! * `# waiting for a stop of the machine` asks whoever listens to stop the machine, to let it go on, and then to
//!   say `stopped NANOSECONDS`, by a clock that went on meanwhile, and a carriage return. When nobody does within
//!   [`PATIENCE`], that check is skipped; any other line asks for as long again.
//! * Who has done so is asked for more: `# waiting for a snapshot of the machine to be saved and loaded`, to which the
//!   answer is `loaded`.

pub mod beside;
mod link;
pub mod machine;
mod notices;
pub mod page;
pub mod rtc;
pub mod tap;

use core::fmt::{self, Write};
use core::time::Duration;

use gnomon_clock::{Counter, Fields, Ticks, VmclockPage};

use self::machine::{Bench, Measured, Notice, Pair, Readings, Rule as MachineRule};
use self::page::{Rates, Rule as PageRule, Stop, Watch};
use self::rtc::Rtc;
use self::tap::{Check, Outcome, Tally, Tap};
use crate::console::{Console, SerialPort};
use crate::net::port::FramePort;
use crate::services::counters::Rate;
use crate::text::Text;

/// How long the page is watched unless the command line says otherwise, seconds.
pub const SECONDS: u16 = 3;
/// For how long somebody may take to begin stopping the machine, and to say so.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// How often the real-time clock is looked at, ns: often enough to tell when its second begins, and seldom enough to
/// leave the time to the page.
const RTC_EVERY: u64 = 500_000;
/// For how much longer the page is watched until the real-time clock has gone on, ns.
const RTC_LATER: u64 = 4_000_000_000;
/// How often a UART that takes nothing is asked again before a line is given up.
const DRAIN: u32 = 1_000_000;
/// Readings of the counter between two looks at the page.
const BATCH: u64 = 64;
/// Looks at the page, for a machine on which no time seems to pass.
const LOOKS: u64 = 100_000_000;
/// When the alarm is set to go off, µs.
const ALARM: u64 = 20_000;
/// How long it may take, ns.
const ALARM_LATEST: u64 = 2_000_000_000;

/// The page is where it may be.
pub(crate) const DISCOVERY: Check = Check {
    name: "vmclock discovery",
    rule: "a device with _HID AMZNC10C or _CID VMCLOCK, or a node compatible with amazon,vmclock, describes one page",
    source: "UAPI.13 v1.1, Discovery via ACPI, Discovery via Device Tree",
};
/// And in memory that is nobody else's.
pub(crate) const RESERVED: Check = Check {
    name: "vmclock reserved memory",
    rule: "the page is in no range reported as AddressRangeMemory or AddressRangeACPI",
    source: "UAPI.13 v1.1, Discovery via ACPI",
};
/// Checks in all.
pub const CHECKS: usize = MachineRule::ALL.len() + 2 + PageRule::ALL.len();

/// What is tested.
#[expect(missing_debug_implementations, reason = "devices are not for printing")]
pub struct Subject<'a, B, C, P> {
    /// The machine.
    pub bench: &'a mut B,
    /// Its counter.
    pub counter: C,
    /// The page, mapped.
    pub page: Option<&'a VmclockPage>,
    /// Where it is, or why there is none.
    pub place: Result<&'a str, &'a str>,
    /// The network device, if there is one that works.
    pub port: Option<P>,
}

/// Runs every check, watching the page for `seconds`, and tells it on the console.
///
/// # Errors
/// Never with a [`Console`], which loses what it cannot say.
pub fn run<B: Bench, C: Counter, P: FramePort, S: SerialPort>(
    subject: &mut Subject<'_, B, C, P>,
    console: &mut Console<'_, S>,
    seconds: u16,
) -> Result<Tally, fmt::Error> {
    let mut tap = Tap::begin(console, CHECKS)?;
    tap.comment(console, &format_args!("Gnomon {}", crate::report::VERSION))?;
    tap.comment(console, &format_args!("watching the page for {seconds} s"))?;
    console.drain(DRAIN);
    let stated = subject.bench.stated_rate();
    let rough = stated.map_or_else(|| subject.rough_rate(), |rate| Some(rate.hertz));
    let mut readings = Readings::default();
    let mut watch = Watch::new(C::ID, rough);
    let mut rtc = Rtc::default();
    let length = Duration::from_secs(seconds.into());
    subject.look_for(length, &mut readings, &mut watch, &mut rtc);
    let is_disrupted = watch.is_disrupted();
    if subject.page.is_some() {
        // From before anybody can have stopped it.
        let before = subject.look(&mut watch);
        tap.comment(console, &"waiting for a stop of the machine")?;
        console.drain(DRAIN);
        let stopped = subject.wait_for(Line::stopped, console, &mut watch);
        if let (Some((nanos, after)), Some(before)) = (stopped, before) {
            watch.stopped(Stop { nanos }, before, after);
            tap.comment(
                console,
                &"waiting for a snapshot of the machine to be saved and loaded",
            )?;
            console.drain(DRAIN);
            let loaded = subject.wait_for(Line::loaded, console, &mut watch);
            if let Some((_, now)) = loaded {
                watch.loaded(&after.0, &now.0);
            }
        }
    }
    subject.bench.end_notices();
    let seen = Seen::new(
        readings,
        rtc,
        subject.bench.independent_timer(),
        rough,
        is_disrupted,
    );
    for &rule in MachineRule::ALL {
        let outcome = subject.try_machine(rule, &seen);
        tap.tell(console, rule.check(), &outcome)?;
        // Nothing may be on its way when the UART is tried.
        console.drain(DRAIN);
    }
    let found = match subject.place {
        Ok(place) => Outcome::ok(&place),
        Err(why) => Outcome::not_ok(&why),
    };
    tap.tell(console, &DISCOVERY, &found)?;
    let reserved = match subject.bench.page() {
        Some(window) => machine::reserved(subject.bench.memory(), window),
        None => Outcome::skip(&"there is no page"),
    };
    tap.tell(console, &RESERVED, &reserved)?;
    let rates = Rates {
        measured: seen
            .measured
            .zip(seen.independent)
            .map(|(Measured { hertz, error }, source)| Rate {
                hertz,
                unit: error,
                source,
            }),
        stated,
    };
    for &rule in PageRule::ALL {
        let outcome = match subject.page {
            Some(_) => watch.outcome(rule, &rates),
            None => Outcome::skip(&"there is no page"),
        };
        tap.tell(console, rule.check(), &outcome)?;
        console.drain(DRAIN);
    }
    let tally = tap.end(console)?;
    console.drain(DRAIN);
    Ok(tally)
}

/// What was seen of the machine's clocks while the page was watched.
struct Seen {
    readings: Readings,
    rtc: Rtc,
    /// What the counter is measured by.
    independent: Option<&'static str>,
    /// The counter's rate by that.
    measured: Option<Measured>,
    /// The same by a timer, where there is one: the real-time clock can be held against that.
    by_timer: Option<Measured>,
    /// The counter's rate, roughly.
    rough: Option<u64>,
}

impl Seen {
    /// Seconds of the real-time clock measure the counter where there is no timer, unless the machine stood still at times.
    #[inline(never)]
    fn new(
        mut readings: Readings,
        rtc: Rtc,
        timer: Option<&'static str>,
        rough: Option<u64>,
        is_disrupted: bool,
    ) -> Self {
        let by_timer = readings.rate().filter(|_| timer.is_some() && !is_disrupted);
        let pairs = rtc.pairs().filter(|_| timer.is_none() && !is_disrupted);
        for (place, pair) in pairs.into_iter().flatten().enumerate() {
            readings.beside(place, pair);
        }
        let independent = timer.or(pairs.map(|_| "the real-time clock"));
        Self {
            measured: readings.rate().filter(|_| independent.is_some()),
            readings,
            rtc,
            independent,
            by_timer,
            rough,
        }
    }
}

impl<B: Bench, C: Counter, P: FramePort> Subject<'_, B, C, P> {
    /// Tries what a rule is about.
    #[inline(never)]
    fn try_machine(&mut self, rule: MachineRule, seen: &Seen) -> Outcome {
        let measured = seen.measured;
        match rule {
            MachineRule::Memory => machine::memory(self.bench.memory(), self.bench.image()),
            MachineRule::Tables => {
                let mut tables = machine::Tables::default();
                self.bench.mappings(&mut |mapping| tables.saw(mapping));
                tables.outcome()
            }
            MachineRule::Exceptions => Outcome::of(
                self.bench.undefined_instruction(),
                &"an undefined instruction was caught",
            ),
            MachineRule::Order => seen.readings.order(machine::READS),
            MachineRule::Cost => {
                let known = measured.map(|rate| rate.hertz).or(seen.rough);
                seen.readings.cheap(known)
            }
            MachineRule::Rate => seen.readings.steady(seen.independent),
            MachineRule::Stated => machine::stated(self.bench.stated_rate(), measured, C::ID),
            MachineRule::Interrupts => self.interrupt(),
            MachineRule::Uart => machine::uart(self.bench.uart_loopback()),
            MachineRule::Virtio => machine::nic(&self.bench.nic()),
            MachineRule::Network => self.link(),
            MachineRule::Rtc => seen.rtc.outcome(seen.by_timer),
        }
    }

    /// The counter's rate by a short look at the timer.
    #[inline(never)]
    fn rough_rate(&mut self) -> Option<u64> {
        const LONG_ENOUGH: u64 = 10_000_000;
        let mut readings = Readings::default();
        let begin = self.pair()?;
        readings.beside(0, begin);
        for _ in 0..LOOKS {
            let now = self.bench.uptime()?;
            if now.saturating_sub(begin.nanos) >= LONG_ENOUGH {
                readings.beside(2, self.pair()?);
                break;
            }
        }
        Some(readings.rate()?.hertz)
    }

    /// The counter beside the timer, as near to each other as a few attempts get.
    #[inline(never)]
    fn pair(&mut self) -> Option<Pair> {
        const ATTEMPTS: u32 = 32;
        let mut best: Option<Pair> = None;
        for _ in 0..ATTEMPTS {
            let before = self.counter.read();
            let nanos = self.bench.uptime()?;
            let after = self.counter.read();
            let pair = Pair {
                before,
                nanos,
                after,
            };
            if best.is_none_or(|best| pair.width() < best.width()) {
                best = Some(pair);
            }
        }
        best
    }

    /// Looks at the page and at the counter.
    #[inline(never)]
    fn look_for(
        &mut self,
        length: Duration,
        readings: &mut Readings,
        watch: &mut Watch,
        rtc: &mut Rtc,
    ) {
        let length = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        let begin = self.pair();
        if let Some(begin) = begin {
            readings.beside(0, begin);
        }
        let mut is_past_half = false;
        let mut rtc_next = 0;
        for _ in 0..LOOKS {
            self.look(watch);
            let before = self.counter.read();
            for _ in 0..BATCH {
                readings.read(self.counter.read());
            }
            let spent = self.counter.read().since(before);
            // One more reading than are in the batch lies between the two.
            readings.cost(u64::try_from(spent).unwrap_or(0), BATCH + 1);
            let elapsed = match (begin, self.bench.uptime()) {
                (Some(begin), Some(now)) => {
                    let elapsed = now.saturating_sub(begin.nanos);
                    if elapsed >= length / 2 && !is_past_half {
                        is_past_half = true;
                        if let Some(pair) = self.pair() {
                            readings.beside(1, pair);
                        }
                    }
                    if elapsed >= rtc_next {
                        rtc_next = elapsed.saturating_add(RTC_EVERY);
                        self.look_at_rtc(rtc, watch, is_past_half);
                    }
                    elapsed
                }
                // Without a timer the readings are all there is.
                _ => 0,
            };
            let rtc_end = if rtc.is_enough() { 0 } else { RTC_LATER };
            let is_over = elapsed >= length.saturating_add(rtc_end) || begin.is_none();
            if is_over && readings.reads() >= machine::READS {
                break;
            }
        }
        if let Some(end) = self.pair() {
            readings.beside(2, end);
        }
    }

    /// One look at the real-time clock, beside the page's time.
    #[inline(never)]
    fn look_at_rtc(&mut self, rtc: &mut Rtc, watch: &Watch, late: bool) {
        let before = self.counter.read();
        let look = self.bench.rtc();
        let after = self.counter.read();
        rtc.look((before, after), look, watch.utc(after), late);
    }

    /// One look at the page.
    #[inline(never)]
    fn look(&mut self, watch: &mut Watch) -> Option<(Fields, Ticks)> {
        let page = self.page?;
        // One that is there before the copy is made is about an update that the copy has.
        let notice = if watch.is_notified() {
            self.bench.notice()
        } else {
            Notice::None
        };
        let copy = page.snapshot_with(|| self.counter.read()).ok();
        if let Some((fields, ticks)) = &copy {
            watch.saw(fields, *ticks);
        } else {
            watch.refused(page.seq_count(), self.counter.read());
        }
        watch.noticed(notice, copy.as_ref().map(|(_, ticks)| *ticks));
        copy
    }

    /// Waits until somebody says what `understand` understands, looking at the page meanwhile. Gives its number, and the
    /// page and the counter after it.
    #[inline(never)]
    fn wait_for<S: SerialPort>(
        &mut self,
        understand: fn(&Line) -> Option<u64>,
        console: &mut Console<'_, S>,
        watch: &mut Watch,
    ) -> Option<(u64, (Fields, Ticks))> {
        /// What goes by between two looks, at most, ns: while the machine was stopped, nobody could say anything.
        const STEP: u64 = 10_000_000;
        let patience = u64::try_from(PATIENCE.as_nanos()).unwrap_or(u64::MAX);
        let mut left = patience;
        let mut last = self.bench.uptime()?;
        let mut line = Line(Text::EMPTY);
        for _ in 0..LOOKS {
            let now = self.bench.uptime().unwrap_or(u64::MAX);
            left = left.checked_sub(now.saturating_sub(last).min(STEP))?;
            last = now;
            self.look(watch);
            let Some(byte) = console.receive() else {
                continue;
            };
            if line.take(byte) {
                if let Some(number) = understand(&line) {
                    return self.look(watch).map(|after| (number, after));
                }
                // Somebody is there, and not ready yet.
                (line, left) = (Line(Text::EMPTY), patience);
            }
        }
        None
    }

    /// Sets the alarm and waits for its interrupt.
    #[inline(never)]
    fn interrupt(&mut self) -> Outcome {
        /// An interrupt of the timer's from before it was ours can come at the first.
        const ATTEMPTS: u32 = 3;
        let mut outcome = Outcome::skip(&"no timer measures how long it takes");
        for _ in 0..ATTEMPTS {
            let Some(begin) = self.bench.uptime() else {
                break;
            };
            let is_possible = self.bench.set_alarm(ALARM);
            let mut elapsed = 0;
            let mut arrived = None;
            while is_possible && arrived.is_none() && elapsed < ALARM_LATEST {
                let rang = self.bench.alarm_rang();
                elapsed = match self.bench.uptime() {
                    Some(now) => now.saturating_sub(begin),
                    None => break,
                };
                arrived = rang.then_some(elapsed);
            }
            outcome = machine::interrupt(is_possible, ALARM, arrived);
            if matches!(outcome, Outcome::Ok(_)) || !is_possible {
                break;
            }
        }
        outcome
    }

    /// Asks the network for any answer.
    #[inline(never)]
    fn link(&mut self) -> Outcome {
        let Some(port) = &mut self.port else {
            return Outcome::skip(&"there is no network device");
        };
        let begin = self.bench.uptime();
        let mut left = || {
            let now = self.bench.uptime()?;
            Some(now.saturating_sub(begin?) < link::PATIENCE)
        };
        link::outcome(port, &mut || left().unwrap_or(false))
    }
}

/// A line that is being received.
#[derive(Debug)]
struct Line(Text<40>);

impl Line {
    /// Takes a byte; whether it has ended the line.
    fn take(&mut self, byte: u8) -> bool {
        let is_end = matches!(byte, b'\r' | b'\n');
        if !is_end {
            // A line that is longer than any that is waited for is none of these.
            let _ = self.0.write_char(char::from(byte));
        }
        is_end
    }

    /// It says `stopped NANOSECONDS`, behind whatever noise.
    fn stopped(&self) -> Option<u64> {
        let (_, nanos) = self.0.as_str().rsplit_once("stopped ")?;
        nanos.parse().ok()
    }

    /// It says `loaded`.
    fn loaded(&self) -> Option<u64> {
        self.0.as_str().ends_with("loaded").then_some(0)
    }
}
