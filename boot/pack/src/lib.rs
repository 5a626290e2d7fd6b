//! The packed form of the image, and how it is unpacked: what `boot`'s unpacker runs before anything else, and the
//! program `gnomon-pack` holds its own work to.
//!
//! Copies of what stands further up in the image, and bytes, both under canonical Huffman codes as in Deflate
//! (RFC 1951). Unlike there, the whole image is one block and its own window; there may be a set of codes for each place in
//! a word of four bytes (instructions of Arm are such words); a copy may say "as far back as the last one"; and
//! the two lowest bits of a distance are part of its code. Bits are taken from the lowest up.
//!
//! | Bytes | What ([`Header`]) |
//! |---|---|
//! | 8 | a digest of all that follows (`seal`) |
//! | 4 | number of words of four bytes, with packed bits, that follow the header |
//! | 4 | number of bytes they become |
//! | 8 | the address that these belong at: relative to the loader's on aarch64 |
//! | 8 | where in them the loader's entry is |
//!
//! The packed bits begin with the lengths of the codes, four bits each, [`SYMBOLS`] for each place and then [`DISTANCES`].
//! They end with at least two words of zero.
#![no_std]
#![forbid(unsafe_code)]
#![expect(
    clippy::cast_possible_truncation,
    clippy::inline_always,
    reason = "fields are cut out of words of known width; calls would cost more than what they do"
)]
#![cfg_attr(
    not(test),
    deny(
        clippy::expect_used,
        clippy::panic,
        clippy::todo,
        clippy::unimplemented,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

/// The most bits of a code.
pub const CODE_BITS: u32 = 11;
/// 256 bytes, and lengths of copies.
pub const SYMBOLS: usize = 256 + 32;
/// "As far back as the last one", and distances.
pub const DISTANCES: usize = 144;
/// The shortest copy.
pub const SHORTEST: usize = 2;
/// The longest copy.
pub const LONGEST: usize = SHORTEST + 4095;
/// The greatest distance, about: that of the last code.
pub const FURTHEST: usize = 1 << 19;

const TABLE: usize = 1 << CODE_BITS;
/// Lengths of copies have codes of their own below, and from there on two for each power of two.
const SINGLE: u32 = 16;

/// What stands before the packed bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The number of words of packed bits.
    pub words: u32,
    /// The number of bytes they become.
    pub length: u32,
    /// Where these belong.
    pub place: u64,
    /// Where the loader's entry is, from there on.
    pub entry: u64,
}

impl Header {
    /// Its own length, in words.
    pub const LENGTH: usize = 8;

    /// As it is written, under the seal of itself and `packed`.
    #[must_use]
    pub fn to_words(self, packed: &[u32]) -> [u32; Self::LENGTH] {
        let [place, entry] = [self.place, self.entry].map(halves);
        let fields = [
            self.words,
            self.length,
            place[0],
            place[1],
            entry[0],
            entry[1],
        ];
        let seal = halves(seal(seal(SEED, &fields), packed));
        let mut words = [0; Self::LENGTH];
        words[..2].copy_from_slice(&seal);
        words[2..].copy_from_slice(&fields);
        words
    }

    /// The header at the start of `words`, and the packed bits; `None` if any of them is not as it was written.
    #[must_use]
    pub fn check(words: &[u32]) -> Option<(Self, &[u32])> {
        let (head, rest) = words.split_first_chunk::<{ Self::LENGTH }>()?;
        let [low, high, fields @ ..] = *head;
        let [words, length, place_low, place_high, entry_low, entry_high] = fields;
        let packed = rest.get(..words as usize)?;
        let is_whole = seal(seal(SEED, &fields), packed) == whole(low, high);
        let header = Self {
            words,
            length,
            place: whole(place_low, place_high),
            entry: whole(entry_low, entry_high),
        };
        is_whole.then_some((header, packed))
    }
}

const fn whole(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

/// Low and high half.
#[must_use]
pub const fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

/// Any number but zero.
const SEED: u64 = 0xcbf2_9ce4_8422_2325;

/// A digest of pairs of words: each step is one to one in the pair and in the digest, so that no change within one pair
/// can stay unseen, and others with a probability of 2⁻⁶⁴.
fn seal(digest: u64, words: &[u32]) -> u64 {
    let (pairs, rest) = words.as_chunks::<2>();
    let digest = pairs.iter().fold(digest, |digest, [low, high]| {
        (digest ^ whole(*low, *high))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29)
    });
    rest.iter()
        .fold(digest, |digest, word| digest ^ u64::from(*word))
}

