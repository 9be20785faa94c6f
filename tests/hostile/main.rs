//! "Cut off means cut off", against real daemons: a node that ignores its exclusion, a node that was
//! never enrolled, and a controller's connection in the wrong hands.
//!
//! | File | Holds |
//! |---|---|
//! | `cut_off.rs` | a member turns hostile and is excluded, or evicted |
//! | `readmitted.rs` | a member that was evicted and came back, with what it kept |
//! | `inside.rs` | a member whose datagrams come through the tunnel, and whose packets go past it |
//! | `handshakes.rs` | one that knows all keys and sends handshakes in the names of members |
//! | `stranger.rs` | a node that was never enrolled |
//! | `floods.rs`, `flooder.rs` | floods on the control channel, by members and by strangers |
//! | `updates.rs` | updates that no node may believe |
//! | `places.rs` | places that no node may believe |
//! | `node.rs`, `control.rs`, `arsenal.rs` | the hostile node and what it tries |
//! | `fake_controller.rs` | the controller's key, in the wrong hands |
//! | `in_the_clear.rs`, `forged.rs` | packets past the tunnel, and ICMP errors that no router sent |
//! | `witness.rs`, `packets.rs` | what the survivors' kernels see of it |

mod arsenal;
mod control;
mod cut_off;
mod fake_controller;
mod flooder;
mod floods;
mod forged;
mod handshakes;
mod in_the_clear;
mod inside;
mod node;
mod packets;
mod places;
mod readmitted;
mod stranger;
mod updates;
mod witness;
