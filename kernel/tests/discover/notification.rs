//! How ACPI tells of the page's updates, on made-up tables and QEMU's.

use gnomon_kernel::discover::acpi::{EventBits, Space, Tables};
use gnomon_kernel::discover::aml::{Namespace, Path};
use gnomon_kernel::discover::hardware::{IoApic, Line};
use gnomon_kernel::discover::notification::{Event, Events, GeneralEvent, Untold, Wire};
use gnomon_kernel::discover::tables::Madt;
use gnomon_kernel::discover::{Window, vmclock};
use gnomon_kernel::memory::{MemoryKind, MemoryRange};

use crate::machine::{MAP, Machine, aml, compiled, fix_checksum, package, table};

/// The page of the fixtures.
const PAGE: Option<Window> = Some(Window {
    address: 0xfeff_b000,
    length: 0x1000,
});
const INTERPRETER: Untold = Untold::Because("ACPI's code that may notify it needs an interpreter");

fn vclk() -> Path {
    let bus = Path::ROOT.child(*b"_SB_").expect("a path");
    bus.child(*b"VCLK").expect("a path")
}

fn events(blocks: &[&[u8]]) -> Result<Vec<Event>, Untold> {
    let events = Events::in_namespace(&Namespace::new(blocks), &vclk());
    events.map(|events| events.iter().collect())
}

/// Interrupts of rising edges.
fn edges(numbers: &[u32]) -> Vec<Event> {
    let line = |&number| {
        Event::Interrupt(Line {
            number,
            edge: true,
            low: false,
        })
    };
    numbers.iter().map(line).collect()
}

#[test]
fn the_interrupts_of_generic_event_devices_are_told_apart() {
    let low = Event::Interrupt(Line {
        number: 9,
        edge: false,
        low: true,
    });
    for (name, expected) in [
        ("ged-compared", edges(&[6])),
        ("ged-turned", edges(&[301])),
        ("ged-plain", [vec![low], edges(&[33, 34])].concat()),
        ("ged-else", edges(&[5, 6])),
        ("ged-called", edges(&[13])),
        ("ged-own", edges(&[0x2b])),
        ("ged-near", edges(&[7])),
        ("firecracker", edges(&[6])),
        ("gpe", vec![Event::General(0x1f)]),
        (
            "gpe-called",
            [edges(&[5]), vec![Event::General(5)]].concat(),
        ),
    ] {
        assert_eq!(events(&[&aml(name)]), Ok(expected), "{name}");
    }
}

#[test]
fn what_cannot_be_told_is_not_guessed() {
    for (name, expected) in [
        ("qword", Untold::Never),
        ("ged-other", Untold::Never),
        ("ged-reference", INTERPRETER),
        ("ged-package", INTERPRETER),
        ("ged-absent", INTERPRETER),
        ("ged-computed", INTERPRETER),
        (
            "ged-many",
            Untold::Because("too many interrupts may notify it"),
        ),
    ] {
        assert_eq!(events(&[&aml(name)]), Err(expected), "{name}");
    }
}

#[test]
fn tables_that_are_cut_short_or_made_slow_end_in_a_sentence() {
    for name in [
        "ged-compared",
        "ged-turned",
        "ged-called",
        "ged-own",
        "gpe-called",
    ] {
        let whole = aml(name);
        for length in 0..whole.len() {
            let _ = events(&[&whole[..length]]);
        }
        for (at, flip) in (0..whole.len()).flat_map(|at| [1, 0x40, 0xff].map(|flip| (at, flip))) {
            let mut other = whole.clone();
            other[at] ^= flip;
            let _ = events(&[&other]);
        }
    }
    // Nothing but notifications that are for another interrupt, each looked up, and all conditions before it looked into.
    let notify = [&[0x86][..], b"\\\x2e_SB_VCLK", &[0x0a, 0x80]].concat();
    let condition = [&[0x93, 0x68, 0x0a, 0x05][..], &notify.repeat(8)].concat();
    let condition = package(&[0xa0], &condition);
    let name = b"\\\x2f\x03_SB_GED__EVT\x01";
    let slow = package(&[0x14], &[&name[..], &condition.repeat(2000)].concat());
    let whole = aml("ged-near");
    let slow = events(&[&slow, &whole]);
    assert_eq!(
        slow,
        Err(Untold::Because("ACPI's tables take too long to read"))
    );
}

