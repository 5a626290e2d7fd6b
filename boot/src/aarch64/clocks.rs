//! The sources of time that an Arm machine has: KVM's PTP call and the PL031.

use gnomon_arch::dev::registers::Registers;
use gnomon_arch::machine::services::Conduit;
use gnomon_clock::Source;
use gnomon_kernel::source::kvm::KvmPtp;
use gnomon_kernel::source::rtc::{Chip, Look, Pl031, Pl031Registers, Rtc};

use crate::find::Finding;

/// Calls KVM.
type Call = fn([u64; 4]) -> [u64; 4];

/// The sources, or why there is none.
pub(crate) struct Clocks {
    ptp: Result<KvmPtp<Call>, &'static str>,
    rtc: Result<Rtc<Pl031<Mapped>>, &'static str>,
}

impl Clocks {
    /// With the way to call KVM, if it offers the PTP call, and the PL031's registers.
    pub(super) fn new(kvm: Option<Conduit>, rtc: Option<Registers>) -> Self {
        let call: Option<Call> = kvm.map(|conduit| match conduit {
            Conduit::Hvc => (|registers| Conduit::Hvc.call(registers)) as Call,
            Conduit::Smc => |registers| Conduit::Smc.call(registers),
        });
        Self {
            ptp: call.map(KvmPtp).ok_or("no KVM, or it denies the call"),
            rtc: rtc
                .map(|registers| Rtc(Pl031(Mapped(registers))))
                .ok_or("no PL031 in the device tree"),
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
        const ELSEWHERE: &str = "none on this architecture";
        say(Finding::of(Source::KvmPtp, &mut self.ptp));
        say(Finding::of(Source::Rtc, &mut self.rtc));
        say(Finding::Absent(Source::KvmPairing, ELSEWHERE));
        say(Finding::Absent(Source::KvmClock, ELSEWHERE));
    }
}

/// The PL031's registers in memory.
struct Mapped(Registers);

impl Pl031Registers for Mapped {
    fn read(&mut self, offset: usize) -> u32 {
        self.0.read32(offset)
    }
}
