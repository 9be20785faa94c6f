//! Underlays of other widths, and such as change: nothing becomes a black hole.

use std::time::Duration;
use tests::harness::mesh::name;
use tests::harness::transfer::{noise, transfer};
use tests::harness::{Builder, Mesh};
use wire::admin::InterfaceStatus;

#[test]
fn the_interface_leaves_room_for_wireguard_in_an_underlay_of_either_family() {
    for (builder, expected) in [(two(), 1440), (over_ipv6(two()), 1420)] {
        let mut mesh = builder.start();
        mesh.wait_until("the underlay is measured", |mesh| {
            ["node-a", "node-b"].iter().all(|node| {
                let interface = interface(mesh, node);
                interface.mtu == expected && interface.underlay_mtu == Some(1500)
            })
        });
        for node in ["node-a", "node-b"] {
            assert!(!interface(&mesh, node).fragments);
            assert_eq!(kernel_mtu(&mesh, node), expected);
        }
        assert_carries(&mesh, "node-a", "node-b", 1 << 20);
        assert_eq!(fragments(&mesh, "node-a"), 0, "a full packet just fits");
    }
}

#[test]
fn an_underlay_that_is_too_narrow_for_ipv6_inside_carries_everything_in_fragments() {
    for builder in [two(), over_ipv6(two())] {
        let mut mesh = builder.prepare();
        mesh.set_underlay_mtu(1280);
        start(&mut mesh);
        mesh.wait_until("both say so", |mesh| {
            ["node-a", "node-b"].iter().all(|node| {
                let interface = interface(mesh, node);
                interface.mtu == 1280 && interface.underlay_mtu == Some(1280) && interface.fragments
            })
        });
        for node in ["node-a", "node-b"] {
            assert_eq!(kernel_mtu(&mesh, node), 1280);
            assert_eq!(mesh.log(node).matches(TOO_NARROW).count(), 1, "{node}");
            let said = mesh.meshctl(node, &["status"]);
            let said = String::from_utf8_lossy(&said.stdout).into_owned();
            assert!(said.contains("datagrams are fragmented"), "{said}");
        }
        assert_carries(&mesh, "node-a", "node-b", 10 << 20);
        assert_carries(&mesh, "node-b", "node-a", 10 << 20);
        for node in ["node-a", "node-b"] {
            assert!(fragments(&mesh, node) > 1000, "as it said");
        }
    }
}

#[test]
fn the_interface_follows_an_underlay_that_changes() {
    let mut mesh = quiet(two()).start();
    for (underlay, expected) in [(1500, 1440), (1400, 1340), (1500, 1440)] {
        mesh.set_underlay_mtu(underlay);
        // Sooner than without news of the link.
        let soon = Duration::from_secs(10);
        mesh.wait_up_to(soon, "both follow", |mesh| {
            ["node-a", "node-b"].iter().all(|node| {
                let interface = interface(mesh, node);
                interface.mtu == expected
                    && interface.underlay_mtu == Some(underlay)
                    && kernel_mtu(mesh, node) == expected
            })
        });
        assert_carries(&mesh, "node-a", "node-b", 1 << 20);
    }
    for node in ["node-a", "node-b"] {
        let log = mesh.log(node);
        let lines = log.lines().filter(|line| line.contains(FOLLOWS));
        let lines: Vec<&str> = lines.collect();
        assert_eq!(lines.len(), 3, "one for each change: {lines:#?}");
        assert_eq!(log.matches(TOO_NARROW).count(), 0);
        // An echo that is larger than the other side's MTU at the moment is answered in fragments inside.
        assert!(fragments(&mesh, node) < 100, "padding follows too");
    }
}

#[test]
fn a_fixed_mtu_stays_and_is_held_against_the_way_to_the_controller() {
    let builder = quiet(Mesh::builder().nodes(1));
    let mut mesh = builder.every_node_setting("mtu", 1441).start();
    let said = |fragments: bool| {
        move |mesh: &mut Mesh| {
            let interface = interface(mesh, "node-a");
            interface.underlay_mtu.is_some() && interface.fragments == fragments
        }
    };
    mesh.wait_until("it says that the underlay is too narrow", said(true));
    mesh.set_underlay_mtu(1501);
    mesh.wait_until("it says that the underlay is wide enough", said(false));
    assert_eq!(interface(&mesh, "node-a").mtu, 1441);
    assert_eq!(kernel_mtu(&mesh, "node-a"), 1441);
    let log = mesh.log("node-a");
    assert_eq!(log.matches(TOO_NARROW).count(), 1);
    assert_eq!(log.matches("carries full packets again").count(), 1);
    assert_eq!(log.matches(FOLLOWS).count(), 0);
}

