//! A text that the log signs.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::ledgers::checkpoint(data));
