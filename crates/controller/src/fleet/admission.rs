//! The door of the mesh: nodes that wait for an operator's approval, and keys that may not enrol again.

use super::Fleet;
use crate::by::By;
use crate::event::{KeyIn, text};
use jiff::Timestamp;
use keys::{NodeId, WgPublicKey};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use wire::NodeName;

/// A node that waits for approval.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Waiting {
    /// Its identity.
    #[serde(with = "text")]
    pub node: NodeId,
    /// The segments that it asks for, with its WireGuard key in each.
    pub keys: Vec<KeyIn>,
    /// The token that it came with.
    pub token: String,
    /// Since when it waits.
    pub since: Timestamp,
}

/// The keys of a node that was removed for good.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Banned {
    /// Its identity.
    #[serde(with = "text")]
    pub node: NodeId,
    /// Its WireGuard keys.
    pub keys: Vec<KeyIn>,
    /// The name that it had.
    pub name: NodeName,
    /// When it was removed.
    pub at: Timestamp,
    /// At whose word.
    pub by: Option<By>,
    /// Why, in the operator's words.
    pub reason: Option<String>,
}

impl Waiting {
    pub(super) fn new(node: NodeId, keys: &[KeyIn], token: &str, since: Timestamp) -> Self {
        let token = token.to_owned();
        Self {
            node,
            keys: keys.to_vec(),
            token,
            since,
        }
    }
}

impl Fleet {
    /// The nodes that wait for approval, by the names that they would have.
    pub fn waiting(&self) -> &BTreeMap<NodeName, Waiting> {
        &self.waiting
    }

    /// The node of this identity, if it waits for approval.
    pub fn waiting_of(&self, id: &NodeId) -> Option<(&NodeName, &Waiting)> {
        self.waiting.iter().find(|(_, waiting)| waiting.node == *id)
    }

    /// Whether a node that waits has this key.
    pub fn waits_with(&self, wg: &WgPublicKey) -> bool {
        let keys = self.waiting.values().flat_map(|it| &it.keys);
        keys.into_iter().any(|key| key.wg == *wg)
    }

    /// The keys that may not enrol.
    pub fn banned(&self) -> &[Banned] {
        &self.banned
    }

    /// Whether one of a node's keys may not enrol.
    pub fn is_banned(&self, node: &NodeId, keys: &[WgPublicKey]) -> bool {
        let mut banned = self.banned.iter();
        let is_its = |key: &KeyIn| keys.contains(&key.wg);
        banned.any(|banned| banned.node == *node || banned.keys.iter().any(is_its))
    }
}
