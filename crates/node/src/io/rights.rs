//! The rights of this process. Rights are of threads (capabilities(7)): each thread is left with what it
//! uses after it has been set up, and what it starts inherits no more than that.

use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// The rights that a thread keeps, as far as it has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep(CapabilitySet);

impl Keep {
    /// Nothing.
    pub const NOTHING: Self = Self(CapabilitySet::empty());
    /// The firewall table.
    pub const NETWORK: Self = Self(CapabilitySet::NET_ADMIN);
    /// The interface, and the raw sockets that go with it.
    pub const INTERFACE: Self = Self(CapabilitySet::NET_ADMIN.union(CapabilitySet::NET_RAW));
    /// The same, raw sockets that are still to be opened, and to give up the rest for good.
    pub const NETWORK_SETUP: Self = Self(
        CapabilitySet::NET_ADMIN
            .union(CapabilitySet::NET_RAW)
            .union(CapabilitySet::SETPCAP),
    );
    /// Files of other users: of a daemon of root's that works in another user's directory.
    pub const FILES: Self = Self(CapabilitySet::DAC_OVERRIDE);

    /// To run a benchmark as another user, and to end it.
    pub const BENCHMARK: Self = Self(
        CapabilitySet::SETUID
            .union(CapabilitySet::SETGID)
            .union(CapabilitySet::KILL),
    );

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0.union(other.0))
    }
}

/// Leaves the calling thread, and all that it will start, no more than `keep`. The bounding set is reduced
/// as far as the system lets it: a thread without the right to change that set cannot gain by it either,
/// once `no_new_privs` is set.
pub fn reduce(keep: Keep) {
    let reduced = || {
        set_no_new_privs(true)?;
        clear_ambient_capability_set()?;
        let kept = capabilities(None)?.permitted & keep.0;
        bound(kept)?;
        retain(kept)
    };
    if let Err(error) = reduced() {
        tracing::warn!(%error, "rights that are not needed could not be given up");
    }
}

/// Whether this process is root's.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Neither a core file nor another process of this user gets to see this one's memory.
pub fn protect_memory() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let done = setrlimit(Resource::Core, none)
        .and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable));
    if let Err(error) = done {
        tracing::warn!(%error, "memory could not be protected from core dumps");
    }
}

/// An exec of root's, or of a program with file capabilities, gets no more than the bounding set.
fn bound(keep: CapabilitySet) -> Result<(), Errno> {
    for bit in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        match capability_is_in_bounding_set(one) {
            Ok(true) if !keep.contains(one) => match remove_capability_from_bounding_set(one) {
                Ok(()) | Err(Errno::PERM) => {}
                Err(error) => return Err(error),
            },
            Ok(_) => {}
            // This kernel has no capability of that number, nor a later one.
            Err(Errno::INVAL) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Ambient as well, so that a program which this thread starts has them without being root's.
fn retain(kept: CapabilitySet) -> Result<(), Errno> {
    set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: kept,
        },
    )?;
    for one in kept.iter() {
        configure_capability_in_ambient_set(one, true)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_what_it_names_as_far_as_it_had_it_and_so_does_what_it_starts() {
        let before = capabilities(None).unwrap().permitted;
        let seen = std::thread::spawn(|| {
            reduce(Keep::NETWORK);
            let child = std::process::Command::new("cat")
                .arg("/proc/self/status")
                .output();
            (capabilities(None).unwrap(), child.unwrap().stdout)
        });
        let (own, child) = seen.join().unwrap();
        let expected = before & CapabilitySet::NET_ADMIN;
        assert_eq!((own.permitted, own.effective), (expected, expected));
        let child = String::from_utf8(child).unwrap();
        let effective = format!("CapEff:\t{:016x}", expected.bits());
        assert!(child.contains(&effective), "{child}");
        assert!(child.contains("NoNewPrivs:\t1"), "{child}");
        let own = capabilities(None).unwrap().permitted;
        assert_eq!(own, before, "rights are of threads");
    }
}
