//! A good page for the tests to spoil.

use gnomon_clock::page::flag;
use gnomon_clock::{ClockStatus, CounterId, Fields, Period, TimeType, Timeline};

/// 2026-11-20T12:05:31Z.
pub(crate) const UTC: u64 = 1_795_176_331;
/// The same in TAI.
pub(crate) const TAI: u64 = UTC + 37;

/// A good page: TAI by a TSC of 1 GHz, ± 40 µs and 15 ppm.
pub(crate) fn good() -> Fields {
    let gigahertz = Period::from_hertz(1_000_000_000).expect("above 2 Hz");
    Fields {
        counter_id: CounterId::X86Tsc as u8,
        time_type: TimeType::Tai as u8,
        clock_status: ClockStatus::Synchronized as u8,
        disruption_marker: 0xd15,
        flags: flag::TAI_OFFSET_VALID
            | flag::PERIOD_MAXERROR_VALID
            | flag::TIME_MAXERROR_VALID
            | flag::VM_GEN_COUNTER_PRESENT,
        tai_offset_sec: -37,
        counter_value: 1_000_000,
        counter_period_frac_sec: gigahertz.frac(),
        counter_period_shift: gigahertz.shift(),
        counter_period_maxerror_rate_frac_sec: gigahertz.frac() / 1_000_000 * 15,
        time_sec: TAI,
        time_frac_sec: 1 << 63,
        time_maxerror_nanosec: 40_000,
        vm_generation_counter: 0x6e4,
        ..Fields::stock()
    }
}

pub(crate) fn timeline(fields: &Fields) -> Timeline {
    Timeline::from_page(fields, CounterId::X86Tsc).expect("a good page")
}
