//! The user that a benchmark runs as, if it is not the daemon's: it cannot read the state directory, nor ask the
//! admin socket. Refuses a user who could all the same.

use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, set_capabilities,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use std::ffi::CString;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A user of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BenchmarkUser {
    name: String,
    id: u32,
    group: u32,
    /// All groups that the user is in.
    groups: Vec<u32>,
    home: PathBuf,
}

/// Why a benchmark cannot run as a user.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// There is none.
    #[error("this machine has no user `{0}`: `useradd --system {0}` makes one")]
    Unknown(String),
    /// The system does not say.
    #[error("this machine does not say who `{name}` is: {source}")]
    Lookup {
        /// The name.
        name: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Nothing is kept from root.
    #[error(
        "`{0}` is root, from whom nothing is kept: name another user, or leave the setting out"
    )]
    Root(String),
    /// The state directory is this user's.
    #[error("`{name}` owns {}, which is to be kept from benchmarks: name another user", .folder.display())]
    Owner {
        /// The name.
        name: String,
        /// The state directory.
        folder: PathBuf,
    },
    /// The daemon may not become another user.
    #[error(
        "this daemon may not run a program as `{0}`: start it as root, or with CAP_SETUID, CAP_SETGID and CAP_KILL"
    )]
    NotAllowed(String),
}

impl BenchmarkUser {
    /// Asks the system for a user, by name or number.
    ///
    /// # Errors
    /// [`UserError::Unknown`], [`UserError::Lookup`], [`UserError::Root`].
    pub fn find(name: &str) -> Result<Self, UserError> {
        let refused = |source: nix::Error| UserError::Lookup {
            name: name.to_owned(),
            source: source.into(),
        };
        let by_name = nix::unistd::User::from_name(name).map_err(refused)?;
        let by_number = || match name.parse() {
            Ok(id) => nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(id)),
            Err(_) => Ok(None),
        };
        let user = match by_name {
            Some(user) => Some(user),
            None => by_number().map_err(refused)?,
        };
        let user = user.ok_or_else(|| UserError::Unknown(name.to_owned()))?;
        if user.uid.is_root() {
            return Err(UserError::Root(name.to_owned()));
        }
        let in_c = CString::new(user.name.as_str()).unwrap_or_default();
        let groups = nix::unistd::getgrouplist(&in_c, user.gid).map_err(refused)?;
        Ok(Self {
            name: user.name,
            id: user.uid.as_raw(),
            group: user.gid.as_raw(),
            groups: groups.into_iter().map(nix::unistd::Gid::as_raw).collect(),
            home: user.dir,
        })
    }

    /// Whether the daemon runs as this user itself.
    pub fn is_own(&self) -> bool {
        self.id == rustix::process::geteuid().as_raw()
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Whether this daemon may run programs as this user, and its state directory is kept from them.
    ///
    /// # Errors
    /// [`UserError::NotAllowed`], [`UserError::Owner`].
    pub fn check(&self, state_dir: &Path) -> Result<(), UserError> {
        let owner = std::fs::metadata(state_dir).map(|meta| meta.uid());
        if owner.is_ok_and(|owner| owner == self.id) {
            return Err(UserError::Owner {
                name: self.name.clone(),
                folder: state_dir.to_owned(),
            });
        }
        let has = capabilities(None).map(|sets| sets.permitted);
        if has.is_ok_and(|has| has.contains(NEEDED)) {
            Ok(())
        } else {
            Err(UserError::NotAllowed(self.name.clone()))
        }
    }

    /// Has a program start as this user, in its groups, without any capability.
    pub(super) fn take_over(&self, command: &mut Command) {
        command
            .env("HOME", &self.home)
            .env("USER", &self.name)
            .env("LOGNAME", &self.name);
        let (user, group) = (Uid::from_raw(self.id), Gid::from_raw(self.group));
        let groups: Vec<Gid> = self.groups.iter().map(|it| Gid::from_raw(*it)).collect();
        let become_user = move || {
            set_thread_groups(&groups)?;
            set_thread_res_gid(group, group, group)?;
            set_thread_res_uid(user, user, user)?;
            // The kernel takes them from root that becomes another; of a daemon that is not root's they stay.
            clear_ambient_capability_set()?;
            set_capabilities(None, NONE)?;
            Ok(())
        };
        #[expect(
            unsafe_code,
            reason = "runs between fork and exec: system calls alone, no allocation, no lock"
        )]
        unsafe {
            command.pre_exec(become_user);
        }
    }
}

/// The rights that a daemon needs for it: to become another user, and to end that user's processes.
pub(crate) const NEEDED: CapabilitySet = CapabilitySet::SETUID
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::KILL);
const NONE: CapabilitySets = CapabilitySets {
    effective: CapabilitySet::empty(),
    permitted: CapabilitySet::empty(),
    inheritable: CapabilitySet::empty(),
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_to_exist_and_must_not_be_root() {
        let unknown = BenchmarkUser::find("no-such-user").unwrap_err().to_string();
        assert!(unknown.contains("no user `no-such-user`"), "{unknown}");
        let root = BenchmarkUser::find("root").unwrap_err().to_string();
        assert!(root.contains("from whom nothing is kept"), "{root}");
        assert!(BenchmarkUser::find("0").is_err());
        let nobody = BenchmarkUser::find("nobody").unwrap();
        assert_eq!(BenchmarkUser::find(&nobody.id.to_string()).unwrap(), nobody);
    }

    #[test]
    fn the_owner_of_the_state_directory_and_a_daemon_without_rights_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let owner = BenchmarkUser {
            id: std::fs::metadata(folder.path()).unwrap().uid(),
            ..BenchmarkUser::find("nobody").unwrap()
        };
        let error = owner.check(folder.path()).unwrap_err();
        assert!(matches!(error, UserError::Owner { .. }), "{error}");
        let refused = std::thread::spawn(move || {
            crate::io::rights::reduce(crate::io::rights::Keep::NOTHING);
            BenchmarkUser::find("nobody").unwrap().check(folder.path())
        });
        let error = refused.join().unwrap().unwrap_err();
        assert!(error.to_string().contains("CAP_SETUID"), "{error}");
    }
}
