//! Counts of what the kernel of a host sees: nftables counters before routing. They go on while
//! daemons die and interfaces come and go.

use super::mesh::Mesh;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::Stdio;

/// Counters.
impl Mesh {
    /// From now on, counts under `name` what `host` gets and what matches one of these expressions,
    /// as nft has them.
    ///
    /// # Panics
    /// When nft does not take it.
    pub fn tally(&self, host: &str, name: &str, expressions: &[String]) {
        let rules = expressions
            .iter()
            .map(|expression| format!("add rule inet tally in {expression} counter name {name}\n"));
        let script = format!(
            "add table inet tally\n\
             add chain inet tally in {{ type filter hook prerouting priority raw; }}\n\
             add counter inet tally {name}\n{}",
            rules.collect::<String>()
        );
        let mut command = self.command(host, "nft");
        let child = command.args(["-f", "-"]).stdin(Stdio::piped()).spawn();
        let mut child = child.expect("the tests need `nft` (nftables)");
        let mut stdin = child.stdin.take().expect("it is piped");
        stdin.write_all(script.as_bytes()).expect("nft reads");
        drop(stdin);
        assert!(child.wait().is_ok_and(|it| it.success()), "nft: {script}");
    }

    /// Packets that were counted under `name`.
    ///
    /// # Panics
    /// When there is no such counter.
    #[must_use]
    pub fn tallied(&self, host: &str, name: &str) -> u64 {
        let output = self.exec(host, &["nft", "list", "counter", "inet", "tally", name]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut words = text.split_whitespace().skip_while(|it| *it != "packets");
        let count = words.nth(1).and_then(|count| count.parse().ok());
        count.unwrap_or_else(|| panic!("no counter {name} at {host}: {output:?}"))
    }

    /// Counts under `name` the inner packets that `host` is delivered from `node`.
    pub fn tally_delivered(&self, host: &str, name: &str, node: &str) {
        let from = self.addresses(node).map(|address| match address {
            IpAddr::V4(v4) => format!("iifname meshd0 ip saddr {v4}"),
            IpAddr::V6(v6) => format!("iifname meshd0 ip6 saddr {v6}"),
        });
        self.tally(host, name, &from);
    }

    /// Counts under `name` the WireGuard datagrams that `host` gets from `node`.
    pub fn tally_datagrams(&self, host: &str, name: &str, node: &str) {
        let from = self.underlay_of(node).map(|address| match address {
            IpAddr::V4(v4) => format!("iifname eth0 ip saddr {v4} udp dport 51820"),
            IpAddr::V6(v6) => format!("iifname eth0 ip6 saddr {v6} udp dport 51820"),
        });
        self.tally(host, name, &from);
    }
}
