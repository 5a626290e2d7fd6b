//! The vmclock page (`struct vmclock_abi`, UAPI.13 v1.1): its layout, its codes, and both ends of
//! its seqlock.

use core::fmt;
use core::hint;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use crate::seqlock;
pub use crate::seqlock::Busy;

/// Marks a seal: "GNOM" in the upper half, the lower half of the marker in the lower.
const SEAL: u64 = 0x474e_4f4d << 32;
const SEAL_MASK: u64 = 0xffff_ffff << 32;

/// The first four bytes of a page, "VCLK" in little-endian order.
pub const MAGIC: u32 = 0x4b4c_4356;
/// The only version there is.
pub const VERSION: u16 = 1;
/// Length of the structure in bytes, a whole number of words. The page's own `size` is that of the region, usually 0x1000.
pub const LEN: usize = 0x70;
/// Bytes of it that are no field.
const PADDING: usize = 2;
/// `counter_id` of a page without time: only the disruption marker and what follows it count.
pub const COUNTER_INVALID: u8 = 0xff;

/// Bits of [`Fields::flags`]. Unknown bits are to be ignored: an incompatible change would come
/// with another version or time type.
pub mod flag {
    /// `tai_offset_sec` may be used.
    pub const TAI_OFFSET_VALID: u64 = 1 << 0;
    /// A disruption is expected within about a day.
    pub const DISRUPTION_SOON: u64 = 1 << 1;
    /// A disruption is expected within about an hour.
    pub const DISRUPTION_IMMINENT: u64 = 1 << 2;
    /// `counter_period_esterror_rate_frac_sec` may be used.
    pub const PERIOD_ESTERROR_VALID: u64 = 1 << 3;
    /// `counter_period_maxerror_rate_frac_sec` may be used.
    pub const PERIOD_MAXERROR_VALID: u64 = 1 << 4;
    /// `time_esterror_nanosec` may be used.
    pub const TIME_ESTERROR_VALID: u64 = 1 << 5;
    /// `time_maxerror_nanosec` may be used.
    pub const TIME_MAXERROR_VALID: u64 = 1 << 6;
    /// Time does not step back over an update (UTC leap seconds excepted).
    pub const TIME_MONOTONIC: u64 = 1 << 7;
    /// `vm_generation_counter` is there (bit 7 in the text of v1.0, which was a mistake).
    pub const VM_GEN_COUNTER_PRESENT: u64 = 1 << 8;
    /// Every update is announced by an interrupt.
    pub const NOTIFICATION_PRESENT: u64 = 1 << 9;
}

/// The page as it lies in memory: little-endian words of 64 bits, which no field straddles.
pub(crate) type Words = [u64; LEN / 8];

