//! [`gnomon_fuzz::http_request`] as libFuzzer starts it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gnomon_fuzz::http_request::run(data));
