//! Room on the disk that is held for what must always be written: evictions and epochs.
//!
//! A file beside the event log holds it. When the disk is full, the file is emptied, and what must be
//! written takes its place; evidence is refused until there is room to hold a new one. Whoever fills the
//! disk can therefore stop the mesh from judging, but not from excluding.

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The room, and whether there is any.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    state: State,
    /// When to try to hold it again.
    again_at: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many bytes are held.
    Held(u64),
    /// It was used up: the disk is full.
    Spent,
    /// It was never had: this file system cannot hold room.
    Absent,
}

impl Reserve {
    /// None yet; [`Self::keep`] holds it.
    pub(crate) fn beside(log: &Path) -> Self {
        Self {
            path: log.with_extension("reserve"),
            state: State::Absent,
            again_at: Duration::ZERO,
        }
    }

    /// Whether the disk has been full since the reserve was last held.
    pub(crate) fn is_spent(&self) -> bool {
        self.state == State::Spent
    }

    /// Gives the room to whoever writes next; whether there was any.
    pub(crate) fn spend(&mut self) -> bool {
        let State::Held(bytes) = self.state else {
            return false;
        };
        let emptied = OpenOptions::new().write(true).open(&self.path);
        let emptied = emptied.and_then(|file| file.set_len(0));
        if let Err(error) = emptied {
            tracing::error!(path = %self.path.display(), %error, "the reserve cannot be given up");
            return false;
        }
        tracing::warn!(
            bytes,
            "the disk is full: evictions and epochs are written in the room that was held for them, \
             evidence is refused; free some space"
        );
        self.state = State::Spent;
        true
    }

    /// Holds room for a mesh of `nodes`, if it is time to try.
    pub(crate) fn keep(&mut self, nodes: usize, now: Duration) {
        if self.again_at > now {
            return;
        }
        self.again_at = now + PAUSE;
        let wanted = LEAST + nodes as u64 * PER_NODE;
        if matches!(self.state, State::Held(bytes) if bytes >= wanted) {
            return;
        }
        match self.hold(wanted) {
            Ok(()) => {
                if self.is_spent() {
                    tracing::info!(bytes = wanted, "there is room on the disk again");
                }
                self.state = State::Held(wanted);
            }
            Err(error) if self.state == State::Absent => {
                tracing::debug!(path = %self.path.display(), %error, "no room can be held");
            }
            Err(_) => {}
        }
    }

    fn hold(&self, wanted: u64) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&self.path)?;
        // On a disk that is small altogether, a part of it.
        let disk = statvfs(&self.path)?;
        let share = disk.f_blocks.saturating_mul(disk.f_frsize) / SHARE;
        match fallocate(&file, FallocateFlags::empty(), 0, wanted.min(share).max(1)) {
            Ok(()) => Ok(()),
            Err(error) => {
                // What was held of it so far would only be in the way.
                give_back(&file);
                Err(match error {
                    Errno::NOSPC | Errno::DQUOT => io::ErrorKind::StorageFull.into(),
                    error => error.into(),
                })
            }
        }
    }
}

fn give_back(file: &File) {
    // An error leaves a file that is of no use, and holds nothing that is needed.
    let _ = file.set_len(0);
}

/// Some ten days of epochs of a minute in a mesh of a few nodes.
const LEAST: u64 = 16 << 20;
/// And some epochs of a large one: a verdict, a member and its share of the update in the log ahead.
const PER_NODE: u64 = 8 << 10;
/// The most that is held: this part of the file system.
const SHARE: u64 = 8;
/// How often holding it is tried.
const PAUSE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn room_is_held_given_up_once_and_held_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::beside(&dir.path().join("controller.db"));
        let held = || {
            let meta = std::fs::metadata(dir.path().join("controller.reserve")).unwrap();
            (meta.blocks() * 512, meta.mode() & 0o777)
        };
        assert!(!reserve.spend(), "there is none yet");
        reserve.keep(3, Duration::from_secs(1));
        let (bytes, mode) = held();
        assert!(bytes >= LEAST, "{bytes}");
        assert_eq!(mode, 0o600);
        assert!(reserve.spend() && reserve.is_spent());
        assert_eq!(held().0, 0);
        assert!(!reserve.spend());
        reserve.keep(3, Duration::from_secs(2));
        assert!(reserve.is_spent(), "not yet: it was looked at just now");
        reserve.keep(3, Duration::from_secs(6));
        assert!(!reserve.is_spent() && held().0 >= LEAST);
        reserve.keep(10_000, Duration::from_secs(11));
        assert!(held().0 >= LEAST + 10_000 * PER_NODE);
    }
}
