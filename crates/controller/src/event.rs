//! Everything that can happen, as the event log keeps it. Every change of durable state is one of these; the
//! state is their fold ([`crate::fleet`]). Names and keys are stored as printed, so that the log can be
//! read without this program.
//!
//! The file is long because it is a list.

use jiff::Timestamp;
use keys::{AuthorityId, Epoch, LogId, MeshId, NodeId, SegmentId, TokenHash, WgPublicKey};
use policy::{Membership, Policy, Ruling, Run, Standing, State};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use wire::evidence::Signer;
use wire::instance::Seen;
use wire::log::{LogEnd, LogRestored};
use wire::succession::EvaluatorSuccession;
use wire::{Digest, Duplicate, NodeName, Prefix, SegmentName, Signed, Succession};

/// One event. Its kind and its body are columns of their own in the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "body", rename_all = "snake_case")]
pub enum Event {
    /// The mesh's identity was drawn; always the first event.
    MeshCreated {
        /// The identity.
        #[serde(with = "bytes")]
        mesh: MeshId,
        /// The key that signs for the mesh.
        #[serde(with = "text")]
        authority: AuthorityId,
    },
    /// Another key vouches in the place of an evaluator's, by the word of the old one. Whose evidence counts is the
    /// policy's affair.
    EvaluatorRotated(EvaluatorSuccession),
    /// Another key signs for the mesh, by the word of the old one.
    AuthorityRotated {
        /// The key that signed before.
        #[serde(with = "text")]
        old: AuthorityId,
        /// The key that signs from now on.
        #[serde(with = "text")]
        new: AuthorityId,
        /// The old one's word, for the nodes.
        signed: Signed<Succession>,
    },
    /// Another key signs for the mesh, by the word of an operator: the old one is lost.
    AuthorityReplaced {
        /// The key that signed before.
        #[serde(with = "text")]
        old: AuthorityId,
        /// The key that signs from now on.
        #[serde(with = "text")]
        new: AuthorityId,
    },
    /// An enrolment token was made; its secret is not kept.
    TokenCreated {
        /// Its name in lists.
        id: String,
        /// Stands for its secret.
        #[serde(with = "bytes")]
        hash: TokenHash,
        /// The only name that it admits.
        name: Option<NodeName>,
        /// When it ends, in seconds since 1970.
        expires_unix: u64,
        /// This event on the boot-time clock, in milliseconds.
        boot_ms: i64,
        /// How many nodes may enrol with it.
        uses: u32,
        /// The segments that they may ask for; the first is the one of a node that names none.
        segments: Vec<SegmentId>,
    },
    /// A token was withdrawn.
    TokenRevoked {
        /// The token.
        id: String,
    },
    /// A node came with one of the token's uses, and waits for an operator's approval.
    NodeWaiting {
        /// The name that it would have.
        name: NodeName,
        /// Its identity.
        #[serde(with = "text")]
        node: NodeId,
        /// Its WireGuard key in each of its segments.
        keys: Vec<KeyIn>,
        /// The token.
        token: String,
    },
    /// An operator did not approve it.
    NodeRejected {
        /// The name that it would have had.
        name: NodeName,
        /// Its identity.
        #[serde(with = "text")]
        node: NodeId,
        /// Why, in the operator's words.
        reason: Option<String>,
    },
    /// An operator removed a node for good: name and number are free again, its keys are banned.
    NodeRemoved {
        /// The node.
        name: NodeName,
        /// Its identity.
        #[serde(with = "text")]
        node: NodeId,
        /// Its WireGuard key in each of its segments.
        keys: Vec<KeyIn>,
        /// Why, in the operator's words.
        reason: Option<String>,
    },
    /// An operator lets the keys of a removed node enrol again.
    KeyUnbanned {
        /// The identity.
        #[serde(with = "text")]
        node: NodeId,
    },
    /// A segment has this number from now on: numbers are in keys and signatures, and no name gets another one.
    SegmentNamed {
        /// The number.
        segment: SegmentId,
        /// The name.
        name: SegmentName,
    },
    /// An operator lets a node into a segment, which it has to ask for with a key.
    NodeInvited {
        /// The node.
        name: NodeName,
        /// The segment.
        segment: SegmentId,
    },
    /// A node came into one more segment, or has another key in it than before.
    NodeJoinedSegment {
        /// The node.
        name: NodeName,
        /// Its key there.
        key: KeyIn,
        /// Epochs of probation there, where it is new.
        probation: Option<u32>,
    },
    /// An operator took a node out of a segment.
    NodeLeftSegment {
        /// The node.
        name: NodeName,
        /// The segment.
        segment: SegmentId,
        /// Why, in the operator's words.
        reason: Option<String>,
    },
    /// A node was enrolled, with one of the token's uses.
    NodeEnrolled {
        /// Its name.
        name: NodeName,
        /// Its identity.
        #[serde(with = "text")]
        node: NodeId,
        /// Its WireGuard key in each of its segments.
        keys: Vec<KeyIn>,
        /// Its number in the mesh's address ranges.
        host: u32,
        /// The token.
        token: String,
        /// How long each segment admits it regardless.
        probation: Vec<Probation>,
    },
    /// A node got new keys, with one of the token's uses.
    NodeRekeyed {
        /// Its name.
        name: NodeName,
        /// Its identity from now on.
        #[serde(with = "text")]
        node: NodeId,
        /// Its WireGuard key in each of its segments.
        keys: Vec<KeyIn>,
        /// The token.
        token: String,
    },
    /// The controller was started. Between two of these, one boot-time clock counts.
    ControllerStarted {
        /// Which boot of the machine.
        boot_id: String,
        /// This event on the boot-time clock, in milliseconds.
        boot_ms: i64,
    },
    /// Another policy is in force from the next decision on.
    PolicyChanged {
        /// The segment.
        segment: SegmentId,
        /// Its digest, as printed.
        digest: String,
        /// All of it.
        policy: Box<Policy>,
    },
    /// An operator rules on a node for a time, in place of the ruling before.
    OverrideSet {
        /// The node.
        name: NodeName,
        /// The ruling.
        ruling: Ruling,
        /// How long it is in force.
        seconds: u64,
        /// Why, in the operator's words.
        reason: String,
        /// This event on the boot-time clock, in milliseconds.
        boot_ms: i64,
    },
    /// An operator ended a ruling before its time.
    OverrideCleared {
        /// The node.
        name: NodeName,
    },
    /// An operator put a node into a group, or took it out.
    GroupChanged {
        /// The node.
        name: NodeName,
        /// The group.
        group: String,
        /// Whether it is in it from now on.
        member: bool,
    },
    /// A node carries packets for these networks, and for no others: those of before do not count any more.
    RoutesAdvertised {
        /// The node.
        name: NodeName,
        /// The segment.
        segment: SegmentId,
        /// The networks.
        prefixes: Vec<Prefix>,
    },
    /// An operator lets members send packets for a network to a node.
    RouteApproved {
        /// The node.
        name: NodeName,
        /// The segment.
        segment: SegmentId,
        /// The network.
        prefix: Prefix,
    },
    /// An operator ended that.
    RouteWithdrawn {
        /// The node.
        name: NodeName,
        /// The segment.
        segment: SegmentId,
        /// The network.
        prefix: Prefix,
    },
    /// Evidence entered a node's record.
    EvidenceAccepted(Box<Accepted>),
    /// Nodes were judged for an epoch.
    Decided {
        /// The segment.
        segment: SegmentId,
        /// The epoch.
        epoch: Epoch,
        /// Whether it counts for hysteresis and probation.
        scheduled: bool,
        /// Why the epoch is published, in a word: it bounds what may be decided.
        cause: String,
        /// Whether an operator confirmed the removals that the sanity floor would hold.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        confirmed: bool,
        /// This event on the boot-time clock, in milliseconds: by it the age of evidence is counted.
        boot_ms: i64,
        /// The verdicts on all nodes if scheduled, else on those whose membership changed; without those that
        /// say what the one before said.
        nodes: Vec<Verdict>,
    },
    /// An epoch was published.
    EpochPublished(Box<Published>),
    /// An operator excluded a node.
    NodeEvicted {
        /// The node.
        name: NodeName,
        /// Why, in the operator's words.
        reason: Option<String>,
    },
    /// An operator ended an exclusion.
    NodeReadmitted {
        /// The node.
        name: NodeName,
    },
    /// Two machines ran with one node's keys.
    DuplicateSeen {
        /// The node.
        name: NodeName,
        /// The one that stays.
        first: Machine,
        /// The one that was refused.
        other: Machine,
    },
    /// An operator says that the log was restored from a copy: what came after it in the log that nodes have
    /// seen is gone.
    LogRestored {
        /// The end of the copy.
        copy: LogEnd,
        /// The newest epoch that nodes are known to have seen; new ones are two beyond it at least.
        seen: Epoch,
        /// The authority's word, for the nodes.
        signed: Signed<LogRestored>,
    },
    /// The log has a new key. The checkpoint with this event is signed by both.
    LogKeyRotated {
        /// The key that signed before.
        #[serde(with = "text")]
        old: LogId,
        /// The key that signs from now on.
        #[serde(with = "text")]
        new: LogId,
    },
    /// Old entries left the disk; their hashes stay in the log's tree.
    EntriesPruned(record::retention::Pruned),
}

