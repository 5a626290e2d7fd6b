//! Hands the linker script of the bare target to the linker; it stands beside this file.
use std::env::var;
use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=x86_64.ld");
    println!("cargo:rerun-if-changed=aarch64.ld");
    if var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let arch = var("CARGO_CFG_TARGET_ARCH").expect("cargo names the architecture");
        let here = var("CARGO_MANIFEST_DIR").expect("cargo names the folder");
        println!("cargo:rustc-link-arg-bins=-T{here}/{arch}.ld");
        println!("cargo:rustc-link-arg-bins=--no-eh-frame-hdr");
        // Which function is where, for `make build` to put beside the image and tests to look at.
        let profile = Path::new(&var("OUT_DIR").expect("cargo names the folder"))
            .ancestors()
            .nth(3)
            .expect("target/ARCH/PROFILE/build/PACKAGE/out")
            .join("gnomon.map");
        println!("cargo:rustc-link-arg-bins=-Map={}", profile.display());
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
}
