//! Real-time clocks by scripted registers: every way of counting, the edges of each, clocks that are being
//! updated, and clocks that are none.

use core::fmt;
use std::collections::VecDeque;

use gnomon_clock::{ClockStatus, SourceTime, Timestamp};
use gnomon_kernel::source::rtc::{
    Chip, Cmos, CmosRegisters, CmosTime, ERROR, Look, Pl031, Pl031Registers, Rtc,
};
use gnomon_kernel::source::{Answer, Driver};
use proptest::prelude::*;

const CENTURY: u8 = 0x32;
const BINARY: u8 = 1 << 2;
const DAY_HOURS: u8 = 1 << 1;
/// QEMU's: BCD, hours to 24.
const USUAL: u8 = DAY_HOURS;
const PM: u8 = 0x80;

/// 2026-11-20 12:05:31, and what comes before the time of day in every mode.
const NOON: i64 = 1_795_176_331;

/// A clock's registers as a test writes them down: year, month, day, hour, minute, second.
fn bcd(year: [u8; 2], date: [u8; 2], time: [u8; 3]) -> CmosTime {
    CmosTime {
        second: time[2],
        minute: time[1],
        hour: time[0],
        day: date[1],
        month: date[0],
        year: year[1],
        century: Some(year[0]),
        mode: USUAL,
    }
}

#[test]
fn dates_and_times_of_known_seconds() {
    for (time, seconds) in [
        (bcd([0x19, 0x70], [1, 1], [0, 0, 0]), 0),
        (
            bcd([0x19, 0x99], [0x12, 0x31], [0x23, 0x59, 0x59]),
            946_684_799,
        ),
        (bcd([0x20, 0x00], [1, 1], [0, 0, 0]), 946_684_800),
        // A century that is a leap year, and one that is none.
        (bcd([0x20, 0x00], [2, 0x29], [0x12, 0, 0]), 951_825_600),
        (bcd([0x21, 0x00], [3, 1], [0, 0, 0]), 4_107_542_400),
        (
            bcd([0x20, 0x24], [2, 0x29], [0x23, 0x59, 0x59]),
            1_709_251_199,
        ),
        (bcd([0x20, 0x26], [0x11, 0x20], [0x12, 5, 0x31]), NOON),
        (bcd([0x20, 0x38], [1, 0x19], [3, 0x14, 8]), 1 << 31),
        (bcd([0x21, 0x06], [2, 7], [6, 0x28, 0x16]), 1 << 32),
        (bcd([0x19, 0x69], [0x12, 0x31], [0x23, 0x59, 0x59]), -1),
    ] {
        assert_eq!(time.seconds(), Some(seconds), "{time:x?}");
    }
}

#[test]
fn what_is_no_date_is_refused() {
    let good = bcd([0x20, 0x26], [0x11, 0x20], [0x12, 5, 0x31]);
    for bad in [
        CmosTime {
            second: 0x60,
            ..good
        },
        CmosTime {
            second: 0x5a,
            ..good
        },
        CmosTime {
            minute: 0x60,
            ..good
        },
        CmosTime {
            minute: 0x0f,
            ..good
        },
        CmosTime { hour: 0x24, ..good },
        CmosTime { hour: 0x92, ..good },
        CmosTime { day: 0, ..good },
        CmosTime { day: 0x31, ..good },
        CmosTime { day: 0x32, ..good },
        CmosTime { month: 0, ..good },
        CmosTime {
            month: 0x13,
            ..good
        },
        CmosTime {
            month: 0x0c,
            ..good
        },
        CmosTime { year: 0xa0, ..good },
        CmosTime {
            century: Some(0),
            ..good
        },
        CmosTime {
            century: Some(0x18),
            ..good
        },
        CmosTime {
            century: Some(0xff),
            ..good
        },
        CmosTime {
            second: 0xff,
            ..good
        },
        bcd([0x20, 0x26], [2, 0x29], [0, 0, 0]),
        bcd([0x21, 0x00], [2, 0x29], [0, 0, 0]),
        bcd([0x20, 0x26], [4, 0x31], [0, 0, 0]),
        // Binary.
        CmosTime {
            mode: USUAL | BINARY,
            ..good
        },
        CmosTime {
            mode: USUAL | BINARY,
            day: 32,
            month: 12,
            ..good
        },
    ] {
        assert_eq!(bad.seconds(), None, "{bad:x?}");
    }
    // Without a century it is this one.
    let time = CmosTime {
        century: None,
        ..good
    };
    assert_eq!(time.seconds(), Some(NOON));
}

