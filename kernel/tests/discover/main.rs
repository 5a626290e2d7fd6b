//! Discovery on real and made-up ACPI tables: what is found, and what is refused for which reason.

mod hostile;
mod loader;
mod machine;
mod notification;
mod tables;

use gnomon_kernel::discover::aml::{Entry, Kind, Namespace, Path, Unread};
use gnomon_kernel::discover::{How, NotFound, Refusal, Window, vmclock, vmclock_in};
use gnomon_kernel::memory::{MemoryKind, MemoryRange};
use machine::{MAP, aml, package};

/// Discovery in the AML of some fixtures, and its one line on the console.
fn discover(names: &[&str]) -> (Result<(Window, How), NotFound>, String) {
    let blocks: Vec<_> = names.iter().map(|name| aml(name)).collect();
    let blocks: Vec<_> = blocks.iter().map(Vec::as_slice).collect();
    let result = vmclock_in(&Namespace::new(&blocks), &MAP);
    let line = match &result {
        Ok(found) => found.to_string(),
        Err(reason) => reason.to_string(),
    };
    (result.map(|found| (found.window, found.how)), line)
}

fn line(name: &str) -> String {
    discover(&[name]).1
}

const PAGE: Window = Window {
    address: 0xfeff_b000,
    length: 0x1000,
};

#[test]
fn every_form_of_crs_is_read() {
    for name in [
        "qword",
        "dword",
        "memory32",
        "memory32-base",
        "memory32-fixed",
        "with-interrupt",
        "scope",
        "scope-search",
        "kinds",
    ] {
        assert_eq!(discover(&[name]).0, Ok((PAGE, How::HardwareId)), "{name}");
    }
    let elsewhere = [
        ("word", 0xa000),
        ("memory24", 0xd_0000),
        ("extended", 0x10_0000_0000),
        ("firecracker", 0xd_e000),
    ];
    for (name, address) in elsewhere {
        // Below 1 MiB QEMU's map has RAM where the 16-bit form can point to.
        let blocks = [aml(name)];
        let found = vmclock_in(&Namespace::new(&[&blocks[0]]), &MAP[1..]).map(|found| found.window);
        assert_eq!(
            found,
            Ok(Window {
                address,
                length: 0x1000
            }),
            "{name}"
        );
    }
}

#[test]
fn methods_that_return_constants_are_read() {
    for name in [
        "method-constant",
        "method-named",
        "method-local",
        "method-upward",
        "method-parent",
        "method-method",
        "hid-method",
    ] {
        assert_eq!(discover(&[name]).0, Ok((PAGE, How::HardwareId)), "{name}");
    }
}

#[test]
fn every_identifier_is_recognised() {
    assert_eq!(discover(&["cid-only"]).0, Ok((PAGE, How::CompatibleId)));
    assert_eq!(discover(&["cid-package"]).0, Ok((PAGE, How::HardwareId)));
    assert_eq!(discover(&["prp0001"]).0, Ok((PAGE, How::Compatible)));
    assert_eq!(discover(&["prp0001-list"]).0, Ok((PAGE, How::Compatible)));
    assert_eq!(discover(&["prp0001-other"]).0, Err(NotFound::Absent));
    assert_eq!(discover(&["prp0001-uuid"]).0, Err(NotFound::Mentioned));
}

#[test]
fn a_device_may_be_spread_over_tables() {
    assert_eq!(
        discover(&["split-dsdt", "split-ssdt"]).0,
        Ok((PAGE, How::HardwareId))
    );
    assert_eq!(
        discover(&["split-ssdt", "split-dsdt"]).0,
        Ok((PAGE, How::HardwareId))
    );
    assert_eq!(line("split-dsdt"), r"\_SB.VCLK refused: it has no _CRS");
    assert_eq!(discover(&["split-ssdt"]).0, Err(NotFound::Absent));
    assert_eq!(discover(&[]).0, Err(NotFound::Absent));
}

