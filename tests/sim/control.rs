//! The controller and the control channel: the real engine over a log on disk, and reliable, ordered
//! messages that are lost with their connection. Every message passes through its real encoding.

use crate::node::{Nature, State};
use crate::world::{Event, World};
use controller::clock::Now;
use controller::engine::{ConnectionId, Effect, Engine, Setup};
use controller::log::{self, Log, Opened};
use controller::operator::{Answer, Request};
use keys::{
    AuthorityId, AuthoritySecret, ControllerId, LogSecret, NodeId, NodeSecret, SegmentId,
    TokenSecret, WgSecret,
};
use policy::Policy;
use rand::Rng as _;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use wire::admin::TokenRequest;
use wire::message::{Enrol, Refusal, Update};
use wire::{
    Digest, EpochUpdate, NodeName, Place, SegmentName, Signed, ToController, ToNode, Token, frame,
};

/// The controller.
pub(crate) struct Controller {
    dir: tempfile::TempDir,
    /// One for each segment.
    pub(crate) policies: Vec<Policy>,
    pub(crate) authority: AuthoritySecret,
    log: LogSecret,
    /// `None` while it is down.
    pub(crate) engine: Option<Engine>,
    pub(crate) boots: u32,
    pub(crate) timer: Option<Duration>,
    connections: BTreeMap<ConnectionId, Connection>,
    last_connection: u64,
    /// The newest update of each segment that went out.
    pub(crate) published: BTreeMap<SegmentId, EpochUpdate>,
    pub(crate) seen: wire::fixtures::Seen,
    /// Every kind of update that was ever sent, as it was sent, for those who would send it again.
    pub(crate) sent: Vec<(usize, Vec<u8>)>,
}

struct Connection {
    node: usize,
    open: bool,
    to_node: Duration,
    to_engine: Duration,
}

impl Controller {
    pub(crate) fn new(policies: Vec<Policy>) -> Self {
        let mut controller = Self {
            dir: directory(),
            policies,
            authority: AuthoritySecret::generate(&mut rand_core::OsRng),
            log: LogSecret::generate(&mut rand_core::OsRng),
            engine: None,
            boots: 0,
            timer: None,
            connections: BTreeMap::new(),
            last_connection: 0,
            published: BTreeMap::new(),
            seen: Default::default(),
            sent: Vec::new(),
        };
        controller.start(Duration::ZERO, false);
        controller
    }

    /// Starts the process; `rebooted`: the machine too, so that only its wall clock links the lives.
    pub(crate) fn start(&mut self, now: Duration, rebooted: bool) {
        self.boots += u32::from(rebooted);
        let path = log::path_in(self.dir.path());
        let trusted = [self.authority.public()];
        let secret = LogSecret::from_base64(&self.log.expose_base64());
        let opened = Log::open(&path, secret.expect("it was written just now"), &trusted);
        let Opened { log, fleet, epochs } = opened.expect("the log opens again");
        let authority = self.authority.expose_base64();
        let setup = Setup {
            segments: self.segments(),
            advertise: vec!["192.0.2.1:7443".into()],
            controller: ControllerId([1; 32]),
            enrolment: Default::default(),
            authority: AuthoritySecret::from_base64(&authority).expect("it was written just now"),
            boot_id: format!("boot {}", self.boots),
            log_name: "test".into(),
            keep_evidence: Duration::ZERO,
        };
        let engine = Engine::start(setup, log, fleet, epochs, clock(now));
        self.engine = Some(engine.expect("the engine starts"));
    }

    fn segments(&self) -> Vec<controller::SegmentSetup> {
        let names = self.names().into_iter();
        let all = names.zip(&self.policies).zip(76..);
        let setup = |((name, policy), range): ((_, &Policy), u8)| controller::SegmentSetup {
            name,
            policy: policy.clone(),
            mesh_v4: (Ipv4Addr::new(10, range, 0, 0), 16),
            mesh_v6: None,
        };
        all.map(setup).collect()
    }

    /// The names of the segments; the first has that of a mesh without others.
    fn names(&self) -> Vec<SegmentName> {
        let further = (1..self.policies.len()).map(|at| format!("segment-{at}").parse());
        let further = further.map(|name| name.expect("a name"));
        std::iter::once(SegmentName::default())
            .chain(further)
            .collect()
    }

