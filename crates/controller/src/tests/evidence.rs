//! A refusal of evidence tells its node whether it passes.

use super::*;

/// Evidence that arrives together becomes durable in one commit, and nobody hears of it before.
#[test]
fn evidence_that_arrives_together_is_one_commit() {
    let mut world = World::new(Policy::default());
    let [a, b] = world.members(["a", "b"]);
    world.pass(s(10));
    let before = world.engine.log().head().seq;
    let results = |world: &World, node: &Node| {
        let told = world.told[&node.connection].iter();
        told.filter(|it| matches!(it, ToNode::EvidenceResult { .. }))
            .count()
    };
    let told = [&a, &b].map(|node| results(&world, node));
    for node in [&a, &b] {
        let envelope = world
            .run()
            .attest_self(node.name.as_str(), &node.secret)
            .unwrap();
        let message = ToController::Evidence { envelope };
        world
            .engine
            .handle_message(node.connection, message, world.now);
    }
    assert_eq!(world.engine.log().head().seq, before);
    world.collect();
    assert_eq!(world.engine.log().head().seq, before + 2);
    assert_eq!(
        [&a, &b].map(|node| results(&world, node)),
        told.map(|told| told + 1)
    );
    world.pass(s(10));
    // The second run of one node is judged by what is on record of the first.
    let envelope = world.run().attest_self("a", &a.secret).unwrap();
    for _ in 0..2 {
        let envelope = envelope.clone();
        let message = ToController::Evidence { envelope };
        world
            .engine
            .handle_message(a.connection, message, world.now);
    }
    world.collect();
    let told = world.told[&a.connection].iter().rev();
    let mut refused = told.filter_map(|it| match it {
        ToNode::EvidenceResult { refused, .. } => Some(refused.is_some()),
        _ => None,
    });
    assert_eq!((refused.next(), refused.next()), (Some(true), Some(false)));
}

impl World {
    fn refused(&mut self, node: &Node, run: &Benchmark) -> Option<Again> {
        let envelope = run.clone();
        let envelope = envelope
            .attest_self(node.name.as_str(), &node.secret)
            .unwrap();
        self.envelope(node, envelope);
        self.again
    }
}

#[test]
fn a_refusal_says_whether_it_passes() {
    let mut world = World::new(Policy::default());
    let [a, b] = world.members(["a", "b"]);
    world.pass(s(1));
    let mut ahead = world.run();
    ahead.finished_at += s(3_600);
    assert_eq!(world.refused(&a, &ahead), Some(Again::Later), "clocks");
    let mut stale = world.run();
    stale.challenge = Some(Digest([9; 32]));
    assert_eq!(world.refused(&a, &stale), Some(Again::Anew));
    let run = world.run();
    assert_eq!(world.refused(&a, &run), None);
    assert_eq!(world.refused(&a, &run), Some(Again::Never), "a recording");
    assert_eq!(world.refused(&b, &run), None, "another node's own");

    world
        .ask(Request::Evict(b.name.clone(), Default::default()))
        .unwrap();
    world.pass(s(1));
    let run = world.run();
    assert_eq!(world.refused(&b, &run), Some(Again::Later), "evicted");
    // Evidence that could not count any more is not worth sending, whatever stands in its way.
    world.pass(s(Policy::default().max_benchmark_age + 1));
    assert_eq!(world.refused(&b, &run), Some(Again::Never), "too old");

    for _ in 0..20 {
        let _ = world.refused(&a, &world.run());
    }
    assert_eq!(
        world.refused(&a, &world.run()),
        Some(Again::Later),
        "too much"
    );
    world.pass(s(10));
    world.engine.log().fill_up();
    let mut told = Vec::new();
    for _ in 0..20 {
        world.pass(ms(100));
        told.extend(world.refused(&a, &world.run()));
    }
    assert!(
        !told.is_empty() && told.iter().all(|it| *it == Again::Later),
        "a full disk: {told:?}"
    );
}
