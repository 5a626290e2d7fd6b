//! The serial console, typed at.

use std::process::Command;
use std::time::Instant;

use gnomon_qemu::smoke::Stream;
use gnomon_tests::console::PROMPT;
use gnomon_tests::guest::{Guest, machine, place};
use gnomon_tests::process::Process;
use gnomon_tests::{Arch, PATIENCE, Slot, arch, launcher};

gnomon_tests::on_both![
    every_command_tells_its_part,
    the_smoke_test_is_made_beside_the_service,
    typing_is_edited_and_mistakes_are_named,
    garbage_is_answered_with_one_line,
    console_that_is_off_logs_and_does_not_listen,
];

fn every_command_tells_its_part() {
    let (mut guest, client) = Guest::serving();
    client.ask().assert_right();
    let help = guest.command("help");
    let commands = [
        "help", "time", "status", "sources", "page", "audit", "leap", "counter", "bench", "net",
        "services", "acpi", "pci", "mem", "smoke", "reboot", "poweroff",
    ];
    for command in commands {
        let mut words = help
            .lines()
            .filter_map(|line| line.split_whitespace().next());
        assert!(words.any(|word| word == command), "{command}\n{help}");
    }
    guest.time().expect("the documented form");

    let status = guest.command("status");
    for start in [
        "time        2",
        &format!("page        {}", place()),
        "host clock  ",
        "marker      0x",
        "updated     2",
        "uptime      ",
        "idle        adaptive, asleep ",
        "ntp         stratum 1, precision 2^-",
        "answered    ",
        "unanswered  ",
    ] {
        let found = status.lines().any(|line| line.starts_with(start));
        assert!(found, "{start}\n{status}");
    }
    let page = guest.command("page");
    assert_eq!(page.lines().count(), 22, "every field\n{page}");
    let net = guest.command("net");
    for line in [
        "mac         52:54:00:12:34:56",
        "address     10.0.2.15/24 by DHCP",
        "gateway     10.0.2.2",
        "frames      received ",
    ] {
        assert!(net.contains(line), "{line}\n{net}");
    }
    assert!(!net.contains("no honest device"), "{net}");

    let counter = guest.command("counter");
    assert!(
        counter.contains("monotonic   of 1000 reads 0 were behind"),
        "{counter}"
    );
    assert_eq!(guest.command("bench").lines().count(), 6);
    let leap = guest.command("leap");
    assert!(leap.starts_with("tai-utc     37 s\n"), "{leap}");
    let memory = guest.command("mem");
    assert!(
        memory.contains("usable ram") && memory.contains("this image"),
        "{memory}"
    );
    let described = guest.command("acpi");
    let word = match arch() {
        Arch::X86_64 => "APIC        0x",
        Arch::Aarch64 => "psci        by hvc",
    };
    assert!(described.contains(word), "{described}");
    let pci = guest.command("pci");
    assert!(pci.contains("1af4:1000"), "{pci}");
    let times = guest.command("time -n 5");
    assert_eq!(
        times.lines().filter(|line| line.contains(" ± ")).count(),
        5,
        "{times}"
    );
}

fn the_smoke_test_is_made_beside_the_service() {
    let (mut guest, client) = Guest::serving();
    let end = Instant::now() + PATIENCE;
    // The service's audit has to have seen an update.
    let said = loop {
        guest.type_line("smoke");
        // Nobody has to wait for it.
        client.ask().assert_right();
        let said = guest.wait_prompt();
        if said.contains("vmclock nested intervals: over ") {
            break said;
        }
        assert!(Instant::now() < end, "{said}");
    };
    let mut stream = Stream::default();
    said.lines().for_each(|line| stream.line(line.trim_end()));
    assert!(stream.is_complete(), "{said}");
    assert_eq!(stream.failed, [""; 0], "{said}");
    for alone in ["timer interrupt", "uart loopback", "real-time clock"] {
        let is_skipped = stream.skipped.iter().any(|name| name == alone);
        assert!(is_skipped, "{alone}: {said}");
    }
    assert!(
        said.contains("counter order: 4096 readings in order"),
        "{said}"
    );
}

