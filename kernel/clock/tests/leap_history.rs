//! Leap seconds against an independent model: the table of those that there were, two that might
//! come, and a host that publishes by it. Any page within weeks of an edge, read anywhere within
//! weeks of it, and clocks that live through all of history while their pages are refreshed.

use core::cell::Cell;

use gnomon_clock::calendar::{DAY, Date};
use gnomon_clock::page::flag;
use gnomon_clock::{
    Announcement, Clock, ClockStatus, Counter, CounterId, Fields, LeapIndicator, OperatorNote,
    OperatorOffset, Reading, Span, Tai, Ticks, TimeType, Timeline, Timestamp, Utc, VmclockPage,
    Writer,
};
use proptest::prelude::*;

/// A counter of 2³⁰ Hz: whole ticks, 0.93 ns, are exact, so that the edges are.
const SECOND: i64 = 1 << 30;

/// What happened at the end of a month.
#[derive(Clone, Copy, Debug)]
struct Edge {
    /// First second of the month after it, POSIX-coded.
    month: i64,
    /// TAI − UTC before and after.
    before: i64,
    after: i64,
}

/// Bulletin C from 1972 to 2017, and then what might have been: a second left out, one inserted
/// at the end of a February.
fn table() -> Vec<Edge> {
    const INSERTED: [(i64, u8); 27] = [
        (1972, 7),
        (1973, 1),
        (1974, 1),
        (1975, 1),
        (1976, 1),
        (1977, 1),
        (1978, 1),
        (1979, 1),
        (1980, 1),
        (1981, 7),
        (1982, 7),
        (1983, 7),
        (1985, 7),
        (1988, 1),
        (1990, 1),
        (1991, 1),
        (1992, 7),
        (1993, 7),
        (1994, 7),
        (1996, 1),
        (1997, 7),
        (1999, 1),
        (2006, 1),
        (2009, 1),
        (2012, 7),
        (2015, 7),
        (2017, 1),
    ];
    let future = [((2029, 7), -1), ((2031, 3), 1)];
    let mut offset = 10;
    let all = INSERTED.map(|date| (date, 1)).into_iter().chain(future);
    all.map(|((year, month), change)| {
        let days = Date {
            year,
            month,
            day: 1,
        }
        .days()
        .expect("a date");
        let before = offset;
        offset += change;
        Edge {
            month: days * DAY,
            before,
            after: offset,
        }
    })
    .collect()
}

/// UTC at an instant of TAI.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Label {
    /// POSIX code in ticks.
    code: i128,
    leap_second: bool,
    announcement: Announcement,
    offset: i64,
    indicator: LeapIndicator,
}

/// The definition: the offset of the table, and 23:59:60 while an inserted second runs.
fn label(table: &[Edge], tai: i128) -> Label {
    let ticks = |seconds: i64| i128::from(seconds) * i128::from(SECOND);
    let next = table
        .iter()
        .find(|edge| tai < ticks(edge.month + edge.after));
    let last = table
        .iter()
        .rfind(|edge| tai >= ticks(edge.month + edge.after));
    let offset = next.map_or_else(|| last.map_or(10, |edge| edge.after), |edge| edge.before);
    let plain = Label {
        code: tai - ticks(offset),
        leap_second: false,
        announcement: Announcement::None,
        offset,
        indicator: LeapIndicator::None,
    };
    if let Some(edge) = next {
        let inserted = edge.after > edge.before;
        if plain.code >= ticks(edge.month) {
            let code = plain.code - ticks(1);
            let indicator = LeapIndicator::Pos;
            return Label {
                code,
                leap_second: true,
                indicator,
                ..plain
            };
        }
        if plain.code >= ticks(month_before(edge.month)) {
            let announcement = match (plain.code >= ticks(edge.month - DAY), inserted) {
                (false, _) => Announcement::None,
                (true, true) => Announcement::Insert,
                (true, false) => Announcement::Delete,
            };
            let indicator = if inserted {
                LeapIndicator::PrePos
            } else {
                LeapIndicator::PreNeg
            };
            return Label {
                announcement,
                indicator,
                ..plain
            };
        }
    }
    if let Some(edge) = last
        && plain.code < ticks(month_after(edge.month))
    {
        let indicator = if edge.after > edge.before {
            LeapIndicator::PostPos
        } else {
            LeapIndicator::PostNeg
        };
        return Label { indicator, ..plain };
    }
    plain
}

