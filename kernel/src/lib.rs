//! What the service does.
#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::float_arithmetic)]

pub mod config;
pub mod discover;
pub mod memory;
pub mod net;
pub mod report;
pub mod serve;
pub mod shell;