fn typing_is_edited_and_mistakes_are_named() {
    let (mut guest, _) = Guest::boot(machine());
    assert_eq!(
        guest.command("tiem"),
        "`tiem` is not a command, try `help`\n"
    );
    assert_eq!(
        guest.command("time now"),
        "`time` takes no arguments but `-n TIMES`\n"
    );
    assert_eq!(guest.command(""), "");
    // Backspace, a given-up line, a taken-back line, arrow keys, and both line ends.
    for typed in [
        "hexx\x7f\x7flp\r",
        "nonsense\x03help\r",
        "nonsense\x15help\r",
        "\x1b[5~\x1bOPhelp\r",
        "xelp\x1b[H\x1b[3~h\x1b[F\r",
        "\x1b[A\r",
        "help\n",
        "help\r\n",
    ] {
        guest.send_serial(typed).expect("QEMU runs");
        let said = guest.wait_said("switch the machine off\r\n");
        assert!(!said.contains("not a command"), "{typed:?} {said}");
        guest.wait_prompt();
    }
}

/// Through the launcher, which passes on any byte.
fn garbage_is_answered_with_one_line() {
    let _slot = Slot::take();
    let mut guest = Process::start(Command::new(launcher()).args([
        "run",
        "--arch",
        arch().name(),
        "--ntp",
        "0",
        "--http",
        "0",
    ]));
    guest.wait_for(PROMPT);
    let ignored = ", ignored up to the next Enter\r\n";
    // A line of 115200 baud takes six seconds for so much, and the guest no less than four.
    let flood = vec![b'x'; 1 << 16];
    let escapes = b"\x1b[38;5;196m\x1b[2J\x1b]0;\x07".repeat(50);
    let cases: [(&[u8], &str); 6] = [
        (b"\xff\xff\xff", "byte 0xff is not text"),
        (b"\x00\x01\x02\xfe", "byte 0x00 is not text"),
        ("température".as_bytes(), "byte 0xc3 is not text"),
        (&[b'x'; 129], "line longer than 128 characters"),
        (&flood, "line longer than 128 characters"),
        (&escapes, "byte 0x07 is not text"),
    ];
    for (garbage, answer) in cases {
        guest.say(garbage);
        guest.say(b"\r");
        // A log line may come at any time, and the prompt again behind it: what is waited for is the answers.
        let mut said = guest.wait_for(ignored);
        guest.say(b"help\r");
        said += &guest.wait_for("help\r\nhelp ");
        assert_eq!(said.matches(ignored).count(), 1, "{said}");
        assert!(said.contains(&format!("\r\n{answer}{ignored}")), "{said}");
        guest.wait_for("switch the machine off\r\n");
    }
    // Noise of every kind, and the first Enter brings the prompt back.
    let mut state = 1_u32;
    let noise: Vec<u8> = core::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(1 << 14)
    .collect();
    guest.say(&noise);
    guest.say(b"\rpoweroff\r");
    guest.wait_for("powering off\r\n");
    assert!(guest.wait().success(), "{}", guest.log());
}

fn console_that_is_off_logs_and_does_not_listen() {
    let mut guest = Guest::start(machine().append("serial=off"));
    guest.client().ask_until_right().assert_right();
    guest.send_serial("\rhelp\rpoweroff\r").expect("QEMU runs");
    // What is logged after that shows that the input has had its turn.
    guest.stop().expect("stops");
    guest.cont().expect("goes on");
    let said = guest.wait_said("] time: ");
    assert!(!guest.serial_log().contains(PROMPT), "{said}");
    assert!(!guest.serial_log().contains("list the commands"), "{said}");
    guest.client().ask_until_right().assert_right();
}
