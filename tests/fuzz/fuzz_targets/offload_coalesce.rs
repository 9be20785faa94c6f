//! Packets from peers that may be merged for the TUN device.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::offloads::coalesce(data));
