//! Wall clocks that are wrong and become right, of the controller and of its nodes together: evidence from
//! then counts no more, and keeps nobody out.

use super::*;
use jiff::SignedDuration;
use policy::Revoke;
use wire::admin::{Explanation, Membership};

const MINUTE: i64 = 60;
const HOUR: i64 = 3_600;
const DAY: i64 = 86_400;

fn policy() -> Policy {
    Policy {
        // All of a small mesh may fail at once.
        floor_nodes: 100,
        ..Policy::default()
    }
}

/// Sets all wall clocks; the other one goes on.
fn set(world: &mut World, by: i64) {
    world.now.wall += SignedDuration::from_secs(by);
    world.pass(ms(10));
}

fn explained(world: &mut World, node: &Node) -> Explanation {
    match world.ask(Request::Explain(node.name.clone(), None)) {
        Ok(Answer::Explanation(explained)) => *explained,
        _ => panic!("no explanation"),
    }
}

fn membership(world: &mut World, node: &Node) -> Membership {
    world.status_of(node).membership
}

/// Something that operators try between a clock's correction and the next run.
type Remedy = fn(&mut World, &mut [Node; 3]);

const NOTHING: Remedy = |_, _| {};
const RESTART: Remedy = |world, nodes| {
    world.restart(policy(), s(1), "boot");
    nodes.iter_mut().for_each(|node| world.reconnect(node));
};
const REBOOT: Remedy = |world, nodes| {
    world.now.boot = s(5);
    world.restart(policy(), s(1), "another boot");
    nodes.iter_mut().for_each(|node| world.reconnect(node));
};
const READMIT: Remedy = |world, nodes| {
    let evict = Request::Evict(nodes[2].name.clone(), Default::default());
    assert!(world.ask(evict).is_ok());
    assert!(world.ask(Request::Readmit(nodes[2].name.clone())).is_ok());
    world.reconnect(&mut nodes[2]);
};

#[test]
fn clocks_that_were_ahead_for_a_while_keep_no_failing_node_in_and_no_honest_run_out() {
    for ahead in [20, MINUTE, HOUR, DAY] {
        for remedy in [NOTHING, RESTART, REBOOT, READMIT] {
            let mut world = World::new(policy());
            let mut nodes = world.members(["a", "b", "c"]);
            set(&mut world, ahead);
            world.pass(s(10));
            for node in &nodes {
                assert_eq!(world.evidence(node, 0.9), None, "{ahead}");
            }
            world.pass(s(10));
            set(&mut world, -ahead);
            world.pass(s(1));
            remedy(&mut world, &mut nodes);
            let [a, b, c] = &nodes;
            for (node, score) in [(a, 0.9), (b, 0.9), (c, 0.1)] {
                let refused = world.evidence(node, score);
                assert_eq!(refused, None, "{ahead}: an honest run is newer");
            }
            assert_eq!(
                world.status_of(c).last_benchmark.unwrap().overall,
                Some(0.1)
            );
            world.rotate(true, false);
            assert_eq!(membership(&mut world, c), Membership::Denied);
            for node in [a, b] {
                assert_eq!(membership(&mut world, node), Membership::Allowed);
            }
            let reason = world.status_of(c).reason.unwrap();
            assert_eq!(reason, "score below threshold", "{ahead}");
            assert!(world.evidence(c, 0.1).is_some(), "order holds as ever");
            world.pass(s(1));
            assert_eq!(world.evidence(c, 0.1), None);
        }
    }
}

