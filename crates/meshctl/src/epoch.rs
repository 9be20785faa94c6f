//! `meshctl epoch`: the epoch in force, and new ones before their time.

use crate::answer::Answer;
use crate::client::Client;
use crate::failure::Failure;
use crate::{segments, status, terminal, words};
use clap::Subcommand;
use wire::SegmentName;
use wire::admin::{Membership, RotateRequest};

/// A verb of `meshctl epoch`.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show the epoch in force, of each segment where there are several.
    Show {
        /// Of this segment alone.
        #[arg(long, value_name = "NAME")]
        segment: Option<SegmentName>,
    },
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
        /// Do not ask before many members lose their membership.
        #[arg(long)]
        yes: bool,
    },
}

/// Runs the command.
pub(crate) async fn run(verb: Verb, client: &Client, answer: &Answer) -> Result<(), Failure> {
    match verb {
        Verb::Show { segment } => {
            let (reply, status) = client.controller_status().await?;
            if let Some(name) = segment {
                let shown = status.segments.get(&name).ok_or_else(|| {
                    let hint = "`meshctl status` names the segments";
                    Failure::refused(format!("no segment is called {name}"), hint)
                })?;
                if answer.is_json() {
                    return answer.value(&reply.raw()["segments"][name.as_str()]["epoch"]);
                }
                return answer.text(&segments::epoch(&status, &name, shown).render());
            }
            if answer.is_json() {
                return answer.value(&reply.raw()["epoch"]);
            }
            if segments::has_several(&status) {
                let each = status.segments.iter();
                let each = each.map(|(name, it)| segments::epoch(&status, name, it).render());
                let alarms = Some(words::alarms(&status).render()).filter(|it| !it.is_empty());
                let parts: Vec<String> = alarms.into_iter().chain(each).collect();
                return answer.text(&parts.join("\n"));
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
            yes,
        } => {
            if !yes && terminal::is_person() {
                let (_, status) = client.controller_status().await?;
                // A member with a reason is one that the policy would not have again.
                let going = status.nodes.iter().filter(|(_, node)| {
                    let is_member = node.membership == Membership::Allowed;
                    is_member && node.reason.is_some()
                });
                words::confirm_many(going.map(|(name, _)| name), &status)?;
            }
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
