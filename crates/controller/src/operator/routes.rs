//! An operator's word on the networks behind nodes. Refuses two of which an address could be in both, wherever they
//! are: a node that is in two segments has one table of routes.

use super::{Operator, unknown, unpublished};
use crate::clock::Now;
use crate::decide::Cause;
use crate::event::Event;
use crate::fleet::Node;
use crate::membership::named;
use crate::request::Answer;
use ::admin::Refused;
use epoch::authority::Kind;
use keys::SegmentId;
use wire::admin::{RouteRequest, RouteStatus};
use wire::prefix::{MAX_NODE_ROUTES, MAX_ROUTES};
use wire::{NodeName, Prefix};

impl Operator<'_> {
    /// Every network that a node offers or that is approved, by node and segment.
    pub(super) fn routes(&self) -> Vec<RouteStatus> {
        let nodes = self.fleet().nodes().iter();
        let each = nodes.flat_map(|(name, node)| {
            let segments = node.keys().iter().map(|key| key.segment);
            let each = segments.flat_map(move |id| {
                let all = node.routes(id).all();
                all.map(move |prefix| (id, prefix))
            });
            each.map(move |(id, prefix)| self.route(name, node, id, prefix))
        });
        each.collect()
    }

    /// Approves a network behind a node, which may offer it later.
    pub(super) fn approve_route(
        &mut self,
        name: &NodeName,
        form: &RouteRequest,
        now: Now,
    ) -> Result<Answer, Refused> {
        let (id, prefix) = self.route_of(name, form)?;
        self.check_free(name, id, prefix)?;
        let event = Event::RouteApproved {
            name: name.clone(),
            segment: id,
            prefix,
        };
        self.commit(event, now)?;
        tracing::info!(node = %name, %prefix, "route approved");
        self.rotation.want_routes(id, now);
        self.answer_route(name, id, prefix)
    }

    /// Ends an approval, with an epoch at once that does not have the network behind the node.
    pub(super) fn withdraw_route(
        &mut self,
        name: &NodeName,
        form: &RouteRequest,
        now: Now,
    ) -> Result<Answer, Refused> {
        let (id, prefix) = self.route_of(name, form)?;
        let node = self.fleet().node(name).ok_or_else(|| unknown(name))?;
        if !node.routes(id).approved.contains(&prefix) {
            let error = format!("{prefix} behind {name} is not approved");
            let hint = "`meshctl route list` shows those that are";
            return Err(Refused::new(409, error, hint));
        }
        let event = Event::RouteWithdrawn {
            name: name.clone(),
            segment: id,
            prefix,
        };
        let (node, segment) = (node.id, self.rotation.segments.get(id));
        let is_told = segment.is_member(self.fleet(), &node)
            && node_routes(segment, &node).any(|it| *it == prefix);
        let done = if is_told {
            let (by, cause) = (self.by, Cause::Routes);
            self.rotation
                .publish(by, &[id], cause, Kind::Immediate, &[event], now)
        } else {
            self.rotation
                .commit(self.by, event, now)
                .map_err(Into::into)
        };
        done.map_err(|error| unpublished(&error))?;
        tracing::info!(node = %name, %prefix, "route withdrawn");
        self.answer_route(name, id, prefix)
    }

    /// The segment and the network that an operator speaks of.
    fn route_of(
        &self,
        name: &NodeName,
        form: &RouteRequest,
    ) -> Result<(SegmentId, Prefix), Refused> {
        let node = self.fleet().node(name).ok_or_else(|| unknown(name))?;
        let segments = &self.rotation.segments;
        let of_node = || {
            let names: Vec<_> = segments.of(node).map(|it| it.name().as_str()).collect();
            names.join(", ")
        };
        let id = match (&form.segment, node.keys()) {
            (Some(segment), _) => named(segments, segment)?.id(),
            (None, [only]) => only.segment,
            (None, _) => {
                let error = format!("{name} is in more than one segment, or in none");
                let hint = format!("name one of {} with --segment", of_node());
                return Err(Refused::new(409, error, hint));
            }
        };
        if !node.is_in(id) || segments.find(id).is_none() {
            let error = format!("{name} is not in that segment");
            return Err(Refused::new(409, error, format!("it is in {}", of_node())));
        }
        Ok((id, form.prefix))
    }

    /// Whether an approval leaves every address behind one node at most.
    fn check_free(&self, name: &NodeName, id: SegmentId, prefix: Prefix) -> Result<(), Refused> {
        let mut segments = self.rotation.segments.iter();
        if let Some(segment) = segments.find(|it| it.network().is_met_by(&prefix)) {
            let error = format!(
                "{prefix} overlaps the range of segment {}: {} {}",
                segment.name(),
                segment.network().range_v4(),
                segment.network().range_v6()
            );
            let hint = "addresses of the mesh are never behind a node: approve another prefix";
            return Err(Refused::new(409, error, hint));
        }
        let (mut of_segment, mut of_node) = (0, 0);
        for (other, node) in self.fleet().nodes() {
            for key in node.keys() {
                let approved = &node.routes(key.segment).approved;
                of_segment += if key.segment == id { approved.len() } else { 0 };
                of_node += if key.segment == id && other == name {
                    approved.len()
                } else {
                    0
                };
                if let Some(taken) = approved.iter().find(|it| it.overlaps(&prefix)) {
                    let error = format!("{prefix} overlaps {taken}, which is behind {other}");
                    let hint = format!("`meshctl route withdraw {other} {taken}` frees it");
                    return Err(Refused::new(409, error, hint));
                }
            }
        }
        if of_node >= MAX_NODE_ROUTES || of_segment >= MAX_ROUTES {
            let error =
                format!("a node has at most {MAX_NODE_ROUTES} routes, and a segment {MAX_ROUTES}");
            let hint = "withdraw one that is not needed, or approve a shorter prefix in its place";
            return Err(Refused::new(409, error, hint));
        }
        Ok(())
    }

    fn answer_route(
        &self,
        name: &NodeName,
        id: SegmentId,
        prefix: Prefix,
    ) -> Result<Answer, Refused> {
        let node = self.fleet().node(name).ok_or_else(|| unknown(name))?;
        Ok(Answer::Route(self.route(name, node, id, prefix)))
    }

    fn route(&self, name: &NodeName, node: &Node, id: SegmentId, prefix: Prefix) -> RouteStatus {
        let routes = node.routes(id);
        let segment = self.rotation.segments.find(id);
        let in_force = segment
            .and_then(|it| it.issue(it.current()))
            .is_some_and(|issue| issue.update.routes_of(&node.id).contains(&prefix));
        RouteStatus {
            node: name.clone(),
            segment: segment.map(|it| it.name().clone()).unwrap_or_default(),
            prefix,
            advertised: routes.advertised.contains(&prefix),
            approved: routes.approved.contains(&prefix),
            in_force,
        }
    }
}

/// The networks behind a node, by any epoch that is in use or on its way.
fn node_routes<'s>(
    segment: &'s crate::segment::Segment,
    node: &'s keys::NodeId,
) -> impl Iterator<Item = &'s Prefix> {
    let issues = segment.issues_since(segment.current());
    issues.flat_map(|issue| issue.update.routes_of(node))
}
