//! Membership from epoch to epoch.
//!
//! The file is long because each rule of membership has its test here.

use super::*;
use policy::Revoke;
use wire::Way;
use wire::admin::{Control, Membership, NodeState, PskState};
use wire::message::{InterfaceReport, MAX_FAULT_LEN, MAX_FAULTS, PeerReport};

fn world() -> World {
    World::new(Policy::default())
}

fn passing(world: &mut World, nodes: &[&Node], time: Duration) {
    let end = world.now.boot + time;
    while world.now.boot < end {
        for node in nodes {
            assert_eq!(world.evidence(node, 0.9), None);
        }
        world.pass(s(10).min(end - world.now.boot));
    }
}

#[test]
fn a_mesh_begins_with_an_empty_epoch() {
    let mut world = world();
    let status = world.status();
    assert_eq!((status.epoch.id, status.epoch.members), (1, 0));
    assert_eq!(status.epoch.activated_utc, "2023-11-14T22:13:20.000Z");
    assert_eq!(status.epoch.expiry_utc, "2023-11-14T22:14:20.000Z");
}

#[test]
fn new_nodes_join_together_and_at_once_where_nobody_was() {
    let mut world = world();
    let (a, b) = (world.node("a"), world.node("b"));
    assert_eq!(world.status_of(&a).state, NodeState::Quarantined);
    world.evidence(&a, 0.9);
    world.evidence(&b, 0.9);
    world.pass(ms(300));
    assert_eq!(world.epoch(), 2);
    for node in [&a, &b] {
        let (update, secret) = world.update(node);
        assert_eq!((update.roster.len(), update.activate_in_ms), (2, 0));
        assert!(secret);
    }
    let c = world.node("c");
    world.evidence(&c, 0.9);
    world.pass(ms(300));
    let (update, secret) = world.update(&c);
    assert_eq!((update.epoch.0, update.activate_in_ms), (3, 1_000));
    assert!(secret);
    assert_eq!(world.epoch(), 2, "members need a lead");
    world.pass(s(1));
    assert_eq!(world.epoch(), 3);
}

#[test]
fn who_joins_learns_where_all_are_and_all_learn_where_it_is() {
    let mut world = world();
    let [a] = world.members(["a"]);
    let [b] = world.members(["b"]);
    let heard = |world: &World, by: &Node, of: &Node| {
        world.told[&by.connection].iter().any(|message| {
            matches!(message, ToNode::Endpoints { entries, .. }
                if entries.decode().unwrap().iter().any(|(id, _)| *id == of.secret.public()))
        })
    };
    assert!(heard(&world, &a, &b) && heard(&world, &b, &a));
    let remote = world.status_of(&b).endpoints[0];
    assert_eq!(remote.port(), 51820, "seen address, announced port");
}

#[test]
fn a_failing_node_is_denied_the_next_secret_and_returns_when_it_passes() {
    let mut world = world();
    let [a, b, c] = world.members(["a", "b", "c"]);
    passing(&mut world, &[&a, &b, &c], s(30));
    world.evidence(&c, 0.41);
    assert_eq!(world.status_of(&c).membership, Membership::Allowed);
    let reason = world.status_of(&c).reason;
    assert_eq!(reason.as_deref(), Some("score below threshold"));
    world.pass(s(40));
    let (update, secret) = world.update(&c);
    assert!(!secret && update.roster.len() == 2);
    let excluded = update.exclusion(&c.secret.public()).unwrap();
    assert_eq!(excluded.reason, "score below threshold");
    assert!(world.update(&a).1);
    let status = world.status_of(&c);
    assert_eq!(status.state, NodeState::Quarantined);
    assert_eq!(status.psk, PskState::None);

    world.evidence(&c, 0.95);
    world.pass(s(5));
    assert_eq!(world.status_of(&c).membership, Membership::Denied);
    passing(&mut world, &[&a, &b, &c], s(60));
    assert_eq!(world.status_of(&c).membership, Membership::Allowed);
    assert!(world.update(&c).1);
}

#[test]
fn stale_evidence_denies() {
    let mut world = world();
    let [a, b] = world.members(["a", "b"]);
    passing(&mut world, &[&a], s(185));
    let status = world.status_of(&b);
    assert_eq!(status.reason.as_deref(), Some("benchmark stale"));
    assert_eq!(status.membership, Membership::Denied);
    assert_eq!(world.status_of(&a).membership, Membership::Allowed);
}

