//! The clock that the service reads: no time, or the time of this very page.

use core::cell::Cell;

use gnomon_clock::page::{self, COUNTER_INVALID, flag};
use gnomon_clock::{
    Busy, Clock, ClockStatus, Counter, CounterId, Fields, Kiss, NoTime, PageMemory, Stamp, Ticks,
    TimeType, Timeline, Unusable, VmclockPage, Writer,
};

/// A counter that a test sets, and that may do something whenever it is read.
struct Fake<'a> {
    ticks: Cell<u64>,
    on_read: &'a dyn Fn(),
}

impl Fake<'_> {
    fn at(ticks: u64) -> Self {
        Self {
            ticks: Cell::new(ticks),
            on_read: &|| (),
        }
    }
}

impl Counter for &Fake<'_> {
    const ID: CounterId = CounterId::ArmVcnt;

    fn read(&self) -> Ticks {
        (self.on_read)();
        Ticks(self.ticks.get())
    }
}

/// Time at 2 Hz: `seconds` at counter value 0, under `marker`.
fn good(seconds: u64, marker: u64) -> Fields {
    Fields {
        counter_id: CounterId::ArmVcnt as u8,
        time_type: TimeType::Tai as u8,
        clock_status: ClockStatus::Synchronized as u8,
        disruption_marker: marker,
        flags: flag::TAI_OFFSET_VALID | flag::TIME_MAXERROR_VALID,
        tai_offset_sec: -37,
        counter_period_frac_sec: 1 << 63,
        time_sec: seconds,
        ..Fields::stock()
    }
}

fn bad(marker: u64) -> Fields {
    Fields {
        clock_status: ClockStatus::Unknown as u8,
        ..good(1000, marker)
    }
}

const UNKNOWN: Unusable = Unusable::Status(ClockStatus::Unknown);

fn seconds(reading: &gnomon_clock::Reading) -> Option<i64> {
    reading.tai.map(gnomon_clock::Timestamp::seconds)
}

#[test]
fn without_a_page_there_is_no_time() {
    let counter = Fake::at(7);
    let mut clock = Clock::new(None, &counter);
    let stamp = clock.stamp();
    assert_eq!(
        stamp,
        Stamp {
            ticks: Ticks(7),
            marker: 0
        }
    );
    assert_eq!(clock.reading(), Err(NoTime::NoPage));
    assert_eq!(clock.exchange(stamp), Err(NoTime::NoPage));
    assert_eq!(clock.fields(), None);
    assert_eq!(NoTime::NoPage.kiss(), Kiss::Init);
    assert_eq!(NoTime::NoPage.to_string(), "no vmclock page");
}

#[test]
fn now_and_both_times_of_an_exchange_follow_the_counter() {
    let page = VmclockPage::new(&good(1000, 1));
    let counter = Fake::at(4);
    let mut clock = Clock::new(Some(&page), &counter);
    assert_eq!(clock.reading().ok().as_ref().and_then(seconds), Some(1002));
    let stamp = clock.stamp();
    counter.ticks.set(10);
    let exchange = clock.exchange(stamp).expect("a good page");
    assert_eq!(seconds(&exchange.received), Some(1002));
    assert_eq!(seconds(&exchange.transmit), Some(1005));
    assert_eq!(exchange.received.ticks, Ticks(4));
    assert_eq!(clock.fields(), Some(Ok(good(1000, 1))));
}

#[test]
fn an_update_between_stamp_and_answer_converts_both() {
    let page = VmclockPage::new(&good(1000, 1));
    let counter = Fake::at(4);
    let mut clock = Clock::new(Some(&page), &counter);
    let stamp = clock.stamp();
    Writer::new(&page, 0)
        .publish(&good(2000, 1))
        .expect("whole fields");
    let exchange = clock.exchange(stamp).expect("the same marker");
    assert_eq!(seconds(&exchange.received), Some(2002));
    assert_eq!(seconds(&exchange.transmit), Some(2002));
}

