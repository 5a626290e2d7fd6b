//! The last minute, second by second.

use core::time::Duration;

use gnomon_clock::{NoTime, Reading};

/// Seconds that are remembered.
pub const SAMPLES: usize = 60;
const INTERVAL: Duration = Duration::from_secs(1);

/// One second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The bound at its end in ns; `None` without time.
    pub bound: Option<u64>,
    /// NTP replies sent in it.
    pub replies: u64,
}

/// The bound and the rate of replies in the last minute.
#[derive(Clone, Debug)]
pub struct History {
    samples: [Sample; SAMPLES],
    /// Where the next one goes.
    next: usize,
    count: usize,
    due: Duration,
    replies: u64,
}

impl History {
    /// Of nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            samples: [Sample {
                bound: None,
                replies: 0,
            }; SAMPLES],
            next: 0,
            count: 0,
            due: INTERVAL,
            replies: 0,
        }
    }

    /// Whether a second is over.
    #[must_use]
    pub fn is_due(&self, uptime: Duration) -> bool {
        self.due <= uptime
    }

    /// When that will be.
    #[must_use]
    pub const fn due(&self) -> Duration {
        self.due
    }

    /// Takes note of this moment; `replies` is their number since the start. Seconds that nobody looked at have no
    /// sample.
    pub fn record(&mut self, uptime: Duration, reading: &Result<Reading, NoTime>, replies: u64) {
        let sample = Sample {
            bound: reading.as_ref().ok().map(|reading| reading.bound.nanos()),
            replies: replies.saturating_sub(self.replies),
        };
        self.replies = replies;
        self.due = uptime + INTERVAL;
        if let Some(place) = self.samples.get_mut(self.next) {
            *place = sample;
        }
        self.next = (self.next + 1) % SAMPLES;
        self.count = (self.count + 1).min(SAMPLES);
    }

    /// The samples, the oldest first.
    pub fn samples(&self) -> impl Iterator<Item = &Sample> {
        let halves = self.samples.split_at_checked(self.next);
        let (newer, older) = halves.unwrap_or_default();
        // While it is not full, there is nothing older.
        let count = self.count.saturating_sub(self.next);
        let older = older.get(..count).unwrap_or_default();
        older.iter().chain(newer)
    }
}

impl Default for History {
    fn default() -> Self {
        Self::new()
    }
}
