//! Scenarios: what happens to a guest's time, step by step.
//!
//! A scenario is a text with one statement on a line; `#` starts a comment. It is played from the first
//! moment at which time could be published, and the last state goes on when it has ended. Everything
//! it says is relative to the true relation between guest, host and time: a scenario that changes
//! nothing but the date publishes what is as true of that date as the host's own time would be.
//!
//! Statements about *what* is published take effect together, with the next of the statements that
//! take time, in one update of the page:
//!
//! | Statement | What it does |
//! |---|---|
//! | `date 2016-12-31T23:59:50Z` | it is that time now, under a new marker |
//! | `step +1h` | time is that much later or earlier, under the *same* marker unless `marker` says otherwise |
//! | `rate -300ppm` | from now on time runs that much faster than the host's clock; host and scenario together have 500 ppm before promises are broken |
//! | `scale utc`, `scale tai` | the scale of the page |
//! | `offset 36`, `offset none` | TAI − UTC; `none` keeps it from the page |
//! | `leap insert`, `insert-late`, `delete`, `none` | a leap second at the end of the month, told as an honest host does (indicator and offset move with time); `insert` has the new offset from the start of the inserted second on, `insert-late` from its end |
//! | `status freerunning`, `status honest` | the clock's status, whatever the host's is |
//! | `smear strict`, `noon`, `sls` | the smearing hint |
//! | `flags +disruption_soon -time_maxerror_valid`, `flags honest` | forces flags on or off |
//! | `generation next`, `generation 7`, `generation none` | the VM's generation |
//! | `marker`, `marker 7` | a new disruption marker, or this one |
//! | `widen 5ms` | adds to the greatest error: a page that is wider than was promised |
//! | `set leap_indicator 9`, `set leap_indicator honest` | any field of the page but `seq_count`, raw, from now on |
//! | `interval 1ms` | time between updates |
//! | `honest` | the host's own time again, under a new marker |
//!
//! Statements that take time, or write:
//!
//! | Statement | What it does |
//! |---|---|
//! | `wait 1.5s` | the page is updated at its interval |
//! | `update` | one update, now |
//! | `freeze 1s` | nobody updates the page |
//! | `flip 100ms` | the page is written again and again, as fast as it goes |
//! | `odd 1s` | an update begins and does not end: `seq_count` is odd |
//! | `half 1s` | the same with half of a new page written |
//! | `quiet` | a new page is written without any change of `seq_count` |
//! | `stop 1s`, `reset` | the machine is stopped and goes on; is reset |
//! | `say words` | words for the user |
//! | `repeat 10` .. `end` | everything between, ten times |
//!
//! Durations are numbers with `ns`, `us`, `ms`, `s`, `min`, `h` or `d`.

use core::fmt;
use core::time::Duration;

use gnomon_clock::calendar::{DAY, Date};
use gnomon_clock::page::flag;
use gnomon_clock::{ClockStatus, Fields, SmearingHint, Span, Timestamp, Utc};

use crate::page::Scale;

/// Statements that a scenario may have.
pub const STATEMENTS: usize = 10_000;
/// How deep repetitions may lie in each other.
pub const DEPTH: usize = 8;
/// Statements that may be played in all, repetitions included.
pub const STEPS: u64 = 10_000_000;
/// How long a scenario may last, and time may be stepped: some ten years.
pub const LONGEST: Duration = Duration::from_secs(3_650 * DAY.unsigned_abs());
/// How fast time may run against the host's clock: 10 %.
const FASTEST_PPB: i64 = 100_000_000;

/// A scenario that can be played.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    pub(crate) steps: Vec<Step>,
}

/// A statement and its line, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) line: usize,
    pub(crate) statement: Statement,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Statement {
    Change(Change),
    Act(Act),
    Repeat(u64),
    /// Of the repetition that begins at this step.
    End(usize),
}

