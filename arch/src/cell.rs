//! Memory that exists once: statics that are claimed, not shared.

use core::cell::UnsafeCell;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

/// A static value that can be taken exactly once, as an exclusive reference that lasts for ever.
///
/// This is how Gnomon has large, aligned, zeroed memory (rings, buffers, page tables, stacks)
/// without a heap: the value lies in `.bss`, costs no image bytes, and nobody else can reach it
/// once it is taken.
pub struct TakeCell<T> {
    taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: `take` hands out the only reference there will ever be, guarded by an atomic swap; the
// cell gives no other access.
unsafe impl<T: Send> Sync for TakeCell<T> {}

impl<T> TakeCell<T> {
    /// Wraps `value`.
    pub const fn new(value: T) -> Self {
        Self {
            taken: AtomicBool::new(false),
            value: UnsafeCell::new(value),
        }
    }

    /// Returns the value the first time, `None` ever after.
    #[expect(
        clippy::mut_from_ref,
        reason = "the swap makes the one caller that gets it exclusive"
    )]
    pub fn take(&'static self) -> Option<&'static mut T> {
        if self.taken.swap(true, Ordering::AcqRel) {
            return None;
        }
        // SAFETY: the swap above lets exactly one caller through, so this reference is exclusive;
        // the cell is static, so it lasts.
        Some(unsafe { &mut *self.value.get() })
    }
}

impl<T> fmt::Debug for TakeCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TakeCell")
            .field("taken", &self.taken)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_taken_once() {
        static CELL: TakeCell<u32> = TakeCell::new(7);
        assert_eq!(CELL.take().copied(), Some(7));
        assert!(CELL.take().is_none());
    }
}