/// A process of a node, as it was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The address that its control connection came from.
    pub address: SocketAddr,
    /// The boot of its machine, in short.
    pub boot: String,
    /// The run of the process, in short.
    pub run: String,
}

impl From<&Seen> for Machine {
    fn from(seen: &Seen) -> Self {
        Self {
            address: seen.address,
            boot: seen.boot_words(),
            run: seen.run_words(),
        }
    }
}

/// A WireGuard key in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyIn {
    /// The segment.
    pub segment: SegmentId,
    /// The key.
    #[serde(with = "text")]
    pub wg: WgPublicKey,
}

/// A new node's time without evidence, in one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probation {
    /// The segment.
    pub segment: SegmentId,
    /// Scheduled rotations for which it is admitted regardless.
    pub epochs: u32,
}

/// Evidence that entered a node's record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accepted {
    /// The node.
    pub name: NodeName,
    /// SHA-256 of the statement.
    #[serde(with = "bytes")]
    pub digest: Digest,
    /// The run's score of the whole, if the harness gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overall: Option<f64>,
    /// The measurements.
    pub metrics: BTreeMap<String, f64>,
    /// The metrics of which the harness says that less is better.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub lower_is_better: BTreeSet<String>,
    /// How many samples it has.
    pub samples: u64,
    /// The program that ran the suite.
    pub harness: String,
    /// The suite.
    pub suite: String,
    /// The suite's version.
    pub suite_version: String,
    /// When the run finished.
    pub finished_at: Timestamp,
    /// The key that vouches.
    #[serde(with = "signer")]
    pub signer: Signer,
    /// The run's nonce.
    pub nonce: String,
    /// This event on the boot-time clock, in milliseconds.
    pub boot_ms: i64,
    /// The signed envelope as it was received, for whoever audits the log.
    pub envelope: String,
}

