//! Evidence: a DSSE envelope around an in-toto Statement v1 with meshd's benchmark predicate.
//!
//! DSSE: <https://github.com/secure-systems-lab/dsse/blob/master/protocol.md>. The signature is over
//! the pre-authentication encoding (PAE) of payload type and payload; the payload is parsed only
//! after it verifies, and the parsed bytes are the verified ones. `keyid` is a hint and is ignored.
//! In-toto Statement v1: <https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md>.
//!
//! | Room | Holds |
//! |---|---|
//! | `benchmark` | the predicate: one finished run of one suite, and its rules |
//! | `statement` | the in-toto statement about one node |
//! | `envelope` | the DSSE envelope, and signing |
//! | `attested` | verifying |

mod attested;
mod benchmark;
mod envelope;
mod statement;
#[cfg(test)]
mod tests;

pub use attested::{Attested, Signer, payload_digest, peek, peek_statement};
pub use benchmark::Benchmark;
pub use envelope::{Envelope, EnvelopeSignature};
pub use statement::{Statement, Subject};

/// Longest envelope that is read, in bytes.
pub const MAX_ENVELOPE_LEN: usize = 64 << 10;
/// Most signatures that are tried.
pub const MAX_SIGNATURES: usize = 4;
/// Most metrics in a predicate.
pub const MAX_METRICS: usize = 256;
/// Longest text field of a predicate, in bytes.
pub const MAX_TEXT_LEN: usize = 128;

/// DSSE payload type of an in-toto statement.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// In-toto statement type.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// meshd's benchmark predicate.
pub const PREDICATE_TYPE: &str = "urn:meshd:attestation:benchmark:v1";

/// Why evidence is not believed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EvidenceError {
    /// Over [`MAX_ENVELOPE_LEN`].
    #[error("the envelope is over {MAX_ENVELOPE_LEN} bytes")]
    TooLarge,
    /// Not a DSSE envelope, or not of an in-toto statement.
    #[error("not a DSSE envelope of an in-toto statement")]
    Envelope,
    /// No signature in it is by the node or by a known evaluator.
    #[error("no signature by the node or by a known evaluator")]
    Signature,
    /// The payload is not a statement with the benchmark predicate.
    #[error("not a benchmark statement of a known version, or one with a field that is not known")]
    Statement,
    /// The statement is about another node.
    #[error("the statement is about another node")]
    Subject,
    /// The statement is for another mesh, or for none.
    #[error("the statement does not name this mesh")]
    Mesh,
    /// A field breaks a rule.
    #[error("`{field}` is {value}: {rule}")]
    Field {
        /// The field, as JSON names it.
        field: String,
        /// Its value, shortened.
        value: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
}
