//! The clock that the service reads: a page, this machine's counter, a line of its own for a page
//! that has no time, and the rule that no answer carries time from across a disruption.

use core::fmt;

use crate::audit::Audit;
use crate::cross::Origin;
use crate::leap::{LeapSecond, OperatorOffset, UtcTime};
use crate::page::{Busy, ClockStatus, CounterId, Fields, LEN_WITH_MARKER, VmclockPage, Words};
use crate::scale::Period;
use crate::time::{Bound, Tai, Ticks, Timestamp};
use crate::timeline::{Reading, Timeline, Unusable};
use crate::window::{Moment, Window};

/// The hardware counter of this machine.
pub trait Counter {
    /// What the page must call it.
    const ID: CounterId;

    /// The counter now, read after every earlier load has its value and before any later one: by
    /// the compiler (assembly that may touch memory) and in execution. On x86 that is
    /// `lfence; rdtsc; lfence`; on Arm `isb; mrs; isb`, where an `isb` by itself waits for earlier
    /// loads only if a branch or a `dsb` does.
    fn read(&self) -> Ticks;
}

/// A counter value taken before the page was looked at, such as the arrival of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The counter.
    pub ticks: Ticks,
    /// The disruption marker from *before* the counter was read: a disruption between the two
    /// leaves the stamp with the old marker, and the stamp is refused later.
    pub marker: u64,
}

/// Both times of a request served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// When the request arrived.
    pub received: Reading,
    /// When the page was read for the answer.
    pub transmit: Reading,
}

/// The time now, with its bound and all that the page says with it, where the clock keeps that.
#[derive(Clone, Copy, Debug)]
pub struct Now<'c> {
    /// A reading at most a second before, from which only the time and the bound have moved on.
    first: &'c Reading,
    moment: Moment,
}

impl Now<'_> {
    /// The counter value.
    #[must_use]
    #[inline]
    pub const fn ticks(&self) -> Ticks {
        self.moment.ticks
    }

    /// TAI, as in [`Reading::tai`].
    #[must_use]
    #[inline]
    pub fn tai(&self) -> Option<Timestamp<Tai>> {
        self.first.tai.map(|tai| tai.later(self.moment.later))
    }

    /// UTC, as in [`Reading::utc`].
    #[must_use]
    #[inline]
    pub fn utc(&self) -> Option<UtcTime> {
        let later = |utc: UtcTime| UtcTime {
            time: utc.time.later(self.moment.later),
            ..utc
        };
        self.first.utc.map(later)
    }

    /// True time lies within ± this of `tai` and `utc`, if the host, or the source, speaks the truth.
    #[must_use]
    #[inline]
    pub const fn bound(&self) -> Bound {
        self.moment.bound
    }

    /// Synchronised or freerunning.
    #[must_use]
    #[inline]
    pub const fn status(&self) -> ClockStatus {
        self.first.status
    }

    /// The disruption marker under which this holds.
    #[must_use]
    #[inline]
    pub const fn marker(&self) -> u64 {
        self.first.marker
    }

    /// Everything that there is to say.
    #[must_use]
    pub fn reading(&self) -> Reading {
        self.first.at(&self.moment)
    }
}

/// A page, if there is one, and this machine's counter.
///
/// # A line of one's own
///
/// Most pages carry the disruption marker and no time. Beside such a page a line from another source
/// ([`set_own`](Self::set_own)) serves, for as long as the page has the marker that the line was drawn
/// under: both are looked at in the snapshot that the answer rests on. If the marker has moved there is no
/// time, in that very answer ([`Kiss::Step`]), and the line is dropped for good; a marker that comes back
/// does not bring it back. So it is when the counter is behind the line's reference.
///
/// | The page | What is served |
/// |---|---|
/// | has a time | the page's; the own line waits |
/// | has none, for whatever reason, or one [left over](Fields::sealed) from before a disruption | the own line |
/// | says that the host's clock is initializing or unreliable | an own line from elsewhere ([`Source::Ntp`](crate::Source::Ntp)), for the others read that very clock |
/// | is being written, or has no valid header, and thus perhaps no marker | nothing |
/// | is not there | the own line, unguarded: [`has_marker`](Self::has_marker) |
///
/// An own line lives in guest memory, which a snapshot brings along with everything in it: no seal and no
/// reference point can show that it is old, and the counter is restored with it. The marker is the
/// only guard. It is enough, because whoever restores the machine raises it before the machine runs (QEMU
/// when it has loaded the device's state, Firecracker likewise).
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, not a state"
)]
#[derive(Debug)]
pub struct Clock<'p, C> {
    page: Option<&'p VmclockPage>,
    counter: C,
    /// The marker under which time was last valid, or that at the start.
    marker: u64,
    /// The page under which time was last valid.
    last: Option<Timeline>,
    /// The page that was looked at last, if it gave a timeline.
    seen: Words,
    /// Part of that timeline, if it is `last` and nothing was refused since: while the page is the same, a
    /// look at it would give that again.
    window: Window,
    /// The reading at the beginning of the window; without one, the latest.
    first: Reading,
    /// The latest exchange, if it is of the window.
    exchanged: Option<Exchange>,
    /// The marker has moved since, and time has not been valid yet.
    stepped: bool,
    /// The host itself has taken the time back since then, under a marker that has moved.
    withdrawn: bool,
    /// Time from an own line has been valid since the marker moved last.
    renewed: bool,
    own: Option<Timeline>,
    /// Whether the page's time is to be used.
    page_is_wanted: bool,
    audit: Audit,
    operator: Option<Operator>,
}

