//! Interrupts wake us up, and that is all they do.
//!
//! They stay masked at the CPU for ever: `WFI` ends when an interrupt is pending, masked or not
//! (Arm ARM, D1.6.2). After waking, [`Interrupts::sleep`] takes what is pending out of the interrupt
//! controller and drops it, so no handler ever runs and no wake-up can be lost: an interrupt that
//! came while we were looking is still pending when `WFI` runs.

use core::arch::asm;
use core::fmt;

use super::sysreg::{mrs, msr};
use super::{timer, trap};
use crate::dev::registers::Registers;
use crate::machine::mmu::Mmu;
use crate::mapping::{Kind, MapError};

/// Interrupt number of the virtual timer on every machine that follows Arm's BSA.
pub const VIRTUAL_TIMER: u32 = 27;
/// First number that is not an interrupt.
const SPECIAL: u32 = 1020;
/// Interrupts that are taken out after one sleep.
const BATCH: u32 = 64;
/// Priority of everything that is let through; lower is more urgent, and the mask is 0xf0.
const PRIORITY: u32 = 0xa0;
/// How often a register is read before its change is given up.
const PATIENCE: u32 = 100_000;

/// Physical address and length in bytes of a block of registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Physical address.
    pub address: u64,
    /// Length in bytes.
    pub length: u64,
}

/// Where the interrupt controller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controller {
    /// Arm's Generic Interrupt Controller, version 2.
    V2 {
        /// The distributor.
        distributor: Block,
        /// The CPU interface.
        cpu: Block,
    },
    /// Version 3 or 4.
    V3 {
        /// The distributor.
        distributor: Block,
        /// The redistributors of all CPUs, or of the first of them.
        redistributors: Block,
    },
}

/// A line into the interrupt controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// The interrupt's number, as the controller counts (16 to 31 private, 32 to 1019 shared).
    pub number: u32,
    /// A pulse is remembered; otherwise the level counts.
    pub edge: bool,
}

/// Why there can be no interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Registers could not be mapped.
    Map(MapError),
    /// A block of registers is too short or not aligned.
    Block(Block),
    /// No redistributor belongs to this CPU.
    NoRedistributor,
    /// The redistributor does not wake up.
    Asleep,
    /// The CPU does not let us use its interrupt interface.
    NoInterface,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Map(error) => write!(f, "{error}"),
            Self::Block(Block { address, length }) => {
                write!(
                    f,
                    "{length:#x} bytes of registers at {address:#x} cannot be it"
                )
            }
            Self::NoRedistributor => f.write_str("no redistributor belongs to this cpu"),
            Self::Asleep => f.write_str("the redistributor does not wake up"),
            Self::NoInterface => f.write_str("the cpu's interrupt interface is off"),
        }
    }
}

impl From<MapError> for Error {
    fn from(error: MapError) -> Self {
        Self::Map(error)
    }
}

/// The interrupt controller, or the lack of one.
#[derive(Debug)]
pub struct Interrupts {
    gic: Option<Gic>,
}

#[derive(Debug)]
struct Gic {
    distributor: Registers,
    /// Registers of the private interrupts: a part of the distributor, or the redistributor's.
    private: Registers,
    /// Version 2's CPU interface; version 3 has system registers.
    cpu: Option<Registers>,
}

impl Interrupts {
    /// Interrupts that never come: sleeping is not sleeping.
    #[must_use]
    pub const fn none() -> Self {
        Self { gic: None }
    }

    /// Sets the controller up and lets the virtual timer through.
    ///
    /// # Errors
    /// The registers are not what they must be.
    pub fn new(controller: Controller, mmu: &mut Mmu) -> Result<Self, Error> {
        let gic = match controller {
            Controller::V2 { distributor, cpu } => version_2(distributor, cpu, mmu)?,
            Controller::V3 {
                distributor,
                redistributors,
            } => version_3(distributor, redistributors, mmu)?,
        };
        gic.enable(Line {
            number: VIRTUAL_TIMER,
            edge: false,
        });
        Ok(Self { gic: Some(gic) })
    }

    /// Whether sleeping ends when an interrupt comes.
    #[must_use]
    pub const fn wake(&self) -> bool {
        self.gic.is_some()
    }

    /// Lets the interrupt on `line` wake this CPU. Returns whether it will.
    #[must_use]
    pub fn enable(&self, line: Line) -> bool {
        match &self.gic {
            Some(gic) if (16..SPECIAL).contains(&line.number) => {
                gic.enable(line);
                true
            }
            _ => false,
        }
    }

