//! `meshctl key`: signing keys for parties that run no daemon.

use crate::answer::Answer;
use crate::client::Client;
use crate::failure::Failure;
use crate::files;
use clap::{Subcommand, ValueEnum};
use keys::{EvaluatorId, EvaluatorSecret};
use rand_core::OsRng;
use std::path::{Path, PathBuf};
use wire::succession::EvaluatorSuccession;
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
    /// Make the next key, and print the old key's word for it; needs no daemon.
    Rotate {
        /// Whose key.
        role: Role,
        /// The old key's file.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The file for the new secret; never overwritten.
        #[arg(long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Put an old key's word for the next one on record, at the controller.
    Submit {
        /// The file with what `key rotate` printed; `-` for standard input.
        statement: PathBuf,
    },
}

/// The user of a key. Controllers and nodes make their own.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Role {
    /// Vouches for evidence.
    Evaluator,
}

/// Runs the command.
pub(crate) async fn run(verb: &Verb, client: &Client, answer: &Answer) -> Result<(), Failure> {
    match verb {
        Verb::Generate {
            role: Role::Evaluator,
            output,
        } => generate(output, answer),
        Verb::Rotate {
            role: Role::Evaluator,
            key,
            output,
        } => rotate(key, output, answer),
        Verb::Submit { statement } => submit(statement, client, answer).await,
    }
}

fn generate(output: &Path, answer: &Answer) -> Result<(), Failure> {
    let public = create(output)?.to_string();
    if answer.is_json() {
        answer.value(&serde_json::json!({ "public": public }))
    } else {
        answer.text(&public)
    }
}

fn create(output: &Path) -> Result<EvaluatorId, Failure> {
    let secret = EvaluatorSecret::generate(&mut OsRng);
    let line = Zeroizing::new(format!("{}\n", secret.expose_base64().as_str()));
    files::create_secret(output, &line)?;
    Ok(secret.public())
}

fn rotate(key: &Path, output: &Path, answer: &Answer) -> Result<(), Failure> {
    let line = files::read_secret(key, answer)?;
    let old = EvaluatorSecret::from_base64(line.trim()).map_err(|error| {
        let error = format!("{} holds no key: {error}", key.display());
        Failure::broken(error, "name the file that `meshctl key generate` made")
    })?;
    let word = EvaluatorSuccession::sign(&old, create(output)?);
    let value = serde_json::to_value(&word).expect("the statement has text keys only");
    answer.value(&value)?;
    answer.remark("keep what was printed; `meshctl key submit` puts it on record; the policy has to list the new key");
    Ok(())
}

async fn submit(statement: &Path, client: &Client, answer: &Answer) -> Result<(), Failure> {
    let bytes = files::read_limited(statement, MAX_STATEMENT)?;
    let word = serde_json::from_slice::<EvaluatorSuccession>(&bytes).map_err(|error| {
        let error = format!("{} is no statement: {error}", statement.display());
        Failure::refused(error, "bring what `meshctl key rotate evaluator` printed")
    })?;
    let reply = client.post_form("/v1/evaluators/rotate", &word).await?;
    answer.show(&reply, |word: EvaluatorSuccession| {
        format!(
            "on record: {} by the word of {}; list it in the policy",
            word.new, word.old
        )
    })
}

/// Two keys and a signature.
const MAX_STATEMENT: usize = 4 << 10;
