//! `meshctl score`: on a node, the mean of a running mock emitter; for labs and demos.

use crate::answer::Answer;
use crate::client::Client;
use crate::failure::Failure;
use crate::units;
use clap::Subcommand;
use wire::admin::ScoreRequest;

/// A verb of `meshctl score`.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Set the mean, from 0 to 1.
    Set {
        /// The new mean.
        #[arg(value_parser = unit, allow_negative_numbers = true)]
        mean: f64,
    },
}

/// Runs the command.
pub(crate) async fn run(verb: Verb, client: &Client, answer: &Answer) -> Result<(), Failure> {
    let Verb::Set { mean } = verb;
    let reply = client
        .post_form("/v1/score", &ScoreRequest { mean })
        .await?;
    if answer.is_json() {
        answer.value(reply.raw())
    } else {
        answer.text(&format!(
            "the mock emitter's mean is {}",
            units::score(mean)
        ))
    }
}

fn unit(text: &str) -> Result<f64, &'static str> {
    match text.parse::<f64>() {
        Ok(mean) if (0.0..=1.0).contains(&mean) => Ok(mean),
        _ => Err("a mean is a number from 0 to 1"),
    }
}
