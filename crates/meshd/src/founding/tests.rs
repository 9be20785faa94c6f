//! State directories that lack something.

use super::*;
use std::os::unix::fs::PermissionsExt;

/// A controller's state directory.
struct Place {
    _temp: tempfile::TempDir,
    path: PathBuf,
}

impl Place {
    /// With a mesh in it.
    fn with_mesh() -> Self {
        let place = Self::empty();
        place.start(false).unwrap();
        place
    }

    fn empty() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("state");
        Self { _temp: temp, path }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.file(name)).unwrap();
    }

    /// Starts and stops a controller; its first line of the log, and its keys.
    fn start(&self, new_mesh: bool) -> Result<Mesh, String> {
        self.begin(new_mesh, None, true)
    }

    fn begin(&self, new: bool, adopt: Option<AuthorityId>, opens: bool) -> Result<Mesh, String> {
        let state = StateDir::open(&self.path).map_err(|error| error.to_string())?;
        let founding = controller(&state, new, adopt).map_err(|error| error.to_string())?;
        let keys = founding.keys;
        let authority = keys.authority.public();
        if opens {
            let trusted: Vec<_> = adopt.into_iter().chain([authority]).collect();
            let path = self.file(DATABASE);
            let opened = if founding.founding {
                Log::open(&path, keys.log, &trusted)
            } else {
                Log::resume(&path, keys.log, &trusted)
            };
            let mut log = opened.map_err(|error| error.to_string())?.log;
            if log.head().seq == 0 {
                let mesh = keys::MeshId(rand());
                let event = ::controller::event::Event::MeshCreated { mesh, authority };
                let at = "2026-11-25T00:00:00Z".parse().unwrap();
                log.found("test/log");
                log.append(at, None, &[event], &[]).unwrap();
            }
            founded(&state).unwrap();
            let hash = log.head().hash;
            return Ok((keys.connection.public(), authority, hash));
        }
        Ok((keys.connection.public(), authority, [0; 32]))
    }

    fn cut(&self, len: u64) {
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).open(self.file(DATABASE));
        file.unwrap().set_len(len).unwrap();
    }

    fn sql(&self, statements: &str) {
        let db = rusqlite::Connection::open(self.file(DATABASE)).unwrap();
        db.execute_batch(statements).unwrap();
    }

    /// All files that are not the founding's own, with their content.
    fn content(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let entries = std::fs::read_dir(&self.path).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let files = paths.filter(|path| path.is_file() && !path.ends_with("controller.db-wal"));
        let mut content: Vec<_> = files
            .map(|path| (path.clone(), std::fs::read(path).unwrap()))
            .collect();
        content.sort();
        content
    }
}

/// Both public keys, and the end of the log.
type Mesh = (keys::ControllerId, AuthorityId, [u8; 32]);

fn rand() -> [u8; 16] {
    let key = NodeSecret::generate(&mut OsRng).public().0;
    std::array::from_fn(|i| key[i])
}

