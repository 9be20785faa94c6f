//! One node as the controller sees it: it enrols, opens its session, holds every update against its history, the
//! log and its own secret, acknowledges it, submits signed evidence, and comes back when its connection is lost. It
//! has no tunnel, derives no PSK, and reports on no peers. All that it knows of the protocol is in this file.
//!
//! The file is long because all that a node says and hears is one conversation.

use crate::known::{Known, Update};
use crate::progress::{Counts, Slot, Stage, name_of};
use anyhow::{Context as _, bail, ensure};
use jiff::{SignedDuration, Timestamp};
use keys::{AuthorityId, ControllerId, MeshId, NodeSecret, SegmentId, TokenSecret, WgPublicKey};
use ledger::Hash;
use ledger::proof::check_consistency;
use quic::{Connection, Dialer, Receiver, RecvError, Sender};
use rand::Rng as _;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tests::harness::now;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, sleep_until, timeout};
use wire::endpoints::PlacesMark;
use wire::evidence::Benchmark;
use wire::frame::HEADER_LEN;
use wire::log::{LogEnd, LogNews};
use wire::message::{Again, Enrol, Hello, Phase, RefusedEvidence, Update as Pushed};
use wire::{Digest, Instance, Mark, NodeName, Place, Signed, ToController, ToNode};

/// Everything that all nodes of this process share.
pub(crate) struct World {
    /// The controller's address.
    pub(crate) address: SocketAddr,
    /// The controller's key.
    pub(crate) controller: ControllerId,
    /// The keys whose updates count.
    pub(crate) authorities: Vec<AuthorityId>,
    /// Updates that were verified here.
    pub(crate) known: Known,
    /// The messages that all nodes were told.
    pub(crate) counts: Counts,
    /// Bounds the handshakes that this process computes at a time: the nodes of a fleet have a processor each.
    pub(crate) dials: Semaphore,
    /// Between two runs of a node; `None`: none is submitted.
    pub(crate) evidence_every: watch::Receiver<Option<Duration>>,
}

/// An order to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Be a node.
    Serve,
    /// Keep the connection, and read nothing more from it.
    StopReading,
    /// Go.
    Leave,
}

/// A node.
pub(crate) struct Node {
    pub(crate) number: u32,
    pub(crate) name: NodeName,
    pub(crate) secret: NodeSecret,
    /// Buys its place.
    pub(crate) token: TokenSecret,
    pub(crate) wg: WgPublicKey,
    pub(crate) dialer: Dialer,
    pub(crate) world: Arc<World>,
    pub(crate) slot: Arc<Slot>,
    pub(crate) orders: watch::Receiver<Order>,
    pub(crate) memory: Memory,
}

/// The part of a node that outlives its connections.
#[derive(Default)]
pub(crate) struct Memory {
    /// Known since it enrolled.
    mesh: Option<MeshId>,
    /// The newest update that was taken, in force or not.
    newest: Option<Arc<Update>>,
    in_force: Option<Arc<Update>>,
    /// The newest updates that were taken, to build others on.
    held: Vec<Arc<Update>>,
    /// Up to where it was told of the endpoints of others.
    told: Vec<PlacesMark>,
    pending: Option<(Arc<Update>, Instant)>,
    /// The marks of both.
    marks: Vec<Signed<Mark>>,
    kept: Option<LogEnd>,
    has_asked: bool,
    evidence_at: Option<Instant>,
    runs: u64,
    put_off: u32,
}

type Heard = Result<Option<(ToNode, usize)>, RecvError>;

impl Node {
    /// Is a node until it is told to leave.
    pub(crate) async fn run(mut self) {
        let mut failures = 0;
        let mut orders = self.orders.clone();
        loop {
            let ended = tokio::select! {
                ended = self.once(&mut failures) => ended,
                _ = orders.wait_for(|order| *order == Order::Leave) => break,
            };
            let connection = self.slot.disconnected();
            if let Some(connection) = connection {
                let received = connection.received();
                self.world
                    .counts
                    .datagrams
                    .fetch_add(received, Ordering::Relaxed);
                connection.close("done");
            }
            if let Err(error) = ended {
                self.world.counts.lost(&error);
                // As nodes do: from 0.25 s, doubling to 10 s, each ±50 %.
                let pause = BACKOFF_FIRST
                    .saturating_mul(1 << failures.min(8))
                    .min(BACKOFF_MAX);
                failures += 1;
                sleep(pause.mul_f64(rand_core::OsRng.gen_range(0.5..1.5))).await;
            }
        }
        if let Some(connection) = self.slot.disconnected() {
            connection.close("leaving");
        }
    }

