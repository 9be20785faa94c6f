//! Nodes as far as the controller sees them: each has its key, its QUIC connection and its session, reads what it is
//! sent, and submits signed evidence when it is due. They carry no traffic and acknowledge no epochs.

use crate::mesh::Mesh;
use anyhow::{Context as _, bail};
use jiff::Timestamp;
use quic::{Connection, Dialer, Receiver, Sender};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tests::harness::now;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};
use wire::message::Hello;
use wire::{Digest, Instance, ToController, ToNode};

/// All of them, with their sessions.
pub(crate) struct Nodes {
    lines: Vec<Line>,
    _dialers: Vec<Dialer>,
    heard: Arc<Heard>,
    /// The number of the next run: each has another nonce.
    next_run: u64,
}

/// A node's session.
struct Line {
    sender: Sender<ToController>,
    waiting: Waiting,
    _connection: Connection,
}

/// When each submission that is not answered was due, oldest first: answers come in the order of submissions.
type Waiting = Arc<Mutex<VecDeque<Instant>>>;

/// Everything that all nodes together were told.
#[derive(Default)]
struct Heard {
    messages: AtomicU64,
    challenge: Mutex<Option<Digest>>,
    answers: Mutex<Vec<Answer>>,
    refusal: Mutex<Option<String>>,
}

/// One acknowledgement.
#[derive(Clone, Copy)]
pub(crate) struct Answer {
    /// When the submission was due.
    pub(crate) due: Instant,
    /// When the answer was there.
    pub(crate) at: Instant,
}

/// The outcome of a window of submissions.
pub(crate) struct Window {
    pub(crate) answers: Vec<Answer>,
    pub(crate) start: Instant,
    /// By how much the latest submission was sent after it was due.
    pub(crate) latest: Duration,
}

impl Nodes {
    /// Connects all nodes of `mesh`, as fast as a controller takes handshakes from one address, and waits until
    /// they have been told everything.
    pub(crate) async fn connect(mesh: &Mesh, address: SocketAddr) -> anyhow::Result<Self> {
        let heard = Arc::new(Heard::default());
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let begun = now();
        let mut dials: JoinSet<anyhow::Result<_>> = JoinSet::new();
        for (number, node) in mesh.nodes.iter().enumerate() {
            let due = begun + Duration::from_secs_f64(number as f64 / HANDSHAKES_PER_SECOND);
            let dialer = Dialer::bind(&node.secret, mesh.controller)?;
            let mut run = [0; 16];
            run[..8].copy_from_slice(&(number as u64 + 1).to_be_bytes());
            let instance = Instance::new(mesh.id, "boot", Some((1, number as u64)), run);
            let (heard, places) = (Arc::clone(&heard), Arc::clone(&places));
            dials.spawn(async move {
                sleep_until(due.into()).await;
                let _place = places.acquire().await?;
                // As nodes do: the controller leaves alone what is more than it can do at once.
                let mut attempts = 0;
                let line = loop {
                    attempts += 1;
                    match Line::open(&dialer, address, instance, Arc::clone(&heard)).await {
                        Ok(line) => break line,
                        Err(_) if attempts < ATTEMPTS => {}
                        Err(error) => return Err(error.context(format!("node {number}"))),
                    }
                };
                Ok((number, line, dialer))
            });
        }
        let mut lines = Vec::new();
        let mut dialers = Vec::new();
        while let Some(dialled) = dials.join_next().await {
            let (number, line, dialer) = dialled??;
            lines.push((number, line));
            dialers.push(dialer);
        }
        lines.sort_by_key(|(number, _)| *number);
        let mut nodes = Self {
            lines: lines.into_iter().map(|(_, line)| line).collect(),
            _dialers: dialers,
            heard,
            next_run: 1 << 32,
        };
        nodes.settle().await?;
        Ok(nodes)
    }

    /// Waits until nothing more is said to them.
    async fn settle(&mut self) -> anyhow::Result<()> {
        let deadline = now() + PATIENCE;
        let mut before = 0;
        loop {
            sleep(Duration::from_secs(1)).await;
            let messages = self.heard.messages.load(Ordering::Relaxed);
            if messages == before {
                return Ok(());
            }
            if now() > deadline {
                bail!("the controller goes on speaking");
            }
            before = messages;
        }
    }

