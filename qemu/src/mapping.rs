//! The guest's counter in terms of the host's.
//!
//! Under TCG an x86 guest's TSC is the host's TSC plus an offset that QEMU chooses each time the machine
//! starts to run; while it is stopped, its TSC stands still. An Arm guest's CNTVCT is QEMU's virtual
//! clock in whole ticks, and that clock is the host's `CLOCK_MONOTONIC` plus an offset that is chosen
//! in the same way (QEMU `system/cpu-timers.c`, `target/arm/helper.c`). Below, *counter* is the host's
//! one and what QEMU makes of it before it is divided. Three facts tie the offset down:
//! 1. the guest's counter at the stop, which QEMU writes out exactly ([`crate::vmstate`]);
//! 2. a *bracket*: two host counter values between which the machine started to run again, from
//!    QMP (the event `RESUME` is sent before, a later command's answer arrives after);
//! 3. QEMU's own variable, read from its memory. QEMU exports the symbol `timers_state`, but where in
//!    that structure the offset lies is nobody's promise: so a value counts only if it is the one
//!    value there that agrees with 1 and 2. The bracket is some 10⁶ ticks or ns wide, and a 64-bit value
//!    falls into it by accident about once in 10¹³ times.
//!
//! With all three the offset is exact. Without the third it is known to half the bracket's width,
//! some 100 µs, which then is part of the published error.
//!
//! The division costs half a tick: the page puts its time in the middle of the tick, and adds half a
//! tick to the error, 8 ns at 62.5 MHz and nothing at 1 GHz. The length of the tick is exact: QEMU
//! counts in whole nanoseconds of `CLOCK_MONOTONIC`. What EL2 of the guest subtracts (`CNTVOFF_EL2`) is
//! not seen from outside: a guest that is a hypervisor itself has a page for its EL2.

use core::num::NonZeroU32;

use gnomon_clock::CounterId;

use crate::elf::{self, ReadAt};
use crate::memory::{MemoryError, Process, mapped_images};

/// Bytes of `timers_state` that are searched. The structure begins with the offsets in question.
const SEARCHED: usize = 256;

/// A guest's counter: what QEMU makes of the host's with an offset, divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestCounter {
    /// What it is.
    pub id: CounterId,
    /// Units of the host's counter in a tick: 1 to [`LONGEST_TICK`].
    pub divisor: NonZeroU32,
}

/// The longest tick of a guest's counter in nanoseconds: 1 kHz, far below any counter there is.
pub const LONGEST_TICK: u32 = 1_000_000;

impl GuestCounter {
    /// The TSC of an x86 guest.
    pub const TSC: Self = Self {
        id: CounterId::X86Tsc,
        divisor: NonZeroU32::MIN,
    };

    /// CNTVCT of an Arm guest whose `cntfrq` is this; `None` for one below 1 kHz.
    ///
    /// Where the frequency does not divide 1 GHz, QEMU's counter runs faster than it says.
    #[must_use]
    pub fn virtual_count(hertz: u64) -> Option<Self> {
        let nanos = 1_000_000_000_u64.checked_div(hertz)?.max(1);
        let divisor = u32::try_from(nanos)
            .ok()
            .filter(|nanos| *nanos <= LONGEST_TICK)?;
        Some(Self {
            id: CounterId::ArmVcnt,
            divisor: NonZeroU32::new(divisor)?,
        })
    }
}

/// Guest counter = (host counter + `offset`) / divisor, `offset` being right to within `radius`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The guest's counter.
    pub guest: GuestCounter,
    /// Added to the host's counter, modulo 2⁶⁴.
    pub offset: u64,
    /// Greatest error of the offset in units of the host's counter: zero if proven.
    pub radius: u64,
    /// Where QEMU keeps the offset, if it was found.
    pub slot: Option<Slot>,
}

impl Mapping {
    /// The guest's counter when the host's is `host`, and how many units of the latter ago it became
    /// that, less than the divisor.
    #[must_use]
    pub fn guest_at(&self, host: u64) -> (u64, u32) {
        let (count, divisor) = (host.wrapping_add(self.offset), self.guest.divisor);
        // A remainder is less than its divisor.
        let rest = u32::try_from(count % u64::from(divisor.get())).unwrap_or(0);
        (count / u64::from(divisor.get()), rest)
    }
}

/// The place in QEMU's memory that holds the offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    address: u64,
}

impl Slot {
    /// The place's address in QEMU's memory.
    #[must_use]
    pub const fn address(self) -> u64 {
        self.address
    }
}

/// Two values of the host's counter: the machine started to run between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bracket {
    /// It had not started yet.
    pub earliest: u64,
    /// It had started.
    pub latest: u64,
}

/// What QEMU's memory tells of its clocks.
#[derive(Debug)]
pub struct Timers {
    process: Process,
    /// Of `timers_state`.
    state: Option<u64>,
    /// Of `use_icount`.
    icount: Option<u64>,
}

impl Timers {
    /// Looks for the variables in the images of process `pid`. Not finding them is no error.
    ///
    /// # Errors
    /// When the process may not be looked into.
    pub fn find(pid: u32) -> Result<Self, MemoryError> {
        let process = Process::open(pid)?;
        let images = mapped_images(pid)?;
        let find = |name| {
            images
                .iter()
                .find_map(|base| elf::symbol(&process, *base, name).ok())
        };
        let (state, icount) = (find("timers_state"), find("use_icount"));
        Ok(Self {
            process,
            state,
            icount,
        })
    }

