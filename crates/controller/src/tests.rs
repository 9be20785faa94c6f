//! The engine against its effects, in virtual time: a whole controller without sockets or tasks.
//!
//! The file is long because all that the tests ask of a world and its nodes is written once.

mod attention;
mod clocks;
mod crowd;
mod duplicates;
mod enrolment;
mod epochs;
mod evidence;
mod faults;
mod members;
mod metrics;
mod restart;
mod retention;
mod routes;
mod rulings;
mod segments;
mod shown;
mod socket;
mod timers;
mod traffic;

use crate::by::By;
use crate::clock::Now;
use crate::engine::{ConnectionId, Effect, Engine, Setup, StartError};
use crate::fleet::Fleet;
use crate::log::{self, Log, Opened};
use crate::operator::{Answer, Page, Request};
use jiff::Timestamp;
use keys::{
    AuthorityId, AuthoritySecret, ControllerId, Epoch, LogSecret, NodeSecret, SegmentId,
    TokenSecret, WgPublicKey, WgSecret,
};
use policy::Policy;
use rand_core::{OsRng, RngCore as _};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use wire::admin::{
    EpochChange, EventList, NodeStatus, RotateRequest, Status, TokenInfo, TokenRequest,
};
use wire::evidence::Benchmark;
use wire::log::LogEnd;
use wire::message::{Again, Enrol, Hello, Phase, Refusal, ToController, ToNode, Update};
use wire::{Digest, EpochUpdate, Instance, Mark, NodeName, Signed, Token};

/// The operator who asks in these tests.
const BY: Option<By> = Some(By::Uid(1_000));

/// A controller in virtual time.
struct World {
    dir: tempfile::TempDir,
    engine: Engine,
    authority: String,
    /// The authority whose log is taken over on purpose.
    adopt: Option<AuthorityId>,
    now: Now,
    connections: u64,
    /// The messages to every connection, in order.
    told: BTreeMap<ConnectionId, Vec<ToNode>>,
    seen: wire::fixtures::Seen,
    closed: BTreeMap<ConnectionId, Refusal>,
    /// Whether the last evidence that was refused may be sent again.
    again: Option<Again>,
}

/// A node without a tunnel.
struct Node {
    secret: NodeSecret,
    wg: WgPublicKey,
    name: NodeName,
    connection: ConnectionId,
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

fn wg() -> WgPublicKey {
    WgSecret::generate(&mut OsRng).public()
}

/// The log's key: the same in every call.
fn log_key() -> LogSecret {
    LogSecret::from_base64(&format!("{}=", "A".repeat(43))).unwrap()
}

/// The names of the segments with the numbers 0 and 1.
fn segment_name(id: SegmentId) -> wire::SegmentName {
    match id {
        SegmentId::FIRST => wire::SegmentName::default(),
        _ => "second".parse().unwrap(),
    }
}

fn start(
    path: PathBuf,
    policy: Policy,
    authority: &str,
    boot_id: &str,
    adopt: Option<AuthorityId>,
    now: Now,
) -> Result<Engine, StartError> {
    let policies = [(SegmentId::FIRST, policy)];
    start_with(path, &policies, authority, boot_id, adopt, now)
}

fn start_with(
    path: PathBuf,
    policies: &[(SegmentId, Policy)],
    authority: &str,
    boot_id: &str,
    adopt: Option<AuthorityId>,
    now: Now,
) -> Result<Engine, StartError> {
    let authority = AuthoritySecret::from_base64(authority).unwrap();
    let trusted: Vec<_> = adopt.into_iter().chain([authority.public()]).collect();
    let Opened { log, fleet, epochs } = Log::open(&path, log_key(), &trusted)?;
    let segment = |(id, policy): &(SegmentId, Policy)| crate::SegmentSetup {
        name: segment_name(*id),
        policy: policy.clone(),
        mesh_v4: ([10, 76 + id.0 as u8, 0, 0].into(), 16),
        mesh_v6: None,
    };
    let setup = Setup {
        segments: policies.iter().map(segment).collect(),
        advertise: vec!["192.0.2.1:7443".into()],
        controller: ControllerId([1; 32]),
        enrolment: Default::default(),
        authority,
        boot_id: boot_id.into(),
        log_name: "test".into(),
        keep_evidence: Duration::ZERO,
    };
    Engine::start(setup, log, fleet, epochs, now)
}

impl World {
    fn new(policy: Policy) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = AuthoritySecret::generate(&mut OsRng)
            .expose_base64()
            .to_string();
        let now = Now {
            boot: s(1_000),
            wall: Timestamp::from_second(1_700_000_000).unwrap(),
        };
        let path = log::path_in(dir.path());
        let engine = start(path, policy, &authority, "boot", None, now).unwrap();
        Self {
            dir,
            engine,
            authority,
            adopt: None,
            now,
            connections: 0,
            told: BTreeMap::new(),
            seen: Default::default(),
            again: None,
            closed: BTreeMap::new(),
        }
    }

