//! `meshctl explain`: every rule of the policy, held against one node.

use crate::answer::Answer;
use crate::client::Client;
use crate::failure::Failure;
use crate::node;
use crate::table::{Fields, Rows};
use crate::units;
use crate::words::membership;
use wire::admin::{DecisionStatus, Explanation, Membership};
use wire::name::NodeName;

/// Runs the command.
pub(crate) async fn run(name: &NodeName, client: &Client, answer: &Answer) -> Result<(), Failure> {
    let reply = client.get(&format!("/v1/nodes/{name}/explain")).await?;
    answer.show(&reply, |explanation: Explanation| explain(&explanation))
}

fn explain(explanation: &Explanation) -> String {
    let mut rules = Rows::new(&["RULE", "VALUE", "HOLDS"]);
    for rule in &explanation.rules {
        let holds = if rule.holds { "yes" } else { "NO" };
        rules.row([rule.rule.clone(), rule.value.clone(), holds.into()]);
    }
    [
        node::fields(
            &explanation.name,
            &explanation.status,
            &explanation.decision.decided_utc,
        )
        .render(),
        decision(&explanation.decision).render(),
        rules.render("The policy has no rules."),
    ]
    .join("\n")
}

fn decision(decision: &DecisionStatus) -> Fields {
    let mut fields = Fields::default();
    let verdict = membership(decision.membership);
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
    fields.maybe("score", decision.score.map(units::score));
    fields.maybe("age", decision.age_seconds.map(units::span));
    fields.maybe("rests on", decision.evidence.as_ref());
    fields.field("decided", &decision.decided_utc);
    fields
}
