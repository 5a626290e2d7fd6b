//! What this machine has: the vmclock page, the network device, the way to switch it off.

use core::cell::RefCell;
use core::fmt::{self, Display};

use gnomon_arch::dev::net::{self, Nic};
use gnomon_arch::dev::pci::{ConfigAccess, Ecam, Function, Pci};
use gnomon_arch::dev::registers::Registers;
use gnomon_arch::dev::virtio;
use gnomon_arch::machine::interrupt::Message;
use gnomon_arch::machine::io::PortConfig;
use gnomon_arch::machine::mmu::{Kind, Mmu};
use gnomon_arch::machine::power::SoftOff;
use gnomon_clock::VmclockPage;
use gnomon_kernel::discover::acpi::{Bad, Space, Tables};
use gnomon_kernel::discover::aml::Namespace;
use gnomon_kernel::discover::{self, Window};
use gnomon_kernel::memory::MemoryRange;

use crate::text::Text;

/// The vmclock page, and where it is or why there is none.
pub(crate) struct Page {
    /// The page, mapped.
    pub(crate) page: Option<&'static VmclockPage>,
    text: Text<192>,
}

impl Page {
    /// Where the page is, or why there is none.
    pub(crate) fn place(&self) -> Result<&str, &str> {
        match self.page {
            Some(_) => Ok(self.text.as_str()),
            None => Err(self.text.as_str()),
        }
    }
}

/// Finds the vmclock page and maps it, write-back and read-only (UAPI.13 "Discovery").
pub(crate) fn page(
    address: Option<u64>,
    tables: &Result<Tables<'_>, Bad>,
    memory: &[MemoryRange],
    mmu: &RefCell<Mmu>,
) -> Page {
    let none = |why: &dyn Display| Page {
        page: None,
        text: Text::of(why),
    };
    let found = match discover::vmclock(address, tables.as_ref().map_err(|&why| why), memory) {
        Ok(found) => found,
        Err(why) => return none(&why),
    };
    let Window { address, length } = found.window;
    if let Err(why) = mmu.borrow_mut().map(address, length, Kind::ReadOnly) {
        return none(&why);
    }
    // SAFETY: the window is mapped, at least a page long and aligned; it is none of our own memory, or
    // mapping it would have been refused; the type is made of atomics, so the host may write it at
    // any time.
    let page = unsafe { &*(address as *const VmclockPage) };
    Page {
        page: Some(page),
        text: Text::of(&found),
    }
}

/// What became of the search for a network device.
#[derive(Clone, Copy)]
pub(crate) enum Network {
    /// The first one runs; so many others are left alone.
    Running(Function, usize),
    /// There is one, and it cannot be used.
    Refused(Function, virtio::Error),
    /// There is none.
    Absent,
}

impl Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running(function, 0) => write!(f, "virtio-net, PCI {function}"),
            Self::Running(function, others) => {
                write!(f, "virtio-net, PCI {function}, the first of {}", others + 1)
            }
            Self::Refused(function, why) => write!(f, "virtio-net, PCI {function}, refused: {why}"),
            Self::Absent => f.write_str("no virtio-net device on PCI"),
        }
    }
}

/// Starts the first virtio network device on PCI, and says what became of it.
pub(crate) fn network(
    tables: Option<&Tables<'_>>,
    mmu: &RefCell<Mmu>,
    message: Message,
) -> (Option<Nic>, Network) {
    let ecam = tables
        .and_then(|tables| tables.ecam().find(|ecam| ecam.segment == 0))
        .map(|ecam| {
            let (start, length) = ecam.window();
            let length = usize::try_from(length).unwrap_or(0);
            // SAFETY: the firmware's MCFG says that this is configuration space; `reach` below maps a bus before it is touched.
            let registers = unsafe { Registers::new(start as *mut u8, length) };
            (Ecam::new(registers, ecam.first_bus), start, ecam)
        });
    match &ecam {
        Some((access, start, ecam)) => {
            let reach = |bus: u8| {
                let offset = u64::from(bus.wrapping_sub(ecam.first_bus)) * Ecam::BUS;
                bus <= ecam.last_bus
                    && mmu
                        .borrow_mut()
                        .map(start + offset, Ecam::BUS, Kind::Device)
                        .is_ok()
            };
            first_nic(access, ecam.first_bus, reach, mmu, message)
        }
        None => first_nic(&PortConfig, 0, |_| true, mmu, message),
    }
}

fn first_nic(
    access: &dyn ConfigAccess,
    first_bus: u8,
    reach: impl FnMut(u8) -> bool,
    mmu: &RefCell<Mmu>,
    message: Message,
) -> (Option<Nic>, Network) {
    let pci = Pci(access);
    let (mut first, mut others) = (None, 0);
    pci.walk(first_bus, reach, |function, vendor, device| {
        if net::is_nic(vendor, device) {
            match first {
                None => first = Some(function),
                Some(_) => others += 1,
            }
        }
    });
    let Some(function) = first else {
        return (None, Network::Absent);
    };
    match Nic::new(&pci, function, &mut mmu.borrow_mut(), message) {
        Ok(nic) => (Some(nic), Network::Running(function, others)),
        Err(why) => (None, Network::Refused(function, why)),
    }
}

/// The I/O port of the ACPI power management timer.
pub(crate) fn pm_timer(tables: &Tables<'_>) -> Option<u16> {
    let register = tables
        .fadt()
        .ok()?
        .pm_timer()
        .filter(|register| register.space == Space::Port)?;
    u16::try_from(register.address).ok()
}

/// How to switch the machine off (ACPI S5).
pub(crate) fn soft_off(tables: &Tables<'_>) -> Option<SoftOff> {
    let register = tables
        .fadt()
        .ok()?
        .pm1a_control()
        .filter(|register| register.space == Space::Port)?;
    let blocks = tables.definition_blocks();
    let (sleep_type, _) = Namespace::new(blocks.aml()).soft_off()?;
    Some(SoftOff {
        pm1a_control: u16::try_from(register.address).ok()?,
        sleep_type,
    })
}