/// A page, code that notifies it, and a machine around them.
#[test]
fn a_page_is_told_of_where_it_is_described() {
    let machine = Machine::with_tables(&table(*b"DSDT", &aml("ged-compared")), &[]);
    let tables = Tables::search(&machine).expect("tables");
    let told = |page| Events::of(&tables, page, &MAP).map(|events| events.iter().collect());
    assert_eq!(told(PAGE), Ok(edges(&[6])));
    let elsewhere = Window {
        address: 0xfeff_c000,
        length: 0x1000,
    };
    assert_eq!(told(Some(elsewhere)), Err::<Vec<_>, _>(Untold::Elsewhere));
    assert_eq!(told(None), Err(Untold::Elsewhere));
    // What is missing may be in a table that is not read.
    let mut bad = compiled("ged-other");
    let mut machine = Machine::with_tables(&table(*b"DSDT", &aml("qword")), &[bad.clone()]);
    let told = |machine: &Machine| {
        let tables = Tables::search(machine).expect("tables");
        Events::of(&tables, PAGE, &MAP).map(|_| ())
    };
    assert_eq!(told(&machine), Err(Untold::Never));
    bad[40] ^= 1;
    *machine.table_mut(b"SSDT") = bad;
    let why = "not all of ACPI's tables can be read";
    assert_eq!(told(&machine), Err(Untold::Because(why)));
}

#[test]
fn stock_qemu_notifies_nothing() {
    for name in ["q35", "pc"] {
        let machine = Machine::dumped(name);
        let tables = Tables::search(&machine).expect(name);
        assert!(vmclock(None, Ok(&tables), &MAP).is_ok(), "{name}");
        assert_eq!(
            Events::of(&tables, PAGE, &MAP),
            Err(Untold::Never),
            "{name}"
        );
    }
}

#[test]
fn events_have_their_bits_in_the_blocks_of_the_fadt() {
    let machine = Machine::dumped("q35");
    let tables = Tables::search(&machine).expect("tables");
    let fadt = tables.fadt().expect("a FADT");
    let bits = |status, enable, mask| EventBits {
        space: Space::Port,
        status,
        enable,
        mask,
    };
    // 16 bytes at 0x620: eight of status, eight of enables.
    assert_eq!(fadt.event(2), Some(bits(0x620, 0x628, 4)));
    assert_eq!(fadt.event(63), Some(bits(0x627, 0x62f, 0x80)));
    assert_eq!(fadt.event(64), None);
    assert_eq!(fadt.system_control_interrupt(), Some(9));
    assert_eq!(fadt.acpi_enable(), Some((0xb2, 2)));
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut machine = machine.clone();
        let fadt = machine.table_mut(b"FACP");
        change(fadt);
        fix_checksum(fadt, 9);
        let tables = Tables::search(&machine).expect("tables");
        let fadt = tables.fadt().expect("a FADT");
        (fadt.event(2), fadt.event(0x25), fadt.acpi_enable())
    };
    // A second block from 0x20 on, by its old description; q35's newer ones are cleared.
    let second = changed(&|fadt| {
        fadt[84..88].copy_from_slice(&0x700_u32.to_le_bytes());
        fadt[92] = 4;
        fadt[93] = 4;
        fadt[94] = 0x20;
        fadt[220..244].fill(0);
        fadt[52] = 0;
    });
    let first = Some(bits(0x620, 0x622, 4));
    assert_eq!(second, (first, Some(bits(0x700, 0x702, 0x20)), None));
    // No block, an empty one, one with a half of a register, and one that ends beyond the last port.
    for (address, length) in [(0, 16), (0x620, 0), (0x620, 1), (0xffff, 2)] {
        let (event, ..) = changed(&|fadt| {
            fadt[80..84].copy_from_slice(&u32::to_le_bytes(address));
            fadt[92] = length;
            fadt[220..244].fill(0);
        });
        assert_eq!(event, None, "{address:#x}, {length}");
    }
}

