//! A transparency log without its storage: what makes a list of entries a record that cannot be rewritten
//! unseen, in the formats that other people's tools read.
//!
//! | Module | Holds | Format |
//! |---|---|---|
//! | [`hash`] | hashes of entries and of inner nodes | RFC 6962, section 2.1 |
//! | [`tree`] | the growing tree: its edge and its root | RFC 6962, section 2.1 |
//! | [`proof`] | that an entry is in a tree, and that one tree extends another | RFC 6962, sections 2.1.1 and 2.1.2 |
//! | [`tile`] | 256 hashes each: what has to be stored of a tree | C2SP tlog-tiles |
//! | [`note`] | a text with signatures | C2SP signed-note |
//! | [`checkpoint`] | size and root of a log, as the text of a note | C2SP tlog-checkpoint |
//! | [`cosignature`] | a witness's signature of a checkpoint, with its time | C2SP tlog-cosignature, `cosignature/v1` |
//!
//! The C2SP formats are at <https://c2sp.org>. This crate stores nothing and asks no clock; it refuses to sign
//! or to believe a text that is not in the one form that its format allows.

#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod cosignature;
pub mod hash;
pub mod note;
pub mod proof;
pub mod tile;
pub mod tree;

pub use checkpoint::Checkpoint;
pub use hash::Hash;
pub use tree::Tree;
