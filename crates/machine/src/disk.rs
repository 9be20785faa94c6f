//! Folders, and room on file systems.

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

/// The folder that a path is in: of a bare name the current one.
#[must_use]
pub fn folder_of(path: &Path) -> &Path {
    let parent = path.parent().filter(|it| !it.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

/// The file system of the kernel's own that a path is in, or would be: nobody else makes a file there.
#[must_use]
pub fn kernels_own(path: &Path) -> Option<&'static str> {
    let kind = rustix::fs::statfs(nearest(path)).ok()?.f_type;
    let magic = u32::try_from(kind).ok()?;
    let found = KERNELS_OWN.iter().find(|(it, _)| *it == magic);
    found.map(|(_, name)| *name)
}

/// `path`, or the nearest folder above it that exists.
#[must_use]
pub fn nearest(path: &Path) -> &Path {
    let found = path.ancestors().find(|it| it.exists());
    found.unwrap_or(Path::new("."))
}

/// As `linux/magic.h` numbers them.
const KERNELS_OWN: [(u32, &str); 11] = [
    (0x9fa0, "procfs"),
    (0x6265_6572, "sysfs"),
    (0x0027_e0eb, "cgroupfs"),
    (0x6367_7270, "cgroup2"),
    (0x6462_6720, "debugfs"),
    (0x7472_6163, "tracefs"),
    (0x7363_6673, "securityfs"),
    (0xcafe_4a11, "bpf"),
    (0x1cd1, "devpts"),
    (0x6265_6570, "configfs"),
    (0xde5e_81e4, "efivarfs"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_where_nobody_makes_a_file_are_known_by_their_file_system() {
        assert_eq!(kernels_own(Path::new("/proc/new")), Some("procfs"));
        assert_eq!(kernels_own(Path::new("/sys/kernel")), Some("sysfs"));
        assert_eq!(kernels_own(Path::new("new")), None);
        assert_eq!(kernels_own(&std::env::temp_dir().join("new")), None);
    }

    #[test]
    fn a_bare_name_is_in_the_current_folder() {
        assert_eq!(folder_of(Path::new("a.json")), Path::new("."));
        assert_eq!(folder_of(Path::new("b/a.json")), Path::new("b"));
    }
}
