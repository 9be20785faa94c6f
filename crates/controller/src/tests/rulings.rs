//! The policy while it changes, rulings beside it, evidence by operators' hands, and the log read again.

use super::*;
use crate::event::Event;
use crate::replay;
use keys::{EvaluatorId, EvaluatorSecret};
use policy::Revoke;
use wire::admin::{EvidenceAnswer, Explanation, Membership, OverrideRequest, Simulation};

fn explained(world: &mut World, node: &Node) -> Explanation {
    match world.ask(Request::Explain(node.name.clone(), None)) {
        Ok(Answer::Explanation(explained)) => *explained,
        _ => panic!("no explanation"),
    }
}

fn explained_at(world: &mut World, node: &Node, then: Timestamp) -> Explanation {
    match world.ask(Request::ExplainAt(node.name.clone(), None, then)) {
        Ok(Answer::Explanation(explained)) => *explained,
        _ => panic!("no explanation"),
    }
}

fn simulated(world: &mut World, policy: Policy, since: Option<Timestamp>) -> Simulation {
    match world.ask(Request::Simulate(None, Box::new(policy), since)) {
        Ok(Answer::Simulation(simulation)) => *simulation,
        _ => panic!("no simulation"),
    }
}

fn change(world: &mut World, policy: Policy) -> Result<bool, String> {
    let changed = world.ask(Request::ChangePolicy(None, Box::new(policy)));
    world.pass(ms(10));
    match changed? {
        Answer::PolicyApplied(applied) => Ok(applied.changed),
        _ => panic!("no answer"),
    }
}

fn rule(world: &mut World, node: &Node, ruling: &str, seconds: u64) -> Result<(), String> {
    let form = OverrideRequest {
        ruling: ruling.into(),
        threshold: (ruling == "threshold").then_some(0.3),
        seconds,
        reason: "an exercise".into(),
    };
    let ruled = world.ask(Request::Override(node.name.clone(), form));
    world.pass(ms(500));
    ruled.map(|_| ())
}

fn hand_in(world: &mut World, node: &Node, envelope: Vec<u8>) -> EvidenceAnswer {
    match world.ask(Request::Evidence(node.name.clone(), envelope)) {
        Ok(Answer::Evidence(answer)) => answer,
        _ => panic!("no answer"),
    }
}

fn vouched(world: &World, node: &Node, suite: &str, score: f64, by: &EvaluatorSecret) -> Vec<u8> {
    let run = Benchmark {
        overall: Some(score),
        suite: suite.into(),
        challenge: None,
        ..world.run()
    };
    run.attest_as(node.name.as_str(), &node.secret.public(), by)
        .unwrap()
}

fn strict() -> Policy {
    Policy {
        threshold: 0.95,
        floor_nodes: 100,
        ..Policy::default()
    }
}

fn lenient() -> Policy {
    Policy {
        floor_nodes: 100,
        ..Policy::default()
    }
}

fn member(world: &mut World, node: &Node) -> bool {
    world.status_of(node).membership == Membership::Allowed
}

#[test]
fn another_policy_takes_effect_at_the_next_decision_and_at_once_where_it_revokes_now() {
    for revoke in [Revoke::Epoch, Revoke::Now] {
        let with = |policy: Policy| Policy { revoke, ..policy };
        let mut world = World::new(with(lenient()));
        let [a] = world.members(["a"]);
        assert_eq!(change(&mut world, with(lenient())), Ok(false));
        assert_eq!(change(&mut world, with(strict())), Ok(true));
        assert_eq!(member(&mut world, &a), revoke == Revoke::Epoch);
        world.rotate(true, false);
        assert!(!member(&mut world, &a));
        let broken = Policy {
            threshold: 7.0,
            ..Policy::default()
        };
        let refused = change(&mut world, broken).unwrap_err();
        assert!(refused.contains("`threshold` is 7"), "{refused}");
        // The log has all of it, with its author.
        let list = world.events(Page {
            kind: Some("policy_changed".into()),
            ..Page::default()
        });
        let by: Vec<_> = list.events.iter().map(|it| it.by.as_deref()).collect();
        assert_eq!(by, [None, Some("uid:1000")]);
        assert_eq!(list.events[1].body["policy"]["threshold"], 0.95);
        let digest = with(strict()).digest().to_string();
        assert_eq!(list.events[1].body["digest"], digest.as_str());
    }
}

#[test]
fn a_policy_is_on_record_once_and_again_when_a_start_brings_another() {
    let mut world = World::new(lenient());
    let count = |world: &mut World| {
        let kind = Some("policy_changed".into());
        let page = Page {
            kind,
            ..Page::default()
        };
        world.events(page).events.len()
    };
    assert_eq!(count(&mut world), 1);
    world.restart(lenient(), s(1), "boot");
    assert_eq!(count(&mut world), 1);
    world.restart(strict(), s(1), "boot");
    assert_eq!(count(&mut world), 2);
}

