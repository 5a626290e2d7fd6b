//! Leap seconds: UTC, TAI, the announcement and 23:59:60 on both sides of every edge, from every
//! kind of page and every position of its reference instant.

use gnomon_clock::calendar::{DAY, Date};
use gnomon_clock::page::flag;
use gnomon_clock::{
    Announcement, ClockStatus, CounterId, Fields, LeapIndicator, Span, Ticks, TimeType, Timeline,
    Timestamp, Unusable,
};

/// A counter of 2³⁰ Hz: whole ticks are exact, so that the edges are.
const SECOND: i64 = 1 << 30;

/// A leap second at the end of a month.
#[derive(Clone, Copy, Debug)]
struct Leap {
    /// First second of the month after it, POSIX-coded.
    month: i64,
    /// TAI − UTC before it.
    before: i16,
    insert: bool,
}

impl Leap {
    fn new(year: i64, month: u8, before: i16, insert: bool) -> Self {
        let days = Date {
            year,
            month,
            day: 1,
        }
        .days()
        .expect("a date");
        Self {
            month: days * DAY,
            before,
            insert,
        }
    }

    fn after(self) -> i16 {
        if self.insert {
            self.before + 1
        } else {
            self.before - 1
        }
    }

    /// TAI at which UTC leaves its old code, in ticks.
    fn edge(self) -> i64 {
        let last = if self.insert {
            self.month
        } else {
            self.month - 1
        };
        last + i64::from(self.before)
    }

    /// What is true at `ticks` after the edge: POSIX code relative to the next month in ticks,
    /// TAI − UTC, inside 23:59:60, announcement. Written from the definition and not from the code.
    fn truth(self, ticks: i64) -> (i64, i16, bool, Announcement) {
        let dropped = if self.insert { 0 } else { SECOND };
        if ticks < 0 {
            let ahead = ticks >= dropped - DAY * SECOND;
            let announcement = match (ahead, self.insert) {
                (false, _) => Announcement::None,
                (true, true) => Announcement::Insert,
                (true, false) => Announcement::Delete,
            };
            (ticks - dropped, self.before, false, announcement)
        } else if self.insert && ticks < SECOND {
            (ticks - SECOND, self.before, true, Announcement::None)
        } else if self.insert {
            (ticks - SECOND, self.after(), false, Announcement::None)
        } else {
            (ticks, self.after(), false, Announcement::None)
        }
    }
}

/// Every leap second so far, and some that the calendar would allow.
fn leaps() -> Vec<Leap> {
    const JULY: [i64; 11] = [
        1972, 1981, 1982, 1983, 1985, 1992, 1993, 1994, 1997, 2012, 2015,
    ];
    const JANUARY: [i64; 16] = [
        1973, 1974, 1975, 1976, 1977, 1978, 1979, 1980, 1988, 1990, 1991, 1996, 1999, 2006, 2009,
        2017,
    ];
    let mut dates: Vec<_> = JULY.map(|year| (year, 7)).into();
    dates.extend(JANUARY.map(|year| (year, 1)));
    dates.sort_unstable();
    let history = (10..)
        .zip(dates)
        .map(|(before, (year, month))| Leap::new(year, month, before, true));
    let mut leaps: Vec<_> = history.collect();
    assert_eq!(leaps.last().map(|leap| leap.after()), Some(37));
    leaps.extend([
        Leap::new(2027, 1, 37, false),
        Leap::new(2029, 7, 37, false),
        Leap::new(2028, 3, 37, true),
        Leap::new(2028, 3, 37, false),
        Leap::new(2100, 3, 40, true),
        Leap::new(2035, 12, 11, false),
        Leap::new(2036, 3, 59, true),
    ]);
    if cfg!(miri) {
        leaps.split_off(leaps.len() - 3)
    } else {
        leaps
    }
}

/// The instants around an edge that are looked at, in ticks.
const AROUND: [i64; 25] = [
    -20 * DAY * SECOND,
    -DAY * SECOND - 1,
    -DAY * SECOND,
    -DAY * SECOND + 1,
    -DAY * SECOND + SECOND - 1,
    -DAY * SECOND + SECOND,
    -SECOND - 1,
    -SECOND,
    -SECOND + 1,
    -SECOND / 2,
    -2,
    -1,
    0,
    1,
    2,
    SECOND / 2,
    SECOND - 2,
    SECOND - 1,
    SECOND,
    SECOND + 1,
    2 * SECOND - 1,
    2 * SECOND,
    DAY * SECOND,
    DAY * SECOND + SECOND,
    40 * DAY * SECOND,
];

/// The kinds of page: scale, and whether the offset is there and in which sign.
const KINDS: [(TimeType, i16); 5] = [
    (TimeType::Tai, -1),
    (TimeType::Tai, 1),
    (TimeType::Utc, -1),
    (TimeType::Utc, 1),
    (TimeType::Utc, 0),
];

