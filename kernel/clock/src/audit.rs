//! Whether the host keeps its promises: each update of the page against the last few before it.
//!
//! A counter value that was read under an earlier page keeps the meaning that it had: whatever page
//! follows under the same disruption marker must put it inside the interval that was told then. With
//! `TIME_MONOTONIC`, no reading may be earlier than one that was taken before it. Both are promises of
//! UAPI.13, and a host that breaks one is at fault whatever the truth is. The converse does not hold:
//! a host can be wrong and consistent.
//!
//! Only counter values that this clock has read count, for only those were told anything: the first
//! and the last under each page, and its reference instant if that lies between. Over these the
//! difference of two lines is a line, and the interval is narrowest at the reference, so that no value
//! between them could show a fault which they do not.

use core::fmt;

use crate::time::{Bound, Span, Ticks};
use crate::timeline::{Reading, Timeline};

/// How many updates are remembered.
pub const KEPT: usize = 4;

/// A promise of the host that an update broke, without a new disruption marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Violation {
    /// The update puts a counter value outside the interval that it was given before.
    Interval,
    /// Both pages have `TIME_MONOTONIC`, and the first reading by the new one is earlier than the
    /// last by the old. A step that is over before the next reading is not seen.
    Monotonic,
    /// TAI − UTC is another one, and no leap second explains it.
    TaiOffset,
    /// `seq_count` went back.
    Sequence,
    /// The counter went back. What was known of it before is forgotten.
    Counter,
}

impl Violation {
    /// Every kind, in order.
    pub const ALL: [Self; 5] = [
        Self::Interval,
        Self::Monotonic,
        Self::TaiOffset,
        Self::Sequence,
        Self::Counter,
    ];
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interval => "time left the interval given before",
            Self::Monotonic => "time stepped back",
            Self::TaiOffset => "TAI-UTC changed without a leap second",
            Self::Sequence => "sequence count went back",
            Self::Counter => "counter went back",
        })
    }
}

/// What two pages say that cannot both stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The promise broken.
    pub violation: Violation,
    /// By the earlier page: `ticks` is a counter value that was read under it.
    pub earlier: Reading,
    /// Its `seq_count`.
    pub earlier_seq: u32,
    /// By the update: at the same counter value, except for `Monotonic` and `Counter`, where it is
    /// that of the first reading after it.
    pub later: Reading,
    /// The `seq_count` of the update.
    pub later_seq: u32,
}

/// Both readings with their bounds.
impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reading = |f: &mut fmt::Formatter<'_>, seq: u32, reading: &Reading| {
            write!(f, "seq {seq} at counter {}: ", reading.ticks.0)?;
            match (reading.tai, reading.utc) {
                (Some(tai), _) => tai.fmt(f)?,
                (None, Some(utc)) => utc.fmt(f)?,
                (None, None) => {}
            }
            write!(f, " ± {} ns", reading.bound.nanos())?;
            match reading.tai_offset {
                Some(offset) => write!(f, ", TAI-UTC {offset}"),
                None => Ok(()),
            }
        };
        write!(f, "{}: ", self.violation)?;
        reading(f, self.earlier_seq, &self.earlier)?;
        f.write_str("; ")?;
        reading(f, self.later_seq, &self.later)
    }
}

/// The last few timelines, and what was found wrong with them.
#[derive(Clone, Debug)]
pub struct Audit {
    /// The newest first, all under one marker.
    kept: [Option<Seen>; KEPT],
    /// The last counter value read under the newest: kept here and not there, since each reading changes it.
    last: Ticks,
    updates: u64,
    disruptions: u64,
    findings: [Finding; Violation::ALL.len()],
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    seq_count: u32,
    timeline: Timeline,
    /// The first and last counter value read under it. The newest one's last is [`Audit::last`].
    first: Ticks,
    last: Ticks,
}

#[derive(Clone, Copy, Debug)]
struct Finding {
    count: u64,
    latest: Option<Evidence>,
}

