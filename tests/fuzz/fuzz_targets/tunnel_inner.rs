//! Inner packets that a hostile member seals.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::tunnels::inner(data));
