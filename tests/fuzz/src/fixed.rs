//! Keys that never change, so that an input means the same in every run.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keys::{AuthoritySecret, EvaluatorSecret, LogSecret, NodeSecret};
use std::sync::LazyLock;

/// Signs updates.
pub static AUTHORITY: LazyLock<AuthoritySecret> =
    LazyLock::new(|| AuthoritySecret::from_base64(&line(1)).expect("32 bytes in base64"));
/// Signs evidence about itself.
pub static NODE: LazyLock<NodeSecret> =
    LazyLock::new(|| NodeSecret::from_base64(&line(2)).expect("32 bytes in base64"));
/// Signs evidence about the node.
pub static EVALUATOR: LazyLock<EvaluatorSecret> =
    LazyLock::new(|| EvaluatorSecret::from_base64(&line(3)).expect("32 bytes in base64"));
/// Signs the log's checkpoints.
pub static LOG: LazyLock<LogSecret> =
    LazyLock::new(|| LogSecret::from_base64(&line(4)).expect("32 bytes in base64"));

fn line(byte: u8) -> String {
    STANDARD.encode([byte; 32])
}
