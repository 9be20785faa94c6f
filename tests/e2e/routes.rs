//! Networks behind nodes: a LAN behind a router, as the machines at both ends see it, and what keeps it from being more.

use std::net::IpAddr;
use tests::harness::mesh::{CONTROLLER, Mesh, name};
use tests::harness::ping;
use wire::admin::{NodeRoutes, RouteStatus};

/// The LAN behind node-b, and its one host.
const LAN_V4: &str = "10.1.0.0/16";
const LAN_V6: &str = "fd01::/64";
const HOST: [&str; 2] = ["10.1.0.5", "fd01::5"];

/// Three nodes: node-a accepts routes, node-b is the router of a LAN, and node-c offers a network that is not there.
fn mesh() -> Mesh {
    let mut mesh = crate::quiet(3)
        .node_setting("node-a", "accept_routes", true)
        .node_setting(
            "node-b",
            "advertise_routes",
            format!("[{LAN_V4:?}, {LAN_V6:?}]"),
        )
        .node_setting("node-c", "advertise_routes", "[\"10.3.0.0/16\"]")
        .start();
    mesh.add_host("lan", 20);
    // A LAN of its own, and no way past the router.
    let lan = mesh.namespace("lan");
    lan.ip("link set eth0 down");
    let router = mesh.namespace("node-b");
    router.ip(&format!(
        "link add lan0 type veth peer name lan1 netns {}",
        lan.name()
    ));
    for (namespace, link, host) in [(router, "lan0", 1), (lan, "lan1", 5)] {
        namespace.ip(&format!("addr add 10.1.0.{host}/16 dev {link}"));
        namespace.ip(&format!("addr add fd01::{host}/64 dev {link} nodad"));
        namespace.ip(&format!("link set {link} up"));
    }
    lan.ip("route add default via 10.1.0.1");
    lan.ip("route add default via fd01::1");
    mesh
}

/// Lets node-b pass packets on.
fn forward(mesh: &Mesh) {
    for setting in ["ipv4/conf/all/forwarding", "ipv6/conf/all/forwarding"] {
        let write = format!("echo 1 > /proc/sys/net/{setting}");
        let done = mesh.exec("node-b", &["sh", "-c", &write]);
        assert!(done.status.success(), "{done:?}");
    }
}

fn approve(mesh: &Mesh, node: &str, prefix: &str) {
    let _: RouteStatus = mesh.ask(CONTROLLER, &["route", "approve", node, prefix]);
}

/// Networks that the kernel of a node routes to peers, by its own word.
fn routed(mesh: &Mesh, node: &str) -> Vec<String> {
    let v4 = mesh.namespace(node).ip("-4 route show proto 109");
    let v6 = mesh.namespace(node).ip("-6 route show proto 109");
    let lines = v4.lines().chain(v6.lines());
    let lines = lines.filter(|line| line.contains("dev meshd0"));
    let found = lines.filter_map(|line| line.split_whitespace().next());
    found.map(str::to_owned).collect()
}

fn routes(mesh: &Mesh, node: &str) -> NodeRoutes {
    let status = mesh.node_status(node);
    status.routes.expect("it has to do with routes")
}

fn reaches(mesh: &Mesh, from: &str, to: &str) -> bool {
    let to: IpAddr = to.parse().expect("an address");
    ping::once(mesh.namespace(from), to)
}

fn dropped(mesh: &Mesh, node: &str, reason: &str) -> u64 {
    mesh.node_status(node).dropped[reason]
}

