//! A line of one's own beside a page that has only the marker: never a time from across a disruption.

use core::cell::Cell;

use gnomon_clock::page::{COUNTER_INVALID, flag};
use gnomon_clock::{
    Bound, Bracket, Busy, Clock, ClockStatus, Counter, CounterId, CrossTimestamp, Disruption,
    Estimator, Fields, Kiss, Limits, NoTime, Origin, PageMemory, Period, Prior, Reading, Source,
    SourceTime, Stamp, Ticks, TimeType, Timeline, Timestamp, Unusable, VmclockPage, Wander, Writer,
};

/// A counter of 1 MHz that a test sets, and that may do something whenever it is read.
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

const MEGAHERTZ: u64 = 1_000_000;

/// What QEMU and Firecracker publish.
fn marker_only(marker: u64) -> Fields {
    Fields {
        disruption_marker: marker,
        ..Fields::stock()
    }
}

/// Time at 1 MHz: `seconds` of TAI at counter value 0, under `marker`.
fn with_time(seconds: u64, marker: u64) -> Fields {
    let megahertz = Period::from_hertz(MEGAHERTZ).expect("above 2 Hz");
    Fields {
        counter_id: CounterId::ArmVcnt as u8,
        time_type: TimeType::Tai as u8,
        clock_status: ClockStatus::Synchronized as u8,
        disruption_marker: marker,
        flags: flag::TAI_OFFSET_VALID | flag::TIME_MAXERROR_VALID,
        tai_offset_sec: -37,
        counter_period_shift: megahertz.shift(),
        counter_period_frac_sec: megahertz.frac(),
        time_sec: seconds,
        ..Fields::stock()
    }
}

/// A source that says it was `seconds` of UTC at the counter value `ticks`, under `marker`.
fn sample(seconds: i64, ticks: u64, marker: u64) -> CrossTimestamp {
    CrossTimestamp {
        bracket: Bracket {
            before: Ticks(ticks),
            after: Ticks(ticks),
            marker,
        },
        time: SourceTime::Utc(Timestamp::from_parts(seconds, 0)),
        error: Bound::from_nanos(1000),
        tai_offset: None,
        leap: None,
        status: ClockStatus::Freerunning,
    }
}

fn line_of(source: Source, seconds: i64, ticks: u64, marker: u64) -> Timeline {
    let limits = Limits {
        max_age: 100,
        ..Limits::DEFAULT
    };
    let mut estimator = Estimator::new(source, Wander::CRYSTAL, limits);
    estimator.set_prior(Prior::from_hertz(MEGAHERTZ, 1000), marker);
    estimator
        .add(&sample(seconds, ticks, marker))
        .expect("a good sample");
    estimator.timeline().expect("a line at once")
}

fn line(seconds: i64, ticks: u64, marker: u64) -> Timeline {
    line_of(Source::VirtioRtc, seconds, ticks, marker)
}

/// Whole seconds of UTC, to the nearest, and where they are from.
fn told(reading: &Reading) -> (i64, Origin) {
    let utc = reading.utc.expect("UTC").time;
    let rounded = utc.seconds() + i64::from(utc.nanos() >= 500_000_000);
    (rounded, reading.origin)
}

const OWN: Origin = Origin::Own(Source::VirtioRtc);

fn no_time(why: Unusable, stepped: bool) -> NoTime {
    NoTime::Unusable { why, stepped }
}

#[test]
fn beside_a_marker_the_own_line_serves_at_once() {
    let page = VmclockPage::new(&marker_only(1));
    let counter = Fake::at(5 * MEGAHERTZ);
    let mut clock = Clock::new(Some(&page), &counter);
    assert!(clock.has_marker() && clock.own().is_none());
    assert_eq!(clock.reading(), Err(no_time(Unusable::NoCounter, false)));
    assert!(clock.set_own(Some(line(1000, 4 * MEGAHERTZ, 1))));
    let stamp = clock.stamp();
    counter.ticks.set(7 * MEGAHERTZ);
    let exchange = clock.exchange(stamp).expect("a line");
    assert_eq!(told(&exchange.received), (1001, OWN));
    assert_eq!(told(&exchange.transmit), (1003, OWN));
    assert_eq!(exchange.transmit.marker, 1);
    assert_eq!(exchange.transmit.status, ClockStatus::Freerunning);
    assert!(exchange.transmit.bound > exchange.received.bound, "it ages");
    assert!(clock.set_own(None));
    assert_eq!(clock.reading(), Err(no_time(Unusable::NoCounter, false)));
}

