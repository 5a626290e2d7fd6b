//! PCI configuration space: enough to find a function, its BARs and its capabilities.
//!
//! Bus numbers, BARs and capability lists come from the host; they are read with bounds and never
//! trusted to end.

use super::registers::Registers;

/// Bus, device and function packed as `bus << 8 | device << 3 | function`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function(pub u16);

impl Function {
    /// The bus number.
    #[must_use]
    pub const fn bus(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// The device number on its bus, below 32.
    #[must_use]
    pub const fn device(self) -> u8 {
        (self.0 >> 3 & 0x1f) as u8
    }
}

impl core::fmt::Display for Function {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "{:02x}:{:02x}.{}",
            self.bus(),
            self.0 >> 3 & 0x1f,
            self.0 & 7
        )
    }
}

/// A way to reach configuration space, 32 bits at a time. An absent function reads as all ones.
pub trait ConfigAccess {
    /// Reads the doubleword that holds `offset`.
    fn read32(&self, function: Function, offset: u16) -> u32;
    /// Writes the doubleword that holds `offset`.
    fn write32(&self, function: Function, offset: u16, value: u32);
}

/// The enhanced configuration access mechanism: 4 KiB a function, memory mapped (PCI Express 6.0
/// §7.2.2; ACPI table MCFG).
#[derive(Debug)]
pub struct Ecam {
    registers: Registers,
    first_bus: u8,
}

impl Ecam {
    /// Bytes of one bus's configuration space.
    pub const BUS: u64 = 1 << 20;

    /// `registers` hold the buses from `first_bus` on.
    #[must_use]
    pub const fn new(registers: Registers, first_bus: u8) -> Self {
        Self {
            registers,
            first_bus,
        }
    }

    fn offset(&self, function: Function, offset: u16) -> Option<usize> {
        let bus = function.bus().checked_sub(self.first_bus)?;
        Some(
            usize::from(bus) << 20
                | usize::from(function.0 & 0xff) << 12
                | usize::from(offset & 0xffc),
        )
    }
}

impl ConfigAccess for Ecam {
    fn read32(&self, function: Function, offset: u16) -> u32 {
        self.offset(function, offset)
            .map_or(u32::MAX, |offset| self.registers.read32(offset))
    }

    fn write32(&self, function: Function, offset: u16, value: u32) {
        if let Some(offset) = self.offset(function, offset) {
            self.registers.write32(offset, value);
        }
    }
}

/// A memory BAR as firmware placed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Physical address.
    pub address: u64,
    /// Length in bytes, a power of two.
    pub length: u64,
}

/// Addresses below 4 GiB that BARs can be given.
#[derive(Clone, Copy, Debug)]
pub struct BarSpace {
    next: u64,
    end: u64,
}

impl BarSpace {
    /// `length` bytes from `start` on, as far as they are below 4 GiB.
    #[must_use]
    pub const fn new(start: u64, length: u64) -> Self {
        let end = start.saturating_add(length);
        let limit = 1 << 32;
        Self {
            next: start,
            end: if end < limit { end } else { limit },
        }
    }

    /// `length` bytes, a power of two, at a multiple of that. Never at address zero, which means none.
    fn take(&mut self, length: u64) -> Option<u32> {
        let start = self.next.max(1).checked_next_multiple_of(length)?;
        let end = start.checked_add(length).filter(|&end| end <= self.end)?;
        self.next = end;
        u32::try_from(start).ok()
    }
}

/// The message that makes a device's MSI-X interrupt arrive at this CPU (MSI-X).
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// Where the device writes.
    pub address: u64,
    /// What it writes.
    pub data: u32,
}

/// Capability id of MSI-X.
pub const CAPABILITY_MSI_X: u8 = 0x11;
/// Capability id of vendor-specific data, which virtio uses.
pub const CAPABILITY_VENDOR: u8 = 0x09;

