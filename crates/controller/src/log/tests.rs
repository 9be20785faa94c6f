//! The log against tampering, tearing and a full disk.

use super::*;
use keys::MeshId;
use rand_core::OsRng;
use std::os::unix::fs::PermissionsExt as _;

fn at() -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap()
}

fn revoked(id: &str) -> Event {
    Event::TokenRevoked { id: id.into() }
}

fn open(path: &Path) -> Result<(Log, Vec<Entry>, Contents), LogError> {
    let mut entries = Vec::new();
    let (log, contents) = Log::open(path, |entry| entries.push(entry))?;
    Ok((log, entries, contents))
}

/// A log with three events in a fresh directory.
fn three() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = path_in(dir.path());
    let (mut log, entries, _) = open(&path).unwrap();
    assert!(entries.is_empty());
    let first = Event::MeshCreated {
        mesh: MeshId([1; 16]),
    };
    log.append(at(), &[first, revoked("a")], None).unwrap();
    log.append(at(), &[revoked("b")], None).unwrap();
    (dir, path)
}

fn tamper(path: &Path, sql: &str) -> String {
    Connection::open(path).unwrap().execute_batch(sql).unwrap();
    open(path).unwrap_err().to_string()
}

#[test]
fn what_was_appended_is_read_back_in_order() {
    let (_dir, path) = three();
    let (log, entries, _) = open(&path).unwrap();
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
    let (mut log, _, _) = open(&path).unwrap();
    let before = log.head();
    log.fill_up();
    let large = revoked(&"x".repeat(100_000));
    let error = log.append(at(), &[revoked("c"), large], None).unwrap_err();
    assert!(matches!(error, LogError::Full), "{error}");
    assert_eq!(log.head(), before);
    log.free_up();
    log.append(at(), &[revoked("c")], None).unwrap();
    drop(log);
    assert_eq!(open(&path).unwrap().1.len(), 4);
}

#[test]
fn a_signed_head_notices_a_cut_end() {
    let (_dir, path) = three();
    let authority = AuthoritySecret::generate(&mut OsRng);
    let (log, _, _) = open(&path).unwrap();
    let head = log.head();
    drop(log);
    let db = Connection::open(&path).unwrap();
    let signature = authority.sign(LABEL_HEAD, &head_bytes(&head)).0;
    db.execute(
        "INSERT INTO heads VALUES (?1, 1, ?2, ?3, ?4)",
        params![
            head.seq.cast_signed(),
            head.hash,
            authority.public().0,
            signature
        ],
    )
    .unwrap();
    drop(db);
    let signer = open(&path).unwrap().2.signer;
    assert_eq!(signer, Some(authority.public()));
    let error = tamper(&path, "DELETE FROM events WHERE seq = 3");
    assert!(error.contains("event 3"), "{error}");
}
