//! A node that has no place yet: what it answers while it asks for one. It has no epoch, no peers and no interface to
//! tell of, and says why it waits.

use crate::admin::{Answer, Request};
use crate::io::clock;
use ::admin::Refused;
use keys::NodeId;
use std::collections::BTreeMap;
use tokio::sync::{mpsc, watch};
use wire::admin::{Control, NodeDaemonStatus, OTHER_CONTROLLER, SCHEMA, Status};

/// How the attempt stands: why there is no place yet, as far as that is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The controller's address that was tried last.
    pub(crate) controller: Option<String>,
    /// Why that came to nothing.
    pub(crate) error: Option<String>,
    /// The name under which an operator has to approve the node; the controller is connected meanwhile.
    pub(crate) waits_as: Option<String>,
}

/// Answers clients, until this is dropped.
pub(crate) async fn answer(
    node: NodeId,
    requests: &mut mpsc::Receiver<Request>,
    progress: &watch::Receiver<Progress>,
) -> std::convert::Infallible {
    while let Some(request) = requests.recv().await {
        // A client that has gone is not waited for.
        match request {
            Request::Status(answer) => {
                let status = status(node, &progress.borrow());
                let _ = answer.send(Ok(Status::Node(Box::new(status))));
            }
            Request::Score(_, answer) => drop(answer.send(not_yet())),
            Request::Log(answer) => drop(answer.send(not_yet())),
            Request::Export(_, answer) => drop(answer.send(not_yet())),
            Request::Metrics(answer) => drop(answer.send(not_yet())),
            Request::Hosts(answer) => drop(answer.send(not_yet())),
            Request::WireGuard(_, answer) => drop(answer.send(not_yet())),
        }
    }
    std::future::pending().await
}

fn not_yet<T>() -> Answer<T> {
    let hint = "`meshctl status` says what it waits for";
    Err(Refused::new(503, "this node is not enrolled yet", hint))
}

fn status(node: NodeId, progress: &Progress) -> NodeDaemonStatus {
    let Progress {
        controller,
        error,
        waits_as,
    } = progress;
    let why = match (waits_as, error) {
        (Some(name), _) => format!(
            "it waits for an operator's approval: `meshctl node approve {name}` at the controller, after comparing its key"
        ),
        (None, Some(error)) if error.starts_with(OTHER_CONTROLLER) => format!(
            "{error}; UDP passes: give it a token of that controller (`join`), or correct the address (`controller`)"
        ),
        (None, Some(error)) => format!(
            "the last attempt failed ({error}), and it tries again; where nobody answered, see that the controller runs, and \
             that UDP reaches it"
        ),
        (None, None) => "the controller has not answered yet".to_owned(),
    };
    let attention = format!("this node is not enrolled yet: {why}");
    NodeDaemonStatus {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION").into(),
        generated_utc: format!("{:.0}", clock::wall()),
        attention: vec![attention],
        node: node.to_string(),
        name: None,
        wireguard: String::new(),
        v4: None,
        v6: None,
        control: if waits_as.is_some() {
            Control::Connected
        } else {
            Control::Disconnected
        },
        control_heard_seconds: None,
        controller: controller.clone(),
        control_error: error.clone().filter(|_| waits_as.is_none()),
        clock_skew_ms: None,
        duplicate: None,
        log: None,
        log_fault: None,
        membership: None,
        reason: Some("it is not enrolled yet".to_owned()),
        epoch: None,
        next_epoch: None,
        lease_seconds: None,
        interface: None,
        last_evidence: None,
        keepalive: None,
        mapped: None,
        benchmark: None,
        rules: None,
        routes: None,
        dropped: BTreeMap::new(),
        peers: BTreeMap::new(),
        segments: BTreeMap::new(),
        not_placed: BTreeMap::new(),
        names: None,
    }
}
