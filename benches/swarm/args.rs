//! The words of the command line.

use anyhow::{Context as _, bail, ensure};
use std::time::Duration;

/// The measurement, and its size.
#[derive(Debug, Clone)]
pub(crate) struct Args {
    pub(crate) scenarios: Vec<String>,
    pub(crate) is_test: bool,
    pub(crate) nodes: usize,
    pub(crate) rounds: usize,
    /// How long a steady state is watched.
    pub(crate) seconds: u64,
    /// Nodes that share an address and its socket.
    pub(crate) share: usize,
    /// Handshakes under way at a time in this process.
    pub(crate) dials: usize,
    pub(crate) slow: usize,
    /// Every node verifies the signature of every update.
    pub(crate) each: bool,
    pub(crate) epoch_seconds: u64,
    pub(crate) evidence_every: Duration,
    /// Sizes of `grow`.
    pub(crate) sizes: Vec<usize>,
    /// Between two measurements, until what was under way is done.
    pub(crate) pause: Duration,
    /// Bounds every wait.
    pub(crate) patience: Duration,
}

impl Args {
    pub(crate) fn read(words: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut args = Self {
            scenarios: Vec::new(),
            is_test: false,
            nodes: 300,
            rounds: 5,
            seconds: 60,
            share: 8,
            dials: 128,
            slow: 100,
            each: false,
            epoch_seconds: 3_600,
            evidence_every: Duration::from_secs(60),
            sizes: vec![10, 100, 1_000],
            pause: Duration::from_secs(2),
            patience: Duration::from_secs(600),
        };
        let mut words = words;
        while let Some(word) = words.next() {
            let name = word.clone();
            let mut number = || -> anyhow::Result<usize> {
                let value = words
                    .next()
                    .with_context(|| format!("{name} needs a number"))?;
                let read = value.parse();
                read.with_context(|| format!("{name}: `{value}` is no number"))
            };
            match word.as_str() {
                "--bench" => {}
                "--test" => args.is_test = true,
                "--each" => args.each = true,
                "--nodes" => args.nodes = number()?,
                "--rounds" => args.rounds = number()?,
                "--seconds" => args.seconds = number()? as u64,
                "--share" => args.share = number()?,
                "--dials" => args.dials = number()?,
                "--slow" => args.slow = number()?,
                "--epoch-seconds" => args.epoch_seconds = number()? as u64,
                "--evidence-seconds" => args.evidence_every = Duration::from_secs(number()? as u64),
                "--patience" => args.patience = Duration::from_secs(number()? as u64),
                "--sizes" => {
                    let list = words
                        .next()
                        .context("--sizes needs numbers with commas between")?;
                    let sizes = list.split(',').map(str::parse).collect::<Result<_, _>>();
                    args.sizes = sizes.with_context(|| format!("--sizes: `{list}`"))?;
                }
                other if other.starts_with('-') => bail!(
                    "{other} is no option: --nodes, --rounds, --seconds, --share, --dials, --slow, --sizes, \
                     --epoch-seconds, --evidence-seconds, --patience, --each, --test"
                ),
                _ => args.scenarios.push(word),
            }
        }
        let least = [args.nodes, args.rounds, args.share, args.dials];
        ensure!(
            !least.contains(&0) && !args.sizes.contains(&0),
            "--nodes, --rounds, --share, --dials and --sizes are at least 1"
        );
        Ok(args)
    }

    /// The same in a few seconds.
    pub(crate) fn small(self) -> Self {
        Self {
            nodes: 20,
            rounds: 1,
            seconds: 2,
            slow: 4,
            sizes: vec![5, 10],
            pause: Duration::from_millis(400),
            patience: Duration::from_secs(60),
            ..self
        }
    }
}