    /// Whether the guest's counter counts instructions (`-icount`) instead of following the host's;
    /// `None` when this QEMU does not show it.
    #[must_use]
    pub fn counts_instructions(&self) -> Option<bool> {
        let mut value = [0; 4];
        self.process.read_at(self.icount?, &mut value).ok()?;
        Some(value != [0; 4])
    }

    /// The mapping of a machine whose counter stood at `stopped` and that started within `bracket`.
    #[must_use]
    pub fn map(&self, guest: GuestCounter, stopped: u64, bracket: Bracket) -> Mapping {
        let mut bytes = [0; SEARCHED];
        let read = self
            .state
            .and_then(|state| self.process.read_at(state, &mut bytes).ok());
        let found = read.and_then(|()| find(&bytes, stopped, bracket));
        match (self.state, found) {
            (Some(state), Some((at, offset))) => Mapping {
                guest,
                offset,
                radius: 0,
                slot: Some(Slot {
                    address: state + at,
                }),
            },
            _ => middle(guest, stopped, bracket),
        }
    }

    /// Whether QEMU still has the offset of this mapping; `true` where that cannot be seen.
    #[must_use]
    pub fn holds(&self, mapping: &Mapping) -> bool {
        let Some(Slot { address }) = mapping.slot else {
            return true;
        };
        let mut value = [0; 8];
        self.process.read_at(address, &mut value).is_ok()
            && u64::from_le_bytes(value) == mapping.offset
    }
}

/// The mapping that the bracket alone proves.
#[must_use]
pub fn middle(guest: GuestCounter, stopped: u64, bracket: Bracket) -> Mapping {
    let width = bracket.latest.wrapping_sub(bracket.earliest);
    let started = bracket.earliest.wrapping_add(width / 2);
    Mapping {
        guest,
        offset: stopped.wrapping_sub(started),
        radius: width.div_ceil(2),
        slot: None,
    }
}

/// The one aligned value in `bytes` that is an offset which agrees with the bracket, and where it
/// is. `None` when there is none, or when there are several.
fn find(bytes: &[u8], stopped: u64, bracket: Bracket) -> Option<(u64, u64)> {
    let width = bracket.latest.wrapping_sub(bracket.earliest);
    let agrees = |offset: u64| {
        // The machine started when the host's counter was `stopped - offset`.
        stopped.wrapping_sub(offset).wrapping_sub(bracket.earliest) <= width
    };
    let (words, _) = bytes.as_chunks();
    let values = (0..)
        .step_by(8)
        .zip(words.iter().map(|word| u64::from_le_bytes(*word)));
    let mut candidates = values.filter(|(_, offset)| agrees(*offset));
    candidates.next().filter(|_| candidates.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRACKET: Bracket = Bracket {
        earliest: 1_000_000,
        latest: 1_000_500,
    };
    const STOPPED: u64 = 77;

    fn memory(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn offset_within_the_bracket_is_found() {
        for started in [BRACKET.earliest, 1_000_300, BRACKET.latest] {
            let offset = STOPPED.wrapping_sub(started);
            let bytes = memory(&[0, 5, offset, u64::MAX]);
            assert_eq!(find(&bytes, STOPPED, BRACKET), Some((16, offset)));
        }
    }

    #[test]
    fn nothing_and_ambiguity_prove_nothing() {
        let outside = [BRACKET.earliest - 1, BRACKET.latest + 1, 0, u64::MAX];
        let outside = outside.map(|started| STOPPED.wrapping_sub(started));
        assert_eq!(find(&memory(&outside), STOPPED, BRACKET), None);
        let twice = [1_000_100, 1_000_200].map(|started: u64| STOPPED.wrapping_sub(started));
        assert_eq!(find(&memory(&twice), STOPPED, BRACKET), None);
        assert_eq!(find(&[], STOPPED, BRACKET), None);
        let offset = STOPPED.wrapping_sub(1_000_300);
        let unaligned = [&[0; 4][..], &memory(&[offset])].concat();
        assert_eq!(find(&unaligned, STOPPED, BRACKET), None);
    }

    #[test]
    fn bracket_alone_gives_its_middle() {
        let mapping = middle(GuestCounter::TSC, STOPPED, BRACKET);
        assert_eq!(mapping.offset.wrapping_add(1_000_250), STOPPED);
        assert_eq!((mapping.radius, mapping.slot), (250, None));
        let wrapping = Bracket {
            earliest: u64::MAX - 4,
            latest: 5,
        };
        let mapping = middle(GuestCounter::TSC, 0, wrapping);
        assert_eq!((mapping.offset, mapping.radius), (0, 5));
    }

    #[test]
    fn frequencies_are_whole_nanoseconds() {
        let divisor = |hertz| GuestCounter::virtual_count(hertz).map(|guest| guest.divisor.get());
        for (hertz, nanos) in [
            (62_500_000, 16),
            (1_000_000_000, 1),
            (24_000_000, 41),
            (2_000_000_000, 1),
            (u64::MAX, 1),
            (1_000, 1_000_000),
        ] {
            assert_eq!(divisor(hertz), Some(nanos), "{hertz}");
        }
        assert_eq!((divisor(0), divisor(1), divisor(999)), (None, None, None));
    }

    #[test]
    fn guest_counter_is_in_whole_ticks() {
        let guest = GuestCounter::virtual_count(62_500_000).expect("a tick of 16 ns");
        let mapping = Mapping {
            guest,
            ..middle(GuestCounter::TSC, 0, BRACKET)
        };
        let start = 1_000_250;
        assert_eq!(mapping.guest_at(start), (0, 0));
        assert_eq!(mapping.guest_at(start + 47), (2, 15));
        assert_eq!(mapping.guest_at(start + 48), (3, 0));
    }
}
