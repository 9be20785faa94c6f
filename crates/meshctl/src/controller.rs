//! `meshctl controller`: the controller itself, after something went wrong with it.

use crate::answer::Answer;
use crate::client::Client;
use crate::failure::Failure;
use crate::words;
use clap::Subcommand;
use wire::admin::{RecoverRequest, Recovered};
use wire::name::NodeName;

/// A verb of `meshctl controller`.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Go on from an old copy of the event log, which nodes have contradicted.
    ///
    /// Nodes are told that what came after the copy is gone, the epoch jumps beyond the numbers that they have
    /// seen, and open tokens are revoked. Let all nodes connect first: their proofs say how far the epoch has to go.
    Recover {
        /// A node to evict with it, as it was before; repeatable.
        #[arg(long, value_name = "NAME")]
        evict: Vec<NodeName>,
        /// The newest epoch that a node has seen, if no connected node has proved it.
        #[arg(long, value_name = "EPOCH")]
        seen: Option<u64>,
    },
}

/// Runs the command.
pub(crate) async fn run(verb: Verb, client: &Client, answer: &Answer) -> Result<(), Failure> {
    let Verb::Recover { evict, seen } = verb;
    let form = RecoverRequest { seen, evict };
    let reply = client.post_form("/v1/recover", &form).await?;
    answer.show(&reply, recovered)
}

fn recovered(done: Recovered) -> String {
    let listed = |names: &[NodeName]| {
        let names: Vec<&str> = names.iter().map(NodeName::as_str).collect();
        names.join(", ")
    };
    let Recovered {
        copy_events, seen, ..
    } = done;
    let mut lines = vec![
        format!("the log goes on behind event {copy_events}; nodes had seen epoch {seen}"),
        words::change(&done.change),
    ];
    if !done.revoked.is_empty() {
        lines.push(format!("tokens revoked: {}", done.revoked.join(", ")));
    }
    if !done.evicted.is_empty() {
        lines.push(format!("evicted again: {}", listed(&done.evicted)));
    }
    if !done.absent.is_empty() {
        lines.push(format!(
            "not connected: {}; should one have seen a newer epoch, the alarm comes back: recover again then",
            listed(&done.absent)
        ));
    }
    lines.push("nodes that were enrolled after the copy have to enrol again".to_owned());
    lines.join("\n")
}
