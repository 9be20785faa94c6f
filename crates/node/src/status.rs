//! The node's status, computed from what was observed: sessions, echoes, the control channel.

use crate::data::Snapshot;
use crate::emitter::Health;
use crate::io::firewall::FirewallState;
use crate::segment::{Common, Segment};
use crate::standing::Condition;
use crate::uapi::{self, Served};
use crate::underlay::Underlay;
use agent::{Agent, Evidence, EvidenceResult, InSegment, Now, PathLimit, Ping};
use epoch::member::View;
use jiff::Timestamp;
use keys::{NodeId, WgPublicKey};
use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use tunnel::PeerSnapshot;
use wire::admin::{
    self, BenchmarkFault, Control, DuplicateStatus, EvidenceStatus, FirewallStatus, InterfaceState,
    InterfaceStatus, LogSeen, Membership, NodeDaemonStatus, NodeRoutes, NodeSegmentStatus,
    OffloadStatus, PeerStatus, PingStatus, RulesInForce, SCHEMA,
};
use wire::rules::Groups;
use wire::{NodeName, Prefix, SegmentName};

/// One segment, as its status is made from.
pub(crate) struct Seen<'a> {
    pub(crate) agent: InSegment<'a>,
    pub(crate) segment: &'a Segment,
    /// The paths to its peers, as far as they are known.
    pub(crate) paths: &'a [PathLimit],
    pub(crate) snapshot: &'a Snapshot,
    /// The networks behind nodes, if it has to do with any.
    pub(crate) routes: Option<NodeRoutes>,
}

/// Everything, as it is now; the segments in the order of their numbers.
pub(crate) fn of(
    agent: &Agent,
    segments: &[Seen<'_>],
    silence: Option<Duration>,
    now: Now,
) -> NodeDaemonStatus {
    let (control, controller, control_error) = match agent.control() {
        agent::Control::Up { address, .. } => (heard(silence), Some(address.clone()), None),
        agent::Control::Down { address, error } => {
            (Control::Disconnected, address.clone(), error.clone())
        }
    };
    let clock_skew_ms = agent.control().skew_ms(now);
    let duplicate = agent.duplicate(now);
    let is_second = duplicate.is_some() && !agent.control().is_up();
    let named = |seen: &Seen<'_>| {
        let name = seen.agent.place().segment_name.clone();
        (name, of_segment(seen, is_second, now))
    };
    let all: Vec<(SegmentName, NodeSegmentStatus)> = segments.iter().map(named).collect();
    let first = all.first().map(|(_, first)| first.clone());
    let is_alone = matches!(&all[..], [(name, _)] if name.told().is_none());
    let not_placed = agent.not_placed().map(|(name, why)| (name.clone(), why));
    let of_first = |it: &NodeSegmentStatus| it.wireguard.clone();
    NodeDaemonStatus {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION").into(),
        generated_utc: seconds(now.wall),
        attention: Vec::new(),
        node: agent.node().to_string(),
        name: Some(agent.name().clone()),
        wireguard: first.as_ref().map(of_first).unwrap_or_default(),
        v4: first.as_ref().map(|it| it.v4),
        v6: first.as_ref().map(|it| it.v6),
        control,
        control_heard_seconds: silence.map(|silence| silence.as_secs_f64()),
        controller,
        control_error,
        clock_skew_ms,
        duplicate: duplicate
            .map(|(duplicate, said)| DuplicateStatus::new(duplicate, seconds(said.wall))),
        log: agent.log().map(|end| LogSeen {
            events: end.events,
            root: end.root_base64(),
        }),
        log_fault: agent.log_fault().map(str::to_owned),
        membership: first.as_ref().and_then(|it| it.membership),
        reason: match &first {
            Some(first) => first.reason.clone(),
            None => Some("it is in no segment: see `meshctl node join` at the controller".into()),
        },
        epoch: first.as_ref().and_then(|it| it.epoch),
        next_epoch: first.as_ref().and_then(|it| it.next_epoch),
        lease_seconds: first.as_ref().and_then(|it| it.lease_seconds),
        interface: first.as_ref().map(|it| it.interface.clone()),
        last_evidence: agent.evidence().map(|it| evidence(it, agent.control())),
        keepalive: None,
        mapped: None,
        benchmark: None,
        names: None,
        rules: first.as_ref().and_then(|it| it.rules.clone()),
        routes: first.as_ref().and_then(|it| it.routes.clone()),
        dropped: first
            .as_ref()
            .map_or_else(BTreeMap::new, |it| it.dropped.clone()),
        peers: first.map_or_else(BTreeMap::new, |it| it.peers),
        segments: if is_alone {
            BTreeMap::new()
        } else {
            all.into_iter().collect()
        },
        not_placed: not_placed.collect(),
    }
}

