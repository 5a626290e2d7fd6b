//! Counts the guest's instructions, and its bytes, and compares with the record in `tests/instructions.txt`:
//! part of `make bench`, alone `make icount`.
//!
//! `--record` writes the record anew. `--path FILE` writes the addresses of the instructions of one reply, from
//! used ring to kick, to `FILE.x86_64` and `FILE.aarch64`, for `addr2line` and the like. `--profile FILE` writes there
//! which functions have a part in a start, in the order in which they are first entered, and counts nothing else.
#![expect(clippy::print_stdout, reason = "a command talks to its user")]

use core::fmt::Write as _;
use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use gnomon_tests::icount::{Cost, Counted, Kind, Share, Subject};

/// Replies that are counted of each kind, after the first.
const REPLIES: usize = 50;
/// Wake-ups that are counted.
const WAKES: usize = 20;
/// A figure that is greater than the recorded one by more than this many per mille is shown as a regression.
const TOLERANCE: u64 = 20;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let option = |name: &str| arguments.iter().position(|word| word == name);
    let record = option("--record").is_some();
    let path = option("--path").map(|at| PathBuf::from(&arguments[at + 1]));

    if let Some(at) = option("--profile") {
        let file = Path::new(&arguments[at + 1]);
        return [Subject::x86_64, Subject::aarch64]
            .into_iter()
            .for_each(|subject| profile(subject(), file));
    }

    let mut figures = BTreeMap::new();
    measure(Subject::x86_64, path.as_deref(), &mut figures);
    measure(Subject::aarch64, path.as_deref(), &mut figures);
    let recorded = read_record();
    for (name, now) in &figures {
        println!(
            "{name:<60} {now:>8}{}",
            compare(recorded.get(name).copied(), *now)
        );
    }
    if record {
        write_record(&figures);
    }
}

/// Every figure by its name.
type Figures = BTreeMap<String, u64>;

fn measure(subject: fn() -> Subject, path: Option<&Path>, figures: &mut Figures) {
    let Subject { arch, image, .. } = subject();
    let arch = arch.name();
    let bytes = fs::metadata(image).expect("readable").len();
    let mut figure = |name: &str, count| figures.insert(format!("{arch} {name}"), count);
    let (mut guest, first) = Counted::boot(subject());
    let (_, again) = Counted::boot(subject());
    println!("{arch} entry to first right answer: {first}, and again {again}");
    figure("image, bytes", bytes);
    figure("entry to first right answer", first);
    for kind in Kind::ALL {
        let name = kind.name();
        // The first of a kind may find the guest without a stamp to go by.
        let costs = guest.replies(kind, REPLIES + 1).split_off(1);
        let counts = |count: fn(&Cost) -> u64| {
            let counts = costs.iter().map(count);
            let (least, most) = (counts.clone().min(), counts.max());
            (least.expect("some"), most.expect("some"))
        };
        let (least, most) = counts(|cost| cost.to_kick);
        println!("{arch} {REPLIES} replies, {name}, used ring to kick: {least} to {most}");
        figure(&format!("reply, {name}: used ring to kick, at most"), most);
        // The most is that of a reply that finds something else due as well.
        let (least, most) = counts(|cost| cost.in_all);
        println!("{arch} {REPLIES} replies, {name}, sleep to sleep:    {least} to {most}");
        figure(&format!("reply, {name}: sleep to sleep, at least"), least);
        if let Some(path) = path.filter(|_| kind == Kind::Basic) {
            fs::write(path.with_added_extension(arch), guest.path())
                .expect("a file that can be written");
        }
    }
    let wakes = guest.wakes(WAKES);
    let (least, most) = (wakes.iter().min(), wakes.iter().max());
    let [least, most] = [least, most].map(|count| *count.expect("some"));
    println!("{arch} {WAKES} idle wakes: {least} to {most}");
    // The most is that of one in which another clock is asked, and its line drawn anew.
    figure("idle wake, at least", least);
}

fn profile(subject: Subject, file: &Path) {
    let file = file.with_added_extension(subject.arch.name());
    let mut text = String::from("# first entered, own instructions, function\n");
    for Share {
        first,
        instructions,
        name,
    } in Counted::profile(subject)
    {
        writeln!(text, "{first:>9} {instructions:>9}  {name}").expect("memory");
    }
    fs::write(file, text).expect("a file that can be written");
}

/// What to say of a figure beside the recorded one.
fn compare(recorded: Option<u64>, now: u64) -> String {
    match recorded {
        None => "  new".to_owned(),
        Some(recorded) if recorded == now => String::new(),
        Some(recorded) => {
            let is_regression = now > recorded + recorded * TOLERANCE / 1000;
            let word = if is_regression { ", REGRESSION" } else { "" };
            format!("  recorded {recorded}{word}")
        }
    }
}

fn record() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.txt")
}

fn read_record() -> Figures {
    let text = fs::read_to_string(record()).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let (name, count) = line.rsplit_once(' ')?;
            Some((name.trim_end().to_owned(), count.parse().ok()?))
        })
        .collect()
}

fn write_record(figures: &Figures) {
    let mut text = String::from(
        "# Guest instructions, and the images' bytes, counted by `make icount`, which compares; `make icount ARGS=--record` \
         writes this.\n",
    );
    for (name, count) in figures {
        writeln!(text, "{name:<60} {count:>8}").expect("memory");
    }
    fs::write(record(), text).expect("a file that can be written");
}