    async fn once(&mut self, failures: &mut u32) -> anyhow::Result<()> {
        let world = Arc::clone(&self.world);
        let permit = world.dials.acquire().await?;
        if self.memory.mesh.is_none() {
            let mesh = self.enrol().await?;
            self.memory.mesh = Some(mesh);
            self.slot.stage(Stage::Enrolled);
            *failures = 0;
        }
        let connection = self.dialer.connect(self.world.address).await?;
        let (mut sender, mut receiver) = connection.open_stream().await?;
        sender.send(&ToController::Hello(self.hello()?)).await?;
        let answer = self.answer(&mut receiver).await?;
        drop(permit);
        let ToNode::Welcome { places, .. } = answer else {
            bail!("out of turn: {}", name_of(&answer));
        };
        for place in &places {
            self.believe(place)?;
        }
        *failures = 0;
        self.slot.connected(connection.clone());
        self.acknowledge_again(&mut sender).await?;
        self.serve(&connection, sender, receiver).await
    }

    async fn enrol(&self) -> anyhow::Result<MeshId> {
        let connection = self.dialer.connect(self.world.address).await?;
        let (mut sender, mut receiver) = connection.open_stream().await?;
        let enrol = Enrol {
            token: TokenSecret::from_bytes(*self.token.expose()),
            name: Some(self.name.clone()),
            segments: vec![wire::Ask::unnamed(self.wg)],
            addresses: vec![self.machine()],
        };
        sender.send(&ToController::Enrol(enrol)).await?;
        let answer = self.answer(&mut receiver).await?;
        self.world
            .counts
            .datagrams
            .fetch_add(connection.received(), Ordering::Relaxed);
        connection.close("enrolled");
        match answer {
            ToNode::Enrolled(places) => {
                let place = places.first().context("no place")?;
                Ok(self.believe(place)?.mesh)
            }
            other => bail!("out of turn: {}", name_of(&other)),
        }
    }

    /// The first answer on a connection.
    async fn answer(&self, receiver: &mut Receiver<ToNode>) -> anyhow::Result<ToNode> {
        let answer = timeout(ANSWER_TIME, next(receiver))
            .await
            .context("no answer")??;
        let (answer, len) = answer.context("closed")?;
        self.world.counts.received(&answer, len);
        match answer {
            ToNode::Refused { reason } => {
                self.world.counts.refused(reason);
                Err(anyhow::Error::new(reason))
            }
            other => Ok(other),
        }
    }

    fn believe(&self, place: &Signed<Place>) -> anyhow::Result<Place> {
        let place = place.verify(&self.world.authorities)?;
        let is_mine = place.node == self.secret.public() && place.name == self.name;
        ensure!(is_mine, "the place of another node");
        Ok(Place::clone(&place))
    }

    /// The address that its machine has: on loopback alone, no peer could be told of it.
    fn machine(&self) -> IpAddr {
        let base = u32::from(Ipv4Addr::new(198, 18, 0, 1));
        Ipv4Addr::from(base + self.number).into()
    }

    fn hello(&self) -> anyhow::Result<Hello> {
        let mesh = self.memory.mesh.context("it is enrolled")?;
        let number = u64::from(self.number);
        let mut run = [0; 16];
        run[..8].copy_from_slice(&number.to_be_bytes());
        let in_force = self.memory.in_force.as_ref();
        let in_force = in_force.map(|it| it.verified.digest());
        let mut marks = self.memory.marks.iter();
        let newest = marks.find(|mark| {
            let mark = mark.verify(&self.world.authorities);
            mark.is_ok_and(|mark| Some(mark.update) == in_force)
        });
        let held = self.memory.held.iter();
        Ok(Hello {
            software: "swarm".into(),
            listen_port: 51_820,
            advertised: Vec::new(),
            addresses: vec![self.machine()],
            newest: newest.cloned().into_iter().collect(),
            holds: held.map(|it| it.verified.digest()).collect(),
            told: self.memory.told.clone(),
            log: self.memory.kept,
            unix_ms: Timestamp::now().as_millisecond().unsigned_abs(),
            instance: Instance::new(mesh, &format!("boot {number}"), Some((1, number)), run),
        })
    }