/// Header type of a PCI-to-PCI bridge.
const BRIDGE: u8 = 1;
const COMMAND: u16 = 0x04;
const COMMAND_MEMORY: u32 = 1 << 1;
const COMMAND_MASTER: u32 = 1 << 2;
const COMMAND_NO_INTX: u32 = 1 << 10;

/// One configuration space, or the lack of one.
pub struct Pci<'a>(pub &'a dyn ConfigAccess);

impl core::fmt::Debug for Pci<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Pci")
    }
}

impl Pci<'_> {
    /// All functions of `bus` that answer, with vendor and device id.
    pub fn functions(&self, bus: u8) -> impl Iterator<Item = (Function, u16, u16)> + '_ {
        (0..=255u8).filter_map(move |low| {
            let function = Function(u16::from(bus) << 8 | u16::from(low));
            // Functions 1..8 exist only on multi-function devices; others may answer for all of
            // them.
            if low & 7 != 0 && self.0.read32(Function(function.0 & !7), 0x0c) & 1 << 23 == 0 {
                return None;
            }
            let id = self.0.read32(function, 0);
            (id & 0xffff != 0xffff).then_some((function, (id & 0xffff) as u16, (id >> 16) as u16))
        })
    }

    /// Looks at every function on bus `first` and on the buses behind its bridges.
    ///
    /// `reach` makes a bus's configuration space accessible and says whether it is. A bridge leads
    /// only to higher bus numbers and each bus is looked at once, so lying bridges make no circle.
    pub fn walk(
        &self,
        first: u8,
        mut reach: impl FnMut(u8) -> bool,
        mut visit: impl FnMut(Function, u16, u16),
    ) {
        let mut wanted = [false; 256];
        wanted[usize::from(first)] = true;
        for bus in first..=255 {
            if !wanted[usize::from(bus)] || !reach(bus) {
                continue;
            }
            for (function, vendor, device) in self.functions(bus) {
                visit(function, vendor, device);
                let header = self.0.read32(function, 0x0c).to_le_bytes()[2] & 0x7f;
                let secondary = self.0.read32(function, 0x18).to_le_bytes()[1];
                if header == BRIDGE && secondary > bus {
                    wanted[usize::from(secondary)] = true;
                }
            }
        }
    }

    /// The capabilities of `function`: offset and id. Ends after 48 entries, as many as fit, even
    /// on a circular list.
    pub fn capabilities(&self, function: Function) -> impl Iterator<Item = (u16, u8)> + '_ {
        const STATUS_LIST: u32 = 1 << 20;
        let has_list = self.0.read32(function, COMMAND) & STATUS_LIST != 0;
        let mut next = if has_list {
            self.0.read32(function, 0x34).to_le_bytes()[0] & 0xfc
        } else {
            0
        };
        (0..48).map_while(move |_| {
            if next < 0x40 {
                return None;
            }
            let at = u16::from(next);
            let [id, following, ..] = self.0.read32(function, at).to_le_bytes();
            next = following & 0xfc;
            Some((at, id))
        })
    }

    /// Memory BAR `index`; `None` for I/O BARs, absent ones, and ones firmware left without an
    /// address.
    #[must_use]
    pub fn bar(&self, function: Function, index: u8) -> Option<Bar> {
        let (Bar { address, length }, _) = self.any_bar(function, index)?;
        (address != 0 && address % length == 0).then_some(Bar { address, length })
    }

    /// Gives the memory BARs of `function` places in `space`, where firmware has left all of them
    /// without one. What does not fit stays without.
    ///
    /// For machines without firmware, or with one that leaves this to us (qboot); only the functions that are used need
    /// places.
    pub fn place_bars(&self, function: Function, space: &mut BarSpace) {
        let bars = || {
            let mut next = 0;
            (0..6).filter_map(move |index| {
                // The upper half of a 64-bit BAR is none of its own.
                let (bar, wide) = self.any_bar(function, index).filter(|_| index >= next)?;
                next = index + 1 + u8::from(wide);
                Some((index, bar))
            })
        };
        if bars().any(|(_, bar)| bar.address != 0) {
            return;
        }
        for (index, Bar { length, .. }) in bars() {
            let offset = 0x10 + 4 * u16::from(index);
            // A 64-bit BAR takes a 32-bit address too: its upper half is zero already.
            if let Some(address) = space.take(length) {
                self.0.write32(function, offset, address);
            }
        }
    }

    /// Memory BAR `index` as it is, with an address or without, and whether it has 64 bits.
    fn any_bar(&self, function: Function, index: u8) -> Option<(Bar, bool)> {
        let offset = 0x10 + 4 * u16::from(index);
        if index > 5 {
            return None;
        }
        let low = self.0.read32(function, offset);
        if low & 1 != 0 {
            return None;
        }
        let wide = low & 6 == 4;
        if wide && index == 5 {
            return None;
        }
        let high = if wide {
            self.0.read32(function, offset + 4)
        } else {
            0
        };
        // Sizing makes the BAR move for a moment: decoding is off meanwhile (PCI Local Bus 3.0
        // §6.2.5.1).
        let command = self.0.read32(function, COMMAND);
        self.0
            .write32(function, COMMAND, command & 0xffff & !COMMAND_MEMORY);
        let size_low = self.probe(function, offset, low);
        let size_high = if wide {
            self.probe(function, offset + 4, high)
        } else {
            u32::MAX
        };
        self.0.write32(function, COMMAND, command & 0xffff);

        let mask = u64::from(size_high) << 32 | u64::from(size_low & !0xf);
        let length = (!mask).wrapping_add(1);
        let address = u64::from(high) << 32 | u64::from(low & !0xf);
        let usable = size_low & !0xf != 0 && length.is_power_of_two();
        usable.then_some((Bar { address, length }, wide))
    }

    fn probe(&self, function: Function, offset: u16, value: u32) -> u32 {
        self.0.write32(function, offset, u32::MAX);
        let size = self.0.read32(function, offset);
        self.0.write32(function, offset, value);
        size
    }

    /// The interrupt pin of `function`: 1 to 4, or 0 for none.
    #[must_use]
    pub fn pin(&self, function: Function) -> u8 {
        self.0.read32(function, 0x3c).to_le_bytes()[1]
    }

    /// Lets the function decode memory and write to memory; turns its pin interrupt on or off.
    pub fn enable(&self, function: Function, pin: bool) {
        let pin_off = if pin { 0 } else { COMMAND_NO_INTX };
        let command = self.0.read32(function, COMMAND) & 0xffff;
        self.0.write32(
            function,
            COMMAND,
            command & !COMMAND_NO_INTX | COMMAND_MEMORY | COMMAND_MASTER | pin_off,
        );
    }
}

