//! The conditions that an operator has to look at, in sentences that name the way out. Alarms are about the controller
//! itself; what needs attention besides is about its nodes.

use crate::clock::Now;
use crate::connections::Live;
use crate::fleet::Case;
use crate::segment::Segment;
use crate::view::{View, control};
use epoch::authority::Span;
use keys::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::time::Duration;
use wire::NodeName;
use wire::admin::{Control, NodeStatus, SKEWED_MS};
use wire::message::Phase;
use wire::visible::few;

impl<'e> View<'e> {
    /// Conditions that an operator has to look at, with the way out.
    pub(crate) fn alarms(&self, now: Now) -> Vec<String> {
        let log = self.journal.log();
        let history = self.journal.contradiction().map(|it| {
            let (node, epoch) = (&it.node, it.epoch);
            format!(
                "{node} holds epoch {epoch} of this authority, signed on another log than this one: the \
                 log is an old copy, or was cut, and evictions may be missing from it; once all \
                 nodes that can be reached are connected, `meshctl controller recover` goes on from it"
            )
        });
        let writes = self.journal.is_writable();
        let room = (writes && log.is_short_of_room()).then(|| {
            "the disk is full: evidence is refused, and nobody is judged; evictions and epochs go on in \
             the room that was held for them; free some space"
                .to_owned()
        });
        let none = log.holds_no_room().then(|| {
            "no room could be held on the disk: when it is full, evictions and epochs stop; free some \
             space"
                .to_owned()
        });
        let written = (!writes).then(|| {
            "the event log cannot be written: what is in force stays until leases end, and everything else is refused; \
             free some space on the disk of the state directory, or see in the controller's log what it says"
                .to_owned()
        });
        let policy = self.unread_policy.map(|error| {
            format!(
                "what was read at the last SIGHUP was not taken, and the policy before stays in force: {error}; mend \
                 the file, and send SIGHUP again (`systemctl reload`)"
            )
        });
        let (step, void) = (self.step(now), self.void(now));
        let page = self.page.and_then(|page| page.status().fault);
        let alarms = [history, room, none, written, policy, step, void, page];
        let alarms = alarms.into_iter().flatten();
        alarms.chain(self.duplicates(now)).collect()
    }

