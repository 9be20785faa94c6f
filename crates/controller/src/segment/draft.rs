//! decide → time → sign: a new epoch as far as it goes without an effect. A [`Draft`] that is dropped changes
//! nothing, and nobody may be told of one before the events in it are durable.

use super::{Basis, Issue, Segment};
use crate::decide::{Ballot, Cause, decide, recorded};
use crate::event::{Event, Published};
use crate::fleet::{Fleet, Node};
use crate::journal::Unwritten;
use crate::log::NewEpoch;
use epoch::authority::{Kind, NotNow, Schedule};
use keys::EpochSecret;
use rand_core::OsRng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use wire::signed::VerifyError;
use wire::update::MAX_REASON_LEN;
use wire::{EpochUpdate, Excluded, Member, NodeName, Rules, Signed};

/// An epoch that is decided and signed, and not yet durable.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) cause: Cause,
    pub(crate) ballot: Ballot,
    /// The roster before it.
    pub(crate) before: BTreeSet<NodeName>,
    pub(crate) schedule: Schedule,
    pub(crate) issue: Issue,
}

/// Why an epoch was not published.
#[derive(Debug, thiserror::Error)]
pub enum Unpublished {
    /// Not the time for it.
    #[error(transparent)]
    NotNow(#[from] NotNow),
    /// The update breaks a rule of its own format.
    #[error("the update would be refused by every node: {0}")]
    Rule(VerifyError),
    /// It could not be made durable; the log says why.
    #[error(transparent)]
    Log(#[from] Unwritten),
}

impl Segment {
    /// Decides on a new epoch, times it and signs it. `foreseen` is the fold as the epoch's occasion will leave
    /// it.
    pub(crate) fn draft(
        &self,
        cause: Cause,
        kind: Kind,
        foreseen: &Fleet,
        basis: Basis<'_>,
    ) -> Result<Draft, Unpublished> {
        let now = basis.now;
        let mut ballot = decide(foreseen, self.id, &self.policy, cause, now);
        if cause.keeps_members() {
            // Nobody was judged, so that the removals which wait for an operator's word still wait. With an
            // empty list, the status would say that none does, and nodes that fail would stay members unseen.
            ballot.held = &self.held & &ballot.roster;
        }
        let mut schedule = self.authority.schedule(kind, now.boot)?;
        schedule.epoch = schedule.epoch.max(self.standings(foreseen).least());
        let issue = self.sign(foreseen, &ballot, &schedule, basis)?;
        Ok(Draft {
            cause,
            ballot,
            before: self.standings(basis.fleet).roster().clone(),
            schedule,
            issue,
        })
    }

    /// The events that the log is to keep of a draft. `foreseen` is the fold that it was decided on.
    pub(crate) fn events(&self, draft: &Draft, foreseen: &Fleet, basis: Basis<'_>) -> [Event; 2] {
        let Draft { ballot, issue, .. } = draft;
        let about = (self.id, draft.schedule.epoch);
        let decided = recorded(foreseen, about, draft.cause, ballot, basis.now);
        let reason = |name: &NodeName| {
            let reason = ballot.excluded.get(name).cloned();
            let gone = if foreseen.node(name).is_some() {
                LEFT
            } else {
                REMOVED
            };
            let reason = reason.unwrap_or_else(|| gone.to_owned());
            (name.clone(), reason)
        };
        let removed: BTreeMap<_, _> = draft
            .before
            .difference(&ballot.roster)
            .map(reason)
            .collect();
        // Against the fold's roster, which a node with a new identity has left already: it joins again, or
        // the replayed roster would lack a member that holds the secret.
        let joined = ballot.roster.difference(self.standings(foreseen).roster());
        let published = Published {
            segment: self.id,
            epoch: issue.update.epoch,
            cause: draft.cause.word().to_owned(),
            in_force: self.in_force().map(|span| span.epoch),
            update: issue.digest,
            commitment: issue.update.commitment.to_string(),
            policy: issue.update.policy.to_string(),
            members: ballot.roster.len(),
            joined: joined.cloned().collect(),
            removed,
            activate_in_ms: issue.update.activate_in_ms,
            epoch_ms: issue.update.epoch_ms,
            boot_ms: basis.now.boot_ms(),
            boot_id: basis.mesh.boot_id.clone(),
        };
        [decided, Event::EpochPublished(Box::new(published))]
    }

    /// A draft as the log stores it beside its events, with the one other epoch that nodes may still need.
    pub(crate) fn new_epoch<'d>(&self, draft: &'d Draft) -> NewEpoch<'d> {
        let keep = self.in_force().map(|span| span.epoch);
        NewEpoch {
            segment: self.id,
            epoch: draft.issue.update.epoch,
            signed: &draft.issue.signed,
            secret: &draft.issue.secret,
            // An epoch without lead is in force at once: no node may be given the secret of the one before any
            // more, which in a revocation is the one that the excluded node knows. It leaves the disk.
            keep: keep.filter(|_| draft.issue.update.activate_in_ms > 0),
        }
    }

