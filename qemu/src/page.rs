//! The fields of the page that say what is known of the time.

use core::num::NonZeroU32;
use core::ops::RangeInclusive;
use std::collections::VecDeque;

use clap::ValueEnum;
use gnomon_clock::page::flag;
use gnomon_clock::{
    Bound, ClockStatus, CounterId, Fields, Period, Span, Tai, Ticks, TimeType, Timestamp,
};

use crate::estimate::Estimate;
use crate::host::Sample;
use crate::mapping::Mapping;

/// The scale of the published time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Scale {
    /// TAI, with the offset to UTC. Where TAI − UTC is not known it has to be UTC all the same.
    #[default]
    Tai,
    /// UTC, with the offset to TAI where that is known.
    Utc,
}

/// What the published bound is a bound against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Reference {
    /// The host's clock. While the kernel says that it is kept to UTC, the kernel's own error bound
    /// is added and the status is `SYNCHRONIZED`; while not, the host's clock is all there is, the
    /// bound is against that clock, and the status is `FREERUNNING`.
    #[default]
    Host,
    /// UTC. While the kernel does not vouch for its clock, no time is published (`UNRELIABLE`).
    Utc,
}

/// The page that gives this estimate to a guest, without marker and `seq_count`.
///
/// `TIME_MONOTONIC` is never claimed: the next sample may well show that time is a few nanoseconds
/// earlier than was thought.
#[must_use]
pub fn valid(estimate: &Estimate, sample: &Sample, mapping: &Mapping, scale: Scale) -> Fields {
    let period = estimate.period;
    let offset = sample.offset.and_then(|offset| i16::try_from(offset).ok());
    let (counter, since) = mapping.guest_at(estimate.counter);
    let divisor = mapping.guest.divisor;
    // The tick lasts from `since` ago for the divisor's length: its middle is meant.
    let half = i64::from(divisor.get() / 2);
    let time = estimate
        .time
        .checked_add(period.span(half - i64::from(since)))
        .unwrap_or(estimate.time);
    let mapped = period
        .rate_outward(mapping.radius, period.frac())
        .plus(period.span_outward(half));
    let (time_type, seconds) = match (scale, offset) {
        (Scale::Tai, Some(_)) => (TimeType::Tai, time.seconds()),
        (Scale::Utc, Some(offset)) => (TimeType::Utc, time.seconds() - i64::from(offset)),
        (_, None) => (TimeType::Utc, time.seconds()),
    };
    let (shift, [frac, esterror, maxerror]) = per_tick(estimate, divisor);
    let tai_offset_valid = if offset.is_some() {
        flag::TAI_OFFSET_VALID
    } else {
        0
    };
    let status = if sample.kernel.synchronised {
        ClockStatus::Synchronized
    } else {
        ClockStatus::Freerunning
    };
    Fields {
        counter_id: mapping.guest.id as u8,
        time_type: time_type as u8,
        flags: tai_offset_valid
            | flag::PERIOD_ESTERROR_VALID
            | flag::PERIOD_MAXERROR_VALID
            | flag::TIME_ESTERROR_VALID
            | flag::TIME_MAXERROR_VALID,
        clock_status: status as u8,
        // UAPI.13 v1.1: UTC = TAI + tai_offset_sec.
        tai_offset_sec: offset.map_or(0, |offset| -offset),
        leap_indicator: sample.kernel.leap_indicator() as u8,
        counter_period_shift: shift,
        counter_value: counter,
        counter_period_frac_sec: frac,
        counter_period_esterror_rate_frac_sec: esterror,
        counter_period_maxerror_rate_frac_sec: maxerror,
        time_sec: seconds.cast_unsigned(),
        time_frac_sec: time.fraction(),
        time_esterror_nanosec: estimate.esterror.plus(mapped).nanos(),
        time_maxerror_nanosec: estimate.maxerror.plus(mapped).nanos(),
        ..Fields::stock()
    }
}

