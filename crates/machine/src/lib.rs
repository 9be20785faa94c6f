//! Read-only looks at this machine, for `meshd --check` and `meshctl doctor`: nothing is changed, nothing is sent
//! but a question to a name server, and nothing is left behind. Refuses to judge: that is for those who ask.
//! [`databases`] alone changes something: where this process looks.
//!
//! | File | Holds |
//! |---|---|
//! | [`addresses`] | addresses of interfaces, and the one by which this machine leaves its network |
//! | [`routes`] | the kernel's routes |
//! | [`clock`] | whether something keeps the clock |
//! | [`rights`] | capabilities and the TUN device |
//! | [`programs`] | where a program is |
//! | [`databases`] | users, groups and hosts, for a static program |
//! | [`disk`] | room on a file system |
//! | [`names`] | what a name server says |

pub mod addresses;
pub mod clock;
pub mod databases;
pub mod disk;
pub mod names;
pub mod programs;
pub mod rights;
pub mod routes;
