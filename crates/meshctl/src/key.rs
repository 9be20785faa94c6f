//! `meshctl key`: signing keys for parties that run no daemon.

use crate::answer::Answer;
use crate::failure::Failure;
use crate::files;
use clap::{Subcommand, ValueEnum};
use keys::EvaluatorSecret;
use rand_core::OsRng;
use std::path::PathBuf;
use zeroize::Zeroizing;

/// A verb of `meshctl key`.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a key, keep it in a new file of mode 0600, and print its public half.
    Generate {
        /// Whose key.
        role: Role,
        /// The file for the secret; never overwritten.
        #[arg(long, value_name = "FILE")]
        output: PathBuf,
    },
}

/// The user of a key. Controllers and nodes make their own.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Role {
    /// Vouches for evidence.
    Evaluator,
}

/// Runs the command.
pub(crate) fn run(verb: &Verb, answer: &Answer) -> Result<(), Failure> {
    let Verb::Generate {
        role: Role::Evaluator,
        output,
    } = verb;
    let secret = EvaluatorSecret::generate(&mut OsRng);
    let line = Zeroizing::new(format!("{}\n", secret.expose_base64().as_str()));
    files::create_secret(output, &line)?;
    let public = secret.public().to_string();
    if answer.is_json() {
        answer.value(&serde_json::json!({ "public": public }))
    } else {
        answer.text(&public)
    }
}
