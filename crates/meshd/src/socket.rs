//! The admin socket: a Unix socket of 0600, or of 0660 for a group. Replaces one that a dead daemon left, never a live one.

use nix::unistd::Gid;
use std::fs::{DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// A bound socket; its file goes when this is dropped, unless another has taken its place.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    /// Device and inode of the file.
    file: (u64, u64),
}

/// Why there is no admin socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Something else is there.
    #[error("{0} exists and is no socket: remove it, or choose another path with {1}")]
    NotASocket(PathBuf, &'static str),
    /// A daemon answers on it.
    #[error("another daemon answers on {0}: stop it, or choose another path with {1}")]
    InUse(PathBuf, &'static str),
    /// The path does not fit a socket address.
    #[error("{0} is longer than a socket path may be (107 bytes): choose another with {1}")]
    TooLong(PathBuf, &'static str),
    /// The group cannot have it.
    #[error(
        "cannot give {path} to group {group} (`socket_group`): {source}; run the daemon with that group \
         (SupplementaryGroups= in its unit)"
    )]
    Group {
        /// The path.
        path: PathBuf,
        /// The group's number.
        group: u32,
        /// The system's answer.
        source: io::Error,
    },
    /// The system refused.
    #[error("cannot bind {path}: {source}; choose another path with {setting}")]
    Io {
        /// The path.
        path: PathBuf,
        /// The setting that it comes from.
        setting: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

/// Binds `path`, which comes from `setting`. Creates its directory (0700) if there is none.
///
/// # Errors
/// [`SocketError`], with the way out.
pub fn bind(path: &Path, setting: &'static str) -> Result<(Socket, UnixListener), SocketError> {
    if path.as_os_str().len() > MAX_PATH {
        return Err(SocketError::TooLong(path.to_owned(), setting));
    }
    match std::fs::symlink_metadata(path) {
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.to_owned(), setting));
        }
        Ok(_) if UnixStream::connect(path).is_ok() => {
            return Err(SocketError::InUse(path.to_owned(), setting));
        }
        Ok(_) | Err(_) => {}
    }
    let (file, listener) = bind_private(path).map_err(|source| SocketError::Io {
        path: path.to_owned(),
        setting,
        source,
    })?;
    let path = path.to_owned();
    Ok((Socket { path, file }, listener))
}

/// Made in a directory that nobody else may enter, then moved: at no time can another user open it,
/// whatever the umask.
fn bind_private(path: &Path) -> io::Result<((u64, u64), UnixListener)> {
    let dir = path
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    if !dir.exists() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let private = tempfile::Builder::new()
        .prefix(".")
        .rand_bytes(6)
        .tempdir_in(dir)?;
    let made = private.path().join("s");
    let listener = UnixListener::bind(&made).map_err(|error| match error.kind() {
        ErrorKind::InvalidInput => io::Error::other("the path is too long for a socket"),
        _ => error,
    })?;
    std::fs::set_permissions(&made, Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    let file = identity(&made)?;
    std::fs::rename(&made, path)?;
    Ok((file, listener))
}

impl Socket {
    /// Lets the members of a group open it too. Its owner has to be in that group, or root.
    ///
    /// # Errors
    /// [`SocketError::Group`]; it stays the owner's alone then.
    pub fn share(&self, group: Gid) -> Result<(), SocketError> {
        // The group first: no other one may open it in between.
        let given = std::os::unix::fs::chown(&self.path, None, Some(group.as_raw()));
        let opened = given
            .and_then(|()| std::fs::set_permissions(&self.path, Permissions::from_mode(0o660)));
        opened.map_err(|source| SocketError::Group {
            path: self.path.clone(),
            group: group.as_raw(),
            source,
        })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // The file of a daemon that was started in the meantime is not ours to remove.
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            // Already gone is as good.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Which file it is, whatever it is called.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let meta = std::fs::symlink_metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

/// `sun_path` of `unix(7)`, less the terminating zero.
const MAX_PATH: usize = 107;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_gets_the_socket_if_the_daemon_may_give_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let (socket, _listener) = bind(&path, "--socket").unwrap();
        let own = Gid::from_raw(rustix::process::getegid().as_raw());
        socket.share(own).unwrap();
        let meta = std::fs::metadata(&path).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, 0o660);
        assert_eq!(meta.gid(), own.as_raw());
        std::fs::remove_file(&path).unwrap();
        let refused = socket.share(own).unwrap_err();
        assert!(refused.to_string().contains("socket_group"), "{refused}");
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/admin.sock");
        let (socket, listener) = bind(&path, "--socket").unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(matches!(
            bind(&path, "--socket"),
            Err(SocketError::InUse(..))
        ));
        std::mem::forget(socket);
        drop(listener);
        let (socket, _listener) = bind(&path, "--socket").expect("nobody answers any more");
        drop(socket);
        assert!(!path.exists());
        let (older, _listener) = bind(&path, "--socket").unwrap();
        std::fs::remove_file(&path).unwrap();
        let (newer, _listener) = bind(&path, "--socket").expect("somebody has removed it");
        drop(older);
        assert!(path.exists(), "it is the newer one's");
        drop(newer);
        assert!(!path.exists());
        std::fs::write(&path, "text").unwrap();
        assert!(matches!(
            bind(&path, "--socket"),
            Err(SocketError::NotASocket(..))
        ));
    }
}
