//! `status.json`: when it is written, and how. Owns nothing that cannot be lost; refuses to hold up the loop
//! for a disk that does not take it.

use crate::clock::Now;
use crate::engine::Engine;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use wire::NodeName;
use wire::admin::{ControllerStatus, Membership, NodeState};

/// `status.json`, kept up with the engine.
pub(crate) struct StatusFile {
    path: PathBuf,
    /// Where everybody stood when it was written last.
    written: Option<Standing>,
    not_before: Duration,
    refresh_at: Duration,
    pending: bool,
    failed: bool,
}

impl StatusFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            written: None,
            not_before: Duration::ZERO,
            refresh_at: Duration::ZERO,
            pending: true,
            failed: false,
        }
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

    pub(crate) fn keep_at_once(&mut self, engine: &mut Engine, now: Now) {
        self.pending = false;
        self.not_before = now.boot + STATUS_PAUSE;
        self.refresh_at = now.boot + STATUS_REFRESH;
        // Even if nothing has changed: an old file is that of a controller which has ended.
        let status = engine.status(now);
        match write(&self.path, &status) {
            Ok(()) => {
                let after = standing(&status);
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
    let dir = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new()
        .prefix(".status-")
        .permissions(std::fs::Permissions::from_mode(0o644))
        .tempfile_in(dir)?;
    // At once: with 50 nodes, a write for each token takes a tenth of a second, in the loop that
    // everybody waits for.
    let mut text = serde_json::to_string_pretty(status)?;
    text.push('\n');
    // Much of it comes from other machines, and a terminal obeys what it is shown.
    file.write_all(wire::visible::json(&text).as_bytes())?;
    // The mode at creation is subject to the umask.
    file.as_file()
        .set_permissions(std::fs::Permissions::from_mode(0o644))?;
    file.persist(path)?;
    Ok(())
}

/// Changes within this time share one writing.
const STATUS_PAUSE: Duration = Duration::from_millis(200);
/// Reasons change with time alone, as evidence turns stale; and readers see by its age that there is a
/// controller.
const STATUS_REFRESH: Duration = Duration::from_secs(5);
