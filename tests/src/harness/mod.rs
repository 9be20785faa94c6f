//! Real `meshd` processes in network namespaces of their own.
//!
//! ```text
//!   meshtest-PID-N-controller   meshtest-PID-N-node-a   meshtest-PID-N-node-b   …
//!        eth0 198.18.0.1             198.18.1.1              198.18.1.2
//!         │   fd00:6d65:7368::1      …::1:1                  …::1:2
//!         └─────────── br0 in meshtest-PID-N-underlay ───────────┘
//! ```
//!
//! [`Mesh::builder`] describes a mesh, [`Builder::start`] brings it up and waits until everybody
//! reaches everybody, [`Builder::prepare`] stops before the first daemon. Everything that fails
//! panics with a sentence; a [`Mesh`] that is dropped by a panic prints the ends of its logs.
//! Dropping it ends only the processes that it started and deletes only its own namespaces.
//!
//! | Module | Holds |
//! |---|---|
//! | [`builder`] | settings of a mesh |
//! | [`mesh`] | a mesh: daemons, links, waiting, pings |
//! | [`ask`] | questions and orders, through `meshctl` |
//! | [`daemon`] | one `meshd` process |
//! | [`ping`] | single and continuous pings |
//! | [`relay`] | a bad underlay between nodes |
//! | [`mod@line`] | a long way to the controller |
//! | [`tally`] | counts of what a host's kernel sees |
//! | [`transfer`] | bytes over TCP |
//! | [`namespace`] | namespaces, links, `ip` |
//! | [`programs`] | the programs under test, built once |
//! | [`entry`] | being root, or becoming it in a user namespace |
//!
//! | Variable | |
//! |---|---|
//! | `MESHTEST_BIN_DIR` | where `meshd` and `meshctl` are, instead of building them |
//! | `MESHTEST_KEEP` | set: folders with logs and state stay |

pub mod ask;
pub mod builder;
pub mod daemon;
pub mod entry;
pub mod line;
pub mod mesh;
pub mod namespace;
pub mod ping;
pub mod programs;
pub mod relay;
pub mod tally;
pub mod transfer;

pub use builder::Builder;
pub use entry::enter;
pub use line::Line;
pub use mesh::{CONTROLLER, Mesh, name};
pub use ping::{Losses, Pinger};
pub use relay::{Impairment, Relay};

use std::time::{Duration, Instant};

/// How long a [`Mesh::wait_until`] waits: generous, as the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The tests' one clock.
#[must_use]
pub fn now() -> Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "real processes live in real time"
    )]
    Instant::now()
}

/// Asks until the answer is yes; `false` after `patience`.
pub fn poll(patience: Duration, question: impl FnMut() -> bool) -> bool {
    poll_every(INTERVAL, patience, question)
}

/// The same, as often as told.
pub fn poll_every(
    interval: Duration,
    patience: Duration,
    mut question: impl FnMut() -> bool,
) -> bool {
    let deadline = now() + patience;
    loop {
        if question() {
            return true;
        }
        if now() >= deadline {
            return false;
        }
        std::thread::sleep(interval);
    }
}

const INTERVAL: Duration = Duration::from_millis(50);