/// Writes the ABI down once; the structure, its conversions and the compile-time check of every
/// offset follow from it.
macro_rules! vmclock_abi {
    ($($(#[$doc:meta])* $offset:literal $name:ident: $raw:ident,)*) => {
        /// A copy of the page: raw values in native byte order, nothing checked.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Fields {
            $($(#[$doc])* pub $name: $raw,)*
        }

        const _: () = {
            let (mut end, mut padding) = (0, 0);
            $(
                assert!($offset % size_of::<$raw>() == 0, "no field straddles a word");
                assert!($offset >= end);
                padding += $offset - end;
                end = $offset + size_of::<$raw>();
            )*
            assert!(end == LEN && padding == PADDING);
        };

        impl Fields {
            /// The bytes of the page, little-endian, padding zero.
            #[must_use]
            pub fn to_bytes(&self) -> [u8; LEN] {
                let mut bytes = [0; LEN];
                $(put(&mut bytes, $offset, self.$name.to_le_bytes());)*
                bytes
            }

            /// The fields of the bytes of a page. The caller answers for their being of one update.
            #[must_use]
            pub fn from_bytes(bytes: &[u8; LEN]) -> Self {
                Self {
                    $($name: $raw::from_le_bytes(get(bytes, $offset)),)*
                }
            }

            #[expect(clippy::cast_sign_loss, reason = "bits are moved")]
            const fn to_words(self) -> Words {
                let mut words = [0; LEN / 8];
                $(
                    let bits = self.$name as u64 & (u64::MAX >> (64 - $raw::BITS));
                    words[$offset / 8] |= (bits << (8 * ($offset % 8))).to_le();
                )*
                words
            }

            #[expect(clippy::cast_possible_truncation, reason = "bits are moved")]
            pub(crate) const fn from_words(words: &Words) -> Self {
                Self {
                    $($name: (u64::from_le(words[$offset / 8]) >> (8 * ($offset % 8))) as $raw,)*
                }
            }

            /// The length of the field at `offset`.
            const fn length(offset: usize) -> Option<usize> {
                match offset {
                    $($offset => Some(size_of::<$raw>()),)*
                    _ => None,
                }
            }
        }
    };
}

vmclock_abi! {
    /// [`MAGIC`]. Constant.
    0x00 magic: u32,
    /// Length of the region in bytes; fields beyond it are absent. Constant.
    0x04 size: u32,
    /// [`VERSION`]. Constant.
    0x08 version: u16,
    /// A [`CounterId`], or [`COUNTER_INVALID`]. Called constant, but a writer in the field changes
    /// it under the seqlock, so it is read there.
    0x0a counter_id: u8,
    /// A [`TimeType`]. As `counter_id`.
    0x0b time_type: u8,
    /// Odd while an update is in progress.
    0x0c seq_count: u32,
    /// Any change says that the counter may have been disrupted (migration, restore, ..).
    0x10 disruption_marker: u64,
    /// Bits of [`flag`].
    0x18 flags: u64,
    // 0x20: two bytes of padding.
    /// A [`ClockStatus`].
    0x22 clock_status: u8,
    /// A [`SmearingHint`]: what the guest may do for its own clients. The page is never smeared.
    0x23 leap_second_smearing_hint: u8,
    /// UTC − TAI in seconds, −37 in 2026; the text of v1.0 had +37 ([`TaiOffset`](crate::TaiOffset)).
    0x24 tai_offset_sec: i16,
    /// A [`LeapIndicator`], valid at the reference instant and not for now.
    0x26 leap_indicator: u8,
    /// Extra right shift of the three `counter_period*` fields.
    0x27 counter_period_shift: u8,
    /// The counter at the reference instant.
    0x28 counter_value: u64,
    /// Seconds per tick in 2^−(64+shift) s.
    0x30 counter_period_frac_sec: u64,
    /// Estimated ± error of the period, same unit.
    0x38 counter_period_esterror_rate_frac_sec: u64,
    /// Greatest ± error of the period, same unit.
    0x40 counter_period_maxerror_rate_frac_sec: u64,
    /// The reference instant: whole seconds since 1970 of `time_type`.
    0x48 time_sec: u64,
    /// Its fraction in 2⁻⁶⁴ s.
    0x50 time_frac_sec: u64,
    /// Estimated ± error of the reference instant in ns.
    0x58 time_esterror_nanosec: u64,
    /// Greatest ± error of the reference instant in ns.
    0x60 time_maxerror_nanosec: u64,
    /// Changes when the guest is cloned or restored (0x64 in the text of v1.0, which was a mistake).
    0x68 vm_generation_counter: u64,
}

/// The page where it lies: shared with a writer on the other side of the hypervisor.
///
/// It is read in words of 64 bits, all of them atomics, so that a torn copy is a matter of the seqlock and
/// never of the language, and the whole of it in fourteen loads. Both architectures load an aligned
/// word at once, whatever the width of the stores that made it. Loads are relaxed and therefore work on
/// memory mapped read-only.
#[derive(Debug)]
#[repr(transparent)]
pub struct VmclockPage([AtomicU64; LEN / 8]);

/// A page must reach this far to hold a time: the end of `time_frac_sec`.
pub(crate) const LEN_WITH_TIME: u32 = 0x58;

/// And this far to hold a disruption marker.
pub(crate) const LEN_WITH_MARKER: u32 = 0x18;

impl Fields {
    /// What a hypervisor without a clock publishes, QEMU 10 for one: a valid header and no time.
    #[must_use]
    pub const fn stock() -> Self {
        Self {
            magic: MAGIC,
            size: 0x1000,
            version: VERSION,
            counter_id: COUNTER_INVALID,
            time_type: TimeType::Utc as u8,
            seq_count: 0,
            disruption_marker: 0,
            flags: 0,
            clock_status: ClockStatus::Unknown as u8,
            leap_second_smearing_hint: 0,
            tai_offset_sec: 0,
            leap_indicator: 0,
            counter_period_shift: 0,
            counter_value: 0,
            counter_period_frac_sec: 0,
            counter_period_esterror_rate_frac_sec: 0,
            counter_period_maxerror_rate_frac_sec: 0,
            time_sec: 0,
            time_frac_sec: 0,
            time_esterror_nanosec: 0,
            time_maxerror_nanosec: 0,
            vm_generation_counter: 0,
        }
    }

    /// Whether all bits of `flag` are set.
    #[must_use]
    pub const fn has(&self, flag: u64) -> bool {
        self.flags & flag == flag
    }

    /// Greatest error of the period per tick, if flagged valid.
    #[must_use]
    pub const fn period_maxerror(&self) -> Option<u64> {
        self.flagged(
            flag::PERIOD_MAXERROR_VALID,
            0x48,
            self.counter_period_maxerror_rate_frac_sec,
        )
    }

    /// Estimated error of the period per tick, if flagged valid.
    #[must_use]
    pub const fn period_esterror(&self) -> Option<u64> {
        self.flagged(
            flag::PERIOD_ESTERROR_VALID,
            0x40,
            self.counter_period_esterror_rate_frac_sec,
        )
    }

    /// Greatest error of the reference instant in ns, if flagged valid and inside `size`.
    #[must_use]
    pub const fn time_maxerror(&self) -> Option<u64> {
        self.flagged(flag::TIME_MAXERROR_VALID, 0x68, self.time_maxerror_nanosec)
    }

    /// Estimated error of the reference instant in ns, if flagged valid and inside `size`.
    #[must_use]
    pub const fn time_esterror(&self) -> Option<u64> {
        self.flagged(flag::TIME_ESTERROR_VALID, 0x60, self.time_esterror_nanosec)
    }

    /// The generation of the virtual machine, if flagged present and inside `size`.
    #[must_use]
    pub const fn vm_generation(&self) -> Option<u64> {
        self.flagged(
            flag::VM_GEN_COUNTER_PRESENT,
            0x70,
            self.vm_generation_counter,
        )
    }

    /// The page with a seal: a trace of its own marker where a generation would stand, if it has none.
    ///
    /// QEMU raises the marker of a page whose memory came along with a restored snapshot, and leaves
    /// the rest as it was: then the seal is broken, and a reader that knows it can tell that nobody
    /// has written the page since. Without its flag the field means nothing to other readers.
    #[must_use]
    pub const fn sealed(self) -> Self {
        if self.has(flag::VM_GEN_COUNTER_PRESENT) {
            return self;
        }
        let vm_generation_counter = SEAL | self.disruption_marker & !SEAL_MASK;
        Self {
            vm_generation_counter,
            ..self
        }
    }

    /// Whether the marker has been changed since the page was [`sealed`](Self::sealed). A page
    /// without a seal has none to break.
    #[must_use]
    pub const fn is_seal_broken(&self) -> bool {
        let seal = self.vm_generation_counter;
        let is_sealed = !self.has(flag::VM_GEN_COUNTER_PRESENT)
            && self.size as usize >= LEN
            && seal & SEAL_MASK == SEAL;
        is_sealed && (seal ^ self.disruption_marker) & !SEAL_MASK != 0
    }

    const fn flagged(&self, flag: u64, end: u32, value: u64) -> Option<u64> {
        if self.has(flag) && self.size >= end {
            Some(value)
        } else {
            None
        }
    }
}

/// How often a reader looks before it says [`Busy`]: of the order of a millisecond, where an update
/// takes a microsecond. A writer paused in the middle of one must not pause the reader.
pub const ATTEMPTS: u32 = 1 << 15;

impl VmclockPage {
    /// A page of one's own, for tests and hosts.
    #[must_use]
    pub const fn new(fields: &Fields) -> Self {
        let words = fields.to_words();
        let mut page = [const { AtomicU64::new(0) }; LEN / 8];
        let mut at = 0;
        while at < words.len() {
            page[at] = AtomicU64::new(words[at]);
            at += 1;
        }
        Self(page)
    }

    /// The disruption marker right now, by one load outside the seqlock.
    #[must_use]
    #[inline]
    pub fn marker(&self) -> u64 {
        u64::from_le(self.0[MARKER / 8].load(Relaxed))
    }

    /// The sequence count right now, by one load: odd while an update is in progress.
    #[must_use]
    #[inline]
    pub fn seq_count(&self) -> u32 {
        (u64::from_le(self.0[SEQ_COUNT / 8].load(Relaxed)) >> 32) as u32
    }

    /// A copy of the page as one update left it.
    ///
    /// # Errors
    /// [`Busy`] as for [`snapshot_with`](Self::snapshot_with).
    pub fn snapshot(&self) -> Result<Fields, Busy> {
        self.snapshot_with(|| ()).map(|(fields, ())| fields)
    }

    /// A copy of the page as one update left it, and what `read` returned while that was current:
    /// `read` runs between the two looks at the sequence count, and may run several times. To hold
    /// in execution and not just in program order, `read` has to be fenced on both sides
    /// ([`Counter::read`](crate::Counter::read)).
    ///
    /// # Errors
    /// [`Busy`] after [`ATTEMPTS`] looks. An older copy is never used instead.
    pub fn snapshot_with<T>(&self, read: impl FnMut() -> T) -> Result<(Fields, T), Busy> {
        let (words, value) = self.words_with(read)?;
        Ok((Fields::from_words(&words), value))
    }

    /// The same as it lies in memory.
    #[inline]
    pub(crate) fn words_with<T>(&self, mut read: impl FnMut() -> T) -> Result<(Words, T), Busy> {
        let mut busy = Busy { odd: false };
        for _ in 0..ATTEMPTS {
            match seqlock::look(|| self.seq_count(), || (self.load(), read())) {
                Ok((count, (mut words, value))) => {
                    let [_, word, ..] = &mut words;
                    let codes = u64::from_le(*word) & u64::from(u32::MAX);
                    *word = (u64::from(count) << 32 | codes).to_le();
                    return Ok((words, value));
                }
                Err(reason) => busy = reason,
            }
            hint::spin_loop();
        }
        Err(busy)
    }

    /// What `read` returned, if the page thereafter still is what [`words_with`](Self::words_with) gave, to
    /// the last bit.
    ///
    /// All words are compared, for the count alone proves nothing: a restored snapshot brings
    /// another page, and perhaps with the same count. And all of them *after* `read`: what `read` returns
    /// in the machine's next life finds the page of that life.
    #[expect(clippy::inline_always, reason = "the hot path of every reading")]
    #[inline(always)]
    pub(crate) fn still_with<T>(
        &self,
        words: &Words,
        read: impl FnOnce() -> Option<T>,
    ) -> Option<T> {
        seqlock::look_again(read, || self.equals(words))
    }

    // Inlined for the seqlock's sake: its fences stand about the loads in one function.
    /// Every word by itself; of one update only between two equal sequence counts.
    #[inline]
    fn load(&self) -> Words {
        core::array::from_fn(|at| self.0[at].load(Relaxed))
    }

    /// Whether every word is what it is in `words`, each by itself as in `load`.
    #[expect(clippy::inline_always, reason = "the hot path of every reading")]
    #[inline(always)]
    fn equals(&self, words: &Words) -> bool {
        // A branch for each, which nearly always goes the same way, is cheaper than a sum of the
        // differences, where each waits for the one before.
        self.0
            .iter()
            .zip(words)
            .all(|(word, seen)| word.load(Relaxed) == *seen)
    }

    /// Stores the first field of `bytes`, or a byte of the padding, and returns its length. The page has one
    /// writer, so that nobody changes the rest of the word meanwhile.
    fn store(&self, offset: usize, bytes: &[u8]) -> Option<usize> {
        let is_padding = (0x20..0x20 + PADDING).contains(&offset);
        let length = if is_padding {
            1
        } else {
            Fields::length(offset)?
        };
        let word = self.0.get(offset / 8)?;
        let mut new = word.load(Relaxed).to_ne_bytes();
        let begin = offset % 8;
        new.get_mut(begin..begin + length)?
            .copy_from_slice(bytes.get(..length)?);
        word.store(u64::from_ne_bytes(new), Relaxed);
        Some(length)
    }
}

/// Where a writer puts bytes: guest memory on the host, a [`VmclockPage`] in tests.
///
/// A write of the four bytes of `seq_count` has to be one store; other writes may tear.
pub trait PageMemory {
    /// Why bytes could not be written.
    type Error;

    /// Writes `bytes` at `offset` from the start of the page.
    ///
    /// # Errors
    /// Whatever keeps the memory from being written.
    fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), Self::Error>;
}

/// The writing end of the seqlock. One page has one writer.
#[derive(Debug)]
pub struct Writer<M> {
    memory: M,
    seq_count: u32,
}

impl<M: PageMemory> Writer<M> {
    /// A writer that goes on from the page's present `seq_count`, which is odd if an earlier writer
    /// died in the middle of an update.
    #[must_use]
    pub const fn new(memory: M, seq_count: u32) -> Self {
        Self { memory, seq_count }
    }

    /// Publishes every field except the constants magic, size and version and except `seq_count`,
    /// which is the writer's own, and returns the new even `seq_count`.
    ///
    /// # Errors
    /// That of the memory. The page may then be left with an odd count, which readers refuse until
    /// the next successful call. Nobody knows how much of a failed write has arrived, so no count is
    /// used again.
    pub fn publish(&mut self, fields: &Fields) -> Result<u32, M::Error> {
        let bytes = fields.to_bytes();
        let store = |memory: &mut M, count: u32| memory.write(SEQ_COUNT, &count.to_le_bytes());
        seqlock::update(&mut self.seq_count, &mut self.memory, store, |memory| {
            for (offset, body) in bodies(&bytes) {
                memory.write(offset, body)?;
            }
            Ok(())
        })
    }
}

const CODES: usize = 0x0a;
const SEQ_COUNT: usize = 0x0c;
const MARKER: usize = 0x10;

/// The two stretches of the page that an update writes, before and after `seq_count`.
fn bodies(bytes: &[u8; LEN]) -> [(usize, &[u8]); 2] {
    [
        (CODES, &bytes[CODES..SEQ_COUNT]),
        (MARKER, &bytes[MARKER..]),
    ]
}

/// Writes that do not consist of whole fields fail with [`Misplaced`].
impl PageMemory for &VmclockPage {
    type Error = Misplaced;

    fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), Misplaced> {
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let stored = self.store(at, rest).ok_or(Misplaced { offset: at })?;
            at += stored;
            rest = rest.get(stored..).unwrap_or_default();
        }
        Ok(())
    }
}