#[test]
fn a_pc_is_told_through_its_io_apic() {
    let line = Line {
        number: 9,
        edge: false,
        low: false,
    };
    let io_apic = IoApic {
        address: 0xfec0_0000,
        first: 0,
    };
    let event = GeneralEvent {
        status: 0x623,
        enable: 0x62b,
        mask: 0x80,
        control: 0x604,
        order: Some((0xb2, 2)),
    };
    let wire = |event| Wire {
        line,
        io_apic,
        event,
    };
    let machine = Machine::dumped("q35");
    let told = |event, machine: &Machine, map: &[MemoryRange]| {
        Wire::of(event, &Tables::search(machine).expect("tables"), map)
    };
    let interrupt = Event::Interrupt(line);
    assert_eq!(told(interrupt, &machine, &MAP), Ok(wire(None)));
    assert_eq!(
        told(Event::General(0x1f), &machine, &MAP),
        Ok(wire(Some(event)))
    );
    let no_event = Err(Untold::Because(
        "its GPE is not one of I/O ports that the FADT names",
    ));
    assert_eq!(told(Event::General(64), &machine, &MAP), no_event);
    // Registers in memory, and a machine without fixed hardware.
    for (place, value) in [(220, 0), (172, 0), (114, 0x10)] {
        let mut other = machine.clone();
        let fadt = other.table_mut(b"FACP");
        fadt[place] = value;
        fix_checksum(fadt, 9);
        assert_eq!(told(Event::General(2), &other, &MAP), no_event, "{place}");
    }
    let none = Err(Untold::Because("the MADT has no I/O APIC for it"));
    let ram = MemoryRange {
        start: 0xfec0_001f,
        length: 1,
        kind: MemoryKind::Usable,
    };
    assert_eq!(told(interrupt, &machine, &[ram]), none);
    let mut odd = machine.clone();
    let madt = odd.table_mut(b"APIC");
    let place = madt
        .windows(4)
        .position(|bytes| bytes == [0, 0, 0xc0, 0xfe]);
    madt[place.expect("its address")] = 8;
    fix_checksum(madt, 9);
    assert_eq!(told(interrupt, &odd, &MAP), none);
    let mut without = machine;
    without.table_mut(b"APIC")[9] ^= 1;
    let no_madt = Err(Untold::Because("ACPI has no usable MADT"));
    assert_eq!(told(interrupt, &without, &MAP), no_madt);
}

#[test]
fn the_system_control_interrupt_is_where_the_madt_overrides_it() {
    let of = |body: &[u8]| table(*b"APIC", &[&[0; 8], body].concat());
    let judged = |bytes: &[u8]| {
        let machine = Machine::with_tables(&table(*b"DSDT", &[]), &[bytes.to_vec()]);
        let tables = Tables::search(&machine).expect("tables");
        Madt(tables.find(*b"APIC").expect("a MADT")).system_control_interrupt(9)
    };
    let line = |number, edge, low| Line { number, edge, low };
    // Type, length, bus, source, number, flags.
    let given = |bus, source, number, flags: u16| {
        let [low, high] = flags.to_le_bytes();
        of(&[2, 10, bus, source, number, 0, 0, 0, low, high])
    };
    assert_eq!(judged(&of(&[])), line(9, false, true));
    assert_eq!(judged(&given(0, 9, 20, 0)), line(20, false, true));
    assert_eq!(judged(&given(0, 9, 9, 0x0d)), line(9, false, false));
    assert_eq!(judged(&given(0, 9, 9, 0x07)), line(9, true, true));
    assert_eq!(judged(&given(0, 5, 20, 0x05)), line(9, false, true));
    assert_eq!(judged(&given(1, 9, 20, 0x05)), line(9, false, true));
    assert_eq!(judged(&of(&[2, 4, 0, 9])), line(9, false, true));
    // QEMU's: a high level.
    let machine = Machine::dumped("q35");
    let tables = Tables::search(&machine).expect("tables");
    let madt = Madt(tables.find(*b"APIC").expect("a MADT"));
    assert_eq!(madt.system_control_interrupt(9), line(9, false, false));
    let its = IoApic {
        address: 0xfec0_0000,
        first: 0,
    };
    assert_eq!(
        (madt.io_apic(0), madt.io_apic(u32::MAX)),
        (Some(its), Some(its))
    );
    // Two, the second one from 24 on, and one without an address.
    let two = of(&[
        [1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0],
        [1, 12, 1, 0, 0, 0x10, 0xc0, 0xfe, 24, 0, 0, 0],
        [1, 12, 2, 0, 0, 0, 0, 0, 48, 0, 0, 0],
    ]
    .concat());
    let machine = Machine::with_tables(&table(*b"DSDT", &[]), &[two]);
    let tables = Tables::search(&machine).expect("tables");
    let madt = Madt(tables.find(*b"APIC").expect("a MADT"));
    let first = |number| madt.io_apic(number).map(|io_apic| io_apic.first);
    assert_eq!([23, 24, 60].map(first), [Some(0), Some(24), Some(24)]);
}
