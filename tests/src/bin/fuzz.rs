//! Runs every fuzzing target for so many seconds, as many at a time as there are processors, and tells in a table what
//! came of them: `make fuzz`. What a target has learned stays in `build/fuzz/corpus`, what makes it fail in
//! `build/fuzz/crashes`.
#![expect(clippy::print_stdout, reason = "a command talks to its user")]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::{env, fs, io, thread};

/// Seconds that one input may take before it counts as a hang, on a busy machine too.
const HANG: u32 = 60;
/// Megabytes that a target may use: none remembers anything from input to input.
const MEMORY: u32 = 1024;
/// Lines that are shown of what a target said when it failed.
const SHOWN: usize = 40;

/// What came of a target.
#[derive(Default)]
struct Outcome {
    target: String,
    executions: u64,
    /// Edges of the program that were taken.
    coverage: u64,
    /// Inputs kept, each of which takes another way through it.
    inputs: u64,
    /// What it said, if it failed.
    failure: Option<String>,
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("fuzz: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether no target failed.
fn run() -> io::Result<bool> {
    let usage = || io::Error::other("usage: fuzz DIRECTORY SECONDS [TARGET...]");
    let mut words = env::args().skip(1);
    let triple = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let directory = words.next().ok_or_else(usage)?;
    let programs = Path::new(&directory).join(triple).join("release");
    let seconds = words.next().and_then(|word| word.parse().ok());
    let seconds: u32 = seconds.ok_or_else(usage)?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut targets: Vec<String> = words.collect();
    if targets.is_empty() {
        for program in fs::read_dir(root.join("fuzz/fuzz_targets"))? {
            let name = program?.path().with_extension("");
            targets.extend(
                name.file_name()
                    .map(|name| name.to_string_lossy().into_owned()),
            );
        }
        targets.sort_unstable_by(|one, other| other.cmp(one));
    }
    let left = Mutex::new(targets);
    let outcomes = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let next = || left.lock().expect("nobody panics with it").pop();
                while let Some(target) = next() {
                    let outcome = fuzz(&programs.join(&target), root, &target, seconds);
                    outcomes
                        .lock()
                        .expect("nobody panics with it")
                        .push(outcome);
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().expect("nobody panics with it");
    let mut outcomes: Vec<Outcome> = outcomes.into_iter().collect::<io::Result<_>>()?;
    outcomes.sort_unstable_by(|one, other| one.target.cmp(&other.target));
    Ok(tell(&outcomes))
}

/// Runs a target, which begins with the committed inputs and with what it has learned in earlier runs.
fn fuzz(program: &Path, root: &Path, target: &str, seconds: u32) -> io::Result<Outcome> {
    let folder = |name: &str| -> io::Result<PathBuf> {
        let path = root.join("../build/fuzz").join(name).join(target);
        fs::create_dir_all(&path)?;
        Ok(path)
    };
    let (learned, crashes) = (folder("corpus")?, folder("crashes")?);
    let output = Command::new(program)
        .arg(&learned)
        .arg(root.join("fuzz/corpus").join(target))
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={HANG}"))
        .arg(format!("-rss_limit_mb={MEMORY}"))
        .arg(format!("-artifact_prefix={}/", crashes.display()))
        .args(["-print_final_stats=1", "-max_len=16384"])
        .output()
        .map_err(|error| io::Error::other(format!("{}: {error}", program.display())))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let number = |line: &str, before: &str| {
        let rest = line.split_once(before)?.1.trim_start();
        rest.split([' ', '/']).next()?.parse().ok()
    };
    let last = |before: &str| said.lines().rev().find_map(|line| number(line, before));
    Ok(Outcome {
        target: target.to_owned(),
        executions: last("stat::number_of_executed_units:").unwrap_or(0),
        coverage: last(" cov: ").unwrap_or(0),
        inputs: last(" corp: ").unwrap_or(0),
        failure: (!output.status.success()).then(|| said.into_owned()),
    })
}

/// Prints the table, and what failed after it. Returns whether nothing did.
fn tell(outcomes: &[Outcome]) -> bool {
    println!(
        "{:<14}  {:>11}  {:>8}  {:>6}  crashes",
        "target", "executions", "coverage", "inputs"
    );
    for Outcome {
        target,
        executions,
        coverage,
        inputs,
        failure,
    } in outcomes
    {
        let crashes = u8::from(failure.is_some());
        println!("{target:<14}  {executions:>11}  {coverage:>8}  {inputs:>6}  {crashes}");
    }
    let executions: u64 = outcomes.iter().map(|outcome| outcome.executions).sum();
    let failed = || outcomes.iter().filter(|outcome| outcome.failure.is_some());
    println!(
        "{:<14}  {executions:>11}  {:>8}  {:>6}  {}",
        "all",
        "",
        "",
        failed().count()
    );
    for outcome in failed() {
        let said = outcome.failure.as_deref().unwrap_or_default();
        // Where it panicked first, and at the end the input: its file, and its bytes.
        let mut lines: Vec<&str> = said.lines().collect();
        let start = lines
            .iter()
            .position(|line| line.contains("panicked at"))
            .unwrap_or(0);
        lines.drain(..start);
        println!("\n{} failed:", outcome.target);
        lines
            .iter()
            .take(SHOWN)
            .for_each(|line| println!("  {line}"));
        let input =
            |line: &&&str| line.contains("Test unit written to") || line.starts_with("Base64");
        lines
            .iter()
            .skip(SHOWN)
            .filter(input)
            .for_each(|line| println!("  {line}"));
    }
    failed().next().is_none()
}
