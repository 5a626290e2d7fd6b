//! The page held to UAPI.13 v1.1: a [`Watch`] takes what a reader sees, copy by copy, and says in the end which rules
//! the host has kept.

use core::fmt::{self, Display, Formatter};

use gnomon_clock::page::{COUNTER_INVALID, LEN, MAGIC, VERSION, flag};
use gnomon_clock::{
    Audit, Bound, ClockStatus, CounterId, Fields, LeapIndicator, Period, SmearingHint, Span,
    TaiOffset, Ticks, TimeType, Timeline, Unusable, Violation,
};

use super::machine::Notice;
use super::notices::Notices;
use super::tap::{Check, Evidence, Outcome};
use crate::report::Width;
use crate::services::counters::{PageRate, Rate};

/// How long `seq_count` may stay odd, ns: Linux gives the page up after that.
const ODD_LONGEST: u64 = 100_000_000;

/// Writes the checks down once: their order, names and rules.
macro_rules! checks {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $rule:literal, $source:literal;)*) => {
        /// What is checked of a page.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Rule {
            $($(#[$doc])* $name,)*
        }

        impl Rule {
            /// Every rule, in the order in which it is told.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name and what it demands.
            #[must_use]
            pub const fn check(self) -> &'static Check {
                match self {
                    $(Self::$name => &Check { name: $text, rule: $rule, source: $source },)*
                }
            }
        }
    };
}

checks! {
    /// `magic`.
    Magic = "vmclock magic", "magic is 0x4b4c4356, VCLK", "UAPI.13 v1.1, magic";
    /// `size`.
    Size = "vmclock size", "the region contains the structure, 0x70 bytes", "UAPI.13 v1.1, size";
    /// `version`.
    Version = "vmclock version", "version is 1", "UAPI.13 v1.1, version";
    /// What never changes.
    Constants = "vmclock constants", "the fields up to time_type are constant during the lifetime of the device", "UAPI.13 v1.1, The vmclock_abi structure";
    /// `counter_id`.
    Counter = "vmclock counter_id", "counter_id is the counter of this architecture, or 0xff", "UAPI.13 v1.1, counter_id";
    /// `time_type`.
    TimeType = "vmclock time_type", "time_type is 0, 1 or 2; time is never smeared", "UAPI.13 v1.1, time_type";
    /// An update ends.
    Odd = "vmclock seq_count odd", "seq_count stays odd for so short a time that a guest can spin", "UAPI.13 v1.1, The vmclock_abi structure";
    /// Nothing changes without it.
    Torn = "vmclock seq_count guards", "whatever changes, seq_count changes before and after it", "UAPI.13 v1.1, seq_count";
    /// It goes forward.
    Forward = "vmclock seq_count forward", "every update increments seq_count twice", "UAPI.13 v1.1, seq_count";
    /// `flags`.
    Flags = "vmclock flags", "a flag says that its field contains valid data, so there is a clock that it speaks of", "UAPI.13 v1.1, Feature Flags";
    /// `clock_status`.
    Status = "vmclock clock_status", "clock_status is one of 0 to 4", "UAPI.13 v1.1, Clock Status";
    /// `leap_second_smearing_hint`.
    Hint = "vmclock leap_second_smearing_hint", "leap_second_smearing_hint is one of 0 to 2", "UAPI.13 v1.1, Leap Second Smearing Hint";
    /// `tai_offset_sec`.
    TaiOffset = "vmclock tai_offset_sec", "UTC = TAI + tai_offset_sec: negative since 1972, -37 since 2017", "UAPI.13 v1.1, tai_offset_sec";
    /// `tai_offset_sec` over updates.
    TaiOffsetSteady = "vmclock tai_offset_sec over updates", "tai_offset_sec changes with a leap second and not otherwise", "UAPI.13 v1.1, tai_offset_sec";
    /// `leap_indicator`.
    Leap = "vmclock leap_indicator", "leap_indicator is one of 0 to 5, and valid at the reference time: inside 23:59:60 at the end of a month only", "UAPI.13 v1.1, Leap Indicator";
    /// The reference time.
    Time = "vmclock time_sec", "the reference time can be calculated with", "UAPI.13 v1.1, Calculating time";
    /// `counter_period_frac_sec`.
    Period = "vmclock counter_period_frac_sec", "the period is that of the counter", "UAPI.13 v1.1, Calculating time";
    /// The error fields.
    Errors = "vmclock errors", "estimated errors are within maximum errors, and these are errors of the fields they belong to", "UAPI.13 v1.1, Time error calculation";
    /// The guarantee.
    Nested = "vmclock nested intervals", "after any update, an earlier counter value gives a time within the limits indicated before", "UAPI.13 v1.1, Time error calculation";
    /// `TIME_MONOTONIC`.
    Monotonic = "vmclock TIME_MONOTONIC", "time does not step back over an update", "UAPI.13 v1.1, Feature Flags, TIME_MONOTONIC";
    /// `disruption_marker`.
    Marker = "vmclock disruption_marker", "disruption_marker changes when the counter may have been disrupted", "UAPI.13 v1.1, disruption_marker";
    /// `vm_generation_counter`.
    Generation = "vmclock vm_generation_counter", "vm_generation_counter remains constant over pause and resume", "UAPI.13 v1.1, VM Generation Counter";
    /// Both of them over a snapshot.
    Snapshot = "vmclock snapshot", "disruption_marker, and vm_generation_counter where it is present, change when a snapshot is loaded", "UAPI.13 v1.1, disruption_marker, VM Generation Counter";
    /// `NOTIFICATION_PRESENT`.
    Notification = "vmclock notification", "every update is notified when NOTIFICATION_PRESENT is set", "UAPI.13 v1.1, NOTIFICATION_PRESENT";
}

