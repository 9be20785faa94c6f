//! How much one sender may ask for: a [`Bucket`] of tokens that refills with time, and the range of
//! addresses that counts as one sender. The crate reads no clock, and refuses to know what a token
//! buys: the tunnel spends them on handshakes, the controller on connections, messages and evidence.

#![forbid(unsafe_code)]

mod bucket;
mod sender;

pub use bucket::Bucket;
pub use sender::{link, network};
