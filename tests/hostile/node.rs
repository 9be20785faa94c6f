//! A node with an agenda: enrols like any other, earns its membership, exchanges packets and records
//! everything; from the moment that an update excludes it, it goes on as if it had not heard.
//!
//! It runs on a thread inside a namespace, on the same crates as a real node: its machine is
//! [`agent::Agent`], its data plane is [`tunnel::Tunnel`]. Its differences are here and in
//! `arsenal.rs`: it carries out nothing that excludes it, never discards and never closes. When it is
//! readmitted, it begins anew and keeps its tunnel of before as a relic.
//!
//! The file is long because all that it does, it does from one loop.

use crate::arsenal::{Arsenal, Known, Scope, Shot, by_udp, seal, seal_to, tunnel_of};
use crate::control::{self, Session};
use crate::packets::{echo, is_data, is_response, udp};
use crate::witness::inside;
use agent::{Agent, DataChange, Effect, SegmentConfig, SessionEvent};
use anyhow::{Context as _, anyhow, bail};
use epoch::member::HighWater;
use epoch::{Install, PeerPlan, Turn};
use keys::{Epoch, EpochSecret, NodeId, NodeSecret, WgSecret};
use quic::Dialer;
use rand_core::OsRng;
use rustix::time::{ClockId, clock_gettime};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tunnel::{Event, Inbound, LoneTunnel};
use wire::log::LogNews;
use wire::message::Update;
use wire::{Digest, EpochUpdate, Mark, Signed, ToController, ToNode, Token};

/// Boot time, as the daemons have it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock;

impl Clock {
    pub(crate) fn now(self) -> Duration {
        let time = clock_gettime(ClockId::Boottime);
        let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
        Duration::new(time.tv_sec.unsigned_abs(), nanos)
    }

    fn moment(self) -> agent::Now {
        agent::Now {
            boot: self.now(),
            wall: jiff::Timestamp::now(),
        }
    }
}

/// Counts of the hostile node's own doings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Count {
    /// Transport data on sessions that it has.
    LiveData,
    /// Transport data under other receiver indices.
    ForgedIndex,
    /// Handshake messages.
    Handshake,
    /// Initiations under other sender indices.
    ForgedTag,
    /// Datagrams sent once more.
    Replay,
    /// Inner packets that it was sent and could open.
    Delivered,
    /// Handshakes that it completed.
    Completed,
    /// Handshake responses and transport data that came to its sockets.
    Answers,
    /// Transport data on sessions of an earlier membership.
    OldSession,
    /// Inner packets that came on sessions of an earlier membership.
    OldDelivered,
    /// Handshake responses that came to its sockets.
    Responses,
    /// Times that it had read everything that had come.
    Rounds,
    /// Datagrams inside its tunnel.
    Nested,
    /// Packets to addresses that are not a survivor's in the mesh.
    Strayed,
}

/// The use of its time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Conduct {
    /// The duties of a member.
    #[default]
    Member,
    /// The whole arsenal.
    Attack,
    /// Nothing at all, not even handshakes.
    Silent,
    /// Nothing but what it has of earlier memberships.
    Haunt,
    /// Datagrams inside its tunnel to the very tunnel that they come through.
    Nest,
    /// Packets to where a member has no business to send.
    Stray,
}

/// An update as it came, kept for later.
#[derive(Clone)]
pub(crate) struct RecordedUpdate {
    pub(crate) update: EpochUpdate,
    pub(crate) signed: Signed<EpochUpdate>,
    pub(crate) secret: Option<[u8; 32]>,
    pub(crate) mark: Signed<Mark>,
    pub(crate) log: LogNews,
}

impl RecordedUpdate {
    /// The same, as it was sent.
    pub(crate) fn again(&self) -> Update {
        Update {
            signed: self.signed.clone(),
            secret: self.secret.map(EpochSecret::from_bytes),
            age_ms: 0,
            mark: self.mark.clone(),
            log: self.log.clone(),
        }
    }
}

