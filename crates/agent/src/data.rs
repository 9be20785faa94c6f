//! Where the two machines meet: what the member machine wants of the data plane becomes calls of the
//! tunnel. Decides nothing; the order of the calls is the whole of it.

use epoch::{EpochChange, Install, Keep, PeerPlan, Turn};
use keys::{Epoch, Psk, SharedSecret, WgPublicKey};
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tunnel::{Groups, PeerSpec, Protocol, Range, Rule, Tunnel};
use wire::Prefix;
use wire::rules::{Allow, Rules, Traffic};

/// Where peers are said to be, best first.
pub type Places = Vec<(WgPublicKey, Vec<SocketAddr>)>;

/// One change of the data plane. Nothing else happens to the tunnel while it is carried out.
#[derive(Debug)]
pub enum DataChange {
    /// Another epoch is installed, begins or ends; and where its peers are.
    Epoch(EpochChange, Places),
    /// Where peers are said to be.
    Places(Places),
    /// The wall clock was set back; so much time since 1970 it shows now.
    ClockSetBack(Duration),
}

impl DataChange {
    /// The steps of the change, in their order. Others may have the tunnel between two of them: a large epoch is
    /// installed a little at a time. That lets nobody in whom it does not name: those it leaves out are gone
    /// with the first step if it begins at once, and it begins, with the last, for all of its members together.
    /// No other change may come between.
    pub fn steps(self) -> Vec<DataStep> {
        let Self::Epoch(
            EpochChange {
                keep,
                install: Some(install),
                turn,
            },
            places,
        ) = self
        else {
            return vec![DataStep::Change(self)];
        };
        if install.peers.len() <= AT_ONCE {
            let install = Some(install);
            let change = EpochChange {
                keep,
                install,
                turn,
            };
            return vec![DataStep::Change(Self::Epoch(change, places))];
        }
        let Install {
            epoch,
            peers,
            rules,
            own,
            behind,
            lead,
            closes_at,
        } = install;
        let members: HashSet<_> = peers.iter().map(|peer| peer.member.wg).collect();
        let mut places: HashMap<_, _> = places.into_iter().collect();
        let mut steps = Vec::new();
        steps.extend(keep.map(|keep| DataStep::Change(Self::Epoch(keep.into(), Vec::new()))));
        // A peer that an epoch without lead leaves out goes first, and waits for nobody to be let in.
        if matches!(turn, Some(Turn::Begin(_))) {
            let keep = Keep {
                members: members.clone(),
                at_once: true,
            };
            steps.push(DataStep::Change(Self::Epoch(keep.into(), Vec::new())));
        }
        let rules = gates(&rules, own);
        let has_rules = rules.is_some();
        steps.push(DataStep::Prepare(Preparation {
            members,
            rules,
            behind: behind.into_iter().map(range).collect(),
            closes_at,
        }));
        let mut peers = peers.into_iter().peekable();
        while peers.peek().is_some() {
            let some: Vec<_> = peers.by_ref().take(AT_ONCE).collect();
            let place = |peer: &PeerPlan| places.remove_entry(&peer.member.wg);
            steps.push(DataStep::Install(Part {
                epoch,
                lead,
                groups: has_rules.then(|| some.iter().map(in_groups).collect()),
                places: some.iter().filter_map(place).collect(),
                known: some.iter().map(known).collect(),
                networks: some.iter().filter_map(networks).collect(),
                peers: some.into_iter().map(ready).collect(),
            }));
        }
        if turn.is_some() {
            let change = EpochChange {
                turn,
                ..EpochChange::default()
            };
            steps.push(DataStep::Change(Self::Epoch(change, Vec::new())));
        }
        steps
    }

    /// Carries the change out; returns the keys that no tunnel is possible with.
    pub fn carry_out(self, tunnel: &mut Tunnel, now: Duration) -> Vec<WgPublicKey> {
        let (change, places) = match self {
            Self::Epoch(change, places) => (change, places),
            Self::Places(places) => (EpochChange::default(), places),
            Self::ClockSetBack(unix) => {
                tunnel.handle_clock_set_back(unix);
                return Vec::new();
            }
        };
        if let Some(Keep { members, at_once }) = change.keep {
            tunnel.keep_only(&members, at_once);
        }
        let refused = change.install.map(|it| {
            let rules = gates(&it.rules, it.own);
            let in_groups: Vec<_> = it.peers.iter().map(in_groups).collect();
            let networks: Vec<_> = it.peers.iter().filter_map(networks).collect();
            // With the secret that is known already: while the tunnel computes one, nobody else has it.
            for (key, shared) in it.peers.iter().map(known) {
                tunnel.admit(key, shared);
            }
            let peers = it.peers.into_iter().map(ready).collect();
            let refused = tunnel.install(it.epoch, peers, it.lead, it.closes_at, now);
            tunnel.install_own_networks(it.behind.into_iter().map(range).collect());
            tunnel.install_networks(networks);
            if let Some((allow, own)) = rules {
                tunnel.install_rules(allow, own, in_groups);
            }
            refused
        });
        // A place that is told before its peer is installed is forgotten; one that is told after the epoch
        // has begun comes too late for the first handshakes, which then go nowhere until they are repeated.
        for (key, endpoints) in places {
            tunnel.set_endpoints(&key, endpoints, now);
        }
        match change.turn {
            Some(Turn::Begin(epoch)) => tunnel.activate(epoch, now),
            Some(Turn::DiscardPrevious) => tunnel.discard_previous(),
            Some(Turn::Close) => tunnel.close(),
            None => {}
        }
        refused.unwrap_or_default()
    }
}