#[test]
fn what_a_page_tells_beside_the_time_is_told_with_the_own_line() {
    let page = VmclockPage::new(&Fields {
        flags: flag::VM_GEN_COUNTER_PRESENT | flag::DISRUPTION_SOON,
        vm_generation_counter: 5,
        leap_second_smearing_hint: 2,
        ..marker_only(1)
    });
    let counter = Fake::at(0);
    let mut clock = Clock::new(Some(&page), &counter);
    assert!(clock.set_own(Some(line(1000, 0, 1))));
    let reading = clock.reading().expect("a line");
    assert_eq!(reading.generation, Some(5));
    assert_eq!(reading.disruption, Disruption::Soon);
    assert_eq!(
        reading.smearing_hint,
        Some(gnomon_clock::SmearingHint::UtcSls)
    );
}

/// What an incoming migration and a restored snapshot look like with stock QEMU: `post_load` raises the
/// marker before the guest runs, and memory, the own line in it, is what it was.
#[test]
fn a_marker_that_moved_is_no_time_in_the_same_answer_and_for_good() {
    let page = VmclockPage::new(&marker_only(1));
    let counter = Fake::at(5 * MEGAHERTZ);
    let mut clock = Clock::new(Some(&page), &counter);
    let mut writer = Writer::new(&page, 0);
    assert!(clock.set_own(Some(line(1000, 0, 1))));
    assert_eq!(clock.reading().map(|now| told(&now)), Ok((1005, OWN)));
    let stamp = clock.stamp();
    writer.publish(&marker_only(2)).expect("whole fields");
    let stepped = no_time(Unusable::NoCounter, true);
    assert_eq!(clock.exchange(stamp), Err(stepped));
    assert_eq!(stepped.kiss(), Kiss::Step);
    assert!(clock.own().is_none());
    assert_eq!(clock.reading(), Err(stepped), "until there is another line");
    assert!(
        !clock.set_own(Some(line(1000, 0, 1))),
        "a line of the old marker is not taken"
    );
    writer.publish(&marker_only(1)).expect("whole fields");
    assert_eq!(clock.reading(), Err(stepped), "the marker comes back alone");
    writer.publish(&marker_only(2)).expect("whole fields");
    let stamp = clock.stamp();
    assert!(clock.set_own(Some(line(9000, 5 * MEGAHERTZ, 2))));
    let exchange = clock.exchange(stamp).expect("right again");
    assert_eq!(told(&exchange.transmit), (9000, OWN));
}

/// The marker moves between any two steps of an answer: at the stamp, before the answer, at the counter
/// read inside the snapshot. No time of the old line is told once the page has the new marker.
#[test]
fn wherever_the_disruption_falls_no_old_time_is_told() {
    for disrupted_at in 1..=5 {
        let page = VmclockPage::new(&marker_only(1));
        let reads = Cell::new(0);
        let disrupt = || {
            reads.set(reads.get() + 1);
            if reads.get() == disrupted_at {
                Writer::new(&page, 0)
                    .publish(&marker_only(2))
                    .expect("whole fields");
            }
        };
        let counter = Fake {
            ticks: Cell::new(5 * MEGAHERTZ),
            on_read: &disrupt,
        };
        let mut clock = Clock::new(Some(&page), &counter);
        assert!(clock.set_own(Some(line(1000, 0, 1))));
        for _ in 0..4 {
            let stamp = clock.stamp();
            let answer = clock.exchange(stamp);
            if page.marker() == 1 {
                assert!(answer.is_ok(), "{disrupted_at}");
            } else {
                assert_eq!(
                    answer,
                    Err(no_time(Unusable::NoCounter, true)),
                    "{disrupted_at}"
                );
            }
        }
        assert_eq!(page.marker(), 2, "{disrupted_at}");
    }
}

#[test]
fn a_stamp_from_before_the_disruption_is_stale_for_the_line_after_it() {
    let page = VmclockPage::new(&marker_only(1));
    let counter = Fake::at(5 * MEGAHERTZ);
    let mut clock = Clock::new(Some(&page), &counter);
    assert!(clock.set_own(Some(line(1000, 0, 1))));
    let stamp = clock.stamp();
    Writer::new(&page, 0)
        .publish(&marker_only(2))
        .expect("whole fields");
    assert!(clock.set_own(Some(line(9000, 5 * MEGAHERTZ, 2))));
    assert_eq!(clock.exchange(stamp), Err(NoTime::StaleStamp));
    counter.ticks.set(7 * MEGAHERTZ);
    let stamp = clock.stamp();
    counter.ticks.set(6 * MEGAHERTZ);
    let stale = clock.exchange(stamp);
    assert_eq!(stale, Err(NoTime::StaleStamp), "a counter that went back");
}

