//! The machine held to what an operating system needs of it: facts that a [`Bench`] brings, and pure judgements.

use gnomon_clock::{CounterId, Ticks};

use super::tap::{Check, Outcome};
use crate::discover::Window;
use crate::discover::notification::Untold;
use crate::memory::{MemoryKind, MemoryRange};
use crate::report::Width;
use crate::services::counters::Rate;
use crate::source::rtc::Look;

/// Reads of the counter that have to be in order.
pub const READS: u64 = 1_000_000;

/// How much before its time an alarm may go off, ns.
pub const EARLY: u64 = 100_000;

/// The machine under test. Implemented in `boot` over `gnomon_arch`.
pub trait Bench {
    /// What the loader says of memory.
    fn memory(&self) -> &[MemoryRange];
    /// First address of our image in memory, and of what lies behind it.
    fn image(&self) -> (u64, u64);
    /// Where the vmclock page is.
    fn page(&self) -> Option<Window>;
    /// Shows how parts of memory are mapped, and how they should be.
    fn mappings(&self, visit: &mut dyn FnMut(Mapping));
    /// Executes an instruction that does not exist. Returns whether its exception was caught.
    fn undefined_instruction(&mut self) -> bool;
    /// Nanoseconds since the start, and what by; `None` when the machine has no timer for that.
    fn uptime(&mut self) -> Option<u64>;
    /// What [`uptime`](Self::uptime) goes by, if that is not the counter itself.
    fn independent_timer(&self) -> Option<&'static str>;
    /// The counter's rate in the machine's own words.
    fn stated_rate(&self) -> Option<Rate>;
    /// Sets the timer's interrupt to so many microseconds from now. Returns whether there can be one.
    fn set_alarm(&mut self, microseconds: u64) -> bool;
    /// Takes an interrupt if one has arrived, without waiting. Returns whether the alarm has gone off.
    fn alarm_rang(&mut self) -> bool;
    /// Sends a byte through the console UART's loopback; `None` when it has none.
    fn uart_loopback(&mut self) -> Option<bool>;
    /// Looks at the real-time clock.
    ///
    /// # Errors
    /// Why there is none.
    fn rtc(&mut self) -> Result<Look, &'static str>;
    /// Looks for an interrupt that says that the vmclock page was updated.
    fn notice(&mut self) -> Notice;
    /// Does not look for it any more.
    fn end_notices(&mut self);
    /// What became of the network device.
    fn nic(&self) -> Nic<'_>;
}

/// What a look for the page's notification gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// None since the last look.
    None,
    /// There was one.
    Arrived,
    /// The machine's description names no interrupt for it.
    Undescribed,
    /// It cannot be looked for, and why.
    Unknown(&'static str),
}

impl From<Untold> for Notice {
    fn from(untold: Untold) -> Self {
        match untold {
            Untold::Elsewhere => Self::Unknown("no device of ACPI's describes this page"),
            Untold::Never => Self::Undescribed,
            Untold::Because(why) => Self::Unknown(why),
        }
    }
}

/// How a part of memory is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The part in a word or two.
    pub what: &'static str,
    /// An address in it.
    pub address: u64,
    /// How it should be mapped, in a word or two.
    pub wanted: &'static str,
    /// How the tables in force have it.
    pub found: &'static str,
}

