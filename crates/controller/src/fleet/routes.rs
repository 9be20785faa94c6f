//! The networks behind a node in a segment: those that it offers, and those of them that an operator has approved. Only
//! what is both enters an update.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use wire::Prefix;

/// The networks behind a node, in one segment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routes {
    /// Those that the node said last that it carries packets for.
    pub advertised: BTreeSet<Prefix>,
    /// Those that an operator has approved, whether or not the node offers them.
    pub approved: BTreeSet<Prefix>,
}

/// Of a node that has none.
pub(super) static NONE: Routes = Routes {
    advertised: BTreeSet::new(),
    approved: BTreeSet::new(),
};

impl Routes {
    /// Those that an update gives to the node, in increasing order.
    pub fn granted(&self) -> impl Iterator<Item = Prefix> {
        self.advertised.intersection(&self.approved).copied()
    }

    /// All that there is something to say of.
    pub fn all(&self) -> impl Iterator<Item = Prefix> {
        self.advertised.union(&self.approved).copied()
    }

    /// Whether there is nothing to keep.
    pub(super) fn is_empty(&self) -> bool {
        self.advertised.is_empty() && self.approved.is_empty()
    }
}
