//! ACPI tables: from the RSDP to definition blocks, ECAM windows and the fixed registers (ACPI 6.5 §5.2).
//!
//! Why not the `acpi` crate (7.0.0-pre1 was read for this): it trusts the tables. `AcpiTables::from_rsdp` and the `Handler`
//! it maps memory through are `unsafe`, which this crate forbids, and `Handler::map_physical_region` has no way to refuse an
//! address or a length, though both come straight from the tables (`find_tables` maps `header.length` bytes at an XSDT entry
//! with neither compared to anything; `table_headers` dereferences every entry). It makes references to whole structs over
//! tables that may be shorter (its `Fadt` is 276 bytes, QEMU's pc machine has one of 116) and goes by the revision, not the
//! length, to tell which fields exist. Checksums are not required, and printing a signature that is not UTF-8 panics. What
//! would be left of it are field offsets, and those are here.
//!
//! Everything below is total: reads go through [`PhysicalMemory`], which refuses; lengths and checksums are verified before
//! a table is used; the number of tables and their sizes are bounded.

use core::fmt;

use super::hardware::Conduit;
use crate::memory::PhysicalMemory;

/// Tables listed in the RSDT or XSDT that are looked at.
pub const TABLES: usize = 128;
/// Definition blocks that are read: the DSDT and the first SSDTs.
pub const BLOCKS: usize = 32;
/// Bytes of the largest table that is read. DSDTs of virtual machines are some tens of KiB.
pub const LARGEST_TABLE: usize = 1 << 20;
/// Bytes of the header that all tables but the RSDP start with.
const HEADER: usize = 36;

/// The tables of this machine.
#[derive(Clone, Copy)]
pub struct Tables<'m> {
    memory: &'m dyn PhysicalMemory,
    root: Table<'m>,
    /// Bytes of an entry: 4 in an RSDT, 8 in an XSDT.
    entry: usize,
}

impl<'m> Tables<'m> {
    /// The tables that the RSDP at `address` leads to: those of the XSDT, or of the RSDT if there is no good XSDT.
    ///
    /// # Errors
    ///
    /// The RSDP, or the root table it names, is not readable or not valid.
    pub fn at(memory: &'m dyn PhysicalMemory, address: u64) -> Result<Self, Bad> {
        let rsdp = Rsdp::read(memory, address)?;
        let xsdt = (rsdp.xsdt != 0).then(|| Table::read_as(memory, rsdp.xsdt, *b"XSDT"));
        if let Some(Ok(root)) = xsdt {
            return Ok(Self {
                memory,
                root,
                entry: 8,
            });
        }
        match Table::read_as(memory, u64::from(rsdp.rsdt), *b"RSDT") {
            Ok(root) => Ok(Self {
                memory,
                root,
                entry: 4,
            }),
            // Of two bad roots the one that should have been good is reported.
            Err(bad) => Err(xsdt.and_then(Result::err).unwrap_or(bad)),
        }
    }

    /// The tables of the RSDP that [`find_rsdp`] finds, for boot protocols that do not hand its address over.
    ///
    /// # Errors
    ///
    /// [`Bad::NoRsdp`], or as [`Tables::at`].
    pub fn search(memory: &'m dyn PhysicalMemory) -> Result<Self, Bad> {
        Self::at(memory, find_rsdp(memory).ok_or(Bad::NoRsdp)?)
    }

    /// Every table listed (at most [`TABLES`]): the table, or why it cannot be used. The DSDT is not listed.
    pub fn iter(&self) -> impl Iterator<Item = Result<Table<'m>, Bad>> + use<'m> {
        let memory = self.memory;
        self.addresses()
            .map(move |address| Table::read(memory, address))
    }