const RULES: usize = Rule::ALL.len();

/// How long the machine was stopped at our request, by whoever has stopped it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Nanoseconds from before it was stopped until after it went on, by a clock that went on.
    pub nanos: u64,
}

/// The counter's rate as it was measured or is stated, to hold the page's period against.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// By an independent timer.
    pub measured: Option<Rate>,
    /// In the machine's own words.
    pub stated: Option<Rate>,
}

/// What is seen of a page over a while.
#[derive(Debug)]
pub struct Watch {
    counter: CounterId,
    /// Ticks a second, roughly, for telling how long something took; 0 while not known.
    hertz: u64,
    audit: Audit,
    first: Option<Fields>,
    last: Option<Fields>,
    /// Of `last`, as far as it has a time.
    line: Option<Timeline>,
    copies: u64,
    updates: u64,
    timed: u64,
    refused: u64,
    bounded: bool,
    monotonic: bool,
    flags: u64,
    /// An odd `seq_count`, and when it was seen first.
    odd: Option<(u32, Ticks)>,
    odd_longest: u64,
    /// The pages with the longest and the shortest tick.
    periods: Option<(Fields, Fields)>,
    /// The first thing that broke each rule.
    broken: [Option<Evidence>; RULES],
    /// The last page before a stop, and a counter value under it; the same after it.
    stop: Option<(Stop, Around, Around)>,
    /// The marker before and after a snapshot was loaded.
    snapshot: Option<(u64, u64)>,
    notices: Notices,
    /// What two pages say of a counter value that cannot both stand, and how many ticks the later one's reference is from
    /// that; of all, those with the fewest.
    nearest: Option<(gnomon_clock::Evidence, u64)>,
}

/// The page, its time and a counter value beside a stop.
#[derive(Clone, Copy, Debug)]
struct Around {
    fields: Fields,
    line: Option<Timeline>,
    ticks: Ticks,
}

impl Watch {
    /// Nothing has been seen yet, on a machine with this counter of roughly so many ticks a second.
    #[must_use]
    pub fn new(counter: CounterId, hertz: Option<u64>) -> Self {
        Self {
            counter,
            hertz: hertz.unwrap_or(0),
            audit: Audit::new(),
            first: None,
            last: None,
            line: None,
            copies: 0,
            updates: 0,
            timed: 0,
            refused: 0,
            bounded: false,
            monotonic: false,
            flags: 0,
            odd: None,
            odd_longest: 0,
            periods: None,
            broken: [const { None }; RULES],
            stop: None,
            snapshot: None,
            notices: Notices::default(),
            nearest: None,
        }
    }

