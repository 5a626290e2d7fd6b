//! The random pool: everything that goes in counts, and nothing that comes out tells of it.

use core::cell::RefCell;
use std::collections::VecDeque;

use gnomon_kernel::random::generator::{EntropyQueue, Generator, Progress, ROOM};
use gnomon_kernel::random::{Random, Source, Sources};

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
            &[
                Source::Boot,
                Source::VirtioRng,
                Source::Trng,
                Source::Rdrand,
                Source::Rndr,
                Source::Rdseed,
            ],
            "rdseed, rdrand, rndr, trng, virtio-rng, boot entropy",
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
    assert_eq!(shown, "Random { sources: Sources(1, Done), .. }");
}

/// A device that answers what the script says, each answer with how many bytes it claims; `None` is a look in vain.
#[derive(Default)]
struct Script {
    answers: VecDeque<Option<([u8; ROOM], usize)>>,
    is_asked: bool,
    asked: u32,
    looks: u32,
}

#[derive(Clone, Copy)]
struct Queue<'s>(&'s RefCell<Script>);

impl EntropyQueue for Queue<'_> {
    fn ask(&mut self) -> bool {
        let mut script = self.0.borrow_mut();
        let is_free = !script.is_asked;
        script.is_asked = true;
        script.asked += u32::from(is_free);
        is_free
    }
    fn receive(&mut self, bytes: &mut [u8; ROOM]) -> Option<usize> {
        let mut script = self.0.borrow_mut();
        assert!(script.is_asked, "nobody looks for what was not asked for");
        script.looks += 1;
        let (answer, written) = script.answers.pop_front()??;
        script.is_asked = false;
        *bytes = answer;
        Some(written)
    }
}

fn script(answers: &[Option<([u8; ROOM], usize)>]) -> RefCell<Script> {
    RefCell::new(Script {
        answers: answers.iter().copied().collect(),
        ..Script::default()
    })
}

/// What a look brings.
fn poll(generator: &mut Generator<Queue<'_>>) -> (Progress, Vec<u8>) {
    let mut taken = Vec::new();
    let progress = generator.poll(&mut |source, bytes| {
        assert_eq!(source, Source::VirtioRng);
        taken.extend_from_slice(bytes);
    });
    (progress, taken)
}

fn gather(generator: &mut Generator<Queue<'_>>) -> Vec<u8> {
    let mut taken = Vec::new();
    generator.gather(&mut |_, bytes| taken.extend_from_slice(bytes));
    taken
}

const WHOLE: Option<([u8; ROOM], usize)> = Some(([5; ROOM], ROOM));

#[test]
fn a_generator_is_waited_for_at_the_start_only_and_not_for_long() {
    let device = script(&[None, None, WHOLE]);
    let mut generator = Generator::new(Queue(&device));
    assert_eq!(gather(&mut generator), [5; ROOM]);
    assert_eq!(poll(&mut generator), (Progress::Done, vec![]));
    assert_eq!((device.borrow().asked, device.borrow().looks), (1, 3));
    // Another life: asked, and not looked for.
    device.borrow_mut().answers.extend([None, WHOLE]);
    assert!(gather(&mut generator).is_empty());
    assert_eq!((device.borrow().asked, device.borrow().looks), (2, 3));
    assert_eq!(poll(&mut generator), (Progress::Awaited, vec![]));
    assert_eq!(poll(&mut generator), (Progress::Done, vec![5; ROOM]));

    let mute = script(&[]);
    let mut generator = Generator::new(Queue(&mute));
    assert!(gather(&mut generator).is_empty());
    assert!(mute.borrow().looks < 10_000);
    let looks = mute.borrow().looks;
    assert_eq!(poll(&mut generator), (Progress::Awaited, vec![]));
    assert_eq!(mute.borrow().looks, looks + 1);
}

/// What was under way when a life ended may be in a copy of this machine, too.
#[test]
fn an_answer_from_another_life_is_not_taken() {
    let device = script(&[]);
    let mut generator = Generator::new(Queue(&device));
    gather(&mut generator);
    gather(&mut generator);
    assert_eq!(device.borrow().asked, 1, "it has the memory");
    let other = Some(([6; ROOM], ROOM));
    device.borrow_mut().answers.extend([WHOLE, other]);
    assert_eq!(poll(&mut generator), (Progress::Awaited, vec![]));
    assert_eq!(device.borrow().asked, 2);
    assert_eq!(poll(&mut generator), (Progress::Done, vec![6; ROOM]));
    // Half of an answer is from that life, too.
    let half = Some(([1; ROOM], 16));
    gather(&mut generator);
    device.borrow_mut().answers.extend([half]);
    assert_eq!(poll(&mut generator), (Progress::Awaited, vec![]));
    gather(&mut generator);
    device.borrow_mut().answers.extend([half, WHOLE]);
    assert_eq!(poll(&mut generator), (Progress::Awaited, vec![]));
    assert_eq!(poll(&mut generator), (Progress::Done, vec![5; ROOM]));
}

#[test]
fn short_answers_add_up_and_useless_ones_end_the_asking() {
    let byte = |value| Some(([value; ROOM], 1));
    let device = script(&(1..=31).map(byte).collect::<Vec<_>>());
    let mut generator = Generator::new(Queue(&device));
    assert!(gather(&mut generator).is_empty());
    device.borrow_mut().answers.push_back(Some(([32; ROOM], 9)));
    let expected: Vec<u8> = (1..=32).collect();
    assert_eq!(poll(&mut generator), (Progress::Done, expected));
    assert_eq!(device.borrow().asked, 32);

    for useless in [
        ([5; ROOM], 0),
        ([5; ROOM], ROOM + 1),
        ([5; ROOM], usize::MAX),
        ([0; ROOM], ROOM),
    ] {
        let device = script(&[Some(useless)]);
        let mut generator = Generator::new(Queue(&device));
        assert!(gather(&mut generator).is_empty());
        assert_eq!(poll(&mut generator), (Progress::Useless, vec![]));
        assert_eq!(device.borrow().asked, 1, "until there is another life");
        device.borrow_mut().answers.push_back(WHOLE);
        gather(&mut generator);
        assert_eq!(poll(&mut generator), (Progress::Done, vec![5; ROOM]));
    }
}

#[test]
fn what_comes_late_is_mixed_in_and_secrets_that_rest_on_nothing_are_drawn_again() {
    for (given, again) in [(Source::Counter, true), (Source::Rdrand, false)] {
        let mut random = pool(&[(given, b"x")]);
        assert!(!random.catch_up(&mut |_| Progress::Awaited));
        let told = |sources: Sources| sources.to_string();
        assert!(told(random.sources()).ends_with("; virtio-rng has not answered"));
        let before = draw(random.clone());
        let come = |take: gnomon_kernel::random::Take<'_>| {
            take(Source::VirtioRng, b"numbers");
            Progress::Done
        };
        assert_eq!(random.catch_up(&mut |take| come(take)), again);
        assert_ne!(draw(random.clone()), before);
        assert!(told(random.sources()).contains("virtio-rng"));
        assert!(!told(random.sources()).contains(';'));
        // In the next life it is the same again, whatever there was in this one.
        random.renew(&mut |take| take(given, b"y"));
        assert_eq!(random.catch_up(&mut |take| come(take)), again);
    }
    let mut random = pool(&[]);
    assert!(!random.catch_up(&mut |_| Progress::Useless));
    let told = random.sources().to_string();
    assert!(told.ends_with("; virtio-rng gives nothing"), "{told}");
}
