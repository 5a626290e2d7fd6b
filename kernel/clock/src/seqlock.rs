//! The ordering of the seqlock, reader and writer, and nothing else: `tests/loom.rs` compiles this
//! file a second time, with atomics whose every allowed order it tries.

use core::fmt;

use super::atomic::Ordering::{Acquire, Release};
use super::atomic::fence;

/// One look: what `body` returns between two equal and even counts, and that count.
///
/// # Errors
/// [`Busy`] when an update was in progress, or came in between.
#[inline]
pub(crate) fn look<T>(count: impl Fn() -> u32, body: impl FnOnce() -> T) -> Result<(u32, T), Busy> {
    let before = count();
    if before & 1 == 1 {
        return Err(Busy { odd: true });
    }
    // Pairs with the writer's fence before its even store: what that update wrote is seen.
    fence(Acquire);
    let value = body();
    // Pairs with the writer's fence after its odd store: whoever saw a byte of a later update
    // also sees that the count has moved. An acquire *load* would not order the loads above.
    fence(Acquire);
    if count() != before {
        return Err(Busy { odd: false });
    }
    Ok((before, value))
}

/// Another look at what an earlier [`look`] gave: what `read` returns, if `is_same` finds everything as it
/// was, the count included.
///
/// A mixture cannot be taken for what was seen, whatever the order of the loads, for it would have to be
/// equal to it; so there is no count to look at before. No count is used twice: if it is the same after `read`,
/// then no update has begun between the two looks, and `read` ran while what was seen was current.
#[expect(clippy::inline_always, reason = "the hot path of every reading")]
#[inline(always)]
pub(crate) fn look_again<T>(
    read: impl FnOnce() -> Option<T>,
    is_same: impl FnOnce() -> bool,
) -> Option<T> {
    let value = read()?;
    // Pairs with the writer's fences: if `read` saw anything from after an update, the count has moved.
    fence(Acquire);
    is_same().then_some(value)
}

/// One update: `store` is given the counts before and after `body`, and `count` keeps the last.
///
/// # Errors
/// The first of `store` and `body`. No count is used again after one.
pub(crate) fn update<M, E>(
    count: &mut u32,
    memory: &mut M,
    store: impl Fn(&mut M, u32) -> Result<(), E>,
    body: impl FnOnce(&mut M) -> Result<(), E>,
) -> Result<u32, E> {
    // The next odd count: one on, or two after an update that was never finished.
    *count = count.wrapping_add(1) | 1;
    store(memory, *count)?;
    // Pairs with the reader's second fence: no byte of the body before the odd count.
    fence(Release);
    body(memory)?;
    // Pairs with the reader's first fence: no even count before the whole body.
    fence(Release);
    let even = count.wrapping_add(1);
    store(memory, even)?;
    *count = even;
    Ok(even)
}

/// The page could not be read within the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy {
    /// At the last look an update was in progress (a writer stopped in the middle of one);
    /// otherwise updates follow each other so fast that none could be read.
    pub odd: bool,
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.odd {
            "page update does not end"
        } else {
            "page updates too fast to be read"
        })
    }
}

impl core::error::Error for Busy {}