#[test]
fn every_bcd_value_of_every_register() {
    let good = bcd([0x20, 0x24], [1, 1], [0, 0, 0]);
    for value in 0..=u8::MAX {
        let (tens, units) = (value >> 4, value & 0xf);
        let number = (tens <= 9 && units <= 9).then_some(i64::from(tens) * 10 + i64::from(units));
        let start = good.seconds().expect("a date");
        let since = |time: CmosTime| time.seconds().map(|seconds| seconds - start);
        let below = |most| number.filter(|number| *number <= most);
        let (minutes, days) = (60, 86_400);
        assert_eq!(
            since(CmosTime {
                second: value,
                ..good
            }),
            below(59)
        );
        let expected = below(59).map(|number| number * minutes);
        assert_eq!(
            since(CmosTime {
                minute: value,
                ..good
            }),
            expected
        );
        let expected = below(23).map(|number| number * 60 * minutes);
        assert_eq!(
            since(CmosTime {
                hour: value,
                ..good
            }),
            expected
        );
        let expected = below(31).filter(|day| *day > 0).map(|day| (day - 1) * days);
        assert_eq!(since(CmosTime { day: value, ..good }), expected);
        let time = CmosTime {
            month: value,
            ..good
        };
        let is_month = below(12).is_some_and(|month| month > 0);
        assert_eq!(time.seconds().is_some(), is_month, "{value:x}");
        let time = CmosTime {
            year: value,
            ..good
        };
        assert_eq!(time.seconds().is_some(), number.is_some(), "{value:x}");
    }
}

#[test]
fn twelve_comes_before_one() {
    let hour = |hour, mode| {
        let time = CmosTime {
            hour,
            mode,
            ..bcd([0x20, 0x26], [0x11, 0x20], [0, 0, 0])
        };
        time.seconds().map(|seconds| seconds % 86_400 / 3600)
    };
    for value in 1..=12_u8 {
        let bcd = value / 10 * 16 + value % 10;
        let morning = i64::from(value) % 12;
        assert_eq!(hour(bcd, 0), Some(morning));
        assert_eq!(hour(bcd | PM, 0), Some(morning + 12));
    }
    // Midnight and noon are twelve, and nothing is zero or thirteen.
    assert_eq!([hour(0x12, 0), hour(0x12 | PM, 0)], [Some(0), Some(12)]);
    for none in [0, PM, 0x13, 0x13 | PM, 0x0a, 0x1a | PM, 0x7f, 0xff] {
        assert_eq!(hour(none, 0), None, "{none:x}");
    }
    let binary = |value, mode| {
        let time = CmosTime {
            hour: value,
            mode,
            month: 11,
            day: 20,
            year: 26,
            century: Some(20),
            minute: 0,
            second: 0,
        };
        time.seconds().map(|seconds| seconds % 86_400 / 3600)
    };
    assert_eq!(binary(12, BINARY), Some(0));
    assert_eq!(binary(PM + 12, BINARY), Some(12));
    assert_eq!(binary(PM + 11, BINARY), Some(23));
    assert_eq!([binary(13, BINARY), binary(PM, BINARY)], [None; 2]);
    assert_eq!(binary(23, BINARY | DAY_HOURS), Some(23));
    assert_eq!(binary(24, BINARY | DAY_HOURS), None);
}

/// 128 registers; each read of the seconds brings the next of `updates` first.
struct Registers {
    values: [u8; 128],
    updates: VecDeque<fn(&mut [u8; 128])>,
    reads: u32,
}

impl Registers {
    fn new() -> Self {
        let mut values = [0; 128];
        for (register, value) in [
            (0x00, 0x31),
            (0x02, 0x05),
            (0x04, 0x12),
            (0x07, 0x20),
            (0x08, 0x11),
            (0x09, 0x26),
            (0x0a, 0x26),
            (0x0b, USUAL),
            (0x0d, 0x80),
            (CENTURY, 0x20),
        ] {
            values[usize::from(register)] = value;
        }
        Self {
            values,
            updates: VecDeque::new(),
            reads: 0,
        }
    }

