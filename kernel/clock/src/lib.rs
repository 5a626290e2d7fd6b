//! What time is.
#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::float_arithmetic)]