#[test]
fn a_device_that_is_not_there_is_refused() {
    assert_eq!(
        line("absent"),
        r"\_SB.VCLK refused: its _STA says that it is not present"
    );
    assert_eq!(
        line("absent-bus"),
        r"\_SB.BUS0.VCLK refused: its _STA says that it is not present"
    );
    assert_eq!(
        line("sta-computed"),
        r"\_SB.VCLK refused: \_SB.VCLK._STA is computed, which needs an interpreter"
    );
    let second = Window {
        address: 0xfeff_c000,
        ..PAGE
    };
    assert_eq!(discover(&["second-good"]).0, Ok((second, How::HardwareId)));
}

#[test]
fn what_is_computed_is_not_guessed() {
    let computed = [
        (
            "crs-computed",
            r"\_SB.VCLK refused: \_SB.VCLK._CRS is computed, which needs an interpreter",
        ),
        (
            "crs-patched",
            r"\_SB.VCLK refused: \_SB.VCLK.BUF0 is computed, which needs an interpreter",
        ),
        (
            "crs-field",
            r"\_SB.VCLK refused: \_SB.VCLK.PAGE is computed, which needs an interpreter",
        ),
        (
            "crs-size-computed",
            r"\_SB.VCLK refused: \_SB.VCLK._CRS is computed, which needs an interpreter",
        ),
        (
            "crs-missing",
            r"\_SB.VCLK refused: \_SB.VCLK._CRS refers to an object that is not declared",
        ),
        (
            "conditional",
            r"not found: \ has a conditional block, which needs an interpreter",
        ),
        (
            "hid-computed",
            "not found: it is named in the acpi tables, but not as a constant of a device",
        ),
    ];
    for (name, expected) in computed {
        assert_eq!(line(name), expected, "{name}");
    }
}

/// A device whose `_CRS` is a good page, with these bytes of AML in front of it.
fn device_with(before: &[u8]) -> Result<Window, String> {
    let template = b"\x86\x09\x00\x00\x00\xb0\xff\xfe\x00\x10\x00\x00\x79\x00";
    let crs = [
        b"\x08_CRS".as_slice(),
        &package(b"\x11", &[b"\x0a\x0e", &template[..]].concat()),
    ];
    let inside = [b"VCLK\x08_HID\x0dAMZNC10C\0", before, &crs.concat()].concat();
    let aml = package(b"\x5b\x82", &inside);
    vmclock_in(&Namespace::new(&[&aml]), &MAP)
        .map(|found| found.window)
        .map_err(|reason| reason.to_string())
}

#[test]
fn only_a_change_of_the_value_makes_it_computed() {
    assert_eq!(device_with(b""), Ok(PAGE));
    // Name (_UID, 0x0a), whose last byte is also the prefix of a byte constant.
    assert_eq!(device_with(b"\x08_UID\x0a\x0a"), Ok(PAGE));
    // Methods that return it, that only share its name with it, or that change it.
    assert_eq!(
        device_with(&package(b"\x14", b"_PRS\x00\xa4_CRS")),
        Ok(PAGE)
    );
    assert_eq!(
        device_with(&package(b"\x14", b"_PRS\x00\xa4^_CRS")),
        Ok(PAGE)
    );
    assert_eq!(
        device_with(&package(b"\x14", b"_PRS\x00\xa4\\\x2eVCLK_CRS")),
        Ok(PAGE)
    );
    assert_eq!(
        device_with(&package(b"\x5b\x82", b"SUB0\x14\x08_CRS\x00\xa4\x00")),
        Ok(PAGE)
    );
    let computed =
        Err(r"\VCLK refused: \VCLK._CRS is computed, which needs an interpreter".to_owned());
    assert_eq!(
        device_with(&package(b"\x14", b"_INI\x00\x8a_CRS\x00FLD0")),
        computed
    );
    assert_eq!(
        device_with(&package(b"\x14", b"_INI\x00\x70\x0a\x08_CRS")),
        computed
    );
    assert_eq!(
        device_with(&package(b"\x14", b"_INI\x00\x70\x0b\x00\xa4\\\x2eVCLK_CRS")),
        computed
    );
}

