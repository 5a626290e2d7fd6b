//! What time is: the vmclock page, its arithmetic, its error and its leap seconds.
//!
//! A hypervisor that knows the time can say so without an exit, an interrupt or a packet. It puts
//! a page into guest memory that says "when the counter stood at C1 it was T1, and a tick lasts P",
//! with the error of both, and a guest that can read the counter then has the time, at once and
//! forever. The page is `struct vmclock_abi` (UAPI.13 v1.1). This crate is both ends of it, without
//! dependencies, allocation, floats or `unsafe`.
//!
//! ```
//! use gnomon_clock::{ClockStatus, CounterId, Fields, Period, Ticks, TimeType, Timeline};
//! use gnomon_clock::page::{VmclockPage, Writer, flag};
//!
//! let period = Period::from_hertz(1_000_000_000).ok_or("too slow")?;
//! let page = VmclockPage::new(&Fields::stock());
//! Writer::new(&page, 0).publish(&Fields {
//!     counter_id: CounterId::X86Tsc as u8,
//!     time_type: TimeType::Tai as u8,
//!     clock_status: ClockStatus::Synchronized as u8,
//!     flags: flag::TAI_OFFSET_VALID | flag::TIME_MAXERROR_VALID | flag::PERIOD_MAXERROR_VALID,
//!     tai_offset_sec: -37,
//!     counter_value: 5_000_000_000,
//!     counter_period_frac_sec: period.frac(),
//!     counter_period_shift: period.shift(),
//!     counter_period_maxerror_rate_frac_sec: period.frac() / 100_000, // 10 ppm
//!     time_sec: 1_795_176_368,
//!     time_maxerror_nanosec: 40_000,
//!     ..Fields::stock()
//! })?;
//!
//! let timeline = Timeline::from_page(&page.snapshot()?, CounterId::X86Tsc)?;
//! let reading = timeline.at(Ticks(6_500_000_001))?;
//! let utc = reading.utc.ok_or("no offset")?;
//! assert_eq!(utc.to_string(), "2026-11-20T12:05:32.500000000Z");
//! assert_eq!(reading.bound.nanos(), 55_002); // 40 µs + 1.5 s · 10 ppm + a tick, rounded up
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! A service holds a [`Clock`], which does this for every answer and refuses to carry time across a
//! disruption. Most pages have no time, only the marker that tells of disruptions; then the time comes
//! from [elsewhere](#other-sources), and the page guards it.
//!
//! # The page
//!
//! Little-endian, 0x70 bytes, usually alone in 4 KiB. Everything from `seq_count` on changes under
//! it; `counter_id` and `time_type` are called constant, but writers exist that change them under
//! it too, so they are read and written there.
//!
//! | Offset | Type | Field | |
//! |---|---|---|---|
//! | 0x00 | u32 | `magic` | "VCLK" |
//! | 0x04 | u32 | `size` | of the *region*; fields beyond it are absent |
//! | 0x08 | u16 | `version` | 1 |
//! | 0x0a | u8 | `counter_id` | [`CounterId`], 0xff: no counter and no time |
//! | 0x0b | u8 | `time_type` | [`TimeType`]; UTC and TAI are usable |
//! | 0x0c | u32 | `seq_count` | odd during an update |
//! | 0x10 | u64 | `disruption_marker` | changed: the counter may be another one now |
//! | 0x18 | u64 | `flags` | [`page::flag`] |
//! | 0x20 | u8\[2\] | padding | |
//! | 0x22 | u8 | `clock_status` | [`ClockStatus`]; synchronized and freerunning are usable |
//! | 0x23 | u8 | `leap_second_smearing_hint` | [`SmearingHint`]; the page itself is never smeared |
//! | 0x24 | i16 | `tai_offset_sec` | UTC − TAI, −37 in 2026 (flag 0) |
//! | 0x26 | u8 | `leap_indicator` | [`LeapIndicator`], at T1 and not now |
//! | 0x27 | u8 | `counter_period_shift` | for the three below |
//! | 0x28 | u64 | `counter_value` | C1 |
//! | 0x30 | u64 | `counter_period_frac_sec` | P in 2^−(64+shift) s |
//! | 0x38 | u64 | `counter_period_esterror_rate_frac_sec` | same unit (flag 3) |
//! | 0x40 | u64 | `counter_period_maxerror_rate_frac_sec` | same unit (flag 4) |
//! | 0x48 | u64 | `time_sec` | T1, seconds since 1970 |
//! | 0x50 | u64 | `time_frac_sec` | T1, rest in 2⁻⁶⁴ s |
//! | 0x58 | u64 | `time_esterror_nanosec` | (flag 5) |
//! | 0x60 | u64 | `time_maxerror_nanosec` | (flag 6) |
//! | 0x68 | u64 | `vm_generation_counter` | (flag 8) |
//!
//! Errata of the text of v1.0, which v1.1 and every implementation settle as above: it lacked flag 7
//! (`TIME_MONOTONIC`), had flags 8 and 9 as 7 and 8, had the generation at 0x64, and gave the
//! TAI offset as +37. Pages with that sign are in the field: [`TaiOffset`] accepts both, since leap
//! seconds began at 10 s and the readings cannot meet, and notes the old one. Anything else is
//! no offset; then a TAI page gives no UTC, and a UTC page no TAI, unless the operator supplies it.
//!
//! What is absent, because its flag is clear or it lies beyond `size`, has a documented default, and
//! every default that time rests on is told with the reading:
//!
//! | Absent | Default | Told by |
//! |---|---|---|
//! | `tai_offset_sec` (flag 0), or in no range | the operator's; else one scale only | [`Reading::operator`], [`Notes::utc_without_tai_offset`], [`Notes::invalid_tai_offset`] |
//! | `time_maxerror` (flag 6, size 0x68) | 10 ms | [`Notes::default_time_error`] |
//! | `period_maxerror` (flag 4, size 0x48) | 50 ppm | [`Notes::default_period_error`] |
//! | estimated errors (flags 3 and 5) | none, they carry nothing | [`Timeline::estimate`] |
//! | `vm_generation_counter` (flag 8, size 0x70) | none | [`Reading::generation`] |
//! | `DISRUPTION_SOON`, `_IMMINENT` (flags 1, 2) | none expected | [`Reading::disruption`] |
//! | `TIME_MONOTONIC` (flag 7) | time may step back | [`Violation::Monotonic`] is not looked for |
//! | a known smearing hint | strict UTC | [`Reading::smearing_hint`] |
//!
//! # The arithmetic
//!
//! T(C) = T1 + (C − C1)·P. The difference is taken modulo 2⁶⁴ and read as *signed*: a counter a few
//! ticks behind C1, on another processor or on a page written ahead of time, is a moment ago and not
//! centuries ahead. Its magnitude is at most 2⁶³, so the product with P stays below 2¹²⁷, and the
//! shift of at most 127 makes it smaller: [`Period::span`] cannot overflow, and is short by less than
//! 2⁻⁶⁴ s. Instants are `i128` in 2⁻⁶⁴ s, which T1 fits without rounding; the one sum is checked.
//! Time before 1970 or beyond `i64` seconds is [`Unusable::OutOfRange`].
//!
//! # The bound
//!
//! E(C) = `time_maxerror` + (|C − C1| + 1)·`period_maxerror` + P + 2⁻⁶⁴ s, each term rounded up to
//! 2⁻⁶⁴ s. The argument: let the true reference be T1 + e with |e| ≤ `time_maxerror`, the true period
//! P + r with |r| ≤ `period_maxerror`, and let the counter be read within its tick, at C + θ
//! with 0 ≤ θ < 1. Truth is T1 + e + (C − C1 + θ)(P + r), and differs from T(C) by
//! e + (C − C1 + θ)·r + θ·P and the truncation, each of which has its term above. The sum exceeds
//! the exact one by less than five units, 3·10⁻¹⁹ s; it saturates. Against the farthest corner of
//! what the page allows (e, r and θ at their ends), 10⁸ random pages gave not one truth outside, and,
//! for counters of 50 MHz to 5 GHz within a day of the reference, an excess of at most 0.02 ns, or
//! 1.02 ns once rounded up to whole nanoseconds. A host that lies is not bounded; it can only be
//! caught in a contradiction (see [Audit](#audit)).
//!
//! # Leap seconds
//!
//! Time is TAI within, in a type ([`Timestamp<Tai>`](Timestamp)) that cannot be mixed up with UTC, and
//! becomes UTC at the edge. `leap_indicator` speaks of T1: a page from the first of June with
//! [`LeapIndicator::PrePos`] has to be right on the first of July, and a request that arrived before
//! the edge has to be right by a page written after it. So each page is turned into at most one edge,
//! at an end of the month of T1, with an offset on either side.
//!
//! * UTC is POSIX-coded: it repeats :59 from the start of the inserted second, and
//!   [`UtcTime::leap_second`] tells the second :59, printed as :60, from the first.
//! * [`Reading::tai_offset`] is what the calendar says, and changes when 23:59:60 is over.
//!   Always TAI = UTC code + `tai_offset`, and one more inside 23:59:60.
//! * The [`Announcement`] is made on the last UTC day of the month only, and ends when the inserted
//!   second begins.
//! * On the page, UTC = TAI + `tai_offset_sec` between codes, whichever of the two `time_sec` is.
//!   With T1 inside 23:59:60 ([`LeapIndicator::Pos`]) hosts differ in which offset they give: the
//!   standards change it at the end of that second, Linux at its start. No choice is needed, for by
//!   the old offset the code of T1 is the first second of a month and by the new one the last. A
//!   T1 that is neither contradicts the indicator ([`Unusable::LeapSecond`]).
//! * A UTC page that does not tell the offset crosses its edge all the same: UTC is extrapolated on
//!   a uniform scale of its own, and only TAI is missing.
//! * There is no table of leap seconds, and so none that expires. An operator may supply the offset
//!   that a page lacks ([`OperatorOffset`]). It is never preferred to the page's: [`OperatorNote`]
//!   says whether it is in use, agrees or disagrees. The clock carries it over every leap second that
//!   pages tell of from then on; one that no page tells of it cannot know.
//! * A page that says nothing of a leap second is off by it afterwards, and so are we.
//!
//! # Smearing
//!
//! Some clients cannot take a leap second, so a service may spread it ([`Smear`]): from noon to noon,
//! or as UTC-SLS over the last 1000 s. It is computed from the reading, at the edge, with integers;
//! the page and [`Reading::utc`] stay true. The result has two bounds. Against smeared time: that of
//! the reading (a second left out stretches it by 1/L, for truth passes the window faster), and one
//! unit of rounding. Against UTC: the smear's own offset more. [`smear`] has the definition and what
//! becomes of a host that forgets the leap second too early.
//!
//! # Audit
//!
//! UAPI.13 binds the host's updates to its earlier word: a counter value that was read under one page
//! keeps, by all later ones, a time inside the interval it was given; with `TIME_MONOTONIC`, no later
//! reading is earlier. [`Clock`] remembers [`audit::KEPT`] timelines and holds each update against
//! them while the marker stands still. What it finds is counted by kind with the latest evidence
//! ([`Audit`]); what to do about it is the service's business. Two things are not promised, and not
//! looked for: an interval inside the earlier one (an honest bound may grow looking back), and an
//! unchanged marker with a changed generation (a fork of the machine leaves its counter whole).
//!
//! # Disruption
//!
//! Marker, generation, what the host says is coming ([`Disruption`]) and the age of the page are part
//! of every [`Reading`], from the same snapshot as its time. A page that goes on being read while
//! nobody refreshes it, freerunning or not, stays right within a bound that grows with
//! [`Reading::age`]; how far it may grow is for the service to say.
//!
//! # Other sources
//!
//! Whatever else knows the time says "it was T ± e at some moment while the counter went from b to a"
//! ([`CrossTimestamp`]). An [`Estimator`] draws a line through the last [`estimate::SAMPLES`] of these: the same
//! [`Timeline`] as a page's, with a bound that means the same. The argument, in short, which
//! [`estimate`] has in full: two samples limit how long a tick can have lasted on average between them; by
//! the stated [`Wander`], any tick from the oldest sample to the end of the line's use is as long as that
//! but for w; so each sample limits the time at C1 from both sides; what lies within all these limits is
//! T1 ± E1 and P ± `E_P`. Nothing is averaged or filtered: if nothing lies within all of them, an
//! assumption is false, and the line ends ([`Disagreement`]).
//!
//! A guest does this:
//!
//! 1. It makes an [`Estimator`] for each source, with the wander and the limits that suit it, and gives it the
//!    counter's nominal frequency if there is one ([`Estimator::set_prior`]). Then the first sample gives
//!    a line, and otherwise the second, some milliseconds later.
//! 2. [`Clock::stamp`], ask the source, [`Clock::stamp`]; [`Bracket::new`]; [`Estimator::add`].
//! 3. [`Clock::set_own`] with the [`Estimator::timeline`] of the best source that has one. The page's time, if
//!    it has one, goes before it by itself ([`Clock`] has the rule).
//! 4. When an answer tells of a step ([`Kiss::Step`]): [`Estimator::forget`], the nominal frequency read again,
//!    and the second point. A frequency from before is not used: this may be another host.
//! 5. [`compare`](compare()) holds the readings of two sources at one counter value against each other. A
//!    difference is named, as TAI − UTC taken the wrong way, as smearing, or as a leap second that one of them missed, and
//!    never split.
//!
//! [`Reading::origin`] says what an answer rests on; [`Reading::age`] is the age of the newest sample then.
//!
//! A source of UTC that tells of leap seconds (NTP) crosses them as a page does. Within a second of one, when
//! its code stands for two instants, it is not sampled; the line goes on. One that tells nothing
//! contradicts the line after it, and starts anew. A source of TAI does not notice, and its UTC is as good
//! as the offset that it, or the operator, tells.
//!
//! # Ordering
//!
//! The reader loads `seq_count`, fences, loads every field (relaxed), reads the counter, fences, and
//! loads `seq_count` again; the writer stores odd, fences, stores, fences, stores even. A reader that
//! saw a byte of a later update is made to see, by the second fence, that the count has moved; an
//! acquire load in its place would not order the loads *above* it. The counter is read inside the
//! window, so that it belongs to the parameters it is used with, and the fences of
//! [`Counter::read`] make that so in execution as well. After [`page::ATTEMPTS`] looks the answer
//! is [`Busy`]: there is no older copy to fall back on, and the next call starts afresh. Loom tries
//! every order of two updates and two looks, and Miri runs writer and readers in threads; either
//! finds a mixture when any one of the four fences is taken out. What the fences become is looked at
//! in the machine code: nothing on x86, whose loads and stores are ordered by themselves, so plain
//! loads and `lfence; rdtsc; lfence`; plain loads between two `dmb ishld` on Arm, and `dmb ish`
//! for the writer.
//!
//! The disruption marker is part of each snapshot. A [`Stamp`] of an arrival carries the marker from
//! before its counter read; if the page it is to be converted by has another one, the request is
//! dropped ([`NoTime::StaleStamp`]), since nobody can tell when it came.
//!
//! # Claims and their tests
//!
//! | Claim | Test |
//! |---|---|
//! | every field is where the table says, in little-endian order | compile time; `page::every_field_is_at_its_offset_in_little_endian_order` |
//! | codes and flags, optional fields by flag and size | `page::codes_and_flags_are_those_of_the_abi`, `page::optional_fields_need_their_flag_and_their_size` |
//! | every refusal, and that the first one counts | `timeline::every_fault_has_its_outcome_and_the_first_counts` |
//! | the defaults | `timeline::without_errors_the_defaults_apply_and_are_noted`, `bounds` |
//! | both signs of the offset and no other value | `timeline::offsets_are_read_in_both_signs_and_no_others` |
//! | no overflow, short by less than a unit | `exact::spans_are_exact_but_for_the_last_unit`, `timeline::time_never_wraps` |
//! | the bound, its proof and its excess | `bounds::truth_is_inside_the_bound_of_every_page` (`GNOMON_PAGES=100000000` for the figures above), `exact` |
//! | leap seconds from every page, to the nanosecond | `leap`, `leap_history::any_page_near_an_edge_is_right_anywhere_near_it` |
//! | all of history, refreshed before, inside and after | `leap_history::every_style_of_host_is_right_from_1972_to_2031`, `leap_history::a_clock_refreshed_before_inside_and_after_is_right_throughout` |
//! | TAI → UTC → TAI is the identity, but for one flagged second | `leap_history::one_code_never_stands_for_two_instants_without_a_flag` |
//! | the operator's offset | `leap_history::an_operators_offset_follows_the_leap_seconds_of_pages_that_have_none`, `leap_history::an_operators_offset_never_replaces_the_pages` |
//! | smeared time is exact, monotonic, continuous and bounded | `smear` |
//! | honest hosts are never found fault with | `audit::a_host_that_measures_honestly_is_never_found_fault_with`, `audit::a_host_that_slews_within_its_bounds_is_never_found_fault_with`, `leap_history` |
//! | each fault is found as its kind | `audit` |
//! | disruption ahead, age | `timeline::a_disruption_ahead_and_the_age_of_the_page_are_told` |
//! | the seqlock gives no mixture | `loom::no_order_gives_a_mixture` (`--cfg loom`), `page::threads_never_see_a_mixture` (Miri) |
//! | the instructions | `codegen` |
//! | starvation is bounded and ends | `page::a_writer_that_never_stops_ends_in_busy_and_recovers`, `page::a_thread_that_never_stops_publishing_is_borne_and_outlived` |
//! | no time across a disruption | `clock`, `own` |
//! | the bound of a line through samples, and that truth is never called a contradiction | `estimate_bounds::no_truth_is_outside_the_bound_or_called_a_contradiction` |
//! | it is hardly wider than the newest sample | `estimate_bounds::the_bound_is_no_wider_than_the_newest_sample` |
//! | limits of age and bound | `estimate_bounds::a_line_is_used_within_its_limits_and_to_their_ends` |
//! | contradictions end the line, and are named | `estimate` |
//! | leap seconds of other sources | `estimate::a_source_of_utc_crosses_the_leap_second_that_it_tells_of` |
//! | an own line ends with its marker, wherever in an answer that moves | `own::wherever_the_disruption_falls_no_old_time_is_told`, `own::a_marker_that_moved_is_no_time_in_the_same_answer_and_for_good` |
#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::float_arithmetic)]
// A panic is a dead clock.
#![cfg_attr(
    not(test),
    deny(
        clippy::expect_used,
        clippy::panic,
        clippy::todo,
        clippy::unimplemented,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

pub mod audit;
pub mod calendar;
pub mod clock;
pub mod compare;
pub mod cross;
pub mod estimate;
pub mod leap;
pub mod page;
pub mod scale;
mod seqlock;
pub mod smear;
pub mod time;
pub mod timeline;
mod window;

/// What [`seqlock`] is made of; its test has another one.
mod atomic {
    pub(crate) use core::sync::atomic::{Ordering, fence};
}

pub use audit::{Audit, Evidence, Violation};
pub use clock::{Clock, Counter, Exchange, Kiss, NoTime, Now, Stamp};
pub use compare::{Comparison, Difference, Likely, compare};
pub use cross::{Bracket, CrossTimestamp, Origin, Source, SourceTime};
pub use estimate::{
    Calibration, Conflict, Disagreement, Estimator, Limits, NoLine, Prior, Rejected, Wander,
};
pub use leap::{Announcement, Leap, LeapSecond, OperatorOffset, TaiOffset, UtcTime};
pub use page::{
    Busy, ClockStatus, CounterId, Fields, LeapIndicator, PageMemory, SmearingHint, TimeType,
    VmclockPage, Writer,
};
pub use scale::Period;
pub use smear::{Smear, Smeared, Smearer};
pub use time::{Bound, NtpTimestamp, Span, Tai, Ticks, Timescale, Timestamp, Utc};
pub use timeline::{Disruption, Notes, OperatorNote, Reading, Timeline, Unusable};