/// The operator's offset, as in force at the last page.
#[derive(Clone, Copy, Debug)]
struct Operator {
    offset: OperatorOffset,
    /// That page's reference instant in seconds of UTC, and the leap second it told of.
    page: Option<(i64, Option<LeapSecond>)>,
}

impl Operator {
    fn at(&self, fields: &Fields) -> OperatorOffset {
        match self.page {
            Some((second, leap)) => self.offset.carried(second, leap, fields),
            None => self.offset,
        }
    }
}

impl<'p, C: Counter> Clock<'p, C> {
    /// A clock by `counter` and `page`. Without a page there is only the time of an own line.
    #[must_use]
    pub fn new(page: Option<&'p VmclockPage>, counter: C) -> Self {
        let marker = page.map_or(0, VmclockPage::marker);
        Self {
            page,
            counter,
            marker,
            last: None,
            seen: Words::default(),
            window: Window::NONE,
            first: Reading::NONE,
            exchanged: None,
            stepped: false,
            withdrawn: false,
            renewed: false,
            own: None,
            page_is_wanted: true,
            audit: Audit::new(),
            operator: None,
        }
    }

    /// The clock with an operator's TAI − UTC, for pages that do not tell it. It never replaces one
    /// that the page has: [`Reading::operator`] says what became of it.
    #[must_use]
    pub fn with_operator_offset(self, offset: OperatorOffset) -> Self {
        let operator = Some(Operator { offset, page: None });
        Self { operator, ..self }
    }

    /// The clock with the page's marker and without its time, which the operator does not want.
    #[must_use]
    pub fn without_page_time(self) -> Self {
        Self {
            page_is_wanted: false,
            ..self
        }
    }

    /// Puts a line in place of the own one, for when the page has no time; `None` takes it away.
    /// Returns whether it is in place: not if it is a page's line, or of another marker than the page
    /// has now (0 without a page).
    ///
    /// After an answer that tells of a step, the samples from before it are void as well
    /// ([`Estimator::forget`](crate::Estimator::forget)), even if the old marker should return.
    pub fn set_own(&mut self, line: Option<Timeline>) -> bool {
        let marker = self.page.map_or(0, VmclockPage::marker);
        let is_good = line
            .is_none_or(|line| line.marker() == marker && matches!(line.origin(), Origin::Own(_)));
        if is_good {
            self.own = line;
        }
        is_good
    }

    /// The own line, in use or waiting.
    #[must_use]
    pub const fn own(&self) -> Option<&Timeline> {
        self.own.as_ref()
    }

    /// Whether there is a page, and so a disruption marker, to guard the own line. Without one a
    /// restored snapshot, or a migration to a host with another counter, goes unnoticed until the source
    /// contradicts the line, or the counter is behind it.
    #[must_use]
    pub const fn has_marker(&self) -> bool {
        self.page.is_some()
    }

    /// What the updates seen so far are worth.
    #[must_use]
    pub const fn audit(&self) -> &Audit {
        &self.audit
    }

