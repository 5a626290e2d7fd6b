//! [`gnomon_fuzz::vmclock_page`] as libFuzzer starts it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gnomon_fuzz::vmclock_page::run(data));
