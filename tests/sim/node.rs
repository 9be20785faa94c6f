//! One node: the real member machine and the real tunnel, with an agent around them that does what the
//! daemon's does, without its tasks. Owns no time and no network; refuses to decide anything.

use crate::carry::Carried;
use crate::world::Event;
use controller::engine::ConnectionId;
use epoch::member::{HighWater, Identity};
use epoch::{Command, Member, PeerPlan};
use keys::{AuthorityId, Epoch, NodeId, NodeSecret, WgSecret};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tunnel::{Config, Inside, PeerSpec, Range};
use wire::evidence::Benchmark;
use wire::message::{Hello, Update};
use wire::{Digest, Mark, Place, Signed, ToController};

/// A node.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) secret: NodeSecret,
    pub(crate) wg: WgSecret,
    pub(crate) place: Place,
    pub(crate) member: Member,
    pub(crate) tunnel: Carried,
    /// What the state directory holds.
    pub(crate) persisted: HighWater,
    pub(crate) address: SocketAddr,
    /// What its boot clock shows when the simulation begins.
    pub(crate) boot: Duration,
    /// Goes up with every restart.
    pub(crate) life: u32,
    pub(crate) state: State,
    pub(crate) link: Link,
    pub(crate) score: f64,
    pub(crate) nature: Nature,
    /// Where the controller said that nodes are.
    places: HashMap<NodeId, Vec<SocketAddr>>,
    /// The digest of the newest update: evidence answers to it.
    challenge: Option<Digest>,
    /// The authority's word for updates that may yet be in force here.
    marks: BTreeMap<Epoch, Signed<Mark>>,
    /// The same for the newest one that was; the state directory holds it too.
    announced: Option<Signed<Mark>>,
    /// What it wants to say to the controller.
    pub(crate) outbox: VecDeque<ToController>,
    /// What arrived while it slept.
    pub(crate) waiting: Vec<Event>,
    /// When its timers are looked at next.
    pub(crate) timer: Option<Duration>,
}

/// Whether a node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It runs.
    Up,
    /// Its machine sleeps; what arrives waits.
    Asleep,
    /// Its process has ended; what arrives is lost.
    Down,
}

/// Whether a node keeps to the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nature {
    /// It does.
    Honest,
    /// It keeps what it has when its lease ends or it is excluded, and may turn rogue.
    Lawless,
    /// It takes no update any more, and goes on with what it has.
    Rogue,
}

/// The control channel from the node's end.
#[derive(Debug, Default)]
pub(crate) struct Link {
    pub(crate) connection: Option<ConnectionId>,
    pub(crate) welcomed: bool,
    pub(crate) failures: u32,
}

impl Node {
    pub(crate) fn new(
        secret: NodeSecret,
        wg: WgSecret,
        place: Place,
        address: SocketAddr,
        boot: Duration,
        nature: Nature,
    ) -> Self {
        let (member, tunnel) = process(&wg, &secret, &place, HighWater::default(), 0);
        Self {
            id: secret.public(),
            secret,
            wg,
            place,
            member,
            tunnel,
            persisted: HighWater::default(),
            address,
            boot,
            life: 0,
            state: State::Up,
            link: Link::default(),
            score: 0.9,
            nature,
            places: HashMap::new(),
            challenge: None,
            marks: BTreeMap::new(),
            announced: None,
            outbox: VecDeque::new(),
            waiting: Vec::new(),
            timer: None,
        }
    }

    /// The process starts anew: what is in memory is gone.
    pub(crate) fn restart(&mut self) {
        self.life += 1;
        let seed = u64::from(self.life);
        (self.member, self.tunnel) =
            process(&self.wg, &self.secret, &self.place, self.persisted, seed);
        self.link = Link::default();
        self.outbox.clear();
        self.places.clear();
        self.challenge = None;
        self.marks.clear();
        self.waiting.clear();
        self.timer = None;
        self.state = State::Up;
    }

    /// The node's boot clock.
    pub(crate) fn clock(&self, now: Duration) -> Duration {
        self.boot + now
    }

    pub(crate) fn address_inside(&self, v6: bool) -> IpAddr {
        if v6 {
            self.place.v6.0.into()
        } else {
            self.place.v4.0.into()
        }
    }

    pub(crate) fn hello(&self, unix_ms: u64) -> ToController {
        ToController::Hello(Hello {
            software: "sim".into(),
            listen_port: self.address.port(),
            advertised: Vec::new(),
            newest: self.announced.clone(),
            unix_ms,
        })
    }

    /// Whether there is an update yet that evidence could answer to.
    pub(crate) fn can_answer(&self) -> bool {
        self.challenge.is_some()
    }

    pub(crate) fn evidence(&self, wall: jiff::Timestamp, nonce: u128) -> ToController {
        let run = Benchmark {
            harness: "sim".into(),
            suite: "sim".into(),
            suite_version: "1".into(),
            metrics: Default::default(),
            overall: self.score,
            samples_total: 1,
            samples_completed: 1,
            started_at: wall,
            finished_at: wall,
            nonce: format!("{nonce:032x}"),
            log_digest: None,
            mesh: Some(self.place.mesh),
            challenge: self.challenge,
        };
        let envelope = run
            .attest_self(self.place.name.as_str(), &self.secret)
            .expect("the run is well formed");
        ToController::Evidence { envelope }
    }