    /// The same beside a service, whose audit has seen the page since the machine was started.
    #[must_use]
    pub fn beside(counter: CounterId, hertz: Option<u64>, audit: &Audit) -> Self {
        Self {
            audit: audit.clone(),
            ..Self::new(counter, hertz)
        }
    }

    /// Takes a copy of the page that the seqlock has let through, and the counter read inside it.
    pub fn saw(&mut self, fields: &Fields, ticks: Ticks) {
        self.copies += 1;
        self.odd = None;
        if self.last.as_ref() != Some(fields) {
            self.update(fields);
        }
        if let Some(line) = &self.line {
            self.timed += 1;
            let found = self.audit.count(Violation::Interval);
            self.audit.observe(fields.seq_count, line, ticks);
            if self.audit.count(Violation::Interval) > found {
                self.contradicted(fields);
            }
        }
    }

    /// Takes note that this page contradicts what an earlier one said, if no contradiction is between nearer ones.
    #[inline(never)]
    fn contradicted(&mut self, fields: &Fields) {
        let Some(evidence) = self.audit.evidence(Violation::Interval) else {
            return;
        };
        let since = Ticks(fields.counter_value).since(evidence.earlier.ticks);
        let since = u64::try_from(since).unwrap_or(0);
        if self.nearest.is_none_or(|(_, nearest)| since < nearest) {
            self.nearest = Some((*evidence, since));
        }
    }

    /// Takes note that there was no copy to be had: `seq_count` as it was last, and the counter.
    pub fn refused(&mut self, seq_count: u32, ticks: Ticks) {
        self.refused += 1;
        if seq_count & 1 == 0 {
            self.odd = None;
            return;
        }
        match self.odd {
            Some((seq, since)) if seq == seq_count => {
                let lasted = u64::try_from(ticks.since(since)).unwrap_or(0);
                self.odd_longest = self.odd_longest.max(lasted);
            }
            _ => self.odd = Some((seq_count, ticks)),
        }
    }

    /// Takes note of a stop of the machine: the page and the counter as they were when it was asked for, and as they
    /// are now.
    pub fn stopped(&mut self, stop: Stop, before: (Fields, Ticks), after: (Fields, Ticks)) {
        let around = |(fields, ticks): (Fields, Ticks)| Around {
            fields,
            line: Timeline::from_page(&fields, self.counter).ok(),
            ticks,
        };
        self.stop = Some((stop, around(before), around(after)));
    }

    /// UTC by the page as it was seen last, s since 1970.
    #[must_use]
    pub fn utc(&self, ticks: Ticks) -> Option<i64> {
        let reading = self.line?.at(ticks).ok()?;
        Some(reading.utc?.time.seconds())
    }

    /// Whether the marker has changed: a clock of the host's may have gone on while the machine stood still.
    #[must_use]
    pub fn is_disrupted(&self) -> bool {
        let marker =
            |fields: &Option<Fields>| fields.as_ref().map(|fields| fields.disruption_marker);
        marker(&self.first) != marker(&self.last)
    }

    /// Whether the last page says that its updates are notified.
    #[must_use]
    pub fn is_notified(&self) -> bool {
        let fields = self.last.as_ref();
        fields.is_some_and(|fields| fields.has(flag::NOTIFICATION_PRESENT))
    }

    /// Takes note of a look for a notification before the copy that was [seen](Self::saw) last, at these ticks; `None`
    /// when there was no copy to be had after it.
    pub fn noticed(&mut self, notice: Notice, ticks: Option<Ticks>) {
        self.notices.look(notice, ticks, self.hertz);
    }

    /// Takes note of a snapshot that was loaded: the page before it was asked for, and as it is now.
    pub fn loaded(&mut self, before: &Fields, after: &Fields) {
        let (was, is) = (before.disruption_marker, after.disruption_marker);
        if was == is {
            self.break_rule(Rule::Snapshot, &format_args!("{was:#x} before and after"));
        }
        let generations = (before.vm_generation(), after.vm_generation());
        if let (Some(was), Some(is)) = generations
            && was == is
        {
            let unchanged = format_args!("vm_generation_counter {was:#x} before and after");
            self.break_rule(Rule::Snapshot, &unchanged);
        }
        self.snapshot = Some((was, is));
    }

