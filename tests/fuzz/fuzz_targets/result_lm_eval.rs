//! A result of the lm-evaluation-harness.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::results::lm_eval(data));
