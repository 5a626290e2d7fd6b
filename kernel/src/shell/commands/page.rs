//! `page`: every field of the vmclock page.

use core::fmt::{self, Display, Formatter, Write};

use gnomon_clock::page::{self, flag};
use gnomon_clock::{
    ClockStatus, CounterId, Fields, LeapIndicator, SmearingHint, Tai, TaiOffset, TimeType,
    Timestamp, Utc,
};

use super::{Coded, NANOS};
use crate::report::{self, Width};

/// Every field by its name in the ABI, raw, and what it means.
pub(in crate::shell) fn fields_of_page(fields: &Fields, out: &mut dyn Write) -> fmt::Result {
    header(fields, out)?;
    time(fields, out)
}

/// The fields up to the leap indicator: identity, state, flags, codes.
fn header(fields: &Fields, out: &mut dyn Write) -> fmt::Result {
    let magic = if fields.magic == page::MAGIC {
        "VCLK"
    } else {
        "not a vmclock page"
    };
    let type_ = Coded::<TimeType>::new(fields.time_type);
    let status = Coded::<ClockStatus>::new(fields.clock_status);
    let smearing = Coded::<SmearingHint>::new(fields.leap_second_smearing_hint);
    let leap = Coded::<LeapIndicator>::new(fields.leap_indicator);
    let rows: [(&str, Raw, Meaning<'_>); 12] = [
        ("magic", hex(fields.magic), Some(&magic)),
        ("size", dec(fields.size), Some(&"bytes of the region")),
        ("version", dec(fields.version), None),
        (
            "counter_id",
            dec(fields.counter_id),
            Some(&Counter(fields.counter_id)),
        ),
        ("time_type", dec(fields.time_type), Some(&type_)),
        ("seq_count", dec(fields.seq_count), None),
        ("disruption_marker", hex(fields.disruption_marker), None),
        ("flags", hex(fields.flags), Some(&Flags(fields.flags))),
        ("clock_status", dec(fields.clock_status), Some(&status)),
        (
            "leap_second_smearing_hint",
            dec(fields.leap_second_smearing_hint),
            Some(&smearing),
        ),
        (
            "tai_offset_sec",
            dec(fields.tai_offset_sec),
            Some(&Offset(fields)),
        ),
        ("leap_indicator", dec(fields.leap_indicator), Some(&leap)),
    ];
    rows.into_iter().try_for_each(|row| print(row, out))
}

/// The fields from the period on: numbers.
fn time(fields: &Fields, out: &mut dyn Write) -> fmt::Result {
    let (period, shift) = (fields.counter_period_frac_sec, fields.counter_period_shift);
    let period_esterror = fields.counter_period_esterror_rate_frac_sec;
    let period_maxerror = fields.counter_period_maxerror_rate_frac_sec;
    let generation = match fields.vm_generation() {
        Some(_) => None,
        None => Some(&NOT_GIVEN as &dyn Display),
    };
    let rows: [(&str, Raw, Meaning<'_>); 10] = [
        ("counter_period_shift", dec(shift), None),
        ("counter_value", hex(fields.counter_value), None),
        (
            "counter_period_frac_sec",
            hex(period),
            Some(&PeriodLine(period, shift)),
        ),
        (
            "counter_period_esterror_rate_frac_sec",
            hex(period_esterror),
            Some(&Rate(fields.period_esterror(), period)),
        ),
        (
            "counter_period_maxerror_rate_frac_sec",
            hex(period_maxerror),
            Some(&Rate(fields.period_maxerror(), period)),
        ),
        ("time_sec", dec(fields.time_sec), Some(&Time(fields))),
        ("time_frac_sec", hex(fields.time_frac_sec), None),
        (
            "time_esterror_nanosec",
            dec(fields.time_esterror_nanosec),
            Some(&Error(fields.time_esterror())),
        ),
        (
            "time_maxerror_nanosec",
            dec(fields.time_maxerror_nanosec),
            Some(&Error(fields.time_maxerror())),
        ),
        (
            "vm_generation_counter",
            hex(fields.vm_generation_counter),
            generation,
        ),
    ];
    rows.into_iter().try_for_each(|row| print(row, out))
}

/// A field as it stands on the page.
enum Raw {
    Hex(u64),
    Dec(i128),
}

/// What a field means, if its raw value does not say it all.
type Meaning<'a> = Option<&'a dyn Display>;

fn hex(value: impl Into<u64>) -> Raw {
    Raw::Hex(value.into())
}

fn dec(value: impl Into<i128>) -> Raw {
    Raw::Dec(value.into())
}

fn print((name, raw, meaning): (&str, Raw, Meaning<'_>), out: &mut dyn Write) -> fmt::Result {
    write!(out, "{name:<38}")?;
    match (raw, meaning) {
        (Raw::Hex(raw), Some(meaning)) => writeln!(out, "{raw:<#18x}  {meaning}"),
        (Raw::Dec(raw), Some(meaning)) => writeln!(out, "{raw:<18}  {meaning}"),
        (Raw::Hex(raw), None) => writeln!(out, "{raw:#x}"),
        (Raw::Dec(raw), None) => writeln!(out, "{raw}"),
    }
}

/// A field whose flag says that it does not count, or which lies beyond `size`.
const NOT_GIVEN: &str = "not given";

/// The meaning of `counter_id`.
struct Counter(u8);

impl Display for Counter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0 == page::COUNTER_INVALID {
            return f.write_str("invalid: the page carries no time");
        }
        Coded::<CounterId>::new(self.0).fmt(f)
    }
}

/// The flags by name, and the unknown bits among them.
struct Flags(u64);

impl Display for Flags {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        let mut space = "";
        for (bit, name) in [
            (flag::TAI_OFFSET_VALID, "TAI_OFFSET_VALID"),
            (flag::DISRUPTION_SOON, "DISRUPTION_SOON"),
            (flag::DISRUPTION_IMMINENT, "DISRUPTION_IMMINENT"),
            (flag::PERIOD_ESTERROR_VALID, "PERIOD_ESTERROR_VALID"),
            (flag::PERIOD_MAXERROR_VALID, "PERIOD_MAXERROR_VALID"),
            (flag::TIME_ESTERROR_VALID, "TIME_ESTERROR_VALID"),
            (flag::TIME_MAXERROR_VALID, "TIME_MAXERROR_VALID"),
            (flag::TIME_MONOTONIC, "TIME_MONOTONIC"),
            (flag::VM_GEN_COUNTER_PRESENT, "VM_GEN_COUNTER_PRESENT"),
            (flag::NOTIFICATION_PRESENT, "NOTIFICATION_PRESENT"),
        ] {
            if rest & bit != 0 {
                write!(f, "{space}{name}")?;
                rest &= !bit;
                space = " ";
            }
        }
        if rest != 0 {
            write!(f, "{space}unknown {rest:#x}")?;
        }
        Ok(())
    }
}

