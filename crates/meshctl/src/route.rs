//! `meshctl route`: the networks behind nodes, and an operator's word on them.

use crate::answer::Answer;
use crate::client::Client;
use crate::failure::Failure;
use crate::table::Rows;
use clap::Subcommand;
use wire::Prefix;
use wire::admin::{RouteRequest, RouteStatus};
use wire::name::{NodeName, SegmentName};

/// A verb of `meshctl route`.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List the networks that nodes offer, or that are approved.
    List,
    /// Let a node carry packets for a network behind it.
    Approve(Route),
    /// End that now, with an epoch at once.
    Withdraw(Route),
}

/// A network behind a node.
#[derive(Debug, clap::Args)]
pub(crate) struct Route {
    /// The node's name.
    node: NodeName,
    /// The network, as in 10.1.0.0/16.
    prefix: Prefix,
    /// The segment; needed where the node is in more than one.
    #[arg(long, value_name = "NAME")]
    segment: Option<SegmentName>,
}

/// Runs the command.
pub(crate) async fn run(verb: Verb, client: &Client, answer: &Answer) -> Result<(), Failure> {
    let (route, word) = match verb {
        Verb::List => {
            let reply = client.get("/v1/routes").await?;
            return answer.show(&reply, |routes: Vec<RouteStatus>| table(&routes));
        }
        Verb::Approve(route) => (route, "approve"),
        Verb::Withdraw(route) => (route, "withdraw"),
    };
    let path = format!("/v1/nodes/{}/routes/{word}", route.node);
    let form = RouteRequest {
        prefix: route.prefix,
        segment: route.segment,
    };
    let reply = client.post_form(&path, &form).await?;
    answer.show(&reply, |it: RouteStatus| {
        format!("{} behind {}: {}", it.prefix, it.node, state(&it))
    })
}

fn table(routes: &[RouteStatus]) -> String {
    let mut rows = Rows::new(&["PREFIX", "NODE", "SEGMENT", "STATE"]);
    for it in routes {
        rows.row([
            it.prefix.to_string(),
            it.node.to_string(),
            it.segment.to_string(),
            state(it).to_owned(),
        ]);
    }
    rows.render("no node offers a route, and none is approved")
}

/// How a route stands, with what is missing.
fn state(route: &RouteStatus) -> &'static str {
    match (route.advertised, route.approved, route.in_force) {
        (_, _, true) if route.advertised && route.approved => "in force",
        (_, _, true) => "ends with the next epoch",
        (true, true, false) => "comes with the next epoch in which the node is a member",
        (false, true, false) => "approved; the node does not offer it",
        (true, false, false) => "waits for approval",
        (false, false, false) => "withdrawn",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_says_what_each_route_waits_for() {
        let route = |prefix: &str, [advertised, approved, in_force]: [bool; 3]| RouteStatus {
            node: "node-b".parse().unwrap(),
            segment: SegmentName::default(),
            prefix: prefix.parse().unwrap(),
            advertised,
            approved,
            in_force,
        };
        let all = [
            route("10.1.0.0/16", [true, true, true]),
            route("10.2.0.0/16", [true, false, false]),
            route("10.3.0.0/16", [false, true, false]),
            route("10.4.0.0/16", [true, true, false]),
            route("10.5.0.0/16", [false, true, true]),
        ];
        let lines = [
            "PREFIX       NODE    SEGMENT  STATE",
            "10.1.0.0/16  node-b  default  in force",
            "10.2.0.0/16  node-b  default  waits for approval",
            "10.3.0.0/16  node-b  default  approved; the node does not offer it",
            "10.4.0.0/16  node-b  default  comes with the next epoch in which the node is a member",
            "10.5.0.0/16  node-b  default  ends with the next epoch",
        ];
        assert_eq!(table(&all), lines.join("\n") + "\n");
        assert!(table(&[]).contains("no node offers a route"));
    }
}
