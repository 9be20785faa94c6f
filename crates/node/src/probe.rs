//! Probes: every peer is sent a real ICMP echo through the tunnel, IPv4 and IPv6, round after round.
//! Excluded nodes are probed too: a status that says "dark" has tried.

use crate::io::clock;
use crate::io::icmp::Echo;
use keys::NodeId;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use wire::NodeName;

/// Whom to probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) node: NodeId,
    pub(crate) name: NodeName,
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Ipv6Addr,
}

/// One echo: its round trip, or why there is none.
pub(crate) type Ping = Result<Duration, PingFailure>;

/// Why an echo was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PingFailure {
    #[error("no answer within {} s", .0.as_secs_f64())]
    Unanswered(Duration),
    #[error("not sent: {0}")]
    NotSent(String),
}

/// What one round found.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    pub(crate) results: Vec<(Target, Ping, Ping)>,
}

/// Probes until nobody wants the results.
pub(crate) async fn run(
    echo: Echo,
    targets: watch::Receiver<Vec<Target>>,
    every: Duration,
    out: mpsc::Sender<Round>,
) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sequence = 0u16;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = out.closed() => return,
        }
        let now = targets.borrow().clone();
        let round = probe(&echo, now, every.min(PATIENCE), &mut sequence).await;
        if out.send(round).await.is_err() {
            return;
        }
    }
}

async fn probe(echo: &Echo, targets: Vec<Target>, patience: Duration, sequence: &mut u16) -> Round {
    let mut waiting: HashMap<u16, (IpAddr, Duration)> = HashMap::new();
    let mut pings: HashMap<IpAddr, Ping> = HashMap::new();
    for address in targets
        .iter()
        .flat_map(|target| [IpAddr::V4(target.v4), IpAddr::V6(target.v6)])
    {
        *sequence = sequence.wrapping_add(1);
        match echo.send(address, *sequence).await {
            Ok(()) => {
                waiting.insert(*sequence, (address, clock::boot()));
            }
            Err(error) => {
                pings.insert(address, Err(PingFailure::NotSent(error.to_string())));
            }
        }
    }
    let deadline = Instant::now() + patience;
    while !waiting.is_empty() {
        let Ok(Ok(reply)) = timeout_at(deadline, echo.recv()).await else {
            break;
        };
        let expected = waiting
            .get(&reply.sequence)
            .is_some_and(|(address, _)| *address == reply.from);
        if expected && let Some((address, sent)) = waiting.remove(&reply.sequence) {
            pings.insert(address, Ok(clock::boot().saturating_sub(sent)));
        }
    }
    let mut take = |address: IpAddr| {
        pings
            .remove(&address)
            .unwrap_or(Err(PingFailure::Unanswered(patience)))
    };
    let results = targets
        .into_iter()
        .map(|target| {
            let (v4, v6) = (take(target.v4.into()), take(target.v6.into()));
            (target, v4, v6)
        })
        .collect();
    Round { results }
}

/// The longest wait for a reply.
const PATIENCE: Duration = Duration::from_secs(1);
