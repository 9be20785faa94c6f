//! A token's body behind a good checksum.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::tokens::body(data));
