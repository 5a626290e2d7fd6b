//! What the guest finds of firmware and hypervisor, live: under TCG nearly nothing, and it says so and goes on.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use gnomon_qemu::machine::{Arch, Machine};
use gnomon_tests::console::PROMPT;
use gnomon_tests::guest::Guest;
use gnomon_tests::process::Process;
use gnomon_tests::temporary::Temporary;
use gnomon_tests::{Slot, image, on, plain_image};

#[test]
fn a_pc_under_tcg() {
    let (mut guest, _) = Guest::boot(Machine::new(Arch::X86_64).kernel(image()));
    let said = guest.command("services");
    let rows: Vec<&str> = said.lines().collect();
    assert_eq!(
        rows[..5],
        [
            "hypervisor  TCGTCGTCGTCG, leaves to 0x40000001",
            "pvclock     absent",
            "pairing     absent",
            "steal time  absent",
            "tsc rate    absent",
        ],
        "{said}"
    );
    assert!(
        rows.last()
            .is_some_and(|row| row.starts_with("random      ")),
        "{said}"
    );
    assert!(said.contains("counter, identity"), "{said}");
    let status = guest.command("status");
    // No rate, and no other view of the counter, is nothing to complain of.
    assert!(
        !status.contains("\ncounter ") && !status.contains("\nphysical "),
        "{status}"
    );
}

/// A processor that has random numbers: they are used.
#[test]
fn a_pc_with_random_numbers() {
    let _slot = Slot::take();
    let mut pc = Command::new("qemu-system-x86_64");
    pc.args(["-M", "q35", "-cpu", "max", "-kernel"])
        .arg(image());
    let mut guest = started(&mut pc);
    let said = answer(&mut guest, "services");
    assert!(
        said.contains("\nrdseed      present\nrdrand      present\n"),
        "{said}"
    );
    assert!(
        said.ends_with("\nrandom      rdseed, rdrand, counter\n"),
        "{said}"
    );
    // Leaf 0x15 is beyond what this processor has, and answers with something.
    assert!(said.contains("\ntsc rate    absent\n"), "{said}");
    end(guest);
}

/// PSCI is there, and nothing else: each is called and denied, at EL1 by HVC and after EL2 by SMC.
#[test]
fn an_arm_machine_under_tcg() {
    for (machine, cpu, conduit, hertz, random) in [
        (
            "virt",
            "max",
            "hvc",
            1_000_000_000,
            "rndr, boot entropy, counter",
        ),
        (
            "virt",
            "cortex-a57",
            "hvc",
            62_500_000,
            "boot entropy, counter",
        ),
        (
            "virt,virtualization=on",
            "max",
            "smc",
            1_000_000_000,
            "rndr, boot entropy, counter",
        ),
        (
            "virt,virtualization=on",
            "cortex-a57",
            "smc",
            62_500_000,
            "boot entropy, counter",
        ),
        (
            "virt,dtb-randomness=off",
            "cortex-a57",
            "hvc",
            62_500_000,
            "counter (weak: no source is fit for secrets)",
        ),
    ] {
        let _slot = Slot::take();
        let mut guest = started(&mut arm(machine, cpu));
        let said = answer(&mut guest, "services");
        let rows: Vec<&str> = said.lines().collect();
        assert_eq!(rows.len(), 10, "{said}");
        assert_eq!(rows[0], format!("conduit     {conduit}"), "{machine} {cpu}");
        assert_eq!(rows[1], "psci        1.1");
        let denied = ["smccc", "arch", "vendor", "kvm", "ptp", "trng", "pv time"];
        for (row, name) in rows[2..9].iter().zip(denied) {
            assert_eq!(*row, format!("{name:<12}absent"), "{machine} {cpu}");
        }
        assert_eq!(rows[9], format!("random      {random}"), "{machine} {cpu}");
        let status = answer(&mut guest, "status");
        assert!(
            status.contains(&format!("\ncounter     {hertz} Hz by CNTFRQ\n")),
            "{status}"
        );
        let physical = status
            .lines()
            .find_map(|line| line.strip_prefix("physical    CNTPCT-CNTVCT "));
        let (offset, rest) = physical
            .and_then(|it| it.split_once(" ± "))
            .expect("an offset");
        let (width, rest) = rest.split_once(' ').expect("a width");
        assert_eq!(rest, "ticks, unannounced changes 0", "{status}");
        // QEMU starts both at zero, and the entry code leaves no offset.
        let offset: i64 = offset.parse().expect("a number");
        let width: u64 = width.parse().expect("a number");
        assert!(offset.unsigned_abs() <= width, "{status}");
        guest.say(b"reboot\r");
        guest.wait_for("rebooting\r\n");
        guest.wait_for("machine   aarch64, Image\r\n");
        guest.wait_for(PROMPT);
        end(guest);
    }
}