/// The period of a guest's tick, with its shift, and its errors, estimated and greatest.
fn per_tick(estimate: &Estimate, divisor: NonZeroU32) -> (u8, [u64; 3]) {
    let period = estimate.period;
    let wide = u128::from(period.frac()) * u128::from(divisor.get());
    // The product has to fit into 64 bits. A host counter's shift is about 29, and 20 bits hold the
    // longest tick.
    let excess = u64::BITS.saturating_sub(wide.leading_zeros());
    let lost = excess.min(period.shift().into());
    let narrow = |value: u128| u64::try_from(value).unwrap_or(u64::MAX);
    let outward = |error: u64| {
        let error = u128::from(error) * u128::from(divisor.get());
        narrow(error.div_ceil(1 << lost))
    };
    // What is cut off the period is less than one unit of it.
    let cut = u64::from(lost > 0);
    let shift = period.shift() - u8::try_from(lost).unwrap_or(0);
    let frac = narrow(wide >> lost);
    let esterror = outward(estimate.period_esterror);
    let maxerror = outward(estimate.period_maxerror).saturating_add(cut);
    (shift, [frac, esterror, maxerror])
}

/// The page that tells a guest that there is no time, without marker and `seq_count`.
#[must_use]
pub fn invalid(status: ClockStatus, scale: Scale, counter: CounterId) -> Fields {
    let time_type = match scale {
        Scale::Tai => TimeType::Tai,
        Scale::Utc => TimeType::Utc,
    };
    Fields {
        counter_id: counter as u8,
        time_type: time_type as u8,
        clock_status: status as u8,
        ..Fields::stock()
    }
}

/// Whether a page keeps what the page before it promised (UAPI.13): its interval lies inside the
/// earlier one's at its own counter value, its time at the earlier counter value lies inside
/// the earlier interval there, and its rate inside the earlier one's error. So, both being
/// straight, at every counter value from the earlier reference on its time lies inside the earlier
/// interval. Both are pages made by [`valid`].
#[must_use]
pub fn keeps_promise(earlier: &Fields, later: &Fields) -> bool {
    let same_scale = earlier.has(flag::TAI_OFFSET_VALID) == later.has(flag::TAI_OFFSET_VALID);
    let (Some(earlier), Some(later)) = (Line::of(earlier), Line::of(later)) else {
        return false;
    };
    same_scale
        && earlier.holds(&later, later.counter, later.error)
        && earlier.holds(&later, earlier.counter, Bound::ZERO)
        && earlier
            .rate_apart(later.period)
            .is_some_and(|apart| apart <= earlier.period_error.into())
}

/// For how long a new page keeps what older ones promised: a guest that is kept from its CPU meanwhile
/// compares the newest page with those it has seen.
pub const REMEMBERED: Span = Span::from_nanos(250_000_000);

/// How many pages are kept to, however old they are, and how many are at most: one a millisecond.
pub const PAGES: RangeInclusive<usize> = 4..=250;

/// The last pages under one marker, which a new one must not contradict.
///
/// Whoever has read the counter under an old page was told an interval, and the newest page has to
/// put that counter value inside it. When the host's clock has changed its rate, the line that fits
/// best now does not, beyond the page just before: it runs back beside where the old pages were.
/// Then the old line goes on, with an error that contains the new one, until all pages remembered
/// are wide enough for that.
#[derive(Debug, Default)]
pub struct Promises {
    pages: VecDeque<Fields>,
}

impl Promises {
    /// Nothing is promised any more: there is a new marker.
    pub fn forget(&mut self) {
        self.pages.clear();
    }

    /// This page has been published.
    pub fn note(&mut self, page: &Fields) {
        self.pages.push_front(*page);
        self.pages.truncate(*PAGES.end());
        while self.pages.len() > *PAGES.start()
            && self.pages.back().is_some_and(|old| is_past(old, page))
        {
            self.pages.pop_back();
        }
    }

