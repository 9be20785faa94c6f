//! The controller as it looks from outside: the admin socket's status and `status.json`. Sees everything
//! and can change nothing.
//!
//! The file is long because every field of the status is made here.

use crate::clock::{Now, steps_back};
use crate::connections::{Connections, Live, Observed, Report};
use crate::decide::why_not;
use crate::explain::nowhere;
use crate::fleet::{Case, Eviction, Fleet, Node, Override, Waiting};
use crate::format::utc;
use crate::journal::Journal;
use crate::mesh::Mesh;
use crate::segment::Segment;
use crate::segments::Segments;
use epoch::authority::Span;
use jiff::Timestamp;
use keys::SegmentId;
use policy::{Policy, Reason, Ruling, Run, State};
use std::collections::BTreeMap;
use std::time::Duration;
use wire::admin::{
    BenchmarkStatus, Control, ControllerStatus, DuplicateStatus, EpochStatus, EvictionStatus,
    Membership, NextEpoch, NodeInSegment, NodeState, NodeStatus, Observation, OverrideStatus,
    PolicyStatus, PskState, SCHEMA, SegmentStatus, TunnelQuality, WaitingStatus,
};
use wire::evidence::Signer;
use wire::message::Phase;
use wire::{NodeName, SegmentName, Way, family};

/// Everything that the status is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'e> {
    pub(crate) mesh: &'e Mesh,
    pub(crate) journal: &'e Journal,
    pub(crate) segments: &'e Segments,
    pub(crate) connections: &'e Connections,
    /// Why the policy's file could not be taken when it was read last.
    pub(crate) unread_policy: Option<&'e str>,
    /// Whether the web page has its address.
    pub(crate) page: Option<&'e ::page::Standing>,
}

impl<'e> View<'e> {
    /// Everything.
    pub(crate) fn status(&self, now: Now) -> ControllerStatus {
        let segment = self.segment();
        let nodes = self.fleet().nodes().keys();
        let nodes = nodes.filter_map(|name| Some((name.clone(), self.node_status(name, now)?)));
        let nodes = nodes.collect();
        ControllerStatus {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mesh: self.mesh.id.to_string(),
            generated_utc: utc(now.wall),
            alarms: self.alarms(now),
            attention: self.attention(&nodes, now),
            page: self.page.map(::page::Standing::status),
            epoch: self.epoch_status(segment, now),
            policy: policy_status(segment.policy()),
            segments: self
                .segments
                .iter()
                .map(|it| (it.name().clone(), self.segment_status(it, now)))
                .collect(),
            nodes,
            waiting: self
                .fleet()
                .waiting()
                .iter()
                .map(|(name, waiting)| (name.clone(), self.waiting_status(name, waiting)))
                .collect(),
        }
    }

    /// Epoch and members of each segment, in one line.
    pub(crate) fn standing(&self) -> String {
        let of_segment = |segment: &Segment| {
            let members = segment.standings(self.fleet()).roster().len();
            let name = segment.name().told();
            let name = name.map_or_else(String::new, |name| format!("{name}: "));
            format!("{name}epoch {}, members: {members}", segment.current().0)
        };
        let each: Vec<String> = self.segments.iter().map(of_segment).collect();
        format!("{}; nodes: {}", each.join("; "), self.fleet().nodes().len())
    }

    fn segment_status(&self, segment: &Segment, now: Now) -> SegmentStatus {
        let network = segment.network();
        SegmentStatus {
            id: segment.id().0,
            v4: network.range_v4(),
            v6: network.range_v6(),
            epoch: self.epoch_status(segment, now),
            policy: policy_status(segment.policy()),
        }
    }

    /// The first segment that a node is in, and the node before its policy. One that is in none is shown as one of the
    /// first segment that nothing was decided about.
    pub(crate) fn home(&self, name: &NodeName) -> Option<(&'e Segment, Case<'e>)> {
        let node = self.fleet().node(name)?;
        let segment = self.segments.home_of(node);
        Some((segment, self.fleet().case_as_if(segment.id(), name)?))
    }