/// Code and number of further bits of a copy of so many bytes.
#[must_use]
pub const fn length_code(length: usize) -> (usize, u32) {
    let value = length - SHORTEST;
    if value < SINGLE as usize {
        return (256 + value, 0);
    }
    let power = value.ilog2();
    let half = value >> (power - 1) & 1;
    (
        256 + SINGLE as usize + 2 * (power as usize - 4) + half,
        power - 1,
    )
}

/// Code and number of further bits of a distance.
#[must_use]
pub const fn distance_code(distance: usize) -> (usize, u32) {
    let (high, low) = (distance >> 2, distance & 3);
    if high < 2 {
        return (1 + (high << 2) + low, 0);
    }
    let power = high.ilog2();
    let half = high >> (power - 1) & 1;
    (1 + ((2 * power as usize + half) << 2) + low, power - 1)
}

/// The least length with the code `256 + code`, and the number of further bits.
const fn length_base(code: u32) -> (u32, u32) {
    if code < SINGLE {
        return (code + SHORTEST as u32, 0);
    }
    let code = code - SINGLE;
    let extra = code / 2 + 3;
    (((2 + code % 2) << extra) + SHORTEST as u32, extra)
}

/// The least distance with the code `1 + code`, and the number of further bits, which are those above the lowest two.
const fn distance_base(code: u32) -> (u32, u32) {
    let (high, low) = (code >> 2, code & 3);
    if high < 4 {
        // Bits 0 and 1 are the same without further bits: codes 2 and 3 hold 2 and 3.
        return (high << 2 | low, 0);
    }
    let extra = high / 2 - 1;
    (((2 + high % 2) << extra) << 2 | low, extra)
}

/// Where the image is unpacked to.
pub trait Window {
    /// Puts a byte at this place, unless that is behind the end.
    #[must_use]
    fn put(&mut self, at: usize, byte: u8) -> bool;

    /// Copies so many bytes to this place from so far back; what has been copied may be copied again at once. What is behind
    /// them, up to the end, may be anything then. Nothing if that is not all inside.
    #[must_use]
    fn copy(&mut self, at: usize, distance: usize, length: usize) -> bool;
}

impl Window for [u8] {
    fn put(&mut self, at: usize, byte: u8) -> bool {
        self.get_mut(at).map(|place| *place = byte).is_some()
    }

    fn copy(&mut self, at: usize, distance: usize, length: usize) -> bool {
        let Some(end) = at.checked_add(length) else {
            return false;
        };
        if distance == 0 || distance > at || end > self.len() {
            return false;
        }
        for index in at..end {
            self[index] = self[index - distance];
        }
        true
    }
}

/// What a code stands for. In bits 0 to 7 is its own length, in 8 to 14 the number of further bits, in 15 whether it is a copy, and
/// from 16 on the byte or the least length.
type Meaning = u32;

const COPY: Meaning = 1 << 15;

/// What the code of a distance stands for: in bits 0 to 3 is its own length, in 4 to 8 the number of further bits, and from 9
/// on the least distance.
type Far = u32;

/// What is meant by all that the next bits may be.
type Table = [u32; TABLE];

/// The tables that unpacking goes by, for each of `PLACES` in a word.
#[derive(Debug)]
pub struct Tables<const PLACES: usize> {
    symbols: [Table; PLACES],
    distances: Table,
}

