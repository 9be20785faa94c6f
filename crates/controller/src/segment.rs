//! One segment of the mesh: its policy, the machine that times its epochs, the epochs that can be pushed, and
//! what it waits for. Decides, schedules and signs; refuses to write or to send: a `Draft` takes effect
//! with `Segment::adopt`, once it is durable. Durable decisions lie in the fold
//! ([`crate::fleet::Standings`]), under this segment's id.
//!
//! The file is long because every question about a segment, and every step that it takes, has its door here.

use crate::changed::Changed;
use crate::clock::Now;
use crate::decide::joins;
use crate::fleet::{Case, Fleet, Node, Standings};
use crate::mesh::Mesh;
use crate::network::Network;
use crate::places::Places;
use epoch::authority::{Authority, Span, Timer, Timing};
use keys::{Epoch, NodeId, SegmentId};
use policy::{Decision, Policy, Revoke, judge, stale_in};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;
use wire::{Changes, Digest, NodeName, Place, SegmentName, Signed};

mod bases;
mod draft;
mod issue;
mod resume;
mod watch;

use bases::Bases;
pub(crate) use draft::Draft;
pub use draft::Unpublished;
pub(crate) use issue::Issue;
use watch::Watch;

/// A segment.
#[derive(Debug)]
pub(crate) struct Segment {
    id: SegmentId,
    name: SegmentName,
    network: Network,
    policy: Policy,
    authority: Authority,
    /// The epoch in force and the one on its way, as far as they can be pushed.
    issues: BTreeMap<Epoch, Issue>,
    bases: Bases,
    places: Places,
    /// Members only because an operator has not confirmed their removal.
    held: BTreeSet<NodeName>,
    phase: Phase,
    joins: Joins,
    /// The next join has an epoch then at the earliest.
    joins_rest_until: Duration,
    /// The members that are to be judged between epochs, where that revokes.
    watch: Watch,
    /// Until then it is not decided between epochs what follows from those that fail.
    decides_after: Duration,
    /// How long after the beginning of an epoch the newest node followed it.
    followed: Option<(Epoch, Duration)>,
}

/// The properties of a segment, before it has a history.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) id: SegmentId,
    pub(crate) name: SegmentName,
    pub(crate) policy: Policy,
    pub(crate) network: Network,
}

/// All from outside a segment that an epoch of it is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Basis<'e> {
    pub(crate) mesh: &'e Mesh,
    /// The fold of what is durable.
    pub(crate) fleet: &'e Fleet,
    pub(crate) now: Now,
}

/// Whether nodes have had their time to prove themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The controller was away: evidence that it missed is on its way again. Judged before it has arrived,
    /// every member would be removed for what the controller did.
    Settling { until: Duration },
    /// A member that fails is removed as its policy says.
    Running,
}

/// Whether somebody may be able to join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Joins {
    Nobody,
    /// Somebody: all that may by then share one epoch. They wait for others while those keep coming, and no
    /// longer than `until`.
    Somebody {
        at: Duration,
        until: Duration,
    },
}

impl Segment {
    /// A segment without history.
    pub(super) fn new(settings: Settings) -> Self {
        let Settings {
            id,
            name,
            policy,
            network,
        } = settings;
        Self {
            id,
            name,
            network,
            authority: Authority::new(timing(&policy)),
            policy,
            issues: BTreeMap::new(),
            bases: Bases::default(),
            places: Places::new(id),
            held: BTreeSet::new(),
            phase: Phase::Running,
            joins: Joins::Nobody,
            joins_rest_until: Duration::ZERO,
            watch: Watch::new(),
            decides_after: Duration::ZERO,
            followed: None,
        }
    }

    pub(crate) fn id(&self) -> SegmentId {
        self.id
    }

    pub(crate) fn name(&self) -> &SegmentName {
        &self.name
    }

    /// Its address ranges.
    pub(crate) fn network(&self) -> &Network {
        &self.network
    }

    /// Where a node belongs in it; `None`: nowhere.
    pub(crate) fn place(&self, mesh: &Mesh, name: &NodeName, node: &Node) -> Option<Signed<Place>> {
        if !node.is_in(self.id) {
            return None;
        }
        let place = Place {
            node: node.id,
            mesh: mesh.id,
            segment: self.id,
            segment_name: self.name.clone(),
            name: name.clone(),
            v4: self.network.v4(node.host),
            v6: self.network.v6(node.host),
        };
        let signed = Signed::sign(&place, &mesh.authority);
        signed
            .inspect_err(|error| tracing::error!(node = %name, %error, "its place breaks a rule"))
            .ok()
    }

