//! Underlays that lose, repeat, reorder, delay, split and move: rotations cost nothing beyond that.

use std::time::Duration;
use tests::harness::mesh::name;
use tests::harness::relay::{Fates, advertised};
use tests::harness::{Impairment, Losses, Mesh, Pinger, Relay};
use wire::admin::Membership;

#[test]
fn rotations_on_a_bad_underlay_lose_exactly_the_packets_that_the_underlay_loses() {
    let (mut mesh, relay) = relayed(Mesh::builder().nodes(2).epoch_seconds(2));
    let pings = two_ways(&mesh);
    mesh.wait_until("pings pass", |_| both_answered(&pings, 10));
    relay.impair_all(Impairment {
        loss: 0.05,
        duplication: 0.02,
        reordering: 0.05,
        delay: Duration::from_millis(20),
        ..Impairment::default()
    });
    let first = mesh.epoch();
    mesh.wait_until("eight rotations", |mesh| mesh.epoch() >= first + 8);
    // Pings that are under way at the end shall not be lost.
    relay.impair_all(Impairment::default());
    let answered = [pings[0].answered() + 10, pings[1].answered() + 10];
    mesh.wait_until("pings pass at the end", |_| {
        pings[0].answered() >= answered[0] && pings[1].answered() >= answered[1]
    });
    for (ping, len) in pings.into_iter().zip(DATAGRAMS) {
        let losses = ping.stop();
        let ways = [("node-a", "node-b"), ("node-b", "node-a")];
        let fates = ways.map(|(from, to)| relay.fates(from, to, len));
        let sum = |of: fn(&Fates) -> usize| fates.iter().map(of).sum::<usize>();
        assert!(losses.sent > 250, "{losses:?}");
        assert!(
            sum(|of| of.dropped) > 5 && sum(|of| of.duplicated) > 2 && sum(|of| of.held) > 5,
            "it was bad: {fates:?}"
        );
        assert_eq!(losses.lost, sum(|of| of.dropped), "{losses:?} {fates:?}");
        assert_eq!(losses.again, 0, "a repeated datagram is one packet");
    }
    for (from, to) in [("node-a", "node-b"), ("node-b", "node-a")] {
        let status = mesh.node_status(from);
        let peer = &status.peers[&name(to)];
        assert!(peer.session_epoch > Some(first + 4), "it is rotated");
    }
    mesh.wait_until_all_reach_all();
}

#[test]
fn a_pair_whose_underlay_fails_during_a_rotation_in_one_direction_or_both_heals_by_itself() {
    let builder = Mesh::builder().nodes(2).epoch_seconds(3600);
    let (mut mesh, relay) = relayed(builder.controller_setting("max_benchmark_age", 3600));
    let pings = two_ways(&mesh);
    let ways = [("node-a", "node-b"), ("node-b", "node-a")];
    let session = |mesh: &Mesh, (from, to): (&str, &str)| {
        let own = mesh.node_status(from);
        own.peers.get(&name(to)).and_then(|peer| peer.session_epoch)
    };
    for failing in [&ways[..1], &ways[1..], &ways] {
        let answered = [pings[0].answered() + 10, pings[1].answered() + 10];
        mesh.wait_until("pings pass", |_| {
            pings[0].answered() >= answered[0] && pings[1].answered() >= answered[1]
        });
        for (from, to) in failing {
            let nothing = Impairment {
                loss: 1.0,
                ..Impairment::default()
            };
            relay.impair(from, to, nothing);
        }
        // Long enough for the epoch before to be wiped: no session is left to fall back on.
        let change = mesh.rotate_now();
        mesh.wait_until("neither has a session", |mesh| {
            ways.iter().all(|way| session(mesh, *way).is_none())
        });
        relay.impair_all(Impairment::default());
        mesh.wait_until("both have one", |mesh| {
            let new = Some(change.epoch);
            ways.iter().all(|way| session(mesh, *way) == new)
        });
    }
    mesh.wait_until_all_reach_all();
}

#[test]
fn rotations_in_which_initiations_cross_lose_nothing() {
    let builder = Mesh::builder().nodes(2).epoch_seconds(3600);
    let builder = builder.controller_setting("max_benchmark_age", 3600);
    let (mut mesh, relay) = relayed(builder);
    let pings = two_ways(&mesh);
    // As long as the other side waits before it initiates too, and well within the grace.
    relay.impair_all(Impairment {
        initiations: Duration::from_millis(500),
        delay: Duration::from_millis(100),
        ..Impairment::default()
    });
    mesh.wait_until("pings pass", |_| both_answered(&pings, 10));
    let ways = [("node-a", "node-b"), ("node-b", "node-a")];
    let mut rotations = 0;
    while relay.crossed() < 6 {
        rotations += 1;
        assert!(rotations < 20, "initiations do not cross");
        let change = mesh.rotate_now();
        mesh.wait_until("both send in the new epoch", |mesh| {
            ways.iter().all(|(from, to)| {
                let own = mesh.node_status(from);
                let peer = own.peers.get(&name(to));
                peer.is_some_and(|peer| peer.session_epoch == Some(change.epoch))
            })
        });
    }
    // Pings that are under way at the end shall not be lost.
    relay.impair_all(Impairment::default());
    let answered = [pings[0].answered() + 20, pings[1].answered() + 20];
    mesh.wait_until("pings pass at the end", |_| {
        pings[0].answered() >= answered[0] && pings[1].answered() >= answered[1]
    });
    for ping in pings {
        let losses = ping.stop();
        assert!(losses.sent > 30, "{losses:?}");
        assert_eq!((losses.lost, losses.again), (0, 0), "{losses:?}");
    }
}

