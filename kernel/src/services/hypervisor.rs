//! `x86_64`: what CPUID tells of processor and hypervisor.
//!
//! A leaf above the highest one is never believed: processors and emulators answer it with the data of
//! another leaf. Nothing of a hypervisor is believed unless the processor says that there is one, and
//! nothing of KVM without its signature: `VMCALL` is an undefined instruction elsewhere.

use core::fmt::{self, Display, Write};

use super::counters::Rate;
use super::{Services, row};

/// Asks CPUID: leaf and subleaf in, EAX, EBX, ECX and EDX out.
pub type Cpuid<'a> = &'a dyn Fn(u32, u32) -> [u32; 4];

/// First leaf of a hypervisor.
const FIRST: u32 = 0x4000_0000;
/// A hypervisor that pretends to be several lists them so far apart.
const STEP: u32 = 0x100;
/// How many places Linux looks at, too.
const PLACES: u32 = 0x100;
const KVM: [u8; 12] = *b"KVMKVMKVM\0\0\0";

/// What CPUID has told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processor {
    hypervisor: Option<Hypervisor>,
    kvm: Option<Kvm>,
    rate: Option<Rate>,
    invariant_tsc: bool,
    rdrand: bool,
    rdseed: bool,
}

/// Who says that it is below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hypervisor {
    /// Twelve characters.
    pub signature: [u8; 12],
    /// Its highest leaf.
    pub highest: u32,
}

/// What KVM offers, or who speaks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kvm {
    /// Its first leaf.
    pub base: u32,
    /// Its features, EAX of the leaf after that.
    pub features: u32,
}

impl Kvm {
    /// `KVM_FEATURE_CLOCKSOURCE2`: the clock page of MSRs `0x4b56_4d00` and `0x4b56_4d01`.
    #[must_use]
    pub const fn has_pvclock(self) -> bool {
        self.features & 1 << 3 != 0
    }

    /// `KVM_FEATURE_CLOCKSOURCE_STABLE_BIT`: its stable flag is to be believed.
    #[must_use]
    pub const fn pvclock_is_stable(self) -> bool {
        self.features & 1 << 24 != 0
    }

    /// `KVM_FEATURE_STEAL_TIME`.
    #[must_use]
    pub const fn has_steal_time(self) -> bool {
        self.features & 1 << 5 != 0
    }
}

impl Processor {
    /// Asks CPUID.
    #[must_use]
    pub fn discover(cpuid: Cpuid<'_>) -> Self {
        let [highest, ..] = cpuid(0, 0);
        let leaf = |number: u32, subleaf| {
            if number <= highest {
                cpuid(number, subleaf)
            } else {
                [0; 4]
            }
        };
        let [_, _, features, _] = leaf(1, 0);
        let [_, extended, _, _] = leaf(7, 0);
        let is_guest = features & 1 << 31 != 0;
        let hypervisor = is_guest.then(|| signed(cpuid, FIRST)).flatten();
        let kvm = if is_guest { kvm(cpuid) } else { None };
        let by_hypervisor = hypervisor.and_then(|hypervisor| hypervisor.rate(cpuid));
        Self {
            hypervisor,
            kvm,
            rate: by_hypervisor.or_else(|| rate(leaf(0x15, 0), leaf(0x16, 0))),
            invariant_tsc: invariant_tsc(cpuid),
            rdrand: features & 1 << 30 != 0,
            rdseed: extended & 1 << 18 != 0,
        }
    }

    /// Who is below.
    #[must_use]
    pub const fn hypervisor(&self) -> Option<&Hypervisor> {
        self.hypervisor.as_ref()
    }

    /// What KVM offers. `KVM_HC_CLOCK_PAIRING` has no bit of its own: under KVM, and only there, it may
    /// be tried.
    #[must_use]
    pub const fn kvm(&self) -> Option<Kvm> {
        self.kvm
    }
}

impl Hypervisor {
    /// Leaf `0x4000_0010`, as `VMware` and KVM have it: kHz.
    fn rate(&self, cpuid: Cpuid<'_>) -> Option<Rate> {
        const TIMING: u32 = FIRST + 0x10;
        if self.highest < TIMING {
            return None;
        }
        let [kilohertz, ..] = cpuid(TIMING, 0);
        (kilohertz != 0).then_some(Rate {
            hertz: u64::from(kilohertz) * 1000,
            unit: 1000,
            source: "CPUID 0x40000010",
        })
    }
}