/// What is published from the next update on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Since 1970 in UTC.
    Date(Span),
    Step(Span),
    Rate {
        ppb: i64,
    },
    Scale(Scale),
    Offset(Option<i16>),
    Leap(LeapStory),
    Status(Option<ClockStatus>),
    Smear(SmearingHint),
    Flags {
        on: u64,
        off: u64,
    },
    Generation(Generation),
    Marker(Option<u64>),
    Widen {
        nanos: u64,
    },
    Set(Field, Option<i128>),
    Interval(Duration),
    Honest,
}

/// A leap second at the end of the month, as an honest host tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeapStory {
    None,
    /// The new offset from the start of the inserted second on, as Linux has it.
    Insert,
    /// From its end.
    InsertLate,
    Delete,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Generation {
    Next,
    Is(u64),
    None,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Wait(Duration),
    Freeze(Duration),
    Flip(Duration),
    Odd(Duration),
    Half(Duration),
    Stop(Duration),
    Update,
    Quiet,
    Reset,
    Say(String),
}

impl Scenario {
    /// Reads a scenario from its text.
    ///
    /// # Errors
    /// The first line that is no statement, and why.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let mut steps: Vec<Step> = Vec::new();
        let mut open: Vec<usize> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line_number = index + 1;
            let error = |what| ScenarioError {
                line: line_number,
                what,
            };
            let code = line.split('#').next().unwrap_or_default().trim();
            if code.is_empty() {
                continue;
            }
            if steps.len() == STATEMENTS {
                return Err(error(Mistake::TooLong));
            }
            let statement = match statement(code).map_err(error)? {
                Statement::Repeat(_) if open.len() == DEPTH => return Err(error(Mistake::TooDeep)),
                Statement::End(_) => {
                    Statement::End(open.pop().ok_or(error(Mistake::EndWithoutRepeat))?)
                }
                statement => statement,
            };
            if let Statement::Repeat(_) = statement {
                open.push(steps.len());
            }
            steps.push(Step {
                line: line_number,
                statement,
            });
        }
        if let Some(step) = open.pop().and_then(|index| steps.get(index)) {
            return Err(ScenarioError {
                line: step.line,
                what: Mistake::RepeatWithoutEnd,
            });
        }
        let scenario = Self { steps };
        match scenario.length() {
            Some((count, time)) if count <= STEPS && time <= LONGEST => Ok(scenario),
            _ => Err(ScenarioError {
                line: text.lines().count(),
                what: Mistake::TooLong,
            }),
        }
    }

    /// The scale of its first page, if it names one.
    #[must_use]
    pub fn first_scale(&self) -> Option<Scale> {
        self.first_changes().find_map(|change| match change {
            Change::Scale(scale) => Some(scale),
            _ => None,
        })
    }

    /// The date of its first page in UTC, if it names one.
    #[must_use]
    pub fn first_date(&self) -> Option<Timestamp<Utc>> {
        self.first_changes().find_map(|change| match change {
            Change::Date(since) => Timestamp::from_parts(0, 0).checked_add(since),
            _ => None,
        })
    }

    fn first_changes(&self) -> impl Iterator<Item = Change> {
        self.steps.iter().map_while(|step| match step.statement {
            Statement::Change(change) => Some(change),
            _ => None,
        })
    }

    /// How long it takes to play, apart from what the machine takes.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.length().map_or(LONGEST, |(_, time)| time)
    }

    /// Statements played, and the time they take; `None` on overflow.
    fn length(&self) -> Option<(u64, Duration)> {
        let mut sums = vec![(0_u64, Duration::ZERO, 1_u64)];
        for step in &self.steps {
            let (count, time) = match &step.statement {
                Statement::Repeat(times) => {
                    sums.push((0, Duration::ZERO, *times));
                    continue;
                }
                Statement::End(_) => {
                    let (count, time, times) = sums.pop()?;
                    let nanos = time.as_nanos().checked_mul(times.into())?;
                    let time = Duration::from_nanos(u64::try_from(nanos).ok()?);
                    (count.checked_add(1)?.checked_mul(times)?, time)
                }
                Statement::Act(act) => (1, act.duration()),
                Statement::Change(_) => (1, Duration::ZERO),
            };
            let sum = sums.last_mut()?;
            *sum = (sum.0.checked_add(count)?, sum.1.checked_add(time)?, sum.2);
        }
        sums.pop().map(|(count, time, _)| (count, time))
    }
}