    /// Nodes whose keys two machines run with. One that cannot be told from the other could take its place.
    fn duplicates(&self, now: Now) -> impl Iterator<Item = String> + use<'e> {
        let nodes = self.fleet().nodes().keys();
        let connections = self.connections;
        nodes.filter_map(move |name| {
            let sighting = connections.live(name)?.sighting(now)?;
            Some(format!("{name}: {}", sighting.duplicate))
        })
    }

    /// The wall clock was set lately.
    fn step(&self, now: Now) -> Option<String> {
        let step = self.journal.step(now)?;
        let (by, ago) = (step.by.unsigned_abs(), now.boot.saturating_sub(step.seen));
        let (by, ago) = (by.as_secs(), ago.as_secs());
        Some(if step.by.is_negative() {
            format!("the controller's wall clock was set back by {by} s, {ago} s ago")
        } else {
            format!(
                "the controller's wall clock was set forward by {by} s, {ago} s ago, or its machine stood \
                 still: evidence and tokens are older by as much"
            )
        })
    }

    /// Nodes whose evidence is void.
    fn void(&self, now: Now) -> Option<String> {
        let cases = self.segments.iter().flat_map(|segment| {
            let policy = segment.policy();
            let is_void = |case: &Case<'_>| policy::is_void(policy, &case.record(now), now.wall);
            let cases = self.fleet().cases(segment.id());
            cases.filter(move |(_, case)| is_void(case))
        });
        let names: BTreeSet<&str> = cases.map(|(name, _)| name.as_str()).collect();
        let shown = listed(names)?;
        Some(format!(
            "void until they run their benchmark again, because the controller's clock was set back to before their \
             last run: the evidence of {shown}; `meshctl explain` shows the times"
        ))
    }

    /// All that is not well with nodes and epochs. Each kind is one sentence, however many nodes it is about.
    pub(crate) fn attention(
        &self,
        nodes: &BTreeMap<NodeName, NodeStatus>,
        now: Now,
    ) -> Vec<String> {
        let of_segments = self.segments.iter().flat_map(|segment| {
            let [gone, lost] = self.gone(segment, now);
            let all = [
                self.overdue(segment, now),
                self.nobody(segment),
                self.behind(segment, now),
                gone,
                lost,
                self.dark(segment, now),
                self.held_back(segment),
            ];
            all.into_iter().flatten()
        });
        let of_nodes = [
            self.aging(now),
            self.skewed(),
            self.other_versions(),
            self.unapproved(),
        ];
        let all = of_segments.chain(of_nodes.into_iter().flatten());
        all.chain(reported(nodes)).collect()
    }

    /// The epoch in force should have ended.
    fn overdue(&self, segment: &Segment, now: Now) -> Option<String> {
        let late = now.boot.checked_sub(segment.in_force()?.ends)?;
        (late >= OVERDUE).then(|| {
            format!(
                "epoch {}{} should have ended {} s ago and is still in force: `meshctl events` and the controller's \
                 log say why none follows",
                segment.current().0,
                place(segment),
                late.as_secs()
            )
        })
    }

    /// Nodes are enrolled, and none is a member.
    fn nobody(&self, segment: &Segment) -> Option<String> {
        let mut nodes = self.fleet().cases(segment.id());
        let (first, case) = nodes.next()?;
        let mut ids = std::iter::once(case.node.id).chain(nodes.map(|(_, case)| case.node.id));
        let is_anyone = ids.any(|id| segment.has_in_force(&id));
        (!is_anyone).then(|| {
            format!(
                "nobody is a member{}: `meshctl explain {first}` says what a node lacks",
                place(segment)
            )
        })
    }

    /// Members that are connected and have not said that the epoch in force is in force there.
    pub(crate) fn members_behind(
        &self,
        segment: &Segment,
        now: Now,
    ) -> impl Iterator<Item = &'e NodeName> {
        let current = segment.current();
        let begun = segment.in_force().map(|it: &Span| it.activates);
        let had_time = begun.is_some_and(|at| now.boot.saturating_sub(at) >= TIME_TO_FOLLOW);
        let members = self.members(segment).filter(move |_| had_time);
        members.filter_map(move |(name, live)| {
            let live = live?;
            let acked = live.acked.get(&segment.id());
            let follows = acked == Some(&(current, Phase::Activated));
            let is_there = control(Some(live), now) == Control::Connected;
            // One that has just come is still being told.
            let since = live.since.map(|at| now.boot.saturating_sub(at));
            let had_time = since.is_some_and(|it| it >= TIME_TO_FOLLOW);
            (is_there && had_time && !follows).then_some(name)
        })
    }

    fn behind(&self, segment: &Segment, now: Now) -> Option<String> {
        let shown = listed(self.members_behind(segment, now))?;
        Some(format!(
            "connected members without epoch {}{}: {shown}; `meshctl status` on them says why they do not take it",
            segment.current().0,
            place(segment)
        ))
    }

    /// Nodes that are not connected. Members go on until their leases end. Others that have ever proved themselves are not
    /// forgotten with that: nothing is mended by it, until an operator says that they are not to come back.
    fn gone(&self, segment: &Segment, now: Now) -> [Option<String>; 2] {
        let is_gone = |live: Option<&Live>| {
            let last = live.and_then(|live| live.heard.or(live.since));
            let missing = last.map(|at| now.boot.saturating_sub(at));
            // After a restart of this controller all of them are on their way.
            let is_late = missing.map_or(now.boot >= segment.settles_at(), |it| it >= GONE_AFTER);
            is_late && control(live, now) == Control::Disconnected
        };
        let gone = self.members(segment).filter(|(_, live)| is_gone(*live));
        let members = listed(gone.map(|(name, _)| name)).map(|shown| {
            format!(
                "members{} that are not connected: {shown}; they hear of no epoch: start them, or look for what is \
                 between them and this controller",
                place(segment)
            )
        });
        let others = self.fleet().cases(segment.id());
        let others = others.filter(|(_, case)| {
            let was_there = case.node.newest_run().is_some();
            was_there && !case.node.evicted() && !segment.has_in_force(&case.node.id)
        });
        let gone = others.filter(|(name, _)| is_gone(self.connections.live(name)));
        let others = listed(gone.map(|(name, _)| name)).map(|shown| {
            format!(
                "nodes that are not connected, and no members{} any more: {shown}; start them, or say with `meshctl \
                 node evict` or `meshctl node remove` that they are not to come back",
                place(segment)
            )
        });
        [members, others]
    }

    /// Pairs of connected members that have no tunnel, by the word of either; the name that comes first, first.
    pub(crate) fn dark_pairs(
        &self,
        segment: &Segment,
        now: Now,
    ) -> BTreeSet<(&'e NodeName, &'e NodeName)> {
        let is_there = |live: Option<&Live>| control(live, now) == Control::Connected;
        let members: BTreeMap<&NodeName, Option<&Live>> = self.members(segment).collect();
        let connected = members.iter().filter(|(_, live)| is_there(**live));
        let pairs = connected.flat_map(|(name, live)| {
            let report = live.and_then(|live| live.reports.get(&segment.id()));
            let seen = report.into_iter().flat_map(|report| &report.observes);
            let dark = seen.filter(|(_, it)| {
                let lasts = it.dark_since.map(|since| it.at.saturating_sub(since));
                lasts.is_some_and(|it| it >= DARK_FOR) && it.counts(now.boot)
            });
            dark.map(move |(peer, _)| (*name, peer))
        });
        let should = |(name, peer): &(&NodeName, &NodeName)| {
            let live = members.get(peer).copied();
            live.is_some_and(is_there) && self.connects(segment, (name, peer))
        };
        let pairs = pairs.filter(should);
        pairs
            .map(|(name, peer)| (name.min(peer), name.max(peer)))
            .collect()
    }

    fn dark(&self, segment: &Segment, now: Now) -> Option<String> {
        let pairs = self.dark_pairs(segment, now);
        let shown = listed(
            pairs
                .iter()
                .map(|(one, other)| format!("{one} and {other}")),
        )?;
        Some(format!(
            "members{} between which no echo passes: {shown}; `meshctl doctor` on either says what is in the way",
            place(segment)
        ))
    }

    /// Whether two nodes have a tunnel by the epoch in force.
    fn connects(&self, segment: &Segment, (one, other): (&NodeName, &NodeName)) -> bool {
        let id = |name| self.fleet().node(name).map(|node| node.id);
        let (Some(one), Some(other)) = (id(one), id(other)) else {
            return false;
        };
        segment.connects_in_force(&one, &other)
    }

    fn held_back(&self, segment: &Segment) -> Option<String> {
        let shown = listed(segment.held())?;
        Some(format!(
            "still members{} though they fail, because so many at once are not removed by themselves: {shown}; \
             `meshctl epoch rotate --confirm-removals` removes them",
            place(segment)
        ))
    }

    /// Members whose evidence is about to be too old.
    fn aging(&self, now: Now) -> Option<String> {
        let of_segment = |segment: &'e Segment| {
            let policy = segment.policy();
            let cases = self.fleet().cases(segment.id());
            cases.filter_map(move |(name, case)| {
                let record = case.record(now);
                let is_aging =
                    record.ruling.is_none() && policy::is_aging(policy, &record, now.wall);
                (is_aging && segment.has_in_force(&case.node.id)).then_some(name)
            })
        };
        let names: BTreeSet<_> = self.segments.iter().flat_map(of_segment).collect();
        let shown = listed(names)?;
        Some(format!(
            "members whose evidence is about to be too old: {shown}; see that their benchmarks run"
        ))
    }

    /// Nodes whose clocks are so far off that evidence will be refused, or look old.
    fn skewed(&self) -> Option<String> {
        let names = self.fleet().nodes().keys();
        let skewed = names.filter_map(|name| {
            let live = self.connections.live(name)?;
            live.connection?;
            let skew = live.clock_skew_ms?.unsigned_abs();
            (skew >= SKEWED_MS).then(|| format!("{name} by {} s", skew / 1_000))
        });
        let shown = listed(skewed)?;
        Some(format!(
            "clocks that differ from this controller's: {shown}; keep all of them by NTP"
        ))
    }

    /// Nodes of another version.
    fn other_versions(&self) -> Option<String> {
        let own = env!("CARGO_PKG_VERSION");
        let names = self.fleet().nodes().keys();
        let others = names.filter_map(|name| {
            let live = self.connections.live(name)?;
            live.connection?;
            let theirs = live.software.as_deref().filter(|it| *it != own)?;
            Some(format!("{name} {theirs}"))
        });
        let shown = listed(others)?;
        Some(format!(
            "nodes of another version than this controller's {own}: {shown}; two versions that follow each other work \
             together, for the time of an upgrade"
        ))
    }

    fn unapproved(&self) -> Option<String> {
        let shown = listed(self.fleet().waiting().keys())?;
        Some(format!(
            "waiting for approval: {shown}; compare their keys in `meshctl status`, then `meshctl node approve`"
        ))
    }

    /// The members of the epoch in force, with what is known of their connections.
    fn members(&self, segment: &Segment) -> impl Iterator<Item = (&'e NodeName, Option<&'e Live>)> {
        let connections = self.connections;
        let cases = self.fleet().cases(segment.id());
        let is_member = |id: &NodeId| segment.has_in_force(id);
        let members = cases.filter(move |(_, case)| is_member(&case.node.id));
        members.map(move |(name, _)| (name, connections.live(name)))
    }
}

