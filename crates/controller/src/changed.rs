//! The grounds of judgements that have changed: the journal says so, and a segment judges by it whom it has to. Refuses
//! to judge.

use std::collections::BTreeSet;
use wire::NodeName;

/// The part of a fold that a judgement may rest on has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Changed {
    /// Nothing has.
    #[default]
    Nothing,
    /// The facts about these nodes have.
    Nodes(BTreeSet<NodeName>),
    /// It may be anything.
    Anything,
}

impl Changed {
    pub(crate) fn add(&mut self, name: &NodeName) {
        match self {
            Self::Nothing => *self = Self::Nodes(BTreeSet::from([name.clone()])),
            Self::Nodes(names) => drop(names.insert(name.clone())),
            Self::Anything => {}
        }
    }
}
