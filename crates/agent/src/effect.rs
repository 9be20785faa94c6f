//! An agent's ingredients, its clocks, its effects and its counts: values that come and go, without any logic.

use crate::data::DataChange;
use crate::seen::SeenRun;
use epoch::Derivation;
use epoch::member::HighWater;
use jiff::Timestamp;
use keys::{AuthorityId, MeshId, NodeSecret, SegmentId, WgSecret};
use std::time::Duration;
use wire::endpoints::PlacesMark;
use wire::log::LogEnd;
use wire::{Ask, Digest, Mark, NodeName, Place, SegmentName, Signed, ToController};

/// One moment, on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Since the machine booted, its sleep included. Epochs run on this one.
    pub boot: Duration,
    /// By the calendar: for evidence and for people.
    pub wall: Timestamp,
}

/// Everything that an agent is made from.
pub struct Config {
    /// The node's identity.
    pub identity: NodeSecret,
    /// Its name.
    pub name: NodeName,
    /// The mesh that it is in.
    pub mesh: MeshId,
    /// Whose signatures count.
    pub authorities: Vec<AuthorityId>,
    /// The segments that it has a place in, each once.
    pub segments: Vec<SegmentConfig>,
    /// The segments that it would like to be in, by name, with a key for each.
    pub asks: Vec<Ask>,
    /// The end of the controller's log, as this node has seen it.
    pub log: Option<LogEnd>,
    /// The runs that had come from files before this start.
    pub seen: Vec<SeenRun>,
    /// How many PSKs the machine derives itself: [`epoch::DERIVE_AT_ONCE`], or none to have all derived by
    /// [`Effect::Derive`].
    pub derive_at_once: usize,
}

/// Everything that a segment of an agent is made from.
pub struct SegmentConfig {
    /// Where the node belongs in it.
    pub place: Place,
    /// The node's WireGuard key in it.
    pub wg: WgSecret,
    /// The newest epoch that was in force here before this start.
    pub high_water: HighWater,
    /// The authority's word for it.
    pub mark: Option<Signed<Mark>>,
}

/// Something that the agent wants done.
#[derive(Debug)]
pub enum Effect {
    /// Change the tunnel of a segment: [`DataChange::carry_out`].
    Data(SegmentId, DataChange),
    /// Run this where it may take its time, and hand what comes of it to
    /// [`Agent::handle_derived`](crate::Agent::handle_derived) with the segment.
    Derive(SegmentId, Derivation),
    /// Tell the controller. If that cannot be, tell [`Agent::handle_unsent`](crate::Agent::handle_unsent).
    Send(ToController),
    /// End the control connection and make another.
    HangUp,
    /// Remember this across restarts, and show the mark to the next controller that is met.
    Remember {
        /// The segment.
        segment: SegmentId,
        /// The newest epoch that was in force here.
        high_water: HighWater,
        /// The authority's word for it.
        mark: Option<Signed<Mark>>,
        /// The end of the controller's log, as this node has seen it.
        log: Option<LogEnd>,
    },
    /// Show this end of the controller's log to the next controller that is met.
    Witnessed(LogEnd),
    /// Show the controller at the next connection that these updates are held. No restart survives them.
    Holds(Vec<Digest>),
    /// Show the controller at the next connection up to where this node was told of the endpoints of others.
    Told(Vec<PlacesMark>),
    /// Remember across restarts that these runs came from files.
    RememberRuns(Vec<SeenRun>),
    /// The controller has another place for this node: remember it for the next start, because addresses,
    /// tunnels and epochs of this run are of the old one.
    Move(Place),
    /// The node has a place in one more segment: give it an interface and a tunnel there, and then call
    /// [`Agent::handle_segment`](crate::Agent::handle_segment); or
    /// [`Agent::handle_no_segment`](crate::Agent::handle_no_segment), if that cannot be.
    Placed(Place),
    /// The node has no place in this segment any more: its tunnel closes at once, and its interface goes.
    Left(SegmentId),
    /// An operator lets the node into this segment: make a key for it, and then call
    /// [`Agent::handle_ask`](crate::Agent::handle_ask).
    Invited(SegmentName),
    /// These keys sign for the mesh, and no others: remember it across restarts.
    Trust(Vec<AuthorityId>),
    /// Look at the underlay, and set the probes' targets again: paths may have changed.
    LookAtUnderlay,
}

/// Counts that nothing else keeps, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// How often the control channel came up.
    pub control_connections: u64,
    /// Updates that were taken.
    pub updates_accepted: u64,
    /// Updates whose signature does not verify.
    pub updates_unverified: u64,
    /// Updates that break another rule.
    pub updates_rejected: u64,
    /// Evidence that the controller took.
    pub evidence_accepted: u64,
    /// Evidence that it did not.
    pub evidence_refused: u64,
}
