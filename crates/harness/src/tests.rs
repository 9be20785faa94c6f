//! Real files of real harnesses, and what an enemy or an accident makes of them.

mod archives;
mod bytes;
mod inspect;
mod junit;
mod lm_eval;
mod own;

use super::*;
use std::io::Cursor;

/// A time after all fixtures were made.
fn now() -> Timestamp {
    "2027-01-01T00:00:00Z".parse().unwrap()
}

fn modified() -> Timestamp {
    "2026-12-01T00:00:00Z".parse().unwrap()
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn read_as(format: Format, bytes: &[u8], labels: &Labels) -> Result<Vec<Benchmark>, Fault> {
    let origin = Origin::File {
        modified: modified(),
    };
    let source = Source {
        name: "report.xml",
        origin,
        now: now(),
        labels,
    };
    read(format, &mut Cursor::new(bytes), &source).map(|report| report.runs)
}

fn runs(format: Format, bytes: &[u8]) -> Vec<Benchmark> {
    read_as(format, bytes, &Labels::default()).unwrap()
}

fn only(format: Format, bytes: &[u8]) -> Benchmark {
    let [run] = <[_; 1]>::try_from(runs(format, bytes)).unwrap();
    run
}

fn refused(format: Format, bytes: &[u8]) -> String {
    let read = read_as(format, bytes, &Labels::default());
    read.unwrap_err().to_string()
}

/// A text fixture with a piece of it replaced.
fn changed(name: &str, from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(fixture(name)).unwrap();
    assert!(text.contains(from), "{name} has no {from}");
    text.replacen(from, to, 1).into_bytes()
}

fn metrics(run: &Benchmark) -> Vec<(&str, f64)> {
    let metrics = run.metrics.iter();
    metrics
        .map(|(name, value)| (name.as_str(), *value))
        .collect()
}
