//! What the world asks of us, as pure functions of bytes and times.

pub mod ntp;
pub mod times;
