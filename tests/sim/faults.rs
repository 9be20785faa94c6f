//! Faults, by the seed: restarts, sleeps, partitions, scores, evictions, replays. Refuses
//! anything that the design does not promise to survive.

use crate::model::NodeModel;
use crate::node::{Nature, State};
use crate::world::{Event, World, address};
use controller::operator::Request;
use rand::Rng as _;
use rand::seq::SliceRandom as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use wire::admin::{EvictRequest, RotateRequest};
use wire::{ToNode, frame};

impl World {
    /// One thing goes wrong, or right again.
    pub(crate) fn fault(&mut self) {
        let next = self.millis(200..1_500);
        self.schedule(self.now + next, Event::Fault);
        if !self.faults {
            return;
        }
        let node = self.rng.gen_range(0..self.nodes.len());
        match self.rng.gen_range(0..100) {
            0..20 => self.rescore(node),
            20..30 => self.crash(node),
            30..40 => self.suspend(node),
            40..48 => self.partition(),
            48..53 => self.crash_controller(),
            53..60 => self.evict(node),
            60..70 => self.readmit(node),
            70..78 => self.sever(node),
            78..84 => self.rotate(),
            84..90 => self.weather(),
            90..97 => self.resend_update(),
            _ => self.turn(node),
        }
    }

    fn rescore(&mut self, node: usize) {
        let bad = self.nodes.iter().filter(|n| n.score < 0.7).count();
        let score = if bad * 4 < self.nodes.len() && self.rng.gen_bool(0.6) {
            0.3
        } else {
            0.9
        };
        self.nodes[node].score = score;
        self.note(format!("node {node} scores {score}"));
    }

    /// The process ends and starts again after a while, perhaps elsewhere.
    fn crash(&mut self, node: usize) {
        if self.nodes[node].state != State::Up || self.nodes[node].nature == Nature::Rogue {
            return;
        }
        self.counts.restarts += 1;
        self.note(format!("node {node} crashes"));
        self.sever(node);
        self.nodes[node].state = State::Down;
        self.models[node].iter_mut().for_each(NodeModel::restarted);
        let away = if self.rng.gen_bool(0.2) {
            self.millis(10..25_000)
        } else {
            self.millis(10..2_000)
        };
        self.schedule(self.now + away, Event::Boot { node });
    }

    pub(crate) fn boot(&mut self, node: usize) {
        if self.nodes[node].state != State::Down {
            return;
        }
        self.nodes[node].restart();
        if self.rng.gen_bool(0.3) {
            let moved = address(node, self.nodes[node].life);
            self.nodes[node].address = moved;
            self.net.owners.insert(moved, node);
        }
        self.note(format!(
            "node {node} starts in {}",
            self.nodes[node].lanes[0].persisted.epoch
        ));
        self.dial(node);
    }

    /// The machine sleeps, its boot clock runs on, and what arrives waits.
    fn suspend(&mut self, node: usize) {
        if self.nodes[node].state != State::Up || self.nodes[node].nature == Nature::Rogue {
            return;
        }
        self.counts.sleeps += 1;
        self.nodes[node].state = State::Asleep;
        let time = if self.rng.gen_bool(0.4) {
            self.millis(10_000..40_000)
        } else {
            self.millis(50..6_000)
        };
        self.note(format!("node {node} sleeps for {time:?}"));
        self.schedule(self.now + time, Event::Wake { node });
    }

    pub(crate) fn wake(&mut self, node: usize) {
        if self.nodes[node].state != State::Asleep {
            return;
        }
        self.note(format!("node {node} wakes"));
        self.nodes[node].state = State::Up;
        self.nodes[node].timer = None;
        // Packets, timers and the control channel race: data thread and agent are two.
        if self.rng.gen_bool(0.5) {
            self.run_node(node);
        }
        for event in std::mem::take(&mut self.nodes[node].waiting) {
            self.happen(event);
        }
        self.run_node(node);
        if self.nodes[node].link.connection.is_none() {
            self.dial(node);
        }
    }

    /// Some nodes are cut off from the others and from the controller.
    fn partition(&mut self) {
        if !self.net.island.is_empty() {
            return;
        }
        self.counts.partitions += 1;
        let share = self.rng.gen_range(0.05..0.6);
        let count = self.nodes.len();
        self.net.island = (0..count).filter(|_| self.rng.gen_bool(share)).collect();
        self.note(format!("partition of {:?}", self.net.island));
        for node in self.net.island.clone() {
            self.sever(node);
        }
        let time = self.millis(500..30_000);
        self.schedule(self.now + time, Event::Heal);
    }

    fn crash_controller(&mut self) {
        if self.controller.engine.is_none() {
            return;
        }
        self.counts.controller_restarts += 1;
        self.note("controller crashes".into());
        self.stop_controller();
        let away = if self.rng.gen_bool(0.3) {
            self.millis(5_000..35_000)
        } else {
            self.millis(10..2_000)
        };
        let rebooted = self.rng.gen_bool(0.3);
        self.schedule(self.now + away, Event::BootController { rebooted });
    }

