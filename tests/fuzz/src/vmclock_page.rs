//! The vmclock page: one that the host fills with anything, at any time, in the middle of a read too.

use gnomon_clock::{Clock, Fields, NoTime, Reading, Stamp, Ticks, VmclockPage};

use crate::counter::Gigahertz;
use crate::input::Input;
use crate::world::{Change, good, page, publish, raw};

/// Input: a whole page or a good one, and steps.
///
/// # Panics
/// A reading is not what a reading must be.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let first = match input.u8() {
        0 => Fields::from_bytes(&input.array()),
        _ => good(1),
    };
    let page = page(&first);
    let counter = Gigahertz::default();
    let mut clock = Clock::new(Some(page), counter.clone());
    let mut stamp: Option<Stamp> = None;
    let mut last: Option<Reading> = None;
    for _ in 0..64 {
        if input.is_empty() {
            return;
        }
        let kind = input.u8() % 10;
        if !matches!(kind, 5..=8) {
            // Readings on both sides of this need not be in order.
            last = None;
        }
        match kind {
            0 => Change::read(&mut input).store(page),
            1 => publish(page, &Fields::from_bytes(&input.array())),
            2 => publish(page, &good(u64::from(input.u8()))),
            // A change like an honest publisher's.
            3 => {
                let before = page.seq_count();
                let [low, high] = [1, 2].map(|step| before.wrapping_add(step).to_le_bytes());
                crate::world::store(page, 0x0c, &low);
                Change::read(&mut input).store(page);
                crate::world::store(page, 0x0c, &high);
            }
            4 => {
                let change = Change::read(&mut input);
                counter.at_next_read(move || change.store(page));
            }
            5 => {
                let ticks = &counter.0.ticks;
                ticks.set(ticks.get().wrapping_add(input.number()));
            }
            6 => stamp = Some(clock.stamp()),
            7 => {
                let is_torn = counter.0.at_read.borrow().is_some();
                let now = clock.reading();
                if let (Ok(now), false) = (&now, is_torn) {
                    assert_eq!(now.marker, page.marker());
                    check(now);
                    if let Some(last) = last.filter(|last| now.ticks.since(last.ticks) > 0) {
                        check_order(page, &last, now);
                    }
                }
                if let Err(why) = &now {
                    assert!(!matches!(why, NoTime::StaleStamp) && !why.to_string().is_empty());
                    if matches!(why, NoTime::Busy(_)) {
                        // Patience takes long, and once is enough.
                        return;
                    }
                }
                last = now.ok().filter(|_| !is_torn);
            }
            8 => {
                let is_torn = counter.0.at_read.borrow().is_some();
                let Some(received) = stamp else {
                    continue;
                };
                let exchange = clock.exchange(received);
                if matches!(exchange, Err(NoTime::Busy(_))) {
                    return;
                }
                if let Ok(exchange) = exchange {
                    // Nothing carries time from across a disruption.
                    assert_eq!(exchange.received.marker, received.marker);
                    assert_eq!(exchange.transmit.marker, received.marker);
                    assert!(is_torn || page.marker() == received.marker);
                    assert!(exchange.transmit.ticks.since(exchange.received.ticks) >= 0);
                    check(&exchange.received);
                    check(&exchange.transmit);
                    if !is_torn {
                        check_order(page, &exchange.received, &exchange.transmit);
                    }
                }
            }
            _ => {
                clock = Clock::new(Some(page), counter.clone());
            }
        }
    }
}

/// A reading agrees with itself.
///
/// # Panics
/// It does not.
pub fn check(reading: &Reading) {
    let tai_offset = reading.tai_offset.map(i64::from);
    assert!(reading.tai.is_some() || reading.utc.is_some());
    if let (Some(tai), Some(utc), Some(offset)) = (reading.tai, reading.utc, tai_offset) {
        // POSIX codes 23:59:60 as the second before it.
        let ahead = tai.seconds() - utc.time.seconds();
        assert_eq!(ahead, offset + i64::from(utc.leap_second), "{reading:?}");
        assert_eq!(tai.fraction(), utc.time.fraction());
    }
    assert!(reading.bound.units() > 0, "nobody is without error");
    if let Some(tai) = reading.tai {
        let _ = tai.to_string();
    }
    if let Some(utc) = reading.utc {
        let _ = (utc.to_string(), utc.time.to_ntp());
    }
}

/// Two readings by one page: TAI does not go back, and the bound does not shrink with age.
///
/// # Panics
/// It does.
pub fn check_order(page: &VmclockPage, earlier: &Reading, later: &Reading) {
    // Counter values are before the page's, or after it, by half of all values at most.
    let reference = raw(page).counter_value;
    let [from, to] = [earlier, later].map(|reading| reading.ticks.since(Ticks(reference)));
    if from > to {
        return;
    }
    if let (Some(before), Some(after)) = (earlier.tai, later.tai) {
        assert!(before <= after, "{earlier:?} {later:?}");
    }
    if from >= 0 {
        assert!(earlier.bound <= later.bound, "{earlier:?} {later:?}");
    }
}
