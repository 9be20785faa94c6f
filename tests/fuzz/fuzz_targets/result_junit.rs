//! JUnit XML, or an exit code.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::results::junit(data));