/// One node's verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The node.
    pub name: NodeName,
    /// The decision; `Allowed` where [`Self::held`].
    pub membership: Membership,
    /// The node's state from now on.
    pub state: State,
    /// Why it is denied, or would be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The score that was judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// Digest of the evidence, `sha256:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// The node's standing from now on.
    pub standing: Standing,
    /// Epochs of probation left, the one decided on included.
    pub probation_left: u32,
    /// Denied, but kept until an operator confirms.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
}

/// An epoch that was published.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// Its segment.
    pub segment: SegmentId,
    /// Its number.
    pub epoch: Epoch,
    /// Why, in a word.
    pub cause: String,
    /// The epoch in force when it was published.
    pub in_force: Option<Epoch>,
    /// Digest of the signed update.
    #[serde(with = "bytes")]
    pub update: Digest,
    /// Commitment to the secret, as printed.
    pub commitment: String,
    /// Digest of the policy, as printed.
    pub policy: String,
    /// Members.
    pub members: usize,
    /// The nodes that are members now and were not before.
    pub joined: Vec<NodeName>,
    /// The nodes that were members before and are not now, and why.
    pub removed: BTreeMap<NodeName, String>,
    /// Milliseconds from this event to the epoch's beginning.
    pub activate_in_ms: u64,
    /// Milliseconds from its beginning to its scheduled end.
    pub epoch_ms: u64,
    /// This event on the boot-time clock, in milliseconds.
    pub boot_ms: i64,
    /// Which boot that clock counts from.
    pub boot_id: String,
}

