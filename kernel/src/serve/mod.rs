//! What the world asks of us, as pure functions of bytes and times.
//!
//! * [`ntp`]: the protocol, a request and two readings of the clock in, a reply out;
//! * [`responder`]: the NTP server around it, with what it remembers of its clients;
//! * [`times`]: what a reading is to clients;
//! * [`interleave`]: when earlier replies really left;
//! * [`access`], [`limit`], [`auth`]: who is answered, how often, and under which key;
//! * [`secret`]: places in tables that nobody outside can aim at.

pub mod access;
pub mod auth;
pub mod interleave;
pub mod limit;
pub mod ntp;
pub mod responder;
pub mod secret;
pub mod times;