    /// The counter now, for [`exchange`](Self::exchange): a load and a counter read.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        let marker = self.page.map_or(0, VmclockPage::marker);
        Stamp {
            ticks: self.counter.read(),
            marker,
        }
    }

    /// The time now.
    ///
    /// # Errors
    /// [`NoTime`], but never `StaleStamp`.
    #[expect(
        clippy::inline_always,
        reason = "out of line, half of its time is to write down what its caller reads back"
    )]
    #[inline(always)]
    pub fn now(&mut self) -> Result<Now<'_>, NoTime> {
        let moment = match self.again() {
            Some(moment) => moment,
            None => self.anew()?,
        };
        Ok(Now {
            first: &self.first,
            moment,
        })
    }

    /// The time now, and all that has to be said with it, in one.
    ///
    /// # Errors
    /// As for [`now`](Self::now).
    pub fn reading(&mut self) -> Result<Reading, NoTime> {
        self.now().map(|now| now.reading())
    }

    /// The times of arrival and answer by one snapshot of the page, taken now.
    ///
    /// # Errors
    /// [`NoTime`]; `StaleStamp` only when the page is otherwise good.
    pub fn exchange(&mut self, received: Stamp) -> Result<Exchange, NoTime> {
        self.exchange_in_place(received)?;
        self.exchanged.ok_or(NoTime::StaleStamp)
    }

    /// The same without a copy: the times are then in [`exchanged`](Self::exchanged).
    ///
    /// # Errors
    /// As for [`exchange`](Self::exchange).
    #[inline]
    pub fn exchange_in_place(&mut self, received: Stamp) -> Result<(), NoTime> {
        if let Some(transmit) = self.again()
            && let Some(arrival) = self.window.at(received.ticks)
            && transmit.ticks.since(arrival.ticks) >= 0
            && received.marker == self.first.marker
        {
            if self.exchanged.is_none() {
                self.begin_exchanges();
            }
            if let Some(exchange) = &mut self.exchanged {
                exchange.received.renew(&self.first, &arrival);
                exchange.transmit.renew(&self.first, &transmit);
                return Ok(());
            }
        }
        self.exchange_anew(received)
    }

    /// The times of the latest exchange, if it gave any.
    #[must_use]
    pub const fn exchanged(&self) -> Option<&Exchange> {
        self.exchanged.as_ref()
    }

    /// Now by the window, if the page is to the last bit the one that the window was made of: nothing has to
    /// be made again, and nothing can have changed.
    #[expect(clippy::inline_always, reason = "what follows takes it from registers")]
    #[inline(always)]
    fn again(&mut self) -> Option<Moment> {
        // What can be worked out before the page is compared is, so that both go on at once.
        let moment = self.page?.still_with(&self.seen, || {
            let ticks = self.counter.read();
            let goes_on = self.audit.goes_on(ticks);
            self.window.at(ticks).filter(|_| goes_on)
        })?;
        self.audit.follow(moment.ticks);
        Some(moment)
    }

    /// An exchange to be renewed in place all along the window.
    #[cold]
    fn begin_exchanges(&mut self) {
        self.exchanged = Some(Exchange {
            received: self.first,
            transmit: self.first,
        });
    }

    /// Now by a page that may be new.
    #[inline(never)]
    fn anew(&mut self) -> Result<Moment, NoTime> {
        let (line, ticks) = self.look()?;
        self.first = self.settle(line.at(ticks), &line)?;
        let moment = match line.origin() {
            Origin::Page => self.open_window(ticks),
            Origin::Own(_) => None,
        };
        Ok(moment.unwrap_or(Moment::of(&self.first)))
    }

    /// Makes the window of the page's line around a counter value, if there is one.
    #[inline(never)]
    fn open_window(&mut self, ticks: Ticks) -> Option<Moment> {
        let line = self.last.as_ref()?;
        let window = Window::around(line, ticks)?;
        let moment = window.at(ticks)?;
        self.first = line.at(window.begin()).ok()?;
        self.window = window;
        Some(moment)
    }

    /// The exchange by a page that may be new.
    #[inline(never)]
    fn exchange_anew(&mut self, stamp: Stamp) -> Result<(), NoTime> {
        let moment = self.anew()?;
        // A counter that went back was disrupted, whether the marker says so or not.
        if stamp.marker != self.first.marker || moment.ticks.since(stamp.ticks) < 0 {
            return Err(NoTime::StaleStamp);
        }
        let transmit = self.first.at(&moment);
        let received = match self.window.at(stamp.ticks) {
            Some(arrival) => self.first.at(&arrival),
            None => self.arrival_by_the_line(stamp)?,
        };
        self.exchanged = Some(Exchange { received, transmit });
        Ok(())
    }

    /// An arrival outside the window of the answer.
    #[cold]
    fn arrival_by_the_line(&mut self, stamp: Stamp) -> Result<Reading, NoTime> {
        // What is said of the arrival need not be what is said in the window: nothing to go on from.
        self.window = Window::NONE;
        let reading = self.line().ok_or(NoTime::StaleStamp)?.at(stamp.ticks);
        match reading {
            Ok(mut reading) => {
                // What a page tells beside an own line.
                reading.generation = self.first.generation;
                reading.disruption = self.first.disruption;
                reading.smearing_hint = self.first.smearing_hint;
                Ok(reading)
            }
            // Settled already, unless this one is out of range.
            Err(why) => Err(self.refuse(why, stamp.marker)),
        }
    }

    /// How long a tick is by the line that the latest time was told from; `None` without one.
    #[must_use]
    pub fn period(&self) -> Option<Period> {
        self.line().map(Timeline::period)
    }

    /// The line that the latest time was told from.
    const fn line(&self) -> Option<&Timeline> {
        match self.first.origin {
            Origin::Page => self.last.as_ref(),
            Origin::Own(_) => self.own.as_ref(),
        }
    }

    /// Whether a disruption has taken the page's time, and the page has had none since. A line of our own may serve.
    #[must_use]
    pub const fn has_stepped(&self) -> bool {
        self.stepped
    }

    /// The raw page, for people to look at; `None` without a page.
    #[must_use]
    pub fn fields(&self) -> Option<Result<Fields, Busy>> {
        self.page.map(VmclockPage::snapshot)
    }

    fn look(&mut self) -> Result<(Timeline, Ticks), NoTime> {
        let had_window = !self.window.is_empty();
        self.window = Window::NONE;
        self.exchanged = None;
        let Some(page) = self.page else {
            return self.look_unguarded();
        };
        let (words, ticks) = page
            .words_with(|| self.counter.read())
            .map_err(NoTime::Busy)?;
        if had_window
            && words == self.seen
            && self.audit.goes_on(ticks)
            && let Some(line) = self.last
        {
            // Only the window is over.
            self.audit.follow(ticks);
            return Ok((line, ticks));
        }
        let fields = Fields::from_words(&words);
        let operator = self.operator.map(|operator| operator.at(&fields));
        let marker = fields.disruption_marker;
        if self.own.is_some_and(|own| own.marker() != marker) {
            self.own = None;
        }
        match Timeline::with_operator_offset(&fields, C::ID, operator) {
            Ok(_) if !self.page_is_wanted => self.fall_back(Unusable::Unwanted, &fields, ticks),
            Ok(timeline) if self.is_left_over(&timeline) => {
                self.fall_back(Unusable::NotUpdated, &fields, ticks)
            }
            Ok(timeline) => {
                self.operator = operator.map(|offset| Operator {
                    offset,
                    page: timeline.leap_knowledge(),
                });
                self.audit.observe(fields.seq_count, &timeline, ticks);
                self.seen = words;
                Ok((timeline, ticks))
            }
            Err(why) => self.fall_back(why, &fields, ticks),
        }
    }

    /// The own line, if the page that has no time because of `why` allows it. Out of line: a page with
    /// time never comes here.
    #[inline(never)]
    fn fall_back(
        &mut self,
        why: Unusable,
        fields: &Fields,
        ticks: Ticks,
    ) -> Result<(Timeline, Ticks), NoTime> {
        let refused = self.refuse(why, fields.disruption_marker);
        let Some(own) = self.own.filter(|own| allows(fields, why, own.origin())) else {
            return Err(refused);
        };
        self.check_own(&own, ticks)?;
        Ok((own.beside(fields), ticks))
    }

    /// The own line where there is no page.
    #[cold]
    fn look_unguarded(&mut self) -> Result<(Timeline, Ticks), NoTime> {
        let own = self.own.ok_or(NoTime::NoPage)?;
        let ticks = self.counter.read();
        self.check_own(&own, ticks)?;
        Ok((own, ticks))
    }

    /// Whether the own line can be used at `ticks`. Its reference is a counter value that was read, so
    /// that a counter behind it has been disrupted, whatever the marker says.
    fn check_own(&mut self, own: &Timeline, ticks: Ticks) -> Result<(), NoTime> {
        if ticks.since(own.counter()) < 0 {
            self.own = None;
            self.stepped = true;
            self.renewed = false;
            return Err(self.no_time(Unusable::CounterBack));
        }
        if own.is_expired(ticks) {
            return Err(self.no_time(Unusable::Expired));
        }
        Ok(())
    }

    fn settle(
        &mut self,
        reading: Result<Reading, Unusable>,
        timeline: &Timeline,
    ) -> Result<Reading, NoTime> {
        match reading {
            Ok(reading) if reading.origin != Origin::Page => {
                // What is known of the page's own time stands, for it is not back.
                self.marker = reading.marker;
                self.renewed = true;
                Ok(reading)
            }
            Ok(reading) => {
                self.marker = reading.marker;
                self.last = Some(*timeline);
                self.stepped = false;
                self.withdrawn = false;
                Ok(reading)
            }
            // The page has been refused before.
            Err(why) if timeline.origin() != Origin::Page => Err(self.no_time(why)),
            Err(why) => Err(self.refuse(why, timeline.marker())),
        }
    }

    /// Whether the page is one from before a disruption, under the new marker: its line is the line
    /// that served before, told from a point that is no later, or its seal is broken
    /// ([`Fields::sealed`]).
    ///
    /// A restored snapshot and an incoming migration bring the page's memory along, time and all, and
    /// QEMU raises the marker in it before anybody writes the time of now. The counter was restored
    /// with it, so such a page would serve the time of the snapshot as if nothing had happened. A
    /// page that was written since has a later reference point, or lies on another line, or the host
    /// has said in between, under the new marker, that there was no time.
    fn is_left_over(&self, timeline: &Timeline) -> bool {
        if self.withdrawn {
            return false;
        }
        match &self.last {
            Some(last) => {
                let disrupted = self.stepped || timeline.marker() != last.marker();
                disrupted && timeline.is_older_on_the_line_of(last)
            }
            // Restored before it had ever seen a time.
            None => timeline.is_seal_broken(),
        }
    }

    /// Remembers a step until time is valid again, even if the marker came back.
    #[inline(never)]
    fn refuse(&mut self, why: Unusable, marker: u64) -> NoTime {
        if marker != self.marker {
            self.withdrawn |= why != Unusable::NotUpdated;
            self.stepped = true;
            self.renewed = false;
        }
        self.no_time(why)
    }

    const fn no_time(&self, why: Unusable) -> NoTime {
        NoTime::Unusable {
            why,
            stepped: self.stepped && !self.renewed,
        }
    }
}

