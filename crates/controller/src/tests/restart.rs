//! A restart: what it may change and what not.

use super::*;
use wire::admin::Membership;
use wire::admin::RecoverRequest;

fn running() -> (World, [Node; 2]) {
    let mut world = World::new(Policy::default());
    let nodes = world.members(["a", "b"]);
    (world, nodes)
}

#[test]
fn the_epoch_in_force_is_resumed_with_its_secret() {
    let (mut world, [mut a, _]) = running();
    let before = world.status();
    world.restart(Policy::default(), s(10), "boot");
    let after = world.status();
    assert_eq!(after.epoch, before.epoch);
    assert_eq!(after.mesh, before.mesh);
    world.reconnect(&mut a);
    let (update, secret) = world.update(&a);
    assert_eq!(update.epoch.0, before.epoch.id);
    assert!(secret);
}

#[test]
fn after_a_reboot_the_wall_clock_places_the_epoch() {
    let (mut world, _) = running();
    let before = world.status();
    let left = world.engine.poll_timeout() - world.now.boot;
    world.now.boot = s(3);
    world.restart(Policy::default(), s(20), "another boot");
    assert_eq!(world.status().epoch, before.epoch);
    let next = world.engine.poll_timeout() - world.now.boot;
    let gone = left - next;
    assert!(gone > s(19) && gone < s(21), "{gone:?}");
}

#[test]
fn an_epoch_on_its_way_is_resumed_too() {
    let (mut world, [mut a, _]) = running();
    let change = world.rotate(false, false);
    let before = world.epoch();
    world.restart(Policy::default(), s(1), "boot");
    let status = world.status();
    assert_eq!(status.epoch.id, before);
    assert_eq!(status.epoch.next.unwrap().id, change.epoch);
    world.reconnect(&mut a);
    let updates = world.told[&a.connection].iter();
    let updates = updates.filter(|m| matches!(m, ToNode::Update(u) if u.secret.is_some()));
    assert_eq!(updates.count(), 2);
    world.pass(s(4));
    assert_eq!(world.epoch(), change.epoch);
    world.restart(Policy::default(), s(1), "boot");
    assert_eq!(world.epoch(), change.epoch);
}

#[test]
fn after_a_long_absence_nodes_have_a_moment_to_prove_themselves() {
    let (mut world, [mut a, mut b]) = running();
    let before = world.epoch();
    world.restart(Policy::default(), s(600), "boot");
    world.pass(s(1));
    assert_eq!(world.epoch(), before);
    world.reconnect(&mut a);
    world.evidence(&a, 0.9);
    world.reconnect(&mut b);
    world.evidence(&b, 0.9);
    world.pass(s(2));
    assert_eq!(world.epoch(), before + 1, "all have: nothing to wait for");
    assert_eq!(world.status().epoch.members, 2);
}

#[test]
fn who_does_not_come_back_is_judged_without() {
    let (mut world, [mut a, b]) = running();
    let before = world.epoch();
    world.restart(Policy::default(), s(600), "boot");
    world.reconnect(&mut a);
    world.evidence(&a, 0.9);
    world.pass(s(12));
    assert_eq!(world.epoch(), before + 1);
    assert_eq!(world.status_of(&a).membership, Membership::Allowed);
    assert_eq!(world.status_of(&b).membership, Membership::Denied);
}

#[test]
fn replay_gives_the_state_that_was_left() {
    let (mut world, [a, b]) = running();
    world.evidence(&a, 0.2);
    world.rotate(true, false);
    let evict = Request::Evict(b.name.clone(), Default::default());
    assert!(world.ask(evict).is_ok());
    let before = world.engine.fleet().clone();
    world.restart(Policy::default(), s(1), "boot");
    let after = world.engine.fleet();
    let roster = |fleet: &Fleet| fleet.standings(SegmentId::FIRST).roster().clone();
    assert_eq!(roster(after), roster(&before));
    for (name, case) in before.cases(SegmentId::FIRST) {
        let again = after.case(SegmentId::FIRST, name).unwrap();
        assert_eq!(again.record(world.now), case.record(world.now));
        assert_eq!(again.verdict(), case.verdict());
    }
}

#[test]
fn a_new_authority_key_begins_a_new_epoch_at_once() {
    let (mut world, _) = running();
    let before = world.epoch();
    let fresh = AuthoritySecret::generate(&mut OsRng);
    let old = AuthoritySecret::from_base64(&world.authority).unwrap();
    world.authority = fresh.expose_base64().to_string();
    let refused = world.try_restart(Policy::default(), s(1), "boot");
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("adopt_log") && refused.contains(&old.public().to_string()));
    world.adopt = Some(old.public());
    world.restart(Policy::default(), s(1), "boot");
    world.pass(ms(10));
    let status = world.status();
    assert_eq!((status.epoch.id, status.epoch.members), (before + 1, 2));
}