    /// The first table with this signature.
    ///
    /// # Errors
    ///
    /// [`Bad::Absent`] when none is listed, or why the first one listed cannot be used.
    pub fn find(&self, signature: [u8; 4]) -> Result<Table<'m>, Bad> {
        let mut addresses = self
            .addresses()
            .filter(|address| self.memory.bytes(*address, 4) == Some(&signature));
        Table::read(
            self.memory,
            addresses.next().ok_or(Bad::Absent { wanted: signature })?,
        )
    }

    /// The fixed description table.
    ///
    /// # Errors
    ///
    /// As [`Tables::find`].
    pub fn fadt(&self) -> Result<Fadt<'m>, Bad> {
        self.find(*b"FACP").map(Fadt)
    }

    /// The machine's AML: the DSDT, then the SSDTs in the order listed.
    #[must_use]
    pub fn definition_blocks(&self) -> DefinitionBlocks<'m> {
        let mut blocks = DefinitionBlocks {
            tables: [None; BLOCKS],
            aml: [&[]; BLOCKS],
            count: 0,
            bad: None,
        };
        match self.fadt() {
            Ok(fadt) => blocks.add_dsdt(self.memory, &fadt),
            Err(bad) => blocks.bad = Some(bad),
        }
        for address in self.addresses() {
            if self.memory.bytes(address, 4) == Some(b"SSDT") {
                blocks.add(Table::read(self.memory, address));
            }
        }
        blocks
    }

    /// The PCI configuration windows of the MCFG table (PCI Firmware Specification 3.3 §4.1.2), without those that make no
    /// sense. Empty on a machine without one.
    pub fn ecam(&self) -> impl Iterator<Item = Ecam> + use<'m> {
        let table = self.find(*b"MCFG").ok();
        let (entries, _) = table
            .and_then(|table| table.bytes.get(44..))
            .unwrap_or_default()
            .as_chunks::<16>();
        entries.iter().filter_map(Ecam::parse)
    }

    fn addresses(&self) -> impl Iterator<Item = u64> + use<'m> {
        let entries = self
            .root
            .bytes
            .get(HEADER..)
            .unwrap_or_default()
            .chunks_exact(self.entry);
        entries.take(TABLES).map(|entry| {
            entry
                .iter()
                .rev()
                .fold(0, |value, byte| value << 8 | u64::from(*byte))
        })
    }
}

impl fmt::Debug for Tables<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tables")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

/// A table of good length and checksum.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Table<'m> {
    /// Its guest-physical address.
    pub address: u64,
    /// Its kind, such as `SSDT`; any four bytes.
    pub signature: [u8; 4],
    /// The whole table, header included.
    pub bytes: &'m [u8],
}

impl<'m> Table<'m> {
    /// Reads and verifies the table at `address`.
    ///
    /// # Errors
    ///
    /// It is not in readable memory, its length is impossible or beyond [`LARGEST_TABLE`], or its checksum is wrong.
    pub fn read(memory: &'m dyn PhysicalMemory, address: u64) -> Result<Self, Bad> {
        let header = memory
            .bytes(address, HEADER)
            .ok_or(Bad::Unreadable { address })?;
        let signature = *header.first_chunk().ok_or(Bad::Unreadable { address })?;
        let length = u32_at(header, 4).ok_or(Bad::Unreadable { address })?;
        let bad_length = Bad::Length { address, length };
        let size = usize::try_from(length)
            .ok()
            .filter(|size| (HEADER..=LARGEST_TABLE).contains(size))
            .ok_or(bad_length)?;
        let bytes = memory.bytes(address, size).ok_or(bad_length)?;
        if sum(bytes) == 0 {
            Ok(Self {
                address,
                signature,
                bytes,
            })
        } else {
            Err(Bad::Checksum { address, signature })
        }
    }

    /// The part after the header: AML, in a definition block.
    #[must_use]
    pub fn body(&self) -> &'m [u8] {
        self.bytes.get(HEADER..).unwrap_or_default()
    }

    /// The manufacturer's name for the table, such as `VMCLOCK` padded to eight; any bytes.
    #[must_use]
    pub fn oem_table_id(&self) -> [u8; 8] {
        self.bytes
            .get(16..)
            .and_then(|bytes| bytes.first_chunk())
            .copied()
            .unwrap_or_default()
    }

    fn read_as(
        memory: &'m dyn PhysicalMemory,
        address: u64,
        signature: [u8; 4],
    ) -> Result<Self, Bad> {
        let table = Self::read(memory, address)?;
        if table.signature == signature {
            Ok(table)
        } else {
            Err(Bad::Signature {
                address,
                wanted: signature,
            })
        }
    }
}

