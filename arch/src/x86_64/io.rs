//! What hangs on x86 I/O ports: the console UART, the PCI configuration mechanism, QEMU's firmware
//! configuration device, the CMOS clock.

use uart_16550::backend::PioBackend;
use uart_16550::{Config, Uart16550};
use x86_64::instructions::port::Port;

use crate::dev::fw_cfg::Access;
use crate::dev::pci::ConfigAccess;

/// I/O base of COM1.
const COM1: u16 = 0x3f8;
/// And of COM2.
const COM2: u16 = 0x2f8;

/// A UART: COM1, which is the console, or COM2, as every PC has them.
#[derive(Debug)]
pub struct Uart(Uart16550<PioBackend>);

impl Uart {
    /// Sets up COM1: 8 bits, no parity, FIFO on, an interrupt when 14 bytes have been received or the
    /// line is silent (for each byte, a line full of noise would be all that we do). `None` when
    /// nothing answers there.
    #[must_use]
    pub fn open() -> Option<Self> {
        Self::at(COM1)
    }

    /// COM2, set up in the same way, if anything answers there.
    #[must_use]
    pub fn second() -> Option<Self> {
        Self::at(COM2)
    }

    fn at(port: u16) -> Option<Self> {
        // SAFETY: the ports of COM1 and COM2 belong to a 16550 or to nothing, and this is its only driver.
        let mut uart = unsafe { Uart16550::new_port(port) }.ok()?;
        let config = Config {
            baud_rate: uart_16550::BaudRate::Baud115200,
            fifo_trigger_level: Some(uart_16550::spec::registers::FifoTriggerLevel::Fourteen),
            interrupts: uart_16550::spec::registers::IER::DATA_READY,
            ..Config::DEFAULT
        };
        uart.init(config).ok()?;
        Some(Self(uart))
    }

    /// The console UART once more, whoever else has it: for the last words.
    #[must_use]
    pub fn steal() -> Option<Self> {
        Self::open()
    }

    /// Takes a received byte.
    pub fn receive(&mut self) -> Option<u8> {
        self.0.try_receive_byte().ok()
    }

    /// Whether what is sent in loopback mode comes back. What was being received is lost.
    pub fn loopback(&mut self) -> Option<bool> {
        Some(self.0.test_loopback().is_ok())
    }

    /// Hands over as many bytes as the FIFO takes now; returns how many.
    pub fn send(&mut self, bytes: &[u8]) -> usize {
        self.0.send_bytes(bytes)
    }
}

/// PCI configuration mechanism #1: ports 0xCF8 and 0xCFC (PCI Local Bus 3.0 §3.2.2.3.2). Reaches
/// 256 bytes a function.
#[derive(Debug)]
pub struct PortConfig;

impl ConfigAccess for PortConfig {
    fn read32(&self, function: crate::dev::pci::Function, offset: u16) -> u32 {
        let Some(address) = config_address(function, offset) else {
            return u32::MAX;
        };
        // SAFETY: mechanism #1 exists on every PC; one CPU uses it, with interrupts disabled.
        unsafe { Port::<u32>::new(0xcf8).write(address) };
        // SAFETY: as above.
        unsafe { Port::<u32>::new(0xcfc).read() }
    }

    fn write32(&self, function: crate::dev::pci::Function, offset: u16, value: u32) {
        let Some(address) = config_address(function, offset) else {
            return;
        };
        // SAFETY: as for the read.
        unsafe { Port::<u32>::new(0xcf8).write(address) };
        // SAFETY: as for the read.
        unsafe { Port::<u32>::new(0xcfc).write(value) };
    }
}

fn config_address(function: crate::dev::pci::Function, offset: u16) -> Option<u32> {
    let register = u8::try_from(offset).ok()? & 0xfc;
    Some(1 << 31 | u32::from(function.0) << 8 | u32::from(register))
}

/// QEMU's firmware configuration device at two ports: a selector of 16 bits, and data of 8 at the next.
#[derive(Debug)]
pub struct FwCfgPorts(u16);

