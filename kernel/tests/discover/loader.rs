//! The table loader script: QEMU's own, and every way in which one can be wrong.

use gnomon_kernel::discover::acpi::{Bad as BadTable, Tables};
use gnomon_kernel::discover::described::Description;
use gnomon_kernel::discover::hardware::{
    Conduit, Gic, Interrupt, Line, PciHost, Uart, UartModel, VirtioMmio,
};
use gnomon_kernel::discover::loader::{Bad, Files, Loaded, SCRIPT_MAX, Why, run};
use gnomon_kernel::discover::notification::{Event, Events};
use gnomon_kernel::discover::{NotFound, Window, vmclock};
use gnomon_kernel::memory::{MemoryKind, MemoryRange};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::machine::{Machine, fixture};

const BASE: u64 = 0x4030_0000;
/// What QEMU pads its tables to.
const TABLES: usize = 128 << 10;

/// The host's files in a list.
#[derive(Clone, Default)]
struct Host(Vec<(String, Vec<u8>)>);

impl Files for Host {
    fn length(&self, name: &str) -> Option<u32> {
        let (_, bytes) = self.0.iter().find(|(its, _)| its == name)?;
        u32::try_from(bytes.len()).ok()
    }

    fn read(&self, name: &str, into: &mut [u8]) -> bool {
        let Some((_, bytes)) = self.0.iter().find(|(its, _)| its == name) else {
            return false;
        };
        into.copy_from_slice(&bytes[..into.len()]);
        true
    }
}

impl Host {
    /// QEMU's files and its script.
    fn qemu(name: &str) -> (Self, Vec<u8>) {
        let file = |file: &str| fixture(&format!("{name}/{file}"));
        let mut tables = file("tables");
        tables.resize(TABLES, 0);
        let files = vec![
            ("etc/acpi/rsdp".to_owned(), file("rsdp")),
            ("etc/acpi/tables".to_owned(), tables),
        ];
        (Self(files), file("table-loader"))
    }

    fn one(length: usize) -> Self {
        Self(vec![("etc/acpi/rsdp".to_owned(), vec![0; length])])
    }
}

/// A machine with what was loaded, and its memory.
fn load(host: &Host, script: &[u8]) -> (Machine, Loaded) {
    let mut memory = vec![0; TABLES + 0x1000];
    let loaded = run(script, host, &mut memory, BASE).expect("a good script");
    memory.truncate(loaded.used);
    let machine = Machine {
        ranges: vec![(BASE, memory)],
    };
    (machine, loaded)
}

const fn window(address: u64, length: u64) -> Window {
    Window { address, length }
}

/// A shared interrupt, by level.
const fn shared(number: u32) -> Interrupt {
    Interrupt {
        number: number + 32,
        edge: false,
    }
}

#[test]
fn qemu_virt_is_described_as_its_device_tree_does() {
    for (name, gic) in [
        (
            "virt-gic2",
            Gic::V2 {
                distributor: window(0x0800_0000, 0x1000),
                cpu: window(0x0801_0000, 0x2000),
            },
        ),
        (
            "virt-gic3",
            Gic::V3 {
                distributor: window(0x0800_0000, 0x1_0000),
                redistributors: window(0x080a_0000, 0xf6_0000),
            },
        ),
    ] {
        let (host, script) = Host::qemu(name);
        let (machine, loaded) = load(&host, &script);
        assert_eq!(loaded.rsdp, BASE);
        assert_eq!(loaded.used, 64 + TABLES);
        let tables = Tables::at(&machine, loaded.rsdp).expect("tables");
        let kinds = tables
            .iter()
            .map(|table| table.expect("good checksums").signature);
        assert_eq!(
            kinds.collect::<Vec<_>>().concat(),
            b"FACPAPICPPTTGTDTMCFGSPCRDBG2IORT",
            "{name}"
        );
        assert_eq!(tables.definition_blocks().bad(), None);

        let acpi = Description::Acpi(tables);
        assert_eq!(acpi.interrupt_controller(), Some(gic));
        assert_eq!(acpi.psci(), Some(Conduit::Hvc));
        assert_eq!(
            acpi.virtual_timer(),
            Some(Interrupt {
                number: 27,
                edge: false
            })
        );
        let console = Uart {
            window: window(0x0900_0000, 0x1000),
            model: UartModel::Pl011,
            interrupt: Some(shared(1)),
        };
        assert_eq!(acpi.console(), Some(console));
        let mut virtio = Vec::new();
        acpi.virtio_mmio(&mut |device| virtio.push(device));
        // The device tree has edges here; the device holds its line up until it is attended to.
        let expected = (0..32).map(|slot| VirtioMmio {
            window: window(0x0a00_0000 + 0x200 * u64::from(slot), 0x200),
            interrupt: Some(shared(16 + slot)),
        });
        assert_eq!(virtio, expected.collect::<Vec<_>>());
        let host = PciHost {
            ecam: window(0x40_1000_0000, 0x1000_0000),
            first_bus: 0,
            last_bus: 255,
            memory: Some(window(0x1000_0000, 0x2eff_0000)),
        };
        assert_eq!(acpi.pci_host(), Some(host));
        for device in 0..32_u8 {
            for pin in 1..=4 {
                let line = 3 + (device + pin - 1) % 4;
                assert_eq!(
                    acpi.pci_interrupt(device, pin),
                    Some(shared(line.into())),
                    "{device} {pin}"
                );
            }
        }
        assert_eq!(acpi.pci_interrupt(1, 0), None);
        assert_eq!(acpi.pci_interrupt(1, 5), None);
        assert_eq!(acpi.pci_interrupt(32, 1), None);
        assert_eq!(vmclock(None, Ok(&tables), &[]), Err(NotFound::Absent));
    }
}