/// What became of the network device, with the words for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nic<'a> {
    /// It runs.
    Running(&'a str),
    /// It cannot be used.
    Refused(&'a str),
    /// There is none.
    Absent(&'a str),
}

/// What is checked of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Memory map.
    Memory,
    /// Page tables.
    Tables,
    /// Exceptions.
    Exceptions,
    /// Order of the counter's readings.
    Order,
    /// What reading it costs.
    Cost,
    /// Its rate against another timer.
    Rate,
    /// Its rate against what the machine states.
    Stated,
    /// The timer's interrupt.
    Interrupts,
    /// UART.
    Uart,
    /// Bus and device.
    Virtio,
    /// Link.
    Network,
    /// Real-time clock.
    Rtc,
}

impl Rule {
    /// Every rule, in the order in which it is told.
    pub const ALL: &[Self] = &[
        Self::Memory,
        Self::Tables,
        Self::Exceptions,
        Self::Order,
        Self::Cost,
        Self::Rate,
        Self::Stated,
        Self::Interrupts,
        Self::Uart,
        Self::Virtio,
        Self::Network,
        Self::Rtc,
    ];

    /// Its name and what it demands.
    #[must_use]
    pub const fn check(self) -> &'static Check {
        match self {
            Self::Memory => &Check {
                name: "memory map",
                rule: "ranges of RAM do not overlap, and the image lies in one",
                source: "ACPI 6.5, 15; Devicetree 0.4, 3.4",
            },
            Self::Tables => &Check {
                name: "page tables",
                rule: "every part of memory is mapped as what it is, and by the tables in force",
                source: "Gnomon, ARCHITECTURE.md",
            },
            Self::Exceptions => &Check {
                name: "exceptions",
                rule: "an undefined instruction leads to the handler, which returns behind it",
                source: "Intel SDM vol. 3, 6.15; Arm ARM, D1.3",
            },
            Self::Order => &Check {
                name: "counter order",
                rule: "the counter never goes backwards",
                source: "Intel SDM vol. 3, 18.17; Arm ARM, D12.1",
            },
            Self::Cost => &Check {
                name: "counter cost",
                rule: "a reading costs less than a millisecond",
                source: "Gnomon, README.md",
            },
            Self::Rate => &Check {
                name: "counter rate",
                rule: "by an independent timer the counter runs as fast in the second half as in the first",
                source: "Intel SDM vol. 3, 18.17.1",
            },
            Self::Stated => &Check {
                name: "counter rate as stated",
                rule: "the counter runs as fast as the machine says",
                source: "Intel SDM vol. 2, CPUID 15H; Arm ARM, CNTFRQ_EL0",
            },
            Self::Interrupts => &Check {
                name: "timer interrupt",
                rule: "the timer's interrupt arrives, and not before its time",
                source: "ACPI 6.5, 5.2.12; Arm BSA, 3.8",
            },
            Self::Uart => &Check {
                name: "uart loopback",
                rule: "a byte sent in loopback mode is received",
                source: "16550D, 8.7; Arm DDI 0183, UARTCR.LBE",
            },
            Self::Virtio => &Check {
                name: "network device",
                rule: "a virtio network device that is found can be used",
                source: "virtio 1.3, 3.1",
            },
            Self::Network => &Check {
                name: "network link",
                rule: "somebody answers a frame that everybody receives",
                source: "RFC 826; RFC 2131",
            },
            Self::Rtc => &Check {
                name: "real-time clock",
                rule: "the clock tells a date of this century within a day of the page's, and goes on as time does",
                source: "ACPI 6.5, 4.8.2.4; Arm DDI 0224",
            },
        }
    }
}

/// Memory as the loader describes it, and our place in it.
#[must_use]
#[inline(never)]
pub fn memory(map: &[MemoryRange], (start, end): (u64, u64)) -> Outcome {
    let ram = || map.iter().filter(|range| range.kind == MemoryKind::Usable);
    let bytes = ram().fold(0_u64, |sum, range| sum.saturating_add(range.length));
    let overlapping = ram().enumerate().find_map(|(at, range)| {
        let mut later = ram().skip(at + 1);
        later.find(|other| range.overlaps(other.start, other.length))
    });
    if let Some(range) = overlapping {
        return Outcome::not_ok(&format_args!("two ranges of RAM have {:#x}", range.start));
    }
    let inside = |range: &MemoryRange| {
        let into = start.checked_sub(range.start);
        into.and_then(|into| into.checked_add(end.checked_sub(start)?))
            .is_some_and(|reach| reach <= range.length)
    };
    let is_inside = start < end && ram().any(inside);
    Outcome::of(
        is_inside,
        &format_args!(
            "{} ranges, {} KiB of RAM, the image at {start:#x} to {end:#x}",
            map.len(),
            bytes / 1024
        ),
    )
}

/// What the page lies in.
#[must_use]
#[inline(never)]
pub fn reserved(map: &[MemoryRange], window: Window) -> Outcome {
    let Window { address, length } = window;
    let taken = map.iter().find(|range| {
        let is_ram = matches!(range.kind, MemoryKind::Usable | MemoryKind::Acpi);
        is_ram && range.overlaps(address, length)
    });
    match taken {
        Some(range) => Outcome::not_ok(&format_args!(
            "{address:#x} lies in the {} bytes of RAM at {:#x}",
            range.length, range.start
        )),
        None => Outcome::of(
            address.is_multiple_of(4096) && length >= 4096,
            &format_args!(
                "{length} bytes at {address:#x}, in none of {} ranges of RAM",
                map.iter()
                    .filter(|range| range.kind == MemoryKind::Usable)
                    .count()
            ),
        ),
    }
}

