//! From the loader to the prompt, and out again.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use gnomon_qemu::End;
use gnomon_qemu::machine::{Board, Firmware, Machine, Net, STATUS_FAILURE, Transport};
use gnomon_tests::console::{PROMPT, TimeLine};
use gnomon_tests::gdb::Gdb;
use gnomon_tests::guest::{Guest, buses, description, machine, place};
use gnomon_tests::process::Process;
use gnomon_tests::temporary::Temporary;
use gnomon_tests::{Arch, PATIENCE, Slot, arch, image, on};
use serde_json::json;

gnomon_tests::on_both![
    what_is_wrong_on_the_command_line_is_named_and_ignored,
    page_address_on_the_command_line_overrides,
    page_address_in_ram_is_refused_with_the_reason,
    machine_without_a_page_says_so_and_has_no_time,
    unexpected_trap_prints_the_registers_and_fails,
    poweroff_ends_with_success_on_every_board,
    reboot_boots_again_and_the_time_is_right_again,
    reboot_can_end_qemu_instead,
    image_boots_without_the_launcher,
    machine_without_a_network_tells_the_time_all_the_same,
    qemu_is_asked_for_a_tree_once,
];

fn boards() -> &'static [Board] {
    match arch() {
        Arch::X86_64 => &[Board::Q35, Board::Pc],
        Arch::Aarch64 => &[Board::Virt],
    }
}

/// What a machine is made of, and what the guest says of it.
struct Boot {
    arch: Arch,
    board: Board,
    firmware: Firmware,
    /// The file that QEMU runs then.
    rom: &'static str,
    cpu: &'static str,
    /// More of QEMU's words.
    more: &'static [&'static str],
    transport: Transport,
    /// What the lines about the machine, the counter and the network begin with.
    said: [&'static str; 3],
}

const Q35: Boot = Boot {
    arch: Arch::X86_64,
    board: Board::Q35,
    firmware: Firmware::Quick,
    rom: "qboot.rom",
    cpu: "max",
    more: &[],
    transport: Transport::Pci,
    said: ["x86_64, PVH", "x86 TSC at ", "virtio-net, PCI 00:"],
};

const VIRT: Boot = Boot {
    arch: Arch::Aarch64,
    board: Board::Virt,
    firmware: Firmware::Quick,
    rom: "",
    cpu: "max",
    more: &[],
    transport: Transport::Pci,
    said: [
        "aarch64, Image",
        "ARM CNTVCT at 1000.000 MHz",
        "virtio-net, PCI 00:",
    ],
};

const OLD: [&str; 3] = [
    "aarch64, Image",
    "ARM CNTVCT at 62.500 MHz",
    "virtio-net, PCI 00:",
];

const IN_MEMORY: [&str; 3] = [
    "aarch64, Image",
    "ARM CNTVCT at 62.500 MHz",
    "virtio-net, mmio 0x",
];

/// With QEMU's own firmware.
const SEABIOS: Boot = Boot {
    firmware: Firmware::Qemu,
    rom: "bios-256k.bin",
    ..Q35
};

/// Every board, firmware, processor, interrupt controller, exception level, number of processors and transport at
/// least once, on the least memory.
const BOOTS: [Boot; 11] = [
    Q35,
    SEABIOS,
    Boot {
        board: Board::Pc,
        ..Q35
    },
    Boot {
        board: Board::Pc,
        ..SEABIOS
    },
    Boot {
        more: &["-smp", "4"],
        cpu: "qemu64",
        ..Q35
    },
    VIRT,
    Boot {
        more: &["-machine", "gic-version=3,virtualization=on", "-smp", "3"],
        ..VIRT
    },
    Boot {
        cpu: "cortex-a53",
        more: &["-machine", "gic-version=2,virtualization=on"],
        said: OLD,
        ..VIRT
    },
    Boot {
        cpu: "cortex-a57",
        more: &["-machine", "gic-version=3", "-smp", "8"],
        transport: Transport::Mmio,
        said: IN_MEMORY,
        ..VIRT
    },
    Boot {
        cpu: "cortex-a72",
        more: &["-machine", "gic-version=2", "-smp", "2"],
        transport: Transport::Mmio,
        said: IN_MEMORY,
        ..VIRT
    },
    Boot {
        cpu: "cortex-a72",
        more: &["-machine", "gic-version=3,virtualization=on"],
        said: OLD,
        ..VIRT
    },
];

