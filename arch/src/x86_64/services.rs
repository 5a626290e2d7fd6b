//! What processor and hypervisor tell of themselves.

use core::arch::x86_64::__cpuid_count;

/// `CPUID`: EAX, EBX, ECX and EDX of a leaf and subleaf. A leaf that does not exist gives anything.
#[must_use]
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let result = __cpuid_count(leaf, subleaf);
    [result.eax, result.ebx, result.ecx, result.edx]
}