impl Act {
    /// Whether it writes the page itself, with all changes so far.
    pub(crate) const fn writes(&self) -> bool {
        matches!(self, Self::Update | Self::Half(_) | Self::Quiet)
    }

    pub(crate) fn duration(&self) -> Duration {
        match self {
            Self::Wait(time)
            | Self::Freeze(time)
            | Self::Flip(time)
            | Self::Odd(time)
            | Self::Half(time)
            | Self::Stop(time) => *time,
            Self::Update | Self::Quiet | Self::Reset | Self::Say(_) => Duration::ZERO,
        }
    }
}

/// Why a text is no scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScenarioError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: Mistake,
}

/// What is wrong with a line of a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// Its first word is no statement.
    Statement(String),
    /// The statement takes something else than this.
    Argument {
        /// What it takes.
        wanted: &'static str,
        /// What there is.
        found: String,
    },
    /// There is nothing to end.
    EndWithoutRepeat,
    /// Nothing ends this repetition.
    RepeatWithoutEnd,
    /// More than [`DEPTH`] repetitions in each other.
    TooDeep,
    /// More than [`STATEMENTS`], more than [`STEPS`] or longer than [`LONGEST`].
    TooLong,
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        match &self.what {
            Mistake::Statement(word) => write!(f, "unknown statement {word:?}"),
            Mistake::Argument { wanted, found } => write!(f, "expected {wanted}, found {found:?}"),
            Mistake::EndWithoutRepeat => f.write_str("an end without a repeat"),
            Mistake::RepeatWithoutEnd => f.write_str("a repeat without an end"),
            Mistake::TooDeep => write!(f, "more than {DEPTH} repeats in each other"),
            Mistake::TooLong => f.write_str("the scenario is too long"),
        }
    }
}

impl core::error::Error for ScenarioError {}

fn statement(code: &str) -> Result<Statement, Mistake> {
    let (word, rest) = code.split_once(char::is_whitespace).unwrap_or((code, ""));
    let rest = rest.trim();
    let wanted = |wanted| Mistake::Argument {
        wanted,
        found: rest.to_owned(),
    };
    let time = || duration(rest).ok_or(wanted("a duration, such as 1.5s"));
    let nothing = |statement| match rest {
        "" => Ok(statement),
        _ => Err(wanted("nothing")),
    };
    let change = |change: Result<Change, &'static str>| match change {
        Ok(change) => Ok(Statement::Change(change)),
        Err(what) => Err(wanted(what)),
    };
    match word {
        "wait" => Ok(Statement::Act(Act::Wait(time()?))),
        "freeze" => Ok(Statement::Act(Act::Freeze(time()?))),
        "flip" => Ok(Statement::Act(Act::Flip(time()?))),
        "odd" => Ok(Statement::Act(Act::Odd(time()?))),
        "half" => Ok(Statement::Act(Act::Half(time()?))),
        "stop" => Ok(Statement::Act(Act::Stop(time()?))),
        "update" => nothing(Statement::Act(Act::Update)),
        "quiet" => nothing(Statement::Act(Act::Quiet)),
        "reset" => nothing(Statement::Act(Act::Reset)),
        "honest" => nothing(Statement::Change(Change::Honest)),
        "end" => nothing(Statement::End(0)),
        "say" if rest.is_empty() => Err(wanted("words")),
        "say" => Ok(Statement::Act(Act::Say(rest.to_owned()))),
        "repeat" => match rest.parse() {
            Ok(times @ 1..) => Ok(Statement::Repeat(times)),
            _ => Err(wanted("a number of times")),
        },
        "interval" => match duration(rest) {
            Some(time) if !time.is_zero() && time <= Duration::from_mins(1) => {
                Ok(Statement::Change(Change::Interval(time)))
            }
            _ => Err(wanted("a duration of up to a minute")),
        },
        _ => match argument(word, rest) {
            Some(outcome) => change(outcome),
            None => Err(Mistake::Statement(word.to_owned())),
        },
    }
}

