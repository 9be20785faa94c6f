//! The policy engine's shell: enrolment, ingest, event log, push, admin.
//!
//! One task owns all state: it awaits an input and applies it synchronously to the
//! [`engine::Engine`], whose outputs are values. Tasks per connection are dumb pipes. Nothing takes
//! effect, and nobody is told, before it is durable in the event log, of which all durable state is
//! the fold. This crate refuses to carry packets, to hold a node's secrets and to link `tunnel`.
//!
//! | Module | Holds |
//! |---|---|
//! | [`open`](mod@open) | everything that can fail at the start, with the way out |
//! | [`serve`], `inputs` | the loop: select, then apply; what it waits for |
//! | [`engine`], `setup` | the front of the state, synchronous, and its call contract; how it begins |
//! | [`effect`], [`timers`] | what the engine hands out; what it waits for, and why |
//! | `segments`, `segment`, `decide` | each segment's policy, epochs and phases; a new epoch as far as it is signed |
//! | `rotate` | decide → time → sign → persist → push |
//! | `journal`, [`log`](mod@log), [`event`], [`by`], [`fleet`] | the one way to durable state, what is in it, what it folds to |
//! | `enrol`, `ingest`, `push`, [`operator`], `events`, [`request`] | what is said to the controller, and by it |
//! | `explain`, `replay` | why a node is where it is, now or at an earlier time; the log read again, under its policy or another |
//! | `prove` | the log as a transparency log: proofs for whoever asks |
//! | `connections` | who is there, and where |
//! | `mesh`, `network` | what stays as it is; the mesh's address ranges |
//! | `intake`, `outbox` | what a connection may take before the engine hears of it; what waits to be sent on it |
//! | `session`, `admin`, `page` | QUIC connection, admin socket, the web page's questions |
//! | `reading` | all that can be asked without an order |
//! | `view`, `status_file` | the status, and its file |
//! | [`metrics`], `counts` | what is measured, for scrapers; what nothing else counts |
//! | `reserve` | room on the disk for what must always be written |
//! | [`clock`], `format` | the one clock; how times are written |

pub mod by;
pub mod clock;
pub mod effect;
pub mod engine;
pub mod event;
pub mod fleet;
pub mod log;
pub mod metrics;
pub mod open;
pub mod operator;
pub mod request;
pub mod serve;
pub mod timers;

mod admin;
mod alarms;
mod announced;
mod changed;
mod connections;
mod counts;
mod decide;
mod enrol;
mod events;
mod explain;
mod format;
mod ingest;
mod inputs;
mod intake;
mod journal;
mod membership;
mod mesh;
mod network;
mod outbox;
mod page;
mod places;
mod places_file;
mod prove;
mod push;
mod reading;
mod replay;
mod reserve;
mod rotate;
mod routes;
mod segment;
mod segments;
mod session;
mod setup;
mod status_file;
mod view;

pub use log::{Log, LogError};
pub use mesh::EnrolmentMode;
pub use open::{Config, Controller, Keys, OpenError, rehearse};
pub use serve::{Remote, ServeError};
pub use setup::{SegmentSetup, StartError};

#[cfg(test)]
mod tests;