#[test]
fn a_device_that_was_read_in_part_is_refused() {
    // If (COND) { Name (_STA, 0) }: the device may not be there.
    let conditional = r"\VCLK refused: it has a conditional block, which needs an interpreter";
    assert_eq!(
        device_with(&package(b"\xa0", b"COND\x08_STA\x00")),
        Err(conditional.to_owned())
    );
    assert_eq!(
        device_with(&package(b"\xa0", b"COND\x08_UID\x00")),
        Ok(PAGE)
    );
    // If (Zero) never counts.
    assert_eq!(
        device_with(&package(b"\xa0", b"\x00\x08_STA\x00")),
        Ok(PAGE)
    );
    // Code of unknown length, behind which the resources are lost.
    let code = r"\VCLK refused: it has code after the unknown opcode 0xcc";
    assert_eq!(device_with(b"\xcc"), Err(code.to_owned()));
}

#[test]
fn names_that_lead_in_circles_end() {
    // Device (\_SB.VCLK) { Name (_HID, "AMZNC10C") Method (_CRS) { Return (AAAA) } Method (AAAA) { Return (_CRS) } }
    let aml = b"\x5b\x82\x32\\\x2e_SB_VCLK\x08_HID\x0dAMZNC10C\0\x14\x0b_CRS\x00\xa4AAAA\x14\x0bAAAA\x00\xa4_CRS";
    let refused = vmclock_in(&Namespace::new(&[aml]), &MAP)
        .expect_err("a circle")
        .to_string();
    assert_eq!(
        refused,
        r"\_SB.VCLK refused: \_SB.VCLK._CRS is at the end of too many references"
    );
}

#[test]
fn resources_that_are_no_page_are_refused() {
    let refused = [
        ("crs-none", "it has no _CRS"),
        ("crs-integer", "its _CRS is not a buffer"),
        ("crs-no-memory", "its _CRS has no memory"),
        ("crs-two", "its _CRS has 2 memory ranges instead of one"),
        ("crs-empty", "its memory is 0 bytes long"),
        ("crs-null", "its memory is at address 0"),
        (
            "crs-short",
            "its memory at 0xfeffb000, 112 bytes, is not whole pages of 4096",
        ),
        (
            "crs-unaligned",
            "its memory at 0xfeffb800, 4096 bytes, is not whole pages of 4096",
        ),
        (
            "crs-large",
            "its memory at 0x80000000, 1073741824 bytes, is more than 1048576",
        ),
        (
            "crs-beyond",
            "its memory at 0xfffffffffffff000, 4096 bytes, is beyond all physical addresses",
        ),
        (
            "crs-ram",
            "its memory at 0x200000, 4096 bytes, overlaps usable ram at 0x100000, 65929216 bytes",
        ),
        ("crs-movable", "its memory is not at a fixed address"),
        (
            "crs-translated",
            "its memory address is translated by a bridge",
        ),
        ("crs-no-end", "its resources have no end tag"),
        ("crs-cut", "its resources are cut short"),
        ("crs-checksum", "its resources have a wrong checksum"),
    ];
    for (name, expected) in refused {
        assert_eq!(
            line(name),
            format!(r"\_SB.VCLK refused: {expected}"),
            "{name}"
        );
    }
}

#[test]
fn a_page_among_acpi_tables_is_refused() {
    let map = [MemoryRange {
        start: 0xfeff_b000,
        length: 1,
        kind: MemoryKind::Acpi,
    }];
    let blocks = [aml("qword")];
    let why = Refusal::Ram(PAGE, map[0]);
    let result = vmclock_in(&Namespace::new(&[&blocks[0]]), &map);
    assert!(
        matches!(result, Err(NotFound::Refused { why: refusal, .. }) if refusal == why),
        "{result:?}"
    );
}

#[test]
fn code_among_declarations_costs_only_its_package() {
    assert_eq!(discover(&["unknown-code"]).0, Ok((PAGE, How::HardwareId)));
    let blocks = [aml("unknown-code")];
    let blocks = [blocks[0].as_slice()];
    let namespace = Namespace::new(&blocks);
    let skipped: Vec<_> = namespace.entries().filter_map(Entry::skipped).collect();
    assert_eq!(skipped.len(), 1);
    assert_eq!(
        (skipped[0].scope.to_string().as_str(), skipped[0].why),
        (r"\_SB.BEFO", Unread::Opcode(u16::from(b'C')))
    );
}

