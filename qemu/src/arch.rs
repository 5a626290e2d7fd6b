//! What differs between the architectures of guests, in one place.
//!
//! | | x86_64 | aarch64 |
//! |---|---|---|
//! | board | q35 or pc | virt |
//! | the guest's counter | TSC | CNTVCT |
//! | under TCG that is | the host's TSC plus an offset | QEMU's virtual clock in whole ticks: the host's `CLOCK_MONOTONIC` plus an offset |
//! | the page | QEMU's vmclock device, in ACPI | a page of RAM that the launcher sets aside, in the device tree ([`crate::tree`]) |
//! | a marker of QEMU's own after a restore | yes | no: [`crate::publish`] says what takes its place |

use clap::ValueEnum;
use gnomon_clock::CounterId;
use serde_json::{Value, json};

use crate::host::HostCounter;
use crate::publish::PublishError;
use crate::qmp::Qmp;

/// The architecture of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arch {
    /// PC.
    #[value(name = "x86_64")]
    X86_64,
    /// 64-bit Arm.
    Aarch64,
}

impl Arch {
    /// Both.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// The architecture of a running QEMU's guest.
    ///
    /// # Errors
    /// When it is another one, or QEMU does not say.
    pub fn of(qmp: &mut Qmp) -> Result<Self, PublishError> {
        let target = qmp.execute("query-target", json!({}))?.value;
        match target.get("arch").and_then(Value::as_str) {
            Some("x86_64" | "i386") => Ok(Self::X86_64),
            Some("aarch64") => Ok(Self::Aarch64),
            other => Err(PublishError::Arch(other.unwrap_or("unknown").to_owned())),
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// The QEMU that is looked for in `PATH`.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::X86_64 => "qemu-system-x86_64",
            Self::Aarch64 => "qemu-system-aarch64",
        }
    }

    /// The file name of Gnomon's image.
    #[must_use]
    pub const fn image(self) -> &'static str {
        match self {
            Self::X86_64 => "gnomon-x86_64.elf",
            Self::Aarch64 => "gnomon-aarch64.img",
        }
    }

    /// Where the page lies in the guest's memory.
    ///
    /// On aarch64 the launcher decides: 64 KiB above the start of virt's RAM. Linux does not use the
    /// first 2 MiB, and QEMU only the first 4 KiB of them.
    #[must_use]
    pub const fn page(self) -> u64 {
        match self {
            Self::X86_64 => 0xfeff_b000,
            Self::Aarch64 => 0x4001_0000,
        }
    }

    /// The counter of the guest's that the page speaks of.
    #[must_use]
    pub const fn counter_id(self) -> CounterId {
        match self {
            Self::X86_64 => CounterId::X86Tsc,
            Self::Aarch64 => CounterId::ArmVcnt,
        }
    }

    /// The counter of this host's that QEMU makes the guest's counter from.
    #[must_use]
    pub const fn host_counter(self) -> HostCounter {
        match self {
            Self::X86_64 => HostCounter::Tsc,
            Self::Aarch64 => HostCounter::Monotonic,
        }
    }
}
