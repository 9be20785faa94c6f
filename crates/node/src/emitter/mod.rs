//! Where a node's evidence comes from: a task that hands over one [`Emission`] after another.

mod command;
mod file;
mod mock;

use crate::io::clock;
use agent::Emission;
use rand::Rng as _;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use wire::evidence::{Benchmark, Envelope};

/// Which emitter runs, and how.
#[derive(Debug, Clone, PartialEq)]
pub enum Emitter {
    /// None: an evaluator elsewhere vouches, or nobody.
    None,
    /// Draws scores around a mean; for labs and demonstrations.
    Mock {
        /// Mean of the overall score, 0 to 1.
        mean: f64,
        /// Greatest distance from the mean.
        jitter: f64,
    },
    /// Runs a program and reads one result from its standard output.
    Command {
        /// The program and its arguments.
        argv: Vec<String>,
        /// After this long the program is killed.
        timeout: Duration,
    },
    /// Reads a file whenever it changes.
    File {
        /// The file.
        path: PathBuf,
    },
}

/// Why a result could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EmitError {
    /// The program or the file could not be used.
    #[error("{what}: {source}")]
    Io {
        /// The action that failed.
        what: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The program failed.
    #[error("the benchmark command ended with {0}")]
    Failed(std::process::ExitStatus),
    /// The program hung.
    #[error("the benchmark command took longer than {0:?} and was killed")]
    Timeout(Duration),
    /// The output is too large.
    #[error("the result is over {MAX_RESULT} bytes")]
    TooLarge,
    /// The output is neither a benchmark result nor a DSSE envelope.
    #[error("neither a benchmark result nor a DSSE envelope: {0}")]
    Parse(serde_json::Error),
    /// The result breaks a rule.
    #[error(transparent)]
    Rule(#[from] wire::evidence::EvidenceError),
}

/// Runs `emitter` until the receiver is gone. `mean` overrides a mock's mean when it changes.
pub(crate) async fn run(
    emitter: Emitter,
    every: Duration,
    mean: watch::Receiver<Option<f64>>,
    out: mpsc::Sender<Emission>,
) {
    match emitter {
        Emitter::None => out.closed().await,
        Emitter::Mock {
            mean: initial,
            jitter,
        } => mock::run(initial, jitter, every, mean, out).await,
        Emitter::Command { argv, timeout } => command::run(argv, timeout, every, out).await,
        Emitter::File { path } => file::run(path, out).await,
    }
}

/// Reads what a program printed or a file holds: a [`Benchmark`], complete or with the times and the
/// nonce left out, or a DSSE envelope, which is passed on as it is.
fn parse(bytes: &[u8]) -> Result<Emission, EmitError> {
    if bytes.len() > MAX_RESULT {
        return Err(EmitError::TooLarge);
    }
    if serde_json::from_slice::<Envelope>(bytes).is_ok() {
        return Ok(Emission::Envelope(bytes.to_vec()));
    }
    let mut value: serde_json::Value = serde_json::from_slice(bytes).map_err(EmitError::Parse)?;
    if let Some(fields) = value.as_object_mut() {
        let now = serde_json::Value::from(clock::wall().to_string());
        let finished = fields.entry("finishedAt").or_insert(now).clone();
        fields.entry("startedAt").or_insert(finished);
        fields.entry("nonce").or_insert_with(|| nonce().into());
        for count in ["samplesTotal", "samplesCompleted"] {
            fields.entry(count).or_insert(1.into());
        }
    }
    let run: Benchmark = serde_json::from_value(value).map_err(EmitError::Parse)?;
    run.check()?;
    Ok(Emission::Run(Box::new(run)))
}

/// 32 hex digits that no run of this node has had.
fn nonce() -> String {
    format!("{:032x}", rand_core::OsRng.r#gen::<u128>())
}

/// Logs a change of health once, not every failure.
struct Health {
    ok: bool,
}

impl Health {
    fn new() -> Self {
        Self { ok: true }
    }

    fn failed(&mut self, error: &EmitError) {
        if std::mem::replace(&mut self.ok, false) {
            tracing::warn!(%error, "no evidence: the benchmark failed");
        } else {
            tracing::debug!(%error, "the benchmark failed again");
        }
    }

    fn succeeded(&mut self) {
        if !std::mem::replace(&mut self.ok, true) {
            tracing::info!("the benchmark works again");
        }
    }
}

/// Largest output or file that is read, in bytes.
const MAX_RESULT: usize = wire::evidence::MAX_ENVELOPE_LEN;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_result_is_completed() {
        let result = br#"{"harness":"h","suite":"s","suiteVersion":"2","overall":0.8}"#;
        let Emission::Run(run) = parse(result).unwrap() else {
            panic!("a run")
        };
        assert_eq!(
            (run.overall, run.suite_version.as_str(), run.nonce.len()),
            (0.8, "2", 32)
        );
    }

    #[test]
    fn what_is_no_result_says_why() {
        for (bytes, expected) in [
            (&b"hello"[..], "neither a benchmark result"),
            (
                br#"{"harness":"h","suite":"s","suiteVersion":"2","overall":1.5}"#,
                "between 0 and 1",
            ),
            (
                br#"{"harness":"h","suite":"s","suiteVersion":"2","overall":0.5,"typo":1}"#,
                "unknown field",
            ),
            (
                br#"{"harness":"h","suite":"s","suiteVersion":"2","overall":NaN}"#,
                "neither a benchmark result",
            ),
        ] {
            let error = parse(bytes).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
