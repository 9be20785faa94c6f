//! `meshctl metrics`: what the daemon measures, as a scraper reads it.

use crate::answer::Answer;
use crate::client::Client;
use crate::failure::Failure;

/// Runs the command.
pub(crate) async fn run(client: &Client, answer: &Answer) -> Result<(), Failure> {
    if answer.is_json() {
        return Err(Failure::broken(
            "metrics are OpenMetrics text and have no JSON form",
            "leave --json away, or read `meshctl --json status`",
        ));
    }
    answer.text(&client.text("/metrics").await?)
}
