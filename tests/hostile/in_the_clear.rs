//! Packets for mesh addresses, or from them, that did not come through the tunnel: they reach nobody,
//! and none of a node's own leaves that way.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;
use tests::harness::namespace::Namespace;
use tests::harness::transfer::{noise, transfer};
use tests::harness::{Mesh, ping};
use wire::admin::FirewallState;

/// Which of TCP, UDP and an echo reached a service that is bound to the address alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reached {
    tcp: bool,
    udp: bool,
    icmp: bool,
}

const ALL: Reached = Reached {
    tcp: true,
    udp: true,
    icmp: true,
};
const NOTHING: Reached = Reached {
    tcp: false,
    udp: false,
    icmp: false,
};

/// node-a has the rules, node-b has none: it shows that the attack is one.
fn mesh() -> Mesh {
    let builder = Mesh::builder().epoch_seconds(60);
    builder
        .node_setting("node-b", "firewall", "\"off\"")
        .start()
}

#[test]
fn an_evicted_node_reaches_no_mesh_address_by_a_route_of_its_own() {
    let mut mesh = mesh();
    let victims = ["node-a", "node-b"].map(|node| (node, mesh.addresses(node)));
    mesh.evict("node-c");
    mesh.wait_until("both have it in force", |mesh| {
        mesh.none_reach("node-c", &["node-a", "node-b"])
    });
    disarm(&mut mesh, "node-c");
    for (node, addresses) in victims {
        for (to, via) in addresses.iter().zip(mesh.underlay_of(node)) {
            mesh.namespace("node-c")
                .ip(&format!("route add {to} via {via}"));
        }
    }
    let reached = |mesh: &Mesh, (node, addresses): (&str, [IpAddr; 2])| {
        addresses.map(|to| reached(mesh.namespace("node-c"), mesh.namespace(node), to))
    };
    for mode in ["0", "1", "2"] {
        for node in ["node-a", "node-b"] {
            filter_reverse_paths(&mesh, node, mode);
        }
        let [guarded, open] = victims.map(|victim| reached(&mesh, victim));
        assert_eq!(guarded, [NOTHING, NOTHING], "rp_filter {mode}");
        assert_eq!(open, [ALL, ALL], "rp_filter {mode}: the attack is none");
    }
    // Members are served as ever.
    let services = reached_by_member(&mesh, "node-b", victims[0]);
    assert_eq!(services, [ALL, ALL]);
}

#[test]
fn nobody_outside_the_tunnel_speaks_for_a_mesh_address() {
    let mut mesh = mesh();
    let [forged, _] = mesh.addresses("node-b");
    disarm(&mut mesh, "node-c");
    let stranger = mesh.namespace("node-c");
    stranger.ip(&format!("addr add {forged}/32 dev lo"));
    for (node, expected) in [("node-a", false), ("node-b", true)] {
        filter_reverse_paths(&mesh, node, "0");
        // node-b would not believe its own address: there it is another member's.
        let forged = if expected {
            let [other, _] = mesh.addresses("node-a");
            stranger.ip(&format!("addr add {other}/32 dev lo"));
            other
        } else {
            forged
        };
        let [to, _] = mesh.underlay_of(node);
        let heard = datagram(stranger, Some(forged), mesh.namespace(node), to);
        assert_eq!(heard, expected, "{node} hears {forged} on {to}");
    }
    // Nor does the address of the range that is everybody's.
    let [victim, _] = mesh.addresses("node-a");
    let [via, _] = mesh.underlay_of("node-a");
    let everybody = broadcast(victim);
    stranger.ip(&format!("route add {everybody}/32 via {via}"));
    let heard = datagram(stranger, None, mesh.namespace("node-a"), everybody);
    assert!(!heard, "{everybody} is heard on node-a");
}