fn month_before(month: i64) -> i64 {
    let date = Date::from_days(month / DAY - 1).expect("a date");
    Date { day: 1, ..date }.days().expect("a date") * DAY
}

fn month_after(month: i64) -> i64 {
    let date = Date::from_days(month / DAY + 31).expect("a date");
    Date { day: 1, ..date }.days().expect("a date") * DAY
}

/// How a host writes what it knows.
#[derive(Clone, Copy, Debug)]
struct Style {
    scale: TimeType,
    /// −1 as in v1.1, 1 as in v1.0, 0 for no offset.
    sign: i16,
    /// Inside 23:59:60 it has the new offset already, as Linux does.
    early: bool,
}

const STYLES: [Style; 12] = {
    const fn style(scale: TimeType, sign: i16, early: bool) -> Style {
        Style { scale, sign, early }
    }
    [
        style(TimeType::Tai, -1, false),
        style(TimeType::Tai, -1, true),
        style(TimeType::Tai, 1, false),
        style(TimeType::Tai, 1, true),
        style(TimeType::Tai, 0, false),
        style(TimeType::Tai, 0, true),
        style(TimeType::Utc, -1, false),
        style(TimeType::Utc, -1, true),
        style(TimeType::Utc, 1, false),
        style(TimeType::Utc, 1, true),
        style(TimeType::Utc, 0, false),
        style(TimeType::Utc, 0, true),
    ]
};

/// The page of an honest host, refreshed at `tai`, when the counter is `counter`.
fn page(table: &[Edge], style: Style, tai: i128, counter: u64) -> Fields {
    let label = label(table, tai);
    let offset = label.offset + i64::from(label.leap_second && style.early);
    let utc = tai - i128::from(offset) * i128::from(SECOND);
    let time = if style.scale == TimeType::Tai {
        tai
    } else {
        utc
    };
    let second = i64::try_from(time.div_euclid(SECOND.into())).expect("in range");
    let rest = u64::try_from(time.rem_euclid(SECOND.into())).expect("below a second");
    let errors = flag::TIME_MAXERROR_VALID | flag::PERIOD_MAXERROR_VALID | flag::TIME_MONOTONIC;
    Fields {
        counter_id: CounterId::X86Tsc as u8,
        time_type: style.scale as u8,
        clock_status: ClockStatus::Synchronized as u8,
        flags: errors | (u64::from(style.sign != 0) * flag::TAI_OFFSET_VALID),
        tai_offset_sec: style.sign * i16::try_from(offset).expect("small"),
        leap_indicator: label.indicator as u8,
        counter_period_frac_sec: 1 << 63,
        counter_period_shift: 29,
        counter_value: counter,
        time_sec: second.cast_unsigned(),
        time_frac_sec: rest << 34,
        ..Fields::stock()
    }
}

