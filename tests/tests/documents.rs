//! Documents are held to what they speak of. `docs/dependencies.md` names every crate of the image, and `deny.toml` what
//! may be depended on: here is what takes a moment, `make deny` has more. `SECURITY.md` names tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use gnomon_tests::process::Process;

/// Name, version, license.
type Crate = (String, String, String);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).expect(path)
}

/// What cargo says of dependencies that are so deep or less: all but our own crates.
fn tree(words: &[&str], deepest: usize) -> BTreeSet<Crate> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root()).args(["tree", "--locked"]);
    cargo.args(["--prefix", "depth", "--format", " {p}|{l}"]);
    let (status, said) = Process::run(cargo.args(words));
    assert!(status.success(), "{said}");
    let row = |line: &str| {
        let (depth, rest) = line.split_once(' ')?;
        let (package, license) = rest.trim_end_matches(" (*)").split_once('|')?;
        let mut words = package.split(' ');
        let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
        let is_other = !name.starts_with("gnomon") && depth.parse::<usize>().ok()? <= deepest;
        is_other.then(|| [name, version, license].map(str::to_owned).into())
    };
    said.lines().filter_map(row).collect()
}

fn of_the_image(edges: &str) -> BTreeSet<Crate> {
    let targets = ["x86_64-unknown-none", "aarch64-unknown-none"];
    let of = |target| {
        tree(
            &["-p", "gnomon", "--target", target, "-e", edges],
            usize::MAX,
        )
    };
    targets.into_iter().flat_map(of).collect()
}

/// The rows of a table, with where each crate is, all of them with a reason.
fn rows(table: &str) -> BTreeMap<Crate, String> {
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, version, license, place, why] = cells[..] else {
            panic!("five cells: {line}")
        };
        assert!(why.len() > 10, "why? {line}");
        (
            [name, version, license].map(str::to_owned).into(),
            place.to_owned(),
        )
    };
    let lines = table.lines().filter(|line| line.starts_with("| "));
    lines.skip(1).map(row).collect()
}

fn tables() -> [BTreeMap<Crate, String>; 2] {
    let text = read("docs/dependencies.md");
    let (image, host) = text.split_once("\n## ").expect("two tables");
    [image, host].map(rows)
}

#[test]
fn the_table_has_every_crate_of_the_image() {
    let [table, _] = tables();
    let found: BTreeSet<Crate> = table.keys().cloned().collect();
    assert_eq!(found, of_the_image("normal,build"));
    let linked = table.into_iter().filter(|(_, place)| place == "image");
    let linked: BTreeSet<Crate> = linked.map(|(row, _)| row).collect();
    assert_eq!(linked, of_the_image("normal,no-proc-macro"));
}

#[test]
fn the_other_table_has_what_the_host_half_names() {
    let [_, table] = tables();
    let direct = ["--target", "all", "--depth", "1", "-e"];
    let of = |words: &[&str]| tree(&[&direct, words].concat(), 1);
    let mut named = of(&["normal", "-p", "gnomon-qemu", "-p", "gnomon-tests"]);
    named.extend(of(&["dev", "--workspace", "--exclude", "gnomon"]));
    assert_eq!(table.into_keys().collect::<BTreeSet<_>>(), named);
}

#[test]
fn licenses_are_those_that_are_allowed() {
    let text = read("deny.toml");
    let (_, list) = text.split_once("\nallow = [").expect("a list");
    let (list, _) = list.split_once(']').expect("its end");
    let allowed: Vec<&str> = list
        .split(',')
        .map(|word| word.trim().trim_matches('"'))
        .collect();
    let host = tree(&["--workspace", "-e", "normal,build,dev"], usize::MAX);
    assert!(host.len() > 50, "{host:?}");
    for (name, _, license) in of_the_image("normal,build").union(&host) {
        let license = license.replace('/', " OR ");
        let is_allowed = |part: &str| {
            let part = part.trim_matches(['(', ')']);
            part.split(" OR ").any(|choice| allowed.contains(&choice))
        };
        assert!(license.split(" AND ").all(is_allowed), "{name}: {license}");
    }
}

#[test]
fn crates_are_there_once_but_for_those_that_deny_toml_names() {
    let text = read("deny.toml");
    let mut versions = BTreeMap::<String, usize>::new();
    for (name, version, _) in of_the_image("normal,build") {
        if !text.contains(&format!("\"{name}@{version}\"")) {
            *versions.entry(name).or_default() += 1;
        }
    }
    versions.retain(|_, count| *count > 1);
    assert_eq!(versions, BTreeMap::new());
}

#[test]
fn every_version_is_pinned_and_from_one_registry() {
    let lock = read("Cargo.lock");
    let sources = lock.lines().filter(|line| line.starts_with("source = "));
    let sources: BTreeSet<&str> = sources.collect();
    assert_eq!(sources.len(), 1, "{sources:?}");
    for manifest in ["kernel", "kernel/clock", "arch", "boot", "qemu", "tests"] {
        let text = read(&format!("{manifest}/Cargo.toml"));
        let (_, rest) = text.split_once("dependencies]").expect("dependencies");
        let lines = rest
            .lines()
            .filter(|line| line.contains(" = ") && !line.starts_with(['#', '[']));
        for line in lines.filter(|line| !line.contains("workspace")) {
            let (_, value) = line.split_once(" = ").expect("a value");
            let version = value.trim_start_matches("{ version = ");
            assert!(version.starts_with("\"="), "{manifest}: {line}");
        }
    }
}

#[test]
fn the_tests_that_security_md_names_exist() {
    let text = read("SECURITY.md");
    let (_, table) = text.split_once("\n| Against ").expect("a table");
    let mut words = table.split('`').skip(1).step_by(2);
    let mut found = 0;
    while let Some(file) = words.find(|word| word.contains(".rs")) {
        let name = words.next().expect("a test");
        assert!(
            read(file).contains(&format!("fn {name}(")),
            "{file}: {name}"
        );
        found += 1;
    }
    assert!(found > 20, "{found}");
}
