//! A scenario while it is played: which statement is next, and what it makes of the host's time.

use core::time::Duration;
use std::collections::BTreeMap;

use gnomon_clock::Timestamp;
use gnomon_clock::calendar::{DAY, Date};
use gnomon_clock::page::flag;
use gnomon_clock::{Bound, ClockStatus, Fields, LeapIndicator, Period, SmearingHint, Span, Tai};

use crate::estimate::Estimate;
use crate::host::Sample;
use crate::mapping::Mapping;
use crate::page::{self, Scale};
use crate::scenario::{Act, Change, Field, Generation, LeapStory, Scenario, Statement};

/// TAI − UTC of a host that does not know it.
const OFFSET: i16 = 37;

/// The true time of a scenario, as long as its rate and origin stay: a straight line over the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The host's TAI at some moment.
    pub host: Timestamp<Tai>,
    /// The scenario's at that moment.
    pub scenario: Timestamp<Tai>,
    /// How much faster than the host's clock it runs, in 10⁻⁹.
    pub rate_ppb: i64,
}

impl Piece {
    /// The host's own time.
    pub(crate) const HONEST: Self = Self {
        host: Timestamp::from_parts(0, 0),
        scenario: Timestamp::from_parts(0, 0),
        rate_ppb: 0,
    };

    /// The scenario's time when the host's is `host`, truncated to 2⁻⁶⁴ s; `None` out of range.
    #[must_use]
    pub fn at(&self, host: Timestamp<Tai>) -> Option<Timestamp<Tai>> {
        let elapsed = host.since(self.host)?;
        let gained = match self.rate_ppb {
            0 => 0,
            ppb => elapsed.units().checked_mul(ppb.into())?.div_euclid(PPB),
        };
        self.scenario
            .checked_add(elapsed)?
            .checked_add(Span::from_units(gained))
    }
}

const PPB: i128 = 1_000_000_000;

/// What to do with a page that has been made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Commit {
    /// It is what an honest publisher would write next.
    Next,
    /// It is written whatever was promised before, under this marker, or another new one.
    Forced(MarkerChange),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MarkerChange {
    None,
    New,
    Is(u64),
}

#[derive(Debug)]
pub(crate) struct Player {
    scenario: Scenario,
    constants: Fields,
    at: usize,
    /// Times left of the repetitions around the next step.
    left: Vec<u64>,
    state: State,
    /// Changes that no page shows yet.
    dirty: bool,
    marker: MarkerChange,
    /// To be set at the next update.
    date: Option<Span>,
    step: Span,
    rate: Option<i64>,
    piece: Piece,
    /// The time of the last page.
    last: Timestamp<Tai>,
    /// No page has been made yet.
    fresh: bool,
}

/// What is published.
#[derive(Debug)]
struct State {
    scale: Scale,
    /// TAI − UTC before the leap second, if it was given.
    offset: Option<i16>,
    hide_offset: bool,
    leap: LeapStory,
    /// Start of the month after the leap second, in UTC.
    month: Option<i64>,
    status: Option<ClockStatus>,
    smear: SmearingHint,
    on: u64,
    off: u64,
    generation: Generation,
    widen: u64,
    set: BTreeMap<Field, i128>,
}

impl State {
    fn new(scale: Scale) -> Self {
        Self {
            scale,
            offset: None,
            hide_offset: false,
            leap: LeapStory::None,
            month: None,
            status: None,
            smear: SmearingHint::Strict,
            on: 0,
            off: 0,
            generation: Generation::None,
            widen: 0,
            set: BTreeMap::new(),
        }
    }
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Act { line: usize, act: Act },
    Interval(Duration),
    End,
}

impl Player {
    /// A player for a page with these constants.
    pub(crate) fn new(scenario: Scenario, scale: Scale, constants: Fields) -> Self {
        Self {
            scenario,
            constants,
            at: 0,
            left: Vec::new(),
            state: State::new(scale),
            dirty: true,
            marker: MarkerChange::New,
            date: None,
            step: Span::ZERO,
            rate: None,
            piece: Piece::HONEST,
            last: Timestamp::from_parts(0, 0),
            fresh: true,
        }
    }