    /// Whether a node is in none of the segments that are run.
    pub(crate) fn is_nowhere(&self, node: &Node) -> bool {
        self.segments.of(node).next().is_none()
    }

    /// A segment that is run, by its name.
    pub(crate) fn called(&self, id: SegmentId) -> Option<SegmentName> {
        self.segments.find(id).map(|it| it.name().clone())
    }

    /// A node in one of its segments.
    fn in_segment(&self, name: &NodeName, segment: &Segment, now: Now) -> Option<NodeInSegment> {
        let case = self.fleet().case(segment.id(), name)?;
        let (node, live) = (case.node, self.connections.live(name));
        let decision = segment.judge(&case, now);
        let member = segment.has_in_force(&node.id);
        let acked = live.and_then(|live| live.acked.get(&segment.id()).copied());
        let is_home = self.segments.home_of(node).id() == segment.id();
        let observes = (!is_home).then(|| self.observes_of(segment, live, now));
        Some(NodeInSegment {
            membership: membership(member),
            state: self.state_in(segment, name, &case),
            reason: if member {
                decision.reason.as_ref().map(Reason::to_string)
            } else {
                Some(why_not(&case, &decision))
            },
            score: decision.score,
            epoch: acked.map(|(epoch, _)| epoch.0),
            probation_left: case.probation_left(),
            v4: segment.network().v4(node.host).0,
            v6: segment.network().v6(node.host).0,
            wireguard: node.wg(segment.id())?.to_base64(),
            psk: Some(psk(segment, (member, acked), control(live, now))),
            observes: observes.unwrap_or_default(),
        })
    }

    /// The words of a node about its peers in a segment; none of a node that is gone: they say nothing of now.
    fn observes_of(
        &self,
        segment: &Segment,
        live: Option<&Live>,
        now: Now,
    ) -> BTreeMap<NodeName, Observation> {
        let reporting = live.filter(|_| control(live, now) != Control::Disconnected);
        let report = reporting.and_then(|live| Some((live, live.reports.get(&segment.id())?)));
        report.map_or_else(BTreeMap::new, |report| self.observes(segment, report, now))
    }

    /// One node that waits for approval.
    pub(crate) fn waiting_status(&self, name: &NodeName, waiting: &Waiting) -> WaitingStatus {
        let connections = self.connections.waiting().into_iter();
        let mut own = connections.filter(|(_, key)| *key == waiting.node);
        let session = own.next().and_then(|(id, _)| self.connections.session(id));
        WaitingStatus {
            node: waiting.node.to_string(),
            wireguard: waiting.keys.iter().map(|it| it.wg.to_base64()).collect(),
            token: waiting.token.clone(),
            since_utc: utc(waiting.since),
            address: session.map(|session| session.remote),
            replaces: self.fleet().node(name).is_some(),
        }
    }

