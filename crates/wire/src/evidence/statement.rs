//! The in-toto statement: of which node a run tells. Refuses fields that it does not know.

use super::Benchmark;
use keys::NodeId;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// An in-toto statement about one node. Unknown fields are refused, not passed over: what is accepted is
/// kept as it was signed, and nobody shall keep there what no rule looks at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Statement {
    /// [`super::STATEMENT_TYPE`].
    #[serde(rename = "_type")]
    pub statement_type: String,
    /// The node that was measured; exactly one.
    pub subject: Vec<Subject>,
    /// [`super::PREDICATE_TYPE`].
    pub predicate_type: String,
    /// The measurements.
    pub predicate: Benchmark,
}

/// Whom a statement is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// The node's name; informative.
    pub name: String,
    /// `sha256`: hex of SHA-256 of the 32 bytes of the node's public identity key.
    pub digest: BTreeMap<String, String>,
}

impl Subject {
    /// The subject that stands for `node`.
    pub(super) fn of(name: &str, node: &NodeId) -> Self {
        Self {
            name: name.to_owned(),
            digest: subject_digest(node),
        }
    }

    /// Whether it stands for `node`; the name plays no part.
    pub(super) fn is(&self, node: &NodeId) -> bool {
        self.digest == subject_digest(node)
    }
}

fn subject_digest(node: &NodeId) -> BTreeMap<String, String> {
    let hex = Sha256::digest(node.0)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    BTreeMap::from([("sha256".to_owned(), hex)])
}
