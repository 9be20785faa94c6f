//! The inside of the mesh and its outside do not mix: datagrams of a member that come through
//! its own tunnel, and its packets to where it has no business.

use crate::cut_off::{HOSTILE, SURVIVORS, Scene, netns};
use crate::node::{Conduct, Count};
use crate::witness::inside;
use std::net::SocketAddr;
use tests::harness::Mesh;
use tests::harness::mesh::name;

#[test]
fn a_member_whose_datagrams_come_through_its_tunnel_is_not_answered_there() {
    let mut scene = Scene::new(60);
    scene.control();
    let before = SURVIVORS.map(|survivor| Seen::of(&scene.mesh, survivor));
    let pinger = scene.mesh.keep_pinging_fast(SURVIVORS[0], SURVIVORS[1], 56);
    let nested = scene.hostile.count(Count::Nested);
    scene.hostile.set_conduct(Conduct::Nest);
    scene.wait_for("it has sent a good many", |scene| {
        scene.hostile.count(Count::Nested) >= nested + 400
    });
    for (survivor, before) in SURVIVORS.iter().zip(before) {
        let now = Seen::of(&scene.mesh, survivor);
        let addresses = scene.hostile.scope.addresses();
        let is_inside = |endpoint: SocketAddr| addresses.contains(&endpoint.ip());
        assert!(
            now.endpoint.is_none_or(|endpoint| !is_inside(endpoint)),
            "{survivor} sends through the tunnel: {now:?}"
        );
        // One core's worth of a loop is a thousand times that.
        let sent = now.sent - before.sent;
        assert!(sent < 2_000_000, "{survivor} has sent {sent} bytes");
        assert!(
            now.refused >= before.refused + 100,
            "{before:?}, {now:?}: did any arrive?"
        );
    }
    let losses = pinger.stop();
    assert!(losses.sent >= 50, "{losses:?}");
    assert_eq!(losses.lost, 0, "{losses:?}");
    // Its own packets are carried as before.
    scene.hostile.set_conduct(Conduct::Member);
    let before = scene.through();
    scene.wait_for("it is a member like any other", |scene| {
        let now = scene.through();
        let mut pairs = now.to_survivors.iter().zip(&before.to_survivors);
        pairs.all(|(now, before)| now.0 >= before.0 + 10 && now.1 >= before.1 + 10)
    });
}

#[test]
fn no_packet_of_a_member_reaches_what_else_a_node_has_or_knows_a_way_to() {
    let mut scene = Scene::new(60);
    // Even one that would forward is not asked to.
    for (survivor, setting) in SURVIVORS.iter().flat_map(|it| FORWARDING.map(|s| (it, s))) {
        let set = scene.mesh.exec(survivor, &["sysctl", "-q", "-w", setting]);
        assert!(set.status.success(), "{set:?}");
    }
    scene.control();
    let strayed = scene.hostile.count(Count::Strayed);
    scene.hostile.set_conduct(Conduct::Silent);
    let rounds = scene.hostile.count(Count::Rounds);
    scene.wait_for("what was under way has arrived", |scene| {
        scene.hostile.count(Count::Rounds) >= rounds + 5
    });
    let before = scene.through().to_survivors;
    let refused = |scene: &Scene| {
        SURVIVORS.map(|survivor| {
            let dropped = scene.mesh.node_status(survivor).dropped;
            dropped.get("destination_not_allowed").copied().unwrap_or(0)
        })
    };
    let refused_before = refused(&scene);
    scene.hostile.set_conduct(Conduct::Stray);
    scene.wait_for("it has sent a good many", |scene| {
        scene.hostile.count(Count::Strayed) >= strayed + 600
    });
    assert_eq!(scene.through().to_survivors, before, "some were delivered");
    for (now, before) in refused(&scene).into_iter().zip(refused_before) {
        assert!(now >= before + 200, "only {} came", now - before);
    }
}

/// The signs that a survivor shows.
#[derive(Debug)]
struct Seen {
    /// Where it sends to the hostile node.
    endpoint: Option<SocketAddr>,
    /// Bytes into its tunnel and onto its underlay.
    sent: u64,
    /// Datagrams that it did not take from inside.
    refused: u64,
}

impl Seen {
    fn of(mesh: &Mesh, survivor: &str) -> Self {
        let status = mesh.node_status(survivor);
        let peer = status.peers.get(&name(HOSTILE));
        let refused = status.dropped.get("endpoint_inside_mesh");
        Self {
            endpoint: peer.and_then(|peer| peer.endpoint),
            sent: inside(&netns(mesh, survivor), sent).expect("the namespace is there"),
            refused: refused.copied().unwrap_or(0),
        }
    }
}

/// Bytes that all interfaces of the calling thread's namespace have sent.
fn sent() -> u64 {
    let path = "/proc/thread-self/net/dev";
    let text = std::fs::read_to_string(path).expect("the kernel counts");
    let interfaces = text.lines().filter_map(|line| line.split_once(':'));
    let sent = |counts: &str| counts.split_whitespace().nth(SENT)?.parse::<u64>().ok();
    interfaces.filter_map(|(_, counts)| sent(counts)).sum()
}

/// Column of the bytes sent in `/proc/net/dev`.
const SENT: usize = 8;
const FORWARDING: [&str; 2] = ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"];
