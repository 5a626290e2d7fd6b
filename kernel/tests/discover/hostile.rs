//! Tables that were cut, corrupted or made up to do harm: always an answer, and soon.

use gnomon_kernel::discover::acpi::Tables;
use gnomon_kernel::discover::aml::Namespace;
use gnomon_kernel::discover::resource::resources;
use gnomon_kernel::discover::{Found, NotFound, vmclock, vmclock_in};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::machine::{MAP, Machine, all_compiled, aml, compiled, fix_checksum, package, table};

/// Everything that is asked of tables at start-up and by the console, on these blocks.
fn exercise(blocks: &[&[u8]]) -> Result<Found, NotFound> {
    let namespace = Namespace::new(blocks);
    let result = vmclock_in(&namespace, &MAP);
    check(&result);
    let _ = namespace.soft_off();
    for entry in namespace.entries() {
        if let Some(object) = entry.object() {
            let _ = (namespace.evaluate(&object), object.path.to_string());
        }
    }
    // A spent budget ends a walk at its next step; what was charged beyond it is one scan of a package.
    let bytes: usize = blocks.iter().map(|block| block.len()).sum();
    assert!(
        namespace.steps() <= namespace.limit() + 64 * (bytes as u64 + 1),
        "{} steps",
        namespace.steps()
    );
    result
}

/// What is found is a sane page outside RAM; what is not has a reason in words.
fn check(result: &Result<Found, NotFound>) {
    match result {
        Ok(found) => {
            assert_eq!(found.window.check(&MAP), Ok(()));
            assert!(!found.to_string().is_empty());
        }
        Err(reason) => assert!(!reason.to_string().is_empty()),
    }
}

/// The same on a whole machine.
fn exercise_machine(machine: &Machine) {
    let tables = Tables::search(machine);
    check(&vmclock(None, tables.as_ref().map_err(|bad| *bad), &MAP));
    if let Ok(tables) = tables {
        let _ = tables.fadt().map(|fadt| {
            (
                fadt.pm_timer(),
                fadt.reset(),
                fadt.pm1a_control(),
                fadt.sleep_control(),
                fadt.century(),
                fadt.may_have_cmos(),
            )
        });
        assert!(
            tables
                .ecam()
                .all(|ecam| ecam.window().0.checked_add(ecam.window().1).is_some())
        );
        assert!(tables.iter().count() <= gnomon_kernel::discover::acpi::TABLES);
    }
}

#[test]
fn every_prefix_of_every_fixture() {
    for name in all_compiled() {
        let aml = aml(&name);
        for length in 0..=aml.len() {
            let _ = exercise(&[&aml[..length]]);
        }
    }
    for name in ["q35", "pc"] {
        let machine = Machine::dumped(name);
        let blocks = Tables::search(&machine).expect(name).definition_blocks();
        let [dsdt, ssdt] = blocks.aml() else {
            panic!("two blocks")
        };
        for length in (0..dsdt.len()).step_by(61) {
            // The page is in the other block, and is found whatever happens to this one.
            assert!(
                exercise(&[&dsdt[..length], ssdt]).is_ok(),
                "{name} cut at {length}"
            );
        }
    }
}

#[test]
fn every_bit_of_every_small_fixture() {
    for name in all_compiled() {
        let good = aml(&name);
        for index in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[index] ^= 1 << bit;
                let _ = exercise(&[&bad]);
            }
            for byte in [0x00, 0xff] {
                let mut bad = good.clone();
                bad[index] = byte;
                let _ = exercise(&[&bad]);
            }
        }
    }
}

#[test]
fn every_corrupted_byte_and_cut_of_the_tables_above_the_aml() {
    // The fixed tables of a real machine around AML that is quickly read; that has its own tests.
    let mut dumped = Machine::dumped("q35");
    let mut fadt = dumped.table_mut(b"FACP").clone();
    fadt[140..148].copy_from_slice(&0x1000_u64.to_le_bytes());
    fix_checksum(&mut fadt, 9);
    let others = [dumped.table_mut(b"MCFG").clone(), compiled("qword"), fadt];
    let mut good = Machine::with_tables(&table(*b"DSDT", b""), &others);
    good.ranges.push((0x1000, compiled("firecracker")));
    for range in 0..good.ranges.len() {
        let (_, bytes) = &good.ranges[range];
        let place = if bytes.starts_with(b"RSD PTR ") { 8 } else { 9 };
        for (index, good_byte) in bytes.iter().enumerate() {
            for byte in [0x00, good_byte ^ 1, 0x7f, 0x80, 0xff] {
                let mut machine = good.clone();
                machine.ranges[range].1[index] = byte;
                exercise_machine(&machine);
                // The same with a checksum that is right again, so that the field itself is judged.
                fix_checksum(&mut machine.ranges[range].1, place);
                exercise_machine(&machine);
            }
            let mut machine = good.clone();
            machine.ranges[range].1.truncate(index);
            exercise_machine(&machine);
        }
    }
}