impl Services for Processor {
    fn list(&self, out: &mut dyn Write) -> fmt::Result {
        let hypervisor = self.hypervisor.as_ref();
        row(out, "hypervisor", hypervisor.map(|it| it as _))?;
        let kvm = |has: fn(Kvm) -> bool| self.kvm.filter(|kvm| has(*kvm));
        let stable: &dyn Display = match kvm(Kvm::pvclock_is_stable) {
            Some(_) => &"offered, stable",
            None => &"offered",
        };
        row(out, "pvclock", kvm(Kvm::has_pvclock).map(|_| stable))?;
        row(out, "pairing", self.kvm.map(|_| &"may be tried" as _))?;
        let steal_time = kvm(Kvm::has_steal_time);
        row(out, "steal time", steal_time.map(|_| &"offered" as _))?;
        let rate = self.rate.as_ref();
        row(out, "tsc rate", rate.map(|rate| rate as _))?;
        for (name, present) in [
            ("invariant", self.invariant_tsc),
            ("rdseed", self.rdseed),
            ("rdrand", self.rdrand),
        ] {
            row(out, name, present.then_some(&"present"))?;
        }
        Ok(())
    }

    fn rate(&self) -> Option<Rate> {
        self.rate
    }

    fn is_invariant(&self) -> Option<bool> {
        Some(self.invariant_tsc)
    }

    fn stolen(&self) -> Option<u64> {
        None
    }
}

impl Display for Hypervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.signature.iter().rposition(|&byte| byte != 0);
        let name = self.signature.get(..=length.unwrap_or(0));
        let name = name.unwrap_or_default().escape_ascii();
        write!(f, "{name}, leaves to {:#x}", self.highest)
    }
}

/// The signature at `base`, if there is one.
fn signed(cpuid: Cpuid<'_>, base: u32) -> Option<Hypervisor> {
    let [highest, ebx, ecx, edx] = cpuid(base, 0);
    let mut signature = [0; 12];
    for (bytes, register) in signature.chunks_exact_mut(4).zip([ebx, ecx, edx]) {
        bytes.copy_from_slice(&register.to_le_bytes());
    }
    // Old KVM says zero and means the leaf of its features.
    let highest = match highest {
        0 if signature == KVM => base + 1,
        highest => highest,
    };
    let is_one = (base..base + STEP).contains(&highest) && signature != [0; 12];
    is_one.then_some(Hypervisor { signature, highest })
}

/// KVM, wherever it is: with Hyper-V's interface in front, it is not the first.
fn kvm(cpuid: Cpuid<'_>) -> Option<Kvm> {
    (0..PLACES)
        .map(|place| FIRST + place * STEP)
        .find_map(|base| {
            let found = signed(cpuid, base)?;
            let is_kvm = found.signature == KVM && found.highest > base;
            is_kvm.then(|| {
                let [features, ..] = cpuid(base + 1, 0);
                Kvm { base, features }
            })
        })
}

/// The rate by leaf `0x15`, crystal · EBX / EAX; where that does not tell the crystal, by leaf `0x16`, the
/// base frequency in MHz (Intel SDM vol. 2, CPUID; the TSC runs at it where `0x15` has a ratio).
fn rate([denominator, numerator, crystal, _]: [u32; 4], [base, ..]: [u32; 4]) -> Option<Rate> {
    if denominator == 0 || numerator == 0 {
        return None;
    }
    let (hertz, unit, source) = match crystal {
        0 => (
            u64::from(base & 0xffff) * 1_000_000,
            1_000_000,
            "CPUID 0x16",
        ),
        _ => (
            u64::from(crystal) * u64::from(numerator) / u64::from(denominator),
            1,
            "CPUID 0x15",
        ),
    };
    (hertz != 0).then_some(Rate {
        hertz,
        unit,
        source,
    })
}

/// Leaf `0x8000_0007`, EDX bit 8: the TSC runs at a constant rate in all power states.
fn invariant_tsc(cpuid: Cpuid<'_>) -> bool {
    const EXTENDED: u32 = 0x8000_0000;
    const POWER: u32 = 0x8000_0007;
    let [highest, ..] = cpuid(EXTENDED, 0);
    (POWER..EXTENDED + 0x1_0000).contains(&highest) && cpuid(POWER, 0)[3] & 1 << 8 != 0
}
