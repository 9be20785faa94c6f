//! Everything that operators can ask, and the answers. Refuses to know how: the admin socket speaks these
//! types, and the engine answers in them.

use serde::Serialize;
use wire::NodeName;
use wire::admin::{
    EpochChange, EventList, EvictRequest, Explanation, NodeStatus, RotateRequest, Status,
    TokenCreated, TokenInfo, TokenRequest,
};

/// A request.
#[derive(Debug)]
pub enum Request {
    /// The status.
    Status,
    /// Why a node is where it is.
    Explain(NodeName),
    /// Exclude a node.
    Evict(NodeName, EvictRequest),
    /// End an exclusion.
    Readmit(NodeName),
    /// A new epoch.
    Rotate(RotateRequest),
    /// All tokens.
    Tokens,
    /// A new token.
    CreateToken(TokenRequest),
    /// Withdraw a token.
    RevokeToken(String),
    /// A page of the event log.
    Events {
        /// The last event that is known already.
        after: u64,
        /// At most so many.
        limit: u64,
    },
}

/// An answer.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Status),
    /// To [`Request::Explain`].
    Explanation(Box<Explanation>),
    /// To [`Request::Evict`] and [`Request::Rotate`].
    Change(EpochChange),
    /// To [`Request::Readmit`].
    Node(Box<NodeStatus>),
    /// To [`Request::Tokens`].
    Tokens(Vec<TokenInfo>),
    /// To [`Request::CreateToken`]. Holds a secret.
    Created(TokenCreated),
    /// To [`Request::RevokeToken`].
    Token(TokenInfo),
    /// To [`Request::Events`].
    Events(EventList),
}
