//! The harnesses themselves, where they are installed: what the scripts beside the fixtures make today is read as
//! the fixtures are. `HARNESS_PYTHON` names a Python that has `inspect_ai` and `lm_eval`; without it, the
//! `python3` of the path is asked. Where there is none, the tests say so.

#![allow(clippy::unwrap_used)]

use harness::{Format, Labels, Origin, Source, read};
use jiff::Timestamp;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use wire::evidence::Benchmark;

/// The Python that has a module, or a word on standard error that there is none.
fn python_with(module: &str) -> Option<PathBuf> {
    let given = std::env::var_os("HARNESS_PYTHON").map(PathBuf::from);
    let python = given.clone().unwrap_or_else(|| "python3".into());
    let found = Command::new(&python)
        .args([
            "-c",
            &format!("import importlib.util as u, sys; sys.exit(not u.find_spec({module:?}))"),
        ])
        .status();
    if found.is_ok_and(|status| status.success()) {
        return Some(python);
    }
    assert!(given.is_none(), "HARNESS_PYTHON is set and has no {module}");
    // Past the test runner, which keeps the words of tests that pass to itself.
    let told = writeln!(
        std::io::stderr(),
        "NOT RUN: no Python here has {module}: its files were NOT tried, only the fixtures were"
    );
    told.unwrap();
    None
}

fn fixtures(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(folder)
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let (out, err) = (&output.stdout, &output.stderr);
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    );
}

fn runs(format: Format, path: &Path) -> Result<Vec<Benchmark>, harness::Fault> {
    let modified = path.metadata().unwrap().modified().unwrap();
    let source = Source {
        name: &path.file_name().unwrap().to_string_lossy(),
        origin: Origin::File {
            modified: modified.try_into().unwrap(),
        },
        now: Timestamp::now(),
        labels: &Labels::default(),
    };
    read(format, &mut File::open(path).unwrap(), &source).map(|report| report.runs)
}

/// A run without what differs from one time to the next.
fn timeless(mut run: Benchmark) -> Benchmark {
    let then = Timestamp::UNIX_EPOCH;
    (run.started_at, run.finished_at) = (then, then);
    (run.nonce, run.log_digest, run.model) = (String::new(), None, None);
    run.harness_version = None;
    run
}

/// Every file of the folder is read, or refused, as the fixture of the same name.
fn same(format: Format, folder: &str, made: &Path, is_random: bool) {
    let mut count = 0;
    for entry in std::fs::read_dir(made).unwrap() {
        let path = entry.unwrap().path();
        let fixture = fixtures(folder).join(path.file_name().unwrap());
        count += 1;
        match (runs(format, &path), runs(format, &fixture)) {
            (Ok(made), Ok(fixture)) => {
                let of = |runs: Vec<Benchmark>| -> Vec<Benchmark> {
                    let runs = runs.into_iter().map(timeless).map(|mut run| {
                        // lm-eval's dummy model answers at random.
                        let metrics = run.metrics.values_mut();
                        metrics.for_each(|it| *it = if is_random { 0.0 } else { *it });
                        run
                    });
                    runs.collect()
                };
                assert_eq!(of(made), of(fixture), "{}", path.display());
            }
            (Err(made), Err(fixture)) => assert_eq!(made.to_string(), fixture.to_string()),
            (made, fixture) => panic!("{}: {made:?}, {fixture:?}", path.display()),
        }
    }
    assert!(count >= 4, "{count} files");
}

#[test]
fn what_inspect_writes_today_is_read_as_the_fixtures_are() {
    let Some(python) = python_with("inspect_ai") else {
        return;
    };
    let made = tempfile::tempdir().unwrap();
    let script = fixtures("inspect").join("make.py");
    // Not in the repository: Inspect writes the origin of a repository that it runs in.
    run(Command::new(python)
        .arg(script)
        .arg(made.path())
        .current_dir(made.path()));
    same(Format::Inspect, "inspect", made.path(), false);
}

#[test]
fn what_lm_eval_writes_today_is_read_as_the_fixtures_are() {
    let Some(python) = python_with("lm_eval") else {
        return;
    };
    let made = tempfile::tempdir().unwrap();
    let script = fixtures("lm-eval").join("make.sh");
    run(Command::new("sh")
        .arg(script)
        .arg(made.path())
        .env("PYTHON", python));
    same(Format::LmEval, "lm-eval", made.path(), true);
}
