//! Runs one target on one file, without a fuzzer: `cargo run --example replay TARGET FILE`.

fn main() {
    let mut words = std::env::args().skip(1);
    let (Some(name), Some(file)) = (words.next(), words.next()) else {
        panic!("usage: replay TARGET FILE");
    };
    let data = std::fs::read(&file).expect("a file");
    let target = gnomon_fuzz::TARGETS.iter().find(|(its, _)| *its == name);
    target.expect("a target").1(&data);
}
