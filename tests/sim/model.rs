//! The reference model: who may reach whom, from the published updates and the times of their
//! delivery alone. Owns no key and calls nothing of what is under test; refuses to be generous: what
//! the design does not allow is a violation.
//!
//! One [`NodeModel`] per node is told what that node was told, and when its agent had a turn. It says
//! whose packets the node may take, to whom it may send, and which epochs' sessions may carry them.

use keys::{Epoch, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use wire::update::LeaseEnd;
use wire::{Digest, EpochUpdate};

/// A model of what a node should hold.
pub(crate) struct NodeModel {
    id: NodeId,
    /// Survives restarts: the newest epoch that was ever in force.
    persisted: (Epoch, Digest),
    newest: (Epoch, Digest),
    in_force: Option<Held>,
    pending: Option<Held>,
    /// Epochs that were announced and superseded before they came into force here, until the next grace
    /// ends: they may be in force on the other side already.
    superseded: Vec<Epoch>,
    /// Whether the lease of [`Self::in_force`] is over and the agent has noticed.
    lapsed: bool,
    /// Whether sessions of earlier epochs may still carry packets.
    grace: Option<Duration>,
    /// Peers that were ever named since the last time that all were forgotten.
    known: BTreeSet<NodeId>,
    /// How often a peer was forgotten: replay memory lasts as long as the peer does.
    lineages: BTreeMap<NodeId, u64>,
}

struct Held {
    epoch: Epoch,
    digest: Digest,
    roster: BTreeSet<NodeId>,
    activates: Duration,
    /// When the agent ends it.
    lease_end: Duration,
    /// When packets are refused even if the agent sleeps: what was said of the lease at first.
    carries_until: Duration,
    grace: Duration,
    on_lease_end: LeaseEnd,
}

impl NodeModel {
    pub(crate) fn new(id: NodeId) -> Self {
        Self {
            id,
            persisted: Default::default(),
            newest: Default::default(),
            in_force: None,
            pending: None,
            superseded: Vec::new(),
            lapsed: false,
            grace: None,
            known: BTreeSet::new(),
            lineages: BTreeMap::new(),
        }
    }

    // ---- what happens to the node -------------------------------------------------------------

    /// The node was handed an update that is `age` old.
    pub(crate) fn delivered(
        &mut self,
        update: &EpochUpdate,
        digest: Digest,
        age: Duration,
        now: Duration,
    ) {
        // Changes that were due before come first.
        self.agent_ran(now);
        let held = [&self.in_force, &self.pending];
        let again = held.into_iter().flatten().any(|h| h.digest == digest);
        let activates = now + update.activate_in().saturating_sub(age);
        let lease_end = now + (update.activate_in() + update.lease()).saturating_sub(age);
        if again {
            self.heard_again(digest, lease_end, now);
        }
        let same = (update.epoch, digest) == self.newest;
        let newer = update.epoch > self.newest.0;
        if again || lease_end <= now || !(same || newer) {
            return;
        }
        self.newest = (update.epoch, digest);
        let roster: BTreeSet<NodeId> = update.roster.iter().map(|member| member.node).collect();
        let gone: Vec<NodeId> = self
            .known
            .iter()
            .filter(|peer| !roster.contains(peer) && !self.in_roster(peer))
            .copied()
            .collect();
        gone.iter().for_each(|peer| self.forget(peer));
        if roster.contains(&self.id) {
            self.known.extend(&roster);
        }
        self.superseded
            .extend(self.pending.as_ref().map(|old| old.epoch));
        self.pending = Some(Held {
            epoch: update.epoch,
            digest,
            roster,
            activates,
            lease_end,
            carries_until: lease_end,
            grace: update.grace(),
            on_lease_end: update.on_lease_end,
        });
    }

    /// The same update once more: what came late the first time is older than it seemed.
    fn heard_again(&mut self, digest: Digest, said: Duration, now: Duration) {
        let is_it = |held: &&mut Held| held.digest == digest;
        let in_force = self.in_force.as_mut().filter(|_| !self.lapsed);
        let pending = self.pending.as_mut().filter(is_it);
        let is_in_force = pending.is_none();
        if let Some(held) = pending.or(in_force.filter(is_it)) {
            let lost = held.lease_end.saturating_sub(said);
            if lost < Duration::from_secs(2) {
                return;
            }
            held.activates = held.activates.saturating_sub(lost);
            held.lease_end = held.lease_end.saturating_sub(lost);
            if is_in_force {
                self.grace = self.grace.map(|until| until.saturating_sub(lost));
            }
        }
        self.agent_ran(now);
    }

    /// The node's agent had a turn: everything that was due is done.
    pub(crate) fn agent_ran(&mut self, now: Duration) {
        if let Some(next) = self.pending.take_if(|next| next.activates <= now) {
            self.activate(next, now);
        }
        if self.grace.is_some_and(|until| until <= now) {
            self.grace = None;
            self.superseded.clear();
        }
        let over = |held: &Held| held.lease_end <= now;
        if !self.lapsed && self.in_force.as_ref().is_some_and(over) {
            self.lapsed = true;
            if self.closes() {
                self.forget_all();
            }
            if self.closes() || self.grace.is_some() {
                self.superseded.clear();
            }
            // The lease took the grace with it: epochs that are superseded from here on wait for the next.
            self.grace = None;
        }
    }

    /// The node's process ended; what it persisted stays.
    pub(crate) fn restarted(&mut self) {
        self.forget_all();
        self.newest = self.persisted;
        (self.in_force, self.pending, self.grace) = (None, None, None);
        self.superseded.clear();
        self.lapsed = false;
    }

    fn activate(&mut self, next: Held, now: Duration) {
        assert!(next.epoch >= self.persisted.0, "the model itself went back");
        self.persisted = (next.epoch, next.digest);
        if next.roster.contains(&self.id) {
            let gone: Vec<NodeId> = self.known.difference(&next.roster).copied().collect();
            gone.iter().for_each(|peer| self.forget(peer));
            self.grace = Some(now + next.grace);
        } else {
            // Nothing is left that a grace could end.
            self.forget_all();
            self.superseded.clear();
            self.grace = None;
        }
        self.lapsed = false;
        self.in_force = Some(next);
    }

    fn forget(&mut self, peer: &NodeId) {
        self.known.remove(peer);
        *self.lineages.entry(*peer).or_default() += 1;
    }

    fn forget_all(&mut self) {
        let all = self.known.clone();
        all.iter().for_each(|peer| self.forget(peer));
    }

    fn closes(&self) -> bool {
        let closes = |held: &Held| held.on_lease_end == LeaseEnd::Close;
        self.in_force.as_ref().is_some_and(closes)
    }

    // ---- what follows from it -----------------------------------------------------------------

    /// Whether anything may pass: the lease of the epoch in force is not over, or the segment stays open.
    /// A node that is not a member of that one, or has none, may be a member of the one to come.
    pub(crate) fn open_at(&self, now: Duration) -> bool {
        let is_member = |held: &&Held| held.roster.contains(&self.id) && !self.is_closed();
        let counts = self.in_force.as_ref().filter(is_member);
        let over = |held: &Held| held.on_lease_end == LeaseEnd::Close && held.carries_until <= now;
        !counts.or(self.pending.as_ref()).is_some_and(over)
    }

    /// Whether a packet of `peer` may be delivered here. A peer that an update on its way admits may
    /// be a moment ahead of this node.
    pub(crate) fn may_hear(&self, peer: &NodeId, now: Duration) -> bool {
        self.open_at(now) && (self.in_roster(peer) || self.in_next(peer))
    }

    /// Whether a packet to `peer` may be sealed here.
    pub(crate) fn may_tell(&self, peer: &NodeId, now: Duration) -> bool {
        self.open_at(now) && self.in_roster(peer)
    }

    /// Whether any datagram at all may go from here to `peer`.
    pub(crate) fn may_approach(&self, peer: &NodeId) -> bool {
        self.in_roster(peer) || self.in_next(peer)
    }

    /// Whether sessions of an epoch whose number ends on the two bits `tag` may carry packets.
    pub(crate) fn tag_is_fresh(&self, tag: u32) -> bool {
        let held = [&self.in_force, &self.pending];
        let held = held.into_iter().flatten().map(|held| held.epoch);
        let mut epochs = held.chain(self.superseded.iter().copied());
        self.grace.is_some() || epochs.any(|epoch| epoch.0 & 3 == u64::from(tag))
    }

    /// Exactly these should be peers at least, and only those of the second set at most.
    pub(crate) fn peers(&self) -> (BTreeSet<NodeId>, BTreeSet<NodeId>) {
        let named = |held: &Option<Held>| {
            let members = held.iter().flat_map(|h| h.roster.iter().copied());
            let all: BTreeSet<NodeId> = members.collect();
            if all.contains(&self.id) {
                all.into_iter().filter(|peer| *peer != self.id).collect()
            } else {
                BTreeSet::new()
            }
        };
        let current = if self.is_closed() {
            BTreeSet::new()
        } else {
            named(&self.in_force)
        };
        let most = current.union(&named(&self.pending)).copied().collect();
        (current, most)
    }

    /// The epochs in force and on their way.
    pub(crate) fn epochs(&self) -> (Option<Epoch>, Option<Epoch>) {
        let epoch = |held: &Option<Held>| held.as_ref().map(|held| held.epoch);
        (epoch(&self.in_force), epoch(&self.pending))
    }

    pub(crate) fn persisted(&self) -> Epoch {
        self.persisted.0
    }

    /// Changes when the node forgets `peer`.
    pub(crate) fn lineage(&self, peer: &NodeId) -> u64 {
        self.lineages.get(peer).copied().unwrap_or(0)
    }

    fn is_closed(&self) -> bool {
        self.lapsed && self.closes()
    }

    fn in_roster(&self, peer: &NodeId) -> bool {
        let both = |held: &Held| held.roster.contains(&self.id) && held.roster.contains(peer);
        !self.is_closed() && self.in_force.as_ref().is_some_and(both)
    }

    fn in_next(&self, peer: &NodeId) -> bool {
        let both = |held: &Held| held.roster.contains(&self.id) && held.roster.contains(peer);
        self.pending.as_ref().is_some_and(both)
    }
}