/// The links are wide, the way between them is not, and nobody tells: a black hole to whoever
/// forbids fragments.
#[test]
fn a_narrow_way_behind_a_router_that_answers_nothing_carries_everything() {
    let mut mesh = two().prepare();
    detour(&mut mesh, "198.18.1.51", ["198.18.1.1", "198.18.1.2"]);
    let router = mesh.namespace("router");
    router.ip("rule add iif lo ipproto icmp blackhole");
    start(&mut mesh);
    mesh.wait_until("both have measured their links", |mesh| {
        ["node-a", "node-b"]
            .iter()
            .all(|node| interface(mesh, node).mtu == 1440)
    });
    assert_carries(&mesh, "node-a", "node-b", 10 << 20);
    assert_carries(&mesh, "node-b", "node-a", 10 << 20);
    assert!(fragments(&mesh, "router") > 1000, "the way was narrow");
    mesh.wait_until("both have measured the way", |mesh| {
        both_see(mesh, Some(1276), 1216)
    });
}

/// Jumbo frames at both ends, a switch of 1500 in between, and nobody tells. The third node's way is wide,
/// and stays so.
#[test]
fn a_link_of_1500_between_jumbo_frames_is_found_and_narrows_the_way_to_its_peer_alone() {
    let three = || quiet(over_ipv4(Mesh::builder().nodes(3)));
    // A veth lets 4 bytes more in, for a VLAN: not every width is the same both ways.
    for (builder, middle, packet, path, wide) in [
        (three(), 1500, 1440, 1500, 8940),
        (over_ipv6(three()), 1492, 1408, 1488, 8920),
    ] {
        let mut mesh = builder.prepare();
        mesh.set_underlay_mtu(9000);
        mesh.narrow_way("node-b", middle);
        start(&mut mesh);
        mesh.wait_until("the narrow way is known, and the wide one", |mesh| {
            let to_c = paths(mesh, "node-a", "node-c");
            both_see(mesh, Some(path), packet) && to_c == (Some(9000), Some(wide))
        });
        assert_eq!(kernel_mtu(&mesh, "node-a"), wide);
        assert_carries(&mesh, "node-a", "node-b", 4 << 20);
        assert_carries(&mesh, "node-b", "node-a", 4 << 20);
        assert_carries(&mesh, "node-a", "node-c", 4 << 20);
        let log = mesh.log("node-a");
        assert_eq!(log.matches(NARROW).count(), 1, "one line for the peer");
    }
}

#[test]
fn a_way_that_narrows_later_is_followed() {
    let mut mesh = quiet(over_ipv6(two())).start();
    mesh.wait_until("full packets pass", |mesh| both_see(mesh, Some(1500), 1420));
    mesh.narrow_way("node-b", 1400);
    mesh.wait_until("both notice", |mesh| both_see(mesh, Some(1392), 1312));
    assert_carries(&mesh, "node-a", "node-b", 4 << 20);
    assert_carries(&mesh, "node-b", "node-a", 4 << 20);
    // Somebody flushes the routes: they come back.
    mesh.namespace("node-a")
        .ip("-6 route flush dev meshd0 proto static");
    // Any news of a link has the node look.
    mesh.namespace("node-a").ip("link set eth0 txqueuelen 999");
    mesh.wait_until("they are back", |mesh| {
        let said = mesh
            .namespace("node-a")
            .ip("-6 route show dev meshd0 proto static");
        said.contains("mtu 1312")
    });
}

/// On IPv6 routers do not fragment; they answer. They are believed because the nodes' own echoes of full
/// size stay out.
#[test]
fn what_an_ipv6_router_says_of_a_narrow_way_is_followed() {
    let mut mesh = over_ipv6(two()).prepare();
    let nodes = ["fd00:6d65:7368::1:1", "fd00:6d65:7368::1:2"];
    detour(&mut mesh, "fd00:6d65:7368::1:33", nodes);
    start(&mut mesh);
    assert_carries(&mesh, "node-a", "node-b", 10 << 20);
    assert_carries(&mesh, "node-b", "node-a", 10 << 20);
    mesh.wait_until("both have heard it", |mesh| {
        ["node-a", "node-b"].iter().all(|node| {
            let interface = interface(mesh, node);
            interface.mtu == 1420 && interface.underlay_mtu == Some(1280) && interface.fragments
        })
    });
    assert_eq!(fragments(&mesh, "router"), 0, "the nodes have to do it");
}

/// Puts a router between the two nodes, whose way to either is 1280 wide.
fn detour(mesh: &mut Mesh, via: &str, [a, b]: [&str; 2]) {
    mesh.add_host("router", 50);
    set(mesh, "router", "ipv4/ip_forward", "1");
    set(mesh, "router", "ipv6/conf/all/forwarding", "1");
    for conf in ["all", "eth0"] {
        let redirects = format!("ipv4/conf/{conf}/send_redirects");
        set(mesh, "router", &redirects, "0");
        for node in ["node-a", "node-b"] {
            let redirects = format!("ipv6/conf/{conf}/accept_redirects");
            set(mesh, node, &redirects, "0");
        }
    }
    for (node, own, other) in [("node-a", a, b), ("node-b", b, a)] {
        let router = mesh.namespace("router");
        router.ip(&format!("route add {own} dev eth0 mtu lock 1280"));
        let node = mesh.namespace(node);
        node.ip(&format!("route add {other} via {via}"));
    }
}

