//! The host's counter and clock, and what the kernel says of that clock.
//!
//! The clock is read as `CLOCK_TAI`: it runs on through a leap second (where `CLOCK_REALTIME` repeats
//! or skips one), and the kernel switches TAI − UTC together with it. Most kernels do not know
//! TAI − UTC, though, and their `CLOCK_TAI` is UTC plus zero (plus one after a leap second): the
//! difference between the true offset and the kernel's is added here, both taken at one moment.

use core::fmt;
use std::fs;
use std::io;

use gnomon_clock::calendar::{DAY, Date};
use gnomon_clock::page::LeapIndicator;
use gnomon_clock::{Span, Tai, Timestamp};

use crate::leap_table::{LeapTable, LeapTableError};
use crate::sys;

/// Readings per sample, of which the narrowest is kept: an interrupt widens one now and then.
const READINGS: u32 = 8;
/// Attempts at a sample during which the kernel does not change its mind.
const ATTEMPTS: u32 = 16;
/// TAI − UTC that the kernel may know. Zero means it was never told; small values are zero plus the
/// leap seconds since boot.
const KNOWN_OFFSET: core::ops::RangeInclusive<i32> = 10..=60;

/// A counter of the host's, from which QEMU under TCG makes one of the guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostCounter {
    /// The x86 time-stamp counter.
    Tsc,
    /// `CLOCK_MONOTONIC` in nanoseconds. It runs at the rate of `CLOCK_TAI`, however that is slewed;
    /// only steps of the latter tell them apart (Linux `kernel/time/timekeeping.c`).
    Monotonic,
}

impl HostCounter {
    /// The counter now.
    #[must_use]
    pub fn now(self) -> u64 {
        match self {
            Self::Tsc => sys::counter(),
            Self::Monotonic => sys::monotonic(),
        }
    }
}

/// Every counter of the host's at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    tsc: u64,
    monotonic: u64,
}

impl Counters {
    /// Now: all of them lie between this call's beginning and its end.
    #[must_use]
    pub fn now() -> Self {
        let [tsc, monotonic] = [HostCounter::Tsc, HostCounter::Monotonic].map(HostCounter::now);
        Self { tsc, monotonic }
    }

    /// One of them.
    #[must_use]
    pub const fn of(self, counter: HostCounter) -> u64 {
        match counter {
            HostCounter::Tsc => self.tsc,
            HostCounter::Monotonic => self.monotonic,
        }
    }
}

/// The host's clock, as read against its counter.
#[derive(Debug)]
pub struct HostClock {
    counter: HostCounter,
    table: Result<LeapTable, LeapTableError>,
    /// Ticks by which the counter may be ahead of what it shows.
    step: u64,
}

/// One reading of the host's clock.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The clock showed `time` while the counter was within [`radius`](Self::radius) of this.
    pub counter: u64,
    /// In ticks, rounded up.
    pub radius: u64,
    /// TAI if `offset` is known, else UTC; truncated to 1 ns.
    pub time: Timestamp<Tai>,
    /// TAI − UTC in seconds.
    pub offset: Option<i32>,
    /// What the kernel said at that moment.
    pub kernel: Kernel,
}

/// What the kernel says of its clock (`adjtimex(2)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// UTC in seconds since 1970. Inside an inserted second 23:59:59 is repeated.
    pub utc: i64,
    /// The leap second at the end of this UTC day, or of the one before.
    pub leap: Leap,
    /// Where that is.
    pub phase: Phase,
    /// The kernel's TAI − UTC in seconds; zero unless somebody has told it.
    pub tai: i32,
    /// Some program keeps the clock to UTC.
    pub synchronised: bool,
    /// Greatest error against UTC in µs, if synchronised.
    pub maxerror_us: u64,
    /// Estimated error against UTC in µs, if synchronised.
    pub esterror_us: u64,
}

/// A leap second that the kernel has been told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leap {
    /// There is none.
    None,
    /// 23:59:60 is inserted.
    Insert,
    /// 23:59:59 is left out.
    Delete,
}

