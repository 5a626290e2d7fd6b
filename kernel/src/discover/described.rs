//! The machine as ACPI describes it, asked the same questions as a device tree is.

use super::acpi::{Ecam, Tables};
use super::aml::{Id, Namespace, Path, Value};
use super::fdt::Tree;
use super::hardware::{Conduit, Gic, Interrupt, PciHost, Uart, UartModel, VirtioMmio};
use super::resource::{Resource, resources};
use super::tables::{Gtdt, Madt, Spcr};
use super::{Window, check_present, child};

/// The description of an Arm machine.
#[derive(Clone, Copy, Debug)]
pub enum Description<'a> {
    /// A device tree.
    Tree(Tree<'a>),
    /// ACPI's tables.
    Acpi(Tables<'a>),
}

impl Description<'_> {
    /// The console UART.
    #[must_use]
    pub fn console(&self) -> Option<Uart> {
        match self {
            Self::Tree(tree) => tree.console(),
            Self::Acpi(tables) => console(tables),
        }
    }

    /// The first UART that is not the console.
    #[must_use]
    pub fn second_uart(&self) -> Option<Uart> {
        match self {
            Self::Tree(tree) => tree.second_uart(),
            Self::Acpi(tables) => uart(tables, console(tables)),
        }
    }

    /// How PSCI is called.
    #[must_use]
    pub fn psci(&self) -> Option<Conduit> {
        match self {
            Self::Tree(tree) => tree.psci(),
            Self::Acpi(tables) => tables.fadt().ok()?.psci(),
        }
    }

    /// The interrupt controller.
    #[must_use]
    pub fn interrupt_controller(&self) -> Option<Gic> {
        match self {
            Self::Tree(tree) => tree.interrupt_controller(),
            Self::Acpi(tables) => Madt(tables.find(*b"APIC").ok()?).gic(),
        }
    }

    /// The virtual timer's interrupt, where the description was asked and says so.
    #[must_use]
    pub fn virtual_timer(&self) -> Option<Interrupt> {
        match self {
            Self::Tree(_) => None,
            Self::Acpi(tables) => Gtdt(tables.find(*b"GTDT").ok()?).virtual_timer(),
        }
    }

    /// Visits the virtio devices with registers in memory, in the order of the description.
    pub fn virtio_mmio(&self, visit: &mut dyn FnMut(VirtioMmio)) {
        match self {
            Self::Tree(tree) => tree.virtio_mmio().for_each(visit),
            Self::Acpi(tables) => virtio_mmio(tables, visit),
        }
    }

    /// The PCI host.
    #[must_use]
    pub fn pci_host(&self) -> Option<PciHost> {
        match self {
            Self::Tree(tree) => tree.pci_host(),
            Self::Acpi(tables) => pci_host(tables),
        }
    }

    /// The interrupt of a device on the PCI host's first bus, by its number there and its pin, 1 to 4.
    #[must_use]
    pub fn pci_interrupt(&self, device: u8, pin: u8) -> Option<Interrupt> {
        match self {
            Self::Tree(tree) => tree.pci_interrupt(device, pin),
            Self::Acpi(tables) => pci_interrupt(tables, device, pin),
        }
    }
}

/// The I/O ports of QEMU's firmware configuration device on a PC (`QEMU0002`): the first of them.
#[must_use]
pub fn fw_cfg_ports(tables: &Tables<'_>) -> Option<u16> {
    let mut port = None;
    visit(tables, &["QEMU0002"], &mut |namespace, device| {
        port = described(namespace, device).port;
        port.is_some()
    });
    port
}

/// The console: what SPCR names, or else the first UART of the namespace.
fn console(tables: &Tables<'_>) -> Option<Uart> {
    let spcr = tables.find(*b"SPCR").ok();
    if let Some(uart) = spcr.and_then(|table| Spcr(table).uart()) {
        return Some(uart);
    }
    uart(tables, None)
}

/// The first UART of the namespace beside `other`.
fn uart(tables: &Tables<'_>, other: Option<Uart>) -> Option<Uart> {
    let other = other.map(|uart| uart.window.address);
    let mut uart = None;
    visit(
        tables,
        &["ARMH0011", "ARMHB000"],
        &mut |namespace, device| {
            let described = described(namespace, device);
            let window = described.memory;
            uart = window
                .filter(|window| Some(window.address) != other)
                .map(|window| Uart {
                    window,
                    model: UartModel::Pl011,
                    interrupt: described.interrupt,
                });
            uart.is_some()
        },
    );
    uart
}

fn virtio_mmio(tables: &Tables<'_>, visitor: &mut dyn FnMut(VirtioMmio)) {
    visit(tables, &["LNRO0005"], &mut |namespace, device| {
        let described = described(namespace, device);
        if let Some(window) = described.memory {
            visitor(VirtioMmio {
                window,
                interrupt: described.interrupt,
            });
        }
        false
    });
}

fn pci_host(tables: &Tables<'_>) -> Option<PciHost> {
    let ecam = ecam(tables)?;
    let (address, length) = ecam.window();
    let mut host = PciHost {
        ecam: Window { address, length },
        first_bus: ecam.first_bus,
        last_bus: ecam.last_bus,
        memory: None,
    };
    host.memory = bridge_memory(tables);
    Some(host)
}