#[test]
fn evidence_of_a_time_that_has_not_come_is_void_and_every_word_about_it_says_so() {
    for ahead in [MINUTE, HOUR, DAY] {
        let mut world = World::new(policy());
        let [a, b] = world.members(["a", "b"]);
        set(&mut world, ahead);
        assert_eq!(world.evidence(&a, 0.9), None);
        world.pass(s(5));
        set(&mut world, -ahead);
        let told = explained(&mut world, &a);
        assert_eq!(
            (told.decision.score, told.decision.age_seconds),
            (None, None)
        );
        assert_eq!(told.decision.membership, Membership::Denied);
        let reason = told.decision.reason.as_deref().unwrap_or_default();
        assert!(reason.contains("void"), "{reason}");
        let future = told.rules.iter().find(|it| it.rule.contains("ahead"));
        let future = future.expect("the rule is shown");
        assert!(!future.holds && future.value.contains("void"), "{future:?}");
        let alarms = world.status().alarms;
        let step = format!("set back by {ahead} s");
        assert!(alarms.iter().any(|it| it.contains(&step)), "{alarms:?}");
        let void = |alarms: &[String]| {
            let mut void = alarms.iter().filter(|it| it.contains("void"));
            void.next().map(|it| it.contains("evidence of a;"))
        };
        assert_eq!(void(&alarms), Some(true), "{alarms:?}");
        assert_eq!(explained(&mut world, &b).decision.reason, None);

        world.rotate(true, false);
        assert_eq!(membership(&mut world, &a), Membership::Denied);
        assert_eq!(membership(&mut world, &b), Membership::Allowed);
        assert_eq!(world.evidence(&a, 0.9), None);
        world.rotate(true, false);
        assert_eq!(membership(&mut world, &a), Membership::Allowed);
        assert_eq!(void(&world.status().alarms), None);
        world.pass(s(700));
        assert!(world.status().alarms.is_empty(), "a step is forgotten");
    }
}

#[test]
fn void_evidence_is_not_young_when_its_time_comes_not_even_after_a_restart() {
    for restarts in [false, true] {
        let mut world = World::new(policy());
        let [a, b] = world.members(["a", "b"]);
        set(&mut world, HOUR);
        assert_eq!(world.evidence(&a, 0.9), None);
        world.pass(s(5));
        set(&mut world, -HOUR);
        // An event that shows it to whoever reads the log.
        assert_eq!(world.evidence(&b, 0.9), None);
        world.pass(s(3_590));
        if restarts {
            world.restart(policy(), s(20), "boot");
            world.pass(s(1));
        } else {
            world.pass(s(21));
        }
        let told = explained(&mut world, &a);
        assert_eq!(told.decision.membership, Membership::Denied);
        assert!(told.decision.reason.unwrap().contains("void"));
    }
}

#[test]
fn where_the_clock_was_set_back_while_the_controller_was_away_nobody_guesses_an_age() {
    for (ahead, away) in [(5, 1), (HOUR, 1), (DAY, DAY - 10)] {
        let mut world = World::new(policy());
        let [a] = world.members(["a"]);
        world.now.wall += SignedDuration::from_secs(ahead);
        assert_eq!(world.evidence(&a, 0.9), None);
        world.now.wall -= SignedDuration::from_secs(ahead);
        world.restart(policy(), s(away.unsigned_abs()), "boot");
        let told = explained(&mut world, &a);
        assert_eq!(told.decision.age_seconds, None, "{ahead}");
        assert!(told.decision.reason.unwrap().contains("void"));
        let alarms = world.status().alarms;
        assert!(
            alarms.iter().any(|it| it.contains("set back")),
            "{alarms:?}"
        );
    }
}

#[test]
fn a_recorded_run_from_the_future_does_not_come_again_when_its_time_has_come() {
    let mut world = World::new(policy());
    let [a] = world.members(["a"]);
    set(&mut world, HOUR);
    let run = world.run();
    let nonce = run.nonce.clone();
    let envelope = run.attest_self(a.name.as_str(), &a.secret).unwrap();
    assert_eq!(world.envelope(&a, envelope.clone()), None);
    world.pass(s(1));
    set(&mut world, -HOUR);
    // Many more than are remembered in ordinary times.
    for _ in 0..200 {
        world.pass(s(17));
        assert_eq!(world.evidence(&a, 0.1), None);
    }
    world.pass(s(200));
    let again = world.envelope(&a, envelope).unwrap();
    assert!(
        again.contains("nonce") || again.contains("epoch"),
        "{again}"
    );
    let bare = Benchmark {
        nonce,
        ..world.run()
    };
    let signed = bare.attest_self(a.name.as_str(), &a.secret).unwrap();
    let again = world.envelope(&a, signed).unwrap();
    assert!(again.contains("nonce"), "{again}");
}

