//! The simulation: one queue of events in virtual time, and what each of them does. After everything
//! that a node does, what it holds is compared with the model ([`crate::check`]).
//!
//! The file is long because every event ends here.

use crate::carry;
use crate::control::{Controller, clock};
use crate::model::NodeModel;
use crate::net::Net;
use crate::node::{Nature, Node, State, Step};
use crate::packet::{self, Packet};
use controller::engine::ConnectionId;
use keys::{NodeId, NodeSecret, WgPublicKey, WgSecret};
use policy::Policy;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use rand_core::{CryptoRng, RngCore};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tunnel::{Inbound, MIN_BUFFER, Outbound, PADDING, Path};

/// The whole mesh.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) now: Duration,
    pub(crate) rng: SmallRng,
    pub(crate) net: Net,
    pub(crate) nodes: Vec<Node>,
    /// By node and by segment.
    pub(crate) models: Vec<Vec<NodeModel>>,
    pub(crate) by_key: HashMap<WgPublicKey, NodeId>,
    pub(crate) controller: Controller,
    pub(crate) control_delay: Duration,
    pub(crate) packets: Vec<Packet>,
    /// Datagrams that a node has taken, for those who would send them again.
    pub(crate) taken: VecDeque<Taken>,
    /// Sends nothing of its own accord while false.
    pub(crate) traffic: bool,
    pub(crate) traffic_gap: Duration,
    pub(crate) faults: bool,
    /// Whom an operator has excluded.
    pub(crate) evicted: BTreeSet<NodeId>,
    pub(crate) counts: Counts,
    /// The last things that happened, printed with a failure.
    notes: VecDeque<String>,
    queue: BinaryHeap<Reverse<(Duration, u64)>>,
    events: BTreeMap<u64, Event>,
    scheduled: u64,
}

/// Something that will happen.
pub(crate) enum Event {
    Datagram(Datagram),
    Timer {
        node: usize,
        at: Duration,
    },
    Engine {
        at: Duration,
    },
    ToEngine {
        id: ConnectionId,
        bytes: Vec<u8>,
    },
    ToNode {
        id: ConnectionId,
        node: usize,
        bytes: Vec<u8>,
    },
    Dial {
        node: usize,
        life: u32,
    },
    LinkLost {
        id: ConnectionId,
        node: usize,
    },
    HungUp {
        id: ConnectionId,
    },
    Evidence {
        node: usize,
    },
    Traffic,
    Fault,
    Boot {
        node: usize,
    },
    Wake {
        node: usize,
    },
    BootController {
        rebooted: bool,
    },
    Heal,
    Replay,
}

/// A datagram on its way.
#[derive(Clone)]
pub(crate) struct Datagram {
    /// The segment whose tunnel takes it: its MAC or its index says so.
    pub(crate) lane: usize,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) sender: usize,
    pub(crate) bytes: Vec<u8>,
    /// The receiver has taken exactly this before.
    pub(crate) again: bool,
}

/// A datagram that was taken, and by which life of which receiver.
pub(crate) struct Taken {
    pub(crate) datagram: Datagram,
    pub(crate) receiver: usize,
    pub(crate) life: u32,
    pub(crate) lineage: u64,
}

/// That something was tested at all.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) delivered: u64,
    pub(crate) replays_refused: u64,
    pub(crate) spoofs_refused: u64,
    /// Datagrams of one segment at the tunnel of another.
    pub(crate) strays_refused: u64,
    pub(crate) old_updates: u64,
    pub(crate) restarts: u64,
    pub(crate) sleeps: u64,
    pub(crate) partitions: u64,
    pub(crate) controller_restarts: u64,
    pub(crate) lapses: u64,
}

impl World {
    /// `count` enrolled nodes without evidence, a controller, a calm network and no traffic.
    pub(crate) fn new(
        seed: u64,
        count: usize,
        policies: Vec<Policy>,
        natures: &[(usize, Nature)],
    ) -> Self {
        let mut world = Self {
            seed,
            now: Duration::ZERO,
            rng: SmallRng::seed_from_u64(seed),
            net: Net::calm(),
            nodes: Vec::new(),
            models: Vec::new(),
            by_key: HashMap::new(),
            controller: Controller::new(policies),
            control_delay: Duration::from_millis(30),
            packets: Vec::new(),
            taken: VecDeque::new(),
            traffic: false,
            traffic_gap: Duration::from_millis(10),
            faults: false,
            evicted: BTreeSet::new(),
            counts: Counts::default(),
            notes: VecDeque::new(),
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            scheduled: 0,
        };
        for index in 0..count {
            let nature = natures.iter().find(|(node, _)| *node == index);
            world.add(index, nature.map_or(Nature::Honest, |(_, nature)| *nature));
            if index % 16 == 15 {
                // The controller enrols so many per second.
                world.now += Duration::from_secs(1);
            }
        }
        for node in 0..count {
            let offset = world.millis(0..200);
            world.schedule(world.now + offset, Event::Dial { node, life: 0 });
            let offset = world.millis(100..1_000);
            world.schedule(world.now + offset, Event::Evidence { node });
        }
        world.schedule(world.now, Event::Traffic);
        world.schedule(world.now, Event::Fault);
        world.schedule(world.now, Event::Replay);
        world.run_engine();
        world
    }

