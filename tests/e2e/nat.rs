//! Nodes behind an address translator that forgets who is silent.

use std::io::Write as _;
use std::process::Stdio;
use tests::harness::Mesh;

/// Without probes and without a word of anybody, longer than the translator remembers.
#[test]
fn an_idle_node_behind_an_address_translator_is_still_reached() {
    let mut mesh = Mesh::builder()
        .epoch_seconds(3600)
        .controller_setting("max_benchmark_age", 3600)
        .every_node_setting("probe_seconds", 0)
        .node_setting("node-a", "persistent_keepalive", 1)
        .prepare();
    translate(&mut mesh, "node-a", "nat-a", 50);
    translate(&mut mesh, "node-c", "nat-c", 51);
    mesh.start_controller();
    for node in mesh.nodes() {
        mesh.start_node(&node);
    }
    mesh.wait_until_members(&["node-a", "node-b"]);
    // The node that was told, the one in the open, and the one that finds out.
    mesh.wait_until("both translators are seen", |mesh| {
        let seen = |node| {
            let status = mesh.node_status(node);
            let mapped = status.mapped.map(|it| it.ip().to_string());
            (status.keepalive, mapped)
        };
        let expected = [
            ("node-a", Some(1), Some("198.18.1.51")),
            ("node-b", None, None),
            ("node-c", Some(25), Some("198.18.1.52")),
        ];
        expected
            .iter()
            .all(|(node, every, at)| seen(node) == (*every, at.map(str::to_owned)))
    });
    for timeout in ["udp_timeout", "udp_timeout_stream"] {
        let path = format!("/proc/sys/net/netfilter/nf_conntrack_{timeout}");
        let write = mesh.namespace("nat-a").enter(|| std::fs::write(path, "3"));
        let written = write.join().expect("a thread ends");
        written.expect("a translator can be made forgetful");
    }
    // Keepalives, and nothing else, until any mapping of before is long forgotten.
    let empty = "ip saddr 198.18.1.1 ip daddr 198.18.1.2 udp dport 51820 udp length 40";
    mesh.tally("nat-a", "keepalives", &[empty.to_owned()]);
    mesh.wait_until("the pair has long been idle", |mesh| {
        mesh.tallied("nat-a", "keepalives") > 5
    });
    assert!(mesh.ping("node-b", "node-a"), "it is reached");
}

/// Puts `node` behind a translator of its own: the only way out of it, and into it from anywhere.
fn translate(mesh: &mut Mesh, node: &str, translator: &str, index: usize) {
    mesh.add_host(translator, index);
    let via = format!("198.18.1.{}", index + 1);
    let inside = mesh.underlay_addresses(node)[0].clone();
    for host in ["controller", "node-a", "node-b", "node-c"] {
        if host != node {
            let host = mesh.namespace(host);
            host.ip(&format!("route add blackhole {inside}"));
        }
    }
    let behind = mesh.namespace(node);
    behind.ip("-6 addr flush dev eth0");
    behind.ip("addr flush dev eth0");
    behind.ip(&format!("addr add {inside}/32 dev eth0"));
    behind.ip(&format!("route add {via} dev eth0"));
    behind.ip(&format!("route add default via {via}"));
    let rules = "table ip nat {\n\
         chain out {\n\
         type nat hook postrouting priority srcnat;\n\
         oifname eth0 masquerade\n\
         }\n\
         chain in {\n\
         type filter hook input priority 0;\n\
         ct state new udp dport 51820 drop\n\
         }\n\
         }\n";
    // A redirect would lead the node past it.
    let redirects = ["all", "eth0"].map(|it| (format!("conf/{it}/send_redirects"), "0"));
    let variables = [("ip_forward".to_owned(), "1")]
        .into_iter()
        .chain(redirects);
    for (variable, value) in variables {
        let path = format!("/proc/sys/net/ipv4/{variable}");
        let write = mesh
            .namespace(translator)
            .enter(move || std::fs::write(path, value));
        let written = write.join().expect("a thread ends");
        written.unwrap_or_else(|error| panic!("{variable}: {error}"));
    }
    let mut nft = mesh.command(translator, "nft");
    let child = nft.args(["-f", "-"]).stdin(Stdio::piped()).spawn();
    let mut child = child.expect("the tests need `nft` (nftables)");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(rules.as_bytes()).expect("nft reads");
    drop(stdin);
    assert!(child.wait().is_ok_and(|it| it.success()), "nft: {rules}");
}
