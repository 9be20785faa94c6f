//! A controller's engine under any sequence of what connections and operators do: it never panics, tells an
//! excluded node no secret and nobody of an evicted member, says nothing to connections that it does not
//! have, and leaves a log that opens again.

use crate::fixed::AUTHORITY;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use controller::clock::Now;
use controller::engine::{ConnectionId, Effect, Engine, Setup};
use controller::log::{self, Log, Opened};
use controller::operator::{Answer, Page, Request};
use keys::{
    AuthoritySecret, ControllerId, Epoch, LogSecret, MeshId, NodeId, NodeSecret, TokenSecret,
    WgSecret,
};
use policy::Policy;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use wire::admin::{RotateRequest, TokenRequest};
use wire::evidence::Benchmark;
use wire::fixtures;
use wire::log::LogEnd;
use wire::message::{Enrol, Hello, InterfaceReport, PeerReport, Phase, Refusal, TunnelReport};
use wire::{Digest, Mark, Signed, ToController, ToNode, Token, Way};

/// `data` is a sequence of steps, each an operation, the node that it is about, and two bytes of detail.
pub fn sequence(data: &[u8]) {
    let mut world = World::new();
    for step in data.chunks_exact(4).take(STEPS) {
        world.step(step[0], usize::from(step[1]) % NODES, step[2], step[3]);
    }
    world.reopen();
}

/// How many members the epoch in force has at the end of such a sequence.
pub fn members(data: &[u8]) -> usize {
    let mut world = World::new();
    for step in data.chunks_exact(4).take(STEPS) {
        world.step(step[0], usize::from(step[1]) % NODES, step[2], step[3]);
    }
    world.pass(5_000);
    world.status().epoch.members
}

struct World {
    dir: tempfile::TempDir,
    engine: Option<Engine>,
    now: Now,
    nodes: Vec<Node>,
    connections: BTreeMap<ConnectionId, usize>,
    last: u64,
    evicted: BTreeSet<NodeId>,
    /// The newest epoch that anybody was told of.
    newest: Epoch,
    seen: wire::fixtures::Seen,
}

