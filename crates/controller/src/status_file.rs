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
    written: Option<ControllerStatus>,
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
        let mut status = engine.status(now);
        if let Some(written) = &self.written {
            // When it was made is no change.
            let made = std::mem::replace(&mut status.generated_utc, written.generated_utc.clone());
            if status == *written {
                return;
            }
            status.generated_utc = made;
        }
        match write(&self.path, &status) {
            Ok(()) => {
                let (before, after) = (self.written.as_ref().map(standing), standing(&status));
                if before.as_ref() == Some(&after) {
                    tracing::debug!(epoch = status.epoch.id, "status written");
                } else {
                    tracing::info!(epoch = status.epoch.id, "status written");
                }
                self.failed = false;
                self.written = Some(status);
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
fn standing(status: &ControllerStatus) -> (u64, Vec<(NodeName, Membership, NodeState)>) {
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
    let mut text = serde_json::to_vec_pretty(status)?;
    text.push(b'\n');
    file.write_all(&text)?;
    // The mode at creation is subject to the umask.
    file.as_file()
        .set_permissions(std::fs::Permissions::from_mode(0o644))?;
    file.persist(path)?;
    Ok(())
}

/// Changes within this time share one writing.
const STATUS_PAUSE: Duration = Duration::from_millis(200);
/// Reasons change with time alone: evidence turns stale.
const STATUS_REFRESH: Duration = Duration::from_secs(5);