#[test]
fn a_vmclock_table_among_them_is_found() {
    let (host, script) = Host::qemu("virt-vmclock");
    let (machine, loaded) = load(&host, &script);
    let tables = Tables::at(&machine, loaded.rsdp).expect("tables");
    let found = vmclock(None, Ok(&tables), &[]).expect("a page");
    assert_eq!(
        found.to_string(),
        r"\_SB.VCLK (AMZNC10C) at 0x40010000, 4096 bytes"
    );
    assert_eq!(Description::Acpi(tables).psci(), Some(Conduit::Hvc));
    // Beside QEMU's own generic event device, whose code is about others.
    let events = Events::of(&tables, Some(found.window), &[]).expect("an interrupt");
    let line = Line {
        number: 40,
        edge: true,
        low: false,
    };
    assert_eq!(events.iter().collect::<Vec<_>>(), [Event::Interrupt(line)]);
    // It lies in RAM: somebody has to say that it is not for the guest.
    let mut ram = MemoryRange {
        start: 0x4000_0000,
        length: 0x200_0000,
        kind: MemoryKind::Usable,
    };
    assert!(vmclock(None, Ok(&tables), &[ram]).is_err());
    ram.kind = MemoryKind::Reserved;
    assert!(vmclock(None, Ok(&tables), &[ram]).is_ok());
}

fn entry(command: u32) -> [u8; 128] {
    let mut entry = [0; 128];
    entry[..4].copy_from_slice(&command.to_le_bytes());
    entry
}

fn allocate(name: &str, align: u32) -> [u8; 128] {
    let mut entry = entry(1);
    entry[4..4 + name.len()].copy_from_slice(name.as_bytes());
    entry[60..64].copy_from_slice(&align.to_le_bytes());
    entry[64] = 1;
    entry
}

fn pointer(to: &str, from: &str, offset: u32, size: u8) -> [u8; 128] {
    let mut entry = entry(2);
    entry[4..4 + to.len()].copy_from_slice(to.as_bytes());
    entry[60..60 + from.len()].copy_from_slice(from.as_bytes());
    entry[116..120].copy_from_slice(&offset.to_le_bytes());
    entry[120] = size;
    entry
}

fn checksum(name: &str, result: u32, start: u32, length: u32) -> [u8; 128] {
    let mut entry = entry(3);
    entry[4..4 + name.len()].copy_from_slice(name.as_bytes());
    for (place, value) in [(60, result), (64, start), (68, length)] {
        entry[place..place + 4].copy_from_slice(&value.to_le_bytes());
    }
    entry
}

/// Runs these commands over an RSDP file of 64 bytes, in 256 bytes of memory.
fn outcome(commands: &[[u8; 128]]) -> Result<(Loaded, Vec<u8>), Bad> {
    let mut memory = vec![0; 256];
    let loaded = run(&commands.concat(), &Host::one(64), &mut memory, BASE)?;
    Ok((loaded, memory))
}

const FILE: &str = "etc/acpi/rsdp";

