//! `meshctl controller`: the controller itself, after something went wrong with it.

use crate::answer::Answer;
use crate::client::Client;
use crate::failure::Failure;
use crate::words;
use clap::Subcommand;
use wire::admin::{AuthorityRotated, RecoverRequest, Recovered};
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
    /// Replace a key of the controller's; the old one signs the new one.
    Rotate {
        /// Which key.
        key: Rotated,
    },
}

/// A key that the controller can replace.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Rotated {
    /// The key that signs for the mesh; nodes follow the word of the old one. `meshctl log rotate-key` is for the log's.
    Authority,
}

/// Runs the command.
pub(crate) async fn run(verb: Verb, client: &Client, answer: &Answer) -> Result<(), Failure> {
    match verb {
        Verb::Recover { evict, seen } => {
            let form = RecoverRequest { seen, evict };
            let reply = client.post_form("/v1/recover", &form).await?;
            answer.show(&reply, recovered)
        }
        Verb::Rotate {
            key: Rotated::Authority,
        } => {
            let reply = client.post("/v1/authority/rotate").await?;
            answer.show(&reply, rotated)
        }
    }
}

fn rotated(done: AuthorityRotated) -> String {
    let mut lines = vec![
        format!(
            "{} signs from now on, by the word of {}",
            done.new, done.old
        ),
        words::change(&done.change),
    ];
    if !done.absent.is_empty() {
        lines.push(format!(
            "not connected, and will learn of it then: {}",
            listed(&done.absent)
        ));
    }
    lines.push(
        "back up the state directory: an older copy holds a key that nodes do not follow any more"
            .into(),
    );
    lines.join("\n")
}

fn listed(names: &[NodeName]) -> String {
    let names: Vec<&str> = names.iter().map(NodeName::as_str).collect();
    names.join(", ")
}

fn recovered(done: Recovered) -> String {
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
