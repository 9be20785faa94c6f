//! The JSON of the admin sockets (HTTP over a Unix socket) and of `status.json`.
//!
//! | Controller | |
//! |---|---|
//! | `GET /v1/status` | [`ControllerStatus`], the content of `status.json` |
//! | `GET /v1/nodes/{name}/explain` | [`Explanation`] |
//! | `POST /v1/nodes/{name}/evict` | [`EvictRequest`] → [`EpochChange`] |
//! | `POST /v1/evictions` | [`EvictionsRequest`] → [`EpochChange`] |
//! | `POST /v1/nodes/{name}/readmit` | → [`NodeStatus`] |
//! | `POST /v1/nodes/{name}/remove` | [`EvictRequest`] → [`EpochChange`] |
//! | `POST /v1/nodes/{name}/segments/{segment}` | → [`NodeStatus`] |
//! | `POST /v1/nodes/{name}/segments/{segment}/leave` | [`EvictRequest`] → [`EpochChange`] |
//! | `POST /v1/nodes/{name}/approve` | → [`NodeStatus`] |
//! | `POST /v1/nodes/{name}/reject` | [`EvictRequest`] → [`WaitingStatus`] |
//! | `GET /v1/routes` | a list of [`RouteStatus`] |
//! | `POST /v1/nodes/{name}/routes/approve`, `…/withdraw` | [`RouteRequest`] → [`RouteStatus`] |
//! | `GET /v1/banned`, `DELETE /v1/banned/{key}` | [`BannedKey`], one or a list |
//! | `POST /v1/evaluators/rotate` | [`EvaluatorSuccession`](crate::succession::EvaluatorSuccession) → the same |
//! | `POST /v1/authority/rotate` | → [`AuthorityRotated`] |
//! | `POST /v1/recover` | [`RecoverRequest`] → [`Recovered`] |
//! | `POST /v1/epoch/rotate` | [`RotateRequest`] → [`EpochChange`] |
//! | `GET /v1/tokens`, `POST /v1/tokens`, `DELETE /v1/tokens/{id}` | [`TokenInfo`], [`TokenRequest`] → [`TokenCreated`] |
//! | `GET /v1/events?after=SEQ&limit=N&node=NAME&kind=KIND&since=TIME&until=TIME` | [`EventList`] |
//! | `GET /v1/log` | [`LogStatus`] |
//! | `POST /v1/log/rotate-key` | → [`LogStatus`] |
//! | `GET /v1/log/proof?seq=N` | [`LogProof`] |
//! | `GET /v1/log/consistency?from=N&to=N` | [`LogConsistency`] |
//! | `GET /v1/log/entries?after=SEQ&limit=N` | [`LogEntries`] |
//!
//! | Node | |
//! |---|---|
//! | `GET /v1/status` | [`NodeDaemonStatus`] |
//! | `GET /v1/log` | [`LogStatus`]: the newest checkpoint that the node has kept, with its cosignature |
//! | `POST /v1/score` | [`ScoreRequest`]: changes a running mock emitter |
//! | `POST /v1/export/{peer}` | → [`WgExport`]: holds secrets |
//!
//! Both answer `GET /metrics` with OpenMetrics text, which has no form here.
//!
//! Every refusal is an [`ApiError`] with a 4xx or 5xx status. Times are RFC 3339 in UTC.
//!
//! The file is long because it is a list.

use crate::instance::{Duplicate, Seen};
use crate::name::{NodeName, SegmentName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

mod log;
mod routes;
mod rules;

pub use log::{LogConsistency, LogEntries, LogEntry, LogProof, LogSeen, LogStatus};
pub use routes::{NodeRoutes, OwnRoute, PeerRoute, RouteRequest, RouteStatus};
pub use rules::{AllowInForce, RulesInForce, TrafficChange};

/// Milliseconds by which a clock may differ from the controller's before somebody is told: a third of what makes evidence
/// refused.
pub const SKEWED_MS: u64 = 10_000;
/// Begins the `control_error` of a node at whose controller's address another key answers than the one that it pins.
pub const OTHER_CONTROLLER: &str = "another controller answers there";

/// Version of these forms; a new field does not change it, a changed meaning does.
pub const SCHEMA: u32 = 1;

/// Which daemon answers on a socket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "lowercase")]
pub enum Status {
    /// A controller.
    Controller(Box<ControllerStatus>),
    /// A node.
    Node(Box<NodeDaemonStatus>),
}

/// A refusal, with the way out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// The error.
    pub error: String,
    /// The way out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Whether a node is a member of the epoch in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Membership {
    /// In the roster.
    Allowed,
    /// Not in the roster.
    Denied,
}