/// The clock keeps what it made of a page, and no bit of another page must pass for it: QEMU brings whole
/// pages back, with whatever count they had.
#[test]
fn a_page_that_changes_under_the_same_count_is_another_page() {
    const COUNT: core::ops::Range<usize> = 0x0c..0x10;
    const PADDING: core::ops::Range<usize> = 0x20..0x22;
    // With ticks so short that the clock goes on from the answer before.
    let good = Fields {
        counter_period_shift: 8,
        ..good(1000, 1).sealed()
    };
    // Miri takes its time.
    for bit in (0..8 * page::LEN).step_by(if cfg!(miri) { 29 } else { 1 }) {
        let at = bit / 8;
        if PADDING.contains(&at) {
            continue;
        }
        let page = VmclockPage::new(&good);
        let counter = Fake::at(4);
        let mut clock = Clock::new(Some(&page), &counter);
        for ticks in 4..7 {
            counter.ticks.set(ticks);
            let expected = Timeline::from_page(&good, CounterId::ArmVcnt)
                .and_then(|line| line.at(Ticks(ticks)));
            let exchange = clock.exchange(clock.stamp()).expect("a good page");
            assert_eq!(Ok(exchange.received), expected);
            assert_eq!(Ok(exchange.transmit), expected);
            assert_eq!(clock.reading().ok(), expected.ok());
        }
        let mut bytes = good.to_bytes();
        bytes[at] ^= 1 << (bit % 8);
        let changed = Fields::from_bytes(&bytes);
        let mut memory = &page;
        memory.write(0, &bytes).expect("whole fields");
        let stamp = clock.stamp();
        counter.ticks.set(7);
        let told = clock.exchange(stamp);
        if COUNT.contains(&at) && changed.seq_count % 2 == 1 {
            assert_eq!(told, Err(NoTime::Busy(Busy { odd: true })));
            continue;
        }
        let line = Timeline::from_page(&changed, CounterId::ArmVcnt);
        let [received, transmit] = [6, 7].map(|ticks| line.and_then(|line| line.at(Ticks(ticks))));
        match told {
            Ok(exchange) => {
                assert_eq!(
                    (Ok(exchange.received), Ok(exchange.transmit)),
                    (received, transmit)
                );
            }
            // Another marker, and the line of old.
            Err(NoTime::Unusable {
                why: Unusable::NotUpdated,
                ..
            }) => assert_ne!(changed.disruption_marker, good.disruption_marker),
            Err(NoTime::Unusable { why, .. }) => {
                assert_eq!(received.and(transmit).err(), Some(why), "{at:#x}");
            }
            Err(why) => panic!("{at:#x}: {why}"),
        }
    }
}

#[test]
fn a_stamp_from_before_a_disruption_is_refused_and_the_next_answered() {
    let page = VmclockPage::new(&good(1000, 1));
    let counter = Fake::at(4);
    let mut clock = Clock::new(Some(&page), &counter);
    let stamp = clock.stamp();
    Writer::new(&page, 0)
        .publish(&good(2000, 2))
        .expect("whole fields");
    assert_eq!(clock.exchange(stamp), Err(NoTime::StaleStamp));
    let stamp = clock.stamp();
    let exchange = clock.exchange(stamp).expect("a stamp of this page");
    assert_eq!(seconds(&exchange.received), Some(2002));
    assert_eq!(exchange.transmit.marker, 2);
}

#[test]
fn a_disruption_while_the_stamp_is_taken_makes_it_stale() {
    let page = VmclockPage::new(&good(1000, 1));
    let disrupt = || {
        Writer::new(&page, 0)
            .publish(&good(2000, 2))
            .expect("whole fields");
    };
    let counter = Fake {
        ticks: Cell::new(4),
        on_read: &disrupt,
    };
    let stamp = Clock::new(Some(&page), &counter).stamp();
    assert_eq!(
        stamp.marker, 1,
        "the marker is loaded before the counter is read"
    );
    let counter = Fake::at(4);
    let mut clock = Clock::new(Some(&page), &counter);
    assert_eq!(clock.exchange(stamp), Err(NoTime::StaleStamp));
}

#[test]
fn a_counter_that_went_back_makes_the_stamp_stale() {
    let page = VmclockPage::new(&good(1000, 1));
    let counter = Fake::at(4);
    let mut clock = Clock::new(Some(&page), &counter);
    let stamp = clock.stamp();
    counter.ticks.set(3);
    assert_eq!(clock.exchange(stamp), Err(NoTime::StaleStamp));
    counter.ticks.set(4);
    assert!(clock.exchange(stamp).is_ok());
}

#[test]
fn the_counter_of_a_torn_look_is_not_used() {
    let page = VmclockPage::new(&good(1000, 1));
    let reads = Cell::new(0);
    let update_once = || {
        reads.set(reads.get() + 1);
        if reads.get() == 1 {
            Writer::new(&page, 0)
                .publish(&good(2000, 1))
                .expect("whole fields");
        }
    };
    let counter = Fake {
        ticks: Cell::new(4),
        on_read: &update_once,
    };
    let mut clock = Clock::new(Some(&page), &counter);
    assert_eq!(clock.reading().ok().as_ref().and_then(seconds), Some(2002));
    assert_eq!(reads.get(), 2);
}

