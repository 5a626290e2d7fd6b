//! `aarch64`: entered as an arm64 Image, described by a device tree, or by ACPI's tables.

mod acpi;
mod clocks;
mod firmware;
mod image;
mod wire;

use core::fmt::{self, Display, Write};
use core::iter;

use gnomon_arch::dev::fw_cfg::{FwCfg, Mapped};
use gnomon_arch::dev::pci::{BarSpace, ConfigAccess, Ecam, Function, Pci};
use gnomon_arch::dev::registers::Registers;
use gnomon_arch::dev::virtio::mmio::{self, MmioTransport};
use gnomon_arch::dev::virtio::pci::Wake;
use gnomon_arch::machine::interrupt::{Block, Controller, Interrupts, Line, VIRTUAL_TIMER};
use gnomon_arch::machine::io::{Model, Place, Uart};
use gnomon_arch::machine::mmu::{Kind, PAGE};
use gnomon_arch::machine::power::Power;
use gnomon_arch::machine::timer::Uptime;
use gnomon_arch::machine::{counter, random, services, trap};
use gnomon_kernel::discover::described::Description;
use gnomon_kernel::discover::fdt::{self, Bad, NotFound, Tree};
use gnomon_kernel::discover::hardware::{self, Gic, Interrupt, PciHost, UartModel};
use gnomon_kernel::discover::notification::{EVENTS, Event, Events, Untold};
use gnomon_kernel::discover::{self, Window};
use gnomon_kernel::memory::MemoryRange;
use gnomon_kernel::random::generator::Generator;
use gnomon_kernel::random::{Source, Take};
use gnomon_kernel::services::counters::Rate;
use gnomon_kernel::services::smccc::{self, Call, Conduit, Smccc, StolenTime};
use gnomon_kernel::smoke::machine::Notice;

use crate::find::{self, HostClock, HostRandom, NO_CLOCK, Network, Page};
use crate::glue::{Nic, Numbers};

use acpi::NoAcpi;
pub(crate) use clocks::Clocks;
pub(crate) use firmware::{Firmware, Handover};
pub(crate) use wire::{Wire, wire};

/// The machine as its device tree or ACPI describes it.
pub(crate) struct Hardware<'a> {
    firmware: &'a Firmware<'a>,
    description: Result<Description<'a>, Bad>,
    /// Why ACPI, which was asked for, is not what describes it.
    no_acpi: Option<NoAcpi>,
}

/// What `Hardware::uptime` goes by, where that is not the counter itself.
pub(crate) const INDEPENDENT_TIMER: Option<&str> = None;

/// An interrupt that there may be cannot be looked for.
const NO_CONTROLLER: Notice = Notice::Unknown("no interrupt controller for it is known");

/// What tells that the host has updated the page.
pub(crate) enum Notifier {
    /// The interrupts of these numbers, each of them.
    Lines(heapless::Vec<u32, EVENTS>),
    /// There is nothing to look for, and this is what is found instead.
    Without(Notice),
}

impl Notifier {
    /// Has the interrupt controller remember these interrupts.
    fn new(interrupts: &Interrupts, lines: impl Iterator<Item = Line>) -> Self {
        let mut numbers = heapless::Vec::new();
        for line in lines {
            if !interrupts.remember(line) || numbers.push(line.number).is_err() {
                return Self::Without(NO_CONTROLLER);
            }
        }
        Self::Lines(numbers)
    }

    /// Looks for it.
    pub(crate) fn look(&self, interrupts: &Interrupts) -> Notice {
        match self {
            Self::Lines(numbers) => {
                let arrived = |number: &&u32| interrupts.arrived(**number);
                // Each is asked, so that none is left for the next look.
                match numbers.iter().filter(arrived).count() {
                    0 => Notice::None,
                    _ => Notice::Arrived,
                }
            }
            Self::Without(notice) => *notice,
        }
    }

    /// Ends it: nothing was enabled.
    #[expect(clippy::unused_self, reason = "the other platform has to")]
    pub(crate) const fn end(&self, _: &Interrupts) {}
}

/// Where random numbers come from: the processor, what is below, the host, and once the loader.
pub(crate) struct Entropy {
    pub(crate) device: Option<Generator<Numbers>>,
    generator: Option<Conduit>,
    tree: Option<Tree<'static>>,
}

impl<'a> Hardware<'a> {
    /// Reads the description.
    pub(crate) fn new(firmware: &'a Firmware<'a>) -> Self {
        let (description, no_acpi) = match firmware.acpi() {
            Some(Ok(tables)) => (Ok(Description::Acpi(tables)), None),
            acpi => (
                firmware.tree.clone().map(Description::Tree),
                acpi.and_then(Result::err),
            ),
        };
        Self {
            firmware,
            description,
            no_acpi,
        }
    }

