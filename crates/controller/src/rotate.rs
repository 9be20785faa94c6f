//! A new epoch, from the decision to the push: decide → sign → persist → push. What follows, from
//! verification to discarding, happens on the nodes.

use crate::clock::Now;
use crate::counts::UpdateResult;
use crate::decide::{Ballot, Cause, decide, joins};
use crate::engine::Engine;
use crate::event::{Event, Published, Verdict};
use crate::fleet::{Fleet, Node};
use crate::format::{utc, word};
use crate::log::StoredEpoch;
use epoch::authority::{Authority, Kind, NotNow, Schedule, Span, Timing};
use keys::{Epoch, EpochSecret, SegmentId};
use policy::{Revoke, judge, stale_in};
use rand_core::OsRng;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use wire::signed::VerifyError;
use wire::{Digest, EpochUpdate, Excluded, Mark, Member, NodeName, Signed};

/// An epoch that can be pushed.
#[derive(Debug)]
pub(crate) struct Issue {
    pub(crate) update: EpochUpdate,
    pub(crate) signed: Signed<EpochUpdate>,
    pub(crate) secret: EpochSecret,
    /// The mark that nodes show of it when they come again.
    pub(crate) mark: Signed<Mark>,
    /// When it was signed, on the boot-time clock in milliseconds; negative: before this boot.
    pub(crate) signed_ms: i64,
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
    #[error("the event log cannot be written")]
    Log,
}

impl From<&Result<(), Unpublished>> for UpdateResult {
    fn from(result: &Result<(), Unpublished>) -> Self {
        match result {
            Ok(()) => Self::Published,
            Err(Unpublished::NotNow(_)) => Self::NotNow,
            Err(Unpublished::Rule(_)) => Self::Invalid,
            Err(Unpublished::Log) => Self::Unwritten,
        }
    }
}

impl Issue {
    pub(crate) fn is_empty(&self) -> bool {
        self.update.roster.is_empty()
    }
}

impl Engine {
    /// Publishes an epoch. `events` are its occasion: they become durable with it, or not at all.
    pub(crate) fn publish(
        &mut self,
        cause: Cause,
        kind: Kind,
        events: &[Event],
        now: Now,
    ) -> Result<(), Unpublished> {
        let result = self.try_publish(cause, kind, events, now);
        self.counts.updates.count(UpdateResult::from(&result));
        result
    }

    fn try_publish(
        &mut self,
        cause: Cause,
        kind: Kind,
        events: &[Event],
        now: Now,
    ) -> Result<(), Unpublished> {
        let before = self.fleet.roster().clone();
        let mut fleet = self.fleet.clone();
        for event in events {
            fleet.apply(now.wall, event);
        }
        let mut ballot = decide(&fleet, &self.setup.policy, cause, now);
        if cause.keeps_members() {
            // Nobody was judged: what waits for an operator goes on waiting.
            ballot.held = &self.held & &ballot.roster;
        }
        let schedule = self.authority.schedule(kind, now.boot)?;
        let issue = self.sign(&fleet, &ballot, &schedule, now);
        let issue = issue.inspect_err(|_| self.back_off(now))?;
        let decided = Event::Decided {
            epoch: schedule.epoch,
            scheduled: cause.counts(),
            nodes: ballot.verdicts.clone(),
        };
        let published = self.published(&fleet, &ballot, &before, cause, &issue, now);
        let published = Event::EpochPublished(Box::new(published));
        let all = [events, &[decided, published]].concat();
        self.commit_epoch(&all, &issue, now)?;
        let mut issue = issue;
        // Signed before it was durable; the nodes are to hold what is, this epoch's events with it.
        if let Ok(mark) = self.mark(issue.update.epoch, issue.signed.digest()) {
            issue.mark = mark;
        }

        for event in all.iter().skip(events.len()) {
            fleet.apply(now.wall, event);
        }
        self.fleet = fleet;
        self.authority.publish(&schedule, issue.signed.digest());
        self.report(&ballot, &before, cause, &issue, now);
        self.counts.ballot(&ballot);
        self.held = ballot.held;
        let in_force = self.authority.in_force().map(|span| span.epoch);
        self.issues.retain(|epoch, _| Some(*epoch) == in_force);
        let epoch = issue.update.epoch;
        self.issues.insert(epoch, issue);
        self.push_epoch(epoch, &before, now);
        self.touch();
        Ok(())
    }

