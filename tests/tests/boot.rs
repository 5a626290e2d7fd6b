//! From the loader to the prompt, and out again.

use core::ops::Range;
use std::collections::BTreeMap;
use std::process::Command;
use std::{env, fs, process};

use gnomon_qemu::End;
use gnomon_qemu::machine::{Board, Net, STATUS_FAILURE};
use gnomon_tests::console::{PROMPT, TimeLine};
use gnomon_tests::guest::{Guest, machine};
use gnomon_tests::process::Process;
use gnomon_tests::{PATIENCE, Slot, image};
use serde_json::json;

/// Where QEMU 10 puts the page.
const PAGE: u64 = 0xfeff_b000;

#[test]
fn boots_on_q35_with_16_mib_and_reports() {
    boots_and_reports(Board::Q35);
}

#[test]
fn boots_on_pc_with_16_mib_and_reports() {
    boots_and_reports(Board::Pc);
}

fn boots_and_reports(board: Board) {
    let (mut guest, report) = Guest::boot(machine().board(board).memory(16));
    let report = report.replace('\r', "");
    let lines = report.trim_end().lines().rev();
    let lines = lines.filter(|line| !line.starts_with("ipv6      fe"));
    let report = lines.take(6).collect::<Vec<_>>();
    let [time, network, counter, page, machine, title] = report[..] else {
        panic!("six lines: {report:?}")
    };
    assert!(title.starts_with("Gnomon 0."), "{title}");
    assert_eq!(machine, "machine   x86_64, PVH");
    let place = "\\_SB.VCLK (AMZNC10C) at 0xfeffb000, 4096 bytes";
    assert_eq!(page, format!("page      {place}"));
    assert!(counter.starts_with("counter   x86 TSC"), "{counter}");
    assert!(
        network.starts_with("network   virtio-net, PCI 00:"),
        "{network}"
    );
    // A machine that is slow enough reports before it has everything, and tells the rest later.
    if TimeLine::parse(time).is_none() {
        assert!(time.starts_with("no time: "), "{time}");
    }
    guest.client().ask_until_right().assert_right();
    guest.time().expect("a line of the documented form");
    let net = guest.command("net");
    assert!(net.contains("10.0.2.15/24 by DHCP"), "{net}");
}

#[test]
fn what_is_wrong_on_the_command_line_is_named_and_ignored() {
    let line = "colour=blue ip=10.0.2.300/24 ntp.stratum=16 idle=fast vmclock=0x123 nonsense";
    let (guest, said) = Guest::boot(machine().append(line));
    for word in line.split(' ') {
        let warning = format!("command line: `{word}`");
        let count = said.matches(&warning).count();
        assert_eq!(count, 1, "{warning}\n{said}");
    }
    for word in ["colour=blue", "nonsense"] {
        let warning = format!("`{word}` is not a known key, ignored");
        assert!(said.contains(&warning), "{said}");
    }
    assert!(
        said.contains("`ip=10.0.2.300/24` ignored, expected"),
        "{said}"
    );
    let reply = guest.client().ask_until_right();
    assert_eq!(reply.stratum, 1, "the default");
}

#[test]
fn page_address_on_the_command_line_overrides() {
    let (guest, said) = Guest::boot(machine().append(format!("vmclock={PAGE:#x}")));
    let place = "page      command line at 0xfeffb000, 4096 bytes";
    assert!(said.contains(place), "{said}");
    guest.client().ask_until_right().assert_right();
}

#[test]
fn page_address_in_ram_is_refused_with_the_reason() {
    for address in ["0x100000", "0x800000"] {
        let (guest, said) = Guest::boot(machine().append(format!("vmclock={address}")));
        let refusal =
            format!("none: {address} on the command line refused: its memory at {address}");
        assert!(said.contains(&refusal), "{said}");
        assert!(said.contains("overlaps"), "{said}");
        assert!(said.contains("no time: no vmclock page"), "{said}");
        guest.client().ask().assert_no_time(&["INIT"]);
    }
}

#[test]
fn machine_without_a_page_says_so_and_has_no_time() {
    let (mut guest, said) = Guest::boot(machine().vmclock(false));
    let none = "page      none: not found: no acpi device is one";
    assert!(said.contains(none), "{said}");
    assert!(said.contains("no time: no vmclock page"), "{said}");
    guest.client().ask().assert_no_time(&["INIT"]);
    assert_eq!(
        guest.time(),
        Err("no time: no vmclock page".to_owned()),
        "nor later"
    );
    assert_eq!(guest.command("page"), "no vmclock page\n");
}

#[test]
fn unexpected_trap_prints_the_registers_and_fails() {
    let (mut guest, _) = Guest::boot(machine());
    // QEMU may end before it has answered.
    let _ended = guest.qmp().execute("inject-nmi", json!({}));
    let end = guest.wait_exit(PATIENCE);
    let said = guest.serial_log();
    assert_eq!(end, Some(End::Status(STATUS_FAILURE)), "{said}");
    for words in [
        "exception 2: ",
        "\r\n  rip 0000000000",
        " cr2 ",
        "\r\n  r13 ",
    ] {
        assert!(said.contains(words), "{words:?}\n{said}");
    }
}

#[test]
fn poweroff_ends_with_success_on_both_boards() {
    for board in [Board::Q35, Board::Pc] {
        let (mut guest, _) = Guest::boot(machine().board(board));
        guest.type_line("poweroff");
        assert_eq!(guest.wait_exit(PATIENCE), Some(End::Status(0)), "{board:?}");
        assert!(guest.serial_log().ends_with("powering off\r\n"));
    }
}

