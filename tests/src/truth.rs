//! The judge of all answers: does each tell the truth, by the journal of a publisher that plays a scenario?
//!
//! # The rule
//!
//! A scenario's journal says under which disruption marker which line of time is true, and between
//! which two moments the page carried that marker: from before the first byte of the update that
//! brought it until after the last byte of the update that took it away. All moments are readings of
//! this host's clock, and so are the client's two: before it has sent the request, and after it has
//! received the reply.
//!
//! A reply carries time by some epoch. Its transmit stamp was taken after the request was sent and
//! before the reply was received, and while the page was valid under that marker. So it has to lie,
//! to within its root dispersion, where that epoch's truth puts the part of
//! \[sent, received\] during which the page could be seen under that marker; and its receive stamp
//! between the beginning of that and the transmit stamp, by the same line. In
//! particular: **a reply to a request that was sent after the disrupting update had returned must
//! not carry the time from before it**, and one that was sent earlier may carry the old time only if
//! that says it is from before the update had returned. A scenario that moves time by hours, and never to
//! where it has been, leaves no reply a way to meet the rule by another epoch's line.
//!
//! In interleaved mode the transmit stamp is that of an earlier reply, and is held to that one's two readings.
//! Around a leap second a stamp counts by the TAI that it means, and has to announce the leap second to the
//! last moment before it, and not after.

use std::time::SystemTime;

use gnomon_clock::{Span, Tai, Timestamp};
use gnomon_qemu::publish::Epoch;

use crate::ntp::Reply;

/// TAI − UTC of this host and of every scenario without leap seconds.
pub const OFFSET: i64 = 37;
/// From 1900, where NTP counts from, to 1970.
pub const EPOCH: i128 = 2_208_988_800;
/// Nanoseconds in a second.
pub const NANOS: i128 = 1_000_000_000;
/// Seconds in a day.
const DAY: i128 = 86_400;
const TAI_AHEAD: i128 = OFFSET as i128 * NANOS;

/// Journals by which answers are judged, with when their machine ended, in ns since 1970, if it has.
pub type Journals<'j> = &'j [(&'j [Epoch], Option<i128>)];

/// An answer with the client's readings around it, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// Before the request was sent.
    pub sent: i128,
    /// After the answer had arrived.
    pub arrived: i128,
    /// What it says.
    pub claim: Claim,
}

/// What an answer says.
#[derive(Clone, Copy, Debug)]
pub enum Claim {
    /// No time.
    Nothing,
    /// The time of a plain reply.
    Ntp(Ntp),
    /// TAI, in ns since 1970 on that scale, and its bound in ns: HTTP and the console.
    Tai {
        /// The time.
        time: i128,
        /// True time is within so many ns.
        bound: i128,
    },
}

/// The time of an NTP reply.
#[derive(Clone, Copy, Debug)]
pub struct Ntp {
    /// Leap indicator.
    pub leap: u8,
    /// T2, 2⁻³² s.
    pub receive: u64,
    /// T3, 2⁻³² s.
    pub transmit: u64,
    /// The root dispersion in ns, by the field F323 where that is there.
    pub bound: i128,
    /// In interleaved mode: between which two moments the reply left that the transmit stamp is of.
    pub departed: Option<(i128, i128)>,
    /// The receive stamp on the monotonic scale of the field F323, if it is there and known.
    pub monotonic: Option<u64>,
}

impl Record {
    /// A plain reply.
    #[must_use]
    pub fn plain(sent: i128, arrived: i128, reply: &Reply) -> Self {
        let claim = if reply.leap == 3 {
            reply.assert_no_time(&["INIT", "STEP"]);
            Claim::Nothing
        } else {
            Claim::Ntp(Ntp {
                leap: reply.leap,
                receive: reply.receive,
                transmit: reply.transmit,
                bound: i128::from(reply.bound_nanos()),
                departed: None,
                monotonic: None,
            })
        };
        Self {
            sent,
            arrived,
            claim,
        }
    }

    /// Its bound in ns, if it has a time.
    #[must_use]
    pub fn bound(&self) -> Option<u64> {
        let bound = match self.claim {
            Claim::Nothing => return None,
            Claim::Ntp(Ntp { bound, .. }) | Claim::Tai { bound, .. } => bound,
        };
        u64::try_from(bound).ok()
    }

    /// What is to be said of it.
    #[must_use]
    pub fn judge(&self, journals: Journals<'_>) -> Verdict {
        if let Claim::Nothing = self.claim {
            return Verdict::NoTime;
        }
        let right = journals
            .iter()
            .flat_map(|journal| present(self, *journal))
            .filter_map(|epoch| epoch.slack(self))
            .max();
        if let Some(slack) = right {
            return Verdict::Right { slack };
        }
        // Which of the two it is, is for those who have to look for it.
        let is_past = |epoch: Visible<'_>| {
            let whenever = Visible {
                begun: self.sent,
                done: self.arrived,
                marked: self.sent,
                ..epoch
            };
            epoch.done <= self.sent && whenever.slack(self).is_some()
        };
        let mut all = journals.iter().flat_map(|journal| all(*journal));
        if all.any(is_past) {
            Verdict::Stale
        } else {
            Verdict::Wrong
        }
    }
}