#[test]
fn a_port_that_an_operator_publishes_on_the_mesh_address_leads_where_he_says() {
    let mesh = mesh();
    let [published, _] = mesh.addresses("node-a");
    // A machine without rules, in the place of a container.
    let [machine, _] = mesh.underlay_of("node-b");
    let bind = mesh
        .namespace("node-b")
        .enter(move || UdpSocket::bind((machine, 0)));
    let socket = bind.join().expect("a thread ends");
    let socket = socket.expect("the address is there");
    let port = socket.local_addr().expect("it is bound").port();
    let forward = mesh.namespace("node-a").enter(|| {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("root may");
    });
    forward.join().expect("a thread ends");
    for host in ["node-a", "node-b"] {
        filter_reverse_paths(&mesh, host, "0");
    }
    for rule in [
        "add table ip operators",
        "add chain ip operators in { type nat hook prerouting priority dstnat; }",
        &format!(
            "add rule ip operators in ip daddr {published} udp dport 5353 dnat to {machine}:{port}"
        ),
    ] {
        let output = mesh.exec("node-a", &["nft", rule]);
        assert!(output.status.success(), "nft {rule}: {output:?}");
    }
    let send = mesh.namespace("node-c").enter(move || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        (0..3).try_for_each(|_| socket.send_to(b"hello", (published, 5353)).map(drop))
    });
    let sent: std::io::Result<()> = send.join().expect("a thread ends");
    sent.expect("the mesh has a route");
    let patience = socket.set_read_timeout(Some(PATIENCE));
    patience.expect("a socket has a time limit");
    assert_eq!(socket.recv(&mut [0; 16]).expect("it arrives"), 5);
}

#[test]
fn an_error_about_mesh_traffic_is_believed_from_nobody() {
    let mut mesh = mesh();
    let [from, to] = ["node-a", "node-b"].map(|node| mesh.addresses(node)[0]);
    let outside = mesh.underlay_of("node-a")[0];
    // From outside, and from a member through the tunnel.
    for (host, at) in [("controller", outside), ("node-c", from)] {
        let forger = mesh.namespace(host);
        crate::forged::fragmentation_needed(forger, at, from, to);
        let routes = mesh.namespace("node-a").ip(&format!("route get {to}"));
        assert!(!routes.contains("mtu"), "{host}: {routes}");
    }
    // The same is believed where there are no rules.
    let outside = mesh.underlay_of("node-b")[0];
    crate::forged::fragmentation_needed(mesh.namespace("controller"), outside, to, from);
    mesh.wait_until("node-b believes it", |mesh| {
        let routes = mesh.namespace("node-b").ip(&format!("route get {from}"));
        routes.contains("mtu 1000")
    });
}

#[test]
fn a_path_that_somebody_says_is_narrow_stays_as_wide_as_it_is() {
    for ipv6 in [false, true] {
        let mut mesh = Mesh::builder().epoch_seconds(60);
        for (node, n) in [("node-a", 1), ("node-b", 2), ("node-c", 3)] {
            let at = match ipv6 {
                true => format!("[fd00:6d65:7368::1:{n}]:51820"),
                false => format!("198.18.1.{n}:51820"),
            };
            mesh = mesh.node_setting(node, "advertise", format!("[{at:?}]"));
        }
        // Without rules, too: the sockets have to know better.
        let mut mesh = mesh.node_setting("node-b", "firewall", "\"off\"").start();
        let family = usize::from(ipv6);
        let ends = ["node-a", "node-b"].map(|node| mesh.underlay_of(node)[family]);
        let widths = [1440, 1420];
        let is_wide = |mesh: &Mesh, node: &str| {
            let interface = mesh.node_status(node).interface.expect("it runs");
            interface.mtu == widths[family]
                && interface.underlay_mtu == Some(1500)
                && !interface.fragments
        };
        mesh.wait_until("the underlay is measured", |mesh| {
            is_wide(mesh, "node-a") && is_wide(mesh, "node-b")
        });
        for (node, [own, other]) in [("node-a", ends), ("node-b", [ends[1], ends[0]])] {
            let inside = mesh.addresses(node)[family];
            for (host, at) in [("controller", own), ("node-c", inside)] {
                crate::forged::datagrams_too_large(mesh.namespace(host), at, own, other);
            }
        }
        // Looked at again by both, for which a change of addresses is reason enough.
        for node in ["node-a", "node-b"] {
            mesh.namespace(node).ip("addr add 198.18.9.9/32 dev lo");
        }
        for (from, to) in [("node-a", "node-b"), ("node-b", "node-a")] {
            let cut = fragments(&mesh, from);
            let bytes = noise(1 << 20, 7);
            let ends = (mesh.namespace(from), mesh.namespace(to));
            let arrived = transfer(ends.0, ends.1, mesh.addresses(to)[0], &bytes);
            assert!(arrived.is_ok_and(|arrived| arrived == bytes), "{from}");
            assert_eq!(fragments(&mesh, from), cut, "{from} cuts its datagrams");
            assert!(
                is_wide(&mesh, from),
                "{:?}",
                mesh.node_status(from).interface
            );
        }
    }
}

