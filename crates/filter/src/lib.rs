//! The rules of a segment that say who may talk to whom, held against each packet by the node that receives it.
//!
//! ```text
//! rules of the segment ─┐
//! own groups ───────────┼─▶ Rules ─ toward(a peer's groups) ─▶ Access ─▶ Gate, one per peer
//! groups of the peers ──┘                                                 ▲        ▲
//!                                                     a packet to the peer ┘        └ a packet from it
//! ```
//!
//! A packet from a peer is asked four questions, in this order:
//!
//! | Question | Yes | No |
//! |---|---|---|
//! | Can it be read: an IP header, and the transport header behind all extension headers? | on | [`Refusal::Unreadable`] |
//! | Is it a later fragment? | passes if its first fragment passed in the last 30 s, else [`Refusal::Fragment`] | on |
//! | Is it an ICMP echo request, or allowed by a rule, or of a flow that this host has opened? | passes | on |
//! | Is it an ICMP error? | passes if it quotes a packet of a flow or the answer to an allowed packet, else [`Refusal::IcmpError`] | [`Refusal::NoRule`] |
//!
//! - **Flows** are entered by what this host sends and by nothing else: no peer can fill the table, and none can
//!   keep a flow alive that this host uses no more. Answers to packets that a rule allows are not entered: what
//!   they answer passes by the rule.
//! - **Echo requests** always pass. The nodes of a mesh measure their paths with them, and tell from them whether
//!   a tunnel works. One to a host behind this node is no such measurement, and needs a rule.
//! - **A rule that is taken away** ends what it allowed at once, open connections included. A flow that this host
//!   has opened goes on.
//! - **Fragments.** The first has the whole transport header or is unreadable; ports of later ones are never
//!   guessed. A later fragment that overtakes its first is refused.
//! - **Redirects**, and ICMP that is neither echo nor error, pass by a rule alone.
//!
//! Without rules a gate costs a look at one pointer. This crate knows no clock, no socket and no key; times are
//! arguments. The names and the encoding of rules are not its concern.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::indexing_slicing))]

mod flows;
mod fragments;
mod gate;
mod openings;
mod parse;
mod rule;
mod rules;
#[cfg(test)]
mod tests;

pub use flows::{MAX_FLOWS, MAX_FLOWS_PER_PEER, Room};
pub use gate::{Ends, Gate, Refusal};
pub use openings::{Access, Openings};
pub use rule::{Groups, Protocol, Rule};
pub use rules::Rules;