    /// Has the controller remember an interrupt on `line` for [`arrived`](Self::arrived). Returns whether it will.
    #[must_use]
    pub fn remember(&self, line: Line) -> bool {
        match &self.gic {
            Some(gic) if (16..SPECIAL).contains(&line.number) => {
                gic.trigger(line);
                gic.take_pending(line.number);
                true
            }
            _ => false,
        }
    }

    /// Whether the interrupt of this number has arrived since this was asked last. It need not be enabled.
    #[must_use]
    pub fn arrived(&self, number: u32) -> bool {
        (self.gic.as_ref()).is_some_and(|gic| gic.take_pending(number))
    }

    /// Sleeps until any interrupt has arrived. One that is already pending ends the sleep at once.
    pub fn sleep(&self) {
        if self.gic.is_none() {
            core::hint::spin_loop();
            return;
        }
        // SAFETY: waits for an interrupt; the barrier lets what was stored reach the devices first.
        unsafe { asm!("dsb sy", "wfi", options(nostack, preserves_flags)) };
        self.poll();
    }

    /// Takes interrupts that have arrived, without waiting for one.
    pub fn poll(&self) {
        let Some(gic) = &self.gic else {
            return;
        };
        for _ in 0..BATCH {
            let token = gic.acknowledge();
            let number = token & 0x3ff;
            if number >= SPECIAL {
                break;
            }
            if number == VIRTUAL_TIMER {
                timer::silence();
            }
            gic.end(token);
        }
    }
}

impl Gic {
    /// The registers of an interrupt, and its index there.
    fn registers(&self, number: u32) -> (&Registers, usize) {
        let registers = if number >= 32 {
            &self.distributor
        } else {
            &self.private
        };
        (registers, usize::try_from(number).unwrap_or(0))
    }

    /// Sets what raises a shared interrupt; what raises a private one is as firmware has it.
    fn trigger(&self, Line { number, edge }: Line) {
        const CONFIGURATION: usize = 0xc00;
        let (registers, index) = self.registers(number);
        if number >= 32 {
            let place = CONFIGURATION + 4 * (index / 16);
            let shift = 2 * (number % 16) + 1;
            let others = registers.read32(place) & !(1 << shift);
            registers.write32(place, others | u32::from(edge) << shift);
        }
    }

    /// Whether an interrupt is pending, which it is no longer after this.
    fn take_pending(&self, number: u32) -> bool {
        const SET: usize = 0x200;
        const CLEAR: usize = 0x280;
        let (registers, index) = self.registers(number);
        let (word, bit) = (4 * (index / 32), 1 << (number % 32));
        let is_pending = registers.read32(SET + word) & bit != 0;
        if is_pending {
            registers.write32(CLEAR + word, bit);
        }
        is_pending
    }

    fn enable(&self, line: Line) {
        const GROUP: usize = 0x080;
        const ENABLE: usize = 0x100;
        const PRIORITIES: usize = 0x400;
        const TARGETS: usize = 0x800;
        const ROUTES: usize = 0x6000;
        let Line { number, .. } = line;
        let is_shared = number >= 32;
        let (registers, index) = self.registers(number);
        let bit = 1u32 << (number % 32);
        let word = 4 * (index / 32);
        if self.cpu.is_none() {
            let group = registers.read32(GROUP + word);
            registers.write32(GROUP + word, group | bit);
        }
        set_byte(registers, PRIORITIES, index, PRIORITY);
        self.trigger(line);
        if is_shared {
            if self.cpu.is_some() {
                // The private interrupts are targeted at their own CPU: that says which we are.
                let own = registers.read32(TARGETS) & 0xff;
                set_byte(registers, TARGETS, index, own);
            } else {
                registers.write64(ROUTES + 8 * index, affinity());
            }
        }
        registers.write32(ENABLE + word, bit);
    }

    /// Takes the most urgent pending interrupt. Its number is in the low ten bits.
    fn acknowledge(&self) -> u32 {
        const ACKNOWLEDGE: usize = 0x0c;
        if let Some(cpu) = self.cpu {
            return cpu.read32(ACKNOWLEDGE);
        }
        let token = mrs!("icc_iar1_el1") & 0xff_ffff;
        // Later accesses must see the interrupt as taken.
        // SAFETY: a barrier only.
        unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
        // Numbers beyond ten bits are message interrupts, which nobody has asked for.
        u32::try_from(token).unwrap_or(SPECIAL).min(SPECIAL)
    }

