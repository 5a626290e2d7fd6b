//! The static ACPI tables: interrupt controllers, and an Arm machine's timer and console.
//!
//! Each is a total reader over a [`Table`] whose length and checksum are good already: a field that is not
//! there, or makes no sense, is a part of the machine that is not there.

use super::acpi::{Register, Space, Table, u16_at, u32_at, u64_at};
use super::hardware::{Gic, Interrupt, IoApic, Line, Uart, UartModel};
use super::{PAGE, Window};

/// The interrupt controllers (MADT, ACPI 6.5 §5.2.12).
#[derive(Clone, Copy, Debug)]
pub struct Madt<'m>(pub Table<'m>);

impl Madt<'_> {
    /// The GIC. The table says where its blocks of registers are; how long they are, the GIC's own
    /// architecture does.
    #[must_use]
    pub fn gic(&self) -> Option<Gic> {
        const CPU_INTERFACE: u8 = 0x0b;
        const DISTRIBUTOR: u8 = 0x0c;
        const REDISTRIBUTORS: u8 = 0x0e;
        /// The registers and the private interrupts' of one redistributor.
        const REDISTRIBUTOR: u64 = 2 << 16;
        // Of several, the first of each: the first CPU is the one that boots.
        let first = |kind| self.structures().find(|(its, _)| *its == kind);
        let address = |bytes: &[u8], offset| u64_at(bytes, offset).filter(|address| *address != 0);

        let (_, distributor) = first(DISTRIBUTOR)?;
        let version = *distributor.get(20)?;
        let distributor = address(distributor, 8)?;
        let regions = first(REDISTRIBUTORS).and_then(|(_, bytes)| {
            Some(Window {
                address: address(bytes, 4)?,
                length: u32_at(bytes, 12)?.into(),
            })
        });
        let cpu = first(CPU_INTERFACE).map(|(_, bytes)| bytes);
        let redistributors = regions.or_else(|| {
            Some(Window {
                address: address(cpu?, 60)?,
                length: REDISTRIBUTOR,
            })
        });
        // Version 0 is for "find out yourself": only version 3 has redistributors.
        match (version, redistributors) {
            (0 | 3 | 4, Some(redistributors)) => Some(Gic::V3 {
                distributor: Window {
                    address: distributor,
                    length: 1 << 16,
                },
                redistributors,
            }),
            (0 | 2, _) => Some(Gic::V2 {
                distributor: Window {
                    address: distributor,
                    length: PAGE,
                },
                cpu: Window {
                    address: address(cpu?, 32)?,
                    length: 2 * PAGE,
                },
            }),
            _ => None,
        }
    }

    /// The I/O APIC that an interrupt belongs to, as far as the table tells: of those that begin at it or below, the last.
    #[must_use]
    pub fn io_apic(&self, number: u32) -> Option<IoApic> {
        const IO_APIC: u8 = 0x01;
        let all = self.structures().filter(|(kind, _)| *kind == IO_APIC);
        let all = all.filter_map(|(_, bytes)| {
            Some(IoApic {
                address: u32_at(bytes, 4).filter(|address| *address != 0)?,
                first: u32_at(bytes, 8)?,
            })
        });
        all.filter(|io_apic| io_apic.first <= number)
            .max_by_key(|io_apic| io_apic.first)
    }

    /// The system control interrupt, of which the 8259s' number is given: a low level, unless an override says otherwise
    /// (ACPI 6.5 §5.2.12.5).
    #[must_use]
    pub fn system_control_interrupt(&self, number: u16) -> Line {
        const OVERRIDE: u8 = 0x02;
        const ISA: u8 = 0;
        let given = self.structures().find_map(|(kind, bytes)| {
            let [bus, source] = *bytes.get(2..)?.first_chunk()?;
            let is_it = kind == OVERRIDE && bus == ISA && u16::from(source) == number;
            Some((u32_at(bytes, 4)?, u16_at(bytes, 8)?)).filter(|_| is_it)
        });
        let (number, flags) = given.unwrap_or((number.into(), 0));
        Line {
            number,
            edge: flags >> 2 & 3 == 1,
            low: flags & 3 != 1,
        }
    }

    /// The structures by their type; they end at the first whose length cannot be.
    fn structures(&self) -> impl Iterator<Item = (u8, &[u8])> {
        let mut rest = self.0.bytes.get(44..).unwrap_or_default();
        core::iter::from_fn(move || {
            let (&kind, &length) = (rest.first()?, rest.get(1)?);
            let (structure, after) = rest.split_at_checked(length.into())?;
            if length < 2 {
                return None;
            }
            rest = after;
            Some((kind, structure))
        })
    }
}

/// The timers (GTDT, ACPI 6.5 §5.2.25).
#[derive(Clone, Copy, Debug)]
pub struct Gtdt<'m>(pub Table<'m>);

impl Gtdt<'_> {
    /// The interrupt of the virtual timer.
    #[must_use]
    pub fn virtual_timer(&self) -> Option<Interrupt> {
        const EDGE: u32 = 1 << 0;
        Some(Interrupt {
            number: u32_at(self.0.bytes, 64).filter(|number| *number != 0)?,
            edge: u32_at(self.0.bytes, 68)? & EDGE != 0,
        })
    }
}

/// The console (SPCR, "Serial Port Console Redirection Table" 1.07).
#[derive(Clone, Copy, Debug)]
pub struct Spcr<'m>(pub Table<'m>);

impl Spcr<'_> {
    /// The UART, if it is one that can be driven.
    #[must_use]
    pub fn uart(&self) -> Option<Uart> {
        const INTERRUPT_TO_GIC: u8 = 1 << 3;
        let bytes = self.0.bytes;
        let register = Register::parse(bytes.get(40..52)?)?;
        let model = match (bytes.get(36)?, register.bits, bytes.get(43)?) {
            // PL011, and the generic UARTs of SBSA.
            (0x03 | 0x0d | 0x0e, ..) => UartModel::Pl011,
            // 16550s: the register's width is the distance to the next one; accesses of one byte.
            (0x00 | 0x01 | 0x12, bits, 0 | 1) => UartModel::Ns16550 {
                stride: match bits {
                    0 | 8 => 1,
                    16 => 2,
                    32 => 4,
                    64 => 8,
                    _ => return None,
                },
            },
            _ => return None,
        };
        let has_interrupt = bytes.get(52)? & INTERRUPT_TO_GIC != 0;
        let number = u32_at(bytes, 54).filter(|number| *number != 0 && has_interrupt);
        (register.space == Space::Memory).then_some(Uart {
            window: Window {
                address: register.address,
                length: PAGE,
            },
            model,
            interrupt: number.map(|number| Interrupt {
                number,
                edge: false,
            }),
        })
    }
}
