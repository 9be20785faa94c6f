//! Scenarios that are always the same.

use crate::world::World;
use policy::Policy;
use std::time::Duration;

/// The one that the product exists for.
#[test]
fn of_twenty_nodes_one_fails_and_is_gone_while_the_others_go_on_under_loss() {
    let policy = Policy {
        epoch_seconds: 20,
        max_benchmark_age: 15,
        ..Policy::default()
    };
    let mut world = World::new(0, NODES, vec![policy], &[]);
    world.pass(Duration::from_secs(5));
    world.net.loss = 0.03;
    world.net.jitter = Duration::from_millis(10);
    world.traffic = true;
    world.traffic_gap = Duration::from_millis(5);
    world.pass(Duration::from_secs(10));
    let member = |world: &World| {
        let published = &world.controller.published[&FIRST];
        published.member(&world.nodes[FAILING].id).is_some()
    };
    assert!(member(&world), "it is a member as long as it does well");

    world.nodes[FAILING].score = 0.3;
    let from = world.packets.len();
    while member(&world) {
        world.pass(Duration::from_millis(1));
    }
    let epoch = world.controller.published[&FIRST].epoch;
    let involves = |p: &crate::packet::Packet| p.from == FAILING || p.to == FAILING;
    let reached = |world: &World, from: usize| {
        let packets = world.packets.iter().skip(from);
        packets.filter(|p| involves(p) && p.delivered).count()
    };
    assert!(reached(&world, from) > 0, "until then it talks");
    // That nothing of it is delivered from the very activation on is checked at every delivery; from
    // when the last node has activated on, nothing that it says may ever arrive.
    while world
        .models
        .iter()
        .any(|models| models[0].epochs().0 != Some(epoch))
    {
        world.pass(Duration::from_millis(1));
    }
    let before = reached(&world, 0);
    let from = world.packets.len();
    world.pass(Duration::from_secs(15));
    assert_eq!(
        reached(&world, 0),
        before,
        "nothing to it or from it arrives"
    );

    let others: Vec<bool> = world.packets[from..world.packets.len() - IN_FLIGHT]
        .iter()
        .filter(|packet| !involves(packet) && !packet.spoofed)
        .map(|packet| packet.delivered)
        .collect();
    let delivered = others.iter().filter(|delivered| **delivered).count();
    let share = delivered as f64 / others.len() as f64;
    assert!(
        others.len() > 1_000 && share > 0.95,
        "{share:.3} of {}",
        others.len()
    );
}

/// Every node has closed by then; what the controller says when it is back must be enough to find
/// each other again, although nobody is new in the roster.
#[test]
fn a_mesh_whose_controller_was_away_for_longer_than_the_lease_finds_together_again() {
    let policy = Policy {
        epoch_seconds: 10,
        lease_seconds: 15,
        max_benchmark_age: 15,
        ..Policy::default()
    };
    let mut world = World::new(0, 8, vec![policy], &[]);
    world.traffic = true;
    world.pass(Duration::from_secs(20));
    world.stop_controller();
    world.pass(Duration::from_secs(40));
    let lapsed = |world: &World| {
        let lapsed = world.nodes.iter().filter(|node| node.view(0).lapsed);
        lapsed.count()
    };
    assert_eq!(lapsed(&world), 8, "every node has closed");
    world.start_controller(false);
    world.pass(Duration::from_secs(30));
    assert_eq!(lapsed(&world), 0);
    world.everybody_talks();
}

/// The lease ends while the next epoch is installed and waits for its activation.
#[test]
fn a_lease_that_ends_just_before_the_next_epoch_begins_costs_that_epoch_nothing() {
    let policy = Policy {
        epoch_seconds: 10,
        lease_seconds: 10,
        max_benchmark_age: 15,
        ..Policy::default()
    };
    let mut world = World::new(0, 8, vec![policy], &[]);
    world.control_delay = Duration::from_millis(400);
    world.traffic = true;
    world.pass(Duration::from_secs(100));
    assert!(world.counts.lapses > 0, "it happens");
    world.everybody_talks();
}

const FIRST: keys::SegmentId = keys::SegmentId::FIRST;
const NODES: usize = 20;
const FAILING: usize = 7;
/// Packets that may still be on their way, or lost in the last moment.
const IN_FLIGHT: usize = 50;
