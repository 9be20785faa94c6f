//! A new epoch, in the one order that is safe: decide → time → sign → persist → push. The first three make a
//! [`Draft`] and change nothing; here it becomes durable, takes effect and is told, in this order and in no
//! other. The rest, from verification to discarding, happens on the nodes.
//!
//! | What falls short | The danger | What this order makes of it |
//! |---|---|---|
//! | the log is not written | an eviction that a crash undoes; a number that is given out twice | nothing has changed, nobody was told, the timers try again |
//! | the process dies after the commit | nodes were told nothing | the restarted controller resumes the epoch and pushes it |
//! | a node is not connected | it goes on with the epoch before | it is told when it comes again, or its lease ends |

use crate::by::By;
use crate::clock::Now;
use crate::connections::Connections;
use crate::counts::{Counts, UpdateResult};
use crate::decide::{Cause, decide};
use crate::effect::Output;
use crate::event::Event;
use crate::journal::{Journal, Unwritten};
use crate::mesh::Mesh;
use crate::push::Push;
use crate::segment::{Basis, Draft, Unpublished};
use crate::segments::Segments;
use epoch::authority::{Kind, NotNow};
use keys::{NodeId, SegmentId};
use wire::NodeName;

mod report;

/// The part that publishes epochs: of the connections it needs to know only who is there.
#[derive(Debug)]
pub(crate) struct Rotation<'e> {
    pub(crate) mesh: &'e Mesh,
    pub(crate) journal: &'e mut Journal,
    pub(crate) segments: &'e mut Segments,
    pub(crate) connections: &'e Connections,
    pub(crate) counts: &'e mut Counts,
    pub(crate) output: &'e mut Output,
}

