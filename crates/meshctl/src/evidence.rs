//! `meshctl evidence`: wraps a benchmark's result in a signed envelope, in an evaluator's name.

use crate::answer::Answer;
use crate::failure::Failure;
use crate::files;
use clap::Subcommand;
use keys::{EvaluatorSecret, MeshId, NodeId};
use std::path::{Path, PathBuf};
use wire::Digest;
use wire::evidence::{Benchmark, MAX_ENVELOPE_LEN};
use wire::name::NodeName;

/// A verb of `meshctl evidence`.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Sign a result and print the envelope.
    Sign {
        /// The evaluator's key file, as `meshctl key generate evaluator` makes it.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The node that was measured, as `node:` and hex.
        #[arg(long, value_name = "NODE")]
        node: NodeId,
        /// The node's name.
        #[arg(long)]
        name: NodeName,
        /// The mesh that it is for, as `mesh:` and hex; `meshctl status` shows it.
        #[arg(long, value_name = "MESH")]
        mesh: MeshId,
        /// The update that it answers to: the `update` of the epoch in force, as `sha256:` and hex. Proves
        /// that it was not signed in advance; must be of one of the last 256 epochs.
        #[arg(long, value_name = "DIGEST")]
        challenge: Option<Digest>,
        /// The benchmark's result as JSON; `-` reads stdin.
        result: PathBuf,
    },
}

/// Runs the command.
pub(crate) fn run(verb: &Verb, answer: &Answer) -> Result<(), Failure> {
    let Verb::Sign {
        key,
        node,
        name,
        mesh,
        challenge,
        result,
    } = verb;
    let run = read_result(result)?;
    let evaluator = read_key(key, answer)?;
    let envelope = run
        .bound_to(*mesh, *challenge)
        .attest_as(name.as_str(), node, &evaluator)
        .map_err(|error| not_a_result(result, &error))?;
    answer.text(&String::from_utf8_lossy(&envelope))
}

fn read_result(path: &Path) -> Result<Benchmark, Failure> {
    let bytes = files::read_limited(path, MAX_ENVELOPE_LEN)?;
    serde_json::from_slice(&bytes).map_err(|error| not_a_result(path, &error))
}

fn read_key(path: &Path, answer: &Answer) -> Result<EvaluatorSecret, Failure> {
    let line = files::read_secret(path, answer)?;
    EvaluatorSecret::from_base64(line.trim()).map_err(|_| {
        Failure::broken(
            format!("{} holds no evaluator key", path.display()),
            "`meshctl key generate evaluator --output FILE` makes one",
        )
    })
}

fn not_a_result(path: &Path, error: &dyn std::error::Error) -> Failure {
    Failure::broken(
        format!("{} is no benchmark result: {error}", path.display()),
        "it needs harness, suite, suiteVersion, overall, samplesTotal, samplesCompleted, startedAt, finishedAt and nonce",
    )
}