/// The running node, from outside.
pub(crate) struct Hostile {
    pub(crate) scope: Scope,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

/// The common state of thread and handle.
#[derive(Default)]
pub(crate) struct Shared {
    counts: Mutex<BTreeMap<Count, u64>>,
    updates: Mutex<Vec<RecordedUpdate>>,
    pub(crate) score: Mutex<f64>,
    conduct: Mutex<Conduct>,
    stopping: AtomicU64,
}

impl Hostile {
    /// Enrols with `token` from within `netns` and begins as a model member with the given score.
    pub(crate) fn start(netns: &Path, token: Token, score: f64) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared::default());
        *shared.score.lock().expect("no holder panics") = score;
        let (told, place) = std::sync::mpsc::channel();
        let (of_thread, netns) = (shared.clone(), netns.to_owned());
        let thread = std::thread::spawn(move || {
            inside(&netns, move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                runtime.block_on(live(token, of_thread, told))
            })?
        });
        match place.recv_timeout(PATIENCE) {
            Ok(scope) => Ok(Self {
                scope,
                shared,
                thread: Some(thread),
            }),
            Err(_) if thread.is_finished() => Err(thread
                .join()
                .map_err(|_| anyhow!("the hostile node panicked"))?
                .err()
                .context("the hostile node ended")?),
            Err(_) => bail!("the hostile node was not enrolled in time"),
        }
    }

    /// How often something has happened so far.
    pub(crate) fn count(&self, of: Count) -> u64 {
        self.shared
            .counts
            .lock()
            .expect("no holder panics")
            .get(&of)
            .copied()
            .unwrap_or(0)
    }

    /// The updates that it was sent, oldest first.
    pub(crate) fn updates(&self) -> Vec<RecordedUpdate> {
        self.shared
            .updates
            .lock()
            .expect("no holder panics")
            .clone()
    }

    /// Sets the score of its next evidence.
    pub(crate) fn set_score(&self, score: f64) {
        *self.shared.score.lock().expect("no holder panics") = score;
    }

    /// Sets its conduct from here on.
    pub(crate) fn set_conduct(&self, conduct: Conduct) {
        *self.shared.conduct.lock().expect("no holder panics") = conduct;
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&self) -> bool {
        self.thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
    }

    /// Ends it; an error if it has ended by itself.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        self.end()
    }

    fn end(&mut self) -> anyhow::Result<()> {
        self.shared.stopping.store(1, Ordering::SeqCst);
        match self.thread.take() {
            Some(thread) => thread
                .join()
                .map_err(|_| anyhow!("the hostile node panicked"))?,
            None => Ok(()),
        }
    }
}

