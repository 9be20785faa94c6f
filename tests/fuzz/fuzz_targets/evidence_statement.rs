//! A statement behind a good signature: what the parser and the rules make of it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::evidence::statement(data));
