//! The node's agent as a machine: what comes from the controller, from the benchmark, from the probes
//! and from the clocks goes in; what the data plane, the controller, the disk and the interface have to
//! do comes out, as [`Effect`]s. The daemon, the simulation and the hostile tests run this one.
//!
//! | Module | Holds |
//! |---|---|
//! | `agent` | [`Agent`]: the inputs, the effects, and how the parts play together |
//! | `segment` | the parts that each segment has to itself |
//! | `asks` | the segments that the node would like to be in |
//! | `effect` | the effects, and the values that an agent is made from |
//! | `control` | the control channel as the agent sees it |
//! | `evidence` | a run from the benchmark to the controller's answer |
//! | `witness` | the controller's log, as far as this node has seen it |
//! | `marks` | the authority's word for the newest epoch |
//! | `places` | where the controller said that nodes are |
//! | `report` | an operator's lines about epochs |
//! | `pings` | what the probes found, the report of it, and the cause of what was not answered |
//! | `sample` | whom a round of probes looks at |
//! | `paths` | the size of a packet that the path to each peer carries |
//! | `ways` | where the kernel sends what is meant for the peers |
//! | `lost_time` | time that this machine's clocks did not count |
//! | `data` | where the two machines meet: one [`DataChange`] becomes calls of the tunnel |
//!
//! The crate reads no clock and opens nothing. It knows the tunnel's types and the way to change one, and
//! refuses to own one: in the daemon other threads do.

#![forbid(unsafe_code)]

mod agent;
mod asks;
mod control;
mod data;
mod effect;
mod evidence;
mod held;
mod lost_time;
mod marks;
mod paths;
mod pings;
mod places;
mod report;
mod sample;
mod seen;
mod segment;
#[cfg(test)]
mod tests;
mod ways;
mod witness;

pub use agent::Agent;
pub use control::{Control, SessionEvent};
pub use data::{DataChange, DataStep, Part, Places, Preparation};
pub use effect::{Config, Counts, Effect, Now, SegmentConfig};
pub use evidence::{Emission, Evidence, EvidenceResult};
pub use paths::{OVERHEAD_V4, OVERHEAD_V6, PathLimit, overhead};
pub use pings::{Echoes, Ping, PingFailure, PingResult, Round, Target};
pub use places::{inside, inside_all};
pub use sample::{BUSY_FOR, EVERYBODY, IN_TURN, MOST_BUSY};
pub use seen::SeenRun;
pub use segment::InSegment;
pub use ways::PeerWays;
pub use witness::Cosigned;
