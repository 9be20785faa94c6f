//! Clocks that nobody can trust: a machine that slept, one that booted at another time, wall clocks
//! that are stepped. Epochs and leases run on the boot-time clock, and only on differences of it.
//!
//! A boot-time clock that moves while a daemon runs cannot be had: a time namespace keeps its offset
//! from its first process on. A stopped process stands in for a machine that sleeps: time goes on
//! without it.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;
use tests::harness::mesh::name;
use tests::harness::{CONTROLLER, Mesh};
use wire::admin::Membership;

#[test]
fn a_node_that_sleeps_past_its_lease_wakes_closed_to_all_that_waited_for_it_and_recovers() {
    let builder = Mesh::builder().epoch_seconds(2).lease_seconds(6);
    let mut mesh = builder.start();
    mesh.tally_delivered("node-c", "delivered", "node-a");
    mesh.tally_datagrams("node-c", "waited", "node-a");
    let others = mesh.keep_pinging("node-a", "node-b");
    let to_sleeper = mesh.keep_pinging("node-a", "node-c");
    mesh.wait_until("pings pass", |_| to_sleeper.answered() > 5);

    // It does not hear its controller before it was seen closed.
    mesh.deafen("node-c");
    mesh.pause("node-c");
    let (delivered, came) = (
        mesh.tallied("node-c", "delivered"),
        mesh.tallied("node-c", "waited"),
    );
    mesh.wait_epochs(5);
    assert!(mesh.tallied("node-c", "waited") > came + 3, "some waits");
    mesh.resume("node-c");
    mesh.wait_until("node-c is closed", |mesh| {
        let own = mesh.try_node_status("node-c");
        own.is_some_and(|own| {
            own.membership == Some(Membership::Denied)
                && own.reason.is_some_and(|reason| reason.contains("lease"))
        })
    });
    let dropped = mesh.node_status("node-c").dropped["lease_over"];
    assert!(dropped > 0, "what waited was dropped for that reason");
    assert!(mesh.none_reach("node-c", &["node-a"]));
    assert_eq!(mesh.tallied("node-c", "delivered"), delivered);

    mesh.undeafen("node-c");
    mesh.wait_until_all_reach_all();
    let losses = others.stop();
    assert_eq!(losses.lost, 0, "nobody else noticed: {losses:?}");
}

#[test]
fn daemons_that_boot_at_different_times_rotate_together() {
    let mut mesh = Mesh::builder().epoch_seconds(2).prepare();
    mesh.start_controller();
    mesh.start_node("node-a");
    mesh.start_node_under("node-b", &booted("40000000"));
    mesh.start_node_under("node-c", &booted("5000"));
    mesh.wait_until_all_reach_all();
    let ping = mesh.keep_pinging("node-b", "node-c");
    mesh.wait_epochs(4);
    let losses = ping.stop();
    assert!(losses.sent > 20, "{losses:?}");
    assert_eq!(losses.lost, 0, "{losses:?}");

    // Machines that were started again: their clocks begin somewhere else.
    let before = mesh.epoch();
    mesh.kill("node-b");
    mesh.start_node("node-b");
    mesh.kill(CONTROLLER);
    mesh.spawn_under(CONTROLLER, &booted("80000000"), &[]);
    mesh.wait_until("the controller answers", |mesh| mesh.try_status().is_some());
    assert!(mesh.epoch() >= before, "no epoch is taken back");
    mesh.wait_until_all_reach_all();
    mesh.kill(CONTROLLER);
    mesh.start_controller();
    mesh.wait_epochs(2);
    mesh.wait_until_all_reach_all();
    for node in mesh.nodes() {
        let lease = mesh.node_status(&node).lease_seconds;
        assert!(
            lease.is_some_and(|lease| lease <= 70.0),
            "{node}: {lease:?}"
        );
    }
}

