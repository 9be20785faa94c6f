//! Datagrams, good ones among them, that come from inside the mesh.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::tunnels::inside(data));
