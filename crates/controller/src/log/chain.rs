//! The chain of events, and the signature of its end.
//!
//! ```text
//! hash(seq) = SHA-256("meshd/v1 event" ‖ hash(seq - 1) ‖ seq ‖ at ‖ len(kind) ‖ kind ‖ len(body) ‖ body)
//! ```
//!
//! Integers are big-endian, 8 bytes; `hash(0)` is zeros. Hashes alone anybody can make: a log is whole only if
//! its end is the one that the authority signed. Repairs nothing.

use super::{Entry, Head, LogError};
use crate::event::Event;
use jiff::Timestamp;
use keys::{AuthorityId, AuthoritySecret, Signature};
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use sha2::{Digest as _, Sha256};

pub(super) fn insert(
    transaction: &Transaction<'_>,
    head: Head,
    at: Timestamp,
    event: &Event,
) -> Result<Head, LogError> {
    let (kind, body) = event.columns();
    let (seq, at) = (head.seq + 1, at.as_millisecond());
    let hash = chain(&head.hash, seq, at, &kind, &body);
    transaction
        .prepare_cached(
            "INSERT INTO events (seq, at_unix_ms, kind, body, hash) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![seq.cast_signed(), at, kind, body, hash])?;
    Ok(Head { seq, hash })
}

/// Replaces the signature of the log's end. An older one must not be left: it would make a log that was
/// cut there look whole.
pub(super) fn sign_head(
    transaction: &Transaction<'_>,
    head: Head,
    authority: &AuthoritySecret,
) -> Result<(), LogError> {
    let signature = authority.sign(LABEL_HEAD, &head_bytes(&head)).0;
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO head (one, seq, hash, signer, signature) \
             VALUES (1, ?1, ?2, ?3, ?4)",
        )?
        .execute(params![
            head.seq.cast_signed(),
            head.hash,
            authority.public().0,
            signature
        ])?;
    Ok(())
}

/// Reads every event against the chain; returns the end of it, and the first event of an unknown kind. No
/// event behind that one is told.
pub(super) fn read_chain(
    db: &Connection,
    mut each: impl FnMut(Entry),
) -> Result<(Head, Option<u64>), LogError> {
    let mut query =
        db.prepare("SELECT seq, at_unix_ms, kind, body, hash FROM events ORDER BY seq")?;
    let mut rows = query.query([])?;
    let mut head = Head {
        seq: 0,
        hash: [0; 32],
    };
    let mut unknown = None;
    while let Some(row) = rows.next()? {
        let seq = head.seq + 1;
        let broken = |what| LogError::Chain { seq, what };
        if row.get::<_, i64>(0)?.cast_unsigned() != seq {
            return Err(broken("it is missing"));
        }
        let at: i64 = row.get(1)?;
        let text = |column| row.get::<_, String>(column).map_err(|_| broken("no text"));
        let (kind, body) = (text(2)?, text(3)?);
        let hash: [u8; 32] = row.get(4).map_err(|_| broken("no hash"))?;
        if hash != chain(&head.hash, seq, at, &kind, &body) {
            return Err(broken("its hash differs"));
        }
        head = Head { seq, hash };
        let at = Timestamp::from_millisecond(at).map_err(|_| broken("its time is impossible"))?;
        match Event::from_columns(&kind, &body) {
            Ok(event) if unknown.is_none() => each(Entry { at, event }),
            Ok(_) => {}
            Err(_) => drop(unknown.get_or_insert(seq)),
        }
    }
    Ok((head, unknown))
}

/// Holds the end of the chain against its signature: the hashes alone anybody can make.
pub(super) fn check_head(
    db: &Connection,
    head: Head,
    trusted: &[AuthorityId],
) -> Result<Option<AuthorityId>, LogError> {
    type Row = (i64, [u8; 32], [u8; 32], [u8; 64]);
    let signed: Option<Row> = db
        .query_row("SELECT seq, hash, signer, signature FROM head", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })
        .optional()?;
    let Some((seq, hash, signer, signature)) = signed else {
        if head.seq == 0 {
            return Ok(None);
        }
        let (seq, what) = (head.seq, "nothing signs it");
        return Err(LogError::Chain { seq, what });
    };
    let signed = Head {
        seq: seq.cast_unsigned(),
        hash,
    };
    let (seq, signer) = (signed.seq, AuthorityId(signer));
    let broken = |seq, what| Err(LogError::Chain { seq, what });
    if !signer.verifies(LABEL_HEAD, &head_bytes(&signed), &Signature(signature)) {
        return broken(seq, "the signature of its hash does not verify");
    }
    if !trusted.contains(&signer) {
        return Err(LogError::Signer(signer));
    }
    if signed.seq > head.seq {
        return broken(seq, "it was signed and is missing");
    }
    if signed.seq < head.seq {
        return broken(seq + 1, "it was added behind the signed end");
    }
    if signed != head {
        return broken(seq, "its signed hash differs");
    }
    Ok(Some(signer))
}

pub(super) fn chain(previous: &[u8; 32], seq: u64, at: i64, kind: &str, body: &str) -> [u8; 32] {
    Sha256::new()
        .chain_update(LABEL_EVENT)
        .chain_update(previous)
        .chain_update(seq.to_be_bytes())
        .chain_update(at.to_be_bytes())
        .chain_update((kind.len() as u64).to_be_bytes())
        .chain_update(kind)
        .chain_update((body.len() as u64).to_be_bytes())
        .chain_update(body)
        .finalize()
        .into()
}

pub(super) fn head_bytes(head: &Head) -> Vec<u8> {
    [head.seq.to_be_bytes().as_slice(), &head.hash].concat()
}

const LABEL_EVENT: &[u8] = b"meshd/v1 event";
pub(super) const LABEL_HEAD: &[u8] = b"meshd/v1 log head";
