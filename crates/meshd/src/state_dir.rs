//! The state directory: 0700, locked by one daemon, with secret keys in files of 0600. Every file in it that
//! holds secrets or state is held against [`private`](crate::private) before any of them is read.

use crate::private::{NotPrivate, Owners};
use rustix::fs::OFlags;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// The system refused.
    #[error("cannot {what} {path}: {source}; --state-dir names another place")]
    Io {
        /// The action that failed.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Another daemon runs on it.
    #[error("{0} is in use by another meshd: stop it, or choose another with --state-dir")]
    Locked(PathBuf),
    /// Others could read it, or it is not what it should be.
    #[error(transparent)]
    NotPrivate(#[from] NotPrivate),
    /// A key file does not hold a key.
    #[error("{path} does not hold a key ({source}): {way_out}")]
    Key {
        /// The file.
        path: PathBuf,
        /// The way out.
        way_out: &'static str,
        /// The fault in it.
        source: keys::SecretParseError,
    },
}

/// A state directory that is this process's until it is dropped.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// `None`: it is only looked at.
    _lock: Option<File>,
}

impl StateDir {
    /// Creates the directory if there is none, and locks it.
    ///
    /// # Errors
    /// [`StateDirError`], with the way out.
    pub fn open(path: &Path) -> Result<Self, StateDirError> {
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |source| StateDirError::Io { what, path, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(io("create", path))?;
        let owners = Owners::of_process().check_directory(path)?;
        for entry in std::fs::read_dir(path).map_err(io("list", path))? {
            let entry = entry.map_err(io("list", path))?;
            if is_held(&entry.file_name().to_string_lossy()) {
                owners.check_file(&entry.path())?;
            }
        }
        let lock = path.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&lock)
            .map_err(io("open", &lock))?;
        match file.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: Some(file),
            }),
            Err(std::fs::TryLockError::WouldBlock) => Err(StateDirError::Locked(path.to_owned())),
            Err(std::fs::TryLockError::Error(source)) => Err(io("lock", &lock)(source)),
        }
    }

    /// A directory that is there, to be looked at: it is not locked, and its files are held against no rule.
    pub fn look(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            _lock: None,
        }
    }

    /// The faults for which [`Self::open`] would refuse the directory, all of them. Changes nothing.
    pub fn faults(path: &Path) -> Vec<StateDirError> {
        let owners = match Owners::of_process().check_directory(path) {
            Ok(owners) => owners,
            Err(fault) => return vec![fault.into()],
        };
        let entries = match std::fs::read_dir(path) {
            Ok(entries) => entries,
            Err(source) => {
                let (what, path) = ("list", path.to_owned());
                return vec![StateDirError::Io { what, path, source }];
            }
        };
        let held = entries
            .flatten()
            .filter(|entry| is_held(&entry.file_name().to_string_lossy()));
        let faults = held.filter_map(|entry| owners.check_file(&entry.path()).err());
        faults.map(StateDirError::from).collect()
    }

    /// Whether a daemon has locked a directory that is there.
    pub fn is_locked(path: &Path) -> bool {
        // Opened for reading alone, and let go at once. Opening a FIFO would wait for somebody who writes to it.
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(NONBLOCK);
        let lock = options.open(path.join("lock"));
        lock.is_ok_and(|lock| {
            matches!(
                lock.try_lock_shared(),
                Err(std::fs::TryLockError::WouldBlock)
            )
        })
    }

    /// The number of the process that has locked a directory, as the kernel shows it.
    pub fn holder(path: &Path) -> Option<i32> {
        let inode = std::fs::metadata(path.join("lock")).ok()?.ino();
        let locks = std::fs::read_to_string("/proc/locks").ok()?;
        holder_in(&locks, inode)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the file `name` is, or would be.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The secret in the file `name`; the first time it is generated and written. `way_out` is for whoever
    /// finds that the file holds no key.
    ///
    /// # Errors
    /// When the file is not a key, or cannot be written.
    pub fn key<K>(
        &self,
        (name, way_out): (&str, &'static str),
        parse: impl Fn(&str) -> Result<K, keys::SecretParseError>,
        expose: impl Fn(&K) -> Zeroizing<String>,
        generate: impl FnOnce() -> K,
    ) -> Result<K, StateDirError> {
        if let Some(key) = self.existing_key((name, way_out), parse)? {
            return Ok(key);
        }
        let path = self.path.join(name);
        let key = generate();
        let written = write_private(&self.path, &path, expose(&key).as_bytes());
        written.map_err(|source| StateDirError::Io {
            what: "write",
            path,
            source,
        })?;
        Ok(key)
    }

    /// The secret in the file `name`, if there is one.
    ///
    /// # Errors
    /// When the file is not a key, or cannot be read.
    pub fn existing_key<K>(
        &self,
        (name, way_out): (&str, &'static str),
        parse: impl Fn(&str) -> Result<K, keys::SecretParseError>,
    ) -> Result<Option<K>, StateDirError> {
        let path = self.path.join(name);
        match std::fs::read(&path).map(Zeroizing::new) {
            Ok(bytes) => {
                // Bytes that are no text are no key either.
                let text = std::str::from_utf8(&bytes).unwrap_or_default();
                parse(text).map(Some).map_err(|source| StateDirError::Key {
                    path,
                    way_out,
                    source,
                })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StateDirError::Io {
                what: "read",
                path,
                source,
            }),
        }
    }
}

/// Whole or not at all: a temporary file of 0600, synced, renamed.
fn write_private(dir: &Path, path: &Path, secret: &[u8]) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(secret)?;
    file.write_all(b"\n")?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path).map_err(|error| error.error)?;
    File::open(dir)?.sync_all()
}

