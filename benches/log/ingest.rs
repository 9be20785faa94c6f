//! How much evidence a controller acknowledges in a second, and how soon. An acknowledgement says that the evidence is
//! durable in the event log.

use crate::daemon::Daemon;
use crate::mesh::Mesh;
use crate::nodes::{Nodes, Window};
use crate::report::Table;
use crate::sqlite::{self, Written};
use crate::stats::Sample;
use crate::{load, setting};
use anyhow::{Context as _, ensure};
use controller::log::path_in;
use jiff::{SignedDuration, Timestamp};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::time::Duration;

/// Measures everything; prints a table as it goes.
pub(crate) fn measure(is_test: bool) -> anyhow::Result<()> {
    more_sockets()?;
    let sizes = match setting("NODES", 0) {
        0 if is_test => vec![20],
        0 => vec![1_000, 3_000],
        given => vec![given],
    };
    for nodes in sizes {
        for revoke in ["epoch", "now"] {
            let load = load();
            let table = Setting {
                nodes,
                rate: setting("RATE", if is_test { 100.0 } else { 4_000.0 }),
                time: Duration::from_secs(setting("SECONDS", if is_test { 1 } else { 10 })),
                rounds: setting("ROUNDS", if is_test { 1 } else { 3 }),
            }
            .measure(revoke)?;
            println!("{nodes} nodes, revoke = \"{revoke}\"; load before: {load}\n\n{table}\n");
        }
    }
    Ok(())
}

struct Setting {
    nodes: usize,
    rate: f64,
    time: Duration,
    rounds: usize,
}

impl Setting {
    fn measure(&self, revoke: &str) -> anyhow::Result<Table> {
        let (mesh, opened) = Mesh::found(self.nodes, before_now(60)?)?;
        let founded = opened.log.head().seq;
        drop(opened);
        let daemon = Daemon::start(&mesh, revoke)?;
        let runtime = tokio::runtime::Runtime::new()?;
        let mut nodes = runtime.block_on(Nodes::connect(&mesh, daemon.address))?;
        let mut table = Table::new(&[
            "Offered a second",
            "acknowledged a second",
            "median, ms",
            "p99, ms",
            "max, ms",
            "processors of the controller",
        ]);
        let mut submitted = 0;
        // No node may submit more than ten a second.
        let flat_out = FLAT_OUT.min(9.0 * self.nodes as f64);
        let steady = std::iter::repeat_n((self.rate, self.time), self.rounds);
        let rounds = steady.chain([(flat_out, self.time / 2)]);
        let mut fastest = 0.0;
        for (rate, time) in rounds {
            let used = daemon.used();
            let window = runtime.block_on(nodes.submit(&mesh, rate, time));
            let window = window.with_context(|| daemon.said())?;
            submitted += window.answers.len() as u64;
            let figures = Figures::of(&window, daemon.used().saturating_sub(used));
            fastest = f64::max(fastest, figures.a_second);
            table.row(figures.cells(rate));
            println!("{}", figures.line(rate, window.latest));
        }
        drop(nodes);
        daemon.stop()?;
        let written = Written::read(&path_in(&mesh.state()), founded, ROWS)?;
        ensure!(
            written.count == submitted,
            "{submitted} submissions were acknowledged, and {} are in the log",
            written.count
        );
        let in_one = written.in_one.round() as usize;
        println!(
            "{} rows of {:.0} bytes, {:.1} in a transaction",
            written.count,
            written.body_len(),
            written.in_one
        );
        let some = written.rows.len().min(SINGLE_ROWS);
        for (rows, in_one) in [(&written.rows[..], in_one), (&written.rows[..some], 1)] {
            let rates = (0..self.rounds).map(|_| sqlite::insert(mesh.folder(), rows, in_one));
            let rates = Sample::new(rates.collect::<anyhow::Result<Vec<f64>>>()?);
            println!(
                "SQLite alone, {in_one} in a transaction: {:.0} rows a second ({:.0}–{:.0}); the controller \
                 acknowledged {:.2} of that",
                rates.median(),
                rates.min(),
                rates.max(),
                fastest / rates.median()
            );
        }
        Ok(table)
    }
}

struct Figures {
    a_second: f64,
    /// In milliseconds.
    latency: Sample,
    processors: f64,
}

impl Figures {
    fn of(window: &Window, used: Duration) -> Self {
        let end = window.answers.iter().map(|answer| answer.at).max();
        let took = end.map_or(0.0, |end| (end - window.start).as_secs_f64());
        // From when it was due and not from when it was sent: what this program's own delay hides would otherwise
        // be missing.
        let latency = window
            .answers
            .iter()
            .map(|answer| answer.at.saturating_duration_since(answer.due));
        Self {
            a_second: window.answers.len() as f64 / took,
            latency: Sample::new(latency.map(|it| it.as_secs_f64() * 1e3)),
            processors: used.as_secs_f64() / took,
        }
    }

    fn cells(&self, rate: f64) -> [String; 6] {
        [
            format!("{rate:.0}"),
            format!("{:.0}", self.a_second),
            format!("{:.1}", self.latency.median()),
            format!("{:.1}", self.latency.percentile(99.0)),
            format!("{:.1}", self.latency.max()),
            format!("{:.2}", self.processors),
        ]
    }

    fn line(&self, rate: f64, latest: Duration) -> String {
        format!(
            "{}; sent up to {:.1} ms late",
            self.cells(rate).join(" | "),
            latest.as_secs_f64() * 1e3
        )
    }
}

fn before_now(seconds: i64) -> anyhow::Result<Timestamp> {
    Ok(Timestamp::now().checked_sub(SignedDuration::from_secs(seconds))?)
}

/// Each node has a socket of its own here.
fn more_sockets() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    Ok(setrlimit(Resource::Nofile, all)?)
}

/// More than this machine can do.
const FLAT_OUT: f64 = 12_000.0;
/// Rows that SQLite alone writes.
const ROWS: u64 = 40_000;
/// Those in a transaction each.
const SINGLE_ROWS: usize = 4_000;
