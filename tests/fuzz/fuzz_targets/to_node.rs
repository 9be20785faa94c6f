//! Bytes from a controller to a node.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::frames::to_node(data));