#[test]
fn nothing_for_the_mesh_leaves_in_the_clear_while_the_node_runs_or_was_killed() {
    let mut mesh = mesh();
    foreign_table(&mesh, "node-a");
    let detour = Detour::begin(&mut mesh);
    detour.assert_closed(&mesh, "while it runs");
    mesh.kill("node-a");
    detour.assert_closed(&mesh, "killed");
    detour.end(&mesh);
    mesh.start_node("node-a");
    mesh.wait_until_all_reach_all();
    assert_eq!(tables(&mesh, "node-a"), ["meshd-meshd0", "operators"]);

    let detour = Detour::begin(&mut mesh);
    assert!(mesh.stop("node-a").success());
    detour.assert_open(&mesh);
    assert_eq!(tables(&mesh, "node-a"), ["operators"]);
    assert!(
        mesh.log("node-a")
            .lines()
            .all(|line| !line.contains("firewall"))
    );
}

#[test]
fn nothing_for_the_mesh_leaves_in_the_clear_after_the_end_if_so_configured() {
    let builder = Mesh::builder().epoch_seconds(60);
    let builder = builder.node_setting("node-a", "firewall", "\"keep\"");
    let mut mesh = builder
        .node_setting("node-b", "firewall", "\"off\"")
        .start();
    foreign_table(&mesh, "node-a");
    let detour = Detour::begin(&mut mesh);
    assert!(mesh.stop("node-a").success());
    detour.assert_closed(&mesh, "stopped with keep");
    detour.end(&mesh);
    assert_eq!(tables(&mesh, "node-a"), ["meshd-meshd0", "operators"]);
    mesh.start_node("node-a");
    mesh.wait_until_all_reach_all();
}

#[test]
fn rules_that_somebody_flushes_are_put_back_and_said_once() {
    let mut mesh = mesh();
    foreign_table(&mesh, "node-a");
    let before = nft(&mesh, "node-a", &["list", "table", "inet", "meshd-meshd0"]);
    for flush in [
        vec!["flush", "ruleset"],
        vec!["flush", "chain", "inet", "meshd-meshd0", "incoming"],
    ] {
        let lines = mesh.log("node-a").matches("put back").count();
        let _ = nft(&mesh, "node-a", &flush);
        mesh.wait_until("the rules are there again", |mesh| {
            let now = nft(mesh, "node-a", &["list", "table", "inet", "meshd-meshd0"]);
            now == before && mesh.log("node-a").matches("put back").count() == lines + 1
        });
        assert_eq!(firewall(&mesh, "node-a"), (FirewallState::Active, None));
    }
    assert_eq!(mesh.log("node-a").matches("put back").count(), 2);
}

#[test]
fn a_firewall_that_is_missing_or_stalls_stops_no_node_and_is_said() {
    let mut mesh = Mesh::builder().nodes(2).epoch_seconds(60).prepare();
    let stalled = mesh.folder().join("stalled");
    std::fs::write(&stalled, "#!/bin/sh\nexec sleep 3600\n").expect("the folder can be written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&stalled, mode).expect("it is ours");
    let with = |program: &str| {
        let script = "for nft in /usr/sbin/nft /sbin/nft /usr/bin/nft /bin/nft; do \
                        test ! -e $nft || mount --bind \"$0\" $nft || exit; done; exec \"$@\"";
        ["unshare", "--mount", "sh", "-c", script, program].map(str::to_owned)
    };
    let (missing, stalled) = (with("/dev/null"), with(&stalled.display().to_string()));
    mesh.start_controller();
    for (node, wrapper) in [("node-a", &missing), ("node-b", &stalled)] {
        mesh.start_node_under(node, &wrapper.each_ref().map(String::as_str));
    }
    mesh.wait_until_all_reach_all();
    for (node, words) in [("node-a", "missing"), ("node-b", "did not answer")] {
        let (state, reason) = firewall(&mesh, node);
        assert_eq!(state, FirewallState::Failed, "{node}");
        assert!(
            reason.is_some_and(|reason| reason.contains(words)),
            "{node}"
        );
        assert_eq!(mesh.log(node).matches("no firewall: ").count(), 1, "{node}");
        let said = mesh.meshctl(node, &["status"]);
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains("firewall") && said.contains(words), "{said}");
    }
    assert!(
        mesh.stop("node-b").success(),
        "a stalled nft holds up no end"
    );
}

