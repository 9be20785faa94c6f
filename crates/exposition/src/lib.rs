//! Metrics: how a role declares them, how they are written out, and the address that serves them.
//!
//! A role declares its metrics once, with [`metrics!`], and fills a [`Page`] from what it observes
//! whenever somebody asks: this crate keeps no values, but for the [`Tally`] of what nothing else
//! counts. It refuses labels whose values are not known when the program is built: every value of a
//! label is exported from zero, and no peer, name or address can become one. The name of a segment, of which
//! there are few, is the exception.
//!
//! | Module | Holds |
//! |---|---|
//! | [`metric`] | the declaration |
//! | [`page`] | values, and the text of either format |
//! | [`process`] | metrics of the process itself |
//! | [`tally`] | counts by label value |
//! | [`listener`] | HTTP on TCP: `GET /metrics` and nothing else |
//! | [`http`], `places` | an HTTP server that idle clients cannot use up, for the admin socket too |

#![forbid(unsafe_code)]

pub mod http;
pub mod listener;
pub mod metric;
pub mod page;
pub mod process;
pub mod tally;

mod places;

pub use listener::Listener;
pub use metric::{Kind, Metric};
pub use page::{Format, Page, Sample, Value};
pub use tally::Tally;
