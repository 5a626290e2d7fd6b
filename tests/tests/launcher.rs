//! The `gnomon-qemu` command.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use gnomon_tests::console::PROMPT;
use gnomon_tests::gdb::Gdb;
use gnomon_tests::ntp::Client;
use gnomon_tests::process::Process;
use gnomon_tests::temporary::Temporary;
use gnomon_tests::{Arch, Slot, arch, fixtures, image, launcher};
use rustix::process::Signal;

gnomon_tests::on_both![
    publish_makes_any_running_qemu_right,
    runs_for_so_many_seconds_and_ends_well,
    signals_end_it_and_leave_no_qemu_behind,
    qemu_does_not_outlive_a_launcher_that_was_killed,
    guests_poweroff_ends_it_well_and_a_trap_does_not,
    serial_line_to_a_file,
    unpublished_guest_has_no_time,
    port_in_use_is_one_sentence,
    unusable_qemu_is_one_sentence,
    publish_without_a_monitor_is_one_sentence,
];

fn run(arguments: &[&str]) -> Process {
    let mut command = Command::new(launcher());
    command.args(["run", "--arch", arch().name(), "--http", "0"]);
    Process::start(command.args(arguments))
}

/// A UDP port that was free a moment ago.
fn free_port() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.local_addr().expect("bound").port()
}

fn has_ended(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    // Waited for, or by nobody.
    status.is_empty() || status.contains("State:\tZ")
}

