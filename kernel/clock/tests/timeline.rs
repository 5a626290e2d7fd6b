//! From a page to a reading: every refusal in its order, and every default.

mod common;

use gnomon_clock::page::{COUNTER_INVALID, flag};
use gnomon_clock::{
    Bound, ClockStatus, CounterId, Disruption, Fields, LeapIndicator, Notes, Period, Span,
    TaiOffset, Ticks, TimeType, Timeline, Timestamp, Unusable,
};

use common::{TAI, UTC, good, timeline};

fn refusal(fields: &Fields) -> Option<Unusable> {
    Timeline::from_page(fields, CounterId::X86Tsc).err()
}

#[test]
fn a_good_page_is_read_as_it_says() {
    let reading = timeline(&good())
        .at(Ticks(1_000_000 + 2_250_000_000))
        .expect("in range");
    let tai = reading.tai.expect("a TAI page");
    // 2.25 s after .5; the period is 2⁻⁹³ s off, which is nothing here but truncates.
    let nanos = tai
        .since(Timestamp::from_parts(1_795_176_370, 3 << 62))
        .expect("near");
    assert!(Bound::from_nanos(1).contains(nanos), "{nanos:?}");
    let utc = reading.utc.expect("with an offset");
    assert_eq!(utc.time.seconds(), tai.seconds() - 37);
    assert_eq!(utc.time.fraction(), tai.fraction());
    assert!(!utc.leap_second);
    assert_eq!(reading.tai_offset, Some(37));
    // 40 µs + 2.25 s · 15 ppm + 1 tick, and what rounding adds.
    assert!(
        (73_751..=73_753).contains(&reading.bound.nanos()),
        "{:?}",
        reading.bound.nanos()
    );
    assert_eq!(reading.status, ClockStatus::Synchronized);
    assert_eq!(reading.marker, 0xd15);
    assert_eq!(reading.generation, Some(0x6e4));
    assert_eq!(
        reading.reference_utc,
        Some(Timestamp::from_parts(UTC.cast_signed(), 1 << 63))
    );
    assert_eq!(reading.notes, Notes::default());
}

