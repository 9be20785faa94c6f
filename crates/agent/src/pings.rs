//! The meaning of a round of probes: lines for the operator, a report for the controller, and the cause of
//! what was not answered. Observes; decides nothing.

use crate::effect::Now;
use crate::places::Whereabouts;
use crate::sample::Sample;
use crate::ways::{PeerWays, Ways};
use epoch::member::View;
use jiff::Timestamp;
use keys::{Epoch, NodeId, WgPublicKey};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use tunnel::PeerSnapshot;
use wire::message::{MAX_ECHOES, PeerReport, TunnelReport};
use wire::{NodeName, Way};

/// A node to probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: NodeName,
    /// Its mesh address.
    pub v4: Ipv4Addr,
    /// Its mesh address.
    pub v6: Ipv6Addr,
    /// Sizes of more echoes over IPv4, in bytes: what the path to it carries.
    pub sizes: Vec<u32>,
    /// Which round of a search for that size is next, from 1: it is not to wait for the others. 0: none.
    pub search: u32,
}

/// One echo: its round trip, or why there is none.
pub type Ping = Result<Duration, PingFailure>;

/// Why an echo was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PingFailure {
    /// It was sent, and nothing came back in time.
    #[error("no answer within {} s", .0.as_secs_f64())]
    Unanswered(Duration),
    /// The system did not send it.
    #[error("not sent: {0}")]
    NotSent(String),
    /// Applications' packets leave by this interface, and the echo says nothing of them.
    #[error("packets go by way of {0}, not through the tunnel: remove that route")]
    Astray(String),
    /// The same, and the system lets them go nowhere.
    #[error("packets go nowhere, not through the tunnel: remove that route or rule")]
    Refused,
    /// It was answered, and nobody knows whether packets take the tunnel.
    #[error("unknown: the system does not say whether packets go through the tunnel")]
    WayUnknown,
}

/// The findings of one round.
#[derive(Debug, Clone)]
pub struct Round {
    /// The answers of each target.
    pub results: Vec<Echoes>,
    /// Whether it is one of a search: for the sizes alone, and not towards everybody.
    pub is_search: bool,
    /// Where the kernel sends what is meant for the targets, asked when the round was over.
    pub ways: Vec<PeerWays>,
}

/// The answers of one target.
#[derive(Debug, Clone)]
pub struct Echoes {
    /// The target.
    pub target: Target,
    /// Over IPv4.
    pub v4: Ping,
    /// Over IPv6.
    pub v6: Ping,
    /// Sizes that could be sent, and whether each was answered.
    pub large: Vec<(u32, bool)>,
}

/// The last echoes of one peer.
#[derive(Debug, Clone)]
pub struct PingResult {
    /// Over IPv4.
    pub v4: Ping,
    /// Over IPv6.
    pub v6: Ping,
    /// When the round was over.
    pub at: Timestamp,
    /// The same on the boot-time clock.
    boot: Duration,
    /// Whether there was a tunnel by what was in force then.
    tunnel: bool,
    /// The fate of the last echoes by that tunnel.
    history: History,
    /// The epoch in which the result was last logged, and whether both families answered.
    logged: (Option<Epoch>, bool, bool),
}

/// The fate of the last echoes by a tunnel: a bit for each, set for those that were not answered, the newest lowest.
#[derive(Debug, Clone, Copy, Default)]
struct History {
    lost: u64,
    echoes: u8,
}

impl History {
    fn push(&mut self, ping: &Ping) {
        self.lost = self.lost << 1 | u64::from(ping.is_err());
        self.echoes = MAX_ECHOES.min(self.echoes + 1);
    }

    fn lost(self) -> u8 {
        // At most the 64 bits of it.
        self.lost.count_ones() as u8
    }
}

/// The last echoes, by node. A round may look at some nodes alone: what is known of the others stays for a while.
#[derive(Debug, Default)]
pub(crate) struct Pings(HashMap<NodeId, PingResult>);