/// A page whose reference instant lies `reference` ticks after the edge, where TAI − UTC on the
/// page is `offset`.
fn page(
    leap: Leap,
    (time_type, sign): (TimeType, i16),
    reference: i64,
    indicator: LeapIndicator,
    offset: i16,
) -> Fields {
    let coded = if time_type == TimeType::Tai {
        0
    } else {
        offset
    };
    let second = leap.edge() + reference.div_euclid(SECOND) - i64::from(coded);
    Fields {
        counter_id: CounterId::X86Tsc as u8,
        time_type: time_type as u8,
        clock_status: ClockStatus::Synchronized as u8,
        flags: if sign == 0 { 0 } else { flag::TAI_OFFSET_VALID },
        tai_offset_sec: sign * offset,
        leap_indicator: indicator as u8,
        counter_period_frac_sec: 1 << 63,
        counter_period_shift: 29,
        // Zero at the edge, so that it wraps there.
        counter_value: reference.cast_unsigned(),
        time_sec: second.cast_unsigned(),
        time_frac_sec: reference.rem_euclid(SECOND).cast_unsigned() << 34,
        ..Fields::stock()
    }
}

fn check(leap: Leap, kind: (TimeType, i16), fields: &Fields) {
    let timeline = Timeline::from_page(fields, CounterId::X86Tsc).expect("a good page");
    for ticks in AROUND {
        let case = || format!("{leap:?} {kind:?} {ticks} {fields:?}");
        let reading = timeline.at(Ticks(ticks.cast_unsigned())).expect("in range");
        let (code, offset, leap_second, announcement) = leap.truth(ticks);
        let utc = reading.utc.expect("a page with UTC");
        assert_eq!(utc.time, instant(leap.month, code), "{}", case());
        assert_eq!(utc.leap_second, leap_second, "{}", case());
        assert_eq!(utc.announcement, announcement, "{}", case());
        if kind.1 == 0 {
            assert_eq!(
                (reading.tai, reading.tai_offset),
                (None, None),
                "{}",
                case()
            );
        } else {
            assert_eq!(reading.tai, Some(instant(leap.edge(), ticks)), "{}", case());
            assert_eq!(reading.tai_offset, Some(offset), "{}", case());
            // And back: nothing is lost on the way to UTC.
            let count = Span::from_seconds(i64::from(offset) + i64::from(leap_second));
            let back = utc.time.checked_add(count).expect("in range");
            assert_eq!(back, instant(leap.edge(), ticks), "{}", case());
        }
    }
}

fn instant<S: gnomon_clock::Timescale>(second: i64, ticks: i64) -> Timestamp<S> {
    let fraction = ticks.rem_euclid(SECOND).cast_unsigned() << 34;
    Timestamp::from_parts(second + ticks.div_euclid(SECOND), fraction)
}

#[test]
fn a_page_from_before_the_leap_is_right_after_it() {
    for leap in leaps() {
        let indicator = if leap.insert {
            LeapIndicator::PrePos
        } else {
            LeapIndicator::PreNeg
        };
        for kind in KINDS {
            for reference in [-27 * DAY * SECOND, -DAY * SECOND, -SECOND, -SECOND / 2, -1] {
                check(
                    leap,
                    kind,
                    &page(leap, kind, reference, indicator, leap.before),
                );
            }
        }
    }
}

#[test]
fn a_page_from_after_the_leap_is_right_before_it() {
    for leap in leaps() {
        let (indicator, first) = if leap.insert {
            (LeapIndicator::PostPos, SECOND)
        } else {
            (LeapIndicator::PostNeg, 0)
        };
        for kind in KINDS {
            for reference in [
                first,
                first + 1,
                first + SECOND,
                DAY * SECOND,
                27 * DAY * SECOND,
            ] {
                check(
                    leap,
                    kind,
                    &page(leap, kind, reference, indicator, leap.after()),
                );
            }
        }
    }
}

#[test]
fn a_page_from_inside_the_inserted_second_is_right_with_either_offset() {
    for leap in leaps().into_iter().filter(|leap| leap.insert) {
        for kind in KINDS {
            for reference in [0, 1, SECOND / 2, SECOND - 1] {
                for offset in [leap.before, leap.after()] {
                    // With the old offset a code of the next month's first second, with the new
                    // one :59 for the second time.
                    let page = page(leap, kind, reference, LeapIndicator::Pos, offset);
                    check(leap, kind, &page);
                }
            }
        }
    }
}