impl FwCfgPorts {
    /// The device at `port` and the port behind it.
    ///
    /// # Safety
    /// The firmware must say that it is there.
    #[must_use]
    pub const unsafe fn new(port: u16) -> Self {
        Self(port)
    }
}

impl Access for FwCfgPorts {
    fn select(&self, item: u16) {
        // SAFETY: the port is the device's selector, by the promise to `new`; no memory of ours is touched.
        unsafe { Port::<u16>::new(self.0).write(item) };
    }

    fn read(&self, into: &mut [u8]) {
        let mut data = Port::<u8>::new(self.0.wrapping_add(1));
        for byte in into {
            // SAFETY: the port is the device's data register; reading it moves on in the item.
            *byte = unsafe { data.read() };
        }
    }
}

/// A general-purpose event of ACPI's: the same bit of a status and of an enable register.
#[derive(Debug)]
pub struct GeneralEvent {
    status: u16,
    enable: u16,
    mask: u8,
}

impl GeneralEvent {
    /// The event with these ports and this bit.
    ///
    /// # Safety
    /// The firmware must say that these are its ports.
    #[must_use]
    pub const unsafe fn new(status: u16, enable: u16, mask: u8) -> Self {
        Self {
            status,
            enable,
            mask,
        }
    }

    /// Forgets that it has happened, if it has, and lets it raise the system control interrupt, or not.
    pub fn enable(&self, enabled: bool) {
        self.forget();
        let mut enable = Port::<u8>::new(self.enable);
        // SAFETY: the port is an enable register, by the promise to `new`.
        let others = unsafe { enable.read() } & !self.mask;
        let own = if enabled { self.mask } else { 0 };
        // SAFETY: as above; only this event's bit changes, and the handler takes any interrupt.
        unsafe { enable.write(others | own) };
    }

    /// Whether it has happened.
    #[must_use]
    pub fn has_happened(&self) -> bool {
        // SAFETY: the port is a status register, by the promise to `new`; reading it changes nothing.
        unsafe { Port::<u8>::new(self.status).read() & self.mask != 0 }
    }

    /// Forgets that it has happened.
    pub fn forget(&self) {
        // SAFETY: the port is a status register, by the promise to `new`: a one clears its own bit, a zero does nothing.
        unsafe { Port::<u8>::new(self.status).write(self.mask) };
    }
}

/// Has a PC raise ACPI's system control interrupt, where it does not do so yet: `control` is the `PM1a` control register,
/// `order` the port and the value by which firmware is told. Returns whether it does.
///
/// # Safety
/// The firmware must say that these are its ports.
#[must_use]
pub unsafe fn enter_acpi_mode(control: u16, order: Option<(u16, u8)>) -> bool {
    const SYSTEM_CONTROL_INTERRUPT: u16 = 1 << 0;
    // Firmware is in no hurry.
    const PATIENCE: u32 = 1_000_000;
    let is_in_force = || {
        // SAFETY: the port is the control register, by the caller's promise; reading it changes nothing.
        unsafe { Port::<u16>::new(control).read() & SYSTEM_CONTROL_INTERRUPT != 0 }
    };
    match order {
        _ if is_in_force() => true,
        None => false,
        Some((port, value)) => {
            // SAFETY: the port is for this value, by the caller's promise.
            unsafe { Port::<u8>::new(port).write(value) };
            (0..PATIENCE).any(|_| is_in_force())
        }
    }
}

/// Reads a register of the CMOS clock, 0 to 127 (others are taken modulo 128); all ones where there is none.
#[must_use]
pub fn cmos(register: u8) -> u8 {
    // The highest bit would hold back NMIs, of which none is expected.
    // SAFETY: the port chooses a register of the CMOS clock, on every PC; one CPU uses it, with interrupts
    // disabled.
    unsafe { Port::<u8>::new(0x70).write(register & 0x7f) };
    // SAFETY: as above; reading changes nothing that anybody here waits for.
    unsafe { Port::<u8>::new(0x71).read() }
}
