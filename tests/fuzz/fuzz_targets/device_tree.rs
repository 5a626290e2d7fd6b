//! [`gnomon_fuzz::device_tree`] as libFuzzer starts it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gnomon_fuzz::device_tree::run(data));
