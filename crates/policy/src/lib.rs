//! Evidence and rules to decisions with reasons; arithmetic only.
//!
//! Every function here is pure: what time it is and what is known about a node are arguments, so
//! that replaying the event log gives the same decisions. This crate refuses clocks, files and
//! sockets; it never sees an envelope that has not been verified.
//!
//! | Module | Holds |
//! |---|---|
//! | [`settings`] | [`Policy`]: the rules as the operator writes them, their check and their digest |
//! | [`require`], [`scope`], [`version`] | a requirement and its mapping of metrics; what an evaluator may vouch for; versions that count |
//! | [`traffic`], [`compare`] | which members connect, and what they may send to each other; the difference that other rules would make |
//! | [`record`] | the known facts about one node: [`Record`] |
//! | [`judge`](mod@judge), `finding`, [`reason`], [`rules`](mod@rules) | a record, held against the rules: [`Decision`] with its [`Reason`]; one requirement; the rules in words |
//! | [`accept`](mod@accept) | whether a piece of evidence may enter a node's record at all |
//! | [`floor`] | how many members one update may remove without an operator's word |

#![forbid(unsafe_code)]

pub mod accept;
pub mod compare;
pub mod floor;
pub mod judge;
pub mod reason;
pub mod record;
pub mod require;
pub mod rules;
pub mod scope;
pub mod settings;
pub mod traffic;
pub mod version;

mod finding;

pub use accept::{History, Unacceptable, accept};
pub use compare::traffic_changes;
pub use judge::{Decision, Membership, State, is_aging, is_void, judge, stale_in};
pub use reason::{Fault, Reason};
pub use record::{Evidence, Record, Ruling, Run, Standing};
pub use require::{Direction, Metric, Requirement, Signers};
pub use rules::{Rule, rules};
pub use scope::{Evaluator, Subject};
pub use settings::{Policy, PolicyError, RequiredSigner, Revoke};
pub use traffic::{Allow, Ports, TrafficError};
pub use version::Versions;