    /// Whether this page contradicts none of them.
    #[must_use]
    pub fn allow(&self, page: &Fields) -> bool {
        let Some(line) = Line::of(page) else {
            return false;
        };
        let mut pages = self.pages.iter();
        pages
            .next()
            .is_none_or(|newest| keeps_promise(newest, page))
            && pages.all(|older| {
                Line::of(older).is_some_and(|older| older.holds(&line, older.counter, Bound::ZERO))
            })
    }

    /// This page if it may be published, or else the one to publish instead: it contains this one's
    /// interval. `None` when there is none, and the newest page has to stay.
    #[must_use]
    pub fn reconcile(&self, wanted: &Fields) -> Option<Fields> {
        if self.allow(wanted) {
            return Some(*wanted);
        }
        let newest = self.pages.front()?;
        let (old, new) = (Line::of(newest)?, Line::of(wanted)?);
        let (time, room) = old.at(new.counter)?;
        let apart = new.time.since(time)?;
        let apart = Bound::from_units(apart.abs().units().cast_unsigned());
        // Twice, because the clock may well go on the way it has begun.
        let error = new.error.plus(apart).plus(apart).min(room);
        // In whole nanoseconds, which may not be more than there is room for.
        let maxerror = error.nanos().saturating_sub(1);
        let rate_apart = u64::try_from(old.rate_apart(new.period)?).ok()?;
        let in_old_unit = |rate: u64| {
            u64::try_from(scaled(
                rate,
                wanted.counter_period_shift,
                newest.counter_period_shift,
            )?)
            .ok()
        };
        let page_time = time.checked_add(Span::from_seconds(Line::offset(wanted)))?;
        let page = Fields {
            time_sec: u64::try_from(page_time.seconds()).ok()?,
            time_frac_sec: page_time.fraction(),
            time_maxerror_nanosec: maxerror,
            time_esterror_nanosec: wanted
                .time_esterror_nanosec
                .saturating_add(apart.nanos())
                .min(maxerror),
            counter_period_shift: newest.counter_period_shift,
            counter_period_frac_sec: newest.counter_period_frac_sec,
            counter_period_esterror_rate_frac_sec: in_old_unit(
                wanted.counter_period_esterror_rate_frac_sec,
            )?
            .saturating_add(rate_apart),
            counter_period_maxerror_rate_frac_sec: in_old_unit(
                wanted.counter_period_maxerror_rate_frac_sec,
            )?
            .saturating_add(rate_apart),
            ..*wanted
        };
        let contains = Bound::from_nanos(maxerror) >= new.error.plus(apart);
        (contains && self.allow(&page)).then_some(page)
    }
}

/// Whether nothing of `old` is to be kept to any more at the time of `new`.
fn is_past(old: &Fields, new: &Fields) -> bool {
    let (Some(old), Some(new)) = (Line::of(old), Line::of(new)) else {
        return true;
    };
    new.time.since(old.time).is_none_or(|age| age > REMEMBERED)
}

/// What a page says, on a scale without leap seconds.
struct Line {
    counter: Ticks,
    time: Timestamp<Tai>,
    error: Bound,
    period: Period,
    period_error: u64,
}

impl Line {
    fn of(fields: &Fields) -> Option<Self> {
        let seconds = i64::try_from(fields.time_sec).ok()?;
        let seconds = seconds.checked_sub(Self::offset(fields))?;
        let time = Timestamp::from_parts(seconds, fields.time_frac_sec);
        let shift = fields.counter_period_shift;
        Some(Self {
            counter: Ticks(fields.counter_value),
            time,
            error: Bound::from_nanos(fields.time_maxerror_nanosec),
            period: Period::new(fields.counter_period_frac_sec, shift).ok()?,
            period_error: fields.counter_period_maxerror_rate_frac_sec,
        })
    }

