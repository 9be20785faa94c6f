//! Datagrams from anywhere at a tunnel with a live session.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::tunnels::datagram(data));
