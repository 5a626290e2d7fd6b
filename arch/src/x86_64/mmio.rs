//! Loads and stores to device registers.
//!
//! Volatile accesses are all that x86 needs: uncached memory is strongly ordered, and every
//! addressing mode can be emulated by a hypervisor.

/// Reads a device register.
///
/// # Safety
/// `register` must be valid for such a read, and aligned.
#[inline]
pub unsafe fn read<T: Copy>(register: *const T) -> T {
    // SAFETY: the caller's promise.
    unsafe { register.read_volatile() }
}

/// Writes a device register.
///
/// # Safety
/// `register` must be valid for such a write, and aligned.
#[inline]
pub unsafe fn write<T: Copy>(register: *mut T, value: T) {
    // SAFETY: the caller's promise.
    unsafe { register.write_volatile(value) };
}
