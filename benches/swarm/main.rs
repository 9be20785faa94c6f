//! A swarm for measuring the control plane: a fleet's nodes, as far as a controller sees them, in one process
//! against a real `meshd --role controller` in another.
//!
//! A node here has real keys, a real QUIC connection from an address of its own range (127.a.b.c), verifies what a
//! node verifies and acknowledges it, submits signed evidence every 60 s, and keeps the end of the controller's log.
//! It has no TUN device, no tunnel and no PSKs, and reports on no peers. Eight nodes share an address and its socket
//! (`--share`), because a socket each would take more memory than the nodes; a controller lets as many unknown keys
//! of one address enrol at a time.
//!
//! The controller and the swarm share the processors of this machine, so that every time includes the work of all
//! nodes. `--dials` bounds how many handshakes the swarm computes at once: the nodes of a fleet have a processor
//! each.
//!
//! | File | Holds |
//! |---|---|
//! | [`args`] | the command line |
//! | [`node`], [`known`], [`progress`] | a node; updates that were verified; how far nodes have come |
//! | [`controller`], [`swarm`] | the process under test; it and its nodes |
//! | [`bare`] | a bare QUIC push of the same bytes |
//! | [`joins`] | `join`, `idle`, `grow` |
//! | [`epochs`] | `rotate`, `evict`, `slow` |
//! | [`storms`] | `kill`, `churn` |
//! | [`report`], [`stats`] | tables and figures, as in the benchmark of the promises |
//!
//! `cargo bench -p benches --bench swarm -- rotate --nodes 1000`. Does nothing unless a scenario is named; with
//! `--test` it does each once, small. The exit code is 1 if a node is left behind. `MESHTEST_BIN_DIR` names a
//! directory with a `meshd` that is to be used instead of building one.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people at a terminal"
)]

mod args;
mod bare;
mod controller;
mod epochs;
mod joins;
mod known;
mod node;
mod progress;
#[path = "../promise/report.rs"]
#[allow(dead_code, reason = "the benchmark of the promises uses all of it")]
mod report;
#[path = "../promise/stats.rs"]
#[allow(dead_code, reason = "the benchmark of the promises uses all of it")]
mod stats;
mod storms;
mod swarm;

use anyhow::Context as _;
use args::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> anyhow::Result<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    more_sockets()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()?;
    if words.first().is_some_and(|word| word == bare::PUSHER) {
        runtime.block_on(bare::pusher())?;
        return Ok(ExitCode::SUCCESS);
    }
    let args = Args::read(words.into_iter())?;
    let named: Vec<String> = if args.is_test {
        SCENARIOS.map(str::to_owned).to_vec()
    } else {
        args.scenarios.clone()
    };
    if named.is_empty() {
        println!("swarm: name a scenario: {}", SCENARIOS.join(", "));
        return Ok(ExitCode::SUCCESS);
    }
    let args = if args.is_test { args.small() } else { args };
    // The controller ends with the scenarios, whatever ends them.
    let result = runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate())?;
        tokio::select! {
            result = measure(&named, &args) => result,
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
            _ = terminated.recv() => anyhow::bail!("terminated"),
        }
    });
    if let Err(error) = result {
        eprintln!("swarm: {error:#}");
        return Ok(ExitCode::FAILURE);
    }
    // Nodes that still run are nobody's concern.
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}

/// The scenarios one after the other, with the nodes of one join.
async fn measure(names: &[String], args: &Args) -> anyhow::Result<()> {
    let unknown = |name: &&String| !SCENARIOS.contains(&name.as_str());
    if let Some(other) = names.iter().find(unknown) {
        let known = SCENARIOS.join(", ");
        anyhow::bail!("no such scenario: {other}; there are {known}");
    }
    let (grow, others): (Vec<_>, Vec<_>) = names.iter().partition(|name| *name == "grow");
    if !others.is_empty() {
        println!("\n## join; load before: {}\n", load());
        let mut joined = joins::joined(args, args.nodes).await?;
        joined.print();
        for name in others.into_iter().filter(|name| *name != "join") {
            println!("\n## {name}; load before: {}\n", load());
            let swarm = &mut joined.swarm;
            let measured = match name.as_str() {
                "idle" => joins::idle(args, swarm).await,
                "rotate" => epochs::rotate(args, swarm).await,
                "evict" => epochs::evict(args, swarm).await,
                "slow" => epochs::slow(args, swarm).await,
                "kill" => storms::kill(args, swarm).await,
                _ => storms::churn(args, swarm).await,
            };
            measured.with_context(|| name.clone())?;
        }
    }
    if !grow.is_empty() {
        println!("\n## grow; load before: {}\n", load());
        joins::grow(args).await.context("grow")?;
    }
    Ok(())
}

/// The average load of the last minute: other work makes every figure worse.
fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().to_owned()
}

/// Sockets are the first thing that a process of many nodes runs out of.
fn more_sockets() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    Ok(setrlimit(Resource::Nofile, all)?)
}

/// In the order in which they can share a join: those that evict come last.
const SCENARIOS: [&str; 8] = [
    "join", "idle", "rotate", "slow", "kill", "churn", "evict", "grow",
];
/// As the controller has.
const THREADS: usize = 2;
