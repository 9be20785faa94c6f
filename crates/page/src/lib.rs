//! The controller's web page: the mesh as a graph, every pair, every node's score over time, events and explanations.
//!
//! It reads and cannot write. It knows neither the controller nor its operators' requests: a role gives it a
//! [`Source`], which has two questions and no orders, and lays its newest status on a [`Board`]. Requests other than
//! `GET` are refused before their paths are looked at. All readers share one answer, which is made when the first of
//! them asks, so that a page that nobody has open costs nothing and ten cost what one does.
//!
//! | Module | Holds |
//! |---|---|
//! | [`source`] | the questions that the page may ask its role |
//! | [`board`], `sheet`, `pairs` | the newest status, and the form that readers get it in |
//! | `book`, `slim` | the end of the event log: scores over time, and the newest events |
//! | [`token`], `host` | access: a bearer token; names under which a page without one may be asked |
//! | `router`, `assets` | paths to answers, with the headers that keep a browser from anything else; the embedded files |
//! | [`listener`] | the address, and whether it could be had |

#![forbid(unsafe_code)]

pub mod board;
pub mod listener;
pub mod source;
pub mod token;

mod assets;
mod book;
mod host;
mod pairs;
mod router;
mod sheet;
mod slim;
#[cfg(test)]
mod tests;

pub use assets::is_built;
pub use board::Board;
pub use listener::{Config, Listener, Standing};
pub use source::{Refusal, Source};
pub use token::Token;
