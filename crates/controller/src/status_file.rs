//! `status.json`: when it is written, and how. Owns nothing that cannot be lost; refuses to hold up anybody
//! for a disk that does not take it: a thread writes, and of several that wait only the newest.

use crate::clock::Now;
use crate::engine::Engine;
use ::page::Board;
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
use wire::NodeName;
use wire::admin::{ControllerStatus, Membership, NodeState};

/// `status.json`, kept up with the engine.
pub(crate) struct StatusFile {
    desk: Arc<Desk>,
    board: Arc<Board>,
    /// Hung up when the thread has ended.
    ended: Receiver<()>,
    not_before: Duration,
    refresh_at: Duration,
    pending: bool,
}

/// Between the loop and the thread.
#[derive(Default)]
struct Desk {
    lies: Mutex<Lies>,
    changed: Condvar,
}

#[derive(Default)]
struct Lies {
    /// The newest status, if it has not been taken.
    newest: Option<Arc<ControllerStatus>>,
    /// No other will come.
    is_last: bool,
}

impl Desk {
    fn lay(&self, newest: Arc<ControllerStatus>, is_last: bool) {
        let mut lies = self.lies.lock().unwrap_or_else(PoisonError::into_inner);
        lies.newest = Some(newest);
        lies.is_last = is_last;
        drop(lies);
        self.changed.notify_one();
    }

    /// The newest status, as soon as there is one; `None` when none will come.
    fn take(&self) -> Option<Arc<ControllerStatus>> {
        let lies = self.lies.lock().unwrap_or_else(PoisonError::into_inner);
        let is_empty = |lies: &mut Lies| lies.newest.is_none() && !lies.is_last;
        let lies = self.changed.wait_while(lies, is_empty);
        lies.unwrap_or_else(PoisonError::into_inner).newest.take()
    }
}

impl StatusFile {
    /// Starts the thread that writes to `path`. Every status is laid on the web page's board as well, before the disk has
    /// it: a page that somebody looks at does not wait for that.
    ///
    /// # Errors
    /// When no thread can be had.
    pub(crate) fn start(path: PathBuf, board: Arc<Board>) -> std::io::Result<Self> {
        let desk = Arc::new(Desk::default());
        let (of_thread, (ending, ended)) = (Arc::clone(&desk), channel());
        let mut writer = Writer {
            path,
            written: None,
            failed: false,
        };
        let thread = std::thread::Builder::new().name("meshd-status".into());
        thread.spawn(move || {
            while let Some(newest) = of_thread.take() {
                writer.keep(&newest);
                // The page changes it, and then needs no copy.
                drop(newest);
            }
            drop(ending);
        })?;
        Ok(Self {
            board,
            desk,
            ended,
            not_before: Duration::ZERO,
            refresh_at: Duration::ZERO,
            pending: true,
        })
    }

    pub(crate) fn due(&self) -> Duration {
        if self.pending {
            self.not_before
        } else {
            self.refresh_at
        }
    }

    pub(crate) fn keep(&mut self, engine: &mut Engine, now: Now) {
        self.pending |= engine.take_dirty();
        if self.due() <= now.boot {
            self.keep_at_once(engine, now);
        }
    }

    fn keep_at_once(&mut self, engine: &Engine, now: Now) {
        self.pending = false;
        self.not_before = now.boot + pause(engine.nodes());
        self.refresh_at = now.boot + refresh(engine.nodes());
        let status = Arc::new(engine.status(now));
        self.board.lay(Arc::clone(&status));
        self.desk.lay(status, false);
    }

    /// Has the last status written, and waits for that a little.
    pub(crate) fn stop(self, engine: &Engine, now: Now) {
        self.desk.lay(Arc::new(engine.status(now)), true);
        if self.ended.recv_timeout(STOP_TIME) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the disk does not take the status file: it stays as it is");
        }
    }
}

/// The thread's own state.
struct Writer {
    path: PathBuf,
    /// Where everybody stood when it was written last.
    written: Option<Standing>,
    failed: bool,
}