/// The words of connected nodes of themselves, and of the ways to their peers. No node takes more than its share of
/// the lines.
fn reported(nodes: &BTreeMap<NodeName, NodeStatus>) -> Vec<String> {
    let connected = nodes
        .iter()
        .filter(|(_, node)| node.control == Control::Connected);
    let (mut shown, mut more) = (Vec::new(), 0);
    for (name, node) in connected {
        let own = node.faults.iter().map(|it| format!("{name}: {it}"));
        let pairs = node.observes.iter().flat_map(|(peer, seen)| {
            let each = seen.faults.iter();
            each.map(move |it| format!("{name} to {peer}: {it}"))
        });
        let elsewhere = node.segments.iter().flat_map(|(segment, it)| {
            let each = it.observes.iter();
            let each = each.flat_map(|(peer, seen)| seen.faults.iter().map(move |it| (peer, it)));
            each.map(move |(peer, it)| format!("{name} to {peer} in {segment}: {it}"))
        });
        let mut said = own.chain(pairs).chain(elsewhere);
        let room = (MAX_REPORTED - shown.len()).min(MAX_OF_A_NODE);
        shown.extend(said.by_ref().take(room));
        more += said.count();
    }
    if more > 0 {
        shown.push(format!(
            "and {more} more faults that nodes report: `meshctl node show`"
        ));
    }
    shown
}

/// ` in NAME`, where the mesh has more than one segment.
fn place(segment: &Segment) -> String {
    match segment.name().told() {
        Some(name) => format!(" in {name}"),
        None => String::new(),
    }
}

/// The first few of them; `None` if there are none.
fn listed(names: impl IntoIterator<Item = impl Display>) -> Option<String> {
    few(names, MAX_NAMED)
}

/// Nodes that a sentence names.
const MAX_NAMED: usize = 5;
/// Faults that nodes report, of which each has a sentence of its own.
const MAX_REPORTED: usize = 10;
/// Of these, how many may be of one node.
const MAX_OF_A_NODE: usize = 2;
/// From the last word of a member until it counts as gone: one that is started anew is back before.
const GONE_AFTER: Duration = Duration::from_secs(20);
/// From the first word of a member that another does not answer to a later one that says the same: an echo may be lost.
const DARK_FOR: Duration = Duration::from_secs(5);
/// After the end of an epoch; it is replaced some seconds before.
const OVERDUE: Duration = Duration::from_secs(5);
/// From the beginning of an epoch, or of a connection, until a member should have said that it follows.
const TIME_TO_FOLLOW: Duration = Duration::from_secs(15);
