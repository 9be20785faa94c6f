//! Requests of the member machine, by addressee: the data plane gets an [`EpochChange`], the agent a
//! [`Notice`]. Neither can be handed the other's by mistake.

use crate::derivation::Derivation;
use crate::plan::PeerPlan;
use keys::{Epoch, WgPublicKey};
use std::collections::HashSet;
use std::time::Duration;
use wire::message::Phase;
use wire::rules::{Groups, Rules};
use wire::update::LeaseEnd;
use wire::{Digest, Prefix};

/// The next thing to do. Commands are carried out in the order in which they come.
#[derive(Debug)]
pub enum Command {
    /// For the data plane.
    Data(EpochChange),
    /// For the agent.
    Agent(Notice),
    /// For a thread that may take its time: run it, and hand the result to
    /// [`crate::Member::handle_derived`].
    Derive(Derivation),
}

/// One change of the data plane, which carries it out as a whole: first `keep`, then `install`, then
/// `turn`.
///
/// An epoch without lead is installed and begun by one such value. Were the two steps apart, packets
/// could pass between them to a peer that the new epoch leaves out.
#[derive(Debug, Default)]
pub struct EpochChange {
    /// Peers that lose what they have, while the PSKs of the others are being derived.
    pub keep: Option<Keep>,
    /// Generations to prepare.
    pub install: Option<Install>,
    /// The turn that the epoch in force then takes.
    pub turn: Option<Turn>,
}

/// Take away from everybody but the members of an epoch to come what is installed for them.
#[derive(Debug)]
pub struct Keep {
    /// The members.
    pub members: HashSet<WgPublicKey>,
    /// Everybody else is gone as a whole: the epoch is due. Its other parts follow.
    pub at_once: bool,
}

/// Give each peer a generation of this epoch in the slot `next`.
#[derive(Debug)]
pub struct Install {
    /// The epoch.
    pub epoch: Epoch,
    /// Every other member that this node has a tunnel to. Nobody is left in the slot `next` that is not among them.
    pub peers: Vec<PeerPlan>,
    /// The rules of what members may send to each other.
    pub rules: Box<Rules>,
    /// The groups of this node.
    pub own: Groups,
    /// The networks behind this node.
    pub behind: Vec<Prefix>,
    /// Time until the epoch begins.
    pub lead: Duration,
    /// When the data plane must stop by itself; `None`: it may go on.
    pub closes_at: Option<Duration>,
}

/// A turn that the epoch in force takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The installed epoch of this number replaces it; peers that are not part of that one are gone.
    Begin(Epoch),
    /// It stays; what is left of the epoch before it is wiped.
    DiscardPrevious,
    /// It ends: no peer is left but those that are installed for an epoch to come.
    Close,
}

/// A task for the agent.
#[derive(Debug)]
pub enum Notice {
    /// This is in force from now on: remember it across restarts.
    Persist(HighWater),
    /// Tell the controller.
    Acknowledge {
        /// The epoch.
        epoch: Epoch,
        /// How far this node has come with it.
        phase: Phase,
    },
    /// Tell the operator.
    Report(Change),
}

/// The newest update that was ever in force here; persisted so that a restart does not go back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HighWater {
    /// Its epoch; zero before the first.
    pub epoch: Epoch,
    /// Its digest.
    pub digest: Digest,
}

/// A change that an operator wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// An update is verified and its PSKs are derived.
    Installed {
        /// Its epoch.
        epoch: Epoch,
    },
    /// An epoch is in force here, and this node is a member.
    Activated {
        /// The epoch.
        epoch: Epoch,
        /// Other members that this node has a tunnel to.
        peers: usize,
    },
    /// An epoch is in force here, and this node is not a member.
    Excluded {
        /// The epoch.
        epoch: Epoch,
        /// Why, in the controller's words; `None`: the epoch was decided before this node was known.
        reason: Option<String>,
    },
    /// The epoch before this one is wiped.
    Discarded {
        /// The epoch in force.
        epoch: Epoch,
    },
    /// No newer update came within the lease.
    LeaseEnded {
        /// The last epoch.
        epoch: Epoch,
        /// The segment's policy for that case.
        then: LeaseEnd,
    },
    /// More time has passed than this machine counted and than the lease had left.
    TimeLost {
        /// The last epoch.
        epoch: Epoch,
    },
    /// Another machine runs with this node's keys, and is the one that is served.
    Duplicate {
        /// The last epoch.
        epoch: Epoch,
    },
    /// A member's key is of low order: no tunnel to it is possible.
    WeakKey {
        /// The key.
        key: WgPublicKey,
    },
}