    /// What became of a rule.
    #[must_use]
    #[inline(never)]
    pub fn outcome(&self, rule: Rule, rates: &Rates) -> Outcome {
        if let Some(evidence) = self.broken.get(rule as usize).and_then(Option::as_ref) {
            return Outcome::NotOk(*evidence);
        }
        let (Some(first), Some(fields)) = (&self.first, &self.last) else {
            return if rule == Rule::Odd && self.refused > 0 {
                self.odd()
            } else {
                Outcome::skip(&"no copy of the page could be had")
            };
        };
        match rule {
            Rule::Magic => Outcome::ok(&format_args!("{:#010x}", first.magic)),
            Rule::Size => Outcome::ok(&format_args!("{} bytes", first.size)),
            Rule::Version => Outcome::ok(&first.version),
            Rule::Constants => Outcome::ok(&format_args!("in {} copies", self.copies)),
            Rule::Counter => match CounterId::try_from(first.counter_id) {
                Ok(id) => Outcome::ok(&id),
                Err(_) => Outcome::ok(&"0xff, none: the page carries no time"),
            },
            Rule::TimeType => match TimeType::try_from(first.time_type) {
                Ok(scale) => Outcome::ok(&scale),
                Err(code) => Outcome::ok(&code),
            },
            Rule::Odd => self.odd(),
            Rule::Torn => Outcome::ok(&format_args!(
                "{} updates in {} copies, none without it",
                self.updates, self.copies
            )),
            Rule::Forward => Outcome::ok(&format_args!("{} updates", self.updates)),
            Rule::Flags => Outcome::ok(&Flags(self.flags)),
            Rule::Status => match ClockStatus::try_from(fields.clock_status) {
                Ok(status) => Outcome::ok(&status),
                Err(code) => Outcome::ok(&code),
            },
            Rule::Hint => match SmearingHint::try_from(fields.leap_second_smearing_hint) {
                Ok(hint) => Outcome::ok(&hint),
                Err(code) => Outcome::ok(&code),
            },
            Rule::TaiOffset if self.flags & flag::TAI_OFFSET_VALID != 0 => {
                Outcome::ok(&format_args!("{} s", fields.tai_offset_sec))
            }
            Rule::TaiOffset => {
                Outcome::skip(&"TAI_OFFSET_VALID is not set (all implementations should)")
            }
            Rule::Notification if self.flags & flag::NOTIFICATION_PRESENT == 0 => {
                Outcome::skip(&"not advertised")
            }
            Rule::Notification => self.notices.outcome(),
            Rule::Marker | Rule::Generation => self.over_a_stop(rule),
            Rule::Snapshot => match self.snapshot {
                Some((was, is)) => Outcome::ok(&format_args!("{was:#x}, then {is:#x}")),
                None => Outcome::skip(&"nobody has loaded one"),
            },
            _ if self.timed == 0 => Outcome::skip(&"the page carries no time"),
            Rule::Leap => match LeapIndicator::try_from(fields.leap_indicator) {
                Ok(leap) => Outcome::ok(&leap),
                Err(code) => Outcome::ok(&code),
            },
            Rule::Time => self.time(),
            Rule::Period => self.period(rates),
            Rule::Errors if self.flags & ERRORS == 0 => Outcome::skip(&"no error field is flagged"),
            Rule::Errors => Outcome::ok(&Errors(fields)),
            Rule::TaiOffsetSteady | Rule::Nested | Rule::Monotonic => self.audited(rule),
        }
    }

