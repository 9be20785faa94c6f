//! Envelopes on their way to the controller, and its answers.

use crate::answer::Answer;
use crate::client::Client;
use crate::failure::Failure;
use crate::files;
use keys::{MeshId, NodeId};
use std::path::Path;
use wire::Digest;
use wire::admin::{ControllerStatus, EvidenceAnswer};
use wire::evidence::{MAX_ENVELOPE_LEN, peek_statement};
use wire::name::NodeName;

/// The names that a statement needs, as the controller gives them.
pub(super) struct Place {
    pub(super) node: NodeId,
    pub(super) mesh: MeshId,
    /// The update of the epoch in force; `None` before the first.
    pub(super) challenge: Option<Digest>,
}

impl Place {
    pub(super) fn of(name: &NodeName, status: &ControllerStatus) -> Result<Self, Failure> {
        let node = status.nodes.get(name).ok_or_else(|| {
            Failure::refused(
                format!("no node is called {name}"),
                "`meshctl node list` shows the names",
            )
        })?;
        let update = Some(&status.epoch.update).filter(|update| !update.is_empty());
        Ok(Self {
            node: node.node.parse().map_err(|_| odd("node"))?,
            mesh: status.mesh.parse().map_err(|_| odd("mesh"))?,
            challenge: update
                .map(|update| update.parse().map_err(|_| odd("epoch.update")))
                .transpose()?,
        })
    }
}

/// Hands in an envelope from a file.
pub(super) async fn envelope(
    node: Option<NodeName>,
    path: &Path,
    client: &Client,
    answer: &Answer,
) -> Result<(), Failure> {
    let envelope = files::read_limited(path, MAX_ENVELOPE_LEN)?;
    let no_envelope = |what| {
        Failure::broken(
            format!("{} {what}", path.display()),
            "`meshctl evidence sign` makes an envelope; `meshctl evidence from` takes results",
        )
    };
    let statement = peek_statement(&envelope)
        .ok_or_else(|| no_envelope("holds no DSSE envelope of a benchmark statement"))?;
    let named = statement
        .subject
        .first()
        .map(|subject| subject.name.parse());
    let node = match (node, named) {
        (Some(node), _) | (None, Some(Ok(node))) => node,
        _ => return Err(no_envelope("names no node: --node does")),
    };
    all(&node, vec![envelope], client, answer).await
}

/// Hands in envelopes about one node, one after the other. All are tried, though some are refused.
pub(super) async fn all(
    node: &NodeName,
    envelopes: Vec<Vec<u8>>,
    client: &Client,
    answer: &Answer,
) -> Result<(), Failure> {
    let (mut replies, mut lines, mut refused) = (Vec::new(), Vec::new(), None);
    for envelope in envelopes {
        let path = format!("/v1/nodes/{node}/evidence");
        let reply = client.post_body(&path, envelope).await?;
        let outcome: EvidenceAnswer = reply.form()?;
        replies.push(reply.raw().clone());
        lines.push(line(&outcome));
        if !outcome.accepted {
            refused = refused.or(Some(outcome));
        }
    }
    if answer.is_json() {
        answer.value(&replies.into())?;
    } else {
        answer.text(&lines.join("\n"))?;
    }
    let Some(outcome) = refused else {
        return Ok(());
    };
    let reason = outcome.reason.unwrap_or_else(|| "for no reason".to_owned());
    let hint = match outcome.again {
        true => "the reason may pass: hand the envelope in again later",
        false => "`meshctl policy show` says what counts; a refused run does not come to count",
    };
    Err(Failure::refused(
        format!("evidence refused: {reason}"),
        hint,
    ))
}

fn line(outcome: &EvidenceAnswer) -> String {
    let digest = &outcome.digest;
    match &outcome.reason {
        None => format!("accepted  {digest}"),
        Some(reason) if outcome.again => format!("refused for now  {digest}: {reason}"),
        Some(reason) => format!("refused  {digest}: {reason}"),
    }
}

fn odd(field: &str) -> Failure {
    Failure::broken(
        format!("the controller's status has a `{field}` of an unknown form"),
        "are meshctl and meshd of the same version?",
    )
}