    /// Hands an update to the member machine, as the agent does.
    pub(crate) fn update(&mut self, update: Update, trusted: &[AuthorityId], now: Duration) {
        let Ok(verified) = update.signed.verify(trusted) else {
            return;
        };
        let age = Duration::from_millis(update.age_ms);
        let now = self.clock(now);
        let (epoch, digest) = (verified.epoch, verified.digest());
        // The daemon logs a refusal and goes on; what it must not do is what the model checks.
        let taken = self.member.handle_update(verified, update.secret, age, now);
        if taken.is_ok() {
            self.challenge = Some(digest);
            self.marks.insert(epoch, update.mark);
        }
    }

    /// Where peers are, by their identities.
    pub(crate) fn endpoints(&mut self, entries: Vec<(NodeId, Vec<SocketAddr>)>, now: Duration) {
        for (node, endpoints) in entries {
            self.places.insert(node, endpoints.clone());
            self.place(&node, endpoints, now);
        }
    }

    fn place(&mut self, node: &NodeId, endpoints: Vec<SocketAddr>, now: Duration) {
        let now = self.clock(now);
        let view = self.member.view();
        let mut updates = [view.next, view.update].into_iter().flatten();
        if let Some(member) = updates.find_map(|update| update.member(node)) {
            self.tunnel.set_endpoints(&member.wg, endpoints, now);
        }
    }

    /// Carries out what the member machine asks for; returns the epochs that came into force.
    pub(crate) fn carry_out(&mut self, now: Duration) -> Vec<Epoch> {
        let mut begun = Vec::new();
        while let Some(command) = self.member.poll_command() {
            match command {
                Command::Persist(high) => {
                    self.persisted = high;
                    self.announced = self.marks.remove(&high.epoch);
                    self.marks.retain(|epoch, _| *epoch > high.epoch);
                    begun.push(high.epoch);
                }
                Command::Acknowledge { epoch, phase } => {
                    self.outbox.push_back(ToController::Ack { epoch, phase });
                }
                Command::Report(_) => {}
                command => {
                    let installed = matches!(command, Command::Install { .. });
                    self.apply(command, now);
                    if installed {
                        // Peers that were gone for a while are found again.
                        for (node, endpoints) in self.places.clone() {
                            self.place(&node, endpoints, now);
                        }
                    }
                }
            }
        }
        begun
    }

    /// One call of the tunnel per command: the daemon's own table, which is private to it.
    fn apply(&mut self, command: Command, now: Duration) {
        let now = self.clock(now);
        match command {
            Command::Install {
                epoch,
                peers,
                lead,
                closes_at,
            } => {
                let closes_at = closes_at.filter(|_| self.nature == Nature::Honest);
                let peers = peers.into_iter().map(|PeerPlan { member, psk }| {
                    let (key, allowed) = (member.wg, vec![member.v4.into(), member.v6.into()]);
                    (PeerSpec { key, allowed }, psk)
                });
                let refused = self
                    .tunnel
                    .install(epoch, peers.collect(), lead, closes_at, now);
                assert!(refused.is_empty(), "no key here is of low order");
            }
            Command::Activate { epoch } => self.tunnel.activate(epoch, now),
            Command::DiscardPrevious => self.tunnel.discard_previous(),
            Command::Close if self.nature == Nature::Honest => self.tunnel.close(),
            // One that breaks the rules keeps what it has when its lease ends or it is excluded.
            Command::Close => {}
            Command::Persist(_) | Command::Acknowledge { .. } | Command::Report(_) => {}
        }
    }

    /// When member machine or tunnel want a turn, in the simulation's time.
    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        let agent = self
            .member
            .poll_timeout()
            .filter(|_| self.nature != Nature::Rogue);
        let earliest = [agent, self.tunnel.poll_timeout()]
            .into_iter()
            .flatten()
            .min()?;
        Some(earliest.saturating_sub(self.boot))
    }
}

fn process(
    wg: &WgSecret,
    secret: &NodeSecret,
    place: &Place,
    high: HighWater,
    life: u64,
) -> (Member, Carried) {
    let node = secret.public();
    let identity = Identity {
        node,
        wg: wg.duplicate(),
        mesh: place.mesh,
        segment: place.segment,
    };
    let (v4, v6) = (IpAddr::V4(place.v4.0), IpAddr::V6(place.v6.0));
    let config = Config {
        inside: Inside {
            own: vec![v4, v6],
            ranges: vec![Range::new(v4, place.v4.1), Range::new(v6, place.v6.1)],
        },
        secret: wg.duplicate(),
        mtu: MTU,
        handshakes_per_second: 1_000,
        seed: u64::from(node.0[0]) << 32 | life,
    };
    (Member::new(identity, high), Carried::new(config))
}

const MTU: usize = 1420;