    fn add(&mut self, index: usize, nature: Nature) {
        let mut rng = Seeded(&mut self.rng);
        let secret = NodeSecret::generate(&mut rng);
        let lanes = self.controller.policies.len();
        let keys: Vec<_> = (0..lanes).map(|_| WgSecret::generate(&mut rng)).collect();
        let name = format!("node-{index}").parse().expect("a name");
        let places = self.controller.enrol(&secret, &keys, name, self.now);
        let address = address(index, 0);
        self.net.owners.insert(address, index);
        for wg in &keys {
            self.by_key.insert(wg.public(), secret.public());
        }
        let model = |_| NodeModel::new(secret.public());
        self.models.push((0..lanes).map(model).collect());
        let boot = self.millis(0..5_000_000);
        let authorities = vec![self.controller.authority.public()];
        self.nodes.push(Node::new(
            secret,
            keys.into_iter().zip(places).collect(),
            authorities,
            address,
            boot,
            nature,
        ));
    }

    /// How many segments there are.
    pub(crate) fn lanes(&self) -> usize {
        self.controller.policies.len()
    }

    // ---- time ---------------------------------------------------------------------------------

    pub(crate) fn schedule(&mut self, at: Duration, event: Event) {
        self.scheduled += 1;
        self.queue.push(Reverse((at, self.scheduled)));
        self.events.insert(self.scheduled, event);
    }

