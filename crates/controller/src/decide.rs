//! The members of the next epoch: the policy, asked about every node, under the epoch's cause.
//! Pure: the same fleet, policy, cause and time give the same ballot.

use crate::clock::Now;
use crate::event::{Event, Verdict};
use crate::fleet::{Case, Fleet};
use keys::{Epoch, SegmentId};
use policy::{Decision, Fault, Membership, Policy, Reason, Standing, State, floor, judge};
use std::collections::{BTreeMap, BTreeSet};
use wire::NodeName;

/// Why an epoch is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The epoch before ends.
    Scheduled,
    /// The same while no evidence can be kept: nobody can prove himself, so nobody is judged.
    Unjudged,
    /// An operator asked for a rotation, and perhaps confirmed the removals that were held.
    Operator {
        /// The operator's word for removals beyond the sanity floor.
        confirmed: bool,
    },
    /// Nodes that were never judged may be members.
    Join,
    /// A member fails, and the policy revokes at once.
    Revocation,
    /// An operator excluded a member.
    Eviction,
    /// An operator removed a member for good.
    Removal,
    /// An operator took a member out of the segment.
    Departure,
    /// The networks behind members are others.
    Routes,
    /// Another authority signs.
    Authority,
    /// A member got new keys.
    Rekey,
    /// The update in force was lost or signed by another authority.
    Recovery,
}

/// The outcome.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ballot {
    /// The members.
    pub(crate) roster: BTreeSet<NodeName>,
    /// All other enrolled nodes, and why.
    pub(crate) excluded: BTreeMap<NodeName, String>,
    /// Those of them that were never decided about and have no evidence yet.
    pub(crate) unheard: BTreeSet<NodeName>,
    /// Members only because an operator has not confirmed their removal.
    pub(crate) held: BTreeSet<NodeName>,
    /// The verdicts that the log records.
    pub(crate) verdicts: Vec<Verdict>,
}

/// How far an epoch's cause lets the policy go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Every node is judged, and it counts.
    All,
    /// Members that fail leave; new nodes join.
    Failing,
    /// Members stay unless they are evicted; new nodes join.
    Joining,
}

impl Cause {
    /// Whether it counts for hysteresis and probation.
    pub(crate) fn counts(self) -> bool {
        self.reach() == Reach::All
    }

    /// Whether members stay whatever their evidence says.
    pub(crate) fn keeps_members(self) -> bool {
        self.reach() == Reach::Joining
    }

    /// The word for logs.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Unjudged => "unjudged",
            Self::Operator { .. } => "operator",
            Self::Join => "join",
            Self::Revocation => "revocation",
            Self::Eviction => "eviction",
            Self::Removal => "removal",
            Self::Departure => "departure",
            Self::Routes => "routes",
            Self::Authority => "authority",
            Self::Rekey => "rekey",
            Self::Recovery => "recovery",
        }
    }

    fn reach(self) -> Reach {
        match self {
            Self::Scheduled | Self::Operator { .. } => Reach::All,
            Self::Revocation => Reach::Failing,
            Self::Unjudged
            | Self::Join
            | Self::Eviction
            | Self::Removal
            | Self::Departure
            | Self::Routes
            | Self::Authority
            | Self::Rekey
            | Self::Recovery => Reach::Joining,
        }
    }

    /// The cause of this word, as the log has it; `confirmed`: see [`Self::Operator`].
    pub(crate) fn of_word(word: &str, confirmed: bool) -> Option<Self> {
        let all = [
            Self::Scheduled,
            Self::Unjudged,
            Self::Operator { confirmed },
            Self::Join,
            Self::Revocation,
            Self::Eviction,
            Self::Removal,
            Self::Departure,
            Self::Routes,
            Self::Authority,
            Self::Rekey,
            Self::Recovery,
        ];
        all.into_iter().find(|cause| cause.word() == word)
    }

    pub(crate) fn confirmed(self) -> bool {
        self == Self::Operator { confirmed: true }
    }
}