/// The reading says what the label says, as far as the page can know it.
fn agrees(reading: &Reading, table: &[Edge], tai: i128, style: Style) {
    let label = label(table, tai);
    let case = || format!("{label:?} {style:?} {reading:?}");
    let exact_tai: Timestamp<Tai> = instant(tai);
    let told = style.sign != 0 || reading.operator == OperatorNote::Used;
    assert_eq!(
        reading.tai.is_some(),
        told || style.scale == TimeType::Tai,
        "{}",
        case()
    );
    assert_eq!(
        reading.utc.is_some(),
        told || style.scale == TimeType::Utc,
        "{}",
        case()
    );
    if let Some(tai) = reading.tai {
        assert_eq!(tai, exact_tai, "{}", case());
    }
    if let Some(utc) = reading.utc {
        assert_eq!(utc.time, instant(label.code), "{}", case());
        assert_eq!(utc.leap_second, label.leap_second, "{}", case());
        assert_eq!(utc.announcement, label.announcement, "{}", case());
        // Every textual form says :60 exactly then, and the code of NTP repeats.
        assert_eq!(
            utc.to_string().contains(":60."),
            label.leap_second,
            "{}",
            case()
        );
        let ntp = (label.code + 2_208_988_800 * i128::from(SECOND)) << 2;
        assert_eq!(
            i128::from(utc.time.to_ntp().0),
            ntp & ((1 << 64) - 1),
            "{}",
            case()
        );
    }
    if told {
        let offset = reading.tai_offset.expect("told");
        assert_eq!(i64::from(offset), label.offset, "{}", case());
        // TAI → UTC → TAI: the code alone is ambiguous in one second, which is flagged.
        let utc = reading.utc.expect("told");
        let counted = i64::from(offset) + i64::from(utc.leap_second);
        let code: Timestamp<Utc> = utc.time;
        let back = code
            .checked_add(Span::from_seconds(counted))
            .expect("in range");
        let parts = (back.seconds(), back.fraction());
        assert_eq!(
            parts,
            (exact_tai.seconds(), exact_tai.fraction()),
            "{}",
            case()
        );
    }
}

fn instant<S: gnomon_clock::Timescale>(ticks: i128) -> Timestamp<S> {
    let second = i64::try_from(ticks.div_euclid(SECOND.into())).expect("in range");
    let rest = u64::try_from(ticks.rem_euclid(SECOND.into())).expect("below a second");
    Timestamp::from_parts(second, rest << 34)
}

/// TAI in ticks at which the edge's leap second begins.
fn begin(edge: &Edge) -> i128 {
    i128::from(edge.month + edge.before.min(edge.after)) * i128::from(SECOND)
}

/// Instants about an edge in ticks: beside every second where something changes, near, and weeks
/// away.
fn near_an_edge() -> impl Strategy<Value = i64> {
    let landmark = prop_oneof![
        Just(0),
        Just(SECOND),
        Just(-SECOND),
        Just(2 * SECOND),
        Just(-DAY * SECOND),
        Just((1 - DAY) * SECOND),
        Just(DAY * SECOND),
        Just((DAY + 1) * SECOND),
    ];
    prop_oneof![
        (landmark, -2..=2_i64).prop_map(|(landmark, ticks)| landmark + ticks),
        -3 * SECOND..3 * SECOND,
        -27 * DAY * SECOND..27 * DAY * SECOND,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else if cfg!(debug_assertions) { 1000 } else { 10_000 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_page_near_an_edge_is_right_anywhere_near_it(
        edge in 0..29_usize, style in 0..STYLES.len(),
        reference in near_an_edge(), now in near_an_edge(), counter in any::<u64>(),
    ) {
        let (table, style) = (table(), STYLES[style]);
        let edge = begin(&table[edge]);
        let fields = page(&table, style, edge + i128::from(reference), counter);
        let timeline = Timeline::from_page(&fields, CounterId::X86Tsc).expect("a good page");
        let ticks = Ticks(counter.wrapping_add_signed(now - reference));
        let reading = timeline.at(ticks).expect("in range");
        agrees(&reading, &table, edge + i128::from(now), style);
        prop_assert_eq!(reading.age.units(), i128::from(now - reference) << 34);
    }

    #[test]
    fn one_code_never_stands_for_two_instants_without_a_flag(
        edge in 0..29_usize, a in near_an_edge(), b in near_an_edge(),
    ) {
        let table = table();
        let edge = begin(&table[edge]);
        // Also exactly a second apart, where the codes may meet.
        for b in [b, a + SECOND, a - SECOND] {
            let labels = [a, b].map(|ticks| label(&table, edge + i128::from(ticks)));
            let same = labels[0].code == labels[1].code
                && labels[0].leap_second == labels[1].leap_second;
            prop_assert_eq!(same, a == b);
        }
    }

    #[test]
    fn a_clock_refreshed_before_inside_and_after_is_right_throughout(
        edge in 0..29_usize, style in 0..STYLES.len(),
        mut instants in proptest::collection::vec((near_an_edge(), any::<bool>()), 2..12),
    ) {
        let (table, style) = (table(), STYLES[style]);
        let edge = begin(&table[edge]);
        instants.sort_unstable();
        let world = World::new(&table, style, edge + i128::from(instants[0].0));
        let mut clock = Clock::new(Some(&world.page), &world);
        for (ticks, refresh) in instants {
            let tai = edge + i128::from(ticks);
            world.at(tai, refresh);
            agrees(&clock.reading().expect("a good page"), &table, tai, style);
        }
        // And no refresh of them all is taken for a broken promise.
        prop_assert_eq!(clock.audit().violations(), 0, "{:?}", clock.audit());
    }
}

/// A page with an honest host, and a counter that follows TAI.
struct World<'t> {
    table: &'t [Edge],
    style: Style,
    start: i128,
    ticks: Cell<u64>,
    page: VmclockPage,
    seq: Cell<u32>,
}

impl<'t> World<'t> {
    fn new(table: &'t [Edge], style: Style, start: i128) -> Self {
        Self {
            table,
            style,
            start,
            ticks: Cell::new(0),
            page: VmclockPage::new(&page(table, style, start, 0)),
            seq: Cell::new(0),
        }
    }

    fn at(&self, tai: i128, refresh: bool) {
        self.ticks
            .set(u64::try_from(tai - self.start).expect("not before the start"));
        if refresh {
            let fields = page(self.table, self.style, tai, self.ticks.get());
            let seq = Writer::new(&self.page, self.seq.get()).publish(&fields);
            self.seq.set(seq.expect("whole fields"));
        }
    }
}

impl Counter for &World<'_> {
    const ID: CounterId = CounterId::X86Tsc;

    fn read(&self) -> Ticks {
        Ticks(self.ticks.get())
    }
}

