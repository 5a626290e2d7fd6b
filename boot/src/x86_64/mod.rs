//! `x86_64`: entered by PVH, described by ACPI.

mod clocks;
mod firmware;
mod notifier;
mod pvh;

use core::fmt::{self, Display, Write};

use gnomon_arch::dev::fw_cfg::FwCfg;
use gnomon_arch::dev::pci::{BarSpace, ConfigAccess, Ecam, Pci};
use gnomon_arch::dev::registers::Registers;
use gnomon_arch::dev::virtio::pci::{PciTransport, Wake};
use gnomon_arch::machine::interrupt::Interrupts;
use gnomon_arch::machine::io::{FwCfgPorts, PortConfig, Uart};
use gnomon_arch::machine::mmu::Kind;
use gnomon_arch::machine::power::{Power, SoftOff};
use gnomon_arch::machine::timer::Uptime;
use gnomon_arch::machine::{random, services};
use gnomon_kernel::discover::acpi::{Bad, Space, Tables};
use gnomon_kernel::discover::aml::Namespace;
use gnomon_kernel::discover::described::Pc;
use gnomon_kernel::discover::{self, Window};
use gnomon_kernel::memory::MemoryRange;
use gnomon_kernel::random::generator::Generator;
use gnomon_kernel::random::{Source, Take};
use gnomon_kernel::services::hypervisor::Processor;

use crate::find::{self, HostClock, HostRandom, Network, Page};
use crate::glue::{Nic, Numbers};
use crate::last_words::fatal;

pub(crate) use clocks::Clocks;
pub(crate) use firmware::Firmware;
pub(crate) use notifier::Notifier;
pub(crate) use pvh::Handover;

/// How the network device is reached.
pub(crate) type Wire = PciTransport;

/// A device on PCI is reached so.
pub(crate) const fn wire(transport: PciTransport) -> Wire {
    transport
}

/// The machine as ACPI describes it.
pub(crate) struct Hardware<'a> {
    firmware: &'a Firmware<'a>,
    tables: Result<Tables<'a>, Bad>,
    pc: Pc,
    soft_off: Option<SoftOff>,
}

/// What `Hardware::uptime` goes by, where that is not the counter itself.
pub(crate) const INDEPENDENT_TIMER: Option<&str> = Some("the ACPI PM timer");

/// Where random numbers come from: the processor and the host.
pub(crate) struct Entropy {
    pub(crate) device: Option<Generator<Numbers>>,
}

impl<'a> Hardware<'a> {
    /// Reads the description.
    pub(crate) fn new(firmware: &'a Firmware<'a>) -> Self {
        let tables = firmware.tables();
        // Once for all: each is a walk through the namespace.
        let good = tables.as_ref().ok();
        Self {
            firmware,
            pc: good.map(Pc::new).unwrap_or_default(),
            soft_off: good.and_then(soft_off),
            tables,
        }
    }

