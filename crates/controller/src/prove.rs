//! The log as a transparency log: its checkpoint and its proofs, for whoever asks. Reads the log, and refuses
//! to change anything.

use crate::log::{Log, LogError};
use crate::request::{Answer, LogRequest};
use ::admin::Refused;
use ledger::Hash;
use std::collections::BTreeMap;
use wire::admin::{LogConsistency, LogEntries, LogEntry, LogProof, LogStatus};

/// Answers a question about the log.
///
/// # Errors
/// [`Refused`], where there is no such event, or the log cannot be read.
pub(crate) fn prove(log: &Log, request: LogRequest) -> Result<Answer, Refused> {
    let answer = match request {
        LogRequest::Status => status(log).map(Answer::Log),
        LogRequest::Proof { seq } => proof(log, seq).map(|it| Answer::LogProof(Box::new(it))),
        LogRequest::Consistency { from, to } => {
            consistency(log, from, to).map(|it| Answer::LogConsistency(Box::new(it)))
        }
        LogRequest::Entries { after, limit } => {
            entries(log, after, limit.min(MAX_ENTRIES)).map(Answer::LogEntries)
        }
    };
    answer.map_err(|error| match error {
        LogError::Number(what) => Refused::new(
            404,
            what,
            "`meshctl log checkpoint` shows how many events there are",
        ),
        error => {
            let what = format!("the event log cannot be read: {error}");
            Refused::new(
                500,
                what,
                "look at the controller's disk; a copy is verified with `meshctl log verify`",
            )
        }
    })
}

fn status(log: &Log) -> Result<LogStatus, LogError> {
    let store = log.store();
    Ok(LogStatus {
        origin: store.origin().to_owned(),
        verifier: verifier(log)?,
        checkpoint: store.checkpoint().to_owned(),
        size: log.events(),
        snapshot: store.snapshot_seq(),
        witness: None,
    })
}

fn proof(log: &Log, seq: u64) -> Result<LogProof, LogError> {
    let proof = log.store().prove(seq)?;
    Ok(LogProof {
        seq,
        line: proof.entry.map(|entry| entry.line()),
        leaf: proof.leaf.to_string(),
        size: proof.size,
        proof: proof.hashes.iter().map(Hash::to_string).collect(),
        checkpoint: proof.checkpoint,
        verifier: verifier(log)?,
    })
}

fn consistency(log: &Log, from: u64, to: Option<u64>) -> Result<LogConsistency, LogError> {
    let (store, size) = (log.store(), log.events());
    let to = to.unwrap_or(size);
    let none = || {
        let what = format!(
            "there is no way from {from} to {to} events: the log has {size}, and the earlier log has fewer than \
             the later one"
        );
        LogError::Number(what)
    };
    let proof = store.consistency(from, to)?.ok_or_else(none)?;
    let root = |size| Ok::<_, LogError>(store.root_at(size)?.ok_or_else(none)?.to_string());
    Ok(LogConsistency {
        from,
        from_root: root(from)?,
        to,
        to_root: root(to)?,
        proof: proof.iter().map(Hash::to_string).collect(),
        checkpoint: store.checkpoint().to_owned(),
        verifier: verifier(log)?,
    })
}

fn entries(log: &Log, after: u64, limit: u64) -> Result<LogEntries, LogError> {
    let store = log.store();
    let leaves = store.leaves(after, limit)?;
    let last = after + leaves.len() as u64;
    let mut lines: BTreeMap<u64, String> = BTreeMap::new();
    for entry in store.page(after, limit)? {
        if entry.seq <= last {
            lines.insert(entry.seq, entry.line());
        }
    }
    let numbered = (after + 1..).zip(leaves);
    let entries = numbered.map(|(seq, leaf)| LogEntry {
        seq,
        leaf: leaf.to_string(),
        line: lines.remove(&seq),
    });
    Ok(LogEntries {
        entries: entries.collect(),
        size: log.events(),
    })
}

fn verifier(log: &Log) -> Result<String, LogError> {
    Ok(log.store().verifier()?.to_string())
}

/// A page's most entries: an entry has up to 64 KiB, and a reply is read up to 64 MiB.
const MAX_ENTRIES: u64 = 500;
