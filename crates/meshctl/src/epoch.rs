//! `meshctl epoch`: the epoch in force, and new ones before their time.

use crate::answer::Answer;
use crate::client::Client;
use crate::failure::Failure;
use crate::{status, words};
use clap::Subcommand;
use wire::SegmentName;
use wire::admin::RotateRequest;

/// A verb of `meshctl epoch`.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show the epoch in force.
    Show,
    /// Begin a new epoch before the schedule does.
    Rotate {
        /// Without the lead time in which peers shake hands ahead.
        #[arg(long)]
        now: bool,
        /// Remove the nodes whose removal the sanity floor holds back.
        #[arg(long)]
        confirm_removals: bool,
        /// Of this segment alone; without it, of all.
        #[arg(long, value_name = "NAME")]
        segment: Option<SegmentName>,
    },
}

/// Runs the command.
pub(crate) async fn run(verb: Verb, client: &Client, answer: &Answer) -> Result<(), Failure> {
    match verb {
        Verb::Show => {
            let (reply, status) = client.controller_status().await?;
            if answer.is_json() {
                return answer.value(&reply.raw()["epoch"]);
            }
            let mut fields = status::epoch_fields(&status);
            fields.field("began", &status.epoch.activated_utc);
            fields.field("secret", &status.epoch.secret_hash);
            fields.field("update", &status.epoch.update);
            fields.field("policy is", &status.policy.digest);
            answer.text(&fields.render())
        }
        Verb::Rotate {
            now,
            confirm_removals,
            segment,
        } => {
            let form = RotateRequest {
                now,
                confirm_removals,
                segment,
            };
            let reply = client.post_form("/v1/epoch/rotate", &form).await?;
            answer.show(&reply, |epoch| words::change(&epoch))
        }
    }
}
