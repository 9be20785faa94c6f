//! One QUIC connection: a pipe between its stream and the engine. Decides nothing, knows nothing.

use crate::engine::ConnectionId;
use crate::serve::Input;
use keys::NodeId;
use quic::{Connection, Incoming, Receiver, RecvError, Sender};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use wire::message::{Refusal, ToController, ToNode};

/// What the engine hands to a connection.
#[derive(Debug)]
pub(crate) enum Outbound {
    /// A message.
    Message(Box<ToNode>),
    /// The last message, then the end.
    Close(Refusal),
}

/// Carries a connection from its handshake to its end.
pub(crate) async fn run(incoming: Incoming, id: ConnectionId, inputs: mpsc::Sender<Input>) {
    let remote = incoming.remote();
    let connection = match incoming.handshake().await {
        Ok(connection) => connection,
        Err(error) => {
            tracing::debug!(%remote, %error, "handshake failed");
            return;
        }
    };
    let (outbox, outbound) = mpsc::channel(OUTBOX);
    let connected = Input::Connected {
        id,
        peer: NodeId(connection.peer()),
        remote: connection.remote(),
        outbox,
        connection: connection.clone(),
    };
    if inputs.send(connected).await.is_ok() {
        carry(&connection, id, outbound, &inputs).await;
        let _ = inputs.send(Input::Disconnected { id }).await;
    }
    connection.close("");
}

async fn carry(
    connection: &Connection,
    id: ConnectionId,
    outbound: mpsc::Receiver<Outbound>,
    inputs: &mpsc::Sender<Input>,
) {
    let Ok(Ok((sender, receiver))) = timeout(STREAM_TIME, connection.accept_stream()).await else {
        return;
    };
    tokio::select! {
        () = write(sender, outbound) => {}
        () = read(receiver, id, inputs) => {}
        error = connection.closed() => {
            tracing::debug!(remote = %connection.remote(), %error, "connection ended");
        }
    }
}

/// Ends with the last word, or when nobody can be told any more.
async fn write(mut sender: Sender<ToNode>, mut outbound: mpsc::Receiver<Outbound>) {
    while let Some(next) = outbound.recv().await {
        match next {
            Outbound::Message(message) => {
                if let Err(error) = sender.send(&message).await {
                    tracing::debug!(%error, "send failed");
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

/// Ends when the other side has finished. After bytes that are no message it waits for the writer
/// to say so.
async fn read(
    mut receiver: Receiver<ToController>,
    id: ConnectionId,
    inputs: &mpsc::Sender<Input>,
) {
    loop {
        let input = match receiver.recv().await {
            Ok(Some(message)) => Input::Message {
                id,
                message: Box::new(message),
            },
            Ok(None) | Err(RecvError::Stream(_) | RecvError::Cut) => return,
            Err(RecvError::Frame(error)) => {
                tracing::debug!(%error, "malformed frame");
                let _ = inputs.send(Input::Malformed { id }).await;
                return std::future::pending().await;
            }
        };
        if inputs.send(input).await.is_err() {
            return;
        }
    }
}

/// Messages that may wait for one node. Full: the node does not read, and is disconnected.
const OUTBOX: usize = 64;
/// From the handshake to the first byte of the stream.
const STREAM_TIME: Duration = Duration::from_secs(10);
/// For the last message to arrive.
const LAST_WORD_TIME: Duration = Duration::from_secs(2);