#[test]
fn a_policy_file_that_cannot_be_used_is_an_alarm_until_one_can() {
    let mut world = World::new(lenient());
    world
        .engine
        .handle_unread_policy("line 3: `treshold`".into());
    let alarms = world.status().alarms;
    assert!(
        alarms.iter().any(|it| it.contains("line 3: `treshold`")),
        "{alarms:?}"
    );
    let now = world.now;
    let changed = world
        .engine
        .change_policy(None, lenient(), Some(By::Signal), now);
    assert_eq!(changed.ok(), Some(false));
    assert!(world.status().alarms.is_empty());
}

#[test]
fn an_override_admits_or_shuts_out_for_its_time_and_ends_by_itself() {
    let mut world = World::new(lenient());
    let [a, b] = world.members(["a", "b"]);
    let keep = |world: &mut World, nodes: [(&Node, f64); 2]| {
        world.pass(s(1));
        for (node, score) in nodes {
            assert_eq!(world.evidence(node, score), None);
        }
    };
    keep(&mut world, [(&a, 0.1), (&b, 0.9)]);
    world.rotate(true, false);
    assert!(!member(&mut world, &a) && member(&mut world, &b));
    rule(&mut world, &a, "allow", 300).unwrap();
    world.pass(s(2));
    assert!(member(&mut world, &a), "it does not wait for a rotation");
    rule(&mut world, &b, "deny", 90).unwrap();
    world.rotate(true, false);
    assert!(!member(&mut world, &b));
    let told = explained(&mut world, &b);
    assert_eq!(
        told.decision.reason.as_deref(),
        Some("denied by an operator's override")
    );
    assert!(told.remedy.unwrap().contains("--clear"));
    assert!(
        told.outlook
            .iter()
            .any(|it| it.contains("uid:1000") && it.contains("an exercise"))
    );
    let shown = world.status_of(&b).overriding.unwrap();
    assert_eq!(
        (shown.ruling.as_str(), shown.by.as_deref()),
        ("deny", Some("uid:1000"))
    );
    // A clock that is set back makes it no longer, and none that is set forth makes it shorter than it says.
    world.now.wall -= jiff::SignedDuration::from_secs(3_600);
    world.pass(s(91));
    keep(&mut world, [(&a, 0.1), (&b, 0.9)]);
    world.rotate(true, false);
    assert!(member(&mut world, &b) && member(&mut world, &a));
    assert_eq!(world.status_of(&b).overriding, None);
    assert!(world.ask(Request::ClearOverride(b.name.clone())).is_err());
    assert!(world.ask(Request::ClearOverride(a.name.clone())).is_ok());
    world.rotate(true, false);
    assert!(!member(&mut world, &a));
    rule(&mut world, &a, "threshold", 60).unwrap();
    assert!(!member(&mut world, &a), "0.1 is below 0.3");
    for (ruling, seconds, words) in [("perhaps", 9, "ruling"), ("allow", 0, "lasts from 1")] {
        let refused = rule(&mut world, &a, ruling, seconds).unwrap_err();
        assert!(refused.contains(words), "{refused}");
    }
}

#[test]
fn an_override_that_ends_revokes_at_once_where_the_policy_does() {
    let mut world = World::new(Policy {
        revoke: Revoke::Now,
        max_benchmark_age: 1_000,
        ..lenient()
    });
    let [a] = world.members(["a"]);
    rule(&mut world, &a, "allow", 30).unwrap();
    world.pass(s(1));
    assert_eq!(world.evidence(&a, 0.1), None);
    world.pass(s(20));
    assert!(member(&mut world, &a));
    world.pass(s(10));
    assert!(!member(&mut world, &a));
}