#[test]
fn commands_do_what_they_say() {
    let (loaded, memory) = outcome(&[
        entry(0),
        allocate(FILE, 16),
        entry(4),
        pointer(FILE, FILE, 8, 4),
        checksum(FILE, 0, 0, 64),
    ])
    .expect("good");
    assert_eq!(
        loaded,
        Loaded {
            rsdp: BASE,
            used: 64
        }
    );
    assert_eq!(memory[8..12], 0x4030_0000_u32.to_le_bytes());
    assert_eq!(
        memory
            .iter()
            .fold(0_u8, |sum, byte| sum.wrapping_add(*byte)),
        0
    );
    assert_eq!(memory[0], 0_u8.wrapping_sub(0x70));
}

#[test]
fn malformed_scripts_are_refused_with_a_reason() {
    let long = "a".repeat(56);
    let good = allocate(FILE, 16);
    let pointer = |offset, size| pointer(FILE, FILE, offset, size);
    let sum = |result, start| checksum(FILE, result, start, 64);
    let refused: [(&[[u8; 128]], usize, Why); 17] = [
        (&[], 0, Why::NoRsdp),
        (&[entry(5)], 1, Why::Command(5)),
        (&[allocate(&long, 16)], 1, Why::Name),
        (&[allocate("", 16)], 1, Why::Name),
        (&[allocate("other", 16)], 1, Why::File),
        (&[good, good], 2, Why::Again),
        (&[allocate(FILE, 0)], 1, Why::Alignment(0)),
        (&[allocate(FILE, 3)], 1, Why::Alignment(3)),
        (&[allocate(FILE, 1 << 31)], 1, Why::Alignment(1 << 31)),
        (&[pointer(0, 8)], 1, Why::NotAllocated),
        (&[good, pointer(57, 8)], 2, Why::Outside),
        (&[good, pointer(u32::MAX, 8)], 2, Why::Outside),
        (&[good, pointer(0, 3)], 2, Why::Pointer),
        // An address of 31 bits in 16.
        (&[good, pointer(0, 2)], 2, Why::Pointer),
        // The same pointer twice: by then it leads out of the file.
        (&[good, pointer(0, 8), pointer(0, 8)], 3, Why::Pointer),
        (&[good, sum(64, 0)], 2, Why::Outside),
        (&[good, sum(0, 1)], 2, Why::Outside),
    ];
    for (commands, command, why) in refused {
        let bad = outcome(commands).expect_err("a bad script");
        assert_eq!(bad, Bad { command, why });
    }
}

#[test]
fn each_reason_is_a_sentence() {
    let said = |why| Bad { command: 3, why }.to_string();
    let sentences = [
        (Why::Script, "the script is too long, or its end is missing"),
        (Why::Command(5), "0x5 is not known"),
        (Why::Name, "a file name that has no end or is not text"),
        (Why::File, "there is no such file"),
        (Why::Again, "the file has been allocated before"),
        (Why::Files, "there are more than 8 files"),
        (Why::Alignment(3), "an alignment of 3"),
        (Why::Memory(262_144), "no room for 262144 bytes"),
        (Why::NotAllocated, "the file has not been allocated"),
        (Why::Outside, "a place outside of its file"),
        (
            Why::Pointer,
            "a pointer of an odd size, or that leads nowhere",
        ),
        (Why::Sums, "the checksums take too long"),
        (Why::NoRsdp, "no rsdp was allocated"),
    ];
    for (why, sentence) in sentences {
        let expected = format!("acpi table loader, command 3: {sentence}");
        assert_eq!(said(why), expected);
    }
}

#[test]
fn what_is_too_much_is_refused() {
    let mut memory = [0; 256];
    let mut why = |script: &[u8], host: &Host| {
        run(script, host, &mut memory, BASE)
            .expect_err("too much")
            .why
    };
    // Room: what is not there is not written, and a file is never cut.
    assert_eq!(why(&allocate(FILE, 16), &Host::one(257)), Why::Memory(257));
    let two = Host(vec![
        (FILE.to_owned(), vec![1]),
        ("b".to_owned(), vec![2; 1]),
    ]);
    let script = [allocate(FILE, 1), allocate("b", 4096)].concat();
    assert_eq!(why(&script, &two), Why::Memory(1));
    // Files.
    let names: Vec<_> = (0..9).map(|name| format!("file {name}")).collect();
    let many = Host(names.iter().map(|name| (name.clone(), vec![0])).collect());
    let script: Vec<_> = names.iter().flat_map(|name| allocate(name, 1)).collect();
    assert_eq!(why(&script, &many), Why::Files);
    // Time.
    let sums = [checksum(FILE, 0, 0, 64); 64].concat();
    let script = [&allocate(FILE, 1), &sums[..]].concat();
    assert_eq!(why(&script, &Host::one(64)), Why::Sums);
    // The script itself.
    assert_eq!(why(&[0; 127], &Host::one(64)), Why::Script);
    assert_eq!(why(&vec![0; SCRIPT_MAX + 128], &Host::one(64)), Why::Script);
    assert_eq!(
        run(
            &allocate(FILE, 1),
            &Host::one(64),
            &mut memory,
            u64::MAX - 63
        )
        .map(|loaded| loaded.rsdp),
        Ok(u64::MAX - 63)
    );
}

