//! The parts of a start, told apart by the functions with which they begin: nothing of this is in the image.

use gnomon_qemu::Arch;

use crate::map::{self, Map, image_max};

/// A part of a start.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// What it is.
    pub name: &'static str,
    /// It begins when a function with one of these names is first entered. `*` stands for any characters, also before
    /// and after the whole.
    begins: &'static [&'static str],
}

/// All of them, in order. One that an image has no function for is no part of its start.
pub const PARTS: [Part; 12] = [
    Part::new("unpacking", &["unpacker pvh_start", "unpacker image_entry"]),
    // Left by the unpacker as by a loader.
    Part::new("entry", &["unpacker pvh_enter", "unpacker image_enter"]),
    Part::new("page tables", &["gnomon::start::h"]),
    Part::new("description", &["acpi::Tables::at::", "fdt::Tree::new::"]),
    Part::new("console", &["machine::io::Uart::at::"]),
    Part::new(
        "vmclock page",
        &["gnomon_kernel::discover::vmclock::", "fdt::Tree::vmclock::"],
    ),
    Part::new("interrupts", &["machine::interrupt::Interrupts::new::"]),
    // With all other devices.
    Part::new(
        "NIC",
        &[
            "Description::virtio_mmio::",
            "gnomon_arch..dev..pci..Ecam*read32",
        ],
    ),
    Part::new(
        "services",
        &["hypervisor::Processor::discover::", "smccc::ask::"],
    ),
    // Above all its secrets.
    Part::new("service", &["gnomon_kernel::service::Service*::new::h"]),
    // Until there is a request, while the console tells of the start.
    Part::new("waiting", &["gnomon_kernel::service::Service*::run::h"]),
    // Until its client has it.
    Part::new(
        "reply",
        &["gnomon_kernel::service::served::Teller*::tell::h"],
    ),
];

impl Part {
    const fn new(name: &'static str, begins: &'static [&'static str]) -> Self {
        Self { name, begins }
    }

    fn begins_with(&self, function: &str) -> bool {
        let mut rest = function;
        self.begins.iter().any(|pattern| {
            rest = function;
            pattern.split('*').all(|piece| {
                let found = rest.split_once(piece);
                found.inspect(|(_, after)| rest = after).is_some()
            })
        })
    }
}

/// The functions that are watched for.
#[derive(Debug)]
pub struct Milestones {
    arch: Arch,
    /// Addresses in the image, with the part of [`PARTS`] that begins there.
    begins: Vec<(u64, usize)>,
}

impl Milestones {
    /// Those of an image.
    #[must_use]
    pub fn of(arch: Arch) -> Self {
        let map = Map::of(arch);
        let parts = PARTS.iter().enumerate();
        let unpacker = map::unpacker(arch);
        let begins = parts.flat_map(|(number, part)| {
            let unpacker = unpacker.iter().map(|(at, name)| (*at, name.as_str()));
            let functions = unpacker.chain(map.functions());
            let begins = functions.filter(|(_, name)| part.begins_with(name));
            begins
                .map(move |(address, _)| (address, number))
                .collect::<Vec<_>>()
        });
        Self {
            arch,
            begins: begins.collect(),
        }
    }

    /// The plugin's arguments for a line when each of them is first reached.
    #[must_use]
    pub fn arguments(&self) -> String {
        watched(self.arch, self.begins.iter().map(|(address, _)| *address))
    }

    /// How much each of [`PARTS`] took, by when addresses were first reached, and the end of the last part.
    #[must_use]
    pub fn took(&self, reached: &[(u64, u64)], end: u64) -> [Option<u64>; PARTS.len()] {
        let mut begin = [None; PARTS.len()];
        for (address, at) in reached {
            for (_, part) in self.begins.iter().filter(|(begin, _)| begin == address) {
                begin[*part] = Some(begin[*part].map_or(*at, |earlier: u64| earlier.min(*at)));
            }
        }
        let mut took = [None; PARTS.len()];
        let mut end = end;
        for (begin, took) in begin.iter().zip(&mut took).rev() {
            if let Some(begin) = begin {
                *took = end.checked_sub(*begin);
                end = *begin;
            }
        }
        took
    }
}

/// The plugin's arguments for a line when the instruction at each of these addresses is first executed.
pub(crate) fn watched(arch: Arch, addresses: impl Iterator<Item = u64>) -> String {
    let size = format!(",size={:#x}", image_max(arch));
    addresses.fold(size, |line, address| format!("{line},at={address:#x}"))
}

/// The address that the plugin has written, if this is one.
pub(crate) fn address(word: &str) -> Option<u64> {
    u64::from_str_radix(word.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_found_in_order() {
        let part = Part::new("", &["none", "a::B*::new::h"]);
        assert!(part.begins_with("x::a::B$LT$T$GT$::new::h12"));
        assert!(!part.begins_with("::new::h a::B"));
        assert!(!part.begins_with("a::B::other"));
    }

    #[test]
    fn a_part_lasts_until_the_next_that_there_is() {
        let milestones = Milestones {
            arch: Arch::X86_64,
            begins: vec![(0x10, 0), (0x20, 1), (0x28, 1), (0x30, 3)],
        };
        let took = milestones.took(&[(0x10, 5), (0x20, 9), (0x28, 8), (0x30, 20)], 50);
        assert_eq!(took[..4], [Some(3), Some(12), None, Some(30)]);
    }
}
