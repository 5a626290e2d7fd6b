//! What both platforms look for in the same way: the vmclock page, the network device, the host's clock and its
//! random numbers, the host's files.

use core::cell::RefCell;
use core::fmt::{self, Display, Write};

use gnomon_arch::dev::fw_cfg::{Access, FwCfg};
use gnomon_arch::dev::net;
use gnomon_arch::dev::pci::{ConfigAccess, Function, Pci};
use gnomon_arch::dev::rng::{self, Rng};
use gnomon_arch::dev::rtc::{self, Rtc};
use gnomon_arch::dev::virtio::pci::{PciTransport, Wake};
use gnomon_arch::dev::virtio::{self, Transport};
use gnomon_arch::machine::mmu::{Kind, Mmu};
use gnomon_arch::machine::{counter, trap};
use gnomon_clock::{Counter, Source, VmclockPage};
use gnomon_kernel::discover::Window;
use gnomon_kernel::discover::acpi::{Table, Tables};
use gnomon_kernel::memory::MemoryRange;
use gnomon_kernel::random::generator::Generator;
use gnomon_kernel::serve::auth::Keys;
use gnomon_kernel::source::Driver;
use gnomon_kernel::source::virtio_rtc::VirtioRtc;
use gnomon_kernel::text::Text;

use crate::glue::{Nic, Numbers, Requests};
use crate::{layout, platform};

/// The vmclock page, and where it is or why there is none.
pub(crate) struct Page {
    /// The page, mapped.
    pub(crate) mapped: Option<&'static VmclockPage>,
    /// Where it is.
    pub(crate) window: Option<Window>,
    text: Text<192>,
}

impl Page {
    /// Where the page is, or why there is none.
    pub(crate) fn place(&self) -> Result<&str, &str> {
        match self.mapped {
            Some(_) => Ok(self.text.as_str()),
            None => Err(self.text.as_str()),
        }
    }
}

/// Maps the page that discovery found, write-back and read-only (UAPI.13 "Discovery"), or keeps why it
/// found none.
pub(crate) fn page(
    found: Result<(Window, &dyn Display), &dyn Display>,
    mmu: &RefCell<Mmu>,
) -> Page {
    let none = |why: &dyn Display| Page {
        mapped: None,
        window: None,
        text: Text::of(why),
    };
    let (Window { address, length }, text) = match found {
        Ok(found) => found,
        Err(why) => return none(why),
    };
    if let Err(why) = mmu.borrow_mut().map(address, length, Kind::ReadOnly) {
        return none(&why);
    }
    if !trap::answers(address) {
        return none(&format_args!(
            "{text} refused: there is nothing at that address"
        ));
    }
    // SAFETY: the window is mapped, at least a page long and aligned; it is none of our own memory, or
    // mapping it would have been refused; the type is made of atomics, so the host may write it at
    // any time.
    let page = unsafe { &*(address as *const VmclockPage) };
    Page {
        mapped: Some(page),
        window: Some(Window { address, length }),
        text: Text::of(text),
    }
}

/// What became of the search for a network device.
pub(crate) enum Network {
    /// The first one runs; so many others are left alone.
    Running(Text<32>, usize),
    /// There is one, and it cannot be used.
    Refused(Text<32>, virtio::Error),
    /// There is none in these places.
    Absent(&'static str),
}

impl Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running(at, 0) => write!(f, "virtio-net, {at}"),
            Self::Running(at, others) => {
                write!(f, "virtio-net, {at}, the first of {}", others + 1)
            }
            Self::Refused(at, why) => write!(f, "virtio-net, {at}, refused: {why}"),
            Self::Absent(places) => write!(f, "no virtio-net device on {places}"),
        }
    }
}

/// Starts the first virtio network device on PCI, whose buses begin at `first_bus`, and says what
/// became of it. `reach` makes a bus's configuration space accessible and says whether it is; `prepare`
/// sees to it that the device has addresses, and says how it wakes the CPU. A line for each function goes to `facts`.
pub(crate) fn nic_on_pci(
    access: &dyn ConfigAccess,
    first_bus: u8,
    reach: impl FnMut(u8) -> bool,
    mmu: &RefCell<Mmu>,
    prepare: impl FnOnce(&Pci<'_>, Function) -> Wake,
    facts: &mut dyn Write,
) -> (Option<Nic>, Network) {
    let pci = Pci(access);
    let (mut first, mut others) = (None, 0);
    pci.walk(first_bus, reach, |function, vendor, device| {
        // What does not fit is not told.
        let _ = writeln!(facts, "{function}     {vendor:04x}:{device:04x}");
        if net::is_nic(vendor, device) {
            match first {
                None => first = Some(function),
                Some(_) => others += 1,
            }
        }
    });
    let Some(function) = first else {
        return (None, Network::Absent("PCI"));
    };
    let wake = prepare(&pci, function);
    let mmu = &mut mmu.borrow_mut();
    let started = PciTransport::new(&pci, function, mmu, wake, net::CONFIGURATION);
    let at = format_args!("PCI {function}");
    started_nic(started.map(platform::wire), &at, others)
}

/// Starts the first of `others` and one network devices, and says what became of it.
pub(crate) fn started_nic(
    wire: Result<platform::Wire, virtio::Error>,
    at: &dyn Display,
    others: usize,
) -> (Option<Nic>, Network) {
    let at = Text::of(at);
    match wire.and_then(Nic::new) {
        Ok(nic) => (Some(nic), Network::Running(at, others)),
        Err(why) => (None, Network::Refused(at, why)),
    }
}

/// Notes ACPI's tables, the definition blocks among them.
pub(crate) fn tables(tables: &Tables<'_>, facts: &mut dyn Write) -> fmt::Result {
    let row = |table: &Table<'_>, facts: &mut dyn Write| {
        let (name, maker) = (table.signature, table.oem_table_id());
        let (name, maker) = (name.escape_ascii(), maker.trim_ascii().escape_ascii());
        let (address, length) = (table.address, table.bytes.len());
        writeln!(facts, "{name}        {address:#x}, {length} bytes, {maker}")
    };
    let blocks = tables.definition_blocks();
    if let Some(dsdt) = blocks.tables().find(|table| table.signature == *b"DSDT") {
        row(dsdt, facts)?;
    }
    for table in tables.iter() {
        match table {
            Ok(table) => row(&table, facts)?,
            Err(why) => writeln!(facts, "refused     {why}")?,
        }
    }
    Ok(())
}

