//! Networks behind nodes, from a node's offer and an operator's word into the next update, and out of it.

use super::*;
use wire::Prefix;
use wire::admin::{EvictRequest, RouteRequest, RouteStatus};

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn form(text: &str) -> RouteRequest {
    RouteRequest {
        prefix: prefix(text),
        segment: None,
    }
}

fn advertise(world: &mut World, node: &Node, prefixes: &[&str]) {
    let prefixes = prefixes.iter().map(|it| prefix(it)).collect();
    let segment = SegmentId::FIRST;
    let offer = ToController::Advertise { segment, prefixes };
    world.say(node.connection, offer);
}

fn approve(world: &mut World, node: &Node, text: &str) -> Result<RouteStatus, String> {
    match world.ask(Request::ApproveRoute(node.name.clone(), form(text)))? {
        Answer::Route(route) => Ok(route),
        _ => panic!("another answer"),
    }
}

fn withdraw(world: &mut World, node: &Node, text: &str) -> Result<RouteStatus, String> {
    match world.ask(Request::WithdrawRoute(node.name.clone(), form(text)))? {
        Answer::Route(route) => Ok(route),
        _ => panic!("another answer"),
    }
}

fn list(world: &mut World) -> Vec<RouteStatus> {
    match world.ask(Request::Routes) {
        Ok(Answer::Routes(list)) => list,
        _ => panic!("no list"),
    }
}

/// The networks behind `node` by the newest update that `told` was sent.
fn behind(world: &World, told: &Node, node: &Node) -> Vec<String> {
    let update = world.update(told).0;
    let routes = update.routes_of(&node.secret.public()).iter();
    routes.map(ToString::to_string).collect()
}

#[test]
fn a_network_is_told_when_it_is_both_offered_and_approved_and_no_longer() {
    let mut world = World::new(Policy::default());
    let [a, b] = world.members(["a", "b"]);
    advertise(&mut world, &b, &["10.1.0.0/16", "10.2.0.0/16"]);
    world.pass(s(3));
    assert!(behind(&world, &a, &b).is_empty(), "nobody has approved it");
    assert!(
        list(&mut world)
            .iter()
            .all(|it| it.advertised && !it.approved && !it.in_force)
    );
    let before = world.update(&a).0.epoch;

    let route = approve(&mut world, &b, "10.1.0.0/16").unwrap();
    assert!(route.advertised && route.approved && !route.in_force);
    world.pass(s(3));
    assert_eq!(
        behind(&world, &a, &b),
        ["10.1.0.0/16"],
        "without a rotation"
    );
    assert_eq!(world.update(&a).0.epoch.0, before.0 + 1);
    assert!(list(&mut world)[0].in_force);
    let events = world.events(Page::default()).events;
    let mut causes = events.iter().filter(|it| it.kind == "epoch_published");
    assert_eq!(causes.next_back().unwrap().body["cause"], "routes");

    // The node offers it no more, and again.
    advertise(&mut world, &b, &["10.2.0.0/16"]);
    world.pass(s(3));
    assert!(behind(&world, &a, &b).is_empty());
    advertise(&mut world, &b, &["10.1.0.0/16"]);
    world.pass(s(3));
    assert_eq!(behind(&world, &a, &b), ["10.1.0.0/16"]);
    // Said again, it changes nothing.
    let kept = world.events(Page::default()).events.len();
    advertise(&mut world, &b, &["10.1.0.0/16"]);
    assert_eq!(world.events(Page::default()).events.len(), kept);

    // At once, and not with the next join.
    let route = withdraw(&mut world, &b, "10.1.0.0/16").unwrap();
    assert!(!route.approved && !route.in_force);
    assert!(behind(&world, &a, &b).is_empty());
    let error = withdraw(&mut world, &b, "10.1.0.0/16").unwrap_err();
    assert_eq!(error, "10.1.0.0/16 behind b is not approved");
    assert!(world.update(&a).0.member(&b.secret.public()).is_some());
}

