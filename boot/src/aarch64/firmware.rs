//! What the loader left: a device tree, and a way to ACPI's tables.

use core::cell::RefCell;

use gnomon_arch::machine::mmu::{Kind, Mmu};
use gnomon_kernel::config::{self, Config};
use gnomon_kernel::discover::acpi::Tables;
use gnomon_kernel::discover::fdt::{self, Bad, HEADER, Tree};
use gnomon_kernel::handover::BootInfo;

use super::acpi::{Acpi, NoAcpi};

/// Physical address of the device tree. Nothing but the image is mapped when the entry code ends.
pub(crate) struct Handover(u64);

impl Handover {
    /// Keeps the address.
    pub(crate) const fn read(address: u64) -> Self {
        Self(address)
    }
}

/// The loader's words.
pub(crate) struct Firmware<'a> {
    pub(super) mmu: &'a RefCell<Mmu>,
    pub(super) boot: BootInfo,
    pub(super) tree: Result<Tree<'static>, Bad>,
    /// ACPI's tables, where they were looked for.
    acpi: Option<Result<Acpi, NoAcpi>>,
}

impl<'a> Firmware<'a> {
    /// Reads the device tree, and loads ACPI's tables where the command line asks for them, or where the
    /// tree describes no machine: Linux's "Booting arm64" calls a tree a stub that leaves this to ACPI. Even then the
    /// tree has the command line and the memory map, and says where QEMU's tables come from.
    pub(crate) fn new(Handover(address): Handover, mmu: &'a RefCell<Mmu>) -> Self {
        let tree = blob(address, mmu).ok_or(Bad::Absent).and_then(Tree::new);
        let mut boot = BootInfo::new();
        if let Ok(tree) = &tree {
            tree.memory(|range| boot.add_range(range));
            boot.set_command_line(tree.command_line().unwrap_or("").bytes());
        }
        let mut acpi = None;
        if let Ok(tree) = &tree {
            let asked = Config::parse(boot.command_line(), &mut |_| ()).firmware;
            if asked == config::Firmware::Acpi || tree.interrupt_controller().is_none() {
                acpi = Some(Acpi::load(tree, mmu));
            }
        }
        Self {
            mmu,
            boot,
            tree,
            acpi,
        }
    }

    /// ACPI's tables, where they were looked for.
    pub(super) fn acpi(&self) -> Option<Result<Tables<'_>, NoAcpi>> {
        let acpi = self.acpi.as_ref()?;
        Some(acpi.as_ref().map_err(|why| *why).and_then(Acpi::tables))
    }

    /// The command line.
    pub(crate) fn command_line(&self) -> &str {
        self.boot.command_line()
    }
}

/// Maps the tree at `address`; how long it is, it says itself.
fn blob(address: u64, mmu: &RefCell<Mmu>) -> Option<&'static [u8]> {
    // The boot protocol aligns it to 8 bytes. Mapping is refused where it touches the image.
    if address == 0 || !address.is_multiple_of(8) {
        return None;
    }
    let map = |length: usize| {
        let mut mmu = mmu.borrow_mut();
        mmu.map(address, length as u64, Kind::ReadOnly).ok()
    };
    map(HEADER)?;
    // SAFETY: the bytes are mapped, and nothing of ours; any value is valid.
    let header = unsafe { (address as *const [u8; HEADER]).read() };
    let length = fdt::length(&header)?;
    map(length)?;
    // SAFETY: the bytes are mapped, and read-only; they are none of our own memory, so no reference
    // of ours can write them; the loader has finished.
    Some(unsafe { core::slice::from_raw_parts(address as *const u8, length) })
}
