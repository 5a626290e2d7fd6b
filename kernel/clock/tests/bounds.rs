//! The bound on random pages of every kind against exact numbers: truth is never outside it, and it
//! is hardly wider than it has to be.
//!
//! `GNOMON_PAGES=100000000 cargo test --release -p gnomon-clock --test bounds -- --nocapture` runs
//! that many pages and prints what it found; by default there are 100 000.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "random numbers are cut to size, and digits are the low halves of products"
)]

use std::{env, thread};

use gnomon_clock::page::flag;
use gnomon_clock::{
    ClockStatus, CounterId, Fields, Reading, TaiOffset, Ticks, TimeType, Timeline, Timescale,
    Timestamp, Unusable,
};

const BILLION: u64 = 1_000_000_000;

/// What a share of the pages gave.
#[derive(Debug, Default)]
struct Tally {
    /// Pages, of which so many gave a reading of the ordinary range, or refused.
    pages: u64,
    ordinary: u64,
    refused: u64,
    /// Truth outside the bound.
    failures: u64,
    /// Greatest excess over the exact bound in the ordinary range, in 10⁻⁹ · 2⁻⁶⁴ s: of the bound,
    /// and of its whole nanoseconds.
    excess: u128,
    excess_of_nanos: u128,
}

impl Tally {
    fn plus(&self, other: &Self) -> Self {
        Self {
            pages: self.pages + other.pages,
            ordinary: self.ordinary + other.ordinary,
            refused: self.refused + other.refused,
            failures: self.failures + other.failures,
            excess: self.excess.max(other.excess),
            excess_of_nanos: self.excess_of_nanos.max(other.excess_of_nanos),
        }
    }
}

#[test]
fn truth_is_inside_the_bound_of_every_page() {
    let pages = env::var("GNOMON_PAGES").map_or(if cfg!(miri) { 100 } else { 100_000 }, |pages| {
        pages.parse().expect("a number of pages")
    });
    let shares = thread::available_parallelism().map_or(1, usize::from) as u64;
    let tally = thread::scope(|scope| {
        let shares: Vec<_> = (0..shares)
            .map(|share| {
                let count = pages / shares + u64::from(share < pages % shares);
                scope.spawn(move || run(count, share))
            })
            .collect();
        let tallies = shares.into_iter().map(|share| share.join().expect("ends"));
        tallies.fold(Tally::default(), |sum, tally| sum.plus(&tally))
    });
    let thousandths = |excess: u128| ((excess >> 54) * 1000) >> 10;
    println!(
        "{} pages, {} refused, {} failures; in the ordinary range {} pages, worst excess {} · 10⁻¹² s, \
         in whole nanoseconds {} · 10⁻¹² s",
        tally.pages,
        tally.refused,
        tally.failures,
        tally.ordinary,
        thousandths(tally.excess),
        thousandths(tally.excess_of_nanos),
    );
    assert_eq!(tally.pages, pages);
    assert_eq!(tally.failures, 0);
    assert!(tally.ordinary > pages / 3 && tally.refused < pages / 3);
    assert!(tally.excess_of_nanos < 2 << 64);
}

fn run(pages: u64, seed: u64) -> Tally {
    let mut random = Random(seed);
    let mut tally = Tally::default();
    for index in 0..pages {
        let ordinary = index % 2 == 0;
        let (page, delta) = if ordinary {
            ordinary_page(&mut random)
        } else {
            any_page(&mut random)
        };
        tally.pages += 1;
        let now = Ticks(page.counter_value.wrapping_add_signed(delta));
        match Timeline::from_page(&page, CounterId::X86Tsc).and_then(|timeline| timeline.at(now)) {
            Ok(reading) => {
                let exact = Exact::of(&page, delta, &reading);
                if !exact.holds(&reading) {
                    println!("{page:?} {delta} {reading:?}");
                    tally.failures += 1;
                }
                check_assumptions(&page, &reading);
                if ordinary {
                    tally.ordinary += 1;
                    tally.excess = tally.excess.max(exact.excess(exact.bound));
                    let nanos = Wide::from(reading.bound.nanos().into())
                        .shifted(64 + u32::from(page.counter_period_shift));
                    tally.excess_of_nanos = tally.excess_of_nanos.max(exact.excess(nanos));
                }
            }
            Err(why) => {
                assert!(
                    !ordinary && may_refuse(&page, delta, why),
                    "{why:?} {page:?}"
                );
                tally.refused += 1;
            }
        }
    }
    tally
}

