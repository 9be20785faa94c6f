//! A whole mesh in one thread and in virtual time: the product's agents and tunnels and the real
//! controller engine, on a simulated network, with faults from a seed, against a reference model.
//!
//! | File | Holds |
//! |---|---|
//! | here | the runs: chaos by seed, and scenarios that are always the same |
//! | [`world`] | the queue of events, and what each does |
//! | [`node`], [`control`] | a node with its agent; the controller and the control channel |
//! | [`net`], [`packet`], [`faults`] | the network, what runs over it, what goes wrong |
//! | [`carry`] | a packet's way through a tunnel, as the product's data threads take it |
//! | [`model`], [`check`] | what should be, and the comparison after every step |
//!
//! `SIM_SEED=n` begins with seed n, `SIM_RUNS=n` does n runs. boringtun draws its keys and timestamps
//! from the operating system, so a seed replays behaviour, not bytes.

#[path = "../../crates/tunnel/tests/carry/mod.rs"]
mod carry;
mod check;
mod control;
mod faults;
mod model;
mod net;
mod node;
mod packet;
mod scenarios;
mod world;

use node::{Nature, State};
use policy::{Policy, Revoke};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use std::collections::BTreeSet;
use std::time::Duration;
use wire::update::LeaseEnd;
use world::{Counts, World};

#[test]
fn whatever_goes_wrong_nobody_reaches_whom_the_epoch_does_not_allow_and_it_heals() {
    let first = number("SIM_SEED").unwrap_or(FIRST_SEED);
    let runs = number("SIM_RUNS").unwrap_or(RUNS);
    let mut all = Counts::default();
    for seed in first..first + runs {
        let counts = chaos(seed);
        println!("seed {seed}: {counts:?}");
        all.delivered += counts.delivered;
        all.replays_refused += counts.replays_refused;
        all.spoofs_refused += counts.spoofs_refused;
        all.strays_refused += counts.strays_refused;
        all.old_updates += counts.old_updates;
        all.restarts += counts.restarts;
        all.sleeps += counts.sleeps;
        all.partitions += counts.partitions;
        all.controller_restarts += counts.controller_restarts;
        all.lapses += counts.lapses;
    }
    println!("{runs} runs: {all:?}");
}

/// One run: trouble, then peace, then everybody who may talk does.
fn chaos(seed: u64) -> Counts {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x5eed);
    // Mostly small ones: what goes wrong goes wrong between few, and more runs fit into the time.
    let count = if rng.gen_bool(0.01) {
        24
    } else {
        rng.gen_range(5..11)
    };
    let policy = Policy {
        epoch_seconds: EPOCH,
        lease_seconds: *[12, 15, 30].choose(&mut rng).expect("three"),
        max_benchmark_age: 15,
        revoke: *[Revoke::Epoch, Revoke::Now].choose(&mut rng).expect("two"),
        on_lease_end: if rng.gen_bool(0.2) {
            LeaseEnd::Open
        } else {
            LeaseEnd::Close
        },
        ..Policy::default()
    };
    // Half of the meshes have a second segment, which is less strict and has another rhythm.
    let second = Policy {
        threshold: 0.5,
        epoch_seconds: 7,
        ..policy.clone()
    };
    let segments = if rng.gen_bool(0.5) { 2 } else { 1 };
    let policies: Vec<Policy> = [policy, second].into_iter().take(segments).collect();
    let lawless = [(1, Nature::Lawless), (2, Nature::Lawless)];
    let mut world = World::new(seed, count, policies, &lawless);
    world.note(format!("{count} nodes, {:?}", world.controller.policies));
    world.pass(Duration::from_secs(5));
    world.traffic = true;
    world.traffic_gap = Duration::from_millis(12);
    world.net.loss = 0.02;
    world.net.duplication = 0.02;
    world.net.jitter = Duration::from_millis(20);
    world.pass(Duration::from_secs(10));
    world.faults = true;
    world.pass(Duration::from_secs(TROUBLE));
    world.peace();
    world.pass(Duration::from_secs(PEACE));
    // In a small mesh the sanity floor may keep those who fail, until an operator has looked.
    world.confirm_removals();
    world.pass(Duration::from_secs(PEACE));
    world.everybody_talks();
    std::mem::take(&mut world.counts)
}

