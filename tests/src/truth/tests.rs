//! The judge itself: it accepts what is right and says of what is not which way it is wrong.

use core::time::Duration;

use gnomon_qemu::publish::Piece;

use super::*;

const MS: i128 = 1_000_000;
const START: i128 = 1_800_000_000 * NANOS;

fn at(nanos: i128) -> SystemTime {
    let nanos = u64::try_from(START + nanos).expect("positive");
    SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)
}

/// An epoch that is so far ahead of the host, in ns.
fn epoch(marker: u64, ahead: i128, begun: i128) -> Epoch {
    Epoch {
        marker,
        valid: true,
        begun: at(begun),
        done: at(begun + MS / 10),
        truth: vec![Piece {
            host: tai(START),
            scenario: tai(START + ahead),
            rate_ppb: 0,
        }],
    }
}

const HOUR: i128 = 3600 * NANOS;

fn journal() -> [Epoch; 3] {
    [
        epoch(1, 0, 0),
        epoch(2, 5 * HOUR, 10 * MS),
        epoch(3, 3 * HOUR, 20 * MS),
    ]
}

fn ntp_of(unix: i128) -> u64 {
    let nanos = unix + EPOCH * NANOS;
    u64::try_from(((nanos << 32) / NANOS) & i128::from(u64::MAX)).expect("masked")
}

fn record(sent: i128, arrived: i128, ahead: i128, receive: i128, transmit: i128) -> Record {
    Record {
        sent: START + sent,
        arrived: START + arrived,
        claim: Claim::Ntp(Ntp {
            leap: 0,
            receive: ntp_of(START + ahead + receive),
            transmit: ntp_of(START + ahead + transmit),
            bound: 15_000,
            departed: None,
            monotonic: None,
        }),
    }
}

fn with(mut record: Record, change: impl Fn(&mut Ntp)) -> Record {
    if let Claim::Ntp(ntp) = &mut record.claim {
        change(ntp);
    }
    record
}

/// Wrong, stale.
fn judge_by(record: Record, journals: Journals<'_>) -> (u64, u64) {
    let judged = Judged::all(&[record], journals);
    assert_eq!((judged.timed, judged.without), (1, 0));
    (judged.wrong, judged.stale)
}

fn judge(record: Record) -> (u64, u64) {
    judge_by(record, &[(&journal(), None)])
}

#[test]
fn the_rule_tells_right_stale_and_wrong_apart() {
    let five = 5 * HOUR;
    assert_eq!(judge(record(MS, 3 * MS, 0, 2 * MS, 2 * MS)), (0, 0));
    assert_eq!(
        judge(record(12 * MS, 14 * MS, five, 13 * MS, 13 * MS)),
        (0, 0)
    );
    // Sent before the disruption and received after it: by either line, at its own moment.
    assert_eq!(judge(record(8 * MS, 12 * MS, 0, 9 * MS, 9 * MS)), (0, 0));
    assert_eq!(
        judge(record(8 * MS, 12 * MS, five, 11 * MS, 11 * MS)),
        (0, 0)
    );
    assert_eq!(judge(record(8 * MS, 12 * MS, 0, 9 * MS, 11 * MS)), (1, 0));
    assert_eq!(
        judge(record(8 * MS, 12 * MS, five, 9 * MS, 11 * MS)),
        (1, 0)
    );
    // Sent after it had returned.
    assert_eq!(judge(record(12 * MS, 14 * MS, 0, 13 * MS, 13 * MS)), (0, 1));
    assert_eq!(judge(record(22 * MS, 24 * MS, 0, 23 * MS, 23 * MS)), (0, 1));
    assert_eq!(
        judge(record(22 * MS, 24 * MS, five, 23 * MS, 23 * MS)),
        (0, 1)
    );
    // Outside the bound, either way, and a mixture.
    assert_eq!(judge(record(MS, 3 * MS, 0, MS - 20_000, 2 * MS)), (1, 0));
    assert_eq!(
        judge(record(MS, 3 * MS, 0, 2 * MS, 3 * MS + 20_000)),
        (1, 0)
    );
    assert_eq!(judge(record(MS, 3 * MS, 0, 2 * MS, MS)), (1, 0));
    assert_eq!(judge(record(MS, 3 * MS, HOUR, 2 * MS, 2 * MS)), (1, 0));
    // A leap second that there is not.
    let leap = with(record(MS, 3 * MS, 0, 2 * MS, 2 * MS), |ntp| ntp.leap = 1);
    assert_eq!(judge(leap), (1, 0));
}