/// Counters of 50 MHz to 5 GHz within a day of the reference, normalised or not.
fn ordinary_page(random: &mut Random) -> (Fields, i64) {
    let picoseconds = 200 + random.below(19_801);
    // The greatest shift for which the period still fits, at most 40.
    let fits = (1_000_000_000_000 / picoseconds).ilog2().min(40);
    let shift = 20 + random.below(u64::from(fits) - 19);
    let frac = ((u128::from(picoseconds) << (64 + shift)) / 1_000_000_000_000) as u64;
    let frac = frac - random.below(frac / 1000);
    let day = 86_400_000_000_000_000 / picoseconds;
    let delta = random.below(2 * day) as i64 - day as i64;
    let page = Fields {
        counter_period_frac_sec: frac,
        counter_period_shift: shift as u8,
        counter_period_maxerror_rate_frac_sec: frac / 1_000_000 * random.below(500),
        time_sec: 1_795_176_331 + random.below(1 << 30),
        time_maxerror_nanosec: random.next() >> (33 + random.below(31)),
        leap_indicator: 0,
        ..any_page(random).0
    };
    (page, delta)
}

/// Everything at its extremes and in between.
fn any_page(random: &mut Random) -> (Fields, i64) {
    let size = match random.below(4) {
        0 => 0x1000,
        1 => u32::MAX,
        _ => 0x58 + random.below(0x20) as u32,
    };
    let tai_offset_sec = match random.below(4) {
        0 => random.next() as i16,
        1 => 10 + random.below(51) as i16,
        _ => -10 - random.below(51) as i16,
    };
    let page = Fields {
        size,
        counter_id: CounterId::X86Tsc as u8,
        time_type: random.below(2) as u8,
        clock_status: 2 + random.below(2) as u8,
        disruption_marker: random.next(),
        flags: random.next(),
        leap_second_smearing_hint: random.next() as u8,
        tai_offset_sec,
        leap_indicator: random.below(6) as u8,
        counter_period_shift: random.below(128) as u8,
        counter_value: random.next(),
        counter_period_frac_sec: random.any_size().max(1),
        counter_period_esterror_rate_frac_sec: random.any_size(),
        counter_period_maxerror_rate_frac_sec: random.any_size(),
        time_sec: random.any_size() >> random.below(3),
        time_frac_sec: random.next(),
        time_esterror_nanosec: random.any_size(),
        time_maxerror_nanosec: random.any_size(),
        vm_generation_counter: random.next(),
        ..Fields::stock()
    };
    let delta = random.next().cast_signed() >> random.below(64);
    (page, delta)
}

/// A page that is refused has a reason: 23:59:60 away from a month's end, or a time that comes
/// near the ends of the range (a minute of TAI − UTC, a month to the leap).
fn may_refuse(page: &Fields, delta: i64, why: Unusable) -> bool {
    let within = |seconds: u128| {
        // In 2^−(64 + shift) s.
        let t1 = Wide::from(u128::from(page.time_sec) << 64 | u128::from(page.time_frac_sec))
            .shifted(page.counter_period_shift.into());
        let elapsed = Wide::product(delta, page.counter_period_frac_sec);
        let time = t1.plus(elapsed);
        let at =
            |seconds: u128| Wide::from(seconds).shifted(64 + u32::from(page.counter_period_shift));
        let inside = |time: Wide| {
            !time.minus(at(seconds)).is_negative()
                && time.minus(at((1 << 63) - seconds)).is_negative()
        };
        inside(time) && inside(t1)
    };
    match why {
        Unusable::LeapSecond => page.leap_indicator == 3,
        Unusable::OutOfRange if page.leap_indicator == 0 => !within(62),
        Unusable::OutOfRange => !within(32 * 86_400),
        _ => false,
    }
}