/// A node's state in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum NodeState {
    /// Member on the strength of its evidence.
    Active,
    /// Member because it is newly enrolled.
    Probation,
    /// Connected, not a member.
    Quarantined,
    /// Not connected.
    Offline,
    /// Excluded by an operator.
    Evicted,
    /// Member, and by its own report its interface carries nothing.
    Impaired,
}

/// Whether an epoch's PSKs are in a node's hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PskState {
    /// The node acknowledged the epoch in force and its secret.
    Valid,
    /// It did not, or was not given the secret.
    None,
    /// It did, and is not connected: nobody knows what it has now.
    Unknown,
}

/// State of a control connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Control {
    /// Open, and heard within seven seconds: two keepalives.
    Connected,
    /// Open, and not heard for longer than that. After ten seconds it is given up.
    Silent,
    /// Closed.
    Disconnected,
}

/// `status.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ControllerStatus {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The controller's version.
    pub version: String,
    /// The mesh, `mesh:…`.
    pub mesh: String,
    /// When this was written.
    pub generated_utc: String,
    /// Conditions that an operator has to look at, with the way out; empty when all is well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alarms: Vec<String>,
    /// All that is not well with nodes and epochs, with the way out; empty when all is well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attention: Vec<String>,
    /// The web page; `None`: it is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<PageStatus>,
    /// The epoch in force in the first segment.
    pub epoch: EpochStatus,
    /// The policy in force in the first segment.
    pub policy: PolicyStatus,
    /// Every segment, by name.
    #[serde(default)]
    pub segments: BTreeMap<SegmentName, SegmentStatus>,
    /// Every enrolled node, by name.
    pub nodes: BTreeMap<NodeName, NodeStatus>,
    /// Nodes that an operator has not approved yet, by the names that they would have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub waiting: BTreeMap<NodeName, WaitingStatus>,
}

/// A controller's web page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageStatus {
    /// The TCP address where it is, or is to be.
    pub address: SocketAddr,
    /// Whether its readers have to show a token.
    pub token: bool,
    /// Why it is not served there, with the way out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// A segment, by its controller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SegmentStatus {
    /// Its number, which keys and signatures have.
    pub id: u32,
    /// Its IPv4 range.
    pub v4: String,
    /// Its IPv6 range.
    pub v6: String,
    /// The epoch in force.
    pub epoch: EpochStatus,
    /// The policy in force.
    pub policy: PolicyStatus,
}

/// A node in one of its segments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeInSegment {
    /// Membership in the epoch in force.
    pub membership: Membership,
    /// State in words.
    pub state: NodeState,
    /// Why it is denied, or why it soon will be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The score that the segment's policy makes of the node's evidence, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// Newest epoch that it acknowledged as active.
    pub epoch: Option<u64>,
    /// Epochs for which it stays on probation, the one in force included.
    pub probation_left: u32,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
    /// Its WireGuard key, base64.
    pub wireguard: String,
    /// Whether it holds the PSKs of the epoch in force; `None`: the controller is of a version that does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub psk: Option<PskState>,
    /// Its words about its peers in it. Those in the first of its segments are the node's own `observes`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub observes: BTreeMap<NodeName, Observation>,
}

/// A node that waits for an operator's approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingStatus {
    /// Identity, `node:…`.
    pub node: String,
    /// Its WireGuard keys, base64, one for each segment that it asks for.
    pub wireguard: Vec<String>,
    /// The token that it came with.
    pub token: String,
    /// Since when it waits.
    pub since_utc: String,
    /// Where its connection comes from; `None`: it is not connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// Whether the name is a node's already, whose keys it would replace.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replaces: bool,
}

