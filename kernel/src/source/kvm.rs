//! The host's `CLOCK_REALTIME` by what KVM adds to the machine: clock pairing and kvmclock on x86, the PTP
//! call on Arm.
//!
//! | Driver | Asks by | Told with the time | Error |
//! |---|---|---|---|
//! | [`KvmPairing`] | `KVM_HC_CLOCK_PAIRING` | the TSC | 2 ns |
//! | [`KvmPtp`] | KVM's PTP call | the virtual counter | 2 ns |
//! | [`KvmClock`] | the wall clock and system time pages | the TSC, by their scale | how long the host took, and the scale's |
//!
//! **On which scale.** `CLOCK_REALTIME` is POSIX-coded UTC, and none of the three says whether that host
//! smears leap seconds (many do, by the NTP servers they follow). So it counts as [`SourceTime::PerhapsSmeared`]:
//! plain UTC, but for a second more of error within a day of a month's end. None says
//! anything of leap seconds, of TAI, or of the error of the host's clock either, so the host's clock
//! is what the bound is about, and nobody vouches for it ([`ClockStatus::Freerunning`]).
//!
//! **Where none can be.** The x86 ones are made only where CPUID has KVM's signature: elsewhere their
//! instruction is undefined. A host may deny each of them at any time, and another host, after a migration,
//! may not: so a denial is no time and a reason, and they are asked again.
//!
//! Sources: Linux, `Documentation/virt/kvm/x86/hypercalls.rst`, `msr.rst`, `cpuid.rst`, and
//! `Documentation/virt/kvm/arm/ptp_kvm.rst`.

use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use gnomon_clock::{Bound, ClockStatus, Source, SourceTime, Span, Ticks, Timestamp};

use crate::services::smccc;
use crate::source::{Answer, Driver, Indication};

/// The x86 processor below which KVM has been found, as KVM's services need it.
pub trait KvmHost {
    /// Makes `KVM_HC_CLOCK_PAIRING` for the host's wall clock, with the address of [`Shared::pairing`], and
    /// returns RAX.
    fn pair(&mut self) -> i64;

    /// Writes the address of [`Shared::wall`] to `MSR_KVM_WALL_CLOCK_NEW`. The host fills it in before this
    /// returns, and at no other time.
    fn write_wall_clock(&mut self);

    /// Writes the address of [`Shared`]'s `system` to `MSR_KVM_SYSTEM_TIME_NEW`, with the bit that enables it. The
    /// host fills it in before this returns, and whenever it likes from then on.
    fn write_system_time(&mut self);

    /// The counter now.
    fn counter(&self) -> Ticks;

    /// What the host writes.
    fn shared(&self) -> &Shared;
}

/// Memory that the host writes, and we only to begin with. Lies in one page.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Shared {
    /// `struct kvm_clock_pairing`: seconds, nanoseconds, counter, flags in the low half; the rest is
    /// reserved.
    pub pairing: [AtomicU64; 8],
    /// `struct pvclock_vcpu_time_info`: version, padding, counter (two words), system time in ns (two words),
    /// multiplier; and shift, flags and padding, a byte each.
    pub system: [AtomicU32; 8],
    /// `struct pvclock_wall_clock`: version, seconds, nanoseconds; and one word that is nobody's.
    pub wall: [AtomicU32; 4],
}

impl Shared {
    /// Nothing has been written yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            pairing: [const { AtomicU64::new(0) }; 8],
            system: [const { AtomicU32::new(0) }; 8],
            wall: [const { AtomicU32::new(0) }; 4],
        }
    }

    /// The system time's parameters; none while the host writes them.
    fn system(&self) -> Option<SystemTime> {
        let words = seqlocked(&self.system)?;
        let [
            _,
            _,
            counter_low,
            counter_high,
            nanos_low,
            nanos_high,
            multiplier,
            rest,
        ] = words;
        let [shift, flags, ..] = rest.to_le_bytes();
        Some(SystemTime {
            version: words[0],
            counter: wide(counter_high, counter_low),
            nanos: wide(nanos_high, nanos_low),
            multiplier,
            shift: shift.cast_signed(),
            is_stable: flags & 1 != 0,
        })
    }
}