    /// Restores the machine and the updates from the log.
    pub(crate) fn resume(&mut self, epochs: Vec<StoredEpoch>, now: Now) {
        let Some((_, newest)) = self.fleet.newest_epoch() else {
            return;
        };
        let next = self.span(newest.epoch, now);
        let before = newest.in_force.and_then(|epoch| self.span(epoch, now));
        let (current, next) = match (before, next) {
            (Some(before), Some(next)) if next.activates > now.boot => (before, Some(next)),
            (_, Some(next)) => (next, None),
            (_, None) => return,
        };
        let timing = Timing {
            epoch: self.setup.policy.epoch(),
            lease: self.setup.policy.lease(),
            on_lease_end: self.setup.policy.on_lease_end,
        };
        self.authority = Authority::resume(timing, current, next, now.boot);
        let trusted = [self.setup.authority.public()];
        for stored in epochs {
            let Some((_, published)) = self.fleet.epoch(stored.epoch) else {
                continue;
            };
            let digest = published.update;
            let signed_ms = self.signed_ms(stored.epoch, now).unwrap_or(now.boot_ms());
            match stored.signed.verify(&trusted) {
                Ok(update)
                    if update.digest() == digest
                        && update.commitment == stored.secret.commitment() =>
                {
                    let Ok(mark) = self.mark(stored.epoch, digest) else {
                        continue;
                    };
                    let issue = Issue {
                        update: (*update).clone(),
                        signed: stored.signed,
                        secret: stored.secret,
                        mark,
                        signed_ms,
                    };
                    self.issues.insert(stored.epoch, issue);
                }
                Ok(_) | Err(_) => {
                    tracing::warn!(epoch = %stored.epoch, "the stored update is not this \
                        authority's, or not with this secret: a new epoch follows at once");
                }
            }
        }
        let kept = self.fleet.nodes().iter().filter(|(name, node)| {
            let held = node.verdict.as_ref().is_some_and(|verdict| verdict.held);
            held && self.fleet.roster().contains(*name)
        });
        self.held = kept.map(|(name, _)| name.clone()).collect();
        let epoch = self.authority.in_force().map(|span| span.epoch.0);
        let next = self.authority.next().map(|span| span.epoch.0);
        tracing::info!(
            epoch,
            next,
            nodes = self.fleet.nodes().len(),
            "epoch resumed"
        );
    }

    /// Whether everything that the machine knows of can be pushed.
    pub(crate) fn issues_complete(&self) -> bool {
        let spans = [self.authority.in_force(), self.authority.next()];
        let mut epochs = spans.into_iter().flatten().map(|span| span.epoch);
        epochs.all(|epoch| self.issues.contains_key(&epoch))
    }

    /// Whether a node waits that need not wait for a scheduled rotation.
    pub(crate) fn anyone_joins(&self, now: Now) -> bool {
        let mut nodes = self.fleet.nodes().iter();
        nodes.any(|(name, node)| !self.fleet.roster().contains(name) && self.may_join(node, now))
    }

    /// Whether this node, not being a member, may become one at once.
    pub(crate) fn may_join(&self, node: &Node, now: Now) -> bool {
        joins(
            node,
            &judge(&self.setup.policy, &node.record(now), now.wall),
        )
    }

