//! What the controller looks like from outside: the admin socket's status and `status.json`.

use crate::clock::Now;
use crate::decide::why_not;
use crate::engine::Engine;
use crate::event::Accepted;
use crate::fleet::Node;
use crate::format::utc;
use jiff::Timestamp;
use keys::Epoch;
use policy::{Reason, State, judge};
use wire::NodeName;
use wire::admin::{
    BenchmarkStatus, Control, ControllerStatus, EpochStatus, Membership, NextEpoch, NodeState,
    NodeStatus, PolicyStatus, PskState, SCHEMA,
};
use wire::evidence::Signer;
use wire::message::Phase;

impl Engine {
    /// Everything.
    pub fn status(&self, now: Now) -> ControllerStatus {
        let policy = &self.setup.policy;
        let nodes = self.fleet.nodes().iter();
        ControllerStatus {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mesh: self.mesh.to_string(),
            generated_utc: utc(now.wall),
            alarms: self.alarms(),
            epoch: self.epoch_status(),
            policy: PolicyStatus {
                threshold: policy.threshold,
                max_benchmark_age: policy.max_benchmark_age,
                epoch_seconds: policy.epoch_seconds,
                digest: policy.digest().to_string(),
            },
            nodes: nodes
                .map(|(name, node)| (name.clone(), self.node_status(name, node, now)))
                .collect(),
        }
    }

    /// Conditions that an operator has to look at, with the way out.
    pub(crate) fn alarms(&self) -> Vec<String> {
        let history = self.alarm.as_ref().map(|(node, epoch)| {
            format!(
                "{node} holds epoch {epoch} of this authority, signed on another log than this one: the \
                 log is an old copy, or was cut, and evictions may be missing from it; OPERATIONS says \
                 how to go on from an old copy"
            )
        });
        let room = self.log.is_short_of_room().then(|| {
            "the disk is full: evidence is refused, and nobody is judged; evictions and epochs go on in \
             the room that was held for them; free some space"
                .to_owned()
        });
        let none = self.log.holds_no_room().then(|| {
            "no room could be held on the disk: when it is full, evictions and epochs stop; free some \
             space"
                .to_owned()
        });
        let log = (!self.log_writable()).then(|| {
            "the event log cannot be written: what is in force stays, everything else is refused"
                .to_owned()
        });
        [history, room, none, log].into_iter().flatten().collect()
    }

    /// One node.
    pub(crate) fn node_status(&self, name: &NodeName, node: &Node, now: Now) -> NodeStatus {
        let live = self.live.get(name);
        let current = self.current();
        let member = self.in_roster(node);
        let decision = judge(&self.setup.policy, &node.record(now), now.wall);
        let connected = live.is_some_and(|live| live.connection.is_some());
        let state = self.state_of(name, node);
        let acked = live.and_then(|live| live.acked);
        let holds = member && acked == Some((current, Phase::Activated));
        NodeStatus {
            node: node.id.to_string(),
            membership: if member {
                Membership::Allowed
            } else {
                Membership::Denied
            },
            state,
            last_benchmark: node.evidence.as_ref().map(benchmark),
            psk: if holds {
                PskState::Valid
            } else {
                PskState::None
            },
            reason: if member {
                decision.reason.as_ref().map(Reason::to_string)
            } else {
                Some(why_not(node, &decision))
            },
            control: if connected {
                Control::Connected
            } else {
                Control::Disconnected
            },
            v4: self.network.v4(node.host).0,
            v6: self.network.v6(node.host).0,
            wireguard: node.wg.to_base64(),
            endpoints: live.map(|live| live.endpoints.clone()).unwrap_or_default(),
            epoch: acked.map(|(epoch, _)| epoch.0),
            probation_left: node.probation_left(),
            clock_skew_ms: live.and_then(|live| live.clock_skew_ms),
            software: live.and_then(|live| live.software.clone()),
            enrolled_utc: utc(node.enrolled_at),
            observes: live.map(|live| live.observes.clone()).unwrap_or_default(),
        }
    }

    /// One node's state in words.
    pub(crate) fn state_of(&self, name: &NodeName, node: &Node) -> NodeState {
        let live = self.live.get(name);
        let connected = live.is_some_and(|live| live.connection.is_some());
        match node.verdict.as_ref().map(|verdict| verdict.state) {
            _ if node.evicted() => NodeState::Evicted,
            _ if !connected => NodeState::Offline,
            _ if !self.in_roster(node) => NodeState::Quarantined,
            Some(State::Probation) => NodeState::Probation,
            Some(State::Active | State::Quarantined | State::Evicted) | None => NodeState::Active,
        }
    }

    /// Whether the epoch in force has it as a member.
    fn in_roster(&self, node: &Node) -> bool {
        let issue = self.issues.get(&self.current());
        issue.is_some_and(|issue| issue.update.member(&node.id).is_some())
    }

    fn current(&self) -> Epoch {
        self.authority
            .in_force()
            .map_or(Epoch(0), |span| span.epoch)
    }

    fn epoch_status(&self) -> EpochStatus {
        let current = self.current();
        let times = |epoch: Epoch| {
            let (at, published) = self.fleet.epoch(epoch)?;
            let activates = plus(*at, published.activate_in_ms);
            Some((published, activates, plus(activates, published.epoch_ms)))
        };
        let next = self.authority.next().and_then(|span| times(span.epoch));
        let next = next.map(|(published, activates, _)| NextEpoch {
            id: published.epoch.0,
            activates_utc: utc(activates),
        });
        let held = self.held.iter().cloned().collect();
        match times(current) {
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

fn plus(at: Timestamp, ms: u64) -> Timestamp {
    at.checked_add(std::time::Duration::from_millis(ms))
        .unwrap_or(Timestamp::MAX)
}

fn benchmark(accepted: &Accepted) -> BenchmarkStatus {
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