    /// The machine, its boot protocol and who describes it, in words.
    pub(crate) const fn name(&self) -> &'static str {
        match self.description {
            Ok(Description::Acpi(_)) => "aarch64, Image, ACPI",
            _ => "aarch64, Image",
        }
    }

    /// What the loader says of memory.
    pub(crate) fn memory(&self) -> &[MemoryRange] {
        self.firmware.boot.memory()
    }

    /// A count of time since now, by the counter itself.
    #[expect(clippy::unused_self, reason = "the other platform looks it up")]
    pub(crate) fn uptime(&self) -> Uptime {
        Uptime::new()
    }

    /// The console UART.
    pub(crate) fn console(&self) -> Option<Uart> {
        let uart = self.description.as_ref().ok()?.console()?;
        // There is nowhere to say why it cannot be mapped.
        Uart::open(place(&uart), &mut self.firmware.mmu.borrow_mut()).ok()?
    }

    /// The first UART that is not the console.
    pub(crate) fn second_port(&self, interrupts: &Interrupts) -> Option<Uart> {
        let found = self.description.as_ref().ok()?.second_uart()?;
        let uart = Uart::second(place(&found), &mut self.firmware.mmu.borrow_mut());
        if let Some(interrupt) = found.interrupt {
            // Without it, what is received waits for the next nap to end.
            let _ = interrupts.enable(line(interrupt));
        }
        uart.ok()?
    }

    /// QEMU's firmware configuration device.
    pub(crate) fn fw_cfg(&self) -> Option<FwCfg<Mapped>> {
        let tree = self.firmware.tree.as_ref().ok()?;
        acpi::fw_cfg(tree, self.firmware.mmu)
    }

    /// The vmclock page, at `address` if that is given. QEMU's own ACPI tables have none on this machine, so where
    /// they have none the tree's is taken.
    pub(crate) fn page(&self, address: Option<u64>) -> Page {
        let memory = self.firmware.boot.memory();
        if let (Ok(Description::Acpi(tables)), None) = (&self.description, address) {
            match discover::vmclock(None, Ok(tables), memory) {
                Err(discover::NotFound::Absent) => {}
                Ok(found) => return find::page(Ok((found.window, &found)), self.firmware.mmu),
                Err(why) => return find::page(Err(&why), self.firmware.mmu),
            }
        }
        let found = match (&self.firmware.tree, address) {
            (Ok(tree), address) => tree.vmclock(address, memory),
            (Err(_), Some(address)) => fdt::by_address(address, memory),
            (Err(why), None) => Err(NotFound::Tree(why.clone())),
        };
        let found = found.as_ref();
        find::page(
            found
                .map(|found| (found.window, found as &dyn Display))
                .map_err(|why| why as &dyn Display),
            self.firmware.mmu,
        )
    }

    /// Sets the interrupt controller up; without a usable one nothing sleeps.
    pub(crate) fn interrupts(&self, complain: &mut dyn FnMut(&dyn Display)) -> Interrupts {
        if let Some(why) = &self.no_acpi {
            complain(&format_args!("{why}; the device tree is used"));
        }
        let description = self.description.as_ref().ok();
        let timer = description.and_then(Description::virtual_timer);
        if let Some(timer) = timer.filter(|timer| timer.number != VIRTUAL_TIMER) {
            let number = timer.number;
            complain(&format_args!(
                "interrupts: the virtual timer has {number}, not {VIRTUAL_TIMER}; the cpu will not sleep"
            ));
            return Interrupts::none();
        }
        let Some(gic) = description.and_then(Description::interrupt_controller) else {
            complain(&"interrupts: no controller is known; the cpu will not sleep");
            return Interrupts::none();
        };
        let controller = match gic {
            Gic::V2 { distributor, cpu } => Controller::V2 {
                distributor: block(distributor),
                cpu: block(cpu),
            },
            Gic::V3 {
                distributor,
                redistributors,
            } => Controller::V3 {
                distributor: block(distributor),
                redistributors: block(redistributors),
            },
        };
        let mmu = &mut self.firmware.mmu.borrow_mut();
        let interrupts = Interrupts::new(controller, mmu).unwrap_or_else(|why| {
            complain(&format_args!("interrupts: {why}; the cpu will not sleep"));
            Interrupts::none()
        });
        let console = description.and_then(Description::console);
        if let Some(interrupt) = console.and_then(|uart| uart.interrupt) {
            // Without it, typed bytes wait for the next nap to end.
            let _ = interrupts.enable(line(interrupt));
        }
        interrupts
    }

    /// Starts the network device: the first with registers in memory, or else the first on PCI.
    pub(crate) fn network(
        &self,
        interrupts: &Interrupts,
        facts: &mut dyn Write,
    ) -> (Option<Nic>, Network) {
        let none = || (None, Network::Absent("mmio or PCI"));
        let Ok(description) = &self.description else {
            return none();
        };
        let in_memory = self.network_in_memory(description, interrupts);
        let on_pci = || {
            description
                .pci_host()
                .and_then(|host| self.network_on_pci(description, &host, interrupts, facts))
        };
        in_memory.or_else(on_pci).unwrap_or_else(none)
    }

    fn network_on_pci(
        &self,
        description: &Description<'_>,
        host: &PciHost,
        interrupts: &Interrupts,
        facts: &mut dyn Write,
    ) -> Option<(Option<Nic>, Network)> {
        let mmu = self.firmware.mmu;
        let prepare = |pci: &Pci<'_>, function: Function| {
            // No firmware has run that could have given the device addresses.
            if let Some(Window { address, length }) = host.memory {
                pci.place_bars(function, &mut BarSpace::new(address, length));
            }
            // Behind a bridge the pins are wired otherwise.
            let interrupt = description
                .pci_interrupt(function.device(), pci.pin(function))
                .filter(|_| function.bus() == host.first_bus);
            match interrupt {
                Some(interrupt) if interrupts.enable(line(interrupt)) => Wake::Pin,
                _ => Wake::Never,
            }
        };
        let found = self.on_pci(host, |access, reach| {
            find::nic_on_pci(access, host.first_bus, reach, mmu, prepare, facts)
        });
        match found {
            (None, Network::Absent(_)) => None,
            result => Some(result),
        }
    }

    /// Starts the host's clock and its random number generator: the first of each with registers in memory, or else
    /// the first on PCI.
    pub(crate) fn host_devices(&self) -> (HostClock, HostRandom) {
        let Ok(description) = &self.description else {
            return (Err(NO_CLOCK), Ok(None));
        };
        let (mut clock, mut random) = (None, None);
        description.virtio_mmio(&mut |device| {
            let Some(registers) = self.registers(device.window) else {
                return;
            };
            let first = match mmio::device_id(&registers) {
                Some(mmio::CLOCK) => &mut clock,
                Some(mmio::ENTROPY) => &mut random,
                _ => return,
            };
            *first = first.or(Some((device.window.address, registers)));
        });
        let start = |registers| MmioTransport::new(registers, false);
        let in_memory = (
            clock.map(|(address, registers)| {
                let at = format_args!("mmio {address:#x}");
                find::started_clock(start(registers), &at)
            }),
            random.map(|(_, registers)| find::started_random(Some(start(registers)))),
        );
        let on_pci = match in_memory {
            (Some(_), Some(_)) => None,
            _ => description.pci_host().map(|host| self.host_on_pci(&host)),
        };
        let (clock, random) = on_pci.unwrap_or((Err(NO_CLOCK), Ok(None)));
        (in_memory.0.unwrap_or(clock), in_memory.1.unwrap_or(random))
    }

    fn host_on_pci(&self, host: &PciHost) -> (HostClock, HostRandom) {
        // The first half is the network device's.
        let mut space = host.memory.map(|Window { address, length }| {
            let half = length / 2;
            BarSpace::new(address.saturating_add(half), length - half)
        });
        let prepare = |pci: &Pci<'_>, function: Function| {
            if let Some(space) = &mut space {
                pci.place_bars(function, space);
            }
        };
        self.on_pci(host, |access, reach| {
            find::host_on_pci(access, host.first_bus, reach, self.firmware.mmu, prepare)
        })
    }

    /// Gives access to PCI's configuration space, and what makes a bus accessible.
    fn on_pci<T>(
        &self,
        host: &PciHost,
        look: impl FnOnce(&dyn ConfigAccess, &mut dyn FnMut(u8) -> bool) -> T,
    ) -> T {
        let mmu = self.firmware.mmu;
        let Window { address, length } = host.ecam;
        let length = usize::try_from(length).unwrap_or(0);
        // SAFETY: the firmware's description says that this is configuration space; `reach` below maps a bus
        // before it is touched.
        let registers = unsafe { Registers::new(address as *mut u8, length) };
        let access = Ecam::new(registers, host.first_bus);
        let mut reach = |bus: u8| {
            let offset = u64::from(bus.wrapping_sub(host.first_bus)) * Ecam::BUS;
            let mut mmu = mmu.borrow_mut();
            bus <= host.last_bus
                && mmu.map(address + offset, Ecam::BUS, Kind::Device).is_ok()
                && trap::answers(address + offset)
        };
        look(&access, &mut reach)
    }

    fn network_in_memory(
        &self,
        description: &Description<'_>,
        interrupts: &Interrupts,
    ) -> Option<(Option<Nic>, Network)> {
        let (mut first, mut others) = (None, 0);
        description.virtio_mmio(&mut |device| {
            let registers = self.registers(device.window);
            let nic =
                registers.filter(|registers| mmio::device_id(registers) == Some(mmio::NETWORK));
            match (nic, first) {
                (Some(registers), None) => first = Some((device, registers)),
                (Some(_), Some(_)) => others += 1,
                (None, _) => {}
            }
        });
        let (device, registers) = first?;
        let interrupt = device.interrupt.map(line);
        let wakes = interrupt.is_some_and(|line| interrupts.enable(line));
        let started = MmioTransport::new(registers, wakes).map(Wire::Mmio);
        let at = format_args!("mmio {:#x}", device.window.address);
        Some(find::started_nic(started, &at, others))
    }

    /// Maps the registers of a device.
    fn registers(&self, Window { address, length }: Window) -> Option<Registers> {
        let length = length.min(PAGE);
        if !address.is_multiple_of(8) {
            return None;
        }
        let mut mmu = self.firmware.mmu.borrow_mut();
        mmu.map(address, length, Kind::Device).ok()?;
        if !trap::answers(address) {
            return None;
        }
        // SAFETY: the firmware's description says that a device's registers are here; they are mapped as
        // device memory, and its driver is their only user.
        Some(unsafe { Registers::new(address as *mut u8, usize::try_from(length).ok()?) })
    }

    /// Notes what describes the machine, and what was found there.
    pub(crate) fn describe(&self, facts: &mut dyn Write) {
        // What does not fit is not told.
        let _ = self.try_describe(facts);
    }

    fn try_describe(&self, facts: &mut dyn Write) -> fmt::Result {
        let description = match &self.description {
            Ok(description) => description,
            Err(why) => return writeln!(facts, "described   by nothing: {why}"),
        };
        match description {
            Description::Tree(_) => writeln!(facts, "described   by the device tree")?,
            Description::Acpi(tables) => {
                writeln!(facts, "described   by ACPI")?;
                find::tables(tables, facts)?;
            }
        }
        for (name, uart) in [
            ("console", description.console()),
            ("second port", description.second_uart()),
        ] {
            match uart {
                Some(uart) => writeln!(facts, "{name:<12}{}", uart.window)?,
                None => writeln!(facts, "{name:<12}none")?,
            }
        }
        let (distributor, version) = match description.interrupt_controller() {
            Some(Gic::V2 { distributor, .. }) => (Some(distributor), 2),
            Some(Gic::V3 { distributor, .. }) => (Some(distributor), 3),
            None => (None, 0),
        };
        match distributor {
            Some(window) => writeln!(facts, "gic         version {version}, {window}")?,
            None => writeln!(facts, "gic         none")?,
        }
        match description.psci() {
            Some(Conduit::Hvc) => writeln!(facts, "psci        by hvc")?,
            Some(Conduit::Smc) => writeln!(facts, "psci        by smc")?,
            None => writeln!(facts, "psci        none")?,
        }
        match description.pci_host() {
            Some(host) => {
                let (first, last) = (host.first_bus, host.last_bus);
                writeln!(facts, "pci config  {}, buses {first} to {last}", host.ecam)?;
            }
            None => writeln!(facts, "pci config  none")?,
        }
        let mut count = 0;
        description.virtio_mmio(&mut |_| count += 1);
        writeln!(facts, "virtio      {count} places for devices in memory")
    }

    /// What firmware and hypervisor offer.
    pub(crate) fn services(&self) -> Smccc {
        let rate = counter::frequency().map(|hertz| Rate {
            hertz,
            unit: 1,
            source: "CNTFRQ",
        });
        let conduit = self.conduit();
        let mut call = move |registers| match conduit {
            Some(conduit) => instruction(conduit).call(registers),
            None => registers,
        };
        let conduit = conduit.map(|conduit| (conduit, &mut call as Call<'_>));
        Smccc::discover(conduit, rate, |address| self.stolen_time(address))
    }

    /// Where random numbers come from.
    pub(crate) fn entropy(&self, services: &Smccc, device: Option<Generator<Numbers>>) -> Entropy {
        Entropy {
            device,
            generator: self.conduit().filter(|_| services.has_entropy()),
            tree: self.firmware.tree.as_ref().ok().copied(),
        }
    }

    /// The sources of time that only this platform has. The real-time clock is in the device tree: ACPI has none
    /// on QEMU's machine.
    pub(crate) fn clocks(&self, services: &Smccc) -> Clocks {
        let kvm = self.conduit().filter(|_| services.has_ptp());
        let rtc = self.firmware.tree.as_ref().ok().and_then(Tree::rtc);
        let registers = rtc.and_then(|window| self.registers(window));
        Clocks::new(kvm.map(instruction), registers)
    }

    /// What tells that the host has updated the page, which lies there: what ACPI says, or the tree if the page is its.
    pub(crate) fn notifier(&self, interrupts: &Interrupts, page: Option<Window>) -> Notifier {
        if let Ok(Description::Acpi(tables)) = &self.description {
            match Events::of(tables, page, self.memory()) {
                Ok(events) => return by_acpi(interrupts, &events),
                Err(Untold::Elsewhere) => {}
                Err(untold) => return Notifier::Without(untold.into()),
            }
        }
        let tree = self.firmware.tree.as_ref().ok();
        match tree.and_then(Tree::vmclock_interrupt) {
            Some(interrupt) => Notifier::new(interrupts, iter::once(line(interrupt))),
            None if interrupts.wake() => Notifier::Without(Notice::Undescribed),
            None => Notifier::Without(NO_CONTROLLER),
        }
    }

    /// How to switch the machine off and restart it.
    pub(crate) fn power(&self) -> Power {
        Power {
            conduit: self.conduit().map(instruction),
        }
    }

    /// How what is below is called.
    fn conduit(&self) -> Option<Conduit> {
        let description = self.description.as_ref().ok();
        description.and_then(Description::psci)
    }

    /// Maps the structure that the hypervisor says is at `address`.
    fn stolen_time(&self, address: u64) -> Option<&'static StolenTime> {
        let mut mmu = self.firmware.mmu.borrow_mut();
        let length = size_of::<StolenTime>() as u64;
        mmu.map(address, length, Kind::ReadOnly).ok()?;
        if !trap::answers(address) {
            return None;
        }
        // SAFETY: the structure is mapped, and aligned, as the caller has checked; it is none of our
        // own memory, or mapping it would have been refused; the type is made of atomics, so the
        // host may write it at any time.
        Some(unsafe { &*(address as *const StolenTime) })
    }
}

