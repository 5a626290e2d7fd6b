//! Reads the guest's counter out of a QEMU device-state file, as `xen-save-devices-state` writes
//! it.
//!
//! That command works in every build of QEMU and writes, in about a millisecond, the state of the
//! stopped machine. One of the sections is named `timer`: its first field,
//! `cpu_ticks_offset`, is the value of an x86 guest's TSC at the stop; its last,
//! `cpu_clock_offset`, is that of the virtual clock, which every other guest's counter comes from. (QEMU `migration/savevm.c`,
//! `docs/devel/migration/main.rst`, `system/cpu-timers.c`.)

use core::fmt;

use crate::host::HostCounter;

const MAGIC: [u8; 4] = *b"QEVM";
const VERSION: u32 = 3;
/// Section that carries the whole state of one device.
const SECTION_FULL: u8 = 0x04;
/// JSON-free header written by machines that record their type; it precedes the sections.
const CONFIGURATION: u8 = 0x07;
const TIMER: &[u8] = b"timer";
/// Follows a section, with its number.
const SECTION_FOOTER: u8 = 0x7e;
/// A header up to the end of this name.
const HEADER: usize = 1 + 4 + 1 + TIMER.len();
/// From this name to the footer: instance, version, three fields, no subsections.
const TIMERS: usize = TIMER.len() + 4 + 4 + 3 * 8;

/// Why no counter value could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmStateError {
    /// The file ends inside the named part.
    Truncated(&'static str),
    /// It does not begin with `QEVM`.
    Magic([u8; 4]),
    /// A version of the file other than 3.
    Version(u32),
    /// The first section is of a type that no device's is, or is not the timers' and there is not
    /// exactly one later that can be.
    NotTimers(u8),
    /// A version of the timer section older than 1 or newer than 2, or one without the virtual clock.
    TimerVersion(u32),
}

/// What QEMU made of this host's counter, with its offset, at the moment at which the machine was
/// stopped: the guest's TSC, or QEMU's virtual clock in nanoseconds.
///
/// # Errors
/// When the file is not a device state whose first section is the timers'. The input is treated as
/// hostile.
pub fn stopped_counter(file: &[u8], counter: HostCounter) -> Result<u64, VmStateError> {
    let mut rest = file;
    let magic = take(&mut rest, "magic")?;
    if magic != MAGIC {
        return Err(VmStateError::Magic(magic));
    }
    let version = u32::from_be_bytes(take(&mut rest, "version")?);
    if version != VERSION {
        return Err(VmStateError::Version(version));
    }
    let [mut kind] = take(&mut rest, "section type")?;
    if kind == CONFIGURATION {
        let length = u32::from_be_bytes(take(&mut rest, "configuration")?);
        skip(&mut rest, length, "configuration")?;
        [kind] = take(&mut rest, "section type")?;
    }
    let _section = take::<4>(&mut rest, "section number")?;
    let [length] = take(&mut rest, "section name")?;
    let name = skip(&mut rest, length.into(), "section name")?;
    if kind != SECTION_FULL {
        return Err(VmStateError::NotTimers(kind));
    }
    if name != TIMER {
        rest = later_timers(rest).ok_or(VmStateError::NotTimers(kind))?;
    }
    let _instance = take::<4>(&mut rest, "instance")?;
    let version = u32::from_be_bytes(take(&mut rest, "section version")?);
    if !(1..=2).contains(&version) {
        return Err(VmStateError::TimerVersion(version));
    }
    let ticks = take(&mut rest, "counter")?;
    match counter {
        HostCounter::Tsc => Ok(u64::from_be_bytes(ticks)),
        HostCounter::Monotonic if version < 2 => Err(VmStateError::TimerVersion(version)),
        HostCounter::Monotonic => {
            let _unused = take::<8>(&mut rest, "clock")?;
            Ok(u64::from_be_bytes(take(&mut rest, "clock")?))
        }
    }
}

/// What follows the name of the timers' section, where other devices come first (`GICv3`, say). How long
/// their sections are, only QEMU knows; so the header is searched for, and counts only if the footer is
/// in its place and if there is one such place.
fn later_timers(file: &[u8]) -> Option<&[u8]> {
    let is_header = |bytes: &&[u8]| {
        let [SECTION_FULL, a, b, c, d, 5, name @ ..] = bytes else {
            return false;
        };
        let footer = name.get(TIMERS..).unwrap_or_default();
        name.starts_with(TIMER) && footer.starts_with(&[SECTION_FOOTER, *a, *b, *c, *d])
    };
    let mut found = (0..file.len())
        .filter_map(|at| file.get(at..))
        .filter(is_header);
    let section = found.next().filter(|_| found.next().is_none())?;
    section.get(HEADER..)
}

fn take<const N: usize>(rest: &mut &[u8], what: &'static str) -> Result<[u8; N], VmStateError> {
    let (head, tail) = rest
        .split_first_chunk()
        .ok_or(VmStateError::Truncated(what))?;
    *rest = tail;
    Ok(*head)
}