/// A write into a [`VmclockPage`] that is not made of whole fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misplaced {
    /// Offset of the first byte that could not be written.
    pub offset: usize,
}

impl fmt::Display for Misplaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no whole field of the page at offset {:#x}", self.offset)
    }
}

impl core::error::Error for Misplaced {}

/// An enumeration whose values are codes on the page; `TryFrom<u8>` gives an unknown code back.
macro_rules! codes {
    (
        $(#[$doc:meta])* $name:ident {
            $($(#[$variant_doc:meta])* $variant:ident = $code:literal $text:literal,)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$variant_doc])* $variant = $code,)*
        }

        impl TryFrom<u8> for $name {
            /// The code that is not known.
            type Error = u8;

            fn try_from(code: u8) -> Result<Self, u8> {
                match code {
                    $($code => Ok(Self::$variant),)*
                    unknown => Err(unknown),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$variant => $text,)*
                })
            }
        }
    };
}

codes! {
    /// The counter that `counter_value` counts.
    CounterId {
        /// The virtual counter of the Arm architecture, `CNTVCT_EL0`.
        ArmVcnt = 0 "ARM CNTVCT",
        /// The time-stamp counter of x86.
        X86Tsc = 1 "x86 TSC",
    }
}

codes! {
    /// The scale of `time_sec`.
    TimeType {
        /// POSIX-coded UTC.
        Utc = 0 "UTC",
        /// TAI since 1970-01-01T00:00:00 TAI.
        Tai = 1 "TAI",
        /// Monotonic with an undefined epoch: no time of day.
        Monotonic = 2 "monotonic",
        /// Smeared: not to be used.
        InvalidSmeared = 3 "smeared",
        /// Perhaps smeared: not to be used.
        InvalidMaybeSmeared = 4 "maybe smeared",
    }
}