/// The meaning of `tai_offset_sec`.
struct Offset<'a>(&'a Fields);

impl Display for Offset<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if !self.0.has(flag::TAI_OFFSET_VALID) {
            return f.write_str(NOT_GIVEN);
        }
        match TaiOffset::from_page(self.0.tai_offset_sec) {
            Some(TaiOffset {
                tai_minus_utc,
                positive_on_page: false,
            }) => {
                write!(f, "TAI-UTC {tai_minus_utc}")
            }
            Some(TaiOffset {
                tai_minus_utc,
                positive_on_page: true,
            }) => {
                write!(f, "TAI-UTC {tai_minus_utc}, with the sign of vmclock 1.0")
            }
            None => f.write_str("not a TAI offset"),
        }
    }
}

/// The length of a tick of `.0`·2^−(64+`.1`) s, truncated, and the rate.
struct PeriodLine(u64, u8);

impl Display for PeriodLine {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        // Below 2⁹⁴, so that its product with 10⁹ fits as well.
        let nanos = u128::from(self.0) * NANOS;
        let bits = 64 + u32::from(self.1);
        let whole = nanos.checked_shr(bits).unwrap_or(0);
        let rest = nanos - whole.checked_shl(bits).unwrap_or(0);
        let fraction = (rest * NANOS).checked_shr(bits).unwrap_or(0);
        write!(f, "{whole}.{fraction:09} ns per tick")?;
        match report::hertz(self.0, self.1) {
            Some((hertz, thousandths)) => write!(f, ", {hertz}.{thousandths:03} Hz"),
            None => Ok(()),
        }
    }
}

/// An error of the period relative to the period `.1`, rounded up.
struct Rate(Option<u64>, u64);

impl Display for Rate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Some(rate) = self.0 else {
            return f.write_str(NOT_GIVEN);
        };
        if self.1 == 0 {
            return f.write_str("of a period of zero");
        }
        let billionths = (u128::from(rate) * NANOS).div_ceil(u128::from(self.1));
        write!(f, "± {}.{:03} ppm", billionths / 1000, billionths % 1000)
    }
}

/// The reference instant.
struct Time<'a>(&'a Fields);

impl Display for Time<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Ok(seconds) = i64::try_from(self.0.time_sec) else {
            return f.write_str("out of range");
        };
        match TimeType::try_from(self.0.time_type) {
            Ok(TimeType::Utc) => Timestamp::<Utc>::from_parts(seconds, self.0.time_frac_sec).fmt(f),
            Ok(TimeType::Tai) => Timestamp::<Tai>::from_parts(seconds, self.0.time_frac_sec).fmt(f),
            _ => f.write_str("not a time of day"),
        }
    }
}

/// An error of the reference instant.
struct Error(Option<u64>);

impl Display for Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(nanos) => write!(f, "± {}", Width(nanos)),
            None => f.write_str(NOT_GIVEN),
        }
    }
}
