//! [`gnomon_fuzz::aml`] as libFuzzer starts it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gnomon_fuzz::aml::run(data));
