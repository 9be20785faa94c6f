//! Room on file systems.

use std::io;
use std::path::Path;

/// Room on a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// For this user.
    pub free: u64,
    /// In all.
    pub total: u64,
    /// Whether nothing can be written there.
    pub is_read_only: bool,
}

/// The room where `path` is, or where its nearest folder that exists is.
///
/// # Errors
/// The system's answer.
pub fn room(path: &Path) -> io::Result<Room> {
    let there = nearest(path);
    let stat = rustix::fs::statvfs(there)?;
    Ok(Room {
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
        total: stat.f_blocks.saturating_mul(stat.f_frsize),
        is_read_only: stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY),
    })
}

/// `path`, or the nearest folder above it that exists.
#[must_use]
pub fn nearest(path: &Path) -> &Path {
    let found = path.ancestors().find(|it| it.exists());
    found.unwrap_or(Path::new("."))
}
