//! What tells that the host has updated the page: on a PC an interrupt of ACPI's, for the smoke test only.

use gnomon_arch::machine::interrupt::Interrupts;
use gnomon_arch::machine::io::{self, GeneralEvent};
use gnomon_arch::machine::io_apic::{IoApic, Line};
use gnomon_kernel::discover::acpi::{Space, Tables};
use gnomon_kernel::discover::notification::{EVENTS, Event, Events};
use gnomon_kernel::discover::tables::Madt;
use gnomon_kernel::discover::{Window, hardware};
use gnomon_kernel::memory::MemoryKind;
use gnomon_kernel::smoke::machine::Notice;
use heapless::Vec;

use super::Firmware;

/// Looks for the notification.
pub(crate) enum Notifier {
    /// On these ways.
    Watching(Vec<Way, EVENTS>),
    /// There is nothing to look for, and this is what is found instead.
    Without(Notice),
}

/// A line that is watched, and the event that has to have happened when it raises its interrupt, if it is for several.
pub(crate) struct Way {
    io_apic: IoApic,
    line: Line,
    place: u8,
    event: Option<GeneralEvent>,
}

impl Notifier {
    /// Begins to look for what ACPI says of this page.
    #[inline(never)]
    pub(super) fn new(
        tables: Option<&Tables<'_>>,
        interrupts: &Interrupts,
        page: Option<Window>,
        firmware: &Firmware<'_>,
    ) -> Self {
        let mut ways = Vec::new();
        let begun = begin(&mut ways, tables, interrupts, page, firmware);
        let watching = Self::Watching(ways);
        match begun {
            Ok(()) => watching,
            Err(notice) => {
                watching.end(interrupts);
                Self::Without(notice)
            }
        }
    }

    /// Looks for it.
    #[inline(never)]
    pub(crate) fn look(&self, interrupts: &Interrupts) -> Notice {
        let ways = match self {
            Self::Watching(ways) => ways,
            Self::Without(notice) => return *notice,
        };
        let raised = interrupts.watched();
        let mut notice = Notice::None;
        for way in ways {
            let has_happened = (way.event.as_ref()).is_none_or(GeneralEvent::has_happened);
            if raised >> way.place & 1 != 0 && has_happened {
                notice = Notice::Arrived;
                if let Some(event) = &way.event {
                    event.forget();
                }
            }
        }
        notice
    }

    /// Ends it.
    pub(crate) fn end(&self, interrupts: &Interrupts) {
        let Self::Watching(ways) = self else {
            return;
        };
        for way in ways {
            if let Some(event) = &way.event {
                event.enable(false);
            }
            interrupts.leave(&way.io_apic, way.line);
        }
    }
}

/// Begins to watch every way in which ACPI tells of updates.
fn begin(
    ways: &mut Vec<Way, EVENTS>,
    tables: Option<&Tables<'_>>,
    interrupts: &Interrupts,
    page: Option<Window>,
    firmware: &Firmware<'_>,
) -> Result<(), Notice> {
    let tables = tables.ok_or(Notice::Unknown("there is no ACPI"))?;
    let events = Events::of(tables, page, firmware.boot.memory())?;
    let madt = tables.find(*b"APIC").map(Madt);
    let madt = madt.map_err(|_| Notice::Unknown("ACPI has no usable MADT"))?;
    for (place, event) in (0..).zip(events.iter()) {
        let (line, event) = match event {
            Event::Interrupt(line) => (line, None),
            Event::General(number) => {
                let found = general_event(tables, &madt, number);
                let why = "its GPE is not one of I/O ports that the FADT names";
                let (line, event) = found.ok_or(Notice::Unknown(why))?;
                (line, Some(event))
            }
        };
        let io_apic = io_apic(&madt, line, firmware);
        let io_apic = io_apic.ok_or(Notice::Unknown("no I/O APIC for it answers"))?;
        let hardware::Line { number, edge, low } = line;
        let line = Line { number, edge, low };
        // Several events may share their interrupt.
        let same = ways.iter().find(|way| way.line == line);
        let place = same.map_or(place, |way| way.place);
        if !interrupts.watch(&io_apic, line, place) {
            return Err(Notice::Unknown("its interrupt cannot be routed"));
        }
        if let Some(event) = &event {
            event.enable(true);
        }
        // There is room for as many as there are events.
        let _ = ways.push(Way {
            io_apic,
            line,
            place,
            event,
        });
    }
    Ok(())
}

/// The interrupt and the bits of a general-purpose event.
fn general_event(
    tables: &Tables<'_>,
    madt: &Madt<'_>,
    number: u8,
) -> Option<(hardware::Line, GeneralEvent)> {
    let fadt = tables.fadt().ok()?;
    let bits = fadt
        .event(number)
        .filter(|bits| bits.space == Space::Port && !fadt.is_hardware_reduced())?;
    let line = madt.system_control_interrupt(fadt.system_control_interrupt()?);
    let control = fadt
        .pm1a_control()
        .filter(|control| control.space == Space::Port)?;
    let control = u16::try_from(control.address).ok()?;
    let (status, enable) = (bits.status.try_into().ok()?, bits.enable.try_into().ok()?);
    // SAFETY: the FADT says that these are its ports.
    let is_possible = unsafe { io::enter_acpi_mode(control, fadt.acpi_enable()) };
    // SAFETY: as above.
    let event = unsafe { GeneralEvent::new(status, enable, bits.mask) };
    is_possible.then_some((line, event))
}

/// The I/O APIC of a line, if it answers.
fn io_apic(madt: &Madt<'_>, line: hardware::Line, firmware: &Firmware<'_>) -> Option<IoApic> {
    /// Bytes that hold its registers.
    const LENGTH: u64 = 0x20;
    let found = madt.io_apic(line.number)?;
    let address = u64::from(found.address);
    let mut memory = firmware.boot.memory().iter();
    let is_memory = memory.any(|range| {
        let is_ram = matches!(range.kind, MemoryKind::Usable | MemoryKind::Acpi);
        is_ram && range.overlaps(address, LENGTH)
    });
    if is_memory || !address.is_multiple_of(16) {
        return None;
    }
    let mut mmu = firmware.mmu.borrow_mut();
    // SAFETY: the MADT says that it is there; nobody else here drives one, and each of its lines has one owner.
    unsafe { IoApic::new(address, found.first, &mut mmu) }.ok()?
}
