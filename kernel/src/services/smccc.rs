//! Calls of firmware and hypervisor on Arm: SMC Calling Convention (Arm DEN 0028), PSCI (DEN 0022), TRNG
//! (DEN 0098), paravirtualized time (DEN 0057), and what KVM adds.
//!
//! Each function is asked for by itself, and a denial (−1) says nothing about any other: a host may deny
//! each of them. Only one thing is inferred: the functions of KVM are not called where
//! somebody else says that the vendor's numbers are his.

use core::fmt::{self, Display, Write};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::counters::Rate;
use super::{Services, row};

/// Calls what is below: x0 to x3 in, x0 to x3 out.
pub type Call<'a> = &'a mut dyn FnMut([u64; 4]) -> [u64; 4];

/// The instruction of a call: the device tree's `psci` node says it (`method`), or ACPI's FADT (Arm boot
/// flags).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduit {
    /// `HVC`.
    Hvc,
    /// `SMC`.
    Smc,
}

const VERSION: u32 = 0x8000_0000;
const ARCH_FEATURES: u32 = 0x8000_0001;
const PSCI_VERSION: u32 = 0x8400_0000;
const TRNG_VERSION: u32 = 0x8400_0050;
const TRNG_FEATURES: u32 = 0x8400_0051;
const TRNG_UUID: u32 = 0x8400_0052;
const TRNG_RND64: u32 = 0xc400_0053;
const PV_TIME_FEATURES: u32 = 0xc500_0020;
const PV_TIME_ST: u32 = 0xc500_0021;
const VENDOR_UID: u32 = 0x8600_ff01;
const KVM_FEATURES: u32 = 0x8600_0000;
const KVM_PTP: u32 = 0x8600_0001;

/// KVM's identifier, as its registers come.
const KVM: Uuid = Uuid([0xb66f_b428, 0xe911_c52e, 0x564b_caa9, 0x743a_004d]);
/// What can be asked of `ARCH_FEATURES` and is worth telling.
const ARCH: [(u32, &str); 6] = [
    (VERSION, "version"),
    (0x8000_0002, "soc id"),
    (0x8000_8000, "workaround 1"),
    (0x8000_7fff, "workaround 2"),
    (0x8000_3fff, "workaround 3"),
    (PV_TIME_FEATURES, "pv time"),
];
/// KVM's functions by their bit.
const KVM_FUNCTIONS: [(u32, &str); 2] = [(0, "features"), (1, "ptp")];
/// How often a generator without entropy is asked again.
const PATIENCE: u32 = 100;

/// What is there.
#[derive(Clone, Copy, Debug)]
pub struct Smccc {
    conduit: Option<Conduit>,
    rate: Option<Rate>,
    psci: Option<Version>,
    version: Option<Version>,
    /// By bit, in the order of [`ARCH`].
    arch: u32,
    vendor: Option<Uuid>,
    kvm: Option<[u32; 4]>,
    ptp: bool,
    trng: Option<Trng>,
    stolen: Stolen,
}

/// A version, major and minor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Changes when old callers break.
    pub major: u16,
    /// Changes when functions are added.
    pub minor: u16,
}

/// An identifier in four registers of four bytes, the first byte lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uuid(
    /// w0 to w3.
    pub [u32; 4],
);

/// The random number generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Trng {
    version: Version,
    rnd64: bool,
    uuid: Option<Uuid>,
}

/// The time that the host tells it has stolen from us.
#[derive(Clone, Copy, Debug)]
enum Stolen {
    Absent,
    /// The structure should be at this address, and cannot be used.
    Refused(u64),
    At(u64, &'static StolenTime),
}

/// The stolen time structure (DEN 0057, "Stolen time"), which the host writes at any time.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct StolenTime {
    revision: AtomicU32,
    attributes: AtomicU32,
    nanoseconds: AtomicU64,
}

impl StolenTime {
    /// A structure as a host would write it.
    #[must_use]
    pub const fn new(revision: u32, attributes: u32, nanoseconds: u64) -> Self {
        Self {
            revision: AtomicU32::new(revision),
            attributes: AtomicU32::new(attributes),
            nanoseconds: AtomicU64::new(nanoseconds),
        }
    }

    /// Nanoseconds; `None` for a layout that is not the one known (revision 0 without attributes).
    #[must_use]
    pub fn nanoseconds(&self) -> Option<u64> {
        let revision = self.revision.load(Ordering::Relaxed);
        let attributes = self.attributes.load(Ordering::Relaxed);
        ((revision, attributes) == (0, 0)).then(|| self.nanoseconds.load(Ordering::Relaxed))
    }
}

