//! Packets out of and into a segment with rules.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::gates::packets(data));
