//! Which process speaks for a node, so that two machines with one node's keys are told from one machine that
//! was started again.
//!
//! A process says three things of itself: the boot of its machine, its home (the file that its state
//! directory is locked by, on that boot), and its run, which is random. One lock is held by one process: a
//! process with the home of another follows it, and one with the run of another *is* it. Any other may be a
//! copy. The identifiers are hashes under the mesh's own, and identify nothing outside it.

use keys::MeshId;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::net::SocketAddr;

/// One process of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// The boot of its machine.
    pub boot: [u8; 16],
    /// The lock of its state directory, on that boot.
    pub home: [u8; 16],
    /// Random, new with every start.
    pub run: [u8; 16],
}

/// A process as others are told of it: enough for people to tell it from another, and too little for anybody
/// to pass for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The beginning of [`Instance::boot`].
    pub boot: [u8; 4],
    /// The beginning of [`Instance::run`].
    pub run: [u8; 4],
    /// Where its control connection comes from.
    pub address: SocketAddr,
}

/// Two processes that run with one node's keys at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Duplicate {
    /// The one that is served.
    pub first: Seen,
    /// The one that is not.
    pub other: Seen,
}

impl Instance {
    /// A process on the boot `boot_id` of its machine; `lock` is the device and the inode of the file that it
    /// holds locked, and `run` is random.
    pub fn new(mesh: MeshId, boot_id: &str, lock: Option<(u64, u64)>, run: [u8; 16]) -> Self {
        let boot = Sha256::new()
            .chain_update(LABEL_BOOT)
            .chain_update(mesh.0)
            .chain_update(boot_id);
        // A process that cannot see its lock follows no other.
        let home = lock.map_or(run, |(device, inode)| {
            let home = Sha256::new()
                .chain_update(LABEL_HOME)
                .chain_update(mesh.0)
                .chain_update(device.to_be_bytes())
                .chain_update(inode.to_be_bytes())
                .chain_update(boot_id);
            half(home)
        });
        Self {
            boot: half(boot),
            home,
            run,
        }
    }

    /// Whether this is the process `before`, or one that can only run because that one has ended.
    pub fn succeeds(&self, before: &Self) -> bool {
        self.run == before.run || self.home == before.home
    }
}

impl Seen {
    /// A process whose control connection comes from `address`.
    pub fn at(address: SocketAddr, instance: &Instance) -> Self {
        Self {
            boot: first(&instance.boot),
            run: first(&instance.run),
            address,
        }
    }

    /// The boot, as people are shown it.
    pub fn boot_words(&self) -> String {
        hex(&self.boot)
    }

    /// The run, as people are shown it.
    pub fn run_words(&self) -> String {
        hex(&self.run)
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ip, boot, run) = (self.address.ip(), self.boot_words(), self.run_words());
        write!(f, "{ip} (boot {boot}, run {run})")
    }
}

impl fmt::Display for Duplicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, other } = self;
        write!(
            f,
            "two machines run with this node's keys: {first} was first and stays, {other} is kept out. Stop one \
             of them; if both are to run, empty the state directory of the copy, and enrol it with a token of \
             its own (`meshctl token create`)"
        )
    }
}

/// The first half of a hash: nobody gains by finding another machine with the same.
fn half(hash: Sha256) -> [u8; 16] {
    first::<16>(&hash.finalize())
}

/// The first bytes of `all`, which has as many.
fn first<const N: usize>(all: &[u8]) -> [u8; N] {
    let mut first = [0; N];
    for (to, from) in first.iter_mut().zip(all) {
        *to = *from;
    }
    first
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

const LABEL_BOOT: &[u8] = b"meshd/v1 boot";
const LABEL_HOME: &[u8] = b"meshd/v1 home";

#[cfg(test)]
mod tests {
    use super::*;

    const MESH: MeshId = MeshId([1; 16]);

    #[test]
    fn a_process_succeeds_itself_and_the_one_whose_lock_it_holds() {
        let of = |boot, lock, run| Instance::new(MESH, boot, lock, [run; 16]);
        let first = of("boot", Some((1, 2)), 1);
        assert!(first.succeeds(&first));
        assert!(of("boot", Some((1, 2)), 2).succeeds(&first), "a restart");
        let others = [
            ("a copy on this machine", of("boot", Some((1, 3)), 2)),
            ("one on another file system", of("boot", Some((2, 2)), 2)),
            ("a machine that booted", of("other", Some((1, 2)), 2)),
            ("no lock is seen", of("boot", None, 2)),
        ];
        for (what, other) in others {
            assert!(!other.succeeds(&first), "{what}");
        }
        assert!(!of("boot", None, 2).succeeds(&of("boot", None, 1)));
        // The same machine in two meshes cannot be recognised.
        let elsewhere = Instance::new(MeshId([2; 16]), "boot", Some((1, 2)), [1; 16]);
        assert!(elsewhere.boot != first.boot && elsewhere.home != first.home);
        assert_ne!(first.boot, first.home);
    }
}
