//! What a clock tells while its page stays the same, by the short way, against what the page's line says of
//! the same counter value.

#[expect(dead_code, reason = "lines are made here by the clock")]
mod common;

use core::cell::Cell;

use gnomon_clock::page::{self, flag};
use gnomon_clock::{
    Clock, Counter, CounterId, Exchange, Fields, LeapIndicator, NoTime, Now, PageMemory, Stamp,
    Tai, Ticks, TimeType, Timeline, Timestamp, Unusable, UtcTime, VmclockPage,
};
use proptest::prelude::*;
use proptest::test_runner::{TestCaseResult, TestRunner};

use common::good;

/// A counter that a test sets, that counts how often it is read, and that may do something the next time.
#[derive(Default)]
struct Fake<'a> {
    ticks: Cell<u64>,
    reads: Cell<u64>,
    next: Cell<Option<&'a dyn Fn()>>,
}

impl Counter for &Fake<'_> {
    const ID: CounterId = CounterId::X86Tsc;

    fn read(&self) -> Ticks {
        self.reads.set(self.reads.get() + 1);
        if let Some(act) = self.next.take() {
            act();
        }
        Ticks(self.ticks.get())
    }
}

/// A clock by a page that stays the same, and that page's line.
struct Still<'a> {
    clock: Clock<'a, &'a Fake<'a>>,
    counter: &'a Fake<'a>,
    fields: &'a Fields,
    line: Result<Timeline, Unusable>,
    /// Answers that were given by the short way, which reads the counter once, and in all.
    short: u64,
    all: u64,
}

impl<'a> Still<'a> {
    fn new(page: &'a VmclockPage, counter: &'a Fake<'a>, fields: &'a Fields) -> Self {
        Self {
            clock: Clock::new(Some(page), counter),
            counter,
            fields,
            line: Timeline::from_page(fields, CounterId::X86Tsc),
            short: 0,
            all: 0,
        }
    }

    /// That many ticks after the reference the clock tells what the line says, in every way it can be asked,
    /// and of a request that came `ago` ticks before, too.
    fn check(&mut self, elapsed: u64, ago: u64) -> TestCaseResult {
        let at = |elapsed: u64| Ticks(self.fields.counter_value.wrapping_add(elapsed));
        let (ticks, before) = (at(elapsed), at(elapsed.wrapping_sub(ago)));
        self.counter.ticks.set(ticks.0);
        let expected = self.line.and_then(|line| line.at(ticks));
        let arrival = self.line.and_then(|line| line.at(before));

        let told = self.short(|clock| clock.now().map(|now| (fields_of(&now), now.reading())));
        prop_assert_eq!(told.map(|(_, reading)| reading), unusable(expected));
        if let Ok((fields, reading)) = told {
            prop_assert_eq!(fields, (reading.ticks, reading.tai, reading.utc));
        }
        let stamp = Stamp {
            ticks: before,
            marker: self.fields.disruption_marker,
        };
        let told = self.short(|clock| clock.exchange(stamp));
        let both = expected.and_then(|transmit| {
            let received = arrival?;
            Ok(Exchange { received, transmit })
        });
        prop_assert_eq!(told, unusable(both));
        Ok(())
    }

    fn short<T>(&mut self, ask: impl FnOnce(&mut Clock<'a, &'a Fake<'a>>) -> T) -> T {
        self.counter.reads.set(0);
        let told = ask(&mut self.clock);
        self.all += 1;
        self.short += u64::from(self.counter.reads.get() == 1);
        told
    }
}

fn fields_of(now: &Now<'_>) -> (Ticks, Option<Timestamp<Tai>>, Option<UtcTime>) {
    (now.ticks(), now.tai(), now.utc())
}

fn unusable<T>(told: Result<T, Unusable>) -> Result<T, NoTime> {
    told.map_err(|why| NoTime::Unusable {
        why,
        stepped: false,
    })
}

/// 2017-01-01T00:00:00Z.
const MONTH: u64 = 1_483_228_800;

/// A number of any length in bits.
fn any_length() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..64_u32).prop_map(|(number, zeros)| number >> zeros)
}

