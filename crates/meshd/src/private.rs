//! The one rule for files that hold secrets or state: a regular file, this daemon's own or root's, and
//! closed to all others. Refuses to mend anything: somebody may have read what was open.

use rustix::process::geteuid;
use std::fs::{FileType, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// The part of the rule that a file or a directory breaks, and the way out.
#[derive(Debug, thiserror::Error)]
pub enum NotPrivate {
    /// The system does not show it.
    #[error("cannot look at {path}: {source}")]
    Unseen {
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Others could read or write it.
    #[error(
        "{path} is open to others (mode {mode:04o}): make it private with `chmod {wanted:o} {path}`"
    )]
    Open {
        /// The file or directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode that it should have.
        wanted: u32,
    },
    /// It is somebody else's.
    #[error(
        "{path} belongs to user {owner} (mode {mode:04o}), and neither to this daemon's user nor to root: if \
         its content can be trusted, run `chown {user} {path} && chmod {wanted:o} {path}`"
    )]
    Foreign {
        /// The file or directory.
        path: PathBuf,
        /// Its owner's number.
        owner: u32,
        /// Its mode.
        mode: u32,
        /// This daemon's user.
        user: u32,
        /// The mode that it should have.
        wanted: u32,
    },
    /// It is something else than it should be.
    #[error(
        "{path} is not a {expected} but a {found} (mode {mode:04o}): put the {expected} itself there"
    )]
    Kind {
        /// The file or directory.
        path: PathBuf,
        /// The kind that it should be.
        expected: &'static str,
        /// The kind that it is.
        found: &'static str,
        /// Its mode.
        mode: u32,
    },
}

/// The users who may own its files: this daemon's, root, and the owner of a directory that root works in.
#[derive(Debug, Clone, Copy)]
pub struct Owners {
    user: u32,
    /// The owner of the state directory, where root's daemon works in another user's.
    host: Option<u32>,
}

impl Owners {
    /// This process's user.
    pub fn of_process() -> Self {
        Self {
            user: geteuid().as_raw(),
            host: None,
        }
    }

    /// Holds a directory against the rule. Root's daemon may work in a directory of another user: that is
    /// said where its rights are reduced, and the files in it may be that user's.
    ///
    /// # Errors
    /// [`NotPrivate`], with the way out.
    pub fn check_directory(self, path: &Path) -> Result<Self, NotPrivate> {
        // A link may lead to it: systemd makes such ones for services with a dynamic user.
        let meta = std::fs::metadata(path).map_err(unseen(path))?;
        if !meta.is_dir() {
            return Err(kind(path, "directory", &meta));
        }
        let host = (self.user == ROOT).then(|| meta.uid());
        let owners = Self { host, ..self };
        owners.check(path, &meta, 0o700)?;
        Ok(owners)
    }

    /// Holds a file against the rule; one that is not there breaks nothing.
    ///
    /// # Errors
    /// [`NotPrivate`], with the way out.
    pub fn check_file(self, path: &Path) -> Result<(), NotPrivate> {
        // Of the link, not of the file that it leads to: whoever owns another directory could exchange that one.
        match std::fs::symlink_metadata(path) {
            Ok(meta) => self.check_opened(path, &meta),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(unseen(path)(source)),
        }
    }

    /// The same for a file that is open already.
    ///
    /// # Errors
    /// [`NotPrivate`], with the way out.
    pub fn check_opened(self, path: &Path, meta: &Metadata) -> Result<(), NotPrivate> {
        if meta.is_file() {
            self.check(path, meta, 0o600)
        } else {
            Err(kind(path, "regular file", meta))
        }
    }

    fn check(self, path: &Path, meta: &Metadata, wanted: u32) -> Result<(), NotPrivate> {
        let (owner, mode, path) = (meta.uid(), mode_of(meta), path.to_owned());
        let user = self.user;
        if ![Some(user), Some(ROOT), self.host].contains(&Some(owner)) {
            return Err(NotPrivate::Foreign {
                path,
                owner,
                mode,
                user,
                wanted,
            });
        }
        if mode & 0o077 != 0 {
            return Err(NotPrivate::Open { path, mode, wanted });
        }
        Ok(())
    }
}

fn unseen(path: &Path) -> impl FnOnce(io::Error) -> NotPrivate {
    let path = path.to_owned();
    move |source| NotPrivate::Unseen { path, source }
}

fn kind(path: &Path, expected: &'static str, meta: &Metadata) -> NotPrivate {
    NotPrivate::Kind {
        path: path.to_owned(),
        expected,
        found: name_of(meta.file_type()),
        mode: mode_of(meta),
    }
}

fn mode_of(meta: &Metadata) -> u32 {
    meta.mode() & 0o7777
}

/// The word for a kind of file.
pub(crate) fn name_of(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "directory"
    } else if kind.is_symlink() {
        "symbolic link"
    } else if kind.is_fifo() {
        "FIFO"
    } else if kind.is_socket() {
        "socket"
    } else if kind.is_file() {
        "regular file"
    } else {
        "device"
    }
}

const ROOT: u32 = 0;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const NOBODY: u32 = 65_534;

    /// By no program: a child holds the locks of other tests' directories until it has begun.
    pub(crate) fn make_fifo(path: &Path) {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    }

    fn refused(path: &Path, owners: Owners) -> String {
        owners.check_file(path).unwrap_err().to_string()
    }

    #[test]
    fn a_file_is_regular_private_and_of_one_who_may_own_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let owners = Owners::of_process();
        owners.check_file(&path).unwrap();
        std::fs::write(&path, "").unwrap();
        let chmod = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode));
        for mode in [0o600, 0o400, 0o700] {
            chmod(mode).unwrap();
            owners.check_file(&path).unwrap();
        }
        for mode in [0o640, 0o604, 0o620, 0o601, 0o644] {
            chmod(mode).unwrap();
            let error = refused(&path, owners);
            let shown = path.display();
            let way_out = format!("(mode {mode:04o}): make it private with `chmod 600 {shown}`");
            assert!(error.contains(&way_out), "{error}");
        }
        chmod(0o600).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(refused(&link, owners).contains("but a symbolic link"));
        let fifo = dir.path().join("fifo");
        make_fifo(&fifo);
        assert!(refused(&fifo, owners).contains("but a FIFO"));
        assert!(refused(dir.path(), owners).contains("but a directory"));
    }

    #[test]
    fn a_file_of_another_user_is_refused_and_roots_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        // Root can give the file away; for anybody else the daemon's user is another one.
        let _ = std::os::unix::fs::chown(&path, Some(NOBODY), None);
        let owner = std::fs::metadata(&path).unwrap().uid();
        let as_user = |user, host| Owners { user, host };
        as_user(owner, None).check_file(&path).unwrap();
        as_user(owner + 1, Some(owner)).check_file(&path).unwrap();
        let stranger = as_user(owner + 1, None).check_file(&path);
        let error = stranger.unwrap_err().to_string();
        assert!(
            error.contains(&format!("belongs to user {owner}")),
            "{error}"
        );
        assert!(error.contains("chown"), "{error}");
    }
}