    pub(crate) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Another policy is in force from the next decision on, and times the next epoch. It must be durable by now.
    pub(crate) fn set_policy(&mut self, policy: Policy, now: Now) {
        self.policy = policy;
        self.watch.suspect(&Changed::Anything);
        let timing = timing(&self.policy);
        self.authority = match self.authority.in_force().copied() {
            Some(current) => {
                let next = self.authority.next().copied();
                Authority::resume(timing, current, next, now.boot)
            }
            None => Authority::new(timing),
        };
    }

    /// Its part of the fold.
    pub(crate) fn standings<'f>(&self, fleet: &'f Fleet) -> &'f Standings {
        fleet.standings(self.id)
    }

    /// Members only because an operator has not confirmed their removal.
    pub(crate) fn held(&self) -> &BTreeSet<NodeName> {
        &self.held
    }

    /// The epoch in force.
    pub(crate) fn in_force(&self) -> Option<&Span> {
        self.authority.in_force()
    }

    /// One more node says that an epoch is in force there.
    pub(crate) fn followed_by_one_more(&mut self, epoch: Epoch, now: Now) {
        if let Some(span) = self.in_force().filter(|it| it.epoch == epoch) {
            self.followed = Some((epoch, now.boot.saturating_sub(span.activates)));
        }
    }

    /// How long after its beginning the newest node said that the epoch in force is in force there.
    pub(crate) fn followed(&self) -> Option<Duration> {
        let followed = self.followed.filter(|(of, _)| *of == self.current());
        followed.map(|(_, after)| after)
    }

    /// The epoch on its way.
    pub(crate) fn next(&self) -> Option<&Span> {
        self.authority.next()
    }

    /// The epoch on its way, or else the one in force.
    pub(crate) fn newest(&self) -> Option<&Span> {
        self.next().or_else(|| self.in_force())
    }

    /// The number of the epoch in force; zero before the first.
    pub(crate) fn current(&self) -> Epoch {
        self.in_force().map_or(Epoch(0), |span| span.epoch)
    }

    /// An epoch that can be pushed.
    pub(crate) fn issue(&self, epoch: Epoch) -> Option<&Issue> {
        self.issues.get(&epoch)
    }

    /// Where its members are.
    pub(crate) fn places(&self) -> &Places {
        &self.places
    }

    pub(crate) fn places_mut(&mut self) -> &mut Places {
        &mut self.places
    }

    /// The members are others: those that are new are where `at` says.
    pub(crate) fn place_members<'a>(
        &mut self,
        fleet: &Fleet,
        at: impl Fn(&NodeName) -> Option<&'a [SocketAddr]>,
    ) {
        for name in self.standings(fleet).roster() {
            if let (Some(node), Some(endpoints)) = (fleet.node(name), at(name)) {
                self.places.post(node.id, endpoints);
            }
        }
        let gone: Vec<NodeId> = self
            .places
            .nodes()
            .filter(|node| !self.is_member(fleet, node))
            .copied()
            .collect();
        self.places.remove(&gone);
    }

    /// The digest of the update of an epoch that was pushed of late.
    pub(crate) fn digest_of(&self, epoch: Epoch) -> Option<Digest> {
        self.bases.digest(epoch)
    }

    /// How an epoch is best told to a node that holds these updates; `None`: whole.
    pub(crate) fn changes(&self, held: &[Digest], issue: &Issue) -> Option<Changes> {
        self.bases.changes(held, issue)
    }

    /// The epochs that a node needs which has seen this one: nothing older, but the newest in any case.
    pub(crate) fn issues_since(&self, seen: Epoch) -> impl Iterator<Item = &Issue> {
        let newest = self.issues.keys().next_back().copied().unwrap_or_default();
        self.issues.range(seen.min(newest)..).map(|(_, it)| it)
    }

    /// Whether everything that the machine knows of can be pushed. An update that was lost or is another
    /// authority's cannot: nodes that come again would wait for it until their lease ends.
    pub(crate) fn is_whole(&self) -> bool {
        let spans = [self.authority.in_force(), self.authority.next()];
        let mut epochs = spans.into_iter().flatten().map(|span| span.epoch);
        epochs.all(|epoch| self.issues.contains_key(&epoch))
    }

    /// Whether no epoch that could be in use has a member.
    pub(crate) fn is_empty(&self, fleet: &Fleet) -> bool {
        let mut issues = self.issues.values();
        self.standings(fleet).roster().is_empty() && issues.all(Issue::is_empty)
    }

    /// Whether this identity is in the roster of an epoch that is in force or on its way.
    pub(crate) fn is_member(&self, fleet: &Fleet, node: &NodeId) -> bool {
        let roster = self.standings(fleet).roster();
        let mut issues = self.issues.values();
        issues.any(|issue| issue.update.member(node).is_some())
            || fleet
                .name_of(node)
                .is_some_and(|name| roster.contains(name))
    }

    /// Whether the epoch in force has it as a member.
    pub(crate) fn has_in_force(&self, node: &NodeId) -> bool {
        let issue = self.issues.get(&self.current());
        issue.is_some_and(|issue| issue.update.member(node).is_some())
    }

    /// Whether two nodes have a tunnel to each other by the epoch in force.
    pub(crate) fn connects_in_force(&self, one: &NodeId, other: &NodeId) -> bool {
        let issue = self.issues.get(&self.current());
        issue.is_some_and(|issue| issue.update.connects(one, other))
    }

    /// A node, held against the policy.
    pub(crate) fn judge(&self, case: &Case<'_>, now: Now) -> Decision {
        judge(&self.policy, &case.record(now), now.wall)
    }

    /// Whether a node that is no member may become one without waiting for a scheduled rotation.
    pub(crate) fn may_join(&self, fleet: &Fleet, name: &NodeName, now: Now) -> bool {
        let outside = !self.standings(fleet).roster().contains(name);
        let case = fleet.case(self.id, name);
        outside && case.is_some_and(|case| joins(&case, &self.judge(&case, now)))
    }

    /// Whether anybody may.
    pub(crate) fn anyone_joins(&self, fleet: &Fleet, now: Now) -> bool {
        let mut names = fleet.nodes().keys();
        names.any(|name| self.may_join(fleet, name, now))
    }

    /// Whether every member has proved itself already, so that settling has served its purpose.
    pub(crate) fn all_pass(&self, fleet: &Fleet, now: Now) -> bool {
        let passes = |case: Case<'_>| self.judge(&case, now).reason.is_none();
        self.members(fleet).all(|case| case.is_some_and(passes))
    }

    /// Something that members are judged by has changed.
    pub(crate) fn suspect(&mut self, changed: &Changed) {
        self.watch.suspect(changed);
    }

    /// Judges the members that have to be, held or not; whether it is to be decided what follows.
    pub(crate) fn judge_suspects(&mut self, fleet: &Fleet, now: Now) -> bool {
        for name in self.watch.take(self.standings(fleet).roster(), now.boot) {
            let Some(case) = fleet.case(self.id, &name) else {
                continue;
            };
            let record = case.record(now);
            let fails = !judge(&self.policy, &record, now.wall).allowed();
            let stale = stale_in(&self.policy, &record, now.wall);
            // A ruling that ends may change as much.
            let overriding = fleet.node(&name).and_then(|node| node.overriding(now));
            let ends = overriding.and_then(|it| it.left(now));
            let again = stale.into_iter().chain(ends).min();
            let again = again.map(|left| now.boot + left + STALE_MARGIN);
            self.watch.judged(&name, fails, again);
        }
        self.watch.is_undecided()
    }

    /// When members have to be judged, or what follows be decided.
    pub(crate) fn judges_at(&self) -> Option<Duration> {
        let at = self.watch.next()?;
        Some(if self.watch.is_undecided() {
            at.max(self.decides_after)
        } else {
            at
        })
    }

    /// It is decided what follows from those that fail.
    pub(crate) fn decided(&mut self) {
        self.watch.decided();
    }

    /// Whether members that fail are removed at once.
    pub(crate) fn revokes_at_once(&self) -> bool {
        self.policy.revoke == Revoke::Now
    }

    /// Whether it is decided now what follows from members that fail; then that rests, because everybody is looked
    /// at for it.
    pub(crate) fn take_deciding(&mut self, fleet: &Fleet, now: Now) -> bool {
        let due = self.decides_after <= now.boot;
        if due {
            let members = self.standings(fleet).roster().len();
            self.decides_after = now.boot + rest(members);
        }
        due
    }

    /// When the machine is due, and what for.
    pub(crate) fn machine_due(&self) -> (Duration, Timer) {
        self.authority.poll_timeout()
    }

    /// Whether the scheduled update is due.
    pub(crate) fn is_due(&self, now: Now) -> bool {
        self.authority.due(now.boot)
    }

    /// When nodes have had their time to prove themselves; zero if they have.
    pub(crate) fn settles_at(&self) -> Duration {
        match self.phase {
            Phase::Settling { until } => until,
            Phase::Running => Duration::ZERO,
        }
    }

    /// When joins are due, if anybody may.
    pub(crate) fn joins_at(&self) -> Option<Duration> {
        match self.joins {
            Joins::Nobody => None,
            Joins::Somebody { at, .. } => Some(at.max(self.joins_rest_until)),
        }
    }

    /// Lets a published epoch begin whose time has come, and settling end; returns the epoch.
    pub(crate) fn handle_timeout(&mut self, now: Now) -> Option<Epoch> {
        if self.settles_at() <= now.boot {
            self.phase = Phase::Running;
        }
        let epoch = self.authority.handle_timeout(now.boot)?;
        // The secret of the epoch before serves nobody any more: nobody may be given it, and the less time it
        // is in memory, the less there is to find.
        self.issues.retain(|number, _| *number >= epoch);
        Some(epoch)
    }

    /// A node may be able to join: soon, together with others. Every join is told to every member, so that a fleet
    /// that comes at once has to share epochs: the larger the mesh, the longer they wait for each other.
    pub(crate) fn want_join(&mut self, members: usize, now: Now) {
        let soon = now.boot + JOIN_DEBOUNCE;
        self.joins = match self.joins {
            Joins::Nobody => Joins::Somebody {
                at: soon,
                until: soon + join_rest(members),
            },
            Joins::Somebody { until, .. } => Joins::Somebody {
                at: soon.min(until),
                until,
            },
        };
    }

    /// Joins have had an epoch.
    pub(crate) fn rest_joins(&mut self, members: usize, now: Now) {
        self.joins_rest_until = now.boot + join_rest(members);
    }

    /// Joins are looked at now; whether they were due.
    pub(crate) fn take_joins(&mut self, now: Now) -> bool {
        let due = self.joins_at().is_some_and(|at| at <= now.boot);
        if due {
            self.joins = Joins::Nobody;
        }
        due
    }

    /// They had to wait for the epoch on its way to begin.
    pub(crate) fn join_after_next(&mut self, now: Now) {
        let next = self.next().map(|span| span.activates);
        self.join_at(next.unwrap_or(now.boot + JOIN_DEBOUNCE));
    }

    /// They failed, and are tried again.
    pub(crate) fn join_at(&mut self, at: Duration) {
        self.joins = Joins::Somebody { at, until: at };
    }

    /// The sanity floor holds other removals than before, without an epoch of their own.
    pub(crate) fn hold(&mut self, held: BTreeSet<NodeName>) {
        self.held = held;
    }

    /// An epoch that is durable takes the place of the one on its way, if there was one.
    ///
    /// It must be durable by now. A node that has heard of an epoch which a crash then undid would refuse the
    /// next one, because the restarted controller gives out the same number again with another digest behind
    /// it.
    pub(crate) fn adopt(&mut self, draft: Draft) {
        let Draft {
            ballot,
            schedule,
            issue,
            ..
        } = draft;
        self.authority.publish(&schedule, issue.digest);
        self.held = ballot.held;
        self.watch.suspect(&Changed::Anything);
        // An epoch that was superseded before it began must not be pushed to anybody who connects now: its
        // roster may hold the node that this one excludes.
        let in_force = self.authority.in_force().map(|span| span.epoch);
        self.issues.retain(|epoch, _| Some(*epoch) == in_force);
        self.bases.add(&issue);
        self.issues.insert(issue.update.epoch, issue);
    }

    fn members<'f>(&self, fleet: &'f Fleet) -> impl Iterator<Item = Option<Case<'f>>> {
        let (id, roster) = (self.id, self.standings(fleet).roster());
        roster.iter().map(move |name| fleet.case(id, name))
    }
}

