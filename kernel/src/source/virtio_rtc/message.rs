//! Requests and answers of virtio-rtc as bytes (virtio 1.4 §5.22), little-endian.

use gnomon_clock::{CounterId, Ticks};

/// Length of a request's head, and of an answer's.
const HEAD: usize = 8;
/// The longest request.
pub const REQUEST_MAX: usize = 16;
/// The longest answer.
pub const ANSWER_MAX: usize = 24;

const READ: u16 = 0x0001;
const READ_CROSS: u16 = 0x0002;
const CFG: u16 = 0x1000;
const CLOCK_CAP: u16 = 0x1001;
const CROSS_CAP: u16 = 0x1002;

/// What the device is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// `CFG`: how many clocks there are.
    Count,
    /// `CLOCK_CAP`: what this clock shows.
    Kind(u16),
    /// `CROSS_CAP`: whether this clock can be read together with the counter.
    Cross(u16, CounterId),
    /// `READ`: this clock.
    Read(u16),
    /// `READ_CROSS`: this clock, and the counter at the same instant.
    ReadCross(u16, CounterId),
}

/// What it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// So many clocks, with ids from 0.
    Count(u16),
    /// The clock shows this.
    Kind(Kind),
    /// It can, or cannot.
    Cross(bool),
    /// The clock in nanoseconds since 1970, truncated.
    Time(u64),
    /// The same, and the counter at that instant.
    Crossed(u64, Ticks),
}

/// What a clock shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UTC as POSIX codes it.
    Utc,
    /// TAI.
    Tai,
    /// UTC, and leap seconds are smeared or may be, in whatever way.
    Smeared,
    /// Something that has no known epoch, or is not known.
    Other,
}

/// Why an answer says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Fewer bytes than the answer has.
    Short,
    /// More bytes than there was room for.
    Long,
    /// Status `EOPNOTSUPP`.
    Unsupported,
    /// Status `ENODEV`.
    NoClock,
    /// Status `EINVAL`.
    Invalid,
    /// Status `EIO`.
    Failed,
    /// A status that the specification does not have.
    Status,
}

impl Fault {
    /// The fault in a few words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Short => "its answer is too short",
            Self::Long => "its answer is longer than there is room for",
            Self::Unsupported => "it does not support the request (EOPNOTSUPP)",
            Self::NoClock => "it does not know the clock (ENODEV)",
            Self::Invalid => "it calls the request invalid (EINVAL)",
            Self::Failed => "it cannot read its clock (EIO)",
            Self::Status => "its answer has an unknown status",
        }
    }

    /// Whether what was learned of the device does not hold any more.
    pub(super) const fn is_about_the_request(self) -> bool {
        matches!(self, Self::Unsupported | Self::NoClock | Self::Invalid)
    }
}

impl Request {
    /// The request's bytes, of which the first [`length`](Self::length) count.
    #[must_use]
    pub const fn bytes(self) -> [u8; REQUEST_MAX] {
        let (kind, clock, counter) = match self {
            Self::Count => (CFG, 0, 0),
            Self::Kind(clock) => (CLOCK_CAP, clock, 0),
            Self::Cross(clock, counter) => (CROSS_CAP, clock, counter as u8),
            Self::Read(clock) => (READ, clock, 0),
            Self::ReadCross(clock, counter) => (READ_CROSS, clock, counter as u8),
        };
        let ([kind, high], [clock, clock_high]) = (kind.to_le_bytes(), clock.to_le_bytes());
        // The specification numbers counters as the page does: 0 the virtual counter of Arm, 1 the TSC.
        [
            kind, high, 0, 0, 0, 0, 0, 0, clock, clock_high, counter, 0, 0, 0, 0, 0,
        ]
    }

    /// How long the request is.
    #[must_use]
    pub const fn length(self) -> usize {
        match self {
            Self::Count => HEAD,
            _ => REQUEST_MAX,
        }
    }

    /// How long its answer is.
    #[must_use]
    pub const fn answer_length(self) -> usize {
        match self {
            Self::ReadCross(..) => HEAD + 16,
            _ => HEAD + 8,
        }
    }

    /// What `answer` says, where the device says that it wrote `written` bytes of it.
    ///
    /// # Errors
    /// Why it says nothing.
    pub fn decode(self, answer: &[u8; ANSWER_MAX], written: usize) -> Result<Said, Fault> {
        if written > self.answer_length() {
            return Err(Fault::Long);
        }
        if written < HEAD {
            return Err(Fault::Short);
        }
        let [head, first, second] = words(answer);
        let [status, ..] = head;
        match status {
            0 => {}
            2 => return Err(Fault::Unsupported),
            3 => return Err(Fault::NoClock),
            4 => return Err(Fault::Invalid),
            5 => return Err(Fault::Failed),
            _ => return Err(Fault::Status),
        }
        if written < self.answer_length() {
            return Err(Fault::Short);
        }
        let [low, high, ..] = first;
        Ok(match self {
            Self::Count => Said::Count(u16::from_le_bytes([low, high])),
            Self::Kind(_) => Said::Kind(Kind::of(low, high)),
            Self::Cross(..) => Said::Cross(low & 1 != 0),
            Self::Read(_) => Said::Time(u64::from_le_bytes(first)),
            Self::ReadCross(..) => {
                Said::Crossed(u64::from_le_bytes(first), Ticks(u64::from_le_bytes(second)))
            }
        })
    }
}

impl Kind {
    /// Of a clock's type and its way of smearing. A clock of plain UTC that names a way of smearing
    /// contradicts itself, and may be smeared.
    const fn of(kind: u8, smearing: u8) -> Self {
        const UNSPECIFIED: u8 = 0;
        match (kind, smearing) {
            (0, UNSPECIFIED) => Self::Utc,
            (0 | 3 | 4, _) => Self::Smeared,
            (1, _) => Self::Tai,
            // 2 is monotonic.
            _ => Self::Other,
        }
    }

    /// The kind in a word or two.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Utc => "UTC",
            Self::Tai => "TAI",
            Self::Smeared => "UTC, perhaps smeared",
            Self::Other => "no time of day",
        }
    }
}

fn words(answer: &[u8; ANSWER_MAX]) -> [[u8; 8]; 3] {
    let (words, _) = answer.as_chunks::<8>();
    words.try_into().unwrap_or_default()
}