    /// Takes all changes up to the next act or interval. Bounded by the length of a scenario.
    pub(crate) fn next(&mut self) -> Next {
        while let Some(step) = self.scenario.steps.get(self.at) {
            self.at += 1;
            match &step.statement {
                Statement::Act(act) => {
                    return Next::Act {
                        line: step.line,
                        act: act.clone(),
                    };
                }
                Statement::Change(Change::Interval(time)) => return Next::Interval(*time),
                Statement::Change(change) => {
                    let change = *change;
                    self.change(&change);
                }
                Statement::Repeat(times) => self.left.push(*times),
                Statement::End(start) => match self.left.last_mut() {
                    Some(left @ 2..) => {
                        *left -= 1;
                        self.at = start + 1;
                    }
                    _ => drop(self.left.pop()),
                },
            }
        }
        Next::End
    }

    fn change(&mut self, change: &Change) {
        self.dirty = true;
        let state = &mut self.state;
        match *change {
            Change::Date(date) => {
                self.date = Some(date);
                self.marker = MarkerChange::New;
                state.month = None;
            }
            Change::Step(step) => {
                self.step = Span::from_units(self.step.units().saturating_add(step.units()));
            }
            Change::Rate { ppb } => self.rate = Some(ppb),
            Change::Scale(scale) => state.scale = scale,
            Change::Offset(None) => state.hide_offset = true,
            Change::Offset(offset) => (state.offset, state.hide_offset) = (offset, false),
            Change::Leap(story) => {
                if story == LeapStory::None
                    && let (Some(month), Some(offset)) = (state.month, state.offset)
                {
                    // Of a leap second that is over, the offset stays.
                    state.offset = Some(told(state.leap, offset, month, self.last).0);
                }
                (state.leap, state.month) = (story, None);
            }
            Change::Status(status) => state.status = status,
            Change::Smear(hint) => state.smear = hint,
            Change::Flags { on, off } => (state.on, state.off) = (on, off),
            Change::Generation(Generation::Next) => {
                state.generation = Generation::Is(match state.generation {
                    Generation::Is(number) => number.wrapping_add(1),
                    _ => 1,
                });
            }
            Change::Generation(generation) => state.generation = generation,
            Change::Marker(None) => self.marker = MarkerChange::New,
            Change::Marker(Some(number)) => self.marker = MarkerChange::Is(number),
            Change::Widen { nanos } => state.widen = nanos,
            Change::Set(field, Some(value)) => drop(state.set.insert(field, value)),
            Change::Set(field, None) => drop(state.set.remove(&field)),
            Change::Interval(_) => {}
            Change::Honest => {
                self.state = State::new(state.scale);
                (self.date, self.step, self.rate) = (None, Span::ZERO, None);
                (self.piece, self.fresh) = (Piece::HONEST, true);
                self.marker = MarkerChange::New;
            }
        }
    }

    /// Whether there are changes that no page shows yet.
    pub(crate) const fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// The page that this estimate gives, with everything that has changed since the last; the second
    /// piece is the truth from then on, if it is another one.
    pub(crate) fn page(
        &mut self,
        estimate: &Estimate,
        sample: &Sample,
        mapping: &Mapping,
    ) -> Option<(Fields, Commit, Piece)> {
        let host_offset = sample.offset.and_then(|offset| i16::try_from(offset).ok());
        if core::mem::take(&mut self.fresh) {
            // A host that does not know TAI shows UTC.
            let ahead = i64::from(host_offset.map_or(OFFSET, |_| 0));
            self.piece.scenario = self.piece.host.checked_add(Span::from_seconds(ahead))?;
        }
        let offset = *self
            .state
            .offset
            .get_or_insert(host_offset.unwrap_or(OFFSET));
        let mut now = self.piece.at(estimate.time)?;
        let moved = self.date.is_some() || self.step != Span::ZERO;
        if let Some(date) = self.date.take() {
            now = Timestamp::from_parts(offset.into(), 0).checked_add(date)?;
        }
        now = now.checked_add(core::mem::replace(&mut self.step, Span::ZERO))?;
        self.last = now;
        let published_rate = self.piece.rate_ppb;
        if moved || self.rate.is_some() {
            self.piece = Piece {
                host: estimate.time,
                scenario: now,
                rate_ppb: self.rate.take().unwrap_or(published_rate),
            };
        }
        // Time that goes on has passed with the old rate; time that jumps has no past.
        let rate = if moved {
            self.piece.rate_ppb
        } else {
            published_rate
        };
        let mut fields = self.told(&seen(estimate, now, rate)?, sample, mapping, offset)?;
        self.overwrite(&mut fields);
        let forced = core::mem::take(&mut self.dirty);
        let marker = core::mem::replace(&mut self.marker, MarkerChange::None);
        let commit = if forced {
            Commit::Forced(marker)
        } else {
            Commit::Next
        };
        Some((fields, commit, self.piece))
    }

