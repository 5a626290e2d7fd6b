//! Real-time clocks: the CMOS clock of a PC (Motorola MC146818A and what it has become), and Arm's PL031
//! (DDI 0224). The last resort.
//!
//! **What such a clock is worth.** It shows whole seconds, and nobody says how it was set. It is taken
//! to run on UTC: one that was set to local time is off by hours, and nothing inside the machine can find that
//! out. The time is put in the middle of the second shown, with an error of 2 s ([`ERROR`]): half a second for
//! the second itself, another for one that was set to the second (QEMU's starts at a whole one), and one for a leap
//! second that the clock has not been told of. Beyond that it is only as right as it was set, so its time is
//! shown and compared, and not served unless the operator says so (`source=rtc`).
//!
//! **Update in progress.** The CMOS registers change one after another for up to 2 ms a second, when they must not
//! be read. Nothing here waits for that: the question goes on until the clock is at rest and gives
//! the same reading twice, and is given up by who asks ([`Sources`](super::Sources), after a second).

use core::fmt;

use gnomon_clock::calendar::{DAY, Date};
use gnomon_clock::{Bound, ClockStatus, Source, SourceTime, Timestamp};

use crate::source::{Answer, Driver, Indication};

/// The error of a real-time clock's time by itself.
pub const ERROR: Bound = Bound::from_nanos(2_000_000_000);

/// A real-time clock.
#[derive(Debug)]
pub struct Rtc<C>(
    /// What kind it is.
    pub C,
);

/// A kind of real-time clock.
pub trait Chip {
    /// What it is called.
    const NAME: &'static str;

    /// Looks at it.
    fn look(&mut self) -> Look;
}

/// What a look at a real-time clock gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// The second shown, counted from 1970.
    Seconds(i64),
    /// It is just being updated.
    Busy,
    /// It shows no time, and why.
    Silent(&'static str),
}

impl<C: Chip> Driver for Rtc<C> {
    fn source(&self) -> Source {
        Source::Rtc
    }

    fn ask(&mut self) -> Answer {
        self.poll()
    }

    fn poll(&mut self) -> Answer {
        /// Where a clock that was never set counts from.
        const UNSET: i64 = 365 * DAY;
        match self.0.look() {
            Look::Seconds(seconds) if seconds >= UNSET => Answer::Time(Indication {
                time: SourceTime::Utc(Timestamp::from_parts(seconds, 1 << 63)),
                ticks: None,
                error: ERROR,
                tai_offset: None,
                leap: None,
                status: ClockStatus::Freerunning,
            }),
            Look::Seconds(_) => Answer::Silence("it was never set"),
            Look::Busy => Answer::Later,
            Look::Silent(why) => Answer::Silence(why),
        }
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, taken for UTC", C::NAME)
    }
}

/// The CMOS clock.
#[derive(Debug)]
pub struct Cmos<R> {
    registers: R,
    century: Option<u8>,
}

/// Its registers.
pub trait CmosRegisters {
    /// Reads one, 0 to 127.
    fn read(&mut self, register: u8) -> u8;
}

/// Where the century is on every PC that has one and does not say.
pub const CENTURY: u8 = 0x32;

impl<R: CmosRegisters> Cmos<R> {
    /// The clock behind these registers. `century` is the register of the century, where there is one (ACPI's
    /// FADT says so); without it the year is one from 2000 to 2099.
    pub const fn new(registers: R, century: Option<u8>) -> Self {
        Self { registers, century }
    }

    /// The registers of date and time, in the order of [`CmosTime`]'s fields.
    fn read(&mut self) -> CmosTime {
        let mut read = |register| self.registers.read(register);
        CmosTime {
            second: read(0x00),
            minute: read(0x02),
            hour: read(0x04),
            day: read(0x07),
            month: read(0x08),
            year: read(0x09),
            century: self.century.map(&mut read),
            mode: read(STATUS_B),
        }
    }
}

