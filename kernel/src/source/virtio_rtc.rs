//! virtio-rtc (virtio 1.4 §5.22, device 17): clocks of the host's, asked through a queue.
//!
//! The first question learns what clocks there are and which is the best; each later one reads that. The
//! answer has no error bound, no leap seconds and no disruption marker: it is the host's clock as it is.
//!
//! | Preferred | Why |
//! |---|---|
//! | TAI, with UTC beside it | no leap second is ambiguous, and TAI − UTC is known at each answer |
//! | UTC | |
//! | UTC, smeared or perhaps | wrong by up to a second near the end of a month, and counts as that |
//! | TAI alone | tells no UTC without an operator's offset |
//!
//! A monotonic clock has no epoch and is not used. With a `READ_CROSS` that the device has for our counter,
//! the counter value comes with the answer; otherwise the way there and back is the bound.
//!
//! **What a clock is called is not believed** where it can be checked. TAI is read between two readings of UTC,
//! so that their difference is known whatever came between: 0 is a host that was never told
//! of leap seconds, whose TAI is UTC, and then UTC is used and this said; what cannot be TAI − UTC means that
//! one of the two is wrong, and neither is used. A clock that shows the seventies counts from
//! the host's start.
//!
//! **One question is under way at a time**, for its memory is the device's until it is answered. The answer
//! to one that was given up is dropped, and only then is the next one sent.

use core::fmt;

use gnomon_clock::{
    Bound, ClockStatus, CounterId, Source, SourceTime, Span, Ticks, Timescale, Timestamp,
};

use super::{Answer, Driver, Indication};
use crate::text::Text;

mod message;

pub use message::{ANSWER_MAX, Fault, Kind, REQUEST_MAX, Request, Said};

/// The device's request queue, with room for one request.
pub trait RequestQueue {
    /// Sends a request, with room for an answer of so many bytes, [`ANSWER_MAX`] at most; false when
    /// one is under way.
    fn send(&mut self, request: &[u8], room: usize) -> bool;

    /// Takes the answer to the request under way, if it has come: copies it, and returns how many
    /// bytes the device says that it has, which may be any number.
    fn receive(&mut self, answer: &mut [u8; ANSWER_MAX]) -> Option<usize>;
}

/// A virtio-rtc device.
#[derive(Debug)]
pub struct VirtioRtc<Q> {
    queue: Q,
    counter: CounterId,
    place: Text<24>,
    known: Known,
    /// The request under way.
    asked: Option<Request>,
    /// Its answer is not wanted any more.
    is_stale: bool,
    /// The UTC clock before TAI and TAI, in nanoseconds, in this question.
    utc_before: Option<u64>,
    tai: Option<(u64, Option<Ticks>)>,
}

/// What has been learned of the device.
#[derive(Clone, Copy, Debug)]
struct Known {
    stage: Stage,
    /// How many clocks it has.
    count: u16,
    /// The first clock of each kind.
    utc: Option<u16>,
    smeared: Option<u16>,
    tai: Option<u16>,
    /// The clock called TAI that is UTC.
    no_tai: Option<u16>,
    /// The chosen clock can be read together with the counter.
    is_crossed: bool,
}

/// How far learning has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Count,
    Kind(u16),
    Cross,
    Done,
}

/// How many clocks are looked at.
const CLOCKS_MAX: u16 = 16;
/// 1980, in nanoseconds since 1970: no host has been up for ten years.
const EARLIEST: u64 = 315_532_800 * SECOND;
/// How far apart the readings of UTC before and after TAI may be.
const APART: u64 = SECOND / 4;
/// By how much clocks of one host may differ from a whole number of seconds.
const SLACK: i128 = 1_000_000;
/// What TAI − UTC has been and may become.
const PLAUSIBLE: core::ops::RangeInclusive<i16> = 10..=60;
const SECOND: u64 = 1_000_000_000;

impl Known {
    const NOTHING: Self = Self {
        stage: Stage::Count,
        count: 0,
        utc: None,
        smeared: None,
        tai: None,
        no_tai: None,
        is_crossed: false,
    };

    /// The best clock, and what it is.
    fn best(&self) -> Option<(u16, Kind)> {
        let named = |clock: Option<u16>, kind| clock.map(|clock| (clock, kind));
        self.pair()
            .map(|(tai, _)| (tai, Kind::Tai))
            .or(named(self.utc, Kind::Utc))
            .or(named(self.smeared, Kind::Smeared))
            .or(named(self.tai, Kind::Tai))
    }

    /// TAI with UTC to check it by.
    fn pair(&self) -> Option<(u16, u16)> {
        Some((self.tai?, self.utc?))
    }