impl Smccc {
    /// Asks for each service; `None` in place of a way to call finds nothing. `rate` is the counter's, by
    /// `CNTFRQ_EL0`. `map` makes the stolen time structure at a physical address (a multiple of 64)
    /// readable, if it can be.
    pub fn discover(
        conduit: Option<(Conduit, Call<'_>)>,
        rate: Option<Rate>,
        map: impl FnOnce(u64) -> Option<&'static StolenTime>,
    ) -> Self {
        let mut found = Self {
            conduit: None,
            rate,
            psci: None,
            version: None,
            arch: 0,
            vendor: None,
            kvm: None,
            ptp: false,
            trng: None,
            stolen: Stolen::Absent,
        };
        let Some((conduit, call)) = conduit else {
            return found;
        };
        found.conduit = Some(conduit);
        found.psci = version(ask(call, PSCI_VERSION, 0));
        found.version = version(ask(call, VERSION, 0));
        for (bit, (function, _)) in ARCH.into_iter().enumerate() {
            found.arch |= u32::from(ask(call, ARCH_FEATURES, function.into()) >= 0) << bit;
        }
        found.vendor = uuid(call, VENDOR_UID);
        if found.vendor.is_none_or(|vendor| vendor == KVM) {
            let bits = call([KVM_FEATURES.into(), 0, 0, 0]).map(low);
            found.kvm = (bits[0] != DENIED).then_some(bits);
            found.ptp = ptp(call).is_some();
        }
        found.trng = trng(call);
        found.stolen = stolen(call, map);
        found
    }

    /// Whether there is KVM's PTP service, for [`ptp`].
    #[must_use]
    pub const fn has_ptp(&self) -> bool {
        self.ptp
    }

    /// Whether there is a random number generator, for [`entropy`].
    #[must_use]
    pub fn has_entropy(&self) -> bool {
        self.trng.is_some_and(|trng| trng.rnd64)
    }
}

/// A pair of the host's time and our counter, by KVM's PTP service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ptp {
    /// The host's `CLOCK_REALTIME`: nanoseconds of UTC since 1970, without a bound.
    pub nanoseconds: u64,
    /// CNTVCT at that moment.
    pub counter: u64,
}

/// Asks KVM for the host's time and the virtual counter; `None` when it denies that.
pub fn ptp(call: Call<'_>) -> Option<Ptp> {
    const VIRTUAL_COUNTER: u64 = 0;
    let words = call([KVM_PTP.into(), VIRTUAL_COUNTER, 0, 0]).map(low);
    let wide = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
    // A time whose upper half looks like a denial is in the year 2554.
    (words[0] != DENIED).then_some(Ptp {
        nanoseconds: wide(words[0], words[1]),
        counter: wide(words[2], words[3]),
    })
}

/// Asks the generator for 192 random bits; `None` when it has none for us, now or ever.
pub fn entropy(call: Call<'_>) -> Option<[u8; 24]> {
    const BITS: u64 = 192;
    const NO_ENTROPY: i32 = -3;
    for _ in 0..PATIENCE {
        let [status, words @ ..] = call([TRNG_RND64.into(), BITS, 0, 0]);
        match low(status).cast_signed() {
            0 => {
                let mut bytes = [0; 24];
                for (bytes, word) in bytes.chunks_exact_mut(8).zip(words) {
                    bytes.copy_from_slice(&word.to_le_bytes());
                }
                return Some(bytes);
            }
            NO_ENTROPY => {}
            _ => return None,
        }
    }
    None
}

impl Services for Smccc {
    fn list(&self, out: &mut dyn Write) -> fmt::Result {
        let conduit = self.conduit.map(|conduit| match conduit {
            Conduit::Hvc => "hvc",
            Conduit::Smc => "smc",
        });
        row(out, "conduit", conduit.as_ref().map(|name| name as _))?;
        row(out, "psci", self.psci.as_ref().map(|version| version as _))?;
        let version = self.version.as_ref();
        row(out, "smccc", version.map(|version| version as _))?;
        let arch = Names(self.arch, ARCH.iter().map(|(_, name)| *name));
        row(out, "arch", (self.arch != 0).then_some(&arch as _))?;
        row(out, "vendor", self.vendor.as_ref().map(|uuid| uuid as _))?;
        let kvm = self.kvm.as_ref().map(KvmFunctions);
        row(out, "kvm", kvm.as_ref().map(|functions| functions as _))?;
        row(out, "ptp", self.ptp.then_some(&"virtual counter" as _))?;
        row(out, "trng", self.trng.as_ref().map(|trng| trng as _))?;
        match &self.stolen {
            Stolen::Absent => row(out, "pv time", None),
            stolen => row(out, "pv time", Some(stolen)),
        }
    }

