//! [`gnomon_fuzz::start_info`] as libFuzzer starts it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gnomon_fuzz::start_info::run(data));
