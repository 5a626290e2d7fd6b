//! [`gnomon_fuzz::command_line`] as libFuzzer starts it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gnomon_fuzz::command_line::run(data));
