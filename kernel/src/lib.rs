//! What the service does, on any machine and without a line of unsafe code.
//!
//! * [`handover`]: what the loader says;
//! * [`discover`]: where the vmclock page and the devices are, from firmware's tables;
//! * [`service`]: the main loop, over the small interfaces [`machine`], [`console`] and
//!   [`net::port`] that `boot` implements;
//! * [`net`]: NTP requests recognised and answered in place, everything else through an IP stack;
//! * [`serve`]: the protocols, as pure functions of bytes and times;
//! * [`duty`]: when not to serve;
//! * [`services`]: what firmware and hypervisor offer beside the page;
//! * [`random`]: random numbers, from whatever there is;
//! * [`serial`]: the time on a serial line;
//! * [`http`]: the status, for people and programs;
//! * [`smoke`]: the machine and its page against the rules;
//! * [`shell`], [`report`], [`config`]: what people see and say; [`json`]: the same for programs.
//!
//! What time is, is the business of [`gnomon_clock`].
#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::float_arithmetic)]
// A panic is a dead clock.
#![cfg_attr(
    not(test),
    deny(
        clippy::expect_used,
        clippy::panic,
        clippy::todo,
        clippy::unimplemented,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

pub mod config;
pub mod console;
pub mod discover;
pub mod duty;
pub mod handover;
pub mod http;
pub mod json;
pub mod machine;
mod median;
pub mod memory;
pub mod net;
pub mod random;
pub mod report;
pub mod serial;
pub mod serve;
pub mod service;
pub mod services;
pub mod shell;
pub mod smoke;
pub mod source;
pub mod text;
