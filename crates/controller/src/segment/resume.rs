//! A segment as the log left it: the machine at its place on this boot's clock, and the updates that can still
//! be pushed. Refuses stored updates that this authority did not sign.

use super::{Basis, Issue, Phase, SETTLE, Segment, Settings, timing};
use crate::clock::steps_back;
use crate::event::Published;
use crate::log::StoredEpoch;
use epoch::authority::{Authority, Span};
use jiff::Timestamp;
use keys::Epoch;
use std::sync::Arc;
use std::time::Duration;

impl Segment {
    /// Resumes a segment with the epochs of it that were `stored`, or begins one that the log does not know.
    pub(crate) fn resume(settings: Settings, stored: Vec<StoredEpoch>, basis: Basis<'_>) -> Self {
        let Basis { fleet, now, .. } = basis;
        let id = settings.id;
        let mut segment = Self::new(settings);
        let Some((current, next)) = segment.recorded(basis) else {
            return segment;
        };
        segment.authority = Authority::resume(timing(&segment.policy), current, next, now.boot);
        for stored in stored {
            if let Some(issue) = segment.restored(stored, basis) {
                segment.bases.add(&issue);
                segment.issues.insert(issue.update.epoch, issue);
            }
        }
        let standings = segment.standings(fleet);
        let kept = fleet.cases(id).filter(|(name, case)| {
            let held = case.verdict().is_some_and(|verdict| verdict.held);
            held && standings.roster().contains(*name)
        });
        segment.held = kept.map(|(name, _)| name.clone()).collect();
        // Nodes need a moment to connect and to prove themselves to a controller that was away.
        let until = now.boot + SETTLE.min(segment.policy.epoch() / 4);
        segment.phase = Phase::Settling { until };
        if segment.anyone_joins(fleet, now) {
            segment.want_join(segment.standings(fleet).roster().len(), now);
        }
        let epoch = segment.in_force().map(|span| span.epoch.0);
        let next = segment.next().map(|span| span.epoch.0);
        tracing::info!(epoch, next, nodes = fleet.nodes().len(), "epoch resumed");
        segment
    }

    /// The epoch in force and the one on its way.
    fn recorded(&self, basis: Basis<'_>) -> Option<(Span, Option<Span>)> {
        let (_, newest) = self.standings(basis.fleet).newest_epoch()?;
        let next = self.span(newest.epoch, basis)?;
        let before = newest.in_force;
        let before = before.and_then(|epoch| self.span(epoch, basis));
        Some(match before {
            Some(before) if next.activates > basis.now.boot => (before, Some(next)),
            Some(_) | None => (next, None),
        })
    }

    /// An update from the disk, if it is what the log says was published.
    ///
    /// The chain of events does not cover this table, because secrets have to be forgotten. A hand that can
    /// write it could put another roster or another secret there: hence the signature, the digest and the
    /// commitment.
    fn restored(&self, stored: StoredEpoch, basis: Basis<'_>) -> Option<Issue> {
        let mesh = basis.mesh;
        let (at, published) = self.standings(basis.fleet).epoch(stored.epoch)?;
        let digest = published.update;
        let update = stored.signed.verify(&mesh.trusted()).ok();
        let update = update.filter(|update| {
            update.digest() == digest && update.commitment == stored.secret.commitment()
        });
        let Some(update) = update else {
            tracing::warn!(epoch = %stored.epoch, "the stored update is not this \
                authority's, or not with this secret: a new epoch follows at once");
            return None;
        };
        Some(Issue {
            update: Arc::new((*update).clone()),
            digest,
            signed: stored.signed,
            secret: stored.secret,
            signed_ms: signed_ms(*at, published, basis),
        })
    }

    /// An epoch's place on the boot-time clock.
    fn span(&self, epoch: Epoch, basis: Basis<'_>) -> Option<Span> {
        let (at, published) = self.standings(basis.fleet).epoch(epoch)?;
        let signed_ms = signed_ms(*at, published, basis);
        let after = |ms: u64| {
            let at = signed_ms.saturating_add_unsigned(ms);
            Duration::from_millis(u64::try_from(at).unwrap_or(0))
        };
        let length = published.activate_in_ms.saturating_add(published.epoch_ms);
        Some(Span {
            epoch,
            update: published.update,
            activates: after(published.activate_in_ms),
            ends: after(length),
        })
    }
}

/// When an epoch was signed: by the boot-time clock within one boot, else by the wall's, which an operator may
/// have set meanwhile; there is no other between two boots.
fn signed_ms(at: Timestamp, published: &Published, basis: Basis<'_>) -> i64 {
    let Basis { mesh, now, .. } = basis;
    let same_boot = !published.boot_id.is_empty() && published.boot_id == mesh.boot_id;
    if same_boot && published.boot_ms <= now.boot_ms() {
        return published.boot_ms;
    }
    let age = if steps_back(at, now.wall) {
        // Set back to before that epoch, so that nobody knows how old it is. It is taken to be over, and
        // another follows at once: begun anew, it would last for up to twice its length.
        published.activate_in_ms.saturating_add(published.epoch_ms)
    } else {
        let age = now.wall.as_millisecond() - at.as_millisecond();
        age.max(0).unsigned_abs()
    };
    now.boot_ms().saturating_sub_unsigned(age)
}
