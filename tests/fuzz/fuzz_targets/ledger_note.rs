//! A signed note, or a verifier key, from anybody.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::ledgers::note(data));