/// The key of a node that was removed for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BannedKey {
    /// Identity, `node:…`.
    pub node: String,
    /// Its WireGuard keys, base64, which are banned with it.
    pub wireguard: Vec<String>,
    /// The name that it had.
    pub name: NodeName,
    /// Since when it is banned.
    pub at_utc: String,
    /// At whose word: `uid:N`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why, in the operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The epoch in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochStatus {
    /// Its number.
    pub id: u64,
    /// When it began.
    pub activated_utc: String,
    /// When it is scheduled to end.
    pub expiry_utc: String,
    /// Commitment to its secret, `sha256:…`.
    pub secret_hash: String,
    /// Digest of its signed update, `sha256:…`.
    pub update: String,
    /// Members.
    pub members: usize,
    /// An epoch that is published and not yet in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<NextEpoch>,
    /// Names whose removal waits for an operator's word (sanity floor); still members.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<NodeName>,
}

/// An epoch on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NextEpoch {
    /// Its number.
    pub id: u64,
    /// When it begins.
    pub activates_utc: String,
}

/// The policy in force, as far as a reader of the status needs it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// Least overall score of a member.
    pub threshold: f64,
    /// Oldest evidence that counts, in seconds.
    pub max_benchmark_age: u64,
    /// Scheduled length of an epoch, in seconds.
    pub epoch_seconds: u64,
    /// SHA-256 of the whole policy, `sha256:…`.
    pub digest: String,
}

/// One node, as its controller sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Identity, `node:…`.
    pub node: String,
    /// The segments that it is in, by name. What follows and is not the same in all is of the first of them.
    #[serde(default)]
    pub segments: BTreeMap<SegmentName, NodeInSegment>,
    /// Those that it may come into and has not asked for: by its token, or because an operator has let it in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permitted: Vec<SegmentName>,
    /// Membership in the epoch in force.
    pub membership: Membership,
    /// State in words.
    pub state: NodeState,
    /// The groups that operators have put it into.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// An operator's ruling that is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overriding: Option<OverrideStatus>,
    /// Newest accepted evidence.
    pub last_benchmark: Option<BenchmarkStatus>,
    /// The score that the policy makes of the node's evidence, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// Whether the node holds the PSKs of the epoch in force.
    pub psk: PskState,
    /// Why it is denied, or why it soon will be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The operator's word that excludes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eviction: Option<EvictionStatus>,
    /// Its control connection.
    pub control: Control,
    /// When it was last heard there, to a second; `None`: not since the controller's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_utc: Option<String>,
    /// Its IPv4 address inside the mesh.
    pub v4: Ipv4Addr,
    /// Its IPv6 address inside the mesh.
    pub v6: Ipv6Addr,
    /// Its WireGuard key, base64.
    pub wireguard: String,
    /// Where its peers are told to reach it, best first.
    pub endpoints: Vec<SocketAddr>,
    /// Newest epoch that it acknowledged as active.
    pub epoch: Option<u64>,
    /// Epochs for which it stays on probation, the one in force included.
    pub probation_left: u32,
    /// Its wall clock minus the controller's, in milliseconds, at its last report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_skew_ms: Option<i64>,
    /// Its software version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub software: Option<String>,
    /// When it was enrolled.
    pub enrolled_utc: String,
    /// When it reported [`Self::observes`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_utc: Option<String>,
    /// Its reports about its peers within two minutes, by name; empty while it is not connected. A
    /// peer that is not among them was not probed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub observes: BTreeMap<NodeName, Observation>,
    /// The other machine that runs with this node's keys, if there was one within three minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<DuplicateStatus>,
    /// All that is wrong with it, by its own word: its mesh interfaces first; empty when all is well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
}

/// An operator's ruling on a node, for a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OverrideStatus {
    /// `allow`, `deny` or `threshold`.
    pub ruling: String,
    /// The threshold of every requirement, with the ruling of that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// When it ends.
    pub until_utc: String,
    /// Whose it is: `uid:N`; `None`: nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why, in the operator's words.
    pub reason: String,
}

/// An operator's word that excludes a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvictionStatus {
    /// When it was given.
    pub at_utc: String,
    /// Whose it is: `uid:N`; `None`: nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why, in the operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Two machines that run with one node's keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DuplicateStatus {
    /// The one that was first, and is served.
    pub first: InstanceStatus,
    /// The one that is refused.
    pub other: InstanceStatus,
    /// When the second was seen last.
    pub seen_utc: String,
}

/// One process of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// The address that the controller sees it at.
    pub address: SocketAddr,
    /// The boot of its machine: the same for two processes on one machine.
    pub boot: String,
    /// The run of the process: another one after each start.
    pub run: String,
}

