//! A hosts file, with lines of whoever else writes it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::names::hosts_file(data));
