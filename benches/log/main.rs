//! Measures the event log: how much evidence a controller puts on record in a second, how long a log of a million
//! events takes to open, and how much it grows.
//!
//! | File | Holds |
//! |---|---|
//! | [`ingest`], [`nodes`], [`daemon`] | evidence over real connections to a real `meshd`; its nodes; the process |
//! | [`opening`] | a log of a million events, opened and pruned |
//! | [`mesh`] | a mesh's state directory, made without a daemon; evidence of the usual size |
//! | [`sqlite`] | the same rows in SQLite alone |
//! | [`report`], [`stats`] | tables and figures, as in the benchmark of the promises |
//!
//! `cargo bench -p benches --bench log -- ingest opening`. Does nothing unless a measurement is named; with `--test`
//! it does each once, small. `ROUNDS` says how often each figure is taken, `SECONDS` for how long, and `NODES` and
//! `RATE` (a second) how many submit how much.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people at a terminal"
)]

mod daemon;
mod ingest;
mod mesh;
mod nodes;
mod opening;
#[path = "../promise/report.rs"]
#[allow(dead_code, reason = "the benchmark of the promises uses all of it")]
mod report;
mod sqlite;
#[path = "../promise/stats.rs"]
#[allow(dead_code, reason = "the benchmark of the promises uses all of it")]
mod stats;

use std::process::ExitCode;
use std::str::FromStr;

fn main() -> anyhow::Result<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let is_test = words.iter().any(|word| word == "--test");
    let named = |name: &str| is_test || words.iter().any(|word| word == name);
    if !named("ingest") && !named("opening") {
        println!("log: name a measurement: ingest, opening");
        return Ok(ExitCode::SUCCESS);
    }
    if named("ingest") {
        ingest::measure(is_test)?;
    }
    if named("opening") {
        opening::measure(is_test)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A setting of the environment.
fn setting<T: FromStr>(name: &str, default: T) -> T {
    let given = std::env::var(name).ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The average load of the last minute: other work makes every figure worse.
fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().to_owned()
}
