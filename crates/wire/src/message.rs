//! The messages of node and controller to each other, one variant per frame type.
//!
//! The file is long because it is a list.

use crate::changes::Changes;
use crate::endpoints::{Entries, PlacesMark};
use crate::frame::Frame;
use crate::instance::{Duplicate, Instance};
use crate::log::{LogEnd, LogNews};
use crate::name::{NodeName, SegmentName};
use crate::place::Place;
use crate::prefix::Prefix;
use crate::segment::{Ask, Unplaced};
use crate::signed::{Digest, Signed};
use crate::succession::Succession;
use crate::update::{EpochUpdate, MAX_ROSTER, Mark};
use crate::way::{MAX_LINK_NAME, Way};
use bytes::Bytes;
use keys::{Epoch, EpochSecret, NodeId, SegmentId, TokenSecret};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// Most endpoints that a node may announce or be announced with.
pub const MAX_ENDPOINTS: usize = 8;
/// Most updates that a node says it holds.
pub const MAX_HELD: usize = 16;
/// Most addresses that a node names when it enrols.
pub const MAX_OWN: usize = 64;
/// Most faults of an interface in a report.
pub const MAX_FAULTS: usize = 8;
/// The longest fault in a report, in bytes.
pub const MAX_FAULT_LEN: usize = 128;
/// The longest fault of a node, in bytes.
pub const MAX_NODE_FAULT_LEN: usize = 256;

/// From a node to its controller.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToController {
    /// The one thing that an unknown key may say (type 1).
    Enrol(Enrol),
    /// The first thing that an enrolled node says on a connection (type 2).
    Hello(Hello),
    /// A DSSE envelope, as JSON bytes (type 3).
    Evidence {
        /// The envelope; see [`crate::evidence`].
        #[serde(with = "serde_bytes")]
        envelope: Vec<u8>,
    },
    /// How far the node has come with an epoch (type 4).
    Ack {
        /// The segment that the epoch is of.
        segment: SegmentId,
        /// The epoch.
        epoch: Epoch,
        /// The node's progress with it.
        phase: Phase,
    },
    /// The node's observations of its peers in a segment (type 5).
    Report {
        /// The segment.
        segment: SegmentId,
        /// One entry per peer that the node knows of in it.
        peers: Vec<PeerReport>,
        /// How its own interface in it stands.
        interface: InterfaceReport,
    },
    /// Where the node can be reached; sent again when it changes (type 6).
    Endpoints {
        /// UDP port of the node's WireGuard socket.
        listen_port: u16,
        /// Addresses that the operator configured; empty: the one that the controller sees, and `addresses`.
        advertised: Vec<SocketAddr>,
        /// Addresses of its machine that peers may reach it at, best first; at most [`MAX_ENDPOINTS`].
        addresses: Vec<IpAddr>,
    },
    /// Answers [`ToNode::RollCall`] (type 7).
    Present,
    /// An update came with the proof that the log extends another end than the one that the node has kept, because
    /// one in between did not arrive: asks for it anew (type 8).
    Kept {
        /// The end that the node has kept.
        log: LogEnd,
    },
    /// Changes came against an update that the node does not hold: asks for the updates whole (type 9).
    Whole,
    /// Asks for a place in one more segment; answered with [`ToNode::Placed`] or [`ToNode::NotPlaced`] (type 10).
    Join {
        /// The segment, by name, and the node's key in it.
        ask: Ask,
    },
    /// All networks behind the node that it would carry packets for in a segment (type 11). Said in each session
    /// that has any, or has had; an operator decides.
    Advertise {
        /// The segment.
        segment: SegmentId,
        /// The networks; they keep [`check_list`](crate::prefix::check_list).
        prefixes: Vec<Prefix>,
    },
    /// All that is wrong with the node besides its interfaces (type 12, since version 2). Said in each session in which
    /// something is, or was.
    Condition {
        /// At most [`MAX_FAULTS`]; none when all is well again.
        faults: Vec<NodeFault>,
    },
    /// How good the node's tunnels in a segment are (type 13, since version 2). Said just before a [`Self::Report`], and
    /// counts with that one.
    Tunnels {
        /// The segment.
        segment: SegmentId,
        /// One entry for each peer of the report with which there is a tunnel.
        peers: Vec<TunnelReport>,
        /// The node's wall clock, in milliseconds since 1970: the skew as it is now, and not as it was at the Hello.
        unix_ms: u64,
    },
}

