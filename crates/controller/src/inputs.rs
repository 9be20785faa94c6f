//! The inputs of the one task that owns the state: what connections carry, and what operators and scrapers
//! ask. Refuses to answer: whoever puts a question in holds the other end.

use crate::by::By;
use crate::effect::ConnectionId;
use crate::outbox::Outbox;
use crate::request::{Answer, Request};
use ::admin::Refused;
use exposition::Page;
use keys::NodeId;
use policy::Policy;
use quic::Connection;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::oneshot;
use wire::admin::{EventList, EvictRequest, Explanation};
use wire::message::{Refusal, ToController};
use wire::{NodeName, SegmentName};

/// Messages of connections to the engine.
#[derive(Debug)]
pub(crate) enum Input {
    /// A key proved itself.
    Connected {
        id: ConnectionId,
        peer: NodeId,
        remote: SocketAddr,
        outbox: Arc<Outbox>,
        connection: Connection,
    },
    /// A message arrived.
    Message {
        id: ConnectionId,
        message: Box<ToController>,
    },
    /// Something arrived that is not to be read.
    Refused { id: ConnectionId, reason: Refusal },
    /// A connection ended.
    Disconnected { id: ConnectionId },
    /// A connection takes what it is to be told of places.
    Ready { id: ConnectionId },
}

/// Questions of an operator or a scraper. Without `Debug`: an answer may hold a token.
pub(crate) enum Question {
    /// An operator asks.
    Operator {
        request: Request,
        by: Option<By>,
        answer: oneshot::Sender<Result<Answer, Refused>>,
    },
    /// The policies of segments were read again, or could not be.
    Policies {
        policies: Result<Vec<(wire::SegmentName, Policy)>, String>,
        answer: oneshot::Sender<Result<bool, String>>,
    },
    /// A reader of the web page asks.
    Page(PageQuestion),
    /// A scraper asks.
    Metrics {
        answer: oneshot::Sender<Result<Page, Refused>>,
    },
}

/// A question of the web page. There are no orders among them.
#[derive(Debug)]
pub(crate) enum PageQuestion {
    /// Why a node is where it is.
    Explain {
        name: NodeName,
        segment: Option<SegmentName>,
        answer: oneshot::Sender<Result<Explanation, Refused>>,
    },
    /// Events behind a place in the log.
    Events {
        after: u64,
        limit: u64,
        answer: oneshot::Sender<Result<EventList, Refused>>,
    },
}

/// An order to evict a node.
pub(crate) struct Eviction {
    pub(crate) order: (NodeName, EvictRequest),
    pub(crate) by: Option<By>,
    pub(crate) answer: oneshot::Sender<Result<Answer, Refused>>,
}

impl From<Eviction> for Question {
    fn from(eviction: Eviction) -> Self {
        let Eviction { order, by, answer } = eviction;
        let (name, form) = order;
        Self::Operator {
            request: Request::Evict(name, form),
            by,
            answer,
        }
    }
}

impl Question {
    /// The eviction that is asked for, or the question as it was.
    pub(crate) fn eviction(self) -> Result<Eviction, Box<Self>> {
        match self {
            Self::Operator {
                request: Request::Evict(name, form),
                by,
                answer,
            } => Ok(Eviction {
                order: (name, form),
                by,
                answer,
            }),
            other => Err(Box::new(other)),
        }
    }
}

impl ::admin::Question for Question {
    fn metrics(answer: oneshot::Sender<Result<Page, Refused>>) -> Self {
        Self::Metrics { answer }
    }
}