/// What is to be said of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has no time.
    NoTime,
    /// It is true.
    Right {
        /// How far inside its bound, in ns: the truth could have been so much further away.
        slack: i128,
    },
    /// It tells the time of an epoch that was over when the request was sent.
    Stale,
    /// It is not true.
    Wrong,
}

/// What became of all answers.
#[derive(Debug)]
pub struct Judged {
    /// Those with time.
    pub timed: u64,
    /// Those without.
    pub without: u64,
    /// Those that are not true.
    pub wrong: u64,
    /// Those that were true once.
    pub stale: u64,
    /// In ns: how much nearer the truth could have been to the edge of a bound.
    pub slack: i128,
    /// The first few that are not true, with the epochs that could be seen.
    pub examples: Vec<(Record, Vec<Epoch>)>,
}

impl Default for Judged {
    fn default() -> Self {
        Self {
            timed: 0,
            without: 0,
            wrong: 0,
            stale: 0,
            slack: i128::MAX,
            examples: Vec::new(),
        }
    }
}

impl Judged {
    /// Judges them all.
    pub fn all<'r>(records: impl IntoIterator<Item = &'r Record>, journals: Journals<'_>) -> Self {
        let mut judged = Self::default();
        for record in records {
            judged.take(record, journals);
        }
        judged
    }

    /// Judges one more.
    pub fn take(&mut self, record: &Record, journals: Journals<'_>) {
        let verdict = record.judge(journals);
        match verdict {
            Verdict::NoTime => self.without += 1,
            Verdict::Right { slack } => self.slack = self.slack.min(slack),
            Verdict::Stale => self.stale += 1,
            Verdict::Wrong => self.wrong += 1,
        }
        self.timed += u64::from(verdict != Verdict::NoTime);
        if matches!(verdict, Verdict::Stale | Verdict::Wrong) && self.examples.len() < 3 {
            let seen = journals
                .iter()
                .flat_map(|journal| present(record, *journal));
            let seen = seen.map(|epoch| epoch.epoch.clone()).collect();
            self.examples.push((*record, seen));
        }
    }
}

/// An epoch, and when the page could be seen under its marker.
#[derive(Clone, Copy, Debug)]
struct Visible<'j> {
    epoch: &'j Epoch,
    begun: i128,
    done: i128,
    /// The marker came with an earlier update, that had no time.
    marked: i128,
}

/// The epochs of a journal that could be seen between sending and arrival.
fn present<'j>(
    record: &Record,
    (journal, ended): (&'j [Epoch], Option<i128>),
) -> impl Iterator<Item = Visible<'j>> {
    let Record { sent, arrived, .. } = *record;
    let first = journal.partition_point(|epoch| nanos(epoch.done) <= sent);
    // The one before `first` may still have been seen.
    (first.saturating_sub(1)..journal.len())
        .map(move |index| visible(journal, ended, index))
        .take_while(move |epoch| epoch.begun <= arrived)
        .filter(move |epoch| epoch.epoch.valid && epoch.done >= sent)
}

