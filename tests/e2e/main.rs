//! Real daemons in network namespaces: what an operator would see. One file per kind of trouble.

mod abuse;
mod addresses;
mod benchmarks;
mod capture;
mod clocks;
mod crashes;
mod diagnosis;
mod disk;
mod eviction;
mod flows;
mod identity;
mod interface;
mod log;
mod membership;
mod metrics;
mod mtu;
mod names;
mod nat;
mod offload;
mod operators;
mod partition;
mod process;
mod refusals;
mod revocation;
mod rights;
mod routes;
mod secrets;
mod segments;
mod service;
mod sources;
mod startup;
mod terminal;
mod traffic;
mod truth;
mod underlay;

use std::time::Duration;
use tests::harness::{Builder, Mesh, poll};

/// A command's exit code and what it said on stderr; `None` if it had to be ended after 30 seconds.
fn outcome(mut command: std::process::Command) -> (Option<i32>, String) {
    let log = tempfile::NamedTempFile::new().expect("there is a place for temporary files");
    let stderr = log.reopen().expect("a file can be opened twice");
    let mut child = command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(stderr)
        .spawn()
        .expect("the tests need `ip` (iproute2)");
    let ended = poll(Duration::from_secs(30), || {
        child.try_wait().is_ok_and(|status| status.is_some())
    });
    if !ended {
        let _ = child.kill();
    }
    let status = child.wait().expect("it has ended");
    let said = std::fs::read_to_string(log.path()).unwrap_or_default();
    (status.code().filter(|_| ended), said)
}

/// A whole mesh of one-hour epochs: nothing happens in it but what the test does.
fn quiet_mesh() -> Mesh {
    quiet_mesh_of(3)
}

fn quiet_mesh_of(nodes: usize) -> Mesh {
    quiet(nodes).start()
}

/// The same, to be described further.
fn quiet(nodes: usize) -> Builder {
    let builder = Mesh::builder().nodes(nodes).epoch_seconds(3600);
    builder.controller_setting("max_benchmark_age", 3600)
}
