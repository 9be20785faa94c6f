//! The log against tampering, tearing and forging; its proofs, its snapshots and its retention.

use crate::audit::{Audit, verify_copy};
use crate::open::{Item, Trust};
use crate::*;
use keys::LogSecret;
use ledger::note::Verifier;
use ledger::{Checkpoint, Hash, proof};
use rand_core::OsRng;
use rusqlite::Connection;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// The same in every call.
fn secret() -> LogSecret {
    LogSecret::from_base64(&format!("{}=", "A".repeat(43))).unwrap()
}

fn verifier() -> Verifier {
    Verifier::new("test/log", secret().public()).unwrap()
}

fn new(kind: &str, n: usize) -> NewEntry {
    NewEntry {
        at_unix_ms: 1_700_000_000_000 + n as i64,
        by: n.is_multiple_of(2).then(|| "uid:0".to_owned()),
        kind: kind.to_owned(),
        body: format!("{{\"n\":{n}}}"),
    }
}

fn try_open(path: &Path) -> Result<(Store, Vec<Item>), LogError> {
    let mut items = Vec::new();
    let trust = Trust {
        secret: secret(),
        next: None,
    };
    let mut store = open(path, trust, |item| {
        let known = !matches!(&item, Item::Entry(entry) if entry.kind == "unknown");
        items.push(item);
        known
    })?;
    store.found("test/log");
    Ok((store, items))
}

/// A log with so many entries, every fifth of another kind.
fn log_of(count: usize) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = store::path_in(dir.path());
    let (mut store, items) = try_open(&path).unwrap();
    assert!(items.is_empty());
    let kind = |n: usize| {
        if n.is_multiple_of(5) {
            "decision"
        } else {
            "evidence"
        }
    };
    let entries: Vec<_> = (1..=count).map(|n| new(kind(n), n)).collect();
    for entries in entries.chunks(100) {
        store.append(entries, |_| Ok(())).unwrap();
    }
    (dir, path)
}

fn tamper(path: &Path, sql: &str) -> String {
    Connection::open(path).unwrap().execute_batch(sql).unwrap();
    try_open(path).unwrap_err().to_string()
}

fn audit(path: &Path) -> Result<Audit, LogError> {
    verify_copy(path, &verifier(), |_| {})
}

#[test]
fn what_was_appended_is_read_back_in_order() {
    let (_dir, path) = log_of(3);
    let (store, items) = try_open(&path).unwrap();
    assert_eq!((store.head().seq, items.len()), (3, 3));
    let page = store.page(1, 1).unwrap();
    let line =
        r#"{"seq":2,"at_unix_ms":1700000000002,"by":"uid:0","kind":"evidence","body":{"n":2}}"#;
    assert_eq!(page[0].line(), line);
    let odd = store.page(2, 9).unwrap();
    assert_eq!(
        odd[0].line(),
        line.replace("\"by\":\"uid:0\",", "")
            .replace('2', "3")
            .replace("3n", "2n")
    );
}

#[test]
fn a_changed_a_missing_and_an_added_entry_are_noticed() {
    for (sql, expected) in [
        ("UPDATE entries SET body = '{}' WHERE seq = 2", "checkpoint"),
        ("UPDATE entries SET kind = 'x' WHERE seq = 2", "checkpoint"),
        (
            "UPDATE entries SET author = NULL WHERE seq = 2",
            "checkpoint",
        ),
        (
            "UPDATE entries SET at_unix_ms = 5 WHERE seq = 3",
            "checkpoint",
        ),
        ("DELETE FROM entries WHERE seq = 1", "event 1"),
        ("DELETE FROM entries WHERE seq = 3", "event 3"),
        (
            "DELETE FROM entries WHERE seq = 3; DELETE FROM head",
            "nothing signs it",
        ),
        (
            "INSERT INTO entries VALUES (4, 5, NULL, 'decision', '{}')",
            "event 4",
        ),
        (
            "UPDATE head SET checkpoint = replace(checkpoint, '3', '2')",
            "checkpoint",
        ),
        ("UPDATE head SET checkpoint = 'text'", "not a signed note"),
        // An event that anybody could have put there asks for no newer version.
        (
            "INSERT INTO entries VALUES (4, 5, NULL, 'unknown', '{}')",
            "event 4",
        ),
    ] {
        let (_dir, path) = log_of(3);
        let error = tamper(&path, sql);
        assert!(error.contains(expected), "{sql}: {error}");
        assert!(audit(&path).is_err(), "{sql}");
    }
}

