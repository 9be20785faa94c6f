//! A member that is evicted and readmitted, twice within one epoch's length: it is a member like any
//! other again, and nothing of its earlier memberships is worth anything.

use crate::cut_off::{HOSTILE, Scene};
use crate::node::{Conduct, Count};
use std::time::Duration;
use tests::harness;

#[test]
fn a_readmitted_node_gets_nothing_through_with_what_it_kept_from_before_and_all_else_as_ever() {
    let mut scene = Scene::new(3600);
    scene.control();
    for readmissions in 1..=2 {
        evict(&mut scene);
        // Before it has said a word of its own: no newer timestamp gives its recordings away.
        haunt(&mut scene, readmissions, |scene| {
            scene.mesh.readmit(HOSTILE);
            scene.wait_for("both survivors have it as a peer again", |scene| {
                scene.is_peer()
            });
        });
        wait_until_heard(&mut scene, "readmitted, it is heard again");
        haunt(&mut scene, readmissions, |_| {});
        wait_until_heard(&mut scene, "its own sessions outlive that");
    }
}

/// Evicts, and sees that nothing passes while the eviction lasts.
fn evict(scene: &mut Scene) {
    scene.mesh.evict(HOSTILE);
    scene.wait_until_denied();
    let read = scene.hostile.count(Count::Rounds) + 2;
    scene.wait_for("it has read what came before", |scene| {
        scene.hostile.count(Count::Rounds) >= read
    });
    let before = scene.through();
    let tried = scene.hostile.count(Count::LiveData) + 40;
    scene.wait_for("it goes on as if nothing had happened", |scene| {
        scene.hostile.count(Count::LiveData) >= tried
    });
    assert_eq!(scene.through(), before, "the eviction holds");
}

/// Nothing but sessions and recordings from before, for a while: nobody is impressed. `begin` is how it
/// comes to that.
fn haunt(scene: &mut Scene, memberships: u64, begin: impl FnOnce(&mut Scene)) {
    scene.hostile.set_conduct(Conduct::Silent);
    let read = scene.hostile.count(Count::Rounds) + 2;
    scene.wait_for("it has fallen silent", |scene| {
        scene.hostile.count(Count::Rounds) >= read
    });
    let before = scene.through().to_survivors;
    let counted = COUNTED.map(|count| scene.hostile.count(count));
    begin(scene);
    scene.hostile.set_conduct(Conduct::Haunt);
    let dropped = scene.dropped();
    let tries = TRIES.map(|count| scene.hostile.count(count));
    let begun = harness::now();
    scene.wait_for("it has tried for a while", |scene| {
        let mut tries = TRIES.iter().zip(tries);
        tries.all(|(count, before)| scene.hostile.count(*count) >= before + 100 * memberships)
            && begun.elapsed() >= HAUNTING
    });
    assert_eq!(
        scene.through().to_survivors,
        before,
        "a session or a recording from before got through"
    );
    assert_eq!(
        COUNTED.map(|count| scene.hostile.count(count)),
        counted,
        "{COUNTED:?}: a survivor remembers"
    );
    for (before, now) in dropped.iter().zip(scene.dropped()) {
        assert!(now >= before + 100, "the survivors did not notice");
    }
    scene.hostile.set_conduct(Conduct::Member);
}

fn wait_until_heard(scene: &mut Scene, what: &str) {
    let before = scene.through();
    scene.wait_for(what, |scene| {
        let now = scene.through();
        let mut pairs = now.to_survivors.iter().zip(&before.to_survivors);
        pairs.all(|(now, before)| now.0 >= before.0 + 10 && now.1 >= before.1 + 10)
            && now.delivered >= before.delivered + 40
    });
}

/// Events that must not happen: a survivor sends on an old session, or answers an old initiation.
const COUNTED: [Count; 2] = [Count::OldDelivered, Count::Responses];
const TRIES: [Count; 2] = [Count::OldSession, Count::Replay];
/// Longer than the grace, and long enough for every recording that is tried to have its turn.
const HAUNTING: Duration = Duration::from_secs(3);