    /// Lets time pass, timer by timer.
    fn pass(&mut self, time: Duration) {
        let target = self.now.boot + time;
        for _ in 0..10_000 {
            self.engine.handle_timeout(self.now);
            self.collect();
            let next = self.engine.poll_timeout();
            if next > target {
                self.forward(target - self.now.boot);
                return;
            }
            self.forward(next.saturating_sub(self.now.boot));
        }
        panic!("the timers do not advance");
    }

    fn forward(&mut self, time: Duration) {
        self.now.boot += time;
        self.now.wall += time;
    }

    fn collect(&mut self) {
        while let Some(effect) = self.engine.poll_effect() {
            match effect {
                Effect::Send(id, message) => {
                    let message = self
                        .seen
                        .whole(*message, &self.engine.fleet().authorities());
                    self.told.entry(id).or_default().push(message);
                }
                Effect::Places(id) => {
                    let news = self.engine.places_for(id);
                    self.told.entry(id).or_default().extend(news);
                }
                Effect::Close(id, reason) => {
                    self.closed.insert(id, reason);
                }
            }
        }
    }

    fn connect(&mut self, secret: &NodeSecret) -> ConnectionId {
        self.connections += 1;
        let id = ConnectionId(self.connections);
        let remote = format!("198.51.100.{}:9999", self.connections % 250);
        let (peer, now) = (secret.public(), self.now);
        self.engine
            .handle_connected(id, peer, remote.parse().unwrap(), now);
        self.collect();
        id
    }

    fn say(&mut self, id: ConnectionId, message: ToController) {
        self.engine.handle_message(id, message, self.now);
        self.engine.handle_timeout(self.now);
        self.collect();
    }

    fn ask(&mut self, request: Request) -> Result<Answer, String> {
        let answer = self.engine.operator(request, BY, self.now);
        self.collect();
        answer.map_err(|refused| {
            assert!(refused.error.hint.is_some(), "every refusal has a way out");
            refused.error.error
        })
    }

    fn token(&mut self, bound: Option<&str>) -> Token {
        self.token_of(TokenRequest {
            name: bound.map(name),
            ..TokenRequest::default()
        })
    }

    fn tokens(&mut self) -> Vec<TokenInfo> {
        match self.ask(Request::Tokens) {
            Ok(Answer::Tokens(list)) => list,
            _ => panic!("no list"),
        }
    }

    fn token_of(&mut self, form: TokenRequest) -> Token {
        match self.ask(Request::CreateToken(form)) {
            Ok(Answer::Created(created)) => created.token.parse().unwrap(),
            _ => panic!("no token"),
        }
    }

    fn events(&mut self, page: Page) -> EventList {
        match self.ask(Request::Events(page)) {
            Ok(Answer::Events(list)) => list,
            _ => panic!("no events"),
        }
    }

    /// Asks to be enrolled on a connection of its own.
    fn try_enrol(
        &mut self,
        secret: &NodeSecret,
        wg: WgPublicKey,
        wanted: Option<&str>,
        token: &Token,
    ) -> Result<(ConnectionId, NodeName), Refusal> {
        let id = self.connect(secret);
        let enrol = Enrol {
            token: TokenSecret::from_bytes(*token.secret.expose()),
            name: wanted.map(name),
            segments: vec![wire::Ask::unnamed(wg)],
            addresses: Vec::new(),
        };
        self.say(id, ToController::Enrol(enrol));
        match self.told.get(&id).and_then(|told| told.last()) {
            Some(ToNode::Enrolled(place)) => {
                let authority = AuthoritySecret::from_base64(&self.authority).unwrap();
                let place = place[0].verify(&[authority.public()]).unwrap();
                assert_eq!(place.node, secret.public());
                Ok((id, place.name.clone()))
            }
            _ => Err(self.closed[&id]),
        }
    }

