//! Where the two machines meet: what the member machine wants of the data plane becomes calls of the
//! tunnel. Decides nothing; the order of the calls is the whole of it.

use epoch::{EpochChange, Install, PeerPlan, Turn};
use keys::WgPublicKey;
use std::net::{IpAddr, SocketAddr};
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
        let refused = change.install.map(|it| install(it, tunnel, now));
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

fn install(install: Install, tunnel: &mut Tunnel, now: Duration) -> Vec<WgPublicKey> {
    let Install {
        epoch,
        peers,
        rules,
        own,
        lead,
        closes_at,
    } = install;
    let groups: Vec<_> = peers
        .iter()
        .map(|peer| (peer.member.wg, groups(peer.member.groups)))
        .collect();
    let peers = peers.into_iter().map(|PeerPlan { member, psk }| {
        let allowed = vec![IpAddr::V4(member.v4), IpAddr::V6(member.v6)];
        let key = member.wg;
        (PeerSpec { key, allowed }, psk)
    });
    let refused = tunnel.install(epoch, peers.collect(), lead, closes_at, now);
    match rules.traffic {
        Traffic::Allow => {}
        Traffic::Deny => {
            let allow = rules.allow.iter().map(rule).collect();
            tunnel.install_rules(allow, self::groups(own), groups);
        }
    }
    refused
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
