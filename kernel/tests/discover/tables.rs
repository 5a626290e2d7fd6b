//! From the RSDP to definition blocks, on QEMU's tables and made-up ones.

use gnomon_kernel::discover::acpi::{Bad, Ecam, Register, Rsdp, Space, Tables, find_rsdp};
use gnomon_kernel::discover::aml::{Entry, Id, Kind, Namespace};
use gnomon_kernel::discover::{How, NotFound, vmclock};

use crate::machine::{MAP, Machine, RSDP, compiled, fix_checksum, rsdp, table};

#[test]
fn qemu_machines_have_their_page_found() {
    for name in ["q35", "pc"] {
        let machine = Machine::dumped(name);
        let tables = Tables::search(&machine).expect(name);
        let found = vmclock(None, Ok(&tables), &MAP).expect(name);
        assert_eq!(
            found.to_string(),
            r"\_SB.VCLK (AMZNC10C) at 0xfeffb000, 4096 bytes",
            "{name}"
        );
        assert_eq!(found.how, How::HardwareId);
    }
}

#[test]
fn a_cmos_clock_may_be_absent_and_may_have_no_century() {
    for (century, flags, expected) in [
        (0x32, 0, (true, Some(0x32))),
        (0, 0, (true, None)),
        (0x0d, 0xdf, (true, None)),
        (0x80, 0, (true, None)),
        (0x32, 0x20, (false, Some(0x32))),
    ] {
        let mut machine = Machine::dumped("q35");
        let fadt = machine.table_mut(b"FACP");
        fadt[108] = century;
        fadt[109] = flags;
        fix_checksum(fadt, 9);
        let tables = Tables::search(&machine).expect("tables");
        let fadt = tables.fadt().expect("a FADT");
        assert_eq!((fadt.may_have_cmos(), fadt.century()), expected);
    }
}

#[test]
fn qemu_fixed_registers_are_read() {
    let port = |address, bits| Register {
        space: Space::Port,
        bits,
        address,
    };
    for (name, base) in [("q35", 0x600), ("pc", 0x600)] {
        let machine = Machine::dumped(name);
        let tables = Tables::search(&machine).expect(name);
        let fadt = tables.fadt().expect(name);
        assert_eq!(fadt.pm_timer(), Some(port(base + 8, 32)), "{name}");
        assert_eq!(fadt.pm1a_control(), Some(port(base + 4, 16)), "{name}");
        assert_eq!(fadt.pm1b_control(), None);
        assert_eq!(fadt.sleep_control(), None);
        assert!(!fadt.is_hardware_reduced());
        assert_eq!((fadt.may_have_cmos(), fadt.century()), (true, Some(0x32)));
        let blocks = tables.definition_blocks();
        assert_eq!(
            Namespace::new(blocks.aml()).soft_off(),
            Some((0, 0)),
            "{name}"
        );
    }
    let machine = Machine::dumped("q35");
    let tables = Tables::search(&machine).expect("q35");
    assert_eq!(
        tables.fadt().expect("fadt").reset(),
        Some((port(0xcf9, 8), 0x0f))
    );
    let ecam = Ecam {
        base: 0xb000_0000,
        segment: 0,
        first_bus: 0,
        last_bus: 255,
    };
    assert_eq!(tables.ecam().collect::<Vec<_>>(), [ecam]);
    assert_eq!(ecam.window(), (0xb000_0000, 0x1000_0000));
    let machine = Machine::dumped("pc");
    let tables = Tables::search(&machine).expect("pc");
    assert_eq!(tables.ecam().count(), 0);
    assert_eq!(tables.fadt().expect("fadt").reset(), None);
}

/// The counts are those of `iasl -d` on the same tables, less what is declared inside methods.
#[test]
fn the_walk_of_qemu_tables_loses_nothing() {
    for (name, devices, names, methods) in [("q35", 36, 116, 72), ("pc", 54, 161, 102)] {
        let machine = Machine::dumped(name);
        let blocks = Tables::search(&machine).expect(name).definition_blocks();
        assert_eq!((blocks.aml().len(), blocks.bad()), (2, None), "{name}");
        let namespace = Namespace::new(blocks.aml());
        assert_eq!(
            namespace.entries().filter_map(Entry::skipped).count(),
            0,
            "{name}"
        );
        let count = |kind| {
            namespace
                .objects()
                .filter(|object| object.kind == kind)
                .count()
        };
        assert_eq!(
            (count(Kind::Device), count(Kind::Name), count(Kind::Method)),
            (devices, names, methods),
            "{name}"
        );
        assert_eq!(count(Kind::Processor), 1, "{name}");
    }
}

