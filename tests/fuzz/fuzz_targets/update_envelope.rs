//! A signed update as a stranger would forge it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::updates::envelope(data));
