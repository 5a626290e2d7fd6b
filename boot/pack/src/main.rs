//! `gnomon-pack UNPACKER IMAGE PACKED`: writes the packed form of an image, as `make build` does.
#![expect(clippy::print_stdout, reason = "a command talks to its user")]

mod encode;
mod image;

use core::error::Error;
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let [unpacker, image, to] = &arguments[..] else {
        return Err("usage: gnomon-pack UNPACKER IMAGE PACKED".into());
    };
    let image = fs::read(image)?;
    let packed = image::packed(&fs::read(unpacker)?, &image)?;
    let [single, copies] = packed.steps;
    println!(
        "{}: {} bytes of {}, as {single} single bytes and {copies} copies",
        to.display(),
        packed.file.len(),
        image.len()
    );
    fs::write(to, packed.file)?;
    Ok(())
}