#[test]
fn an_evaluators_envelope_comes_by_hand_and_is_held_to_its_scope_when_accepted_and_when_judged() {
    let evaluator = EvaluatorSecret::generate(&mut OsRng);
    let policy = |suites: &str| {
        let key: EvaluatorId = evaluator.public();
        let toml = format!(
            "[[require]]\nname = \"safety\"\nsigners = \"evaluator\"\n[[evaluator]]\nkey = \"{key}\"\nsuites = \
             [\"{suites}\"]\ngroups = [\"gpu\"]"
        );
        Policy::from_toml(&toml).unwrap()
    };
    let mut world = World::new(policy("agent-*"));
    let a = world.node("a");
    let refused = hand_in(&mut world, &a, b"{}".to_vec());
    assert!(!refused.accepted && !refused.again);
    let envelope = vouched(&world, &a, "agent-x", 0.9, &evaluator);
    let refused = hand_in(&mut world, &a, envelope.clone()).reason.unwrap();
    assert!(
        refused.contains("may not vouch for suite agent-x"),
        "{refused}"
    );
    let group = |member| Request::Group {
        name: a.name.clone(),
        group: "gpu".into(),
        member,
    };
    assert!(world.ask(group(true)).is_ok());
    assert!(world.ask(group(true)).is_err(), "it is in it already");
    assert_eq!(world.status_of(&a).groups, ["gpu"]);
    let accepted = hand_in(&mut world, &a, envelope.clone());
    assert!(accepted.accepted, "{accepted:?}");
    assert!(accepted.digest.starts_with("sha256:"));
    assert!(!hand_in(&mut world, &a, envelope).accepted, "twice");
    world.pass(s(2));
    assert!(member(&mut world, &a));
    assert!(world.ask(group(false)).is_ok());
    let reason = explained(&mut world, &a).decision.reason.unwrap();
    assert!(
        reason.contains("may not vouch for suite agent-x here"),
        "{reason}"
    );
    assert!(world.ask(group(true)).is_ok());
    assert_eq!(explained(&mut world, &a).decision.reason, None);
    assert_eq!(change(&mut world, policy("other-*")), Ok(true));
    let reason = explained(&mut world, &a).decision.reason.unwrap();
    assert!(reason.starts_with("safety: evaluator"), "{reason}");
    let by = world.events(Page {
        kind: Some("evidence_accepted".into()),
        ..Page::default()
    });
    assert_eq!(by.events[0].by.as_deref(), Some("uid:1000"));
}

#[test]
fn the_newest_run_of_each_suite_and_signer_is_kept_and_the_rest_is_bounded() {
    let evaluator = EvaluatorSecret::generate(&mut OsRng);
    let mut world = World::new(Policy {
        evaluators: vec![evaluator.public()],
        max_benchmark_age: 1_000,
        ..lenient()
    });
    let a = world.node("a");
    let old = vouched(&world, &a, "s", 0.9, &evaluator);
    world.pass(s(5));
    assert_eq!(world.evidence(&a, 0.5), None);
    assert!(
        hand_in(&mut world, &a, old).accepted,
        "older than the node's own, but another signer's"
    );
    assert_eq!(explained(&mut world, &a).evidence.len(), 2);
    for number in 0..40 {
        world.pass(s(3));
        let envelope = vouched(&world, &a, &format!("s{number}"), 0.9, &evaluator);
        let answer = hand_in(&mut world, &a, envelope);
        assert_eq!(answer.accepted, number < 30, "{number}: {answer:?}");
    }
    assert_eq!(explained(&mut world, &a).evidence.len(), 32);
    world.pass(s(1_000));
    let envelope = vouched(&world, &a, "another", 0.9, &evaluator);
    assert!(
        hand_in(&mut world, &a, envelope).accepted,
        "what is too old makes room"
    );
    assert_eq!(explained(&mut world, &a).evidence.len(), 32);
}

/// A life with everything in it that decisions depend on.
fn life() -> (World, [Node; 3], Vec<Timestamp>) {
    let policy = Policy {
        failures_to_leave: 2,
        passes_to_return: 2,
        probation_epochs: 1,
        ..lenient()
    };
    let mut world = World::new(policy.clone());
    let mut nodes = world.members(["a", "b", "c"]);
    let mut times = vec![world.now.wall];
    for round in 0..12_u32 {
        world.pass(s(25));
        for (node, score) in [
            (0, 0.9),
            (1, if round % 4 < 2 { 0.2 } else { 0.8 }),
            (2, 0.71),
        ] {
            world.evidence(&nodes[node], score);
        }
        match round {
            2 => world.now.wall += jiff::SignedDuration::from_secs(3_600),
            3 => world.now.wall -= jiff::SignedDuration::from_secs(3_600),
            4 => rule(&mut world, &nodes[1], "allow", 60).unwrap(),
            5 => {
                world.restart(policy.clone(), s(7), "another boot");
                nodes.iter_mut().for_each(|node| world.reconnect(node));
            }
            6 => assert_eq!(change(&mut world, strict()), Ok(true)),
            7 => {
                world.rotate(true, true);
            }
            8 => assert_eq!(change(&mut world, policy.clone()), Ok(true)),
            9 => {
                let evict = Request::Evict(nodes[2].name.clone(), Default::default());
                assert!(world.ask(evict).is_ok());
            }
            10 => {
                assert!(world.ask(Request::Readmit(nodes[2].name.clone())).is_ok());
                world.reconnect(&mut nodes[2]);
            }
            _ => {}
        }
        times.push(world.now.wall);
    }
    world.pass(s(130));
    (world, nodes, times)
}

