//! The cost of QUIC alone: a process that does nothing but push the same bytes to as many connections, of the same
//! crate with the same settings. It shares them as the controller may: they are in memory once.

use crate::stats::Sample;
use crate::swarm::Swarm;
use anyhow::{Context as _, ensure};
use keys::{ControllerId, ControllerSecret, NodeSecret};
use quic::{Connection, Listener};
use rand_core::OsRng;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tests::harness::now;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use wire::Frame;

/// The only message: bytes.
#[derive(Debug, Serialize, Deserialize)]
struct Bulk(#[serde(with = "serde_bytes")] Vec<u8>);

impl Frame for Bulk {
    fn frame_type(&self) -> u8 {
        1
    }

    fn since(_: u8) -> u8 {
        1
    }

    fn limit(_: u8) -> Option<usize> {
        Some(16 << 20)
    }
}

/// Connections to a process that only pushes.
pub(crate) struct Bare {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    arrived: Arc<Mutex<Vec<Instant>>>,
    readers: JoinSet<anyhow::Result<()>>,
    connections: usize,
}

impl Bare {
    /// Connects as many as `swarm` has nodes, from the same addresses.
    pub(crate) async fn connect(swarm: &mut Swarm) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(PUSHER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let orders = child.stdin.take().context("its input is a pipe")?;
        let answers = child.stdout.take().context("its output is a pipe")?;
        let mut answers = BufReader::new(answers).lines();
        let line = answers.next_line().await?.context("the pusher has ended")?;
        let (address, key) = line.split_once(' ').context("an address and a key")?;
        let (address, key): (SocketAddr, ControllerId) = (address.parse()?, key.parse()?);
        let mut bare = Self {
            child,
            orders,
            answers,
            arrived: Arc::default(),
            readers: JoinSet::new(),
            connections: swarm.members.len(),
        };
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut dials = JoinSet::new();
        for number in 0..bare.connections {
            let secret = NodeSecret::generate(&mut OsRng);
            let dialer = swarm.dialer(number, &secret)?.beside(&secret, key);
            let places = Arc::clone(&places);
            dials.spawn(async move {
                let _place = places.acquire().await?;
                let mut attempts = 0;
                loop {
                    attempts += 1;
                    match dialer.connect(address).await {
                        Ok(connection) => return anyhow::Ok(connection),
                        Err(error) if attempts == ATTEMPTS => return Err(error.into()),
                        Err(_) => sleep(Duration::from_millis(100)).await,
                    }
                }
            });
        }
        while let Some(connection) = dials.join_next().await {
            let arrived = Arc::clone(&bare.arrived);
            bare.readers.spawn(read(connection??, arrived));
        }
        bare.ordered("count", Duration::from_secs(60)).await?;
        Ok(bare)
    }

    /// Pushes so many bytes to all: when each had them, in milliseconds since the order.
    pub(crate) async fn push(
        &mut self,
        bytes: usize,
        patience: Duration,
    ) -> anyhow::Result<Sample> {
        self.arrived().clear();
        let ordered = now();
        self.orders
            .write_all(format!("push {bytes}\n").as_bytes())
            .await?;
        let deadline = now() + patience;
        while self.arrived().len() < self.connections {
            ensure!(
                now() < deadline,
                "{} of {} had a bare push",
                self.arrived().len(),
                self.connections
            );
            sleep(Duration::from_millis(5)).await;
        }
        let since = |at: &Instant| at.saturating_duration_since(ordered).as_secs_f64() * 1e3;
        let sample = Sample::new(self.arrived().iter().map(since));
        Ok(sample)
    }

    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        self.readers.abort_all();
        Ok(self.child.kill().await?)
    }

    /// Waits until the pusher has all streams.
    async fn ordered(&mut self, order: &str, patience: Duration) -> anyhow::Result<()> {
        let deadline = now() + patience;
        loop {
            self.orders
                .write_all(format!("{order}\n").as_bytes())
                .await?;
            let answer = timeout(patience, self.answers.next_line()).await??;
            let count: usize = answer.context("the pusher has ended")?.parse()?;
            if count == self.connections {
                return Ok(());
            }
            ensure!(
                now() < deadline,
                "the pusher has {count} of {} streams",
                self.connections
            );
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn arrived(&self) -> std::sync::MutexGuard<'_, Vec<Instant>> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read(connection: Connection, arrived: Arc<Mutex<Vec<Instant>>>) -> anyhow::Result<()> {
    let (mut sender, mut receiver) = connection.open_stream::<Bulk, Bulk>().await?;
    // A stream appears at the other side with its first bytes.
    sender.send(&Bulk(Vec::new())).await?;
    while receiver.recv().await?.is_some() {
        let at = now();
        arrived
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(at);
    }
    Ok(())
}

/// The pusher itself, in a process of its own: `push BYTES` and `count` on its input.
pub(crate) async fn pusher() -> anyhow::Result<()> {
    let secret = ControllerSecret::generate(&mut OsRng);
    let listener = Listener::bind("127.0.0.1:0".parse()?, &secret)?;
    println!("{} {}", listener.local_addr()?, secret.public());
    let streams = Arc::new(Semaphore::new(0));
    let (orders, _) = watch::channel(Arc::new(Vec::new()));
    let orders = Arc::new(orders);
    tokio::spawn(accept(listener, Arc::clone(&orders), Arc::clone(&streams)));
    let (said, mut lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        let lines = std::io::stdin().lines().map_while(Result::ok);
        lines
            .map(|line| said.blocking_send(line))
            .all(|it| it.is_ok())
    });
    while let Some(line) = lines.recv().await {
        match line.strip_prefix("push ") {
            Some(bytes) => {
                let frame = wire::frame::encode(&Bulk(vec![7; bytes.parse()?]))?;
                orders.send_replace(Arc::new(frame));
            }
            None => println!("{}", streams.available_permits()),
        }
    }
    Ok(())
}

async fn accept(
    listener: Listener,
    orders: Arc<watch::Sender<Arc<Vec<u8>>>>,
    streams: Arc<Semaphore>,
) {
    while let Some(incoming) = listener.accept().await {
        let (mut orders, streams) = (orders.subscribe(), Arc::clone(&streams));
        tokio::spawn(async move {
            let connection = incoming.handshake().await?;
            let (mut sender, mut receiver) = connection.accept_stream::<Bulk, Bulk>().await?;
            receiver.recv().await?;
            streams.add_permits(1);
            while orders.changed().await.is_ok() {
                let bytes = Arc::clone(&orders.borrow_and_update());
                sender.send_encoded(&bytes).await?;
            }
            anyhow::Ok(())
        });
    }
}

/// Its word on the command line.
pub(crate) const PUSHER: &str = "bare-pusher";
const AT_ONCE: usize = 64;
const ATTEMPTS: u32 = 20;
