//! Hands the linker scripts of the bare target to the linker; they stand beside this file.
use std::env::var;
use std::path::Path;

fn main() {
    if var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    let arch = var("CARGO_CFG_TARGET_ARCH").expect("cargo names the architecture");
    let here = var("CARGO_MANIFEST_DIR").expect("cargo names the folder");
    let out = var("OUT_DIR").expect("cargo names the folder");
    let profile = Path::new(&out).ancestors().nth(3);
    let profile = profile.expect("target/ARCH/PROFILE/build/PACKAGE/out");
    for (bin, script) in [
        ("gnomon", format!("{arch}.ld")),
        ("unpacker", format!("unpacker-{arch}.ld")),
    ] {
        println!("cargo:rerun-if-changed={script}");
        println!("cargo:rustc-link-arg-bin={bin}=-T{here}/{script}");
        // Which function is where, for `make build` to put beside the image and tests to look at.
        let map = profile.join(bin).with_extension("map");
        println!("cargo:rustc-link-arg-bin={bin}=-Map={}", map.display());
    }
    println!("cargo:rustc-link-arg-bins=--no-eh-frame-hdr");
    if arch == "x86_64" {
        // Loaders copy segments to their addresses: they need not be at multiples of a page in the file, too.
        println!("cargo:rustc-link-arg-bins=--nmagic");
    }
    if arch == "aarch64" {
        // The loader chooses where the image goes; the entry code applies these relocations. The
        // compiler's own libraries have some in constants (-z notext): they are still writable then.
        for argument in [
            "-pie",
            "--no-dynamic-linker",
            "-znotext",
            "--pack-dyn-relocs=relr",
        ] {
            println!("cargo:rustc-link-arg-bins={argument}");
        }
    }
}
