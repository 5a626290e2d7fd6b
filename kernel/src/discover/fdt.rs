//! The flattened device tree: what an Arm machine says it has (Devicetree Specification 0.4).
//!
//! `blob.rs` reads the bytes, and checks all of them before anything is believed. What the values mean is decided here,
//! and any tree gives devices that passed every check, or fewer of them, or a reason. Nodes are looked at to a
//! fixed depth and number, so no tree takes long.

use core::fmt;

use blob::{Blob, Node, Nodes};

use super::hardware::{Conduit, Gic, Interrupt, PciHost, Uart, UartModel, VirtioMmio};
use super::{PAGE, Window};
use crate::memory::{MemoryKind, MemoryRange};

mod blob;

pub use blob::Malformed;

/// Bytes of the longest tree that is read (Linux's "Booting arm64": at most 2 MiB).
pub const LENGTH_MAX: usize = 2 << 20;
/// Bytes of the header that [`length`] needs.
pub const HEADER: usize = 8;
/// Levels below the root that are looked at.
const DEPTH: usize = 6;
/// Nodes that are looked at.
const NODES: usize = 4096;
/// Properties of a node that are looked at, beside `compatible`; a node has about ten.
const PROPERTIES: usize = 64;
/// Bytes of a random seed that are used.
const SEED: usize = 256;
/// What a UART is compatible with that can be the console.
const UARTS: &[&str] = &["arm,pl011", "ns16550", "ns16550a"];
/// What a vmclock page is compatible with.
const VMCLOCK: &[&str] = &["amazon,vmclock"];
/// Reserved ranges that are cut out of the memory; a machine has a few.
const RESERVED: usize = 32;

/// How many bytes the tree is long, from the first [`HEADER`] bytes of it; `None` if they are none of
/// a tree, or of one longer than [`LENGTH_MAX`].
#[must_use]
pub fn length(header: &[u8; HEADER]) -> Option<usize> {
    const MAGIC: u32 = 0xd00d_feed;
    let mut words = cells(header);
    let (magic, length) = (words.next()?, usize::try_from(words.next()?).ok()?);
    (magic == MAGIC && (HEADER..=LENGTH_MAX).contains(&length)).then_some(length)
}

/// A device tree that is well formed.
#[derive(Clone, Copy, Debug)]
pub struct Tree<'a> {
    blob: Blob<'a>,
    /// Asked for again and again, and far behind in the tree.
    gic: Option<Controller>,
}

/// A vmclock page that may be mapped: write-back and read-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// Where the page is.
    pub window: Window,
    /// The node that describes it; none if the command line does.
    pub node: Option<&'a str>,
}

/// Why there is no vmclock page to be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotFound<'a> {
    /// There is no device tree to look at.
    Tree(Bad),
    /// No node is compatible with `amazon,vmclock`.
    Absent,
    /// A node is, and cannot be used.
    Refused {
        /// Its name.
        node: &'a str,
        /// Why.
        why: Refusal,
    },
    /// The address on the command line cannot be used.
    Override {
        /// That address.
        address: u64,
        /// Why.
        why: super::Refusal,
    },
}

/// Why a vmclock node cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its `status`, or that of a bus above it, is not `okay`.
    Disabled,
    /// It has no `reg`, or one that no bus above it gives an address to.
    Register,
    /// The memory cannot be such a page.
    Window(super::Refusal),
}

/// Why a device tree cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bad {
    /// Nobody said where it is, or there is none at that place.
    Absent,
    /// It is malformed.
    Malformed(Malformed),
}

impl<'a> Tree<'a> {
    /// Checks `blob`, which must be exactly one tree.
    ///
    /// # Errors
    /// What is malformed first, and where.
    pub fn new(blob: &'a [u8]) -> Result<Self, Bad> {
        if blob.len() > LENGTH_MAX {
            return Err(Bad::Absent);
        }
        let blob = Blob::new(blob).map_err(Bad::Malformed)?;
        let mut tree = Self { blob, gic: None };
        tree.gic = tree.find_gic();
        Ok(tree)
    }