/// Looks for what ACPI says.
fn by_acpi(interrupts: &Interrupts, events: &Events) -> Notifier {
    let mut lines = heapless::Vec::<Line, EVENTS>::new();
    for event in events.iter() {
        let Event::Interrupt(hardware::Line { number, edge, .. }) = event else {
            return Notifier::Without(Notice::Unknown("ACPI's GPEs are not of this machine"));
        };
        // There is room for as many as there are events.
        let _ = lines.push(Line { number, edge });
    }
    Notifier::new(interrupts, lines.into_iter())
}

impl Entropy {
    /// Brings what there is, the best first.
    pub(crate) fn gather(&mut self, take: Take<'_>) {
        if let Some(bytes) = random::rndr() {
            take(Source::Rndr, &bytes);
        }
        let generator = self.generator.map(instruction);
        let generated = generator
            .and_then(|generator| smccc::entropy(&mut |registers| generator.call(registers)));
        if let Some(bytes) = generated {
            take(Source::Trng, &bytes);
        }
        if let Some(device) = &mut self.device {
            device.gather(take);
        }
        // Once: it does not change.
        for seed in self.tree.take().iter().flat_map(Tree::seeds) {
            take(Source::Boot, seed);
        }
    }
}

/// The instruction by its name.
const fn instruction(conduit: Conduit) -> services::Conduit {
    match conduit {
        Conduit::Hvc => services::Conduit::Hvc,
        Conduit::Smc => services::Conduit::Smc,
    }
}

/// Where a UART is and what it is.
const fn place(uart: &hardware::Uart) -> Place {
    Place {
        address: uart.window.address,
        model: match uart.model {
            UartModel::Pl011 => Model::Pl011,
            UartModel::Ns16550 { stride } => Model::Ns16550 { stride },
        },
    }
}

const fn block(Window { address, length }: Window) -> Block {
    Block { address, length }
}

const fn line(Interrupt { number, edge }: Interrupt) -> Line {
    Line { number, edge }
}
