//! Rules of traffic and groups, from the operator's word into the next update.

use super::*;
use policy::{Allow, Ports};
use wire::rules::{Groups, Protocol, Rules, Traffic};

fn denying() -> Policy {
    Policy {
        traffic: Traffic::Deny,
        hub: vec!["store".into()],
        allow: vec![Allow {
            protocol: Protocol::Tcp,
            ports: vec![Ports {
                first: 22,
                last: 22,
            }],
            from: vec!["trainer".into()],
            to: Vec::new(),
        }],
        ..Policy::default()
    }
}

fn put(world: &mut World, node: &Node, group: &str, member: bool) {
    let order = Request::Group {
        name: node.name.clone(),
        group: group.into(),
        member,
    };
    assert!(world.ask(order).is_ok());
}

/// Through the end of the epoch in force, with evidence of both.
fn pass_epoch(world: &mut World, nodes: [&Node; 2]) {
    for _ in 0..2 {
        world.pass(s(35));
        for node in nodes {
            world.evidence(node, 0.9);
        }
    }
}

#[test]
fn rules_and_groups_come_with_the_next_epoch_and_simulate_tells_of_them_before() {
    let mut world = World::new(Policy::default());
    let [a, b] = world.members(["a", "b"]);
    let (before, _) = world.update(&a);
    assert_eq!(before.rules, Rules::default());
    assert!(before.connects(&a.secret.public(), &b.secret.public()));
    put(&mut world, &a, "trainer", true);
    put(&mut world, &b, "elsewhere", true);

    let simulate = Request::Simulate(None, Box::new(denying()), None);
    let Ok(Answer::Simulation(simulation)) = world.ask(simulate) else {
        panic!("no simulation")
    };
    let closed: Vec<_> = simulation.traffic.iter().map(|it| &it.closed[..]).collect();
    // Without a hub among the members, every tunnel would go.
    assert_eq!(closed, [["tunnel".to_owned()], ["tunnel".to_owned()]]);

    assert!(
        world
            .ask(Request::ChangePolicy(None, Box::new(denying())))
            .is_ok()
    );
    put(&mut world, &b, "store", true);
    pass_epoch(&mut world, [&a, &b]);
    let (update, _) = world.update(&a);
    assert!(update.epoch > before.epoch);
    assert_eq!(update.rules, denying().rules());
    assert_eq!(update.rules.groups, ["store", "trainer"]);
    let groups =
        |update: &EpochUpdate, node: &Node| update.member(&node.secret.public()).unwrap().groups;
    assert_eq!(groups(&update, &a), Groups(0b10));
    assert_eq!(groups(&update, &b), Groups(0b01), "of those that are named");
    assert!(update.connects(&a.secret.public(), &b.secret.public()));

    // A group is left, and the next epoch says so.
    put(&mut world, &b, "store", false);
    pass_epoch(&mut world, [&a, &b]);
    let (update, _) = world.update(&a);
    assert_eq!(groups(&update, &b), Groups(0));
    assert!(!update.connects(&a.secret.public(), &b.secret.public()));
}
