//! The hostile node's control channel: the dialogue of a real node, with evidence that says whatever
//! score it is told to say. It comes back whenever it is thrown out.

use crate::node::Shared;
use anyhow::{bail, ensure};
use jiff::Timestamp;
use keys::{MeshId, NodeSecret, WgSecret};
use quic::{Dialer, Receiver, Sender};
use rand::Rng as _;
use rand_core::OsRng;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use wire::evidence::Benchmark;
use wire::message::{Enrol, Hello};
use wire::{Place, ToController, ToNode, Token};

/// What a session says of the node.
pub(crate) struct Introduction {
    pub(crate) identity: NodeSecret,
    pub(crate) listen_port: u16,
    pub(crate) name: String,
    pub(crate) mesh: MeshId,
}

/// Enrols with a token.
pub(crate) async fn enrol(
    dialer: &Dialer,
    controller: SocketAddr,
    token: &Token,
    wg: &WgSecret,
) -> anyhow::Result<Place> {
    let connection = dialer.connect(controller).await?;
    let (mut send, mut receive) = connection.open_stream::<ToController, ToNode>().await?;
    send.send(&ToController::Enrol(Enrol {
        token: keys::TokenSecret::from_bytes(*token.secret.expose()),
        name: None,
        wg: wg.public(),
    }))
    .await?;
    match receive.recv().await? {
        Some(ToNode::Enrolled(place)) => Ok((*place.verify(&token.authorities)?).clone()),
        other => bail!("instead of a place: {other:?}"),
    }
}

/// Keeps the control channel, hands in evidence, passes on what comes.
pub(crate) async fn keep(
    dialer: Dialer,
    controller: SocketAddr,
    hello: Introduction,
    shared: Arc<Shared>,
    to_loop: mpsc::Sender<ToNode>,
) {
    loop {
        // Whatever ended it: a hostile node comes back.
        let _ = session(&dialer, controller, &hello, &shared, &to_loop).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

async fn session(
    dialer: &Dialer,
    controller: SocketAddr,
    introduction: &Introduction,
    shared: &Shared,
    to_loop: &mpsc::Sender<ToNode>,
) -> anyhow::Result<()> {
    let connection = dialer.connect(controller).await?;
    let (mut send, mut receive): (Sender<ToController>, Receiver<ToNode>) =
        connection.open_stream().await?;
    let hello = Hello {
        software: "hostile".into(),
        listen_port: introduction.listen_port,
        advertised: Vec::new(),
        newest: None,
        unix_ms: u64::try_from(Timestamp::now().as_millisecond())?,
    };
    send.send(&ToController::Hello(hello)).await?;
    let welcome = receive.recv().await?;
    ensure!(
        matches!(welcome, Some(ToNode::Welcome { .. })),
        "no welcome: {welcome:?}"
    );
    let reading = async {
        while let Some(message) = receive.recv().await? {
            if let ToNode::Update(update) = &message {
                *shared.challenge.lock().expect("no holder panics") = Some(update.signed.digest());
            }
            to_loop.send(message).await?;
        }
        anyhow::Ok(())
    };
    let writing = async {
        let mut said = None;
        loop {
            let score = *shared.score.lock().expect("no holder panics");
            let challenge = *shared.challenge.lock().expect("no holder panics");
            if said != Some(score) && challenge.is_some() {
                let envelope = run(score)
                    .bound_to(introduction.mesh, challenge)
                    .attest_self(&introduction.name, &introduction.identity)?;
                send.send(&ToController::Evidence { envelope }).await?;
                said = Some(score);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        result = reading => result,
        result = writing => result,
    }
}

fn run(overall: f64) -> Benchmark {
    let now = Timestamp::now();
    Benchmark {
        harness: "hostile".into(),
        suite: "s".into(),
        suite_version: "1".into(),
        metrics: BTreeMap::new(),
        overall,
        samples_total: 1,
        samples_completed: 1,
        started_at: now,
        finished_at: now,
        nonce: format!("{:032x}", OsRng.r#gen::<u128>()),
        log_digest: None,
        mesh: None,
        challenge: None,
    }
}