fn of_segment(seen: &Seen<'_>, is_second: bool, now: Now) -> NodeSegmentStatus {
    let (agent, snapshot) = (seen.agent, seen.snapshot);
    let view = agent.view();
    let View {
        update,
        next,
        lease_end,
        ..
    } = view;
    let place = agent.place();
    let own = place.node;
    let reason = if is_second && agent.is_member().is_none() {
        Some("another machine runs with this node's keys, and was first".to_owned())
    } else if view.is_closed() {
        Some("the lease is over and no update came".to_owned())
    } else {
        let denial = update.and_then(|update| update.denial(&own));
        denial.map(str::to_owned)
    };
    let underlay = &seen.segment.underlay;
    let condition = seen.segment.guard.condition();
    NodeSegmentStatus {
        wireguard: seen.segment.wg.public().to_base64(),
        v4: place.v4.0,
        v6: place.v6.0,
        membership: agent.is_member().map(membership),
        reason,
        epoch: update.map(|update| update.epoch.0),
        next_epoch: next.map(|next| next.epoch.0),
        lease_seconds: lease_end.map(|end| end.saturating_sub(now.boot).as_secs_f64()),
        interface: InterfaceStatus {
            wireguard_socket: seen.segment.served.as_ref().map(Served::status),
            ..interface(agent, underlay, &condition, snapshot)
        },
        peers: peers(agent, (underlay, seen.paths), snapshot, now),
        rules: update.and_then(|update| {
            let own = update
                .member(&own)
                .map_or(Groups::default(), |it| it.groups);
            RulesInForce::of(
                &update.rules,
                own,
                snapshot.passed.as_deref().unwrap_or_default(),
            )
        }),
        routes: seen.routes.clone(),
        dropped: dropped(snapshot),
    }
}

/// A connection that is open, by when the controller was last heard on it.
fn heard(silence: Option<Duration>) -> Control {
    if silence.is_some_and(|silence| silence >= quic::pulse::SILENT_AFTER) {
        Control::Silent
    } else {
        Control::Connected
    }
}

fn interface(
    agent: InSegment<'_>,
    underlay: &Underlay,
    condition: &Condition,
    snapshot: &Snapshot,
) -> InterfaceStatus {
    let interface = underlay.interface().clone();
    let mut faults = condition.words();
    let astray = agent.ways_astray();
    let state = match condition.state {
        InterfaceState::Ok if !astray.is_empty() => InterfaceState::Impaired,
        state => state,
    };
    faults.extend(astray);
    let (wall, reason) = match underlay.firewall() {
        FirewallState::Off => (admin::FirewallState::Off, None),
        FirewallState::Active => (admin::FirewallState::Active, None),
        FirewallState::Failed(reason) => (admin::FirewallState::Failed, Some(reason)),
    };
    let offloads = snapshot
        .common
        .offloads
        .iter()
        .map(|(name, off)| OffloadStatus {
            name: (*name).to_owned(),
            enabled: off.is_none(),
            reason: off.clone(),
        });
    InterfaceStatus {
        name: interface.name,
        mtu: interface.mtu,
        underlay_mtu: interface.underlay_mtu,
        fragments: interface.fragments,
        backend: interface.backend.to_owned(),
        listen_port: interface.listen_port,
        threads: interface.threads,
        offloads: offloads.collect(),
        firewall: FirewallStatus {
            state: wall,
            reason,
        },
        state,
        faults,
        wireguard_socket: None,
    }
}

/// The interface of a segment, as its WireGuard socket tells it. `wall` is the time now.
pub(crate) fn device(
    agent: InSegment<'_>,
    snapshot: &Snapshot,
    common: &Common,
    wall: Timestamp,
) -> uapi::Device {
    let members = agent.view().update.into_iter();
    let members: HashMap<_, _> = members
        .flat_map(|update| &update.roster)
        .map(|member| (member.wg, member))
        .collect();
    let behind = common.terms.behind_peers(agent);
    let peers = snapshot.peers.iter().map(|seen| {
        let member = members.get(&seen.key).copied();
        let own = member.map(|it| {
            [
                Prefix::around(it.v4.into(), 32),
                Prefix::around(it.v6.into(), 128),
            ]
        });
        let networks = behind.iter();
        let networks = networks.filter(|it| member.is_some_and(|member| member.name == it.node));
        let shaken = seen.session_age.map(|age| wall.saturating_sub(age));
        let shaken = shaken.and_then(|at| {
            at.ok()?
                .duration_since(Timestamp::UNIX_EPOCH)
                .try_into()
                .ok()
        });
        uapi::Peer {
            key: seen.key,
            endpoint: seen.endpoint.and_then(|it| it.udp()),
            handshake: shaken,
            rx_bytes: seen.rx_bytes,
            tx_bytes: seen.tx_bytes,
            allowed: own
                .into_iter()
                .flatten()
                .chain(networks.map(|it| it.prefix))
                .collect(),
        }
    });
    uapi::Device {
        listen_port: common.listen_port,
        peers: peers.collect(),
    }
}