/// Twice a month, and closely about each edge: instants of TAI in ticks from 1972 to 2031.
fn lifetime(table: &[Edge]) -> Vec<(i128, bool)> {
    let mut instants: Vec<_> = (0..60 * 24)
        .map(|fortnight| {
            let second = 63_100_000 + fortnight * 1_314_900;
            (i128::from(second) * i128::from(SECOND), true)
        })
        .collect();
    let second = i128::from(SECOND);
    for edge in table {
        for (offset, refresh) in [
            (-second, true),
            (-1, false),
            (0, true),
            (0, false),
            (second / 2, true),
            (second - 1, false),
            (second, false),
            (second + 1, true),
            (2 * second, false),
        ] {
            instants.push((begin(edge) + offset, refresh));
        }
    }
    instants.sort_unstable();
    let kept = if cfg!(miri) { 12 } else { instants.len() };
    instants.split_off(instants.len() - kept)
}

#[test]
fn every_style_of_host_is_right_from_1972_to_2031() {
    let table = table();
    for style in STYLES {
        let instants = lifetime(&table);
        let world = World::new(&table, style, instants[0].0);
        let mut clock = Clock::new(Some(&world.page), &world);
        for (tai, refresh) in instants {
            world.at(tai, refresh);
            agrees(&clock.reading().expect("a good page"), &table, tai, style);
        }
        assert_eq!(
            clock.audit().violations(),
            0,
            "{style:?} {:?}",
            clock.audit()
        );
    }
}

#[test]
fn an_operators_offset_follows_the_leap_seconds_of_pages_that_have_none() {
    let table = table();
    for style in STYLES {
        // Every refresh inside the second, and none there.
        for inside in [true, false] {
            let instants = lifetime(&table);
            let world = World::new(&table, style, instants[0].0);
            let first = label(&table, instants[0].0).offset;
            let offset = OperatorOffset::new(i16::try_from(first).expect("small"));
            let mut clock =
                Clock::new(Some(&world.page), &world).with_operator_offset(offset.expect("10"));
            for (tai, refresh) in instants {
                let leap_second = label(&table, tai).leap_second;
                world.at(tai, refresh && (inside || !leap_second));
                let reading = clock.reading().expect("a good page");
                let used = if style.sign == 0 {
                    OperatorNote::Used
                } else {
                    OperatorNote::Agrees
                };
                assert_eq!(reading.operator, used, "{style:?} {reading:?}");
                assert!(!reading.notes.utc_without_tai_offset);
                agrees(&reading, &table, tai, style);
            }
        }
    }
}