/// It fails, and all it says is one sentence with these words.
fn assert_one_sentence(mut process: Process, words: &[&str]) {
    let status = process.wait();
    let said = process.log();
    assert!(!status.success(), "{said}");
    assert!(said.starts_with("gnomon-qemu: "), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    for word in words {
        assert!(said.contains(word), "{word}\n{said}");
    }
}

fn runs_for_so_many_seconds_and_ends_well() {
    let _slot = Slot::take();
    let port = free_port().to_string();
    let mut launcher = run(&["--seconds", "3", "--ntp", &port]);
    let status = launcher.wait();
    let said = launcher.log();
    assert!(status.success(), "{said}");
    assert!(!said.contains("has ended"), "a normal end: {said}");
    for words in [
        &format!("chronyd -Q -t 5 'server 127.0.0.1 port {port} iburst'"),
        "ntpdig 127.0.0.1",
        "Gnomon 0.",
        PROMPT,
    ] {
        assert!(said.contains(words), "{words}\n{said}");
    }
}

fn signals_end_it_and_leave_no_qemu_behind() {
    for signal in [Signal::INT, Signal::TERM] {
        let _slot = Slot::take();
        let port = free_port();
        let mut launcher = run(&["--ntp", &port.to_string()]);
        Client::new(port).ask_until_right().assert_right();
        let children = launcher.children();
        let [qemu] = children[..] else {
            panic!("one child: {children:?}")
        };
        launcher.signal(signal);
        let status = launcher.wait();
        assert!(status.success(), "{}", launcher.log());
        assert!(has_ended(qemu), "QEMU {qemu} still runs");
        // And the port is free again.
        UdpSocket::bind(("127.0.0.1", port)).expect("free");
    }
}

fn qemu_does_not_outlive_a_launcher_that_was_killed() {
    let _slot = Slot::take();
    let port = free_port();
    let mut launcher = run(&["--ntp", &port.to_string()]);
    let _first = Client::new(port).ask();
    let children = launcher.children();
    launcher.signal(Signal::KILL);
    assert!(!launcher.wait().success());
    for qemu in children {
        let deadline = std::time::Instant::now() + gnomon_tests::PATIENCE;
        while !has_ended(qemu) {
            assert!(
                std::time::Instant::now() < deadline,
                "QEMU {qemu} still runs"
            );
            std::thread::yield_now();
        }
    }
}

fn guests_poweroff_ends_it_well_and_a_trap_does_not() {
    let _slot = Slot::take();
    let mut launcher = run(&["--ntp", "0"]);
    launcher.wait_for(PROMPT);
    launcher.say(b"poweroff\r");
    assert!(launcher.wait().success(), "{}", launcher.log());

    let socket = Temporary::new("qmp");
    let path = socket.path().to_str().expect("UTF-8");
    let mut launcher = run(&["--ntp", "0", "--qmp", path]);
    launcher.wait_for(PROMPT);
    let mut qmp = gnomon_qemu::qmp::Qmp::connect(socket.path()).expect("QEMU listens");
    match arch() {
        Arch::X86_64 => {
            // QEMU may end before it has answered.
            let _ended = qmp.execute("inject-nmi", serde_json::json!({}));
        }
        Arch::Aarch64 => {
            Gdb::attach(&mut qmp).set_and_go(Gdb::PC, 0x40);
            qmp.execute("cont", serde_json::json!({})).expect("goes on");
        }
    }
    let status = launcher.wait();
    let said = launcher.log();
    assert_eq!(status.code(), Some(99), "{said}");
    assert!(said.contains("the guest has failed"), "{said}");
}

fn serial_line_to_a_file() {
    let _slot = Slot::take();
    let (file, port) = (Temporary::new("serial"), free_port());
    let path = file.path().to_str().expect("UTF-8");
    let mut launcher = run(&["--serial", path, "--ntp", &port.to_string()]);
    Client::new(port).ask_until_right().assert_right();
    launcher.signal(Signal::INT);
    assert!(launcher.wait().success());
    let said = fs::read_to_string(file.path()).expect("written");
    assert!(said.contains("Gnomon 0."), "{said}");
    assert!(!launcher.log().contains("Gnomon 0."), "{}", launcher.log());
}

fn unpublished_guest_has_no_time() {
    let _slot = Slot::take();
    let port = free_port();
    let mut launcher = run(&["--no-publish", "--ntp", &port.to_string()]);
    Client::new(port).ask().assert_no_time(&["INIT"]);
    launcher.signal(Signal::INT);
    assert!(launcher.wait().success());
}

fn port_in_use_is_one_sentence() {
    let _slot = Slot::take();
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port().to_string();
    assert_one_sentence(run(&["--ntp", &port]), &[&port, "is taken", "--ntp"]);
}

fn unusable_qemu_is_one_sentence() {
    let _slot = Slot::take();
    let missing = run(&["--qemu", "/nonexistent"]);
    assert_one_sentence(missing, &["/nonexistent", "QEMU 10.0", "make run"]);
}

/// It takes the vmclock device, which there is on x86 alone.
#[test]
fn old_qemu_is_one_sentence() {
    let _slot = Slot::take();

    let old = fixtures().join("qemu-7.2");
    let mode = fs::metadata(&old).expect("committed").permissions().mode();
    assert_eq!(mode & 0o100, 0o100, "it can be executed");
    let words = ["7.2.22", "vmclock", "QEMU 10.0", "bookworm-backports"];
    let old = old.to_str().expect("UTF-8");
    assert_one_sentence(run(&["--qemu", old]), &words);
    // And through the environment.
    let mut command = Command::new(launcher());
    command.arg("run").env("GNOMON_QEMU", old);
    assert_one_sentence(Process::start(&mut command), &words);
}

#[test]
fn missing_image_is_one_sentence() {
    let _slot = Slot::take();
    let arguments = ["--ntp", "0", "--kernel", "/nonexistent.elf"];
    assert_one_sentence(run(&arguments), &["/nonexistent.elf"]);
    // Nothing beside the launcher and nothing in build/.
    let alone = Temporary::directory("alone");
    let copy = alone.path().join("gnomon-qemu");
    fs::copy(launcher(), &copy).expect("copied");
    let mut command = Command::new(&copy);
    command.arg("run").current_dir(alone.path());
    assert_one_sentence(Process::start(&mut command), &["make build", "--kernel"]);
}

fn publish_makes_any_running_qemu_right() {
    let _slot = Slot::take();
    let (socket, port) = (Temporary::new("publish"), free_port());
    let path = socket.path().to_str().expect("UTF-8");
    let mut qemu = match arch() {
        Arch::X86_64 => plain_qemu(path, port),
        // Somebody has to make the page.
        Arch::Aarch64 => {
            let mut run = Command::new(launcher());
            run.args(["run", "--arch", "aarch64", "--no-publish", "--qmp", path])
                .args(["--ntp", &port.to_string(), "--http", "0"]);
            run
        }
    };
    let mut qemu = Process::start(&mut qemu);
    qemu.wait_for(PROMPT);
    let client = Client::new(port);
    client.ask().assert_no_time(&["INIT"]);

    let process = match qemu.children()[..] {
        [child] => child,
        _ => qemu.pid(),
    };
    let publish = || {
        let mut publish = Command::new(launcher());
        publish.args(["publish", "--qmp", path]);
        let mut publish = Process::start(&mut publish);
        let said = publish.wait_for("Ctrl-C ends it");
        assert!(
            said.contains(&format!("QEMU's process {process}")),
            "{said}"
        );
        publish
    };
    for _ in 0..2 {
        let mut publish = publish();
        client.ask_until_right().assert_right();
        for _ in 0..100 {
            client.ask().assert_right();
        }
        publish.signal(Signal::INT);
        assert!(publish.wait().success(), "{}", publish.log());
        // A page that nobody keeps up carries no time.
        client.ask().assert_no_time(&["STEP"]);
    }

    let mut publish = publish();
    client.ask_until_right().assert_right();
    qemu.say(b"\rpoweroff\r");
    assert!(qemu.wait().success(), "{}", qemu.log());
    // It ends with its QEMU.
    let status = publish.wait();
    assert!(status.success(), "{}", publish.log());
    assert!(
        !publish.log().contains("closed its monitor"),
        "{}",
        publish.log()
    );
}

fn plain_qemu(socket: &str, port: u16) -> Command {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args([
        "-nodefaults",
        "-display",
        "none",
        "-machine",
        "q35",
        "-cpu",
        "max",
    ])
    .args(["-device", "vmclock", "-serial", "stdio"])
    .args([
        "-netdev",
        &format!("user,id=net,hostfwd=udp:127.0.0.1:{port}-:123"),
    ])
    .args(["-device", "virtio-net-pci,netdev=net"])
    .args([
        "-qmp",
        &format!("unix:{socket},server=on,wait=off"),
        "-kernel",
    ])
    .arg(image());
    qemu
}

fn publish_without_a_monitor_is_one_sentence() {
    let mut command = Command::new(launcher());
    command.args(["publish", "--qmp", "/nonexistent.sock"]);
    assert_one_sentence(Process::start(&mut command), &["/nonexistent.sock"]);
}