/// Where in time a leap second is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// At the end of this UTC day.
    Ahead,
    /// Now: the kernel repeats 23:59:59.
    Inside,
    /// At the end of the last day.
    Over,
}

impl HostClock {
    /// The host's clock, read against this counter, if that can be trusted to follow one rate on all
    /// processors.
    ///
    /// # Errors
    /// [`HostError::Counter`] when the kernel does not trust it.
    pub fn new(counter: HostCounter) -> Result<Self, HostError> {
        if counter == HostCounter::Tsc && !tsc_is_trusted() {
            return Err(HostError::Counter);
        }
        Ok(Self {
            counter,
            table: LeapTable::system(),
            step: counter_step(counter),
        })
    }

    /// What it is read against.
    #[must_use]
    pub const fn counter(&self) -> HostCounter {
        self.counter
    }

    /// The system's leap-second table.
    ///
    /// # Errors
    /// Why there is none. TAI − UTC is unknown then, unless the kernel knows it.
    pub fn table(&self) -> Result<&LeapTable, &LeapTableError> {
        self.table.as_ref()
    }

    /// Reads the clock.
    ///
    /// # Errors
    /// When the kernel refuses, or its clock's state changes again and again.
    pub fn sample(&self) -> Result<Sample, HostError> {
        for _ in 0..ATTEMPTS {
            let before = Kernel::now()?;
            let mut reading = Reading::take(self.counter)?;
            for _ in 1..READINGS {
                let another = Reading::take(self.counter)?;
                reading = if another.width < reading.width {
                    another
                } else {
                    reading
                };
            }
            let kernel = Kernel::now()?;
            let offset = tai_minus_utc(&kernel, self.table.as_ref().ok());
            let steady = before.tai == kernel.tai
                && offset == tai_minus_utc(&before, self.table.as_ref().ok())
                && before.leap_indicator() == kernel.leap_indicator();
            if !steady {
                continue;
            }
            let Reading {
                counter,
                width,
                seconds,
                nanos,
            } = reading;
            // From the kernel's TAI to true TAI, or to UTC where that is not known.
            let seconds = seconds + i64::from(offset.unwrap_or(0) - kernel.tai);
            let time = Timestamp::from_parts(seconds, 0).checked_add(Span::from_nanos(nanos));
            let time = time.ok_or(HostError::Unsteady)?;
            // Half the width, rounded up, and what the counter leaves out of both its readings.
            let radius = width.div_ceil(2) + self.step;
            return Ok(Sample {
                counter: counter.wrapping_add(width / 2),
                radius,
                time,
                offset,
                kernel,
            });
        }
        Err(HostError::Unsteady)
    }
}

/// Whether the kernel trusts the TSC.
fn tsc_is_trusted() -> bool {
    // Linux strikes it off this list when it finds it stopping, drifting, or different from processor
    // to processor.
    let sources = "/sys/devices/system/clocksource/clocksource0/available_clocksource";
    let sources = fs::read_to_string(sources).unwrap_or_default();
    sources
        .split_ascii_whitespace()
        .any(|source| source == "tsc")
}

/// Ticks by which the counter may be ahead of what it shows.
///
/// Some counters move in steps (26 ticks at 100 MHz, say, scaled to look like 2.6 GHz). Two readings
/// in a row differ by a step or by what a reading takes, whichever is more: their median is no less
/// than the step, and too much is on the safe side.
fn counter_step(counter: HostCounter) -> u64 {
    let mut steps = [0; 101];
    for step in &mut steps {
        let before = counter.now();
        while *step == 0 {
            *step = counter.now().wrapping_sub(before);
        }
    }
    steps.sort_unstable();
    steps[steps.len() / 2]
}