    /// Lets virtual time pass.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(Reverse((at, _))) = self.queue.peek()
            && *at <= end
        {
            let Some(Reverse((at, number))) = self.queue.pop() else {
                break;
            };
            self.now = self.now.max(at);
            if let Some(event) = self.events.remove(&number) {
                self.happen(event);
            }
        }
        self.now = end;
    }

    pub(crate) fn happen(&mut self, event: Event) {
        match event {
            Event::Datagram(datagram) => self.arrive(datagram),
            Event::Timer { node, at } => {
                if self.nodes[node].timer == Some(at) && self.nodes[node].state == State::Up {
                    self.nodes[node].timer = None;
                    self.run_node(node);
                }
            }
            Event::Engine { at } => {
                if self.controller.timer == Some(at) {
                    self.controller.timer = None;
                    self.run_engine();
                }
            }
            Event::ToEngine { id, bytes } => self.at_engine(id, &bytes),
            Event::ToNode { id, node, bytes } => match self.nodes[node].state {
                State::Up if self.is_open(id) => self.at_node(id, node, &bytes),
                State::Asleep if self.is_open(id) => {
                    let event = Event::ToNode { id, node, bytes };
                    self.nodes[node].waiting.push(event);
                }
                State::Up | State::Asleep | State::Down => {}
            },
            Event::Dial { node, life } => {
                if self.nodes[node].life == life {
                    self.dial(node);
                }
            }
            Event::LinkLost { id, node } => self.link_lost(id, node),
            Event::HungUp { id } => self.hung_up(id),
            Event::Evidence { node } => {
                if self.nodes[node].state == State::Up {
                    self.emit_evidence(node);
                }
                let next = self.millis(3_000..4_000);
                self.schedule(self.now + next, Event::Evidence { node });
            }
            Event::Traffic => self.chat(),
            Event::Fault => self.fault(),
            Event::Boot { node } => self.boot(node),
            Event::Wake { node } => self.wake(node),
            Event::BootController { rebooted } => self.start_controller(rebooted),
            Event::Heal => self.net.island.clear(),
            Event::Replay => self.replay(),
        }
    }

    pub(crate) fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.rng.gen_range(range))
    }

    // ---- a node's turn ------------------------------------------------------------------------

    /// Timers of the agent and the tunnel, and everything that follows.
    pub(crate) fn run_node(&mut self, node: usize) {
        self.run_agent(node);
        let clock = self.nodes[node].clock(self.now);
        for lane in &mut self.nodes[node].lanes {
            lane.tunnel.handle_timeout(clock);
        }
        self.flush(node);
    }

    /// Does the due work of the node's agent, and what follows from it.
    pub(crate) fn run_agent(&mut self, node: usize) {
        if self.nodes[node].nature == Nature::Rogue {
            return;
        }
        let clocks = self.nodes[node].clocks(self.now);
        let lapsed = |world: &Self| {
            let lanes = 0..world.lanes();
            lanes
                .filter(|lane| world.nodes[node].view(*lane).lapsed)
                .count()
        };
        let before = lapsed(self);
        self.nodes[node].agent.handle_clocks(clocks);
        self.nodes[node].agent.handle_timeout(clocks);
        for model in &mut self.models[node] {
            model.agent_ran(self.now);
        }
        self.carry_out(node);
        self.counts.lapses += lapsed(self).saturating_sub(before) as u64;
        self.check_node(node);
    }

    /// Carries out what a node's agent asks for. Between two changes of the data plane its other threads
    /// go on: packets are sent, and what the tunnel has to say goes out. That is held against the model in the segment
    /// that has changed alone: what is due in the others in the same turn comes right behind, and the model has it.
    pub(crate) fn carry_out(&mut self, node: usize) {
        let lanes = self.nodes[node].lanes.iter();
        let mut before: Vec<_> = lanes.map(|lane| lane.persisted.epoch).collect();
        while let Some(step) = self.nodes[node].step(self.now) {
            match step {
                Step::Changed(lane) => {
                    self.flush_lane(lane, node);
                    if self.traffic && self.rng.gen_bool(0.3) {
                        let other = self.rng.gen_range(0..self.nodes.len());
                        if other != node {
                            self.say(lane, node, other, false);
                        }
                    }
                }
                Step::Begun(lane, epoch) => {
                    let before = &mut before[lane];
                    assert!(
                        epoch >= *before,
                        "node {node} goes back from {before} to {epoch}"
                    );
                    *before = epoch;
                }
                Step::Other => {}
            }
        }
        self.send_outbox(node);
    }

    /// Sends what the tunnel has to say, and sets the node's timer.
    pub(crate) fn flush(&mut self, node: usize) {
        for lane in 0..self.lanes() {
            self.flush_lane(lane, node);
        }
    }

    /// The same in one segment.
    fn flush_lane(&mut self, lane: usize, node: usize) {
        while let Some(transmit) = self.nodes[node].lanes[lane].tunnel.poll_transmit() {
            let Path::Udp(to) = transmit.to;
            self.send(lane, node, to, transmit.payload);
        }
        while self.nodes[node].lanes[lane].tunnel.poll_event().is_some() {}
        if let Some(due) = self.nodes[node].poll_timeout() {
            let due = due.max(self.now + Duration::from_micros(100));
            if self.nodes[node].timer.is_none_or(|timer| due < timer) {
                self.nodes[node].timer = Some(due);
                self.schedule(due, Event::Timer { node, at: due });
            }
        }
    }

    // ---- packets ------------------------------------------------------------------------------

    /// Random pairs talk, each node mostly with its neighbours.
    fn chat(&mut self) {
        let gap = self.traffic_gap.mul_f64(self.rng.gen_range(0.5..1.5));
        self.schedule(self.now + gap, Event::Traffic);
        if !self.traffic {
            return;
        }
        let count = self.nodes.len();
        let from = self.rng.gen_range(0..count);
        let near = self.rng.gen_bool(0.8);
        let distance = self.rng.gen_range(1..if near { 5 } else { count });
        let spoofed = self.rng.gen_bool(0.02);
        let lane = self.lane();
        self.say(lane, from, (from + distance) % count, spoofed);
    }

    /// A segment by chance.
    fn lane(&mut self) -> usize {
        let lanes = self.lanes();
        self.rng.gen_range(0..lanes)
    }

    /// A packet into the tunnel of `from` in a segment; `spoofed`: with a third node's source address, or with its own
    /// in another segment.
    pub(crate) fn say(&mut self, lane: usize, from: usize, to: usize, spoofed: bool) {
        if self.nodes[from].state != State::Up {
            return;
        }
        let v6 = self.rng.r#gen();
        let third = (0..self.nodes.len()).find(|node| *node != from && *node != to);
        let author = third.filter(|_| spoofed).unwrap_or(from);
        let across = spoofed && self.lanes() > 1 && self.rng.gen_bool(0.5);
        let source = if across {
            self.nodes[from].address_inside((lane + 1) % self.lanes(), v6)
        } else {
            self.nodes[author].address_inside(lane, v6)
        };
        let destination = self.nodes[to].address_inside(lane, v6);
        let number = self.packets.len();
        self.packets.push(Packet {
            lane,
            from,
            to,
            spoofed,
            delivered: false,
        });
        let len = self.rng.gen_range(0..600);
        let mut packet = packet::build(source, destination, number as u64, len);
        let len = packet.len();
        packet.resize(len + PADDING, 0);
        let mut out = vec![0; (packet.len() + tunnel::DATA_OVERHEAD).max(MIN_BUFFER)];
        let clock = self.nodes[from].clock(self.now);
        let tunnel = &mut self.nodes[from].lanes[lane].tunnel;
        let outbound = carry::send(tunnel, &mut packet, len, &mut out, clock);
        if let Outbound::Send {
            to: Path::Udp(address),
            len,
        } = outbound
        {
            self.check_sealed(lane, from, to);
            out.truncate(len);
            self.send(lane, from, address, out);
        }
        self.flush_lane(lane, from);
    }

    /// A datagram leaves a node.
    fn send(&mut self, lane: usize, sender: usize, to: SocketAddr, bytes: Vec<u8>) {
        let Some(receiver) = self.check_leaving(lane, sender, to, &bytes) else {
            return;
        };
        if !self.net.connected(sender, receiver) {
            return;
        }
        let from = self.nodes[sender].address;
        for delay in self.net.delays(sender, receiver, &mut self.rng) {
            let datagram = Datagram {
                lane,
                from,
                to,
                sender,
                bytes: bytes.clone(),
                again: false,
            };
            self.schedule(self.now + delay, Event::Datagram(datagram));
        }
    }

    pub(crate) fn arrive(&mut self, datagram: Datagram) {
        let owner = self.net.owners.get(&datagram.to).copied();
        let Some(node) = owner.filter(|node| self.nodes[*node].address == datagram.to) else {
            return;
        };
        if !datagram.again && !self.net.connected(datagram.sender, node) {
            return;
        }
        match self.nodes[node].state {
            State::Up => self.take(node, datagram),
            State::Down => {}
            // A full socket takes no more.
            State::Asleep if self.nodes[node].waiting.len() >= SOCKET => {}
            State::Asleep => self.nodes[node].waiting.push(Event::Datagram(datagram)),
        }
    }

    fn take(&mut self, node: usize, datagram: Datagram) {
        let mut out = vec![0; datagram.bytes.len()];
        let clock = self.nodes[node].clock(self.now);
        self.check_apart(node, &datagram);
        let tunnel = &mut self.nodes[node].lanes[datagram.lane].tunnel;
        let inbound = carry::receive(tunnel, datagram.from, &datagram.bytes, &mut out, clock);
        if datagram.again {
            self.check_refused(node, &datagram, inbound);
        } else if let Inbound::Deliver { len } = inbound {
            self.check_delivered(node, &datagram, &out[..len]);
        } else if inbound == Inbound::Dropped(tunnel::DropReason::SourceNotAllowed) {
            self.counts.spoofs_refused += 1;
        }
        if !matches!(inbound, Inbound::Dropped(_)) {
            self.remember(node, datagram);
        }
        self.flush(node);
    }

    // ---- failure ------------------------------------------------------------------------------

    pub(crate) fn note(&mut self, what: String) {
        let at = clock(self.now).boot;
        self.notes
            .push_back(format!("{:9.3} s  {what}", at.as_secs_f64()));
        if self.notes.len() > NOTES {
            self.notes.pop_front();
        }
    }
}

impl Drop for World {
    #[expect(
        clippy::print_stderr,
        reason = "a failure must say how to see it again"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let notes: Vec<&str> = self.notes.iter().map(String::as_str).collect();
            eprintln!(
                "what happened last:\n{}\n\nat {:.3} s; again with SIM_SEED={} SIM_RUNS=1",
                notes.join("\n"),
                self.now.as_secs_f64(),
                self.seed
            );
        }
    }
}

/// Keys from the seed: which side of a pair initiates depends on them.
struct Seeded<'a>(&'a mut SmallRng);

impl RngCore for Seeded<'_> {
    fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_core::Error> {
        self.0.try_fill_bytes(bytes)
    }
}

/// No secret here is worth anything.
impl CryptoRng for Seeded<'_> {}

/// Where a node is reached; `move_` counts its moves.
pub(crate) fn address(index: usize, moves: u32) -> SocketAddr {
    let ip = Ipv4Addr::new(198, 18, moves as u8, index as u8 + 1);
    SocketAddr::new(ip.into(), 51820)
}

const NOTES: usize = 60;
const SOCKET: usize = 200;