    /// Enrols a node in all segments through the front door, with a key for each.
    pub(crate) fn enrol(
        &mut self,
        secret: &NodeSecret,
        keys: &[WgSecret],
        name: NodeName,
        now: Duration,
    ) -> Vec<Place> {
        let names = self.names();
        let now = clock(now);
        let engine = self.engine.as_mut().expect("it was started");
        let form = TokenRequest {
            name: Some(name),
            ttl_seconds: None,
            uses: None,
            segments: names.clone(),
        };
        let token = match engine.operator(Request::CreateToken(form), None, now) {
            Ok(Answer::Created(created)) => created.token.parse::<Token>().expect("a token"),
            _ => panic!("no token"),
        };
        self.last_connection += 1;
        let id = ConnectionId(self.last_connection);
        engine.handle_connected(id, secret.public(), NOWHERE, now);
        let asks = names.into_iter().zip(keys).map(|(name, wg)| wire::Ask {
            name: Some(name),
            wg: wg.public(),
        });
        let enrol = Enrol {
            token: TokenSecret::from_bytes(*token.secret.expose()),
            name: None,
            segments: asks.collect(),
            addresses: Vec::new(),
        };
        engine.handle_message(id, ToController::Enrol(enrol), now);
        let mut places = None;
        while let Some(effect) = engine.poll_effect() {
            if let Effect::Send(_, message) = effect
                && let ToNode::Enrolled(enrolled) = *message
            {
                let trusted = [self.authority.public()];
                places = Some(verified(&enrolled, &trusted));
            }
        }
        engine.handle_disconnected(id);
        places.expect("the token was good")
    }
}

impl World {
    /// Asks the running controller for something; refusals are the caller's affair.
    pub(crate) fn ask(&mut self, request: Request) -> bool {
        let now = clock(self.now);
        let Some(engine) = &mut self.controller.engine else {
            return false;
        };
        let done = engine.operator(request, None, now).is_ok();
        self.run_engine();
        done
    }

    /// Gives the engine a turn and carries out what it wants.
    pub(crate) fn run_engine(&mut self) {
        let now = clock(self.now);
        let Some(engine) = &mut self.controller.engine else {
            return;
        };
        engine.handle_timeout(now);
        let mut effects = Vec::new();
        while let Some(effect) = engine.poll_effect() {
            effects.push(effect);
        }
        let due = engine.poll_timeout().max(self.now + LEAST_WAIT);
        if self.controller.timer.is_none_or(|timer| due < timer) {
            self.controller.timer = Some(due);
            self.schedule(due, Event::Engine { at: due });
        }
        for effect in effects {
            match effect {
                Effect::Send(id, message) => self.send_to_node(id, *message),
                Effect::Places(id) => {
                    let engine = self.controller.engine.as_mut().expect("it runs");
                    for message in engine.places_for(id) {
                        self.send_to_node(id, message);
                    }
                }
                Effect::Close(id, reason) => {
                    let odd = matches!(reason, Refusal::Protocol | Refusal::NotEnrolled);
                    // On a broken path an agent says nothing, and is closed for that.
                    let honest = self.is_open(id);
                    assert!(
                        !(odd && honest),
                        "the controller refuses an honest agent: {reason}"
                    );
                    self.cut(id);
                }
            }
        }
    }

    fn send_to_node(&mut self, id: ConnectionId, message: ToNode) {
        let Some(connection) = self.controller.connections.get_mut(&id) else {
            return;
        };
        let node = connection.node;
        let bytes = frame::encode(&message).expect("the engine's messages fit");
        let delay = self.rng.gen_range(MIN_CONTROL_DELAY..self.control_delay);
        let at = (self.now + delay).max(connection.to_node);
        connection.to_node = at;
        let trusted = [self.controller.authority.public()];
        let message = self.controller.seen.whole(message, &trusted);
        if let ToNode::Update(Update { signed, .. }) = &message {
            let update = signed.verify(&trusted).expect("it was signed just now");
            let published = &self.controller.published;
            let newest = published.get(&update.segment).map(|u| u.epoch);
            if newest < Some(update.epoch) {
                let evicted = |node: &NodeId| self.evicted.contains(node);
                let kept = update.roster.iter().find(|member| evicted(&member.node));
                assert!(kept.is_none(), "an evicted node is a member: {kept:?}");
                self.note(format!(
                    "published {} of {} with {} members",
                    update.epoch,
                    update.segment,
                    update.roster.len()
                ));
                let published = &mut self.controller.published;
                published.insert(update.segment, (*update).clone());
            }
            if self.rng.gen_bool(0.05) {
                let whole = frame::encode(&message).expect("the engine's messages fit");
                self.controller.sent.push((node, whole));
            }
        }
        self.schedule(at, Event::ToNode { id, node, bytes });
    }