#[test]
fn every_machine_boots_with_16_mib_and_reports() {
    thread::scope(|scope| {
        for boot in &BOOTS {
            scope.spawn(|| on(boot.arch, || boot.boots_and_reports()));
        }
    });
}

impl Boot {
    fn boots_and_reports(&self) {
        let mut machine = machine()
            .board(self.board)
            .firmware(self.firmware)
            .cpu(self.cpu)
            .transport(self.transport)
            .memory(16);
        for word in self.more {
            machine = machine.arg(*word);
        }
        let (mut guest, report) = Guest::boot(machine);
        let roms = guest.monitor("info roms");
        assert!(roms.contains(self.rom), "{}: {roms}", self.rom);
        let report = report.replace('\r', "");
        let lines = report.trim_end().lines().rev();
        let lines = lines.filter(|line| !line.starts_with("ipv6      fe"));
        let report = lines.take(6).collect::<Vec<_>>();
        let [time, network, counter, page, machine, title] = report[..] else {
            panic!("six lines: {report:?}")
        };
        assert!(title.starts_with("Gnomon 0."), "{title}");
        let [its_machine, its_counter, its_network] = self.said;
        assert_eq!(machine, format!("machine   {its_machine}"));
        assert_eq!(page, format!("page      {}", place()));
        for (line, start) in [
            (counter, format!("counter   {its_counter}")),
            (network, format!("network   {its_network}")),
        ] {
            assert!(line.starts_with(&start), "{start}\n{line}");
        }
        // A machine that is slow enough reports before it has everything, and tells the rest later.
        if TimeLine::parse(time).is_none() {
            assert!(time.starts_with("no time: "), "{time}");
        }
        guest.client().ask_until_right().assert_right();
        guest.time().expect("a line of the documented form");
        let net = guest.command("net");
        assert!(net.contains("10.0.2.15/24 by DHCP"), "{net}");
    }
}

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

fn page_address_on_the_command_line_overrides() {
    let (guest, said) = Guest::boot(machine().append(format!("vmclock={:#x}", arch().page())));
    let place = format!("page      command line at {:#x}, 4096 bytes", arch().page());
    assert!(said.contains(&place), "{said}");
    guest.client().ask_until_right().assert_right();
}

fn page_address_in_ram_is_refused_with_the_reason() {
    let addresses = match arch() {
        Arch::X86_64 => ["0x100000", "0x800000"],
        Arch::Aarch64 => ["0x40100000", "0x40800000"],
    };
    for address in addresses {
        // Where only the page is asked: a real-time clock's time would be shown.
        let line = format!("vmclock={address} source=vmclock");
        let (guest, said) = Guest::boot(machine().append(line));
        let refusal =
            format!("none: {address} on the command line refused: its memory at {address}");
        assert!(said.contains(&refusal), "{said}");
        assert!(said.contains("overlaps"), "{said}");
        assert!(said.contains("no time: no vmclock page"), "{said}");
        guest.client().ask().assert_no_time(&["INIT"]);
    }
}

fn machine_without_a_page_says_so_and_has_no_time() {
    let (mut guest, said) = Guest::boot(machine().vmclock(false).append("source=vmclock"));
    let none = format!("page      none: not found: no {} is one", description());
    assert!(said.contains(&none), "{said}");
    assert!(said.contains("no time: no vmclock page"), "{said}");
    guest.client().ask().assert_no_time(&["INIT"]);
    assert_eq!(
        guest.time(),
        Err("no time: no vmclock page".to_owned()),
        "nor later"
    );
    assert_eq!(guest.command("page"), "no vmclock page\n");
}

