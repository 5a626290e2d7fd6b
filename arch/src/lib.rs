//! What the machine is.
//!
//! Everything that needs `unsafe` stands here (and in the few lines of entry code in `boot`), so
//! that nothing above does. Each architecture has a folder with the same module names; [`machine`]
//! is the one that is being built for:
//!
//! * `counter`: the counter that the vmclock page speaks of, read with the fences that the seqlock
//!   needs;
//! * `mmio`: loads and stores to device registers;
//! * `mmu`: page tables, identity mapped, writable or executable but never both;
//! * `trap`: exceptions end the run with a report;
//! * `interrupt`: wake-ups from sleep;
//! * `timer`: time spans for log stamps and sleeping;
//! * `io`: the console UART and whatever else only this architecture has;
//! * `power`: off, restart, failure;
//! * `services`: how to ask what is below: calls on Arm, CPUID on x86;
//! * `random`: the processor's own random numbers.
#![no_std]
#![expect(
    unsafe_code,
    reason = "machine access lives here so that nothing above needs it"
)]
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

pub mod cell;
pub mod dev;
pub mod failure;
pub mod mapping;

#[cfg(target_arch = "x86_64")]
#[path = "x86_64/mod.rs"]
pub mod machine;

#[cfg(target_arch = "aarch64")]
#[path = "aarch64/mod.rs"]
pub mod machine;
