//! NMEA sentences and the beat they are sent by.

use core::time::Duration;

use gnomon_clock::calendar::{DAY, Date};
use gnomon_clock::{Announcement, Timestamp, UtcTime};
use gnomon_kernel::serial::LATE;
use gnomon_kernel::serial::beat::{Beat, LEAD, Step};
use gnomon_kernel::serial::nmea::{Sentences, checksum};
use proptest::prelude::*;

/// When the clock is looked at for a second that begins then.
fn before(top: Duration) -> Duration {
    top.saturating_sub(LEAD)
}

fn utc(seconds: i64, nanos: u32, leap_second: bool) -> UtcTime {
    let fraction = (u128::from(nanos) << 64).div_ceil(1_000_000_000);
    UtcTime {
        time: Timestamp::from_parts(seconds, u64::try_from(fraction).expect("below a second")),
        leap_second,
        announcement: Announcement::None,
    }
}

fn at(year: i64, month: u8, day: u8, second_of_day: i64) -> i64 {
    Date { year, month, day }.days().expect("a date") * DAY + second_of_day
}

fn sentences(utc: &UtcTime) -> String {
    let sentences = Sentences::of(utc).expect("four digits");
    String::from_utf8(sentences.bytes().to_vec()).expect("text")
}

/// The checksums are from another program.
#[test]
fn sentences_of_known_seconds() {
    for (seconds, leap_second, expected) in [
        (
            at(2026, 11, 20, 43531),
            false,
            "$GPRMC,120531.00,A,,,,,,,201126,,,A*67\r\n$GPZDA,120531.00,20,11,2026,00,00*66\r\n",
        ),
        (
            at(2016, 12, 31, DAY - 1),
            false,
            "$GPRMC,235959.00,A,,,,,,,311216,,,A*62\r\n$GPZDA,235959.00,31,12,2016,00,00*63\r\n",
        ),
        (
            at(2016, 12, 31, DAY - 1),
            true,
            "$GPRMC,235960.00,A,,,,,,,311216,,,A*68\r\n$GPZDA,235960.00,31,12,2016,00,00*69\r\n",
        ),
        (
            at(2017, 1, 1, 0),
            false,
            "$GPRMC,000000.00,A,,,,,,,010117,,,A*63\r\n$GPZDA,000000.00,01,01,2017,00,00*62\r\n",
        ),
        (
            at(2000, 2, 29, 1),
            false,
            "$GPRMC,000001.00,A,,,,,,,290200,,,A*6D\r\n$GPZDA,000001.00,29,02,2000,00,00*6C\r\n",
        ),
        (
            at(9999, 12, 31, DAY - 1),
            false,
            "$GPRMC,235959.00,A,,,,,,,311299,,,A*65\r\n$GPZDA,235959.00,31,12,9999,00,00*66\r\n",
        ),
    ] {
        assert_eq!(sentences(&utc(seconds, 999_999_999, leap_second)), expected);
    }
    // As u-blox's protocol specification has it.
    assert_eq!(
        Sentences::without_time().bytes(),
        b"$GPRMC,,V,,,,,,,,,,N*53\r\n"
    );
    assert_eq!(checksum(b"GPZDA,,,,,,"), 0x48);
    for year in [-1, 10_000] {
        assert!(Sentences::of(&utc(at(year, 1, 1, 0), 0, false)).is_none());
    }
}

#[test]
fn a_second_is_told_once_at_its_top_or_not_at_all() {
    let mut beat = Beat::new();
    let ms = Duration::from_millis;
    assert!(beat.is_due(None) && beat.is_due(Some(ms(0))));
    for (uptime, second, nanos, leap, expected, due) in [
        // In the middle of a second: nothing until just before the next.
        (ms(100), 7, 400_000_000, false, Step::Rest, before(ms(700))),
        (
            before(ms(700)),
            7,
            999_000_000,
            false,
            Step::Near,
            before(ms(700)),
        ),
        (
            ms(700),
            8,
            100,
            false,
            Step::Tell,
            before(ms(1700)).saturating_sub(Duration::from_nanos(100)),
        ),
        // The same second is not told again, a leap second with the same code is.
        (ms(701), 8, 1_000_000, false, Step::Rest, before(ms(1700))),
        (ms(1700), 8, 0, true, Step::Tell, before(ms(2700))),
        // Woken too late.
        (
            ms(2711),
            9,
            10_000_001,
            false,
            Step::Rest,
            before(ms(3701)).saturating_sub(Duration::from_nanos(1)),
        ),
        (
            ms(3700),
            10,
            10_000_000,
            false,
            Step::Tell,
            before(ms(4690)),
        ),
    ] {
        assert_eq!(
            beat.look(Some(uptime), Some(&utc(second, nanos, leap))),
            expected
        );
        assert_eq!(beat.due(), Some(due), "{second}");
        assert!(beat.is_due(Some(due)) && !beat.is_due(Some(due.saturating_sub(ms(1)))));
    }
}

