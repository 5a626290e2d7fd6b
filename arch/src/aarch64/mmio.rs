//! Loads and stores to device registers.
//!
//! Written as instructions because a volatile access may be compiled to one that also updates its
//! base register; a hypervisor gets no syndrome for such an access and cannot emulate it. A barrier
//! keeps register accesses in order with those to the rings: what was stored before a write is
//! seen by a device that the write wakes, and what is loaded after a read is no older than it.

use core::arch::asm;

/// A register of 8, 16 or 32 bits.
pub trait Width: Copy {
    /// Reads one.
    ///
    /// # Safety
    /// As [`read()`].
    unsafe fn load(register: *const Self) -> Self;
    /// Writes one.
    ///
    /// # Safety
    /// As [`write()`].
    unsafe fn store(register: *mut Self, value: Self);
}

macro_rules! width {
    ($t:ty, $load:literal, $store:literal) => {
        impl Width for $t {
            #[inline]
            unsafe fn load(register: *const Self) -> Self {
                let value: $t;
                // SAFETY: the caller's promise; a plain load without write-back.
                unsafe {
                    asm!($load, "dmb oshld", out(reg) value, in(reg) register, options(nostack, preserves_flags));
                }
                value
            }
            #[inline]
            unsafe fn store(register: *mut Self, value: Self) {
                // SAFETY: the caller's promise; a plain store without write-back.
                unsafe {
                    asm!("dmb oshst", $store, in(reg) value, in(reg) register, options(nostack, preserves_flags));
                }
            }
        }
    };
}

width!(u8, "ldrb {0:w}, [{1}]", "strb {0:w}, [{1}]");
width!(u16, "ldrh {0:w}, [{1}]", "strh {0:w}, [{1}]");
width!(u32, "ldr {0:w}, [{1}]", "str {0:w}, [{1}]");

/// Reads a device register.
///
/// # Safety
/// `register` must be valid for such a read, and aligned.
#[inline]
pub unsafe fn read<T: Width>(register: *const T) -> T {
    // SAFETY: the caller's promise.
    unsafe { T::load(register) }
}

/// Writes a device register.
///
/// # Safety
/// `register` must be valid for such a write, and aligned.
#[inline]
pub unsafe fn write<T: Width>(register: *mut T, value: T) {
    // SAFETY: the caller's promise.
    unsafe { T::store(register, value) };
}
