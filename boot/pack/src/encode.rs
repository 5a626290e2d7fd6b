//! Packs: the cheapest way through the image, by what each step costs in bits and in time.
//!
//! What a step costs depends on the codes, and these on how often each step is taken: so it is found in a few passes, each
//! with the codes of the one before.

use gnomon_pack::{
    CODE_BITS, DISTANCES, FURTHEST, LONGEST, SHORTEST, SYMBOLS, distance_code, halves, length_code,
};

/// What unpacking a copy costs in addition to its bits, in bits, and a byte: so many bits are worth as much as its instructions.
const COPY_PRICE: f32 = 16.0;
const BYTE_PRICE: f32 = 4.0;
const PASSES: usize = 8;
/// Of how many places that begin with the same three bytes a copy may be.
const DEPTH: usize = 2000;
/// Two bytes are worth a copy from nearby only.
const NEARBY: usize = 2048;
/// A copy that nobody would cut short.
const ENOUGH: usize = 256;
/// What a symbol that the last pass had no use for is taken to cost.
const RARE: f32 = 12.0;

/// So many bytes from so far back, or one byte as it is (a length of 1).
#[derive(Clone, Copy, Debug, Default)]
struct Step {
    length: usize,
    distance: usize,
}

/// What comes of it.
#[derive(Debug)]
pub(crate) struct Packed {
    /// The packed bits.
    pub(crate) words: Vec<u32>,
    /// How many single bytes, and how many copies.
    pub(crate) steps: [usize; 2],
}

/// Packs `image`, with codes of their own for each of `places` in a word.
pub(crate) fn pack(image: &[u8], places: usize) -> Packed {
    let copies = copies(image);
    let mut prices = Prices::unknown(places);
    let mut best: Option<Packed> = None;
    for _ in 0..PASSES {
        let steps = cheapest(image, &copies, &prices);
        let codes = Codes::of(image, &steps, places);
        let words = codes.write(image, &steps);
        let single = steps.iter().filter(|step| step.length == 1).count();
        if best
            .as_ref()
            .is_none_or(|best| words.len() < best.words.len())
        {
            best = Some(Packed {
                words,
                steps: [single, steps.len() - single],
            });
        }
        prices = codes.prices();
    }
    best.unwrap_or_else(|| unreachable!("there is a pass"))
}

/// For each place in the image what might be copied there, longer ones from further back.
fn copies(image: &[u8]) -> Vec<Vec<Step>> {
    const NONE: usize = usize::MAX;
    const HASH_BITS: u32 = 18;
    let mut pairs = vec![NONE; 1 << 16];
    let mut latest = vec![NONE; 1 << HASH_BITS];
    let mut before = vec![NONE; image.len()];
    let mut all = Vec::with_capacity(image.len());
    for at in 0..image.len() {
        let mut found = Vec::new();
        let mut longest = 1;
        if let [first, second, rest @ ..] = &image[at..] {
            let last = &mut pairs[usize::from(u16::from_le_bytes([*first, *second]))];
            if *last != NONE && at - *last < NEARBY {
                found.push(Step {
                    length: 2,
                    distance: at - *last,
                });
                longest = 2;
            }
            *last = at;
            if let [third, ..] = rest {
                let word = u32::from_le_bytes([*first, *second, *third, 0]);
                let hash = word.wrapping_mul(0x9e37_79b1) >> (u32::BITS - HASH_BITS);
                let last = &mut latest[hash as usize];
                let mut from = *last;
                for _ in 0..DEPTH {
                    if from == NONE || at - from > FURTHEST || at + longest >= image.len() {
                        break;
                    }
                    if image[from + longest] == image[at + longest] {
                        let length = alike(image, from, at);
                        if length > longest {
                            longest = length;
                            found.push(Step {
                                length,
                                distance: at - from,
                            });
                        }
                    }
                    from = before[from];
                }
                before[at] = *last;
                *last = at;
            }
        }
        all.push(found);
    }
    all
}

/// How many bytes at `from` and `at` are the same.
fn alike(image: &[u8], from: usize, at: usize) -> usize {
    let pairs = image[at..].iter().zip(&image[from..]).take(LONGEST);
    pairs.take_while(|(this, that)| this == that).count()
}

