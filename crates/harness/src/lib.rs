//! Results of benchmarks, as the programs that ran them wrote them, to [`Benchmark`]s that can be signed.
//!
//! | Module | Reads |
//! |---|---|
//! | `own` | our own format: one JSON object |
//! | `inspect` | logs of UK AISI's Inspect, `.eval` and `.json` |
//! | `lm_eval` | `results_*.json` of the lm-evaluation-harness |
//! | `junit` | JUnit XML |
//! | `exit_code` | an exit code, by the contract of node-problem-detector |
//! | `json`, `zip` | JSON with every trap named; one member of a zip archive |
//!
//! The bytes come from programs that nobody here has written, and are read as an enemy's: memory, depth and
//! counts are bounded, and every refusal names the field and its value. There is no clock here: the time of the
//! file and the time of day are arguments.

#![forbid(unsafe_code)]

mod exit_code;
mod fault;
mod inspect;
mod json;
mod junit;
mod lm_eval;
mod own;
mod zip;

pub use fault::Fault;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::io::{Read, Seek, SeekFrom};
use std::str::FromStr;
use std::time::Duration;
use wire::evidence::Benchmark;

/// Longest file that is looked at, in bytes. Only archives may be this long: they are read a piece at a time.
pub const MAX_FILE_LEN: u64 = 256 << 20;
/// Longest text that is read, in bytes: JSON or XML. It is in memory as a whole.
pub const MAX_TEXT_LEN: u64 = 32 << 20;
/// Longest result in our own format, in bytes.
pub const MAX_OWN_LEN: u64 = wire::evidence::MAX_ENVELOPE_LEN as u64;
/// Most runs that one file may give.
pub const MAX_RUNS: usize = 64;
/// How far a run may end ahead of the clock here: clocks that are kept by NTP differ by less.
pub const MAX_AHEAD: Duration = Duration::from_secs(5);

/// The form of a result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Our own.
    #[default]
    Meshd,
    /// A log of Inspect, `.eval` or `.json`; its content says which.
    Inspect,
    /// `results_*.json` of the lm-evaluation-harness.
    LmEval,
    /// JUnit XML.
    Junit,
    /// A number: 0 is good, 1 is bad, anything else says nothing.
    ExitCode,
}

/// The facts about a result that are not in its bytes.
#[derive(Debug, Clone)]
pub struct Source<'a> {
    /// The file's name without folders, or the program's: the suite of a result that does not name its own.
    pub name: &'a str,
    /// How it came here.
    pub origin: Origin,
    /// The time of day.
    pub now: Timestamp,
    /// Names that the operator gives.
    pub labels: &'a Labels,
}

/// How a result came here: what its age is, and which run it is, if it does not say so itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// From a file: it is as old as the file, and the same bytes are the same run for ever.
    File {
        /// When the file was changed last.
        modified: Timestamp,
    },
    /// From a program that has just ended.
    Program {
        /// 32 random hex digits.
        nonce: String,
    },
}

/// Names that the operator gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    /// The suite of a JUnit file or an exit code.
    pub suite: Option<String>,
    /// The suite's version, for the same.
    pub suite_version: Option<String>,
    /// The suites that are wanted of a file with several; none: all.
    pub only: Vec<String>,
}

/// A result that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// A run for each suite, at least one.
    pub runs: Vec<Benchmark>,
    /// SHA-256 of all bytes.
    pub digest: [u8; 32],
}

/// Reads a result: a run for each suite in it, in the names' order.
///
/// # Errors
/// [`Fault`], which names the field and its value. A file of which one run is refused gives none.
pub fn read(
    format: Format,
    input: &mut (impl Read + Seek),
    source: &Source<'_>,
) -> Result<Report, Fault> {
    let digest = digest(input)?;
    let file = File { source, digest };
    let runs = match format {
        Format::Meshd => vec![own::read(&text(input, MAX_OWN_LEN)?, &file)?],
        Format::Inspect if zip::is_archive(input)? => {
            vec![inspect::archive(input, &file)?]
        }
        Format::Inspect => vec![inspect::log(&text(input, MAX_TEXT_LEN)?, &file)?],
        Format::LmEval => lm_eval::read(&text(input, MAX_TEXT_LEN)?, &file)?,
        Format::Junit => vec![junit::read(&text(input, MAX_TEXT_LEN)?, &file)?],
        Format::ExitCode => vec![exit_code::read(&text(input, MAX_OWN_LEN)?, &file)?],
    };
    let runs = wanted(runs, source)?;
    Ok(Report { runs, digest })
}

/// The run of a program whose exit code is its result.
///
/// # Errors
/// [`Fault`], when the code says nothing.
pub fn of_exit_code(code: i32, source: &Source<'_>) -> Result<Vec<Benchmark>, Fault> {
    let digest = Sha256::digest(code.to_string()).into();
    let file = File { source, digest };
    wanted(vec![exit_code::run(code, &file)?], source)
}

/// Those of the runs that the operator wants, if they keep the rules and their time has come.
fn wanted(runs: Vec<Benchmark>, source: &Source<'_>) -> Result<Vec<Benchmark>, Fault> {
    let only = &source.labels.only;
    let is_wanted = |run: &Benchmark| only.is_empty() || only.contains(&run.suite);
    let found = Fault::names(runs.iter().map(|run| run.suite.as_str()));
    let runs: Vec<Benchmark> = runs.into_iter().filter(is_wanted).collect();
    if runs.is_empty() {
        return Err(Fault::NotWanted { found });
    }
    if runs.len() > MAX_RUNS {
        return Err(Fault::TooManyRuns(runs.len()));
    }
    for run in &runs {
        run.check()?;
        let ahead = run.finished_at.duration_since(source.now);
        let ahead = Duration::try_from(ahead).unwrap_or_default();
        if ahead > MAX_AHEAD {
            return Err(Fault::Future {
                finished: run.finished_at,
                seconds: ahead.as_secs(),
            });
        }
    }
    Ok(runs)
}