    /// A message reaches its node, if the connection still stands and the node runs.
    pub(crate) fn at_node(&mut self, id: ConnectionId, node: usize, bytes: &[u8]) {
        if self.nodes[node].link.connection != Some(id) {
            return;
        }
        let message = frame::decode::<ToNode>(bytes);
        let (message, rest) = message.expect("a frame").expect("a whole frame");
        assert!(rest.is_empty());
        match message {
            ToNode::Welcome { places, .. } => {
                let trusted = [self.controller.authority.public()];
                let places = verified(&places, &trusted);
                let lanes = self.nodes[node].lanes.iter();
                let own: Vec<_> = lanes.map(|lane| lane.place.clone()).collect();
                assert_eq!(places, own, "a place is for life");
                self.nodes[node].link.welcomed = true;
                self.nodes[node].link.failures = 0;
                let now = self.now;
                self.nodes[node].welcomed(places, NOWHERE, now);
                self.emit_evidence(node);
            }
            message @ (ToNode::Update(_) | ToNode::Changes(_)) => self.update_node(node, message),
            message @ (ToNode::Endpoints { .. }
            | ToNode::EvidenceResult { .. }
            | ToNode::Authorities { .. }
            | ToNode::RollCall
            | ToNode::Ways { .. }
            | ToNode::Duplicate(_)) => {
                let now = self.now;
                self.nodes[node].told(message, now);
            }
            ToNode::Enrolled(_)
            | ToNode::Waiting { .. }
            | ToNode::Refused { .. }
            | ToNode::Placed(_)
            | ToNode::NotPlaced { .. }
            | ToNode::Invited { .. }
            | ToNode::Left { .. }
            | ToNode::Seen { .. } => {}
        }
        self.run_node(node);
    }

    /// Also what an old message does that is sent again.
    pub(crate) fn update_node(&mut self, node: usize, message: ToNode) {
        let subject = &self.nodes[node];
        if subject.nature == Nature::Rogue || !subject.agent.control().is_up() {
            return;
        }
        // Due changes come first here too, so that traffic between two changes of the data plane is held
        // against the epoch that is then in force.
        self.run_agent(node);
        let trusted = [self.controller.authority.public()];
        let held = |digest: &Digest| self.controller.seen.get(digest);
        // Changes that the node cannot apply are not delivered: it asks for the whole.
        let holds = |digest: &Digest| self.nodes[node].agent.holds().contains(digest);
        let delivered = match &message {
            ToNode::Update(update) => Some((update.signed.clone(), update.age_ms)),
            ToNode::Changes(changed) => {
                let base = |digest: &Digest| held(digest).filter(|_| holds(digest));
                let whole = changed.changes.apply(base).ok();
                whole.map(|signed| (signed, changed.age_ms))
            }
            _ => None,
        };
        if let Some((signed, age_ms)) = delivered
            && let Ok(verified) = signed.verify(&trusted)
        {
            let age = Duration::from_millis(age_ms);
            let lanes = self.nodes[node].lanes.iter();
            let mut lanes = lanes.map(|lane| lane.place.segment);
            let lane = lanes.position(|it| it == verified.segment);
            let model = &mut self.models[node][lane.expect("it is in all")];
            model.delivered(&verified, verified.digest(), age, self.now);
        }
        let now = self.now;
        self.nodes[node].told(message, now);
        self.run_agent(node);
    }