/// Notes the memory map, and where the image lies.
pub(crate) fn memory(map: &[MemoryRange], facts: &mut dyn Write) {
    // What does not fit is not told.
    for MemoryRange {
        start,
        length,
        kind,
    } in map
    {
        let last = start.saturating_add(length.saturating_sub(1));
        let _ = writeln!(facts, "{start:#014x} to {last:#014x}  {kind}");
    }
    let (start, end) = layout::image();
    let (last, size) = (end - 1, (end - start) / 1024);
    let _ = writeln!(
        facts,
        "{start:#014x} to {last:#014x}  this image, with its stack: {size} KiB, and never more"
    );
}

/// Adds the NTP server's keys that the host gives in a file of its firmware configuration device, in
/// chrony's format. No key is ever told to `warn`.
pub(crate) fn ntp_keys(
    device: Option<FwCfg<impl Access>>,
    keys: &mut Keys,
    warn: &mut dyn FnMut(&dyn Display),
) {
    const NAME: &str = "opt/org.gnomon/ntp.keys";
    /// Enough for all keys that there is room for, with a comment to each.
    const LENGTH_MAX: usize = 4096;
    let Some((device, file)) = device.and_then(|device| {
        let file = device.find(NAME)?;
        Some((device, file))
    }) else {
        return;
    };
    let mut bytes = [0; LENGTH_MAX];
    let length = usize::try_from(file.length).unwrap_or(usize::MAX);
    let Some(bytes) = bytes.get_mut(..length) else {
        warn(&format_args!(
            "ntp key file: ignored, it is longer than {LENGTH_MAX} bytes"
        ));
        return;
    };
    device.read(file, bytes);
    keys.parse_file(bytes, &mut |warning| warn(&warning));
}

/// What became of the search for a source of time.
pub(crate) enum Finding<'a> {
    /// It can be asked.
    Present(&'a mut dyn Driver),
    /// It does not exist, and why.
    Absent(Source, &'static str),
}

impl<'a> Finding<'a> {
    /// The outcome for `source`.
    pub(crate) fn of(source: Source, found: &'a mut Result<impl Driver, &'static str>) -> Self {
        match found {
            Ok(driver) => Self::Present(driver),
            Err(why) => Self::Absent(source, why),
        }
    }
}

/// The host's clock behind virtio-rtc, or why there is none.
pub(crate) type HostClock = Result<VirtioRtc<Requests>, &'static str>;

/// The entropy device, if there is one that works, and why the one there is does not.
pub(crate) type HostRandom = Result<Option<Generator<Numbers>>, virtio::Error>;

/// Starts the first virtio real-time clock and the first entropy device on PCI. `reach` is as for [`nic_on_pci`],
/// and `prepare` sees to it that a device has addresses.
pub(crate) fn host_on_pci(
    access: &dyn ConfigAccess,
    first_bus: u8,
    reach: impl FnMut(u8) -> bool,
    mmu: &RefCell<Mmu>,
    mut prepare: impl FnMut(&Pci<'_>, Function),
) -> (HostClock, HostRandom) {
    let pci = Pci(access);
    let (mut clock, mut random) = (None, None);
    pci.walk(first_bus, reach, |function, vendor, device| {
        let first = match () {
            () if rtc::is_rtc(vendor, device) => &mut clock,
            () if rng::is_rng(vendor, device) => &mut random,
            () => return,
        };
        *first = first.or(Some(function));
    });
    let mut start = |function| {
        prepare(&pci, function);
        PciTransport::new(&pci, function, &mut mmu.borrow_mut(), Wake::Never, 0)
    };
    let clock = clock.ok_or(NO_CLOCK).and_then(|function| {
        let at = format_args!("PCI {function}");
        started_clock(start(function), &at)
    });
    (clock, started_random(random.map(start)))
}

/// There is none in the places looked at.
pub(crate) const NO_CLOCK: &str = "no such device";

/// What became of starting the clock behind a transport.
pub(crate) fn started_clock(
    transport: Result<impl Transport, virtio::Error>,
    at: &dyn Display,
) -> HostClock {
    let rtc = transport.and_then(Rtc::new).map_err(virtio::Error::words)?;
    Ok(VirtioRtc::new(
        Requests(rtc),
        counter_id(counter::this_cpu()),
        at,
    ))
}

/// What became of starting the entropy device behind a transport, if there is one.
pub(crate) fn started_random(
    transport: Option<Result<impl Transport, virtio::Error>>,
) -> HostRandom {
    let device = transport.map(|transport| transport.and_then(Rng::new));
    Ok(device.transpose()?.map(|rng| Generator::new(Numbers(rng))))
}

fn counter_id<C: Counter>(_: C) -> gnomon_clock::CounterId {
    C::ID
}