impl Kernel {
    fn now() -> Result<Self, HostError> {
        let (answer, timex) = sys::adjtimex().map_err(HostError::Clock)?;
        let has = |bit| timex.status & bit != 0;
        let micros = |value| u64::try_from(value).unwrap_or(0);
        Ok(Self {
            utc: timex.time.tv_sec,
            leap: match (has(libc::STA_INS), has(libc::STA_DEL)) {
                (true, _) => Leap::Insert,
                (_, true) => Leap::Delete,
                _ => Leap::None,
            },
            phase: match answer {
                libc::TIME_OOP => Phase::Inside,
                libc::TIME_WAIT => Phase::Over,
                _ => Phase::Ahead,
            },
            tai: timex.tai,
            synchronised: answer != libc::TIME_ERROR && !has(libc::STA_UNSYNC),
            maxerror_us: micros(timex.maxerror),
            esterror_us: micros(timex.esterror),
        })
    }

    /// The page's indicator at this moment.
    ///
    /// Linux acts on a flag at the end of the *day* in which it is set, the page speaks of the end of
    /// the *month*. So a flag that is set early in the month is not passed on before the last day.
    #[must_use]
    pub fn leap_indicator(&self) -> LeapIndicator {
        let day = self.utc.div_euclid(DAY);
        let month = |day| Date::from_days(day).map(|date| date.month);
        let last_of_month = month(day) != month(day + 1);
        let first_of_month = month(day) != month(day - 1);
        match (self.phase, self.leap) {
            (Phase::Inside, _) => LeapIndicator::Pos,
            (Phase::Ahead, Leap::Insert) if last_of_month => LeapIndicator::PrePos,
            (Phase::Ahead, Leap::Delete) if last_of_month => LeapIndicator::PreNeg,
            (Phase::Over, Leap::Insert) if first_of_month => LeapIndicator::PostPos,
            (Phase::Over, Leap::Delete) if first_of_month => LeapIndicator::PostNeg,
            _ => LeapIndicator::None,
        }
    }
}

/// TAI − UTC such that `kernel.utc` plus it is TAI: the kernel's if it knows, else the table's.
#[must_use]
pub fn tai_minus_utc(kernel: &Kernel, table: Option<&LeapTable>) -> Option<i32> {
    if KNOWN_OFFSET.contains(&kernel.tai) {
        return Some(kernel.tai);
    }
    // The table has the new offset from 00:00:00 on. The kernel repeats 23:59:59 when that second is
    // inserted, and raises its own offset already then: TAI goes on.
    let repeated = i32::from(kernel.phase == Phase::Inside);
    table
        .and_then(|table| table.tai_minus_utc(kernel.utc))
        .map(|offset| offset + repeated)
}

/// `CLOCK_TAI` between two looks at the counter.
struct Reading {
    /// The first look.
    counter: u64,
    /// Ticks to the second look.
    width: u64,
    seconds: i64,
    nanos: i64,
}

impl Reading {
    fn take(of: HostCounter) -> Result<Self, HostError> {
        let counter = of.now();
        let time = sys::clock_tai();
        let width = of.now().wrapping_sub(counter);
        let (seconds, nanos) = time.map_err(HostError::Clock)?;
        Ok(Self {
            counter,
            width,
            seconds,
            nanos,
        })
    }
}

/// Why the host's clock cannot be used.
#[derive(Debug)]
pub enum HostError {
    /// The kernel does not trust the counter.
    Counter,
    /// The kernel does not tell its clock or its state.
    Clock(io::Error),
    /// The kernel's clock changes its state all the time.
    Unsteady,
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Counter => f.write_str(
                "this host's kernel does not trust its TSC (it is not among the available \
                 clocksources), so no time can be published by it",
            ),
            Self::Clock(error) => write!(f, "the kernel does not tell its clock: {error}"),
            Self::Unsteady => f.write_str("the kernel's clock changes its state all the time"),
        }
    }
}