fn unexpected_trap_prints_the_registers_and_fails() {
    let (mut guest, _) = Guest::boot(machine());
    let words = match arch() {
        Arch::X86_64 => {
            // QEMU may end before it has answered.
            let _ended = guest.qmp().execute("inject-nmi", json!({}));
            [
                "exception 2: ",
                "\r\n  rip 0000000000",
                " cr2 ",
                "\r\n  r13 ",
            ]
        }
        Arch::Aarch64 => {
            // Page zero is not mapped.
            Gdb::attach(guest.qmp()).set_and_go(Gdb::PC, 0x40);
            let _ended = guest.cont();
            [
                "exception vector 0: instruction abort, esr 0x8",
                "\r\n  elr 0000000000000040  far 0000000000000040",
                "\r\n  sp  00000000",
                " x30 ",
            ]
        }
    };
    let end = guest.wait_exit(PATIENCE);
    let said = guest.serial_log();
    assert_eq!(end, Some(End::Status(STATUS_FAILURE)), "{said}");
    for words in words {
        assert!(said.contains(words), "{words:?}\n{said}");
    }
}

fn poweroff_ends_with_success_on_every_board() {
    for board in boards() {
        let (mut guest, _) = Guest::boot(machine().board(*board));
        guest.type_line("poweroff");
        assert_eq!(guest.wait_exit(PATIENCE), Some(End::Status(0)), "{board:?}");
        assert!(guest.serial_log().ends_with("powering off\r\n"));
    }
}

fn reboot_boots_again_and_the_time_is_right_again() {
    for board in boards() {
        let (mut guest, client) = Guest::serving_with(machine().board(*board));
        let before = guest.publisher().report().disruptions;
        guest.type_line("reboot");
        guest.wait_said("Gnomon 0.");
        guest.wait_prompt();
        guest.wait_published(|report| report.valid && report.disruptions > before);
        client.ask_until_right().assert_right();
        guest.time().expect("time");
    }
}

fn reboot_can_end_qemu_instead() {
    let (mut guest, _) = Guest::boot(machine().reboots(false));
    guest.type_line("reboot");
    assert_eq!(guest.wait_exit(PATIENCE), Some(End::Status(0)));
}

fn image_boots_without_the_launcher() {
    let _slot = Slot::take();
    let mut qemu = Command::new(arch().program());
    qemu.args(["-nic", "none", "-display", "none", "-serial", "stdio"]);
    if arch() == Arch::Aarch64 {
        qemu.args(["-machine", "virt", "-cpu", "max"]);
    }
    qemu.arg("-kernel").arg(image());
    let mut qemu = Process::start(&mut qemu);
    let said = qemu.wait_for(PROMPT);
    for line in [
        format!("page      none: not found: no {} is one", description()),
        format!("network   none: no virtio-net device on {}", buses()),
        // The real-time clock's.
        " s  TAI-UTC unknown  freerunning".to_owned(),
    ] {
        assert!(said.contains(&line), "{line}\n{said}");
    }
    qemu.say(b"poweroff\r");
    assert!(qemu.wait().success());
}

fn machine_without_a_network_tells_the_time_all_the_same() {
    let (mut guest, said) = Guest::boot(machine().net(Net::None));
    let none = format!("network   none: no virtio-net device on {}", buses());
    assert!(said.contains(&none), "{said}");
    guest.wait_published(|report| report.valid);
    guest.time().expect("time");
}

/// Where there is a device tree to be asked for. The second machine is made of the kept one: it has a page, another seed,
/// and QEMU was not asked again, or the file would be another.
fn qemu_is_asked_for_a_tree_once() {
    let folder = Temporary::directory("trees");
    let trees = folder.path().join("kept");
    let files = || -> Vec<(PathBuf, u64)> {
        let entries = fs::read_dir(&trees).into_iter().flatten();
        entries
            .map(|entry| {
                let entry = entry.expect("readable");
                let about = entry.metadata().expect("there");
                (entry.path(), about.ino())
            })
            .collect()
    };
    let boot = |machine: Machine| {
        let (_guest, report) = Guest::boot(machine.trees(Some(trees.clone())));
        assert!(report.contains(place()), "{report}");
    };
    boot(machine());
    let asked = files();
    let expected = usize::from(arch() == Arch::Aarch64);
    assert_eq!(asked.len(), expected, "{asked:?}");
    boot(machine());
    assert_eq!(files(), asked);
    // Another machine has another tree, and one with arguments of somebody else's is always asked for.
    boot(machine().memory(48));
    assert_eq!(files().len(), 2 * expected);
    boot(machine().memory(56).arg("-rtc").arg("base=utc"));
    assert_eq!(files().len(), 2 * expected);
}
