//! Bytes from a node, or from a stranger with a token, to a controller.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::frames::to_controller(data));