    /// The command line (`/chosen`, `bootargs`).
    #[must_use]
    pub fn command_line(&self) -> Option<&'a str> {
        text(&self.chosen()?, "bootargs")
    }

    /// Random bytes that the loader left (`/chosen`, `rng-seed` and `kaslr-seed`), up to
    /// 256 of each.
    pub fn seeds(&self) -> impl Iterator<Item = &'a [u8]> {
        let chosen = self.chosen();
        let seed = move |name| Some(value(&chosen?, name)).filter(|seed| !seed.is_empty());
        ["rng-seed", "kaslr-seed"]
            .into_iter()
            .filter_map(seed)
            .map(|seed| seed.get(..SEED).unwrap_or(seed))
    }

    /// The memory map: what is RAM and not reserved, and what is reserved.
    pub fn memory(&self, mut add: impl FnMut(MemoryRange)) {
        let mut reserved = [Window {
            address: 0,
            length: 0,
        }; RESERVED];
        let mut count = 0;
        let mut reserve = |window: Window| {
            if let Some(place) = reserved.get_mut(count)
                && window.length > 0
            {
                *place = window;
                count += 1;
            }
        };
        for (address, length) in self.blob.reservations() {
            reserve(Window { address, length });
        }
        for device in self.devices(&[]) {
            if device.parent_is("reserved-memory") {
                device.registers().for_each(&mut reserve);
            }
        }
        let reserved = reserved.get(..count).unwrap_or_default();
        for device in self.devices(&[]) {
            if text(&device.node, "device_type") == Some("memory") && device.is_enabled() {
                for window in device.registers() {
                    free_parts(window, reserved, &mut add);
                }
            }
        }
        for &Window { address, length } in reserved {
            add(MemoryRange {
                start: address,
                length,
                kind: MemoryKind::Reserved,
            });
        }
    }

    /// The console UART (`/chosen`, `stdout-path`), or else the first one there is.
    #[must_use]
    pub fn console(&self) -> Option<Uart> {
        let path = text(&self.chosen()?, "stdout-path");
        // Options such as the speed follow a colon.
        let path = path.and_then(|path| path.split(':').next()).unwrap_or("");
        let path = if path.starts_with('/') {
            path
        } else {
            let aliases = self.below_root("aliases");
            aliases.and_then(|node| text(&node, path)).unwrap_or("")
        };
        let parent = self.gic.map(|controller| controller.phandle);
        let mut first = None;
        for device in self.devices(UARTS) {
            let Some(uart) = uart(&device, parent) else {
                continue;
            };
            if device.has_path(path) {
                return Some(uart);
            }
            first = first.or(Some(uart));
        }
        first
    }

    /// The first UART that is not the console.
    #[must_use]
    pub fn second_uart(&self) -> Option<Uart> {
        let console = self.console()?.window;
        let parent = self.gic.map(|controller| controller.phandle);
        let mut uarts = self
            .devices(UARTS)
            .filter_map(|device| uart(&device, parent));
        uarts.find(|uart| uart.window != console)
    }

    /// How PSCI is called.
    #[must_use]
    pub fn psci(&self) -> Option<Conduit> {
        let device = self.devices(&["arm,psci-1.0", "arm,psci-0.2"]).next()?;
        match text(&device.node, "method")? {
            "hvc" => Some(Conduit::Hvc),
            "smc" => Some(Conduit::Smc),
            _ => None,
        }
    }

    /// The interrupt controller.
    #[must_use]
    pub fn interrupt_controller(&self) -> Option<Gic> {
        self.gic.map(|controller| controller.gic)
    }

    /// The registers of QEMU's firmware configuration device (`qemu,fw-cfg-mmio`).
    #[must_use]
    pub fn fw_cfg(&self) -> Option<Window> {
        self.first("qemu,fw-cfg-mmio")
    }

    /// The registers of the real-time clock, a PL031 (`arm,pl031`).
    #[must_use]
    pub fn rtc(&self) -> Option<Window> {
        self.first("arm,pl031")
    }

    /// The virtio devices with registers in memory, in the order of the tree.
    pub fn virtio_mmio(&self) -> impl Iterator<Item = VirtioMmio> {
        let parent = self.gic.map(|controller| controller.phandle);
        self.devices(&["virtio,mmio"])
            .filter(Device::is_enabled)
            .filter_map(move |device| {
                Some(VirtioMmio {
                    window: device.registers().next()?,
                    interrupt: device.interrupt(parent?),
                })
            })
    }

    /// The PCI host.
    #[must_use]
    pub fn pci_host(&self) -> Option<PciHost> {
        let device = self.pci_node()?;
        let ecam = device.registers().next()?;
        let mut buses = property_cells(&device.node, "bus-range");
        let (first, last) = (buses.next().unwrap_or(0), buses.next().unwrap_or(255));
        let (first_bus, last_bus) = (u8::try_from(first).ok()?, u8::try_from(last).ok()?);
        let fits = ecam.length >> 20 > u64::from(last_bus.checked_sub(first_bus)?);
        fits.then_some(PciHost {
            ecam,
            first_bus,
            last_bus,
            memory: pci_memory(&device),
        })
    }

    /// The interrupt of a device on the PCI host's first bus, by its number there and its pin, 1 to 4
    /// (Devicetree Specification §2.4.3, `interrupt-map`).
    #[must_use]
    pub fn pci_interrupt(&self, device: u8, pin: u8) -> Option<Interrupt> {
        let controller = self.gic?;
        let host = self.pci_node()?;
        let mut mask = property_cells(&host.node, "interrupt-map-mask");
        let mut mask = || mask.next().unwrap_or(u32::MAX);
        let [address_mask, _, _, pin_mask] = [mask(), mask(), mask(), mask()];
        let (address, pin) = (
            u32::from(device) << 11 & address_mask,
            u32::from(pin) & pin_mask,
        );
        let mut words = property_cells(&host.node, "interrupt-map");
        loop {
            let (place, _, _, its_pin) =
                (words.next()?, words.next()?, words.next()?, words.next()?);
            if words.next()? != controller.phandle {
                // How long an entry for another controller is, only that one knows.
                return None;
            }
            for _ in 0..controller.address_cells {
                words.next()?;
            }
            let interrupt = interrupt(&mut words)?;
            if (place & address_mask, its_pin & pin_mask) == (address, pin) {
                return interrupt;
            }
        }
    }

    /// Finds the vmclock page: at `address` if that is given (`vmclock=` on the command line), which
    /// must not be memory that `map` leaves to the guest; otherwise at the first `amazon,vmclock`
    /// node with a sane page. A node's own word is enough for RAM: the page is carved out of it.
    ///
    /// # Errors
    /// Why there is no page to be used: the reason for the first node refused.
    pub fn vmclock(
        &self,
        address: Option<u64>,
        map: &[MemoryRange],
    ) -> Result<Found<'a>, NotFound<'a>> {
        if let Some(address) = address {
            return by_address(address, map);
        }
        let mut refused = None;
        for device in self.devices(VMCLOCK) {
            match vmclock_window(&device) {
                Ok(window) => {
                    return Ok(Found {
                        window,
                        node: Some(device.node.name()),
                    });
                }
                Err(why) => {
                    let node = device.node.name();
                    refused = refused.or(Some(NotFound::Refused { node, why }));
                }
            }
        }
        Err(refused.unwrap_or(NotFound::Absent))
    }

    /// The interrupt by which the host notifies the updates of the page.
    #[must_use]
    pub fn vmclock_interrupt(&self) -> Option<Interrupt> {
        let page = self.devices(VMCLOCK).find(Device::is_enabled)?;
        page.interrupt(self.gic?.phandle)
    }

    fn chosen(&self) -> Option<Node<'a>> {
        self.below_root("chosen")
    }

    /// The registers of the first such device that is enabled.
    fn first(&self, compatible: &str) -> Option<Window> {
        self.devices(&[compatible])
            .find(Device::is_enabled)?
            .registers()
            .next()
    }

    /// The nodes below the root that are compatible with one of these, or all; parents before children.
    fn devices<'n>(&self, compatible: &'n [&'n str]) -> Devices<'n, 'a> {
        Devices {
            nodes: self.blob.nodes(),
            wanted: compatible,
            parents: [None; DEPTH],
            left: NODES,
        }
    }

    /// The node of this name right below the root.
    fn below_root(&self, name: &str) -> Option<Node<'a>> {
        let mut nodes = self.blob.nodes();
        let found = nodes.find(|(depth, node)| *depth == 1 && node.is_named(name))?;
        Some(found.1)
    }

    fn pci_node(&self) -> Option<Device<'a>> {
        self.devices(&["pci-host-ecam-generic"])
            .find(Device::is_enabled)
    }

    fn find_gic(&self) -> Option<Controller> {
        const GICS: &[&str] = &["arm,cortex-a15-gic", "arm,gic-400", "arm,gic-v3"];
        self.devices(GICS).find_map(|device| {
            let is_v2 = device.is("arm,cortex-a15-gic") || device.is("arm,gic-400");
            let gic = if is_v2 {
                let mut registers = device.registers();
                Gic::V2 {
                    distributor: registers.next()?,
                    cpu: registers.next()?,
                }
            } else if device.is("arm,gic-v3") {
                let mut registers = device.registers();
                Gic::V3 {
                    distributor: registers.next()?,
                    redistributors: registers.next()?,
                }
            } else {
                return None;
            };
            let first = |name| property_cells(&device.node, name).next().unwrap_or(0);
            Some(Controller {
                gic,
                phandle: first("phandle"),
                address_cells: first("#address-cells"),
            })
        })
    }
}