/// What a restored snapshot brings along: the page as it was, and a marker that QEMU has raised in it.
#[test]
fn a_page_that_a_disruption_left_over_is_not_believed() {
    // 2 Hz: the line that is 1000 s at counter value 0 is 1000 s + `ticks` / 2 at `ticks`.
    let on_the_line = |ticks: u64, marker| Fields {
        counter_value: ticks,
        time_sec: 1000 + ticks / 2,
        time_maxerror_nanosec: 50_000,
        ..good(0, marker)
    };
    let left_over = Err(NoTime::Unusable {
        why: Unusable::NotUpdated,
        stepped: true,
    });
    let page = VmclockPage::new(&on_the_line(8, 1));
    let counter = Fake::at(20);
    let mut clock = Clock::new(Some(&page), &counter);
    let mut writer = Writer::new(&page, 0);
    let mut now = |fields: &Fields| {
        writer.publish(fields).expect("whole fields");
        clock.reading().map(|reading| seconds(&reading))
    };
    assert_eq!(now(&on_the_line(8, 1)), Ok(Some(1010)));
    assert_eq!(now(&on_the_line(8, 2)), left_over, "the very page");
    assert_eq!(now(&on_the_line(2, 2)), left_over, "one from before it");
    assert_eq!(
        now(&on_the_line(2, 3)),
        left_over,
        "however often it is disrupted"
    );
    assert_eq!(now(&on_the_line(8, 1)), left_over, "or the marker put back");
    assert_eq!(now(&on_the_line(8, 4)), left_over);
    // A later one that the clock had not seen yet, if its writer has sealed it.
    let unseen = Fields {
        disruption_marker: 4,
        ..on_the_line(14, 1).sealed()
    };
    assert_eq!(now(&unseen), left_over, "the seal is broken");
    assert_eq!(
        now(&on_the_line(16, 4).sealed()),
        Ok(Some(1010)),
        "written since"
    );
    let withdrawn = Fields {
        clock_status: ClockStatus::Initializing as u8,
        ..on_the_line(16, 5)
    };
    assert!(now(&withdrawn).is_err());
    assert_eq!(
        now(&on_the_line(16, 5)),
        Ok(Some(1010)),
        "the host took its time back, and gives it again"
    );
    let an_hour_on = Fields {
        time_sec: 4600,
        ..on_the_line(10, 5).sealed()
    };
    let an_hour_on = Fields {
        disruption_marker: 6,
        ..an_hour_on
    };
    assert_eq!(now(&an_hour_on), Ok(Some(4605)), "another line");
    let an_hour_back = Fields {
        time_sec: 1000,
        ..on_the_line(10, 6)
    };
    assert_eq!(
        now(&an_hour_back),
        Ok(Some(1005)),
        "another line, if an earlier one"
    );
}

#[test]
fn a_clock_that_is_restored_before_it_had_time_goes_by_the_seal() {
    let sealed = good(1000, 1).sealed();
    for (marker, expected) in [(1, Some(1002)), (2, None)] {
        let page = VmclockPage::new(&Fields {
            disruption_marker: marker,
            ..sealed
        });
        let now = Clock::new(Some(&page), &Fake::at(4)).reading();
        assert_eq!(now.ok().as_ref().and_then(seconds), expected);
    }
    let generation = Fields {
        flags: flag::VM_GEN_COUNTER_PRESENT,
        vm_generation_counter: 7,
        ..good(1000, 1)
    };
    assert_eq!(
        generation.sealed(),
        generation,
        "a generation is left alone"
    );
    assert!(!good(1000, 1).is_seal_broken(), "nobody has sealed it");
}