const STATUS_A: u8 = 0x0a;
const STATUS_B: u8 = 0x0b;
const STATUS_D: u8 = 0x0d;
/// Status A: an update is under way or near.
const UPDATING: u8 = 1 << 7;
/// Status B: the clock is being set, and stands still.
const SET: u8 = 1 << 7;
/// Status B: numbers are binary, not BCD.
const BINARY: u8 = 1 << 2;
/// Status B: hours are counted to 24, not to 12 twice.
const DAY_HOURS: u8 = 1 << 1;
/// Status D: power has never failed.
const VALID: u8 = 1 << 7;
/// The hour register, where hours are counted to 12: after noon.
const AFTERNOON: u8 = 1 << 7;

impl<R: CmosRegisters> Chip for Cmos<R> {
    const NAME: &'static str = "CMOS";

    fn look(&mut self) -> Look {
        let [a, b, d] = [STATUS_A, STATUS_B, STATUS_D].map(|number| self.registers.read(number));
        if [a, b, d] == [u8::MAX; 3] {
            return Look::Silent("nothing answers at its ports");
        }
        if d & VALID == 0 {
            return Look::Silent("its battery has been empty");
        }
        if b & SET != 0 {
            return Look::Silent("it stands still, to be set");
        }
        if a & UPDATING != 0 {
            return Look::Busy;
        }
        let (first, second) = (self.read(), self.read());
        if first != second || self.registers.read(STATUS_A) & UPDATING != 0 {
            return Look::Busy;
        }
        first
            .seconds()
            .map_or(Look::Silent("it shows no date"), Look::Seconds)
    }
}

/// What the CMOS registers of date and time hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CmosTime {
    /// Seconds.
    pub second: u8,
    /// Minutes.
    pub minute: u8,
    /// Hours, with the bit for the afternoon where they are counted to 12.
    pub hour: u8,
    /// Day of the month.
    pub day: u8,
    /// Month.
    pub month: u8,
    /// Year of the century.
    pub year: u8,
    /// Century, the year's first two digits.
    pub century: Option<u8>,
    /// Status B: how the others are to be read.
    pub mode: u8,
}

impl CmosTime {
    /// Seconds since 1970; `None` when this is no date and time from 1900 on.
    #[must_use]
    pub fn seconds(&self) -> Option<i64> {
        let number = |register: u8, most: u8| {
            let (tens, units) = (register >> 4, register & 0xf);
            let value = if self.mode & BINARY != 0 {
                register
            } else if tens <= 9 && units <= 9 {
                tens * 10 + units
            } else {
                return None;
            };
            (value <= most).then_some(i64::from(value))
        };
        let hour = if self.mode & DAY_HOURS != 0 {
            number(self.hour, 23)?
        } else {
            // Twelve comes before one.
            match number(self.hour & !AFTERNOON, 12)? {
                0 => return None,
                hour if self.hour & AFTERNOON != 0 => hour % 12 + 12,
                hour => hour % 12,
            }
        };
        let century = match self.century {
            Some(register) => number(register, 99).filter(|century| *century >= 19)?,
            None => 20,
        };
        let date = Date {
            year: century * 100 + number(self.year, 99)?,
            month: number(self.month, 12)?.try_into().ok()?,
            day: number(self.day, 31)?.try_into().ok()?,
        };
        let (minute, second) = (number(self.minute, 59)?, number(self.second, 59)?);
        Some(date.days()? * DAY + (hour * 60 + minute) * 60 + second)
    }
}

/// Arm's PL031.
#[derive(Debug)]
pub struct Pl031<R>(
    /// Its registers.
    pub R,
);

/// Its registers.
pub trait Pl031Registers {
    /// Reads the register at this offset.
    fn read(&mut self, offset: usize) -> u32;
}

impl<R: Pl031Registers> Chip for Pl031<R> {
    const NAME: &'static str = "PL031";

    fn look(&mut self) -> Look {
        const DATA: usize = 0x00;
        const CONTROL: usize = 0x0c;
        const START: u32 = 1;
        let control = self.0.read(CONTROL);
        if control == u32::MAX {
            return Look::Silent("nothing answers at its registers");
        }
        if control & START == 0 {
            return Look::Silent("it stands still");
        }
        let (first, second) = (self.0.read(DATA), self.0.read(DATA));
        if first == second {
            Look::Seconds(first.into())
        } else {
            Look::Busy
        }
    }
}
