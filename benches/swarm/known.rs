//! Updates that this process has verified, so that ten thousand nodes need not hold ten thousand rosters.
//!
//! A node that receives an update whose bytes are those of one here, signature included, shares that one: the same
//! bytes have the same value, the same digest and break the same rules. The signature over them is verified by
//! every node all the same, because that is what a node pays for an epoch. Marks and checkpoints are verified once
//! for the same bytes; consistency proofs, which differ from node to node, by every node.

use anyhow::Context as _;
use keys::AuthorityId;
use ledger::Checkpoint;
use ledger::note::{Note, Verifier};
use std::sync::{Arc, Mutex, PoisonError};
use wire::log::LogEnd;
use wire::{Changes, EpochUpdate, Mark, Signed, Verified, VerifyError};

/// Everything that was verified.
#[derive(Debug, Default)]
pub(crate) struct Known {
    updates: Mutex<Vec<Arc<Update>>>,
    /// The updates that were put together, with the changes that make them.
    made: Mutex<Vec<(Changes, Arc<Update>)>>,
    ends: Mutex<Vec<End>>,
}

/// An update that was verified.
#[derive(Debug)]
pub(crate) struct Update {
    pub(crate) signed: Signed<EpochUpdate>,
    pub(crate) verified: Verified<EpochUpdate>,
}

/// The end of the log by a mark and a checkpoint that were verified.
#[derive(Debug)]
struct End {
    mark: Signed<Mark>,
    checkpoint: String,
    end: LogEnd,
}

impl Known {
    /// Verifies an update.
    pub(crate) fn update(
        &self,
        signed: Signed<EpochUpdate>,
        trusted: &[AuthorityId],
    ) -> Result<Arc<Update>, VerifyError> {
        let candidates = lock(&self.updates).clone();
        if let Some(known) = candidates.into_iter().rev().find(|it| it.signed == signed) {
            return known.vouched(trusted);
        }
        let verified = signed.verify(trusted)?;
        let update = Arc::new(Update { signed, verified });
        keep(&mut lock(&self.updates), Arc::clone(&update));
        Ok(update)
    }

    /// Verifies an update that comes as what changed, for a node that holds some.
    pub(crate) fn changed(
        &self,
        changes: &Changes,
        held: &[Arc<Update>],
        trusted: &[AuthorityId],
    ) -> anyhow::Result<Arc<Update>> {
        let base = changes.base()?;
        let base = held.iter().find(|it| it.verified.digest() == base);
        let base = base.context("changes against an update that this node does not hold")?;
        let made = lock(&self.made).clone();
        if let Some((_, known)) = made.into_iter().rev().find(|(it, _)| it == changes) {
            return Ok(known.vouched(trusted)?);
        }
        let signed = changes.apply(|_| Some(&base.verified))?;
        let update = self.update(signed, trusted)?;
        keep(
            &mut lock(&self.made),
            (changes.clone(), Arc::clone(&update)),
        );
        Ok(update)
    }

    /// The end of the log that a mark and a checkpoint name together.
    pub(crate) fn end(
        &self,
        mark: &Signed<Mark>,
        checkpoint: &str,
        trusted: &[AuthorityId],
    ) -> anyhow::Result<LogEnd> {
        let same = |it: &&End| it.mark == *mark && it.checkpoint == checkpoint;
        if let Some(known) = lock(&self.ends).iter().rev().find(same) {
            return Ok(known.end);
        }
        let verified = mark.verify(trusted)?;
        let note = Note::parse(checkpoint.as_bytes())?;
        let origin = note.text().split('\n').next().unwrap_or_default();
        let read = Checkpoint::verify(&note, &Verifier::new(origin, verified.log_key)?)?;
        let end = LogEnd {
            events: read.size,
            root: wire::Digest(read.root.0),
        };
        anyhow::ensure!(end == verified.log, "the mark names another end of the log");
        let kept = End {
            mark: mark.clone(),
            checkpoint: checkpoint.to_owned(),
            end,
        };
        keep(&mut lock(&self.ends), kept);
        Ok(end)
    }
}

impl Update {
    /// Verifies the signature once more, for another node.
    fn vouched(self: Arc<Self>, trusted: &[AuthorityId]) -> Result<Arc<Self>, VerifyError> {
        self.signed.vouch(trusted, &self.verified.digest())?;
        Ok(self)
    }
}

/// Newest last; what is older than the newest few is of nobody's interest.
fn keep<T>(list: &mut Vec<T>, entry: T) {
    if list.len() >= KEPT {
        list.remove(0);
    }
    list.push(entry);
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const KEPT: usize = 16;
