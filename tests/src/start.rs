//! From power-on to the first right answer, part by part, by the host's clock.

use core::time::Duration;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use gnomon_qemu::machine::{Arch, Board, Firmware, Machine, STATUS_FAILURE};
use gnomon_qemu::{End, Vm};

use crate::guest::Guest;
use crate::ntp::{V4_CLIENT, cookie, request};
use crate::temporary::Temporary;
use crate::{PATIENCE, built};

/// How long a request waits for its answer before the next is sent: QEMU keeps none for a guest that has no address yet.
const ASK: Duration = Duration::from_millis(2);

/// A machine to be started.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// Its name.
    pub name: &'static str,
    board: Board,
    firmware: Firmware,
}

/// What the parts of a start took.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    /// QEMU's start, until its machine is told to run; with the publisher's.
    pub qemu: Duration,
    /// From there to the image's first instruction; nothing without firmware.
    pub firmware: Duration,
    /// From there to the first right answer, with an address on the command line.
    pub image: Duration,
    /// What it takes longer to be given one by DHCP.
    pub dhcp: Duration,
    /// All of it, with DHCP.
    pub all: Duration,
}

impl Subject {
    /// The machines that there are, with each firmware; each one's default first.
    pub const ALL: [Self; 5] = [
        Self::new("q35, qboot", Board::Q35, Firmware::Quick),
        Self::new("q35, SeaBIOS", Board::Q35, Firmware::Qemu),
        Self::new("pc, qboot", Board::Pc, Firmware::Quick),
        Self::new("pc, SeaBIOS", Board::Pc, Firmware::Qemu),
        Self::new("virt", Board::Virt, Firmware::Quick),
    ];

    const fn new(name: &'static str, board: Board, firmware: Firmware) -> Self {
        Self {
            name,
            board,
            firmware,
        }
    }

    /// Starts it, three times, and says what the parts took.
    #[must_use]
    pub fn measure(&self) -> Parts {
        let [(qemu, by_hand), (again, by_dhcp)] =
            ["ip=10.0.2.15/24,10.0.2.2", "ip=dhcp"].map(|ip| self.first_answer(ip));
        let firmware = match self.arch() {
            Arch::X86_64 => self.entry(),
            Arch::Aarch64 => Duration::ZERO,
        };
        Parts {
            qemu: qemu.min(again),
            firmware,
            image: by_hand.saturating_sub(firmware),
            dhcp: by_dhcp.saturating_sub(by_hand),
            all: again + by_dhcp,
        }
    }

    const fn arch(&self) -> Arch {
        match self.board {
            Board::Virt => Arch::Aarch64,
            Board::Q35 | Board::Pc => Arch::X86_64,
        }
    }

    fn machine(&self, kernel: PathBuf) -> Machine {
        let machine = Machine::new(self.arch()).board(self.board);
        machine.firmware(self.firmware).kernel(kernel).paused(true)
    }

    /// How long QEMU takes to start, and then the guest to answer.
    fn first_answer(&self, ip: &str) -> (Duration, Duration) {
        let image = built(self.arch().image(), "make build");
        let machine = self.machine(image).append(ip);
        let start = Instant::now();
        let mut guest = Guest::start(machine);
        let started = start.elapsed();
        let client = guest.client();
        let start = Instant::now();
        guest.cont().expect("QEMU runs");
        loop {
            client.send(&request(V4_CLIENT, cookie()));
            let answer = client.receive(Instant::now() + ASK);
            if answer.is_some_and(|(reply, _)| reply[0] >> 6 != 3) {
                return (started, start.elapsed());
            }
            assert!(start.elapsed() < PATIENCE, "{}", guest.serial_log());
        }
    }

    /// How long a machine runs until its kernel's first instruction, which ends it.
    fn entry(&self) -> Duration {
        let kernel = stub_file();
        let mut vm: Vm = match self.machine(kernel.path().to_owned()).publish(None).start() {
            Ok(vm) => vm,
            Err(error) => panic!("{error}"),
        };
        let start = Instant::now();
        vm.cont().expect("QEMU runs");
        let end = vm.wait_exit(PATIENCE);
        let took = start.elapsed();
        assert_eq!(end, Some(End::Status(STATUS_FAILURE)));
        took
    }
}

/// A kernel that ends QEMU with its first instruction, as a file.
fn stub_file() -> Temporary {
    let file = Temporary::new("stub.elf");
    fs::write(file.path(), stub()).expect("a file that can be written");
    file
}

/// An ELF file of 32 bits with PVH's note.
fn stub() -> Vec<u8> {
    const ADDRESS: u32 = 0x10_0000;
    const HEADERS: u32 = 52 + 2 * 32;
    // mov al, 0x31; out 0xf4, al; hlt
    let code = [0xb0, 0x31, 0xe6, 0xf4, 0xf4, 0, 0, 0];
    let note_at = HEADERS + 8;
    let words = |words: &[u32]| -> Vec<u8> {
        let bytes = words.iter().flat_map(|word| word.to_le_bytes());
        bytes.collect()
    };
    let mut file = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // ET_EXEC, EM_386; version, entry, program headers, no sections, flags.
    file.extend(words(&[0x3_0002, 1, ADDRESS, 52, 0, 0]));
    file.extend(words(&[0x20_0034, 2, 0]));
    // PT_LOAD and PT_NOTE: offset, addresses, sizes, flags, alignment.
    file.extend(words(&[1, HEADERS, ADDRESS, ADDRESS, 8, 8, 5, 4]));
    file.extend(words(&[4, note_at, 0, 0, 20, 20, 4, 4]));
    file.extend(code);
    // XEN_ELFNOTE_PHYS32_ENTRY.
    file.extend(words(&[4, 4, 18]));
    file.extend(b"Xen\0");
    file.extend(words(&[ADDRESS]));
    file
}
