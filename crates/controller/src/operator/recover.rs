//! Going on from an old copy of the log, as one order: nodes are told that what came after the copy is gone, the
//! epoch's number jumps beyond those that they have seen, tokens that were open in the copy are revoked, and those
//! whom the operator names are evicted. All of it becomes durable together, or nothing.

use super::{Operator, unknown, unpublished, unsigned};
use crate::clock::Now;
use crate::decide::Cause;
use crate::event::Event;
use crate::request::Answer;
use ::admin::Refused;
use epoch::authority::Kind;
use keys::Epoch;
use wire::NodeName;
use wire::Signed;
use wire::admin::{RecoverRequest, Recovered};
use wire::log::LogRestored;

impl Operator<'_> {
    /// Goes on from an old copy.
    pub(super) fn recover(&mut self, form: &RecoverRequest, now: Now) -> Result<Answer, Refused> {
        let seen = self.newest_seen(form)?;
        let journal = &*self.rotation.journal;
        let fleet = journal.fleet();
        let (mut revoked, mut evicted, mut events) = (Vec::new(), Vec::new(), Vec::new());
        for name in &form.evict {
            let node = fleet.node(name).ok_or_else(|| unknown(name))?;
            if !node.evicted() && !evicted.contains(name) {
                evicted.push(name.clone());
            }
        }
        let copy = journal.log().end();
        let restored = LogRestored {
            mesh: self.rotation.mesh.id,
            copy,
            unix_ms: now.unix_ms(),
        };
        let signed = Signed::sign(&restored, &self.rotation.mesh.authority);
        let signed = signed.map_err(|error| unsigned(&error))?;
        events.push(Event::LogRestored { copy, seen, signed });
        // A token that is open in the copy may have been used since, and would admit somebody again.
        for (id, record) in fleet.tokens() {
            if record.is_open(now) {
                revoked.push(id.clone());
                events.push(Event::TokenRevoked { id: id.clone() });
            }
        }
        events.extend(evicted.iter().map(|name| Event::NodeEvicted {
            name: name.clone(),
            reason: Some(EVICTED_AGAIN.to_owned()),
        }));
        let (which, cause) = (self.rotation.segments.ids(), Cause::Recovery);
        let which: Vec<_> = which.into_iter().collect();
        let published =
            self.rotation
                .publish(self.by, &which, cause, Kind::Immediate, &events, now);
        published.map_err(|error| unpublished(&error))?;
        tracing::warn!(
            copy = copy.events,
            seen = seen.0,
            "the controller goes on from an old copy of its log, by the word of an operator"
        );
        Ok(Answer::Recovered(Recovered {
            copy_events: copy.events,
            seen: seen.0,
            change: self.change(now),
            revoked,
            evicted,
            absent: self.absent(),
        }))
    }

    /// The newest epoch that nodes have seen, by proof or by the operator's word.
    fn newest_seen(&self, form: &RecoverRequest) -> Result<Epoch, Refused> {
        let proved = self.rotation.journal.contradiction().map(|it| it.epoch);
        let seen = proved.max(form.seen.map(Epoch)).ok_or_else(|| {
            let hint = "wait until the nodes have connected, or, if you know better, name the newest epoch that \
                        one has seen with --seen: the node's status and log have it";
            let error = "no node has proved that this log is an old copy";
            Refused::new(409, error, hint)
        })?;
        let segments = self.rotation.segments.iter();
        let newest = segments.filter_map(|it| it.newest()).map(|it| it.epoch.0);
        let newest = newest.max().unwrap_or_default();
        if seen.0 > newest.saturating_add(MAX_JUMP) {
            let error =
                format!("epoch {seen} is more than {MAX_JUMP} beyond {newest}, the newest here");
            return Err(Refused::new(400, error, "is that the number of an epoch?"));
        }
        Ok(seen)
    }

    pub(super) fn absent(&self) -> Vec<NodeName> {
        let connections = self.rotation.connections;
        let is_absent = |name: &&NodeName| {
            let live = connections.live(name);
            live.is_none_or(|live| live.connection.is_none())
        };
        let nodes = self.fleet().nodes().keys();
        nodes.filter(is_absent).cloned().collect()
    }
}

/// In the log, where the operator's own words are lost.
const EVICTED_AGAIN: &str = "evicted again after an old copy was restored";
/// Epochs by which an operator may be ahead: three years of epochs of a second.
const MAX_JUMP: u64 = 100_000_000;