#[test]
fn reboot_boots_again_and_the_time_is_right_again() {
    for board in [Board::Q35, Board::Pc] {
        let (mut guest, client) = Guest::serving_with(machine().board(board));
        let before = guest.publisher().report().disruptions;
        guest.type_line("reboot");
        guest.wait_said("Gnomon 0.");
        guest.wait_prompt();
        guest.wait_published(|report| report.valid && report.disruptions > before);
        client.ask_until_right().assert_right();
        guest.time().expect("time");
    }
}

#[test]
fn reboot_can_end_qemu_instead() {
    let (mut guest, _) = Guest::boot(machine().reboots(false));
    guest.type_line("reboot");
    assert_eq!(guest.wait_exit(PATIENCE), Some(End::Status(0)));
}

#[test]
fn image_is_below_a_mebibyte_and_boots_without_the_launcher() {
    let length = fs::metadata(image()).expect("readable").len();
    assert!(length < 1 << 20, "{length} bytes");

    let _slot = Slot::take();
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-display", "none", "-serial", "stdio", "-kernel"])
        .arg(image());
    let mut qemu = Process::start(&mut qemu);
    let said = qemu.wait_for(PROMPT);
    for line in [
        "page      none: not found: no acpi device is one",
        "network   none: no virtio-net device on PCI",
        "no time: no vmclock page",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    qemu.say(b"poweroff\r");
    assert!(qemu.wait().success());
}

/// One page as QEMU's `info tlb` shows it.
#[derive(Clone, Copy, Debug)]
struct Mapped {
    physical: u64,
    writable: bool,
    executable: bool,
    cached: bool,
}

#[test]
fn address_space_is_what_was_meant() {
    for board in [Board::Q35, Board::Pc] {
        let (mut guest, _) = Guest::boot(machine().board(board).memory(16));
        let pages = pages(&guest.monitor("info tlb"));
        check_everything(&pages);
        check_image(&pages);
        let page = pages.get(&PAGE).expect("the vmclock page is mapped");
        assert!(
            !page.writable && !page.executable && page.cached,
            "{page:?}"
        );
    }
}

fn pages(tlb: &str) -> BTreeMap<u64, Mapped> {
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

fn check_everything(pages: &BTreeMap<u64, Mapped>) {
    assert!(!pages.contains_key(&0), "page zero is not mapped");
    for (address, page) in pages {
        assert_eq!(*address, page.physical, "identity");
        assert!(!page.writable || !page.executable, "{address:#x} {page:?}");
    }
}

/// The image's pages have the rights of its segments, outside of it nothing is executable, what is
/// writable are device registers, and these are uncached.
fn check_image(pages: &BTreeMap<u64, Mapped>) {
    let segments = segments(&fs::read(image()).expect("readable"));
    let mut image = BTreeMap::new();
    for (range, flags) in &segments {
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
            assert!(!page.executable, "{address:#x} {page:?}");
            assert_eq!(page.writable, !page.cached, "{address:#x} {page:?}");
        }
    }
    let guard = stack(&segments).start - 0x1000;
    let unmapped: Vec<u64> = image
        .into_keys()
        .filter(|page| !pages.contains_key(page))
        .collect();
    assert_eq!(unmapped, [guard], "{unmapped:#x?}");
}

/// The loadable segments of a 64-bit ELF image, with their flags (1 execute, 2 write, 4 read).
/// The stack: 128 KiB at the image's end (`boot/x86_64.ld`), above the guard page.
fn stack(segments: &[(Range<u64>, u32)]) -> Range<u64> {
    let end = segments.iter().map(|(range, _)| range.end).max();
    let end = end.expect("segments");
    end - (128 << 10)..end
}

/// Start-up is what needs the stack most; every command of the console follows it.
#[test]
fn stack_keeps_a_quarter_in_reserve() {
    let (mut guest, _) = Guest::boot(machine().memory(16));
    for command in ["help", "time", "status", "page", "net", "audit"] {
        guest.command(command);
    }
    let stack = stack(&segments(&fs::read(image()).expect("readable")));
    let file = env::temp_dir().join(format!("gnomon-stack-{}", process::id()));
    let length = stack.end - stack.start;
    guest.monitor(&format!(
        "pmemsave {} {length} \"{}\"",
        stack.start,
        file.display()
    ));
    let bytes = fs::read(&file).expect("saved");
    fs::remove_file(&file).expect("ours");
    // The loader zeroes the stack, and it grows downwards.
    let untouched = bytes.iter().take_while(|byte| **byte == 0).count();
    let used = bytes.len() - untouched;
    println!("stack: {used} of {length} bytes used");
    assert!(used > 1000, "the stack is somewhere else: {used}");
    assert!(
        untouched >= bytes.len() / 4,
        "{used} of {length} bytes used"
    );
}

fn segments(elf: &[u8]) -> Vec<(Range<u64>, u32)> {
    let long = |at: usize| u64::from_le_bytes(elf[at..at + 8].try_into().expect("8"));
    let word = |at: usize| u32::from_le_bytes(elf[at..at + 4].try_into().expect("4"));
    let half = |at: usize| usize::from(u16::from_le_bytes([elf[at], elf[at + 1]]));
    let table = usize::try_from(long(0x20)).expect("an offset");
    let headers = (0..half(0x38)).map(|index| table + index * half(0x36));
    let loadable = headers.filter(|header| word(*header) == 1);
    loadable
        .map(|header| {
            let (address, length) = (long(header + 24), long(header + 40));
            let end = (address + length).next_multiple_of(0x1000);
            (address..end, word(header + 4))
        })
        .collect()
}

#[test]
fn machine_without_a_network_tells_the_time_all_the_same() {
    let (mut guest, said) = Guest::boot(machine().net(Net::None));
    assert!(
        said.contains("network   none: no virtio-net device on PCI"),
        "{said}"
    );
    guest.wait_published(|report| report.valid);
    guest.time().expect("time");
}