    /// What the page's seconds are ahead of the line's.
    fn offset(fields: &Fields) -> i64 {
        let is_utc = fields.time_type == TimeType::Utc as u8 && fields.has(flag::TAI_OFFSET_VALID);
        if is_utc {
            fields.tai_offset_sec.into()
        } else {
            0
        }
    }

    /// Whether the later time at `counter` lies inside, with `needed` around it.
    fn holds(&self, later: &Self, counter: Ticks, needed: Bound) -> bool {
        let inside = || {
            let ((time, bound), (later, _)) = (self.at(counter)?, later.at(counter)?);
            let room = Bound::from_units(bound.units().checked_sub(needed.units())?);
            Some(room.contains(later.since(time)?))
        };
        inside() == Some(true)
    }

    /// How far this line's period and another are apart, in this one's unit, rounded up.
    fn rate_apart(&self, other: Period) -> Option<u128> {
        let other = scaled(other.frac(), other.shift(), self.period.shift())?;
        Some(u128::from(self.period.frac()).abs_diff(other) + 1)
    }

    fn at(&self, counter: Ticks) -> Option<(Timestamp<Tai>, Bound)> {
        let ticks = counter.since(self.counter);
        let drift = self
            .period
            .rate_outward(ticks.unsigned_abs(), self.period_error);
        Some((
            self.time.checked_add(self.period.span(ticks))?,
            self.error.plus(drift),
        ))
    }
}

/// A period or its error with another shift, rounded up.
fn scaled(value: u64, from: u8, to: u8) -> Option<u128> {
    let value = u128::from(value);
    match to.checked_sub(from) {
        Some(up @ 0..64) => Some(value << up),
        Some(_) => None,
        None => Some(value.div_ceil(1_u128.checked_shl(u32::from(from - to))?)),
    }
}

#[cfg(test)]
mod tests {
    use gnomon_clock::{LeapIndicator, Span, Timeline};

    use super::*;
    use crate::host::{Kernel, Leap, Phase};
    use crate::mapping::GuestCounter;

    const KERNEL: Kernel = Kernel {
        utc: 1_800_000_000,
        leap: Leap::None,
        phase: Phase::Ahead,
        tai: 0,
        synchronised: false,
        maxerror_us: 0,
        esterror_us: 0,
    };

    fn estimate(counter: u64, seconds: i64, nanos: u64) -> Estimate {
        let period = Period::from_hertz(1_000_000_000).expect("1 GHz");
        Estimate {
            counter,
            time: Timestamp::from_parts(seconds, 0),
            period,
            maxerror: Bound::from_nanos(nanos),
            esterror: Bound::from_nanos(nanos / 2),
            period_maxerror: period.frac() / 2000,
            period_esterror: 1000,
            new_reference: false,
        }
    }

    fn sample(offset: Option<i32>) -> Sample {
        let time = Timestamp::from_parts(0, 0);
        Sample {
            counter: 0,
            radius: 0,
            time,
            offset,
            kernel: KERNEL,
        }
    }

    const EXACT: Mapping = Mapping {
        guest: GuestCounter::TSC,
        offset: 1000,
        radius: 0,
        slot: None,
    };

