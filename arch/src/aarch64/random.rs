//! The processor's random numbers.

use core::arch::asm;

use super::sysreg::mrs;

/// How often the generator is asked again.
const PATIENCE: u32 = 100;

/// 256 bits from `RNDR`; `None` without it (`FEAT_RNG`), or where it gives nothing.
#[must_use]
pub fn rndr() -> Option<[u8; 32]> {
    // ID_AA64ISAR0_EL1.RNDR
    if mrs!("id_aa64isar0_el1") >> 60 == 0 {
        return None;
    }
    let mut bytes = [0; 32];
    for bytes in bytes.chunks_exact_mut(8) {
        let value = (0..PATIENCE).find_map(|_| draw())?;
        bytes.copy_from_slice(&value.to_le_bytes());
    }
    Some(bytes)
}

/// `RNDR`, which must exist.
#[inline(never)]
fn draw() -> Option<u64> {
    let (value, valid): (u64, u64);
    // SAFETY: the register exists, as the caller has seen; reading it touches no memory and sets the
    // flags, Z for failure.
    unsafe {
        asm!("mrs {}, s3_3_c2_c4_0", "cset {}, ne", out(reg) value, out(reg) valid, options(nomem, nostack));
    }
    (valid != 0).then_some(value)
}
