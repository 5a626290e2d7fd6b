//! Writes the seeds anew: `cargo run --example seeds`.

fn main() -> std::io::Result<()> {
    gnomon_fuzz::seeds::write(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus"))
}