#[test]
fn an_interleaved_stamp_is_held_to_the_reply_that_it_is_of() {
    let later = |transmit: i128| {
        with(record(6 * MS, 8 * MS, 0, 7 * MS, transmit), |ntp| {
            ntp.departed = Some((START + 2 * MS, START + 4 * MS));
        })
    };
    assert_eq!(judge(later(3 * MS)), (0, 0));
    assert_eq!(judge(later(7 * MS)), (1, 0), "of this reply");
    assert_eq!(judge(later(MS)), (1, 0), "before it was asked for");
    // The receive stamp is of the new epoch, the transmit stamp of the old.
    let mixture = with(record(12 * MS, 14 * MS, 5 * HOUR, 13 * MS, 9 * MS), |ntp| {
        ntp.transmit = ntp_of(START + 9 * MS);
        ntp.departed = Some((START + 8 * MS, START + 10 * MS));
    });
    assert_eq!(judge(mixture), (1, 0));
}

#[test]
fn the_monotonic_stamp_is_the_receive_stamp_on_tai() {
    let of = |ahead: i128| {
        with(record(MS, 3 * MS, 0, 2 * MS, 2 * MS), |ntp| {
            ntp.monotonic = Some(
                ntp.receive
                    .wrapping_add(u64::try_from(ahead << 32).expect("small")),
            );
        })
    };
    assert_eq!(judge(of(37)), (0, 0));
    assert_eq!(judge(of(36)), (1, 0));
    assert_eq!(judge(of(0)), (1, 0));
}

#[test]
fn tai_is_judged_by_its_bound() {
    let of = |time: i128, bound: i128| Record {
        sent: START + MS,
        arrived: START + 3 * MS,
        claim: Claim::Tai {
            time: START + TAI_AHEAD + time,
            bound,
        },
    };
    assert_eq!(judge(of(2 * MS, 0)), (0, 0));
    assert_eq!(judge(of(4 * MS, MS)), (0, 0));
    assert_eq!(judge(of(4 * MS, MS - 1)), (1, 0));
    assert_eq!(judge(of(-MS, 2 * MS - 1)), (1, 0));
}

#[test]
fn a_machine_that_has_ended_tells_nothing_more() {
    let (one, two) = (journal(), [epoch(4, 0, 40 * MS)]);
    let old = record(32 * MS, 34 * MS, 3 * HOUR, 33 * MS, 33 * MS);
    let journals: Journals<'_> = &[(&one, Some(START + 30 * MS)), (&two, None)];
    assert_eq!(judge_by(old, journals), (0, 1));
    let journals: Journals<'_> = &[(&one, Some(START + 35 * MS)), (&two, None)];
    assert_eq!(judge_by(old, journals), (0, 0));
    // By the journal of either.
    let new = record(41 * MS, 43 * MS, 0, 42 * MS, 42 * MS);
    assert_eq!(judge_by(new, journals), (0, 0));
}

/// At the end of 2016 the same second of NTP is there twice, first with an announcement of it.
#[test]
fn a_leap_second_is_announced_to_the_last_moment() {
    let [insert, delete] = LEAPS;
    for (leap, before, after) in [(insert, 1, 0), (delete, 2, 0)] {
        // The edge is 10 ms after START.
        let ahead = leap.edge() - TAI_AHEAD - START - 10 * MS;
        let journal = [epoch(1, ahead, 0)];
        let of = |past: i128, indicator: u8| {
            let (sent, offset) = (10 * MS + past, leap.offset(leap.edge() + past));
            let utc = leap.edge() + past - offset * NANOS;
            with(record(sent - MS, sent + MS, 0, 0, 0), |ntp| {
                (ntp.receive, ntp.transmit) = (ntp_of(utc), ntp_of(utc));
                ntp.leap = indicator;
            })
        };
        let judge = |record| judge_by(record, &[(&journal, None)]);
        assert_eq!(judge(of(-3 * MS, before)), (0, 0));
        assert_eq!(judge(of(-3 * MS, after)), (1, 0));
        assert_eq!(judge(of(3 * MS, after)), (0, 0));
        assert_eq!(judge(of(3 * MS, before)), (1, 0));
        assert_eq!(leap.phase(&of(-3 * MS, before), &journal), Some(0));
        assert_eq!(leap.phase(&of(3 * MS, after), &journal), Some(1));
        // UTC by the offset from before the edge.
        let late = with(of(3 * MS, after), |ntp| {
            let wrong = i64::try_from(leap.change << 32).expect("small");
            ntp.receive = ntp.receive.wrapping_add_signed(wrong);
            ntp.transmit = ntp.transmit.wrapping_add_signed(wrong);
        });
        assert_eq!(judge(late), (1, 0));
    }
}