impl fmt::Debug for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Table<'_> {
    /// `SSDT VMCLOCK  at 0x3fe2281, 159 bytes`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (signature, id) = (self.signature.escape_ascii(), self.oem_table_id());
        write!(
            f,
            "{signature} {} at {:#x}, {} bytes",
            id.escape_ascii(),
            self.address,
            self.bytes.len()
        )
    }
}

/// Why ACPI, or one of its tables, cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// No RSDP was handed over, and none was found.
    NoRsdp,
    /// The machine has no such table.
    Absent {
        /// Its signature.
        wanted: [u8; 4],
    },
    /// The address is not one of mapped memory.
    Unreadable {
        /// Where the table should be.
        address: u64,
    },
    /// The table is shorter than its header, longer than memory, or longer than [`LARGEST_TABLE`].
    Length {
        /// Where the table is.
        address: u64,
        /// The length it claims, in bytes.
        length: u32,
    },
    /// Another table was expected at this address.
    Signature {
        /// Where the table is.
        address: u64,
        /// The signature it should have.
        wanted: [u8; 4],
    },
    /// The bytes of the table do not add up to zero.
    Checksum {
        /// Where the table is.
        address: u64,
        /// The signature it has.
        signature: [u8; 4],
    },
    /// There are more than [`BLOCKS`] definition blocks.
    Blocks,
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRsdp => f.write_str("there is no acpi rsdp"),
            Self::Absent { wanted } => {
                write!(f, "there is no acpi table {}", wanted.escape_ascii())
            }
            Self::Unreadable { address } => write!(
                f,
                "the acpi table at {address:#x} is not in readable memory"
            ),
            Self::Length { address, length } => write!(
                f,
                "the acpi table at {address:#x} has a wrong length of {length}"
            ),
            Self::Signature { address, wanted } => {
                write!(f, "there is no {} at {address:#x}", wanted.escape_ascii())
            }
            Self::Checksum { address, signature } => {
                write!(
                    f,
                    "the {} at {address:#x} has a wrong checksum",
                    signature.escape_ascii()
                )
            }
            Self::Blocks => write!(f, "there are more than {BLOCKS} acpi definition blocks"),
        }
    }
}

impl core::error::Error for Bad {}

/// The root pointer (ACPI 6.5 §5.2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rsdp {
    /// 0 for ACPI 1.0, 2 since.
    pub revision: u8,
    /// Address of the RSDT, or 0.
    pub rsdt: u32,
    /// Address of the XSDT, or 0; always 0 in revision 0.
    pub xsdt: u64,
}

impl Rsdp {
    /// Reads and verifies the RSDP at `address`.
    ///
    /// # Errors
    ///
    /// It is not in readable memory, or its signature, length or checksum is wrong.
    pub fn read(memory: &dyn PhysicalMemory, address: u64) -> Result<Self, Bad> {
        let first = memory
            .bytes(address, RSDP_1)
            .ok_or(Bad::Unreadable { address })?;
        if !first.starts_with(RSDP_SIGNATURE) {
            return Err(Bad::Signature {
                address,
                wanted: *b"RSDP",
            });
        }
        let checksum = Bad::Checksum {
            address,
            signature: *b"RSDP",
        };
        if sum(first) != 0 {
            return Err(checksum);
        }
        let revision = first.get(15).copied().unwrap_or_default();
        let rsdt = u32_at(first, 16).unwrap_or_default();
        if revision < 2 {
            return Ok(Self {
                revision,
                rsdt,
                xsdt: 0,
            });
        }
        let all = memory
            .bytes(address, RSDP_2)
            .ok_or(Bad::Unreadable { address })?;
        let length = u32_at(all, 20).unwrap_or_default();
        let bad_length = Bad::Length { address, length };
        // Later revisions may append fields; a page of them is absurd.
        let size = usize::try_from(length)
            .ok()
            .filter(|size| (RSDP_2..=4096).contains(size))
            .ok_or(bad_length)?;
        if sum(memory.bytes(address, size).ok_or(bad_length)?) != 0 {
            return Err(checksum);
        }
        Ok(Self {
            revision,
            rsdt,
            xsdt: u64_at(all, 24).unwrap_or_default(),
        })
    }
}