/// The steps of least price.
fn cheapest(image: &[u8], copies: &[Vec<Step>], prices: &Prices) -> Vec<Step> {
    /// The best way to a place: its price, its last step, and the distance of its last copy.
    #[derive(Clone, Copy)]
    struct Way {
        price: f32,
        step: Step,
        distance: usize,
    }
    let nowhere = Way {
        price: f32::INFINITY,
        step: Step::default(),
        distance: 0,
    };
    let mut ways = vec![nowhere; image.len() + 1];
    ways[0].price = 0.0;
    for at in 0..image.len() {
        let Way {
            price, distance, ..
        } = ways[at];
        let symbols = &prices.symbols[at % prices.symbols.len()];
        let mut reach = |step: Step, price: f32, distance: usize| {
            let way = &mut ways[at + step.length];
            if price < way.price {
                *way = Way {
                    price,
                    step,
                    distance,
                };
            }
        };
        let single = Step {
            length: 1,
            distance: 0,
        };
        let byte = symbols[usize::from(image[at])] + BYTE_PRICE;
        reach(single, price + byte, distance);
        let mut reach_all = |lengths: core::ops::RangeInclusive<usize>, distance, far: f32| {
            // Of one that is long enough, nothing less is worth a look.
            let (least, most) = lengths.into_inner();
            let least = if most < ENOUGH { least } else { most };
            for length in least..=most {
                let (code, more) = length_code(length);
                let copy = symbols[code] + bits(more) + far + COPY_PRICE;
                reach(Step { length, distance }, price + copy, distance);
            }
        };
        if distance > 0 {
            let length = alike(image, at - distance, at);
            reach_all(SHORTEST..=length, distance, prices.distances[0]);
        }
        let mut shortest = SHORTEST;
        for copy in &copies[at] {
            let (code, more) = distance_code(copy.distance);
            let far = prices.distances[code] + bits(more);
            reach_all(shortest..=copy.length, copy.distance, far);
            shortest = copy.length + 1;
        }
    }
    let mut steps = Vec::new();
    let mut at = image.len();
    while at > 0 {
        steps.push(ways[at].step);
        at -= ways[at].step.length;
    }
    steps.reverse();
    steps
}

/// What each symbol costs, in bits.
struct Prices {
    symbols: Vec<Vec<f32>>,
    distances: Vec<f32>,
}

impl Prices {
    /// Before anything is known of the image.
    fn unknown(places: usize) -> Self {
        Self {
            symbols: vec![vec![8.0; SYMBOLS]; places],
            distances: vec![7.0; DISTANCES],
        }
    }
}

/// The lengths of the codes.
struct Codes {
    symbols: Vec<Vec<u32>>,
    distances: Vec<u32>,
}

/// A symbol, with its place where that matters, and the bits that follow it.
enum Token {
    Symbol(usize, usize),
    Distance(usize),
    Bits(usize, u32),
}

impl Codes {
    /// The best for these steps.
    fn of(image: &[u8], steps: &[Step], places: usize) -> Self {
        let mut symbols = vec![vec![0; SYMBOLS]; places];
        let mut distances = vec![0; DISTANCES];
        tokens(image, steps, places, &mut |token| match token {
            Token::Symbol(place, symbol) => symbols[place][symbol] += 1,
            Token::Distance(symbol) => distances[symbol] += 1,
            Token::Bits(..) => {}
        });
        Self {
            symbols: symbols.iter().map(|uses| lengths(uses)).collect(),
            distances: lengths(&distances),
        }
    }

    fn prices(&self) -> Prices {
        let price = |length: &u32| if *length == 0 { RARE } else { bits(*length) };
        let all = |lengths: &Vec<u32>| lengths.iter().map(price).collect();
        Prices {
            symbols: self.symbols.iter().map(all).collect(),
            distances: all(&self.distances),
        }
    }