/// How good a node's tunnel to one peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelReport {
    /// The peer.
    pub node: NodeId,
    /// Seconds since the handshake of the session that packets are sent on; `None`: no live session.
    pub handshake_age: Option<u32>,
    /// The last echoes that were due to the peer by the tunnel, of both families; at most [`MAX_ECHOES`].
    pub echoes: u8,
    /// Those of them that were not answered.
    pub lost: u8,
}

/// The most echoes of which a node counts the lost ones.
pub const MAX_ECHOES: u8 = 64;

/// Something that is wrong with a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFault {
    /// The thing that it concerns.
    pub kind: NodeFaultKind,
    /// All that is wrong, in words; at most [`MAX_NODE_FAULT_LEN`] bytes.
    pub what: String,
}

/// The thing that a fault of a node concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeFaultKind {
    /// The benchmark gives no results.
    Benchmark,
    /// The node cannot write what it has to remember.
    State,
}

impl NodeFault {
    /// A fault; words that are too long are cut.
    pub fn new(kind: NodeFaultKind, what: &str) -> Self {
        Self {
            kind,
            what: cut(what, MAX_NODE_FAULT_LEN).to_owned(),
        }
    }
}

/// The beginning of `text`, of at most `limit` bytes.
fn cut(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

/// Asks to be enrolled.
#[derive(Debug, Serialize, Deserialize)]
pub struct Enrol {
    /// The token's secret.
    #[serde(with = "secret")]
    pub token: TokenSecret,
    /// The name that the node would like, where the token does not name it.
    pub name: Option<NodeName>,
    /// The segments that the node would like to be in, with a WireGuard key for each; 1 to
    /// [`MAX_SEGMENTS`](crate::segment::MAX_SEGMENTS).
    pub segments: Vec<Ask>,
    /// Addresses of the node's machine, and the one that it dialled: with one of them in the mesh's range, it
    /// could not live there. At most [`MAX_OWN`].
    pub addresses: Vec<IpAddr>,
}

/// Opens a session of an enrolled node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hello {
    /// Version of the node's software, for the operator's eye. At most 64 bytes.
    pub software: String,
    /// UDP port of the node's WireGuard socket.
    pub listen_port: u16,
    /// Addresses that the operator configured; empty: the one that the controller sees, and `addresses`.
    pub advertised: Vec<SocketAddr>,
    /// Addresses of its machine that peers may reach it at, best first; at most [`MAX_ENDPOINTS`].
    pub addresses: Vec<IpAddr>,
    /// Of each segment the newest epoch that was in force on the node, as the authority signed it: a mere number
    /// could be made up, and would then pass for news of a history that the controller has lost. At most
    /// [`MAX_SEGMENTS`](crate::segment::MAX_SEGMENTS).
    pub newest: Vec<Signed<Mark>>,
    /// Digests of the updates that the node still holds, so that the next one may come as what changed. At most
    /// [`MAX_HELD`].
    pub holds: Vec<Digest>,
    /// Up to where the node has been told of the endpoints of others. At most [`MAX_HELD`].
    pub told: Vec<PlacesMark>,
    /// The end of the controller's log by the newest checkpoint that the node has kept.
    pub log: Option<LogEnd>,
    /// The node's wall clock, in milliseconds since 1970, to show the skew.
    pub unix_ms: u64,
    /// The process that says so.
    pub instance: Instance,
}

/// How far a node has come with an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Verified, PSKs derived, waiting for activation. Not said of an epoch that begins at once.
    Installed,
    /// In force on the node.
    Activated,
    /// In force, and this node is not in its roster: it has no peers.
    Dark,
}

/// A node's observations of one peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerReport {
    /// The peer.
    pub node: NodeId,
    /// Epoch of the newest live session; `None`: no live session.
    pub session_epoch: Option<Epoch>,
    /// Round trip of the last IPv4 echo, in microseconds; `None`: unanswered.
    pub rtt_v4_us: Option<u32>,
    /// Round trip of the last IPv6 echo, in microseconds; `None`: unanswered.
    pub rtt_v6_us: Option<u32>,
    /// Where the node's system sends packets to the peer's IPv4 address. An echo counts as answered only if that
    /// is the tunnel.
    pub way_v4: Way,
    /// The same for IPv6.
    pub way_v6: Way,
}

/// How a node's mesh interface stands, by its own observation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceReport {
    /// Whether no packet passes it.
    pub unusable: bool,
    /// Its faults; at most [`MAX_FAULTS`] of at most [`MAX_FAULT_LEN`] bytes.
    pub faults: Vec<String>,
}