#[test]
fn probation_lasts_its_epochs_and_no_longer() {
    let mut world = World::new(Policy {
        probation_epochs: 2,
        ..Policy::default()
    });
    let node = world.node("a");
    world.pass(s(1));
    let status = world.status_of(&node);
    assert_eq!(status.state, NodeState::Probation);
    assert_eq!(status.reason.as_deref(), Some("no benchmark"));
    assert_eq!(
        status.probation_left, 2,
        "joining early takes nothing from it"
    );
    world.rotate(true, false);
    let status = world.status_of(&node);
    assert_eq!(
        (status.state, status.probation_left),
        (NodeState::Probation, 1)
    );
    world.rotate(true, false);
    assert_eq!(world.status_of(&node).state, NodeState::Quarantined);
}

#[test]
fn an_eviction_is_immediate_and_a_readmission_soon() {
    let mut world = world();
    let [a, b] = world.members(["a", "b"]);
    let epoch = world.epoch();
    let evict = Request::Evict(b.name.clone(), Default::default());
    let Ok(Answer::Change(change)) = world.ask(evict) else {
        panic!("not evicted");
    };
    assert_eq!((change.epoch, change.activates_in_ms), (epoch + 1, 0));
    assert_eq!(change.excluded[&b.name], "evicted");
    assert!(world.update(&a).1 && !world.update(&b).1);
    assert_eq!(world.status_of(&b).control, Control::Connected);
    let again = Request::Evict(b.name.clone(), Default::default());
    assert!(world.ask(again).is_err());

    assert!(world.ask(Request::Readmit(b.name.clone())).is_ok());
    world.pass(s(2));
    assert_eq!(world.status_of(&b).membership, Membership::Allowed);
    assert!(world.ask(Request::Readmit(b.name)).is_err());
}

#[test]
fn an_eviction_supersedes_an_epoch_on_its_way() {
    let mut world = world();
    let [a, b] = world.members(["a", "b"]);
    passing(&mut world, &[&a, &b], s(50));
    let wait = world.engine.poll_timeout() - world.now.boot;
    world.pass(wait + ms(100));
    let next = world.status().epoch.next.expect("one is on its way").id;
    let evict = Request::Evict(b.name, Default::default());
    assert!(world.ask(evict).is_ok());
    assert_eq!(world.epoch(), next + 1);
    assert!(world.status().epoch.next.is_none());
}

#[test]
fn revoke_now_drops_a_failing_and_a_silent_member_without_waiting() {
    let mut world = World::new(Policy {
        revoke: Revoke::Now,
        epoch_seconds: 600,
        ..Policy::default()
    });
    let [a, b, c] = world.members(["a", "b", "c"]);
    let epoch = world.epoch();
    world.evidence(&b, 0.1);
    assert_eq!(world.epoch(), epoch + 1);
    assert_eq!(world.status_of(&b).membership, Membership::Denied);
    passing(&mut world, &[&a], s(125));
    assert_eq!(world.status_of(&c).membership, Membership::Denied);
    assert_eq!(world.status_of(&a).membership, Membership::Allowed);
    let (update, _) = world.update(&c);
    let excluded = update.exclusion(&c.secret.public()).unwrap();
    assert_eq!(excluded.reason, "benchmark stale");
}

#[test]
fn a_large_mesh_revokes_at_once_and_rests_between_revocations() {
    let mut world = World::new(Policy {
        revoke: Revoke::Now,
        epoch_seconds: 600,
        ..Policy::default()
    });
    let nodes: Vec<_> = (0..=250)
        .map(|number| {
            world.forward(ms(200));
            world.node(&format!("n{number}"))
        })
        .collect();
    for node in &nodes {
        assert_eq!(world.evidence(node, 0.9), None);
    }
    world.pass(s(2));
    assert_eq!(world.status().epoch.members, 251);
    assert_eq!(world.evidence(&nodes[0], 0.9), None);
    let epoch = world.epoch();
    world.evidence(&nodes[1], 0.1);
    assert_eq!(world.epoch(), epoch + 1, "it alone was judged");
    world.evidence(&nodes[2], 0.1);
    world.evidence(&nodes[3], 0.1);
    assert_eq!(world.epoch(), epoch + 1, "all were looked at this moment");
    world.pass(ms(6));
    assert_eq!(world.epoch(), epoch + 2);
    for node in &nodes[1..=3] {
        assert_eq!(world.status_of(node).membership, Membership::Denied);
    }
    assert_eq!(world.status_of(&nodes[4]).membership, Membership::Allowed);
}

