//! Where the two machines meet: what the member machine wants of the data plane becomes calls of the
//! tunnel. Decides nothing; the order of the calls is the whole of it.

use epoch::{EpochChange, Install, Keep, PeerPlan, Turn};
use keys::{Epoch, Psk, SharedSecret, WgPublicKey};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tunnel::{Groups, PeerSpec, Protocol, Rule, Tunnel};
use wire::rules::{Allow, Traffic};

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
    /// The steps of the change, in their order. Others may have the tunnel between two of them: all that can
    /// take long is done before the last, a little at a time, and takes nobody in whom the change does not name.
    /// The last is the change itself.
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
        // A peer that an epoch without lead leaves out goes first: it waits for no newcomer.
        let begins = matches!(turn, Some(Turn::Begin(_)));
        let named = begins.then(|| Keep {
            members: install.peers.iter().map(|peer| peer.member.wg).collect(),
            at_once: true,
        });
        let keeps = keep.into_iter().chain(named).map(EpochChange::from);
        let keeps = keeps.map(|change| DataStep::Change(Self::Epoch(change, Vec::new())));
        let known = |peer: &PeerPlan| (peer.member.wg, Arc::clone(&peer.shared));
        let newcomers = install.peers.chunks(AT_ONCE);
        let newcomers = newcomers.map(|some| DataStep::Admit(some.iter().map(known).collect()));
        let places = places.chunks(AT_ONCE);
        let places = places.map(|some| DataStep::Change(Self::Places(some.to_vec())));
        let mut steps: Vec<DataStep> = keeps.chain(newcomers).chain(places).collect();
        steps.push(DataStep::Install(Ready::new(install), turn));
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
        let refused = change.install.map(|it| Ready::new(it).install(tunnel, now));
        // A place that is told before its peer is installed is forgotten; one that is told after the epoch
        // has begun comes too late for the first handshakes, which then go nowhere until they are repeated.
        for (key, endpoints) in places {
            tunnel.set_endpoints(&key, endpoints, now);
        }
        take_turn(change.turn, tunnel, now);
        refused.unwrap_or_default()
    }
}

/// A part of a change that is done without letting go of the tunnel.
#[derive(Debug)]
pub enum DataStep {
    /// Peers become known that are about to be installed. Nothing passes to them or from them before.
    Admit(Vec<(WgPublicKey, Arc<SharedSecret>)>),
    /// A whole change.
    Change(DataChange),
    /// An epoch is installed whose peers are known, and takes its turn.
    Install(Ready, Option<Turn>),
}

impl DataStep {
    /// Carries the step out; returns the keys that no tunnel is possible with.
    pub fn carry_out(self, tunnel: &mut Tunnel, now: Duration) -> Vec<WgPublicKey> {
        match self {
            Self::Admit(peers) => {
                for (key, shared) in peers {
                    tunnel.admit(key, shared);
                }
                Vec::new()
            }
            Self::Change(change) => change.carry_out(tunnel, now),
            Self::Install(ready, turn) => {
                let refused = ready.install(tunnel, now);
                take_turn(turn, tunnel, now);
                refused
            }
        }
    }
}

/// An installation as the tunnel takes it.
#[derive(Debug)]
pub struct Ready {
    epoch: Epoch,
    peers: Vec<(PeerSpec, Psk)>,
    /// With the groups of this node and of each peer; `None`: everything may pass.
    rules: Option<(Vec<Rule>, Groups, Vec<(WgPublicKey, Groups)>)>,
    lead: Duration,
    closes_at: Option<Duration>,
}

impl Ready {
    fn new(install: Install) -> Self {
        let rules = match install.rules.traffic {
            Traffic::Allow => None,
            Traffic::Deny => {
                let allow = install.rules.allow.iter().map(rule).collect();
                let peers = install.peers.iter();
                let peers = peers.map(|peer| (peer.member.wg, groups(peer.member.groups)));
                Some((allow, groups(install.own), peers.collect()))
            }
        };
        let peers = install.peers.into_iter().map(|peer| {
            let PeerPlan { member, psk, .. } = peer;
            let allowed = vec![IpAddr::V4(member.v4), IpAddr::V6(member.v6)];
            let key = member.wg;
            (PeerSpec { key, allowed }, psk)
        });
        Self {
            epoch: install.epoch,
            peers: peers.collect(),
            rules,
            lead: install.lead,
            closes_at: install.closes_at,
        }
    }

    fn install(self, tunnel: &mut Tunnel, now: Duration) -> Vec<WgPublicKey> {
        let refused = tunnel.install(self.epoch, self.peers, self.lead, self.closes_at, now);
        if let Some((allow, own, peers)) = self.rules {
            tunnel.install_rules(allow, own, peers);
        }
        refused
    }
}

fn take_turn(turn: Option<Turn>, tunnel: &mut Tunnel, now: Duration) {
    match turn {
        Some(Turn::Begin(epoch)) => tunnel.activate(epoch, now),
        Some(Turn::DiscardPrevious) => tunnel.discard_previous(),
        Some(Turn::Close) => tunnel.close(),
        None => {}
    }
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
