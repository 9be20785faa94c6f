//! A proof that an entry is in a log, tampered with.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::ledgers::inclusion(data));
