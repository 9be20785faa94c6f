//! A result in our own format.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::results::own(data));
