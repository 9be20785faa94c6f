//! An exit code, by the contract of node-problem-detector's plugins: 0 is good, 1 is bad, 2 says nothing.
//! <https://github.com/kubernetes/node-problem-detector/blob/master/docs/custom_plugin_monitor.md>

use crate::File;
use crate::fault::{Fault, shown_text};
use std::collections::{BTreeMap, BTreeSet};
use wire::evidence::Benchmark;

/// A file that holds the code in decimal, as `echo $?` writes it, and behind it the time at which the program
/// ended, if two runs with the same code are to be told from each other.
pub(crate) fn read(text: &str, file: &File<'_>) -> Result<Benchmark, Fault> {
    let (code, time) = match text.trim().split_once(char::is_whitespace) {
        Some((code, time)) => (code, Some(time.trim())),
        None => (text.trim(), None),
    };
    let parsed = code.parse();
    let parsed = parsed.map_err(|_| Fault::field(FIELD, shown_text(code), "not a whole number"))?;
    let mut run = run(parsed, file)?;
    if let Some(time) = time {
        let parsed = time.parse();
        let rule = "not a time of RFC 3339 with its offset";
        run.finished_at = parsed.map_err(|_| Fault::field("time", shown_text(time), rule))?;
        run.started_at = run.finished_at;
    }
    Ok(run)
}

pub(crate) fn run(code: i32, file: &File<'_>) -> Result<Benchmark, Fault> {
    let overall = match code {
        0 => 1.0,
        1 => 0.0,
        _ => return Err(Fault::field(FIELD, code, UNKNOWN)),
    };
    let suite = file.suite();
    let finished_at = file.time();
    Ok(Benchmark {
        harness: "exit-code".into(),
        harness_version: None,
        suite_version: file.suite_version(),
        model: None,
        metrics: BTreeMap::new(),
        lower_is_better: BTreeSet::new(),
        overall: Some(overall),
        samples_total: 1,
        samples_completed: 1,
        started_at: finished_at,
        finished_at,
        nonce: file.nonce(&suite),
        suite,
        log_digest: Some(file.log_digest()),
        mesh: None,
        challenge: None,
    })
}

const FIELD: &str = "exit code";
const UNKNOWN: &str = "unknown, because only 0 (good) and 1 (bad) say something";
