//! Probes: every peer is sent a real ICMP echo through the tunnel, IPv4 and IPv6, round after round.
//! Excluded nodes are probed too: a status that says "dark" has tried. The sizes of packets that paths
//! carry are tried with larger echoes, which go past the interface and its MTU.

use crate::data::Ruler;
use crate::io::clock;
use crate::io::icmp::{Echo, Sockets};
use crate::io::ways::{self, Exits};
use agent::{Echoes, Ping, PingFailure, Round, Target};
use keys::SegmentId;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

/// The means of a round.
pub(crate) struct Prober {
    pub(crate) echo: Echo,
    pub(crate) ruler: Ruler,
    /// This node's mesh address.
    pub(crate) own: Ipv4Addr,
}

/// Everything that a probe goes by besides its means.
pub(crate) struct Subjects {
    /// Whom to probe.
    pub(crate) targets: watch::Receiver<Vec<Target>>,
    /// Where packets to them should leave.
    pub(crate) exits: Arc<Exits>,
    /// Sockets on an interface that was made anew.
    pub(crate) fresh: mpsc::Receiver<Sockets>,
    /// The segment that they are in.
    pub(crate) segment: SegmentId,
}

/// Probes until nobody sets targets any more, or wants the results.
pub(crate) async fn run(
    mut prober: Prober,
    mut subjects: Subjects,
    every: Duration,
    out: mpsc::Sender<(SegmentId, Round)>,
) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sequence = 0u16;
    loop {
        let is_search = tokio::select! {
            _ = ticks.tick() => false,
            // At once: until it is done, packets may be too large for a path.
            goes_on = search_goes_on(&mut subjects.targets) => {
                if !goes_on {
                    return;
                }
                true
            }
            Some(sockets) = subjects.fresh.recv() => {
                if let Err(error) = prober.echo.replace(sockets) {
                    tracing::warn!(%error, "peers are not probed on the new interface");
                }
                continue;
            }
            () = out.closed() => return,
        };
        let mut now = subjects.targets.borrow_and_update().clone();
        now.retain(|target| !is_search || target.search > 0);
        let mut round = probe(&prober, now.clone(), every.min(PATIENCE), &mut sequence).await;
        round.is_search = is_search;
        if !is_search {
            // The echoes are bound to the tunnel; whether applications take it is another question.
            round.ways = ways::ask(&subjects.exits, &now).await;
        }
        if out.send((subjects.segment, round)).await.is_err() {
            return;
        }
    }
}

/// Resolves when targets are set of which one is searched for its size; `false`: nobody sets any more.
async fn search_goes_on(targets: &mut watch::Receiver<Vec<Target>>) -> bool {
    let is_search = |targets: &Vec<Target>| targets.iter().any(|target| target.search > 0);
    while targets.changed().await.is_ok() {
        if is_search(&targets.borrow_and_update()) {
            return true;
        }
    }
    false
}

/// An echo: to whom, and of which size if it is not small.
type Question = (IpAddr, Option<u32>);

async fn probe(
    prober: &Prober,
    targets: Vec<Target>,
    patience: Duration,
    sequence: &mut u16,
) -> Round {
    let Prober { echo, ruler, own } = prober;
    let mut waiting: HashMap<u16, (Question, Duration)> = HashMap::new();
    let mut pings: HashMap<Question, Ping> = HashMap::new();
    for target in &targets {
        for address in [IpAddr::V4(target.v4), IpAddr::V6(target.v6)] {
            *sequence = sequence.wrapping_add(1);
            let question = (address, None);
            match echo.send(address, *sequence).await {
                Ok(()) => {
                    waiting.insert(*sequence, (question, clock::boot()));
                }
                Err(error) => {
                    pings.insert(question, Err(PingFailure::NotSent(error.to_string())));
                }
            }
        }
        for size in &target.sizes {
            *sequence = sequence.wrapping_add(1);
            let question = (IpAddr::V4(target.v4), Some(*size));
            let size = u16::try_from(*size).unwrap_or(u16::MAX);
            ruler.send(echo.packet((*own, target.v4), *sequence, size));
            waiting.insert(*sequence, (question, clock::boot()));
        }
    }
    let deadline = Instant::now() + patience;
    while !waiting.is_empty() {
        let Ok(Ok(reply)) = timeout_at(deadline, echo.recv()).await else {
            break;
        };
        let expected = waiting
            .get(&reply.sequence)
            .is_some_and(|((address, _), _)| *address == reply.from);
        if expected && let Some((question, sent)) = waiting.remove(&reply.sequence) {
            pings.insert(question, Ok(clock::boot().saturating_sub(sent)));
        }
    }
    let mut take = |question: Question| {
        pings
            .remove(&question)
            .unwrap_or(Err(PingFailure::Unanswered(patience)))
    };
    let results = targets.into_iter().map(|target| {
        let (v4, v6) = (IpAddr::V4(target.v4), IpAddr::V6(target.v6));
        let answered = |size: &u32| (*size, take((v4, Some(*size))).is_ok());
        let large = target.sizes.iter().map(answered).collect();
        Echoes {
            v4: take((v4, None)),
            v6: take((v6, None)),
            large,
            target,
        }
    });
    Round {
        results: results.collect(),
        is_search: false,
        ways: Vec::new(),
    }
}

/// The longest wait for a reply.
const PATIENCE: Duration = Duration::from_secs(1);