impl<const PLACES: usize> Tables<PLACES> {
    /// Before they are filled.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            symbols: [[0; TABLE]; PLACES],
            distances: [0; TABLE],
        }
    }

    /// Unpacks so many bytes. `None` if that is not what comes out; then anything may be there.
    pub fn unpack<W: Window + ?Sized>(
        &mut self,
        packed: &[u32],
        to: &mut W,
        length: usize,
    ) -> Option<()> {
        let mut rest = packed;
        for table in &mut self.symbols {
            let (lengths, behind) = rest.split_first_chunk::<{ SYMBOLS / 8 }>()?;
            fill(table, lengths, |symbol, length| {
                let ((base, extra), copy) = match symbol.checked_sub(256) {
                    None => ((symbol, 0), 0),
                    Some(code) => (length_base(code), COPY),
                };
                base << 16 | copy | extra << 8 | length
            });
            rest = behind;
        }
        let (lengths, rest) = rest.split_first_chunk::<{ DISTANCES / 8 }>()?;
        fill(&mut self.distances, lengths, |code, length| {
            let (base, extra) = code.checked_sub(1).map_or((0, 0), distance_base);
            base << 9 | extra << 4 | length
        });
        (self.expand(rest, to)? == length).then_some(())
    }

    /// Unpacks until `to` is full, or cannot take something. Returns how much it has then; `None` if there were too few bits.
    fn expand<W: Window + ?Sized>(&self, packed: &[u32], to: &mut W) -> Option<usize> {
        let mut bits = Bits {
            words: packed.iter(),
            buffer: 0,
            count: 0,
        };
        let mut at = 0;
        let mut distance = 0;
        loop {
            // 32 bits are enough for two symbols, and for what follows the second.
            bits.refill()?;
            let mut symbol = bits.code(&self.symbols[at % PLACES]);
            if symbol & COPY == 0 {
                if !to.put(at, (symbol >> 16) as u8) {
                    return Some(at);
                }
                at += 1;
                symbol = bits.code(&self.symbols[at % PLACES]);
                if symbol & COPY == 0 {
                    if !to.put(at, (symbol >> 16) as u8) {
                        return Some(at);
                    }
                    at += 1;
                    continue;
                }
            }
            let mut length = (symbol >> 16) as usize;
            if symbol >> 8 & 31 != 0 {
                length += bits.take(symbol >> 8 & 31);
            }
            bits.refill()?;
            let far: Far = self.distances[bits.buffer as usize % TABLE];
            bits.skip(far & 15);
            if far >> 9 != 0 {
                distance = (far >> 9) as usize + (bits.take(far >> 4 & 31) << 2);
            }
            if !to.copy(at, distance, length) {
                return Some(at);
            }
            at += length;
        }
    }
}

impl<const PLACES: usize> Default for Tables<PLACES> {
    fn default() -> Self {
        Self::new()
    }
}

/// Fills a table by the lengths of the codes, eight to a word; 0: there is no such code.
fn fill(table: &mut Table, lengths: &[u32], meaning: impl Fn(u32, u32) -> u32) {
    let all = |visit: &mut dyn FnMut(u32, u32)| {
        let mut symbol = 0;
        for word in lengths {
            let mut word = *word;
            for symbol in symbol..symbol + 8 {
                visit(symbol, word & 15);
                word >>= 4;
            }
            symbol += 8;
        }
    };
    let mut next = [0_u32; 16];
    all(&mut |_, length| next[length as usize % 16] += 1);
    let mut code = 0;
    for (length, number) in (0..=CODE_BITS).zip(&mut next).skip(1) {
        let codes = *number << (CODE_BITS - length);
        *number = code;
        code += codes;
    }
    all(&mut |symbol, length| {
        if !(1..=CODE_BITS).contains(&length) {
            return;
        }
        let code = &mut next[length as usize % 16];
        let meaning = meaning(symbol, length);
        let mut index = code.reverse_bits() >> (u32::BITS - CODE_BITS);
        while let Some(place) = table.get_mut(index as usize) {
            *place = meaning;
            index += 1 << length;
        }
        *code += 1 << (CODE_BITS - length);
    });
}

/// Bits, from the lowest up.
struct Bits<'a> {
    words: core::slice::Iter<'a, u32>,
    buffer: u64,
    /// Of the bits in the buffer, in its lowest byte.
    count: u32,
}

impl Bits<'_> {
    /// Sees to it that there are 32 at least.
    #[inline(always)]
    fn refill(&mut self) -> Option<()> {
        if self.count as u8 <= 32 {
            self.buffer |= u64::from(*self.words.next()?) << (self.count % 64);
            self.count += 32;
        }
        Some(())
    }

    /// What the next code means.
    #[inline(always)]
    fn code(&mut self, table: &Table) -> Meaning {
        let meaning = table[self.buffer as usize % TABLE];
        // Of what is subtracted all but the lowest byte is of no use.
        self.skip(meaning);
        meaning
    }

    /// As many as that.
    #[inline(always)]
    fn take(&mut self, number: u32) -> usize {
        let value = self.buffer & !(u64::MAX << number);
        self.skip(number);
        value as usize
    }

    #[inline(always)]
    fn skip(&mut self, number: u32) {
        self.buffer >>= number % 64;
        self.count = self.count.wrapping_sub(number);
    }
}