/// The change by this name, or what its argument should have been; `None` for another name.
fn argument(word: &str, rest: &str) -> Option<Result<Change, &'static str>> {
    Some(match word {
        "date" => date(rest)
            .map(Change::Date)
            .ok_or("a UTC time, such as 2016-12-31T23:59:50Z"),
        "step" => signed(rest)
            .and_then(|(sign, rest)| Some(Change::Step(span(sign, duration(rest)?)?)))
            .ok_or("a signed duration, such as +1h"),
        "rate" => rate(rest)
            .map(|ppb| Change::Rate { ppb })
            .ok_or("a signed rate within 100000ppm, such as -300ppm"),
        "widen" => duration(rest)
            .and_then(|time| u64::try_from(time.as_nanos()).ok())
            .map(|nanos| Change::Widen { nanos })
            .ok_or("a duration, such as 5ms"),
        "scale" => match rest {
            "utc" => Ok(Change::Scale(Scale::Utc)),
            "tai" => Ok(Change::Scale(Scale::Tai)),
            _ => Err("utc or tai"),
        },
        "offset" => match (rest, rest.parse()) {
            ("none", _) => Ok(Change::Offset(None)),
            (_, Ok(offset @ 10..=60)) => Ok(Change::Offset(Some(offset))),
            _ => Err("TAI-UTC from 10 to 60, or none"),
        },
        "leap" => match rest {
            "none" => Ok(Change::Leap(LeapStory::None)),
            "insert" => Ok(Change::Leap(LeapStory::Insert)),
            "insert-late" => Ok(Change::Leap(LeapStory::InsertLate)),
            "delete" => Ok(Change::Leap(LeapStory::Delete)),
            _ => Err("insert, insert-late, delete or none"),
        },
        "status" => status(rest).ok_or("a status, or honest"),
        "smear" => match rest {
            "strict" => Ok(Change::Smear(SmearingHint::Strict)),
            "noon" => Ok(Change::Smear(SmearingHint::NoonLinear)),
            "sls" => Ok(Change::Smear(SmearingHint::UtcSls)),
            _ => Err("strict, noon or sls"),
        },
        "flags" => flags(rest).ok_or("flags with + or - before their names, or honest"),
        "generation" => match (rest, rest.parse()) {
            ("next", _) => Ok(Change::Generation(Generation::Next)),
            ("none", _) => Ok(Change::Generation(Generation::None)),
            (_, Ok(number)) => Ok(Change::Generation(Generation::Is(number))),
            _ => Err("next, none or a number"),
        },
        "marker" => match (rest, rest.parse()) {
            ("", _) => Ok(Change::Marker(None)),
            (_, Ok(number)) => Ok(Change::Marker(Some(number))),
            _ => Err("a number, or nothing"),
        },
        "set" => set(rest).ok_or("a field of the page, and a number in its range or honest"),
        _ => return None,
    })
}

fn status(word: &str) -> Option<Change> {
    Some(Change::Status(match word {
        "honest" => None,
        "unknown" => Some(ClockStatus::Unknown),
        "initializing" => Some(ClockStatus::Initializing),
        "synchronized" => Some(ClockStatus::Synchronized),
        "freerunning" => Some(ClockStatus::Freerunning),
        "unreliable" => Some(ClockStatus::Unreliable),
        _ => return None,
    }))
}

