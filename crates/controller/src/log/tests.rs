//! The log on a full disk. What happens to one that was tampered with is `record`'s.

use super::*;
use keys::MeshId;
use std::path::PathBuf;

fn at() -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap()
}

fn revoked(id: &str) -> Event {
    Event::TokenRevoked { id: id.into() }
}

fn open(path: &Path) -> Log {
    let secret = LogSecret::from_base64(&format!("{}=", "A".repeat(43))).unwrap();
    let mut opened = Log::open(path, secret, &[AuthorityId([2; 32])]).unwrap();
    opened.log.found("test/log");
    opened.log
}

/// A log with three events in a fresh directory.
fn three() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = path_in(dir.path());
    let mut log = open(&path);
    let first = Event::MeshCreated {
        mesh: MeshId([1; 16]),
        authority: AuthorityId([2; 32]),
    };
    let by = Some(By::Uid(1_000));
    log.append(at(), None, &[first, revoked("a")], &[]).unwrap();
    log.append(at(), by, &[revoked("b")], &[]).unwrap();
    (dir, path)
}

#[test]
fn what_was_appended_is_read_back_in_order_with_its_author() {
    let (_dir, path) = three();
    let log = open(&path);
    assert_eq!(log.head().seq, 3);
    let page = log.page(1, 2).unwrap();
    assert_eq!((page.events.len(), page.head), (2, 3));
    assert_eq!(page.events[0].kind, "token_revoked");
    assert_eq!(page.events[0].body["id"], "a");
    let by: Vec<_> = page
        .events
        .iter()
        .map(|event| event.by.as_deref())
        .collect();
    assert_eq!(by, [None, Some("uid:1000")]);
}

#[test]
fn the_mesh_of_another_authority_is_refused() {
    let (_dir, path) = three();
    let secret = LogSecret::from_base64(&format!("{}=", "A".repeat(43))).unwrap();
    let error = Log::open(&path, secret, &[AuthorityId([3; 32])]).unwrap_err();
    assert!(matches!(error, LogError::Authority(AuthorityId(bytes)) if bytes == [2; 32]));
}

#[test]
fn a_full_disk_leaves_the_log_as_it_was() {
    let (_dir, path) = three();
    let mut log = open(&path);
    let before = log.head();
    log.fill_up();
    let large = revoked(&"x".repeat(100_000));
    let events = [revoked("c"), large];
    let error = log.append(at(), None, &events, &[]).unwrap_err();
    assert!(matches!(error, LogError::Full), "{error}");
    assert_eq!(log.head(), before);
    log.free_up();
    log.append(at(), None, &[revoked("c")], &[]).unwrap();
    drop(log);
    assert_eq!(open(&path).head().seq, 4);
}

#[test]
fn on_a_full_disk_evidence_is_refused_and_the_rest_has_room() {
    let (_dir, path) = three();
    let mut log = open(&path);
    log.tidy(3, Duration::from_secs(1));
    assert!(!log.is_short_of_room());
    log.fill_up();
    // The test's way of filling it up leaves no room for anything; but the reserve has been given up.
    let large = revoked(&"x".repeat(100_000));
    assert!(log.append(at(), None, &[large], &[]).is_err());
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
        lower_is_better: Default::default(),
        samples: 1,
        boot_ms: 0,
        nonce: "0".repeat(32),
        envelope: String::new(),
    }));
    let evidence = [evidence];
    let refused = log.append(at(), None, &evidence, &[]);
    assert!(matches!(refused, Err(LogError::Full)));
    log.append(at(), None, &[revoked("d")], &[]).unwrap();
    log.tidy(3, Duration::from_secs(10));
    assert!(!log.is_short_of_room());
    log.append(at(), None, &evidence, &[]).unwrap();
}
