//! A controller's engine: any sequence of what connections and operators do.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::engines::sequence(data));