#[test]
fn a_wall_clock_that_is_set_back_by_days_disturbs_no_rotation_and_its_skew_is_shown() {
    let mut mesh = Mesh::builder().nodes(2).epoch_seconds(2).prepare();
    // Of both nodes, so that neither can step in where the other's initiation is not believed.
    let wall = Wall::new(&mesh);
    mesh.start_controller();
    mesh.start_node_under("node-a", &wall.wrapper());
    mesh.start_node_under("node-b", &wall.wrapper());
    mesh.wait_until_all_reach_all();
    let pings = [
        mesh.keep_pinging("node-a", "node-b"),
        mesh.keep_pinging("node-b", "node-a"),
    ];
    // Twice: the first time, the other side's initiation may be the first that it ever made.
    for days in [-1, -2] {
        wall.set(days * DAY);
        let first = mesh.wait_epochs(2);
        for (from, to) in [("node-a", "node-b"), ("node-b", "node-a")] {
            let what = format!("{days} days off, {from} sends in new epochs");
            mesh.wait_until(&what, |mesh| {
                let own = mesh.node_status(from);
                let peer = own.peers.get(&name(to));
                peer.is_some_and(|peer| peer.session_epoch >= Some(first))
            });
        }
        for node in ["node-a", "node-b"] {
            mesh.wait_until("evidence is judged by its time", |mesh| {
                let evidence = mesh.node_status(node).last_evidence;
                let result = evidence.map(|it| it.result).unwrap_or_default();
                result.starts_with("refused")
            });
            assert_eq!(mesh.node(node).membership, Membership::Allowed);
        }
    }
    for ping in pings {
        let losses = ping.stop();
        assert!(losses.sent > 20, "{losses:?}");
        assert_eq!(losses.lost, 0, "{losses:?}");
    }

    // Forward is another matter: that much time may have been lost.
    wall.set(0);
    mesh.wait_until("both ask their controller anew", |mesh| {
        ["node-a", "node-b"]
            .iter()
            .all(|node| mesh.log(node).contains(CLOSED))
    });
    mesh.wait_until_all_reach_all();
    mesh.wait_until("evidence is accepted again", |mesh| {
        let evidence = mesh.node_status("node-a").last_evidence;
        evidence.is_some_and(|it| it.result == "accepted")
    });

    for days in [1, -1] {
        mesh.stop("node-b");
        wall.set(days * DAY);
        mesh.start_node_under("node-b", &wall.wrapper());
        mesh.wait_until("its skew is shown on both sides", |mesh| {
            let near = |skew: Option<i64>| {
                skew.is_some_and(|skew| (skew - days * DAY * 1000).abs() < 60_000)
            };
            let own = mesh.try_node_status("node-b");
            near(mesh.node("node-b").clock_skew_ms)
                && own.is_some_and(|own| near(own.clock_skew_ms))
        });
        mesh.wait_until_all_reach_all();
    }
}

#[test]
fn a_controller_whose_wall_clock_is_set_back_judges_as_before() {
    let builder = Mesh::builder()
        .nodes(3)
        .epoch_seconds(2)
        .probation_epochs(0);
    let mut mesh = builder
        .controller_setting("max_benchmark_age", 6)
        .controller_setting("floor_nodes", 100)
        .prepare();
    let wall = Wall::new(&mesh);
    mesh.spawn_under(CONTROLLER, &wall.wrapper(), &[]);
    mesh.wait_until("the controller answers", |mesh| mesh.try_status().is_some());
    for node in mesh.nodes() {
        mesh.start_node(&node);
    }
    mesh.wait_until_all_reach_all();
    // One node stops, and the clock goes back by an hour at the same time.
    mesh.pause("node-c");
    wall.set(-3_600);
    mesh.wait_until_membership("node-c", Membership::Denied);
    // The others' clocks are ahead of the controller's now: an hour is no skew, and they are out too
    // until the clocks agree again. Nobody is in on what was said before.
    mesh.wait_until_membership("node-a", Membership::Denied);
    wall.set(0);
    mesh.resume("node-c");
    mesh.wait_until_all_reach_all();
}

