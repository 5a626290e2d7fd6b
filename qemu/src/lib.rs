//! Starts QEMU and publishes time into its vmclock page.

pub mod elf;
pub mod estimate;
pub mod host;
pub mod leap_table;
pub mod mapping;
pub mod memory;
pub mod page;
pub mod publish;
pub mod qmp;
mod sys;
pub mod vmstate;