/// Sets a variable of a host's network.
fn set(mesh: &Mesh, host: &str, variable: &str, value: &'static str) {
    let path = format!("/proc/sys/net/{variable}");
    let write = mesh
        .namespace(host)
        .enter(move || std::fs::write(path, value));
    let written = write.join().expect("a thread ends");
    written.unwrap_or_else(|error| panic!("{host}: {variable}: {error}"));
}

fn two() -> Builder {
    over_ipv4(Mesh::builder().nodes(2))
}

/// Nothing happens in it but what the test does.
fn quiet(builder: Builder) -> Builder {
    builder
        .epoch_seconds(3600)
        .controller_setting("max_benchmark_age", 3600)
}

/// A node that announces all of its addresses leaves room for IPv6, which adds more.
fn over_ipv4(builder: Builder) -> Builder {
    over(builder, |n| format!("[\"198.18.1.{n}:51820\"]"))
}

fn over_ipv6(builder: Builder) -> Builder {
    over(builder, |n| format!("[\"[fd00:6d65:7368::1:{n}]:51820\"]"))
}

fn over(builder: Builder, advertise: impl Fn(u8) -> String) -> Builder {
    builder
        .node_setting("node-a", "advertise", advertise(1))
        .node_setting("node-b", "advertise", advertise(2))
        .node_setting("node-c", "advertise", advertise(3))
}

fn start(mesh: &mut Mesh) {
    mesh.start_controller();
    for node in mesh.nodes() {
        mesh.start_node(&node);
    }
    mesh.wait_until_all_reach_all();
}

fn interface(mesh: &Mesh, node: &str) -> InterfaceStatus {
    let interface = mesh.node_status(node).interface;
    interface.expect("a node that runs has an interface")
}

/// The `path_mtu` and `mtu` of `peer` in the status of `node`.
fn paths(mesh: &Mesh, node: &str, peer: &str) -> (Option<u32>, Option<u32>) {
    let status = mesh.node_status(node);
    let peer = status.peers.get(&name(peer));
    peer.map_or((None, None), |peer| (peer.path_mtu, peer.mtu))
}

/// Whether `node-a` and `node-b` say so of the way between them.
fn both_see(mesh: &Mesh, path: Option<u32>, packet: u32) -> bool {
    let ways = [("node-a", "node-b"), ("node-b", "node-a")];
    ways.iter()
        .all(|(node, peer)| paths(mesh, node, peer) == (path, Some(packet)))
}

/// The interface's MTU as the kernel has it.
fn kernel_mtu(mesh: &Mesh, node: &str) -> u32 {
    let said = mesh.namespace(node).ip("-o link show dev meshd0");
    let mtu = said
        .split_once(" mtu ")
        .and_then(|(_, rest)| rest.split_once(' '));
    let mtu = mtu.and_then(|(mtu, _)| mtu.parse().ok());
    mtu.unwrap_or_else(|| panic!("no MTU in: {said}"))
}

/// So many bytes arrive whole, over IPv4 and IPv6 inside.
fn assert_carries(mesh: &Mesh, from: &str, to: &str, len: usize) {
    for (seed, address) in (1..).zip(mesh.addresses(to)) {
        let bytes = noise(len, seed);
        let (from, to) = (mesh.namespace(from), mesh.namespace(to));
        let arrived = transfer(from, to, address, &bytes);
        let arrived = arrived.unwrap_or_else(|error| panic!("to {address}: {error}"));
        assert!(arrived == bytes, "to {address}: {} bytes", arrived.len());
    }
}

/// Fragments of either family that `host` has made.
fn fragments(mesh: &Mesh, host: &str) -> u64 {
    let read = mesh.namespace(host).enter(|| {
        ["snmp", "snmp6"]
            .map(|file| std::fs::read_to_string(format!("/proc/thread-self/net/{file}")))
    });
    let [v4, v6] = read.join().expect("a thread ends");
    let (v4, v6) = (v4.expect("Linux counts"), v6.expect("Linux counts"));
    let mut rows = v4.lines().filter(|line| line.starts_with("Ip:"));
    let (names, counts) = (rows.next(), rows.next());
    let mut columns = names
        .into_iter()
        .flat_map(str::split_whitespace)
        .zip(counts.into_iter().flat_map(str::split_whitespace));
    let v4 = columns.find(|(name, _)| *name == "FragCreates");
    let v6 = v6
        .lines()
        .find_map(|line| line.strip_prefix("Ip6FragCreates"));
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let counts = v4.and_then(|(_, v4)| number(v4)).zip(v6.and_then(number));
    let (v4, v6) = counts.expect("both count fragments");
    v4 + v6
}

const TOO_NARROW: &str = "the underlay is too narrow for full packets";
const NARROW: &str = "the path to a peer is narrow";
const FOLLOWS: &str = "MTU follows the underlay";