    #[inline(never)]
    fn update(&mut self, fields: &Fields) {
        self.line = None;
        // The update that sets the flag may be the first that is notified.
        if self.is_notified() && fields.has(flag::NOTIFICATION_PRESENT) {
            self.notices.updated();
        }
        if let Some(last) = &self.last {
            let forward = fields.seq_count.wrapping_sub(last.seq_count).cast_signed();
            let (was, is) = (last.seq_count, fields.seq_count);
            let is_disrupted = fields.disruption_marker != last.disruption_marker;
            if forward == 0 {
                // What never changes is not guarded, and another rule's.
                let guarded = Fields {
                    magic: last.magic,
                    size: last.size,
                    version: last.version,
                    counter_id: last.counter_id,
                    time_type: last.time_type,
                    ..*fields
                };
                if guarded != *last {
                    let now = changed(last, &guarded);
                    self.break_rule(
                        Rule::Torn,
                        &format_args!("{now} changed under seq_count {is}"),
                    );
                }
            } else if forward < 0 && !is_disrupted {
                self.break_rule(Rule::Forward, &format_args!("{was}, then {is}"));
            } else {
                self.updates += 1;
            }
        }
        self.last = Some(*fields);
        let first = *self.first.get_or_insert(*fields);
        if constants(&first) != constants(fields) {
            let what = changed(&first, fields);
            let seq = fields.seq_count;
            self.break_rule(
                Rule::Constants,
                &format_args!("{what} changed by seq_count {seq}"),
            );
        }
        if self.header(fields) {
            self.flags |= fields.flags;
            self.codes(fields);
            self.calculation(fields);
        }
    }

    /// Whether these are the fields of a page that the rest can be read of.
    #[inline(never)]
    fn header(&mut self, fields: &Fields) -> bool {
        let Fields {
            magic,
            size,
            version,
            ..
        } = *fields;
        let is_long = size as usize >= LEN;
        if magic != MAGIC {
            self.break_rule(Rule::Magic, &format_args!("{magic:#010x}"));
        } else if version != VERSION {
            self.break_rule(Rule::Version, &version);
        } else if !is_long {
            self.break_rule(Rule::Size, &format_args!("{size} bytes"));
        }
        magic == MAGIC && version == VERSION && is_long
    }

    #[inline(never)]
    fn codes(&mut self, fields: &Fields) {
        let seq = fields.seq_count;
        let has_counter = fields.counter_id != COUNTER_INVALID;
        let mut codes = [
            (
                Rule::Counter,
                fields.counter_id,
                !has_counter || fields.counter_id == self.counter as u8,
            ),
            (
                Rule::TimeType,
                fields.time_type,
                matches!(
                    TimeType::try_from(fields.time_type),
                    Ok(TimeType::Utc | TimeType::Tai | TimeType::Monotonic)
                ),
            ),
            (
                Rule::Status,
                fields.clock_status,
                ClockStatus::try_from(fields.clock_status).is_ok(),
            ),
            (
                Rule::Hint,
                fields.leap_second_smearing_hint,
                SmearingHint::try_from(fields.leap_second_smearing_hint).is_ok(),
            ),
            (
                Rule::Leap,
                fields.leap_indicator,
                LeapIndicator::try_from(fields.leap_indicator).is_ok(),
            ),
        ];
        for (rule, code, _) in codes.iter_mut().filter(|(_, _, holds)| !holds) {
            self.break_rule(*rule, &format_args!("{code} at seq_count {seq}"));
        }
        let lost = if has_counter { 0 } else { ERRORS };
        if fields.flags & lost != 0 {
            let flags = Flags(fields.flags);
            self.break_rule(Rule::Flags, &format_args!("{flags}, and no counter"));
        }
        let offset = fields.tai_offset_sec;
        if fields.has(flag::TAI_OFFSET_VALID) {
            match TaiOffset::from_page(offset) {
                Some(known) if !known.positive_on_page => {}
                Some(_) => self.break_rule(
                    Rule::TaiOffset,
                    &format_args!("{offset} s: the sign is that of v1.0, at seq_count {seq}"),
                ),
                None => self.break_rule(
                    Rule::TaiOffset,
                    &format_args!("{offset} s, at seq_count {seq}"),
                ),
            }
        }
    }

