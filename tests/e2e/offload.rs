//! Offloads never change a byte: every combination of their switches carries the same traffic, and
//! status says what is on.
//!
//! | Variable | |
//! |---|---|
//! | `TRANSFER_MIB` | MiB over TCP for each combination; 128 unless set |

use crate::capture::Capture;
use crate::flows::{LARGEST, Stream, Way};
use tests::harness::{Builder, Mesh};
use wire::admin::OffloadStatus;

/// The four switches, and whether the TUN back end has super-packets at all.
#[derive(Debug, Clone, Copy)]
struct Combination {
    tun_tcp: bool,
    tun_udp: bool,
    udp_gso: bool,
    udp_gro: bool,
    is_tun_tap: bool,
}

impl Combination {
    fn all() -> Vec<Self> {
        let bits = |n: u8| Self {
            tun_tcp: n & 1 == 0,
            tun_udp: n & 2 == 0,
            udp_gso: n & 4 == 0,
            udp_gro: n & 8 == 0,
            is_tun_tap: n & 16 != 0,
        };
        // With a back end that goes packet by packet, the switches of the TUN device mean nothing.
        (0..16).chain([16, 20, 24, 28]).map(bits).collect()
    }

    fn apply(self, builder: Builder, node: &str) -> Builder {
        let backend = if self.is_tun_tap {
            "tun-tap"
        } else {
            "offload"
        };
        builder
            .node_setting(node, "tun_backend", format!("{backend:?}"))
            .node_setting(node, "tun_tcp_offload", self.tun_tcp)
            .node_setting(node, "tun_udp_offload", self.tun_udp)
            .node_setting(node, "udp_gso", self.udp_gso)
            .node_setting(node, "udp_gro", self.udp_gro)
    }

    /// Whether an offload's switch is on.
    fn allows(self, offload: &str) -> bool {
        match offload {
            "tun_tso" | "tun_tcp_merge" => self.tun_tcp,
            "tun_uso" | "tun_udp_merge" => self.tun_udp,
            "udp_gso" => self.udp_gso,
            "udp_gro" => self.udp_gro,
            other => panic!("an offload that has no switch: {other}"),
        }
    }

    /// The status to expect of an offload whose status is `with_all_on` where every switch is on.
    fn expected(self, with_all_on: &OffloadStatus) -> OffloadStatus {
        let name = with_all_on.name.clone();
        let off = |reason: &str| OffloadStatus {
            name: name.clone(),
            enabled: false,
            reason: Some(reason.to_owned()),
        };
        if self.is_tun_tap && name.starts_with("tun_") {
            off("the TUN back end goes packet by packet")
        } else if !self.allows(&name) {
            off("off by setting")
        } else {
            with_all_on.clone()
        }
    }
}

#[test]
fn every_combination_of_offloads_carries_the_same_bytes_and_says_what_is_on() {
    let combinations = Combination::all();
    let mut builder = idle_mesh(combinations.len() + 1);
    for (combination, node) in combinations.iter().zip(nodes().skip(1)) {
        builder = combination.apply(builder, &node);
    }
    let mesh = start(builder);
    let with_all_on = offloads(&mesh, HUB);
    assert_eq!(with_all_on.len(), 6);
    for offload in &with_all_on {
        let reason = offload.reason.as_deref().unwrap_or_default();
        let by_kernel = ["not supported here", "this kernel"];
        assert!(
            offload.enabled || by_kernel.iter().any(|words| reason.starts_with(words)),
            "{offload:?}"
        );
    }

    let len = transfer_mib() * (1 << 20) / 4;
    for (combination, node) in combinations.into_iter().zip(nodes().skip(1)) {
        let expected: Vec<_> = with_all_on
            .iter()
            .map(|offload| combination.expected(offload))
            .collect();
        for (from, to) in [(&*node, HUB), (HUB, &node)] {
            for is_v6 in [false, true] {
                let way = Way::new(&mesh, from, to, is_v6);
                let what = format!("{combination:?}, {from} to {to}, IPv6 {is_v6}");
                let tcp = way.tcp(len);
                assert_eq!(tcp.sent, tcp.received, "{what}");
                for is_gso in [false, true] {
                    let arrived = way.udp(&Stream::of_all_sizes(is_gso));
                    arrived.assert_whole(&format!("{what}, UDP_SEGMENT {is_gso}"));
                }
                way.udp(&Stream::mixed(LARGEST)).assert_whole(&what);
            }
        }
        assert_eq!(offloads(&mesh, &node), expected, "{combination:?}");
    }
    assert_eq!(offloads(&mesh, HUB), with_all_on, "nothing was turned off");
}