    /// What an honest host says of this time.
    fn told(
        &mut self,
        estimate: &Estimate,
        sample: &Sample,
        mapping: &Mapping,
        offset: i16,
    ) -> Option<Fields> {
        let month = if let Some(month) = self.state.month {
            month
        } else {
            let utc = estimate.time.seconds().checked_sub(offset.into())?;
            *self.state.month.insert(next_month(utc)?)
        };
        let (offset, indicator) = told(self.state.leap, offset, month, estimate.time);
        let sample = Sample {
            offset: Some(offset.into()),
            ..sample.clone()
        };
        let fields = page::valid(estimate, &sample, mapping, self.state.scale);
        Some(Fields {
            magic: self.constants.magic,
            size: self.constants.size,
            version: self.constants.version,
            leap_indicator: indicator as u8,
            leap_second_smearing_hint: self.state.smear as u8,
            clock_status: self
                .state
                .status
                .map_or(fields.clock_status, |status| status as u8),
            ..fields
        })
    }

    /// What is not honest.
    fn overwrite(&self, fields: &mut Fields) {
        let state = &self.state;
        fields.time_maxerror_nanosec = fields.time_maxerror_nanosec.saturating_add(state.widen);
        if state.hide_offset {
            fields.flags &= !flag::TAI_OFFSET_VALID;
            fields.tai_offset_sec = 0;
        }
        if let Generation::Is(number) = state.generation {
            fields.flags |= flag::VM_GEN_COUNTER_PRESENT;
            fields.vm_generation_counter = number;
        }
        fields.flags = fields.flags & !state.off | state.on;
        for (field, value) in &state.set {
            // The value was found to fit when the scenario was read.
            field.write(fields, *value);
        }
    }

    /// Whether the page says what no promise was made for.
    pub(crate) fn is_raw(&self) -> bool {
        !self.state.set.is_empty() || self.state.widen > 0
    }

    /// Whether the scenario has a say in the VM's generation.
    pub(crate) fn has_generation(&self) -> bool {
        self.state.generation != Generation::None
    }
}

/// The estimate of a clock that shows `now` when the host's shows the estimate's time, and that has run
/// faster by `ppb`.
fn seen(estimate: &Estimate, now: Timestamp<Tai>, ppb: i64) -> Option<Estimate> {
    if ppb == 0 {
        return Some(Estimate {
            time: now,
            ..*estimate
        });
    }
    let scaled = |value: u64| {
        let value = i128::from(value);
        u64::try_from(value + (value * i128::from(ppb)).div_euclid(PPB)).ok()
    };
    let ppb_up = u128::from(ppb.unsigned_abs()) + 1;
    let outward = |bound: Bound| {
        let more = bound.units() / PPB.unsigned_abs() * ppb_up + ppb_up;
        bound.plus(Bound::from_units(more))
    };
    // A fraction with all its bits may have no room to grow.
    let (period, halved) = match scaled(estimate.period.frac()) {
        Some(frac) => (Period::new(frac, estimate.period.shift()), 0),
        None => (
            Period::new(
                scaled(estimate.period.frac() / 2)?,
                estimate.period.shift().checked_sub(1)?,
            ),
            1,
        ),
    };
    let error = |rate: u64| {
        let rate = (rate >> halved) + halved;
        rate + rate / 1_000_000_000 * ppb.unsigned_abs() + 1
    };
    Some(Estimate {
        time: now,
        period: period.ok()?,
        maxerror: outward(estimate.maxerror),
        esterror: outward(estimate.esterror),
        period_maxerror: error(estimate.period_maxerror),
        period_esterror: error(estimate.period_esterror),
        ..*estimate
    })
}

/// TAI − UTC and the indicator that an honest host shows at `tai`, when the offset was `before` and
/// `month` (in UTC) follows the leap second.
fn told(story: LeapStory, before: i16, month: i64, tai: Timestamp<Tai>) -> (i16, LeapIndicator) {
    let now = tai.seconds();
    let edge = month.saturating_add(before.into());
    match story {
        LeapStory::None => (before, LeapIndicator::None),
        LeapStory::Delete if now < edge - 1 => (before, LeapIndicator::PreNeg),
        LeapStory::Delete => (before - 1, LeapIndicator::PostNeg),
        LeapStory::Insert | LeapStory::InsertLate if now < edge => (before, LeapIndicator::PrePos),
        LeapStory::Insert if now == edge => (before + 1, LeapIndicator::Pos),
        LeapStory::InsertLate if now == edge => (before, LeapIndicator::Pos),
        LeapStory::Insert | LeapStory::InsertLate => (before + 1, LeapIndicator::PostPos),
    }
}