#[test]
fn only_epochs_that_are_of_use_are_kept() {
    let (mut world, _) = running();
    for _ in 0..5 {
        world.rotate(true, false);
    }
    let path = log::path_in(world.dir.path());
    let in_force = world.epoch();
    drop(world.engine);
    let authority = AuthoritySecret::from_base64(&world.authority).unwrap();
    let opened = Log::open(&path, log_key(), &[authority.public()]).unwrap();
    let kept: Vec<u64> = opened.epochs.iter().map(|e| e.epoch.0).collect();
    assert_eq!(kept, [in_force]);
}

#[test]
fn an_old_copy_of_the_log_is_an_alarm_as_soon_as_a_node_proves_it() {
    let (mut world, [mut a, _]) = running();
    let path = log::path_in(world.dir.path());
    let copy = world.dir.path().join("copy.db");
    // A copy as a backup has it: the write-ahead log is empty after a tidy.
    world.engine.tidy(world.now);
    std::fs::copy(&path, &copy).unwrap();
    let evict = Request::Evict(a.name.clone(), Default::default());
    assert!(world.ask(evict).is_ok());
    let proof = world.mark(&a);
    assert!(world.status().alarms.is_empty());

    let elsewhere = tempfile::tempdir().unwrap();
    let dummy = log::path_in(elsewhere.path());
    let dummy = start(
        dummy,
        Policy::default(),
        &world.authority,
        "x",
        None,
        world.now,
    )
    .unwrap();
    drop(std::mem::replace(&mut world.engine, dummy));
    std::fs::rename(&copy, &path).unwrap();
    world.restart(Policy::default(), s(1), "boot");
    assert!(
        !world.engine.fleet().node(&a.name).unwrap().evicted(),
        "it has forgotten"
    );

    // A mere claim of a node, or another authority's signature, is no alarm.
    let mark = |epoch, authority: &AuthoritySecret, mesh| {
        let mark = Mark {
            mesh,
            segment: keys::SegmentId::FIRST,
            epoch,
            update: Digest([7; 32]),
            log: LogEnd {
                events: 1,
                root: Digest([7; 32]),
            },
            log_key: log_key().public(),
        };
        Some(Signed::sign(&mark, authority).unwrap())
    };
    let (own, other) = (
        AuthoritySecret::from_base64(&world.authority).unwrap(),
        AuthoritySecret::generate(&mut OsRng),
    );
    let mesh = world.engine.fleet().mesh().unwrap();
    let false_ones = [
        None,
        mark(Epoch(u64::MAX), &other, mesh),
        mark(Epoch(u64::MAX), &own, keys::MeshId([9; 16])),
    ];
    for newest in false_ones {
        a.connection = world.connect(&a.secret);
        world.hello_with(a.connection, newest);
        assert!(world.status().alarms.is_empty());
        assert!(
            world.update(&a).0.epoch > Epoch(0),
            "it is told what is in force"
        );
    }
    // Also long after its epoch has been overtaken by new ones.
    world.pass(s(400));
    assert!(world.epoch() > 5);
    a.connection = world.connect(&a.secret);
    world.hello_with(a.connection, proof);
    let alarms = world.status().alarms;
    assert!(
        alarms.len() == 1 && alarms[0].contains("old copy"),
        "{alarms:?}"
    );
}

#[test]
fn one_order_goes_on_from_an_old_copy_and_nodes_follow() {
    let (mut world, [mut a, mut b]) = running();
    let path = log::path_in(world.dir.path());
    let copy = world.dir.path().join("copy.db");
    world.token(None);
    world.engine.tidy(world.now);
    std::fs::copy(&path, &copy).unwrap();
    let evict = Request::Evict(a.name.clone(), Default::default());
    assert!(world.ask(evict).is_ok());
    let old_of_a = world.mark(&a);
    (0..7).for_each(|_| drop(world.rotate(true, false)));
    let (seen, of_b) = (world.epoch(), world.mark(&b));
    let recover = |form| Request::Recover(form);
    let elsewhere = tempfile::tempdir().unwrap();
    let dummy = log::path_in(elsewhere.path());
    let (policy, authority) = (Policy::default(), world.authority.clone());
    let dummy = start(dummy, policy, &authority, "x", None, world.now).unwrap();
    drop(std::mem::replace(&mut world.engine, dummy));
    std::fs::rename(&copy, &path).unwrap();
    world.restart(Policy::default(), s(1), "boot");
    assert!(world.epoch() < seen);

    // Nobody has proved anything: an operator who mistakes the occasion changes nothing.
    let refused = world.ask(recover(RecoverRequest::default())).err().unwrap();
    assert!(refused.contains("no node has proved"), "{refused}");
    let far = RecoverRequest {
        seen: Some(u64::MAX),
        ..Default::default()
    };
    assert!(world.ask(recover(far)).is_err());

    for (node, mark) in [(&mut a, old_of_a), (&mut b, of_b.clone())] {
        node.connection = world.connect(&node.secret);
        world.hello_with(node.connection, mark);
    }
    assert_eq!(world.status().alarms.len(), 1);
    let form = RecoverRequest {
        evict: vec![a.name.clone()],
        ..Default::default()
    };
    let Ok(Answer::Recovered(done)) = world.ask(recover(form)) else {
        panic!("not recovered");
    };
    assert_eq!(
        (done.seen, done.change.epoch),
        (seen, seen + 2),
        "the newest of both proofs"
    );
    assert_eq!(
        (done.evicted, done.revoked.len()),
        (vec![a.name.clone()], 1)
    );
    assert!(done.absent.is_empty());
    assert!(world.status().alarms.is_empty());
    assert!(world.engine.fleet().node(&a.name).unwrap().evicted());
    let (update, _) = world.update(&b);
    assert_eq!(update.epoch, Epoch(seen + 2));
    assert!(world.engine.fleet().restored().is_some());

    // It holds after a restart: neither the alarm nor the numbers come back.
    world.restart(Policy::default(), s(1), "boot");
    b.connection = world.connect(&b.secret);
    world.hello_with(b.connection, of_b);
    assert!(world.status().alarms.is_empty());
    world.rotate(true, false);
    assert_eq!(world.epoch(), seen + 3);
}