    /// One node: what it is everywhere, and what it is in the first of its segments; then what it is in each. `None`:
    /// there is none of this name.
    pub(crate) fn node_status(&self, name: &NodeName, now: Now) -> Option<NodeStatus> {
        let (segment, case) = self.home(name)?;
        let case = &case;
        let (node, live) = (case.node, self.connections.live(name));
        let member = segment.has_in_force(&node.id);
        let decision = segment.judge(case, now);
        let control = control(live, now);
        let state = self.state_of(name);
        let acked = live.and_then(|live| live.acked.get(&segment.id()).copied());
        // The words of a node that is gone say nothing of now.
        let reporting = live.filter(|_| control != Control::Disconnected);
        let report = reporting.and_then(|live| live.reports.get(&segment.id()));
        let (segments, is_nowhere) = (self.segments.of(node), self.is_nowhere(node));
        Some(NodeStatus {
            node: node.id.to_string(),
            segments: segments
                .filter_map(|it| Some((it.name().clone(), self.in_segment(name, it, now)?)))
                .collect(),
            permitted: node.permitted().filter_map(|id| self.called(id)).collect(),
            membership: membership(member),
            state,
            last_benchmark: node.newest_run().map(benchmark),
            score: decision.score.filter(|_| !is_nowhere),
            groups: node.groups.iter().cloned().collect(),
            overriding: node.overriding(now).map(overriding),
            psk: psk(segment, (member, acked), control),
            reason: if let Some(eviction) = node.eviction() {
                Some(evicted(eviction))
            } else if is_nowhere {
                Some(nowhere(name, node, |id| self.called(id)))
            } else if member {
                decision.reason.as_ref().map(Reason::to_string)
            } else {
                Some(why_not(case, &decision))
            },
            eviction: node.eviction().map(eviction),
            control,
            heard_utc: live
                .and_then(|live| live.heard)
                .map(|at| utc(wall(at, now))),
            v4: segment.network().v4(node.host).0,
            v6: segment.network().v6(node.host).0,
            wireguard: node
                .wg(segment.id())
                .map_or_else(String::new, |wg| wg.to_base64()),
            endpoints: live.map(|live| live.endpoints.clone()).unwrap_or_default(),
            epoch: acked.map(|(epoch, _)| epoch.0),
            probation_left: case.probation_left(),
            clock_skew_ms: live.and_then(|live| live.clock_skew_ms),
            software: live.and_then(|live| live.software.clone()),
            enrolled_utc: utc(node.enrolled_at),
            duplicate: live
                .and_then(|live| live.sighting(now))
                .map(|sighting| DuplicateStatus::new(&sighting.duplicate, utc(sighting.seen.wall))),
            observed_utc: report.map(|report| utc(wall(report.at, now))),
            observes: self.observes_of(segment, live, now),
            faults: reporting.map(|live| faults(node, live)).unwrap_or_default(),
        })
    }

    /// The faults that keep packets of a node from `peer`, by its word and by where both are.
    fn faults_of_pair(
        &self,
        segment: &Segment,
        live: &Live,
        (peer, observed): (&NodeName, &Observed),
    ) -> Vec<String> {
        let mut faults = self.faults_of_ways(segment, peer, &observed.ways);
        let is_dark = observed.rtt_v4_us.is_none() && observed.rtt_v6_us.is_none();
        if let Some(other) = self.connections.live(peer).filter(|_| is_dark) {
            let of = |live: &'_ Live| live.endpoints.iter().map(|at| at.ip()).collect::<Vec<_>>();
            faults.extend(family::none_in_common(of(live), of(other)));
        }
        faults
    }

    /// Why packets to `peer` do not take the tunnel, by the word of a node whose system has these ways to it.
    fn faults_of_ways(
        &self,
        segment: &Segment,
        peer: &NodeName,
        [v4, v6]: &[Way; 2],
    ) -> Vec<String> {
        let Some(node) = self.fleet().node(peer) else {
            return Vec::new();
        };
        let network = segment.network();
        let addresses = (network.v4(node.host).0, network.v6(node.host).0);
        let faults = [v4.fault(addresses.0.into()), v6.fault(addresses.1.into())];
        faults.into_iter().flatten().collect()
    }

    /// One node's state in words: the best that it is in one of its segments.
    pub(crate) fn state_of(&self, name: &NodeName) -> NodeState {
        let Some(node) = self.fleet().node(name) else {
            return NodeState::Offline;
        };
        let states = self.segments.of(node).filter_map(|segment| {
            let case = self.fleet().case(segment.id(), name)?;
            Some(self.state_in(segment, name, &case))
        });
        let rank = |state: &NodeState| match state {
            NodeState::Evicted => 0,
            NodeState::Offline => 1,
            NodeState::Quarantined => 2,
            NodeState::Impaired => 3,
            NodeState::Probation => 4,
            NodeState::Active => 5,
        };
        let none = if node.evicted() {
            NodeState::Evicted
        } else if self
            .connections
            .live(name)
            .is_some_and(|it| it.connection.is_some())
        {
            NodeState::Quarantined
        } else {
            NodeState::Offline
        };
        states.max_by_key(rank).unwrap_or(none)
    }

