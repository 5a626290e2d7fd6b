//! The processor's random numbers.

use core::arch::asm;
use core::arch::x86_64::__cpuid;

use x86_64::instructions::random::RdRand;

/// How often `RDSEED` is asked again: its source is slow, and shared by all processors.
const PATIENCE: u32 = 200;

/// 256 bits from the entropy source itself; `None` without `RDSEED`, or where it gives nothing.
#[must_use]
pub fn rdseed() -> Option<[u8; 32]> {
    const FEATURES: u32 = 7;
    const RDSEED: u32 = 1 << 18;
    let exists = __cpuid(0).eax >= FEATURES && __cpuid(FEATURES).ebx & RDSEED != 0;
    if !exists {
        return None;
    }
    fill(&mut || {
        (0..PATIENCE).find_map(|_| {
            let (value, valid): (u64, u8);
            // SAFETY: the instruction exists, as CPUID says; it touches no memory.
            unsafe {
                asm!("rdseed {}", "setc {}", out(reg) value, out(reg_byte) valid, options(nomem, nostack));
            }
            (valid != 0).then_some(value)
        })
    })
}

/// 256 bits from the generator that the entropy source feeds; `None` without `RDRAND`, or where it fails.
#[must_use]
pub fn rdrand() -> Option<[u8; 32]> {
    /// Intel: more failures in a row mean that it is broken.
    const TRIES: u32 = 10;
    let generator = RdRand::new()?;
    fill(&mut || (0..TRIES).find_map(|_| generator.get_u64()))
}

/// Four draws, or none.
#[inline(never)]
fn fill(draw: &mut dyn FnMut() -> Option<u64>) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    for bytes in bytes.chunks_exact_mut(8) {
        bytes.copy_from_slice(&draw()?.to_le_bytes());
    }
    Some(bytes)
}