#[test]
fn a_counter_behind_the_line_ends_it_with_a_page_and_without() {
    let page = VmclockPage::new(&marker_only(0));
    for page in [None, Some(&page)] {
        let counter = Fake::at(5 * MEGAHERTZ);
        let mut clock = Clock::new(page, &counter);
        assert!(clock.set_own(Some(line(1000, 5 * MEGAHERTZ, 0))));
        assert!(clock.reading().is_ok());
        let stamp = clock.stamp();
        counter.ticks.set(5 * MEGAHERTZ - 1);
        let ended = no_time(Unusable::CounterBack, true);
        assert_eq!(clock.exchange(stamp), Err(ended));
        assert_eq!(
            ended.to_string(),
            "the counter went back (after a disruption)"
        );
        counter.ticks.set(6 * MEGAHERTZ);
        assert!(
            clock.reading().is_err() && clock.own().is_none(),
            "for good"
        );
        assert!(clock.set_own(Some(line(9000, 6 * MEGAHERTZ, 0))));
        assert_eq!(clock.reading().map(|now| told(&now)), Ok((9000, OWN)));
    }
}

#[test]
fn a_page_with_time_goes_first_and_the_own_line_waits_under_the_same_marker() {
    let page = VmclockPage::new(&marker_only(1));
    let counter = Fake::at(5 * MEGAHERTZ);
    let mut clock = Clock::new(Some(&page), &counter);
    let mut writer = Writer::new(&page, 0);
    assert!(clock.set_own(Some(line(1000, 0, 1))));
    let mut now = |clock: &mut Clock<'_, _>, fields: &Fields| {
        writer.publish(fields).expect("whole fields");
        clock.reading().map(|now| told(&now))
    };
    assert_eq!(now(&mut clock, &marker_only(1)), Ok((1005, OWN)));
    assert_eq!(
        now(&mut clock, &with_time(2037, 1)),
        Ok((2005, Origin::Page))
    );
    assert_eq!(clock.audit().updates(), 1, "only pages are audited");
    assert_eq!(now(&mut clock, &marker_only(1)), Ok((1005, OWN)));
    // The page has a time under another marker, and takes it back under the first.
    assert_eq!(
        now(&mut clock, &with_time(3037, 2)),
        Ok((3005, Origin::Page))
    );
    assert_eq!(
        now(&mut clock, &marker_only(1)),
        Err(no_time(Unusable::NoCounter, true)),
        "dropped while it was waiting"
    );
}

#[test]
fn a_page_left_over_from_before_a_disruption_lets_the_own_line_serve_and_stays_unbelieved() {
    let page = VmclockPage::new(&with_time(2037, 1));
    let counter = Fake::at(5 * MEGAHERTZ);
    let mut clock = Clock::new(Some(&page), &counter);
    let mut writer = Writer::new(&page, 0);
    let mut now = |clock: &mut Clock<'_, _>, fields: &Fields| {
        writer.publish(fields).expect("whole fields");
        clock.reading().map(|now| told(&now))
    };
    let left_over = Err(no_time(Unusable::NotUpdated, true));
    assert_eq!(
        now(&mut clock, &with_time(2037, 1)),
        Ok((2005, Origin::Page))
    );
    assert_eq!(now(&mut clock, &with_time(2037, 2)), left_over);
    assert!(clock.set_own(Some(line(9000, 5 * MEGAHERTZ, 2))));
    assert_eq!(now(&mut clock, &with_time(2037, 2)), Ok((9000, OWN)));
    // Neither the time it tells nor the marker from before makes it good.
    assert_eq!(now(&mut clock, &with_time(2037, 1)), left_over);
    assert_eq!(now(&mut clock, &with_time(2037, 2)), left_over);
    assert!(clock.set_own(Some(line(9000, 5 * MEGAHERTZ, 2))));
    counter.ticks.set(200 * MEGAHERTZ);
    assert_eq!(
        now(&mut clock, &with_time(2037, 2)),
        Err(no_time(Unusable::Expired, true))
    );
    clock.set_own(None);
    assert_eq!(now(&mut clock, &with_time(2037, 2)), left_over);
    // One that was written since is.
    assert_eq!(
        now(&mut clock, &with_time(9037, 2)),
        Ok((9200, Origin::Page))
    );
}

