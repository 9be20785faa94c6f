//! The hostile node's control channel: the dialogue of a real node. It comes back whenever it is thrown
//! out.

use crate::node::Clock;
use agent::{Emission, SessionEvent};
use anyhow::bail;
use jiff::Timestamp;
use keys::{AuthorityId, WgSecret};
use quic::{Dialer, Receiver, Sender};
use rand::Rng as _;
use rand_core::OsRng;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::mpsc;
use wire::evidence::Benchmark;
use wire::fixtures;
use wire::message::{Enrol, Hello};
use wire::{Place, ToController, ToNode, Token};

/// The node, as a session introduces it.
pub(crate) struct Introduction {
    pub(crate) listen_port: u16,
    /// Whose signature its place must have.
    pub(crate) authorities: Vec<AuthorityId>,
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
        segments: vec![wire::Ask::unnamed(wg.public())],
        addresses: Vec::new(),
    }))
    .await?;
    match receive.recv().await? {
        Some(ToNode::Enrolled(places)) => Ok((*places[0].verify(&token.authorities)?).clone()),
        other => bail!("instead of a place: {other:?}"),
    }
}

/// News of the control channel.
pub(crate) enum Session {
    /// The controller has welcomed this node; what it says goes into the outbox.
    Up {
        event: SessionEvent,
        outbox: mpsc::Sender<ToController>,
    },
    /// Anything else.
    Heard(SessionEvent),
}

/// Keeps the control channel, and passes on what comes.
pub(crate) async fn keep(
    dialer: Dialer,
    controller: SocketAddr,
    introduction: Introduction,
    to_loop: mpsc::Sender<Session>,
) {
    loop {
        let end = session(&dialer, controller, &introduction, &to_loop).await;
        let down = SessionEvent::Down {
            address: controller.to_string(),
            error: format!("{end:?}"),
        };
        // A hostile node comes back, whatever ended it.
        if to_loop.send(Session::Heard(down)).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

async fn session(
    dialer: &Dialer,
    controller: SocketAddr,
    introduction: &Introduction,
    to_loop: &mpsc::Sender<Session>,
) -> anyhow::Result<()> {
    let dialled = Clock.now();
    let connection = dialer.connect(controller).await?;
    let (mut send, mut receive): (Sender<ToController>, Receiver<ToNode>) =
        connection.open_stream().await?;
    let hello = Hello {
        software: "hostile".into(),
        listen_port: introduction.listen_port,
        advertised: Vec::new(),
        addresses: Vec::new(),
        newest: Vec::new(),
        holds: Vec::new(),
        told: Vec::new(),
        log: None,
        unix_ms: u64::try_from(Timestamp::now().as_millisecond())?,
        instance: wire::fixtures::instance(1, 1),
    };
    send.send(&ToController::Hello(hello)).await?;
    let Some(ToNode::Welcome { places, .. }) = receive.recv().await? else {
        bail!("no welcome");
    };
    let (outbox, mut said) = mpsc::channel(64);
    let event = SessionEvent::Up {
        address: controller.to_string(),
        remote: controller,
        dialled,
        places: vec![(*places[0].verify(&introduction.authorities)?).clone()],
        skew_ms: 0,
    };
    to_loop.send(Session::Up { event, outbox }).await?;
    let reading = async {
        while let Some(message) = receive.recv().await? {
            let message = SessionEvent::Message(Box::new(message));
            to_loop.send(Session::Heard(message)).await?;
        }
        anyhow::Ok(())
    };
    let writing = async {
        while let Some(message) = said.recv().await {
            send.send(&message).await?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        result = reading => result,
        result = writing => result,
    }
}

/// A run with the score that it is told to have.
pub(crate) fn run(overall: f64) -> Emission {
    Emission::Run(Box::new(Benchmark {
        suite: "s".into(),
        nonce: format!("{:032x}", OsRng.r#gen::<u128>()),
        ..fixtures::run(overall, Timestamp::now())
    }))
}