/// The first second of the next month, in UTC.
fn next_month(utc: i64) -> Option<i64> {
    let date = Date::from_days(utc.div_euclid(DAY))?;
    let (year, month) = match date.month {
        12 => (date.year + 1, 1),
        month => (date.year, month + 1),
    };
    let first = Date {
        year,
        month,
        day: 1,
    };
    first.days()?.checked_mul(DAY)
}

#[cfg(test)]
mod tests {
    use gnomon_clock::{CounterId, Ticks, Timeline};

    use super::*;
    use crate::host::{Kernel, Leap, Phase};
    use crate::mapping::GuestCounter;

    const MIDNIGHT: i64 = 1_483_228_800;

    fn player(text: &str) -> Player {
        let scenario = Scenario::parse(text).expect("well-formed");
        let mut player = Player::new(scenario, Scale::Tai, Fields::stock());
        player.next();
        player
    }

    /// The page when the host's clock shows 2026 and `millis`, at 1 GHz.
    fn page(player: &mut Player, millis: u64) -> (Fields, Commit, Piece) {
        let period = Period::from_hertz(1_000_000_000).expect("1 GHz");
        let time = Timestamp::from_parts(1_800_000_037, 0)
            .checked_add(Span::from_nanos(millis.cast_signed() * 1_000_000));
        let estimate = Estimate {
            counter: millis * 1_000_000,
            time: time.expect("in range"),
            period,
            maxerror: Bound::from_nanos(80),
            esterror: Bound::from_nanos(40),
            period_maxerror: period.frac() / 2000,
            period_esterror: 1000,
            new_reference: false,
        };
        let sample = Sample {
            counter: 0,
            radius: 0,
            time: estimate.time,
            offset: Some(37),
            kernel: Kernel {
                utc: 1_800_000_000,
                leap: Leap::None,
                phase: Phase::Ahead,
                tai: 37,
                synchronised: false,
                maxerror_us: 0,
                esterror_us: 0,
            },
        };
        let mapping = Mapping {
            guest: GuestCounter::TSC,
            offset: 0,
            radius: 0,
            slot: None,
        };
        player.page(&estimate, &sample, &mapping).expect("in range")
    }

    #[test]
    fn nothing_asked_is_the_hosts_own_page() {
        let mut player = player("wait 1s");
        let (fields, commit, piece) = page(&mut player, 5);
        assert_eq!(
            (fields.time_sec, fields.tai_offset_sec),
            (1_800_000_037, -37)
        );
        assert_eq!(commit, Commit::Forced(MarkerChange::New));
        assert_eq!(page(&mut player, 6).1, Commit::Next);
        assert_eq!(
            piece.at(Timestamp::from_parts(7, 0)),
            Some(Timestamp::from_parts(7, 0))
        );
    }

    /// Offset, indicator and what a guest makes of them, through every kind of leap second.
    #[test]
    fn leap_seconds_are_told_as_an_honest_host_tells_them() {
        use LeapIndicator::{Pos, PostNeg, PostPos, PreNeg, PrePos};
        let insert = |second: u64| (second >= 2, second == 2);
        for (story, scale, inside) in [
            ("insert", "tai", 37),
            ("insert", "utc", 37),
            ("insert-late", "tai", 36),
            ("insert-late", "utc", 36),
        ] {
            let text = format!(
                "offset 36\nscale {scale}\nleap {story}\ndate 2016-12-31T23:59:58Z\nwait 9s"
            );
            let mut player = player(&text);
            for second in 0..5 {
                let (fields, ..) = page(&mut player, second * 1000);
                let (over, now) = insert(second);
                let indicator = if now {
                    Pos
                } else if over {
                    PostPos
                } else {
                    PrePos
                };
                assert_eq!(fields.leap_indicator, indicator as u8, "{text} {second}");
                let offset = if now { inside } else { 36 + i16::from(over) };
                assert_eq!(fields.tai_offset_sec, -offset, "{text} {second}");
                let line = Timeline::from_page(&fields, CounterId::X86Tsc).expect("usable");
                let reading = line.at(Ticks(fields.counter_value)).expect("in range");
                let utc = reading.utc.expect("known");
                let expected = MIDNIGHT - 2 + second.cast_signed() - i64::from(over);
                assert_eq!(
                    (utc.time.seconds(), utc.leap_second),
                    (expected, now),
                    "{text} {second}"
                );
            }
        }
        let mut player = player("leap delete\ndate 2027-06-30T23:59:57Z\nwait 9s");
        let told: Vec<_> = (0..4)
            .map(|second| page(&mut player, second * 1000).0)
            .map(|fields| (fields.leap_indicator, fields.tai_offset_sec))
            .collect();
        let (before, after) = ((PreNeg as u8, -37), (PostNeg as u8, -36));
        assert_eq!(told, [before, before, after, after]);
    }