#[test]
fn what_follows_a_conditional_block_is_read() {
    let blocks = [aml("conditional")];
    let blocks = [blocks[0].as_slice()];
    let namespace = Namespace::new(&blocks);
    assert!(
        namespace
            .identifiers(&|id| id.is("PNP0C02"))
            .any(|(path, id)| path.to_string() == r"\_SB.LAST" && id.is("PNP0C02"))
    );
    let skipped: Vec<_> = namespace
        .entries()
        .filter_map(Entry::skipped)
        .map(|skipped| skipped.why)
        .collect();
    assert_eq!(skipped, [Unread::Conditional; 2]);
}

#[test]
fn every_kind_of_declaration_is_understood() {
    let blocks = [aml("kinds")];
    let blocks = [blocks[0].as_slice()];
    let namespace = Namespace::new(&blocks);
    assert_eq!(namespace.entries().filter_map(Entry::skipped).count(), 0);
    let kind = |path: &str| {
        namespace
            .objects()
            .find(|object| object.path.to_string() == path)
            .map(|object| object.kind)
    };
    let expected = [
        (r"\BASE", Kind::Name),
        (r"\_SB.ALIA", Kind::Other),
        (r"\MUTX", Kind::Other),
        (r"\EVNT", Kind::Other),
        (r"\REGN", Kind::Other),
        (r"\IDX0", Kind::Field),
        (r"\BNK0", Kind::Field),
        (r"\INDF", Kind::Field),
        (r"\BNKF", Kind::Field),
        (r"\DTRG", Kind::Other),
        (r"\DWRD", Kind::Field),
        (r"\BITS", Kind::Field),
        (r"\_SB.PWR0", Kind::PowerResource),
        (r"\_SB.PWR0._ON", Kind::Method),
        (r"\_TZ.THRM", Kind::ThermalZone),
        (r"\_SB.CPU0", Kind::Processor),
        (r"\_SB.CPU0._UID", Kind::Name),
        (r"\_SB.VCLK", Kind::Device),
    ];
    for (path, expected) in expected {
        assert_eq!(kind(path), Some(expected), "{path}");
    }
    assert_eq!(kind(r"\_SB.EXTN"), None, "External declares nothing");
    assert_eq!(namespace.soft_off(), Some((5, 6)));
}

#[test]
fn nesting_and_names_beyond_the_limits_are_reported() {
    let nested = |opcode: &[u8], name: &[u8]| {
        (0..40).fold(Vec::new(), |inside, _| {
            package(opcode, &[name, &*inside].concat())
        })
    };
    let cases = [
        (nested(b"\x5b\x82", b"AAAA"), Unread::Name),
        (nested(b"\x10", b"\\\0"), Unread::Depth),
        (package(b"\x5b\x82", b"^^AAAA"), Unread::Name),
        (package(b"\x5b\x82", b"aaaa"), Unread::Name),
    ];
    for (nested, why) in cases {
        let blocks = [nested.as_slice(), b"\x5b\x82\x05LAST"];
        let namespace = Namespace::new(&blocks);
        let skipped: Vec<_> = namespace
            .entries()
            .filter_map(Entry::skipped)
            .map(|skipped| skipped.why)
            .collect();
        assert_eq!(skipped, [why]);
        let last = Path::ROOT.child(*b"LAST").expect("short");
        assert!(namespace.find(&last).is_some(), "{why:?}");
    }
}

#[test]
fn the_command_line_overrides_but_is_checked() {
    let none = Err(gnomon_kernel::discover::acpi::Bad::NoRsdp);
    let found = vmclock(Some(0xfeff_b000), none, &MAP).expect("a good address");
    assert_eq!(
        (found.window, found.device, found.how),
        (PAGE, None, How::CommandLine)
    );
    assert_eq!(found.to_string(), "command line at 0xfeffb000, 4096 bytes");
    let refused = |address| {
        vmclock(Some(address), none, &MAP)
            .expect_err("a bad address")
            .to_string()
    };
    assert_eq!(
        refused(0x20_0000),
        "0x200000 on the command line refused: its memory at 0x200000, 4096 bytes, overlaps usable ram at 0x100000, 65929216 bytes"
    );
    for address in [0, 1, 0xfff, 0x9_f000, u64::MAX, u64::MAX - 0xfff, 1 << 52] {
        refused(address);
    }
    assert_eq!(
        vmclock(None, none, &MAP)
            .expect_err("no tables")
            .to_string(),
        "not found: there is no acpi rsdp"
    );
}