    fn end(&self, token: u32) {
        const END: usize = 0x10;
        if let Some(cpu) = self.cpu {
            cpu.write32(END, token);
        } else {
            msr!("icc_eoir1_el1", u64::from(token));
        }
    }
}

/// Writes one byte of an array of bytes that is only promised to take words.
fn set_byte(registers: &Registers, array: usize, index: usize, value: u32) {
    let place = array + (index & !3);
    let shift = 8 * (index % 4);
    let others = registers.read32(place) & !(0xff << shift);
    registers.write32(place, others | value << shift);
}

/// GIC version 2 (Arm IHI 0048): everything memory mapped. Groups are left as firmware set them.
fn version_2(distributor: Block, cpu: Block, mmu: &mut Mmu) -> Result<Gic, Error> {
    let distributor = map(distributor, 0x1000, mmu)?;
    let cpu = map(cpu, 0x100, mmu)?;
    distributor.write32(0, 1);
    cpu.write32(4, 0xf0); // priority mask
    cpu.write32(0, 1);
    Ok(Gic {
        distributor,
        private: distributor,
        cpu: Some(cpu),
    })
}

/// GIC version 3 (Arm IHI 0069): distributor, this CPU's redistributor, and system registers.
fn version_3(distributor: Block, redistributors: Block, mmu: &mut Mmu) -> Result<Gic, Error> {
    const AFFINITY_ROUTING: u32 = 1 << 4;
    const ENABLE_GROUPS: u32 = 3;
    let private = own_redistributor(redistributors, mmu)?;
    let distributor = map(distributor, 0x1_0000, mmu)?;
    distributor.write32(0, AFFINITY_ROUTING);
    until(|| distributor.read32(0) >> 31 == 0);
    distributor.write32(0, AFFINITY_ROUTING | ENABLE_GROUPS);
    until(|| distributor.read32(0) >> 31 == 0);

    msr!("icc_sre_el1", mrs!("icc_sre_el1") | 1);
    if mrs!("icc_sre_el1") & 1 == 0 {
        return Err(Error::NoInterface);
    }
    msr!("icc_pmr_el1", 0xf0);
    msr!("icc_igrpen1_el1", 1);
    Ok(Gic {
        distributor,
        private,
        cpu: None,
    })
}

/// The registers of this CPU's private interrupts, with its redistributor awake.
fn own_redistributor(all: Block, mmu: &mut Mmu) -> Result<Registers, Error> {
    const FRAME: u64 = 0x1_0000;
    const WAKER: usize = 0x14;
    const TYPE: usize = 0x08;
    let mut offset = 0;
    while offset + 2 * FRAME <= all.length {
        let at = |more| Block {
            address: all.address.wrapping_add(offset + more),
            length: FRAME,
        };
        let control = map(at(0), FRAME, mmu)?;
        let (kind, owner) = (control.read32(TYPE), control.read32(TYPE + 4));
        let [level3, rest] = [affinity() >> 32, affinity() & 0xff_ffff];
        if u64::from(owner) == level3 << 24 | rest {
            control.write32(WAKER, control.read32(WAKER) & !2);
            if !until(|| control.read32(WAKER) & 4 == 0) {
                return Err(Error::Asleep);
            }
            return map(at(FRAME), FRAME, mmu);
        }
        let is_last = kind & 1 << 4 != 0;
        let has_virtual_frames = kind & 1 << 1 != 0;
        if is_last {
            break;
        }
        offset += if has_virtual_frames { 4 } else { 2 } * FRAME;
    }
    Err(Error::NoRedistributor)
}

/// This CPU's affinity as routing registers hold it: level 3 in bits 39 to 32, the others below.
fn affinity() -> u64 {
    mrs!("mpidr_el1") & 0xff_00ff_ffff
}

/// Maps the first `length` bytes of `block`.
fn map(block: Block, length: u64, mmu: &mut Mmu) -> Result<Registers, Error> {
    let Block {
        address,
        length: has,
    } = block;
    let bytes = usize::try_from(length).unwrap_or(0);
    if has < length || address % 8 != 0 {
        return Err(Error::Block(block));
    }
    mmu.map(address, length, Kind::Device)?;
    if !trap::answers(address) {
        return Err(Error::Block(block));
    }
    // SAFETY: the firmware names these as an interrupt controller's registers; they are mapped as
    // device memory and this is their only driver.
    Ok(unsafe { Registers::new(address as *mut u8, bytes) })
}

/// Waits for `condition`, but not for ever. Returns whether it came true.
fn until(condition: impl Fn() -> bool) -> bool {
    (0..PATIENCE).any(|_| condition())
}
