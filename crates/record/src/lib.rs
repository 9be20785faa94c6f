//! The event log on disk: entries that are only ever added, a Merkle tree over them ([`ledger`]), and a
//! checkpoint that the log's key signs with every commit. In one SQLite file.
//!
//! | Module | Holds |
//! |---|---|
//! | [`entry`] | one entry, and the bytes of it that the tree is over |
//! | [`store`] | the log, open for writing: append, read, prove |
//! | [`open`](mod@open) | how it is opened, and what is verified then |
//! | [`snapshot`] | the folded state at one place, signed, so that opening need not read everything |
//! | [`retention`] | how old entries leave the disk, and their hashes stay |
//! | [`audit`] | the verification of everything, for a log in use and for a copy |
//! | [`error`] | the faults, each with its way out |
//!
//! The content of an entry is the business of whoever writes it. Nothing here reads a clock or draws a number.

#![forbid(unsafe_code)]

pub mod audit;
pub mod entry;
pub mod error;
pub mod open;
pub mod retention;
pub mod snapshot;
pub mod store;

mod schema;
mod tiles;

pub use entry::{Entry, NewEntry};
pub use error::LogError;
pub use open::{Trust, open, resume};
pub use store::{Head, Proof, Store};

#[cfg(test)]
mod tests;