/// node-a with routes to node-b that lead past the tunnel, and node-b, which counts what comes there.
struct Detour {
    from: [IpAddr; 2],
    to: [IpAddr; 2],
    via: [IpAddr; 2],
}

impl Detour {
    fn begin(mesh: &mut Mesh) -> Self {
        let (from, to) = (mesh.addresses("node-a"), mesh.addresses("node-b"));
        let via = mesh.underlay_of("node-b");
        let came = to.map(|to| match to {
            IpAddr::V4(to) => format!("iifname eth0 ip daddr {to}"),
            IpAddr::V6(to) => format!("iifname eth0 ip6 daddr {to}"),
        });
        let from_mesh = from.map(|from| match from {
            IpAddr::V4(from) => format!("iifname eth0 ip saddr {from}"),
            IpAddr::V6(from) => format!("iifname eth0 ip6 saddr {from}"),
        });
        mesh.tally("node-b", "clear", &[came, from_mesh].concat());
        for (to, via) in to.iter().zip(via) {
            let node = mesh.namespace("node-a");
            node.ip(&format!("route add {to} via {via}"));
        }
        Self { from, to, via }
    }

    /// An application is told at once, and node-b gets nothing.
    fn assert_closed(&self, mesh: &Mesh, when: &str) {
        let before = mesh.tallied("node-b", "clear");
        for to in self.to {
            let error = self.connect(mesh, to).expect_err("nobody listens there");
            let told = !matches!(
                error.kind(),
                ErrorKind::TimedOut | ErrorKind::ConnectionRefused
            );
            assert!(told, "{when}: {error}");
            assert!(!ping::once(mesh.namespace("node-a"), to), "{when}");
        }
        // Nor does what is for others, from an address of the mesh.
        let own = mesh.namespace("node-a");
        for (from, to) in self.from.into_iter().zip(self.via) {
            datagram(own, Some(from), mesh.namespace("node-b"), to);
        }
        assert_eq!(mesh.tallied("node-b", "clear"), before, "{when}");
    }

    fn assert_open(&self, mesh: &Mesh) {
        let before = mesh.tallied("node-b", "clear");
        for to in self.to {
            let error = self.connect(mesh, to).expect_err("nobody listens there");
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "it gets there");
        }
        assert!(
            mesh.tallied("node-b", "clear") > before,
            "the count is deaf"
        );
    }

    fn connect(&self, mesh: &Mesh, to: IpAddr) -> std::io::Result<TcpStream> {
        let at = SocketAddr::new(to, 9);
        let connect = move || TcpStream::connect_timeout(&at, PATIENCE);
        let connecting = mesh.namespace("node-a").enter(connect);
        connecting.join().expect("a thread ends")
    }

    fn end(&self, mesh: &Mesh) {
        for to in self.to {
            mesh.namespace("node-a").ip(&format!("route del {to}"));
        }
    }
}

/// The host of a daemon that is in an attacker's hands: nothing that the daemon set up is in his way.
fn disarm(mesh: &mut Mesh, host: &str) {
    mesh.kill(host);
    let _ = nft(mesh, host, &["flush", "ruleset"]);
    filter_reverse_paths(mesh, host, "0");
}

fn filter_reverse_paths(mesh: &Mesh, host: &str, mode: &'static str) {
    let write = mesh.namespace(host).enter(move || {
        for conf in ["all", "default", "eth0"] {
            let path = format!("/proc/sys/net/ipv4/conf/{conf}/rp_filter");
            std::fs::write(path, mode).expect("root may");
        }
    });
    write.join().expect("a thread ends");
}

