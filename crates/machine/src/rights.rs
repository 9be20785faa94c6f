//! The rights of this process: capabilities, files, and the TUN device.

use rustix::fs::Access;
use rustix::process::geteuid;
use rustix::thread::{CapabilitySet, capabilities};
use std::fs::OpenOptions;
use std::io;
use std::path::Path;

/// A capability that a node uses (capabilities(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Interfaces, addresses, routes, the firewall table.
    NetAdmin,
    /// ICMP echoes.
    NetRaw,
    /// More than one data thread.
    Bpf,
    /// Ports below 1024.
    BindService,
}

impl Right {
    /// As capabilities(7) spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::NetRaw => "CAP_NET_RAW",
            Self::Bpf => "CAP_BPF",
            Self::BindService => "CAP_NET_BIND_SERVICE",
        }
    }

    fn set(self) -> CapabilitySet {
        match self {
            Self::NetAdmin => CapabilitySet::NET_ADMIN,
            Self::NetRaw => CapabilitySet::NET_RAW,
            Self::Bpf => CapabilitySet::BPF,
            Self::BindService => CapabilitySet::NET_BIND_SERVICE,
        }
    }
}

/// Whether this thread has a right.
#[must_use]
pub fn has(right: Right) -> bool {
    // Before CAP_BPF there was CAP_SYS_ADMIN alone, which still includes it.
    let also = match right {
        Right::Bpf => CapabilitySet::SYS_ADMIN,
        Right::NetAdmin | Right::NetRaw | Right::BindService => CapabilitySet::empty(),
    };
    capabilities(None).is_ok_and(|sets| sets.effective.intersects(right.set() | also))
}

/// The number of this process's user.
#[must_use]
pub fn user() -> u32 {
    geteuid().as_raw()
}

/// Whether this user may write into a folder.
#[must_use]
pub fn may_write(folder: &Path) -> bool {
    rustix::fs::accessat(
        rustix::fs::CWD,
        folder,
        Access::WRITE_OK | Access::EXEC_OK,
        rustix::fs::AtFlags::EACCESS,
    )
    .is_ok()
}

/// Whether this user may run a file.
#[must_use]
pub fn may_run(file: &Path) -> bool {
    let flags = rustix::fs::AtFlags::EACCESS;
    file.is_file() && rustix::fs::accessat(rustix::fs::CWD, file, Access::EXEC_OK, flags).is_ok()
}

/// Opens the TUN device, and closes it again. That makes no interface.
///
/// # Errors
/// The system's answer.
pub fn tun() -> io::Result<()> {
    let opened = OpenOptions::new().read(true).write(true).open(TUN);
    opened.map(drop)
}

/// The TUN device.
pub const TUN: &str = "/dev/net/tun";
