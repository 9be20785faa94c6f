//! Common ground of the tests with real processes. The tests themselves are in `e2e/`, `interop/` and
//! `hostile/`; what needs no process is in `sim/` and beside the code.

pub mod harness;
pub mod metrics;