impl Accepted {
    /// The run, as the policy judges it.
    pub(crate) fn run(&self) -> Run {
        Run {
            overall: self.overall,
            metrics: self.metrics.clone(),
            lower_is_better: self.lower_is_better.clone(),
            samples: self.samples,
            harness: self.harness.clone(),
            suite: self.suite.clone(),
            suite_version: self.suite_version.clone(),
            finished_at: self.finished_at,
            signer: self.signer,
            digest: self.digest,
        }
    }
}

impl Verdict {
    /// Whether it decides what `before` decided. The score and the evidence that it rests on may be others.
    pub(crate) fn says_the_same_as(&self, before: &Self) -> bool {
        let decides = |it: &Self| {
            let reason = it.reason.clone();
            (it.membership, it.state, reason, it.held)
        };
        decides(self) == decides(before)
    }
}

impl Event {
    /// Two machines run with the keys of `name`.
    pub(crate) fn duplicate_seen(name: &NodeName, duplicate: &Duplicate) -> Self {
        Self::DuplicateSeen {
            name: name.clone(),
            first: (&duplicate.first).into(),
            other: (&duplicate.other).into(),
        }
    }

    /// Kind and body, as the log's columns hold them.
    pub fn columns(&self) -> (String, String) {
        let text = serde_json::to_string(self).expect("an event always encodes");
        // Taken apart as text: a tree of values in between costs as much as all else that is done with an event.
        let parts = text.strip_prefix(KIND).and_then(|rest| {
            let (kind, body) = rest.split_once(BODY)?;
            Some((kind.to_owned(), body.strip_suffix('}')?.to_owned()))
        });
        parts.expect("kind and body are all that an event encodes to, in this order")
    }

    /// Reads the log's columns.
    ///
    /// # Errors
    /// When they are not an event of this version.
    pub fn from_columns(kind: &str, body: &str) -> Result<Self, serde_json::Error> {
        let kind = serde_json::to_string(kind)?;
        // The body by itself first: what is no JSON must not become some by what stands around it.
        serde_json::from_str::<serde::de::IgnoredAny>(body)?;
        serde_json::from_str(&format!("{{\"kind\":{kind},\"body\":{body}}}"))
    }
}

/// An event encodes as `{"kind":"…","body":…}`.
const KIND: &str = "{\"kind\":\"";
const BODY: &str = "\",\"body\":";

