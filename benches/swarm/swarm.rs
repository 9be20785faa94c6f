//! A controller and its nodes: starts them, waits for them, gives them orders.

use crate::args::Args;
use crate::controller::Controller;
use crate::known::Known;
use crate::node::{Memory, Node, Order, World};
use crate::progress::{Counts, Progress, Slot, Stage};
use crate::stats::Sample;
use anyhow::{Context as _, bail, ensure};
use keys::{NodeSecret, TokenSecret, WgSecret};
use quic::Dialer;
use rand_core::OsRng;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tests::harness::now;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use wire::NodeName;

/// All of it. Dropped, the nodes and the controller end.
pub(crate) struct Swarm {
    pub(crate) controller: Controller,
    pub(crate) world: Arc<World>,
    pub(crate) members: Vec<Member>,
    evidence: watch::Sender<Option<Duration>>,
    sockets: Vec<Dialer>,
    share: usize,
    /// After a join the next one is due within its batch.
    quiet: Duration,
    made: usize,
    /// Buys the next places.
    token: TokenSecret,
}

/// A node as its swarm holds it.
pub(crate) struct Member {
    pub(crate) name: NodeName,
    pub(crate) slot: Arc<Slot>,
    orders: watch::Sender<Order>,
    task: JoinHandle<()>,
}

/// The use of the machine and of the network up to a moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meter {
    at: Instant,
    used: Duration,
    frames: u64,
    datagrams: u64,
}

/// The same between two moments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    pub(crate) time: Duration,
    /// Processor time of the controller.
    pub(crate) used: Duration,
    /// Bytes of frames that nodes received.
    pub(crate) frames: u64,
    /// Bytes of UDP payload that nodes received.
    pub(crate) datagrams: u64,
}

/// An epoch's times at every node since the order, in milliseconds.
pub(crate) struct Times {
    /// The whole update was there.
    pub(crate) arrived: Sample,
    /// It was verified, installed, and its acknowledgement was handed to QUIC.
    pub(crate) acknowledged: Sample,
}

impl Member {
    pub(crate) fn order(&self, order: Order) {
        self.orders.send_replace(order);
    }
}

impl Swarm {
    /// A controller without nodes.
    pub(crate) async fn found(args: &Args) -> anyhow::Result<Self> {
        let controller = Controller::found(args.epoch_seconds).await?;
        let token = controller.token(TOKEN_USES).await?;
        let (evidence, evidence_every) = watch::channel(Some(args.evidence_every));
        let world = World {
            address: controller.address,
            controller: token.controller,
            authorities: token.authorities.clone(),
            known: Known::new(args.each),
            counts: Counts::default(),
            dials: Semaphore::new(args.dials),
            evidence_every,
        };
        Ok(Self {
            controller,
            world: Arc::new(world),
            members: Vec::new(),
            evidence,
            sockets: Vec::new(),
            share: args.share,
            quiet: args.pause,
            made: 0,
            token: token.secret,
        })
    }

    /// Adds nodes, which begin at once.
    pub(crate) async fn add(&mut self, nodes: usize) -> anyhow::Result<()> {
        for _ in 0..nodes {
            let number = self.made;
            self.made += 1;
            if number > 0 && number.is_multiple_of(TOKEN_USES) {
                self.token = self.controller.token(TOKEN_USES).await?.secret;
            }
            let secret = NodeSecret::generate(&mut OsRng);
            let dialer = self.dialer(number, &secret)?;
            let (orders, heard) = watch::channel(Order::Serve);
            let name: NodeName = format!("node-{number:05}").parse()?;
            let slot = Arc::new(Slot::default());
            let node = Node {
                number: u32::try_from(number)?,
                name: name.clone(),
                secret,
                token: TokenSecret::from_bytes(*self.token.expose()),
                wg: WgSecret::generate(&mut OsRng).public(),
                dialer,
                world: Arc::clone(&self.world),
                slot: Arc::clone(&slot),
                orders: heard,
                memory: Memory::default(),
            };
            let task = tokio::spawn(node.run());
            self.members.push(Member {
                name,
                slot,
                orders,
                task,
            });
        }
        Ok(())
    }

