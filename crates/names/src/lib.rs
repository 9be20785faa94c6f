//! The names of the nodes of a mesh: a [`Zone`] of those that resolve now, its [answers](answer()) to DNS messages, and
//! the same as lines of a hosts file. Opens no socket and no file, reads no clock, and refuses to know whose names
//! these are: the node says who resolves.

#![forbid(unsafe_code)]

mod answer;
mod block;
mod suffix;
mod zone;

pub use answer::{Answered, Outcome, Transport, answer};
pub use block::{BlockError, with_block};
pub use suffix::{Suffix, SuffixError};
pub use zone::{Host, Line, Zone};