/// The page at `address`, on the user's word.
///
/// # Errors
/// Why it cannot be one.
pub fn by_address<'a>(address: u64, map: &[MemoryRange]) -> Result<Found<'a>, NotFound<'a>> {
    let window = Window {
        address,
        length: PAGE,
    };
    window
        .check(map)
        .map_err(|why| NotFound::Override { address, why })?;
    Ok(Found { window, node: None })
}

/// The UART that `device` is, if it is one and is enabled; `controller` is the interrupt controller's
/// phandle.
fn uart(device: &Device<'_>, controller: Option<u32>) -> Option<Uart> {
    let model = if device.is("arm,pl011") {
        UartModel::Pl011
    } else if device.is("ns16550") || device.is("ns16550a") {
        let shift = property_cells(&device.node, "reg-shift")
            .next()
            .unwrap_or(0);
        let width = property_cells(&device.node, "reg-io-width")
            .next()
            .unwrap_or(1);
        if width != 1 || shift > 3 {
            return None;
        }
        UartModel::Ns16550 { stride: 1 << shift }
    } else {
        return None;
    };
    if !device.is_enabled() {
        return None;
    }
    Some(Uart {
        window: device.registers().next()?,
        model,
        interrupt: controller.and_then(|controller| device.interrupt(controller)),
    })
}

