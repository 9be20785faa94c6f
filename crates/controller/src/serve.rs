//! The loop: await an input, apply it, carry out the effects, write the status.

use crate::clock::Now;
use crate::engine::{ConnectionId, Effect, Engine};
use crate::open::Controller;
use crate::operator::{Answer, Refused, Request};
use crate::session::{self, Outbound};
use crate::{admin, status};
use exposition::Page;
use keys::NodeId;
use quic::{Connection, Listener};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use wire::NodeName;
use wire::admin::{ControllerStatus, Membership, NodeState};
use wire::message::ToController;

/// Why serving ended without being told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The QUIC endpoint is gone.
    #[error("the QUIC endpoint has failed: restart the controller")]
    Endpoint,
    /// The admin socket is gone.
    #[error("the admin socket has failed: restart the controller")]
    Admin,
}

/// Everything that can happen to the engine. Without `Debug`: an answer may hold a token.
pub(crate) enum Input {
    /// A key proved itself.
    Connected {
        id: ConnectionId,
        peer: NodeId,
        remote: SocketAddr,
        outbox: mpsc::Sender<Outbound>,
        connection: Connection,
    },
    /// A message arrived.
    Message {
        id: ConnectionId,
        message: Box<ToController>,
    },
    /// Something else arrived.
    Malformed { id: ConnectionId },
    /// A connection ended.
    Disconnected { id: ConnectionId },
    /// An operator asks.
    Operator {
        request: Request,
        answer: oneshot::Sender<Result<Answer, Refused>>,
    },
    /// A scraper asks.
    Metrics { answer: oneshot::Sender<Page> },
}

impl Controller {
    /// Serves until `shutdown` resolves; then tells every node and returns.
    ///
    /// # Errors
    /// [`ServeError`] when it ends for another reason.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
        let (inputs, mut queue) = mpsc::channel(INPUTS);
        let mut shell = Shell {
            engine: self.engine,
            boxes: BTreeMap::new(),
            open: BTreeSet::new(),
            status: StatusFile::new(self.status_file),
        };
        let result = tokio::select! {
            () = shell.run(&mut queue, shutdown) => Ok(()),
            () = accept(&self.listener, inputs.clone()) => Err(ServeError::Endpoint),
            () = admin::serve(self.admin, inputs.clone()) => Err(ServeError::Admin),
            never = admin::serve_metrics(self.metrics, inputs) => match never {},
        };
        self.listener.close("the controller is stopping").await;
        result
    }
}

async fn accept(listener: &Listener, inputs: mpsc::Sender<Input>) {
    let mut next = 0;
    while let Some(incoming) = listener.accept().await {
        next += 1;
        tokio::spawn(session::run(incoming, ConnectionId(next), inputs.clone()));
    }
}

struct Shell {
    engine: Engine,
    boxes: BTreeMap<ConnectionId, Outbox>,
    /// Connections whose tasks have not ended.
    open: BTreeSet<ConnectionId>,
    status: StatusFile,
}

struct Outbox {
    messages: mpsc::Sender<Outbound>,
    connection: Connection,
}

