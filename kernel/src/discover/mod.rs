//! Discovery: what this machine says it has, above all where its vmclock page is.
//!
//! [`acpi`] reads the tables, [`aml`] the namespace they declare, [`resource`] the `_CRS` of a device; [`vmclock`] puts them
//! together and refuses, with a reason, every page that cannot be one. No address of any hypervisor is built in.

use core::fmt;

use acpi::{Bad, Tables};
use aml::{Namespace, NotConstant, Path, Unread, Value};
use resource::{Malformed, Resource, resources};

use crate::memory::{MemoryKind, MemoryRange};

pub mod acpi;
pub mod aml;
pub mod described;
pub mod fdt;
pub mod hardware;
pub mod loader;
pub mod resource;
pub mod tables;

/// Bytes in a page: the least a vmclock device maps, and the alignment of what it maps.
pub const PAGE: u64 = 4096;
/// Bytes of the largest window that is believed to be a vmclock page; producers use one page of 4 to 64 KiB.
pub const LARGEST_WINDOW: u64 = 1 << 20;
/// Devices that are considered; a machine has one.
pub const CANDIDATES: usize = 8;

/// Finds the vmclock page (UAPI.13 "Discovery"): at `address` if that is given (`vmclock=` on the command line), otherwise
/// at the first ACPI device that names itself a vmclock and describes a sane page.
///
/// # Errors
///
/// Why there is no page to be used: the reason for the first device refused, or what stood in the way of finding one.
pub fn vmclock(
    address: Option<u64>,
    tables: Result<&Tables<'_>, Bad>,
    map: &[MemoryRange],
) -> Result<Found, NotFound> {
    if let Some(address) = address {
        let window = Window {
            address,
            length: PAGE,
        };
        window
            .check(map)
            .map_err(|why| NotFound::Override { address, why })?;
        return Ok(Found {
            window,
            device: None,
            how: How::CommandLine,
        });
    }
    let blocks = tables.map_err(NotFound::Acpi)?.definition_blocks();
    let namespace = Namespace::new(blocks.aml());
    match vmclock_in(&namespace, map) {
        // What is missing may be in the table that could not be used.
        Err(NotFound::Absent) => Err(blocks.bad().map_or(NotFound::Absent, NotFound::Acpi)),
        result => result,
    }
}

/// The ACPI part of [`vmclock`], on a namespace alone.
///
/// # Errors
///
/// As [`vmclock`].
pub fn vmclock_in(namespace: &Namespace<'_>, map: &[MemoryRange]) -> Result<Found, NotFound> {
    let mut refused = None;
    for (device, how) in candidates(namespace) {
        match window(namespace, &device).and_then(|window| window.check(map).map(|()| window)) {
            Ok(window) => {
                return Ok(Found {
                    window,
                    device: Some(device),
                    how,
                });
            }
            Err(why) => refused = refused.or(Some(NotFound::Refused { device, why })),
        }
    }
    Err(refused
        .or_else(|| unread(namespace))
        .unwrap_or(NotFound::Absent))
}

/// Devices that name themselves a vmclock, whether usable or not, each once and at most [`CANDIDATES`].
pub fn candidates(namespace: &Namespace<'_>) -> impl Iterator<Item = (Path, How)> {
    let mut devices = [None; CANDIDATES];
    for (device, how) in namespace
        .identifiers(&|id| How::from_id(id).is_some())
        .filter_map(|(device, id)| Some((device, How::from_id(&id)?)))
    {
        let known = devices.iter().flatten().any(|(other, _)| *other == device);
        // A generic identifier says nothing alone.
        let genuine = how != How::Compatible || is_compatible(namespace, &device);
        match devices.iter_mut().find(|place| place.is_none()) {
            Some(place) if genuine && !known => *place = Some((device, how)),
            Some(_) => {}
            None => break,
        }
    }
    devices.into_iter().flatten()
}

/// A vmclock page that may be mapped: write-back and read-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where the page is.
    pub window: Window,
    /// The ACPI device that describes it; none if the command line does.
    pub device: Option<Path>,
    /// What gave it away.
    pub how: How,
}

/// A range of guest-physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First address, a multiple of [`PAGE`] once checked.
    pub address: u64,
    /// Bytes; a multiple of [`PAGE`], from one page to [`LARGEST_WINDOW`], once checked.
    pub length: u64,
}

