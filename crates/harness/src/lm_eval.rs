//! `results_*.json` of the lm-evaluation-harness: a run for each task and each group of tasks in it.
//! <https://github.com/EleutherAI/lm-evaluation-harness>
//!
//! Metrics are keyed `metric,filter`; a standard error may be the text `N/A`, which is left out. A task that
//! was limited shows in `n-samples`.

use crate::File;
use crate::fault::Fault;
use crate::json::{self, Field};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use wire::evidence::Benchmark;

pub(crate) fn read(text: &str, file: &File<'_>) -> Result<Vec<Benchmark>, Fault> {
    let value = json::read(
        text,
        &["configs", "samples", "pretty_env_info", "task_hashes"],
    )?;
    let root = Field::root(&value);
    let limit = root.get("config").get("limit");
    if limit.is_there() {
        return Err(limit.fault("the run was limited to a part of the suite"));
    }
    let (started, finished) = times(&root, file)?;
    let results = root.get("results").entries()?;
    let mut left = MAX_SUBTASKS;
    let runs = results.iter().map(|(task, result)| {
        let (metrics, lower_is_better) = metrics(task, result, &root)?;
        let version = root.get("versions").get(task);
        let suite_version = match version.is_there() {
            true => version.text_or_number()?.to_owned(),
            false => file.suite_version(),
        };
        let samples = samples(task, &root, MAX_GROUP_DEPTH, &mut left)?;
        let model = root.get("model_name");
        let model = match model.is_there() {
            true => model.maybe_text()?,
            false => root.get("config").get("model").maybe_text()?,
        };
        Ok(Benchmark {
            harness: "lm-eval".into(),
            harness_version: root.get("lm_eval_version").maybe_text()?.map(str::to_owned),
            suite: (*task).to_owned(),
            suite_version,
            model: model.map(crate::fitted),
            metrics,
            lower_is_better,
            overall: None,
            samples_total: samples,
            samples_completed: samples,
            started_at: started,
            finished_at: finished,
            nonce: file.nonce(task),
            log_digest: Some(file.log_digest()),
            mesh: None,
            challenge: None,
        })
    });
    runs.collect()
}

/// `date` is when the run began, to within the loading of the model, and `total_evaluation_time_seconds` counts
/// from before that: their sum may lie some seconds after the end. The file cannot be older than its run, so its
/// time is the other bound.
fn times(root: &Field<'_, '_>, file: &File<'_>) -> Result<(Timestamp, Timestamp), Fault> {
    let date = root.get("date");
    let started = if date.is_there() {
        let seconds = date.number()?;
        let micros = (seconds * 1e6) as i64;
        let time = Timestamp::from_microsecond(micros).ok();
        let time = time.filter(|_| seconds >= 0.0);
        Some(time.ok_or_else(|| date.fault("not a time in seconds since 1970"))?)
    } else {
        None
    };
    let took = root.get("total_evaluation_time_seconds");
    let seconds = match took.is_there() {
        true => {
            let seconds = took.text_or_number()?.parse().ok();
            let seconds = seconds.filter(|it: &f64| (0.0..MAX_RUN_SECONDS).contains(it));
            seconds.ok_or_else(|| took.fault("not a time in seconds, below a year"))?
        }
        false => 0.0,
    };
    let Some(started) = started else {
        return Ok((file.time(), file.time()));
    };
    let took = SignedDuration::from_secs_f64(seconds);
    let finished = started.checked_add(took).unwrap_or(Timestamp::MAX);
    // A run that claims to have begun after its file was written keeps its claim: it lies in the future.
    Ok((started, finished.min(file.time()).max(started)))
}

/// The metrics of a task, and those of them of which less is better.
fn metrics(
    task: &str,
    result: &Field<'_, '_>,
    root: &Field<'_, '_>,
) -> Result<(BTreeMap<String, f64>, BTreeSet<String>), Fault> {
    let (mut metrics, mut lower) = (BTreeMap::new(), BTreeSet::new());
    let higher_is_better = root.get("higher_is_better").get(task);
    for (key, field) in result.entries()? {
        // A key without a filter is no metric, but one of the task's names and counts.
        let Some((metric, _)) = key.split_once(',') else {
            continue;
        };
        if metric.ends_with("_stderr") && field.is_text("N/A") {
            continue;
        }
        metrics.insert(key.to_owned(), field.number()?);
        let direction = higher_is_better.get(metric);
        if direction.is_there() && !direction.flag()? {
            lower.insert(key.to_owned());
        }
    }
    if metrics.is_empty() {
        return Err(result.fault("a task without metrics"));
    }
    Ok((metrics, lower))
}

/// How many samples a task has, or all tasks of a group, if all of them were run. Groups that name each other
/// again and again multiply: `left` is how many tasks of groups are still looked at.
fn samples(task: &str, root: &Field<'_, '_>, depth: usize, left: &mut usize) -> Result<u64, Fault> {
    let counts = root.get("n-samples").get(task);
    if counts.is_there() {
        let (original, effective) = (counts.get("original"), counts.get("effective"));
        let count = original.count()?;
        if effective.count()? != count {
            return Err(effective.fault("fewer samples were run than `original`"));
        }
        return Ok(count);
    }
    let tasks = root.get("group_subtasks").get(task).items()?;
    if tasks.is_empty() || depth == 0 {
        return Err(counts.fault("nobody can tell whether all samples were run"));
    }
    let mut sum = 0u64;
    for task in &tasks {
        let rest = left.checked_sub(1);
        *left = rest.ok_or_else(|| task.fault("one of more tasks of groups than are looked at"))?;
        let count = samples(task.text()?, root, depth - 1, left)?;
        let more = sum.checked_add(count);
        sum = more.ok_or_else(|| task.fault("one sample more than can be counted"))?;
    }
    Ok(sum)
}

/// Most tasks of groups that are looked at in a file, each as often as a group names it.
const MAX_SUBTASKS: usize = 100_000;
/// Most groups in each other.
const MAX_GROUP_DEPTH: usize = 8;
const MAX_RUN_SECONDS: f64 = 365.0 * 86_400.0;