#[test]
fn where_failing_members_leave_at_once_a_step_back_is_no_exception() {
    let policy = Policy {
        revoke: Revoke::Now,
        ..policy()
    };
    let mut world = World::new(policy);
    let [a, b] = world.members(["a", "b"]);
    set(&mut world, DAY);
    assert_eq!(world.evidence(&a, 0.9), None);
    assert_eq!(world.evidence(&b, 0.9), None);
    world.pass(s(5));
    set(&mut world, -DAY);
    assert_eq!(membership(&mut world, &a), Membership::Denied);
    assert_eq!(world.evidence(&b, 0.9), None);
    world.pass(s(70));
    assert_eq!(membership(&mut world, &b), Membership::Allowed);
}

#[test]
fn epochs_leases_and_their_times_as_shown_do_not_follow_the_wall_clock() {
    for by in [DAY, -DAY, MINUTE, -MINUTE] {
        let mut world = World::new(policy());
        let [a] = world.members(["a"]);
        let (epoch, due) = (world.epoch(), world.engine.poll_timeout());
        set(&mut world, by);
        assert_eq!(world.epoch(), epoch);
        assert_eq!(world.engine.poll_timeout(), due, "{by}");
        let shown = world.status();
        let (now, ends): (Timestamp, Timestamp) = (
            shown.generated_utc.parse().unwrap(),
            shown.epoch.expiry_utc.parse().unwrap(),
        );
        let left = ends.duration_since(now).as_secs();
        assert!((40..=62).contains(&left), "{by}: {left}");
        world.evidence(&a, 0.9);
        world.pass(s(120));
        assert_eq!(world.epoch(), epoch + 2);
    }
}

#[test]
fn an_epoch_whose_age_nobody_knows_after_a_reboot_is_over() {
    let long = Policy {
        epoch_seconds: 3_600,
        max_benchmark_age: 7_200,
        ..policy()
    };
    let mut world = World::new(long.clone());
    let [mut a] = world.members(["a"]);
    let before = world.epoch();
    (world.now.boot, world.now.wall) = (s(3), Timestamp::from_second(1_000).unwrap());
    world.restart(long, s(1), "another boot");
    world.reconnect(&mut a);
    assert_eq!(world.evidence(&a, 0.9), None);
    world.pass(s(20));
    assert!(world.epoch() > before, "{}", world.epoch());
    assert_eq!(membership(&mut world, &a), Membership::Allowed);
}

#[test]
fn a_token_lives_as_long_as_it_was_made_for_whatever_the_wall_clock_does() {
    let mut world = World::new(policy());
    let secret = NodeSecret::generate(&mut OsRng);
    let is_open = |world: &mut World, id: &str| match world.ask(Request::Tokens) {
        Ok(Answer::Tokens(tokens)) => tokens.iter().any(|it| it.id == id && it.state == "open"),
        _ => panic!("no list"),
    };
    let create = |world: &mut World| {
        let form = TokenRequest {
            name: None,
            ttl_seconds: Some(60),
            uses: None,
            segments: Vec::new(),
        };
        match world.ask(Request::CreateToken(form)) {
            Ok(Answer::Created(created)) => (created.id, created.token.parse::<Token>().unwrap()),
            _ => panic!("no token"),
        }
    };
    // Made while the clock was ahead, it does not outlive its minute.
    set(&mut world, DAY);
    let (id, token) = create(&mut world);
    set(&mut world, -DAY);
    world.pass(s(30));
    assert!(is_open(&mut world, &id));
    world.pass(s(31));
    assert!(!is_open(&mut world, &id));
    let refused = world.try_enrol(&secret, wg(), None, &token).unwrap_err();
    assert_eq!(refused, Refusal::BadToken);
    // A step ahead and back takes none of its time.
    let (id, token) = create(&mut world);
    set(&mut world, HOUR);
    assert!(!is_open(&mut world, &id), "while it lasts, that is its end");
    set(&mut world, -HOUR);
    assert!(is_open(&mut world, &id));
    assert!(world.try_enrol(&secret, wg(), None, &token).is_ok());
    // After a restart with a clock that was set back, nobody knows how long it has lived.
    set(&mut world, DAY);
    let (id, _) = create(&mut world);
    world.now.wall -= SignedDuration::from_secs(DAY);
    world.restart(policy(), s(1), "boot");
    assert!(!is_open(&mut world, &id));
}
