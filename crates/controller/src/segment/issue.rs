//! An epoch that can be pushed: the signed update, and the secret for members alone.

use crate::clock::Now;
use keys::{EpochSecret, NodeId};
use std::sync::Arc;
use wire::log::LogNews;
use wire::message::{ChangedUpdate, ToNode, Update};
use wire::{Changes, Digest, EpochUpdate, Mark, Signed};

/// One epoch.
#[derive(Debug)]
pub(crate) struct Issue {
    pub(crate) update: Arc<EpochUpdate>,
    pub(crate) signed: Signed<EpochUpdate>,
    /// Its digest: every connection asks for it, and a large roster takes long to hash.
    pub(crate) digest: Digest,
    pub(crate) secret: EpochSecret,
    /// When it was signed, on the boot-time clock in milliseconds; negative: before this boot.
    pub(crate) signed_ms: i64,
}

impl Issue {
    pub(crate) fn is_empty(&self) -> bool {
        self.update.roster.is_empty()
    }

    /// Whether this key is in the roster.
    pub(crate) fn has_member(&self, node: &NodeId) -> bool {
        self.update.member(node).is_some()
    }

    /// The update for one node, marked with the log as it is now; as `changes`, where it holds what they build on.
    ///
    /// Every enrolled node gets the same update, so that each can check its own exclusion. The secret goes
    /// only to a key in the roster: an excluded node that had it would need no more than one member's stolen
    /// WireGuard key to pose as that member.
    pub(crate) fn push(
        &self,
        node: &NodeId,
        changes: Option<Changes>,
        (mark, log): (Signed<Mark>, LogNews),
        now: Now,
    ) -> ToNode {
        let member = self.has_member(node);
        let secret = member.then(|| EpochSecret::from_bytes(*self.secret.expose()));
        let age = now.boot_ms().saturating_sub(self.signed_ms);
        let age_ms = u64::try_from(age).unwrap_or(0);
        match changes {
            Some(changes) => ToNode::Changes(ChangedUpdate {
                changes,
                secret,
                age_ms,
                mark,
                log,
            }),
            None => ToNode::Update(Update {
                signed: self.signed.clone(),
                secret,
                age_ms,
                mark,
                log,
            }),
        }
    }
}
