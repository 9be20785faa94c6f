//! Updates that this process has verified, so that ten thousand nodes need not hold ten thousand rosters.
//!
//! A node that receives an update whose bytes are those of one here, signature included, shares that one: the same
//! bytes have the same value, the same digest, break the same rules and were signed by the same key. Signatures are
//! therefore verified once for the same bytes, those of marks and checkpoints too. A fleet's nodes have a processor
//! each for that; here it would be taken from the controller. With `--each` every node verifies the signature of every
//! update. Consistency proofs, which differ from node to node, are checked by every node.

use anyhow::Context as _;
use keys::AuthorityId;
use ledger::Checkpoint;
use ledger::note::{Note, Verifier};
use std::sync::{Arc, Mutex, PoisonError};
use wire::endpoints::Entries;
use wire::log::LogEnd;
use wire::{Changes, EpochUpdate, Mark, Signed, Verified, VerifyError};

/// Everything that was verified.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Every node verifies the signature of every update.
    each_verifies: bool,
    places: Mutex<Vec<Entries>>,
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
    pub(crate) fn new(each_verifies: bool) -> Self {
        Self {
            each_verifies,
            ..Self::default()
        }
    }

    /// Verifies an update.
    pub(crate) fn update(
        &self,
        signed: Signed<EpochUpdate>,
        trusted: &[AuthorityId],
    ) -> Result<Arc<Update>, VerifyError> {
        let known = lock(&self.updates)
            .iter()
            .rev()
            .find(|it| it.signed == signed)
            .cloned();
        if let Some(known) = known {
            return self.vouched(known, trusted);
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
        let mut known = lock(&self.made)
            .iter()
            .rev()
            .find(|(it, _)| it == changes)
            .cloned();
        if let Some((_, known)) = known.take() {
            return Ok(self.vouched(known, trusted)?);
        }
        let signed = changes.apply(|_| Some(&base.verified))?;
        let update = self.update(signed, trusted)?;
        keep(
            &mut lock(&self.made),
            (changes.clone(), Arc::clone(&update)),
        );
        Ok(update)
    }

    /// The list of places: decoded once for the same bytes.
    pub(crate) fn places(&self, entries: &Entries) -> anyhow::Result<()> {
        if lock(&self.places).iter().rev().any(|it| it == entries) {
            return Ok(());
        }
        entries.decode()?;
        keep(&mut lock(&self.places), entries.clone());
        Ok(())
    }

    /// The same update for another node.
    fn vouched(
        &self,
        update: Arc<Update>,
        trusted: &[AuthorityId],
    ) -> Result<Arc<Update>, VerifyError> {
        if self.each_verifies {
            update.signed.vouch(trusted, &update.verified.digest())?;
        }
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