    fn learn(&mut self, clock: u16, kind: Kind) {
        let place = match kind {
            Kind::Utc => &mut self.utc,
            Kind::Smeared => &mut self.smeared,
            Kind::Tai => &mut self.tai,
            Kind::Other => return,
        };
        *place = place.or(Some(clock));
    }
}

impl<Q: RequestQueue> VirtioRtc<Q> {
    /// The device at `place` behind `queue`, for a guest whose counter is `counter`.
    #[must_use]
    pub fn new(queue: Q, counter: CounterId, place: &dyn fmt::Display) -> Self {
        Self {
            queue,
            counter,
            place: Text::of(place),
            known: Known::NOTHING,
            asked: None,
            is_stale: false,
            utc_before: None,
            tai: None,
        }
    }

    /// The first request of a question.
    fn start(&mut self) -> Answer {
        (self.utc_before, self.tai) = (None, None);
        match self.known.stage {
            Stage::Count => {
                self.known = Known::NOTHING;
                self.send(Request::Count)
            }
            Stage::Kind(clock) => self.send(Request::Kind(clock)),
            Stage::Cross => self.ask_cross(),
            Stage::Done => match self.known.pair() {
                Some((_, utc)) => self.send(Request::Read(utc)),
                None => self.read(),
            },
        }
    }

    fn send(&mut self, request: Request) -> Answer {
        let bytes = request.bytes();
        let bytes = bytes.get(..request.length()).unwrap_or_default();
        if !self.queue.send(bytes, request.answer_length()) {
            return Answer::Silence("its queue takes no request");
        }
        self.asked = Some(request);
        Answer::Later
    }

    fn ask_cross(&mut self) -> Answer {
        let Some((clock, _)) = self.known.best() else {
            self.known.stage = Stage::Count;
            return Answer::Silence("it has no clock of UTC or TAI");
        };
        self.send(Request::Cross(clock, self.counter))
    }

    /// Reads the best clock.
    fn read(&mut self) -> Answer {
        let Some((clock, _)) = self.known.best() else {
            return self.ask_cross();
        };
        self.send(if self.known.is_crossed {
            Request::ReadCross(clock, self.counter)
        } else {
            Request::Read(clock)
        })
    }

    fn take(&mut self, request: Request, said: Said) -> Answer {
        match (request, said) {
            (_, Said::Count(0)) => Answer::Silence("it has no clocks"),
            (_, Said::Count(count)) => {
                self.known.count = count;
                self.look_at(0)
            }
            (Request::Kind(clock), Said::Kind(kind)) => {
                self.known.learn(clock, kind);
                self.look_at(clock + 1)
            }
            (_, Said::Cross(is_crossed)) => self.learned(is_crossed),
            (_, Said::Time(nanos)) => self.take_time(nanos, None),
            (_, Said::Crossed(nanos, ticks)) => self.take_time(nanos, Some(ticks)),
            // An answer is decoded by its request.
            (_, Said::Kind(_)) => Answer::Silence("it answers what was not asked"),
        }
    }

    fn look_at(&mut self, clock: u16) -> Answer {
        if clock < self.known.count.min(CLOCKS_MAX) {
            self.known.stage = Stage::Kind(clock);
            return self.send(Request::Kind(clock));
        }
        self.known.stage = Stage::Cross;
        self.ask_cross()
    }

    /// All that is needed is known. The question has taken long by now.
    const fn learned(&mut self, is_crossed: bool) -> Answer {
        self.known.is_crossed = is_crossed;
        self.known.stage = Stage::Done;
        Answer::Again
    }

    fn refuse(&mut self, request: Request, fault: Fault) -> Answer {
        match request {
            // A clock that does not say what it is, is none.
            Request::Kind(clock) => return self.look_at(clock + 1),
            Request::Cross(..) => return self.learned(false),
            Request::ReadCross(..) if fault.is_about_the_request() => {
                self.known.is_crossed = false;
                return self.read();
            }
            Request::Read(_) if fault.is_about_the_request() => self.known.stage = Stage::Count,
            _ => {}
        }
        Answer::Silence(fault.words())
    }

    fn take_time(&mut self, nanos: u64, ticks: Option<Ticks>) -> Answer {
        if nanos < EARLIEST {
            return Answer::Silence("its clock does not count from 1970");
        }
        let Some((_, utc)) = self.known.pair() else {
            return self.indicate(nanos, ticks, None);
        };
        match (self.utc_before, self.tai) {
            (None, _) => {
                self.utc_before = Some(nanos);
                self.read()
            }
            (Some(_), None) => {
                self.tai = Some((nanos, ticks));
                self.send(Request::Read(utc))
            }
            (Some(before), Some((tai, ticks))) => self.take_pair([before, nanos], tai, ticks),
        }
    }