impl Shared {
    fn conduct(&self) -> Conduct {
        *self.conduct.lock().expect("no holder panics")
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// Enrols and then runs until it is told to stop.
async fn live(
    token: Token,
    shared: Arc<Shared>,
    told: std::sync::mpsc::Sender<Scope>,
) -> anyhow::Result<()> {
    let (identity, wg) = (
        NodeSecret::generate(&mut OsRng),
        WgSecret::generate(&mut OsRng),
    );
    let dialer = Dialer::bind(&identity, token.controller)?;
    let controller: SocketAddr = token.controllers[0].parse().context("controller address")?;
    let place = control::enrol(&dialer, controller, &token, &wg)
        .await
        .context("enrolment")?;
    let scope = Scope {
        node: identity.public(),
        place,
    };
    let sockets = [
        UdpSocket::bind("[::]:0").await?,
        UdpSocket::bind("[::]:0").await?,
    ];
    let (to_loop, inbox) = mpsc::channel(64);
    let introduction = control::Introduction {
        listen_port: sockets[0].local_addr()?.port(),
        authorities: token.authorities.clone(),
    };
    let control = control::keep(dialer, controller, introduction, to_loop);
    let control = tokio::spawn(control);
    let agent = Agent::new(agent::Config {
        identity,
        name: scope.place.name.clone(),
        mesh: scope.place.mesh,
        authorities: token.authorities.clone(),
        segments: vec![SegmentConfig {
            place: scope.place.clone(),
            wg: wg.duplicate(),
            high_water: HighWater::default(),
            mark: None,
        }],
        asks: Vec::new(),
        log: None,
        seen: Vec::new(),
        derive_at_once: epoch::DERIVE_AT_ONCE,
    });
    let _ = told.send(scope.clone());
    let result = Life {
        tunnel: tunnel_of(&wg, &scope.place, 1),
        arsenal: Arsenal::new(scope, wg),
        authorities: token.authorities,
        agent,
        outbox: None,
        said: None,
        endpoints: HashMap::new(),
        newest: Epoch(0),
        excluded: false,
        relics: Vec::new(),
        sequence: 0,
        sockets,
        shared,
    };
    let result = result.run(inbox).await;
    control.abort();
    result
}

/// The loop's state.
struct Life {
    tunnel: LoneTunnel,
    arsenal: Arsenal,
    authorities: Vec<keys::AuthorityId>,
    agent: Agent,
    /// The way to the controller, while there is one.
    outbox: Option<mpsc::Sender<ToController>>,
    /// The score that it said last.
    said: Option<f64>,
    endpoints: HashMap<NodeId, SocketAddr>,
    newest: Epoch,
    /// Whether the newest update leaves it out.
    excluded: bool,
    /// Its tunnels of earlier memberships.
    relics: Vec<LoneTunnel>,
    sequence: u16,
    sockets: [UdpSocket; 2],
    shared: Arc<Shared>,
}

impl Life {
    async fn run(mut self, mut inbox: mpsc::Receiver<Session>) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(TICK);
        while self.shared.stopping.load(Ordering::SeqCst) == 0 {
            tokio::select! {
                Some(session) = inbox.recv() => self.session(session)?,
                ready = self.sockets[0].readable() => ready.map(|()| self.drain(0))?,
                ready = self.sockets[1].readable() => ready.map(|()| self.drain(1))?,
                _ = ticks.tick() => self.tick(),
            }
            self.agent.handle_timeout(Clock.moment());
            self.carry_out();
            self.flush();
        }
        Ok(())
    }

    fn session(&mut self, session: Session) -> anyhow::Result<()> {
        let event = match session {
            Session::Up { event, outbox } => {
                self.outbox = Some(outbox);
                event
            }
            Session::Heard(event) => event,
        };
        if let SessionEvent::Message(message) = &event {
            self.message(message)?;
        }
        self.agent.handle_session(event, Clock.moment());
        Ok(())
    }

    /// Keeps its own share of a message, besides what its agent makes of it.
    fn message(&mut self, message: &ToNode) -> anyhow::Result<()> {
        match message {
            ToNode::Update(update) => self.record_update(update),
            ToNode::Changes(changed) => {
                let whole = {
                    let updates = self.shared.updates.lock().expect("no holder panics");
                    let find = |digest: &Digest| {
                        let found = updates.iter().find(|it| it.signed.digest() == *digest);
                        found.map(|it| &it.update)
                    };
                    changed.changes.apply(find)?
                };
                let secret = changed.secret.as_ref();
                self.record_update(&Update {
                    signed: whole,
                    secret: secret.map(|it| keys::EpochSecret::from_bytes(*it.expose())),
                    age_ms: changed.age_ms,
                    mark: changed.mark.clone(),
                    log: changed.log.clone(),
                })
            }
            ToNode::Endpoints { entries, .. } => {
                for (node, endpoints) in entries.decode()? {
                    self.endpoints
                        .extend(endpoints.first().map(|first| (node, *first)));
                }
                self.place_peers();
                Ok(())
            }
            ToNode::EvidenceResult {
                refused: Some(refused),
                ..
            } if !refused.reason.contains("evicted") => {
                bail!("evidence refused: {}", refused.reason)
            }
            _ => Ok(()),
        }
    }

    fn record_update(&mut self, update: &Update) -> anyhow::Result<()> {
        let verified = update.signed.verify(&self.authorities)?;
        let secret = update.secret.as_ref().map(|secret| *secret.expose());
        self.newest = self.newest.max(verified.epoch);
        let recorded = RecordedUpdate {
            update: (*verified).clone(),
            signed: update.signed.clone(),
            secret,
            mark: update.mark.clone(),
            log: update.log.clone(),
        };
        self.shared
            .updates
            .lock()
            .expect("no holder panics")
            .push(recorded);
        let Some(secret) = secret else {
            self.excluded = true;
            return Ok(());
        };
        if std::mem::take(&mut self.excluded) && !self.arsenal.known.is_empty() {
            let anew = tunnel_of(&self.arsenal.wg, &self.arsenal.scope.place, 2);
            self.relics.push(std::mem::replace(&mut self.tunnel, anew));
        }
        self.arsenal.secrets.insert(0, (verified.epoch, secret));
        Ok(())
    }

    fn carry_out(&mut self) {
        while let Some(effect) = self.agent.poll_effect() {
            match effect {
                Effect::Data(_, change) => self.change(change),
                Effect::Send(message) => {
                    let unsent = match &self.outbox {
                        Some(outbox) => outbox.try_send(message).map_err(|e| e.into_inner()),
                        None => Err(message),
                    };
                    if let Err(message) = unsent {
                        self.agent.handle_unsent(&message);
                    }
                }
                Effect::Derive(segment, derivation) => {
                    if let Some(derived) = derivation.run() {
                        self.agent.handle_derived(segment, derived, Clock.moment());
                    }
                }
                Effect::HangUp => self.outbox = None,
                Effect::Remember { .. }
                | Effect::Witnessed(_)
                | Effect::Holds(_)
                | Effect::Told(_)
                | Effect::RememberRuns(_)
                | Effect::Trust(_)
                | Effect::Move(_)
                | Effect::Placed(_)
                | Effect::Left(_)
                | Effect::Invited(_)
                | Effect::LookAtUnderlay => {}
            }
        }
    }

    /// Here it disobeys: what its agent wants of the data plane it does as far as that makes it a member.
    /// It never discards, never closes, gives up no peer and knows of no lease.
    fn change(&mut self, change: DataChange) {
        let change = match change {
            DataChange::Places(_) | DataChange::ClockSetBack(_) => change,
            DataChange::Epoch(mut change, places) => {
                change.turn = change.turn.filter(|turn| matches!(turn, Turn::Begin(_)));
                change.install = change.install.filter(|it| !it.peers.is_empty());
                if let Some(install) = &mut change.install {
                    install.closes_at = None;
                    self.know(install);
                }
                DataChange::Epoch(change, places)
            }
        };
        change.carry_out(&mut self.tunnel, Clock.now());
        self.place_peers();
    }

    /// Keeps what an installation tells it.
    fn know(&mut self, install: &Install) {
        for PeerPlan { member, psk, .. } in &install.peers {
            let known = Known {
                epoch: install.epoch,
                member: member.clone(),
                psk: *psk.expose(),
                endpoint: None,
            };
            self.arsenal.known.insert(0, known);
        }
    }

    /// Tells the arsenal where peers are.
    fn place_peers(&mut self) {
        for known in &mut self.arsenal.known {
            if let Some(endpoint) = self.endpoints.get(&known.member.node) {
                known.endpoint = Some(*endpoint);
            }
        }
    }

    fn tick(&mut self) {
        self.drain(0);
        self.drain(1);
        self.add(Count::Rounds, 1);
        self.tunnel.handle_timeout(Clock.now());
        let score = *self.shared.score.lock().expect("no holder panics");
        if self.said.replace(score) != Some(score) {
            self.agent
                .handle_evidence(control::run(score), Clock.moment());
        }
        self.sequence = self.sequence.wrapping_add(1);
        match self.shared.conduct() {
            Conduct::Member if self.sequence.is_multiple_of(2) => self.converse(),
            Conduct::Member | Conduct::Silent => {}
            Conduct::Attack => {
                let shots = self.arsenal.strike(&mut self.tunnel, self.newest, Clock);
                self.fire(shots);
            }
            Conduct::Haunt => {
                let shots = self.arsenal.haunt(&mut self.relics, Clock);
                self.fire(shots);
            }
            Conduct::Nest => self.nest(),
            Conduct::Stray => self.stray(),
        }
    }

    /// To each member, over both families: a datagram for its WireGuard socket, of the session that it
    /// has with this node, that comes out of its own tunnel. The echo request in it asks for an answer.
    fn nest(&mut self) {
        let own = self.arsenal.scope.addresses();
        for known in self.members() {
            let port = known.endpoint.map_or(0, |endpoint| endpoint.port());
            for (own, to) in own.into_iter().zip(known.addresses()) {
                let packet = echo(own, to, self.sequence);
                let Some((_, nested)) = seal(&mut self.tunnel, &packet, Clock.now()) else {
                    continue;
                };
                let (from, to) = (SocketAddr::new(own, port), SocketAddr::new(to, port));
                let packet = udp(from, to, &nested);
                if let Some((to, datagram)) = seal(&mut self.tunnel, &packet, Clock.now()) {
                    self.send(0, to, datagram, Count::Nested);
                }
            }
        }
    }

    /// To each member: echo requests to its underlay address, to its loopback, to other members, to
    /// groups and to what is behind it.
    fn stray(&mut self) {
        let members = self.members();
        let mut strayed: Vec<IpAddr> = STRAYED
            .iter()
            .map(|address| address.parse().expect("an address"))
            .collect();
        for known in &members {
            strayed.extend(known.endpoint.map(|endpoint| endpoint.ip()));
        }
        let own = self.arsenal.scope.addresses();
        for known in &members {
            let others = members.iter().filter(|it| it.member.wg != known.member.wg);
            let others: Vec<IpAddr> = others.flat_map(Known::addresses).collect();
            for to in others.iter().chain(&strayed) {
                let from = own[usize::from(to.is_ipv6())];
                let packet = echo(from, *to, self.sequence);
                let by_way_of = known.member.v4.into();
                let sealed = seal_to(&self.tunnel, by_way_of, &packet, Clock.now());
                if let Some((to, datagram)) = sealed {
                    self.send(0, to, datagram, Count::Strayed);
                }
            }
        }
    }

    /// Everybody else in the newest epoch that it knows.
    fn members(&self) -> Vec<Known> {
        let known = &self.arsenal.known;
        let epoch = known.first().map(|known| known.epoch);
        let of_epoch = known.iter().filter(|known| Some(known.epoch) == epoch);
        of_epoch.cloned().collect()
    }

    /// A model member's traffic: an echo request per peer and family; and one under a false address.
    fn converse(&mut self) {
        let members = self.members().into_iter().map(|known| known.member);
        let members: Vec<wire::Member> = members.collect();
        let [v4, v6] = self.arsenal.scope.addresses();
        let false_v4 = members.last().map_or(v4, |last| last.v4.into());
        for member in &members {
            let mut packets = vec![
                echo(v4, member.v4.into(), self.sequence),
                echo(v6, member.v6.into(), self.sequence),
            ];
            if false_v4 != IpAddr::V4(member.v4) {
                packets.push(echo(false_v4, member.v4.into(), self.sequence));
            }
            for packet in packets {
                if let Some((to, datagram)) = seal(&mut self.tunnel, &packet, Clock.now()) {
                    self.send(0, to, datagram, Count::LiveData);
                }
            }
        }
    }

    fn drain(&mut self, socket: usize) {
        let mut datagram = [0; 2048];
        let mut out = [0; 2048];
        while let Ok((len, from)) = self.sockets[socket].try_recv_from(&mut datagram) {
            let from = SocketAddr::new(from.ip().to_canonical(), from.port());
            let datagram = &datagram[..len];
            self.record(from, datagram);
            if is_data(datagram) || is_response(datagram) {
                self.add(Count::Answers, 1);
                self.add(Count::Responses, u64::from(is_response(datagram)));
            }
            for relic in 0..self.relics.len() {
                let relic = &mut self.relics[relic];
                let inbound = relic.handle_udp(from, datagram, &mut out, Clock.now());
                // The relic's transmissions are dropped: it only listens.
                while relic.poll_transmit().is_some() {}
                let delivered = matches!(inbound, Inbound::Deliver { .. });
                self.add(Count::OldDelivered, u64::from(delivered));
            }
            let inbound = self
                .tunnel
                .handle_udp(from, datagram, &mut out, Clock.now());
            self.add(
                Count::Delivered,
                u64::from(matches!(inbound, Inbound::Deliver { .. })),
            );
            let (shots, delivered, handshakes) = self.arsenal.hear(from, datagram, Clock);
            self.add(Count::Delivered, delivered);
            self.add(Count::Completed, handshakes);
            self.fire(shots);
        }
    }

    fn flush(&mut self) {
        let silent = matches!(self.shared.conduct(), Conduct::Silent | Conduct::Haunt);
        while let Some(transmit) = self.tunnel.poll_transmit() {
            if silent {
                continue;
            }
            self.send(0, by_udp(transmit.to), transmit.payload, Count::Handshake);
        }
        while let Some(event) = self.tunnel.poll_event() {
            self.add(
                Count::Completed,
                u64::from(matches!(event, Event::Handshake { .. })),
            );
        }
    }

    fn fire(&mut self, shots: Vec<Shot>) {
        for Shot {
            socket,
            to,
            datagram,
            kind,
        } in shots
        {
            self.send(socket, to, datagram, kind);
        }
    }

    fn send(&mut self, socket: usize, to: SocketAddr, datagram: Vec<u8>, kind: Count) {
        let mapped = match to.ip() {
            IpAddr::V4(v4) => SocketAddr::new(v4.to_ipv6_mapped().into(), to.port()),
            IpAddr::V6(_) => to,
        };
        if self.sockets[socket].try_send_to(&datagram, mapped).is_ok() {
            self.add(kind, 1);
        }
        self.record(to, &datagram);
    }

    fn record(&mut self, peer: SocketAddr, datagram: &[u8]) {
        if self.shared.conduct() == Conduct::Member {
            self.arsenal.record(peer, datagram);
        }
    }

    fn add(&self, to: Count, more: u64) {
        *self
            .shared
            .counts
            .lock()
            .expect("no holder panics")
            .entry(to)
            .or_default() += more;
    }
}

/// Where nobody is a member: loopback, groups, everybody, and what is behind.
const STRAYED: [&str; 9] = [
    "127.0.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "198.18.0.1",
    "192.0.2.1",
    "::1",
    "ff02::1",
    "fd00:6d65:7368::1",
    "2001:db8::1",
];
const TICK: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(20);