#[test]
fn too_many_removals_wait_for_an_operators_word() {
    let mut world = world();
    let [a, b, c, d] = world.members(["a", "b", "c", "d"]);
    for node in [&a, &b, &c] {
        world.evidence(node, 0.1);
    }
    world.evidence(&d, 0.9);
    world.rotate(true, false);
    let status = world.status();
    assert_eq!(status.epoch.members, 4);
    assert_eq!(status.epoch.held, [name("a"), name("b"), name("c")]);
    assert_eq!(world.status_of(&a).membership, Membership::Allowed);
    let evict = Request::Evict(a.name.clone(), Default::default());
    assert!(world.ask(evict).is_ok(), "an eviction is never held");
    assert_eq!(world.status_of(&a).membership, Membership::Denied);
    assert_eq!(world.status().epoch.held, [name("b"), name("c")]);
    world.restart(Policy::default(), s(1), "boot");
    assert_eq!(world.status().epoch.held, [name("b"), name("c")]);
    let change = world.rotate(true, true);
    assert_eq!((change.members, change.held.len()), (1, 0));
    assert_eq!(world.status().epoch.held, [] as [NodeName; 0]);
}

#[test]
fn an_operators_rotation_counts_and_one_on_its_way_is_answered_with() {
    let mut world = world();
    let [_a] = world.members(["a"]);
    let epoch = world.epoch();
    let change = world.rotate(false, false);
    assert_eq!((change.epoch, change.activates_in_ms), (epoch + 1, 5_000));
    assert_eq!(world.rotate(false, false), change);
    world.pass(s(5));
    assert_eq!(world.epoch(), epoch + 1);
}

#[test]
fn a_node_holds_its_psks_when_it_says_that_the_epoch_is_active() {
    let mut world = world();
    let [a] = world.members(["a"]);
    assert_eq!(world.status_of(&a).psk, PskState::None);
    world.ack(&a, Phase::Installed);
    assert_eq!(world.status_of(&a).psk, PskState::None);
    world.ack(&a, Phase::Activated);
    let status = world.status_of(&a);
    assert_eq!(
        (status.psk, status.state),
        (PskState::Valid, NodeState::Active)
    );
    assert_eq!(status.clock_skew_ms, Some(7));
    let benchmark = status.last_benchmark.unwrap();
    assert_eq!(
        (benchmark.overall, benchmark.signer.as_str()),
        (Some(0.9), "self")
    );
    world.rotate(true, false);
    assert_eq!(world.status_of(&a).psk, PskState::None);
}

#[test]
fn a_node_whose_interface_carries_nothing_is_impaired_and_a_pair_beside_the_tunnel_is_named() {
    let mut world = world();
    let [a, b] = world.members(["a", "b"]);
    let mut report = |way_v4: Way, unusable, faults| {
        let report = PeerReport {
            node: b.secret.public(),
            session_epoch: None,
            rtt_v4_us: None,
            rtt_v6_us: Some(500),
            way_v4,
            way_v6: Way::Tunnel,
        };
        let interface = InterfaceReport { unusable, faults };
        let peers = vec![report];
        world.say(
            a.connection,
            ToController::Report {
                segment: keys::SegmentId::FIRST,
                peers,
                interface,
            },
        );
        world.status_of(&a)
    };
    let status = report(Way::Link("eth1".into()), false, vec![]);
    assert_eq!(status.state, NodeState::Active);
    let pair = status.observes.values().next().unwrap();
    assert_eq!((pair.rtt_v4_ms, pair.rtt_v6_ms), (None, Some(0.5)));
    let [fault] = &pair.faults[..] else {
        panic!("{:?}", pair.faults)
    };
    assert!(
        fault.contains(" goes by way of eth1, not through the tunnel"),
        "{fault}"
    );
    let status = report(Way::Tunnel, true, vec!["is gone".into()]);
    assert_eq!(status.state, NodeState::Impaired);
    assert_eq!(status.faults, ["is gone"]);
    assert!(status.observes.values().all(|pair| pair.faults.is_empty()));
    // However much a node says, no more is kept; and it is an interface's name or nothing.
    let status = report(Way::Link("x".repeat(99)), false, vec!["é".repeat(500); 99]);
    assert_eq!(status.state, NodeState::Active);
    assert_eq!(status.faults.len(), MAX_FAULTS);
    assert!(status.faults.iter().all(|it| it.len() <= MAX_FAULT_LEN));
    assert!(status.observes.values().all(|pair| pair.faults.is_empty()));
}