    /// A new node, enrolled and connected.
    fn node(&mut self, wanted: &str) -> Node {
        let (secret, wg) = (NodeSecret::generate(&mut OsRng), wg());
        let token = self.token(None);
        let (connection, name) = self.try_enrol(&secret, wg, Some(wanted), &token).unwrap();
        self.hello(connection);
        Node {
            secret,
            wg,
            name,
            connection,
        }
    }

    /// New nodes with good evidence, members.
    fn members<const N: usize>(&mut self, names: [&str; N]) -> [Node; N] {
        let nodes = names.map(|name| self.node(name));
        for node in &nodes {
            assert_eq!(self.evidence(node, 0.9), None);
        }
        self.pass(s(2));
        nodes
    }

    fn hello(&mut self, id: ConnectionId) {
        self.hello_with(id, None);
    }

    fn hello_with(&mut self, id: ConnectionId, newest: Option<Signed<Mark>>) {
        self.hello_of(id, newest, wire::fixtures::instance(1, 1));
    }

    fn hello_of(&mut self, id: ConnectionId, newest: Option<Signed<Mark>>, instance: Instance) {
        let hello = Hello {
            newest: newest.into_iter().collect(),
            instance,
            ..self.greeting()
        };
        self.say(id, ToController::Hello(hello));
    }

    /// The Hello of a node of today that remembers nothing.
    fn greeting(&self) -> Hello {
        Hello {
            software: env!("CARGO_PKG_VERSION").into(),
            listen_port: 51820,
            advertised: Vec::new(),
            addresses: Vec::new(),
            newest: Vec::new(),
            holds: Vec::new(),
            told: Vec::new(),
            log: None,
            unix_ms: self.now.unix_ms() + 7,
            instance: wire::fixtures::instance(1, 1),
        }
    }

    fn reconnect(&mut self, node: &mut Node) {
        node.connection = self.connect(&node.secret);
        self.hello(node.connection);
    }

    /// Sends evidence that finished now; returns why it was refused.
    fn evidence(&mut self, node: &Node, overall: f64) -> Option<String> {
        let run = Benchmark {
            overall: Some(overall),
            ..self.run()
        };
        let envelope = run.attest_self(node.name.as_str(), &node.secret).unwrap();
        self.envelope(node, envelope)
    }

    /// A good run that finished now.
    fn run(&self) -> Benchmark {
        let mut nonce = [0; 16];
        OsRng.fill_bytes(&mut nonce);
        Benchmark {
            nonce: nonce.iter().map(|b| format!("{b:02x}")).collect(),
            mesh: self.engine.fleet().mesh(),
            challenge: self.challenge(),
            ..wire::fixtures::run(0.9, self.now.wall)
        }
    }

    /// The digest of the newest update.
    fn challenge(&self) -> Option<Digest> {
        let newest = self
            .engine
            .fleet()
            .standings(SegmentId::FIRST)
            .newest_epoch();
        newest.map(|(_, published)| published.update)
    }

    /// The mark that a node keeps of the newest update that it was sent.
    fn mark(&self, node: &Node) -> Option<Signed<Mark>> {
        let told = self.told[&node.connection].iter().rev();
        let mut marks = told.filter_map(|message| match message {
            ToNode::Update(update) => Some(update.mark.clone()),
            _ => None,
        });
        marks.next()
    }

    fn envelope(&mut self, node: &Node, envelope: Vec<u8>) -> Option<String> {
        let seen = self.told.get(&node.connection).map_or(0, Vec::len);
        self.say(node.connection, ToController::Evidence { envelope });
        let told = self.told[&node.connection].iter().skip(seen);
        let mut results = told.filter_map(|message| match message {
            ToNode::EvidenceResult { refused, .. } => Some(refused.clone()),
            _ => None,
        });
        let refused = results.next().expect("evidence is answered");
        self.again = refused.as_ref().map(|refused| refused.again);
        refused.map(|refused| refused.reason)
    }

