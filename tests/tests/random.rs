//! Random numbers from the host's entropy device, which answers at once, late or never.

use core::time::Duration;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::Instant;

use gnomon_clock::Fields;
use gnomon_qemu::Arch;
use gnomon_qemu::machine::Machine;
use gnomon_tests::guest::{Guest, machine};
use gnomon_tests::temporary::Temporary;
use gnomon_tests::{PATIENCE, arch};

gnomon_tests::on_both![
    the_entropy_device_is_asked_wherever_it_is,
    one_that_is_mute_holds_nothing_up_and_one_that_is_late_is_heard,
    another_life_asks_anew,
];

/// Ways to give the machine such a device.
fn places() -> &'static [&'static [&'static str]] {
    match arch() {
        Arch::X86_64 => &[
            &["-device", "virtio-rng-pci"],
            &["-device", "virtio-rng-pci-transitional"],
        ],
        Arch::Aarch64 => &[
            &["-device", "virtio-rng-pci"],
            &[
                "-global",
                "virtio-mmio.force-legacy=false",
                "-device",
                "virtio-rng-device",
            ],
        ],
    }
}

/// The usual machine with so many more words on QEMU's command line.
fn with(words: &[&str]) -> Machine {
    let machine = machine().publish(None);
    words
        .iter()
        .fold(machine, |machine, word| machine.arg(*word))
}

/// What `services` says of random numbers.
fn row(guest: &mut Guest) -> String {
    let said = guest.command("services");
    let row = said.lines().find_map(|line| line.strip_prefix("random "));
    row.unwrap_or_else(|| panic!("{said}")).trim().to_owned()
}

/// Waits until that is so.
fn wait_row(guest: &mut Guest, is_so: impl Fn(&str) -> bool) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let row = row(guest);
        if is_so(&row) {
            return row;
        }
        assert!(Instant::now() < deadline, "{row}");
        thread::park_timeout(Duration::from_millis(50));
    }
}

fn the_entropy_device_is_asked_wherever_it_is() {
    for words in places() {
        let (mut guest, _) = Guest::boot(with(words));
        let row = wait_row(&mut guest, |row| row.contains("virtio-rng, "));
        println!("{}, {}: {row}", arch().name(), words.join(" "));
        assert!(!row.contains("weak") && !row.contains(';'), "{row}");
    }
    // An old one, with registers of before virtio 1.0, is not used, and that is said.
    let legacy = match arch() {
        Arch::X86_64 => "virtio-rng-pci,disable-modern=on,disable-legacy=off",
        Arch::Aarch64 => "virtio-rng-device",
    };
    let (mut guest, report) = Guest::boot(with(&["-device", legacy]));
    assert!(report.contains("virtio-rng: refused: "), "{report}");
    let row = row(&mut guest);
    assert!(!row.contains("virtio-rng"), "{row}");
}

/// A daemon that QEMU's device gets its numbers from (the protocol of EGD), which answers when told to.
struct Daemon {
    path: Temporary,
    listener: UnixListener,
}

impl Daemon {
    fn new(name: &str) -> Self {
        let path = Temporary::new(name);
        let listener = UnixListener::bind(path.path()).expect("a socket of our own");
        Self { path, listener }
    }

    /// The machine with a device that asks it. For a page on aarch64 the launcher starts QEMU twice, and each
    /// connects.
    fn machine(&self) -> Machine {
        let chardev = format!("socket,id=egd,path={}", path(self.path.path()));
        with(&["-chardev", &chardev])
            .arg("-object")
            .arg("rng-egd,id=numbers,chardev=egd")
            .arg("-device")
            .arg("virtio-rng-pci,rng=numbers")
    }

    /// The connection on which something is asked.
    fn asked(&self) -> UnixStream {
        loop {
            let (mut stream, _) = self.listener.accept().expect("QEMU connects");
            stream.set_read_timeout(Some(PATIENCE)).expect("some time");
            // The QEMU that only tells its tree goes away.
            if request(&mut stream) {
                return stream;
            }
        }
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a name of ours")
}

/// Reads a request for 32 bytes; false at the end of the connection.
fn request(stream: &mut UnixStream) -> bool {
    let mut request = [0; 2];
    if stream.read_exact(&mut request).is_err() {
        return false;
    }
    assert_eq!(request, [2, 32]);
    true
}

fn one_that_is_mute_holds_nothing_up_and_one_that_is_late_is_heard() {
    const MUTE: &str = "; virtio-rng has not answered";
    let daemon = Daemon::new("egd");
    let machine = match arch() {
        // That has no random numbers of its own.
        Arch::X86_64 => daemon.machine().cpu("qemu64"),
        Arch::Aarch64 => daemon.machine(),
    };
    let (mut guest, _) = Guest::boot(machine);
    let row = row(&mut guest);
    println!("{}: {row}", arch().name());
    assert!(row.ends_with(MUTE), "{row}");
    assert_eq!(row.contains("weak"), arch() == Arch::X86_64, "{row}");
    let mut stream = daemon.asked();
    // It serves.
    guest.client().ask().assert_no_time(&["INIT"]);
    // A part of it is not enough.
    stream.write_all(&[7; 5]).expect("QEMU runs");
    assert!(self::row(&mut guest).ends_with(MUTE));
    stream.write_all(&[9; 27]).expect("QEMU runs");
    let row = wait_row(&mut guest, |row| row.contains("virtio-rng, "));
    assert!(!row.contains(';') && !row.contains("weak"), "{row}");
    guest.client().ask().assert_no_time(&["INIT"]);
}

fn another_life_asks_anew() {
    let daemon = Daemon::new("lives");
    let (mut guest, _) = Guest::boot(daemon.machine());
    let mut stream = daemon.asked();
    stream.write_all(&[7; 32]).expect("QEMU runs");
    wait_row(&mut guest, |row| row.contains("virtio-rng, "));
    let stock = guest.page().and_then(|page| page.fields()).expect("a page");
    for marker in 1..=3 {
        let fields = Fields {
            disruption_marker: stock.disruption_marker + marker,
            ..stock
        };
        guest.write_fields(&fields).expect("QEMU runs");
        assert!(request(&mut stream), "asked anew");
        let row = row(&mut guest);
        assert!(row.ends_with("; virtio-rng has not answered"), "{row}");
        guest.client().ask().assert_no_time(&["INIT", "STEP"]);
        stream.write_all(&[8; 32]).expect("QEMU runs");
        wait_row(&mut guest, |row| !row.contains(';'));
    }
}