/// The page tables.
#[derive(Debug, Default)]
pub struct Tables {
    seen: u32,
    wrong: Option<Mapping>,
}

impl Tables {
    /// Takes note of a mapping.
    pub fn saw(&mut self, mapping: Mapping) {
        self.seen += 1;
        if mapping.found != mapping.wanted && self.wrong.is_none() {
            self.wrong = Some(mapping);
        }
    }

    /// Whether all were right.
    #[must_use]
    #[inline(never)]
    pub fn outcome(&self) -> Outcome {
        match &self.wrong {
            Some(Mapping {
                what,
                address,
                wanted,
                found,
            }) => Outcome::not_ok(&format_args!(
                "{what} at {address:#x} is {found}, not {wanted}"
            )),
            None => Outcome::of(
                self.seen > 0,
                &format_args!("{} parts, each as it should be", self.seen),
            ),
        }
    }
}

/// What is seen of the counter alone.
#[derive(Debug, Default)]
pub struct Readings {
    last: Option<Ticks>,
    reads: u64,
    back: Option<(Ticks, Ticks)>,
    still: u64,
    cost: Option<u64>,
    /// The counter beside another timer: first, middle, last.
    pairs: [Option<Pair>; 3],
}

/// The counter at a moment that another timer tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The counter before the timer was read.
    pub before: Ticks,
    /// The timer, ns.
    pub nanos: u64,
    /// The counter after it was read.
    pub after: Ticks,
}

impl Pair {
    /// How long reading the timer took, in ticks.
    #[must_use]
    pub const fn width(&self) -> u64 {
        self.after.since(self.before).unsigned_abs()
    }
}

/// A rate that was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Ticks a second.
    pub hertz: u64,
    /// What it may be wrong by, Hz.
    pub error: u64,
}

impl Readings {
    /// Takes note of a reading.
    pub fn read(&mut self, ticks: Ticks) {
        self.reads += 1;
        if let Some(last) = self.last {
            match ticks.since(last) {
                ..0 if self.back.is_none() => self.back = Some((last, ticks)),
                0 => self.still += 1,
                _ => {}
            }
        }
        self.last = Some(ticks);
    }

    /// How many readings have been taken.
    #[must_use]
    pub const fn reads(&self) -> u64 {
        self.reads
    }

    /// Takes note of what so many readings in a row have cost, in ticks.
    pub fn cost(&mut self, ticks: u64, reads: u64) {
        let each = ticks.checked_div(reads);
        self.cost = match (self.cost, each) {
            (Some(least), Some(each)) => Some(least.min(each)),
            (least, each) => least.or(each),
        };
    }

    /// Takes note of the counter beside another timer: 0 for the first time, 1 about half way, 2 for the last.
    pub fn beside(&mut self, place: usize, pair: Pair) {
        if let Some(place) = self.pairs.get_mut(place) {
            *place = Some(pair);
        }
    }

    /// The counter's rate by the other timer, over all the time that there was.
    #[must_use]
    pub fn rate(&self) -> Option<Measured> {
        let [first, _, last] = self.pairs;
        measured(first?, last?)
    }

    /// The order of the readings, of which there have to be so many.
    #[must_use]
    #[inline(never)]
    pub fn order(&self, least: u64) -> Outcome {
        match self.back {
            Some((before, after)) => {
                Outcome::not_ok(&format_args!("{}, then {}", before.0, after.0))
            }
            None => Outcome::of(
                self.reads >= least && self.still < self.reads,
                &format_args!(
                    "{} readings in order, {} like the one before",
                    self.reads, self.still
                ),
            ),
        }
    }