#[test]
fn an_operators_offset_follows_a_leap_second_that_is_told_of_afterwards_only() {
    let table = table();
    let days = |days: i64| i128::from(days * DAY) * i128::from(SECOND);
    for style in STYLES {
        // Of 2015, 2017 and the two to come: a refresh two months before each and one after.
        let edges = &table[25..];
        let world = World::new(&table, style, begin(&edges[0]) - days(60));
        let first = OperatorOffset::new(35).expect("in range");
        let mut clock = Clock::new(Some(&world.page), &world).with_operator_offset(first);
        for edge in edges {
            for after in [
                days(-60),
                i128::from(SECOND),
                i128::from(SECOND) + 1,
                days(20),
            ] {
                let tai = begin(edge) + after;
                world.at(tai, true);
                agrees(&clock.reading().expect("a good page"), &table, tai, style);
            }
        }
        // From one month after a leap second to the next, with no refresh between.
        let world = World::new(&table, style, begin(&edges[0]) + days(20));
        let first = OperatorOffset::new(36).expect("in range");
        let mut clock = Clock::new(Some(&world.page), &world).with_operator_offset(first);
        for edge in edges {
            let tai = begin(edge) + days(20);
            world.at(tai, true);
            agrees(&clock.reading().expect("a good page"), &table, tai, style);
        }
    }
}

#[test]
fn an_operators_offset_never_replaces_the_pages() {
    let table = table();
    let tai = begin(&table[26]) + i128::from(40 * DAY) * i128::from(SECOND);
    let wrong = OperatorOffset::new(36);
    for (style, note, offset) in [
        (STYLES[0], OperatorNote::Disagrees { operator: 36 }, 37),
        (STYLES[8], OperatorNote::Disagrees { operator: 36 }, 37),
        (STYLES[4], OperatorNote::Used, 36),
        (STYLES[10], OperatorNote::Used, 36),
    ] {
        let fields = page(&table, style, tai, 0);
        let timeline = Timeline::with_operator_offset(&fields, CounterId::X86Tsc, wrong);
        let reading = timeline
            .and_then(|timeline| timeline.at(Ticks(0)))
            .expect("a good page");
        assert_eq!((reading.operator, reading.tai_offset), (note, Some(offset)));
        let alone = Timeline::from_page(&fields, CounterId::X86Tsc).expect("a good page");
        let reading = alone.at(Ticks(0)).expect("in range");
        assert_eq!(reading.operator, OperatorNote::NotGiven);
        assert_eq!(reading.tai_offset.is_none(), style.sign == 0);
    }
    // A host that tells of ever more leap seconds cannot move it out of the range.
    let spin = |year: u64, indicator| Fields {
        time_sec: (year * 31_556_952) & !0xfff,
        leap_indicator: indicator,
        ..page(&table, STYLES[4], tai, 0)
    };
    let world = World::new(&table, STYLES[4], tai);
    let sixty = OperatorOffset::new(60).expect("in range");
    let mut clock = Clock::new(Some(&world.page), &world).with_operator_offset(sixty);
    let mut writer = Writer::new(&world.page, 0);
    for year in 50..90 {
        writer.publish(&spin(year, 4)).expect("whole fields");
        let offset = clock.reading().expect("a good page").tai_offset;
        assert_eq!(offset, Some(60));
    }
    for given in i16::MIN..=i16::MAX {
        let offset = OperatorOffset::new(given).map(OperatorOffset::tai_minus_utc);
        assert_eq!(offset, (10..=60).contains(&given).then_some(given));
    }
}
