//! Hostile input for everything that reads bytes from outside: each module is a target, a function of bytes that must
//! return, whatever they are, and holds what comes of them to what must be.
//!
//! `fuzz_targets` gives them to libFuzzer; `seeds` writes the inputs that it begins with.

pub mod frame;
pub mod input;
pub mod seeds;
pub mod service;
pub mod world;

/// The targets: a module with a function `run` for each, and the list of them.
macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        $(pub mod $name;)*

        /// Every target by its name.
        pub const TARGETS: &[(&str, fn(&[u8]))] = &[$((stringify!($name), $name::run),)*];
    };
}

targets![
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