impl DuplicateStatus {
    /// A duplicate that was seen at a time.
    pub fn new(duplicate: &Duplicate, seen_utc: String) -> Self {
        Self {
            first: (&duplicate.first).into(),
            other: (&duplicate.other).into(),
            seen_utc,
        }
    }
}

impl From<&Seen> for InstanceStatus {
    fn from(seen: &Seen) -> Self {
        Self {
            address: seen.address,
            boot: seen.boot_words(),
            run: seen.run_words(),
        }
    }
}

/// Newest accepted evidence of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BenchmarkStatus {
    /// Overall score, 0 to 1; a harness that has many metrics and no score of the whole gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overall: Option<f64>,
    /// When the run finished.
    pub timestamp: String,
    /// The suite.
    pub suite: String,
    /// The suite's version.
    pub suite_version: String,
    /// The party that vouches: `self` or `evaluator:…`.
    pub signer: String,
    /// SHA-256 of the statement, `sha256:…`.
    pub digest: String,
}

/// One node's observations of another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// Epoch of the newest live session.
    pub session_epoch: Option<u64>,
    /// Round trip of the last IPv4 echo, in milliseconds.
    pub rtt_v4_ms: Option<f64>,
    /// Round trip of the last IPv6 echo, in milliseconds.
    pub rtt_v6_ms: Option<f64>,
    /// How good the tunnel is; `None`: there is none, or the node's version does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<TunnelQuality>,
    /// Why its packets to that peer do not take the tunnel; empty when they do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
    /// When the node said so: in a large mesh it does not speak of every peer each time.
    pub at_utc: String,
}

/// How good a tunnel is, by the word of one end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelQuality {
    /// Seconds since the handshake of the session that packets are sent on, as of now; `None`: there was none.
    pub handshake_seconds: Option<u64>,
    /// The last echoes through the tunnel, of both families: at most [`MAX_ECHOES`](crate::message::MAX_ECHOES).
    pub echoes: u8,
    /// Those of them that were not answered.
    pub lost: u8,
}

/// Why a node is where it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The node's name.
    pub name: NodeName,
    /// The segment whose policy it is held against; that of no name where it is in none.
    pub segment: SegmentName,
    /// The node as it stands; `None`: the answer is about an earlier time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<NodeStatus>,
    /// The decision that the policy in force would make, now or at the time that was asked about.
    pub decision: DecisionStatus,
    /// The change that would let the node in, where it is denied or about to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// Whether it is a member of the newest epoch, and what is about to happen to it, one sentence each.
    pub outlook: Vec<String>,
    /// The evidence that is kept of it; the run that finished last is the first.
    pub evidence: Vec<KeptEvidence>,
    /// Digest of the policy; empty where it is in no segment.
    pub policy: String,
    /// The rules, one line each, with what they were held against and whether they hold.
    pub rules: Vec<RuleStatus>,
}

/// A run that is on a node's record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeptEvidence {
    /// The program that ran the suite.
    pub harness: String,
    /// The suite.
    pub suite: String,
    /// The suite's version.
    pub suite_version: String,
    /// The party that vouches: `self` or `evaluator:…`.
    pub signer: String,
    /// When the run finished.
    pub finished_utc: String,
    /// How many samples it has.
    pub samples: u64,
    /// The score of the whole, if the harness gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overall: Option<f64>,
    /// SHA-256 of the statement, `sha256:…`.
    pub digest: String,
}

/// A ruling on a node: `POST /v1/nodes/{name}/override`; `DELETE` ends it before its time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverrideRequest {
    /// `allow`, `deny` or `threshold`.
    pub ruling: String,
    /// The threshold, with the ruling of that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// How long it is in force, in seconds.
    pub seconds: u64,
    /// Why, for the event log.
    pub reason: String,
}

/// A policy, to be put in force (`POST /v1/policy`) or to be tried on the record (`POST /v1/policy/simulate`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyRequest {
    /// Its file.
    pub toml: String,
    /// The segment; `None`: the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment: Option<SegmentName>,
    /// For a trial: the time from which differences are told, in RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

/// The policy in force: the answer to `GET /v1/policy`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyShown {
    /// Its digest.
    pub digest: String,
    /// A file that reads back as it.
    pub toml: String,
}