/// Searches for the RSDP where PC firmware puts it (ACPI 6.5 §5.2.5.1): the first KiB of the extended BIOS data area, then
/// 0xe0000 to 0xfffff, on 16-byte boundaries.
#[must_use]
pub fn find_rsdp(memory: &dyn PhysicalMemory) -> Option<u64> {
    // The BIOS data area holds the segment of the extended one; where page 0 is not mapped there is none to search.
    let segment = memory
        .bytes(0x40e, 2)
        .and_then(|bytes| bytes.first_chunk())
        .map_or(0, |bytes| u16::from_le_bytes(*bytes));
    let extended = u64::from(segment) << 4;
    let extended = if (0x8_0000..0xa_0000).contains(&extended) {
        extended..extended + 0x400
    } else {
        0..0
    };
    let mut places = extended
        .step_by(16)
        .chain((0xe_0000..0x10_0000).step_by(16));
    places.find(|address| Rsdp::read(memory, *address).is_ok())
}

/// The machine's AML, ready for a [`Namespace`](super::aml::Namespace).
#[derive(Clone, Debug)]
pub struct DefinitionBlocks<'m> {
    tables: [Option<Table<'m>>; BLOCKS],
    aml: [&'m [u8]; BLOCKS],
    count: usize,
    bad: Option<Bad>,
}

impl<'m> DefinitionBlocks<'m> {
    /// The AML of each block.
    #[must_use]
    pub fn aml(&self) -> &[&'m [u8]] {
        self.aml.get(..self.count).unwrap_or_default()
    }

    /// The tables it came from.
    pub fn tables(&self) -> impl Iterator<Item = &Table<'m>> {
        self.tables.iter().flatten()
    }

    /// The first block that could not be used, if any: what is missing may be in it.
    #[must_use]
    pub fn bad(&self) -> Option<Bad> {
        self.bad
    }

    /// Adds the DSDT: the one that the 64-bit address names, or else the one that the 32-bit address does.
    fn add_dsdt(&mut self, memory: &'m dyn PhysicalMemory, fadt: &Fadt<'m>) {
        let read = |address| Table::read_as(memory, address, *b"DSDT");
        self.add(
            match (fadt.number64(140), fadt.number32(40).map(u64::from)) {
                (Some(wide), Some(narrow)) => {
                    read(wide).or_else(|bad| read(narrow).map_err(|_| bad))
                }
                (Some(only), None) | (None, Some(only)) => read(only),
                (None, None) => Err(Bad::Absent { wanted: *b"DSDT" }),
            },
        );
    }

    fn add(&mut self, table: Result<Table<'m>, Bad>) {
        let table = match table {
            Ok(table) => table,
            Err(bad) => {
                self.bad = self.bad.or(Some(bad));
                return;
            }
        };
        // A table listed twice is one table.
        if self.tables().any(|other| other.address == table.address) {
            return;
        }
        match (
            self.tables.get_mut(self.count),
            self.aml.get_mut(self.count),
        ) {
            (Some(place), Some(aml)) => {
                *place = Some(table);
                *aml = table.body();
                self.count += 1;
            }
            _ => self.bad = self.bad.or(Some(Bad::Blocks)),
        }
    }
}

/// The fixed ACPI description table (ACPI 6.5 §5.2.9). Fields that an old, short table does not have are absent.
#[derive(Clone, Copy, Debug)]
pub struct Fadt<'m>(Table<'m>);