    /// What a reading costs.
    #[must_use]
    #[inline(never)]
    pub fn cheap(&self, hertz: Option<u64>) -> Outcome {
        let Some(ticks) = self.cost else {
            return Outcome::skip(&"not measured");
        };
        let nanos = hertz.map(|hertz| {
            let nanos = u128::from(ticks) * 1_000_000_000 / u128::from(hertz.max(1));
            u64::try_from(nanos).unwrap_or(u64::MAX)
        });
        match nanos {
            Some(nanos) => Outcome::of(
                nanos < 1_000_000,
                &format_args!("{ticks} ticks, {}", Width(nanos)),
            ),
            None => Outcome::ok(&format_args!("{ticks} ticks")),
        }
    }

    /// The rate in the first and in the second half, by a timer of this name.
    #[must_use]
    #[inline(never)]
    pub fn steady(&self, timer: Option<&'static str>) -> Outcome {
        let Some(timer) = timer else {
            return Outcome::skip(&"no timer here is independent of the counter");
        };
        let [first, middle, last] = self.pairs;
        let rate = |from: Option<_>, to: Option<_>| measured(from?, to?);
        let (Some(before), Some(after)) = (rate(first, middle), rate(middle, last)) else {
            return Outcome::not_ok(&format_args!("{timer} stands still, or the counter does"));
        };
        let allowed = before.hertz / 1000 + before.error + after.error;
        Outcome::of(
            before.hertz.abs_diff(after.hertz) <= allowed,
            &format_args!(
                "{} Hz, then {} Hz, give or take {}, by {timer}",
                before.hertz,
                after.hertz,
                before.error.max(after.error)
            ),
        )
    }
}

/// The rate between two moments.
#[must_use]
#[inline(never)]
pub(super) fn measured(from: Pair, to: Pair) -> Option<Measured> {
    let ticks = u64::try_from(to.before.since(from.before)).ok()?;
    let nanos = to
        .nanos
        .checked_sub(from.nanos)
        .filter(|&nanos| nanos > 0)?;
    let rate = |ticks: u64| {
        let rate = u128::from(ticks) * 1_000_000_000 / u128::from(nanos);
        u64::try_from(rate).ok()
    };
    let hertz = rate(ticks).filter(|&hertz| hertz > 0)?;
    // Where between its two counter values the timer was read is not known, and a hundred thousandth for its own steps.
    let error = rate(from.width().saturating_add(to.width()))?.saturating_add(hertz / 100_000);
    Some(Measured { hertz, error })
}

/// The rate in the machine's own words beside what was measured.
#[must_use]
#[inline(never)]
pub fn stated(stated: Option<Rate>, measured: Option<Measured>, counter: CounterId) -> Outcome {
    let Some(rate) = stated else {
        return Outcome::skip(&"the machine does not state it");
    };
    match measured {
        Some(Measured { hertz, error }) => Outcome::of(
            rate.hertz.abs_diff(hertz) <= rate.hertz / 1000 + rate.unit + error,
            &format_args!("{rate}, {hertz} Hz measured"),
        ),
        // A sane statement is all that can be asked for.
        None => Outcome::of(
            (1_000_000..=10_000_000_000).contains(&rate.hertz),
            &format_args!("{rate} for the {counter}"),
        ),
    }
}

/// The timer's interrupt, asked for in so many microseconds and arrived after so many nanoseconds.
#[must_use]
#[inline(never)]
pub fn interrupt(possible: bool, asked_micros: u64, arrived: Option<u64>) -> Outcome {
    if !possible {
        return Outcome::skip(&"no interrupt controller is known");
    }
    match arrived {
        // The timers count in periods of their own: a little early is rounding.
        Some(nanos) => Outcome::of(
            nanos.saturating_add(EARLY) >= asked_micros * 1000,
            &format_args!("after {}, {asked_micros} µs asked for", Width(nanos)),
        ),
        None => Outcome::not_ok(&"it has not arrived"),
    }
}

/// The console UART.
#[must_use]
pub fn uart(echo: Option<bool>) -> Outcome {
    match echo {
        Some(true) => Outcome::ok(&"every byte came back"),
        Some(false) => Outcome::not_ok(&"a byte came back changed, or not at all"),
        None => Outcome::skip(&"this console has no loopback"),
    }
}

/// The network device.
#[must_use]
pub fn nic(nic: &Nic<'_>) -> Outcome {
    match nic {
        Nic::Running(text) => Outcome::ok(text),
        Nic::Refused(text) => Outcome::not_ok(text),
        Nic::Absent(text) => Outcome::skip(text),
    }
}