/// How long deciding on members that fail rests: each piece of evidence may be an occasion, and in a large mesh
/// nothing else would be done. Zero in a small one.
fn rest(members: usize) -> Duration {
    if members <= SMALL {
        return Duration::ZERO;
    }
    JUDGING.saturating_mul(u32::try_from(members).unwrap_or(u32::MAX))
}

/// How long joins rest in a mesh of this size.
fn join_rest(members: usize) -> Duration {
    let members = u32::try_from(members).unwrap_or(u32::MAX);
    JOIN_PER_MEMBER.saturating_mul(members).min(MAX_JOIN_REST)
}

fn timing(policy: &Policy) -> Timing {
    Timing {
        epoch: policy.epoch(),
        lease: policy.lease(),
        on_lease_end: policy.on_lease_end,
    }
}

/// Just past the instant, so that rounding cannot make a member be judged before it.
const STALE_MARGIN: Duration = Duration::from_millis(5);
/// Members that are looked at as often as there is an occasion.
const SMALL: usize = 250;
/// The rest for each member. Chosen, and not derived from how long it takes to judge one.
const JUDGING: Duration = Duration::from_micros(20);
/// How long joins rest for each member, because each member is told of each join.
const JOIN_PER_MEMBER: Duration = Duration::from_millis(1);
/// The longest that a node waits for others, and for the join before.
const MAX_JOIN_REST: Duration = Duration::from_secs(10);
/// Joins within this time share an epoch.
const JOIN_DEBOUNCE: Duration = Duration::from_millis(200);
/// After a restart, at most.
const SETTLE: Duration = Duration::from_secs(10);
