//! `x86_64`: PC-compatible machines, in long mode.

pub mod counter;
pub mod interrupt;
pub mod io;
pub mod io_apic;
pub mod kvm;
pub mod mmio;
pub mod mmu;
pub mod power;
pub mod random;
pub mod services;
pub mod timer;
pub mod trap;
