//! When to speak: at the top of each second.

use core::time::Duration;

use gnomon_clock::UtcTime;

/// How long before the top of a second the clock is looked at without a pause.
pub const LEAD: Duration = Duration::from_millis(1);
/// How late a second is not told any more.
pub const LATE: Duration = Duration::from_millis(10);
/// How often it is looked whether there is a time, while there is none.
const AGAIN: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The second has just begun: tell it.
    Tell,
    /// It is about to begin: look again at once.
    Near,
    /// Say that there is no time.
    TellNothing,
    /// Rest until [`Beat::due`].
    Rest,
}

/// Tells the tops of seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beat {
    due: Option<Duration>,
    /// The second told last, and whether it was an inserted one.
    told: Option<(i64, bool)>,
    /// When there was last said to be no time.
    denied: Option<Duration>,
}

impl Beat {
    /// One that is due at once.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            due: None,
            told: None,
            denied: None,
        }
    }

    /// From what uptime on [`look`](Self::look) is to be called.
    #[must_use]
    pub const fn due(&self) -> Option<Duration> {
        self.due
    }

    /// Whether it is time to look at the clock. Always on a machine that does not count its uptime.
    #[must_use]
    pub fn is_due(&self, uptime: Option<Duration>) -> bool {
        !matches!((uptime, self.due), (Some(uptime), Some(due)) if uptime < due)
    }

    /// Decides by the time of now, and when to look again by the uptime of now. The uptime has to count seconds as
    /// long as the clock's to a thousandth.
    pub fn look(&mut self, uptime: Option<Duration>, now: Option<&UtcTime>) -> Step {
        let Some(utc) = now else {
            return self.deny(uptime);
        };
        self.denied = None;
        let since = Duration::from_nanos(utc.time.nanos().into());
        let left = SECOND.saturating_sub(since);
        let wait = left.saturating_sub(LEAD);
        self.due = uptime.map(|uptime| uptime + wait);
        let second = (utc.time.seconds(), utc.leap_second);
        if since <= LATE && self.told != Some(second) {
            self.told = Some(second);
            return Step::Tell;
        }
        if wait.is_zero() {
            Step::Near
        } else {
            Step::Rest
        }
    }

    fn deny(&mut self, uptime: Option<Duration>) -> Step {
        let Some(uptime) = uptime else {
            return Step::Rest;
        };
        self.told = None;
        self.due = Some(uptime + AGAIN);
        if self.denied.is_some_and(|denied| uptime < denied + SECOND) {
            return Step::Rest;
        }
        self.denied = Some(uptime);
        Step::TellNothing
    }
}