    /// The packed bits.
    fn write(&self, image: &[u8], steps: &[Step]) -> Vec<u32> {
        let mut to = Writer::default();
        for length in self.symbols.iter().flatten().chain(&self.distances) {
            to.bits(*length as usize, 4);
        }
        let symbols: Vec<Vec<usize>> = self.symbols.iter().map(|all| codes(all)).collect();
        let distances = codes(&self.distances);
        tokens(image, steps, symbols.len(), &mut |token| match token {
            Token::Symbol(place, symbol) => {
                to.bits(symbols[place][symbol], self.symbols[place][symbol]);
            }
            Token::Distance(symbol) => to.bits(distances[symbol], self.distances[symbol]),
            Token::Bits(value, number) => to.bits(value, number),
        });
        to.finish()
    }
}

/// Shows the steps as they are written.
fn tokens(image: &[u8], steps: &[Step], places: usize, show: &mut dyn FnMut(Token)) {
    let (mut at, mut last) = (0, 0);
    for Step { length, distance } in steps.iter().copied() {
        if length == 1 {
            show(Token::Symbol(at % places, image[at].into()));
        } else {
            let (code, more) = length_code(length);
            show(Token::Symbol(at % places, code));
            show(Token::Bits((length - SHORTEST) % (1 << more), more));
            if distance == last {
                show(Token::Distance(0));
            } else {
                let (code, more) = distance_code(distance);
                show(Token::Distance(code));
                show(Token::Bits((distance >> 2) % (1 << more), more));
            }
            last = distance;
        }
        at += length;
    }
}

/// The lengths of the best codes of at most [`CODE_BITS`] bits for symbols that are used so often, by the package-merge
/// algorithm. Every code is complete: at least two symbols have one.
fn lengths(uses: &[u32]) -> Vec<u32> {
    let mut leaves: Vec<(u32, Vec<usize>)> = (0..)
        .zip(uses)
        .filter(|(_, number)| **number > 0)
        .map(|(at, number)| (*number, vec![at]))
        .collect();
    let others = (0..).zip(uses).filter(|(_, number)| **number == 0);
    let missing = 2_usize.saturating_sub(leaves.len());
    leaves.extend(others.take(missing).map(|(at, _)| (0, vec![at])));
    leaves.sort();
    let mut packages = leaves.clone();
    for _ in 1..CODE_BITS {
        let pairs = packages.chunks_exact(2);
        let mut merged: Vec<_> = pairs
            .map(|pair| (pair[0].0 + pair[1].0, [&*pair[0].1, &*pair[1].1].concat()))
            .collect();
        merged.extend(leaves.iter().cloned());
        merged.sort_by_key(|(uses, _)| *uses);
        packages = merged;
    }
    let mut lengths = vec![0; uses.len()];
    let chosen = packages.iter().take(2 * leaves.len() - 2);
    for symbol in chosen.flat_map(|(_, symbols)| symbols) {
        lengths[*symbol] += 1;
    }
    lengths
}

/// The canonical codes of these lengths, the first bit lowest.
fn codes(lengths: &[u32]) -> Vec<usize> {
    let mut codes = vec![0; lengths.len()];
    let mut code = 0_u32;
    for length in 1..=CODE_BITS {
        for symbol in (0..lengths.len()).filter(|symbol| lengths[*symbol] == length) {
            codes[symbol] = (code.reverse_bits() >> (u32::BITS - length)) as usize;
            code += 1;
        }
        code <<= 1;
    }
    codes
}

fn bits(number: u32) -> f32 {
    f32::from(u8::try_from(number).unwrap_or(u8::MAX))
}

/// Bits, from the lowest up.
#[derive(Default)]
struct Writer {
    words: Vec<u32>,
    buffer: u64,
    count: u32,
}

impl Writer {
    fn bits(&mut self, value: usize, number: u32) {
        self.buffer |= (value as u64) << self.count;
        self.count += number;
        if self.count >= 32 {
            self.words.push(self.lowest());
            self.buffer >>= 32;
            self.count -= 32;
        }
    }

    /// Bits are read in advance.
    fn finish(mut self) -> Vec<u32> {
        self.words.extend([self.lowest(), 0, 0]);
        self.words
    }

    const fn lowest(&self) -> u32 {
        let [low, _] = halves(self.buffer);
        low
    }
}

#[cfg(test)]
mod tests {
    use gnomon_pack::{Header, Tables};

    use super::*;

    /// Numbers that look like chance, and are the same each time.
    struct Noise(u64);

