//! The real-time clock, looked at while the page is watched: whether it can be read, goes on, and shows the page's date.
//!
//! It shows whole seconds, so its second begins between the last look that has shown the one before and the first that
//! shows this one. A few such moments are also a timer that is independent of the counter, where a machine has no
//! better one: [`Rtc::pairs`].

use gnomon_clock::calendar::DAY;
use gnomon_clock::{Ticks, Timestamp, Utc};

use super::machine::{Measured, Pair, measured};
use super::tap::Outcome;
use crate::source::rtc::Look;
use crate::text::Text;

/// What it may be away from the page's time, s: nobody says whether it was set to local time.
const APART: u64 = DAY.unsigned_abs();
/// From the year 2000 to 2099.
const CENTURY: core::ops::Range<i64> = 10_957 * DAY..47_482 * DAY;

/// What is seen of a real-time clock.
#[derive(Debug, Default)]
pub struct Rtc {
    /// The second that was shown last, and the counter before that look.
    shown: Option<(i64, Ticks)>,
    /// It went back: from, to.
    back: Option<(i64, i64)>,
    /// Why there is none.
    absent: Option<&'static str>,
    /// Why it shows no time.
    silent: Option<&'static str>,
    /// Seconds that began: the first, one after half of the time, and the last.
    began: [Option<Pair>; 3],
    /// The least distance from the page's time, s.
    apart: Option<u64>,
}

impl Rtc {
    /// Takes note of a look that was made between two readings of the counter; `Err` says why there is no clock. `page` is
    /// UTC by the page at that time, s since 1970, and `late` whether half of the time is over.
    pub fn look(
        &mut self,
        (before, after): (Ticks, Ticks),
        look: Result<Look, &'static str>,
        page: Option<i64>,
        late: bool,
    ) {
        let is = match look {
            Ok(Look::Seconds(is)) => is,
            Ok(Look::Busy) => return,
            Ok(Look::Silent(why)) => {
                self.silent = Some(why);
                return;
            }
            Err(why) => {
                self.absent = Some(why);
                return;
            }
        };
        if let Some(page) = page {
            let apart = is.abs_diff(page);
            self.apart = Some(self.apart.map_or(apart, |least| least.min(apart)));
        }
        if let Some((was, not_before)) = self.shown {
            if is < was && self.back.is_none() {
                self.back = Some((was, is));
            }
            if is > was {
                let nanos = u64::try_from(is).unwrap_or(0).saturating_mul(1_000_000_000);
                let pair = Pair {
                    before: not_before,
                    nanos,
                    after,
                };
                let [first, middle, last] = &mut self.began;
                match (&first, &middle, late) {
                    (None, _, _) => *first = Some(pair),
                    (_, None, true) => *middle = Some(pair),
                    (_, None, false) => {}
                    _ => *last = Some(pair),
                }
            }
        }
        self.shown = Some((is, before));
    }

    /// Whether there is nothing more to be seen: three seconds have begun, two of them in the second half; or there is no
    /// clock.
    #[must_use]
    pub const fn is_enough(&self) -> bool {
        let [_, middle, last] = self.began;
        let is_seen = middle.is_some() && last.is_some();
        is_seen || self.absent.is_some() || self.silent.is_some()
    }

    /// The counter at three moments that the clock tells, the last at least two seconds after the first.
    #[must_use]
    pub fn pairs(&self) -> Option<[Pair; 3]> {
        let [first, middle, last] = self.began;
        Some([first?, middle?, last.filter(|_| self.back.is_none())?])
    }

    /// Whether the clock is plausible. `rate` is the counter's by another timer.
    #[must_use]
    #[inline(never)]
    pub fn outcome(&self, rate: Option<Measured>) -> Outcome {
        if let Some(why) = self.absent {
            return Outcome::skip(&why);
        }
        if let Some(why) = self.silent {
            return Outcome::not_ok(&why);
        }
        let Some((is, _)) = self.shown else {
            return Outcome::not_ok(&"it was never at rest to be read");
        };
        let date = Text::<32>::of(&Timestamp::<Utc>::from_parts(is, 0));
        // It knows no fraction of a second.
        let date = date.as_str().split('.').next().unwrap_or_default();
        let Some([first, _, last]) = self.pairs() else {
            return match self.back {
                Some((was, is)) => Outcome::not_ok(&format_args!("it went back by {} s", was - is)),
                None => Outcome::not_ok(&format_args!("{date}, and it does not go on")),
            };
        };
        let seconds = last.nanos.saturating_sub(first.nanos) / 1_000_000_000;
        if let (Some(rate), Some(by_it)) = (rate, measured(first, last)) {
            let allowed = rate.hertz / 1000 + rate.error + by_it.error;
            if rate.hertz.abs_diff(by_it.hertz) > allowed {
                return Outcome::not_ok(&format_args!(
                    "the counter runs at {} Hz by it, and at {} Hz",
                    by_it.hertz, rate.hertz
                ));
            }
        }
        let is_date = CENTURY.contains(&is);
        match self.apart {
            Some(apart) => Outcome::of(
                is_date && apart <= APART,
                &format_args!("{date}, {seconds} s counted, {apart} s from the page"),
            ),
            None => Outcome::of(is_date, &format_args!("{date}, {seconds} s counted")),
        }
    }
}
