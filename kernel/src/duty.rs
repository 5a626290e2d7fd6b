//! When not to serve: what the operator wants done about what the host says and does.
//!
//! | Withheld | From | Until |
//! |---|---|---|
//! | [`Violation`](Withheld::Violation) | the first broken promise, or a counter that was moved without a word, if asked (`on_violation=stop`) | a page with time under another disruption marker |
//! | [`Holdover`](Withheld::Holdover) | more than `holdover.max` since the host's clock was synchronized | it is synchronized again |
//! | [`Rtc`](Withheld::Rtc) | nothing but a real-time clock tells the time, unless `source=rtc` | anything else does |
//! | [`Drain`](Withheld::Drain) | the host expects a disruption at least as near as `drain` says | it does not any more |
//!
//! **Since when a clock is freerunning** is counted from the last reading whose page said
//! synchronized, and not from the age of the page: a host may go on updating a page that is freerunning, and
//! may leave one that is synchronized alone for days, vouching for it all the while. Where
//! nobody has seen it synchronized, it counts from the first page's reference instant. It is counted on
//! the served time itself, so that the hours for which a snapshot lay on a disk are in it, and adds up:
//! a host that sets its clock back does not win time.
//!
//! A second life of the machine (a clone, a restored snapshot) is told from
//! its first by [`Incarnation`].

use core::fmt;

use gnomon_clock::{
    Audit, ClockStatus, Disruption, Origin, Reading, Source, Span, Tai, Timestamp, Utc, Violation,
};

/// What the operator asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// `on_violation=`: what a broken promise of the host leads to.
    pub on_violation: OnViolation,
    /// `drain=`: which expected disruption takes the service down in good time.
    pub drain: Drain,
    /// `holdover.max=`: for how many seconds a freerunning clock is served; `None` for ever.
    pub holdover_max: Option<u32>,
    /// `source=rtc`: serve the time of a real-time clock, for which nobody vouches.
    pub serve_rtc: bool,
}

impl Conditions {
    /// What holds when nothing is asked for.
    pub const DEFAULT: Self = Self {
        on_violation: OnViolation::Alarm,
        drain: Drain::Off,
        holdover_max: None,
        serve_rtc: false,
    };
}

/// What a broken promise of the host leads to. It is counted in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnViolation {
    /// Nothing more.
    Serve,
    /// A log line.
    Alarm,
    /// A log line, and no time is served under that disruption marker any more.
    Stop,
}

/// Which expected disruption takes the service down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// None.
    Off,
    /// One that is at most about a day away.
    Soon,
    /// One that is at most about an hour away.
    Imminent,
}

impl Drain {
    fn applies(self, expected: Disruption) -> bool {
        match self {
            Self::Off => false,
            Self::Soon => expected >= Disruption::Soon,
            Self::Imminent => expected >= Disruption::Imminent,
        }
    }
}

/// Why time that is known is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withheld {
    /// The host has broken a promise.
    Violation,
    /// The host's clock has been freerunning for longer than is allowed.
    Holdover,
    /// A disruption is expected.
    Drain,
    /// There is nothing but a real-time clock.
    Rtc {
        /// A disruption has taken a better time.
        stepped: bool,
    },
}

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Violation => "the host has broken a promise under this disruption marker",
            Self::Holdover => "the host's clock has been freerunning for longer than holdover.max",
            Self::Drain => "draining, because the host expects a disruption",
            Self::Rtc { .. } => "nobody vouches for a real-time clock, source=rtc serves it",
        })
    }
}

/// Judges each reading before it is served.
#[derive(Clone, Debug)]
pub struct Duty {
    conditions: Conditions,
    /// Violations by kind, in the order of [`Violation::ALL`], at the last reading.
    violations: [u64; Violation::ALL.len()],
    /// Updates that had been audited by then.
    updates: u64,
    latest: Option<Violation>,
    /// The marker under which nothing is served any more.
    distrusted: Option<u64>,
    /// The last reading.
    last: Option<Instant>,
    /// How long the clock has been freerunning; `None` while it is not.
    freerunning: Option<Span>,
}

/// An instant on the scales that were known.
#[derive(Clone, Copy, Debug)]
struct Instant {
    tai: Option<Timestamp<Tai>>,
    utc: Option<Timestamp<Utc>>,
}

impl Duty {
    /// Nothing has been read yet.
    #[must_use]
    pub const fn new(conditions: Conditions) -> Self {
        Self {
            conditions,
            violations: [0; Violation::ALL.len()],
            updates: 0,
            latest: None,
            distrusted: None,
            last: None,
            freerunning: None,
        }
    }

    /// A source contradicts the time under this marker: what a broken promise leads to, this does.
    pub fn contradicted(&mut self, marker: u64) {
        if self.conditions.on_violation == OnViolation::Stop {
            self.distrusted = Some(marker);
        }
    }

