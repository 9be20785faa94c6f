//! The state directory: 0700, locked by one daemon, with secret keys in files of 0600.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
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
    /// Others could read it.
    #[error("{path} is open to others (mode {mode:o}): make it private with `chmod go= {path}`")]
    Open {
        /// The file or directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A key file does not hold a key.
    #[error(
        "{path} does not hold a key ({source}): restore it from a backup, or remove it and enrol again"
    )]
    Key {
        /// The file.
        path: PathBuf,
        /// The fault in it.
        source: keys::SecretParseError,
    },
}

/// A state directory that is this process's until it is dropped.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: File,
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
        private(path)?;
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
                _lock: file,
            }),
            Err(std::fs::TryLockError::WouldBlock) => Err(StateDirError::Locked(path.to_owned())),
            Err(std::fs::TryLockError::Error(source)) => Err(io("lock", &lock)(source)),
        }
    }

    /// The secret in the file `name`; the first time it is generated and written.
    ///
    /// # Errors
    /// When the file is not private, not a key, or cannot be written.
    pub fn key<K>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<K, keys::SecretParseError>,
        expose: impl Fn(&K) -> Zeroizing<String>,
        generate: impl FnOnce() -> K,
    ) -> Result<K, StateDirError> {
        let path = self.path.join(name);
        match std::fs::read_to_string(&path).map(Zeroizing::new) {
            Ok(text) => {
                private(&path)?;
                parse(&text).map_err(|source| StateDirError::Key { path, source })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = generate();
                let written = write_private(&self.path, &path, expose(&key).as_bytes());
                written.map_err(|source| StateDirError::Io {
                    what: "write",
                    path,
                    source,
                })?;
                Ok(key)
            }
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

fn private(path: &Path) -> Result<(), StateDirError> {
    let meta = std::fs::metadata(path).map_err(|source| StateDirError::Io {
        what: "look at",
        path: path.to_owned(),
        source,
    })?;
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        Ok(())
    } else {
        Err(StateDirError::Open {
            path: path.to_owned(),
            mode,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keys::NodeSecret;
    use rand_core::OsRng;

    fn identity(dir: &StateDir) -> Result<NodeSecret, StateDirError> {
        dir.key(
            "identity.key",
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
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            identity(&dir),
            Err(StateDirError::Open { mode: 0o644, .. })
        ));
    }

    #[test]
    fn a_damaged_key_is_named_and_not_replaced() {
        let temp = tempfile::tempdir().unwrap();
        let dir = StateDir::open(&temp.path().join("state")).unwrap();
        let path = temp.path().join("state/identity.key");
        write_private(&temp.path().join("state"), &path, b"garbage!").unwrap();
        assert!(matches!(identity(&dir), Err(StateDirError::Key { .. })));
        assert_eq!(std::fs::read_to_string(path).unwrap(), "garbage!\n");
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