/// The checked window of an `amazon,vmclock` node.
fn vmclock_window(device: &Device<'_>) -> Result<Window, Refusal> {
    if !device.is_enabled() {
        return Err(Refusal::Disabled);
    }
    let window = device.registers().next().ok_or(Refusal::Register)?;
    // The same checks as for ACPI, but for the memory map: the node itself takes the page out of it.
    window.check(&[]).map_err(Refusal::Window)?;
    Ok(window)
}

/// The widest range of 32-bit memory whose addresses are the same on both sides of the host.
fn pci_memory(device: &Device<'_>) -> Option<Window> {
    const SPACE: u32 = 3 << 24;
    const MEMORY_32: u32 = 2 << 24;
    let mut words = property_cells(&device.node, "ranges");
    let parent = device.parent()?;
    let wide = usize::try_from(address_cells(parent)).ok()?;
    let mut best: Option<Window> = None;
    while let (Some(flags), Some(child)) = (words.next(), number(&mut words, 2)) {
        let (Some(address), Some(length)) = (number(&mut words, wide), number(&mut words, 2))
        else {
            break;
        };
        let window = Window { address, length };
        let fits = address
            .checked_add(length)
            .is_some_and(|end| end <= 1 << 32);
        if flags & SPACE == MEMORY_32
            && child == address
            && fits
            && best.is_none_or(|best| best.length < length)
        {
            best = Some(window);
        }
    }
    best.filter(|_| device.translates_nothing())
}

/// What of `window` is not in `reserved`.
fn free_parts(window: Window, reserved: &[Window], add: &mut impl FnMut(MemoryRange)) {
    let end = |window: &Window| window.address.saturating_add(window.length);
    let mut start = window.address;
    // Each round passes one reserved range, so there are no more rounds than ranges and one.
    for _ in 0..=reserved.len() {
        let next = reserved
            .iter()
            .filter(|range| end(range) > start)
            .min_by_key(|range| range.address);
        let free_end = next
            .map_or(u64::MAX, |range| range.address)
            .min(end(&window));
        if free_end > start {
            add(MemoryRange {
                start,
                length: free_end - start,
                kind: MemoryKind::Usable,
            });
        }
        match next {
            Some(range) if end(range) < end(&window) => start = end(range),
            _ => break,
        }
    }
}

/// The interrupt controller, and what those who refer to it must know.
#[derive(Clone, Copy, Debug)]
struct Controller {
    gic: Gic,
    phandle: u32,
    address_cells: u32,
}

/// A node and the nodes above it.
struct Device<'a> {
    node: Node<'a>,
    /// From the root down.
    parents: [Option<Node<'a>>; DEPTH],
}

