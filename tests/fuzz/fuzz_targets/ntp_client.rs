//! [`gnomon_fuzz::ntp_client`] as libFuzzer starts it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gnomon_fuzz::ntp_client::run(data));
