//! One epoch: pushed, verified, acknowledged; beside a bare push, with nodes that leave, and with readers that do not
//! read.

use crate::args::Args;
use crate::bare::Bare;
use crate::node::Order;
use crate::report::{Table, ms};
use crate::stats::Sample;
use crate::swarm::{Swarm, Times};
use anyhow::ensure;
use tests::harness::now;
use tokio::time::sleep;

/// An epoch change by an operator's order, and a bare push of as many bytes.
pub(crate) async fn rotate(args: &Args, swarm: &mut Swarm) -> anyhow::Result<()> {
    swarm.evidence(None);
    let mut bare = Bare::connect(swarm).await?;
    let mut epochs = Epochs::default();
    let mut pushes = Vec::new();
    let mut bytes = 0;
    for _ in 0..args.rounds {
        sleep(args.pause).await;
        let before = swarm.meter();
        let (_, times) = swarm.rotate(|_| true, args.patience).await?;
        bytes = swarm.spent(&before).frames as usize / swarm.members.len();
        epochs.take(&times);
        sleep(args.pause).await;
        pushes.extend_from_slice(bare.push(bytes, args.patience).await?.values());
    }
    bare.end().await?;
    let [arrived, acknowledged] = epochs.samples();
    let bare = Sample::new(pushes);
    let mut table = Table::new(&HEAD);
    let rows = [
        ("a bare push is there", &bare),
        ("the update is there", &arrived),
        ("verified and acknowledged", &acknowledged),
    ];
    for (name, sample) in rows {
        table.row(cells(name, sample));
    }
    let ratio = |percent: f64| acknowledged.percentile(percent) / bare.percentile(percent);
    let ratios = [0.0, 50.0, 99.0, 100.0].map(|it| format!("{:.2}", ratio(it)));
    let [first, p50, p99, max] = ratios;
    table.row(["acknowledged : bare".to_owned(), first, p50, p99, max]);
    println!(
        "{bytes} bytes to each of {} nodes, {} rounds\n\n{table}\n",
        args.nodes, args.rounds
    );
    Ok(())
}

/// One in a hundred is evicted at once.
pub(crate) async fn evict(args: &Args, swarm: &mut Swarm) -> anyhow::Result<()> {
    let evicted = (args.nodes / 100).max(1);
    let mut table = Table::new(&HEAD);
    for round in 0..args.rounds {
        sleep(args.pause).await;
        let from = round * evicted;
        let upto = from + evicted;
        ensure!(
            upto < args.nodes,
            "no node is left to stay: fewer --rounds, or more --nodes"
        );
        let before = swarm.newest();
        let ordered = now();
        let names = swarm.members[from..upto].iter().map(|it| it.name.as_str());
        let names: Vec<&str> = names.collect();
        let epoch = swarm.controller.evict(&names).await?.epoch;
        let is_left = |number: usize| number >= upto;
        let times = swarm.times(epoch, ordered, is_left, args.patience).await?;
        let name = format!("{evicted} evicted, in {} epochs", epoch - before);
        table.row(cells(&name, &times.acknowledged));
        let gone = swarm.count(|it| !it.is_member);
        ensure!(
            gone == upto,
            "{gone} nodes are no members, and {upto} were evicted"
        );
    }
    println!("Until those that stay have acknowledged that they are gone\n\n{table}\n");
    Ok(())
}

/// Some nodes stop reading. What do the others notice?
pub(crate) async fn slow(args: &Args, swarm: &mut Swarm) -> anyhow::Result<()> {
    swarm.evidence(None);
    let slow = args.slow.min(args.nodes / 2);
    let reads = |number: usize| number >= slow;
    let mut table = Table::new(&HEAD);
    let mut medians = Vec::new();
    for (name, is_slow) in [
        ("all read", false),
        ("some do not", true),
        ("all read again", false),
    ] {
        let order = if is_slow {
            Order::StopReading
        } else {
            Order::Serve
        };
        swarm.members[..slow].iter().for_each(|it| it.order(order));
        sleep(args.pause).await;
        let mut epochs = Epochs::default();
        for _ in 0..args.rounds {
            let (_, times) = swarm.rotate(reads, args.patience).await?;
            epochs.take(&times);
            sleep(args.pause).await;
        }
        let [_, acknowledged] = epochs.samples();
        medians.push(acknowledged.median());
        table.row(cells(name, &acknowledged));
    }
    // Those that were cut off, or have read at last, are current again.
    swarm.quiet(args.patience).await?;
    println!(
        "Acknowledged by the {} that read; {slow} do not; the controller's peak is {} MB\n\n{table}\n",
        args.nodes - slow,
        swarm.controller.memory().peak / 1_000_000
    );
    Ok(())
}

/// The times of several epochs together.
#[derive(Default)]
struct Epochs {
    arrived: Vec<f64>,
    acknowledged: Vec<f64>,
}

impl Epochs {
    fn take(&mut self, times: &Times) {
        self.arrived.extend_from_slice(times.arrived.values());
        self.acknowledged
            .extend_from_slice(times.acknowledged.values());
    }

    fn samples(self) -> [Sample; 2] {
        [Sample::new(self.arrived), Sample::new(self.acknowledged)]
    }
}

fn cells(name: &str, sample: &Sample) -> [String; 5] {
    [
        name.to_owned(),
        ms(sample.min()),
        ms(sample.median()),
        ms(sample.percentile(99.0)),
        ms(sample.max()),
    ]
}

const HEAD: [&str; 5] = ["Since the order, ms", "first", "p50", "p99", "max"];
