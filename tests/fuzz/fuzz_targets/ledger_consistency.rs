//! A proof that a log extends an earlier one, tampered with.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::ledgers::consistency(data));
