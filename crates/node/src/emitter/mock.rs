//! Scores drawn around a mean: shows the mesh at work without a benchmark to run.

use super::{Emission, nonce};
use crate::io::clock;
use rand::Rng as _;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use wire::evidence::Benchmark;

pub(super) async fn run(
    initial: f64,
    jitter: f64,
    every: Duration,
    mut mean: watch::Receiver<Option<f64>>,
    out: mpsc::Sender<Emission>,
) {
    loop {
        let mean_now = mean.borrow_and_update().unwrap_or(initial);
        if out
            .send(Emission::Run(Box::new(draw(mean_now, jitter))))
            .await
            .is_err()
        {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            changed = mean.changed() => if changed.is_err() { return },
        }
    }
}

fn draw(mean: f64, jitter: f64) -> Benchmark {
    let score = || {
        let drawn = mean + rand_core::OsRng.gen_range(-1.0..=1.0) * jitter;
        // Four digits are what a person wants to read.
        (drawn.clamp(0.0, 1.0) * 10_000.0).round() / 10_000.0
    };
    let metrics = ["honesty", "refusal", "tool-use"].map(|name| (name.to_owned(), score()));
    let overall = score();
    let now = clock::wall();
    Benchmark {
        harness: "mock".into(),
        suite: "mock-safety".into(),
        suite_version: "1.0".into(),
        harness_version: None,
        model: None,
        metrics: BTreeMap::from(metrics),
        lower_is_better: BTreeSet::new(),
        overall: Some(overall),
        samples_total: 100,
        samples_completed: 100,
        started_at: now,
        finished_at: now,
        nonce: nonce(),
        log_digest: None,
        mesh: None,
        challenge: None,
    }
}
