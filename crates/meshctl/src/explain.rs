//! `meshctl explain`: every rule of the policy, held against one node.

use crate::answer::Answer;
use crate::client::Client;
use crate::failure::Failure;
use crate::node;
use crate::table::{Fields, Rows, or_dash, sentence};
use crate::units;
use crate::words::membership;
use jiff::Timestamp;
use wire::SegmentName;
use wire::admin::{Explanation, Membership};
use wire::name::NodeName;

/// Runs the command.
pub(crate) async fn run(
    name: &NodeName,
    at: Option<Timestamp>,
    segment: Option<&SegmentName>,
    client: &Client,
    answer: &Answer,
) -> Result<(), Failure> {
    let at = at.map(|at| format!("at={at}"));
    let segment = segment.map(|it| format!("segment={it}"));
    let asked: Vec<String> = at.into_iter().chain(segment).collect();
    let asked = asked.join("&");
    let reply = client
        .get(&format!("/v1/nodes/{name}/explain?{asked}"))
        .await?;
    answer.show(&reply, |explanation: Explanation| explain(&explanation))
}

/// The same, of now and in the node's first segment, as text.
pub(crate) async fn text(name: &NodeName, client: &Client) -> Result<String, Failure> {
    let reply = client.get(&format!("/v1/nodes/{name}/explain")).await?;
    Ok(explain(&reply.form()?))
}

pub(crate) fn explain(explanation: &Explanation) -> String {
    let mut rules = Rows::new(&["RULE", "VALUE", "HOLDS"]);
    for rule in &explanation.rules {
        let holds = if rule.holds { "yes" } else { "NO" };
        rules.row([rule.rule.clone(), rule.value.clone(), holds.into()]);
    }
    let mut runs = Rows::new(&[
        "SUITE",
        "HARNESS",
        "SIGNED BY",
        "FINISHED",
        "SAMPLES",
        "OVERALL",
    ]);
    for run in &explanation.evidence {
        runs.row([
            format!("{} {}", run.suite, run.suite_version),
            run.harness.clone(),
            run.signer.clone(),
            run.finished_utc.clone(),
            run.samples.to_string(),
            or_dash(run.overall.map(units::score)),
        ]);
    }
    let now = &explanation.decision.decided_utc;
    let head = match &explanation.status {
        Some(status) => {
            let by_segment = status.segments.keys().any(|it| it.told().is_some());
            node::fields(&explanation.name, status, now, by_segment).render()
        }
        None => sentence(&format!("{} at {now}, by the event log", explanation.name)) + "\n",
    };
    [
        head,
        decision(explanation).render(),
        rules.render(match explanation.policy.is_empty() {
            true => "It is in no segment: no policy is held against it.",
            false => "The policy has no rules.",
        }),
        runs.render("It has handed in no evidence."),
    ]
    .join("\n")
}

fn decision(explanation: &Explanation) -> Fields {
    let decision = &explanation.decision;
    let mut fields = Fields::default();
    let verdict = membership(decision.membership);
    fields.maybe("segment", explanation.segment.told());
    fields.field(
        "decision",
        match &decision.reason {
            Some(reason) if decision.membership == Membership::Allowed => {
                format!("{verdict}, for now: {reason}")
            }
            Some(reason) => format!("{verdict}: {reason}"),
            None => verdict.into(),
        },
    );
    fields.maybe("would change if", explanation.remedy.as_ref());
    for words in &explanation.outlook {
        fields.field("outlook", words);
    }
    fields.maybe("score", decision.score.map(units::score));
    fields.maybe("age", decision.age_seconds.map(units::span));
    fields.maybe("rests on", decision.evidence.as_ref());
    let policy = Some(&explanation.policy);
    fields.maybe("policy", policy.filter(|it| !it.is_empty()));
    fields.field("decided", &decision.decided_utc);
    fields
}