/// Decides who is a member of a segment's next epoch.
pub(crate) fn decide(
    fleet: &Fleet,
    segment: SegmentId,
    policy: &Policy,
    cause: Cause,
    now: Now,
) -> Ballot {
    let before = fleet.standings(segment).roster();
    let member = |name: &NodeName| before.contains(name);
    let judged: BTreeMap<&NodeName, (Case<'_>, Decision, u32)> = fleet
        .cases(segment)
        .map(|(name, case)| {
            let mut record = case.record(now);
            // A member has had its epoch; one that is about to join begins its first.
            let spent = u32::from(cause.counts() && member(name));
            record.probation_left = record.probation_left.saturating_sub(spent);
            (
                name,
                (
                    case,
                    judge(policy, &record, now.wall),
                    record.probation_left,
                ),
            )
        })
        .collect();
    // The cause bounds what a ballot may do. An epoch that is published for one node's sake must not be the
    // occasion on which all others are judged, outside the rhythm that hysteresis and probation count by; and
    // members that merely fail stay until their turn, or an eviction could set off a mass removal.
    let wanted = |name: &NodeName, case: &Case<'_>, decision: &Decision| match cause.reach() {
        Reach::All => decision.allowed(),
        Reach::Failing if member(name) => decision.allowed(),
        Reach::Joining if member(name) => !case.node.evicted(),
        Reach::Failing | Reach::Joining => joins(case, decision),
    };
    let failing: BTreeSet<NodeName> = judged
        .iter()
        .filter(|(name, (case, decision, _))| {
            let is_ordered = decision.reason == Some(Reason::Overridden);
            member(name) && !case.node.evicted() && !is_ordered && !wanted(name, case, decision)
        })
        .map(|(name, _)| (*name).clone())
        .collect();
    // Many removals at once are more likely a broken harness than as many broken nodes, and would dissolve the
    // mesh: beyond the floor all of them wait for an operator. Evictions and denials by hand
    // are such a word, and are not counted.
    let held = floor::held(policy, before.len(), failing, cause.confirmed());

    let mut ballot = Ballot {
        roster: BTreeSet::new(),
        excluded: BTreeMap::new(),
        unheard: BTreeSet::new(),
        held,
        verdicts: Vec::new(),
    };
    for (name, (case, decision, probation_left)) in judged {
        let held = ballot.held.contains(name);
        let admitted = held || wanted(name, &case, &decision);
        if cause.counts() || admitted != member(name) {
            let verdict = verdict(name, &case, &decision, admitted, held);
            ballot.verdicts.push(Verdict {
                probation_left,
                ..verdict
            });
        }
        if admitted {
            ballot.roster.insert(name.clone());
        } else {
            if is_unheard(&case, &decision) {
                ballot.unheard.insert(name.clone());
            }
            ballot
                .excluded
                .insert(name.clone(), why_not(&case, &decision));
        }
    }
    ballot
}

/// The event that the log keeps of a decision, taken on `fleet`. A verdict that says what the one before said is not
/// said again: in a mesh at rest, a decision takes the same few bytes however many nodes there are.
pub(crate) fn recorded(
    fleet: &Fleet,
    (segment, epoch): (SegmentId, Epoch),
    cause: Cause,
    ballot: &Ballot,
    now: Now,
) -> Event {
    let is_news = |verdict: &&Verdict| {
        let case = fleet.case(segment, &verdict.name);
        let leaves_it = case.filter(|case| {
            let left = (case.standing(), case.probation_left());
            let before = case.verdict();
            left == (verdict.standing, verdict.probation_left)
                && before.is_some_and(|before| verdict.says_the_same_as(before))
        });
        leaves_it.is_none()
    };
    let nodes = ballot.verdicts.iter().filter(is_news);
    Event::Decided {
        segment,
        epoch,
        scheduled: cause.counts(),
        cause: cause.word().to_owned(),
        confirmed: cause.confirmed(),
        boot_ms: now.boot_ms(),
        nodes: nodes.cloned().collect(),
    }
}

/// Whether a node that is no member may become one without waiting for a scheduled rotation.
pub(crate) fn joins(case: &Case<'_>, decision: &Decision) -> bool {
    let is_waited_for = case.standing() == Standing::New || decision.overridden;
    is_waited_for && decision.allowed()
}

/// Whether nothing was decided about a node, and there is nothing to decide on.
fn is_unheard(case: &Case<'_>, decision: &Decision) -> bool {
    let has_none = |reason: &Reason| match reason {
        Reason::Fails { fault, .. } => *fault == Fault::NoBenchmark,
        Reason::Evicted | Reason::Overridden | Reason::OnTrial { .. } => false,
    };
    case.standing() == Standing::New && decision.reason.as_ref().is_some_and(has_none)
}

/// The reason of an exclusion, in words.
pub(crate) fn why_not(case: &Case<'_>, decision: &Decision) -> String {
    let denied = decision.reason.as_ref().filter(|_| !decision.allowed());
    denied.map_or_else(
        || {
            if joins(case, decision) {
                JOINING
            } else {
                WAITING
            }
            .to_owned()
        },
        Reason::to_string,
    )
}

fn verdict(
    name: &NodeName,
    case: &Case<'_>,
    decision: &Decision,
    admitted: bool,
    held: bool,
) -> Verdict {
    let (state, standing) = match (admitted, held, case.standing()) {
        // A held node stays a member, and its failures go on counting.
        (true, true, Standing::In { failures }) => {
            let failures = failures.saturating_add(1);
            (State::Active, Standing::In { failures })
        }
        (true, true, Standing::New | Standing::Out { .. }) => {
            (State::Active, Standing::In { failures: 1 })
        }
        _ => (decision.state, decision.standing),
    };
    let reason = decision.reason.as_ref().map(Reason::to_string);
    Verdict {
        name: name.clone(),
        membership: if admitted {
            Membership::Allowed
        } else {
            Membership::Denied
        },
        state,
        reason,
        score: decision.score,
        evidence: decision.evidence.map(|digest| digest.to_string()),
        standing,
        probation_left: case.probation_left(),
        held,
    }
}

/// Said of a node that passes and was never judged before.
const JOINING: &str = "joins with the next epoch";
/// Said of a node that passes, but was quarantined and returns with a scheduled rotation.
const WAITING: &str = "passes again: returns at the next scheduled rotation";