fn all((journal, ended): (&[Epoch], Option<i128>)) -> impl Iterator<Item = Visible<'_>> {
    (0..journal.len())
        .map(move |index| visible(journal, ended, index))
        .filter(|epoch| epoch.epoch.valid)
}

fn visible(journal: &[Epoch], ended: Option<i128>, index: usize) -> Visible<'_> {
    let epoch = &journal[index];
    let same = journal[..index]
        .iter()
        .rev()
        .take_while(|before| before.marker == epoch.marker);
    let marked = same.last().unwrap_or(epoch).begun;
    let next = journal.get(index + 1).map(|next| nanos(next.done));
    Visible {
        epoch,
        begun: nanos(epoch.begun),
        done: next.or(ended).unwrap_or(i128::MAX),
        marked: nanos(marked),
    }
}

impl Visible<'_> {
    /// How far inside its bound all that an answer tells is by this epoch, in ns; `None` if it is not.
    fn slack(&self, record: &Record) -> Option<i128> {
        let earliest = truth(self.epoch, record.sent.max(self.begun));
        let latest = truth(self.epoch, record.arrived.min(self.done));
        match record.claim {
            Claim::Nothing => None,
            Claim::Tai { time, bound } => {
                let time = time - TAI_AHEAD;
                let slack = (time + bound - earliest).min(latest - (time - bound));
                (slack >= 0).then_some(slack)
            }
            Claim::Ntp(ntp) => {
                // A request may have been stamped under this marker before there was time.
                let arrival = truth(self.epoch, record.sent.max(self.marked));
                let departure = match ntp.departed {
                    None => (earliest, latest),
                    Some((sent, arrived)) => (
                        truth(self.epoch, sent.max(self.begun)),
                        truth(self.epoch, arrived.min(self.done)),
                    ),
                };
                let leap = LEAPS.iter().find(|leap| leap.is_near(latest + TAI_AHEAD));
                let meanings = |stamp| meanings(leap, stamp).into_iter().flatten();
                meanings(ntp.receive)
                    .flat_map(|receive| {
                        meanings(ntp.transmit).map(move |transmit| (receive, transmit))
                    })
                    .filter(|&(receive, transmit)| is_in_order(&ntp, leap, receive, transmit))
                    .map(|(receive, transmit)| {
                        (transmit + ntp.bound - departure.0)
                            .min(departure.1 - (transmit - ntp.bound))
                            .min(receive + ntp.bound - arrival)
                            .min(latest - (receive - ntp.bound))
                    })
                    .filter(|slack| *slack >= 0)
                    .max()
            }
        }
    }
}

/// What an NTP stamp means: TAI − 37 s, in ns since 1970.
fn meanings(leap: Option<&Leap>, ntp: u64) -> [Option<i128>; 2] {
    let utc = stamp(ntp);
    let Some(leap) = leap else {
        return [Some(utc), None];
    };
    [leap.before, leap.before + leap.change].map(|offset| {
        let tai = utc + offset * NANOS;
        (leap.offset(tai) == offset).then_some(tai - TAI_AHEAD)
    })
}

/// The stamps follow each other, the monotonic one is the receive stamp, and the leap second is announced as it
/// must be.
fn is_in_order(ntp: &Ntp, leap: Option<&Leap>, receive: i128, transmit: i128) -> bool {
    let in_order = ntp.departed.is_some() || receive <= transmit && ntp.receive <= ntp.transmit;
    // Its lower half is the receive stamp's, to the last bit.
    let same = ntp.monotonic.is_none_or(|monotonic| {
        monotonic & 0xffff_ffff == ntp.receive & 0xffff_ffff
            && (stamp(monotonic) - TAI_AHEAD - receive).abs() <= 1
    });
    // The announcement is of the moment that the page was read, the stamp of a moment later.
    let announced = ntp.departed.is_some()
        || match leap {
            None => ntp.leap == 0,
            Some(leap) => {
                let past = transmit + TAI_AHEAD - leap.edge();
                past.abs() < ntp.bound || ntp.leap == leap.announcement(past)
            }
        };
    in_order && same && announced
}