    /// TAI, and UTC before and after it.
    fn take_pair(&mut self, utc: [u64; 2], tai: u64, ticks: Option<Ticks>) -> Answer {
        let [before, after] = utc;
        if after.checked_sub(before).is_none_or(|apart| apart > APART) {
            return Answer::Silence("its clocks were read too far apart");
        }
        match tai_minus_utc(utc, tai) {
            Some(0) => {
                (self.known.no_tai, self.known.tai) = (self.known.tai, None);
                self.known.stage = Stage::Cross;
                self.ask_cross()
            }
            Some(offset) if PLAUSIBLE.contains(&offset) => self.indicate(tai, ticks, Some(offset)),
            _ => Answer::Silence("its clocks of TAI and UTC contradict each other"),
        }
    }

    fn indicate(&self, nanos: u64, ticks: Option<Ticks>, tai_offset: Option<i16>) -> Answer {
        let half = half_a_step(nanos);
        let time = match self.known.best() {
            Some((_, Kind::Tai)) => SourceTime::Tai(timestamp(nanos, half)),
            Some((_, Kind::Utc)) => SourceTime::Utc(timestamp(nanos, half)),
            _ => SourceTime::PerhapsSmeared(timestamp(nanos, half)),
        };
        Answer::Time(Indication {
            time,
            ticks,
            error: Bound::from_units(half.units().unsigned_abs() + 2),
            tai_offset,
            leap: None,
            status: ClockStatus::Freerunning,
        })
    }
}

impl<Q: RequestQueue> Driver for VirtioRtc<Q> {
    fn source(&self) -> Source {
        Source::VirtioRtc
    }

    fn ask(&mut self) -> Answer {
        if self.asked.is_some() {
            self.is_stale = true;
            return Answer::Later;
        }
        self.start()
    }

    fn poll(&mut self) -> Answer {
        let mut answer = [0; ANSWER_MAX];
        let Some(request) = self.asked else {
            return Answer::Silence("nothing was asked");
        };
        let Some(written) = self.queue.receive(&mut answer) else {
            return Answer::Later;
        };
        self.asked = None;
        if core::mem::take(&mut self.is_stale) {
            return self.start();
        }
        match request.decode(&answer, written) {
            Ok(said) => self.take(request, said),
            Err(fault) => self.refuse(request, fault),
        }
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Known { count, no_tai, .. } = self.known;
        write!(f, "{}", self.place)?;
        if let Some((clock, kind)) = self.known.best() {
            write!(f, ", clock {clock} of {count}, {}", kind.name())?;
        }
        if self.known.is_crossed {
            f.write_str(", crossed")?;
        }
        match no_tai {
            Some(clock) => write!(f, "; clock {clock} is no TAI"),
            None => Ok(()),
        }
    }
}

/// The one whole number of seconds that lies between TAI and either reading of UTC, less than a
/// second apart.
fn tai_minus_utc([before, after]: [u64; 2], tai: u64) -> Option<i16> {
    let (least, most) = (
        i128::from(tai) - i128::from(after) - SLACK,
        i128::from(tai) - i128::from(before) + SLACK,
    );
    let offset = most.div_euclid(SECOND.into());
    if offset * i128::from(SECOND) < least {
        return None;
    }
    i16::try_from(offset).ok()
}

/// Half of the step by which a clock goes on that shows `nanos`, rounded down to 2⁻⁶⁴ s. Steps are not told, and
/// are a microsecond in QEMU; what the zeros at the end allow is taken for it, which is
/// seldom more than it is, and never less unless it is no power of ten.
fn half_a_step(nanos: u64) -> Span {
    let mut step = 1;
    while step < SECOND && nanos.is_multiple_of(step * 10) {
        step *= 10;
    }
    Span::from_units((i128::from(step) << 63) / i128::from(SECOND))
}

/// The middle of the step of a clock that shows `nanos`, rounded by less than 2 · 2⁻⁶⁴ s.
fn timestamp<S: Timescale>(nanos: u64, half: Span) -> Timestamp<S> {
    let seconds = (nanos / SECOND).cast_signed();
    let rest = Span::from_nanos((nanos % SECOND).cast_signed());
    // 2⁶⁴ ns are centuries, and far from the end of time.
    [rest, half]
        .into_iter()
        .try_fold(Timestamp::from_parts(seconds, 0), Timestamp::checked_add)
        .unwrap_or(Timestamp::from_parts(seconds, 0))
}
