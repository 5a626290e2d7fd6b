//! The instructions that the bare targets get: what the memory model asks for in the source is there
//! in the machine code, and nothing dearer.
#![cfg(not(miri))]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Offsets of every word of the page.
const WORDS: [u64; 14] = [
    0x00, 0x08, 0x10, 0x18, 0x20, 0x28, 0x30, 0x38, 0x40, 0x48, 0x50, 0x58, 0x60, 0x68,
];
/// Of that with `seq_count`, which the copy takes along.
const COUNT: u64 = 0x08;

/// The instructions of the probe's functions on `target`.
fn assembly(target: &str) -> String {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(target);
    fs::create_dir_all(&out).expect("a directory to build in");
    let library = out.join("libgnomon_clock.rlib");
    let listing = out.join("probe.s");
    let compile = |source: PathBuf, arguments: &[&str], result: &Path| {
        let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or("rustc".into()));
        rustc.args([
            "--edition=2024",
            "--crate-type=rlib",
            "-Copt-level=3",
            "--target",
            target,
        ]);
        rustc.args(arguments).arg("-o").arg(result).arg(source);
        let output = rustc.output().expect("rustc starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
    };
    compile(
        here.join("src/lib.rs"),
        &["--crate-name=gnomon_clock"],
        &library,
    );
    let external = format!("gnomon_clock={}", library.display());
    let probe = here.join("tests/codegen/probe.rs");
    compile(probe, &["--extern", &external, "--emit=asm"], &listing);
    fs::read_to_string(listing).expect("a listing")
}

/// One function: its instructions, without labels, directives and comments.
fn function<'a>(assembly: &'a str, name: &str) -> Vec<&'a str> {
    let label = format!("{name}:");
    let lines = assembly.lines().skip_while(|line| *line != label).skip(1);
    let body = lines.take_while(|line| !line.starts_with(".Lfunc_end"));
    let instructions: Vec<_> = body
        .map(str::trim)
        .filter(|line| {
            !line.is_empty() && !line.starts_with(['.', '#', '/']) && !line.ends_with(':')
        })
        .collect();
    assert!(!instructions.is_empty(), "no {name} in {assembly}");
    instructions
}

/// The offset from the register `base` that an instruction addresses.
fn offset(instruction: &str, base: &str) -> Option<u64> {
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    };
    if let Some(before) = instruction.split(&format!("(%{base})")).next()
        && before.len() < instruction.len()
    {
        let digits = before.rsplit([' ', '\t', ',']).next()?;
        return if digits.is_empty() {
            Some(0)
        } else {
            number(digits)
        };
    }
    let address = instruction.split_once(&format!("[{base}"))?.1;
    let inside = address.split_once(']')?.0;
    match inside.strip_prefix(", #") {
        Some(digits) => number(digits),
        None => inside.is_empty().then_some(0),
    }
}

fn position(instructions: &[&str], wanted: &str) -> usize {
    let mut found = instructions
        .iter()
        .enumerate()
        .filter(|(_, line)| words(line) == wanted);
    let (index, _) = found
        .next()
        .unwrap_or_else(|| panic!("no {wanted} in {instructions:#?}"));
    assert!(
        found.next().is_none(),
        "{wanted} twice in {instructions:#?}"
    );
    index
}

/// Tabs and spaces are alike.
fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Where the page is loaded: `seq_count` first and last, and every word between.
struct Loads {
    first: usize,
    body: Vec<usize>,
    second: usize,
}

impl Loads {
    /// Of instructions that have the page in register `base`: every word exactly once between the
    /// two, and nothing else of it.
    fn of(instructions: &[&str], base: &str) -> Self {
        let mut all: Vec<_> = instructions
            .iter()
            .enumerate()
            .filter_map(|(index, line)| Some((index, offset(line, base)?)))
            .collect();
        let second = all.pop().expect("loads");
        let first = all.remove(0);
        assert_eq!((first.1, second.1), (COUNT, COUNT), "{instructions:#?}");
        let mut offsets: Vec<_> = all.iter().map(|(_, at)| *at).collect();
        offsets.sort_unstable();
        assert_eq!(offsets, WORDS, "{instructions:#?}");
        Self {
            first: first.0,
            body: all.into_iter().map(|(index, _)| index).collect(),
            second: second.0,
        }
    }
}

/// The last of the loads of a reading that finds the page as it was: every word once, behind the counter.
fn last_comparison(instructions: &[&str], counter: usize, registers: &[String]) -> usize {
    let loads = |base: &String| -> Option<usize> {
        let behind = instructions.iter().enumerate().skip(counter);
        let found = behind.filter_map(|(index, line)| Some((index, offset(line, base)?)));
        let (at, mut offsets): (Vec<_>, Vec<_>) = found.take(WORDS.len()).unzip();
        offsets.sort_unstable();
        (offsets == WORDS).then(|| at.into_iter().max())?
    };
    let last = registers.iter().find_map(loads);
    last.unwrap_or_else(|| panic!("not every word behind the counter: {instructions:#?}"))
}