impl core::error::Error for HostError {}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Kernel = Kernel {
        utc: 0,
        leap: Leap::None,
        phase: Phase::Ahead,
        tai: 0,
        synchronised: false,
        maxerror_us: 16_000_000,
        esterror_us: 16_000_000,
    };

    /// 2017-01-01T00:00:00Z, before which a second was inserted.
    const MIDNIGHT: i64 = 1_483_228_800;

    fn table() -> LeapTable {
        LeapTable::parse("3644697600 36\n3692217600 37\n").expect("well-formed")
    }

    /// How Linux (`kernel/time/ntp.c`) shows a positive leap second, second by second.
    fn through_insertion(tai: i32) -> Vec<Kernel> {
        let before = Kernel {
            leap: Leap::Insert,
            tai,
            ..QUIET
        };
        let after = Kernel {
            leap: Leap::Insert,
            tai: tai + 1,
            ..QUIET
        };
        vec![
            Kernel {
                utc: MIDNIGHT - 2,
                ..before
            },
            Kernel {
                utc: MIDNIGHT - 1,
                ..before
            },
            Kernel {
                utc: MIDNIGHT - 1,
                phase: Phase::Inside,
                ..after
            },
            Kernel {
                utc: MIDNIGHT,
                phase: Phase::Over,
                ..after
            },
            Kernel {
                utc: MIDNIGHT + 1,
                phase: Phase::Over,
                ..after
            },
        ]
    }

    #[test]
    fn tai_runs_on_through_an_inserted_second() {
        let table = table();
        for (tai, table) in [(36, None), (36, Some(&table)), (0, Some(&table))] {
            let seconds: Vec<i64> = through_insertion(tai)
                .iter()
                .map(|kernel| kernel.utc + i64::from(tai_minus_utc(kernel, table).expect("known")))
                .collect();
            let expected: Vec<i64> = (MIDNIGHT + 34..MIDNIGHT + 39).collect();
            assert_eq!(seconds, expected, "kernel offset {tai}");
        }
    }

    #[test]
    fn unknown_offset_stays_unknown() {
        for tai in [0, 1, 9, -37, 61] {
            assert_eq!(
                tai_minus_utc(
                    &Kernel {
                        utc: MIDNIGHT,
                        tai,
                        ..QUIET
                    },
                    None
                ),
                None
            );
        }
        let early = Kernel { utc: 0, ..QUIET };
        assert_eq!(tai_minus_utc(&early, Some(&table())), None);
    }

    #[test]
    fn indicator_follows_the_kernel() {
        use LeapIndicator::{None, Pos, PostPos, PrePos};
        let shown: Vec<_> = through_insertion(0)
            .iter()
            .map(Kernel::leap_indicator)
            .collect();
        assert_eq!(shown, [PrePos, PrePos, Pos, PostPos, PostPos]);

        let delete = Kernel {
            leap: Leap::Delete,
            ..QUIET
        };
        let at = |utc, phase| {
            Kernel {
                utc,
                phase,
                ..delete
            }
            .leap_indicator()
        };
        assert_eq!(at(MIDNIGHT - DAY, Phase::Ahead), LeapIndicator::PreNeg);
        assert_eq!(at(MIDNIGHT, Phase::Over), LeapIndicator::PostNeg);
        // Not at a month's end: the page has no word for it.
        assert_eq!(at(MIDNIGHT - DAY - 1, Phase::Ahead), None);
        assert_eq!(at(MIDNIGHT + DAY, Phase::Over), None);
        assert_eq!(QUIET.leap_indicator(), None);
    }

    #[test]
    fn samples_follow_the_clock() {
        for counter in [HostCounter::Tsc, HostCounter::Monotonic] {
            follows_the_clock(&HostClock::new(counter).expect("trusted here"));
        }
    }

    fn follows_the_clock(clock: &HostClock) {
        let first = clock.sample().expect("a sample");
        let realtime = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        let second = clock.sample().expect("a sample");
        let offset = first.offset.expect("tzdata is installed");
        assert!((37..=60).contains(&offset), "TAI-UTC {offset}");
        let shown = realtime.tv_sec + i64::from(offset);
        assert!((first.time.seconds()..=second.time.seconds()).contains(&shown));
        assert!(second.counter > first.counter && second.time > first.time);
    }
}
