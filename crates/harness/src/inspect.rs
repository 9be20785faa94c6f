//! Logs of Inspect, of schema version 2: `.json`, and `.eval`, a zip whose member `header.json` holds all but
//! the samples. <https://inspect.aisi.org.uk/eval-logs.html>
//!
//! A log tells of a run that may have been cut short in many ways and still says `success`. Each of them has
//! a field, and is refused by it.

use crate::fault::Fault;
use crate::json::{self, Field};
use crate::{File, zip};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek};
use wire::evidence::Benchmark;

/// An `.eval` file.
pub(crate) fn archive(input: &mut (impl Read + Seek), file: &File<'_>) -> Result<Benchmark, Fault> {
    let header = zip::member(input, HEADER, MAX_HEADER_LEN)?;
    log(crate::decoded(&header)?, file)
}

/// A `.json` log, or the header of an `.eval` file.
pub(crate) fn log(text: &str, file: &File<'_>) -> Result<Benchmark, Fault> {
    let value = json::read(text, &["samples", "reductions", "plan"])?;
    run(&Field::root(&value), file)
}

fn run(log: &Field<'_, '_>, file: &File<'_>) -> Result<Benchmark, Fault> {
    let version = log.get("version");
    if version.count()? != VERSION {
        return Err(version.fault("a schema version that is not known here, which is 2"));
    }
    let status = log.get("status");
    if status.is_text("started") {
        return Err(Fault::Unfinished);
    }
    if status.text()? != "success" {
        return Err(status.fault("the run did not succeed"));
    }
    let invalidated = log.get("invalidated");
    if invalidated.flag()? {
        return Err(invalidated.fault("samples of the run were invalidated"));
    }
    let (eval, results, stats) = (log.get("eval"), log.get("results"), log.get("stats"));
    let samples = samples(&eval, &results)?;
    let metrics = metrics(&results)?;
    let suite = eval.get("task").text()?.to_owned();
    // Logs of early versions have an empty text where a time is not known.
    let finished_at = time(&stats.get("completed_at"))?.unwrap_or_else(|| file.time());
    let started_at = time(&stats.get("started_at"))?.unwrap_or(finished_at);
    let harness_version = eval.get("packages").get("inspect_ai").maybe_text()?;
    let suite_version = eval.get("task_version");
    let suite_version = match suite_version.is_there() {
        true => suite_version.text_or_number()?.to_owned(),
        false => file.suite_version(),
    };
    Ok(Benchmark {
        harness: "inspect".into(),
        harness_version: harness_version.map(str::to_owned),
        suite_version,
        model: eval.get("model").maybe_text()?.map(crate::fitted),
        metrics,
        lower_is_better: BTreeSet::new(),
        overall: None,
        samples_total: samples,
        samples_completed: samples,
        started_at,
        finished_at,
        nonce: file.nonce(&suite),
        suite,
        log_digest: Some(file.log_digest()),
        mesh: None,
        challenge: None,
    })
}

/// How many samples the suite has, if all of them were completed and scored.
fn samples(eval: &Field<'_, '_>, results: &Field<'_, '_>) -> Result<u64, Fault> {
    let config = eval.get("config");
    for name in ["limit", "sample_id"] {
        let field = config.get(name);
        if field.is_there() {
            return Err(field.fault("the run was limited to a part of the suite"));
        }
    }
    if !results.is_there() {
        return Err(results.fault("the run has no results"));
    }
    let (total, completed) = (
        results.get("total_samples"),
        results.get("completed_samples"),
    );
    let count = total.count()?;
    if completed.count()? != count {
        return Err(completed.fault("fewer samples were completed than `results.total_samples`"));
    }
    let logged = results.get("logged_samples");
    if logged.is_there() && logged.count()? != count {
        return Err(logged.fault("fewer samples were run than `results.total_samples`"));
    }
    let early = results.get("early_stopping");
    if early.is_there() {
        return Err(early.fault("the run was stopped early"));
    }
    let (dataset, epochs) = (eval.get("dataset").get("samples"), config.get("epochs"));
    if dataset.is_there() {
        let epochs = if epochs.is_there() {
            epochs.count()?
        } else {
            1
        };
        if dataset.count()?.saturating_mul(epochs) != count {
            return Err(total.fault("not `eval.dataset.samples` times `eval.config.epochs`"));
        }
    }
    Ok(count)
}

/// `scorer/metric`; with the reducer between them where a scorer comes several times.
fn metrics(results: &Field<'_, '_>) -> Result<BTreeMap<String, f64>, Fault> {
    let scores = results.get("scores");
    let items = scores.items()?;
    let mut names = BTreeMap::new();
    for score in &items {
        *names.entry(score.get("name").text()?).or_insert(0) += 1;
    }
    let mut metrics = BTreeMap::new();
    for score in &items {
        let unscored = score.get("unscored_samples");
        if unscored.is_there() && unscored.count()? != 0 {
            return Err(unscored.fault("samples without a score are left out of the metrics"));
        }
        let name = score.get("name").text()?;
        let reducer = score.get("reducer").maybe_text()?;
        let prefix = match reducer.filter(|_| names.get(name).is_some_and(|n| *n > 1)) {
            Some(reducer) => format!("{name}/{reducer}"),
            None => name.to_owned(),
        };
        for (metric, field) in score.get("metrics").entries()? {
            let value = field.get("value").number()?;
            if metrics
                .insert(format!("{prefix}/{metric}"), value)
                .is_some()
            {
                return Err(score.get("name").fault("two scores with the same metric"));
            }
        }
    }
    if metrics.is_empty() {
        return Err(scores.fault("the run has no scores"));
    }
    Ok(metrics)
}

fn time(field: &Field<'_, '_>) -> Result<Option<Timestamp>, Fault> {
    match field.maybe_text()? {
        None | Some("") => Ok(None),
        Some(text) => {
            let parsed = text.parse();
            let rule = "not a time of RFC 3339 with its offset";
            parsed.map(Some).map_err(|_| field.fault(rule))
        }
    }
}

const VERSION: u64 = 2;
const HEADER: &str = "header.json";
/// Longest header, in bytes: that of a run of 100,000 samples has about 1 MiB.
const MAX_HEADER_LEN: u32 = 16 << 20;