    /// A key on the socket of its address. Nodes that share an address share its socket.
    pub(crate) fn dialer(&mut self, number: usize, secret: &NodeSecret) -> anyhow::Result<Dialer> {
        let group = number / self.share;
        if let Some(socket) = self.sockets.get(group) {
            return Ok(socket.beside(secret, self.world.controller));
        }
        let base = u32::from(Ipv4Addr::new(127, 1, 0, 0));
        let source = Ipv4Addr::from(base + u32::try_from(group)?);
        let source = SocketAddr::from((source, 0));
        let socket = Dialer::bind_to(source, secret, self.world.controller)?;
        let dialer = socket.beside(secret, self.world.controller);
        self.sockets.push(socket);
        Ok(dialer)
    }

    /// Whether nodes submit evidence, and how often.
    pub(crate) fn evidence(&self, every: Option<Duration>) {
        self.evidence.send_replace(every);
    }

    /// How many nodes there are for which `is` holds.
    pub(crate) fn count(&self, is: impl Fn(&Progress) -> bool) -> usize {
        let members = self.members.iter();
        members.filter(|member| is(&member.slot.progress())).count()
    }

    /// The newest epoch that is in force anywhere.
    pub(crate) fn newest(&self) -> u64 {
        let members = self.members.iter();
        let epochs = members.filter_map(|it| it.slot.progress().activated);
        epochs.map(|(epoch, _)| epoch).max().unwrap_or_default()
    }

    /// Waits until `is` holds for all nodes.
    pub(crate) async fn all(
        &mut self,
        what: &str,
        patience: Duration,
        is: impl Fn(&Progress) -> bool,
    ) -> anyhow::Result<()> {
        let begun = now();
        let mut told = begun;
        loop {
            let done = self.count(&is);
            if done == self.members.len() {
                return Ok(());
            }
            if self.controller.has_ended() {
                bail!("the controller has ended: {}", self.controller.said());
            }
            self.faultless()?;
            if now() > begun + patience {
                bail!(
                    "{done} of {} nodes {what} after {} s\n{}\ncontroller: {}",
                    self.members.len(),
                    patience.as_secs(),
                    self.world.counts.summary(),
                    self.controller.said()
                );
            }
            if now() > told + Duration::from_secs(10) {
                told = now();
                let (enrolled, connected, members) = (
                    self.count(|it| it.stage != Stage::Unknown),
                    self.count(|it| it.stage == Stage::Connected),
                    self.count(|it| it.is_member),
                );
                let memory = self.controller.memory();
                println!(
                    "  {:.0} s: {done} {what}; {enrolled} enrolled, {connected} connected, {members} members; \
                     epoch {}; controller {:.1} s of processor, {} MB",
                    begun.elapsed().as_secs_f64(),
                    self.newest(),
                    self.controller.used().as_secs_f64(),
                    memory.now / 1_000_000
                );
            }
            sleep(LOOK).await;
        }
    }

    /// Waits until every node is connected and a member of one epoch, the newest; returns its number.
    pub(crate) async fn settled(&mut self, patience: Duration) -> anyhow::Result<u64> {
        let deadline = now() + patience;
        loop {
            let left = deadline.saturating_duration_since(now());
            let is_member = |it: &Progress| it.stage == Stage::Connected && it.is_member;
            self.all("are members", left, is_member).await?;
            let newest = self.newest();
            let current = |it: &Progress| it.activated.is_some_and(|(epoch, _)| epoch == newest);
            if self.count(current) == self.members.len() {
                return Ok(newest);
            }
            ensure!(now() < deadline, "the nodes do not agree on an epoch");
            sleep(LOOK).await;
        }
    }

