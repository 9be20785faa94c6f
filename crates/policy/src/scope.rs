//! An evaluator, and what it may vouch for.

use keys::EvaluatorId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use wire::NodeName;

/// A key that may vouch for runs. A list that is empty sets no limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluator {
    /// The key, printed as `evaluator:…`.
    #[serde(with = "printed")]
    pub key: EvaluatorId,
    /// The suites, by patterns in which `*` stands for any text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suites: Vec<String>,
    /// The harnesses, by such patterns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub harnesses: Vec<String>,
    /// The nodes, by such patterns of their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// The groups of nodes. With [`Self::nodes`] beside it, either is enough.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

/// A node as far as an evaluator's scope asks.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'s> {
    /// Its name.
    pub name: &'s NodeName,
    /// The groups that operators have put it into.
    pub groups: &'s BTreeSet<String>,
}

impl Evaluator {
    /// An evaluator without limits.
    pub fn of(key: EvaluatorId) -> Self {
        Self {
            key,
            suites: Vec::new(),
            harnesses: Vec::new(),
            nodes: Vec::new(),
            groups: Vec::new(),
        }
    }

    /// Whether it may vouch for a run of this suite with this harness, about this node.
    pub fn may_vouch(&self, harness: &str, suite: &str, subject: Subject<'_>) -> bool {
        let any = |patterns: &[String], text: &str| {
            patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, text))
        };
        let (nodes, groups) = (&self.nodes, &self.groups);
        let everybody = nodes.is_empty() && groups.is_empty();
        let named = nodes.iter().any(|it| matches(it, subject.name.as_str()));
        let grouped = groups.iter().any(|it| subject.groups.contains(it));
        any(&self.harnesses, harness) && any(&self.suites, suite) && (everybody || named || grouped)
    }

    /// Its patterns, with the name of the list that each is in.
    pub(crate) fn texts(&self) -> impl Iterator<Item = (&'static str, &String)> {
        let lists = [
            ("suites", &self.suites),
            ("harnesses", &self.harnesses),
            ("nodes", &self.nodes),
            ("groups", &self.groups),
        ];
        lists
            .into_iter()
            .flat_map(|(list, texts)| texts.iter().map(move |text| (list, text)))
    }
}

/// Whether a text fits a pattern in which `*` stands for any text, the empty one included. Takes time in
/// proportion to the product of both lengths, at most.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        // The first place leaves the most for the parts that follow.
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}

/// A key as the string that operators paste, not as an array of bytes.
mod printed {
    use keys::EvaluatorId;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(key: &EvaluatorId, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(key)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<EvaluatorId, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text, fits) in [
            ("agent-*", "agent-safety", true),
            ("agent-*", "agent-", true),
            ("agent-*", "other-agent-x", false),
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("ab", "abc", false),
            ("a*a", "a", false),
            ("**", "x", true),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn every_limit_holds_and_nodes_or_groups_are_enough() {
        let name: NodeName = "node-a".parse().unwrap();
        let gpu = BTreeSet::from(["gpu".to_owned()]);
        let none = BTreeSet::new();
        let evaluator = Evaluator {
            suites: vec!["agent-*".into()],
            harnesses: vec!["inspect".into()],
            nodes: vec!["node-b".into()],
            groups: vec!["gpu".into()],
            ..Evaluator::of(EvaluatorId([1; 32]))
        };
        let may = |harness, suite, groups| {
            let name = &name;
            evaluator.may_vouch(harness, suite, Subject { name, groups })
        };
        assert!(may("inspect", "agent-x", &gpu));
        assert!(!may("lm-eval", "agent-x", &gpu) && !may("inspect", "x", &gpu));
        assert!(!may("inspect", "agent-x", &none));
        let open = Evaluator::of(EvaluatorId([1; 32]));
        let subject = Subject {
            name: &name,
            groups: &none,
        };
        assert!(open.may_vouch("any", "any", subject));
    }
}
