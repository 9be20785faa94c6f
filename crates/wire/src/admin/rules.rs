//! Which members connect and what they may send to each other, as statuses and simulations show it.

use crate::name::NodeName;
use crate::rules::{Groups, Rules, Traffic};
use serde::{Deserialize, Serialize};

/// The rules that a node has in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesInForce {
    /// The fate of what no rule is about.
    pub traffic: Traffic,
    /// The node's groups, of those that the rules name.
    pub groups: Vec<String>,
    /// Groups whose members connect to everybody, and others to them alone; empty: all connect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hub: Vec<String>,
    /// Every rule, in the order of the policy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<AllowInForce>,
}

/// A rule that a node has in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowInForce {
    /// The rule, in words.
    pub rule: String,
    /// Packets that it has let in here since it is in force. A packet counts for the first rule that it fits.
    pub packets: u64,
}

/// A difference that another policy would make between members of today, for all pairs whose groups are the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficChange {
    /// The groups of the senders, of those that either policy names.
    pub from: Vec<String>,
    /// The groups of the receivers, likewise.
    pub to: Vec<String>,
    /// How many pairs of a sender and a receiver these are.
    pub pairs: u64,
    /// One of these pairs.
    pub example: (NodeName, NodeName),
    /// The traffic that passes now and would not, in words: `tunnel`, or protocols and ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub closed: Vec<String>,
    /// The traffic that does not pass now and would.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub opened: Vec<String>,
}

impl RulesInForce {
    /// The rules of an update for a node in the groups `own`, with the packets that each has let in; `None` where
    /// all members connect and everything passes.
    pub fn of(rules: &Rules, own: Groups, passed: &[u64]) -> Option<Self> {
        if rules.traffic == Traffic::Allow && rules.hubs.is_empty() {
            return None;
        }
        let names = |groups| rules.names(groups).map(str::to_owned).collect();
        let passed = passed.iter().copied().chain(std::iter::repeat(0));
        let allow = rules.allow.iter().zip(passed);
        Some(Self {
            traffic: rules.traffic,
            groups: names(own),
            hub: names(rules.hubs),
            allow: allow
                .map(|(allow, packets)| AllowInForce {
                    rule: rules.words(allow),
                    packets,
                })
                .collect(),
        })
    }
}