impl InterfaceReport {
    /// The same, no larger than it may be: a fault that is too long is cut, and what is over the number is left out.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.faults.truncate(MAX_FAULTS);
        for fault in &mut self.faults {
            fault.truncate(cut(fault, MAX_FAULT_LEN).len());
        }
        self
    }
}

/// From the controller to a node.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToNode {
    /// Answers [`ToController::Enrol`] (type 1).
    Enrolled(Vec<Signed<Place>>),
    /// Answers [`ToController::Hello`]: the controller knows this node (type 2).
    Welcome {
        /// The node's places, one in each of its segments. A place that the node has and that is not among them is
        /// none any more.
        places: Vec<Signed<Place>>,
        /// The controller's wall clock, in milliseconds since 1970, to show the skew.
        unix_ms: u64,
        /// The address that the connection comes from, as the controller sees it.
        observed: SocketAddr,
    },
    /// An epoch update, with the secret if the node is a member (type 3).
    Update(Update),
    /// Where peers can be reached; replaces what was said about the nodes in it (type 4).
    Endpoints {
        /// Nodes and endpoints.
        entries: Entries,
        /// Up to where the node has been told with this; `None`: more follows.
        mark: Option<PlacesMark>,
    },
    /// The result for the evidence with this digest (type 5).
    EvidenceResult {
        /// SHA-256 of the DSSE payload.
        digest: [u8; 32],
        /// `None`: accepted. Otherwise why not.
        refused: Option<RefusedEvidence>,
    },
    /// The last thing on a connection that the controller will not serve (type 6).
    Refused {
        /// Why.
        reason: Refusal,
    },
    /// Asks whether the process is still there, because another one says that it is the node (type 7).
    RollCall,
    /// Another process runs with the node's keys: to the first, which stays, and to the other, before it is
    /// refused (type 8).
    Duplicate(Duplicate),
    /// The connection comes from another address from now on (type 9).
    Seen {
        /// Address and port, as the controller sees them.
        observed: SocketAddr,
    },
    /// Another node says that its packets to this one do not take the tunnel, or take it again (type 10).
    Ways {
        /// The segment that both are in.
        segment: SegmentId,
        /// The other node.
        node: NodeId,
        /// Its system's ways to this node's IPv4 and IPv6 address.
        ways: [Way; 2],
    },
    /// Answers [`ToController::Enrol`] where an operator has to approve: the key is on record, the token is spent,
    /// and the connection stays for the operator's word (type 11).
    Waiting {
        /// The name to be approved.
        name: NodeName,
    },
    /// Other keys have signed for the mesh before: sent before whatever the new one signed (type 12).
    Authorities {
        /// The words of those keys, oldest first; at most [`MAX_SUCCESSIONS`](crate::succession::MAX_SUCCESSIONS).
        successions: Vec<Signed<Succession>>,
    },
    /// As [`Self::Update`], of which only the changes against one that the node holds are sent (type 13).
    Changes(ChangedUpdate),
    /// The node has a place in one more segment, or another one than before (type 14).
    Placed(Signed<Place>),
    /// Answers [`ToController::Join`]: the node has no place there. The connection stays (type 15).
    NotPlaced {
        /// The segment that it asked for.
        name: SegmentName,
        /// Why.
        reason: Unplaced,
    },
    /// An operator lets the node into a segment: it makes a key and says [`ToController::Join`] (type 16).
    Invited {
        /// The segment.
        name: SegmentName,
    },
    /// The node has no place in this segment any more (type 17).
    Left {
        /// The segment.
        segment: SegmentId,
    },
}

/// Why evidence was not accepted, and whether it may be later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedEvidence {
    /// For the node's log and status; at most 256 bytes.
    pub reason: String,
    /// Whether there is any use in sending it again.
    pub again: Again,
}

/// Whether refused evidence may be accepted when it is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Again {
    /// No.
    Never,
    /// The same evidence, once the reason has passed.
    Later,
    /// The same run, once it is signed for an epoch that the controller knows.
    Anew,
}

/// A signed update on its way to one node.
#[derive(Debug, Serialize, Deserialize)]
pub struct Update {
    /// The signed update.
    pub signed: Signed<EpochUpdate>,
    /// The epoch secret; only on a member's stream.
    #[serde(with = "secret::option")]
    pub secret: Option<EpochSecret>,
    /// How long ago the update was signed, in milliseconds: the durations in it count from then.
    pub age_ms: u64,
    /// The mark that the node shows of it at its next Hello.
    pub mark: Signed<Mark>,
    /// The log that the mark names.
    pub log: LogNews,
}