impl Pings {
    /// The last echoes of a node, as they count with the ways of now. Those of before it was cut off, or let in,
    /// say nothing about now.
    pub(crate) fn of(
        &self,
        node: &NodeId,
        (own, view): (&NodeId, &View<'_>),
        ways: &Ways,
    ) -> Option<PingResult> {
        let mut result = self.0.get(node)?.clone();
        if result.tunnel != has_tunnel(view, own, node) {
            return None;
        }
        let [way_v4, way_v6] = ways.of(node);
        result.v4 = judged(result.v4, &way_v4);
        result.v6 = judged(result.v6, &way_v6);
        Some(result)
    }

    /// Takes a round; the report of it, and of the tunnels that it went through.
    pub(crate) fn handle_round(
        &mut self,
        results: Vec<Echoes>,
        own: &NodeId,
        view: &View<'_>,
        peers: &[PeerSnapshot],
        (ways, places): (&Ways, &Whereabouts),
        now: Now,
    ) -> (Vec<PeerReport>, Vec<TunnelReport>) {
        let epoch = view.update.map(|update| update.epoch);
        let sessions: HashMap<_, _> = peers.iter().map(|it| (it.key, it)).collect();
        let mut reports = Vec::with_capacity(results.len());
        let mut tunnels = Vec::new();
        self.forget(view, now.boot);
        for Echoes { target, v4, v6, .. } in results {
            let [way_v4, way_v6] = ways.of(&target.node);
            // The echoes are kept as they were: a way may change before the next round.
            let heard = (v4.clone(), v6.clone());
            let (v4, v6) = (judged(v4, &way_v4), judged(v6, &way_v6));
            let logged = (epoch, v4.is_ok(), v6.is_ok());
            let before = self.0.get(&target.node).map(|ping| ping.logged);
            if before != Some(logged) {
                let of = |ping: &Ping| cause(view, own, &target.node, (ping, places));
                log(&target.name, target.v4.into(), &v4, of);
                log(&target.name, target.v6.into(), &v6, of);
            }
            let session = session(view, &target.node, &sessions);
            reports.push(PeerReport {
                node: target.node,
                session_epoch: session.and_then(|it| it.session_epoch),
                rtt_v4_us: micros(&v4),
                rtt_v6_us: micros(&v6),
                way_v4,
                way_v6,
            });
            let (v4, v6) = heard;
            let tunnel = has_tunnel(view, own, &target.node);
            let before = self.0.get(&target.node).filter(|it| it.tunnel == tunnel);
            let mut history = before.map(|it| it.history).unwrap_or_default();
            history.push(&v4);
            history.push(&v6);
            if tunnel {
                let age = session.and_then(|it| it.session_age);
                tunnels.push(TunnelReport {
                    node: target.node,
                    handshake_age: age.map(|it| it.as_secs().try_into().unwrap_or(u32::MAX)),
                    echoes: history.echoes,
                    lost: history.lost(),
                });
            }
            let result = PingResult {
                v4,
                v6,
                at: now.wall,
                boot: now.boot,
                tunnel,
                history,
                logged,
            };
            self.0.insert(target.node, result);
        }
        (reports, tunnels)
    }

    /// Forgets what is long ago, and nodes that the epoch in force does not name.
    fn forget(&mut self, view: &View<'_>, now: Duration) {
        let is_named = |node: &NodeId| {
            let names = |update: &wire::EpochUpdate| {
                update.member(node).is_some() || update.exclusion(node).is_some()
            };
            view.update.is_some_and(names)
        };
        let is_recent = |it: &PingResult| now.saturating_sub(it.boot) < LASTS;
        self.0.retain(|node, it| is_recent(it) && is_named(node));
    }

    /// Whether anything is known of a node.
    pub(crate) fn knows(&self, node: &NodeId) -> bool {
        self.0.contains_key(node)
    }
}

/// An echo as it counts: it came back by the tunnel because the probe is bound to it, but where the kernel sends
/// applications elsewhere, the pair is not well.
fn judged(ping: Ping, way: &Way) -> Ping {
    match (way, ping) {
        (Way::Link(link), _) => Err(PingFailure::Astray(link.clone())),
        (Way::Nowhere, _) => Err(PingFailure::Refused),
        (Way::Unknown, Ok(_)) => Err(PingFailure::WayUnknown),
        (Way::Unknown | Way::Tunnel, ping) => ping,
    }
}

/// A node as an update names it: its key if it is a member.
type Named<'v> = (
    NodeId,
    Option<WgPublicKey>,
    (&'v NodeName, Ipv4Addr, Ipv6Addr),
);

/// Of everybody else whom the epoch in force names, members and excluded, those to look at next. Excluded nodes are
/// probed too: a status that says "dark" has tried.
pub(crate) fn targets(
    own: &NodeId,
    view: &View<'_>,
    sample: &mut Sample,
) -> Vec<(Target, Option<WgPublicKey>)> {
    let Some(update) = view.update else {
        return Vec::new();
    };
    // A pair that the rules keep apart has no tunnel to look at, and a segment has hubs because its nodes are many.
    let own_groups = update.member(own).map(|it| it.groups);
    let apart =
        |it: &wire::Member| own_groups.is_some_and(|own| !update.rules.connect(own, it.groups));
    let members = update.roster.iter().filter(|it| !apart(it));
    let members = members.map(|m| (m.node, Some(m.wg), (&m.name, m.v4, m.v6)));
    let excluded = update.excluded.iter();
    let excluded = excluded.map(|e| (e.node, None, (&e.name, e.v4, e.v6)));
    let others = members.chain(excluded).filter(|(node, ..)| node != own);
    let others: Vec<Named<'_>> = others.collect();
    let chosen = sample.choose(others, |(node, key, _)| (*node, *key));
    let target = |(node, key, (name, v4, v6)): Named<'_>| {
        let target = Target {
            node,
            name: name.clone(),
            v4,
            v6,
            sizes: Vec::new(),
            search: 0,
        };
        (target, key)
    };
    chosen.into_iter().map(target).collect()
}