#[test]
fn devices_of_qemu_machines_have_their_paths() {
    let paths = |name: &str, id: &str| {
        let machine = Machine::dumped(name);
        let blocks = Tables::search(&machine).expect(name).definition_blocks();
        let namespace = Namespace::new(blocks.aml());
        let is_wanted = |other: &Id<'_>| other.is(id);
        let paths = namespace
            .identifiers(&is_wanted)
            .filter(|(_, id)| is_wanted(id))
            .map(|(path, _)| path.to_string());
        paths.collect::<Vec<_>>()
    };
    assert_eq!(paths("q35", "PNP0501"), [r"\_SB.PCI0.SF8.COM1"]);
    assert_eq!(paths("pc", "PNP0501"), [r"\_SB.PCI0.S08.COM1"]);
    assert_eq!(paths("q35", "PNP0A08"), [r"\_SB.PCI0"]);
    assert_eq!(paths("pc", "PNP0A03"), [r"\_SB.PCI0"]);
    assert_eq!(paths("q35", "PNP0B00"), [r"\_SB.PCI0.SF8.RTC"]);
    assert_eq!(paths("q35", "QEMU0002"), [r"\_SB.PCI0.FWCF"]);
    assert_eq!(paths("q35", "ACPI0010"), [r"\_SB.CPUS"]);
    assert_eq!(
        paths("pc", "PNP0C0F"),
        [
            r"\_SB.LNKA",
            r"\_SB.LNKB",
            r"\_SB.LNKC",
            r"\_SB.LNKD",
            r"\_SB.LNKS"
        ]
    );
    assert_eq!(paths("q35", "PNP0C0F").len(), 16);
    assert_eq!(paths("q35", "AMZNC10C"), [r"\_SB.VCLK"]);
}

#[test]
fn discovery_on_qemu_machines_takes_few_steps() {
    for name in ["q35", "pc"] {
        let machine = Machine::dumped(name);
        let blocks = Tables::search(&machine).expect(name).definition_blocks();
        let namespace = Namespace::new(blocks.aml());
        gnomon_kernel::discover::vmclock_in(&namespace, &MAP).expect(name);
        assert!(
            namespace.steps() < namespace.limit() / 4,
            "{name}: {} of {}",
            namespace.steps(),
            namespace.limit()
        );
    }
}

#[test]
fn an_xsdt_is_preferred_and_an_rsdt_is_its_fallback() {
    let mut machine = Machine::with_tables(&compiled("firecracker"), &[]);
    let tables = Tables::at(&machine, RSDP).expect("xsdt");
    assert_eq!(tables.iter().count(), 1);
    // A second root without any tables, for a 32-bit entry to point to.
    machine.ranges.push((0x1000, table(*b"RSDT", &[])));
    let xsdt = Rsdp::read(&machine, RSDP).expect("rsdp").xsdt;
    *machine.table_mut(b"RSD PTR ") = rsdp(0x1000, xsdt);
    assert_eq!(Tables::at(&machine, RSDP).expect("xsdt").iter().count(), 1);
    machine.table_mut(b"XSDT")[20] ^= 1;
    assert_eq!(Tables::at(&machine, RSDP).expect("rsdt").iter().count(), 0);
    machine.table_mut(b"RSDT")[20] ^= 1;
    let bad = Tables::at(&machine, RSDP).expect_err("no good root");
    assert_eq!(
        bad,
        Bad::Checksum {
            address: xsdt,
            signature: *b"XSDT"
        }
    );
}

