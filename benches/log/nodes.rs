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
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};
use wire::message::Hello;
use wire::{Digest, Instance, ToController, ToNode};

/// All of them, with their sessions.
pub(crate) struct Nodes {
    lines: Vec<Line>,
    heard: Arc<Heard>,
    /// The number of the next run: each has another nonce.
    next_run: u64,
}

/// A node's session.
struct Line {
    sender: Sender<ToController>,
    waiting: Waiting,
    _connection: Connection,
    _dialer: Dialer,
}

/// When each submission that is not answered was due, oldest first: answers come in the order of submissions.
type Waiting = Arc<Mutex<VecDeque<Instant>>>;

/// Everything that all nodes together were told.
#[derive(Default)]
struct Heard {
    welcomed: AtomicU64,
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

/// What a window of submissions came to.
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
        let begun = now();
        let mut dials = JoinSet::new();
        for (number, node) in mesh.nodes.iter().enumerate() {
            let due = begun + Duration::from_secs_f64(number as f64 / HANDSHAKES_PER_SECOND);
            let dialer = Dialer::bind(&node.secret, mesh.controller)?;
            let mut run = [0; 16];
            run[..8].copy_from_slice(&(number as u64 + 1).to_be_bytes());
            let instance = Instance::new(mesh.id, "boot", Some((1, number as u64)), run);
            let heard = Arc::clone(&heard);
            dials.spawn(async move {
                sleep_until(due.into()).await;
                let line = Line::open(dialer, address, instance, heard).await;
                (number, line)
            });
        }
        let mut lines = Vec::new();
        while let Some(dialled) = dials.join_next().await {
            let (number, line) = dialled?;
            lines.push((number, line.with_context(|| format!("node {number}"))?));
        }
        lines.sort_by_key(|(number, _)| *number);
        let mut nodes = Self {
            lines: lines.into_iter().map(|(_, line)| line).collect(),
            heard,
            next_run: 1 << 32,
        };
        nodes.settle().await?;
        Ok(nodes)
    }

    /// Waits until all are welcome, and nothing more is said to them.
    async fn settle(&mut self) -> anyhow::Result<()> {
        let deadline = now() + PATIENCE;
        let mut before = 0;
        loop {
            sleep(Duration::from_secs(1)).await;
            let welcomed = self.heard.welcomed.load(Ordering::Relaxed);
            let messages = self.heard.messages.load(Ordering::Relaxed);
            if welcomed == self.lines.len() as u64 && messages == before {
                return Ok(());
            }
            if now() > deadline {
                bail!("{welcomed} of {} nodes are welcome", self.lines.len());
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
        dialer: Dialer,
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
            newest: None,
            log: None,
            unix_ms: Timestamp::now().as_millisecond().unsigned_abs(),
            instance,
        };
        sender.send(&ToController::Hello(hello)).await?;
        let waiting = Waiting::default();
        tokio::spawn(listen(receiver, Arc::clone(&waiting), heard));
        Ok(Self {
            sender,
            waiting,
            _connection: connection,
            _dialer: dialer,
        })
    }
}

/// Reads everything that one node is sent.
async fn listen(mut receiver: Receiver<ToNode>, waiting: Waiting, heard: Arc<Heard>) {
    loop {
        let message = match receiver.recv().await {
            Ok(Some(message)) => message,
            Ok(None) => return,
            Err(error) => {
                *lock(&heard.refusal) = Some(error.to_string());
                return;
            }
        };
        let at = now();
        heard.messages.fetch_add(1, Ordering::Relaxed);
        match message {
            ToNode::Welcome { .. } => drop(heard.welcomed.fetch_add(1, Ordering::Relaxed)),
            ToNode::Update(update) => *lock(&heard.challenge) = Some(update.signed.digest()),
            ToNode::EvidenceResult { refused: None, .. } => {
                if let Some(due) = lock(&waiting).pop_front() {
                    lock(&heard.answers).push(Answer { due, at });
                }
            }
            ToNode::EvidenceResult {
                refused: Some(refused),
                ..
            } => *lock(&heard.refusal) = Some(refused.reason),
            ToNode::Refused { reason } => *lock(&heard.refusal) = Some(reason.to_string()),
            _ => {}
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A controller takes 100 handshakes a second from one address.
const HANDSHAKES_PER_SECOND: f64 = 90.0;
const PATIENCE: Duration = Duration::from_secs(120);
