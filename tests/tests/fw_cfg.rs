//! What the host gives through QEMU's firmware configuration device: keys, and on aarch64 ACPI's tables.

use core::net::Ipv4Addr;
use core::time::Duration;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Instant;

use gnomon_qemu::End;
use gnomon_qemu::machine::{Machine, Transport};
use gnomon_tests::guest::{Guest, machine, with_tables};
use gnomon_tests::judge::unpacked;
use gnomon_tests::process::Process;
use gnomon_tests::temporary::Temporary;
use gnomon_tests::{Arch, PATIENCE, arch, fixtures, on, on_both};

on_both!(chronyd_authenticates_with_a_key_from_a_file);

const SECRET: &str = "00112233445566778899AABBCCDDEEFF";
const WIDE: &str = "thirty-two.characters.as.they.ar";

fn chronyd_authenticates_with_a_key_from_a_file() {
    let here = Temporary::directory(&format!("keys-{:?}", arch()));
    let keys = format!("# ours\n1 AES128 HEX:{SECRET}\n70000 AES256 {WIDE}\n3 MD5 HEX:{SECRET}\n");
    // A comma, which QEMU's command line has to be told of.
    let file = file(&here, "ours,mine", &keys);
    let machine = machine().ntp_keys(&file).append("ntp.auth=require");
    let (mut guest, report) = Guest::boot(machine);
    // What is not taken is told, and nothing of what it was.
    assert!(
        report.contains("ntp key file: line 4 ignored: the type is not AES128 or AES256"),
        "{report}"
    );
    for id in [1, 70000] {
        let shown = watch(&here, guest.ntp_port().expect("user network"), &file, id);
        assert!(shown.contains("Authenticated : Yes"), "{shown}");
    }
    let said = report + &guest.command("status");
    assert!(!said.contains(&SECRET[..8]), "{said}");
    assert!(!said.contains(&WIDE[..8]), "{said}");
}

/// Runs chronyd with this key until it has accepted the guest's replies; returns what chronyc shows.
fn watch(here: &Temporary, port: u16, keys: &Path, id: u32) -> String {
    let name = |name: &str| here.path().join(format!("{id}-{name}"));
    let configuration = format!(
        "server {} port {port} key {id} iburst minpoll 0 maxpoll 0\nport 0\ncmdport 0\nuser root\n\
         bindcmdaddress {}\npidfile {}\nkeyfile {}\n",
        Ipv4Addr::LOCALHOST,
        name("socket").display(),
        name("pid").display(),
        keys.display()
    );
    let file = file(here, &format!("{id}-conf"), &configuration);
    let mut command = Command::new(unpacked("usr/sbin/chronyd"));
    let running = Process::start(command.args(["-x", "-d", "-f"]).arg(file));
    let chronyc = unpacked("usr/bin/chronyc");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut command = Command::new(&chronyc);
        command
            .arg("-h")
            .arg(name("socket"))
            .args(["-n", "ntpdata"]);
        let (_, said) = Process::run(&mut command);
        let shown: Vec<_> = said
            .lines()
            .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        if shown.iter().any(|line| line == "NTP tests : 111 111 1111") {
            return shown.join("\n");
        }
        assert!(
            Instant::now() < deadline,
            "it has got no further: {said}\n{}",
            running.log()
        );
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_key_file_that_is_too_long_is_refused() {
    let here = Temporary::directory("long");
    let file = file(
        &here,
        "keys",
        &format!("1 AES128 HEX:{SECRET}\n{}", "#".repeat(4096)),
    );
    let (_guest, report) = Guest::boot(machine().ntp_keys(file));
    let refusal = "ntp key file: ignored, it is longer than 4096 bytes";
    assert!(report.contains(refusal), "{report}");
}

/// An aarch64 machine with the image.
fn arm() -> Machine {
    on(Arch::Aarch64, machine)
}

/// Boots by ACPI and lets the guest serve; returns its boot report.
fn serve_by_acpi(machine: Machine) -> String {
    let (mut guest, report) = Guest::boot(machine.append("firmware=acpi"));
    assert!(
        report.contains("machine   aarch64, Image, ACPI\r\n"),
        "{report}"
    );
    assert!(!report.contains("the cpu will not sleep"), "{report}");
    guest.client().ask_until_right().assert_right();
    let time = guest.time();
    assert!(time.is_ok(), "{time:?}");
    // PSCI, as the FADT has it.
    guest.type_line("poweroff");
    assert_eq!(guest.wait_exit(PATIENCE), Some(End::Status(0)));
    report
}

#[test]
fn acpi_describes_a_machine_with_pci() {
    for options in ["virt", "gic-version=3", "virtualization=on"] {
        let machine = arm().transport(Transport::Pci);
        let report = serve_by_acpi(machine.arg("-machine").arg(options));
        assert!(report.contains("virtio-net, PCI 00:01.0"), "{report}");
        // QEMU's own tables have no page: the device tree's is taken.
        assert!(report.contains("(amazon,vmclock)"), "{report}");
    }
}

#[test]
fn acpi_describes_a_machine_without_pci() {
    let machine = arm().transport(Transport::Mmio);
    let report = serve_by_acpi(machine.arg("-smp").arg("3"));
    assert!(report.contains("virtio-net, mmio 0xa00"), "{report}");
}

#[test]
fn a_page_is_found_through_an_acpi_device() {
    let report = serve_by_acpi(with_tables(arm(), &fixtures().join("acpi/virt-vmclock")));
    let place = r"page      \_SB.VCLK (AMZNC10C) at 0x40010000, 4096 bytes";
    assert!(report.contains(place), "{report}");
}

#[test]
fn a_bad_script_is_told_and_the_device_tree_used() {
    let here = Temporary::directory("script");
    let from = fixtures().join("acpi/virt-gic2");
    for name in ["rsdp", "tables", "table-loader"] {
        let mut bytes = fs::read(from.join(name)).expect(name);
        if name == "table-loader" {
            bytes[2 * 128 + 68] ^= 0xff; // a checksum's length
            bytes[2 * 128 + 71] = 0xff;
        }
        fs::write(here.path().join(name), bytes).expect("our own directory");
    }
    let machine = with_tables(arm(), here.path()).append("firmware=acpi");
    let (guest, report) = Guest::boot(machine);
    let why = "acpi table loader, command 3: the checksums take too long; the device tree is used";
    assert!(report.contains(why), "{report}");
    assert!(report.contains("machine   aarch64, Image\r\n"), "{report}");
    guest.client().ask_until_right().assert_right();
}

fn file(here: &Temporary, name: &str, text: &str) -> PathBuf {
    let path = here.path().join(name);
    fs::write(&path, text).expect("our own directory");
    path
}