    async fn acknowledge_again(&self, sender: &mut Sender<ToController>) -> anyhow::Result<()> {
        if let Some(update) = &self.memory.in_force {
            self.acknowledge(sender, update, self.phase_in(update))
                .await?;
        }
        if let Some((update, _)) = &self.memory.pending {
            self.acknowledge(sender, update, Phase::Installed).await?;
        }
        Ok(())
    }

    async fn serve(
        &mut self,
        connection: &Connection,
        mut sender: Sender<ToController>,
        receiver: Receiver<ToNode>,
    ) -> anyhow::Result<()> {
        // A half-read frame is never abandoned: the reading goes on where the other branches left it.
        let mut hearing = Box::pin(hear(receiver));
        let mut lost = std::pin::pin!(connection.closed());
        let mut orders = self.orders.clone();
        loop {
            let reads = *orders.borrow_and_update() != Order::StopReading;
            let due = self.due();
            tokio::select! {
                (heard, receiver) = &mut hearing, if reads => {
                    let at = now();
                    hearing.set(hear(receiver));
                    let (message, len) = heard?.context("closed")?;
                    self.world.counts.received(&message, len);
                    self.handle(message, &mut sender, at).await?;
                }
                () = sleep_until(due.into()) => self.handle_timeout(&mut sender).await?,
                lost = &mut lost => return Err(lost.into()),
                changed = orders.changed() => changed?,
            }
        }
    }

    async fn handle(
        &mut self,
        message: ToNode,
        sender: &mut Sender<ToController>,
        at: Instant,
    ) -> anyhow::Result<()> {
        match message {
            ToNode::Update(pushed) => {
                let trusted = &self.world.authorities;
                let update = self.world.known.update(pushed.signed.clone(), trusted);
                let taken = match update {
                    Ok(update) => self.update(update, pushed, sender, at).await,
                    Err(error) => Err(error.into()),
                };
                self.judge(taken)?;
            }
            ToNode::Changes(changed) => {
                let (known, trusted) = (&self.world.known, &self.world.authorities);
                match known.changed(&changed.changes, &self.memory.held, trusted) {
                    Ok(update) => {
                        let pushed = changed.with(update.signed.clone());
                        let taken = self.update(update, pushed, sender, at).await;
                        self.judge(taken)?;
                    }
                    Err(_) => {
                        self.world.counts.whole.fetch_add(1, Ordering::Relaxed);
                        self.witness(&changed.mark, &changed.log, sender).await?;
                        sender.send(&ToController::Whole).await?;
                    }
                }
            }
            ToNode::Endpoints { entries, mark } => {
                self.world.known.places(&entries)?;
                self.memory.told.splice(.., mark);
            }
            ToNode::EvidenceResult { refused, .. } => self.answered(refused),
            ToNode::RollCall => sender.send(&ToController::Present).await?,
            ToNode::Refused { reason } => {
                self.world.counts.refused(reason);
                return Err(reason.into());
            }
            ToNode::Duplicate(duplicate) => bail!("{duplicate}"),
            ToNode::Enrolled(_)
            | ToNode::Welcome { .. }
            | ToNode::Placed(_)
            | ToNode::NotPlaced { .. }
            | ToNode::Invited { .. }
            | ToNode::Left { .. }
            | ToNode::Seen { .. }
            | ToNode::Ways { .. }
            | ToNode::Waiting { .. }
            | ToNode::Authorities { .. } => {}
        }
        Ok(())
    }