    /// Under `revoke = "now"`: publishes at once if a member fails that is not held.
    pub(crate) fn revoke_failing(&mut self, now: Now) {
        if self.setup.policy.revoke != Revoke::Now || now.boot < self.settle_until() {
            return;
        }
        // Evidence turns stale while none can be kept. That is the disk's fault, not the nodes'.
        if self.log.is_short_of_room() {
            return;
        }
        let failing = |name: &NodeName| {
            let node = self.fleet.node(name)?;
            Some(!judge(&self.setup.policy, &node.record(now), now.wall).allowed())
        };
        let roster = self.fleet.roster();
        if !roster.iter().any(|name| failing(name) == Some(true)) {
            return;
        }
        let ballot = decide(&self.fleet, &self.setup.policy, Cause::Revocation, now);
        if roster.iter().any(|name| !ballot.roster.contains(name)) {
            let _ = self.publish(Cause::Revocation, Kind::Immediate, &[], now);
        } else if ballot.held != self.held {
            warn_held(&ballot.held, &self.held);
            self.held = ballot.held;
            self.touch();
        }
    }

    /// Under `revoke = "now"`: when the next member's evidence turns stale.
    pub(crate) fn revocation_at(&self, now: Now) -> Option<Duration> {
        if self.setup.policy.revoke != Revoke::Now || self.log.is_short_of_room() {
            return None;
        }
        // Those that are past it are held, on probation or about to be judged anyway.
        let stale = |name: &NodeName| {
            let record = self.fleet.node(name)?.record(now);
            stale_in(&self.setup.policy, &record, now.wall)
        };
        let unheld = self.fleet.roster().difference(&self.held);
        let next = unheld.filter_map(stale).min()?;
        Some(self.retry_after(now.boot + next + STALE_MARGIN))
    }

    fn sign(
        &self,
        fleet: &Fleet,
        ballot: &Ballot,
        schedule: &Schedule,
        now: Now,
    ) -> Result<Issue, Unpublished> {
        let secret = EpochSecret::generate(&mut OsRng);
        let node = |name: &NodeName| fleet.node(name).expect("a ballot names enrolled nodes");
        let mut roster: Vec<Member> = ballot
            .roster
            .iter()
            .map(|name| self.member(name, node(name)))
            .collect();
        roster.sort_by_key(|member| member.node);
        let mut excluded: Vec<Excluded> = ballot
            .excluded
            .iter()
            .map(|(name, reason)| self.exclusion(name, node(name), reason))
            .collect();
        excluded.sort_by_key(|excluded| excluded.node);
        let update = EpochUpdate {
            mesh: self.mesh,
            segment: SegmentId::FIRST,
            epoch: schedule.epoch,
            previous: schedule.previous,
            roster,
            excluded,
            commitment: secret.commitment(),
            activate_in_ms: schedule.activate_in_ms,
            epoch_ms: schedule.epoch_ms,
            lease_ms: schedule.lease_ms,
            grace_ms: schedule.grace_ms,
            on_lease_end: schedule.on_lease_end,
            policy: self.setup.policy.digest(),
        };
        let signed = Signed::sign(&update, &self.setup.authority).map_err(|error| {
            tracing::error!(%error, "an epoch update breaks a rule of its format");
            Unpublished::Rule(error)
        })?;
        let mark = self.mark(update.epoch, signed.digest());
        Ok(Issue {
            mark: mark.map_err(Unpublished::Rule)?,
            update,
            signed,
            secret,
            signed_ms: now.boot_ms(),
        })
    }

    fn mark(&self, epoch: Epoch, update: Digest) -> Result<Signed<Mark>, VerifyError> {
        let mark = Mark {
            mesh: self.mesh,
            segment: SegmentId::FIRST,
            epoch,
            update,
            log_events: self.log.head().seq,
            log_hash: Digest(self.log.head().hash),
        };
        Signed::sign(&mark, &self.setup.authority)
    }

    fn member(&self, name: &NodeName, node: &Node) -> Member {
        Member {
            node: node.id,
            name: name.clone(),
            wg: node.wg,
            v4: self.network.v4(node.host).0,
            v6: self.network.v6(node.host).0,
        }
    }

    fn exclusion(&self, name: &NodeName, node: &Node, reason: &str) -> Excluded {
        Excluded {
            node: node.id,
            name: name.clone(),
            v4: self.network.v4(node.host).0,
            v6: self.network.v6(node.host).0,
            reason: reason.to_owned(),
        }
    }