/// Why the benchmark gives no results, if it does not.
pub(crate) fn benchmark(health: &Health) -> Option<BenchmarkFault> {
    health.failing.as_ref().map(|failing| BenchmarkFault {
        cause: failing.cause.clone(),
        since_utc: seconds(failing.since),
    })
}

fn evidence(evidence: &Evidence, control: &agent::Control) -> EvidenceStatus {
    let result = match &evidence.result {
        EvidenceResult::Unsent if control.is_up() => {
            "not sent: the control channel is busy".to_owned()
        }
        EvidenceResult::Unsent => "not sent: no control channel".to_owned(),
        EvidenceResult::Pending => "pending".to_owned(),
        EvidenceResult::Accepted => "accepted".to_owned(),
        EvidenceResult::Refused(reason) => format!("refused: {reason}"),
        EvidenceResult::PutOff { reason, .. } => {
            format!("refused for now: {reason}; it is sent again by itself")
        }
    };
    EvidenceStatus {
        overall: evidence.overall,
        suite: evidence.suite.clone(),
        suite_version: evidence.suite_version.clone(),
        sent_utc: seconds(evidence.sent_at),
        result,
    }
}

fn peers(
    agent: InSegment<'_>,
    (underlay, paths): (&Underlay, &[PathLimit]),
    snapshot: &Snapshot,
    now: Now,
) -> BTreeMap<NodeName, PeerStatus> {
    let Some(update) = agent.view().update else {
        return BTreeMap::new();
    };
    let (own, epoch) = (agent.place().node, update.epoch.0);
    let seen: HashMap<_, _> = snapshot.peers.iter().map(|peer| (peer.key, peer)).collect();
    let paths: HashMap<_, _> = paths.iter().map(|path| (path.v4, path)).collect();
    let members = update.roster.iter().filter(|member| member.node != own);
    let members = members.map(|member| {
        let seen = seen.get(&member.wg).copied();
        let place = (member.node, member.v4, member.v6);
        let path = paths.get(&member.v4).copied();
        let proven = path.and_then(|path| Some(path.proven? + agent::overhead(path.endpoint)));
        let status = PeerStatus {
            reason: agent.apart(&member.node).map(str::to_owned),
            mtu: Some(underlay.mtu_to(path)),
            path_mtu: proven,
            ..peer(agent, place, Some(member.wg), None, epoch, seen, now)
        };
        (member.name.clone(), status)
    });
    let excluded = update.excluded.iter().filter(|it| it.node != own);
    let excluded = excluded.map(|excluded| {
        let place = (excluded.node, excluded.v4, excluded.v6);
        let status = peer(agent, place, None, Some(&excluded.reason), epoch, None, now);
        (excluded.name.clone(), status)
    });
    members.chain(excluded).collect()
}

fn peer(
    agent: InSegment<'_>,
    (node, v4, v6): (NodeId, Ipv4Addr, Ipv6Addr),
    wg: Option<WgPublicKey>,
    reason: Option<&str>,
    epoch: u64,
    seen: Option<&PeerSnapshot>,
    now: Now,
) -> PeerStatus {
    let session_epoch = seen
        .and_then(|seen| seen.session_epoch)
        .map(|epoch| epoch.0);
    let pings = agent.ping(&node);
    let ping = |ping: &Ping, at| PingStatus {
        ok: ping.is_ok(),
        rtt_ms: ping.as_ref().ok().map(|rtt| rtt.as_secs_f64() * 1e3),
        cause: ping.is_err().then(|| agent.ping_cause(&node, ping)),
        at_utc: seconds(at),
    };
    PeerStatus {
        node: node.to_string(),
        membership: membership(reason.is_none()),
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
        mtu: None,
        path_mtu: None,
        tx_bytes: seen.map_or(0, |seen| seen.tx_bytes),
        rx_bytes: seen.map_or(0, |seen| seen.rx_bytes),
        ping_v4: pings.as_ref().map(|pings| ping(&pings.v4, pings.at)),
        ping_v6: pings.as_ref().map(|pings| ping(&pings.v6, pings.at)),
        faults: agent.faults_of(&node, now),
    }
}

fn membership(is_member: bool) -> Membership {
    if is_member {
        Membership::Allowed
    } else {
        Membership::Denied
    }
}

fn dropped(snapshot: &Snapshot) -> BTreeMap<String, u64> {
    let io = [
        ("tun_write_failed", snapshot.common.io.tun_write),
        ("udp_send_failed", snapshot.common.io.udp_send),
    ];
    let drops = snapshot.drops();
    let reasons = drops.iter().map(|(reason, count)| (reason.name(), count));
    reasons
        .chain(io)
        .map(|(name, count)| (name.to_owned(), count))
        .collect()
}

/// RFC 3339 with whole seconds.
fn seconds(time: Timestamp) -> String {
    format!("{time:.0}")
}
