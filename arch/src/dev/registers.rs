//! Memory-mapped registers: bounds checked, volatile, never behind a reference.

use core::fmt;

use crate::machine::mmio;

/// A block of device registers.
///
/// Accesses outside the block read as all ones and write nothing, like an absent device on a bus:
/// offsets come from the device itself (virtio capabilities), and a lying device must not become a
/// memory error.
#[derive(Clone, Copy)]
pub struct Registers {
    base: *mut u8,
    length: usize,
}

// SAFETY: device registers belong to no thread; the constructor's caller promises that concurrent
// use is sound.
unsafe impl Send for Registers {}

impl Registers {
    /// Names `length` bytes of registers at `base`.
    ///
    /// # Safety
    /// The range must be mapped as device memory for as long as the value lives, aligned to at
    /// least 8 bytes, and reading or writing it must not be able to break memory safety (no DMA
    /// set-up by others).
    #[must_use]
    pub const unsafe fn new(base: *mut u8, length: usize) -> Self {
        Self { base, length }
    }

    /// What follows `offset`, if there is anything.
    #[must_use]
    pub fn rest(&self, offset: usize) -> Option<Self> {
        self.part(offset, self.length.checked_sub(offset)?)
    }

    /// A part of the block; `None` if it does not lie inside it, or not at a multiple of 4.
    #[must_use]
    pub fn part(&self, offset: usize, length: usize) -> Option<Self> {
        let end = offset.checked_add(length)?;
        if end > self.length || !offset.is_multiple_of(4) {
            return None;
        }
        Some(Self {
            base: self.base.wrapping_add(offset),
            length,
        })
    }
}

macro_rules! access {
    ($read:ident, $write:ident, $t:ty, $bits:literal) => {
        impl Registers {
            #[doc = concat!("Reads ", $bits, " bits at `offset`; all ones outside the block.")]
            #[must_use]
            pub fn $read(&self, offset: usize) -> $t {
                match self.at::<$t>(offset) {
                    // SAFETY: `at` checked bounds and alignment; the constructor's promise covers
                    // the rest.
                    Some(register) => <$t>::from_le(unsafe { mmio::read(register) }),
                    None => <$t>::MAX,
                }
            }

            #[doc = concat!("Writes ", $bits, " bits at `offset`; nothing outside the block.")]
            pub fn $write(&self, offset: usize, value: $t) {
                if let Some(register) = self.at::<$t>(offset) {
                    // SAFETY: as for the read.
                    unsafe { mmio::write(register, value.to_le()) };
                }
            }
        }
    };
}

access!(read8, write8, u8, "8");
access!(read16, write16, u16, "16");
access!(read32, write32, u32, "32");

impl Registers {
    /// Writes 64 bits as two halves, the lower first, as virtio and MSI-X registers want it.
    pub fn write64(&self, offset: usize, value: u64) {
        let half = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap_or(0);
        self.write32(offset, half(value));
        self.write32(offset + 4, half(value >> 32));
    }

    fn at<T>(&self, offset: usize) -> Option<*mut T> {
        let end = offset.checked_add(size_of::<T>())?;
        (end <= self.length && offset.is_multiple_of(align_of::<T>()))
            .then(|| self.base.wrapping_add(offset).cast())
    }
}

impl fmt::Debug for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registers({:p}, {:#x})", self.base, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_inside() {
        let mut memory = [0u64; 2];
        // SAFETY: the array outlives the value and is aligned to 8.
        let registers = unsafe { Registers::new(memory.as_mut_ptr().cast(), 16) };
        registers.write32(12, 0xdead_beef);
        registers.write32(14, 0);
        registers.write32(16, 0);
        registers.write16(usize::MAX, 0);
        assert_eq!(registers.read32(12), 0xdead_beef);
        assert_eq!(registers.read32(16), u32::MAX);
        assert_eq!(registers.read16(13), u16::MAX, "misaligned");
        assert_eq!(
            registers.part(8, 8).map(|part| part.read32(4)),
            Some(0xdead_beef)
        );
        assert!(registers.part(8, 9).is_none());
        assert!(registers.part(usize::MAX, 8).is_none());
    }
}