#[test]
fn the_other_side_hears_of_packets_to_it_that_do_not_take_the_tunnel() {
    let mut world = world();
    let [a, b, c] = world.members(["a", "b", "c"]);
    let mut heard = |way_v4: Way| {
        let before = [&b, &c].map(|it| world.told[&it.connection].len());
        let report = PeerReport {
            node: b.secret.public(),
            session_epoch: None,
            rtt_v4_us: None,
            rtt_v6_us: None,
            way_v4,
            way_v6: Way::Tunnel,
        };
        let (peers, interface) = (vec![report], InterfaceReport::default());
        world.say(
            a.connection,
            ToController::Report {
                segment: keys::SegmentId::FIRST,
                peers,
                interface,
            },
        );
        assert_eq!(
            world.told[&c.connection].len(),
            before[1],
            "it is no matter of c's"
        );
        let told = &world.told[&b.connection][before[0]..];
        let ways = told.iter().filter_map(|message| match message {
            ToNode::Ways { node, ways, .. } if *node == a.secret.public() => Some(ways.clone()),
            _ => None,
        });
        ways.collect::<Vec<_>>()
    };
    let astray = [Way::Link("eth1".into()), Way::Tunnel];
    assert!(heard(Way::Tunnel).is_empty());
    // With each report: it holds for as long as it is said.
    let twice = [(); 2].map(|()| heard(astray[0].clone()));
    assert_eq!(twice, [[astray.clone()], [astray]]);
    assert_eq!(heard(Way::Tunnel), [[Way::Tunnel, Way::Tunnel]]);
    assert!(heard(Way::Tunnel).is_empty());
}

#[test]
fn evidence_is_accepted_once_and_only_so_often() {
    let mut world = world();
    let [a, b] = world.members(["a", "b"]);
    assert!(world.evidence(&a, 0.9).is_none());
    let again = world.evidence(&a, 0.9).unwrap();
    assert!(again.contains("not newer"), "{again}");
    let foreign = world.envelope(&b, b"{}".to_vec()).unwrap();
    assert!(foreign.contains("DSSE"), "{foreign}");
    let many: Vec<_> = (0..30).filter_map(|_| world.evidence(&b, 0.9)).collect();
    assert!(many.iter().any(|reason| reason.contains("too much")));
}

#[test]
fn a_second_connection_of_a_node_supersedes_the_first() {
    let mut world = world();
    let [mut a] = world.members(["a"]);
    let first = a.connection;
    world.reconnect(&mut a);
    assert_eq!(world.closed[&first], Refusal::Superseded);
    assert_eq!(world.status_of(&a).control, Control::Connected);
    let told = &world.told[&a.connection];
    assert!(matches!(told[0], ToNode::Welcome { .. }));
    let (_, secret) = world.update(&a);
    assert!(secret);
    world.engine.handle_disconnected(first);
    assert_eq!(world.status_of(&a).control, Control::Connected);
    world.engine.handle_disconnected(a.connection);
    assert_eq!(world.status_of(&a).state, NodeState::Offline);
}

#[test]
fn an_update_that_is_sent_later_says_its_age() {
    let mut world = world();
    let [mut a] = world.members(["a"]);
    let signed = world.now.boot;
    world.pass(s(7));
    world.reconnect(&mut a);
    let ages = world.told[&a.connection].iter().filter_map(|m| match m {
        ToNode::Update(update) => Some(update.age_ms),
        _ => None,
    });
    let ages: Vec<u64> = ages.collect();
    let least = u64::try_from((world.now.boot - signed).as_millis()).unwrap();
    assert!(ages.len() == 1 && ages[0] >= least && ages[0] < least + 2_000);
}

#[test]
fn an_explanation_names_the_rule_that_fails() {
    let mut world = world();
    let [a] = world.members(["a"]);
    world.pass(ms(1));
    world.evidence(&a, 0.41);
    let Ok(Answer::Explanation(explained)) = world.ask(Request::Explain(a.name.clone(), None))
    else {
        panic!("no explanation");
    };
    assert_eq!(explained.decision.membership, Membership::Denied);
    assert_eq!(explained.decision.score, Some(0.41));
    let broken: Vec<_> = explained.rules.iter().filter(|r| !r.holds).collect();
    assert_eq!(broken.len(), 1);
    assert_eq!(broken[0].rule, "overall >= 0.70");
    let unknown = world.ask(Request::Explain(name("nobody"), None));
    assert!(unknown.is_err());
}