fn skip<'f>(
    rest: &mut &'f [u8],
    length: u32,
    what: &'static str,
) -> Result<&'f [u8], VmStateError> {
    let length = usize::try_from(length).map_err(|_| VmStateError::Truncated(what))?;
    let (head, tail) = rest
        .split_at_checked(length)
        .ok_or(VmStateError::Truncated(what))?;
    *rest = tail;
    Ok(head)
}

impl fmt::Display for VmStateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated(what) => write!(f, "the device state ends inside its {what}"),
            Self::Magic(magic) => write!(f, "not a device state: it begins with {magic:02x?}"),
            Self::Version(version) => write!(f, "device state version {version}, not {VERSION}"),
            Self::NotTimers(kind) => write!(
                f,
                "the device state begins with a section of type {kind}, and the timers' is not found"
            ),
            Self::TimerVersion(version) => {
                write!(f, "unknown version {version} of the timer section")
            }
        }
    }
}

impl core::error::Error for VmStateError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(counter: u64) -> Vec<u8> {
        let mut file = b"QEVM\0\0\0\x03\x04\0\0\0\0\x05timer\0\0\0\0\0\0\0\x02".to_vec();
        file.extend(counter.to_be_bytes());
        file
    }

    fn tsc(file: &[u8]) -> Result<u64, VmStateError> {
        stopped_counter(file, HostCounter::Tsc)
    }

    /// The same with an unused field and the virtual clock behind it.
    fn whole(counter: u64, clock: u64) -> Vec<u8> {
        [&state(counter)[..], &[0; 8], &clock.to_be_bytes()].concat()
    }

    #[test]
    fn clock_is_the_last_field() {
        let file = whole(1, 0x0123_4567_89ab_cdef);
        let clock = |file: &[u8]| stopped_counter(file, HostCounter::Monotonic);
        assert_eq!(clock(&file), Ok(0x0123_4567_89ab_cdef));
        assert_eq!(tsc(&file), Ok(1));
        for end in 0..file.len() {
            let error = clock(&file[..end]).expect_err("incomplete");
            assert!(matches!(error, VmStateError::Truncated(_)), "{end}");
        }
        let mut old = file;
        old[26] = 1;
        assert_eq!(clock(&old), Err(VmStateError::TimerVersion(1)));
    }

    #[test]
    fn counter_is_the_first_field() {
        assert_eq!(
            tsc(&state(0x0123_4567_89ab_cdef)),
            Ok(0x0123_4567_89ab_cdef)
        );
        assert_eq!(tsc(&[state(7), vec![0xff; 40]].concat()), Ok(7));
    }

    #[test]
    fn timers_are_found_behind_other_devices() {
        let timers = &whole(1, 2)[8..];
        let footer = [0x7e, 0, 0, 0, 0];
        let gic = b"QEVM\0\0\0\x03\x04\0\0\0\x07\x09arm_gicv3\0\0\0\0\0\0\0\x01timer\x7e\0\0\0\x07";
        let file = [&gic[..], timers, &footer, &[0x7e; 99]].concat();
        for (counter, value) in [(HostCounter::Tsc, 1), (HostCounter::Monotonic, 2)] {
            assert_eq!(stopped_counter(&file, counter), Ok(value));
        }
        let nothing = Err(VmStateError::NotTimers(4));
        let twice = [&file[..], timers, &footer].concat();
        let other_footer = [&gic[..], timers, &[0x7e, 0, 0, 0, 1]].concat();
        for file in [
            twice,
            other_footer,
            gic.to_vec(),
            [&gic[..], timers].concat(),
        ] {
            assert_eq!(tsc(&file), nothing);
        }
    }

    #[test]
    fn configuration_is_skipped() {
        let plain = state(42);
        let file = [&plain[..8], b"\x07\0\0\0\x03q35", &plain[8..]].concat();
        assert_eq!(tsc(&file), Ok(42));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let plain = state(42);
        let file = [&plain[..8], b"\x07\0\0\0\x03q35", &plain[8..]].concat();
        for whole in [plain, file] {
            for end in 0..whole.len() {
                assert!(
                    matches!(tsc(&whole[..end]), Err(VmStateError::Truncated(_))),
                    "{end}"
                );
            }
        }
    }

    #[test]
    fn garbage_is_named() {
        let with = |at: usize, byte: u8| {
            let mut file = state(42);
            file[at] = byte;
            tsc(&file)
        };
        assert_eq!(with(0, b'X'), Err(VmStateError::Magic(*b"XEVM")));
        assert_eq!(with(7, 2), Err(VmStateError::Version(2)));
        assert_eq!(with(8, 1), Err(VmStateError::NotTimers(1)));
        assert_eq!(with(14, b'T'), Err(VmStateError::NotTimers(4)));
        assert_eq!(with(26, 3), Err(VmStateError::TimerVersion(3)));
        assert_eq!(with(13, 255), Err(VmStateError::Truncated("section name")));
        let huge = [&state(0)[..8], b"\x07\xff\xff\xff\xff"].concat();
        assert_eq!(tsc(&huge), Err(VmStateError::Truncated("configuration")));
    }
}
