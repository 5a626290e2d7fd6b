//! Fake machines: memory that holds ACPI tables, from fixtures or made up.

use std::fs;
use std::path::{Path, PathBuf};

use gnomon_kernel::memory::{MemoryKind, MemoryRange, PhysicalMemory};

/// Memory as a few ranges with bytes in them; everything else refuses to be read.
#[derive(Clone, Default)]
pub(crate) struct Machine {
    pub(crate) ranges: Vec<(u64, Vec<u8>)>,
}

impl PhysicalMemory for Machine {
    fn bytes(&self, address: u64, length: usize) -> Option<&[u8]> {
        self.ranges.iter().find_map(|(start, bytes)| {
            let offset = usize::try_from(address.checked_sub(*start)?).ok()?;
            bytes.get(offset..offset.checked_add(length)?)
        })
    }
}

impl Machine {
    /// The tables dumped from QEMU: a directory with an `index` of addresses and files.
    pub(crate) fn dumped(name: &str) -> Self {
        let directory = fixtures().join(name);
        let index = fs::read_to_string(directory.join("index")).expect("index");
        let range = |line: &str| {
            let (address, file) = line.split_once(' ').expect("address and file");
            let address =
                u64::from_str_radix(address.trim_start_matches("0x"), 16).expect("address");
            (address, fs::read(directory.join(file)).expect("table"))
        };
        Self {
            ranges: index.lines().map(range).collect(),
        }
    }

    /// A machine of ACPI 2.0 with an XSDT that lists a FADT and these tables; the DSDT is found through the FADT.
    pub(crate) fn with_tables(dsdt: &[u8], others: &[Vec<u8>]) -> Self {
        let mut machine = Self::default();
        let mut next = 0x7000_0000_u64;
        let mut put = |machine: &mut Self, bytes: Vec<u8>| {
            let address = next;
            next += 0x10_0000;
            machine.ranges.push((address, bytes));
            address
        };
        let dsdt = put(&mut machine, dsdt.to_vec());
        let mut fadt = vec![0; 244 - 36];
        fadt[140 - 36..148 - 36].copy_from_slice(&dsdt.to_le_bytes());
        let mut entries = put(&mut machine, table(*b"FACP", &fadt))
            .to_le_bytes()
            .to_vec();
        for other in others {
            entries.extend(put(&mut machine, other.clone()).to_le_bytes());
        }
        let xsdt = put(&mut machine, table(*b"XSDT", &entries));
        machine.ranges.push((RSDP, rsdp(0, xsdt)));
        machine
    }

    /// The bytes of the range that starts with this signature.
    pub(crate) fn table_mut(&mut self, signature: &[u8]) -> &mut Vec<u8> {
        let found = self
            .ranges
            .iter_mut()
            .find(|(_, bytes)| bytes.starts_with(signature));
        &mut found.expect("table").1
    }
}

/// Where [`Machine::with_tables`] puts the RSDP.
pub(crate) const RSDP: u64 = 0xe_0010;

/// An RSDP of revision 2.
pub(crate) fn rsdp(rsdt: u32, xsdt: u64) -> Vec<u8> {
    let mut bytes = b"RSD PTR \0GNOMON\x02".to_vec();
    bytes.extend(rsdt.to_le_bytes());
    bytes.extend(36_u32.to_le_bytes());
    bytes.extend(xsdt.to_le_bytes());
    bytes.extend([0; 4]);
    fix_checksum(&mut bytes[..20], 8);
    fix_checksum(&mut bytes, 32);
    bytes
}

/// A table with a right header around `body`.
pub(crate) fn table(signature: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut bytes = signature.to_vec();
    bytes.extend(
        u32::try_from(36 + body.len())
            .expect("length")
            .to_le_bytes(),
    );
    bytes.extend(b"\x02\0GNOMONTESTTEST\x01\0\0\0GNOM\x01\0\0\0");
    bytes.extend(body);
    fix_checksum(&mut bytes, 9);
    bytes
}

/// An AML package: opcode, a `PkgLength` of four bytes, contents.
pub(crate) fn package(opcode: &[u8], inside: &[u8]) -> Vec<u8> {
    let length = u32::try_from(inside.len() + 4).expect("28 bits");
    let low = 0xc0 | (length & 0xf).to_le_bytes()[0];
    let high = (length >> 4).to_le_bytes();
    [opcode, &[low], &high[..3], inside].concat()
}

/// Makes the bytes add up to zero by the one at `place`.
pub(crate) fn fix_checksum(bytes: &mut [u8], place: usize) {
    bytes[place] = 0;
    bytes[place] = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
}

/// A file among the fixtures.
pub(crate) fn fixture(name: &str) -> Vec<u8> {
    fs::read(fixtures().join(name)).expect(name)
}

/// A table compiled from `asl/`.
pub(crate) fn compiled(name: &str) -> Vec<u8> {
    fs::read(fixtures().join("asl").join(name).with_extension("aml")).expect(name)
}

/// The AML of a compiled table.
pub(crate) fn aml(name: &str) -> Vec<u8> {
    compiled(name).split_off(36)
}

/// Names of all compiled tables.
pub(crate) fn all_compiled() -> Vec<String> {
    let files = fs::read_dir(fixtures().join("asl")).expect("asl");
    let files = files.map(|file| file.expect("file").path());
    let names = files.filter(|file| file.extension().is_some_and(|extension| extension == "aml"));
    let mut names: Vec<_> = names
        .map(|file| {
            file.file_stem()
                .expect("stem")
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

/// The memory map of a machine with 64 MiB, as QEMU gives it.
pub(crate) const MAP: [MemoryRange; 6] = [
    MemoryRange {
        start: 0,
        length: 0x9_fc00,
        kind: MemoryKind::Usable,
    },
    MemoryRange {
        start: 0x9_fc00,
        length: 0x400,
        kind: MemoryKind::Reserved,
    },
    MemoryRange {
        start: 0xf_0000,
        length: 0x1_0000,
        kind: MemoryKind::Reserved,
    },
    MemoryRange {
        start: 0x10_0000,
        length: 0x3ee_0000,
        kind: MemoryKind::Usable,
    },
    MemoryRange {
        start: 0x3fe_0000,
        length: 0x2_0000,
        kind: MemoryKind::Reserved,
    },
    MemoryRange {
        start: 0xfeff_b000,
        length: 0x5000,
        kind: MemoryKind::Reserved,
    },
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/acpi")
}
