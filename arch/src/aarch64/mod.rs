//! `aarch64`: Arm virtual machines and boards at EL1, with 4 KiB pages.

pub mod counter;
pub mod interrupt;
pub mod io;
pub mod mmio;
pub mod mmu;
pub mod power;
pub mod random;
pub mod services;
mod sysreg;
pub mod timer;
pub mod trap;
