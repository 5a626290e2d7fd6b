//! How ACPI tells that the host has updated the vmclock page: it notifies the device, by a method that is run when an interrupt
//! of a generic event device arrives (GED, ACPI 6.5 §5.6.9), or when a general-purpose event happens (GPE, §5.6.4).
//!
//! Nothing is run. What is looked for are the interrupts and events whose methods may notify the device, as far as reading
//! tells ([`Notifiers`]).

use super::acpi::{Space, Tables};
use super::aml::{Kind, Namespace, Notifiers, Path, Value};
use super::described::{Device, visit_in};
use super::hardware::{IoApic, Line};
use super::resource::lines;
use super::tables::Madt;
use super::{Window, child, child_path, vmclock};
use crate::memory::{MemoryKind, MemoryRange};

/// Ways of being told that are watched.
pub const EVENTS: usize = 8;

/// One way of being told of updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// An interrupt of a generic event device.
    Interrupt(Line),
    /// The general-purpose event of this number.
    General(u8),
}

/// Why there is no telling how updates are told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untold {
    /// The page is not the one that a device of ACPI's describes.
    Elsewhere,
    /// No code notifies the device.
    Never,
    /// This is in the way.
    Because(&'static str),
}

/// The ways in which updates of this page are told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events([Option<Event>; EVENTS]);

impl Events {
    /// Reads the tables for them.
    ///
    /// # Errors
    /// Why none is known.
    #[inline(never)]
    pub fn of(
        tables: &Tables<'_>,
        page: Option<Window>,
        map: &[MemoryRange],
    ) -> Result<Self, Untold> {
        let found = vmclock(None, Ok(tables), map).ok();
        let found = found.filter(|found| Some(found.window) == page);
        let device = found
            .and_then(|found| found.device)
            .ok_or(Untold::Elsewhere)?;
        let blocks = tables.definition_blocks();
        let namespace = Namespace::new(blocks.aml());
        let events = Self::in_namespace(&namespace, &device);
        match blocks.bad() {
            // What is missing may be in the table that could not be used.
            Some(_) if events == Err(Untold::Never) => {
                Err(Untold::Because("not all of ACPI's tables can be read"))
            }
            _ => events,
        }
    }

    /// The same for a device of a namespace.
    ///
    /// # Errors
    /// Why none is known.
    pub fn in_namespace(namespace: &Namespace<'_>, device: &Path) -> Result<Self, Untold> {
        let notifiers = Notifiers::of(namespace, device);
        let mut events = Self::default();
        events.find_interrupts(namespace, &notifiers)?;
        events.find_general(namespace, &notifiers)?;
        if namespace.is_spent() {
            return Err(Untold::Because("ACPI's tables take too long to read"));
        }
        match events.iter().next() {
            Some(_) => Ok(events),
            None if notifiers.is_mentioned() => Err(Untold::Because(
                "ACPI's code that may notify it needs an interpreter",
            )),
            None => Err(Untold::Never),
        }
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = Event> {
        self.0.into_iter().flatten()
    }

    fn add(&mut self, event: Event) -> Result<(), Untold> {
        if self.iter().any(|other| other == event) {
            return Ok(());
        }
        let free = self.0.iter_mut().find(|place| place.is_none());
        *free.ok_or(Untold::Because("too many interrupts may notify it"))? = Some(event);
        Ok(())
    }

    /// Those of the generic event devices.
    fn find_interrupts<'a>(
        &mut self,
        namespace: &Namespace<'a>,
        notifiers: &Notifiers<'_, 'a>,
    ) -> Result<(), Untold> {
        let mut found = Ok(());
        visit_in(namespace, &["ACPI0013"], &mut |device| {
            found = self.find_interrupts_of(device, notifiers);
            found.is_err()
        });
        found
    }

    fn find_interrupts_of<'a>(
        &mut self,
        device: &Device<'_, 'a>,
        notifiers: &Notifiers<'_, 'a>,
    ) -> Result<(), Untold> {
        let (namespace, path) = (device.namespace, &device.path);
        let resources = device.resources.as_ref();
        let resources = resources.and_then(|object| namespace.evaluate(object).ok());
        let Some(Value::Buffer(template)) = resources else {
            return Ok(());
        };
        let common = child(namespace, path, *b"_EVT");
        for line in lines(template).take_while(|_| !namespace.is_spent()) {
            let own = name_for(line).and_then(|name| child(namespace, path, name));
            let method = own.or(common);
            let argument = Some(line.number.into());
            if method.is_some_and(|method| notifiers.may_run_in(&method, argument)) {
                self.add(Event::Interrupt(line))?;
            }
        }
        Ok(())
    }

    /// The general-purpose events.
    fn find_general(
        &mut self,
        namespace: &Namespace<'_>,
        notifiers: &Notifiers<'_, '_>,
    ) -> Result<(), Untold> {
        let events = child_path(&Path::ROOT, *b"_GPE");
        for method in namespace.objects() {
            let is_of_event = method.kind == Kind::Method && method.path.parent() == Some(events);
            let number = method.path.last().copied().filter(|_| is_of_event);
            if let Some(number) = number.and_then(number_of)
                && notifiers.may_run_in(&method, None)
            {
                self.add(Event::General(number))?;
            }
        }
        Ok(())
    }
}

