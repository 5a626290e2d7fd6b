//! [`gnomon_fuzz::ntp`] as libFuzzer starts it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gnomon_fuzz::ntp::run(data));
