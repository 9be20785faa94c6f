//! The controller's connection key in the wrong hands: welcomes one node and pushes whatever bytes it
//! is told to. It signs nothing of its own.

use crate::flooder::Raw;
use crate::witness::inside;
use anyhow::anyhow;
use keys::{ControllerSecret, NodeId};
use quic::{Connection, Listener};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;
use wire::{Frame as _, Place, Signed, ToController, ToNode};

/// A running fake.
pub(crate) struct FakeController {
    pushes: Option<mpsc::UnboundedSender<Raw>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

#[derive(Default)]
struct Shared {
    /// Connections that got as far as a Hello.
    welcomed: AtomicU64,
    /// Handshakes that the node broke off.
    spurned: AtomicU64,
}

impl FakeController {
    /// Listens at `address` in `netns` with the key `secret`, for the node `node` only.
    pub(crate) fn start(
        netns: &Path,
        address: SocketAddr,
        secret: ControllerSecret,
        node: NodeId,
        place: Signed<Place>,
    ) -> Self {
        let (pushes, queue) = mpsc::unbounded_channel();
        let (shared, netns) = (Arc::new(Shared::default()), netns.to_owned());
        let of_thread = shared.clone();
        let thread = std::thread::spawn(move || {
            inside(&netns, move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                runtime.block_on(async {
                    let listener = Listener::bind(address, &secret)?;
                    serve(&listener, node, &place, queue, &of_thread).await;
                    listener.close("").await;
                    Ok(())
                })
            })?
        });
        Self {
            pushes: Some(pushes),
            shared,
            thread: Some(thread),
        }
    }

    /// Pushes a message, whatever it says.
    pub(crate) fn push(&self, message: &ToNode) {
        let payload = postcard::to_stdvec(message).expect("a message encodes");
        self.push_raw(message.frame_type(), payload);
    }

    /// Pushes a frame with any payload.
    pub(crate) fn push_raw(&self, frame_type: u8, payload: Vec<u8>) {
        let pushes = self.pushes.as_ref().expect("it has not been stopped");
        pushes
            .send(Raw {
                frame_type,
                payload,
            })
            .expect("it runs");
    }

    /// Connections that got as far as a Hello.
    pub(crate) fn welcomed(&self) -> u64 {
        self.shared.welcomed.load(Ordering::SeqCst)
    }

    /// Handshakes that the node broke off.
    pub(crate) fn spurned(&self) -> u64 {
        self.shared.spurned.load(Ordering::SeqCst)
    }

    /// Frees the port.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        self.pushes = None;
        let thread = self.thread.take().expect("it is stopped once");
        thread
            .join()
            .map_err(|_| anyhow!("the fake controller panicked"))?
    }
}

/// One connection at a time; ends when nobody can push any more.
async fn serve(
    listener: &Listener,
    node: NodeId,
    place: &Signed<Place>,
    mut queue: mpsc::UnboundedReceiver<Raw>,
    shared: &Shared,
) {
    loop {
        let incoming = tokio::select! {
            incoming = listener.accept() => incoming,
            // Nobody is there to hear it.
            pushed = queue.recv() => match pushed {
                Some(_) => continue,
                None => return,
            },
        };
        let Some(incoming) = incoming else { return };
        let Ok(connection) = incoming.handshake().await else {
            shared.spurned.fetch_add(1, Ordering::SeqCst);
            continue;
        };
        if connection.peer() != node.0 {
            connection.close("not you");
            continue;
        }
        match carry(&connection, place, &mut queue, shared).await {
            Ok(End::Stopped) => return,
            Ok(End::Lost) | Err(_) => {}
        }
    }
}

enum End {
    Lost,
    Stopped,
}

async fn carry(
    connection: &Connection,
    place: &Signed<Place>,
    queue: &mut mpsc::UnboundedReceiver<Raw>,
    shared: &Shared,
) -> anyhow::Result<End> {
    let stream = connection.accept_stream::<Raw, ToController>();
    let Ok(stream) = tokio::time::timeout(HANDSHAKE, stream).await else {
        // A client that spurns the key does so after the server has taken it for connected.
        shared.spurned.fetch_add(1, Ordering::SeqCst);
        return Ok(End::Lost);
    };
    let Ok((mut send, mut receive)) = stream else {
        shared.spurned.fetch_add(1, Ordering::SeqCst);
        return Ok(End::Lost);
    };
    let _hello = receive.recv().await?;
    let welcome = ToNode::Welcome {
        places: vec![place.clone()],
        unix_ms: u64::try_from(jiff::Timestamp::now().as_millisecond())?,
        observed: ([127, 0, 0, 1], 1).into(),
    };
    let payload = postcard::to_stdvec(&welcome)?;
    let frame_type = welcome.frame_type();
    send.send(&Raw {
        frame_type,
        payload,
    })
    .await?;
    shared.welcomed.fetch_add(1, Ordering::SeqCst);
    let reading = async { while let Ok(Some(_)) = receive.recv().await {} };
    tokio::pin!(reading);
    loop {
        tokio::select! {
            pushed = queue.recv() => match pushed {
                Some(raw) => send.send(&raw).await?,
                None => return Ok(End::Stopped),
            },
            () = &mut reading => return Ok(End::Lost),
            _ = connection.closed() => return Ok(End::Lost),
        }
    }
}

const HANDSHAKE: Duration = Duration::from_secs(5);
