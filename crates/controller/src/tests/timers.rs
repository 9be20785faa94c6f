//! Every wait has its reason.

use super::*;
use crate::timers::Timer;
use policy::Revoke;

const FIRST: SegmentId = SegmentId::FIRST;

fn next(world: &World) -> (Duration, Timer) {
    world.engine.poll_timer().expect("there is one")
}

#[test]
fn a_mesh_waits_for_the_scheduled_update_and_then_for_its_beginning() {
    let mut world = World::new(Policy::default());
    let start = world.now.boot;
    assert_eq!(next(&world), (start + s(55), Timer::Scheduled(FIRST)));
    world.pass(s(56));
    assert_eq!(next(&world), (start + s(60), Timer::Activation(FIRST)));
}

#[test]
fn a_connection_that_says_nothing_and_a_node_that_may_join_are_waited_for() {
    let mut world = World::new(Policy::default());
    let opened = world.now.boot;
    let id = world.connect(&NodeSecret::generate(&mut OsRng));
    assert_eq!(next(&world), (opened + s(5), Timer::Opening(id)));
    let a = world.node("a");
    assert_eq!(world.evidence(&a, 0.9), None);
    assert_eq!(next(&world), (opened + ms(200), Timer::Join(FIRST)));
    // All that comes in the meantime shares that epoch.
    world.pass(ms(100));
    let b = world.node("b");
    assert_eq!(world.evidence(&b, 0.9), None);
    assert_eq!(next(&world), (opened + ms(200), Timer::Join(FIRST)));
}

#[test]
fn news_of_a_node_that_moves_too_often_waits() {
    let mut world = World::new(Policy::default());
    let [a, _b] = world.members(["a", "b"]);
    for listen_port in 1..=6 {
        let advertised = Vec::new();
        let endpoints = ToController::Endpoints {
            listen_port,
            advertised,
            addresses: Vec::new(),
        };
        world.say(a.connection, endpoints);
    }
    let due = world.now.boot + s(1);
    assert_eq!(next(&world), (due, Timer::News(a.name.clone())));
}

#[test]
fn evidence_that_turns_stale_is_waited_for_where_it_revokes_at_once() {
    let mut world = World::new(Policy {
        revoke: Revoke::Now,
        epoch_seconds: 600,
        ..Policy::default()
    });
    let sent = world.now.boot;
    let [_a] = world.members(["a"]);
    let (at, timer) = next(&world);
    assert_eq!(timer, Timer::Revocation(FIRST));
    let stale = sent + s(Policy::default().max_benchmark_age);
    assert!(at > stale && at < stale + ms(100), "{at:?}");
}

#[test]
fn after_a_restart_judgement_waits_for_nodes_but_a_lost_update_does_not() {
    let mut world = World::new(Policy::default());
    let [_a] = world.members(["a"]);
    world.restart(Policy::default(), s(600), "boot");
    let settled = world.now.boot + s(10);
    assert_eq!(next(&world), (settled, Timer::Scheduled(FIRST)));

    let old = AuthoritySecret::from_base64(&world.authority).unwrap();
    let fresh = AuthoritySecret::generate(&mut OsRng);
    world.authority = fresh.expose_base64().to_string();
    world.adopt = Some(old.public());
    world.restart(Policy::default(), s(1), "boot");
    assert_eq!(next(&world), (Duration::ZERO, Timer::Recovery(FIRST)));
}

#[test]
fn what_failed_rests_for_a_second_though_an_operator_may_try() {
    let mut world = World::new(Policy::default());
    let [_a] = world.members(["a"]);
    world.pass(s(30));
    world.engine.log().fill_up();
    // Until the last page of the database is full.
    let ask = |world: &mut World| world.ask(Request::CreateToken(TokenRequest::default()));
    assert!((0..200).any(|_| ask(&mut world).is_err()));
    // Until the scheduled update is overdue.
    world.pass(s(60));
    let failed = world.now.boot;
    assert!(ask(&mut world).is_err());
    let (at, timer) = next(&world);
    assert_eq!((at, timer), (failed + s(1), Timer::Scheduled(FIRST)));
    // The log takes something again, which is no reason to hurry.
    world.engine.log().free_up();
    world.pass(ms(100));
    assert!(ask(&mut world).is_ok());
    assert!(
        world
            .status()
            .alarms
            .iter()
            .all(|it| !it.contains("cannot be written"))
    );
    assert_eq!(next(&world).0, failed + s(1));
    let before = world.epoch();
    world.pass(ms(800));
    assert!(world.status().epoch.next.is_none() && world.epoch() == before);
    world.pass(ms(200));
    let status = world.status();
    assert!(status.epoch.next.is_some() || status.epoch.id > before);
}

#[test]
fn nodes_that_come_to_a_large_mesh_wait_for_each_other_and_not_for_ever() {
    let mut world = World::new(Policy::default());
    let start = world.now.boot;
    let mut segment = crate::segment::Segment::new(crate::segment::Settings {
        id: FIRST,
        name: wire::SegmentName::default(),
        policy: Policy::default(),
        network: crate::network::Network::new(
            crate::open::DEFAULT_MESH_V4,
            None,
            (keys::MeshId([1; 16]), FIRST),
        )
        .unwrap(),
    });
    let mut come = |segment: &mut crate::segment::Segment, members: usize| {
        segment.want_join(members, world.now);
        world.now.boot += ms(100);
    };
    for _ in 0..20 {
        come(&mut segment, 5_000);
    }
    // As long as they come within 200 ms of each other.
    assert_eq!(segment.joins_at(), Some(start + ms(1_900 + 200)));
    for _ in 0..80 {
        come(&mut segment, 5_000);
    }
    assert_eq!(segment.joins_at(), Some(start + ms(200) + s(5)));
    // And the next ones do not have an epoch of their own at once.
    assert!(segment.take_joins(world.now));
    segment.rest_joins(5_000, world.now);
    let rested = world.now.boot + s(5);
    segment.want_join(5_000, world.now);
    assert_eq!(segment.joins_at(), Some(rested));
}