impl Fadt<'_> {
    /// The power management timer, 3.579545 MHz (ACPI 6.5 §4.8.3.3).
    #[must_use]
    pub fn pm_timer(&self) -> Option<Register> {
        // A timer block of any length but 4 is no timer.
        (self.0.bytes.get(91) == Some(&4)).then(|| self.register(208, 76, 32))?
    }

    /// Whether the power management timer counts 32 bits rather than 24 (`TMR_VAL_EXT`).
    #[must_use]
    pub fn pm_timer_is_32_bits(&self) -> bool {
        self.flag(8)
    }

    /// The register and the value that reset the machine, where it has that (ACPI 6.5 §4.8.3.6).
    #[must_use]
    pub fn reset(&self) -> Option<(Register, u8)> {
        let register = Register::parse(self.0.bytes.get(116..128)?)?;
        self.flag(10).then_some((register, *self.0.bytes.get(128)?))
    }

    /// The `PM1a` control register: `SLP_TYP` is bits 10 to 12, `SLP_EN` bit 13 (ACPI 6.5 §4.8.3.2.1).
    #[must_use]
    pub fn pm1a_control(&self) -> Option<Register> {
        self.register(172, 64, 16)
    }

    /// The `PM1b` control register, on the few machines that have one.
    #[must_use]
    pub fn pm1b_control(&self) -> Option<Register> {
        self.register(184, 68, 16)
    }

    /// The sleep control register of hardware-reduced machines (ACPI 6.5 §4.8.3.7).
    #[must_use]
    pub fn sleep_control(&self) -> Option<Register> {
        Register::parse(self.0.bytes.get(244..256)?)
    }

    /// Whether the machine has none of the fixed hardware but what this table names (`HW_REDUCED_ACPI`).
    #[must_use]
    pub fn is_hardware_reduced(&self) -> bool {
        self.flag(20)
    }

    /// How PSCI is called, on an Arm machine that has it (`ARM_BOOT_ARCH`, ACPI 6.5 §5.2.9.4).
    #[must_use]
    pub fn psci(&self) -> Option<Conduit> {
        const COMPLIANT: u16 = 1 << 0;
        const USE_HVC: u16 = 1 << 1;
        let flags = u16_at(self.0.bytes, 129)?;
        let conduit = if flags & USE_HVC != 0 {
            Conduit::Hvc
        } else {
            Conduit::Smc
        };
        (flags & COMPLIANT != 0).then_some(conduit)
    }

    /// Whether a PC may have the CMOS clock at its usual ports (`IAPC_BOOT_ARCH`, ACPI 6.5 §5.2.9.3).
    #[must_use]
    pub fn may_have_cmos(&self) -> bool {
        const ABSENT: u16 = 1 << 5;
        u16_at(self.0.bytes, 109).unwrap_or(0) & ABSENT == 0
    }

    /// The register in which the CMOS clock keeps the century, if it does.
    #[must_use]
    pub fn century(&self) -> Option<u8> {
        let register = self.0.bytes.get(108).copied()?;
        (0x0e..=0x7f).contains(&register).then_some(register)
    }

    /// A register that has a 64-bit description and an older one as a port number.
    fn register(&self, extended: usize, port: usize, bits: u8) -> Option<Register> {
        let extended = self
            .0
            .bytes
            .get(extended..extended + 12)
            .and_then(Register::parse);
        extended.or_else(|| {
            Some(Register {
                space: Space::Port,
                bits,
                address: self.number32(port)?.into(),
            })
        })
    }

    fn flag(&self, bit: u32) -> bool {
        u32_at(self.0.bytes, 112).unwrap_or_default() >> bit & 1 != 0
    }

    /// A field that counts as absent when it is zero.
    fn number32(&self, offset: usize) -> Option<u32> {
        u32_at(self.0.bytes, offset).filter(|number| *number != 0)
    }

    fn number64(&self, offset: usize) -> Option<u64> {
        u64_at(self.0.bytes, offset).filter(|number| *number != 0)
    }
}

/// A hardware register (the generic address structure of ACPI 6.5 §5.2.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    /// How it is reached.
    pub space: Space,
    /// Width in bits; some firmware leaves it 0.
    pub bits: u8,
    /// Memory address or port number, never 0.
    pub address: u64,
}

