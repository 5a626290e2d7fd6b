//! Random numbers: a pool that everything random on this machine is mixed into, and two ways out of
//! it.
//!
//! The pool is a key of 256 bits under AES-CMAC, a pseudorandom function (NIST SP 800-108): what goes in and what comes out
//! both replace the key by one that does not lead back to it. A bad source does no harm: whoever
//! does not know the key, or any one thing that was mixed into it since, knows nothing of it. Secrets are
//! drawn several at a time, as most of what one costs is the change of keys; each is erased when it is given away,
//! and all that are left when something is mixed in.
//!
//! A source that takes its time ([`generator`]) is not waited for: what it gives is mixed in when it comes, and whoever
//! drew secrets meanwhile that rest on nothing else is told to draw them again ([`Random::catch_up`]).
//!
//! [`secret`](Random::secret) is for what nobody may guess. [`filler`](Random::filler) is for bits that are sent
//! to anybody, and costs a few instructions.

use core::fmt;

use aes::Aes256Enc;
use cmac::{Cmac, KeyInit, Mac};

pub mod generator;

use generator::Progress;

/// Secrets that are drawn at a time: what a start needs, two in each block of the cipher.
const SECRETS: usize = 14;
/// Fillers from one seed.
const FILLERS: u32 = 1 << 16;

/// Where randomness comes from, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `RDSEED`.
    Rdseed,
    /// `RDRAND`.
    Rdrand,
    /// `RNDR` of Arm.
    Rndr,
    /// The random number generator of firmware or hypervisor (Arm DEN 0098).
    Trng,
    /// The entropy device of virtio.
    VirtioRng,
    /// What the loader left: `rng-seed` and `kaslr-seed` of the device tree.
    Boot,
    /// The counter, read while something else was going on: better than nothing, and no more.
    Counter,
    /// Which machine this is: not random, but no two have the same.
    Identity,
}

impl Source {
    const ALL: [(Self, &'static str); 8] = [
        (Self::Rdseed, "rdseed"),
        (Self::Rdrand, "rdrand"),
        (Self::Rndr, "rndr"),
        (Self::Trng, "trng"),
        (Self::VirtioRng, "virtio-rng"),
        (Self::Boot, "boot entropy"),
        (Self::Counter, "counter"),
        (Self::Identity, "identity"),
    ];
}

/// Takes what a source has.
pub type Take<'a> = &'a mut dyn FnMut(Source, &[u8]);

/// The sources that have given something, and what has become of the one that takes its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sources(u32, Progress);

impl fmt::Display for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let given = |(source, _): &&(Source, &str)| self.0 >> *source as u32 & 1 != 0;
        for (at, (_, name)) in Source::ALL.iter().filter(given).enumerate() {
            write!(f, "{}{name}", if at == 0 { "" } else { ", " })?;
        }
        if self.is_weak() {
            f.write_str(" (weak: no source is fit for secrets)")?;
        }
        f.write_str(match self.1 {
            Progress::Done => "",
            Progress::Awaited => "; virtio-rng has not answered",
            Progress::Useless => "; virtio-rng gives nothing",
        })
    }
}

impl Sources {
    /// Whether there was none that a secret can rest on.
    #[must_use]
    pub const fn is_weak(self) -> bool {
        self.0 & !(1 << Source::Counter as u32 | 1 << Source::Identity as u32) == 0
    }
}

/// The pool.
#[derive(Clone)]
pub struct Random {
    key: [u8; 32],
    sources: Sources,
    /// Those since the last renewal began.
    fresh: Sources,
    /// Secrets that nobody has been given yet: as many, from the first on.
    secrets: [u64; SECRETS],
    ready: usize,
    /// State of the generator of fillers, and how many may still be drawn from it.
    state: u64,
    left: u32,
}

