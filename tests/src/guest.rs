//! A running guest.

use core::ops::{Deref, DerefMut};
use core::time::Duration;
use std::path::Path;
use std::thread;
use std::time::{Instant, SystemTime};

use gnomon_clock::{Fields, PageMemory};
use gnomon_qemu::machine::{Arch, Machine};
use gnomon_qemu::memory::GuestPage;
use gnomon_qemu::publish::{Publisher, Report};
use gnomon_qemu::{End, Vm};

use serde_json::json;

use crate::console::{PROMPT, TimeLine};
use crate::ntp::Client;
use crate::{PATIENCE, Slot, arch, image};

/// The image in a machine, with one of the [`Slot`]s.
#[derive(Debug)]
pub struct Guest {
    vm: Vm,
    _slot: Slot,
}

/// A machine as `gnomon-qemu run` starts it, with the image, on a free port.
#[must_use]
pub fn machine() -> Machine {
    Machine::new(arch()).kernel(image())
}

/// An aarch64 machine whose ACPI tables are not QEMU's own but those in files of this directory.
#[must_use]
pub fn with_tables(machine: Machine, directory: &Path) -> Machine {
    let mut machine = machine.arg("-machine").arg("acpi=off");
    for (name, file) in [
        ("etc/acpi/rsdp", "rsdp"),
        ("etc/acpi/tables", "tables"),
        ("etc/table-loader", "table-loader"),
    ] {
        let path = directory.join(file);
        machine = machine
            .arg("-fw_cfg")
            .arg(format!("name={name},file={}", path.display()));
    }
    machine
}

/// What the guest says of where its page is.
#[must_use]
pub fn place() -> &'static str {
    match arch() {
        Arch::X86_64 => "\\_SB.VCLK (AMZNC10C) at 0xfeffb000, 4096 bytes",
        Arch::Aarch64 => "ptp@40010000 (amazon,vmclock) at 0x40010000, 4096 bytes",
    }
}

/// Where it has looked for a network device, when there is none.
#[must_use]
pub fn buses() -> &'static str {
    match arch() {
        Arch::X86_64 => "PCI",
        Arch::Aarch64 => "mmio or PCI",
    }
}

/// Where it has looked for a page, when there is none.
#[must_use]
pub fn description() -> &'static str {
    match arch() {
        Arch::X86_64 => "acpi device",
        Arch::Aarch64 => "device tree node",
    }
}

impl Guest {
    /// Starts the machine.
    #[must_use]
    pub fn start(machine: Machine) -> Self {
        let slot = Slot::take();
        match machine.start() {
            Ok(vm) => Self { vm, _slot: slot },
            Err(error) => panic!("{error}"),
        }
    }

    /// Starts a machine that ends by itself, perhaps before QEMU's monitor could have answered a word; returns how it ended, if
    /// it did, and what it said.
    #[must_use]
    pub fn run_to_its_end(machine: Machine) -> (Option<End>, String) {
        let mut guest = Self::start(machine.paused(true));
        let _ended = guest.cont();
        let end = guest.wait_exit(PATIENCE);
        guest.quit();
        (end, guest.serial_log())
    }

    /// Starts the machine and waits for the prompt; returns the boot report and all before it too.
    #[must_use]
    pub fn boot(machine: Machine) -> (Self, String) {
        let mut guest = Self::start(machine);
        let report = guest.wait_prompt();
        (guest, report)
    }

    /// Starts the usual machine and waits until it serves the right time.
    #[must_use]
    pub fn serving() -> (Self, Client) {
        Self::serving_with(machine())
    }

    /// Starts the machine and waits until it serves the right time.
    #[must_use]
    pub fn serving_with(machine: Machine) -> (Self, Client) {
        let (guest, _) = Self::boot(machine);
        let client = guest.client();
        let _first = client.ask_until_right();
        (guest, client)
    }

