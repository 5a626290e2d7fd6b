//! What time is.
#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::float_arithmetic)]

pub mod calendar;
pub mod clock;
pub mod leap;
pub mod page;
pub mod scale;
pub mod time;
pub mod timeline;

pub use clock::{Clock, Counter, Exchange, Kiss, NoTime, Stamp};
pub use leap::{Announcement, TaiOffset, UtcTime};
pub use page::{
    Busy, ClockStatus, CounterId, Fields, LeapIndicator, PageMemory, SmearingHint, TimeType,
    VmclockPage, Writer,
};
pub use scale::Period;
pub use time::{Bound, NtpTimestamp, Span, Tai, Ticks, Timescale, Timestamp, Utc};
pub use timeline::{Notes, Reading, Timeline, Unusable};