impl<'a> Device<'a> {
    fn is(&self, compatible: &str) -> bool {
        is_compatible(&self.node, &[compatible])
    }

    fn parent(&self) -> Option<&Node<'a>> {
        self.parents.iter().flatten().last()
    }

    fn parent_is(&self, name: &str) -> bool {
        self.parent().is_some_and(|parent| parent.is_named(name))
    }

    /// Whether neither its own `status` nor one above it says otherwise.
    fn is_enabled(&self) -> bool {
        let okay = |node: &Node<'a>| {
            strings(node, "status")
                .next()
                .is_none_or(|status| matches!(status, b"okay" | b"ok"))
        };
        self.parents.iter().flatten().all(okay) && okay(&self.node)
    }

    /// Whether its full path is `path`.
    fn has_path(&self, path: &str) -> bool {
        let mut names = path.split('/').skip(1);
        let mut is_next = |node: &Node<'a>| names.next().is_some_and(|name| node.is_named(name));
        let mut parents = self.parents.iter().flatten().skip(1);
        parents.all(&mut is_next) && is_next(&self.node) && names.next().is_none()
    }

    /// The blocks of its `reg`, at the CPU's addresses; ends at the first that has none.
    fn registers(&self) -> impl Iterator<Item = Window> {
        let (address_cells, size_cells) = self
            .parent()
            .map_or((0, 0), |parent| (address_cells(parent), size_cells(parent)));
        let mut words = property_cells(&self.node, "reg");
        let parents = self.parents;
        core::iter::from_fn(move || {
            let address = number(&mut words, usize::try_from(address_cells).ok()?)?;
            let length = number(&mut words, usize::try_from(size_cells).ok()?)?;
            translate(&parents, Window { address, length })
        })
    }

    /// Whether every bus above it passes addresses on as they are.
    fn translates_nothing(&self) -> bool {
        let mut buses = self.parents.iter().flatten().skip(1);
        buses.all(|bus| find(bus, "ranges").is_some_and(<[u8]>::is_empty))
    }

    /// Its first interrupt, if that goes to the controller with this phandle.
    fn interrupt(&self, controller: u32) -> Option<Interrupt> {
        let own = [self.node];
        let mut nodes = own.iter().chain(self.parents.iter().rev().flatten());
        let parent = nodes.find_map(|node| property_cells(node, "interrupt-parent").next())?;
        if parent != controller {
            return None;
        }
        interrupt(&mut property_cells(&self.node, "interrupts"))?
    }
}

/// The interrupt that the next three words mean to a GIC; the outer `None` where there are fewer, the
/// inner where they mean none.
#[expect(
    clippy::option_option,
    reason = "an end and a nonsense entry are not the same"
)]
fn interrupt(words: &mut impl Iterator<Item = u32>) -> Option<Option<Interrupt>> {
    const SHARED: u32 = 0;
    const PRIVATE: u32 = 1;
    let (kind, number, flags) = (words.next()?, words.next()?, words.next()?);
    let number = match (kind, number) {
        (SHARED, 0..988) => number + 32,
        (PRIVATE, 0..16) => number + 16,
        _ => return Some(None),
    };
    Some(Some(Interrupt {
        number,
        edge: flags & 3 != 0,
    }))
}

/// The CPU's address for `window` below all of `parents`; the root's children have it already.
fn translate(parents: &[Option<Node<'_>>; DEPTH], mut window: Window) -> Option<Window> {
    let level = |index: usize| parents.get(index).and_then(Option::as_ref);
    for index in (1..DEPTH).rev() {
        let (Some(bus), Some(above)) = (level(index), level(index - 1)) else {
            continue;
        };
        let ranges = find(bus, "ranges")?;
        if ranges.is_empty() {
            continue;
        }
        let [child, parent, size] = [address_cells(bus), address_cells(above), size_cells(bus)]
            .map(|cells| usize::try_from(cells).unwrap_or(usize::MAX));
        let mut words = cells(ranges);
        window.address = core::iter::from_fn(|| {
            let from = number(&mut words, child)?;
            let to = number(&mut words, parent)?;
            let length = number(&mut words, size)?;
            Some((from, to, length))
        })
        .find_map(|(from, to, length)| {
            let offset = window.address.checked_sub(from)?;
            let inside = offset.checked_add(window.length)? <= length;
            to.checked_add(offset).filter(|_| inside)
        })?;
    }
    Some(window)
}

/// A walk over the nodes that remembers what is above each.
struct Devices<'n, 'a> {
    nodes: Nodes<'a>,
    /// What the nodes are compatible with that matter, if not all do: passing over the others is much faster.
    wanted: &'n [&'n str],
    parents: [Option<Node<'a>>; DEPTH],
    left: usize,
}

impl<'a> Iterator for Devices<'_, 'a> {
    type Item = Device<'a>;

    // Once in the image.
    #[inline(never)]
    fn next(&mut self) -> Option<Device<'a>> {
        loop {
            let (depth, node) = self.nodes.next()?;
            // What is deeper is not looked at.
            let Some((above, below)) = self.parents.split_at_mut_checked(depth) else {
                continue;
            };
            let is_root = above.is_empty();
            below.fill(None);
            if !is_root {
                self.left = self.left.checked_sub(1)?;
                if self.wanted.is_empty() || is_compatible(&node, self.wanted) {
                    let parents = self.parents;
                    if let Some(place) = self.parents.get_mut(depth) {
                        *place = Some(node);
                    }
                    return Some(Device { node, parents });
                }
            }
            if let Some(place) = self.parents.get_mut(depth) {
                *place = Some(node);
            }
        }
    }
}