    /// The state of a node in one of its segments.
    pub(crate) fn state_in(
        &self,
        segment: &Segment,
        name: &NodeName,
        case: &Case<'_>,
    ) -> NodeState {
        let live = self.connections.live(name);
        let report = live.and_then(|live| live.reports.get(&segment.id()));
        let connected = live.is_some_and(|live| live.connection.is_some());
        match case.verdict().map(|verdict| verdict.state) {
            _ if case.node.evicted() => NodeState::Evicted,
            _ if !connected => NodeState::Offline,
            _ if !segment.has_in_force(&case.node.id) => NodeState::Quarantined,
            _ if report.is_some_and(|it| it.interface.unusable) => NodeState::Impaired,
            Some(State::Probation) => NodeState::Probation,
            Some(State::Active | State::Quarantined | State::Evicted) | None => NodeState::Active,
        }
    }

    /// The words of a node about its peers of late. Those about a node that is no member are void if they are older than the epoch
    /// in force: a peer that was cut off answered a moment before.
    fn observes(
        &self,
        segment: &Segment,
        (live, report): (&Live, &Report),
        now: Now,
    ) -> BTreeMap<NodeName, Observation> {
        let begun = segment.in_force().map(|span| span.activates);
        let is_of_before = |it: &Observed| Some(it.at) <= begun;
        let is_member = |peer: &NodeName| {
            let node = self.fleet().node(peer);
            node.is_some_and(|node| segment.has_in_force(&node.id))
        };
        let all = report.observes.iter();
        let all = all.filter(|(_, it)| it.counts(now.boot));
        let all = all.filter(|(peer, it)| !is_of_before(it) || is_member(peer));
        let millis = |us: Option<u32>| us.map(|us| f64::from(us) / 1_000.0);
        let shown = |peer: &NodeName, observed: &Observed| Observation {
            session_epoch: observed.session_epoch.map(|epoch| epoch.0),
            rtt_v4_ms: millis(observed.rtt_v4_us),
            rtt_v6_ms: millis(observed.rtt_v6_us),
            tunnel: observed.tunnel.map(|it| TunnelQuality {
                handshake_seconds: it.handshake.map(|at| now.boot.saturating_sub(at).as_secs()),
                echoes: it.echoes,
                lost: it.lost,
            }),
            faults: self.faults_of_pair(segment, live, (peer, observed)),
            at_utc: utc(wall(observed.at, now)),
        };
        all.map(|(peer, it)| (peer.clone(), shown(peer, it)))
            .collect()
    }

    /// The first segment: the fields of the status that are not of one segment by name are of this one.
    pub(crate) fn segment(&self) -> &'e Segment {
        self.segments.first()
    }

    pub(crate) fn fleet(&self) -> &'e Fleet {
        self.journal.fleet()
    }

    fn epoch_status(&self, segment: &Segment, now: Now) -> EpochStatus {
        let current = segment.current();
        let times = |span: &Span| {
            let (at, published) = segment.standings(self.fleet()).epoch(span.epoch)?;
            let logged = plus(*at, published.activate_in_ms);
            // The log has the time of a clock that may have been set since; the epoch goes by another.
            let counted = now.calendar(span.activates);
            let is_same = !steps_back(logged, counted) && !steps_back(counted, logged);
            let activates = if is_same { logged } else { counted };
            Some((published, activates, plus(activates, published.epoch_ms)))
        };
        let next = segment.next().and_then(times);
        let next = next.map(|(published, activates, _)| NextEpoch {
            id: published.epoch.0,
            activates_utc: utc(activates),
        });
        let held = segment.held().iter().cloned().collect();
        match segment.in_force().and_then(times) {
            Some((published, activates, ends)) => EpochStatus {
                id: current.0,
                activated_utc: utc(activates),
                expiry_utc: utc(ends),
                secret_hash: published.commitment.clone(),
                update: published.update.to_string(),
                members: published.members,
                next,
                held,
            },
            // Cannot be: the engine publishes the first epoch before it serves anybody.
            None => EpochStatus {
                id: 0,
                activated_utc: String::new(),
                expiry_utc: String::new(),
                secret_hash: String::new(),
                update: String::new(),
                members: 0,
                next,
                held,
            },
        }
    }
}