#[test]
fn a_node_that_moves_is_followed_and_one_that_advertises_is_believed() {
    let mut world = world();
    let [a] = world.members(["a"]);
    let moved = |world: &mut World, to: &str| {
        let now = world.now;
        let engine = &mut world.engine;
        engine.handle_moved(a.connection, to.parse().unwrap(), now);
    };
    moved(&mut world, "203.0.113.9:5");
    world.pass(ms(1));
    let told = &world.told[&a.connection];
    let is_told = |it: &ToNode| matches!(it, ToNode::Seen { observed } if observed.port() == 5);
    assert!(told.iter().any(is_told), "it hears where it is seen");
    let seen = world.status_of(&a).endpoints;
    assert_eq!(seen, ["203.0.113.9:51820".parse().unwrap()]);
    let advertised: Vec<std::net::SocketAddr> = vec!["192.0.2.7:1".parse().unwrap()];
    let message = ToController::Endpoints {
        listen_port: 51820,
        advertised: advertised.clone(),
        addresses: vec!["192.0.2.8".parse().unwrap()],
    };
    world.say(a.connection, message);
    assert_eq!(world.status_of(&a).endpoints, advertised);
    moved(&mut world, "203.0.113.8:5");
    assert_eq!(world.status_of(&a).endpoints, advertised);
}

#[test]
fn hysteresis_counts_scheduled_decisions_only() {
    let mut world = World::new(Policy {
        passes_to_return: 2,
        failures_to_leave: 2,
        max_benchmark_age: 1_000,
        ..Policy::default()
    });
    let [a, b] = world.members(["a", "b"]);
    world.evidence(&b, 0.1);
    let evict = Request::Evict(a.name.clone(), Default::default());
    assert!(world.ask(evict).is_ok());
    assert!(world.ask(Request::Readmit(a.name.clone())).is_ok());
    world.pass(s(2));
    let memberships = |world: &mut World, n: usize| -> Vec<bool> {
        let mut after = Vec::new();
        for _ in 0..n {
            world.rotate(true, false);
            after.push(world.status_of(&b).membership == Membership::Allowed);
        }
        after
    };
    assert_eq!(memberships(&mut world, 2), [true, false]);
    world.evidence(&b, 0.9);
    assert_eq!(memberships(&mut world, 2), [false, true]);
}

#[test]
fn events_are_picked_by_node_kind_and_time_and_the_page_says_how_far_it_read() {
    let mut world = world();
    let [a, b] = world.members(["a", "b"]);
    let before = world.now.wall;
    world.pass(s(10));
    assert!(
        world
            .ask(Request::Evict(b.name.clone(), Default::default()))
            .is_ok()
    );
    let all = world.events(Page::default());
    assert_eq!((all.next, all.head), (all.head, all.events.len() as u64));
    let evicted = world.events(Page {
        kind: Some("node_evicted".into()),
        ..Page::default()
    });
    assert_eq!(evicted.events.len(), 1);
    assert_eq!(evicted.next, evicted.head, "read to the end");
    let of = |node: &Node| Page {
        node: Some(node.name.clone()),
        ..Page::default()
    };
    let of_b = world.events(of(&b));
    let kinds: Vec<&str> = of_b.events.iter().map(|it| it.kind.as_str()).collect();
    assert_eq!(kinds.first(), Some(&"node_enrolled"));
    assert!(
        kinds.ends_with(&["node_evicted", "decided", "epoch_published"]),
        "{kinds:?}"
    );
    let of_a = world.events(of(&a));
    assert!(of_a.events.iter().all(|it| it.kind != "node_evicted"));
    let late = world.events(Page {
        since: Some(before + s(5)),
        ..Page::default()
    });
    assert_eq!(
        late.events.first().map(|it| it.kind.as_str()),
        Some("node_evicted")
    );
    let early = world.events(Page {
        until: Some(before),
        ..Page::default()
    });
    assert_eq!(early.events.len() + late.events.len(), all.events.len());
    // A page that is full says where it stopped.
    let first = world.events(Page { limit: 1, ..of(&b) });
    assert_eq!(first.next, first.events[0].seq);
    let second = world.events(Page {
        after: first.next,
        limit: 1,
        ..of(&b)
    });
    assert_eq!(second.events[0].seq, of_b.events[1].seq);
}