#[test]
fn a_node_whose_wall_clock_jumps_past_its_lease_closes_until_its_controller_is_heard() {
    let mut mesh = Mesh::builder().epoch_seconds(3600);
    mesh = mesh.controller_setting("max_benchmark_age", 3600);
    let mut mesh = mesh.lease_seconds(7200).prepare();
    let wall = Wall::new(&mesh);
    mesh.start_controller();
    mesh.start_node("node-a");
    mesh.start_node("node-b");
    mesh.start_node_under("node-c", &wall.wrapper());
    mesh.wait_until_all_reach_all();
    let others = mesh.keep_pinging("node-a", "node-b");
    let ping = mesh.keep_pinging("node-a", "node-c");

    // NTP corrects a clock, or a machine stood still for less than its lease: a connection is made anew,
    // what is left of the lease is less, and no packet is lost.
    let lease = |mesh: &Mesh| mesh.node_status("node-c").lease_seconds;
    let before = lease(&mesh).expect("it is a member");
    wall.set(20);
    mesh.wait_until("it has noticed", |mesh| mesh.log("node-c").contains(AHEAD));
    mesh.wait_until("it has asked anew", |mesh| {
        let own = mesh.node_status("node-c");
        own.control == wire::admin::Control::Connected
            && mesh.log("node-c").matches("control channel up").count() == 2
    });
    let after = lease(&mesh).expect("it is a member");
    assert!(after <= before - 19.0, "{before} {after}");
    assert!(!mesh.log("node-c").contains(CLOSED));
    let answered = ping.answered();
    mesh.wait_until("pings pass", |_| ping.answered() > answered + 5);
    let losses = ping.stop();
    assert_eq!(losses.lost, 0, "{losses:?}");

    // A machine that was restored on another day, and does not hear that it was evicted meanwhile.
    mesh.deafen("node-c");
    wall.set(20 + DAY);
    mesh.wait_until("it is closed", |mesh| mesh.log("node-c").contains(CLOSED));
    assert!(mesh.none_reach("node-c", &["node-a", "node-b"]));
    let own = mesh.node_status("node-c");
    assert_eq!(own.membership, Some(Membership::Denied));
    assert!(own.reason.is_some_and(|reason| reason.contains("lease")));
    // By its own count it had almost two hours left, and the same epoch is still in force.
    mesh.undeafen("node-c");
    mesh.wait_until_all_reach_all();
    assert_eq!(mesh.node_status("node-c").epoch, Some(mesh.epoch()));
    let losses = others.stop();
    assert_eq!(losses.lost, 0, "nobody else noticed: {losses:?}");
}

#[test]
fn a_node_that_comes_back_with_its_clock_a_day_behind_is_heard_though_nobody_calls_it() {
    // Nothing else brings the pair together: no epoch for a day, and no probe.
    let builder = Mesh::builder().nodes(2).epoch_seconds(86_400);
    let builder = builder.controller_setting("max_benchmark_age", 86_400);
    let mut mesh = builder.every_node_setting("probe_seconds", 0).prepare();
    let wall = Wall::new(&mesh);
    mesh.start_controller();
    mesh.start_node("node-a");
    mesh.start_node_under("node-b", &wall.wrapper());
    mesh.wait_until_all_reach_all();
    let replayed = |mesh: &Mesh| mesh.node_status("node-a").dropped["replayed"];
    let restart = |mesh: &mut Mesh| {
        mesh.start_node_under("node-b", &wall.wrapper());
        mesh.wait_until("it is a member", |mesh| {
            let own = mesh.try_node_status("node-b");
            own.is_some_and(|own| own.membership == Some(Membership::Allowed))
        });
        // It calls, and nobody calls it.
        mesh.wait_until("it is heard", |mesh| mesh.ping("node-b", "node-a"));
    };
    // One that starts shakes hands itself: from here on there is a time to be behind of.
    mesh.stop("node-b");
    restart(&mut mesh);
    // Once with its state, once as a machine that was made anew with the same keys.
    for is_forgetful in [false, true] {
        mesh.stop("node-b");
        wall.set(-DAY);
        if is_forgetful {
            let epochs = mesh.state_dir("node-b").join("epochs.json");
            std::fs::remove_file(epochs).expect("it is there");
        }
        let before = replayed(&mesh);
        restart(&mut mesh);
        assert!(replayed(&mesh) > before, "its own initiations are too old");
        assert!(mesh.all_reach(&["node-a", "node-b"]));
    }
}