impl Writer {
    /// Writes even if nothing has changed: an old file is that of a controller which has ended.
    fn keep(&mut self, status: &ControllerStatus) {
        match write(&self.path, status) {
            Ok(()) => {
                let after = standing(status);
                if self.written.as_ref() == Some(&after) {
                    tracing::debug!(epoch = status.epoch.id, "status written");
                } else {
                    tracing::info!(epoch = status.epoch.id, "status written");
                }
                self.failed = false;
                self.written = Some(after);
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failed, true) {
                    tracing::warn!(path = %self.path.display(), %error, "status file cannot be written");
                }
                self.written = None;
            }
        }
    }
}

/// The part of a status that is worth a line: the epoch, and where each node stands in it.
type Standing = (u64, Vec<(NodeName, Membership, NodeState)>);

fn standing(status: &ControllerStatus) -> Standing {
    let nodes = status.nodes.iter();
    let nodes = nodes.map(|(name, node)| (name.clone(), node.membership, node.state));
    (status.epoch.id, nodes.collect())
}

/// Replaces the file in one step: a reader sees the old content or the new, never a part.
///
/// # Errors
/// The system's.
pub(crate) fn write(path: &Path, status: &ControllerStatus) -> std::io::Result<()> {
    refuse_others(path)?;
    let dir = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new()
        .prefix(".status-")
        .permissions(std::fs::Permissions::from_mode(0o644))
        .tempfile_in(dir)?;
    // Much of it comes from other machines, and a terminal obeys what it is shown. In pieces: of 10,000 nodes the whole
    // text has 15 MB.
    let mut text = Visible(BufWriter::with_capacity(PIECE, &mut file));
    serde_json::to_writer_pretty(&mut text, status)?;
    text.0.write_all(b"\n")?;
    text.0.flush()?;
    drop(text);
    // The mode at creation is subject to the umask.
    file.as_file()
        .set_permissions(std::fs::Permissions::from_mode(0o644))?;
    file.persist(path)?;
    Ok(())
}

/// Refuses a path at which something has been put while the daemon runs, unless it is a regular file: a device, a folder, or
/// a link to somebody's file.
fn refuse_others(path: &Path) -> std::io::Result<()> {
    match path.symlink_metadata() {
        Ok(meta) if !meta.is_file() => Err(std::io::Error::other("it is no regular file")),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Writes JSON with everything hidden escaped. The serializer writes whole characters.
struct Visible<W>(W);

impl<W: Write> Write for Visible<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let invalid = |error| std::io::Error::new(std::io::ErrorKind::InvalidData, error);
        let text = std::str::from_utf8(bytes).map_err(invalid)?;
        let visible = wire::visible::json(text);
        self.0.write_all(visible.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// How long changes wait for each other in a mesh of so many nodes.
fn pause(nodes: usize) -> Duration {
    let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
    let pause = PAUSE_PER_NODE.saturating_mul(nodes);
    pause.clamp(STATUS_PAUSE, MAX_PAUSE)
}

/// After how long it is written anew where nothing has changed.
fn refresh(nodes: usize) -> Duration {
    pause(nodes).max(STATUS_REFRESH)
}

/// Bytes of the file that are written at once.
const PIECE: usize = 256 << 10;
/// Changes within this time share one writing.
const STATUS_PAUSE: Duration = Duration::from_millis(200);
/// In a large mesh, more of them do: everybody waits while a status is made, 5 µs for each node.
const PAUSE_PER_NODE: Duration = Duration::from_millis(1);
/// Reasons change with time alone, as evidence turns stale; and readers see by its age that there is a
/// controller.
const STATUS_REFRESH: Duration = Duration::from_secs(5);
/// However large the mesh is.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// The wait at the end for a disk to take the last one.
const STOP_TIME: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_a_regular_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (link, file) = (folder.path().join("link"), folder.path().join("file"));
        std::fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        for refused in [link.as_path(), folder.path(), Path::new("/dev/null")] {
            assert!(refuse_others(refused).is_err(), "{refused:?}");
        }
        for taken in [file.as_path(), &folder.path().join("none")] {
            assert!(refuse_others(taken).is_ok(), "{taken:?}");
        }
    }

    #[test]
    fn a_large_mesh_has_its_status_made_less_often() {
        let paused = [0, 50, 200, 1_000, usize::MAX].map(pause);
        assert_eq!(
            paused.map(|it| it.as_millis()),
            [200, 200, 200, 1_000, 10_000]
        );
        assert_eq!(refresh(3), STATUS_REFRESH);
        assert_eq!(refresh(100_000), MAX_PAUSE);
    }
}
