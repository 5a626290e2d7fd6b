//! What the image says when it fails, and what that ends in. The failures are provoked in an image that is built for
//! this (`make provoke`): the one that is shipped has no way to ask for them.

use core::time::Duration;
use std::time::Instant;
use std::{fs, thread};

use gnomon_qemu::End;
use gnomon_qemu::machine::{Machine, STATUS_FAILURE};
use gnomon_tests::footprint::segments;
use gnomon_tests::guest::{Guest, machine};
use gnomon_tests::{Arch, PATIENCE, arch, plain_image, provoked_image};

gnomon_tests::on_both![
    stack_overflow_meets_the_guard_page,
    stack_overflow_by_long_steps_meets_the_guard_page,
    null_pointer_faults,
    code_is_not_writable,
    constants_are_not_writable,
    data_is_not_executable,
    stack_is_not_executable,
    vmclock_page_is_not_writable,
    panic_is_reported_with_its_place_and_its_callers,
    failure_inside_a_report_ends_the_run,
    halt_stops_for_ever,
    reboot_starts_again,
    shipped_image_cannot_be_asked,
];

/// A machine whose guest fails in this way.
fn failing(kind: &str) -> Machine {
    machine()
        .kernel(provoked_image())
        .append(format!("provoke={kind}"))
}

/// What it says when it does, with plain line ends. It must end with status 99.
fn report_of(kind: &str) -> String {
    let (end, said) = Guest::run_to_its_end(failing(kind));
    let said = said.replace('\r', "");
    assert_eq!(end, Some(End::Status(STATUS_FAILURE)), "{said}");
    said
}

/// The registers of an exception, and the sentence.
fn assert_fault(kind: &str, sentences: [&str; 2]) {
    let said = report_of(kind);
    let [exception, place, sentence] = match arch() {
        Arch::X86_64 => [
            "exception 14: page fault, error code 0x",
            "\n  rip 0000",
            sentences[0],
        ],
        Arch::Aarch64 => ["exception vector 0: ", "\n  elr 0000", sentences[1]],
    };
    for words in [exception, place, "\n  uptime 0."] {
        assert!(said.contains(words), "{words:?}\n{said}");
    }
    let (before, after) = sentence.split_once('*').expect("an address");
    let line = said
        .lines()
        .find(|line| line.trim_start().starts_with(before));
    let line = line.unwrap_or_else(|| panic!("{sentence}\n{said}"));
    assert!(line.ends_with(after), "{sentence}\n{said}");
    let words = line[2 + before.len()..].split(':').next();
    let address = words.and_then(|word| word.strip_prefix("0x"));
    let address = u64::from_str_radix(address.expect("hexadecimal"), 16).expect("hexadecimal");
    // The registers tell the same.
    let register = match arch() {
        Arch::X86_64 => "cr2",
        Arch::Aarch64 => "far",
    };
    assert!(
        said.contains(&format!("{register} {address:016x}")),
        "{said}"
    );
    assert!(!said.contains("failed again"), "{said}");
}

fn assert_fault_alike(kind: &str, sentence: &str) {
    assert_fault(kind, [sentence; 2]);
}

const OVERFLOW: &str = "write to *: stack overflow: the guard page below the stack is not mapped";

fn stack_overflow_meets_the_guard_page() {
    assert_fault_alike("stack", OVERFLOW);
}

/// Without the compiler's probes a frame that is longer than the guard page would step over it.
fn stack_overflow_by_long_steps_meets_the_guard_page() {
    assert_fault_alike("frames", OVERFLOW);
}

fn null_pointer_faults() {
    assert_fault_alike("null", "read from *: null pointer: page zero is not mapped");
}

fn code_is_not_writable() {
    assert_fault_alike("text", "write to *: code is never writable");
}

fn constants_are_not_writable() {
    assert_fault_alike("constants", "write to *: constants are never writable");
}

fn data_is_not_executable() {
    assert_fault_alike("data", "execution of *: data is never executable");
}

fn stack_is_not_executable() {
    assert_fault_alike(
        "stack-code",
        "execution of *: the stack is never executable",
    );
}