    /// Submits evidence of all nodes in turn for so long, at so many a second in all. Signs all of it beforehand: on
    /// their own machines, nodes do not take the controller's time for that.
    pub(crate) async fn submit(
        &mut self,
        mesh: &Mesh,
        rate: f64,
        time: Duration,
    ) -> anyhow::Result<Window> {
        let challenge = *lock(&self.heard.challenge);
        let total = (rate * time.as_secs_f64()) as u64;
        let per_node = total / self.lines.len() as u64;
        let finished = Timestamp::now().checked_sub(Duration::from_secs(1))?;
        let mut signed: Vec<Vec<Vec<u8>>> = Vec::new();
        for node in &mesh.nodes {
            let mut runs = Vec::new();
            for _ in 0..per_node {
                // Each run of a node finishes after the one before.
                let after = Duration::from_micros(self.next_run - (1 << 32));
                let finished = finished.checked_add(after)?;
                runs.push(mesh.evidence(node, self.next_run, challenge, finished)?);
                self.next_run += 1;
            }
            signed.push(runs);
        }
        lock(&self.heard.answers).clear();
        let start = now() + Duration::from_millis(100);
        let nodes = self.lines.len() as f64;
        let mut tasks = JoinSet::new();
        for (number, (mut line, runs)) in self.lines.drain(..).zip(signed).enumerate() {
            tasks.spawn(async move {
                let mut latest = Duration::ZERO;
                for (turn, envelope) in runs.into_iter().enumerate() {
                    let place = number as f64 + turn as f64 * nodes;
                    let due = start + Duration::from_secs_f64(place / rate);
                    sleep_until(due.into()).await;
                    lock(&line.waiting).push_back(due);
                    line.sender
                        .send(&ToController::Evidence { envelope })
                        .await?;
                    latest = latest.max(now().saturating_duration_since(due));
                }
                anyhow::Ok((number, line, latest))
            });
        }
        let mut lines = Vec::new();
        let mut latest = Duration::ZERO;
        while let Some(done) = tasks.join_next().await {
            let (number, line, late) = done??;
            latest = latest.max(late);
            lines.push((number, line));
        }
        lines.sort_by_key(|(number, _)| *number);
        self.lines = lines.into_iter().map(|(_, line)| line).collect();
        self.answered(per_node as usize * self.lines.len()).await?;
        let answers = std::mem::take(&mut *lock(&self.heard.answers));
        Ok(Window {
            answers,
            start,
            latest,
        })
    }

    /// Waits until every submission is answered; no answer may be a refusal.
    async fn answered(&self, submitted: usize) -> anyhow::Result<()> {
        let deadline = now() + PATIENCE;
        loop {
            if let Some(reason) = lock(&self.heard.refusal).as_ref() {
                bail!("the controller refuses evidence: {reason}");
            }
            let answers = lock(&self.heard.answers).len();
            if answers == submitted {
                return Ok(());
            }
            if now() > deadline {
                bail!("{answers} of {submitted} submissions are answered");
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Line {
    async fn open(
        dialer: &Dialer,
        address: SocketAddr,
        instance: Instance,
        heard: Arc<Heard>,
    ) -> anyhow::Result<Self> {
        let connection = dialer.connect(address).await?;
        let (mut sender, receiver) = connection.open_stream().await?;
        let hello = Hello {
            software: "bench".into(),
            listen_port: 51_820,
            advertised: Vec::new(),
            addresses: Vec::new(),
            newest: Vec::new(),
            holds: Vec::new(),
            told: Vec::new(),
            log: None,
            unix_ms: Timestamp::now().as_millisecond().unsigned_abs(),
            instance,
        };
        sender.send(&ToController::Hello(hello)).await?;
        let waiting = Waiting::default();
        let (welcome, welcomed) = oneshot::channel();
        let ears = Ears {
            waiting: Arc::clone(&waiting),
            heard,
            welcome: Some(welcome),
        };
        tokio::spawn(ears.listen(receiver));
        welcomed
            .await
            .context("the connection ended before the welcome")?;
        Ok(Self {
            sender,
            waiting,
            _connection: connection,
        })
    }
}

/// Reads everything that one node is sent.
struct Ears {
    waiting: Waiting,
    heard: Arc<Heard>,
    /// Told of the welcome; dropped without one if the connection ends before.
    welcome: Option<oneshot::Sender<()>>,
}

impl Ears {
    async fn listen(mut self, mut receiver: Receiver<ToNode>) {
        loop {
            let reason = match receiver.recv().await {
                Ok(Some(ToNode::Refused { reason })) => reason.to_string(),
                Ok(Some(message)) => {
                    self.hear(message);
                    continue;
                }
                Ok(None) => "the connection ended".to_owned(),
                Err(error) => error.to_string(),
            };
            if self.welcome.is_none() {
                *lock(&self.heard.refusal) = Some(reason);
            }
            return;
        }
    }

    fn hear(&mut self, message: ToNode) {
        let at = now();
        self.heard.messages.fetch_add(1, Ordering::Relaxed);
        match message {
            ToNode::Welcome { .. } => {
                if let Some(welcome) = self.welcome.take() {
                    // Nobody waits for it any more if the measurement has been given up.
                    let _ = welcome.send(());
                }
            }
            ToNode::Update(update) => *lock(&self.heard.challenge) = Some(update.signed.digest()),
            ToNode::EvidenceResult { refused: None, .. } => {
                if let Some(due) = lock(&self.waiting).pop_front() {
                    lock(&self.heard.answers).push(Answer { due, at });
                }
            }
            ToNode::EvidenceResult {
                refused: Some(refused),
                ..
            } => *lock(&self.heard.refusal) = Some(refused.reason),
            _ => {}
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const ATTEMPTS: u32 = 10;
/// Nodes that wait for their welcome at a time.
const AT_ONCE: usize = 20;
/// A controller takes 100 handshakes a second from one address.
const HANDSHAKES_PER_SECOND: f64 = 80.0;
const PATIENCE: Duration = Duration::from_secs(120);