/// How a vmclock page was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// `AMZNC10C` as `_HID` or `_CID`.
    HardwareId,
    /// `_CID` or `_HID` `VMCLOCK`.
    CompatibleId,
    /// `PRP0001` with `amazon,vmclock` among the `compatible` strings of its `_DSD`.
    Compatible,
    /// `vmclock=` on the command line.
    CommandLine,
}

/// Why there is no vmclock page to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotFound {
    /// There are no ACPI tables to search, or one that may describe it cannot be used.
    Acpi(Bad),
    /// No device names itself a vmclock.
    Absent,
    /// The name of a vmclock occurs in a part of the tables that was not read.
    Unread {
        /// The scope in which that part lies.
        scope: Path,
        /// Why it was not read.
        why: Unread,
    },
    /// The name of a vmclock occurs in the tables, but not as the constant identifier of a device.
    Mentioned,
    /// A device names itself a vmclock but cannot be used.
    Refused {
        /// The device.
        device: Path,
        /// Why.
        why: Refusal,
    },
    /// The address on the command line cannot be used.
    Override {
        /// That address.
        address: u64,
        /// Why.
        why: Refusal,
    },
}

/// Why a device, or the page it describes, cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its identifier stands in a scope that no `Device` declares.
    NoDevice,
    /// `_STA` of the device or one it is part of says that it is not there (bit 0 clear).
    NotPresent,
    /// `_STA` cannot be known.
    Status(NotConstant),
    /// `_STA` is not an integer.
    StatusType,
    /// A part of the device that may hold its `_STA` or `_CRS` was not read.
    Partial(Unread),
    /// It has no `_CRS`.
    NoResources,
    /// `_CRS` cannot be known.
    Resources(NotConstant),
    /// `_CRS` is not a buffer.
    ResourcesType,
    /// The resource template in `_CRS` is malformed, or its memory has no fixed place.
    Template(Malformed),
    /// Number of memory resources in `_CRS`; exactly one would be right.
    Memories(usize),
    /// The page is at address 0: a template that was to be filled in and was not.
    Null,
    /// The memory is 0 bytes long.
    Empty,
    /// The memory is not whole pages, or not at the start of one.
    Unaligned(Window),
    /// The memory is longer than [`LARGEST_WINDOW`].
    Large(Window),
    /// The memory ends beyond the 52 bits of a physical address.
    Beyond(Window),
    /// The memory overlaps RAM that the memory map leaves to the guest.
    Ram(Window, MemoryRange),
}

impl Window {
    /// Whether this may be a vmclock page on a machine with this memory map (UAPI.13: not in `AddressRangeMemory` nor
    /// `AddressRangeACPI`).
    ///
    /// # Errors
    ///
    /// Why it may not.
    pub fn check(&self, map: &[MemoryRange]) -> Result<(), Refusal> {
        let Self { address, length } = *self;
        if length == 0 {
            return Err(Refusal::Empty);
        }
        if address == 0 {
            return Err(Refusal::Null);
        }
        if address % PAGE != 0 || length % PAGE != 0 {
            return Err(Refusal::Unaligned(*self));
        }
        if length > LARGEST_WINDOW {
            return Err(Refusal::Large(*self));
        }
        if address.checked_add(length).is_none_or(|end| end > 1 << 52) {
            return Err(Refusal::Beyond(*self));
        }
        let taken =
            |range: &&MemoryRange| matches!(range.kind, MemoryKind::Usable | MemoryKind::Acpi);
        match map
            .iter()
            .filter(taken)
            .find(|range| range.overlaps(address, length))
        {
            Some(range) => Err(Refusal::Ram(*self, *range)),
            None => Ok(()),
        }
    }
}

/// The one memory resource of a device that is present.
fn window(namespace: &Namespace<'_>, device: &Path) -> Result<Window, Refusal> {
    let mut paths = [Path::ROOT; 2 + aml::SEGMENTS];
    let [declared, resources_path, status_paths @ ..] = &mut paths;
    (*declared, *resources_path) = (*device, child_path(device, *b"_CRS"));
    *status_paths = statuses(device);
    let [declared, object, statuses @ ..] = namespace.find_each(paths);
    if declared.is_none() && !device.is_predefined() {
        return Err(Refusal::NoDevice);
    }
    check_whole(namespace, device)?;
    check_statuses(namespace, &statuses)?;
    let object = object.ok_or(Refusal::NoResources)?;
    let Value::Buffer(template) = namespace.evaluate(&object).map_err(Refusal::Resources)? else {
        return Err(Refusal::ResourcesType);
    };
    let (mut memory, mut count) = (None, 0);
    for resource in resources(template) {
        if let Resource::Memory(described) = resource.map_err(Refusal::Template)? {
            memory = Some(described);
            count += 1;
        }
    }
    let memory = memory
        .filter(|_| count == 1)
        .ok_or(Refusal::Memories(count))?;
    let (address, length) = memory.window().map_err(Refusal::Template)?;
    // When the budget went, what was looked for after it was missed.
    if namespace.is_spent() {
        return Err(Refusal::Partial(Unread::Budget));
    }
    Ok(Window { address, length })
}