    /// Waits until no epoch has come for so long; all nodes are members of the newest then.
    pub(crate) async fn quiet(&mut self, patience: Duration) -> anyhow::Result<u64> {
        let deadline = now() + patience;
        loop {
            let before = self.settled(patience).await?;
            sleep(self.quiet).await;
            if self.settled(patience).await? == before {
                return Ok(before);
            }
            ensure!(now() < deadline, "one epoch comes after the other");
        }
    }

    /// An epoch by an operator's order: how long after it each node of `of` had it.
    pub(crate) async fn rotate(
        &mut self,
        of: impl Fn(usize) -> bool,
        patience: Duration,
    ) -> anyhow::Result<(u64, Times)> {
        let ordered = now();
        let change = self.controller.rotate().await?;
        let times = self.times(change.epoch, ordered, of, patience).await?;
        Ok((change.epoch, times))
    }

    /// How long after `ordered` each node of `of` had `epoch` or a newer one.
    pub(crate) async fn times(
        &mut self,
        epoch: u64,
        ordered: Instant,
        of: impl Fn(usize) -> bool,
        patience: Duration,
    ) -> anyhow::Result<Times> {
        let deadline = now() + patience;
        loop {
            let mut arrived = Vec::new();
            let mut acknowledged = Vec::new();
            let mut asked = 0;
            for (number, member) in self.members.iter().enumerate() {
                if !of(number) {
                    continue;
                }
                asked += 1;
                let progress = member.slot.progress();
                let since = |at: Instant| at.saturating_duration_since(ordered).as_secs_f64() * 1e3;
                let had = |step: Option<(u64, Instant)>| step.filter(|(it, _)| *it >= epoch);
                if let (Some((_, a)), Some((_, b))) =
                    (had(progress.arrived), had(progress.activated))
                {
                    arrived.push(since(a));
                    acknowledged.push(since(b));
                }
            }
            if acknowledged.len() == asked {
                return Ok(Times {
                    arrived: Sample::new(arrived),
                    acknowledged: Sample::new(acknowledged),
                });
            }
            self.faultless()?;
            ensure!(
                now() < deadline,
                "{} of {asked} nodes have epoch {epoch}\n{}\ncontroller: {}",
                acknowledged.len(),
                self.world.counts.summary(),
                self.controller.said()
            );
            sleep(LOOK).await;
        }
    }

    /// Nothing has happened that must not.
    pub(crate) fn faultless(&self) -> anyhow::Result<()> {
        let faults = self.world.counts.faults();
        ensure!(faults.is_empty(), "faults:\n{}", faults.join("\n"));
        Ok(())
    }

    pub(crate) fn meter(&self) -> Meter {
        let counts = &self.world.counts;
        let live = self.members.iter().map(|member| {
            let progress = member.slot.progress();
            progress
                .connection
                .as_ref()
                .map_or(0, quic::Connection::received)
        });
        Meter {
            at: now(),
            used: self.controller.used(),
            frames: counts.frames.load(Ordering::Relaxed),
            datagrams: counts.datagrams.load(Ordering::Relaxed) + live.sum::<u64>(),
        }
    }

    pub(crate) fn spent(&self, since: &Meter) -> Spent {
        let upto = self.meter();
        Spent {
            time: upto.at.saturating_duration_since(since.at),
            used: upto.used.saturating_sub(since.used),
            frames: upto.frames - since.frames,
            datagrams: upto.datagrams.saturating_sub(since.datagrams),
        }
    }

    /// Takes a node out: it leaves, and its place in this list is another's.
    pub(crate) async fn leave(&mut self, number: usize) -> anyhow::Result<()> {
        let member = self.members.swap_remove(number);
        member.order(Order::Leave);
        member.task.await.context("a node panicked")
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        self.members.iter().for_each(|member| member.task.abort());
    }
}

/// The most that a token admits.
const TOKEN_USES: usize = 1_000;
const LOOK: Duration = Duration::from_millis(20);