#[test]
fn a_reading_by_the_same_page_is_a_counter_comparisons_and_two_products() {
    let names = "rax rbx rcx rdx rsi rdi rbp r8 r9 r10 r11 r12 r13 r14 r15";
    let x86 = names.split(' ').map(str::to_owned).collect();
    let arm = (0..31).map(|number| format!("x{number}")).collect();
    let targets: [(_, _, _, Vec<String>); 2] = [
        ("x86_64-unknown-none", "rdtsc", "lfence", x86),
        ("aarch64-unknown-none", "CNTVCT_EL0", "isb", arm),
    ];
    for (target, read, fence, registers) in targets {
        let assembly = assembly(target);
        let now = function(&assembly, "probe_now");
        let counter = now.iter().position(|line| line.contains(read));
        let counter = counter.expect("a counter");
        let around = [counter - 1, counter + 1].map(|i| words(now[i]));
        assert_eq!(around, [fence, fence]);
        let last = last_comparison(&now, counter, &registers);
        let dear = [
            "call", "bl ", "blr ", "div", "udiv", "lock", "mfence", "ldar",
        ];
        for line in &now[counter..last] {
            let is_dear = dear.iter().any(|word| words(line).starts_with(word));
            assert!(!is_dear, "{target}: {line}");
        }
    }
}

#[test]
fn x86_loads_are_plain_and_the_counter_is_fenced_after_them() {
    let assembly = assembly("x86_64-unknown-none");
    let snapshot = function(&assembly, "probe_snapshot");
    let load = snapshot
        .iter()
        .find(|line| words(line).starts_with("movq 8(%"))
        .expect("a load of seq_count");
    let base = load
        .split_once("(%")
        .and_then(|(_, rest)| rest.split_once(')'));
    let loads = Loads::of(&snapshot, base.expect("a register").0);
    let rdtsc = position(&snapshot, "rdtsc");
    assert_eq!(
        (snapshot[rdtsc - 1], snapshot[rdtsc + 1]),
        ("lfence", "lfence")
    );
    assert!(
        loads
            .body
            .iter()
            .all(|load| loads.first < *load && *load < rdtsc - 1),
        "{snapshot:#?}"
    );
    assert!(loads.second > rdtsc + 1, "{snapshot:#?}");
    for name in ["probe_snapshot", "probe_stamp", "probe_publish"] {
        // Total store order needs no fence instruction for acquire and release.
        for line in function(&assembly, name) {
            let dear = ["lock", "mfence", "sfence", "xchg", "cmpxchg"];
            assert!(
                !dear.iter().any(|word| line.starts_with(word)),
                "{name}: {line}"
            );
        }
    }
    let stamp = function(&assembly, "probe_stamp");
    let rdtsc = position(&stamp, "rdtsc");
    assert_eq!((stamp[rdtsc - 1], stamp[rdtsc + 1]), ("lfence", "lfence"));
    let marker = stamp
        .iter()
        .rposition(|line| line.contains("16(%rdi)"))
        .expect("a marker");
    assert!(marker < rdtsc - 1, "{stamp:#?}");
}

#[test]
fn arm_loads_are_plain_and_stand_between_two_load_barriers() {
    let assembly = assembly("aarch64-unknown-none");
    let snapshot = function(&assembly, "probe_snapshot");
    let load = snapshot
        .iter()
        .find(|line| words(line).starts_with("ldr ") && line.contains(", #8]"))
        .expect("a load of seq_count");
    let base = load
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(','));
    let loads = Loads::of(&snapshot, base.expect("a register").0);
    let barriers: Vec<_> = (0..snapshot.len())
        .filter(|i| words(snapshot[*i]).starts_with("dmb"))
        .collect();
    let [acquire, last] = barriers[..] else {
        panic!("not two barriers in {snapshot:#?}");
    };
    assert_eq!(words(snapshot[acquire]), "dmb ishld");
    assert_eq!(words(snapshot[last]), "dmb ishld");
    let counter = snapshot
        .iter()
        .position(|line| line.contains("CNTVCT_EL0"))
        .expect("a counter");
    let around = [counter - 2, counter - 1, counter + 1].map(|i| words(snapshot[i]));
    assert_eq!(around, ["dsb ishld", "isb", "isb"]);
    assert!(loads.first < acquire, "{snapshot:#?}");
    assert!(
        loads
            .body
            .iter()
            .all(|load| acquire < *load && *load < counter - 2),
        "{snapshot:#?}"
    );
    assert!(counter + 1 < last && last < loads.second, "{snapshot:#?}");
    for line in &snapshot {
        let dear = ["ldar", "ldapr", "ldaxr", "dmb ish ", "dmb sy"];
        assert!(
            !dear.iter().any(|word| words(line).starts_with(word)),
            "{line}"
        );
    }
    // The writer's two fences order stores after stores, which no load barrier does.
    let publish = function(&assembly, "probe_publish");
    let barriers: Vec<_> = publish
        .iter()
        .map(|line| words(line))
        .filter(|line| line.starts_with("dmb"))
        .collect();
    assert_eq!(barriers, ["dmb ish", "dmb ish"], "{publish:#?}");
}