struct Node {
    secret: NodeSecret,
    wg: WgSecret,
    token: Option<Token>,
    connection: Option<ConnectionId>,
    challenge: Option<Digest>,
    mark: Option<Signed<Mark>>,
    runs: u32,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let nodes = (0..NODES).map(|n| {
            let line = |byte| STANDARD.encode([byte; 32]);
            let n = u8::try_from(n).expect("few nodes");
            Node {
                secret: NodeSecret::from_base64(&line(0x40 + n)).expect("a key"),
                wg: WgSecret::from_base64(&line(0x60 + n)).expect("a key"),
                token: None,
                connection: None,
                challenge: None,
                mark: None,
                runs: 0,
            }
        });
        let mut world = Self {
            dir: dir.expect("a temporary directory"),
            engine: None,
            now: Now {
                boot: Duration::from_secs(1_000),
                wall: "2026-01-02T03:04:05Z".parse().expect("a time"),
            },
            nodes: nodes.collect(),
            connections: BTreeMap::new(),
            last: 0,
            evicted: BTreeSet::new(),
            newest: Epoch(0),
            seen: Default::default(),
        };
        world.start();
        world
    }

    fn start(&mut self) {
        let path = log::path_in(self.dir.path());
        let trusted = [AUTHORITY.public()];
        let secret = LogSecret::from_base64(&format!("{}=", "A".repeat(43)));
        let opened = Log::open(&path, secret.expect("it is a seed"), &trusted);
        let Opened { log, fleet, epochs } = opened.expect("what the engine wrote opens again");
        let authority = AUTHORITY.expose_base64();
        let setup = Setup {
            segments: controller::SegmentSetup::only(
                Policy {
                    epoch_seconds: 10,
                    ..Policy::default()
                },
                (Ipv4Addr::new(10, 76, 0, 0), 16),
                None,
            ),
            advertise: vec!["192.0.2.1:7443".into()],
            controller: ControllerId([1; 32]),
            enrolment: Default::default(),
            authority: AuthoritySecret::from_base64(&authority).expect("a key"),
            boot_id: "boot".into(),
            log_name: "test".into(),
            keep_evidence: Duration::ZERO,
        };
        let engine = Engine::start(setup, log, fleet, epochs, self.now);
        self.engine = Some(engine.expect("the engine starts"));
    }

    fn reopen(&mut self) {
        let ids: Vec<NodeId> = self.engine().enrolled().collect();
        self.engine = None;
        self.connections.clear();
        self.nodes
            .iter_mut()
            .for_each(|node| node.connection = None);
        self.start();
        let again: Vec<NodeId> = self.engine().enrolled().collect();
        assert_eq!(ids, again, "who was enrolled is enrolled");
    }

    fn engine(&mut self) -> &mut Engine {
        self.engine.as_mut().expect("it was started")
    }

    fn step(&mut self, operation: u8, node: usize, a: u8, b: u8) {
        match operation % 16 {
            0 => self.connect(node, a),
            1 => self.hello(node, a),
            2 => self.token(node, a),
            3 => self.enrol(node, a),
            4 | 5 => self.evidence(node, a, b),
            6 => self.say(
                node,
                ToController::Ack {
                    segment: keys::SegmentId::FIRST,
                    epoch: Epoch(u64::from(a) << (b % 64)),
                    phase: [Phase::Installed, Phase::Activated, Phase::Dark][usize::from(b % 3)],
                },
            ),
            7 => self.say(
                node,
                ToController::Endpoints {
                    listen_port: u16::from(a) << 8 | u16::from(b),
                    advertised: vec![
                        SocketAddr::from(([a, 1, 2, b], u16::from(b)));
                        usize::from(a % 10)
                    ],
                    addresses: vec![IpAddr::from([b, 1, 2, a]); usize::from(b % 10)],
                },
            ),
            8 => {
                let about = self.nodes[usize::from(a) % NODES].secret.public();
                let report = PeerReport {
                    node: about,
                    session_epoch: Some(Epoch(u64::from(b))),
                    rtt_v4_us: None,
                    rtt_v6_us: Some(u32::MAX),
                    way_v4: Way::Nowhere,
                    way_v6: Way::Link("x".repeat(usize::from(b % 20))),
                };
                if a.is_multiple_of(3) {
                    let tunnel = TunnelReport {
                        node: about,
                        handshake_age: b.is_multiple_of(2).then_some(u32::MAX >> (b % 32)),
                        echoes: b,
                        lost: a,
                    };
                    self.say(
                        node,
                        ToController::Tunnels {
                            segment: keys::SegmentId(u32::from(a % 2)),
                            peers: vec![tunnel; usize::from(b % 5)],
                            unix_ms: u64::from(a) << (b % 57),
                        },
                    );
                }
                self.say(
                    node,
                    ToController::Report {
                        segment: keys::SegmentId::FIRST,
                        peers: vec![report; usize::from(b % 5)],
                        interface: InterfaceReport {
                            unusable: b.is_multiple_of(2),
                            faults: vec!["é".repeat(usize::from(b)); usize::from(a % 12)],
                        },
                    },
                );
            }
            9 if a & 1 == 1 => self.say(node, ToController::Present),
            9 => self.hang_up(node),
            10 => {
                let reasons = [Refusal::Protocol, Refusal::TooMuch, Refusal::NotEnrolled];
                if let Some(id) = self.nodes[node].connection {
                    self.engine()
                        .handle_refused(id, reasons[usize::from(a % 3)]);
                }
            }
            11 => {
                if let Some(id) = self.nodes[node].connection {
                    let (to, now) = (SocketAddr::from(([198, 51, 100, a], 9)), self.now);
                    self.engine().handle_moved(id, to, now);
                }
            }
            12 => self.ask(node, a),
            13 => {
                let form = RotateRequest {
                    now: a & 1 == 1,
                    confirm_removals: a & 2 == 2,
                    segment: None,
                };
                let now = self.now;
                let _ = self.engine().operator(Request::Rotate(form), None, now);
            }
            14 => self.pass(u64::from(a) * 50),
            // A wall clock that is set; the other one goes on.
            _ => {
                let seconds = i64::from(a) * 60;
                let step =
                    jiff::SignedDuration::from_secs(if b & 1 == 1 { seconds } else { -seconds });
                self.now.wall = self.now.wall.checked_add(step).expect("not far from today");
            }
        }
        let now = self.now;
        self.engine().handle_timeout(now);
        self.collect();
    }

    fn connect(&mut self, node: usize, from: u8) {
        self.last += 1;
        let id = ConnectionId(self.last);
        let (peer, now) = (self.nodes[node].secret.public(), self.now);
        self.nodes[node].connection = Some(id);
        self.connections.insert(id, node);
        let remote = SocketAddr::from(([198, 51, 100, from], 9));
        self.engine().handle_connected(id, peer, remote, now);
    }

    fn say(&mut self, node: usize, message: ToController) {
        let now = self.now;
        if let Some(id) = self.nodes[node].connection {
            self.engine().handle_message(id, message, now);
        }
    }

    fn hello(&mut self, node: usize, claims: u8) {
        // The mark that it remembers, none, or one that another authority would have signed.
        let newest = match claims % 3 {
            0 => self.nodes[node].mark.clone(),
            1 => None,
            _ => {
                let mark = Mark {
                    mesh: MeshId([9; 16]),
                    segment: keys::SegmentId::FIRST,
                    epoch: Epoch(u64::MAX),
                    update: Digest([9; 32]),
                    log: LogEnd {
                        events: u64::MAX,
                        root: Digest([9; 32]),
                    },
                    log_key: keys::LogId([9; 32]),
                };
                Signed::sign(&mark, &AUTHORITY).ok()
            }
        };
        let hello = Hello {
            software: "fuzz".into(),
            listen_port: 51_820,
            advertised: Vec::new(),
            addresses: Vec::new(),
            newest: newest.into_iter().collect(),
            holds: Vec::new(),
            told: Vec::new(),
            log: claims.is_multiple_of(5).then(|| LogEnd {
                events: u64::from(claims),
                root: Digest([claims; 32]),
            }),
            unix_ms: u64::from(claims),
            instance: wire::fixtures::instance(claims % 2, claims),
        };
        self.say(node, ToController::Hello(hello));
    }

    fn token(&mut self, node: usize, bound: u8) {
        let form = TokenRequest {
            name: (bound & 1 == 1).then(|| name(node)),
            ttl_seconds: Some(60 + u64::from(bound)),
            uses: None,
            segments: Vec::new(),
        };
        let now = self.now;
        if let Ok(Answer::Created(created)) =
            self.engine()
                .operator(Request::CreateToken(form), None, now)
        {
            self.nodes[node].token = Some(created.token.parse().expect("a token"));
        }
    }

    fn enrol(&mut self, node: usize, with: u8) {
        let secret = match &self.nodes[node].token {
            Some(token) => *token.secret.expose(),
            None => [with; 32],
        };
        let enrol = Enrol {
            token: TokenSecret::from_bytes(secret),
            name: Some(name(usize::from(with) % NODES)),
            segments: vec![wire::Ask::unnamed(
                self.nodes[usize::from(with / 2) % NODES].wg.public(),
            )],
            addresses: Vec::new(),
        };
        self.say(node, ToController::Enrol(enrol));
    }

    fn evidence(&mut self, node: usize, score: u8, offset: u8) {
        let Some(mesh) = self.mesh() else { return };
        let finished = self.now.wall - Duration::from_secs(u64::from(offset));
        let own = &mut self.nodes[node];
        own.runs += 1;
        let run = Benchmark {
            suite: "s".into(),
            nonce: format!("{:032x}", own.runs),
            mesh: Some(mesh),
            challenge: own.challenge,
            ..fixtures::run(f64::from(score) / 255.0, finished)
        };
        let envelope = run
            .attest_self("n", &own.secret)
            .expect("the run keeps the rules");
        self.say(node, ToController::Evidence { envelope });
    }

    fn mesh(&self) -> Option<MeshId> {
        let marks = self.nodes.iter().filter_map(|node| node.mark.as_ref());
        let mark = marks
            .map(|mark| mark.verify(&[AUTHORITY.public()]))
            .next()?;
        Some(mark.expect("the engine signed it").mesh)
    }

    fn hang_up(&mut self, node: usize) {
        if let Some(id) = self.nodes[node].connection.take() {
            self.connections.remove(&id);
            self.engine().handle_disconnected(id);
        }
    }

    fn ask(&mut self, node: usize, what: u8) {
        let (now, id) = (self.now, self.nodes[node].secret.public());
        // Nodes have the names that they asked for, or none.
        let name = self.name_of(id).unwrap_or_else(|| name(node));
        let request = match what % 5 {
            0 => Request::Evict(name, Default::default()),
            1 => Request::Readmit(name),
            2 => Request::Explain(name, None),
            3 => Request::Tokens,
            _ => Request::Events(Page {
                limit: u64::from(what),
                ..Page::default()
            }),
        };
        let answered = self.engine().operator(request, None, now);
        match (what % 5, answered) {
            (0, Ok(_)) => drop(self.evicted.insert(id)),
            (1, Ok(_)) => drop(self.evicted.remove(&id)),
            _ => {}
        }
    }

    fn status(&mut self) -> wire::admin::ControllerStatus {
        let now = self.now;
        match self.engine().operator(Request::Status, None, now) {
            Ok(Answer::Status(wire::admin::Status::Controller(status))) => *status,
            _ => panic!("a controller has a status"),
        }
    }

    fn name_of(&mut self, node: NodeId) -> Option<wire::NodeName> {
        let status = self.status();
        let mut nodes = status.nodes.into_iter();
        nodes
            .find(|(_, it)| it.node == node.to_string())
            .map(|(name, _)| name)
    }

    fn pass(&mut self, ms: u64) {
        let until = self.now.boot + Duration::from_millis(ms);
        for _ in 0..1_000 {
            let now = self.now;
            self.engine().handle_timeout(now);
            self.collect();
            let next = self.engine().poll_timeout().min(until);
            let step = next.saturating_sub(now.boot).max(Duration::from_millis(1));
            self.now.boot += step;
            self.now.wall += step;
            if self.now.boot >= until {
                return;
            }
        }
    }

    fn collect(&mut self) {
        while let Some(effect) = self.engine().poll_effect() {
            match effect {
                Effect::Send(id, message) => {
                    let node = *self.connections.get(&id).expect("it is there");
                    self.told(node, *message);
                }
                Effect::Places(id) => {
                    let node = *self.connections.get(&id).expect("it is there");
                    for message in self.engine().places_for(id) {
                        self.told(node, message);
                    }
                }
                Effect::Close(id, _) => {
                    let node = self.connections.remove(&id).expect("it is there");
                    if self.nodes[node].connection == Some(id) {
                        self.nodes[node].connection = None;
                    }
                }
            }
        }
    }

    fn told(&mut self, node: usize, message: ToNode) {
        let message = self.seen.whole(message, &[AUTHORITY.public()]);
        let ToNode::Update(update) = message else {
            return;
        };
        let verified = update.signed.verify(&[AUTHORITY.public()]);
        let verified = verified.expect("the engine signs what it sends");
        let own = self.nodes[node].secret.public();
        let is_member = verified.member(&own).is_some();
        assert_eq!(
            update.secret.is_some(),
            is_member,
            "the secret goes to members"
        );
        if verified.epoch > self.newest {
            self.newest = verified.epoch;
            let evicted = |member: &&wire::Member| self.evicted.contains(&member.node);
            assert!(
                !verified.roster.iter().any(|member| evicted(&member)),
                "an evicted member"
            );
        }
        self.nodes[node].challenge = Some(verified.digest());
        self.nodes[node].mark = Some(update.mark);
    }
}

fn name(node: usize) -> wire::NodeName {
    format!("node-{node}").parse().expect("a name")
}

const NODES: usize = 4;
/// Each is a commit at most; beyond so many an input says nothing new.
const STEPS: usize = 64;