    /// Every nanosecond of a tick lies within the bound of what the page says of that tick.
    #[test]
    fn divided_counter_is_told_in_whole_ticks() {
        for hertz in [1_000_000_000, 62_500_000, 24_000_000, 1_000] {
            let guest = GuestCounter::virtual_count(hertz).expect("above 1 kHz");
            let mapping = Mapping { guest, ..EXACT };
            for counter in (5_000_000_000_u64..).take(64) {
                let mut estimate = estimate(counter, 100, 0);
                estimate.period_maxerror = 0;
                let fields = valid(&estimate, &sample(Some(37)), &mapping, Scale::Tai);
                let line = Timeline::from_page(&fields, guest.id).expect("usable");
                // A minute later as well: the period is exact.
                for later in [0, 1, 7, 60_000_000_001_u64] {
                    let (ticks, _) = mapping.guest_at(counter + later);
                    let reading = line.at(Ticks(ticks)).expect("in range");
                    let truth = estimate
                        .time
                        .checked_add(estimate.period.span(i64::try_from(later).expect("small")));
                    let off = truth.expect("in range").since(reading.tai.expect("known"));
                    let half = Span::from_nanos(i64::from(guest.divisor.get() / 2 + 1));
                    let off = off.expect("near").abs();
                    assert!(off <= half, "{hertz} {counter} {later}: {off:?}");
                    assert!(reading.bound.contains(off), "{hertz} {counter} {later}");
                }
            }
        }
    }

    #[test]
    fn guest_reads_what_was_meant() {
        let estimate = estimate(5000, 1_800_000_037, 80);
        for scale in [Scale::Tai, Scale::Utc] {
            let fields = valid(&estimate, &sample(Some(37)), &EXACT, scale);
            let line = Timeline::from_page(&fields, CounterId::X86Tsc).expect("usable");
            let reading = line.at(Ticks(1_000_006_000)).expect("in range");
            let tai = reading.tai.expect("known");
            let expected = Timestamp::from_parts(1_800_000_038, 0);
            let off = tai.since(expected).expect("near").abs();
            assert!(off < Span::from_nanos(1), "{off:?}");
            let utc = reading.utc.expect("known").time;
            assert!((1_800_000_000..=1_800_000_001).contains(&utc.seconds()));
            assert_eq!(
                (reading.tai_offset, reading.status),
                (Some(37), ClockStatus::Freerunning)
            );
            // 80 ns and 500 ppm of 1 s.
            assert!(
                (500_080..500_090).contains(&reading.bound.nanos()),
                "{:?}",
                reading.bound
            );
            assert_eq!(reading.notes, gnomon_clock::Notes::default());
        }
    }

    #[test]
    fn utc_without_offset_when_tai_is_not_known() {
        let fields = valid(
            &estimate(5000, 1_800_000_000, 80),
            &sample(None),
            &EXACT,
            Scale::Tai,
        );
        let line = Timeline::from_page(&fields, CounterId::X86Tsc).expect("usable");
        let reading = line.at(Ticks(6000)).expect("in range");
        assert_eq!((reading.tai, reading.tai_offset), (None, None));
        assert_eq!(reading.utc.expect("known").time.seconds(), 1_800_000_000);
    }

    #[test]
    fn uncertain_mapping_widens_the_bound() {
        let mapping = Mapping {
            radius: 2_000_001,
            ..EXACT
        };
        let fields = valid(&estimate(0, 0, 80), &sample(Some(37)), &mapping, Scale::Tai);
        assert!((2_000_081..2_000_084).contains(&fields.time_maxerror_nanosec));
    }

    #[test]
    fn kernel_state_becomes_the_pages() {
        let kernel = Kernel {
            synchronised: true,
            utc: 1_483_228_799,
            leap: Leap::Insert,
            ..KERNEL
        };
        let sample = Sample {
            kernel,
            ..sample(Some(36))
        };
        let fields = valid(&estimate(0, 1_483_228_835, 80), &sample, &EXACT, Scale::Tai);
        assert_eq!(fields.clock_status, ClockStatus::Synchronized as u8);
        assert_eq!(fields.leap_indicator, LeapIndicator::PrePos as u8);
        assert_eq!(fields.tai_offset_sec, -36);
        assert!(!fields.has(flag::TIME_MONOTONIC));
    }

