//! The machine as ACPI describes it, asked the same questions as a device tree is.

use super::acpi::{Ecam, Tables};
use super::aml::{Id, Namespace, Object, Path, SEGMENTS, Value};
use super::fdt::Tree;
use super::hardware::{Conduit, Gic, Interrupt, PciHost, Uart, UartModel, VirtioMmio};
use super::resource::{Resource, resources};
use super::tables::{Gtdt, Madt, Spcr};
use super::{Window, check_statuses, child, child_path, statuses};

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

/// What a PC's namespace tells of use at the start, by one walk for all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pc {
    /// The first of the I/O ports of QEMU's firmware configuration device (`QEMU0002`).
    pub fw_cfg: Option<u16>,
    /// The memory that the PCI host bridge passes on to devices: the longest range below 4 GiB whose addresses are the
    /// same on both sides.
    pub pci_memory: Option<Window>,
}

impl Pc {
    /// Reads it.
    #[must_use]
    pub fn new(tables: &Tables<'_>) -> Self {
        let mut pc = Self::default();
        let first_bus = ecam(tables).map_or(0, |ecam| ecam.first_bus);
        let ids = ["PNP0A08", "PNP0A03", "QEMU0002"];
        visit(tables, &ids, &mut |device| {
            let described = device.described();
            if let Some(port) = described.port.filter(|_| device.id.is("QEMU0002")) {
                pc.fw_cfg = pc.fw_cfg.or(Some(port));
            } else if device.is_bridge_of(first_bus) {
                pc.pci_memory = pc.pci_memory.or(described.below_4_gib);
            }
            pc.fw_cfg.is_some() && pc.pci_memory.is_some()
        });
        pc
    }
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
    visit(tables, &["ARMH0011", "ARMHB000"], &mut |device| {
        let described = device.described();
        let window = described.memory;
        uart = window
            .filter(|window| Some(window.address) != other)
            .map(|window| Uart {
                window,
                model: UartModel::Pl011,
                interrupt: described.interrupt,
            });
        uart.is_some()
    });
    uart
}

fn virtio_mmio(tables: &Tables<'_>, visitor: &mut dyn FnMut(VirtioMmio)) {
    visit(tables, &["LNRO0005"], &mut |device| {
        let described = device.described();
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
    at_bridge(tables, &mut |bridge| {
        host.memory = bridge.described().below_4_gib;
    });
    Some(host)
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
    at_bridge(tables, &mut |bridge| {
        let (namespace, bridge) = (bridge.namespace, &bridge.path);
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
                    Described::of(value(namespace, &link, *b"_CRS")).interrupt
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

/// Visits the host bridge whose bus is the first one of the configuration space.
fn at_bridge(tables: &Tables<'_>, visitor: &mut dyn FnMut(&Device<'_, '_>)) {
    let first_bus = ecam(tables).map_or(0, |ecam| ecam.first_bus);
    visit(tables, &["PNP0A08", "PNP0A03"], &mut |device| {
        let found = device.is_bridge_of(first_bus);
        if found {
            visitor(device);
        }
        found
    });
}

/// A device that is there.
pub(super) struct Device<'n, 'a> {
    pub(super) namespace: &'n Namespace<'a>,
    pub(super) path: Path,
    /// By which it was found.
    id: Id<'a>,
    pub(super) resources: Option<Object<'a>>,
    bus: Option<Object<'a>>,
}

impl Device<'_, '_> {
    fn described(&self) -> Described {
        let resources = self.resources.as_ref();
        Described::of(resources.and_then(|object| self.namespace.evaluate(object).ok()))
    }

    /// Whether its bus, if it is a host bridge, is this one. One that does not tell its bus has bus 0.
    fn is_bridge_of(&self, bus: u8) -> bool {
        let object = self.bus.as_ref();
        let own = match object.map(|object| self.namespace.evaluate(object)) {
            Some(Ok(Value::Integer(bus))) => bus,
            _ => 0,
        };
        own == u64::from(bus)
    }
}

/// Visits the devices that are there and bear one of these identifiers, until a visit returns true.
fn visit(tables: &Tables<'_>, ids: &[&str], visitor: &mut dyn FnMut(&Device<'_, '_>) -> bool) {
    let blocks = tables.definition_blocks();
    visit_in(&Namespace::new(blocks.aml()), ids, visitor);
}

/// The same in a namespace.
///
/// Not generic, so that the image has the walk once.
pub(super) fn visit_in<'n, 'a>(
    namespace: &'n Namespace<'a>,
    ids: &[&str],
    visitor: &mut dyn FnMut(&Device<'n, 'a>) -> bool,
) {
    let mut last = None;
    let wanted = |id: &Id<'_>| ids.iter().any(|known| id.is(known));
    for (path, id) in namespace.identifiers(&wanted) {
        // Each once, though it may have both a `_HID` and a `_CID` of these.
        if !wanted(&id) || last.replace(path) == Some(path) {
            continue;
        }
        let mut paths = [Path::ROOT; 2 + SEGMENTS];
        let [resources, bus, status_paths @ ..] = &mut paths;
        (*resources, *bus) = (child_path(&path, *b"_CRS"), child_path(&path, *b"_BBN"));
        *status_paths = statuses(&path);
        let [resources, bus, statuses @ ..] = namespace.find_each(paths);
        let device = Device {
            namespace,
            path,
            id,
            resources,
            bus,
        };
        if check_statuses(namespace, &statuses).is_ok() && visitor(&device) {
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

impl Described {
    /// By the value of a `_CRS`.
    #[inline(never)]
    fn of(value: Option<Value<'_>>) -> Self {
        let mut all = Self::default();
        let Some(Value::Buffer(template)) = value else {
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
                Err(_) => return Self::default(),
            }
        }
        all
    }
}

fn value<'a>(namespace: &Namespace<'a>, device: &Path, name: [u8; 4]) -> Option<Value<'a>> {
    namespace.evaluate(&child(namespace, device, name)?).ok()
}
