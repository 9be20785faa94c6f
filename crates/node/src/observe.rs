//! What a round of probes means: lines for the operator, a report for the controller, and the cause
//! of what was not answered. Observes; decides nothing.

use crate::agent::{Agent, PingResult};
use crate::data::Snapshot;
use crate::io::clock;
use crate::narrow::Heard;
use crate::probe::{Echoes, Ping, Round, Target};
use crate::underlay::OVERHEAD_V6;
use epoch::member::View;
use keys::{Epoch, NodeId};
use std::collections::HashMap;
use std::net::IpAddr;
use wire::message::PeerReport;
use wire::update::LeaseEnd;
use wire::{NodeName, ToController};

impl Agent {
    pub(crate) fn round(&mut self, round: Round, snapshot: Option<Snapshot>) {
        let epoch = self.member.view().update.map(|update| update.epoch);
        let mut reports = Vec::with_capacity(round.results.len());
        let mut pings = HashMap::with_capacity(round.results.len());
        for echoes in round.results {
            self.measured(&echoes);
            let Echoes { target, v4, v6, .. } = echoes;
            let now = (epoch, v4.is_ok(), v6.is_ok());
            let before = self.pings.get(&target.node).map(|ping| ping.logged);
            if before != Some(now) {
                self.log_ping(&target.name, &target.node, target.v4.into(), &v4);
                self.log_ping(&target.name, &target.node, target.v6.into(), &v6);
            }
            let micros = |ping: &Ping| {
                ping.as_ref()
                    .ok()
                    .map(|rtt| u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX))
            };
            reports.push(PeerReport {
                node: target.node,
                session_epoch: self.session_epoch(&target.node, snapshot.as_ref()),
                rtt_v4_us: micros(&v4),
                rtt_v6_us: micros(&v6),
            });
            pings.insert(
                target.node,
                PingResult {
                    v4,
                    v6,
                    at: clock::wall(),
                    logged: now,
                },
            );
        }
        self.pings = pings;
        // An MTU that is news to the interface is tried when the interface has followed.
        if !self.underlay_changed {
            self.place_targets(snapshot.as_ref());
        }
        self.send(ToController::Report { peers: reports });
    }

    /// The path to a peer, as large echoes show it.
    fn measured(&mut self, echoes: &Echoes) {
        let heard = Heard {
            small: echoes.v4.is_ok() || echoes.v6.is_ok(),
            large: &echoes.large,
        };
        let Target { node, name, .. } = &echoes.target;
        let Some(carries) = self.paths.handle_round(*node, &heard, clock::boot()) else {
            return;
        };
        self.underlay_changed = true;
        match carries {
            Some(packet) => tracing::info!(
                peer = %name,
                underlay_mtu = packet + OVERHEAD_V6,
                "the way to a peer is narrower than its first link"
            ),
            None => tracing::debug!(peer = %name, "the way to a peer is measured again"),
        }
    }

    fn session_epoch(&self, node: &NodeId, snapshot: Option<&Snapshot>) -> Option<Epoch> {
        let key = self.member.view().update?.member(node)?.wg;
        snapshot?
            .peers
            .iter()
            .find(|peer| peer.key == key)?
            .session_epoch
    }

    fn log_ping(&self, name: &NodeName, node: &NodeId, address: IpAddr, ping: &Ping) {
        match ping {
            Ok(rtt) => {
                let rtt_ms = (rtt.as_secs_f64() * 1e6).round() / 1e3;
                tracing::info!(peer = %name, %address, rtt_ms, ok = true, "PING {name} OK ({address})");
            }
            Err(_) => {
                let cause = self.ping_cause(node, ping);
                tracing::info!(peer = %name, %address, %cause, ok = false, "PING {name} FAIL ({cause})");
            }
        }
    }

    /// Why an echo to `node` failed, with what the epoch says about it.
    pub(crate) fn ping_cause(&self, node: &NodeId, ping: &Ping) -> String {
        let View { update, lapsed, .. } = self.member.view();
        let own = self.identity.public();
        let closed = |update: &wire::EpochUpdate| lapsed && update.on_lease_end == LeaseEnd::Close;
        let denied = update.and_then(|update| {
            if closed(update) {
                return Some("no tunnel: the lease is over".to_owned());
            }
            let excluded = update
                .exclusion(&own)
                .map(|e| format!("no tunnel: this node is denied, {}", e.reason));
            excluded.or_else(|| {
                update
                    .exclusion(node)
                    .map(|e| format!("no tunnel: denied, {}", e.reason))
            })
        });
        let failure = || {
            ping.as_ref()
                .err()
                .map_or_else(String::new, ToString::to_string)
        };
        denied.unwrap_or_else(failure)
    }
}