/// What the page gives for its errors, by the documentation and not by the code.
fn errors_of(page: &Fields) -> (u64, u64) {
    let given = |flag: u64, end: u32| page.flags & flag != 0 && page.size >= end;
    let time = if given(1 << 6, 0x68) {
        page.time_maxerror_nanosec
    } else {
        10_000_000
    };
    let rate = if given(1 << 4, 0x48) {
        page.counter_period_maxerror_rate_frac_sec
    } else {
        page.counter_period_frac_sec.div_ceil(20_000)
    };
    (time, rate)
}

/// Every assumption is noted, and nothing else.
fn check_assumptions(page: &Fields, reading: &Reading) {
    let (time, period) = (
        page.has(flag::TIME_MAXERROR_VALID),
        page.has(flag::PERIOD_MAXERROR_VALID),
    );
    let flagged = page.has(flag::TAI_OFFSET_VALID);
    let offset = TaiOffset::from_page(page.tai_offset_sec).filter(|_| flagged);
    let is_utc = page.time_type == TimeType::Utc as u8;
    let notes = reading.notes;
    assert_eq!(notes.default_time_error, !time || page.size < 0x68);
    assert_eq!(notes.default_period_error, !period);
    assert_eq!(
        notes.positive_tai_offset,
        offset.is_some() && page.tai_offset_sec > 0
    );
    assert_eq!(notes.invalid_tai_offset, flagged && offset.is_none());
    assert_eq!(notes.utc_without_tai_offset, is_utc && offset.is_none());
    assert_eq!(reading.tai.is_some(), !is_utc || offset.is_some());
    assert_eq!(reading.utc.is_some(), is_utc || offset.is_some());
    assert_eq!(reading.tai_offset.is_some(), offset.is_some());
    let generation = page.has(flag::VM_GEN_COUNTER_PRESENT) && page.size >= 0x70;
    assert_eq!(
        reading.generation,
        generation.then_some(page.vm_generation_counter)
    );
    assert_eq!(reading.marker, page.disruption_marker);
    let freerunning = page.clock_status == ClockStatus::Freerunning as u8;
    assert_eq!(reading.status == ClockStatus::Freerunning, freerunning);
}

/// A reading in exact numbers, in 10⁻⁹ · 2^−(64 + shift) s.
struct Exact {
    shift: u32,
    /// The greatest distance of truth from the answer.
    error: Wide,
    bound: Wide,
}

impl Exact {
    fn of(page: &Fields, delta: i64, reading: &Reading) -> Self {
        let shift = u32::from(page.counter_period_shift);
        let (time_error, rate) = errors_of(page);
        // The answer relative to T1: exact where the page's scale is linear for the reading, so by
        // TAI, or by a UTC that crosses no leap second.
        let offset = match page.time_type {
            0 => page.tai_offset_sec.unsigned_abs().into(),
            _ => 0,
        };
        let since_t1 = match (reading.tai, reading.utc) {
            (Some(tai), _) => tai.since(reference(page, offset)),
            (None, Some(utc)) => utc.time.since(reference(page, 0)),
            (None, None) => None,
        };
        let since_t1 = since_t1.expect("in range").units();
        // A UTC page without an offset may have a leap second in between, which its own tests are
        // about: whole seconds are taken back.
        let crossing = if reading.tai.is_none() && page.leap_indicator != 0 {
            let elapsed = Wide::product(delta, page.counter_period_frac_sec);
            let answer = Wide::signed(since_t1).shifted(shift);
            [-1_i128, 0, 1]
                .into_iter()
                .min_by_key(|seconds| {
                    let moved = answer.plus(Wide::signed(seconds << 64).shifted(shift));
                    moved
                        .minus(elapsed)
                        .magnitude()
                        .0
                        .into_iter()
                        .rev()
                        .collect::<Vec<_>>()
                })
                .unwrap_or(0)
        } else {
            0
        };
        let answer = Wide::signed(since_t1 + (crossing << 64)).shifted(shift);
        // Truth is T1 + e + (Δ + θ)(P + r), |e| ≤ time_error, |r| ≤ rate, 0 ≤ θ < 1: linear in each,
        // so farthest from the answer at the corners.
        let corner = |theta: i128| {
            let ticks = i128::from(delta) + theta;
            let nominal = Wide::signed(ticks * i128::from(page.counter_period_frac_sec));
            let drift = Wide::from(ticks.unsigned_abs() * u128::from(rate));
            nominal.minus(answer).magnitude().plus(drift)
        };
        let (early, late) = (corner(0), corner(1));
        let farthest = if early.minus(late).is_negative() {
            late
        } else {
            early
        };
        let time_error = Wide::from(time_error.into()).shifted(64 + shift);
        Self {
            shift,
            error: farthest.times(BILLION).plus(time_error),
            bound: Wide::from(reading.bound.units())
                .times(BILLION)
                .shifted(shift),
        }
    }