#[test]
fn a_log_that_another_key_signed_anew_is_refused() {
    let (_dir, path) = log_of(3);
    let (store, _) = try_open(&path).unwrap();
    let (checkpoint, key) = (store.checkpoint().to_owned(), store.key());
    drop(store);
    let note = ledger::note::Note::parse(checkpoint.as_bytes()).unwrap();
    let forged = Checkpoint::parse(note.text()).unwrap();
    let forged = forged
        .sign(&LogSecret::generate(&mut OsRng))
        .unwrap()
        .to_string();
    let db = Connection::open(&path).unwrap();
    db.execute("UPDATE head SET checkpoint = ?1", [forged])
        .unwrap();
    drop(db);
    let error = try_open(&path).unwrap_err();
    assert!(
        matches!(error, LogError::Signer(wanted) if wanted == key),
        "{error}"
    );
}

#[test]
fn a_known_end_of_an_unknown_kind_asks_for_a_newer_version() {
    let (_dir, path) = log_of(3);
    let (mut store, _) = try_open(&path).unwrap();
    store
        .append(&[new("unknown", 4), new("decision", 5)], |_| Ok(()))
        .unwrap();
    drop(store);
    let error = try_open(&path).unwrap_err();
    assert!(matches!(error, LogError::Newer(4)), "{error}");
}

#[test]
fn the_log_and_its_side_files_are_private_and_used_by_one() {
    let (dir, path) = log_of(3);
    let held = try_open(&path).unwrap();
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let mode = file.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    assert!(matches!(try_open(&path).unwrap_err(), LogError::InUse));
    drop(held);
}

#[test]
fn a_file_that_is_no_log_is_called_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let path = store::path_in(dir.path());
    std::fs::write(&path, [0x5A; 8192]).unwrap();
    assert!(matches!(try_open(&path), Err(LogError::Damaged(_))));
}

#[test]
fn what_is_written_beside_the_entries_fails_with_them() {
    let (_dir, path) = log_of(3);
    let (mut store, _) = try_open(&path).unwrap();
    let (head, checkpoint) = (store.head(), store.checkpoint().to_owned());
    let failed = store.append(&[new("decision", 4)], |_| Err(LogError::Full));
    assert!(failed.is_err());
    assert_eq!(
        (store.head(), store.checkpoint()),
        (head, checkpoint.as_str())
    );
    store.append(&[new("decision", 4)], |_| Ok(())).unwrap();
    drop(store);
    assert_eq!(try_open(&path).unwrap().1.len(), 4);
}

#[test]
fn any_entry_and_any_earlier_end_can_be_proved() {
    let (_dir, path) = log_of(700);
    let (store, _) = try_open(&path).unwrap();
    let (size, root) = (700, Hash(store.head().hash));
    for seq in [1, 2, 255, 256, 257, 512, 513, 700] {
        let proved = store.prove(seq).unwrap();
        let entry = proved.entry.unwrap();
        let leaf = Hash::of_entry(entry.line().as_bytes());
        let checked = proof::check_inclusion(leaf, seq - 1, (size, root), &proved.hashes);
        assert_eq!((entry.seq, checked), (seq, Ok(())));
        let old = store.root_at(seq).unwrap().unwrap();
        let hashes = store.consistency(seq, size).unwrap().unwrap();
        assert_eq!(
            proof::check_consistency((seq, old), (size, root), &hashes),
            Ok(())
        );
    }
    for seq in [0, 701, u64::MAX] {
        assert!(matches!(store.prove(seq), Err(LogError::Number(_))));
    }
    assert_eq!(store.root_at(701).unwrap(), None);
    assert_eq!(store.consistency(0, 701).unwrap(), None);
}

#[test]
fn a_snapshot_stands_for_what_is_before_it() {
    let (_dir, path) = log_of(700);
    let (mut store, _) = try_open(&path).unwrap();
    store.keep_snapshot(b"state").unwrap();
    store.append(&[new("decision", 701)], |_| Ok(())).unwrap();
    let head = store.head();
    drop(store);
    let (store, items) = try_open(&path).unwrap();
    assert_eq!((store.head(), store.snapshot_seq()), (head, 700));
    assert!(matches!(&items[0], Item::State { seq: 700, state } if state == b"state"));
    assert!(matches!(&items[1], Item::Entry(entry) if entry.seq == 701));
    assert_eq!(items.len(), 2);
    drop(store);
    assert_eq!(audit(&path).unwrap().snapshot, 700);
    for sql in [
        "UPDATE snapshot SET state = x'00'",
        "UPDATE snapshot SET seq = 699",
        "UPDATE snapshot SET root = zeroblob(32)",
    ] {
        std::fs::copy(&path, path.with_extension("copy")).unwrap();
        let error = tamper(&path.with_extension("copy"), sql);
        assert!(
            error.contains("not signed by the log's key"),
            "{sql}: {error}"
        );
    }
    for sql in [
        "DELETE FROM tiles WHERE level = 0 AND place = 1",
        "UPDATE tiles SET hashes = zeroblob(8192) WHERE level = 0 AND place = 1",
        "UPDATE entries SET body = '{}' WHERE seq = 690",
    ] {
        std::fs::copy(&path, path.with_extension("copy")).unwrap();
        let error = tamper(&path.with_extension("copy"), sql);
        assert!(error.contains("snapshot"), "{sql}: {error}");
    }
}