#[test]
fn a_step_is_told_from_a_start_until_time_is_valid_again() {
    let page = VmclockPage::new(&bad(1));
    let counter = Fake::at(4);
    let mut clock = Clock::new(Some(&page), &counter);
    let mut writer = Writer::new(&page, 0);
    let no_time = |stepped| NoTime::Unusable {
        why: UNKNOWN,
        stepped,
    };
    let steps = [
        (bad(1), Err(no_time(false))),   // not yet valid since the start
        (bad(2), Err(no_time(true))),    // disrupted before it ever was
        (bad(1), Err(no_time(true))),    // a marker that comes back heals nothing
        (good(1000, 1), Ok(Some(1002))), // valid
        (bad(1), Err(no_time(false))),   // lost without a disruption
        (good(2000, 3), Ok(Some(2002))), // disrupted and valid at once: just the new time
        (bad(3), Err(no_time(false))),   // its marker is known by now
        (bad(4), Err(no_time(true))),
        (good(3000, 4), Ok(Some(3002))),
    ];
    for (index, (fields, expected)) in steps.into_iter().enumerate() {
        writer.publish(&fields).expect("whole fields");
        let now = clock.reading();
        assert_eq!(
            now.map(|reading| seconds(&reading)),
            expected,
            "step {index}"
        );
        let stamp = clock.stamp();
        let exchange = clock
            .exchange(stamp)
            .map(|exchange| seconds(&exchange.transmit));
        assert_eq!(exchange, expected, "step {index}");
    }
    assert_eq!(no_time(true).kiss(), Kiss::Step);
    assert_eq!(no_time(false).kiss(), Kiss::Init);
    assert_eq!(
        no_time(true).to_string(),
        "clock status unknown (after a disruption)"
    );
    assert_eq!(no_time(false).to_string(), "clock status unknown");
}

#[test]
fn a_stale_stamp_on_a_page_without_time_is_no_reason_for_silence() {
    let page = VmclockPage::new(&good(1000, 1));
    let counter = Fake::at(4);
    let mut clock = Clock::new(Some(&page), &counter);
    let stamp = clock.stamp();
    Writer::new(&page, 0)
        .publish(&bad(2))
        .expect("whole fields");
    let answer = clock.exchange(stamp);
    assert_eq!(
        answer,
        Err(NoTime::Unusable {
            why: UNKNOWN,
            stepped: true
        })
    );
}

#[test]
fn every_look_checks_the_codes_again() {
    let page = VmclockPage::new(&good(1000, 1));
    let counter = Fake::at(4);
    let mut clock = Clock::new(Some(&page), &counter);
    assert!(clock.reading().is_ok());
    let mut writer = Writer::new(&page, 0);
    for (fields, why) in [
        (
            Fields {
                counter_id: COUNTER_INVALID,
                ..good(1000, 1)
            },
            Unusable::NoCounter,
        ),
        (
            Fields {
                counter_id: 1,
                ..good(1000, 1)
            },
            Unusable::Counter(1),
        ),
        (
            Fields {
                time_type: 2,
                ..good(1000, 1)
            },
            Unusable::TimeType(2),
        ),
        (
            Fields {
                time_sec: 0,
                ..good(1000, 1)
            },
            Unusable::OutOfRange,
        ),
    ] {
        writer.publish(&fields).expect("whole fields");
        assert_eq!(
            clock.reading(),
            Err(NoTime::Unusable {
                why,
                stepped: false
            })
        );
    }
}

#[test]
fn a_counter_value_out_of_range_is_no_time() {
    let page = VmclockPage::new(&good(1000, 1));
    let counter = Fake::at(2001_u64.wrapping_neg());
    let mut clock = Clock::new(Some(&page), &counter);
    let why = Unusable::OutOfRange;
    assert_eq!(
        clock.reading(),
        Err(NoTime::Unusable {
            why,
            stepped: false
        })
    );
    // The request came before 1970, the answer is fine.
    let stamp = clock.stamp();
    counter.ticks.set(4);
    assert_eq!(
        clock.exchange(stamp),
        Err(NoTime::Unusable {
            why,
            stepped: false
        })
    );
}

#[test]
fn a_stuck_page_is_busy_and_comes_back() {
    let page = VmclockPage::new(&good(1000, 1));
    let counter = Fake::at(4);
    let mut clock = Clock::new(Some(&page), &counter);
    assert!(clock.reading().is_ok());
    (&page).write(0x0c, &[1, 0, 0, 0]).expect("a whole field");
    let busy = NoTime::Busy(Busy { odd: true });
    assert_eq!(clock.reading(), Err(busy), "and not the time of before");
    assert_eq!(clock.exchange(clock.stamp()), Err(busy));
    assert_eq!(clock.fields(), Some(Err(Busy { odd: true })));
    assert_eq!(busy.kiss(), Kiss::Init);
    assert_eq!(busy.to_string(), "page update does not end");
    (&page).write(0x0c, &[2, 0, 0, 0]).expect("a whole field");
    assert!(clock.reading().is_ok());
}