/// The address space of a [`Register`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Memory-mapped.
    Memory,
    /// An x86 I/O port, 0 to 0xffff.
    Port,
    /// Anything else, by its number.
    Other(u8),
}

impl Register {
    /// From its twelve bytes; absent when its address is zero or a port number is not one.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let address = u64_at(bytes, 4).filter(|address| *address != 0)?;
        let space = match bytes.first()? {
            0 => Space::Memory,
            1 => Space::Port,
            other => Space::Other(*other),
        };
        let possible = space != Space::Port || address <= 0xffff;
        possible.then_some(Self {
            space,
            bits: *bytes.get(1)?,
            address,
        })
    }
}

/// A window of PCI configuration space: 1 MiB per bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ecam {
    /// Address of bus 0's part, even if the window starts at a later bus.
    pub base: u64,
    /// PCI segment group.
    pub segment: u16,
    /// First bus that is decoded.
    pub first_bus: u8,
    /// Last bus that is decoded.
    pub last_bus: u8,
}

impl Ecam {
    fn parse(entry: &[u8; 16]) -> Option<Self> {
        let base = u64_at(entry, 0)?;
        let (first_bus, last_bus) = (*entry.get(10)?, *entry.get(11)?);
        let end = base.checked_add((u64::from(last_bus) + 1) << 20)?;
        let possible =
            base != 0 && base.trailing_zeros() >= 20 && first_bus <= last_bus && end <= 1 << 52;
        possible.then_some(Self {
            base,
            segment: u16_at(entry, 8)?,
            first_bus,
            last_bus,
        })
    }

    /// First address and length in bytes of what is decoded.
    #[must_use]
    pub fn window(&self) -> (u64, u64) {
        let (first, last) = (u64::from(self.first_bus), u64::from(self.last_bus));
        (self.base + (first << 20), (last - first + 1) << 20)
    }
}

const RSDP_SIGNATURE: &[u8] = b"RSD PTR ";
/// Bytes of the RSDP in ACPI 1.0 and since.
const RSDP_1: usize = 20;
const RSDP_2: usize = 36;

/// All bytes, added up. The tables of a machine are tens of KiB, and are read some times: so it goes by words.
fn sum(bytes: &[u8]) -> u8 {
    /// Every other byte of a word, each with room for the sum of 257.
    const LANES: u64 = 0x00ff_00ff_00ff_00ff;
    let add = |sum: u8, byte: &u8| sum.wrapping_add(*byte);
    let mut sum = 0;
    for part in bytes.chunks(128 * 8) {
        let (words, rest) = part.as_chunks();
        let lanes = words.iter().fold(0, |lanes, word| {
            let word = u64::from_le_bytes(*word);
            lanes + (word & LANES) + (word >> 8 & LANES)
        });
        // The high halves of the lanes are multiples of 256.
        sum = lanes.to_le_bytes().iter().step_by(2).fold(sum, add);
        sum = rest.iter().fold(sum, add);
    }
    sum
}

pub(super) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes
        .get(offset..)?
        .first_chunk()
        .map(|bytes| u16::from_le_bytes(*bytes))
}

pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes
        .get(offset..)?
        .first_chunk()
        .map(|bytes| u32::from_le_bytes(*bytes))
}

pub(super) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes
        .get(offset..)?
        .first_chunk()
        .map(|bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec;
    use std::vec::Vec;

    use super::sum;

    #[test]
    fn bytes_add_up_the_same_by_words() {
        let bytes = (0..5000_u32).map(|at| (at * 7919).to_le_bytes()[1]);
        let bytes: Vec<u8> = bytes.collect();
        let mut plain = 0_u8;
        for length in 0..bytes.len() {
            assert_eq!(sum(&bytes[..length]), plain, "{length}");
            plain = plain.wrapping_add(bytes[length]);
        }
        // The greatest sums that there can be.
        for length in [1023_usize, 1024, 1025, 4096, 1 << 20] {
            let expected = 0_u8.wrapping_sub(length.to_le_bytes()[0]);
            assert_eq!(sum(&vec![255; length]), expected, "{length}");
        }
    }
}