    #[test]
    fn truth_goes_on_through_a_change_of_rate() {
        let mut player = player("wait 1s\nrate +250ppm\nwait 1s\nrate -100ppm\nwait 1s");
        let (first, ..) = page(&mut player, 0);
        player.next();
        let (second, commit, piece) = page(&mut player, 100);
        assert_eq!(commit, Commit::Forced(MarkerChange::None));
        assert_eq!(
            second.counter_period_frac_sec,
            first.counter_period_frac_sec
        );
        assert_eq!(piece.rate_ppb, 250_000);
        let (third, commit, _) = page(&mut player, 200);
        assert_eq!(commit, Commit::Next);
        assert!(page::keeps_promise(&first, &second) && page::keeps_promise(&second, &third));
        // 250 ppm of 100 ms.
        let gained =
            Span::from_units(i128::from(third.time_frac_sec)).as_nanos_floor() - 200_000_000;
        assert!((24_999..=25_000).contains(&gained), "{gained}");
        player.next();
        let (_, _, bent) = page(&mut player, 300);
        let meets = |piece: Piece, host| piece.at(host).expect("in range");
        let apart = meets(bent, bent.host)
            .since(meets(piece, bent.host))
            .expect("near");
        assert_eq!((bent.rate_ppb, apart), (-100_000, Span::ZERO));
    }

    #[test]
    fn changes_are_shown_together_and_once() {
        let mut player = player(
            "step +1h\nstep -1s\nmarker 9\ngeneration next\nwiden 1us\nsmear sls\noffset none\n\
             status synchronized\nflags +disruption_soon -time_esterror_valid\n\
             set time_type 7\nset magic 5\nwait 1s\nhonest\nwait 1s",
        );
        let (fields, commit, _) = page(&mut player, 0);
        assert_eq!(commit, Commit::Forced(MarkerChange::Is(9)));
        assert_eq!(fields.time_sec, 1_800_000_037 + 3599);
        assert_eq!(
            (fields.magic, fields.time_type, fields.clock_status),
            (5, 7, 2)
        );
        assert_eq!(
            (
                fields.vm_generation_counter,
                fields.leap_second_smearing_hint
            ),
            (1, 2)
        );
        assert!((1080..1085).contains(&fields.time_maxerror_nanosec));
        assert!(fields.has(flag::DISRUPTION_SOON | flag::VM_GEN_COUNTER_PRESENT));
        assert_eq!(
            fields.flags & (flag::TIME_ESTERROR_VALID | flag::TAI_OFFSET_VALID),
            0
        );
        player.next();
        let (fields, commit, _) = page(&mut player, 1);
        assert_eq!(commit, Commit::Forced(MarkerChange::New));
        let (magic, seconds) = (fields.magic, fields.time_sec);
        assert_eq!((magic, seconds), (Fields::stock().magic, 1_800_000_037));
        assert!(!player.is_raw() && !player.has_generation());
    }

    #[test]
    fn repetitions_are_played_as_often_as_they_say() {
        let scenario = "repeat 2\nupdate\nrepeat 3\nquiet\nend\nend\nreset";
        let scenario = Scenario::parse(scenario).expect("well-formed");
        let mut player = Player::new(scenario, Scale::Tai, Fields::stock());
        let mut lines = Vec::new();
        while let Next::Act { line, .. } = player.next() {
            lines.push(line);
        }
        assert_eq!(lines, [2, 4, 4, 4, 2, 4, 4, 4, 7]);
        assert_eq!(player.next(), Next::End);
    }

    #[test]
    fn far_dates_are_shown() {
        let mut player = player("date 9999-12-31T00:00:00Z\nwait 1s");
        assert!(page(&mut player, 0).0.time_sec > 253_000_000_000);
    }
}