    pub(crate) fn emit_evidence(&mut self, node: usize) {
        let (now, nonce) = (self.now, self.rng.r#gen());
        self.nodes[node].emit(nonce, now);
        self.carry_out(node);
    }

    /// Sends what the agent has to say; without a connection it is lost.
    pub(crate) fn send_outbox(&mut self, node: usize) {
        while let Some(message) = self.nodes[node].outbox.pop_front() {
            if self.nodes[node].link.welcomed {
                self.send_to_engine(node, &message);
            } else {
                self.nodes[node].agent.handle_unsent(&message);
            }
        }
    }

    fn send_to_engine(&mut self, node: usize, message: &ToController) {
        let Some(id) = self.nodes[node].link.connection else {
            return;
        };
        let Some(connection) = self.controller.connections.get_mut(&id) else {
            return;
        };
        let bytes = frame::encode(message).expect("the agent's messages fit");
        let delay = self.rng.gen_range(MIN_CONTROL_DELAY..self.control_delay);
        let at = (self.now + delay).max(connection.to_engine);
        connection.to_engine = at;
        self.schedule(at, Event::ToEngine { id, bytes });
    }

    pub(crate) fn at_engine(&mut self, id: ConnectionId, bytes: &[u8]) {
        let open = self.controller.connections.get(&id).is_some_and(|c| c.open);
        let Some(engine) = self.controller.engine.as_mut().filter(|_| open) else {
            return;
        };
        let message = frame::decode::<ToController>(bytes);
        let (message, _) = message.expect("a frame").expect("a whole frame");
        engine.handle_message(id, message, clock(self.now));
        self.run_engine();
    }

    // ---- connections --------------------------------------------------------------------------

    /// A node tries to reach the controller.
    pub(crate) fn dial(&mut self, node: usize) {
        if self.nodes[node].link.connection.is_some() || self.nodes[node].state != State::Up {
            return;
        }
        let reachable = self.net.controller_reachable(node);
        let Some(engine) = self.controller.engine.as_mut().filter(|_| reachable) else {
            return self.dial_later(node);
        };
        self.controller.last_connection += 1;
        let id = ConnectionId(self.controller.last_connection);
        let (peer, remote) = (self.nodes[node].id, self.nodes[node].address);
        engine.handle_connected(id, peer, remote, clock(self.now));
        let connection = Connection {
            node,
            open: true,
            to_node: self.now,
            to_engine: self.now,
        };
        self.controller.connections.insert(id, connection);
        self.nodes[node].link.connection = Some(id);
        self.nodes[node].link.welcomed = false;
        let hello = self.nodes[node].hello(clock(self.now).unix_ms());
        self.send_to_engine(node, &hello);
        self.run_engine();
    }

    fn dial_later(&mut self, node: usize) {
        let link = &mut self.nodes[node].link;
        let wait = Duration::from_millis(250).saturating_mul(1 << link.failures.min(5));
        link.failures += 1;
        let wait = wait.mul_f64(self.rng.gen_range(0.5..1.5));
        let life = self.nodes[node].life;
        self.schedule(self.now + wait, Event::Dial { node, life });
    }

    /// The path between a node and the controller breaks: each end notices in its own time.
    pub(crate) fn sever(&mut self, node: usize) {
        if let Some(id) = self.nodes[node].link.connection {
            self.cut(id);
        }
    }

    fn cut(&mut self, id: ConnectionId) {
        let Some(connection) = self.controller.connections.get_mut(&id) else {
            return;
        };
        if !std::mem::replace(&mut connection.open, false) {
            return;
        }
        let node = connection.node;
        let noticed = self.now + Duration::from_millis(self.rng.gen_range(1..3_000));
        self.schedule(noticed, Event::LinkLost { id, node });
        let noticed = self.now + Duration::from_millis(self.rng.gen_range(1..10_000));
        self.schedule(noticed, Event::HungUp { id });
    }

    pub(crate) fn link_lost(&mut self, id: ConnectionId, node: usize) {
        let link = &mut self.nodes[node].link;
        if link.connection == Some(id) {
            link.connection = None;
            link.welcomed = false;
            let now = self.now;
            self.nodes[node].cut_off(now);
            self.dial_later(node);
        }
    }

    pub(crate) fn hung_up(&mut self, id: ConnectionId) {
        self.controller.connections.remove(&id);
        if let Some(engine) = &mut self.controller.engine {
            engine.handle_disconnected(id);
            self.run_engine();
        }
    }

    /// Whether messages on this connection still arrive.
    pub(crate) fn is_open(&self, id: ConnectionId) -> bool {
        self.controller.connections.get(&id).is_some_and(|c| c.open)
    }

    pub(crate) fn stop_controller(&mut self) {
        self.controller.engine = None;
        self.controller.timer = None;
        let all: Vec<ConnectionId> = self.controller.connections.keys().copied().collect();
        all.into_iter().for_each(|id| self.cut(id));
    }

    pub(crate) fn start_controller(&mut self, rebooted: bool) {
        if self.controller.engine.is_none() {
            self.note(format!("controller starts, machine rebooted: {rebooted}"));
            self.controller.start(self.now, rebooted);
            self.run_engine();
        }
    }
}

fn verified(places: &[Signed<Place>], trusted: &[AuthorityId]) -> Vec<Place> {
    let verified = places.iter().map(|place| place.verify(trusted));
    let verified = verified.map(|place| (*place.expect("the authority signs it")).clone());
    verified.collect()
}

/// In memory where that is possible: thousands of events are written, and synced, per run.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a temporary directory")
}

/// The controller's clocks at a time of the simulation.
pub(crate) fn clock(now: Duration) -> Now {
    let wall = jiff::Timestamp::from_second(1_700_000_000).expect("a time after 1970");
    Now {
        boot: now,
        wall: wall + now,
    }
}

const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9);
const MIN_CONTROL_DELAY: Duration = Duration::from_millis(1);
/// A timer that is due and does not go away must not stop the clock.
const LEAST_WAIT: Duration = Duration::from_millis(1);