    fn rate(&self) -> Option<Rate> {
        self.rate
    }

    fn stolen(&self) -> Option<u64> {
        match self.stolen {
            Stolen::At(_, stolen) => stolen.nanoseconds(),
            Stolen::Absent | Stolen::Refused(_) => None,
        }
    }
}

impl Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == KVM {
            f.write_str("KVM, ")?;
        }
        let bytes = self.0.iter().flat_map(|word| word.to_le_bytes());
        for (at, byte) in bytes.enumerate() {
            let dash = if matches!(at, 4 | 6 | 8 | 10) {
                "-"
            } else {
                ""
            };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

impl Display for Trng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.version)?;
        if !self.rnd64 {
            f.write_str(", without RND64")?;
        }
        match &self.uuid {
            Some(uuid) => write!(f, ", {uuid}"),
            None => Ok(()),
        }
    }
}

impl Display for Stolen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => Ok(()),
            Self::Refused(address) => {
                write!(f, "refused: nothing can be read at {address:#x}")
            }
            Self::At(address, stolen) => match stolen.nanoseconds() {
                Some(nanoseconds) => write!(f, "at {address:#x}, {nanoseconds} ns stolen"),
                None => write!(f, "refused: the layout at {address:#x} is not known"),
            },
        }
    }
}

/// The names of the bits that are set.
struct Names<I>(u32, I);

impl<'n, I: Iterator<Item = &'n str> + Clone> Display for Names<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = self.1.clone().enumerate();
        let set = set.filter(|(bit, _)| self.0 >> bit & 1 != 0);
        for (at, (_, name)) in set.enumerate() {
            write!(f, "{}{name}", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// KVM's bitmap, and the functions in it that we know.
struct KvmFunctions<'a>(&'a [u32; 4]);

impl Display for KvmFunctions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second, third, fourth] = self.0;
        write!(f, "{first:#x} {second:#x} {third:#x} {fourth:#x}")?;
        let known = KVM_FUNCTIONS
            .iter()
            .filter(|(bit, _)| first >> bit & 1 != 0);
        for (_, name) in known {
            write!(f, ", {name}")?;
        }
        Ok(())
    }
}

/// What a 32-bit register says for no.
const DENIED: u32 = u32::MAX;

/// Calls `function`; its first result, which is negative for no. The upper half of a register is
/// undefined after a 32-bit call.
fn ask(call: Call<'_>, function: u32, argument: u64) -> i32 {
    let [result, ..] = call([function.into(), argument, 0, 0]);
    low(result).cast_signed()
}

fn version(result: i32) -> Option<Version> {
    let bits = u32::try_from(result).ok()?;
    let [minor_low, minor_high, major_low, major_high] = bits.to_le_bytes();
    Some(Version {
        major: u16::from_le_bytes([major_low, major_high]),
        minor: u16::from_le_bytes([minor_low, minor_high]),
    })
}

fn uuid(call: Call<'_>, function: u32) -> Option<Uuid> {
    let words = call([function.into(), 0, 0, 0]).map(low);
    (words[0] != DENIED).then_some(Uuid(words))
}

fn trng(call: Call<'_>) -> Option<Trng> {
    let version = version(ask(call, TRNG_VERSION, 0)).filter(|version| version.major >= 1)?;
    Some(Trng {
        version,
        rnd64: ask(call, TRNG_FEATURES, TRNG_RND64.into()) >= 0,
        uuid: uuid(call, TRNG_UUID),
    })
}

fn stolen(call: Call<'_>, map: impl FnOnce(u64) -> Option<&'static StolenTime>) -> Stolen {
    // The convention would have ARCH_FEATURES asked first; a host that denies only that is no reason to
    // go without.
    if ask(call, PV_TIME_FEATURES, PV_TIME_ST.into()) < 0 {
        return Stolen::Absent;
    }
    let [address, ..] = call([PV_TIME_ST.into(), 0, 0, 0]);
    if address == 0 || address.cast_signed() < 0 || low(address) == DENIED {
        return Stolen::Absent;
    }
    let is_aligned = address.is_multiple_of(align_of::<StolenTime>() as u64);
    match is_aligned.then(|| map(address)).flatten() {
        Some(stolen) => Stolen::At(address, stolen),
        None => Stolen::Refused(address),
    }
}

const fn low(register: u64) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "the low half is wanted")]
    let low = register as u32;
    low
}