fn vmclock_page_is_not_writable() {
    let sentence = format!(
        "write to *{:#x}: the vmclock page is the host's, and read-only here",
        arch().page() + 0x20
    );
    let said = report_of("page");
    assert!(said.contains(&sentence.replace('*', "")), "{said}");
}

fn panic_is_reported_with_its_place_and_its_callers() {
    let said = report_of("panic");
    for words in [
        "panicked at boot/src/provoke.rs:",
        "\nasked to\n",
        "\n  uptime 0.",
    ] {
        assert!(said.contains(words), "{words:?}\n{said}");
    }
    let (_, rest) = said.split_once("  called from ").expect("callers");
    let callers: Vec<u64> = rest
        .split_ascii_whitespace()
        .map_while(|word| u64::from_str_radix(word, 16).ok())
        .collect();
    assert!(callers.len() >= 2, "{said}");
    let text = match arch() {
        Arch::X86_64 => {
            let segments = segments(&fs::read(provoked_image()).expect("readable"));
            let text = segments.into_iter().find(|(_, flags)| *flags == 5);
            text.expect("code").0
        }
        // Where the loader puts it; the code comes first.
        Arch::Aarch64 => 0x4020_0000..0x4030_0000,
    };
    for caller in &callers {
        assert!(text.contains(caller), "{caller:#x} {text:#x?}\n{said}");
    }
}

fn failure_inside_a_report_ends_the_run() {
    for (kind, before, after) in [
        (
            "panic-in-report",
            "before the second panic",
            "the second panic",
        ),
        ("fault-in-report", "before the fault", "exception"),
    ] {
        let said = report_of(kind);
        assert_eq!(said.matches("panicked at").count(), 1, "{said}");
        let (_, rest) = said.split_once(before).expect("the first words");
        assert!(!rest.contains(after), "{said}");
        let again = rest.matches("failed again while reporting that").count();
        assert_eq!(again, 1, "{said}");
    }
}

/// For both a panic and an exception.
const FAILURES: [(&str, &str); 2] = [("panic", "asked to"), ("null", "null pointer")];

fn halt_stops_for_ever() {
    for (kind, words) in FAILURES {
        let machine = failing(kind).append(format!("provoke={kind} on_panic=halt"));
        let mut guest = Guest::start(machine);
        guest.wait_said(words);
        guest.wait_said("called from");
        // The processor stays where it is, and QEMU runs on.
        let mut place = || {
            let registers = guest.monitor("info registers");
            let name = match arch() {
                Arch::X86_64 => "RIP=",
                Arch::Aarch64 => "PC=",
            };
            let (_, rest) = registers.split_once(name).expect("a program counter");
            rest.split_ascii_whitespace().next().map(str::to_owned)
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let before = place();
            thread::sleep(Duration::from_millis(200));
            if place() == before {
                break;
            }
            assert!(Instant::now() < deadline, "it runs on");
        }
        assert_eq!(guest.wait_exit(Duration::ZERO), None);
        assert_eq!(guest.serial_log().matches("Gnomon 0.").count(), 0);
    }
}

fn reboot_starts_again() {
    for (kind, words) in FAILURES {
        let machine = failing(kind).append(format!("provoke={kind} on_panic=reboot"));
        let mut guest = Guest::start(machine);
        for _ in 0..3 {
            guest.wait_said(words);
            guest.wait_said("called from");
        }
        guest.quit();
        // Where a reset is to end QEMU, it does.
        let machine = failing(kind)
            .append(format!("provoke={kind} on_panic=reboot"))
            .reboots(false);
        let (end, _) = Guest::run_to_its_end(machine);
        assert_eq!(end, Some(End::Status(0)), "{kind}");
    }
}

fn shipped_image_cannot_be_asked() {
    let bytes = fs::read(plain_image()).expect("readable");
    let has = |bytes: &[u8]| bytes.windows(8).any(|window| window == b"provoke=");
    assert!(!has(&bytes));
    assert!(has(&fs::read(provoked_image()).expect("readable")));
    let (guest, said) = Guest::boot(machine().append("provoke=panic"));
    assert!(
        said.contains("`provoke=panic` is not a known key, ignored"),
        "{said}"
    );
    guest.client().ask_until_right().assert_right();
}