    pub(crate) fn evict(&mut self, node: usize) {
        let (id, name) = (self.nodes[node].id, self.nodes[node].name());
        // Before it is asked for: what the answer sets off counts.
        let first = self.evicted.insert(id);
        if self.ask(Request::Evict(name, EvictRequest { reason: None })) {
            self.note(format!("node {node} is evicted"));
        } else if first {
            self.evicted.remove(&id);
        }
    }

    pub(crate) fn readmit(&mut self, node: usize) {
        let (id, name) = (self.nodes[node].id, self.nodes[node].name());
        let before = self.evicted.remove(&id);
        if self.ask(Request::Readmit(name)) {
            self.note(format!("node {node} is readmitted"));
        } else if before {
            self.evicted.insert(id);
        }
    }

    fn rotate(&mut self) {
        let now = self.rng.r#gen();
        let confirm_removals = false;
        let lane = self.rng.gen_range(0..self.lanes());
        let place = &self.nodes[0].lanes[lane].place;
        let segment = Some(place.segment_name.clone()).filter(|_| self.rng.gen_bool(0.5));
        let form = RotateRequest {
            now,
            confirm_removals,
            segment,
        };
        if self.ask(Request::Rotate(form)) {
            self.note(format!("an operator rotates, at once: {now}"));
        }
    }

    pub(crate) fn confirm_removals(&mut self) {
        let form = RotateRequest {
            now: true,
            confirm_removals: true,
            segment: None,
        };
        let confirmed = self.ask(Request::Rotate(form));
        assert!(confirmed, "in peace the controller runs");
    }

    fn weather(&mut self) {
        self.net.loss = *[0.0, 0.01, 0.05, 0.15].choose(&mut self.rng).expect("four");
        self.net.duplication = self.rng.gen_range(0.0..0.1);
        self.net.jitter = self.millis(1..80);
        self.control_delay = self.millis(5..400);
    }

    /// A lawless node stops listening to the controller, and fails.
    fn turn(&mut self, node: usize) {
        if self.nodes[node].nature == Nature::Lawless && self.nodes[node].state == State::Up {
            self.note(format!("node {node} turns rogue"));
            self.nodes[node].nature = Nature::Rogue;
            self.nodes[node].score = 0.1;
        }
    }

    /// A node is told again what it or another was told before, as if it were new.
    fn resend_update(&mut self) {
        let Some((_, bytes)) = self.controller.sent.choose(&mut self.rng).cloned() else {
            return;
        };
        let node = self.rng.gen_range(0..self.nodes.len());
        let Ok(Some((ToNode::Update(mut update), _))) = frame::decode::<ToNode>(&bytes) else {
            return;
        };
        let trusted = [self.controller.authority.public()];
        let old = update.signed.verify(&trusted).expect("it was sent");
        // Of the newest epoch a controller may say what it likes: it is its own.
        let lanes = self.nodes[node].lanes.iter();
        let mut lanes = lanes.map(|lane| lane.place.segment);
        let lane = lanes.position(|it| it == old.segment);
        let older = self.models[node][lane.expect("it is in all")].persisted() > old.epoch;
        // The log that came with it goes to nobody whose own is shorter: the controller would not know of it, and the
        // node would rightly ask for the next update again.
        let mark = update.mark.verify(&trusted).expect("it was sent");
        let own = self.nodes[node].agent.log();
        let is_news = own.is_none_or(|own| own.events < mark.log.events);
        if self.nodes[node].state != State::Up || !older || is_news {
            return;
        }
        self.counts.old_updates += 1;
        update.age_ms = 0;
        self.update_node(node, ToNode::Update(update));
        self.run_node(node);
    }

    /// An attacker sends again, from its own address, what a node has taken before.
    pub(crate) fn replay(&mut self) {
        self.schedule(self.now + Duration::from_millis(50), Event::Replay);
        if self.taken.is_empty() {
            return;
        }
        let at = self.rng.gen_range(0..self.taken.len());
        let taken = &self.taken[at];
        let sender = self.nodes[taken.datagram.sender].id;
        let same_life = self.nodes[taken.receiver].life == taken.life;
        let same_peer =
            self.models[taken.receiver][taken.datagram.lane].lineage(&sender) == taken.lineage;
        // Both promise only as much memory as WireGuard has: a process's, a peer's.
        if !same_life || !same_peer {
            return;
        }
        let mut datagram = taken.datagram.clone();
        datagram.from = ATTACKER;
        datagram.to = self.nodes[taken.receiver].address;
        if self.nodes[taken.receiver].state == State::Up {
            self.arrive(datagram);
        }
    }
}

const ATTACKER: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(203, 0, 113, 66)), 666);
