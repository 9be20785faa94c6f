//! The places that both roles need: state directory, admin socket, addresses.

use super::Findings;
use crate::config::Config;
use crate::private::NotPrivate;
use crate::socket::SocketError;
use crate::state_dir::{StateDir, StateDirError};
use machine::{disk, rights};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// The daemon's places, as they are found.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) state_dir: PathBuf,
    /// There is a state directory, and this user may read it.
    pub(super) has_state: bool,
    /// A daemon runs with these places: what it holds is its own.
    pub(super) is_running: bool,
}

impl Place {
    pub(super) fn look(config: &Config, found: &mut Findings) -> Self {
        let is_running = socket(config, found);
        let has_state = state(&config.state_dir, is_running, found);
        Self {
            state_dir: config.state_dir.clone(),
            has_state,
            is_running,
        }
    }

    /// Notes an address that cannot be taken, unless it is the running daemon's.
    pub(super) fn cannot_bind(
        &self,
        setting: &str,
        error: &(dyn std::error::Error + 'static),
        found: &mut Findings,
    ) {
        let mut causes = std::iter::successors(Some(error), |error| error.source());
        let is_taken = causes.any(|cause| {
            let io = cause.downcast_ref::<std::io::Error>();
            io.is_some_and(|io| io.kind() == ErrorKind::AddrInUse)
        });
        if !(is_taken && self.is_running) {
            found.error(setting, error);
        }
    }
}

/// Whether the daemon of these settings answers there.
fn socket(config: &Config, found: &mut Findings) -> bool {
    let path = config.socket.as_path();
    let shown = path.display();
    if path.as_os_str().len() > MAX_SOCKET_PATH {
        let why = format!(
            "{shown} is longer than a socket path may be ({MAX_SOCKET_PATH} bytes): choose another"
        );
        found.error("socket", why);
        return false;
    }
    let is_running = match path.symlink_metadata() {
        Ok(meta) if !meta.file_type().is_socket() => {
            let why = format!("{shown} exists and is no socket: remove it, or choose another path");
            found.error("socket", why);
            false
        }
        Ok(_) => match UnixStream::connect(path) {
            Ok(daemon) if is_holder(&daemon, &config.state_dir) => true,
            Ok(_) => {
                let error = SocketError::InUse(path.to_owned(), "--socket");
                found.error("socket", error);
                false
            }
            Err(_) => false,
        },
        Err(_) => false,
    };
    if is_running {
        let note =
            format!("a daemon runs and answers on {shown}: these settings are for its next start");
        found.notes.push(note);
    }
    writable("socket", disk::folder_of(path), found);
    is_running
}

/// Whether the daemon at the other end is the one whose state directory this is. Without the kernel's word for who has
/// locked it, whoever has done so counts.
fn is_holder(daemon: &UnixStream, state_dir: &Path) -> bool {
    if !StateDir::is_locked(state_dir) {
        return false;
    }
    let peer =
        rustix::net::sockopt::socket_peercred(daemon).map(|it| it.pid.as_raw_nonzero().get());
    match (peer, StateDir::holder(state_dir)) {
        (Ok(peer), Some(holder)) => peer == holder,
        _ => true,
    }
}

/// Notes a folder that this user could not make, or not write into.
pub(super) fn writable(setting: &str, folder: &Path, found: &mut Findings) -> bool {
    let (there, shown, user) = (disk::nearest(folder), folder.display(), rights::user());
    let why = if !there.is_dir() {
        format!("{} is no folder: choose another path", there.display())
    } else if disk::room(there).is_ok_and(|room| room.is_read_only) {
        format!(
            "{shown}: the file system of {} is read-only: choose another path",
            there.display()
        )
    } else if rights::may_write(there) {
        return true;
    } else {
        format!(
            "user {user}, who runs this check, may not write to {}: run it as root, or as the daemon's user, or make \
             {shown} that user's",
            there.display()
        )
    };
    found.error(setting, why);
    false
}

/// Whether there is a state directory that can be read.
fn state(path: &Path, is_running: bool, found: &mut Findings) -> bool {
    const SETTING: &str = "state_dir";
    if path.symlink_metadata().is_err() {
        let parent = disk::folder_of(path);
        if writable(SETTING, parent, found) {
            room(SETTING, parent, found);
        }
        return false;
    }
    let faults = StateDir::faults(path);
    for fault in &faults {
        let is_hidden = match fault {
            StateDirError::Io { source, .. }
            | StateDirError::NotPrivate(NotPrivate::Unseen { source, .. }) => {
                source.kind() == ErrorKind::PermissionDenied
            }
            _ => false,
        };
        let way_out = if is_hidden {
            "; run this check as root, or as the daemon's user"
        } else {
            ""
        };
        found.error(SETTING, format!("{fault}{way_out}"));
    }
    if !is_running && StateDir::is_locked(path) {
        found.error(SETTING, StateDirError::Locked(path.to_owned()));
    }
    if faults.is_empty() && writable(SETTING, path, found) {
        room(SETTING, path, found);
    }
    faults.is_empty()
}

/// Notes a file system that is full.
fn room(setting: &str, path: &Path, found: &mut Findings) {
    let Ok(room) = disk::room(path) else {
        return;
    };
    let (shown, left) = (path.display(), room.free >> 10);
    if room.free < NO_ROOM {
        found.error(
            setting,
            format!("the file system of {shown} is full ({left} KiB are free): make room"),
        );
    } else if room.free < LITTLE_ROOM {
        let why = format!(
            "the file system of {shown} has only {left} KiB left: make room before it is full"
        );
        found.warning(setting, why);
    }
}

/// The address for metrics, without which a daemon runs.
pub(super) fn metrics(at: Option<SocketAddr>, place: &Place, found: &mut Findings) {
    const SETTING: &str = "metrics_listen";
    let Some(at) = at else {
        return;
    };
    if !at.ip().is_loopback() {
        found.warning(SETTING, format!("{at} is open to whoever reaches it, without a password: choose a loopback address, or guard it"));
    }
    // Let go at once.
    if let Err(error) = TcpListener::bind(at)
        && !(error.kind() == ErrorKind::AddrInUse && place.is_running)
    {
        found.warning(
            SETTING,
            format!("cannot listen on {at}: {error}; the daemon would run without: choose another"),
        );
    }
}

/// The address of the web page, without which a controller runs.
pub(super) fn page(page: Option<&page::Config>, place: &Place, found: &mut Findings) {
    const SETTING: &str = "page";
    let Some(at) = page.map(|page| page.address) else {
        return;
    };
    if !at.ip().to_canonical().is_loopback() {
        found.warning(SETTING, format!("{at} serves page and token in the clear: choose a loopback address, with an SSH tunnel or a proxy before it"));
    }
    // Let go at once.
    if let Err(error) = TcpListener::bind(at)
        && !(error.kind() == ErrorKind::AddrInUse && place.is_running)
    {
        found.warning(
            SETTING,
            format!("cannot listen on {at}: {error}; the daemon would wait for it, and run without a page meanwhile: choose another, or \"off\""),
        );
    }
}

/// `sun_path` of `unix(7)`, less the terminating zero.
const MAX_SOCKET_PATH: usize = 107;
/// Less than a first start writes, in bytes.
const NO_ROOM: u64 = 256 << 10;
/// The reserve of a controller of some hundred nodes, in bytes.
const LITTLE_ROOM: u64 = 64 << 20;
