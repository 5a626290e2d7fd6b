//! What the loader left: a device tree.

use core::cell::RefCell;

use gnomon_arch::machine::mmu::{Kind, Mmu};
use gnomon_kernel::discover::fdt::{self, Bad, HEADER, Tree};

use crate::info::BootInfo;

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
}

impl<'a> Firmware<'a> {
    /// Reads the device tree.
    pub(crate) fn new(Handover(address): Handover, mmu: &'a RefCell<Mmu>) -> Self {
        let tree = blob(address, mmu).ok_or(Bad::Absent).and_then(Tree::new);
        let mut boot = BootInfo::new();
        if let Ok(tree) = &tree {
            tree.memory(|range| boot.add_range(range));
            boot.set_command_line(tree.command_line().unwrap_or("").bytes());
        }
        Self { mmu, boot, tree }
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
