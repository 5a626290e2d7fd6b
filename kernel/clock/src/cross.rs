//! What a source of time other than the page says: it was so late while the counter went from here
//! to there.

use crate::clock::Stamp;
use crate::page::{ClockStatus, LeapIndicator};
use crate::time::{Bound, Tai, Ticks, Timestamp, Utc};

/// One reading of a source: at *some* instant while the counter stood between `bracket.before` and
/// `bracket.after`, the true time was within `time` ± `error`.
///
/// That is all that an [`Estimator`](crate::Estimator) builds on, so whoever fills it in answers for it:
///
/// * **A clock that is asked and answers** (virtio-rtc `READ`, an RTC register): a stamp before the
///   question is sent, a stamp after the answer is there. Nothing is assumed of where between them the
///   clock was read; half the way there and back becomes part of the bound by itself.
/// * **A source that names the counter value** (virtio-rtc `READ_CROSS`, KVM clock pairing, KVM PTP): the
///   same two stamps, and [`Bracket::narrowed`] to the value named, which refuses one that lies.
/// * **NTP**: the stamp of sending, that of arrival, and the server's *transmit* time; `error` is root
///   dispersion + half the root delay + both precisions.
///
/// A clock that truncates (nanoseconds, an RTC's seconds) is late by up to one unit: `time` is then half a
/// unit later, and half a unit is in `error`. Where a source states no error, `time` is true by
/// definition, and the bound holds against that source's clock, not against UTC: `status` is then
/// [`ClockStatus::Freerunning`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrossTimestamp {
    /// The counter before and after, and the disruption marker.
    pub bracket: Bracket,
    /// The time, and on which scale.
    pub time: SourceTime,
    /// The greatest error of `time` by itself, without the bracket.
    pub error: Bound,
    /// TAI − UTC in seconds in force at `time`, between the codes of the two (37 in 2026), if the source
    /// tells it; outside 10..=60 it is not used.
    pub tai_offset: Option<i16>,
    /// What the source says of leap seconds at `time`; `None` if it never says anything. For NTP
    /// [`LeapIndicator::from_ntp`].
    pub leap: Option<LeapIndicator>,
    /// Whether the source vouches for its clock: synchronized, or freerunning if it does not say.
    /// Anything else is refused.
    pub status: ClockStatus,
}

/// A time on the scale that a source says it is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceTime {
    /// TAI.
    Tai(Timestamp<Tai>),
    /// POSIX-coded UTC.
    Utc(Timestamp<Utc>),
    /// UTC whose leap seconds are smeared, or may be, in some way.
    ///
    /// A smear differs from UTC by a second at most, and only near a leap second, which only the end of a
    /// month can be: noon to noon (12 h on either side), UTC-SLS (1000 s before), 17 to 24 h after
    /// elsewhere. So within a day of any month's end such a time counts as UTC with an error that
    /// is a second greater, and as plain UTC otherwise.
    PerhapsSmeared(Timestamp<Utc>),
}

/// Two counter values with the disruption marker that stood before, between and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bracket {
    /// The counter before the source was read.
    pub before: Ticks,
    /// The counter after that.
    pub after: Ticks,
    /// The disruption marker from before `before`; 0 without a page.
    pub marker: u64,
}

impl Bracket {
    /// The bracket of two stamps ([`Clock::stamp`](crate::Clock::stamp)); `None` when a disruption came
    /// between: another marker, or a counter that went back.
    ///
    /// A disruption inside the second stamp, after its marker was loaded, gets past this. It does no
    /// harm: the line is then of the old marker, and no page has that any more when the line is used.
    #[must_use]
    pub const fn new(before: Stamp, after: Stamp) -> Option<Self> {
        if before.marker != after.marker || after.ticks.since(before.ticks) < 0 {
            return None;
        }
        Some(Self {
            before: before.ticks,
            after: after.ticks,
            marker: before.marker,
        })
    }

    /// The bracket drawn together to the counter value that the source itself gives for its time; `None`
    /// when that lies outside, and the source is not to be believed.
    #[must_use]
    pub const fn narrowed(self, ticks: Ticks) -> Option<Self> {
        if ticks.since(self.before) < 0 || self.after.since(ticks) < 0 {
            return None;
        }
        Some(Self {
            before: ticks,
            after: ticks,
            marker: self.marker,
        })
    }
}

/// Where time can come from when the page has none, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Source {
    /// `KVM_HC_CLOCK_PAIRING` on x86.
    KvmPairing,
    /// The PTP hypercall of KVM on Arm.
    KvmPtp,
    /// virtio-rtc, crossed or bracketed.
    VirtioRtc,
    /// The wall clock and system time of kvmclock.
    KvmClock,
    /// An NTP server.
    Ntp,
    /// A battery-backed clock: CMOS, PL031.
    Rtc,
}

impl Source {
    /// Every one, the best first.
    pub const ALL: [Self; 6] = [
        Self::KvmPairing,
        Self::KvmPtp,
        Self::VirtioRtc,
        Self::KvmClock,
        Self::Ntp,
        Self::Rtc,
    ];

    /// Whether it is the host's own clock that is read: the one that the page's status is about.
    #[must_use]
    pub const fn is_host_clock(self) -> bool {
        !matches!(self, Self::Ntp)
    }

    /// How the console and the command line call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::KvmPairing => "kvm",
            Self::KvmPtp => "kvm-ptp",
            Self::VirtioRtc => "virtio-rtc",
            Self::KvmClock => "kvmclock",
            Self::Ntp => "ntp",
            Self::Rtc => "rtc",
        }
    }
}

impl core::fmt::Display for Source {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a line comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The vmclock page told it.
    #[default]
    Page,
    /// It was built from cross-time-stamps of this source.
    Own(Source),
}

impl core::fmt::Display for Origin {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Page => "vmclock",
            Self::Own(source) => source.name(),
        })
    }
}
