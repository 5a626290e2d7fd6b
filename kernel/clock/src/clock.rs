//! The clock that the service reads: a page, this machine's counter, and the rule that no answer
//! carries time from across a disruption.

use core::fmt;

use crate::audit::Audit;
use crate::leap::{LeapSecond, OperatorOffset};
use crate::page::{Busy, CounterId, Fields, VmclockPage};
use crate::time::Ticks;
use crate::timeline::{Reading, Timeline, Unusable};

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

/// A page, if there is one, and this machine's counter.
#[derive(Debug)]
pub struct Clock<'p, C> {
    page: Option<&'p VmclockPage>,
    counter: C,
    /// The marker under which time was last valid, or that at the start.
    marker: u64,
    /// The page under which time was last valid.
    last: Option<Timeline>,
    /// The page that was looked at last, if it gave a timeline.
    seen: Fields,
    /// That timeline is `last`, and nothing was refused since: the same page would give the same again.
    settled: bool,
    /// The latest exchange, if it is by `last` and that is settled.
    exchanged: Option<Exchange>,
    /// The marker has moved since, and time has not been valid yet.
    stepped: bool,
    /// The host itself has taken the time back since then, under a marker that has moved.
    withdrawn: bool,
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
    /// A clock by `counter` and `page`. Without a page there is never any time.
    #[must_use]
    pub fn new(page: Option<&'p VmclockPage>, counter: C) -> Self {
        let marker = page.map_or(0, VmclockPage::marker);
        Self {
            page,
            counter,
            marker,
            last: None,
            seen: Fields::stock(),
            settled: false,
            exchanged: None,
            stepped: false,
            withdrawn: false,
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
    pub fn now(&mut self) -> Result<Reading, NoTime> {
        if let Some((line, ticks)) = self.recall()
            && let Ok(reading) = line.at(ticks)
        {
            return Ok(reading);
        }
        let (timeline, ticks) = self.look()?;
        let reading = timeline.at(ticks);
        self.settle(reading, &timeline)
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
        if let Some((_, ticks)) = self.recall()
            && let (Some(line), Some(exchange)) = (&self.last, &mut self.exchanged)
        {
            if received.marker != line.marker() || ticks.since(received.ticks) < 0 {
                return Err(NoTime::StaleStamp);
            }
            if line.renew(&mut exchange.received, received.ticks).is_ok()
                && line.renew(&mut exchange.transmit, ticks).is_ok()
            {
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

    /// The line of the page and the counter, if that is to the last bit the page that served before:
    /// nothing has to be made again, and nothing can have changed.
    #[inline]
    fn recall(&mut self) -> Option<(&Timeline, Ticks)> {
        let (page, line) = (self.page?, self.last.as_ref().filter(|_| self.settled)?);
        let ticks = page.still_with(&self.seen, || self.counter.read())?;
        self.audit.observe(self.seen.seq_count, line, ticks);
        Some((line, ticks))
    }

    /// The exchange by a page that may be new.
    #[inline(never)]
    fn exchange_anew(&mut self, received: Stamp) -> Result<(), NoTime> {
        let (timeline, ticks) = self.look()?;
        let transmit = timeline.at(ticks);
        let transmit = self.settle(transmit, &timeline)?;
        // A counter that went back was disrupted, whether the marker says so or not.
        if received.marker != transmit.marker || ticks.since(received.ticks) < 0 {
            return Err(NoTime::StaleStamp);
        }
        let received = timeline.at(received.ticks);
        let received = self.settle(received, &timeline)?;
        self.exchanged = Some(Exchange { received, transmit });
        Ok(())
    }

    /// The raw page, for people to look at; `None` without a page.
    #[must_use]
    pub fn fields(&self) -> Option<Result<Fields, Busy>> {
        self.page.map(VmclockPage::snapshot)
    }

    fn look(&mut self) -> Result<(Timeline, Ticks), NoTime> {
        self.settled = false;
        self.exchanged = None;
        let page = self.page.ok_or(NoTime::NoPage)?;
        let (fields, ticks) = page
            .snapshot_with(|| self.counter.read())
            .map_err(NoTime::Busy)?;
        let operator = self.operator.map(|operator| operator.at(&fields));
        match Timeline::with_operator_offset(&fields, C::ID, operator) {
            Ok(timeline) if self.is_left_over(&timeline) => {
                Err(self.refuse(Unusable::NotUpdated, fields.disruption_marker))
            }
            Ok(timeline) => {
                self.operator = operator.map(|offset| Operator {
                    offset,
                    page: timeline.leap_knowledge(),
                });
                self.audit.observe(fields.seq_count, &timeline, ticks);
                self.seen = fields;
                Ok((timeline, ticks))
            }
            Err(why) => Err(self.refuse(why, fields.disruption_marker)),
        }
    }

    fn settle(
        &mut self,
        reading: Result<Reading, Unusable>,
        timeline: &Timeline,
    ) -> Result<Reading, NoTime> {
        match reading {
            Ok(reading) => {
                self.marker = reading.marker;
                self.last = Some(*timeline);
                self.settled = true;
                self.stepped = false;
                self.withdrawn = false;
                Ok(reading)
            }
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
    fn refuse(&mut self, why: Unusable, marker: u64) -> NoTime {
        self.withdrawn |= marker != self.marker && why != Unusable::NotUpdated;
        self.stepped |= marker != self.marker;
        NoTime::Unusable {
            why,
            stepped: self.stepped,
        }
    }
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