impl Default for Shared {
    fn default() -> Self {
        Self::new()
    }
}

/// A pair of the host's time and the TSC, by `KVM_HC_CLOCK_PAIRING`.
#[derive(Debug)]
pub struct KvmPairing<H>(
    /// The machine.
    pub H,
);

impl<H: KvmHost> Driver for KvmPairing<H> {
    fn source(&self) -> Source {
        Source::KvmPairing
    }

    fn ask(&mut self) -> Answer {
        const UNKNOWN: i64 = -1000;
        const UNSUPPORTED: i64 = -95;
        // What no host writes, so that one that writes nothing is found out.
        for word in &self.0.shared().pairing {
            word.store(u64::MAX, Ordering::Relaxed);
        }
        match self.0.pair() {
            0 => {}
            UNKNOWN => return Answer::Silence("KVM does not know clock pairing"),
            UNSUPPORTED => return Answer::Silence("the host's clock does not run on the TSC"),
            _ => return Answer::Silence("KVM refuses clock pairing"),
        }
        let words = self.0.shared().pairing.each_ref();
        let [seconds, nanos, counter, flags, ..] = words.map(|word| word.load(Ordering::Relaxed));
        // Flags that mean nothing yet could come to mean anything.
        if flags << 32 != 0 {
            return Answer::Silence("its answer is of an unknown kind");
        }
        realtime(seconds, nanos, Ticks(counter), GRANULARITY)
    }

    fn poll(&mut self) -> Answer {
        NOT_ASKED
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("clock pairing, UTC, perhaps smeared")
    }
}

/// A pair of the host's time and the virtual counter, by KVM's PTP call.
#[derive(Debug)]
pub struct KvmPtp<F>(
    /// Calls what is below.
    pub F,
);

impl<F: FnMut([u64; 4]) -> [u64; 4]> Driver for KvmPtp<F> {
    fn source(&self) -> Source {
        Source::KvmPtp
    }

    fn ask(&mut self) -> Answer {
        let Some(ptp) = smccc::ptp(&mut self.0) else {
            return Answer::Silence(
                "KVM denies it, or the host's clock does not run on the counter",
            );
        };
        let (seconds, nanos) = (ptp.nanoseconds / SECOND, ptp.nanoseconds % SECOND);
        realtime(seconds, nanos, Ticks(ptp.counter), GRANULARITY)
    }

    fn poll(&mut self) -> Answer {
        NOT_ASKED
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PTP call, UTC, perhaps smeared")
    }
}

/// The host's time as kvmclock tells it: the wall clock at the machine's start, and the time since then by
/// the TSC.
///
/// The wall clock is worked out when its MSR is written, as host time less system time, and never corrected
/// after that. So each question writes it anew. The error is the sum of
///
/// * how long the writing took: the host read both clocks within it, and nobody knows when;
/// * the time since the reference of the system time page, times 4·10⁻⁶ where the page is stable, for
///   the host's own arithmetic may round the counter's rate to another kHz than the page's; and times 10⁻³
///   where it is not, for then the host reads a clock that is steered, against a rate that was measured. Each
///   question has the page renewed first, which sets the reference anew where it is not stable;
/// * four nanoseconds for what is cut off.
#[derive(Debug)]
pub struct KvmClock<H> {
    host: H,
    flag_is_true: bool,
}

impl<H: KvmHost> KvmClock<H> {
    /// kvmclock on this machine. `flag_is_true` says that the page's stable flag is to be believed
    /// (`KVM_FEATURE_CLOCKSOURCE_STABLE_BIT`).
    pub const fn new(host: H, flag_is_true: bool) -> Self {
        Self { host, flag_is_true }
    }

