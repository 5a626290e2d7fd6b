//! The arithmetic of timelines against exact numbers, on random pages.

mod common;

use gnomon_clock::{CounterId, Fields, Period, Span, Tai, Ticks, Timeline, Timestamp};
use proptest::prelude::*;

use common::{TAI, good, timeline};

/// A natural number of any size, in 32-bit digits from the lowest up. Slow and obviously right.
#[derive(Clone, Debug)]
struct Nat(Vec<u32>);

#[expect(clippy::cast_possible_truncation, reason = "the low digit is wanted")]
impl Nat {
    fn from(value: u128) -> Self {
        Self((0..4).map(|i| (value >> (32 * i)) as u32).collect())
    }

    fn digit(&self, i: usize) -> u64 {
        u64::from(self.0.get(i).copied().unwrap_or(0))
    }

    fn plus(&self, other: &Self) -> Self {
        let mut carry = 0;
        let digits = (0..=self.0.len().max(other.0.len())).map(|i| {
            carry += self.digit(i) + other.digit(i);
            let digit = carry as u32;
            carry >>= 32;
            digit
        });
        Self(digits.collect())
    }

    fn times(&self, other: &Self) -> Self {
        let mut digits = vec![0_u32; self.0.len() + other.0.len()];
        for i in 0..self.0.len() {
            let mut carry = 0;
            for j in 0..other.0.len() {
                carry += u64::from(digits[i + j]) + self.digit(i) * other.digit(j);
                digits[i + j] = carry as u32;
                carry >>= 32;
            }
            digits[i + other.0.len()] = carry as u32;
        }
        Self(digits)
    }

    fn two_to(power: u8) -> Self {
        let mut digits = vec![0; usize::from(power / 32)];
        digits.push(1 << (power % 32));
        Self(digits)
    }

    fn at_most(&self, other: &Self) -> bool {
        (0..self.0.len().max(other.0.len()))
            .rev()
            .map(|i| (self.digit(i), other.digit(i)))
            .find(|(a, b)| a != b)
            .is_none_or(|(a, b)| a < b)
    }
}

fn natural(value: u64) -> Nat {
    Nat::from(value.into())
}

/// Half-way between all values and those of every magnitude.
fn any_size() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..64_u32).prop_map(|(value, shift)| value >> shift)
}

