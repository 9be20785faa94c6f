//! The lines of the program's log about a published epoch: one line per verdict, one for the epoch, one when
//! removals are held. No secret is in any of them.

use crate::clock::Now;
use crate::event::Verdict;
use crate::format::{utc, word};
use crate::segment::Draft;
use std::collections::BTreeSet;
use wire::{NodeName, SegmentName};

/// An epoch was published.
pub(super) fn published(
    draft: &Draft,
    segment: &SegmentName,
    held_before: &BTreeSet<NodeName>,
    now: Now,
) {
    let segment = segment.told();
    let Draft { ballot, issue, .. } = draft;
    ballot.verdicts.iter().for_each(|it| verdict(it, segment));
    held(&ballot.held, held_before);
    let activates = now.wall + issue.update.activate_in();
    let removed = draft.before.difference(&ballot.roster).count();
    tracing::info!(
        segment,
        epoch = issue.update.epoch.0,
        cause = draft.cause.word(),
        activates = %utc(activates),
        expiry = %utc(activates + issue.update.length()),
        members = ballot.roster.len(),
        excluded = ballot.excluded.len(),
        removed,
        "epoch rotation"
    );
}

/// One line when the set of held removals grows or changes, none while it stays.
pub(super) fn held(held: &BTreeSet<NodeName>, before: &BTreeSet<NodeName>) {
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

fn verdict(verdict: &Verdict, segment: Option<&str>) {
    let membership = word(verdict.membership);
    let score = verdict.score.map(|score| format!("{score:.3}"));
    let score = score.as_deref().unwrap_or("none");
    match verdict.reason.as_deref() {
        Some(reason) => {
            tracing::info!(node = %verdict.name, segment, score = %score, membership = %membership, reason, "decision");
        }
        None => {
            tracing::info!(node = %verdict.name, segment, score = %score, membership = %membership, "decision");
        }
    }
}