/// The faults of a node, those of its interfaces first.
fn faults(node: &Node, live: &Live) -> Vec<String> {
    // A segment that it was taken out of has nothing to say any more.
    let reports = live.reports.iter();
    let reports = reports.filter_map(|(id, report)| node.is_in(*id).then_some(report));
    let faults = reports.flat_map(|report| report.interface.faults.iter().cloned());
    let own = live.condition.iter().map(|fault| fault.what.clone());
    faults.chain(own).collect()
}

fn membership(member: bool) -> Membership {
    if member {
        Membership::Allowed
    } else {
        Membership::Denied
    }
}

fn policy_status(policy: &Policy) -> PolicyStatus {
    PolicyStatus {
        threshold: policy.threshold,
        max_benchmark_age: policy.oldest_seconds(),
        epoch_seconds: policy.epoch_seconds,
        digest: policy.digest().to_string(),
    }
}

fn plus(at: Timestamp, ms: u64) -> Timestamp {
    at.checked_add(std::time::Duration::from_millis(ms))
        .unwrap_or(Timestamp::MAX)
}

fn overriding(it: &Override) -> OverrideStatus {
    let (ruling, threshold) = match it.ruling {
        Ruling::Allow => ("allow", None),
        Ruling::Deny => ("deny", None),
        Ruling::Threshold(threshold) => ("threshold", Some(threshold)),
    };
    OverrideStatus {
        ruling: ruling.to_owned(),
        threshold,
        until_utc: utc(it.until()),
        by: it.by.map(|by| by.to_string()),
        reason: it.reason.clone(),
    }
}

fn eviction(eviction: &Eviction) -> EvictionStatus {
    EvictionStatus {
        at_utc: utc(eviction.at),
        by: eviction.by.map(|by| by.to_string()),
        reason: eviction.reason.clone(),
    }
}

/// An eviction in a line.
fn evicted(eviction: &Eviction) -> String {
    let Eviction { by, reason, .. } = eviction;
    let by = by.map_or_else(|| "an operator".to_owned(), |by| by.to_string());
    match reason {
        Some(reason) => format!("evicted by {by}: {reason}"),
        None => format!("evicted by {by}"),
    }
}

pub(crate) fn benchmark(accepted: &Run) -> BenchmarkStatus {
    BenchmarkStatus {
        overall: accepted.overall,
        timestamp: accepted.finished_at.to_string(),
        suite: accepted.suite.clone(),
        suite_version: accepted.suite_version.clone(),
        signer: match accepted.signer {
            Signer::Node(_) => "self".to_owned(),
            Signer::Evaluator(key) => key.to_string(),
        },
        digest: accepted.digest.to_string(),
    }
}

pub(crate) fn control(live: Option<&Live>, now: Now) -> Control {
    match live.filter(|live| live.connection.is_some()) {
        None => Control::Disconnected,
        Some(live) if live.is_silent(now) => Control::Silent,
        Some(_) => Control::Connected,
    }
}

/// A moment of the boot-time clock by the calendar.
fn wall(at: Duration, now: Now) -> Timestamp {
    let ago = now.boot.saturating_sub(at);
    now.wall.checked_sub(ago).unwrap_or(Timestamp::MIN)
}

/// Whether a node holds the PSKs of the epoch in force in a segment, of which it is a member, and which it has
/// acknowledged so far.
fn psk(
    segment: &Segment,
    (member, acked): (bool, Option<(keys::Epoch, Phase)>),
    control: Control,
) -> PskState {
    let holds = member && acked == Some((segment.current(), Phase::Activated));
    match control {
        _ if !holds => PskState::None,
        Control::Disconnected => PskState::Unknown,
        Control::Connected | Control::Silent => PskState::Valid,
    }
}