/// A way to lose a mesh, and the words that name the loss.
type Loss = (&'static str, fn(&Place), &'static [&'static str]);

const LOSSES: [Loss; 20] = [
    (
        "no log",
        |p| p.remove(DATABASE),
        &["controller.db is missing"],
    ),
    (
        "an empty log",
        |p| std::fs::write(p.file(DATABASE), "").unwrap(),
        &["controller.db is empty"],
    ),
    ("a log cut in the middle", |p| p.cut(5_000), &["damaged"]),
    (
        "no log but its last commits",
        |p| {
            std::fs::rename(p.file(DATABASE), p.file("controller.db-wal")).unwrap();
            p.remove(CONNECTION);
            p.remove(AUTHORITY);
            p.remove(LOG);
        },
        &["authority.key is missing and log.key is missing and controller.db is missing"],
    ),
    (
        "another program's database",
        |p| {
            p.remove(DATABASE);
            p.sql("CREATE TABLE other (x); DROP TABLE other");
            private(&p.file(DATABASE));
        },
        &["without the log's tables"],
    ),
    (
        "a table that was dropped",
        |p| p.sql("DROP TABLE head"),
        &["without the log's tables"],
    ),
    ("a log of ten bytes", |p| p.cut(10), &["damaged"]),
    ("a log of one page", |p| p.cut(4_096), &["damaged"]),
    (
        "something else than a log",
        |p| std::fs::write(p.file(DATABASE), "no database ".repeat(1_000)).unwrap(),
        &["damaged"],
    ),
    (
        "a key that is none",
        |p| std::fs::write(p.file(CONNECTION), "garbage").unwrap(),
        &["connection.key does not hold a key"],
    ),
    (
        "no rows",
        |p| p.sql("DELETE FROM entries; DELETE FROM head; DELETE FROM epochs"),
        &["holds no event"],
    ),
    ("no events", |p| p.sql("DELETE FROM entries"), &["event 1"]),
    (
        "no head",
        |p| p.sql("DELETE FROM head"),
        &["nothing signs it"],
    ),
    (
        "no connection key",
        |p| p.remove(CONNECTION),
        &["connection.key is missing"],
    ),
    (
        "no authority key",
        |p| p.remove(AUTHORITY),
        &["authority.key is missing"],
    ),
    (
        "no key of the log",
        |p| p.remove(LOG),
        &["log.key is missing"],
    ),
    (
        "another key of the log",
        |p| {
            let line = LogSecret::generate(&mut OsRng).expose_base64();
            std::fs::write(p.file(LOG), line.as_bytes()).unwrap();
        },
        &["the key in log.key"],
    ),
    (
        "no keys",
        |p| {
            p.remove(CONNECTION);
            p.remove(AUTHORITY);
        },
        &[
            "connection.key is missing and authority.key is missing",
            "log.key and controller.db are there",
        ],
    ),
    (
        "an empty key",
        |p| std::fs::write(p.file(AUTHORITY), "").unwrap(),
        &["authority.key is empty"],
    ),
    (
        "the log of another mesh",
        |p| {
            let other = Place::with_mesh();
            std::fs::copy(other.file(DATABASE), p.file(DATABASE)).unwrap();
        },
        &["the key in log.key"],
    ),
];

fn private(path: &Path) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

#[test]
fn a_mesh_that_is_not_whole_is_refused_and_left_alone_and_a_new_one_is_an_operators_word() {
    for (kind, lose, words) in LOSSES {
        let place = Place::with_mesh();
        let before = place.start(false).expect(kind);
        lose(&place);
        let left = place.content();
        for _ in 0..2 {
            let refused = place.start(false).expect_err(kind);
            for word in words.iter().chain(&["estore", "--new-mesh"]) {
                assert!(refused.contains(word), "{kind}: {refused}");
            }
            assert_eq!(place.content(), left, "{kind}: nothing has changed");
        }
        let new = place.start(true).expect(kind);
        assert!(
            new.0 != before.0 && new.1 != before.1 && new.2 != before.2,
            "{kind}"
        );
        let aside = std::fs::read_dir(&place.path).unwrap();
        let mut aside = aside.filter_map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.starts_with("old-mesh-").then_some(path)
        });
        let aside = aside.next().expect(kind);
        for (path, content) in left {
            let name = path.file_name().unwrap();
            if MESH.iter().any(|file| name == *file) {
                assert_eq!(std::fs::read(aside.join(name)).unwrap(), content, "{kind}");
            }
        }
        // It has served its purpose: left in a unit, it founds no other.
        assert_eq!(place.start(true).expect(kind), new, "{kind}");
        assert_eq!(place.start(false).expect(kind), new, "{kind}");
    }
}

#[test]
fn a_first_start_needs_no_flag_even_when_it_was_cut_short() {
    let place = Place::empty();
    let keys = place.begin(false, None, false).unwrap();
    assert!(place.file(FOUNDING).exists());
    // A port was taken, or the disk was full: there are keys, and perhaps an empty log.
    std::fs::write(place.file(DATABASE), "").unwrap();
    private(&place.file(DATABASE));
    let mesh = place.start(false).unwrap();
    assert_eq!((mesh.0, mesh.1), (keys.0, keys.1));
    assert!(!place.file(FOUNDING).exists());
    place.remove(DATABASE);
    assert!(place.start(false).is_err());
}

#[test]
fn a_new_authority_key_is_made_where_the_old_one_is_named_on_purpose() {
    let place = Place::with_mesh();
    let (connection, old, _) = place.start(false).unwrap();
    place.remove(AUTHORITY);
    assert!(place.start(false).is_err());
    let adopted = place.begin(false, Some(old), true).unwrap();
    assert!(adopted.0 == connection && adopted.1 != old);
    // That excuses no other loss.
    place.remove(DATABASE);
    assert!(place.begin(false, Some(old), true).is_err());
}

#[test]
fn a_mesh_that_is_only_out_of_reach_is_not_replaced() {
    let place = Place::with_mesh();
    let mesh = place.start(false).unwrap();
    place.sql("PRAGMA user_version = 99");
    let refused = place.start(true).unwrap_err();
    assert!(refused.contains("another version"), "{refused}");
    place.sql("PRAGMA user_version = 5");
    assert_eq!(place.start(false).unwrap(), mesh);
}

#[test]
fn an_enrolled_node_without_a_key_is_refused_and_one_that_is_not_enrolled_makes_it() {
    for lost in [IDENTITY, WIREGUARD] {
        let place = Place::empty();
        let keys = || {
            let state = StateDir::open(&place.path).map_err(|error| error.to_string())?;
            let (identity, wg) = node(&state).map_err(|error| error.to_string())?;
            Ok::<_, String>((identity.public(), wg.public()))
        };
        let first = keys().unwrap();
        std::fs::write(place.file(ENROLMENT), "{}").unwrap();
        private(&place.file(ENROLMENT));
        assert_eq!(keys().unwrap(), first);
        place.remove(lost);
        for _ in 0..2 {
            let refused = keys().unwrap_err();
            for word in [lost, "is missing", "restore", "meshctl token create"] {
                assert!(refused.contains(word), "{refused}");
            }
            assert!(!place.file(lost).exists());
        }
        place.remove(ENROLMENT);
        assert_ne!(keys().unwrap(), first);
    }
}
