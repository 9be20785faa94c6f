//! A second segment, which no configuration can ask for yet: everything is a loop over both.

use super::*;

const SECOND: SegmentId = SegmentId(1);

/// One that everybody here passes, and one for the best.
fn policies() -> [(SegmentId, Policy); 2] {
    let strict = Policy {
        threshold: 0.95,
        ..Policy::default()
    };
    [(SegmentId::FIRST, Policy::default()), (SECOND, strict)]
}

fn roster(world: &World, segment: SegmentId) -> Vec<String> {
    let roster = world.engine.fleet().standings(segment).roster();
    roster.iter().map(ToString::to_string).collect()
}

/// The newest update of a segment that a node was sent, and whether the secret came with it.
fn update(world: &World, node: &Node, segment: SegmentId) -> (EpochUpdate, bool) {
    let told = world.told[&node.connection].iter().rev();
    let updates = told.filter_map(|message| match message {
        ToNode::Update(update) => Some(world.open(update)),
        _ => None,
    });
    let mut updates = updates.filter(|(update, _)| update.segment == segment);
    updates.next().expect("an update of this segment")
}

fn running() -> (World, [Node; 2]) {
    let mut world = World::new(Policy::default());
    let [mut a, mut b] = world.members(["a", "b"]);
    world.try_restart_with(&policies(), s(1), "boot").unwrap();
    world.reconnect(&mut a);
    world.reconnect(&mut b);
    // The new segment judged both at its first epoch, on what they had sent by then: nobody was good enough.
    assert!(roster(&world, SECOND).is_empty());
    for _ in 0..8 {
        assert_eq!(world.evidence(&a, 0.97), None);
        assert_eq!(world.evidence(&b, 0.9), None);
        world.pass(s(10));
    }
    (world, [a, b])
}

#[test]
fn each_segment_judges_the_same_evidence_by_its_own_policy_and_keeps_its_own_secret() {
    let (world, [a, b]) = running();
    assert_eq!(roster(&world, SegmentId::FIRST), ["a", "b"]);
    assert_eq!(roster(&world, SECOND), ["a"]);
    let (first, second) = (
        update(&world, &a, SegmentId::FIRST),
        update(&world, &a, SECOND),
    );
    assert!(first.1 && second.1);
    assert_ne!(first.0.commitment.0, second.0.commitment.0);
    assert!(update(&world, &b, SegmentId::FIRST).1);
    let (excluding, secret) = update(&world, &b, SECOND);
    assert!(!secret);
    let excluded = excluding.exclusion(&b.secret.public()).unwrap();
    assert_eq!(excluded.reason, "score below threshold");
}

#[test]
fn an_eviction_is_one_commit_with_an_epoch_in_each_segment_of_the_node() {
    let (mut world, [a, b]) = running();
    let before = world.engine.log().head().seq;
    let evict = Request::Evict(a.name.clone(), Default::default());
    assert!(world.ask(evict).is_ok());
    assert_eq!(world.engine.log().head().seq - before, 5);
    assert_eq!(roster(&world, SegmentId::FIRST), ["b"]);
    assert!(roster(&world, SECOND).is_empty());
    for segment in [SegmentId::FIRST, SECOND] {
        assert!(!update(&world, &a, segment).1);
    }
    // The other is a member of one of them, and only that one has anything new for it.
    let before = world.engine.log().head().seq;
    let evict = Request::Evict(b.name.clone(), Default::default());
    assert!(world.ask(evict).is_ok());
    assert_eq!(world.engine.log().head().seq - before, 3);
}

#[test]
fn each_segment_is_resumed_with_its_own_epochs_and_rotates_by_itself() {
    let (mut world, [mut a, _]) = running();
    let current = |world: &World| -> Vec<(SegmentId, Epoch)> {
        let segments = world.engine.segments().iter();
        segments.map(|it| (it.id(), it.current())).collect()
    };
    let before = current(&world);
    world.try_restart_with(&policies(), s(1), "boot").unwrap();
    assert_eq!(current(&world), before);
    assert!(world.engine.segments().iter().all(|it| it.is_whole()));
    world.reconnect(&mut a);
    assert!(update(&world, &a, SegmentId::FIRST).1 && update(&world, &a, SECOND).1);
    for _ in 0..8 {
        assert_eq!(world.evidence(&a, 0.97), None);
        world.pass(s(10));
    }
    let after = current(&world);
    let went_on = before
        .iter()
        .zip(&after)
        .all(|(before, after)| before.1 < after.1);
    assert!(went_on, "{before:?} {after:?}");
}