#[test]
fn every_event_of_a_life_is_in_the_log() {
    let mut world = world();
    let [a] = world.members(["a"]);
    let evict = Request::Evict(a.name.clone(), Default::default());
    assert!(world.ask(evict).is_ok());
    assert!(world.ask(Request::Readmit(a.name)).is_ok());
    let list = world.events(Page::default());
    let kinds: Vec<&str> = list.events.iter().map(|e| e.kind.as_str()).collect();
    let life = [
        "mesh_created",
        "controller_started",
        "policy_changed",
        "decided",
        "epoch_published",
        "token_created",
        "node_enrolled",
        "evidence_accepted",
        "decided",
        "epoch_published",
        "node_evicted",
        "decided",
        "epoch_published",
        "node_readmitted",
    ];
    assert_eq!(kinds, life);
    assert_eq!(list.head, life.len() as u64);
}

#[test]
fn a_returning_node_is_sent_nothing_older_than_it_has() {
    let mut world = world();
    let [a] = world.members(["a"]);
    let change = world.rotate(false, false);
    let updates = |world: &World, id| -> Vec<u64> {
        let told = world.told[&id].iter().filter_map(|m| match m {
            ToNode::Update(update) => Some(world.open(update).0.epoch.0),
            _ => None,
        });
        told.collect()
    };
    let (own, mesh) = (
        AuthoritySecret::from_base64(&world.authority).unwrap(),
        world.engine.fleet().mesh().unwrap(),
    );
    let mark = |epoch| {
        let mark = Mark {
            mesh,
            segment: keys::SegmentId::FIRST,
            epoch: Epoch(epoch),
            update: Digest::default(),
            log: LogEnd {
                events: 1,
                root: Digest::default(),
            },
            log_key: log_key().public(),
        };
        Signed::sign(&mark, &own).unwrap()
    };
    for (seen, sent) in [
        (None, vec![change.epoch - 1, change.epoch]),
        (Some(change.epoch), vec![change.epoch]),
        (Some(change.epoch + 9), vec![change.epoch]),
    ] {
        let id = world.connect(&a.secret);
        world.hello_with(id, seen.map(mark));
        assert_eq!(updates(&world, id), sent);
    }
}

#[test]
fn evictions_that_come_together_are_one_epoch_and_each_is_answered() {
    let mut world = World::new(Policy::default());
    let [a, b, c, _d] = world.members(["a", "b", "c", "d"]);
    let epoch = world.epoch();
    let order = |name: &str| (super::name(name), wire::admin::EvictRequest::default());
    let orders = ["a", "b", "stranger", "a"].map(order);
    let answers = world.engine.evict(orders.to_vec(), None, world.now);
    world.collect();
    let done: Vec<bool> = answers.iter().map(Result::is_ok).collect();
    assert_eq!(done, [true, true, false, false]);
    assert_eq!(world.epoch(), epoch + 1);
    for node in [&a, &b] {
        assert_eq!(world.status_of(node).membership, Membership::Denied);
        let (update, has_secret) = world.update(node);
        assert!(update.member(&node.secret.public()).is_none() && !has_secret);
    }
    assert_eq!(world.status_of(&c).membership, Membership::Allowed);
    // Nobody is left to shut out: no epoch for nothing.
    let again = world.engine.evict([order("a")].to_vec(), None, world.now);
    assert!(again[0].is_err());
    assert_eq!(world.epoch(), epoch + 1);
}

#[test]
fn one_order_for_many_is_one_epoch_and_a_name_that_nobody_has_makes_it_void() {
    let mut world = World::new(Policy::default());
    let _members = world.members(["a", "b", "c", "d"]);
    let epoch = world.epoch();
    let order = |names: &[&str]| {
        let nodes = names.iter().map(|it| name(it)).collect();
        let reason = Some("incident 7".to_owned());
        Request::EvictAll(wire::admin::EvictionsRequest { nodes, reason })
    };
    assert!(world.ask(order(&["a", "nobody"])).is_err());
    assert!(world.ask(order(&[])).is_err());
    assert_eq!(world.epoch(), epoch, "nothing was done");
    assert!(world.ask(order(&["a", "b", "a"])).is_ok());
    assert_eq!(world.epoch(), epoch + 1);
    // Those that are out stay out, and the others follow them.
    assert!(world.ask(order(&["b", "c"])).is_ok());
    assert_eq!(world.epoch(), epoch + 2);
    assert!(world.ask(order(&["a", "b", "c"])).is_err());
    assert_eq!(world.epoch(), epoch + 2);
    let members = world.status().epoch.members;
    assert_eq!(members, 1);
    let evicted = world.events(Page {
        kind: Some("node_evicted".into()),
        ..Page::default()
    });
    assert_eq!(evicted.events.len(), 3);
}