impl Rotation<'_> {
    /// Publishes an epoch in each of the segments `which`, all or none. `occasion` are the events that ask for
    /// it, at the word of `by`: they become durable with it, or not at all, so that no eviction is on record whose
    /// epoch is not.
    pub(crate) fn publish(
        &mut self,
        by: Option<By>,
        which: &[SegmentId],
        cause: Cause,
        kind: Kind,
        occasion: &[Event],
        now: Now,
    ) -> Result<(), Unpublished> {
        let result = self.try_publish(by, which, cause, kind, occasion, now);
        self.counts.updates.count(UpdateResult::from(&result));
        result
    }

    fn try_publish(
        &mut self,
        by: Option<By>,
        which: &[SegmentId],
        cause: Cause,
        kind: Kind,
        occasion: &[Event],
        now: Now,
    ) -> Result<(), Unpublished> {
        // Decide, time, sign: on the fold as the occasion would leave it. Deciding on the fold as it is would
        // give a node that is being evicted the secret of the epoch that evicts it.
        let (drafts, events) = self.drafts(which, cause, kind, occasion, now)?;
        // Persist: everything in one transaction. From here on the epoch is a fact, and a crash resumes it.
        let drafted = which.iter().zip(&drafts);
        let epochs: Vec<_> = drafted
            .map(|(id, draft)| self.segments.get(*id).new_epoch(draft))
            .collect();
        self.journal
            .commit(by, &events, &epochs, self.output, now)?;
        for (id, draft) in which.iter().zip(drafts) {
            self.take_effect(*id, draft, now);
        }
        Ok(())
    }

    /// A draft for each segment, with all that the log is to keep of them.
    fn drafts(
        &mut self,
        which: &[SegmentId],
        cause: Cause,
        kind: Kind,
        occasion: &[Event],
        now: Now,
    ) -> Result<(Vec<Draft>, Vec<Event>), Unpublished> {
        let (mut drafts, mut events) = (Vec::new(), occasion.to_vec());
        let foreseen = self.journal.foresee(occasion, now);
        let basis = Basis {
            mesh: self.mesh,
            fleet: self.journal.fleet(),
            now,
        };
        for id in which {
            let segment = self.segments.get(*id);
            match segment.draft(cause, kind, &foreseen, basis) {
                Ok(draft) => {
                    events.extend(segment.events(&draft, &foreseen, basis));
                    drafts.push(draft);
                }
                Err(error) => {
                    drop(foreseen);
                    if let Unpublished::Rule(_) = error {
                        // The same fleet gives the same update: trying again at once would only spin.
                        self.journal.back_off(now);
                    }
                    return Err(error);
                }
            }
        }
        Ok((drafts, events))
    }

    /// A durable epoch takes effect here, and then on the nodes.
    fn take_effect(&mut self, id: SegmentId, draft: Draft, now: Now) {
        let segment = self.segments.get_mut(id);
        let epoch = draft.issue.update.epoch;
        report::published(&draft, segment.name(), segment.held(), now);
        self.counts.ballot(&draft.ballot);
        if draft.cause == Cause::Authority {
            // Durable by now, and before the first thing that the new key has signed.
            for (id, ..) in self.connections.serving() {
                if let Some(words) = self.journal.words_of_authorities() {
                    self.output.send(id, words);
                }
            }
        }
        segment.adopt(draft);
        let connections = &self.connections;
        let at = |name: &NodeName| connections.live(name).map(|live| &*live.endpoints);
        segment.place_members(self.journal.fleet(), at);
        let mut push = Push {
            mesh: self.mesh,
            journal: self.journal,
            connections: self.connections,
            output: self.output,
        };
        push.epoch(segment, epoch, now);
        self.output.touch();
    }

    /// Makes events durable that shut out identities: with one new epoch wherever one of them is a member, so that
    /// they are out of the mesh as soon as they are out of the log; alone where none is.
    pub(crate) fn shut_out(
        &mut self,
        by: Option<By>,
        nodes: &[NodeId],
        cause: Cause,
        events: &[Event],
        now: Now,
    ) -> Result<(), Unpublished> {
        let fleet = self.journal.fleet();
        let segments = self.segments.iter();
        let where_member = segments.filter(|segment| {
            let mut nodes = nodes.iter();
            nodes.any(|node| segment.is_member(fleet, node))
        });
        let which: Vec<SegmentId> = where_member.map(|segment| segment.id()).collect();
        if which.is_empty() {
            return Ok(self.journal.commit(by, events, &[], self.output, now)?);
        }
        self.publish(by, &which, cause, Kind::Immediate, events, now)
    }

    /// Makes an event durable that no epoch has to follow.
    pub(crate) fn commit(
        &mut self,
        by: Option<By>,
        event: Event,
        now: Now,
    ) -> Result<(), Unwritten> {
        self.journal.commit(by, &[event], &[], self.output, now)
    }

    /// Does whatever is due in the segments. A failure is reported where it happens, and tried again.
    pub(crate) fn handle_timeout(&mut self, now: Now) {
        if now.boot < self.journal.retry_at() {
            return;
        }
        for id in self.segments.ids() {
            self.recover(id, now);
            self.rotate(id, now);
            self.join(id, now);
            self.revoke(id, now);
        }
    }

    /// Where an epoch that is in use cannot be pushed, another one takes its place at once: a node that lost
    /// its connection would have no peers until then.
    fn recover(&mut self, id: SegmentId, now: Now) {
        if !self.segments.get(id).is_whole() {
            let _ = self.publish(None, &[id], Cause::Recovery, Kind::Immediate, &[], now);
        }
    }

    /// The scheduled rotation.
    fn rotate(&mut self, id: SegmentId, now: Now) {
        let segment = self.segments.get(id);
        if !segment.is_due(now) {
            return;
        }
        // Right after a restart nodes have not had the time to send the evidence that this controller missed.
        // Judged now, all would be quarantined for its absence; so it waits, unless all have sent it already.
        let settled = segment.settles_at() <= now.boot;
        if !settled && !segment.all_pass(self.journal.fleet(), now) {
            return;
        }
        // While no evidence can be kept, nobody can prove anything: judging would empty the mesh for a disk
        // that is full. The epoch is renewed all the same, so that the leases of members do not end.
        let cause = if self.journal.log().is_short_of_room() {
            Cause::Unjudged
        } else {
            Cause::Scheduled
        };
        let _ = self.publish(None, &[id], cause, Kind::Scheduled, &[], now);
    }

    /// New nodes that pass become members without waiting for the scheduled rotation, and so do networks behind
    /// members.
    fn join(&mut self, id: SegmentId, now: Now) {
        let segment = self.segments.get_mut(id);
        let fleet = self.journal.fleet();
        if !segment.take_joins(now) {
            return;
        }
        let cause = match segment.anyone_joins(fleet, now) {
            true => Cause::Join,
            false if segment.has_other_routes(fleet) => Cause::Routes,
            false => return,
        };
        // A lead lets members shake hands under the new secret while the old one still carries their packets.
        // Where nobody has a session, nobody can lose a packet: no lead.
        let kind = if segment.is_empty(fleet) {
            Kind::Immediate
        } else {
            Kind::Join
        };
        let published = self.publish(None, &[id], cause, kind, &[], now);
        let segment = self.segments.get_mut(id);
        match published {
            // The scheduled update, if it is so near, judges new nodes too.
            Ok(()) => {
                let members = segment.standings(self.journal.fleet()).roster().len();
                segment.rest_joins(members, now);
            }
            Err(Unpublished::NotNow(NotNow::Soon)) => {}
            Err(Unpublished::NotNow(NotNow::Pending)) => segment.join_after_next(now),
            Err(Unpublished::Log(_) | Unpublished::Rule(_)) => {
                segment.join_at(self.journal.retry_at());
            }
        }
    }

    /// Under `revoke = "now"`: a member that fails is out at once, and not at the end of the epoch.
    fn revoke(&mut self, id: SegmentId, now: Now) {
        let segment = self.segments.get(id);
        if !segment.revokes_at_once() || now.boot < segment.settles_at() {
            return;
        }
        // Evidence turns stale while none can be kept. That is the disk's fault, not the nodes'.
        if self.journal.log().is_short_of_room() {
            return;
        }
        let fleet = self.journal.fleet();
        let segment = self.segments.get_mut(id);
        if !segment.judge_suspects(fleet, now) || !segment.take_deciding(fleet, now) {
            return;
        }
        let segment = self.segments.get(id);
        let ballot = decide(fleet, id, segment.policy(), Cause::Revocation, now);
        let mut roster = segment.standings(fleet).roster().iter();
        if roster.any(|name| !ballot.roster.contains(name)) {
            // A revocation that fails for want of room on the disk is tried again.
            if self
                .publish(None, &[id], Cause::Revocation, Kind::Immediate, &[], now)
                .is_ok()
            {
                self.segments.get_mut(id).decided();
            }
            return;
        }
        self.segments.get_mut(id).decided();
        let segment = self.segments.get(id);
        if ballot.held != *segment.held() {
            // All that fail are held by the sanity floor: no epoch would change anything, but an operator has
            // to hear of it, because nothing else removes them.
            report::held(&ballot.held, segment.held());
            self.segments.get_mut(id).hold(ballot.held);
            self.output.touch();
        }
    }
}

impl From<&Result<(), Unpublished>> for UpdateResult {
    fn from(result: &Result<(), Unpublished>) -> Self {
        match result {
            Ok(()) => Self::Published,
            Err(Unpublished::NotNow(_)) => Self::NotNow,
            Err(Unpublished::Rule(_)) => Self::Invalid,
            Err(Unpublished::Log(_)) => Self::Unwritten,
        }
    }
}