/// Whether a page that has no time because of `why` allows one of another origin.
///
/// Its marker has to be one: the header is valid as far as that. And a host that says of its own clock that
/// it is not, or not yet, right has said so of every other way of reading it. `Unknown` says nothing:
/// it is what a page without time has.
fn allows(fields: &Fields, why: Unusable, origin: Origin) -> bool {
    let has_marker = match why {
        Unusable::Magic(_) | Unusable::Version(_) => false,
        Unusable::Size(size) => size >= LEN_WITH_MARKER,
        _ => true,
    };
    let disowned = [ClockStatus::Initializing, ClockStatus::Unreliable]
        .map(|status| status as u8)
        .contains(&fields.clock_status);
    has_marker && !(disowned && matches!(origin, Origin::Own(source) if source.is_host_clock()))
}

/// Why there is no time now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTime {
    /// There is no vmclock page.
    NoPage,
    /// The page could not be read.
    Busy(Busy),
    /// The page has no time for us.
    Unusable {
        /// The reason.
        why: Unusable,
        /// The disruption marker has moved since time was last valid.
        stepped: bool,
    },
    /// A disruption came between the stamp and the page (the marker moved, or the counter went
    /// back): the request must be dropped, for nobody can tell when it arrived.
    StaleStamp,
}

impl NoTime {
    /// What to tell clients of NTP (RFC 5905 §7.4). Nothing is sent for a `StaleStamp`.
    #[must_use]
    pub const fn kiss(&self) -> Kiss {
        match self {
            Self::Unusable { stepped: true, .. } => Kiss::Step,
            _ => Kiss::Init,
        }
    }
}

impl fmt::Display for NoTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPage => f.write_str("no vmclock page"),
            Self::Busy(busy) => busy.fmt(f),
            Self::Unusable {
                why,
                stepped: false,
            } => why.fmt(f),
            Self::Unusable { why, stepped: true } => write!(f, "{why} (after a disruption)"),
            Self::StaleStamp => f.write_str("disruption since the request arrived"),
        }
    }
}

impl core::error::Error for NoTime {}

/// A kiss code for clients that ask while there is no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kiss {
    /// Not yet synchronised.
    Init,
    /// Time has stepped and is not known again yet.
    Step,
}
