//! Everything that operators can ask, and the answers. Refuses to know how: the admin socket speaks these
//! types, and the engine answers in them.

use jiff::Timestamp;
use keys::NodeId;
use policy::Policy;
use serde::{Deserialize, Serialize};
use wire::admin::{
    AuthorityRotated, BannedKey, EpochChange, EventList, EvictRequest, EvictionsRequest,
    EvidenceAnswer, Explanation, LogConsistency, LogEntries, LogProof, LogStatus, NodeStatus,
    OverrideRequest, PolicyApplied, PolicyShown, RecoverRequest, Recovered, RotateRequest,
    RouteRequest, RouteStatus, Simulation, Status, TokenCreated, TokenInfo, TokenRequest,
    WaitingStatus,
};
use wire::succession::EvaluatorSuccession;
use wire::{NodeName, SegmentName};

/// A request.
#[derive(Debug)]
pub enum Request {
    /// The status.
    Status,
    /// Why a node is where it is.
    Explain(NodeName, Option<SegmentName>),
    /// Exclude a node.
    Evict(NodeName, EvictRequest),
    /// Evicts several nodes with one epoch.
    EvictAll(EvictionsRequest),
    /// End an exclusion.
    Readmit(NodeName),
    /// Let a node into a segment.
    JoinSegment(NodeName, SegmentName),
    /// Take a node out of a segment.
    LeaveSegment(NodeName, SegmentName, EvictRequest),
    /// Record that another key vouches for an evaluator.
    RotateEvaluator(EvaluatorSuccession),
    /// Another key for the authority.
    RotateAuthority,
    /// Go on from an old copy of the log.
    Recover(RecoverRequest),
    /// Remove a node for good.
    Remove(NodeName, EvictRequest),
    /// Give a node that waits for approval its place.
    Approve(NodeName),
    /// Send a node away that waits for approval.
    Reject(NodeName, EvictRequest),
    /// All banned keys.
    Banned,
    /// Let a banned key enrol again.
    Unban(NodeId),
    /// A new epoch.
    Rotate(RotateRequest),
    /// All tokens.
    Tokens,
    /// A new token.
    CreateToken(TokenRequest),
    /// Withdraw a token.
    RevokeToken(String),
    /// A page of the event log.
    Events(Page),
    /// Another key for the log.
    RotateLogKey,
    /// Something about the log as a transparency log.
    Log(LogRequest),
    /// Why a node was where it was at that time, from the log alone.
    ExplainAt(NodeName, Option<SegmentName>, Timestamp),
    /// Evidence about a node: an envelope.
    Evidence(NodeName, Vec<u8>),
    /// A ruling on a node, for a time.
    Override(NodeName, OverrideRequest),
    /// The end of a ruling.
    ClearOverride(NodeName),
    /// A node into a group, or out of it.
    Group {
        /// The node.
        name: NodeName,
        /// The group.
        group: String,
        /// Whether it is to be in it.
        member: bool,
    },
    /// The networks behind nodes.
    Routes,
    /// Let a node carry packets for a network behind it.
    ApproveRoute(NodeName, RouteRequest),
    /// End that.
    WithdrawRoute(NodeName, RouteRequest),
    /// The policy in force in a segment; without a name, in the only one.
    Policy(Option<SegmentName>),
    /// Another policy for a segment; without a name, for the only one.
    ChangePolicy(Option<SegmentName>, Box<Policy>),
    /// The decisions that another policy would have taken, since then.
    Simulate(Option<SegmentName>, Box<Policy>, Option<Timestamp>),
}

/// A question about the log as a transparency log.
#[derive(Debug, Clone, Copy)]
pub enum LogRequest {
    /// Its end.
    Status,
    /// The proof that an event is in it.
    Proof {
        /// The event's number, from 1.
        seq: u64,
    },
    /// The proof that it extends an earlier one.
    Consistency {
        /// Events in the earlier one.
        from: u64,
        /// Events in the later one; `None`: in the log as it is now.
        to: Option<u64>,
    },
    /// A page of it.
    Entries {
        /// The last entry that is known already.
        after: u64,
        /// At most so many.
        limit: u64,
    },
}

/// Which events are asked for, of those that follow a place in the log.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Page {
    /// The last event that is known already.
    pub after: u64,
    /// At most so many.
    pub limit: u64,
    /// Only those that concern this node.
    pub node: Option<NodeName>,
    /// Only those of this kind, as in `node_evicted`.
    pub kind: Option<String>,
    /// None that were written before.
    pub since: Option<Timestamp>,
    /// None that were written after.
    pub until: Option<Timestamp>,
}

impl Default for Page {
    fn default() -> Self {
        Self {
            after: 0,
            limit: 100,
            node: None,
            kind: None,
            since: None,
            until: None,
        }
    }
}

/// An answer.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Status),
    /// To [`Request::Explain`].
    Explanation(Box<Explanation>),
    /// To [`Request::Evict`], [`Request::Remove`] and [`Request::Rotate`].
    Change(EpochChange),
    /// To [`Request::RotateEvaluator`].
    Evaluator(EvaluatorSuccession),
    /// To [`Request::RotateAuthority`].
    Authority(AuthorityRotated),
    /// To [`Request::Recover`].
    Recovered(Recovered),
    /// To [`Request::Readmit`] and [`Request::Approve`].
    Node(Box<NodeStatus>),
    /// To [`Request::Reject`].
    Waiting(WaitingStatus),
    /// To [`Request::Banned`].
    Banned(Vec<BannedKey>),
    /// To [`Request::Unban`].
    Unbanned(BannedKey),
    /// To [`Request::Tokens`].
    Tokens(Vec<TokenInfo>),
    /// To [`Request::CreateToken`]. Holds a secret.
    Created(TokenCreated),
    /// To [`Request::RevokeToken`].
    Token(TokenInfo),
    /// To [`Request::Events`].
    Events(EventList),
    /// To [`Request::Routes`].
    Routes(Vec<RouteStatus>),
    /// To [`Request::ApproveRoute`] and [`Request::WithdrawRoute`].
    Route(RouteStatus),
    /// To [`Request::Evidence`].
    Evidence(EvidenceAnswer),
    /// To [`Request::Policy`].
    Policy(PolicyShown),
    /// To [`Request::ChangePolicy`].
    PolicyApplied(PolicyApplied),
    /// To [`Request::Simulate`].
    Simulation(Box<Simulation>),
    /// To [`LogRequest::Status`].
    Log(LogStatus),
    /// To [`LogRequest::Proof`].
    LogProof(Box<LogProof>),
    /// To [`LogRequest::Consistency`].
    LogConsistency(Box<LogConsistency>),
    /// To [`LogRequest::Entries`].
    LogEntries(LogEntries),
}
