//! A scrape, against what the engine did.

use super::*;
use crate::intake::Waiting;
use crate::metrics::{self, ALL};
use exposition::{Metric, Page, Value};
use std::collections::BTreeSet;

/// Every value of every label.
const VALUES: &[(Metric, &str)] = &[
    (metrics::BUILD_INFO, env!("CARGO_PKG_VERSION")),
    (
        metrics::EPOCH_UPDATES,
        "published not_now invalid unwritten",
    ),
    (metrics::DECISIONS, "allowed denied held"),
    (
        metrics::NODES,
        "active probation quarantined offline evicted impaired",
    ),
    (metrics::NODE_FAULTS, "benchmark state interface"),
    (
        metrics::EVIDENCE,
        "accepted too_much not_enrolled evicted malformed bad_signature other_node other_mesh \
         signer_not_counted other_suite bad_challenge future replayed unwritten",
    ),
    (
        metrics::CONNECTIONS,
        "handshake silent opening serving closing",
    ),
    (metrics::TURNED_AWAY, "unanswered crowded barred"),
    (
        metrics::REFUSALS,
        "not_enrolled bad_token name_taken key_taken mesh_full superseded protocol busy stopping \
         too_much weak_key duplicate in_range rejected banned segment",
    ),
];

/// The value of a metric, under one value of its label.
fn at(page: &Page, metric: Metric, label: Option<&str>) -> f64 {
    let mut families = page.families();
    let (_, samples) = families.find(|(it, _)| **it == metric).expect(metric.name);
    let mut samples = samples.iter();
    let sample = samples.find(|it| it.label == label).expect(metric.name);
    match sample.value {
        Value::Count(count) => count as f64,
        Value::Amount(amount) => amount,
    }
}

impl World {
    fn scrape(&self) -> Page {
        let held = metrics::Held {
            waiting: Waiting::default(),
            connections: 0,
        };
        self.engine.metrics(held, self.now)
    }

    fn count(&self, metric: Metric, label: &str) -> u64 {
        at(&self.scrape(), metric, Some(label)) as u64
    }
}

#[test]
fn every_metric_is_exported_from_zero_and_named_by_the_rule() {
    let world = World::new(Policy::default());
    let page = world.scrape();
    let made: Vec<Metric> = page.families().map(|(metric, _)| *metric).collect();
    assert_eq!(made, ALL, "each once, in the order of their declaration");
    let mut names = BTreeSet::new();
    let mut standing = BTreeSet::new();
    for (metric, samples) in page.families() {
        assert!(metric.is_well_named(), "{}", metric.name);
        assert!(!metric.help.ends_with('.'), "{}", metric.name);
        assert!(names.insert(metric.name), "{} twice", metric.name);
        let labels: BTreeSet<_> = samples.iter().map(|it| it.label).collect();
        assert_eq!(labels.len(), samples.len(), "{}", metric.name);
        assert_eq!(
            metric.label.is_none(),
            labels.contains(&None),
            "{}",
            metric.name
        );
        let zero = |value: &Value| [Value::Count(0), Value::Amount(0.0)].contains(value);
        standing.extend(
            samples
                .iter()
                .filter(|it| !zero(&it.value))
                .map(|it| (metric.name, it.label)),
        );
    }
    for (metric, values) in VALUES {
        let found = page.families().find(|(it, _)| *it == metric).unwrap().1;
        let found: Vec<_> = found.iter().filter_map(|it| it.label).collect();
        assert_eq!(found.join(" "), *values, "{}", metric.name);
    }
    let labelled = ALL.iter().filter(|metric| metric.label.is_some()).count();
    assert_eq!(VALUES.len(), labelled);
    // A controller that nobody has talked to yet has published its first epoch, without members.
    let expected = [
        ("meshd_build_info", Some(env!("CARGO_PKG_VERSION"))),
        ("meshd_epoch_current", None),
        ("meshd_epoch_remaining_seconds", None),
        ("meshd_epoch_updates_total", Some("published")),
        ("meshd_log_events_total", None),
        ("meshd_log_writable", None),
    ];
    assert_eq!(standing, BTreeSet::from(expected));
}

#[test]
fn nodes_are_where_the_status_has_them() {
    let mut world = World::new(Policy::default());
    let [a, b, _c] = world.members(["a", "b", "c"]);
    let quiet = world.node("quiet");
    world.engine.handle_disconnected(b.connection);
    let evict = Request::Evict(a.name.clone(), Default::default());
    world.ask(evict).expect("it is a member");
    world.pass(s(1));
    let page = world.scrape();
    let expected = [
        ("active", 1.0),
        ("probation", 0.0),
        ("quarantined", 1.0),
        ("offline", 1.0),
        ("evicted", 1.0),
    ];
    for (state, count) in expected {
        assert_eq!(at(&page, metrics::NODES, Some(state)), count, "{state}");
    }
    let status = world.status();
    assert_eq!(at(&page, metrics::EPOCH, None), status.epoch.id as f64);
    assert_eq!(at(&page, metrics::EPOCH_MEMBERS, None), 2.0);
    assert_eq!(status.epoch.members, 2);
    let left = at(&page, metrics::EPOCH_REMAINING, None);
    assert!((55.0..=60.0).contains(&left), "{left}");
    assert_eq!(at(&page, metrics::CONNECTIONS, Some("serving")), 3.0);
    world.connect(&quiet.secret);
    let page = world.scrape();
    assert_eq!(at(&page, metrics::CONNECTIONS, Some("opening")), 1.0);
    assert_eq!(at(&page, metrics::CONNECTIONS, Some("serving")), 3.0);
}

