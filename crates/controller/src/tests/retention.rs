//! The log over a long time: snapshots stand for what is before them, and old evidence leaves.

use super::*;
use wire::admin::Membership;

impl World {
    fn folded(&self) -> String {
        String::from_utf8(self.engine.fleet().to_snapshot()).unwrap()
    }

    /// How many events of a kind the log keeps.
    fn kept(&self, kind: &str) -> usize {
        let page = self.engine.log().page(0, 100_000).unwrap();
        page.events.iter().filter(|it| it.kind == kind).count()
    }
}

#[test]
fn old_evidence_leaves_and_nothing_else_and_the_state_is_the_same() {
    let policy = Policy {
        epoch_seconds: 3_600,
        max_benchmark_age: 100_000,
        ..Policy::default()
    };
    let mut world = World::new(policy.clone());
    let [mut a, _b] = world.members(["a", "b"]);
    for _ in 0..700 {
        world.pass(s(130));
        assert_eq!(world.evidence(&a, 0.9), None);
    }
    const EVIDENCE: &str = "evidence_accepted";
    let others = [
        "decided",
        "epoch_published",
        "node_enrolled",
        "mesh_created",
    ];
    let before = others.map(|kind| world.kept(kind));
    let keep = s(86_400 / 4);
    // Without a snapshot nothing can leave.
    world.engine.retain(keep, false, world.now);
    assert_eq!(world.kept(EVIDENCE), 702);
    world.forward(s(3_600));
    world.engine.retain(keep, true, world.now);
    let kept = world.kept(EVIDENCE);
    // A quarter of a day, an hour less, has 138 runs.
    assert!((138..138 + 256).contains(&kept), "{kept}");
    assert_eq!(others.map(|kind| world.kept(kind)), before);
    assert_eq!(world.kept("entries_pruned"), 1);

    let folded = world.folded();
    world.restart(policy, Duration::ZERO, "boot");
    assert_eq!(world.folded(), folded);
    // Life goes on, and a snapshot with more behind it folds to the same.
    world.reconnect(&mut a);
    assert_eq!(world.evidence(&a, 0.95), None);
    assert_eq!(world.status_of(&a).membership, Membership::Allowed);
    let folded = world.folded();
    let policy = world.engine.segments().first().policy().clone();
    world.restart(policy, Duration::ZERO, "boot");
    assert_eq!(world.folded(), folded);
}