/// Each fault, what it gives, and how that is said, in the order of the checks.
type Fault = (fn(&mut Fields), Unusable, &'static str);
const FAULTS: [Fault; 21] = [
    (
        |f| f.magic = 0,
        Unusable::Magic(0),
        "magic 0x00000000 is not a vmclock page's",
    ),
    (
        |f| f.version = 2,
        Unusable::Version(2),
        "vmclock version 2 is not known",
    ),
    (
        |f| f.version = 0,
        Unusable::Version(0),
        "vmclock version 0 is not known",
    ),
    (
        |f| f.size = 0x57,
        Unusable::Size(0x57),
        "region of 87 bytes is too small to hold the time",
    ),
    (
        |f| f.size = 0,
        Unusable::Size(0),
        "region of 0 bytes is too small to hold the time",
    ),
    (
        |f| f.counter_id = COUNTER_INVALID,
        Unusable::NoCounter,
        "the page carries no time",
    ),
    (
        |f| f.counter_id = 0,
        Unusable::Counter(0),
        "counter ARM CNTVCT is not this machine's",
    ),
    (
        |f| f.counter_id = 2,
        Unusable::Counter(2),
        "counter 2 is not known",
    ),
    (
        |f| f.time_type = 2,
        Unusable::TimeType(2),
        "monotonic time is not usable",
    ),
    (
        |f| f.time_type = 3,
        Unusable::TimeType(3),
        "smeared time is not usable",
    ),
    (
        |f| f.time_type = 4,
        Unusable::TimeType(4),
        "maybe smeared time is not usable",
    ),
    (
        |f| f.time_type = 5,
        Unusable::TimeType(5),
        "time type 5 is not known",
    ),
    (
        |f| f.clock_status = 0,
        Unusable::Status(ClockStatus::Unknown),
        "clock status unknown",
    ),
    (
        |f| f.clock_status = 1,
        Unusable::Status(ClockStatus::Initializing),
        "clock status initializing",
    ),
    (
        |f| f.clock_status = 4,
        Unusable::Status(ClockStatus::Unreliable),
        "clock status unreliable",
    ),
    (
        |f| f.clock_status = 5,
        Unusable::UnknownStatus(5),
        "clock status 5 is not known",
    ),
    (
        |f| f.leap_indicator = 6,
        Unusable::LeapIndicator(6),
        "leap indicator 6 is not known",
    ),
    (
        |f| f.counter_period_shift = 128,
        Unusable::PeriodShift(128),
        "period shift 128 is above 127",
    ),
    (
        |f| f.counter_period_frac_sec = 0,
        Unusable::ZeroPeriod,
        "counter period is zero",
    ),
    (
        |f| f.time_sec = 1 << 63,
        Unusable::OutOfRange,
        "time is out of range",
    ),
    (
        |f| f.leap_indicator = LeapIndicator::Pos as u8,
        Unusable::LeapSecond,
        "leap second claimed away from a month's end",
    ),
];

#[test]
fn every_fault_has_its_outcome_and_the_first_counts() {
    for (index, (_, expected, message)) in FAULTS.iter().enumerate() {
        let (mut alone, mut with_later) = (good(), good());
        FAULTS[index].0(&mut alone);
        assert_eq!(refusal(&alone), Some(*expected));
        assert_eq!(expected.to_string(), *message);
        for (fault, ..) in FAULTS[index..].iter().rev() {
            fault(&mut with_later);
        }
        assert_eq!(
            refusal(&with_later),
            Some(*expected),
            "before the later faults"
        );
    }
    assert_eq!(refusal(&Fields::stock()), Some(Unusable::NoCounter));
}

#[test]
fn an_arm_page_is_good_on_arm() {
    let page = Fields {
        counter_id: CounterId::ArmVcnt as u8,
        ..good()
    };
    assert!(Timeline::from_page(&page, CounterId::ArmVcnt).is_ok());
    assert_eq!(
        Timeline::from_page(&good(), CounterId::ArmVcnt),
        Err(Unusable::Counter(CounterId::X86Tsc as u8))
    );
}

#[test]
fn freerunning_is_usable_and_said() {
    let page = Fields {
        clock_status: ClockStatus::Freerunning as u8,
        ..good()
    };
    let reading = timeline(&page).at(Ticks(0)).expect("in range");
    assert_eq!(reading.status, ClockStatus::Freerunning);
}

#[test]
fn unknown_flags_are_ignored() {
    let page = Fields {
        flags: good().flags | !0x3ff,
        ..good()
    };
    assert_eq!(timeline(&page), timeline(&good()));
}

#[test]
fn without_errors_the_defaults_apply_and_are_noted() {
    // At the reference, after 10 s, and 10 s before.
    let before = 1_000_000_u64.wrapping_sub(10_000_000_000);
    for (ticks, elapsed) in [(1_000_000, 0), (10_001_000_000, 10), (before, 10)] {
        let bound = |flags| {
            let page = Fields {
                flags: flag::TAI_OFFSET_VALID | flags,
                ..good()
            };
            let reading = timeline(&page).at(Ticks(ticks)).expect("in range");
            let notes = (
                reading.notes.default_time_error,
                reading.notes.default_period_error,
            );
            (notes, reading.bound.nanos())
        };
        let near = |(notes, nanos): ((bool, bool), u64), expected: (bool, bool), exact: u64| {
            assert_eq!(notes, expected);
            // A tick and its own error; every rounding is below a nanosecond.
            assert!(
                (exact + 1..=exact + 3).contains(&nanos),
                "{nanos} is not near {exact}"
            );
        };
        let (time, period) = (flag::TIME_MAXERROR_VALID, flag::PERIOD_MAXERROR_VALID);
        near(
            bound(time | period),
            (false, false),
            40_000 + elapsed * 15_000,
        );
        near(bound(time), (false, true), 40_000 + elapsed * 50_000);
        near(bound(period), (true, false), 10_000_000 + elapsed * 15_000);
        near(bound(0), (true, true), 10_000_000 + elapsed * 50_000);
    }
}

#[test]
fn fields_beyond_the_size_are_absent() {
    for (size, default_time_error, generation) in [
        (0x58, true, None),
        (0x60, true, None),
        (0x67, true, None),
        (0x68, false, None),
        (0x6f, false, None),
        (0x70, false, Some(0x6e4)),
        (u32::MAX, false, Some(0x6e4)),
    ] {
        let reading = timeline(&Fields { size, ..good() })
            .at(Ticks(0))
            .expect("in range");
        assert_eq!(
            reading.notes.default_time_error, default_time_error,
            "{size:#x}"
        );
        assert_eq!(reading.generation, generation, "{size:#x}");
    }
}

#[test]
fn the_scale_and_the_offset_decide_what_is_known() {
    let valid = flag::TAI_OFFSET_VALID;
    for (time_type, flags, tai_offset_sec, expected) in [
        (TimeType::Tai, valid, -37, "TAI UTC offset"),
        (TimeType::Tai, valid, 37, "TAI UTC offset; old sign"),
        (TimeType::Tai, 0, -37, "TAI"),
        (TimeType::Tai, valid, 0, "TAI; invalid"),
        (TimeType::Tai, valid, -61, "TAI; invalid"),
        (TimeType::Utc, valid, -37, "TAI UTC offset"),
        (TimeType::Utc, valid, 37, "TAI UTC offset; old sign"),
        (TimeType::Utc, 0, -37, "UTC; no offset"),
        (TimeType::Utc, valid, 9, "UTC; invalid; no offset"),
    ] {
        let time_sec = if time_type == TimeType::Tai { TAI } else { UTC };
        let page = Fields {
            time_type: time_type as u8,
            time_sec,
            flags,
            tai_offset_sec,
            ..good()
        };
        let reading = timeline(&page).at(Ticks(1_000_000)).expect("in range");
        let mut known = Vec::new();
        if let Some(tai) = reading.tai {
            assert_eq!(tai.seconds(), TAI.cast_signed());
            known.push("TAI");
        }
        if let Some(utc) = reading.utc {
            assert_eq!(utc.time.seconds(), UTC.cast_signed());
            assert_eq!(reading.reference_utc, Some(utc.time));
            known.push("UTC");
        }
        if let Some(offset) = reading.tai_offset {
            assert_eq!(offset, 37);
            known.push("offset");
        }
        let mut text = known.join(" ");
        for (noted, remark) in [
            (reading.notes.positive_tai_offset, "; old sign"),
            (reading.notes.invalid_tai_offset, "; invalid"),
            (reading.notes.utc_without_tai_offset, "; no offset"),
        ] {
            text.push_str(if noted { remark } else { "" });
        }
        assert_eq!(text, expected, "{time_type} {flags} {tai_offset_sec}");
    }
}

#[test]
fn offsets_are_read_in_both_signs_and_no_others() {
    for field in i16::MIN..=i16::MAX {
        let expected = (10..=60)
            .contains(&field.unsigned_abs())
            .then(|| TaiOffset {
                tai_minus_utc: field.abs(),
                positive_on_page: field > 0,
            });
        assert_eq!(TaiOffset::from_page(field), expected);
    }
}

#[test]
fn a_counter_behind_the_reference_is_a_little_earlier() {
    for (reference, now) in [(1_000_000_u64, 999_990_u64), (5, u64::MAX - 4)] {
        let page = Fields {
            counter_value: reference,
            ..good()
        };
        let reading = timeline(&page).at(Ticks(now)).expect("in range");
        let t1 = Timestamp::from_parts(TAI.cast_signed(), 1 << 63);
        let span = reading.tai.and_then(|tai| tai.since(t1)).expect("near");
        assert_eq!(span.as_nanos_floor(), -10);
    }
}

#[test]
fn time_never_wraps() {
    // A tick of almost a second from the last second there is, and from 1970.
    let page = |time_sec| Fields {
        time_sec,
        flags: 0,
        counter_period_shift: 0,
        counter_period_frac_sec: u64::MAX,
        ..good()
    };
    let last = timeline(&page(i64::MAX as u64));
    assert!(last.at(Ticks(1_000_000)).is_ok());
    assert_eq!(last.at(Ticks(1_000_001)), Err(Unusable::OutOfRange));
    let first = timeline(&Fields {
        time_frac_sec: 0,
        ..page(0)
    });
    assert!(first.at(Ticks(1_000_000)).is_ok());
    assert_eq!(first.at(Ticks(999_999)), Err(Unusable::OutOfRange));
    assert_eq!(
        first.at(Ticks(1_000_000 + (1 << 63))),
        Err(Unusable::OutOfRange)
    );
    let most = first
        .at(Ticks(1_000_000 + i64::MAX.cast_unsigned()))
        .expect("just in range");
    assert_eq!(most.tai.map(Timestamp::seconds), Some(i64::MAX - 1));
}

#[test]
fn neither_scale_may_leave_the_range_of_the_other() {
    // TAI has begun and UTC has not.
    let early = |time_sec| refusal(&Fields { time_sec, ..good() });
    assert_eq!(early(36), Some(Unusable::OutOfRange));
    assert_eq!(early(37), None);
    // UTC still fits and TAI does not.
    let late = |time_sec| {
        refusal(&Fields {
            time_type: TimeType::Utc as u8,
            time_sec,
            ..good()
        })
    };
    assert_eq!(late(i64::MAX as u64 - 37), None);
    assert_eq!(late(i64::MAX as u64 - 36), Some(Unusable::OutOfRange));
    // A month's end beyond the range cannot be waited for.
    for (indicator, time_type) in [
        (LeapIndicator::PrePos, TimeType::Tai),
        (LeapIndicator::PreNeg, TimeType::Utc),
        (LeapIndicator::Pos, TimeType::Tai),
        (LeapIndicator::Pos, TimeType::Utc),
    ] {
        for flags in [0, flag::TAI_OFFSET_VALID] {
            let page = Fields {
                leap_indicator: indicator as u8,
                time_type: time_type as u8,
                flags,
                time_sec: i64::MAX as u64,
                ..good()
            };
            let tai_alone = time_type == TimeType::Tai && flags == 0;
            let expected = (!tai_alone).then_some(Unusable::OutOfRange);
            assert_eq!(refusal(&page), expected, "{indicator} {time_type} {flags}");
        }
    }
}

#[test]
fn the_bound_saturates() {
    let page = Fields {
        time_maxerror_nanosec: u64::MAX,
        counter_period_maxerror_rate_frac_sec: u64::MAX,
        counter_period_frac_sec: 1,
        counter_period_shift: 0,
        counter_value: 0,
        ..good()
    };
    let reading = timeline(&page)
        .at(Ticks(i64::MAX.cast_unsigned()))
        .expect("in range");
    assert_eq!(reading.bound.nanos(), u64::MAX);
    assert_eq!(reading.bound.to_ntp_short(), u32::MAX);
}

#[test]
fn a_disruption_ahead_and_the_age_of_the_page_are_told() {
    let read = |flags, ticks| {
        let fields = Fields {
            flags: good().flags | flags,
            ..good()
        };
        timeline(&fields).at(Ticks(ticks)).expect("in range")
    };
    let (soon, imminent) = (flag::DISRUPTION_SOON, flag::DISRUPTION_IMMINENT);
    for (flags, expected, name) in [
        (0, Disruption::None, "none"),
        (soon, Disruption::Soon, "within about a day"),
        (imminent, Disruption::Imminent, "within about an hour"),
        (
            soon | imminent,
            Disruption::Imminent,
            "within about an hour",
        ),
    ] {
        let disruption = read(flags, 0).disruption;
        assert_eq!(disruption, expected);
        assert_eq!(disruption.to_string(), name);
    }
    assert!(Disruption::None < Disruption::Soon && Disruption::Soon < Disruption::Imminent);
    assert_eq!(Disruption::default(), Disruption::None);
    for (ticks, seconds) in [
        (1_000_000, 0),
        (5_001_000_000, 5),
        (1_000_000_u64.wrapping_sub(2_000_000_000), -2),
    ] {
        let age = read(0, ticks).age;
        let apart = Span::from_units(age.units() - Span::from_seconds(seconds).units());
        assert!(Bound::from_nanos(1).contains(apart), "{age:?}");
    }
}

#[test]
fn the_hosts_estimate_is_told_beside_the_bound() {
    let both = flag::TIME_ESTERROR_VALID | flag::PERIOD_ESTERROR_VALID;
    for (flags, given) in [
        (0, false),
        (flag::TIME_ESTERROR_VALID, false),
        (flag::PERIOD_ESTERROR_VALID, false),
        (both, true),
    ] {
        let estimated = timeline(&Fields {
            flags: good().flags | flags,
            time_esterror_nanosec: 2_000,
            counter_period_esterror_rate_frac_sec: good().counter_period_frac_sec / 1_000_000,
            ..good()
        });
        // 2 µs + 3 s · 1 ppm and a tick.
        let estimate = estimated.estimate(Ticks(3_001_000_000)).map(Bound::nanos);
        assert_eq!(estimate, given.then_some(5_002));
        let bound = estimated.at(Ticks(0)).map(|reading| reading.bound);
        assert_eq!(
            bound,
            timeline(&good()).at(Ticks(0)).map(|reading| reading.bound)
        );
    }
}

#[test]
fn hertz_become_normalised_periods() {
    for (hertz, frac, shift) in [
        (1_000_000_000, 0x8970_5f41_36b4_a597, 29),
        (2, 1 << 63, 0),
        (3, 0xaaaa_aaaa_aaaa_aaab, 1),
        (1 << 30, 1 << 63, 29),
        (u64::MAX, (1 << 63) + 1, 63),
    ] {
        assert_eq!(
            Period::from_hertz(hertz),
            Period::new(frac, shift).ok(),
            "{hertz}"
        );
    }
    assert_eq!(Period::from_hertz(0), None);
    assert_eq!(Period::from_hertz(1), None);
}