#[test]
fn the_log_replayed_through_its_policies_gives_the_same_decisions_byte_by_byte() {
    let (world, ..) = life();
    let (mut decisions, mut verdicts) = (0, 0);
    replay::decisions(world.engine.log(), |seq, recorded, again| {
        decisions += 1;
        if let Event::Decided { nodes, .. } = recorded {
            verdicts += nodes.len();
        }
        assert_eq!(again.columns(), recorded.columns(), "entry {seq}");
    })
    .unwrap();
    assert!(decisions > 10 && verdicts > 15, "{decisions} {verdicts}");
}

#[test]
fn an_earlier_time_is_explained_as_it_was_explained_then() {
    let mut world = World::new(lenient());
    let [a] = world.members(["a"]);
    world.pass(s(10));
    world.evidence(&a, 0.9);
    let mut then = Vec::new();
    for step in 0..6 {
        world.pass(s(40));
        if step == 3 {
            world.evidence(&a, 0.2);
        }
        let mut told = explained(&mut world, &a);
        told.status = None;
        then.push((world.now.wall, told));
        world.pass(ms(5));
    }
    for (at, mut told) in then {
        let mut again = explained_at(&mut world, &a, at);
        // The timers are not in the log.
        let timers = |it: &String| !it.contains("in force") && !it.contains("newest epoch ends");
        told.outlook.retain(timers);
        again.outlook.retain(timers);
        assert_eq!(again, told, "{at}");
    }
    let before = Timestamp::from_second(1_699_999_999).unwrap();
    assert!(
        world
            .ask(Request::ExplainAt(a.name.clone(), None, before))
            .is_err()
    );
}

#[test]
fn a_policy_is_tried_on_the_record_and_tells_where_it_would_have_differed() {
    let (mut world, _, times) = life();
    let mut world_of_one = World::new(lenient());
    let [a, b] = world_of_one.members(["a", "b"]);
    let start = world_of_one.now.wall;
    for _ in 0..4 {
        world_of_one.pass(s(50));
        world_of_one.evidence(&a, 0.9);
        world_of_one.evidence(&b, 0.97);
    }
    let none = simulated(&mut world_of_one, lenient(), None);
    assert_eq!(none.differences, []);
    assert!(none.decisions > 3);
    let other = simulated(&mut world_of_one, strict(), None);
    let names: Vec<_> = other
        .differences
        .iter()
        .map(|it| it.name.as_str())
        .collect();
    assert!(names.contains(&"a"), "{names:?}");
    let of_a = other
        .differences
        .iter()
        .find(|it| it.name == a.name)
        .unwrap();
    assert_eq!(
        (of_a.happened, of_a.would),
        (Membership::Allowed, Membership::Denied)
    );
    assert_eq!(of_a.reason.as_deref(), Some("score below threshold"));
    assert_eq!(of_a.until_utc, None);
    let later = simulated(&mut world_of_one, strict(), Some(start + s(100)));
    assert!(later.decisions < other.decisions && later.decisions > 0);
    // A whole life, with changes of the policy in it.
    let simulation = simulated(&mut world, strict(), times.first().copied());
    assert!(!simulation.differences.is_empty());
}

#[test]
fn what_was_over_by_the_logs_own_time_is_not_revived_by_a_clock_that_is_behind() {
    let mut world = World::new(lenient());
    let [a] = world.members(["a"]);
    world.token(None);
    rule(&mut world, &a, "allow", 60).unwrap();
    let state = |world: &mut World| match world.ask(Request::Tokens) {
        Ok(Answer::Tokens(tokens)) => tokens.last().unwrap().state.clone(),
        _ => panic!("no list"),
    };
    world.pass(s(1_800));
    world.evidence(&a, 0.9);
    let accepted = world.now.wall;
    world.pass(s(1_900));
    let ended = |world: &mut World| {
        let open = match world.ask(Request::Tokens) {
            Ok(Answer::Tokens(tokens)) => tokens.iter().filter(|it| it.state == "open").count(),
            _ => panic!("no list"),
        };
        assert_eq!(open, 0);
        assert_eq!(world.status_of(&a).overriding, None);
        let told = explained(world, &a);
        assert_eq!(told.decision.membership, Membership::Denied);
        told.decision.reason.unwrap()
    };
    let _ = state(&mut world);
    assert_eq!(ended(&mut world), "benchmark stale");
    // A moment after the evidence, by a calendar that the log's newest entry is ahead of; and in 1970.
    for wall in [accepted + s(10), Timestamp::from_second(100).unwrap()] {
        (world.now.boot, world.now.wall) = (s(5), wall);
        world.restart(lenient(), s(1), "another boot");
        assert!(ended(&mut world).contains("void"));
    }
}