#[test]
fn the_dsdt_is_found_by_either_address() {
    let machine = Machine::with_tables(&compiled("firecracker"), &[]);
    let dsdt = machine.ranges[0].0;
    let with_fadt = |wide: u64, narrow: u32| {
        let mut machine = machine.clone();
        let fadt = machine.table_mut(b"FACP");
        fadt[140..148].copy_from_slice(&wide.to_le_bytes());
        fadt[40..44].copy_from_slice(&narrow.to_le_bytes());
        fix_checksum(fadt, 9);
        let tables = Tables::search(&machine).expect("tables");
        vmclock(None, Ok(&tables), &[]).map(|found| found.window.address)
    };
    let narrow = u32::try_from(dsdt).expect("below 4 GiB");
    assert_eq!(with_fadt(dsdt, 0), Ok(0xd_e000));
    assert_eq!(with_fadt(0, narrow), Ok(0xd_e000));
    assert_eq!(with_fadt(dsdt, 0x1234), Ok(0xd_e000));
    assert_eq!(with_fadt(0x1234, narrow), Ok(0xd_e000));
    assert_eq!(
        with_fadt(0, 0),
        Err(NotFound::Acpi(Bad::Absent { wanted: *b"DSDT" }))
    );
    assert_eq!(
        with_fadt(u64::MAX, 0),
        Err(NotFound::Acpi(Bad::Unreadable { address: u64::MAX }))
    );
    assert_eq!(
        with_fadt(0x1234, 0x5678),
        Err(NotFound::Acpi(Bad::Unreadable { address: 0x1234 }))
    );
}

#[test]
fn a_bad_table_is_a_reason_but_no_obstacle() {
    let nothing = table(*b"DSDT", &[]);
    let mut bad = compiled("qword");
    bad[50] ^= 1;
    let machine = Machine::with_tables(&nothing, &[bad.clone()]);
    let reason = vmclock(
        None,
        Tables::search(&machine).as_ref().map_err(|bad| *bad),
        &MAP,
    )
    .expect_err("bad checksum");
    assert_eq!(
        reason.to_string(),
        "not found: the SSDT at 0x70200000 has a wrong checksum"
    );
    let machine = Machine::with_tables(&nothing, &[bad, compiled("qword")]);
    let tables = Tables::search(&machine).expect("tables");
    assert!(vmclock(None, Ok(&tables), &MAP).is_ok());
}

#[test]
fn a_table_listed_often_is_read_once() {
    let mut machine = Machine::with_tables(&table(*b"DSDT", &[]), &[compiled("qword")]);
    let ssdt = machine
        .ranges
        .iter()
        .find(|(_, bytes)| bytes.starts_with(b"SSDT"))
        .expect("ssdt")
        .0;
    let entries: Vec<u8> = machine.table_mut(b"XSDT")[36..]
        .iter()
        .copied()
        .chain(ssdt.to_le_bytes().repeat(300))
        .collect();
    *machine.table_mut(b"XSDT") = table(*b"XSDT", &entries);
    let blocks = Tables::search(&machine)
        .expect("tables")
        .definition_blocks();
    assert_eq!((blocks.aml().len(), blocks.bad()), (2, None));
}

#[test]
fn the_rsdp_is_found_in_the_extended_bios_data_area_first() {
    let machine = Machine::with_tables(&table(*b"DSDT", &[]), &[]);
    assert_eq!(find_rsdp(&machine), Some(RSDP));
    let mut with_ebda = machine.clone();
    with_ebda
        .ranges
        .push((0x40e, 0x9fc0_u16.to_le_bytes().to_vec()));
    with_ebda
        .ranges
        .push((0x9_fc00, [vec![0; 0x3d0], rsdp(1, 1)].concat()));
    assert_eq!(find_rsdp(&with_ebda), Some(0x9_ffd0));
    let mut broken = machine;
    broken.table_mut(b"RSD PTR ")[9] ^= 1;
    assert_eq!(find_rsdp(&broken), None);
    assert_eq!(
        Tables::search(&broken).expect_err("nothing").to_string(),
        "there is no acpi rsdp"
    );
}

#[test]
fn ecam_windows_that_make_no_sense_are_left_out() {
    let entry = |base: u64, first: u8, last: u8| {
        [&base.to_le_bytes()[..], &[0, 0, first, last, 0, 0, 0, 0]].concat()
    };
    let entries = [
        entry(0, 0, 255),
        entry(0xb000_0001, 0, 255),
        entry(0xb000_0000, 2, 1),
        entry(0xffff_ffff_fff0_0000, 0, 255),
        entry(0x40_0000_0000, 0x10, 0x1f),
        vec![0xff; 7],
    ];
    let mcfg = table(*b"MCFG", &[vec![0; 8], entries.concat()].concat());
    let machine = Machine::with_tables(&table(*b"DSDT", &[]), &[mcfg]);
    let windows: Vec<_> = Tables::search(&machine)
        .expect("tables")
        .ecam()
        .map(|ecam| ecam.window())
        .collect();
    assert_eq!(windows, [(0x40_0100_0000, 0x100_0000)]);
}