    fn with(mut self, register: usize, value: u8) -> Self {
        self.values[register] = value;
        self
    }
}

impl CmosRegisters for &mut Registers {
    fn read(&mut self, register: u8) -> u8 {
        self.reads += 1;
        assert!(self.reads < 1000, "no end of reading");
        if register == 0x00
            && let Some(update) = self.updates.pop_front()
        {
            update(&mut self.values);
        }
        self.values[usize::from(register)]
    }
}

fn look(registers: &mut Registers) -> Look {
    Cmos::new(registers, Some(CENTURY)).look()
}

struct Described<'a>(&'a dyn Driver);

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.describe(f)
    }
}

#[test]
fn the_time_and_its_error() {
    let mut registers = Registers::new();
    let mut rtc = Rtc(Cmos::new(&mut registers, Some(CENTURY)));
    let Answer::Time(said) = rtc.ask() else {
        panic!("the time")
    };
    let SourceTime::Utc(time) = said.time else {
        panic!("{said:?}")
    };
    assert_eq!((said.ticks, said.status), (None, ClockStatus::Freerunning));
    assert_eq!(
        (said.tai_offset, said.leap, said.error),
        (None, None, ERROR)
    );
    // All of the second, a clock that was started a second late, and one second of a leap.
    for (seconds, inside) in [
        (0, true),
        (1, true),
        (2, true),
        (-1, true),
        (3, false),
        (-2, false),
    ] {
        let off = time
            .since(Timestamp::from_parts(NOON + seconds, 0))
            .expect("near");
        assert_eq!(said.error.contains(off), inside, "{seconds}");
    }
    assert!(said.error.nanos() > 1_000_000_000);
    assert_eq!(Described(&rtc).to_string(), "CMOS, taken for UTC");
}

#[test]
fn an_update_is_waited_for_by_others() {
    let mut registers = Registers::new().with(0x0a, 0xa6);
    for _ in 0..5 {
        assert_eq!(look(&mut registers), Look::Busy);
    }
    // It is hardly looked at meanwhile, and never hangs.
    assert!(registers.reads <= 15, "{}", registers.reads);
    registers.values[0x0a] = 0x26;
    assert_eq!(look(&mut registers), Look::Seconds(NOON));
    let mut rtc = Rtc(Cmos::new(&mut registers, Some(CENTURY)));
    assert!(matches!(rtc.poll(), Answer::Time(_)));
    let mut registers = Registers::new().with(0x0a, 0xa6);
    let mut rtc = Rtc(Cmos::new(&mut registers, Some(CENTURY)));
    assert_eq!([rtc.ask(), rtc.poll()], [Answer::Later; 2]);
}

#[test]
fn a_reading_counts_when_it_came_twice() {
    // The second goes on, an update begins, or the mode changes, between the two readings.
    let updates: [fn(&mut [u8; 128]); 5] = [
        |values| values[0x00] = 0x32,
        |values| values[0x0a] |= 0x80,
        |values| values[0x0b] |= BINARY,
        |values| values[0x08] = 0x12,
        |values| values[usize::from(CENTURY)] = 0x21,
    ];
    for update in updates {
        let mut registers = Registers::new();
        registers.updates.extend([|_: &mut _| (), update]);
        assert_eq!(look(&mut registers), Look::Busy);
    }
    // A clock that is never twice the same is given up each time.
    let mut registers = Registers::new();
    registers
        .updates
        .extend([(|values| values[0] ^= 1) as fn(&mut [u8; 128]); 40]);
    for _ in 0..20 {
        assert_eq!(look(&mut registers), Look::Busy);
    }
    // Changed behind the first reading of a look, and then at rest.
    let mut registers = Registers::new();
    registers
        .updates
        .extend([|_: &mut _| (), |values: &mut [u8; 128]| values[0x00] = 0x32]);
    assert_eq!(look(&mut registers), Look::Busy);
    assert_eq!(look(&mut registers), Look::Seconds(NOON + 1));
}