#[test]
fn pruned_entries_can_be_proved_and_no_other_may_be_missing() {
    let (_dir, path) = log_of(700);
    let (mut store, _) = try_open(&path).unwrap();
    let prune = |store: &mut Store, before, most| {
        let pruned = store.prune("evidence", before, most, 1).unwrap();
        pruned.map_or(0, |pruned| pruned.count)
    };
    let cut = 1_700_000_000_301;
    assert_eq!(prune(&mut store, cut, 1_000), 0, "no snapshot");
    store.keep_snapshot(b"state").unwrap();
    let before = store.prove(7).unwrap();
    assert_eq!(prune(&mut store, cut, 100), 80);
    assert_eq!(prune(&mut store, cut, 1_000), 160);
    assert_eq!(prune(&mut store, cut, 1_000), 0);
    let proved = store.prove(7).unwrap();
    assert_eq!((proved.entry, proved.leaf), (None, before.leaf));
    assert!(store.prove(5).unwrap().entry.is_some());
    // Not even what is old enough, where its tile is not complete.
    assert_eq!(prune(&mut store, i64::MAX, 1_000), 170);
    drop(store);
    assert_eq!(audit(&path).unwrap().pruned, 410);
    assert_eq!(try_open(&path).unwrap().1.len(), 1 + 3);
    for sql in [
        "DELETE FROM entries WHERE seq = 5",
        "DELETE FROM entries WHERE seq = 515",
        "INSERT INTO entries VALUES (7, 1700000000007, NULL, 'evidence', '{\"n\":7}')",
        "UPDATE entries SET body = '{}' WHERE seq = 10",
        "UPDATE tiles SET hashes = zeroblob(8192) WHERE level = 0 AND place = 0",
    ] {
        let copy = path.with_extension("copy");
        std::fs::copy(&path, &copy).unwrap();
        Connection::open(&copy).unwrap().execute_batch(sql).unwrap();
        assert!(audit(&copy).is_err(), "{sql}");
    }
}

#[test]
fn a_new_key_is_vouched_for_by_the_old_one() {
    let (_dir, path) = log_of(3);
    let (mut store, _) = try_open(&path).unwrap();
    let old = store.verifier().unwrap();
    let next = LogSecret::generate(&mut OsRng);
    let line = next.expose_base64();
    store.keep_snapshot(b"state").unwrap();
    store
        .append_with_new_key(&[new("decision", 4)], next, |_| Ok(()))
        .unwrap();
    let note = ledger::note::Note::parse(store.checkpoint().as_bytes()).unwrap();
    assert!(note.verify(&old).is_ok() && note.verify(&store.verifier().unwrap()).is_ok());
    store.append(&[new("decision", 5)], |_| Ok(())).unwrap();
    drop(store);
    assert!(matches!(try_open(&path).unwrap_err(), LogError::Signer(_)));
    let next = || LogSecret::from_base64(&line).unwrap();
    let open_with = |secret, next| open(&path, Trust { secret, next }, |_| true);
    assert_eq!(open_with(next(), None).unwrap().head().seq, 5);
    // As a crash between the commit and the file's new name leaves them.
    let store = open_with(secret(), Some(next())).unwrap();
    assert_eq!(store.key(), next().public());
    drop(store);
    let (_dir, path) = log_of(3);
    let trust = Trust {
        secret: secret(),
        next: Some(next()),
    };
    let store = open(&path, trust, |_| true).unwrap();
    assert_eq!(store.key(), secret().public(), "it has not signed");
}

#[test]
fn a_copy_is_verified_without_being_changed() {
    let (_dir, path) = log_of(300);
    let before = std::fs::read(&path).unwrap();
    let found = audit(&path).unwrap();
    assert_eq!(
        (found.size, found.pruned, found.origin.as_str()),
        (300, 0, "test/log")
    );
    assert_eq!(std::fs::read(&path).unwrap(), before);
    let other = Verifier::new("test/log", LogSecret::generate(&mut OsRng).public()).unwrap();
    assert!(verify_copy(&path, &other, |_| {}).is_err());
}
