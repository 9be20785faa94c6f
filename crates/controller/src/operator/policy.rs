//! Operators' words on the policy, and on single nodes beside it: rulings and groups.

use super::{MAX_WORDS, Operator, unpublished};
use crate::clock::Now;
use crate::event::Event;
use crate::membership::named;
use crate::reading::{RESTART, unknown};
use crate::replay::{self, Unreplayed};
use crate::request::Answer;
use crate::rotate::Rotation;
use crate::segment::Segment;
use ::admin::Refused;
use jiff::Timestamp;
use keys::SegmentId;
use policy::{Policy, Ruling};
use wire::admin::{OverrideRequest, PolicyShown};
use wire::{NodeName, SegmentName};

impl Operator<'_> {
    pub(super) fn explain_at(
        &self,
        name: &NodeName,
        segment: Option<&SegmentName>,
        then: Timestamp,
    ) -> Result<Answer, Refused> {
        let explained = replay::explain_at(self.rotation.journal.log(), name, segment, then);
        let explained = explained.map_err(|error| unreplayed(&error))?;
        let explained = explained.ok_or_else(|| {
            let error = format!("no node {name} was enrolled at {then}");
            let hint = format!("`meshctl events --node {name}` shows since when it is");
            Refused::new(404, error, hint)
        })?;
        Ok(Answer::Explanation(Box::new(explained)))
    }

    pub(super) fn policy(&self, segment: Option<&SegmentName>) -> Result<Answer, Refused> {
        let policy = self.meant(segment)?.policy();
        Ok(Answer::Policy(PolicyShown {
            digest: policy.digest().to_string(),
            toml: policy.to_toml(),
        }))
    }

    /// The segment of this name; without one, the only one.
    fn meant(&self, name: Option<&SegmentName>) -> Result<&Segment, Refused> {
        let segments = &self.rotation.segments;
        match name {
            Some(name) => named(segments, name),
            None if segments.iter().count() == 1 => Ok(segments.first()),
            None => {
                let all: Vec<&str> = segments.iter().map(|it| it.name().as_str()).collect();
                let hint = format!("name one with --segment: {}", all.join(", "));
                Err(Refused::new(400, "the mesh has several segments", hint))
            }
        }
    }

    /// Puts another policy in force in a segment; whether it is another than before.
    pub(crate) fn change_policy(
        &mut self,
        segment: Option<&SegmentName>,
        policy: Policy,
        now: Now,
    ) -> Result<bool, Refused> {
        policy.validate().map_err(|error| {
            let hint = "`meshctl policy check FILE` says whether a file can be used";
            Refused::new(400, format!("the policy cannot be used: {error}"), hint)
        })?;
        let meant = self.meant(segment)?;
        let id = meant.id();
        if *meant.policy() == policy {
            return Ok(false);
        }
        let digest = policy.digest();
        self.commit(policy_changed(id, &policy), now)?;
        let Rotation {
            journal, segments, ..
        } = &mut self.rotation;
        segments.get_mut(id).set_policy(policy, now);
        segments.want_joins(journal.fleet(), now);
        tracing::info!(%digest, "another policy is in force from the next decision on");
        Ok(true)
    }

    pub(super) fn simulate(
        &self,
        segment: Option<&SegmentName>,
        policy: &Policy,
        since: Option<Timestamp>,
    ) -> Result<Answer, Refused> {
        let of = self.meant(segment)?.id();
        let simulation = replay::simulate(self.rotation.journal.log(), policy, since, of);
        let simulation = simulation.map_err(|error| unreplayed(&error))?;
        Ok(Answer::Simulation(Box::new(simulation)))
    }

    pub(super) fn set_override(
        &mut self,
        name: NodeName,
        form: OverrideRequest,
        now: Now,
    ) -> Result<Answer, Refused> {
        if self.fleet().node(&name).is_none() {
            return Err(unknown(&name));
        }
        let bad = |error: String, hint: &'static str| Err(Refused::new(400, error, hint));
        let threshold = form.threshold.unwrap_or(f64::NAN);
        let ruling = match form.ruling.as_str() {
            "allow" if form.threshold.is_none() => Ruling::Allow,
            "deny" if form.threshold.is_none() => Ruling::Deny,
            "threshold" if (0.0..=1.0).contains(&threshold) => Ruling::Threshold(threshold),
            "threshold" => {
                return bad(
                    format!("`threshold` is {threshold}"),
                    "give a number from 0 to 1",
                );
            }
            other => {
                let error =
                    format!("`ruling` is {other:?}, or has a threshold that it does not take");
                return bad(
                    error,
                    "a ruling is `allow`, `deny`, or `threshold` with its number",
                );
            }
        };
        if !(1..=MAX_OVERRIDE).contains(&form.seconds) {
            let error = format!(
                "an override lasts from 1 to {MAX_OVERRIDE} s, not {}",
                form.seconds
            );
            return bad(
                error,
                "choose another time; what is to last belongs into the policy",
            );
        }
        let words = form.reason.trim();
        if words.is_empty() || words.len() > MAX_WORDS || words.chars().any(char::is_control) {
            let error = format!(
                "the reason has {} bytes, or more than one line",
                words.len()
            );
            return bad(error, "say why, in 1 to 1000 bytes: the event log keeps it");
        }
        let event = Event::OverrideSet {
            name: name.clone(),
            ruling,
            seconds: form.seconds,
            reason: words.to_owned(),
            boot_ms: now.boot_ms(),
        };
        self.about(name, event, now)
    }

    pub(super) fn clear_override(&mut self, name: NodeName, now: Now) -> Result<Answer, Refused> {
        let node = self.fleet().node(&name).ok_or_else(|| unknown(&name))?;
        if node.overriding(now).is_none() {
            let error = format!("nothing overrides the policy for {name}");
            let hint = format!("`meshctl explain {name}` says why it is where it is");
            return Err(Refused::new(409, error, hint));
        }
        self.about(name.clone(), Event::OverrideCleared { name }, now)
    }

    pub(super) fn group(
        &mut self,
        name: NodeName,
        group: String,
        member: bool,
        now: Now,
    ) -> Result<Answer, Refused> {
        let node = self.fleet().node(&name).ok_or_else(|| unknown(&name))?;
        if !wire::rules::is_group(&group) {
            let error = format!("{group:?} is no name of a group");
            let hint = "a group has 1 to 64 letters, digits, dots, dashes and underscores";
            return Err(Refused::new(400, error, hint));
        }
        if node.groups.contains(&group) == member {
            let error = format!(
                "{name} is {} group {group} already",
                if member { "in" } else { "not in" }
            );
            return Err(Refused::new(
                409,
                error,
                "`meshctl node show` lists a node's groups",
            ));
        }
        if member && node.groups.len() >= MAX_GROUPS {
            let error = format!("{name} is in {MAX_GROUPS} groups, and can be in no more");
            return Err(Refused::new(409, error, "take it out of another first"));
        }
        let event = Event::GroupChanged {
            name: name.clone(),
            group,
            member,
        };
        self.about(name, event, now)
    }

    /// Makes an event about one node durable, and shows the node. It may be able to join with it.
    fn about(&mut self, name: NodeName, event: Event, now: Now) -> Result<Answer, Refused> {
        let written = self.rotation.commit(self.by, event, now);
        written.map_err(|error| unpublished(&error.into()))?;
        let Rotation {
            journal, segments, ..
        } = &mut self.rotation;
        segments.want_join_of(journal.fleet(), &name, now);
        self.node(&name, now)
    }
}

/// The event that puts a policy on record.
pub(crate) fn policy_changed(segment: SegmentId, policy: &Policy) -> Event {
    Event::PolicyChanged {
        segment,
        digest: policy.digest().to_string(),
        policy: Box::new(policy.clone()),
    }
}

fn unreplayed(error: &Unreplayed) -> Refused {
    let (status, hint) = match error {
        Unreplayed::TooLong(_) => (
            409,
            "`meshctl events --node NODE` shows what happened; `meshctl log export` writes the whole log",
        ),
        Unreplayed::Log(_) | Unreplayed::Unknown => (500, RESTART),
    };
    Refused::new(status, error.to_string(), hint)
}

/// Thirty days: what lasts longer belongs into the policy.
const MAX_OVERRIDE: u64 = 30 * 24 * 3_600;
const MAX_GROUPS: usize = 32;