#[test]
fn when_all_clocks_were_a_day_ahead_for_a_while_only_runs_from_then_on_count() {
    let builder = Mesh::builder().epoch_seconds(2).probation_epochs(0);
    let builder = builder.controller_setting("max_benchmark_age", 3_600);
    let mut mesh = builder.controller_setting("floor_nodes", 100).prepare();
    let wall = Wall::new(&mesh);
    wall.set(DAY);
    mesh.spawn_under(CONTROLLER, &wall.wrapper(), &[]);
    mesh.wait_until("the controller answers", |mesh| mesh.try_status().is_some());
    for node in mesh.nodes() {
        mesh.start_node_under(&node, &wall.wrapper());
    }
    mesh.wait_until_all_reach_all();
    // One says nothing for a while, and another does badly.
    mesh.pause("node-b");
    mesh.set_score("node-c", 0.1);
    wall.set(0);
    mesh.wait_until("the step is an alarm", |mesh| {
        let alarms = mesh.status().alarms;
        alarms.iter().any(|alarm| alarm.contains("set back by 86"))
    });
    mesh.wait_until_membership("node-b", Membership::Denied);
    let told = mesh.explain("node-b");
    assert_eq!(told.decision.age_seconds, None);
    assert!(
        told.rules.iter().any(|rule| rule.value.contains("void")),
        "{told:?}"
    );
    mesh.wait_until_membership("node-c", Membership::Denied);
    mesh.wait_until("for the score of a run of today", |mesh| {
        mesh.node("node-c").reason.as_deref() == Some("score below threshold")
    });
    // All that they need is another run, also with a controller that was started again.
    mesh.kill(CONTROLLER);
    mesh.spawn_under(CONTROLLER, &wall.wrapper(), &[]);
    mesh.resume("node-b");
    mesh.set_score("node-c", 0.9);
    mesh.wait_until_all_reach_all();
}

/// A program that becomes another one, on a machine that booted so many seconds earlier.
fn booted(earlier: &str) -> [&str; 4] {
    ["unshare", "-T", "--boottime", earlier]
}

/// A wall clock that can be set.
struct Wall {
    preload: String,
    offset: PathBuf,
    variable: String,
}

impl Wall {
    fn new(mesh: &Mesh) -> Self {
        let (library, offset) = (mesh.folder().join("wall.so"), mesh.folder().join("wall"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/wall.c");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&library)
            .arg(source)
            .arg("-ldl")
            .status();
        assert!(
            compiled.is_ok_and(|status| status.success()),
            "the tests need `cc`"
        );
        std::fs::write(&offset, 0_i64.to_ne_bytes()).expect("the folder can be written");
        Self {
            preload: format!("LD_PRELOAD={}", library.display()),
            variable: format!("WALL_OFFSET={}", offset.display()),
            offset,
        }
    }

    fn wrapper(&self) -> Vec<&str> {
        vec!["env", &self.preload, &self.variable]
    }

    fn set(&self, seconds: i64) {
        let file = OpenOptions::new().write(true).open(&self.offset);
        let written = file.and_then(|file| file.write_all_at(&seconds.to_ne_bytes(), 0));
        written.expect("it is there");
    }
}

const DAY: i64 = 86_400;
const AHEAD: &str = "the wall clock is ahead of the time that this machine has counted";
const CLOSED: &str = "more time was lost than the lease had left";