prop_compose! {
    /// A page that has a time, near a leap second or not.
    fn pages()(
        seconds in prop_oneof![0..1_u64 << 34, MONTH - 3..MONTH + 40, MONTH - 86_403..MONTH - 86_360, 0..1_u64 << 63],
        time_frac_sec in any::<u64>(),
        is_utc: bool,
        leap_indicator in prop_oneof![Just(0), 0..=5_u8],
        tai_offset_sec in prop_oneof![Just(-37), Just(-36), Just(-10), Just(0)],
        shift in prop_oneof![0..=127_u8, 20..36_u8, 0..5_u8],
        period in prop_oneof![any_length(), Just(1 << 63), Just(u64::MAX)],
        error in prop_oneof![any_length(), 0..10_u64, Just(u64::MAX)],
        maxerror in prop_oneof![any_length(), 0..1_000_000_000_u64],
        counter_value in any::<u64>(),
    ) -> Fields {
        Fields {
            time_type: if is_utc { TimeType::Utc } else { TimeType::Tai } as u8,
            flags: flag::TAI_OFFSET_VALID | flag::PERIOD_MAXERROR_VALID | flag::TIME_MAXERROR_VALID,
            tai_offset_sec,
            leap_indicator,
            counter_value,
            counter_period_shift: shift,
            counter_period_frac_sec: period.max(1),
            counter_period_maxerror_rate_frac_sec: error,
            time_sec: seconds,
            time_frac_sec,
            time_maxerror_nanosec: maxerror,
            ..good()
        }
    }
}