/// A leap second at the end of a month.
#[derive(Clone, Copy, Debug)]
pub struct Leap {
    /// The month after it, in seconds since 1970.
    month: i128,
    /// TAI − UTC before it.
    before: i128,
    /// +1 or −1.
    change: i128,
}

/// Those that scenarios play: at the end of 2016, and one that will never be.
pub const LEAPS: [Leap; 2] = [
    Leap {
        month: 1_483_228_800,
        before: 36,
        change: 1,
    },
    Leap {
        month: 1_814_400_000,
        before: 37,
        change: -1,
    },
];

impl Leap {
    /// When TAI − UTC changes, in ns of TAI: at the start of an inserted second, for NTP repeats :59.
    fn edge(&self) -> i128 {
        (self.month + self.before - i128::from(self.change < 0)) * NANOS
    }

    /// TAI − UTC at this TAI in ns.
    fn offset(&self, tai: i128) -> i128 {
        self.before + if tai >= self.edge() { self.change } else { 0 }
    }

    /// Within a day of it.
    fn is_near(&self, tai: i128) -> bool {
        (tai - self.edge()).abs() < DAY * NANOS
    }

    /// The leap indicator so many ns after the edge.
    fn announcement(&self, past: i128) -> u8 {
        match (past < 0, self.change > 0) {
            (false, _) => 0,
            (true, true) => 1,
            (true, false) => 2,
        }
    }

    /// Where a record is: before the edge, in the second after it, later.
    #[must_use]
    pub fn phase(&self, record: &Record, journal: &[Epoch]) -> Option<usize> {
        let epoch = present(record, (journal, None)).last()?;
        let past = truth(epoch.epoch, record.arrived) + TAI_AHEAD - self.edge();
        match past {
            _ if past.abs() >= DAY * NANOS => None,
            ..0 => Some(0),
            0..NANOS => Some(1),
            _ => Some(2),
        }
    }
}

/// What an epoch's TAI − 37 s was at this moment of the host's, both in ns since 1970.
#[must_use]
pub fn truth(epoch: &Epoch, host: i128) -> i128 {
    let host = tai(host);
    let piece = epoch.truth.iter().rev().find(|piece| piece.host <= host);
    let piece = piece.or(epoch.truth.first()).expect("every epoch has one");
    utc(piece.at(host).expect("in range"))
}

/// Nanoseconds of UTC since 1970 as TAI.
#[must_use]
pub fn tai(utc: i128) -> Timestamp<Tai> {
    let seconds = i64::try_from(utc.div_euclid(NANOS)).expect("a date") + OFFSET;
    let nanos = i64::try_from(utc.rem_euclid(NANOS)).expect("below a second");
    Timestamp::from_parts(seconds, 0)
        .checked_add(Span::from_nanos(nanos))
        .expect("a date")
}

/// The way back.
#[must_use]
pub fn utc(tai: Timestamp<Tai>) -> i128 {
    i128::from(tai.seconds() - OFFSET) * NANOS + i128::from(tai.nanos())
}

/// An NTP stamp in ns since 1970; before 2036 by its first bit, after it without.
#[must_use]
pub fn stamp(ntp: u64) -> i128 {
    let era = if ntp >> 63 == 1 { 0 } else { 1 << 32 };
    let seconds = i128::from(ntp >> 32) + era - EPOCH;
    seconds * NANOS + ((i128::from(ntp & 0xffff_ffff) * NANOS) >> 32)
}

/// This host's clock, in ns since 1970.
#[must_use]
pub fn now() -> i128 {
    nanos(SystemTime::now())
}

/// The same of a time that was taken.
#[must_use]
pub fn nanos(time: SystemTime) -> i128 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    i128::try_from(since.expect("after 1970").as_nanos()).expect("small")
}

#[cfg(test)]
mod tests;