    #[test]
    fn leap_second_on_a_utc_page_keeps_the_promise() {
        let page = |counter, seconds, offset| {
            valid(
                &estimate(counter, seconds, 80),
                &sample(Some(offset)),
                &EXACT,
                Scale::Utc,
            )
        };
        let before = page(0, 1_483_228_835, 36);
        let inside = page(1_000_000_000, 1_483_228_836, 37);
        assert_eq!(before.time_sec, inside.time_sec);
        assert!(keeps_promise(&before, &inside));
        assert!(!keeps_promise(
            &before,
            &page(1_000_000_000, 1_483_228_837, 37)
        ));
    }

    #[test]
    fn broken_promises_are_seen() {
        let page = |counter, seconds, nanos| {
            valid(
                &estimate(counter, seconds, nanos),
                &sample(Some(37)),
                &EXACT,
                Scale::Tai,
            )
        };
        let earlier = page(0, 100, 1000);
        // 500 ppm of 1 s are 500 µs of room.
        assert!(keeps_promise(&earlier, &page(1_000_000_000, 101, 500_000)));
        assert!(!keeps_promise(&earlier, &page(1_000_000_000, 101, 502_000)));
        assert!(!keeps_promise(&earlier, &page(1_000_000_000, 102, 10)));
        // The earlier reference is off by 2 µs, which its 1 µs does not hold.
        assert!(!keeps_promise(&earlier, &page(1_000_002_000, 101, 10)));
        let utc = valid(&estimate(0, 100, 1000), &sample(None), &EXACT, Scale::Tai);
        assert!(!keeps_promise(&earlier, &utc));
        assert!(!keeps_promise(
            &earlier,
            &invalid(ClockStatus::Unreliable, Scale::Tai, CounterId::X86Tsc)
        ));
    }

    /// The clock has gained 5 µs, which the newest page admits and those before it do not.
    fn gains(step: u64, remembered: u64) {
        let page = |number: u64, apart: u64| {
            let mut fields = estimate(number * step, 100, 100);
            fields.time = Timestamp::from_parts(100, 0)
                .checked_add(Span::from_nanos((number * step + apart).cast_signed()))
                .expect("in range");
            valid(&fields, &sample(Some(37)), &EXACT, Scale::Tai)
        };
        let time = |page: &Fields| {
            Timestamp::<Tai>::from_parts(page.time_sec.cast_signed(), page.time_frac_sec)
        };
        let gained = 2 * remembered;
        let mut promises = Promises::default();
        for number in 0..gained {
            assert_eq!(promises.reconcile(&page(number, 0)), Some(page(number, 0)));
            promises.note(&page(number, 0));
        }
        let apart = step / 5000;
        for number in gained..gained + remembered {
            let wanted = page(number, apart);
            assert!(!promises.allow(&wanted));
            let instead = promises.reconcile(&wanted).expect("room");
            let off = time(&instead).since(time(&page(number, 0))).expect("near");
            assert!(off.abs().units() < 1 << 30, "{off:?}"); // 2⁻³⁴ s
            let error = 100 + 2 * apart;
            assert!((error - 2..=error + 4).contains(&instead.time_maxerror_nanosec));
            promises.note(&instead);
        }
        let after = page(gained + remembered, apart);
        assert_eq!(promises.reconcile(&after), Some(after));
        // Nothing contains a step.
        let step = page(gained + remembered, 1_000_000_000);
        assert_eq!(promises.reconcile(&step), None);
        promises.forget();
        assert!(promises.allow(&step));
    }

    #[test]
    fn old_line_goes_on_until_the_new_one_contradicts_nobody() {
        gains(50_000_000, 6); // a quarter of a second, its two ends included
        gains(10_000_000, 26);
        gains(1_000_000_000, 4);
        gains(1_000_000, 250);
    }

    #[test]
    fn invalid_page_carries_no_time() {
        for status in [ClockStatus::Initializing, ClockStatus::Unreliable] {
            let fields = invalid(status, Scale::Tai, CounterId::X86Tsc);
            assert!(Timeline::from_page(&fields, CounterId::X86Tsc).is_err());
        }
    }
}
