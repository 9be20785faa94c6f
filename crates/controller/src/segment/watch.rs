//! The members that are to be judged between epochs: those of whom something has changed, and those whose time has
//! come. With every piece of evidence all were judged before, and in a large mesh nothing else was done. Refuses to
//! judge, and to decide what follows.

use crate::changed::Changed;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use wire::NodeName;

/// The members to be judged, and the times to do it.
#[derive(Debug)]
pub(super) struct Watch {
    suspects: Changed,
    /// When the verdict on a member changes with time alone.
    due: BTreeSet<(Duration, NodeName)>,
    due_of: BTreeMap<NodeName, Duration>,
    failing: BTreeSet<NodeName>,
    /// Nobody has decided yet what follows from those that fail.
    undecided: bool,
}

impl Watch {
    /// Everybody is to be judged.
    pub(super) fn new() -> Self {
        Self {
            suspects: Changed::Anything,
            due: BTreeSet::new(),
            due_of: BTreeMap::new(),
            failing: BTreeSet::new(),
            undecided: false,
        }
    }

    /// Something has changed.
    pub(super) fn suspect(&mut self, changed: &Changed) {
        match changed {
            Changed::Nothing => {}
            Changed::Nodes(names) => names.iter().for_each(|name| self.suspects.add(name)),
            Changed::Anything => self.suspects = Changed::Anything,
        }
    }

    /// The members of `roster` to be judged now; each has to be answered with [`Self::judged`].
    pub(super) fn take(&mut self, roster: &BTreeSet<NodeName>, now: Duration) -> Vec<NodeName> {
        match std::mem::take(&mut self.suspects) {
            Changed::Anything => {
                self.undecided |= !self.failing.is_empty();
                let undecided = self.undecided;
                *self = Self {
                    suspects: Changed::Nothing,
                    undecided,
                    ..Self::new()
                };
                return roster.iter().cloned().collect();
            }
            Changed::Nothing => {}
            Changed::Nodes(names) => names
                .into_iter()
                .for_each(|name| self.set_due(&name, Some(now))),
        }
        let mut taken = Vec::new();
        while self.due.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, name)) = self.due.pop_first()
        {
            self.due_of.remove(&name);
            if roster.contains(&name) {
                taken.push(name);
            } else {
                self.failing.remove(&name);
            }
        }
        taken
    }

    /// A member was judged: whether it fails, and when it is to be judged again without anything changing.
    pub(super) fn judged(&mut self, name: &NodeName, fails: bool, again: Option<Duration>) {
        let changed = if fails {
            self.failing.insert(name.clone())
        } else {
            self.failing.remove(name)
        };
        self.undecided |= changed;
        self.set_due(name, again);
    }

    /// Whether somebody fails and nobody has decided what follows.
    pub(super) fn is_undecided(&self) -> bool {
        self.undecided && !self.failing.is_empty()
    }

    /// It is decided what follows.
    pub(super) fn decided(&mut self) {
        self.undecided = false;
    }

    /// When somebody is to be judged; zero: now.
    pub(super) fn next(&self) -> Option<Duration> {
        if self.suspects != Changed::Nothing || self.is_undecided() {
            return Some(Duration::ZERO);
        }
        self.due.first().map(|(at, _)| *at)
    }

    fn set_due(&mut self, name: &NodeName, at: Option<Duration>) {
        if let Some(before) = self.due_of.remove(name) {
            self.due.remove(&(before, name.clone()));
        }
        if let Some(at) = at {
            self.due.insert((at, name.clone()));
            self.due_of.insert(name.clone(), at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn only_those_are_judged_of_whom_something_changed_or_whose_time_has_come() {
        let roster = BTreeSet::from(["a", "b", "c"].map(name));
        let mut watch = Watch::new();
        assert_eq!(watch.take(&roster, s(1)).len(), 3, "nobody was, so far");
        watch.judged(&name("a"), false, Some(s(10)));
        watch.judged(&name("b"), false, Some(s(20)));
        watch.judged(&name("c"), false, None);
        assert_eq!(watch.next(), Some(s(10)));
        assert!(watch.take(&roster, s(9)).is_empty());

        assert_eq!(watch.take(&roster, s(10)), [name("a")]);
        watch.judged(&name("a"), true, None);
        assert!(watch.is_undecided());
        watch.decided();
        assert_eq!(watch.next(), Some(s(20)), "it fails as before");

        let mut changed = Changed::default();
        changed.add(&name("c"));
        changed.add(&name("stranger"));
        watch.suspect(&changed);
        assert_eq!(watch.next(), Some(Duration::ZERO));
        assert_eq!(watch.take(&roster, s(11)), [name("c")]);
        watch.judged(&name("c"), false, Some(s(30)));
        assert!(!watch.is_undecided());

        watch.suspect(&Changed::Anything);
        assert_eq!(watch.take(&roster, s(12)).len(), 3);
        watch.judged(&name("a"), true, None);
        assert!(watch.is_undecided(), "another policy may let more go");
    }
}