/// −1000..=1000, and half the time one of the ends: errors only meet a bound at their extremes.
fn often_extreme() -> impl Strategy<Value = i128> {
    prop_oneof![-1000..=1000_i128, Just(-1000), Just(1000)]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 3000 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn spans_are_exact_but_for_the_last_unit(
        ticks in any::<i64>(), narrow in 0..64_u32, frac in any_size(), shift in 0..=127_u8,
    ) {
        let (ticks, frac) = (ticks >> narrow, frac.max(1));
        let period = Period::new(frac, shift).expect("valid");
        let span = period.span(ticks).units();
        prop_assert!(span == 0 || (span < 0) == (ticks < 0));
        let exact = natural(ticks.unsigned_abs()).times(&natural(frac));
        let scaled = |units: u128| Nat::from(units).times(&Nat::two_to(shift));
        prop_assert!(scaled(span.unsigned_abs()).at_most(&exact));
        prop_assert!(!scaled(span.unsigned_abs() + 1).at_most(&exact));
        let outward = period.span_outward(ticks).units();
        prop_assert!(exact.at_most(&scaled(outward)));
        prop_assert!(outward - span.unsigned_abs() <= 1);
        prop_assert_eq!(period.tick_outward(), period.span_outward(1));
    }

    #[test]
    fn the_bound_is_the_exact_error_rounded_outward_by_less_than_five_units(
        reference in any::<u64>(), delta in any::<i64>(), narrow in 0..64_u32,
        frac in any_size(), rate in any_size(), shift in 0..=127_u8, maxerror in any_size(),
    ) {
        let (delta, frac) = (delta >> narrow, frac.max(1));
        let page = Fields {
            counter_value: reference,
            counter_period_frac_sec: frac,
            counter_period_shift: shift,
            counter_period_maxerror_rate_frac_sec: rate,
            time_maxerror_nanosec: maxerror,
            ..good()
        };
        let ticks = Ticks(reference.wrapping_add_signed(delta));
        let Ok(reading) = timeline(&page).at(ticks) else {
            return Ok(()); // out of range, which has its own tests
        };
        // Everything in 10⁻⁹ · 2^−(64 + shift) s:
        // maxerror ns, and (|Δ| + 1)·rate + one tick.
        let billion = natural(1_000_000_000);
        let one = Nat::two_to(shift).times(&billion);
        let time = natural(maxerror).times(&Nat::two_to(64)).times(&Nat::two_to(shift));
        let elapsed = natural(delta.unsigned_abs()).plus(&natural(1));
        let drift = elapsed.times(&natural(rate)).plus(&natural(frac)).times(&billion);
        let exact = time.plus(&drift);
        let bound = Nat::from(reading.bound.units()).times(&one);
        prop_assert!(exact.plus(&one).at_most(&bound), "a unit of truncation is in it");
        prop_assert!(bound.at_most(&exact.plus(&one.times(&natural(5)))));
    }

    #[test]
    fn the_true_time_is_inside_the_bound(
        delta in -(1_i64 << 40)..1 << 40, frac in 1_u32.., rate_part in 0..1000_u32,
        shift in 0..=10_u8, maxerror in 0..1_000_000_u32,
        // Where truth lies between its limits, and within the tick, in thousandths.
        time_at in often_extreme(), period_at in often_extreme(), tick_at in often_extreme(),
    ) {
        let rate = frac / 1_000_000 * rate_part;
        let tick_at = tick_at.abs().min(999);
        let page = Fields {
            counter_value: 0,
            counter_period_frac_sec: frac.into(),
            counter_period_shift: shift,
            counter_period_maxerror_rate_frac_sec: rate.into(),
            time_maxerror_nanosec: maxerror.into(),
            ..good()
        };
        let reading = timeline(&page).at(Ticks(delta.cast_unsigned())).expect("near T1");
        let t1 = Timestamp::<Tai>::from_parts(TAI.cast_signed(), 1 << 63);
        let answer = reading.tai.and_then(|tai| tai.since(t1)).expect("near T1");
        // Truth relative to T1 in 10⁻⁶ · 2^−(64 + shift) s, from a true T1 and a true period.
        let t1_error = ((i128::from(maxerror) << 64) / 1_000_000_000) << shift;
        let truth = t1_error * time_at * 1000
            + (i128::from(delta) * 1000 + tick_at)
                * (i128::from(frac) * 1000 + i128::from(rate) * period_at);
        // Rounded away from the answer, so that the comparison is not kinder than the claim.
        let unit = 1_000_000_i128 << shift;
        let inside = reading.bound.contains(Span::from_units(truth.div_euclid(unit) - answer.units()))
            && reading.bound.contains(Span::from_units(-(-truth).div_euclid(unit) - answer.units()));
        prop_assert!(inside, "{truth} {answer:?} {:?}", reading.bound);
    }

    #[test]
    fn time_follows_the_counter(
        reference in any::<u64>(), a in any::<i64>(), b in any::<i64>(), narrow in 0..64_u32,
        frac in any_size(), shift in 0..=127_u8,
    ) {
        let page = Fields {
            counter_value: reference,
            counter_period_frac_sec: frac.max(1),
            counter_period_shift: shift,
            ..good()
        };
        let timeline = timeline(&page);
        let at = |delta: i64| timeline.at(Ticks(reference.wrapping_add_signed(delta >> narrow)));
        let (Ok(earlier), Ok(later)) = (at(a.min(b)), at(a.max(b))) else {
            return Ok(());
        };
        prop_assert!(earlier.tai <= later.tai);
        let (early, late) = (earlier.utc.expect("offset"), later.utc.expect("offset"));
        prop_assert!(early.time <= late.time);
        // The bound is least at the reference, and the reference is itself.
        let here = timeline.at(Ticks(reference)).expect("the reference");
        prop_assert!(here.bound <= earlier.bound && here.bound <= later.bound);
        prop_assert_eq!(here.tai, Some(Timestamp::from_parts(TAI.cast_signed(), 1 << 63)));
    }

    #[test]
    fn no_page_panics(bytes in proptest::collection::vec(any::<u8>(), 0x70), codes in 0..6_u8, now in any::<u64>()) {
        let bytes: [u8; 0x70] = bytes.try_into().expect("of that length");
        let random = Fields::from_bytes(&bytes);
        // Random below the header, so that the arithmetic is reached.
        let page = Fields {
            magic: good().magic,
            version: 1,
            size: 0x1000,
            counter_id: 1,
            time_type: codes & 1,
            clock_status: 2,
            leap_indicator: codes,
            counter_period_shift: random.counter_period_shift & 127,
            tai_offset_sec: random.tai_offset_sec >> 9,
            time_sec: random.time_sec >> (random.time_frac_sec & 63),
            ..random
        };
        if let Ok(timeline) = Timeline::from_page(&page, CounterId::X86Tsc)
            && let Ok(reading) = timeline.at(Ticks(now))
        {
            prop_assert!(reading.tai.is_some() || reading.utc.is_some());
            if let (Some(tai), Some(utc), Some(offset)) =
                (reading.tai, reading.utc, reading.tai_offset)
            {
                let coded = i64::from(offset) + i64::from(utc.leap_second);
                let back = utc.time.checked_add(Span::from_seconds(coded)).expect("in range");
                prop_assert_eq!((back.seconds(), back.fraction()), (tai.seconds(), tai.fraction()));
            }
        }
    }
}
