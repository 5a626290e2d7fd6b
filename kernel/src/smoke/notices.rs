//! Whether every update of the page that has to be notified is.

use gnomon_clock::Ticks;

use super::machine::Notice;
use super::tap::Outcome;

/// How late a notification may be, s. The host may have to wait for a processor.
const NOTICE_LATEST: u64 = 3;

/// Updates that the page says are notified, and what came.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Notices {
    updates: u64,
    arrived: u64,
    /// An update is not notified yet.
    is_due: bool,
    /// Since when, as far as somebody has looked.
    since: Option<Ticks>,
    /// For how many seconds one was not.
    late: u64,
    /// One has arrived, and the update that it is about has not been seen yet.
    is_early: bool,
    is_undescribed: bool,
    unknown: Option<&'static str>,
}

impl Notices {
    /// The page was updated.
    pub(super) const fn updated(&mut self) {
        self.updates += 1;
        self.is_due = true;
    }

    #[inline(never)]
    pub(super) fn look(&mut self, notice: Notice, ticks: Option<Ticks>, hertz: u64) {
        match notice {
            Notice::None => {}
            Notice::Arrived => {
                self.arrived += 1;
                self.is_early = true;
            }
            Notice::Undescribed => self.is_undescribed = true,
            Notice::Unknown(why) => self.unknown = Some(why),
        }
        let Some(ticks) = ticks else {
            return;
        };
        if core::mem::take(&mut self.is_early) {
            (self.is_due, self.since) = (false, None);
        }
        if self.is_due {
            let since = *self.since.get_or_insert(ticks);
            let waited = u64::try_from(ticks.since(since)).unwrap_or(0);
            self.late = self.late.max(waited.checked_div(hertz).unwrap_or(0));
        }
    }

    #[inline(never)]
    pub(super) fn outcome(&self) -> Outcome {
        let Self {
            updates,
            arrived,
            late,
            ..
        } = *self;
        if self.is_undescribed {
            return Outcome::not_ok(&"advertised, and no interrupt is described for it");
        }
        if let Some(why) = self.unknown {
            return Outcome::skip(&format_args!("advertised, and {why}"));
        }
        if updates == 0 {
            return Outcome::skip(&"advertised, and there was no update");
        }
        if late < NOTICE_LATEST && arrived == 0 {
            return Outcome::skip(&"advertised, and the first update was too late to tell");
        }
        Outcome::of(
            late < NOTICE_LATEST,
            &format_args!("{arrived} for {updates} updates, one missing for {late} s at most"),
        )
    }
}
