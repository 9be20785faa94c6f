//! Our own format: one JSON object with a run's fields, of which the times, the counts and the nonce may be left
//! out. Refuses a field that it does not know: a typo is an error, not a default.

use crate::fault::Fault;
use crate::{File, json};
use jiff::Timestamp;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use wire::evidence::Benchmark;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Given {
    harness: String,
    suite: String,
    suite_version: String,
    harness_version: Option<String>,
    model: Option<String>,
    #[serde(default)]
    metrics: BTreeMap<String, f64>,
    #[serde(default)]
    lower_is_better: BTreeSet<String>,
    overall: Option<f64>,
    samples_total: Option<u64>,
    samples_completed: Option<u64>,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    nonce: Option<String>,
    log_digest: Option<String>,
}

pub(crate) fn read(text: &str, file: &File<'_>) -> Result<Benchmark, Fault> {
    let value = json::read(text, &[])?;
    if let Some((path, token)) = value.not_finite() {
        let path = path.trim_start_matches('.');
        return Err(Fault::field(path, token, "not a finite number"));
    }
    let given: Given = serde_json::from_str(text).map_err(Fault::Own)?;
    let finished_at = given.finished_at.unwrap_or_else(|| file.time());
    let nonce = given.nonce.unwrap_or_else(|| file.nonce(&given.suite));
    Ok(Benchmark {
        harness: given.harness,
        harness_version: given.harness_version,
        suite: given.suite,
        suite_version: given.suite_version,
        model: given.model,
        metrics: given.metrics,
        lower_is_better: given.lower_is_better,
        overall: given.overall,
        samples_total: given.samples_total.unwrap_or(1),
        samples_completed: given.samples_completed.unwrap_or(1),
        started_at: given.started_at.unwrap_or(finished_at),
        finished_at,
        nonce,
        log_digest: given.log_digest.or_else(|| Some(file.log_digest())),
        mesh: None,
        challenge: None,
    })
}
