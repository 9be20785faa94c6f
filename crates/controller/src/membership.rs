//! Which segments a node is in: what it asks for in a session, and what operators say. Enrolment, which gives a node
//! its first places, is elsewhere (`enrol`). Refuses to judge: whether a node of a segment is a member of its epochs is
//! the policy's affair.

use crate::by::By;
use crate::clock::Now;
use crate::decide::Cause;
use crate::event::{Event, KeyIn};
use crate::fleet::{Fleet, Node};
use crate::rotate::Rotation;
use crate::segment::{Segment, Unpublished};
use crate::segments::Segments;
use keys::SegmentId;
use wire::segment::{Ask, Unplaced};
use wire::{NodeName, SegmentName};

/// The outcome of a node's request for one more segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joined {
    /// It was in it with this key: the answer was lost.
    Known(SegmentId),
    /// It is new there.
    New(SegmentId),
    /// It has another key there than before.
    Rekeyed(SegmentId),
}

impl Joined {
    pub(crate) fn segment(self) -> SegmentId {
        match self {
            Self::Known(id) | Self::New(id) | Self::Rekeyed(id) => id,
        }
    }
}

/// Whether a node may have a place with this key in a segment.
fn allowed(
    segments: &Segments,
    fleet: &Fleet,
    (name, node): (&NodeName, &Node),
    ask: &Ask,
) -> Result<Joined, Unplaced> {
    let named = ask.name.as_ref().and_then(|it| segments.named(it));
    let id = named.map(Segment::id).ok_or(Unplaced::Unknown)?;
    let before = node.wg(id);
    if before == Some(ask.wg) {
        return Ok(Joined::Known(id));
    }
    if !node.may_ask_for(id) {
        return Err(Unplaced::NotAllowed);
    }
    if !ask.wg.is_sound() {
        return Err(Unplaced::WeakKey);
    }
    // With a key of another segment, whoever holds that segment's state would be a peer in this one.
    if fleet.owner_of(&ask.wg).is_some() || fleet.waits_with(&ask.wg) {
        return Err(Unplaced::KeyTaken);
    }
    if fleet.is_banned(&node.id, &[ask.wg]) {
        tracing::info!(node = %name, "asks for a segment with a banned key");
        return Err(Unplaced::KeyTaken);
    }
    Ok(match before {
        None => Joined::New(id),
        Some(_) => Joined::Rekeyed(id),
    })
}

impl Rotation<'_> {
    /// A node asks for a place in one more segment, or with another key.
    pub(crate) fn join_segment(
        &mut self,
        name: &NodeName,
        ask: &Ask,
        now: Now,
    ) -> Result<Joined, Unplaced> {
        let fleet = self.journal.fleet();
        let node = fleet.node(name).ok_or(Unplaced::NotAllowed)?;
        let joined = allowed(self.segments, fleet, (name, node), ask)?;
        let id = joined.segment();
        let segment = self.segments.get(id);
        let event = |probation| Event::NodeJoinedSegment {
            name: name.clone(),
            key: KeyIn {
                segment: id,
                wg: ask.wg,
            },
            probation,
        };
        match joined {
            Joined::Known(_) => {}
            Joined::New(_) => {
                let event = event(Some(segment.policy().probation_epochs));
                self.commit(None, event, now).map_err(|_| Unplaced::Busy)?;
                tracing::info!(node = %name, segment = %self.segments.get(id).name(), "node joined a segment");
                let fleet = self.journal.fleet();
                self.segments.want_join_of(fleet, name, now);
            }
            Joined::Rekeyed(_) => {
                // The old key may be in the wrong hands: it is out at once.
                let done = self.shut_out_of(None, name, id, Cause::Rekey, event(None), now);
                done.map_err(|_| Unplaced::Busy)?;
                tracing::info!(node = %name, segment = %self.segments.get(id).name(), "node has another key");
            }
        }
        Ok(joined)
    }

    /// Makes an event durable that shuts a node out of one segment, with an epoch of it at once if the node is a
    /// member there.
    pub(crate) fn shut_out_of(
        &mut self,
        by: Option<By>,
        name: &NodeName,
        id: SegmentId,
        cause: Cause,
        event: Event,
        now: Now,
    ) -> Result<(), Unpublished> {
        let fleet = self.journal.fleet();
        let node = fleet.node(name).map(|node| node.id);
        let segment = self.segments.get(id);
        if !node.is_some_and(|node| segment.is_member(fleet, &node)) {
            return Ok(self.commit(by, event, now)?);
        }
        let kind = epoch::authority::Kind::Immediate;
        self.publish(by, &[id], cause, kind, &[event], now)
    }
}

/// The segment of this name, for an operator.
pub(crate) fn named<'s>(
    segments: &'s Segments,
    name: &SegmentName,
) -> Result<&'s Segment, ::admin::Refused> {
    segments.named(name).ok_or_else(|| {
        let all: Vec<&str> = segments.iter().map(|it| it.name().as_str()).collect();
        let hint = format!("the mesh has {}", all.join(", "));
        ::admin::Refused::new(404, format!("no segment {name}"), hint)
    })
}
