//! What a node, or a stranger with a token, sends to a controller.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::frames::to_controller(data));