    fn member(&self, name: &NodeName, node: &Node, rules: &Rules) -> Option<Member> {
        Some(Member {
            node: node.id,
            name: name.clone(),
            // A ballot names nodes of this segment, and each has a key in it.
            wg: node.wg(self.id)?,
            v4: self.network.v4(node.host).0,
            v6: self.network.v6(node.host).0,
            groups: rules.groups_of(&node.groups),
            routes: self.granted(node).collect(),
        })
    }

    fn exclusion(&self, name: &NodeName, node: &Node, reason: &str) -> Excluded {
        let end = reason.floor_char_boundary(MAX_REASON_LEN);
        Excluded {
            node: node.id,
            name: name.clone(),
            v4: self.network.v4(node.host).0,
            v6: self.network.v6(node.host).0,
            reason: reason.get(..end).unwrap_or_default().to_owned(),
        }
    }

    /// Draws the epoch's secret and signs the update that commits to it.
    ///
    /// The secret is fresh and depends on nothing that was there before: a node that was excluded can derive
    /// nothing of it from the secrets that it had. The update binds it, by its commitment, to this roster, so
    /// that nobody can pass it on as the secret of another one.
    fn sign(
        &self,
        foreseen: &Fleet,
        ballot: &Ballot,
        schedule: &Schedule,
        basis: Basis<'_>,
    ) -> Result<Issue, Unpublished> {
        let mesh = basis.mesh;
        let secret = EpochSecret::generate(&mut OsRng);
        let node = |name: &NodeName| -> &Node {
            let node = foreseen.node(name);
            node.expect("a ballot names enrolled nodes")
        };
        let members = ballot.roster.iter();
        let rules = self.policy.rules();
        let member = |name| self.member(name, node(name), &rules);
        let mut roster: Vec<Member> = members.filter_map(member).collect();
        let is_hub = |member: &Member| rules.hubs.shares(member.groups);
        if !rules.hubs.is_empty() && !roster.iter().any(is_hub) {
            let hub = rules.names(rules.hubs).collect::<Vec<_>>().join(", ");
            tracing::warn!(%hub, "no member is a hub: no two members have a tunnel");
        }
        roster.sort_by_key(|member| member.node);
        let others = ballot.excluded.iter();
        // Where thousands come at once, each would be named to all others twice, and cost more than as a member.
        let names_all = ballot.unheard.len() <= MOST_UNHEARD;
        let others = others.filter(|(name, _)| names_all || !ballot.unheard.contains(*name));
        let mut excluded: Vec<Excluded> = others
            .map(|(name, reason)| self.exclusion(name, node(name), reason))
            .collect();
        excluded.sort_by_key(|excluded| excluded.node);
        let update = EpochUpdate {
            mesh: mesh.id,
            segment: self.id,
            epoch: schedule.epoch,
            previous: schedule.previous,
            roster,
            rules,
            excluded,
            commitment: secret.commitment(),
            activate_in_ms: schedule.activate_in_ms,
            epoch_ms: schedule.epoch_ms,
            lease_ms: schedule.lease_ms,
            grace_ms: schedule.grace_ms,
            on_lease_end: schedule.on_lease_end,
            policy: self.policy.digest(),
        };
        let signed = Signed::sign(&update, &mesh.authority).map_err(|error| {
            tracing::error!(%error, "an epoch update breaks a rule of its format");
            Unpublished::Rule(error)
        })?;
        Ok(Issue {
            update: Arc::new(update),
            digest: signed.digest(),
            signed,
            secret,
            signed_ms: basis.now.boot_ms(),
        })
    }
}

/// Nodes that nothing was decided about and that have no evidence, as far as an update names them. Where there are more,
/// it names none of those.
const MOST_UNHEARD: usize = 64;
/// Said of a node that is in other segments, if in any.
const LEFT: &str = "is in this segment no more";
/// Said of a node that is enrolled no more.
const REMOVED: &str = "removed for good";