codes! {
    /// How far the host trusts its own clock.
    ClockStatus {
        /// Indeterminate: not to be used.
        Unknown = 0 "unknown",
        /// Not yet synchronised: not to be used.
        Initializing = 1 "initializing",
        /// Synchronised.
        Synchronized = 2 "synchronized",
        /// Was synchronised and coasts: good within bounds that go on growing.
        Freerunning = 3 "freerunning",
        /// Broken: not to be used.
        Unreliable = 4 "unreliable",
    }
}

codes! {
    /// Leap seconds near the reference instant.
    LeapIndicator {
        /// None is known.
        None = 0 "none",
        /// A second is inserted at the end of the present month.
        PrePos = 1 "insert at month end",
        /// A second is left out at the end of the present month.
        PreNeg = 2 "delete at month end",
        /// The reference instant lies inside 23:59:60.
        Pos = 3 "inside the inserted second",
        /// A second was inserted at the end of the previous month.
        PostPos = 4 "inserted at last month end",
        /// A second was left out at the end of the previous month.
        PostNeg = 5 "deleted at last month end",
    }
}

impl LeapIndicator {
    /// What the two bits of NTP say (RFC 5905 §7.3), which speak of the end of the present month;
    /// `None` for 3, unsynchronised, and for what is no such code.
    #[must_use]
    pub const fn from_ntp(leap: u8) -> Option<Self> {
        match leap {
            0 => Some(Self::None),
            1 => Some(Self::PrePos),
            2 => Some(Self::PreNeg),
            _ => None,
        }
    }
}

codes! {
    /// How the host would have leap seconds smeared, if anybody smears.
    SmearingHint {
        /// Not at all.
        Strict = 0 "strict",
        /// Linear over the 24 hours from noon to noon UTC.
        NoonLinear = 1 "noon linear",
        /// UTC-SLS: over the last 1000 seconds.
        UtcSls = 2 "UTC-SLS",
    }
}

fn put<const N: usize>(bytes: &mut [u8; LEN], offset: usize, value: [u8; N]) {
    bytes[offset..offset + N].copy_from_slice(&value);
}

fn get<const N: usize>(bytes: &[u8; LEN], offset: usize) -> [u8; N] {
    core::array::from_fn(|i| bytes[offset + i])
}