/// A part of a change that is done without letting go of the tunnel.
#[derive(Debug)]
pub enum DataStep {
    /// A whole change.
    Change(DataChange),
    /// An epoch is about to be installed, in parts.
    Prepare(Preparation),
    /// Some of its members are.
    Install(Part),
}

/// The terms for all members of an epoch that is installed in parts.
#[derive(Debug)]
pub struct Preparation {
    members: HashSet<WgPublicKey>,
    /// With the groups of this node; `None`: everything may pass.
    rules: Option<(Vec<Rule>, Groups)>,
    /// The networks behind this node.
    behind: Vec<Range>,
    closes_at: Option<Duration>,
}

/// Some members of an epoch, as the tunnel takes them.
#[derive(Debug)]
pub struct Part {
    epoch: Epoch,
    lead: Duration,
    known: Vec<(WgPublicKey, Arc<SharedSecret>)>,
    peers: Vec<(PeerSpec, Psk)>,
    /// `None`: there are no rules.
    groups: Option<Vec<(WgPublicKey, Groups)>>,
    /// The networks behind those that have any.
    networks: Vec<(WgPublicKey, Vec<Range>)>,
    places: Places,
}

impl DataStep {
    /// Carries the step out; returns the keys that no tunnel is possible with.
    pub fn carry_out(self, tunnel: &mut Tunnel, now: Duration) -> Vec<WgPublicKey> {
        match self {
            Self::Change(change) => change.carry_out(tunnel, now),
            Self::Prepare(it) => {
                tunnel.prepare(&it.members, it.closes_at);
                tunnel.install_own_networks(it.behind);
                if let Some((allow, own)) = it.rules {
                    tunnel.prepare_rules(allow, own);
                }
                Vec::new()
            }
            Self::Install(part) => {
                for (key, shared) in part.known {
                    tunnel.admit(key, shared);
                }
                let refused = tunnel.install_some(part.epoch, part.peers, part.lead, now);
                // In the same step: a newcomer may be heard as soon as others have the tunnel.
                tunnel.install_groups(part.groups.into_iter().flatten());
                tunnel.install_networks(part.networks);
                for (key, endpoints) in part.places {
                    tunnel.set_endpoints(&key, endpoints, now);
                }
                refused
            }
        }
    }
}

fn known(peer: &PeerPlan) -> (WgPublicKey, Arc<SharedSecret>) {
    (peer.member.wg, Arc::clone(&peer.shared))
}

fn ready(peer: PeerPlan) -> (PeerSpec, Psk) {
    let PeerPlan { member, psk, .. } = peer;
    let allowed = vec![IpAddr::V4(member.v4), IpAddr::V6(member.v6)];
    let key = member.wg;
    (PeerSpec { key, allowed }, psk)
}

/// The networks behind a peer that has any.
fn networks(peer: &PeerPlan) -> Option<(WgPublicKey, Vec<Range>)> {
    let behind: Vec<Range> = peer.member.routes.iter().copied().map(range).collect();
    (!behind.is_empty()).then_some((peer.member.wg, behind))
}

fn range(prefix: Prefix) -> Range {
    Range::new(prefix.address(), prefix.length())
}

/// The rules of an epoch, with the groups of this node; `None`: everything may pass.
fn gates(rules: &Rules, own: wire::rules::Groups) -> Option<(Vec<Rule>, Groups)> {
    match rules.traffic {
        Traffic::Allow => None,
        Traffic::Deny => Some((rules.allow.iter().map(rule).collect(), groups(own))),
    }
}

fn in_groups(peer: &PeerPlan) -> (WgPublicKey, Groups) {
    (peer.member.wg, groups(peer.member.groups))
}

/// A rule, as the data plane has it.
fn rule(allow: &Allow) -> Rule {
    Rule {
        protocol: match allow.protocol {
            wire::rules::Protocol::Any => Protocol::Any,
            wire::rules::Protocol::Tcp => Protocol::Tcp,
            wire::rules::Protocol::Udp => Protocol::Udp,
            wire::rules::Protocol::Icmp => Protocol::Icmp,
        },
        ports: allow
            .ports
            .iter()
            .map(|(first, last)| *first..=*last)
            .collect(),
        from: groups(allow.from),
        to: groups(allow.to),
    }
}

fn groups(groups: wire::rules::Groups) -> Groups {
    Groups(groups.0)
}

/// Peers that are taken care of without letting others have the tunnel: a fraction of a millisecond.
const AT_ONCE: usize = 256;

#[cfg(test)]
mod tests;