impl Shell {
    async fn run(&mut self, queue: &mut mpsc::Receiver<Input>, shutdown: impl Future<Output = ()>) {
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let now = Now::read();
            self.engine.handle_timeout(now);
            self.carry_out();
            self.engine.tidy();
            self.status.keep(&mut self.engine, now);
            let wake = self.engine.poll_timeout(now).min(self.status.due());
            // Bounded, because the machine may sleep, which tokio's clock does not count, and the
            // wall clock may be set.
            let wait = wake.saturating_sub(now.boot).clamp(TICK, NAP);
            tokio::select! {
                () = &mut shutdown => break,
                input = queue.recv() => match input {
                    Some(input) => self.apply(input),
                    None => break,
                },
                () = sleep(wait) => {}
            }
        }
        self.engine.stop();
        self.carry_out();
        let _ = timeout(STOP_TIME, self.drain(queue)).await;
        self.status.keep_at_once(&mut self.engine, Now::read());
    }

    fn apply(&mut self, input: Input) {
        let now = Now::read();
        match input {
            Input::Connected {
                id,
                peer,
                remote,
                outbox,
                connection,
            } => {
                let messages = outbox;
                let outbox = Outbox {
                    messages,
                    connection,
                };
                self.boxes.insert(id, outbox);
                self.open.insert(id);
                self.engine.handle_connected(id, peer, remote, now);
            }
            Input::Message { id, message } => {
                if let Some(outbox) = self.boxes.get(&id) {
                    self.engine.handle_moved(id, outbox.connection.remote());
                }
                self.engine.handle_message(id, *message, now);
            }
            Input::Malformed { id } => self.engine.handle_malformed(id),
            Input::Disconnected { id } => {
                self.boxes.remove(&id);
                self.open.remove(&id);
                self.engine.handle_disconnected(id);
            }
            Input::Operator { request, answer } => {
                // An operator who has gone away has been served all the same.
                let _ = answer.send(self.engine.operator(request, now));
            }
            Input::Metrics { answer } => {
                // Nor is a scraper waited for.
                let _ = answer.send(self.engine.metrics(now));
            }
        }
    }

    fn carry_out(&mut self) {
        while let Some(effect) = self.engine.poll_effect() {
            let (id, outbound, last) = match effect {
                Effect::Send(id, message) => (id, Outbound::Message(message), false),
                Effect::Close(id, reason) => (id, Outbound::Close(reason), true),
            };
            let Some(outbox) = self.boxes.get(&id) else {
                continue;
            };
            let full = outbox.messages.try_send(outbound).is_err();
            if full {
                outbox.connection.close("this node does not read");
                self.engine.handle_disconnected(id);
            }
            if full || last {
                self.boxes.remove(&id);
            }
        }
    }

    /// Waits until every connection has had its last word.
    async fn drain(&mut self, queue: &mut mpsc::Receiver<Input>) {
        while !self.open.is_empty() {
            match queue.recv().await {
                Some(Input::Disconnected { id }) => {
                    self.open.remove(&id);
                }
                Some(
                    Input::Connected { .. }
                    | Input::Message { .. }
                    | Input::Malformed { .. }
                    | Input::Operator { .. }
                    | Input::Metrics { .. },
                ) => {}
                None => return,
            }
        }
    }
}

/// `status.json`, kept up with the engine.
struct StatusFile {
    path: PathBuf,
    written: Option<ControllerStatus>,
    not_before: Duration,
    refresh_at: Duration,
    pending: bool,
    failed: bool,
}

impl StatusFile {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            written: None,
            not_before: Duration::ZERO,
            refresh_at: Duration::ZERO,
            pending: true,
            failed: false,
        }
    }

    fn due(&self) -> Duration {
        if self.pending {
            self.not_before
        } else {
            self.refresh_at
        }
    }

    fn keep(&mut self, engine: &mut Engine, now: Now) {
        self.pending |= engine.take_dirty();
        if self.due() <= now.boot {
            self.keep_at_once(engine, now);
        }
    }

    fn keep_at_once(&mut self, engine: &mut Engine, now: Now) {
        self.pending = false;
        self.not_before = now.boot + STATUS_PAUSE;
        self.refresh_at = now.boot + STATUS_REFRESH;
        let mut status = engine.status(now);
        if let Some(written) = &self.written {
            // When it was made is no change.
            let made = std::mem::replace(&mut status.generated_utc, written.generated_utc.clone());
            if status == *written {
                return;
            }
            status.generated_utc = made;
        }
        match status::write(&self.path, &status) {
            Ok(()) => {
                let (before, after) = (self.written.as_ref().map(standing), standing(&status));
                if before.as_ref() == Some(&after) {
                    tracing::debug!(epoch = status.epoch.id, "status written");
                } else {
                    tracing::info!(epoch = status.epoch.id, "status written");
                }
                self.failed = false;
                self.written = Some(status);
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failed, true) {
                    tracing::warn!(path = %self.path.display(), %error, "status file cannot be written");
                }
                self.written = None;
            }
        }
    }
}

/// What of a status is worth a line: the epoch, and where each node stands in it.
fn standing(status: &ControllerStatus) -> (u64, Vec<(NodeName, Membership, NodeState)>) {
    let nodes = status.nodes.iter();
    let nodes = nodes.map(|(name, node)| (name.clone(), node.membership, node.state));
    (status.epoch.id, nodes.collect())
}

/// Inputs that may wait; beyond that, connections wait.
const INPUTS: usize = 1024;
/// Keeps a timer that is due, but waits for something else, from spinning.
const TICK: Duration = Duration::from_millis(1);
const NAP: Duration = Duration::from_secs(1);
/// Changes within this time share one writing.
const STATUS_PAUSE: Duration = Duration::from_millis(200);
/// Reasons change with time alone: evidence turns stale.
const STATUS_REFRESH: Duration = Duration::from_secs(5);
const STOP_TIME: Duration = Duration::from_secs(3);