fn reached_by_member(
    mesh: &Mesh,
    member: &str,
    (node, addresses): (&str, [IpAddr; 2]),
) -> [Reached; 2] {
    addresses.map(|to| reached(mesh.namespace(member), mesh.namespace(node), to))
}

fn reached(from: &Namespace, service: &Namespace, to: IpAddr) -> Reached {
    Reached {
        tcp: connects(from, service, to),
        udp: datagram(from, None, service, to),
        icmp: ping::once(from, to),
    }
}

fn connects(from: &Namespace, service: &Namespace, to: IpAddr) -> bool {
    let listen = service.enter(move || TcpListener::bind((to, 0)));
    let listener = listen.join().expect("a thread ends");
    let listener = listener.expect("the address is there");
    let at = listener.local_addr().expect("it is bound");
    let connect = from.enter(move || TcpStream::connect_timeout(&at, SOON).is_ok());
    connect.join().expect("a thread ends")
}

/// Whether a datagram arrives, sent perhaps from an address that is none of the sender's links.
fn datagram(from: &Namespace, source: Option<IpAddr>, service: &Namespace, to: IpAddr) -> bool {
    let bind = service.enter(move || UdpSocket::bind((to, 0)));
    let socket = bind.join().expect("a thread ends");
    let socket = socket.expect("the address is there");
    let at = socket.local_addr().expect("it is bound");
    let send = from.enter(move || {
        let any: IpAddr = match to {
            IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        // A firewall's refusal is an answer too, and so is an address that is gone.
        let socket = UdpSocket::bind((source.unwrap_or(any), 0))?;
        (0..3).try_for_each(|_| socket.send_to(b"hello", at).map(drop))
    });
    let _: std::io::Result<()> = send.join().expect("a thread ends");
    let patience = socket.set_read_timeout(Some(SOON));
    patience.expect("a socket has a time limit");
    socket.recv(&mut [0; 16]).is_ok()
}

/// The last address of the default range, a /15.
fn broadcast(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => std::net::Ipv4Addr::from(u32::from(v4) | 0x1_FFFF).into(),
        IpAddr::V6(_) => panic!("IPv6 has none"),
    }
}

/// A table of an operator's, which is none of meshd's business.
fn foreign_table(mesh: &Mesh, host: &str) {
    let _ = nft(mesh, host, &["add", "table", "inet", "operators"]);
    let _ = nft(mesh, host, &["add", "chain", "inet", "operators", "theirs"]);
}

/// Names of the tables of `host`, in order.
fn tables(mesh: &Mesh, host: &str) -> Vec<String> {
    let said = nft(mesh, host, &["list", "tables"]);
    let names = said
        .lines()
        .filter_map(|line| line.strip_prefix("table inet "));
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.sort();
    names
}

fn nft(mesh: &Mesh, host: &str, arguments: &[&str]) -> String {
    let output = mesh.exec(host, &[&["nft"], arguments].concat());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Fragments of either family that `host` has made.
fn fragments(mesh: &Mesh, host: &str) -> u64 {
    let output = mesh.exec(host, &["cat", "/proc/net/snmp6", "/proc/net/snmp"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let v6 = text
        .lines()
        .find_map(|line| line.strip_prefix("Ip6FragCreates"));
    let mut rows = text.lines().filter(|line| line.starts_with("Ip:"));
    let (names, counts) = (rows.next().unwrap_or(""), rows.next().unwrap_or(""));
    let mut columns = names.split_whitespace().zip(counts.split_whitespace());
    let v4 = columns.find(|(name, _)| *name == "FragCreates");
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let counts = v4.and_then(|(_, v4)| number(v4)).zip(v6.and_then(number));
    let (v4, v6) = counts.expect("Linux counts fragments");
    v4 + v6
}

fn firewall(mesh: &Mesh, node: &str) -> (FirewallState, Option<String>) {
    let interface = mesh.node_status(node).interface;
    let firewall = interface.expect("it runs").firewall;
    (firewall.state, firewall.reason)
}

/// Packets that get through do so in milliseconds.
const SOON: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(20);