/// A policy was put in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyApplied {
    /// Its digest.
    pub digest: String,
    /// Whether another one was in force before.
    pub changed: bool,
}

/// The decisions of another policy on what is on record, where they differ from those that were taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Simulation {
    /// Digest of the policy that was tried.
    pub policy: String,
    /// How many decisions were taken in that time, and taken again.
    pub decisions: u64,
    /// The time of the first of them.
    pub from_utc: Option<String>,
    /// Stretches of time in which a node's membership would have been another, oldest first.
    pub differences: Vec<Difference>,
    /// Differences between the members of now, in who connects and what passes.
    #[serde(default)]
    pub traffic: Vec<TrafficChange>,
    /// Whether there are more of either than an answer holds.
    pub cut: bool,
}

/// A stretch of time in which a node's membership would have been another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The node.
    pub name: NodeName,
    /// Its beginning.
    pub from_utc: String,
    /// Its end; `None`: it lasts.
    pub until_utc: Option<String>,
    /// The decision that was taken.
    pub happened: Membership,
    /// The decision that would have been taken.
    pub would: Membership,
    /// Why it would have.
    pub reason: Option<String>,
}

/// A decision with what it rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecisionStatus {
    /// The decision.
    pub membership: Membership,
    /// Why it is denied, or what would deny it without probation or patience.
    pub reason: Option<String>,
    /// The score that was judged.
    pub score: Option<f64>,
    /// The evidence's age, in seconds.
    pub age_seconds: Option<f64>,
    /// Digest of the evidence.
    pub evidence: Option<String>,
    /// When it was decided.
    pub decided_utc: String,
}

/// One rule of the policy, held against one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuleStatus {
    /// The rule, as in `overall >= 0.70`.
    pub rule: String,
    /// The value it was held against, as in `0.41`.
    pub value: String,
    /// Whether it holds.
    pub holds: bool,
}

/// The outcome of evidence that an operator handed in: the answer to `POST /v1/nodes/{name}/evidence`, whose body
/// is the envelope as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceAnswer {
    /// SHA-256 of the statement, `sha256:…`.
    pub digest: String,
    /// Whether it entered the node's record.
    pub accepted: bool,
    /// Why it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether the reason may pass: the same envelope may be taken later.
    #[serde(default)]
    pub again: bool,
}

/// Evicts, rejects or removes a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvictRequest {
    /// Why, for the event log.
    #[serde(default)]
    pub reason: Option<String>,
}

/// The most nodes that one order evicts.
pub const MAX_EVICTED: usize = 4_096;

/// Evicts several nodes with one epoch: in an incident, each epoch would be told to everybody.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvictionsRequest {
    /// The nodes; 1 to [`MAX_EVICTED`]. One that nobody knows makes the whole order void. Those that are evicted
    /// already stay so.
    pub nodes: Vec<NodeName>,
    /// Why, for the event log; the same for each.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Goes on from an old copy of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoverRequest {
    /// The newest epoch that a node is known to have seen, where no node has proved one yet, or an older one.
    #[serde(default)]
    pub seen: Option<u64>,
    /// Nodes to evict with it: what was decided after the copy is forgotten.
    #[serde(default)]
    pub evict: Vec<NodeName>,
}

/// Another key signs for the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityRotated {
    /// The key that signed before, `authority:…`.
    pub old: String,
    /// The key that signs from now on.
    pub new: String,
    /// The first epoch that it has signed.
    pub change: EpochChange,
    /// The nodes that are not connected: they learn of it when they come.
    pub absent: Vec<NodeName>,
}

/// The controller goes on from an old copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// The events of the copy that nodes are told of: the log goes on behind them.
    pub copy_events: u64,
    /// The newest epoch that nodes had seen.
    pub seen: u64,
    /// The epoch that every node takes again.
    pub change: EpochChange,
    /// The tokens that were open and are revoked: in the lost part they may have been used.
    pub revoked: Vec<String>,
    /// The nodes that were evicted.
    pub evicted: Vec<NodeName>,
    /// The nodes that are not connected. One that has seen a newer epoch raises the alarm again.
    pub absent: Vec<NodeName>,
}

/// Asks for a new epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateRequest {
    /// Without a lead time.
    #[serde(default)]
    pub now: bool,
    /// The operator's word for removals that the sanity floor holds back.
    #[serde(default)]
    pub confirm_removals: bool,
    /// Of this segment alone; `None`: of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment: Option<SegmentName>,
}