#[test]
fn decisions_are_counted_with_the_epoch_that_they_made() {
    let policy = Policy {
        floor_share: 0.5,
        floor_nodes: 2,
        ..Policy::default()
    };
    let mut world = World::new(policy);
    let nodes = world.members(["a", "b", "c"]);
    assert_eq!(world.count(metrics::DECISIONS, "allowed"), 3);
    assert_eq!(world.count(metrics::EPOCH_UPDATES, "published"), 2);

    for node in &nodes[..2] {
        world.pass(s(1));
        world.evidence(node, 0.1);
    }
    world.rotate(true, false);
    assert_eq!(world.count(metrics::DECISIONS, "held"), 2);
    assert_eq!(world.count(metrics::DECISIONS, "allowed"), 4);
    assert_eq!(at(&world.scrape(), metrics::HELD, None), 2.0);
    world.rotate(true, true);
    assert_eq!(world.count(metrics::DECISIONS, "denied"), 2);
    assert_eq!(at(&world.scrape(), metrics::HELD, None), 0.0);
    assert_eq!(world.count(metrics::EPOCH_UPDATES, "published"), 4);
}

#[test]
fn an_epoch_that_is_not_published_is_counted_by_its_cause() {
    let mut world = World::new(Policy::default());
    let [_a] = world.members(["a"]);
    // One with a lead is on its way: there is no room for another with one.
    world.rotate(false, false);
    let published = world.count(metrics::EPOCH_UPDATES, "published");
    let b = world.node("b");
    world.evidence(&b, 0.9);
    world.pass(ms(500));
    assert!(world.count(metrics::EPOCH_UPDATES, "not_now") > 0);
    assert_eq!(world.count(metrics::EPOCH_UPDATES, "published"), published);

    world.pass(s(10));
    let events = at(&world.scrape(), metrics::LOG_EVENTS, None);
    world.engine.log().fill_up();
    // A decision that is no news is small, and a few fit into the last page.
    world.pass(s(900));
    assert!(world.count(metrics::EPOCH_UPDATES, "unwritten") > 0);
    let page = world.scrape();
    assert_eq!(at(&page, metrics::LOG_WRITABLE, None), 0.0);
    assert_eq!(at(&page, metrics::EPOCH_REMAINING, None), 0.0, "overdue");
    world.engine.log().free_up();
    world.pass(s(3));
    let page = world.scrape();
    assert_eq!(at(&page, metrics::LOG_WRITABLE, None), 1.0);
    assert!(at(&page, metrics::LOG_EVENTS, None) > events);
}

#[test]
fn evidence_is_counted_by_what_became_of_it() {
    let mut world = World::new(Policy::default());
    let [a, b] = world.members(["a", "b"]);
    let own = |world: &World, node: &Node| {
        let mut run = world.run();
        run.nonce = "ab".repeat(16);
        run.attest_self(node.name.as_str(), &node.secret).unwrap()
    };
    world.pass(s(1));
    let (first, theirs) = (own(&world, &a), own(&world, &b));
    let ahead = {
        let mut run = world.run();
        run.finished_at += s(3_600);
        run.attest_self(a.name.as_str(), &a.secret).unwrap()
    };
    assert_eq!(world.envelope(&a, first.clone()), None);
    for (envelope, result) in [
        (first, "replayed"),
        (theirs, "bad_signature"),
        (ahead, "future"),
        (b"junk".to_vec(), "malformed"),
    ] {
        let before = world.count(metrics::EVIDENCE, result);
        assert!(world.envelope(&a, envelope).is_some(), "{result}");
        assert_eq!(
            world.count(metrics::EVIDENCE, result),
            before + 1,
            "{result}"
        );
    }
    for _ in 0..20 {
        let _ = world.envelope(&b, b"junk".to_vec());
    }
    assert_eq!(world.count(metrics::EVIDENCE, "too_much"), 0);
    let _ = world.envelope(&b, b"junk".to_vec());
    assert_eq!(world.count(metrics::EVIDENCE, "too_much"), 1);
    assert_eq!(world.count(metrics::EVIDENCE, "accepted"), 3);
}

#[test]
fn connections_that_are_closed_are_counted_by_reason() {
    let mut world = World::new(Policy::default());
    let [mut a] = world.members(["a"]);
    let stranger = NodeSecret::generate(&mut OsRng);
    let id = world.connect(&stranger);
    world.hello(id);
    assert_eq!(world.count(metrics::REFUSALS, "not_enrolled"), 1);
    world.reconnect(&mut a);
    assert_eq!(world.count(metrics::REFUSALS, "superseded"), 1);
    world.engine.handle_refused(a.connection, Refusal::Protocol);
    assert_eq!(world.count(metrics::REFUSALS, "protocol"), 1);
    world.reconnect(&mut a);
    world.engine.stop();
    assert_eq!(world.count(metrics::REFUSALS, "stopping"), 1);
}

#[test]
fn every_connection_that_holds_memory_is_counted_once() {
    let mut world = World::new(Policy::default());
    let [_a] = world.members(["a"]);
    world.connect(&NodeSecret::generate(&mut OsRng));
    let held = metrics::Held {
        waiting: Waiting {
            handshakes: 3,
            silent: 2,
            ..Waiting::default()
        },
        connections: 10,
    };
    let page = world.engine.metrics(held, world.now);
    let stages = ["handshake", "silent", "opening", "serving", "closing"];
    let counts = stages.map(|stage| at(&page, metrics::CONNECTIONS, Some(stage)));
    assert_eq!(counts, [3.0, 2.0, 1.0, 1.0, 3.0]);
}