impl Random {
    /// A pool filled by `gather`.
    pub fn new(gather: &mut dyn FnMut(Take<'_>)) -> Self {
        let mut random = Self {
            key: [0; 32],
            sources: Sources::default(),
            fresh: Sources::default(),
            secrets: [0; SECRETS],
            ready: 0,
            state: 0,
            left: 0,
        };
        random.renew(gather);
        random
    }

    /// Mixes in whatever `gather` brings, for a new life of the machine. Nothing that was drawn before tells of what
    /// comes after.
    pub fn renew(&mut self, gather: &mut dyn FnMut(Take<'_>)) {
        self.fresh = Sources::default();
        self.mix(gather);
    }

    /// Mixes in more.
    #[inline(never)]
    pub fn mix(&mut self, gather: &mut dyn FnMut(Take<'_>)) {
        gather(&mut |source, bytes| {
            self.sources.0 |= 1 << source as u32;
            self.fresh.0 |= 1 << source as u32;
            self.step(source as u8, bytes, &mut []);
            self.secrets = [0; SECRETS];
            self.ready = 0;
        });
        self.left = 0;
    }

    /// Mixes in what a source brings that takes its time, and which says how far it has come. Returns whether
    /// the secrets of this life are to be drawn again, since they rest on nothing better than the counter.
    pub fn catch_up(&mut self, gather: &mut dyn FnMut(Take<'_>) -> Progress) -> bool {
        let was_weak = self.fresh.is_weak();
        let mut has_come = false;
        let progress = gather(&mut |source, bytes| {
            has_come = true;
            self.mix(&mut |take| take(source, bytes));
        });
        self.sources.1 = progress;
        was_weak && has_come
    }

    /// What has been mixed in so far.
    #[must_use]
    pub const fn sources(&self) -> Sources {
        self.sources
    }

    /// 64 bits that nobody can guess who does not know everything that was mixed in.
    #[inline(never)]
    pub fn secret(&mut self) -> u64 {
        if self.ready == 0 {
            self.draw();
        }
        self.ready -= 1;
        self.secrets.get_mut(self.ready).map_or(0, core::mem::take)
    }

    #[inline(never)]
    fn draw(&mut self) {
        const OUTPUT: u8 = u8::MAX;
        let mut output = [[0; 16]; SECRETS / 2];
        self.step(OUTPUT, &[], &mut output);
        let words = output.map(|block| halves(u128::from_le_bytes(block)));
        for (secret, word) in self.secrets.iter_mut().zip(words.as_flattened()) {
            *secret = *word;
        }
        self.ready = SECRETS;
    }

    /// 64 bits that look random. Whoever sees many of them could tell the next ones, of at most 65,536.
    #[inline]
    pub fn filler(&mut self) -> u64 {
        if self.left == 0 {
            self.left = FILLERS;
            self.state = self.secret();
        }
        self.left -= 1;
        // wyrand: one multiplication, and every 64-bit state is followed by all others.
        self.state = self.state.wrapping_add(0xa076_1d64_78bd_642f);
        let product = u128::from(self.state) * u128::from(self.state ^ 0xe703_7ed1_a0b4_28db);
        let [low, high] = halves(product);
        low ^ high
    }

    /// Replaces the key by one that depends on `input`, and fills `output` with bits that do not tell either key.
    #[inline(never)]
    fn step(&mut self, label: u8, input: &[u8], output: &mut [[u8; 16]]) {
        let mut keyed: Cmac<Aes256Enc> = Cmac::new(&self.key.into());
        let (key, _) = self.key.as_chunks_mut();
        for (number, block) in (1_u8..).zip(key.iter_mut().chain(output)) {
            keyed.update(&[number, label]);
            keyed.update(input);
            *block = keyed.finalize_reset().into_bytes().into();
        }
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Random")
            .field("sources", &self.sources)
            .finish_non_exhaustive()
    }
}

const fn halves(wide: u128) -> [u64; 2] {
    #[expect(clippy::cast_possible_truncation, reason = "the two halves are wanted")]
    let halves = [wide as u64, (wide >> 64) as u64];
    halves
}
