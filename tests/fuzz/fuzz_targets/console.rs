//! [`gnomon_fuzz::console`] as libFuzzer starts it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gnomon_fuzz::console::run(data));
