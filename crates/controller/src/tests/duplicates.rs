//! Two processes with one node's keys: a restart takes over at once, a copy is refused, and the dead hold up
//! nobody for long.

use super::*;
use wire::fixtures::instance;

impl World {
    /// Another process says that it is `node`.
    fn process(&mut self, node: &Node, home: u8, run: u8) -> ConnectionId {
        let id = self.connect(&node.secret);
        self.hello_of(id, None, instance(home, run));
        id
    }

    fn is_welcome(&self, id: ConnectionId) -> bool {
        let told = self.told.get(&id).into_iter().flatten();
        told.filter(|it| matches!(it, ToNode::Welcome { .. }))
            .count()
            == 1
            && !self.closed.contains_key(&id)
    }

    fn roll_calls(&self, id: ConnectionId) -> usize {
        let told = self.told.get(&id).into_iter().flatten();
        told.filter(|it| matches!(it, ToNode::RollCall)).count()
    }

    fn told_of_duplicates(&self, id: ConnectionId) -> usize {
        let told = self.told.get(&id).into_iter().flatten();
        told.filter(|it| matches!(it, ToNode::Duplicate(_))).count()
    }

    /// Events about duplicates in the log.
    fn sightings(&self) -> usize {
        let page = self.engine.log().page(0, 10_000).unwrap();
        let kinds = page.events.iter().map(|event| event.kind.as_str());
        kinds.filter(|kind| *kind == "duplicate_seen").count()
    }

    fn alarms(&self) -> Vec<String> {
        self.engine.status(self.now).alarms
    }
}

#[test]
fn a_restart_and_another_way_of_the_same_process_take_over_at_once() {
    let mut world = World::new(Policy::default());
    let node = world.node("a");
    let first = node.connection;
    let restarted = world.process(&node, 1, 2);
    assert!(world.is_welcome(restarted));
    assert_eq!(world.closed[&first], Refusal::Superseded);
    assert_eq!(world.roll_calls(first), 0);
    // The same run elsewhere is the same process, whatever its home is called there.
    let moved = world.process(&node, 9, 2);
    assert!(world.is_welcome(moved) && world.alarms().is_empty());
}

#[test]
fn a_copy_is_refused_for_as_long_as_the_first_is_there_and_both_are_told() {
    let mut world = World::new(Policy::default());
    let node = world.node("a");
    let first = node.connection;
    for round in 1..=100 {
        let copy = world.process(&node, 2, 2);
        assert!(!world.is_welcome(copy));
        assert_eq!(world.roll_calls(first), round);
        world.pass(s(1));
        world.say(first, ToController::Present);
        assert_eq!(world.closed[&copy], Refusal::Duplicate);
        let told = (
            world.told_of_duplicates(first),
            world.told_of_duplicates(copy),
        );
        assert_eq!(told, (round, 1));
        assert!(!world.closed.contains_key(&first), "the first stays");
        world.pass(s(29));
    }
    // Fifty minutes: one line of the log.
    assert_eq!(world.sightings(), 1);
    let status = world.engine.status(world.now);
    let shown = status.nodes[&name("a")].duplicate.clone().unwrap();
    let runs = (shown.first.run.as_str(), shown.other.run.as_str());
    assert_eq!(runs, ("01010101", "02020202"));
    let alarms = world.alarms();
    assert_eq!(alarms.len(), 1);
    for words in [
        "a: two machines",
        "198.51.100.",
        "boot ",
        "empty the state directory",
    ] {
        assert!(alarms[0].contains(words), "{alarms:?}");
    }
    // Nothing of it is shown when it is over.
    world.pass(s(180));
    assert!(world.alarms().is_empty());
    assert!(
        world.engine.status(world.now).nodes[&name("a")]
            .duplicate
            .is_none()
    );
}

#[test]
fn a_first_process_that_is_dead_is_replaced_within_seconds() {
    let mut world = World::new(Policy::default());
    let node = world.node("a");
    let first = node.connection;
    let rebooted = world.process(&node, 2, 2);
    world.pass(ms(2_900));
    assert!(!world.is_welcome(rebooted) && !world.closed.contains_key(&rebooted));
    world.pass(ms(200));
    assert!(world.is_welcome(rebooted));
    assert_eq!(world.closed[&first], Refusal::Superseded);
    assert!(world.alarms().is_empty() && world.sightings() == 0);
    // An answer on a connection that is over changes nothing.
    world.say(first, ToController::Present);
    assert!(world.is_welcome(rebooted));
}

#[test]
fn the_other_is_let_in_when_the_first_is_stopped() {
    let mut world = World::new(Policy::default());
    let node = world.node("a");
    let copy = world.process(&node, 2, 2);
    world.say(node.connection, ToController::Present);
    assert_eq!(world.closed[&copy], Refusal::Duplicate);
    // Before it is asked, and while it is.
    world.engine.handle_disconnected(node.connection);
    let copy = world.process(&node, 2, 2);
    assert!(world.is_welcome(copy) && world.alarms().is_empty());
    let third = world.process(&node, 3, 3);
    assert!(!world.is_welcome(third));
    world.engine.handle_disconnected(copy);
    world.pass(ms(1));
    assert!(world.is_welcome(third));
}

#[test]
fn one_that_asks_again_and_again_is_let_in_as_soon_as_one_that_waits() {
    let mut world = World::new(Policy::default());
    let node = world.node("a");
    let mut last = world.process(&node, 2, 2);
    for _ in 0..2 {
        world.pass(s(1));
        let next = world.process(&node, 2, 2);
        assert_eq!(world.closed[&last], Refusal::Superseded);
        last = next;
    }
    world.pass(s(1));
    assert!(world.is_welcome(last));
}

#[test]
fn machines_that_were_copied_while_they_ran_do_not_take_the_session_from_each_other_for_ever() {
    let mut world = World::new(Policy::default());
    let node = world.node("a");
    let mut served = node.connection;
    let mut takeovers = 0;
    for _ in 0..100 {
        let other = world.process(&node, 1, 1);
        world.pass(ms(300));
        if world.is_welcome(other) {
            served = other;
            takeovers += 1;
        } else {
            world.say(served, ToController::Present);
            assert_eq!(world.closed[&other], Refusal::Duplicate);
        }
    }
    assert!((5..=15).contains(&takeovers), "{takeovers}");
    assert!(!world.alarms().is_empty());
}

#[test]
fn a_claim_is_heard_only_once_and_not_under_a_key_that_was_replaced() {
    let mut world = World::new(Policy::default());
    let node = world.node("a");
    let copy = world.process(&node, 2, 2);
    world.say(copy, ToController::Present);
    assert_eq!(world.closed[&copy], Refusal::Protocol);
    let copy = world.process(&node, 2, 2);
    let token = world.token(Some("a"));
    let heir = NodeSecret::generate(&mut OsRng);
    world.try_enrol(&heir, wg(), None, &token).unwrap();
    world.pass(s(3));
    assert_eq!(world.closed[&copy], Refusal::NotEnrolled);
    // Another node's answer says nothing about this one.
    let [b, c] = [world.node("b"), world.node("c")];
    let copy = world.process(&b, 2, 2);
    world.say(c.connection, ToController::Present);
    assert!(!world.closed.contains_key(&copy));
}
