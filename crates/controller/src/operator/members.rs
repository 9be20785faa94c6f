//! An operator's word on who belongs to the mesh at all: approval, rejection, removal for good, and its end.

use super::{Operator, check_reason, unknown, unpublished};
use crate::clock::Now;
use crate::decide::Cause;
use crate::enrol::{Admission, Newcomer};
use crate::event::Event;
use crate::fleet::Banned;
use crate::format::utc;
use crate::membership::named;
use crate::request::Answer;
use crate::rotate::Rotation;
use ::admin::Refused;
use keys::NodeId;
use wire::admin::{BannedKey, EvictRequest};
use wire::message::Refusal;
use wire::{NodeName, SegmentName, ToNode};

impl Operator<'_> {
    /// Gives a node that waits its place. Its connection hears of it from the engine.
    pub(super) fn approve(&mut self, name: &NodeName, now: Now) -> Result<Answer, Refused> {
        let fleet = self.fleet();
        let waiting = fleet.waiting().get(name).cloned();
        let waiting = waiting.ok_or_else(|| nobody_waits(name))?;
        let Rotation { segments, .. } = &self.rotation;
        let admission = match fleet.node(name) {
            // Another node has had the name, and the token was for it: its keys are replaced.
            Some(node) => Ok(Admission::Rekeyed {
                name: name.clone(),
                old: node.id,
                new: waiting.node,
                event: Event::NodeRekeyed {
                    name: name.clone(),
                    node: waiting.node,
                    keys: waiting.keys.clone(),
                    token: waiting.token,
                },
            }),
            None => {
                let newcomer = Newcomer {
                    name: name.clone(),
                    node: waiting.node,
                    keys: waiting.keys,
                    token: waiting.token,
                };
                newcomer.create(fleet, segments)
            }
        };
        let done = admission.and_then(|it| it.carry_out(&mut self.rotation, self.by, now));
        done.map_err(|refusal| match refusal {
            Refusal::MeshFull => Refused::new(
                409,
                "the mesh has no free address",
                "remove a node, or enlarge the range",
            ),
            _ => Refused::new(
                503,
                "the event log cannot be written, or an epoch not be published now",
                "nothing has changed: look at the controller's log, then try again",
            ),
        })?;
        tracing::info!(node = %name, "node approved");
        self.node(name, now)
    }

    /// Sends a node away that waits. Its token stays used.
    pub(super) fn reject(
        &mut self,
        name: &NodeName,
        form: EvictRequest,
        now: Now,
    ) -> Result<Answer, Refused> {
        check_reason(&form)?;
        let waiting = self.fleet().waiting().get(name);
        let waiting = waiting.ok_or_else(|| nobody_waits(name))?;
        let status = self.view().waiting_status(name, waiting);
        let event = Event::NodeRejected {
            name: name.clone(),
            node: waiting.node,
            reason: form.reason,
        };
        self.commit(event, now)?;
        tracing::info!(node = %name, "node rejected");
        Ok(Answer::Waiting(status))
    }

    /// Removes a node for good: like an eviction, with an epoch that does not have it; its name and its address
    /// are free, and its keys are not enrolled again.
    pub(super) fn remove(
        &mut self,
        name: NodeName,
        form: EvictRequest,
        now: Now,
    ) -> Result<Answer, Refused> {
        check_reason(&form)?;
        let fleet = self.fleet();
        let node = fleet.node(&name).ok_or_else(|| {
            if fleet.waiting().contains_key(&name) {
                let hint = format!("`meshctl node reject {name}` sends it away");
                Refused::new(
                    409,
                    format!("{name} waits for approval, and has no place"),
                    hint,
                )
            } else {
                unknown(&name)
            }
        })?;
        let id = node.id;
        let event = Event::NodeRemoved {
            name: name.clone(),
            node: id,
            keys: node.keys().to_vec(),
            reason: form.reason,
        };
        let done = self
            .rotation
            .shut_out(self.by, &[id], Cause::Removal, &[event], now);
        done.map_err(|error| unpublished(&error))?;
        tracing::info!(node = %name, key = id.short(), "node removed for good");
        Ok(Answer::Change(self.change(now)))
    }

    /// Lets a node into a segment. It has to make a key there, and asks with that.
    pub(super) fn let_into(
        &mut self,
        name: &NodeName,
        segment: &SegmentName,
        now: Now,
    ) -> Result<Answer, Refused> {
        let id = named(self.rotation.segments, segment)?.id();
        let node = self.fleet().node(name).ok_or_else(|| unknown(name))?;
        if node.is_in(id) {
            let hint = format!("`meshctl explain {name}` says why it is where it is");
            let error = format!("{name} is in {segment} already");
            return Err(Refused::new(409, error, hint));
        }
        if !node.invited().contains(&id) {
            let event = Event::NodeInvited {
                name: name.clone(),
                segment: id,
            };
            self.commit(event, now)?;
            tracing::info!(node = %name, %segment, "node let into a segment");
        }
        let name_of_segment = segment.clone();
        self.tell(
            name,
            ToNode::Invited {
                name: name_of_segment,
            },
        );
        self.node(name, now)
    }

    /// Takes a node out of a segment: like an eviction there, with an epoch at once that does not have it.
    pub(super) fn take_out(
        &mut self,
        name: &NodeName,
        segment: &SegmentName,
        form: EvictRequest,
        now: Now,
    ) -> Result<Answer, Refused> {
        check_reason(&form)?;
        let id = named(self.rotation.segments, segment)?.id();
        let node = self.fleet().node(name).ok_or_else(|| unknown(name))?;
        if !node.is_in(id) && !node.may_ask_for(id) {
            let hint = format!("`meshctl node show {name}` names those that it is in");
            let error = format!("{name} is not in {segment}");
            return Err(Refused::new(409, error, hint));
        }
        let event = Event::NodeLeftSegment {
            name: name.clone(),
            segment: id,
            reason: form.reason,
        };
        let (by, cause) = (self.by, Cause::Departure);
        let done = self.rotation.shut_out_of(by, name, id, cause, event, now);
        done.map_err(|error| unpublished(&error))?;
        tracing::info!(node = %name, %segment, "node taken out of a segment");
        self.tell(name, ToNode::Left { segment: id });
        let change = self.change_of(self.rotation.segments.get(id), now);
        Ok(Answer::Change(change))
    }

    fn tell(&mut self, name: &NodeName, message: ToNode) {
        let live = self.rotation.connections.live(name);
        if let Some(id) = live.and_then(|live| live.connection) {
            self.rotation.output.send(id, message);
        }
    }

    /// The keys that may not enrol.
    pub(super) fn banned(&self) -> Vec<BannedKey> {
        self.fleet().banned().iter().map(banned).collect()
    }

    /// Lets a banned key enrol again.
    pub(super) fn unban(&mut self, key: &NodeId, now: Now) -> Result<Answer, Refused> {
        let mut all = self.fleet().banned().iter();
        let found = all.find(|banned| banned.node == *key);
        let shown = found.map(banned).ok_or_else(|| {
            let hint = "`meshctl node banned` lists those that are";
            Refused::new(404, format!("{key} is not banned"), hint)
        })?;
        self.commit(Event::KeyUnbanned { node: *key }, now)?;
        Ok(Answer::Unbanned(shown))
    }
}

fn banned(banned: &Banned) -> BannedKey {
    BannedKey {
        node: banned.node.to_string(),
        wireguard: banned.keys.iter().map(|it| it.wg.to_base64()).collect(),
        name: banned.name.clone(),
        at_utc: utc(banned.at),
        by: banned.by.map(|by| by.to_string()),
        reason: banned.reason.clone(),
    }
}

fn nobody_waits(name: &NodeName) -> Refused {
    let hint = "`meshctl status` shows the nodes that wait for approval";
    Refused::new(
        404,
        format!("no node called {name} waits for approval"),
        hint,
    )
}
