//! Files of harnesses, to runs; and runs as an operator sees them before they are signed. Refuses a file that
//! changes while it is read.

use crate::answer::Answer;
use crate::failure::Failure;
use crate::files;
use crate::table::{Fields, or_dash};
use crate::units;
use harness::{Fault, Format, Labels, MAX_TEXT_LEN, Origin, Source};
use jiff::Timestamp;
use rand_core::RngCore as _;
use std::fs::{File, Metadata};
use std::io::{self, Cursor};
use std::path::{Path, PathBuf};
use wire::evidence::Benchmark;

/// The runs of all files, if each can be read.
pub(super) fn all(
    format: Format,
    paths: &[PathBuf],
    labels: &Labels,
) -> Result<Vec<Benchmark>, Failure> {
    let mut runs = Vec::new();
    for path in paths {
        runs.extend(read(format, path, labels)?);
    }
    Ok(runs)
}

/// The run of a file that has one.
pub(super) fn one(format: Format, path: &Path, labels: &Labels) -> Result<Benchmark, Failure> {
    let runs = read(format, path, labels)?;
    <[_; 1]>::try_from(runs).map(|[run]| run).map_err(|runs| {
        Failure::broken(
            format!("{} has {} runs", path.display(), runs.len()),
            "name the suite that is meant with --only",
        )
    })
}

/// The run of an exit code that was given.
pub(super) fn of_code(code: i32, labels: &Labels) -> Result<Vec<Benchmark>, Failure> {
    let source = given("exit-code", labels);
    harness::of_exit_code(code, &source).map_err(|fault| refused(Path::new("--code"), &fault))
}

/// Prints the runs.
pub(super) fn show(runs: &[Benchmark], answer: &Answer) -> Result<(), Failure> {
    if answer.is_json() {
        let value = serde_json::to_value(runs).expect("a run has text keys only");
        return answer.value(&value);
    }
    let shown: Vec<String> = runs.iter().map(fields).collect();
    answer.text(&shown.join("\n"))
}

fn fields(run: &Benchmark) -> String {
    let mut fields = Fields::default();
    fields.field("suite", format!("{} {}", run.suite, run.suite_version));
    let version = run.harness_version.as_ref();
    let harness = version.map_or(run.harness.clone(), |it| format!("{} {it}", run.harness));
    fields.field("harness", harness);
    fields.maybe("model", run.model.as_ref());
    fields.field("samples", run.samples_completed);
    fields.field("finished", run.finished_at);
    fields.field("overall", or_dash(run.overall.map(units::score)));
    for (name, value) in &run.metrics {
        let is_lower = run.lower_is_better.contains(name);
        let hint = if is_lower { " (less is better)" } else { "" };
        fields.field("metric", format!("{name} {value}{hint}"));
    }
    fields.render()
}

fn read(format: Format, path: &Path, labels: &Labels) -> Result<Vec<Benchmark>, Failure> {
    if path == Path::new("-") {
        let most = usize::try_from(MAX_TEXT_LEN).unwrap_or(usize::MAX);
        let bytes = files::read_limited(path, most)?;
        let source = given("stdin", labels);
        let read = harness::read(format, &mut Cursor::new(bytes), &source);
        let runs = read.map(|report| report.runs);
        return runs.map_err(|fault| refused(path, &fault));
    }
    file(format, path, labels).map_err(|fault| refused(path, &fault))
}

fn file(format: Format, path: &Path, labels: &Labels) -> Result<Vec<Benchmark>, Fault> {
    // A pipe that nobody writes would be waited for.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file").into());
    }
    let mut file = File::open(path)?;
    let before = file.metadata()?;
    let modified = before.modified()?;
    let source = Source {
        name: &path.file_name().unwrap_or_default().to_string_lossy(),
        origin: Origin::File {
            modified: modified.try_into().map_err(io::Error::other)?,
        },
        now: Timestamp::now(),
        labels,
    };
    let report = harness::read(format, &mut file, &source);
    let same = |it: &Metadata| (it.len(), it.modified().ok());
    if same(&file.metadata()?) != same(&before) {
        return Err(io::Error::other("it changed while it was read").into());
    }
    report.map(|report| report.runs)
}

/// A result that is handed over by whoever made it, now.
fn given<'a>(name: &'a str, labels: &'a Labels) -> Source<'a> {
    let mut nonce = [0; 16];
    rand_core::OsRng.fill_bytes(&mut nonce);
    Source {
        name,
        origin: Origin::Program {
            nonce: format!("{:032x}", u128::from_be_bytes(nonce)),
        },
        now: Timestamp::now(),
        labels,
    }
}

fn refused(path: &Path, fault: &Fault) -> Failure {
    let hint = match fault {
        Fault::Io(_) => "check the path and its permissions; wait for the harness to end",
        Fault::Own(_) => {
            "our own format needs harness, suite, suiteVersion and overall or metrics; --format names another"
        }
        Fault::NotWanted { .. } | Fault::TooManyRuns(_) => {
            "--only names the suites that are wanted"
        }
        _ => "evidence needs a whole run that succeeded; is this the right format?",
    };
    Failure::broken(format!("{}: {fault}", path.display()), hint)
}
