//! Counts of all that nothing else counts, since the start. Decides nothing, and nothing reads it but a scrape.

use crate::decide::Ballot;
use exposition::Tally;
use policy::{Membership, Unacceptable};
use std::net::{IpAddr, Ipv4Addr};
use wire::evidence::EvidenceError;
use wire::message::Refusal;

/// The counts.
#[derive(Debug)]
pub(crate) struct Counts {
    pub(crate) updates: Tally<UpdateResult>,
    pub(crate) decisions: Tally<Decided>,
    pub(crate) evidence: Tally<EvidenceResult>,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            updates: Tally::new(&UpdateResult::ALL),
            decisions: Tally::new(&Decided::ALL),
            evidence: Tally::new(&EvidenceResult::ALL),
        }
    }
}

impl Counts {
    /// The verdicts of a published epoch.
    pub(crate) fn ballot(&mut self, ballot: &Ballot) {
        for verdict in &ballot.verdicts {
            self.decisions.count(match verdict.membership {
                _ if verdict.held => Decided::Held,
                Membership::Allowed => Decided::Allowed,
                Membership::Denied => Decided::Denied,
            });
        }
    }
}

/// The end of an attempt to publish an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UpdateResult {
    Published,
    NotNow,
    Invalid,
    Unwritten,
}

impl UpdateResult {
    const ALL: [Self; 4] = [
        Self::Published,
        Self::NotNow,
        Self::Invalid,
        Self::Unwritten,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::NotNow => "not_now",
            Self::Invalid => "invalid",
            Self::Unwritten => "unwritten",
        }
    }
}

/// A decision about a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decided {
    Allowed,
    Denied,
    Held,
}

impl Decided {
    const ALL: [Self; 3] = [Self::Allowed, Self::Denied, Self::Held];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Held => "held",
        }
    }
}

/// The end that evidence came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EvidenceResult {
    Accepted,
    TooMuch,
    NotEnrolled,
    Evicted,
    Malformed,
    BadSignature,
    OtherNode,
    OtherMesh,
    SignerNotCounted,
    OtherSuite,
    BadChallenge,
    Future,
    Replayed,
    Unwritten,
}

impl EvidenceResult {
    const ALL: [Self; 14] = [
        Self::Accepted,
        Self::TooMuch,
        Self::NotEnrolled,
        Self::Evicted,
        Self::Malformed,
        Self::BadSignature,
        Self::OtherNode,
        Self::OtherMesh,
        Self::SignerNotCounted,
        Self::OtherSuite,
        Self::BadChallenge,
        Self::Future,
        Self::Replayed,
        Self::Unwritten,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::TooMuch => "too_much",
            Self::NotEnrolled => "not_enrolled",
            Self::Evicted => "evicted",
            Self::Malformed => "malformed",
            Self::BadSignature => "bad_signature",
            Self::OtherNode => "other_node",
            Self::OtherMesh => "other_mesh",
            Self::SignerNotCounted => "signer_not_counted",
            Self::OtherSuite => "other_suite",
            Self::BadChallenge => "bad_challenge",
            Self::Future => "future",
            Self::Replayed => "replayed",
            Self::Unwritten => "unwritten",
        }
    }
}

impl From<&EvidenceError> for EvidenceResult {
    fn from(error: &EvidenceError) -> Self {
        match error {
            EvidenceError::Signature => Self::BadSignature,
            EvidenceError::Subject => Self::OtherNode,
            EvidenceError::Mesh => Self::OtherMesh,
            EvidenceError::TooLarge
            | EvidenceError::Envelope
            | EvidenceError::Statement
            | EvidenceError::Field { .. } => Self::Malformed,
        }
    }
}

impl From<&Unacceptable> for EvidenceResult {
    fn from(error: &Unacceptable) -> Self {
        match error {
            Unacceptable::NodeSigner
            | Unacceptable::EvaluatorSigner
            | Unacceptable::OutOfScope { .. } => Self::SignerNotCounted,
            Unacceptable::TooManySuites(_) => Self::TooMuch,
            Unacceptable::Pinned(_) => Self::OtherSuite,
            Unacceptable::NoChallenge | Unacceptable::UnknownChallenge => Self::BadChallenge,
            Unacceptable::Future { .. } => Self::Future,
            Unacceptable::NotNewer(_) | Unacceptable::NonceUsed => Self::Replayed,
        }
    }
}

/// None of each reason that a connection is closed with.
pub(crate) fn refusals() -> Tally<Refusal> {
    Tally::new(&REFUSED)
}

const REFUSED: [Refusal; 16] = [
    Refusal::NotEnrolled,
    Refusal::BadToken,
    Refusal::NameTaken,
    Refusal::KeyTaken,
    Refusal::MeshFull,
    Refusal::Superseded,
    Refusal::Protocol,
    Refusal::Busy,
    Refusal::Stopping,
    Refusal::TooMuch,
    Refusal::WeakKey,
    Refusal::Duplicate,
    IN_RANGE,
    Refusal::Rejected,
    Refusal::Banned,
    Refusal::Segment,
];

/// Every address in the mesh's range counts as one.
const IN_RANGE: Refusal = Refusal::InRange(IpAddr::V4(Ipv4Addr::UNSPECIFIED));

/// A reason as it is counted.
pub(crate) fn countable(reason: Refusal) -> Refusal {
    match reason {
        Refusal::InRange(_) => IN_RANGE,
        reason => reason,
    }
}

/// The word for a reason that a connection was closed with.
pub(crate) fn refused(reason: Refusal) -> &'static str {
    match reason {
        Refusal::NotEnrolled => "not_enrolled",
        Refusal::BadToken => "bad_token",
        Refusal::NameTaken => "name_taken",
        Refusal::KeyTaken => "key_taken",
        Refusal::MeshFull => "mesh_full",
        Refusal::Superseded => "superseded",
        Refusal::Protocol => "protocol",
        Refusal::Busy => "busy",
        Refusal::Stopping => "stopping",
        Refusal::TooMuch => "too_much",
        Refusal::WeakKey => "weak_key",
        Refusal::Duplicate => "duplicate",
        Refusal::InRange(_) => "in_range",
        Refusal::Rejected => "rejected",
        Refusal::Banned => "banned",
        Refusal::Segment => "segment",
    }
}
