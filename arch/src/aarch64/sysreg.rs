//! System registers by name: one place for the few instructions that reach them.

/// Reads a system register. Only for registers whose reading has no side effect and touches no
/// memory.
macro_rules! mrs {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: the register exists at EL1 on every CPU on which this line is reached, reading it
        // has no side effect and touches no memory.
        unsafe {
            core::arch::asm!(
                concat!("mrs {}, ", $name),
                out(reg) value,
                options(nomem, nostack, preserves_flags),
            );
        }
        value
    }};
}

/// Writes a system register and waits until the write has taken effect. Only for registers that
/// cannot break memory safety.
macro_rules! msr {
    ($name:literal, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: the register exists at EL1 on every CPU on which this line is reached, and its
        // value has no part in what memory the program may touch. `nomem` is left out so that
        // memory accesses stay on their side of it.
        unsafe {
            core::arch::asm!(
                concat!("msr ", $name, ", {}"),
                "isb",
                in(reg) value,
                options(nostack, preserves_flags),
            );
        }
    }};
}

pub(super) use {mrs, msr};
