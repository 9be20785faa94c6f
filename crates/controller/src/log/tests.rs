//! The log against tampering, tearing and a full disk.

use super::chain::{LABEL_HEAD, chain, head_bytes};
use super::*;
use keys::MeshId;
use rand_core::OsRng;
use std::ops::Add as _;
use std::os::unix::fs::PermissionsExt as _;

fn at() -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap()
}

fn revoked(id: &str) -> Event {
    Event::TokenRevoked { id: id.into() }
}

fn open(path: &Path) -> Result<(Log, Vec<Entry>), LogError> {
    let mut entries = Vec::new();
    let trusted = [authority().public()];
    let (log, _) = Log::open(path, &trusted, |entry| entries.push(entry))?;
    Ok((log, entries))
}

/// The same in every call.
fn authority() -> AuthoritySecret {
    AuthoritySecret::from_base64(&"A".repeat(43).add("=")).unwrap()
}

/// A log with three events in a fresh directory.
fn three() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = path_in(dir.path());
    let (mut log, entries) = open(&path).unwrap();
    assert!(entries.is_empty());
    let first = Event::MeshCreated {
        mesh: MeshId([1; 16]),
    };
    log.append(at(), &[first, revoked("a")], &[], &authority())
        .unwrap();
    log.append(at(), &[revoked("b")], &[], &authority())
        .unwrap();
    (dir, path)
}

fn tamper(path: &Path, sql: &str) -> String {
    Connection::open(path).unwrap().execute_batch(sql).unwrap();
    open(path).unwrap_err().to_string()
}

#[test]
fn what_was_appended_is_read_back_in_order() {
    let (_dir, path) = three();
    let (log, entries) = open(&path).unwrap();
    assert_eq!(log.head().seq, 3);
    assert_eq!(entries[2].event, revoked("b"));
    assert_eq!(entries[2].at, at());
    let page = log.page(1, 1).unwrap();
    assert_eq!((page.events.len(), page.head), (1, 3));
    assert_eq!(page.events[0].kind, "token_revoked");
    assert_eq!(page.events[0].body["id"], "a");
}

#[test]
fn a_changed_a_missing_and_a_moved_event_are_named() {
    let (_dir, path) = three();
    let error = tamper(
        &path,
        "UPDATE events SET body = '{\"id\":\"x\"}' WHERE seq = 2",
    );
    assert!(error.contains("event 2"), "{error}");
    let (_dir, path) = three();
    let error = tamper(&path, "DELETE FROM events WHERE seq = 1");
    assert!(error.contains("event 1"), "{error}");
    let (_dir, path) = three();
    let error = tamper(&path, "UPDATE events SET at_unix_ms = 5 WHERE seq = 3");
    assert!(error.contains("event 3"), "{error}");
}

#[test]
fn the_log_and_its_side_files_are_private_and_used_by_one() {
    let (dir, path) = three();
    let held = open(&path).unwrap();
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let mode = file.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    assert!(matches!(open(&path).unwrap_err(), LogError::InUse));
    drop(held);
}

#[test]
fn a_file_that_is_no_log_is_called_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let path = path_in(dir.path());
    std::fs::write(&path, [0x5A; 8192]).unwrap();
    assert!(matches!(open(&path), Err(LogError::Damaged(_))));
}

#[test]
fn a_full_disk_leaves_the_log_as_it_was() {
    let (_dir, path) = three();
    let (mut log, _) = open(&path).unwrap();
    let before = log.head();
    log.fill_up();
    let large = revoked(&"x".repeat(100_000));
    let events = [revoked("c"), large];
    let error = log.append(at(), &events, &[], &authority()).unwrap_err();
    assert!(matches!(error, LogError::Full), "{error}");
    assert_eq!(log.head(), before);
    log.free_up();
    log.append(at(), &[revoked("c")], &[], &authority())
        .unwrap();
    drop(log);
    assert_eq!(open(&path).unwrap().1.len(), 4);
}