impl Audit {
    /// An audit that has seen nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            kept: [None; KEPT],
            last: Ticks(0),
            updates: 0,
            disruptions: 0,
            findings: [Finding {
                count: 0,
                latest: None,
            }; Violation::ALL.len()],
        }
    }

    /// Takes note of a snapshot: the timeline of the page at `seq_count`, and a counter value that
    /// was read under it.
    pub fn observe(&mut self, seq_count: u32, timeline: &Timeline, ticks: Ticks) {
        if let [Some(newest), ..] = &mut self.kept {
            if newest.seq_count == seq_count && ticks.since(self.last) >= 0 {
                self.last = ticks;
                return;
            }
            newest.last = self.last;
        }
        self.update(&Seen {
            seq_count,
            timeline: *timeline,
            first: ticks,
            last: ticks,
        });
        self.last = ticks;
    }

    /// Whether the counter has not gone back since the newest page was read last.
    #[inline]
    pub(crate) const fn goes_on(&self, ticks: Ticks) -> bool {
        ticks.since(self.last) >= 0
    }

    /// Takes note of a counter value that goes on, read under the newest page.
    #[inline]
    pub(crate) const fn follow(&mut self, ticks: Ticks) {
        self.last = ticks;
    }

    /// Updates looked at, without those that came and went between two readings.
    #[must_use]
    pub const fn updates(&self) -> u64 {
        self.updates
    }

    /// How many of these had a new disruption marker, under which nothing old binds the host.
    #[must_use]
    pub const fn disruptions(&self) -> u64 {
        self.disruptions
    }

    /// How many updates broke that promise.
    #[must_use]
    pub fn count(&self, violation: Violation) -> u64 {
        self.finding(violation).map_or(0, |finding| finding.count)
    }

    /// All of them together.
    #[must_use]
    pub fn violations(&self) -> u64 {
        self.findings
            .iter()
            .fold(0, |sum, finding| finding.count.saturating_add(sum))
    }

    /// What the latest violation of that kind rests on.
    #[must_use]
    pub fn evidence(&self, violation: Violation) -> Option<&Evidence> {
        self.finding(violation)?.latest.as_ref()
    }

    fn finding(&self, violation: Violation) -> Option<&Finding> {
        self.findings.get(violation as usize)
    }

    #[cold]
    fn update(&mut self, new: &Seen) {
        if let [Some(old), ..] = self.kept {
            if old.timeline.marker() != new.timeline.marker() {
                self.disruptions = self.disruptions.saturating_add(1);
                self.kept = [None; KEPT];
            } else if new.first.since(old.last) < 0 {
                self.found(Violation::Counter, &old, old.last, new, new.first);
                self.kept = [None; KEPT];
            } else {
                self.compare(&old, new);
            }
        }
        for old in self.kept.into_iter().flatten() {
            if let Some(at) = outside(&old, new) {
                self.found(Violation::Interval, &old, at, new, at);
                // One update is one violation, whatever it contradicts.
                break;
            }
        }
        self.updates = self.updates.saturating_add(1);
        self.kept.rotate_right(1);
        let [newest, ..] = &mut self.kept;
        *newest = Some(*new);
    }

    /// What binds an update to the page just before it.
    fn compare(&mut self, old: &Seen, new: &Seen) {
        if new.seq_count.wrapping_sub(old.seq_count).cast_signed() < 0 {
            self.found(Violation::Sequence, old, old.last, new, old.last);
        }
        let monotonic = old.timeline.promises_monotonic() && new.timeline.promises_monotonic();
        let step = new.timeline.since(new.first, &old.timeline, old.last);
        if monotonic && step.is_some_and(|step| step < Span::ZERO) {
            self.found(Violation::Monotonic, old, old.last, new, new.first);
        }
        if offset_changed(old, new) {
            self.found(Violation::TaiOffset, old, old.last, new, old.last);
        }
    }

    fn found(
        &mut self,
        violation: Violation,
        old: &Seen,
        old_at: Ticks,
        new: &Seen,
        new_at: Ticks,
    ) {
        let (Ok(earlier), Ok(later)) = (old.timeline.at(old_at), new.timeline.at(new_at)) else {
            return;
        };
        if let Some(finding) = self.findings.get_mut(violation as usize) {
            finding.count = finding.count.saturating_add(1);
            finding.latest = Some(Evidence {
                violation,
                earlier,
                earlier_seq: old.seq_count,
                later,
                later_seq: new.seq_count,
            });
        }
    }
}

impl Default for Audit {
    fn default() -> Self {
        Self::new()
    }
}

/// A counter value read under `old` which `new` puts outside the interval that `old` gave it.
fn outside(old: &Seen, new: &Seen) -> Option<Ticks> {
    if !old.timeline.promises_interval() {
        return None;
    }
    let reference = old.timeline.counter();
    let read = reference.since(old.first) >= 0 && old.last.since(reference) >= 0;
    [Some(old.last), Some(old.first), read.then_some(reference)]
        .into_iter()
        .flatten()
        .find(|at| {
            // The reading's bound has a tick and the rounding above the page's own: what rounding
            // the two times may lose is inside that.
            let told = old.timeline.at(*at).map_or(Bound::MAX, |told| told.bound);
            new.timeline
                .since(*at, &old.timeline, *at)
                .is_some_and(|apart| !told.contains(apart))
        })
}

/// Whether the two disagree about TAI − UTC when the old one was last read, and no leap second
/// that the old one knew of has changed it since (a host may drop it right afterwards).
fn offset_changed(old: &Seen, new: &Seen) -> bool {
    let (before, after) = (&old.timeline, &new.timeline);
    let same =
        |one: Option<i16>, other: Option<i16>| one.is_none() || other.is_none() || one == other;
    let at = Some(old.last);
    !same(
        before.offset_when(before, at),
        after.offset_when(before, at),
    ) && !same(
        before.offset_when(after, None),
        after.offset_when(after, None),
    )
}