/// An object that was not found may still be there, if something was skipped: then neither the lack of a `_STA` nor the
/// first `_CRS` can be relied on.
fn check_whole(namespace: &Namespace<'_>, device: &Path) -> Result<(), Refusal> {
    const DECISIVE: [[u8; 4]; 2] = [*b"_STA", *b"_CRS"];
    let decides = |bytes: &[u8]| {
        let mut names = bytes.windows(4);
        names.any(|name| DECISIVE.iter().any(|decisive| name == decisive))
    };
    let mut skipped = namespace.skipped_for(&DECISIVE);
    let within = skipped.find(|skipped| skipped.scope == *device && decides(skipped.bytes));
    within.map_or(Ok(()), |skipped| Err(Refusal::Partial(skipped.why)))
}

/// Where the status of the device would stand, and then those of what it is part of; the root has none.
#[inline(never)]
fn statuses(device: &Path) -> [Path; aml::SEGMENTS] {
    let mut paths = [Path::ROOT; aml::SEGMENTS];
    let mut above = Some(*device);
    for path in &mut paths {
        let Some(place) = above.filter(|place| place == device || !place.is_root()) else {
            break;
        };
        *path = child_path(&place, *b"_STA");
        above = place.parent();
    }
    paths
}

/// A device is present if its `_STA` says so or it has none, and the same holds for all it is part of (ACPI 6.5 §6.3.7).
/// These are what was found at its [`statuses`].
#[inline(never)]
fn check_statuses(
    namespace: &Namespace<'_>,
    [own, buses @ ..]: &[Option<aml::Object<'_>>; aml::SEGMENTS],
) -> Result<(), Refusal> {
    let is_absent = |status: u64| status & 1 == 0;
    if let Some(own) = own
        && is_absent(status(namespace, own)?)
    {
        return Err(Refusal::NotPresent);
    }
    // A bus whose status is computed is common on real machines and no reason to doubt the device.
    let buses = buses.iter().flatten();
    let mut known = buses.filter_map(|bus| status(namespace, bus).ok());
    if known.any(is_absent) {
        return Err(Refusal::NotPresent);
    }
    Ok(())
}

/// The value of a `_STA`.
#[inline(never)]
fn status<'a>(namespace: &Namespace<'a>, object: &aml::Object<'a>) -> Result<u64, Refusal> {
    match namespace.evaluate(object).map_err(Refusal::Status)? {
        Value::Integer(status) => Ok(status),
        _ => Err(Refusal::StatusType),
    }
}

/// Whether a device's `_DSD` has device properties with `amazon,vmclock` among its `compatible` strings.
fn is_compatible(namespace: &Namespace<'_>, device: &Path) -> bool {
    let data =
        child(namespace, device, *b"_DSD").and_then(|object| namespace.evaluate(&object).ok());
    let Some(Value::Package(data)) = data else {
        return false;
    };
    let mut data = data.values();
    // Pairs of a UUID and a package that it gives a meaning to.
    while let (Some(uuid), Some(properties)) = (data.next(), data.next()) {
        let (Value::Buffer(uuid), Value::Package(properties)) = (uuid, properties) else {
            continue;
        };
        if uuid == DEVICE_PROPERTIES && properties.values().any(|property| names_vmclock(&property))
        {
            return true;
        }
    }
    false
}

/// Whether a property, a package of a key and a value, is `compatible` with `amazon,vmclock`.
fn names_vmclock(property: &Value<'_>) -> bool {
    let Value::Package(property) = *property else {
        return false;
    };
    let mut property = property.values();
    let (Some(Value::Text("compatible")), Some(value)) = (property.next(), property.next()) else {
        return false;
    };
    let is_vmclock = |value: &Value<'_>| matches!(value, Value::Text("amazon,vmclock"));
    match value {
        Value::Package(values) => values.values().any(|value| is_vmclock(&value)),
        value => is_vmclock(&value),
    }
}