/// The effect of a request on the epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochChange {
    /// The epoch that was published.
    pub epoch: u64,
    /// Milliseconds until it is in force.
    pub activates_in_ms: u64,
    /// Members in it.
    pub members: usize,
    /// Nodes that it excludes, by name, with the reason.
    pub excluded: BTreeMap<NodeName, String>,
    /// Names whose removal waits for an operator's word.
    #[serde(default)]
    pub held: Vec<NodeName>,
}

/// Asks for an enrolment token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// The only name that it admits; also lets an existing name enrol with a new key.
    #[serde(default)]
    pub name: Option<NodeName>,
    /// Seconds until it ends; one hour unless told.
    #[serde(default)]
    pub ttl_seconds: Option<u64>,
    /// How many nodes may enrol with it; one unless told. More than one only without a name.
    #[serde(default)]
    pub uses: Option<u32>,
    /// The segments that they may ask for; the first is the one of a node that names none. Empty: the mesh's first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<SegmentName>,
}

/// A new token. Holds a secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenCreated {
    /// Its handle in lists and revocations.
    pub id: String,
    /// The string for `meshd --role node --join`. A secret.
    pub token: String,
    /// When it ends.
    pub expires_utc: String,
}

/// A token in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenInfo {
    /// Its handle in lists and revocations.
    pub id: String,
    /// The only name that it admits.
    pub name: Option<NodeName>,
    /// The segments that a node may ask for with it.
    #[serde(default)]
    pub segments: Vec<SegmentName>,
    /// `open`, `used`, `revoked` or `expired`.
    pub state: String,
    /// When it was created.
    pub created_utc: String,
    /// When it ends.
    pub expires_utc: String,
    /// How many nodes may enrol with it.
    pub uses: u32,
    /// The nodes that did, in the order in which they came.
    pub used_by: Vec<NodeName>,
}

/// A page of the event log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventList {
    /// The events, oldest first.
    pub events: Vec<EventInfo>,
    /// Sequence number of the newest event in the log.
    pub head: u64,
    /// The last event that was looked at, shown or not: the next page is the one after it.
    pub next: u64,
}

/// One event of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventInfo {
    /// Its place in the log, from 1.
    pub seq: u64,
    /// When it was written.
    pub at_utc: String,
    /// At whose word: `uid:N` for an operator, `signal`; `None`: the controller's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Its kind, as in `evidence_accepted`.
    pub kind: String,
    /// The event itself, as fields.
    pub body: serde_json::Value,
    /// The hash of its leaf in the log's tree, `sha256:…`.
    pub leaf: String,
}

/// Status of a node daemon: what it has observed itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeDaemonStatus {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The node's version.
    pub version: String,
    /// When this was made.
    pub generated_utc: String,
    /// All that is not well with the node, with the way out; empty when all is well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attention: Vec<String>,
    /// Identity, `node:…`.
    pub node: String,
    /// The node's name, once it is enrolled.
    pub name: Option<NodeName>,
    /// The node's WireGuard key, base64; empty while it is in no segment.
    pub wireguard: String,
    /// The node's IPv4 address inside the mesh.
    pub v4: Option<Ipv4Addr>,
    /// The node's IPv6 address inside the mesh.
    pub v6: Option<Ipv6Addr>,
    /// Its control connection.
    pub control: Control,
    /// Seconds since the controller was last heard, to a second; `None`: not since the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_heard_seconds: Option<f64>,
    /// The controller's address in use, or last tried.
    pub controller: Option<String>,
    /// Why the control connection is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_error: Option<String>,
    /// The node's wall clock minus the controller's, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_skew_ms: Option<i64>,
    /// The other machine that runs with this node's keys, if the controller said so within three minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<DuplicateStatus>,
    /// The end of the controller's log, by the newest checkpoint that this node has kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogSeen>,
    /// Why the controller's log is refused, and every update with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_fault: Option<String>,
    /// Membership in the epoch that the node has in force; `None` before the first.
    pub membership: Option<Membership>,
    /// Why the node has no peers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The epoch that the node has in force.
    pub epoch: Option<u64>,
    /// An epoch that is installed and not yet in force.
    pub next_epoch: Option<u64>,
    /// Seconds until the lease ends; `None`: there is none, or it has ended.
    pub lease_seconds: Option<f64>,
    /// The interface.
    pub interface: Option<InterfaceStatus>,
    /// Newest evidence that was sent, and what became of it.
    pub last_evidence: Option<EvidenceStatus>,
    /// Why the benchmark gives no results; `None`: it does, or there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub benchmark: Option<BenchmarkFault>,
    /// The mesh's names on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<NamesStatus>,
    /// Seconds without a word after which a peer is sent a keepalive; `None`: never.
    #[serde(default)]
    pub keepalive: Option<u64>,
    /// Where the controller sees the node, if that is no address of its machine.
    #[serde(default)]
    pub mapped: Option<SocketAddr>,
    /// Every node of the roster and every excluded one, by name.
    pub peers: BTreeMap<NodeName, PeerStatus>,
    /// The segment's rules; `None`: all members connect, and everything passes between them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<RulesInForce>,
    /// Networks behind nodes; `None`: the node neither offers nor accepts any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<NodeRoutes>,
    /// Packets that were not carried, by reason; every reason is there from zero.
    pub dropped: BTreeMap<String, u64>,
    /// Every segment that the node is in, by name. Empty where that is the one of a mesh without others. The fields
    /// beside are of the first of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub segments: BTreeMap<SegmentName, NodeSegmentStatus>,
    /// Segments that the node asks for and has no place in, by name, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub not_placed: BTreeMap<SegmentName, String>,
}