#[test]
fn a_table_that_lies_about_its_length() {
    let length_field = |length: u32| {
        let mut machine = Machine::dumped("q35");
        let ssdt = machine.table_mut(b"SSDT");
        ssdt[4..8].copy_from_slice(&length.to_le_bytes());
        fix_checksum(ssdt, 9);
        let tables = Tables::search(&machine).expect("tables");
        vmclock(None, Ok(&tables), &MAP)
            .expect_err("a lie")
            .to_string()
    };
    for length in [0, 35, 160, 0x10_0001, u32::MAX] {
        assert_eq!(
            length_field(length),
            format!("not found: the acpi table at 0x3fe22b5 has a wrong length of {length}")
        );
    }
    // Shorter than it is: the checksum no longer covers what it did.
    assert_eq!(
        length_field(100),
        "not found: the SSDT at 0x3fe22b5 has a wrong checksum"
    );
}

#[test]
fn scopes_made_to_be_searched_for_spend_no_more_than_the_budget() {
    // Device (\AAAA) { Scope (BBBB) {} Scope (BBBB) {} ... }: each search would walk everything.
    let inside = b"\x10\x05BBBB".repeat(4_000);
    let aml = package(b"\x5b\x82", &[b"\\AAAA", &*inside].concat());
    let result = exercise(&[&aml]).expect_err("no device");
    assert_eq!(
        result.to_string(),
        r"not found: \ has tables that take too long to read"
    );
}

#[test]
fn methods_made_to_be_searched_for_spend_no_more_than_the_budget() {
    // Method (_HID) { Return (YYYY) }, over and over.
    let aml = b"\x14\x0b_HID\x00\xa4YYYY".repeat(4_000);
    assert!(exercise(&[&aml]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes(first in vec(any::<u8>(), 0..512), second in vec(any::<u8>(), 0..64)) {
        let _ = exercise(&[&first, &second]);
        prop_assert!(resources(&first).count() <= first.len() + 1);
    }

    /// Bytes that AML is made of, so that more of them are understood.
    #[test]
    fn random_terms(terms in vec(prop::sample::select(TERMS), 0..200)) {
        let _ = exercise(&[&terms.concat()]);
    }

    #[test]
    fn random_templates(pieces in vec(prop::sample::select(DESCRIPTORS), 0..20)) {
        let template = pieces.concat();
        prop_assert!(resources(&template).count() <= template.len() + 1);
    }

    #[test]
    fn big_tables_with_random_changes(
        machine in prop::sample::select(&["q35", "pc"][..]),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..16),
    ) {
        let machine = Machine::dumped(machine);
        let blocks = Tables::search(&machine).expect("tables").definition_blocks();
        let mut blocks: Vec<_> = blocks.aml().iter().map(|block| block.to_vec()).collect();
        for (place, byte) in changes {
            let block = &mut blocks[usize::from(byte.is_multiple_of(8))];
            let index = place.index(block.len());
            block[index] = byte;
        }
        let _ = exercise(&[&blocks[0], &blocks[1]]);
    }

    #[test]
    fn random_machines(
        fadt in vec(any::<u8>(), 0..280),
        mcfg in vec(any::<u8>(), 0..100),
        root in vec(any::<u64>(), 0..10),
    ) {
        let others = [table(*b"FACP", &fadt), table(*b"MCFG", &mcfg)];
        let mut machine = Machine::with_tables(&table(*b"DSDT", b"\x10"), &others);
        exercise_machine(&machine);
        let root: Vec<u8> = root.into_iter().flat_map(u64::to_le_bytes).collect();
        *machine.table_mut(b"XSDT") = table(*b"XSDT", &root);
        exercise_machine(&machine);
    }
}

const TERMS: &[&[u8]] = &[
    b"\x10",
    b"\x5b\x82",
    b"\x08",
    b"\x14",
    b"\x5b\x81",
    b"\x5b\x80",
    b"\x11",
    b"\x12",
    b"\x13",
    b"\xa4",
    b"\xa0",
    b"\x15",
    b"\x5b\x83",
    b"\x8a",
    b"\x5b\x13",
    b"\x06",
    b"\x05",
    b"\x0b",
    b"\x10",
    b"\x3f",
    b"\x41\x02",
    b"\x00",
    b"\x01",
    b"\xff",
    b"\x0a",
    b"\x0d",
    b"_HID",
    b"_CID",
    b"_STA",
    b"_CRS",
    b"_DSD",
    b"_SB_",
    b"VCLK",
    b"AMZNC10C\0",
    b"VMCLOCK\0",
    b"\\",
    b"^",
    b"\x2e",
    b"\x2f\x03",
    b"\x86\x09\x00\x00\x00\xb0\xff\xfe\x00\x10\x00\x00\x79\x00",
    b"\x72",
    b"\x88",
    b"PRP0001\0",
];

const DESCRIPTORS: &[&[u8]] = &[
    b"\x86\x09\x00",
    b"\x8a\x2b\x00",
    b"\x87\x17\x00",
    b"\x88\x0d\x00",
    b"\x8b\x35\x00",
    b"\x81\x09\x00",
    b"\x85\x11\x00",
    b"\x89\x06\x00",
    b"\x79",
    b"\x47",
    b"\x22",
    b"\xff\xff\xff",
    b"\x00",
    b"\x10\x00\x00\x00",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
];