impl World {
    /// Nothing goes wrong any more but a little loss; a few nodes stay bad or evicted.
    fn peace(&mut self) {
        self.note("peace".into());
        self.faults = false;
        self.net.island.clear();
        self.net.loss = 0.01;
        self.net.jitter = Duration::from_millis(10);
        self.control_delay = Duration::from_millis(60);
        self.start_controller(false);
        for node in 0..self.nodes.len() {
            match self.nodes[node].state {
                State::Up => {}
                State::Asleep => self.wake(node),
                State::Down => self.boot(node),
            }
            if node >= 3 {
                self.readmit(node);
            }
            let is_rogue = self.nodes[node].nature == Nature::Rogue;
            self.nodes[node].score = match node % 7 {
                _ if is_rogue => 0.2,
                3 => 0.2,
                // Good enough for the second segment.
                4 => 0.6,
                _ => 0.9,
            };
        }
    }

    /// Every ordered pair of members delivers a fresh packet in time; nobody else does.
    pub(crate) fn everybody_talks(&mut self) {
        for lane in 0..self.lanes() {
            self.everybody_talks_in(lane);
        }
    }

    fn everybody_talks_in(&mut self, lane: usize) {
        let segment = self.nodes[0].lanes[lane].place.segment;
        let threshold = self.controller.policies[lane].threshold;
        let roster = &self.controller.published[&segment];
        let members: BTreeSet<usize> = (0..self.nodes.len())
            .filter(|node| roster.member(&self.nodes[*node].id).is_some())
            .collect();
        for node in 3..self.nodes.len() {
            let good = self.nodes[node].score >= threshold;
            assert_eq!(members.contains(&node), good, "node {node} and the roster");
        }
        let first = self.packets.len();
        let all = 0..self.nodes.len();
        let mut missing: Vec<(usize, usize)> = all
            .clone()
            .flat_map(|from| all.clone().map(move |to| (from, to)))
            .filter(|(from, to)| from != to)
            .collect();
        for _ in 0..PROBES {
            for (from, to) in &missing {
                self.say(lane, *from, *to, false);
            }
            self.pass(Duration::from_secs(1));
            let came = self.packets.iter().skip(first);
            for packet in came.filter(|p| p.delivered && p.lane == lane) {
                let pair = (packet.from, packet.to);
                let allowed = members.contains(&pair.0) && members.contains(&pair.1);
                assert!(
                    allowed || self.both_outlaws(pair),
                    "{pair:?} reach each other"
                );
                missing.retain(|missing| *missing != pair);
            }
        }
        missing.retain(|(from, to)| members.contains(from) && members.contains(to));
        for pair in missing.iter().take(4) {
            self.explain(lane, *pair);
        }
        assert!(
            missing.is_empty(),
            "members that do not reach each other: {missing:?}"
        );
    }

    /// Notes what one node knows about another.
    fn explain(&mut self, lane: usize, (from, to): (usize, usize)) {
        let clock = self.nodes[from].clock(self.now);
        let key = self.nodes[to].lanes[lane].wg.public();
        let peers = self.nodes[from].lanes[lane].tunnel.snapshot(clock);
        let peer = peers.into_iter().find(|peer| peer.key == key);
        let there = self.nodes[to].address;
        let epochs = self.models[from][lane].epochs();
        self.note(format!(
            "{from} in {epochs:?} of {to} at {there}: {peer:?}, connected: {}",
            self.nodes[from].link.welcomed
        ));
    }

    /// Two that ignore the rules may do with each other what they like.
    fn both_outlaws(&self, (from, to): (usize, usize)) -> bool {
        let honest = |node: usize| self.nodes[node].nature == Nature::Honest;
        !honest(from) && !honest(to)
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("SIM_SEED and SIM_RUNS are numbers"))
}

const FIRST_SEED: u64 = 1;
const RUNS: u64 = 24;
/// Virtual seconds.
const EPOCH: u64 = 10;
const TROUBLE: u64 = 90;
/// Twice.
const PEACE: u64 = 25;
const PROBES: u32 = 16;