/// The part of the tables, if any, that names a vmclock or may, but tells nothing of it.
fn unread(namespace: &Namespace<'_>) -> Option<NotFound> {
    let names: [&[u8]; 3] = [b"AMZNC10C", b"VMCLOCK", b"amazon,vmclock"];
    let mentions = |bytes: &[u8]| {
        names
            .iter()
            .any(|name| bytes.windows(name.len()).any(|window| window == *name))
    };
    let mut skipped = namespace.entries().filter_map(aml::Entry::skipped);
    match skipped.find(|skipped| skipped.why == Unread::Budget || mentions(skipped.bytes)) {
        Some(skipped) => Some(NotFound::Unread {
            scope: skipped.scope,
            why: skipped.why,
        }),
        None => namespace
            .blocks()
            .iter()
            .any(|block| mentions(block))
            .then_some(NotFound::Mentioned),
    }
}

fn child<'a>(namespace: &Namespace<'a>, device: &Path, name: [u8; 4]) -> Option<aml::Object<'a>> {
    namespace.find(&device.child(name)?)
}

/// The path of a device's object; the root, which is none, where that is too deep to be read.
fn child_path(device: &Path, name: [u8; 4]) -> Path {
    device.child(name).unwrap_or(Path::ROOT)
}

/// The UUID of device properties in a `_DSD`, daffd814-6eba-4d8c-8a91-bc9bbf4aa301, as its bytes lie in a table.
const DEVICE_PROPERTIES: [u8; 16] = [
    0x14, 0xd8, 0xff, 0xda, 0xba, 0x6e, 0x8c, 0x4d, 0x8a, 0x91, 0xbc, 0x9b, 0xbf, 0x4a, 0xa3, 0x01,
];

impl How {
    fn from_id(id: &aml::Id<'_>) -> Option<Self> {
        let known = [
            ("AMZNC10C", Self::HardwareId),
            ("VMCLOCK", Self::CompatibleId),
            ("PRP0001", Self::Compatible),
        ];
        known
            .into_iter()
            .find(|(name, _)| id.is(name))
            .map(|(_, how)| how)
    }
}

impl fmt::Display for Found {
    /// `\_SB.VCLK (AMZNC10C) at 0xfeffb000, 4096 bytes`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.device {
            Some(device) => write!(f, "{device} ({}) at {}", self.how, self.window),
            None => write!(f, "{} at {}", self.how, self.window),
        }
    }
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HardwareId => "AMZNC10C",
            Self::CompatibleId => "VMCLOCK",
            Self::Compatible => "amazon,vmclock",
            Self::CommandLine => "command line",
        })
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}, {} bytes", self.address, self.length)
    }
}

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Acpi(bad) => write!(f, "not found: {bad}"),
            Self::Absent => f.write_str("not found: no acpi device is one"),
            Self::Unread { scope, why } => write!(f, "not found: {scope} has {why}"),
            Self::Mentioned => f.write_str(
                "not found: it is named in the acpi tables, but not as a constant of a device",
            ),
            Self::Refused { device, why } => write!(f, "{device} refused: {why}"),
            Self::Override { address, why } => {
                write!(f, "{address:#x} on the command line refused: {why}")
            }
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDevice => f.write_str("it is not declared as a device"),
            Self::NotPresent => f.write_str("its _STA says that it is not present"),
            Self::Status(why) | Self::Resources(why) => write!(f, "{why}"),
            Self::StatusType => f.write_str("its _STA is not an integer"),
            Self::Partial(why) => write!(f, "it has {why}"),
            Self::NoResources => f.write_str("it has no _CRS"),
            Self::ResourcesType => f.write_str("its _CRS is not a buffer"),
            Self::Template(why) => write!(f, "{why}"),
            Self::Memories(0) => f.write_str("its _CRS has no memory"),
            Self::Memories(count) => write!(f, "its _CRS has {count} memory ranges instead of one"),
            Self::Null => f.write_str("its memory is at address 0"),
            Self::Empty => f.write_str("its memory is 0 bytes long"),
            Self::Unaligned(window) => {
                write!(f, "its memory at {window}, is not whole pages of {PAGE}")
            }
            Self::Large(window) => {
                write!(f, "its memory at {window}, is more than {LARGEST_WINDOW}")
            }
            Self::Beyond(window) => write!(
                f,
                "its memory at {window}, is beyond all physical addresses"
            ),
            Self::Ram(window, range) => {
                let MemoryRange {
                    start,
                    length,
                    kind,
                } = range;
                write!(
                    f,
                    "its memory at {window}, overlaps {kind} at {start:#x}, {length} bytes"
                )
            }
        }
    }
}

impl core::error::Error for NotFound {}
impl core::error::Error for Refusal {}
