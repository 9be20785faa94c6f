//! Text that somebody pastes as a token.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::tokens::text(data));
