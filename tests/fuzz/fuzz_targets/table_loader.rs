//! [`gnomon_fuzz::table_loader`] as libFuzzer starts it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gnomon_fuzz::table_loader::run(data));