/// Random pages and counter values: inside windows, at their edges, and where there are none.
#[test]
fn the_short_way_tells_what_the_line_says_to_the_last_bit() {
    let (short, all) = (Cell::new(0), Cell::new(0));
    let cases = if cfg!(miri) { 20 } else { 20_000 };
    let mut runner = TestRunner::new(ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let moments = prop::collection::vec((any_length(), any_length(), 0..6_u64), 1..12);
    runner
        .run(&(pages(), moments), |(fields, moments)| {
            let page = VmclockPage::new(&fields);
            let counter = Fake::default();
            let mut still = Still::new(&page, &counter, &fields);
            let zeros = fields.counter_period_frac_sec.leading_zeros();
            let length = 1_u64
                .checked_shl(u32::from(fields.counter_period_shift) + zeros)
                .unwrap_or(1 << 20);
            for (elapsed, ago, near) in moments {
                // Around a multiple of half a window, which is where they begin and end, and from there on.
                let edge = elapsed / (length / 2).max(1) * (length / 2).max(1);
                for elapsed in [elapsed, edge.wrapping_add(near).wrapping_sub(3)] {
                    // Before the reference there is no window, and no time near 1970.
                    still.check(elapsed, ago.min(length / 3))?;
                    still.check(elapsed.wrapping_add(near), near)?;
                    still.check(elapsed.wrapping_add(length / 2), length / 2)?;
                }
            }
            short.set(short.get() + still.short);
            all.set(all.get() + still.all);
            Ok(())
        })
        .expect("the same");
    let (short, all) = (short.get(), all.get());
    println!("{short} of {all} answers by the short way");
    assert!(short > all / 10, "{short} of {all}");
}

/// Tick by tick through the last day's beginning, the leap second, and what follows.
#[test]
fn no_leap_second_is_passed_by_the_short_way_unnoticed() {
    use LeapIndicator::{None, Pos, PostNeg, PostPos, PreNeg, PrePos};
    let mut short = 0;
    for (indicator, seconds, time_type, shift) in [None, PrePos, PreNeg, Pos, PostPos, PostNeg]
        .into_iter()
        .flat_map(|indicator| {
            let seconds: &[u64] = match indicator {
                None | PrePos | PreNeg => &[MONTH - 86_400 - 20, MONTH - 20],
                Pos => &[MONTH],
                PostPos | PostNeg => &[MONTH + 1],
            };
            seconds.iter().map(move |seconds| (indicator, *seconds))
        })
        .flat_map(|(indicator, seconds)| {
            [(TimeType::Tai, 37), (TimeType::Utc, 0)]
                .map(|(time_type, ahead)| (indicator, seconds + ahead - 1, time_type))
        })
        .flat_map(|(indicator, seconds, time_type)| {
            [1, 2, 3, 4].map(|shift| (indicator, seconds, time_type, shift))
        })
    {
        let fields = Fields {
            leap_indicator: indicator as u8,
            time_type: time_type as u8,
            time_sec: seconds + u64::from(indicator == Pos && time_type == TimeType::Tai),
            time_frac_sec: 1 << 62,
            // Not a divisor of a second, so that windows begin anywhere in it.
            counter_period_frac_sec: 0xfeed_beef_cafe_f00d,
            counter_period_shift: shift,
            ..good()
        };
        let page = VmclockPage::new(&fields);
        let counter = Fake::default();
        let mut still = Still::new(&page, &counter, &fields);
        assert!(still.line.is_ok(), "{indicator:?} {seconds} {time_type:?}");
        for elapsed in 0..40 << shift {
            still.check(elapsed, elapsed % 5).expect("the same");
        }
        assert!(
            still.short > 20 << shift,
            "{} of {}",
            still.short,
            still.all
        );
        short += still.short;
    }
    println!("{short} answers by the short way");
}

/// An ordinary page is read by the short way from the second answer on, until the window ends.
#[test]
fn an_ordinary_page_takes_the_long_way_once_in_a_window() {
    let fields = good();
    let page = VmclockPage::new(&fields);
    let counter = Fake::default();
    let mut still = Still::new(&page, &counter, &fields);
    // 1 GHz: a window is 2^29 ticks long, and begins at a multiple of half of that.
    for (elapsed, short) in [
        (0, false),
        (1, true),
        ((1 << 29) - 1, true),
        (1 << 29, false),
        ((1 << 30) - 1, true),
        ((1 << 30) + (1 << 28) + 5, false),
        ((1 << 30) + (3 << 28) - 1, true),
        ((1 << 30) + (3 << 28), false),
        (u64::from(u32::MAX) * 1000, false),
        (u64::from(u32::MAX) * 1000 + 1, true),
        // The counter went back, which somebody has to hear of.
        (u64::from(u32::MAX) * 1000, false),
    ] {
        let before = still.short;
        still.check(elapsed, 0).expect("the same");
        let both = if short { 2 } else { 1 };
        assert_eq!(still.short - before, both, "{elapsed}");
    }
    assert_eq!(still.clock.audit().violations(), 1, "the counter");
}

/// Whatever happens to the page while the counter is read for an answer is in that answer: QEMU raises the
/// marker of a machine that it has loaded, and may bring another page under the same count.
#[test]
fn what_changes_while_the_counter_is_read_is_seen_in_that_very_answer() {
    let fields = good();
    for at in (0..page::LEN).filter(|at| !(0x20..0x22).contains(at)) {
        let mut bytes = fields.to_bytes();
        // The lowest bit of the count stays: a page that is being written is another matter.
        bytes[at] ^= if at == 0x0c { 2 } else { 1 };
        let changed = Fields::from_bytes(&bytes);
        for exchange in [false, true] {
            let page = VmclockPage::new(&fields);
            let change = || {
                (&page).write(0, &bytes).expect("whole fields");
            };
            let counter = Fake::default();
            let mut clock = Clock::new(Some(&page), &counter);
            for elapsed in [100, 200, 300] {
                counter.ticks.set(fields.counter_value + elapsed);
                counter.reads.set(0);
                clock.now().expect("time");
            }
            assert_eq!(counter.reads.get(), 1, "by the short way");
            let stamp = clock.stamp();
            counter.ticks.set(fields.counter_value + 400);
            counter.next.set(Some(&change));
            let told = if exchange {
                clock.exchange(stamp).map(|both| both.transmit)
            } else {
                clock.reading()
            };
            let line = Timeline::from_page(&changed, CounterId::X86Tsc);
            let expected = line.and_then(|line| line.at(Ticks(fields.counter_value + 400)));
            match told {
                Ok(told) => assert_eq!(Ok(told), expected, "{at:#x}"),
                Err(NoTime::StaleStamp) => assert!(exchange),
                // The old line under another marker.
                Err(NoTime::Unusable { why, stepped })
                    if changed.disruption_marker != fields.disruption_marker =>
                {
                    assert_eq!((why, stepped), (Unusable::NotUpdated, true));
                }
                Err(why) => assert_eq!(Err(why), unusable(expected), "{at:#x}"),
            }
        }
    }
}

/// By the short way, too, a stamp is refused that is of another marker or later than the answer.
#[test]
fn a_stale_stamp_is_refused_by_the_short_way() {
    let fields = good();
    let page = VmclockPage::new(&fields);
    let counter = Fake::default();
    let mut clock = Clock::new(Some(&page), &counter);
    let at = |elapsed| Ticks(fields.counter_value + elapsed);
    let stamp = |elapsed, marker| Stamp {
        ticks: at(elapsed),
        marker,
    };
    let marker = fields.disruption_marker;
    for (elapsed, stamp, is_good) in [
        (100, stamp(90, marker), true),
        (200, stamp(190, marker), true),
        (300, stamp(290, marker + 1), false),
        (400, stamp(390, marker - 1), false),
        (500, stamp(501, marker), false),
        (600, stamp(600, marker), true),
    ] {
        counter.ticks.set(at(elapsed).0);
        let told = clock.exchange(stamp);
        if is_good {
            let ticks = told.map(|both| (both.received.ticks, both.transmit.ticks));
            assert_eq!(ticks, Ok((stamp.ticks, at(elapsed))));
        } else {
            assert_eq!(told, Err(NoTime::StaleStamp), "{elapsed}");
        }
    }
}