/// Whether a node is compatible with one of these.
fn is_compatible(node: &Node<'_>, wanted: &[&str]) -> bool {
    let mut names = split(node.compatible());
    names.any(|name| wanted.iter().any(|wanted| name == wanted.as_bytes()))
}

/// The first string of a property, if it is UTF-8.
fn text<'a>(node: &Node<'a>, name: &str) -> Option<&'a str> {
    strings(node, name)
        .next()
        .and_then(|bytes| core::str::from_utf8(bytes).ok())
}

/// The strings of a property, each without the zero byte that must end it.
fn strings<'a>(node: &Node<'a>, name: &str) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    split(value(node, name))
}

fn split(strings: &[u8]) -> impl Iterator<Item = &[u8]> {
    strings
        .split_inclusive(|&byte| byte == 0)
        .map_while(|string| string.strip_suffix(&[0]))
}

/// The big-endian words of a property; none if there is no such property.
fn property_cells<'a>(node: &Node<'a>, name: &str) -> impl Iterator<Item = u32> + use<'a> {
    cells(value(node, name))
}

fn value<'a>(node: &Node<'a>, name: &str) -> &'a [u8] {
    find(node, name).unwrap_or_default()
}

fn find<'a>(node: &Node<'a>, name: &str) -> Option<&'a [u8]> {
    node.property(name, PROPERTIES)
}

fn cells(value: &[u8]) -> impl Iterator<Item = u32> {
    let (words, _) = value.as_chunks();
    words.iter().map(|&word| u32::from_be_bytes(word))
}

/// A number of one or two words.
fn number(words: &mut impl Iterator<Item = u32>, cells: usize) -> Option<u64> {
    match cells {
        1 => words.next().map(u64::from),
        2 => Some(u64::from(words.next()?) << 32 | u64::from(words.next()?)),
        _ => None,
    }
}

/// `#address-cells` of a bus; two if it says nothing (Devicetree Specification §2.3.5).
fn address_cells(node: &Node<'_>) -> u32 {
    property_cells(node, "#address-cells").next().unwrap_or(2)
}

/// `#size-cells` of a bus; one if it says nothing.
fn size_cells(node: &Node<'_>) -> u32 {
    property_cells(node, "#size-cells").next().unwrap_or(1)
}

impl fmt::Display for Found<'_> {
    /// `ptp@42000000 (amazon,vmclock) at 0x42000000, 4096 bytes`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.node {
            Some(node) => write!(f, "{node} (amazon,vmclock) at {}", self.window),
            None => write!(f, "command line at {}", self.window),
        }
    }
}

impl fmt::Display for NotFound<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tree(bad) => write!(f, "not found: {bad}"),
            Self::Absent => f.write_str("not found: no device tree node is one"),
            Self::Refused { node, why } => write!(f, "{node} refused: {why}"),
            Self::Override { address, why } => {
                write!(f, "{address:#x} on the command line refused: {why}")
            }
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled => f.write_str("its status is not okay"),
            Self::Register => f.write_str("its reg is missing or cannot be translated"),
            Self::Window(why) => write!(f, "{why}"),
        }
    }
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("there is no device tree"),
            Self::Malformed(error) => write!(f, "the device tree is malformed: {error}"),
        }
    }
}

impl core::error::Error for NotFound<'_> {}
impl core::error::Error for Bad {}