fn flags(words: &str) -> Option<Change> {
    let (mut on, mut off) = (0, 0);
    if words.is_empty() {
        return None;
    }
    if words != "honest" {
        for word in words.split_whitespace() {
            let (sign, name) = signed(word)?;
            let (_, bit) = FLAGS.iter().find(|(known, _)| *known == name)?;
            if sign > 0 {
                on |= bit;
            } else {
                off |= bit;
            }
        }
    }
    Some(Change::Flags { on, off })
}

const FLAGS: [(&str, u64); 10] = [
    ("tai_offset_valid", flag::TAI_OFFSET_VALID),
    ("disruption_soon", flag::DISRUPTION_SOON),
    ("disruption_imminent", flag::DISRUPTION_IMMINENT),
    ("period_esterror_valid", flag::PERIOD_ESTERROR_VALID),
    ("period_maxerror_valid", flag::PERIOD_MAXERROR_VALID),
    ("time_esterror_valid", flag::TIME_ESTERROR_VALID),
    ("time_maxerror_valid", flag::TIME_MAXERROR_VALID),
    ("time_monotonic", flag::TIME_MONOTONIC),
    ("vm_gen_counter_present", flag::VM_GEN_COUNTER_PRESENT),
    ("notification_present", flag::NOTIFICATION_PRESENT),
];

fn set(words: &str) -> Option<Change> {
    let (name, value) = words.split_once(char::is_whitespace)?;
    let field = Field::named(name)?;
    let value = match value.trim() {
        "honest" => None,
        number => Some(match number.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok()?.into(),
            None => number.parse().ok()?,
        }),
    };
    let fits = value.is_none_or(|value| field.write(&mut Fields::stock(), value));
    fits.then_some(Change::Set(field, value))
}

/// A field of the page that a scenario may write raw: all but `seq_count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Field(&'static str);

macro_rules! fields {
    ($($name:ident)*) => {
        impl Field {
            fn named(word: &str) -> Option<Self> {
                match word {
                    $(stringify!($name) => Some(Self(stringify!($name))),)*
                    _ => None,
                }
            }

            /// Whether the value has fitted.
            pub(crate) fn write(self, fields: &mut Fields, value: i128) -> bool {
                match self.0 {
                    $(stringify!($name) => {
                        value.try_into().map(|value| fields.$name = value).is_ok()
                    })*
                    _ => false,
                }
            }
        }
    };
}

fields! {
    magic size version counter_id time_type disruption_marker flags clock_status
    leap_second_smearing_hint tai_offset_sec leap_indicator counter_period_shift counter_value
    counter_period_frac_sec counter_period_esterror_rate_frac_sec
    counter_period_maxerror_rate_frac_sec time_sec time_frac_sec time_esterror_nanosec
    time_maxerror_nanosec vm_generation_counter
}

/// The sign, which there has to be, and what follows it.
fn signed(word: &str) -> Option<(i64, &str)> {
    match word.strip_prefix('+') {
        Some(rest) => Some((1, rest)),
        None => word.strip_prefix('-').map(|rest| (-1, rest)),
    }
}

/// A decimal number with up to nine digits after the point, in 10⁻⁹.
fn decimal(digits: &str) -> Option<u128> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !plain(whole) || !plain(fraction) || fraction.len() > 9 {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let fraction: u64 = format!("{fraction:0<9}").parse().ok()?;
    Some(u128::from(whole) * 1_000_000_000 + u128::from(fraction))
}

fn duration(word: &str) -> Option<Duration> {
    let unit = word.find(|letter: char| letter.is_ascii_alphabetic())?;
    let (number, unit) = word.split_at_checked(unit)?;
    let nanos: u128 = match unit {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "min" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => 86_400_000_000_000,
        _ => return None,
    };
    let nanos = decimal(number)?.checked_mul(nanos)? / 1_000_000_000;
    let time = Duration::from_nanos(u64::try_from(nanos).ok()?);
    (time <= LONGEST).then_some(time)
}

fn span(sign: i64, time: Duration) -> Option<Span> {
    let nanos = i64::try_from(time.as_nanos()).ok()?;
    Some(Span::from_nanos(sign * nanos))
}

