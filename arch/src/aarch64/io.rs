//! The console UART.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use uart_16550::backend::MmioBackend;
use uart_16550::{Config, Uart16550};

use super::trap;
use crate::dev::registers::Registers;
use crate::machine::mmu::Mmu;
use crate::mapping::{Kind, MapError, PAGE};

/// Where the console UART is and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Physical address of its registers.
    pub address: u64,
    /// What it is.
    pub model: Model,
}

/// What a UART is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// Arm's PL011 or a generic UART by its rules (SBSA).
    Pl011,
    /// A 16550 with registers so many bytes apart.
    Ns16550 {
        /// Bytes from one register to the next, a power of two.
        stride: u8,
    },
}

impl Place {
    /// Bytes from one register of a 16550 to the next, 0 for a PL011.
    const fn stride(self) -> u8 {
        match self.model {
            Model::Pl011 => 0,
            Model::Ns16550 { stride } => stride,
        }
    }
}

/// The console UART.
#[derive(Debug)]
pub enum Uart {
    /// Arm's PL011.
    Pl011(Pl011),
    /// A 16550.
    Ns16550(Uart16550<MmioBackend>),
}

/// Where the console is, for the last words: the address in the high bits, the model below.
static CONSOLE: AtomicU64 = AtomicU64::new(0);

impl Uart {
    /// Maps the UART at `place`, which is the console, and sets it up.
    ///
    /// # Errors
    /// Its registers cannot be mapped.
    pub fn open(place: Place, mmu: &mut Mmu) -> Result<Option<Self>, MapError> {
        let uart = Self::second(place, mmu)?;
        if uart.is_some() && place.address.is_multiple_of(256) {
            CONSOLE.store(place.address | u64::from(place.stride()), Ordering::Relaxed);
        }
        Ok(uart)
    }

    /// Maps the UART at `place`, which is not the console, and sets it up; `None` if nothing answers there.
    ///
    /// # Errors
    /// Its registers cannot be mapped.
    pub fn second(place: Place, mmu: &mut Mmu) -> Result<Option<Self>, MapError> {
        mmu.map(place.address, PAGE, Kind::Device)?;
        if !trap::answers(place.address) {
            return Ok(None);
        }
        Ok(Self::at(place.address, place.stride()))
    }

    /// The console UART once more, whoever else has it: for the last words. `None` before it has
    /// been opened.
    #[must_use]
    pub fn steal() -> Option<Self> {
        let console = CONSOLE.load(Ordering::Relaxed);
        let (address, stride) = (console & !0xff, (console & 0xff) as u8);
        if address == 0 {
            return None;
        }
        Self::at(address, stride)
    }

    /// The UART at an address that has been mapped.
    fn at(address: u64, stride: u8) -> Option<Self> {
        if stride == 0 {
            // SAFETY: the caller has mapped the page, which the firmware names as a PL011; two drivers
            // can at worst mix up their characters.
            let registers = unsafe { Registers::new(address as *mut u8, 0x1000) };
            return Some(Self::Pl011(Pl011::new(registers)));
        }
        let base = NonNull::new(address as *mut u8)?;
        // SAFETY: as above, for a 16550.
        let mut uart = unsafe { Uart16550::new_mmio(base, stride) }.ok()?;
        let config = Config {
            fifo_trigger_level: Some(uart_16550::spec::registers::FifoTriggerLevel::Fourteen),
            interrupts: uart_16550::spec::registers::IER::DATA_READY,
            ..Config::DEFAULT
        };
        uart.init(config).ok()?;
        Some(Self::Ns16550(uart))
    }

    /// Takes a received byte.
    pub fn receive(&mut self) -> Option<u8> {
        match self {
            Self::Pl011(uart) => uart.receive(),
            Self::Ns16550(uart) => uart.try_receive_byte().ok(),
        }
    }

    /// Whether what is sent in loopback mode comes back; `None` where there is no such mode. What was being received
    /// is lost.
    pub fn loopback(&mut self) -> Option<bool> {
        match self {
            Self::Pl011(uart) => uart.loopback(),
            Self::Ns16550(uart) => Some(uart.test_loopback().is_ok()),
        }
    }