/// Keys, in their printed form.
pub(crate) mod text {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};
    use std::fmt::Display;
    use std::str::FromStr;

    pub(crate) fn serialize<S: Serializer>(value: &impl Display, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(crate) fn deserialize<'de, D, T>(from: D) -> Result<T, D::Error>
    where
        D: Deserializer<'de>,
        T: FromStr<Err: Display>,
    {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// The key that vouches: `node:…` or `evaluator:…`.
mod signer {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};
    use wire::evidence::Signer;

    pub(super) fn serialize<S: Serializer>(signer: &Signer, to: S) -> Result<S::Ok, S::Error> {
        match signer {
            Signer::Node(node) => to.collect_str(node),
            Signer::Evaluator(key) => to.collect_str(key),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Signer, D::Error> {
        let text = String::deserialize(from)?;
        let node = text.parse().map(Signer::Node);
        node.or_else(|_| text.parse().map(Signer::Evaluator))
            .map_err(D::Error::custom)
    }
}

/// Identifiers and digests without a parser of their own, in hex.
pub(crate) mod bytes {
    use keys::{MeshId, TokenHash};
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};
    use wire::Digest;

    pub(crate) trait Bytes: Sized {
        fn bytes(&self) -> &[u8];
        fn from_bytes(bytes: &[u8]) -> Option<Self>;
    }

    macro_rules! bytes {
        ($($name:ident),*) => {$(
            impl Bytes for $name {
                fn bytes(&self) -> &[u8] {
                    &self.0
                }
                fn from_bytes(bytes: &[u8]) -> Option<Self> {
                    bytes.try_into().ok().map(Self)
                }
            }
        )*};
    }
    bytes!(MeshId, TokenHash, Digest);

    pub(crate) fn serialize<S: Serializer>(value: &impl Bytes, to: S) -> Result<S::Ok, S::Error> {
        let hex: String = value.bytes().iter().map(|b| format!("{b:02x}")).collect();
        to.serialize_str(&hex)
    }

    pub(crate) fn deserialize<'de, D, T>(from: D) -> Result<T, D::Error>
    where
        D: Deserializer<'de>,
        T: Bytes,
    {
        let text = String::deserialize(from)?;
        let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(pair).collect();
        bytes
            .and_then(|bytes| T::from_bytes(&bytes))
            .ok_or_else(|| D::Error::custom("not hex of the right length"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_reads_back_from_its_columns() {
        let events = [
            Event::MeshCreated {
                mesh: MeshId([7; 16]),
                authority: AuthorityId([8; 32]),
            },
            Event::NodeEnrolled {
                name: "node-a".parse().unwrap(),
                node: NodeId([1; 32]),
                keys: vec![KeyIn {
                    segment: SegmentId::FIRST,
                    wg: WgPublicKey([2; 32]),
                }],
                host: 2,
                token: "t".into(),
                probation: vec![Probation {
                    segment: SegmentId::FIRST,
                    epochs: 1,
                }],
            },
            Event::DuplicateSeen {
                name: "node-a".parse().unwrap(),
                first: Machine {
                    address: "192.0.2.1:7".parse().unwrap(),
                    boot: "01020304".into(),
                    run: "05060708".into(),
                },
                other: Machine {
                    address: "[2001:db8::1]:7".parse().unwrap(),
                    boot: "01020304".into(),
                    run: "0a0b0c0d".into(),
                },
            },
            Event::Decided {
                segment: SegmentId::FIRST,
                epoch: Epoch(3),
                scheduled: true,
                cause: "scheduled".into(),
                confirmed: false,
                boot_ms: 7,
                nodes: vec![Verdict {
                    name: "node-a".parse().unwrap(),
                    membership: Membership::Denied,
                    state: State::Quarantined,
                    reason: Some("no benchmark".into()),
                    score: None,
                    evidence: None,
                    standing: Standing::Out { passes: 1 },
                    probation_left: 0,
                    held: false,
                }],
            },
        ];
        for event in events {
            let (kind, body) = event.columns();
            assert_eq!(Event::from_columns(&kind, &body).unwrap(), event);
            assert!(body.contains(':') && !kind.is_empty());
        }
    }

    #[test]
    fn an_unknown_kind_is_an_error() {
        assert!(Event::from_columns("node_married", "{}").is_err());
    }

    #[test]
    fn a_body_is_json_by_itself() {
        let (kind, body) = ("token_revoked", r#"{"id":"t"}"#);
        assert!(Event::from_columns(kind, body).is_ok());
        for body in [
            r#"{"id":"t"},"body":{"id":"u"}"#,
            r#"{"id":"t"}}"#,
            r#"{"id":"t"},"x":1"#,
            "",
            "{",
        ] {
            assert!(Event::from_columns(kind, body).is_err(), "{body}");
        }
        assert!(Event::from_columns(r#"token_revoked","body":{"id":"u"},"x":""#, body).is_err());
    }
}