fn rate(word: &str) -> Option<i64> {
    let (sign, rest) = signed(word)?;
    let (number, scale) = match rest.strip_suffix("ppm") {
        Some(number) => (number, 1_000_000),
        None => (rest.strip_suffix("ppb")?, 1_000_000_000),
    };
    let ppb = i64::try_from(decimal(number)? / scale).ok()?;
    (ppb <= FASTEST_PPB).then_some(sign * ppb)
}

/// Since 1970 in UTC.
fn date(word: &str) -> Option<Span> {
    let (day, time) = word.strip_suffix('Z')?.split_once('T')?;
    let mut parts = day.splitn(3, '-').map(|part| number(part, 4));
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let date = Date {
        year: year.into(),
        month: u8::try_from(month).ok()?,
        day: u8::try_from(day).ok()?,
    };
    let days = date.days().filter(|days| *days >= 0)?;
    let mut parts = time.splitn(3, ':');
    let (hours, minutes) = (number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let seconds = parts.next()?;
    let whole = seconds.split('.').next().filter(|whole| whole.len() == 2)?;
    let nanos = decimal(seconds)?;
    if hours > 23 || minutes > 59 || number(whole, 2)? > 59 {
        return None;
    }
    let seconds = days * DAY + i64::from(hours * 60 + minutes) * 60;
    let nanos = Span::from_nanos(i64::try_from(nanos).ok()?);
    Some(Span::from_units(
        Span::from_seconds(seconds).units() + nanos.units(),
    ))
}

/// Nothing but digits, and not too many.
fn number(digits: &str, longest: usize) -> Option<u16> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    (plain && digits.len() <= longest)
        .then(|| digits.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistake(text: &str) -> String {
        Scenario::parse(text).expect_err("a mistake").to_string()
    }

    #[test]
    fn every_statement_is_read() {
        let text = "date 2016-12-31T23:59:50.25Z # near the edge\nstep -1.5s\nstep +3h\nrate -300ppm\n\
               rate +12.5ppb\nscale utc\noffset 36\noffset none\nleap insert\nleap insert-late\n\
               leap delete\nleap none\nstatus freerunning\nstatus honest\nsmear sls\n\
               flags +disruption_soon -time_maxerror_valid\nflags honest\ngeneration next\n\
               generation 7\ngeneration none\nmarker\nmarker 12\nwiden 5ms\nset tai_offset_sec -37\n\
               set magic 0x12345678\nset magic honest\ninterval 1ms\nhonest\n\n  wait 1.5s\nupdate\n\
               freeze 2min\nflip 100us\nodd 1s\nhalf 1s\nquiet\nstop 1s\nreset\nsay what happens\n\
               repeat 3\n\trepeat 2\nwait 10ms\nend\nend";
        let scenario = Scenario::parse(text).expect("well-formed");
        assert_eq!(scenario.steps.len(), 43);
        let expected =
            Duration::from_millis(1500 + 120_000 + 3000 + 60) + Duration::from_micros(100);
        assert_eq!(scenario.duration(), expected);
        let Statement::Change(Change::Date(date)) = scenario.steps[0].statement else {
            panic!("{:?}", scenario.steps[0]);
        };
        assert_eq!(date.as_nanos_floor(), 1_483_228_790_250_000_000);
        let rates = [Change::Rate { ppb: -300_000 }, Change::Rate { ppb: 12 }];
        assert_eq!(scenario.steps[3].statement, Statement::Change(rates[0]));
        assert_eq!(scenario.steps[4].statement, Statement::Change(rates[1]));
    }

    #[test]
    fn mistakes_have_their_line() {
        for (text, words) in [
            (
                "wait",
                "line 1: expected a duration, such as 1.5s, found \"\"",
            ),
            ("\n# x\nsleep 1s", "line 3: unknown statement \"sleep\""),
            ("wait 1", "found \"1\""),
            ("wait 1.s", "found"),
            ("wait .5s", "found"),
            ("wait -1s", "found"),
            ("wait 1s 2s", "found"),
            ("wait 1e3s", "found"),
            ("wait 99999999999999999999s", "found"),
            ("wait 4000d", "found"),
            ("step 1s", "a signed duration"),
            ("step +1", "a signed duration"),
            ("rate +100001ppm", "a signed rate"),
            ("rate 5ppm", "a signed rate"),
            ("date 2016-12-31", "a UTC time"),
            ("date 2016-13-31T00:00:00Z", "a UTC time"),
            ("date 2016-02-30T00:00:00Z", "a UTC time"),
            ("date 2016-12-31T23:59:60Z", "a UTC time"),
            ("date 2016-12-31T24:00:00Z", "a UTC time"),
            ("date 1969-12-31T00:00:00Z", "a UTC time"),
            ("date 2016-12-31T0:0:0Z", "a UTC time"),
            ("scale gps", "utc or tai"),
            ("offset 9", "TAI-UTC"),
            ("offset -37", "TAI-UTC"),
            ("leap maybe", "insert"),
            ("status fine", "a status"),
            ("smear cubic", "strict"),
            ("flags", "flags with"),
            ("flags disruption_soon", "flags with"),
            ("flags +nothing", "flags with"),
            ("generation -1", "next"),
            ("marker x", "a number"),
            ("set seq_count 1", "a field"),
            ("set magic 4294967296", "a field"),
            ("set version -1", "a field"),
            ("set tai_offset_sec 40000", "a field"),
            ("set magic", "a field"),
            ("interval 0s", "up to a minute"),
            ("interval 2min", "up to a minute"),
            ("update now", "nothing"),
            ("say", "words"),
            ("repeat 0\nend", "a number of times"),
            ("repeat 2\nwait 1s", "line 1: a repeat without an end"),
            ("wait 1s\nend", "line 2: an end without a repeat"),
            ("repeat 9999999\nupdate\nend", "too long"),
            ("repeat 99999\nwait 3649d\nend", "too long"),
            ("naïve é", "line 1: unknown statement \"naïve\""),
        ] {
            let said = mistake(text);
            assert!(
                said.contains(words) && !said.contains('\n'),
                "{text}: {said}"
            );
        }
        assert!(mistake(&"repeat 1\n".repeat(9)).starts_with("line 9: more than 8"));
        assert!(mistake(&"update\n".repeat(STATEMENTS + 1)).contains("too long"));
        let squared = "repeat 18446744073709551615\n".repeat(2) + "update\nend\nend";
        assert!(mistake(&squared).contains("too long"));
    }

    /// Every scenario that is shipped can be read, is short, and has its line in the README.
    #[test]
    fn library_is_complete() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
        let readme = std::fs::read_to_string(format!("{directory}/README.md")).expect("a README");
        let mut count = 0;
        for entry in std::fs::read_dir(directory).expect("scenarios") {
            let path = entry.expect("a file").path();
            if path
                .extension()
                .is_none_or(|extension| extension != "scenario")
            {
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("text");
            let scenario =
                Scenario::parse(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            assert!(scenario.duration() < Duration::from_secs(10), "{path:?}");
            let name = path
                .file_stem()
                .and_then(|name| name.to_str())
                .expect("ASCII");
            assert!(readme.contains(&format!("| `{name}` |")), "{name}");
            count += 1;
        }
        assert_eq!(count, readme.matches("\n| `").count());
    }

    #[test]
    fn truncation_and_garbage_never_panic() {
        let text =
            "date 2016-12-31T23:59:50.25Z\nrepeat 3\nset magic 0x1\nwait 1.5s\nend\nstep -1h";
        for end in 0..text.len() {
            let _outcome = Scenario::parse(&text[..end]);
            let garbled = format!("{}é{}", &text[..end], &text[end..]);
            let _outcome = Scenario::parse(&garbled);
        }
    }
}
