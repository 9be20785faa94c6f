//! The header in an archive of Inspect.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::results::inspect_header(data));
