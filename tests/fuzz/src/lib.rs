//! Properties that must hold for any bytes, one function per fuzz target.
//!
//! The functions panic when a property breaks; `fuzz_targets/` hands them libFuzzer's inputs. They
//! live in a library so that the committed seeds run through them in a plain `cargo test` too. The programs around
//! them need libFuzzer, a feature of this crate: the sanitizers never reach the product's build, which has a folder of
//! its own under `target/`.
//! Refuses anything that differs from run to run: keys are constants, there is no clock.
//!
//! | Module | Bytes from |
//! |---|---|
//! | [`frames`] | the control channel, either direction |
//! | [`updates`] | an epoch update, before and behind its signature |
//! | [`evidence`] | a DSSE envelope, before and behind its signature |
//! | [`results`] | a harness, in each format that is read |
//! | [`ledgers`] | a log: notes, checkpoints, and proofs that were tampered with |
//! | [`tokens`] | an enrolment token, before and behind its checksum |
//! | [`names`](mod@names) | a host that asks for a name, and whoever writes its hosts file |
//! | [`engines`] | connections and operators, as a controller's engine sees them |
//! | [`gates`] | a host and its peer, in a segment with rules |
//! | [`offloads`] | the kernel, in super-packets, and peers, to be merged into some |
//! | [`tunnels`] | strangers on UDP, a peer behind its seal, the TUN device |
//! | [`seeds`] | the corpus that every run starts from |
//!
//! To add a target: a function `fn(&[u8])` in a module here, three
//! lines in `fuzz_targets/`, a `[[bin]]` in `Cargo.toml`, a row with a few seeds in [`seeds::all`]
//! and in `seeds/`, by `cargo run --example seeds`.

#![forbid(unsafe_code)]

#[path = "../../../crates/tunnel/tests/carry/mod.rs"]
mod carry;
pub mod engines;
pub mod evidence;
pub mod fixed;
pub mod frames;
pub mod gates;
pub mod ledgers;
pub mod names;
pub mod offloads;
pub mod results;
pub mod seeds;
pub mod tokens;
pub mod tunnels;
pub mod updates;