/// A signed update on its way to one node, as what changed.
#[derive(Debug, Serialize, Deserialize)]
pub struct ChangedUpdate {
    /// The changes.
    pub changes: Changes,
    /// As in [`Update`], as all that follows.
    #[serde(with = "secret::option")]
    pub secret: Option<EpochSecret>,
    /// Likewise.
    pub age_ms: u64,
    /// Likewise.
    pub mark: Signed<Mark>,
    /// Likewise.
    pub log: LogNews,
}

impl ChangedUpdate {
    /// The same with the whole update, which was put together.
    pub fn with(self, signed: Signed<EpochUpdate>) -> Update {
        Update {
            signed,
            secret: self.secret,
            age_ms: self.age_ms,
            mark: self.mark,
            log: self.log,
        }
    }
}

/// Why the controller will not serve a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The key is not enrolled.
    #[error("this node is not enrolled: start it with a token from `meshctl token create`")]
    NotEnrolled,
    /// No such token, or it is used, revoked or expired.
    #[error("the token is unknown, used, revoked or expired: ask for a new one")]
    BadToken,
    /// Another node has the name.
    #[error("the name is taken by another node: choose another, or create the token with --name")]
    NameTaken,
    /// Another node has the WireGuard key.
    #[error("another node has this WireGuard key: remove wireguard.key and start again")]
    KeyTaken,
    /// The mesh's address range is used up.
    #[error("the mesh has no free address: enlarge its range")]
    MeshFull,
    /// Another connection of the same node took over.
    #[error("a newer connection of this node took over")]
    Superseded,
    /// The node's message does not belong here.
    #[error("protocol violation")]
    Protocol,
    /// Too many unknown keys ask at once.
    #[error("too many enrolments at once: try again later")]
    Busy,
    /// The controller is stopping.
    #[error("the controller is stopping")]
    Stopping,
    /// The node says more than its allowance, which outlasts its connections.
    #[error("more messages than a node may send: try again later")]
    TooMuch,
    /// The node's identity or its WireGuard key is weak or oddly encoded.
    #[error("a key of this node is weak: remove identity.key and wireguard.key and start again")]
    WeakKey,
    /// Another process of the node is served, and is there.
    #[error("another machine runs with this node's keys, and was first")]
    Duplicate,
    /// An address in use lies in the mesh's own range.
    #[error(
        "{0}, which this node or its way to the controller uses, is inside the mesh's address range: choose \
         another range (--mesh-v4, --mesh-v6 at the controller), or another address; the token stays good"
    )]
    InRange(IpAddr),
    /// An operator does not approve.
    #[error("an operator has rejected this node: ask for another token, and why")]
    Rejected,
    /// An operator removed the node of this key.
    #[error(
        "this key was removed from the mesh for good: empty the state directory and enrol with a new token, or ask \
         for `meshctl node unban`"
    )]
    Banned,
    /// The mesh has no such segment, or the token is not for it.
    #[error(
        "the mesh has no such segment, or the token does not allow it: see `segments`, or ask for a token of \
         `meshctl token create --segment`"
    )]
    Segment,
}

const SMALL: usize = 4 << 10;
/// Room for a mark, some held updates and a number for each of 16 segments.
const HELLO: usize = 16 << 10;
/// Room for a signed place in each of 16 segments.
const PLACES: usize = 8 << 10;
const EVIDENCE: usize = crate::evidence::MAX_ENVELOPE_LEN + 16;
/// The most bytes that the entry of one peer takes in a word on tunnels.
const TUNNEL_ENTRY: usize = 32 + 6 + 2;
/// Room for [`MAX_ROSTER`] nodes in a roster, as many in the list of the excluded, or a list of endpoints.
const FLEET: usize = 8 << 20;
/// The most bytes that the entry of one peer takes in a report.
const REPORT_ENTRY: usize = 32 + 11 + 6 + 6 + 2 * (2 + MAX_LINK_NAME);
/// The most bytes that a report's word on the interface takes.
const REPORT_INTERFACE: usize = 2 + MAX_FAULTS * (2 + MAX_FAULT_LEN);

/// The longest payload that a report of a mesh with `nodes` nodes needs, in bytes.
pub const fn report_limit(nodes: usize) -> usize {
    16 + REPORT_INTERFACE + nodes * REPORT_ENTRY
}