/// A file that says it is longer than it is, and one that cannot be read.
struct Liar(u32);

impl Files for Liar {
    fn length(&self, _: &str) -> Option<u32> {
        Some(self.0)
    }

    fn read(&self, _: &str, _: &mut [u8]) -> bool {
        false
    }
}

#[test]
fn a_host_that_lies_about_its_files_gets_nothing() {
    let mut memory = [7; 64];
    let why = |length, memory: &mut [u8]| {
        run(&allocate(FILE, 16), &Liar(length), memory, BASE)
            .expect_err("a lie")
            .why
    };
    assert_eq!(why(u32::MAX, &mut memory), Why::Memory(u32::MAX));
    assert_eq!(why(64, &mut memory), Why::File);
    assert_eq!(memory, [7; 64]);
}

/// Everything that is asked of the tables.
fn exercise(machine: &Machine, rsdp: u64) -> Result<(), BadTable> {
    let acpi = Description::Acpi(Tables::at(machine, rsdp)?);
    let _ = (
        acpi.console(),
        acpi.psci(),
        acpi.interrupt_controller(),
        acpi.virtual_timer(),
        acpi.pci_host(),
        acpi.pci_interrupt(1, 1),
    );
    acpi.virtio_mmio(&mut |_| ());
    Ok(())
}

#[test]
fn damaged_tables_with_good_checksums_do_no_harm() {
    // The script itself makes the checksums right, so damage gets to the readers.
    for name in ["virt-gic2", "virt-gic3"] {
        let (mut host, script) = Host::qemu(name);
        host.0[1].1.truncate(7000);
        for at in (0..6700).step_by(7) {
            for value in [0, 0xff] {
                let mut host = host.clone();
                host.0[1].1[at] = value;
                let mut memory = vec![0; 0x2000];
                if let Ok(loaded) = run(&script, &host, &mut memory, BASE) {
                    let machine = Machine {
                        ranges: vec![(BASE, memory)],
                    };
                    let _ = exercise(&machine, loaded.rsdp);
                }
            }
        }
    }
}

/// A command that may be good, or nearly.
fn any_command() -> impl Strategy<Value = [u8; 128]> {
    let name = || prop_oneof![Just(FILE), Just("b"), Just("c")];
    let place = || prop_oneof![0_u32..80, any::<u32>()];
    prop_oneof![
        (name(), prop_oneof![Just(1_u32), Just(16), any::<u32>()])
            .prop_map(|(name, align)| allocate(name, align)),
        (name(), name(), place(), 0_u8..10)
            .prop_map(|(to, from, offset, size)| pointer(to, from, offset, size)),
        (name(), place(), place(), place())
            .prop_map(|(name, result, start, length)| checksum(name, result, start, length)),
        vec(any::<u8>(), 128).prop_map(|bytes| bytes.try_into().expect("128")),
    ]
}

proptest! {
    #[test]
    fn any_script_ends_within_its_memory(
        commands in vec(any_command(), 0..24),
        cut in 0_usize..128,
        b in vec(any::<u8>(), 0..200),
    ) {
        let host = Host(vec![
            (FILE.to_owned(), vec![0; 36]),
            ("b".to_owned(), b),
            ("c".to_owned(), Vec::new()),
        ]);
        let mut script = commands.concat();
        script.truncate(script.len().saturating_sub(if cut < 100 { 0 } else { cut }));
        // Guards on both sides of the memory that is lent.
        let mut memory = vec![0xa5; 64 + 256 + 64];
        match run(&script, &host, &mut memory[64..320], BASE) {
            Ok(loaded) => {
                prop_assert!(loaded.used <= 256);
                prop_assert!((BASE..BASE + 256).contains(&loaded.rsdp));
            }
            Err(bad) => prop_assert!(!bad.to_string().is_empty()),
        }
        prop_assert!(memory[..64].iter().chain(&memory[320..]).all(|byte| *byte == 0xa5));
    }

    #[test]
    fn any_bytes_are_a_script_or_none(script in vec(any::<u8>(), 0..1024)) {
        let mut memory = [0; 256];
        let _ = run(&script, &Host::one(64), &mut memory, BASE);
    }
}
