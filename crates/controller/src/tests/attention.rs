//! All that needs an operator's attention goes when its cause does.

use super::*;
use wire::Way;
use wire::message::{InterfaceReport, MAX_FAULTS, NodeFault, NodeFaultKind, PeerReport};

impl World {
    /// The sentences about `word`.
    fn attention(&mut self, word: &str) -> Vec<String> {
        let mut all = self.status().attention;
        all.retain(|it| it.contains(word));
        all
    }
}

fn calm() -> Policy {
    Policy {
        epoch_seconds: 600,
        max_benchmark_age: 1_000,
        ..Policy::default()
    }
}

#[test]
fn a_mesh_in_which_all_is_well_needs_nothing() {
    let mut world = World::new(calm());
    assert_eq!(
        world.status().attention,
        [] as [&str; 0],
        "nobody has come yet"
    );
    let [a, b] = world.members(["a", "b"]);
    world.ack(&a, Phase::Activated);
    world.ack(&b, Phase::Activated);
    world.pass(s(60));
    assert_eq!(world.status().attention, [] as [&str; 0]);
}

#[test]
fn a_member_that_does_not_take_the_epoch_is_named_until_it_does() {
    let mut world = World::new(calm());
    let [a, b] = world.members(["a", "b"]);
    world.ack(&a, Phase::Activated);
    world.pass(s(12));
    assert_eq!(
        world.attention("without epoch"),
        [] as [&str; 0],
        "it has time"
    );
    world.pass(s(2));
    let behind = world.attention("without epoch");
    assert!(
        behind.len() == 1 && behind[0].contains(": b;"),
        "{behind:?}"
    );
    // Dark is not activated: a member has to say that it is one.
    world.ack(&b, Phase::Dark);
    assert_eq!(world.attention("without epoch").len(), 1);
    world.ack(&b, Phase::Activated);
    assert_eq!(world.attention("without epoch"), [] as [&str; 0]);
}

#[test]
fn a_member_that_is_gone_is_named_until_it_is_back_or_excluded_and_one_that_never_was_one_is_not() {
    let mut world = World::new(calm());
    let [mut a, _b] = world.members(["a", "b"]);
    let c = world.node("c");
    world.engine.handle_disconnected(c.connection);
    world.engine.handle_disconnected(a.connection);
    assert_eq!(
        world.attention("not connected"),
        [] as [&str; 0],
        "it may be back"
    );
    world.pass(s(20));
    let gone = world.attention("not connected");
    assert!(gone.len() == 1 && gone[0].contains(": a;"), "{gone:?}");
    world.reconnect(&mut a);
    assert_eq!(world.attention("not connected"), [] as [&str; 0]);
    // That it is dropped in the end mends nothing.
    world.engine.handle_disconnected(a.connection);
    world.pass(s(1_200));
    assert_eq!(
        world.status_of(&a).membership,
        wire::admin::Membership::Denied
    );
    let gone = world.attention("not connected");
    assert!(gone.len() == 1 && gone[0].contains(": a;"), "{gone:?}");
    let evict = Request::Evict(name("a"), wire::admin::EvictRequest::default());
    assert!(world.ask(evict).is_ok());
    assert_eq!(world.attention("not connected"), [] as [&str; 0]);
}

#[test]
fn enrolled_nodes_of_which_none_is_a_member_are_a_mesh_that_does_nothing() {
    let mut world = World::new(calm());
    let _a = world.node("a");
    world.pass(s(5));
    let nobody = world.attention("nobody is a member");
    assert!(
        nobody.len() == 1 && nobody[0].contains("meshctl explain a"),
        "{nobody:?}"
    );
}

#[test]
fn evidence_that_is_about_to_be_too_old_is_told_in_time() {
    let mut world = World::new(calm());
    let [a, _b] = world.members(["a", "b"]);
    world.pass(s(890));
    assert_eq!(world.attention("too old"), [] as [&str; 0]);
    world.pass(s(20));
    let aging = world.attention("too old");
    assert!(aging.len() == 1 && aging[0].contains("a, b"), "{aging:?}");
    assert_eq!(world.evidence(&a, 0.9), None);
    assert!(world.attention("too old")[0].contains(": b;"));
}