/// The longest payload that a word on the tunnels in a mesh with `nodes` nodes needs, in bytes.
pub const fn tunnels_limit(nodes: usize) -> usize {
    24 + nodes * TUNNEL_ENTRY
}

impl Frame for ToController {
    fn frame_type(&self) -> u8 {
        match self {
            Self::Enrol(_) => 1,
            Self::Hello(_) => 2,
            Self::Evidence { .. } => 3,
            Self::Ack { .. } => 4,
            Self::Report { .. } => 5,
            Self::Endpoints { .. } => 6,
            Self::Present => 7,
            Self::Kept { .. } => 8,
            Self::Whole => 9,
            Self::Join { .. } => 10,
            Self::Advertise { .. } => 11,
            Self::Condition { .. } => 12,
            Self::Tunnels { .. } => 13,
        }
    }

    fn since(frame_type: u8) -> u8 {
        match frame_type {
            12 | 13 => 2,
            _ => 1,
        }
    }

    fn limit(frame_type: u8) -> Option<usize> {
        match frame_type {
            2 => Some(HELLO),
            1 | 4 | 6..=12 => Some(SMALL),
            3 => Some(EVIDENCE),
            5 => Some(report_limit(MAX_ROSTER)),
            13 => Some(tunnels_limit(MAX_ROSTER)),
            _ => None,
        }
    }
}

impl Frame for ToNode {
    fn frame_type(&self) -> u8 {
        match self {
            Self::Enrolled(_) => 1,
            Self::Welcome { .. } => 2,
            Self::Update(_) => 3,
            Self::Endpoints { .. } => 4,
            Self::EvidenceResult { .. } => 5,
            Self::Refused { .. } => 6,
            Self::RollCall => 7,
            Self::Duplicate(_) => 8,
            Self::Seen { .. } => 9,
            Self::Ways { .. } => 10,
            Self::Waiting { .. } => 11,
            Self::Authorities { .. } => 12,
            Self::Changes(_) => 13,
            Self::Placed(_) => 14,
            Self::NotPlaced { .. } => 15,
            Self::Invited { .. } => 16,
            Self::Left { .. } => 17,
        }
    }

    fn since(_: u8) -> u8 {
        1
    }

    fn take_shared(&mut self) -> Option<Bytes> {
        match self {
            Self::Update(update) => Some(update.signed.take_payload()),
            Self::Changes(changed) => Some(changed.changes.take()),
            Self::Endpoints { entries, .. } => Some(entries.take()),
            _ => None,
        }
    }

    fn limit(frame_type: u8) -> Option<usize> {
        match frame_type {
            1 | 2 => Some(PLACES),
            5..=12 | 14..=17 => Some(SMALL),
            3 | 4 | 13 => Some(FLEET),
            _ => None,
        }
    }
}

