//! Packets that the kernel hands to the TUN device.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::tunnels::outbound(data));