#[test]
fn a_host_that_disowns_its_clock_disowns_every_way_of_reading_it() {
    use ClockStatus::{Initializing, Synchronized, Unknown, Unreliable};
    let own = |source| Ok(Origin::Own(source));
    for source in Source::ALL {
        for (counter_id, status) in [
            (CounterId::ArmVcnt as u8, Unknown),
            (COUNTER_INVALID, Unknown),
            (COUNTER_INVALID, Synchronized),
            (COUNTER_INVALID, Initializing),
            (COUNTER_INVALID, Unreliable),
            (CounterId::ArmVcnt as u8, Initializing),
            (CounterId::ArmVcnt as u8, Unreliable),
        ] {
            let page = VmclockPage::new(&Fields {
                counter_id,
                clock_status: status as u8,
                ..with_time(2037, 1)
            });
            let counter = Fake::at(0);
            let mut clock = Clock::new(Some(&page), &counter);
            assert!(clock.set_own(Some(line_of(source, 1000, 0, 1))));
            let now = clock.reading().map(|now| now.origin);
            let disowned = matches!(status, Initializing | Unreliable);
            if disowned && source != Source::Ntp {
                assert!(now.is_err(), "{source} {status}");
            } else {
                assert_eq!(now, own(source), "{source} {status}");
            }
        }
    }
}

#[test]
fn whatever_else_ails_the_page_its_marker_guards_if_it_has_one() {
    let cases = [
        (
            Fields {
                counter_id: 1,
                ..with_time(2037, 1)
            },
            true,
        ),
        (
            Fields {
                time_type: 3,
                ..with_time(2037, 1)
            },
            true,
        ),
        (
            Fields {
                counter_period_shift: 200,
                ..with_time(2037, 1)
            },
            true,
        ),
        (
            Fields {
                size: 0x18,
                ..with_time(2037, 1)
            },
            true,
        ),
        (
            Fields {
                size: 0x17,
                ..with_time(2037, 1)
            },
            false,
        ),
        (
            Fields {
                magic: 0,
                ..with_time(2037, 1)
            },
            false,
        ),
        (
            Fields {
                version: 2,
                ..with_time(2037, 1)
            },
            false,
        ),
    ];
    for (fields, serves) in cases {
        let page = VmclockPage::new(&fields);
        let counter = Fake::at(0);
        let mut clock = Clock::new(Some(&page), &counter);
        assert!(clock.set_own(Some(line(1000, 0, 1))));
        assert_eq!(clock.reading().is_ok(), serves, "{fields:?}");
    }
}

#[test]
fn a_page_that_is_being_written_gives_no_own_time_either() {
    let page = VmclockPage::new(&marker_only(1));
    let counter = Fake::at(0);
    let mut clock = Clock::new(Some(&page), &counter);
    assert!(clock.set_own(Some(line(1000, 0, 1))));
    (&page).write(0x0c, &[1, 0, 0, 0]).expect("a whole field");
    assert_eq!(clock.reading(), Err(NoTime::Busy(Busy { odd: true })));
    (&page).write(0x0c, &[2, 0, 0, 0]).expect("a whole field");
    assert!(clock.reading().is_ok());
}

#[test]
fn a_page_that_is_not_wanted_guards_all_the_same() {
    let page = VmclockPage::new(&with_time(2037, 1));
    let counter = Fake::at(0);
    let mut clock = Clock::new(Some(&page), &counter).without_page_time();
    assert_eq!(clock.reading(), Err(no_time(Unusable::Unwanted, false)));
    assert!(clock.set_own(Some(line(1000, 0, 1))));
    assert_eq!(clock.reading().map(|now| told(&now)), Ok((1000, OWN)));
    Writer::new(&page, 0)
        .publish(&with_time(9037, 2))
        .expect("whole fields");
    assert_eq!(clock.reading(), Err(no_time(Unusable::Unwanted, true)));
    assert!(clock.own().is_none());
}

#[test]
fn an_own_line_expires() {
    let page = VmclockPage::new(&marker_only(1));
    let counter = Fake::at(99 * MEGAHERTZ);
    let mut clock = Clock::new(Some(&page), &counter);
    assert!(clock.set_own(Some(line(1000, 0, 1))));
    assert!(clock.reading().is_ok());
    counter.ticks.set(101 * MEGAHERTZ);
    assert_eq!(clock.reading(), Err(no_time(Unusable::Expired, false)));
    assert_eq!(
        clock.exchange(clock.stamp()),
        Err(no_time(Unusable::Expired, false))
    );
    assert_eq!(
        no_time(Unusable::Expired, false).to_string(),
        "the source has not been read for too long"
    );
    counter.ticks.set(99 * MEGAHERTZ);
    assert!(
        clock.reading().is_ok(),
        "what is too old is not kept for its age, and not forgotten for it"
    );
}

