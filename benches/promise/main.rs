//! Measures the two promises of a mesh, end to end, with real daemons in network namespaces:
//! rotation that nobody notices, revocation that nobody outruns. README.md says how.
//!
//! | File | Holds |
//! |---|---|
//! | [`revocation`], [`rotation`], [`storm`], [`segments`] | the measurements |
//! | [`lab`] | meshes of any size, the admin socket, what the daemons log, the machine |
//! | [`stamps`] | sockets that say when the kernel received something; handshakes on the underlay |
//! | [`flood`] | senders |
//! | [`flooder`] | a member that floods its controller; the hostile tests run the same one |
//! | [`stats`], [`report`], [`picture`] | figures, tables and pictures |
//!
//! Does nothing unless a measurement is named, so that a plain `cargo bench` needs no root.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people at a terminal"
)]

mod flood;
#[path = "../../tests/hostile/flooder.rs"]
mod flooder;
mod lab;
mod picture;
mod report;
mod revocation;
mod rotation;
mod segments;
mod stamps;
mod stats;
mod storm;

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let named: Vec<&Measurement> = MEASUREMENTS
        .iter()
        .filter(|(name, _)| words.iter().any(|word| word == name))
        .collect();
    if named.is_empty() {
        println!(
            "promise: name a measurement: revocation, rotation, storm, segments (benches/promise/README.md)"
        );
        return ExitCode::SUCCESS;
    }
    tests::harness::enter();
    let mut fine = true;
    for (_, measure) in named {
        fine &= measure();
    }
    if fine {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// A name and what it stands for, which returns whether all of it could be measured, and what must hold held.
type Measurement = (&'static str, fn() -> bool);

const MEASUREMENTS: [Measurement; 4] = [
    ("revocation", revocation::measure),
    ("rotation", rotation::measure),
    ("storm", storm::measure),
    ("segments", segments::measure),
];