#[test]
fn a_node_that_comes_again_to_the_log_that_it_knows_raises_no_alarm() {
    let (mut world, [mut a, b]) = running();
    let old = world.mark(&a);
    for _ in 0..3 {
        world.rotate(true, false);
    }
    world.restart(Policy::default(), s(1), "boot");
    for proof in [old, world.mark(&b)] {
        a.connection = world.connect(&a.secret);
        world.hello_with(a.connection, proof);
        assert!(world.status().alarms.is_empty());
    }
    // An update that is pushed after a restart is marked anew, with the log as it is then.
    let again = world.mark(&a);
    world.restart(Policy::default(), s(1), "boot");
    a.connection = world.connect(&a.secret);
    world.hello_with(a.connection, again);
    assert!(world.status().alarms.is_empty());
}

#[test]
fn the_authority_is_replaced_by_its_own_word_and_nodes_old_and_new_follow() {
    let (mut world, [a, b]) = running();
    let old = AuthoritySecret::from_base64(&world.authority)
        .unwrap()
        .public();
    let (token, of_b) = (world.token(None), world.mark(&b));
    let (epoch, seen) = (world.epoch(), world.told[&a.connection].len());
    let Ok(Answer::Authority(done)) = world.ask(Request::RotateAuthority) else {
        panic!("not rotated");
    };
    assert_eq!((done.old, done.change.epoch), (old.to_string(), epoch + 1));
    // A node hears the old key's word before the first thing that the new one has signed.
    let mut trusted = vec![old];
    let mesh = world.engine.fleet().mesh();
    for message in world.told[&a.connection].iter().skip(seen) {
        match message {
            ToNode::Authorities { successions } => {
                trusted = wire::succession::follow(successions, mesh, &trusted);
            }
            ToNode::Update(update) => {
                assert_eq!(update.signed.verify(&trusted).unwrap().epoch.0, epoch + 1);
                assert!(update.mark.verify(&trusted).is_ok());
            }
            _ => {}
        }
    }
    assert_eq!(trusted.len(), 1);
    assert_eq!(trusted[0].to_string(), done.new);
    // The file has the new key, and a restart goes on with it.
    let file = world.dir.path().join("authority.key");
    world.authority = std::fs::read_to_string(&file).unwrap().trim().to_owned();
    world.restart(Policy::default(), s(1), "boot");
    assert_eq!(world.epoch(), epoch + 1, "what is in force goes on");
    // A node that was away, and one with a token of before.
    let away = world.connect(&b.secret);
    world.hello_with(away, of_b);
    let told = &world.told[&away];
    assert!(
        matches!(told[0], ToNode::Authorities { .. }),
        "{:?}",
        told[0]
    );
    let ToNode::Welcome { places, .. } = &told[1] else {
        panic!("{:?}", told[1]);
    };
    assert!(places[0].verify(&trusted).is_ok());
    assert!(
        world.status().alarms.is_empty(),
        "the old key's mark is no other log's"
    );
    let (enrolled, _) = world
        .try_enrol(&NodeSecret::generate(&mut OsRng), wg(), Some("c"), &token)
        .unwrap();
    let told = &world.told[&enrolled];
    assert!(
        matches!(told[0], ToNode::Authorities { .. }),
        "{:?}",
        told[0]
    );
}

#[test]
fn a_change_of_the_authority_that_cannot_be_written_changes_nothing() {
    let (mut world, [_, _]) = running();
    let epoch = world.epoch();
    world.engine.log().fill_up();
    while world.ask(Request::RotateAuthority).is_ok() {
        world.engine.log().fill_up();
        assert!(world.epoch() < epoch + 20, "the reserve is finite");
    }
    world.engine.log().free_up();
    let next = world.dir.path().join("authority.key.new");
    assert!(!next.exists(), "a key that never signed does not stay");
    assert!(world.rotate(true, false).epoch > epoch);
}
