//! Starts QEMU and publishes time into its vmclock page.

pub mod attend;
mod child;
pub mod elf;
pub mod estimate;
pub mod host;
pub mod leap_table;
pub mod machine;
pub mod mapping;
pub mod memory;
pub mod page;
pub mod publish;
pub mod qmp;
mod serial;
mod sys;
pub mod vmstate;

pub use child::End;
pub use machine::{Machine, Vm};
pub use publish::Publisher;
pub use serial::SerialError;
