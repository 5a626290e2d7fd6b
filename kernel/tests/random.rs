//! The random pool: everything that goes in counts, and nothing that comes out tells of it.

use gnomon_kernel::random::{Random, Source};

fn pool(seeds: &[(Source, &[u8])]) -> Random {
    Random::new(&mut |take| {
        for (source, bytes) in seeds {
            take(*source, bytes);
        }
    })
}

fn draw(mut random: Random) -> [u64; 4] {
    core::array::from_fn(|_| random.secret())
}

#[test]
fn everything_that_is_mixed_in_counts() {
    let seeds: [&[(Source, &[u8])]; 9] = [
        &[],
        &[(Source::Rdseed, b"")],
        &[(Source::Rdseed, b"a")],
        &[(Source::Rdseed, b"b")],
        &[(Source::Rdrand, b"a")],
        &[(Source::Rdseed, b"a"), (Source::Boot, b"b")],
        &[(Source::Boot, b"b"), (Source::Rdseed, b"a")],
        &[(Source::Rdseed, b"ab")],
        &[(Source::Rdseed, &[0; 300])],
    ];
    let drawn = seeds.map(|seeds| draw(pool(seeds)));
    let mut all: Vec<u64> = drawn.iter().flatten().copied().collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 36, "no two are equal");
    assert_eq!(draw(pool(seeds[2])), drawn[2], "and only that counts");
}

/// Two copies of a machine draw the same, until either is told which it is.
#[test]
fn copies_part_when_renewed() {
    let original = pool(&[(Source::Rdrand, &[7; 32])]);
    let (mut one, mut two) = (original.clone(), original.clone());
    assert_eq!(one.secret(), two.secret());
    assert_eq!(one.filler(), two.filler());
    for (copy, life) in [(&mut one, 1_u8), (&mut two, 2)] {
        copy.renew(&mut |take| take(Source::Identity, &[life]));
    }
    assert_ne!(one.filler(), two.filler(), "fillers, too, at once");
    assert_ne!(one.secret(), two.secret());
}

/// The same as another implementation of AES-CMAC has it: the first secret of an empty pool.
#[test]
fn secrets_are_cmac() {
    use aes::Aes256Enc;
    use cmac::{Cmac, KeyInit, Mac};
    let mac = |key: &[u8; 32], message: &[u8]| -> [u8; 16] {
        let mut mac: Cmac<Aes256Enc> = Cmac::new(key.into());
        mac.update(message);
        mac.finalize().into_bytes().into()
    };
    let mut random = pool(&[(Source::Rdseed, b"seed")]);
    let mut key = [0; 32];
    for (label, input) in [(Source::Rdseed as u8, &b"seed"[..]), (255, b""), (255, b"")] {
        let message = |number: u8| [&[number, label], input].concat();
        let blocks = [1, 2, 3, 4, 5, 6, 7, 8, 9].map(|number| mac(&key, &message(number)));
        let [first, second, output @ ..] = blocks;
        key = [first, second].concat().try_into().expect("32 bytes");
        if label == 255 {
            let words = output.as_flattened().as_chunks::<8>().0;
            for word in words.iter().rev() {
                assert_eq!(random.secret(), u64::from_le_bytes(*word));
            }
        }
    }
}

/// Secrets that were drawn before something was mixed in, and not given away, are not given away after it.
#[test]
fn what_is_mixed_in_counts_at_once() {
    let original = pool(&[(Source::Rdrand, &[7; 32])]);
    let mut expected = original.clone();
    let old: Vec<u64> = (0..100).map(|_| expected.secret()).collect();
    let mut renewed = original;
    let first = renewed.secret();
    assert_eq!(first, old[0]);
    renewed.renew(&mut |take| take(Source::Identity, b"1"));
    assert!((0..100).all(|_| !old.contains(&renewed.secret())));
}

#[test]
fn fillers_spread_and_do_not_repeat() {
    const COUNT: u32 = 200_000;
    let mut random = pool(&[(Source::Counter, b"1")]);
    let mut seen = std::collections::HashSet::new();
    let mut ones = [0_u32; 64];
    for _ in 0..COUNT {
        let value = random.filler();
        assert!(seen.insert(value), "{value} again");
        for (bit, ones) in ones.iter_mut().enumerate() {
            *ones += u32::from(value >> bit & 1 != 0);
        }
    }
    // Ten standard deviations: this seed gives the same numbers always.
    let slack = 2240;
    assert!(
        ones.iter().all(|ones| ones.abs_diff(COUNT / 2) < slack),
        "{ones:?}"
    );
}

#[test]
fn sources_are_told() {
    for (seeds, told) in [
        (&[][..], " (weak: no source is fit for secrets)"),
        (
            &[Source::Identity, Source::Counter][..],
            "counter, identity (weak: no source is fit for secrets)",
        ),
        (&[Source::Counter, Source::Boot], "boot entropy, counter"),
        (
            &[Source::Trng, Source::Rdrand, Source::Rndr, Source::Rdseed],
            "rdseed, rdrand, rndr, trng",
        ),
    ] {
        let random = Random::new(&mut |take| {
            for source in seeds {
                take(*source, b"x");
            }
        });
        assert_eq!(random.sources().to_string(), told);
    }
}

#[test]
fn the_key_is_not_printed() {
    let shown = format!("{:?}", pool(&[(Source::Rdseed, b"seed")]));
    assert_eq!(shown, "Random { sources: Sources(1), .. }");
}