    fn holds(&self, reading: &Reading) -> bool {
        reading.bound.units() == u128::MAX || !self.bound.minus(self.error).is_negative()
    }

    /// How much `bound` exceeds the exact one, in 10⁻⁹ · 2⁻⁶⁴ s.
    fn excess(&self, bound: Wide) -> u128 {
        bound.minus(self.error).shifted_down(self.shift)
    }
}

/// T1 on a scale that is `offset` seconds ahead of the page's.
fn reference<S: Timescale>(page: &Fields, offset: u64) -> Timestamp<S> {
    Timestamp::from_parts((page.time_sec + offset).cast_signed(), page.time_frac_sec)
}

/// A whole number of 320 bits in two's complement: nothing here comes near 2³⁰⁰.
#[derive(Clone, Copy, Debug)]
struct Wide([u64; 5]);

impl Wide {
    fn from(value: u128) -> Self {
        Self([value as u64, (value >> 64) as u64, 0, 0, 0])
    }

    fn signed(value: i128) -> Self {
        let magnitude = Self::from(value.unsigned_abs());
        if value < 0 {
            magnitude.negated()
        } else {
            magnitude
        }
    }

    fn product(a: i64, b: u64) -> Self {
        Self::signed(i128::from(a) * i128::from(b))
    }

    fn plus(self, other: Self) -> Self {
        let mut carry = false;
        let mut sum = [0; 5];
        for ((sum, a), b) in sum.iter_mut().zip(self.0).zip(other.0) {
            let (partial, over) = a.overflowing_add(b);
            let (total, over_again) = partial.overflowing_add(carry.into());
            *sum = total;
            carry = over | over_again;
        }
        Self(sum)
    }

    fn minus(self, other: Self) -> Self {
        self.plus(other.negated())
    }

    fn negated(self) -> Self {
        Self(self.0.map(|digit| !digit)).plus(Self::from(1))
    }

    fn is_negative(self) -> bool {
        self.0[4] >> 63 == 1
    }

    fn magnitude(self) -> Self {
        if self.is_negative() {
            self.negated()
        } else {
            self
        }
    }

    /// Of a number that is not negative.
    fn times(self, factor: u64) -> Self {
        let mut carry = 0;
        Self(self.0.map(|digit| {
            let product = u128::from(digit) * u128::from(factor) + carry;
            carry = product >> 64;
            product as u64
        }))
    }

    fn shifted(self, bits: u32) -> Self {
        let (digits, bits) = ((bits / 64) as usize, bits % 64);
        Self(core::array::from_fn(|i| {
            let digit = |i: Option<usize>| i.map_or(0, |i| self.0[i]);
            let low = digit(i.checked_sub(digits + 1));
            digit(i.checked_sub(digits)) << bits | low.checked_shr(64 - bits).unwrap_or(0)
        }))
    }

    /// Rounded up, of a number that is not negative and is small then.
    fn shifted_down(self, bits: u32) -> u128 {
        let up = self.plus(Self::from(1).shifted(bits)).minus(Self::from(1));
        let (digits, bits) = ((bits / 64) as usize, bits % 64);
        let digit = |i: usize| u128::from(up.0.get(i).copied().unwrap_or(0));
        let low = digit(digits) | digit(digits + 1) << 64;
        assert!(self.0[digits + 2..].iter().all(|digit| *digit == 0));
        low >> bits | digit(digits + 2).checked_shl(128 - bits).unwrap_or(0)
    }
}

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    /// Of every magnitude, and now and then the very ends.
    fn any_size(&mut self) -> u64 {
        match self.below(16) {
            0 => 0,
            1 => u64::MAX,
            _ => self.next() >> self.below(64),
        }
    }
}