/// Secrets inside messages: raw bytes on the wire, wiped where we own the copy.
mod secret {
    use keys::TokenSecret;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};
    use zeroize::Zeroizing;

    pub(super) fn serialize<S: Serializer>(secret: &TokenSecret, to: S) -> Result<S::Ok, S::Error> {
        secret.expose().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<TokenSecret, D::Error> {
        let bytes = Zeroizing::new(<[u8; 32]>::deserialize(from)?);
        Ok(TokenSecret::from_bytes(*bytes))
    }

    pub(super) mod option {
        use keys::EpochSecret;
        use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};
        use zeroize::Zeroizing;

        pub(in super::super) fn serialize<S: Serializer>(
            secret: &Option<EpochSecret>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            secret.as_ref().map(EpochSecret::expose).serialize(to)
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Option<EpochSecret>, D::Error> {
            let bytes = Zeroizing::new(Option::<[u8; 32]>::deserialize(from)?);
            Ok(bytes.map(EpochSecret::from_bytes))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{self, FrameError, HEADER_LEN};
    use proptest::prelude::*;

    fn hello() -> ToController {
        ToController::Hello(Hello {
            software: "0.1.0".into(),
            listen_port: 51820,
            advertised: vec!["[fd00::1]:51820".parse().unwrap()],
            addresses: Vec::new(),
            newest: Vec::new(),
            holds: Vec::new(),
            told: Vec::new(),
            log: None,
            unix_ms: 1,
            instance: Instance::new(keys::MeshId([1; 16]), "boot", None, [7; 16]),
        })
    }

    #[test]
    fn a_message_reads_back_and_what_follows_is_left() {
        let mut bytes = frame::encode(&hello()).unwrap();
        let whole = bytes.len();
        bytes.extend_from_slice(b"next");
        let (message, rest) = frame::decode::<ToController>(&bytes).unwrap().unwrap();
        assert_eq!(format!("{message:?}"), format!("{:?}", hello()));
        assert_eq!(rest, b"next");
        for cut in 0..whole {
            assert!(
                frame::decode::<ToController>(&bytes[..cut])
                    .unwrap()
                    .is_none()
            );
        }
    }

    #[test]
    fn a_frame_over_its_types_limit_is_refused_before_its_payload() {
        let mut header = [1, 4, 0, 0, 0, 0, 0x10, 1];
        let error = frame::decode_header::<ToController>(header).unwrap_err();
        assert_eq!(
            error,
            FrameError::TooLarge {
                frame_type: 4,
                len: 4097,
                limit: 4096
            }
        );
        for version in [0, 2, 3] {
            header[0] = version;
            assert_eq!(
                frame::decode_header::<ToController>(header).unwrap_err(),
                FrameError::Version(version)
            );
        }
    }

    #[test]
    fn a_payload_of_another_type_or_with_a_tail_is_refused() {
        let bytes = frame::encode(&hello()).unwrap();
        let mut relabelled = bytes.clone();
        relabelled[1] = 4;
        assert_eq!(
            frame::decode::<ToController>(&relabelled).unwrap_err(),
            FrameError::Payload(4)
        );
        let mut longer = bytes;
        longer.push(0);
        let len = u32::try_from(longer.len() - HEADER_LEN).unwrap();
        longer[4..8].copy_from_slice(&len.to_be_bytes());
        assert_eq!(
            frame::decode::<ToController>(&longer).unwrap_err(),
            FrameError::Payload(2)
        );
    }

    /// Reads every frame that the last build of version 1 wrote, and writes it again as that build did.
    #[test]
    fn the_frames_of_the_version_before_are_read_and_written_as_they_were() {
        fn same<M: frame::Frame>(bytes: &[u8]) -> u8 {
            let (message, rest) = frame::decode::<M>(bytes).unwrap().unwrap();
            assert!(rest.is_empty());
            assert_eq!(frame::encode(&message).unwrap(), bytes);
            assert_eq!(M::since(message.frame_type()), 1);
            message.frame_type()
        }
        let lines = include_str!("../vectors/v1.txt").lines();
        let mut seen = [0_u8; 2].map(|_| std::collections::BTreeSet::new());
        for line in lines.filter(|line| !line.starts_with('#')) {
            let (direction, hex) = line.split_once(' ').unwrap();
            let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
            match direction {
                "to_controller" => seen[0].insert(same::<ToController>(&bytes)),
                _ => seen[1].insert(same::<ToNode>(&bytes)),
            };
        }
        // One of each type that version 1 had.
        assert_eq!(seen[0], (1..=11).collect());
        assert_eq!(seen[1], (1..=17).collect());
    }

    #[test]
    fn what_is_wrong_with_a_node_is_cut_between_characters() {
        let long = "é".repeat(MAX_NODE_FAULT_LEN);
        let fault = NodeFault::new(NodeFaultKind::Benchmark, &long);
        assert_eq!(fault.what.len(), MAX_NODE_FAULT_LEN);
        let odd = NodeFault::new(NodeFaultKind::State, &format!("x{long}"));
        assert_eq!(odd.what.len(), MAX_NODE_FAULT_LEN - 1);
        let all = ToController::Condition {
            faults: vec![fault; MAX_FAULTS],
        };
        assert_eq!(frame::encode(&all).unwrap()[0], 2);
    }

    #[test]
    fn secrets_in_messages_do_not_print() {
        let enrol = Enrol {
            token: TokenSecret::from_bytes([0xAB; 32]),
            name: None,
            segments: vec![Ask::unnamed(keys::WgPublicKey([1; 32]))],
            addresses: Vec::new(),
        };
        assert!(format!("{enrol:?}").contains("TokenSecret(..)"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_an_error_or_incomplete(bytes in proptest::collection::vec(any::<u8>(), 0..512), kind in 0u8..18) {
            let mut framed = vec![<ToController as frame::Frame>::since(kind), kind, 0, 0];
            framed.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_be_bytes());
            framed.extend_from_slice(&bytes);
            let _ = frame::decode::<ToController>(&framed);
            let _ = frame::decode::<ToNode>(&framed);
            let _ = frame::decode::<ToController>(&bytes);
        }
    }
}