    /// The machine and its boot protocol, in words.
    #[expect(clippy::unused_self, reason = "the other platform looks it up")]
    pub(crate) const fn name(&self) -> &'static str {
        "x86_64, PVH"
    }

    /// What the loader says of memory.
    pub(crate) fn memory(&self) -> &[MemoryRange] {
        self.firmware.boot.memory()
    }

    /// A count of time since now, by ACPI's power management timer.
    pub(crate) fn uptime(&self) -> Uptime {
        let port = || {
            let fadt = self.tables.as_ref().ok()?.fadt().ok()?;
            let timer = fadt.pm_timer().filter(|timer| timer.space == Space::Port)?;
            u16::try_from(timer.address).ok()
        };
        Uptime::new(port())
    }

    /// The console UART.
    #[expect(clippy::unused_self, reason = "the other platform looks it up")]
    pub(crate) fn console(&self) -> Option<Uart> {
        Uart::open()
    }

    /// COM2, if anything answers there.
    #[expect(clippy::unused_self, reason = "the other platform looks it up")]
    pub(crate) fn second_port(&self, interrupts: &Interrupts) -> Option<Uart> {
        interrupts.let_com2();
        Uart::second()
    }

    /// QEMU's firmware configuration device.
    pub(crate) fn fw_cfg(&self) -> Option<FwCfg<FwCfgPorts>> {
        // SAFETY: ACPI says that it is there.
        FwCfg::new(unsafe { FwCfgPorts::new(self.pc.fw_cfg?) })
    }

    /// The vmclock page, at `address` if that is given.
    pub(crate) fn page(&self, address: Option<u64>) -> Page {
        let tables = self.tables.as_ref().map_err(|&why| why);
        let found = discover::vmclock(address, tables, self.firmware.boot.memory());
        let found = found.as_ref();
        find::page(
            found
                .map(|found| (found.window, found as &dyn Display))
                .map_err(|why| why as &dyn Display),
            self.firmware.mmu,
        )
    }

    /// Sets the interrupt controllers up.
    pub(crate) fn interrupts(&self, _: &mut dyn FnMut(&dyn Display)) -> Interrupts {
        Interrupts::new(&mut self.firmware.mmu.borrow_mut()).unwrap_or_else(|why| fatal(&why))
    }

    /// Starts the network device.
    pub(crate) fn network(
        &self,
        interrupts: &Interrupts,
        facts: &mut dyn Write,
    ) -> (Option<Nic>, Network) {
        let mmu = self.firmware.mmu;
        let wake = Wake::Message(interrupts.message());
        self.on_pci(|access, first_bus, reach| {
            let prepare = |pci: &Pci<'_>, function| {
                if let Some(mut space) = self.bar_space(0) {
                    pci.place_bars(function, &mut space);
                }
                wake
            };
            find::nic_on_pci(access, first_bus, reach, mmu, prepare, facts)
        })
    }

    /// Starts the host's clock and its random number generator.
    pub(crate) fn host_devices(&self) -> (HostClock, HostRandom) {
        let mmu = self.firmware.mmu;
        self.on_pci(|access, first_bus, reach| {
            let mut space = self.bar_space(1);
            let prepare = |pci: &Pci<'_>, function| {
                if let Some(space) = &mut space {
                    pci.place_bars(function, space);
                }
            };
            find::host_on_pci(access, first_bus, reach, mmu, prepare)
        })
    }

    /// A half, the first or the second, of the addresses that the host bridge passes on to devices.
    fn bar_space(&self, half: u64) -> Option<BarSpace> {
        let Window { address, length } = self.pc.pci_memory?;
        let length = length / 2;
        let start = address.saturating_add(half * length);
        Some(BarSpace::new(start, length))
    }

    /// Gives access to PCI's configuration space, which bus is the first one, and what makes a bus
    /// accessible.
    fn on_pci<T>(
        &self,
        look: impl FnOnce(&dyn ConfigAccess, u8, &mut dyn FnMut(u8) -> bool) -> T,
    ) -> T {
        let mmu = self.firmware.mmu;
        let tables = self.tables.as_ref().ok();
        let ecam = tables.and_then(|tables| tables.ecam().find(|ecam| ecam.segment == 0));
        let Some(ecam) = ecam else {
            return look(&PortConfig, 0, &mut |_| true);
        };
        let (start, length) = ecam.window();
        let length = usize::try_from(length).unwrap_or(0);
        // SAFETY: the firmware's MCFG says that this is configuration space; `reach` below maps a bus
        // before it is touched.
        let registers = unsafe { Registers::new(start as *mut u8, length) };
        let access = Ecam::new(registers, ecam.first_bus);
        let mut reach = |bus: u8| {
            let offset = u64::from(bus.wrapping_sub(ecam.first_bus)) * Ecam::BUS;
            let mut mmu = mmu.borrow_mut();
            bus <= ecam.last_bus && mmu.map(start + offset, Ecam::BUS, Kind::Device).is_ok()
        };
        look(&access, ecam.first_bus, &mut reach)
    }

    /// Notes what describes the machine, and what was found there.
    pub(crate) fn describe(&self, facts: &mut dyn Write) {
        // What does not fit is not told.
        let _ = self.try_describe(facts);
    }

    fn try_describe(&self, facts: &mut dyn Write) -> fmt::Result {
        let tables = match &self.tables {
            Ok(tables) => tables,
            Err(why) => return writeln!(facts, "acpi        none: {why}"),
        };
        find::tables(tables, facts)?;
        match tables.fadt().map(|fadt| fadt.pm_timer()) {
            Ok(Some(timer)) => writeln!(facts, "pm timer    {:#x}", timer.address)?,
            Ok(None) => writeln!(facts, "pm timer    none")?,
            Err(why) => writeln!(facts, "pm timer    none: {why}")?,
        }
        match tables.ecam().find(|ecam| ecam.segment == 0) {
            Some(ecam) => {
                let (first, last) = (ecam.first_bus, ecam.last_bus);
                writeln!(
                    facts,
                    "pci config  {:#x}, buses {first} to {last}",
                    ecam.window().0
                )?;
            }
            None => writeln!(facts, "pci config  ports 0xcf8 and 0xcfc")?,
        }
        match self.soft_off {
            Some(off) => writeln!(facts, "soft off    port {:#x}", off.pm1a_control)?,
            None => writeln!(facts, "soft off    none")?,
        }
        match self.pc.fw_cfg {
            Some(port) => writeln!(facts, "fw_cfg      port {port:#x}"),
            None => writeln!(facts, "fw_cfg      none"),
        }
    }

    /// What processor and hypervisor offer.
    #[expect(clippy::unused_self, reason = "the other platform looks it up")]
    pub(crate) fn services(&self) -> Processor {
        Processor::discover(&services::cpuid)
    }

    /// Where random numbers come from.
    #[expect(clippy::unused_self, reason = "the other platform looks it up")]
    pub(crate) const fn entropy(
        &self,
        _: &Processor,
        device: Option<Generator<Numbers>>,
    ) -> Entropy {
        Entropy { device }
    }

    /// The sources of time that only this platform has.
    pub(crate) fn clocks(&self, services: &Processor) -> Clocks {
        let fadt = self
            .tables
            .as_ref()
            .ok()
            .and_then(|tables| tables.fadt().ok());
        Clocks::new(services.kvm(), fadt.as_ref())
    }

    /// What tells that the host has updated the page, which lies there.
    pub(crate) fn notifier(&self, interrupts: &Interrupts, page: Option<Window>) -> Notifier {
        let tables = self.tables.as_ref().ok();
        Notifier::new(tables, interrupts, page, self.firmware)
    }

    /// How to switch the machine off and restart it.
    pub(crate) fn power(&self) -> Power {
        Power {
            soft_off: self.soft_off,
        }
    }
}

impl Entropy {
    /// Brings what there is, the best first.
    pub(crate) fn gather(&mut self, take: Take<'_>) {
        for (source, bytes) in [
            (Source::Rdseed, random::rdseed()),
            (Source::Rdrand, random::rdrand()),
        ] {
            if let Some(bytes) = bytes {
                take(source, &bytes);
            }
        }
        if let Some(device) = &mut self.device {
            device.gather(take);
        }
    }
}

/// How to switch the machine off (ACPI S5).
fn soft_off(tables: &Tables<'_>) -> Option<SoftOff> {
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
