//! [`gnomon_fuzz::fw_cfg`] as libFuzzer starts it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gnomon_fuzz::fw_cfg::run(data));
