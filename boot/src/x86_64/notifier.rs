//! What tells that the host has updated the page: on a PC an interrupt of ACPI's, for the smoke test only.

use gnomon_arch::machine::interrupt::Interrupts;
use gnomon_arch::machine::io::{self, GeneralEvent};
use gnomon_arch::machine::io_apic::{IoApic, Line};
use gnomon_kernel::discover::acpi::Tables;
use gnomon_kernel::discover::notification::{EVENTS, Events, Wire};
use gnomon_kernel::discover::{Window, hardware};
use gnomon_kernel::smoke::machine::Notice;
use heapless::Vec;

use super::Firmware;

/// Looks for the notification.
pub(crate) struct Notifier {
    /// On these ways.
    ways: Vec<Way, EVENTS>,
    /// There is nothing to look for, and this is what is found instead.
    without: Option<Notice>,
}

/// A line that is watched, and the event that has to have happened when it raises its interrupt, if it is for several.
struct Way {
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
        let mut notifier = Self {
            ways: Vec::new(),
            without: None,
        };
        let begun = notifier.begin(tables, interrupts, page, firmware);
        if let Err(notice) = begun {
            notifier.end(interrupts);
            notifier.without = Some(notice);
        }
        notifier
    }

    /// Begins to watch every way in which ACPI tells of updates.
    fn begin(
        &mut self,
        tables: Option<&Tables<'_>>,
        interrupts: &Interrupts,
        page: Option<Window>,
        firmware: &Firmware<'_>,
    ) -> Result<(), Notice> {
        let tables = tables.ok_or(Notice::Unknown("there is no ACPI"))?;
        let map = firmware.boot.memory();
        for event in Events::of(tables, page, map)?.iter() {
            let wire = Wire::of(event, tables, map)?;
            let way = Way::new(&wire, firmware)
                .ok_or(Notice::Unknown("its I/O APIC or its GPE does not answer"))?;
            // Several events may share their interrupt.
            let place = self.ways.iter().position(|other| other.line == way.line);
            let [place, ..] = place.unwrap_or(self.ways.len()).to_le_bytes();
            if !interrupts.watch(&way.io_apic, way.line, place) {
                return Err(Notice::Unknown("its interrupt cannot be routed"));
            }
            if let Some(event) = &way.event {
                event.enable(true);
            }
            // There is room for as many as there are events.
            let _ = self.ways.push(Way { place, ..way });
        }
        Ok(())
    }

    /// Looks for it.
    #[inline(never)]
    pub(crate) fn look(&self, interrupts: &Interrupts) -> Notice {
        if let Some(notice) = self.without {
            return notice;
        }
        let raised = interrupts.watched();
        let mut notice = Notice::None;
        for way in &self.ways {
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
        for way in &self.ways {
            if let Some(event) = &way.event {
                event.enable(false);
            }
            interrupts.leave(&way.io_apic, way.line);
        }
    }
}

impl Way {
    /// Takes what the wire consists of, if it answers.
    fn new(wire: &Wire, firmware: &Firmware<'_>) -> Option<Self> {
        let hardware::Line { number, edge, low } = wire.line;
        let mut mmu = firmware.mmu.borrow_mut();
        let hardware::IoApic { address, first } = wire.io_apic;
        // SAFETY: the MADT says that it is there; nobody else here drives one, and each of its lines has one owner.
        let io_apic = unsafe { IoApic::new(address.into(), first, &mut mmu) }.ok()??;
        let event = wire.event.as_ref().map(|event| {
            // SAFETY: the FADT says that these are its ports.
            let is_possible = unsafe { io::enter_acpi_mode(event.control, event.order) };
            // SAFETY: as above.
            let event = unsafe { GeneralEvent::new(event.status, event.enable, event.mask) };
            Some(event).filter(|_| is_possible)
        });
        Some(Self {
            io_apic,
            line: Line { number, edge, low },
            place: 0,
            event: match event {
                None => None,
                Some(event) => Some(event?),
            },
        })
    }
}