/// A result that is read, as the formats see it.
struct File<'a> {
    source: &'a Source<'a>,
    /// SHA-256 of all its bytes.
    digest: [u8; 32],
}

impl File<'_> {
    /// As evidence names the file that it came from.
    fn log_digest(&self) -> String {
        format!("sha256:{}", hex(&self.digest))
    }

    /// The nonce of a run that brings none. Of a file it is made of the content, so that neither a copy nor a
    /// changed time makes a second run of it.
    fn nonce(&self, suite: &str) -> String {
        match &self.source.origin {
            Origin::Program { nonce } => nonce.clone(),
            Origin::File { .. } => {
                let hash = Sha256::new()
                    .chain_update(LABEL_NONCE)
                    .chain_update(self.digest)
                    .chain_update(suite);
                let mut nonce = hex(&hash.finalize());
                nonce.truncate(NONCE_LEN);
                nonce
            }
        }
    }

    /// The latest time at which a run that does not say when it finished can have done so.
    fn time(&self) -> Timestamp {
        match self.source.origin {
            Origin::File { modified } => modified,
            Origin::Program { .. } => self.source.now,
        }
    }

    /// The suite of a result that has no name for it.
    fn suite(&self) -> String {
        let stem = || self.source.name.rsplit_once('.').map(|(stem, _)| stem);
        let given = self.source.labels.suite.as_deref();
        let stem = given.or_else(|| stem().filter(|stem| !stem.is_empty()));
        stem.unwrap_or(self.source.name).to_owned()
    }

    /// The version of a suite that has none.
    fn suite_version(&self) -> String {
        let given = self.source.labels.suite_version.as_deref();
        given.unwrap_or(UNVERSIONED).to_owned()
    }
}

fn digest(input: &mut (impl Read + Seek)) -> Result<[u8; 32], Fault> {
    input.seek(SeekFrom::Start(0))?;
    let (mut hash, mut chunk, mut len) = (Sha256::new(), vec![0; CHUNK_LEN], 0);
    loop {
        let count = match input.read(&mut chunk) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        let Some(read) = chunk.get(..count).filter(|read| !read.is_empty()) else {
            return Ok(hash.finalize().into());
        };
        hash.update(read);
        len += read.len() as u64;
        if len > MAX_FILE_LEN {
            return Err(Fault::TooLong(MAX_FILE_LEN));
        }
    }
}

/// The whole content as text, without the mark that some editors and shells begin UTF-8 with, and without the
/// zeros with which a file may end that was given room in advance.
fn text(input: &mut (impl Read + Seek), most: u64) -> Result<String, Fault> {
    input.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    input.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(Fault::TooLong(most));
    }
    decoded(&bytes).map(str::to_owned)
}

/// As `text` does; also for what a program has printed.
///
/// # Errors
/// [`Fault::Empty`], [`Fault::Encoding`].
pub fn decoded(bytes: &[u8]) -> Result<&str, Fault> {
    // Before the other, because its mark begins with the same bytes.
    for mark in [&b"\xff\xfe\0\0"[..], b"\0\0\xfe\xff"] {
        if bytes.starts_with(mark) {
            return Err(Fault::Encoding("UTF-32"));
        }
    }
    let is_wide = |pair: &[u8; 2]| {
        matches!(pair, [0xff, 0xfe] | [0xfe, 0xff] | [b'{' | b'<', 0])
            || matches!(pair, [0, b'{' | b'<'])
    };
    if bytes.first_chunk().is_some_and(is_wide) {
        return Err(Fault::Encoding("UTF-16"));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let is_blank = |byte: &u8| *byte == 0 || byte.is_ascii_whitespace();
    let end = bytes.iter().rposition(|byte| !is_blank(byte));
    let end = end.ok_or(Fault::Empty)? + 1;
    let bytes = bytes.get(..end).unwrap_or_default();
    std::str::from_utf8(bytes).map_err(|_| Fault::Encoding("no UTF-8"))
}

/// An informative text of somebody else's, made to fit.
fn fitted(text: &str) -> String {
    let text: String = text.chars().filter(|it| !it.is_control()).collect();
    let end = text.floor_char_boundary(wire::evidence::MAX_TEXT_LEN);
    match text.get(..end) {
        None | Some("") => "-".to_owned(),
        Some(text) => text.to_owned(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Meshd,
        Self::Inspect,
        Self::LmEval,
        Self::Junit,
        Self::ExitCode,
    ];

    /// Its name in settings and arguments.
    pub fn name(self) -> &'static str {
        match self {
            Self::Meshd => "meshd",
            Self::Inspect => "inspect",
            Self::LmEval => "lm-eval",
            Self::Junit => "junit",
            Self::ExitCode => "exit-code",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let mut all = Self::ALL.into_iter();
        let found = all.find(|format| format.name() == name);
        found.ok_or_else(|| UnknownFormat(name.to_owned()))
    }
}

/// No format has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the format is {0:?}, but must be meshd, inspect, lm-eval, junit or exit-code")]
pub struct UnknownFormat(String);

/// The version of suites that have none.
pub const UNVERSIONED: &str = "unversioned";
const LABEL_NONCE: &[u8] = b"meshd/v1 run";
const NONCE_LEN: usize = 32;
const CHUNK_LEN: usize = 64 << 10;

#[cfg(test)]
mod tests;
