//! `meshctl evidence`: turns the results of harnesses into evidence, signs it in an evaluator's name, and brings
//! it to the controller.
//!
//! | File | Holds |
//! |---|---|
//! | [`results`] | files, to runs |
//! | [`submit`] | the way to the controller |

mod results;
mod submit;

use crate::answer::Answer;
use crate::client::Client;
use crate::failure::Failure;
use crate::files;
use clap::{Args, Subcommand};
use harness::Format;
use keys::{EvaluatorSecret, MeshId, NodeId};
use std::path::{Path, PathBuf};
use wire::Digest;
use wire::evidence::Benchmark;
use wire::name::NodeName;

/// A verb of `meshctl evidence`.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Print what results of a harness say, sign it, and hand it in.
    From(From),
    /// Hand in an envelope that somebody has signed.
    Submit {
        /// The node that was measured; by default the one that the envelope names.
        #[arg(long, value_name = "NAME")]
        node: Option<NodeName>,
        /// The envelope; `-` reads stdin.
        envelope: PathBuf,
    },
    /// Sign a result and print the envelope; needs no daemon.
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
        /// The result's format: meshd, inspect, lm-eval, junit or exit-code.
        #[arg(long, default_value_t)]
        format: Format,
        #[command(flatten)]
        labels: Labels,
        /// The result; `-` reads stdin. It must hold one run: --only chooses one of several.
        result: PathBuf,
    },
}

/// Arguments of `meshctl evidence from`.
#[derive(Debug, Args)]
pub(crate) struct From {
    /// The results' format: inspect, lm-eval, junit, exit-code or meshd.
    format: Format,
    /// The results; `-` reads stdin.
    #[arg(required_unless_present = "code", value_name = "FILE")]
    results: Vec<PathBuf>,
    /// The exit code, instead of a file that holds it.
    #[arg(long, conflicts_with = "results", allow_negative_numbers = true)]
    code: Option<i32>,
    /// The node that was measured.
    #[arg(long, value_name = "NAME")]
    node: NodeName,
    /// The evaluator's key file, as `meshctl key generate evaluator` makes it.
    #[arg(long, value_name = "FILE", required_unless_present = "dry_run")]
    key: Option<PathBuf>,
    #[command(flatten)]
    labels: Labels,
    /// Print only: sign nothing and ask no controller.
    #[arg(long)]
    dry_run: bool,
}

/// Names that a result does not have, and those that are wanted of it.
#[derive(Debug, Args)]
pub(crate) struct Labels {
    /// The suite of a JUnit file or an exit code [default: the report's or the file's name].
    #[arg(long)]
    suite: Option<String>,
    /// The suite's version, for a format that has none [default: unversioned].
    #[arg(long)]
    suite_version: Option<String>,
    /// Only this suite of a file with several; may be given several times.
    #[arg(long, value_name = "SUITE")]
    only: Vec<String>,
}

/// Runs the command.
pub(crate) async fn run(verb: Verb, client: &Client, answer: &Answer) -> Result<(), Failure> {
    match verb {
        Verb::From(from) => hand_in(from, client, answer).await,
        Verb::Submit { node, envelope } => submit::envelope(node, &envelope, client, answer).await,
        Verb::Sign {
            key,
            node,
            name,
            mesh,
            challenge,
            format,
            labels,
            result,
        } => {
            let run = results::one(format, &result, &labels.into())?;
            let evaluator = read_key(&key, answer)?;
            let envelope = sign(run, &name, &node, (mesh, challenge), &evaluator)?;
            answer.text(&String::from_utf8_lossy(&envelope))
        }
    }
}

async fn hand_in(from: From, client: &Client, answer: &Answer) -> Result<(), Failure> {
    let labels = from.labels.into();
    let runs = match from.code {
        Some(code) if from.format == Format::ExitCode => results::of_code(code, &labels)?,
        Some(_) => {
            return Err(Failure::broken(
                format!("--code is an exit code, but the format is {}", from.format),
                "`meshctl evidence from exit-code --code N`, or name a file",
            ));
        }
        None => results::all(from.format, &from.results, &labels)?,
    };
    let Some(key) = from.key.filter(|_| !from.dry_run) else {
        return results::show(&runs, answer);
    };
    let evaluator = read_key(&key, answer)?;
    let (_, status) = client.controller_status().await?;
    let place = submit::Place::of(&from.node, &status)?;
    let mut envelopes = Vec::new();
    for run in runs.iter().cloned() {
        let bound = (place.mesh, place.challenge);
        envelopes.push(sign(run, &from.node, &place.node, bound, &evaluator)?);
    }
    if !answer.is_json() {
        results::show(&runs, answer)?;
    }
    submit::all(&from.node, envelopes, client, answer).await
}

fn sign(
    run: Benchmark,
    name: &NodeName,
    node: &NodeId,
    (mesh, challenge): (MeshId, Option<Digest>),
    evaluator: &EvaluatorSecret,
) -> Result<Vec<u8>, Failure> {
    let bound = run.bound_to(mesh, challenge);
    let envelope = bound.attest_as(name.as_str(), node, evaluator);
    envelope.map_err(|error| Failure::broken(error, "the harness's result breaks this rule"))
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

impl std::convert::From<Labels> for harness::Labels {
    fn from(labels: Labels) -> Self {
        Self {
            suite: labels.suite,
            suite_version: labels.suite_version,
            only: labels.only,
        }
    }
}