#[test]
fn nothing_can_be_appended_or_cut_off_without_the_key() {
    // With the right hash, as anybody can compute it.
    let (_dir, path) = three();
    let forged = |path: &Path| {
        let db = Connection::open(path).unwrap();
        let before: [u8; 32] = db
            .query_row("SELECT hash FROM events WHERE seq = 3", [], |row| {
                row.get(0)
            })
            .unwrap();
        let (kind, body) = Event::NodeReadmitted {
            name: "a".parse().unwrap(),
        }
        .columns();
        let hash = chain(&before, 4, 5, &kind, &body);
        db.execute(
            "INSERT INTO events VALUES (4, 5, ?1, ?2, ?3)",
            params![kind, body, hash],
        )
        .unwrap();
        hash
    };
    forged(&path);
    let error = open(&path).unwrap_err().to_string();
    assert!(
        error.contains("event 4") && error.contains("added"),
        "{error}"
    );

    let (_dir, path) = three();
    let error = tamper(&path, "DELETE FROM events WHERE seq = 3");
    assert!(
        error.contains("event 3") && error.contains("missing"),
        "{error}"
    );
    let (_dir, path) = three();
    let error = tamper(&path, "DELETE FROM events WHERE seq = 3; DELETE FROM head");
    assert!(error.contains("nothing signs it"), "{error}");
    let (_dir, path) = three();
    let error = tamper(
        &path,
        "DELETE FROM events WHERE seq = 3; UPDATE head SET seq = 2",
    );
    assert!(error.contains("does not verify"), "{error}");
    // Signed anew by a key of the forger's own.
    let (_dir, path) = three();
    let hash = forged(&path);
    let forger = AuthoritySecret::generate(&mut OsRng);
    let signature = forger
        .sign(LABEL_HEAD, &head_bytes(&Head { seq: 4, hash }))
        .0;
    let db = Connection::open(&path).unwrap();
    db.execute(
        "UPDATE head SET seq = 4, hash = ?1, signer = ?2, signature = ?3",
        params![hash, forger.public().0, signature],
    )
    .unwrap();
    drop(db);
    let error = open(&path).unwrap_err();
    assert!(matches!(error, LogError::Signer(key) if key == forger.public()));
}

#[test]
fn every_commit_leaves_one_signature_and_none_of_an_earlier_end() {
    let (_dir, path) = three();
    let rows = || {
        let db = Connection::open(&path).unwrap();
        let count = db.query_row("SELECT count(*), max(seq) FROM head", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        });
        count.unwrap()
    };
    assert_eq!(rows(), (1, 3));
    let (mut log, _) = open(&path).unwrap();
    log.append(at(), &[revoked("c")], &[], &authority())
        .unwrap();
    drop(log);
    assert_eq!(rows(), (1, 4));
}

#[test]
fn on_a_full_disk_evidence_is_refused_and_the_rest_has_room() {
    let (_dir, path) = three();
    let (mut log, _) = open(&path).unwrap();
    log.tidy(3, Duration::from_secs(1));
    assert!(!log.is_short_of_room());
    log.fill_up();
    // The test's way of filling it up leaves no room for anything; but the reserve has been given up.
    let large = revoked(&"x".repeat(100_000));
    assert!(log.append(at(), &[large], &[], &authority()).is_err());
    assert!(log.is_short_of_room());
    log.free_up();
    let evidence = Event::EvidenceAccepted(Box::new(crate::event::Accepted {
        name: "a".parse().unwrap(),
        digest: Digest([1; 32]),
        overall: Some(0.9),
        metrics: std::collections::BTreeMap::new(),
        harness: "h".into(),
        suite: "s".into(),
        suite_version: "1".into(),
        finished_at: at(),
        signer: wire::evidence::Signer::Node(keys::NodeId([1; 32])),
        nonce: "0".repeat(32),
        envelope: String::new(),
    }));
    let evidence = [evidence];
    let refused = log.append(at(), &evidence, &[], &authority());
    assert!(matches!(refused, Err(LogError::Full)));
    log.append(at(), &[revoked("d")], &[], &authority())
        .unwrap();
    log.tidy(3, Duration::from_secs(10));
    assert!(!log.is_short_of_room());
    log.append(at(), &evidence, &[], &authority()).unwrap();
}

#[test]
fn an_event_that_anybody_put_there_asks_for_no_newer_version() {
    let (_dir, path) = three();
    let db = Connection::open(&path).unwrap();
    let before: [u8; 32] = db
        .query_row("SELECT hash FROM events WHERE seq = 3", [], |row| {
            row.get(0)
        })
        .unwrap();
    let hash = chain(&before, 4, 5, "node_married", "{}");
    db.execute(
        "INSERT INTO events VALUES (4, 5, 'node_married', '{}', ?1)",
        params![hash],
    )
    .unwrap();
    drop(db);
    let error = open(&path).unwrap_err();
    assert!(matches!(error, LogError::Chain { seq: 4, .. }), "{error}");
}
