//! The guest's address space, from outside: what QEMU's monitor shows of it on x86, and on Arm the
//! translation tables themselves.

use core::ops::Range;
use std::collections::BTreeMap;
use std::fs;

use gnomon_qemu::machine::Board;
use gnomon_tests::footprint::{PAGE, STACK, segments, stack_used};
use gnomon_tests::gdb::Gdb;
use gnomon_tests::guest::{Guest, machine};
use gnomon_tests::{Arch, on, plain_image};

gnomon_tests::on_both![stack_keeps_a_quarter_in_reserve];

/// A page that is mapped.
#[derive(Clone, Copy, Debug)]
struct Mapped {
    physical: u64,
    writable: bool,
    executable: bool,
    cached: bool,
}

type Pages = BTreeMap<u64, Mapped>;

#[test]
fn address_space_is_what_was_meant_on_x86_64() {
    for board in [Board::Q35, Board::Pc] {
        let (mut guest, _) = Guest::boot(machine().board(board).memory(16));
        let pages = x86_pages(&guest.monitor("info tlb"));
        check_everything(&pages);
        let segments = segments(&fs::read(plain_image()).expect("readable"));
        let image = check_segments(&segments, &pages);
        let unmapped = image.filter(|page| !pages.contains_key(page));
        let guard = stack(&segments).start - PAGE;
        assert_eq!(unmapped.collect::<Vec<u64>>(), [guard]);
        check_clock_page(&pages, Arch::X86_64);
    }
}

#[test]
fn address_space_is_what_was_meant_on_aarch64() {
    on(Arch::Aarch64, || {
        for options in ["gic-version=2", "gic-version=3,virtualization=on"] {
            let machine = machine().memory(16).arg("-machine").arg(options);
            let (mut guest, _) = Guest::boot(machine);
            let (pages, image) = arm_pages(&mut guest);
            check_everything(&pages);
            check_arm_image(&image, &pages);
            check_clock_page(&pages, Arch::Aarch64);
        }
    });
}

fn check_everything(pages: &Pages) {
    assert!(!pages.contains_key(&0), "page zero is not mapped");
    for (address, page) in pages {
        assert_eq!(*address, page.physical, "identity");
        assert!(!page.writable || !page.executable, "{address:#x} {page:?}");
    }
}

fn check_clock_page(pages: &Pages, arch: Arch) {
    let page = pages.get(&arch.page()).expect("the page is mapped");
    assert!(
        !page.writable && !page.executable && page.cached,
        "{page:?}"
    );
}

/// Outside of the image nothing is executable, what is writable are device registers, and these are
/// uncached.
fn check_outside(address: u64, page: &Mapped) {
    assert!(!page.executable, "{address:#x} {page:?}");
    assert_eq!(page.writable, !page.cached, "{address:#x} {page:?}");
}

/// What `info tlb` says.
fn x86_pages(tlb: &str) -> Pages {
    let hexadecimal = |digits: &str| u64::from_str_radix(digits, 16).expect("hexadecimal");
    let page = |line: &str| {
        let (address, rest) = line.split_once(": ").expect("an address");
        let (physical, flags) = rest.split_once(' ').expect("flags");
        // No-execute, global, large, dirty, accessed, cache-disable, write-through, user, writable.
        assert_eq!(flags.len(), 9, "{line}");
        assert!(!flags.contains(['G', 'P', 'U']), "{line}");
        let mapped = Mapped {
            physical: hexadecimal(physical),
            writable: flags.contains('W'),
            executable: !flags.contains('X'),
            cached: !flags.contains(['C', 'T']),
        };
        (hexadecimal(address), mapped)
    };
    tlb.lines().map(page).collect()
}

/// The image's pages have the rights of its segments. Returns them.
fn check_segments(
    segments: &[(Range<u64>, u32)],
    pages: &Pages,
) -> impl Iterator<Item = u64> + use<> {
    let mut image = BTreeMap::new();
    for (range, flags) in segments {
        for page in range.clone().step_by(0x1000) {
            image.insert(page, *flags);
        }
    }
    for (address, page) in pages {
        if let Some(flags) = image.get(address) {
            let rights = u32::from(page.executable) | u32::from(page.writable) << 1 | 4;
            assert_eq!(rights, *flags, "{address:#x} {page:?}");
            assert!(page.cached, "{address:#x} {page:?}");
        } else {
            check_outside(*address, page);
        }
    }
    image.into_keys()
}

fn stack(segments: &[(Range<u64>, u32)]) -> Range<u64> {
    let end = segments.iter().map(|(range, _)| range.end).max();
    let end = end.expect("segments");
    end - STACK..end
}