    /// What a time is calculated from, where there is one.
    #[inline(never)]
    fn calculation(&mut self, fields: &Fields) {
        let seq = fields.seq_count;
        match Timeline::from_page(fields, self.counter) {
            Ok(line) => self.line = Some(line),
            Err(why @ (Unusable::PeriodShift(_) | Unusable::ZeroPeriod)) => {
                self.break_rule(Rule::Period, &why);
            }
            Err(why @ Unusable::LeapSecond) => {
                let second = fields.time_sec;
                self.break_rule(
                    Rule::Leap,
                    &format_args!("{why}: time_sec {second}, at seq_count {seq}"),
                );
            }
            Err(why @ Unusable::OutOfRange) => {
                self.break_rule(Rule::Time, &format_args!("{why}, at seq_count {seq}"));
            }
            // No time, and the host says so; or a code that is judged already.
            Err(_) => {}
        }
        if self.line.is_none() {
            return;
        }
        self.bounded |= fields.has(flag::PERIOD_MAXERROR_VALID | flag::TIME_MAXERROR_VALID);
        self.monotonic |= fields.has(flag::TIME_MONOTONIC);
        self.errors(fields);
        let (slow, fast) = *self.periods.get_or_insert((*fields, *fields));
        let tick = |fields: &Fields| {
            Period::new(fields.counter_period_frac_sec, fields.counter_period_shift)
                .map_or(0, |period| period.span(1 << 32).units())
        };
        let slow = if tick(fields) > tick(&slow) {
            *fields
        } else {
            slow
        };
        let fast = if tick(fields) < tick(&fast) {
            *fields
        } else {
            fast
        };
        self.periods = Some((slow, fast));
    }

    #[inline(never)]
    fn errors(&mut self, fields: &Fields) {
        let exceeds = |estimated: Option<u64>, greatest: Option<u64>| {
            estimated
                .zip(greatest)
                .is_some_and(|(estimated, greatest)| estimated > greatest)
        };
        let time = exceeds(fields.time_esterror(), fields.time_maxerror());
        let period = exceeds(fields.period_esterror(), fields.period_maxerror());
        let whole = fields.period_maxerror() >= Some(fields.counter_period_frac_sec);
        if time || period || whole {
            let seq = fields.seq_count;
            let errors = Errors(fields);
            self.break_rule(Rule::Errors, &format_args!("{errors}, at seq_count {seq}"));
        }
    }

    /// Only the first evidence is kept.
    #[inline(never)]
    fn break_rule(&mut self, rule: Rule, evidence: &dyn Display) {
        if let Some(place @ None) = self.broken.get_mut(rule as usize) {
            *place = Some(Evidence::of(evidence));
        }
    }

    fn odd(&self) -> Outcome {
        let hertz = u128::from(self.hertz.max(1));
        let nanos = u128::from(self.odd_longest) * 1_000_000_000 / hertz;
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        let refused = self.refused;
        Outcome::of(
            nanos <= ODD_LONGEST,
            &format_args!(
                "at most {}, {refused} times no copy to be had",
                Width(nanos)
            ),
        )
    }

    fn time(&self) -> Outcome {
        let counter = self.last.map(|fields| Ticks(fields.counter_value));
        let reading = self.line.zip(counter);
        let reading = reading.and_then(|(line, counter)| line.at(counter).ok());
        match reading.map(|reading| (reading.utc, reading.tai)) {
            Some((Some(utc), _)) => Outcome::ok(&utc),
            Some((None, Some(tai))) => Outcome::ok(&format_args!("{tai} TAI")),
            _ => Outcome::ok(&format_args!("in {} copies", self.timed)),
        }
    }

    #[inline(never)]
    fn period(&self, rates: &Rates) -> Outcome {
        let Some((slow, fast)) = &self.periods else {
            return Outcome::skip(&"the page carries no time");
        };
        let known = [rates.measured, rates.stated];
        let mut known = known.iter().flatten();
        let page = PageRate(slow);
        let contradicted = known.find(|rate| rate.contradicts(slow) || rate.contradicts(fast));
        match (contradicted, rates.measured.or(rates.stated)) {
            (Some(rate), _) => {
                let page = if rate.contradicts(slow) {
                    page
                } else {
                    PageRate(fast)
                };
                Outcome::not_ok(&format_args!("{page} by the page, {rate}"))
            }
            (None, Some(rate)) => Outcome::ok(&format_args!("{page} by the page, {rate}")),
            (None, None) => Outcome::skip(&"nothing else is known of the counter's rate"),
        }
    }