/// Whether what is in force gives this node a tunnel to another.
fn has_tunnel(view: &View<'_>, own: &NodeId, node: &NodeId) -> bool {
    let connects = |update: &wire::EpochUpdate| update.connects(own, node);
    !view.is_closed() && view.update.is_some_and(connects)
}

/// Whether two members have no tunnel because neither is a hub.
pub(crate) fn are_apart(update: &wire::EpochUpdate, own: &NodeId, node: &NodeId) -> bool {
    let is_member = |node| update.member(node).is_some();
    is_member(own) && is_member(node) && !update.connects(own, node)
}

/// Why an echo to `node` failed, with what the epoch says about it.
pub(crate) fn cause(
    view: &View<'_>,
    own: &NodeId,
    node: &NodeId,
    (ping, places): (&Ping, &Whereabouts),
) -> String {
    if view.is_closed() {
        return "no tunnel: the lease is over".to_owned();
    }
    let excluded = |node| view.update.and_then(|update| update.exclusion(node));
    if let Some(denial) = view.update.and_then(|update| update.denial(own)) {
        return format!("no tunnel: this node is denied, {denial}");
    }
    if let Some(other) = excluded(node) {
        return format!("no tunnel: denied, {}", other.reason);
    }
    if view
        .update
        .is_some_and(|update| are_apart(update, own, node))
    {
        return NO_HUB.to_owned();
    }
    let failure = ping.as_ref().err();
    let is_lost =
        |it: &PingFailure| matches!(it, PingFailure::Unanswered(_) | PingFailure::NotSent(_));
    if failure.is_some_and(is_lost)
        && let Some(gap) = places.gap(node)
    {
        return gap;
    }
    failure.map_or_else(String::new, ToString::to_string)
}

fn log(name: &NodeName, address: IpAddr, ping: &Ping, cause: impl Fn(&Ping) -> String) {
    match ping {
        Ok(rtt) => {
            let rtt_ms = (rtt.as_secs_f64() * 1e6).round() / 1e3;
            tracing::info!(peer = %name, %address, rtt_ms, ok = true, "PING {name} OK ({address})");
        }
        Err(_) => {
            let cause = cause(ping);
            tracing::info!(peer = %name, %address, %cause, ok = false, "PING {name} FAIL ({cause})");
        }
    }
}

fn session<'p>(
    view: &View<'_>,
    node: &NodeId,
    sessions: &HashMap<WgPublicKey, &'p PeerSnapshot>,
) -> Option<&'p PeerSnapshot> {
    let key = view.update?.member(node)?.wg;
    sessions.get(&key).copied()
}

/// An echo says nothing any more of a pair after this.
const LASTS: Duration = Duration::from_secs(300);

fn micros(ping: &Ping) -> Option<u32> {
    let rtt = ping.as_ref().ok()?;
    Some(u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX))
}

/// Said of a member that this node has no tunnel to by the rules of the segment.
pub(crate) const NO_HUB: &str = "no tunnel: neither is a hub";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_echoes_are_counted_among_the_last_ones() {
        let silent: Ping = Err(PingFailure::Unanswered(Duration::from_secs(1)));
        let answered: Ping = Ok(Duration::from_millis(1));
        let mut history = History::default();
        history.push(&silent);
        history.push(&answered);
        assert_eq!((history.echoes, history.lost()), (2, 1));
        for _ in 0..u16::from(MAX_ECHOES) * 5 {
            history.push(&silent);
        }
        assert_eq!((history.echoes, history.lost()), (MAX_ECHOES, MAX_ECHOES));
        for _ in 1..MAX_ECHOES {
            history.push(&answered);
        }
        assert_eq!((history.echoes, history.lost()), (MAX_ECHOES, 1));
        history.push(&answered);
        assert_eq!((history.echoes, history.lost()), (MAX_ECHOES, 0));
    }

    #[test]
    fn a_pair_is_well_only_if_its_traffic_takes_the_tunnel() {
        let answered: Ping = Ok(Duration::from_millis(1));
        assert_eq!(judged(answered.clone(), &Way::Tunnel), answered);
        let failure = |way: &Way| judged(answered.clone(), way).unwrap_err().to_string();
        assert_eq!(
            failure(&Way::Link("eth1".into())),
            "packets go by way of eth1, not through the tunnel: remove that route"
        );
        assert!(failure(&Way::Nowhere).contains("not through the tunnel"));
        assert!(failure(&Way::Unknown).starts_with("unknown"));
        // With an echo that failed by itself, an unknown way is no news.
        let silent: Ping = Err(PingFailure::Unanswered(Duration::from_secs(1)));
        assert_eq!(judged(silent.clone(), &Way::Unknown), silent);
    }
}
