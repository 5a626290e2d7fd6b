//! The sources of time that a PC has: KVM's services and the CMOS clock.

use gnomon_arch::machine::kvm::Kvm;
use gnomon_arch::machine::{counter, io};
use gnomon_clock::{Counter, Source, Ticks};
use gnomon_kernel::discover::acpi::Fadt;
use gnomon_kernel::services::hypervisor;
use gnomon_kernel::source::kvm::{KvmClock, KvmHost, KvmPairing, Shared};
use gnomon_kernel::source::rtc::{CENTURY, Chip, Cmos, CmosRegisters, Look, Rtc};

use crate::find::Finding;

/// What KVM writes.
static SHARED: Shared = Shared::new();

/// The sources, or why there is none.
pub(crate) struct Clocks {
    pairing: Result<KvmPairing<Below>, &'static str>,
    clock: Result<KvmClock<Below>, &'static str>,
    rtc: Result<Rtc<Cmos<Ports>>, &'static str>,
}

impl Clocks {
    /// By what CPUID says of KVM, and ACPI of the CMOS clock.
    pub(super) fn new(kvm: Option<hypervisor::Kvm>, fadt: Option<&Fadt<'_>>) -> Self {
        // SAFETY: KVM's signature has been seen.
        let below = kvm.map(|kvm| (kvm, unsafe { Kvm::new() }));
        let pairing = below.map(|(_, below)| KvmPairing(Below(below)));
        let clock = match below {
            None => Err(NO_KVM),
            Some((kvm, below)) if kvm.has_pvclock() => {
                Ok(KvmClock::new(Below(below), kvm.pvclock_is_stable()))
            }
            Some(_) => Err("KVM does not offer it"),
        };
        let rtc = match fadt {
            Some(fadt) if !fadt.may_have_cmos() => Err("ACPI says that there is no CMOS clock"),
            Some(fadt) => Ok(fadt.century()),
            None => Ok(Some(CENTURY)),
        };
        Self {
            pairing: pairing.ok_or(NO_KVM),
            clock,
            rtc: rtc.map(|century| Rtc(Cmos::new(Ports, century))),
        }
    }

    /// Looks at the real-time clock, or says why there is none.
    pub(crate) fn look_at_rtc(&mut self) -> Result<Look, &'static str> {
        match &mut self.rtc {
            Ok(Rtc(chip)) => Ok(chip.look()),
            Err(why) => Err(why),
        }
    }

    /// Says of each what there is.
    pub(crate) fn each<'c>(&'c mut self, say: &mut dyn FnMut(Finding<'c>)) {
        say(Finding::of(Source::KvmPairing, &mut self.pairing));
        say(Finding::of(Source::KvmClock, &mut self.clock));
        say(Finding::of(Source::Rtc, &mut self.rtc));
        say(Finding::Absent(Source::KvmPtp, "none on this architecture"));
    }
}

const NO_KVM: &str = "no KVM";

/// The CPU with KVM below it.
struct Below(Kvm);

impl KvmHost for Below {
    fn pair(&mut self) -> i64 {
        // SAFETY: the memory is there for the host to write, and made of atomics.
        unsafe { self.0.clock_pairing(address(&SHARED.pairing)) }
    }

    fn write_wall_clock(&mut self) {
        // SAFETY: as above; `Clocks::new` has seen the feature; the structure is aligned.
        unsafe { self.0.write_wall_clock(address(&SHARED.wall)) }
    }

    fn write_system_time(&mut self) {
        // SAFETY: as above; static memory lasts, and lies in one page by its alignment.
        unsafe { self.0.write_system_time(address(&SHARED.system)) }
    }

    fn counter(&self) -> Ticks {
        counter::this_cpu().read()
    }

    fn shared(&self) -> &Shared {
        &SHARED
    }
}

/// Memory is mapped to itself.
fn address<T>(memory: &T) -> u64 {
    core::ptr::from_ref(memory) as u64
}

/// The ports of the CMOS clock.
struct Ports;

impl CmosRegisters for Ports {
    fn read(&mut self, register: u8) -> u8 {
        io::cmos(register)
    }
}