#[cfg(test)]
mod tests {
    use core::cell::RefCell;

    use super::*;

    /// One function's 256 bytes; BARs answer sizing like hardware of the given sizes.
    struct Fake(RefCell<[u32; 64]>, [u32; 6]);

    impl ConfigAccess for Fake {
        fn read32(&self, function: Function, offset: u16) -> u32 {
            if function.0 == 8 {
                self.0.borrow()[usize::from(offset / 4)]
            } else {
                u32::MAX
            }
        }
        fn write32(&self, _: Function, offset: u16, value: u32) {
            let index = usize::from(offset / 4);
            let value = match index {
                4..10 => {
                    let mask = self.1[index - 4];
                    value & mask | self.0.borrow()[index] & !mask & 0xf
                }
                _ => value,
            };
            self.0.borrow_mut()[index] = value;
        }
    }

    fn fake() -> Fake {
        let mut words = [0u32; 64];
        words[0] = 0x1041_1af4;
        words[1] = 1 << 20;
        words[4] = 0xfebd_0000;
        words[5] = 0xc001; // I/O
        words[6] = 0xfebf_c00c; // 64-bit
        words[7] = 0x1;
        words[13] = 0x40;
        words[16] = 0x0000_4409; // next is 0x44
        words[17] = 0x0000_4011; // next is 0x40 again: a circle
        Fake(
            RefCell::new(words),
            [0xffff_f000, 0xffff_ffe0, 0xffff_c000, 0xffff_ffff, 0, 0],
        )
    }