/// The memory that the PCI host bridge passes on to devices: the longest range below 4 GiB whose addresses are the same
/// on both sides.
#[must_use]
pub fn bridge_memory(tables: &Tables<'_>) -> Option<Window> {
    let mut memory = None;
    at_bridge(tables, &mut |namespace, bridge| {
        memory = described(namespace, bridge).below_4_gib;
    });
    memory
}

/// `_PRT` of the host bridge (ACPI 6.5 §6.2.13): packages of an address, a pin, and either the link device that
/// has the interrupt, or its number.
fn pci_interrupt(tables: &Tables<'_>, device: u8, pin: u8) -> Option<Interrupt> {
    // All functions of the device.
    let wanted = (
        u64::from(device) << 16 | 0xffff,
        u64::from(pin.checked_sub(1)?),
    );
    let mut interrupt = None;
    at_bridge(tables, &mut |namespace, bridge| {
        let Some(Value::Package(routes)) = value(namespace, bridge, *b"_PRT") else {
            return;
        };
        let mut routes = routes.values();
        interrupt = routes.find_map(|route| {
            let Value::Package(route) = route else {
                return None;
            };
            let mut route = route.values();
            let (Value::Integer(address), Value::Integer(pin)) = (route.next()?, route.next()?)
            else {
                return None;
            };
            if (address, pin) != wanted {
                return None;
            }
            match (route.next()?, route.next()?) {
                (Value::Integer(0), Value::Integer(number)) => Some(Interrupt {
                    number: number.try_into().ok()?,
                    edge: false,
                }),
                (Value::Reference(link), _) => {
                    let link = namespace.resolve(bridge, &link)?.path;
                    described(namespace, &link).interrupt
                }
                _ => None,
            }
        });
    });
    interrupt
}

/// The configuration space of the first PCI segment.
fn ecam(tables: &Tables<'_>) -> Option<Ecam> {
    tables.ecam().find(|ecam| ecam.segment == 0)
}

/// Visits the host bridge whose bus is the first one of the configuration space; one that does not tell its bus has bus 0.
fn at_bridge(tables: &Tables<'_>, visitor: &mut dyn FnMut(&Namespace<'_>, &Path)) {
    let first_bus = ecam(tables).map_or(0, |ecam| ecam.first_bus);
    visit(tables, &["PNP0A08", "PNP0A03"], &mut |namespace, device| {
        let bus = match value(namespace, device, *b"_BBN") {
            Some(Value::Integer(bus)) => bus,
            _ => 0,
        };
        let found = bus == u64::from(first_bus);
        if found {
            visitor(namespace, device);
        }
        found
    });
}

/// Visits the devices that are there and bear one of these identifiers, until a visit returns true.
///
/// Not generic, so that the image has the walk once.
fn visit(
    tables: &Tables<'_>,
    ids: &[&str],
    visitor: &mut dyn FnMut(&Namespace<'_>, &Path) -> bool,
) {
    let blocks = tables.definition_blocks();
    let namespace = Namespace::new(blocks.aml());
    let mut last = None;
    let wanted = |id: &Id<'_>| ids.iter().any(|known| id.is(known));
    for (device, id) in namespace.identifiers(&wanted) {
        // Each once, though it may have both a `_HID` and a `_CID` of these.
        if wanted(&id)
            && last.replace(device) != Some(device)
            && check_present(&namespace, &device).is_ok()
            && visitor(&namespace, &device)
        {
            break;
        }
    }
}

/// What a `_CRS` says, as far as it is of use.
#[derive(Default)]
struct Described {
    /// The first range of memory with a fixed place.
    memory: Option<Window>,
    /// The longest one below 4 GiB, the same on both sides of a bridge.
    below_4_gib: Option<Window>,
    interrupt: Option<Interrupt>,
    port: Option<u16>,
}

fn described(namespace: &Namespace<'_>, device: &Path) -> Described {
    let mut all = Described::default();
    let Some(Value::Buffer(template)) = value(namespace, device, *b"_CRS") else {
        return all;
    };
    for resource in resources(template) {
        match resource {
            Ok(Resource::Memory(memory)) => {
                let Ok((address, length)) = memory.window() else {
                    continue;
                };
                let window = Window { address, length };
                all.memory = all.memory.or(Some(window));
                let fits = address
                    .checked_add(length)
                    .is_some_and(|end| end <= 1 << 32);
                if fits && all.below_4_gib.is_none_or(|best| best.length < length) {
                    all.below_4_gib = Some(window);
                }
            }
            Ok(Resource::Interrupt(interrupt)) => {
                all.interrupt = all.interrupt.or(Some(interrupt));
            }
            Ok(Resource::Ports(port)) => all.port = all.port.or(Some(port)),
            Ok(Resource::Other(_)) => {}
            // What is malformed from here on is not believed from the start.
            Err(_) => return Described::default(),
        }
    }
    all
}

fn value<'a>(namespace: &Namespace<'a>, device: &Path, name: [u8; 4]) -> Option<Value<'a>> {
    namespace.evaluate(&child(namespace, device, name)?).ok()
}
