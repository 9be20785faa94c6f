//! The forms of the event log as a transparency log. Hashes and roots are base64, as in checkpoints.

use serde::{Deserialize, Serialize};

/// The log's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStatus {
    /// The log's name.
    pub origin: String,
    /// The key that signs its checkpoints, as verifiers of signed notes take it: `NAME+ID+KEY`.
    pub verifier: String,
    /// The newest checkpoint, as a signed note.
    pub checkpoint: String,
    /// Events in it.
    pub size: u64,
    /// The event that the newest snapshot is of; zero without one.
    #[serde(default)]
    pub snapshot: u64,
    /// The key of the node that cosigned the checkpoint, `NAME+ID+KEY`: on a node's socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witness: Option<String>,
}

/// The log's end, as a node has seen it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSeen {
    /// Events in it.
    pub events: u64,
    /// The root of its tree.
    pub root: String,
}

/// That an event is in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogProof {
    /// The event's number, from 1. Its index in the tree is one less.
    pub seq: u64,
    /// The line that its leaf is the hash of; `None`: it is no longer kept.
    pub line: Option<String>,
    /// The hash of its leaf.
    pub leaf: String,
    /// The size of the tree that it is proved to be in: the checkpoint's.
    pub size: u64,
    /// The hashes from the leaf to the root.
    pub proof: Vec<String>,
    /// The log's newest checkpoint, as a signed note.
    pub checkpoint: String,
    /// The key that signed it, `NAME+ID+KEY`.
    pub verifier: String,
}

/// That the log extends an earlier one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogConsistency {
    /// Events in the earlier log.
    pub from: u64,
    /// The root that it had.
    pub from_root: String,
    /// Events in the later log.
    pub to: u64,
    /// The root that it has.
    pub to_root: String,
    /// The hashes that prove it.
    pub proof: Vec<String>,
    /// The log's newest checkpoint, as a signed note.
    pub checkpoint: String,
    /// The key that signed it, `NAME+ID+KEY`.
    pub verifier: String,
}

/// A page of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntries {
    /// The entries, oldest first, none left out.
    pub entries: Vec<LogEntry>,
    /// Events in the log.
    pub size: u64,
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Its number, from 1.
    pub seq: u64,
    /// The hash of its leaf.
    pub leaf: String,
    /// The line that the leaf is the hash of; `None`: it is no longer kept.
    pub line: Option<String>,
}
