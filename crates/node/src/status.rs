//! The node's status, computed from what was observed: sessions, echoes, the control channel.

use crate::agent::{Agent, ControlState, EvidenceResult};
use crate::data::Snapshot;
use crate::io::clock;
use crate::probe::Ping;
use epoch::member::View;
use jiff::Timestamp;
use keys::{NodeId, WgPublicKey};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use tunnel::PeerSnapshot;
use wire::admin::{
    Control, EvidenceStatus, InterfaceStatus, Membership, NodeDaemonStatus, OffloadStatus,
    PeerStatus, PingStatus, SCHEMA,
};
use wire::update::LeaseEnd;
use wire::{EpochUpdate, NodeName};

impl Agent {
    pub(crate) fn status(&self, snapshot: Option<&Snapshot>) -> NodeDaemonStatus {
        let view = self.member.view();
        let (closed, member) = (is_closed(&view), self.is_member(&view));
        let View {
            update,
            next,
            lease_end,
            ..
        } = view;
        let own = self.identity.public();
        let (control, controller, control_error, clock_skew_ms) = match &self.control {
            ControlState::Up {
                address, skew_ms, ..
            } => (
                Control::Connected,
                Some(address.clone()),
                None,
                Some(*skew_ms),
            ),
            ControlState::Down { address, error } => {
                (Control::Disconnected, address.clone(), error.clone(), None)
            }
        };
        let reason = if closed {
            Some("the lease is over and no update came".to_owned())
        } else {
            update
                .and_then(|update| update.exclusion(&own))
                .map(|excluded| excluded.reason.clone())
        };
        NodeDaemonStatus {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").into(),
            generated_utc: seconds(clock::wall()),
            node: own.to_string(),
            name: Some(self.enrolment.name.clone()),
            wireguard: self.wg.public().to_base64(),
            v4: Some(self.enrolment.v4.0),
            v6: Some(self.enrolment.v6.0),
            control,
            controller,
            control_error,
            clock_skew_ms,
            membership: member.map(|is| {
                if is {
                    Membership::Allowed
                } else {
                    Membership::Denied
                }
            }),
            reason,
            epoch: update.map(|update| update.epoch.0),
            next_epoch: next.map(|next| next.epoch.0),
            lease_seconds: lease_end.map(|end| end.saturating_sub(clock::boot()).as_secs_f64()),
            interface: Some(self.interface_status(snapshot)),
            last_evidence: self.evidence_status(),
            peers: self.peer_statuses(snapshot),
            dropped: dropped(snapshot),
        }
    }

    fn interface_status(&self, snapshot: Option<&Snapshot>) -> InterfaceStatus {
        let mut interface = self.interface.clone();
        interface.firewall = self.firewall.status();
        if let Some(snapshot) = snapshot {
            interface.threads = snapshot.threads;
            let each = snapshot.offloads.iter().map(|(name, off)| OffloadStatus {
                name: (*name).to_owned(),
                enabled: off.is_none(),
                reason: off.clone(),
            });
            interface.offloads = each.collect();
        }
        interface
    }

    /// Whether this node has peers by what is in force; `None` before the first epoch.
    pub(crate) fn is_member(&self, view: &View<'_>) -> Option<bool> {
        let own = self.identity.public();
        let update = view.update?;
        Some(update.member(&own).is_some() && !is_closed(view))
    }

    fn evidence_status(&self) -> Option<EvidenceStatus> {
        let evidence = self.evidence.as_ref()?;
        let result = match &evidence.result {
            EvidenceResult::Unsent => "not sent: no control channel".to_owned(),
            EvidenceResult::Pending => "pending".to_owned(),
            EvidenceResult::Accepted => "accepted".to_owned(),
            EvidenceResult::Refused(reason) => format!("refused: {reason}"),
        };
        Some(EvidenceStatus {
            overall: evidence.overall,
            suite: evidence.suite.clone(),
            suite_version: evidence.suite_version.clone(),
            sent_utc: seconds(evidence.sent_at),
            result,
        })
    }

    fn peer_statuses(&self, snapshot: Option<&Snapshot>) -> BTreeMap<NodeName, PeerStatus> {
        let View { update, .. } = self.member.view();
        let Some(update) = update else {
            return BTreeMap::new();
        };
        let own = self.identity.public();
        let members = update
            .roster
            .iter()
            .filter(|member| member.node != own)
            .map(|member| {
                let seen = snapshot.and_then(|s| s.peers.iter().find(|peer| peer.key == member.wg));
                let place = (member.node, member.v4, member.v6);
                (
                    member.name.clone(),
                    self.peer_status(place, Some(member.wg), None, update.epoch.0, seen),
                )
            });
        let excluded = update
            .excluded
            .iter()
            .filter(|excluded| excluded.node != own)
            .map(|excluded| {
                let place = (excluded.node, excluded.v4, excluded.v6);
                (
                    excluded.name.clone(),
                    self.peer_status(place, None, Some(&excluded.reason), update.epoch.0, None),
                )
            });
        members.chain(excluded).collect()
    }

    fn peer_status(
        &self,
        (node, v4, v6): (NodeId, Ipv4Addr, Ipv6Addr),
        wg: Option<WgPublicKey>,
        reason: Option<&str>,
        epoch: u64,
        seen: Option<&PeerSnapshot>,
    ) -> PeerStatus {
        let session_epoch = seen
            .and_then(|seen| seen.session_epoch)
            .map(|epoch| epoch.0);
        let pings = self.pings.get(&node);
        let ping = |ping: &Ping, at| PingStatus {
            ok: ping.is_ok(),
            rtt_ms: ping.as_ref().ok().map(|rtt| rtt.as_secs_f64() * 1e3),
            cause: ping.is_err().then(|| self.ping_cause(&node, ping)),
            at_utc: seconds(at),
        };
        PeerStatus {
            node: node.to_string(),
            membership: if reason.is_none() {
                Membership::Allowed
            } else {
                Membership::Denied
            },
            reason: reason.map(str::to_owned),
            v4,
            v6,
            wireguard: wg.map(|wg| wg.to_base64()),
            endpoint: seen.and_then(|seen| seen.endpoint?.udp()),
            session_epoch,
            lag: session_epoch.map(|session| epoch.saturating_sub(session)),
            handshake_seconds: seen
                .and_then(|seen| seen.session_age)
                .map(|age| age.as_secs_f64()),
            tx_bytes: seen.map_or(0, |seen| seen.tx_bytes),
            rx_bytes: seen.map_or(0, |seen| seen.rx_bytes),
            ping_v4: pings.map(|pings| ping(&pings.v4, pings.at)),
            ping_v6: pings.map(|pings| ping(&pings.v6, pings.at)),
        }
    }
}

/// Whether the lease is over, and the policy closes then.
fn is_closed(view: &View<'_>) -> bool {
    let closes = |update: &EpochUpdate| update.on_lease_end == LeaseEnd::Close;
    view.lapsed && view.update.is_some_and(closes)
}

fn dropped(snapshot: Option<&Snapshot>) -> BTreeMap<String, u64> {
    let Some(snapshot) = snapshot else {
        return BTreeMap::new();
    };
    let io = [
        ("tun_write_failed", snapshot.io.tun_write),
        ("udp_send_failed", snapshot.io.udp_send),
    ];
    let reasons = snapshot
        .drops
        .iter()
        .map(|(reason, count)| (reason.name(), count));
    reasons
        .chain(io)
        .map(|(name, count)| (name.to_owned(), count))
        .collect()
}

/// RFC 3339 with whole seconds.
pub(crate) fn seconds(time: Timestamp) -> String {
    format!("{time:.0}")
}