    /// Promises from update to update.
    #[inline(never)]
    fn audited(&self, rule: Rule) -> Outcome {
        let violation = match rule {
            Rule::Nested => Violation::Interval,
            Rule::Monotonic => Violation::Monotonic,
            _ => Violation::TaiOffset,
        };
        let nearest = self.nearest.as_ref().filter(|_| rule == Rule::Nested);
        if let Some((evidence, ticks)) = nearest {
            let millis = u128::from(*ticks) * 1000 / u128::from(self.hertz.max(1));
            return Outcome::not_ok(&format_args!("{}, {millis} ms before", Found(evidence)));
        }
        if let Some(evidence) = self.audit.evidence(violation) {
            return Outcome::not_ok(&Found(evidence));
        }
        let updates = self.audit.updates();
        match rule {
            Rule::Nested if !self.bounded => Outcome::skip(&"the page gives no maximum errors"),
            Rule::Monotonic if !self.monotonic => Outcome::skip(&"TIME_MONOTONIC is not set"),
            _ if updates < 2 => Outcome::skip(&"the page was not updated while it was watched"),
            _ => Outcome::ok(&format_args!(
                "over {updates} updates, {} of them disruptions",
                self.audit.disruptions()
            )),
        }
    }

    #[inline(never)]
    fn over_a_stop(&self, rule: Rule) -> Outcome {
        let is_absent = self.flags & flag::VM_GEN_COUNTER_PRESENT == 0;
        if rule == Rule::Generation && is_absent {
            return Outcome::skip(&"VM_GEN_COUNTER_PRESENT is not set");
        }
        let Some((Stop { nanos }, before, after)) = &self.stop else {
            return Outcome::skip(&"nobody has stopped the machine");
        };
        let stopped = Width(*nanos);
        if rule == Rule::Generation {
            let [was, is] = [before, after].map(|side| side.fields.vm_generation());
            return match (was, is) {
                (Some(was), Some(is)) => Outcome::of(
                    was == is,
                    &format_args!("{was:#x}, then {is:#x}, over a stop of {stopped}"),
                ),
                _ => Outcome::skip(&"VM_GEN_COUNTER_PRESENT is not set all the time"),
            };
        }
        let (was, is) = (
            before.fields.disruption_marker,
            after.fields.disruption_marker,
        );
        if was != is {
            return Outcome::ok(&format_args!(
                "{was:#x}, then {is:#x}, over a stop of {stopped}"
            ));
        }
        let elapsed = after.elapsed_since(before);
        let Some((elapsed, error)) = elapsed else {
            return Outcome::skip(&format_args!(
                "unchanged over a stop of {stopped}, and the page carries no time that it could make wrong"
            ));
        };
        // The stop lies within what the two counter values enclose.
        let least = Span::from_nanos(i64::try_from(*nanos).unwrap_or(i64::MAX));
        let missing = Span::from_units(least.units().saturating_sub(elapsed.units()));
        let holds = missing <= Span::ZERO || error.contains(missing);
        let elapsed = Width(u64::try_from(elapsed.as_nanos_floor()).unwrap_or(0));
        Outcome::of(
            holds,
            &format_args!("{was:#x} before and after a stop of {stopped}, {elapsed} by the page"),
        )
    }
}

impl Around {
    /// How much time has passed by the pages, and what that may be wrong by.
    fn elapsed_since(&self, before: &Self) -> Option<(Span, Bound)> {
        let [before, after] = [before, self].map(|side| side.line?.at(side.ticks).ok());
        let (before, after) = (before?, after?);
        let elapsed = match (before.tai, after.tai, before.utc, after.utc) {
            (Some(before), Some(after), _, _) => after.since(before),
            (_, _, Some(before), Some(after)) => after.time.since(before.time),
            _ => None,
        }?;
        Some((elapsed, before.bound.plus(after.bound)))
    }
}

