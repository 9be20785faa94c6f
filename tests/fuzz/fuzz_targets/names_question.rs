//! A DNS message, from any program on the host.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::names::question(data));
