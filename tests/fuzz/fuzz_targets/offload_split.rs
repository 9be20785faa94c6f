//! Super-packets that the kernel hands to the TUN device, with their headers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::offloads::split(data));