    /// Hands over as many bytes as the FIFO takes now; returns how many.
    pub fn send(&mut self, bytes: &[u8]) -> usize {
        match self {
            Self::Pl011(uart) => uart.send(bytes),
            Self::Ns16550(uart) => uart.send_bytes(bytes),
        }
    }
}

/// Arm's `PrimeCell` UART (Arm DDI 0183), at whatever speed firmware has set.
///
/// A few registers, so written here: a crate for them would bring eight others into the guest, and
/// wants a pointer that owns the registers, which the last words cannot have.
#[derive(Debug)]
pub struct Pl011(Registers);

impl Pl011 {
    const DATA: usize = 0x00;
    const FLAGS: usize = 0x18;
    const LINE_CONTROL: usize = 0x2c;
    const CONTROL: usize = 0x30;
    const FIFO_LEVELS: usize = 0x34;
    const INTERRUPT_MASK: usize = 0x38;
    const INTERRUPT_CLEAR: usize = 0x44;

    /// Turned on if firmware has not, with an interrupt for received bytes: at the FIFO's level, and when fewer have waited for long.
    fn new(registers: Registers) -> Self {
        const RECEIVED: u32 = 1 << 4;
        const TIMED_OUT: u32 = 1 << 6;
        const ENABLE: u32 = 1;
        if registers.read32(Self::CONTROL) & ENABLE == 0 {
            registers.write32(Self::LINE_CONTROL, 0x70); // eight bits, FIFOs
            registers.write32(Self::CONTROL, ENABLE | 0x300); // both directions
        }
        registers.write32(Self::FIFO_LEVELS, 0x20); // seven eighths received
        registers.write32(Self::INTERRUPT_CLEAR, 0x7ff);
        registers.write32(Self::INTERRUPT_MASK, RECEIVED | TIMED_OUT);
        Self(registers)
    }

    fn receive(&self) -> Option<u8> {
        const EMPTY: u32 = 1 << 4;
        /// Framing, parity, break, overrun.
        const ERRORS: u32 = 0xf00;
        if self.0.read32(Self::FLAGS) & EMPTY != 0 {
            return None;
        }
        let data = self.0.read32(Self::DATA);
        // A byte that did not arrive whole is not what was typed; the line editor rejects a zero.
        Some(if data & ERRORS == 0 {
            (data & 0xff) as u8
        } else {
            0
        })
    }

    /// Sends a few bytes to ourselves; `None` where none comes back, as under emulators that leave this out.
    fn loopback(&self) -> Option<bool> {
        const LOOP: u32 = 1 << 7;
        const BUSY: u32 = 1 << 3;
        /// How often a register is read before the byte is given up.
        const PATIENCE: u32 = 100_000;
        /// QEMU sends these out as well: to a reader of test results they are a remark.
        const BYTES: &[u8] = b"# UART\r\n";
        (0..PATIENCE).any(|_| self.0.read32(Self::FLAGS) & BUSY == 0);
        let control = self.0.read32(Self::CONTROL);
        // What was typed must not be taken for an echo. No FIFO is longer.
        (0..64).any(|_| self.receive().is_none());
        self.0.write32(Self::CONTROL, control | LOOP);
        let mut outcome = None;
        for byte in BYTES {
            let sent = self.send(&[*byte]) == 1;
            let came = (0..PATIENCE).find_map(|_| self.receive());
            outcome = match (outcome, came) {
                (None, None) => None,
                (so_far, came) => Some(so_far != Some(false) && sent && came == Some(*byte)),
            };
        }
        self.0.write32(Self::CONTROL, control);
        outcome
    }

    fn send(&self, bytes: &[u8]) -> usize {
        const FULL: u32 = 1 << 5;
        let mut sent = 0;
        for &byte in bytes {
            if self.0.read32(Self::FLAGS) & FULL != 0 {
                break;
            }
            self.0.write32(Self::DATA, u32::from(byte));
            sent += 1;
        }
        sent
    }
}