    /// A client of its NTP server.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.vm.ntp_port().expect("in QEMU's user network"))
    }

    /// Waits until it has said this.
    pub fn wait_said(&mut self, pattern: &str) -> String {
        match self.vm.wait_serial(pattern, PATIENCE) {
            Ok(said) => said,
            Err(error) => panic!("{error}"),
        }
    }

    /// Waits for the next prompt and returns everything before it.
    pub fn wait_prompt(&mut self) -> String {
        let mut said = self.wait_said(PROMPT);
        said.truncate(said.len() - PROMPT.len());
        said
    }

    /// Types a command and returns what it prints, without carriage returns.
    pub fn command(&mut self, line: &str) -> String {
        self.type_line(line);
        loop {
            let said = self.wait_prompt();
            // A log line gets between a command and its end, which is printed again behind it.
            if !said.starts_with('[') {
                return said.replace('\r', "");
            }
            self.wait_said(&format!("{line}\r\n"));
        }
    }

    /// Types a command and waits for its echo.
    pub fn type_line(&mut self, line: &str) {
        // The empty line before it makes a prompt, and prompt and echo are unlike any log line.
        let typed = self.vm.send_serial(&format!("\r{line}\r"));
        if let Err(error) = typed {
            panic!("{error}; the guest said:\n{}", self.vm.serial_log());
        }
        self.wait_said(&format!("{PROMPT}{line}\r\n"));
    }

    /// Used places of the tables that `status` tells of, and how many there are: what is remembered of clients, and
    /// last their connections. With the line that says so.
    pub fn tables(&mut self) -> (String, Vec<(u32, u32)>) {
        let status = self.command("status");
        let line = status.lines().find_map(|line| line.strip_prefix("tables"));
        let line = line.unwrap_or_else(|| panic!("{status}")).trim();
        let numbers = line.split([' ', ',']).filter_map(|word| word.parse().ok());
        let numbers: Vec<u32> = numbers.collect();
        let pairs = numbers.chunks(2).map(|pair| (pair[0], pair[1]));
        (line.to_owned(), pairs.collect())
    }

    /// Types `time`; returns its line when that is a time, checked against the host's clock.
    ///
    /// # Errors
    /// The line when it is none.
    pub fn time(&mut self) -> Result<TimeLine, String> {
        let before = SystemTime::now();
        let said = self.command("time");
        let line = said.trim_end_matches('\n');
        let Some(time) = TimeLine::parse(line) else {
            return Err(line.to_owned());
        };
        time.assert_between(before, SystemTime::now());
        Ok(time)
    }

    /// Runs a command of QEMU's human monitor.
    pub fn monitor(&mut self, line: &str) -> String {
        match self.vm.qmp().monitor(line) {
            Ok(text) => text.replace('\r', ""),
            Err(error) => panic!("{error}"),
        }
    }

    /// The publisher.
    #[must_use]
    pub fn publisher(&self) -> &Publisher {
        self.vm.publisher().expect("time is published")
    }

    /// Waits until what the publisher has done satisfies this.
    pub fn wait_published(&self, condition: impl Fn(&Report) -> bool) -> Report {
        let publisher = self.publisher();
        match publisher.wait(PATIENCE, condition) {
            Some(report) => report,
            None => panic!("the publisher got no further than {:?}", publisher.report()),
        }
    }

    /// Takes the page from the publisher: it stays as it is, with time in it, until somebody
    /// writes it.
    #[must_use]
    pub fn take_page(&self) -> TakenPage {
        self.wait_published(|report| report.valid);
        self.publisher().pause().expect("QEMU runs");
        let page = self.vm.page().expect("a page");
        let valid = page.fields().expect("QEMU runs");
        TakenPage { page, valid }
    }

    /// Waits until a machine that was started to be restored has all of its state. Until then QEMU's user network
    /// has no place for what it is sent.
    ///
    /// # Panics
    /// Nothing is loaded.
    pub fn wait_loaded(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let state = self.qmp().execute("query-status", json!({}));
            if state.expect("QEMU runs").value["status"] != "inmigrate" {
                return;
            }
            assert!(Instant::now() < deadline, "nothing is loaded");
            thread::park_timeout(Duration::from_millis(5));
        }
    }
}

impl Deref for Guest {
    type Target = Vm;

    fn deref(&self) -> &Vm {
        &self.vm
    }
}

impl DerefMut for Guest {
    fn deref_mut(&mut self) -> &mut Vm {
        &mut self.vm
    }
}

/// The vmclock page of a guest whose publisher is paused.
#[derive(Debug)]
pub struct TakenPage {
    page: GuestPage,
    /// What it held when it was taken.
    pub valid: Fields,
}

impl TakenPage {
    /// Writes all fields under the seqlock, magic, size and version excepted.
    pub fn publish(&mut self, fields: &Fields) {
        self.page.publish(fields).expect("QEMU runs");
    }

    /// Writes bytes, whatever they are.
    pub fn poke(&mut self, offset: usize, bytes: &[u8]) {
        self.page.write(offset, bytes).expect("QEMU runs");
    }

    /// What it holds now.
    #[must_use]
    pub fn fields(&self) -> Fields {
        self.page.fields().expect("QEMU runs")
    }
}
