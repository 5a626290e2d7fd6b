//! Hands the linker script of the bare target to the linker; it stands beside this file.
use std::env::var;

fn main() {
    println!("cargo:rerun-if-changed=x86_64.ld");
    println!("cargo:rerun-if-changed=aarch64.ld");
    if var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let arch = var("CARGO_CFG_TARGET_ARCH").expect("cargo names the architecture");
        let here = var("CARGO_MANIFEST_DIR").expect("cargo names the folder");
        println!("cargo:rustc-link-arg-bins=-T{here}/{arch}.ld");
        println!("cargo:rustc-link-arg-bins=--no-eh-frame-hdr");
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