#[test]
fn a_host_behind_a_router_is_reached_until_the_router_is_evicted() {
    let mut mesh = mesh();
    mesh.wait_until("the routes are offered", |mesh| {
        let list: Vec<RouteStatus> = mesh.ask(CONTROLLER, &["route", "list"]);
        list.iter()
            .filter(|it| it.advertised && !it.approved)
            .count()
            == 3
    });
    assert!(routed(&mesh, "node-a").is_empty(), "nobody has approved");
    for prefix in [LAN_V4, LAN_V6] {
        approve(&mesh, "node-b", prefix);
    }
    approve(&mesh, "node-c", "10.3.0.0/16");
    mesh.wait_until("the kernel of node-a has the routes", |mesh| {
        routed(mesh, "node-a").len() == 3
    });
    assert_eq!(routed(&mesh, "node-a"), [LAN_V4, "10.3.0.0/16", LAN_V6]);
    let own = routes(&mesh, "node-b").own;
    assert!(own.iter().all(|it| it.in_force), "{own:?}");
    assert!(
        own.iter().all(|it| it
            .reason
            .as_ref()
            .is_some_and(|it| it.contains("does not forward"))),
        "{own:?}"
    );
    forward(&mesh);
    mesh.wait_until("the host behind the router answers", |mesh| {
        HOST.iter().all(|host| reaches(mesh, "node-a", host))
    });
    let own = routes(&mesh, "node-b").own;
    assert!(own.iter().all(|it| it.reason.is_none()), "{own:?}");
    let peers = routes(&mesh, "node-a").peers;
    assert!(peers.iter().all(|it| it.routed), "{peers:?}");
    // The other way, and not to a node that accepts no routes.
    for address in mesh.addresses("node-a") {
        assert!(reaches(&mesh, "lan", &address.to_string()));
    }
    assert!(routed(&mesh, "node-c").is_empty());
    assert!(!reaches(&mesh, "node-c", HOST[0]));

    // A member speaks with a source that is behind another, and with one that is behind nobody.
    let to = mesh.addresses("node-b")[0].to_string();
    for forged in ["10.3.0.9", "10.9.0.9", HOST[0]] {
        mesh.namespace("node-a")
            .ip(&format!("addr add {forged}/32 dev lo"));
        let before = dropped(&mesh, "node-b", "source_not_allowed");
        let ping = ["ping", "-n", "-c", "1", "-W", "1", "-I", forged, &to];
        assert!(!mesh.exec("node-a", &ping).status.success(), "{forged}");
        let after = dropped(&mesh, "node-b", "source_not_allowed");
        assert!(after > before, "{forged}: {before} to {after}");
        mesh.namespace("node-a")
            .ip(&format!("addr del {forged}/32 dev lo"));
    }
    mesh.wait_until("the host behind the router answers again", |mesh| {
        reaches(mesh, "node-a", HOST[0])
    });

    // A route that somebody removes is put back.
    mesh.namespace("node-a")
        .ip(&format!("route del {LAN_V4} dev meshd0"));
    mesh.wait_until("the route is put back", |mesh| {
        routed(mesh, "node-a").len() == 3
    });

    mesh.evict("node-b");
    mesh.wait_until("the routes are gone", |mesh| {
        routed(mesh, "node-a") == ["10.3.0.0/16"]
    });
    assert!(!HOST.iter().any(|host| reaches(&mesh, "node-a", host)));
    let list: Vec<RouteStatus> = mesh.ask(CONTROLLER, &["route", "list"]);
    let of_b = list.iter().filter(|it| it.node == name("node-b"));
    assert!(of_b.clone().count() == 2 && of_b.clone().all(|it| it.approved && !it.in_force));
    assert!(mesh.all_reach(&["node-a", "node-c"]));

    // The other router stays a member without its route.
    let _: RouteStatus = mesh.ask(CONTROLLER, &["route", "withdraw", "node-c", "10.3.0.0/16"]);
    mesh.wait_until("the route is gone", |mesh| {
        routed(mesh, "node-a").is_empty()
    });
    assert!(mesh.all_reach(&["node-a", "node-c"]));
}

#[test]
fn no_route_takes_the_underlay_or_a_network_of_the_machine_away_and_the_status_says_so() {
    let mut mesh = crate::quiet(2)
        .node_setting("node-a", "accept_routes", true)
        .node_setting(
            "node-b",
            "advertise_routes",
            "[\"198.18.0.0/24\", \"198.18.1.2/32\", \"10.1.0.0/16\", \"10.2.0.0/16\"]",
        )
        .start();
    // Part of one is connected here.
    let own = mesh.namespace("node-a");
    own.ip("link add lan0 type bridge");
    own.ip("addr add 10.1.9.1/24 dev lan0");
    own.ip("link set lan0 up");
    for prefix in [
        "198.18.0.0/24",
        "198.18.1.2/32",
        "10.1.0.0/16",
        "10.2.0.0/16",
    ] {
        approve(&mesh, "node-b", prefix);
    }
    mesh.wait_until("the harmless one is routed", |mesh| {
        routed(mesh, "node-a") == ["10.2.0.0/16"]
    });
    let reason = |mesh: &Mesh, prefix: &str| {
        let peers = routes(mesh, "node-a").peers.into_iter();
        let mut found = peers.filter(|it| it.prefix.to_string() == prefix);
        found.next().and_then(|it| it.reason).unwrap_or_default()
    };
    for (prefix, why) in [
        ("198.18.0.0/24", "it holds 198.18.0.1"),
        ("198.18.1.2/32", "it holds 198.18.1.2"),
        ("10.1.0.0/16", "route of its own to 10.1.9.0/24 by lan0"),
    ] {
        mesh.wait_until("the status says why", |mesh| {
            reason(mesh, prefix).contains(why)
        });
    }
    assert!(
        mesh.log("node-a")
            .contains("no packets are routed to the network")
    );
    assert!(mesh.all_reach(&["node-a", "node-b"]), "the tunnel stands");

    // The machine's own network goes, and the route comes; and the other way round.
    mesh.namespace("node-a").ip("link del lan0");
    mesh.wait_until("the route comes", |mesh| {
        routed(mesh, "node-a") == ["10.1.0.0/16", "10.2.0.0/16"]
    });
    let again = mesh.namespace("node-a");
    again.ip("link add lan0 type bridge");
    again.ip("addr add 10.1.9.1/24 dev lan0");
    again.ip("link set lan0 up");
    mesh.wait_until("it goes", |mesh| routed(mesh, "node-a") == ["10.2.0.0/16"]);

    // Killed, the node leaves no route; started again, it has it anew.
    mesh.kill("node-a");
    mesh.wait_until("no route is left", |mesh| routed(mesh, "node-a").is_empty());
    mesh.start_node("node-a");
    mesh.wait_until("the route is there again", |mesh| {
        routed(mesh, "node-a") == ["10.2.0.0/16"]
    });
}