    /// What is asked for.
    #[must_use]
    pub const fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    /// Why `reading` is not to be served, if so. `audit` is the clock's, including this reading's
    /// page, and so is [`stepped`](gnomon_clock::Clock::has_stepped). Readings come in the order in which they were taken.
    #[inline]
    pub fn judge(&mut self, reading: &Reading, audit: &Audit, stepped: bool) -> Option<Withheld> {
        self.follow_audit(reading, audit);
        self.follow_status(reading);
        let held_too_long = || {
            let limit = Span::from_seconds(self.conditions.holdover_max?.into());
            Some(self.freerunning? > limit)
        };
        if self.distrusted.is_some() {
            Some(Withheld::Violation)
        } else if held_too_long() == Some(true) {
            Some(Withheld::Holdover)
        } else if self.conditions.drain.applies(reading.disruption) {
            Some(Withheld::Drain)
        } else if reading.origin == Origin::Own(Source::Rtc) && !self.conditions.serve_rtc {
            Some(Withheld::Rtc { stepped })
        } else {
            None
        }
    }

    /// The counter was moved under `marker`, which should have changed with that: what the page says
    /// of it may not hold any more.
    pub fn counter_moved(&mut self, marker: u64) {
        if self.conditions.on_violation == OnViolation::Stop {
            self.distrusted = Some(marker);
        }
    }

    /// How long the host's clock has been freerunning; `None` when it is synchronized, as far as is
    /// known.
    #[must_use]
    pub const fn freerunning(&self) -> Option<Span> {
        self.freerunning
    }

    /// The kind of the latest violation.
    #[must_use]
    pub const fn latest_violation(&self) -> Option<Violation> {
        self.latest
    }

    #[inline]
    fn follow_audit(&mut self, reading: &Reading, audit: &Audit) {
        // Violations are found in updates.
        if self.updates != audit.updates() {
            self.updates = audit.updates();
            self.follow_violations(reading, audit);
        }
        if self
            .distrusted
            .is_some_and(|marker| marker != reading.marker)
        {
            self.distrusted = None;
        }
    }

    #[inline(never)]
    fn follow_violations(&mut self, reading: &Reading, audit: &Audit) {
        for (known, violation) in self.violations.iter_mut().zip(Violation::ALL) {
            let count = audit.count(violation);
            if *known != count {
                *known = count;
                self.latest = Some(violation);
                if self.conditions.on_violation == OnViolation::Stop {
                    let evidence = audit.evidence(violation);
                    let marker = evidence.map_or(reading.marker, |found| found.later.marker);
                    self.distrusted = Some(marker);
                }
            }
        }
    }

    #[inline]
    fn follow_status(&mut self, reading: &Reading) {
        let now = Instant {
            tai: reading.tai,
            utc: reading.utc.map(|utc| utc.time),
        };
        let before = self.last.replace(now);
        if reading.status == ClockStatus::Synchronized {
            self.freerunning = None;
            return;
        }
        // The last reading was synchronized, or freerunning for that long, or there was none.
        let (so_far, since) = match before {
            Some(before) => (self.freerunning.unwrap_or(Span::ZERO), now.since(&before)),
            None => (Span::ZERO, Some(reading.age)),
        };
        let since = since.unwrap_or(Span::ZERO).max(Span::ZERO);
        let units = so_far.units().saturating_add(since.units());
        self.freerunning = Some(Span::from_units(units));
    }
}

impl Instant {
    /// TAI where both have it, since UTC may have had a leap second.
    fn since(&self, before: &Self) -> Option<Span> {
        match (self.tai, before.tai) {
            (Some(now), Some(before)) => now.since(before),
            _ => self.utc?.since(before.utc?),
        }
    }
}

/// Which life of the machine this is, by the page: a clone or a restored snapshot starts a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incarnation {
    marker: u64,
    generation: Option<u64>,
}

impl Incarnation {
    /// That of a page with this disruption marker and generation.
    #[must_use]
    pub const fn new(marker: u64, generation: Option<u64>) -> Self {
        Self { marker, generation }
    }

    /// The disruption marker.
    #[must_use]
    pub const fn marker(&self) -> u64 {
        self.marker
    }

    /// Both numbers, for whoever wants to tell lives apart.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 16] {
        let generation = self.generation.unwrap_or(0);
        let both = u128::from(self.marker) << 64 | u128::from(generation);
        both.to_le_bytes()
    }

    /// Whether `next` may be another life than this: the generation has changed, or, where either has
    /// none, the marker (which a live migration changes, too).
    #[must_use]
    pub fn is_ended_by(&self, next: &Self) -> bool {
        match (self.generation, next.generation) {
            (Some(before), Some(now)) => before != now,
            _ => self.marker != next.marker,
        }
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.generation {
            Some(generation) => write!(f, "generation {generation:#x}"),
            None => write!(f, "no generation, disruption marker {:#x}", self.marker),
        }
    }
}