#[test]
fn without_a_page_the_own_line_serves_unguarded() {
    let counter = Fake::at(5 * MEGAHERTZ);
    let mut clock = Clock::new(None, &counter);
    assert!(!clock.has_marker());
    assert!(!clock.set_own(Some(line(1000, 0, 1))), "of some page");
    assert_eq!(clock.reading(), Err(NoTime::NoPage));
    assert!(clock.set_own(Some(line(1000, 0, 0))));
    let stamp = clock.stamp();
    assert_eq!(
        stamp,
        Stamp {
            ticks: Ticks(5 * MEGAHERTZ),
            marker: 0
        }
    );
    counter.ticks.set(6 * MEGAHERTZ);
    let exchange = clock.exchange(stamp).expect("a line");
    assert_eq!(told(&exchange.received), (1005, OWN));
    assert_eq!(told(&exchange.transmit), (1006, OWN));
    counter.ticks.set(101 * MEGAHERTZ);
    assert_eq!(clock.reading(), Err(no_time(Unusable::Expired, false)));
}

#[test]
fn a_pages_line_is_not_taken_for_an_own_one() {
    let fields = with_time(2037, 1);
    let page = VmclockPage::new(&marker_only(1));
    let counter = Fake::at(0);
    let mut clock = Clock::new(Some(&page), &counter);
    let of_page = Timeline::from_page(&fields, CounterId::ArmVcnt).expect("a good page");
    assert_eq!(of_page.origin(), Origin::Page);
    assert!(!clock.set_own(Some(of_page)));
    assert!(clock.own().is_none());
}

/// The whole of it: stamps, bracket, estimator, line, migration, and right again by one sample.
#[test]
fn one_sample_after_a_disruption_is_enough() {
    let page = VmclockPage::new(&marker_only(1));
    let counter = Fake::at(5 * MEGAHERTZ);
    let mut clock = Clock::new(Some(&page), &counter);
    let mut estimator = Estimator::new(Source::VirtioRtc, Wander::STEERED, Limits::DEFAULT);
    let read = |clock: &Clock<'_, &Fake<'_>>, utc: i64| {
        let before = clock.stamp();
        counter.ticks.set(counter.ticks.get() + 100);
        let after = clock.stamp();
        let bracket = Bracket::new(before, after).expect("no disruption");
        CrossTimestamp {
            bracket,
            ..sample(utc, 0, 0)
        }
    };
    estimator.set_prior(Prior::from_hertz(MEGAHERTZ, 1_000_000), page.marker());
    estimator.add(&read(&clock, 1000)).expect("a sample");
    assert!(clock.set_own(estimator.timeline().ok()));
    assert_eq!(
        clock.reading().map(|now| told(&now)).map(|told| told.0),
        Ok(1000)
    );
    // An hour on a disk, and another host's counter.
    Writer::new(&page, 0)
        .publish(&marker_only(2))
        .expect("whole fields");
    counter.ticks.set(77);
    assert_eq!(clock.reading(), Err(no_time(Unusable::NoCounter, true)));
    let sample = read(&clock, 4600);
    estimator.add(&sample).expect("a sample of another life");
    assert!(
        estimator.timeline().is_err(),
        "the old frequency is not believed"
    );
    estimator.set_prior(Prior::from_hertz(2 * MEGAHERTZ, 1_000_000), page.marker());
    assert!(clock.set_own(estimator.timeline().ok()));
    counter.ticks.set(counter.ticks.get() + 2 * MEGAHERTZ);
    assert_eq!(clock.reading().map(|now| told(&now)), Ok((4601, OWN)));
    assert_eq!(clock.reading().map(|now| now.marker), Ok(2));
}

#[test]
fn a_bracket_has_one_marker_and_a_counter_that_goes_on() {
    let stamp = |ticks, marker| Stamp {
        ticks: Ticks(ticks),
        marker,
    };
    assert_eq!(Bracket::new(stamp(5, 1), stamp(9, 2)), None);
    assert_eq!(Bracket::new(stamp(5, 1), stamp(4, 1)), None);
    let bracket = Bracket::new(stamp(u64::MAX, 1), stamp(9, 1)).expect("a bracket");
    assert_eq!(bracket.narrowed(Ticks(u64::MAX - 1)), None);
    assert_eq!(bracket.narrowed(Ticks(10)), None);
    let narrowed = bracket.narrowed(Ticks(3)).expect("inside");
    assert_eq!(
        narrowed,
        Bracket {
            before: Ticks(3),
            after: Ticks(3),
            marker: 1
        }
    );
}