#[test]
fn inside_the_inserted_second_only_a_months_end_is_believed() {
    let leap = Leap::new(2017, 1, 36, true);
    for kind in KINDS {
        for (reference, offset) in [
            (-SECOND - 1, leap.before),
            (-1, leap.after()),
            (SECOND, leap.before),
            (2 * SECOND, leap.before),
            (DAY * SECOND, leap.after()),
            (15 * DAY * SECOND, leap.after()),
        ] {
            let page = page(leap, kind, reference, LeapIndicator::Pos, offset);
            let result = Timeline::from_page(&page, CounterId::X86Tsc);
            assert_eq!(
                result,
                Err(Unusable::LeapSecond),
                "{kind:?} {reference} {offset}"
            );
        }
    }
}

#[test]
fn without_an_indicator_nothing_is_ahead() {
    let leap = Leap::new(2017, 1, 36, true);
    for kind in KINDS {
        let page = page(leap, kind, -SECOND, LeapIndicator::None, 36);
        let timeline = Timeline::from_page(&page, CounterId::X86Tsc).expect("a good page");
        for ticks in AROUND {
            let utc = timeline
                .at(Ticks(ticks.cast_unsigned()))
                .ok()
                .and_then(|r| r.utc);
            let utc = utc.expect("a page with UTC");
            assert_eq!(utc.time, instant(leap.month, ticks));
            assert_eq!(
                (utc.leap_second, utc.announcement),
                (false, Announcement::None)
            );
        }
    }
}

#[test]
fn without_an_offset_a_tai_page_gives_tai_across_the_edge_and_no_utc() {
    let leap = Leap::new(2017, 1, 36, true);
    for indicator in 0..=5 {
        let fields = Fields {
            leap_indicator: indicator,
            ..page(leap, (TimeType::Tai, 0), -SECOND, LeapIndicator::None, 36)
        };
        let timeline = Timeline::from_page(&fields, CounterId::X86Tsc).expect("a good page");
        for ticks in AROUND {
            let reading = timeline.at(Ticks(ticks.cast_unsigned())).expect("in range");
            assert_eq!(reading.tai, Some(instant(leap.edge(), ticks)));
            assert_eq!((reading.utc, reading.reference_utc), (None, None));
        }
    }
}

#[test]
fn the_edges_read_as_they_are_written() {
    let show = |leap: Leap, indicator, ticks: i64| {
        let page = page(leap, KINDS[0], -DAY * SECOND, indicator, leap.before);
        let timeline = Timeline::from_page(&page, CounterId::X86Tsc).expect("a good page");
        let reading = timeline.at(Ticks(ticks.cast_unsigned())).expect("in range");
        let utc = reading.utc.expect("a page with UTC");
        (utc.to_string(), utc.time.to_ntp().0 >> 32)
    };
    let insert = Leap::new(2017, 1, 36, true);
    for (ticks, text, ntp) in [
        (-1, "2016-12-31T23:59:59.999999999Z", 3_692_217_599),
        (0, "2016-12-31T23:59:60.000000000Z", 3_692_217_599),
        (SECOND - 1, "2016-12-31T23:59:60.999999999Z", 3_692_217_599),
        (SECOND, "2017-01-01T00:00:00.000000000Z", 3_692_217_600),
    ] {
        assert_eq!(
            show(insert, LeapIndicator::PrePos, ticks),
            (text.into(), ntp)
        );
    }
    let delete = Leap::new(2029, 7, 37, false);
    for (ticks, text, ntp) in [
        (-SECOND - 1, "2029-06-30T23:59:57.999999999Z", 4_086_547_197),
        (-SECOND, "2029-06-30T23:59:58.000000000Z", 4_086_547_198),
        (-1, "2029-06-30T23:59:58.999999999Z", 4_086_547_198),
        (0, "2029-07-01T00:00:00.000000000Z", 4_086_547_200),
    ] {
        assert_eq!(
            show(delete, LeapIndicator::PreNeg, ticks),
            (text.into(), ntp)
        );
    }
}

#[test]
fn the_pages_update_instant_is_told_in_utc() {
    let leap = Leap::new(2017, 1, 36, true);
    for kind in KINDS {
        for (indicator, reference, offset) in [
            (LeapIndicator::PrePos, -1, 36),
            (LeapIndicator::Pos, SECOND / 4, 36),
            (LeapIndicator::Pos, SECOND / 4, 37),
            (LeapIndicator::PostPos, SECOND, 37),
        ] {
            let page = page(leap, kind, reference, indicator, offset);
            let timeline = Timeline::from_page(&page, CounterId::X86Tsc).expect("a good page");
            let far = timeline
                .at(Ticks((SECOND * 1000).cast_unsigned()))
                .expect("in range");
            let expected = instant(leap.month, leap.truth(reference).0);
            assert_eq!(far.reference_utc, Some(expected), "{kind:?} {indicator}");
        }
    }
}