#[test]
fn a_node_whose_address_changes_in_the_middle_of_a_rotation_is_found_again() {
    // Without probes: node-b says nothing unless it is asked.
    let builder = Mesh::builder().epoch_seconds(4);
    let builder = builder.every_node_setting("probe_seconds", 0);
    let mut mesh = builder.start();
    let to_moved = mesh.keep_pinging("node-a", "node-b");
    let others = mesh.keep_pinging("node-a", "node-c");
    mesh.wait_until("pings pass", |_| {
        to_moved.answered() > 5 && others.answered() > 5
    });
    mesh.wait_until("a rotation has begun", |mesh| {
        mesh.node_status("node-b").next_epoch.is_some()
    });
    let moved = mesh.namespace("node-b");
    for (old, new) in [
        ("198.18.1.2/15", "198.18.1.102/15"),
        ("fd00:6d65:7368::1:2/64", "fd00:6d65:7368::1:66/64 nodad"),
    ] {
        moved.ip(&format!("addr del {old} dev eth0"));
        moved.ip(&format!("addr add {new} dev eth0"));
    }
    let answered = to_moved.answered() + 10;
    mesh.wait_until("the pair has healed", |_| to_moved.answered() >= answered);
    mesh.wait_until("the controller tells the new place", |mesh| {
        let node = mesh.node("node-b");
        let new = ["198.18.1.102:51820", "[fd00:6d65:7368::1:66]:51820"];
        let is_new = |it: &std::net::SocketAddr| new.contains(&it.to_string().as_str());
        node.endpoints.iter().all(is_new) && !node.endpoints.is_empty()
    });
    mesh.wait_until_all_reach_all();
    let Losses { sent, lost, .. } = others.stop();
    assert!(sent > 10, "{sent}");
    assert_eq!(lost, 0, "nobody else noticed");
}

#[test]
fn a_member_that_says_it_is_where_another_member_is_harms_nobody() {
    let builder = Mesh::builder().epoch_seconds(3);
    let elsewhere = "[\"198.18.1.2:51820\", \"198.18.0.1:7443\", \"127.0.0.1:51820\"]";
    let mut mesh = builder
        .node_setting("node-c", "advertise", elsewhere)
        .every_node_setting("probe_seconds", 0)
        .prepare();
    mesh.start_controller();
    mesh.start_node("node-a");
    mesh.start_node("node-b");
    mesh.wait_until_members(&["node-a", "node-b"]);
    let harmed = [
        mesh.keep_pinging("node-a", "node-b"),
        mesh.keep_pinging("node-b", "node-a"),
    ];
    mesh.wait_until("pings pass", |_| both_answered(&harmed, 5));
    mesh.start_node("node-c");
    mesh.wait_until("it is a member", |mesh| {
        mesh.try_node_status("node-c")
            .is_some_and(|own| own.membership == Some(Membership::Allowed))
    });
    let misled = mesh.keep_pinging("node-a", "node-c");
    mesh.wait_epochs(4);
    for (from, to) in [("node-a", "node-b"), ("node-b", "node-a")] {
        let status = mesh.node_status(from);
        let peer = &status.peers[&name(to)];
        let place = format!("{}:51820", mesh.underlay_of(to)[0]);
        let known = peer.endpoint.map(|at| at.to_string());
        assert_eq!(known, Some(place), "{from} knows where {to} is");
    }
    // Once it speaks itself, it is found where it is.
    let speaks = mesh.keep_pinging("node-c", "node-b");
    mesh.wait_until("it is found", |_| speaks.answered() > 5);
    mesh.wait_until_all_reach_all();
    assert!(misled.answered() > 0);
    for ping in harmed {
        let losses = ping.stop();
        assert!(losses.sent > 50, "{losses:?}");
        assert_eq!(losses.lost, 0, "{losses:?}");
    }
}

/// A mesh whose nodes reach each other only through a relay.
fn relayed(mut builder: tests::harness::Builder) -> (Mesh, Relay) {
    for (index, node) in ["node-a", "node-b"].iter().enumerate() {
        builder = builder.node_setting(node, "advertise", advertised(RELAY_INDEX, index));
    }
    let mut mesh = builder.prepare();
    mesh.add_host(RELAY, RELAY_INDEX);
    let relay = Relay::start(&mesh, RELAY, RELAY_INDEX, SEED);
    mesh.start_controller();
    for node in mesh.nodes() {
        mesh.start_node(&node);
    }
    mesh.wait_until_all_reach_all();
    (mesh, relay)
}

/// Pings in both directions, each with a length of its own.
fn two_ways(mesh: &Mesh) -> [Pinger; 2] {
    [
        mesh.keep_pinging_fast("node-a", "node-b", BYTES[0]),
        mesh.keep_pinging_fast("node-b", "node-a", BYTES[1]),
    ]
}

fn both_answered(pings: &[Pinger; 2], more_than: usize) -> bool {
    pings.iter().all(|ping| ping.answered() > more_than)
}

const RELAY: &str = "relay";
const RELAY_INDEX: usize = 200;
const SEED: u64 = 7;
/// Payloads of echo requests such that with 28 bytes of ICMP and IP they need no padding.
const BYTES: [usize; 2] = [308, 500];
/// The same as datagrams: 28 bytes inside, 32 around.
const DATAGRAMS: [usize; 2] = [BYTES[0] + 28 + 32, BYTES[1] + 28 + 32];
