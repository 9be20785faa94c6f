//! Nodes join from nothing, and then rest; what that costs as the mesh grows.

use crate::args::Args;
use crate::progress::Stage;
use crate::report::{Table, count};
use crate::stats::Sample;
use crate::swarm::{Spent, Swarm};
use std::time::Duration;
use tokio::time::sleep;

/// A mesh whose nodes have all joined, and what that took.
pub(crate) struct Joined {
    pub(crate) swarm: Swarm,
    pub(crate) spent: Spent,
    /// Seconds from the beginning to each node's first membership.
    since: Sample,
    epochs: u64,
}

/// Founds a mesh, and lets all nodes join at once.
pub(crate) async fn joined(args: &Args, nodes: usize) -> anyhow::Result<Joined> {
    let mut swarm = Swarm::found(args).await?;
    let before = swarm.meter();
    let begun = tests::harness::now();
    swarm.add(nodes).await?;
    let epochs = swarm.settled(args.patience).await?;
    let spent = swarm.spent(&before);
    let at = swarm
        .members
        .iter()
        .filter_map(|it| it.slot.progress().member_at);
    let since = Sample::new(at.map(|at| at.saturating_duration_since(begun).as_secs_f64()));
    swarm.quiet(args.patience).await?;
    Ok(Joined {
        swarm,
        spent,
        since,
        epochs,
    })
}

impl Joined {
    pub(crate) const HEAD: [&str; 9] = [
        "Nodes",
        "members, s: median",
        "last",
        "epochs",
        "controller, s of processor",
        "peak, MB",
        "peak, kB a node",
        "frames to nodes, MB",
        "UDP to nodes, MB",
    ];

    pub(crate) fn cells(&self) -> [String; 9] {
        let nodes = self.swarm.members.len();
        let peak = self.swarm.controller.memory().peak;
        let mb = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
        [
            count(nodes as u64),
            format!("{:.1}", self.since.median()),
            format!("{:.1}", self.spent.time.as_secs_f64()),
            self.epochs.to_string(),
            format!("{:.2}", self.spent.used.as_secs_f64()),
            mb(peak),
            format!("{:.1}", peak as f64 / 1e3 / nodes as f64),
            mb(self.spent.frames),
            mb(self.spent.datagrams),
        ]
    }

    /// The table of one join.
    pub(crate) fn print(&self) {
        let mut table = Table::new(&Self::HEAD);
        table.row(self.cells());
        println!("{table}\n\n{}\n", self.swarm.world.counts.summary());
    }
}

/// All nodes are there, and nothing happens; then the same beside evidence.
pub(crate) async fn idle(args: &Args, swarm: &mut Swarm) -> anyhow::Result<()> {
    let mut table = Table::new(&[
        "At rest",
        "controller, % of a core",
        "resident, kB a node",
        "peak, kB a node",
        "evidence a second",
    ]);
    let time = Duration::from_secs(args.seconds);
    for (name, evidence) in [
        ("without evidence", None),
        ("with evidence", Some(args.evidence_every)),
    ] {
        swarm.evidence(evidence);
        sleep(args.pause).await;
        let before = swarm.meter();
        let accepted = swarm
            .world
            .counts
            .accepted
            .load(std::sync::atomic::Ordering::Relaxed);
        sleep(time).await;
        let spent = swarm.spent(&before);
        let accepted = swarm
            .world
            .counts
            .accepted
            .load(std::sync::atomic::Ordering::Relaxed)
            - accepted;
        let memory = swarm.controller.memory();
        let per_node = |bytes: u64| format!("{:.1}", bytes as f64 / 1e3 / args.nodes as f64);
        table.row([
            name.to_owned(),
            format!(
                "{:.2}",
                100.0 * spent.used.as_secs_f64() / spent.time.as_secs_f64()
            ),
            per_node(memory.now),
            per_node(memory.peak),
            format!("{:.1}", accepted as f64 / spent.time.as_secs_f64()),
        ]);
        let stay = |it: &crate::progress::Progress| it.stage == Stage::Connected;
        swarm
            .all("are connected", Duration::from_secs(1), stay)
            .await?;
    }
    println!("{table}\n");
    Ok(())
}

/// The same at several sizes, and the exponents by which it grows.
pub(crate) async fn grow(args: &Args) -> anyhow::Result<()> {
    let mut joins = Table::new(&Joined::HEAD);
    let mut epochs = Table::new(&[
        "Nodes",
        "an epoch: controller, ms of processor",
        "frames to nodes, kB",
        "UDP to nodes, kB",
        "acknowledged, ms: p50",
        "p99",
    ]);
    let mut points: Vec<[f64; 6]> = Vec::new();
    for nodes in args.sizes.clone() {
        let mut joined = joined(args, nodes).await?;
        joins.row(joined.cells());
        println!("{}\n", joined.cells().join(" | "));
        let peak = joined.swarm.controller.memory().peak;
        let swarm = &mut joined.swarm;
        swarm.evidence(None);
        sleep(args.pause).await;
        let before = swarm.meter();
        let mut acknowledged = Vec::new();
        for _ in 0..args.rounds {
            let (_, times) = swarm.rotate(|_| true, args.patience).await?;
            acknowledged.extend_from_slice(times.acknowledged.values());
        }
        let spent = swarm.spent(&before);
        let rounds = args.rounds as f64;
        let acknowledged = Sample::new(acknowledged);
        let used = spent.used.as_secs_f64() / rounds;
        epochs.row([
            count(nodes as u64),
            format!("{:.0}", used * 1e3),
            format!("{:.1}", spent.frames as f64 / rounds / 1e3),
            format!("{:.1}", spent.datagrams as f64 / rounds / 1e3),
            format!("{:.1}", acknowledged.median()),
            format!("{:.1}", acknowledged.percentile(99.0)),
        ]);
        let per_join = joined.spent.frames as f64 / nodes as f64;
        points.push([
            nodes as f64,
            joined.spent.used.as_secs_f64(),
            peak as f64,
            per_join,
            used,
            spent.frames as f64 / rounds,
        ]);
    }
    println!("{joins}\n\n{epochs}\n");
    let mut table = Table::new(&["It grows with the nodes to the power of", ""]);
    let names = [
        "processor time of all joins",
        "peak memory",
        "bytes of one node's join",
        "processor time of an epoch",
        "bytes of an epoch",
    ];
    for (at, name) in names.into_iter().enumerate() {
        let points = points.iter().map(|point| (point[0], point[at + 1]));
        table.row([name.to_owned(), format!("{:.2}", exponent(points))]);
    }
    println!("{table}\n");
    Ok(())
}

/// The exponent of the power law that fits best: the slope of the least squares of the logarithms.
fn exponent(points: impl Iterator<Item = (f64, f64)>) -> f64 {
    let logs: Vec<(f64, f64)> = points.map(|(x, y)| (x.ln(), y.max(1e-9).ln())).collect();
    let n = logs.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| logs.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(|it| it.0), mean(|it| it.1));
    let both: f64 = logs.iter().map(|it| (it.0 - x) * (it.1 - y)).sum();
    let square: f64 = logs.iter().map(|it| (it.0 - x).powi(2)).sum();
    both / square
}