#[test]
fn a_batch_that_its_path_refuses_is_sent_one_by_one_and_other_paths_keep_theirs() {
    // Fixed, or it would follow the narrow path as soon as that is noticed.
    let mut mesh = start(idle_mesh(3).node_setting(HUB, "mtu", 1440));
    let (narrow, wide) = ("node-b", "node-c");
    let [v4, v6] = mesh.underlay_addresses(narrow);
    let [own_v4, own_v6] = mesh.underlay_addresses(HUB);
    let hub = mesh.namespace(HUB);
    // A device, since the MTU of a route alone refuses nothing: datagrams may be cut on the way.
    hub.ip("link add narrow link eth0 mtu 1280 type macvlan mode bridge");
    hub.ip("link set narrow up");
    hub.ip(&format!("route add {v4}/32 dev narrow src {own_v4}"));
    hub.ip(&format!("-6 route add {v6}/128 dev narrow src {own_v6}"));
    let before = offloads(&mesh, HUB);
    // The neighbours on the new device are found before anything is counted.
    mesh.wait_until("the narrow path carries packets", |mesh| {
        mesh.ping(HUB, narrow)
    });

    // Begins with what was refused: every datagram of the batch is there.
    for is_v6 in [false, true] {
        let way = Way::new(&mesh, HUB, narrow, is_v6);
        let arrived = way.udp(&Stream::largest_first());
        arrived.assert_whole("the narrow path");
    }
    let sizes = |to: &str| {
        let [v4, v6] = mesh.underlay_addresses(to);
        let filter = format!("udp and (dst host {v4} or dst host {v6})");
        let capture = Capture::start(&mesh, HUB, "eth0", &filter);
        let tcp = Way::new(&mesh, HUB, to, false).tcp(16 << 20);
        assert_eq!(tcp.sent, tcp.received, "{to}");
        let longest = capture.stop().lengths().into_iter().max();
        longest.expect("packets went there")
    };
    let fragment = 14 + 1280;
    let longest = sizes(narrow);
    assert!(
        longest <= fragment,
        "no batch, and no long packet: {longest}"
    );
    assert!(sizes(wide) > 3000, "batches go on");
    assert_eq!(offloads(&mesh, HUB), before, "nothing was turned off");
}

#[test]
fn a_flow_keeps_its_order_over_any_number_of_threads() {
    for threads in [1, 2, 4] {
        let mesh = start(idle_mesh(2).every_node_setting("data_threads", threads));
        let interface = mesh.node_status(HUB).interface;
        let interface = interface.expect("it has an interface");
        // Without the right to load a BPF program there is one thread.
        let expected = if may_load_bpf() { threads } else { 1 };
        assert_eq!(interface.threads, expected);
        for (from, to, is_v6) in [(HUB, "node-b", false), ("node-b", HUB, true)] {
            let what = format!("{threads} threads, from {from}");
            let way = Way::new(&mesh, from, to, is_v6);
            for size in [64, 1200] {
                way.udp(&Stream::steady(size, 8_000)).assert_whole(&what);
            }
            way.udp(&Stream::mixed(3_000)).assert_whole(&what);
            let tcp = way.tcp(64 << 20);
            assert_eq!(tcp.sent, tcp.received, "{what}");
            // A queue that was full costs a few; a flow over two threads costs thousands.
            let few = (64 << 20) / 1400 / 100;
            assert!(tcp.retransmitted <= few, "{what}: {tcp:?}");
            assert!(tcp.out_of_order <= few, "{what}: {tcp:?}");
        }
    }
}

/// Whether these tests run in the machine's own user namespace, and so with all of root's rights.
fn may_load_bpf() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").expect("it is always there");
    map.contains("4294967295")
}

