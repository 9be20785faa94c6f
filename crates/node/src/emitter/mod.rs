//! Where a node's evidence comes from: a thread or a task that hands over one [`Emission`] after another.
//! Programs and files have a thread of their own, which may wait for a disk: nothing waits for it.

mod children;
mod command;
mod file;
mod mock;

use crate::io::clock;
use crate::io::rights::{self, Keep};
use agent::Emission;
use rand::Rng as _;
use rustix::event::{PollFd, PollFlags};
use std::io::{PipeReader, PipeWriter};
use std::path::PathBuf;
use std::sync::mpsc::RecvTimeoutError;
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
        /// After this long the program is killed, with all that it started.
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
    /// The path leads to something else.
    #[error("{} is {kind}, not a regular file; a program's output is for the emitter `command`", .path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// The kind of thing that is there.
        kind: &'static str,
    },
    /// There is no output.
    #[error("the result is empty")]
    Empty,
    /// The output is text of another encoding.
    #[error("the result is {0}: write it as UTF-8")]
    Encoding(&'static str),
    /// The output is neither a benchmark result nor a DSSE envelope.
    #[error("neither a benchmark result nor a DSSE envelope: {0}")]
    Parse(serde_json::Error),
    /// The result breaks a rule.
    #[error(transparent)]
    Rule(#[from] wire::evidence::EvidenceError),
}

/// An emitter that runs.
#[derive(Debug, Default)]
pub(crate) struct Running(Option<Thread>);

#[derive(Debug)]
struct Thread {
    /// Dropped to end the thread.
    stop: PipeWriter,
    /// Its other end is dropped as the thread ends.
    ended: std::sync::mpsc::Receiver<()>,
}

impl Running {
    /// Ends the emitter and every process that came of it. Waits for a thread that waits for a disk no longer
    /// than [`STOP_TIME`].
    pub(crate) fn stop(self) {
        let Some(Thread { stop, ended }) = self.0 else {
            return;
        };
        drop(stop);
        if let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(STOP_TIME) {
            tracing::warn!("the benchmark or its disk does not answer: it is left behind");
        }
    }
}

/// An emitter's thread's end of what it shares with the shell.
struct Desk {
    out: mpsc::Sender<Emission>,
    /// Readable when the node stops.
    stop: PipeReader,
}

impl Desk {
    /// Hands an emission over; whether it is wanted.
    fn emit(&self, emission: Emission) -> bool {
        self.out.blocking_send(emission).is_ok()
    }

    /// Waits for so long; whether the node stops meanwhile.
    fn stops_within(&self, time: Duration) -> bool {
        let end = clock::boot().saturating_add(time);
        loop {
            let left = end.saturating_sub(clock::boot());
            let mut stop = [PollFd::new(&self.stop, PollFlags::IN)];
            let waited = command::wait_for(&mut stop, left);
            if waited.is_err() || !stop[0].revents().is_empty() {
                return true;
            }
            if left.is_zero() {
                return false;
            }
        }
    }
}

/// Runs `emitter` until the receiver is gone or it is stopped. `mean` overrides a mock's mean when it changes.
///
/// # Errors
/// When the system has no thread or pipe left.
pub(crate) fn start(
    emitter: Emitter,
    every: Duration,
    mean: watch::Receiver<Option<f64>>,
    out: mpsc::Sender<Emission>,
) -> std::io::Result<Running> {
    match emitter {
        Emitter::None => {
            tokio::spawn(async move { out.closed().await });
            Ok(Running::default())
        }
        Emitter::Mock {
            mean: initial,
            jitter,
        } => {
            tokio::spawn(mock::run(initial, jitter, every, mean, out));
            Ok(Running::default())
        }
        Emitter::Command { argv, timeout } => {
            on_a_thread(out, move |desk| command::run(&argv, timeout, every, desk))
        }
        Emitter::File { path } => on_a_thread(out, move |desk| file::run(&path, desk)),
    }
}

fn on_a_thread(
    out: mpsc::Sender<Emission>,
    work: impl FnOnce(&Desk) + Send + 'static,
) -> std::io::Result<Running> {
    let (stop_seen, stop) = std::io::pipe()?;
    let (ending, ended) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new().name("meshd-emitter".to_owned());
    thread.spawn(move || {
        // A benchmark inherits what this thread has.
        rights::reduce(Keep::NOTHING);
        work(&Desk {
            out,
            stop: stop_seen,
        });
        drop(ending);
    })?;
    Ok(Running(Some(Thread { stop, ended })))
}

/// Reads what a program printed or a file holds: a [`Benchmark`], complete or with the times and the
/// nonce left out, or a DSSE envelope, which is passed on as it is.
fn parse(bytes: &[u8]) -> Result<Emission, EmitError> {
    if bytes.len() > MAX_RESULT {
        return Err(EmitError::TooLarge);
    }
    let bytes = text(bytes)?;
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

/// The text of a result: without the mark that some editors and shells begin UTF-8 with, and without the
/// zeros with which a file may end that was given room in advance.
fn text(bytes: &[u8]) -> Result<&[u8], EmitError> {
    // Before the other, because its mark begins with the same bytes.
    for mark in [&b"\xff\xfe\0\0"[..], b"\0\0\xfe\xff"] {
        if bytes.starts_with(mark) {
            return Err(EmitError::Encoding("UTF-32"));
        }
    }
    let is_wide =
        |pair: &[u8; 2]| matches!(pair, [0xff, 0xfe] | [0xfe, 0xff] | [b'{', 0] | [0, b'{']);
    if bytes.first_chunk().is_some_and(is_wide) {
        return Err(EmitError::Encoding("UTF-16"));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let is_blank = |byte: &u8| *byte == 0 || byte.is_ascii_whitespace();
    let end = bytes.iter().rposition(|byte| !is_blank(byte));
    let end = end.ok_or(EmitError::Empty)? + 1;
    bytes.get(..end).ok_or(EmitError::Empty)
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

/// How long a stop waits for a thread that may be waiting for a disk.
const STOP_TIME: Duration = Duration::from_millis(1_300);
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
            (Some(0.8), "2", 32)
        );
    }

    #[test]
    fn a_result_is_read_as_editors_and_systems_write_it() {
        let plain =
            "{\"harness\":\"h\",\r\n\"suite\":\"s\",\"suiteVersion\":\"2\",\"overall\":0.8}";
        for (before, after) in [("\u{feff}", "\r\n"), ("", "\0\0\n\0"), ("\r\n", "")] {
            let result = format!("{before}{plain}{after}");
            assert!(parse(result.as_bytes()).is_ok(), "{result:?}");
        }
        let envelope = "\u{feff}{\"payloadType\":\"t\",\"payload\":\"\",\"signatures\":[]}\0";
        let Ok(Emission::Envelope(passed)) = parse(envelope.as_bytes()) else {
            panic!("an envelope")
        };
        assert!(passed.starts_with(b"{") && passed.ends_with(b"}"));
        let wide: Vec<u16> = plain.encode_utf16().collect();
        let little: Vec<u8> = wide.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let big: Vec<u8> = wide.iter().flat_map(|unit| unit.to_be_bytes()).collect();
        for (mark, bytes) in [
            (&b"\xff\xfe"[..], &little),
            (b"\xfe\xff", &big),
            (b"", &little),
            (b"", &big),
        ] {
            let error = parse(&[mark, bytes.as_slice()].concat()).unwrap_err();
            assert!(matches!(error, EmitError::Encoding("UTF-16")), "{error}");
        }
        for empty in [&b""[..], b"\0\0", b" \r\n", b"\xef\xbb\xbf"] {
            assert!(matches!(parse(empty), Err(EmitError::Empty)));
        }
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
