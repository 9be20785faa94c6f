//! Evidence and rules to decisions with reasons; arithmetic only.
//!
//! Every function here is pure: what time it is and what is known about a node are arguments, so
//! that replaying the event log gives the same decisions. This crate refuses clocks, files and
//! sockets; it never sees an envelope that has not been verified.
//!
//! | Module | Holds |
//! |---|---|
//! | [`settings`] | [`Policy`]: the rules as the operator writes them, their check and their digest |
//! | [`judge`](mod@judge) | one node's record, held against the rules: [`Decision`] with its [`Reason`] |
//! | [`accept`](mod@accept) | whether a piece of evidence may enter a node's record at all |
//! | [`floor`] | how many members one update may remove without an operator's word |

#![forbid(unsafe_code)]

pub mod accept;
pub mod floor;
pub mod judge;
pub mod settings;

pub use accept::{History, Unacceptable, accept};
pub use judge::{
    Decision, Evidence, Membership, Reason, Record, Rule, Standing, State, is_void, judge, rules,
    stale_in,
};
pub use settings::{Policy, PolicyError, RequiredSigner, Revoke};