/// One segment of a node, by the node's own daemon. The fields are those of [`NodeDaemonStatus`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeSegmentStatus {
    /// The node's WireGuard key in it, base64.
    pub wireguard: String,
    /// The node's IPv4 address in it.
    pub v4: Ipv4Addr,
    /// The node's IPv6 address in it.
    pub v6: Ipv6Addr,
    /// Membership in the epoch that the node has in force; `None` before the first.
    pub membership: Option<Membership>,
    /// Why the node has no peers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The epoch that the node has in force.
    pub epoch: Option<u64>,
    /// An epoch that is installed and not yet in force.
    pub next_epoch: Option<u64>,
    /// Seconds until the lease ends; `None`: there is none, or it has ended.
    pub lease_seconds: Option<f64>,
    /// The interface.
    pub interface: InterfaceStatus,
    /// Every node of the roster and every excluded one, by name.
    pub peers: BTreeMap<NodeName, PeerStatus>,
    /// The segment's rules; `None`: all members connect, and everything passes between them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<RulesInForce>,
    /// Networks behind nodes; `None`: the node neither offers nor accepts any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<NodeRoutes>,
    /// Packets that were not carried, by reason; every reason is there from zero.
    pub dropped: BTreeMap<String, u64>,
}

/// The TUN interface and the UDP socket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Name of the interface.
    pub name: String,
    /// Its MTU, in bytes.
    pub mtu: u32,
    /// MTU of the narrowest path of the underlay, in bytes; `None` while no path is known.
    #[serde(default)]
    pub underlay_mtu: Option<u32>,
    /// Whether the datagrams of full packets are too large for that path, so that IP fragments them.
    #[serde(default)]
    pub fragments: bool,
    /// The TUN back end in use.
    pub backend: String,
    /// UDP port of the WireGuard socket.
    pub listen_port: u16,
    /// Threads that carry packets.
    #[serde(default)]
    pub threads: usize,
    /// Every offload, and why it is off if it is.
    #[serde(default)]
    pub offloads: Vec<OffloadStatus>,
    /// Whether mesh addresses are kept apart from what does not come through the tunnel.
    #[serde(default)]
    pub firewall: FirewallStatus,
    /// Whether packets pass it.
    #[serde(default)]
    pub state: InterfaceState,
    /// Its faults, and those of the ways to peers; empty when all is well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
    /// The socket that `wg show` reads; `None`: it is switched off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wireguard_socket: Option<WireGuardSocketStatus>,
}

/// The names of a mesh's nodes, on the machine of one of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamesStatus {
    /// The domain that they end in.
    pub suffix: String,
    /// How many nodes resolve, this one among them; each counts once for every segment.
    pub names: u64,
    /// Where the DNS server is; `None`: there is none.
    pub listen: Option<SocketAddr>,
    /// How systemd-resolved stands.
    pub resolver: ResolverState,
    /// The hosts file that has a block of names; `None`: none is to have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts_file: Option<PathBuf>,
    /// All that is wrong, with the way out; empty when all is well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
}