    /// An update that is not taken is a fault of the controller; a lost connection is none.
    fn judge(&self, taken: anyhow::Result<()>) -> anyhow::Result<()> {
        match taken {
            Err(error) if error.is::<quic::SendError>() => Err(error),
            Err(error) => {
                self.world.counts.fault(&self.name, &error);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Verify, install, and activate if it is time.
    async fn update(
        &mut self,
        update: Arc<Update>,
        pushed: Pushed,
        sender: &mut Sender<ToController>,
        at: Instant,
    ) -> anyhow::Result<()> {
        let verified = &update.verified;
        let is_ours =
            Some(verified.mesh) == self.memory.mesh && verified.segment == SegmentId::FIRST;
        ensure!(is_ours, "an update of another mesh or segment");
        if !self.witness(&pushed.mark, &pushed.log, sender).await? {
            return Ok(());
        }
        self.slot.arrived(verified.epoch, at);
        if !self.is_news(&update)? {
            return Ok(());
        }
        if let Some(own) = verified.member(&self.secret.public()) {
            ensure!(own.wg == self.wg, "the roster has another WireGuard key");
            let secret = pushed.secret.context("an update without its secret")?;
            let fits = secret.commitment() == verified.commitment;
            ensure!(fits, "a secret that does not fit its commitment");
        }
        self.memory.marks.truncate(1);
        self.memory.marks.insert(0, pushed.mark);
        let age = Duration::from_millis(pushed.age_ms);
        let activate_at = at + verified.activate_in().saturating_sub(age);
        // That it is in force says so too.
        if activate_at > now() {
            self.acknowledge(sender, &update, Phase::Installed).await?;
        }
        self.slot.installed(verified.epoch, now());
        self.memory.newest = Some(Arc::clone(&update));
        if self.memory.held.len() >= HELD {
            self.memory.held.remove(0);
        }
        self.memory.held.push(Arc::clone(&update));
        self.memory.pending = Some((update, activate_at));
        // The first run of a benchmark answers to the first update.
        self.memory.evidence_at.get_or_insert(at);
        self.activate(sender).await
    }

    /// As the member machine of crate `epoch` has it.
    fn is_news(&self, update: &Update) -> anyhow::Result<bool> {
        let Some(newest) = &self.memory.newest else {
            return Ok(true);
        };
        let (have, got) = (newest.verified.epoch, update.verified.epoch);
        let same = newest.verified.digest() == update.verified.digest();
        let in_force = self.memory.in_force.as_ref();
        if same || in_force.is_some_and(|it| it.verified.digest() == update.verified.digest()) {
            return Ok(false);
        }
        if got < have {
            // An update that is sent once more, on demand, may be older than the one on its way.
            self.world.counts.older.fetch_add(1, Ordering::Relaxed);
            return Ok(false);
        }
        ensure!(got > have, "two updates for epoch {got}");
        let continues = update.verified.previous == newest.verified.digest();
        ensure!(
            got > have.next() || continues,
            "epoch {got} forks the history"
        );
        Ok(true)
    }

    /// Holds the log that comes with an update against the one that was seen; whether the update counts.
    async fn witness(
        &mut self,
        mark: &Signed<Mark>,
        news: &LogNews,
        sender: &mut Sender<ToController>,
    ) -> anyhow::Result<bool> {
        let (known, trusted) = (&self.world.known, &self.world.authorities);
        let end = known.end(mark, &news.checkpoint, trusted)?;
        if let Some(kept) = self.memory.kept {
            if news.from != kept.events {
                // An update in between was dropped for a slow reader. Those that are on their way until the answer
                // comes are proved from elsewhere too.
                self.world.counts.unproven.fetch_add(1, Ordering::Relaxed);
                if !std::mem::replace(&mut self.memory.has_asked, true) {
                    sender.send(&ToController::Kept { log: kept }).await?;
                }
                return Ok(false);
            }
            let proof: Vec<Hash> = news.proof.iter().copied().map(Hash).collect();
            let of = |end: &LogEnd| (end.events, Hash(end.root.0));
            check_consistency(of(&kept), of(&end), &proof)?;
        }
        self.memory.has_asked = false;
        self.memory.kept = Some(end);
        Ok(true)
    }

    async fn activate(&mut self, sender: &mut Sender<ToController>) -> anyhow::Result<()> {
        let due = self.memory.pending.take_if(|(_, at)| *at <= now());
        let Some((update, _)) = due else {
            return Ok(());
        };
        let phase = self.phase_in(&update);
        self.acknowledge(sender, &update, phase).await?;
        self.slot
            .activated(update.verified.epoch, phase == Phase::Activated, now());
        self.memory.in_force = Some(update);
        Ok(())
    }

    fn phase_in(&self, update: &Update) -> Phase {
        match update.verified.member(&self.secret.public()) {
            Some(_) => Phase::Activated,
            None => Phase::Dark,
        }
    }

    async fn acknowledge(
        &self,
        sender: &mut Sender<ToController>,
        update: &Update,
        phase: Phase,
    ) -> anyhow::Result<()> {
        let epoch = update.verified.epoch;
        let ack = ToController::Ack {
            segment: update.verified.segment,
            epoch,
            phase,
        };
        Ok(sender.send(&ack).await?)
    }

    /// When [`Self::handle_timeout`] is due.
    fn due(&self) -> Instant {
        let pending = self.memory.pending.as_ref().map(|(_, at)| *at);
        let due = [pending, self.memory.evidence_at]
            .into_iter()
            .flatten()
            .min();
        due.unwrap_or_else(|| now() + Duration::from_secs(3_600))
    }

    async fn handle_timeout(&mut self, sender: &mut Sender<ToController>) -> anyhow::Result<()> {
        self.activate(sender).await?;
        let at = now();
        if self.memory.evidence_at.is_none_or(|due| due > at) {
            return Ok(());
        }
        let every = *self.world.evidence_every.borrow();
        let Some(every) = every else {
            self.memory.evidence_at = Some(at + PAUSE);
            return Ok(());
        };
        let is_first = self.memory.runs == 0;
        let envelope = self.evidence()?;
        sender.send(&ToController::Evidence { envelope }).await?;
        self.world.counts.submitted.fetch_add(1, Ordering::Relaxed);
        // Nodes that joined together do not go on in step.
        let spread = if is_first {
            rand_core::OsRng.gen_range(0.1..1.0)
        } else {
            1.0
        };
        self.memory.evidence_at = Some(at + every.mul_f64(spread));
        Ok(())
    }

    fn evidence(&mut self) -> anyhow::Result<Vec<u8>> {
        let mesh = self.memory.mesh.context("it is enrolled")?;
        let challenge = self.memory.newest.as_ref().map(|it| it.verified.digest());
        self.memory.runs += 1;
        let mut nonce = [0; 16];
        rand_core::OsRng.fill(&mut nonce);
        let run = run(u128::from_be_bytes(nonce), Timestamp::now());
        let run = run.bound_to(mesh, challenge);
        Ok(run.attest_self(self.name.as_str(), &self.secret)?)
    }

    /// The controller's word on evidence.
    fn answered(&mut self, refused: Option<RefusedEvidence>) {
        let Some(refused) = refused else {
            self.memory.put_off = 0;
            self.world.counts.accepted.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if refused.again == Again::Never {
            let error = anyhow::anyhow!("evidence is refused: {}", refused.reason);
            self.world.counts.fault(&self.name, &error);
            return;
        }
        self.world.counts.put_off(&refused.reason);
        // As nodes do: after 2 s, then after twice as long each time, up to 60 s.
        let pause =
            Duration::from_secs(2 << self.memory.put_off.min(5)).min(Duration::from_secs(60));
        self.memory.put_off += 1;
        self.memory.evidence_at =
            Some(now() + pause.mul_f64(rand_core::OsRng.gen_range(0.75..1.25)));
    }
}

/// The next message and the bytes of its frame.
async fn next(receiver: &mut Receiver<ToNode>) -> Heard {
    let Some(header) = receiver.header().await? else {
        return Ok(None);
    };
    Ok(Some((
        receiver.payload(header).await?,
        HEADER_LEN + header.len,
    )))
}

async fn hear(mut receiver: Receiver<ToNode>) -> (Heard, Receiver<ToNode>) {
    let heard = next(&mut receiver).await;
    (heard, receiver)
}

/// A run of the size that runs of real harnesses have.
fn run(nonce: u128, finished: Timestamp) -> Benchmark {
    let score = 0.8 + (nonce % 1_000) as f64 / 10_000.0;
    let metrics = [
        ("refusals/accuracy", score),
        ("refusals/stderr", 0.012),
        ("tool_use/accuracy", score - 0.03),
    ];
    Benchmark {
        harness: "inspect".into(),
        suite: "agent-safety".into(),
        suite_version: "3".into(),
        harness_version: Some("0.3.285".into()),
        model: Some("vendor/model-2026-10".into()),
        metrics: BTreeMap::from(metrics.map(|(name, value)| (name.to_owned(), value))),
        lower_is_better: BTreeSet::new(),
        overall: Some(score),
        samples_total: 250,
        samples_completed: 250,
        started_at: finished
            .checked_sub(SignedDuration::from_secs(20))
            .unwrap_or(finished),
        finished_at: finished,
        nonce: format!("{nonce:032x}"),
        log_digest: Some(Digest([7; 32]).to_string()),
        mesh: None,
        challenge: None,
    }
}

const ANSWER_TIME: Duration = Duration::from_secs(10);
const BACKOFF_FIRST: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Until a node looks again whether evidence is wanted.
const PAUSE: Duration = Duration::from_secs(1);
/// As an agent does.
const HELD: usize = 4;