/// How a PC is told: by an interrupt that arrives through an I/O APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wire {
    /// The interrupt.
    pub line: Line,
    /// Where it arrives, which is not in RAM.
    pub io_apic: IoApic,
    /// The general-purpose event that has happened then; one that has not is no news.
    pub event: Option<GeneralEvent>,
}

/// A general-purpose event of a PC, by its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeneralEvent {
    /// Its status register.
    pub status: u16,
    /// Its enable register.
    pub enable: u16,
    /// Its bit of either.
    pub mask: u8,
    /// The control register that tells whether ACPI's interrupt is raised at all.
    pub control: u16,
    /// Where and how firmware is told to have it raised.
    pub order: Option<(u16, u8)>,
}

impl Wire {
    /// Looks it up in the tables of a machine with this memory map.
    ///
    /// # Errors
    /// It is not there.
    #[inline(never)]
    pub fn of(event: Event, tables: &Tables<'_>, map: &[MemoryRange]) -> Result<Self, Untold> {
        /// Bytes of an I/O APIC's registers, and a divisor of its address.
        const LENGTH: u32 = 0x20;
        let madt = tables.find(*b"APIC").map(Madt);
        let madt = madt.map_err(|_| Untold::Because("ACPI has no usable MADT"))?;
        let (line, event) = match event {
            Event::Interrupt(line) => (line, None),
            Event::General(number) => {
                let found = general_event(number, tables, &madt);
                let why = "its GPE is not one of I/O ports that the FADT names";
                let (line, event) = found.ok_or(Untold::Because(why))?;
                (line, Some(event))
            }
        };
        let is_ram = |io_apic: &IoApic| {
            let taken =
                |range: &&MemoryRange| matches!(range.kind, MemoryKind::Usable | MemoryKind::Acpi);
            let mut taken = map.iter().filter(taken);
            taken.any(|range| range.overlaps(io_apic.address.into(), LENGTH.into()))
        };
        let io_apic = madt.io_apic(line.number);
        let io_apic = io_apic.filter(|io_apic| io_apic.address % LENGTH == 0 && !is_ram(io_apic));
        Ok(Self {
            line,
            io_apic: io_apic.ok_or(Untold::Because("the MADT has no I/O APIC for it"))?,
            event,
        })
    }
}

/// The interrupt and the ports of a general-purpose event.
fn general_event(number: u8, tables: &Tables<'_>, madt: &Madt<'_>) -> Option<(Line, GeneralEvent)> {
    let fadt = tables.fadt().ok()?;
    let bits = fadt.event(number)?;
    let control = fadt.pm1a_control()?;
    if fadt.is_hardware_reduced() || bits.space != Space::Port || control.space != Space::Port {
        return None;
    }
    let event = GeneralEvent {
        status: bits.status.try_into().ok()?,
        enable: bits.enable.try_into().ok()?,
        mask: bits.mask,
        control: control.address.try_into().ok()?,
        order: fadt.acpi_enable(),
    };
    let line = madt.system_control_interrupt(fadt.system_control_interrupt()?);
    Some((line, event))
}

/// The name of the method that is run for an interrupt instead of `_EVT`, where there is one.
fn name_for(line: Line) -> Option<[u8; 4]> {
    let number = u8::try_from(line.number).ok()?;
    let digit = |digit: u8| b"0123456789ABCDEF".get(usize::from(digit)).copied();
    let trigger = if line.edge { b'E' } else { b'L' };
    Some([b'_', trigger, digit(number >> 4)?, digit(number & 0xf)?])
}

/// The number of the event that a method of this name is for: `_Lxx` or `_Exx`.
fn number_of(name: [u8; 4]) -> Option<u8> {
    let [b'_', b'L' | b'E', digits @ ..] = name else {
        return None;
    };
    // Digits are of upper case there, as in all names.
    u8::from_str_radix(str::from_utf8(&digits).ok()?, 16).ok()
}