    impl Noise {
        fn below(&mut self, limit: usize) -> usize {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            usize::try_from(self.0 >> 33).expect("31 bits") % limit
        }

        fn byte(&mut self) -> u8 {
            u8::try_from(self.below(256)).expect("a byte")
        }
    }

    fn unpacked<const PLACES: usize>(words: &[u32], length: usize) -> Option<Vec<u8>> {
        let mut to = vec![0xaa; length];
        Tables::<PLACES>::new().unpack(words, &mut to[..], length)?;
        Some(to)
    }

    type Unpack = fn(&[u32], usize) -> Option<Vec<u8>>;

    /// Something of what an image is made of: copies near and far, runs, words that differ in one byte, noise.
    fn image(noise: &mut Noise, length: usize) -> Vec<u8> {
        let mut image = Vec::new();
        while image.len() < length {
            let number = 1 + noise.below(40) * noise.below(40);
            let (what, from) = (noise.below(4), noise.below(image.len() + 1));
            for at in 0..number {
                let byte = match (what, image.get(from + at)) {
                    (0, _) => noise.byte(),
                    (1, Some(byte)) if noise.below(20) != 0 => *byte,
                    (2, _) if at % 4 != 0 => noise.byte() % 4,
                    _ => 0,
                };
                image.push(byte);
            }
        }
        image.truncate(length);
        image
    }

    #[test]
    fn what_was_packed_becomes_the_image_again() {
        let mut noise = Noise(1);
        let mut lengths: Vec<usize> = (0..40).collect();
        lengths.extend((0..30).map(|_| noise.below(5000)));
        lengths.push(400_000);
        for length in lengths {
            let image = image(&mut noise, length);
            let unpackers: [(usize, Unpack); 2] = [(1, unpacked::<1>), (4, unpacked::<4>)];
            for (places, unpack) in unpackers {
                let words = pack(&image, places).words;
                assert!(unpack(&words, length).as_ref() == Some(&image), "{length}");
                // There is nothing more in it, and nothing less.
                assert_eq!(unpack(&words[..words.len() / 2], length.max(100)), None);
            }
        }
    }

    #[test]
    fn one_byte_again_and_again_is_one_copy() {
        let packed = pack(&[7; LONGEST + 1], 1);
        assert_eq!(packed.steps, [1, 1]);
    }

    #[test]
    fn a_bit_that_has_changed_is_seen() {
        let image = image(&mut Noise(2), 3000);
        let packed = pack(&image, 4).words;
        let number = |length: usize| u32::try_from(length).expect("short");
        let header = Header {
            words: number(packed.len()),
            length: number(image.len()),
            place: 0x10_0000,
            entry: 0x40,
        };
        let whole = [&header.to_words(&packed)[..], &packed, &[9, 9, 9]].concat();
        assert_eq!(Header::check(&whole), Some((header, &packed[..])));
        for at in 0..Header::LENGTH + packed.len() {
            for bit in 0..32 {
                let mut damaged = whole.clone();
                damaged[at] ^= 1 << bit;
                assert_eq!(Header::check(&damaged), None, "word {at}, bit {bit}");
            }
        }
        for length in 0..Header::LENGTH + packed.len() {
            assert_eq!(Header::check(&whole[..length]), None, "{length} words");
        }
    }

    #[test]
    fn any_bits_are_unpacked_to_something_or_refused() {
        let mut noise = Noise(3);
        let image = image(&mut noise, 2000);
        let mut refused = 0;
        let packed = [1, 4].map(|places| pack(&image, places).words);
        for round in 0..20_000 {
            let mut words = packed[round % 2].clone();
            for _ in 0..=noise.below(4) {
                let at = noise.below(words.len());
                words[at] ^= 1 << noise.below(32);
            }
            let outcome = match round % 2 {
                0 => unpacked::<1>(&words, image.len()),
                _ => unpacked::<4>(&words, image.len()),
            };
            refused += u32::from(outcome.is_none());
        }
        for _ in 0..2000 {
            let words: Vec<u32> = (0..noise.below(400))
                .map(|_| u32::from_le_bytes([(); 4].map(|()| noise.byte())))
                .collect();
            refused += u32::from(unpacked::<1>(&words, 5000).is_none());
        }
        assert!(refused > 1000, "{refused}");
    }
}