/// Whether systemd-resolved asks a node's DNS server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResolverState {
    /// It is not to be told, or there is no server.
    Off,
    /// It does not run here, or in another network namespace.
    #[default]
    Absent,
    /// It asks the server.
    Told,
    /// It refused.
    Failed,
}

/// A line of a hosts file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostLine {
    /// The address.
    pub address: IpAddr,
    /// Its names, the canonical one first.
    pub names: Vec<String>,
}

/// The cross-platform WireGuard socket of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireGuardSocketStatus {
    /// Its file.
    pub path: PathBuf,
    /// Why it is not there, if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// Whether packets pass a node's interface, by what the kernel says of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InterfaceState {
    /// It is as it should be.
    Ok,
    /// Something is wrong with it, and some packets pass.
    Impaired,
    /// No packet passes.
    Unusable,
    /// The kernel has not said.
    #[default]
    Unknown,
}

/// The node's own firewall table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirewallStatus {
    /// Whether it is there.
    pub state: FirewallState,
    /// Why it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Whether a node's firewall table is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FirewallState {
    /// It was, when it was last looked at.
    Active,
    /// It is not wanted.
    #[default]
    Off,
    /// It is wanted, and could not be had or not be looked at.
    Failed,
}

/// One kind of offload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffloadStatus {
    /// Its name, as in `udp_gso`.
    pub name: String,
    /// Whether it is in use.
    pub enabled: bool,
    /// Why it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A benchmark that gives no results.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BenchmarkFault {
    /// Why not, as it was the last time.
    pub cause: String,
    /// When it began to fail.
    pub since_utc: String,
}

/// Newest evidence that a node sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvidenceStatus {
    /// Overall score, 0 to 1; a harness that has many metrics and no score of the whole gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overall: Option<f64>,
    /// The suite.
    pub suite: String,
    /// The suite's version.
    pub suite_version: String,
    /// When it was sent.
    pub sent_utc: String,
    /// `pending`, `accepted`, or why it was refused.
    pub result: String,
}

/// One peer, as a node observes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Identity, `node:…`.
    pub node: String,
    /// Membership in the epoch that this node has in force.
    pub membership: Membership,
    /// Why there is no tunnel to it: it is denied, or neither side is a hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its IPv4 address inside the mesh.
    pub v4: Ipv4Addr,
    /// Its IPv6 address inside the mesh.
    pub v6: Ipv6Addr,
    /// Its WireGuard key, base64; `None` for an excluded node.
    pub wireguard: Option<String>,
    /// Where packets to it go.
    pub endpoint: Option<SocketAddr>,
    /// Epoch of the newest live session; `None`: no live session.
    pub session_epoch: Option<u64>,
    /// Epochs by which the newest live session lags behind the epoch in force.
    pub lag: Option<u64>,
    /// Seconds since the newest handshake was completed.
    pub handshake_seconds: Option<f64>,
    /// MTU of packets to it inside the mesh, in bytes; `None` for an excluded node.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// The largest packet on the underlay that an echo has shown to reach it whole, in bytes.
    #[serde(default)]
    pub path_mtu: Option<u32>,
    /// Bytes of inner packets sent to it.
    pub tx_bytes: u64,
    /// Bytes of inner packets received from it.
    pub rx_bytes: u64,
    /// The last IPv4 echo.
    pub ping_v4: Option<PingStatus>,
    /// The last IPv6 echo.
    pub ping_v6: Option<PingStatus>,
    /// Why packets to it do not take the tunnel; empty when they do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
}

/// Result of an ICMP echo through the tunnel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PingStatus {
    /// Whether it was answered.
    pub ok: bool,
    /// Round trip, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// When it was sent.
    pub at_utc: String,
}

/// Changes the mean of a running mock emitter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoreRequest {
    /// The new mean, 0 to 1.
    pub mean: f64,
}

/// A `wg`/`wg-quick` configuration for a stock WireGuard in this node's place. Holds secrets.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WgExport {
    /// The segment that it is of.
    #[serde(default)]
    pub segment: SegmentName,
    /// The epoch whose PSK it holds; of no use after it.
    pub epoch: u64,
    /// The configuration, in the format of `wg-quick(8)`.
    pub config: String,
}