    #[test]
    fn reads_bars() {
        let fake = fake();
        let pci = Pci(&fake);
        let function = Function(8);
        assert_eq!(
            pci.bar(function, 0),
            Some(Bar {
                address: 0xfebd_0000,
                length: 0x1000
            })
        );
        assert_eq!(pci.bar(function, 1), None, "I/O");
        assert_eq!(
            pci.bar(function, 2),
            Some(Bar {
                address: 0x1_febf_c000,
                length: 0x4000
            })
        );
        assert_eq!(pci.bar(function, 5), None, "absent");
        assert_eq!(pci.bar(function, 6), None, "no such BAR");
        assert_eq!(
            fake.0.borrow()[4],
            0xfebd_0000,
            "sizing puts the address back"
        );
    }

    #[test]
    fn places_bars_that_have_no_address() {
        let fake = fake();
        let pci = Pci(&fake);
        let function = Function(8);
        let mut space = BarSpace::new(0x1000_0800, 0x1_0000);
        pci.place_bars(function, &mut space);
        assert_eq!(fake.0.borrow()[4], 0xfebd_0000, "firmware's places stay");
        for index in [4, 6, 7] {
            fake.0.borrow_mut()[index] &= 0xf * u32::from(index != 7);
        }
        pci.place_bars(function, &mut space);
        let bars = [0, 2].map(|index| pci.bar(function, index).map(|bar| bar.address));
        assert_eq!(
            bars,
            [Some(0x1000_1000), Some(0x1000_4000)],
            "each at a multiple of its size"
        );
        assert_eq!(fake.0.borrow()[5], 0xc001, "I/O is left alone");
    }

    #[test]
    fn bar_space_ends() {
        let mut space = BarSpace::new(0, 0x3000);
        assert_eq!(space.take(0x1000), Some(0x1000), "zero is no place");
        assert_eq!(space.take(0x2000), None);
        assert_eq!(space.take(0x1000), Some(0x2000));
        assert_eq!(space.take(1), None);
        assert_eq!(BarSpace::new(u64::MAX, u64::MAX).take(16), None);
        assert_eq!(BarSpace::new(0xffff_0000, u64::MAX).take(0x2_0000), None);
    }

    /// A bridge on every bus that says its secondary bus is `bus * 2 + 1`, or back to bus 0.
    struct Bridges;

    impl ConfigAccess for Bridges {
        fn read32(&self, function: Function, offset: u16) -> u32 {
            match (function.0 & 0xff, offset) {
                (0 | 8, 0) => 0x0001_1b36,
                (0 | 8, 0x0c) => 0x0001_0000,
                (0, 0x18) => u32::from(function.bus().wrapping_mul(2).wrapping_add(1)) << 8,
                (8, 0x18) => 0,
                _ => u32::MAX,
            }
        }
        fn write32(&self, _: Function, _: u16, _: u32) {}
    }

    #[test]
    fn the_walk_follows_bridges_and_ends() {
        let (mut buses, mut functions) = (0u32, 0u32);
        Pci(&Bridges).walk(
            0,
            |bus| {
                buses += 1;
                bus != 31
            },
            |_, _, _| functions += 1,
        );
        // 0, 1, 3, 7, 15, and 31, which cannot be reached.
        assert_eq!((buses, functions), (6, 10));
    }

    #[test]
    fn a_circular_capability_list_ends() {
        let fake = fake();
        let pci = Pci(&fake);
        assert_eq!(pci.capabilities(Function(8)).count(), 48);
        assert_eq!(pci.capabilities(Function(8)).next(), Some((0x40, 9)));
        assert_eq!(pci.functions(0).count(), 1);
    }
}
