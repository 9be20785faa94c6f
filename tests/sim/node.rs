//! One node: the product's agent and tunnel, without the daemon's tasks. Owns no time and no network;
//! refuses to decide anything: what the agent asks for is done, in its order.

use crate::carry::Carried;
use crate::world::Event;
use agent::{Agent, DataChange, Effect, Emission, Now, SegmentConfig, SessionEvent};
use controller::engine::ConnectionId;
use epoch::Turn;
use epoch::member::{HighWater, View};
use keys::{AuthorityId, Epoch, NodeId, NodeSecret, SegmentId, WgSecret};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tunnel::Config;
use wire::evidence::Benchmark;
use wire::fixtures;
use wire::log::LogEnd;
use wire::message::Hello;
use wire::{Mark, NodeName, Place, Signed, ToController, ToNode};

/// A node.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) secret: NodeSecret,
    /// The segments that it is in; each node of a mesh is in all of them.
    pub(crate) lanes: Vec<Lane>,
    authorities: Vec<AuthorityId>,
    pub(crate) agent: Agent,
    /// The content of the state directory besides the lanes'.
    log: Option<LogEnd>,
    pub(crate) address: SocketAddr,
    /// Its boot clock's time when the simulation begins.
    pub(crate) boot: Duration,
    /// Goes up with every restart.
    pub(crate) life: u32,
    pub(crate) state: State,
    pub(crate) link: Link,
    pub(crate) score: f64,
    pub(crate) nature: Nature,
    /// Messages that it wants to send to the controller.
    pub(crate) outbox: VecDeque<ToController>,
    /// Events that arrived while it slept.
    pub(crate) waiting: Vec<Event>,
    /// When its timers are looked at next.
    pub(crate) timer: Option<Duration>,
}

/// A node in one segment.
pub(crate) struct Lane {
    pub(crate) wg: WgSecret,
    pub(crate) place: Place,
    pub(crate) tunnel: Carried,
    /// The content of the state directory.
    pub(crate) persisted: HighWater,
    mark: Option<Signed<Mark>>,
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

/// The outcome of a step of a node's agent.
pub(crate) enum Step {
    /// The data plane of a lane has changed.
    Changed(usize),
    /// An epoch of a lane is in force, and the state directory knows.
    Begun(usize, Epoch),
    /// Anything else.
    Other,
}

impl Node {
    /// A node with these keys and places, a pair for each segment.
    pub(crate) fn new(
        secret: NodeSecret,
        places: Vec<(WgSecret, Place)>,
        authorities: Vec<AuthorityId>,
        address: SocketAddr,
        boot: Duration,
        nature: Nature,
    ) -> Self {
        let id = secret.public();
        let lane = |(wg, place): (WgSecret, Place)| Lane {
            tunnel: tunnel(&secret, &wg, &place, 0),
            wg,
            place,
            persisted: HighWater::default(),
            mark: None,
        };
        let lanes: Vec<Lane> = places.into_iter().map(lane).collect();
        let agent = agent(&secret, &lanes, &authorities, None, 0);
        Self {
            id,
            secret,
            lanes,
            authorities,
            agent,
            log: None,
            address,
            boot,
            life: 0,
            state: State::Up,
            link: Link::default(),
            score: 0.9,
            nature,
            outbox: VecDeque::new(),
            waiting: Vec::new(),
            timer: None,
        }
    }

    /// The process starts anew: what is in memory is gone.
    pub(crate) fn restart(&mut self) {
        self.life += 1;
        let seed = u64::from(self.life);
        for lane in &mut self.lanes {
            lane.tunnel = tunnel(&self.secret, &lane.wg, &lane.place, seed);
        }
        self.agent = agent(&self.secret, &self.lanes, &self.authorities, self.log, seed);
        self.link = Link::default();
        self.outbox.clear();
        self.waiting.clear();
        self.timer = None;
        self.state = State::Up;
    }

    /// Its name.
    pub(crate) fn name(&self) -> NodeName {
        self.lanes[0].place.name.clone()
    }

    /// Its epochs in a segment.
    pub(crate) fn view(&self, lane: usize) -> View<'_> {
        let segment = self.agent.segment(self.lanes[lane].place.segment);
        segment.expect("it never leaves").view()
    }

    /// The node's boot clock.
    pub(crate) fn clock(&self, now: Duration) -> Duration {
        self.boot + now
    }

    /// Both of its clocks.
    pub(crate) fn clocks(&self, now: Duration) -> Now {
        Now {
            boot: self.clock(now),
            wall: crate::control::clock(now).wall,
        }
    }

    pub(crate) fn address_inside(&self, lane: usize, v6: bool) -> IpAddr {
        let place = &self.lanes[lane].place;
        if v6 {
            place.v6.0.into()
        } else {
            place.v4.0.into()
        }
    }

    pub(crate) fn hello(&self, unix_ms: u64) -> ToController {
        ToController::Hello(Hello {
            software: "sim".into(),
            listen_port: self.address.port(),
            advertised: Vec::new(),
            addresses: Vec::new(),
            newest: self.agent.marks(),
            holds: self.agent.holds(),
            told: self.agent.told(),
            log: self.agent.log(),
            unix_ms,
            instance: fixtures::instance(1, 1),
        })
    }