/// A machine where the instruction of a call does not exist: that is taken for a denial. QEMU always obeys the
/// instruction that its tree names, so the image is changed to use the other one.
#[test]
fn an_arm_machine_without_the_instruction() {
    const HVC: [u8; 4] = 0xd400_0002_u32.to_le_bytes();
    const SMC: [u8; 4] = 0xd400_0003_u32.to_le_bytes();
    let _slot = Slot::take();
    let plain = on(Arch::Aarch64, plain_image);
    let mut image = std::fs::read(plain).expect("it can be read");
    let mut found = 0;
    for word in image.chunks_exact_mut(4).filter(|word| **word == HVC) {
        word.copy_from_slice(&SMC);
        found += 1;
    }
    assert_eq!(found, 1, "there is one place for it");
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let changed = scratch.join(format!("services-{}.img", std::process::id()));
    std::fs::write(&changed, image).expect("there is room");
    let mut guest = started(&mut arm_with(&changed, "virt", "max"));
    let said = answer(&mut guest, "services");
    let rows: Vec<&str> = said.lines().collect();
    assert_eq!(rows[0], "conduit     hvc");
    assert!(
        rows[1..9].iter().all(|row| row.ends_with("  absent")),
        "{said}"
    );
    // Nobody switches it off; it stops, and has not failed.
    guest.say(b"poweroff\r");
    guest.wait_for("powering off\r\n");
    assert!(!guest.log().contains("exception"), "{}", guest.log());
    drop(guest);
    std::fs::remove_file(&changed).expect("it is ours");
}

/// The end of a failing run: a report, and status 99 through semihosting; without that, a CPU that stands
/// still. A debugger sends the CPU where there is nothing.
#[test]
fn an_arm_machine_fails_visibly() {
    let _slot = Slot::take();
    let mut command = arm("virt", "max");
    command.args(["-semihosting-config", "enable=on,target=native", "-gdb"]);
    let socket = Temporary::new("gdb");
    let path = socket.path();
    command.arg(format!("unix:{},server=on,wait=off", path.display()));
    let mut guest = started(&mut command);
    let mut debugger = UnixStream::connect(path).expect("QEMU listens");
    // The program counter, register 32, becomes zero. The CPU sleeps and wakes there.
    for (packet, expected) in [("P20=0000000000000000", "+$OK#9a"), ("c", "+")] {
        let sum = packet.bytes().fold(0_u8, u8::wrapping_add);
        let packet = format!("${packet}#{sum:02x}");
        debugger.write_all(packet.as_bytes()).expect("QEMU runs");
        let mut answer = vec![0; expected.len()];
        debugger.read_exact(&mut answer).expect("QEMU answers");
        assert_eq!(answer, expected.as_bytes());
    }
    guest.wait_for("exception vector 0: instruction abort, esr ");
    assert_eq!(guest.wait().code(), Some(99), "{}", guest.log());
}

fn arm(machine: &str, cpu: &str) -> Command {
    arm_with(&arm_image(), machine, cpu)
}

fn arm_with(image: &Path, machine: &str, cpu: &str) -> Command {
    let mut command = Command::new("qemu-system-aarch64");
    command.args(["-M", machine, "-cpu", cpu, "-kernel"]);
    command.arg(image);
    command
}

fn arm_image() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../build/gnomon-aarch64.img");
    assert!(
        path.is_file(),
        "there is no build/gnomon-aarch64.img: run `make build`"
    );
    path
}

/// Starts a machine without a network, its console on the standard streams, and waits for the prompt.
fn started(machine: &mut Command) -> Process {
    machine.args(["-m", "64", "-nic", "none", "-display", "none"]);
    machine.args(["-serial", "stdio", "-monitor", "none"]);
    let mut guest = Process::start(machine);
    guest.wait_for(PROMPT);
    guest
}

/// What a command prints, without carriage returns.
fn answer(guest: &mut Process, line: &str) -> String {
    guest.say(format!("{line}\r").as_bytes());
    guest.wait_for(&format!("{line}\r\n"));
    let said = guest.wait_for(PROMPT);
    said.trim_end_matches(PROMPT).replace('\r', "")
}

/// Switches the machine off, with which QEMU ends.
fn end(mut guest: Process) {
    guest.say(b"poweroff\r");
    guest.wait_for("powering off\r\n");
    assert!(guest.wait().success(), "{}", guest.log());
}