#[test]
fn overlaps_are_refused_and_the_error_names_who_has_it() {
    let mut world = World::new(Policy::default());
    let [a, b] = world.members(["a", "b"]);
    approve(&mut world, &a, "10.1.0.0/16").unwrap();
    for (text, error) in [
        (
            "10.1.0.0/16",
            "10.1.0.0/16 overlaps 10.1.0.0/16, which is behind a",
        ),
        (
            "10.1.7.0/24",
            "10.1.7.0/24 overlaps 10.1.0.0/16, which is behind a",
        ),
        (
            "10.0.0.0/15",
            "10.0.0.0/15 overlaps 10.1.0.0/16, which is behind a",
        ),
        (
            "10.76.9.0/24",
            "10.76.9.0/24 overlaps the range of segment default",
        ),
    ] {
        let said = approve(&mut world, &b, text).unwrap_err();
        assert!(said.contains(error), "{said}");
    }
    let said = approve(&mut world, &a, "10.1.7.0/24").unwrap_err();
    assert!(said.contains("behind a"), "not even behind itself: {said}");
    approve(&mut world, &b, "10.2.0.0/16").unwrap();
    withdraw(&mut world, &a, "10.1.0.0/16").unwrap();
    approve(&mut world, &b, "10.1.0.0/16").unwrap();
    let many = (0..14).map(|n| approve(&mut world, &b, &format!("10.100.{n}.0/24")).is_ok());
    assert!(many.collect::<Vec<_>>().iter().all(|it| *it));
    let said = approve(&mut world, &b, "10.101.0.0/16").unwrap_err();
    assert!(said.contains("at most 16 routes"), "{said}");
}

#[test]
fn a_network_goes_with_its_node_and_survives_a_restart() {
    let mut world = World::new(Policy::default());
    let [a, b, c] = world.members(["a", "b", "c"]);
    for (node, text) in [(&b, "10.1.0.0/16"), (&c, "fd01::/32")] {
        advertise(&mut world, node, &[text]);
        approve(&mut world, node, text).unwrap();
    }
    world.pass(s(3));
    assert_eq!(behind(&world, &a, &c), ["fd01::/32"]);
    let evict = Request::Evict(b.name.clone(), EvictRequest::default());
    assert!(world.ask(evict).is_ok());
    assert!(
        behind(&world, &a, &b).is_empty(),
        "with the eviction's own epoch"
    );
    assert_eq!(behind(&world, &a, &c), ["fd01::/32"]);
    // It stays with the node, which nobody is told of.
    let status = list(&mut world);
    assert!(
        status
            .iter()
            .any(|it| it.node == b.name && it.approved && !it.in_force)
    );
    // Nobody else may have it until it is withdrawn, or the node is gone.
    assert!(approve(&mut world, &c, "10.1.0.0/16").is_err());
    let remove = Request::Remove(b.name.clone(), EvictRequest::default());
    assert!(world.ask(remove).is_ok());
    assert!(approve(&mut world, &c, "10.1.0.0/16").is_ok());
    assert_eq!(list(&mut world).len(), 2);

    let before = list(&mut world);
    world.restart(Policy::default(), s(1), "boot");
    assert_eq!(list(&mut world), before);
}

#[test]
fn what_is_no_list_of_networks_ends_the_connection_and_other_segments_are_not_believed() {
    let mut world = World::new(Policy::default());
    let [a, b] = world.members(["a", "b"]);
    let other = ToController::Advertise {
        segment: SegmentId(7),
        prefixes: vec![prefix("10.1.0.0/16")],
    };
    world.say(a.connection, other);
    assert!(list(&mut world).is_empty());
    assert!(!world.closed.contains_key(&a.connection));
    advertise(&mut world, &b, &["10.1.0.0/16", "10.1.2.0/24"]);
    assert_eq!(world.closed.get(&b.connection), Some(&Refusal::Protocol));
    assert!(list(&mut world).is_empty());
}