    /// The controller has welcomed it.
    pub(crate) fn welcomed(&mut self, places: Vec<Place>, remote: SocketAddr, now: Duration) {
        let up = SessionEvent::Up {
            address: remote.to_string(),
            remote,
            dialled: self.clock(now),
            places,
            skew_ms: 0,
        };
        self.agent.handle_session(up, self.clocks(now));
    }

    /// The controller says something.
    pub(crate) fn told(&mut self, message: ToNode, now: Duration) {
        let message = SessionEvent::Message(Box::new(message));
        self.agent.handle_session(message, self.clocks(now));
    }

    /// Its connection to the controller is lost.
    pub(crate) fn cut_off(&mut self, now: Duration) {
        let down = SessionEvent::Down {
            address: String::new(),
            error: "lost".into(),
        };
        self.agent.handle_session(down, self.clocks(now));
    }

    /// Its benchmark has finished.
    pub(crate) fn emit(&mut self, nonce: u128, now: Duration) {
        let now = self.clocks(now);
        let run = Benchmark {
            nonce: format!("{nonce:032x}"),
            ..fixtures::run(self.score, now.wall)
        };
        self.agent
            .handle_evidence(Emission::Run(Box::new(run)), now);
    }

    /// Carries out the next thing that the agent asks for, as the daemon's shell and data plane do.
    pub(crate) fn step(&mut self, now: Duration) -> Option<Step> {
        let step = match self.agent.poll_effect()? {
            Effect::Data(segment, change) => {
                let (change, clock) = (self.bent(change), self.clock(now));
                let lane = self.lane(segment);
                let refused = change.carry_out(&mut self.lanes[lane].tunnel, clock);
                assert!(refused.is_empty(), "no key here is of low order");
                Step::Changed(lane)
            }
            Effect::Derive(segment, derivation) => {
                // Packets have passed since the change before this, and pass before the next.
                let clocks = self.clocks(now);
                if let Some(derived) = derivation.run() {
                    self.agent.handle_derived(segment, derived, clocks);
                }
                Step::Other
            }
            Effect::Send(message) => {
                self.outbox.push_back(message);
                Step::Other
            }
            Effect::Remember {
                segment,
                high_water,
                mark,
                log,
            } => {
                let lane = self.lane(segment);
                (self.lanes[lane].persisted, self.lanes[lane].mark) = (high_water, mark);
                self.log = log;
                Step::Begun(lane, high_water.epoch)
            }
            Effect::LookAtUnderlay
            | Effect::Witnessed(_)
            | Effect::Holds(_)
            | Effect::Told(_)
            | Effect::RememberRuns(_)
            | Effect::Trust(_) => Step::Other,
            Effect::HangUp
            | Effect::Move(_)
            | Effect::Placed(_)
            | Effect::Left(_)
            | Effect::Invited(_) => panic!("no clock jumps here, and no node moves"),
        };
        Some(step)
    }

    /// The lane of a segment.
    fn lane(&self, segment: SegmentId) -> usize {
        let mut lanes = self.lanes.iter();
        let lane = lanes.position(|lane| lane.place.segment == segment);
        lane.expect("effects are of its own segments")
    }

    /// A node that breaks the rules keeps what it has when its lease ends or it is excluded.
    fn bent(&self, change: DataChange) -> DataChange {
        let DataChange::Epoch(mut change, places) = change else {
            return change;
        };
        if self.nature != Nature::Honest {
            change.turn = change.turn.filter(|turn| *turn != Turn::Close);
            if let Some(install) = &mut change.install {
                install.closes_at = None;
            }
        }
        DataChange::Epoch(change, places)
    }

    /// When agent or tunnel want a turn, in the simulation's time.
    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        let agent = self.agent.poll_timeout();
        let agent = agent.filter(|_| self.nature != Nature::Rogue);
        let lanes = self.lanes.iter();
        let tunnels = lanes.filter_map(|lane| lane.tunnel.poll_timeout());
        let earliest = tunnels.chain(agent).min()?;
        Some(earliest.saturating_sub(self.boot))
    }
}

fn agent(
    secret: &NodeSecret,
    lanes: &[Lane],
    authorities: &[AuthorityId],
    log: Option<LogEnd>,
    life: u64,
) -> Agent {
    let identity = NodeSecret::from_base64(&secret.expose_base64());
    let place = &lanes[0].place;
    let segment = |lane: &Lane| SegmentConfig {
        place: lane.place.clone(),
        wg: lane.wg.duplicate(),
        high_water: lane.persisted,
        mark: lane.mark.clone(),
    };
    Agent::new(agent::Config {
        identity: identity.expect("its own form"),
        name: place.name.clone(),
        mesh: place.mesh,
        authorities: authorities.to_vec(),
        segments: lanes.iter().map(segment).collect(),
        asks: Vec::new(),
        log,
        seen: Vec::new(),
        // Every second process derives nothing itself, as if its mesh were large.
        derive_at_once: if (u64::from(secret.public().0[0]) + life).is_multiple_of(2) {
            epoch::DERIVE_AT_ONCE
        } else {
            0
        },
    })
}

fn tunnel(secret: &NodeSecret, wg: &WgSecret, place: &Place, life: u64) -> Carried {
    Carried::new(
        1_000,
        Config {
            inside: agent::inside(place),
            secret: wg.duplicate(),
            mtu: MTU,
            seed: u64::from(secret.public().0[0]) << 32 | life,
        },
    )
}

const MTU: usize = 1420;
