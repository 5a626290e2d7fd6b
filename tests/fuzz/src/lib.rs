//! Hostile input for everything that reads bytes from outside: each module is a target, a function of bytes that must
//! return, whatever they are, and holds what comes of them to what must be.
//!
//! `fuzz_targets` gives them to libFuzzer; `seeds` writes the inputs that it begins with.

pub mod acpi;
pub mod aml;
pub mod command_line;
pub mod console;
#[path = "../../../kernel/tests/doubles/counter.rs"]
mod counter;
pub mod device_tree;
pub mod firmware;
pub mod frame;
pub mod fw_cfg;
pub mod http;
pub mod http_request;
pub mod input;
pub mod keys;
#[path = "../../../kernel/tests/doubles/line.rs"]
mod line;
pub mod network;
pub mod nic;
pub mod ntp;
pub mod ntp_client;
pub mod pci;
pub mod ring;
pub mod seeds;
pub mod service;
pub mod smoke;
pub mod sources;
pub mod start_info;
pub mod table_loader;
pub mod vmclock_page;
#[path = "../../../kernel/tests/doubles/wire.rs"]
mod wire;
pub mod world;

/// Every target by its name: the module's, which has a function `run`.
macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        &[$((stringify!($name), $name::run),)*]
    };
}

/// A target: what it does with an input.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: &[(&str, Target)] = targets![
    acpi,
    aml,
    command_line,
    console,
    device_tree,
    firmware,
    fw_cfg,
    http,
    http_request,
    keys,
    network,
    nic,
    ntp,
    ntp_client,
    pci,
    ring,
    smoke,
    sources,
    start_info,
    table_loader,
    vmclock_page,
];
