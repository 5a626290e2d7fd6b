//! [`gnomon_fuzz::nic`] as libFuzzer starts it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gnomon_fuzz::nic::run(data));