#[test]
fn what_is_missing_in_a_flow_is_not_covered_up_by_merging_the_rest() {
    let (receiver, one_by_one) = ("node-b", "node-c");
    let builder = idle_mesh(3).node_setting(one_by_one, "udp_gso", false);
    let mesh = start(builder);
    for rule in [
        "add table inet loss",
        "add chain inet loss in { type filter hook input priority 0; }",
        "add rule inet loss in udp dport 51820 numgen random mod 32 == 0 counter drop",
    ] {
        let output = mesh.exec(receiver, &["nft", rule]);
        assert!(output.status.success(), "nft {rule}: {output:?}");
    }
    for from in [HUB, one_by_one] {
        for is_v6 in [false, true] {
            let tcp = Way::new(&mesh, from, receiver, is_v6).tcp(24 << 20);
            assert_eq!(tcp.sent, tcp.received, "from {from}");
            assert!(tcp.out_of_order > 0, "nothing was missing: {tcp:?}");
        }
    }
}

#[test]
fn every_packet_that_comes_out_of_a_tunnel_has_its_checksums_right() {
    let receiver = "node-b";
    let builder = idle_mesh(2).node_setting(receiver, "tun_backend", "\"tun-tap\"");
    let mesh = start(builder);
    let [v4, v6] = mesh.addresses(receiver);
    let to_receiver = format!("dst host {v4} or dst host {v6}");
    let handed_out = Capture::start(
        &mesh,
        HUB,
        "meshd0",
        &format!("greater 1500 and ({to_receiver})"),
    );
    let delivered = Capture::start(&mesh, receiver, "meshd0", &to_receiver);
    for is_v6 in [false, true] {
        let way = Way::new(&mesh, HUB, receiver, is_v6);
        let tcp = way.tcp(16 << 20);
        assert_eq!(tcp.sent, tcp.received);
        for is_gso in [false, true] {
            let arrived = way.udp(&Stream::of_whole_packets(is_gso));
            arrived.assert_whole("what was captured");
        }
    }
    let checked = delivered.stop().checksums();
    for (kind, least) in [
        ("IPv4 header", 10_000),
        ("TCP over IPv4", 10_000),
        ("TCP over IPv6", 10_000),
        ("UDP over IPv4", 900),
        ("UDP over IPv6", 900),
    ] {
        let count = checked.get(kind).copied().unwrap_or_default();
        assert_eq!(count.wrong, 0, "{kind}: {checked:?}");
        assert_eq!(count.unknown, 0, "{kind}: {checked:?}");
        assert!(count.right > least, "{kind}: {checked:?}");
    }
    // They were made from super-packets, where the kernel has any.
    let made = handed_out.stop().checksums();
    for (offload, transport) in [("tun_tso", "TCP"), ("tun_uso", "UDP")] {
        let on = offloads(&mesh, HUB);
        if on
            .iter()
            .any(|found| found.name == offload && found.enabled)
        {
            for family in ["IPv4", "IPv6"] {
                let kind = format!("{transport} over {family}");
                assert!(made.contains_key(&*kind), "{kind}: {made:?}");
            }
        }
    }
}

// ---- meshes -------------------------------------------------------------------------------------

/// Nodes that do nothing but what the test does.
fn idle_mesh(nodes: usize) -> Builder {
    Mesh::builder()
        .nodes(nodes)
        .epoch_seconds(3600)
        .controller_setting("max_benchmark_age", 3600)
        .every_node_setting("emit_seconds", 600)
        .every_node_setting("probe_seconds", 60)
}

/// Starts the daemons and waits until the hub reaches every node.
fn start(builder: Builder) -> Mesh {
    let mut mesh = builder.prepare();
    mesh.start_controller();
    let nodes = mesh.nodes();
    nodes.iter().for_each(|node| mesh.start_node(node));
    for node in nodes.iter().filter(|node| *node != HUB) {
        let what = format!("{HUB} and {node} reach each other");
        mesh.wait_until(&what, |mesh| {
            let status = mesh.try_status();
            let is_known = status.is_some_and(|status| {
                [HUB, node]
                    .iter()
                    .all(|node| status.nodes.contains_key(&tests::harness::mesh::name(node)))
            });
            is_known && mesh.all_reach(&[HUB, node])
        });
    }
    mesh
}

fn nodes() -> impl Iterator<Item = String> {
    ('a'..='z').map(|letter| format!("node-{letter}"))
}

fn offloads(mesh: &Mesh, node: &str) -> Vec<OffloadStatus> {
    let interface = mesh.node_status(node).interface;
    interface.expect("it has an interface").offloads
}

fn transfer_mib() -> u64 {
    let set = std::env::var("TRANSFER_MIB").ok();
    set.map_or(128, |text| text.parse().expect("TRANSFER_MIB is a number"))
}

const HUB: &str = "node-a";