/// The flags of the error fields, which are a clock's.
const ERRORS: u64 = flag::PERIOD_ESTERROR_VALID
    | flag::PERIOD_MAXERROR_VALID
    | flag::TIME_ESTERROR_VALID
    | flag::TIME_MAXERROR_VALID;

/// Every flag that v1.1 knows.
const KNOWN: u64 = ERRORS
    | flag::TAI_OFFSET_VALID
    | flag::DISRUPTION_SOON
    | flag::DISRUPTION_IMMINENT
    | flag::TIME_MONOTONIC
    | flag::VM_GEN_COUNTER_PRESENT
    | flag::NOTIFICATION_PRESENT;

const fn constants(fields: &Fields) -> (u32, u32, u16, u8, u8) {
    (
        fields.magic,
        fields.size,
        fields.version,
        fields.counter_id,
        fields.time_type,
    )
}

/// The first field that differs.
fn changed(one: &Fields, other: &Fields) -> &'static str {
    let differs = [
        ("magic", one.magic != other.magic),
        ("size", one.size != other.size),
        ("version", one.version != other.version),
        ("counter_id", one.counter_id != other.counter_id),
        ("time_type", one.time_type != other.time_type),
        (
            "disruption_marker",
            one.disruption_marker != other.disruption_marker,
        ),
        ("flags", one.flags != other.flags),
        ("clock_status", one.clock_status != other.clock_status),
        ("counter_value", one.counter_value != other.counter_value),
        ("time_sec", one.time_sec != other.time_sec),
    ];
    let first = differs.iter().find(|(_, differs)| *differs);
    first.map_or("a field", |(name, _)| name)
}

/// Flags, and which of them are not known.
struct Flags(u64);

impl Display for Flags {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)?;
        match self.0 & !KNOWN {
            0 => Ok(()),
            unknown => write!(f, ", {unknown:#x} of them not known and ignored"),
        }
    }
}

/// The errors of a page, as far as they are flagged.
struct Errors<'a>(&'a Fields);

impl Display for Errors<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let fields = self.0;
        let time = [
            ("time est", fields.time_esterror()),
            ("max", fields.time_maxerror()),
        ];
        for (name, nanos) in time {
            match nanos {
                Some(nanos) => write!(f, "{name} {nanos} ns, ")?,
                None => write!(f, "{name} none, ")?,
            }
        }
        let period = [
            ("period est", fields.period_esterror()),
            ("max", fields.period_maxerror()),
        ];
        for (number, (name, rate)) in period.into_iter().enumerate() {
            let comma = if number == 0 { ", " } else { "" };
            match rate {
                Some(rate) => {
                    let whole = u128::from(fields.counter_period_frac_sec.max(1));
                    let ppb = u128::from(rate) * 1_000_000_000 / whole;
                    write!(f, "{name} {ppb} ppb{comma}")?;
                }
                None => write!(f, "{name} none{comma}")?,
            }
        }
        Ok(())
    }
}

/// Two readings that cannot both stand, in less than a line.
struct Found<'a>(&'a gnomon_clock::Evidence);

impl Display for Found<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let evidence = self.0;
        let [earlier, later] = [&evidence.earlier, &evidence.later];
        let (was, is) = (evidence.earlier_seq, evidence.later_seq);
        if let (Some(before), Some(after)) = (earlier.tai_offset, later.tai_offset)
            && evidence.violation == Violation::TaiOffset
        {
            return write!(f, "TAI-UTC {before} by seq_count {was}, {after} by {is}");
        }
        let apart = match (earlier.tai, later.tai, earlier.utc, later.utc) {
            (Some(earlier), Some(later), _, _) => later.since(earlier),
            (_, _, Some(earlier), Some(later)) => later.time.since(earlier.time),
            _ => None,
        };
        let nanos = apart.map_or(0, Span::as_nanos_floor);
        let bound = Width(earlier.bound.nanos());
        write!(
            f,
            "seq_count {is} puts counter {} {nanos} ns from where {was} had it, ± {bound}",
            evidence.earlier.ticks.0
        )
    }
}
