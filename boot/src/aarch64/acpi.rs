//! ACPI's tables where no firmware has run: QEMU's, put together by ourselves.

use core::cell::RefCell;
use core::fmt;

use gnomon_arch::cell::TakeCell;
use gnomon_arch::dev::fw_cfg::{FwCfg, Mapped};
use gnomon_arch::dev::registers::Registers;
use gnomon_arch::machine::mmu::{Kind, Mmu};
use gnomon_arch::machine::trap;
use gnomon_kernel::discover::Window;
use gnomon_kernel::discover::acpi::{Bad, Tables};
use gnomon_kernel::discover::fdt::Tree;
use gnomon_kernel::discover::loader::{self, Files, SCRIPT, SCRIPT_MAX};
use gnomon_kernel::memory::PhysicalMemory;

/// Room for QEMU's tables, which it pads to 128 KiB, for the log of a TPM, 64 KiB, and for a few pages. Tables of more than
/// some hundred devices or CPUs are padded to 256 KiB, and refused.
const ROOM: usize = 208 << 10;

#[repr(C, align(4096))]
struct Memory([u8; ROOM]);

static MEMORY: TakeCell<Memory> = TakeCell::new(Memory([0; ROOM]));

/// Why there are no tables.
#[derive(Clone, Copy)]
pub(super) enum NoAcpi {
    /// QEMU's firmware configuration device is not there.
    Device,
    /// It has no script that makes tables.
    Script,
    /// The script cannot be run.
    Loader(loader::Bad),
    /// What it made are no tables.
    Tables(Bad),
}

impl fmt::Display for NoAcpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device => f.write_str("acpi: the device tree names no fw_cfg device"),
            Self::Script => f.write_str("acpi: fw_cfg has no usable etc/table-loader"),
            Self::Loader(bad) => write!(f, "{bad}"),
            Self::Tables(bad) => write!(f, "acpi: {bad}"),
        }
    }
}

/// Memory with tables in it.
pub(super) struct Acpi {
    memory: &'static [u8],
    rsdp: u64,
}

impl Acpi {
    /// Runs the host's script.
    pub(super) fn load(tree: &Tree<'_>, mmu: &RefCell<Mmu>) -> Result<Self, NoAcpi> {
        let device = fw_cfg(tree, mmu).ok_or(NoAcpi::Device)?;
        let file = device.find(SCRIPT).ok_or(NoAcpi::Script)?;
        let mut script = [0; SCRIPT_MAX];
        let length = usize::try_from(file.length).unwrap_or(usize::MAX);
        let script = script.get_mut(..length).ok_or(NoAcpi::Script)?;
        device.read(file, script);
        let Memory(memory) = MEMORY.take().ok_or(NoAcpi::Script)?;
        let base = memory.as_ptr() as u64;
        let loaded = loader::run(script, &Host(&device), memory, base).map_err(NoAcpi::Loader)?;
        Ok(Self {
            memory,
            rsdp: loaded.rsdp,
        })
    }

    /// The tables.
    pub(super) fn tables(&self) -> Result<Tables<'_>, NoAcpi> {
        Tables::at(self, self.rsdp).map_err(NoAcpi::Tables)
    }
}

/// No table lies anywhere else.
impl PhysicalMemory for Acpi {
    fn bytes(&self, address: u64, length: usize) -> Option<&[u8]> {
        let offset = address.checked_sub(self.memory.as_ptr() as u64)?;
        let rest = self.memory.get(usize::try_from(offset).ok()?..)?;
        rest.get(..length)
    }
}

/// The device's files, as the loader asks for them.
struct Host<'a>(&'a FwCfg<Mapped>);

impl Files for Host<'_> {
    fn length(&self, name: &str) -> Option<u32> {
        self.0.find(name).map(|file| file.length)
    }

    fn read(&self, name: &str, into: &mut [u8]) -> bool {
        let file = self.0.find(name);
        file.inspect(|&file| self.0.read(file, into)).is_some()
    }
}

/// QEMU's firmware configuration device, where the tree says it is.
pub(super) fn fw_cfg(tree: &Tree<'_>, mmu: &RefCell<Mmu>) -> Option<FwCfg<Mapped>> {
    /// Data, selector, and the address register of DMA.
    const LENGTH: usize = 0x18;
    let Window { address, length } = tree.fw_cfg()?;
    if length < LENGTH as u64 || !address.is_multiple_of(8) {
        return None;
    }
    mmu.borrow_mut()
        .map(address, LENGTH as u64, Kind::Device)
        .ok()?;
    if !trap::answers(address) {
        return None;
    }
    // SAFETY: the device tree says that these are its registers; they are mapped as device memory. Two
    // drivers, one after the other, each begin by choosing an item; DMA is never set up.
    FwCfg::new(Mapped(unsafe {
        Registers::new(address as *mut u8, LENGTH)
    }))
}