#[test]
fn nothing_is_told_once_a_second() {
    let mut beat = Beat::new();
    let mut uptime = Duration::from_secs(5);
    let mut told = 0;
    for _ in 0..31 {
        match beat.look(Some(uptime), None) {
            Step::TellNothing => told += 1,
            step => assert_eq!(step, Step::Rest),
        }
        uptime = beat.due().expect("soon");
    }
    assert_eq!(told, 4, "in 3 s");
    // Time is back: the first second that begins is told.
    assert_eq!(beat.look(Some(uptime), Some(&utc(5, 0, false))), Step::Tell);
    assert_eq!(beat.look(None, None), Step::Rest, "without an uptime");
}

proptest! {
    /// Any second of the years 0 to 9999: the fields read back, lengths and checksums as the standard wants.
    #[test]
    fn what_is_sent_can_be_read(
        seconds in at(0, 1, 1, 0)..at(10_000, 1, 1, 0), nanos in 0_u32..1_000_000_000, leap in any::<bool>(),
    ) {
        let leap_second = leap && seconds.rem_euclid(60) == 59;
        let text = sentences(&utc(seconds, nanos, leap_second));
        let lines: Vec<&str> = text.split_inclusive("\r\n").collect();
        prop_assert_eq!(lines.len(), 2);
        let mut fields = Vec::new();
        for line in lines {
            prop_assert!(line.len() <= 82);
            let (body, sum) = line.strip_prefix('$').and_then(|line| line.split_once('*')).expect("a checksum");
            prop_assert_eq!(format!("{:02X}\r\n", checksum(body.as_bytes())), sum);
            fields.push(body.split(',').collect::<Vec<_>>());
        }
        let [rmc, zda] = &fields[..] else { panic!("{fields:?}") };
        prop_assert_eq!((rmc[0], rmc.len(), zda[0], zda.len()), ("GPRMC", 13, "GPZDA", 7));
        prop_assert_eq!(rmc[1], zda[1]);
        let number = |text: &str| text.parse::<i64>().expect("digits");
        let second = number(&rmc[1][4..6]);
        prop_assert_eq!(second == 60, leap_second);
        let of_day = number(&rmc[1][..2]) * 3600 + number(&rmc[1][2..4]) * 60 + second - i64::from(leap_second);
        let [day, month] = [2, 3].map(|field: usize| u8::try_from(number(zda[field])).expect("small"));
        prop_assert_eq!(at(number(zda[4]), month, day, of_day), seconds);
        prop_assert_eq!(rmc[9], format!("{}{}{}", zda[2], zda[3], &zda[4][2..]));
        prop_assert_eq!((rmc[2], rmc[12]), ("A", "A"));
    }

    /// Whatever the clock does, no second is told later than it may be, and none twice in a row.
    #[test]
    fn the_beat_is_never_late(steps in prop::collection::vec((0_u64..3_000_000_000, 0_i64..4, any::<bool>()), 1..200)) {
        let mut beat = Beat::new();
        let (mut now, mut last) = (0_u64, None);
        for (wait, jump, known) in steps {
            now += wait;
            let seconds = i64::try_from(now / 1_000_000_000).expect("small") + jump;
            let nanos = u32::try_from(now % 1_000_000_000).expect("small");
            let time = utc(seconds, nanos, false);
            let uptime = Duration::from_nanos(now);
            match beat.look(Some(uptime), known.then_some(&time)) {
                Step::Tell => {
                    prop_assert!(known && Duration::from_nanos(nanos.into()) <= LATE);
                    prop_assert_ne!(last.replace(seconds), Some(seconds));
                }
                Step::TellNothing => {
                    prop_assert!(!known);
                    last = None;
                }
                Step::Near => prop_assert!(known && Duration::from_nanos(nanos.into()) >= before(Duration::from_secs(1))),
                Step::Rest => if !known { last = None },
            }
            let due = beat.due().expect("an uptime");
            prop_assert!(due >= uptime && due <= uptime + Duration::from_secs(1));
        }
    }
}