    fn published(
        &self,
        fleet: &Fleet,
        ballot: &Ballot,
        before: &BTreeSet<NodeName>,
        cause: Cause,
        issue: &Issue,
        now: Now,
    ) -> Published {
        let reason = |name: &NodeName| {
            let reason = ballot.excluded.get(name).cloned().unwrap_or_default();
            (name.clone(), reason)
        };
        let removed: BTreeMap<_, _> = before.difference(&ballot.roster).map(reason).collect();
        Published {
            epoch: issue.update.epoch,
            cause: cause.word().to_owned(),
            in_force: self.authority.in_force().map(|span| span.epoch),
            update: issue.signed.digest(),
            commitment: issue.update.commitment.to_string(),
            policy: issue.update.policy.to_string(),
            members: ballot.roster.len(),
            // Against the fold's roster, which a node with a new identity has left already.
            joined: ballot.roster.difference(fleet.roster()).cloned().collect(),
            removed,
            activate_in_ms: issue.update.activate_in_ms,
            epoch_ms: issue.update.epoch_ms,
            boot_ms: now.boot_ms(),
            boot_id: self.setup.boot_id.clone(),
        }
    }

    /// An epoch's place on the boot-time clock: by that clock within one boot, else by the wall.
    fn span(&self, epoch: Epoch, now: Now) -> Option<Span> {
        let (_, published) = self.fleet.epoch(epoch)?;
        let after = |ms: u64| {
            let at = self.signed_ms(epoch, now)?.saturating_add_unsigned(ms);
            Some(Duration::from_millis(u64::try_from(at).unwrap_or(0)))
        };
        let length = published.activate_in_ms.saturating_add(published.epoch_ms);
        Some(Span {
            epoch,
            update: published.update,
            activates: after(published.activate_in_ms)?,
            ends: after(length)?,
        })
    }

    fn signed_ms(&self, epoch: Epoch, now: Now) -> Option<i64> {
        let (at, published) = self.fleet.epoch(epoch)?;
        let same_boot = !published.boot_id.is_empty() && published.boot_id == self.setup.boot_id;
        if same_boot && published.boot_ms <= now.boot_ms() {
            return Some(published.boot_ms);
        }
        let age = now
            .wall
            .as_millisecond()
            .saturating_sub(at.as_millisecond());
        Some(now.boot_ms().saturating_sub(age.max(0)))
    }

    fn report(
        &self,
        ballot: &Ballot,
        before: &BTreeSet<NodeName>,
        cause: Cause,
        issue: &Issue,
        now: Now,
    ) {
        for verdict in &ballot.verdicts {
            log_verdict(verdict);
        }
        warn_held(&ballot.held, &self.held);
        let activates = now.wall + issue.update.activate_in();
        let removed = before.difference(&ballot.roster).count();
        tracing::info!(
            epoch = issue.update.epoch.0,
            cause = cause.word(),
            activates = %utc(activates),
            expiry = %utc(activates + issue.update.length()),
            members = ballot.roster.len(),
            excluded = ballot.excluded.len(),
            removed,
            "epoch rotation"
        );
    }
}

fn log_verdict(verdict: &Verdict) {
    let membership = word(verdict.membership);
    let score = verdict.score.map(|score| format!("{score:.3}"));
    let score = score.as_deref().unwrap_or("none");
    match verdict.reason.as_deref() {
        Some(reason) => {
            tracing::info!(node = %verdict.name, score = %score, membership = %membership, reason, "decision");
        }
        None => {
            tracing::info!(node = %verdict.name, score = %score, membership = %membership, "decision");
        }
    }
}

/// One line when the set of held removals grows or changes, none while it stays.
fn warn_held(held: &BTreeSet<NodeName>, before: &BTreeSet<NodeName>) {
    if held.is_subset(before) {
        return;
    }
    let names: Vec<&str> = held.iter().map(NodeName::as_str).collect();
    tracing::warn!(
        count = held.len(),
        nodes = names.join(","),
        "removal held by the sanity floor: confirm it with `meshctl epoch rotate --confirm-removals`"
    );
}

/// Just past the instant, so that rounding cannot make the timer fire before it.
const STALE_MARGIN: Duration = Duration::from_millis(5);
