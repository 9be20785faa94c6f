//! Room on the disk that is held for what must always be written: evictions and epochs.
//!
//! A file beside the event log holds it. When the disk is full, the file gives up a piece of it at a time, and what must
//! be written takes its place; evidence is refused until the whole can be held again. A full
//! disk can therefore stop the mesh from judging, but not from excluding. Somebody else who goes on filling the disk may
//! take a piece before the log does, but never the whole at once.

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
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
    /// Whether it was said that there is none.
    said: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many bytes are held.
    Held(u64),
    /// The disk is full, and so many bytes are left to be given up.
    Spent(u64),
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
            said: false,
        }
    }

    /// Whether the disk has been full since the reserve was last held.
    pub(crate) fn is_spent(&self) -> bool {
        matches!(self.state, State::Spent(_))
    }

    /// Gives a piece of the room to whoever writes next; whether there was any.
    pub(crate) fn spend(&mut self) -> bool {
        let (State::Held(bytes) | State::Spent(bytes)) = self.state else {
            return false;
        };
        if bytes == 0 {
            return false;
        }
        // Small pieces are many tries; those of a large mesh have to hold more.
        let left = bytes.saturating_sub(LITTLE.max(bytes / PIECES));
        let cut = OpenOptions::new().write(true).open(&self.path);
        let cut = cut.and_then(|file| file.set_len(left));
        if let Err(error) = cut {
            tracing::error!(path = %self.path.display(), %error, "the reserve cannot be given up");
            return false;
        }
        if self.is_spent() {
            tracing::debug!(left, "another piece of the room that was held is given up");
        } else {
            tracing::warn!(
                bytes,
                "the disk is full: evictions and epochs are written in the room that was held for them, \
                 evidence is refused; free some space"
            );
        }
        self.state = State::Spent(left);
        true
    }

    /// Whether it was never had, though it was tried.
    pub(crate) fn is_absent(&self) -> bool {
        self.state == State::Absent && !self.again_at.is_zero()
    }

    /// Holds room for a mesh of `nodes`, if it is time to try.
    pub(crate) fn keep(&mut self, nodes: usize, now: Duration) {
        if self.again_at > now {
            return;
        }
        self.again_at = now + PAUSE;
        let held = match self.state {
            // Somebody may have removed or cut it.
            State::Held(bytes) | State::Spent(bytes) if self.len() >= bytes => bytes,
            State::Held(_) | State::Spent(_) | State::Absent => 0,
        };
        let wanted = self.share_of(LEAST + nodes as u64 * PER_NODE);
        if held >= wanted {
            self.state = State::Held(held);
            return;
        }
        // As much as can be had: a little room is many evictions.
        let mut size = wanted;
        while size > held && size >= LITTLE {
            if self.hold(held, size).is_ok() {
                if self.is_spent() {
                    tracing::info!(bytes = size, "there is room on the disk again");
                }
                self.state = State::Held(size);
                return;
            }
            size /= 2;
        }
        if held == 0 && !self.is_spent() {
            if !self.said {
                let path = self.path.display();
                tracing::warn!(%path, "no room can be held on the disk for evictions and epochs");
            }
            (self.state, self.said) = (State::Absent, true);
        }
    }

    /// On a disk that is small altogether, a part of it.
    fn share_of(&self, wanted: u64) -> u64 {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        let Ok(disk) = statvfs(dir) else {
            return wanted;
        };
        wanted.min(disk.f_blocks.saturating_mul(disk.f_frsize) / SHARE)
    }

    fn len(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |file| file.len())
    }

    /// Makes the file larger by what is missing; on an error it is as large as it was. It may be larger than what is
    /// known to be held, from an earlier process: on a full disk that is all there is.
    fn hold(&self, held: u64, wanted: u64) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&self.path)?;
        let before = file.metadata()?.len().max(held);
        let grown = match fallocate(&file, FallocateFlags::empty(), held, wanted - held) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => fill(&mut file, held, wanted),
            result => result.map_err(io::Error::from),
        };
        if grown.is_err() {
            file.set_len(before)?;
        }
        grown
    }
}

/// Where a file system cannot allocate without writing.
fn fill(file: &mut File, held: u64, wanted: u64) -> io::Result<()> {
    file.seek(SeekFrom::Start(held))?;
    io::copy(&mut io::repeat(0xA5).take(wanted - held), file)?;
    file.sync_data()
}

/// Some ten days of epochs of a minute in a mesh of a few nodes.
const LEAST: u64 = 16 << 20;
/// And some epochs of a large one: a verdict, a member and its share of the update in the log ahead.
const PER_NODE: u64 = 8 << 10;
/// Less than this is not worth holding, and no piece is smaller.
const LITTLE: u64 = 256 << 10;
/// A piece is this part of what is left.
const PIECES: u64 = 16;
/// The most that is held: this part of the file system.
const SHARE: u64 = 8;
/// How often holding it is tried.
const PAUSE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn what_cannot_be_had_leaves_what_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::beside(&dir.path().join("controller.db"));
        reserve.hold(0, LITTLE).unwrap();
        // More than any file can be.
        assert!(reserve.hold(LITTLE, i64::MAX as u64).is_err());
        assert_eq!(reserve.len(), LITTLE);
    }

    #[test]
    fn room_is_held_given_up_in_pieces_and_held_again() {
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
        assert!(held().0 >= LEAST / 8 * 7, "a piece, and no more");
        let mut tries = 1;
        while reserve.spend() {
            tries += 1;
        }
        assert!((16..100).contains(&tries), "{tries}");
        assert_eq!(held().0, 0);
        assert!(!reserve.spend());
        reserve.keep(3, Duration::from_secs(2));
        assert!(reserve.is_spent(), "not yet: it was looked at just now");
        reserve.keep(3, Duration::from_secs(6));
        assert!(!reserve.is_spent() && held().0 >= LEAST);
        reserve.keep(10_000, Duration::from_secs(11));
        assert!(held().0 >= LEAST + 10_000 * PER_NODE);
        // The next process finds what is left.
        assert!(reserve.spend());
        let left = held().0;
        let again = Reserve::beside(&dir.path().join("controller.db"));
        assert!(again.hold(0, i64::MAX as u64).is_err());
        assert_eq!(held().0, left);
        reserve.keep(10_000, Duration::from_secs(12));
        assert!(reserve.is_spent());
        // Somebody tidies up.
        std::fs::remove_file(dir.path().join("controller.reserve")).unwrap();
        reserve.keep(3, Duration::from_secs(16));
        assert!(held().0 >= LEAST && reserve.spend());
    }
}