#[test]
fn clocks_that_show_no_time_say_why() {
    for (mut registers, why) in [
        (Registers::new().with(0x0d, 0), "its battery has been empty"),
        (
            Registers::new().with(0x0b, USUAL | 0x80),
            "it stands still, to be set",
        ),
        (Registers::new().with(0x08, 0x13), "it shows no date"),
        (Registers::new().with(0x32, 0xff), "it shows no date"),
        (
            Registers {
                values: [0xff; 128],
                ..Registers::new()
            },
            "nothing answers at its ports",
        ),
        (
            Registers {
                values: [0; 128],
                ..Registers::new()
            },
            "its battery has been empty",
        ),
    ] {
        assert_eq!(look(&mut registers), Look::Silent(why));
        let mut rtc = Rtc(Cmos::new(&mut registers, Some(CENTURY)));
        assert_eq!(rtc.ask(), Answer::Silence(why));
    }
    let mut registers = Registers::new().with(0x32, 0x19).with(0x09, 0x70);
    let mut rtc = Rtc(Cmos::new(&mut registers, Some(CENTURY)));
    assert_eq!(rtc.ask(), Answer::Silence("it was never set"));
}

struct Counting {
    data: VecDeque<u32>,
    control: u32,
}

impl Pl031Registers for Counting {
    fn read(&mut self, offset: usize) -> u32 {
        match offset {
            0x00 => self.data.pop_front().unwrap_or(0),
            0x0c => self.control,
            _ => panic!("register {offset:#x}"),
        }
    }
}

#[test]
fn a_pl031_counts_seconds() {
    let now = u32::try_from(NOON).expect("until 2106");
    let look = |data: &[u32], control| {
        let data = data.iter().copied().collect();
        Pl031(Counting { data, control }).look()
    };
    assert_eq!(look(&[now, now], 1), Look::Seconds(NOON));
    assert_eq!(look(&[u32::MAX; 2], 1), Look::Seconds(u32::MAX.into()));
    assert_eq!(look(&[now, now + 1], 1), Look::Busy);
    assert_eq!(look(&[now, now], 0), Look::Silent("it stands still"));
    let nothing = Look::Silent("nothing answers at its registers");
    assert_eq!(look(&[u32::MAX; 2], u32::MAX), nothing);
    let data = [100, 100].into();
    let mut rtc = Rtc(Pl031(Counting { data, control: 1 }));
    assert_eq!(rtc.ask(), Answer::Silence("it was never set"));
}

/// As a clock of each kind would show it.
fn shown(seconds: i64, mode: u8) -> CmosTime {
    // Independent of the calendar under test: year by year, month by month.
    let (mut days, time) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let leap = |year: i64| year % 4 == 0 && year % 100 != 0 || year % 400 == 0;
    let (mut year, mut month) = (1970, 0);
    while days >= 365 + i64::from(leap(year)) {
        days -= 365 + i64::from(leap(year));
        year += 1;
    }
    let february = 28 + i64::from(leap(year));
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    let number = |value: i64| {
        let value = u8::try_from(value).expect("two digits");
        if mode & BINARY != 0 {
            value
        } else {
            value / 10 * 16 + value % 10
        }
    };
    let hour = time / 3600;
    let hour = if mode & DAY_HOURS != 0 {
        number(hour)
    } else {
        number((hour + 11) % 12 + 1) | if hour >= 12 { PM } else { 0 }
    };
    CmosTime {
        second: number(time % 60),
        minute: number(time / 60 % 60),
        hour,
        day: number(days + 1),
        month: number(i64::try_from(month).expect("a month") + 1),
        year: number(year % 100),
        century: Some(number(year / 100)),
        mode,
    }
}

proptest! {
    #[test]
    fn every_second_is_read_as_it_is_shown(seconds in 0..=7_258_118_399_i64, mode in 0..4_u8) {
        let time = shown(seconds, mode << 1);
        prop_assert_eq!(time.seconds(), Some(seconds), "{:x?}", time);
        if (946_684_800..4_102_444_800).contains(&seconds) {
            let time = CmosTime { century: None, ..time };
            prop_assert_eq!(time.seconds(), Some(seconds));
        }
    }

    #[test]
    fn any_registers_give_a_date_or_none(values: [u8; 32], century: Option<u8>) {
        let mut registers = Registers::new();
        registers.values[..32].copy_from_slice(&values);
        registers.values[0x0d] |= 0x80;
        let shown = Cmos::new(&mut registers, century.map(|it| it & 0x7f)).look();
        if let Look::Seconds(seconds) = shown {
            // 1900 to 9999.
            prop_assert!((-2_208_988_800..253_402_300_800).contains(&seconds));
        }
    }
}