/// Whether a file holds secrets or state. `status.json` holds neither, and is for everybody.
fn is_held(name: &str) -> bool {
    // SQLite keeps the newest commits in files beside the database.
    HELD.contains(&name) || name.starts_with("controller.db") || name.starts_with("wireguard-")
}

/// Whether a file of this name in a state directory is the daemon's own, or may become so. `status.json` is not
/// counted: a setting may name it.
pub(crate) fn is_own(name: &str) -> bool {
    is_held(name) || OTHERS.contains(&name)
}

/// The process with an exclusive lock on a file, by fields of `/proc/locks`: number, FLOCK, …, WRITE, process,
/// MAJOR:MINOR:INODE.
fn holder_in(locks: &str, inode: u64) -> Option<i32> {
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_lock = fields.get(1) == Some(&"FLOCK") && fields.get(3) == Some(&"WRITE");
        let of: Option<u64> = fields.get(5)?.rsplit(':').next()?.parse().ok();
        let process: i32 = fields.get(4)?.parse().ok()?;
        (is_lock && of == Some(inode) && process > 0).then_some(process)
    })
}

const NONBLOCK: i32 = OFlags::NONBLOCK.bits().cast_signed();

/// Files beside those that hold secrets.
const OTHERS: [&str; 3] = ["places", "places.new", "runs.json"];

const HELD: [&str; 12] = [
    "lock",
    "founding",
    "connection.key",
    "authority.key",
    "log.key",
    "log.key.new",
    "authority.key.new",
    "controller.reserve",
    "identity.key",
    "wireguard.key",
    "enrolment.json",
    "epochs.json",
];

#[cfg(test)]
mod tests {
    use super::*;
    use keys::NodeSecret;
    use rand_core::OsRng;
    use std::os::unix::fs::PermissionsExt;

    fn identity(dir: &StateDir) -> Result<NodeSecret, StateDirError> {
        dir.key(
            ("identity.key", "restore it"),
            NodeSecret::from_base64,
            NodeSecret::expose_base64,
            || NodeSecret::generate(&mut OsRng),
        )
    }