/// Walks the tables in force (Arm ARM, D8.3), and says where the image lies.
fn arm_pages(guest: &mut Guest) -> (Pages, Range<u64>) {
    let mut gdb = Gdb::attach(guest.qmp());
    let mut register = |name| gdb.system_register(name);
    let (control, translation) = (register("SCTLR"), register("TCR_EL1"));
    let root = register("TTBR0_EL1") & 0xffff_ffff_f000;
    let base = gdb.register(Gdb::PC) & !0x1f_ffff;
    drop(gdb);
    // MMU and caches on, writable never executable; no tables for the upper half.
    let on = 1 | 1 << 2 | 1 << 12 | 1 << 19;
    assert_eq!(control & on, on, "SCTLR_EL1 {control:#x}");
    assert_eq!(translation & 1 << 23, 1 << 23, "TCR_EL1 {translation:#x}");
    assert_eq!(translation & 0x3f, 16, "48 bits: {translation:#x}");

    let mut pages = Pages::new();
    let mut tables = vec![(root, 0, 39)];
    while let Some((table, start, shift)) = tables.pop() {
        for (entry, index) in read_table(guest, table).into_iter().zip(0..) {
            let (address, next) = (start | index << shift, entry & 0xffff_ffff_f000);
            match (entry & 3, shift) {
                (0 | 2, _) => {}
                (3, 12) => drop(pages.insert(address, leaf(entry, next))),
                (3, _) => tables.push((next, address, shift - 9)),
                _ => panic!("a block at {address:#x}: {entry:#x}"),
            }
        }
    }
    let header = fs::read(plain_image()).expect("readable");
    let size = u64::from_le_bytes(header[16..24].try_into().expect("8"));
    (pages, base..base + size)
}

fn leaf(entry: u64, physical: u64) -> Mapped {
    assert_eq!(entry & 1 << 10, 1 << 10, "accessed: {entry:#x}");
    assert_eq!(entry & 1 << 54, 1 << 54, "never for EL0: {entry:#x}");
    assert_eq!(entry & 1 << 6, 0, "not EL0's: {entry:#x}");
    Mapped {
        physical,
        writable: entry & 1 << 7 == 0,
        executable: entry & 1 << 53 == 0,
        // Index 1 is write-back, index 0 device memory.
        cached: match entry >> 2 & 7 {
            0 => false,
            1 => true,
            _ => panic!("an index without memory: {entry:#x}"),
        },
    }
}

fn read_table(guest: &mut Guest, address: u64) -> Vec<u64> {
    let dump = guest.monitor(&format!("xp /512xg {address:#x}"));
    let words = dump
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("0x"));
    let words: Vec<u64> = words
        .map(|word| u64::from_str_radix(word, 16).expect("hexadecimal"))
        .collect();
    assert_eq!(words.len(), 512, "{dump}");
    words
}

/// The image begins with what is executable, goes on with what is constant, and ends with data and the
/// stack. All of that is one piece but for the entry code's tables and the guard page before the stack.
fn check_arm_image(image: &Range<u64>, pages: &Pages) {
    for (address, page) in pages.iter().filter(|(page, _)| !image.contains(page)) {
        check_outside(*address, page);
    }
    let inside = || image.clone().step_by(0x1000);
    let mut kinds = Vec::new();
    for address in inside() {
        let kind = pages.get(&address).map(|page| {
            assert!(page.cached, "{address:#x} {page:?}");
            (page.executable, page.writable)
        });
        if kinds.last() != Some(&kind) {
            kinds.push(kind);
        }
    }
    let (text, constant, data) = ((true, false), (false, false), (false, true));
    let order = [Some(text), Some(constant), Some(data), None, Some(data)];
    assert_eq!(kinds, order, "{image:#x?}");
    let guard = image.end - STACK - PAGE;
    assert!(!pages.contains_key(&guard) && pages.contains_key(&(guard + PAGE)));
}

/// Start-up is what needs the stack most; every command of the console follows it.
fn stack_keeps_a_quarter_in_reserve() {
    let (mut guest, _) = Guest::boot(machine().memory(16));
    for command in ["help", "time", "status", "page", "net", "audit"] {
        guest.command(command);
    }
    let used = stack_used(&mut guest);
    let length = usize::try_from(STACK).expect("64 bits");
    println!("stack: {used} of {length} bytes used");
    assert!(used > 1000, "the stack is somewhere else: {used}");
    assert!(used <= length / 4 * 3, "{used} of {length} bytes used");
}