#[test]
fn what_a_node_says_of_itself_is_shown_while_it_is_connected_and_until_it_takes_it_back() {
    let mut world = World::new(calm());
    let [mut a, _b] = world.members(["a", "b"]);
    let fault = NodeFault::new(NodeFaultKind::Benchmark, "its benchmark gives no results");
    let say = |world: &mut World, id, faults| world.say(id, ToController::Condition { faults });
    say(&mut world, a.connection, vec![fault.clone()]);
    assert!(world.engine.take_dirty(), "a fault is news");
    let told = world.attention("no results");
    assert_eq!(told, ["a: its benchmark gives no results"]);
    assert_eq!(
        world.status_of(&a).faults,
        ["its benchmark gives no results"]
    );
    say(&mut world, a.connection, vec![fault.clone()]);
    assert!(!world.engine.take_dirty(), "the same fault is none");

    world.reconnect(&mut a);
    assert_eq!(
        world.attention("no results"),
        [] as [&str; 0],
        "of another session"
    );
    say(&mut world, a.connection, vec![fault.clone()]);
    say(&mut world, a.connection, Vec::new());
    assert_eq!(world.attention("no results"), [] as [&str; 0]);

    // The interface's faults stay beside it.
    say(&mut world, a.connection, vec![fault.clone()]);
    let report = ToController::Report {
        segment: SegmentId::FIRST,
        peers: Vec::new(),
        interface: InterfaceReport {
            unusable: false,
            faults: vec!["is down".into()],
        },
    };
    world.say(a.connection, report);
    assert_eq!(world.status_of(&a).faults.len(), 2);

    say(&mut world, a.connection, vec![fault; MAX_FAULTS + 1]);
    assert_eq!(world.closed.get(&a.connection), Some(&Refusal::Protocol));
}

#[test]
fn other_versions_and_clocks_that_are_off_are_told_of_those_who_are_connected() {
    let mut world = World::new(calm());
    let [a, _b] = world.members(["a", "b"]);
    let id = world.connect(&a.secret);
    let hello = Hello {
        software: "0.0.9".into(),
        unix_ms: world.now.unix_ms() + 12_000,
        ..world.greeting()
    };
    world.say(id, ToController::Hello(hello));
    let versions = world.attention("another version");
    assert!(
        versions.len() == 1 && versions[0].contains("a 0.0.9;"),
        "{versions:?}"
    );
    let clocks = world.attention("clocks");
    assert!(
        clocks.len() == 1 && clocks[0].contains("a by 12 s;"),
        "{clocks:?}"
    );
    world.engine.handle_disconnected(id);
    assert_eq!(world.attention("another version"), [] as [&str; 0]);
    assert_eq!(world.attention("clocks"), [] as [&str; 0]);
}

#[test]
fn a_sentence_about_many_names_five_and_counts_the_others() {
    let mut world = World::new(calm());
    let nodes = world.members(["a", "b", "c", "d", "e", "f", "g"]);
    for node in &nodes {
        world.engine.handle_disconnected(node.connection);
    }
    world.pass(s(20));
    let gone = world.attention("not connected");
    assert!(gone[0].contains("a, b, c, d, e and 2 more;"), "{gone:?}");

    // After a restart all of them are on their way, until they have had their time.
    world.restart(calm(), s(1), "another boot");
    assert_eq!(world.attention("not connected"), [] as [&str; 0]);
    world.pass(s(120));
    assert_eq!(world.attention("not connected").len(), 1);
}

#[test]
fn members_that_hear_nothing_of_each_other_are_named_until_they_do() {
    let mut world = World::new(calm());
    let [a, b, c] = world.members(["a", "b", "c"]);
    let say = |world: &mut World, from: &Node, to: &Node, answers: bool| {
        let report = PeerReport {
            node: to.secret.public(),
            session_epoch: Some(Epoch(world.epoch())),
            rtt_v4_us: answers.then_some(300),
            rtt_v6_us: None,
            way_v4: Way::Tunnel,
            way_v6: Way::Tunnel,
        };
        let report = ToController::Report {
            segment: keys::SegmentId::FIRST,
            peers: vec![report],
            interface: InterfaceReport::default(),
        };
        world.say(from.connection, report);
    };
    let dark = |world: &mut World| world.attention("no echo passes");
    let nobody = [] as [&str; 0];
    world.pass(s(1));
    say(&mut world, &b, &a, false);
    assert_eq!(dark(&mut world), nobody, "one echo may be lost");
    world.pass(s(10));
    assert_eq!(dark(&mut world), nobody, "that was one word");
    say(&mut world, &b, &a, false);
    let told = dark(&mut world);
    assert!(
        told.len() == 1 && told[0].contains(": a and b;"),
        "{told:?}"
    );
    // Both say so, and it is one pair.
    say(&mut world, &a, &b, false);
    world.pass(s(10));
    say(&mut world, &a, &b, false);
    say(&mut world, &b, &a, false);
    assert_eq!(dark(&mut world), told);
    // A word on one that is not there is about that one: another sentence has it.
    world.engine.handle_disconnected(a.connection);
    assert_eq!(dark(&mut world), nobody);
    say(&mut world, &b, &c, false);
    world.pass(s(10));
    say(&mut world, &b, &c, false);
    assert_eq!(dark(&mut world).len(), 1);
    say(&mut world, &b, &c, true);
    assert_eq!(dark(&mut world), nobody);
    // The word of before does not count towards the next one.
    world.pass(s(10));
    say(&mut world, &b, &c, false);
    assert_eq!(dark(&mut world), nobody);
}