    #[test]
    fn a_key_is_made_once_and_kept_private() {
        let temp = tempfile::tempdir().unwrap();
        let dir = StateDir::open(&temp.path().join("state")).unwrap();
        let first = identity(&dir).unwrap().public();
        assert_eq!(identity(&dir).unwrap().public(), first);
        let path = temp.path().join("state/identity.key");
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    /// The words that a directory is refused with.
    fn refused(state: &Path) -> String {
        StateDir::open(state).unwrap_err().to_string()
    }

    #[test]
    fn every_file_that_holds_secrets_or_state_is_held_to_one_rule_and_others_are_not() {
        let temp = tempfile::tempdir().unwrap();
        let state = temp.path().join("state");
        drop(StateDir::open(&state).unwrap());
        let chmod = |path: &Path, mode| {
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        };
        let database = [
            "controller.db",
            "controller.db-wal",
            "controller.db-shm",
            "controller.db-journal",
        ];
        for name in HELD.into_iter().chain(database) {
            let path = state.join(name);
            std::fs::write(&path, "").unwrap();
            for mode in [0o644, 0o640, 0o660] {
                chmod(&path, mode);
                let error = refused(&state);
                let way_out = format!("chmod 600 {}", path.display());
                assert!(error.contains(&way_out), "{error}");
                assert!(error.contains(&format!("{mode:04o}")), "{error}");
            }
            std::fs::remove_file(&path).unwrap();
            // A daemon that opened it would wait for somebody to write.
            crate::private::tests::make_fifo(&path);
            assert!(refused(&state).contains("not a regular file but a FIFO"));
            std::fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink("elsewhere", &path).unwrap();
            assert!(refused(&state).contains("but a symbolic link"));
            std::fs::remove_file(&path).unwrap();
        }
        for name in ["status.json", "benchmark.json"] {
            std::fs::write(state.join(name), "").unwrap();
            chmod(&state.join(name), 0o644);
        }
        drop(StateDir::open(&state).unwrap());
        for mode in [0o755, 0o750, 0o701] {
            chmod(&state, mode);
            assert!(refused(&state).contains("chmod 700"));
        }
    }

    #[test]
    fn a_damaged_key_is_named_and_not_replaced() {
        let temp = tempfile::tempdir().unwrap();
        let dir = StateDir::open(&temp.path().join("state")).unwrap();
        let path = temp.path().join("state/identity.key");
        std::fs::write(&path, b"\xff\xfe").unwrap();
        assert!(matches!(identity(&dir), Err(StateDirError::Key { .. })));
        std::fs::remove_file(&path).unwrap();
        write_private(&temp.path().join("state"), &path, b"garbage!").unwrap();
        assert!(matches!(identity(&dir), Err(StateDirError::Key { .. })));
        assert_eq!(std::fs::read_to_string(path).unwrap(), "garbage!\n");
    }

    #[test]
    fn the_process_that_holds_a_lock_is_told_from_those_that_wait() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 08:01:55 0 EOF\n2: FLOCK  ADVISORY  WRITE 42 08:01:55 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 43 08:01:55 0 EOF\n3: FLOCK  ADVISORY  READ 44 08:01:56 0 EOF\n";
        assert_eq!(holder_in(locks, 55), Some(42));
        assert_eq!(holder_in(locks, 56), None);
        assert_eq!(holder_in("", 55), None);
        let temp = tempfile::tempdir().unwrap();
        assert_eq!(StateDir::holder(temp.path()), None);
        let state = StateDir::open(&temp.path().join("state")).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(StateDir::holder(state.path()), Some(own));
    }

    #[test]
    fn two_daemons_never_share_a_directory() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("state");
        let first = StateDir::open(&path).unwrap();
        assert!(matches!(
            StateDir::open(&path),
            Err(StateDirError::Locked(_))
        ));
        drop(first);
        assert!(StateDir::open(&path).is_ok());
    }
}