    fn rotate(&mut self, now: bool, confirm_removals: bool) -> EpochChange {
        let form = RotateRequest {
            now,
            confirm_removals,
            segment: None,
        };
        match self.ask(Request::Rotate(form)) {
            Ok(Answer::Change(change)) => change,
            _ => panic!("no rotation"),
        }
    }

    fn status(&mut self) -> wire::admin::ControllerStatus {
        match self.ask(Request::Status) {
            Ok(Answer::Status(Status::Controller(status))) => *status,
            _ => panic!("no status"),
        }
    }

    fn status_of(&mut self, node: &Node) -> NodeStatus {
        self.status().nodes[&node.name].clone()
    }

    /// The newest update that a node was sent, and whether the secret came with it.
    fn update(&self, node: &Node) -> (EpochUpdate, bool) {
        let told = self.told[&node.connection].iter().rev();
        let mut updates = told.filter_map(|message| match message {
            ToNode::Update(update) => Some(update),
            _ => None,
        });
        self.open(updates.next().expect("an update was pushed"))
    }

    fn open(&self, update: &Update) -> (EpochUpdate, bool) {
        let authority = AuthoritySecret::from_base64(&self.authority).unwrap();
        let verified = update.signed.verify(&[authority.public()]).unwrap();
        if let Some(secret) = &update.secret {
            assert_eq!(secret.commitment().0, verified.commitment.0);
        }
        ((*verified).clone(), update.secret.is_some())
    }

    fn ack(&mut self, node: &Node, phase: Phase) {
        let epoch = self.update(node).0.epoch;
        self.say(
            node.connection,
            ToController::Ack {
                segment: keys::SegmentId::FIRST,
                epoch,
                phase,
            },
        );
    }

    fn epoch(&mut self) -> u64 {
        self.status().epoch.id
    }

    /// Stops the controller and starts it again after `away`.
    fn restart(&mut self, policy: Policy, away: Duration, boot_id: &str) {
        self.try_restart(policy, away, boot_id).unwrap();
    }

    fn try_restart(
        &mut self,
        policy: Policy,
        away: Duration,
        boot_id: &str,
    ) -> Result<(), StartError> {
        self.try_restart_with(&[(SegmentId::FIRST, policy)], away, boot_id)
    }

    fn try_restart_with(
        &mut self,
        policies: &[(SegmentId, Policy)],
        away: Duration,
        boot_id: &str,
    ) -> Result<(), StartError> {
        self.forward(away);
        let elsewhere = tempfile::tempdir().unwrap();
        let path = log::path_in(elsewhere.path());
        let policy = policies[0].1.clone();
        let dummy = start(path, policy, &self.authority, "x", None, self.now)?;
        // The old engine has to let go of the log before the new one may have it.
        drop(std::mem::replace(&mut self.engine, dummy));
        let path = log::path_in(self.dir.path());
        let (authority, adopt) = (&self.authority, self.adopt);
        self.engine = start_with(path, policies, authority, boot_id, adopt, self.now)?;
        Ok(())
    }
}

#[test]
fn the_secret_of_an_epoch_that_is_over_is_nowhere_on_disk_once_there_was_time() {
    let mut world = World::new(Policy::default());
    let segment = world.engine.segments().first();
    let issue = segment.issue(Epoch(1)).unwrap();
    let secret = *issue.secret.expose();
    let on_disk = |world: &World| {
        let files = std::fs::read_dir(world.dir.path()).unwrap();
        files
            .map(|file| std::fs::read(file.unwrap().path()).unwrap())
            .any(|bytes| bytes.windows(secret.len()).any(|window| window == secret))
    };
    let now = RotateRequest {
        now: true,
        ..RotateRequest::default()
    };
    world
        .engine
        .operator(Request::Rotate(now), BY, world.now)
        .unwrap();
    assert!(on_disk(&world), "the write-ahead log has it still");
    world.engine.tidy(world.now);
    assert!(!on_disk(&world));
}
