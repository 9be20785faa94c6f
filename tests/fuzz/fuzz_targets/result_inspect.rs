//! A log of Inspect, JSON or an archive.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::results::inspect(data));
