//! One QUIC connection: a pipe between its stream and the engine. The intake says how much it may take;
//! it decides nothing itself.

use crate::clock::boot;
use crate::effect::ConnectionId;
use crate::inputs::Input;
use crate::intake::{HalfOpen, Intake, Pass, Unread};
use crate::outbox::{Outbound, Outbox};
use keys::NodeId;
use quic::{Connection, ConnectionError, Receiver, RecvError, Sender};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use wire::message::{Refusal, ToController, ToNode};

/// Carries a connection from its handshake, which lies apart so that it takes no room for as long as the connection is
/// there, to its end.
pub(crate) async fn run(
    handshake: Pin<Box<impl Future<Output = Result<Connection, ConnectionError>>>>,
    remote: SocketAddr,
    half_open: HalfOpen,
    id: ConnectionId,
    intake: Arc<Intake>,
    inputs: mpsc::Sender<Input>,
) {
    let handshake = tokio::select! {
        handshake = handshake => handshake,
        () = half_open.revoked() => {
            tracing::debug!(%remote, "handshake given up: others need the place");
            return;
        }
    };
    let connection = match handshake {
        Ok(connection) => connection,
        Err(error) => {
            tracing::debug!(%remote, %error, "handshake failed");
            return;
        }
    };
    let peer = NodeId(connection.peer());
    let remote = connection.remote();
    let pass = intake.admit(id, peer, remote, Some(&connection), boot());
    drop(half_open);
    let mut pass = match pass {
        Ok(pass) => pass,
        Err(turned) => {
            // At once: a connection that nobody serves must not go on holding memory.
            tracing::debug!(%remote, key = peer.short(), %turned, "connection turned away");
            connection.close(&turned.to_string());
            return;
        }
    };
    let Ok(Ok((sender, receiver))) = timeout(STREAM_TIME, connection.accept_stream()).await else {
        connection.close("nothing was said in time");
        return;
    };
    pass.speaks();
    let outbox = Arc::new(Outbox::default());
    let connected = Input::Connected {
        id,
        peer,
        remote,
        outbox: Arc::clone(&outbox),
        connection: connection.clone(),
    };
    if inputs.send(connected).await.is_ok() {
        tokio::select! {
            () = write(sender, id, &outbox, &inputs) => {}
            () = read(receiver, id, &pass, &inputs) => {}
            // A node that takes nothing would otherwise keep the writer, and its memory, for ever.
            () = ended(&outbox) => tracing::debug!(%remote, "its last word was not taken"),
            // The shell looks whether it is heard.
            error = connection.ended() => {
                tracing::debug!(%remote, %error, "connection ended");
            }
        }
        let _ = inputs.send(Input::Disconnected { id }).await;
    }
    connection.close("");
}

/// Resolves when everything has been said for long enough that it should have arrived.
async fn ended(outbox: &Outbox) {
    outbox.closed().await;
    sleep(2 * LAST_WORD_TIME).await;
}

/// Ends with the last word, or when nobody can be told any more.
async fn write(
    mut sender: Sender<ToNode>,
    id: ConnectionId,
    outbox: &Outbox,
    inputs: &mpsc::Sender<Input>,
) {
    while let Some(next) = outbox.take().await {
        match next {
            Outbound::Message(message) => {
                if let Err(error) = sender.send_shared(*message).await {
                    tracing::debug!(%error, "send failed");
                    return;
                }
            }
            Outbound::Places => {
                if inputs.send(Input::Ready { id }).await.is_err() {
                    return;
                }
            }
            Outbound::Close(reason) => {
                let last_word = async move {
                    if sender.send(&ToNode::Refused { reason }).await.is_ok() {
                        sender.finish().await;
                    }
                };
                let _ = timeout(LAST_WORD_TIME, last_word).await;
                return;
            }
        }
    }
}

/// Ends when the other side has finished. After something that is not to be read it waits for the
/// writer to say so.
async fn read(
    mut receiver: Receiver<ToController>,
    id: ConnectionId,
    pass: &Pass,
    inputs: &mpsc::Sender<Input>,
) {
    loop {
        match next(&mut receiver, pass).await {
            Ok(Some(message)) => {
                let message = Box::new(message);
                if inputs.send(Input::Message { id, message }).await.is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(reason) => {
                let _ = inputs.send(Input::Refused { id, reason }).await;
                return std::future::pending().await;
            }
        }
    }
}

/// The next message; `None` when there is none to come. An error is the last word to the other side.
async fn next(
    receiver: &mut Receiver<ToController>,
    pass: &Pass,
) -> Result<Option<ToController>, Refusal> {
    let read = async {
        let Some(header) = receiver.header().await? else {
            return Ok(None);
        };
        if let Err(unread) = pass.take(header, boot()) {
            return Ok(Some(Err(unread)));
        }
        Ok(Some(Ok(receiver.payload(header).await?)))
    };
    match read.await {
        Ok(None) | Err(RecvError::Stream(_) | RecvError::Cut) => Ok(None),
        Ok(Some(Ok(message))) => Ok(Some(message)),
        Ok(Some(Err(Unread::NotEnrolled))) => Err(Refusal::NotEnrolled),
        Ok(Some(Err(Unread::TooMuch))) => Err(Refusal::TooMuch),
        Err(RecvError::Frame(error)) => {
            tracing::debug!(%error, "malformed frame");
            Err(Refusal::Protocol)
        }
    }
}

/// From the handshake to the first byte of the stream.
const STREAM_TIME: Duration = Duration::from_secs(4);
/// For the last message to arrive.
const LAST_WORD_TIME: Duration = Duration::from_secs(2);