    /// One try; none when the host wrote the page meanwhile.
    fn measure(&mut self) -> Option<Answer> {
        let system = self.host.shared().system()?;
        let [version, ..] = &self.host.shared().wall;
        let version = version.load(Ordering::Relaxed);
        let before = self.host.counter();
        self.host.write_wall_clock();
        let after = self.host.counter();
        let [written, seconds, nanos, _] = seqlocked(&self.host.shared().wall)?;
        if self.host.shared().system()? != system {
            return None;
        }
        if written == version {
            return Some(Answer::Silence("KVM does not write the wall clock"));
        }
        let (Some(start), Some(end)) = (system.at(before), system.at(after)) else {
            return Some(Answer::Silence("its page makes no sense with the counter"));
        };
        if u64::from(nanos) >= SECOND {
            return Some(NO_TIME);
        }
        let since_start = u64::from(nanos).saturating_add(end);
        let age = end.saturating_sub(system.nanos);
        let drift = if system.is_stable && self.flag_is_true {
            age / 250_000
        } else {
            age / 1000
        };
        let error = end.saturating_sub(start).saturating_add(drift);
        Some(realtime(
            u64::from(seconds).saturating_add(since_start / SECOND),
            since_start % SECOND,
            after,
            Bound::from_nanos(error).plus(Bound::from_nanos(4)),
        ))
    }
}

impl<H: KvmHost> Driver for KvmClock<H> {
    fn source(&self) -> Source {
        Source::KvmClock
    }

    fn ask(&mut self) -> Answer {
        const ATTEMPTS: u32 = 10;
        self.host.write_system_time();
        (0..ATTEMPTS)
            .find_map(|_| self.measure())
            .unwrap_or(Answer::Silence("its page does not stand still"))
    }

    fn poll(&mut self) -> Answer {
        NOT_ASKED
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("wall clock + system time, UTC, perhaps smeared")
    }
}

const SECOND: u64 = 1_000_000_000;
/// Of a pair: the time is cut off to the nanosecond, and a host that scales the counter cuts that off too. A
/// counter that is scaled runs at 500 MHz at least.
const GRANULARITY: Bound = Bound::from_nanos(2);
const NO_TIME: Answer = Answer::Silence("it tells no time of day");
/// All of these answer at once.
const NOT_ASKED: Answer = Answer::Silence("it was not asked");

/// The host's clock showed these whole nanoseconds at this counter value.
fn realtime(seconds: u64, nanos: u64, ticks: Ticks, error: Bound) -> Answer {
    /// Half a nanosecond.
    const HALF: Span = Span::from_units((1 << 63) / 1_000_000_000);
    if nanos >= SECOND {
        return NO_TIME;
    }
    let time = i64::try_from(seconds).ok().and_then(|seconds| {
        Timestamp::from_parts(seconds, 0)
            .checked_add(Span::from_nanos(nanos.cast_signed()))?
            .checked_add(HALF)
    });
    let Some(time) = time else {
        return NO_TIME;
    };
    Answer::Time(Indication {
        time: SourceTime::PerhapsSmeared(time),
        ticks: Some(ticks),
        error,
        tai_offset: None,
        leap: None,
        status: ClockStatus::Freerunning,
    })
}

/// How system time follows from the counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SystemTime {
    version: u32,
    counter: u64,
    nanos: u64,
    multiplier: u32,
    shift: i8,
    is_stable: bool,
}

impl SystemTime {
    /// The system time in ns at a counter value, cut off; none before the reference, and where it
    /// does not fit.
    fn at(&self, ticks: Ticks) -> Option<u64> {
        let passed = ticks.0.checked_sub(self.counter)?;
        let by = u32::from(self.shift.unsigned_abs());
        let shifted = if self.shift < 0 {
            passed.checked_shr(by)?
        } else {
            let shifted = passed.checked_shl(by)?;
            (shifted >> by == passed).then_some(shifted)?
        };
        if self.multiplier == 0 {
            return None;
        }
        let nanos = (u128::from(shifted) * u128::from(self.multiplier)) >> 32;
        self.nanos.checked_add(u64::try_from(nanos).ok()?)
    }
}

/// The words of a structure whose first is a version that is odd while the host writes; none then.
fn seqlocked<const N: usize>(words: &[AtomicU32; N]) -> Option<[u32; N]> {
    let version = words.first()?;
    let before = version.load(Ordering::Acquire);
    let copy = words.each_ref().map(|word| word.load(Ordering::Relaxed));
    fence(Ordering::Acquire);
    let after = version.load(Ordering::Relaxed);
    let is_whole = before == after && copy.first() == Some(&before) && before.is_multiple_of(2);
    is_whole.then_some(copy)
}

fn wide(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}
