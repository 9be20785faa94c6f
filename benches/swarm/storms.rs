//! The controller is killed and all nodes come back; nodes leave and join all the time.

use crate::args::Args;
use crate::progress::{Progress, Stage};
use crate::report::Table;
use crate::stats::Sample;
use crate::swarm::Swarm;
use anyhow::ensure;
use rand::Rng as _;
use std::time::{Duration, Instant};
use tests::harness::now;
use tokio::time::{sleep, sleep_until};

/// SIGKILL, and another start at once, so many times.
pub(crate) async fn kill(args: &Args, swarm: &mut Swarm) -> anyhow::Result<()> {
    let mut table = Table::new(&[
        "Start",
        "back, s: p50",
        "last",
        "current, s",
        "epoch",
        "resident, MB",
        "peak, MB",
        "controller, s of processor",
    ]);
    for round in 1..=args.rounds {
        let before = swarm.newest();
        swarm.controller.kill()?;
        let started = now();
        swarm.controller.start().await?;
        let back = |it: &Progress| is_back(it, started);
        swarm.all("are back", args.patience, back).await?;
        let at = swarm
            .members
            .iter()
            .filter_map(|it| it.slot.progress().connected_at);
        let since = Sample::new(at.map(|at| at.saturating_duration_since(started).as_secs_f64()));
        // A node is current when it has what the controller says is in force.
        let (in_force, members) = swarm.controller.epoch().await?;
        ensure!(
            in_force >= before,
            "epoch {before} was in force, and {in_force} is now"
        );
        ensure!(
            members == args.nodes as u64,
            "epoch {in_force} has {members} members"
        );
        let current = |it: &Progress| {
            is_back(it, started) && it.activated.is_some_and(|(e, _)| e >= in_force)
        };
        swarm.all("are current", args.patience, current).await?;
        let current = started.elapsed().as_secs_f64();
        let memory = swarm.controller.memory();
        let used = swarm.controller.used();
        // The history goes on from where it was: every node would refuse any other.
        let (next, _) = swarm.rotate(|_| true, args.patience).await?;
        ensure!(next > in_force, "epoch {next} after epoch {in_force}");
        let mb = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
        let row = [
            round.to_string(),
            format!("{:.1}", since.median()),
            format!("{:.1}", since.max()),
            format!("{current:.1}"),
            format!("{before} → {in_force} → {next}"),
            mb(memory.now),
            mb(memory.peak),
            format!("{:.2}", used.as_secs_f64()),
        ];
        println!("{}", row.join(" | "));
        table.row(row);
        swarm.quiet(args.patience).await?;
    }
    println!("\n{table}\n\n{}\n", swarm.world.counts.summary());
    Ok(())
}

fn is_back(progress: &Progress, started: Instant) -> bool {
    let since = progress.connected_at.is_some_and(|at| at > started);
    progress.stage == Stage::Connected && since
}

/// One in a hundred leaves for good each minute, and another joins in its place.
pub(crate) async fn churn(args: &Args, swarm: &mut Swarm) -> anyhow::Result<()> {
    let before = swarm.meter();
    let epoch = swarm.newest();
    let begun = now();
    let time = Duration::from_secs(args.seconds);
    let every = Duration::from_secs_f64(60.0 * 100.0 / args.nodes as f64).min(time / 4);
    let mut changes = 0;
    let mut due = begun;
    while begun.elapsed() < time {
        replace_one(swarm).await?;
        changes += 1;
        due += every;
        sleep_until(due.into()).await;
    }
    let spent = swarm.spent(&before);
    let last = swarm.quiet(args.patience).await?;
    let since = swarm.members[args.nodes - changes.min(args.nodes)..].iter();
    let mut table = Table::new(&[
        "Left and joined",
        "in, s",
        "epochs",
        "controller, % of a core",
        "peak, MB",
        "frames to nodes, MB",
    ]);
    table.row([
        changes.to_string(),
        format!("{:.0}", spent.time.as_secs_f64()),
        (last - epoch).to_string(),
        format!(
            "{:.1}",
            100.0 * spent.used.as_secs_f64() / spent.time.as_secs_f64()
        ),
        format!("{:.1}", swarm.controller.memory().peak as f64 / 1e6),
        format!("{:.1}", spent.frames as f64 / 1e6),
    ]);
    let members = since.filter(|it| it.slot.progress().is_member).count();
    println!(
        "{table}\n\n{members} newcomers are members\n\n{}\n",
        swarm.world.counts.summary()
    );
    sleep(Duration::from_millis(100)).await;
    Ok(())
}

async fn replace_one(swarm: &mut Swarm) -> anyhow::Result<()> {
    let number = rand_core::OsRng.gen_range(0..swarm.members.len());
    let name = swarm.members[number].name.clone();
    swarm.leave(number).await?;
    swarm.controller.remove(name.as_str()).await?;
    swarm.add(1).await
}
